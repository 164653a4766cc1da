package impl

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// scripted is an upstream's answers to one question, in order; the last one goes on.
type scripted struct {
	replies []scriptedReply
	asked   []time.Duration // after the beginning
	began   time.Time
}

type scriptedReply struct {
	after time.Duration
	value string
	err   error
}

func (s *scripted) ask(ctx context.Context) (string, error) {
	if s.began.IsZero() {
		s.began = time.Now()
	}
	s.asked = append(s.asked, time.Since(s.began))
	r := s.replies[min(len(s.asked), len(s.replies))-1]
	select {
	case <-time.After(r.after):
		return r.value, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func answersAfter(d time.Duration, value string) scriptedReply { return scriptedReply{d, value, nil} }
func failsAfter(d time.Duration, err error) scriptedReply      { return scriptedReply{d, "", err} }

var (
	errAsk     = errors.New("of the question")
	errControl = errors.New("of the control question")
)

const ms = time.Millisecond

// TestSettle: what is decided, when, and whether the control question was needed.
func TestSettle(t *testing.T) {
	for _, c := range []struct {
		name         string
		ask, control scriptedReply
		value        string
		err          error // nil, errControl or errAlone
		after        time.Duration
		controlAt    time.Duration // -1: never
	}{
		{"answered", answersAfter(10*ms, "yes"), answersAfter(1*ms, ""), "yes", nil, 10 * ms, -1},
		{"fails, and the control question is answered", failsAfter(10*ms, errAsk), answersAfter(5*ms, ""), "", errAlone, 15 * ms, 10 * ms},
		{"both fail", failsAfter(10*ms, errAsk), failsAfter(5*ms, errControl), "", errControl, 15 * ms, 10 * ms},
		{"late, and answered before the control question", answersAfter(110*ms, "late"), answersAfter(50*ms, ""), "late", nil, 110 * ms, 100 * ms},
		{"late, and answered after it", answersAfter(200*ms, "late"), answersAfter(50*ms, ""), "", errAlone, 150 * ms, 100 * ms},
		{"late, answered after the control question failed", answersAfter(200*ms, "late"), failsAfter(50*ms, errControl), "late", nil, 200 * ms, 100 * ms},
		{"fails late, before the control question fails", failsAfter(120*ms, errAsk), failsAfter(50*ms, errControl), "", errControl, 150 * ms, 100 * ms},
		{"fails late, after the control question failed", failsAfter(300*ms, errAsk), failsAfter(50*ms, errControl), "", errControl, 300 * ms, 100 * ms},
		{"fails late, before the control question is answered", failsAfter(120*ms, errAsk), answersAfter(50*ms, ""), "", errAlone, 150 * ms, 100 * ms},
		{"all hangs until its own deadline", failsAfter(time.Second, context.DeadlineExceeded), failsAfter(time.Second, errControl), "", errControl, 1100 * ms, 100 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ask, control := &scripted{replies: []scriptedReply{c.ask}}, &scripted{replies: []scriptedReply{c.control}}
				began := time.Now()
				value, _, err := settle(t.Context(), 100*ms, nil, ask.ask, control.ask)
				took := time.Since(began)
				synctest.Wait()
				if value != c.value || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
					t.Errorf("%q, %v; want %q, %v", value, err, c.value, c.err)
				}
				if took != c.after {
					t.Errorf("decided after %v, want %v", took, c.after)
				}
				if isShown(err) != (c.err == errControl) {
					t.Errorf("%v is shown: %v", err, isShown(err))
				}
				if isShown(err) && errors.Is(err, errAsk) {
					t.Errorf("what is shown has to do with the address: %v", err)
				}
				switch {
				case c.controlAt < 0 && len(control.asked) > 0:
					t.Error("the control question was asked")
				case c.controlAt >= 0 && len(control.asked) != 1:
					t.Errorf("the control question was asked %d times", len(control.asked))
				case c.controlAt >= 0 && control.began.Sub(began) != c.controlAt:
					t.Errorf("the control question was asked after %v, want %v", control.began.Sub(began), c.controlAt)
				}
				time.Sleep(time.Minute) // what is under way ends by itself
			})
		})
	}
}

// TestSettleGoesOn: the rest of a question begins with the answer that is still to come.
func TestSettleGoesOn(t *testing.T) {
	for _, c := range []struct {
		name  string
		ask   []scriptedReply
		value string
		asked int
		after time.Duration
	}{
		{"with the first answer", []scriptedReply{answersAfter(500*ms, "late"), answersAfter(0, "second")}, "late", 1, 500 * ms},
		{"with a second question, the first having failed late", []scriptedReply{failsAfter(500*ms, errAsk), answersAfter(10*ms, "second")}, "second", 2, 530 * ms},
		{"with a second question, the first having failed early", []scriptedReply{failsAfter(0, errAsk), answersAfter(10*ms, "second")}, "second", 2, 15 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ask, control := &scripted{replies: c.ask}, &scripted{replies: []scriptedReply{answersAfter(5*ms, "")}}
				began := time.Now()
				_, rest, err := settle(t.Context(), 100*ms, nil, ask.ask, control.ask)
				if !errors.Is(err, errAlone) {
					t.Fatalf("settled with %v", err)
				}
				value, err := retry(t.Context(), maxTries, maxTimeouts, rest)
				if value != c.value || err != nil || len(ask.asked) != c.asked {
					t.Errorf("%q, %v after %d questions; want %q after %d", value, err, len(ask.asked), c.value, c.asked)
				}
				// A pause is 20 ms, half more or less.
				if took := time.Since(began); took < c.after-10*ms || took > c.after+20*ms {
					t.Errorf("took %v, want about %v", took, c.after)
				}
			})
		})
	}
}

