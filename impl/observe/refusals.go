package observe

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// refusalsLogged is how many refusals have a record of their own within a second. It is more than an
// operator reads, and some 40 KB of log.
const refusalsLogged = 100

// refusals keeps a flood of requests from becoming a flood of log: beyond the first of each second,
// refusals are only counted.
type refusals struct {
	logger *slog.Logger

	mu      sync.Mutex
	began   time.Time // the second
	logged  int       // within it
	leftOut int       // since the last record that said so
}

// admit says whether one more gets a record of its own.
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
