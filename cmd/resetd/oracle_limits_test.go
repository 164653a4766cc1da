package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/outbox"
)

// The tests of this file compare answers about accounts and about unknown addresses where they meet
// a bound: a quota of Mailgun, the recipient limit, MAX_ACCEPTED, and UPSTREAM_TIMEOUT.

// numbered are n addresses of accounts, or n unknown ones.
func numbered(who who, n int) (emails []string) {
	_, domain, _ := strings.Cut(who.same, "@")
	for i := range n {
		emails = append(emails, fmt.Sprintf("number-%d@%s", i, domain))
	}
	return emails
}

// quota answers status once as many messages have been accepted as most, test messages included.
type quota struct {
	status   int
	most     int64
	accepted atomic.Int64
	refused  atomic.Int64
	lifted   atomic.Bool
}

func (q *quota) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q.accepted.Add(1) <= q.most || q.lifted.Load() {
			next.ServeHTTP(w, r)
			return
		}
		q.refused.Add(1)
		if q.status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "2")
		}
		w.WriteHeader(q.status)
		fmt.Fprintf(w, `{"message":"%s"}`, gossip)
	})
}

// TestQuotas: 20 requests for accounts use up a quota of Mailgun, and those for unknown addresses do
// not. The next answers are the same: of this server, of this one after its next sample a minute
// later, and of another one that starts while the quota is used up. Real mail that fails for another
// reason changes no answer a minute later either.
func TestQuotas(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for _, status := range []int{429, 402, 403, 420, 500} {
		all.Go(func() {
			t.Run(strconv.Itoa(status), func(t *testing.T) {
				var sides [2][]string
				var both sync.WaitGroup
				for i, who := range []who{accounts, strangers} {
					both.Go(func() { t.Run(who.name, func(t *testing.T) { sides[i] = useUpQuota(t, status, who) }) })
				}
				both.Wait()
				if !slices.Equal(sides[0], sides[1]) {
					t.Errorf("after requests for accounts the answers are\n%q\nand after those for unknown addresses\n%q", sides[0], sides[1])
				}
			})
		})
	}
	all.Wait()
}

// useUpQuota returns the answers of one side. A status of 500 is no quota, but the fault of real mail
// alone.
func useUpQuota(t *testing.T, status int, who who) (answers []string) {
	const requests, most = 24, 20
	limit := &quota{status: status, most: most}
	middleware := limit.middleware
	if status == 500 {
		middleware = func(next http.Handler) http.Handler {
			refusing := limit.middleware(next)
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if readCall(r).test {
					next.ServeHTTP(w, r)
				} else {
					refusing.ServeHTTP(w, r)
				}
			})
		}
	}
	env := map[string]string{"RATE_LIMIT": "100000-H", "UPSTREAM_TIMEOUT": "5s", "SHUTDOWN_TIMEOUT": "20s"}
	f := start(t, setup{env: env, accounts: numbered(accounts, requests), mailgun: middleware})
	ask := func(f *fixture, emails ...string) {
		t.Helper()
		for _, email := range emails {
			a := f.post(fmt.Sprintf(`{"email":%q}`, email), map[string]string{"X-Request-Id": fmt.Sprintf("step-%d", len(answers))})
			answers = append(answers, a.visible())
			if a.status != http.StatusOK {
				t.Errorf("request %d: %d %s", len(answers), a.status, a.raw)
			}
		}
	}
	began := time.Now()
	ask(f, numbered(who, requests)...)
	if who.name == accounts.name {
		f.await("the quota is used up", func() bool { return limit.refused.Load() > 0 })
	} else {
		f.logs.awaitDeliveries(t)
	}
	ask(f, who.same, third)

	supabaseServer, mailgunServer := httptest.NewServer(f.stack.Supabase()), httptest.NewServer(f.stack.Mailgun())
	t.Cleanup(supabaseServer.Close)
	t.Cleanup(mailgunServer.Close)
	another := start(t, setup{env: with(env, map[string]string{"SUPABASE_URL": supabaseServer.URL, "MAILGUN_API_BASE": mailgunServer.URL, "SHUTDOWN_TIMEOUT": "0s"})})
	ask(another, who.same, who.fresh, third)

	time.Sleep(time.Until(began.Add(61 * time.Second)))
	ask(f, third)
	const samples = `resetd_upstream_requests_total{call="probe",outcome="%s",upstream="mailgun"}`
	f.await("Mailgun's probe asks again", func() bool {
		series := f.scrape()
		return series[fmt.Sprintf(samples, "ok")]+series[fmt.Sprintf(samples, "refused")] > 1
	})
	ask(f, who.same, who.fresh, third)

	want := []string{"ok"}
	if who.name == accounts.name && status != 500 {
		f.logs.awaitVerdict(t, "mailgun", "limited") // which the operator sees
		want = append(want, "limited")
		another.logs.awaitVerdict(t, "mailgun", "limited")
	}
	if got := f.logs.verdicts()["mailgun"]; !slices.Equal(got, want) {
		t.Errorf("the verdicts on Mailgun are %q, want %q", got, want)
	}
	// What was accepted is mailed all the same, at the latest when the server stops.
	limit.lifted.Store(true)
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	got := f.mailsTo()
	for _, email := range numbered(who, requests) {
		if isAccount(email) && got[email] != 1 {
			t.Errorf("%s has %d mails, want 1", email, got[email])
		}
	}
	f.checkMailed()
	return answers
}

