package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/trace"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/mailgun"
	"github.com/resetd/resetd/impl/message"
	"github.com/resetd/resetd/impl/ratelimit"
	"github.com/resetd/resetd/impl/server"
	"github.com/resetd/resetd/impl/supabase"
)

// app is the program put together.
type app struct {
	settings    *settings
	logger      *slog.Logger
	limits      *ratelimit.Store
	service     *impl.Service
	public      *server.Server
	admin       http.Handler
	ready       *server.Readiness
	closeTracer func() // sends the last spans
}

// newApp wires the rooms together.
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
	observer := server.NewObserver(logger, registry, tracer)
	fingerprint := newFingerprint(keyFrom(s.SupabaseKey, "fingerprints in the log"))
	limits, err := newLimits(s, logger, observer.LimitsIn)
	if err != nil {
		return nil, err
	}
	writer, err := newWriter(s)
	if err != nil {
		return nil, err
	}

	config := impl.Config{
		Writer:      writer,
		Recipients:  limit{limits.Limiter("recipient", s.RecipientLimit)},
		Watcher:     observer,
		ResetPath:   s.ResetPath,
		LinkMode:    impl.LinkMode(s.LinkMode),
		AuthURL:     s.authURL,
		CallTimeout: s.UpstreamTimeout,
		Quantum:     s.ResponseQuantum,
		Decide:      server.Decide,
		MaxDeferred: s.MaxInFlight,
		Fingerprint: fingerprint,
	}
	if client := newSupabase(s); client != nil {
		config.Links = observer.Links(client)
	}
	if client := newMailgun(s); client != nil {
		config.Mailer = observer.Mailer(client)
	}
	if s.origins != nil {
		config.Origins = s.origins
	}
	if s.MailDecoy != "off" {
		config.Decoys = limit{limits.Limiter("decoy", s.MailDecoyLimit)}
	}
	service := impl.New(config)

	serverConfig := server.Config{
		Operation:    service,
		Observer:     observer,
		Limit:        limits.Limiter("ip", s.RateLimit),
		ClientIP:     ratelimit.ClientIP{Trusted: s.proxies},
		Fingerprint:  fingerprint,
		Quantum:      s.ResponseQuantum,
		MaxInFlight:  s.MaxInFlight,
		Docs:         s.APIDocs == "on",
		AllowBrowser: func(string) bool { return false },
	}
	if s.browser != nil {
		serverConfig.AllowBrowser = s.browser.Allows
	}
	if s.CallbackOriginPolicy == "reject" && s.origins != nil {
		serverConfig.AllowCallback = func(callback string) bool {
			_, allowed := s.origins.Resolve(callback)
			return allowed
		}
	}
	if s.WebhookKey != "" {
		serverConfig.Webhooks = &server.Webhooks{
			Reader: mailgun.NewWebhooks(s.WebhookKey.Reveal()),
			// A day is the first period that is longer than a webhook is believed.
			Once: limit{limits.Limiter("webhook", ratelimit.Rate{{Limit: 1, Period: 24 * time.Hour}})},
		}
	}
	public, err := server.New(serverConfig)
	if err != nil {
		return nil, err
	}
	describe(registry, s, service)
	ready := server.NewReadiness(s.missing())
	return &app{
		settings: s, logger: logger, limits: limits, service: service, public: public,
		admin: server.Admin(registry, ready), ready: ready, closeTracer: closeTracer,
	}, nil
}

// describe adds what the process is, beside what its server counts.
func describe(registry *prometheus.Registry, s *settings, service *impl.Service) {
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
	}
	gauge("resetd_build_info", "1; the labels say what is running.",
		prometheus.Labels{"version": version, "revision": revision(), "goversion": runtime.Version()},
		func() float64 { return 1 })
	gauge("resetd_redis_configured", "1 where REDIS_URL is set: the limits should be counted there.", nil, func() float64 {
		if s.RedisURL == "" {
			return 0
		}
		return 1
	})
	gauge("resetd_deliveries_deferred", "Mails that are still being tried after their request was answered; MAX_IN_FLIGHT bounds them.", nil,
		func() float64 { return float64(service.Deferred()) })
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

func newLimits(s *settings, logger *slog.Logger, onChange func(store string)) (*ratelimit.Store, error) {
	limits, err := ratelimit.Open(ratelimit.Options{
		RedisURL: s.RedisURL.Reveal(),
		HashKey:  keyFrom(s.SupabaseKey, "keys of the limits"),
		Logger:   logger,
		OnChange: onChange,
	})
	if err != nil {
		return nil, mistakes{"REDIS_URL: " + err.Error()}
	}
	return limits, nil
}

func newWriter(s *settings) (mailWriter, error) {
	writer, err := message.New(message.Options{
		Brand:         message.Brand{Name: s.BrandName, LogoURL: s.BrandLogoURL, SupportEmail: s.SupportEmail},
		LinkExpiresIn: s.LinkExpiresIn,
		TemplatesDir:  s.TemplatesDir,
	})
	return mailWriter{writer}, err
}

// newSupabase returns nil where Supabase is not configured.
func newSupabase(s *settings) *supabase.Client {
	if s.authURL == "" || s.SupabaseKey == "" {
		return nil
	}
	return supabase.New(supabase.Config{
		AuthURL: s.authURL, Key: s.SupabaseKey.Reveal(), Timeout: s.UpstreamTimeout, Propagate: server.Propagate,
	})
}

// newMailgun returns nil where Mailgun is not configured.
func newMailgun(s *settings) *mailgun.Client {
	if s.MailgunKey == "" || s.MailgunDomain == "" {
		return nil
	}
	return mailgun.New(mailgun.Config{
		Base: s.MailgunBase, Domain: s.MailgunDomain, Key: s.MailgunKey.Reveal(),
		From: s.MailFrom, ReplyTo: s.MailReplyTo, DecoyTo: s.from.Address, Timeout: s.UpstreamTimeout,
	})
}

// keyFrom derives a key for one purpose from the Supabase key, which all instances share and
// nobody else has. Without one it is made up: there is nothing to share then.
func keyFrom(secret Secret, purpose string) []byte {
	key := secret.Reveal()
	if key == "" {
		key = rand.Text()
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte("resetd: " + purpose))
	return mac.Sum(nil)
}

// newFingerprint makes what the log has instead of an address: the same for the same, and
// useless without the key. 64 bits tell a log's addresses apart. Hashes are reused, because
// making one costs more than hashing.
func newFingerprint(key []byte) func(text string) string {
	hashes := sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}
	return func(text string) string {
		mac := hashes.Get().(hash.Hash)
		defer hashes.Put(mac)
		mac.Reset()
		mac.Write([]byte(text))
		return hex.EncodeToString(mac.Sum(nil)[:8])
	}
}

// limit and mailWriter fit the rooms to what the operation asks for.
type limit struct{ *ratelimit.Limiter }

func (l limit) Take(ctx context.Context, key string) (bool, func(context.Context)) {
	decision := l.Limiter.Take(ctx, key)
	return decision.Allowed, decision.GiveBack
}

type mailWriter struct{ *message.Renderer }

func (w mailWriter) Write(acceptLanguage, link string) (impl.Mail, error) {
	mail, err := w.Render(acceptLanguage, link)
	return impl.Mail{Subject: mail.Subject, Text: mail.Text, HTML: mail.HTML}, err
}
