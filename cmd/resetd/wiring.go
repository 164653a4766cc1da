package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/health"
	"github.com/resetd/resetd/impl/mailgun"
	"github.com/resetd/resetd/impl/message"
	"github.com/resetd/resetd/impl/observe"
	"github.com/resetd/resetd/impl/outbox"
	"github.com/resetd/resetd/impl/ratelimit"
	"github.com/resetd/resetd/impl/server"
	"github.com/resetd/resetd/impl/supabase"
	"github.com/resetd/resetd/impl/webhook"
)

// app is the wired program.
type app struct {
	settings    *settings
	logger      *slog.Logger
	limits      *ratelimit.Store
	health      *health.Health
	outbox      requests
	service     *impl.Service
	public      http.Handler
	admin       http.Handler
	ready       *server.Readiness
	closeTracer func() // sends the last spans
}

// newApp wires the rooms.
func newApp(ctx context.Context, s *settings, logger *slog.Logger) (*app, error) {
	var tracer trace.Tracer
	closeTracer := func() {}
	if s.tracing {
		var err error
		if tracer, closeTracer, err = newTracer(ctx, logger); err != nil {
			return nil, err
		}
	}
	registry := prometheus.NewRegistry()
	observer := observe.New(logger, registry, tracer)
	if s.LogRefusals == "sampled" {
		observer.SampleRefusals()
	}
	fingerprint := newFingerprint(keyFrom(s.SupabaseKey, "fingerprints in the log"))
	limits, err := newLimits(s, logger, observer.LimitsIn)
	if err != nil {
		return nil, err
	}

	upstreams := newHealth(s, observer)
	pending, err := newOutbox(s, &delivery.Deliverer{
		Writer: mailWriter{s.writer, s.reread}, Watcher: observer, Resting: upstreams.Resting,
		LinkMode: delivery.LinkMode(s.LinkMode), Timeout: s.DeliveryTimeout,
		MaxLinkAge:  s.LinkExpiresIn / 10, // the mail says how long the link works
		Fingerprint: fingerprint,
	}, observer)
	if err != nil {
		return nil, err
	}
	service := &impl.Service{
		Health: upstreams, Outbox: pending, Watcher: observer, Fingerprint: fingerprint,
		Recipients: limit{limits.Limiter("recipient", s.RecipientLimit)},
	}
	if s.pages != nil {
		service.Pages = s.pages
	}

	serverConfig := server.Config{
		Operation:    service,
		Recorder:     observer,
		Logger:       logger,
		Limit:        limits.Limiter("ip", s.RateLimit),
		ClientIP:     s.clientIP,
		Fingerprint:  fingerprint,
		Docs:         s.APIDocs == "on",
		AllowBrowser: s.browser.Allows,
		AnyBrowser:   s.browser.Any(),
	}
	if s.CallbackOriginPolicy == "reject" && s.pages != nil {
		serverConfig.AllowCallback = func(callback string) bool {
			_, allowed := s.pages.Resolve(callback)
			return allowed
		}
	}
	webhooks := webhook.New(webhook.Config{
		SigningKey: s.WebhookKey.Reveal(), Fingerprint: fingerprint, Logger: logger, Registry: registry,
		// A day is the first period that is longer than a webhook is accepted.
		Once: limit{limits.Limiter("webhook", ratelimit.Rate{{Limit: 1, Period: 24 * time.Hour}})},
	})
	if s.WebhookKey != "" {
		serverConfig.Webhooks = webhooks.Take
	}
	ready := server.NewReadiness(s.missing())
	serverConfig.Readiness = ready
	public, err := server.New(serverConfig)
	if err != nil {
		return nil, err
	}
	observer.ObserveProcess(version, revision(), ready.Ready, s.redis != nil)
	return &app{
		settings: s, logger: logger, limits: limits, health: upstreams, outbox: pending, service: service, public: public,
		admin: server.Admin(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), ready), ready: ready, closeTracer: closeTracer,
	}, nil
}

// newHealth makes the probes. Each has its own client, because a connection that a mail has opened would make it
// quicker.
func newHealth(s *settings, observer *observe.Observer) *health.Health {
	switch {
	case !s.supabase().Set() || s.pages == nil:
		return health.Fixed(impl.ErrAuthNotConfigured)
	case !s.mailgun().Set():
		return health.Fixed(impl.ErrEmailDelivery)
	}
	links, mailer := supabase.New(s.supabase()), mailgun.New(s.mailgun())
	redirectTo := s.pages.Site()
	probes := []health.Probe{health.Supabase(observer.Observed(observe.ProbeSupabase, func(ctx context.Context) error {
		return links.CheckUnknown(ctx, redirectTo)
	}))}
	if s.MailProbe != "off" {
		probes = append(probes, health.Mailgun(observer.Observed(observe.ProbeMailgun, mailer.Probe)))
	}
	// A request may first wait for two questions, and the last attempt of its delivery may make three calls: a test
	// message, a lookup and a mail.
	return health.New(observer, s.DeliveryTimeout+5*s.UpstreamTimeout, probes...)
}

