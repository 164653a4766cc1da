package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resetd/resetd/impl"
)

const (
	latency = 30 * time.Millisecond
	timeout = 5 * time.Second // of one question, the default of UPSTREAM_TIMEOUT
	rest    = 15 * time.Minute
)

var (
	errDown    = fmt.Errorf("%w: status 503", impl.ErrAuthUnavailable)
	errKey     = fmt.Errorf("%w: status 401", impl.ErrAuthNotConfigured)
	errMail    = fmt.Errorf("%w: status 500", impl.ErrEmailDelivery)
	errLimited = errors.New("status 429")
)

// reply is the answer to one question of a probe, and the time that it takes.
type reply struct {
	after time.Duration
	err   error
}

var (
	serves  = reply{latency, nil}
	refuses = reply{latency, errDown}
	hangs   = reply{timeout, fmt.Errorf("%w: no answer in time", impl.ErrAuthUnavailable)}
)

// upstream answers a probe. When a question begins, its reply is decided.
type upstream struct {
	mu    sync.Mutex
	began time.Time
	asked []time.Duration // time of each question since the beginning
	// answer returns the reply to the nth question, from 1, which begins at this time.
	answer func(n int, at time.Duration) reply
}

func newUpstream(answer func(n int, at time.Duration) reply) *upstream {
	return &upstream{began: time.Now(), answer: answer}
}

func always(r reply) func(int, time.Duration) reply {
	return func(int, time.Duration) reply { return r }
}

func (u *upstream) ask(ctx context.Context) error {
	u.mu.Lock()
	at := time.Since(u.began)
	u.asked = append(u.asked, at)
	r := u.answer(len(u.asked), at)
	u.mu.Unlock()
	select {
	case <-time.After(r.after):
		return r.err
	case <-ctx.Done(): // like an error of net/http
		return fmt.Errorf("%w: %w", impl.ErrAuthUnavailable, ctx.Err())
	}
}

func (u *upstream) questions() []time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.asked)
}

// changes notes what it is told as a Watcher.
type changes struct {
	mu   sync.Mutex
	told []string
	at   []time.Time
}

func (c *changes) Probed(upstream string, was, is Verdict, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := fmt.Sprintf("%s: %s to %s", upstream, was, is)
	if (err == nil) != (is == OK || is == Unknown) {
		text += fmt.Sprintf(", with error %v", err)
	}
	c.told, c.at = append(c.told, text), append(c.at, time.Now())
}

// want checks all that was told. A verdict shows just before its watcher is told, so it waits for the bubble to be idle.
func (c *changes) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.told, want) {
		t.Errorf("the watcher was told: %q\nwant: %q", c.told, want)
	}
}

// check calls Check once, and fails if it waits.
func check(t *testing.T, h *Health) error {
	t.Helper()
	began := time.Now()
	err := h.Check()
	if waited := time.Since(began); waited != 0 {
		t.Errorf("a request waited %v", waited)
	}
	return err
}

// keepAsking makes requests for some time, one each step, and fails if one waits.
func keepAsking(t *testing.T, h *Health, duration, step time.Duration) {
	t.Helper()
	for end := time.Now().Add(duration); time.Now().Before(end); time.Sleep(step) {
		_ = check(t, h)
	}
}

// TestClock: Supabase is probed every 5 s, whether requests come or not.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(always(serves))
		h := New(&changes{}, rest, Supabase(u.ask))
		defer h.Close()
		_ = h.Check()
		time.Sleep(30 * time.Second)
		keepAsking(t, h, 30*time.Second, 100*time.Millisecond)
		asked := u.questions()
		if len(asked) < 12 || len(asked) > 13 {
			t.Errorf("%d questions in a minute: %v", len(asked), asked)
		}
		for i := 1; i < len(asked); i++ {
			if pause := asked[i] - asked[i-1]; pause < 5*time.Second-latency || pause > 5*time.Second+latency {
				t.Errorf("%v passed between two questions: %v", pause, asked)
			}
		}
	})
}

