//go:build full

package ratelimit

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/redisclient/redistest"
)

// TestSentinelFailOver: when the primary is killed, limits hold for all requests, and are shared again after the
// Sentinels have a new primary.
func TestSentinelFailOver(t *testing.T) {
	t.Parallel()
	sentinels := redistest.StartSentinels(t)
	store := watch(t, target(t, sentinels.URL()), patience)
	wantInUse(t, store.Store, Redis)
	l := store.Limiter("ip", mustRate(t, "5-M,30-H"))
	wantTakes(t, l, "before", 10, 5)
	outage := startOutage(t, store, l)
	sentinels.Primary.Kill()
	outage.lost(t)
	sentinels.Fail()
	outage.over(t)
	wantTakes(t, l, "before", 10, 0) // the replica has the counts
}

// TestCluster: counts are on all nodes, and move with their slot. While a slot's keys are on their way, its
// clients are limited too, and Redis is not lost. When a node is killed, limits hold in memory until its
// replica has taken its place.
func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	store := watch(t, target(t, cluster.URL()), patience)
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
	if d := wantTakes(t, l, "moving", 1, 0); d.RetryAfter < 1 {
		t.Errorf("retry after %d", d.RetryAfter)
	}
	key := keyOf(l, "moving")
	cluster.Move(key, (cluster.NodeOf(key)+1)%3, func() {
		// The keys have moved, but the slot has not: the source says ASK.
		wantTakes(t, l, "moving", 3, 0)
	})
	wantTakes(t, l, "moving", 3, 0)
	// It has no key yet. Then a Cluster says TRYAGAIN: its tag gives it this slot.
	newcomer := keyOf(l, "newcomer")
	cluster.Move(newcomer, (cluster.NodeOf(newcomer)+1)%3, func() {
		wantTakes(t, l, "newcomer", 10, 5) // in memory
	})
	wantTakes(t, l, "newcomer", 10, 5)
	store.want(t, Redis)

	node := cluster.NodeOf(keyOf(l, "client 0"))
	outage := startOutage(t, store, l)
	cluster.Nodes[node].Kill()
	outage.lost(t)
	cluster.Fail(node)
	outage.over(t)
	wantTakes(t, l, "client 0", 6, 0) // the replica has the counts
	for i := range 30 {
		wantTakes(t, l, fmt.Sprint("client after ", i), 6, 5)
	}
	store.want(t, Redis, Memory, Redis)

	// With only one address of a Cluster, limits do not flap between its node and memory.
	for i, node := range cluster.Nodes {
		single := watch(t, target(t, node.URL()), patience)
		l := single.Limiter("ip", mustRate(t, "5-M"))
		for c := range 20 {
			wantTakes(t, l, fmt.Sprint("client ", c), 6, 5)
		}
		time.Sleep(2 * probeInterval)
		single.want(t, Memory)
		if log := strings.Join(single.messages(t), " "); !strings.Contains(log, "MOVED") {
			t.Errorf("node %d: logged %s", i, log)
		}
		_ = single.Close()
	}
}

// TestClusterNodeHangs: while one node of three hangs, all limits are in memory: the probe asks each node.
func TestClusterNodeHangs(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	store := watch(t, target(t, cluster.URL()), patience)
	wantInUse(t, store.Store, Redis)
	l := store.Limiter("ip", mustRate(t, "5-M"))
	outage := startOutage(t, store, l)
	for _, server := range []*redistest.Server{cluster.Nodes[1], cluster.Replicas[1]} {
		server.Signal(syscall.SIGSTOP)
	}
	outage.lost(t)
	time.Sleep(4 * probeInterval)
	store.want(t, Redis, Memory)
	for _, server := range []*redistest.Server{cluster.Nodes[1], cluster.Replicas[1]} {
		server.Signal(syscall.SIGCONT)
	}
	outage.over(t)
}
