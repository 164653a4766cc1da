package observe

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// refusalsLogged is the number of refusals in a second that are logged one by one. It is more than an operator
// reads, and some 40 KB of log.
const refusalsLogged = 100

// refusals counts refusals beyond the first of each second instead of logging them, so that a flood of requests
// does not become a flood of records.
type refusals struct {
	logger *slog.Logger

	mu      sync.Mutex
	began   time.Time // the second
	logged  int       // within it
	leftOut int       // since the last record about them
}

// admit reports whether one more refusal is logged.
func (r *refusals) admit() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Sub(r.began) >= time.Second {
		r.began, r.logged = now, 0
	}
	if r.logged < refusalsLogged {
		r.logged++
		return true
	}
	if r.leftOut == 0 {
		time.AfterFunc(time.Second-now.Sub(r.began), r.report)
	}
	r.leftOut++
	return false
}

func (r *refusals) report() {
	r.mu.Lock()
	leftOut := r.leftOut
	r.leftOut = 0
	r.mu.Unlock()
	r.logger.LogAttrs(context.Background(), slog.LevelInfo, "refusals", slog.Int("left_out", leftOut))
}
