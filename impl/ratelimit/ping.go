package ratelimit

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/upstream"
)

// RefusedError is what a server says instead of counting. Code is what that begins with: NOAUTH,
// READONLY, OOM. (The rest may quote a key.)
type RefusedError struct {
	Code string
	// BySentinel says that a Sentinel has refused to say where Redis is.
	BySentinel bool
}

func (e *RefusedError) Error() string {
	if e.BySentinel {
		return "a Sentinel says " + e.Code
	}
	return "it says " + e.Code
}

// WrongModeError is about a server that is of another kind than the URL says. Mode is its own word for
// it: standalone, cluster or sentinel.
type WrongModeError struct{ Mode string }

func (e *WrongModeError) Error() string { return "it is of the kind " + e.Mode }

// ErrUnknownName says that the Sentinels do not monitor what the URL names.
var ErrUnknownName = errors.New("the Sentinels do not know that name")

// Pong is what Ping found out.
type Pong struct {
	RoundTrip time.Duration // of one count on each node: the fastest of three, as a Redis that was slow once is tried again
	Evicts    string        // the maxmemory-policy by which keys may go before their time; empty if none do
	Mode      string        // what the server says it is: standalone, cluster or sentinel; empty if it does not say
}

// Ping counts in Redis as a limiter does, under keys of its own on each node, and removes those again:
// a Redis that answers PING may be a replica, full, closed to scripts, or one node of a Cluster. It
// waits for timeout where a limiter has given up long before, to be able to say how slow Redis is. An
// error is a *RefusedError, a *WrongModeError, ErrUnknownName or the kind of a network's fault, and
// repeats nothing of the URL.
func Ping(ctx context.Context, target *redisclient.Target, timeout time.Duration) (Pong, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	mode, err := target.Mode(ctx, timeout)
	if err != nil {
		return Pong{}, pingError(err, target.Kind == redisclient.Sentinel)
	}
	if mode != "" && (mode == "sentinel") != (target.Kind == redisclient.Sentinel) || mode == "standalone" && target.Kind == redisclient.Cluster {
		return Pong{}, &WrongModeError{mode}
	}
	pong := Pong{Mode: mode}
	client := redisclient.New(target, timeout, connections)
	defer func() { _ = client.Close() }() // nothing is lost with its connections
	keys, err := probeKeys(ctx, client, "resetd:check:"+rand.Text()+":")
	if err != nil {
		return Pong{}, pingError(err, false)
	}
	// Should the removal fail, the keys go by themselves.
	defer func() {
		for _, key := range keys {
			_ = client.Del(ctx, key).Err()
		}
	}()
	for range 3 {
		began := time.Now()
		if err := countOnce(ctx, client, keys, 10*time.Second); err != nil {
			return Pong{}, pingError(err, false)
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

func pingError(err error, bySentinel bool) error {
	if errors.Is(err, redis.Nil) {
		return ErrUnknownName
	}
	if code := redisclient.Code(err); code != "" {
		return &RefusedError{code, bySentinel}
	}
	return upstream.Cause(err)
}

// evicts asks with INFO, because hosted Redis mostly forbids CONFIG. What Redis does not tell is
// no fault.
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
