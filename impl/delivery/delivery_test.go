package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resetd/resetd/impl"
)

const (
	asked      = "Known@Example.com"
	stored     = "stored@example.com"
	redirectTo = "https://app.example.com/reset"
	token      = "the+token"
)

// These errors are like those of the adapters.
var (
	errLink    = fmt.Errorf("%w: status 500", impl.ErrAuthUnavailable)
	errSend    = fmt.Errorf("%w: status 500", impl.ErrEmailDelivery)
	errUnknown = fmt.Errorf("%w: %w: no answer in time: %w", ErrFateUnknown, impl.ErrEmailDelivery, context.DeadlineExceeded)
	errMessage = fmt.Errorf("%w: %w: status 400", ErrRefused, impl.ErrEmailDelivery)
	errAccount = fmt.Errorf("%w: %w: status 200 without a usable stored address", impl.ErrAuthUnavailable, ErrRefused)
)

type busyError time.Duration

func (e busyError) Error() string             { return "status 429" }
func (e busyError) RetryAfter() time.Duration { return time.Duration(e) }

// world stands for the upstreams and settings of a delivery. Each list has the results of one kind of call in
// order. Its last result repeats; an empty list is success.
type world struct {
	t        *testing.T
	links    []error
	sends    []error
	tests    []error
	writes   []error
	noLink   bool // there is no account
	banned   bool // the account is banned
	noTest   bool // MAIL_PROBE=off
	replaced bool
	panics   string // the call that panics
	hang     func(call string) error

	timeout time.Duration
	mode    LinkMode
	resting func() bool

	began  time.Time
	calls  []string
	mails  []Mail
	events []impl.Event
	open   int // attempts
	tries  []time.Duration
	pauses []time.Duration
}

func (w *world) did(call string, script *[]error) error {
	name, _, _ := strings.Cut(call, " ")
	w.calls = append(w.calls, call)
	if w.panics == name {
		panic("of " + asked)
	}
	if w.hang != nil {
		if err := w.hang(name); err != nil {
			return err
		}
	}
	if len(*script) == 0 {
		return nil
	}
	err := (*script)[0]
	if len(*script) > 1 {
		*script = (*script)[1:]
	}
	return err
}

func (w *world) MakeLink(_ context.Context, email, to string) (*Link, error) {
	if email != asked || to != redirectTo {
		w.t.Errorf("a link is made for %s, to %s", email, to)
	}
	err := w.did("link", &w.links)
	if err != nil || w.noLink {
		return nil, err
	}
	link := &Link{Email: stored, Banned: w.banned, TokenHash: token, ActionLink: "https://auth.example.com/verify?token=t", RedirectTo: redirectTo, Language: "fr"}
	if w.replaced {
		link.RedirectTo = "https://site.example.com"
	}
	return link, nil
}

func (w *world) Write(account, accepted, link string) (Mail, error) {
	if account != "fr" || accepted != "de" {
		w.t.Errorf("written in %q, or else %q", account, accepted)
	}
	if err := w.did("write", &w.writes); err != nil {
		return Mail{}, err
	}
	return Mail{Subject: "s", Text: link}, nil
}

func (w *world) Send(_ context.Context, to string, mail Mail) error {
	w.mails = append(w.mails, mail)
	return w.did("send to "+to, &w.sends)
}

func (w *world) test(context.Context) error { return w.did("test", &w.tests) }

func (w *world) Saw(ctx context.Context, event impl.Event) {
	if impl.CallerOf(ctx) != nil {
		w.t.Error("the end of a delivery goes into the record of its request")
	}
	w.events = append(w.events, event)
}

type attempted struct{}

func (w *world) Attempt(ctx context.Context, request *impl.Request) (context.Context, func()) {
	if request.ID != "id" {
		w.t.Errorf("an attempt of %q", request.ID)
	}
	w.open++
	w.tries = append(w.tries, time.Since(w.began))
	return context.WithValue(ctx, attempted{}, true), func() { w.open-- }
}

