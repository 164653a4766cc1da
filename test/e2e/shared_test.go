//go:build full

package e2e

import (
	"fmt"
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

	"github.com/alicebob/miniredis/v2"

	"github.com/resetd/resetd/impl/devstack"
	"github.com/resetd/resetd/impl/redisclient/redistest"
	"github.com/resetd/resetd/test/resetdtest"
)

// The tests of this file are about promise 9 of SECURITY.md with Redis: every request that an instance has answered 200
// is mailed, even if that instance, or Redis, ends.

// cluster is several instances behind one Redis, and their upstreams.
type cluster struct {
	t         *testing.T
	redis     *redistest.Server          // nil if it is not a single Redis
	servers   func() []*redistest.Server // all servers with keys
	stack     *devstack.Stack
	environ   []string
	instances []*resetdtest.Process
	client    *http.Client

	mu       sync.Mutex
	promised map[string]int // number of 200s for each address
}

// startCluster starts Redis, and no instance yet. The given settings override the defaults.
func startCluster(t *testing.T, people []string, mailgun func(http.Handler) http.Handler, settings ...string) *cluster {
	t.Helper()
	server := newRedis(t)
	server.Start()
	c := startClusterAt(t, server.URL(), people, mailgun, settings...)
	c.redis, c.servers = server, func() []*redistest.Server { return []*redistest.Server{server} }
	return c
}

// startClusterAt is startCluster with a Redis that is already running.
func startClusterAt(t *testing.T, redisURL string, people []string, mailgun func(http.Handler) http.Handler, settings ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, promised: map[string]int{}}
	c.stack = devstack.New(devstack.Config{
		Accounts: people, SiteURL: site, MaxMails: 10_000,
		ServiceRoleKey: "test-service-role-key", MailgunKey: "test-mailgun-key", MailgunDomain: "mg.example.com",
	})
	t.Cleanup(c.stack.Close)
	supabase := httptest.NewServer(c.stack.Supabase())
	t.Cleanup(supabase.Close)
	c.environ = append([]string{
		"LISTEN_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0", "LOG_FORMAT=json", "LOG_LEVEL=debug",
		"SUPABASE_URL=" + supabase.URL, "SUPABASE_SERVICE_ROLE_KEY=test-service-role-key",
		c.mailgun(mailgun), "MAILGUN_API_KEY=test-mailgun-key", "MAILGUN_DOMAIN=mg.example.com",
		"SITE_URL=" + site, "REDIS_URL=" + redisURL, "SHUTDOWN_DELAY=0s", "SHUTDOWN_TIMEOUT=20s",
		"RATE_LIMIT=100000-M", "RECIPIENT_LIMIT=100000-M", "MAX_DELIVERIES=16",
	}, settings...)
	c.client = &http.Client{Transport: resetdtest.NewTransport(t), Timeout: time.Minute}
	return c
}

// mailgun returns the setting for a new stand-in for Mailgun. If an instance has its own, late calls of the instance
// before it do not disturb the test.
func (c *cluster) mailgun(middleware func(http.Handler) http.Handler) (setting string) {
	handler := c.stack.Mailgun()
	if middleware != nil {
		handler = middleware(handler)
	}
	server := httptest.NewServer(handler)
	c.t.Cleanup(server.Close)
	return "MAILGUN_API_BASE=" + server.URL
}

func (c *cluster) start(settings ...string) *resetdtest.Process {
	c.t.Helper()
	p := resetdtest.Run(c.t, append(c.environ, settings...), resetdtest.BuildPatient(c.t), "serve")
	c.instances = append(c.instances, p)
	return p
}

// ask sends a request to one instance, and returns the status; 0 without an answer.
func (c *cluster) ask(p *resetdtest.Process, email string) int {
	response, err := c.client.Do(requestAs(c.t, p.URL, email))
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	if response.StatusCode == http.StatusOK {
		c.mu.Lock()
		c.promised[email]++
		c.mu.Unlock()
	}
	return response.StatusCode
}

