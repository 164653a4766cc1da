package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

// fault is a fault of an upstream. email is the call's address. What an upstream writes may repeat it, and must not
// get into logs or answers.
type fault struct {
	name    string
	refuse  bool // refuses connections; serve is nil
	serve   func(w http.ResponseWriter, r *http.Request, email string)
	rewrite func(link map[string]any) // changes the link in a good answer
	// shown is the "status code" of everybody's answers if everybody's calls fail.
	shown string
	// verdict is the probe's verdict then.
	verdict string
	// ends are the outcomes of which a delivery has one while the fault lasts. Empty: it is tried until the fault
	// ends.
	ends []string
	// endsOfActionLinks are the same with LINK_MODE=action_link. nil: equal to ends.
	endsOfActionLinks []string
	// unknownFate says that Mailgun may have accepted the message. The delivery ends as unconfirmed after the second
	// message, which is sent only after a test message was accepted.
	unknownFate bool
}

// These are the ends of deliveries during a fault that does not only delay them.
var (
	givenUp   = []string{"undelivered"}
	mailed    = []string{"sent"}
	noAccount = []string{"no_account"}
)

// gossip is in everything that a faulty upstream writes. No log and no answer may repeat it.
const gossip = "gossip-of-the-upstream"

// statusFault is an error as Supabase Auth writes it, and much like Mailgun's.
func statusFault(status int, shown, verdict string) fault {
	return fault{name: strconv.Itoa(status), shown: shown, verdict: verdict, serve: func(w http.ResponseWriter, _ *http.Request, email string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"code":%d,"error_code":"unexpected_failure","msg":"%s %s","message":"%[2]s %[3]s"}`, status, gossip, email)
	}}
}

func reset(w http.ResponseWriter, _ *http.Request, _ string) {
	if conn := hijack(w); conn != nil {
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
}

func hang(_ http.ResponseWriter, r *http.Request, _ string) { <-r.Context().Done() }

// raw writes bytes that are no HTTP answer, or only a part of one, and closes.
func raw(text string) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, _ *http.Request, email string) {
		if conn := hijack(w); conn != nil {
			io.WriteString(conn, strings.NewReplacer("EMAIL", email, "GOSSIP", gossip).Replace(text))
			conn.Close()
		}
	}
}

func hijack(w http.ResponseWriter) net.Conn {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return nil
	}
	return conn
}

func answering(status int, body string) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, _ *http.Request, email string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, strings.NewReplacer("EMAIL", email, "GOSSIP", gossip).Replace(body))
	}
}

// commonFaults are faults that every upstream may have.
func commonFaults(shown string) []fault {
	faults := []fault{
		{name: "resets", serve: reset, unknownFate: true},
		{name: "hangs", serve: hang, unknownFate: true},
		statusFault(500, shown, "down"),
		statusFault(503, shown, "down"),
		{name: "redirects", serve: func(w http.ResponseWriter, r *http.Request, email string) {
			w.Header().Set("Location", "/trap?"+email)
			w.WriteHeader(http.StatusFound)
		}},
		{name: "redirects and keeps the method", serve: func(w http.ResponseWriter, r *http.Request, email string) {
			w.Header().Set("Location", "/trap?"+email)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}},
		{name: "garbage", serve: answering(200, "<html>GOSSIP EMAIL"), unknownFate: true},
		{name: "an empty object", serve: answering(200, "{}"), unknownFate: true},
		{name: "null", serve: answering(200, "null"), unknownFate: true},
		{name: "nothing", serve: answering(200, ""), unknownFate: true},
		{name: "no content", serve: func(w http.ResponseWriter, _ *http.Request, _ string) { w.WriteHeader(204) }, unknownFate: true},
		{name: "truncated", serve: raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"email\":\"EMAIL\",\"id\":\"GOSSIP"), unknownFate: true},
		{name: "endless", unknownFate: true, serve: func(w http.ResponseWriter, r *http.Request, email string) {
			io.WriteString(w, `{"id":"`)
			chunk := strings.Repeat(gossip+email, 1000)
			for n := 0; r.Context().Err() == nil; n += len(chunk) {
				if _, err := io.WriteString(w, chunk); err != nil {
					return
				}
				if n > 2<<20 { // slower for a client that reads without a bound
					time.Sleep(10 * time.Millisecond)
				}
			}
		}},
		{name: "a slow drip", unknownFate: true, serve: func(w http.ResponseWriter, r *http.Request, _ string) {
			for tick := time.Tick(20 * time.Millisecond); ; {
				if _, err := io.WriteString(w, " "); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-tick:
				case <-r.Context().Done():
					return
				}
			}
		}},
		// The connection stays open after an answer, and is gone at its next use. What fails for one address must
		// not make a probe fail. The next call may have been carried out.
		{name: "an error, and hangs up on the next call", unknownFate: true, serve: func(w http.ResponseWriter, _ *http.Request, _ string) {
			if conn := hijack(w); conn != nil {
				io.WriteString(conn, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
				_, _ = conn.Read(make([]byte, 1))
				conn.Close()
			}
		}},
		{name: "no HTTP", serve: raw("GOSSIP EMAIL\r\n\r\n"), unknownFate: true},
		{name: "a bad header", serve: raw("HTTP/1.1 500 Oops\r\nGOSSIP EMAIL\r\n\r\n"), unknownFate: true},
		{name: "a bad length", serve: raw("HTTP/1.1 500 Oops\r\nContent-Length: GOSSIP-EMAIL\r\n\r\n"), unknownFate: true},
		{name: "a bad location", serve: raw("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://%zz/?GOSSIP=EMAIL\r\n\r\n"), unknownFate: true},
	}
	for i := range faults {
		faults[i].shown, faults[i].verdict = shown, "down"
	}
	return faults
}

