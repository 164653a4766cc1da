package origin_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/resetd/resetd/impl/origin"
)

const site = "https://example.com"

var callbacks = []string{
	"https://app.example.com",
	"https://*.preview.example.com",
	"https://*.edge.example.com:8443",
	"http://localhost:3000",
	"http://192.0.2.1",
	"https://[2001:db8::1]",
}

func mustList(t testing.TB, entries ...string) origin.List {
	t.Helper()
	l, err := origin.NewList(entries)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// attacks are values for which known readers of origins have fallen. None of them is on the list above.
var attacks = []string{
	"example", // the example of the published contract
	"null",
	"*",
	"https://*",
	"https://*.preview.example.com",
	"https://evil.org",

	// Tricks with suffix and prefix.
	"https://preview.example.com",
	"https://a.b.preview.example.com",
	"https://evil-preview.example.com",
	"https://evilpreview.example.com",
	"https://preview.example.com.evil.org",
	"https://x.preview.example.com.evil.org",
	"https://example.com.evil.org",
	"https://evil-example.com",
	"https://evilexample.com",
	"https://evil.example.com",
	"https://example.co",
	"https://example.com.",
	"https://app.example.com.",
	"https://a.preview.example.com.",
	"https://.preview.example.com",
	"https://..preview.example.com",
	"https://-.preview.example.com",
	"https://evil.org.preview.example.com",

	// User info.
	"https://app.example.com@evil.org",
	"https://app.example.com:443@evil.org",
	"https://app.example.com:pw@evil.org",
	"https://app.example.com%40evil.org",
	"https://evil.org@app.example.com",
	"https://@app.example.com",
	"https://evil.org#@app.example.com",
	`https://evil.org\@app.example.com`,
	"https://evil.org/@app.example.com",

	// Slashes of both kinds, path, query, fragment.
	`https:\\app.example.com`,
	`https://evil.org\.preview.example.com`,
	`https://app.example.com\.evil.org`,
	`https:/\app.example.com`,
	"https:app.example.com",
	"https:/app.example.com",
	"https:///app.example.com",
	"https:////evil.org",
	"//app.example.com",
	"///evil.org",
	`\\evil.org`,
	"/\tevil.org",
	"https://app.example.com//",
	"https://app.example.com/.",
	"https://app.example.com/?",
	`https://app.example.com/\`,
	`https://app.example.com\/`,
	"https://app.example.com/%2f",
	"https://app.example.com/ ",
	"https://app.example.com//evil.org",
	"https://app.example.com/../evil",
	"https://app.example.com?@evil.org",
	"https://app.example.com#.evil.org",
	"https://app.example.com;evil.org",
	"https://app.example.com&evil.org",
	"https://evil.org/.preview.example.com",
	"https://evil.org?.preview.example.com",
	"https://evil.org#.preview.example.com",
	"https://evil.org;.preview.example.com",
	"https://evil.org,.preview.example.com",
	"https://app.example.com,https://evil.org",
	"https://app.example.com https://evil.org",

	// White space and control characters, which browsers drop.
	"\thttps://app.example.com",
	" https://app.example.com",
	"https://app.example.com ",
	"ht\ttps://app.example.com",
	"https://ap\np.example.com",
	"https://app.example.com\r\nBcc: evil@evil.org",
	"https://evil.org\x00.preview.example.com",
	"https://evil.org\t.preview.example.com",
	"https://app.example.com\x00",
	"https://app.example.com\u00a0",
	"https://app.example.com\u200b",
	"\ufeffhttps://app.example.com",

	// Look-alikes and what IDNA maps to ASCII.
	"https://app。example.com",
	"https://\uff41pp.example.com",
	"https://app\uff0eexample.com",
	"https://app.example.com\uff0f.evil.org",
	"https://ⓐpp.example.com",
	"https://аpp.example.com",
	"https://evil.org／.preview.example.com",
	"https://evil.org。preview.example.com",
	"https://xn--pp-8cd.example.com",
	"https://xn--exmple-4nf.com",
	"https://app.exаmple.com",
	"https://app.example.com\xff",
	"httpſ://app.example.com",
	"https://app.example.K",

	// Percent-encoding.
	"https://app%2eexample.com",
	"https://evil.org%2f.preview.example.com",
	"https://evil.org%00.preview.example.com",
	"https%3a%2f%2fapp.example.com",

	// Scheme and port.
	"http://app.example.com",
	"http://example.com",
	"http://pr-7.preview.example.com",
	"https://localhost:3000",
	"http://localhost",
	"http://localhost:3001",
	"https://app.example.com:8443",
	"https://app.example.com:0443",
	"https://app.example.com:+443",
	"https://app.example.com:4 43",
	"https://app.example.com:",
	"https://app.example.com:443:443",
	"https://app.example.com:65979", // 443 modulo 65536
	"https://app.example.com:443@evil.org:443",
	"https://a.edge.example.com",
	"https://a.preview.example.com:8443",
	"javascript://app.example.com",
	"javascript:alert(1)",
	"data:text/html,x",
	"file:///etc/passwd",
	"ws://app.example.com",
	"https+evil://app.example.com",
	"view-source:https://app.example.com",

	// Other spellings of 192.0.2.1 and of addresses.
	"http://3221225985",
	"http://0xc0000201",
	"http://0xC0.0x00.0x02.0x01",
	"http://0300.0.02.01",
	"http://192.0.513",
	"http://192.0.2.1.",
	"http://192.0.2.01",
	"http://[::ffff:192.0.2.1]",
	"http://[::ffff:c000:201]",
	"http://1.192.0.2.1",
	"https://[2001:db8::1%25eth0]",
	"https://[2001:db8::1%eth0]",
	"https://[2001:db8::1]evil.org",
	"https://[2001:db8::1].evil.org",
	"https://2001:db8::1",
	"https://[2001:db8::1",
	"https://[v1.x]",
	"https://[app.example.com]",

	strings.Repeat("https://app.example.com", 10_000),
	"https://app.example.com" + strings.Repeat("/", 100),
	"https://" + strings.Repeat("a", 64) + ".preview.example.com",
	"https://" + strings.Repeat("a.", 200) + "preview.example.com",
	"https://app.example.com:" + strings.Repeat("0", 300) + "443",
}

func TestAllowsNoAttack(t *testing.T) {
	t.Parallel()
	l := mustList(t, append([]string{site}, callbacks...)...)
	for _, in := range attacks {
		if l.Allows(in) {
			t.Errorf("Allows(%.120q) = true", in)
		}
	}
}

func TestAllows(t *testing.T) {
	t.Parallel()
	l := mustList(t, append([]string{site}, callbacks...)...)
	for in, want := range map[string]bool{
		"https://example.com":               true,
		"https://app.example.com":           true,
		"https://pr-7.preview.example.com":  true,
		"https://a.edge.example.com:8443":   true,
		"http://localhost:3000":             true,
		"https://[2001:db8::1]":             true,
		"":                                  false,
		"null":                              false,
		"https://Example.com":               false, // no browser spells it so
		"https://example.com:443":           false,
		"https://example.com/":              false,
		"https://[2001:DB8::1]":             false,
		"https://example.com https://b.org": false,
	} {
		if got := l.Allows(in); got != want {
			t.Errorf("Allows(%q) = %v, want %v", in, got, want)
		}
	}
}

// TestWithLoopback: a list that is asked to allows this machine with any port, and nothing similar. Other lists
// do not allow it.
func TestWithLoopback(t *testing.T) {
	t.Parallel()
	plain := mustPages(t, site, path, false)
	p, browsers := plain.WithLoopback(), origin.Browsers{}.WithLoopback()
	l := p.Origins()
	for in, want := range map[string]string{
		"http://localhost:3000": "http://localhost:3000", "http://localhost": "http://localhost", "https://localhost:5173": "https://localhost:5173",
		"http://LOCALHOST:3000": "http://localhost:3000", "http://127.0.0.1:8081": "http://127.0.0.1:8081", "http://[::1]:3000": "http://[::1]:3000",
	} {
		if got, allowed := p.Resolve(in); got != want+path || !allowed {
			t.Errorf("Resolve(%q) = %q, %v; want %q, true", in, got, allowed, want)
		}
		if canonical := in == want; l.Allows(in) != canonical || browsers.Allows(in) != canonical {
			t.Errorf("Allows(%q) = %v, of pages %v, want %v", in, l.Allows(in), browsers.Allows(in), canonical)
		}
		if got, allowed := plain.Resolve(in); got != site+path || allowed || plain.Origins().Allows(in) {
			t.Errorf("without it: Resolve(%q) = %q, %v; Allows %v", in, got, allowed, plain.Origins().Allows(in))
		}
	}
	for _, in := range append([]string{
		"http://localhost.evil.org", "http://evil.localhost:3000", "http://localhost:3000@evil.org", "http://localhost:3000//", "http://localhost:", "http://localhost.",
		"http://127.0.0.2", "http://127.1", "http://2130706433", "http://127.0.0.1.evil.org", "http://0.0.0.0:3000", "http://[::]:3000", "http://[::ffff:127.0.0.1]", "ftp://localhost", "null",
	}, slices.DeleteFunc(slices.Clone(attacks), func(in string) bool { return strings.Contains(in, "//localhost") })...) {
		if got, allowed := p.Resolve(in); got != site+path || allowed || l.Allows(in) || browsers.Allows(in) {
			t.Errorf("Resolve(%.120q) = %q, %v; want the site, false", in, got, allowed)
		}
	}
}

func TestNewListForgives(t *testing.T) {
	t.Parallel()
	l := mustList(t, "", " https://App.example.com/", "https://*.preview.example.com/ ", "https://app.example.com")
	for _, in := range []string{"https://app.example.com", "https://a.preview.example.com"} {
		if !l.Allows(in) {
			t.Errorf("Allows(%q) = false", in)
		}
	}
	if (origin.List{}).Allows(site) {
		t.Error("the zero List allows something")
	}
}

func TestNewListReportsEveryMistake(t *testing.T) {
	t.Parallel()
	entries := []struct{ entry, want string }{
		{"https://*.com", "names of strangers"},
		{"https://*.co.uk", "names of strangers"},
		{"https://*.vercel.app", "names of strangers"},
		{"https://*.github.io", "names of strangers"},
		{"https://*.compute.amazonaws.com", "names of strangers"},
		{"https://*.localhost", "names of strangers"},
		{"https://*", "wildcard"},
		{"https://*.*.example.com", "wildcard"},
		{"https://a.*.example.com", "wildcard"},
		{"https://pr-*.example.com", "wildcard"},
		{"https://*.example.com/hunter2", "has a path"},
		{"https://*.192.0.2.1", "IP address"},
		{"https://*.[::1]", "IP address"},
		{"*.example.com", "has no scheme"},
		{"*", "has no scheme"},
		{"hunter2", "has no scheme"},
		{"https://hunter2-", "hyphen"},
		{"https://user:hunter2@example.com", "has user info"},
		{"ftp://*.preview.example.com", "must begin with https://"},
	}
	list := []string{"", "https://example.com"}
	for _, tt := range entries {
		list = append(list, tt.entry)
	}
	l, err := origin.NewList(list)
	if err == nil {
		t.Fatal("NewList accepted mistakes")
	}
	if l.Allows("https://example.com") {
		t.Error("NewList returned a list beside an error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(entries) {
		t.Fatalf("%d mistakes reported, want %d", len(lines), len(entries))
	}
	for i, tt := range entries {
		if !strings.HasPrefix(lines[i], fmt.Sprintf("entry %d ", i+2)) || !strings.Contains(lines[i], tt.want) {
			t.Errorf("%q: %s, want entry %d, %q", tt.entry, lines[i], i+2, tt.want)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Error("the error repeats an entry")
	}
}

// FuzzParse compares Parse with net/url: what Parse accepts has the same host for net/url, and nothing else.
func FuzzParse(f *testing.F) {
	for _, in := range attacks {
		if len(in) < 300 {
			f.Add(in)
		}
	}
	f.Fuzz(func(t *testing.T, in string) {
		o, err := origin.Parse(in)
		if err != nil {
			return
		}
		if again, err := origin.Parse(o.String()); err != nil || again != o {
			t.Fatalf("Parse(%q) = %q, which parses to %q, %v", in, o, again, err)
		}
		if !strings.Contains(in, "[") && !strings.HasPrefix(strings.ToLower(in), o.String()) {
			t.Fatalf("Parse(%q) = %q: more than the case, a default port and a slash has changed", in, o)
		}
		for _, s := range []string{in, o.String()} {
			u, err := url.Parse(s)
			if err != nil {
				t.Fatalf("Parse(%q) = %q, and net/url refuses %q: %v", in, o, s, err)
			}
			if u.User != nil || u.Path != "" && (u.Path != "/" || s != in) || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
				t.Fatalf("Parse(%q) = %q, and net/url finds more in it: %+v", in, o, u)
			}
			if !strings.Contains(s, "[") && !strings.EqualFold(u.Hostname(), o.Hostname()) {
				t.Fatalf("Parse(%q) = %q, and net/url reads host %q", in, o, u.Hostname())
			}
		}
	})
}
