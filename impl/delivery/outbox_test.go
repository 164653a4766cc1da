package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/health"
	"github.com/resetd/resetd/impl/outbox"
)

// upstreams stands for Supabase Auth and Mailgun behind their adapters. Calls take the time that real
// upstreams were measured to take.
type upstreams struct {
	fault func(call string, n int) fault // of the nth call of a kind, from 1

	mu    sync.Mutex
	calls map[string]int
	mails map[string]int // accepted, by recipient
	ends  map[impl.EventKind]int
}

type fault int

const (
	none   fault = iota
	fails        // 500
	hangs        // until UPSTREAM_TIMEOUT
	hidden       // has its effect, but gives no answer
)

const timeout = 5 * time.Second

func newUpstreams(fault func(call string, n int) fault) *upstreams {
	return &upstreams{fault: fault, calls: map[string]int{}, mails: map[string]int{}, ends: map[impl.EventKind]int{}}
}

func (u *upstreams) call(ctx context.Context, name string, takes time.Duration, failure error, effect func()) error {
	u.mu.Lock()
	u.calls[name]++
	fault := u.fault(name, u.calls[name])
	u.mu.Unlock()
	if fault == hangs || fault == hidden {
		takes = timeout
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", failure, ctx.Err())
	}
	if effect != nil && (fault == none || fault == hidden) {
		u.mu.Lock()
		effect()
		u.mu.Unlock()
	}
	switch fault {
	case none:
		return nil
	case fails:
		return fmt.Errorf("%w: status 500", failure)
	case hangs, hidden:
	}
	if errors.Is(failure, impl.ErrEmailDelivery) {
		failure = fmt.Errorf("%w: %w", delivery.ErrFateUnknown, failure)
	}
	return fmt.Errorf("%w: no answer in time: %w", failure, context.DeadlineExceeded)
}

func (u *upstreams) MakeLink(ctx context.Context, email, redirectTo string) (*delivery.Link, error) {
	if err := u.call(ctx, "link", 29*time.Millisecond, impl.ErrAuthUnavailable, nil); err != nil || email[0] != 'k' {
		return nil, err
	}
	return &delivery.Link{Email: "stored-" + email, TokenHash: "token", RedirectTo: redirectTo}, nil
}

func (u *upstreams) Send(ctx context.Context, to string, _ delivery.Mail) error {
	return u.call(ctx, "send", 200*time.Millisecond, impl.ErrEmailDelivery, func() { u.mails[to]++ })
}

func (u *upstreams) probeSupabase(ctx context.Context) error {
	return u.call(ctx, "probe of Supabase", 8*time.Millisecond, impl.ErrAuthUnavailable, nil)
}

func (u *upstreams) probeMailgun(ctx context.Context) error {
	return u.call(ctx, "probe of Mailgun", 200*time.Millisecond, impl.ErrEmailDelivery, nil)
}

func (u *upstreams) Write(string, string, string) (delivery.Mail, error) { return delivery.Mail{}, nil }

func (u *upstreams) Attempt(ctx context.Context, _ *impl.Request) (context.Context, func()) {
	return ctx, func() {}
}

func (u *upstreams) Saw(_ context.Context, event impl.Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ends[event.Kind]++
}

func (u *upstreams) Probed(string, health.Verdict, health.Verdict, error) {}

// open connects the rooms as the program does.
func (u *upstreams) open() (*health.Health, *outbox.Outbox) {
	h := health.New(u, 15*time.Minute+3*timeout, health.Supabase(u.probeSupabase), health.Mailgun(u.probeMailgun))
	d := &delivery.Deliverer{
		Links: u, Mailer: u, Writer: u, Watcher: u, Resting: h.Resting, Test: u.probeMailgun, LinkMode: delivery.TokenHash,
		Timeout: 15 * time.Minute, MaxLinkAge: 6 * time.Minute, Fingerprint: func(account string) string { return account },
	}
	return h, outbox.New(outbox.Config{
		Begin: func(r impl.Request) outbox.Delivery { return d.Begin(r) }, MaxAccepted: 10_000, MaxPending: 60_000, MaxAtOnce: 8, GivenUp: func() {},
	})
}

