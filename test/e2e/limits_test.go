package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

// behindProxy makes the test a trusted proxy, so that each request may have its own client.
var behindProxy = map[string]string{"TRUSTED_PROXIES": "127.0.0.0/8"}

// with merges maps of settings; later maps win.
func with(settings ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, some := range settings {
		maps.Copy(all, some)
	}
	return all
}

// askAs sends a valid request as the client in these X-Forwarded-For lines.
func (f *fixture) askAs(email string, forwardedFor ...string) resetdtest.Answer {
	f.t.Helper()
	return f.Do(requestAs(f.t, f.URL, email, forwardedFor...))
}

func requestAs(t testing.TB, url, email string, forwardedFor ...string) *http.Request {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, url+endpoint, strings.NewReader(fmt.Sprintf(`{"email":%q}`, email)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if len(forwardedFor) > 0 {
		request.Header["X-Forwarded-For"] = forwardedFor
	}
	return request
}

// rateFields is what the RateLimit field says of each window.
type rateFields map[string]struct{ remaining, reset int }

var (
	policyPattern = regexp.MustCompile(`^("per-(second|minute|hour|day)";q=[1-9][0-9]*;w=[1-9][0-9]*(, |$))+$`)
	limitPattern  = regexp.MustCompile(`"per-(second|minute|hour|day)";r=([0-9]+);t=([1-9][0-9]*)(?:, |$)`)
)

// readRateFields checks the form of both fields, and returns their values.
func readRateFields(t testing.TB, a resetdtest.Answer, wantPolicy string) rateFields {
	t.Helper()
	policies, limits := a.Header["Ratelimit-Policy"], a.Header["Ratelimit"]
	if len(policies) != 1 || policies[0] != wantPolicy || !policyPattern.MatchString(policies[0]) {
		t.Errorf("%d %s: RateLimit-Policy is %q, want %q", a.Status, a.Body.Code, policies, wantPolicy)
	}
	fields := rateFields{}
	if len(limits) != 1 {
		t.Errorf("%d %s: RateLimit is %q", a.Status, a.Body.Code, limits)
		return fields
	}
	rest := limits[0]
	for _, found := range limitPattern.FindAllStringSubmatch(limits[0], -1) {
		rest = strings.Replace(rest, found[0], "", 1)
		remaining, _ := strconv.Atoi(found[2])
		reset, _ := strconv.Atoi(found[3])
		fields[found[1]] = struct{ remaining, reset int }{remaining, reset}
	}
	if rest != "" || len(fields) != strings.Count(wantPolicy, "q=") {
		t.Errorf("%d %s: RateLimit is %q, and the policy %q", a.Status, a.Body.Code, limits[0], wantPolicy)
	}
	return fields
}

// checkRefusal checks a 429, and returns the time to wait.
func checkRefusal(t testing.TB, a resetdtest.Answer, atLeast, atMost int) int {
	t.Helper()
	seconds, err := strconv.Atoi(a.Header.Get("Retry-After"))
	if a.Status != http.StatusTooManyRequests || a.Body.Code != "rate_limited" || err != nil || a.Body.RetryAfter != float64(seconds) ||
		strconv.Itoa(seconds) != a.Header.Get("Retry-After") || len(a.Header["Retry-After"]) != 1 ||
		!strings.Contains(a.Body.Error, strconv.Itoa(seconds)) {
		t.Errorf("not the documented refusal: %d, Retry-After %q, %s", a.Status, a.Header["Retry-After"], a.Raw)
	}
	if seconds < atLeast || seconds > atMost {
		t.Errorf("to be tried again in %d s, want %d to %d", seconds, atLeast, atMost)
	}
	return seconds
}

// TestWindows: all windows must allow. A refusal says the longest wait, and costs nothing.
func TestWindows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rate, policy  string
		served        int
		wait          int // in a refusal, including the time since the first request
		minutes, hour int // left after it
	}{
		{rate: "2-M,3-H", policy: `"per-minute";q=2;w=60, "per-hour";q=3;w=3600`, served: 2, wait: 60, minutes: 0, hour: 1},
		{rate: "3-H,2-M", policy: `"per-minute";q=2;w=60, "per-hour";q=3;w=3600`, served: 2, wait: 60, minutes: 0, hour: 1}, // in any order
		{rate: "3-M,3-H", policy: `"per-minute";q=3;w=60, "per-hour";q=3;w=3600`, served: 3, wait: 3600, minutes: 0, hour: 0},
		{rate: "5-M,2-H", policy: `"per-minute";q=5;w=60, "per-hour";q=2;w=3600`, served: 2, wait: 3600, minutes: 3, hour: 0},
	} {
		f := start(t, resetdtest.Config{Settings: map[string]string{"RATE_LIMIT": c.rate}})
		var minuteLimit, hourLimit int
		if _, err := fmt.Sscanf(c.policy, `"per-minute";q=%d;w=60, "per-hour";q=%d;w=3600`, &minuteLimit, &hourLimit); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for i, email := range []string{knownEmail, otherKnown, "UPPER@example.com"}[:c.served] {
			a := f.Ask(email)
			fields := readRateFields(t, a, c.policy)
			if a.Status != http.StatusOK || fields["minute"].remaining != minuteLimit-i-1 || fields["hour"].remaining != hourLimit-i-1 {
				t.Errorf("%s, request %d: %d, %v", c.rate, i+1, a.Status, fields)
			}
			if _, there := a.Header["Retry-After"]; there {
				t.Errorf("%s: a request that is served has Retry-After", c.rate)
			}
		}
		for range 3 { // a refusal does not count in any window
			a := f.Ask(knownEmail)
			// Rounded up; a window is open for a millisecond less than its period.
			least := math.Ceil(float64(c.wait) - time.Since(began).Seconds() - 0.001)
			seconds := checkRefusal(t, a, int(least), c.wait)
			fields := readRateFields(t, a, c.policy)
			if fields["minute"].remaining != c.minutes || fields["hour"].remaining != c.hour {
				t.Errorf("%s, refused: %v", c.rate, fields)
			}
			longest := 0
			for _, window := range fields {
				if window.remaining == 0 {
					longest = max(longest, window.reset)
				}
			}
			if seconds != longest {
				t.Errorf("%s: Retry-After is %d, and the windows say %v", c.rate, seconds, fields)
			}
		}
		f.Settle()
		if mails := len(f.Stack.Mails()); mails != c.served {
			t.Errorf("%s: %d mails", c.rate, mails)
		}
	}
}