// TestOnDemand: Mailgun is probed once a minute, and only while requests come: each test message is billed.
func TestOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(always(serves))
		h := New(&changes{}, rest, Mailgun(u.ask))
		defer h.Close()
		want := func(why string, seconds ...int) {
			t.Helper()
			synctest.Wait()
			var got []int
			for _, at := range u.questions() {
				got = append(got, int((at + latency).Seconds()))
			}
			if !slices.Equal(got, seconds) {
				t.Errorf("%s: asked after %v s, want %v", why, got, seconds)
			}
		}
		_ = h.Check()
		time.Sleep(10*time.Minute - latency)
		want("no request has come since the first", 0)
		_ = check(t, h)
		want("a request has come after the minute", 0, 600)
		time.Sleep(30 * time.Second)
		_ = check(t, h)
		want("a request has come within the minute", 0, 600)
		time.Sleep(31 * time.Second)
		want("the minute has passed since", 0, 600, 660)
		time.Sleep(5 * time.Minute)
		want("no request has come since then", 0, 600, 660)
		keepAsking(t, h, 2*time.Minute-time.Second, time.Second)
		want("requests come all the time", 0, 600, 660, 961, 1021)
	})
}

// TestClockOfFailure: while Supabase fails, it is probed every 2 s. While Mailgun fails, it is probed with
// pauses that grow from 2 s to 30 s. Both are probed whether requests come or not.
func TestClockOfFailure(t *testing.T) {
	for name, c := range map[string]struct {
		probe       func(func(context.Context) error) Probe
		least, most time.Duration // pause between two questions, at first and at last
		count       [2]int        // of questions in 14 minutes, about
	}{
		"supabase": {probe: Supabase, least: 2 * time.Second, most: 2 * time.Second, count: [2]int{410, 430}},
		"mailgun":  {probe: Mailgun, least: 2 * time.Second, most: 30 * time.Second, count: [2]int{50, 75}},
	} {
		for kind, answer := range map[string]reply{"refuses": refuses, "hangs": hangs} {
			t.Run(name+" "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					u := newUpstream(always(answer))
					probe := c.probe(u.ask)
					h := New(&changes{}, rest, probe)
					defer h.Close()
					if err := h.Check(); !errors.Is(err, impl.ErrAuthUnavailable) {
						t.Error(err)
					}
					failing := time.Since(u.began) // from here on
					time.Sleep(14 * time.Minute)
					asked := u.questions()
					if len(asked) < c.count[0] || len(asked) > c.count[1] {
						t.Errorf("%d questions, want about %v", len(asked), c.count)
					}
					var pauses []time.Duration
					for i := 1; i < len(asked); i++ {
						if asked[i-1] < failing+time.Second { // the second try and its pause
							continue
						}
						pause := asked[i] - asked[i-1]
						pauses = append(pauses, pause)
						// The time since when it fails may be counted from the first question or from its answer.
						least, most := probe.Retry(asked[i-1]-failing), probe.Retry(asked[i-1])
						if pause < least-50*time.Millisecond || pause > most+50*time.Millisecond {
							t.Errorf("failing for %v, it was asked again after %v, want %v to %v", asked[i-1]-failing, pause, least, most)
						}
					}
					if !slices.IsSorted(pauses) || pauses[0] != c.least || pauses[len(pauses)-1] != c.most {
						t.Errorf("the pauses are %v, want them to grow from %v to %v", pauses, c.least, c.most)
					}
				})
			})
		}
	}
}

// TestSecondTry: one failure makes no verdict, in the first sample and in later ones; two do.
func TestSecondTry(t *testing.T) {
	for _, c := range []struct {
		name  string
		fails []int // questions, from 1
		told  []string
	}{
		{name: "none fails", fails: nil, told: []string{"supabase: unknown to ok"}},
		{name: "the first", fails: []int{1}, told: []string{"supabase: unknown to ok"}},
		{name: "the third", fails: []int{3}, told: []string{"supabase: unknown to ok"}},
		{name: "single ones", fails: []int{1, 3, 5, 7, 9}, told: []string{"supabase: unknown to ok"}},
		{name: "the first two", fails: []int{1, 2}, told: []string{"supabase: unknown to down", "supabase: down to ok"}},
		{name: "two later on", fails: []int{3, 4}, told: []string{"supabase: unknown to ok", "supabase: ok to down", "supabase: down to ok"}},
		{name: "two, and single ones before and after", fails: []int{1, 4, 5, 7, 9}, told: []string{"supabase: unknown to ok", "supabase: ok to down", "supabase: down to ok"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUpstream(func(n int, _ time.Duration) reply {
					if slices.Contains(c.fails, n) {
						return refuses
					}
					return serves
				})
				watcher := &changes{}
				h := New(watcher, rest, Supabase(u.ask))
				defer h.Close()
				_ = h.Check()
				keepAsking(t, h, time.Minute, 100*time.Millisecond)
				watcher.want(t, c.told...)
			})
		})
	}
}

