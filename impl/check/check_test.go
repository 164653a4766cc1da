package check

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/devstack"
	"github.com/resetd/resetd/impl/mailgun"
	"github.com/resetd/resetd/impl/message"
	"github.com/resetd/resetd/impl/origin"
	"github.com/resetd/resetd/impl/ratelimit"
	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/supabase"
	"github.com/resetd/resetd/test/resetdtest"
)

const (
	knownEmail = "known@example.com"
	site       = "https://app.example.com"
	mailDomain = "mg.example.com"
)

// jwt returns a key with these claims. No test checks its signature.
func jwt(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("a signature of a real length 123"))
}

// trial is one run, against stand-ins without faults unless the trial says otherwise.
type trial struct {
	set               func(*Config) // changes the right settings
	key               string        // that Supabase accepts; empty: that of the settings
	supabase, mailgun func(http.Handler) http.Handler
	sendTo            string
	banned            []string
	format            Format

	want  []string // of the lines that are neither ok nor note, in order: patterns from the line's beginning
	mails []string // recipients of delivered mails
}

// did is the result of a run.
type did struct {
	out   string
	err   error
	stack *devstack.Stack
}

// has says whether a line has this beginning.
func (d did) has(pattern string) bool {
	return regexp.MustCompile(`(?m)^` + pattern).MatchString(d.out)
}

// writer returns a renderer without a brand.
var writer = sync.OnceValue(func() *message.Renderer {
	writer, err := message.New(message.Options{Brand: message.Brand{Name: "Example"}, LinkExpiresIn: time.Hour})
	if err != nil {
		panic(err)
	}
	return writer
})

// right returns settings without mistakes, for stand-ins at these addresses.
func right(supabaseURL, mailgunURL string) Config {
	return Config{
		Supabase:    supabase.Config{AuthURL: supabaseURL + "/auth/v1", Key: jwt(`{"role":"service_role","ref":"project"}`), Timeout: time.Minute},
		SupabaseURL: supabaseURL,
		Mailgun: mailgun.Config{
			Base: mailgunURL, Domain: mailDomain, Key: "test-mailgun-key", From: mail.Address{Name: "Example", Address: "no-reply@" + mailDomain}, Timeout: time.Minute,
		},
		Pages:    pages(delivery.TokenHash, site, "/reset-password", "https://*.preview.example.com"),
		Writer:   writer(),
		LinkMode: delivery.TokenHash, LinkExpiresIn: time.Hour, DeliveryTimeout: 15 * time.Minute,
		RateLimit: rate("5-M,30-H"), RecipientLimit: rate("1-M,5-H"), ProbesMail: true, TrustsProxies: true,
	}
}

func rate(text string) ratelimit.Rate {
	rate, err := ratelimit.ParseRate(text)
	if err != nil {
		panic(err)
	}
	return rate
}

func pages(mode delivery.LinkMode, site, path string, callbacks ...string) *origin.Pages {
	at, err := origin.ParseSite(site)
	if err != nil {
		panic(err)
	}
	pages, err := origin.NewPages(origin.Links{Site: at, Path: path, Callbacks: callbacks, Redirected: mode == delivery.ActionLink})
	if err != nil {
		panic(err)
	}
	return &pages
}

func target(t *testing.T, config redisclient.Config) *redisclient.Target {
	t.Helper()
	target, wrong := redisclient.Parse(config)
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	return target
}

// do runs the trial, and checks the lines, the verdict, and what must hold for every run: it prints no
// secret, mails only the addresses that were named, and asks for links of no others.
func (tr trial) do(t *testing.T) did {
	t.Helper()
	return tr.within(t.Context(), t)
}