// deliver makes attempts until the delivery ends, as an outbox does.
func (w *world) deliver(t *testing.T) impl.Event {
	t.Helper()
	w.t, w.began = t, time.Now()
	if w.timeout == 0 {
		w.timeout = 15 * time.Minute
	}
	if w.mode == "" {
		w.mode = TokenHash
	}
	if w.resting == nil {
		w.resting = func() bool { return false }
	}
	deliverer := &Deliverer{
		Links: w, Mailer: w, Writer: w, Watcher: w, Resting: w.resting, Test: w.test, LinkMode: w.mode,
		Timeout: w.timeout, MaxLinkAge: 6 * time.Minute, Fingerprint: func(account string) string { return "hash of " + account },
	}
	if w.noTest {
		deliverer.Test = nil
	}
	d := deliverer.Begin(impl.Request{ID: "id", Email: asked, RedirectTo: redirectTo, Language: "de", Accepted: w.began})
	if len(w.calls) > 0 {
		t.Errorf("before the first attempt: %v", w.calls)
	}
	for {
		pause, again := d.Try(t.Context())
		if !again {
			break
		}
		if len(w.events) > 0 {
			t.Fatalf("another attempt after its end: %v", w.events)
		}
		if pause <= 0 {
			t.Fatalf("a pause of %v", pause)
		}
		w.pauses = append(w.pauses, pause)
		time.Sleep(pause)
	}
	if len(w.events) != 1 {
		t.Fatalf("it ended %d times: %v", len(w.events), w.events)
	}
	event := w.events[0]
	if event.RequestID != "id" || event.Account != "hash of known@example.com" || event.Took != time.Since(w.began) || event.Tries != len(w.tries) {
		t.Errorf("its end is %+v, after %d attempts and %v", event, len(w.tries), time.Since(w.began))
	}
	if (event.Err != nil) != (event.Kind == impl.Undelivered || event.Kind == impl.Unconfirmed) {
		t.Errorf("%s, %v", event.Kind, event.Err)
	}
	if w.open != 0 {
		t.Errorf("%d attempts are open", w.open)
	}
	if event.Took > w.timeout {
		t.Errorf("it went on for %v", event.Took)
	}
	return event
}

const mailed = "send to " + stored

// TestPaths: for each course of events, which calls are made in which order, and how the delivery ends.
func TestPaths(t *testing.T) {
	plain := errors.New("no template")
	for _, c := range []struct {
		name  string
		world world
		calls string
		end   impl.EventKind
		err   error // that the event's error is
	}{
		{name: "an account", world: world{}, calls: "link, write, " + mailed, end: impl.Sent},
		{name: "no account", world: world{noLink: true}, calls: "link", end: impl.NoAccount},
		{name: "a banned account", world: world{banned: true}, calls: "link", end: impl.Banned},
		{name: "no account, after a fault", world: world{noLink: true, links: []error{errLink, nil}}, calls: "link, link", end: impl.NoAccount},
		{name: "the link fails once", world: world{links: []error{errLink, nil}}, calls: "link, link, write, " + mailed, end: impl.Sent},
		{name: "the link fails often", world: world{links: slices.Concat(slices.Repeat([]error{errLink}, 9), []error{nil})}, calls: strings.Repeat("link, ", 10) + "write, " + mailed, end: impl.Sent},
		{
			name: "the send fails often: the link is used again", world: world{sends: slices.Concat(slices.Repeat([]error{errSend}, 5), []error{nil})},
			calls: "link" + strings.Repeat(", write, "+mailed, 6), end: impl.Sent,
		},

		// A refused call may itself be the cause, so it gets fewer attempts.
		{name: "the message is refused", world: world{sends: []error{errMessage}}, calls: "link" + strings.Repeat(", write, "+mailed, 3), end: impl.Undelivered, err: ErrRefused},
		{name: "the message is refused twice", world: world{sends: []error{errMessage, errMessage, nil}}, calls: "link" + strings.Repeat(", write, "+mailed, 3), end: impl.Sent},
		{
			name: "the message is refused between other faults", world: world{sends: []error{errMessage, errSend, errMessage, errSend, errSend, errMessage, nil}},
			calls: "link" + strings.Repeat(", write, "+mailed, 6), end: impl.Undelivered, err: ErrRefused,
		},
		{name: "the account is at fault", world: world{links: []error{errAccount}}, calls: "link, link, link", end: impl.Undelivered, err: ErrRefused},
		{name: "the mail cannot be written", world: world{writes: []error{plain}}, calls: "link, write, write, write", end: impl.Undelivered, err: plain},

		// A mail that Mailgun may have accepted is repeated once, after Mailgun accepts messages again.
		{name: "a send of unknown fate", world: world{sends: []error{errUnknown, nil}}, calls: "link, write, " + mailed + ", test, write, " + mailed, end: impl.Sent},
		{name: "two sends of unknown fate", world: world{sends: []error{errUnknown}}, calls: "link, write, " + mailed + ", test, write, " + mailed, end: impl.Unconfirmed, err: ErrFateUnknown},
		{name: "without test messages", world: world{noTest: true, sends: []error{errUnknown, nil}}, calls: "link, write, " + mailed + ", write, " + mailed, end: impl.Sent},
		{name: "two, without test messages", world: world{noTest: true, sends: []error{errUnknown}}, calls: "link, write, " + mailed + ", write, " + mailed, end: impl.Unconfirmed, err: ErrFateUnknown},
		{
			name: "the test message fails", world: world{sends: []error{errUnknown, nil}, tests: []error{errSend, errSend, nil}},
			calls: "link, write, " + mailed + ", test, test, test, write, " + mailed, end: impl.Sent,
		},
		{
			// It does not matter whether a test message was accepted.
			name: "the test message is of unknown fate", world: world{sends: []error{errUnknown, nil}, tests: []error{errUnknown, errUnknown, errUnknown, nil}},
			calls: "link, write, " + mailed + ", test, test, test, test, write, " + mailed, end: impl.Sent,
		},
		{
			name: "the repeat is not accepted, for certain", world: world{sends: []error{errUnknown, errSend, errSend, nil}},
			calls: "link, write, " + mailed + strings.Repeat(", test, write, "+mailed, 3), end: impl.Sent,
		},
		{
			name: "two sends of unknown fate, and others between", world: world{sends: []error{errSend, errUnknown, errSend, errUnknown, nil}},
			calls: "link, write, " + mailed + ", write, " + mailed + strings.Repeat(", test, write, "+mailed, 2), end: impl.Unconfirmed, err: ErrFateUnknown,
		},
		{
			name: "of unknown fate, and then refused", world: world{sends: []error{errUnknown, errMessage}},
			calls: "link, write, " + mailed + strings.Repeat(", test, write, "+mailed, 3), end: impl.Unconfirmed, err: ErrFateUnknown,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				event := c.world.deliver(t)
				if got := strings.Join(c.world.calls, ", "); got != c.calls {
					t.Errorf("calls: %s\nwant:  %s", got, c.calls)
				}
				if event.Kind != c.end || !errors.Is(event.Err, c.err) {
					t.Errorf("it ends as %s, %v, want %s, %v", event.Kind, event.Err, c.end, c.err)
				}
				if event.Replaced {
					t.Error("its redirect was not replaced")
				}
			})
		})
	}
}

