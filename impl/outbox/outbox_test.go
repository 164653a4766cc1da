package outbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resetd/resetd/impl"
)

// world records what deliveries do, and how they end.
type world struct {
	t *testing.T
	// try is the nth attempt of a request, from 1. nil: it delivers at once.
	try func(ctx context.Context, request impl.Request, n int) (pause time.Duration, again bool)

	mu       sync.Mutex
	began    time.Time
	accepted map[string]bool
	attempts []attempt
	ends     map[string]string // by request id
	givenUp  int
	running  map[string]string // account: id
	most     int               // attempts at the same time
}

type attempt struct {
	id string
	at time.Duration
}

func newWorld(t *testing.T) *world {
	return &world{t: t, began: time.Now(), accepted: map[string]bool{}, ends: map[string]string{}, running: map[string]string{}}
}

// open starts an outbox with room for everything, unless change says otherwise.
func (w *world) open(change func(*Config)) *Outbox {
	config := Config{
		Begin: func(r impl.Request) Delivery { return &delivery{world: w, request: r} }, MaxAccepted: 10_000, MaxPending: 10_000, MaxAtOnce: 8,
		GivenUp: func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.givenUp++
		},
	}
	if change != nil {
		change(&config)
	}
	return New(config)
}

type delivery struct {
	*world
	request impl.Request
	n       int
}

func (d *delivery) Try(ctx context.Context) (time.Duration, bool) {
	account := d.request.Account()
	d.mu.Lock()
	if other := d.running[account]; other != "" {
		d.t.Errorf("attempts of %s and %s at once", other, d.request.ID)
	}
	if end := d.ends[d.request.ID]; end != "" {
		d.t.Errorf("%s is tried after its end: %s", d.request.ID, end)
	}
	d.running[account] = d.request.ID
	d.most = max(d.most, len(d.running))
	d.n++
	d.attempts = append(d.attempts, attempt{d.request.ID, time.Since(d.began)})
	d.mu.Unlock()
	var pause time.Duration
	var again bool
	if d.try != nil {
		pause, again = d.try(ctx, d.request, d.n)
	}
	d.mu.Lock()
	delete(d.running, account)
	d.mu.Unlock()
	if !again {
		d.end("delivered")
	}
	return pause, again
}

func (d *delivery) End(outcome impl.EventKind, reason error) {
	d.mu.Lock()
	if d.running[d.request.Account()] == d.request.ID {
		d.t.Errorf("%s is ended while it is tried", d.request.ID)
	}
	d.mu.Unlock()
	d.end(fmt.Sprintf("%s: %v", outcome, reason))
}

func (d *delivery) end(how string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if before, twice := d.ends[d.request.ID]; twice {
		d.t.Errorf("%s ended as %s, and as %s", d.request.ID, before, how)
	}
	d.ends[d.request.ID] = how
}

// put calls Admit and Put for a request, whose id is its account and a number.
func (w *world) put(o *Outbox, id string) error {
	account, _, _ := strings.Cut(id, "-")
	err := o.Admit()
	if err == nil {
		err = o.Put(w.t.Context(), impl.Request{ID: id, Email: account + "@example.com", Accepted: time.Now()})
	}
	if err == nil {
		w.mu.Lock()
		w.accepted[id] = true
		w.mu.Unlock()
	} else if !errors.Is(err, impl.ErrOverloaded) {
		w.t.Errorf("%s: %v", id, err)
	}
	return err
}

func (w *world) mustPut(o *Outbox, ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		if err := w.put(o, id); err != nil {
			w.t.Errorf("%s: %v", id, err)
		}
	}
}

// wantEnds checks the ends of all accepted requests.
func (w *world) wantEnds(want map[string]string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !maps.Equal(w.ends, want) {
		w.t.Errorf("the ends are %q\nwant         %q", w.ends, want)
	}
}

// wantAllEnded checks that each accepted request has ended once.
func (w *world) wantAllEnded() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var lost []string
	for id := range w.accepted {
		if w.ends[id] == "" {
			lost = append(lost, id)
		}
	}
	if len(lost) > 0 || len(w.ends) != len(w.accepted) {
		w.t.Errorf("%d ends of %d requests; %d have no end: %v…", len(w.ends), len(w.accepted), len(lost), lost[:min(3, len(lost))])
	}
}

func (w *world) allTried() []attempt {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.attempts)
}

