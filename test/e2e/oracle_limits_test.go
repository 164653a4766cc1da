package e2e

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
	"testing"
	"time"

	"github.com/resetd/resetd/impl/outbox"
	"github.com/resetd/resetd/test/resetdtest"
)

// The tests of this file compare answers for accounts and for unknown addresses at bounds: a quota of Mailgun, the
// recipient limit, MAX_ACCEPTED, and UPSTREAM_TIMEOUT.

// numbered returns n addresses of accounts, or n unknown addresses.
func numbered(who who, n int) (emails []string) {
	_, domain, _ := strings.Cut(who.same, "@")
	for i := range n {
		emails = append(emails, fmt.Sprintf("number-%d@%s", i, domain))
	}
	return emails
}

// await waits until a condition holds.
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
	for _, mail := range f.Stack.Mails() {
		counts[strings.Join(mail.To, ",")]++
	}
	return counts
}

// TestEndlessAnswers: probes and deliveries end an endless answer because of its size, long before UPSTREAM_TIMEOUT.
func TestEndlessAnswers(t *testing.T) {
	t.Parallel()
	endless := named(commonFaults(""), "endless")[0]
	const inTime = 30 * time.Second // of UPSTREAM_TIMEOUT=1m
	for _, c := range []struct {
		upstream, call string
		shown          int
	}{{upstream: "supabase", call: "generate_link", shown: 503}, {upstream: "mailgun", call: "send", shown: 502}} {
		for _, hits := range []func(upstreamCall) bool{everyone, accountsOnly} {
			at := &faulty{hits: hits}
			at.current.Store(&endless)
			s := resetdtest.Config{Settings: map[string]string{"UPSTREAM_TIMEOUT": "1m", "SHUTDOWN_TIMEOUT": "0s"}}
			if c.upstream == "supabase" {
				s.Supabase = at.middleware
			} else {
				s.Mailgun = at.middleware
			}
			f := start(t, s)
			began := time.Now()
			a := f.Ask(knownEmail)
			if !hits(upstreamCall{test: true}) { // only the delivery has the fault
				f.await("a delivery has given up the answer", func() bool {
					return f.Metric("resetd_upstream_requests_total", fmt.Sprintf(`call=%q,outcome="failed",upstream=%q`, c.call, c.upstream)) > 0
				})
			} else if a.Status != c.shown {
				t.Errorf("%s: %d %s", c.upstream, a.Status, a.Raw)
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
	f.Stack.Supabase().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/auth/v1/verify", bytes.NewReader(body)))
	return w.Code == http.StatusOK
}

// TestRecipientLimit: the limit is silent, counts by account and not by spelling, comes before the outbox, and is the
// same for unknown addresses.
func TestRecipientLimit(t *testing.T) {
	t.Parallel()
	for _, who := range []who{accounts, strangers} {
		t.Run(who.name, func(t *testing.T) {
			f := start(t, resetdtest.Config{Settings: map[string]string{"RECIPIENT_LIMIT": "2-H"}})
			first := f.Ask(who.same)
			f.Ask(who.sameInCapitals)
			awaitDeliveries(t, f.Log)
			calls, mails := len(f.Calls()), len(f.Stack.Mails())
			for _, email := range []string{who.same, who.sameInCapitals, who.same} {
				a := f.Ask(email)
				if a.Status != first.Status || a.Raw != first.Raw {
					t.Errorf("limited: %d %s, unlike %d %s", a.Status, a.Raw, first.Status, first.Raw)
				}
			}
			f.Ask(who.fresh)
			awaitDeliveries(t, f.Log)
			now := f.Calls()[calls:]
			for _, call := range now {
				if strings.EqualFold(call.Email, who.same) || slices.Contains(call.To, who.same) {
					t.Errorf("a limited request made a call: %+v", call)
				}
			}
			if len(now) == 0 {
				t.Error("the limit of one address holds for another")
			}
			suppressed := 0
			for _, record := range f.Log.Records(t, "request") {
				if record["outcome"] == "suppressed" {
					suppressed++
				}
			}
			if suppressed != 3 || f.Metric("resetd_limited_total", `limit="recipient"`) != 3 {
				t.Errorf("%d logged as suppressed, want 3", suppressed)
			}
			if who.name == accounts.name {
				if mails == 0 {
					t.Fatal("no mail")
				}
				// The link of the newest mail still works after the suppressed requests.
				newest := f.Stack.Mails()[len(f.Stack.Mails())-mails]
				if hash := hashInMail.FindStringSubmatch(newest.Text)[1]; !verifies(t, f, hash) {
					t.Error("the link that was sent last is invalid")
				}
			}
			f.ends()
			checkSecrets(t, f)
		})
	}
}

// TestRecipientLimitAfterFaults: an answer that shows a fault does not count for the limit, so that the next request is
// served. Every other answer counts, however its delivery ends; otherwise the limit would tell it.
func TestRecipientLimitAfterFaults(t *testing.T) {
	t.Parallel()
	f500 := named(commonFaults(""), "500")[0]
	var all sync.WaitGroup
	for _, c := range []struct {
		name              string
		supabase, mailgun func(upstreamCall) bool // nil: no fault
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
					f := start(t, resetdtest.Config{Settings: map[string]string{"RECIPIENT_LIMIT": "1-H"}, Supabase: supabase.middleware, Mailgun: mailgun.middleware})
					for at, hits := range map[*faulty]func(upstreamCall) bool{supabase: c.supabase, mailgun: c.mailgun} {
						if hits != nil {
							at.current.Store(&f500)
						}
					}
					accepted := func() int { return strings.Count(f.Log.String(), `"outcome":"accepted"`) }
					for range 2 { // if the first counts, the second is suppressed
						if a := f.Ask(who.same); a.Status != c.status {
							t.Fatalf("during the fault: %d %s, want %d", a.Status, a.Raw, c.status)
						}
					}
					if got := accepted() == 1; got != c.taken || accepted() > 1 {
						t.Errorf("during the fault %d were accepted", accepted())
					}
					supabase.current.Store(nil)
					mailgun.current.Store(nil)
					for _, upstream := range []string{"supabase", "mailgun"} {
						awaitVerdict(t, f.Log, upstream, "ok")
					}
					for range 2 {
						if a := f.Ask(who.same); a.Status != 200 {
							t.Fatalf("after the fault: %d %s", a.Status, a.Raw)
						}
					}
					if accepted() != 1 {
						t.Errorf("in all %d were accepted, want 1", accepted())
					}
					awaitDeliveries(t, f.Log)
					if mails := len(f.Stack.Mails()); mails != map[bool]int{true: 1}[who.name == accounts.name] {
						t.Errorf("%d mails", mails)
					}
				})
			})
		}
	}
	all.Wait()
}

