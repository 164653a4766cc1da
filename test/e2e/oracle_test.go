package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

// The tests of this file look for an oracle: anything that tells a caller whether an account exists. They send the
// same requests to two fresh servers, one with accounts and one with unknown addresses, and compare the answers
// byte by byte. They leave out the date, and the seconds until a limit's window ends. `make timing` measures the
// time of answers.

// who has the addresses of the requests of one side: accounts, or unknown addresses.
type who struct {
	name             string
	same             string // for many requests
	sameInCapitals   string
	fresh, lateFresh string // for one request each
	twice            string // for one request during the fault, and one after the next sample
	banned           string // a banned account, or another unknown address
}

var (
	accounts = who{
		name:           "accounts",
		same:           knownEmail,
		sameInCapitals: strings.ToUpper(knownEmail),
		fresh:          otherKnown,
		lateFresh:      upperKnown,
		twice:          "twice.known@example.com",
		banned:         "banned.known@example.com",
	}
	strangers = who{
		name:           "unknown addresses",
		same:           unknownEmail,
		sameInCapitals: strings.ToUpper(unknownEmail),
		fresh:          "other.stranger@example.org",
		lateFresh:      "LATE@example.org",
		twice:          "twice.stranger@example.org",
		banned:         "banned.stranger@example.org",
	}
)

// languagesOfAccounts are the languages in the accounts' user_metadata: one of the mail, another one, a text that is
// no language, and a long text.
var languagesOfAccounts = map[string]map[string]any{
	knownEmail:      {"locale": "ja"},
	otherKnown:      {"locale": "fa", "picture": strings.Repeat("x", 10<<10)},
	upperKnown:      {"locale": []any{"fr"}},
	accounts.twice:  {"locale": strings.Repeat("fr-", 1000)},
	accounts.banned: {"locale": "fr"},
}

// third is an unknown address with requests on both sides: the outcome for the others must not show in its
// answers either.
const third = "third@example.org"

// oracleCase is one circumstance.
type oracleCase struct {
	name              string
	env               map[string]string
	supabase, mailgun *fault
	supabaseHits      func(upstreamCall) bool
	mailgunHits       func(upstreamCall) bool
	body              map[string]string // further members of the request
	over              transport

	inTheMiddle bool // the fault begins after the first request; else before it
	rests       bool // the probes rest once, between the requests during the fault and those after it
	// lasting is the "status code" of all answers if nobody can be served, also before and after the fault.
	lasting string
}

// transport is how the requests of one side reach the server.
type transport string

// These are the ways to send requests, apart from that of a Go program.
const (
	overOneConnection  transport = "one connection"   // each after the answer before
	overPipelines      transport = "pipelined"        // on one connection, those of a phase at once
	overHalfClosed     transport = "half-closed"      // a connection each, whose client has closed its side
	overNewConnections transport = "new connections"  // a connection each, which the client asks to close
	overManyAtOnce     transport = "many connections" // a connection each, those of a phase at once
)

// seen holds the outcome of one side of a case.
type seen struct {
	answers  []string // all that a caller can see, in order
	short    []string // "status code" of each answer
	asked    []string // the address of each request
	phases   [][2]int // the answers [from, to) before, during and after the fault
	verdicts map[string][]string
}

// TestOracle: whatever fails, answers for accounts and for unknown addresses are the same.
func TestOracle(t *testing.T) {
	t.Parallel()
	cases := slices.Concat(faultCases(), probeOffCases(), twoFaultCases(), limitCases(), settingCases(), transportCases(), restCases())
	names := map[string]bool{}
	for _, c := range cases {
		if names[c.name] {
			t.Errorf("two circumstances are called %q", c.name)
		}
		names[c.name] = true
	}
	if !resetdtest.Full || resetdtest.RaceEnabled {
		// The detector would find no further race in the rest, which make test runs without it.
		some := cases[:0]
		for i := 0; i < len(cases); i += 16 {
			some = append(some, cases[i])
		}
		cases = some
	}
	t.Logf("%d circumstances", len(cases))
	runCases(t, cases, func(t *testing.T, c oracleCase) { c.compare(t) })
}

var probeOff = map[string]string{"MAIL_PROBE": "off"}

// scopes are the addresses for which a fault happens.
var scopes = []struct {
	name string
	hits func(upstreamCall) bool
}{
	{"", everyone}, {" for accounts only", accountsOnly}, {" for unknown addresses only", strangersOnly},
	{" for unknown addresses but not the probe's", unknownOnly}, {" for probes only", probesOnly}, {" for all but probes", askedOnly},
}

