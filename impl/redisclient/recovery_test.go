package redisclient

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestRecovery: a lost Redis is used again when it works. If it is lost again and again, it must work for longer
// first, so that the store in use works most of the time.
func TestRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Recovery
		if !r.Works() {
			t.Fatal("it is not used at the start")
		}
		for losses, want := range []int{1, 2, 3, 4} {
			r.Lost()
			r.Failed()
			proofs := 1
			for ; !r.Works(); proofs++ {
				time.Sleep(time.Second)
			}
			if proofs != want {
				t.Errorf("after %d losses it has to work %d times, want %d", losses+1, proofs, want)
			}
		}
		r.Lost()
		r.Works()
		r.Failed() // successes must be in a row
		for range 4 {
			if r.Works() {
				t.Fatal("it is used too soon")
			}
		}
		if !r.Works() {
			t.Error("it is not used after five times in a row")
		}
		for range 100 {
			r.Lost()
		}
		for range maxProofs - 1 {
			if r.Works() {
				t.Fatal("it is used too soon")
			}
		}
		if !r.Works() {
			t.Error("it is not used for more than half a minute")
		}
		time.Sleep(calm + time.Second)
		r.Lost()
		if !r.Works() {
			t.Error("it is not back at once after it was calm")
		}
	})
}
