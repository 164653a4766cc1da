package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/mail"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/resetd/resetd/impl/clientip"
	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/mailgun"
	"github.com/resetd/resetd/impl/message"
	"github.com/resetd/resetd/impl/origin"
	"github.com/resetd/resetd/impl/ratelimit"
	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/setting"
	"github.com/resetd/resetd/impl/supabase"
)

// settings holds all that an operator can set. Each setting is an environment variable, a flag of the
// same name (SITE_URL is --site-url), and a file: X_FILE names a file whose content is the value of X.
// `resetd serve --help` prints the help tags.
type settings struct {
	ListenAddr string `env:"LISTEN_ADDR" envDefault:":8080" help:"address of the public listener; without it, PORT sets the port"`
	AdminAddr  string `env:"ADMIN_ADDR" envDefault:"127.0.0.1:9090" help:"address of /metrics, /livez and /readyz; empty or off: none"`

	SupabaseURL     string `env:"SUPABASE_URL" help:"URL of the project, https://PROJECT.supabase.co"`
	SupabaseAuthURL string `env:"SUPABASE_AUTH_URL" help:"URL of Supabase Auth, if it is not SUPABASE_URL/auth/v1"`
	SupabaseKey     Secret `env:"SUPABASE_SERVICE_ROLE_KEY" help:"service_role key, or a secret key (sb_secret_…)"`
	SupabaseSecret  Secret `env:"SUPABASE_SECRET_KEY" help:"another name for SUPABASE_SERVICE_ROLE_KEY"`

	MailgunKey    Secret `env:"MAILGUN_API_KEY" help:"sending key of the domain, or API key of the Mailgun account"`
	MailgunDomain string `env:"MAILGUN_DOMAIN" help:"sending domain"`
	MailgunBase   string `env:"MAILGUN_API_BASE" envDefault:"https://api.mailgun.net" help:"URL of Mailgun's API; in the EU: https://api.eu.mailgun.net"`
	MailFrom      string `env:"MAIL_FROM" help:"sender, an RFC 5322 mailbox (default BRAND_NAME <no-reply@MAILGUN_DOMAIN>)"`
	MailReplyTo   string `env:"MAIL_REPLY_TO" help:"where replies go, an RFC 5322 mailbox (default SUPPORT_EMAIL)"`
	RequireTLS    onOff  `env:"MAIL_REQUIRE_TLS" envDefault:"on" help:"on: Mailgun delivers over TLS with a valid certificate, or not at all; off: as the domain is set at Mailgun, by default over TLS if that works"`
	WebhookKey    Secret `env:"MAILGUN_WEBHOOK_SIGNING_KEY" help:"HTTP webhook signing key of the Mailgun account; turns POST /webhooks/mailgun on, where Mailgun reports mails that it could not deliver"`

	SiteURL              string         `env:"SITE_URL" help:"the app's origin, where links lead by default"`
	CallbackOrigins      []string       `env:"CALLBACK_ORIGINS" help:"further origins that links may lead to, comma separated: exact, or with one leading wildcard label (https://*.preview.example.com); each with a path of its own (https://other.example.com/new-password) or without; with LINK_MODE=action_link also apps (io.example.app://reset)"`
	CallbackOriginPolicy callbackPolicy `env:"CALLBACK_ORIGIN_POLICY" envDefault:"fallback" help:"for an origin that is not allowed: fallback (the link leads to SITE_URL) or reject (400)"`
	ResetPath            string         `env:"RESET_PATH" envDefault:"/reset-password" help:"path of the app's page, appended to the origin; with a query (/auth/confirm?next=/account), or for a hash router (/#/reset), too"`
	LinkMode             linkMode       `env:"LINK_MODE" envDefault:"token_hash" help:"token_hash (verified by the app) or action_link (Supabase's own one-time link)"`
	LinkExpiresIn        time.Duration  `env:"LINK_EXPIRES_IN" envDefault:"1h" help:"how long the link works, as the mail says; must match the OTP expiry of the Supabase project"`

	RateLimit      ratelimit.Rate `env:"RATE_LIMIT" envDefault:"5-M,30-H" help:"requests per client IP: COUNT-PERIOD, periods S, M, H, D; all must allow"`
	RecipientLimit ratelimit.Rate `env:"RECIPIENT_LIMIT" envDefault:"1-M,5-H" help:"mails per address; beyond it nothing is sent and nothing said"`
	RedisURL       Secret         `env:"REDIS_URL" help:"Redis that has the limits and the accepted requests of several instances (without it, each instance has its own in memory): redis://, rediss:// (TLS) or unix://; ?master_name=NAME for Sentinels, ?addr=HOST:PORT for a Cluster"`
	RedisCA        string         `env:"REDIS_CA" help:"authorities that may have signed the certificate of Redis, PEM (default: those of this machine)"`
	RedisCert      string         `env:"REDIS_CLIENT_CERT" help:"the client's certificate, if Redis asks for it, PEM"`
	RedisKey       Secret         `env:"REDIS_CLIENT_KEY" help:"private key of REDIS_CLIENT_CERT, PEM"`
	TrustedProxies string         `env:"TRUSTED_PROXIES" help:"trusted proxies, which say who the client is, comma separated: networks, loopback, private, or all (only with TRUSTED_HOPS or CLIENT_IP_HEADER); the client is the rightmost address of X-Forwarded-For that is not trusted"`
	TrustedHops    int            `env:"TRUSTED_HOPS" help:"instead, the client is the n-th address of X-Forwarded-For from the right; from any peer, or only from TRUSTED_PROXIES if that is set"`
	ClientIPHeader string         `env:"CLIENT_IP_HEADER" help:"the header that is read instead of X-Forwarded-For: a header with one address (Fly-Client-IP, CF-Connecting-IP, X-Real-IP, …), or Forwarded"`
	CORSOrigins    []string       `env:"CORS_ORIGINS" help:"origins whose pages may call, also of web views (capacitor://localhost), comma separated; or * for every page (default SITE_URL and CALLBACK_ORIGINS)"`
	APIDocs        onOff          `env:"API_DOCS" envDefault:"on" help:"the API reference page at /api/docs: on or off"`

	MailProbe       mailProbe     `env:"MAIL_PROBE" envDefault:"testmode" help:"how resetd probes whether Mailgun accepts messages: testmode (at most one billed test message a minute while requests come, and one before it repeats a mail that Mailgun may have accepted) or off (no probe; callers do not learn of Mailgun's outages)"`
	UpstreamTimeout time.Duration `env:"UPSTREAM_TIMEOUT" envDefault:"5s" help:"timeout of each call of Supabase Auth or Mailgun"`
	DeliveryTimeout time.Duration `env:"DELIVERY_TIMEOUT" help:"how long the mail of an accepted request is tried, at most half of LINK_EXPIRES_IN (default 15m, or that half)"`
	MaxDeliveries   int           `env:"MAX_DELIVERIES" envDefault:"8" help:"deliveries at once, in each instance; each lookup of an account may open four sessions of Supabase's database"`
	MaxAccepted     int           `env:"MAX_ACCEPTED" envDefault:"10000" help:"requests answered 200 within 10 seconds; beyond it 503"`
	IdleTimeout     time.Duration `env:"IDLE_TIMEOUT" envDefault:"620s" help:"how long a connection may wait for its next request; longer than the proxies in front keep theirs"`
	StrictStart     onOff         `env:"STRICT_START" envDefault:"off" help:"on: without Supabase, Mailgun and SITE_URL the server does not start"`
	ShutdownDelay   time.Duration `env:"SHUTDOWN_DELAY" envDefault:"5s" help:"on SIGTERM, how long resetd still takes requests while /readyz says no"`
	ShutdownTimeout time.Duration `env:"SHUTDOWN_TIMEOUT" envDefault:"20s" help:"after SHUTDOWN_DELAY, how long resetd delivers what it has accepted"`

	BrandName       string `env:"BRAND_NAME" help:"name in the mail (default: the host of SITE_URL)"`
	BrandColor      string `env:"BRAND_COLOR" envDefault:"#1f56d8" help:"colour of the button and the links, #rrggbb"`
	BrandLogoURL    string `env:"BRAND_LOGO_URL" help:"picture instead of the name, https, no SVG, shown at most 36 pixels high"`
	BrandLogoDark   string `env:"BRAND_LOGO_DARK_URL" help:"picture for a dark ground (default: BRAND_LOGO_URL on a light plate)"`
	SupportEmail    string `env:"SUPPORT_EMAIL" help:"address in the mail for questions"`
	SupportURL      string `env:"SUPPORT_URL" help:"page in the mail for questions, https"`
	DefaultLanguage string `env:"DEFAULT_LANGUAGE" envDefault:"en" help:"language for readers who ask for none of the mail's languages"`
	LanguageField   string `env:"USER_LANGUAGE_FIELD" help:"field of Supabase's user_metadata that has the language of an account, such as locale; it takes precedence over Accept-Language"`
	TemplatesDir    string `env:"TEMPLATES_DIR" help:"folder of templates whose blocks replace built-in ones (resetd templates writes the built-in ones)"`

	LogLevel    slog.Level  `env:"LOG_LEVEL" envDefault:"info" help:"debug, info, warn or error"`
	LogFormat   logFormat   `env:"LOG_FORMAT" help:"json or text (default json, text on a terminal)"`
	LogRefusals logRefusals `env:"LOG_REFUSALS" envDefault:"sampled" help:"records of refused requests: sampled (the first hundred of each second, and how many were left out) or all"`

	// These follow from the settings above.
	pages   *origin.Pages // nil without SITE_URL
	browser origin.Browsers
	redis   *redisclient.Target // nil without REDIS_URL
	from    mail.Address
	replyTo mail.Address             // zero: none
	writer  *message.Renderer        // nil for healthcheck, and without what mail needs
	reread  func() *message.Renderer // only in dev: reads the templates again
	authURL string
	tracing bool // OpenTelemetry's own variables set an exporter

	clientIP clientip.Rule

	// platform is the name of the platform, if it runs several instances by itself; else empty.
	platform string
}

