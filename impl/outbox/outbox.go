// Package outbox holds accepted requests in memory until they are delivered.
//
// It owns the number of requests that are let in, the start of each delivery, the number of deliveries at once, and
// the requests that are left at the stop. Admission must never depend on deliveries: requests for accounts stay
// longer than others, so a full outbox would tell who has an account.
package outbox

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resetd/resetd/impl"
)

// Delivery is one request on its way to its account. Its methods are never called at the same time.
type Delivery interface {
	// Try makes one attempt. It returns how long to wait before the next one, or false once the
	// delivery has ended.
	Try(ctx context.Context) (pause time.Duration, again bool)
	// End reports the outcome of a delivery that gets no further attempt.
	End(outcome impl.EventKind, reason error)
}

// Window is the time over which accepted requests are counted.
const Window = 10 * time.Second

// Config has the bounds of an outbox.
type Config struct {
	Begin       func(impl.Request) Delivery
	MaxAccepted int    // requests that are let in within Window
	MaxPending  int    // requests that are kept; beyond it the oldest is given up
	MaxAtOnce   int    // deliveries at once
	GivenUp     func() // is called for each request that MaxPending has ended
}

// Outbox keeps requests in memory and delivers them. Its methods may be called concurrently.
type Outbox struct {
	config Config

	// What Admit and Put touch.
	mu       sync.Mutex
	accepted []time.Time // when the last MaxAccepted requests were let in, a ring
	next     int         // the oldest of accepted
	closed   bool
	arrivals chan *entry

	// What run alone touches.
	pending    map[string]*entry // by account
	byAge      *list.List        // of *entry, the oldest first
	ready      []*entry          // entries that are due and wait for room, the first to be due first
	attempting int               // the number of running attempts
	draining   bool

	adopted  chan *entry // from Redis
	due      chan *entry
	attempts chan *entry // never blocks: it has room for MaxAtOnce
	results  chan result
	drain    chan struct{}
	cancel   context.CancelFunc // cuts attempts off
	ended    chan struct{}

	number atomic.Int64 // of pending
	oldest atomic.Int64 // when the oldest was accepted, in nanoseconds since 1970; 0: none
}

// entry is the one pending request of an account.
type entry struct {
	account    string
	accepted   time.Time
	delivery   Delivery
	newer      Delivery // came during an attempt
	attempting bool
	timer      *time.Timer // sends the entry to due
	age        *list.Element
}

// result is what Try returned.
type result struct {
	entry *entry
	pause time.Duration
	again bool
}

// New starts an outbox, which runs until Close.
func New(config Config) *Outbox {
	ctx, cancel := context.WithCancel(context.Background())
	o := &Outbox{
		config: config, accepted: make([]time.Time, config.MaxAccepted), arrivals: make(chan *entry, config.MaxAccepted),
		pending: map[string]*entry{}, byAge: list.New(), adopted: make(chan *entry), due: make(chan *entry), attempts: make(chan *entry, config.MaxAtOnce), results: make(chan result),
		drain: make(chan struct{}), cancel: cancel, ended: make(chan struct{}),
	}
	go o.run(ctx)
	return o
}

// Admit lets one request in. It returns impl.ErrOverloaded if MaxAccepted were let in within Window, and after
// Close.
func (o *Outbox) Admit() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	now, oldest := time.Now(), &o.accepted[o.next]
	if o.closed || !oldest.IsZero() && now.Sub(*oldest) < Window {
		return impl.ErrOverloaded
	}
	*oldest, o.next = now, (o.next+1)%len(o.accepted)
	return nil
}

// Put takes a request that was let in. It returns impl.ErrOverloaded if the outbox was closed meanwhile, or if run
// is a whole Window behind.
func (o *Outbox) Put(_ context.Context, request impl.Request) error {
	return o.keep(newEntry(&request, o.config.Begin(request)))
}

func (o *Outbox) keep(e *entry) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return impl.ErrOverloaded
	}
	select {
	case o.arrivals <- e:
		return nil
	default: // arrivals has room for MaxAccepted
		return impl.ErrOverloaded
	}
}

func newEntry(request *impl.Request, delivery Delivery) *entry {
	return &entry{account: request.Account(), accepted: request.Accepted, delivery: delivery}
}

// Pending returns the number of requests that are not delivered yet, and when the oldest was accepted; the zero
// time without any.
func (o *Outbox) Pending() (number int, oldest time.Time) {
	if at := o.oldest.Load(); at != 0 {
		oldest = time.Unix(0, at)
	}
	return int(o.number.Load()), oldest
}

