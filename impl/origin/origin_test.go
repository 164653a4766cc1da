package origin_test

import (
	"strings"
	"testing"

	"github.com/resetd/resetd/impl/origin"
)

func TestParse(t *testing.T) {
	t.Parallel()
	label63 := strings.Repeat("a", 63)
	host253 := label63 + "." + label63 + "." + label63 + "." + strings.Repeat("b", 61)
	for in, want := range map[string]string{
		"https://app.example.com":            "https://app.example.com",
		"https://APP.Example.COM":            "https://app.example.com",
		"HTTPS://app.example.com":            "https://app.example.com",
		"https://app.example.com:443":        "https://app.example.com",
		"http://app.example.com:80":          "http://app.example.com",
		"https://app.example.com:80":         "https://app.example.com:80",
		"http://app.example.com:443":         "http://app.example.com:443",
		"https://app.example.com:1":          "https://app.example.com:1",
		"https://app.example.com:65535":      "https://app.example.com:65535",
		"http://localhost:3000":              "http://localhost:3000",
		"http://127.0.0.1:3000":              "http://127.0.0.1:3000",
		"http://[::1]:3000":                  "http://[::1]:3000",
		"http://[::1]:80":                    "http://[::1]",
		"https://[2001:DB8:0:0:0:0:0:1]":     "https://[2001:db8::1]",
		"https://xn--bcher-kva.example":      "https://xn--bcher-kva.example",
		"https://1a.example":                 "https://1a.example",
		"https://app.example.com/":           "https://app.example.com",
		"HTTPS://APP.example.com:443/":       "https://app.example.com",
		"http://[::1]:3000/":                 "http://[::1]:3000",
		"https://3com.example":               "https://3com.example",
		"https://a--b.example":               "https://a--b.example",
		"https://0xg":                        "https://0xg",
		"https://" + host253:                 "https://" + host253,
		"https://" + host253 + ":65535":      "https://" + host253 + ":65535",
		"https://" + host253 + ":65535/":     "https://" + host253 + ":65535",
		"https://" + label63 + ".example:81": "https://" + label63 + ".example:81",
	} {
		o, err := origin.Parse(in)
		if err != nil {
			t.Errorf("Parse(%q): %v", in, err)
			continue
		}
		if o.String() != want {
			t.Errorf("Parse(%q) = %q, want %q", in, o, want)
		}
		if again, err := origin.Parse(o.String()); err != nil || again != o {
			t.Errorf("Parse(%q) = %v, %v: the canonical form does not parse to itself", o.String(), again, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	// want is what the error says.
	for in, want := range map[string]string{
		"":                                                   "is empty",
		"example":                                            "has no scheme",
		"app.example.com":                                    "has no scheme",
		"app.example.com:443":                                "has no scheme",
		"//app.example.com":                                  "has no scheme",
		"https:/app.example.com":                             "has no scheme",
		"https:app.example.com":                              "has no scheme",
		"://app.example.com":                                 "must begin with https://",
		"ftp://app.example.com":                              "must begin with https://",
		"javascript://app.example.com":                       "must begin with https://",
		" https://app.example.com":                           "must begin with https://",
		"httpſ://app.example.com":                            "must begin with https://",
		"https://":                                           "has no host",
		"https:///app.example.com":                           "has no host",
		"https://:443":                                       "has no host",
		"https:////":                                         "has no host",
		"https://app.example.com:/":                          "empty port",
		"https://app.example.com/app":                        "has a path: remove",
		"https://app.example.com/my_app?x=1":                 "has a path: remove",
		"https://app.example.com//":                          "has a path: remove",
		"https://app.example.com?x=1":                        "has a query",
		"https://app.example.com#x":                          "has a fragment",
		"https://user@app.example.com":                       "has user info",
		"https://user:secret@app.example.com":                "has user info",
		`https://app.example.com\`:                           "backslash",
		"https://app.example.com\t":                          "white space",
		"https://app.exa mple.com":                           "white space",
		"https://app.example.com\n":                          "white space",
		"https://app.example.com\x00":                        "control character",
		"https://app.example.com\x7f":                        "control character",
		"https://app%2eexample.com":                          "percent-encoding",
		"https://bücher.example":                             "xn-- form",
		"https://app。example.com":                            "xn-- form",
		"https://my_app.example.com":                         `'_'`,
		"https://*.example.com":                              "wildcard",
		"https://app..example.com":                           "empty label",
		"https://.example.com":                               "empty label",
		"https://app.example.com.":                           "ends in a dot",
		"https://-app.example.com":                           "hyphen",
		"https://app-.example.com":                           "hyphen",
		"https://app.example.com:":                           "empty port",
		"https://app.example.com:0":                          "from 1 to 65535",
		"https://app.example.com:65536":                      "from 1 to 65535",
		"https://app.example.com:99999999999":                "from 1 to 65535",
		"https://app.example.com:http":                       "from 1 to 65535",
		"https://app.example.com:-1":                         "from 1 to 65535",
		"https://app.example.com:0443":                       "write 443",
		"https://app.example.com:443:443":                    "more than one port",
		"https://2001:db8::1":                                "more than one port",
		"https://[2001:db8::1":                               `no "]"`,
		"https://[::1]x":                                     "after the",
		"https://[]":                                         "no valid IPv6",
		"https://[::1::]":                                    "no valid IPv6",
		"https://[1.2.3.4]":                                  "no valid IPv6",
		"https://[fe80::1%25eth0]":                           "IPv6 zone",
		"https://[fe80::1%eth0]":                             "IPv6 zone",
		"https://[::ffff:192.0.2.1]":                         "IPv4 address itself",
		"https://a[::1]":                                     "brackets",
		"https://a]":                                         "brackets",
		"https://3221225985":                                 "ends in a number",
		"https://0xc0000201":                                 "ends in a number",
		"https://0x":                                         "ends in a number",
		"https://192.0.2":                                    "ends in a number",
		"https://192.0.2.1.1":                                "ends in a number",
		"https://192.0.2.256":                                "ends in a number",
		"https://192.0.2.01":                                 "ends in a number",
		"https://0300.0.2.1":                                 "ends in a number",
		"https://app.example.1":                              "ends in a number",
		"https://app.example.0x1f":                           "ends in a number",
		"https://" + strings.Repeat("a", 64) + ".example":    "64 characters",
		"https://" + strings.Repeat("a.", 126) + "aa":        "254 characters",
		"https://" + strings.Repeat("a", 1<<20):              "no origin is longer than",
		"https://app.example.com" + strings.Repeat("/", 300): "no origin is longer than",
		"https://" + strings.Repeat(strings.Repeat("a", 60)+".", 4) + "org:65536": "from 1 to 65535",
	} {
		o, err := origin.Parse(in)
		if err == nil {
			t.Errorf("Parse(%.80q) = %q, want a refusal", in, o)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%.80q): %q does not say %q", in, err, want)
		}
		if o != (origin.Origin{}) {
			t.Errorf("Parse(%.80q) = %q beside an error", in, o)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("Parse(%.80q): the error repeats a password: %q", in, err)
		}
	}
}

func TestParseSetting(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"https://app.example.com", "https://app.example.com/", "  https://app.example.com/\n"} {
		if o, err := origin.ParseSetting(in); err != nil || o.String() != "https://app.example.com" {
			t.Errorf("ParseSetting(%q) = %q, %v", in, o, err)
		}
	}
	for in, want := range map[string]string{
		"":                                "is empty",
		"/":                               "has no scheme",
		"https://":                        "has no host",
		"https://app.example.com//":       "has a path",
		"https://app.example.com/app/":    "has a path",
		"https://bücher.example":          "write https://xn--bcher-kva.example",
		"https://BÜCHER.example:8443/":    "write https://xn--bcher-kva.example:8443",
		"https://аpp.example.com":         "write https://xn--pp-6kc.example.com", // with a Cyrillic a, which is obvious in this form
		"https://app.example.com\u200b":   "not ASCII: write https://app.example.com",
		"https://secret@bücher.example":   "has user info",
		"https://bücher.example/?secret":  "has a path: remove",
		"https://bücher.example:secret":   "not ASCII",
		"https://app.example.com/bücher":  "has a path: remove",
		"https://bü cher.example/?secret": "has a path: remove",
	} {
		o, err := origin.ParseSetting(in)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("ParseSetting(%q) = %q, %v; want a refusal that says %q", in, o, err, want)
		}
	}
}

func TestHostname(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://App.example.com:8443": "app.example.com",
		"http://[::1]:3000":            "::1",
	} {
		o, err := origin.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.Hostname(); got != want {
			t.Errorf("%q: Hostname() = %q, want %q", in, got, want)
		}
	}
	if got := (origin.Origin{}).String(); got != "" {
		t.Errorf("the zero Origin prints as %q", got)
	}
}