// TestPausesGrow: failures are tried again with growing, random pauses, until a second before
// DELIVERY_TIMEOUT. No attempt begins later.
func TestPausesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{links: []error{errLink}}
		event := w.deliver(t)
		if event.Kind != impl.Undelivered || !errors.Is(event.Err, impl.ErrAuthUnavailable) {
			t.Errorf("%s, %v", event.Kind, event.Err)
		}
		usual := 500 * time.Millisecond
		for i, pause := range w.pauses {
			last := i == len(w.pauses)-1 // it is shortened
			if pause < usual/2 && !last || pause > usual*3/2+1 {
				t.Errorf("pause %d is %v, want %v, half more or less", i+1, pause, usual)
			}
			usual = min(2*usual, 30*time.Second)
		}
		if last := w.tries[len(w.tries)-1]; last != w.timeout-time.Second {
			t.Errorf("the last attempt began after %v", last)
		}
		if n := len(w.tries); n < 25 || n > 60 {
			t.Errorf("%d attempts in 15 minutes", n)
		}
		if slices.Sort(w.pauses); len(slices.Compact(w.pauses)) < len(w.tries)-1 {
			t.Errorf("pauses are the same: %v", w.pauses)
		}
	})
}

// TestRetryAfter: the next attempt follows when the upstream asks for it, or later. If that is too late,
// there is none.
func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		after       time.Duration
		least, most time.Duration // pause; 0: the delivery ends at once
	}{
		{after: time.Millisecond, least: 250 * time.Millisecond, most: 751 * time.Millisecond},
		{after: 7 * time.Second, least: 7 * time.Second, most: 7 * time.Second},
		{after: 14 * time.Minute, least: 14 * time.Minute, most: 14 * time.Minute},
		{after: 15 * time.Minute, least: 0, most: 0},
		{after: 24 * time.Hour, least: 0, most: 0},
	} {
		for _, of := range []string{"link", "send", "test"} {
			synctest.Test(t, func(t *testing.T) {
				busy := fmt.Errorf("%w: %w", impl.ErrEmailDelivery, busyError(c.after))
				w := &world{}
				skip := 0
				switch of {
				case "link":
					w.links = []error{busy, nil}
				case "send":
					w.sends = []error{busy, nil}
				case "test":
					w.sends, w.tests, skip = []error{errUnknown, nil}, []error{busy, nil}, 1
				}
				event := w.deliver(t)
				if c.most == 0 {
					want := impl.Undelivered
					if of == "test" { // the test message after a send of unknown fate
						want = impl.Unconfirmed
					}
					if event.Kind != want || len(w.pauses) != skip {
						t.Errorf("%s, after %v: %s, with pauses of %v", of, c.after, event.Kind, w.pauses)
					}
					return
				}
				least, most := c.least, c.most
				if skip > 0 && c.after < time.Second { // the second pause is longer
					least, most = 500*time.Millisecond, 1501*time.Millisecond
				}
				if event.Kind != impl.Sent || len(w.pauses) != 1+skip || w.pauses[skip] < least || w.pauses[skip] > most {
					t.Errorf("%s, after %v: %s, with pauses of %v, want %v to %v", of, c.after, event.Kind, w.pauses, least, most)
				}
			})
		}
	}
}

