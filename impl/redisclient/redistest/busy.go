package redistest

import (
	"sync"
	"sync/atomic"
	"time"
)

// tick and late: who wants to wake up after a tick and does so that late is on a machine that may also
// keep Redis from answering in time, which is 220 ms.
const (
	tick = 5 * time.Millisecond
	late = 50 * time.Millisecond
)

// WatchMachine looks from now on whether the machine is too busy for a Redis that must answer in time.
// The function says so, and ends the watch.
func WatchMachine() (wasBusy func() bool) {
	var busy atomic.Bool
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			began := time.Now()
			select {
			case <-stop:
				return
			case <-time.After(tick):
			}
			if time.Since(began) > tick+late {
				busy.Store(true)
			}
		}
	})
	return func() bool {
		close(stop)
		watch.Wait()
		return busy.Load()
	}
}