func (w *world) tried(id string) (at []time.Duration) {
	for _, a := range w.allTried() {
		if a.id == id {
			at = append(at, a.at)
		}
	}
	return at
}

func closeIt(t *testing.T, o *Outbox) {
	t.Helper()
	if err := o.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

const (
	delivered  = "delivered"
	suppressed = "suppressed: a newer request for the account took its place"
	full       = "undelivered: too many requests are pending"
	stopped    = "undelivered: the server has stopped"
)

// hangs is an attempt that ends only when it is cancelled.
func hangs(ctx context.Context, _ impl.Request, _ int) (time.Duration, bool) {
	<-ctx.Done()
	return time.Second, true
}

// fails is an attempt that asks for another one, again and again.
func fails(context.Context, impl.Request, int) (time.Duration, bool) { return 30 * time.Second, true }

// TestAdmission: admission depends only on how many requests were admitted within the last 10 s. The ends of
// earlier requests change no answer.
func TestAdmission(t *testing.T) {
	const maxAccepted = 5
	for name, c := range map[string]struct {
		try        func(context.Context, impl.Request, int) (time.Duration, bool)
		maxPending int
		accounts   int
	}{
		"all are delivered at once":        {try: nil, maxPending: 1000, accounts: 1000},
		"all fail again and again":         {try: fails, maxPending: 1000, accounts: 1000},
		"all hang":                         {try: hangs, maxPending: 1000, accounts: 1000},
		"all fail, and there is no memory": {try: fails, maxPending: 3, accounts: 1000},
		"all hang, and there is no memory": {try: hangs, maxPending: 3, accounts: 1000},
		"all are for one account":          {try: fails, maxPending: 1000, accounts: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.try = c.try
				o := w.open(func(config *Config) { config.MaxAccepted, config.MaxPending = maxAccepted, c.maxPending })
				var taken []time.Time
				for i := range 600 { // 10 minutes
					inWindow := 0
					for _, at := range taken {
						if time.Since(at) < Window {
							inWindow++
						}
					}
					began := time.Now()
					err := w.put(o, fmt.Sprintf("a%d-%d", i%c.accounts, i))
					if (err == nil) != (inWindow < maxAccepted) {
						t.Errorf("after %v, with %d of the last 10 s: %v", time.Since(w.began), inWindow, err)
					}
					if err == nil {
						taken = append(taken, time.Now())
					}
					if waited := time.Since(began); waited != 0 {
						t.Errorf("Put took %v", waited)
					}
					time.Sleep(time.Second + time.Duration(i%7-3)*100*time.Millisecond)
				}
				if len(taken) < 250 || len(taken) > 310 {
					t.Errorf("%d were let in within 10 minutes, want five each 10 s", len(taken))
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_ = o.Close(ctx)
				w.wantAllEnded()
			})
		})
	}
}

// TestPutWaitsForNothing: a log or a metric that hangs at the end of a delivery delays no answer, and however
// long it hangs, at most MaxAccepted requests wait for it.
func TestPutWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.try = fails
		o := w.open(func(config *Config) {
			config.MaxAccepted, config.MaxPending = 20, 1
			config.GivenUp = func() { time.Sleep(time.Minute) }
		})
		taken := 0
		for i := range 500 { // in 50 s
			began := time.Now()
			if w.put(o, fmt.Sprintf("a%d-1", i)) == nil {
				taken++
			} else if i < 20 {
				t.Errorf("request %d was refused", i)
			}
			if waited := time.Since(began); waited != 0 {
				t.Errorf("Put took %v", waited)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if taken > 2+20 { // two are not among those that wait
			t.Errorf("%d were taken", taken)
		}
		time.Sleep(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = o.Close(ctx)
		w.wantAllEnded()
	})
}

// TestAtOnce: as many deliveries run at once as are allowed, and no more.
func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.try = func(context.Context, impl.Request, int) (time.Duration, bool) {
			time.Sleep(2 * time.Second)
			return 0, false
		}
		o := w.open(func(config *Config) { config.MaxAtOnce = 3 })
		for i := range 30 {
			w.mustPut(o, fmt.Sprintf("a%d-1", i))
		}
		time.Sleep(22 * time.Second) // 30 deliveries of 2 s, three at once; the first one may begin after a second
		if number, _ := o.Pending(); number != 0 {
			t.Errorf("%d are pending", number)
		}
		closeIt(t, o)
		if w.most != 3 {
			t.Errorf("%d at once", w.most)
		}
		w.wantAllEnded()
	})
}

