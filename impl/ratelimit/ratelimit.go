// Package ratelimit limits the requests of a client, or for an address. It owns the windows of a [Rate], the place
// where they are counted (memory, or Redis if several instances share them), and the change between the two.
// ulule/limiter has the counters in memory. This package adds:
//
//   - Several windows at once, all of which must allow a request ([Limiter.Take]).
//   - A bound on memory, which ulule's memory store lacks (memory.go).
//   - One command to Redis for all windows. ulule's store sends at least one for each, and cannot make the second
//     depend on the first (script.go).
//   - Going on in memory when Redis fails, and back (redis.go).
//
// Package clientip finds the client: ulule trusts the leftmost entry of X-Forwarded-For, which a client writes itself.
//
// Windows are fixed. The first request that a window counts opens it, so the windows of two clients do not end
// together, and with Redis only Redis's clock matters. A client that saves its requests for the end of one window and
// spends the next window at once gets up to twice the limit through. Longer windows bound this, so a rate should have
// two.
//
// Only requests that are let through are counted. All windows are read before any is counted, so a refused request
// costs nothing and makes no window longer: a client that keeps trying is served as soon as a client that waits.
//
// This package must never:
//
//   - let a request through because something failed: without Redis the same
//     rates go on in memory, and out of memory newcomers share counters;
//   - make a request wait more than 250 ms, whatever Redis does, or at all
//     while Redis is away;
//   - store, send or log an identity: it sees one only to hash it with a key;
//   - answer HTTP, or know what the limits are for.
package ratelimit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"strconv"
	"sync"
	"time"

	"github.com/resetd/resetd/impl/redisclient"
)

// Limiter counts the requests of each client under one rate. Its methods may be called concurrently.
type Limiter struct {
	store  *Store
	name   string
	rate   Rate
	policy string // of all its decisions
	memory *memoryCounters
	hashes sync.Pool
}

// Decision says whether a request is let through, and what is left.
type Decision struct {
	Allowed bool

	// RetryAfter is the number of whole seconds, at least 1, after which a refused request is served, unless
	// another one with the same key comes first.
	RetryAfter int

	// Windows has the state of each window after this request, shortest first.
	Windows []WindowState

	policy string
}

// WindowState is the state of one window for one client.
type WindowState struct {
	Window
	Remaining    int64
	ResetSeconds int // until Remaining is Limit again, at least 1
}

// Take decides about one request of a client, and counts it if it is let through. client is any text that is the same
// for the same client. It is hashed before anything else happens with it.
//
// A request whose context is cancelled is still counted, because it has been made.
func (l *Limiter) Take(ctx context.Context, client string) Decision {
	k := l.hash(client)
	if shared := l.store.shared.Load(); shared != nil {
		limited, answered := redisclient.Wait(ctx, l.store.patience)
		allowed, counts, err := l.takeShared(limited, k)
		answered()
		if err == nil {
			return l.decide(allowed, counts)
		}
		if !redisclient.IsMoving(err) { // then it is about this key alone
			l.store.lost(shared, err)
		}
	}
	return l.decide(l.memory.take(k))
}

// count is the state of one key in one window.
type count struct {
	used int64
	ends time.Time // the time at which the window is certainly over
}

// decide makes the decision from the counts of the windows.
func (l *Limiter) decide(allowed bool, counts []count) Decision {
	d := Decision{Allowed: allowed, Windows: make([]WindowState, len(l.rate)), policy: l.policy}
	for i, window := range l.rate {
		w := WindowState{
			Window: window,
			// Below zero where the limit has been lowered.
			Remaining:    max(0, window.Limit-counts[i].used),
			ResetSeconds: wholeSeconds(time.Until(counts[i].ends), window.Period),
		}
		// Any that is used up would refuse the next request, and a client that
		// waits as told is to be served.
		if !allowed && w.Remaining == 0 {
			d.RetryAfter = max(d.RetryAfter, w.ResetSeconds)
		}
		d.Windows[i] = w
	}
	return d
}

// key is the keyed hash of a client, of 128 bits, so that no two of a billion clients are the same.
type key [16]byte

// hash makes the key of a client. It hashes the limiter's name too, so that keys of two limiters cannot be compared.
func (l *Limiter) hash(client string) key {
	mac, ok := l.hashes.Get().(hash.Hash) // making one costs more than hashing
	if !ok {
		mac = hmac.New(sha256.New, l.store.hashKey)
	}
	defer l.hashes.Put(mac)
	mac.Reset()
	mac.Write([]byte(l.name + "\x00" + client))
	return key(mac.Sum(nil)[:16])
}

// wholeSeconds rounds up, so that a client that waits that long has waited enough. It returns at most the period,
// because a store that knows the end only roughly may say more.
func wholeSeconds(d, period time.Duration) int {
	d = min(max(d, 1), period)
	return int((d + time.Second - 1) / time.Second)
}

// Fields returns the values of the RateLimit-Policy and RateLimit header fields
// (draft-ietf-httpapi-ratelimit-headers-10). Each window is a policy.
func (d Decision) Fields() (policy, limit string) {
	field := make([]byte, 0, 64)
	for i, w := range d.Windows {
		if i > 0 {
			field = append(field, ", "...)
		}
		field = append(append(append(field, `"per-`...), w.unit()...), `";r=`...)
		field = append(strconv.AppendInt(field, w.Remaining, 10), ";t="...)
		field = strconv.AppendInt(field, int64(w.ResetSeconds), 10)
	}
	return d.policy, string(field)
}
