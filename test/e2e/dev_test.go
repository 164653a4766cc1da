package e2e

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/devstack"
	"github.com/resetd/resetd/test/resetdtest"
)

// startDev runs `resetd dev` until the test ends, and returns its address and its output.
func startDev(t *testing.T, env map[string]string) (address string, printed *resetdtest.Log) {
	t.Helper()
	all := map[string]string{"LISTEN_ADDR": "localhost:0", "LOG_FORMAT": "json"}
	maps.Copy(all, env)
	var environ []string
	for name, value := range all {
		environ = append(environ, name+"="+value)
	}
	p := resetdtest.Run(t, environ, resetdtest.Build(t), "dev")
	return "http://localhost" + p.URL[strings.LastIndexByte(p.URL, ':'):], p.Log
}

// get follows no redirect, and returns the answer with its body.
func get(t *testing.T, method, address, body string, header ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

// mailTo requests a mail from resetd dev, and returns its link.
func mailTo(t *testing.T, address, email, callback string) string {
	t.Helper()
	before := strings.Count(inboxOf(t, address), `"subject"`)
	question, _ := json.Marshal(map[string]string{"email": email, "callback_origin": callback})
	if response, text := get(t, http.MethodPost, address+endpoint, string(question), "Content-Type", "application/json"); response.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", response.StatusCode, text)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if inbox := inboxOf(t, address); strings.Count(inbox, `"subject"`) > before {
			link := regexp.MustCompile(`https?://[^\\"\s]*token_hash=[0-9a-f]{56}(&|\\u0026)type=recovery`).FindString(inbox)
			return strings.ReplaceAll(link, `\u0026`, "&")
		}
	}
	t.Fatal("no mail came")
	return ""
}

// inboxOf returns the delivered mails as JSON, without test messages.
func inboxOf(t *testing.T, address string) string {
	t.Helper()
	var inbox struct{ Mails json.RawMessage }
	_, text := get(t, http.MethodGet, address+"/dev/inbox.json", "")
	if err := json.Unmarshal([]byte(text), &inbox); err != nil {
		t.Fatal(err)
	}
	return string(inbox.Mails)
}

