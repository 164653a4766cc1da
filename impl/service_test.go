package impl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resetd/resetd/gen"
)

// world is all that the operation talks to. Times are those measured on real upstreams.
type world struct {
	mu       sync.Mutex
	log      []string // what was called, in order
	events   []EventKind
	eventAt  []time.Duration
	began    time.Time
	lookup   func(ctx context.Context, email string) (*Link, error) // nil: as measured
	send     func(ctx context.Context, to string) error
	decoy    func(ctx context.Context) error
	write    func(link string) error
	allowed  bool
	returned int  // places given back to the recipient limit
	budget   int  // decoys left
	noDecoys bool // MAIL_DECOY=off
	timeout  time.Duration
	quantum  time.Duration
	deferred int
	mode     LinkMode
}

func newWorld() *world {
	return &world{began: time.Now(), allowed: true, budget: 1000, timeout: 5 * time.Second, quantum: 500 * ms, deferred: 10}
}

const (
	known    = "known@example.com"
	stranger = "stranger@example.com"
)

func (w *world) did(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *world) calls() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.log, ", ")
}

func (w *world) MakeLink(ctx context.Context, email, redirectTo string) (*Link, error) {
	switch {
	case strings.HasSuffix(email, ".invalid"):
		w.did("control")
	default:
		w.did("lookup")
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	if w.lookup != nil {
		return w.lookup(ctx, email)
	}
	return lookupAsMeasured(ctx, email)
}

func lookupAsMeasured(ctx context.Context, email string) (*Link, error) {
	if email == known {
		return linkOf(known), pause(ctx, 29*ms)
	}
	return nil, pause(ctx, 8*ms)
}

func linkOf(email string) *Link {
	return &Link{Email: "stored-" + email, TokenHash: made(28), ActionLink: "https://auth.example.com/verify", RedirectTo: "https://app.example.com/reset"}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrAuthUnavailable, context.DeadlineExceeded)
	}
}

func hangs(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("%w: no answer: %w", ErrEmailDelivery, context.DeadlineExceeded)
}

func (w *world) Send(ctx context.Context, to string, mail Mail) error {
	w.did("send to %s", to)
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	if w.send != nil {
		return w.send(ctx, to)
	}
	return pause(ctx, 200*ms)
}

func (w *world) SendDecoy(ctx context.Context, mail Mail) error {
	w.did("decoy")
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	if w.decoy != nil {
		return w.decoy(ctx)
	}
	return pause(ctx, 200*ms)
}

func (w *world) Write(_, link string) (Mail, error) {
	if w.write != nil {
		return Mail{}, w.write(link)
	}
	return Mail{Text: link}, nil
}

func (w *world) Resolve(string) (string, bool) { return "https://app.example.com", true }

func (w *world) Saw(_ context.Context, event Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, event.Kind)
	w.eventAt = append(w.eventAt, time.Since(w.began))
}

func (w *world) saw() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprint(w.events)
}

type recipients struct{ *world }

func (r recipients) Take(_ context.Context, key string) (bool, func(context.Context)) {
	r.did("limit %s", key)
	return r.allowed, func(context.Context) { r.returned++ }
}

type budget struct{ *world }

func (b budget) Take(context.Context, string) (bool, func(context.Context)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.budget--
	return b.budget >= 0, func(context.Context) {}
}

func (w *world) service() *Service {
	config := Config{
		Links: w, Mailer: w, Writer: w, Origins: w, Recipients: recipients{w}, Watcher: w,
		ResetPath: "/reset", LinkMode: w.mode, AuthURL: "https://auth.example.com", CallTimeout: w.timeout, Quantum: w.quantum,
		Decide: func(context.Context) time.Duration {
			return time.Until(w.beat())
		},
		MaxDeferred: w.deferred,
		Fingerprint: func(address string) string { return "hash of " + address },
	}
	if !w.noDecoys {
		config.Decoys = budget{w}
	}
	return New(config)
}

// beat is the next one from now on.
func (w *world) beat() time.Time {
	n := max(1, (time.Since(w.began)+w.quantum-1)/w.quantum)
	return w.began.Add(n * w.quantum)
}

// ask returns the error, and on which beat the answer goes out.
//
//nolint:staticcheck // the error is what is asked for, the beat comes with it
func (w *world) ask(ctx context.Context, s *Service, email string) (error, time.Duration) {
	response, err := s.SendPasswordReset(ctx, gen.SendPasswordResetRequestObject{Body: &gen.SendPasswordResetRequest{Email: email}})
	if err == nil && response != gen.SendPasswordResetResponseObject(acknowledged) {
		err = fmt.Errorf("another answer: %v", response)
	}
	if w.quantum == 0 {
		return err, time.Since(w.began)
	}
	return err, w.beat().Sub(w.began)
}

