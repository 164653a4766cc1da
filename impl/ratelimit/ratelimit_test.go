package ratelimit

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// In a synctest bubble time stands still until all goroutines sleep, so these tests send requests at the exact
// nanosecond. Counting in memory needs no goroutine.

func memoryLimiter(tb testing.TB, rate string) *Limiter {
	return open(tb, Options{}).Limiter("ip", mustRate(tb, rate))
}

// takes makes n requests, and returns how many were admitted, and the last decision.
func takes(l *Limiter, key string, n int) (allowed int, last Decision) {
	for range n {
		last = l.Take(context.Background(), key)
		if last.Allowed {
			allowed++
		}
	}
	return allowed, last
}

func wantTakes(tb testing.TB, l *Limiter, key string, n, want int) Decision {
	tb.Helper()
	got, last := takes(l, key, n)
	if got != want {
		tb.Fatalf("%d of %d let through, want %d", got, n, want)
	}
	return last
}

func TestWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memoryLimiter(t, "5-M,12-H")
		if d := wantTakes(t, l, "a", 6, 5); d.RetryAfter != 60 {
			t.Fatalf("retry after %d, want 60", d.RetryAfter)
		}
		wantTakes(t, l, "b", 5, 5) // another client

		time.Sleep(59*time.Second + 998*time.Millisecond)
		if d := wantTakes(t, l, "a", 1, 0); d.RetryAfter != 1 {
			t.Fatalf("retry after %d, want 1", d.RetryAfter)
		}
		time.Sleep(2 * time.Millisecond)
		// At 60 s a second window of a minute begins.
		wantTakes(t, l, "a", 6, 5)
		time.Sleep(time.Minute)
		// At 120 s two requests are left in the hour. After them, the wait is until the hour ends.
		d := wantTakes(t, l, "a", 3, 2)
		if d.RetryAfter != 3600-120 {
			t.Fatalf("retry after %d, want %d", d.RetryAfter, 3600-120)
		}
		// Refusals by the hour cost nothing in the minute.
		if got := d.Windows[0].Remaining; got != 3 {
			t.Fatalf("%d left in the minute, want 3", got)
		}
		time.Sleep(time.Duration(d.RetryAfter-1) * time.Second)
		wantTakes(t, l, "a", 100, 0)
		time.Sleep(time.Second)
		wantTakes(t, l, "a", 6, 5)
	})
}

// TestRefusedCostNothing: a refused request does not count in the windows that did not refuse it. Otherwise
// an impatient client would use up its hour within a minute.
func TestRefusedCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memoryLimiter(t, "5-M,30-H")
		d := wantTakes(t, l, "a", 1000, 5)
		if got := d.Windows[1].Remaining; got != 25 {
			t.Fatalf("%d left in the hour, want 25", got)
		}
		for range 5 {
			time.Sleep(30 * time.Second)
			wantTakes(t, l, "a", 1000, 0) // no longer
			time.Sleep(30 * time.Second)
			wantTakes(t, l, "a", 1000, 5)
		}
		wantTakes(t, l, "a", 1000, 0)
	})
}

// TestLongestWait: the wait includes a short window that is full, also if a longer one refused.
func TestLongestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memoryLimiter(t, "2-M,3-H")
		wantTakes(t, l, "a", 1, 1)
		time.Sleep(time.Hour - 10*time.Second)
		wantTakes(t, l, "a", 2, 2) // both windows are full: the hour for 10 s more, the minute for 60 s
		if d := wantTakes(t, l, "a", 1, 0); d.RetryAfter != 60 {
			t.Fatalf("retry after %d, want 60", d.RetryAfter)
		}
		time.Sleep(time.Minute)
		wantTakes(t, l, "a", 1, 1)
	})
}

// TestWaitIsEnough: the wait is long enough even for a request at the exact nanosecond at which ulule still
// counts the window as open.
func TestWaitIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memoryLimiter(t, "1-M")
		for _, late := range []time.Duration{0, 1, time.Millisecond - 1, time.Millisecond, 999*time.Millisecond - 1, 999 * time.Millisecond, 999*time.Millisecond + 1} {
			wantTakes(t, l, "a", 1, 1)
			time.Sleep(late)
			d := wantTakes(t, l, "a", 1, 0)
			time.Sleep(time.Duration(d.RetryAfter) * time.Second)
			wantTakes(t, l, "a", 1, 1)
			time.Sleep(time.Minute)
		}
	})
	for d, want := range map[time.Duration]int{
		-time.Hour: 1, 0: 1, 1: 1, time.Second: 1, time.Second + 1: 2, time.Minute: 60, time.Minute + 1: 60, time.Hour: 60,
	} {
		if got := wholeSeconds(d, time.Minute); got != want {
			t.Errorf("%v: %d s, want %d", d, got, want)
		}
	}
}

func TestFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memoryLimiter(t, "5-M,30-H")
		wantTakes(t, l, "a", 1, 1)
		time.Sleep(18 * time.Second)
		policy, limit := wantTakes(t, l, "a", 1, 1).Fields()
		if want := `"per-minute";q=5;w=60, "per-hour";q=30;w=3600`; policy != want {
			t.Errorf("RateLimit-Policy: %s\nwant %s", policy, want)
		}
		if want := `"per-minute";r=3;t=42, "per-hour";r=28;t=3582`; limit != want {
			t.Errorf("RateLimit: %s\nwant %s", limit, want)
		}
		_, limit = wantTakes(t, l, "a", 10, 3).Fields()
		if want := `"per-minute";r=0;t=42, "per-hour";r=25;t=3582`; limit != want {
			t.Errorf("RateLimit: %s\nwant %s", limit, want)
		}
	})
}

