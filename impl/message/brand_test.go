package message_test

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// TestNameThatEndsASentence: after "Acme Inc." there is no second full stop, in any language.
func TestNameThatEndsASentence(t *testing.T) {
	t.Parallel()
	opts := full
	opts.Brand.Name = "Acme Inc."
	r := mustNew(t, opts)
	for _, lang := range languages {
		m := mustRender(t, r, lang, link)
		if strings.Contains(m.Subject+m.Text+m.HTML, "..") || regexp.MustCompile(`\.\x{2069}?</bdi>\.`).MatchString(m.HTML) || strings.Contains(m.Text, ".\u2069.") {
			t.Errorf("%s: two full stops in\n%s", lang, m.Text)
		}
		if strings.Count(m.Text, "Acme Inc.") < 2 {
			t.Errorf("%s: the name lost its own full stop in\n%s", lang, m.Text)
		}
	}
	// After the name, the sentence goes on as after any full stop.
	if m := mustRender(t, r, "fr", link); !strings.Contains(strings.ReplaceAll(m.Text, "\n", " "), "votre compte Acme Inc. Si c’était vous") {
		t.Error(m.Text)
	}
}

// TestNameIsIsolated: a name keeps its own direction: in HTML by <bdi>, and in text by Unicode's isolates if
// lines run, or may run, from right to left.
func TestNameIsIsolated(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		language string
		isolated bool
	}{
		{name: "Acme Inc.", language: "ar", isolated: true},
		{name: "Acme Inc.", language: "en", isolated: false},
		{name: "شركة", language: "ar", isolated: true},
		{name: "شركة", language: "en", isolated: true},
		{name: "דוגמה", language: "de", isolated: true},
	} {
		opts := plain
		opts.Brand.Name = c.name
		m := mustRender(t, mustNew(t, opts), c.language, link)
		isolate := "\u2068" + c.name + "\u2069"
		if got := strings.Contains(m.Subject, isolate) && strings.Contains(m.Text, isolate); got != c.isolated {
			t.Errorf("%s in %s: isolated is %v in %q\n%s", c.name, c.language, got, m.Subject, m.Text)
		}
		shown := 0
		for n := range parse(t, m.HTML).Descendants() {
			if n.Type == html.TextNode && n.Data != m.Subject && strings.Contains(n.Data, strings.TrimSuffix(c.name, ".")) {
				shown++
				if want := map[bool]string{true: isolate, false: c.name}[c.isolated]; n.Parent.Data != "bdi" || n.Data != want {
					t.Errorf("%s in %s: shown in <%s>%s", c.name, c.language, n.Parent.Data, n.Data)
				}
			}
		}
		if shown < 2 {
			t.Errorf("%s in %s: shown %d times", c.name, c.language, shown)
		}
	}
}

