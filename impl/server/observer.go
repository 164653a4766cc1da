package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/ratelimit"
)

// Observer is what the operator sees: one log record a request, and counters. It is given
// keyed hashes only, and nothing of an upstream's answer (H7).
type Observer struct {
	logger   *slog.Logger
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	outcomes *prometheus.CounterVec
	notices  *prometheus.CounterVec
	limitsIn *prometheus.GaugeVec
}

var _ impl.Watcher = (*Observer)(nil)

// NewObserver registers its metrics, and logs to logger.
func NewObserver(logger *slog.Logger, registry prometheus.Registerer) *Observer {
	o := &Observer{
		logger: logger,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_requests_total",
			Help: "Answers of the public listener, by status and by the code of the error body (empty for none).",
		}, []string{"status", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "resetd_request_duration_seconds",
			Help:    "Time from the request's headers to its answer, on the beat of RESPONSE_QUANTUM.",
			Buckets: []float64{.001, .005, .025, .1, .25, .5, 1, 1.5, 2, 5, 10, 30},
		}, []string{"status"}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_outcomes_total",
			Help: "What became of valid requests: sent, no_account, suppressed, undelivered, failed.",
		}, []string{"outcome"}),
		notices: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_notices_total",
			Help: "What was noticed on the way: callback_replaced, redirect_replaced, decoys_used_up.",
		}, []string{"notice"}),
	}
	o.limitsIn = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "resetd_limits_in",
		Help: "1 for where the limits are counted now, memory or redis, and 0 for the other.",
	}, []string{"store"})
	registry.MustRegister(o.requests, o.duration, o.outcomes, o.notices, o.limitsIn)
	o.LimitsIn(ratelimit.Memory)
	// Known from the start, so that an alert on a rate sees the first one.
	for _, kind := range []impl.EventKind{impl.Sent, impl.NoAccount, impl.Suppressed, impl.Undelivered, impl.Failed} {
		o.outcomes.WithLabelValues(string(kind))
	}
	for _, kind := range []impl.EventKind{impl.CallbackReplaced, impl.RedirectReplaced, impl.DecoysUsedUp} {
		o.notices.WithLabelValues(string(kind))
	}
	return o
}

// LimitsIn is told where limits are counted from now on.
func (o *Observer) LimitsIn(store string) {
	for _, name := range []string{ratelimit.Memory, ratelimit.Redis} {
		o.limitsIn.WithLabelValues(name).Set(0)
	}
	o.limitsIn.WithLabelValues(store).Set(1)
}

// record gathers what decided one answer.
type record struct {
	id    string
	began time.Time

	mu      sync.Mutex
	level   slog.Level
	code    string
	client  string
	account string
	outcome impl.EventKind
	notices []string
	err     error
	written bool
}

type recordKey struct{}

// recordOf is the record of a request; never nil below the observer's middleware.
func recordOf(ctx context.Context) *record {
	r, _ := ctx.Value(recordKey{}).(*record)
	return r
}

// Saw implements impl.Watcher.
func (o *Observer) Saw(ctx context.Context, event impl.Event) {
	level := slog.LevelInfo
	switch event.Kind {
	case impl.CallbackReplaced, impl.RedirectReplaced, impl.DecoysUsedUp:
		o.notices.WithLabelValues(string(event.Kind)).Inc()
		level = slog.LevelWarn
		if event.Kind == impl.CallbackReplaced {
			level = slog.LevelInfo // anyone can cause it
		}
	default:
		o.outcomes.WithLabelValues(string(event.Kind)).Inc()
		if event.Kind == impl.Undelivered || event.Kind == impl.Failed {
			level = slog.LevelError
		}
	}
	r := recordOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.written { // a delivery that outlived its answer
		o.logger.LogAttrs(ctx, level, "delivery", slog.String("request_id", r.id),
			slog.String("outcome", string(event.Kind)), slog.String("account", event.Account), errorAttr(event.Err))
		return
	}
	r.level = max(r.level, level)
	r.account = event.Account
	switch event.Kind {
	case impl.CallbackReplaced, impl.RedirectReplaced, impl.DecoysUsedUp:
		r.notices = append(r.notices, string(event.Kind))
	default:
		r.outcome, r.err = event.Kind, event.Err
	}
}