// TestPauses: the next attempt begins after the pause that the last attempt asked for.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		pauses := []time.Duration{0, 500 * time.Millisecond, 7 * time.Second, time.Minute}
		w.try = func(_ context.Context, _ impl.Request, n int) (time.Duration, bool) {
			time.Sleep(time.Second)
			if n > len(pauses) {
				return 0, false
			}
			return pauses[n-1], true
		}
		o := w.open(nil)
		w.mustPut(o, "a-1", "b-1")
		time.Sleep(3 * time.Minute)
		for _, id := range []string{"a-1", "b-1"} {
			at := w.tried(id)
			if len(at) != len(pauses)+1 {
				t.Fatalf("%s was tried after %v", id, at)
			}
			for i, pause := range pauses {
				if got := at[i+1] - at[i] - time.Second; got != pause {
					t.Errorf("%s: pause %d was %v, want %v", id, i+1, got, pause)
				}
			}
		}
		closeIt(t, o)
		w.wantEnds(map[string]string{"a-1": delivered, "b-1": delivered})
	})
}

// TestOneOfAccount: of the requests for one account only the newest is pending, at the place of the oldest. Each
// accepted request ends once.
func TestOneOfAccount(t *testing.T) {
	t.Run("before it begins", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			o := w.open(nil)
			var want string
			for i := 0; len(w.tried(want)) == 0; i++ { // new requests postpone nothing
				if time.Since(w.began) > time.Second {
					t.Fatal("nothing has begun within a second")
				}
				want = fmt.Sprintf("a-%d", i)
				w.mustPut(o, want)
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
			}
			closeIt(t, o)
			w.wantAllEnded()
			for id, end := range w.ends {
				if (end == delivered) != (id == want) || id != want && end != suppressed {
					t.Errorf("%s: %s", id, end)
				}
			}
		})
	})
	t.Run("while it waits for the next attempt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.try = func(_ context.Context, request impl.Request, _ int) (time.Duration, bool) {
				return 30 * time.Second, request.ID == "a-1"
			}
			o := w.open(nil)
			w.mustPut(o, "a-1")
			time.Sleep(10 * time.Second)
			w.mustPut(o, "a-2")
			synctest.Wait()
			w.wantEnds(map[string]string{"a-1": suppressed})
			time.Sleep(30 * time.Second)
			first, second := w.tried("a-1"), w.tried("a-2")
			if len(first) != 1 || len(second) != 1 || second[0]-first[0] != 30*time.Second {
				t.Errorf("tried after %v, and after %v", first, second)
			}
			closeIt(t, o)
			w.wantEnds(map[string]string{"a-1": suppressed, "a-2": delivered})
		})
	})
	for name, c := range map[string]struct {
		again bool
		first string
	}{"while it is delivered": {again: false, first: delivered}, "while it fails": {again: true, first: suppressed}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.try = func(_ context.Context, request impl.Request, _ int) (time.Duration, bool) {
					if request.ID != "a-1" {
						return 0, false
					}
					time.Sleep(10 * time.Second)
					return 5 * time.Second, c.again
				}
				o := w.open(nil)
				w.mustPut(o, "a-1")
				time.Sleep(3 * time.Second)
				w.mustPut(o, "a-2", "A-3")
				time.Sleep(time.Second)
				w.mustPut(o, "a-4")
				if number, _ := o.Pending(); number != 1 {
					t.Errorf("%d are pending", number)
				}
				time.Sleep(20 * time.Second)
				closeIt(t, o)
				w.wantEnds(map[string]string{"a-1": c.first, "a-2": suppressed, "A-3": suppressed, "a-4": delivered})
				if at := w.tried("a-4"); len(at) != 1 {
					t.Errorf("the newest was tried after %v", at)
				}
			})
		})
	}
}

