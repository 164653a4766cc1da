package main

import (
	"context"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// secretPart is in values below that must not be repeated.
const secretPart = "hunter2"

// TestValues: a value that cannot be what its setting says is refused, by the name of the setting and with
// the way out, and is not repeated.
func TestValues(t *testing.T) {
	t.Parallel()
	const ref = "abcdefghijklmnopqrst"
	for _, c := range []struct {
		name, value string
		want        string // of the mistake; empty: there is none
	}{
		// The key of Supabase.
		{"SUPABASE_SERVICE_ROLE_KEY", "sb_secret_hunter2", ""},
		{"SUPABASE_SERVICE_ROLE_KEY", jwt(`{"role":"service_role","ref":"hunter2"}`), ""},
		{"SUPABASE_SERVICE_ROLE_KEY", jwt(`{"role":"reporting"}`), ""}, // a self-hosted Auth may be told so
		{"SUPABASE_SERVICE_ROLE_KEY", "sb_publishable_hunter2", "is a publishable key: give the service_role key or a secret key (sb_secret_…)"},
		{"SUPABASE_SERVICE_ROLE_KEY", jwt(`{"role":"anon","ref":"hunter2"}`), "is the anon key, a JWT with the role anon: give the service_role key or"},
		{"SUPABASE_SERVICE_ROLE_KEY", jwt(`{"role":"authenticated"}`), "is a user's access token"},
		{"SUPABASE_SERVICE_ROLE_KEY", "sbp_hunter2", "is a personal access token"},
		{"SUPABASE_SERVICE_ROLE_KEY", "eyJhbGciOiJIUzI1NiJ9.eyJyb2x.hunter2", "is no whole JWT"},
		{"SUPABASE_SERVICE_ROLE_KEY", "eyJhbGciOiJIUzI1NiJ9.hunter2", "is no whole JWT"},
		{"SUPABASE_SERVICE_ROLE_KEY", "sb_secret_ hunter2", "must have no spaces"},
		{"SUPABASE_SERVICE_ROLE_KEY", "sb_secret_\nhunter2", "must have no spaces"},
		{"SUPABASE_SERVICE_ROLE_KEY", "sb_secret_hünter2", "must have no spaces, line breaks or characters beyond ASCII"},
		{"SUPABASE_SECRET_KEY", "sb_publishable_hunter2", "is a publishable key"},

		// Where Supabase is.
		{"SUPABASE_URL", "https://" + ref + ".supabase.co", ""},
		{"SUPABASE_URL", "https://" + ref + ".supabase.co/", ""},
		{"SUPABASE_URL", "http://kong:8000", ""},
		{"SUPABASE_URL", "https://gateway.example.com/supabase", ""},
		{"SUPABASE_URL", "https://" + ref + ".supabase.co/auth/v1", "must end before /auth/v1, which is no part of the project's address"},
		{"SUPABASE_URL", "https://" + ref + ".supabase.co/rest/v1/", "must end before /rest/v1"},
		{"SUPABASE_URL", "http://kong:8000/auth/v1/verify/hunter2", "must end before /auth/v1, which"},
		{"SUPABASE_URL", "https://" + ref + ".supabase.co/hunter2", "must end after the host: write the project's address, https://" + ref + ".supabase.co"},
		{"SUPABASE_URL", "http://" + ref + ".supabase.co", "must begin with https://"},
		{"SUPABASE_URL", "postgresql://postgres:hunter2@db." + ref + ".supabase.co:5432/postgres", "is the address of the database: write the project's address, https://" + ref + ".supabase.co"},
		{"SUPABASE_URL", "postgres://postgres." + ref + ":hunter2@aws-0-eu-central-1.pooler.supabase.com:6543/postgres", "is the address of the database: write the project's address, https://" + ref + ".supabase.co"},
		{"SUPABASE_URL", "postgresql://postgres:hunter2@localhost:5432/postgres", "is the address of the database: write the project's address, https://PROJECT.supabase.co"},
		{"SUPABASE_URL", "https://db." + ref + ".supabase.co", "is the address of the database: write the project's address, https://" + ref + ".supabase.co"},
		{"SUPABASE_URL", "https://supabase.com/dashboard/project/" + ref + "/settings/api-keys", "is an address of Supabase's own, and not of the project: write the project's address, https://" + ref + ".supabase.co"},
		{"SUPABASE_URL", "https://app.supabase.com/project/" + ref, "is an address of Supabase's own, and not of the project: write the project's address, https://" + ref + ".supabase.co"},
		{"SUPABASE_URL", "https://api.supabase.com", "is an address of Supabase's own, and not of the project: write the project's address, https://PROJECT.supabase.co"},
		{"SUPABASE_URL", ref + ".supabase.co", "must be an address like https://host"},
		{"SUPABASE_URL", ref, "must be an address like https://host"},
		{"SUPABASE_URL", "https://user:hunter2@host", "must be an address like https://host, without user"},
		{"SUPABASE_URL", "https://host?apikey=hunter2", "must be an address like https://host, without user, query"},
		{"SUPABASE_URL", "https://ho st", "must be an address like https://host"},
		{"SUPABASE_URL", "https://host/a b", "must be an address like https://host"},
		{"SUPABASE_URL", "https://" + ref + ".supabase.co.", "has a host that ends in a dot: remove it"},
		{"SUPABASE_URL", "https://auth.bücher.example", "has a domain name with characters beyond ASCII: write it as auth.xn--bcher-kva.example"},
		{"SUPABASE_URL", "https://host:99999", "must have a port from 1 to 65535"},
		{"SUPABASE_AUTH_URL", "http://auth:9999", ""},
		{"SUPABASE_AUTH_URL", "https://" + ref + ".supabase.co/auth/v1", ""},
		{"SUPABASE_AUTH_URL", "https://" + ref + ".supabase.co", "must be left out where SUPABASE_URL is https://PROJECT.supabase.co"},
		{"SUPABASE_AUTH_URL", "https://auth.example.com.", "has a host that ends in a dot"},

		// Links.
		{"SITE_URL", "https://app.example.com/", ""},
		{"SITE_URL", "https://app.example.com/account/hunter2?x", "has a path: remove everything from the \"/\" after the host on; the path of the page belongs into RESET_PATH"},
		{"SITE_URL", "https://app.example.com/hunter2", "has a path: remove everything from the \"/\" after the host on; the path of the page belongs into RESET_PATH"},
		{"SITE_URL", "app.example.com", "has no scheme"},
		{"SITE_URL", "https://app.example.com.", "has a host that ends in a dot"},
		{"SITE_URL", "https://bücher.example", "contains a character that is not ASCII: write https://xn--bcher-kva.example"},
		{"SITE_URL", "https://user:hunter2@app.example.com", "has user info"},
		{"SITE_URL", "io.example.app://hunter2", "must begin with https:// (or http://); an app's own scheme belongs into CALLBACK_ORIGINS"},
		{"RESET_PATH", "/auth/confirm?next=/account", ""},
		{"RESET_PATH", "/#/reset", ""},
		{"RESET_PATH", "hunter2", "must begin with one slash"},
		{"RESET_PATH", "/reset#hunter2", "must have the route of a hash router"},
		{"RESET_PATH", "/reset?token_hash=hunter2", "must leave token_hash and type to the link"},

		// Mailgun.
		{"MAILGUN_API_KEY", "key-hunter2", ""},
		{"MAILGUN_API_KEY", "pubkey-hunter2", "is the public validation key, which sends nothing: give a sending key"},
		{"MAILGUN_API_KEY", "key\thunter2", "must have no spaces"},
		{"MAILGUN_WEBHOOK_SIGNING_KEY", "pubkey-hunter2", "is the public validation key, which signs nothing: give the HTTP webhook signing key"},
		{"MAILGUN_WEBHOOK_SIGNING_KEY", "hunter2 hunter2", "must have no spaces"},
		{"MAILGUN_DOMAIN", "mg.example.com", ""},
		{"MAILGUN_DOMAIN", "MG.Example.com", ""},
		{"MAILGUN_DOMAIN", "xn--bcher-kva.example", ""},
		{"MAILGUN_DOMAIN", "mg.example.com.", "ends in a dot: remove it"},
		{"MAILGUN_DOMAIN", "mg.bücher.example", "has a domain name with characters beyond ASCII: write it as mg.xn--bcher-kva.example"},
		{"MAILGUN_DOMAIN", "mg.exa mple.com", "must be a domain name, like mg.example.com"},
		{"MAILGUN_DOMAIN", "mg.exa\u00a0mple.com", "has a domain name with characters beyond ASCII: write it in its xn-- form"},
		{"MAILGUN_DOMAIN", "mg..example.com", "must be a domain name, like mg.example.com"},
		{"MAILGUN_DOMAIN", "example", "must be a domain name, like mg.example.com"},
		{"MAILGUN_DOMAIN", "https://mg.example.com", "must be a domain name alone, like mg.example.com, without https://"},
		{"MAILGUN_DOMAIN", "postmaster@mg.example.com", "must be a domain name alone, like mg.example.com, and no mail address"},
		{"MAILGUN_DOMAIN", "mg.example.com/messages", "must be a domain name, like mg.example.com"},
		{"MAILGUN_API_BASE", "https://api.mailgun.net", ""},
		{"MAILGUN_API_BASE", "https://api.eu.mailgun.net/v3/", ""}, // as Mailgun's own examples have it
		{"MAILGUN_API_BASE", "http://proxy:3128/mailgun", ""},
		{"MAILGUN_API_BASE", "https://api.mailgun.net/v3/mg.example.com", "must end after the host: write https://api.mailgun.net"},
		{"MAILGUN_API_BASE", "https://api.mailgun.net/v4", "must end after the host: write https://api.mailgun.net"},
		{"MAILGUN_API_BASE", "http://api.mailgun.net", "must begin with https://"},
		{"MAILGUN_API_BASE", "https://app.mailgun.com/mg/sending/domains", "is an address of Mailgun's that takes no messages: write https://api.mailgun.net, or https://api.eu.mailgun.net"},
		{"MAILGUN_API_BASE", "https://smtp.mailgun.org", "is an address of Mailgun's that takes no messages: write https://api.mailgun.net"},
		{"MAILGUN_API_BASE", "api.mailgun.net", "must be an address like https://host"},
		{"MAIL_FROM", "Hello <hi@bücher.example>", "has a domain name with characters beyond ASCII: write it as xn--bcher-kva.example"},
		{"MAIL_FROM", `"Example, Inc." <hi@example.com>`, ""},
		{"MAIL_FROM", "hi@example.com.", "must be one mailbox"},
		{"MAIL_REPLY_TO", "hi@bücher.example", "has a domain name with characters beyond ASCII: write it as xn--bcher-kva.example"},
		{"SUPPORT_EMAIL", "hi@bücher.example", "has a domain name with characters beyond ASCII: write it as xn--bcher-kva.example"},
		{"BRAND_LOGO_URL", "https://u:hunter2@x.example/l.png", "must be an https address without user or password"},
		{"BRAND_NAME", "A\nhunter2", "must have no line break"},
		{"REDIS_URL", "http://:hunter2@redis:6379", "must be redis://"},
	} {
		_, err := readSettings("serve", nil, []string{c.name + "=" + c.value}, io.Discard)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), "  "+c.name+": "+c.want) {
			t.Errorf("%s=%q: %v, want %q", c.name, c.value, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), secretPart) || strings.Count(err.Error(), "\n") != 1) {
			t.Errorf("%s=%q is repeated, or blamed on another setting: %v", c.name, c.value, err)
		}
	}
}

