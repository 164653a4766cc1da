package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests of this file look for an oracle: anything by which a caller learns whether an
// account exists. They ask the same of two fresh servers, one about accounts and one about
// strangers, and compare the sequences of answers to the byte.

// who is asked about: accounts, or strangers.
type who struct {
	name             string
	same             string // asked about again and again
	sameInCapitals   string
	fresh, lateFresh string // asked about once
}

var (
	accounts  = who{"accounts", knownEmail, strings.ToUpper(knownEmail), otherKnown, upperKnown}
	strangers = who{"strangers", unknownEmail, strings.ToUpper(unknownEmail), "other.stranger@example.org", "LATE@example.org"}
)

// oracleCase is one circumstance.
type oracleCase struct {
	name              string
	env               map[string]string
	supabase, mailgun *fault
	supabaseHits      func(upstreamCall) bool
	mailgunHits       func(upstreamCall) bool
	body              map[string]string // further members of the request
	during            string            // "status code" of every answer while the fault lasts; "" where it varies
	givenAway         string            // the stranger's, where it is known to differ
	lost              bool              // accounts cannot be mailed during the fault
	unmailable        bool              // nor after it
}

// seen is what became of one side of a case.
type seen struct {
	answers []string // all that a caller can see but the date, in order
	short   []string // "status code" of each
	during  [2]int   // the answers [from, to) of the time of the fault
}