// faultCases have one fault of one upstream.
func faultCases() (cases []oracleCase) {
	cases = append(cases, oracleCase{name: "no fault"})
	// Most faults have two scopes, because faults that differ only in bytes differ in nothing else.
	inEachScope := []string{"500", "hangs", "resets", "429", "a bare 404", "a 404 of an older kind", "a 404 whose body is replaced"}
	for _, f := range append(supabaseFaults(), refusing(unavailable), linkForEverybody) {
		for i, scope := range scopes {
			if f.refuse && i > 0 || f.name == linkForEverybody.name && i > 0 || i > 1 && !slices.Contains(inEachScope, f.name) {
				continue
			}
			cases = append(cases, oracleCase{name: "Supabase " + f.name + scope.name, supabase: &f, supabaseHits: scope.hits})
		}
	}
	for _, f := range append(named(supabaseFaults(), "500", "hangs", "401", "resets", "a bare 404", "429"), refusing(unavailable)) {
		for i, scope := range scopes[:3] {
			if f.refuse && i > 0 {
				continue
			}
			cases = append(cases, oracleCase{name: "Supabase " + f.name + scope.name + "/in the middle", supabase: &f, supabaseHits: scope.hits, inTheMiddle: true})
		}
	}
	for _, f := range accountFaults() {
		cases = append(cases, oracleCase{name: "Supabase " + f.name + " for accounts only", supabase: &f, supabaseHits: accountsOnly})
	}
	inEachScope = []string{"500", "hangs", "403", "resets"}
	for _, f := range append(mailgunFaults(), refusing(undeliverable)) {
		for i, scope := range scopes {
			// No message is for an unknown address, so two of the scopes equal others.
			if f.refuse && i > 0 || i == 3 || i == 5 || i > 1 && !slices.Contains(inEachScope, f.name) {
				continue
			}
			cases = append(cases, oracleCase{name: "Mailgun " + f.name + scope.name, mailgun: &f, mailgunHits: scope.hits})
		}
	}
	for _, f := range append(named(mailgunFaults(), "500", "hangs", "401", "429"), refusing(undeliverable)) {
		for i, scope := range scopes[:2] {
			if f.refuse && i > 0 {
				continue
			}
			cases = append(cases, oracleCase{name: "Mailgun " + f.name + scope.name + "/in the middle", mailgun: &f, mailgunHits: scope.hits, inTheMiddle: true})
		}
	}
	return cases
}

// probeOffCases have no test messages, so that the fate of real mail shows even less.
func probeOffCases() (cases []oracleCase) {
	cases = append(cases, oracleCase{name: "no fault/probe off", env: probeOff})
	for _, f := range append(named(mailgunFaults(), "400", "401", "500", "hangs", "garbage", "429"), refusing(undeliverable)) {
		for i, scope := range scopes[:2] {
			if f.refuse && i > 0 {
				continue
			}
			cases = append(cases, oracleCase{name: "Mailgun " + f.name + scope.name + "/probe off", env: probeOff, mailgun: &f, mailgunHits: scope.hits})
		}
	}
	for _, f := range named(supabaseFaults(), "500") {
		for _, scope := range scopes[:3] {
			cases = append(cases, oracleCase{name: "Supabase " + f.name + scope.name + "/probe off", env: probeOff, supabase: &f, supabaseHits: scope.hits})
		}
	}
	return cases
}

// twoFaultCases have faults of both upstreams at once.
func twoFaultCases() (cases []oracleCase) {
	for _, s := range named(supabaseFaults(), "500", "hangs", "401") {
		for _, m := range append(named(mailgunFaults(), "500", "hangs", "400"), refusing(undeliverable)) {
			both := "Supabase " + s.name + " for accounts only and Mailgun " + m.name
			cases = append(cases, oracleCase{name: both, supabase: &s, supabaseHits: accountsOnly, mailgun: &m, mailgunHits: everyone})
			if m.name != s.name {
				continue
			}
			cases = append(cases,
				oracleCase{name: both + "/probe off", env: probeOff, supabase: &s, supabaseHits: accountsOnly, mailgun: &m, mailgunHits: everyone},
				oracleCase{name: both + " for accounts only", supabase: &s, supabaseHits: accountsOnly, mailgun: &m, mailgunHits: accountsOnly},
				oracleCase{name: "Supabase " + s.name + " for unknown addresses only and Mailgun " + m.name + " for accounts only", supabase: &s, supabaseHits: strangersOnly, mailgun: &m, mailgunHits: accountsOnly},
				oracleCase{name: "Supabase " + s.name + " and Mailgun " + m.name, supabase: &s, supabaseHits: everyone, mailgun: &m, mailgunHits: everyone})
		}
	}
	return cases
}

// limitCases have states of the recipient limit under faults. An answer that shows a fault does not count for the
// limit, and every other answer does.
func limitCases() (cases []oracleCase) {
	two := map[string]string{"RECIPIENT_LIMIT": "2-H"}
	for _, middle := range []bool{false, true} {
		name := "/recipient limit"
		if middle {
			name += ", in the middle"
		}
		cases = append(cases, oracleCase{name: "no fault" + name, env: two, inTheMiddle: middle})
		for _, scope := range scopes[:3] {
			for _, f := range named(supabaseFaults(), "500", "403") {
				cases = append(cases, oracleCase{name: "Supabase " + f.name + scope.name + name, env: two, supabase: &f, supabaseHits: scope.hits, inTheMiddle: middle})
			}
		}
		for _, scope := range scopes[:2] {
			for _, f := range named(mailgunFaults(), "500", "400") {
				cases = append(cases, oracleCase{name: "Mailgun " + f.name + scope.name + name, env: two, mailgun: &f, mailgunHits: scope.hits, inTheMiddle: middle})
			}
		}
	}
	return cases
}

