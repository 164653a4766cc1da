package check

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/resetd/resetd/impl/ratelimit"
)

// settings checks what needs no network: missing settings, and settings that are allowed but rarely meant.
func (c *checker) settings() (found findings) {
	for _, missing := range c.Missing {
		found.add(bad, aboutSettings, "%s is not set. What to do: set it (%s)", missing.Name, missing.Help)
	}
	if len(found) == 0 {
		found.add(good, aboutSettings, "none is missing, and none is wrong in itself")
	}
	if !c.ProbesMail {
		found.add(noted, aboutSettings, "MAIL_PROBE=off: while Mailgun fails, callers are told that a mail is on its way, and it is tried for %s", shortDuration(c.DeliveryTimeout))
	}
	c.judgeLimits(&found)
	c.judgeAddresses(&found)
	domain := strings.ToLower(c.Mailgun.Domain)
	if sender := c.Mailgun.From.Address; domain != "" && sender != "" {
		if from := strings.ToLower(sender[strings.LastIndex(sender, "@")+1:]); !aligned(from, domain) {
			found.add(bad, aboutSettings, "MAIL_FROM is at %s, and Mailgun sends and signs for %s: SPF and DKIM are not aligned, so mail fails DMARC, and is refused or taken for spam. What to do: use a sender at %s, or MAILGUN_DOMAIN of the sender's domain", from, c.Mailgun.Domain, c.Mailgun.Domain)
		}
	}
	if strings.HasPrefix(domain, "sandbox") && strings.HasSuffix(domain, ".mailgun.org") {
		found.add(risky, aboutSettings, "MAILGUN_DOMAIN is a sandbox domain: only the authorized recipients of the Mailgun account get mail. What to do: add and verify a domain of your own")
	}
	for _, warning := range c.Writer.Warnings() {
		found.add(risky, aboutSettings, "%s", warning)
	}
	if replaced := c.Writer.Replaced(); len(replaced) > 0 {
		found.add(noted, aboutSettings, "TEMPLATES_DIR replaces in the mail %s", strings.Join(replaced, "; "))
	}
	if !c.TrustsProxies {
		found.add(noted, aboutSettings, "TRUSTED_PROXIES is empty: right if clients connect to resetd themselves; behind a proxy all of them would be one client to RATE_LIMIT (docs/platforms.md; --explain-client says who the client of a request would be)")
	}
	if c.LinkExpiresIn > longestLife {
		found.add(risky, aboutSettings, "LINK_EXPIRES_IN is %s: a link in a mailbox opens the account for so long, and hosted Supabase lets none work for longer than a day, so that the mail promises too much. What to do: an hour, in Supabase too", shortDuration(c.LinkExpiresIn))
	}
	found.add(noted, aboutSettings, "the mail says that a link works for %s, which cannot be tried: compare LINK_EXPIRES_IN with Supabase's email OTP expiration (Authentication > Sign In / Providers > Email; self-hosted: GOTRUE_MAILER_OTP_EXP)", shortDuration(c.LinkExpiresIn))
	return found
}

// aligned says whether two domains belong to one organization, as DMARC requires with relaxed alignment (RFC 7489,
// section 3.1.1).
func aligned(a, b string) bool {
	of, err := publicsuffix.EffectiveTLDPlusOne(a)
	with, otherErr := publicsuffix.EffectiveTLDPlusOne(b)
	return a == b || err == nil && otherErr == nil && of == with
}

// longestLife is the longest life of links that hosted Supabase allows (November 2026).
const longestLife = 24 * time.Hour

// Limits beyond these values get a remark.
const (
	mostMails    = 20   // to one address in an hour: nobody needs more
	mostRequests = 1000 // of one client in an hour, which is 33 times the default
	fewMails     = 3    // to one address in a day
	fewInHour    = 3    // requests of one client: with one mistyped address two are left
	fewInDay     = 10   // the same per day; addresses are shared
)

