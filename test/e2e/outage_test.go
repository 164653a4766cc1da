//go:build full

package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

// TestOutage: an outage of an upstream, in the middle of requests or before the first one, loses no request that was
// answered 200, and the service is back within 5 s of its end. The answers depend only on the time, and not on
// whether there is an account.
func TestOutage(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for _, fails := range []string{"refuses connections", "500", "hangs"} {
		for _, c := range []outage{
			{upstream: "supabase", begins: 2 * time.Second, shown: unavailable},
			{upstream: "mailgun", begins: 2 * time.Second},
			{upstream: "supabase", shown: unavailable},
			{upstream: "mailgun", shown: undeliverable},
			{upstream: "supabase", begins: 2 * time.Second, accountsOnly: true}, // like a read-only database
			{upstream: "mailgun", begins: 2 * time.Second, accountsOnly: true},
		} {
			if c.accountsOnly && fails != "500" {
				continue
			}
			c.fails = fails
			all.Go(func() { t.Run(c.name(), func(t *testing.T) { c.run(t) }) })
		}
	}
	all.Wait()
}

// outage is an outage of twelve seconds.
type outage struct {
	upstream     string
	fails        string
	accountsOnly bool
	begins       time.Duration // 0: before the first request
	// shown is everybody's answer after the probe has noticed the outage. It is empty if the probe does not notice it
	// before the end, because Mailgun's probe asks once a minute, or because only accounts have the fault.
	shown string
}

func (o outage) name() string {
	name := o.upstream + " " + o.fails
	if o.accountsOnly {
		name += " for accounts only"
	}
	if o.begins == 0 {
		name += ", from the start"
	}
	return name
}

