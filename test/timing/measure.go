package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resetd/resetd/test/measure"
)

// moment is the time of a request that is timed. The zero moment is the first request, which is for an account or
// an unknown address. The others are later, for unknown addresses.
type moment struct {
	after time.Duration // since the first request was sent
	other bool          // on the other connection
}

// measured is the result of one row.
type measured struct {
	mu      sync.Mutex
	times   map[moment][]observation
	answers map[string]int // answers by count: all must be the same
}

func newMeasured() *measured {
	return &measured{times: map[moment][]observation{}, answers: map[string]int{}}
}

func (m *measured) add(at moment, took time.Duration, account bool, cluster int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.times[at] = append(m.times[at], observation{took, account, cluster})
}

func (m *measured) came(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers[what]++
}

// beside runs work n times concurrently. The first error ends the context of the others.
func beside(ctx context.Context, n int, work func(ctx context.Context, number int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for number := range n {
		all.Go(func() {
			if err := work(ctx, number); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// think is the longest pause of a connection between its chains, so that connections do not run in step.
const think = 100 * time.Millisecond

// chains sends 2n requests for an account or an unknown address, at random, and after each further ones for
// unknown addresses at the given moments, on as many connections as the rate needs.
func chains(ctx context.Context, subjects []*subject, o options, _ row, moments []moment, n int) (*measured, error) {
	var last time.Duration
	requests := 1
	for _, at := range moments {
		last = max(last, at.after)
		if at != own {
			requests++
		}
	}
	connections := int(float64(o.rate) * (last + think/2).Seconds() / float64(requests))
	m := newMeasured()
	var chain atomic.Int64
	return m, beside(ctx, max(1, connections), func(ctx context.Context, number int) error {
		c := newChainer(m, subjects[number%len(subjects)])
		defer c.close()
		for measure.Pause(ctx, rand.N(think)) {
			cluster := int(chain.Add(1))
			if cluster > 2*n {
				break
			}
			if err := c.chain(ctx, moments, cluster); err != nil {
				return err
			}
		}
		return nil
	})
}

// chainer is one client with two connections.
type chainer struct {
	*measured
	subject     *subject
	same, other connection
}

func newChainer(m *measured, s *subject) *chainer {
	return &chainer{m, s, connection{target: s.Addr}, connection{target: s.Addr}}
}

func (c *chainer) close() {
	c.same.close()
	c.other.close()
}

func (c *chainer) chain(ctx context.Context, moments []moment, cluster int) error {
	// It is opened here, so that no moment is late because of it.
	if err := c.other.open(); err != nil {
		return err
	}
	if err := c.same.open(); err != nil {
		return err
	}
	address, account := c.subject.people.Next()
	began := time.Now()
	for _, at := range inTime(moments) {
		connection := &c.same
		if at.other {
			connection = &c.other
		}
		if at != own {
			address = c.subject.people.Of(false)
			if !measure.Pause(ctx, time.Until(began.Add(at.after))) {
				return nil
			}
		}
		answer, err := connection.ask(address)
		if err != nil {
			return err
		}
		c.came(answer.String())
		c.add(at, answer.took, account, cluster)
	}
	return nil
}

// inTime returns the first request and the moments in the order of time; those of the same time in random order.
func inTime(moments []moment) []moment {
	result := []moment{own}
	for _, at := range moments {
		if at != own {
			result = append(result, at)
		}
	}
	later := result[1:]
	rand.Shuffle(len(later), func(i, j int) { later[i], later[j] = later[j], later[i] })
	slices.SortStableFunc(later, func(a, b moment) int { return cmp.Compare(a.after, b.after) })
	return result
}

// burstOf is how many requests a burst has. One of them is for an account.
const burstOf = 40

// bursts sends bursts of burstOf requests at once, n/2 times.
func bursts(ctx context.Context, subjects []*subject, _ options, _ row, _ []moment, n int) (*measured, error) {
	m := newMeasured()
	var burst atomic.Int64
	return m, beside(ctx, len(subjects), func(ctx context.Context, number int) error {
		s := subjects[number]
		connections := make([]connection, burstOf)
		for i := range connections {
			connections[i].target = s.Addr
			defer connections[i].close()
		}
		for measure.Pause(ctx, think+rand.N(think)) {
			cluster := int(burst.Add(1))
			if cluster > max(1, n/2) {
				break
			}
			if err := s.burst(ctx, m, connections, cluster); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *subject) burst(ctx context.Context, m *measured, connections []connection, cluster int) error {
	target := rand.N(len(connections))
	for i := range connections {
		if err := connections[i].open(); err != nil {
			return err
		}
	}
	now := make(chan struct{})
	time.AfterFunc(10*time.Millisecond, func() { close(now) }) // by then all wait for it
	return beside(ctx, len(connections), func(_ context.Context, number int) error {
		account := number == target
		address := s.people.Of(account)
		<-now
		answer, err := connections[number].ask(address)
		if err != nil {
			return err
		}
		m.came(answer.String())
		m.add(own, answer.took, account, cluster)
		return nil
	})
}

// sequence describes the requests of a trial: the first ones for accounts or for unknown addresses, the next ones
// for unknown addresses.
type sequence struct {
	first   int           // requests
	wait    time.Duration // after them
	next    int           // requests that are timed
	every   time.Duration // from one of them to the next
	length  time.Duration // of a trial, from the last of the first requests, at least
	restart bool          // at the end, ask another instance that has just started
}

// sequences runs trials until n answers of each kind are timed.
func sequences(ctx context.Context, subjects []*subject, _ options, r row, moments []moment, n int) (*measured, error) {
	pairs := max(len(subjects), n/r.sequence.next)
	m := newMeasured()
	var pair atomic.Int64
	return m, beside(ctx, len(subjects), func(ctx context.Context, number int) error {
		for measure.Pause(ctx, rand.N(think)) {
			cluster := int(pair.Add(1))
			if cluster > pairs {
				break
			}
			// Each kind has one trial at nearly the same time, on the same resetd.
			account := rand.N(2) == 0
			for range 2 {
				if err := subjects[number].trial(ctx, m, r.sequence, moments[0], account, cluster); err != nil {
					return err
				}
				account = !account
			}
		}
		return nil
	})
}

func (s *subject) trial(ctx context.Context, m *measured, q sequence, at moment, account bool, cluster int) error {
	if err := s.standIns.Forget(); err != nil {
		return err
	}
	var came runs
	c := connection{target: s.Addr}
	defer c.close()
	for range q.first {
		answer, err := c.ask(s.people.Of(account))
		if err != nil {
			return err
		}
		came.add(answer)
	}
	end := time.Now().Add(q.length)
	if !measure.Pause(ctx, q.wait) {
		return nil
	}
	for range q.next {
		answer, err := c.ask(s.people.Of(false))
		if err != nil {
			return err
		}
		came.add(answer)
		m.add(at, answer.took, account, cluster)
		if !measure.Pause(ctx, q.every/2+rand.N(q.every)) {
			return nil
		}
	}
	if q.restart {
		answer, err := s.askAnother(ctx)
		if err != nil {
			return err
		}
		came.add(answer)
	}
	m.came(came.String())
	measure.Pause(ctx, time.Until(end))
	return nil
}

// askAnother sends a request to a second instance of resetd, which starts with the same stand-ins.
func (s *subject) askAnother(ctx context.Context) (answer, error) {
	another, err := s.startResetd(ctx)
	if err != nil {
		return answer{}, err
	}
	defer another.Stop()
	c := connection{target: another.Addr}
	defer c.close()
	return c.ask(s.people.Of(false))
}

// runs writes answers down, with equal neighbours as one.
type runs struct {
	before string
	last   string
	n      int
}

func (r *runs) add(a answer) {
	if what := a.String(); what != r.last {
		*r = runs{before: r.String(), last: what}
	}
	r.n++
}

func (r *runs) String() string {
	if r.n == 0 {
		return ""
	}
	return r.before + fmt.Sprintf("%s (%d times) ", r.last, r.n)
}
