package observe

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/resetd/resetd/impl/server"
)

// startSpan opens the span of a request. A caller's traceparent becomes a link, and not the
// parent: anyone may send one, and with a parent's it is the caller who decides what is sampled
// and into whose trace it goes. Its tracestate, which may hold anything, is left behind.
func (o *Observer) startSpan(ctx context.Context, header http.Header, route string) (context.Context, trace.Span) {
	if !o.traced || route == server.HealthRoute || route == server.ReadyRoute { // asked every few seconds
		return ctx, noop.Span{}
	}
	options := []trace.SpanStartOption{trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindServer)}
	callers := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(header)))
	if callers.IsValid() {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: callers.WithTraceState(trace.TraceState{})}))
	}
	return o.tracer.Start(ctx, "request", options...)
}

// endSpan says what the log's record says, without the hashes: traces go further than logs.
func endSpan(span trace.Span, a server.Answered, outcome, requestID string) {
	if !span.IsRecording() {
		return
	}
	span.SetName(a.Method + " " + a.Route)
	attributes := []attribute.KeyValue{
		attribute.String("http.request.method", a.Method), attribute.String("http.route", a.Route),
		attribute.Int("http.response.status_code", a.Status), attribute.String("resetd.request_id", requestID),
	}
	if a.Code != "" {
		attributes = append(attributes, attribute.String("error.type", a.Code))
	}
	if outcome != "" {
		attributes = append(attributes, attribute.String("resetd.outcome", outcome))
	}
	span.SetAttributes(attributes...)
	if a.Status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, a.Code)
	}
	span.End()
}

// Propagate adds the trace context of ctx to the headers of a call (W3C Trace Context). Baggage
// is not passed on: nothing of a caller's goes to an upstream.
func Propagate(ctx context.Context, header http.Header) {
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(header))
}