// TestMaxPending: if there is no room, the oldest request without a running attempt is given up. The operator is
// told, and it is not tried again.
func TestMaxPending(t *testing.T) {
	t.Run("those that wait for their next attempt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.try = fails
			o := w.open(func(config *Config) { config.MaxPending = 3 })
			for i := range 5 {
				w.mustPut(o, fmt.Sprintf("a%d-1", i))
				time.Sleep(2 * time.Second)
			}
			w.wantEnds(map[string]string{"a0-1": full, "a1-1": full})
			synctest.Wait()
			if number, oldest := o.Pending(); w.givenUp != 2 || number != 3 || !oldest.Equal(w.began.Add(4*time.Second)) {
				t.Errorf("%d are given up, and %d are pending since %v", w.givenUp, number, oldest.Sub(w.began))
			}
			w.mustPut(o, "a0-2") // whose account was given up
			time.Sleep(40 * time.Second)
			w.wantEnds(map[string]string{"a0-1": full, "a1-1": full, "a2-1": full})
			if at := w.tried("a0-2"); len(at) != 2 {
				t.Errorf("tried after %v", at)
			}
			w.try = nil
			closeIt(t, o)
			w.wantAllEnded()
		})
	})
	t.Run("those that wait for room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.try = func(context.Context, impl.Request, int) (time.Duration, bool) {
				time.Sleep(30 * time.Second)
				return 0, false
			}
			o := w.open(func(config *Config) { config.MaxPending, config.MaxAtOnce = 3, 1 })
			for i := range 5 {
				w.mustPut(o, fmt.Sprintf("a%d-1", i))
				time.Sleep(2 * time.Second)
			}
			w.wantEnds(map[string]string{"a1-1": full, "a2-1": full}) // a0 is being tried
			w.mustPut(o, "a1-2")
			time.Sleep(5 * time.Minute)
			closeIt(t, o)
			w.wantEnds(map[string]string{"a0-1": delivered, "a1-1": full, "a2-1": full, "a3-1": full, "a4-1": delivered, "a1-2": delivered})
			if w.givenUp != 3 {
				t.Errorf("%d were given up", w.givenUp)
			}
		})
	})
	t.Run("none can be given up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.try = func(context.Context, impl.Request, int) (time.Duration, bool) {
				time.Sleep(30 * time.Second)
				return 0, false
			}
			o := w.open(func(config *Config) { config.MaxPending = 2 })
			for i := range 3 {
				w.mustPut(o, fmt.Sprintf("a%d-1", i))
				time.Sleep(2 * time.Second)
			}
			closeIt(t, o)
			w.wantEnds(map[string]string{"a0-1": delivered, "a1-1": delivered, "a2-1": delivered})
		})
	})
}

// TestPending: Pending returns how many requests are pending, and since when.
func TestPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.try = func(_ context.Context, request impl.Request, n int) (time.Duration, bool) {
			return 10 * time.Second, request.ID == "a-1" && n == 1
		}
		o := w.open(nil)
		want := func(number int, since time.Duration) {
			t.Helper()
			synctest.Wait()
			got, oldest := o.Pending()
			if got != number || oldest.IsZero() != (number == 0) || number > 0 && !oldest.Equal(w.began.Add(since)) {
				t.Errorf("%d since %v, want %d since %v", got, oldest.Sub(w.began), number, since)
			}
		}
		want(0, 0)
		w.mustPut(o, "a-1")
		want(1, 0)
		time.Sleep(2 * time.Second) // a waits for its second attempt
		w.mustPut(o, "b-1")
		want(2, 0)
		time.Sleep(time.Second) // b is delivered
		want(1, 0)
		time.Sleep(10 * time.Second)
		want(0, 0)
		closeIt(t, o)
		want(0, 0)
	})
}

// TestDrain: Close tries everything without delay, with the usual number of deliveries at once, repeats what
// fails, and returns when nothing is left.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.try = func(_ context.Context, request impl.Request, n int) (time.Duration, bool) {
			time.Sleep(100 * time.Millisecond)
			switch {
			case strings.HasPrefix(request.ID, "waits"):
				return time.Hour, n == 1 && request.ID != "waits1-2"
			case strings.HasPrefix(request.ID, "fails"):
				return time.Second, n < 4
			}
			return 0, false
		}
		o := w.open(func(config *Config) { config.MaxAtOnce = 2 })
		w.mustPut(o, "waits1-1", "waits2-1", "waits3-1")
		time.Sleep(10 * time.Second) // all pause for an hour
		for i := range 4 {
			w.mustPut(o, fmt.Sprintf("new%d-1", i))
		}
		w.mustPut(o, "fails-1", "waits1-2")
		synctest.Wait()
		began := time.Now()
		closeIt(t, o)
		// Eight attempts of 100 ms, two at once, and three more of the failing request.
		if took := time.Since(began); took < 3*time.Second || took > 5*time.Second {
			t.Errorf("Close took %v", took)
		}
		if w.most > 2 {
			t.Errorf("%d at once", w.most)
		}
		want := map[string]string{"waits1-1": suppressed, "waits1-2": delivered, "waits2-1": delivered, "waits3-1": delivered, "fails-1": delivered}
		for i := range 4 {
			want[fmt.Sprintf("new%d-1", i)] = delivered
		}
		w.wantEnds(want)
		for range 3 {
			if err := w.put(o, "late-1"); !errors.Is(err, impl.ErrOverloaded) {
				t.Errorf("after Close: %v", err)
			}
		}
		w.wantEnds(want)
	})
}

