package e2e

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

// grown returns the counters that have grown, without buckets and without what probes add by their own clock.
func grown(before, after map[string]float64) map[string]float64 {
	result := map[string]float64{}
	for name, value := range after {
		if strings.HasPrefix(name, "resetd_") && !strings.Contains(name, "_bucket{") && !strings.Contains(name, "_sum{") &&
			!strings.Contains(name, "probe") && value != before[name] {
			result[name] = value - before[name]
		}
	}
	return result
}

// some is a number that depends on chance.
const some = -1

// TestMetrics: each kind of request, and each fault of an upstream, adds these numbers to these counters. Faults hit
// only deliveries, except where the case says probes too.
func TestMetrics(t *testing.T) {
	t.Parallel()
	status := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	hang := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	always := func(fault http.Handler) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler { return fault }
	}
	const (
		ok    = `resetd_requests_total{code="",status="200"}`
		pings = `resetd_upstream_request_duration_seconds_count{call="%s",upstream="%s"}`
	)
	answered := func(status, code string) string {
		return `resetd_requests_total{code="` + code + `",status="` + status + `"}`
	}
	took := func(status string) string { return `resetd_request_duration_seconds_count{status="` + status + `"}` }
	ended := func(outcome string) string { return `resetd_mails_total{outcome="` + outcome + `"}` }
	delivered := func(outcome string) string {
		return `resetd_delivery_duration_seconds_count{outcome="` + outcome + `"}`
	}
	const tries, deliveries = "resetd_delivery_tries_sum", "resetd_delivery_tries_count"
	link := func(outcome string) string {
		return `resetd_upstream_requests_total{call="generate_link",outcome="` + outcome + `",upstream="supabase"}`
	}
	send := func(outcome string) string {
		return `resetd_upstream_requests_total{call="send",outcome="` + outcome + `",upstream="mailgun"}`
	}
	linkTook, sendTook := fmt.Sprintf(pings, "generate_link", "supabase"), fmt.Sprintf(pings, "send", "mailgun")
	soon := map[string]string{"DELIVERY_TIMEOUT": "3s"}
	short := map[string]string{"DELIVERY_TIMEOUT": "3s", "UPSTREAM_TIMEOUT": "1s"}
	for _, c := range []struct {
		name string
		resetdtest.Config
		email string
		twice bool // want is what the second request adds
		want  map[string]float64
		slow  string // a histogram of want, each of whose calls took UPSTREAM_TIMEOUT
	}{
		{name: "account", email: knownEmail, want: map[string]float64{
			ok: 1, took("200"): 1, link("ok"): 1, linkTook: 1, send("ok"): 1, sendTook: 1, ended("sent"): 1, delivered("sent"): 1, tries: 1, deliveries: 1,
		}},
		{name: "no account", email: unknownEmail, want: map[string]float64{
			ok: 1, took("200"): 1, link("no_account"): 1, linkTook: 1, ended("no_account"): 1, delivered("no_account"): 1, tries: 1, deliveries: 1,
		}},
		{name: "banned account", Config: resetdtest.Config{Accounts: []string{"banned@example.com"}, Banned: []string{"banned@example.com"}}, email: "banned@example.com", want: map[string]float64{
			ok: 1, took("200"): 1, link("ok"): 1, linkTook: 1, ended("banned"): 1, delivered("banned"): 1, tries: 1, deliveries: 1,
		}},
		{name: "Supabase fails", Config: resetdtest.Config{Supabase: always(status(500))}, email: knownEmail, want: map[string]float64{
			answered("503", "auth_unavailable"): 1, took("503"): 1,
		}},
		{name: "the key is refused", Config: resetdtest.Config{Supabase: always(status(401))}, email: knownEmail, want: map[string]float64{
			answered("500", "auth_not_configured"): 1, took("500"): 1,
		}},
		{name: "Mailgun fails", Config: resetdtest.Config{Mailgun: always(status(500))}, email: unknownEmail, want: map[string]float64{
			answered("502", "email_delivery_failed"): 1, took("502"): 1,
		}},
		{name: "Supabase fails for deliveries", Config: resetdtest.Config{Supabase: toDeliveries(status(500)), Settings: soon}, email: knownEmail, want: map[string]float64{
			ok: 1, took("200"): 1, link("failed"): some, linkTook: some, ended("undelivered"): 1, delivered("undelivered"): 1, tries: some, deliveries: 1,
		}},
		{name: "the key is refused for deliveries", Config: resetdtest.Config{Supabase: toDeliveries(status(403)), Settings: soon}, email: unknownEmail, want: map[string]float64{
			ok: 1, took("200"): 1, link("refused"): some, linkTook: some, ended("undelivered"): 1, delivered("undelivered"): 1, tries: some, deliveries: 1,
		}},
		{name: "Supabase hangs for deliveries", Config: resetdtest.Config{Supabase: toDeliveries(hang), Settings: short}, email: knownEmail, want: map[string]float64{
			ok: 1, took("200"): 1, link("timeout"): some, linkTook: some, ended("undelivered"): 1, delivered("undelivered"): 1, tries: some, deliveries: 1,
		}, slow: linkTook},
		{name: "Mailgun fails for deliveries", Config: resetdtest.Config{Mailgun: toDeliveries(status(500)), Settings: soon}, email: knownEmail, want: map[string]float64{
			ok: 1, took("200"): 1, link("ok"): 1, linkTook: 1, send("failed"): some, sendTook: some, ended("undelivered"): 1, delivered("undelivered"): 1, tries: some, deliveries: 1,
		}},
		{name: "Mailgun refuses the message", Config: resetdtest.Config{Mailgun: toDeliveries(status(400))}, email: knownEmail, want: map[string]float64{
			ok: 1, took("200"): 1, link("ok"): 1, linkTook: 1, send("refused"): 3, sendTook: 3, ended("undelivered"): 1, delivered("undelivered"): 1, tries: 3, deliveries: 1,
		}},
		{name: "Mailgun hangs for deliveries", Config: resetdtest.Config{Mailgun: toDeliveries(hang), Settings: map[string]string{"UPSTREAM_TIMEOUT": "1s"}}, email: knownEmail, want: map[string]float64{
			// The fate of each message is unknown, so there is one repeat.
			ok: 1, took("200"): 1, link("ok"): 1, linkTook: 1, send("timeout"): 2, sendTook: 2, ended("unconfirmed"): 1, delivered("unconfirmed"): 1, tries: 2, deliveries: 1,
		}, slow: sendTook},
		{name: "limit of the address", Config: resetdtest.Config{Settings: map[string]string{"RECIPIENT_LIMIT": "1-H"}}, email: knownEmail, twice: true, want: map[string]float64{
			ok: 1, took("200"): 1, `resetd_limited_total{limit="recipient"}`: 1, ended("suppressed"): 1,
		}},
		{name: "limit of the client", Config: resetdtest.Config{Settings: map[string]string{"RATE_LIMIT": "1-H"}}, email: knownEmail, twice: true, want: map[string]float64{
			answered("429", "rate_limited"): 1, took("429"): 1, `resetd_limited_total{limit="ip"}`: 1,
		}},
		{name: "too many", Config: resetdtest.Config{Settings: map[string]string{"MAX_ACCEPTED": "1"}}, email: knownEmail, twice: true, want: map[string]float64{
			answered("503", "overloaded"): 1, took("503"): 1,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			limited := "no"
			if c.want[answered("429", "rate_limited")] > 0 {
				limited = "yes"
			}
			c.want[`resetd_clients_total{client_from="connection",limited="`+limited+`"}`] = 1
			f := start(t, c.Config)
			before := f.Scrape()
			for series := range c.want {
				if _, known := before[series]; !known && !strings.HasPrefix(series, "resetd_request_duration_seconds") && !strings.Contains(series, "429") {
					t.Errorf("%s does not exist from the start: a rate would miss its first increase", series)
				}
			}
			if c.twice {
				f.Ask(c.email)
				f.Settle()
				before = f.Scrape()
			}
			f.Ask(c.email)
			f.Settle()
			after := f.Scrape()
			got := grown(before, after)
			for series, n := range c.want {
				if n == some && got[series] > 0 {
					got[series] = some
				}
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("grown:\n%v\nwant:\n%v", got, c.want)
			}
			for series := range c.want {
				if !strings.Contains(series, "_seconds_count{") {
					continue
				}
				least := 0.0
				if series == c.slow {
					least = (after[series] - before[series]) * 0.1
				}
				sum := strings.Replace(series, "_count{", "_sum{", 1)
				if took := after[sum] - before[sum]; took <= 0 || took < least || took > 60 {
					t.Errorf("%s has grown by %v, want %v or more", sum, took, least)
				}
			}
		})
	}
}

