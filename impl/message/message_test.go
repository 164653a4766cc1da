package message_test

import (
	stdcmp "cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rivo/uniseg"
	"golang.org/x/net/html"

	"github.com/resetd/resetd/impl/message"
)

var update = flag.Bool("update", false, "write the golden files")

const link = "https://app.example.com/reset-password?token_hash=0f3a6c1d9b7e4f2a8c5d1e0b9a7f6c3d2e1f0a9b8c7d6e5f4a3b2c1d&type=recovery"

// languages are the built-in languages in the order of Languages.
var languages = []string{"en", "ar", "de", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt-BR", "tr", "zh-Hans", "zh-Hant"}

var (
	plain = message.Options{Brand: message.Brand{Name: "Example"}, LinkExpiresIn: time.Hour}
	full  = message.Options{
		Brand: message.Brand{
			Name:         "Example",
			LogoURL:      "https://app.example.com/logo.png",
			LogoDarkURL:  "https://app.example.com/logo-dark.png",
			SupportEmail: "support@example.com",
			SupportURL:   "https://example.com/help",
		},
		LinkExpiresIn: 90 * time.Minute,
	}
	// brand is awkward: a name with a full stop, a colour that is not readable on white, and no logo for dark
	// grounds.
	brand = message.Options{
		Brand:         message.Brand{Name: "Acme Inc.", Color: "#ffcc00", LogoURL: "https://app.example.com/logo.png", SupportEmail: "support@example.com"},
		LinkExpiresIn: 24 * time.Hour,
	}
)

func mustNew(t testing.TB, opts message.Options) *message.Renderer {
	t.Helper()
	r, err := message.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustRender(t testing.TB, r *message.Renderer, acceptLanguage, link string) message.Message {
	t.Helper()
	m, err := r.Render("", acceptLanguage, link)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for kind, opts := range map[string]message.Options{"plain": plain, "full": full, "brand": brand} {
		r := mustNew(t, opts)
		if diff := cmp.Diff(languages, r.Languages()); diff != "" {
			t.Errorf("Languages (-want +got):\n%s", diff)
		}
		for _, lang := range languages {
			m := mustRender(t, r, lang, link)
			if m.Language != lang {
				t.Errorf("asked for %s, got %s", lang, m.Language)
			}
			if kind == "brand" && lang != "en" && lang != "ar" {
				continue
			}
			golden(t, kind+"."+lang+".txt", "Subject: "+m.Subject+"\n\n"+m.Text)
			golden(t, kind+"."+lang+".html", m.HTML)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), go test -update if this is meant:\n%s", name, diff)
	}
}

// TestForm: the mail in every built-in language has the form that mail programs and readers need.
func TestForm(t *testing.T) {
	t.Parallel()
	long := full
	long.Brand.Name = "The Long-Winded Company of Example, Sons & Daughters of the Far-Away Hills"
	host := plain
	host.Brand.Name = strings.Repeat("a-rather-long-name.", 12) + "example"
	for kind, opts := range map[string]message.Options{"plain": plain, "full": full, "long": long, "host": host} {
		r := mustNew(t, opts)
		for _, lang := range languages {
			m := mustRender(t, r, lang, link)
			for line := range strings.Lines(m.Text) {
				line = strings.TrimSuffix(line, "\n")
				if uniseg.StringWidth(line) > 78 && line != link && strings.Contains(line, " ") {
					t.Errorf("%s.%s: a line of more than 78 columns: %q", kind, lang, line)
				}
				if strings.HasPrefix(line, "、") || strings.HasPrefix(line, "。") || strings.HasPrefix(line, "，") {
					t.Errorf("%s.%s: a line begins with %q", kind, lang, line)
				}
				if strings.TrimSpace(line) != line {
					t.Errorf("%s.%s: white space around %q", kind, lang, line)
				}
			}
			if strings.Count(m.Text, "\n"+link+"\n") != 1 {
				t.Errorf("%s.%s: the link has no line to itself in\n%s", kind, lang, m.Text)
			}
			if strings.Contains(m.Text, "\n\n\n") || !strings.HasSuffix(m.Text, "\n") || strings.HasSuffix(m.Text, "\n\n") {
				t.Errorf("%s.%s: blank lines astray in\n%q", kind, lang, m.Text)
			}
			if len(m.HTML) > 20_000 {
				t.Errorf("%s.%s: %d bytes of HTML", kind, lang, len(m.HTML))
			}
			if got := strings.Contains(m.Text, "support@example.com"); got != (opts.Brand.SupportEmail != "") {
				t.Errorf("%s.%s: support address in the text: %v", kind, lang, got)
			}
			checkHTML(t, kind+"."+lang, lang, m.HTML, opts)
		}
	}
}

// checkHTML checks a document with an HTML parser, as a mail program would read it.
func checkHTML(t *testing.T, name, lang, document string, opts message.Options) {
	t.Helper()
	var links, fetched []string
	directed := 0
	for n := range parse(t, document).Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script", "link", "iframe", "object", "form", "base", "video", "audio", "svg":
			t.Errorf("%s: has a <%s>", name, n.Data)
		case "html", "div":
			if n.Data == "div" && attr(n, "role") != "article" {
				break
			}
			// Web mail removes <html>, and keeps the wrapper.
			dir := map[bool]string{true: "rtl", false: "ltr"}[lang == "ar"]
			if attr(n, "lang") != lang || attr(n, "dir") != dir {
				t.Errorf("%s: <%s lang=%q dir=%q>", name, n.Data, attr(n, "lang"), attr(n, "dir"))
			}
			directed++
		case "table":
			if attr(n, "role") != "presentation" {
				t.Errorf("%s: a table that is read out as one", name)
			}
		case "img":
			if strings.Trim(attr(n, "alt"), "\u2068\u2069") != opts.Brand.Name {
				t.Errorf("%s: the logo has no alternative text", name)
			}
		case "style":
			if css := n.FirstChild.Data; strings.Contains(css, "url(") || strings.Contains(css, "@import") {
				t.Errorf("%s: the style fetches something", name)
			}
		}
		for _, a := range n.Attr {
			switch {
			case a.Key == "href":
				links = append(links, a.Val)
			case a.Key == "src", a.Key == "srcset", a.Key == "background", a.Key == "poster":
				fetched = append(fetched, a.Val)
			case strings.HasPrefix(a.Key, "on"):
				t.Errorf("%s: has an event handler %s", name, a.Key)
			case a.Key == "style" && strings.Contains(a.Val, "url("):
				t.Errorf("%s: a style fetches something: %s", name, a.Val)
			}
		}
	}
	if directed != 2 {
		t.Errorf("%s: document and wrapper are not both there", name)
	}
	wantLinks, wantFetched := []string{link, link}, []string(nil)
	if opts.Brand.SupportEmail != "" {
		wantLinks = append(wantLinks, opts.Brand.SupportURL, "mailto:"+opts.Brand.SupportEmail)
	}
	if opts.Brand.LogoURL != "" {
		wantFetched = append(wantFetched, opts.Brand.LogoURL, opts.Brand.LogoDarkURL)
	}
	if diff := cmp.Diff(wantLinks, links); diff != "" {
		t.Errorf("%s: links (-want +got):\n%s", name, diff)
	}
	if diff := cmp.Diff(wantFetched, fetched); diff != "" {
		t.Errorf("%s: fetched (-want +got):\n%s", name, diff)
	}
}