// TestSettlePanics: a panic beside the server's own goroutine is an error, and what it holds is
// not repeated.
func TestSettlePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panics := func(context.Context) (string, error) { panic("known@example.com") }
		fine := func(context.Context) (string, error) { return "", nil }
		_, _, alone := settle(t.Context(), time.Second, nil, panics, fine)
		_, _, shown := settle(t.Context(), time.Second, nil, panics, panics)
		if !errors.Is(alone, errAlone) || !isShown(shown) {
			t.Errorf("alone: %v; for everyone: %v", alone, shown)
		}
		for _, err := range []error{alone, shown} {
			if strings.Contains(err.Error(), "@") {
				t.Errorf("the error repeats the panic: %v", err)
			}
		}
	})
}

// TestRetry: how often, how long, and what is not repeated.
func TestRetry(t *testing.T) {
	timedOut := errors.Join(ErrEmailDelivery, context.DeadlineExceeded)
	for _, c := range []struct {
		name    string
		replies []scriptedReply
		tries   uint
		asked   int
		fine    bool
	}{
		{"answered at once", []scriptedReply{answersAfter(0, "")}, maxTries, 1, true},
		{"every third fails", []scriptedReply{failsAfter(0, errAsk), answersAfter(0, "")}, maxTries, 2, true},
		{"answered at last", []scriptedReply{
			failsAfter(0, errAsk), failsAfter(0, errAsk), failsAfter(0, errAsk), failsAfter(0, errAsk),
			failsAfter(0, errAsk), failsAfter(0, errAsk), failsAfter(0, errAsk), answersAfter(0, ""),
		}, maxTries, 8, true},
		{"never answered", []scriptedReply{failsAfter(0, errAsk)}, maxTries, maxTries, false},
		{"tried twice", []scriptedReply{failsAfter(0, errAsk)}, 2, 2, false},
		// Mailgun may have accepted what it did not answer.
		{"timed out once", []scriptedReply{failsAfter(time.Second, timedOut), answersAfter(0, "")}, maxTries, 2, true},
		{"timed out twice", []scriptedReply{failsAfter(time.Second, timedOut)}, maxTries, 2, false},
		{"timed out twice, with another fault between", []scriptedReply{
			failsAfter(time.Second, timedOut), failsAfter(0, errAsk), failsAfter(time.Second, timedOut), answersAfter(0, ""),
		}, maxTries, 3, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ask := &scripted{replies: c.replies}
				_, err := retry(t.Context(), c.tries, maxTimeouts, ask.ask)
				if (err == nil) != c.fine || len(ask.asked) != c.asked {
					t.Errorf("asked %d times, %v; want %d times, and success %v", len(ask.asked), err, c.asked, c.fine)
				}
			})
		})
	}
}

// TestRetryEnds: the deadline of the job ends it, in a pause too.
func TestRetryEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*ms)
		defer cancel()
		began := time.Now()
		ask := &scripted{replies: []scriptedReply{failsAfter(0, errAsk)}}
		if _, err := retry(ctx, 1000, maxTimeouts, ask.ask); err == nil {
			t.Error("no error")
		}
		if took := time.Since(began); took > 100*ms {
			t.Errorf("took %v, with 100 ms", took)
		}
	})
}

// TestDeferred: a bounded number at once, and all are waited for.
func TestDeferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeferred(2)
		work := func() { time.Sleep(time.Second) }
		for range 10 { // places become free again
			if !d.start(work) {
				t.Fatal("none is allowed")
			}
			time.Sleep(2 * time.Second)
		}
		for range 2 {
			if !d.start(work) {
				t.Fatal("too few are allowed")
			}
		}
		if d.start(work) {
			t.Error("a third is allowed")
		}
		soon, cancel := context.WithTimeout(t.Context(), 100*ms)
		defer cancel()
		if err := d.wait(soon); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting too short a time: %v", err)
		}
		began := time.Now()
		if err := d.wait(t.Context()); err != nil || time.Since(began) != 900*ms {
			t.Errorf("waited %v: %v", time.Since(began), err)
		}
	})
}

// TestMadeUp: the control question's address can have no account, and is never the same.
func TestMadeUp(t *testing.T) {
	a, b := Nobody(), Nobody()
	if a == b || !strings.HasSuffix(a, ".invalid") || strings.Count(a, "@") != 1 {
		t.Errorf("%s, %s", a, b)
	}
	if len(made(28)) != tokenHashLength {
		t.Errorf("%d digits", len(made(28)))
	}
}
