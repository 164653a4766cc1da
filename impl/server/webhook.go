package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/resetd/resetd/impl"
)

// webhookRoute takes Mailgun's reports of mails that it had accepted. It is Mailgun's contract
// and no operation of ours, so openapi.yaml does not have it.
const webhookRoute = "/webhooks/mailgun"

const (
	// maxWebhookBody is a hundred times a report of a mail of ours. The same address may be told
	// of other mails of the domain, with 16 KB of variables and what receiving servers said.
	maxWebhookBody = 256 << 10
	// webhookReadTimeout is for the body. Its sender is a server.
	webhookReadTimeout = 5 * time.Second
	// maxWebhooks are judged at once, which takes 20 µs for a report of a mail of ours, 5 ms for
	// the largest body, and 250 ms where Redis hangs. As many bodies of more than maxBody are read
	// at once: 16 MB. Smaller ones are read from anyone, as the operation's are, so that whoever
	// never ends a large one holds none of ours up.
	maxWebhooks = 64
)

// Webhooks is how reports are judged.
type Webhooks struct {
	// Reader says what a body reports by a clock that says now, or why it is not believed, as one
	// of impl's ErrWebhook….
	Reader interface {
		Read(body []byte, now time.Time) (impl.DeliveryEvent, error)
	}
	// Once lets each event's ID through one time for as long as Reader would believe a copy.
	Once impl.Limit
}

// webhookRefusals is the table from disbelief to answers. Mailgun takes 200 and 406 as final
// and repeats what is answered otherwise, for some hours: that is for what may yet be mended, a
// wrong key here or a wrong clock.
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-retries
//
// 403 and not 401, which would have to name a scheme to authenticate by (RFC 9110, section
// 15.5.2).
var webhookRefusals = []struct {
	err    error
	reason string
	answer *answer
}{
	{impl.ErrWebhookMalformed, "malformed", &answer{status: http.StatusNotAcceptable, code: "webhook_malformed", message: "This is not a webhook of Mailgun's."}},
	{impl.ErrWebhookSignature, "signature", &answer{status: http.StatusForbidden, code: "webhook_signature", message: "The signature does not fit."}},
	{impl.ErrWebhookExpired, "age", &answer{status: http.StatusNotAcceptable, code: "webhook_expired", message: "This was signed too long ago."}},
	{impl.ErrWebhookEarly, "age", &answer{status: http.StatusBadRequest, code: "webhook_early", message: "This was signed in the future."}},
	{errReplay, "replay", nil},
}

// errWebhookOverloaded has a code of its own: anybody can cause it, and it is not what people who
// forgot their password are told.
var errWebhookOverloaded = &answer{status: http.StatusServiceUnavailable, code: "webhook_overloaded", message: errOverloaded.message, retryAfter: errOverloaded.retryAfter}

// errReplay refuses to count, and is answered 200: whoever repeats an event because its answer
// was lost is to stop.
var errReplay = errors.New("seen before")

type webhookMetrics struct {
	events, refused *prometheus.CounterVec
}

func newWebhookMetrics(registry prometheus.Registerer) *webhookMetrics {
	m := &webhookMetrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_delivery_events_total",
			Help: "What Mailgun reported of accepted mails: permanent_fail, temporary_fail, complained; test messages, other senders' mails and other news count as other.",
		}, []string{"event"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_webhook_refused_total",
			Help: "Webhooks that were not believed (signature, age, malformed) or were counted before (replay).",
		}, []string{"reason"}),
	}
	registry.MustRegister(m.events, m.refused)
	// Known from the start, so that a rate sees the first one.
	for _, kind := range impl.DeliveryKinds() {
		m.events.WithLabelValues(string(kind))
	}
	for _, refusal := range webhookRefusals {
		m.refused.WithLabelValues(refusal.reason)
	}
	return m
}

// webhook is the handler of one route. What it answers depends on the body alone, and on
// whether that came before: never on an account.
type webhook struct {
	Config
	reading, judging places
	warned           sync.Once
}