// runsSeveral names the platforms that usually run several instances, by a variable that each platform sets.
// https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables,
// https://cloud.google.com/run/docs/container-contract#env-vars, https://fly.io/docs/machines/runtime-environment/
var runsSeveral = []struct{ variable, name string }{
	{"K_SERVICE", "Cloud Run"}, {"FLY_APP_NAME", "Fly"}, {"KUBERNETES_SERVICE_HOST", "Kubernetes"},
}

// gone names the settings of earlier versions, and what took their place.
var gone = map[string]string{
	"RESPONSE_QUANTUM": "answers wait for nothing any more",
	"MAIL_DECOY":       "no mail is made up any more; MAIL_PROBE says how Mailgun is asked whether it works",
	"MAIL_DECOY_LIMIT": "no mail is made up any more; MAIL_PROBE sends at most one test message a minute",
	"MAX_IN_FLIGHT":    "answers wait for nothing any more; MAX_ACCEPTED bounds the requests of 10 seconds",
}

// Each of these types refuses values that are not its choices.
type (
	callbackPolicy string
	linkMode       string
	mailProbe      string
	logFormat      string
	logRefusals    string
	onOff          string
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *callbackPolicy) UnmarshalText(text []byte) error {
	return choose(p, text, "fallback", "reject")
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *linkMode) UnmarshalText(text []byte) error {
	return choose(m, text, linkMode(delivery.TokenHash), linkMode(delivery.ActionLink))
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *mailProbe) UnmarshalText(text []byte) error { return choose(p, text, "testmode", "off") }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *logFormat) UnmarshalText(text []byte) error { return choose(f, text, "json", "text") }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *logRefusals) UnmarshalText(text []byte) error { return choose(r, text, "sampled", "all") }

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *onOff) UnmarshalText(text []byte) error { return choose(o, text, "on", "off") }

