//go:build full

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/redisclient/redistest"
	"github.com/resetd/resetd/test/resetdtest"
)

// The tests of this file run the shipped binary with each way to deploy Redis.

// served sends seven requests as one client, and returns how many were answered 200.
func (c *cluster) served(p *resetdtest.Process, client string) (n int) {
	for i := range 7 {
		response, err := c.client.Do(requestAs(c.t, p.URL, fmt.Sprintf("stranger-%d@example.org", i), client))
		if err != nil {
			c.t.Errorf("%v", err)
			continue
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			n++
		}
	}
	return n
}

// awaitLimitsIn waits until limits are counted in this store, and returns how long that took.
func awaitLimitsIn(t testing.TB, p *resetdtest.Process, store string) time.Duration {
	t.Helper()
	began := time.Now()
	for ; gauge(p, store) != 1; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("limits are not in %s after a minute", store)
		}
	}
	return time.Since(began)
}

var inUse = regexp.MustCompile(`"(?:limits|requests)_in":"(\w+)"`)

// wantTruth checks that the metrics say what was logged last, and that changes were not logged often.
func (c *cluster) wantTruth(most int) {
	c.t.Helper()
	for i, p := range c.instances {
		if p.HasEnded() {
			continue
		}
		changes := inUse.FindAllStringSubmatch(p.Log.String(), -1)
		if len(changes) > most {
			c.t.Errorf("instance %d logged %d changes of where it counts and keeps: %v", i, len(changes), changes)
		}
		if gauge(p, "redis") != 1 {
			c.t.Errorf("instance %d does not count in Redis", i)
		}
	}
}

// TestBehindSentinels: the primary is killed while requests are answered. All accepted requests are mailed, limits hold,
// and both are in Redis again soon after the fail-over.
func TestBehindSentinels(t *testing.T) {
	t.Parallel()
	people := numbered(accounts, 300)
	sentinels := redistest.StartSentinels(t)
	c := startClusterAt(t, sentinels.URL(), people, nil)
	c.servers = func() []*redistest.Server { return []*redistest.Server{sentinels.Primary} }
	one, other := c.start(), c.start()
	limited := c.start("RATE_LIMIT=5-M", "TRUSTED_PROXIES=127.0.0.0/8")
	if n := c.served(limited, "198.51.100.1"); n != 5 {
		t.Errorf("before, a client is served %d times of 7, want 5", n)
	}
	c.askAll(people[:150], []*resetdtest.Process{one, other}, 75, sentinels.Primary.Kill)
	if n := c.served(limited, "198.51.100.2"); n != 5 {
		t.Errorf("while Redis is away, a client is served %d times of 7, want 5", n)
	}
	c.askAll(people[150:250], []*resetdtest.Process{one, other}, -1, nil)
	sentinels.Fail()
	began := time.Now()
	awaitLimitsIn(t, limited, "redis")
	for _, p := range c.instances {
		awaitRequestsIn(t, p, "redis")
		awaitLimitsIn(t, p, "redis")
	}
	t.Logf("Sentinels: all instances are back %v after the fail-over", time.Since(began).Round(time.Millisecond))
	if n := c.served(limited, "198.51.100.1"); n != 0 {
		t.Errorf("after the fail-over, a client that was refused before is served %d times of 7", n)
	}
	c.askAll(people[250:], []*resetdtest.Process{one, other}, -1, nil)
	c.wantMailed(60*time.Second, len(people), aFew)
	c.wantEmpty()
	c.wantTruth(12)
}

// TestInCluster: the slot of the requests is moved, and then its node killed, while requests are answered.
func TestInCluster(t *testing.T) {
	t.Parallel()
	people := numbered(accounts, 300)
	redisCluster := redistest.StartCluster(t)
	c := startClusterAt(t, redisCluster.URL(), people, nil)
	c.servers = func() []*redistest.Server { return redisCluster.Nodes }
	one, other := c.start(), c.start()
	limited := c.start("RATE_LIMIT=5-M", "TRUSTED_PROXIES=127.0.0.0/8")
	for _, p := range c.instances {
		awaitRequestsIn(t, p, "redis")
	}
	stream := c.keys("resetd:{*}:requests")[0]
	for i := range 20 {
		if n := c.served(limited, fmt.Sprintf("198.51.100.%d", i)); n != 5 {
			t.Errorf("client %d is served %d times of 7, want 5", i, n)
		}
	}
	c.askAll(people[:100], []*resetdtest.Process{one, other}, 50, func() {
		redisCluster.Move(stream, (redisCluster.NodeOf(stream)+1)%3, func() { time.Sleep(200 * time.Millisecond) })
	})
	for _, p := range c.instances {
		awaitRequestsIn(t, p, "redis")
	}
	node := redisCluster.NodeOf(stream)
	c.askAll(people[100:200], []*resetdtest.Process{one, other}, 50, redisCluster.Nodes[node].Kill)
	for i := 0; gauge(limited, "memory") != 1; i++ { // until a client is on that node
		c.served(limited, fmt.Sprintf("192.0.2.%d", i%256))
	}
	if n := c.served(limited, "203.0.113.1"); n != 5 {
		t.Errorf("while a node is away, a client is served %d times of 7, want 5", n)
	}
	redisCluster.Fail(node)
	began := time.Now()
	for _, p := range c.instances {
		awaitRequestsIn(t, p, "redis")
		awaitLimitsIn(t, p, "redis")
	}
	t.Logf("Cluster: all instances are back %v after the fail-over", time.Since(began).Round(time.Millisecond))
	for i := range 20 {
		if n := c.served(limited, fmt.Sprintf("198.51.100.%d", i)); n != 0 {
			t.Errorf("after the fail-over, client %d that was refused before is served %d times of 7", i, n)
		}
	}
	c.askAll(people[200:], []*resetdtest.Process{one, other}, -1, nil)
	c.wantMailed(60*time.Second, len(people), aFew)
	c.wantEmpty()
	c.wantTruth(14)
}