// settingCases have other settings, right and wrong ones.
func settingCases() (cases []oracleCase) {
	actionLinks := map[string]string{"LINK_MODE": "action_link"}
	cases = append(cases,
		oracleCase{name: "no fault/action links", env: actionLinks},
		oracleCase{name: "no fault/an allowed callback", body: map[string]string{"callback_origin": preview}},
		oracleCase{name: "no fault/a callback that is not allowed", body: map[string]string{"callback_origin": "https://evil.example"}},
		oracleCase{
			name: "no fault/a callback that Supabase replaces",
			env:  map[string]string{"CALLBACK_ORIGINS": "https://*.preview.example.com,https://not-on-supabases-list.example.com"},
			body: map[string]string{"callback_origin": "https://not-on-supabases-list.example.com"},
		},
		oracleCase{
			name: "a callback that is refused", env: map[string]string{"CALLBACK_ORIGIN_POLICY": "reject"},
			body: map[string]string{"callback_origin": "https://evil.example"}, lasting: notValid,
		},
		oracleCase{name: "no fault/languages of accounts", env: map[string]string{"USER_LANGUAGE_FIELD": "locale"}},
		oracleCase{name: "one delivery at a time", env: map[string]string{"MAX_DELIVERIES": "1"}},
		oracleCase{name: "three requests in ten seconds", env: map[string]string{"MAX_ACCEPTED": "3"}})
	for _, f := range named(supabaseFaults(), "500", "hangs") {
		for _, scope := range scopes[:2] {
			cases = append(cases,
				oracleCase{name: "Supabase " + f.name + scope.name + "/languages of accounts", env: map[string]string{"USER_LANGUAGE_FIELD": "locale"}, supabase: &f, supabaseHits: scope.hits},
				oracleCase{name: "Supabase " + f.name + scope.name + "/one delivery at a time", env: map[string]string{"MAX_DELIVERIES": "1"}, supabase: &f, supabaseHits: scope.hits},
				oracleCase{name: "Supabase " + f.name + scope.name + "/three requests in ten seconds", env: map[string]string{"MAX_ACCEPTED": "3"}, supabase: &f, supabaseHits: scope.hits})
		}
	}
	for _, f := range accountFaults() {
		if strings.Contains(f.name, "action_link") {
			cases = append(cases, oracleCase{name: "Supabase " + f.name + " for accounts only/action links", env: actionLinks, supabase: &f, supabaseHits: accountsOnly})
		}
	}
	for _, unset := range []struct{ variable, shown string }{
		{"SUPABASE_URL", notConfigured}, {"SUPABASE_SERVICE_ROLE_KEY", notConfigured}, {"SITE_URL", notConfigured},
		{"MAILGUN_API_KEY", undeliverable}, {"MAILGUN_DOMAIN", undeliverable},
	} {
		env := map[string]string{unset.variable: ""}
		if unset.variable == "SITE_URL" {
			env["CALLBACK_ORIGINS"] = ""
		}
		cases = append(cases, oracleCase{name: "without " + unset.variable, env: env, lasting: unset.shown})
		if unset.shown == undeliverable {
			cases = append(cases, oracleCase{name: "without " + unset.variable + "/probe off", env: with(env, probeOff), lasting: unset.shown})
		}
	}
	return append(cases,
		oracleCase{name: "another Supabase key", env: map[string]string{"SUPABASE_SERVICE_ROLE_KEY": "not-the-key"}, lasting: notConfigured},
		oracleCase{name: "another Mailgun key", env: map[string]string{"MAILGUN_API_KEY": "not-the-key"}, lasting: undeliverable},
		oracleCase{name: "another Mailgun domain", env: map[string]string{"MAILGUN_DOMAIN": "other.example.com", "MAIL_FROM": "no-reply@mg.example.com"}, lasting: undeliverable})
}

// transportCases have other ways to send the requests.
func transportCases() (cases []oracleCase) {
	for _, over := range []transport{overOneConnection, overPipelines, overHalfClosed, overNewConnections, overManyAtOnce} {
		name := "/" + string(over)
		cases = append(cases, oracleCase{name: "no fault" + name, over: over})
		for _, f := range named(supabaseFaults(), "500") {
			for _, scope := range scopes[:3] {
				cases = append(cases, oracleCase{name: "Supabase " + f.name + scope.name + name, supabase: &f, supabaseHits: scope.hits, over: over})
			}
		}
		for _, f := range named(mailgunFaults(), "hangs") {
			for _, scope := range scopes[:2] {
				cases = append(cases, oracleCase{name: "Mailgun " + f.name + scope.name + name, mailgun: &f, mailgunHits: scope.hits, over: over})
			}
		}
	}
	return cases
}

