//go:build full

package ratelimit

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/redisclient/redistest"
)

// patience is longer than a server's, so that a busy machine loses no Redis. The tests of the files *_full_test.go
// use real Redis servers; redis_test.go tests how long a request waits, to the millisecond.
const patience = 5 * time.Second

// openReal opens a store in a working Redis.
func openReal(tb testing.TB, url string) *Store {
	tb.Helper()
	store := openFor(tb, Options{Redis: target(tb, url)}, patience)
	wantInUse(tb, store, Redis)
	return store
}

func TestRealLimits(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	one, two := openReal(t, server.URL()), openReal(t, server.URL())
	checkShared(t, one, two, server.Keys)
	for _, key := range server.Keys() {
		if ttl := server.Do("PTTL", key).(int64); ttl <= 0 || ttl > 3_600_000 {
			t.Errorf("%q lives for %d ms", key, ttl)
		}
	}

	l := one.Limiter("expires", mustRate(t, "5-M"))
	wantTakes(t, l, "a", 6, 5)
	key := keyOf(l, "a")
	server.Do("PEXPIRE", key, 1500) // as if most of the minute were over
	d := wantTakes(t, l, "a", 1, 0)
	if d.RetryAfter > 2 {
		t.Errorf("retry after %d, want at most 2: 1.5, rounded up", d.RetryAfter)
	}
	time.Sleep(time.Duration(d.RetryAfter) * time.Second)
	wantTakes(t, l, "a", 6, 5)

	if server.Do("PERSIST", key).(int64) != 1 {
		t.Fatal("the key had no expiry")
	}
	if d := wantTakes(t, l, "a", 1, 0); d.RetryAfter < 1 || d.RetryAfter > 60 {
		t.Errorf("a key without an expiry: retry after %d", d.RetryAfter)
	}
	if ttl := server.Do("PTTL", key).(int64); ttl <= 0 || ttl > 60_000 {
		t.Errorf("the key lives for %d ms, want at most a minute", ttl)
	}

	before := server.Scripts()
	wantTakes(t, one.Limiter("windows", mustRate(t, "9-S,2-M,3-H,4-D")), "a", 1, 1)
	if asked := server.Scripts() - before; asked != 1 {
		t.Errorf("a request ran %d scripts, want 1", asked)
	}
	wantInUse(t, one, Redis)
}

// keyOf returns the key of a client's shortest window.
func keyOf(l *Limiter, client string) string { return l.keys(l.hash(client))[0] }

// TestRealProbeWrites: a Redis that refuses writes is not used, whatever other instances have counted with their
// probes, because a refused request would write nothing.
func TestRealProbeWrites(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("SET", "resetd:probe:{0}", 1_000_000, "PX", 60_000)
	server.Do("REPLICAOF", "127.0.0.1", "1")
	wantInUse(t, openFor(t, Options{Redis: target(t, server.URL())}, patience), Memory)
	server.Do("REPLICAOF", "NO", "ONE")
	openReal(t, server.URL())
}

// TestRealBursts: three processes send 3,000 requests for 100 clients, each 1,000 at the same time, and each
// client is admitted as often as its limit says.
func TestRealBursts(t *testing.T) {
	const clients = 100
	if url := os.Getenv("RATELIMIT_TEST_REDIS"); url != "" { // one of the processes
		l := openReal(t, url).Limiter("ip", mustRate(t, "5-M,30-H"))
		t.Logf("allowed %d", burst(l, 1000))
		wantInUse(t, l.store, Redis)
		return
	}
	server := redistest.Start(t)
	var total int
	var mu sync.Mutex
	var wait sync.WaitGroup
	for range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRealBursts$", "-test.v")
		cmd.Env = append(os.Environ(), "RATELIMIT_TEST_REDIS="+server.URL())
		wait.Go(func() {
			out, err := cmd.CombinedOutput()
			said := regexp.MustCompile(`allowed (\d+)`).FindSubmatch(out)
			if err != nil || said == nil {
				t.Errorf("%v:\n%s", err, out)
				return
			}
			allowed, _ := strconv.Atoi(string(said[1]))
			mu.Lock()
			defer mu.Unlock()
			total += allowed
		})
	}
	wait.Wait()
	if total != 5*clients {
		t.Errorf("%d let through, want %d", total, 5*clients)
	}
	// No client has more than its five, so each has exactly five.
	l := openReal(t, server.URL()).Limiter("ip", mustRate(t, "5-M,30-H"))
	if more := burst(l, 10*clients); more != 0 {
		t.Errorf("%d more are let through", more)
	}
}

