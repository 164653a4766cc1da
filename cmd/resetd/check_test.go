package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/devstack"
)

// jwt is a key with these claims. Nobody here looks at its signature.
func jwt(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("a signature of a real length 123"))
}

// trial is one run of `resetd check`, against stand-ins that have nothing wrong with them unless
// the trial says so.
type trial struct {
	env               map[string]string // on top of what is right; "" removes one
	key               string            // that Supabase accepts; empty: the one set
	supabase, mailgun func(http.Handler) http.Handler
	args, banned      []string
	run               func(t *testing.T, args, environ []string) (out, errors string, status int) // nil: in process

	want   []string // of the lines that are neither ok nor note, in order: patterns from the line's beginning
	status int
	mails  []string // whom a mail was delivered to
}

// did is what came of one.
type did struct {
	out, err string
	status   int
	stack    *devstack.Stack
}

// has says whether a line of standard output begins so.
func (d did) has(pattern string) bool {
	return regexp.MustCompile(`(?m)^` + pattern).MatchString(d.out)
}

// do runs the trial, and checks what must hold of each: the lines and the status, that no secret
// is printed and nobody is mailed who was not named, and nobody's link made who may have one.
func (tr trial) do(t *testing.T) did {
	t.Helper()
	key := jwt(`{"role":"service_role","ref":"project"}`)
	if tr.key == "" {
		tr.key = key
		if set := tr.env["SUPABASE_SERVICE_ROLE_KEY"]; set != "" {
			tr.key = set
		}
	}
	stack := devstack.New(devstack.Config{
		Accounts: []string{knownEmail, "UPPER@example.com"}, Banned: tr.banned, SiteURL: site, RedirectAllowList: []string{"https://*.preview.example.com/**", "io.example.listed://reset"},
		ServiceRoleKey: tr.key, MailgunKey: "test-mailgun-key", MailgunDomain: "mg.example.com",
		SupabaseMiddleware: tr.supabase, MailgunMiddleware: tr.mailgun,
	})
	t.Cleanup(stack.Close)
	supabase, mailgun := httptest.NewServer(stack.Supabase()), httptest.NewServer(stack.Mailgun())
	t.Cleanup(func() {
		supabase.CloseClientConnections()
		mailgun.CloseClientConnections()
		supabase.Close()
		mailgun.Close()
	})
	env := map[string]string{
		"SUPABASE_URL": supabase.URL, "SUPABASE_SERVICE_ROLE_KEY": key,
		"MAILGUN_API_BASE": mailgun.URL, "MAILGUN_API_KEY": "test-mailgun-key", "MAILGUN_DOMAIN": "mg.example.com",
		"SITE_URL": site, "CALLBACK_ORIGINS": "https://*.preview.example.com", "TRUSTED_PROXIES": "10.0.0.0/8",
	}
	for name, value := range tr.env {
		value = strings.ReplaceAll(value, "$SUPABASE", supabase.URL)
		env[name] = strings.ReplaceAll(value, "$MAILGUN", mailgun.URL)
	}
	var environ []string
	for name, value := range env {
		if value != "" {
			environ = append(environ, name+"="+value)
		}
	}
	if tr.run == nil {
		tr.run = inProcess
	}
	d := did{stack: stack}
	d.out, d.err, d.status = tr.run(t, append([]string{"check"}, tr.args...), environ)

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
	if !matches || d.status != tr.status {
		t.Errorf("status %d, want %d, and lines like\n  %s\ngot:\n%s%s", d.status, tr.status, strings.Join(tr.want, "\n  "), d.out, d.err)
	}
	for _, line := range wrong {
		t.Log(line)
	}

	// What looks like a key or a token, and the keys themselves.
	all := d.out + d.err
	secrets := []string{env["SUPABASE_SERVICE_ROLE_KEY"], env["MAILGUN_API_KEY"], "pass-of-the-redis-server", "wrong-pass"}
	for _, secret := range secrets {
		if secret != "" && strings.Contains(all, secret) {
			t.Errorf("it prints the secret %q:\n%s", secret, all)
		}
	}
	if found := regexp.MustCompile(`[0-9a-f]{40}|eyJ|\.invalid\b|token_hash=[^t ]`).FindString(strings.ReplaceAll(all, "no-such-host.invalid", "")); found != "" {
		t.Errorf("it prints %q:\n%s", found, all)
	}
	for _, address := range regexp.MustCompile(`[^\s("]+@\S*\w`).FindAllString(all, -1) {
		if !strings.Contains(strings.Join(append(tr.args, env["MAIL_FROM"], "no-reply@mg.example.com redis://user:password@host redis://user:password@host:6379/0 redis://user:password@host:6379?addr=host:6379 me@example.com"), " "), address) {
			t.Errorf("it prints the address %q:\n%s", address, all)
		}
	}
	// Nobody is mailed, or loses a link, who was not named.
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
		if call.Email != "" && !strings.HasSuffix(call.Email, ".invalid") && !slices.Contains(tr.args, call.Email) {
			t.Errorf("a link was asked for, for %q", call.Email)
		}
		if strings.HasSuffix(call.Path, "/verify") && (call.Header.Get("Apikey") != "" || call.Header.Get("Authorization") != "") {
			t.Error("a link was followed with a key, which no browser has")
		}
	}
	return d
}

func inProcess(t *testing.T, args, environ []string) (out, errors string, status int) {
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status = exitStatus(run(ctx, args, environ, &stdout, &stderr), &stderr)
	return stdout.String(), stderr.String(), status
}

// saying is a fault: everything, or what is asked of one path, is answered so.
func saying(status int, body string, header ...string) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
}

// on limits a fault to the paths that end so.
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

