package ratelimit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/redisclient/redistest"
)

// promise is what a request may wait for Redis. See redisclient.Patience.
const promise = 250 * time.Millisecond

// logBuffer collects log records from several goroutines.
type logBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// messages are the records' messages and reasons, in order.
func (b *logBuffer) messages(tb testing.TB) (messages []string) {
	tb.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range bytes.Lines(b.Bytes()) {
		var record struct{ Msg, Reason string }
		if err := json.Unmarshal(line, &record); err != nil {
			tb.Fatal(err)
		}
		messages = append(messages, strings.TrimSpace(record.Msg+" "+record.Reason))
	}
	return messages
}

func TestRedisLimits(t *testing.T) {
	server := redistest.Start(t)
	one := open(t, Options{Redis: target(t, server.URL())}).Limiter("ip", mustRate(t, "5-M,7-H"))
	two := open(t, Options{Redis: target(t, server.URL())}).Limiter("ip", mustRate(t, "5-M,7-H"))
	other := two.store.Limiter("recipient", mustRate(t, "1-M"))
	wantInUse(t, one.store, Redis)

	wantTakes(t, one, "192.0.2.1", 3, 3)
	d := wantTakes(t, two, "192.0.2.1", 100, 2)
	if d.RetryAfter < 50 || d.RetryAfter > 60 {
		t.Errorf("retry after %d", d.RetryAfter)
	}
	if got := d.Windows[1].Remaining; got != 2 {
		t.Errorf("%d left in the hour, want 2", got)
	}
	wantTakes(t, other, "192.0.2.1", 2, 1) // a limit of its own

	wantInUse(t, one.store, Redis)
	wantInUse(t, two.store, Redis)
	keys := server.Keys()
	if len(keys) != 3 {
		t.Errorf("%d keys, want 3: %q", len(keys), keys)
	}
	for _, key := range keys {
		if !regexp.MustCompile(`^resetd:(ip:\{[A-Za-z0-9_-]{22}\}:[MH]|recipient:\{[A-Za-z0-9_-]{22}\}:M)$`).MatchString(key) {
			t.Errorf("key %q", key)
		}
		if ttl := server.Do("PTTL", key).(int64); ttl <= 0 || ttl > 3_600_000 {
			t.Errorf("%q lives for %d ms", key, ttl)
		}
	}
}

// The wait is true with Redis, too.
func TestRedisRetryAfter(t *testing.T) {
	server := redistest.Start(t)
	l := open(t, Options{Redis: target(t, server.URL())}).Limiter("ip", mustRate(t, "5-M"))
	if d := wantTakes(t, l, "a", 6, 5); d.RetryAfter < 50 || d.RetryAfter > 60 {
		t.Errorf("retry after %d", d.RetryAfter)
	}
	server.Do("PEXPIRE", server.Keys()[0], 1500) // as if most of the minute had gone by
	d := wantTakes(t, l, "a", 1, 0)
	if d.RetryAfter > 2 {
		t.Errorf("retry after %d, want 2: 1.5, rounded up", d.RetryAfter)
	}
	time.Sleep(time.Duration(d.RetryAfter) * time.Second)
	wantTakes(t, l, "a", 6, 5)
	wantInUse(t, l.store, Redis)
}

// However the end of the window falls into the second, the wait is enough.
func TestRedisWaitIsEnough(t *testing.T) {
	server := redistest.Start(t)
	l := open(t, Options{Redis: target(t, server.URL())}).Limiter("ip", mustRate(t, "1-M"))
	wantTakes(t, l, "a", 2, 1)
	key := server.Keys()[0]
	for i := range 10 {
		server.Do("PEXPIRE", key, 30_000+i*100)
		d := wantTakes(t, l, "a", 1, 0)
		if left := server.Do("PTTL", key).(int64); int64(d.RetryAfter)*1000 < left {
			t.Errorf("retry after %d s, but the window is open for another %d ms", d.RetryAfter, left)
		}
	}
}

// TestRedisAsks: a request costs one round trip for all of its windows, whatever
// becomes of it.
func TestRedisAsks(t *testing.T) {
	server := redistest.Start(t)
	l := open(t, Options{Redis: target(t, server.URL())}).Limiter("ip", mustRate(t, "9-S,2-M,3-H,4-D"))
	for _, allowed := range []bool{true, true, false} {
		before := server.Scripts()
		if got := l.Take(t.Context(), "a").Allowed; got != allowed {
			t.Errorf("allowed: %v, want %v", got, allowed)
		}
		if asked := server.Scripts() - before; asked != 1 {
			t.Errorf("allowed: %v, after %d scripts, want 1", allowed, asked)
		}
	}
	wantInUse(t, l.store, Redis)
}

