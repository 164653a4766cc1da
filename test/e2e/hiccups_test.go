//go:build full

package e2e

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

// TestHiccups: while every third call fails, all requests are answered 200, and each account is mailed: exactly once if
// the fate of its failed message is known. If it is unknown, nobody gets more than two mails, and the log says who
// may have none. A mail that Mailgun has accepted is never logged as undelivered.
func TestHiccups(t *testing.T) {
	t.Parallel()
	fail := answering(500, "GOSSIP")
	refuse := answering(401, `{"message":"Invalid API key"}`)
	var all sync.WaitGroup
	for _, c := range []struct {
		name              string
		supabase, mailgun *everyThird
		people            int
		unknownFate       bool
	}{
		{name: "both", supabase: &everyThird{serve: fail}, mailgun: &everyThird{serve: fail}, people: 500},
		{name: "Supabase refuses the key", supabase: &everyThird{serve: refuse}, mailgun: &everyThird{serve: refuse}, people: 100},
		{name: "Supabase resets", supabase: &everyThird{serve: reset}, mailgun: &everyThird{serve: fail}, people: 100},
		{name: "Supabase resets, having made the link", supabase: &everyThird{serve: reset, accepts: true}, mailgun: &everyThird{serve: fail}, people: 100},
		{name: "Mailgun resets", supabase: &everyThird{}, mailgun: &everyThird{serve: reset, accepts: true}, people: 200, unknownFate: true},
		{name: "Mailgun's gateway fails", supabase: &everyThird{}, mailgun: &everyThird{serve: answering(502, "GOSSIP"), accepts: true}, people: 100, unknownFate: true},
	} {
		all.Go(func() {
			t.Run(c.name, func(t *testing.T) {
				everybody := numbered(accounts, c.people)
				f := start(t, resetdtest.Config{
					Settings: map[string]string{"MAX_DELIVERIES": "64", "UPSTREAM_TIMEOUT": "10s", "RATE_LIMIT": "100000-H"},
					Accounts: everybody, Supabase: c.supabase.middleware, Mailgun: c.mailgun.middleware,
				})
				began := time.Now()
				todo := make(chan string)
				var clients sync.WaitGroup
				for range 8 {
					clients.Go(func() {
						for email := range todo {
							if a := f.Ask(email); a.Status != http.StatusOK {
								t.Errorf("%s: %d %s", email, a.Status, a.Raw)
							}
						}
					})
				}
				for i, email := range everybody {
					todo <- email
					if i%5 == 0 {
						todo <- "no-" + numbered(strangers, c.people)[i]
					}
				}
				close(todo)
				clients.Wait()
				awaitDeliveries(t, f.Log)
				supabaseFailures, supabaseCalls := c.supabase.counts()
				mailgunFailures, mailgunCalls := c.mailgun.counts()
				t.Logf("%d accounts: all have ended after %v; Supabase has failed %d of %d calls, Mailgun %d of %d",
					c.people, time.Since(began).Round(100*time.Millisecond), supabaseFailures, supabaseCalls, mailgunFailures, mailgunCalls)
				if c.supabase.serve != nil && supabaseFailures < c.people/5 || mailgunFailures < c.people/5 {
					t.Error("too few calls have failed to show anything")
				}
				ends := f.ends()
				unconfirmed, twice, mails := 0, 0, f.mailsTo()
				for _, e := range ends {
					switch e.outcome {
					case "unconfirmed":
						unconfirmed++
					case "undelivered":
						t.Errorf("undelivered: %v", e.record)
					}
				}
				missing := 0
				for _, email := range everybody {
					switch n := mails[email]; {
					case n == 0:
						missing++
					case n == 2 && c.unknownFate:
						twice++
					case n != 1:
						t.Errorf("%s has %d mails", email, n)
					}
					delete(mails, email)
				}
				if len(mails) > 0 {
					t.Errorf("mailed without an account: %v", mails)
				}
				if missing > unconfirmed || unconfirmed > 0 && !c.unknownFate {
					t.Errorf("%d accounts have no mail, and %d deliveries are logged as unconfirmed", missing, unconfirmed)
				}
				if c.unknownFate {
					t.Logf("%d accounts were mailed twice, %d not at all; %d are logged as unconfirmed", twice, missing, unconfirmed)
				}
				for upstream, verdicts := range verdictsIn(f.Log) {
					if !slices.Equal(verdicts, []string{"ok"}) {
						t.Errorf("the verdicts on %s are %q", upstream, verdicts)
					}
				}
				f.checkMailed()
			})
		})
	}
	all.Wait()
}