// TestLinkAge: a link is made once, and again only if it is too old to be sent.
func TestLinkAge(t *testing.T) {
	for _, c := range []struct {
		after time.Duration // until the next send
		links int
	}{{after: time.Minute, links: 1}, {after: 6 * time.Minute, links: 1}, {after: 6*time.Minute + time.Second, links: 2}} {
		synctest.Test(t, func(t *testing.T) {
			w := &world{sends: []error{busyError(c.after), nil}}
			event := w.deliver(t)
			links := 0
			for _, call := range w.calls {
				if call == "link" {
					links++
				}
			}
			if event.Kind != impl.Sent || links != c.links {
				t.Errorf("sent again after %v: %s, with %d links, want %d", c.after, event.Kind, links, c.links)
			}
		})
	}
}

// TestGoneMeanwhile: if the account is gone or banned after a send of unknown fate, the delivery does not
// report that there was no mail.
func TestGoneMeanwhile(t *testing.T) {
	for _, banned := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := &world{noTest: true, sends: []error{fmt.Errorf("%w: %w", ErrFateUnknown, busyError(7*time.Minute))}}
			w.hang = func(call string) error {
				if call == "send" { // the next attempt comes when the link is too old
					w.noLink, w.banned = !banned, banned
				}
				return nil
			}
			if event := w.deliver(t); event.Kind != impl.Unconfirmed || !errors.Is(event.Err, ErrFateUnknown) || len(w.mails) != 1 {
				t.Errorf("banned %v: %s, %v, %d sends", banned, event.Kind, event.Err, len(w.mails))
			}
		})
	}
}

// TestLongOutage: an outage that is shorter than DELIVERY_TIMEOUT loses no mail, and the mail carries a fresh
// link.
func TestLongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		began := time.Now()
		var made time.Time
		w.hang = func(call string) error {
			switch {
			case call == "link":
				made = time.Now()
			case call == "send" && time.Since(began) < 14*time.Minute:
				return errSend
			}
			return nil
		}
		if event := w.deliver(t); event.Kind != impl.Sent || time.Since(made) > 6*time.Minute {
			t.Errorf("%s, %v, with a link of %v", event.Kind, event.Err, time.Since(made))
		}
	})
}

// TestSlowFailures: a delivery whose attempts fail slowly still makes its last attempt a second before the
// end, when the outage may be over, unless the attempt before lasts until then.
func TestSlowFailures(t *testing.T) {
	const took = 10 * time.Second
	for range 50 { // pauses are random
		synctest.Test(t, func(t *testing.T) {
			w := &world{timeout: time.Minute}
			w.hang = func(string) error {
				if time.Since(w.began) <= w.timeout-took {
					time.Sleep(took)
				}
				return errLink
			}
			event := w.deliver(t)
			if last := w.tries[len(w.tries)-1]; event.Kind != impl.Undelivered || last+took < 59*time.Second {
				t.Errorf("%s, %v, tried after %v", event.Kind, event.Err, w.tries)
			}
		})
	}
}

