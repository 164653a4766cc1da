package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

// The tests of this file are about promise 7 of SECURITY.md: the process writes no address, token, link, code or key,
// and nothing that an upstream wrote. Every test that starts a server also tests this: at its end, all that the
// server wrote is searched for all private texts that it got. This covers standard output and the log at its lowest
// level, the metrics, and the traces if there is a collector.

// faultsOf is an upstream with another fault for each address.
type faultsOf struct {
	byAddress map[string]fault
	mu        sync.Mutex
	met       map[string]bool // addresses
}

func newFaults() *faultsOf { return &faultsOf{byAddress: map[string]fault{}, met: map[string]bool{}} }

func (f *faultsOf) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := readCall(r)
		now, faulty := f.byAddress[call.email]
		if !faulty || call.isProbe() {
			next.ServeHTTP(w, r)
			return
		}
		f.mu.Lock()
		f.met[call.email] = true
		f.mu.Unlock()
		now.inject(w, r, next, call.email)
	})
}

// inject makes an upstream fail that would otherwise answer like next.
func (f *fault) inject(w http.ResponseWriter, r *http.Request, next http.Handler, email string) {
	if f.rewrite != nil {
		rewriteAnswer(w, r, next, f.rewrite)
		return
	}
	f.serve(w, r, email)
}

// askIndiscreetly sends a request with private texts in every place that a caller can fill.
func (f *fixture) askIndiscreetly(email, from string) resetdtest.Answer {
	f.t.Helper()
	body, _ := json.Marshal(map[string]string{"email": email, "callback_origin": "https://callback-of-the-caller.example"})
	return f.Post(string(body), map[string]string{
		"X-Forwarded-For": from, "Authorization": "Bearer token-of-the-caller", "Cookie": "session=of-the-caller", "Baggage": "who=of-the-caller",
		"Referer": "https://referrer-of-the-caller.example/?of-the-caller", "User-Agent": "agent-of-the-caller", "Origin": "https://origin-of-the-caller.example",
	})
}

// ofTheCaller are the private texts of askIndiscreetly.
var ofTheCaller = []string{"of-the-caller", "origin-of", "https://origin-of-the-caller.example"}

// loudest are the settings with the most output.
func loudest(c *collecting, redis string) map[string]string {
	return with(withWebhooks, behindProxy, map[string]string{
		"UPSTREAM_TIMEOUT": "1s", "OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=key-of-the-collector",
		"REDIS_URL": "redis://:password-of-redis@" + redis, "RATE_LIMIT": "1000000-S",
	})
}

