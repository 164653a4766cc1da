// Package redistest starts Redis for tests: real servers (single ones, Sentinels with their primary and replica,
// Clusters, TLS with its own authority), and miniredis in the test's own process, which needs only Go.
package redistest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Server is a Redis with its own address.
type Server struct {
	Addr     string
	Password string   // empty: no password
	Args     []string // in addition to those of Start
	Dir      string   // its working directory

	tb   testing.TB
	cmd  *exec.Cmd
	mini *miniredis.Miniredis // in place of cmd
}

// New reserves an address, and starts nothing.
func New(tb testing.TB, args ...string) *Server {
	tb.Helper()
	program(tb)
	s := &Server{tb: tb, Addr: freeAddr(tb), Dir: tb.TempDir(), Args: args}
	tb.Cleanup(s.Kill)
	return s
}

// Start starts a server without a password.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	s := New(tb, args...)
	s.Start()
	return s
}

// StartInProcess starts a Redis in the test's own process (miniredis). It is for tests of our own code. Tests about Redis
// itself need a real server: miniredis has no CONFIG, maxmemory, ACL, TLS, replicas, Sentinels or Cluster, and runs
// scripts in its own Lua. It keeps its keys when it is killed.
func StartInProcess(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{tb: tb, Addr: freeAddr(tb), mini: miniredis.NewMiniRedis()}
	s.mini.ClockTTL(true)
	tb.Cleanup(s.Kill)
	s.Start()
	return s
}

// program finds redis-server, or the program that RESETD_REDIS_SERVER names.
func program(tb testing.TB) string {
	tb.Helper()
	name := os.Getenv("RESETD_REDIS_SERVER")
	if name == "" {
		name = "redis-server"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		tb.Fatalf("this test needs a real Redis: install it (Debian and Ubuntu: apt-get install redis-server; "+
			"macOS: brew install redis), or name the program in RESETD_REDIS_SERVER: %v", err)
	}
	return path
}

// busOffset is the distance between the ports of a Cluster's node for clients and for other nodes.
const busOffset = 10_000

// freeAddr returns an address with a free port, also for a Cluster's bus. If all of 127.0.0.0/8 is this machine, nothing
// else listens on the address or connects from it, so the port stays free while Redis is down.
func freeAddr(tb testing.TB) string {
	tb.Helper()
	for range 100 {
		a, b, c := rand.IntN(256), rand.IntN(254), rand.IntN(10_000) //nolint:gosec // no secret
		host, port := fmt.Sprintf("127.10.%d.%d", a, b+1), 20_000+c
		if !canListen(host, 0) {
			host = "127.0.0.1"
		}
		if canListen(host, port) && canListen(host, port+busOffset) {
			return net.JoinHostPort(host, strconv.Itoa(port))
		}
	}
	tb.Fatal("no address is free")
	return ""
}

func canListen(host string, port int) bool {
	listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	_ = listener.Close()
	return true
}

// Host returns the host of the server's address.
func (s *Server) Host() string { host, _, _ := net.SplitHostPort(s.Addr); return host }

// Port returns the port of the server's address.
func (s *Server) Port() string { _, port, _ := net.SplitHostPort(s.Addr); return port }

// URL returns REDIS_URL for this server.
func (s *Server) URL() string {
	if s.Password == "" {
		return "redis://" + s.Addr + "/0"
	}
	return "redis://:" + s.Password + "@" + s.Addr + "/0"
}

// UseSocket makes a server that is not started yet also listen at a Unix socket, and returns its path.
func (s *Server) UseSocket() (path string) {
	s.tb.Helper()
	dir, err := os.MkdirTemp("", "redis") // a socket's path may have 108 characters, and TempDir may be longer
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "redis.sock")
	s.Args = append(s.Args, "--unixsocket", path)
	return path
}

// Start starts the server, and returns when it accepts connections.
func (s *Server) Start() {
	s.tb.Helper()
	if s.mini != nil {
		s.mini.RequireAuth(s.Password)
		if err := s.mini.StartAddr(s.Addr); err != nil {
			s.tb.Fatal(err)
		}
		return
	}
	args := []string{"--port", s.Port(), "--bind", s.Host(), "--dir", s.Dir, "--save", "", "--appendonly", "no"}
	if s.Password != "" {
		args = append(args, "--requirepass", s.Password, "--masterauth", s.Password)
	}
	s.run("Ready to accept connections", append(args, s.Args...)...)
}

func (s *Server) run(ready string, args ...string) {
	s.tb.Helper()
	s.cmd = exec.Command(program(s.tb), args...) //nolint:gosec // the tester's program
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
		if strings.Contains(lines.Text(), ready) {
			go func() { _, _ = io.Copy(io.Discard, out) }() // otherwise it would block on a full pipe
			return
		}
	}
	s.tb.Fatalf("redis-server did not start:\n%s", &log)
}

// Keep makes Redis write its data to disk, so that a restart finds it.
func (s *Server) Keep() {
	s.Args = append(s.Args, "--appendonly", "yes", "--appendfsync", "everysec")
	s.Kill()
	s.Start()
}

// Kill ends the server at once, even if it is stopped.
func (s *Server) Kill() {
	if s.mini != nil {
		s.mini.Close()
	}
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Signal sends a signal to the server.
func (s *Server) Signal(signal os.Signal) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.tb.Error(err)
	}
}

// Do sends a command over its own connection.
func (s *Server) Do(args ...any) any {
	s.tb.Helper()
	return do(s.tb, &redis.Options{Addr: s.Addr, Password: s.Password}, args...)
}

func do(tb testing.TB, options *redis.Options, args ...any) any {
	tb.Helper()
	answer, err := try(options, args...)
	if err != nil {
		tb.Errorf("redis: %v: %v", args, err)
	}
	return answer
}

// try sends a command over its own connection.
func try(options *redis.Options, args ...any) (any, error) {
	options.MaxRetries, options.ReadTimeout = -1, time.Minute
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }() // nothing is lost with its connection
	return client.Do(context.Background(), args...).Result()
}

// SetPassword changes the password, and ends all connections.
func (s *Server) SetPassword(password string) {
	s.tb.Helper()
	s.Do("CONFIG", "SET", "requirepass", password)
	s.Password = password
	s.Do("CLIENT", "KILL", "TYPE", "normal")
}

// Keys returns all keys of database 0 but those of a limiter's probe.
func (s *Server) Keys() (keys []string) {
	s.tb.Helper()
	all, _ := s.Do("KEYS", "*").([]any)
	for _, key := range all {
		if key := key.(string); !strings.Contains(key, ":probe:") {
			keys = append(keys, key)
		}
	}
	return keys
}

// Scripts returns how many scripts have been run.
func (s *Server) Scripts() (runs int) {
	s.tb.Helper()
	stats, _ := s.Do("INFO", "commandstats").(string)
	for _, found := range regexp.MustCompile(`cmdstat_eval(?:sha)?:calls=(\d+)`).FindAllStringSubmatch(stats, -1) {
		n, _ := strconv.Atoi(found[1])
		runs += n
	}
	return runs
}

// until waits until a condition holds.
func until(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	for began := time.Now(); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 2*time.Minute {
			tb.Fatalf("2 minutes, and not yet: %s", what)
		}
	}
}