// restCases have requests that end a rest of the probes.
func restCases() (cases []oracleCase) {
	env := map[string]string{"DELIVERY_TIMEOUT": "5s", "UPSTREAM_TIMEOUT": "2s"} // so a rest begins with the first question after 15 s
	cases = append(cases, oracleCase{name: "no fault/after a rest", env: env, rests: true})
	for _, f := range named(supabaseFaults(), "500", "hangs") {
		cases = append(cases, oracleCase{name: "Supabase " + f.name + " for accounts only/after a rest", env: env, supabase: &f, supabaseHits: accountsOnly, rests: true})
	}
	for _, f := range named(mailgunFaults(), "500", "hangs") {
		cases = append(cases, oracleCase{name: "Mailgun " + f.name + " for accounts only/after a rest", env: env, mailgun: &f, mailgunHits: accountsOnly, rests: true})
	}
	return cases
}

// runCases runs many cases at once, because they mostly wait. (Parallel subtests would only be as many as cores.)
func runCases(t *testing.T, cases []oracleCase, run func(*testing.T, oracleCase)) {
	var all sync.WaitGroup
	places := make(chan struct{}, 60)
	for _, c := range cases {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			t.Run(c.name, func(t *testing.T) { run(t, c) })
		})
	}
	all.Wait()
}

// starts bounds the servers that start at once, because a start takes much processor time.
var starts = make(chan struct{}, 4)

// isHit says whether a call has the fault.
func isHit(f *fault, hits func(upstreamCall) bool, call upstreamCall) bool {
	return f != nil && (f.refuse || hits(call))
}

// supabaseVerdict returns the probe's verdict during the fault, and everybody's answer for it; empty if the probe
// does not have the fault.
func (c *oracleCase) supabaseVerdict() (verdict, shown string) {
	if !isHit(c.supabase, c.supabaseHits, upstreamCall{email: "resetd@x.invalid"}) {
		return "", ""
	}
	return c.supabase.verdict, c.supabase.shown
}

func (c *oracleCase) mailgunVerdict() (verdict, shown string) {
	// A fault in the middle ends before the next sample of Mailgun.
	if c.inTheMiddle || c.env["MAIL_PROBE"] == "off" || !isHit(c.mailgun, c.mailgunHits, upstreamCall{test: true}) {
		return "", ""
	}
	return c.mailgun.verdict, c.mailgun.shown
}

// shown is the "status code" of every answer during the fault.
func (c *oracleCase) shown() string {
	_, supabase := c.supabaseVerdict()
	_, mailgun := c.mailgunVerdict()
	for _, shown := range []string{c.lasting, supabase, mailgun} {
		if shown != "" {
			return shown
		}
	}
	return acknowledged
}

// verdicts returns the verdicts that the log should have, in order, by upstream.
func (c *oracleCase) verdicts() map[string][]string {
	all := map[string][]string{"supabase": {"ok"}, "mailgun": {"ok"}}
	if v, _ := c.supabaseVerdict(); v != "" {
		all["supabase"] = []string{v, "ok"}
		if c.inTheMiddle {
			all["supabase"] = []string{"ok", v, "ok"}
		}
	}
	switch v, shown := c.mailgunVerdict(); {
	case v != "" && shown != acknowledged:
		all["mailgun"] = []string{v, "ok"}
	case v != "":
		all["mailgun"] = []string{v} // until the next sample, after a minute
	}
	if c.rests {
		all["supabase"] = append(all["supabase"], "unknown", "ok")
	}
	switch c.lasting { // what is not configured is not probed
	case "":
	case notValid:
		all = map[string][]string{}
	default:
		all = map[string][]string{"supabase": {"ok"}, "mailgun": {"ok"}}
		switch {
		case strings.HasPrefix(c.name, "without"):
			all = map[string][]string{}
		case c.lasting == notConfigured:
			all["supabase"] = []string{"key_refused"}
		case c.lasting == undeliverable:
			all["mailgun"] = []string{"down"}
		}
	}
	if c.env["MAIL_PROBE"] == "off" {
		delete(all, "mailgun")
	}
	return all
}

// ends returns the outcomes of which the delivery for an account must have one, if it ends during the fault.
func (c *oracleCase) ends() (outcomes []string) {
	call := upstreamCall{email: knownEmail}
	if isHit(c.supabase, c.supabaseHits, call) {
		outcomes = c.supabase.ends
		if c.env["LINK_MODE"] == "action_link" && c.supabase.endsOfActionLinks != nil {
			outcomes = c.supabase.endsOfActionLinks
		}
	}
	if isHit(c.mailgun, c.mailgunHits, call) {
		outcomes = append(slices.Clone(outcomes), c.mailgun.ends...)
		testFails := c.env["MAIL_PROBE"] != "off" && isHit(c.mailgun, c.mailgunHits, upstreamCall{test: true})
		if c.mailgun.unknownFate && !testFails {
			outcomes = append(outcomes, "unconfirmed")
		}
	}
	if c.rests {
		outcomes = append(slices.Clone(outcomes), "undelivered") // by DELIVERY_TIMEOUT
	}
	return outcomes
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
		t.Fatalf("%d answers for accounts, %d for unknown addresses", len(known.answers), len(unknown.answers))
	}
	for i := range known.answers {
		if known.answers[i] != unknown.answers[i] {
			t.Errorf("answer %d tells whether there is an account:\n%s\nfor an account, and for an unknown address\n%s\n%q\n%q",
				i, known.answers[i], unknown.answers[i], known.short, unknown.short)
		}
	}
	if !maps.EqualFunc(known.verdicts, unknown.verdicts, slices.Equal) {
		t.Errorf("the verdicts are %v after requests for accounts, and %v after those for unknown addresses", known.verdicts, unknown.verdicts)
	}
}

