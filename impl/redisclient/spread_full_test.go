//go:build full

package redisclient

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/resetd/resetd/impl/redisclient/redistest"
)

// TestSpread: for a single Redis the keys are in all parts of the key space; for a Cluster there is one key on
// each node, also just after a slot has moved.
func TestSpread(t *testing.T) {
	cluster := redistest.StartCluster(t)
	target, wrong := Parse(Config{URL: cluster.URL()})
	if wrong != nil {
		t.Fatal(wrong)
	}
	client := New(target, time.Minute, 4)
	defer client.Close()
	on := func(keys []string) (nodes []int) {
		for _, key := range keys {
			if node := cluster.NodeOf(key); !slices.Contains(nodes, node) {
				nodes = append(nodes, node)
			}
		}
		return nodes
	}
	keys, err := client.Spread(t.Context(), "probe:")
	if err != nil || len(keys) != 3 || len(on(keys)) != 3 {
		t.Errorf("%v are on %v, %v", keys, on(keys), err)
	}
	cluster.Move(keys[0], (cluster.NodeOf(keys[0])+1)%3, nil)
	if keys, err = client.Spread(t.Context(), "probe:"); err != nil || len(on(keys)) != 3 {
		t.Errorf("%v are on %v, %v", keys, on(keys), err)
	}
	var mu sync.Mutex
	seen := 0
	err = client.Nodes(t.Context(), func(context.Context, redis.UniversalClient) error {
		mu.Lock()
		defer mu.Unlock()
		seen++
		return nil
	})
	if err != nil || seen != 3 {
		t.Errorf("%d nodes, %v", seen, err)
	}

	single, wrong := Parse(Config{URL: cluster.Nodes[0].URL()})
	if wrong != nil {
		t.Fatal(wrong)
	}
	alone := New(single, time.Minute, 4)
	defer alone.Close()
	if keys, err := alone.Spread(t.Context(), "probe:"); err != nil || len(keys) != spread || len(on(keys)) != 3 {
		t.Errorf("%v are on %v, %v", keys, on(keys), err)
	}
}
