package ratelimit

import (
	"sync"
	"time"

	"github.com/ulule/limiter/v3/drivers/store/memory"
)

// ownKeys bounds the clients with counters of their own. All clients beyond share sharedKeys sets of counters: one
// for each value of the first twelve bits of a hash.
//
// A client costs up to 180 bytes for two windows, and there are two generations
// of them, so a limiter stays below
//
//	2 × (131,072 + 4,096) × 180 bytes = 49 MB
//
// however many clients come, and below half of that in the first period of its longest window. (The limiter of
// webhooks has one window: 38 MB, if Mailgun reports so many a day.) A larger flood is still bounded by the limit
// times 135,168 counters, but newcomers share their counters with strangers until the flood's window is over. Such a
// service needs Redis.
const (
	ownKeys    = 1 << 17
	sharedKeys = 1 << 12
)

// memoryCounters counts a rate's windows in this process, in two generations. New clients go into the young one.
// After each period of the longest window the young generation becomes the old one, and the old one is dropped as a
// whole. A client that comes again moves to the young one, so all windows of a dropped generation have been over
// for some time. (Only while the young one is full the client stays, and may get its limit once more after the
// turn.) So nothing walks through a million counters, or deletes a counter that a request is using. It also bounds
// the effect of a system clock that is set back: ulule's counters use that clock, generations the monotonic one.
//
// One lock is enough, because it is held for less than a microsecond.
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

// find returns the counters of a key: its own, or shared ones if there are too many clients; nil if it has none yet.
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

// add makes the counters of a key without any. They count as expired.
func (m *memoryCounters) add(k key) []memory.Counter {
	if len(m.young) >= ownKeys {
		k = k.shared()
	}
	counters := make([]memory.Counter, len(m.rate))
	m.young[k] = counters
	return counters
}

// turn drops the old generation when its time is over.
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

// opens returns the expiration of a window that opens now.
func (w Window) opens(now time.Time) int64 { return now.Add(w.open()).UnixNano() }

// over returns the first time at which ulule counts a window as closed: at its expiration it is still open.
func over(expiration int64) time.Time { return time.Unix(0, expiration+1) }

// shared returns the key of the counters that a key shares with others.
func (k key) shared() key { return key{k[0], k[1] & 0xf0} }
