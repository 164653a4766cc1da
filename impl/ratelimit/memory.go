package ratelimit

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/ulule/limiter/v3/drivers/store/memory"
)

// ownKeys is how many clients have a counter of their own in one window, and
// sharedKeys is how many counters all those beyond share: one for each pair of
// letters that a hash can begin with.
//
// A counter costs about 200 bytes, and one window holds two generations of
// them (see memoryWindow), so it stays below
//
//	2 × (65,536 + 4,096) × 250 bytes = 35 MB
//
// however many clients come: two limiters of two windows each stay below 140
// MB. (That of webhooks is another 35 MB, if Mailgun reports so many a day.)
// 65,536 new clients in an hour are 18 password resets a second. What a flood
// beyond that gets is still bounded by the limit times 69,632 counters; what
// newcomers lose is that they share their counter with strangers, until the
// flood's window is over. Such a service wants Redis.
const (
	ownKeys    = 1 << 16
	sharedKeys = 64 * 64
)

// memoryCounters count in this process: a window's counters for each of a
// rate's windows.
type memoryCounters []*memoryWindow

func newMemoryCounters(rate Rate) memoryCounters {
	windows := make(memoryCounters, len(rate))
	for i, w := range rate {
		windows[i] = newMemoryWindow(w)
	}
	return windows
}

func (m memoryCounters) take(_ context.Context, window int, key string) (count, error) {
	return m[window].take(key), nil
}

func (m memoryCounters) peek(_ context.Context, window int, key string) (count, error) {
	return m[window].peek(key), nil
}

func (m memoryCounters) undo(_ context.Context, window int, key string, ends time.Time) (bool, error) {
	return m[window].undo(key, ends), nil
}

// memoryWindow holds the counters of one window in two generations of ulule's
// cache. New counters go into the young one. After each period the young
// generation becomes the old one, and the old one is let go as a whole: each
// of its windows has been over for some time. So there is no janitor that
// walks through a million counters, and none that deletes a counter just as a
// request is using it. It also bounds what a system clock that is set back can
// do, since ulule's counters go by that and generations by the monotonic one.
//
// One lock is enough: what is done under it takes less than a microsecond.
type memoryWindow struct {
	window Window

	mu         sync.Mutex
	young, old *memory.CacheWrapper
	keys       int       // in young
	born       time.Time // when young was
}

func newMemoryWindow(window Window) *memoryWindow {
	return &memoryWindow{window: window, young: newGeneration(), old: newGeneration(), born: time.Now()}
}

// newGeneration makes a cache without ulule's own janitor.
func newGeneration() *memory.CacheWrapper { return memory.NewCache(0) }

func (m *memoryWindow) take(key string) count {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn()
	opens := time.Now().Add(m.window.open()).UnixNano()
	used, ends, found := m.add(key, 1, opens)
	if !found && m.keys >= ownKeys {
		// Cloned, because a slice of key would keep all of it.
		key = strings.Clone(sharedKey(key))
		used, ends, found = m.add(key, 1, opens)
	}
	if !found {
		m.young.Store(key, new(memory.Counter)) // which counts as expired
		m.keys++
		used, ends, _ = m.add(key, 1, opens)
	}
	return m.count(used, ends)
}

func (m *memoryWindow) peek(key string) count {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn()
	used, ends, found := m.add(key, 0, 0)
	if !found && m.keys >= ownKeys {
		used, ends, found = m.add(sharedKey(key), 0, 0)
	}
	if !found {
		used, ends = 0, time.Now().Add(m.window.open())
	}
	return m.count(used, ends)
}

func (m *memoryWindow) undo(key string, ends time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn()
	for _, key := range []string{key, sharedKey(key)} {
		for _, generation := range []*memory.CacheWrapper{m.old, m.young} {
			if c, ok := generation.Load(key); ok && over(c.Expiration()).Equal(ends) {
				_, expiration := c.Increment(-1, 0)
				return expiration != 0
			}
		}
	}
	return false
}

// add adds n to the counter of a known key. Where the key's window is over, a
// new one is opened if opens says until when, and otherwise stays closed.
func (m *memoryWindow) add(key string, n, opens int64) (used int64, ends time.Time, found bool) {
	// Nothing is opened in the old generation, which may be gone before the
	// window is: a counter that has expired, with 0 as its next expiration, goes
	// on being expired and says so.
	if c, ok := m.old.Load(key); ok {
		if used, expiration := c.Increment(n, 0); expiration != 0 {
			return used, over(expiration), true
		}
	}
	if c, ok := m.young.Load(key); ok {
		if used, expiration := c.Increment(n, opens); expiration != 0 {
			return used, over(expiration), true
		}
	}
	return 0, time.Time{}, false
}

// turn lets the old generation go when it is time.
func (m *memoryWindow) turn() {
	age := time.Since(m.born)
	if age < m.window.Period {
		return
	}
	m.old, m.young = m.young, newGeneration()
	m.keys, m.born = 0, time.Now()
	if age >= 2*m.window.Period {
		m.old = newGeneration()
	}
}

func (m *memoryWindow) count(used int64, ends time.Time) count {
	return count{refused: used > m.window.Limit, remaining: max(0, m.window.Limit-used), ends: ends}
}

// over is when ulule no longer counts a window that expires then as open: it
// still does at that very nanosecond.
func over(expiration int64) time.Time { return time.Unix(0, expiration+1) }

func sharedKey(key string) string { return key[:2] }