// judgeLimits names limits that lock people out, and those that limit nobody.
func (c *checker) judgeLimits(found *findings) {
	if most := perHour(c.RecipientLimit); most > mostMails {
		found.add(risky, aboutSettings, "RECIPIENT_LIMIT lets anybody send %d mails an hour to one address, each of which makes the link before invalid. What to do: leave it at 1-M,5-H", most)
	}
	if most := perHour(c.RateLimit); most > mostRequests {
		found.add(risky, aboutSettings, "RATE_LIMIT lets one client ask %d times an hour, each time for another address: it limits nobody. What to do: leave it at 5-M,30-H", most)
	}
	for _, window := range c.RecipientLimit {
		if window.Period == 24*time.Hour && window.Limit < fewMails {
			found.add(risky, aboutSettings, "RECIPIENT_LIMIT lets an address be asked for %s a day: anybody can use that up, and then its owner gets no mail until the next day, and is told that it is on its way. What to do: leave it at 1-M,5-H", times(window.Limit))
		}
	}
	for _, window := range c.RateLimit {
		if window.Period == 24*time.Hour && window.Limit < fewInDay || window.Period == time.Hour && window.Limit < fewInHour {
			period := "hour"
			if window.Period > time.Hour {
				period = "day"
			}
			found.add(risky, aboutSettings, "RATE_LIMIT lets a client ask %s in one %s, mistyped addresses counted in, and offices and mobile networks share one: people are locked out. What to do: leave it at 5-M,30-H", times(window.Limit), period)
		}
	}
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func perHour(rate ratelimit.Rate) int64 {
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

// judgeAddresses names addresses that are only good for a trial.
func (c *checker) judgeAddresses(found *findings) {
	if c.Pages != nil {
		for i, page := range c.Pages.All() {
			u, err := url.Parse(strings.Replace(page, "://*.", "://"+sampleLabel+".", 1))
			if err != nil {
				continue
			}
			of := strings.Replace(u.Scheme+"://"+u.Host, "://"+sampleLabel+".", "://*.", 1)
			switch {
			case isLoopback(u.Hostname()):
				if i == 0 {
					found.add(risky, aboutSettings, "SITE_URL is %s: links lead to the machine on which the mail is opened. What to do: give the address of the app, as its users have it", of)
				}
			case u.Scheme == "http":
				found.add(risky, aboutSettings, "%s is http: anybody on the way can read the link and use it first. What to do: use https", of)
			}
		}
	}
	for _, upstream := range []struct{ name, address string }{
		{"SUPABASE_URL", c.SupabaseURL}, {"SUPABASE_AUTH_URL", c.SupabaseAuthURL}, {"MAILGUN_API_BASE", c.Mailgun.Base},
	} {
		if u, err := url.Parse(upstream.address); err == nil && u.Scheme == "http" && !isNear(u.Hostname()) {
			found.add(risky, aboutSettings, "%s is http, and does not look like an address of your own network: anybody on the way can read the key. What to do: use https", upstream.name)
		}
	}
	if c.WebhookKey != "" && c.WebhookKey == c.Mailgun.Key {
		found.add(risky, aboutSettings, "MAILGUN_WEBHOOK_SIGNING_KEY is the same as MAILGUN_API_KEY: one of them is of the wrong kind, unless Mailgun shows the same key for both. What to do: give the HTTP webhook signing key, which Mailgun shows among the account's API keys")
	}
}

func isLoopback(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || strings.HasPrefix(host, "127.") || host == "::1"
}

// isNear guesses whether a host is on this machine, or in the operator's own network: a name without
// a dot, a name with an ending that no public name has, or an address that is not public.
func isNear(host string) bool {
	if address, err := netip.ParseAddr(host); err == nil {
		return address.IsLoopback() || address.IsPrivate() || address.IsLinkLocalUnicast()
	}
	for _, suffix := range []string{".internal", ".local", ".localhost", ".lan", ".svc", ".home.arpa", ".invalid", ".test"} {
		if strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return !strings.Contains(host, ".")
}