// TestDrainPauses: while an outbox is drained, a failing request is tried every second, whatever pause its
// delivery asks for, so that a hiccup during a stop loses no mail.
func TestDrainPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.try = func(_ context.Context, _ impl.Request, n int) (time.Duration, bool) { return time.Minute, n < 4 }
		o := w.open(nil)
		w.mustPut(o, "a-1")
		began := time.Now()
		closeIt(t, o)
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("Close took %v", took)
		}
		w.wantEnds(map[string]string{"a-1": delivered})
	})
}

// TestDeadline: at its deadline Close cancels attempts, and reports and counts what is left, except for
// requests whose cancelled attempt has delivered.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.try = func(ctx context.Context, request impl.Request, _ int) (time.Duration, bool) {
			switch request.ID {
			case "fails-1":
				return time.Hour, true
			case "hangs-1", "more-1":
				<-ctx.Done()
				time.Sleep(time.Second) // its end takes some time
				return time.Second, true
			case "arrives-1":
				<-ctx.Done()
				return 0, false
			}
			return 0, false
		}
		o := w.open(func(config *Config) { config.MaxAtOnce = 3 })
		w.mustPut(o, "fails-1")
		time.Sleep(2 * time.Second)
		w.mustPut(o, "hangs-1", "arrives-1", "more-1")
		time.Sleep(2 * time.Second)
		w.mustPut(o, "waits-1", "more-2") // one waits for room, the other for its account's older request
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		began := time.Now()
		err := o.Close(ctx)
		if took := time.Since(began); took != 21*time.Second {
			t.Errorf("Close took %v", took)
		}
		if err == nil || !strings.Contains(err.Error(), "that are not delivered: 4") {
			t.Errorf("%v, want 4", err)
		}
		w.wantEnds(map[string]string{
			"fails-1": stopped, "hangs-1": stopped, "waits-1": stopped, "more-2": stopped,
			"arrives-1": delivered, "more-1": suppressed,
		})
		if number, _ := o.Pending(); number != 4 {
			t.Errorf("%d are pending", number)
		}
	})
}

// TestNoTimeLeft: a request that was accepted just before Close is reported too, even if the deadline has
// passed already.
func TestNoTimeLeft(t *testing.T) {
	for range 30 { // select chooses between two events at random
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.try = hangs
			o := w.open(nil)
			w.mustPut(o, "a-1")
			time.Sleep(2 * time.Second)
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			w.mustPut(o, "a-2", "b-1", "c-1")
			if err := o.Close(gone); err == nil || !strings.HasSuffix(err.Error(), ": 3") {
				t.Errorf("%v, want 3 that are not delivered", err)
			}
			w.wantEnds(map[string]string{"a-1": suppressed, "a-2": stopped, "b-1": stopped, "c-1": stopped})
		})
	}
}

// TestJustInTime: a request that was accepted just before Close is delivered.
func TestJustInTime(t *testing.T) {
	for range 30 { // select chooses between two events at random
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			o := w.open(nil)
			w.mustPut(o, "a-1")
			closeIt(t, o)
			w.wantEnds(map[string]string{"a-1": delivered})
		})
	}
}

// TestCloseUnused: an outbox without requests closes at once.
func TestCloseUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newWorld(t).open(nil)
		time.Sleep(time.Hour)
		began := time.Now()
		closeIt(t, o)
		if took := time.Since(began); took != 0 {
			t.Errorf("Close took %v", took)
		}
	})
}

