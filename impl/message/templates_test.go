package message_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/resetd/resetd/impl/message"
)

// unknown is a template file for eo, which in these tests stands for a language that is not built in.
const unknown = `{{define "subject"}}Återställ lösenordet för {{.Brand.Name}}{{end}}
{{define "preheader"}}Länken gäller i {{.ExpiresIn}}.{{end}}
{{define "heading"}}Återställ lösenordet{{end}}
{{define "greeting"}}Hej,{{end}}
{{define "asked"}}Någon, kanske du, vill återställa lösenordet för ditt konto hos {{.Brand.Name}}. Välj ett nytt här:{{end}}
{{define "button"}}Välj ett nytt lösenord{{end}}
{{define "valid"}}Länken gäller i {{.ExpiresIn}}.{{end}}
{{define "ignore"}}Om det inte var du kan du bortse från meddelandet.{{end}}
{{define "repeated"}}Skydda din e-post.{{end}}
{{define "copy"}}Kopiera länken:{{end}}
{{define "help"}}Behöver du hjälp?{{end}}
{{define "minutes"}}{{plural . "one" "# minut" "other" "# minuter"}}{{end}}
{{define "hours"}}{{plural . "one" "# timme" "other" "# timmar"}}{{end}}
{{define "days"}}{{plural . "one" "# dag" "other" "# dagar"}}{{end}}
{{define "and"}}{{.First}} och {{.Second}}{{end}}
`

// overrides makes a folder of templates.
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

// TestOverrides: a file replaces the blocks that it has, and no others.
func TestOverrides(t *testing.T) {
	t.Parallel()
	opts := overrides(t, map[string]string{
		"eo.tmpl":     "\ufeff" + strings.ReplaceAll(unknown, "\n", "\r\n"), // as Windows saves it
		"de.tmpl":     `{{define "greeting"}}Moin bei {{.Brand.Name}}!{{end}}{{define "heading"}}Passwort zurücksetzen{{end}}`,
		"fr.tmpl":     `{{define "repeated"}}{{end}}{{define "copy"}} {{/* nothing */}} {{end}}`,
		"layout.txt":  `{{define "footer"}}-- {{"\n"}}{{.Brand.Name}}{{end}}`,
		"layout.html": `{{define "copy"}}{{end}}{{define "footer"}}<tr><td align="{{.End}}">{{.Words.greeting}} {{.ExpiresIn}}</td></tr>{{end}}`,
		".hidden.txt": "{{",
	})
	if err := os.Mkdir(filepath.Join(opts.TemplatesDir, "..data"), 0o700); err != nil { // as Kubernetes makes
		t.Fatal(err)
	}
	r := mustNew(t, opts)
	built := mustNew(t, plain)
	want := []string{
		"de.tmpl: greeting", // heading is unchanged
		"eo.tmpl: a language of its own, over en",
		"fr.tmpl: copy, repeated", "layout.html: copy, footer", "layout.txt: footer",
	}
	if diff := cmp.Diff(want, r.Replaced()); diff != "" {
		t.Errorf("Replaced (-want +got):\n%s", diff)
	}
	if got := built.Replaced(); len(got) > 0 {
		t.Errorf("without a directory: %v", got)
	}

	for _, lang := range languages {
		m, before := mustRender(t, r, lang, link), mustRender(t, built, lang, link)
		text := strings.TrimSuffix(before.Text, "Example\n") + "--\nExample\n"
		switch lang {
		case "ar":
			text = strings.TrimSuffix(before.Text, "\u2068Example\u2069\n") + "--\n\u2068Example\u2069\n"
		case "de":
			text = strings.Replace(text, "Guten Tag,", "Moin bei Example!", 1)
			if !strings.Contains(m.HTML, ">Moin bei <bdi>Example</bdi>!</p>") {
				t.Errorf("the HTML has not the greeting:\n%s", m.HTML)
			}
		case "fr":
			begin := strings.Index(text, "Si vous continuez")
			text = text[:begin] + text[strings.Index(text, "--\n"):]
		}
		if diff := cmp.Diff(text, m.Text); diff != "" {
			t.Errorf("%s: the text (-want +got):\n%s", lang, diff)
		}
		if hrefs, written := shownLinks(t, m.HTML); len(hrefs) != 1 || written == link {
			t.Errorf("%s: the written-out link is still there", lang)
		}
		if strings.Contains(m.HTML, "<p class=\"text\" style=\"margin:0; font-size:16px; line-height:26px; color:#1c2128;\"></p>") {
			t.Errorf("%s: an empty paragraph is left", lang)
		}
	}
	if m := mustRender(t, r, "eo-001", link); m.Language != "eo" || m.Subject != "Återställ lösenordet för Example" || !strings.Contains(m.Text, "\nLänken gäller i 1 timme.\n") || !strings.Contains(m.HTML, `<td align="right">Hej, 1 timme</td>`) {
		t.Errorf("the language is %s, %q\n%s", m.Language, m.Subject, m.Text)
	}
	if len(r.Warnings()) > 0 {
		t.Errorf("warnings: %v", r.Warnings())
	}
}