// TestColors: whatever the brand's colour, words are readable and the button is visible, on a light and on a
// dark ground. The test calculates WCAG's ratios itself.
func TestColors(t *testing.T) {
	t.Parallel()
	button := regexp.MustCompile(`border:2px solid (#\w{6}); .* background-color:(#\w{6}); .* color:(#\w{6});`)
	linkColor := regexp.MustCompile(`<a class="link" [^>]* style="color:(#\w{6});`)
	dark := regexp.MustCompile(`\.link \{ color: (#\w{6}) !important; \}\s+\.button \{ border-color: (#\w{6}) !important; \}`)
	for _, color := range []string{"", "#1f56d8", "#000000", "#fff", "#FFCC00", "#ff0000", "#767676", "#777777", "#808080", "#1a1d23", "#00ff00", "#0000ff", "#e0e0e0", "#7f7fff"} {
		opts := plain
		opts.Brand.Color = color
		r := mustNew(t, opts)
		page := mustRender(t, r, "en", link).HTML
		b, l, d := button.FindStringSubmatch(page), linkColor.FindStringSubmatch(page), dark.FindStringSubmatch(page)
		if b == nil || l == nil || d == nil {
			t.Fatalf("%s: no colours in\n%s", color, page)
		}
		if want := strings.ToLower(color); color != "" && len(color) == 7 && b[2] != want {
			t.Errorf("%s: the button is %s", color, b[2])
		}
		for _, pair := range []struct {
			what, a, b string
			least      float64
		}{
			{what: "words of the button", a: b[3], b: b[2], least: 4.5},
			{what: "link", a: l[1], b: "#ffffff", least: 4.5},
			{what: "link on a dark ground", a: d[1], b: "#1a1d23", least: 4.5},
			{what: "button", a: b[1], b: "#ffffff", least: 3},
			{what: "button on a dark ground", a: d[2], b: "#1a1d23", least: 3},
		} {
			if got := ratio(pair.a, pair.b); got < pair.least {
				t.Errorf("%s: %s is %s on %s, %.2f:1", color, pair.what, pair.a, pair.b, got)
			}
		}
		// A colour that is fine stays as it is, without a warning.
		changed := ratio(b[2], "#ffffff") < 4.5
		if (l[1] != b[2]) != changed || (len(r.Warnings()) > 0) != changed {
			t.Errorf("%s: links are %s, warnings %q", color, l[1], r.Warnings())
		}
	}
	for _, color := range []string{"blue", "1f56d8", "#1f56d", "#1f56d8ff", "#gggggg", "#1f56d8;", "rgb(0,0,0)", "#1f56d8\n"} {
		opts := plain
		if opts.Brand.Color = color; !opts.Validate().Has("BRAND_COLOR") {
			t.Errorf("%q is accepted", color)
		}
	}
}

// ratio returns the contrast ratio of https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio.
func ratio(a, b string) float64 {
	luminance := func(color string) (sum float64) {
		for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
			n, err := strconv.ParseUint(color[1+2*i:3+2*i], 16, 8)
			if err != nil {
				panic(err)
			}
			if v := float64(n) / 255; v <= 0.04045 {
				sum += weight * v / 12.92
			} else {
				sum += weight * math.Pow((v+0.055)/1.055, 2.4)
			}
		}
		return sum
	}
	light, dark := max(luminance(a), luminance(b)), min(luminance(a), luminance(b))
	return (light + 0.05) / (dark + 0.05)
}

// TestLogo: without a logo for dark grounds the other logo gets a light plate there. An SVG causes a warning.
func TestLogo(t *testing.T) {
	t.Parallel()
	opts := full
	opts.Brand.LogoDarkURL = ""
	one, two := mustRender(t, mustNew(t, opts), "en", link).HTML, mustRender(t, mustNew(t, full), "en", link).HTML
	if !strings.Contains(one, `<img class="plate" src="https://app.example.com/logo.png" alt="Example" height="36"`) || strings.Contains(one, `class="dark"`) {
		t.Errorf("one logo:\n%s", one)
	}
	if !strings.Contains(two, `<img class="bright" src="https://app.example.com/logo.png"`) || !strings.Contains(two, `<div class="dark" style="display:none; mso-hide:all;"><img src="https://app.example.com/logo-dark.png"`) {
		t.Errorf("two logos:\n%s", two)
	}
	if got := mustNew(t, full).Warnings(); len(got) > 0 {
		t.Errorf("warnings: %q", got)
	}
	for url, warned := range map[string]bool{"https://x.example/a.svg": true, "https://x.example/a.SVG?v=2#x": true, "https://x.example/svg": false, "https://x.example/a.png?x=.svg": false} {
		opts.Brand.LogoURL, opts.Brand.LogoDarkURL = url, url
		got := mustNew(t, opts).Warnings()
		if warned && (len(got) != 2 || !strings.HasPrefix(got[0], "BRAND_LOGO_URL is an SVG") || !strings.HasPrefix(got[1], "BRAND_LOGO_DARK_URL is an SVG")) || !warned && len(got) > 0 {
			t.Errorf("%s: %q", url, got)
		}
	}
}