// TestOracle: whatever fails, answers about accounts and about strangers are the same.
func TestOracle(t *testing.T) {
	t.Parallel()
	var cases []oracleCase
	add := func(c oracleCase) { cases = append(cases, c) }
	decoys := map[string]map[string]string{
		"decoys on": {}, "decoys off": {"MAIL_DECOY": "off"}, "decoys used up": {"MAIL_DECOY_LIMIT": "1-H"},
	}
	modes := slices.Sorted(maps.Keys(decoys))

	for _, mode := range modes {
		add(oracleCase{name: "no fault/" + mode, env: decoys[mode], during: acknowledged})
	}
	for _, f := range append(supabaseFaults(), refusesConnections) {
		add(oracleCase{name: "Supabase " + f.name, supabase: &f, supabaseHits: everyone, during: cmpOr(f.shown, unavailable), lost: true})
	}
	for _, f := range append(supabaseFaults(), accountFaults()...) {
		c := oracleCase{name: "Supabase " + f.name + " for accounts only", supabase: &f, supabaseHits: accountsOnly, during: acknowledged, lost: true}
		if f.name == "a replaced redirect" || f.unused {
			c.lost = false // the mail goes out all the same
		}
		add(c)
	}
	for _, f := range named(supabaseFaults(), "500", "hangs", "401") {
		for _, mode := range modes {
			if mode == "decoys on" {
				continue
			}
			add(oracleCase{name: "Supabase " + f.name + "/" + mode, env: decoys[mode], supabase: &f, supabaseHits: everyone, during: f.shown, lost: true})
			add(oracleCase{name: "Supabase " + f.name + " for accounts only/" + mode, env: decoys[mode], supabase: &f, supabaseHits: accountsOnly, during: acknowledged, lost: true})
		}
	}
	for _, f := range append(mailgunFaults(), refusesConnections) {
		add(oracleCase{name: "Mailgun " + f.name, mailgun: &f, mailgunHits: everyone, during: undeliverable, lost: true})
		if !f.refuse {
			add(oracleCase{name: "Mailgun " + f.name + " for real recipients only", mailgun: &f, mailgunHits: accountsOnly, during: acknowledged, lost: true})
		}
	}
	for _, f := range append(named(mailgunFaults(), "400", "401", "hangs", "garbage"), refusesConnections) {
		for _, scope := range []struct {
			name string
			hits func(upstreamCall) bool
		}{{"", everyone}, {" for real recipients only", accountsOnly}} {
			if f.refuse && scope.name != "" {
				continue
			}
			add(oracleCase{name: "Mailgun " + f.name + scope.name + "/decoys used up", env: decoys["decoys used up"], mailgun: &f, mailgunHits: scope.hits, during: acknowledged, lost: true})
			// Without decoys there is no second question, so that a failure has to be shown:
			// this is what MAIL_DECOY=off gives away while mail fails.
			add(oracleCase{name: "Mailgun " + f.name + scope.name + "/decoys off", env: decoys["decoys off"], mailgun: &f, mailgunHits: scope.hits, during: undeliverable, givenAway: acknowledged, lost: true})
		}
	}
	// Two faults at once.
	for _, s := range named(supabaseFaults(), "500", "hangs", "401") {
		for _, m := range append(named(mailgunFaults(), "500", "hangs", "400"), refusesConnections) {
			both := "Supabase " + s.name + " for accounts only and Mailgun " + m.name
			add(oracleCase{name: both, supabase: &s, supabaseHits: accountsOnly, mailgun: &m, mailgunHits: everyone, during: undeliverable, lost: true})
			if m.name != "500" {
				continue
			}
			for _, mode := range modes {
				if mode != "decoys on" {
					add(oracleCase{name: both + "/" + mode, env: decoys[mode], supabase: &s, supabaseHits: accountsOnly, mailgun: &m, mailgunHits: everyone, during: acknowledged, lost: true})
				}
			}
			add(oracleCase{name: both + " for real recipients only", supabase: &s, supabaseHits: accountsOnly, mailgun: &m, mailgunHits: accountsOnly, during: acknowledged, lost: true})
			add(oracleCase{name: "Supabase " + s.name + " and Mailgun " + m.name, supabase: &s, supabaseHits: everyone, mailgun: &m, mailgunHits: everyone, during: s.shown, lost: true})
		}
	}
	// The recipient limit's state under faults: given back after a failure that was shown, and
	// after no other. One of two is spent before the fault begins.
	for _, f := range named(supabaseFaults(), "500", "403") {
		add(oracleCase{name: "Supabase " + f.name + "/recipient limit", env: map[string]string{"RECIPIENT_LIMIT": "2-H"}, supabase: &f, supabaseHits: everyone, during: f.shown, lost: true})
		add(oracleCase{name: "Supabase " + f.name + " for accounts only/recipient limit", env: map[string]string{"RECIPIENT_LIMIT": "2-H"}, supabase: &f, supabaseHits: accountsOnly, during: acknowledged, lost: true, unmailable: true})
	}
	for _, f := range named(mailgunFaults(), "500", "400") {
		add(oracleCase{name: "Mailgun " + f.name + "/recipient limit", env: map[string]string{"RECIPIENT_LIMIT": "2-H"}, mailgun: &f, mailgunHits: everyone, during: undeliverable, lost: true})
		add(oracleCase{name: "Mailgun " + f.name + " for real recipients only/recipient limit", env: map[string]string{"RECIPIENT_LIMIT": "2-H"}, mailgun: &f, mailgunHits: accountsOnly, during: acknowledged, lost: true, unmailable: true})
	}
	// The budget ends in the middle of the fault: one of three is spent before.
	for _, f := range named(mailgunFaults(), "500", "400") {
		add(oracleCase{name: "Mailgun " + f.name + "/decoys used up meanwhile", env: map[string]string{"MAIL_DECOY_LIMIT": "3-H"}, mailgun: &f, mailgunHits: everyone, lost: true})
	}
	// Other settings.
	for _, setting := range []struct{ name, variable, value, callback string }{
		{"action links", "LINK_MODE", "action_link", ""},
		{"an allowed callback", "", "", preview},
		{"a callback that is not allowed", "", "", "https://evil.example"},
		{"a callback that Supabase replaces", "CALLBACK_ORIGINS", "https://*.preview.example.com,https://not-on-supabases-list.example.com", "https://not-on-supabases-list.example.com"},
		// Longer than the default: a failure is shown only if its verdict comes within the beat, and
		// on a busy machine a lookup and two calls of Mailgun may take half a second.
		{"a beat", "RESPONSE_QUANTUM", "2s", ""},
	} {
		env, body := map[string]string{}, map[string]string{}
		if setting.variable != "" {
			env[setting.variable] = setting.value
		}
		if setting.callback != "" {
			body["callback_origin"] = setting.callback
		}
		add(oracleCase{name: "no fault/" + setting.name, env: env, body: body, during: acknowledged})
		if setting.name != "action links" && setting.name != "a beat" {
			continue
		}
		for _, f := range named(supabaseFaults(), "500", "hangs") {
			add(oracleCase{name: "Supabase " + f.name + "/" + setting.name, env: env, body: body, supabase: &f, supabaseHits: everyone, during: f.shown, lost: true})
			add(oracleCase{name: "Supabase " + f.name + " for accounts only/" + setting.name, env: env, body: body, supabase: &f, supabaseHits: accountsOnly, during: acknowledged, lost: true})
		}
		for _, f := range named(mailgunFaults(), "400", "hangs") {
			add(oracleCase{name: "Mailgun " + f.name + "/" + setting.name, env: env, body: body, mailgun: &f, mailgunHits: everyone, during: undeliverable, lost: true})
			add(oracleCase{name: "Mailgun " + f.name + " for real recipients only/" + setting.name, env: env, body: body, mailgun: &f, mailgunHits: accountsOnly, during: acknowledged, lost: true})
		}
	}
	for _, f := range accountFaults() {
		if !strings.Contains(f.name, "action_link") {
			continue
		}
		for mode, env := range decoys {
			env = maps.Clone(env)
			env["LINK_MODE"] = "action_link"
			add(oracleCase{
				name: "Supabase " + f.name + "/action links, " + mode, env: env, supabase: &f, supabaseHits: accountsOnly,
				during: acknowledged, lost: true,
			})
		}
	}
	add(oracleCase{
		name: "a callback that is refused", env: map[string]string{"CALLBACK_ORIGIN_POLICY": "reject"},
		body: map[string]string{"callback_origin": "https://evil.example"}, during: "400 invalid_request", lost: true, unmailable: true,
	})
	for _, unset := range []struct{ variable, during string }{
		{"SUPABASE_URL", notConfigured}, {"SUPABASE_SERVICE_ROLE_KEY", notConfigured},
		{"MAILGUN_API_KEY", undeliverable}, {"MAILGUN_DOMAIN", undeliverable},
	} {
		add(oracleCase{name: "without " + unset.variable, env: map[string]string{unset.variable: ""}, during: unset.during, lost: true, unmailable: true})
	}
	add(oracleCase{name: "another Supabase key", env: map[string]string{"SUPABASE_SERVICE_ROLE_KEY": "not-the-key"}, during: notConfigured, lost: true, unmailable: true})
	add(oracleCase{name: "another Mailgun key", env: map[string]string{"MAILGUN_API_KEY": "not-the-key"}, during: undeliverable, lost: true, unmailable: true})
	add(oracleCase{name: "another Mailgun domain", env: map[string]string{"MAILGUN_DOMAIN": "other.example.com", "MAIL_FROM": "no-reply@mg.example.com"}, during: undeliverable, lost: true, unmailable: true})

	t.Logf("%d circumstances", len(cases))
	runCases(t, cases, func(t *testing.T, c oracleCase) { c.compare(t) })
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// runCases runs many at once: they mostly wait. (Parallel subtests would be as many as there
// are cores.)
func runCases(t *testing.T, cases []oracleCase, run func(*testing.T, oracleCase)) {
	var all sync.WaitGroup
	places := make(chan struct{}, 10)
	for _, c := range cases {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			t.Run(c.name, func(t *testing.T) { run(t, c) })
		})
	}
	all.Wait()
}

