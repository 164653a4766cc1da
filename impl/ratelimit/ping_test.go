package ratelimit

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/redisclient/redistest"
)

const pingTimeout = 5 * time.Second

// TestPing: what Ping finds is what a store meets with, and nothing is left in Redis.
func TestPing(t *testing.T) {
	server := redistest.New(t)
	server.Password = "p@ss/word"
	withTLS := server.UseTLS(redistest.NewAuthority(t), time.Now().Add(time.Hour), false, server.Host())
	server.Start()
	plain := "redis://:p%40ss%2Fword@" + server.Addr
	slow := func(by time.Duration) string {
		d := &delay{to: server.Addr}
		d.by.Store(int64(by))
		return "redis://:p%40ss%2Fword@" + d.listen(t)
	}
	for _, tt := range []struct {
		name, url, want string // the error, without the rest of what an operating system says
		code            string // of a redisclient.RefusedError
		before, after   []any
	}{
		{name: "works", url: plain},
		{name: "works over TLS", url: "rediss://:p%40ss%2Fword@" + withTLS + "/3?skip_verify=true"},
		{name: "20 ms away", url: slow(20 * time.Millisecond)},
		{name: "150 ms away", url: slow(150 * time.Millisecond)}, // for a store too far
		{name: "no password", url: "redis://" + server.Addr, code: "NOAUTH"},
		{name: "wrong password", url: "redis://:wrong@" + server.Addr, code: "WRONGPASS"},
		{name: "no such database", url: plain + "/99", code: "ERR"},
		{name: "replica", url: plain, code: "READONLY", before: []any{"REPLICAOF", "127.0.0.1", "1"}, after: []any{"REPLICAOF", "NO", "ONE"}},
		{name: "full", url: plain, code: "OOM", before: []any{"CONFIG", "SET", "maxmemory", "1"}, after: []any{"CONFIG", "SET", "maxmemory", "0"}},
		{name: "unknown certificate", url: "rediss://:p%40ss%2Fword@" + withTLS, want: "its certificate is signed by an unknown authority"},
		{name: "TLS to plain", url: "rediss://:p%40ss%2Fword@" + server.Addr, want: "no answer in time"}, // Redis waits for more of what is no command
		{name: "plain to TLS", url: "redis://:p%40ss%2Fword@" + withTLS, want: "connection"},
		{name: "nobody there", url: "redis://:wrong@" + redistest.New(t).Addr, want: "connection refused"},
		{name: "no such host", url: "redis://:wrong@no-such-host.invalid", want: "its host name has no address"},
		{name: "no Redis, and repeats what it is told", url: "redis://:wrong@" + parrot(t, "HTTP/1.1 400 "), want: "its answer could not be understood"},
		{name: "an error that is none of Redis'", url: "redis://:wrong@" + parrot(t, "-"), want: "its answer could not be understood"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.before != nil {
				server.Do(tt.before...)
			}
			keys := resetdKeys(server)
			pong, err := Ping(t.Context(), target(t, tt.url), pingTimeout)
			if left := resetdKeys(server); left != keys {
				t.Errorf("it leaves %s", left)
			}
			var refused *redisclient.RefusedError
			switch {
			case errors.As(err, &refused) != (tt.code != "") || tt.code != "" && refused.Code != tt.code:
				t.Errorf("the error is %v, want code %q", err, tt.code)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("the error is %v, want %s", err, tt.want)
			case tt.want == "" && tt.code == "" && (err != nil || pong.RoundTrip <= 0):
				t.Errorf("%+v, %v", pong, err)
			}
			if err != nil && (strings.Contains(err.Error(), "wrong") || strings.Contains(err.Error(), "p@ss") || strings.Contains(err.Error(), "p%40")) {
				t.Errorf("the password is in %v", err)
			}
			store := open(t, Options{Redis: target(t, tt.url), Prefix: "test"})
			works := err == nil && pong.RoundTrip <= redisclient.MaxRoundTrip
			if inUse := store.InUse(); works != (inUse == Redis) {
				t.Errorf("Ping says %+v, %v, and a store counts in %s", pong, err, inUse)
			}
			_ = store.Close()
			if tt.after != nil {
				server.Do(tt.after...)
			}
		})
	}
}

// parrot answers whatever it is sent with it, in one line. It returns its address.
func parrot(t *testing.T, before string) string {
	t.Helper()
	return accepting(t, func(conn net.Conn) {
		for told := make([]byte, 4096); ; {
			n, err := conn.Read(told)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(conn, "%s%s\r\n", before, strings.ReplaceAll(string(told[:n]), "\r\n", " "))
		}
	})
}

// resetdKeys are the names of all keys but those of a store that the test has opened.
func resetdKeys(server *redistest.Server) string {
	var names []string
	for _, key := range server.Do("KEYS", "resetd:*").([]any) {
		names = append(names, key.(string))
	}
	return strings.Join(names, " ")
}

// TestPingHung: no longer than it is told to wait.
func TestPingHung(t *testing.T) {
	server := redistest.Start(t)
	d := &delay{to: server.Addr}
	d.by.Store(int64(time.Minute))
	began := time.Now()
	_, err := Ping(t.Context(), target(t, "redis://"+d.listen(t)), 300*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("the error is %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestPingEvicts: a policy matters where there is a bound to memory.
func TestPingEvicts(t *testing.T) {
	server := redistest.Start(t)
	for _, tt := range []struct{ memory, policy, want string }{
		{"0", "noeviction", ""}, {"0", "allkeys-lru", ""}, {"100mb", "noeviction", ""},
		{"100mb", "allkeys-lru", "allkeys-lru"}, {"100mb", "volatile-ttl", "volatile-ttl"},
	} {
		server.Do("CONFIG", "SET", "maxmemory", tt.memory, "maxmemory-policy", tt.policy)
		pong, err := Ping(t.Context(), target(t, server.URL()), pingTimeout)
		if err != nil || pong.Evicts != tt.want {
			t.Errorf("%s, %s: %+v, %v", tt.memory, tt.policy, pong, err)
		}
	}
}
