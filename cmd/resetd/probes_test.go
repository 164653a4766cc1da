package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/observe"
)

// TestVerdicts: what a probe finds out, and what becomes of it: an answer for everybody, a record in
// the log, a metric. Quotas of Mailgun, which real mail can use up, are for the operator alone.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	status := func(code int) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
		}
	}
	for _, c := range []struct {
		name     string
		setup    setup
		upstream string // whose verdict it is; the other's is ok, or unknown with MAIL_PROBE=off
		verdict  string
		level    string // of the record; empty: there is none
		answer   string // "status code"
	}{
		{"no fault", setup{}, "supabase", "ok", "INFO", "200 "},
		{"Supabase 401", setup{supabase: status(401)}, "supabase", "key_refused", "ERROR", notConfigured},
		{"Supabase 403", setup{supabase: status(403)}, "supabase", "key_refused", "ERROR", notConfigured},
		{"Supabase 404", setup{supabase: status(404)}, "supabase", "down", "ERROR", unavailable},
		{"Supabase 429", setup{supabase: status(429)}, "supabase", "down", "ERROR", unavailable},
		{"Supabase 500", setup{supabase: status(500)}, "supabase", "down", "ERROR", unavailable},
		{"Supabase hangs", setup{supabase: hanging, env: map[string]string{"UPSTREAM_TIMEOUT": "100ms"}}, "supabase", "down", "ERROR", unavailable},
		{"Supabase fails once", setup{supabase: once(status(500))}, "supabase", "ok", "INFO", "200 "},
		{"Mailgun 401", setup{mailgun: status(401)}, "mailgun", "down", "ERROR", undeliverable},
		{"Mailgun 404", setup{mailgun: status(404)}, "mailgun", "down", "ERROR", undeliverable},
		{"Mailgun 500", setup{mailgun: status(500)}, "mailgun", "down", "ERROR", undeliverable},
		{"Mailgun accepts without an id", setup{mailgun: status(200)}, "mailgun", "down", "ERROR", undeliverable},
		{"Mailgun hangs", setup{mailgun: hanging, env: map[string]string{"UPSTREAM_TIMEOUT": "100ms"}}, "mailgun", "down", "ERROR", undeliverable},
		{"Mailgun fails once", setup{mailgun: once(status(500))}, "mailgun", "ok", "INFO", "200 "},
		{"Mailgun 402", setup{mailgun: status(402)}, "mailgun", "limited", "WARN", "200 "},
		{"Mailgun 403", setup{mailgun: status(403)}, "mailgun", "limited", "WARN", "200 "},
		{"Mailgun 429", setup{mailgun: saying(429, "{}", "Retry-After", "60")}, "mailgun", "limited", "WARN", "200 "},
		{"Mailgun 500, MAIL_PROBE=off", setup{mailgun: status(500), env: map[string]string{"MAIL_PROBE": "off"}}, "mailgun", "unknown", "", "200 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := start(t, c.setup)
			for _, email := range []string{unknownEmail, knownEmail} {
				if a := f.ask(email); fmt.Sprint(a.status, " ", a.body.Code) != c.answer {
					t.Errorf("about %s: %d %s, want %s", email, a.status, a.raw, c.answer)
				}
			}
			others := map[string]string{"supabase": "mailgun", "mailgun": "supabase"}[c.upstream]
			f.awaitVerdict(others, "ok") // an answer waits for no more than it needs
			f.checkVerdict(c.upstream, c.verdict)
			if c.setup.env["MAIL_PROBE"] == "off" {
				for _, call := range f.stack.Calls() {
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
	for _, record := range f.logs.records(f.t, "probe") {
		if record["upstream"] == upstream {
			records = append(records, record)
		}
	}
	return records
}

func verdictSeries(upstream, verdict string) string {
	return fmt.Sprintf("resetd_probe_verdict{upstream=%q,verdict=%q}", upstream, verdict)
}

// checkVerdict checks that the metrics have that verdict on an upstream, and no other.
func (f *fixture) checkVerdict(upstream, want string) {
	f.t.Helper()
	series := f.scrape()
	for _, verdict := range []string{"unknown", "ok", "limited", "key_refused", "down"} {
		got, there := series[verdictSeries(upstream, verdict)]
		if is := map[bool]float64{true: 1}[verdict == want]; !there || got != is {
			f.t.Errorf("%s is %v (%v), want %v", verdictSeries(upstream, verdict), got, there, is)
		}
	}
}

func (f *fixture) awaitVerdict(upstream, verdict string) {
	f.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); f.scrape()[verdictSeries(upstream, verdict)] != 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("the verdict on %s was never %s", upstream, verdict)
		}
	}
}

