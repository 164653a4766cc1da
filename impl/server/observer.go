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
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/health"
	"github.com/resetd/resetd/impl/ratelimit"
	"github.com/resetd/resetd/impl/redisclient"
)

// Observer is what the operator sees: one log record a request and one a delivery, metrics and
// traces. It is given keyed hashes only, and nothing of an upstream's answer (H7).
type Observer struct {
	logger   *slog.Logger
	refusals *refusals // nil: each of them is logged
	metrics  *metrics
	tracer   trace.Tracer
	traced   bool // the tracer does something

	webhooks *webhookMetrics
}

var (
	_ impl.Watcher   = (*Observer)(nil)
	_ health.Watcher = (*Observer)(nil)
)

// NewObserver registers its metrics, and logs to logger. A nil tracer traces nothing.
func NewObserver(logger *slog.Logger, registry prometheus.Registerer, tracer trace.Tracer) *Observer {
	traced := tracer != nil
	if !traced {
		tracer = noop.NewTracerProvider().Tracer("")
	}
	return &Observer{logger: logger, metrics: newMetrics(registry), tracer: tracer, traced: traced, webhooks: newWebhookMetrics(registry)}
}

// SampleRefusals logs only the first refusals of each second, and how many were left out. It is to be
// called before the first request.
func (o *Observer) SampleRefusals() { o.refusals = &refusals{logger: o.logger} }

// LimitsIn is told where limits are counted from now on.
func (o *Observer) LimitsIn(store string) { isIn(o.metrics.limitsIn, store) }

// RequestsIn is told where accepted requests are kept from now on. reason says why Redis is lost.
func (o *Observer) RequestsIn(redis bool, reason string) {
	if redis {
		isIn(o.metrics.requestsIn, ratelimit.Redis)
		o.logger.Info("accepted requests are kept in Redis", "requests_in", ratelimit.Redis)
		return
	}
	isIn(o.metrics.requestsIn, ratelimit.Memory)
	o.logger.Warn("Redis is lost: accepted requests are kept in memory", "requests_in", ratelimit.Memory, "reason", reason)
}

// Unreadable is told of a request in Redis that another key encrypted.
func (o *Observer) Unreadable() {
	o.logger.Error("a request in Redis was encrypted under another Supabase key, and is dropped")
}

// TakenOver is told of requests in Redis that an instance has left.
func (o *Observer) TakenOver(number int) {
	o.logger.Warn("requests of an instance that has ended were taken over", "requests", number)
}

// Left is told of requests that stay in Redis at the stop.
func (o *Observer) Left(number int) {
	o.logger.Warn("requests are left in Redis, for other instances or the next start", "requests", number)
}

// record gathers what decided one answer.
type record struct {
	id    string
	began time.Time
	span  trace.Span

	level   slog.Level
	code    string
	client  func() string // makes the hash, which is needed only where there is a record; nil: not known
	account string
	outcome impl.EventKind
	notices []string
	fields  []string // that a refused body is wrong in: names of the document's, never a caller's
	err     error
}

var _ impl.Caller = (*record)(nil)

// RequestID implements impl.Caller.
func (r *record) RequestID() string { return r.id }

// Traceparent implements impl.Caller.
func (r *record) Traceparent() string {
	if !r.span.SpanContext().IsValid() { // nothing is traced
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), r.span.SpanContext()), carrier)
	return carrier["traceparent"]
}

// recordOf is the record of a request; nil outside of one.
func recordOf(ctx context.Context) *record {
	r, _ := impl.CallerOf(ctx).(*record)
	return r
}

// Saw implements impl.Watcher. What becomes of a request before its answer goes into its record,
// and the end of its delivery into one of its own.
func (o *Observer) Saw(ctx context.Context, event impl.Event) {
	r := recordOf(ctx)
	if r == nil {
		o.metrics.delivered(event)
		o.delivered(ctx, event)
		return
	}
	o.metrics.asked(event.Kind)
	if r.account = event.Account; event.Kind == impl.CallbackReplaced {
		r.notices = append(r.notices, string(event.Kind))
		return
	}
	r.outcome = event.Kind
}