// TestRealFaults breaks a Redis in every way while requests come: limits go on, Redis is used again afterwards,
// and the log says why it was lost.
func TestRealFaults(t *testing.T) {
	for _, tt := range []struct {
		name  string
		args  []string
		begin func(*redistest.Server)
		end   func(*redistest.Server)
		// reason is the reason in the log; empty if Redis is not lost.
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
			name:   "a password from now on",
			begin:  func(s *redistest.Server) { s.SetPassword("secret") },
			end:    func(s *redistest.Server) { s.SetPassword("") },
			reason: "NOAUTH|EOF|reset|closed|broken pipe",
		},
		{
			name:   "busy (a long script)",
			begin:  func(s *redistest.Server) { go s.Do("DEBUG", "SLEEP", patience.Seconds()+2) },
			args:   []string{"--enable-debug-command", "yes"},
			end:    func(*redistest.Server) {},
			reason: "no answer in time",
		},
		{
			name:  "flushed, scripts too",
			begin: func(s *redistest.Server) { s.Do("FLUSHALL"); s.Do("SCRIPT", "FLUSH") },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, tt.args...)
			store := watch(t, target(t, server.URL()), patience)
			l := store.Limiter("ip", mustRate(t, "5-M,30-H"))
			wantInUse(t, store.Store, Redis)
			wantTakes(t, l, "steady", 10, 5)
			outage := startOutage(t, store, l)
			tt.begin(server)
			if tt.reason == "" {
				wantTakes(t, l, "steady", 10, 5) // the client was forgotten
				store.want(t, Redis)
				return
			}
			outage.lost(t)
			wantTakes(t, l, "steady", 10, 5) // counts begin again, but limits hold
			tt.end(server)
			outage.over(t)
			if _, reason, _ := strings.Cut(store.messages(t)[1], "for itself "); !regexp.MustCompile(tt.reason).MatchString(reason) {
				t.Errorf("the reason is %q, want %q", reason, tt.reason)
			}
		})
	}
}

// outage is the loss of a Redis while requests come.
type outage struct {
	store *watched
	l     *Limiter
	load  *load
	began time.Time
}

func startOutage(t *testing.T, store *watched, l *Limiter) *outage {
	t.Helper()
	return &outage{store, l, startLoad(t, l), time.Now()}
}

// lost waits until limits are counted in memory.
func (o *outage) lost(t *testing.T) {
	t.Helper()
	waitInUse(t, o.store.Store, Memory)
	t.Logf("lost after %v", time.Since(o.began).Round(time.Millisecond))
	wantTakes(t, o.l, "away", 10, 5)
}

// over waits until Redis is used again.
func (o *outage) over(t *testing.T) {
	t.Helper()
	back := waitInUse(t, o.store.Store, Redis)
	worst := o.load.phase()
	t.Logf("back after %v, worst wait %v", back.Round(time.Millisecond), worst.Round(time.Millisecond))
	if worst > 2*patience {
		t.Errorf("a request waited for %v", worst)
	}
	wantTakes(t, o.l, "after", 10, 5)
	o.store.want(t, Redis, Memory, Redis)
}

// TestRealURL: a password, a database and TLS.
func TestRealURL(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	server.Password = "p@ss/word"
	withTLS := server.UseTLS(redistest.NewAuthority(t), time.Now().Add(time.Hour), false, server.Host())
	server.Start()
	for _, tt := range []struct{ name, url, want string }{
		{name: "a database", url: "redis://:p%40ss%2Fword@" + server.Addr + "/3", want: Redis},
		{name: "a user", url: "redis://default:p%40ss%2Fword@" + server.Addr, want: Redis},
		{name: "a wrong password", url: "redis://:wrong@" + server.Addr, want: Memory},
		{name: "no password", url: "redis://" + server.Addr, want: Memory},
		{name: "of 16 databases the 99th", url: "redis://:p%40ss%2Fword@" + server.Addr + "/99", want: Memory},
		{name: "TLS, no certificate to trust", url: "rediss://:p%40ss%2Fword@" + withTLS + "/3", want: Memory},
		{name: "TLS, not verified", url: "rediss://:p%40ss%2Fword@" + withTLS + "/3?skip_verify=true", want: Redis},
		{name: "plain to TLS", url: "redis://:p%40ss%2Fword@" + withTLS, want: Memory},
		{name: "TLS to plain", url: "rediss://:p%40ss%2Fword@" + server.Addr + "/3?skip_verify=true", want: Memory},
	} {
		store := watch(t, target(t, tt.url), patience)
		if got := store.InUse(); got != tt.want {
			t.Errorf("%s: in %s, want %s: %s", tt.name, got, tt.want, &store.log)
		}
		if log := store.log.String(); strings.Contains(log, "p@ss") || strings.Contains(log, "p%40") || strings.Contains(log, "wrong") {
			t.Errorf("%s: the password is in the log: %s", tt.name, log)
		}
		if tt.want == Redis {
			wantTakes(t, store.Limiter("ip", mustRate(t, "1-M")), tt.name, 2, 1)
			wantInUse(t, store.Store, Redis)
		}
	}
	if got := server.Do("INFO", "keyspace").(string); !strings.Contains(got, "db3:") || !strings.Contains(got, "db0:") {
		t.Errorf("databases in use: %s", got)
	}
}