func choose[T ~string](target *T, text []byte, choices ...T) error {
	names := make([]string, len(choices))
	for i, choice := range choices {
		if string(text) == string(choice) {
			*target = choice
			return nil
		}
		names[i] = string(choice)
	}
	return fmt.Errorf("must be one of %s", strings.Join(names, ", "))
}

// readSettings reads flags, environment and files, in this order of precedence, and names all mistakes
// together. A flag sets the variable of the same name, so there is one set of rules. own adds the flags
// that only this command has.
func readSettings(command string, args []string, environ []string, output io.Writer, own ...func(*flag.FlagSet)) (*settings, error) {
	return readSettingsOver(nil, command, args, environ, output, own...)
}

// readSettingsOver is readSettings with defaults that take precedence over those in the tags.
func readSettingsOver(defaults map[string]string, command string, args []string, environ []string, output io.Writer, own ...func(*flag.FlagSet)) (*settings, error) {
	variables := variablesOf(environ)
	fields := reflect.VisibleFields(reflect.TypeFor[settings]())

	flags := flag.NewFlagSet("resetd "+command, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // for one wrong flag, the package would print the whole help
	for _, add := range own {
		add(flags)
	}
	for _, field := range fields {
		name := field.Tag.Get("env")
		if name == "" {
			continue
		}
		flags.Func(flagName(name), "", func(value string) error {
			variables[name] = value
			delete(variables, name+"_FILE")
			return nil
		})
	}
	for name := range gone {
		flags.Func(flagName(name), "", func(value string) error {
			variables[name] = value
			return nil
		})
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		printUsage(output, command, fields, defaults, own)
		return nil, err
	case err != nil:
		fmt.Fprintf(output, "resetd %s: %s: see resetd %s --help\n", command, flagMistake(err), command)
		return nil, errUsage
	}
	var wrong setting.Mistakes
	if flags.NArg() > 0 {
		// The message does not repeat the argument: after "--mailgun-api-key= KEY" it is the key.
		wrong.Add("arguments", "number %d is not expected: flags are --name=value", len(args)-flags.NArg()+1)
	}
	for name, instead := range gone {
		if variables[name] != "" || variables[name+"_FILE"] != "" {
			wrong.Add(name, "does not exist any more: %s. Remove it", instead)
		}
	}
	readFiles(fields, variables, &wrong)
	checkText(fields, variables, &wrong)
	if value, set := variables["ADMIN_ADDR"]; set && value == "" {
		variables["ADMIN_ADDR"] = "off" // the library would take the default
	}
	if port := variables["PORT"]; port != "" && variables["LISTEN_ADDR"] == "" {
		host, _, _ := strings.Cut(defaults["LISTEN_ADDR"], ":")
		variables["LISTEN_ADDR"] = host + ":" + port
	}
	for name, value := range defaults {
		variables[name] = cmp.Or(variables[name], value)
	}

	var s settings
	s.tracing = tracingWanted(variables, &wrong)
	for _, platform := range runsSeveral {
		if variables[platform.variable] != "" {
			s.platform = platform.name
			break
		}
	}
	if err := env.ParseWithOptions(&s, env.Options{Environment: variables}); err != nil {
		explain(err, &wrong)
	}
	s.check(&wrong)
	if command == "serve" && s.StrictStart == "on" {
		for _, name := range s.missing() {
			wrong.Add(name, "is not set, and STRICT_START is on")
		}
	}
	if command != "healthcheck" { // it writes no mail
		s.readTemplates(&wrong)
	}
	if len(wrong) > 0 {
		return nil, wrong
	}
	return &s, nil
}

// flagMistake says what is wrong with the flags, without a value.
func flagMistake(err error) string {
	if name, found := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); found {
		return "there is no flag --" + name
	}
	if name, found := strings.CutPrefix(err.Error(), "flag needs an argument: -"); found {
		return "--" + name + " needs a value"
	}
	return "a flag cannot be read: flags are --name=value"
}

