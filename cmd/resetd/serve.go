package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/term"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/mailgun"
	"github.com/resetd/resetd/impl/message"
	"github.com/resetd/resetd/impl/ratelimit"
	"github.com/resetd/resetd/impl/server"
	"github.com/resetd/resetd/impl/supabase"
)

func serve(ctx context.Context, args, environ []string, stderr io.Writer) error {
	settings, err := readSettings("serve", args, environ, stderr)
	if err != nil {
		return err
	}
	app, err := newApp(settings, newLogger(settings, stderr))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", settings.ListenAddr)
	if err != nil {
		return fmt.Errorf("LISTEN_ADDR: %w", err)
	}
	return app.run(ctx, listener, app.public)
}

// newLogger writes for machines, and for people where a person is looking.
func newLogger(s *settings, w io.Writer) *slog.Logger {
	format := s.LogFormat
	if file, ok := w.(*os.File); format == "" && ok && term.IsTerminal(int(file.Fd())) {
		format = "text"
	}
	options := &slog.HandlerOptions{Level: s.LogLevel}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// app is the program put together.
type app struct {
	settings *settings
	logger   *slog.Logger
	limits   *ratelimit.Store
	service  *impl.Service
	public   *server.Server
	admin    http.Handler
	ready    *server.Readiness
}

// newApp wires the rooms together.
func newApp(s *settings, logger *slog.Logger) (*app, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	observer := server.NewObserver(logger, registry)
	fingerprint := newFingerprint(keyFrom(s.SupabaseKey, "fingerprints in the log"))

	limits, err := ratelimit.Open(ratelimit.Options{
		RedisURL: s.RedisURL.Reveal(),
		HashKey:  keyFrom(s.SupabaseKey, "keys of the limits"),
		Logger:   logger,
		OnChange: observer.LimitsIn,
	})
	if err != nil {
		return nil, mistakes{"REDIS_URL: " + err.Error()}
	}
	writer, err := message.New(message.Options{
		Brand:         message.Brand{Name: s.BrandName, LogoURL: s.BrandLogoURL, SupportEmail: s.SupportEmail},
		LinkExpiresIn: s.LinkExpiresIn,
		TemplatesDir:  s.TemplatesDir,
	})
	if err != nil {
		return nil, err
	}

	config := impl.Config{
		Writer:      mailWriter{writer},
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
	if s.authURL != "" && s.SupabaseKey != "" {
		config.Links = supabase.New(s.authURL, s.SupabaseKey.Reveal(), s.UpstreamTimeout)
	}
	if s.MailgunKey != "" && s.MailgunDomain != "" {
		config.Mailer = mailgun.New(mailgun.Config{
			Base: s.MailgunBase, Domain: s.MailgunDomain, Key: s.MailgunKey.Reveal(),
			From: s.MailFrom, ReplyTo: s.MailReplyTo, DecoyTo: s.from.Address, Timeout: s.UpstreamTimeout,
		})
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
	public, err := server.New(serverConfig)
	if err != nil {
		return nil, err
	}
	ready := server.NewReadiness(s.missing())
	return &app{settings: s, logger: logger, limits: limits, service: service, public: public, admin: server.Admin(registry, ready), ready: ready}, nil
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

// The bounds of a connection. A request is small, so whoever needs longer than readTimeout for
// it is stalling.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second // of headers and body together
	idleTimeout       = 75 * time.Second // longer than the usual 60 s of a proxy, which then closes first
	maxHeaderBytes    = 16 << 10
)

// run serves, and finishes what is in flight when ctx ends.
func (a *app) run(ctx context.Context, public net.Listener, handler http.Handler) error {
	defer func() { _ = a.limits.Close() }() // nothing is lost with its connections
	defer public.Close()
	servers := []*http.Server{a.newServer(handler)} // in the order in which they stop
	listeners := []net.Listener{public}
	a.logger.Info("listening", "addr", public.Addr().String(), "version", version)
	if a.settings.AdminAddr != "" {
		admin, err := net.Listen("tcp", a.settings.AdminAddr)
		if err != nil {
			return fmt.Errorf("ADMIN_ADDR: %w", err)
		}
		defer admin.Close()
		servers, listeners = append(servers, a.newServer(a.admin)), append(listeners, admin)
		a.logger.Info("listening for the operator", "admin_addr", admin.Addr().String())
	}
	if missing := a.settings.missing(); len(missing) > 0 {
		a.logger.Warn("not configured: no mail can be sent until these are set", "missing", missing)
	}

	failed := make(chan error, len(servers))
	for i, server := range servers {
		go func() { failed <- server.Serve(listeners[i]) }()
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}

	// Whoever balances the load has to learn it before the listener is gone, or sends requests
	// to where nobody answers.
	a.ready.Stop()
	a.logger.Info("stopping", "taking_requests_for", a.settings.ShutdownDelay.String(), "then_in_at_most", a.settings.ShutdownTimeout.String())
	select {
	case err := <-failed:
		return err
	case <-time.After(a.settings.ShutdownDelay):
	}
	deadline, cancel := context.WithTimeout(context.Background(), a.settings.ShutdownTimeout)
	defer cancel()
	var unfinished []error
	unfinished = append(unfinished, servers[0].Shutdown(deadline), a.public.Close(deadline), a.service.Close(deadline))
	for _, operators := range servers[1:] { // last, so that the end can be watched
		unfinished = append(unfinished, operators.Shutdown(deadline))
	}
	if err := errors.Join(unfinished...); err != nil {
		return fmt.Errorf("SHUTDOWN_TIMEOUT has passed with requests in flight: %w", err)
	}
	a.logger.Info("stopped")
	return nil
}

func (a *app) newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		// From the end of the headers: the body, four calls, and the answer itself. What waits for
		// its beat is not the http.Server's any more.
		WriteTimeout:   readTimeout + 4*a.settings.UpstreamTimeout + 5*time.Second,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		// net/http's own complaints hold clients' addresses and pieces of what they sent (H7).
		ErrorLog: log.New(io.Discard, "", 0),
	}
}
