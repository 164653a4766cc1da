package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/mailgun"
	"github.com/resetd/resetd/impl/supabase"
)

// check tries the settings as the first user would, and prints a line for each thing it tried:
// a verdict, what it is about, what was found, and, where something is wrong, what to do.
//
// It asks Supabase for a link for an address that cannot exist, hands Mailgun a message in test
// mode to ourselves (accepted, billed, delivered to nobody), and counts in Redis under a key that
// it removes. With --send-to it does the whole thing for an address of the operator's. With
// --explain-client it does nothing of that, and says who the client of a request would be.
func check(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	var address, language string
	send, asJSON := false, false
	var client explainClient
	args = client.takeHeaders(args)
	settings, err := readSettings("check", args, environ, stderr, client.addFlag, func(flags *flag.FlagSet) {
		flags.BoolVar(&asJSON, "json", false, "print one JSON object, for programs: docs/operations.md says what is in it")
		flags.Func("send-to", "send a real mail to this `ADDRESS`: with an account, with a real link, which makes earlier ones of that account invalid", func(value string) error {
			address, send = value, true
			return nil
		})
		flags.StringVar(&language, "language", "", "the `TAG` of the language that --send-to writes in, like fr; without it, the default one")
	})
	if err == nil && send && impl.CheckAddress(address) != nil {
		err = mistakes{"--send-to: must be one address, like me@example.com"}
	}
	if err == nil && language != "" && (!send || !slices.Contains(settings.writer.Languages(), language)) {
		err = mistakes{"--language: must be one of " + strings.Join(settings.writer.Languages(), ", ") + ", and goes with --send-to"}
	}
	var wrong mistakes
	var report checkReport
	switch {
	case asJSON && errors.As(err, &wrong):
		report.addMistakes(wrong)
		return errors.Join(err, report.write(stdout))
	case err != nil:
		return err
	case client.asked:
		return client.print(settings, stdout)
	}

	c := &checker{settings: settings, out: stdout, printed: map[finding]bool{}, failed: map[string]int{}}
	if asJSON {
		c.out, c.report = io.Discard, &report
	}
	c.printFindings(c.prepare())
	// At the same time, so that one that hangs holds up nothing; printed in this order all the same.
	var results []<-chan findings
	for _, check := range []func(context.Context) findings{c.supabase, c.redirects, c.mailgun, c.redis} {
		result := make(chan findings, 1)
		results = append(results, result)
		go func() { result <- check(ctx) }()
	}
	for _, result := range results {
		c.printFindings(<-result)
	}
	if send {
		c.printFindings(c.sendTo(ctx, address, language))
	} else {
		c.printFindings(findings{{skipped, aboutMail, "whether a link can be made, which writes to Supabase's database, and mailed is not tried: --send-to does"}})
	}
	err = c.verdict(ctx)
	if asJSON {
		err = errors.Join(err, report.write(stdout))
	}
	return err
}

// verdict returns what becomes the exit status.
func (c *checker) verdict(ctx context.Context) error {
	failures := 0
	for _, n := range c.failed {
		failures += n
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case failures == 1:
		return errors.New("one check has failed")
	case failures > 1:
		return fmt.Errorf("%d checks have failed", failures)
	}
	return nil
}

// The verdicts. Only bad makes the exit status 1.
const (
	good    = "ok"
	bad     = "FAILED"
	risky   = "warning"
	noted   = "note"    // what is worth knowing
	skipped = "skipped" // what was not tried
)

// What the findings are about.
const (
	aboutSettings = "settings"
	aboutSupabase = "supabase"
	aboutRedirect = "redirect"
	aboutMailgun  = "mailgun"
	aboutRedis    = "redis"
	aboutMail     = "mail"
)

type finding struct{ verdict, about, text string }

type findings []finding

// add adds a finding. What is wrong ends with what to do about it.
func (f *findings) add(verdict, about, format string, args ...any) {
	*f = append(*f, finding{verdict, about, fmt.Sprintf(format, args...)})
}

// checker is one run of the command.
type checker struct {
	settings *settings
	out      io.Writer
	report   *checkReport // nil: it is printed for people
	printed  map[finding]bool
	failed   map[string]int // by what they are about

	links      *supabase.Client // nil where not configured
	mailer     *mailgun.Client  // likewise
	writer     mailWriter
	redirectTo string // where links lead by default
}

func (c *checker) printFindings(all findings) {
	for _, f := range all {
		if c.printed[f] {
			continue // --send-to fails by what the checks have found
		}
		c.printed[f] = true
		if f.verdict == bad {
			c.failed[f.about]++
		}
		// One line each, whatever an error may hold.
		f.text = strings.Join(strings.Fields(f.text), " ")
		fmt.Fprintf(c.out, "%-7s %-9s %s\n", f.verdict, f.about, f.text)
		if c.report != nil {
			c.report.add(f)
		}
	}
}