// A request that asks several limiters waits no longer than one that asks one.
func TestRedisBudget(t *testing.T) {
	server := redistest.Start(t)
	slow := &delay{to: server.Addr}
	store := open(t, Options{Redis: target(t, "redis://"+slow.listen(t))})
	limiters := []*Limiter{
		store.Limiter("ip", mustRate(t, "1-M")), store.Limiter("recipient", mustRate(t, "1-M")),
		store.Limiter("decoy", mustRate(t, "1-M")),
	}
	wantInUse(t, store, Redis)
	slow.by.Store(int64(110 * time.Millisecond))
	ctx := redisclient.WithBudget(t.Context())
	began := time.Now()
	for _, l := range limiters {
		if !l.Take(ctx, "a").Allowed {
			t.Error("refused")
		}
	}
	if took := time.Since(began); took > promise {
		t.Errorf("waited for %v", took)
	}
	wantInUse(t, store, Memory)
}

// TestRedisExact has three processes make 3,000 requests for 100 clients, each
// 1,000 of them at the same time. Each client is let through as often as its
// limit says. The processes have more patience with Redis than usual, because
// three of them under the race detector on a busy machine need it.
func TestRedisExact(t *testing.T) {
	const processes, clients = 3, 100
	server := redistest.Start(t)
	var total atomic.Int64
	var wait sync.WaitGroup
	perClient := make([]atomic.Int64, clients)
	for range processes {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRedisExactProcess$", "-test.count=1")
		cmd.Env = append(os.Environ(), "RATELIMIT_TEST_REDIS="+server.URL())
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if client, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "allowed ")); err == nil {
					perClient[client].Add(1)
					total.Add(1)
				}
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if got := total.Load(); got != 5*clients {
		t.Errorf("%d let through, want %d", got, 5*clients)
	}
	for i := range perClient {
		if got := perClient[i].Load(); got != 5 {
			t.Errorf("client %d was let through %d times, want 5", i, got)
		}
	}
}

