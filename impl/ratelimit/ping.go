package ratelimit

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/upstream"
)

// RefusedError is what Redis says instead of counting. Code is what that begins with: NOAUTH,
// READONLY, OOM. (The rest may quote a key.)
type RefusedError struct{ Code string }

func (e *RefusedError) Error() string { return "it says " + e.Code }

// Pong is what Ping found out.
type Pong struct {
	RoundTrip time.Duration // of one count: the fastest of three, as a Redis that was slow once is tried again
	Evicts    string        // the maxmemory-policy by which keys may go before their time; empty if none do
}

// Ping counts in Redis as a limiter does, under a key of its own, and removes that again: a
// Redis that answers PING may be a replica, full, or closed to scripts. It waits for timeout
// where a limiter has given up long before, to be able to say how slow Redis is. An error is a
// *RefusedError or the kind of a network's fault, and repeats nothing of the URL.
func Ping(ctx context.Context, url string, timeout time.Duration) (Pong, error) {
	client, err := redisclient.New(url, timeout, connections)
	if err != nil {
		return Pong{}, err
	}
	defer func() { _ = client.Close() }() // nothing is lost with its connections
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	// Should the removal fail, the key goes by itself.
	key := "resetd:check:" + rand.Text()
	defer func() { _ = client.Del(ctx, key).Err() }()
	var pong Pong
	for range 3 {
		began := time.Now()
		// A limit that is never reached, because a refusal writes nothing.
		if err := script.Run(ctx, client, []string{key}, maxLimit, (10 * time.Second).Milliseconds()).Err(); err != nil {
			return Pong{}, pingError(err)
		}
		if took := time.Since(began); pong.RoundTrip == 0 || took < pong.RoundTrip {
			pong.RoundTrip = took
		}
	}
	pong.Evicts = evicts(ctx, client)
	return pong, nil
}

func pingError(err error) error {
	if code := redisclient.Code(err); code != "" {
		return &RefusedError{code}
	}
	return upstream.Cause(err)
}

// evicts asks with INFO, because hosted Redis mostly forbids CONFIG. What Redis does not tell is
// no fault.
func evicts(ctx context.Context, client *redis.Client) string {
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
