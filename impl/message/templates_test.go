package message_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/resetd/resetd/impl/message"
)

// italian is a whole language's file.
const italian = `{{define "subject"}}Reimposta la password di {{.Brand.Name}}{{end}}
{{define "preheader"}}Ecco il link, valido per {{.ExpiresIn}}.{{end}}
{{define "heading"}}Reimposta la password{{end}}
{{define "greeting"}}Ciao,{{end}}
{{define "asked"}}Qualcuno ha chiesto di reimpostare la password del tuo account {{.Brand.Name}}.{{end}}
{{define "button"}}Scegli una nuova password{{end}}
{{define "valid"}}Il link vale {{.ExpiresIn}}.{{end}}
{{define "ignore"}}Se non sei stato tu, ignora questo messaggio.{{end}}
{{define "copy"}}Copia questo link nel browser:{{end}}
{{define "help"}}Serve aiuto?{{end}}
{{define "days"}}{{.}} giorni{{end}}{{define "hours"}}{{.}} {{if eq . 1}}ora{{else}}ore{{end}}{{end}}{{define "minutes"}}{{.}} minuti{{end}}
`

// overrides makes a directory of templates.
func overrides(t *testing.T, files map[string]string) message.Options {
	t.Helper()
	opts := plain
	opts.TemplatesDir = t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(opts.TemplatesDir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return opts
}

func TestOverrides(t *testing.T) {
	t.Parallel()
	opts := overrides(t, map[string]string{
		"it.tmpl":     "\ufeff" + strings.ReplaceAll(italian, "\n", "\r\n"), // as Windows saves it
		"de.tmpl":     italian,
		"layout.txt":  "{{.Link}}\n\n{{template \"valid\" .}}",
		".hidden.txt": "{{",
		"README.md":   "{{",
		"logo.png":    "{{",
	})
	if err := os.Mkdir(filepath.Join(opts.TemplatesDir, "..data"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := mustNew(t, opts)
	if got := strings.Join(r.Languages(), " "); got != "en de es fr it" {
		t.Errorf("Languages() = %s", got)
	}
	for accept, want := range map[string]string{"it-IT": "it", "de": "de"} {
		m := mustRender(t, r, accept, link)
		if m.Language != want || m.Subject != "Reimposta la password di Example" || m.Text != link+"\n\nIl link vale 1 ora.\n" {
			t.Errorf("%s: got %s, %q, %q", accept, m.Language, m.Subject, m.Text)
		}
		if !strings.Contains(m.HTML, `<html lang="`+want+`">`) || !strings.Contains(m.HTML, "Scegli una nuova password") {
			t.Errorf("%s: the HTML is not in its language", accept)
		}
	}
	m := mustRender(t, r, "nn", link)
	if m.Language != "en" || m.Subject != "Reset your Example password" || !strings.HasPrefix(m.Text, link+"\n\nThe link is valid for 1 hour") {
		t.Errorf("a language that is missing gets %s, %q, %q", m.Language, m.Subject, m.Text)
	}
}

// TestBrokenOverrides: every mistake in a template stops the start, with an
// error that names the file.
func TestBrokenOverrides(t *testing.T) {
	t.Parallel()
	const a = `<a href="{{.Link}}">x</a>`
	replace := func(block, with string) string {
		before, rest, _ := strings.Cut(italian, `{{define "`+block+`"}}`)
		_, after, _ := strings.Cut(rest, "{{end}}\n")
		return before + with + after
	}
	for name, test := range map[string]struct{ file, text, want string }{
		"syntax":                  {"it.tmpl", italian + "{{define", ":12:"},
		"syntax of text":          {"layout.txt", "{{.Link}", ":1:"},
		"syntax of HTML":          {"layout.html", "<p>{{if}}", ":1:"},
		"unknown function":        {"layout.html", "{{env}}" + a, `"env" not defined`},
		"unknown field":           {"it.tmpl", replace("asked", `{{define "asked"}}{{.Email}}{{end}}`), "Email"},
		"unknown field in text":   {"layout.txt", "{{.Email}}\n{{.Link}}", "Email"},
		"unknown field in HTML":   {"layout.html", a + "{{.Email}}", "Email"},
		"unknown block":           {"layout.html", a + `{{template "asket" .}}`, "asket"},
		"missing block":           {"it.tmpl", replace("button", ""), `"button" is missing`},
		"empty file":              {"it.tmpl", "", `"subject" is missing`},
		"empty subject":           {"it.tmpl", replace("subject", `{{define "subject"}} {{end}}`), "one line"},
		"two subjects":            {"it.tmpl", replace("subject", "{{define \"subject\"}}a\nb{{end}}"), "one line"},
		"link in subject":         {"it.tmpl", replace("subject", `{{define "subject"}}{{.Link}}{{end}}`), "one line"},
		"bad hours":               {"it.tmpl", strings.ReplaceAll(italian, "eq . 1", "eq . `a`"), "incompatible types"},
		"no link in text":         {"layout.txt", "Hello", "{{.Link}}"},
		"link amid text":          {"layout.txt", "Go to {{.Link}}", "line by itself"},
		"link before text":        {"layout.txt", "Hello\n{{.Link}}.", "line by itself"},
		"link changed in text":    {"layout.txt", "{{.Link}}\n{{.Link | urlquery}}", "something is done to it"},
		"no link in HTML":         {"layout.html", "<p>Hello</p>", "<a href"},
		"link only shown":         {"layout.html", "<p>{{.Link}}</p>", "<a href"},
		"link in a query":         {"layout.html", a + `<a href="https://click.example/?to={{.Link}}">x</a>`, "can only stand"},
		"link with more":          {"layout.html", a + `<a href="{{.Link}}&amp;utm=1">x</a>`, "can only stand"},
		"link in a script":        {"layout.html", a + `<script>x = {{.Link}}</script>`, "can only stand"},
		"link in a style":         {"layout.html", a + `<p style="background:url({{.Link}})">x</p>`, "can only stand"},
		"link in an image":        {"layout.html", a + `<img src="{{.Link}}">`, "can only stand"},
		"link in another element": {"layout.html", a + `<link href="{{.Link}}">`, "can only stand"},
		"link in a comment":       {"layout.html", a + `{{mso .Link}}`, "can only stand"},
		"open attribute":          {"layout.html", a + `<a href="`, "layout.html"},
		"too long":                {"layout.html", a + strings.Repeat("<br>", 30_000), "cut off"},
		"not UTF-8":               {"it.tmpl", italian + "\xff", "UTF-8"},
		"no such text":            {"layout.text.txt", "", "no template has this name"},
		"no such HTML":            {"body.html", "", "no template has this name"},
		"no such language":        {"klingonisch.tmpl", italian, "not named after a language"},
		"undetermined":            {"und.tmpl", italian, "not named after a language"},
		"odd spelling":            {"pt_br.tmpl", italian, "must be named pt-BR.tmpl"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := overrides(t, map[string]string{test.file: test.text})
			_, err := message.New(opts)
			if err == nil {
				t.Fatal("New accepts it")
			}
			path := filepath.Join(opts.TemplatesDir, test.file)
			if got := err.Error(); !strings.Contains(got, path) || !strings.Contains(got, test.want) {
				t.Errorf("the error does not name %s and %q: %s", test.file, test.want, got)
			}
		})
	}
}

func TestTemplatesDirIsMissing(t *testing.T) {
	t.Parallel()
	opts := plain
	opts.TemplatesDir = filepath.Join(t.TempDir(), "nowhere")
	if _, err := message.New(opts); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("New: %v", err)
	}
}
