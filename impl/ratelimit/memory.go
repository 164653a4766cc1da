package ratelimit

import (
	"sync"
	"time"

	"github.com/ulule/limiter/v3/drivers/store/memory"
)

// ownKeys is how many clients have a counter of their own in one window, and
// sharedKeys is how many counters all those beyond share: one for each value of
// the first twelve bits of a hash.
//
// A counter costs about 100 bytes, and one window holds two generations of
// them (see memoryWindow), so it stays below
//
//	2 × (65,536 + 4,096) × 120 bytes = 17 MB
//
// however many clients come: two limiters of two windows each stay below 70
// MB. (That of webhooks is another 17 MB, if Mailgun reports so many a day.)
// 65,536 new clients in an hour are 18 password resets a second. What a flood
// beyond that gets is still bounded by the limit times 69,632 counters; what
// newcomers lose is that they share their counter with strangers, until the
// flood's window is over. Such a service wants Redis.
const (
	ownKeys    = 1 << 16
	sharedKeys = 1 << 12
)

// memoryCounters count a rate's windows in this process.
//
// One lock is enough: what is done under it takes less than a microsecond.
type memoryCounters struct {
	mu      sync.Mutex
	windows []*memoryWindow
}

func newMemoryCounters(rate Rate) *memoryCounters {
	m := &memoryCounters{windows: make([]*memoryWindow, len(rate))}
	for i, w := range rate {
		m.windows[i] = newMemoryWindow(w)
	}
	return m
}

// take looks at all windows, and counts in each of them if all allow.
func (m *memoryCounters) take(k key) (allowed bool, counts []count) {
	allowed, counts = true, make([]count, len(m.windows))
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, w := range m.windows {
		w.turn()
		counts[i] = w.look(k)
		allowed = allowed && counts[i].used < w.Limit
	}
	if allowed {
		for i, w := range m.windows {
			counts[i] = w.add(k)
		}
	}
	return allowed, counts
}

// generation has ulule's counters without its cache, which takes twice the memory
// and has a janitor.
type generation map[key]*memory.Counter

// memoryWindow holds the counters of one window in two generations. New
// counters go into the young one. After each period the young generation
// becomes the old one, and the old one is let go as a whole: each of its
// windows has been over for some time. So nothing walks through a million
// counters, and nothing deletes a counter just as a request is using it. It
// also bounds what a system clock that is set back can do, since ulule's
// counters go by that and generations by the monotonic one.
type memoryWindow struct {
	Window
	young, old generation
	born       time.Time // when young was
}

func newMemoryWindow(window Window) *memoryWindow {
	return &memoryWindow{Window: window, young: generation{}, born: time.Now()}
}

// look returns the count of a key without counting.
func (m *memoryWindow) look(k key) count {
	opens := m.opens()
	counter, _ := m.find(k)
	if counter == nil {
		return count{0, over(opens)}
	}
	used, expiration := counter.Load(opens)
	return count{used, over(expiration)}
}

// add counts one for a key.
func (m *memoryWindow) add(k key) count {
	counter, isOld := m.find(k)
	if isOld {
		// Nothing is opened in the old generation, which may be gone before the
		// window is.
		if used, expiration := counter.Increment(1, 0); expiration != 0 {
			return count{used, over(expiration)}
		}
		counter, _ = m.find(k) // it was over in this very moment
	}
	if counter == nil {
		if len(m.young) >= ownKeys {
			k = k.shared()
		}
		counter = new(memory.Counter) // which counts as expired
		m.young[k] = counter
	}
	used, expiration := counter.Increment(1, m.opens())
	return count{used, over(expiration)}
}

// find returns the counter of a key: its own, or else, when there are too many
// of these, the one that it shares; nil where there is none yet.
func (m *memoryWindow) find(k key) (counter *memory.Counter, isOld bool) {
	if counter := m.old[k]; counter != nil && !counter.Expired() {
		return counter, true
	}
	if counter := m.young[k]; counter != nil {
		return counter, false
	}
	if shared := k.shared(); len(m.young) >= ownKeys && shared != k {
		return m.find(shared)
	}
	return nil, false
}

// turn lets the old generation go when it is time.
func (m *memoryWindow) turn() {
	age := time.Since(m.born)
	if age < m.Period {
		return
	}
	m.old, m.young, m.born = m.young, generation{}, time.Now()
	if age >= 2*m.Period {
		m.old = nil
	}
}

// opens is the expiration of a window that opens now.
func (m *memoryWindow) opens() int64 { return time.Now().Add(m.open()).UnixNano() }

// over is when ulule no longer counts a window that expires then as open: it
// still does at that very nanosecond.
func over(expiration int64) time.Time { return time.Unix(0, expiration+1) }

// shared is the key of the counter that a key shares.
func (k key) shared() key { return key{k[0], k[1] & 0xf0} }