// side is one server with its requests.
type side struct {
	*oracleCase
	*fixture
	who               who
	supabase, mailgun faulty
	gates             []*gate
	wire              *wire
	seen              seen
}

// run sends the requests of one side: during the fault, after it, and before it if it begins in the middle.
func (c *oracleCase) run(t *testing.T, who who) seen {
	s := &side{oracleCase: c, who: who, seen: seen{verdicts: map[string][]string{}}}
	s.supabase.hits, s.mailgun.hits = c.supabaseHits, c.mailgunHits
	// This is longer than healthy calls ever take, however busy the machine is.
	env := map[string]string{"UPSTREAM_TIMEOUT": "5s", "RATE_LIMIT": "100000-H", "SHUTDOWN_TIMEOUT": "0s", "API_DOCS": "off"}
	maps.Copy(env, c.env)
	gateFor := func(f *fault, variable string) *gate {
		if f == nil || !f.refuse {
			return nil
		}
		g := newGate(t)
		env[variable] = "http://" + g.addr
		s.gates = append(s.gates, g)
		return g
	}
	supabaseGate, mailgunGate := gateFor(c.supabase, "SUPABASE_URL"), gateFor(c.mailgun, "MAILGUN_API_BASE")
	func() {
		starts <- struct{}{}
		defer func() { <-starts }()
		s.fixture = start(t, resetdtest.Config{
			Settings: env, Accounts: []string{accounts.twice, accounts.banned}, Banned: []string{accounts.banned}, Metadata: languagesOfAccounts,
			Supabase: s.supabase.middleware, Mailgun: s.mailgun.middleware,
		})
	}()
	if supabaseGate != nil {
		supabaseGate.handler = s.Stack.Supabase()
	}
	if mailgunGate != nil {
		mailgunGate.handler = s.Stack.Mailgun()
	}

	if c.inTheMiddle {
		for _, g := range s.gates {
			g.open()
		}
		s.phase(func() { s.ask(who.same) })
		s.settled()
		s.begin()
		if verdict, shown := c.supabaseVerdict(); shown != "" {
			s.awaitVerdict("supabase", verdict)
		}
	} else {
		s.seen.phases = [][2]int{{}}
		s.begin()
	}
	delivered := len(s.Stack.Mails())
	s.phase(func() {
		s.ask(who.same, who.banned, who.fresh, who.sameInCapitals, third)
		if c.shown() == acknowledged && (c.supabase != nil || c.mailgun != nil) && !c.rests && c.env["MAX_ACCEPTED"] == "" {
			s.awaitSample()
			s.ask(who.twice, who.same, third)
		}
	})
	if got := len(s.Stack.Mails()) - delivered; got > 0 && who.name == accounts.name && c.lasting == "" && (c.supabase != nil || c.mailgun != nil) &&
		c.hitsAccounts() && !slices.Contains(c.ends(), "sent") {
		t.Errorf("%d mails were accepted during the fault: it is none", got)
	}
	s.end()
	s.phase(func() { s.ask(who.same, who.lateFresh, who.banned, who.twice, third) })
	s.settled()

	s.checkAnswers()
	s.checkMailed()
	s.checkLanguages()
	s.checkTruth()
	checkSecrets(t, s.fixture)
	return s.seen
}

func (c *oracleCase) hitsAccounts() bool {
	call := upstreamCall{email: knownEmail}
	return isHit(c.supabase, c.supabaseHits, call) || isHit(c.mailgun, c.mailgunHits, call)
}

// begin and end begin and end the fault.
func (s *side) begin() {
	for at, f := range map[*faulty]*fault{&s.supabase: s.oracleCase.supabase, &s.mailgun: s.oracleCase.mailgun} {
		if f != nil && !f.refuse {
			at.current.Store(f)
		}
	}
	for _, g := range s.gates {
		g.shut()
	}
}

func (s *side) end() {
	s.t.Helper()
	if s.rests {
		s.awaitVerdict("supabase", "unknown")
	}
	s.supabase.current.Store(nil)
	s.mailgun.current.Store(nil)
	for _, g := range s.gates {
		g.open()
	}
	if _, shown := s.supabaseVerdict(); shown != "" {
		s.awaitVerdict("supabase", "ok")
	}
	if _, shown := s.mailgunVerdict(); shown != "" && shown != acknowledged {
		s.awaitVerdict("mailgun", "ok")
	}
}

func (s *side) phase(ask func()) {
	from := len(s.seen.answers)
	ask()
	s.seen.phases = append(s.seen.phases, [2]int{from, len(s.seen.answers)})
}

