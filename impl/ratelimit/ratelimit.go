// Package ratelimit says how often a client, or an address, may be served. It
// owns the windows of a [Rate], where they are counted (memory, or Redis when
// several instances share them), and what happens while Redis is away.
// ulule/limiter has the counters in memory; what is written around it here, and
// why:
//
//   - Several windows at once, all of which must allow ([Limiter.Take]).
//   - A bound on memory, which ulule's memory store has not (memory.go).
//   - One question to Redis for all windows, where ulule's store asks at least
//     one for each, and cannot make the second depend on the first (script.go).
//   - Going on in memory when Redis fails, and back (redis.go).
//
// Who a client is says package clientip: ulule believes the leftmost
// X-Forwarded-For entry, the one that a client writes itself.
//
// What a window is: fixed, and opened by the first request that it counts, so
// two clients' windows do not end together, and with Redis only Redis's clock
// matters. A client that saves its requests up for the end of one window and
// spends the next one at once gets up to twice the limit through around that
// edge. The longer windows bound this, which is why a rate should have two.
//
// What is counted: requests that are let through. All windows are looked at
// before any is counted, so a refused request costs nothing, in no window, and
// makes no window longer: somebody who keeps trying is served as soon as
// somebody who waits.
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

// A Limiter counts the requests of each key under one rate. It is safe for
// concurrent use.
type Limiter struct {
	store  *Store
	name   string
	rate   Rate
	policy string // of all its decisions
	memory *memoryCounters
	hashes sync.Pool
}

// Decision is what became of one request.
type Decision struct {
	Allowed bool

	// RetryAfter is for a refused request the number of whole seconds, at least
	// 1, after which it is served, if nobody else with the same key is before.
	RetryAfter int

	// Windows has the state of each window after this request, shortest first.
	Windows []WindowState

	policy string
}

// WindowState is one window as its client sees it.
type WindowState struct {
	Window
	Remaining    int64
	ResetSeconds int // until Remaining is Limit again, at least 1
}

// Take asks for one request of a client, which is any text that stands for it,
// the same for the same client: it is hashed before anything else is done with
// it.
//
// That the caller's request is cancelled stops nothing: the request has been
// made, so it is counted.
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
	ends time.Time // from when on the window is certainly over
}

// decide says what counts mean to the client.
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

// key stands for a client, and says nothing about it without the secret: 128
// bits, so that no two of a billion ever meet.
type key [16]byte

// hash makes the key of a client. The limiter's name is hashed too, so that one
// limiter's keys tell nothing about another's.
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

// wholeSeconds rounds up, so that a client that waits that long has waited enough.
// No window of this period ends later than a period from now; a store that
// knows the end only roughly may say so.
func wholeSeconds(d, period time.Duration) int {
	d = min(max(d, 1), period)
	return int((d + time.Second - 1) / time.Second)
}

// Fields are the values of the RateLimit-Policy and RateLimit header fields
// (draft-ietf-httpapi-ratelimit-headers-10): every window is a policy.
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