func parse(t testing.TB, document string) *html.Node {
	t.Helper()
	root, err := html.Parse(strings.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// shownLinks returns the targets of the document's links to http, and the text of the link that is written out.
func shownLinks(t testing.TB, document string) (hrefs []string, written string) {
	t.Helper()
	for n := range parse(t, document).Descendants() {
		if n.Type != html.ElementNode || n.Data != "a" || !strings.HasPrefix(attr(n, "href"), "http") {
			continue
		}
		hrefs = append(hrefs, attr(n, "href"))
		if n.FirstChild != nil && n.FirstChild.NextSibling == nil {
			written = n.FirstChild.Data // the button comes first, the written-out link last
		}
	}
	return hrefs, written
}

func TestLinkArrivesWhole(t *testing.T) {
	t.Parallel()
	r := mustNew(t, plain)
	for _, link := range []string{
		link,
		"http://localhost:3000/reset-password?token_hash=x&type=recovery",
		`https://app.example.com/?a=1&b='x'&c="y"&d=<z>&lt;&amp;amp;&copy=1`,
		"https://app.example.com/#%0a%20+`{{.Link}}|\\^~",
		`https://app.example.com/"><script>alert(1)</script>`,
		`https://app.example.com/--><![endif]--><b>`,
		"https://[2001:db8::1]:8443/reset?x=$1$2%s",
		"https://app.example.com/" + strings.Repeat("a", 1900),
	} {
		for _, lang := range languages {
			m := mustRender(t, r, lang, link)
			hrefs, written := shownLinks(t, m.HTML)
			if !slices.Equal(hrefs, []string{link, link}) || written != link {
				t.Errorf("%s: %q arrives as %q, written %q", lang, link, hrefs, written)
			}
			if strings.Contains(m.HTML, "<script") {
				t.Errorf("%s: %q breaks out", lang, link)
			}
			if !strings.Contains(m.Text, "\n\n"+link+"\n\n") {
				t.Errorf("%s: %q is not in\n%s", lang, link, m.Text)
			}
			if strings.Contains(m.Subject, link) || strings.Contains(m.Text+m.HTML, "link.invalid") {
				t.Errorf("%s: a link is where none should be", lang)
			}
		}
	}
}

func TestRenderRefusesLinks(t *testing.T) {
	t.Parallel()
	r := mustNew(t, plain)
	for _, link := range []string{
		"",
		"app.example.com/secret",
		"//app.example.com/secret",
		"javascript:alert('secret')",
		"HTTPS://app.example.com/secret",
		"https://app.example.com/ secret",
		"https://app.example.com/secret\n",
		"https://app.example.com/secret\r\nBcc: x",
		"https://app.example.com/secret\x00",
		"https://app.example.com/secret/ü",
		"https://app.example.com/secret" + strings.Repeat("x", 2048),
	} {
		m, err := r.Render("", "en", link)
		if err == nil || m != (message.Message{}) {
			t.Errorf("Render accepts %.60q", link)
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error repeats the link: %v", err)
		}
	}
}

func TestBrandIsEscaped(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		`<b>A&B`,
		`"Quoted" & 'quoted'`,
		`</title><script>alert(1)</script>`,
		`<!-- & -->`,
		`{{.Link}}`,
		`Ünïcödé 日本 👩‍🚀`,
		`A+B=C`,
	} {
		opts := full
		opts.Brand.Name = name
		r := mustNew(t, opts)
		for _, lang := range languages {
			m := mustRender(t, r, lang, link)
			if !strings.Contains(m.Subject, name) || !strings.HasSuffix(strings.Trim(m.Text, "\u2069\n"), name) || strings.Contains(m.Subject+m.Text+m.HTML, "\ue0a1") {
				t.Errorf("%s: %q is not verbatim in the subject and the text: %q\n%s", lang, name, m.Subject, m.Text)
			}
			title, alt, shown := "", "", false
			for n := range parse(t, m.HTML).Descendants() {
				switch {
				case n.Type == html.ElementNode && (n.Data == "b" || n.Data == "script"):
					t.Errorf("%s: %q became markup", lang, name)
				case n.Type == html.ElementNode && n.Data == "title":
					title = n.FirstChild.Data
				case n.Type == html.ElementNode && n.Data == "img":
					alt = strings.Trim(attr(n, "alt"), "\u2068\u2069")
				case n.Type == html.TextNode && n.Parent.Data == "bdi":
					shown = shown || strings.Trim(n.Data, "\u2068\u2069") == name
				}
			}
			if title != m.Subject || alt != name || !shown {
				t.Errorf("%s: %q shows as title %q, alt %q, in the text: %v", lang, name, title, alt, shown)
			}
		}
	}
}

// TestValidate: each option accepts and refuses these values. A mail is never written with a refused value.
func TestValidate(t *testing.T) {
	t.Parallel()
	address := func(o *message.Options, text string) {
		o.Brand.LogoURL, o.Brand.LogoDarkURL, o.Brand.SupportURL = text, text, text
	}
	for _, tt := range []struct {
		settings []string
		set      func(*message.Options, string)
		good     []string
		bad      []string
	}{
		{
			settings: []string{"BRAND_NAME"}, set: func(o *message.Options, text string) { o.Brand.Name = text },
			good: []string{"Example", "Müller & Söhne", "مثال", "👩\u200d🔬", strings.Repeat("a", 253)},
			bad:  []string{"", "  ", "A\r\nBcc: x@evil.org", "A\nB", "A\rB", "A\x00B", "A\tB", "A\u0085B", "A\u2028B", "A\u202eB", "A\xffB", strings.Repeat("a", 254)},
		},
		{
			settings: []string{"BRAND_LOGO_URL", "BRAND_LOGO_DARK_URL", "SUPPORT_URL"}, set: address,
			good: []string{"", "https://x.example/a.png?v=2"},
			bad:  []string{"logo.png", "//x.example/a.png", "http://x.example/a.png", "data:image/png;base64,x", "javascript:alert(1)", "https://", "https://u:p@x.example/a.png", "https://x.example/\n"},
		},
		{
			settings: []string{"BRAND_LOGO_DARK_URL"}, set: func(o *message.Options, text string) { o.Brand.LogoURL, o.Brand.LogoDarkURL = "", text },
			good: []string{""}, bad: []string{"https://x.example/a.png"},
		},
		{
			settings: []string{"LINK_EXPIRES_IN"}, set: func(o *message.Options, text string) { o.LinkExpiresIn, _ = time.ParseDuration(text) },
			good: []string{"1m", "1h", "720h"}, bad: []string{"0s", "-1h", "59s", "720h0m1s"},
		},
	} {
		for _, text := range slices.Concat(tt.good, tt.bad) {
			opts := plain
			tt.set(&opts, text)
			_, wrong := message.New(opts)
			if slices.Contains(tt.good, text) != (len(wrong) == 0) || len(wrong) > 0 && len(wrong) != len(tt.settings) {
				t.Errorf("%s=%q: %v", tt.settings, text, wrong)
			}
			for _, name := range tt.settings {
				if wrong.Has(name) == slices.Contains(tt.good, text) {
					t.Errorf("%s=%q: %v", name, text, wrong)
				}
			}
		}
	}
}

// TestExpiresIn: the mail says a duration as people do, in the plural form that the language has for the
// number.
func TestExpiresIn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expires time.Duration
		said    map[string]string
	}{
		{time.Minute, map[string]string{
			"en": "1 minute", "ar": "دقيقة واحدة", "de": "1 Minute", "es": "1 minuto", "fr": "1 minute", "it": "1 minuto", "ja": "1分",
			"ko": "1분", "nl": "1 minuut", "pl": "1 minutę", "pt-BR": "1 minuto", "tr": "1 dakika", "zh-Hans": "1 分钟", "zh-Hant": "1 分鐘",
		}},
		{time.Minute + 59*time.Second, map[string]string{"en": "1 minute"}},
		{2 * time.Minute, map[string]string{"ar": "دقيقتين", "pl": "2 minuty", "en": "2 minutes"}},
		{5 * time.Minute, map[string]string{"ar": "5 دقائق", "pl": "5 minut", "nl": "5 minuten", "it": "5 minuti"}},
		{22 * time.Minute, map[string]string{"ar": "22 دقيقة", "pl": "22 minuty"}},
		{time.Hour, map[string]string{
			"en": "1 hour", "ar": "ساعة واحدة", "de": "1 Stunde", "es": "1 hora", "fr": "1 heure", "it": "1 ora", "ja": "1時間",
			"ko": "1시간", "nl": "1 uur", "pl": "1 godzinę", "pt-BR": "1 hora", "tr": "1 saat", "zh-Hans": "1 小时", "zh-Hant": "1 小時",
		}},
		{90 * time.Minute, map[string]string{
			"en": "90 minutes", "ar": "90 دقيقة", "de": "90 Minuten", "es": "90 minutos", "fr": "90 minutes", "it": "90 minuti", "ja": "90分",
			"ko": "90분", "nl": "90 minuten", "pl": "90 minut", "pt-BR": "90 minutos", "tr": "90 dakika", "zh-Hans": "90 分钟", "zh-Hant": "90 分鐘",
		}},
		{2 * time.Hour, map[string]string{"en": "2 hours", "ar": "ساعتين", "pl": "2 godziny", "fr": "2 heures"}},
		{150 * time.Minute, map[string]string{
			"en": "2 hours and 30 minutes", "ar": "ساعتين و30 دقيقة", "de": "2 Stunden und 30 Minuten", "es": "2 horas y 30 minutos",
			"fr": "2 heures et 30 minutes", "it": "2 ore e 30 minuti", "ja": "2時間30分", "ko": "2시간 30분", "nl": "2 uur en 30 minuten",
			"pl": "2 godziny i 30 minut", "pt-BR": "2 horas e 30 minutos", "tr": "2 saat 30 dakika", "zh-Hans": "2 小时 30 分钟", "zh-Hant": "2 小時 30 分鐘",
		}},
		{24 * time.Hour, map[string]string{
			"en": "24 hours", "ar": "24 ساعة", "de": "24 Stunden", "es": "24 horas", "fr": "24 heures", "it": "24 ore", "ja": "24時間",
			"ko": "24시간", "nl": "24 uur", "pl": "24 godziny", "pt-BR": "24 horas", "tr": "24 saat", "zh-Hans": "24 小时", "zh-Hant": "24 小時",
		}},
		{36 * time.Hour, map[string]string{"en": "36 hours", "de": "36 Stunden", "pl": "36 godzin"}},
		{48 * time.Hour, map[string]string{"en": "48 hours"}},
		{72 * time.Hour, map[string]string{"en": "3 days", "pl": "3 dni", "ar": "3 أيام"}},
		{84 * time.Hour, map[string]string{"en": "3 days and 12 hours", "de": "3 Tage und 12 Stunden", "ar": "3 أيام و12 ساعة"}},
		{97*time.Hour + 59*time.Minute, map[string]string{"en": "4 days and 1 hour"}},
		{7 * 24 * time.Hour, map[string]string{
			"en": "7 days", "ar": "7 أيام", "de": "7 Tage", "es": "7 días", "fr": "7 jours", "it": "7 giorni", "ja": "7日間",
			"ko": "7일", "nl": "7 dagen", "pl": "7 dni", "pt-BR": "7 dias", "tr": "7 gün", "zh-Hans": "7 天", "zh-Hant": "7 天",
		}},
		{30 * 24 * time.Hour, map[string]string{"en": "30 days", "ar": "30 يومًا"}},
	} {
		opts := plain
		opts.LinkExpiresIn = c.expires
		r := mustNew(t, opts)
		for lang, want := range c.said {
			m := mustRender(t, r, lang, link)
			alone := regexp.MustCompile(`[^0-9]` + regexp.QuoteMeta(want) + `(\.| gültig| geldig| geçerlidir|です| 동안|。)`)
			if !alone.MatchString(strings.ReplaceAll(m.Text, "\n", " ")) || strings.Count(m.HTML, want) != 2 {
				t.Errorf("%s: %v is not told as %q in\n%s", lang, c.expires, want, m.Text)
			}
		}
	}
}

