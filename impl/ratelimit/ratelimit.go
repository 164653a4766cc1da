// Package ratelimit says how often a client, or an address, may be served. It
// owns the windows of a [Rate], where they are counted (memory, or Redis when
// several instances share them), what happens while Redis is away, and the key
// that stands for a client's IP address ([ClientIP]). ulule/limiter does the
// counting; what is written around it here, and why:
//
//   - Several windows at once, all of which must allow ([Limiter.Take]).
//   - A bound on memory, which ulule's memory store has not (memory.go).
//   - Going on in memory when Redis fails, and back (redis.go).
//   - The client's IP, where ulule believes the leftmost X-Forwarded-For entry,
//     the one that a client writes itself (clientip.go).
//
// What a window is: fixed, and opened by the first request that it counts, so
// two clients' windows do not end together, and with Redis only Redis's clock
// matters. A client that saves its requests up for the end of one window and
// spends the next one at once gets up to twice the limit through around that
// edge. The longer windows bound this, which is why a rate should have two.
//
// What is counted: requests that are let through. A refused request costs
// nothing, in no window, and makes no window longer: somebody who keeps trying
// is served as soon as somebody who waits.
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
	"encoding/base64"
	"fmt"
	"hash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Limiter counts the requests of each key under one rate. It is safe for
// concurrent use.
type Limiter struct {
	store  *Store
	name   string
	rate   Rate
	memory memoryCounters
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

	giveBack func(context.Context)
}

// WindowState is one window as its client sees it.
type WindowState struct {
	Window
	Remaining    int64
	ResetSeconds int // until Remaining is Limit again, at least 1
}

// Take asks for one request of key, which is any text that stands for the
// client, the same for the same client: it is hashed before anything else is
// done with it.
//
// That the caller's request is cancelled stops nothing: the request has been
// made, so it is counted.
func (l *Limiter) Take(ctx context.Context, key string) Decision {
	key = l.hash(key)
	if shared := l.store.shared.Load(); shared != nil {
		limited, answered := l.store.withPatience(ctx)
		decision, err := l.take(limited, shared.counters(l), key)
		answered()
		if err == nil {
			return decision
		}
		l.store.lost(shared, err)
	}
	decision, _ := l.take(ctx, l.memory, key) // memory cannot fail
	return decision
}

// GiveBack undoes the Take of a request that was let through, for work that
// then failed for reasons that hit everyone, so that trying again after an
// outage is not refused. It undoes only once, and does nothing where the
// window is over or about to be, or the store that counted is away.
func (d Decision) GiveBack(ctx context.Context) {
	if d.giveBack != nil {
		d.giveBack(ctx)
	}
}

// counters count a limiter's windows, which are known by their index.
type counters interface {
	take(ctx context.Context, window int, key string) (count, error)
	peek(ctx context.Context, window int, key string) (count, error)
	// undo takes back one take from the window that ends then. It reports
	// whether it did; it must not when that window may be over.
	undo(ctx context.Context, window int, key string, ends time.Time) (bool, error)
}

// count is the state of one key in one window.
type count struct {
	refused   bool
	remaining int64
	ends      time.Time // from when on the window is certainly over
}

// take walks through the windows, shortest first, and stops counting at the
// first that refuses. That one and those before it get their count back, those
// after it are only looked at: they may refuse for longer. The order makes the
// common refusal, by the shortest window, the cheapest.
//
// When Redis fails on the way, what it has counted so far stays counted.
func (l *Limiter) take(ctx context.Context, counters counters, key string) (Decision, error) {
	counts := make([]count, len(l.rate))
	refusedBy := -1
	for i := range l.rate {
		ask := counters.take
		if refusedBy >= 0 {
			ask = counters.peek
		}
		var err error
		if counts[i], err = ask(ctx, i, key); err != nil {
			return Decision{}, err
		}
		if counts[i].refused && refusedBy < 0 {
			refusedBy = i
		}
	}
	for i := range refusedBy + 1 {
		undone, err := counters.undo(ctx, i, key, counts[i].ends)
		if err != nil {
			return Decision{}, err
		}
		if undone && i < refusedBy {
			counts[i].remaining++
		}
	}

	decision := Decision{Allowed: refusedBy < 0, Windows: make([]WindowState, len(l.rate))}
	for i, window := range l.rate {
		reset := wholeSeconds(time.Until(counts[i].ends), window.Period)
		decision.Windows[i] = WindowState{
			Window: window,
			// A count that was given back after its key had gone is below zero.
			Remaining:    min(counts[i].remaining, window.Limit),
			ResetSeconds: reset,
		}
		// Not only the window that refused: any that is used up would refuse the
		// next request, and whoever waits as told is to be served.
		if !decision.Allowed && counts[i].remaining <= 0 {
			decision.RetryAfter = max(decision.RetryAfter, reset)
		}
	}
	if decision.Allowed {
		decision.giveBack = l.giveBack(counters, key, counts)
	}
	return decision, nil
}

// giveBack returns the function behind [Decision.GiveBack]. It goes to the
// counters that counted: a request that Redis counted is no business of memory.
func (l *Limiter) giveBack(counters counters, key string, counts []count) func(context.Context) {
	var done atomic.Bool
	return func(ctx context.Context) {
		if done.Swap(true) {
			return
		}
		shared, isShared := counters.(sharedCounters)
		if isShared && l.store.shared.Load() != shared.shared {
			return
		}
		ctx, answered := l.store.withPatience(ctx)
		defer answered()
		for i := range counts {
			if _, err := counters.undo(ctx, i, key, counts[i].ends); err != nil {
				l.store.lost(shared.shared, err)
				return
			}
		}
	}
}

// hash turns a key into 22 letters that say nothing about it without the
// secret: 128 bits, so that no two of a billion keys ever meet. The limiter's
// name is hashed too, so that one limiter's keys tell nothing about another's.
func (l *Limiter) hash(key string) string {
	mac, ok := l.hashes.Get().(hash.Hash) // making one costs more than hashing
	if !ok {
		mac = hmac.New(sha256.New, l.store.hashKey)
	}
	defer l.hashes.Put(mac)
	mac.Reset()
	mac.Write([]byte(l.name + "\x00" + key))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// wholeSeconds rounds up, so that whoever waits that long has waited enough.
// No window of this period ends later than a period from now; a store that
// knows the end only roughly may say so.
func wholeSeconds(d, period time.Duration) int {
	d = min(max(d, 1), period)
	return int((d + time.Second - 1) / time.Second)
}

// Fields are the values of the RateLimit-Policy and RateLimit header fields
// (draft-ietf-httpapi-ratelimit-headers-10): every window is a policy.
func (d Decision) Fields() (policy, limit string) {
	policies := make([]string, len(d.Windows))
	limits := make([]string, len(d.Windows))
	for i, w := range d.Windows {
		policies[i] = fmt.Sprintf(`"per-%s";q=%d;w=%d`, w.unit(), w.Limit, w.Period/time.Second)
		limits[i] = fmt.Sprintf(`"per-%s";r=%d;t=%d`, w.unit(), w.Remaining, w.ResetSeconds)
	}
	return strings.Join(policies, ", "), strings.Join(limits, ", ")
}
