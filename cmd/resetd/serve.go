package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"golang.org/x/term"

	"github.com/resetd/resetd/impl/server"
)

func serve(ctx context.Context, args, environ []string, stderr io.Writer) error {
	settings, err := readSettings("serve", args, environ, stderr)
	if err != nil {
		return err
	}
	app, err := newApp(ctx, settings, newLogger(settings, stderr))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", settings.ListenAddr)
	if err != nil {
		return fmt.Errorf("LISTEN_ADDR: %w", err)
	}
	return app.run(ctx, listener, app.public)
}

// newLogger returns a logger that writes JSON for machines, and text for people on a terminal.
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

// These are the bounds of a connection. A request is small, so a client that needs longer than readTimeout stalls.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second // for headers and body together
	maxHeaderBytes    = 16 << 10
	maxIdle           = 1000 // idle connections of each listener
)

// ballast is allocated and never touched, so that it takes no memory but counts as heap. Without it the heap has 2 MB,
// and a flood of refusals had garbage collected every 300 requests (November 2026).
var ballast = make([]byte, 4<<20)

// run serves until ctx ends, and then delivers accepted requests.
func (a *app) run(ctx context.Context, public net.Listener, handler http.Handler) error {
	defer runtime.KeepAlive(ballast)
	defer func() { _ = a.limits.Close() }() // closing connections loses nothing
	defer a.health.Close()
	defer public.Close()
	defer a.closeTracer()
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
	a.describeMail()
	if missing := a.settings.missing(); len(missing) > 0 {
		a.logger.Warn("not configured: no mail can be sent until these are set", "missing", missing)
	}

	failed := make(chan error, len(servers))
	for i, s := range servers {
		go func() { failed <- s.Serve(listeners[i]) }()
	}
	var failure error
	select {
	case failure = <-failed: // accepted requests are delivered nevertheless
		a.logger.Error("a listener has failed", "error", failure.Error())
	case <-ctx.Done():
	}

	// Load balancers must learn of the stop before the listener is closed, or they send requests to a closed port.
	a.ready.Stop()
	a.logger.Info("stopping", "taking_requests_for", a.settings.ShutdownDelay.String(), "then_in_at_most", a.settings.ShutdownTimeout.String())
	if failure == nil {
		time.Sleep(a.settings.ShutdownDelay)
	}
	deadline, cancel := context.WithTimeout(context.Background(), a.settings.ShutdownTimeout)
	defer cancel()
	// A stalled client must not take time from deliveries.
	answered, stop := context.WithTimeout(deadline, a.settings.ShutdownTimeout/2)
	defer stop()
	if servers[0].Shutdown(answered) != nil {
		a.logger.Warn("clients that had not finished their request were cut off")
		_ = servers[0].Close()
	}
	left := a.outbox.Close(deadline)
	for _, operators := range servers[1:] { // last, so that operators can watch the stop
		_ = operators.Close()
	}
	if left != nil {
		a.logger.Error("stopped", "error", left.Error())
		return errors.Join(failure, fmt.Errorf("SHUTDOWN_TIMEOUT has passed: %w", left))
	}
	a.logger.Info("stopped")
	return failure
}

// describeMail logs the languages of the mail, what TEMPLATES_DIR has replaced in it, and settings that are rarely
// meant.
func (a *app) describeMail() {
	writer := a.settings.writer
	attributes := []any{"languages", writer.Languages()}
	if replaced := writer.Replaced(); len(replaced) > 0 {
		attributes = append(attributes, "replaced", replaced)
	}
	a.logger.Info("mail", attributes...)
	for _, warning := range writer.Warnings() {
		a.logger.Warn("mail: " + warning)
	}
}

func (a *app) newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           server.ReadRest(handler),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		// It begins at the end of the headers: the body, the two questions of a first sample, and the answer.
		WriteTimeout:   readTimeout + 2*a.settings.UpstreamTimeout + 5*time.Second,
		IdleTimeout:    a.settings.IdleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ConnState:      newIdleConnections(maxIdle).changed,
		// net/http's own messages have clients' addresses and parts of what they sent (SECURITY.md, promise 7).
		ErrorLog: log.New(io.Discard, "", 0),
	}
}
