package ratelimit

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisServer is a real redis-server on a port of its own.
type redisServer struct {
	tb   testing.TB
	port string
	dir  string
	args []string
	cmd  *exec.Cmd
}

// startRedis starts one. RESETD_REDIS_SERVER names the program if it is not
// redis-server on the PATH; "skip" there leaves these tests out, which nobody
// does by accident.
func startRedis(tb testing.TB, args ...string) *redisServer {
	tb.Helper()
	s := newRedis(tb, args...)
	s.start()
	return s
}

// newRedis reserves a port and starts nothing.
func newRedis(tb testing.TB, args ...string) *redisServer {
	tb.Helper()
	s := &redisServer{tb: tb, dir: tb.TempDir(), args: args, port: freePort(tb)}
	redisProgram(tb)
	tb.Cleanup(s.kill)
	return s
}

func redisProgram(tb testing.TB) string {
	tb.Helper()
	program := os.Getenv("RESETD_REDIS_SERVER")
	if program == "skip" {
		tb.Skip("RESETD_REDIS_SERVER=skip")
	}
	if program == "" {
		program = "redis-server"
	}
	path, err := exec.LookPath(program)
	if err != nil {
		tb.Fatalf("this test needs a real Redis: install it (Debian and Ubuntu: apt-get install redis-server; "+
			"macOS: brew install redis), or name the program in RESETD_REDIS_SERVER, "+
			"or leave these tests out with RESETD_REDIS_SERVER=skip: %v", err)
	}
	return path
}

func freePort(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (s *redisServer) url() string { return "redis://127.0.0.1:" + s.port + "/0" }

// start returns when the server accepts connections.
func (s *redisServer) start() {
	s.tb.Helper()
	args := append([]string{"--port", s.port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no"}, s.args...)
	s.cmd = exec.Command(redisProgram(s.tb), args...)
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.tb.Fatal(err)
	}
	s.cmd.Stderr = s.cmd.Stdout
	if err := s.cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	var log strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		log.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "Ready to accept connections") {
			go func() {
				for lines.Scan() { // or it would block on a full pipe
				}
			}()
			return
		}
	}
	s.tb.Fatalf("redis-server did not start:\n%s", &log)
}

func (s *redisServer) signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *redisServer) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // also ends a stopped process
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// do sends a command over a connection of its own.
func (s *redisServer) do(args ...any) any {
	s.tb.Helper()
	return s.doAs("", args...)
}

func (s *redisServer) doAs(password string, args ...any) any {
	s.tb.Helper()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + s.port, Password: password, MaxRetries: -1})
	defer client.Close()
	answer, err := client.Do(context.Background(), args...).Result()
	if err != nil {
		s.tb.Fatalf("%v: %v", args, err)
	}
	return answer
}

// asked is how many scripts have been run.
func (s *redisServer) asked() (runs int) {
	s.tb.Helper()
	stats := s.do("INFO", "commandstats").(string)
	for _, found := range regexp.MustCompile(`cmdstat_eval(?:sha)?:calls=(\d+)`).FindAllStringSubmatch(stats, -1) {
		n, _ := strconv.Atoi(found[1])
		runs += n
	}
	return runs
}

// keys are all keys of database 0 but the one of the probe.
func (s *redisServer) keys() []string {
	s.tb.Helper()
	var keys []string
	for _, key := range s.do("KEYS", "*").([]any) {
		if key != "resetd:probe" {
			keys = append(keys, key.(string))
		}
	}
	return keys
}

// certificate writes a self-signed one for 127.0.0.1 and returns the paths.
func certificate(tb testing.TB) (cert, key string) {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		tb.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: der},
		key:  {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return cert, key
}

// delay is a proxy that holds each answer back.
type delay struct {
	to string
	by atomic.Int64
}

// listen returns the address.
func (d *delay) listen(tb testing.TB) string { return accepting(tb, d.forward) }

// accepting serves each connection to the address that it returns, until the test ends.
func accepting(tb testing.TB, serve func(net.Conn)) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

func (d *delay) forward(client net.Conn) {
	server, err := net.Dial("tcp", d.to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	answer := make([]byte, 64<<10)
	for {
		n, err := server.Read(answer)
		if err != nil {
			return
		}
		time.Sleep(time.Duration(d.by.Load()))
		if _, err := client.Write(answer[:n]); err != nil {
			return
		}
	}
}
