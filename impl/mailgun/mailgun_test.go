package mailgun

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/delivery"
)

// timeout is long, for answers that do come.
const timeout = time.Minute

func client(t *testing.T, suffix string, handler http.HandlerFunc) *Client {
	t.Helper()
	return clientFor(t, timeout, suffix, handler)
}

func clientFor(t *testing.T, patience time.Duration, suffix string, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return New(Config{
		Base: server.URL + suffix, Domain: "mg.example.com", Key: "the-key",
		From: mail.Address{Name: "Example", Address: "no-reply@example.com"}, RequireTLS: true, Timeout: patience,
	})
}

// TestBase: with or without a trailing slash or /v3, the base leads to Mailgun's path.
func TestBase(t *testing.T) {
	for _, suffix := range []string{"", "/", "/v3", "/v3/"} {
		var path, user, password string
		c := client(t, suffix, func(w http.ResponseWriter, r *http.Request) {
			path = r.URL.Path
			user, password, _ = r.BasicAuth()
			io.WriteString(w, `{"id":"<1@mg.example.com>","message":"Queued. Thank you."}`)
		})
		if err := c.Send(context.Background(), "a@b.co", delivery.Mail{Subject: "s", Text: "t", HTML: "h"}); err != nil {
			t.Errorf("%q: %v", suffix, err)
		}
		if path != "/v3/mg.example.com/messages" || user != "api" || password != "the-key" {
			t.Errorf("%q: POST %s as %s:%s", suffix, path, user, password)
		}
	}
}

// TestRecipient: the message goes to the stored address alone, unchanged, or quoted if a strict parser would
// refuse it otherwise.
func TestRecipient(t *testing.T) {
	for _, c := range []struct{ stored, sent string }{
		{stored: "a@b.co", sent: "a@b.co"},
		{stored: "UPPER@Example.com", sent: "UPPER@Example.com"},
		{stored: "!#$%&'*+-/=?^_`{|}~.x@example.com", sent: "!#$%&'*+-/=?^_`{|}~.x@example.com"},
		{stored: "a..b@docomo.example", sent: `"a..b"@docomo.example`},
		{stored: ".a@docomo.example", sent: `".a"@docomo.example`},
		{stored: "a.@docomo.example", sent: `"a."@docomo.example`},
		{stored: strings.Repeat("l", 243) + "@example.com", sent: strings.Repeat("l", 243) + "@example.com"},
	} {
		var sent []string
		c2 := client(t, "", func(w http.ResponseWriter, r *http.Request) {
			if err := r.ParseMultipartForm(1 << 20); err != nil {
				t.Error(err)
			}
			sent = r.Form["to"]
			io.WriteString(w, `{"id":"<1@mg.example.com>","message":"Queued. Thank you."}`)
		})
		if err := c2.Send(t.Context(), c.stored, delivery.Mail{Subject: "s", Text: "t", HTML: "h"}); err != nil {
			t.Errorf("%s: %v", c.stored, err)
		}
		if !slices.Equal(sent, []string{c.sent}) {
			t.Errorf("%s: sent to %q, want %q", c.stored, sent, c.sent)
		}
		if read, err := mail.ParseAddressList(c.sent); err != nil || len(read) != 1 || read[0].Address != c.stored {
			t.Errorf("%s is read as %v, %v", c.sent, read, err)
		}
	}
}

// fault is a way in which Mailgun does not accept a message, with its answer.
type fault struct {
	name    string
	handler http.HandlerFunc
	unknown bool // Mailgun may have accepted it nevertheless
	refused bool // the fault may be that of this message alone
	shown   bool // to callers, if a probe finds it
}

var faults = []fault{
	{name: "400", handler: status(400), refused: true},
	{name: "401", handler: status(401), shown: true},
	{name: "402", handler: status(402)},
	{name: "403", handler: status(403)},
	{name: "404", handler: status(404), shown: true},
	{name: "413", handler: status(413), refused: true},
	{name: "420", handler: status(420)},
	{name: "429", handler: status(429)},
	{name: "500", handler: status(500), shown: true},
	{name: "502", handler: status(502), unknown: true, shown: true},
	{name: "503", handler: status(503), shown: true},
	{name: "504", handler: status(504), unknown: true, shown: true},
	{name: "504 with Retry-After", handler: later(504, "60"), unknown: true, shown: true},
	{name: "413 with Retry-After", handler: later(413, "60"), refused: true},
	{name: "garbage", handler: text("<html>" + secret), unknown: true, shown: true},
	{name: "no id", handler: text(`{"message":"` + secret + `"}`), unknown: true, shown: true},
	{name: "empty", handler: func(http.ResponseWriter, *http.Request) {}, unknown: true, shown: true},
	{name: "redirect", handler: func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/"+secret, http.StatusTemporaryRedirect)
	}, shown: true},
	{name: "reset", handler: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, unknown: true, shown: true},
	{name: "cut short", handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `{"id":"<1@mg.example.com>"`)
	}, unknown: true, shown: true},
	{name: "hang", handler: func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() }, unknown: true, shown: true},
	{name: "slow drip", handler: func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, " "); err != nil {
				return
			}
			http.NewResponseController(w).Flush()
			time.Sleep(5 * time.Millisecond)
		}
	}, unknown: true, shown: true},
	{name: "endless", handler: func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"id":"`)
		for chunk := strings.Repeat("x", 64<<10); ; {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
	}, unknown: true, shown: true},
}

