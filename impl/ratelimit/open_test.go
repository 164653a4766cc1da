package ratelimit

import (
	"testing"
	"time"
)

var testKey = []byte("sixteen bytes or more")

func open(tb testing.TB, options Options) *Store {
	tb.Helper()
	if options.HashKey == nil {
		options.HashKey = testKey
	}
	store, err := Open(options)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = store.Close() })
	return store
}

func mustRate(tb testing.TB, s string) Rate {
	tb.Helper()
	rate, err := ParseRate(s)
	if err != nil {
		tb.Fatal(err)
	}
	return rate
}

func wantInUse(tb testing.TB, store *Store, want string) {
	tb.Helper()
	if got := store.InUse(); got != want {
		tb.Fatalf("in use is %s, want %s", got, want)
	}
}

// waitInUse waits until the store counts there and returns how long it took.
func waitInUse(tb testing.TB, store *Store, want string) time.Duration {
	tb.Helper()
	began := time.Now()
	for store.InUse() != want {
		if time.Since(began) > 30*time.Second {
			tb.Fatalf("not in %s after 30 s", want)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}