func errorAttr(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	return slog.String("error", err.Error())
}

// deferredOutcome stands in a request's record where its delivery goes on after the answer;
// a record "delivery" with the same id follows.
const deferredOutcome = "deferred"

// finish writes the record.
func (o *Observer) finish(ctx context.Context, r *record, method, route string, status int) {
	took := time.Since(r.began)
	o.requests.WithLabelValues(strconv.Itoa(status), r.code).Inc()
	o.duration.WithLabelValues(strconv.Itoa(status)).Observe(took.Seconds())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written = true
	level := r.level
	if route != operationRoute {
		level = slog.LevelDebug // probes, and scanners of the internet
	}
	if !o.logger.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs, slog.String("request_id", r.id), slog.String("method", method), slog.String("route", route),
		slog.Int("status", status), slog.Float64("duration_ms", float64(took.Microseconds())/1000))
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("code", r.code)
	outcome := string(r.outcome)
	if outcome == "" && status == http.StatusOK && route == operationRoute {
		outcome = deferredOutcome
	}
	add("outcome", outcome)
	add("account", r.account)
	add("client", r.client)
	if len(r.notices) > 0 {
		attrs = append(attrs, slog.Any("notices", r.notices))
	}
	if r.err != nil {
		attrs = append(attrs, errorAttr(r.err))
	}
	o.logger.LogAttrs(ctx, level, "request", attrs...)
}

// plainID is a request id that may be taken over: short, and nothing but a name.
var plainID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func requestID(header http.Header) string {
	if id := header.Get(echo.HeaderXRequestID); plainID.MatchString(id) {
		return id
	}
	raw := make([]byte, 16)
	rand.Read(raw) // never fails (crypto/rand)
	return hex.EncodeToString(raw)
}

// middleware opens the record, sets the headers of every answer, turns errors and panics into
// answers, and writes the record when the answer is out of the handler's hands.
func (o *Observer) middleware(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		request := c.Request()
		r := &record{id: requestID(request.Header), began: time.Now(), level: slog.LevelInfo}
		c.SetRequest(request.WithContext(context.WithValue(request.Context(), recordKey{}, r)))

		header := c.Response().Header()
		header[echo.HeaderXRequestID] = []string{r.id}
		header["Cache-Control"] = []string{"no-store"}
		header["X-Content-Type-Options"] = []string{"nosniff"}

		err := o.recovered(func() error { return next(c) }, r)
		if err != nil {
			a := answerFor(err)
			r.mu.Lock()
			r.code = a.code
			if a == errInternal && r.err == nil {
				r.err, r.level = internalCause(err), slog.LevelError
			}
			r.mu.Unlock()
			if !c.Response().Committed {
				a.write(c.Response())
			}
		}
		method, route := request.Method, c.Path()
		if route == "" || c.Response().Status == http.StatusNotFound || c.Response().Status == http.StatusMethodNotAllowed {
			route = "unmatched" // what was asked for instead may be anything
		}
		if !knownMethods[method] {
			method = "other"
		}
		ctx, status := request.Context(), c.Response().Status
		atEnd(ctx, func() { o.finish(ctx, r, method, route, status) })
		return nil
	}
}

var knownMethods = map[string]bool{
	http.MethodGet: true, http.MethodHead: true, http.MethodPost: true, http.MethodPut: true,
	http.MethodPatch: true, http.MethodDelete: true, http.MethodOptions: true,
}

// internalCause keeps of an unforeseen error what cannot hold anything of the request: a
// library's text might.
func internalCause(err error) error {
	var p *panicError
	if errors.As(err, &p) {
		return p
	}
	return fmt.Errorf("unforeseen error of type %T", err)
}

type panicError struct{ kind string }

func (p *panicError) Error() string { return "panic: " + p.kind }

// recovered turns a panic into an error. Its value may hold anything, so only its type and the
// stack are logged.
func (o *Observer) recovered(handle func() error, r *record) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p)
		default:
			err = &panicError{fmt.Sprintf("%T", p)}
			o.logger.Error("panic", "request_id", r.id, "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
		}
	}()
	return handle()
}
