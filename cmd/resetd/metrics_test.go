package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// metricsText is all of /metrics.
func (f *fixture) metricsText() string {
	f.t.Helper()
	text, err := f.getMetrics()
	if err != nil {
		f.t.Fatal(err)
	}
	return text
}

// metricsIfAny are empty where nobody answers.
func (f *fixture) metricsIfAny() string {
	text, _ := f.getMetrics()
	return text
}

func (f *fixture) getMetrics() (string, error) {
	response, err := http.Get(f.admin + "/metrics")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// scrape is every series of /metrics with its value.
func (f *fixture) scrape() map[string]float64 {
	f.t.Helper()
	series := map[string]float64{}
	for line := range strings.Lines(f.metricsText()) {
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
		if err != nil {
			f.t.Fatalf("%q: %v", line, err)
		}
		series[line[:at]] = value
	}
	return series
}

// grown are the series that count something and have grown, without the duration's buckets.
func grown(before, after map[string]float64) map[string]float64 {
	result := map[string]float64{}
	for name, value := range after {
		if strings.HasPrefix(name, "resetd_") && !strings.Contains(name, "_bucket{") && !strings.Contains(name, "_sum{") && value != before[name] {
			result[name] = value - before[name]
		}
	}
	return result
}

// TestMetrics: what each kind of request, and each fault of an upstream, adds to which counters.
func TestMetrics(t *testing.T) {
	status := func(code int) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
		}
	}
	hang := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})
	}
	const (
		ok, unavailable, undelivered, unset = `resetd_requests_total{code="",status="200"}`, `resetd_requests_total{code="auth_unavailable",status="503"}`, `resetd_requests_total{code="email_delivery_failed",status="502"}`, `resetd_requests_total{code="auth_not_configured",status="500"}`
		took, linkTook, sendTook, decoyTook = `resetd_request_duration_seconds_count{status="%s"}`, `resetd_upstream_request_duration_seconds_count{call="generate_link",upstream="supabase"}`, `resetd_upstream_request_duration_seconds_count{call="send",upstream="mailgun"}`, `resetd_upstream_request_duration_seconds_count{call="send_decoy",upstream="mailgun"}`
		failed                              = `resetd_mails_total{outcome="failed"}`
	)
	link := func(outcome string) string {
		return `resetd_upstream_requests_total{call="generate_link",outcome="` + outcome + `",upstream="supabase"}`
	}
	mail := func(call, outcome string) string {
		return `resetd_upstream_requests_total{call="` + call + `",outcome="` + outcome + `",upstream="mailgun"}`
	}
	for name, test := range map[string]struct {
		setup
		email string
		want  map[string]float64
	}{
		"account": {email: knownEmail, want: map[string]float64{
			ok: 1, fmt.Sprintf(took, "200"): 1, link("ok"): 1, linkTook: 1, mail("send", "ok"): 1, sendTook: 1, `resetd_mails_total{outcome="sent"}`: 1,
		}},
		"stranger": {email: unknownEmail, want: map[string]float64{
			ok: 1, fmt.Sprintf(took, "200"): 1, link("no_account"): 1, linkTook: 1, mail("send_decoy", "ok"): 1, decoyTook: 1,
			`resetd_mails_total{outcome="no_account"}`: 1, `resetd_mails_total{outcome="decoy"}`: 1,
		}},
		"Supabase fails": {setup: setup{supabase: status(500)}, email: knownEmail, want: map[string]float64{
			unavailable: 1, fmt.Sprintf(took, "503"): 1, link("failed"): 2, linkTook: 2, failed: 1,
		}},
		"the key is refused": {setup: setup{supabase: status(401)}, email: knownEmail, want: map[string]float64{
			unset: 1, fmt.Sprintf(took, "500"): 1, link("refused"): 2, linkTook: 2, failed: 1,
		}},
		"Supabase hangs": {setup: setup{supabase: hang, env: map[string]string{"UPSTREAM_TIMEOUT": "100ms"}}, email: knownEmail, want: map[string]float64{
			unavailable: 1, fmt.Sprintf(took, "503"): 1, link("timeout"): 2, linkTook: 2, failed: 1,
		}},
		"Mailgun fails": {setup: setup{mailgun: status(500)}, email: unknownEmail, want: map[string]float64{
			undelivered: 1, fmt.Sprintf(took, "502"): 1, link("no_account"): 1, linkTook: 1, mail("send_decoy", "failed"): 2, decoyTook: 2, failed: 1,
		}},
		"Mailgun refuses": {setup: setup{mailgun: status(401)}, email: knownEmail, want: map[string]float64{
			undelivered: 1, fmt.Sprintf(took, "502"): 1, link("ok"): 1, linkTook: 1, mail("send", "refused"): 1, sendTook: 1, mail("send_decoy", "refused"): 1, decoyTook: 1, failed: 1,
		}},
		"limit of the address": {setup: setup{env: map[string]string{"RECIPIENT_LIMIT": "1-H"}}, email: knownEmail, want: map[string]float64{
			ok: 1, fmt.Sprintf(took, "200"): 1, `resetd_limited_total{limit="recipient"}`: 1, `resetd_mails_total{outcome="suppressed"}`: 1,
		}},
		"limit of the client": {setup: setup{env: map[string]string{"RATE_LIMIT": "1-H"}}, email: knownEmail, want: map[string]float64{
			`resetd_requests_total{code="rate_limited",status="429"}`: 1, fmt.Sprintf(took, "429"): 1, `resetd_limited_total{limit="ip"}`: 1,
		}},
		"decoys used up": {setup: setup{env: map[string]string{"MAIL_DECOY_LIMIT": "1-H"}}, email: unknownEmail, want: map[string]float64{
			ok: 1, fmt.Sprintf(took, "200"): 1, link("no_account"): 1, linkTook: 1, `resetd_limited_total{limit="decoy"}`: 1,
			`resetd_notices_total{notice="decoys_used_up"}`: 1, `resetd_mails_total{outcome="no_account"}`: 1,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, test.setup)
			before := f.scrape()
			for series := range test.want {
				if _, known := before[series]; !known && !strings.HasPrefix(series, "resetd_request_duration_seconds") && !strings.Contains(series, "429") {
					t.Errorf("%s is not there from the start: a rate would miss the first", series)
				}
			}
			if strings.Contains(name, "limit of") || name == "decoys used up" {
				f.ask(test.email)
				before = f.scrape()
			}
			f.ask(test.email)
			after := f.scrape()
			if got := grown(before, after); !maps.Equal(got, test.want) {
				t.Errorf("grown:\n%v\nwant:\n%v", got, test.want)
			}
			for series, n := range test.want {
				if !strings.Contains(series, "_seconds_count{") {
					continue
				}
				least := 0.0
				if name == "Supabase hangs" {
					least = n * 0.1 // UPSTREAM_TIMEOUT, each time
				}
				sum := strings.Replace(series, "_count{", "_sum{", 1)
				if took := after[sum] - before[sum]; took <= 0 || took < least || took > 60 {
					t.Errorf("%s has grown by %v, want %v or more", sum, took, least)
				}
			}
		})
	}
}

