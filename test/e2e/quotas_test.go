//go:build full

package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

// TestQuotas: 20 requests for accounts use up a quota of Mailgun, and those for unknown addresses do not. The next
// answers are the same: of this server, of this server after its next sample a minute later, and of another server
// that starts while the quota is used up. Real mail that fails for another reason changes no answer a minute later
// either.
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
					t.Errorf("after requests for accounts the answers are\n%q\nbut after those for unknown addresses\n%q", sides[0], sides[1])
				}
			})
		})
	}
	all.Wait()
}

// TestTestMessages: test messages go only to the sender's own address, at most one a minute while requests come, and
// none without requests; without the probe there is none at all.
func TestTestMessages(t *testing.T) {
	t.Parallel()
	from := map[string]string{"MAIL_FROM": "Example <reset@mg.example.com>", "RATE_LIMIT": "100000-H"}
	busy := start(t, resetdtest.Config{Settings: from})
	quiet := start(t, resetdtest.Config{Settings: from})
	off := start(t, resetdtest.Config{Settings: with(from, probeOff)})
	quiet.Ask(unknownEmail)
	for i, began := 0, time.Now(); time.Since(began) < 80*time.Second && len(busy.Stack.TestMessages()) < 2; i++ {
		for _, f := range []*fixture{busy, off} {
			f.Ask([]string{knownEmail, unknownEmail, otherKnown}[i%3])
		}
		time.Sleep(200 * time.Millisecond)
	}
	time.Sleep(time.Second) // no more messages come
	for _, f := range []*fixture{busy, quiet, off} {
		for _, call := range f.Stack.Calls() {
			if call.TestMode != slices.Equal(call.To, []string{"reset@mg.example.com"}) {
				t.Errorf("a message to %q; in test mode: %v", call.To, call.TestMode)
			}
		}
		if mails := len(f.Stack.Mails()); (mails > 0) != (f != quiet) {
			t.Errorf("%d mails", mails)
		}
	}
	if sent := busy.Stack.TestMessages(); len(sent) != 2 || sent[0].At.Sub(sent[1].At) < 59*time.Second {
		t.Errorf("within a minute of requests %d test messages were sent: %v", len(sent), sent)
	}
	if sent := quiet.Stack.TestMessages(); len(sent) != 1 {
		t.Errorf("for one request and a minute of silence %d test messages were sent: %v", len(sent), sent)
	}
	if sent := off.Stack.TestMessages(); len(sent) != 0 {
		t.Errorf("without the probe %d test messages were sent", len(sent))
	}
	quiet.Ask(unknownEmail)
	quiet.await("the request after the silence has its sample", func() bool { return len(quiet.Stack.TestMessages()) == 2 })
}

// TestUnfinishedDoNotCount: MAX_ACCEPTED accounts wait for their mail, and the requests of the next ten seconds are
// all answered 200, as after as many unknown addresses.
func TestUnfinishedDoNotCount(t *testing.T) {
	t.Parallel()
	const most = 100
	var both sync.WaitGroup
	for _, who := range []who{accounts, strangers} {
		both.Go(func() {
			t.Run(who.name, func(t *testing.T) {
				supabase := &faulty{hits: accountsOnly}
				supabase.current.Store(&fault{serve: hang})
				f := start(t, resetdtest.Config{
					Settings: map[string]string{"MAX_ACCEPTED": strconv.Itoa(most), "UPSTREAM_TIMEOUT": "5s", "RATE_LIMIT": "100000-H", "SHUTDOWN_TIMEOUT": "0s"},
					Accounts: numbered(accounts, 2*most), Supabase: supabase.middleware,
				})
				for _, emails := range [][]string{numbered(who, 2*most)[:most], numbered(who, 2*most)[most:]} {
					for _, email := range emails {
						if a := f.Ask(email); a.Status != http.StatusOK {
							t.Fatalf("%d %s", a.Status, a.Raw)
						}
					}
					time.Sleep(10*time.Second + 100*time.Millisecond)
				}
				want := map[bool]float64{true: 2 * most}[who.name == accounts.name]
				if pending := f.Scrape()["resetd_pending_requests"]; pending != want {
					t.Errorf("%v requests are pending, want %v", pending, want)
				}
				for range most {
					if a := f.Ask(third); a.Status != http.StatusOK {
						t.Fatalf("about a third address: %d %s", a.Status, a.Raw)
					}
				}
			})
		})
	}
	both.Wait()
}

// useUpQuota returns the answers of one side. A status of 500 is no quota, but a fault of real mail only.
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
	f := start(t, resetdtest.Config{Settings: env, Accounts: numbered(accounts, requests), Mailgun: middleware})
	ask := func(f *fixture, emails ...string) {
		t.Helper()
		for _, email := range emails {
			a := f.Post(fmt.Sprintf(`{"email":%q}`, email), map[string]string{"X-Request-Id": fmt.Sprintf("step-%d", len(answers))})
			answers = append(answers, visible(a))
			if a.Status != http.StatusOK {
				t.Errorf("request %d: %d %s", len(answers), a.Status, a.Raw)
			}
		}
	}
	began := time.Now()
	ask(f, numbered(who, requests)...)
	if who.name == accounts.name {
		f.await("the quota is used up", func() bool { return limit.refused.Load() > 0 })
	} else {
		awaitDeliveries(t, f.Log)
	}
	ask(f, who.same, third)

	supabaseServer, mailgunServer := httptest.NewServer(f.Stack.Supabase()), httptest.NewServer(f.Stack.Mailgun())
	t.Cleanup(supabaseServer.Close)
	t.Cleanup(mailgunServer.Close)
	another := start(t, resetdtest.Config{Settings: with(env, map[string]string{"SUPABASE_URL": supabaseServer.URL, "MAILGUN_API_BASE": mailgunServer.URL, "SHUTDOWN_TIMEOUT": "0s"})})
	ask(another, who.same, who.fresh, third)

	time.Sleep(time.Until(began.Add(61 * time.Second)))
	ask(f, third)
	const samples = `resetd_upstream_requests_total{call="probe",outcome="%s",upstream="mailgun"}`
	f.await("Mailgun's probe asks again", func() bool {
		series := f.Scrape()
		return series[fmt.Sprintf(samples, "ok")]+series[fmt.Sprintf(samples, "refused")] > 1
	})
	ask(f, who.same, who.fresh, third)

	want := []string{"ok"}
	if who.name == accounts.name && status != 500 {
		awaitVerdict(t, f.Log, "mailgun", "limited") // the operator sees it
		want = append(want, "limited")
		awaitVerdict(t, another.Log, "mailgun", "limited")
	}
	if got := verdictsIn(f.Log)["mailgun"]; !slices.Equal(got, want) {
		t.Errorf("the verdicts on Mailgun are %q, want %q", got, want)
	}
	// Accepted mails go out nevertheless, at the latest when the server stops.
	limit.lifted.Store(true)
	if err := f.Stop(); err != nil {
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

// quota answers with status after most messages have been accepted, including test messages.
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
