package goclient_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/resetd/resetd/gen/client"
	"github.com/resetd/resetd/impl/devstack"
	"github.com/resetd/resetd/test/goclient"
)

const site, preview = "https://app.example.com", "https://pr-7.preview.example.com"

// TestMain builds resetd once: all of these tests talk to the program itself.
func TestMain(m *testing.M) { os.Exit(withBinary(m.Run)) }

func withBinary(run func() int) int {
	folder, err := os.MkdirTemp("", "goclient")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	out, err := exec.Command("go", "build", "-o", folder, "github.com/resetd/resetd/cmd/resetd").CombinedOutput()
	if err != nil {
		log.Printf("building resetd: %v: %s", err, out)
		return 1
	}
	os.Setenv("PATH", folder+string(filepath.ListSeparator)+os.Getenv("PATH"))
	return run()
}

// resetd is a running server with stand-ins for its upstreams.
type resetd struct {
	url   string // what New wants
	stack *devstack.Stack
	stop  func() // returns when all that it has accepted is delivered
	close func()
}

// startResetd runs `resetd serve` with wide limits; env overrides, and an empty value removes.
func startResetd(env map[string]string, supabase, mailgun func(http.Handler) http.Handler) (*resetd, error) {
	stack := devstack.New(devstack.Config{
		Accounts: []string{"hello@example.com"}, SiteURL: site, RedirectAllowList: []string{"https://*.preview.example.com/**"},
		ServiceRoleKey: "test-key", MailgunKey: "test-key", MailgunDomain: "mg.example.com",
		SupabaseMiddleware: supabase, MailgunMiddleware: mailgun,
	})
	upstreams := []*httptest.Server{httptest.NewServer(stack.Supabase()), httptest.NewServer(stack.Mailgun())}
	settings := map[string]string{
		"LISTEN_ADDR": "127.0.0.1:0", "ADMIN_ADDR": "off", "LOG_FORMAT": "json", "SHUTDOWN_DELAY": "0s",
		"SUPABASE_URL": upstreams[0].URL, "SUPABASE_SERVICE_ROLE_KEY": "test-key",
		"MAILGUN_API_BASE": upstreams[1].URL, "MAILGUN_API_KEY": "test-key", "MAILGUN_DOMAIN": "mg.example.com",
		"SITE_URL": site, "CALLBACK_ORIGINS": "https://*.preview.example.com",
		"RATE_LIMIT": "1000-M", "RECIPIENT_LIMIT": "1000-M",
	}
	for name, value := range env {
		settings[name] = value
	}
	command := exec.Command("resetd", "serve")
	for name, value := range settings {
		if value != "" {
			command.Env = append(command.Env, name+"="+value)
		}
	}
	logs, err := command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	stop := sync.OnceFunc(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
	})
	server := &resetd{stack: stack, stop: stop, close: func() {
		stop()
		for _, upstream := range upstreams {
			upstream.Close()
		}
		stack.Close()
	}}
	address := regexp.MustCompile(`"msg":"listening","addr":"([^"]+)"`)
	var said strings.Builder
	for lines := bufio.NewScanner(logs); lines.Scan(); {
		if found := address.FindStringSubmatch(lines.Text()); found != nil {
			server.url = "http://" + found[1] + "/api"
			go func() { _, _ = io.Copy(io.Discard, logs) }()
			return server, nil
		}
		said.WriteString(lines.Text() + "\n")
	}
	server.close()
	return nil, fmt.Errorf("resetd did not listen: %s", said.String())
}

func start(t *testing.T, env map[string]string, supabase, mailgun func(http.Handler) http.Handler) (*resetd, *goclient.Client) {
	t.Helper()
	server, err := startResetd(env, supabase, mailgun)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.close)
	return server, connect(t, server.url)
}

func connect(t *testing.T, url string, options ...client.ClientOption) *goclient.Client {
	t.Helper()
	resets, err := goclient.New(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	return resets
}

func failing(status int) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
	}
}