// TestInFlight: the gauge has what is being worked on.
func TestInFlight(t *testing.T) {
	release := make(chan struct{})
	f := start(t, setup{mailgun: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-release
			next.ServeHTTP(w, r)
		})
	}})
	answered := make(chan answer)
	for range 3 {
		go func() { answered <- f.ask(knownEmail) }()
	}
	const gauge = "resetd_requests_in_flight"
	for deadline := time.Now().Add(20 * time.Second); f.scrape()[gauge] != 3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v in flight, want 3", f.scrape()[gauge])
		}
	}
	close(release)
	for range 3 {
		<-answered
	}
	if got := f.scrape()[gauge]; got != 0 {
		t.Errorf("%v in flight after the answers", got)
	}
}

// TestMetricsDescribe: what runs, and where it counts.
func TestMetricsDescribe(t *testing.T) {
	series := start(t, setup{}).scrape()
	for name, want := range map[string]float64{
		`resetd_limits_in{store="memory"}`: 1, `resetd_limits_in{store="redis"}`: 0, "resetd_redis_configured": 0,
		"resetd_ready": 1, "resetd_deliveries_deferred": 0,
	} {
		if got, there := series[name]; !there || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, there, want)
		}
	}
	if series["go_goroutines"] < 1 || series["process_resident_memory_bytes"] < 1 {
		t.Error("nothing of Go's runtime, or of the process")
	}
	found := slices.ContainsFunc(slices.Collect(maps.Keys(series)), func(name string) bool {
		return regexp.MustCompile(`^resetd_build_info\{goversion="go1\.[^"]+",revision="[^"]+",version="` + regexp.QuoteMeta(version) + `"\}$`).MatchString(name)
	})
	if !found {
		t.Error("no resetd_build_info")
	}
	if series := start(t, setup{env: map[string]string{"REDIS_URL": "redis://127.0.0.1:1"}}).scrape(); series["resetd_redis_configured"] != 1 {
		t.Error("REDIS_URL is set, and resetd_redis_configured is not 1")
	}
}

// TestMetricsAreClosed: whatever callers send, they add no series beyond those of the closed
// sets, and nothing that they sent is in a label.
func TestMetricsAreClosed(t *testing.T) {
	f := start(t, setup{env: map[string]string{"RATE_LIMIT": "60-H", "RECIPIENT_LIMIT": "2-H"}})
	hostile := func(salt string) {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "M" + salt} {
			for _, path := range []string{"/", "/" + salt, endpoint, endpoint + "/" + salt, "/api/docs", "/healthz", "/metrics"} {
				request, err := http.NewRequest(method, f.url+path+"?"+salt, strings.NewReader(`{"email":"`+salt+`@example.net","callback_origin":"https://`+salt+`.example"}`))
				if err != nil {
					t.Fatal(err)
				}
				request.Header = http.Header{
					"Content-Type": {"application/json"}, "Origin": {"https://" + salt + ".example"}, "User-Agent": {salt},
					"X-Request-Id": {"id-of-" + salt[5:]}, "X-Forwarded-For": {"192.0.2.1"}, "Accept-Language": {salt},
				}
				response, err := f.client.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
			}
		}
		f.post(`{"email":"`+salt, nil)
		f.post(salt, map[string]string{"Content-Type": "text/" + salt})
		for range 60 {
			f.ask(salt + "@example.net")
		}
	}
	hostile("wave-one")
	before := f.scrape()
	hostile("wave-two")
	after := f.scrape()
	for name := range after {
		if _, there := before[name]; !there {
			t.Errorf("a caller has added %s", name)
		}
		for _, sent := range []string{"wave-", "id-of-", "example", "192.0.2.1", "127.0.0.1"} {
			if strings.HasPrefix(name, "resetd_") && strings.Contains(name, sent) {
				t.Errorf("what a caller sent is in %s", name)
			}
		}
	}
	if len(after) < 50 {
		t.Errorf("only %d series", len(after))
	}
}
