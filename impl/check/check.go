// Package check owns `resetd check`: it tries the settings like the first user, and says of each thing what it found
// and, if something is wrong, what to do.
//
// It asks Supabase for a link for an address that cannot exist, hands Mailgun a message in test mode to the sender
// (accepted, billed, delivered to nobody), and counts in Redis under a key that it removes. Only with Config.SendTo
// does it send a real mail, to that address. It must never print a key, a link or an upstream's text.
package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/mailgun"
	"github.com/resetd/resetd/impl/message"
	"github.com/resetd/resetd/impl/origin"
	"github.com/resetd/resetd/impl/ratelimit"
	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/supabase"
)

// Config has the settings that are checked. They have no mistakes in themselves.
type Config struct {
	Missing []Missing // what the server cannot do its work without

	Supabase                     supabase.Config // not configured unless it is Set
	SupabaseURL, SupabaseAuthURL string          // unchanged
	Mailgun                      mailgun.Config  // not configured unless it is Set
	WebhookKey                   string
	Redis                        *redisclient.Target // nil: it is not configured
	Platform                     string              // the platform, if it runs several instances by itself

	Pages                          *origin.Pages // nil without SITE_URL
	Writer                         *message.Renderer
	LinkMode                       delivery.LinkMode
	LinkExpiresIn, DeliveryTimeout time.Duration
	RateLimit, RecipientLimit      ratelimit.Rate
	ProbesMail, TrustsProxies      bool

	SendTo   string // gets a real mail; empty: no real mail
	Language string // of that mail; empty: the default one
}

// Missing is a setting that is not set, with its help.
type Missing struct{ Name, Help string }

// Format writes findings: for people a line for each at once, or one object at the end.
type Format struct {
	JSON    bool
	Version string // of resetd, in the object
}

// Run tries what is configured, and writes what it finds. Its error says how many checks have failed, or is the error
// of ctx.
func Run(ctx context.Context, config Config, format Format, out io.Writer) error {
	c := &checker{
		Config: config, format: format, out: out, links: supabase.New(config.Supabase), mailer: mailgun.New(config.Mailgun),
		redirectTo: "https://resetd.invalid/reset-password", // the checks of Supabase and Mailgun need no real page
	}
	if c.Pages != nil {
		c.redirectTo = c.Pages.Site()
	}
	c.tell(c.settings())
	// The checks run at the same time, so that a slow check does not delay the others. Their findings are written in
	// this order.
	var results []<-chan findings
	for _, check := range []func(context.Context) findings{c.supabase, c.redirects, c.mailgun, c.redis} {
		result := make(chan findings, 1)
		results = append(results, result)
		go func() { result <- check(ctx) }()
	}
	for _, result := range results {
		c.tell(<-result)
	}
	c.tell(c.mail(ctx))
	return errors.Join(c.verdict(ctx), c.end())
}

// WriteMistakes writes the object for settings that stop the start, with which nothing can be tried.
func WriteMistakes(mistakes []string, version string, out io.Writer) error {
	c := &checker{format: Format{JSON: true, Version: version}, out: out}
	for _, mistake := range mistakes {
		c.tell(findings{{bad, aboutSettings, mistake + whatToDo + "correct it, or resetd serve will not start"}})
	}
	return c.end()
}

// These are the verdicts. Only bad makes the exit status 1.
const (
	good    = "ok"
	bad     = "FAILED"
	risky   = "warning"
	noted   = "note"    // what is worth knowing
	skipped = "skipped" // what was not tried
)

// These are the subjects of findings.
const (
	aboutSettings = "settings"
	aboutSupabase = "supabase"
	aboutRedirect = "redirect"
	aboutMailgun  = "mailgun"
	aboutRedis    = "redis"
	aboutMail     = "mail"
)

// whatToDo comes between a finding and its advice.
const whatToDo = ". What to do: "

type finding struct{ verdict, about, text string }

type findings []finding

// add adds a finding. A finding of a fault ends with advice.
func (f *findings) add(verdict, about, format string, args ...any) {
	*f = append(*f, finding{verdict, about, fmt.Sprintf(format, args...)})
}

// checker is one run.
type checker struct {
	Config
	format Format
	out    io.Writer
	told   findings

	links      *supabase.Client
	mailer     *mailgun.Client
	redirectTo string // where links lead by default
}

// tell writes the new findings.
func (c *checker) tell(all findings) {
	for _, f := range all {
		f.text = strings.Join(strings.Fields(f.text), " ") // one line each, whatever an error may hold
		if slices.Contains(c.told, f) {
			continue
		}
		c.told = append(c.told, f)
		if !c.format.JSON {
			fmt.Fprintf(c.out, "%-7s %-9s %s\n", f.verdict, f.about, f.text)
		}
	}
}

// failures counts the failed checks, of some subjects or of all.
func (c *checker) failures(about ...string) (number int) {
	for _, f := range c.told {
		if f.verdict == bad && (len(about) == 0 || slices.Contains(about, f.about)) {
			number++
		}
	}
	return number
}

// verdict returns the error for the exit status.
func (c *checker) verdict(ctx context.Context) error {
	switch failures := c.failures(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case failures == 1:
		return errors.New("one check has failed")
	case failures > 1:
		return fmt.Errorf("%d checks have failed", failures)
	}
	return nil
}

// end writes the object, which docs/operations.md documents. Members may be added.
func (c *checker) end() error {
	if !c.format.JSON {
		return nil
	}
	type check struct {
		Name    string `json:"name"`   // the subject
		Status  string `json:"status"` // ok, warning, failed, skipped or note
		Message string `json:"message"`
		Advice  string `json:"advice,omitempty"` // what to do, if something is wrong
	}
	report := struct {
		Status  string  `json:"status"` // the worst of the checks: failed, warning or ok
		Version string  `json:"version"`
		Checks  []check `json:"checks"`
	}{Status: good, Version: c.format.Version}
	for _, f := range c.told {
		text, advice, _ := strings.Cut(f.text, whatToDo)
		report.Checks = append(report.Checks, check{f.about, strings.ToLower(f.verdict), text, advice})
		if f.verdict == bad || f.verdict == risky && report.Status == good {
			report.Status = strings.ToLower(f.verdict)
		}
	}
	encoder := json.NewEncoder(c.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
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

// plainCause removes from upstream.Cause what is only for programs.
func plainCause(err error) string {
	return strings.TrimSuffix(err.Error(), ": "+context.DeadlineExceeded.Error())
}

// millis writes a time in whole milliseconds.
func millis(d time.Duration) string {
	if d < time.Millisecond {
		return "under 1 ms"
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}
