package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/resetd/resetd/impl/devstack"
	"github.com/resetd/resetd/impl/mailgun"
	"github.com/resetd/resetd/impl/setting"
	"github.com/resetd/resetd/impl/supabase"
)

// These are the stand-ins' keys. They open nothing else.
const (
	devPublishableKey = "sb_publishable_resetd_dev"
	devServiceRoleKey = "resetd-dev-service-role-key"
	devMailgunKey     = "dev-mailgun-key"
)

// notInDev are the settings that would send mail.
var notInDev = []string{"MAILGUN_API_KEY", "MAILGUN_API_BASE"}

// devUsage is the beginning of the help of dev.
const devUsage = `The server of resetd serve, with an inbox in the place of Mailgun: no mail is sent. Without
SUPABASE_URL a stand-in takes the place of Supabase Auth, with a few accounts; with it (that of
supabase start, say) accounts and links are real. The settings are those of serve, with other
defaults. MAILGUN_API_KEY and MAILGUN_API_BASE are not used. Links may lead to any port of
localhost, and its pages may call.

`

// devDefaults returns the defaults of dev that differ from those of serve.
func devDefaults(site string) map[string]string {
	return map[string]string{
		// The inbox shows everybody's links, so other machines must not reach it.
		"LISTEN_ADDR": "localhost:8080", "ADMIN_ADDR": "off", "LOG_FORMAT": "text", "SHUTDOWN_DELAY": "0s",
		"SITE_URL": site, "MAILGUN_DOMAIN": "mg.example.com", "BRAND_NAME": "Example",
		// Limits should not stop somebody who tries things out.
		"RATE_LIMIT": "60-M", "RECIPIENT_LIMIT": "30-M",
	}
}