func variablesOf(environ []string) map[string]string {
	variables := make(map[string]string, len(environ))
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		variables[name] = value
	}
	return variables
}

func flagName(variable string) string {
	return strings.ReplaceAll(strings.ToLower(variable), "_", "-")
}

// maxSettingFile is more than any setting needs; a wrong path may lead to anything.
const maxSettingFile = 64 << 10

// readFiles reads X from the file that X_FILE names. No message repeats the value of X_FILE: it may be the
// value of X, put into the wrong variable.
func readFiles(fields []reflect.StructField, variables map[string]string, wrong *setting.Mistakes) {
	for _, field := range fields {
		name := field.Tag.Get("env")
		path := strings.TrimSpace(variables[name+"_FILE"])
		if name == "" || path == "" {
			continue
		}
		if err := setting.CheckText(path); err != nil {
			wrong.Judge(name+"_FILE", err)
			continue
		}
		if variables[name] != "" {
			wrong.Add(name, "is set, and %s_FILE too: set one of them", name)
			continue
		}
		file, err := os.Open(path)
		if err != nil {
			wrong.Add(name+"_FILE", "must be the path of a file that can be read (%s)", fileCause(err))
			continue
		}
		content, err := io.ReadAll(io.LimitReader(file, maxSettingFile+1))
		file.Close()
		switch {
		case err != nil:
			wrong.Add(name+"_FILE", "must be the path of a file that can be read (%s)", fileCause(err))
		case len(content) > maxSettingFile:
			wrong.Add(name+"_FILE", "must be the path of a file of at most 64 KiB")
		case bytes.HasPrefix(content, []byte("\xff\xfe")), bytes.HasPrefix(content, []byte("\xfe\xff")):
			wrong.Add(name+"_FILE", "must be the path of a file in UTF-8, but this file is in UTF-16, as PowerShell writes it: save it as UTF-8")
		default:
			variables[name] = string(content)
		}
	}
}