// await waits until something is so.
func (f *fixture) await(what string, until func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !until(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("waited 40 s until %s", what)
		}
	}
}

// mailsTo counts the mails of each address.
func (f *fixture) mailsTo() map[string]int {
	counts := map[string]int{}
	for _, mail := range f.stack.Mails() {
		counts[strings.Join(mail.To, ",")]++
	}
	return counts
}

// TestTestMessages: test messages go to the address that our mail is from, and to nobody else; one
// goes out a minute at most, whatever is asked, and none while nothing is; none at all without the
// probe.
func TestTestMessages(t *testing.T) {
	t.Parallel()
	from := map[string]string{"MAIL_FROM": "Example <reset@mg.example.com>", "RATE_LIMIT": "100000-H"}
	busy := start(t, setup{env: from})
	quiet := start(t, setup{env: from})
	off := start(t, setup{env: with(from, probeOff)})
	quiet.ask(unknownEmail)
	for i, began := 0, time.Now(); time.Since(began) < 80*time.Second && len(busy.stack.TestMessages()) < 2; i++ {
		for _, f := range []*fixture{busy, off} {
			f.ask([]string{knownEmail, unknownEmail, otherKnown}[i%3])
		}
		time.Sleep(200 * time.Millisecond)
	}
	time.Sleep(time.Second) // in which no more come
	for _, f := range []*fixture{busy, quiet, off} {
		for _, call := range f.stack.Calls() {
			if call.TestMode != slices.Equal(call.To, []string{"reset@mg.example.com"}) {
				t.Errorf("a message to %q; in test mode: %v", call.To, call.TestMode)
			}
		}
		if mails := len(f.stack.Mails()); (mails > 0) != (f != quiet) {
			t.Errorf("%d mails", mails)
		}
	}
	if sent := busy.stack.TestMessages(); len(sent) != 2 || sent[0].At.Sub(sent[1].At) < 59*time.Second {
		t.Errorf("within a minute of requests %d test messages were sent: %v", len(sent), sent)
	}
	if sent := quiet.stack.TestMessages(); len(sent) != 1 {
		t.Errorf("for one request and a minute of silence %d test messages were sent: %v", len(sent), sent)
	}
	if sent := off.stack.TestMessages(); len(sent) != 0 {
		t.Errorf("without the probe %d test messages were sent", len(sent))
	}
	quiet.ask(unknownEmail)
	quiet.await("the request after the silence has its sample", func() bool { return len(quiet.stack.TestMessages()) == 2 })
}

