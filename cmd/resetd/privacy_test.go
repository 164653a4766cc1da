package main

import (
	"bufio"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests of this file are about promise 7 of SECURITY.md: no address, token, link, code or key, and nothing that an
// upstream wrote, is in anything that the process writes. They are part of every test that starts
// a server: at its end all that the server wrote is searched for all that it was told. What was
// written is the standard output and the log, at its lowest level; the metrics; and what a
// collector of traces was sent, where there is one.

// private collects what a server was told and must not tell.
type private struct {
	mu    sync.Mutex
	texts map[string]bool
	codes map[string]bool // of six digits, which are found among others by what is around them

	// sampled is how many texts requests and links have added, and most how many they may: a test
	// that makes thousands of requests has enough of them in the first ones.
	sampled, most int
}

// enoughPrivate is most where a test does not say otherwise.
const enoughPrivate = 150

func newPrivate(most int) private {
	return private{texts: map[string]bool{}, codes: map[string]bool{}, most: cmp.Or(most, enoughPrivate)}
}

func (p *private) add(texts ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, text := range texts {
		if len(text) >= 6 { // what is shorter is in other words by chance
			p.texts[text] = true
		}
	}
}

// sample adds what comes with every request.
func (p *private) sample(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(text) >= 6 && !p.texts[text] && p.sampled < p.most {
		p.texts[text] = true
		p.sampled++
	}
}

// addRequest takes what a caller sends that may say who asks, or about whom.
func (p *private) addRequest(request *http.Request) {
	for _, text := range []string{request.URL.RawQuery, request.Header.Get("Authorization"), request.Header.Get("Cookie"), request.Header.Get("Baggage")} {
		p.sample(text)
	}
	for _, name := range append([]string{"X-Forwarded-For"}, notBelieved...) {
		for _, forwarded := range request.Header.Values(name) {
			for address := range strings.SplitSeq(forwarded, ",") {
				address = strings.TrimPrefix(strings.TrimSpace(address), "for=")
				if parsed := net.ParseIP(address); parsed != nil && !parsed.IsLoopback() {
					p.sample(address)
				}
			}
		}
	}
	if request.GetBody == nil {
		return
	}
	body, err := request.GetBody()
	if err != nil {
		return
	}
	raw, _ := io.ReadAll(io.LimitReader(body, 1<<10))
	var members struct {
		Email    any `json:"email"`
		Callback any `json:"callback_origin"`
	}
	if json.Unmarshal(raw, &members) != nil {
		p.sample(string(raw))
		return
	}
	for _, member := range []any{members.Email, members.Callback} {
		if text, ok := member.(string); ok && text != "example" {
			p.sample(text)
		}
	}
}

var tokenOfLink = regexp.MustCompile(`token=([^&]+)`)

// addLink takes what Supabase Auth answers of a link.
func (p *private) addLink(answer []byte) {
	var link struct {
		Email      any `json:"email"`
		EmailOTP   any `json:"email_otp"`
		TokenHash  any `json:"hashed_token"`
		ActionLink any `json:"action_link"`
	}
	if json.Unmarshal(answer, &link) != nil {
		return
	}
	for _, member := range []any{link.Email, link.TokenHash, link.ActionLink} {
		if text, ok := member.(string); ok && len(text) < 1<<10 {
			p.sample(text)
			for _, token := range tokenOfLink.FindAllStringSubmatch(text, -1) {
				p.sample(token[1])
			}
		}
	}
	if code, ok := link.EmailOTP.(string); ok && code != "" {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.codes) < p.most {
			p.codes[code] = true
		}
	}
}

// addSettings takes the secrets among a server's settings.
func (p *private) addSettings(env map[string]string) {
	for _, name := range []string{"SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY", "MAILGUN_API_KEY", "MAILGUN_WEBHOOK_SIGNING_KEY"} {
		p.add(env[name])
	}
	_, header, _ := strings.Cut(env["OTEL_EXPORTER_OTLP_HEADERS"], "=")
	p.add(header)
	if redis, err := url.Parse(env["REDIS_URL"]); err == nil && redis.User != nil {
		password, _ := redis.User.Password()
		p.add(password)
	}
}

