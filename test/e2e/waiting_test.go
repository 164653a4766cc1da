package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

// The tests of this file are about connections and their requests.

// TestHalfClosed: a client that closes its sending half after the request gets its answer, also if the request waits
// for the first sample.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	f := start(t, resetdtest.Config{Settings: map[string]string{"UPSTREAM_TIMEOUT": "1m"}, Supabase: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-release
			next.ServeHTTP(w, r)
		})
	}})
	ask := func(email string) *wire {
		w := f.dial()
		body := fmt.Sprintf(`{"email":%q}`, email)
		fmt.Fprintf(w, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", endpoint, len(body), body)
		if err := w.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		return w
	}
	first := []*wire{ask(knownEmail), ask(unknownEmail)}
	time.Sleep(100 * time.Millisecond) // enough for a server to give up
	close(release)
	for _, w := range append(first, ask(otherKnown), ask(unknownEmail)) {
		if a, err := w.answer(); err != nil || a.Status != http.StatusOK {
			t.Errorf("%d %s, %v", a.Status, a.Raw, err)
		}
		if !w.ends(10 * time.Second) {
			t.Error("the connection goes on")
		}
	}
	awaitDeliveries(t, f.Log)
	if mails := f.mailsTo(); mails[knownEmail] != 1 || mails[otherKnown] != 1 {
		t.Errorf("the mails: %v", mails)
	}
}

// TestPipelined: requests sent at once on one connection are answered in order, on the same connection, which stays
// open.
func TestPipelined(t *testing.T) {
	t.Parallel()
	var held atomic.Int64
	f := start(t, resetdtest.Config{Settings: map[string]string{"UPSTREAM_TIMEOUT": "1m"}, Supabase: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if held.Add(1) == 1 {
				time.Sleep(300 * time.Millisecond) // the first request waits for this sample
			}
			next.ServeHTTP(w, r)
		})
	}})
	w := f.dial()
	const requests = 50
	var all strings.Builder
	for i := range requests {
		body := fmt.Sprintf(`{"email":%q}`, []string{knownEmail, unknownEmail, "no address"}[i%3])
		fmt.Fprintf(&all, "POST %s HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: number-%d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", endpoint, i, len(body), body)
	}
	for round := range 2 {
		if _, err := io.WriteString(w, all.String()); err != nil {
			t.Fatal(err)
		}
		for i := range requests {
			a, err := w.answer()
			if err != nil {
				t.Fatalf("round %d, answer %d: %v", round, i, err)
			}
			if want := []int{200, 200, 400}[i%3]; a.Status != want || a.Header.Get("X-Request-Id") != fmt.Sprintf("number-%d", i) || a.Header.Get("Connection") != "" {
				t.Errorf("round %d, answer %d: %d %v", round, i, a.Status, a.Header)
			}
		}
	}
}

// TestIdleTimeout: the server keeps an idle connection as long as the setting says. The default is longer than any
// known proxy keeps it.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{"IDLE_TIMEOUT": "1s"}})
	w := f.dial()
	began := time.Now() // before the connection is idle
	w.healthz(t)
	if !w.ends(time.Minute) {
		t.Error("the connection goes on")
	} else if took := time.Since(began); took < time.Second {
		t.Errorf("the connection ended after %v", took)
	}
}

// TestManyIdle: of too many idle connections, only the surplus is closed.
func TestManyIdle(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{})
	const mostIdle, surplus = 1000, 20 // docs/operations.md says how many
	idle := make([]*wire, 0, mostIdle+surplus)
	for range mostIdle + surplus {
		w := f.dial()
		w.healthz(t)
		idle = append(idle, w)
	}
	closed := 0
	for deadline := time.Now().Add(time.Minute); closed < surplus && time.Now().Before(deadline); {
		idle = slices.DeleteFunc(idle, func(w *wire) bool { return w.ends(time.Millisecond) })
		closed = mostIdle + surplus - len(idle)
	}
	if closed != surplus {
		t.Errorf("%d connections are closed, want %d", closed, surplus)
	}
	for _, w := range idle {
		w.healthz(t)
	}
}

// healthz says whether the server answers on this connection.
func (w *wire) healthz(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(w, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = w.SetReadDeadline(time.Now().Add(time.Minute))
	response, err := http.ReadResponse(w.reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", response.Status, err)
	}
}