// once limits a fault to the first request.
func once(fault func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var asked atomic.Bool
		faulty := fault(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.CompareAndSwap(false, true) {
				faulty.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// hanging never answers.
func hanging(http.Handler) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

// rewriting puts another body into every answer that is an error, as proxies do that have error
// pages of their own, and keeps the headers if told so.
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

// TestCheck: each fault has its line, and nothing else is found wrong.
func TestCheck(t *testing.T) {
	closed := closedAddress(t)
	tlsServer := httptest.NewUnstartedServer(http.NotFoundHandler())
	tlsServer.Config.ErrorLog = log.New(io.Discard, "", 0)
	tlsServer.StartTLS()
	t.Cleanup(tlsServer.Close) // after the parallel trials
	for name, tr := range map[string]trial{
		"all right":       {},
		"all right, send": {args: []string{"--send-to", knownEmail}, mails: []string{knownEmail}},

		// Settings.
		"nothing set": {
			env: map[string]string{"SUPABASE_URL": "", "SUPABASE_SERVICE_ROLE_KEY": "", "MAILGUN_API_KEY": "", "MAILGUN_DOMAIN": "", "SITE_URL": "", "CALLBACK_ORIGINS": ""},
			want: []string{
				`FAILED  settings  SUPABASE_URL is not set\. What to do: set it \(the project, https://PROJECT\.supabase\.co\)`,
				`FAILED  settings  SUPABASE_SERVICE_ROLE_KEY is not set`, `FAILED  settings  MAILGUN_API_KEY is not set`,
				`FAILED  settings  MAILGUN_DOMAIN is not set`, `FAILED  settings  SITE_URL is not set`,
			}, status: 1,
		},
		"no SITE_URL": {
			env:  map[string]string{"SITE_URL": "", "CALLBACK_ORIGINS": ""},
			want: []string{`FAILED  settings  SITE_URL is not set`}, status: 1,
		},
		"nothing set, send": {
			env: map[string]string{"MAILGUN_API_KEY": ""}, args: []string{"--send-to", knownEmail},
			want:   []string{`FAILED  settings  MAILGUN_API_KEY`, `FAILED  mail      nothing was sent to known@example\.com\. What to do: correct what has failed above first`},
			status: 1,
		},
		"risky": {
			env:  map[string]string{"RECIPIENT_LIMIT": "2-M"},
			want: []string{`warning settings  RECIPIENT_LIMIT lets anybody send 120 mails an hour`},
		},
		"RECIPIENT_LIMIT, wide minutes and narrow days": {env: map[string]string{"RECIPIENT_LIMIT": "5-M,20-D"}},
		"limits that lock people out": {
			env: map[string]string{"RATE_LIMIT": "1-H,9-D", "RECIPIENT_LIMIT": "1-D"},
			want: []string{
				`warning settings  RECIPIENT_LIMIT lets an address be asked for once a day: anybody can use that up`,
				`warning settings  RATE_LIMIT lets a client ask once in one hour`, `warning settings  RATE_LIMIT lets a client ask 9 times in one day`,
			},
		},
		"a limit of one request a day": {
			env: map[string]string{"RATE_LIMIT": "1-D"}, want: []string{`warning settings  RATE_LIMIT lets a client ask once in one day, mistyped addresses counted in, and offices .*: people are locked out\. What to do: leave it at 5-M,30-H`},
		},
		"a limit that limits nobody": {
			env: map[string]string{"RATE_LIMIT": "1-S"}, want: []string{`warning settings  RATE_LIMIT lets one client ask 3600 times an hour, .*: it limits nobody`},
		},
		"limits just beside":        {env: map[string]string{"RATE_LIMIT": "3-H,10-D", "RECIPIENT_LIMIT": "1-H,3-D"}},
		"a limit as wide as can be": {env: map[string]string{"RATE_LIMIT": "100-S,1000-H"}},
		"a link that works for long": {
			env: map[string]string{"LINK_EXPIRES_IN": "24h1m"}, want: []string{`warning settings  LINK_EXPIRES_IN is 24h1m: .* What to do: an hour, in Supabase too`},
		},
		"a link that works for a day": {env: map[string]string{"LINK_EXPIRES_IN": "24h"}},
		"SITE_URL on this machine": {
			env:  map[string]string{"SITE_URL": "http://localhost:3000"},
			want: []string{`warning settings  SITE_URL is http://localhost:3000: links lead to the machine on which the mail is opened\. What to do: give the address of the app`, `warning redirect  `},
		},
		"many instances, perhaps": {
			env: map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, want: []string{`warning redis     REDIS_URL is not set, and this is Kubernetes, where there is often more than one instance; how many of this one, cannot be told from here\..* What to do: set REDIS_URL, or run one instance`},
		},
		"many instances, perhaps, elsewhere": {
			env: map[string]string{"K_SERVICE": "resetd"}, want: []string{`warning redis     REDIS_URL is not set, and this is Cloud Run`},
		},
		"http to the upstreams": {
			env:  map[string]string{"SUPABASE_URL": "http://supabase.example.com", "SUPABASE_AUTH_URL": "$SUPABASE/auth/v1"},
			want: []string{`warning settings  SUPABASE_URL is http, and does not look like an address of your own network: anybody on the way can read the key`},
		},
		"http within a network": {env: map[string]string{"SUPABASE_URL": "http://kong:8000", "SUPABASE_AUTH_URL": "$SUPABASE/auth/v1"}},
		"one key for two": {
			env: map[string]string{"MAILGUN_WEBHOOK_SIGNING_KEY": "test-mailgun-key"}, want: []string{`warning settings  MAILGUN_WEBHOOK_SIGNING_KEY is the same as MAILGUN_API_KEY`},
		},
		"http": {
			env: map[string]string{"SITE_URL": "http://app.example.com", "CALLBACK_ORIGINS": "http://localhost:3000,\nhttp://192.0.2.1"},
			want: []string{
				`warning settings  http://app\.example\.com is http:`, `warning settings  http://192\.0\.2\.1 is http:`,
				`warning redirect  Supabase does not let links lead to http://app\.example\.com/reset-password, and leads to https://app\.example\.com instead`,
				`warning redirect  .*http://localhost:3000/reset-password`, `warning redirect  .*http://192\.0\.2\.1/reset-password`,
			},
		},
		"another sender": {
			env: map[string]string{"MAIL_FROM": "Example <hello@example.org>"}, status: 1,
			want: []string{`FAILED  settings  MAIL_FROM is at example\.org, and Mailgun sends and signs for mg\.example\.com: SPF and DKIM are not aligned`},
		},
		"another sender, that ends alike": {
			env: map[string]string{"MAIL_FROM": "hello@notexample.com"}, status: 1, want: []string{`FAILED  settings  MAIL_FROM is at notexample\.com`},
		},
		"a sender at what is nobody's": {
			env: map[string]string{"MAIL_FROM": "hello@com"}, status: 1, want: []string{`FAILED  settings  MAIL_FROM is at com`},
		},
		"a sender beside the domain": {env: map[string]string{"MAIL_FROM": "hello@mail.example.com"}}, // DMARC is relaxed about it
		"the parent's sender":        {env: map[string]string{"MAIL_FROM": "Example <hello@Example.com>"}},
		"sandbox": {
			env: map[string]string{"MAILGUN_DOMAIN": "sandbox123.mailgun.org", "MAIL_FROM": "no-reply@mg.example.com"}, status: 1,
			mailgun: saying(200, `{"id":"<1@sandbox>","message":"Queued. Thank you."}`),
			want:    []string{`FAILED  settings  MAIL_FROM is at mg\.example\.com`, `warning settings  MAILGUN_DOMAIN is a sandbox domain`},
		},

		// Supabase: the key.
		"wrong key": {
			key: jwt(`{"role":"service_role","ref":"other"}`), status: 1,
			want: []string{`FAILED  supabase  the key is refused, twice \(status 403, bad_jwt\)\. What to do: give the service_role key or a secret key \(sb_secret_…\) of this very project`},
		},
		"a role of no admin": {
			env: map[string]string{"SUPABASE_SERVICE_ROLE_KEY": jwt(`{"role":"reporting","ref":"project"}`)}, key: "x", status: 1,
			want: []string{`FAILED  supabase  the key is refused, twice \(status 403, bad_jwt\): it is a JWT with the role reporting\. What to do: give the service_role key`},
		},
		"a role that is not printed": {
			env: map[string]string{"SUPABASE_SERVICE_ROLE_KEY": jwt(`{"role":"<script>"}`)}, key: "x", status: 1,
			want: []string{`FAILED  supabase  .*: it is a JWT with the role \(not shown\)`},
		},
		"expired key": {
			env: map[string]string{"SUPABASE_SERVICE_ROLE_KEY": jwt(`{"role":"service_role","exp":1600000000}`)}, key: "x", status: 1,
			want: []string{`FAILED  supabase  .*: it has expired on 2020-09-13\. What to do: give`},
		},
		"JWT secret": {
			env: map[string]string{"SUPABASE_SERVICE_ROLE_KEY": "super-secret-jwt-token-with-at-least-32-characters"}, key: "x", status: 1,
			want: []string{`FAILED  supabase  .*: it is neither a JWT nor a secret key\. What to do: .*, not the JWT secret`},
		},
		"secret key":       {env: map[string]string{"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_abcdef"}},
		"wrong secret key": {env: map[string]string{"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_abcdef"}, key: "x", want: []string{`FAILED  supabase  the key is refused, twice \(status 403, bad_jwt\)\. What to do: give .*SERVICE_ROLE_KEY\)$`}, status: 1},
		"secret key without a gateway": {
			env:      map[string]string{"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_abcdef", "SUPABASE_AUTH_URL": "$SUPABASE/auth/v1"},
			supabase: on(generateLink, saying(401, `{"code":401,"error_code":"no_authorization","msg":"x"}`)),
			want:     []string{`FAILED  supabase  .*\(status 401, no_authorization\)\. What to do: .*only the gateway knows secret keys`}, status: 1,
		},
		"refused once": {
			supabase: on(generateLink, once(saying(401, `{"message":"Invalid API key"}`))),
			want:     []string{`warning supabase  the key was refused, and accepted when asked again`},
		},
		"refused once, then failing": {
			supabase: func(next http.Handler) http.Handler {
				return on(generateLink, once(saying(401, `{}`)))(on(generateLink, saying(500, `{"error_code":"unexpected_failure"}`))(next))
			},
			want: []string{`FAILED  supabase  an address without an account gets no clear answer: status 500, unexpected_failure`}, status: 1,
		},
		// Not the key that was looked at, but what Supabase says of it.
		"another role that is accepted": {env: map[string]string{"SUPABASE_SERVICE_ROLE_KEY": jwt(`{"role":"reporting"}`)}},
		"expired key that is accepted":  {env: map[string]string{"SUPABASE_SERVICE_ROLE_KEY": jwt(`{"role":"service_role","exp":1600000000}`)}},
		"another role, and unreachable": {
			env:    map[string]string{"SUPABASE_SERVICE_ROLE_KEY": jwt(`{"role":"reporting"}`), "SUPABASE_URL": "http://" + closed},
			want:   []string{`FAILED  supabase  Supabase Auth cannot be reached: connection refused`, `warning supabase  besides, the key looks wrong: it is a JWT with the role reporting`, `warning redirect  `},
			status: 1,
		},
		"another project's key": {
			env: map[string]string{
				"SUPABASE_URL": "https://thisproject.supabase.co", "SUPABASE_AUTH_URL": "$SUPABASE/auth/v1",
				"SUPABASE_SERVICE_ROLE_KEY": jwt(`{"role":"service_role","ref":"otherproject"}`),
			}, key: "x", status: 1,
			want: []string{`FAILED  supabase  .*: it belongs to the project otherproject, and SUPABASE_URL to thisproject\. What to do: give`},
		},

		"another project's key, that is accepted": {
			env: map[string]string{
				"SUPABASE_URL": "https://thisproject.supabase.co", "SUPABASE_AUTH_URL": "$SUPABASE/auth/v1",
				"SUPABASE_SERVICE_ROLE_KEY": jwt(`{"role":"service_role","ref":"otherproject"}`),
			},
			want: []string{`warning supabase  the key is accepted, though it belongs to the project otherproject, and SUPABASE_URL to thisproject\. What to do: give`},
		},

		// Supabase: the verdict.
		"wrong address": {
			env: map[string]string{"SUPABASE_AUTH_URL": "$SUPABASE/nowhere"}, status: 1,
			want: []string{
				`FAILED  supabase  an address without an account gets no clear answer: status 404, no error_code\. What to do: check that SUPABASE_URL is .*; that a proxy in front passes`,
				`warning redirect  whether Supabase lets links lead to https://app\.example\.com/reset-password, and to the origins after it, cannot be told: status 404, no redirect`,
			},
		},
		"a proxy rewrites the body": {
			supabase: rewriting(true), status: 1,
			want: []string{`FAILED  supabase  an address without an account gets no clear answer: Supabase Auth's answer was rewritten on its way: status 404, no error_code\. What to do: let the proxy`},
		},
		"a proxy rewrites the answer": {
			supabase: rewriting(false), status: 1,
			want: []string{`FAILED  supabase  .*: status 404, no error_code\. What to do: .*that a proxy in front passes Supabase's error answers on as they are`},
		},
		"404 of another kind": {
			supabase: on(generateLink, saying(404, `{"code":404,"error_code":"no_such_thing"}`)), status: 1,
			want: []string{`FAILED  supabase  .*: status 404, no_such_thing`},
		},
		"bad request": {
			supabase: on(generateLink, saying(400, `{"code":400,"error_code":"bad_json"}`)), status: 1,
			want: []string{`FAILED  supabase  .*: status 400, bad_json\. What to do: every address would be answered so`},
		},
		"every address is invalid": { // which a delivery takes for the answer about an unknown address
			supabase: on(generateLink, saying(400, `{"code":400,"error_code":"validation_failed"}`, "X-Sb-Error-Code", "validation_failed")), status: 1,
			want: []string{`FAILED  supabase  .*: status 400, validation_failed\. What to do: every address`},
		},
		"plain to TLS": { // as nginx and Go's own server have it
			supabase: saying(400, "Client sent an HTTP request to an HTTPS server.\n", "Content-Type", "text/plain"), status: 1,
			want: []string{`FAILED  supabase  .*: status 400, no error_code\. What to do: .*https://PROJECT`, `warning redirect  .*status 400, no redirect`},
		},
		"redirected": {
			supabase: saying(308, "", "Location", "https://app.example.com/"), status: 1,
			want: []string{`FAILED  supabase  .*: status 308, no error_code\. What to do: give the address that it redirects to`, `warning redirect  .*status 308`},
		},
		"limited, until later": {
			supabase: saying(429, `{"code":429,"error_code":"over_request_rate_limit"}`, "Retry-After", "7"), status: 1,
			want: []string{`FAILED  supabase  an address without an account gets no clear answer: status 429.*\. What to do: wait`, `warning redirect  .*status 429.*\. What to do: try again in five minutes`},
		},
		"limited": {
			supabase: saying(429, `{"code":429,"error_code":"over_request_rate_limit"}`), status: 1,
			want: []string{`FAILED  supabase  .*: status 429, over_request_rate_limit\. What to do: wait`, `warning redirect  .*status 429, no redirect\. What to do: try again in five minutes`},
		},
		"failing": {
			supabase: on(generateLink, saying(500, `{"code":500,"error_code":"unexpected_failure"}`)), status: 1,
			want: []string{`FAILED  supabase  .*: status 500, unexpected_failure\. What to do: see whether the project is paused`},
		},
		"paused": {
			supabase: saying(540, `{"message":"project paused"}`), status: 1,
			want: []string{`FAILED  supabase  .*: status 540, no error_code\. What to do: see whether the project is paused \(540\)`, `warning redirect  .*status 540`},
		},
		"a link for nobody": {
			supabase: on(generateLink, saying(200, linkForAll)), status: 1,
			want: []string{`FAILED  supabase  .*: a link for an address without an account\. What to do: something else answers there`},
		},
		"a page": {
			supabase: saying(200, "<html>"), status: 1,
			want: []string{`FAILED  supabase  .*: the answer is none of Supabase Auth's: status 200 with no JSON of the expected form\. What to do: something else answers there`, `warning redirect  .*status 200, no redirect`},
		},
		"no such host": {
			env: map[string]string{"SUPABASE_URL": "http://no-such-host.invalid"}, status: 1,
			want: []string{`FAILED  supabase  Supabase Auth cannot be reached: its host name has no address`, `warning redirect  `},
		},
		"connection refused": {
			env: map[string]string{"SUPABASE_URL": "http://" + closed}, status: 1,
			want: []string{`FAILED  supabase  Supabase Auth cannot be reached: connection refused\. What to do: .*\(DNS, firewall, HTTPS_PROXY, certificates\)`, `warning redirect  .*cannot be told: connection refused`},
		},
		"no TLS": {
			env: map[string]string{"SUPABASE_AUTH_URL": "https://" + strings.TrimPrefix(plainServer(t), "http://")}, status: 1,
			want: []string{`FAILED  supabase  Supabase Auth cannot be reached: it does not speak TLS`, `warning redirect  `},
		},
		"unknown certificate": {
			env: map[string]string{"SUPABASE_URL": tlsServer.URL}, status: 1,
			want: []string{`FAILED  supabase  Supabase Auth cannot be reached: its certificate is signed by an unknown authority`, `warning redirect  `},
		},
		"timeout": {
			env: map[string]string{"UPSTREAM_TIMEOUT": "200ms"}, supabase: hanging, status: 1,
			want: []string{`FAILED  supabase  Supabase Auth cannot be reached: no answer in time\. What`, `warning redirect  .*cannot be told: no answer in time\. What`},
		},

		// The redirect allow-list.
		"not on the list": {
			env: map[string]string{"CALLBACK_ORIGINS": "https://*.preview.example.com,,https://*.other.example.net, https://nowhere.example.net/"},
			want: []string{
				`warning redirect  Supabase does not let links lead to https://\*\.other\.example\.net/reset-password, and leads to https://app\.example\.com instead: links are not affected.* What to do: add https://\*\.other\.example\.net/reset-password to`,
				`warning redirect  Supabase does not let links lead to https://nowhere\.example\.net/reset-password`,
			},
		},
		"pages of all kinds": { // as they belong on Supabase's list
			env: map[string]string{"RESET_PATH": "/?v=2#/reset", "CALLBACK_ORIGINS": "https://pr-1.preview.example.com/konto/neu, https://nowhere.example.net/#/neu, https://*.other.example.net/a?b=c"},
			want: []string{
				`warning redirect  Supabase does not let links lead to https://nowhere\.example\.net/, and leads to https://app\.example\.com instead: .* What to do: add https://nowhere\.example\.net/ to the project's redirect URLs`,
				`warning redirect  .* What to do: add https://\*\.other\.example\.net/a\?b=c to the project's redirect URLs`,
			},
		},
		"an app": {
			env: map[string]string{"LINK_MODE": "action_link", "CALLBACK_ORIGINS": "io.example.app://reset"}, status: 1,
			want: []string{`FAILED  redirect  Supabase does not let links lead to io\.example\.app://reset, and leads to https://app\.example\.com instead: with LINK_MODE=action_link users would end up there\. What to do: add io\.example\.app://reset to the project's redirect URLs`},
		},
		"an app that is on the list": {env: map[string]string{"LINK_MODE": "action_link", "CALLBACK_ORIGINS": "io.example.listed://reset"}},
		"not on the list, action_link": {
			env: map[string]string{"CALLBACK_ORIGINS": "https://nowhere.example.net", "LINK_MODE": "action_link"}, status: 1,
			want: []string{`FAILED  redirect  Supabase does not let links lead to https://nowhere\.example\.net/reset-password, and leads to https://app\.example\.com instead: with LINK_MODE=action_link users would end up there`},
		},
		"the site is not on the list": {
			env: map[string]string{"SITE_URL": "https://moved.example.com"}, args: []string{"--send-to", knownEmail}, mails: []string{knownEmail},
			want: []string{`warning redirect  .*https://moved\.example\.com/reset-password, and leads to https://app\.example\.com instead`},
		},
		"the site alone, action_link": {env: map[string]string{"CALLBACK_ORIGINS": "", "LINK_MODE": "action_link"}},
		"links are refused without a key": {
			env: map[string]string{"LINK_MODE": "action_link"}, supabase: on("/verify", saying(401, `{"message":"No API key found in request"}`)), status: 1,
			want: []string{`FAILED  redirect  .*cannot be told: status 401, no redirect\. What to do: open /auth/v1/verify`},
		},
		"links are limited": {
			env: map[string]string{"LINK_MODE": "action_link", "CALLBACK_ORIGINS": ""}, supabase: on("/verify", saying(429, `{}`)),
			want: []string{`warning redirect  whether Supabase lets links lead to https://app\.example\.com/reset-password cannot be told: status 429`},
		},
		"somebody else redirects": {
			supabase: on("/verify", saying(303, ``, "Location", "https://login.example.com/?next=x")),
			want:     []string{`warning redirect  .*cannot be told: the answer is none of Supabase Auth's`},
		},
		"redirected without a place": {
			supabase: on("/verify", saying(303, ``)), want: []string{`warning redirect  .*cannot be told: the answer is none of Supabase Auth's`},
		},

		// Mailgun.
		"wrong Mailgun key": {
			env: map[string]string{"MAILGUN_API_KEY": "key-of-somebody-else"}, status: 1,
			want: []string{`FAILED  mailgun   the key is refused \(status 401\)\. What to do: give a sending key of mg\.example\.com or the account's API key.*region$`},
		},
		"wrong domain": {
			env: map[string]string{"MAILGUN_DOMAIN": "mx.example.com", "MAIL_FROM": "no-reply@mg.example.com"}, status: 1,
			want: []string{`FAILED  mailgun   the domain is not known there \(status 404\)\. What to do: check that MAILGUN_DOMAIN=mx\.example\.com is spelt.*https://api\.mailgun\.net for domains in the US, https://api\.eu\.mailgun\.net for the EU$`},
		},
		"wrong Mailgun key, send": {
			env: map[string]string{"MAILGUN_API_KEY": "key-of-somebody-else"}, args: []string{"--send-to", knownEmail}, status: 1,
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
			env: map[string]string{"MAILGUN_API_BASE": "http://" + closed}, status: 1,
			want: []string{`FAILED  mailgun   no message can be handed over: connection refused\. What to do: check that MAILGUN_API_BASE is https://api\.mailgun\.net or https://api\.eu\.mailgun\.net, and`},
		},
		"Mailgun hangs": {
			env: map[string]string{"UPSTREAM_TIMEOUT": "200ms"}, mailgun: hanging, status: 1,
			want: []string{`FAILED  mailgun   no message can be handed over: no answer in time\. What`},
		},

		// Redis, as far as it takes none. TestCheckRedis has the rest.
		"Redis is not there": {
			env: map[string]string{"REDIS_URL": "redis://:wrong-pass@" + closed}, status: 1,
			want: []string{`FAILED  redis     it cannot be reached \(connection refused\), and each instance would count limits for itself\. What to do: check host and port in REDIS_URL`},
		},
		"Redis's host is not there": {
			env: map[string]string{"REDIS_URL": "redis://:wrong-pass@no-such-host.invalid"}, status: 1,
			want: []string{`FAILED  redis     it cannot be reached \(its host name has no address\)`},
		},

		// --send-to.
		"to an account stored in other letters": {args: []string{"--send-to", "upper@example.com"}, mails: []string{"UPPER@example.com"}},
		"to an account, action_link":            {env: map[string]string{"LINK_MODE": "action_link"}, args: []string{"--send-to", knownEmail}, mails: []string{knownEmail}},
		"to an odd address":                     {args: []string{"--send-to", "a..b@example.com"}, mails: []string{"a..b@example.com"}},
		"to an unknown address":                 {args: []string{"--send-to", "me@example.com"}, mails: []string{"me@example.com"}},
		"to a banned account": {
			args: []string{"--send-to", knownEmail}, banned: []string{knownEmail}, status: 1,
			want: []string{`FAILED  mail      nothing was sent to known@example\.com: the account is banned, and no link opens it\. What to do: `},
		},
		"how far away cannot be told": {supabase: on("/health", saying(404, ``))},
		"only this account fails": {
			args:     []string{"--send-to", knownEmail},
			supabase: failingFor(knownEmail), status: 1,
			want: []string{`FAILED  mail      nothing was sent to known@example\.com: Supabase, which answers for an unknown address, makes no link for it \(status 500, unexpected_failure\); an earlier link may be invalid now`},
		},
		"refused once, when it counts": {
			args: []string{"--send-to", knownEmail}, mails: []string{knownEmail},
			supabase: func(next http.Handler) http.Handler {
				refuse := once(saying(401, `{}`))(next)
				return forAddress(knownEmail, refuse)(next)
			},
		},
		"this mail alone is refused": {
			args: []string{"--send-to", knownEmail}, status: 1,
			mailgun: func(next http.Handler) http.Handler {
				var n atomic.Int64 // the first is in test mode
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if n.Add(1) > 1 {
						next = saying(400, `{"message":"to parameter is not a valid address"}`)(nil)
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
				if said := strings.Contains(strings.Join(tr.want, " "), " "+about+" ") || strings.Contains(d.out, "_KEY is not set"); !said && !d.has(pattern) {
					t.Errorf("it does not say that %s is all right:\n%s", about, d.out)
				}
			}
		})
	}
}

func mailgunAnswers(status int, line string) trial {
	return trial{mailgun: saying(status, `{"message":"x"}`, "Location", "https://x.example"), want: []string{line}, status: 1}
}

// forAddress hands what asks for a link for that address to another handler.
func forAddress(email string, handler http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			if bytes.Contains(body, []byte(`"`+email+`"`)) {
				handler.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func failingFor(email string) func(http.Handler) http.Handler {
	return forAddress(email, saying(500, `{"code":500,"error_code":"unexpected_failure"}`)(nil))
}

// closedAddress is an address where nothing listens, and nothing will while the test runs:
// its port is taken, and not listened on.
func closedAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	// A connected socket keeps the port from being given out again.
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

// TestCheckLines: what a run says when all is right, from the first line to the last.
func TestCheckLines(t *testing.T) {
	env := map[string]string{
		"TRUSTED_PROXIES": "", "LINK_EXPIRES_IN": "90m",
		"CALLBACK_ORIGINS": "https://*.preview.example.com,https://app.example.com/,https://*.preview.example.com", // each is asked for once
	}
	d := trial{env: env, args: []string{"--send-to", "me@example.com"}, mails: []string{"me@example.com"}}.do(t)
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
	if !regexp.MustCompile(want).MatchString(d.out) || d.err != "" {
		t.Errorf("got:\n%s%s", d.out, d.err)
	}
	// One question to Supabase, the two redirects, and the one of --send-to; one message in test
	// mode, one that is delivered.
	paths := map[string]int{}
	for _, call := range d.stack.Calls() {
		paths[call.Service+call.Path[strings.LastIndex(call.Path, "/"):]]++
	}
	if paths["supabase/generate_link"] != 2 || paths["supabase/verify"] != 2 || paths["mailgun/messages"] != 2 {
		t.Errorf("the calls: %v", paths)
	}
}

// TestCheckNotesProbe: MAIL_PROBE=off is worth knowing, and no fault. What it means for callers is
// said, and for how long a mail is tried then.
func TestCheckNotesProbe(t *testing.T) {
	t.Parallel()
	const note = `note    settings  MAIL_PROBE=off: while Mailgun fails, callers are told that a mail is on its way, and it is tried for 15m$`
	if d := (trial{env: map[string]string{"MAIL_PROBE": "off"}}).do(t); !d.has(note) {
		t.Errorf("it does not say so:\n%s", d.out)
	}
	if d := (trial{}).do(t); d.has(`.*MAIL_PROBE`) {
		t.Errorf("it says so of the default:\n%s", d.out)
	}
}

// TestCheckSends: the mail of --send-to is the one that users get, with a link that works; what
// is sent without it is the same but for the link and whom it goes to.
func TestCheckSends(t *testing.T) {
	for _, mode := range []string{"token_hash", "action_link"} {
		pattern := regexp.MustCompile(`https://app\.example\.com/reset-password\?token_hash=([0-9a-f]{56})&type=recovery`)
		if mode == "action_link" {
			pattern = regexp.MustCompile(`http://\S+/auth/v1/verify\?token=([0-9a-f]{56})&type=recovery&redirect_to=https://app\.example\.com/reset-password`)
		}
		for address, opens := range map[string]bool{knownEmail: true, "me@example.com": false} {
			d := trial{env: map[string]string{"LINK_MODE": mode}, args: []string{"--send-to=" + address}, mails: []string{address}}.doSend(t, address)
			mail, test := d.stack.Mails()[0], d.stack.TestMessages()[0]
			for _, text := range []string{mail.Text, test.Text} {
				if !pattern.MatchString(text) {
					t.Fatalf("%s, %s: no such link in:\n%s", mode, address, text)
				}
			}
			// The same but for the token, and the port where the stand-in for action_link is.
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

// doSend allows --send-to=ADDRESS in one word.
func (tr trial) doSend(t *testing.T, address string) did {
	t.Helper()
	one := tr.args
	tr.args = []string{address}
	inner := inProcess
	tr.run = func(t *testing.T, _, environ []string) (string, string, int) {
		return inner(t, append([]string{"check"}, one...), environ)
	}
	return tr.do(t)
}

func verify(t *testing.T, stack *devstack.Stack, token string) bool {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, "/auth/v1/verify?type=recovery&token="+token, nil)
	recorder := httptest.NewRecorder()
	stack.Supabase().ServeHTTP(recorder, request)
	return strings.Contains(recorder.Header().Get("Location"), "access_token=")
}

// TestCheckJSON: one object that says what the lines say, with as much as there is whatever happens.
func TestCheckJSON(t *testing.T) {
	for name, tr := range map[string]struct {
		trial
		status   int
		overall  string
		statuses map[string]string // the worst that is said of each
		advice   string
	}{
		"all right": {overall: "ok", statuses: map[string]string{"settings": "ok", "supabase": "ok", "redirect": "ok", "mailgun": "ok", "redis": "note", "mail": "skipped"}},
		"a warning": {
			trial: trial{env: map[string]string{"RATE_LIMIT": "1-D"}}, overall: "warning",
			statuses: map[string]string{"settings": "warning", "mailgun": "ok"}, advice: "leave it at 5-M,30-H",
		},
		"a failure": {
			trial: trial{key: "another"}, status: 1, overall: "failed",
			statuses: map[string]string{"settings": "ok", "supabase": "failed", "mailgun": "ok"}, advice: "give the service_role key or a secret key",
		},
		"nothing set": {
			trial: trial{env: map[string]string{"SUPABASE_URL": "", "MAILGUN_API_KEY": "", "SITE_URL": "", "CALLBACK_ORIGINS": ""}}, status: 1, overall: "failed",
			statuses: map[string]string{"settings": "failed", "supabase": "skipped", "redirect": "skipped", "mailgun": "skipped"}, advice: "set it (",
		},
		"a mistake": {
			trial: trial{env: map[string]string{"SITE_URL": "nonsense", "RESET_PATH": "nonsense"}}, status: 2, overall: "failed",
			statuses: map[string]string{"settings": "failed"}, advice: "correct it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out string
			tr.args = append(tr.args, "--json")
			tr.trial.status = tr.status
			tr.run = func(t *testing.T, args, environ []string) (string, string, int) {
				var stderr string
				var status int
				out, stderr, status = inProcess(t, args, environ)
				return "", stderr + out, status // searched for secrets
			}
			tr.do(t)
			var said struct {
				Status, Version string
				Checks          []struct{ Name, Status, Message, Advice string }
			}
			decoder := json.NewDecoder(strings.NewReader(out))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&said); err != nil || decoder.More() {
				t.Fatalf("%v: %s", err, out)
			}
			if said.Status != tr.overall || said.Version != version {
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
				advised = advised || strings.Contains(check.Advice, tr.advice)
			}
			for about, status := range tr.statuses {
				if worst[about] != status {
					t.Errorf("%s is %q, want %q, in:\n%s", about, worst[about], status, out)
				}
			}
			if tr.advice != "" && !advised {
				t.Errorf("no advice %q in:\n%s", tr.advice, out)
			}
		})
	}
}

// TestCheckUsage: what is no address, and what is no flag, is a usage error, before anything is
// asked or sent.
func TestCheckUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--send-to", ""}, {"--send-to", "nobody"}, {"--send-to", "a@b.co,c@d.co"}, {"--send-to", "Me <me@example.com>"},
		{"--send-to", "me@example.com "}, {"--send-to", "me@example.com\r\nBcc: you@example.com"}, {"--send-to", "<me@example.com>"},
		{"--send-to"}, {"--no-such-flag"}, {"extra"},
	} {
		out, stderr, status := inProcess(t, append([]string{"check"}, args...), []string{"SUPABASE_URL=http://127.0.0.1:1"})
		if status != 2 || out != "" || stderr == "" {
			t.Errorf("%q: status %d, %q, %q", args, status, out, stderr)
		}
	}
	out, stderr, status := inProcess(t, []string{"check", "--help"}, nil)
	if status != 0 || !strings.Contains(out+stderr, "-send-to ADDRESS") {
		t.Errorf("--help: status %d, %q", status, out+stderr)
	}
}

// TestCheckStopped: an interrupt ends it, with a status that is not 0.
func TestCheckStopped(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	tr := trial{
		supabase: func(http.Handler) http.Handler {
			return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { stop(); <-r.Context().Done() })
		},
		args: []string{"--send-to", knownEmail},
		run: func(_ *testing.T, args, environ []string) (string, string, int) {
			var stdout, stderr bytes.Buffer
			err := run(ctx, args, environ, &stdout, &stderr)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("it returns %v", err)
			}
			return "", stderr.String(), exitStatus(err, io.Discard)
		},
		status: 1,
	}
	tr.do(t)
}

// TestCheckRedis: against a real Redis, which is left as it was.
func TestCheckRedis(t *testing.T) {
	server := newRedis(t)
	server.Start()
	host, port, _ := net.SplitHostPort(server.Addr)
	asUser := func(user, password string) string {
		return "redis://" + user + ":" + password + "@" + net.JoinHostPort(host, port)
	}
	tlsPort := httptest.NewUnstartedServer(nil)
	tlsPort.Config.ErrorLog = log.New(io.Discard, "", 0)
	tlsPort.StartTLS()
	defer tlsPort.Close()
	const apart = ", and each instance would count limits for itself"
	for _, tt := range []struct {
		name          string
		before, after []any
		url           string
		want          string
	}{
		{name: "all right", url: server.URL()},
		{name: "no password", url: "redis://" + server.Addr, want: `FAILED  redis     no count can be kept \(it says NOAUTH\)` + apart + `\. What to do: check user and password in REDIS_URL`},
		{name: "wrong password", url: asUser("", "wrong-pass"), want: `FAILED  redis     no count can be kept \(it says WRONGPASS\).*check user and password`},
		{
			name: "no scripts", before: []any{"ACL", "SETUSER", "small", "on", ">wrong-pass", "~resetd:*", "+@all", "-@scripting"}, after: []any{"ACL", "DELUSER", "small"},
			url: asUser("small", "wrong-pass"), want: `FAILED  redis     no count can be kept \(it says NOPERM\).*What to do: let that user run these commands`,
		},
		{
			name: "other keys", before: []any{"ACL", "SETUSER", "small", "on", ">wrong-pass", "~other:*", "+@all"}, after: []any{"ACL", "DELUSER", "small"},
			url: asUser("small", "wrong-pass"), want: `FAILED  redis     no count can be kept \(it says NOPERM\)`,
		},
		{
			name: "enough to count, and no streams", before: []any{"ACL", "SETUSER", "small", "on", ">wrong-pass", "~resetd:*", "+script|load", "+evalsha", "+eval", "+get", "+incr", "+pexpire", "+pttl", "+del"}, after: []any{"ACL", "DELUSER", "small"},
			url: asUser("small", "wrong-pass"), want: `FAILED  redis     no request can be kept \(it says NOPERM\), and a crash would lose what is accepted\. What to do: let that user run these commands`,
		},
		{
			name: "replica", before: []any{"REPLICAOF", "127.0.0.1", "1"}, after: []any{"REPLICAOF", "NO", "ONE"},
			url: server.URL(), want: `FAILED  redis     no count can be kept \(it says READONLY\)` + apart + `\. What to do: REDIS_URL leads to a replica`,
		},
		{
			name: "full", before: []any{"CONFIG", "SET", "maxmemory", "1"}, after: []any{"CONFIG", "SET", "maxmemory", "0"},
			url: server.URL(), want: `FAILED  redis     no count can be kept \(it says OOM\)` + apart + `\. What to do: it is full`,
		},
		{
			name: "evicts", before: []any{"CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"}, after: []any{"CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction"},
			url: server.URL(), want: `warning redis     counts are kept \((\d+ ms|under 1 ms)\), but its maxmemory-policy is allkeys-lru, .*What to do: set maxmemory-policy noeviction`,
		},
		{name: "slow", url: "redis://:" + server.Password + "@" + slowly(t, server.Addr, 150*time.Millisecond), want: `FAILED  redis     a count takes \d+ ms, and beyond 73 ms each instance would count limits for itself\. What to do: use a Redis in the same region`},
		{name: "TLS to plain", url: "rediss://:" + server.Password + "@" + server.Addr, want: `FAILED  redis     it cannot be reached \(.*\)` + apart + `\. What to do: .*rediss:// where it wants TLS`},
		{name: "plain to TLS", url: "redis://:" + server.Password + "@" + tlsPort.Listener.Addr().String(), want: `FAILED  redis     it cannot be reached \(.*\)` + apart},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.before != nil {
				server.Do(tt.before...)
			}
			tr := trial{env: map[string]string{"REDIS_URL": tt.url}}
			if tt.want != "" {
				tr.want = []string{tt.want}
			}
			if strings.HasPrefix(tt.want, "FAILED") {
				tr.status = 1
			}
			d := tr.do(t)
			if tt.want == "" && !d.has(`ok      redis     counts and requests are kept there \((\d+ ms|under 1 ms)\)$`) {
				t.Error(d.out)
			}
			if tt.after != nil {
				server.Do(tt.after...)
			}
			if keys := server.Do("KEYS", "*").([]any); len(keys) > 0 {
				t.Errorf("it leaves %v behind", keys)
			}
		})
	}
}

