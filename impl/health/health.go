// Package health probes the upstreams, and says whether they serve anybody.
//
// A probe asks an upstream a question about nobody, by a clock and over connections of its own. The outcome of
// real mail must not affect a verdict, because that would tell the next caller that there was an account. For
// the same reason this package must never import what can look up an account or send a mail.
package health

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/resetd/resetd/impl"
)

// Verdict is the result of a probe, in the words of the log and the metrics.
type Verdict string

// The verdicts. Callers are told KeyRefused and Down.
const (
	Unknown    Verdict = "unknown"     // no request has come for a while, so nothing was asked
	OK         Verdict = "ok"          // it serves
	Limited    Verdict = "limited"     // it refuses for a reason that real mail can bring about, such as a quota
	KeyRefused Verdict = "key_refused" // Supabase Auth refuses the key
	Down       Verdict = "down"        // it serves nobody
)

// Verdicts returns all verdicts.
func Verdicts() []Verdict { return []Verdict{Unknown, OK, Limited, KeyRefused, Down} }

// verdictOf judges the answer to a question about nobody. Errors other than the operation's own are
// for the operator only.
func verdictOf(err error) Verdict {
	switch {
	case err == nil:
		return OK
	case errors.Is(err, impl.ErrAuthNotConfigured):
		return KeyRefused
	case errors.Is(err, impl.ErrAuthUnavailable), errors.Is(err, impl.ErrEmailDelivery):
		return Down
	}
	return Limited
}

func (v Verdict) isShown() bool { return v == KeyRefused || v == Down }

// Probe says what to ask an upstream, and when.
type Probe struct {
	Upstream string // its name in the log and the metrics
	// Ask puts a question about nobody. It returns nil if the upstream serves; one of the
	// operation's errors if it serves nobody; and another error if callers must not be told. It
	// must return within a bound of its own.
	Ask func(ctx context.Context) error
	// Every is the time from one question to the next.
	Every time.Duration
	// OnDemand asks nothing while no request comes, because each question is billed. While the
	// upstream fails it asks nevertheless: deliveries wait for its return.
	OnDemand bool
	// Retry returns the time to the next question, where the upstream has been failing for a time.
	Retry func(failing time.Duration) time.Duration
}

// Supabase probes Supabase Auth. Its questions are free.
func Supabase(ask func(context.Context) error) Probe {
	return Probe{
		Upstream: "supabase", Ask: ask, Every: 5 * time.Second,
		Retry: func(time.Duration) time.Duration { return 2 * time.Second },
	}
}

// Mailgun probes Mailgun, which bills every message in test mode. While it fails, the next question
// follows after a twelfth of the time that it has failed: an outage of a minute is seen to end
// within 5 s, and a long one within 30 s.
func Mailgun(ask func(context.Context) error) Probe {
	return Probe{
		Upstream: "mailgun", Ask: ask, Every: time.Minute, OnDemand: true,
		Retry: func(failing time.Duration) time.Duration {
			return min(max(failing/12, 2*time.Second), 30*time.Second)
		},
	}
}

// Watcher records each change of a verdict. err is the answer to the question; nil for OK and Unknown.
type Watcher interface {
	Probed(upstream string, was, is Verdict, err error)
}

// Health holds the latest verdicts. Its methods may be called concurrently.
type Health struct {
	probers []*prober // in the order in which their verdicts count
	fixed   error
	watcher Watcher
	rest    time.Duration
	closed  context.Context //nolint:containedctx // of the process, and not of a request
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// New returns the health of the upstreams. Probes run from the first Check until none has come for
// rest, and then again from the next.
//
// rest must be longer than from a Check to the end of the delivery of its request. The first Check
// after a rest waits for an answer, and a lookup at the same time would slow down that answer on a
// small Supabase.
func New(watcher Watcher, rest time.Duration, probes ...Probe) *Health {
	h := &Health{watcher: watcher, rest: rest}
	h.closed, h.cancel = context.WithCancel(context.Background())
	for _, p := range probes {
		h.probers = append(h.probers, &prober{Probe: p, health: h, verdict: Unknown, demand: make(chan struct{}, 1)})
	}
	return h
}

// Fixed returns a health without probes that always says the same: for a server that lacks a setting.
func Fixed(err error) *Health { return &Health{fixed: err, cancel: func() {}} }

// Check returns what the latest verdicts say is wrong for everybody: nil, or one of the operation's errors. It
// waits only where there is no verdict yet, and then for two questions at most.
func (h *Health) Check() error {
	if h.fixed != nil {
		return h.fixed
	}
	for _, p := range h.probers { // all of them, so that they wait at the same time
		p.request()
	}
	for _, p := range h.probers {
		if err := p.shown(); err != nil {
			return err
		}
	}
	return nil
}

// Resting reports whether deliveries should rest, because an upstream serves nobody.
func (h *Health) Resting() bool {
	for _, p := range h.probers {
		p.mu.Lock()
		down := p.verdict.isShown()
		p.mu.Unlock()
		if down {
			return true
		}
	}
	return false
}

// Close ends the probes. Waiting calls of Check return.
func (h *Health) Close() {
	h.cancel()
	h.running.Wait()
}

// prober runs one probe.
type prober struct {
	Probe
	health *Health
	demand chan struct{} // has a value where a request has come since the last question

	mu        sync.Mutex
	requested time.Time     // when the latest request came
	known     chan struct{} // closed once there is a verdict; nil at rest
	verdict   Verdict
	err       error // the answer behind verdict
}

// request notes that a request has come, and ends a rest.
func (p *prober) request() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requested = time.Now()
	select {
	case p.demand <- struct{}{}:
	default:
	}
	if p.known == nil {
		p.known = make(chan struct{})
		p.health.running.Go(p.run)
	}
}