func (tr trial) within(ctx context.Context, t *testing.T) did {
	t.Helper()
	supabase, mailgun := httptest.NewUnstartedServer(nil), httptest.NewUnstartedServer(nil)
	config := right("http://"+supabase.Listener.Addr().String(), "http://"+mailgun.Listener.Addr().String())
	if tr.set != nil {
		tr.set(&config)
	}
	config.SendTo = tr.sendTo
	if tr.key == "" {
		tr.key = config.Supabase.Key
	}
	stack := devstack.New(devstack.Config{
		Accounts: []string{knownEmail, "UPPER@example.com"}, Banned: tr.banned, SiteURL: site, RedirectAllowList: []string{"https://*.preview.example.com/**", "io.example.listed://reset"},
		ServiceRoleKey: tr.key, MailgunKey: "test-mailgun-key", MailgunDomain: mailDomain,
		SupabaseMiddleware: tr.supabase, MailgunMiddleware: tr.mailgun,
	})
	t.Cleanup(stack.Close)
	supabase.Config.Handler, mailgun.Config.Handler = stack.Supabase(), stack.Mailgun()
	for _, server := range []*httptest.Server{supabase, mailgun} {
		server.Start()
		t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var out bytes.Buffer
	err := Run(ctx, config, tr.format, &out)
	d := did{out.String(), err, stack}

	if !tr.format.JSON {
		tr.checkLines(t, d)
	}
	for _, secret := range []string{config.Supabase.Key, config.Mailgun.Key, "pass-of-the-redis-server", "wrong-pass"} {
		if secret != "" && strings.Contains(d.out, secret) {
			t.Errorf("it prints the secret %q:\n%s", secret, d.out)
		}
	}
	if found := regexp.MustCompile(`[0-9a-f]{40}|eyJ|\.invalid\b|token_hash=[^t ]`).FindString(strings.ReplaceAll(d.out, "no-such-host.invalid", "")); found != "" {
		t.Errorf("it prints %q:\n%s", found, d.out)
	}
	for _, address := range regexp.MustCompile(`[^\s("]+@\S*\w`).FindAllString(d.out, -1) {
		if !strings.Contains(strings.Join([]string{tr.sendTo, config.Mailgun.From.Address, asSingle, asSentinels, asCluster, "redis://user:password@host"}, " "), address) {
			t.Errorf("it prints the address %q:\n%s", address, d.out)
		}
	}
	var mailed []string
	for _, mail := range stack.Mails() {
		mailed = append(mailed, mail.To...)
	}
	if !slices.Equal(mailed, tr.mails) {
		t.Errorf("%q were mailed, want %q", mailed, tr.mails)
	}
	for _, message := range stack.TestMessages() {
		from, err := mail.ParseAddress(message.From)
		if err != nil || !slices.Equal(message.To, []string{from.Address}) {
			t.Errorf("a message in test mode to %q", message.To)
		}
	}
	for _, call := range stack.Calls() {
		if call.Email != "" && !strings.HasSuffix(call.Email, ".invalid") && call.Email != tr.sendTo {
			t.Errorf("a link was asked for, for %q", call.Email)
		}
		if strings.HasSuffix(call.Path, "/verify") && (call.Header.Get("Apikey") != "" || call.Header.Get("Authorization") != "") {
			t.Error("a link was followed with a key, which no browser has")
		}
	}
	return d
}

// checkLines compares the lines for people with the wanted ones.
func (tr trial) checkLines(t *testing.T, d did) {
	t.Helper()
	var wrong []string
	for line := range strings.Lines(d.out) {
		line = strings.TrimSuffix(line, "\n")
		if !regexp.MustCompile(`^(ok     |FAILED |warning|note   |skipped) (settings|supabase|redirect|mailgun |redis   |mail    )  \S.*\S$`).MatchString(line) {
			t.Errorf("a line of another form: %q", line)
		}
		if strings.HasPrefix(line, "FAILED") || strings.HasPrefix(line, "warning") {
			wrong = append(wrong, line)
			if !strings.Contains(line, "What to do: ") && !strings.Contains(line, "http:") {
				t.Errorf("it does not say what to do: %s", line)
			}
		}
	}
	matches := len(wrong) == len(tr.want)
	for i := 0; matches && i < len(wrong); i++ {
		matches = regexp.MustCompile(`^` + tr.want[i]).MatchString(wrong[i])
	}
	fails := slices.ContainsFunc(tr.want, func(line string) bool { return strings.HasPrefix(line, "FAILED") })
	if !matches || (d.err != nil) != fails {
		t.Errorf("want lines like\n  %s\ngot:\n%s%v", strings.Join(tr.want, "\n  "), d.out, d.err)
	}
}

// on limits a fault to the paths with this end.
func on(path string, fault func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		faulty := fault(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, path) {
				faulty.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// rewriting replaces the body of every error answer, as proxies with error pages of their own do, and keeps
// the headers if told so.
func rewriting(keepHeaders bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			recorder := httptest.NewRecorder()
			next.ServeHTTP(recorder, r)
			body := recorder.Body.String()
			if recorder.Code >= 400 {
				body = "<h1>Error</h1>"
			}
			for name, values := range recorder.Header() {
				if keepHeaders || recorder.Code < 400 {
					w.Header()[name] = values
				}
			}
			w.WriteHeader(recorder.Code)
			_, _ = io.WriteString(w, body)
		})
	}
}

const (
	generateLink = "/admin/generate_link"
	linkForAll   = `{"email":"someone@example.com","hashed_token":"0123456789abcdef0123456789abcdef","action_link":"https://x.example/verify","redirect_to":"https://app.example.com/reset-password","verification_type":"recovery"}`
)

