// Package webhook answers Mailgun's webhooks: reports on mails that Mailgun had accepted. It counts and logs them.
// Mailgun documents their form, so openapi.yaml does not.
//
// The answer depends only on the body, and on whether the same body came before: never on an account.
package webhook

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/resetd/resetd/impl"
)

const (
	// maxBody bounds a report. It is a hundred times a report on a password-reset mail, because Mailgun may
	// report on other mail of the domain, with 16 KB of variables and the words of receiving servers.
	maxBody = 256 << 10
	// smallBody is larger than any report on a password-reset mail.
	smallBody = 16 << 10
	// readTimeout bounds the reading of a body. Its sender is a server.
	readTimeout = 5 * time.Second
	// maxAtOnce bounds the reports that are judged at once, which takes 20 µs for a report on a
	// password-reset mail, 5 ms for the largest body, and 250 ms where Redis hangs. It also bounds the
	// bodies larger than smallBody that are read at once, to 16 MB. Smaller bodies are read without a bound,
	// as the operation's are, so that stalled large uploads cannot block them.
	maxAtOnce = 64
)

// refusal is an error answer. Mailgun takes 200 and 406 as final, and repeats an event after any other status
// for some hours. Other statuses are therefore for faults that the operator may correct meanwhile: a wrong key,
// or a wrong clock.
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-retries
type refusal struct {
	status        int
	code, message string
	retryAfter    int // seconds; 0: none
}

// The refusals before a body is judged. Anybody can cause the first, so its code is another than overloaded,
// which would count as a failure of the operation.
var (
	overloaded  = &refusal{status: http.StatusServiceUnavailable, code: "webhook_overloaded", message: "The server is busy. Try again in a few seconds.", retryAfter: 5}
	notJSON     = &refusal{status: http.StatusUnsupportedMediaType, code: "unsupported_media_type", message: "Send the request body as application/json."}
	tooLarge    = &refusal{status: http.StatusRequestEntityTooLarge, code: "payload_too_large", message: "The request body is too large."}
	interrupted = &refusal{status: http.StatusBadRequest, code: "invalid_json", message: "The body did not arrive in full."}
)

// errReplay says that an event came before. It is answered 200, so that a sender whose answer was lost stops
// repeating it.
var errReplay = errors.New("seen before")

// disbelief maps the reasons not to count a report to metrics and answers. A nil answer means 200.
//
// The status is 403, because 401 would have to name an authentication scheme (RFC 9110, section 15.5.2).
var disbelief = []struct {
	err    error
	reason string
	answer *refusal
}{
	{errMalformed, "malformed", &refusal{status: http.StatusNotAcceptable, code: "webhook_malformed", message: "This is not a webhook of Mailgun's."}},
	{errSignature, "signature", &refusal{status: http.StatusForbidden, code: "webhook_signature", message: "The signature does not fit."}},
	{errExpired, "age", &refusal{status: http.StatusNotAcceptable, code: "webhook_expired", message: "This was signed too long ago."}},
	{errEarly, "age", &refusal{status: http.StatusBadRequest, code: "webhook_early", message: "This was signed in the future."}},
	{errReplay, "replay", nil},
}

// Config has the parts and the settings of a handler.
type Config struct {
	// SigningKey is the HTTP webhook signing key of the Mailgun account. Without one, nothing is believed.
	SigningKey string
	// Once allows each event once, for as long as a copy of it would be believed.
	Once impl.Limit
	// Fingerprint returns the keyed hash under which the operator sees an account.
	Fingerprint func(account string) string
	Logger      *slog.Logger
	Registry    prometheus.Registerer
}

// Handler answers webhooks. Its methods may be called concurrently.
type Handler struct {
	config           Config
	read             func(body []byte, now time.Time) (event, error)
	reading, judging places
	warned           sync.Once
	events, refused  *prometheus.CounterVec
}