// TestWaiting: only requests that come before the first verdict wait, and they share its questions.
func TestWaiting(t *testing.T) {
	for name, answers := range map[string]struct {
		first    reply
		waits    time.Duration
		asked    int // at most
		expected error
	}{
		"serves slowly":  {first: reply{3 * time.Second, nil}, waits: 3 * time.Second, asked: 1, expected: nil},
		"refuses slowly": {first: reply{time.Second, errDown}, waits: 2 * time.Second, asked: 2, expected: errDown},
		"hangs":          {first: hangs, waits: 2 * timeout, asked: 7, expected: impl.ErrAuthUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUpstream(always(answers.first))
				h := New(&changes{}, rest, Supabase(u.ask))
				defer h.Close()
				var requests sync.WaitGroup
				for i := range 100 { // half of them at once, the others while the first half waits
					requests.Go(func() {
						time.Sleep(time.Duration(max(0, i-50)) * 10 * time.Millisecond)
						if err := h.Check(); !errors.Is(err, answers.expected) || (err == nil) != (answers.expected == nil) {
							t.Errorf("%v, want %v", err, answers.expected)
						}
						if waited := time.Since(u.began); waited != answers.waits {
							t.Errorf("answered after %v, want %v", waited, answers.waits)
						}
					})
				}
				requests.Wait()
				if asked := u.questions(); len(asked) > answers.asked {
					t.Errorf("asked %d times, want %d", len(asked), answers.asked)
				}
			})
		})
	}
}

// TestNobodyWaits: once there is a verdict, no request waits, whatever the upstreams do.
func TestNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		weather := func(_ int, at time.Duration) reply {
			switch {
			case at < 20*time.Second, at > 8*time.Minute:
				return serves
			case at < 4*time.Minute:
				return hangs
			}
			return reply{4 * time.Second, nil}
		}
		h := New(&changes{}, rest, Supabase(newUpstream(weather).ask), Mailgun(newUpstream(weather).ask))
		defer h.Close()
		_ = h.Check()
		keepAsking(t, h, 10*time.Minute, 77*time.Millisecond)
	})
}

// TestBothAtOnce: the first questions of the two probes begin at the same time.
func TestBothAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := reply{2 * time.Second, nil}
		links, mails := newUpstream(always(slow)), newUpstream(always(slow))
		h := New(&changes{}, rest, Supabase(links.ask), Mailgun(mails.ask))
		defer h.Close()
		if err := h.Check(); err != nil || time.Since(links.began) != slow.after {
			t.Errorf("%v after %v", err, time.Since(links.began))
		}
	})
}

// TestRecovery: whatever an outage's kind, beginning and length, callers learn of it until a probe finds that
// it has ended: within 2 s for Supabase, and within 5 s for Mailgun if it took a minute at most. After that
// they are not told of it again.
func TestRecovery(t *testing.T) {
	kinds := map[string]reply{
		"refusing": refuses, "refusing slowly": {time.Second, errDown}, "refusing late": {4 * time.Second, errDown}, "hanging": hangs,
	}
	for _, c := range []struct {
		name       string
		probe      func(func(context.Context) error) Probe
		begins     []time.Duration // after the first question
		lasts      []time.Duration
		seenWithin time.Duration // of its beginning, if it lasts so long
		backWithin time.Duration // of its end
	}{
		{
			name: "supabase", probe: Supabase, seenWithin: 5*time.Second + 2*timeout, backWithin: 2*time.Second + 2*latency,
			begins: steps(0, 5*time.Second, 1300*time.Millisecond), lasts: slices.Concat(steps(300*time.Millisecond, 16*time.Second, 700*time.Millisecond), []time.Duration{3 * time.Minute}),
		},
		{
			name: "mailgun", probe: Mailgun, seenWithin: time.Minute + 2*timeout, backWithin: 5*time.Second + 2*latency,
			begins: steps(0, time.Minute, 2300*time.Millisecond), lasts: []time.Duration{5 * time.Second, time.Minute},
		},
	} {
		for kind, answer := range kinds {
			t.Run(c.name+" "+kind, func(t *testing.T) {
				for _, begin := range c.begins {
					for _, last := range c.lasts {
						synctest.Test(t, func(t *testing.T) {
							end := begin + last
							u := newUpstream(func(_ int, at time.Duration) reply {
								if at >= begin && at < end {
									return answer
								}
								return serves
							})
							watcher := &changes{}
							h := New(watcher, rest, c.probe(u.ask))
							defer h.Close()
							_ = h.Check()
							keepAsking(t, h, end+70*time.Second-time.Since(u.began), 500*time.Millisecond)
							name := fmt.Sprintf("an outage from %v for %v", begin, last)
							watcher.mu.Lock()
							defer watcher.mu.Unlock()
							shown, back := time.Duration(0), time.Duration(0)
							for i, told := range watcher.told {
								switch at := watcher.at[i].Sub(u.began); {
								case !strings.HasSuffix(told, "to down"):
									back = at
								case shown > 0:
									t.Errorf("%s was shown from %v on, and again from %v on", name, shown, at)
								default:
									shown = at
								}
							}
							switch {
							case shown == 0 && last > c.seenWithin:
								t.Errorf("%s was never shown", name)
							case shown == 0:
							case shown < begin, shown > begin+c.seenWithin:
								t.Errorf("%s was shown from %v on", name, shown)
							case back < shown, back > end+c.backWithin:
								t.Errorf("%s was shown from %v to %v, %v after its end", name, shown, back, back-end)
							}
						})
					}
				}
			})
		}
	}
}

