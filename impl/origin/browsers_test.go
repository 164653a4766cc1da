package origin_test

import (
	"strings"
	"testing"

	"github.com/resetd/resetd/impl/origin"
)

func TestBrowsers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name             string
		entries          []string
		allowed, refused []string
	}{
		{
			name:    "entries that a List accepts",
			entries: []string{"https://app.example.com/", " https://*.preview.example.com", "", "HTTP://localhost:3000"},
			allowed: []string{"https://app.example.com", "https://pr-7.preview.example.com", "http://localhost:3000"},
			refused: append([]string{"null", "", "*"}, attacks...),
		},
		{
			name: "web views",
			entries: []string{
				"capacitor://localhost", "Ionic://localhost/", "tauri://localhost", "app://-", "app://obsidian.md", "my-app+x.2://host:8080",
				"safari-web-extension://0F8FAD5B-D9CB-469F-A165-70867728950E", "vscode-webview://0a1b",
			},
			allowed: []string{
				"capacitor://localhost", "ionic://localhost", "tauri://localhost", "app://-", "app://obsidian.md", "my-app+x.2://host:8080",
				"safari-web-extension://0F8FAD5B-D9CB-469F-A165-70867728950E", "vscode-webview://0a1b",
			},
			refused: []string{
				"null", "", "capacitor://", "capacitor://localhost/", "capacitor://localhost:80", "CAPACITOR://localhost", "capacitor://LOCALHOST",
				"capacitor://localhost.evil.org", "capacitor://evil@localhost", "xcapacitor://localhost", "ionic://localhost/x", "app://--",
				"safari-web-extension://0f8fad5b-d9cb-469f-a165-70867728950e", "https://localhost", "http://localhost",
			},
		},
		{name: "all", entries: []string{" * "}, allowed: []string{"https://evil.org", "null", "capacitor://localhost", ""}},
		{name: "none", refused: []string{"", "null", "*", "https://app.example.com", "capacitor://localhost"}},
	} {
		b, err := origin.NewBrowsers(c.entries)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, o := range c.allowed {
			if !b.Allows(o) {
				t.Errorf("%s: %q is refused", c.name, o)
			}
		}
		for _, o := range c.refused {
			if b.Allows(o) {
				t.Errorf("%s: %q is allowed", c.name, o)
			}
		}
		if b.Any() != (c.name == "all") {
			t.Errorf("%s: Any() = %v", c.name, b.Any())
		}
	}
	if (origin.Browsers{}).Allows("https://app.example.com") {
		t.Error("the zero Browsers allows something")
	}
	// Links never lead to a web view. By default, browsers may call from the origins where links lead.
	if _, err := newPages(site, path, false, "capacitor://localhost"); err == nil {
		t.Error("links lead to capacitor://localhost")
	}
	if b := mustPages(t, site, path, false, callbacks...).Origins().Browsers(); !b.Allows(site) || !b.Allows("https://pr-7.preview.example.com") || b.Allows("capacitor://localhost") {
		t.Error("the origins of Pages are others")
	}
}

func TestBrowsersRefuses(t *testing.T) {
	t.Parallel()
	// want is what the error says.
	for in, want := range map[string]string{
		"null":                              "* allows it",
		"file://":                           "browsers send null for file: pages",
		"data://x":                          "browsers send null",
		"*,https://app.example.com":         "remove the others",
		"*,*":                               "remove the others",
		"localhost":                         "has no scheme",
		"https://*":                         "wildcard",
		"capacitor://*":                     "list each by itself",
		"chrome-extension://*/":             "list each by itself",
		"capacitor://":                      "has no host",
		"capacitor:///":                     "has no host",
		"capacitor://localhost//":           "a path",
		"capacitor://localhost/app":         "a path",
		"capacitor://localhost?x":           "a query",
		"capacitor://secret@host":           "user info",
		`capacitor://local\host`:            "character",
		"capacitor://local host":            "character",
		"capacitor://l\u00f6calhost":        "character",
		"capacitor://%6c":                   "character",
		"cap_acitor://localhost":            "begin with a scheme",
		"1app://localhost":                  "begin with a scheme",
		"://localhost":                      "begin with a scheme",
		"app://" + strings.Repeat("x", 300): "longer than 300",
	} {
		b, err := origin.NewBrowsers(strings.Split(in, ","))
		if err == nil {
			t.Errorf("%q is taken", in)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q does not say %q", in, err, want)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error repeats a password: %q", in, err)
		}
		if b.Any() || b.Allows("https://app.example.com") {
			t.Errorf("%q allows something beside its error", in)
		}
	}
	_, err := origin.NewBrowsers([]string{"null", "capacitor://*", "https://*.com"})
	for _, want := range []string{"entry 1 is null", "entry 2 has a wildcard", "entry 3 would allow"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("not every mistake at once: %v", err)
		}
	}
}