// TestVarieties: a language that is not built in gets missing blocks from the language that it is a variety of,
// or else from English, with a warning.
func TestVarieties(t *testing.T) {
	t.Parallel()
	r := mustNew(t, overrides(t, map[string]string{
		"es-MX.tmpl":      `{{define "greeting"}}Buen día:{{end}}`,
		"pt-PT.tmpl":      `{{define "button"}}Escolher nova palavra-passe{{end}}`,
		"zh-Hant-HK.tmpl": `{{define "greeting"}}你好：{{end}}`,
		"eo.tmpl":         strings.Replace(unknown, `{{define "copy"}}Kopiera länken:{{end}}`, "", 1), // written for a version without this block
		"he.tmpl":         `{{define "heading"}}איפוס סיסמה{{end}}`,
	}))
	for _, c := range []struct{ accept, language, has string }{
		{accept: "es-MX", language: "es-MX", has: "Buen día:\n\nAlguien, quizá usted"},
		{accept: "es-AR", language: "es", has: "Hola:\n"},
		{accept: "es", language: "es", has: "Hola:\n"},
		{accept: "pt-PT", language: "pt-PT", has: "Alguém, talvez você"},
		{accept: "pt", language: "pt-BR", has: "Alguém, talvez você"},
		{accept: "zh-HK", language: "zh-Hant-HK", has: "你好：\n\n有人"},
		{accept: "zh-TW", language: "zh-Hant", has: "您好：\n\n有人"},
		{accept: "eo", language: "eo", has: "Hej,\n"},
		{accept: "iw", language: "he", has: "Hello,\n"},
	} {
		m := mustRender(t, r, c.accept, link)
		if m.Language != c.language || !strings.Contains(m.Text, c.has) {
			t.Errorf("%s gets %s:\n%s", c.accept, m.Language, m.Text)
		}
	}
	if m := mustRender(t, r, "he", link); !strings.Contains(m.HTML, `lang="he" dir="rtl"`) {
		t.Error("Hebrew does not run from right to left")
	}
	want := []string{
		"eo.tmpl lacks blocks, which stay in English: copy",
		"he.tmpl lacks blocks, which stay in English: and, asked, button, copy, days, greeting, help, hours, ignore, minutes, preheader, repeated, subject, valid",
	}
	if diff := cmp.Diff(want, r.Warnings()); diff != "" {
		t.Errorf("Warnings (-want +got):\n%s", diff)
	}
}