// ask sends requests, and waits for their answers.
func (s *side) ask(emails ...string) {
	s.t.Helper()
	requests := make([]string, len(emails))
	ids := make([]string, len(emails))
	for i, email := range emails {
		members := map[string]string{"email": email}
		maps.Copy(members, s.body)
		body, _ := json.Marshal(members)
		requests[i], ids[i] = string(body), fmt.Sprintf("step-%d", len(s.seen.answers)+i)
		s.Confidential(email)
	}
	for i, a := range s.send(requests, ids) {
		s.seen.asked = append(s.seen.asked, emails[i])
		s.seen.answers = append(s.seen.answers, visible(a))
		s.seen.short = append(s.seen.short, fmt.Sprintf("%d %s", a.Status, a.Body.Code))
		if strings.Contains(a.Raw, gossip) || strings.Contains(a.Raw, "@") {
			s.t.Errorf("an answer repeats what it must not: %s", a.Raw)
		}
	}
}

// send sends requests in the way of the case.
func (s *side) send(bodies, ids []string) (answers []resetdtest.Answer) {
	s.t.Helper()
	text := func(i int, header string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Request-Id: %s\r\n%sContent-Length: %d\r\n\r\n%s", endpoint, ids[i], header, len(bodies[i]), bodies[i])
	}
	write := func(w *wire, text string) {
		s.t.Helper()
		if _, err := io.WriteString(w, text); err != nil {
			s.t.Fatal(err)
		}
	}
	read := func(w *wire) {
		s.t.Helper()
		a, err := w.answer()
		if err != nil {
			s.t.Fatalf("answer %d: %v", len(answers), err)
		}
		answers = append(answers, a)
	}
	if s.wire == nil && (s.over == overOneConnection || s.over == overPipelines) {
		s.wire = s.dial()
	}
	switch s.over {
	case "":
		for i := range bodies {
			answers = append(answers, s.Post(bodies[i], map[string]string{"X-Request-Id": ids[i]}))
		}
	case overOneConnection:
		for i := range bodies {
			write(s.wire, text(i, ""))
			read(s.wire)
		}
	case overPipelines:
		var all strings.Builder
		for i := range bodies {
			all.WriteString(text(i, ""))
		}
		write(s.wire, all.String())
		for range bodies {
			read(s.wire)
		}
	case overHalfClosed, overNewConnections:
		for i := range bodies {
			w := s.dial()
			if s.over == overNewConnections {
				write(w, text(i, "Connection: close\r\n"))
			} else {
				write(w, text(i, ""))
				if err := w.Conn.(*net.TCPConn).CloseWrite(); err != nil {
					s.t.Fatal(err)
				}
			}
			read(w)
			if !w.ends(20 * time.Second) {
				s.t.Errorf("answer %d: the connection goes on", i)
			}
		}
	case overManyAtOnce:
		wires := make([]*wire, len(bodies))
		for i := range bodies {
			wires[i] = s.dial()
			write(wires[i], text(i, ""))
		}
		for _, w := range wires {
			read(w)
		}
	}
	return answers
}

// resets is the time until a window ends, which a caller knows anyway.
var resets = regexp.MustCompile(`;t=\d+`)

// ofLimit is what depends on the order of simultaneous requests.
var ofLimit = regexp.MustCompile(`;r=\d+`)

// visible returns all that a caller can see of an answer, except the date.
func visible(a resetdtest.Answer) string {
	var b strings.Builder
	fmt.Fprintln(&b, a.Status)
	for _, name := range slices.Sorted(maps.Keys(a.Header)) {
		if name != "Date" {
			fmt.Fprintf(&b, "%s: %q\n", name, resets.ReplaceAllString(strings.Join(a.Header[name], "|"), ";t="))
		}
	}
	return b.String() + "\n" + a.Raw
}

// awaitVerdict waits until a probe's latest verdict in the log is the wanted one.
func (s *side) awaitVerdict(upstream, want string) {
	s.t.Helper()
	awaitVerdict(s.t, s.Log, upstream, want)
}

var probeRecord = regexp.MustCompile(`(?m)"msg":"probe","upstream":"([a-z]+)","verdict":"([a-z_]+)"`)

// verdictsIn returns the probes' verdicts in the log, in order, by upstream.
func verdictsIn(b *resetdtest.Log) map[string][]string {
	all := map[string][]string{}
	for _, match := range probeRecord.FindAllStringSubmatch(b.String(), -1) {
		all[match[1]] = append(all[match[1]], match[2])
	}
	return all
}

func awaitVerdict(t testing.TB, b *resetdtest.Log, upstream, want string) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if all := verdictsIn(b)[upstream]; len(all) > 0 && all[len(all)-1] == want {
			return
		}
	}
	t.Fatalf("the probe of %s never came to %q: %v", upstream, want, verdictsIn(b))
}