func steps(from, to, step time.Duration) (all []time.Duration) {
	for at := from; at < to; at += step {
		all = append(all, at)
	}
	return all
}

// TestStaysBack: once an outage has ended, questions that hung in it count no more.
func TestStaysBack(t *testing.T) {
	for range 50 { // select chooses between two events at random
		synctest.Test(t, func(t *testing.T) {
			const end = 20 * time.Second
			u := newUpstream(func(_ int, at time.Duration) reply {
				if at >= time.Second && at < end {
					return hangs
				}
				return serves
			})
			watcher := &changes{}
			h := New(watcher, rest, Supabase(u.ask))
			defer h.Close()
			_ = h.Check()
			keepAsking(t, h, time.Minute, 100*time.Millisecond)
			watcher.want(t, "supabase: unknown to ok", "supabase: ok to down", "supabase: down to ok")
			after := 0
			for _, at := range u.questions() {
				if at > end+2*time.Second {
					after++
				}
			}
			if after > 8 { // in the 38 s that are left
				t.Errorf("%d questions after the outage: %v", after, u.questions())
			}
		})
	}
}

// TestLateFailure: after a failure that is slow to appear, the upstream is probed as often as after any
// other, also if no request came meanwhile.
func TestLateFailure(t *testing.T) {
	for _, takes := range []time.Duration{40 * time.Second, time.Minute} { // UPSTREAM_TIMEOUT at most
		for range 20 { // select chooses between two events at random
			synctest.Test(t, func(t *testing.T) {
				const end = 150 * time.Second
				u := newUpstream(func(_ int, at time.Duration) reply {
					if at < end {
						return reply{takes, errMail}
					}
					return serves
				})
				h := New(&changes{}, rest, Mailgun(u.ask))
				defer h.Close()
				go func() { _ = h.Check() }()
				time.Sleep(2*takes + time.Second)
				if err := check(t, h); err == nil {
					t.Error("no failure was found")
				}
				time.Sleep(end - time.Since(u.began) + 11*time.Second)
				if err := check(t, h); err != nil {
					t.Errorf("%v, 11 s after the end of the outage; asked after %v", err, u.questions())
				}
			})
		}
	}
}

// TestRest: when no request has come for long, the probes rest and the verdict is unknown, and the next
// request waits for a new one, whether the upstream served before or not.
func TestRest(t *testing.T) {
	for name, before := range map[string]reply{"serving": serves, "refusing": refuses, "hanging": hangs} {
		for probeName, probe := range map[string]func(func(context.Context) error) Probe{"supabase": Supabase, "mailgun": Mailgun} {
			t.Run(probeName+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					now := before
					u := newUpstream(func(int, time.Duration) reply { return now })
					watcher := &changes{}
					h := New(watcher, rest, probe(u.ask))
					defer h.Close()
					_ = h.Check()
					time.Sleep(time.Minute)
					_ = check(t, h) // from here on
					time.Sleep(rest - time.Second)
					verdict := verdictOf(before.err)
					watcher.want(t, fmt.Sprintf("%s: unknown to %s", probeName, verdict))
					if h.Resting() != (before.err != nil) {
						t.Errorf("deliveries rest: %v", h.Resting())
					}
					time.Sleep(time.Second + 31*time.Second) // the longest clock
					watcher.want(t, fmt.Sprintf("%s: unknown to %s", probeName, verdict), fmt.Sprintf("%s: %s to unknown", probeName, verdict))
					if h.Resting() {
						t.Error("deliveries rest, and nothing asks whether they should")
					}
					u.mu.Lock()
					now = serves
					u.mu.Unlock()
					asked := len(u.questions())
					time.Sleep(time.Hour)
					if more := len(u.questions()); more != asked {
						t.Errorf("%d questions while it rests", more-asked)
					}
					began := time.Now()
					if err := h.Check(); err != nil || time.Since(began) != latency {
						t.Errorf("the first request after the rest: %v after %v", err, time.Since(began))
					}
					_ = check(t, h)
					watcher.want(t, fmt.Sprintf("%s: unknown to %s", probeName, verdict), fmt.Sprintf("%s: %s to unknown", probeName, verdict), probeName+": unknown to ok")
				})
			})
		}
	}
}