// TestWaitAsTold: a client that waits as told is served, again and again.
func TestWaitAsTold(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{"RATE_LIMIT": "2-S,100-M", "RECIPIENT_LIMIT": "1-H"}})
	refused := func() (a resetdtest.Answer) {
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
			if a = f.Ask(unknownEmail); a.Status != http.StatusOK {
				return a
			}
		}
		t.Fatal("never refused")
		return a
	}
	for range 3 {
		seconds := checkRefusal(t, refused(), 1, 1)
		time.Sleep(time.Duration(seconds) * time.Second)
		if a := f.Ask(unknownEmail); a.Status != http.StatusOK {
			t.Fatalf("after waiting for %d s as told: %d %s", seconds, a.Status, a.Raw)
		}
	}
	// A refused request changes nothing behind the limit: the recipient's limit is still unused.
	refused()
	for range 5 {
		f.Ask(knownEmail)
	}
	f.Settle()
	calls := len(f.Calls())
	for range 20 {
		if a := f.Ask(otherKnown); a.Status == http.StatusTooManyRequests {
			break
		}
	}
	f.Settle()
	if after := len(f.Calls()); after > calls+2 {
		t.Errorf("%d calls for one recipient whose limit is 1", after-calls)
	}
}

// TestRefusedBodyIsNotRead: a refused client gets its answer before the body arrives.
func TestRefusedBodyIsNotRead(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{"RATE_LIMIT": "1-H", "RECIPIENT_LIMIT": "1-H"}})
	f.Ask(unknownEmail)
	f.Settle()
	calls := len(f.Calls())
	for name, headers := range map[string]string{
		"10 MB announced":       "Content-Length: 10000000\r\n",
		"more than anybody has": "Content-Length: 9223372036854775807\r\n",
		"asks before it sends":  "Content-Length: 40\r\nExpect: 100-continue\r\n",
		"asks, sends in chunks": "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n",
	} {
		conn := f.dial()
		began := time.Now()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%s\r\n", endpoint, headers)
		a, err := conn.answer()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		checkRefusal(t, a, 3000, 3600)
		// A server that waited for the body would do so for readTimeout.
		if took := time.Since(began); took > readTimeout/2 {
			t.Errorf("%s: refused only after %v", name, took)
		}
		if strings.Contains(name, "asks") {
			continue // net/http waits for such a body, and discards it
		}
		if !conn.ends(readTimeout / 2) {
			t.Errorf("%s: the connection goes on, and would read the body", name)
		}
	}
	for range 20 {
		f.Ask(knownEmail)
	}
	f.Settle()
	if after := len(f.Calls()); after != calls {
		t.Errorf("%d calls for refused requests", after-calls)
	}
}

