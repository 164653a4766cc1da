package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

// TestVerdicts: each verdict of a probe has these effects: an answer for everybody, a record in the log, and a
// metric. Only the operator learns of Mailgun's quotas, because real mail can use them up.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	status := func(code int) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
		}
	}
	for _, c := range []struct {
		name     string
		setup    resetdtest.Config
		upstream string // with this verdict; the other's is ok, or unknown with MAIL_PROBE=off
		verdict  string
		level    string // of the record; empty: there is none
		answer   string // "status code"
	}{
		{name: "no fault", setup: resetdtest.Config{}, upstream: "supabase", verdict: "ok", level: "INFO", answer: "200 "},
		{name: "Supabase 401", setup: resetdtest.Config{Supabase: status(401)}, upstream: "supabase", verdict: "key_refused", level: "ERROR", answer: notConfigured},
		{name: "Supabase 403", setup: resetdtest.Config{Supabase: status(403)}, upstream: "supabase", verdict: "key_refused", level: "ERROR", answer: notConfigured},
		{name: "Supabase 404", setup: resetdtest.Config{Supabase: status(404)}, upstream: "supabase", verdict: "down", level: "ERROR", answer: unavailable},
		{name: "Supabase 429", setup: resetdtest.Config{Supabase: status(429)}, upstream: "supabase", verdict: "down", level: "ERROR", answer: unavailable},
		{name: "Supabase 500", setup: resetdtest.Config{Supabase: status(500)}, upstream: "supabase", verdict: "down", level: "ERROR", answer: unavailable},
		{
			name: "Supabase hangs", setup: resetdtest.Config{Supabase: resetdtest.Hanging, Settings: map[string]string{"UPSTREAM_TIMEOUT": "1s"}},
			upstream: "supabase", verdict: "down", level: "ERROR", answer: unavailable,
		},
		{name: "Supabase fails once", setup: resetdtest.Config{Supabase: resetdtest.Once(status(500))}, upstream: "supabase", verdict: "ok", level: "INFO", answer: "200 "},
		{name: "Mailgun 401", setup: resetdtest.Config{Mailgun: status(401)}, upstream: "mailgun", verdict: "down", level: "ERROR", answer: undeliverable},
		{name: "Mailgun 404", setup: resetdtest.Config{Mailgun: status(404)}, upstream: "mailgun", verdict: "down", level: "ERROR", answer: undeliverable},
		{name: "Mailgun 500", setup: resetdtest.Config{Mailgun: status(500)}, upstream: "mailgun", verdict: "down", level: "ERROR", answer: undeliverable},
		{name: "Mailgun accepts without an id", setup: resetdtest.Config{Mailgun: status(200)}, upstream: "mailgun", verdict: "down", level: "ERROR", answer: undeliverable},
		{
			name: "Mailgun hangs", setup: resetdtest.Config{Mailgun: resetdtest.Hanging, Settings: map[string]string{"UPSTREAM_TIMEOUT": "1s"}},
			upstream: "mailgun", verdict: "down", level: "ERROR", answer: undeliverable,
		},
		{name: "Mailgun fails once", setup: resetdtest.Config{Mailgun: resetdtest.Once(status(500))}, upstream: "mailgun", verdict: "ok", level: "INFO", answer: "200 "},
		{name: "Mailgun 402", setup: resetdtest.Config{Mailgun: status(402)}, upstream: "mailgun", verdict: "limited", level: "WARN", answer: "200 "},
		{name: "Mailgun 403", setup: resetdtest.Config{Mailgun: status(403)}, upstream: "mailgun", verdict: "limited", level: "WARN", answer: "200 "},
		{name: "Mailgun 429", setup: resetdtest.Config{Mailgun: resetdtest.Saying(429, "{}", "Retry-After", "60")}, upstream: "mailgun", verdict: "limited", level: "WARN", answer: "200 "},
		{
			name: "Mailgun 500, MAIL_PROBE=off", setup: resetdtest.Config{Mailgun: status(500), Settings: map[string]string{"MAIL_PROBE": "off"}},
			upstream: "mailgun", verdict: "unknown", level: "", answer: "200 ",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := start(t, c.setup)
			for _, email := range []string{unknownEmail, knownEmail} {
				if a := f.Ask(email); fmt.Sprint(a.Status, " ", a.Body.Code) != c.answer {
					t.Errorf("about %s: %d %s, want %s", email, a.Status, a.Raw, c.answer)
				}
			}
			others := map[string]string{"supabase": "mailgun", "mailgun": "supabase"}[c.upstream]
			f.awaitVerdict(others, "ok") // an answer may come before this verdict
			f.checkVerdict(c.upstream, c.verdict)
			if c.setup.Settings["MAIL_PROBE"] == "off" {
				for _, call := range f.Stack.Calls() {
					if call.TestMode {
						t.Error("a test message was sent")
					}
				}
			}
			records := f.probeRecords(c.upstream)
			if c.level == "" {
				if len(records) != 0 {
					t.Errorf("logged %v", records)
				}
				return
			}
			if len(records) != 1 {
				t.Fatalf("%d records, want one of the change: %v", len(records), records)
			}
			record := records[0]
			if record["level"] != c.level || record["verdict"] != c.verdict || record["was"] != "unknown" {
				t.Errorf("logged %v", record)
			}
			fields := "time level msg upstream verdict was"
			if c.verdict != "ok" {
				fields += " error"
			}
			checkFields(t, record, fields)
		})
	}
}

