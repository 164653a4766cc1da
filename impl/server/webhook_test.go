package server

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

	"github.com/resetd/resetd/impl"
)

// reader and once are what the webhook's handler asks.
type reader func(body []byte) (impl.DeliveryEvent, error)

func (r reader) Read(body []byte, _ time.Time) (impl.DeliveryEvent, error) { return r(body) }

type once func() bool

func (o once) Take(context.Context, string) bool { return o() }

// startWebhook serves a webhook over HTTP; logs may be read when it is closed.
func startWebhook(t *testing.T, read reader, first once) (url string, logs *bytes.Buffer, registry *prometheus.Registry, end func()) {
	t.Helper()
	registry, logs = prometheus.NewRegistry(), &bytes.Buffer{}
	public, err := New(Config{
		Observer:     NewObserver(slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})), registry, nil),
		Fingerprint:  func(string) string { return "hash" },
		AllowBrowser: func(string) bool { return false },
		Webhooks:     &Webhooks{Reader: read, Once: first},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(public)
	t.Cleanup(server.Close)
	return server.URL + webhookRoute, logs, registry, server.Close
}

func post(t *testing.T, url string) (status int, body string) {
	t.Helper()
	client := &http.Client{Timeout: 20 * time.Second}
	response, err := client.Post(url, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	raw, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(raw)
}

// TestWebhooksAtOnce: as many are judged at once as may be, more are refused at once, and every
// place is given back.
func TestWebhooksAtOnce(t *testing.T) {
	t.Parallel()
	inside, goOn := make(chan struct{}, maxWebhooks+1), make(chan struct{})
	var held atomic.Bool
	held.Store(true)
	url, _, _, _ := startWebhook(t,
		func([]byte) (impl.DeliveryEvent, error) { return impl.DeliveryEvent{Kind: impl.OtherDelivery}, nil },
		func() bool {
			if held.Load() {
				inside <- struct{}{}
				<-goOn
			}
			return true
		})
	done := make(chan int, maxWebhooks)
	for range maxWebhooks {
		go func() {
			status, _ := post(t, url)
			done <- status
		}()
	}
	for range maxWebhooks {
		<-inside
	}
	if status, body := post(t, url); status != http.StatusServiceUnavailable || !strings.Contains(body, `"webhook_overloaded"`) {
		t.Errorf("one more than may be: %d %s", status, body)
	}
	held.Store(false)
	close(goOn)
	for range maxWebhooks {
		if status := <-done; status != http.StatusOK {
			t.Errorf("one that was judged: %d", status)
		}
	}
	for range 2 * maxWebhooks {
		if status, body := post(t, url); status != http.StatusOK {
			t.Fatalf("afterwards: %d %s", status, body)
		}
	}
}

// TestWebhookFaults: a fault of our own is answered 500, which Mailgun repeats, counts nothing
// as an event, and takes no place for good.
func TestWebhookFaults(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]reader{
		"error": func([]byte) (impl.DeliveryEvent, error) {
			return impl.DeliveryEvent{Kind: impl.Complained}, errors.New("secret")
		},
		"panic": func([]byte) (impl.DeliveryEvent, error) { panic("secret") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, logs, registry, end := startWebhook(t, read, func() bool { return true })
			for range maxWebhooks + 1 {
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

// TestWebhookWithoutRecipient: an event of nobody known is logged without a hash of nothing.
func TestWebhookWithoutRecipient(t *testing.T) {
	t.Parallel()
	url, logs, _, end := startWebhook(t,
		func([]byte) (impl.DeliveryEvent, error) { return impl.DeliveryEvent{Kind: impl.PermanentFail}, nil },
		func() bool { return true })
	if status, body := post(t, url); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	end()
	if !strings.Contains(logs.String(), `"delivery event"`) || strings.Contains(logs.String(), `"account"`) || strings.Contains(logs.String(), `"delivery_code"`) {
		t.Errorf("the log:\n%s", logs)
	}
}