// TestNoStaleVerdict: a request shortly before or after the time of rest is not told of an outage that ended
// long ago.
func TestNoStaleVerdict(t *testing.T) {
	for probeName, probe := range map[string]func(func(context.Context) error) Probe{"supabase": Supabase, "mailgun": Mailgun} {
		for idle := rest - 2*time.Minute; idle < rest+2*time.Minute; idle += 3700 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				u := newUpstream(func(_ int, at time.Duration) reply {
					if at < time.Minute {
						return refuses
					}
					return serves
				})
				h := New(&changes{}, rest, probe(u.ask))
				defer h.Close()
				_ = h.Check()
				time.Sleep(idle)
				if err := h.Check(); err != nil {
					t.Errorf("%s, %v after an outage of a minute: %v", probeName, idle-time.Minute, err)
				}
			})
		}
	}
}

// TestVerdicts: each answer to a probe has its verdict, and decides whether callers learn of it and whether
// deliveries rest.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		answer  error
		verdict Verdict
		shown   bool
	}{
		{answer: nil, verdict: OK, shown: false},
		{answer: errDown, verdict: Down, shown: true},
		{answer: errMail, verdict: Down, shown: true},
		{answer: errKey, verdict: KeyRefused, shown: true},
		{answer: fmt.Errorf("wrapped: %w", errKey), verdict: KeyRefused, shown: true},
		{answer: errLimited, verdict: Limited, shown: false},
		{answer: impl.ErrOverloaded, verdict: Limited, shown: false}, // no verdict on an upstream
	} {
		synctest.Test(t, func(t *testing.T) {
			watcher := &changes{}
			h := New(watcher, rest, Supabase(newUpstream(always(reply{latency, c.answer})).ask))
			defer h.Close()
			err := h.Check()
			if c.shown != (err != nil) || c.shown && !errors.Is(err, c.answer) {
				t.Errorf("%v: callers are told %v", c.answer, err)
			}
			if h.Resting() != c.shown {
				t.Errorf("%v: deliveries rest: %v", c.answer, h.Resting())
			}
			watcher.want(t, fmt.Sprintf("supabase: unknown to %s", c.verdict))
		})
	}
	if all := Verdicts(); len(all) != 5 || !slices.Contains(all, Unknown) || !slices.Contains(all, Limited) {
		t.Errorf("%v", all)
	}
}

// TestOrderOfVerdicts: if both probes fail, callers get the first one's error.
func TestOrderOfVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(&changes{}, rest, Supabase(newUpstream(always(reply{time.Second, errKey})).ask), Mailgun(newUpstream(always(reply{latency, errMail})).ask))
		defer h.Close()
		if err := h.Check(); !errors.Is(err, impl.ErrAuthNotConfigured) {
			t.Error(err)
		}
	})
}

// TestChangeOfKind: while an upstream fails, another kind of failure counts when it comes twice.
func TestChangeOfKind(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers string // one letter per question: down, key refused, limited, ok; the last goes on
		told    []string
	}{
		{name: "once", answers: "ddkdddo", told: []string{"down", "ok"}},
		{name: "in turns", answers: "ddkdkdkdo", told: []string{"down", "ok"}},
		{name: "twice", answers: "ddkkkddo", told: []string{"down", "key_refused", "down", "ok"}},
		{name: "once, the other way", answers: "kkdkko", told: []string{"key_refused", "ok"}},
		{name: "serves once", answers: "ddoddo", told: []string{"down", "ok", "down", "ok"}},
		{name: "limited once is an answer", answers: "ddlo", told: []string{"down", "limited", "ok"}},
		{name: "limited", answers: "lllo", told: []string{"limited", "ok"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				letters := map[byte]error{'d': errDown, 'k': errKey, 'l': errLimited, 'o': nil}
				u := newUpstream(func(n int, _ time.Duration) reply {
					return reply{latency, letters[c.answers[min(n, len(c.answers))-1]]}
				})
				watcher := &changes{}
				h := New(watcher, rest, Supabase(u.ask))
				defer h.Close()
				_ = h.Check()
				keepAsking(t, h, time.Minute, 100*time.Millisecond)
				var want []string
				was := "unknown"
				for _, is := range c.told {
					want = append(want, fmt.Sprintf("supabase: %s to %s", was, is))
					was = is
				}
				watcher.want(t, want...)
			})
		})
	}
}

