package redistest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
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

// Steadily runs a test, and runs it again, three times in all, where it has failed and the machine was
// too busy meanwhile: Redis is then lost with nothing wrong with it.
func Steadily(t *testing.T, test func(tb testing.TB)) {
	t.Helper()
	for run := 1; ; run++ {
		wasBusy := WatchMachine()
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() { // so that Fatal can end it
			defer close(done)
			test(r)
		}()
		<-done
		busy := wasBusy()
		switch {
		case len(r.failures) == 0:
			return
		case busy && run < 3:
			t.Logf("run %d failed on a busy machine:\n%s", run, strings.Join(r.failures, "\n"))
		default:
			for _, failure := range r.failures {
				t.Error(failure)
			}
			return
		}
	}
}

// recorder keeps the failures of a run.
type recorder struct {
	testing.TB

	mu       sync.Mutex
	failures []string
}

func (r *recorder) fail(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, text)
}

func (r *recorder) Error(args ...any)                 { r.fail(fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.fail(fmt.Sprintf(format, args...)) }
func (r *recorder) Fatal(args ...any)                 { r.fail(fmt.Sprint(args...)); runtime.Goexit() }
func (r *recorder) Fatalf(format string, args ...any) {
	r.fail(fmt.Sprintf(format, args...))
	runtime.Goexit()
}