// linkRecorder remembers every link that next makes.
func (p *private) linkRecorder(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &seenAnswer{ResponseWriter: w}
		defer func() { p.addLink(seen.body) }()
		next.ServeHTTP(seen, r)
	})
}

// seenAnswer keeps the beginning of what is written through it.
type seenAnswer struct {
	http.ResponseWriter
	body []byte
}

func (s *seenAnswer) Write(b []byte) (int, error) {
	if len(s.body) < 16<<10 {
		s.body = append(s.body, b...)
	}
	return s.ResponseWriter.Write(b)
}

func (s *seenAnswer) Flush() { s.ResponseWriter.(http.Flusher).Flush() }

func (s *seenAnswer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return s.ResponseWriter.(http.Hijacker).Hijack()
}

// forms are the ways in which a text may be written down, in lower case, and those in which its
// case counts.
func forms(text string) (folded, exact []string) {
	quoted := strconv.Quote(text)
	encoded, _ := json.Marshal(text)
	folded = []string{
		text, url.QueryEscape(text), url.PathEscape(text), quoted[1 : len(quoted)-1], strings.Trim(string(encoded), `"`), hex.EncodeToString([]byte(text)),
	}
	for i := range folded {
		folded[i] = strings.ToLower(folded[i])
	}
	// In base64 a text looks otherwise behind one or two other bytes. The first and last letters
	// depend on what is around it.
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			coded := encoding.EncodeToString([]byte(strings.Repeat("x", before) + text))
			coded = coded[[]int{0, 2, 3}[before]:]
			if (before+len(text))%3 != 0 {
				coded = coded[:len(coded)-1]
			}
			if len(coded) >= 8 {
				exact = append(exact, coded)
			}
		}
	}
	return slices.Compact(folded), slices.Compact(exact)
}

var (
	numberBefore = regexp.MustCompile(`^[0-9A-Za-z_.-]$`)
	numberAfter  = regexp.MustCompile(`^(?:[0-9A-Za-z_]|\.[0-9])`)
)

// search says what of the private texts is in what was written.
func (p *private) search(t testing.TB, where, written string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	lower := strings.ToLower(written)
	show := func(at, length int) string {
		return written[max(0, at-100):min(len(written), at+length+60)]
	}
	for text := range p.texts {
		folded, exact := forms(text)
		for _, form := range folded {
			if at := strings.Index(lower, form); at >= 0 {
				t.Errorf("promise 7: %s has %q: …%s…", where, text, show(at, len(form)))
				break
			}
		}
		for _, form := range exact {
			if at := strings.Index(written, form); at >= 0 {
				t.Errorf("promise 7: %s has %q in base64: …%s…", where, text, show(at, len(form)))
				break
			}
		}
	}
	for code := range p.codes {
		for from := 0; ; {
			at := strings.Index(written[from:], code)
			if at < 0 {
				break
			}
			from += at + len(code)
			// A number beside a letter, or with a point and more digits, is a time, a duration or a hash.
			start := from - len(code)
			if !numberBefore.MatchString(written[max(0, start-1):start]) && !numberAfter.MatchString(written[from:min(len(written), from+2)]) {
				t.Errorf("promise 7: %s has the code %s: …%s…", where, code, show(start, len(code)))
				break
			}
		}
	}
	if at := strings.Index(lower, gossip); at >= 0 {
		t.Errorf("promise 7: %s has what an upstream wrote: …%s…", where, show(at, len(gossip)))
	}
}

// ownMetrics are resetd's among the metrics. Go's own have numbers of any kind.
func ownMetrics(metrics string) string {
	var own strings.Builder
	for line := range strings.Lines(metrics) {
		if strings.Contains(line, "resetd_") {
			own.WriteString(line)
		}
	}
	return own.String()
}

