package ratelimit

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/resetd/resetd/impl/redisclient"
)

// Pong is the result of Ping.
type Pong struct {
	RoundTrip time.Duration // of one count on each node: the fastest of three, as a Redis that was slow once is tried again
	Evicts    string        // the maxmemory-policy that evicts keys before their time; empty if none are evicted
	Mode      string        // standalone, cluster or sentinel, as the server says; empty if it does not say
}

// Ping counts in Redis as a limiter does, under keys of its own on each node that it removes again: a Redis that
// answers PING may be a replica, full, closed to scripts, or one node of a Cluster. It waits for timeout, longer than
// a limiter does, to measure how slow Redis is. Its error is one of redisclient.Fault.
func Ping(ctx context.Context, target *redisclient.Target, timeout time.Duration) (Pong, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	mode, err := target.Mode(ctx, timeout)
	if err != nil {
		return Pong{}, err
	}
	pong := Pong{Mode: mode}
	client := redisclient.New(target, timeout, connections)
	defer func() { _ = client.Close() }() // nothing is lost with its connections
	keys, err := probeKeys(ctx, client, "resetd:check:"+rand.Text()+":")
	if err != nil {
		return Pong{}, redisclient.Fault(err)
	}
	// If the removal fails, the keys expire.
	defer func() {
		for _, key := range keys {
			_ = client.Del(ctx, key).Err()
		}
	}()
	for range 3 {
		began := time.Now()
		if err := countOnce(ctx, client, keys, 10*time.Second); err != nil {
			return Pong{}, redisclient.Fault(err)
		}
		if took := time.Since(began); pong.RoundTrip == 0 || took < pong.RoundTrip {
			pong.RoundTrip = took
		}
	}
	_ = client.Nodes(ctx, func(ctx context.Context, node redis.UniversalClient) error {
		if policy := evicts(ctx, node); policy != "" {
			pong.Evicts = policy // of any node
		}
		return nil
	})
	return pong, nil
}

// evicts returns the eviction policy; empty if Redis does not tell it, or evicts nothing. It asks with INFO, because
// most hosted Redis forbids CONFIG.
func evicts(ctx context.Context, client redis.UniversalClient) string {
	memory, err := client.InfoMap(ctx, "memory").Result()
	if err != nil {
		return ""
	}
	section := memory["Memory"]
	if policy := section["maxmemory_policy"]; section["maxmemory"] != "0" && policy != "noeviction" {
		return policy
	}
	return ""
}