func (o outage) run(t *testing.T) {
	const (
		lasts  = 12 * time.Second
		every  = 250 * time.Millisecond
		after  = 6 * time.Second // requests go on for so long
		people = int((2*time.Second + lasts + after) / every)
		slack  = 2 * time.Second // for a busy machine
	)
	timeout := 10 * time.Second // healthy calls never take so long
	if o.fails == "hangs" {
		timeout = 3 * time.Second
	}
	at := &faulty{hits: everyone}
	if o.accountsOnly {
		at.hits = accountsOnly
	}
	s := resetdtest.Config{
		Settings: map[string]string{"UPSTREAM_TIMEOUT": timeout.String(), "RATE_LIMIT": "100000-H"},
		Accounts: numbered(accounts, people),
	}
	variable, middleware := "SUPABASE_URL", &s.Supabase
	if o.upstream == "mailgun" {
		variable, middleware = "MAILGUN_API_BASE", &s.Mailgun
	}
	*middleware = at.middleware
	begin, end := func() { at.current.Store(&named(commonFaults(""), o.fails)[0]) }, func() { at.current.Store(nil) }
	var g *gate
	if o.fails == "refuses connections" {
		g = newGate(t)
		s.Settings[variable] = "http://" + g.addr
		begin, end = g.shut, g.open
	}
	f := start(t, s)
	// Each request has its own connection, because a kept one may be closed just when it is used again.
	f.Client.Transport = f.Transport(&http.Transport{DisableKeepAlives: true})
	if g != nil {
		g.handler = f.Stack.Supabase()
		if o.upstream == "mailgun" {
			g.handler = f.Stack.Mailgun()
		}
		g.open()
	}

	// told has the answers of both kinds of callers at the same time.
	type told struct {
		at, till time.Duration // since the start: when they sent requests, and when both had their answers
		short    [2]string
	}
	var (
		mu        sync.Mutex
		timeline  []told
		promised  = map[string]bool{}
		requests  sync.WaitGroup
		started   = time.Now()
		began     bool
		ended     time.Duration
		endsAfter = o.begins + lasts
	)
	for i := 0; i < people && (ended == 0 || time.Since(started) < endsAfter+after); i++ {
		now := time.Since(started)
		if now >= o.begins && !began {
			began = true
			begin()
		}
		if now >= endsAfter && ended == 0 {
			end()
			ended = time.Since(started)
		}
		requests.Go(func() {
			row := told{at: time.Since(started)}
			emails := [2]string{numbered(accounts, people)[i], numbered(strangers, people)[i]}
			var both sync.WaitGroup
			for kind, email := range emails {
				both.Go(func() {
					a := f.Ask(email)
					row.short[kind] = fmt.Sprintf("%d %s", a.Status, a.Body.Code)
				})
			}
			both.Wait()
			row.till = time.Since(started)
			mu.Lock()
			defer mu.Unlock()
			timeline = append(timeline, row)
			promised[emails[0]] = row.short[0] == acknowledged
		})
		time.Sleep(every)
	}
	requests.Wait()
	if ended == 0 {
		t.Fatal("the requests were over before the outage")
	}
	awaitDeliveries(t, f.Log)
	took := time.Since(started)

	var changes []time.Duration // when verdicts changed
	for _, record := range f.Log.Records(t, "probe") {
		text, _ := record["time"].(string)
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, at.Sub(started))
	}
	slices.SortFunc(timeline, func(a, b told) int { return int(a.at - b.at) })
	var (
		table    strings.Builder
		failures []time.Duration // when everybody got the answer of the outage
		from     = 0
	)
	for i, row := range timeline {
		if row.short[0] != row.short[1] && !slices.ContainsFunc(changes, func(at time.Duration) bool { return at > row.at && at < row.till+slack/10 }) {
			t.Errorf("at the same time, after %v, accounts were answered %q and unknown addresses %q, and no verdict changed", row.at, row.short[0], row.short[1])
		}
		if row.short[0] != acknowledged {
			failures = append(failures, row.at)
			if row.short[0] != o.shown {
				t.Errorf("after %v: %q", row.at, row.short[0])
			}
		}
		if i+1 == len(timeline) || timeline[i+1].short != row.short {
			fmt.Fprintf(&table, "%8.1f s to %5.1f s %4d times: accounts %-26q unknown addresses %q\n", timeline[from].at.Seconds(), row.at.Seconds(), i+1-from, row.short[0], row.short[1])
			from = i + 1
		}
	}
	t.Logf("an outage from %.1f s to %.1f s; all is delivered after %.1f s\n%s", o.begins.Seconds(), ended.Seconds(), took.Seconds(), &table)
	switch {
	case o.shown == "" && len(failures) > 0:
		t.Errorf("%d were not answered 200", len(failures))
	case o.shown == "":
	case len(failures) == 0:
		t.Error("everybody was answered 200")
	default:
		// The probe asks every 5 s, and believes a failure after the second one.
		soonest := slack
		if o.begins > 0 {
			soonest += 5 * time.Second
		}
		if o.fails == "hangs" {
			soonest += 2 * timeout
		}
		if first := failures[0] - o.begins; first > soonest {
			t.Errorf("it was shown only %v after its beginning", first)
		}
		back := changes[len(changes)-1]
		if last := failures[len(failures)-1]; back > ended+5*time.Second || last > back {
			t.Errorf("after the end at %v the verdict changed at %v, and the last request that failed came at %v", ended, back, last)
		}
	}

	mails := f.mailsTo()
	for _, email := range slices.Sorted(maps.Keys(promised)) {
		n := mails[email]
		if promised[email] && n == 0 || n > 2 || n > 1 && o.fails != "hangs" {
			t.Errorf("%s was answered 200: %v, and has %d mails", email, promised[email], n)
		}
	}
	for _, e := range f.ends() {
		if e.outcome == "undelivered" || e.outcome == "unconfirmed" {
			t.Errorf("%s: %v", e.outcome, e.record)
		}
	}
	f.checkMailed()
	if a := f.Ask(third); a.Status != http.StatusOK {
		t.Errorf("in the end: %d %s", a.Status, a.Raw)
	}
}

// TestBound: the first answer comes within two UPSTREAM_TIMEOUT, and later answers do not wait, whatever hangs.
func TestBound(t *testing.T) {
	t.Parallel()
	const timeout, busy = 5 * time.Second, 3 * time.Second // busy: for a busy machine
	hanging := &fault{serve: hang}
	// slow answers just in time, so that much time has passed before the next call hangs
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
					f := start(t, resetdtest.Config{Settings: with(map[string]string{"UPSTREAM_TIMEOUT": timeout.String(), "SHUTDOWN_TIMEOUT": "0s"}, env), Supabase: supabase.middleware, Mailgun: mailgun.middleware})
					ask := func(email string, bound time.Duration) {
						t.Helper()
						began := time.Now()
						a := f.Ask(email)
						if took := time.Since(began); took > bound {
							t.Errorf("%s: %d after %v", email, a.Status, took)
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