// TestCheck: each fault has its line, and the run finds no other fault.
func TestCheck(t *testing.T) {
	closed := closedAddress(t)
	tlsServer := httptest.NewUnstartedServer(http.NotFoundHandler())
	tlsServer.Config.ErrorLog = log.New(io.Discard, "", 0)
	tlsServer.StartTLS()
	t.Cleanup(tlsServer.Close) // after the parallel trials
	for name, tr := range map[string]trial{
		"all right":       {},
		"all right, send": {sendTo: knownEmail, mails: []string{knownEmail}},

		// Settings.
		"nothing set": {
			set: func(c *Config) {
				c.Pages, c.Supabase.AuthURL, c.Supabase.Key, c.Mailgun.Domain, c.Mailgun.Key = nil, "", "", "", ""
				c.Missing = []Missing{{"SUPABASE_URL", "the project"}, {"SITE_URL", "the app's origin"}}
			},
			want: []string{
				`FAILED  settings  SUPABASE_URL is not set\. What to do: set it \(the project\)$`,
				`FAILED  settings  SITE_URL is not set\. What to do: set it \(the app's origin\)$`,
			},
		},
		"no SITE_URL": {
			set:  func(c *Config) { c.Pages, c.Missing = nil, []Missing{{"SITE_URL", "the app's origin"}} },
			want: []string{`FAILED  settings  SITE_URL is not set`},
		},
		"nothing set, send": {
			set: func(c *Config) { c.Mailgun.Key, c.Missing = "", []Missing{{"MAILGUN_API_KEY", "a key"}} }, sendTo: knownEmail,
			want: []string{`FAILED  settings  MAILGUN_API_KEY`, `FAILED  mail      nothing was sent to known@example\.com\. What to do: correct what has failed above first`},
		},
		"risky": {
			set:  func(c *Config) { c.RecipientLimit = rate("2-M") },
			want: []string{`warning settings  RECIPIENT_LIMIT lets anybody send 120 mails an hour`},
		},
		"RECIPIENT_LIMIT, wide minutes and narrow days": {set: func(c *Config) { c.RecipientLimit = rate("5-M,20-D") }},
		"limits that lock people out": {
			set: func(c *Config) { c.RateLimit = rate("1-H,9-D"); c.RecipientLimit = rate("1-D") },
			want: []string{
				`warning settings  RECIPIENT_LIMIT lets an address be asked for once a day: anybody can use that up`,
				`warning settings  RATE_LIMIT lets a client ask once in one hour`, `warning settings  RATE_LIMIT lets a client ask 9 times in one day`,
			},
		},
		"a limit of one request a day": {
			set: func(c *Config) { c.RateLimit = rate("1-D") }, want: []string{`warning settings  RATE_LIMIT lets a client ask once in one day, mistyped addresses counted in, and offices .*: people are locked out\. What to do: leave it at 5-M,30-H`},
		},
		"a limit that limits nobody": {
			set: func(c *Config) { c.RateLimit = rate("1-S") }, want: []string{`warning settings  RATE_LIMIT lets one client ask 3600 times an hour, .*: it limits nobody`},
		},
		"limits just beside":        {set: func(c *Config) { c.RateLimit = rate("3-H,10-D"); c.RecipientLimit = rate("1-H,3-D") }},
		"a limit as wide as can be": {set: func(c *Config) { c.RateLimit = rate("100-S,1000-H") }},
		"a link that works for long": {
			set: func(c *Config) { c.LinkExpiresIn = 24*time.Hour + time.Minute }, want: []string{`warning settings  LINK_EXPIRES_IN is 24h1m: .* What to do: an hour, in Supabase too`},
		},
		"a link that works for a day": {set: func(c *Config) { c.LinkExpiresIn = 24 * time.Hour }},
		"SITE_URL on this machine": {
			set: func(c *Config) {
				c.Pages = pages(c.LinkMode, "http://localhost:3000", "/reset-password", "https://*.preview.example.com")
			},
			want: []string{`warning settings  SITE_URL is http://localhost:3000: links lead to the machine on which the mail is opened\. What to do: give the address of the app`, `warning redirect  `},
		},
		"many instances, perhaps": {
			set: func(c *Config) { c.Platform = "Kubernetes" }, want: []string{`warning redis     REDIS_URL is not set, and this is Kubernetes, where there is often more than one instance; how many of this one, cannot be told from here\..* What to do: set REDIS_URL, or run one instance`},
		},
		"many instances, perhaps, elsewhere": {
			set: func(c *Config) { c.Platform = "Cloud Run" }, want: []string{`warning redis     REDIS_URL is not set, and this is Cloud Run`},
		},
		"http to the upstreams": {
			set:  func(c *Config) { c.SupabaseURL, c.SupabaseAuthURL = "http://supabase.example.com", c.Supabase.AuthURL },
			want: []string{`warning settings  SUPABASE_URL is http, and does not look like an address of your own network: anybody on the way can read the key`},
		},
		"http within a network": {set: func(c *Config) { c.SupabaseURL, c.SupabaseAuthURL = "http://kong:8000", c.Supabase.AuthURL }},
		"one key for two": {
			set: func(c *Config) { c.WebhookKey = "test-mailgun-key" }, want: []string{`warning settings  MAILGUN_WEBHOOK_SIGNING_KEY is the same as MAILGUN_API_KEY`},
		},
		"http": {
			set: func(c *Config) {
				c.Pages = pages(c.LinkMode, "http://app.example.com", "/reset-password", "http://localhost:3000", "http://192.0.2.1")
			},
			want: []string{
				`warning settings  http://app\.example\.com is http:`, `warning settings  http://192\.0\.2\.1 is http:`,
				`warning redirect  Supabase does not let links lead to http://app\.example\.com/reset-password, and leads to https://app\.example\.com instead`,
				`warning redirect  .*http://localhost:3000/reset-password`, `warning redirect  .*http://192\.0\.2\.1/reset-password`,
			},
		},
		"another sender": {
			set:  func(c *Config) { c.Mailgun.From.Address = "hello@example.org" },
			want: []string{`FAILED  settings  MAIL_FROM is at example\.org, and Mailgun sends and signs for mg\.example\.com: SPF and DKIM are not aligned`},
		},
		"another sender with a similar end": {
			set: func(c *Config) { c.Mailgun.From.Address = "hello@notexample.com" }, want: []string{`FAILED  settings  MAIL_FROM is at notexample\.com`},
		},
		"a sender at a public suffix": {
			set: func(c *Config) { c.Mailgun.From.Address = "hello@com" }, want: []string{`FAILED  settings  MAIL_FROM is at com`},
		},
		"a sender beside the domain": {set: func(c *Config) { c.Mailgun.From.Address = "hello@mail.example.com" }}, // with relaxed alignment this is fine for DMARC
		"the parent's sender":        {set: func(c *Config) { c.Mailgun.From.Address = "hello@Example.com" }},
		"sandbox": {
			set: func(c *Config) {
				c.Mailgun.Domain = "sandbox123.mailgun.org"
				c.Mailgun.From.Address = "no-reply@mg.example.com"
			},
			mailgun: resetdtest.Saying(200, `{"id":"<1@sandbox>","message":"Queued. Thank you."}`),
			want:    []string{`FAILED  settings  MAIL_FROM is at mg\.example\.com`, `warning settings  MAILGUN_DOMAIN is a sandbox domain`},
		},

		// Supabase: the key.
		"wrong key": {
			key:  jwt(`{"role":"service_role","ref":"other"}`),
			want: []string{`FAILED  supabase  the key is refused, twice \(status 403, bad_jwt\)\. What to do: give the service_role key or a secret key \(sb_secret_…\) of this project`},
		},
		"a role of no admin": {
			set: func(c *Config) { c.Supabase.Key = jwt(`{"role":"reporting","ref":"project"}`) }, key: "x",
			want: []string{`FAILED  supabase  the key is refused, twice \(status 403, bad_jwt\): it is a JWT with the role reporting\. What to do: give the service_role key`},
		},
		"a role that is not printed": {
			set: func(c *Config) { c.Supabase.Key = jwt(`{"role":"<script>"}`) }, key: "x",
			want: []string{`FAILED  supabase  .*: it is a JWT with the role \(not shown\)`},
		},
		"expired key": {
			set: func(c *Config) { c.Supabase.Key = jwt(`{"role":"service_role","exp":1600000000}`) }, key: "x",
			want: []string{`FAILED  supabase  .*: it has expired on 2020-09-13\. What to do: give`},
		},
		"JWT secret": {
			set: func(c *Config) { c.Supabase.Key = "super-secret-jwt-token-with-at-least-32-characters" }, key: "x",
			want: []string{`FAILED  supabase  .*: it is neither a JWT nor a secret key\. What to do: .*, not the JWT secret`},
		},
		"secret key":       {set: func(c *Config) { c.Supabase.Key = "sb_secret_abcdef" }},
		"wrong secret key": {set: func(c *Config) { c.Supabase.Key = "sb_secret_abcdef" }, key: "x", want: []string{`FAILED  supabase  the key is refused, twice \(status 403, bad_jwt\)\. What to do: give .*SERVICE_ROLE_KEY\)$`}},
		"secret key without a gateway": {
			set:      func(c *Config) { c.SupabaseAuthURL = c.Supabase.AuthURL; c.Supabase.Key = "sb_secret_abcdef" },
			supabase: on(generateLink, resetdtest.Saying(401, `{"code":401,"error_code":"no_authorization","msg":"x"}`)),
			want:     []string{`FAILED  supabase  .*\(status 401, no_authorization\)\. What to do: .*only the gateway knows secret keys`},
		},
		"refused once": {
			supabase: on(generateLink, resetdtest.Once(resetdtest.Saying(401, `{"message":"Invalid API key"}`))),
			want:     []string{`warning supabase  the key was refused, and accepted when asked again`},
		},
		"refused once, then failing": {
			supabase: func(next http.Handler) http.Handler {
				return on(generateLink, resetdtest.Once(resetdtest.Saying(401, `{}`)))(on(generateLink, resetdtest.Saying(500, `{"error_code":"unexpected_failure"}`))(next))
			},
			want: []string{`FAILED  supabase  an address without an account gets no clear answer: status 500, unexpected_failure`},
		},
		// Supabase, and not a look at the key, decides these.
		"another role that is accepted": {set: func(c *Config) { c.Supabase.Key = jwt(`{"role":"reporting"}`) }},
		"expired key that is accepted":  {set: func(c *Config) { c.Supabase.Key = jwt(`{"role":"service_role","exp":1600000000}`) }},
		"another role, and unreachable": {
			set:  func(c *Config) { c.Supabase.AuthURL = "http://" + closed; c.Supabase.Key = jwt(`{"role":"reporting"}`) },
			want: []string{`FAILED  supabase  Supabase Auth cannot be reached: connection refused`, `warning supabase  besides, the key looks wrong: it is a JWT with the role reporting`, `warning redirect  `},
		},
		"another project's key": {
			set: func(c *Config) {
				c.SupabaseURL, c.SupabaseAuthURL = "https://thisproject.supabase.co", c.Supabase.AuthURL
				c.Supabase.Key = jwt(`{"role":"service_role","ref":"otherproject"}`)
			}, key: "x",
			want: []string{`FAILED  supabase  .*: it belongs to the project otherproject, and SUPABASE_URL to thisproject\. What to do: give`},
		},

		"another project's key, that is accepted": {
			set: func(c *Config) {
				c.SupabaseURL, c.SupabaseAuthURL = "https://thisproject.supabase.co", c.Supabase.AuthURL
				c.Supabase.Key = jwt(`{"role":"service_role","ref":"otherproject"}`)
			},
			want: []string{`warning supabase  the key is accepted, though it belongs to the project otherproject, and SUPABASE_URL to thisproject\. What to do: give`},
		},

		// Supabase: the verdict.
		"wrong address": {
			set: func(c *Config) { c.Supabase.AuthURL = c.SupabaseURL + "/nowhere" },
			want: []string{
				`FAILED  supabase  an address without an account gets no clear answer: status 404, no error_code\. What to do: check that SUPABASE_URL is .*; that a proxy in front passes`,
				`warning redirect  whether Supabase lets links lead to https://app\.example\.com/reset-password, and to the origins after it, cannot be told: status 404, no redirect`,
			},
		},
		"a proxy rewrites the body": {
			supabase: rewriting(true),
			want:     []string{`FAILED  supabase  an address without an account gets no clear answer: Supabase Auth's answer was rewritten on its way: status 404, no error_code\. What to do: let the proxy`},
		},
		"a proxy rewrites the answer": {
			supabase: rewriting(false),
			want:     []string{`FAILED  supabase  .*: status 404, no error_code\. What to do: .*that a proxy in front passes Supabase's error answers on as they are`},
		},
		"404 of another kind": {
			supabase: on(generateLink, resetdtest.Saying(404, `{"code":404,"error_code":"no_such_thing"}`)),
			want:     []string{`FAILED  supabase  .*: status 404, no_such_thing`},
		},
		"bad request": {
			supabase: on(generateLink, resetdtest.Saying(400, `{"code":400,"error_code":"bad_json"}`)),
			want:     []string{`FAILED  supabase  .*: status 400, bad_json\. What to do: every address would be answered so`},
		},
		"every address is invalid": { // a delivery would take this for an unknown address
			supabase: on(generateLink, resetdtest.Saying(400, `{"code":400,"error_code":"validation_failed"}`, "X-Sb-Error-Code", "validation_failed")),
			want:     []string{`FAILED  supabase  .*: status 400, validation_failed\. What to do: every address`},
		},
		"plain to TLS": { // as nginx and Go's server answer
			supabase: resetdtest.Saying(400, "Client sent an HTTP request to an HTTPS server.\n", "Content-Type", "text/plain"),
			want:     []string{`FAILED  supabase  .*: status 400, no error_code\. What to do: .*https://PROJECT`, `warning redirect  .*status 400, no redirect`},
		},
		"redirected": {
			supabase: resetdtest.Saying(308, "", "Location", "https://app.example.com/"),
			want:     []string{`FAILED  supabase  .*: status 308, no error_code\. What to do: give the address that it redirects to`, `warning redirect  .*status 308`},
		},
		"limited, until later": {
			supabase: resetdtest.Saying(429, `{"code":429,"error_code":"over_request_rate_limit"}`, "Retry-After", "7"),
			want:     []string{`FAILED  supabase  an address without an account gets no clear answer: status 429.*\. What to do: wait`, `warning redirect  .*status 429.*\. What to do: try again in five minutes`},
		},
		"limited": {
			supabase: resetdtest.Saying(429, `{"code":429,"error_code":"over_request_rate_limit"}`),
			want:     []string{`FAILED  supabase  .*: status 429, over_request_rate_limit\. What to do: wait`, `warning redirect  .*status 429, no redirect\. What to do: try again in five minutes`},
		},
		"failing": {
			supabase: on(generateLink, resetdtest.Saying(500, `{"code":500,"error_code":"unexpected_failure"}`)),
			want:     []string{`FAILED  supabase  .*: status 500, unexpected_failure\. What to do: see whether the project is paused`},
		},
		"paused": {
			supabase: resetdtest.Saying(540, `{"message":"project paused"}`),
			want:     []string{`FAILED  supabase  .*: status 540, no error_code\. What to do: see whether the project is paused \(540\)`, `warning redirect  .*status 540`},
		},
		"a link for an unknown address": {
			supabase: on(generateLink, resetdtest.Saying(200, linkForAll)),
			want:     []string{`FAILED  supabase  .*: a link for an address without an account\. What to do: something else answers there`},
		},
		"a page": {
			supabase: resetdtest.Saying(200, "<html>"),
			want:     []string{`FAILED  supabase  .*: the answer is none of Supabase Auth's: status 200 with no JSON of the expected form\. What to do: something else answers there`, `warning redirect  .*status 200, no redirect`},
		},
		"no such host": {
			set:  func(c *Config) { c.Supabase.AuthURL = "http://no-such-host.invalid" },
			want: []string{`FAILED  supabase  Supabase Auth cannot be reached: its host name has no address`, `warning redirect  `},
		},
		"connection refused": {
			set:  func(c *Config) { c.Supabase.AuthURL = "http://" + closed },
			want: []string{`FAILED  supabase  Supabase Auth cannot be reached: connection refused\. What to do: .*\(DNS, firewall, HTTPS_PROXY, certificates\)`, `warning redirect  .*cannot be told: connection refused`},
		},
		"no TLS": {
			set:  func(c *Config) { c.Supabase.AuthURL = "https://" + strings.TrimPrefix(plainServer(t), "http://") },
			want: []string{`FAILED  supabase  Supabase Auth cannot be reached: it does not speak TLS`, `warning redirect  `},
		},
		"unknown certificate": {
			set:  func(c *Config) { c.Supabase.AuthURL = tlsServer.URL },
			want: []string{`FAILED  supabase  Supabase Auth cannot be reached: its certificate is signed by an unknown authority`, `warning redirect  `},
		},
		"timeout": {
			set: func(c *Config) { c.Supabase.Timeout, c.Mailgun.Timeout = 200*time.Millisecond, 200*time.Millisecond }, supabase: resetdtest.Hanging,
			want: []string{`FAILED  supabase  Supabase Auth cannot be reached: no answer in time\. What`, `warning redirect  .*cannot be told: no answer in time\. What`},
		},

		// The redirect allow-list.
		"not on the list": {
			set: func(c *Config) {
				c.Pages = pages(c.LinkMode, site, "/reset-password", "https://*.preview.example.com", "", "https://*.other.example.net", "https://nowhere.example.net/")
			},
			want: []string{
				`warning redirect  Supabase does not let links lead to https://\*\.other\.example\.net/reset-password, and leads to https://app\.example\.com instead: links are not affected.* What to do: add https://\*\.other\.example\.net/reset-password to`,
				`warning redirect  Supabase does not let links lead to https://nowhere\.example\.net/reset-password`,
			},
		},
		"pages of all kinds": { // in the form for Supabase's list
			set: func(c *Config) {
				c.Pages = pages(c.LinkMode, site, "/?v=2#/reset", "https://pr-1.preview.example.com/konto/neu", "https://nowhere.example.net/#/neu", "https://*.other.example.net/a?b=c")
			},
			want: []string{
				`warning redirect  Supabase does not let links lead to https://nowhere\.example\.net/, and leads to https://app\.example\.com instead: .* What to do: add https://nowhere\.example\.net/ to the project's redirect URLs`,
				`warning redirect  .* What to do: add https://\*\.other\.example\.net/a\?b=c to the project's redirect URLs`,
			},
		},
		"an app": {
			set: func(c *Config) {
				c.LinkMode = delivery.ActionLink
				c.Pages = pages(c.LinkMode, site, "/reset-password", "io.example.app://reset")
			},
			want: []string{`FAILED  redirect  Supabase does not let links lead to io\.example\.app://reset, and leads to https://app\.example\.com instead: with LINK_MODE=action_link users would end up there\. What to do: add io\.example\.app://reset to the project's redirect URLs`},
		},
		"an app that is on the list": {set: func(c *Config) {
			c.LinkMode = delivery.ActionLink
			c.Pages = pages(c.LinkMode, site, "/reset-password", "io.example.listed://reset")
		}},
		"not on the list, action_link": {
			set: func(c *Config) {
				c.LinkMode = delivery.ActionLink
				c.Pages = pages(c.LinkMode, site, "/reset-password", "https://nowhere.example.net")
			},
			want: []string{`FAILED  redirect  Supabase does not let links lead to https://nowhere\.example\.net/reset-password, and leads to https://app\.example\.com instead: with LINK_MODE=action_link users would end up there`},
		},
		"the site is not on the list": {
			set: func(c *Config) {
				c.Pages = pages(c.LinkMode, "https://moved.example.com", "/reset-password", "https://*.preview.example.com")
			}, sendTo: knownEmail, mails: []string{knownEmail},
			want: []string{`warning redirect  .*https://moved\.example\.com/reset-password, and leads to https://app\.example\.com instead`},
		},
		"the site alone, action_link": {set: func(c *Config) {
			c.LinkMode = delivery.ActionLink
			c.Pages = pages(c.LinkMode, site, "/reset-password")
		}},
		"links are refused without a key": {
			set: func(c *Config) { c.LinkMode = delivery.ActionLink }, supabase: on("/verify", resetdtest.Saying(401, `{"message":"No API key found in request"}`)),
			want: []string{`FAILED  redirect  .*cannot be told: status 401, no redirect\. What to do: open /auth/v1/verify`},
		},
		"links are limited": {
			set: func(c *Config) {
				c.LinkMode = delivery.ActionLink
				c.Pages = pages(c.LinkMode, site, "/reset-password")
			}, supabase: on("/verify", resetdtest.Saying(429, `{}`)),
			want: []string{`warning redirect  whether Supabase lets links lead to https://app\.example\.com/reset-password cannot be told: status 429`},
		},
		"somebody else redirects": {
			supabase: on("/verify", resetdtest.Saying(303, ``, "Location", "https://login.example.com/?next=x")),
			want:     []string{`warning redirect  .*cannot be told: the answer is none of Supabase Auth's`},
		},
		"redirected without a place": {
			supabase: on("/verify", resetdtest.Saying(303, ``)), want: []string{`warning redirect  .*cannot be told: the answer is none of Supabase Auth's`},
		},

		// Mailgun.
		"wrong Mailgun key": {
			set:  func(c *Config) { c.Mailgun.Key = "key-of-somebody-else" },
			want: []string{`FAILED  mailgun   the key is refused \(status 401\)\. What to do: give a sending key of mg\.example\.com or the account's API key.*region$`},
		},
		"wrong domain": {
			set: func(c *Config) {
				c.Mailgun.Domain = "mx.example.com"
				c.Mailgun.From.Address = "no-reply@mg.example.com"
			},
			want: []string{`FAILED  mailgun   the domain is not known there \(status 404\)\. What to do: check that MAILGUN_DOMAIN=mx\.example\.com is spelt.*https://api\.mailgun\.net for domains in the US, https://api\.eu\.mailgun\.net for the EU$`},
		},
		"wrong Mailgun key, send": {
			set: func(c *Config) { c.Mailgun.Key = "key-of-somebody-else" }, sendTo: knownEmail,
			want: []string{`FAILED  mailgun   `, `FAILED  mail      nothing was sent to known@example\.com\. What to do: correct`},
		},
		"unverified domain":      mailgunAnswers(403, `FAILED  mailgun   the message is not accepted \(status 403\)\. What to do: see in Mailgun whether mg\.example\.com is verified and active.*whether no-reply@mg\.example\.com may be the sender`),
		"bad Mailgun request":    mailgunAnswers(400, `FAILED  mailgun   the message is not accepted \(status 400\)\. What to do: see in Mailgun whether`),
		"not paid":               mailgunAnswers(402, `FAILED  mailgun   .*402\)\. What to do: see to the Mailgun account's plan and payment`),
		"Mailgun's limit":        mailgunAnswers(429, `FAILED  mailgun   .*429\)\. What to do: wait`),
		"Mailgun fails":          mailgunAnswers(503, `FAILED  mailgun   .*503\)\. What to do: see status\.mailgun\.com`),
		"Mailgun redirects":      mailgunAnswers(301, `FAILED  mailgun   .*301\)\. What to do: give MAILGUN_API_BASE as https://`),
		"Mailgun says 418":       mailgunAnswers(418, `FAILED  mailgun   .*418\)\. What to do: see the domain's log`),
		"accepted without an id": mailgunAnswers(200, `FAILED  mailgun   no message can be handed over: `),
		"Mailgun is not there": {
			set:  func(c *Config) { c.Mailgun.Base = "http://" + closed },
			want: []string{`FAILED  mailgun   no message can be handed over: connection refused\. What to do: check that MAILGUN_API_BASE is https://api\.mailgun\.net or https://api\.eu\.mailgun\.net, and`},
		},
		"Mailgun hangs": {
			set: func(c *Config) { c.Supabase.Timeout, c.Mailgun.Timeout = 200*time.Millisecond, 200*time.Millisecond }, mailgun: resetdtest.Hanging,
			want: []string{`FAILED  mailgun   no message can be handed over: no answer in time\. What`},
		},

		// Redis, for faults that need no Redis. TestRedis has the rest.
		"Redis is not there": {
			set:  func(c *Config) { c.Redis = target(t, redisclient.Config{URL: "redis://:wrong-pass@" + closed}) },
			want: []string{`FAILED  redis     it cannot be reached \(connection refused\), and each instance would count limits for itself\. What to do: check host and port in REDIS_URL`},
		},
		"Redis's host is not there": {
			set: func(c *Config) {
				c.Redis = target(t, redisclient.Config{URL: "redis://:wrong-pass@no-such-host.invalid"})
			},
			want: []string{`FAILED  redis     it cannot be reached \(its host name has no address\)`},
		},

		// --send-to.
		"to an account stored in other letters": {sendTo: "upper@example.com", mails: []string{"UPPER@example.com"}},
		"to an account, action_link":            {set: func(c *Config) { c.LinkMode = delivery.ActionLink }, sendTo: knownEmail, mails: []string{knownEmail}},
		"to an odd address":                     {sendTo: "a..b@example.com", mails: []string{"a..b@example.com"}},
		"to an unknown address":                 {sendTo: "me@example.com", mails: []string{"me@example.com"}},
		"to a banned account": {
			sendTo: knownEmail, banned: []string{knownEmail},
			want: []string{`FAILED  mail      nothing was sent to known@example\.com: the account is banned, and no link opens it\. What to do: `},
		},
		"how far away cannot be told": {supabase: on("/health", resetdtest.Saying(404, ``))},
		"only this account fails": {
			sendTo:   knownEmail,
			supabase: failingFor(knownEmail),
			want:     []string{`FAILED  mail      nothing was sent to known@example\.com: Supabase, which answers for an unknown address, makes no link for it \(status 500, unexpected_failure\); an earlier link may be invalid now`},
		},
		"refused once, when it counts": {
			sendTo: knownEmail, mails: []string{knownEmail},
			supabase: func(next http.Handler) http.Handler {
				refuse := resetdtest.Once(resetdtest.Saying(401, `{}`))(next)
				return resetdtest.ForAddress(knownEmail, refuse)(next)
			},
		},
		"this mail alone is refused": {
			sendTo: knownEmail,
			mailgun: func(next http.Handler) http.Handler {
				var n atomic.Int64 // the first message is in test mode
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if n.Add(1) > 1 {
						next = resetdtest.Saying(400, `{"message":"to parameter is not a valid address"}`)(nil)
					}
					next.ServeHTTP(w, r)
				})
			},
			want: []string{`FAILED  mail      no mail to known@example\.com, though one in test mode is accepted: the message is not accepted \(status 400\); every earlier link of that account is invalid now\. What to do: `},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := tr.do(t)
			for about, pattern := range map[string]string{
				"supabase": `ok      supabase  the key is accepted, and an address without an account is answered as such \((\d+ ms|under 1 ms)\)$`,
				"mailgun":  `ok      mailgun   a message in test mode from `,
			} {
				if said := strings.Contains(strings.Join(tr.want, " "), " "+about+" ") || strings.Contains(d.out, " is not set. "); !said && !d.has(pattern) {
					t.Errorf("it does not say that %s is all right:\n%s", about, d.out)
				}
			}
		})
	}
}

