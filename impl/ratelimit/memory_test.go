package ratelimit

import (
	"encoding/binary"
	"reflect"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// bound is the memory that a limiter with two windows may take. The comment at ownKeys derives it.
const (
	bytesPerKey = 180
	bound       = 2 * (ownKeys + sharedKeys) * bytesPerKey
)

// flood calls take n times, with distinct keys that look like hashes.
func flood(m *memoryCounters, from, n int) (allowed int) {
	for i := from; i < from+n; i++ {
		var k key
		binary.LittleEndian.PutUint64(k[:], uint64(i)*0x9E3779B97F4A7C15)
		k[15] = 1 // no shared key has this byte
		if ok, _ := m.take(k); ok {
			allowed++
		}
	}
	return allowed
}

// newcomer is a client without a counter of its own.
var newcomer = key{15: 2}

func heap() int {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc)
}

// TestMemoryBound sends more and more clients through one hour, and then through the next. Memory grows as the
// comment at ownKeys says while there are own counters, a little while the shared counters fill, and then no
// more: a hundred million clients take what 300,000 do.
func TestMemoryBound(t *testing.T) {
	m := newMemoryCounters(Rate{{5, time.Minute}, {30, time.Hour}})
	before := heap()

	const step = ownKeys / 4
	for i := range 4 {
		flood(m, i*step, step)
		used := heap() - before
		if used > (i+1)*step*bytesPerKey {
			t.Errorf("%d clients take %d bytes each, want at most %d", (i+1)*step, used/((i+1)*step), bytesPerKey)
		}
		t.Logf("%d clients: %d bytes each", (i+1)*step, used/((i+1)*step))
	}
	flood(m, ownKeys, 100_000)
	full := heap() - before
	if full > bound/2 {
		t.Errorf("one generation takes %d bytes, want at most %d", full, bound/2)
	}
	flood(m, ownKeys+100_000, 100_000)
	if more := heap() - before - full; more > 100_000 { // a byte each
		t.Errorf("100,000 clients beyond the bound take %d bytes", more)
	}
	m.born = m.born.Add(-time.Hour)
	flood(m, 300_000, 200_000)
	both := heap() - before
	if both > bound {
		t.Errorf("both generations take %d bytes, want at most %d", both, bound)
	}
	t.Logf("one generation: %d bytes, both: %d", full, both)

	m.born = m.born.Add(-2 * time.Hour)
	flood(m, 0, 1)
	if left := heap() - before; left > 1<<20 {
		t.Errorf("%d bytes are left when all windows are over", left)
	}
	runtime.KeepAlive(m)
}

// TestMemoryFull: when its own counters are used up, a window shares counters, and never fails open.
func TestMemoryFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 5
		m := newMemoryCounters(Rate{{limit, time.Minute}})
		if got := flood(m, 0, ownKeys); got != ownKeys {
			t.Fatalf("%d let through, want %d", got, ownKeys)
		}
		if got, most := flood(m, ownKeys, 20*sharedKeys), limit*sharedKeys; got > most || got < most*9/10 {
			t.Errorf("%d newcomers let through, want all of the shared counters used, and no more: %d", got, most)
		}
		if allowed, counts := m.take(newcomer); allowed || counts[0].used != limit {
			t.Errorf("a newcomer is let through: %v, after %d", allowed, counts[0].used)
		}
		// Earlier clients keep their own counters.
		if got := flood(m, 0, 100); got != 100 {
			t.Errorf("%d let through, want 100", got)
		}
		time.Sleep(time.Minute)
		if got := flood(m, ownKeys, ownKeys); got != ownKeys {
			t.Errorf("%d let through after the flood, want %d", got, ownKeys)
		}
		// Earlier clients still have their own counters, and take no room from others.
		if got := flood(m, 0, ownKeys); got != ownKeys {
			t.Errorf("%d let through when they come back, want %d", got, ownKeys)
		}
		if got := len(m.young); got > ownKeys+sharedKeys {
			t.Errorf("there are counters for %d clients", got)
		}
	})
}

// TestMemoryFullWait: a newcomer without a counter of its own learns how long to wait.
func TestMemoryFullWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memoryLimiter(t, "1-M")
		flood(l.memory, 0, ownKeys)
		if d := wantTakes(t, l, "a", 2, 1); d.RetryAfter != 60 {
			t.Errorf("retry after %d, want 60", d.RetryAfter)
		}
	})
}

// TestMemoryMoves: an active client keeps all of its windows when the generations turn, also if there is no
// room for it in the young generation.
func TestMemoryMoves(t *testing.T) {
	for _, full := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := memoryLimiter(t, "2-M,5-H")
			wantTakes(t, l, "first", 1, 1)
			time.Sleep(time.Hour - 90*time.Second)
			wantTakes(t, l, "a", 3, 2)
			time.Sleep(80 * time.Second)
			wantTakes(t, l, "a", 3, 2) // 10 s before the turn
			time.Sleep(20 * time.Second)
			if full {
				flood(l.memory, 0, ownKeys)
			}
			wantTakes(t, l, "a", 3, 0) // 10 s after it, both windows are full
			time.Sleep(40 * time.Second)
			d := wantTakes(t, l, "a", 3, 1)
			if want := 3600 - 140; d.RetryAfter != want {
				t.Errorf("full: %v: retry after %d, want %d", full, d.RetryAfter, want)
			}
			time.Sleep(time.Hour)
			wantTakes(t, l, "a", 3, 2)
		})
	}
}

// TestMemoryGenerations: a window goes on when the generations turn.
func TestMemoryGenerations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memoryLimiter(t, "2-M")
		wantTakes(t, l, "first", 1, 1)
		time.Sleep(59 * time.Second)
		wantTakes(t, l, "a", 1, 1)
		time.Sleep(2 * time.Second)
		wantTakes(t, l, "a", 2, 1) // 61 s: one left
		time.Sleep(57 * time.Second)
		wantTakes(t, l, "a", 1, 0) // 118 s
		time.Sleep(time.Second)
		wantTakes(t, l, "a", 3, 2) // 119 s: the next window
		time.Sleep(2 * time.Second)
		wantTakes(t, l, "a", 1, 0)
		time.Sleep(24 * time.Hour)
		wantTakes(t, l, "a", 3, 2)
	})
}

// TestMemoryTurn: a turn of the generations only swaps two pointers, so no request waits for it: the whole young
// generation becomes the old one. [BenchmarkTurn] measures how long it takes.
func TestMemoryTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemoryCounters(Rate{{5, time.Hour}})
		flood(m, 0, ownKeys)
		before := reflect.ValueOf(m.young).Pointer()
		time.Sleep(time.Hour)
		m.take(newcomer)
		if reflect.ValueOf(m.old).Pointer() != before || len(m.old) != ownKeys || len(m.young) != 1 {
			t.Errorf("%d clients are in the old generation, and %d in the young one", len(m.old), len(m.young))
		}
	})
}