func (c *oracleCase) compare(t *testing.T) {
	var sides [2]seen
	var both sync.WaitGroup
	for i, who := range []who{accounts, strangers} {
		both.Go(func() { t.Run(who.name, func(t *testing.T) { sides[i] = c.run(t, who) }) })
	}
	both.Wait()
	if t.Failed() {
		return
	}
	known, unknown := sides[0], sides[1]
	if len(known.answers) != len(unknown.answers) {
		t.Fatalf("%d answers about accounts, %d about strangers", len(known.answers), len(unknown.answers))
	}
	for i := range known.answers {
		during := i >= known.during[0] && i < known.during[1]
		if during && c.during != "" && known.short[i] != c.during {
			t.Errorf("answer %d about accounts is %q, want %q", i, known.short[i], c.during)
		}
		if during && c.givenAway != "" {
			if unknown.short[i] != c.givenAway {
				t.Errorf("answer %d about strangers is %q, want %q", i, unknown.short[i], c.givenAway)
			}
			continue
		}
		if known.answers[i] != unknown.answers[i] {
			t.Errorf("answer %d tells whether there is an account:\n%s\nabout an account, and about a stranger\n%s\n%q\n%q",
				i, known.answers[i], unknown.answers[i], known.short, unknown.short)
		}
	}
}

// timeout is UPSTREAM_TIMEOUT: long enough for a healthy call on a busy machine, and short
// where it has to pass.
func (c *oracleCase) timeout() string {
	if c.slow() {
		return "800ms"
	}
	return "2s"
}

func (c *oracleCase) slow() bool {
	return c.supabase != nil && c.supabase.slow || c.mailgun != nil && c.mailgun.slow
}