// slowly is a way to an address on which whatever goes there takes a while longer.
func slowly(t *testing.T, to string, by time.Duration) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				return
			}
			go func() { _, _ = io.Copy(in, out); in.Close() }()
			go func() {
				defer out.Close()
				piece := make([]byte, 4096)
				for {
					n, err := in.Read(piece)
					if err != nil {
						return
					}
					time.Sleep(by)
					if _, err := out.Write(piece[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// TestCheckRegions: where the key is refused or the domain unknown, the other region is tried,
// and named if it is the right one. The binary itself runs here, and finds both regions at the
// end of its HTTPS_PROXY, with their names.
func TestCheckRegions(t *testing.T) {
	const us, eu = "api.mailgun.net", "api.eu.mailgun.net"
	for name, tt := range map[string]struct {
		base  string // empty: the default
		us    int
		eu    int
		want  string
		asked []string
	}{
		"EU key at the US":            {us: 401, eu: 200, asked: []string{us, eu}, want: `the key is refused \(status 401\)\. What to do: the domain is in the EU, where the message is accepted: set MAILGUN_API_BASE=https://api\.eu\.mailgun\.net$`},
		"EU domain at the US":         {us: 404, eu: 200, asked: []string{us, eu}, want: `the domain is not known there \(status 404\)\. What to do: the domain is in the EU, .*set MAILGUN_API_BASE=https://api\.eu\.mailgun\.net$`},
		"US domain at the EU":         {base: "https://" + eu + "/v3/", us: 200, eu: 404, asked: []string{eu, us}, want: `the domain is not known there \(status 404\)\. What to do: the domain is in the US, .*set MAILGUN_API_BASE=https://api\.mailgun\.net$`},
		"wrong key in both":           {us: 401, eu: 401, asked: []string{us, eu}, want: `the key is refused \(status 401\)\. What to do: give a sending key of mg\.example\.com .*It was tried in the EU too \(https://api\.eu\.mailgun\.net\), in vain: the key is refused \(status 401\)$`},
		"wrong domain in both":        {us: 404, eu: 404, asked: []string{us, eu}, want: `the domain is not known there \(status 404\)\. What to do: check that MAILGUN_DOMAIN=mg\.example\.com.*in vain: the domain is not known there \(status 404\)$`},
		"nothing to do with a region": {us: 403, eu: 200, asked: []string{us}, want: `the message is not accepted \(status 403\)\. What to do: see in Mailgun whether`},
		"no host of Mailgun's":        {base: "$MAILGUN", us: 200, eu: 200, want: `the key is refused \(status 401\)\. What to do: give a sending key`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var asked []string
			regions, certificate := tlsFor(t, []string{us, eu}, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				asked = append(asked, r.Host)
				mu.Unlock()
				if _, key, _ := r.BasicAuth(); key != "test-mailgun-key" && key != "key-of-somebody-else" {
					t.Errorf("the key %q", key)
				}
				status := tt.us
				if r.Host == eu {
					status = tt.eu
				}
				saying(status, `{"id":"<1@mg.example.com>","message":"Queued. Thank you."}`)(nil).ServeHTTP(w, r)
			})
			env := map[string]string{
				"MAILGUN_API_BASE": tt.base, "HTTPS_PROXY": proxyTo(t, regions),
				"SSL_CERT_FILE": certificate, "SSL_CERT_DIR": t.TempDir(), "PATH": os.Getenv("PATH"),
			}
			if tt.base == "$MAILGUN" {
				env["MAILGUN_API_KEY"] = "key-of-somebody-else"
			}
			trial{env: env, run: inBinary, want: []string{`FAILED  mailgun   ` + tt.want}, status: 1}.do(t)
			if !slices.Equal(asked, tt.asked) {
				t.Errorf("asked were %q, want %q", asked, tt.asked)
			}
		})
	}
}

func inBinary(t *testing.T, args, environ []string) (string, string, int) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("resetd", args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = environ, &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// tlsFor serves the hosts with a certificate of its own, and returns its address and a file with
// the certificate.
func tlsFor(t *testing.T, hosts []string, handler http.HandlerFunc) (address, certificate string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: hosts, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate = filepath.Join(t.TempDir(), "authority.pem")
	if err := os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), certificate
}

// proxyTo is a proxy that leads every CONNECT to one address.
func proxyTo(t *testing.T, address string) string {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			t.Errorf("the proxy got %s %s", r.Method, r.URL)
			return
		}
		out, err := net.Dial("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		defer out.Close()
		w.WriteHeader(http.StatusOK)
		in, early, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer in.Close()
		go func() { _, _ = io.Copy(out, early); out.Close() }()
		_, _ = io.Copy(in, out)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// TestCheckTakesNoLimits: a check of a server's settings changes none of its limits, whose keys in
// Redis are known.
func TestCheckTakesNoLimits(t *testing.T) {
	server := newRedis(t)
	server.Start()
	trial{env: map[string]string{"REDIS_URL": server.URL()}, args: []string{"--send-to", knownEmail}, mails: []string{knownEmail}}.do(t)
	if keys := server.Do("KEYS", "*").([]any); len(keys) > 0 {
		t.Errorf("it leaves %v", keys)
	}
	if counted := fmt.Sprint(server.Do("INFO", "stats")); !strings.Contains(counted, "expired_keys:0") {
		t.Error("a key was left to expire by itself")
	}
}

// TestCheckLanguage: --send-to writes in the language that is asked for, and else in the default one.
func TestCheckLanguage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--send-to", knownEmail}, "password"},
		{[]string{"--send-to", knownEmail, "--language", "fr"}, "mot de passe"},
		{[]string{"--send-to", "me@example.com", "--language", "zh-Hant"}, "密碼"},
	} {
		mails := trial{args: c.args, mails: c.args[1:2]}.do(t).stack.Mails()
		if len(mails) != 1 || !strings.Contains(mails[0].Subject, c.want) {
			t.Errorf("%q: %d mails; %+v", c.args, len(mails), mails)
		}
	}
}