// TestMaxAccepted: more than MAX_ACCEPTED requests in ten seconds are answered 503, the same for accounts and for
// unknown addresses. Later the same requests are accepted.
func TestMaxAccepted(t *testing.T) {
	t.Parallel()
	const most = 5
	var sides [2][]string
	var both sync.WaitGroup
	for i, who := range []who{accounts, strangers} {
		both.Go(func() {
			t.Run(who.name, func(t *testing.T) {
				sides[i] = reachMaxAccepted(t, who, most)
			})
		})
	}
	both.Wait()
	if !slices.Equal(sides[0], sides[1]) {
		t.Errorf("the answers for accounts are\n%q\nand for unknown addresses\n%q", sides[0], sides[1])
	}
}

// reachMaxAccepted sends five requests more than may be accepted, and those again ten seconds later. It returns all that
// is visible of the answers.
func reachMaxAccepted(t *testing.T, who who, most int) (seen []string) {
	t.Helper()
	f := start(t, resetdtest.Config{
		Settings: map[string]string{"MAX_ACCEPTED": strconv.Itoa(most), "RECIPIENT_LIMIT": "1-H", "RATE_LIMIT": "100000-H"},
		Accounts: numbered(accounts, most+5),
	})
	var answers []resetdtest.Answer
	ask := func(emails []string) {
		t.Helper()
		for _, email := range emails {
			a := f.Post(fmt.Sprintf(`{"email":%q}`, email), map[string]string{"X-Request-Id": fmt.Sprintf("step-%d", len(answers))})
			answers, seen = append(answers, a), append(seen, visible(a))
		}
	}
	emails := numbered(who, most+5)
	began := time.Now()
	ask(emails)
	if took := time.Since(began); took > outbox.Window {
		t.Fatalf("%d requests took %v, longer than requests are counted", len(emails), took)
	}
	time.Sleep(outbox.Window + 100*time.Millisecond) // since the last one
	ask(emails[most:])
	for n, a := range answers {
		want := acknowledged
		if n >= most && n < len(emails) {
			want = overloaded
		}
		if got := fmt.Sprintf("%d %s", a.Status, a.Body.Code); got != want {
			t.Errorf("request %d: %s, want %s", n+1, a.Raw, want)
		}
		if seconds, err := strconv.Atoi(a.Header.Get("Retry-After")); (want == overloaded) != (err == nil && seconds > 0) {
			t.Errorf("request %d: Retry-After is %q", n+1, a.Header.Get("Retry-After"))
		}
	}
	awaitDeliveries(t, f.Log)
	got := f.mailsTo()
	for _, email := range emails {
		if isAccount(email) && got[email] != 1 {
			t.Errorf("%s has %d mails, want 1", email, got[email])
		}
	}
	f.ends()
	return seen
}