func mailgunAnswers(status int, line string) trial {
	return trial{mailgun: resetdtest.Saying(status, `{"message":"x"}`, "Location", "https://x.example"), want: []string{line}}
}

func failingFor(email string) func(http.Handler) http.Handler {
	return resetdtest.ForAddress(email, resetdtest.Saying(500, `{"code":500,"error_code":"unexpected_failure"}`)(nil))
}

// closedAddress returns an address where nothing listens while the test runs: the test holds the port, and
// does not listen on it.
func closedAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	// A connected socket keeps the port from being reused.
	out, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close(); in.Close() })
	return listener.Addr().String()
}

func plainServer(t *testing.T) string {
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return server.URL
}

// TestLines: what a run without faults prints, from the first line to the last.
func TestLines(t *testing.T) {
	set := func(c *Config) {
		c.TrustsProxies, c.LinkExpiresIn = false, 90*time.Minute
		c.Pages = pages(c.LinkMode, site, "/reset-password", "https://*.preview.example.com", "https://app.example.com/", "https://*.preview.example.com") // each is checked once
	}
	d := trial{set: set, sendTo: "me@example.com", mails: []string{"me@example.com"}}.do(t)
	want := `^ok      settings  none is missing, and none is wrong in itself
note    settings  TRUSTED_PROXIES is empty: .*
note    settings  the mail says that a link works for 1h30m, .*
ok      supabase  the key is accepted, and .*
note    supabase  Supabase Auth is .* away, there and back
ok      redirect  Supabase lets links lead to https://app\.example\.com/reset-password
ok      redirect  Supabase lets links lead to https://\*\.preview\.example\.com/reset-password
ok      mailgun   a message in test mode from no-reply@mg\.example\.com is accepted .*
note    redis     REDIS_URL is not set: limits are per instance.*
ok      mail      sent to me@example\.com, which has no account: the link is made up and opens nothing
$`
	if !regexp.MustCompile(want).MatchString(d.out) || d.err != nil {
		t.Errorf("got:\n%s%v", d.out, d.err)
	}
	// Supabase gets one probe, a call for each of the two redirects, and that of --send-to; Mailgun gets one
	// message in test mode, and a message that it delivers.
	paths := map[string]int{}
	for _, call := range d.stack.Calls() {
		paths[call.Service+call.Path[strings.LastIndex(call.Path, "/"):]]++
	}
	if paths["supabase/generate_link"] != 2 || paths["supabase/verify"] != 2 || paths["mailgun/messages"] != 2 {
		t.Errorf("the calls: %v", paths)
	}
}

