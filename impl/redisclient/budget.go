package redisclient

import (
	"context"
	"sync/atomic"
	"time"
)

// LongPatience is Patience in builds with the tag patient, in which a test does not lose a Redis that works, however
// busy the machine is.
const LongPatience = 5 * time.Second

// MaxRoundTrip bounds the time of an answer for Redis to be taken into use. A request asks it up to three times
// (the limit of its client, the limit of its address, the outbox), so a slower Redis would be lost again at
// once.
const MaxRoundTrip = Patience / 3

// budget adds up the waits for Redis of one request.
type budget struct{ spent atomic.Int64 }

type budgetKey struct{}

// WithBudget returns a context whose commands wait for Redis no longer than Patience together. Without it, that is the
// bound of each command.
//
// The budget is a value of the context because the operation lies between the request and the waits, and knows no
// Redis. A deadline would not do: it would also run while a client sends its body and while a first probe is waited
// for, and the limit that follows would be counted in memory though Redis is well.
func WithBudget(ctx context.Context) context.Context {
	return context.WithValue(ctx, budgetKey{}, &budget{})
}

// Wait returns a context that ends after patience, or with the budget, and not with the client's request. The caller
// calls the function when Redis has answered.
func Wait(ctx context.Context, patience time.Duration) (context.Context, func()) {
	b, ok := ctx.Value(budgetKey{}).(*budget)
	if !ok {
		b = &budget{}
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience-time.Duration(b.spent.Load()))
	return limited, func() {
		cancel()
		b.spent.Add(int64(time.Since(began)))
	}
}