// TestPrivateIsFound: the search finds what it is for, in each form, and nothing else.
func TestPrivateIsFound(t *testing.T) {
	t.Parallel()
	const address, code = "Hello+World@example.com", "482913"
	p := newPrivate(0)
	p.add(address)
	p.addLink([]byte(`{"email_otp":"` + code + `"}`))
	for _, written := range []string{
		address, strings.ToUpper(address), url.QueryEscape(address), fmt.Sprintf("%x", address), fmt.Sprintf("%+q", address),
		base64.StdEncoding.EncodeToString([]byte(address)),
		base64.StdEncoding.EncodeToString([]byte("a" + address + "z")),
		base64.URLEncoding.EncodeToString([]byte("ab" + address + "yz")),
		base64.StdEncoding.EncodeToString([]byte("api:" + address)),
		`{"otp":"` + code + `"}`, "otp=" + code, "code " + code + ".", gossip,
	} {
		if !reports(&p, "before "+written+" after") {
			t.Errorf("%q is not found", written)
		}
	}
	for _, written := range []string{"", "hello", "example.com", "0.482913", "a482913", "4829131", base64.StdEncoding.EncodeToString([]byte("something else"))} {
		if reports(&p, "before "+written+" after") {
			t.Errorf("%q is found", written)
		}
	}
}

func reports(p *private, written string) bool {
	var faults silent
	p.search(&faults, "", written)
	return faults.any
}

// silent is a test that remembers whether something is wrong with it.
type silent struct {
	testing.TB
	any bool
}

func (s *silent) Helper()               {}
func (s *silent) Errorf(string, ...any) { s.any = true }

// faultsOf is an upstream that has a fault of its own for each address.
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

// inject lets an upstream fail that would otherwise answer as next does.
func (f *fault) inject(w http.ResponseWriter, r *http.Request, next http.Handler, email string) {
	if f.rewrite != nil {
		rewriteAnswer(w, r, next, f.rewrite)
		return
	}
	f.serve(w, r, email)
}

// askIndiscreetly asks for an address, and writes private things wherever a caller can.
func (f *fixture) askIndiscreetly(email, from string) answer {
	f.t.Helper()
	body, _ := json.Marshal(map[string]string{"email": email, "callback_origin": "https://callback-of-the-caller.example"})
	return f.post(string(body), map[string]string{
		"X-Forwarded-For": from, "Authorization": "Bearer token-of-the-caller", "Cookie": "session=of-the-caller", "Baggage": "who=of-the-caller",
		"Referer": "https://referrer-of-the-caller.example/?of-the-caller", "User-Agent": "agent-of-the-caller", "Origin": "https://origin-of-the-caller.example",
	})
}

// ofTheCaller are what askIndiscreetly writes.
var ofTheCaller = []string{"of-the-caller", "origin-of", "https://origin-of-the-caller.example"}

// loudest are the settings with which a server writes most.
func loudest(c *collecting, redis string) map[string]string {
	return with(withWebhooks, behindProxy, map[string]string{
		"UPSTREAM_TIMEOUT": "100ms", "OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=key-of-the-collector",
		"REDIS_URL": "redis://:password-of-redis@" + redis, "RATE_LIMIT": "1000000-S",
	})
}