// askAll sends a request for each address, to the instances in turn. It calls at after so many answers.
func (c *cluster) askAll(people []string, instances []*resetdtest.Process, at int, then func()) {
	todo := make(chan int)
	var answered atomic.Int64
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for i := range todo {
				c.ask(instances[i%len(instances)], people[i])
				if answered.Add(1) == int64(at) {
					then()
				}
			}
		})
	}
	for i := range people {
		todo <- i
	}
	close(todo)
	clients.Wait()
}

func (c *cluster) mailsTo() map[string]int {
	mails := map[string]int{}
	for _, mail := range c.stack.Mails() {
		for _, to := range mail.To {
			mails[to]++
		}
	}
	return mails
}

// wantMailed waits until every address that was answered 200 has its mail. At most twice addresses may have two mails,
// and none three. When an instance is killed, its running deliveries are mailed twice, and so are deliveries that it
// has not yet removed from Redis. On a busy machine these are some, but not most.
func (c *cluster) wantMailed(within time.Duration, least, twice int) {
	c.t.Helper()
	began := time.Now()
	c.awaitMailed(within)
	took := time.Since(began)
	time.Sleep(2 * time.Second) // enough for second mails
	more := 0
	for email, n := range c.mailsTo() {
		if n > 2 {
			c.t.Errorf("%s has %d mails", email, n)
		}
		if n > 1 {
			more++
		}
	}
	if more > twice {
		c.t.Errorf("%d addresses have two mails, want at most %d", more, twice)
	}
	if len(c.promised) < least {
		c.t.Errorf("only %d were answered 200, too few to show anything", len(c.promised))
	}
	c.t.Logf("%d were answered 200; all mailed %v later; %d have two mails", len(c.promised), took.Round(100*time.Millisecond), more)
}

// awaitMailed waits until every address that was answered 200 has its mail.
func (c *cluster) awaitMailed(within time.Duration) {
	c.t.Helper()
	began := time.Now()
	var missing []string
	for ; ; time.Sleep(50 * time.Millisecond) {
		mails := c.mailsTo()
		missing = missing[:0]
		for email := range c.promised {
			if mails[email] == 0 {
				missing = append(missing, email)
			}
		}
		if len(missing) == 0 {
			return
		}
		if time.Since(began) > within {
			c.t.Errorf("%d of %d addresses that were answered 200 have no mail after %v: %v…", len(missing), len(c.promised), within, missing[:min(3, len(missing))])
			for i, p := range c.instances {
				c.t.Logf("instance %d:\n%s", i, strings.Join(notable.FindAllString(p.Log.String(), 20), "\n"))
			}
			return
		}
	}
}

var notable = regexp.MustCompile(`.*(?:WARN|ERROR).*`)

// keys returns the names of all keys that match.
func (c *cluster) keys(pattern string) (keys []string) {
	c.t.Helper()
	for _, server := range c.servers() {
		for _, key := range server.Do("KEYS", pattern).([]any) {
			keys = append(keys, key.(string))
		}
	}
	return keys
}

// wantEmpty checks that Redis has no request and no account after all is delivered.
func (c *cluster) wantEmpty() {
	c.t.Helper()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		var left []string
		for _, server := range c.servers() {
			for _, key := range server.Do("KEYS", "resetd:{*").([]any) {
				if key := key.(string); strings.Contains(key, ":account:") {
					left = append(left, key)
				} else if strings.HasSuffix(key, ":requests") {
					if n := server.Do("XLEN", key); n != int64(0) {
						left = append(left, fmt.Sprint(key, " with ", n))
					}
				}
			}
		}
		if len(left) == 0 {
			break
		}
		if time.Since(began) > time.Minute {
			c.t.Errorf("Redis still holds %d keys: %v…", len(left), left[:min(3, len(left))])
			return
		}
	}
	for _, server := range c.servers() {
		checkKeys(c.t, server)
	}
}

// aFew of 200 mails may come twice if an instance is killed.
const aFew = 60