// TestAtSocket: requests survive their instance with Redis at a Unix socket, for a user with only the rights that
// docs/operations.md lists.
func TestAtSocket(t *testing.T) {
	t.Parallel()
	server := newRedis(t)
	path := server.UseSocket()
	server.Start()
	rule := []any{"ACL", "SETUSER", "small", "on", ">small-pass", "~resetd:*", "resetchannels", "-@all"}
	for _, right := range strings.Fields(leastRights(t)) {
		rule = append(rule, right)
	}
	server.Do(rule...)
	people := numbered(accounts, 100)
	c := startClusterAt(t, "unix://small:small-pass@"+path+"?db=0", people, nil)
	c.servers = func() []*redistest.Server { return []*redistest.Server{server} }
	one, other := c.start(), c.start()
	c.askAll(people, []*resetdtest.Process{one, other}, 60, one.Kill)
	c.wantMailed(60*time.Second, 70, aFew)
	c.wantEmpty()
	if denied, _ := server.Do("ACL", "LOG").([]any); len(denied) > 0 {
		t.Errorf("the user may not do what it wants to: %v", denied)
	}
}

// TestMutualTLS: Redis has a certificate of its own authority and asks for a client's certificate, all from files.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	authority := redistest.NewAuthority(t)
	certificate, key := authority.Issue(time.Now().Add(time.Hour), "resetd")
	dir := t.TempDir()
	for name, content := range map[string]string{"ca.pem": authority.PEM, "cert.pem": certificate, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := newRedis(t)
	address := server.UseTLS(authority, time.Now().Add(time.Hour), true, server.Host())
	server.Start()
	people := numbered(accounts, 30)
	c := startClusterAt(t, "rediss://:"+server.Password+"@"+address, people, nil,
		"REDIS_CA_FILE="+filepath.Join(dir, "ca.pem"), "REDIS_CLIENT_CERT_FILE="+filepath.Join(dir, "cert.pem"), "REDIS_CLIENT_KEY_FILE="+filepath.Join(dir, "key.pem"))
	c.servers = func() []*redistest.Server { return []*redistest.Server{server} }
	p := c.start()
	awaitLimitsIn(t, p, "redis")
	awaitRequestsIn(t, p, "redis")
	c.askAll(people, []*resetdtest.Process{p}, -1, nil)
	c.wantMailed(30*time.Second, len(people), 0)
	c.wantEmpty()
	if strings.Contains(p.Log.String(), "BEGIN") {
		t.Error("the log has a certificate or a key")
	}
}

// TestNodeAsSingle: one node of a Cluster, given as a single Redis, is never used, and the metrics say so.
func TestNodeAsSingle(t *testing.T) {
	t.Parallel()
	redisCluster := redistest.StartCluster(t)
	for _, node := range redisCluster.Nodes {
		f := start(t, resetdtest.Config{
			Build: resetdtest.BuildPatient, Settings: with(behindProxy, map[string]string{"REDIS_URL": node.URL(), "RATE_LIMIT": "5-M"}),
		})
		for i := range 60 {
			f.askAs(unknownEmail, fmt.Sprintf("198.51.100.%d", i))
			if gauge(f.Process, "memory") != 1 {
				t.Fatal("limits are said to be in Redis")
			}
			time.Sleep(50 * time.Millisecond)
		}
		if n := strings.Count(f.Log.String(), `"limits_in"`); n != 1 || !strings.Contains(f.Log.String(), `"limits_in":"memory","reason":"MOVED"`) {
			t.Errorf("%d changes of where limits are counted are logged:\n%s", n, f.Log)
		}
	}
}

// leastRights are the rights that docs/operations.md gives a user of Redis.
func leastRights(t testing.TB) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`\+evalsha [+a-z| ]+`).FindString(string(page))
	if found == "" {
		t.Fatal("docs/operations.md gives a user of Redis no rights")
	}
	return found
}