// wire is a connection to the server on which a test writes arbitrary bytes.
type wire struct {
	net.Conn
	t      testing.TB
	reader *bufio.Reader
}

func (f *fixture) dial() *wire {
	f.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.URL, "http://"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	return &wire{conn, f.t, bufio.NewReader(conn)}
}

// answer reads one answer within a minute, and checks it against the contract.
func (w *wire) answer() (resetdtest.Answer, error) {
	_ = w.SetReadDeadline(time.Now().Add(time.Minute))
	request, _ := http.NewRequest(http.MethodPost, "http://localhost"+endpoint, nil)
	response, err := http.ReadResponse(w.reader, request)
	if err != nil {
		return resetdtest.Answer{}, err
	}
	if response.StatusCode < 200 {
		return resetdtest.Answer{}, fmt.Errorf("the server asks for the body: %s", response.Status)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return resetdtest.Answer{}, err
	}
	a := resetdtest.Answer{Status: response.StatusCode, Header: response.Header, Raw: string(body)}
	if response.Close {
		a.Header.Set("Connection", "close") // net/http removes it
	}
	if response.Header.Get("Content-Type") != "application/json" {
		return a, nil // net/http's own
	}
	resetdtest.CheckResponse(w.t, request, response, body)
	return a, json.Unmarshal(body, &a.Body)
}

// ends says whether the server closes the connection within that time, without another byte.
func (w *wire) ends(within time.Duration) bool {
	_ = w.SetReadDeadline(time.Now().Add(within))
	_, err := w.reader.ReadByte()
	var timeout net.Error
	return err != nil && (!errors.As(err, &timeout) || !timeout.Timeout())
}

// TestRateLimitFields: every kind of answer of the operation has the fields, and no other answer. An answer that
// shows a fault comes from its own server, which has the fault from the start.
func TestRateLimitFields(t *testing.T) {
	t.Parallel()
	const policy = `"per-minute";q=50;w=60, "per-hour";q=60;w=3600`
	settings := map[string]string{"RATE_LIMIT": "50-M,60-H"}
	fail := func(status int) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		}
	}
	check := func(what string, a resetdtest.Answer, taken, status int, code string) {
		t.Helper()
		if a.Status != status || a.Body.Code != code {
			t.Errorf("%s: %d %s, want %d %s", what, a.Status, a.Raw, status, code)
		}
		fields := readRateFields(t, a, policy)
		if minute, hour := fields["minute"], fields["hour"]; minute.remaining != 50-taken || hour.remaining != 60-taken ||
			minute.reset > 60 || minute.reset < 30 || hour.reset > 3600 || hour.reset < 3570 {
			t.Errorf("%s, after %d requests: %v", what, taken, fields)
		}
	}
	valid := `{"email":"known@example.com"}`
	for _, c := range []struct {
		name   string
		setup  resetdtest.Config
		status int
		code   string
	}{
		{name: "a refused key", setup: resetdtest.Config{Supabase: fail(401)}, status: 500, code: "auth_not_configured"},
		{name: "no Supabase", setup: resetdtest.Config{Supabase: fail(500)}, status: 503, code: "auth_unavailable"},
		{name: "no Mailgun", setup: resetdtest.Config{Mailgun: fail(500)}, status: 502, code: "email_delivery_failed"},
	} {
		c.setup.Settings = settings
		f := start(t, c.setup)
		for taken := range 3 {
			check(c.name, f.Post(valid, nil), taken+1, c.status, c.code)
		}
	}
	f := start(t, resetdtest.Config{Settings: settings})
	taken := 0
	for _, c := range []struct {
		name, body string
		header     map[string]string
		status     int
		code       string
	}{
		{name: "an account", body: valid, status: 200},
		{name: "a stranger", body: `{"email":"stranger@example.org"}`, status: 200},
		{name: "no JSON", body: "nonsense", status: 400, code: "invalid_json"},
		{name: "no address", body: "{}", status: 400, code: "invalid_request"},
		{name: "too large", body: strings.Repeat("x", 20_000), status: 413, code: "payload_too_large"},
		{name: "another media type", body: valid, header: map[string]string{"Content-Type": "text/plain"}, status: 415, code: "unsupported_media_type"},
		{name: "an account again", body: valid, status: 200},
	} {
		taken++
		check(c.name, f.Post(c.body, c.header), taken, c.status, c.code)
	}
	for _, other := range []struct{ method, path string }{
		{http.MethodGet, endpoint}, {http.MethodPut, endpoint}, {http.MethodOptions, endpoint}, {http.MethodHead, endpoint},
		{http.MethodPost, "/api/other"}, {http.MethodPost, endpoint + "/"}, {http.MethodGet, "/"},
		{http.MethodGet, "/healthz"}, {http.MethodGet, "/api/openapi.json"},
	} {
		a := f.Do(newRequest(t, other.method, f.URL+other.path))
		for _, name := range []string{"Ratelimit", "Ratelimit-Policy", "Retry-After", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"} {
			if value, there := a.Header[http.CanonicalHeaderKey(name)]; there {
				t.Errorf("%s %s: %s is %q", other.method, other.path, name, value)
			}
		}
	}
	// These requests do not count either.
	fields := readRateFields(t, f.Ask(knownEmail), policy)
	if taken++; fields["minute"].remaining != 50-taken {
		t.Errorf("after %d requests: %v", taken, fields)
	}
	for range 50 - taken {
		f.Post("", nil)
	}
	a := f.Post("", nil)
	checkRefusal(t, a, 1, 60)
	if fields := readRateFields(t, a, policy); fields["minute"].remaining != 0 || fields["hour"].remaining != 10 {
		t.Errorf("a refusal: %v", fields)
	}
}