const secret = "never-repeat-this"

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{"message":"`+secret+`"}`, code) }
}

func later(code int, retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", retryAfter)
		status(code)(w, r)
	}
}

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }
}

// patience is how long a client waits. It is long unless only the timeout ends the call.
func patience(t *testing.T, f fault) (d time.Duration, hangs bool) {
	t.Helper()
	if f.name != "hang" && f.name != "slow drip" {
		return timeout, false
	}
	t.Parallel()
	return 2 * time.Second, true
}

// TestFaults: only an acceptance counts as one, within the deadline and the bounds. No error repeats the answer,
// the recipient or the link. Each error says what may be done next: whether Mailgun may have accepted the
// message or has not.
func TestFaults(t *testing.T) {
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			patience, hangs := patience(t, fault)
			var requests atomic.Int32
			c := clientFor(t, patience, "", func(w http.ResponseWriter, r *http.Request) { requests.Add(1); fault.handler(w, r) })
			err := c.Send(context.Background(), "someone@example.org", delivery.Mail{Subject: "s", Text: "https://app.example.com/?token_hash=t", HTML: "h"})
			if !errors.Is(err, impl.ErrEmailDelivery) {
				t.Fatalf("%v", err)
			}
			for _, private := range []string{secret, "someone@example.org", "token_hash", "the-key", "127.0.0.1"} {
				if strings.Contains(err.Error(), private) {
					t.Errorf("the error tells %q: %v", private, err)
				}
			}
			if timedOut := errors.Is(err, context.DeadlineExceeded); timedOut != hangs {
				t.Errorf("as a deadline: %v: %v", timedOut, err)
			}
			if requests := requests.Load(); requests != 1 {
				t.Errorf("%d requests: redirects are not followed, and retries are the delivery's", requests)
			}
			if errors.Is(err, delivery.ErrFateUnknown) != fault.unknown || errors.Is(err, delivery.ErrRefused) != fault.refused {
				t.Errorf("%v; fate unknown: want %v; refused: want %v", err, fault.unknown, fault.refused)
			}
		})
	}
}

// TestNeverWritten: a message is known not to be accepted if there was no connection, or if the connection
// broke before anything was written.
func TestNeverWritten(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	withoutTLS := httptest.NewServer(http.NotFoundHandler())
	defer withoutTLS.Close()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name, base string
		ctx        context.Context //nolint:containedctx // of one case
	}{
		{name: "refused", base: closed.URL, ctx: t.Context()},
		{name: "no TLS", base: "https" + strings.TrimPrefix(withoutTLS.URL, "http"), ctx: t.Context()},
		{name: "no such host", base: "http://mailgun.invalid", ctx: t.Context()},
		{name: "cancelled before", base: withoutTLS.URL, ctx: gone},
	} {
		client := New(Config{Base: c.base, Domain: "mg.example.com", Key: "the-key", From: mail.Address{Address: "no-reply@example.com"}, Timeout: time.Minute})
		err := client.Send(c.ctx, "someone@example.org", delivery.Mail{Subject: "s", Text: "t", HTML: "h"})
		if !errors.Is(err, impl.ErrEmailDelivery) || errors.Is(err, delivery.ErrFateUnknown) || errors.Is(err, delivery.ErrRefused) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestCutOff: a message may have been accepted if the call is cancelled before its answer.
func TestCutOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := client(t, "", func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	})
	if err := c.Send(ctx, "someone@example.org", delivery.Mail{Subject: "s", Text: "t", HTML: "h"}); !errors.Is(err, delivery.ErrFateUnknown) {
		t.Errorf("%v", err)
	}
}

// TestProbe: the answer to a test message is shown to callers unless real mail may cause it. The message goes
// to the operator's own address, in test mode, with no personal data.
func TestProbe(t *testing.T) {
	accepted := fault{name: "accepted", handler: text(`{"id":"<1@mg.example.com>","message":"Queued. Thank you."}`)}
	for _, fault := range append(slices.Clone(faults), accepted) {
		t.Run(fault.name, func(t *testing.T) {
			patience, _ := patience(t, fault)
			c := clientFor(t, patience, "", func(w http.ResponseWriter, r *http.Request) {
				if err := r.ParseMultipartForm(1 << 20); err != nil {
					t.Error(err)
				}
				if r.FormValue("o:testmode") != "yes" || r.FormValue("to") != "no-reply@example.com" || r.FormValue("cc")+r.FormValue("bcc") != "" {
					t.Errorf("sent to %s, test mode %q", r.Form["to"], r.FormValue("o:testmode"))
				}
				fault.handler(w, r)
			})
			err := c.Probe(t.Context())
			if (err == nil) != (fault.name == "accepted") || errors.Is(err, impl.ErrEmailDelivery) != fault.shown {
				t.Errorf("%v, want it shown: %v", err, fault.shown)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the error repeats the answer: %v", err)
			}
		})
	}
}

// TestRetryAfter: a 429 with a Retry-After becomes an error with that time, and the message counts neither as
// refused nor as accepted.
func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		handler http.HandlerFunc
		want    time.Duration
	}{{later(429, "7"), 7 * time.Second}, {status(429), 0}, {later(429, "soon"), 0}} {
		err := client(t, "", c.handler).Send(t.Context(), "someone@example.org", delivery.Mail{Subject: "s", Text: "t", HTML: "h"})
		var busy interface{ RetryAfter() time.Duration }
		var after time.Duration
		if errors.As(err, &busy) {
			after = busy.RetryAfter()
		}
		if after != c.want || !errors.Is(err, impl.ErrEmailDelivery) || errors.Is(err, delivery.ErrRefused) || errors.Is(err, delivery.ErrFateUnknown) {
			t.Errorf("%v after %v, want %v", err, after, c.want)
		}
	}
}