// pendingFactor bounds the undelivered requests by those of a minute, which is how long an outage of Mailgun may go
// unnoticed. Each takes about 1 kB.
const pendingFactor = int(time.Minute / outbox.Window)

// requests holds accepted requests until they are delivered, in memory or in Redis.
type requests interface {
	impl.Outbox
	Pending() (number int, oldest time.Time)
	Close(ctx context.Context) error
}

// newOutbox makes the outbox of deliveries. It stays empty while Health reports that an upstream is not configured.
func newOutbox(s *settings, d *delivery.Deliverer, observer *observe.Observer) (requests, error) {
	configured := s.supabase().Set() && s.mailgun().Set()
	if configured {
		links, mailer := supabase.New(s.supabase()), mailgun.New(s.mailgun())
		d.Links, d.Mailer = observedLinks{observer, links}, observedMailer{observer, mailer}
		if s.MailProbe != "off" {
			d.Test = observer.Observed(observe.ProbeMailgun, mailer.Probe)
		}
	}
	config := outbox.Config{
		Begin:       func(r impl.Request) outbox.Delivery { return d.Begin(r) },
		MaxAccepted: s.MaxAccepted, MaxPending: pendingFactor * s.MaxAccepted, MaxAtOnce: s.MaxDeliveries,
		GivenUp: observer.GivenUp,
	}
	var pending requests
	if s.redis == nil || !configured {
		pending = outbox.New(config)
	} else {
		var err error
		pending, err = outbox.OpenShared(outbox.SharedConfig{
			Config: config, Redis: s.redis, Project: hashOf(s.authURL),
			Key:         keyFrom(s.SupabaseKey, "requests in Redis"),
			Fingerprint: newFingerprint(keyFrom(s.SupabaseKey, "accounts in Redis")),
			Keep:        s.DeliveryTimeout + time.Minute, // the last attempt may end later
			Attempt:     3 * s.UpstreamTimeout,           // a test message, a lookup and a mail
			Changed:     observer.RequestsIn, Unreadable: observer.Unreadable, TakenOver: observer.TakenOver, Left: observer.Left,
		})
		if err != nil {
			return nil, err
		}
	}
	observer.ObservePending(pending.Pending)
	return pending, nil
}

// observedLinks and observedMailer count, time and trace the calls of deliveries.
type observedLinks struct {
	observer *observe.Observer
	next     delivery.LinkMaker
}

func (o observedLinks) MakeLink(ctx context.Context, email, redirectTo string) (*delivery.Link, error) {
	ctx, end := o.observer.Observe(ctx, observe.GenerateLink)
	link, err := o.next.MakeLink(ctx, email, redirectTo)
	if err == nil && link == nil {
		end(observe.ErrNoAccount)
	} else {
		end(err)
	}
	return link, err
}

type observedMailer struct {
	observer *observe.Observer
	next     delivery.Mailer
}

func (o observedMailer) Send(ctx context.Context, to string, mail delivery.Mail) error {
	return o.observer.Observed(observe.Send, func(ctx context.Context) error { return o.next.Send(ctx, to, mail) })(ctx)
}

func newLimits(s *settings, logger *slog.Logger, onChange func(store string)) (*ratelimit.Store, error) {
	return ratelimit.Open(ratelimit.Options{
		Redis:    s.redis,
		HashKey:  keyFrom(s.SupabaseKey, "keys of the limits"),
		Logger:   logger,
		OnChange: onChange,
	})
}

func (s *settings) supabase() supabase.Config {
	return supabase.Config{
		AuthURL: s.authURL, Key: s.SupabaseKey.Reveal(), Timeout: s.UpstreamTimeout, LanguageField: s.LanguageField, Propagate: observe.Propagate,
	}
}

func (s *settings) mailgun() mailgun.Config {
	return mailgun.Config{
		Base: s.MailgunBase, Domain: s.MailgunDomain, Key: s.MailgunKey.Reveal(),
		From: s.from, ReplyTo: s.replyTo, RequireTLS: s.RequireTLS == "on", Timeout: s.UpstreamTimeout,
	}
}

// limit and mailWriter adapt the rooms to the operation's interfaces.
type limit struct{ *ratelimit.Limiter }

func (l limit) Take(ctx context.Context, key string) bool { return l.Limiter.Take(ctx, key).Allowed }

type mailWriter struct {
	*message.Renderer
	reread func() *message.Renderer // nil: the templates are read once
}

func (w mailWriter) Write(accountLanguage, acceptLanguage, link string) (delivery.Mail, error) {
	renderer := w.Renderer
	if w.reread != nil {
		renderer = w.reread()
	}
	mail, err := renderer.Render(accountLanguage, acceptLanguage, link)
	return delivery.Mail(mail), err
}
