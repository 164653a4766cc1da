package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/devstack"
)

// TestWhatFaultsForStrangersGiveAway holds down what no control question can hide: a fault that
// strangers alone meet, as the control question is about a stranger. It is no fault of the
// kind that comes and goes; a proxy that rewrites Supabase's 404, or a Mailgun that takes no
// test messages, does it. The operator sees every request for a stranger end as failed.
func TestWhatFaultsForStrangersGiveAway(t *testing.T) {
	t.Parallel()
	for _, c := range []oracleCase{
		{name: "Supabase", supabase: &named(supabaseFaults(), "a bare 404")[0], supabaseHits: strangersOnly, during: unavailable},
		{name: "Mailgun", mailgun: &named(mailgunFaults(), "403")[0], mailgunHits: strangersOnly, during: undeliverable},
	} {
		t.Run(c.name, func(t *testing.T) {
			supabase, mailgun := &faulty{hits: c.supabaseHits}, &faulty{hits: c.mailgunHits}
			supabase.current.Store(c.supabase)
			mailgun.current.Store(c.mailgun)
			f := start(t, setup{supabase: supabase.middleware, mailgun: mailgun.middleware})
			known, unknown := f.ask(knownEmail), f.ask(unknownEmail)
			if known.status != http.StatusOK {
				t.Errorf("about an account: %d %s", known.status, known.raw)
			}
			if got := fmt.Sprintf("%d %s", unknown.status, unknown.body.Code); got != c.during {
				t.Errorf("about a stranger: %q, want %q", got, c.during)
			}
			if f.outcomes()["failed"] != 1 {
				t.Errorf("the operator's counters: %v", f.outcomes())
			}
		})
	}
}

// TestBound: whatever hangs, a request takes less than four times UPSTREAM_TIMEOUT and a beat.
func TestBound(t *testing.T) {
	t.Parallel()
	const bound = 5 * time.Second // UPSTREAM_TIMEOUT=1s
	hanging := &fault{serve: hang}
	// answers only just in time, so that most time is spent before the next call hangs
	slow := func(next func(http.ResponseWriter, *http.Request, string)) *fault {
		return &fault{serve: func(w http.ResponseWriter, r *http.Request, email string) {
			select {
			case <-time.After(900 * time.Millisecond):
				next(w, r, email)
			case <-r.Context().Done():
			}
		}}
	}
	notFound := answering(404, `{"code":404,"error_code":"user_not_found","msg":""}`)
	var all sync.WaitGroup
	for _, c := range []struct {
		name                      string
		supabase, mailgun         *fault
		supabaseHits, mailgunHits func(upstreamCall) bool
	}{
		{"all", hanging, hanging, nil, nil},
		{"Supabase for accounts, and Mailgun", hanging, hanging, accountsOnly, nil},
		{"Mailgun", nil, hanging, nil, nil},
		{"Mailgun for real recipients", nil, hanging, nil, accountsOnly},
		{"Mailgun, and Supabase is slow", slow(notFound), hanging, nil, nil},
		{"all, slowly", slow(reset), slow(reset), accountsOnly, nil},
	} {
		for _, env := range []map[string]string{{}, {"RESPONSE_QUANTUM": "500ms"}, {"RESPONSE_QUANTUM": "3s"}, {"MAIL_DECOY": "off"}} {
			if env["RESPONSE_QUANTUM"] == "3s" && c.name != "all" {
				continue
			}
			all.Go(func() {
				t.Run(fmt.Sprint(c.name, env), func(t *testing.T) {
					supabase, mailgun := &faulty{hits: c.supabaseHits}, &faulty{hits: c.mailgunHits}
					supabase.current.Store(c.supabase)
					mailgun.current.Store(c.mailgun)
					settings := map[string]string{"UPSTREAM_TIMEOUT": "1s"}
					for name, value := range env {
						settings[name] = value
					}
					f := start(t, setup{env: settings, supabase: supabase.middleware, mailgun: mailgun.middleware})
					limit := bound
					if env["RESPONSE_QUANTUM"] == "3s" {
						limit = 7 * time.Second
					}
					var both sync.WaitGroup
					for _, email := range []string{knownEmail, unknownEmail} {
						both.Go(func() {
							began := time.Now()
							a := f.ask(email)
							if took := time.Since(began); took > limit {
								t.Errorf("%s: %d after %v", email, a.status, took)
							}
						})
					}
					both.Wait()
				})
			})
		}
	}
	all.Wait()
}