// TestPluralForms: each language has words for all plural forms of its numbers, and for no others.
func TestPluralForms(t *testing.T) {
	t.Parallel()
	forms := map[string][]string{
		"ar": {"zero", "one", "two", "few", "many", "other"}, "pl": {"one", "few", "many", "other"},
		"ja": {"other"}, "ko": {"other"}, "zh-Hans": {"other"}, "zh-Hant": {"other"},
	}
	for _, lang := range languages {
		want := forms[lang]
		if want == nil {
			want = []string{"one", "other"}
		}
		text, err := os.ReadFile(filepath.Join("templates", lang+".tmpl"))
		if err != nil {
			t.Fatal(err)
		}
		for _, unit := range []string{"minutes", "hours", "days"} {
			_, block, _ := strings.Cut(string(text), `{{define "`+unit+`"}}`)
			block, _, _ = strings.Cut(block, "{{end}}")
			var got []string
			for _, form := range regexp.MustCompile(`"(\w+)" "`).FindAllStringSubmatch(block, -1) {
				got = append(got, form[1])
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %s has the forms %v, want %v", lang, unit, got, want)
			}
		}
	}
}

// TestLanguage: the mail is in a language that fits a requested one, or else in the default language.
func TestLanguage(t *testing.T) {
	t.Parallel()
	r := mustNew(t, plain)
	opts := plain
	opts.DefaultLanguage = "nl"
	dutch := mustNew(t, opts)
	if got := dutch.Languages(); got[0] != "nl" || len(got) != len(languages) {
		t.Errorf("Languages() = %v", got)
	}
	for accept, want := range map[string]string{ // "" is the default
		"":                                   "",
		"*":                                  "",
		"en":                                 "en",
		"de":                                 "de",
		"DE":                                 "de",
		"de-AT":                              "de",
		"de-CH-1996":                         "de",
		"gsw":                                "de", // its speakers write German
		"fr-CA,fr;q=0.9,en;q=0.8":            "fr",
		"es-419":                             "es",
		"es-MX":                              "es",
		"en;q=0.5, es":                       "es",
		"eo, fr;q=0.1":                       "fr",
		"eo,la;q=0.9":                        "",
		"ja":                                 "ja",
		"zh":                                 "zh-Hans",
		"zh-CN":                              "zh-Hans",
		"zh-SG":                              "zh-Hans",
		"zh-TW":                              "zh-Hant",
		"zh-HK":                              "zh-Hant",
		"zh-MO":                              "zh-Hant",
		"zh-Hant-CN":                         "zh-Hant",
		"cmn-TW":                             "zh-Hant",
		"yue":                                "zh-Hant",
		"zh-Latn":                            "", // pinyin is neither of the two scripts
		"ja-Latn":                            "",
		"pt":                                 "pt-BR",
		"pt-PT":                              "pt-BR",
		"pt-AO":                              "pt-BR",
		"ar-EG":                              "ar",
		"arz":                                "ar",
		"fa":                                 "", // Persian shares only the script with Arabic
		"fa-IR,fa;q=0.9":                     "",
		"ur":                                 "",
		"ug":                                 "",
		"ps":                                 "",
		"sr":                                 "",
		"sr-Latn":                            "",
		"hr":                                 "",
		"ca":                                 "",
		"eu":                                 "",
		"gl":                                 "",
		"br":                                 "",
		"cy":                                 "",
		"af":                                 "",
		"ku":                                 "",
		"az":                                 "",
		"tr-CY":                              "tr",
		"ko-KP":                              "ko",
		"und":                                "",
		"und-DE":                             "",
		"und-Arab":                           "",
		"de;q=0":                             "",
		"de;q=2":                             "de", // the quality is invalid, but this is the only language
		"de;q=x":                             "",
		"de;q=nan":                           "",
		"de;q=-1, fr;q=0.1":                  "fr",
		"de;;":                               "",
		"<script>":                           "",
		"de\r\nX: y":                         "",
		"\xff\xfe":                           "",
		"i-klingon":                          "",
		"xx,de":                              "de", // xx is no language
		"de_DE":                              "de",
		"ja;q=0.8,de-DE-u-co-phonebk;q=0.9":  "de",
		strings.Repeat("eo,", 7) + "de":      "de",
		strings.Repeat("eo,", 8) + "de":      "", // more languages than are read
		"de," + strings.Repeat("x", 1<<20):   "", // more bytes than are read
		strings.Repeat("x", 1<<20):           "",
		strings.Repeat(" ", 300) + "de":      "", // beyond the bytes that are read
		"de-" + strings.Repeat("a-", 1<<16):  "",
		"de" + strings.Repeat("-", 1<<16):    "",
		strings.Repeat("x,", 1<<19):          "",
		strings.Repeat("ja-Latn,", 5) + "de": "de",
		strings.Repeat("de-abcdefgh,", 20):   "de",
		"de-XY":                              "de", // no such region
	} {
		if got, want := mustRender(t, r, accept, link).Language, stdcmp.Or(want, "en"); got != want {
			t.Errorf("%.60q gets %s, want %s", accept, got, want)
		}
		if got, want := mustRender(t, dutch, accept, link).Language, stdcmp.Or(want, "nl"); got != want {
			t.Errorf("%.60q gets %s, want %s where Dutch is the default", accept, got, want)
		}
	}
}