var errUpstream = fmt.Errorf("%w: status 500", ErrAuthUnavailable)

// TestBeats: an account and a stranger are answered alike, and on the same beat, whatever an
// account alone meets.
func TestBeats(t *testing.T) {
	forAccounts := func(fault func(context.Context) error) func(context.Context, string) (*Link, error) {
		return func(ctx context.Context, email string) (*Link, error) {
			if email == known {
				return nil, fault(ctx)
			}
			return lookupAsMeasured(ctx, email)
		}
	}
	fails := func(context.Context) error { return errUpstream }
	slowly := func(d time.Duration) func(context.Context) error {
		return func(ctx context.Context) error { return pause(ctx, d) }
	}
	for _, c := range []struct {
		name    string
		prepare func(*world)
		err     error
		beats   time.Duration // of 500 ms
		sent    bool          // the account has its mail in the end
		late    time.Duration // beats by which an account is answered later: what is given away by time
	}{
		{"all is well", func(*world) {}, nil, 1, true, 0},
		{"Supabase fails for accounts", func(w *world) { w.lookup = forAccounts(fails) }, nil, 1, false, 0},
		{"Supabase hangs for accounts", func(w *world) { w.lookup = forAccounts(hangs) }, nil, 1, false, 0},
		{"Supabase is slow for accounts", func(w *world) {
			w.lookup = func(ctx context.Context, email string) (*Link, error) {
				if email == known {
					return linkOf(known), pause(ctx, 3*time.Second)
				}
				return lookupAsMeasured(ctx, email)
			}
		}, nil, 1, true, 0},
		{"Supabase fails once for accounts", func(w *world) {
			asked := 0
			w.lookup = func(ctx context.Context, email string) (*Link, error) {
				if asked++; asked == 1 {
					return nil, errUpstream
				}
				return lookupAsMeasured(ctx, email)
			}
		}, nil, 1, true, 0},
		{"Mailgun refuses real recipients", func(w *world) { w.send = func(context.Context, string) error { return ErrEmailDelivery } }, nil, 1, false, 0},
		{"Mailgun hangs for real recipients", func(w *world) { w.send = func(ctx context.Context, _ string) error { return hangs(ctx) } }, nil, 1, false, 1},
		{"Mailgun is slow for real recipients", func(w *world) {
			w.send = func(ctx context.Context, _ string) error { return pause(ctx, 2*time.Second) }
		}, nil, 1, true, 1},
		{"Mailgun is slow", func(w *world) {
			w.send = func(ctx context.Context, _ string) error { return pause(ctx, 800*ms) }
			w.decoy = slowly(800 * ms)
		}, nil, 2, true, 0},
		{"Mailgun refuses real recipients, slowly", func(w *world) {
			w.send = func(ctx context.Context, _ string) error {
				_ = pause(ctx, 200*ms)
				return ErrEmailDelivery
			}
			w.decoy = slowly(200 * ms)
		}, nil, 1, false, 0},
		{"Mailgun is down, slowly", func(w *world) {
			w.send = func(ctx context.Context, _ string) error {
				_ = pause(ctx, 100*ms)
				return ErrEmailDelivery
			}
			w.decoy = func(ctx context.Context) error {
				_ = pause(ctx, 100*ms)
				return ErrEmailDelivery
			}
		}, ErrEmailDelivery, 1, false, 0},
		{"Mailgun is down", func(w *world) {
			w.send = func(context.Context, string) error { return ErrEmailDelivery }
			w.decoy = func(context.Context) error { return ErrEmailDelivery }
		}, ErrEmailDelivery, 1, false, 0},
		{"Supabase is down", func(w *world) {
			w.lookup = func(context.Context, string) (*Link, error) { return nil, errUpstream }
		}, ErrAuthUnavailable, 1, false, 0},
		{"Supabase refuses the key", func(w *world) {
			w.lookup = func(context.Context, string) (*Link, error) { return nil, ErrAuthNotConfigured }
		}, ErrAuthNotConfigured, 1, false, 0},
		{"Supabase fails for accounts, and Mailgun is down", func(w *world) {
			w.lookup = forAccounts(fails)
			w.send = func(context.Context, string) error { return ErrEmailDelivery }
			w.decoy = func(context.Context) error { return ErrEmailDelivery }
		}, ErrEmailDelivery, 1, false, 0},
		{"the mail to this account cannot be written", func(w *world) {
			lookups := 0
			w.lookup = func(ctx context.Context, email string) (*Link, error) {
				if email == known {
					lookups++
				}
				return lookupAsMeasured(ctx, email)
			}
			w.mode = ActionLink
			w.write = func(link string) error {
				if link == linkOf(known).ActionLink {
					return errors.New("no link")
				}
				return nil
			}
		}, nil, 1, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, email := range []string{known, stranger} {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					c.prepare(w)
					s := w.service()
					err, beat := w.ask(t.Context(), s, email)
					if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
						t.Errorf("%s: %v, want %v", email, err, c.err)
					}
					due := c.beats * w.quantum
					if email == known {
						due += c.late * w.quantum
					}
					if beat != due {
						t.Errorf("%s: answered after %v, want %v (%s)", email, beat, due, w.calls())
					}
					if err := s.Close(t.Context()); err != nil {
						t.Error(err)
					}
					want := map[bool]EventKind{true: Sent, false: Undelivered}[c.sent]
					if email == stranger {
						want = NoAccount
					}
					if c.err != nil {
						want = Failed
					}
					if got := w.saw(); got != fmt.Sprint([]EventKind{want}) {
						t.Errorf("%s: the operator saw %s, want [%s] (%s)", email, got, want, w.calls())
					}
					if took := time.Since(w.began); took > 4*w.timeout+w.quantum {
						t.Errorf("%s: the delivery went on for %v", email, took)
					}
					time.Sleep(time.Minute) // what nobody waits for ends by itself
				})
			}
		})
	}
}

