package ratelimit

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2/server"

	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/redisclient/redistest"
)

// The Redis of these tests is in their process. It answers at once, or exactly as late as they say, on the clock
// of a synctest bubble. The files *_full_test.go test with a real Redis.

// promise is the longest time that a request may wait for Redis. See [redisclient.Patience].
const promise = 250 * time.Millisecond

// toPiped returns the target of a Redis in the test's process.
func toPiped(tb testing.TB, p *redistest.Piped) *redisclient.Target {
	tb.Helper()
	t := target(tb, "redis://piped")
	t.Dial = p.Dial
	return t
}

// openPiped opens a store in a new Redis in the test's process.
func openPiped(tb testing.TB) (*redistest.Piped, *Store) {
	tb.Helper()
	p := redistest.NewPiped(tb)
	store := open(tb, Options{Redis: toPiped(tb, p)})
	wantInUse(tb, store, Redis)
	return p, store
}

func TestRedisLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, one := openPiped(t)
		two := open(t, Options{Redis: toPiped(t, p)})
		var keys []string
		checkShared(t, one, two, func() []string {
			for _, key := range p.Keys() {
				if !strings.Contains(key, ":probe:") {
					keys = append(keys, key)
				}
			}
			return keys
		})
		for _, key := range keys {
			if ttl := p.TTL(key); ttl <= 0 || ttl > time.Hour {
				t.Errorf("%q lives for %v", key, ttl)
			}
		}
		time.Sleep(time.Hour)
		if left := p.Keys(); len(left) != 0 {
			t.Errorf("after an hour there are %q", left)
		}
	})
}

// checkShared: two stores in the same Redis share limits of the same name, and Redis sees no identity.
func checkShared(tb testing.TB, first, second *Store, keys func() []string) {
	tb.Helper()
	one := first.Limiter("ip", mustRate(tb, "5-M,7-H"))
	two := second.Limiter("ip", mustRate(tb, "5-M,7-H"))
	other := second.Limiter("recipient", mustRate(tb, "1-M"))
	wantTakes(tb, one, "192.0.2.1", 3, 3)
	d := wantTakes(tb, two, "192.0.2.1", 100, 2)
	if d.RetryAfter < 1 || d.RetryAfter > 60 {
		tb.Errorf("retry after %d", d.RetryAfter)
	}
	if got := d.Windows[1].Remaining; got != 2 {
		tb.Errorf("%d left in the hour, want 2", got)
	}
	wantTakes(tb, other, "192.0.2.1", 2, 1) // another limit
	wantInUse(tb, first, Redis)
	wantInUse(tb, second, Redis)
	names := keys()
	if len(names) != 3 {
		tb.Errorf("%d keys, want 3: %q", len(names), names)
	}
	for _, key := range names {
		if !regexp.MustCompile(`^resetd:(ip:\{[A-Za-z0-9_-]{22}\}:[MH]|recipient:\{[A-Za-z0-9_-]{22}\}:M)$`).MatchString(key) {
			tb.Errorf("key %q", key)
		}
	}
}

// TestRedisWaitIsEnough: wherever in the second a window ends, a client that waits as told is admitted, and
// not told to wait a second too long.
func TestRedisWaitIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store := openPiped(t)
		l := store.Limiter("ip", mustRate(t, "1-M"))
		for _, late := range []time.Duration{0, time.Millisecond, 500 * time.Millisecond, 999 * time.Millisecond, time.Second, 58*time.Second + 500*time.Millisecond} {
			wantTakes(t, l, "a", 1, 1)
			time.Sleep(late)
			d := wantTakes(t, l, "a", 1, 0)
			if want := wholeSeconds(time.Minute-late, time.Minute); d.RetryAfter != want {
				t.Errorf("after %v: retry after %d, want %d", late, d.RetryAfter, want)
			}
			time.Sleep(time.Duration(d.RetryAfter) * time.Second)
			wantTakes(t, l, "a", 1, 1)
			time.Sleep(time.Minute)
		}
		wantInUse(t, store, Redis)
	})
}

// TestRedisAsks: a request costs one round trip for all of its windows, admitted or not.
func TestRedisAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, store := openPiped(t)
		var scripts, others atomic.Int64
		p.Server().SetPreHook(func(_ *server.Peer, command string, _ ...string) bool {
			switch command {
			case "EVALSHA":
				scripts.Add(1)
			case "GET", "INCR", "PTTL", "PEXPIRE": // of the script
			default:
				others.Add(1)
			}
			return false
		})
		l := store.Limiter("ip", mustRate(t, "9-S,2-M,3-H,4-D"))
		for _, allowed := range []bool{true, true, false} {
			if got := l.Take(t.Context(), "a").Allowed; got != allowed {
				t.Errorf("allowed: %v, want %v", got, allowed)
			}
			if asked := scripts.Swap(0); asked != 1 || others.Load() != 0 {
				t.Errorf("allowed: %v, after %d scripts and %d other commands, want 1 and 0", allowed, asked, others.Load())
			}
		}
	})
}