// TestAccountLanguage: the language of the account takes precedence over the request's, if the mail has it.
func TestAccountLanguage(t *testing.T) {
	t.Parallel()
	r := mustNew(t, plain)
	for _, c := range []struct{ account, accept, want string }{
		{account: "fr", accept: "de", want: "fr"},
		{account: "fr-CA", accept: "de", want: "fr"},
		{account: "pt_BR", accept: "de", want: "pt-BR"},
		{account: "zh-TW", accept: "zh-CN", want: "zh-Hant"},
		{account: "", accept: "de", want: "de"},
		{account: "eo", accept: "de", want: "de"},
		{account: "fa", accept: "", want: "en"},
		{account: "French", accept: "de", want: "de"},
		{account: "fr,de", accept: "it", want: "it"},
		{account: "fr;q=0.5", accept: "it", want: "it"},
		{account: "fr\r\nBcc: x@evil.org", accept: "it", want: "it"},
		{account: strings.Repeat("fr-", 12) + "FR", accept: "it", want: "it"},
		{account: "fr-x-" + strings.Repeat("abcdefgh-", 4) + "a", accept: "it", want: "it"}, // a language tag, but too long
		{account: "\xff", accept: "it", want: "it"},
		{account: "*", accept: "it", want: "it"},
	} {
		m, err := r.Render(c.account, c.accept, link)
		if err != nil || m.Language != c.want {
			t.Errorf("%.40q and %q: %s, %v; want %s", c.account, c.accept, m.Language, err, c.want)
		}
	}
}