// TestPanic: a panic in a probe does not end the process, and callers do not learn of it.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &changes{}
		h := New(c, rest, Supabase(func(context.Context) error { panic("of somebody@example.com") }))
		defer h.Close()
		if err := h.Check(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		h.probers[0].mu.Lock()
		defer h.probers[0].mu.Unlock()
		if err := h.probers[0].err; err == nil || strings.Contains(err.Error(), "@") {
			t.Errorf("the operator is told: %v", err)
		}
		c.want(t, "supabase: unknown to limited")
	})
}

// TestClose: Close ends every probe in any state, and releases waiting requests. It reports no failure that it
// has caused itself.
func TestClose(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(n int, at time.Duration) reply
		after  time.Duration // Close comes this long after the first request
		waits  bool          // a request waits then
	}{
		{name: "during the first question", answer: always(hangs), after: time.Second, waits: true},
		{name: "during the second question", answer: always(hangs), after: timeout + time.Second, waits: true},
		{name: "during a later question", answer: func(n int, _ time.Duration) reply {
			if n > 1 {
				return hangs
			}
			return serves
		}, after: 6 * time.Second, waits: false},
		{name: "between questions", answer: always(serves), after: 7 * time.Second, waits: false},
		{name: "while it hangs", answer: always(hangs), after: time.Minute + time.Second, waits: false},
		{name: "while it refuses", answer: always(refuses), after: time.Minute + time.Second, waits: false},
		{name: "at rest", answer: always(serves), after: 2 * rest, waits: false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 20 { // select chooses between two events at random
				synctest.Test(t, func(t *testing.T) {
					watcher := &changes{}
					links, mails := newUpstream(c.answer), newUpstream(c.answer)
					h := New(watcher, rest, Supabase(links.ask), Mailgun(mails.ask))
					returned := make(chan struct{})
					go func() {
						_ = h.Check()
						close(returned)
					}()
					time.Sleep(c.after)
					synctest.Wait()
					select {
					case <-returned:
						if c.waits {
							t.Error("no request waits")
						}
					default:
						if !c.waits {
							t.Error("a request waits")
						}
					}
					told, asked := len(watcher.told), len(links.questions())+len(mails.questions())
					began := time.Now()
					h.Close()
					<-returned
					synctest.Wait()
					time.Sleep(time.Minute)
					if took := time.Since(began); took != time.Minute {
						t.Errorf("Close took %v", took-time.Minute)
					}
					if more := watcher.told[told:]; len(more) > 0 {
						t.Errorf("the watcher was told %q", more)
					}
					if more := len(links.questions()) + len(mails.questions()) - asked; more > 0 {
						t.Errorf("%d questions were asked after Close", more)
					}
				})
			}
		})
	}
}

// TestCloseUnused: without requests nothing is probed.
func TestCloseUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, watcher := newUpstream(always(serves)), &changes{}
		h := New(watcher, rest, Supabase(u.ask), Mailgun(u.ask))
		time.Sleep(time.Hour)
		if h.Resting() {
			t.Error("deliveries rest")
		}
		h.Close()
		watcher.want(t)
		if asked := u.questions(); len(asked) > 0 {
			t.Errorf("asked after %v", asked)
		}
	})
}

// TestFixed: if a setting is missing, every caller gets the same error.
func TestFixed(t *testing.T) {
	h := Fixed(impl.ErrEmailDelivery)
	if err := h.Check(); !errors.Is(err, impl.ErrEmailDelivery) || h.Resting() {
		t.Errorf("%v, deliveries rest: %v", err, h.Resting())
	}
	h.Close()
}

// TestNames: the names of upstreams are those of the log and the metrics.
func TestNames(t *testing.T) {
	if names := Supabase(nil).Upstream + " " + Mailgun(nil).Upstream; !strings.EqualFold(names, "supabase mailgun") {
		t.Error(names)
	}
}
