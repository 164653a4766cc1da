package goclient_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/resetd/resetd/gen/client"
	"github.com/resetd/resetd/test/goclient"
	"github.com/resetd/resetd/test/resetdtest"
)

const acknowledged = "If an account exists for that address, a password reset email is on its way."

func TestMain(m *testing.M) { os.Exit(resetdtest.Main(m)) }

// start starts resetd itself, and returns a client whose answers are checked against openapi.yaml.
func start(t *testing.T, config resetdtest.Config) (*resetdtest.Server, *goclient.Client) {
	t.Helper()
	config.Accounts = []string{"hello@example.com"}
	server := resetdtest.Start(t, config)
	return server, connect(t, server.URL+"/api", client.WithHTTPClient(server.Client))
}

func connect(t *testing.T, url string, options ...client.ClientOption) *goclient.Client {
	t.Helper()
	resets, err := goclient.New(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	return resets
}

func Example() {
	server := httptest.NewServer(http.HandlerFunc(answer)) // in place of https://example.com/api
	defer server.Close()

	resets, err := goclient.New(server.URL)
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

// answer gives Example the answers that resetd gives TestAcknowledged and TestRefusals.
func answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if body, _ := io.ReadAll(r.Body); strings.Contains(string(body), "@") {
		_, _ = io.WriteString(w, `{"ok":true,"message":"`+acknowledged+`"}`)
		return
	}
	w.WriteHeader(http.StatusBadRequest)
	_, _ = io.WriteString(w, `{"error":"The request is invalid.","code":"invalid_request","fieldErrors":{"email":"Enter a valid email address."}}`)
}

// TestAcknowledged: the request arrives unchanged, and an account gets a mail.
func TestAcknowledged(t *testing.T) {
	for email, mails := range map[string]int{"hello@example.com": 1, "nobody@example.com": 0} {
		server, resets := start(t, resetdtest.Config{})
		message, err := resets.SendPasswordReset(t.Context(), goclient.Request{Email: email, CallbackOrigin: resetdtest.Preview, Language: "de-CH, de;q=0.9"})
		if err != nil || message != acknowledged {
			t.Errorf("%s: %q, %v", email, message, err)
		}
		server.Settle()
		sent := server.Stack.Mails()
		if len(sent) != mails {
			t.Fatalf("%s: %d mails", email, len(sent))
		}
		if mails == 1 && (!strings.Contains(sent[0].Subject, "zurücksetzen") || !strings.Contains(sent[0].Text, resetdtest.Preview+"/")) {
			t.Errorf("%s: %s\n%s", email, sent[0].Subject, sent[0].Text)
		}
	}
}

// TestRefusals: each status that a real server can give is a typed error.
func TestRefusals(t *testing.T) {
	seen := map[string]bool{"200": true} // by TestAcknowledged
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

	server, resets := start(t, resetdtest.Config{Settings: map[string]string{"CALLBACK_ORIGIN_POLICY": "reject"}})
	_, err := resets.SendPasswordReset(t.Context(), goclient.Request{Email: "nonsense", CallbackOrigin: "https://evil.example"})
	refused := check(t, err, want{status: 400, code: "invalid_request", is: goclient.ErrInvalid})
	if fields := refused.FieldErrors; len(fields) != 2 || fields["email"] != "Enter a valid email address." || fields["callback_origin"] != "This origin is not allowed." || len(refused.Issues) != 2 {
		t.Errorf("fields %v, issues %v", fields, refused.Issues)
	}
	_, err = resets.SendPasswordReset(t.Context(), goclient.Request{Email: strings.Repeat("x", 17<<10)})
	check(t, err, want{status: 413, code: "payload_too_large", is: goclient.ErrInvalid})
	plain := connect(t, server.URL+"/api", client.WithHTTPClient(server.Client), client.WithRequestEditorFn(func(_ context.Context, request *http.Request) error {
		request.Header.Set("Content-Type", "text/plain")
		return nil
	}))
	_, err = plain.SendPasswordReset(t.Context(), hello)
	check(t, err, want{status: 415, code: "unsupported_media_type", is: goclient.ErrInvalid})

	_, resets = start(t, resetdtest.Config{Settings: map[string]string{"RATE_LIMIT": "1-H"}})
	if _, err := resets.SendPasswordReset(t.Context(), hello); err != nil {
		t.Fatal(err)
	}
	_, err = resets.SendPasswordReset(t.Context(), hello)
	if refused := check(t, err, want{status: 429, code: "rate_limited", is: goclient.ErrRateLimited, wait: time.Hour}); refused.Wait < 50*time.Minute {
		t.Errorf("wait %v", refused.Wait)
	}

	for _, c := range []struct {
		name   string
		config resetdtest.Config
		want   want
	}{
		{name: "no Supabase", config: resetdtest.Config{Settings: map[string]string{"SUPABASE_URL": ""}}, want: want{status: 500, code: "auth_not_configured", is: goclient.ErrNotConfigured}},
		{name: "no Mailgun", config: resetdtest.Config{Settings: map[string]string{"MAILGUN_API_KEY": ""}}, want: want{status: 502, code: "email_delivery_failed", is: goclient.ErrDelivery}},
		{name: "Mailgun fails", config: resetdtest.Config{Mailgun: resetdtest.Saying(500, "")}, want: want{status: 502, code: "email_delivery_failed", is: goclient.ErrDelivery}},
		{name: "Supabase fails", config: resetdtest.Config{Supabase: resetdtest.Saying(503, "")}, want: want{status: 503, code: "auth_unavailable", is: goclient.ErrUnavailable, wait: time.Minute}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, resets := start(t, c.config)
			_, err := resets.SendPasswordReset(t.Context(), hello)
			check(t, err, c.want)
		})
	}
	for status := range responses() {
		if !seen[status] {
			t.Errorf("no real server was made to answer %s", status)
		}
	}
}

// responses returns the documented answers by status.
func responses() map[string]*openapi3.ResponseRef {
	return resetdtest.Document().Paths.Find("/auth/send-password-reset").Post.Responses.Map()
}

// answering returns a client of a server with one answer.
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

// TestEveryDocumentedAnswer: the client understands every example of openapi.yaml, so that a new answer there is not
// forgotten here.
func TestEveryDocumentedAnswer(t *testing.T) {
	kinds := map[string]error{
		"400 invalid_request": goclient.ErrInvalid, "400 invalid_json": goclient.ErrInvalid,
		"413 payload_too_large": goclient.ErrInvalid, "415 unsupported_media_type": goclient.ErrInvalid,
		"429 rate_limited":        goclient.ErrRateLimited,
		"500 auth_not_configured": goclient.ErrNotConfigured, "500 internal_error": goclient.ErrInternal,
		"502 email_delivery_failed": goclient.ErrDelivery,
		"503 auth_unavailable":      goclient.ErrUnavailable, "503 overloaded": goclient.ErrUnavailable,
	}
	for status, response := range responses() {
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

// TestOtherAnswers: an answer that resetd never gives is an error too, and no acknowledgment.
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
	// The header may get lost on the way. The body has the number too.
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