// TestRedisExactProcess is one of the processes of the test above.
func TestRedisExactProcess(t *testing.T) {
	url := os.Getenv("RATELIMIT_TEST_REDIS")
	if url == "" {
		t.Skip("only as a process of TestRedisExact")
	}
	store, err := openPatiently(Options{Redis: target(t, url), HashKey: testKey}, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	l := store.Limiter("ip", mustRate(t, "5-M,30-H"))
	const requests, clients = 1000, 100
	allowed := make(chan int, requests)
	var wait sync.WaitGroup
	for i := range requests {
		wait.Go(func() {
			if l.Take(context.Background(), fmt.Sprint("client ", i%clients)).Allowed {
				allowed <- i % clients
			}
		})
	}
	wait.Wait()
	close(allowed)
	wantInUse(t, store, Redis)
	for client := range allowed {
		fmt.Printf("allowed %d\n", client)
	}
}

// TestRedisFaults breaks a Redis in every way, with requests all the time: no
// request waits longer than promised, none does while Redis is away, limits go
// on, and afterwards Redis is used again.
func TestRedisFaults(t *testing.T) {
	for _, tt := range []struct {
		name  string
		args  []string
		begin func(*redistest.Server)
		end   func(*redistest.Server)
		// reason is what the log says, or empty if Redis is not lost.
		reason string
	}{
		{
			name:   "stopped process (SIGSTOP, SIGCONT)",
			begin:  func(s *redistest.Server) { s.Signal(syscall.SIGSTOP) },
			end:    func(s *redistest.Server) { s.Signal(syscall.SIGCONT) },
			reason: "no answer in time",
		},
		{
			name:   "killed and started again",
			begin:  (*redistest.Server).Kill,
			end:    (*redistest.Server).Start,
			reason: "EOF|reset|refused|closed|broken pipe",
		},
		{
			name:   "read-only (became a replica)",
			begin:  func(s *redistest.Server) { s.Do("REPLICAOF", "127.0.0.1", "1") },
			end:    func(s *redistest.Server) { s.Do("REPLICAOF", "NO", "ONE") },
			reason: "^READONLY$",
		},
		{
			name:   "full (maxmemory, noeviction)",
			begin:  func(s *redistest.Server) { s.Do("CONFIG", "SET", "maxmemory", "1") },
			end:    func(s *redistest.Server) { s.Do("CONFIG", "SET", "maxmemory", "0") },
			reason: "^OOM$",
		},
		{
			name:   "wants a password that it did not",
			begin:  func(s *redistest.Server) { s.SetPassword("secret") },
			end:    func(s *redistest.Server) { s.SetPassword("") },
			reason: "NOAUTH|EOF|reset|closed|broken pipe",
		},
		{
			name:   "busy (a script for two seconds)",
			begin:  func(s *redistest.Server) { go s.Do("DEBUG", "SLEEP", "2") },
			args:   []string{"--enable-debug-command", "yes"},
			end:    func(s *redistest.Server) {},
			reason: "no answer in time",
		},
		{
			name:  "flushed, scripts too",
			begin: func(s *redistest.Server) { s.Do("FLUSHALL"); s.Do("SCRIPT", "FLUSH") },
			end:   func(s *redistest.Server) {},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := redistest.Start(t, tt.args...)
			log := &logBuffer{}
			var changes atomic.Int64
			store := open(t, Options{
				Redis:    target(t, server.URL()),
				Logger:   slog.New(slog.NewJSONHandler(log, nil)),
				OnChange: func(string) { changes.Add(1) },
			})
			l := store.Limiter("ip", mustRate(t, "5-M,30-H"))
			wantInUse(t, store, Redis)
			wantTakes(t, l, "steady", 10, 5)

			load := startLoad(l)
			tt.begin(server)
			if tt.reason != "" {
				lost := waitInUse(t, store, Memory)
				time.Sleep(promise) // those under way
				load.phase()        // only those that begin from here on
				wantTakes(t, l, "away", 10, 5)
				wantTakes(t, l, "steady", 10, 5) // from the beginning, but not open
				time.Sleep(1500 * time.Millisecond)
				away := load.phase()
				if away.worst > promise/2 {
					t.Errorf("while Redis was away a request waited for %v", away.worst)
				}
				tt.end(server)
				back := waitInUse(t, store, Redis)
				all := load.stop()
				worst := max(load.before.worst, all.worst)
				t.Logf("TABLE | %s | lost after %v | worst wait %v, while away %v | back after %v | %s |",
					tt.name, lost.Round(time.Millisecond), worst.Round(time.Millisecond), away.worst.Round(100*time.Microsecond),
					back.Round(time.Millisecond), log.messages(t)[1])
				if worst > promise {
					t.Errorf("a request waited for %v", worst)
				}
				// It takes up to two beats: go-redis itself waits for a second after a
				// series of failed dials. The rest is for a busy machine.
				if back > 10*probeInterval {
					t.Errorf("back only after %v", back)
				}
			} else {
				time.Sleep(promise)
				all := load.stop()
				t.Logf("TABLE | %s | not lost | worst wait %v | | at once | |", tt.name, all.worst.Round(time.Millisecond))
				if all.worst > promise {
					t.Errorf("a request waited for %v", all.worst)
				}
			}
			wantTakes(t, l, "after", 10, 5)
			wantInUse(t, store, Redis)

			messages := log.messages(t)
			want := []string{"^Redis works", "^Redis is lost", "^Redis works"}
			if tt.reason == "" {
				want = want[:1]
			}
			if len(messages) != len(want) || int(changes.Load()) != len(want) {
				t.Fatalf("%d changes, logged %q, want %d", changes.Load(), messages, len(want))
			}
			for i := range want {
				if !regexp.MustCompile(want[i]).MatchString(messages[i]) {
					t.Errorf("logged %q, want %q", messages[i], want[i])
				}
			}
			if tt.reason != "" {
				_, reason, _ := strings.Cut(messages[1], "for itself ")
				if !regexp.MustCompile(tt.reason).MatchString(reason) {
					t.Errorf("the reason is %q, want %q", reason, tt.reason)
				}
			}
		})
	}
}

// load asks for new clients all the time, from several goroutines.
type load struct {
	mu      sync.Mutex
	began   time.Time // of the phase
	current phase
	before  phase // the first one, once there is a second
	stopped chan struct{}
	running sync.WaitGroup
}

type phase struct{ worst time.Duration }

func startLoad(l *Limiter) *load {
	load := &load{stopped: make(chan struct{})}
	for g := range 8 {
		load.running.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-load.stopped:
					return
				case <-time.After(2 * time.Millisecond):
				}
				began := time.Now()
				l.Take(context.Background(), fmt.Sprint("load ", g, i))
				load.record(began)
			}
		})
	}
	return load
}