// run is the one goroutine that schedules deliveries.
func (o *Outbox) run(ctx context.Context) {
	defer close(o.ended)
	defer close(o.attempts)
	for range o.config.MaxAtOnce { // kept, so that a stack need not grow again for each attempt
		go func() {
			for e := range o.attempts {
				pause, again := e.delivery.Try(ctx)
				o.results <- result{e, pause, again}
			}
		}()
	}
	drain := o.drain
	for !o.draining || len(o.pending)+len(o.arrivals) > 0 {
		select {
		case e := <-o.arrivals:
			o.add(e)
		case e := <-o.adopted:
			o.add(e)
		case e := <-o.due:
			o.ready = append(o.ready, e)
		case r := <-o.results:
			o.finish(r)
		case <-drain:
			drain, o.draining = nil, true // a nil channel is never ready
			for _, e := range o.pending {
				if e.timer.Stop() { // else it is due already, or being tried
					o.ready = append(o.ready, e)
				}
			}
		case <-ctx.Done():
			o.abandon()
			return
		}
		o.startReady()
		o.number.Store(int64(len(o.pending)))
		o.oldest.Store(0)
		if front := o.byAge.Front(); front != nil {
			o.oldest.Store(front.Value.(*entry).accepted.UnixNano())
		}
	}
}

// drainPause is the longest pause between attempts while the outbox is drained.
const drainPause = time.Second

// The reasons for a delivery to get no further attempt.
var (
	errReplaced = errors.New("a newer request for the account took its place")
	errFull     = errors.New("too many requests are pending")
	errStopped  = errors.New("the server has stopped")
)

// add takes an entry, or puts its delivery in the place of an older one for the account: each link makes the one
// before invalid, so only the newest request counts. The time of the older one stays, so that repeated requests do
// not postpone the mail.
func (o *Outbox) add(e *entry) {
	switch older := o.pending[e.account]; {
	case older == nil:
		if len(o.pending) >= o.config.MaxPending {
			o.giveUpOldest()
		}
		o.pending[e.account], e.age = e, o.byAge.PushBack(e)
		o.wait(e, rand.N(maxStart)) //nolint:gosec // ChaCha8 with a seed of the system's: nobody can predict it
	case older.attempting:
		if older.newer != nil {
			older.newer.End(impl.Suppressed, errReplaced)
		}
		older.newer = e.delivery
	default:
		older.delivery.End(impl.Suppressed, errReplaced)
		older.delivery = e.delivery
	}
}

// wait makes an entry due after a pause.
func (o *Outbox) wait(e *entry, pause time.Duration) {
	if o.draining {
		pause = min(pause, drainPause)
	}
	e.timer = time.AfterFunc(pause, func() {
		select {
		case o.due <- e:
		case <-o.ended:
		}
	})
}

// giveUpOldest makes room for one request. It spares entries in an attempt, which end by themselves.
func (o *Outbox) giveUpOldest() {
	for element := o.byAge.Front(); element != nil; element = element.Next() {
		if e := element.Value.(*entry); !e.attempting {
			e.timer.Stop()
			o.remove(e)
			e.delivery.End(impl.Undelivered, errFull)
			o.config.GivenUp()
			return
		}
	}
}

func (o *Outbox) remove(e *entry) {
	delete(o.pending, e.account)
	o.byAge.Remove(e.age)
}

// startReady begins attempts as long as there is room.
func (o *Outbox) startReady() {
	for ; o.attempting < o.config.MaxAtOnce && len(o.ready) > 0; o.ready = o.ready[1:] {
		e := o.ready[0]
		o.ready[0] = nil               // the rest of the slice must not keep it
		if o.pending[e.account] != e { // given up while it was ready
			continue
		}
		e.attempting = true
		o.attempting++
		o.attempts <- e
	}
}

// finish takes an entry back from its attempt. If the delivery has ended, a newer request for the account follows
// at once; if not, the newer one takes its place and pause.
func (o *Outbox) finish(r result) {
	e := r.entry
	o.attempting--
	e.attempting = false
	switch {
	case e.newer != nil:
		if r.again {
			e.delivery.End(impl.Suppressed, errReplaced)
		}
		e.delivery, e.newer = e.newer, nil
	case !r.again:
		o.remove(e)
		return
	}
	o.wait(e, r.pause)
}

// abandon ends all pending deliveries. It cuts off running attempts and waits for them first, because only they
// know whether their mail was accepted.
func (o *Outbox) abandon() {
	for o.attempting > 0 {
		o.finish(<-o.results)
	}
	for len(o.arrivals) > 0 {
		o.add(<-o.arrivals)
	}
	o.number.Store(int64(len(o.pending)))
	for _, e := range o.pending {
		e.timer.Stop()
		e.delivery.End(impl.Undelivered, errStopped)
	}
}

// Close stops taking requests, and tries the pending ones at once and then every second, until none is left or ctx
// ends. It reports those that are left as undelivered, and its error has their number.
func (o *Outbox) Close(ctx context.Context) error {
	return leftError(o.close(ctx))
}

// close returns the number of requests that are left.
func (o *Outbox) close(ctx context.Context) (left int) {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	close(o.drain)
	defer o.cancel()
	select {
	case <-o.ended:
		return 0
	case <-ctx.Done():
		o.cancel()
		<-o.ended
		return int(o.number.Load())
	}
}

func leftError(left int) error {
	if left == 0 {
		return nil
	}
	return fmt.Errorf("accepted requests that are not delivered: %d", left)
}