func newWebhook(config Config) *webhook {
	return &webhook{Config: config, reading: make(places, maxWebhooks), judging: make(places, maxWebhooks)}
}

// places bounds how many are somewhere at once; nobody waits for one.
type places chan struct{}

func (p places) take() bool {
	select {
	case p <- struct{}{}:
		return true
	default:
		return false
	}
}

func (p places) free() { <-p }

func (h *webhook) take(c echo.Context) error {
	// Whatever is refused before its body is read: net/http waits for the rest of it.
	_ = http.NewResponseController(c.Response()).SetReadDeadline(time.Now().Add(webhookReadTimeout))
	request := c.Request()
	if !isJSON(request.Header) {
		return errUnsupportedMediaType
	}
	if request.ContentLength < 0 || request.ContentLength > maxBody { // less than 0: not announced
		if !h.reading.take() {
			c.Response().Header()["Connection"] = []string{"close"} // the rest is not worth reading
			return errWebhookOverloaded
		}
		defer h.reading.free()
	}
	body, err := readWebhook(c.Response(), request)
	if err != nil {
		return err
	}
	if !h.judging.take() {
		return errWebhookOverloaded
	}
	defer h.judging.free()

	ctx := request.Context()
	event, err := h.Webhooks.Reader.Read(body, time.Now())
	if err == nil {
		if !h.Webhooks.Once.Take(ctx, event.ID) {
			err = errReplay
		}
	}
	if err != nil {
		if err := h.refuse(err); err != nil {
			return err
		}
	} else {
		h.Observer.reported(ctx, event, h.Fingerprint)
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, []byte(`{"ok":true}`+"\n"))
}

// refuse counts, and returns what to answer; nil for what has been taken before.
func (h *webhook) refuse(err error) error {
	for _, refusal := range webhookRefusals {
		if !errors.Is(err, refusal.err) {
			continue
		}
		h.Observer.webhooks.refused.WithLabelValues(refusal.reason).Inc()
		if errors.Is(err, impl.ErrWebhookSignature) {
			h.warned.Do(func() { // anyone can cause it
				h.Observer.logger.Warn("a webhook is not signed with MAILGUN_WEBHOOK_SIGNING_KEY; from here on this is only counted")
			})
		}
		if refusal.answer == nil {
			return nil
		}
		return refusal.answer
	}
	return err
}

// readWebhook reads at most maxWebhookBody bytes; of more, what was announced is not read at
// all. The buffer grows with what arrives, and not with what is announced.
func readWebhook(w http.ResponseWriter, request *http.Request) ([]byte, error) {
	if request.ContentLength > maxWebhookBody {
		w.Header()["Connection"] = []string{"close"}
		return nil, errPayloadTooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, maxWebhookBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, errPayloadTooLarge
	case err != nil: // 400, so that Mailgun sends it again
		w.Header()["Connection"] = []string{"close"}
		return nil, invalidJSON("The body did not arrive in full.")
	}
	return body, nil
}

// reported counts an event and logs whom it hit, under the hash that the requests for that
// account have in the log.
func (o *Observer) reported(ctx context.Context, event impl.DeliveryEvent, fingerprint func(string) string) {
	o.webhooks.events.WithLabelValues(string(event.Kind)).Inc()
	level := slog.LevelWarn
	switch event.Kind {
	case impl.OtherDelivery:
		return
	case impl.TemporaryFail:
		level = slog.LevelInfo
	case impl.PermanentFail, impl.Complained:
	}
	attrs := []slog.Attr{
		slog.String("request_id", recordOf(ctx).id),
		slog.String("event", string(event.Kind)),
	}
	if event.Recipient != "" {
		attrs = append(attrs, slog.String("account", fingerprint(event.Account())))
	}
	if event.Code != 0 {
		attrs = append(attrs, slog.Int("delivery_code", event.Code))
	}
	o.logger.LogAttrs(ctx, level, "delivery event", attrs...)
}