// TestRedisBudget: a request that uses several limiters waits no longer than with one limiter.
func TestRedisBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, store := openPiped(t)
		p.DelayBy(150 * time.Millisecond)
		ctx := redisclient.WithBudget(t.Context())
		began := time.Now()
		for _, name := range []string{"ip", "recipient", "other"} {
			if !store.Limiter(name, mustRate(t, "1-M")).Take(ctx, "a").Allowed {
				t.Error("refused")
			}
		}
		if took := time.Since(began); took > promise {
			t.Errorf("waited for %v", took)
		}
		wantInUse(t, store, Memory)
	})
}

// TestRedisFaults breaks a Redis while requests come: no request waits longer than promised, and none waits while
// Redis is away. Limits go on, and Redis is used again afterwards.
func TestRedisFaults(t *testing.T) {
	says := func(text string) func(*redistest.Piped) { return func(p *redistest.Piped) { p.SetError(text) } }
	for _, tt := range []struct {
		name       string
		begin, end func(*redistest.Piped)
		reason     string // the reason in the log
	}{
		{name: "hangs", begin: (*redistest.Piped).Hang, end: (*redistest.Piped).Resume, reason: "no answer in time"},
		{
			name: "takes 300 ms", reason: "no answer in time",
			begin: func(p *redistest.Piped) { p.DelayBy(300 * time.Millisecond) },
			end:   func(p *redistest.Piped) { p.DelayBy(0) },
		},
		{name: "is killed and started again", begin: (*redistest.Piped).Kill, end: (*redistest.Piped).Start, reason: "closed|broken pipe|refused"},
		{name: "is read-only", begin: says("READONLY You can't write against a read only replica."), end: says(""), reason: "^READONLY$"},
		{name: "is full", begin: says("OOM command not allowed when used memory > 'maxmemory'."), end: says(""), reason: "^OOM$"},
		{name: "wants a password", begin: says("NOAUTH Authentication required."), end: says(""), reason: "^NOAUTH$"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := redistest.NewPiped(t)
				store := watch(t, toPiped(t, p), redisclient.Patience)
				l := store.Limiter("ip", mustRate(t, "5-M,30-H"))
				wantTakes(t, l, "steady", 10, 5)
				load := startLoad(t, l)
				tt.begin(p)
				waitInUse(t, store.Store, Memory)
				time.Sleep(redisclient.Patience) // until running requests end
				if worst := load.phase(); worst > promise {
					t.Errorf("a request waited for %v", worst)
				}
				wantTakes(t, l, "away", 10, 5)
				wantTakes(t, l, "steady", 10, 5) // counts begin again, but limits hold
				time.Sleep(5 * time.Second)
				store.want(t, Redis, Memory)
				tt.end(p)
				back := waitInUse(t, store.Store, Redis)
				if worst := load.phase(); worst != 0 {
					t.Errorf("while Redis was away a request waited for %v", worst)
				}
				if back > 2*time.Second {
					t.Errorf("back only after %v", back)
				}
				wantTakes(t, l, "after", 10, 5)
				store.want(t, Redis, Memory, Redis)
				if _, reason, _ := strings.Cut(store.messages(t)[1], "for itself "); !regexp.MustCompile(tt.reason).MatchString(reason) {
					t.Errorf("the reason is %q, want %q", reason, tt.reason)
				}
			})
		})
	}
}

// TestRedisKept: these are no faults of Redis, so it is not lost.
func TestRedisKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := redistest.NewPiped(t)
		store := watch(t, toPiped(t, p), redisclient.Patience)
		l := store.Limiter("ip", mustRate(t, "5-M"))
		wantTakes(t, l, "a", 10, 5)

		p.Do("FLUSHALL")
		p.Do("SCRIPT", "FLUSH")
		wantTakes(t, l, "a", 10, 5) // Redis has forgotten the client

		p.SetError("TRYAGAIN Multiple keys request during rehashing of slot")
		wantTakes(t, l, "a", 10, 5) // in memory, while a Cluster moves the keys
		p.SetError("")
		wantTakes(t, l, "a", 10, 0)

		gone, leave := context.WithCancel(t.Context())
		leave()
		if l.Take(gone, "a").Allowed || !l.Take(gone, "b").Allowed { // a request is counted also when its client has gone
			t.Error("a limit of a client that has gone is another")
		}
		wantTakes(t, l, "b", 10, 4)
		store.want(t, Redis)
	})
}