func Example() {
	server, err := startResetd(nil, nil, nil) // in place of https://example.com/api
	if err != nil {
		log.Fatal(err)
	}
	defer server.close()

	resets, err := goclient.New(server.url)
	if err != nil {
		log.Fatal(err)
	}
	for _, email := range []string{"hello@example.com", "nobody@example.com", "nonsense"} {
		message, err := resets.SendPasswordReset(context.Background(), goclient.Request{Email: email, Language: "de-CH, de;q=0.9"})
		var refused *goclient.Error
		switch {
		case err == nil:
			fmt.Println(message)
		case errors.Is(err, goclient.ErrRateLimited), errors.Is(err, goclient.ErrUnavailable):
			errors.As(err, &refused)
			fmt.Println("Try again in", refused.Wait)
		case errors.Is(err, goclient.ErrInvalid):
			errors.As(err, &refused)
			fmt.Println("At the email field:", refused.FieldErrors["email"])
		default:
			fmt.Println("Something went wrong, and is logged:", err)
		}
	}
	// Output:
	// If an account exists for that address, a password reset email is on its way.
	// If an account exists for that address, a password reset email is on its way.
	// At the email field: Enter a valid email address.
}

// TestAcknowledged: what was asked for arrives, and with an account it is mailed.
func TestAcknowledged(t *testing.T) {
	for email, mails := range map[string]int{"hello@example.com": 1, "nobody@example.com": 0} {
		server, resets := start(t, nil, nil, nil)
		message, err := resets.SendPasswordReset(t.Context(), goclient.Request{Email: email, CallbackOrigin: preview, Language: "de-CH, de;q=0.9"})
		if err != nil || !strings.HasPrefix(message, "If an account exists") {
			t.Errorf("%s: %q, %v", email, message, err)
		}
		server.stop()
		sent := server.stack.Mails()
		if len(sent) != mails {
			t.Fatalf("%s: %d mails", email, len(sent))
		}
		if mails == 1 && (!strings.Contains(sent[0].Subject, "zurücksetzen") || !strings.Contains(sent[0].Text, preview+"/")) {
			t.Errorf("%s: %s\n%s", email, sent[0].Subject, sent[0].Text)
		}
	}
}

// TestRefusals: each status that can be had from a real server is a typed error.
func TestRefusals(t *testing.T) {
	seen := map[string]bool{"200": true} // above
	type want struct {
		status int
		code   string
		is     error
		wait   time.Duration // at most
	}
	check := func(t *testing.T, err error, want want) *goclient.Error {
		t.Helper()
		seen[strconv.Itoa(want.status)] = true
		var refused *goclient.Error
		if !errors.As(err, &refused) || !errors.Is(err, want.is) {
			t.Fatalf("%v, want %v", err, want.is)
		}
		if refused.Status != want.status || refused.Code != want.code || refused.Message == "" || refused.RequestID == "" {
			t.Errorf("%+v", refused)
		}
		if refused.Wait > want.wait || (refused.Wait > 0) != (want.wait > 0) {
			t.Errorf("wait %v, want at most %v", refused.Wait, want.wait)
		}
		return refused
	}
	hello := goclient.Request{Email: "hello@example.com"}

	server, resets := start(t, map[string]string{"CALLBACK_ORIGIN_POLICY": "reject"}, nil, nil)
	_, err := resets.SendPasswordReset(t.Context(), goclient.Request{Email: "nonsense", CallbackOrigin: "https://evil.example"})
	refused := check(t, err, want{status: 400, code: "invalid_request", is: goclient.ErrInvalid})
	if fields := refused.FieldErrors; len(fields) != 2 || fields["email"] != "Enter a valid email address." || fields["callback_origin"] != "This origin is not allowed." || len(refused.Issues) != 2 {
		t.Errorf("fields %v, issues %v", fields, refused.Issues)
	}
	_, err = resets.SendPasswordReset(t.Context(), goclient.Request{Email: strings.Repeat("x", 17<<10)})
	check(t, err, want{status: 413, code: "payload_too_large", is: goclient.ErrInvalid})
	plain := connect(t, server.url, client.WithRequestEditorFn(func(_ context.Context, request *http.Request) error {
		request.Header.Set("Content-Type", "text/plain")
		return nil
	}))
	_, err = plain.SendPasswordReset(t.Context(), hello)
	check(t, err, want{status: 415, code: "unsupported_media_type", is: goclient.ErrInvalid})

	_, resets = start(t, map[string]string{"RATE_LIMIT": "1-H"}, nil, nil)
	if _, err := resets.SendPasswordReset(t.Context(), hello); err != nil {
		t.Fatal(err)
	}
	_, err = resets.SendPasswordReset(t.Context(), hello)
	if refused := check(t, err, want{status: 429, code: "rate_limited", is: goclient.ErrRateLimited, wait: time.Hour}); refused.Wait < 50*time.Minute {
		t.Errorf("wait %v", refused.Wait)
	}

	for _, c := range []struct {
		name              string
		env               map[string]string
		supabase, mailgun func(http.Handler) http.Handler
		want              want
	}{
		{name: "no Supabase", env: map[string]string{"SUPABASE_URL": ""}, want: want{status: 500, code: "auth_not_configured", is: goclient.ErrNotConfigured}},
		{name: "no Mailgun", env: map[string]string{"MAILGUN_API_KEY": ""}, want: want{status: 502, code: "email_delivery_failed", is: goclient.ErrDelivery}},
		{name: "Mailgun fails", mailgun: failing(500), want: want{status: 502, code: "email_delivery_failed", is: goclient.ErrDelivery}},
		{name: "Supabase fails", supabase: failing(503), want: want{status: 503, code: "auth_unavailable", is: goclient.ErrUnavailable, wait: time.Minute}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, resets := start(t, c.env, c.supabase, c.mailgun)
			_, err := resets.SendPasswordReset(t.Context(), hello)
			check(t, err, c.want)
		})
	}
	for status := range responses(t) {
		if !seen[status] {
			t.Errorf("no real server was made to answer %s", status)
		}
	}
}