const (
	unavailable   = "503 auth_unavailable"
	notConfigured = "500 auth_not_configured"
	undeliverable = "502 email_delivery_failed"
	overloaded    = "503 overloaded"
	notValid      = "400 invalid_request"
	acknowledged  = "200 "
)

func supabaseFaults() []fault {
	return append(commonFaults(unavailable),
		statusFault(429, unavailable, "down"),
		statusFault(401, notConfigured, "key_refused"), statusFault(403, notConfigured, "key_refused"),
		fault{name: "a bare 404", shown: unavailable, verdict: "down", serve: answering(404, `{"message":"GOSSIP EMAIL"}`)},
		fault{name: "a 404 of an older kind", shown: unavailable, verdict: "down", serve: answering(404, `{"code":404,"msg":"User not found GOSSIP"}`)},
		fault{name: "a 404 whose body is replaced", shown: unavailable, verdict: "down", serve: func(w http.ResponseWriter, r *http.Request, email string) {
			w.Header().Set("X-Sb-Error-Code", "user_not_found") // a proxy passes it on
			answering(404, "<html>GOSSIP EMAIL")(w, r, email)
		}},
		fault{name: "a bare 400", shown: unavailable, verdict: "down", serve: answering(400, `GOSSIP`)},
		// The probe's outcome is shown, and not that of the requested address.
		fault{name: "401 for accounts and 500 for others", shown: unavailable, verdict: "down", serve: func(w http.ResponseWriter, r *http.Request, email string) {
			answering(map[bool]int{true: 401, false: 500}[isAccount(email)], "GOSSIP")(w, r, email)
		}},
		fault{name: "500 for accounts and 401 for others", shown: notConfigured, verdict: "key_refused", serve: func(w http.ResponseWriter, r *http.Request, email string) {
			answering(map[bool]int{true: 500, false: 401}[isAccount(email)], "GOSSIP")(w, r, email)
		}},
		fault{name: "another kind of link", shown: unavailable, verdict: "down", serve: answering(200,
			`{"email":"EMAIL","verification_type":"signup","hashed_token":"0123456789012345678901234567890123456789","action_link":"https://x.example/verify"}`)},
	)
}

