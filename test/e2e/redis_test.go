//go:build full

package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/devstack"
	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/redisclient/redistest"
	"github.com/resetd/resetd/test/resetdtest"
)

// newRedis reserves an address for a real redis-server with a password, and starts nothing yet.
func newRedis(t testing.TB) *redistest.Server {
	t.Helper()
	s := redistest.New(t)
	s.Password = "pass-of-the-redis-server"
	return s
}

// redisKey matches the keys of the limits, and the names of pending requests.
var redisKey = regexp.MustCompile(`^resetd:((?:ip|recipient):\{[A-Za-z0-9_-]{22}\}:([SMHD])|probe:\{\d+\}|\{[0-9a-f]{16}\}:(?:requests|(?:account|busy):[0-9a-f]{16}|(?:alive|taken):[A-Z2-7]{26}))$`)

// checkKeys checks that keys have only hashes, and expire by themselves. It returns the number of the limits' keys.
func checkKeys(t testing.TB, s *redistest.Server) (keys int) {
	t.Helper()
	periods := map[string]int64{"S": 1, "M": 60, "H": 3600, "D": 86400}
	for _, key := range s.Do("KEYS", "*").([]any) {
		key := key.(string)
		found := redisKey.FindStringSubmatch(key)
		if found == nil {
			t.Errorf("Redis has the key %q", key)
			continue
		}
		period := int64(1) // period of the probe
		if strings.HasPrefix(found[1], "{") {
			period = 16 * 60 // DELIVERY_TIMEOUT and a minute
		}
		if found[2] != "" {
			keys++
			period = periods[found[2]]
		}
		// -2 means that it has expired since.
		if ttl, _ := s.Do("PTTL", key).(int64); ttl != -2 && (ttl < 0 || ttl > period*1000) {
			t.Errorf("%s lives for %d ms more", key, ttl)
		}
	}
	return keys
}