func put(t *testing.T, o *outbox.Outbox, email string) {
	t.Helper()
	err := o.Put(t.Context(), impl.Request{ID: email, Email: email, RedirectTo: "https://app.example.com/reset", Accepted: time.Now()})
	if err != nil {
		t.Errorf("%s: %v", email, err)
	}
}

// closeEmpty closes an outbox, which must be empty.
func closeEmpty(t *testing.T, o *outbox.Outbox) {
	t.Helper()
	if n, _ := o.Pending(); n > 0 {
		t.Errorf("%d are pending", n)
	}
	if err := o.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestEveryThirdCallFails: each of 500 accounts gets exactly one mail, and 500 unknown addresses get none.
func TestEveryThirdCallFails(t *testing.T) {
	const accounts = 500
	synctest.Test(t, func(t *testing.T) {
		u := newUpstreams(func(_ string, n int) fault {
			if n%3 == 0 {
				return fails
			}
			return none
		})
		h, o := u.open()
		defer h.Close()
		if err := h.Check(); err != nil {
			t.Fatal(err)
		}
		for i := range accounts {
			put(t, o, fmt.Sprintf("known%d@example.com", i))
			put(t, o, fmt.Sprintf("unknown%d@example.com", i))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(5 * time.Minute)
		closeEmpty(t, o)
		u.mu.Lock()
		defer u.mu.Unlock()
		for to, n := range u.mails {
			if n != 1 {
				t.Errorf("%s is mailed %d times", to, n)
			}
		}
		want := map[impl.EventKind]int{impl.Sent: accounts, impl.NoAccount: accounts}
		if len(u.mails) != accounts || !maps.Equal(u.ends, want) {
			t.Errorf("%d accounts are mailed, and the ends are %v", len(u.mails), u.ends)
		}
		if u.calls["link"] < 3*accounts-10 || u.calls["send"] < 3*accounts/2-10 {
			t.Errorf("the calls are %v: too few failed", u.calls)
		}
	})
}

// TestOutage: an outage of a minute, of one upstream or both, loses no mail of requests accepted before and
// during it, and causes no storm of calls. Only a message of unknown fate may come twice.
func TestOutage(t *testing.T) {
	const (
		begin = 63 * time.Second // just after a sample of Mailgun, so that the outage is found late
		end   = begin + time.Minute
	)
	for _, kind := range []fault{fails, hangs, hidden} {
		for name, concerned := range map[string][]string{
			"Supabase": {"link", "probe of Supabase"},
			"Mailgun":  {"send", "probe of Mailgun"},
			"both":     {"link", "probe of Supabase", "send", "probe of Mailgun"},
		} {
			t.Run(fmt.Sprintf("%s, of kind %d", name, kind), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					began := time.Now()
					u := newUpstreams(nil)
					u.fault = func(call string, _ int) fault {
						at := time.Since(began)
						for _, c := range concerned {
							if c == call && at >= begin && at < end {
								return kind
							}
						}
						return none
					}
					h, o := u.open()
					defer h.Close()
					accepted := map[string]bool{}
					refused := 0
					for i := 0; time.Since(began) < end+70*time.Second; i++ {
						if err := h.Check(); err != nil {
							refused++
						} else {
							email := fmt.Sprintf("known%d@example.com", i)
							put(t, o, email)
							accepted["stored-"+email] = true
						}
						time.Sleep(300 * time.Millisecond)
					}
					time.Sleep(3 * time.Minute)
					closeEmpty(t, o)
					u.mu.Lock()
					defer u.mu.Unlock()
					times := map[int]int{} // accounts by number of mails
					for to := range accepted {
						times[u.mails[to]]++
					}
					if times[1]+times[2] != len(accepted) || times[2] > 0 && kind != hidden {
						t.Errorf("of %d accounts, by number of mails: %v", len(accepted), times)
					}
					if !maps.Equal(u.ends, map[impl.EventKind]int{impl.Sent: len(accepted)}) {
						t.Errorf("%d were accepted, and the ends are %v", len(accepted), u.ends)
					}
					if len(accepted) < 400 {
						t.Errorf("%d were refused, and %d accepted", refused, len(accepted))
					}
					if calls := u.calls["link"] + u.calls["send"]; calls > 8*len(accepted) {
						t.Errorf("%d calls for %d accounts", calls, len(accepted))
					}
				})
			})
		}
	}
}