// TestEndlessAnswers: an answer without an end is given up for its size, long before its time.
func TestEndlessAnswers(t *testing.T) {
	t.Parallel()
	endless := named(commonFaults(""), "endless")[0]
	for _, upstream := range []string{"Supabase", "Mailgun"} {
		t.Run(upstream, func(t *testing.T) {
			t.Parallel()
			at := &faulty{}
			at.current.Store(&endless)
			s := setup{env: map[string]string{"UPSTREAM_TIMEOUT": "10s"}}
			if upstream == "Supabase" {
				s.supabase = at.middleware
			} else {
				s.mailgun = at.middleware
			}
			began := time.Now()
			a := start(t, s).ask(knownEmail)
			if took := time.Since(began); took > 9*time.Second || a.status < 500 {
				t.Errorf("%d after %v", a.status, took)
			}
		})
	}
}

var hashInMail = regexp.MustCompile(`token_hash=([0-9a-f]+)`)

// verifies says whether a recovery link still works, without Supabase's usual consequence for
// the test: it is used up by that.
func verifies(t *testing.T, f *fixture, hash string) bool {
	t.Helper()
	body, _ := json.Marshal(map[string]string{"type": "recovery", "token_hash": hash})
	w := httptest.NewRecorder()
	f.stack.Supabase().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/auth/v1/verify", bytes.NewReader(body)))
	return w.Code == http.StatusOK
}

// TestRecipientLimit: silent, by the account and not its spelling, before the lookup, and the
// same for strangers.
func TestRecipientLimit(t *testing.T) {
	t.Parallel()
	for _, who := range []who{accounts, strangers} {
		t.Run(who.name, func(t *testing.T) {
			f := start(t, setup{env: map[string]string{"RECIPIENT_LIMIT": "2-M"}})
			first := f.ask(who.same)
			f.ask(who.sameInCapitals)
			calls, mails := len(f.stack.Calls()), len(f.stack.Mails())
			for _, email := range []string{who.same, who.sameInCapitals, who.same} {
				a := f.ask(email)
				if a.status != first.status || a.raw != first.raw {
					t.Errorf("limited: %d %s, unlike %d %s", a.status, a.raw, first.status, first.raw)
				}
			}
			if now := f.stack.Calls(); len(now) != calls {
				t.Errorf("a limited request made calls: %+v", now[calls:])
			}
			if len(f.stack.Mails()) != mails {
				t.Error("a limited request sent a mail")
			}
			if got := f.outcomes()["suppressed"]; got != 3 {
				t.Errorf("%d counted as suppressed, want 3", got)
			}
			if who.name == accounts.name {
				// The newest mail's link has outlived the requests that were suppressed.
				hash := hashInMail.FindStringSubmatch(f.stack.Mails()[0].Text)[1]
				if !verifies(t, f, hash) {
					t.Error("the link that was sent last is invalid")
				}
			}
			f.ask(who.fresh)
			if len(f.stack.Calls()) == calls {
				t.Error("the limit of one address holds for another")
			}
			checkSecrets(t, f)
		})
	}
}

