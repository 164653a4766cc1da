package redisclient

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/redisclient/redistest"
	"github.com/resetd/resetd/impl/upstream"
)

// TestNames: a server is accepted if its certificate is for its own address or for the host of the URL, and
// refused otherwise.
func TestNames(t *testing.T) {
	authority := redistest.NewAuthority(t)
	for _, tt := range []struct {
		name  string
		hosts []string // of the certificate
		other bool     // the certificate is from another authority
		want  error
	}{
		{name: "its own address", hosts: []string{"127.0.0.1"}},
		{name: "the host of the URL", hosts: []string{"redis.internal"}},
		{name: "all names of the domain", hosts: []string{"*.internal"}},
		{name: "another address", hosts: []string{"127.0.0.2"}, want: upstream.ErrOtherName},
		{name: "another name", hosts: []string{"redis.example.com"}, want: upstream.ErrOtherName},
		{name: "another authority", hosts: []string{"127.0.0.1", "redis.internal"}, other: true, want: upstream.ErrUnknownAuthority},
	} {
		t.Run(tt.name, func(t *testing.T) {
			issuer := authority
			if tt.other {
				issuer = redistest.NewAuthority(t)
			}
			certificate, key := issuer.Issue(time.Now().Add(time.Hour), tt.hosts...)
			pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
			if err != nil {
				t.Fatal(err)
			}
			listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go serve(listener, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
			target, wrong := Parse(Config{URL: "rediss://redis.internal:6379?addr=127.0.0.1:6379", CA: authority.PEM})
			if wrong != nil {
				t.Fatal(wrong)
			}
			target.dialTimeout = time.Minute
			conn, err := target.dialTLS(t.Context(), "tcp", listener.Addr().String())
			if err == nil {
				_ = conn.Close()
			}
			if (err == nil) != (tt.want == nil) || err != nil && !errors.Is(upstream.Cause(err), tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

func serve(listener net.Listener, handle func(net.Conn)) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			handle(conn)
		}()
	}
}

// TestOnce: a command whose answer is lost is not sent again, in any kind of deployment: a request would be
// kept twice.
func TestOnce(t *testing.T) {
	for _, kind := range []Kind{Single, Cluster} {
		t.Run(string(kind), func(t *testing.T) {
			var wanted atomic.Int64
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			host, port, _ := net.SplitHostPort(listener.Addr().String())
			go serve(listener, func(conn net.Conn) {
				for told := make([]byte, 4096); ; {
					n, err := conn.Read(told)
					if err != nil {
						return
					}
					switch text := strings.ToLower(string(told[:n])); {
					case strings.Contains(text, "incr"):
						wanted.Add(1)
						return // without an answer
					case strings.Contains(text, "slots"):
						_, _ = io.WriteString(conn, "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$"+
							"9\r\n"+host+"\r\n:"+port+"\r\n$1\r\nx\r\n")
					default:
						_, _ = io.WriteString(conn, "-ERR unknown command\r\n")
					}
				}
			})
			url := "redis://" + listener.Addr().String()
			if kind == Cluster {
				url += "?addr=" + listener.Addr().String()
			}
			target, wrong := Parse(Config{URL: url})
			if wrong != nil {
				t.Fatal(wrong)
			}
			client := New(target, time.Minute, 2)
			defer client.Close()
			if err := client.Incr(t.Context(), "a").Err(); err == nil {
				t.Error("no error")
			}
			if n := wanted.Swap(0); n != 1 {
				t.Errorf("a command was sent %d times", n)
			}
			pipe := client.Pipeline()
			pipe.Incr(t.Context(), "a")
			if _, err := pipe.Exec(t.Context()); err == nil {
				t.Error("no error")
			}
			if n := wanted.Load(); n != 1 {
				t.Errorf("a command of a pipeline was sent %d times", n)
			}
		})
	}
}

// TestCode: only the code of an error of Redis is logged.
func TestCode(t *testing.T) {
	for _, tt := range []struct{ said, want string }{
		{"READONLY You can't write against a read only replica.", "READONLY"},
		{"NOPERM this user has no permissions to run the 'evalsha' command", "NOPERM"},
		{"ERR ACL failure in script: User small has no permissions to run the 'get' command script: 1, on @user_script:1.", "NOPERM"},
		{"ERR Error running script: The user executing the script can't run this command or subcommand script", "NOPERM"},
		{"ERR unknown command 'get'", "ERR"},
		{"hunter2 is what you said", ""},
		{"HTTP/1.1 400 hunter2", ""},
	} {
		if got := Code(said(tt.said)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.said, got, tt.want)
		}
	}
}

type said string

func (s said) Error() string { return string(s) }
func (said) RedisError()     {}
