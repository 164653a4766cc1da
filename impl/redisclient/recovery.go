package redisclient

import "time"

const (
	// calm is how long Redis is in use until its losses are forgotten.
	calm = time.Minute
	// maxProofs is the most that is asked of it.
	maxProofs = 30
)

// Recovery says when a Redis that was lost is used again: at once where it is tried and works. Where it
// is lost again and again, it has to work the more often in a row before: each change gives clients
// their limits once more, and a metric that is read every 15 s would show a Redis that is in use
// for half of the time as used all the time. It is not safe for concurrent use.
type Recovery struct {
	losses int // since it was calm
	proofs int // how often in a row it has worked
	back   time.Time
}

// Failed notes that Redis was tried and does not work.
func (r *Recovery) Failed() { r.proofs = 0 }

// Works notes that Redis was tried and works, and returns whether it is used now.
func (r *Recovery) Works() bool {
	r.proofs++
	if r.proofs < min(r.losses, maxProofs) {
		return false
	}
	r.proofs, r.back = 0, time.Now()
	return true
}

// Lost notes that Redis was in use and is lost.
func (r *Recovery) Lost() {
	if time.Since(r.back) > calm {
		r.losses = 0
	}
	r.losses++
	r.proofs = 0
}
