package webhook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/resetd/resetd/impl/observe"
	"github.com/resetd/resetd/impl/server"
)

// once says whether a report comes for the first time.
type once func() bool

func (o once) Take(context.Context, string) bool { return o() }

// startWebhook serves a webhook over HTTP, as impl/server does. The log may be read after it is closed.
func startWebhook(t *testing.T, read func([]byte) (event, error), first once) (url string, logs *bytes.Buffer, registry *prometheus.Registry, end func()) {
	t.Helper()
	registry, logs = prometheus.NewRegistry(), &bytes.Buffer{}
	logger := slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	handler := New(Config{Once: first, Fingerprint: func(string) string { return "hash" }, Logger: logger, Registry: registry})
	handler.read = func(body []byte, _ time.Time) (event, error) { return read(body) }
	public, err := server.New(server.Config{
		Recorder: observe.New(logger, registry, nil), Logger: logger, AllowBrowser: func(string) bool { return false }, Webhooks: handler.Take,
	})
	if err != nil {
		t.Fatal(err)
	}
	listening := httptest.NewServer(public)
	t.Cleanup(listening.Close)
	return listening.URL + "/webhooks/mailgun", logs, registry, listening.Close
}

func post(t *testing.T, url string) (status int, body string) {
	t.Helper()
	client := &http.Client{Timeout: time.Minute}
	response, err := client.Post(url, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	raw, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(raw)
}

// TestWebhooksAtOnce: a bounded number of reports is judged at once, and further ones are refused at once. Each
// report frees its place.
func TestWebhooksAtOnce(t *testing.T) {
	t.Parallel()
	inside, goOn := make(chan struct{}, maxAtOnce+1), make(chan struct{})
	var held atomic.Bool
	held.Store(true)
	url, _, _, _ := startWebhook(t,
		func([]byte) (event, error) { return event{kind: other}, nil },
		func() bool {
			if held.Load() {
				inside <- struct{}{}
				<-goOn
			}
			return true
		})
	done := make(chan int, maxAtOnce)
	for range maxAtOnce {
		go func() {
			status, _ := post(t, url)
			done <- status
		}()
	}
	for range maxAtOnce {
		<-inside
	}
	if status, body := post(t, url); status != http.StatusServiceUnavailable || !strings.Contains(body, `"webhook_overloaded"`) {
		t.Errorf("one more than may be: %d %s", status, body)
	}
	held.Store(false)
	close(goOn)
	for range maxAtOnce {
		if status := <-done; status != http.StatusOK {
			t.Errorf("a report with a place: %d", status)
		}
	}
	for range 2 * maxAtOnce {
		if status, body := post(t, url); status != http.StatusOK {
			t.Fatalf("afterwards: %d %s", status, body)
		}
	}
}

// TestWebhookFaults: a bug is answered 500, which Mailgun repeats. It counts no event, and frees its place.
func TestWebhookFaults(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func([]byte) (event, error){
		"error": func([]byte) (event, error) {
			return event{kind: complained}, errors.New("secret")
		},
		"panic": func([]byte) (event, error) { panic("secret") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, logs, registry, end := startWebhook(t, read, func() bool { return true })
			for range maxAtOnce + 1 {
				if status, body := post(t, url); status != http.StatusInternalServerError || strings.Contains(body, "secret") {
					t.Fatalf("%d %s", status, body)
				}
			}
			end()
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			found := 0
			for _, family := range families {
				if family.GetName() == "resetd_delivery_events_total" || strings.HasPrefix(family.GetName(), "resetd_webhook_") {
					for _, metric := range family.GetMetric() {
						found++
						if n := metric.GetCounter().GetValue(); n != 0 {
							t.Errorf("%s %v: %v", family.GetName(), metric.GetLabel(), n)
						}
					}
				}
			}
			if found != 8 {
				t.Errorf("%d counters, want those of 4 events and 4 reasons", found)
			}
			if strings.Contains(logs.String(), "secret") || strings.Contains(logs.String(), "delivery event") {
				t.Errorf("the log:\n%s", logs)
			}
		})
	}
}

// TestWebhookWithoutRecipient: an event without a recipient is logged without a hash.
func TestWebhookWithoutRecipient(t *testing.T) {
	t.Parallel()
	url, logs, _, end := startWebhook(t,
		func([]byte) (event, error) { return event{kind: permanentFail}, nil },
		func() bool { return true })
	if status, body := post(t, url); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	end()
	if !strings.Contains(logs.String(), `"delivery event"`) || strings.Contains(logs.String(), `"account"`) || strings.Contains(logs.String(), `"delivery_code"`) {
		t.Errorf("the log:\n%s", logs)
	}
}