func (l *load) record(began time.Time) {
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	if began.After(l.began) {
		l.current.worst = max(l.current.worst, took)
	}
}

// phase ends one and begins another.
func (l *load) phase() phase {
	l.mu.Lock()
	defer l.mu.Unlock()
	ended := l.current
	if l.began.IsZero() {
		l.before = ended
	}
	l.current, l.began = phase{}, time.Now()
	return ended
}

func (l *load) stop() phase {
	close(l.stopped)
	l.running.Wait()
	return l.phase()
}

// A Redis that answers, but takes its time, is lost, and not taken back: else
// each second many requests would wait for it.
func TestRedisSlow(t *testing.T) {
	server := redistest.Start(t)
	slow := &delay{to: server.Addr}
	store := open(t, Options{Redis: target(t, "redis://"+slow.listen(t))})
	l := store.Limiter("ip", mustRate(t, "5-M,30-H"))
	wantInUse(t, store, Redis)
	slow.by.Store(int64(300 * time.Millisecond))

	load := startLoad(l)
	began := time.Now()
	waitInUse(t, store, Memory)
	time.Sleep(promise)
	load.phase()
	wantTakes(t, l, "a", 10, 5)
	time.Sleep(3 * time.Second)
	wantInUse(t, store, Memory)
	away := load.stop()
	t.Logf("TABLE | slow (300 ms an answer) | worst wait %v, while away %v |", load.before.worst, away.worst)
	if load.before.worst > promise {
		t.Errorf("a request waited for %v", load.before.worst)
	}
	if away.worst > promise/2 {
		t.Errorf("while Redis was away a request waited for %v", away.worst)
	}

	slow.by.Store(0)
	t.Logf("back after %v (%v)", waitInUse(t, store, Redis), time.Since(began))
	wantTakes(t, l, "b", 10, 5)
	wantInUse(t, store, Redis)
}

// Absent at the start, which is not delayed for long, and then there.
func TestRedisAbsent(t *testing.T) {
	server := redistest.New(t)
	log := &logBuffer{}
	began := time.Now()
	store := open(t, Options{Redis: target(t, "redis://:hunter2@"+server.Addr), Logger: slog.New(slog.NewJSONHandler(log, nil))})
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("opened after %v", took)
	}
	wantInUse(t, store, Memory)
	l := store.Limiter("ip", mustRate(t, "5-M,30-H"))
	wantTakes(t, l, "a", 10, 5)

	server.Password = "hunter2"
	server.Start()
	back := waitInUse(t, store, Redis)
	t.Logf("TABLE | absent at the start | back after %v |", back)
	if back > 3*probeInterval {
		t.Errorf("in use only after %v", back)
	}
	wantTakes(t, l, "a", 10, 5)
	wantInUse(t, store, Redis)
	if got := log.messages(t); len(got) != 2 || !strings.HasPrefix(got[0], "Redis does not work") || !strings.HasPrefix(got[1], "Redis works") {
		t.Errorf("logged %q", got)
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the password is in the log:\n%s", log)
	}
}

// A Redis that takes no writes is not used, whatever other instances have
// counted with their probes: a refusal would write nothing.
func TestRedisProbeWrites(t *testing.T) {
	server := redistest.Start(t)
	server.Do("SET", "resetd:probe:{0}", 1_000_000, "PX", 60_000)
	server.Do("REPLICAOF", "127.0.0.1", "1")
	wantInUse(t, open(t, Options{Redis: target(t, server.URL())}), Memory)
	server.Do("REPLICAOF", "NO", "ONE")
	wantInUse(t, open(t, Options{Redis: target(t, server.URL())}), Redis)
}

// A key without an expiry limits for one more window, not for ever.
func TestRedisKeyWithoutExpiry(t *testing.T) {
	server := redistest.Start(t)
	l := open(t, Options{Redis: target(t, server.URL())}).Limiter("ip", mustRate(t, "2-M"))
	wantTakes(t, l, "a", 3, 2)
	key := server.Keys()[0]
	if server.Do("PERSIST", key).(int64) != 1 {
		t.Fatal("the key had no expiry")
	}
	if d := wantTakes(t, l, "a", 1, 0); d.RetryAfter != 60 {
		t.Errorf("retry after %d, want 60", d.RetryAfter)
	}
	if ttl := server.Do("PTTL", key).(int64); ttl <= 0 || ttl > 60_000 {
		t.Errorf("the key lives for %d ms, want at most a minute", ttl)
	}
	wantInUse(t, l.store, Redis)
}