// TestCalls: the calls of a request in calm weather, and none for a limited one.
func TestCalls(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(*world)
		email   string
		calls   string
		events  []EventKind
	}{
		{"an account", func(*world) {}, known, "limit known@example.com, lookup, send to stored-known@example.com", []EventKind{Sent}},
		{"a stranger", func(*world) {}, stranger, "limit stranger@example.com, lookup, decoy", []EventKind{NoAccount}},
		{"capitals", func(*world) {}, "Stranger@Example.COM", "limit stranger@example.com, lookup, decoy", []EventKind{NoAccount}},
		{"a limited account", func(w *world) { w.allowed = false }, known, "limit known@example.com", []EventKind{Suppressed}},
		{"a limited stranger", func(w *world) { w.allowed = false }, stranger, "limit stranger@example.com", []EventKind{Suppressed}},
		{"no decoys left, an account", func(w *world) { w.budget = 0 }, known, "limit known@example.com, lookup, send to stored-known@example.com", []EventKind{DecoysUsedUp, Sent}},
		{"no decoys left, a stranger", func(w *world) { w.budget = 0 }, stranger, "limit stranger@example.com, lookup", []EventKind{DecoysUsedUp, NoAccount}},
		{"no decoys, an account", func(w *world) { w.noDecoys = true }, known, "limit known@example.com, lookup, send to stored-known@example.com", []EventKind{Sent}},
		{"no decoys, a stranger", func(w *world) { w.noDecoys = true }, stranger, "limit stranger@example.com, lookup", []EventKind{NoAccount}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				c.prepare(w)
				if err, _ := w.ask(t.Context(), w.service(), c.email); err != nil {
					t.Error(err)
				}
				if got := w.calls(); got != c.calls {
					t.Errorf("calls: %s\nwant:  %s", got, c.calls)
				}
				if got := w.saw(); got != fmt.Sprint(c.events) {
					t.Errorf("the operator saw %s, want %v", got, c.events)
				}
				if w.returned != 0 {
					t.Error("a place in the recipient limit was given back")
				}
			})
		})
	}
}

// TestGiveBack: after a fault that was shown, and after no other.
func TestGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, email := range []string{known, stranger} {
			w := newWorld()
			w.lookup = func(_ context.Context, asked string) (*Link, error) {
				if asked == email {
					return nil, errUpstream
				}
				return nil, nil
			}
			if err, _ := w.ask(t.Context(), w.service(), email); err != nil || w.returned != 0 {
				t.Errorf("hidden: %v, given back %d times", err, w.returned)
			}
			w = newWorld()
			w.lookup = func(context.Context, string) (*Link, error) { return nil, errUpstream }
			if err, _ := w.ask(t.Context(), w.service(), email); err == nil || w.returned != 1 {
				t.Errorf("shown: %v, given back %d times", err, w.returned)
			}
		}
		time.Sleep(time.Minute)
	})
}