// TestRealPing: see [TestPing].
func TestRealPing(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	server.Password = "p@ss/word"
	withTLS := server.UseTLS(redistest.NewAuthority(t), time.Now().Add(time.Hour), false, server.Host())
	server.Start()
	plain := "redis://:p%40ss%2Fword@" + server.Addr
	for _, tt := range []struct {
		name, url     string
		before, after []any
		want          pinged
	}{
		{name: "works", url: plain, want: pinged{works: true}},
		{name: "works over TLS", url: "rediss://:p%40ss%2Fword@" + withTLS + "/3?skip_verify=true", want: pinged{works: true}},
		{name: "no password", url: "redis://" + server.Addr, want: pinged{code: "NOAUTH"}},
		{name: "wrong password", url: "redis://:wrong@" + server.Addr, want: pinged{code: "WRONGPASS"}},
		{name: "no such database", url: plain + "/99", want: pinged{code: "ERR"}},
		{name: "replica", url: plain, before: []any{"REPLICAOF", "127.0.0.1", "1"}, after: []any{"REPLICAOF", "NO", "ONE"}, want: pinged{code: "READONLY"}},
		{name: "full", url: plain, before: []any{"CONFIG", "SET", "maxmemory", "1"}, after: []any{"CONFIG", "SET", "maxmemory", "0"}, want: pinged{code: "OOM"}},
		{name: "unknown certificate", url: "rediss://:p%40ss%2Fword@" + withTLS, want: pinged{err: "its certificate is signed by an unknown authority"}},
		{name: "TLS to plain", url: "rediss://:p%40ss%2Fword@" + server.Addr, want: pinged{err: "no answer in time"}}, // Redis waits for more of what is no command
		{name: "plain to TLS", url: "redis://:p%40ss%2Fword@" + withTLS, want: pinged{err: "connection"}},
		{name: "nothing listens", url: "redis://:wrong@" + redistest.New(t).Addr, want: pinged{err: "connection refused"}},
		{name: "no such host", url: "redis://:wrong@no-such-host.invalid", want: pinged{err: "its host name has no address"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.before != nil {
				server.Do(tt.before...)
				defer server.Do(tt.after...)
			}
			tt.want.check(t, target(t, tt.url), 30*time.Second, patience)
			if left := server.Do("KEYS", "resetd:*").([]any); len(left) != 0 {
				t.Errorf("it leaves %s", left)
			}
		})
	}
}

// TestRealPingEvicts: a policy matters where there is a bound to memory.
func TestRealPingEvicts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for _, tt := range []struct{ memory, policy, want string }{
		{memory: "0", policy: "noeviction"},
		{memory: "0", policy: "allkeys-lru"},
		{memory: "100mb", policy: "noeviction"},
		{memory: "100mb", policy: "allkeys-lru", want: "allkeys-lru"},
		{memory: "100mb", policy: "volatile-ttl", want: "volatile-ttl"},
	} {
		server.Do("CONFIG", "SET", "maxmemory", tt.memory, "maxmemory-policy", tt.policy)
		pong, err := Ping(t.Context(), target(t, server.URL()), 30*time.Second)
		if err != nil || pong.Evicts != tt.want {
			t.Errorf("%s, %s: %+v, %v", tt.memory, tt.policy, pong, err)
		}
	}
}

// TestRealSocket: Redis at a Unix socket.
func TestRealSocket(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	server.Password = "p@ss"
	url := "unix://:p%40ss@" + server.UseSocket() + "?db=3"
	server.Start()
	store := openReal(t, url)
	wantTakes(t, store.Limiter("ip", mustRate(t, "5-M")), "a", 10, 5)
	wantInUse(t, store, Redis)
	if got := server.Do("INFO", "keyspace").(string); !strings.Contains(got, "db3:") {
		t.Errorf("databases in use: %s", got)
	}
	if pong, err := Ping(t.Context(), target(t, url), 30*time.Second); err != nil || pong.Mode != "standalone" {
		t.Errorf("%+v, %v", pong, err)
	}
}

// TestRealPrivateTLS: an authority of one's own, and a client's certificate, for a server that has a
// certificate for its own address.
func TestRealPrivateTLS(t *testing.T) {
	t.Parallel()
	authority := redistest.NewAuthority(t)
	certificate, key := authority.Issue(time.Now().Add(time.Hour), "client")
	server := redistest.New(t)
	address := server.UseTLS(authority, time.Now().Add(time.Hour), true, server.Host())
	server.Start()
	to, wrong := redisclient.Parse(redisclient.Config{URL: "rediss://" + address, CA: authority.PEM, ClientCert: certificate, ClientKey: key})
	if wrong != nil {
		t.Fatal(wrong)
	}
	store := openFor(t, Options{Redis: to}, patience)
	wantInUse(t, store, Redis)
	wantTakes(t, store.Limiter("ip", mustRate(t, "5-M")), "a", 10, 5)
	wantInUse(t, store, Redis)
}

func BenchmarkTakeReal(b *testing.B) { benchmarkTake(b, openReal(b, redistest.Start(b).URL())) }

// BenchmarkBurst measures the wait of the slowest of 4,096 simultaneous requests. It should be less than
// [redisclient.Patience].
func BenchmarkBurst(b *testing.B) {
	store := openReal(b, redistest.Start(b).URL())
	for range b.N {
		burst(store.Limiter("ip", mustRate(b, "5-M,30-H")), 4096)
	}
	wantInUse(b, store, Redis)
}