// TestInstanceKilled: one of two instances is killed while 200 requests for 200 accounts are answered.
func TestInstanceKilled(t *testing.T) {
	t.Parallel()
	people := numbered(accounts, 200)
	c := startCluster(t, people, nil)
	one, other := c.start(), c.start()
	c.askAll(people, []*resetdtest.Process{one, other}, 120, one.Kill)
	c.wantMailed(60*time.Second, 150, aFew)
	c.wantEmpty()
	if other.Log.Records(t, "requests of an instance that has ended were taken over") == nil {
		c.t.Errorf("nothing was taken over")
	}
}

// TestAllInstancesKilled: all instances are killed, and one is started.
func TestAllInstancesKilled(t *testing.T) {
	t.Parallel()
	people := numbered(accounts, 200)
	c := startCluster(t, people, nil)
	instances := []*resetdtest.Process{c.start(), c.start()}
	c.askAll(people, instances, 190, func() {
		for _, p := range instances {
			p.Kill()
		}
	})
	c.start()
	c.wantMailed(60*time.Second, 150, aFew)
	c.wantEmpty()
}

// TestInstanceStopped: an instance that hangs loses its requests to others, and does not repeat them when it wakes up.
func TestInstanceStopped(t *testing.T) {
	t.Parallel()
	people := numbered(accounts, 200)
	c := startCluster(t, people, nil, "MAX_DELIVERIES=4") // running deliveries are sent twice
	c.client.Timeout = 2 * time.Second                    // the hanging instance gives no answer
	one, other := c.start(), c.start()
	c.askAll(people, []*resetdtest.Process{one, other}, 120, func() {
		one.Signal(syscall.SIGSTOP)
		c.client.CloseIdleConnections()
	})
	defer func() { one.Signal(syscall.SIGCONT) }()
	c.wantMailed(60*time.Second, 100, aFew)
	one.Signal(syscall.SIGCONT)
	c.wantMailed(time.Second, 100, aFew)
	c.wantEmpty()
}

// TestRedisKilled: Redis is killed while requests are answered, and starts again with its append-only file. Requests are
// accepted all the time.
func TestRedisKilled(t *testing.T) {
	t.Parallel()
	people := numbered(accounts, 400)
	c := startCluster(t, people, nil)
	c.redis.Keep()
	one, other := c.start(), c.start()
	c.askAll(people[:200], []*resetdtest.Process{one, other}, 120, c.redis.Kill)
	c.askAll(people[200:300], []*resetdtest.Process{one, other}, -1, nil) // without Redis
	c.redis.Start()
	for _, p := range c.instances {
		awaitRequestsIn(t, p, "redis")
	}
	c.askAll(people[300:], []*resetdtest.Process{one, other}, -1, nil)
	c.wantMailed(60*time.Second, 400, aFew)
	c.wantEmpty()
}

// TestRedisAndInstanceKilled: both are killed, and the requests that Redis has on disk are delivered.
func TestRedisAndInstanceKilled(t *testing.T) {
	t.Parallel()
	fault := &resetdtest.Slot{}
	people := numbered(accounts, 100)
	c := startCluster(t, people, fault.Middleware)
	one := c.start()
	fault.Set(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }))
	c.askAll(people, []*resetdtest.Process{one}, -1, nil)
	c.redis.Do("SAVE")
	one.Kill()
	c.redis.Kill()
	c.redis.Start()
	c.start(c.mailgun(nil))
	c.wantMailed(60*time.Second, len(people), 0)
	c.wantEmpty()
}

func awaitRequestsIn(t testing.TB, p *resetdtest.Process, store string) {
	t.Helper()
	for began := time.Now(); p.Metric("resetd_requests_in", `store="`+store+`"`) != 1; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("requests are not in %s after a minute", store)
		}
	}
}

