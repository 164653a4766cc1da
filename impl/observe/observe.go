// Package observe writes what the operator sees: a log record for each request and each delivery, metrics and
// traces. It must be given keyed hashes of clients and accounts only, and nothing of an upstream's answer.
package observe

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/clientip"
	"github.com/resetd/resetd/impl/health"
	"github.com/resetd/resetd/impl/server"
)

// Observer keeps the log, the metrics and the traces. Its methods may be called concurrently.
type Observer struct {
	logger   *slog.Logger
	refusals *refusals // nil: each of them is logged
	metrics  *metrics
	tracer   trace.Tracer
	traced   bool // the tracer does something
}

var (
	_ impl.Watcher   = (*Observer)(nil)
	_ health.Watcher = (*Observer)(nil)

	_ server.Recorder = (*Observer)(nil)
)

// New returns an observer that logs to logger, and registers its metrics. A nil tracer traces nothing.
func New(logger *slog.Logger, registry prometheus.Registerer, tracer trace.Tracer) *Observer {
	traced := tracer != nil
	if !traced {
		tracer = noop.NewTracerProvider().Tracer("")
	}
	return &Observer{logger: logger, metrics: newMetrics(registry), tracer: tracer, traced: traced}
}

// SampleRefusals makes the observer log only the first refusals of each second, and the number of the others.
// Call it before the first request.
func (o *Observer) SampleRefusals() { o.refusals = &refusals{logger: o.logger} }

// Where limits are counted, and accepted requests kept.
const (
	inMemory = "memory"
	inRedis  = "redis"
)

// LimitsIn records where limits are counted from now on: memory or redis.
func (o *Observer) LimitsIn(store string) { isIn(o.metrics.limitsIn, store) }

// RequestsIn records where accepted requests are kept from now on. reason says why Redis is lost.
func (o *Observer) RequestsIn(redis bool, reason string) {
	if redis {
		isIn(o.metrics.requestsIn, inRedis)
		o.logger.Info("accepted requests are kept in Redis", "requests_in", inRedis)
		return
	}
	isIn(o.metrics.requestsIn, inMemory)
	o.logger.Warn("Redis is lost: accepted requests are kept in memory", "requests_in", inMemory, "reason", reason)
}

// GivenUp records a pending request that was given up because there were too many.
func (o *Observer) GivenUp() { o.metrics.givenUp.Inc() }

// Unreadable records a request in Redis that another key encrypted.
func (o *Observer) Unreadable() {
	o.metrics.unreadable.Inc()
	o.logger.Error("a request in Redis was encrypted under another Supabase key, and is dropped")
}

// TakenOver records requests in Redis that were taken over from an instance that has ended.
func (o *Observer) TakenOver(number int) {
	o.metrics.takenOver.Add(float64(number))
	o.logger.Warn("requests of an instance that has ended were taken over", "requests", number)
}

// Left records requests that stay in Redis at the stop.
func (o *Observer) Left(number int) {
	o.logger.Warn("requests are left in Redis, for other instances or the next start", "requests", number)
}

// record collects what the log says about one request.
type record struct {
	observer *Observer
	id       string
	began    time.Time
	span     trace.Span

	client  func() string // nil: not known
	from    clientip.Source
	account string
	outcome impl.EventKind
	notices []string
}

// Begin implements server.Recorder.
func (o *Observer) Begin(ctx context.Context, id string, header http.Header, route string) (context.Context, server.Record) {
	r := &record{observer: o, id: id, began: time.Now()}
	ctx, r.span = o.startSpan(impl.WithCaller(ctx, r), header, route)
	return ctx, r
}

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

// SetClient implements server.Record.
func (r *record) SetClient(from clientip.Source, hash func() string) { r.from, r.client = from, hash }

// Notice implements server.Record.
func (r *record) Notice(name string) {
	r.observer.metrics.notices.WithLabelValues(name).Inc()
	r.notices = append(r.notices, name)
}

// Panicked implements server.Record.
func (r *record) Panicked(kind string, stack []byte) {
	r.observer.logger.Error("panic", "request_id", r.id, "type", kind, "stack", string(stack))
}

// Saw implements impl.Watcher. An event before the answer goes into the request's record, and the end of a
// delivery into a record of its own.
func (o *Observer) Saw(ctx context.Context, event impl.Event) {
	r, ofRequest := impl.CallerOf(ctx).(*record)
	if !ofRequest {
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

// End implements server.Record.
func (r *record) End(a server.Answered) {
	o, took := r.observer, time.Since(r.began)
	o.metrics.answered(a, took)
	if r.client != nil {
		o.metrics.clientOf(r.from, a)
	}
	endSpan(r.span, a, string(r.outcome), r.id)
	level := slog.LevelInfo
	// A refused preflight is logged, because the page says no more than "Failed to fetch".
	preflight := a.Method == http.MethodOptions
	switch {
	case a.Route != server.OperationRoute, preflight && len(r.notices) == 0:
		level = slog.LevelDebug // health checks, scanners of the internet, and preflights of requests that follow
	case a.Err != nil:
		level = slog.LevelError
	}
	if !o.logger.Enabled(context.Background(), level) {
		return
	}
	// A fault of the server itself is an error, and not a refusal.
	if refused := (a.Status >= http.StatusBadRequest || preflight) && level == slog.LevelInfo; refused && o.refusals != nil && !o.refusals.admit() {
		return
	}
	attrs := make([]slog.Attr, 0, 13)
	attrs = append(attrs, slog.String("request_id", r.id), slog.String("method", a.Method), slog.String("route", a.Route),
		slog.Int("status", a.Status), slog.Float64("duration_ms", float64(took.Microseconds())/1000))
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("code", a.Code)
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
	if len(a.Fields) > 0 {
		attrs = append(attrs, slog.Any("fields", a.Fields))
	}
	if a.Err != nil {
		attrs = append(attrs, slog.String("error", a.Err.Error()))
	}
	o.logger.LogAttrs(context.Background(), level, "request", attrs...)
}