func (f *fixture) probeRecords(upstream string) (records []map[string]any) {
	f.t.Helper()
	for _, record := range f.Log.Records(f.t, "probe") {
		if record["upstream"] == upstream {
			records = append(records, record)
		}
	}
	return records
}

func verdictSeries(upstream, verdict string) string {
	return fmt.Sprintf("resetd_probe_verdict{upstream=%q,verdict=%q}", upstream, verdict)
}

// checkVerdict checks that the metrics have this verdict on an upstream, and no other.
func (f *fixture) checkVerdict(upstream, want string) {
	f.t.Helper()
	series := f.Scrape()
	for _, verdict := range []string{"unknown", "ok", "limited", "key_refused", "down"} {
		got, there := series[verdictSeries(upstream, verdict)]
		if is := map[bool]float64{true: 1}[verdict == want]; !there || got != is {
			f.t.Errorf("%s is %v (%v), want %v", verdictSeries(upstream, verdict), got, there, is)
		}
	}
}

func (f *fixture) awaitVerdict(upstream, verdict string) {
	f.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); f.Scrape()[verdictSeries(upstream, verdict)] != 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("the verdict on %s was never %s", upstream, verdict)
		}
	}
}

// TestVerdictsChange: the probes notice an outage that begins and ends while the server runs, and each change is
// logged once. Accepted requests rest meanwhile, and are delivered after it ends.
func TestVerdictsChange(t *testing.T) {
	t.Parallel()
	var supabase, mailgun resetdtest.Slot
	f := start(t, resetdtest.Config{Supabase: supabase.Middleware, Mailgun: mailgun.Middleware})
	fail := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	check := func(when, want string) {
		t.Helper()
		if a := f.Ask(unknownEmail); fmt.Sprint(a.Status, " ", a.Body.Code) != want {
			t.Errorf("%s: %d %s, want %s", when, a.Status, a.Raw, want)
		}
	}
	mailgun.Set(fail)
	check("while Mailgun fails", undeliverable)
	mailgun.Set(nil)
	f.awaitVerdict("mailgun", "ok")
	check("when Mailgun is back", "200 ")
	f.Settle()

	supabase.Set(fail)
	if a := f.Ask(knownEmail); a.Status != http.StatusOK { // accepted by the latest verdict
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	f.awaitVerdict("supabase", "down")
	check("while Supabase fails", unavailable)
	time.Sleep(100 * time.Millisecond) // an attempt may have begun just before
	before := len(f.Calls())
	time.Sleep(2500 * time.Millisecond) // longer than a delivery rests before it looks again
	if after := len(f.Calls()); before == 0 || after != before {
		t.Errorf("deliveries made %d calls before the probe had seen the outage, and %d after", before, after-before)
	}
	if mails := f.Stack.Mails(); len(mails) != 0 {
		t.Errorf("mailed without Supabase: %v", mails)
	}
	supabase.Set(nil)
	f.awaitVerdict("supabase", "ok")
	check("when Supabase is back", "200 ")
	f.Settle()
	if mails := f.Stack.Mails(); len(mails) != 1 {
		t.Errorf("%d mails for the request at the beginning of the outage", len(mails))
	}
	for upstream, want := range map[string]string{"supabase": "ok down ok", "mailgun": "down ok"} {
		var verdicts []string
		was := "unknown"
		for _, record := range f.probeRecords(upstream) {
			if record["was"] != was {
				t.Errorf("%v, and before it was %s", record, was)
			}
			was, _ = record["verdict"].(string)
			verdicts = append(verdicts, was)
		}
		if got := strings.Join(verdicts, " "); got != want {
			t.Errorf("of %s the log has %q, want %q", upstream, got, want)
		}
	}
}

// TestProbesAreNobodys: probes ask and send about nobody, over connections that no delivery uses. Before the first
// answer there are only two calls, however many requests wait for it.
func TestProbesAreNobodys(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	connections := map[string]map[bool]bool{} // by the client's address: whether probes and deliveries have used it
	watch := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			from := r.Context().Value(http.LocalAddrContextKey).(net.Addr).String() + " " + r.RemoteAddr
			if connections[from] == nil {
				connections[from] = map[bool]bool{}
			}
			connections[from][readCall(r).isProbe()] = true
			mu.Unlock()
			next.ServeHTTP(w, r)
		})
	}
	f := start(t, resetdtest.Config{Supabase: watch, Mailgun: watch})
	began := time.Now()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { f.Ask(unknownEmail) })
	}
	all.Wait()
	f.Settle()
	f.Ask(knownEmail)
	f.Settle()
	mu.Lock()
	defer mu.Unlock()
	for from, kinds := range connections {
		if len(kinds) != 1 {
			t.Errorf("over the connection %s came a probe and a delivery", from)
		}
	}
	if len(connections) != 4 { // one of probes and one of deliveries to each upstream
		t.Errorf("there were %d connections, want 4", len(connections))
	}
	asked, tested := 0, 0
	for _, call := range f.Stack.Calls() {
		switch {
		case call.Service == "supabase" && resetdtest.IsProbe(call):
			asked++
		case call.TestMode:
			tested++
			if len(call.To) != 1 || call.To[0] != "no-reply@mg.example.com" {
				t.Errorf("a test message to %q", call.To)
			}
		case call.Service == "supabase" && call.Email != unknownEmail && call.Email != knownEmail:
			t.Errorf("a call about %q", call.Email)
		}
	}
	// Supabase Auth is probed again every five seconds.
	if asked < 1 || asked > 1+int(time.Since(began)/(5*time.Second)) || tested != 1 {
		t.Errorf("probes made %d calls of Supabase and %d of Mailgun, want one each", asked, tested)
	}
}