// TestRandomSchedule: for random schedules, an account has one attempt at a time, no more than the allowed
// number run at once, and each accepted request ends once.
func TestRandomSchedule(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var mu sync.Mutex
				random := rand.New(rand.NewPCG(seed, 1))
				n := func(below int) int {
					mu.Lock()
					defer mu.Unlock()
					return random.IntN(below)
				}
				w.try = func(ctx context.Context, _ impl.Request, _ int) (time.Duration, bool) {
					select {
					case <-time.After(time.Duration(n(1500)) * time.Millisecond):
					case <-ctx.Done():
					}
					return time.Duration(n(3000)) * time.Millisecond, n(3) > 0
				}
				o := w.open(func(config *Config) {
					config.MaxAccepted, config.MaxPending, config.MaxAtOnce = 200, 12, 5
				})
				for i := range 1500 {
					_ = w.put(o, fmt.Sprintf("a%d-%d", n(20), i))
					if n(4) == 0 {
						time.Sleep(time.Duration(n(300)) * time.Millisecond)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n(30_000))*time.Millisecond)
				defer cancel()
				_ = o.Close(ctx)
				synctest.Wait()
				if w.most > 5 || w.most < 4 || len(w.accepted) < 300 {
					t.Errorf("%d at once, and %d were accepted: too many, or too few to find anything", w.most, len(w.accepted))
				}
				w.wantAllEnded()
			})
		})
	}
}

// sized is a delivery that takes as much memory as a real one.
type sized struct {
	request impl.Request
	state   [192]byte
	gate    <-chan struct{}
}

func (s *sized) Try(ctx context.Context) (time.Duration, bool) {
	s.state[0]++
	select {
	case <-s.gate:
	case <-ctx.Done():
	}
	return 0, false
}

func (s *sized) End(impl.EventKind, error) {}

// TestMemory: 10,000 pending requests take less than 40 MB, and none after they are delivered.
func TestMemory(t *testing.T) {
	memory := func() (heap, stacks int) {
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int(stats.HeapAlloc), int(stats.StackInuse)
	}
	const number = 10_000
	gate := make(chan struct{})
	o := New(Config{
		Begin:       func(r impl.Request) Delivery { return &sized{request: r, gate: gate} },
		MaxAccepted: number, MaxPending: number, MaxAtOnce: 8, GivenUp: func() { t.Error("one was given up") },
	})
	heapBefore, stacksBefore := memory()
	for i := range number {
		request := impl.Request{
			ID: fmt.Sprintf("%032d", i), Traceparent: fmt.Sprintf("00-%032d-%016d-01", i, i), Email: fmt.Sprintf("somebody.with.a.name.%d@mail.example.com", i),
			RedirectTo: fmt.Sprintf("https://app-%d.example.com/auth/reset-password", i), Language: strings.Clone("de-CH,de;q=0.9,en-US;q=0.8,en;q=0.7"),
			Accepted: time.Now(),
		}
		if err := o.Put(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	for { // until all have been due; then most wait for room
		if n, oldest := o.Pending(); n == number && time.Since(oldest) > maxStart+500*time.Millisecond {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	heap, stacks := memory()
	used := heap - heapBefore
	t.Logf("%d bytes a request", used/number)
	if all := used + stacks - stacksBefore; all > 40<<20 {
		t.Errorf("%d pending requests take %d bytes", number, all)
	}
	if used > number*2000 {
		t.Errorf("a pending request takes %d bytes, want about 1,000", used/number)
	}
	close(gate)
	closeIt(t, o)
	if heap, _ := memory(); heap-heapBefore > used/2 {
		t.Errorf("%d bytes are left when all are delivered", heap-heapBefore)
	}
	runtime.KeepAlive(o)
}

// TestOldestFirst: of the requests that wait for room, the oldest is next.
func TestOldestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.try = func(context.Context, impl.Request, int) (time.Duration, bool) {
			time.Sleep(time.Minute)
			return 0, false
		}
		o := w.open(func(config *Config) { config.MaxAtOnce = 1 })
		var want []string
		for i := range 10 {
			want = append(want, fmt.Sprintf("a%d-1", i))
			w.mustPut(o, want[i])
			time.Sleep(2 * time.Second)
		}
		time.Sleep(11 * time.Minute)
		var got []string
		for _, a := range w.allTried() {
			got = append(got, a.id)
		}
		if !slices.Equal(got, want) {
			t.Errorf("tried were %v", got)
		}
		closeIt(t, o)
	})
}