// shown returns what a caller is told, once there is a verdict.
func (p *prober) shown() error {
	p.mu.Lock()
	known := p.known
	p.mu.Unlock()
	if known != nil {
		<-known
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.verdict.isShown() {
		return p.err
	}
	return nil
}

// run asks until the next rest. It does not wait for one answer before the next question, so that
// an answer that never comes costs no time.
func (p *prober) run() {
	var (
		questions context.Context
		forget    = func() {}
		answers   chan error
		last      Verdict         // of the latest answer
		failing   time.Time       // since when no answer was good; zero: the latest was
		demanded  <-chan struct{} // p.demand where the next question waits for a request; else nil
	)
	drop := func() { // forgets the questions that are not answered yet
		forget()
		questions, forget = context.WithCancel(p.health.closed) //nolint:fatcontext // each is a new one, and not nested
		answers = make(chan error)                              // answers on their way are dropped too
	}
	ask := func() {
		select {
		case <-p.demand: // the question that follows answers it
		default:
		}
		ctx, answers := questions, answers // as they are now: drop replaces both
		go func() {
			err := p.ask(ctx)
			select {
			case answers <- err:
			case <-ctx.Done():
			}
		}()
	}
	drop()
	defer func() { forget() }()
	ask()
	next := time.NewTimer(p.Every)
	for {
		select {
		case err := <-answers:
			verdict, before := verdictOf(err), last
			last = verdict
			switch fails := verdict.isShown(); {
			case fails && failing.IsZero():
				// Hosted upstreams refuse good calls now and then, so one failure makes no verdict.
				failing, demanded = time.Now(), nil
				ask()
				next.Reset(p.Retry(0))
				continue
			case fails && p.verdict.isShown() && verdict != before: // only this goroutine writes p.verdict
				continue // another kind of failure counts when it comes twice
			case !fails && !failing.IsZero():
				failing = time.Time{}
				drop()
				next.Reset(p.Every)
			}
			p.set(verdict, err)
		case <-demanded:
			demanded = nil
			ask()
			next.Reset(p.Every)
		case <-next.C:
			left := p.untilRest()
			switch {
			case left <= 0:
				return
			case !failing.IsZero():
				ask()
				next.Reset(p.Retry(time.Since(failing)))
			case p.OnDemand && len(p.demand) == 0:
				demanded = p.demand
				next.Reset(left)
			default:
				ask()
				next.Reset(p.Every)
			}
		case <-p.health.closed.Done():
			p.mu.Lock()
			p.release()
			p.mu.Unlock()
			return
		}
	}
}

// ask puts the question. A panic is a bug here and no fault of the upstream, so callers are not told.
func (p *prober) ask(ctx context.Context) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("panic: %T", value) // the value may hold anything
		}
	}()
	return p.Ask(ctx)
}

// set stores a verdict, and tells the watcher of a change.
func (p *prober) set(verdict Verdict, err error) {
	p.mu.Lock()
	was := p.verdict
	p.verdict, p.err = verdict, err
	p.release()
	p.mu.Unlock()
	if verdict != was {
		p.health.watcher.Probed(p.Upstream, was, verdict, err)
	}
}

// release ends the waiting for a first verdict. The caller holds the lock.
func (p *prober) release() {
	select {
	case <-p.known:
	default:
		close(p.known)
	}
}

// untilRest returns the time until the probe rests. If that is now, it makes the probe rest.
func (p *prober) untilRest() time.Duration {
	p.mu.Lock()
	left := p.health.rest - time.Since(p.requested)
	was := p.verdict
	if left <= 0 {
		p.release()
		p.known, p.verdict, p.err = nil, Unknown, nil
	}
	p.mu.Unlock()
	if left <= 0 && was != Unknown {
		p.health.watcher.Probed(p.Upstream, was, Unknown, nil)
	}
	return left
}