// TestDefaultLanguage: the error about an unknown default language names it, and the languages of the mail.
func TestDefaultLanguage(t *testing.T) {
	t.Parallel()
	for _, tag := range []string{"eo", "pt", "deutsch", "zh-TW", "\x00"} {
		opts := plain
		opts.DefaultLanguage = tag
		_, wrong := message.New(opts)
		if len(wrong) != 1 || wrong[0].Setting != "DEFAULT_LANGUAGE" || !strings.HasSuffix(wrong[0].Text, "languages: "+strings.Join(languages, ", ")) {
			t.Errorf("%q: %v", tag, wrong)
		}
	}
}

func FuzzAcceptLanguage(f *testing.F) {
	for _, accept := range []string{
		"", "*", "de", "de-AT,de;q=0.9,en;q=0.8", "es-419;q=0.5", "zh-Hant-TW", "x-private", "i-klingon", "de;q=",
		"en-a-bb-x-a", "und", "-", "_", ";", ",,,", "de_DE.UTF-8", "fr;q=1e9", "\x00", "de-u-co-phonebk-t-en",
	} {
		f.Add(accept)
	}
	r := mustNew(f, plain)
	f.Fuzz(func(t *testing.T, accept string) {
		m := mustRender(t, r, accept, link)
		if !slices.Contains(languages, m.Language) {
			t.Fatalf("%q gets %q", accept, m.Language)
		}
		if again := mustRender(t, r, accept, link); again != m {
			t.Fatalf("%q gets two different messages", accept)
		}
		if of, err := r.Render(accept, "", link); err != nil || !slices.Contains(languages, of.Language) {
			t.Fatalf("%q as the account's: %q, %v", accept, of.Language, err)
		}
	})
}

// FuzzLink: every link that is not refused arrives whole, and changes nothing else.
func FuzzLink(f *testing.F) {
	f.Add(link)
	f.Add(`https://x/"'<>&amp;&#39;`)
	f.Add("https://x/</a></title>-->")
	r := mustNew(f, plain)
	f.Fuzz(func(t *testing.T, link string) {
		m, err := r.Render("", "", link)
		if err != nil {
			return
		}
		hrefs, written := shownLinks(t, m.HTML)
		if !slices.Equal(hrefs, []string{link, link}) || written != link {
			t.Fatalf("%q arrives as %q, written %q", link, hrefs, written)
		}
		if strings.Count(m.Text, "\n\n"+link+"\n\n") != 1 {
			t.Fatalf("%q is not whole in\n%s", link, m.Text)
		}
	})
}

func BenchmarkRender(b *testing.B) {
	r := mustNew(b, full)
	for _, accept := range []string{"", "de-AT,de;q=0.9,en-US;q=0.8,en;q=0.7", strings.Repeat("xx-YY,", 42)} {
		b.Run(fmt.Sprintf("accept=%d", len(accept)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Render("", accept, link); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		mustNew(b, full)
	}
}