// TestRedisFlaps: a Redis that fails again and again is not taken back each time, and the log does not report
// each time.
func TestRedisFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := redistest.NewPiped(t)
		store := watch(t, toPiped(t, p), redisclient.Patience)
		startLoad(t, store.Limiter("ip", mustRate(t, "5-M")))
		for range 12 {
			p.DelayBy(300 * time.Millisecond)
			time.Sleep(probeInterval / 2)
			p.DelayBy(0)
			time.Sleep(probeInterval)
		}
		if changes := len(store.messages(t)); changes > 9 {
			t.Errorf("%d changes in 18 s: %q", changes, store.messages(t))
		}
		if waited := waitInUse(t, store.Store, Redis); waited > 10*time.Second {
			t.Errorf("back after %v", waited)
		}
	})
}

// TestRedisAbsent: a Redis that is absent at the start delays it only a little, and is used when it comes.
func TestRedisAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := redistest.NewPiped(t)
		p.Kill()
		to := target(t, "redis://:hunter2@piped")
		to.Dial = p.Dial
		began := time.Now()
		store := watch(t, to, redisclient.Patience)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("opened after %v", took)
		}
		l := store.Limiter("ip", mustRate(t, "5-M,30-H"))
		wantTakes(t, l, "a", 10, 5)
		p.RequireAuth("hunter2")
		p.Start()
		if back := waitInUse(t, store.Store, Redis); back > 2*time.Second {
			t.Errorf("in use only after %v", back)
		}
		wantTakes(t, l, "a", 10, 5)
		store.want(t, Memory, Redis)
		if strings.Contains(store.log.String(), "hunter2") {
			t.Errorf("the password is in the log:\n%s", &store.log)
		}
	})
}

// TestRedisKeyWithoutExpiry: a key without an expiry limits for one more window, not for ever.
func TestRedisKeyWithoutExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, store := openPiped(t)
		l := store.Limiter("ip", mustRate(t, "2-M"))
		wantTakes(t, l, "a", 3, 2)
		time.Sleep(30 * time.Second)
		p.Do("PERSIST", l.keys(l.hash("a"))[0])
		if d := wantTakes(t, l, "a", 1, 0); d.RetryAfter != 60 {
			t.Errorf("retry after %d, want 60", d.RetryAfter)
		}
		time.Sleep(time.Minute)
		wantTakes(t, l, "a", 3, 2)
	})
}

func TestOpenFaults(t *testing.T) {
	for _, key := range []string{"", "too short"} {
		if _, err := Open(Options{Redis: target(t, "redis://localhost"), HashKey: []byte(key)}); err == nil {
			t.Errorf("secret %q: no error", key)
		}
	}
}

// TestRedisBurst: commands of many requests at once are sent together. Sent one by one, to a Redis that is 5 ms
// away, each sender would wait 256 times, and Redis would look lost. [BenchmarkBurst] measures a burst on a
// machine.
func TestRedisBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, store := openPiped(t)
		p.DelayBy(5 * time.Millisecond)
		l := store.Limiter("ip", mustRate(t, "5-M,30-H"))
		if got := burst(l, 256*senders); got != 500 {
			t.Errorf("%d let through, want 500", got)
		}
		wantInUse(t, store, Redis)
	})
}

// burst makes so many requests at once, for 100 clients, and returns how many were admitted.
func burst(l *Limiter, requests int) (allowed int64) {
	var n atomic.Int64
	var wait sync.WaitGroup
	for i := range requests {
		wait.Go(func() {
			if l.Take(context.Background(), fmt.Sprint("client ", i%100)).Allowed {
				n.Add(1)
			}
		})
	}
	wait.Wait()
	return n.Load()
}

// TestPipelineLeavesOutWhoGaveUp: a request that gave up counts in memory, and not in Redis as well.
func TestPipelineLeavesOutWhoGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store := openPiped(t)
		gone, leave := context.WithCancel(t.Context())
		leave()
		stays := &call{ctx: t.Context(), run: script.EvalSha, done: make(chan struct{})}
		left := &call{ctx: gone, run: script.EvalSha, done: make(chan struct{})}
		store.pipeline.exec(t.Context(), []*call{left, stays})
		<-stays.done
		if stays.cmd == nil || left.cmd != nil {
			t.Errorf("sent: %v, and of the request that gave up: %v", stays.cmd, left.cmd)
		}
	})
}
