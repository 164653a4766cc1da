package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/devstack"
	"github.com/resetd/resetd/test/resetdtest"
)

// FuzzRequest sends arbitrary requests through the whole path, from the router to the stand-ins: there is
// no panic, no answer that openapi.yaml does not document, and mail to accounts only. It leaves out what
// Go's HTTP parser refuses before the handler.
func FuzzRequest(f *testing.F) {
	const body = `{"email":"known@example.com","callback_origin":"example"}`
	for _, seed := range []struct{ method, path, mediaType, language, origin, forwarded, body string }{
		{"POST", endpoint, "application/json", "de", site, "1.2.3.4", body},
		{"POST", endpoint, "application/json; charset=utf-8", "", "", "", `{"email":"known@example.com","EMAIL":"evil@x.yz"}`},
		{"POST", endpoint, "application/json", "*;q=2", "null", "::1, x", `{"email":"a@b.co","a":{"b":[1,{"c":null}]}}`},
		{"POST", endpoint, "text/plain", "", "", "", body},
		{"POST", endpoint, "application/json", "", "", "", "{\"email\":\"a\x00@b.co\"}"},
		{"POST", endpoint, "application/json", "", "", "", `{"email":"\ud800@b.co","callback_origin":"https://app.example.com@evil.example"}`},
		{"POST", endpoint, "application/json", "", "", "", strings.Repeat("[", 20000)},
		{"POST", endpoint, "application/json", "", "", "", `{"email":1e999}`},
		{"POST", "/webhooks/mailgun", "application/json", "", "", "", `{"signature":{"timestamp":"1","token":"a","signature":"00"},"event-data":{}}`},
		{"GET", "/api/openapi.json", "", "", "", "", ""},
		{"HEAD", "/healthz", "", "", "", "", ""},
		{"OPTIONS", endpoint, "", "", preview, "", ""},
		{"DELETE", "/api/../x", "", "", "", "", ""},
		{"POST", "/api/auth/%73end-password-reset", "application/json", "", "", "", body},
	} {
		f.Add(seed.method, seed.path, seed.mediaType, seed.language, seed.origin, seed.forwarded, []byte(seed.body))
	}
	stack := devstack.New(devstack.Config{
		Accounts: []string{knownEmail}, SiteURL: site,
		ServiceRoleKey: "key", MailgunKey: "key", MailgunDomain: "mg.example.com",
	})
	// Mails go out after the answers, so each is checked when it arrives.
	var mu sync.Mutex
	var strays []string
	supabase, mailgun := httptest.NewServer(stack.Supabase()), httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if email, test := resetdtest.ReadCall(r); !test && !resetdtest.ProbeAddress.MatchString(email) && email != knownEmail {
			mu.Lock()
			strays = append(strays, email)
			mu.Unlock()
		}
		stack.Mailgun().ServeHTTP(w, r)
	}))
	logs := &resetdtest.Log{}
	settings, err := readSettings("serve", nil, []string{
		"SUPABASE_URL=" + supabase.URL, "SUPABASE_SERVICE_ROLE_KEY=key",
		"MAILGUN_API_BASE=" + mailgun.URL, "MAILGUN_API_KEY=key", "MAILGUN_DOMAIN=mg.example.com", "MAILGUN_WEBHOOK_SIGNING_KEY=key",
		"SITE_URL=" + site, "CALLBACK_ORIGINS=https://*.preview.example.com", "TRUSTED_PROXIES=192.0.2.0/24",
		"RATE_LIMIT=1000000-S", "RECIPIENT_LIMIT=1000000-S", "MAX_ACCEPTED=1000000", "MAX_DELIVERIES=2", "LOG_LEVEL=warn",
	}, io.Discard)
	if err != nil {
		f.Fatal(err)
	}
	app, err := newApp(context.Background(), settings, slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		f.Fatal(err)
	}
	check := func(t testing.TB) {
		if text := logs.String(); text != "" {
			t.Fatalf("logged %s", text)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(strays) > 0 {
			t.Fatalf("mailed %q", strays)
		}
	}
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := app.outbox.Close(ctx); err != nil {
			f.Error(err)
		}
		app.health.Close()
		check(f)
		supabase.Close()
		mailgun.Close()
		stack.Close()
	})

	f.Fuzz(func(t *testing.T, method, path, mediaType, language, origin, forwarded string, body []byte) {
		request, err := http.NewRequest(method, "http://localhost"+path, bytes.NewReader(body))
		if err != nil || !strings.HasPrefix(path, "/") {
			t.Skip("no request that a client could send")
		}
		request.RemoteAddr = "192.0.2.1:1234"
		for name, value := range map[string]string{"Content-Type": mediaType, "Accept-Language": language, "Origin": origin, "X-Forwarded-For": forwarded} {
			if value != "" {
				request.Header[name] = []string{value}
			}
		}
		recorder := httptest.NewRecorder()
		app.public.ServeHTTP(recorder, request)
		response := recorder.Result()
		resetdtest.CheckResponse(t, request, response, recorder.Body.Bytes())
		if response.StatusCode >= 500 {
			t.Errorf("%d %s", response.StatusCode, recorder.Body)
		}
		check(t)
	})
}
