package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestFlood: more clients than the limiter has counters for take no more memory: a million would take what
// 100,000 do.
func TestFlood(t *testing.T) {
	const (
		counters = 1<<17 + 1<<12 // as in ratelimit: own and shared ones
		perEntry = 180           // bytes, for two windows
		many     = 12_000
	)
	settings, err := readSettings("serve", nil, []string{
		"ADMIN_ADDR=off", "TRUSTED_PROXIES=127.0.0.0/8", "RATE_LIMIT=5-H,30-D", "SUPABASE_SERVICE_ROLE_KEY=test-service-role-key", "SITE_URL=" + site,
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	app, err := newApp(context.Background(), settings, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	target := &url.URL{Path: endpoint}
	statuses := map[int]int{}
	flood := func(from, to int) {
		var mu sync.Mutex
		var workers sync.WaitGroup
		const parallel = 4
		for worker := range parallel {
			workers.Go(func() {
				seen := map[int]int{}
				for i := from + worker; i < to; i += parallel {
					w := statusOnly{header: http.Header{}}
					app.public.ServeHTTP(&w, &http.Request{
						Method: http.MethodPost, URL: target, Proto: "HTTP/1.1", RemoteAddr: "127.0.0.1:4711", Body: http.NoBody,
						Header: http.Header{"X-Forwarded-For": {fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff)}},
					})
					seen[w.status]++
				}
				mu.Lock()
				defer mu.Unlock()
				for status, n := range seen {
					statuses[status] += n
				}
			})
		}
		workers.Wait()
	}
	heap := func() int {
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int(stats.HeapAlloc)
	}
	flood(0, 100) // what is allocated only once
	before := heap()
	began := time.Now()
	flood(100, counters+many) // fills nearly all shared counters
	full := heap() - before
	took := time.Since(began)
	flood(counters+many, counters+2*many)
	more := heap() - before - full
	t.Logf("%d clients: %d bytes in %v; %d more: %d bytes; answers %v", counters+many, full, took.Round(time.Millisecond), many, more, statuses)
	if bound := counters * perEntry; full > bound {
		t.Errorf("%d clients take %d bytes, want %d at most", counters+many, full, bound)
	}
	if full < counters*40 {
		t.Errorf("%d clients take %d bytes: nothing is counted", counters, full)
	}
	if more > many*20 { // a tenth of what counters of their own would take
		t.Errorf("%d clients beyond the bound take %d bytes more", many, more)
	}
	if statuses[http.StatusUnsupportedMediaType] < counters || len(statuses) > 2 ||
		statuses[http.StatusUnsupportedMediaType]+statuses[http.StatusTooManyRequests] != counters+2*many {
		t.Errorf("answers: %v", statuses)
	}
	runtime.KeepAlive(app)
}

// statusOnly is a response that discards its body.
type statusOnly struct {
	header http.Header
	status int
}

func (w *statusOnly) Header() http.Header         { return w.header }
func (w *statusOnly) WriteHeader(status int)      { w.status = status }
func (w *statusOnly) Write(p []byte) (int, error) { return len(p), nil }
