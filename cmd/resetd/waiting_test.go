package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The tests of this file are about how connections are served, and their requests.

// TestHalfClosed: a client that closes its sending half after the request is answered, whether its
// request waits for the first sample or for nothing.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	f := start(t, setup{env: map[string]string{"UPSTREAM_TIMEOUT": "1m"}, supabase: func(next http.Handler) http.Handler {
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
	time.Sleep(100 * time.Millisecond) // in which a server that gives up would
	close(release)
	for _, w := range append(first, ask(otherKnown), ask(unknownEmail)) {
		if a, err := w.answer(); err != nil || a.status != http.StatusOK {
			t.Errorf("%d %s, %v", a.status, a.raw, err)
		}
		if !w.ends(10 * time.Second) {
			t.Error("the connection goes on")
		}
	}
	f.logs.awaitDeliveries(t)
	if mails := f.mailsTo(); mails[knownEmail] != 1 || mails[otherKnown] != 1 {
		t.Errorf("the mails: %v", mails)
	}
}

// TestPipelined: requests that are sent at once on one connection are answered in their order, on
// this connection, and the connection goes on.
func TestPipelined(t *testing.T) {
	t.Parallel()
	var held atomic.Int64
	f := start(t, setup{env: map[string]string{"UPSTREAM_TIMEOUT": "1m"}, supabase: func(next http.Handler) http.Handler {
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
			if want := []int{200, 200, 400}[i%3]; a.status != want || a.header.Get("X-Request-Id") != fmt.Sprintf("number-%d", i) || a.header.Get("Connection") != "" {
				t.Errorf("round %d, answer %d: %d %v", round, i, a.status, a.header)
			}
		}
	}
}
