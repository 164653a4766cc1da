package message_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"github.com/resetd/resetd/impl/message"
)

var update = flag.Bool("update", false, "write the golden files anew")

const link = "https://app.example.com/reset-password?token_hash=0f3a6c1d9b7e4f2a8c5d1e0b9a7f6c3d2e1f0a9b8c7d6e5f4a3b2c1d&type=recovery"

// languages are those that are built in, in the order of Languages.
var languages = []string{"en", "de", "es", "fr"}

var (
	plain = message.Options{Brand: message.Brand{Name: "Example"}, LinkExpiresIn: time.Hour}
	full  = message.Options{
		Brand: message.Brand{
			Name:         "Example",
			LogoURL:      "https://app.example.com/logo.png",
			SupportEmail: "support@example.com",
		},
		LinkExpiresIn: 90 * time.Minute,
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
	m, err := r.Render(acceptLanguage, link)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for kind, opts := range map[string]message.Options{"plain": plain, "full": full} {
		r := mustNew(t, opts)
		if diff := cmp.Diff(languages, r.Languages()); diff != "" {
			t.Errorf("Languages (-want +got):\n%s", diff)
		}
		for _, lang := range languages {
			m := mustRender(t, r, lang, link)
			if m.Language != lang {
				t.Errorf("asked for %s, got %s", lang, m.Language)
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

// TestForm holds every built-in language to what mail programs and readers
// need.
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
				if utf8.RuneCountInString(line) > 78 && line != link && strings.Contains(line, " ") {
					t.Errorf("%s.%s: a line of more than 78 characters: %q", kind, lang, line)
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

// checkHTML looks at a document with an HTML parser, as a mail program would.
func checkHTML(t *testing.T, name, lang, document string, opts message.Options) {
	t.Helper()
	var links, fetched []string
	for n := range parse(t, document).Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script", "link", "iframe", "object", "form", "base", "video", "audio", "svg":
			t.Errorf("%s: has a <%s>", name, n.Data)
		case "html":
			if got := attr(n, "lang"); got != lang {
				t.Errorf("%s: <html lang=%q>", name, got)
			}
		case "table":
			if attr(n, "role") != "presentation" {
				t.Errorf("%s: a table that is read out as one", name)
			}
		case "img":
			if attr(n, "alt") != opts.Brand.Name {
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
	wantLinks, wantFetched := []string{link, link}, []string(nil)
	if opts.Brand.SupportEmail != "" {
		wantLinks = append(wantLinks, "mailto:"+opts.Brand.SupportEmail)
	}
	if opts.Brand.LogoURL != "" {
		wantFetched = append(wantFetched, opts.Brand.LogoURL)
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

// shownLinks returns what the document's links to http go to, and what is
// written on the one that is written out.
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
		m, err := r.Render("en", link)
		if err == nil || m != (message.Message{}) {
			t.Errorf("Render accepts %.60q", link)
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error repeats the link: %v", err)
		}
	}
}

// TestSizeIsTheLinks: a message to an account and a decoy carry links of the
// same length, and must then be of the same length.
func TestSizeIsTheLinks(t *testing.T) {
	t.Parallel()
	r := mustNew(t, full)
	decoy := strings.ReplaceAll(link, "a", "b")
	for _, lang := range languages {
		a, b := mustRender(t, r, lang, link), mustRender(t, r, lang, decoy)
		if a.Subject != b.Subject || len(a.Text) != len(b.Text) || len(a.HTML) != len(b.HTML) {
			t.Errorf("%s: a decoy differs in size", lang)
		}
		if strings.ReplaceAll(a.Text, link, decoy) != b.Text {
			t.Errorf("%s: a decoy differs in more than its link", lang)
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
			if !strings.Contains(m.Subject, name) || !strings.HasSuffix(m.Text, "\n"+name+"\n") {
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
					alt = attr(n, "alt")
				case n.Type == html.TextNode && n.Parent.Data == "p":
					shown = shown || strings.Contains(n.Data, name)
				}
			}
			if title != m.Subject || alt != name || !shown {
				t.Errorf("%s: %q shows as title %q, alt %q, in the text: %v", lang, name, title, alt, shown)
			}
		}
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "  ", "A\r\nBcc: x@evil.org", "A\nB", "A\rB", "A\x00B", "A\tB", "A\u0085B", "A\u2028B", "A\u202eB", "A\xffB", strings.Repeat("a", 254)} {
		if message.CheckName(name) == nil {
			t.Errorf("%+q is accepted", name)
		}
	}
	for _, name := range []string{"Example", "Müller & Söhne", "مثال", "👩\u200d🔬", strings.Repeat("a", 253)} {
		if err := message.CheckName(name); err != nil {
			t.Errorf("%+q: %v", name, err)
		}
	}
}

func TestCheckLogoURL(t *testing.T) {
	t.Parallel()
	for _, logo := range []string{"", "logo.png", "//x.example/a.png", "http://x.example/a.png", "data:image/png;base64,x", "javascript:alert(1)", "https://", "https://u:p@x.example/a.png", "https://x.example/\n"} {
		if message.CheckLogoURL(logo) == nil {
			t.Errorf("%q is accepted", logo)
		}
	}
	if err := message.CheckLogoURL("https://x.example/a.png?v=2"); err != nil {
		t.Error(err)
	}
}

func TestCheckExpiry(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{0, -time.Hour, 59 * time.Second, 720*time.Hour + 1} {
		if message.CheckExpiry(d) == nil {
			t.Errorf("%v is accepted", d)
		}
	}
	for _, d := range []time.Duration{time.Minute, time.Hour, 720 * time.Hour} {
		if err := message.CheckExpiry(d); err != nil {
			t.Errorf("%v: %v", d, err)
		}
	}
}

func TestExpiresIn(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration][4]string{ // en, de, es, fr
		time.Minute:                   {"1 minute", "1 Minute", "1 minuto", "1 minute"},
		time.Minute + 59*time.Second:  {"1 minute", "1 Minute", "1 minuto", "1 minute"},
		30 * time.Minute:              {"30 minutes", "30 Minuten", "30 minutos", "30 minutes"},
		time.Hour:                     {"1 hour", "1 Stunde", "1 hora", "1 heure"},
		90 * time.Minute:              {"90 minutes", "90 Minuten", "90 minutos", "90 minutes"},
		2 * time.Hour:                 {"2 hours", "2 Stunden", "2 horas", "2 heures"},
		150 * time.Minute:             {"2 hours 30 minutes", "2 Stunden 30 Minuten", "2 horas 30 minutos", "2 heures 30 minutes"},
		24 * time.Hour:                {"1 day", "1 Tag", "1 día", "1 jour"},
		36 * time.Hour:                {"36 hours", "36 Stunden", "36 horas", "36 heures"},
		48 * time.Hour:                {"2 days", "2 Tage", "2 días", "2 jours"},
		49*time.Hour + 30*time.Minute: {"2 days 1 hour 30 minutes", "2 Tage 1 Stunde 30 Minuten", "2 días 1 hora 30 minutos", "2 jours 1 heure 30 minutes"},
		84 * time.Hour:                {"3 days 12 hours", "3 Tage 12 Stunden", "3 días 12 horas", "3 jours 12 heures"},
	} {
		opts := plain
		opts.LinkExpiresIn = d
		r := mustNew(t, opts)
		for i, lang := range languages {
			m := mustRender(t, r, lang, link)
			alone := regexp.MustCompile(`[^0-9] ` + regexp.QuoteMeta(want[i]) + `( (and|et|y)|\.| gültig)`)
			text := strings.ReplaceAll(m.Text, "\n", " ")
			if !alone.MatchString(text) || !strings.Contains(m.HTML, want[i]) {
				t.Errorf("%s: %v is not told as %q in\n%s", lang, d, want[i], m.Text)
			}
		}
	}
}

func TestLanguage(t *testing.T) {
	t.Parallel()
	r := mustNew(t, plain)
	for accept, want := range map[string]string{
		"":                                  "en",
		"*":                                 "en",
		"en":                                "en",
		"de":                                "de",
		"DE":                                "de",
		"de-AT":                             "de",
		"de-CH-1996":                        "de",
		"gsw":                               "de",
		"fr-CA,fr;q=0.9,en;q=0.8":           "fr",
		"es-419":                            "es",
		"en;q=0.5, es":                      "es",
		"ja, fr;q=0.1":                      "fr",
		"ja":                                "en",
		"ja,zh;q=0.9":                       "en",
		"de;q=0":                            "en",
		"de;q=2":                            "de", // the parser does not mind
		"de;q=x":                            "en",
		"de;;":                              "en",
		"<script>":                          "en",
		"de\r\nX: y":                        "en",
		"\xff\xfe":                          "en",
		"i-klingon":                         "en",
		strings.Repeat("de,", 85):           "de",
		strings.Repeat("de,", 86):           "en", // 258 bytes
		strings.Repeat("x", 1<<20):          "en",
		"de-" + strings.Repeat("a-", 1<<16): "en",
		"ja;q=0.9,de-DE-u-co-phonebk;q=0.8": "de",
		"xx,de":                             "en", // no such language: malformed
	} {
		if got := mustRender(t, r, accept, link).Language; got != want {
			t.Errorf("%.60q gets %s, want %s", accept, got, want)
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
		if len(accept) > 256 && m.Language != "en" {
			t.Fatalf("%d bytes were parsed", len(accept))
		}
	})
}

// FuzzLink: whatever link is not refused arrives whole, and changes nothing
// else.
func FuzzLink(f *testing.F) {
	f.Add(link)
	f.Add(`https://x/"'<>&amp;&#39;`)
	f.Add("https://x/</a></title>-->")
	r := mustNew(f, plain)
	f.Fuzz(func(t *testing.T, link string) {
		m, err := r.Render("", link)
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
				if _, err := r.Render(accept, link); err != nil {
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