// TestNotesProbe: MAIL_PROBE=off is a note and no fault. The note says what it means for callers, and for how
// long a mail is tried then.
func TestNotesProbe(t *testing.T) {
	t.Parallel()
	const note = `note    settings  MAIL_PROBE=off: while Mailgun fails, callers are told that a mail is on its way, and it is tried for 15m$`
	if d := (trial{set: func(c *Config) { c.ProbesMail = false }}).do(t); !d.has(note) {
		t.Errorf("it does not say so:\n%s", d.out)
	}
	if d := (trial{}).do(t); d.has(`.*MAIL_PROBE`) {
		t.Errorf("it says so of the default:\n%s", d.out)
	}
}

// TestSends: the mail of --send-to is the mail that users get, with a link that works. The message in test
// mode is the same except for its link and its recipient.
func TestSends(t *testing.T) {
	for _, mode := range []delivery.LinkMode{delivery.TokenHash, delivery.ActionLink} {
		pattern := regexp.MustCompile(`https://app\.example\.com/reset-password\?token_hash=([0-9a-f]{56})&type=recovery`)
		if mode == delivery.ActionLink {
			pattern = regexp.MustCompile(`http://\S+/auth/v1/verify\?token=([0-9a-f]{56})&type=recovery&redirect_to=https://app\.example\.com/reset-password`)
		}
		for address, opens := range map[string]bool{knownEmail: true, "me@example.com": false} {
			d := trial{set: func(c *Config) { c.LinkMode = mode }, sendTo: address, mails: []string{address}}.do(t)
			mail, test := d.stack.Mails()[0], d.stack.TestMessages()[0]
			for _, text := range []string{mail.Text, test.Text} {
				if !pattern.MatchString(text) {
					t.Fatalf("%s, %s: no such link in:\n%s", mode, address, text)
				}
			}
			// The token differs, and the port of the stand-in for action_link.
			hidden := func(text string) string {
				return pattern.ReplaceAllString(text, "LINK")
			}
			if hidden(mail.Text) != hidden(test.Text) || mail.Subject != test.Subject {
				t.Errorf("%s, %s: the mail in test mode is another:\n%s\n%s", mode, address, mail.Text, test.Text)
			}
			token := pattern.FindStringSubmatch(mail.Text)[1]
			if got := verify(t, d.stack, token); got != opens {
				t.Errorf("%s, %s: the link opens the account: %v, want %v", mode, address, got, opens)
			}
			if said := d.has(`ok      mail      sent to the address stored with the account of known@example\.com, with a link that works; every earlier link of that account is invalid now`); said != opens {
				t.Errorf("%s, %s: it says:\n%s", mode, address, d.out)
			}
		}
	}
}

