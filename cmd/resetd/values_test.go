package main

import (
	"context"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// secretPart is the part of values below that no message may repeat.
const secretPart = "hunter2"

// TestValues: a value that cannot be right for its setting is refused. The message names the setting, says
// what to do, and does not repeat the value.
func TestValues(t *testing.T) {
	t.Parallel()
	const ref = "abcdefghijklmnopqrst"
	for _, c := range []struct {
		name, value string
		want        string // of the mistake; empty: there is none
	}{
		// The key of Supabase.
		{name: "SUPABASE_SERVICE_ROLE_KEY", value: "sb_secret_hunter2", want: ""},
		{name: "SUPABASE_SERVICE_ROLE_KEY", value: jwt(`{"role":"service_role","ref":"hunter2"}`), want: ""},
		{name: "SUPABASE_SERVICE_ROLE_KEY", value: jwt(`{"role":"reporting"}`), want: ""}, // a self-hosted Auth may be set to accept it
		{name: "SUPABASE_SERVICE_ROLE_KEY", value: "sb_publishable_hunter2", want: "is a publishable key: give the service_role key or a secret key (sb_secret_…)"},
		{name: "SUPABASE_SERVICE_ROLE_KEY", value: jwt(`{"role":"anon","ref":"hunter2"}`), want: "is the anon key, a JWT with the role anon: give the service_role key or"},
		{name: "SUPABASE_SERVICE_ROLE_KEY", value: jwt(`{"role":"authenticated"}`), want: "is a user's access token"},
		{name: "SUPABASE_SERVICE_ROLE_KEY", value: "sbp_hunter2", want: "is a personal access token"},
		{name: "SUPABASE_SERVICE_ROLE_KEY", value: "eyJhbGciOiJIUzI1NiJ9.eyJyb2x.hunter2", want: "is no whole JWT"},
		{name: "SUPABASE_SERVICE_ROLE_KEY", value: "eyJhbGciOiJIUzI1NiJ9.hunter2", want: "is no whole JWT"},
		{name: "SUPABASE_SERVICE_ROLE_KEY", value: "sb_secret_ hunter2", want: "must have no spaces"},
		{name: "SUPABASE_SERVICE_ROLE_KEY", value: "sb_secret_\nhunter2", want: "must have no spaces"},
		{name: "SUPABASE_SERVICE_ROLE_KEY", value: "sb_secret_hünter2", want: "must have no spaces, line breaks or characters beyond ASCII"},
		{name: "SUPABASE_SECRET_KEY", value: "sb_publishable_hunter2", want: "is a publishable key"},

		// Addresses of Supabase.
		{name: "SUPABASE_URL", value: "https://" + ref + ".supabase.co", want: ""},
		{name: "SUPABASE_URL", value: "https://" + ref + ".supabase.co/", want: ""},
		{name: "SUPABASE_URL", value: "http://kong:8000", want: ""},
		{name: "SUPABASE_URL", value: "https://gateway.example.com/supabase", want: ""},
		{name: "SUPABASE_URL", value: "https://" + ref + ".supabase.co/auth/v1", want: "must end before /auth/v1, which is no part of the project's address"},
		{name: "SUPABASE_URL", value: "https://" + ref + ".supabase.co/rest/v1/", want: "must end before /rest/v1"},
		{name: "SUPABASE_URL", value: "http://kong:8000/auth/v1/verify/hunter2", want: "must end before /auth/v1, which"},
		{name: "SUPABASE_URL", value: "https://" + ref + ".supabase.co/hunter2", want: "must end after the host: write the project's address, https://" + ref + ".supabase.co"},
		{name: "SUPABASE_URL", value: "http://" + ref + ".supabase.co", want: "must begin with https://"},
		{
			name: "SUPABASE_URL", value: "postgresql://postgres:hunter2@db." + ref + ".supabase.co:5432/postgres",
			want: "is the address of the database: write the project's address, https://" + ref + ".supabase.co",
		},
		{
			name: "SUPABASE_URL", value: "postgres://postgres." + ref + ":hunter2@aws-0-eu-central-1.pooler.supabase.com:6543/postgres",
			want: "is the address of the database: write the project's address, https://" + ref + ".supabase.co",
		},
		{name: "SUPABASE_URL", value: "postgresql://postgres:hunter2@localhost:5432/postgres", want: "is the address of the database: write the project's address, https://PROJECT.supabase.co"},
		{name: "SUPABASE_URL", value: "https://db." + ref + ".supabase.co", want: "is the address of the database: write the project's address, https://" + ref + ".supabase.co"},
		{
			name: "SUPABASE_URL", value: "https://supabase.com/dashboard/project/" + ref + "/settings/api-keys",
			want: "is an address of Supabase's own, and not of the project: write the project's address, https://" + ref + ".supabase.co",
		},
		{
			name: "SUPABASE_URL", value: "https://app.supabase.com/project/" + ref,
			want: "is an address of Supabase's own, and not of the project: write the project's address, https://" + ref + ".supabase.co",
		},
		{name: "SUPABASE_URL", value: "https://api.supabase.com", want: "is an address of Supabase's own, and not of the project: write the project's address, https://PROJECT.supabase.co"},
		{name: "SUPABASE_URL", value: ref + ".supabase.co", want: "must be an address like https://host"},
		{name: "SUPABASE_URL", value: ref, want: "must be an address like https://host"},
		{name: "SUPABASE_URL", value: "https://user:hunter2@host", want: "must be an address like https://host, without user"},
		{name: "SUPABASE_URL", value: "https://host?apikey=hunter2", want: "must be an address like https://host, without user, query"},
		{name: "SUPABASE_URL", value: "https://ho st", want: "must be an address like https://host"},
		{name: "SUPABASE_URL", value: "https://host/a b", want: "must be an address like https://host"},
		{name: "SUPABASE_URL", value: "https://" + ref + ".supabase.co.", want: "has a host that ends in a dot: remove it"},
		{name: "SUPABASE_URL", value: "https://auth.bücher.example", want: "has a domain name with characters beyond ASCII: write it as auth.xn--bcher-kva.example"},
		{name: "SUPABASE_URL", value: "https://host:99999", want: "must have a port from 1 to 65535"},
		{name: "SUPABASE_AUTH_URL", value: "http://auth:9999", want: ""},
		{name: "SUPABASE_AUTH_URL", value: "https://" + ref + ".supabase.co/auth/v1", want: ""},
		{name: "SUPABASE_AUTH_URL", value: "https://" + ref + ".supabase.co", want: "must be left out where SUPABASE_URL is https://PROJECT.supabase.co"},
		{name: "SUPABASE_AUTH_URL", value: "https://auth.example.com.", want: "has a host that ends in a dot"},

		// Links.
		{name: "SITE_URL", value: "https://app.example.com/", want: ""},
		{name: "SITE_URL", value: "https://app.example.com/account/hunter2?x", want: "has a path: remove everything from the \"/\" after the host on; the path of the page belongs into RESET_PATH"},
		{name: "SITE_URL", value: "https://app.example.com/hunter2", want: "has a path: remove everything from the \"/\" after the host on; the path of the page belongs into RESET_PATH"},
		{name: "SITE_URL", value: "app.example.com", want: "has no scheme"},
		{name: "SITE_URL", value: "https://app.example.com.", want: "has a host that ends in a dot"},
		{name: "SITE_URL", value: "https://bücher.example", want: "contains a character that is not ASCII: write https://xn--bcher-kva.example"},
		{name: "SITE_URL", value: "https://user:hunter2@app.example.com", want: "has user info"},
		{name: "SITE_URL", value: "io.example.app://hunter2", want: "must begin with https:// (or http://); an app's own scheme belongs into CALLBACK_ORIGINS"},
		{name: "RESET_PATH", value: "/auth/confirm?next=/account", want: ""},
		{name: "RESET_PATH", value: "/#/reset", want: ""},
		{name: "RESET_PATH", value: "hunter2", want: "must begin with one slash"},
		{name: "RESET_PATH", value: "/reset#hunter2", want: "must have the route of a hash router"},
		{name: "RESET_PATH", value: "/reset?token_hash=hunter2", want: "must leave token_hash and type to the link"},

		// Mailgun.
		{name: "MAILGUN_API_KEY", value: "key-hunter2", want: ""},
		{name: "MAILGUN_API_KEY", value: "pubkey-hunter2", want: "is the public validation key, which sends nothing: give a sending key"},
		{name: "MAILGUN_API_KEY", value: "key\thunter2", want: "must have no spaces"},
		{name: "MAILGUN_WEBHOOK_SIGNING_KEY", value: "pubkey-hunter2", want: "is the public validation key, which signs nothing: give the HTTP webhook signing key"},
		{name: "MAILGUN_WEBHOOK_SIGNING_KEY", value: "hunter2 hunter2", want: "must have no spaces"},
		{name: "MAILGUN_DOMAIN", value: "mg.example.com", want: ""},
		{name: "MAILGUN_DOMAIN", value: "MG.Example.com", want: ""},
		{name: "MAILGUN_DOMAIN", value: "xn--bcher-kva.example", want: ""},
		{name: "MAILGUN_DOMAIN", value: "mg.example.com.", want: "ends in a dot: remove it"},
		{name: "MAILGUN_DOMAIN", value: "mg.bücher.example", want: "has a domain name with characters beyond ASCII: write it as mg.xn--bcher-kva.example"},
		{name: "MAILGUN_DOMAIN", value: "mg.exa mple.com", want: "must be a domain name, like mg.example.com"},
		{name: "MAILGUN_DOMAIN", value: "mg.exa\u00a0mple.com", want: "has a domain name with characters beyond ASCII: write it in its xn-- form"},
		{name: "MAILGUN_DOMAIN", value: "mg..example.com", want: "must be a domain name, like mg.example.com"},
		{name: "MAILGUN_DOMAIN", value: "example", want: "must be a domain name, like mg.example.com"},
		{name: "MAILGUN_DOMAIN", value: "https://mg.example.com", want: "must be a domain name alone, like mg.example.com, without https://"},
		{name: "MAILGUN_DOMAIN", value: "postmaster@mg.example.com", want: "must be a domain name alone, like mg.example.com, and no mail address"},
		{name: "MAILGUN_DOMAIN", value: "mg.example.com/messages", want: "must be a domain name, like mg.example.com"},
		{name: "MAILGUN_API_BASE", value: "https://api.mailgun.net", want: ""},
		{name: "MAILGUN_API_BASE", value: "https://api.eu.mailgun.net/v3/", want: ""}, // as in Mailgun's examples
		{name: "MAILGUN_API_BASE", value: "http://proxy:3128/mailgun", want: ""},
		{name: "MAILGUN_API_BASE", value: "https://api.mailgun.net/v3/mg.example.com", want: "must end after the host: write https://api.mailgun.net"},
		{name: "MAILGUN_API_BASE", value: "https://api.mailgun.net/v4", want: "must end after the host: write https://api.mailgun.net"},
		{name: "MAILGUN_API_BASE", value: "http://api.mailgun.net", want: "must begin with https://"},
		{
			name: "MAILGUN_API_BASE", value: "https://app.mailgun.com/mg/sending/domains",
			want: "is an address of Mailgun's that takes no messages: write https://api.mailgun.net, or https://api.eu.mailgun.net",
		},
		{name: "MAILGUN_API_BASE", value: "https://smtp.mailgun.org", want: "is an address of Mailgun's that takes no messages: write https://api.mailgun.net"},
		{name: "MAILGUN_API_BASE", value: "api.mailgun.net", want: "must be an address like https://host"},
		{name: "MAIL_FROM", value: "Hello <hi@bücher.example>", want: "has a domain name with characters beyond ASCII: write it as xn--bcher-kva.example"},
		{name: "MAIL_FROM", value: `"Example, Inc." <hi@example.com>`, want: ""},
		{name: "MAIL_FROM", value: "hi@example.com.", want: "must be one mailbox"},
		{name: "MAIL_REPLY_TO", value: "hi@bücher.example", want: "has a domain name with characters beyond ASCII: write it as xn--bcher-kva.example"},
		{name: "SUPPORT_EMAIL", value: "hi@bücher.example", want: "has a domain name with characters beyond ASCII: write it as xn--bcher-kva.example"},
		{name: "BRAND_LOGO_URL", value: "https://u:hunter2@x.example/l.png", want: "must be an https address without user or password"},
		{name: "BRAND_NAME", value: "A\nhunter2", want: "must have no line break"},
		{name: "REDIS_URL", value: "http://:hunter2@redis:6379", want: "must be redis://"},
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

// TestLinkModes: a link that a mail cannot carry, or that Supabase cannot redirect to, is refused with the reason.
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

// TestValuesOfAllSettings: these values are refused for every setting.
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
		var environ []string
		for _, name := range names {
			environ = append(environ, name+"="+value)
		}
		_, err := readSettings("serve", nil, environ, io.Discard)
		if err == nil || strings.Contains(err.Error(), secretPart) {
			t.Fatalf("%q: %v", value, err)
		}
		said := strings.Split(err.Error(), "\n")[1:]
		if len(said) != len(names) {
			t.Errorf("%q in %d settings: %d mistakes", value, len(names), len(said))
		}
		for _, name := range names {
			if !slices.ContainsFunc(said, func(line string) bool { return strings.HasPrefix(line, "  "+name+": "+want) }) {
				t.Errorf("%s=%q: no mistake %q in\n%v", name, value, want, err)
			}
		}
	}
}

// TestSecretInAnySetting: a secret that is put into the wrong variable is in no output, whether the variable
// refuses it or not.
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

// TestValuesOfOpenTelemetry: OpenTelemetry's variables have the same rules if tracing is on. If it is off, they
// may be meant for other programs of the machine.
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

// TestWhiteSpaceAroundValues: white space around a value is ignored, wherever the value comes from.
func TestWhiteSpaceAroundValues(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte("  mg.example.com\t\r\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for how, c := range map[string]struct{ args, environ []string }{
		"variable, of a file with Windows' line ends": {environ: []string{"MAILGUN_DOMAIN= mg.example.com\r"}},
		"flag": {args: []string{"--mailgun-domain", "mg.example.com "}, environ: nil},
		"file": {environ: []string{"MAILGUN_DOMAIN_FILE=" + file + "\r"}},
	} {
		s, err := readSettings("serve", c.args, c.environ, io.Discard)
		if err != nil || s.MailgunDomain != "mg.example.com" || s.from.Address != "no-reply@mg.example.com" {
			t.Errorf("%s: %v", how, err)
		}
	}
}

// TestByteOrderMarks: a byte-order mark is refused in a file with a value, and before the name of the first
// variable of an environment file.
func TestByteOrderMarks(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"\xef\xbb\xbfhunter2\r\n":      "MAILGUN_API_KEY: contains a byte-order mark",
		"\xff\xfeh\x00u\x00n\x00":      "MAILGUN_API_KEY_FILE: must be the path of a file in UTF-8, but this file is in UTF-16, as PowerShell writes it: save it as UTF-8",
		"\xfe\xff\x00h\x00u\x00n\x00t": "MAILGUN_API_KEY_FILE: must be the path of a file in UTF-8, but this file is in UTF-16, as PowerShell writes it: save it as UTF-8",
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

// TestMistakesTogether: the mistakes of all owners are named together, also a broken template.
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
			if command == "healthcheck" && name == "TEMPLATES_DIR" { // it reads no templates
				want = 0
			}
			if got := strings.Count(stderr.String(), "  "+name+": "); got != want {
				t.Errorf("%s names %s %d times in:\n%s", command, name, got, stderr.String())
			}
		}
	}
	// A mistake in the brand is not reported as a mistake of the templates, which show the brand.
	_, err := readSettings("serve", nil, []string{"BRAND_NAME=A\nB"}, io.Discard)
	if err == nil || strings.Contains(err.Error(), "TEMPLATES_DIR") {
		t.Error(err)
	}
}

// TestKeyClaims: a JWT whose claims cannot be read is refused.
func TestKeyClaims(t *testing.T) {
	t.Parallel()
	key := "eyJ." + base64.RawURLEncoding.EncodeToString([]byte(`{"role":["anon"]}`)) + ".x"
	if _, err := readSettings("serve", nil, []string{"SUPABASE_SERVICE_ROLE_KEY=" + key}, io.Discard); err == nil || !strings.Contains(err.Error(), "is no whole JWT") {
		t.Error(err)
	}
}