// checkText checks the rules for the values of all settings. It removes white space around a value, which
// editors, secret stores and Windows' line ends leave and which means nothing. A refused value counts as
// not set, so that no message is about what follows from it.
func checkText(fields []reflect.StructField, variables map[string]string, wrong *setting.Mistakes) {
	names := []string{"PORT"}
	for _, field := range fields {
		names = append(names, field.Tag.Get("env"))
	}
	for _, name := range names {
		value, set := variables[name]
		if !set {
			continue
		}
		variables[name] = strings.TrimSpace(value)
		if err := setting.CheckText(variables[name]); err != nil {
			wrong.Judge(name, err)
			delete(variables, name)
		}
	}
	// The byte-order mark of an environment file is before the name of its first variable.
	for variable := range variables {
		if name, found := strings.CutPrefix(variable, "\ufeff"); found && slices.Contains(names, name) {
			wrong.Add(name, "has a byte-order mark before its name, an invisible character: save its file as UTF-8 without a byte-order mark")
		}
	}
}

// fileCause returns the cause of an error of os without the path, such as "no such file or directory".
func fileCause(err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// explain turns the library's errors into mistakes that name the variable, where the library names the
// field of the struct. It never repeats a value, which may be a secret.
func explain(err error, wrong *setting.Mistakes) {
	var all env.AggregateError
	errors.As(err, &all) // the library returns no other
	for _, one := range all.Errors {
		var parse env.ParseError
		errors.As(one, &parse)
		field, _ := reflect.TypeFor[settings]().FieldByName(parse.Name)
		err := parse.Err
		switch field.Type {
		case reflect.TypeFor[time.Duration]():
			err = errors.New("must be a duration, like 500ms or 1h")
		case reflect.TypeFor[int]():
			err = errors.New("must be a whole number")
		case reflect.TypeFor[slog.Level]():
			err = errors.New("must be one of debug, info, warn, error")
		}
		wrong.Judge(field.Tag.Get("env"), err)
	}
}

// defaultDeliveryTimeout is longer than most outages, and short enough that people still wait.
const defaultDeliveryTimeout = 15 * time.Minute

// check checks each setting, and whether they fit together. A missing setting is no mistake.
func (s *settings) check(wrong *setting.Mistakes) {
	s.checkAddresses(wrong)
	s.checkSupabase(wrong)
	s.checkLinks(wrong)
	s.checkMail(wrong)

	within := func(name string, value, low, high time.Duration) {
		if value < low || value > high {
			wrong.Add(name, "must be from %v to %v", low, high)
		}
	}
	within("UPSTREAM_TIMEOUT", s.UpstreamTimeout, 100*time.Millisecond, time.Minute)
	if s.DeliveryTimeout == 0 {
		s.DeliveryTimeout = min(defaultDeliveryTimeout, s.LinkExpiresIn/2)
	}
	if !wrong.Has("LINK_EXPIRES_IN") && (s.DeliveryTimeout < time.Second || s.DeliveryTimeout > s.LinkExpiresIn/2) {
		wrong.Add("DELIVERY_TIMEOUT", "must be from 1s to half of LINK_EXPIRES_IN: a link that is sent late works for a shorter time than the mail says")
	}
	within("IDLE_TIMEOUT", s.IdleTimeout, time.Second, time.Hour)
	within("SHUTDOWN_DELAY", s.ShutdownDelay, 0, 10*time.Minute)
	within("SHUTDOWN_TIMEOUT", s.ShutdownTimeout, 0, 10*time.Minute)
	for name, value := range map[string]struct{ is, most int }{"MAX_ACCEPTED": {s.MaxAccepted, 1_000_000}, "MAX_DELIVERIES": {s.MaxDeliveries, 1000}} {
		if value.is < 1 || value.is > value.most {
			wrong.Add(name, "must be from 1 to %d", value.most)
		}
	}
	rule, aboutClients := clientip.New(clientip.Config{TrustedProxies: s.TrustedProxies, TrustedHops: s.TrustedHops, ClientIPHeader: s.ClientIPHeader})
	s.clientIP = rule
	wrong.Merge(aboutClients)
	target, aboutRedis := redisclient.Parse(redisclient.Config{
		URL: s.RedisURL.Reveal(), CA: s.RedisCA, ClientCert: s.RedisCert, ClientKey: s.RedisKey.Reveal(),
	})
	s.redis = target
	wrong.Merge(aboutRedis)
}

func (s *settings) checkAddresses(wrong *setting.Mistakes) {
	if s.AdminAddr == "off" {
		s.AdminAddr = ""
	}
	for name, address := range map[string]string{"LISTEN_ADDR": s.ListenAddr, "ADMIN_ADDR": s.AdminAddr} {
		if address != "" {
			wrong.Judge(name, setting.CheckListener(address))
		}
	}
}

func (s *settings) checkSupabase(wrong *setting.Mistakes) {
	if s.SupabaseKey != "" && s.SupabaseSecret != "" && s.SupabaseKey != s.SupabaseSecret {
		wrong.Add("SUPABASE_SECRET_KEY", "differs from SUPABASE_SERVICE_ROLE_KEY: set one of them")
	}
	name := "SUPABASE_SERVICE_ROLE_KEY"
	if s.SupabaseKey == "" && s.SupabaseSecret != "" {
		name, s.SupabaseKey = "SUPABASE_SECRET_KEY", s.SupabaseSecret
	}
	wrong.Judge(name, supabase.CheckKey(s.SupabaseKey.Reveal()))
	if s.SupabaseURL != "" {
		wrong.Judge("SUPABASE_URL", supabase.CheckURL(s.SupabaseURL))
		s.authURL = strings.TrimRight(s.SupabaseURL, "/") + "/auth/v1"
	}
	if s.SupabaseAuthURL != "" {
		wrong.Judge("SUPABASE_AUTH_URL", supabase.CheckAuthURL(s.SupabaseAuthURL))
		s.authURL = strings.TrimRight(s.SupabaseAuthURL, "/")
	}
}

func (s *settings) checkMail(wrong *setting.Mistakes) {
	wrong.Judge("MAILGUN_API_KEY", mailgun.CheckKey(s.MailgunKey.Reveal()))
	wrong.Judge("MAILGUN_WEBHOOK_SIGNING_KEY", mailgun.CheckSigningKey(s.WebhookKey.Reveal()))
	wrong.Judge("MAILGUN_API_BASE", mailgun.CheckBase(s.MailgunBase))
	if s.MailgunDomain != "" {
		wrong.Judge("MAILGUN_DOMAIN", setting.CheckDomain(s.MailgunDomain))
	}
	support := checkMailbox("SUPPORT_EMAIL", s.SupportEmail, wrong)
	s.SupportEmail = support.Address
	wrong.Merge(s.mailOptions().Validate())
	if s.MailFrom == "" && s.MailgunDomain != "" && !wrong.Has("MAILGUN_DOMAIN") && !wrong.Has("BRAND_NAME") {
		s.from = mail.Address{Name: s.BrandName, Address: "no-reply@" + s.MailgunDomain}
	} else {
		s.from = checkMailbox("MAIL_FROM", s.MailFrom, wrong)
	}
	s.replyTo = checkMailbox("MAIL_REPLY_TO", s.MailReplyTo, wrong)
	if s.replyTo.Address == "" {
		s.replyTo = support
	}
	if s.LanguageField != "" {
		wrong.Judge("USER_LANGUAGE_FIELD", supabase.CheckField(s.LanguageField))
	}
}

func (s *settings) mailOptions() message.Options {
	return message.Options{
		Brand: message.Brand{
			Name: s.BrandName, Color: s.BrandColor, LogoURL: s.BrandLogoURL, LogoDarkURL: s.BrandLogoDark,
			SupportEmail: s.SupportEmail, SupportURL: s.SupportURL,
		},
		LinkExpiresIn:   s.LinkExpiresIn,
		DefaultLanguage: s.DefaultLanguage,
		TemplatesDir:    s.TemplatesDir,
	}
}

func (s *settings) readTemplates(wrong *setting.Mistakes) {
	var aboutMail setting.Mistakes
	s.writer, aboutMail = message.New(s.mailOptions())
	wrong.Merge(aboutMail)
}

func (s *settings) checkLinks(wrong *setting.Mistakes) {
	links := origin.Links{Path: s.ResetPath, Callbacks: s.CallbackOrigins, Redirected: s.LinkMode == linkMode(delivery.ActionLink)}
	if s.SiteURL != "" {
		var err error
		links.Site, err = origin.ParseSite(s.SiteURL)
		wrong.Judge("SITE_URL", err)
	} else if len(s.CallbackOrigins) > 0 && !wrong.Has("SITE_URL") {
		wrong.Add("CALLBACK_ORIGINS", "needs SITE_URL, where links lead by default")
	}
	wrong.Judge("RESET_PATH", origin.CheckPath(links.Path, links.Redirected))
	pages, err := origin.NewPages(links)
	wrong.Judge("CALLBACK_ORIGINS", err)
	if s.SiteURL != "" {
		s.pages, s.browser = &pages, pages.Origins().Browsers()
	}
	if len(s.CORSOrigins) > 0 {
		s.browser, err = origin.NewBrowsers(s.CORSOrigins)
		wrong.Judge("CORS_ORIGINS", err)
	}
	if s.BrandName == "" {
		s.BrandName = cmp.Or(links.Site.Hostname(), "resetd") // without SITE_URL no mail is written
	}
}

// checkMailbox parses a mailbox. It returns the zero address if the value is empty or invalid.
func checkMailbox(name, value string, wrong *setting.Mistakes) mail.Address {
	if value == "" {
		return mail.Address{}
	}
	address, err := setting.ParseMailbox(value)
	wrong.Judge(name, err)
	return address
}

// missing returns the names of the settings that sending needs and that are not set.
func (s *settings) missing() (names []string) {
	for _, need := range []struct{ name, value string }{
		{"SUPABASE_URL", s.authURL},
		{"SUPABASE_SERVICE_ROLE_KEY", s.SupabaseKey.Reveal()},
		{"MAILGUN_API_KEY", s.MailgunKey.Reveal()},
		{"MAILGUN_DOMAIN", s.MailgunDomain},
		{"SITE_URL", s.SiteURL},
	} {
		if need.value == "" {
			names = append(names, need.name)
		}
	}
	return names
}

func printUsage(w io.Writer, command string, fields []reflect.StructField, defaults map[string]string, own []func(*flag.FlagSet)) {
	fmt.Fprintf(w, "Usage: resetd %s [flags]\n\n", command)
	if command == "dev" {
		fmt.Fprint(w, devUsage)
	}
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.SetOutput(w)
	for _, add := range own {
		add(flags)
	}
	flags.PrintDefaults()
	if len(own) > 0 {
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "Every setting is an environment variable, X_FILE names a file with its value,\nand each has a flag, which wins: SITE_URL is --site-url.\n\n")
	for _, field := range fields {
		name := field.Tag.Get("env")
		if name == "" || command == "dev" && slices.Contains(notInDev, name) {
			continue
		}
		fmt.Fprintf(w, "  %s", name)
		if value := cmp.Or(defaults[name], field.Tag.Get("envDefault")); value != "" {
			fmt.Fprintf(w, " (%s)", value)
		}
		fmt.Fprintf(w, "\n      %s\n", field.Tag.Get("help"))
	}
	fmt.Fprint(w, "  OTEL_…\n      OpenTelemetry's standard variables: OTEL_EXPORTER_OTLP_ENDPOINT turns tracing on (OTLP over HTTP)\n")
}