func responses(t *testing.T) map[string]*openapi3.ResponseRef {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromFile("../../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return document.Paths.Find("/auth/send-password-reset").Post.Responses.Map()
}

// answering is a server that has one answer.
func answering(t *testing.T, status int, header http.Header, body string) *goclient.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range header {
			w.Header()[http.CanonicalHeaderKey(name)] = values
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return connect(t, server.URL)
}

// TestEveryDocumentedAnswer: every example of openapi.yaml is understood, so that an answer
// that it documents anew is not forgotten here.
func TestEveryDocumentedAnswer(t *testing.T) {
	kinds := map[string]error{
		"400 invalid_request": goclient.ErrInvalid, "400 invalid_json": goclient.ErrInvalid,
		"413 payload_too_large": goclient.ErrInvalid, "415 unsupported_media_type": goclient.ErrInvalid,
		"429 rate_limited":        goclient.ErrRateLimited,
		"500 auth_not_configured": goclient.ErrNotConfigured, "500 internal_error": goclient.ErrInternal,
		"502 email_delivery_failed": goclient.ErrDelivery,
		"503 auth_unavailable":      goclient.ErrUnavailable, "503 overloaded": goclient.ErrUnavailable,
	}
	for status, response := range responses(t) {
		number, err := strconv.Atoi(status)
		if err != nil {
			t.Fatalf("the documented status %q is no number", status)
		}
		header := http.Header{"Content-Type": {"application/json"}}
		for name, documented := range response.Value.Headers {
			header.Set(name, fmt.Sprint(documented.Value.Schema.Value.Example))
		}
		for name, example := range response.Value.Content["application/json"].Examples {
			text, err := json.Marshal(example.Value.Value)
			if err != nil {
				t.Fatal(err)
			}
			var body client.ErrorBody
			if err := json.Unmarshal(text, &body); err != nil {
				t.Fatal(err)
			}
			message, err := answering(t, number, header, string(text)).SendPasswordReset(t.Context(), goclient.Request{Email: "hello@example.com"})
			if number == http.StatusOK {
				if err != nil || message == "" {
					t.Errorf("%s %s: %q, %v", status, name, message, err)
				}
				continue
			}
			kind, known := kinds[status+" "+body.Code]
			var refused *goclient.Error
			if !known || !errors.Is(err, kind) || !errors.As(err, &refused) {
				t.Errorf("%s %s is taken for %v", status, name, err)
				continue
			}
			fields := len(refused.FieldErrors) == len(body.FieldErrors) && slices.Equal(refused.Issues, body.Issues)
			if refused.Status != number || refused.Code != body.Code || refused.Message != body.Error || !fields || refused.RequestID != header.Get("X-Request-Id") {
				t.Errorf("%s %s is read as %+v", status, name, refused)
			}
			if wait := header.Get("Retry-After"); wait != "" && fmt.Sprint(refused.Wait.Seconds()) != wait {
				t.Errorf("%s %s: wait %v, want %s s", status, name, refused.Wait, wait)
			}
		}
	}
}

// TestOtherAnswers: what no resetd answers is an error too, and never an acknowledgment.
func TestOtherAnswers(t *testing.T) {
	const jsonType, html = "application/json", "text/html"
	for name, c := range map[string]struct {
		status                int
		mediaType, body, wait string
		want                  *goclient.Error // nil: no readable answer
	}{
		"a proxy's page":      {status: 502, mediaType: html, body: "<h1>Bad Gateway</h1>", want: &goclient.Error{Status: 502}},
		"a proxy's pause":     {status: 503, mediaType: html, body: "<h1>Back soon</h1>", wait: "120", want: &goclient.Error{Status: 503, Wait: 2 * time.Minute}},
		"a new status":        {status: 418, mediaType: jsonType, body: `{"error":"x","code":"teapot"}`, want: &goclient.Error{Status: 418}},
		"a login page":        {status: 200, mediaType: html, body: "<form>", want: &goclient.Error{Status: 200}},
		"no acknowledgment":   {status: 200, mediaType: jsonType, body: `{"ok":false,"message":"x"}`, want: &goclient.Error{Status: 200}},
		"a date to wait for":  {status: 503, mediaType: html, wait: "Wed, 21 Oct 2026 07:28:00 GMT", want: &goclient.Error{Status: 503}},
		"a negative wait":     {status: 503, mediaType: html, wait: "-5", want: &goclient.Error{Status: 503}},
		"a wait beyond time":  {status: 503, mediaType: html, wait: "9223372036854775807", want: &goclient.Error{Status: 503, Wait: 24 * time.Hour}},
		"broken JSON":         {status: 200, mediaType: jsonType, body: `{"ok":`, want: nil},
		"broken JSON, failed": {status: 500, mediaType: jsonType, body: `<`, want: nil},
	} {
		header := http.Header{"Content-Type": {c.mediaType}}
		if c.wait != "" {
			header.Set("Retry-After", c.wait)
		}
		message, err := answering(t, c.status, header, c.body).SendPasswordReset(t.Context(), goclient.Request{Email: "hello@example.com"})
		var refused *goclient.Error
		switch isOne := errors.As(err, &refused); {
		case err == nil || message != "":
			t.Errorf("%s passes for an acknowledgment: %q, %v", name, message, err)
		case isOne != (c.want != nil):
			t.Errorf("%s: %v", name, err)
		case isOne && (!errors.Is(err, goclient.ErrUndocumented) || refused.Status != c.want.Status || refused.Wait != c.want.Wait):
			t.Errorf("%s: %+v", name, refused)
		}
	}
	// The header may get lost on the way; the body says it again.
	var refused *goclient.Error
	for said, want := range map[string]time.Duration{"7": 7 * time.Second, "0.5": 500 * time.Millisecond, "-5": 0, "1e300": 24 * time.Hour} {
		_, err := answering(t, 429, http.Header{"Content-Type": {jsonType}}, `{"error":"x","code":"rate_limited","retryAfter":`+said+`}`).SendPasswordReset(t.Context(), goclient.Request{})
		if !errors.As(err, &refused) || refused.Wait != want {
			t.Errorf("without Retry-After, and retryAfter %s: %v", said, err)
		}
	}
	if _, err := connect(t, "http://127.0.0.1:1").SendPasswordReset(t.Context(), goclient.Request{}); err == nil || errors.As(err, &refused) && refused.Status == 0 {
		t.Errorf("nobody there: %v", err)
	}
}
