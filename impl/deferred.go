package impl

import (
	"context"
	"sync"
)

// deferred runs the deliveries that outlive their answer: a bounded number of them, and all
// of them are waited for before the process ends.
type deferred struct {
	places chan struct{}
	all    sync.WaitGroup
}

func newDeferred(limit int) *deferred { return &deferred{places: make(chan struct{}, limit)} }

// start runs work in a goroutine unless too much is running already.
func (d *deferred) start(work func()) bool {
	select {
	case d.places <- struct{}{}:
	default:
		return false
	}
	d.all.Go(func() {
		defer func() { <-d.places }()
		work()
	})
	return true
}

// wait returns when all work has ended, or with the error of ctx.
func (d *deferred) wait(ctx context.Context) error {
	idle := make(chan struct{})
	go func() {
		d.all.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