// TestBrokenOverrides: every mistake in a template stops the start, with an error that names the file.
func TestBrokenOverrides(t *testing.T) {
	t.Parallel()
	const (
		a       = `<a href="{{.Link}}">x</a>`
		html    = "layout.html"
		textual = "layout.txt"
	)
	replace := func(block, with string) string { return `{{define "` + block + `"}}` + with + `{{end}}` }
	page := func(markup string) string { return replace("document", markup) }
	for name, test := range map[string]struct{ file, text, want string }{
		"syntax":                  {file: "it.tmpl", text: "{{define `button`}}a{{end}}\n{{define", want: ":2:"},
		"syntax of text":          {file: textual, text: "{{define `document`}}{{.Link}", want: ":1:"},
		"syntax of HTML":          {file: html, text: "<p>{{if}}", want: ":1:"},
		"unknown function":        {file: html, text: page("{{env}}" + a), want: `"env" not defined; there are filler, mso, and Go's own`},
		"unknown function, words": {file: "it.tmpl", text: replace("asked", "{{env}}"), want: `"env" not defined; there are plural, and Go's own`},
		"unknown field": {
			file: "it.tmpl", text: replace("asked", "{{.Email}}"),
			want: `it.tmpl:1:20: executing "asked" at <.Email>: can't evaluate field Email; there are .Language, .Brand.Name, .Brand.SupportEmail, .Brand.SupportURL, .ExpiresIn`,
		},
		"unknown field of brand": {file: "it.tmpl", text: replace("asked", "{{.Brand.Logo}}"), want: "can't evaluate field Logo; there are .Language, .Brand.Name"},
		"field of a number":      {file: "it.tmpl", text: replace("hours", "{{.Brand}}"), want: "can't evaluate field Brand"},
		"unknown field in text": {
			file: textual, text: replace("document", "{{.Email}}\n{{.Link}}"),
			want: "can't evaluate field Email; there are .Language, .Dir, .Start, .End, .Brand.Name, .Brand.LogoURL",
		},
		"unknown field in HTML": {file: html, text: page(a + "{{.Email}}"), want: "can't evaluate field Email; there are .Language, .Dir, "},
		"unknown word in HTML":  {file: html, text: page(a + "{{.Words.askd}}"), want: `no entry for key "askd"; there are subject, preheader, heading`},
		"unknown word in text":  {file: textual, text: replace("document", "{{.Words.askd}}\n{{.Link}}"), want: `no entry for key "askd"; there are subject, preheader, heading`},
		"unknown block used":    {file: html, text: page(a + `{{template "askd" .}}`), want: "askd"},
		"unknown block": {
			file: "it.tmpl", text: replace("askd", "x"),
			want: `there is no block "askd"; there are subject, preheader, heading, greeting, asked, button, valid, ignore, repeated, copy, help, minutes, hours, days, and`,
		},
		"unknown block of text":   {file: textual, text: replace("head", "x"), want: `there is no block "head"; there are document, footer`},
		"unknown block of HTML":   {file: html, text: replace("subject", "x"), want: `there is no block "subject"; there are document, head, styles, preview, header, card, action, copy, footer`},
		"outside of blocks":       {file: "it.tmpl", text: "Ciao " + replace("asked", "x"), want: "outside of the blocks"},
		"whole document":          {file: html, text: a, want: "outside of the blocks"},
		"empty subject":           {file: "it.tmpl", text: replace("subject", " "), want: `"subject" is empty`},
		"empty button":            {file: "it.tmpl", text: replace("button", ""), want: `"button" is empty`},
		"control character":       {file: "it.tmpl", text: replace("subject", "a\x07b"), want: `"subject" has a control character`},
		"reversed":                {file: "it.tmpl", text: replace("subject", "a\u202eb"), want: `"subject" has a control character`},
		"name changed":            {file: "it.tmpl", text: replace("subject", `{{printf "%.3s" .Brand.Name}}`), want: "does something to {{.Brand.Name}}"},
		"bad plural":              {file: "it.tmpl", text: replace("hours", `{{plural . "lots" "x"}}`), want: `no category "lots": there are zero, one, two, few, many and other`},
		"no other plural":         {file: "it.tmpl", text: replace("hours", `{{plural . "two" "x"}}`), want: `"other"`},
		"odd plural":              {file: "it.tmpl", text: replace("hours", `{{plural . "other"}}`), want: "pairs"},
		"link in subject":         {file: "it.tmpl", text: replace("subject", "{{.Link}}"), want: "can't evaluate field Link"},
		"link in preheader":       {file: "it.tmpl", text: replace("preheader", "{{.Link}}"), want: "can't evaluate field Link"},
		"no link in text":         {file: textual, text: replace("document", "Hello"), want: "{{.Link}}"},
		"link amid text":          {file: textual, text: replace("document", "Go to {{.Link}}"), want: "line by itself"},
		"link before text":        {file: textual, text: replace("document", "Hello\n{{.Link}}."), want: "line by itself"},
		"link changed in text":    {file: textual, text: replace("document", "{{.Link}}\n{{.Link | urlquery}}"), want: "something is done to it"},
		"no link in HTML":         {file: html, text: page("<p>Hello</p>"), want: "<a href"},
		"link only shown":         {file: html, text: page(strings.Repeat("long ago ", 30) + "<p>{{.Link}}</p>"), want: "<a href"},
		"link in a query":         {file: html, text: page(a + `<a href="https://click.example/?to={{.Link}}">x</a>`), want: "can only stand"},
		"link with more":          {file: html, text: page(a + `<a href="{{.Link}}&amp;utm=1">x</a>`), want: "can only stand"},
		"link in an attribute":    {file: html, text: page(a + `<p title="{{.Link}}">x</p>`), want: "can only stand"},
		"link in a comment":       {file: html, text: page(a + `{{mso .Link}}`), want: "can only stand"},
		"link in a style":         {file: html, text: page(a + `<p style="background:url({{.Link}})">x</p>`), want: "would fetch something"},
		"link in an image":        {file: html, text: page(a + `<img src="{{.Link}}" alt="">`), want: "other than the logo"},
		"link in another element": {file: html, text: page(a + `<link href="{{.Link}}">`), want: "<link> has no place"},
		"link in the title":       {file: html, text: replace("head", "<title>{{.Link}}</title>"), want: "in <title>"},
		"link in the preview":     {file: html, text: replace("preview", `<div style="display: none">{{.Link}}</div>`), want: "in what is hidden"},
		"link in a hidden block":  {file: html, text: replace("header", `<p hidden>{{.Words.valid}}{{.Words.ignore}} <b>{{.Link}}</b></p>`), want: "in what is hidden"},
		"link first of all":       {file: html, text: replace("preview", `<p>Hello {{.Link}}</p>`), want: "within the first 200 characters"},
		"script":                  {file: html, text: replace("footer", "<script>alert(1)</script>"), want: "<script> has no place"},
		"script with the link":    {file: html, text: page(a + `<script>x = {{.Link}}</script>`), want: "<script> has no place"},
		"handler":                 {file: html, text: replace("footer", `<tr><td onclick="x()">x</td></tr>`), want: "attribute onclick"},
		"form":                    {file: html, text: replace("action", `<form action="https://x.example/"><a href="{{.Link}}">x</a></form>`), want: "<form> has no place"},
		"input":                   {file: html, text: replace("action", a+`<input name="password">`), want: "<input> has no place"},
		"frame":                   {file: html, text: replace("action", a+`<iframe src="https://x.example/"></iframe>`), want: "<iframe> has no place"},
		"drawing":                 {file: html, text: replace("action", a+`<svg><image href="https://x.example/"/></svg>`), want: "<svg> has no place"},
		"refresh":                 {file: html, text: replace("head", `<meta http-equiv="refresh" content="0;url=https://x.example/">`), want: "attribute http-equiv"},
		"picture":                 {file: html, text: replace("header", `<img src="https://tracker.example/x.png" alt="">`), want: "other than the logo"},
		"several pictures":        {file: html, text: replace("header", `<img srcset="https://tracker.example/x.png" alt="">`), want: "attribute srcset"},
		"ground":                  {file: html, text: replace("header", `<table background="https://tracker.example/x.png"></table>`), want: "attribute background"},
		"ground by CSS":           {file: html, text: replace("header", `<p style="background:URL(https://tracker.example/x.png)">x</p>`), want: "would fetch something"},
		"hidden CSS":              {file: html, text: replace("header", `<p style="background:u\72l(https://tracker.example/x.png)">x</p>`), want: "has a backslash"},
		"stylesheet":              {file: html, text: replace("styles", `<style>@import "https://x.example/x.css";</style>`), want: "would fetch something"},
		"font":                    {file: html, text: replace("styles", `<style>@font-face { font-family: x; src: url(https://x.example/x.woff) }</style>`), want: "would fetch something"},
		"picture for Outlook":     {file: html, text: replace("header", "{{mso `<img src=\"https://tracker.example/x.png\">`}}"), want: "other than the logo"},
		"drawing for Outlook":     {file: html, text: replace("header", "{{mso `<v:rect><v:fill src=\"https://tracker.example/x.png\"/></v:rect>`}}"), want: "<v:rect> has no place"},
		"script as an address":    {file: html, text: replace("footer", `<tr><td><a href="javascript:alert(1)">x</a></td></tr>`), want: "href of <a>"},
		"relative address":        {file: html, text: replace("footer", `<tr><td><a href="/help">x</a></td></tr>`), want: "href of <a>"},
		"open attribute":          {file: html, text: page(a + `<a href="`), want: html},
		"too long":                {file: html, text: page(a + strings.Repeat("<br>", 30_000)), want: "cut off"},
		"not UTF-8":               {file: "it.tmpl", text: replace("asked", "\xff"), want: "is not UTF-8"},
		"much too long":           {file: "it.tmpl", text: strings.Repeat(" ", 300<<10), want: "more than 256 KiB"},
		"no such text":            {file: "layout.text.txt", text: "", want: "no template has this name; there are layout.html, layout.txt, and one for each language"},
		"no such HTML":            {file: "body.html", text: "", want: "no template has this name"},
		"anything else":           {file: "README.md", text: "", want: "no template has this name"},
		"backup of an editor":     {file: "de.tmpl~", text: "", want: "no template has this name"},
		"no such language":        {file: "klingonisch.tmpl", text: unknown, want: "not named after a language"},
		"undetermined":            {file: "und.tmpl", text: unknown, want: "not named after a language"},
		"odd spelling":            {file: "pt_br.tmpl", text: "", want: "must be named pt-BR.tmpl"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := overrides(t, map[string]string{test.file: test.text})
			_, wrong := message.New(opts)
			if len(wrong) != 1 || wrong[0].Setting != "TEMPLATES_DIR" {
				t.Fatalf("not one mistake of TEMPLATES_DIR: %v", wrong)
			}
			path := filepath.Join(opts.TemplatesDir, test.file)
			if got := wrong[0].Text; strings.Count(got, path) != 1 || !strings.Contains(got, test.want) {
				t.Errorf("the error does not name %s once, and %q: %s", test.file, test.want, got)
			}
		})
	}
}