// model describes windows as simply as possible.
type model struct {
	rate  Rate
	begun []time.Time
	used  []int64
}

func (m *model) over(i int) bool { return time.Since(m.begun[i]) >= m.rate[i].Period }

func (m *model) take() (allowed bool, wait int) {
	for i, w := range m.rate {
		if !m.over(i) && m.used[i] >= w.Limit {
			wait = max(wait, int((w.Period-time.Since(m.begun[i])+time.Second-1)/time.Second))
		}
	}
	if wait > 0 {
		return false, wait
	}
	for i := range m.rate {
		if m.over(i) {
			m.begun[i], m.used[i] = time.Now(), 0
		}
		m.used[i]++
	}
	return true, 0
}

// step is one request, and the pause after it.
type step struct {
	key   string
	pause time.Duration
	obey  bool // if refused, wait as told instead of this pause
}

// TestModel compares the model with memory and with Redis, for random rates, keys and pauses, to the
// millisecond. A client that waits as told is admitted, and would not have been a second earlier.
func TestModel(t *testing.T) {
	for _, tt := range []struct {
		where  string
		open   func(testing.TB) *Store
		units  []string
		pauses *rapid.Generator[int64] // in milliseconds
	}{
		{
			where: Memory, open: func(tb testing.TB) *Store { return open(tb, Options{}) }, units: []string{"S", "M", "H", "D"},
			pauses: rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 2000), rapid.Int64Range(0, 100_000), rapid.Int64Range(0, 2*86_400_000)),
		},
		// There are no windows of days, because the store's clock ticks each second. Times are even milliseconds,
		// because for miniredis, unlike Redis, a window ends a millisecond early.
		{
			where: Redis, open: func(tb testing.TB) *Store { _, store := openPiped(tb); return store }, units: []string{"S", "M"},
			pauses: rapid.Map(rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 1000), rapid.Int64Range(0, 50_000)), func(n int64) int64 { return 2 * n }),
		},
	} {
		t.Run(tt.where, func(t *testing.T) {
			steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
				return step{
					key:   rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "key"),
					pause: time.Duration(tt.pauses.Draw(rt, "pause")) * time.Millisecond,
					obey:  rapid.Bool().Draw(rt, "obey"),
				}
			}), 1, 100)
			rapid.Check(t, func(rt *rapid.T) {
				// The values are drawn and reported outside of the bubble: rapid uses the real clock, and ends a run by
				// a panic.
				rate, steps := drawRate(rt, tt.units), steps.Draw(rt, "steps")
				var fault string
				synctest.Test(t, func(t *testing.T) { fault = compare(t, tt.open(t), rate, steps) })
				if fault != "" {
					rt.Fatalf("%v: %s", rate, fault)
				}
			})
		})
	}
}

func compare(t *testing.T, store *Store, rate Rate, steps []step) (fault string) {
	l := store.Limiter("ip", rate)
	models := map[string]*model{}
	for i, step := range steps {
		m := models[step.key]
		if m == nil {
			m = &model{rate, make([]time.Time, len(rate)), make([]int64, len(rate))}
			models[step.key] = m
		}
		d := l.Take(t.Context(), step.key)
		allowed, wait := m.take()
		if d.Allowed != allowed || d.RetryAfter != wait {
			return fmt.Sprintf("step %d: allowed %v, retry after %d, want %v, %d", i, d.Allowed, d.RetryAfter, allowed, wait)
		}
		switch {
		case !allowed && step.obey:
			time.Sleep(time.Duration(wait-1) * time.Second)
			if early, _ := m.take(); early || l.Take(t.Context(), step.key).Allowed {
				return fmt.Sprintf("step %d: served a second before the %d s were over", i, wait)
			}
			time.Sleep(time.Second)
			if inTime, _ := m.take(); !inTime || !l.Take(t.Context(), step.key).Allowed {
				return fmt.Sprintf("step %d: not served after %d s", i, wait)
			}
		default:
			time.Sleep(step.pause)
		}
	}
	return ""
}

func drawRate(rt *rapid.T, units []string) Rate {
	letters := rapid.SliceOfNDistinct(rapid.SampledFrom(units), 1, len(units), rapid.ID[string]).Draw(rt, "units")
	parts := make([]string, len(letters))
	for i, letter := range letters {
		parts[i] = rapid.StringMatching("[1-9]").Draw(rt, "limit") + "-" + letter
	}
	rate, err := ParseRate(strings.Join(parts, ","))
	if err != nil {
		rt.Fatal(err)
	}
	return rate
}

// TestHash: without the secret, a key says nothing about its client.
func TestHash(t *testing.T) {
	a, b := memoryLimiter(t, "5-M"), memoryLimiter(t, "5-M")
	if a.hash("x") != b.hash("x") {
		t.Error("the same secret gives different hashes")
	}
	for name, other := range map[string]*Limiter{
		"secret": open(t, Options{HashKey: []byte("another secret, long enough")}).Limiter("ip", nil),
		"name":   a.store.Limiter("recipient", nil),
	} {
		if a.hash("x") == other.hash("x") {
			t.Errorf("another %s gives the same hash", name)
		}
	}
	random, _ := Open(Options{})
	if len(random.hashKey) < 16 {
		t.Error("without a secret there is none")
	}
}