// run asks about one side: once while all is well, then during the fault, then after it.
func (c *oracleCase) run(t *testing.T, who who) (s seen) {
	supabase, mailgun := &faulty{hits: c.supabaseHits}, &faulty{hits: c.mailgunHits}
	env := map[string]string{"UPSTREAM_TIMEOUT": c.timeout()}
	maps.Copy(env, c.env)
	var closed []*gate
	gateFor := func(f *fault, variable string) *gate {
		if f == nil || !f.refuse {
			return nil
		}
		g := newGate(t)
		env[variable] = "http://" + g.addr
		closed = append(closed, g)
		return g
	}
	supabaseGate, mailgunGate := gateFor(c.supabase, "SUPABASE_URL"), gateFor(c.mailgun, "MAILGUN_API_BASE")
	f := start(t, setup{env: env, supabase: supabase.middleware, mailgun: mailgun.middleware})
	if supabaseGate != nil {
		supabaseGate.handler = f.stack.Supabase()
	}
	if mailgunGate != nil {
		mailgunGate.handler = f.stack.Mailgun()
	}
	for _, g := range closed {
		g.open()
	}

	ask := func(email string) {
		t.Helper()
		members := map[string]string{"email": email}
		maps.Copy(members, c.body)
		body, _ := json.Marshal(members)
		a := f.post(string(body), map[string]string{"X-Request-Id": fmt.Sprintf("step-%d", len(s.answers))})
		s.answers = append(s.answers, a.visible())
		s.short = append(s.short, fmt.Sprintf("%d %s", a.status, a.body.Code))
		if strings.Contains(a.raw, gossip) || strings.Contains(a.raw, "@") {
			t.Errorf("an answer repeats what it must not: %s", a.raw)
		}
	}

	ask(who.same)

	set := func(at *faulty, f *fault) {
		if f != nil && !f.refuse {
			at.current.Store(f)
		}
	}
	set(supabase, c.supabase)
	set(mailgun, c.mailgun)
	for _, g := range closed {
		g.shut()
	}
	s.during[0] = len(s.answers)
	mailed := len(f.stack.Mails())
	ask(who.same)
	ask(who.fresh)
	ask(who.sameInCapitals)
	s.during[1] = len(s.answers)
	settled(t, f, len(s.answers), c)
	if c.lost && len(f.stack.Mails()) != mailed {
		t.Errorf("%d mails were accepted during the fault: it is none", len(f.stack.Mails())-mailed)
	}

	supabase.current.Store(nil)
	mailgun.current.Store(nil)
	for _, g := range closed {
		g.open()
	}
	mailed = len(f.stack.Mails())
	ask(who.same)
	ask(who.lateFresh)
	settled(t, f, len(s.answers), c)
	if !c.unmailable {
		for _, short := range s.short[s.during[1]:] {
			if short != acknowledged {
				t.Errorf("an answer after the fault is %q", short)
			}
		}
		// A call of the time of the fault may still have been under way.
		if got := len(f.stack.Mails()) - mailed; who.name == accounts.name && (got < 2 || got > 2 && !c.slow()) {
			t.Errorf("%d mails after the fault, want 2", got)
		}
	}

	checkMailed(t, f)
	checkTruth(t, f, who, s, c.slow())
	checkSecrets(t, f)
	return s
}

// resets is what depends on the time since the window began, which a caller knows anyway.
var resets = regexp.MustCompile(`;t=\d+`)

// visible is all that a caller can see of an answer, but the date.
func (a answer) visible() string {
	var b strings.Builder
	fmt.Fprintln(&b, a.status)
	for _, name := range slices.Sorted(maps.Keys(a.header)) {
		if name != "Date" {
			fmt.Fprintf(&b, "%s: %q\n", name, resets.ReplaceAllString(strings.Join(a.header[name], "|"), ";t="))
		}
	}
	return b.String() + "\n" + a.raw
}

// settled waits until each of n requests has its outcome, deliveries after the answer
// included, and says so if one has none, or two.
func settled(t *testing.T, f *fixture, n int, c *oracleCase) {
	t.Helper()
	if c.during == "400 invalid_request" {
		return // judged before it is a request
	}
	var outcomes map[string]int
	total := 0
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		outcomes, total = f.outcomes(), 0
		for _, count := range outcomes {
			total += count
		}
		if total >= n {
			break
		}
	}
	if total != n {
		t.Errorf("%d requests have %d outcomes: %v", n, total, outcomes)
	}
}

var outcomeLine = regexp.MustCompile(`(?m)^resetd_mails_total\{outcome="([a-z_]+)"\} (\d+)$`)

// outcomes are the operator's counters.
func (f *fixture) outcomes() map[string]int {
	f.t.Helper()
	counts := map[string]int{}
	for _, match := range outcomeLine.FindAllStringSubmatch(f.metricsText(), -1) {
		counts[match[1]], _ = strconv.Atoi(match[2])
	}
	if len(counts) != 6 {
		f.t.Fatalf("the metrics have the outcomes %v", counts)
	}
	delete(counts, "decoy") // no request's outcome
	return counts
}

