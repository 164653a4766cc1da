package observe

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/resetd/resetd/impl"
)

// Call names a kind of call of an upstream.
type Call struct{ upstream, name string }

// The kinds of calls. Calls of probes and of deliveries are counted apart.
var (
	GenerateLink  = Call{"supabase", "generate_link"}
	ProbeSupabase = Call{"supabase", "probe"}
	Send          = Call{"mailgun", "send"}
	ProbeMailgun  = Call{"mailgun", "probe"}
)

// The outcomes of calls.
const (
	callOK        = "ok"
	callNoAccount = "no_account"
	callRefused   = "refused" // the key, or the message
	callFailed    = "failed"
	callTimeout   = "timeout"
)

func (c Call) outcomes() []string {
	if c == GenerateLink {
		return []string{callOK, callNoAccount, callRefused, callFailed, callTimeout}
	}
	return []string{callOK, callRefused, callFailed, callTimeout}
}

func outcomeOf(err error) string {
	var judged interface{ Refused() bool }
	switch {
	case err == nil:
		return callOK
	case errors.Is(err, ErrNoAccount):
		return callNoAccount
	case errors.Is(err, impl.ErrAuthNotConfigured), errors.As(err, &judged) && judged.Refused():
		return callRefused
	case errors.Is(err, context.DeadlineExceeded):
		return callTimeout
	}
	return callFailed
}

// ErrNoAccount is the error to pass to end after a lookup that found no account. It does not count as a failure.
var ErrNoAccount = errors.New("no account")

// Observe opens the span of a call. The caller calls end once, which counts and times the call by its error.
func (o *Observer) Observe(ctx context.Context, c Call) (within context.Context, end func(error)) {
	began := time.Now()
	within, span := ctx, trace.Span(noop.Span{}) // probes belong to no request
	if c.name != ProbeSupabase.name {
		within, span = o.tracer.Start(ctx, c.upstream+" "+c.name, trace.WithSpanKind(trace.SpanKindClient))
	}
	return within, func(err error) {
		outcome := outcomeOf(err)
		o.metrics.upstream.WithLabelValues(c.upstream, c.name, outcome).Inc()
		o.metrics.upstreamDuration.WithLabelValues(c.upstream, c.name).Observe(time.Since(began).Seconds())
		span.SetAttributes(attribute.String("resetd.outcome", outcome))
		if outcome != callOK && outcome != callNoAccount {
			span.SetStatus(codes.Error, outcome)
		}
		span.End()
	}
}

// Observed returns a call that Observe counts, times and traces.
func (o *Observer) Observed(c Call, call func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, end := o.Observe(ctx, c)
		err := call(ctx)
		end(err)
		return err
	}
}

// Attempt opens the span of one attempt of a delivery, in the trace of its request.
func (o *Observer) Attempt(ctx context.Context, request *impl.Request) (within context.Context, end func()) {
	if request.Traceparent == "" { // nothing is traced
		return ctx, func() {}
	}
	carrier := propagation.MapCarrier{"traceparent": request.Traceparent}
	within, span := o.tracer.Start(propagation.TraceContext{}.Extract(ctx, carrier), "delivery",
		trace.WithAttributes(attribute.String("resetd.request_id", request.ID)))
	return within, func() { span.End() }
}
