package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/resetd/resetd/test/resetdtest"
)

// fetch gets a path, and follows no redirect.
func (f *fixture) fetch(method, path string) (*http.Response, []byte) {
	f.t.Helper()
	request, err := http.NewRequest(method, f.URL+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	client := *f.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(request)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return response, body
}

// TestDocsPage: the API reference is one answer under a strict policy, and loads nothing else.
func TestDocsPage(t *testing.T) {
	f := start(t, resetdtest.Config{})
	response, page := f.fetch(http.MethodGet, "/api/docs")
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/html; charset=UTF-8" {
		t.Fatalf("%s, %s", response.Status, response.Header.Get("Content-Type"))
	}
	_, rest, opened := bytes.Cut(page, []byte("<style>"))
	style, rest, closed := bytes.Cut(rest, []byte("</style>"))
	if !opened || !closed || bytes.Contains(rest, []byte("<style")) {
		t.Fatal("the page has not one style")
	}
	digest := sha256.Sum256(style)
	want := map[string]string{
		"default-src": "'none'", "style-src": "'sha256-" + base64.StdEncoding.EncodeToString(digest[:]) + "'", "img-src": "data:",
		"base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
	}
	got := map[string]string{}
	for directive := range strings.SplitSeq(response.Header.Get("Content-Security-Policy"), ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), " ")
		got[name] = value
	}
	if !maps.Equal(got, want) {
		t.Errorf("Content-Security-Policy is %v, want %v", got, want)
	}
	if got := response.Header.Get("Referrer-Policy"); got != "no-referrer" {
		t.Errorf("Referrer-Policy is %q", got)
	}
	if len(page) > 40<<10 {
		t.Errorf("the page has %d bytes: too many for a phone on a slow line", len(page))
	}
	for _, status := range slices.Sorted(maps.Keys(resetdtest.Document().Paths.Find("/auth/send-password-reset").Post.Responses.Map())) {
		if !bytes.Contains(page, []byte(`id="sendPasswordReset-`+status+`"`)) {
			t.Errorf("%s is not on the page", status)
		}
	}

	head, nothing := f.fetch(http.MethodHead, "/api/docs")
	if head.StatusCode != http.StatusOK || len(nothing) != 0 || head.ContentLength != int64(len(page)) {
		t.Errorf("HEAD: %s with %d bytes of %d", head.Status, len(nothing), head.ContentLength)
	}
	for _, name := range []string{"Content-Security-Policy", "Content-Type", "Referrer-Policy"} {
		if head.Header.Get(name) != response.Header.Get(name) {
			t.Errorf("HEAD: %s is %q", name, head.Header.Get(name))
		}
	}
}

// TestDocsRoutes: the page has one path, with or without a slash at the end. Its links work whatever a proxy puts
// before /api.
func TestDocsRoutes(t *testing.T) {
	f := start(t, resetdtest.Config{})
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		slash, _ := f.fetch(method, "/api/docs/")
		if slash.StatusCode != http.StatusPermanentRedirect || slash.Header.Get("Location") != "../docs" {
			t.Errorf("%s /api/docs/: %s to %q", method, slash.Status, slash.Header.Get("Location"))
		}
	}
	for _, path := range []string{"/api/docs/page.html", "/api/docs/docs/page.html", "/api/docs/../server.go", "/api/docs/%2e%2e/server.go", "/api/docs/x/", "/docs", "/api/docs.html"} {
		response, body := f.fetch(http.MethodGet, path)
		if response.StatusCode != http.StatusNotFound || !bytes.Contains(body, []byte(`"not_found"`)) {
			t.Errorf("%s: %s %s", path, response.Status, body)
		}
		if policy := response.Header.Get("Content-Security-Policy"); policy != "" {
			t.Errorf("%s: the policy of the page: %q", path, policy)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		for _, path := range []string{"/api/docs", "/api/docs/"} {
			response, body := f.fetch(method, path)
			allowed := strings.Split(response.Header.Get("Allow"), ", ")
			slices.Sort(allowed)
			if response.StatusCode != http.StatusMethodNotAllowed || !slices.Equal(allowed, []string{"GET", "HEAD", "OPTIONS"}) || !bytes.Contains(body, []byte(`"method_not_allowed"`)) {
				t.Errorf("%s %s: %s, Allow: %v: %s", method, path, response.Status, allowed, body)
			}
		}
	}
}

// TestDocsOff: with API_DOCS=off there is no page. A value other than on and off stops the start.
func TestDocsOff(t *testing.T) {
	f := start(t, resetdtest.Config{Settings: map[string]string{"API_DOCS": "off"}})
	for _, path := range []string{"/api/docs", "/api/docs/"} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			if response, _ := f.fetch(method, path); response.StatusCode != http.StatusNotFound {
				t.Errorf("%s %s: %s", method, path, response.Status)
			}
		}
	}
	if response, _ := f.fetch(http.MethodGet, "/api/openapi.json"); response.StatusCode != http.StatusOK {
		t.Errorf("/api/openapi.json: %s", response.Status)
	}
}

// TestDocsCountNothing: reading the page does not count for the limit of the operation.
func TestDocsCountNothing(t *testing.T) {
	f := start(t, resetdtest.Config{Settings: map[string]string{"RATE_LIMIT": "1-D"}})
	for range 5 {
		response, _ := f.fetch(http.MethodGet, "/api/docs")
		if response.StatusCode != http.StatusOK || response.Header.Get("RateLimit") != "" {
			t.Fatalf("%s, RateLimit: %q", response.Status, response.Header.Get("RateLimit"))
		}
	}
	if a := f.Ask(knownEmail); a.Status != http.StatusOK {
		t.Errorf("after reading the page five times: %d %s", a.Status, a.Raw)
	}
	if a := f.Ask(knownEmail); a.Status != http.StatusTooManyRequests {
		t.Errorf("the second request: %d %s", a.Status, a.Raw)
	}
	if response, _ := f.fetch(http.MethodGet, "/api/docs"); response.StatusCode != http.StatusOK {
		t.Errorf("the page, for a limited client: %s", response.Status)
	}
}
