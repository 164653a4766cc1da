package ratelimit

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// load makes requests for new clients all the time, from several goroutines.
type load struct {
	mu      sync.Mutex
	began   time.Time // of the phase
	worst   time.Duration
	stopped chan struct{}
	running sync.WaitGroup
}

func startLoad(tb testing.TB, l *Limiter) *load {
	tb.Helper()
	load := &load{stopped: make(chan struct{})}
	for g := range 4 {
		load.running.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-load.stopped:
					return
				case <-time.After(10 * time.Millisecond):
				}
				began := time.Now()
				l.Take(context.Background(), fmt.Sprint("load ", g, i))
				load.record(began)
			}
		})
	}
	stop := sync.OnceFunc(func() {
		close(load.stopped)
		load.running.Wait()
	})
	tb.Cleanup(stop)
	return load
}

func (l *load) record(began time.Time) {
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !began.Before(l.began) {
		l.worst = max(l.worst, took)
	}
}

// phase returns the longest wait of the requests that began since the last phase, and begins a new phase.
func (l *load) phase() (worst time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	worst = l.worst
	l.worst, l.began = 0, time.Now()
	return worst
}
