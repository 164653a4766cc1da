package redisclient

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// Patience is how long one command may wait for Redis, or all commands of one request together.
	// The promise is 250 ms; the rest is for a busy machine to notice.
	Patience = 220 * time.Millisecond
	// MaxRoundTrip is how soon Redis must answer to be taken into use: a request asks it up to three
	// times (the limit of its client, the limit of its address, the outbox), so a Redis that only
	// just answers would be lost again at once.
	MaxRoundTrip = Patience / 3
)

// budget is how long Redis has been waited for.
type budget struct{ spent atomic.Int64 }

type budgetKey struct{}

// WithBudget makes all commands with this context wait for Redis no longer than Patience together.
// Without it that is the bound of each.
func WithBudget(ctx context.Context) context.Context {
	return context.WithValue(ctx, budgetKey{}, &budget{})
}

// Wait returns a context that ends when patience or what is left of the budget does, and not with the
// client's request. The function is to be called when Redis has answered.
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