// New returns a handler, and registers its metrics.
func New(config Config) *Handler {
	h := &Handler{
		config: config, read: newVerifier(config.SigningKey).read,
		reading: make(places, maxAtOnce), judging: make(places, maxAtOnce),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_delivery_events_total",
			Help: "What Mailgun reported of accepted mails: permanent_fail, temporary_fail, complained; test messages, other senders' mails and other news count as other.",
		}, []string{"event"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_webhook_refused_total",
			Help: "Webhooks that were not believed (signature, age, malformed) or were counted before (replay).",
		}, []string{"reason"}),
	}
	config.Registry.MustRegister(h.events, h.refused)
	// Known from the start, so that a rate sees the first one.
	for _, kind := range kinds {
		h.events.WithLabelValues(string(kind))
	}
	for _, d := range disbelief {
		h.refused.WithLabelValues(d.reason)
	}
	return h
}

// Take answers a webhook. It returns the code of an error that it has answered, or an unforeseen error that it
// has not answered.
func (h *Handler) Take(w http.ResponseWriter, r *http.Request) (code string, err error) {
	refused, err := h.take(w, r)
	switch {
	case err != nil:
		return "", err
	case refused != nil:
		refused.write(w)
		return refused.code, nil
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"ok":true}`+"\n") // fails only when the sender has gone
	return "", nil
}

func (h *Handler) take(w http.ResponseWriter, r *http.Request) (*refusal, error) {
	// net/http waits for the rest of a body that is refused before it is read.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout))
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/json" {
		return notJSON, nil
	}
	if r.ContentLength < 0 || r.ContentLength > smallBody { // less than 0: not announced
		if !h.reading.take() {
			w.Header().Set("Connection", "close") // the rest is not worth reading
			return overloaded, nil
		}
		defer h.reading.free()
	}
	body, refused := readBody(w, r)
	if refused != nil {
		return refused, nil
	}
	if !h.judging.take() {
		return overloaded, nil
	}
	defer h.judging.free()

	reported, err := h.read(body, time.Now())
	if err == nil && !h.config.Once.Take(r.Context(), reported.id) {
		err = errReplay
	}
	if err != nil {
		return h.refuse(err)
	}
	h.report(r, reported)
	return nil, nil
}

// refuse counts a report that is not believed, and returns what to answer.
func (h *Handler) refuse(err error) (*refusal, error) {
	for _, d := range disbelief {
		if !errors.Is(err, d.err) {
			continue
		}
		h.refused.WithLabelValues(d.reason).Inc()
		if errors.Is(err, errSignature) {
			h.warned.Do(func() { // anyone can cause it
				h.config.Logger.Warn("a webhook is not signed with MAILGUN_WEBHOOK_SIGNING_KEY; from here on this is only counted")
			})
		}
		return d.answer, nil
	}
	return nil, err
}

// report counts an event. It logs the recipient under the same hash as the requests for that account.
func (h *Handler) report(r *http.Request, reported event) {
	h.events.WithLabelValues(string(reported.kind)).Inc()
	level := slog.LevelWarn
	switch reported.kind {
	case other:
		return
	case temporaryFail:
		level = slog.LevelInfo
	case permanentFail, complained:
	}
	attrs := []slog.Attr{slog.String("event", string(reported.kind))}
	if caller := impl.CallerOf(r.Context()); caller != nil {
		attrs = append(attrs, slog.String("request_id", caller.RequestID()))
	}
	if reported.recipient != "" {
		attrs = append(attrs, slog.String("account", h.config.Fingerprint(impl.AccountKey(reported.recipient))))
	}
	if reported.code != 0 {
		attrs = append(attrs, slog.Int("delivery_code", reported.code))
	}
	h.config.Logger.LogAttrs(r.Context(), level, "delivery event", attrs...)
}

// readBody reads at most maxBody bytes. It reads nothing of a body that is announced to be longer. Its buffer
// grows with the bytes that arrive, and not with the announced length.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	if r.ContentLength > maxBody {
		w.Header().Set("Connection", "close")
		return nil, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var exceeded *http.MaxBytesError
	switch {
	case errors.As(err, &exceeded):
		return nil, tooLarge
	case err != nil: // 400, so that Mailgun sends it again
		w.Header().Set("Connection", "close")
		return nil, interrupted
	}
	return body, nil
}

func (a *refusal) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	if a.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(a.retryAfter))
	}
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": a.message, "code": a.code}) // fails only when the sender has gone
}

// places bounds the number of callers at once. take returns false where there is no place, without waiting.
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
