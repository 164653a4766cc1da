package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/resetd/resetd/gen"
	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/ratelimit"
	"github.com/resetd/resetd/impl/server"
)

// operation answers as the address says.
type operation struct{}

func (operation) SendPasswordReset(_ context.Context, in gen.SendPasswordResetRequestObject) (gen.SendPasswordResetResponseObject, error) {
	switch in.Body.Email {
	case "overloaded@example.com":
		return nil, impl.ErrOverloaded
	case "broken@example.com":
		return nil, errors.New("a fault of our own")
	}
	return gen.SendPasswordReset200JSONResponse{}, nil
}

// TestRefusalsAreSampled: the log has the first hundred refusals of a second, and once a second how many were
// left out. It has all other requests, and the metrics count every request.
func TestRefusalsAreSampled(t *testing.T) {
	const served, invalid, overloaded, broken = `{"email":"served@example.com"}`, `{}`, `{"email":"overloaded@example.com"}`, `{"email":"broken@example.com"}`
	const preflight = "" // a preflight of a page that may not call
	type asked struct {
		body  string
		times int
	}
	for _, c := range []struct {
		name    string
		all     bool
		seconds [][]asked
		want    []int // records of refusals in each second
		other   []int // other records in each second
		leftOut []int // refusals left out in each second, as its record says; 0: no record
	}{
		{
			name:    "a hundred",
			seconds: [][]asked{{{invalid, 99}, {served, 1}, {overloaded, 1}}},
			want:    []int{100}, other: []int{1}, leftOut: []int{0},
		},
		{
			name:    "more",
			seconds: [][]asked{{{invalid, 60}, {overloaded, 60}, {invalid, 130}, {served, 50}, {broken, 5}}, {{invalid, 20}}, {{overloaded, 101}}},
			want:    []int{100, 20, 100}, other: []int{55, 0, 0}, leftOut: []int{150, 0, 1},
		},
		{
			name:    "preflights",
			seconds: [][]asked{{{preflight, 90}, {invalid, 20}, {served, 1}}},
			want:    []int{100}, other: []int{1}, leftOut: []int{10},
		},
		{
			name: "all", all: true,
			seconds: [][]asked{{{invalid, 300}}},
			want:    []int{300}, other: []int{0}, leftOut: []int{0},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logs, registry := &bytes.Buffer{}, prometheus.NewRegistry()
				observer := New(slog.New(slog.NewJSONHandler(logs, nil)), registry, nil)
				if !c.all {
					observer.SampleRefusals()
				}
				limits, err := ratelimit.Open(ratelimit.Options{})
				if err != nil {
					t.Fatal(err)
				}
				public, err := server.New(server.Config{
					Operation: operation{}, Recorder: observer, Logger: slog.New(slog.DiscardHandler), Fingerprint: func(string) string { return "hash" },
					Limit:        limits.Limiter("ip", ratelimit.Rate{{Limit: 1_000_000, Period: time.Hour}}),
					AllowBrowser: func(string) bool { return false },
				})
				if err != nil {
					t.Fatal(err)
				}
				all := 0
				for second, requests := range c.seconds {
					for _, asked := range requests {
						for range asked.times {
							request := httptest.NewRequest(http.MethodPost, server.OperationRoute, strings.NewReader(asked.body))
							request.Header.Set("Content-Type", "application/json")
							if asked.body == preflight {
								request.Method = http.MethodOptions
								request.Header.Set("Origin", "https://evil.example")
								request.Header.Set("Access-Control-Request-Method", http.MethodPost)
							}
							public.ServeHTTP(httptest.NewRecorder(), request)
							all++
						}
					}
					time.Sleep(time.Second)
					synctest.Wait()
					refused, other, leftOut := 0, 0, 0
					for line := range bytes.Lines(logs.Bytes()) {
						var record struct {
							Msg     string
							Status  int
							LeftOut int `json:"left_out"`
						}
						if err := json.Unmarshal(line, &record); err != nil {
							t.Fatal(err)
						}
						switch {
						case record.Msg == "refusals" && leftOut == 0:
							leftOut = record.LeftOut
						case record.Msg == "request" && (record.Status == http.StatusOK || record.Status == http.StatusInternalServerError):
							other++
						case record.Msg == "request":
							refused++
						default:
							t.Errorf("second %d: logged %s", second, line)
						}
					}
					logs.Reset()
					if refused != c.want[second] || other != c.other[second] || leftOut != c.leftOut[second] {
						t.Errorf("second %d: %d records of refusals, %d of others, %d left out, want %d, %d and %d",
							second, refused, other, leftOut, c.want[second], c.other[second], c.leftOut[second])
					}
				}
				if counted := countRequests(t, registry); counted != all {
					t.Errorf("%d of %d requests are counted", counted, all)
				}
			})
		})
	}
}

func countRequests(t *testing.T, registry *prometheus.Registry) (requests int) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "resetd_requests_total" {
			for _, metric := range family.GetMetric() {
				requests += int(metric.GetCounter().GetValue())
			}
		}
	}
	return requests
}
