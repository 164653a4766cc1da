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
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/resetd/resetd/impl"
)

// Observer is what the operator sees: one log record a request, metrics and traces. It is given
// keyed hashes only, and nothing of an upstream's answer (H7).
type Observer struct {
	logger  *slog.Logger
	metrics *metrics
	tracer  trace.Tracer

	webhooks *webhookMetrics
}

var _ impl.Watcher = (*Observer)(nil)

// NewObserver registers its metrics, and logs to logger. A nil tracer traces nothing.
func NewObserver(logger *slog.Logger, registry prometheus.Registerer, tracer trace.Tracer) *Observer {
	if tracer == nil {
		tracer = noop.NewTracerProvider().Tracer("")
	}
	return &Observer{logger: logger, metrics: newMetrics(registry), tracer: tracer, webhooks: newWebhookMetrics(registry)}
}

// LimitsIn is told where limits are counted from now on.
func (o *Observer) LimitsIn(store string) { o.metrics.countLimitsIn(store) }

// record gathers what decided one answer.
type record struct {
	id    string
	began time.Time
	span  trace.Span

	mu      sync.Mutex
	level   slog.Level
	code    string
	client  string
	account string
	outcome impl.EventKind
	notices []string
	fields  []string // that a refused body is wrong in: names of the document's, never a caller's
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
	o.metrics.saw(event.Kind)
	level := slog.LevelInfo
	switch event.Kind {
	case impl.RedirectReplaced, impl.DecoysUsedUp:
		level = slog.LevelWarn
	case impl.Undelivered, impl.Failed:
		level = slog.LevelError
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
	o.metrics.answered(status, r.code, took)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written = true
	outcome := string(r.outcome)
	if outcome == "" && status == http.StatusOK && route == operationRoute {
		outcome = deferredOutcome
	}
	endSpan(r.span, method, route, status, r.code, outcome, r.id)
	level := r.level
	if route != operationRoute {
		level = slog.LevelDebug // probes, and scanners of the internet
	}
	if !o.logger.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 13)
	attrs = append(attrs, slog.String("request_id", r.id), slog.String("method", method), slog.String("route", route),
		slog.Int("status", status), slog.Float64("duration_ms", float64(took.Microseconds())/1000))
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("code", r.code)
	add("outcome", outcome)
	add("account", r.account)
	add("client", r.client)
	if span := r.span.SpanContext(); span.IsSampled() {
		add("trace_id", span.TraceID().String())
	}
	if len(r.notices) > 0 {
		attrs = append(attrs, slog.Any("notices", r.notices))
	}
	if len(r.fields) > 0 {
		attrs = append(attrs, slog.Any("fields", r.fields))
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
		ctx := context.WithValue(request.Context(), recordKey{}, r)
		ctx, r.span = o.startSpan(ctx, request.Header, c.Path())
		c.SetRequest(request.WithContext(ctx))

		header := c.Response().Header()
		header[echo.HeaderXRequestID] = []string{r.id}
		header["Cache-Control"] = []string{"no-store"}
		header["X-Content-Type-Options"] = []string{"nosniff"}

		err := o.recovered(func() error { return next(c) }, r)
		if err != nil {
			a := answerFor(err)
			r.mu.Lock()
			r.code, r.fields = a.code, a.fields()
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
		status := c.Response().Status
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