// A password, a database and TLS.
func TestRedisURL(t *testing.T) {
	server := redistest.New(t)
	server.Password = "p@ss/word"
	withTLS := server.UseTLS(redistest.NewAuthority(t), time.Now().Add(time.Hour), false, server.Host())
	server.Start()
	for _, tt := range []struct{ name, url, want string }{
		{"a database", "redis://:p%40ss%2Fword@" + server.Addr + "/3", Redis},
		{"a user", "redis://default:p%40ss%2Fword@" + server.Addr, Redis},
		{"a wrong password", "redis://:wrong@" + server.Addr, Memory},
		{"no password", "redis://" + server.Addr, Memory},
		{"of 16 databases the 99th", "redis://:p%40ss%2Fword@" + server.Addr + "/99", Memory},
		{"TLS, no certificate to trust", "rediss://:p%40ss%2Fword@" + withTLS + "/3", Memory},
		{"TLS, not verified", "rediss://:p%40ss%2Fword@" + withTLS + "/3?skip_verify=true", Redis},
		{"plain to TLS", "redis://:p%40ss%2Fword@" + withTLS, Memory},
		{"TLS to plain", "rediss://:p%40ss%2Fword@" + server.Addr + "/3?skip_verify=true", Memory},
	} {
		log := &logBuffer{}
		store := open(t, Options{Redis: target(t, tt.url), Prefix: "test", Logger: slog.New(slog.NewJSONHandler(log, nil))})
		if got := store.InUse(); got != tt.want {
			t.Errorf("%s: in %s, want %s: %s", tt.name, got, tt.want, log)
		}
		if strings.Contains(log.String(), "p@ss") || strings.Contains(log.String(), "p%40") || strings.Contains(log.String(), "wrong") {
			t.Errorf("%s: the password is in the log: %s", tt.name, log)
		}
		if tt.want == Redis {
			wantTakes(t, store.Limiter("ip", mustRate(t, "1-M")), tt.name, 2, 1)
			wantInUse(t, store, Redis)
		}
	}
	if got := server.Do("INFO", "keyspace").(string); !strings.Contains(got, "db3:") || !strings.Contains(got, "db0:") {
		t.Errorf("databases in use: %s", got)
	}
}

func TestOpenFaults(t *testing.T) {
	for _, key := range []string{"", "too short"} {
		if _, err := Open(Options{Redis: target(t, "redis://localhost"), HashKey: []byte(key)}); err == nil {
			t.Errorf("secret %q: no error", key)
		}
	}
}

// A burst of as many requests as the server takes at once does not make a
// healthy Redis look lost. A machine that is busy otherwise may, so one success
// in five is enough; one command at a time would hardly ever do.
func TestRedisBurst(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes this ten times slower than it is")
	}
	server := redistest.Start(t)
	for try := range 5 {
		l := open(t, Options{Redis: target(t, server.URL()), Prefix: fmt.Sprint("try", try)}).Limiter("ip", mustRate(t, "5-M,30-H"))
		var allowed atomic.Int64
		var wait sync.WaitGroup
		for i := range 4096 {
			wait.Go(func() {
				if l.Take(context.Background(), fmt.Sprint(i%100)).Allowed {
					allowed.Add(1)
				}
			})
		}
		wait.Wait()
		if l.store.InUse() != Redis {
			continue
		}
		if got := allowed.Load(); got != 500 {
			t.Errorf("%d let through, want 500", got)
		}
		return
	}
	t.Error("Redis was lost five times")
}

// A request that has given up is counted in memory, and not in Redis as well.
func TestPipelineLeavesOutWhoGaveUp(t *testing.T) {
	store := open(t, Options{Redis: target(t, redistest.Start(t).URL())})
	gone, leave := context.WithCancel(t.Context())
	leave()
	stays := &call{ctx: t.Context(), run: script.EvalSha, done: make(chan struct{})}
	left := &call{ctx: gone, run: script.EvalSha, done: make(chan struct{})}
	store.pipeline.exec(t.Context(), []*call{left, stays})
	<-stays.done
	if stays.cmd == nil || left.cmd != nil {
		t.Errorf("sent: %v, and of the one that gave up: %v", stays.cmd, left.cmd)
	}
}