// TestVerdictsChange: an outage that begins and ends while the server runs is seen by the probes, and
// each change is logged once. What was accepted before rests meanwhile, and is delivered when it ends.
func TestVerdictsChange(t *testing.T) {
	t.Parallel()
	var supabase, mailgun handlerSlot
	f := start(t, setup{supabase: supabase.middleware, mailgun: mailgun.middleware})
	fail := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	check := func(when, want string) {
		t.Helper()
		if a := f.ask(unknownEmail); fmt.Sprint(a.status, " ", a.body.Code) != want {
			t.Errorf("%s: %d %s, want %s", when, a.status, a.raw, want)
		}
	}
	mailgun.set(fail)
	check("while Mailgun fails", undeliverable)
	mailgun.set(nil)
	f.awaitVerdict("mailgun", "ok")
	check("when Mailgun is back", "200 ")
	f.settle()

	supabase.set(fail)
	if a := f.ask(knownEmail); a.status != http.StatusOK { // accepted by the latest verdict
		t.Errorf("%d %s", a.status, a.raw)
	}
	f.awaitVerdict("supabase", "down")
	check("while Supabase fails", unavailable)
	time.Sleep(100 * time.Millisecond) // an attempt may have begun just before
	before := len(f.calls())
	time.Sleep(2500 * time.Millisecond) // longer than a delivery rests before it looks again
	if after := len(f.calls()); before == 0 || after != before {
		t.Errorf("deliveries made %d calls before the probe had seen the outage, and %d after", before, after-before)
	}
	if mails := f.stack.Mails(); len(mails) != 0 {
		t.Errorf("mailed without Supabase: %v", mails)
	}
	supabase.set(nil)
	f.awaitVerdict("supabase", "ok")
	check("when Supabase is back", "200 ")
	f.settle()
	if mails := f.stack.Mails(); len(mails) != 1 {
		t.Errorf("%d mails to who asked when the outage began", len(mails))
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

// TestProbesAreNobodys: what a probe asks and sends is about nobody, over connections that no delivery
// uses; and only two calls are made before the first answer, however many requests wait for it.
func TestProbesAreNobodys(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	connections := map[string]map[bool]bool{} // by the client's address: whether a probe has come over it, and a delivery
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
	f := start(t, setup{supabase: watch, mailgun: watch})
	began := time.Now()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { f.ask(unknownEmail) })
	}
	all.Wait()
	f.settle()
	f.ask(knownEmail)
	f.settle()
	mu.Lock()
	defer mu.Unlock()
	for from, kinds := range connections {
		if len(kinds) != 1 {
			t.Errorf("over the connection %s came a probe and a delivery", from)
		}
	}
	if len(connections) != 4 { // of each to each upstream
		t.Errorf("there were %d connections, want 4", len(connections))
	}
	asked, tested := 0, 0
	for _, call := range f.stack.Calls() {
		switch {
		case call.Service == "supabase" && isProbe(call):
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
	// Supabase is asked again every five seconds.
	if asked < 1 || asked > 1+int(time.Since(began)/(5*time.Second)) || tested != 1 {
		t.Errorf("probes made %d calls of Supabase and %d of Mailgun, want one each", asked, tested)
	}
}

// TestGivenUp: beyond six times MAX_ACCEPTED the oldest pending request is given up, and counted.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	settings, err := readSettings("serve", nil, []string{"MAX_ACCEPTED=1"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		logs, registry := &buffer{}, prometheus.NewRegistry()
		observer := observe.New(slog.New(slog.NewJSONHandler(logs, nil)), registry, nil)
		requests, err := newOutbox(settings, registry, &delivery.Deliverer{
			Watcher: observer, Resting: func() bool { return true }, // an outage
			Timeout: settings.DeliveryTimeout, Fingerprint: func(account string) string { return "hash of " + account },
		}, observer)
		if err != nil {
			t.Fatal(err)
		}
		values := func() (pending, age, givenUp float64) {
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, family := range families {
				switch family.GetName() {
				case "resetd_pending_requests":
					pending = family.GetMetric()[0].GetGauge().GetValue()
				case "resetd_oldest_pending_request_age_seconds":
					age = family.GetMetric()[0].GetGauge().GetValue()
				case "resetd_given_up_total":
					givenUp = family.GetMetric()[0].GetCounter().GetValue()
				}
			}
			return pending, age, givenUp
		}
		for i := range 7 {
			if pending, age, givenUp := values(); pending != float64(i) || age != float64(10*i) || givenUp != 0 {
				t.Errorf("after %d requests: %v pending, the oldest for %v s, %v given up", i, pending, age, givenUp)
			}
			if err := requests.Put(t.Context(), impl.Request{ID: fmt.Sprint("id-", i), Email: fmt.Sprint("account-", i), Accepted: time.Now()}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		if pending, age, givenUp := values(); pending != 6 || age != 60 || givenUp != 1 {
			t.Errorf("after seven requests: %v pending, the oldest for %v s, %v given up", pending, age, givenUp)
		}
		records := logs.records(t, "delivery")
		if len(records) != 1 || records[0]["request_id"] != "id-0" || records[0]["account"] != "hash of account-0" || records[0]["outcome"] != "undelivered" || records[0]["error"] != "too many requests are pending" {
			t.Errorf("logged %v", records)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if err := requests.Close(ended); err == nil || !strings.HasSuffix(err.Error(), ": 6") {
			t.Errorf("six are left, and the outbox says %v", err)
		}
	})
}