// awaitSample waits until Supabase Auth's probe has asked again after the fault has hit an account. Mailgun's probe
// asks once a minute, and only TestQuotas waits so long.
func (s *side) awaitSample() {
	s.t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	wait := func(what string, until func() bool) {
		for ; !until(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				s.t.Fatalf("%s within 40 s", what)
			}
		}
	}
	if s.who.name == accounts.name && s.hitsAccounts() && len(s.gates) == 0 {
		wait("the fault hit no account", func() bool { return s.supabase.hit.Load()+s.mailgun.hit.Load() > 0 })
	}
	before := s.supabase.probes.Load()
	wait("no sample was taken", func() bool { return s.supabase.probes.Load() > before })
	time.Sleep(50 * time.Millisecond) // until its answer arrives
}

// settled waits until each accepted request is delivered or given up.
func (s *side) settled() {
	s.t.Helper()
	awaitDeliveries(s.t, s.Log)
}

func awaitDeliveries(t testing.TB, b *resetdtest.Log) {
	t.Helper()
	var accepted, ended int
	for deadline := time.Now().Add(50 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		text := b.String()
		accepted, ended = strings.Count(text, `"outcome":"accepted"`), strings.Count(text, `"msg":"delivery"`)
		if ended >= accepted {
			return
		}
	}
	t.Errorf("of %d accepted requests %d have ended", accepted, ended)
}

// checkAnswers compares the answers of each phase with those of the case.
func (s *side) checkAnswers() {
	s.t.Helper()
	for i, want := range []string{acknowledged, s.shown(), acknowledged} {
		if s.lasting != "" {
			want = s.lasting
		}
		for n := s.seen.phases[i][0]; n < s.seen.phases[i][1]; n++ {
			if s.env["MAX_ACCEPTED"] != "" && s.seen.short[n] == overloaded {
				continue
			}
			if s.seen.short[n] != want {
				s.t.Errorf("answer %d, in phase %d, is %q, want %q", n, i, s.seen.short[n], want)
			}
		}
	}
	s.seen.verdicts = verdictsIn(s.Log)
	if want := s.verdicts(); !maps.EqualFunc(s.seen.verdicts, want, slices.Equal) {
		s.t.Errorf("the probes' verdicts are %v, want %v", s.seen.verdicts, want)
	}
	if s.over == overManyAtOnce {
		for i, a := range s.seen.answers {
			s.seen.answers[i] = ofLimit.ReplaceAllString(a, ";r=")
		}
	}
}

var outcomeLine = regexp.MustCompile(`(?m)^resetd_mails_total\{outcome="([a-z_]+)"\} (\d+)$`)

// outcomes returns the operator's counters.
func (f *fixture) outcomes() map[string]int {
	f.t.Helper()
	counts := map[string]int{}
	for _, match := range outcomeLine.FindAllStringSubmatch(f.Metrics(), -1) {
		counts[match[1]], _ = strconv.Atoi(match[2])
	}
	if len(counts) != 6 {
		f.t.Fatalf("the metrics have the outcomes %v", counts)
	}
	return counts
}

// checkMailed checks that only accounts were ever mailed, also in calls that failed, and that test messages went
// only to the operator's own address.
func (f *fixture) checkMailed() {
	f.t.Helper()
	for _, call := range f.Stack.Calls() {
		if strings.HasSuffix(call.Path, "/trap") {
			f.t.Errorf("a redirect was followed: %s %s", call.Method, call.Path)
		}
		if call.Service != "mailgun" {
			continue
		}
		for _, to := range call.To {
			switch {
			case call.TestMode && to != "no-reply@mg.example.com":
				f.t.Errorf("a test message to %s", to)
			case !call.TestMode && !slices.Contains(f.accounts, to):
				f.t.Errorf("a mail to %s, which is not stored with an account", to)
			}
		}
		if len(call.To) != 1 {
			f.t.Errorf("a message to %q", call.To)
		}
	}
}

// checkLanguages checks that, if the setting says so, an account is mailed in its own language.
func (s *side) checkLanguages() {
	s.t.Helper()
	want := "en"
	if s.env["USER_LANGUAGE_FIELD"] != "" {
		want = "ja"
	}
	for _, mail := range s.Stack.Mails() {
		if got := mail.Fields["h:Content-Language"]; mail.To[0] == knownEmail && (len(got) != 1 || got[0] != want) {
			s.t.Errorf("the account is mailed in %s, want %s", got, want)
		}
	}
}

// end is the end of a request in the log.
type end struct {
	accepted bool
	account  string
	outcome  string // of the delivery
	record   map[string]any
}