// mayCall says whether a browser lets a page of an origin call.
func mayCall(t *testing.T, address, origin string) bool {
	t.Helper()
	response, _ := get(t, http.MethodOptions, address+endpoint, "", "Origin", origin,
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type")
	return response.Header.Get("Access-Control-Allow-Origin") != ""
}

// TestLoopbackOrigins: in dev, links lead to every port of this machine, and its pages may call, whatever the
// settings say; other origins are refused. serve allows only listed origins.
func TestLoopbackOrigins(t *testing.T) {
	t.Parallel()
	origins := []string{"http://localhost:3000", "http://127.0.0.1:8081", "http://[::1]:5173", "https://localhost:3000"}
	others := []string{"http://localhost.evil.example", "http://evil.localhost:3000", "https://evil.example"}

	settings := map[string]string{"SITE_URL": site, "CORS_ORIGINS": site, "CALLBACK_ORIGINS": preview}
	address, _ := startDev(t, settings)
	for _, origin := range append(origins, site, preview) {
		if link := mailTo(t, address, "hello@example.com", origin); !strings.HasPrefix(link, origin+"/reset-password?") {
			t.Errorf("dev: for %s the link is %s", origin, link)
		}
		if origin != preview && !mayCall(t, address, origin) {
			t.Errorf("dev: pages of %s may not call", origin)
		}
	}
	for _, origin := range append(others, preview) {
		if mayCall(t, address, origin) {
			t.Errorf("dev: pages of %s may call", origin)
		}
	}
	for _, origin := range others {
		if link := mailTo(t, address, "hello@example.com", origin); !strings.HasPrefix(link, site+"/") {
			t.Errorf("dev: for %s the link is %s", origin, link)
		}
	}
	rejecting, _ := startDev(t, map[string]string{"CALLBACK_ORIGIN_POLICY": "reject"})
	mailTo(t, rejecting, "hello@example.com", origins[0])
	if response, _ := get(t, http.MethodPost, rejecting+endpoint, `{"email":"hello@example.com","callback_origin":"https://evil.example"}`, "Content-Type", "application/json"); response.StatusCode != http.StatusBadRequest {
		t.Errorf("dev, rejecting: %d", response.StatusCode)
	}

	f := start(t, resetdtest.Config{})
	strict := start(t, resetdtest.Config{Settings: map[string]string{"CALLBACK_ORIGIN_POLICY": "reject"}})
	for _, origin := range append(origins, others...) {
		if mayCall(t, f.URL, origin) {
			t.Errorf("serve: pages of %s may call", origin)
		}
		question := `{"email":"` + knownEmail + `","callback_origin":"` + origin + `"}`
		if a := f.Post(question, nil); a.Status != http.StatusOK {
			t.Errorf("serve: %d %s", a.Status, a.Raw)
		}
		f.Settle()
		if text := f.Stack.Mails()[0].Text; !strings.Contains(text, site+"/reset-password?") || strings.Contains(text, origin) {
			t.Errorf("serve: for %s the mail says %s", origin, text)
		}
		if a := strict.Post(question, nil); a.Status != http.StatusBadRequest {
			t.Errorf("serve, rejecting %s: %d %s", origin, a.Status, a.Raw)
		}
	}
}

// TestDevWithSupabase: with SUPABASE_URL the accounts and links are those of that Supabase. The page of dev uses a
// link when its form is submitted, and mails are only in the inbox.
func TestDevWithSupabase(t *testing.T) {
	t.Parallel()
	other := devstack.New(devstack.Config{
		Accounts: []string{"their@example.com"}, SiteURL: "http://127.0.0.1:3000",
		ServiceRoleKey: "their-service-role-key", PublishableKey: "their-anon-key",
	})
	t.Cleanup(other.Close)
	supabase := httptest.NewServer(other.Supabase())
	t.Cleanup(supabase.Close)
	address, printed := startDev(t, map[string]string{"SUPABASE_URL": supabase.URL, "SUPABASE_SERVICE_ROLE_KEY": "their-service-role-key"})

	link := mailTo(t, address, "their@example.com", address)
	if !strings.HasPrefix(link, address+"/reset-password?token_hash=") {
		t.Fatalf("the link is %s", link)
	}
	opened, _ := get(t, http.MethodGet, link, "")
	if to := opened.Header.Get("Location"); opened.StatusCode != http.StatusFound || !strings.HasPrefix(to, "/dev/reset-password?token_hash=") || opened.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", opened.StatusCode, opened.Header)
	}
	get(t, http.MethodGet, address+opened.Header.Get("Location"), "")
	parsed, _ := url.Parse(link)
	form := parsed.Query()
	form.Set("password", "correct horse")
	saved, text := get(t, http.MethodPost, address+"/dev/reset-password", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	if saved.StatusCode != http.StatusSeeOther || other.Password("their@example.com") != "correct horse" {
		t.Errorf("%d %s; the password is %q", saved.StatusCode, text, other.Password("their@example.com"))
	}

	said := printed.String()
	if !strings.Contains(said, supabase.URL+"/auth/v1, which are real") || strings.Contains(said, "their-service-role-key") || strings.Contains(said, "supabase-js") || strings.Contains(said, "Accounts") ||
		!strings.Contains(said, "an address that has an account there") {
		t.Errorf("it prints %s", said)
	}
	if response, _ := get(t, http.MethodGet, address+"/auth/v1/user", ""); response.StatusCode != http.StatusNotFound {
		t.Errorf("the stand-in answers although there is a real one: %d", response.StatusCode)
	}
	if inbox, _ := get(t, http.MethodGet, address+"/dev/inbox", ""); inbox.StatusCode != http.StatusOK {
		t.Errorf("the inbox: %d", inbox.StatusCode)
	}
}

// TestDevResetPaths: the page that stands in for the app's is at RESET_PATH, whatever that is.
func TestDevResetPaths(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/reset-password", "/a/{b}", "/dev/reset-password"} {
		address, _ := startDev(t, map[string]string{"RESET_PATH": path})
		link := mailTo(t, address, "hello@example.com", "")
		response, err := http.Get(link)
		if err != nil {
			t.Fatal(err)
		}
		page, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusOK || !strings.Contains(string(page), "Choose a new password") {
			t.Errorf("%s: %d", link, response.StatusCode)
		}
	}
}
