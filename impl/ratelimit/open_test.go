package ratelimit

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/redisclient"
)

var testKey = []byte("sixteen bytes or more")

// open opens a store with the patience of a server's. Outside of a synctest bubble it is only for memory,
// because a Redis on a busy machine may need longer.
func open(tb testing.TB, options Options) *Store {
	tb.Helper()
	return openFor(tb, options, redisclient.Patience)
}

func openFor(tb testing.TB, options Options, patience time.Duration) *Store {
	tb.Helper()
	if options.HashKey == nil {
		options.HashKey = testKey
	}
	store, err := openPatiently(options, patience)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = store.Close() })
	return store
}

// target parses a URL.
func target(tb testing.TB, url string) *redisclient.Target {
	tb.Helper()
	t, wrong := redisclient.Parse(redisclient.Config{URL: url})
	if wrong != nil {
		tb.Fatal(wrong)
	}
	return t
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

// waitInUse waits until the store counts in this place, and returns how long that took.
func waitInUse(tb testing.TB, store *Store, want string) time.Duration {
	tb.Helper()
	began := time.Now()
	for store.InUse() != want {
		if time.Since(began) > time.Minute {
			tb.Fatalf("not in %s after a minute", want)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}

// watched is a store that records its changes.
type watched struct {
	*Store

	mu      sync.Mutex
	log     bytes.Buffer
	changes []string // what was in use after each
}

func watch(tb testing.TB, redis *redisclient.Target, patience time.Duration) *watched {
	tb.Helper()
	w := &watched{}
	w.Store = openFor(tb, Options{
		Redis:  redis,
		Logger: slog.New(slog.NewJSONHandler(w, nil)),
		OnChange: func(inUse string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.changes = append(w.changes, inUse)
		},
	}, patience)
	return w
}

// Write implements io.Writer for the log.
func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// messages returns the messages and reasons of the log records, in order.
func (w *watched) messages(tb testing.TB) (messages []string) {
	tb.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range bytes.Lines(w.log.Bytes()) {
		var record struct{ Msg, Reason string }
		if err := json.Unmarshal(line, &record); err != nil {
			tb.Fatal(err)
		}
		messages = append(messages, strings.TrimSpace(record.Msg+" "+record.Reason))
	}
	return messages
}

// want fails the test unless these were the changes, each was logged once, and the last one still holds.
func (w *watched) want(tb testing.TB, want ...string) {
	tb.Helper()
	messages := w.messages(tb)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.changes, want) || len(messages) != len(want) {
		tb.Fatalf("in use were %q, want %q: %q", w.changes, want, messages)
	}
	for i, inUse := range want {
		text := "Redis works"
		if inUse == Memory {
			text = "Redis is lost"
			if i == 0 {
				text = "Redis does not work"
			}
		}
		if !strings.HasPrefix(messages[i], text) {
			tb.Errorf("logged %q, want %q", messages[i], text)
		}
	}
	if last := want[len(want)-1]; last != w.InUse() {
		tb.Errorf("the last that was told is %s, and in use is %s", last, w.InUse())
	}
}
