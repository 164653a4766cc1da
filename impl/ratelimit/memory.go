package ratelimit

import (
	"sync"
	"time"

	"github.com/ulule/limiter/v3/drivers/store/memory"
)

// ownKeys is how many clients have counters of their own, and sharedKeys is how
// many sets of counters all those beyond share: one for each value of the first
// twelve bits of a hash.
//
// A client costs up to 180 bytes for two windows, and there are two generations
// of them, so a limiter stays below
//
//	2 × (131,072 + 4,096) × 180 bytes = 49 MB
//
// however many clients come, and below half of that in the first period of its
// longest window. (That of webhooks has one window: 38 MB, if Mailgun reports so
// many a day.) What a flood beyond that gets is still bounded by the limit times
// 135,168 counters; what newcomers lose is that they share their counters with
// strangers, until the flood's window is over. Such a service wants Redis.
const (
	ownKeys    = 1 << 17
	sharedKeys = 1 << 12
)

// memoryCounters count a rate's windows in this process, in two generations.
// New clients go into the young one. After each period of the longest window
// the young generation becomes the old one, and the old one is let go as a
// whole. A client that comes again moves to the young one, so all windows of
// those that are let go have been over for some time. (Only while the young one
// is full it stays, and may have its limit once more after the turn.) Nothing
// walks through a million counters, and nothing deletes a counter just as a
// request is using it. It also bounds what a system clock that is set back can
// do, since ulule's counters go by that and generations by the monotonic one.
//
// One lock is enough: what is done under it takes less than a microsecond.
type memoryCounters struct {
	rate Rate

	mu         sync.Mutex
	young, old generation
	born       time.Time // when young was
}

// generation has ulule's counters, one for each window, without its cache, which
// takes twice the memory and has a janitor.
type generation map[key][]memory.Counter

func newMemoryCounters(rate Rate) *memoryCounters {
	return &memoryCounters{rate: rate, young: generation{}, born: time.Now()}
}

// take looks at all windows, and counts in each of them if all allow.
func (m *memoryCounters) take(k key) (allowed bool, counts []count) {
	allowed, counts = true, make([]count, len(m.rate))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn()
	counters, now := m.find(k), time.Now()
	for i, w := range m.rate {
		used, expiration := int64(0), w.opens(now)
		if counters != nil {
			used, expiration = counters[i].Load(expiration)
		}
		counts[i] = count{used, over(expiration)}
		allowed = allowed && used < w.Limit
	}
	if !allowed {
		return false, counts
	}
	if counters == nil {
		counters = m.add(k)
	}
	for i, w := range m.rate {
		used, expiration := counters[i].Increment(1, w.opens(now))
		counts[i] = count{used, over(expiration)}
	}
	return true, counts
}

// find returns the counters of a key: its own, or else, when there are too many
// clients, those that it shares; nil where there are none yet.
func (m *memoryCounters) find(k key) []memory.Counter {
	if counters := m.young[k]; counters != nil {
		return counters
	}
	full := len(m.young) >= ownKeys
	if counters := m.old[k]; counters != nil {
		if !full { // else they stay where they are, until the turn
			delete(m.old, k)
			m.young[k] = counters
		}
		return counters
	}
	if shared := k.shared(); full && shared != k {
		return m.find(shared)
	}
	return nil
}

// add makes the counters of a key that has none. They count as expired.
func (m *memoryCounters) add(k key) []memory.Counter {
	if len(m.young) >= ownKeys {
		k = k.shared()
	}
	counters := make([]memory.Counter, len(m.rate))
	m.young[k] = counters
	return counters
}

// turn lets the old generation go when it is time.
func (m *memoryCounters) turn() {
	longest := m.rate[len(m.rate)-1].Period
	age := time.Since(m.born)
	if age < longest {
		return
	}
	m.old, m.young, m.born = m.young, generation{}, time.Now()
	if age >= 2*longest {
		m.old = nil
	}
}

// opens is the expiration of a window that opens now.
func (w Window) opens(now time.Time) int64 { return now.Add(w.open()).UnixNano() }

// over is when ulule no longer counts a window that expires then as open: it
// still does at that very nanosecond.
func over(expiration int64) time.Time { return time.Unix(0, expiration+1) }

// shared is the key of the counters that a key shares.
func (k key) shared() key { return key{k[0], k[1] & 0xf0} }