// TestShownEndsDelivery: who was told that it failed asks again, so a delivery that still goes
// on is given up; and a panic in the foreground leaves none waiting for its end.
func TestShownEndsDelivery(t *testing.T) {
	for _, fault := range []string{"decoys fail", "a decoy panics as it is written"} {
		t.Run(fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				asked := 0
				w.lookup = func(ctx context.Context, email string) (*Link, error) {
					if email != known {
						return nil, nil
					}
					if asked++; asked == 1 {
						return nil, errUpstream
					}
					return linkOf(known), pause(ctx, 2*time.Second)
				}
				if fault == "decoys fail" {
					w.decoy = func(context.Context) error { return ErrEmailDelivery }
				} else {
					w.write = func(string) error { panic("a bug") }
				}
				s := w.service()
				func() {
					defer func() { _ = recover() }() // as the server does
					if err, _ := w.ask(t.Context(), s, known); err == nil {
						t.Error("no error")
					}
				}()
				if err := s.Close(t.Context()); err != nil {
					t.Error(err)
				}
				if fault == "decoys fail" && (strings.Contains(w.calls(), "send to") || w.saw() != "[failed]") {
					t.Errorf("the operator saw %s (%s)", w.saw(), w.calls())
				}
			})
		})
	}
}

// TestClientLeaves: nothing that was begun is given up, and nobody waits for a beat any more.
func TestClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(10*ms, leave) // during the lookup
		if err, _ := w.ask(ctx, w.service(), known); err != nil {
			t.Error(err)
		}
		if got := w.saw(); got != "[sent]" {
			t.Errorf("the operator saw %s (%s)", got, w.calls())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.quantum = 10 * time.Second
		w.lookup = func(ctx context.Context, email string) (*Link, error) {
			if email == known {
				return linkOf(known), pause(ctx, 4900*ms)
			}
			return nil, nil
		}
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(4500*ms, leave) // while the delivery goes on
		s := w.service()
		if err, _ := w.ask(ctx, s, known); err != nil {
			t.Error(err)
		}
		if took := time.Since(w.began); took != 4500*ms {
			t.Errorf("the place in flight was free after %v", took)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if got := w.saw(); got != "[sent]" {
			t.Errorf("the operator saw %s (%s)", got, w.calls())
		}
	})
}

// TestClose waits for deliveries that go on, and no longer than it may.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.send = func(ctx context.Context, _ string) error { return pause(ctx, 4*time.Second) }
		s := w.service()
		if err, _ := w.ask(t.Context(), s, known); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 100*ms)
		defer cancel()
		if err := s.Close(short); err == nil {
			t.Error("Close did not wait")
		}
		if err := s.Close(t.Context()); err != nil || w.saw() != "[sent]" {
			t.Errorf("%v, and the operator saw %s (%s)", err, w.saw(), w.calls())
		}
	})
}

// TestTooManyDeliveries: beyond the bound a delivery is not begun; the answer is the same, and
// the operator learns it.
func TestTooManyDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.deferred = 0
		w.lookup = func(_ context.Context, email string) (*Link, error) {
			if email == known {
				return nil, errUpstream
			}
			return nil, nil
		}
		err, beat := w.ask(t.Context(), w.service(), known)
		if err != nil || beat != 500*ms || w.saw() != "[undelivered]" {
			t.Errorf("%v after %v, and the operator saw %s", err, beat, w.saw())
		}
	})
}

// TestNoHeapOfMails: Mailgun may have accepted what it did not answer, so one request never
// sends more than two messages that time out; and a message that is under way is waited for
// rather than repeated.
func TestNoHeapOfMails(t *testing.T) {
	for _, quantum := range []time.Duration{0, 500 * ms, 10 * time.Second} {
		for _, decoys := range []string{"on", "off", "used up"} {
			t.Run(fmt.Sprint(quantum, " decoys ", decoys), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					w.quantum = quantum
					w.noDecoys = decoys == "off"
					if decoys == "used up" {
						w.budget = 0
					}
					w.send = func(ctx context.Context, _ string) error { return hangs(ctx) }
					s := w.service()
					_, _ = w.ask(t.Context(), s, known)
					if err := s.Close(t.Context()); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Minute)
					if sends := strings.Count(w.calls(), "send to"); sends > 2 {
						t.Errorf("%d messages: %s", sends, w.calls())
					}
				})
			})
		}
	}
}

// TestHangingLookups: a lookup that timed out may be repeated as often as there is time for: no
// mail has gone out yet.
func TestHangingLookups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		asked := 0
		w.lookup = func(ctx context.Context, email string) (*Link, error) {
			if email != known {
				return nil, nil
			}
			if asked++; asked <= 3 {
				return nil, hangs(ctx)
			}
			return lookupAsMeasured(ctx, email)
		}
		s := w.service()
		if err, _ := w.ask(t.Context(), s, known); err != nil {
			t.Error(err)
		}
		if err := s.Close(t.Context()); err != nil || w.saw() != "[sent]" {
			t.Errorf("%v, and the operator saw %s (%s)", err, w.saw(), w.calls())
		}
	})
}