// ends returns the end of each request by its id. It reports records that are missing, duplicate or wrong.
func (f *fixture) ends() map[string]*end {
	f.t.Helper()
	ends := map[string]*end{}
	for _, record := range f.Log.Records(f.t, "request") {
		id, _ := record["request_id"].(string)
		outcome, _ := record["outcome"].(string)
		switch {
		case outcome == "":
			continue
		case ends[id] != nil:
			f.t.Errorf("two requests are logged as %s", id)
		case outcome != "accepted" && outcome != "suppressed":
			f.t.Errorf("%s: the outcome %q", id, outcome)
		}
		account, _ := record["account"].(string)
		if !hashed.MatchString(account) {
			f.t.Errorf("%s: account is %q", id, account)
		}
		ends[id] = &end{accepted: outcome == "accepted", account: account}
	}
	for _, record := range f.Log.Records(f.t, "delivery") {
		id, _ := record["request_id"].(string)
		outcome, _ := record["outcome"].(string)
		e := ends[id]
		switch {
		case e == nil || !e.accepted:
			f.t.Errorf("%s has a delivery and was not accepted: %v", id, record)
			continue
		case e.outcome != "":
			f.t.Errorf("%s has two outcomes, %s and %s", id, e.outcome, outcome)
		case e.account != record["account"]:
			f.t.Errorf("%s: the delivery's account is %v, and the request's %s", id, record["account"], e.account)
		}
		failed, unconfirmed := outcome == "undelivered", outcome == "unconfirmed"
		if failed != (record["level"] == "ERROR") || unconfirmed && record["level"] != "WARN" || (failed || unconfirmed) && record["error"] == nil {
			f.t.Errorf("%s: the record of outcome %s: %v", id, outcome, record)
		}
		e.outcome, e.record = outcome, record
	}
	counts := map[string]int{"sent": 0, "no_account": 0, "banned": 0, "suppressed": 0, "unconfirmed": 0, "undelivered": 0}
	for id, e := range ends {
		switch {
		case e.accepted && e.outcome == "":
			f.t.Errorf("%s was accepted, and has not ended", id)
		case e.accepted:
			counts[e.outcome]++
		default:
			counts["suppressed"]++
		}
	}
	if metrics := f.outcomes(); !maps.Equal(counts, metrics) {
		f.t.Errorf("the log has %v, and the metrics %v", counts, metrics)
	}
	return ends
}

// checkTruth checks that each request has its record. Each accepted request has one delivery, whose outcome is
// logged under its id with the hash of its address, is counted, and is what really happened. The last request
// for an account was mailed, unless the fault has ended it.
func (s *side) checkTruth() {
	s.t.Helper()
	ends := s.fixture.ends()
	last, sent := map[string]int{}, map[string]int{}
	for i, short := range s.seen.short {
		email := strings.ToLower(s.seen.asked[i])
		e := ends[fmt.Sprintf("step-%d", i)]
		if (e != nil) != (short == acknowledged) {
			s.t.Errorf("answer %d is %q, and logged as %+v", i, short, e)
		}
		if e == nil {
			continue
		}
		if e.accepted {
			last[email] = i
		}
		if e.outcome == "sent" {
			sent[email]++
		}
	}
	for email, i := range last {
		want := noAccount
		switch {
		case email == accounts.banned:
			want = []string{"banned"}
		case isAccount(email):
			want = mailed
		}
		if isAccount(email) && i < s.seen.phases[1][1] { // its last request was during the fault
			want = append(slices.Clone(s.oracleCase.ends()), want...)
		}
		if got := ends[fmt.Sprintf("step-%d", i)]; !slices.Contains(want, got.outcome) {
			s.t.Errorf("the last accepted request for %s, answer %d of %q, ended as %s, want one of %q: %v", email, i, s.seen.short, got.outcome, want, got.record)
		}
	}
	got := map[string]int{}
	for _, mail := range s.Stack.Mails() {
		got[strings.ToLower(strings.Join(mail.To, ","))]++
	}
	for email, mails := range got {
		if mails != sent[email] || email == accounts.banned {
			s.t.Errorf("%d requests for %s are logged as sent, and there are %d mails", sent[email], email, mails)
		}
		delete(sent, email)
	}
	if len(sent) > 0 {
		s.t.Errorf("logged as sent and not mailed: %v", sent)
	}
}

var (
	hashed    = regexp.MustCompile(`^[0-9a-f]{16}$`)
	tokenLike = regexp.MustCompile(`[0-9a-f]{40,}`)
	mailLink  = regexp.MustCompile(`token(?:_hash)?=([0-9a-f]+)`)
)

// checkSecrets is stricter than the search at the end of every test (SECURITY.md, promise 7): the log, at any level,
// and the metrics have nothing that looks like an address, a link or a token, also not of a probe.
func checkSecrets(t *testing.T, f *fixture) {
	t.Helper()
	// The word "unknown" is a verdict and a revision, and no account's name.
	text := strings.ReplaceAll(f.Log.String()+resetdtest.OwnMetrics(f.Metrics()), "unknown", "")
	forbidden := []string{"@", "test-service-role-key", "not-the-key", "test-mailgun-key", gossip, "token=", "token_hash", "resetd-", ".invalid", "stranger", "known"}
	for _, mail := range f.Stack.Mails() {
		for _, match := range mailLink.FindAllStringSubmatch(mail.Text, -1) {
			forbidden = append(forbidden, match[1])
		}
	}
	for _, secret := range forbidden {
		if at := strings.Index(strings.ToLower(text), strings.ToLower(secret)); at >= 0 {
			t.Errorf("the log has %q: …%s…", secret, text[max(0, at-150):min(len(text), at+80)])
		}
	}
	if found := tokenLike.FindString(f.Log.String()); found != "" {
		t.Errorf("the log has what looks like a token: %s", found)
	}
}