// checkMailed: nobody but an account was ever mailed, not even in a call that failed, and no
// decoy goes to anybody but ourselves.
func checkMailed(t *testing.T, f *fixture) {
	t.Helper()
	for _, call := range f.stack.Calls() {
		if strings.HasSuffix(call.Path, "/trap") {
			t.Errorf("a redirect was followed: %s %s", call.Method, call.Path)
		}
		if call.Service != "mailgun" {
			continue
		}
		for _, to := range call.To {
			switch {
			case call.TestMode && to != "no-reply@mg.example.com":
				t.Errorf("a decoy to %s", to)
			case !call.TestMode && !slices.Contains([]string{knownEmail, otherKnown, upperKnown}, to):
				t.Errorf("a mail to %s, which is not stored with an account", to)
			}
		}
		if len(call.To) != 1 {
			t.Errorf("a message to %q", call.To)
		}
	}
}

// checkTruth: each request's one outcome is logged under its id with the hash of its address,
// is counted, and is what really happened.
func checkTruth(t *testing.T, f *fixture, who who, s seen, slow bool) {
	t.Helper()
	counts := map[string]int{}
	records := append(f.logs.records(t, "request"), f.logs.records(t, "delivery")...)
	for i, short := range s.short {
		if strings.HasPrefix(short, "400") {
			continue
		}
		id, outcome := fmt.Sprintf("step-%d", i), ""
		for _, record := range records {
			if record["request_id"] != id || record["outcome"] == "deferred" {
				continue
			}
			if outcome != "" {
				t.Errorf("%s has two outcomes in the log, %s and %v", id, outcome, record["outcome"])
			}
			outcome, _ = record["outcome"].(string)
			if account, _ := record["account"].(string); !hashed.MatchString(account) {
				t.Errorf("%s: account is %q", id, account)
			}
			isError := outcome == "undelivered" || outcome == "failed"
			if isError != (record["level"] == "ERROR") || isError != (record["error"] != nil) {
				t.Errorf("%s: the record of outcome %s: %v", id, outcome, record)
			}
		}
		counts[outcome]++
		want := []string{"sent", "undelivered", "suppressed", "no_account"}
		if who.name == strangers.name {
			want = []string{"no_account", "suppressed"}
			if slow {
				// A stranger's own question may be late too, and whether an account could be
				// mailed is not known before its answer.
				want = append(want, "undelivered")
			}
		}
		if short != acknowledged {
			want = []string{"failed"}
		}
		if !slices.Contains(want, outcome) {
			t.Errorf("%s: answered %q and logged as %q, want one of %q", id, short, outcome, want)
		}
	}
	for outcome, metric := range f.outcomes() {
		if counts[outcome] != metric {
			t.Errorf("%s: %d in the log, %d in the metrics", outcome, counts[outcome], metric)
		}
	}
	// A message that was not answered in time may have been accepted all the same.
	if mails := len(f.stack.Mails()); mails < counts["sent"] || mails > counts["sent"] && !slow {
		t.Errorf("%d requests logged as sent, and %d mails", counts["sent"], mails)
	}
}

var (
	hashed    = regexp.MustCompile(`^[0-9a-f]{16}$`)
	tokenLike = regexp.MustCompile(`[0-9a-f]{40,}`)
	mailLink  = regexp.MustCompile(`token(?:_hash)?=([0-9a-f]+)`)
)

// checkSecrets is stricter than the search at the end of every test (H7, privacy_test.go): there
// is nothing in the log, at whatever level, or in the metrics that looks like an address, a link
// or a token, be it one of a decoy or of a control question.
func checkSecrets(t *testing.T, f *fixture) {
	t.Helper()
	metrics := strings.ReplaceAll(f.metricsText(), `revision="unknown"`, "")
	text := f.logs.String() + metrics
	forbidden := []string{"@", "test-service-role-key", "not-the-key", "test-mailgun-key", gossip, "token=", "token_hash", "resetd-", ".invalid", "stranger", "known"}
	for _, mail := range append(f.stack.Mails(), f.stack.Decoys()...) {
		for _, match := range mailLink.FindAllStringSubmatch(mail.Text, -1) {
			forbidden = append(forbidden, match[1])
		}
	}
	for _, secret := range forbidden {
		if at := strings.Index(strings.ToLower(text), strings.ToLower(secret)); at >= 0 {
			t.Errorf("the log has %q: …%s…", secret, text[max(0, at-150):min(len(text), at+80)])
		}
	}
	if found := tokenLike.FindString(text); found != "" {
		t.Errorf("the log has what looks like a token: %s", found)
	}
}
