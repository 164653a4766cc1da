package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/resetd/resetd/impl/devstack"
)

// The stand-ins' keys. They open nothing else.
const (
	devSupabaseKey   = "dev-service-role-key"
	devMailgunKey    = "dev-mailgun-key"
	devMailgunDomain = "mg.example.com"
)

// dev is serve against stand-ins in the same process, with an inbox. It never talks to a real
// Supabase or Mailgun, whatever the environment says.
func dev(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	// Once to learn where to listen; the origin of links is known only then.
	early, err := readSettings("dev", args, devEnviron(environ, map[string]string{"SITE_URL": "http://localhost"}), stderr)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", early.ListenAddr)
	if err != nil {
		return fmt.Errorf("LISTEN_ADDR: %w", err)
	}
	defer listener.Close()
	upstreams, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening for the stand-ins: %w", err)
	}
	defer upstreams.Close()

	here := fmt.Sprintf("http://localhost:%d", listener.Addr().(*net.TCPAddr).Port)
	there := "http://" + upstreams.Addr().String()
	settings, err := readSettings("dev", args, devEnviron(environ, map[string]string{
		"SITE_URL":     here,
		"SUPABASE_URL": there, "SUPABASE_SERVICE_ROLE_KEY": devSupabaseKey,
		"MAILGUN_API_BASE": there, "MAILGUN_API_KEY": devMailgunKey, "MAILGUN_DOMAIN": devMailgunDomain,
	}), stderr)
	if err != nil {
		return err
	}
	if settings.authURL != there+"/auth/v1" || settings.MailgunBase != there {
		return mistakes{"resetd dev: always talks to its own stand-ins; use resetd serve with SUPABASE_URL and MAILGUN_API_BASE"}
	}

	var allowed []string
	for _, entry := range append([]string{settings.SiteURL}, settings.CallbackOrigins...) {
		allowed = append(allowed, strings.TrimRight(entry, "/")+"/**")
	}
	stack := devstack.New(devstack.Config{
		SiteURL: settings.SiteURL, RedirectAllowList: allowed,
		ServiceRoleKey: devSupabaseKey, MailgunKey: devMailgunKey, MailgunDomain: devMailgunDomain,
		PublicAuthURL: there + "/auth/v1", APIURL: here + "/api",
	})
	defer stack.Close()
	standIns := http.NewServeMux()
	standIns.Handle("/auth/", stack.Supabase())
	standIns.Handle("/v3/", stack.Mailgun())
	server := &http.Server{Handler: standIns, ReadHeaderTimeout: readHeaderTimeout}
	go func() { _ = server.Serve(upstreams) }()
	defer server.Close()

	app, err := newApp(ctx, settings, newLogger(settings, stderr))
	if err != nil {
		return err
	}
	public := http.NewServeMux()
	public.Handle("/dev/", stack.Pages())
	public.Handle("/", app.public)
	// The inbox keeps a connection open as long as somebody looks; it is not in flight.
	defer context.AfterFunc(ctx, stack.Close)()

	fmt.Fprintf(stdout, `resetd dev: stand-ins for Supabase Auth and Mailgun, nothing leaves this machine

Send the documented request:

  curl --request POST \
    --url %s/api/auth/send-password-reset \
    --header 'Content-Type: application/json' \
    --data '{ "email": "hello@example.com", "callback_origin": "example" }'

and see the mail:     %s/dev/inbox
Accounts:             %s
Everybody else:       gets the same answer, and no mail

`, here, here, strings.Join(devstack.DefaultAccounts(), ", "))
	err = app.run(ctx, listener, public)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// devDefaults are the settings that dev has unless the caller sets them.
func devDefaults() map[string]string {
	return map[string]string{
		"LISTEN_ADDR": "localhost:8080", "ADMIN_ADDR": "off", "LOG_FORMAT": "text", "SHUTDOWN_DELAY": "0s",
		"RESET_PATH": "/dev/reset-password", "BRAND_NAME": "Example",
		// Somebody who tries things out is not to be stopped by them.
		"RATE_LIMIT": "60-M", "RECIPIENT_LIMIT": "30-M",
	}
}

// devEnviron is the environment of dev: its own defaults, what the caller has set, and then
// what has to be so. The upstreams of the caller's environment are left out.
func devEnviron(environ []string, forced map[string]string) []string {
	defaults := devDefaults()
	var result []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		delete(defaults, strings.TrimSuffix(name, "_FILE"))
		if !strings.HasPrefix(name, "SUPABASE_") && !strings.HasPrefix(name, "MAILGUN_") && !strings.HasPrefix(name, "SITE_URL") {
			result = append(result, entry)
		}
	}
	for _, values := range []map[string]string{defaults, forced} {
		for name, value := range values {
			result = append(result, name+"="+value)
		}
	}
	return result
}