// linkForEverybody makes Supabase Auth answer as if every address had an account.
var linkForEverybody = fault{name: "a link for everybody", shown: unavailable, verdict: "down", serve: answering(200,
	`{"email":"EMAIL","verification_type":"recovery","hashed_token":"0123456789012345678901234567890123456789","action_link":"https://x.example/verify"}`)}

// accountFaults are faults that only an account can have.
func accountFaults() []fault {
	set := func(name string, value any) func(map[string]any) {
		return func(link map[string]any) { link[name] = value }
	}
	return []fault{
		{name: "no stored address", ends: givenUp, rewrite: set("email", "")},
		{name: "a stored address with a name", ends: givenUp, rewrite: set("email", "Known <known@example.com>")},
		{name: "a stored list of addresses", ends: givenUp, rewrite: set("email", "known@example.com, mallory@example.net")},
		{name: "a stored address with a line break", ends: givenUp, rewrite: set("email", "known@example.com\r\nBcc: mallory@example.net")},
		{name: "a stored address of another type", rewrite: set("email", 7)},
		{name: "no token", ends: givenUp, rewrite: set("hashed_token", "")},
		{name: "a token that is a link", ends: givenUp, rewrite: set("hashed_token", "https://evil.example/?0123456789abcdef")},
		{name: "no action_link", ends: givenUp, rewrite: set("action_link", nil)},
		{name: "an action_link of a script", ends: givenUp, rewrite: set("action_link", "javascript:alert(1)")},
		{name: "an action_link beyond all measure", ends: givenUp, rewrite: set("action_link", "https://auth.example/"+strings.Repeat("x", 3000))},
		{name: "an action_link with a space", ends: mailed, endsOfActionLinks: givenUp, rewrite: set("action_link", "https://auth.example/verify?to=a b")},
		{name: "an action_link beyond ASCII", ends: mailed, endsOfActionLinks: givenUp, rewrite: set("action_link", "https://auth.example/verify?to=ä")},
		{name: "an action_link in capitals", ends: mailed, endsOfActionLinks: givenUp, rewrite: set("action_link", "HTTPS://auth.example/verify")},
		{name: "a replaced redirect", ends: mailed, rewrite: set("redirect_to", "https://elsewhere.example/")},
		{name: "a redirect of another type", rewrite: set("redirect_to", []int{1})},
		{name: "as if there were no account", ends: noAccount, serve: answering(404, `{"code":404,"error_code":"user_not_found","msg":"GOSSIP EMAIL"}`)},
		{name: "as if the address were invalid", ends: noAccount, serve: answering(400, `{"code":400,"error_code":"validation_failed","msg":"GOSSIP EMAIL"}`)},
	}
}

func mailgunFaults() []fault {
	// What real mail can cause is not shown to callers.
	of := func(status int, ends []string) fault {
		f := statusFault(status, acknowledged, "limited")
		f.ends = ends
		return f
	}
	gateway := func(status int) fault { // it may have passed the message on
		f := statusFault(status, undeliverable, "down")
		f.unknownFate = true
		return f
	}
	return append(commonFaults(undeliverable),
		of(400, givenUp), of(413, givenUp), of(402, nil), of(403, nil), of(420, nil), of(429, nil),
		statusFault(401, undeliverable, "down"), statusFault(404, undeliverable, "down"),
		gateway(502), gateway(504),
		fault{name: "accepted without an id", shown: undeliverable, verdict: "down", serve: answering(200, `{"message":"Queued. GOSSIP"}`), unknownFate: true},
	)
}

// refusing is an upstream that accepts no connection.
func refusing(shown string) fault {
	return fault{name: "refuses connections", refuse: true, shown: shown, verdict: "down"}
}

func named(faults []fault, names ...string) (some []fault) {
	for _, name := range names {
		for _, f := range faults {
			if f.name == name {
				some = append(some, f)
			}
		}
	}
	if len(some) != len(names) {
		panic("no fault of that name")
	}
	return some
}

