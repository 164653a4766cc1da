package impl

import "context"

// deferred runs the deliveries that outlive their answer: a bounded number of them, and all
// of them are waited for before the process ends.
type deferred struct{ places chan struct{} }

func newDeferred(limit int) *deferred { return &deferred{places: make(chan struct{}, limit)} }

// start runs work in a goroutine unless too much is running already.
func (d *deferred) start(work func()) bool {
	select {
	case d.places <- struct{}{}:
	default:
		return false
	}
	go func() {
		defer func() { <-d.places }()
		work()
	}()
	return true
}

// wait takes every place, so that it returns when all work has ended and no more begins; or
// with the error of ctx. (A WaitGroup does not allow work to begin while it is waited for, and
// some may when the time for shutting down has passed.)
func (d *deferred) wait(ctx context.Context) error {
	for taken := range cap(d.places) {
		select {
		case d.places <- struct{}{}:
		case <-ctx.Done():
			for range taken {
				<-d.places
			}
			return ctx.Err()
		}
	}
	return nil
}
