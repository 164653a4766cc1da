package server

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/resetd/resetd/impl"
)

// call is one of the calls that a request causes.
type call struct{ upstream, name string }

var (
	generateLink = call{"supabase", "generate_link"}
	send         = call{"mailgun", "send"}
	sendDecoy    = call{"mailgun", "send_decoy"}
)

// The outcomes of calls.
const (
	callOK        = "ok"
	callNoAccount = "no_account"
	callRefused   = "refused" // the key, or the message: asking again does not help
	callFailed    = "failed"
	callTimeout   = "timeout"
)

func (c call) outcomes() []string {
	if c == generateLink {
		return []string{callOK, callNoAccount, callRefused, callFailed, callTimeout}
	}
	return []string{callOK, callRefused, callFailed, callTimeout}
}

func outcomeOf(err error) string {
	var judged interface{ Refused() bool }
	switch {
	case err == nil:
		return callOK
	case errors.Is(err, impl.ErrAuthNotConfigured), errors.As(err, &judged) && judged.Refused():
		return callRefused
	case errors.Is(err, context.DeadlineExceeded):
		return callTimeout
	}
	return callFailed
}

// begin opens the span of a call; end, which is to be called once, counts it.
func (o *Observer) begin(ctx context.Context, c call) (within context.Context, end func(outcome string)) {
	began := time.Now()
	within, span := o.tracer.Start(ctx, c.upstream+" "+c.name, trace.WithSpanKind(trace.SpanKindClient))
	return within, func(outcome string) {
		o.metrics.upstream.WithLabelValues(c.upstream, c.name, outcome).Inc()
		o.metrics.upstreamDuration.WithLabelValues(c.upstream, c.name).Observe(time.Since(began).Seconds())
		span.SetAttributes(attribute.String("resetd.outcome", outcome))
		if outcome != callOK && outcome != callNoAccount {
			span.SetStatus(codes.Error, outcome)
		}
		span.End()
	}
}

// Links counts, times and traces the calls of next.
func (o *Observer) Links(next impl.LinkMaker) impl.LinkMaker { return observedLinks{o, next} }

type observedLinks struct {
	*Observer
	next impl.LinkMaker
}

func (l observedLinks) MakeLink(ctx context.Context, email, redirectTo string) (*impl.Link, error) {
	ctx, end := l.begin(ctx, generateLink)
	link, err := l.next.MakeLink(ctx, email, redirectTo)
	outcome := outcomeOf(err)
	if outcome == callOK && link == nil {
		outcome = callNoAccount
	}
	end(outcome)
	return link, err
}

// Mailer counts, times and traces the calls of next.
func (o *Observer) Mailer(next impl.Mailer) impl.Mailer { return observedMailer{o, next} }

type observedMailer struct {
	*Observer
	next impl.Mailer
}

func (m observedMailer) Send(ctx context.Context, to string, mail impl.Mail) error {
	ctx, end := m.begin(ctx, send)
	err := m.next.Send(ctx, to, mail)
	end(outcomeOf(err))
	return err
}

func (m observedMailer) SendDecoy(ctx context.Context, mail impl.Mail) error {
	ctx, end := m.begin(ctx, sendDecoy)
	err := m.next.SendDecoy(ctx, mail)
	if err == nil {
		m.metrics.mails.WithLabelValues(decoySent).Inc()
	}
	end(outcomeOf(err))
	return err
}