// faulty stands in front of an upstream, and fails while it is told to.
type faulty struct {
	current atomic.Pointer[fault]
	hits    func(call upstreamCall) bool // nil: every call
	hit     atomic.Int64                 // failed calls, without those of probes
	probes  atomic.Int64                 // answered calls of probes, with any answer
}

// upstreamCall is a call to a stand-in.
type upstreamCall struct {
	email string // looked up or mailed
	test  bool   // a message in test mode
}

// isProbe says whether the call is a probe's.
func (c upstreamCall) isProbe() bool { return c.test || strings.HasSuffix(c.email, ".invalid") }

// These functions are the scopes of faults.
func everyone(upstreamCall) bool        { return true }
func accountsOnly(c upstreamCall) bool  { return isAccount(c.email) && !c.test }
func strangersOnly(c upstreamCall) bool { return !accountsOnly(c) } // also probes
func probesOnly(c upstreamCall) bool    { return c.isProbe() }
func askedOnly(c upstreamCall) bool     { return !c.isProbe() }
func unknownOnly(c upstreamCall) bool   { return !accountsOnly(c) && !c.isProbe() }

// isAccount says whether an address has an account in these tests.
func isAccount(email string) bool { return strings.HasSuffix(strings.ToLower(email), "@example.com") }

const upperKnown = "UPPER@example.com"

func readCall(r *http.Request) (c upstreamCall) {
	c.email, c.test = resetdtest.ReadCall(r)
	return c
}

func (f *faulty) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now, call := f.current.Load(), readCall(r)
		if call.isProbe() {
			defer f.probes.Add(1)
		}
		switch {
		case now == nil, f.hits != nil && !f.hits(call):
			next.ServeHTTP(w, r)
		default:
			if !call.isProbe() {
				f.hit.Add(1)
			}
			if now.rewrite != nil {
				rewriteAnswer(w, r, next, now.rewrite)
			} else {
				now.serve(w, r, call.email)
			}
		}
	})
}

func rewriteAnswer(w http.ResponseWriter, r *http.Request, next http.Handler, rewrite func(map[string]any)) {
	kept := &keeper{header: http.Header{}, status: http.StatusOK}
	next.ServeHTTP(kept, r)
	body := kept.body.Bytes()
	var object map[string]any
	if kept.status == http.StatusOK && json.Unmarshal(body, &object) == nil {
		rewrite(object)
		body, _ = json.Marshal(object)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(kept.status)
	w.Write(body)
}

type keeper struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *keeper) Header() http.Header         { return k.header }
func (k *keeper) WriteHeader(status int)      { k.status = status }
func (k *keeper) Write(p []byte) (int, error) { return k.body.Write(p) }

// gate is a listener that can be closed, and opened again at the same address. It has its own loopback address
// (127.0.0.0/8), so that nothing else takes its port meanwhile.
type gate struct {
	t       testing.TB
	addr    string
	handler http.Handler
	mu      sync.Mutex
	server  *http.Server
}

var gates atomic.Int32

func newGate(t testing.TB) *gate {
	n := gates.Add(1)
	listener, err := net.Listen("tcp", fmt.Sprintf("127.9.%d.%d:0", n/250, n%250+1))
	if err != nil {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	g := &gate{t: t, addr: listener.Addr().String()}
	t.Cleanup(g.shut)
	return g
}

func (g *gate) open() {
	listener, err := net.Listen("tcp", g.addr)
	if err != nil {
		g.t.Errorf("opening the gate again: %v", err)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.server = &http.Server{Handler: g.handler, ReadHeaderTimeout: time.Minute}
	go func(s *http.Server) { _ = s.Serve(listener) }(g.server)
}

// shut refuses new connections at once. Calls that have begun are answered, because the fate of an interrupted
// call is another fault.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = g.server.Shutdown(ctx)
		_ = g.server.Close()
	}
}