// TestBound: the first answer comes within two UPSTREAM_TIMEOUT, and later ones wait for nothing,
// whatever hangs.
func TestBound(t *testing.T) {
	t.Parallel()
	const timeout, busy = 5 * time.Second, 3 * time.Second // the machine may be
	hanging := &fault{serve: hang}
	// slow answers only just in time, so that most time is spent before the next call hangs
	slow := func(next func(http.ResponseWriter, *http.Request, string)) *fault {
		return &fault{serve: func(w http.ResponseWriter, r *http.Request, email string) {
			select {
			case <-time.After(timeout * 9 / 10):
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
		{name: "all", supabase: hanging, mailgun: hanging},
		{name: "Supabase", supabase: hanging},
		{name: "Supabase for accounts", supabase: hanging, supabaseHits: accountsOnly},
		{name: "Supabase for accounts, and Mailgun", supabase: hanging, supabaseHits: accountsOnly, mailgun: hanging},
		{name: "Mailgun", mailgun: hanging},
		{name: "Mailgun for accounts", mailgun: hanging, mailgunHits: accountsOnly},
		{name: "Mailgun, and Supabase is slow", supabase: slow(notFound), mailgun: hanging},
		{name: "all, slowly", supabase: slow(reset), supabaseHits: accountsOnly, mailgun: slow(reset)},
	} {
		for _, env := range []map[string]string{{}, probeOff} {
			all.Go(func() {
				t.Run(fmt.Sprint(c.name, env), func(t *testing.T) {
					supabase, mailgun := &faulty{hits: c.supabaseHits}, &faulty{hits: c.mailgunHits}
					supabase.current.Store(c.supabase)
					mailgun.current.Store(c.mailgun)
					f := start(t, setup{env: with(map[string]string{"UPSTREAM_TIMEOUT": timeout.String(), "SHUTDOWN_TIMEOUT": "0s"}, env), supabase: supabase.middleware, mailgun: mailgun.middleware})
					ask := func(email string, bound time.Duration) {
						t.Helper()
						began := time.Now()
						a := f.ask(email)
						if took := time.Since(began); took > bound {
							t.Errorf("%s: %d after %v", email, a.status, took)
						}
					}
					var both sync.WaitGroup
					for _, email := range []string{knownEmail, unknownEmail} {
						both.Go(func() { ask(email, 2*timeout+busy) })
					}
					both.Wait()
					for range 5 {
						for _, email := range []string{knownEmail, unknownEmail} {
							ask(email, timeout/2)
						}
						time.Sleep(200 * time.Millisecond)
					}
				})
			})
		}
	}
	all.Wait()
}

// TestEndlessAnswers: an answer without an end is given up for its size, long before its time, by
// probes and by deliveries.
func TestEndlessAnswers(t *testing.T) {
	t.Parallel()
	endless := named(commonFaults(""), "endless")[0]
	const inTime = 30 * time.Second // of UPSTREAM_TIMEOUT=1m
	for _, c := range []struct {
		upstream, call string
		shown          int
	}{{"supabase", "generate_link", 503}, {"mailgun", "send", 502}} {
		for _, hits := range []func(upstreamCall) bool{everyone, accountsOnly} {
			at := &faulty{hits: hits}
			at.current.Store(&endless)
			s := setup{env: map[string]string{"UPSTREAM_TIMEOUT": "1m", "SHUTDOWN_TIMEOUT": "0s"}}
			if c.upstream == "supabase" {
				s.supabase = at.middleware
			} else {
				s.mailgun = at.middleware
			}
			f := start(t, s)
			began := time.Now()
			a := f.ask(knownEmail)
			if !hits(upstreamCall{test: true}) { // the delivery alone has it
				f.await("a delivery has given up the answer", func() bool {
					return f.metric("resetd_upstream_requests_total", fmt.Sprintf(`call=%q,outcome="failed",upstream=%q`, c.call, c.upstream)) > 0
				})
			} else if a.status != c.shown {
				t.Errorf("%s: %d %s", c.upstream, a.status, a.raw)
			}
			if took := time.Since(began); took > inTime {
				t.Errorf("%s: given up after %v", c.upstream, took)
			}
		}
	}
}

var hashInMail = regexp.MustCompile(`token_hash=([0-9a-f]+)`)

// verifies says whether a recovery link still works, and uses it up.
func verifies(t *testing.T, f *fixture, hash string) bool {
	t.Helper()
	body, _ := json.Marshal(map[string]string{"type": "recovery", "token_hash": hash})
	w := httptest.NewRecorder()
	f.stack.Supabase().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/auth/v1/verify", bytes.NewReader(body)))
	return w.Code == http.StatusOK
}

// TestRecipientLimit: silent, by the account and not its spelling, before the outbox, and the
// same for unknown addresses.
func TestRecipientLimit(t *testing.T) {
	t.Parallel()
	for _, who := range []who{accounts, strangers} {
		t.Run(who.name, func(t *testing.T) {
			f := start(t, setup{env: map[string]string{"RECIPIENT_LIMIT": "2-H"}})
			first := f.ask(who.same)
			f.ask(who.sameInCapitals)
			f.logs.awaitDeliveries(t)
			calls, mails := len(f.calls()), len(f.stack.Mails())
			for _, email := range []string{who.same, who.sameInCapitals, who.same} {
				a := f.ask(email)
				if a.status != first.status || a.raw != first.raw {
					t.Errorf("limited: %d %s, unlike %d %s", a.status, a.raw, first.status, first.raw)
				}
			}
			f.ask(who.fresh)
			f.logs.awaitDeliveries(t)
			now := f.calls()[calls:]
			for _, call := range now {
				if strings.EqualFold(call.Email, who.same) || slices.Contains(call.To, who.same) {
					t.Errorf("a limited request made a call: %+v", call)
				}
			}
			if len(now) == 0 {
				t.Error("the limit of one address holds for another")
			}
			suppressed := 0
			for _, record := range f.logs.records(t, "request") {
				if record["outcome"] == "suppressed" {
					suppressed++
				}
			}
			if suppressed != 3 || f.metric("resetd_limited_total", `limit="recipient"`) != 3 {
				t.Errorf("%d logged as suppressed, want 3", suppressed)
			}
			if who.name == accounts.name {
				if mails == 0 {
					t.Fatal("no mail")
				}
				// The newest mail's link has outlived the requests that were suppressed.
				newest := f.stack.Mails()[len(f.stack.Mails())-mails]
				if hash := hashInMail.FindStringSubmatch(newest.Text)[1]; !verifies(t, f, hash) {
					t.Error("the link that was sent last is invalid")
				}
			}
			f.ends()
			checkSecrets(t, f)
		})
	}
}

// TestRecipientLimitAfterFaults: an answer that shows a fault takes nothing from the limit, so that
// who tries again is served. Every other answer takes one, whatever becomes of its delivery: else
// the limit would tell of it.
func TestRecipientLimitAfterFaults(t *testing.T) {
	t.Parallel()
	f500 := named(commonFaults(""), "500")[0]
	var all sync.WaitGroup
	for _, c := range []struct {
		name              string
		supabase, mailgun func(upstreamCall) bool // nil: it has no fault
		status            int
		taken             bool
	}{
		{name: "Supabase", supabase: everyone, status: 503},
		{name: "Mailgun", mailgun: everyone, status: 502},
		{name: "Supabase for accounts only", supabase: accountsOnly, status: 200, taken: true},
		{name: "Mailgun for accounts only", mailgun: accountsOnly, status: 200, taken: true},
		{name: "Supabase for accounts only, and Mailgun", supabase: accountsOnly, mailgun: everyone, status: 502},
		{name: "Supabase for unknown addresses only", supabase: strangersOnly, status: 503},
	} {
		for _, who := range []who{accounts, strangers} {
			all.Go(func() {
				t.Run(c.name+"/"+who.name, func(t *testing.T) {
					supabase, mailgun := &faulty{hits: c.supabase}, &faulty{hits: c.mailgun}
					f := start(t, setup{env: map[string]string{"RECIPIENT_LIMIT": "1-H"}, supabase: supabase.middleware, mailgun: mailgun.middleware})
					for at, hits := range map[*faulty]func(upstreamCall) bool{supabase: c.supabase, mailgun: c.mailgun} {
						if hits != nil {
							at.current.Store(&f500)
						}
					}
					accepted := func() int { return strings.Count(f.logs.String(), `"outcome":"accepted"`) }
					for range 2 { // if it was taken, the second is suppressed
						if a := f.ask(who.same); a.status != c.status {
							t.Fatalf("during the fault: %d %s, want %d", a.status, a.raw, c.status)
						}
					}
					if got := accepted() == 1; got != c.taken || accepted() > 1 {
						t.Errorf("during the fault %d were accepted", accepted())
					}
					supabase.current.Store(nil)
					mailgun.current.Store(nil)
					for _, upstream := range []string{"supabase", "mailgun"} {
						f.logs.awaitVerdict(t, upstream, "ok")
					}
					for range 2 {
						if a := f.ask(who.same); a.status != 200 {
							t.Fatalf("after the fault: %d %s", a.status, a.raw)
						}
					}
					if accepted() != 1 {
						t.Errorf("in all %d were accepted, want 1", accepted())
					}
					f.logs.awaitDeliveries(t)
					if mails := len(f.stack.Mails()); mails != map[bool]int{true: 1}[who.name == accounts.name] {
						t.Errorf("%d mails", mails)
					}
				})
			})
		}
	}
	all.Wait()
}

// TestMaxAccepted: more than MAX_ACCEPTED requests in ten seconds are answered 503, the same for
// accounts and for unknown addresses; who tries again later is served.
func TestMaxAccepted(t *testing.T) {
	t.Parallel()
	const most = 5
	var sides [2][]string
	var both sync.WaitGroup
	for i, who := range []who{accounts, strangers} {
		both.Go(func() {
			t.Run(who.name, func(t *testing.T) {
				for range 5 { // the bound must be reached within ten seconds, which a busy machine may not manage
					var inTime bool
					if sides[i], inTime = reachMaxAccepted(t, who, most); inTime {
						return
					}
				}
				t.Error("this machine is too slow to reach the bound")
			})
		})
	}
	both.Wait()
	if !slices.Equal(sides[0], sides[1]) {
		t.Errorf("the answers about accounts are\n%q\nand about unknown addresses\n%q", sides[0], sides[1])
	}
}

// reachMaxAccepted asks for five more than may be accepted, and for those again ten seconds later. It
// returns all that is visible of the answers, and whether the bound was reached in time.
func reachMaxAccepted(t *testing.T, who who, most int) (visible []string, inTime bool) {
	t.Helper()
	f := start(t, setup{
		env:      map[string]string{"MAX_ACCEPTED": strconv.Itoa(most), "RECIPIENT_LIMIT": "1-H", "RATE_LIMIT": "100000-H"},
		accounts: numbered(accounts, most+5),
	})
	var answers []answer
	ask := func(emails []string) {
		t.Helper()
		for _, email := range emails {
			a := f.post(fmt.Sprintf(`{"email":%q}`, email), map[string]string{"X-Request-Id": fmt.Sprintf("step-%d", len(answers))})
			answers, visible = append(answers, a), append(visible, a.visible())
		}
	}
	emails := numbered(who, most+5)
	began := time.Now()
	ask(emails)
	if time.Since(began) > outbox.Window {
		return nil, false
	}
	time.Sleep(outbox.Window + 100*time.Millisecond) // since the last one
	ask(emails[most:])
	for n, a := range answers {
		want := acknowledged
		if n >= most && n < len(emails) {
			want = overloaded
		}
		if got := fmt.Sprintf("%d %s", a.status, a.body.Code); got != want {
			t.Errorf("request %d: %s, want %s", n+1, a.raw, want)
		}
		if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); (want == overloaded) != (err == nil && seconds > 0) {
			t.Errorf("request %d: Retry-After is %q", n+1, a.header.Get("Retry-After"))
		}
	}
	f.logs.awaitDeliveries(t)
	got := f.mailsTo()
	for _, email := range emails {
		if isAccount(email) && got[email] != 1 {
			t.Errorf("%s has %d mails, want 1", email, got[email])
		}
	}
	f.ends()
	return visible, true
}

// TestUnfinishedDoNotCount: as many accounts as MAX_ACCEPTED wait for their mail, and the next ten
// seconds' requests are all answered 200, as after as many unknown addresses.
func TestUnfinishedDoNotCount(t *testing.T) {
	t.Parallel()
	const most = 100
	var both sync.WaitGroup
	for _, who := range []who{accounts, strangers} {
		both.Go(func() {
			t.Run(who.name, func(t *testing.T) {
				supabase := &faulty{hits: accountsOnly}
				supabase.current.Store(&fault{serve: hang})
				f := start(t, setup{
					env:      map[string]string{"MAX_ACCEPTED": strconv.Itoa(most), "UPSTREAM_TIMEOUT": "5s", "RATE_LIMIT": "100000-H", "SHUTDOWN_TIMEOUT": "0s"},
					accounts: numbered(accounts, 2*most), supabase: supabase.middleware,
				})
				for _, emails := range [][]string{numbered(who, 2*most)[:most], numbered(who, 2*most)[most:]} {
					for _, email := range emails {
						if a := f.ask(email); a.status != http.StatusOK {
							t.Fatalf("%d %s", a.status, a.raw)
						}
					}
					time.Sleep(10*time.Second + 100*time.Millisecond)
				}
				want := map[bool]float64{true: 2 * most}[who.name == accounts.name]
				if pending := f.scrape()["resetd_pending_requests"]; pending != want {
					t.Errorf("%v requests are pending, want %v", pending, want)
				}
				for range most {
					if a := f.ask(third); a.status != http.StatusOK {
						t.Fatalf("about a third address: %d %s", a.status, a.raw)
					}
				}
			})
		})
	}
	both.Wait()
}