// TestNothingIsTold is promise 7 of SECURITY.md for the binary itself: its deliveries meet every fault there is, with
// everything on that writes: the log at debug, metrics, traces, webhooks, and a Redis that repeats its
// password. Each fault has addresses of its own, so that deliveries meet all of them at the same time.
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
	f := start(t, setup{
		binary: shipped(t), collector: c, remember: 3000, // all of it
		accounts: accounts, env: with(loudest(c, accepting(t, repeat)), map[string]string{"DELIVERY_TIMEOUT": "6s", "MAX_DELIVERIES": "100"}),
		supabase: supabase.middleware, mailgun: mailgun.middleware,
	})
	f.private.add(ofTheCaller...)
	var all sync.WaitGroup
	for i, email := range append(addresses, knownEmail, unknownEmail) {
		all.Go(func() {
			if a := f.askIndiscreetly(email, fmt.Sprintf("2001:db8:0:%x::1", i)); a.status != http.StatusOK {
				t.Errorf("%s: %d %s", email, a.status, a.raw)
			}
		})
	}
	all.Wait()
	f.settle()
	for of, faults := range map[string]*faultsOf{"Supabase": supabase, "Mailgun": mailgun} {
		for address, fault := range faults.byAddress {
			if !faults.met[address] {
				t.Errorf("no delivery to %s has met the fault of %s: %s", address, of, fault.name)
			}
		}
	}
	if lost := len(regexp.MustCompile(`"outcome":"(undelivered|unconfirmed)"`).FindAllString(f.logs.String(), -1)); lost < len(addresses)/2 {
		t.Errorf("of %d deliveries, only %d have failed", len(addresses), lost)
	}
	for _, request := range badRequests() {
		f.post(request.body, request.header)
	}
	for _, path := range []string{endpoint + "?address=" + url.QueryEscape(knownEmail), "/" + url.PathEscape(unknownEmail), "/%ff" + knownEmail} {
		f.do(newRequest(t, http.MethodPost, f.url+path))
		f.do(newRequest(t, "X-METHOD-OF-THE-CALLER", f.url+path))
	}
	speakNoHTTP(t, f, "GET /"+knownEmail+" HTTP/9.9\r\n\r\n", "nonsense of "+unknownEmail+"\r\n\r\n", "POST "+endpoint+" HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat(knownEmail, 2000)+"\r\n\r\n")
	for _, change := range []func(*report){
		func(*report) {}, func(r *report) { r.key = "another" }, func(r *report) { r.at = time.Unix(1, 0) }, func(r *report) { r.event = "made-up-by-the-caller" },
	} {
		r := newReport(knownEmail)
		change(&r)
		f.private.add(r.token, r.signature(), "secret-reason", "secret-message", "made-up-by")
		f.hook(r.body())
		f.hook(r.body()[:100])
	}
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for what, minimum := range map[string]int{operationSpan: len(addresses), deliverySpan: len(addresses), linkSpan: len(addresses), sendSpan: len(mailgun.byAddress)} {
		if got := strings.Count(c.raw.String(), what); got < minimum {
			t.Errorf("the collector was sent %d spans %s of %d requests", got, what, len(addresses))
		}
	}
	f.logs.await(t, `Redis does not work.*"reason":"its answer could not be understood"`)
	if !strings.Contains(f.metricsAtEnd, "resetd_webhook_refused_total") {
		t.Error("there are no metrics to search")
	}
	// The search itself comes at the end of every test.
}

// TestProbesTellNothing is promise 7 of SECURITY.md for the probes of the binary, which meet every fault there is, each at a
// server of its own.
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
			f := start(t, setup{
				binary: shipped(t), collector: c, env: loudest(c, accepting(t, repeat)),
				supabase: always(supabase), mailgun: always(mailgun),
			})
			f.private.add(ofTheCaller...)
			for i, email := range []string{knownEmail, unknownEmail} {
				if a := f.askIndiscreetly(email, fmt.Sprintf("2001:db8:0:%x::1", i)); a.status < http.StatusInternalServerError {
					t.Errorf("%s: %d %s", email, a.status, a.raw)
				}
			}
			for _, upstream := range []string{"supabase", "mailgun"} {
				if verdict := f.logs.await(t, `"msg":"probe","upstream":"`+upstream+`","verdict":"([a-z_]+)"`); verdict == "ok" {
					t.Errorf("the probe of %s has met no fault", upstream)
				}
			}
			if err := f.stop(); err != nil {
				t.Error(err)
			}
			if !strings.Contains(c.sent(), operationSpan) {
				t.Error("the collector was sent nothing")
			}
		})
	}
}

// badRequest is one that is refused.
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

// speakNoHTTP sends what net/http answers by itself.
func speakNoHTTP(t *testing.T, f *fixture, texts ...string) {
	t.Helper()
	for _, text := range texts {
		conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.ReadAll(conn)
		_ = conn.Close()
	}
}

// repeat is no Redis: it answers whatever it is sent with it.
func repeat(conn net.Conn) {
	for told := make([]byte, 4096); ; {
		n, err := conn.Read(told)
		if err != nil {
			return
		}
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 400 %s\r\n", strings.ReplaceAll(string(told[:n]), "\r\n", " "))
	}
}
