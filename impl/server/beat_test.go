package server

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestNext(t *testing.T) {
	const quantum = 500 * time.Millisecond
	began := time.Unix(1000, 0)
	for after, want := range map[time.Duration]time.Duration{
		0: quantum, 1: quantum, quantum - 1: quantum, quantum: quantum, quantum + 1: 2 * quantum,
		3*quantum + quantum/2: 4 * quantum, 4 * quantum: 4 * quantum,
	} {
		if got := next(began, quantum, began.Add(after)).Sub(began); got != want {
			t.Errorf("decided after %v: answered after %v, want %v", after, got, want)
		}
	}
}

// TestBeat: what is decided early waits for the beat, and what was decided stays decided.
func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &beat{quantum: 500 * time.Millisecond, began: time.Now()}
		ctx := context.WithValue(t.Context(), beatKey{}, b)
		time.Sleep(499 * time.Millisecond)
		if left := Decide(ctx); left != time.Millisecond {
			t.Errorf("%v left", left)
		}
		time.Sleep(3 * time.Millisecond) // a delivery that was waited for a little too long
		server, client := net.Pipe()
		defer client.Close()
		if !stays(server, b.at) {
			t.Error("the client has not left")
		}
		if took := time.Since(b.began); took != 502*time.Millisecond {
			t.Errorf("answered after %v: late for its own beat, and not on the next", took)
		}
	})
}

// TestBeatAndClient: a client that leaves frees its place at once.
func TestBeatAndClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		server, client := net.Pipe()
		time.AfterFunc(time.Second, func() { _ = client.Close() })
		if stays(server, began.Add(10*time.Second)) {
			t.Error("the client has left")
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("waited %v", took)
		}
	})
}
