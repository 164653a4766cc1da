package redisclient

import "time"

const (
	// calm is the time in use after which earlier losses are forgotten.
	calm = time.Minute
	// maxProofs bounds the number of successful tries that a return needs.
	maxProofs = 30
)

// Recovery decides when a lost Redis is used again: after the first successful try, or after several in a row if it is
// lost repeatedly. Each change gives clients their limits once more, and a metric that is read every 15 s may show a
// Redis that is in use for half of the time as used all the time. Its methods must not be called concurrently.
type Recovery struct {
	losses int // since the last calm
	proofs int // successful tries in a row
	back   time.Time
}

// Failed notes an unsuccessful try.
func (r *Recovery) Failed() { r.proofs = 0 }

// Works notes a successful try, and reports whether Redis is used from now on.
func (r *Recovery) Works() bool {
	r.proofs++
	if r.proofs < min(r.losses, maxProofs) {
		return false
	}
	r.proofs, r.back = 0, time.Now()
	return true
}

// Lost notes that a Redis in use was lost.
func (r *Recovery) Lost() {
	if time.Since(r.back) > calm {
		r.losses = 0
	}
	r.losses++
	r.proofs = 0
}