// TestNothingIsTold is promise 7 of SECURITY.md for the binary itself. Its deliveries have every fault, with all
// outputs on: the log at debug, metrics, traces, webhooks, and a Redis that repeats its password. Each fault has its
// own addresses, so that all deliveries run at the same time.
func TestNothingIsTold(t *testing.T) {
	t.Parallel()
	supabase, mailgun := newFaults(), newFaults()
	var accounts, addresses []string
	for i, fault := range append(supabaseFaults(), accountFaults()...) {
		account, unknown := fmt.Sprintf("O'Hara+supabase-%d@example.com", i), fmt.Sprintf("O'Hara+supabase-%d@Example.NET", i)
		supabase.byAddress[account], supabase.byAddress[unknown] = fault, fault
		accounts, addresses = append(accounts, account), append(addresses, account, unknown)
	}
	for i, fault := range mailgunFaults() {
		account := fmt.Sprintf("O'Hara+mailgun-%d@example.com", i)
		mailgun.byAddress[account] = fault
		accounts, addresses = append(accounts, account), append(addresses, account)
	}
	c := newCollector(t)
	f := startWith(t, resetdtest.Config{
		Build: resetdtest.BuildPatient, Remember: 3000, // all texts
		Accounts: accounts, Settings: with(loudest(c, accepting(t, repeat)), map[string]string{"UPSTREAM_TIMEOUT": "5s", "DELIVERY_TIMEOUT": "15s", "MAX_DELIVERIES": "100"}),
		Supabase: supabase.middleware, Mailgun: mailgun.middleware,
	}, c)
	f.Confidential(ofTheCaller...)
	var all sync.WaitGroup
	for i, email := range append(addresses, knownEmail, unknownEmail) {
		all.Go(func() {
			if a := f.askIndiscreetly(email, fmt.Sprintf("2001:db8:0:%x::1", i)); a.Status != http.StatusOK {
				t.Errorf("%s: %d %s", email, a.Status, a.Raw)
			}
		})
	}
	all.Wait()
	f.Settle()
	for of, faults := range map[string]*faultsOf{"Supabase": supabase, "Mailgun": mailgun} {
		for address, fault := range faults.byAddress {
			if !faults.met[address] {
				t.Errorf("no delivery to %s has met the fault of %s: %s", address, of, fault.name)
			}
		}
	}
	if lost := len(regexp.MustCompile(`"outcome":"(undelivered|unconfirmed)"`).FindAllString(f.Log.String(), -1)); lost < len(addresses)/2 {
		t.Errorf("of %d deliveries, only %d have failed", len(addresses), lost)
	}
	for _, request := range badRequests() {
		f.Post(request.body, request.header)
	}
	for _, path := range []string{endpoint + "?address=" + url.QueryEscape(knownEmail), "/" + url.PathEscape(unknownEmail), "/%ff" + knownEmail} {
		f.Do(newRequest(t, http.MethodPost, f.URL+path))
		f.Do(newRequest(t, "X-METHOD-OF-THE-CALLER", f.URL+path))
	}
	speakNoHTTP(t, f, "GET /"+knownEmail+" HTTP/9.9\r\n\r\n", "nonsense of "+unknownEmail+"\r\n\r\n", "POST "+endpoint+" HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat(knownEmail, 2000)+"\r\n\r\n")
	for _, change := range []func(*report){
		func(*report) {}, func(r *report) { r.key = "another" }, func(r *report) { r.at = time.Unix(1, 0) }, func(r *report) { r.event = "made-up-by-the-caller" },
	} {
		r := newReport(knownEmail)
		change(&r)
		f.Confidential(r.token, r.signature(), "secret-reason", "secret-message", "made-up-by")
		f.hook(r.body())
		f.hook(r.body()[:100])
	}
	metrics := f.Metrics()
	if err := f.Stop(); err != nil {
		t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for what, minimum := range map[string]int{operationSpan: len(addresses), deliverySpan: len(addresses), linkSpan: len(addresses), sendSpan: len(mailgun.byAddress)} {
		if got := strings.Count(c.raw.String(), what); got < minimum {
			t.Errorf("the collector was sent %d spans %s of %d requests", got, what, len(addresses))
		}
	}
	f.Log.Await(t, `Redis does not work.*"reason":"its answer could not be understood"`)
	if !strings.Contains(metrics, "resetd_webhook_refused_total") {
		t.Error("there are no metrics to search")
	}
}

// TestProbesTellNothing is promise 7 of SECURITY.md for the probes of the binary. They have every fault, each with its
// own server.
func TestProbesTellNothing(t *testing.T) {
	t.Parallel()
	ofSupabase, ofMailgun := supabaseFaults(), mailgunFaults()
	for i := range max(len(ofSupabase), len(ofMailgun)) {
		supabase, mailgun := ofSupabase[i%len(ofSupabase)], ofMailgun[i%len(ofMailgun)]
		t.Run("Supabase "+supabase.name+", Mailgun "+mailgun.name, func(t *testing.T) {
			t.Parallel()
			always := func(fault fault) func(http.Handler) http.Handler {
				return func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fault.inject(w, r, next, readCall(r).email) })
				}
			}
			c := newCollector(t)
			f := startWith(t, resetdtest.Config{
				Build: resetdtest.BuildPatient, Settings: loudest(c, accepting(t, repeat)),
				Supabase: always(supabase), Mailgun: always(mailgun),
			}, c)
			f.Confidential(ofTheCaller...)
			for i, email := range []string{knownEmail, unknownEmail} {
				if a := f.askIndiscreetly(email, fmt.Sprintf("2001:db8:0:%x::1", i)); a.Status < http.StatusInternalServerError {
					t.Errorf("%s: %d %s", email, a.Status, a.Raw)
				}
			}
			for _, upstream := range []string{"supabase", "mailgun"} {
				if verdict := f.Log.Await(t, `"msg":"probe","upstream":"`+upstream+`","verdict":"([a-z_]+)"`); verdict == "ok" {
					t.Errorf("the probe of %s has met no fault", upstream)
				}
			}
			if err := f.Stop(); err != nil {
				t.Error(err)
			}
			if !strings.Contains(c.sent(), operationSpan) {
				t.Error("the collector was sent nothing")
			}
		})
	}
}

// badRequest sends a request that is refused.
type badRequest struct {
	body   string
	header map[string]string
}

func badRequests() []badRequest {
	return []badRequest{
		{body: `{"email":"` + knownEmail}, {body: `["` + knownEmail + `"]`}, {body: `"` + knownEmail + `"`},
		{body: `{"email":"` + knownEmail + `","email":"` + unknownEmail + `"}`},
		{body: `{"email":"` + knownEmail + `","EMAIL":"` + unknownEmail + `"}`},
		{body: `{"email":"no address of known@example"}`}, {body: `{"email":["` + knownEmail + `"]}`},
		{body: `{"email":{"address":"` + knownEmail + `"}}`}, {body: `{"email":"` + knownEmail + `","callback_origin":7}`},
		{body: `{"email":"` + knownEmail + `"} {"email":"` + unknownEmail + `"}`},
		{body: "{\"email\":\"\xff" + knownEmail + `"}`}, {body: `{"email":"` + strings.Repeat("x", 300) + knownEmail + `"}`},
		{body: strings.Repeat(" ", 17<<10) + knownEmail},
		{body: `{"email":"` + knownEmail + `"}`, header: map[string]string{"Content-Type": "text/" + url.QueryEscape(knownEmail)}},
		{body: `{"email":"` + knownEmail + `"}`, header: map[string]string{"X-Request-Id": knownEmail}},
		{body: `{"email":"` + knownEmail + `"}`, header: map[string]string{"Accept-Language": knownEmail}},
		{body: `{"email":"` + knownEmail + `"}`, header: map[string]string{"X-Forwarded-For": "no address of the caller"}},
	}
}

// speakNoHTTP sends bytes that net/http itself answers.
func speakNoHTTP(t *testing.T, f *fixture, texts ...string) {
	t.Helper()
	for _, text := range texts {
		conn, err := net.Dial("tcp", strings.TrimPrefix(f.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.ReadAll(conn)
		_ = conn.Close()
	}
}

// repeat is a server in place of Redis that answers everything with what it gets.
func repeat(conn net.Conn) {
	for told := make([]byte, 4096); ; {
		n, err := conn.Read(told)
		if err != nil {
			return
		}
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 400 %s\r\n", strings.ReplaceAll(string(told[:n]), "\r\n", " "))
	}
}

// accepting serves each connection to the returned address until the test ends.
func accepting(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return listener.Addr().String()
}