// TestRollingRestart: instances are replaced one after the other, under load, and no request is lost or refused. Clients
// send to an instance that is ready, as a proxy does.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	const perSecond = 50
	people := numbered(accounts, 12*perSecond)
	c := startCluster(t, people, nil, "SHUTDOWN_DELAY=1s")
	var ready sync.Map // *resetdtest.Process: true
	for range 3 {
		ready.Store(c.start(), true)
	}
	var refused atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		var clients sync.WaitGroup
		for i, email := range people {
			time.Sleep(time.Second / perSecond)
			var choices []*resetdtest.Process
			ready.Range(func(p, _ any) bool { choices = append(choices, p.(*resetdtest.Process)); return true })
			clients.Go(func() {
				if status := c.ask(choices[i%len(choices)], email); status != http.StatusOK {
					refused.Add(1)
				}
			})
		}
		clients.Wait()
	}()
	for _, old := range c.instances[:3] {
		time.Sleep(time.Second)
		ready.Store(c.start(), true)
		ready.Delete(old) // the proxy has noticed that it is not ready
		if err := old.Stop(); err != nil {
			c.t.Errorf("resetd: %v", err)
		}
	}
	<-done
	if n := refused.Load(); n != 0 {
		c.t.Errorf("%d requests were refused", n)
	}
	c.wantMailed(30*time.Second, len(people), 0)
	c.wantEmpty()
}

// everything is a script that returns each key of Redis, its type and its value. Keys do not expire while it runs.
const everything = `
	local read = {stream = {"XRANGE", "-", "+"}, hash = {"HGETALL"}, string = {"GET"}}
	local rows = {}
	for i, key in ipairs(redis.call("KEYS", "*")) do
		local kind = redis.call("TYPE", key).ok
		local command = read[kind]
		rows[i] = {key, kind, redis.call(command[1], key, unpack(command, 2))}
	end
	return rows`

// TestNothingReadable: neither the keys nor the values in Redis tell the account, the link or the language of a request.
func TestNothingReadable(t *testing.T) {
	t.Parallel()
	fault := &resetdtest.Slot{}
	people := numbered(accounts, 20)
	c := startCluster(t, people, fault.Middleware)
	p := c.start()
	if status := c.ask(p, people[0]); status != http.StatusOK {
		t.Fatal(status)
	}
	c.wantMailed(10*time.Second, 1, 0)
	fault.Set(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }))
	for _, email := range people[1:] {
		request := requestAs(t, p.URL, email)
		request.Header.Set("Accept-Language", "de-CH")
		response, err := c.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		c.promised[email]++
	}
	time.Sleep(2 * time.Second) // each delivery was tried, and has a link
	entries := 0
	for _, row := range c.redis.Do("EVAL", everything, 0).([]any) {
		key, kind, content := row.([]any)[0].(string), row.([]any)[1].(string), row.([]any)[2]
		if kind == "stream" {
			entries += len(content.([]any))
		}
		value := fmt.Sprint(content)
		for _, private := range []string{"number-", "@example", ".example", "https:", "de-ch", "token", "test-service"} {
			if strings.Contains(strings.ToLower(key+value), private) {
				t.Errorf("%s tells %q", key, private)
			}
		}
	}
	if entries != len(people)-1 {
		t.Errorf("%d requests in Redis, want %d", entries, len(people)-1)
	}
	checkKeys(c.t, c.redis)
	fault.Set(nil)
	c.wantMailed(60*time.Second, len(people), 0)
	c.wantEmpty()
}