// prepare makes what the checks work with, and judges what needs no network.
func (c *checker) prepare() (found findings) {
	s := c.settings
	c.links, c.mailer, c.writer = newSupabase(s), newMailgun(s), mailWriter{Renderer: s.writer}
	c.redirectTo = "https://resetd.invalid" + s.ResetPath // the checks of Supabase and Mailgun need no real one
	if s.pages != nil {
		c.redirectTo = s.pages.Site()
	}

	for _, name := range s.missing() {
		found.add(bad, aboutSettings, "%s is not set. What to do: set it (%s)", name, settingHelp(name))
	}
	if len(found) == 0 {
		found.add(good, aboutSettings, "none is missing, and none is wrong in itself")
	}
	c.judge(&found)
	return found
}

// sampleLink returns a made-up link of the form and length of a real one. It opens nothing.
func (c *checker) sampleLink() *delivery.Link {
	token := make([]byte, 28)
	rand.Read(token) // never fails (crypto/rand)
	hash := hex.EncodeToString(token)
	return &delivery.Link{TokenHash: hash, ActionLink: c.settings.authURL + "/verify?token=" + hash + "&type=recovery&redirect_to=" + c.redirectTo}
}

func (c *checker) linkURL(link *delivery.Link) string {
	return delivery.LinkMode(c.settings.LinkMode).URL(link, c.redirectTo)
}

func settingHelp(name string) string {
	for _, field := range reflect.VisibleFields(reflect.TypeFor[settings]()) {
		if field.Tag.Get("env") == name {
			return field.Tag.Get("help")
		}
	}
	return ""
}

// judge names what is allowed and seldom meant.
func (c *checker) judge(found *findings) {
	s := c.settings
	if s.MailProbe == "off" {
		found.add(noted, aboutSettings, "MAIL_PROBE=off: while Mailgun fails, callers are told that a mail is on its way, and it is tried for %s", shortDuration(s.DeliveryTimeout))
	}
	s.judgeLimits(found)
	s.judgeAddresses(found)
	if s.MailgunDomain != "" && s.from.Address != "" {
		if from := strings.ToLower(s.from.Address[strings.LastIndex(s.from.Address, "@")+1:]); !aligned(from, strings.ToLower(s.MailgunDomain)) {
			found.add(bad, aboutSettings, "MAIL_FROM is at %s, and Mailgun sends and signs for %s: SPF and DKIM are not aligned, so mail fails DMARC, and is refused or taken for spam. What to do: use a sender at %s, or MAILGUN_DOMAIN of the sender's domain", from, s.MailgunDomain, s.MailgunDomain)
		}
	}
	if domain := strings.ToLower(s.MailgunDomain); strings.HasPrefix(domain, "sandbox") && strings.HasSuffix(domain, ".mailgun.org") {
		found.add(risky, aboutSettings, "MAILGUN_DOMAIN is a sandbox domain: only the authorized recipients of the Mailgun account get mail. What to do: add and verify a domain of your own")
	}
	for _, warning := range s.writer.Warnings() {
		found.add(risky, aboutSettings, "%s", warning)
	}
	if replaced := s.writer.Replaced(); len(replaced) > 0 {
		found.add(noted, aboutSettings, "TEMPLATES_DIR replaces in the mail %s", strings.Join(replaced, "; "))
	}
	if !s.clientIP.Set() {
		found.add(noted, aboutSettings, "TRUSTED_PROXIES is empty: right if clients connect to resetd themselves; behind a proxy all of them would be one client to RATE_LIMIT (docs/platforms.md; --explain-client says who the client of a request would be)")
	}
	if s.LinkExpiresIn > longestLife {
		found.add(risky, aboutSettings, "LINK_EXPIRES_IN is %s: a link in a mailbox opens the account for so long, and hosted Supabase lets none work for longer than a day, so that the mail promises too much. What to do: an hour, in Supabase too", shortDuration(s.LinkExpiresIn))
	}
	found.add(noted, aboutSettings, "the mail says that a link works for %s, which cannot be tried: compare LINK_EXPIRES_IN with Supabase's email OTP expiration (Authentication > Sign In / Providers > Email; self-hosted: GOTRUE_MAILER_OTP_EXP)", shortDuration(s.LinkExpiresIn))
}

// aligned says whether two domains belong to one organization, which is what DMARC asks of them
// unless it is told to be strict (RFC 7489, section 3.1.1).
func aligned(a, b string) bool {
	of, err := publicsuffix.EffectiveTLDPlusOne(a)
	with, otherErr := publicsuffix.EffectiveTLDPlusOne(b)
	return a == b || err == nil && otherErr == nil && of == with
}

// shortDuration writes 1h for 1h0m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// plainCause leaves out of upstream.Cause what is there for programs.
func plainCause(err error) string {
	return strings.TrimSuffix(err.Error(), ": "+context.DeadlineExceeded.Error())
}

// millis writes a time as people compare it.
func millis(d time.Duration) string {
	if d < time.Millisecond {
		return "under 1 ms"
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}
