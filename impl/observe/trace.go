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

// startSpan opens the span of a request. A caller's traceparent becomes a link, and not the parent, because a
// parent decides whether a request is sampled and to which trace it belongs. The caller's tracestate, which may
// hold anything, is dropped.
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

// endSpan ends a span with the attributes of the log's record, but without hashes, because traces go to more
// places than logs.
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

// Propagate adds the trace context of ctx to the headers of a call (W3C Trace Context). It does not pass baggage
// on, because nothing that a caller sent may go to an upstream.
func Propagate(ctx context.Context, header http.Header) {
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(header))
}