// TestThreeProcesses: three servers with one Redis have exactly one limit.
func TestThreeProcesses(t *testing.T) {
	t.Parallel()
	const (
		clients    = 100
		requests   = 30 // requests of each client
		perClient  = 5
		perAddress = 4
		strangers  = 30
	)
	server := newRedis(t)
	server.Start()
	defer server.Kill()
	accounts := []string{knownEmail, otherKnown, "upper@example.com"}
	stack := devstack.New(devstack.Config{
		Accounts: accounts, SiteURL: site,
		ServiceRoleKey: "test-service-role-key", MailgunKey: "test-mailgun-key", MailgunDomain: "mg.example.com",
	})
	defer stack.Close()
	supabase, mailgun := httptest.NewServer(stack.Supabase()), httptest.NewServer(stack.Mailgun())
	defer supabase.Close()
	defer mailgun.Close()
	var processes []*resetdtest.Process
	for range 3 {
		p := resetdtest.Run(t, []string{
			"LISTEN_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0", "LOG_FORMAT=json",
			"SUPABASE_URL=" + supabase.URL, "SUPABASE_SERVICE_ROLE_KEY=test-service-role-key",
			"MAILGUN_API_BASE=" + mailgun.URL, "MAILGUN_API_KEY=test-mailgun-key", "MAILGUN_DOMAIN=mg.example.com",
			"SITE_URL=" + site, "TRUSTED_PROXIES=127.0.0.0/8", "REDIS_URL=" + server.URL(), "SHUTDOWN_DELAY=0s",
			fmt.Sprintf("RATE_LIMIT=%d-M,30-H", perClient), fmt.Sprintf("RECIPIENT_LIMIT=%d-H", perAddress),
		}, resetdtest.BuildPatient(t), "serve")
		processes = append(processes, p)
	}

	// Each request comes from another address in its client's /64, to one of the servers.
	type one struct{ client, process int }
	var all []one
	for client := range clients {
		for range requests {
			all = append(all, one{client, len(all) % len(processes)})
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	todo := make(chan one)
	var served [clients]atomic.Int64
	var other atomic.Int64
	client := &http.Client{Transport: resetdtest.CheckingTransport(t, resetdtest.NewTransport(t)), Timeout: time.Minute}
	began := time.Now()
	var workers sync.WaitGroup
	for range 64 {
		workers.Go(func() {
			for next := range todo {
				address := fmt.Sprintf("2001:db8:0:%x::%x", next.client, rand.IntN(1<<16))
				if next.client%2 == 0 {
					address = fmt.Sprintf("198.51.100.%d", next.client)
				}
				response, err := client.Do(requestAs(t, processes[next.process].URL, accounts[rand.IntN(len(accounts))], address))
				if err != nil {
					t.Error(err)
					continue
				}
				response.Body.Close()
				switch response.StatusCode {
				case http.StatusOK:
					served[next.client].Add(1)
				case http.StatusTooManyRequests:
				default:
					other.Add(1)
				}
			}
		})
	}
	for _, next := range all {
		todo <- next
	}
	close(todo)
	workers.Wait()
	took := time.Since(began)
	if took > 50*time.Second {
		t.Fatalf("%d requests took %v, which leaves too little of their window of a minute", len(all), took)
	}

	for i := range strangers {
		request := requestAs(t, processes[i%len(processes)].URL, fmt.Sprintf("stranger-%d@example.org", i), fmt.Sprintf("203.0.113.%d", i))
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("a stranger is answered %d", response.StatusCode)
		}
	}

	for _, p := range processes {
		if strings.Contains(p.Log.String(), `"limits_in":"memory"`) || gauge(p, "redis") != 1 || gauge(p, "memory") != 0 {
			t.Fatalf("Redis was lost:\n%s", regexp.MustCompile(`.*limits_in.*`).FindAllString(p.Log.String(), -1))
		}
		if found := regexp.MustCompile(`198\.51\.100\.|2001:db8|203\.0\.113\.|@example|` + server.Password).FindString(p.Log.String()); found != "" {
			t.Errorf("the log has %q", found)
		}
	}
	total := int64(0)
	for i := range served {
		total += served[i].Load()
		if got := served[i].Load(); got != perClient {
			t.Errorf("client %d: %d requests were let through, want %d", i, got, perClient)
		}
	}
	if want := int64(clients * perClient); total != want || other.Load() != 0 {
		t.Errorf("%d of %d requests were let through, want %d; %d were answered otherwise", total, len(all), want, other.Load())
	}
	// There are two windows for each client, and one for each address.
	if keys, want := checkKeys(t, server), 2*(clients+strangers)+len(accounts)+strangers; keys != want {
		t.Errorf("%d keys in Redis, want %d", keys, want)
	}

	// All requests have one hash of an account. Each instance keeps one pending request for it, so there may be fewer
	// mails than requests.
	for _, p := range processes {
		_ = p.Stop()
	}
	accepted, mails := map[string]int{}, map[string]int{}
	for _, p := range processes {
		for _, found := range regexp.MustCompile(`"outcome":"accepted","account":"([0-9a-f]+)"`).FindAllStringSubmatch(p.Log.String(), -1) {
			accepted[found[1]]++
		}
	}
	often := 0
	for hash, n := range accepted {
		if n > 1 {
			often++
			if n != perAddress {
				t.Errorf("%d requests were accepted for the account %s, want %d", n, hash, perAddress)
			}
		}
	}
	if often != len(accounts) || len(accepted) != len(accounts)+strangers {
		t.Errorf("requests were accepted for %d accounts, and for %d of them more than once", len(accepted), often)
	}
	for _, mail := range stack.Mails() {
		mails[strings.Join(mail.To, ",")]++
	}
	for _, account := range accounts {
		if mails[account] < 1 || mails[account] > perAddress {
			t.Errorf("%d mails to %s, want 1 to %d", mails[account], account, perAddress)
		}
	}
	t.Logf("%d requests in %v, %d let through", len(all), took.Round(time.Millisecond), total)
}

// gauge returns the gauge of a store.
func gauge(p *resetdtest.Process, store string) float64 {
	return p.Metric("resetd_limits_in", `store="`+store+`"`)
}

// redisFault is a fault of Redis.
type redisFault struct {
	name       string
	noPassword bool
	slow       *slowProxy // between resetd and Redis
	atStart    bool       // it begins before resetd starts
	begin, end func(*redistest.Server)
	reason     string // reason in the log; empty: Redis is not lost
	kept       bool   // the counts are there again after the fault
}

// redisFaults returns the faults that a resetd with LongPatience must survive.
func redisFaults() []redisFault {
	slow := &slowProxy{}
	return []redisFault{
		{
			name: "absent at the start", atStart: true,
			begin: (*redistest.Server).Kill, end: (*redistest.Server).Start,
			reason: "refused|^no answer in time$",
		},
		{
			name: "hung at the start", atStart: true,
			begin:  func(s *redistest.Server) { s.Signal(syscall.SIGSTOP) },
			end:    func(s *redistest.Server) { s.Signal(syscall.SIGCONT) },
			reason: "^no answer in time$",
		},
		{
			name:  "killed, started again",
			begin: (*redistest.Server).Kill, end: (*redistest.Server).Start,
			reason: "EOF|reset|refused|closed|broken pipe|^no answer in time$",
		},
		{
			name:   "hung",
			begin:  func(s *redistest.Server) { s.Signal(syscall.SIGSTOP) },
			end:    func(s *redistest.Server) { s.Signal(syscall.SIGCONT) },
			reason: "^no answer in time$", kept: true,
		},
		{
			// Each single command is fast enough, but the two of a request together are not.
			name: "slow", slow: slow,
			begin:  func(*redistest.Server) { slow.by.Store(int64(redisclient.LongPatience * 2 / 3)) },
			end:    func(*redistest.Server) { slow.by.Store(0) },
			reason: "^no answer in time$", kept: true,
		},
		{
			name:   "read-only",
			begin:  func(s *redistest.Server) { s.Do("REPLICAOF", "127.0.0.1", "1") },
			end:    func(s *redistest.Server) { s.Do("REPLICAOF", "NO", "ONE") },
			reason: "^READONLY$", kept: true,
		},
		{
			name:   "full",
			begin:  func(s *redistest.Server) { s.Do("CONFIG", "SET", "maxmemory", "1") },
			end:    func(s *redistest.Server) { s.Do("CONFIG", "SET", "maxmemory", "0") },
			reason: "^OOM$", kept: true,
		},
		{
			name: "wants a password", noPassword: true,
			begin:  func(s *redistest.Server) { s.SetPassword("a-password-that-nobody-has") },
			end:    func(s *redistest.Server) { s.SetPassword("") },
			reason: "^NOAUTH$|EOF|reset|closed|broken pipe|^no answer in time$", kept: true,
		},
		{
			name:   "wants another password",
			begin:  func(s *redistest.Server) { s.SetPassword("a-password-that-nobody-has") },
			end:    func(s *redistest.Server) { s.SetPassword("pass-of-the-redis-server") },
			reason: "^WRONGPASS$|EOF|reset|closed|broken pipe|^no answer in time$", kept: true,
		},
		{
			name:  "flushed, scripts too",
			begin: func(s *redistest.Server) { s.Do("FLUSHALL"); s.Do("SCRIPT", "FLUSH") },
		},
	}
}

// TestRedisFaults: whatever Redis does, clients get the documented answers, limits hold, and nobody waits longer than
// the patience of the binary. The change is in the metrics, and logged once. Afterwards limits are shared again.
func TestRedisFaults(t *testing.T) {
	for _, c := range redisFaults() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}

func (c *redisFault) run(t *testing.T) {
	server := newRedis(t)
	if c.noPassword {
		server.Password = ""
	}
	url := server.URL()
	if c.slow != nil {
		url = "redis://:" + server.Password + "@" + c.slow.listen(t, server.Addr)
	}
	server.Start()
	if c.atStart {
		c.begin(server)
	}
	resetdtest.BuildPatient(t)
	began := time.Now()
	f := start(t, resetdtest.Config{Build: resetdtest.BuildPatient, Settings: with(behindProxy, map[string]string{
		"REDIS_URL": url, "RATE_LIMIT": "5-M,30-H", "RECIPIENT_LIMIT": "2-H,4-D",
	})})
	startTook := time.Since(began)
	defer func() { _ = f.Stop() }()

	const steady, newcomer = "198.51.100.1", "198.51.100.2"
	// served sends seven requests as one client, and returns how many were served.
	served := func(client string) (n int) {
		for range 7 {
			switch a := f.askAs(unknownEmail, client); a.Status {
			case http.StatusOK:
				n++
			case http.StatusTooManyRequests:
				checkRefusal(t, a, 1, 60)
			default:
				t.Errorf("answered %d %s", a.Status, a.Raw)
			}
		}
		return n
	}
	// accepted sends four requests for one account, as four clients, and returns how many were not suppressed.
	asked, allAccepted := 0, 0
	accepted := func() (n int) {
		for range 4 {
			asked++
			a := f.askAs(knownEmail, fmt.Sprintf("192.0.2.%d", asked))
			if a.Status != http.StatusOK {
				t.Errorf("answered %d %s", a.Status, a.Raw)
				continue
			}
			switch outcome := f.Log.Await(t, `"msg":"request","request_id":"`+a.Header.Get("X-Request-Id")+`".*"outcome":"(\w+)"`); outcome {
			case "accepted":
				n++
			case "suppressed":
			default:
				t.Errorf("a request ended as %s", outcome)
			}
		}
		allAccepted += n
		return n
	}
	expect := func(when, client string, wantServed, wantAccepted int) {
		if n := served(client); n != wantServed {
			t.Errorf("%s, %s was served %d times of 7, want %d", when, client, n, wantServed)
		}
		if n := accepted(); n != wantAccepted {
			t.Errorf("%s, %d of 4 requests for an account were accepted, want %d", when, n, wantAccepted)
		}
	}
	changes := func() (stores []string) {
		for _, found := range regexp.MustCompile(`"limits_in":"(\w+)"`).FindAllStringSubmatch(f.Log.String(), -1) {
			stores = append(stores, found[1])
		}
		return stores
	}
	// within waits until limits are counted in this store, and returns how long that took.
	within := func(limit time.Duration, store string) time.Duration {
		began := time.Now()
		for time.Since(began) < limit {
			if gauge(f.Process, store) == 1 {
				return time.Since(began)
			}
			time.Sleep(time.Millisecond)
		}
		t.Errorf("limits were not in %s within %v", store, limit)
		return limit
	}

	var want []string
	if !c.atStart {
		within(time.Minute, "redis")
		expect("before", steady, 5, 2)
		want = append(want, "redis")
		if got := changes(); !slices.Equal(got, want) {
			t.Fatalf("before the fault: %q", got)
		}
	}
	load := startLoad(f)
	var lost, back time.Duration
	var away loadPhase
	if c.reason == "" {
		c.begin(server)
		expect("afterwards", steady, 5, 2)
	} else {
		want = append(want, "memory", "redis")
		if !c.atStart {
			c.begin(server)
		}
		lost = within(time.Minute, "memory")
		time.Sleep(redisclient.LongPatience) // until running requests end
		load.next()
		expect("while Redis was away", newcomer, 5, 2)
		if n := served(steady); n != 5 {
			t.Errorf("while Redis was away, a client from before was served %d times of 7, want 5, and not for ever", n)
		}
		time.Sleep(1200 * time.Millisecond)
		away = load.next()
		c.end(server)
		back = within(time.Minute, "redis")
		switch {
		case c.kept:
			expect("with Redis and its counts again", steady, 0, 0)
		default:
			expect("with an empty Redis", steady, 5, 2)
		}
	}
	all := load.stop()
	if got := changes(); !slices.Equal(got, want) {
		t.Errorf("logged were %q, want %q", got, want)
	}

	// A request waits no longer than the patience of the binary, and without Redis not at all. The start tries Redis for
	// the limits, and then for the requests. impl/ratelimit tests the shipped patience of 220 ms, with fake time.
	const patience = redisclient.LongPatience
	for _, wait := range []struct {
		what        string
		took, bound time.Duration
	}{
		{what: "the start", took: startTook, bound: 3 * patience},
		{what: "a request", took: all.worst, bound: patience * 3 / 2},
		{what: "while Redis was away, a request", took: away.worst, bound: patience / 2},
	} {
		if wait.took > wait.bound {
			t.Errorf("%s took %v, want %v at most", wait.what, wait.took, wait.bound)
		}
	}
	for status, n := range all.statuses {
		if status != http.StatusOK {
			t.Errorf("%d of %d newcomers were answered %d", n, all.requests, status)
		}
	}
	if c.reason != "" {
		reason := f.Log.Await(t, `"limits_in":"memory","reason":"([^"]*)"`)
		if !regexp.MustCompile(c.reason).MatchString(reason) {
			t.Errorf("the log's reason is %q, want %q", reason, c.reason)
		}
	}
	f.Settle()
	if mails := len(f.Stack.Mails()); mails < 1 || mails > allAccepted {
		t.Errorf("the account got %d mails for %d accepted requests", mails, allAccepted)
	}
	if found := regexp.MustCompile(`pass-of-|a-password|192\.0\.2\.|198\.51\.100\.|2001:db8|@example`).FindString(f.Log.String()); found != "" {
		t.Errorf("the log has %q", found)
	}
	checkKeys(t, server)
	t.Logf("start %v | worst %v, while away %v | lost after %v | back after %v | %d requests",
		startTook.Round(time.Millisecond), all.worst.Round(time.Millisecond), away.worst.Round(time.Millisecond),
		lost.Round(time.Millisecond), back.Round(time.Millisecond), all.requests)
}

// load sends requests from new clients, without a pause.
type load struct {
	mu       sync.Mutex
	began    time.Time // beginning of the phase
	now, all loadPhase
	stopped  chan struct{}
	running  sync.WaitGroup
}

type loadPhase struct {
	worst    time.Duration
	requests int
	statuses map[int]int
}

func startLoad(f *fixture) *load {
	l := &load{began: time.Now(), stopped: make(chan struct{}), now: loadPhase{statuses: map[int]int{}}, all: loadPhase{statuses: map[int]int{}}}
	var clients atomic.Int64
	for range 3 {
		l.running.Go(func() {
			for {
				began, n := time.Now(), clients.Add(1)
				l.record(began, f.askAs("somebody@example.org", fmt.Sprintf("2001:db8:%x:%x::1", n>>16, n&0xffff)).Status)
				select {
				case <-l.stopped:
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
	return l
}

func (l *load) record(began time.Time, status int) {
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, phase := range []*loadPhase{&l.now, &l.all} {
		if phase == &l.now && began.Before(l.began) {
			continue
		}
		phase.statuses[status]++
		phase.worst = max(phase.worst, took)
		phase.requests++
	}
}

// next ends a phase, and begins another with the requests from now on.
func (l *load) next() loadPhase {
	l.mu.Lock()
	defer l.mu.Unlock()
	phase := l.now
	l.now, l.began = loadPhase{statuses: map[int]int{}}, time.Now()
	return phase
}

func (l *load) stop() loadPhase {
	close(l.stopped)
	l.running.Wait()
	return l.all
}

// slowProxy delays each answer of a server.
type slowProxy struct{ by atomic.Int64 }

// listen starts the proxy, and returns its address.
func (p *slowProxy) listen(t testing.TB, server string) string {
	t.Helper()
	return accepting(t, func(client net.Conn) { p.forward(client, server) })
}

func (p *slowProxy) forward(client net.Conn, address string) {
	server, err := net.Dial("tcp", address)
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
		time.Sleep(time.Duration(p.by.Load()))
		if _, err := client.Write(answer[:n]); err != nil {
			return
		}
	}
}

// TestRedisKeyWithoutExpiry: a key without an expiry does not refuse its client for ever.
func TestRedisKeyWithoutExpiry(t *testing.T) {
	t.Parallel()
	server := newRedis(t)
	server.Start()
	f := start(t, resetdtest.Config{Build: resetdtest.BuildPatient, Settings: map[string]string{"REDIS_URL": server.URL(), "RATE_LIMIT": "2-S"}})
	const persist = `local n = 0
		for _, key in ipairs(redis.call("KEYS", "resetd:ip:*")) do n = n + redis.call("PERSIST", key) end
		return n`
	persisted := int64(0)
	for deadline := time.Now().Add(time.Minute); persisted == 0 && time.Now().Before(deadline); {
		for f.Ask(unknownEmail).Status == http.StatusOK {
		}
		persisted, _ = server.Do("EVAL", persist, 0).(int64)
	}
	if persisted != 1 {
		t.Fatal("no key could be made to stay") // the window was over each time
	}
	time.Sleep(1500 * time.Millisecond) // until the window is over
	a := f.Ask(unknownEmail)
	began := time.Now()
	for ; a.Status == http.StatusTooManyRequests && time.Since(began) < 10*time.Second; a = f.Ask(unknownEmail) {
		checkRefusal(t, a, 1, 1)
		time.Sleep(time.Second)
	}
	if a.Status != http.StatusOK {
		t.Fatalf("refused for ever: %d %s", a.Status, a.Raw)
	}
	t.Logf("served after %v", time.Since(began).Round(time.Millisecond))
	checkKeys(t, server)
}