// TestLinkModes: what a mail cannot carry, or Supabase cannot lead to, is refused with the reason.
func TestLinkModes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		environ []string
		want    string // of the mistake; empty: there is none
	}{
		{[]string{"CALLBACK_ORIGINS=https://other.example.com/konto/neu,https://*.preview.example.com/#/reset"}, ""},
		{[]string{"CALLBACK_ORIGINS=io.example.app://reset"}, `CALLBACK_ORIGINS: entry 1 is an app's own scheme, which mail programs do not open: list the https address of an app link (universal link) instead, or set LINK_MODE=action_link, whose link is https and leads there`},
		{[]string{"CALLBACK_ORIGINS=io.example.app://reset", "LINK_MODE=action_link"}, ""},
		{[]string{"RESET_PATH=/#/reset", "LINK_MODE=action_link"}, `RESET_PATH: must have no "#" with LINK_MODE=action_link: Supabase puts the session there`},
		{[]string{"CALLBACK_ORIGINS=https://other.example.com/#/reset", "LINK_MODE=action_link"}, `CALLBACK_ORIGINS: entry 1 has a path that must have no "#" with LINK_MODE=action_link`},
		{[]string{"CALLBACK_ORIGINS=https://app.example.com/other"}, "CALLBACK_ORIGINS: entry 1 is SITE_URL, whose path is RESET_PATH"},
		{[]string{"CALLBACK_ORIGINS=https://a.example.com/x,https://a.example.com/y"}, "CALLBACK_ORIGINS: entry 2 is listed with another path too"},
		{[]string{"CALLBACK_ORIGINS=https://*.vercel.app/x"}, "CALLBACK_ORIGINS: entry 1 would allow names of strangers"},
		{[]string{"CORS_ORIGINS=https://app.example.com/x"}, "CORS_ORIGINS: entry 1 has a path"},
	} {
		_, err := readSettings("serve", nil, append(c.environ, "SITE_URL=https://app.example.com"), io.Discard)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), "  "+c.want) || strings.Count(err.Error(), "\n") != 1) {
			t.Errorf("%s: %v, want %q", c.environ, err, c.want)
		}
	}
}