// TestNoTurn: a delivery whose turn comes too late says so, and blames no upstream.
func TestNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		d := (&Deliverer{Watcher: w, Timeout: time.Minute, Fingerprint: strings.ToUpper}).Begin(impl.Request{Accepted: time.Now()})
		time.Sleep(time.Minute)
		if _, again := d.Try(t.Context()); again || len(w.events) != 1 || w.events[0].Kind != impl.Undelivered || !strings.Contains(w.events[0].Err.Error(), "its turn") {
			t.Errorf("%v, %+v", again, w.events)
		}
	})
}

// TestHang: if both upstreams hang for a minute, from any call on, no mail is lost, and at most one send has
// an unknown fate. A call that hangs ends after UPSTREAM_TIMEOUT.
func TestHang(t *testing.T) {
	for _, from := range []string{"link", "send"} {
		for _, noticed := range []time.Duration{time.Hour, 15 * time.Second} { // by the probes
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				var began time.Time
				hanging := false
				w.hang = func(call string) error {
					if call == from && began.IsZero() {
						began, hanging = time.Now(), true
					}
					if !hanging || call == "write" || time.Since(began) >= time.Minute {
						return nil
					}
					time.Sleep(5 * time.Second)
					if call == "link" {
						return fmt.Errorf("%w: no answer in time: %w", impl.ErrAuthUnavailable, context.DeadlineExceeded)
					}
					return errUnknown
				}
				w.resting = func() bool {
					since := time.Since(began)
					return hanging && since > noticed && since < 62*time.Second
				}
				event := w.deliver(t)
				sends := 0
				for _, call := range w.calls {
					if call == mailed {
						sends++
					}
				}
				if event.Kind != impl.Sent || sends > 2 {
					t.Errorf("from the %s on, noticed after %v: %s, %v, %d sends: %v", from, noticed, event.Kind, event.Err, sends, w.calls)
				}
				if event.Took > 2*time.Minute {
					t.Errorf("from the %s on, noticed after %v: mailed after %v", from, noticed, event.Took)
				}
			})
		}
	}
}

// TestResting: while the probes say that an upstream is down, a delivery makes no call. It looks again soon, not
// at the same moment as the others, and ends in time.
func TestResting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		w := &world{resting: func() bool { return time.Since(began) < 5*time.Minute }}
		event := w.deliver(t)
		if event.Kind != impl.Sent || len(w.tries) != 1 || w.tries[0] < 5*time.Minute || w.tries[0] > 5*time.Minute+2*time.Second {
			t.Errorf("%s, tried after %v", event.Kind, w.tries)
		}
		for _, pause := range w.pauses {
			if pause < time.Second || pause > 2*time.Second {
				t.Errorf("it looked again after %v", pause)
			}
		}
		if slices.Sort(w.pauses); len(slices.Compact(w.pauses)) < 100 {
			t.Errorf("pauses are the same: %v", w.pauses)
		}
	})
	for name, c := range map[string]struct {
		from time.Duration
		err  error
	}{"all the time": {from: 0}, "after an attempt": {from: time.Millisecond, err: impl.ErrAuthUnavailable}} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			w := &world{resting: func() bool { return time.Since(began) >= c.from }, links: []error{errLink}}
			event := w.deliver(t)
			if event.Kind != impl.Undelivered || c.err != nil && !errors.Is(event.Err, c.err) || event.Took != w.timeout || len(w.calls) > 1 {
				t.Errorf("%s: %s after %v: %v, %v", name, event.Kind, event.Took, event.Err, w.calls)
			}
		})
	}
}

// TestPanics: a panic ends only its own delivery, and no record repeats what it says.
func TestPanics(t *testing.T) {
	for _, call := range []string{"link", "write", "send", "test"} {
		synctest.Test(t, func(t *testing.T) {
			w := &world{panics: call}
			if call == "test" {
				w.sends = []error{errUnknown, nil}
			}
			want := impl.Undelivered
			if call == "send" || call == "test" { // after a send of unknown fate
				want = impl.Unconfirmed
			}
			event := w.deliver(t)
			if event.Kind != want || !strings.Contains(event.Err.Error(), "panic") || strings.Contains(event.Err.Error(), "@") {
				t.Errorf("%s: %s, %v", call, event.Kind, event.Err)
			}
			name := strings.Replace(call, "send", mailed, 1)
			if first := slices.Index(w.calls, name); first != len(w.calls)-1 {
				t.Errorf("%s: it went on: %v", call, w.calls)
			}
		})
	}
}