// untold are the last of resetdtest.ForwardingHeaders. They cause no warning.
const untold = 10

// TestForgedAddress: a peer that is no trusted proxy counts as itself, whatever headers it sends.
func TestForgedAddress(t *testing.T) {
	t.Parallel()
	for _, trusted := range []string{"", "10.0.0.0/8,::1,192.0.2.1"} {
		f := start(t, resetdtest.Config{Settings: map[string]string{"RATE_LIMIT": "1-H", "TRUSTED_PROXIES": trusted}})
		if a := f.askAs(unknownEmail, "192.0.2.77"); a.Status != http.StatusOK {
			t.Fatalf("%d %s", a.Status, a.Raw)
		}
		for _, lines := range [][]string{nil, {"192.0.2.1"}, {"10.0.0.1"}, {"203.0.113.1, 10.0.0.1"}, {"2001:db8::1"}, {"127.0.0.1"}, {""}, {"198.51.100.1", "198.51.100.2"}} {
			if a := f.askAs(unknownEmail, lines...); a.Status != http.StatusTooManyRequests {
				t.Errorf("TRUSTED_PROXIES=%s, X-Forwarded-For %q: %d", trusted, lines, a.Status)
			}
		}
		for i, name := range resetdtest.ForwardingHeaders {
			value := fmt.Sprintf("203.0.113.%d", i+1)
			if name == "Forwarded" {
				value = "for=" + value
			}
			if a := f.Post(`{"email":"known@example.com"}`, map[string]string{name: value}); a.Status != http.StatusTooManyRequests {
				t.Errorf("TRUSTED_PROXIES=%s, %s: %d", trusted, name, a.Status)
			}
		}
		// For all of these the log has one warning, without any of the addresses.
		f.checkProxyWarning("not_trusted", "X-Forwarded-For", "TRUSTED_PROXIES")
		if found := regexp.MustCompile(`192\.0\.2\.|203\.0\.113\.|2001:db8|10\.0\.0\.1|198\.51\.100`).FindString(f.Log.String()); found != "" {
			t.Errorf("the log has %q", found)
		}
		metrics := f.Scrape()
		if limited, served := metrics[`resetd_clients_total{client_from="not_trusted",limited="yes"}`], metrics[`resetd_clients_total{client_from="not_trusted",limited="no"}`]; limited != float64(7+len(resetdtest.ForwardingHeaders)-untold) || served != 1 {
			t.Errorf("%v requests with a forwarding header were refused, and %v served", limited, served)
		}
		if limited := metrics[`resetd_clients_total{client_from="connection",limited="yes"}`]; limited != float64(1+untold) {
			t.Errorf("%v requests without a forwarding header were refused", limited)
		}
	}
}