// toDeliveries makes a fault that spares probes.
func toDeliveries(fault http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if readCall(r).isProbe() {
				next.ServeHTTP(w, r)
				return
			}
			fault.ServeHTTP(w, r)
		})
	}
}

// holdUntil delays calls until the channel is closed.
func holdUntil(released <-chan struct{}, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-released:
		case <-r.Context().Done():
		}
		next.ServeHTTP(w, r)
	})
}

// TestPending: the metrics say how many requests are accepted and not yet delivered, and how old the oldest is.
func TestPending(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	f := start(t, resetdtest.Config{
		Settings: map[string]string{"UPSTREAM_TIMEOUT": "30s"},
		Mailgun:  func(next http.Handler) http.Handler { return toDeliveries(holdUntil(release, next))(next) },
	})
	const number, age = "resetd_pending_requests", "resetd_oldest_pending_request_age_seconds"
	began := time.Now()
	for _, email := range []string{knownEmail, otherKnown, "UPPER@example.com"} {
		f.Ask(email)
	}
	allAsked := time.Now()
	asked, series := allAsked, f.Scrape()
	for deadline := time.Now().Add(time.Minute); series[number] != 3 || time.Since(allAsked) < time.Second; asked, series = time.Now(), f.Scrape() {
		if time.Now().After(deadline) {
			t.Fatalf("%v are pending, want 3", series[number])
		}
		time.Sleep(5 * time.Millisecond)
	}
	// The first request was accepted between began and allAsked, and the metrics were read after asked.
	if got, most := series[age], time.Since(began); got < asked.Sub(allAsked).Seconds() || got > most.Seconds() {
		t.Errorf("the oldest is %v s old, want %v to %v", got, asked.Sub(allAsked), most)
	}
	close(release)
	f.Settle()
	if series := f.Scrape(); series[number] != 0 || series[age] != 0 {
		t.Errorf("in the end %v are pending, the oldest for %v s", series[number], series[age])
	}
}