// TestValuesOfAllSettings: what no value of any setting has.
func TestValuesOfAllSettings(t *testing.T) {
	t.Parallel()
	names := []string{"PORT"}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[settings]()) {
		if name := field.Tag.Get("env"); name != "" {
			names = append(names, name)
		}
	}
	if len(names) < 30 {
		t.Fatalf("only %d settings were looked at", len(names))
	}
	for _, name := range names {
		for value, want := range map[string]string{
			`"hunter2"`:         "is wrapped in quotes, which docker's --env-file, among others, leaves in the value: remove them",
			`'hunter2'`:         "is wrapped in quotes",
			"“hunter2”":         "is wrapped in quotes",
			` "hunter2" `:       "is wrapped in quotes",
			"\ufeffhunter2":     "contains a byte-order mark",
			"hunter2\u200b":     "contains an invisible character (U+200B)",
			"hun\x1bter2":       "contains a control character (U+001B)",
			"hun\u0085ter2, x ": "contains a control character (U+0085)",
		} {
			_, err := readSettings("serve", nil, []string{name + "=" + value}, io.Discard)
			if err == nil || strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), "  "+name+": "+want) || strings.Contains(err.Error(), secretPart) {
				t.Errorf("%s=%q: %v, want %q", name, value, err, want)
			}
		}
	}
}