// checkProxyWarning checks that there is one warning about clients that cannot be told apart, which names the header
// and says what to do.
func (f *fixture) checkProxyWarning(source, header, fix string) {
	f.t.Helper()
	var found []map[string]any
	for _, record := range f.Log.Records(f.t, "clients may not be told apart") {
		if record["client_from"] == source {
			found = append(found, record)
		}
	}
	if len(found) != 1 {
		f.t.Errorf("%d warnings about %s, want 1", len(found), source)
		return
	}
	if text := fmt.Sprint(found[0]["fix"]); found[0]["level"] != "WARN" || found[0]["header"] != header || !strings.Contains(text, fix) {
		f.t.Errorf("the warning does not name %s, or does not say what to do (%s): %v", header, fix, found[0])
	}
}

// TestTrustedProxies: behind a trusted proxy, the client is the rightmost hop that is not trusted.
func TestTrustedProxies(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{
		"RATE_LIMIT": "1-H", "TRUSTED_PROXIES": "127.0.0.0/8, 10.0.0.0/8, 2001:db8:ffff::/48",
	}})
	long := strings.Repeat("x", 5000)
	many := strings.Repeat("10.0.0.1, ", 70)
	for i, c := range []struct {
		what  string
		lines []string
		same  string // the client's address, for a request of its own
		other string // an address that is not the client's
	}{
		{what: "one hop", lines: []string{"192.0.2.1"}, same: "192.0.2.1", other: "192.0.2.2"},
		{what: "what a client writes itself stands left", lines: []string{"203.0.113.9, 192.0.2.3"}, same: "192.0.2.3", other: "203.0.113.9"},
		{what: "trusted hops are passed over", lines: []string{"192.0.2.4, 10.8.0.1, 2001:db8:ffff::7, 127.0.0.9"}, same: "192.0.2.4", other: "10.8.0.1"},
		{what: "but not a hop to the left of the client", lines: []string{"10.8.0.2, 192.0.2.5"}, same: "192.0.2.5", other: "10.8.0.2"},
		{what: "the last line is the nearest", lines: []string{"203.0.113.10", "192.0.2.6"}, same: "192.0.2.6", other: "203.0.113.10"},
		{what: "lines are one list", lines: []string{"203.0.113.11, 192.0.2.7", "10.0.0.1", "10.0.0.2"}, same: "192.0.2.7", other: "203.0.113.11"},
		{what: "empty entries and lines", lines: []string{"203.0.113.12,, 192.0.2.8, ,", "", " , "}, same: "192.0.2.8", other: "203.0.113.12"},
		{what: "a port", lines: []string{"192.0.2.9:4711"}, same: "192.0.2.9", other: ""},
		{what: "a /64 is one client", lines: []string{"2001:db8:0:1:aaaa:bbbb:cccc:dddd"}, same: "2001:db8:0:1::1", other: "2001:db8:0:2::1"},
		{what: "in brackets", lines: []string{"[2001:db8:0:3::1]"}, same: "2001:db8:0:3::2", other: "2001:db8:0:4::1"},
		{what: "in brackets with a port", lines: []string{"[2001:db8:0:5::1]:443"}, same: "2001:db8:0:5::2", other: "2001:db8:0:6::1"},
		{what: "IPv4 within IPv6", lines: []string{"::ffff:192.0.2.10"}, same: "192.0.2.10", other: "192.0.2.11"},
		{what: "in hexadecimal", lines: []string{"::ffff:c000:20c"}, same: "192.0.2.12", other: "::ffff:192.0.2.13"},
		{what: "a trusted proxy within IPv6", lines: []string{"192.0.2.14, ::ffff:10.8.0.3"}, same: "192.0.2.14", other: "10.8.0.3"},
		{what: "a zone", lines: []string{"fe80::1%eth0"}, same: "fe80::2", other: "fe80:0:0:1::1"},
		{what: "upper case", lines: []string{"2001:DB8:0:7::A"}, same: "2001:db8:0:7::b", other: "2001:db8:0:8::a"},
		{what: "blanks and tabs", lines: []string{"203.0.113.13 ,\t192.0.2.15\t"}, same: "192.0.2.15", other: "203.0.113.13"},
		// A hop that is invalid ends the search at the last hop before it.
		{what: "broken, then a proxy", lines: []string{"192.0.2.16, nonsense, 10.9.0.1"}, same: "10.9.0.1", other: "192.0.2.16"},
		{what: "unknown (RFC 7239)", lines: []string{"192.0.2.17, unknown, 10.9.0.2"}, same: "10.9.0.2", other: "192.0.2.17"},
		{what: "an octet too many", lines: []string{"192.0.2.18, 1.2.3.4.5, 10.9.0.3"}, same: "10.9.0.3", other: "192.0.2.18"},
		{what: "a leading zero", lines: []string{"192.0.2.19, 192.0.2.019, 10.9.0.4"}, same: "10.9.0.4", other: "192.0.2.19"},
		{what: "far too long", lines: []string{"192.0.2.20, " + long + ", 10.9.0.5"}, same: "10.9.0.5", other: "192.0.2.20"},
		{what: "a name", lines: []string{"192.0.2.21, localhost, 10.9.0.6"}, same: "10.9.0.6", other: "192.0.2.21"},
		{what: "beyond ASCII", lines: []string{"192.0.2.22, \xff\xfe, 10.9.0.7"}, same: "10.9.0.7", other: "192.0.2.22"},
		{what: "as Forwarded has it", lines: []string{"192.0.2.23, for=192.0.2.24, 10.9.0.8"}, same: "10.9.0.8", other: "192.0.2.24"},
		{what: "more hops than any chain", lines: []string{"192.0.2.25, " + many + "10.9.0.9"}, same: "10.0.0.1", other: "192.0.2.25"},
		{what: "long, on the left", lines: []string{long + ", 192.0.2.26"}, same: "192.0.2.26", other: "192.0.2.27"},
		{what: "many lines, on the left", lines: append(slices.Repeat([]string{"203.0.113.14"}, 300), "192.0.2.28"), same: "192.0.2.28", other: "203.0.113.14"},
	} {
		if a := f.askAs(unknownEmail, c.same); a.Status != http.StatusOK {
			t.Errorf("case %d, %s: another case has used %s", i, c.what, c.same)
		}
		a := f.askAs(unknownEmail, c.lines...)
		if a.Status != http.StatusTooManyRequests {
			t.Errorf("%s: %.100q is not %s", c.what, c.lines, c.same)
		}
		if c.other == "" {
			continue
		}
		if a := f.askAs(unknownEmail, c.other); a.Status != http.StatusOK {
			t.Errorf("%s: %.100q is also %s", c.what, c.lines, c.other)
		}
	}

	// Other headers do not change the client.
	if a := f.askAs(unknownEmail, "192.0.2.100"); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	for i, name := range resetdtest.ForwardingHeaders {
		value := fmt.Sprintf("198.51.100.%d", i+1)
		if name == "Forwarded" {
			value = "for=" + value
		}
		a := f.Post(`{"email":"stranger@example.org"}`, map[string]string{"X-Forwarded-For": "192.0.2.100", name: value})
		if a.Status != http.StatusTooManyRequests {
			t.Errorf("%s is believed: %d", name, a.Status)
		}
	}

	// Without a usable header all requests count as the proxy, and the log says so once.
	if n := strings.Count(f.Log.String(), `"client_from":"missing"`); n != 0 {
		t.Errorf("%d warnings before there was a reason", n)
	}
	if a := f.askAs(unknownEmail); a.Status != http.StatusOK {
		t.Errorf("the first request without the header: %d", a.Status)
	}
	for _, lines := range [][]string{nil, {""}, {" , ,"}, {"127.0.0.1"}, {"nonsense"}, nil} {
		if a := f.askAs(unknownEmail, lines...); a.Status != http.StatusTooManyRequests {
			t.Errorf("X-Forwarded-For %q is not the proxy: %d", lines, a.Status)
		}
	}
	for i, name := range resetdtest.ForwardingHeaders {
		if a := f.Post(`{"email":"stranger@example.org"}`, map[string]string{name: fmt.Sprintf("198.51.100.%d", i+1)}); a.Status != http.StatusTooManyRequests {
			t.Errorf("without X-Forwarded-For, %s is believed: %d", name, a.Status)
		}
	}
	f.checkProxyWarning("missing", "X-Forwarded-For", "have the proxy write X-Forwarded-For")
	f.checkProxyWarning("unusable", "X-Forwarded-For", "have the proxy write addresses in X-Forwarded-For")
	if found := regexp.MustCompile(`192\.0\.2\.|203\.0\.113\.|2001:db8|10\.9\.0|198\.51\.100|nonsense`).FindString(f.Log.String()); found != "" {
		t.Errorf("the log has %q", found)
	}
}
