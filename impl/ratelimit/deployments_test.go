package ratelimit

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/redisclient/redistest"
)

// watched is a store whose changes are looked at.
type watched struct {
	*Store
	log *logBuffer

	mu      sync.Mutex
	changes []string // what is in use since each
}

func watch(t testing.TB, url string) *watched {
	t.Helper()
	w := &watched{log: &logBuffer{}}
	w.Store = open(t, Options{
		Redis:  target(t, url),
		Logger: slog.New(slog.NewJSONHandler(w.log, nil)),
		OnChange: func(inUse string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.changes = append(w.changes, inUse)
		},
	})
	return w
}

// want fails the test unless these were the changes, and the last of them holds.
func (w *watched) want(t testing.TB, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.changes, want) {
		t.Errorf("in use were %q, want %q: %q", w.changes, want, w.log.messages(t))
	}
	if last := w.changes[len(w.changes)-1]; last != w.InUse() {
		t.Errorf("the last that was told is %s, and in use is %s", last, w.InUse())
	}
}

// TestSentinelFailOver: the primary is killed, with requests all the time. Limits hold, no request waits
// for longer than promised, and they are shared again soon after the Sentinels have a new primary.
func TestSentinelFailOver(t *testing.T) {
	t.Parallel()
	redistest.Steadily(t, sentinelFailOver)
}

func sentinelFailOver(t testing.TB) {
	sentinels := redistest.StartSentinels(t)
	store := watch(t, sentinels.URL())
	wantInUse(t, store.Store, Redis)
	l := store.Limiter("ip", mustRate(t, "5-M,30-H"))
	wantTakes(t, l, "before", 10, 5)
	load := startLoad(l)
	began := time.Now()
	sentinels.Primary.Kill()
	lost := waitInUse(t, store.Store, Memory)
	time.Sleep(promise) // those under way
	load.phase()
	wantTakes(t, l, "away", 10, 5)
	sentinels.Fail()
	failover := time.Since(began)
	back := waitInUse(t, store.Store, Redis)
	worst := load.stop().worst
	wantTakes(t, l, "before", 10, 0) // the replica knows what was counted
	wantTakes(t, l, "after", 10, 5)
	store.want(t, Redis, Memory, Redis)
	t.Logf("TABLE | Sentinels | lost after %v | worst wait %v, while away %v | fail-over %v | back %v after it", lost.Round(time.Millisecond),
		load.before.worst.Round(time.Millisecond), worst.Round(time.Millisecond), failover.Round(time.Millisecond), back.Round(time.Millisecond))
	if load.before.worst > promise || worst > promise {
		t.Errorf("a request waited for %v and %v", load.before.worst, worst)
	}
	// It takes two beats where go-redis rests for a second after a series of failed dials. The rest is for
	// a busy machine.
	if back > 10*probeInterval {
		t.Errorf("back only after %v", back)
	}
}

// TestCluster: counts are on all nodes, and stay where a slot goes; while its keys are on their way, its
// clients are limited all the same, and Redis is not lost. When a node is killed, limits hold in memory
// until its replica has taken its place.
func TestCluster(t *testing.T) {
	t.Parallel()
	redistest.Steadily(t, clusterOfThree)
}

func clusterOfThree(t testing.TB) {
	cluster := redistest.StartCluster(t)
	store := watch(t, cluster.URL())
	wantInUse(t, store.Store, Redis)
	l := store.Limiter("ip", mustRate(t, "5-M,30-H"))
	for i := range 30 {
		wantTakes(t, l, fmt.Sprint("client ", i), 6, 5)
	}
	for i, node := range cluster.Nodes {
		if keys := len(node.Keys()); keys == 0 {
			t.Errorf("node %d has no key", i)
		}
	}
	wantTakes(t, l, "moving", 5, 5)
	d := wantTakes(t, l, "moving", 1, 0)
	if d.RetryAfter < 1 {
		t.Errorf("retry after %d", d.RetryAfter)
	}
	key := keyOf(l, "moving")
	to := (cluster.NodeOf(key) + 1) % 3
	// "newcomer" has no key yet, which is where a Cluster says TRYAGAIN: its slot is that of its tag.
	cluster.Move(key, to, func() {
		// The keys are there already, and the slot is still here: the source says ASK.
		wantTakes(t, l, "moving", 3, 0)
	})
	wantTakes(t, l, "moving", 3, 0)
	newcomer := keyOf(l, "newcomer")
	cluster.Move(newcomer, (cluster.NodeOf(newcomer)+1)%3, func() {
		wantTakes(t, l, "newcomer", 10, 5) // in memory
	})
	wantTakes(t, l, "newcomer", 10, 5)
	store.want(t, Redis)

	load := startLoad(l)
	began := time.Now()
	node := cluster.NodeOf(keyOf(l, "client 0"))
	go func() {
		for range 20 { // one of them is on that node
			l.Take(t.Context(), "client 0")
			time.Sleep(20 * time.Millisecond)
		}
	}()
	cluster.Nodes[node].Kill()
	lost := waitInUse(t, store.Store, Memory)
	time.Sleep(promise)
	load.phase()
	wantTakes(t, l, "away", 10, 5)
	cluster.Fail(node)
	failover := time.Since(began)
	back := waitInUse(t, store.Store, Redis)
	worst := load.stop().worst
	wantTakes(t, l, "client 0", 6, 0) // the replica knows what was counted
	for i := range 30 {
		wantTakes(t, l, fmt.Sprint("client after ", i), 6, 5)
	}
	store.want(t, Redis, Memory, Redis)
	t.Logf("TABLE | Cluster | lost after %v | worst wait %v, while away %v | fail-over %v | back %v after it", lost.Round(time.Millisecond),
		load.before.worst.Round(time.Millisecond), worst.Round(time.Millisecond), failover.Round(time.Millisecond), back.Round(time.Millisecond))
	if load.before.worst > promise || worst > promise {
		t.Errorf("a request waited for %v and %v", load.before.worst, worst)
	}
	if back > 10*probeInterval {
		t.Errorf("back only after %v", back)
	}

	// With a single address of a Cluster, no limit flaps between its node and memory.
	for i, node := range cluster.Nodes {
		single := watch(t, node.URL())
		l := single.Limiter("ip", mustRate(t, "5-M"))
		for c := range 20 {
			wantTakes(t, l, fmt.Sprint("client ", c), 6, 5)
		}
		time.Sleep(2 * probeInterval)
		single.want(t, Memory)
		if log := strings.Join(single.log.messages(t), " "); !strings.Contains(log, "MOVED") {
			t.Errorf("node %d: logged %s", i, log)
		}
		_ = single.Close()
	}
}