// TestRecipientLimitAfterFaults: after a fault that was shown, the address has its place
// again; after one that was hidden it has not, since that would tell of it.
func TestRecipientLimitAfterFaults(t *testing.T) {
	t.Parallel()
	f500 := named(commonFaults(""), "500")[0]
	for _, c := range []struct {
		name                      string
		supabase, mailgun         *fault
		supabaseHits, mailgunHits func(upstreamCall) bool
		who                       who
		status                    int
		given                     bool
	}{
		{"Supabase", &f500, nil, everyone, nil, accounts, 503, true},
		{"Supabase", &f500, nil, everyone, nil, strangers, 503, true},
		{"Mailgun", nil, &f500, nil, everyone, accounts, 502, true},
		{"Mailgun", nil, &f500, nil, everyone, strangers, 502, true},
		{"Supabase for accounts only", &f500, nil, accountsOnly, nil, accounts, 200, false},
		{"Supabase for accounts only", &f500, nil, accountsOnly, nil, strangers, 200, false},
		{"Mailgun for real recipients only", nil, &f500, nil, accountsOnly, accounts, 200, false},
		{"Mailgun for real recipients only", nil, &f500, nil, accountsOnly, strangers, 200, false},
		{"Supabase for accounts only, and Mailgun", &f500, &f500, accountsOnly, everyone, accounts, 502, true},
		{"Supabase for accounts only, and Mailgun", &f500, &f500, accountsOnly, everyone, strangers, 502, true},
	} {
		t.Run(c.name+"/"+c.who.name, func(t *testing.T) {
			t.Parallel()
			supabase, mailgun := &faulty{hits: c.supabaseHits}, &faulty{hits: c.mailgunHits}
			f := start(t, setup{env: map[string]string{"RECIPIENT_LIMIT": "1-H"}, supabase: supabase.middleware, mailgun: mailgun.middleware})
			supabase.current.Store(c.supabase)
			mailgun.current.Store(c.mailgun)
			for range 2 { // if it was given back, the second fails like the first
				if a := f.ask(c.who.same); a.status != c.status {
					t.Fatalf("during the fault: %d %s, want %d", a.status, a.raw, c.status)
				}
			}
			supabase.current.Store(nil)
			mailgun.current.Store(nil)
			calls := len(f.stack.Calls())
			if a := f.ask(c.who.same); a.status != 200 {
				t.Fatalf("after the fault: %d %s", a.status, a.raw)
			}
			if served := len(f.stack.Calls()) > calls; served != c.given {
				t.Errorf("after the fault, served is %v, want %v", served, c.given)
			}
			// And given back once, not twice.
			calls = len(f.stack.Calls())
			f.ask(c.who.same)
			if len(f.stack.Calls()) > calls {
				t.Error("more was given back than was taken")
			}
		})
	}
}

// every fails each nth call.
type every struct {
	n     int64
	calls atomic.Int64
	serve func(http.ResponseWriter, *http.Request, string)
}