// TestKeyChanged: requests that were encrypted with another Supabase key are counted, logged and dropped, and other
// requests are delivered.
func TestKeyChanged(t *testing.T) {
	t.Parallel()
	people := numbered(accounts, 20)
	c := startCluster(t, people, nil)
	old := c.start("SUPABASE_SERVICE_ROLE_KEY=the-key-before-this-one", "MAIL_PROBE=off")
	stream := ""
	for _, key := range c.redis.Do("KEYS", "resetd:{*}:requests").([]any) {
		stream = key.(string)
	}
	old.Kill()
	// An instance with another key would have left this.
	id := c.redis.Do("XADD", stream, "*", "request", strings.Repeat("x", 300))
	c.redis.Do("XCLAIM", stream, "deliveries", "ANOTHERINSTANCEAAAAAAAAAAA", 0, id, "FORCE", "JUSTID")
	p := c.start()
	p.Log.Await(t, `"level":"ERROR","msg":"a request in Redis was encrypted under another Supabase key, and is dropped"`)
	if n := p.Metric("resetd_unreadable_requests_total", ""); n != 1 {
		t.Errorf("%v unreadable requests are counted", n)
	}
	c.askAll(people, []*resetdtest.Process{p}, -1, nil)
	c.wantMailed(20*time.Second, len(people), 0)
	c.wantEmpty()
}

// TestOnePendingOfAll: requests for one account at several instances cause one mail, for the newest request, with a link
// that works.
func TestOnePendingOfAll(t *testing.T) {
	t.Parallel()
	fault := &resetdtest.Slot{}
	people := numbered(accounts, 10)
	c := startCluster(t, people, fault.Middleware)
	instances := []*resetdtest.Process{c.start(), c.start(), c.start()}
	c.ask(instances[0], people[0]) // makes the probes' verdicts
	c.wantMailed(10*time.Second, 1, 0)
	c.stack.Reset()
	fault.Set(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }))
	for round := range 6 {
		for i, email := range people {
			if status := c.ask(instances[(round+i)%3], email); status != http.StatusOK {
				c.t.Errorf("%d", status)
			}
		}
		time.Sleep(500 * time.Millisecond)
	}
	fault.Set(nil)
	c.wantMailed(60*time.Second, len(people), 0)
	for _, mail := range c.stack.Mails() {
		found := regexp.MustCompile(`token_hash=([^&\s]+)`).FindStringSubmatch(mail.Text)
		if found == nil {
			t.Fatalf("a mail without a link:\n%s", mail.Text)
		}
		verified := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodPost, "/auth/v1/verify", strings.NewReader(`{"type":"recovery","token_hash":"`+found[1]+`"}`))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("apikey", "test-service-role-key")
		c.stack.Supabase().ServeHTTP(verified, request)
		if verified.Code != http.StatusOK {
			c.t.Errorf("the link to %v is answered %d: %s", mail.To, verified.Code, verified.Body)
		}
	}
	suppressed := 0
	for _, p := range instances {
		suppressed += strings.Count(p.Log.String(), `"outcome":"suppressed"`)
	}
	if want := 5 * len(people); suppressed != want {
		c.t.Errorf("%d requests were replaced by a newer one, want %d", suppressed, want)
	}
	c.wantEmpty()
}

// TestSameAccountAtOnce: of simultaneous requests for one account, Redis and the memory of their instance may take
// different ones for the newest. At least one of them is mailed.
func TestSameAccountAtOnce(t *testing.T) {
	t.Parallel()
	people := numbered(accounts, 40)
	c := startCluster(t, people, nil)
	p := c.start()
	took := map[string]time.Duration{}
	for _, email := range people {
		began := time.Now()
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() { c.ask(p, email) })
		}
		clients.Wait()
		took[email] = time.Since(began)
	}
	c.awaitMailed(time.Minute)
	for email, n := range c.mailsTo() {
		if n > 2 && took[email] < 300*time.Millisecond { // otherwise a mail may be sent between two of the requests
			t.Errorf("%s has %d mails for requests within %v", email, n, took[email])
		}
	}
	if len(c.promised) != len(people) {
		t.Errorf("requests for %d accounts were answered 200, want %d", len(c.promised), len(people))
	}
	c.wantEmpty()
}