// keyOf is the key of a client's shortest window.
func keyOf(l *Limiter, client string) string {
	k := l.hash(client)
	return l.keys(k)[0]
}

// TestClusterNodeHangs: while one node of three hangs, limits are in memory all the time: the probe asks
// each node.
func TestClusterNodeHangs(t *testing.T) {
	t.Parallel()
	redistest.Steadily(t, clusterNodeHangs)
}

func clusterNodeHangs(t testing.TB) {
	cluster := redistest.StartCluster(t)
	store := watch(t, cluster.URL())
	wantInUse(t, store.Store, Redis)
	l := store.Limiter("ip", mustRate(t, "5-M"))
	load := startLoad(l)
	for _, server := range []*redistest.Server{cluster.Nodes[1], cluster.Replicas[1]} {
		server.Signal(syscall.SIGSTOP)
	}
	waitInUse(t, store.Store, Memory)
	time.Sleep(promise)
	load.phase()
	time.Sleep(4 * probeInterval)
	store.want(t, Redis, Memory)
	for _, server := range []*redistest.Server{cluster.Nodes[1], cluster.Replicas[1]} {
		server.Signal(syscall.SIGCONT)
	}
	back := waitInUse(t, store.Store, Redis)
	worst := load.stop().worst
	t.Logf("TABLE | Cluster, a node hangs | worst wait %v, while away %v | back after %v", load.before.worst, worst, back)
	if load.before.worst > promise || worst > promise {
		t.Errorf("a request waited for %v and %v", load.before.worst, worst)
	}
	store.want(t, Redis, Memory, Redis)
}

// TestRedisFlaps: a Redis that works for half of the time is not in use for half of it, and the log does
// not tell of each time.
func TestRedisFlaps(t *testing.T) {
	t.Parallel()
	redistest.Steadily(t, redisFlaps)
}

func redisFlaps(t testing.TB) {
	server := redistest.Start(t)
	proxy := &delay{to: server.Addr}
	store := watch(t, "redis://"+proxy.listen(t))
	wantInUse(t, store.Store, Redis)
	l := store.Limiter("ip", mustRate(t, "5-M"))
	load := startLoad(l)
	for range 12 {
		proxy.by.Store(int64(300 * time.Millisecond))
		time.Sleep(probeInterval / 2)
		proxy.by.Store(0)
		time.Sleep(probeInterval)
	}
	load.stop()
	store.mu.Lock()
	changes := len(store.changes)
	store.mu.Unlock()
	if changes > 9 {
		t.Errorf("%d changes in 18 s: %q", changes, store.log.messages(t))
	}
	if waited := waitInUse(t, store.Store, Redis); waited > 30*time.Second {
		t.Errorf("back after %v", waited)
	}
}

// TestSocket: Redis at a Unix socket.
func TestSocket(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	server.Password = "p@ss"
	path := server.UseSocket()
	server.Start()
	store := watch(t, "unix://:p%40ss@"+path+"?db=3")
	wantInUse(t, store.Store, Redis)
	wantTakes(t, store.Limiter("ip", mustRate(t, "5-M")), "a", 10, 5)
	store.want(t, Redis)
	if got := server.Do("INFO", "keyspace").(string); !strings.Contains(got, "db3:") {
		t.Errorf("databases in use: %s", got)
	}
	if pong, err := Ping(t.Context(), target(t, "unix://:p%40ss@"+path), pingTimeout); err != nil || pong.Mode != "standalone" {
		t.Errorf("%+v, %v", pong, err)
	}
}

// TestPrivateTLS: an authority of one's own, and a client's certificate, for a server that has a
// certificate for its own address, and for one that has it for the host of the URL alone.
func TestPrivateTLS(t *testing.T) {
	t.Parallel()
	authority := redistest.NewAuthority(t)
	certificate, key := authority.Issue(time.Now().Add(time.Hour), "client")
	server := redistest.New(t)
	address := server.UseTLS(authority, time.Now().Add(time.Hour), true, server.Host())
	server.Start()
	parsed, wrong := redisclient.Parse(redisclient.Config{URL: "rediss://" + address, CA: authority.PEM, ClientCert: certificate, ClientKey: key})
	if wrong != nil {
		t.Fatal(wrong)
	}
	store := open(t, Options{Redis: parsed})
	wantInUse(t, store, Redis)
	wantTakes(t, store.Limiter("ip", mustRate(t, "5-M")), "a", 10, 5)
	wantInUse(t, store, Redis)
}