func (e *every) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if e.n > 0 && e.calls.Add(1)%e.n == 0 {
			e.serve(w, r, "")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// TestHiccups: with every third call failing, whoever has an account and is answered 200 gets
// a mail, and not a heap of them; and strangers are answered likewise.
func TestHiccups(t *testing.T) {
	t.Parallel()
	const people = 40
	var everybody []string
	for i := range people {
		everybody = append(everybody, fmt.Sprintf("account-%d@example.com", i))
	}
	fail := answering(500, "GOSSIP")
	refuse := answering(401, `{"message":"Invalid API key"}`)
	for _, c := range []struct {
		name              string
		supabase, mailgun func(http.ResponseWriter, *http.Request, string)
		clients           int
		quantum           string
		most              int // mails for one request
	}{
		{"Supabase", fail, nil, 1, "0s", 1},
		{"Supabase", refuse, nil, 8, "0s", 1},
		{"Supabase resets", reset, nil, 8, "100ms", 1},
		{"Mailgun", nil, fail, 1, "0s", 1},
		{"Mailgun", nil, fail, 8, "100ms", 1},
		{"Mailgun resets", nil, reset, 8, "0s", 1},
		{"both", fail, fail, 1, "0s", 1},
		{"both", fail, fail, 8, "0s", 1},
		{"both", refuse, reset, 8, "100ms", 1},
	} {
		t.Run(fmt.Sprintf("%s/%d clients/%s", c.name, c.clients, c.quantum), func(t *testing.T) {
			t.Parallel()
			supabase, mailgun := &every{serve: c.supabase}, &every{serve: c.mailgun}
			if c.supabase != nil {
				supabase.n = 3
			}
			if c.mailgun != nil {
				mailgun.n = 3
			}
			stack := devstack.New(devstack.Config{
				Accounts: everybody, SiteURL: site,
				ServiceRoleKey: "test-service-role-key", MailgunKey: "test-mailgun-key", MailgunDomain: "mg.example.com",
				SupabaseMiddleware: supabase.middleware, MailgunMiddleware: mailgun.middleware,
			})
			t.Cleanup(stack.Close)
			supabaseServer, mailgunServer := httptest.NewServer(stack.Supabase()), httptest.NewServer(stack.Mailgun())
			t.Cleanup(func() {
				supabaseServer.CloseClientConnections()
				mailgunServer.CloseClientConnections()
				supabaseServer.Close()
				mailgunServer.Close()
			})
			f := start(t, setup{env: map[string]string{
				"SUPABASE_URL": supabaseServer.URL, "MAILGUN_API_BASE": mailgunServer.URL,
				"RESPONSE_QUANTUM": c.quantum,
			}})
			f.stack = stack

			todo := make(chan string)
			var mu sync.Mutex
			promised := map[string]bool{}
			var all sync.WaitGroup
			for range c.clients {
				all.Go(func() {
					for email := range todo {
						a := f.ask(email)
						stranger := f.ask("no-" + email)
						mu.Lock()
						promised[email] = a.status == 200
						if a.status != 200 || stranger.status != 200 {
							// Both questions of one kind have failed: possible where others ask between.
							if c.clients == 1 {
								t.Errorf("%s: %d, and a stranger %d", email, a.status, stranger.status)
							}
						}
						mu.Unlock()
					}
				})
			}
			for _, email := range everybody {
				todo <- email
			}
			close(todo)
			all.Wait()
			if err := f.stop(); err != nil { // waits for the deliveries that go on
				t.Fatal(err)
			}
			mails := map[string]int{}
			for _, mail := range stack.Mails() {
				mails[strings.Join(mail.To, ",")]++
			}
			for _, email := range everybody {
				if promised[email] && mails[email] == 0 {
					t.Errorf("%s was answered 200 and has no mail", email)
				}
				if mails[email] > c.most {
					t.Errorf("%s has %d mails", email, mails[email])
				}
				delete(mails, email)
			}
			if len(mails) > 0 {
				t.Errorf("mailed without an account: %v", mails)
			}
			for _, record := range append(f.logs.records(t, "request"), f.logs.records(t, "delivery")...) {
				if record["outcome"] == "undelivered" {
					t.Errorf("undelivered: %v", record)
				}
			}
		})
	}
}

// TestDecoysLookLikeMail: the second call of a request is the same for a stranger, but for
// test mode, the recipient and a link that leads nowhere.
func TestDecoysLookLikeMail(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"token_hash", "action_link"} {
		t.Run(mode, func(t *testing.T) {
			f := start(t, setup{env: map[string]string{"LINK_MODE": mode, "MAIL_FROM": "Example <reset@mg.example.com>"}})
			f.ask(knownEmail)
			f.ask(unknownEmail)
			var calls []string
			for _, call := range f.stack.Calls() {
				calls = append(calls, call.Service+" "+call.Path)
			}
			want := []string{"supabase /auth/v1/admin/generate_link", "mailgun /v3/mg.example.com/messages"}
			if got := strings.Join(calls, "\n"); got != strings.Join(append(want, want...), "\n") {
				t.Fatalf("the calls, first for an account and then for a stranger:\n%s", got)
			}
			mail, decoy := f.stack.Mails()[0], f.stack.Decoys()[0]
			if got := strings.Join(decoy.To, ","); got != "reset@mg.example.com" {
				t.Errorf("the decoy went to %s", got)
			}
			if len(mail.Text) != len(decoy.Text) || len(mail.HTML) != len(decoy.HTML) || mail.Subject != decoy.Subject {
				t.Errorf("the lengths differ: text %d and %d, HTML %d and %d\n%s\n%s",
					len(mail.Text), len(decoy.Text), len(mail.HTML), len(decoy.HTML), mail.Text, decoy.Text)
			}
			for name := range mail.Fields {
				if _, there := decoy.Fields[name]; !there {
					t.Errorf("the decoy lacks %s", name)
				}
			}
			for name := range decoy.Fields {
				if _, there := mail.Fields[name]; !there && name != "o:testmode" {
					t.Errorf("only the decoy has %s", name)
				}
			}
			if mode == "token_hash" {
				if hash := hashInMail.FindStringSubmatch(decoy.Text)[1]; verifies(t, f, hash) {
					t.Error("the decoy's link works")
				}
			}
			// The next decoy's link is another.
			f.ask(unknownEmail)
			if f.stack.Decoys()[0].Text == f.stack.Decoys()[1].Text {
				t.Error("two decoys with the same link")
			}
		})
	}
}

// TestDecoyBudget: every request takes one from it, whether or not it needs a decoy; past it,
// a stranger costs one call.
func TestDecoyBudget(t *testing.T) {
	t.Parallel()
	for _, first := range []string{knownEmail, unknownEmail} {
		f := start(t, setup{env: map[string]string{"MAIL_DECOY_LIMIT": "3-H"}})
		for range 3 {
			f.ask(first)
		}
		before := len(f.stack.Calls())
		f.ask(unknownEmail)
		if calls := f.stack.Calls()[before:]; len(calls) != 1 || calls[0].Service != "supabase" {
			t.Errorf("after three requests for %s, a stranger costs %+v", first, calls)
		}
	}
}