// TestBrokenFolder: a folder is refused if it does not exist or has another folder in it; and all mistakes are
// named together.
func TestBrokenFolder(t *testing.T) {
	t.Parallel()
	opts := plain
	opts.TemplatesDir = filepath.Join(t.TempDir(), "nowhere")
	if _, err := message.New(opts); err == nil || err[0].Text != "must be a folder that can be read (no such file or directory)" {
		t.Errorf("New: %v", err)
	}
	opts = overrides(t, map[string]string{"de.tmpl": "{{", "fr.tmpl": "{{", "it.tmpl": `{{define "x"}}{{end}}`, "file": ""})
	if err := os.Mkdir(filepath.Join(opts.TemplatesDir, "es.tmpl"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(opts.TemplatesDir, "ja.tmpl")); err != nil {
		t.Fatal(err)
	}
	_, wrong := message.New(opts)
	if len(wrong) != 6 {
		t.Fatalf("New: %v", wrong)
	}
	for i, name := range []string{"de.tmpl:1:", "es.tmpl: is a folder", "file: no template", "fr.tmpl:1:", `it.tmpl: there is no block "x"`, "ja.tmpl: cannot be read (no such file or directory)"} {
		if !strings.HasPrefix(wrong[i].Text, filepath.Join(opts.TemplatesDir, name)) {
			t.Errorf("%s, want %s", wrong[i].Text, name)
		}
	}
	opts.TemplatesDir = filepath.Join(opts.TemplatesDir, "file")
	if _, err := message.New(opts); err == nil || !strings.Contains(err.Error(), "(not a directory)") {
		t.Errorf("New: %v", err)
	}
}

// TestWriteTemplates: WriteTemplates writes what is built in, and overwrites nothing.
func TestWriteTemplates(t *testing.T) {
	t.Parallel()
	opts := plain
	opts.TemplatesDir = filepath.Join(t.TempDir(), "new", "templates")
	written, err := message.WriteTemplates(opts.TemplatesDir)
	if err != nil || len(written) != len(languages)+2 {
		t.Fatalf("%v, %v", written, err)
	}
	r, built := mustNew(t, opts), mustNew(t, plain)
	if len(r.Replaced()) > 0 || len(r.Warnings()) > 0 {
		t.Errorf("replaced %v, warnings %v", r.Replaced(), r.Warnings())
	}
	for _, lang := range languages {
		if mustRender(t, r, lang, link) != mustRender(t, built, lang, link) {
			t.Errorf("%s: the message is another one", lang)
		}
	}
	if err := os.WriteFile(written[0], []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := message.WriteTemplates(opts.TemplatesDir); err == nil || len(again) > 0 || !errors.Is(err, os.ErrExist) {
		t.Errorf("%v, %v", again, err)
	}
	if kept, err := os.ReadFile(written[0]); err != nil || string(kept) != "mine" {
		t.Errorf("%q, %v", kept, err)
	}
}