// noticed counts what a request should not be like, and puts it into its record.
func (o *Observer) noticed(r *record, notice string) {
	o.metrics.notices.WithLabelValues(notice).Inc()
	r.notices = append(r.notices, notice)
}

// delivered writes the record of a delivery.
func (o *Observer) delivered(ctx context.Context, event impl.Event) {
	attrs := []slog.Attr{
		slog.String("request_id", event.RequestID), slog.String("outcome", string(event.Kind)), slog.String("account", event.Account),
		slog.Int("tries", event.Tries), slog.Float64("duration_ms", float64(event.Took.Microseconds())/1000),
	}
	level := slog.LevelInfo
	if event.Replaced {
		attrs = append(attrs, slog.Any("notices", []string{string(impl.RedirectReplaced)}))
	}
	switch {
	case event.Kind == impl.Undelivered:
		level = slog.LevelError
	case event.Kind == impl.Unconfirmed, event.Replaced:
		level = slog.LevelWarn
	}
	if event.Err != nil {
		attrs = append(attrs, slog.String("error", event.Err.Error()))
	}
	o.logger.LogAttrs(ctx, level, "delivery", attrs...)
}

// Probed implements health.Watcher.
func (o *Observer) Probed(upstream string, was, is health.Verdict, err error) {
	o.metrics.verdict.WithLabelValues(upstream, string(was)).Set(0)
	o.metrics.verdict.WithLabelValues(upstream, string(is)).Set(1)
	level := slog.LevelInfo
	switch is {
	case health.Down, health.KeyRefused:
		level = slog.LevelError
	case health.Limited:
		level = slog.LevelWarn
	case health.OK, health.Unknown:
	}
	attrs := []slog.Attr{slog.String("upstream", upstream), slog.String("verdict", string(is)), slog.String("was", string(was))}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	o.logger.LogAttrs(context.Background(), level, "probe", attrs...)
}

// finish writes the record.
func (o *Observer) finish(ctx context.Context, r *record, method, route string, status int) {
	took := time.Since(r.began)
	o.metrics.answered(status, r.code, took)
	endSpan(r.span, method, route, status, r.code, string(r.outcome), r.id)
	level := r.level
	// A preflight that was refused is news: its page says no more than "Failed to fetch".
	preflight := method == http.MethodOptions
	if route != operationRoute || preflight && len(r.notices) == 0 {
		level = slog.LevelDebug // probes, scanners of the internet, and preflights of what comes next
	}
	if !o.logger.Enabled(ctx, level) {
		return
	}
	// What the server itself did wrong is an error, and no refusal.
	if refused := (status >= http.StatusBadRequest || preflight) && level == slog.LevelInfo; refused && o.refusals != nil && !o.refusals.admit() {
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
	add("outcome", string(r.outcome))
	add("account", r.account)
	if r.client != nil {
		add("client", r.client())
	}
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
		attrs = append(attrs, slog.String("error", r.err.Error()))
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
		// Whatever is counted for this request, it waits for Redis only so long in all.
		ctx, span := o.startSpan(impl.WithCaller(redisclient.WithBudget(request.Context()), r), request.Header, c.Path())
		r.span = span
		c.SetRequest(request.WithContext(ctx))

		header := c.Response().Header()
		header[echo.HeaderXRequestID] = []string{r.id}
		header["Cache-Control"] = noStore
		header["X-Content-Type-Options"] = noSniff

		err := o.recovered(func() error { return next(c) }, r)
		if err != nil {
			a := answerFor(err)
			r.code, r.fields = a.code, a.fields()
			if a == errInternal {
				r.err, r.level = internalCause(err), slog.LevelError
			}
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
		o.finish(ctx, r, method, route, c.Response().Status)
		return nil
	}
}

// The values of headers that every answer has.
var noStore, noSniff = []string{"no-store"}, []string{"nosniff"}

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
