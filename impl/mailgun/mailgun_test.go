package mailgun

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resetd/resetd/impl"
)

const timeout = 300 * time.Millisecond

func client(t *testing.T, suffix string, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return New(Config{
		Base: server.URL + suffix, Domain: "mg.example.com", Key: "the-key",
		From: "Example <no-reply@example.com>", DecoyTo: "no-reply@example.com", Timeout: timeout,
	})
}

// TestBase: with or without a trailing slash or /v3, the path is Mailgun's.
func TestBase(t *testing.T) {
	for _, suffix := range []string{"", "/", "/v3", "/v3/"} {
		var path, user, password string
		c := client(t, suffix, func(w http.ResponseWriter, r *http.Request) {
			path = r.URL.Path
			user, password, _ = r.BasicAuth()
			io.WriteString(w, `{"id":"<1@mg.example.com>","message":"Queued. Thank you."}`)
		})
		if err := c.Send(context.Background(), "a@b.co", impl.Mail{Subject: "s", Text: "t", HTML: "h"}); err != nil {
			t.Errorf("%q: %v", suffix, err)
		}
		if path != "/v3/mg.example.com/messages" || user != "api" || password != "the-key" {
			t.Errorf("%q: POST %s as %s:%s", suffix, path, user, password)
		}
	}
}

// TestFaults: nothing but an acceptance is one, within the deadline and the bounds, and no
// error repeats the answer, the recipient or the link.
func TestFaults(t *testing.T) {
	const secret = "never-repeat-this"
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{"message":"`+secret+`"}`, code) }
	}
	for name, handler := range map[string]http.HandlerFunc{
		"400": status(400), "401": status(401), "402": status(402), "403": status(403), "404": status(404), "429": status(429), "500": status(500), "503": status(503),
		"garbage": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>"+secret) },
		"no id":   func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"message":"`+secret+`"}`) },
		"empty":   func(http.ResponseWriter, *http.Request) {},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/"+secret, http.StatusTemporaryRedirect)
		},
		"reset": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"hang":  func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() },
		"slow drip": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, " "); err != nil {
					return
				}
				http.NewResponseController(w).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		},
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"id":"`)
			for chunk := strings.Repeat("x", 64<<10); ; {
				if _, err := io.WriteString(w, chunk); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			var requests atomic.Int32
			c := client(t, "", func(w http.ResponseWriter, r *http.Request) { requests.Add(1); handler(w, r) })
			err := c.Send(context.Background(), "someone@example.org", impl.Mail{Subject: "s", Text: "https://app.example.com/?token_hash=t", HTML: "h"})
			if !errors.Is(err, impl.ErrEmailDelivery) {
				t.Fatalf("%v", err)
			}
			if took := time.Since(began); took > 10*timeout {
				t.Errorf("took %v, with a timeout of %v", took, timeout)
			}
			for _, private := range []string{secret, "someone@example.org", "token_hash", "the-key", "127.0.0.1"} {
				if strings.Contains(err.Error(), private) {
					t.Errorf("the error tells %q: %v", private, err)
				}
			}
			if timedOut := errors.Is(err, context.DeadlineExceeded); timedOut != (name == "hang" || name == "slow drip") {
				t.Errorf("as a deadline: %v: %v", timedOut, err)
			}
			if requests := requests.Load(); requests != 1 {
				t.Errorf("%d requests: redirects are not followed, and retries are the operation's", requests)
			}
		})
	}
}