// TestSecretInAnySetting: a secret that is put into the wrong variable is in no output, whether it is refused
// there or taken.
func TestSecretInAnySetting(t *testing.T) {
	t.Parallel()
	secrets := []string{
		"sb_secret_hunter2", "5-hunter2", "https://hooks.example.com/hunter2", "redis://default:hunter2@127.0.0.1:1",
		"https://app.example.com, hunter2", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
	}
	stopped, stop := context.WithCancel(t.Context())
	stop() // a server that starts ends at once
	try := func(name, value string) {
		for _, command := range []string{"serve", "check"} {
			environ := []string{"LISTEN_ADDR=127.0.0.1:0", "ADMIN_ADDR=off", "SHUTDOWN_DELAY=0s", "LOG_LEVEL=debug", name + "=" + value}
			ctx := t.Context()
			if command == "serve" {
				ctx = stopped
			}
			var out strings.Builder
			status := exitStatus(run(ctx, []string{command}, environ, &out, &out), &out)
			if out.Len() == 0 || strings.Contains(out.String(), secretPart) {
				t.Errorf("%s of %s=%q says:\n%s", command, name, value, out.String())
			}
			if status == 2 {
				break // the other command says the same
			}
		}
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[settings]()) {
		name := field.Tag.Get("env")
		if name == "" {
			continue
		}
		for _, secret := range secrets {
			try(name, secret)
		}
		try(name+"_FILE", secrets[0])
	}
	for name := range gone {
		try(name, secrets[0])
	}
	try("PORT", secrets[0])
}

