//go:build !start_at_once

package outbox

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestStart: deliveries begin within a second of their acceptance, at random.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.open(nil)
		time.Sleep(5 * time.Second)
		const number = 1000
		for i := range number {
			w.mustPut(o, fmt.Sprintf("a%d-1", i))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		var tenths [10]int
		all := w.allTried()
		for _, a := range all {
			tenths[min(max(0, (a.at-5*time.Second)/(100*time.Millisecond)), 9)]++
		}
		for tenth, n := range tenths { // 100, with a standard deviation of 10
			if n < 40 || n > 160 {
				t.Errorf("%d of %d begin in tenth %d of a second: %v", n, number, tenth, tenths)
			}
		}
		if len(all) != number {
			t.Errorf("%d began within a second", len(all))
		}
		closeIt(t, o)
		w.wantAllEnded()
	})
}
