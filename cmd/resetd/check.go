package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/mailgun"
	"github.com/resetd/resetd/impl/ratelimit"
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
	var address string
	send := false
	var client explainClient
	args = client.takeHeaders(args)
	settings, err := readSettings("check", args, environ, stderr, client.addFlag, func(flags *flag.FlagSet) {
		flags.Func("send-to", "send a real mail to this `ADDRESS`: with an account, with a real link, which makes earlier ones of that account invalid", func(value string) error {
			address, send = value, true
			return nil
		})
	})
	if err != nil {
		return err
	}
	if client.asked {
		return client.print(settings, stdout)
	}
	if send && impl.CheckAddress(address) != nil {
		return mistakes{"--send-to: must be one address, like me@example.com"}
	}

	c := &checker{settings: settings, out: stdout, printed: map[finding]bool{}, failed: map[string]int{}}
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
		c.printFindings(c.sendTo(ctx, address))
	} else {
		c.printFindings(findings{{noted, aboutMail, "whether a link can be made, which writes to Supabase's database, and mailed is not tried: --send-to does"}})
	}
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
	good  = "ok"
	bad   = "FAILED"
	risky = "warning"
	noted = "note" // what cannot be tried, or is worth knowing
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
			continue // --send-to meets with what the checks have met with
		}
		c.printed[f] = true
		if f.verdict == bad {
			c.failed[f.about]++
		}
		// One line each, whatever an error may hold.
		fmt.Fprintf(c.out, "%-7s %-9s %s\n", f.verdict, f.about, strings.Join(strings.Fields(f.text), " "))
	}
}

// prepare makes what the checks work with, and judges what needs no network.
func (c *checker) prepare() (found findings) {
	s := c.settings
	c.links, c.mailer, c.writer = newSupabase(s), newMailgun(s), mailWriter{s.writer}
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

// mostMails in an hour is what nobody asks for by himself: beyond it, an address can be flooded.
const mostMails = 20

// judge names what is allowed and seldom meant.
func (c *checker) judge(found *findings) {
	s := c.settings
	if s.MailProbe == "off" {
		found.add(noted, aboutSettings, "MAIL_PROBE=off: while Mailgun fails, callers are told that a mail is on its way, and it is tried for %s", shortDuration(s.DeliveryTimeout))
	}
	if perHour := mailsPerHour(s.RecipientLimit); perHour > mostMails {
		found.add(risky, aboutSettings, "RECIPIENT_LIMIT lets anybody send %d mails an hour to one address, each of which makes the link before invalid. What to do: leave it at 1-M,5-H", perHour)
	}
	for _, entry := range append([]string{s.SiteURL}, s.CallbackOrigins...) {
		if u, err := url.Parse(strings.TrimSpace(entry)); err == nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
			found.add(risky, aboutSettings, "%s is http: whoever is on the way can read the link and use it first. What to do: use https", entry)
		}
	}
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
	found.add(noted, aboutSettings, "the mail says that a link works for %s, which cannot be tried: compare LINK_EXPIRES_IN with Supabase's email OTP expiration (Authentication > Sign In / Providers > Email; self-hosted: GOTRUE_MAILER_OTP_EXP)", shortDuration(s.LinkExpiresIn))
}

func mailsPerHour(rate ratelimit.Rate) int64 {
	most := int64(-1)
	for _, window := range rate {
		perHour := window.Limit
		if window.Period < time.Hour {
			perHour *= int64(time.Hour / window.Period)
		}
		if most < 0 || perHour < most {
			most = perHour
		}
	}
	return most
}

// aligned says whether two domains belong to one organization, which is what DMARC asks of them
// unless it is told to be strict (RFC 7489, section 3.1.1).
func aligned(a, b string) bool {
	of, err := publicsuffix.EffectiveTLDPlusOne(a)
	with, otherErr := publicsuffix.EffectiveTLDPlusOne(b)
	return a == b || err == nil && otherErr == nil && of == with
}

func isLoopback(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || strings.HasPrefix(host, "127.") || host == "::1"
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
