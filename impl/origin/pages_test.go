package origin_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/resetd/resetd/impl/origin"
)

const path = "/reset"

func newPages(site, path string, redirected bool, callbacks ...string) (origin.Pages, error) {
	links := origin.Links{Path: path, Callbacks: callbacks, Redirected: redirected}
	links.Site, _ = origin.ParseSite(site)
	return origin.NewPages(links)
}

func mustPages(t testing.TB, site, path string, redirected bool, callbacks ...string) origin.Pages {
	t.Helper()
	p, err := newPages(site, path, redirected, callbacks...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestResolve(t *testing.T) {
	t.Parallel()
	p := mustPages(t, site, path, false, callbacks...)
	for in, want := range map[string]string{
		"":                                        site,
		"https://example.com":                     site,
		"https://example.com/":                    site,
		"https://example.com:443":                 site,
		"https://example.com:443/":                site,
		"HTTPS://EXAMPLE.COM":                     site,
		"HTTPS://EXAMPLE.COM/":                    site,
		"https://app.example.com":                 "https://app.example.com",
		"https://app.example.com/":                "https://app.example.com",
		"https://APP.example.com:443":             "https://app.example.com",
		"https://pr-7.preview.example.com":        "https://pr-7.preview.example.com",
		"https://pr-7.preview.example.com/":       "https://pr-7.preview.example.com",
		"https://PR-7.Preview.example.com":        "https://pr-7.preview.example.com",
		"https://a.edge.example.com:8443":         "https://a.edge.example.com:8443",
		"http://localhost:3000":                   "http://localhost:3000",
		"http://LocalHost:3000/":                  "http://localhost:3000",
		"http://192.0.2.1:80":                     "http://192.0.2.1",
		"https://[2001:0db8::0001]":               "https://[2001:db8::1]",
		"https://[2001:DB8::1]/":                  "https://[2001:db8::1]",
		"https://xn--80ak6aa.preview.example.com": "https://xn--80ak6aa.preview.example.com",
	} {
		if got, allowed := p.Resolve(in); got != want+path || !allowed {
			t.Errorf("Resolve(%q) = %q, %v; want %q, true", in, got, allowed, want+path)
		}
	}
}

func TestResolveAttacks(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]origin.Pages{
		"links to the page": mustPages(t, site, path, false, callbacks...),
		"redirected":        mustPages(t, site, path, true, append(callbacks, apps...)...),
	} {
		for _, in := range append(appAttacks, attacks...) {
			if got, allowed := p.Resolve(in); got != site+path || allowed {
				t.Errorf("%s: Resolve(%.120q) = %q, %v; want the site, false", name, in, got, allowed)
			}
		}
	}
}

// TestPaths: each origin has its own page, and a path from a caller is refused.
func TestPaths(t *testing.T) {
	t.Parallel()
	const home = "https://example.com/auth/confirm?next=/account"
	p := mustPages(t, "https://example.com", "/auth/confirm?next=/account", false,
		"https://other.example.com/konto/neu", "https://*.preview.example.com/#/reset", "https://a.preview.example.com/a?b=c",
		"HTTP://Localhost:3000/Reset", "https://plain.example.com/", "https://plain.example.com", "https://example.com", "https://other.example.com/konto/neu")
	for in, want := range map[string]string{
		"":                              home,
		"https://example.com/":          home,
		"https://plain.example.com":     "https://plain.example.com/auth/confirm?next=/account",
		"https://other.example.com":     "https://other.example.com/konto/neu",
		"https://OTHER.example.com/":    "https://other.example.com/konto/neu",
		"https://b.preview.example.com": "https://b.preview.example.com/#/reset",
		"https://a.preview.example.com": "https://a.preview.example.com/a?b=c", // the exact entry wins over the wildcard
		"http://localhost:3000":         "http://localhost:3000/Reset",
		// These are listed, but they are no origins.
		"https://other.example.com/konto/neu":   "",
		"https://other.example.com/konto":       "",
		"https://b.preview.example.com/#/reset": "",
	} {
		got, allowed := p.Resolve(in)
		if allowed != (want != "") || allowed && got != want || !allowed && got != home {
			t.Errorf("Resolve(%q) = %q, %v; want %q", in, got, allowed, want)
		}
	}
	if want := []string{
		home, "https://other.example.com/konto/neu", "https://*.preview.example.com/#/reset",
		"https://a.preview.example.com/a?b=c", "http://localhost:3000/Reset", "https://plain.example.com/auth/confirm?next=/account",
	}; !slices.Equal(p.All(), want) {
		t.Errorf("All() = %q, want %q", p.All(), want)
	}
	l := p.Origins()
	for in, want := range map[string]bool{
		"https://example.com": true, "https://other.example.com": true, "https://b.preview.example.com": true, "http://localhost:3000": true,
		"https://other.example.com/konto/neu": false, "https://other.example.com/": false,
	} {
		if l.Allows(in) != want {
			t.Errorf("Allows(%q) = %v", in, !want)
		}
	}
}

func TestCheckPath(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"/", "/reset", "/a/b.html", "/a%20b", "/auth/confirm?next=/account", "/a?b", "/a?types=1", "/#/reset", "/app/#!/reset", "/?x=1#/reset?y=2", "/a@b", "/a:b"} {
		if err := origin.CheckPath(in, false); err != nil {
			t.Errorf("%q: %v", in, err)
		}
	}
	for in, want := range map[string]string{
		"":                       "must begin with one slash",
		"reset":                  "must begin with one slash",
		"//evil.org":             "must begin with one slash",
		"?x=1":                   "must begin with one slash",
		"#/reset":                "must begin with one slash",
		"/a b":                   "write others as %XX",
		"/a\tb":                  "write others as %XX",
		"/a\nb":                  "write others as %XX",
		`/\evil.org`:             "write others as %XX",
		`/a"b`:                   "write others as %XX",
		"/<a>":                   "write others as %XX",
		"/ä":                     "write others as %XX",
		"/a?":                    `after its "?"`,
		"/a#":                    "the route of a hash router",
		"/a#b":                   "the route of a hash router",
		"/#/a#b":                 "the route of a hash router",
		"/a?token_hash=x":        "token_hash and type",
		"/a?x=1&type=recovery":   "token_hash and type",
		"/#/reset?type=recovery": "token_hash and type",
	} {
		if err := origin.CheckPath(in, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
	if err := origin.CheckPath("/#/reset", true); err == nil || !strings.Contains(err.Error(), "LINK_MODE=token_hash") {
		t.Errorf("a hash router, and Supabase's redirect: %v", err)
	}
}

func TestParseSite(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://app.example.com/path":     `has a path: remove everything from the "/" after the host on; the path of the page belongs into RESET_PATH`,
		"io.example.app://reset":           "an app's own scheme belongs into CALLBACK_ORIGINS",
		"htps://app.example.com":           "must begin with https://",
		"https://u:hunter2@x.example/path": "has user info",
	} {
		if _, err := origin.ParseSite(in); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

var apps = []string{"io.example.app://reset", "myapp://auth/new-password/", "exp://127.0.0.1:19000/--/reset", "com.example.app2+x://Reset_1"}

// appAttacks are not the apps that are listed above.
var appAttacks = []string{
	"io.example.app://", "io.example.app:reset", "io.example.app:/reset", "io.example.app://reset/", "IO.example.app://reset", "io.example.app://Reset",
	"io.example.app://reset?x", "io.example.app://reset#x", "io.example.app://reset ", " io.example.app://reset", "io.example.app://reset\r\n",
	"io.example.app://reset.evil", "io.example.app://evil@reset", `io.example.app:\\reset`, "xio.example.app://reset", "app://reset", "io.example.app",
	"myapp://auth/new-password", "https://reset", "https://io.example.app", "https://myapp", "http://127.0.0.1:19000", "exp://127.0.0.1:19000",
}

// TestApps: an app is named exactly as it is listed, and only with links by Supabase.
func TestApps(t *testing.T) {
	t.Parallel()
	p := mustPages(t, site, path, true, append(apps, "https://app.example.com")...)
	for _, in := range apps {
		if got, allowed := p.Resolve(in); got != in || !allowed {
			t.Errorf("Resolve(%q) = %q, %v", in, got, allowed)
		}
		if p.Origins().Allows(in) {
			t.Errorf("browsers may call from %q", in)
		}
		if !slices.Contains(p.All(), in) {
			t.Errorf("All() = %q, without %q", p.All(), in)
		}
	}
	if _, err := newPages(site, path, false, "io.example.app://reset"); err == nil || !strings.Contains(err.Error(), `entry 1 is an app's own scheme, which mail programs do not open: list the https address of an app link (universal link) instead, or set LINK_MODE=action_link`) {
		t.Errorf("a link to the app itself: %v", err)
	}
}

func TestNewPagesRefuses(t *testing.T) {
	t.Parallel()
	for entry, want := range map[string]string{
		"https://other.example.com/a b":                "has a path that must have no spaces",
		"https://other.example.com//":                  "has a path that must begin with one slash",
		"https://other.example.com?x=1":                "has a path that must begin with one slash",
		"https://other.example.com/#/reset":            "LINK_MODE=action_link",
		"https://other.example.com/?token_hash=1":      "token_hash and type",
		"https://example.com/other":                    "is SITE_URL, whose path is RESET_PATH",
		"https://user:hunter2@other.example.com/path":  "has user info",
		"https://user:hun/ter2@other.example.com":      "entry 2 has a port",
		"https://*.com/path":                           "names of strangers",
		"https://app.example.com/other":                "is listed with another path too",
		`https://evil.org\@other.example.com/path`:     "has user info",
		"https://bücher.example/path":                  "write https://xn--bcher-kva.example",
		"io.example.app://":                            `must have a name after "://"`,
		"io.example.app:///reset":                      `must have a name after "://"`,
		"io.example.app://reset?x=1":                   "must have only letters",
		"io.example.app://*":                           "must have only letters",
		"io.example.app://résumé":                      "must have only letters",
		"IO.example.app://reset":                       "lower case",
		"htps://app.example.com":                       "must begin with https://",
		"javascript://app.example.com":                 "must begin with https://",
		"file://etc/passwd":                            "must begin with https://",
		"intent://reset":                               "must begin with https://",
		"io.example.app":                               "has no scheme",
		"io.example.app://" + strings.Repeat("a", 300): "must have at most",
	} {
		p, err := newPages(site, path, true, "https://app.example.com", entry)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.80q: %v, want %q", entry, err, want)
		}
		if got, allowed := p.Resolve("https://app.example.com"); got != "" || allowed {
			t.Errorf("%.80q: pages beside an error", entry)
		}
	}
	if _, err := newPages(site, path, true, "https://a.example/b c", "x", "https://*.com"); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("not every mistake at once: %v", err)
	}
}

func TestPagesWithoutSite(t *testing.T) {
	t.Parallel()
	p := mustPages(t, "", path, false, "https://app.example.com")
	for _, in := range []string{"", "https://evil.org"} {
		if got, allowed := p.Resolve(in); got != "" || allowed {
			t.Errorf("Resolve(%q) = %q, %v; there is nothing to fall back to", in, got, allowed)
		}
	}
	if got, allowed := p.Resolve("https://app.example.com"); got != "https://app.example.com"+path || !allowed {
		t.Errorf("Resolve = %q, %v", got, allowed)
	}
	var zero origin.Pages
	if got, allowed := zero.Resolve(site); got != "" || allowed || zero.Origins().Allows(site) || zero.Site() != "" || zero.All() != nil {
		t.Errorf("the zero Pages allow something: %q, %v", got, allowed)
	}
}

// FuzzResolve checks what the rest of the program relies on, whatever a caller sends. The corpus in testdata/fuzz
// has the attacks above; new findings belong there too.
func FuzzResolve(f *testing.F) {
	for _, in := range append(appAttacks, attacks...) {
		if len(in) < 300 {
			f.Add(in)
		}
	}
	own := append(callbacks, "https://other.example.com/konto/neu", "https://*.wild.example.com/auth?next=/", "io.example.app://reset")
	for _, in := range own {
		f.Add(in)
	}
	p := mustPages(f, site, path, true, own...)
	f.Fuzz(func(t *testing.T, in string) {
		got, allowed := p.Resolve(in)
		switch {
		case !allowed && got != site+path:
			t.Fatalf("Resolve(%q) = %q, false; want the site", in, got)
		case got == "io.example.app://reset":
			if in != got {
				t.Fatalf("Resolve(%q) = %q", in, got)
			}
			return
		}
		u, err := url.Parse(got)
		if err != nil || u.User != nil || u.Fragment != "" || u.String() != got {
			t.Fatalf("Resolve(%q) = %q, which net/url reads as %+v, %v", in, got, u, err)
		}
		of := u.Scheme + "://" + u.Host
		if strings.Trim(of, "abcdefghijklmnopqrstuvwxyz0123456789.:/[]-") != "" {
			t.Fatalf("Resolve(%q) = %q, which has unexpected characters", in, got)
		}
		want := path
		switch {
		case of == "https://other.example.com":
			want = "/konto/neu"
		case strings.HasSuffix(of, ".wild.example.com"):
			want = "/auth?next=/"
		}
		if got != of+want {
			t.Fatalf("Resolve(%q) = %q, want the path %s", in, got, want)
		}
		o, err := origin.Parse(of)
		if err != nil || o.String() != of || u.Hostname() != o.Hostname() {
			t.Fatalf("Resolve(%q) = %q, whose origin parses to %q, %v", in, got, o, err)
		}
		if !p.Origins().Allows(of) {
			t.Fatalf("Resolve(%q) = %q, which is not allowed", in, got)
		}
		if again, ok := p.Resolve(of); !ok || again != got {
			t.Fatalf("Resolve(%q) = %q, and then %q, %v: not a fixed point", in, got, again, ok)
		}
		if p.Origins().Allows(in) && of != in {
			t.Fatalf("Allows(%q), and yet Resolve returns %q", in, got)
		}
	})
}

func BenchmarkResolve(b *testing.B) {
	p := mustPages(b, site, path, false, callbacks...)
	b.ReportAllocs()
	for b.Loop() {
		p.Resolve("https://pr-7.preview.example.com")
	}
}