// TestMail: the mail carries the link of the link mode, and goes to the stored address.
func TestMail(t *testing.T) {
	for mode, link := range map[LinkMode]string{
		TokenHash:  redirectTo + "?token_hash=the%2Btoken&type=recovery",
		ActionLink: "https://auth.example.com/verify?token=t",
	} {
		synctest.Test(t, func(t *testing.T) {
			w := &world{mode: mode, replaced: true}
			event := w.deliver(t)
			if len(w.mails) != 1 || w.mails[0].Text != link || w.calls[2] != "send to "+stored {
				t.Errorf("%s: %+v, %v", mode, w.mails, w.calls)
			}
			if !event.Replaced {
				t.Errorf("%s: the event does not say that the redirect was replaced", mode)
			}
		})
	}
}

// TestURL: the token is in the part of the URL that the page reads.
func TestURL(t *testing.T) {
	link := &Link{TokenHash: "the+token", ActionLink: "https://auth.example.com/verify?token=t"}
	for page, want := range map[string]string{
		"https://a.example/reset":                "https://a.example/reset?token_hash=the%2Btoken&type=recovery",
		"https://a.example/confirm?next=/a":      "https://a.example/confirm?next=/a&token_hash=the%2Btoken&type=recovery",
		"https://a.example/#/reset":              "https://a.example/#/reset?token_hash=the%2Btoken&type=recovery",
		"https://a.example/?v=2#/reset":          "https://a.example/?v=2#/reset?token_hash=the%2Btoken&type=recovery",
		"https://a.example/?v=2#/reset?lang=de":  "https://a.example/?v=2#/reset?lang=de&token_hash=the%2Btoken&type=recovery",
		"https://a.example/app#!/reset?lang=de&": "https://a.example/app#!/reset?lang=de&&token_hash=the%2Btoken&type=recovery",
	} {
		if got := TokenHash.URL(link, page); got != want {
			t.Errorf("%s: %s, want %s", page, got, want)
		}
		if got := ActionLink.URL(link, page); got != link.ActionLink {
			t.Errorf("%s: %s, want Supabase's own", page, got)
		}
	}
}

// TestNothingIsTold: the error at the end of a delivery contains no address, link or token.
func TestNothingIsTold(t *testing.T) {
	for _, w := range []*world{
		{links: []error{errLink}}, {links: []error{errAccount}}, {sends: []error{errMessage}}, {sends: []error{errUnknown}},
		{panics: "link"}, {panics: "send"}, {resting: func() bool { return true }},
	} {
		synctest.Test(t, func(t *testing.T) {
			event := w.deliver(t)
			for _, private := range []string{"@", "://", token, "xample"} {
				if strings.Contains(event.Err.Error(), private) {
					t.Errorf("it tells %q: %v", private, event.Err)
				}
			}
		})
	}
}

// TestEnd: a delivery without a further attempt reports what is known of its mail: Mailgun accepted none, or
// its fate is unknown.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stopped := errors.New("the server has stopped")
		for _, c := range []struct {
			sends     []error
			end, want impl.EventKind
		}{
			{sends: []error{errSend}, end: impl.Undelivered, want: impl.Undelivered},
			{sends: []error{errSend}, end: impl.Suppressed, want: impl.Suppressed},
			{sends: []error{errUnknown}, end: impl.Undelivered, want: impl.Unconfirmed},
			{sends: []error{errUnknown}, end: impl.Suppressed, want: impl.Unconfirmed},
		} {
			w := &world{t: t, sends: c.sends}
			d := (&Deliverer{
				Links: w, Mailer: w, Writer: w, Watcher: w, Resting: func() bool { return false },
				Timeout: time.Minute, MaxLinkAge: time.Minute, Fingerprint: strings.ToUpper,
			}).Begin(impl.Request{ID: "id", Email: asked, RedirectTo: redirectTo, Language: "de", Accepted: time.Now()})
			if _, again := d.Try(t.Context()); !again {
				t.Fatal("it ended")
			}
			d.End(c.end, stopped)
			if len(w.events) != 1 || w.events[0].Kind != c.want || !errors.Is(w.events[0].Err, stopped) || errors.Is(w.events[0].Err, ErrFateUnknown) != (c.want == impl.Unconfirmed) || w.events[0].Tries != 1 {
				t.Errorf("%+v, want %s", w.events, c.want)
			}
		}
	})
}