// TestSharedFaults: whatever Redis does, requests are accepted, and mailed exactly once. When Redis is back it is used
// again, and it is empty at the end.
func TestSharedFaults(t *testing.T) {
	for _, fault := range redisFaults() {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			people := numbered(accounts, 90)
			c := startCluster(t, people, nil)
			var settings []string
			if fault.noPassword {
				c.redis.SetPassword("")
			}
			if fault.slow != nil {
				settings = append(settings, "REDIS_URL="+strings.Replace(c.redis.URL(), c.redis.Addr, fault.slow.listen(t, c.redis.Addr), 1))
			} else {
				settings = append(settings, "REDIS_URL="+c.redis.URL())
			}
			if fault.atStart {
				fault.begin(c.redis)
			}
			p := c.start(settings...)
			if !fault.atStart {
				c.askAll(people[:30], []*resetdtest.Process{p}, -1, nil)
				fault.begin(c.redis)
			}
			c.askAll(people[30:60], []*resetdtest.Process{p}, -1, nil)
			if fault.reason != "" {
				awaitRequestsIn(t, p, "memory")
			}
			if fault.end != nil {
				fault.end(c.redis)
			}
			awaitRequestsIn(t, p, "redis")
			c.askAll(people[60:], []*resetdtest.Process{p}, -1, nil)
			want := len(people)
			if fault.atStart {
				want = 60
			}
			c.wantMailed(60*time.Second, want, 0)
			c.wantEmpty()
		})
	}
}

// TestLeftInRedis: requests that a stop has no time for stay in Redis, are no failure, and are delivered at once after
// the next start.
func TestLeftInRedis(t *testing.T) {
	t.Parallel()
	fault := &resetdtest.Slot{}
	people := numbered(accounts, 20)
	c := startCluster(t, people, fault.Middleware, "SHUTDOWN_TIMEOUT=1s")
	one := c.start()
	fault.Set(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }))
	c.askAll(people, []*resetdtest.Process{one}, -1, nil)
	if err := one.Stop(); err != nil {
		c.t.Errorf("resetd: %v", err)
	} // the exit status is 0
	left := one.Log.Records(t, "requests are left in Redis, for other instances or the next start")
	if len(left) != 1 || left[0]["requests"] != float64(len(people)) || len(one.Log.Records(t, "delivery")) != 0 {
		c.t.Errorf("%d requests are left, and the log says %v, with %d deliveries", len(people), left, len(one.Log.Records(t, "delivery")))
	}
	c.start(c.mailgun(nil))
	c.wantMailed(5*time.Second, len(people), 0)
	c.wantEmpty()
}

// TestWebhookReplayShared: a signature counts once also for all instances with the same Redis.
func TestWebhookReplayShared(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	shared := with(withWebhooks, map[string]string{"REDIS_URL": "redis://" + server.Addr()})
	config := resetdtest.Config{Build: resetdtest.BuildPatient, Settings: shared}
	one, two := start(t, config), start(t, config)
	for _, f := range []*fixture{one, two} {
		f.Log.Await(t, `"limits_in":"redis"`)
	}
	r := newReport(knownEmail)
	for _, f := range []*fixture{one, two, one} {
		if a := f.hook(r.body()); a.Status != http.StatusOK || a.Raw != taken {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	}
	one.checkCounted("the first", map[string]string{"permanent_fail": "1", "replay": "1"})
	two.checkCounted("the second", map[string]string{"replay": "1"})
	if a := two.hook(newReport(knownEmail).body()); a.Status != http.StatusOK {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	two.checkCounted("the second", map[string]string{"permanent_fail": "1", "replay": "1"})

	keys := slices.DeleteFunc(server.Keys(), func(key string) bool { return !strings.Contains(key, "webhook") })
	if len(keys) != 2 {
		t.Errorf("Redis has %v", keys)
	}
	for _, key := range keys {
		if !regexp.MustCompile(`^resetd:webhook:\{[A-Za-z0-9_-]{22}\}:D$`).MatchString(key) {
			t.Errorf("Redis has the key %q", key)
		}
		// Longer than Mailgun's signature is valid, but not for ever.
		if ttl := server.TTL(key); ttl < 13*time.Hour || ttl > 24*time.Hour {
			t.Errorf("%s lives for %v more", key, ttl)
		}
	}
}