// TestMetricsDescribe: the metrics say which version runs, and where limits count.
func TestMetricsDescribe(t *testing.T) {
	t.Parallel()
	series := start(t, resetdtest.Config{}).Scrape()
	for name, want := range map[string]float64{
		`resetd_limits_in{store="memory"}`: 1, `resetd_limits_in{store="redis"}`: 0, "resetd_redis_configured": 0,
		"resetd_ready": 1, "resetd_pending_requests": 0, "resetd_oldest_pending_request_age_seconds": 0, "resetd_given_up_total": 0,
		`resetd_probe_verdict{upstream="supabase",verdict="unknown"}`: 1, `resetd_probe_verdict{upstream="supabase",verdict="ok"}`: 0,
		`resetd_probe_verdict{upstream="mailgun",verdict="unknown"}`: 1, `resetd_probe_verdict{upstream="mailgun",verdict="down"}`: 0,
	} {
		if got, there := series[name]; !there || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, there, want)
		}
	}
	if series["go_goroutines"] < 1 || series["process_resident_memory_bytes"] < 1 {
		t.Error("no metrics of Go's runtime or of the process")
	}
	found := slices.ContainsFunc(slices.Collect(maps.Keys(series)), func(name string) bool {
		return regexp.MustCompile(`^resetd_build_info\{goversion="go1\.[^"]+",revision="[^"]+",version="\d+\.\d+\.\d+"\}$`).MatchString(name)
	})
	if !found {
		t.Error("no resetd_build_info")
	}
	if series := start(t, resetdtest.Config{Settings: map[string]string{"REDIS_URL": "redis://127.0.0.1:1"}}).Scrape(); series["resetd_redis_configured"] != 1 {
		t.Error("REDIS_URL is set, and resetd_redis_configured is not 1")
	}
}

// TestMetricsAreClosed: requests add no series beyond those of the closed sets, and no label has anything that a
// caller sent.
func TestMetricsAreClosed(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{"RATE_LIMIT": "60-H", "RECIPIENT_LIMIT": "2-H"}})
	hostile := func(salt string) {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "M" + salt} {
			for _, path := range []string{"/", "/" + salt, endpoint, endpoint + "/" + salt, "/api/docs", "/healthz", "/metrics"} {
				request, err := http.NewRequest(method, f.URL+path+"?"+salt, strings.NewReader(`{"email":"`+salt+`@example.net","callback_origin":"https://`+salt+`.example"}`))
				if err != nil {
					t.Fatal(err)
				}
				request.Header = http.Header{
					"Content-Type": {"application/json"}, "Origin": {"https://" + salt + ".example"}, "User-Agent": {salt},
					"X-Request-Id": {"id-of-" + salt[5:]}, "X-Forwarded-For": {"192.0.2.1"}, "Accept-Language": {salt},
				}
				response, err := f.Client.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
			}
		}
		f.Post(`{"email":"`+salt, nil)
		f.Post(salt, map[string]string{"Content-Type": "text/" + salt})
		for range 60 {
			f.Ask(salt + "@example.net")
		}
	}
	hostile("wave-one")
	before := f.Scrape()
	hostile("wave-two")
	after := f.Scrape()
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