// TestValuesOfOpenTelemetry: its variables are judged likewise where they are used. Other programs of the
// machine may read them too.
func TestValuesOfOpenTelemetry(t *testing.T) {
	t.Parallel()
	const name = `OTEL_SERVICE_NAME="resetd"`
	if _, err := readSettings("serve", nil, []string{name}, io.Discard); err != nil {
		t.Errorf("without traces: %v", err)
	}
	for _, of := range []string{
		"OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
	} {
		_, err := readSettings("serve", nil, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", of + "=hunter2"}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "  "+of+": ") || strings.Contains(err.Error(), secretPart) {
			t.Errorf("a secret in %s: %v", of, err)
		}
	}
	for _, endpoint := range []string{"http://127.0.0.1:1", `"http://127.0.0.1:1"`} {
		_, err := readSettings("serve", nil, []string{name, "OTEL_EXPORTER_OTLP_ENDPOINT=" + endpoint}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "OTEL_SERVICE_NAME: is wrapped in quotes") || strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_ENDPOINT: is wrapped in quotes") != strings.HasPrefix(endpoint, `"`) {
			t.Errorf("traces to %s: %v", endpoint, err)
		}
	}
}

// TestWhiteSpaceAroundValues: it means nothing, wherever the value comes from.
func TestWhiteSpaceAroundValues(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte("  mg.example.com\t\r\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for how, c := range map[string]struct{ args, environ []string }{
		"variable, of a file with Windows' line ends": {nil, []string{"MAILGUN_DOMAIN= mg.example.com\r"}},
		"flag": {[]string{"--mailgun-domain", "mg.example.com "}, nil},
		"file": {nil, []string{"MAILGUN_DOMAIN_FILE=" + file + "\r"}},
	} {
		s, err := readSettings("serve", c.args, c.environ, io.Discard)
		if err != nil || s.MailgunDomain != "mg.example.com" || s.from.Address != "no-reply@mg.example.com" {
			t.Errorf("%s: %v", how, err)
		}
	}
}

// TestByteOrderMarks: in a file with a value, and before the name of the first variable of an environment
// file.
func TestByteOrderMarks(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"\xef\xbb\xbfhunter2\r\n":      "MAILGUN_API_KEY: contains a byte-order mark",
		"\xff\xfeh\x00u\x00n\x00":      "MAILGUN_API_KEY_FILE: must be the path of a file in UTF-8, and that one is in UTF-16",
		"\xfe\xff\x00h\x00u\x00n\x00t": "MAILGUN_API_KEY_FILE: must be the path of a file in UTF-8, and that one is in UTF-16",
		`"hunter2"` + "\n":             "MAILGUN_API_KEY: is wrapped in quotes",
	} {
		file := filepath.Join(t.TempDir(), "value")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readSettings("serve", nil, []string{"MAILGUN_API_KEY_FILE=" + file}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunt") {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
	for entry, want := range map[string]string{
		"\ufeffMAILGUN_API_KEY=hunter2":             "MAILGUN_API_KEY: has a byte-order mark before its name",
		`MAILGUN_API_KEY_FILE="/run/hunter2"`:       "MAILGUN_API_KEY_FILE: is wrapped in quotes",
		"MAILGUN_API_KEY_FILE=\ufeff/run/hunter2":   "MAILGUN_API_KEY_FILE: contains a byte-order mark",
		"MAILGUN_API_KEY_FILE=/run/hun\x1bter2/key": "MAILGUN_API_KEY_FILE: contains a control character",
	} {
		_, err := readSettings("serve", nil, []string{entry}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secretPart) {
			t.Errorf("%q: %v, want %q", entry, err, want)
		}
	}
	if _, err := readSettings("serve", nil, []string{"\ufeffNOT_OURS=x"}, io.Discard); err != nil {
		t.Errorf("a variable of another program: %v", err)
	}
}

// TestMistakesTogether: those of all owners are named at once, a broken template among them.
func TestMistakesTogether(t *testing.T) {
	t.Parallel()
	templates := t.TempDir()
	if err := os.WriteFile(filepath.Join(templates, "en.sentences.tmpl"), []byte("{{nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{
		"BRAND_LOGO_URL=https://u:p@x/l.png", "BRAND_NAME=A\nB", "SUPPORT_EMAIL=us", "LINK_EXPIRES_IN=1s", "TEMPLATES_DIR=" + templates,
		"REDIS_URL=http://redis:6379", "MAILGUN_DOMAIN=mg.example.com.", "SUPABASE_URL=ftp://x", "RATE_LIMIT=many", "SITE_URL=https://app.example.com/x",
	}
	for _, command := range []string{"serve", "check", "dev", "healthcheck"} {
		var stderr strings.Builder
		if status := exitStatus(run(t.Context(), []string{command}, environ, io.Discard, &stderr), &stderr); status != 2 {
			t.Errorf("%s: exit status %d", command, status)
		}
		for _, entry := range environ {
			name, _, _ := strings.Cut(entry, "=")
			want := 1
			if command == "healthcheck" && name == "TEMPLATES_DIR" { // an instance that runs has read its own
				want = 0
			}
			if got := strings.Count(stderr.String(), "  "+name+": "); got != want {
				t.Errorf("%s names %s %d times in:\n%s", command, name, got, stderr.String())
			}
		}
	}
	// A brand that is no good is not said of the templates, which show it.
	_, err := readSettings("serve", nil, []string{"BRAND_NAME=A\nB"}, io.Discard)
	if err == nil || strings.Contains(err.Error(), "TEMPLATES_DIR") {
		t.Error(err)
	}
}

// TestKeyClaims: only a JWT's claims are read, and a signature that is base64 of anything does no harm.
func TestKeyClaims(t *testing.T) {
	t.Parallel()
	key := "eyJ." + base64.RawURLEncoding.EncodeToString([]byte(`{"role":["anon"]}`)) + ".x"
	if _, err := readSettings("serve", nil, []string{"SUPABASE_SERVICE_ROLE_KEY=" + key}, io.Discard); err == nil || !strings.Contains(err.Error(), "is no whole JWT") {
		t.Error(err)
	}
}