func verify(t *testing.T, stack *devstack.Stack, token string) bool {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, "/auth/v1/verify?type=recovery&token="+token, nil)
	recorder := httptest.NewRecorder()
	stack.Supabase().ServeHTTP(recorder, request)
	return strings.Contains(recorder.Header().Get("Location"), "access_token=")
}

// TestJSON: the output is one object that says what the lines say, as completely as possible also after errors.
func TestJSON(t *testing.T) {
	for name, tt := range map[string]struct {
		trial
		mistakes []string
		overall  string
		statuses map[string]string // the worst status of each subject
		advice   string
	}{
		"all right": {overall: "ok", statuses: map[string]string{"settings": "ok", "supabase": "ok", "redirect": "ok", "mailgun": "ok", "redis": "note", "mail": "skipped"}},
		"a warning": {
			trial: trial{set: func(c *Config) { c.RateLimit = rate("1-D") }}, overall: "warning",
			statuses: map[string]string{"settings": "warning", "mailgun": "ok"}, advice: "leave it at 5-M,30-H",
		},
		"a failure": {
			trial: trial{key: "another"}, overall: "failed",
			statuses: map[string]string{"settings": "ok", "supabase": "failed", "mailgun": "ok"}, advice: "give the service_role key or a secret key",
		},
		"nothing set": {
			trial: trial{set: func(c *Config) {
				c.Pages, c.Supabase.AuthURL, c.Mailgun.Key, c.Missing = nil, "", "", []Missing{{"SITE_URL", "the app's origin"}}
			}},
			overall:  "failed",
			statuses: map[string]string{"settings": "failed", "supabase": "skipped", "redirect": "skipped", "mailgun": "skipped"}, advice: "set it (",
		},
		"a mistake": {
			mistakes: []string{"SITE_URL: has no scheme"}, overall: "failed",
			statuses: map[string]string{"settings": "failed"}, advice: "correct it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out string
			if tt.mistakes != nil {
				var written bytes.Buffer
				if err := WriteMistakes(tt.mistakes, "1.2.3", &written); err != nil {
					t.Fatal(err)
				}
				out = written.String()
			} else {
				tt.format = Format{JSON: true, Version: "1.2.3"}
				d := tt.do(t)
				if out = d.out; (d.err != nil) != (tt.overall == "failed") {
					t.Errorf("its error is %v", d.err)
				}
			}
			var said struct {
				Status, Version string
				Checks          []struct{ Name, Status, Message, Advice string }
			}
			decoder := json.NewDecoder(strings.NewReader(out))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&said); err != nil || decoder.More() {
				t.Fatalf("%v: %s", err, out)
			}
			if said.Status != tt.overall || said.Version != "1.2.3" {
				t.Errorf("status %q, version %q in:\n%s", said.Status, said.Version, out)
			}
			order := []string{"skipped", "note", "ok", "warning", "failed"}
			worst, advised := map[string]string{}, false
			for _, check := range said.Checks {
				if slices.Index(order, check.Status) < 0 || check.Message == "" || (check.Advice == "") == (check.Status == "failed" || check.Status == "warning") {
					t.Errorf("%+v", check)
				}
				if slices.Index(order, check.Status) > slices.Index(order, worst[check.Name]) {
					worst[check.Name] = check.Status
				}
				advised = advised || strings.Contains(check.Advice, tt.advice)
			}
			for about, status := range tt.statuses {
				if worst[about] != status {
					t.Errorf("%s is %q, want %q, in:\n%s", about, worst[about], status, out)
				}
			}
			if tt.advice != "" && !advised {
				t.Errorf("no advice %q in:\n%s", tt.advice, out)
			}
		})
	}
}

// TestStopped: an interrupt ends the run with an error.
func TestStopped(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	tr := trial{
		supabase: func(http.Handler) http.Handler {
			return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { stop(); <-r.Context().Done() })
		},
		sendTo: knownEmail, format: Format{JSON: true},
	}
	if d := tr.within(ctx, t); !errors.Is(d.err, context.Canceled) {
		t.Errorf("it returns %v", d.err)
	}
}

// TestLanguage: the mail is in the requested language, or else in the default language.
func TestLanguage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ to, language, want string }{
		{to: knownEmail, want: "password"},
		{to: knownEmail, language: "fr", want: "mot de passe"},
		{to: "me@example.com", language: "zh-Hant", want: "密碼"},
	} {
		mails := trial{set: func(c *Config) { c.Language = tt.language }, sendTo: tt.to, mails: []string{tt.to}}.do(t).stack.Mails()
		if len(mails) != 1 || !strings.Contains(mails[0].Subject, tt.want) {
			t.Errorf("%+v: %d mails; %+v", tt, len(mails), mails)
		}
	}
}