// dev is serve with an inbox instead of Mailgun, and with a stand-in for Supabase Auth unless SUPABASE_URL is set.
// It never sends a mail, whatever the settings say.
func dev(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	// The first reading gives the address, on which the default of SITE_URL depends.
	early, err := readSettingsOver(devDefaults("http://localhost:8080"), "dev", args, environ, stderr)
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

	address := listener.Addr().(*net.TCPAddr)
	here := fmt.Sprintf("http://localhost:%d", address.Port)
	there := "http://" + upstreams.Addr().String()
	settings, err := readSettingsOver(devDefaults(here), "dev", args, environ, stderr)
	if err != nil {
		return err
	}
	unused := settings.unusedInDev()
	pages := settings.pages.WithLoopback()
	settings.pages, settings.browser = &pages, settings.browser.WithLoopback()
	settings.MailgunBase, settings.MailgunKey = there, devMailgunKey
	config := devstack.Config{
		SiteURL: settings.SiteURL, MailgunKey: devMailgunKey, MailgunDomain: settings.MailgunDomain, APIURL: here + "/api",
	}
	standIn := settings.authURL == ""
	switch {
	case standIn && settings.SupabaseKey != "":
		return setting.Mistakes{{Setting: "SUPABASE_URL", Text: "must be set beside SUPABASE_SERVICE_ROLE_KEY; without both there is a stand-in"}}
	case standIn:
		settings.authURL, settings.SupabaseKey = there+"/auth/v1", devServiceRoleKey
		config.ServiceRoleKey, config.PublishableKey, config.PublicAuthURL = devServiceRoleKey, devPublishableKey, here+"/auth/v1"
		for _, page := range settings.pages.All() {
			config.RedirectAllowList = append(config.RedirectAllowList, supabase.AllowListEntry(page))
		}
		for _, origin := range []string{"http://localhost:*", "https://localhost:*"} {
			config.RedirectAllowList = append(config.RedirectAllowList, origin, origin+"/**")
		}
	case settings.SupabaseKey == "":
		return setting.Mistakes{{Setting: "SUPABASE_SERVICE_ROLE_KEY", Text: "must be set beside SUPABASE_URL (supabase status prints it); without both there is a stand-in"}}
	default:
		config.Accounts = []string{} // the accounts are those of the real Supabase Auth
		config.AuthURL, config.AuthKey = settings.authURL, settings.SupabaseKey.Reveal()
	}
	logger := newLogger(settings, stderr)
	live := newLive(settings, logger)
	config.Preview = live.preview()
	if settings.TemplatesDir != "" {
		settings.reread = live.renderer
	}
	stack := devstack.New(config)
	defer stack.Close()
	standIns := http.NewServeMux()
	standIns.Handle("/auth/", stack.Supabase())
	standIns.Handle("/v3/", stack.Mailgun())
	server := &http.Server{Handler: standIns, ReadHeaderTimeout: readHeaderTimeout}
	go func() { _ = server.Serve(upstreams) }()
	defer server.Close()

	app, err := newApp(ctx, settings, logger)
	if err != nil {
		return err
	}
	public := http.NewServeMux()
	public.Handle("/dev/", stack.Pages())
	if standIn {
		public.Handle("/auth/v1/", stack.Supabase()) // for an app's page; resetd itself uses another address, which is open until the end
	}
	public.Handle("/", withDevPages(settings.ResetPath, app.public))
	// The inbox keeps a connection open as long as somebody looks; it is not in flight.
	defer context.AfterFunc(ctx, stack.Close)()

	greet(stdout, settings, here, standIn)
	if len(unused) > 0 {
		fmt.Fprintf(stdout, "Not used: %s. dev sends no mail; resetd serve does.\n\n", strings.Join(unused, ", "))
	}
	if !address.IP.IsLoopback() {
		fmt.Fprintf(stdout, "Careful: %s can be reached from other machines, and the inbox asks for no login.\n\n", settings.ListenAddr)
	}
	err = app.run(ctx, listener, public)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// unusedInDev names the settings of notInDev that are set.
func (s *settings) unusedInDev() (names []string) {
	for i, set := range []bool{s.MailgunKey != "", s.MailgunBase != mailgun.BaseUS} {
		if set {
			names = append(names, notInDev[i])
		}
	}
	return names
}

// withDevPages redirects from RESET_PATH on this server to the page that stands in for the app's, and from its root
// to the inbox.
func withDevPages(resetPath string, next http.Handler) http.Handler {
	if parsed, err := url.Parse(resetPath); err == nil {
		resetPath = parsed.Path
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch asked := r.URL.Path; {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
		case asked == resetPath:
			w.Header().Set("Cache-Control", "no-store")                                  // the address carries a token
			http.Redirect(w, r, "/dev/reset-password?"+r.URL.RawQuery, http.StatusFound) //nolint:gosec // only the query is the caller's
			return
		case asked == "/":
			http.Redirect(w, r, "/dev/inbox", http.StatusFound)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// greet prints what runs, and what to try.
func greet(w io.Writer, s *settings, here string, standIn bool) {
	if standIn {
		fmt.Fprint(w, "resetd dev: stand-ins for Supabase Auth and Mailgun. No mail leaves this machine.\n\n")
	} else {
		fmt.Fprintf(w, "resetd dev: the accounts and links of %s, which are real; mail goes to the inbox, and none is sent.\n\n", s.authURL)
	}
	fmt.Fprintf(w, "  Inbox     %s/dev/inbox\n  Preview   %s/dev/preview\n  API       %s/api/docs\n", here, here, here)
	if standIn {
		fmt.Fprintf(w, "  Accounts  %s\n            Any other address gets the same answer, and no mail.\n", strings.Join(devstack.DefaultAccounts(), ", "))
	}
	ask := "Ask for a mail:"
	if !standIn {
		ask = "Ask for a mail to an address that has an account there:"
	}
	fmt.Fprintf(w, `
%s

  curl -i %s/api/auth/send-password-reset \
    -H 'Content-Type: application/json' \
    -d '{"email":"hello@example.com","callback_origin":"%s"}'

`, ask, here, here)
	if standIn {
		fmt.Fprintf(w, `Your app on any port of localhost: it sends its own origin, and the link leads to its page
%s. Its supabase-js takes

  URL               %s
  publishable key   %s
  service_role key  %s

`, s.ResetPath, here, devPublishableKey, devServiceRoleKey)
	}
}
