package devstack_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/resetd/resetd/impl/devstack"
)

const (
	legacyKey = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl"
	secretKey = "sb_secret_0123456789"
	mailKey   = "key-0123456789"
	domain    = "mg.example.com"
	site      = "https://app.example.com"
)

// clock is a time that a test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// rig is a stack whose parts all listen.
type rig struct {
	*devstack.Stack
	t                    *testing.T
	clock                *clock
	supa, mailgun, pages *httptest.Server
}

func newRig(t *testing.T, change func(*devstack.Config)) *rig {
	t.Helper()
	c := &clock{t: time.Date(2026, 11, 23, 15, 45, 8, 360404829, time.UTC)}
	cfg := devstack.Config{
		Accounts:          []string{"known1@example.com", "Mixed.Case@Example.com"},
		SiteURL:           site,
		RedirectAllowList: []string{"https://other.example.com/reset", "https://*.preview.example.com/**"},
		ServiceRoleKey:    legacyKey,
		MailgunKey:        mailKey,
		MailgunDomain:     domain,
		Now:               c.now,
	}
	if change != nil {
		change(&cfg)
	}
	s := devstack.New(cfg)
	r := &rig{Stack: s, t: t, clock: c, supa: httptest.NewServer(s.Supabase()), mailgun: httptest.NewServer(s.Mailgun()), pages: httptest.NewServer(s.Pages())}
	r.SetPublicAuthURL(r.supa.URL + "/auth/v1")
	t.Cleanup(func() {
		s.Close()
		r.supa.Close()
		r.mailgun.Close()
		r.pages.Close()
	})
	return r
}

// answer is a response with its body.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	return m
}

func (r *rig) do(method, url, body string, header ...string) answer {
	r.t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req) // a transport does not follow redirects
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(b)}
}

func (r *rig) generate(body string, header ...string) answer {
	r.t.Helper()
	if header == nil {
		header = []string{"Apikey", legacyKey, "Authorization", "Bearer " + legacyKey}
	}
	return r.do("POST", r.supa.URL+"/auth/v1/admin/generate_link", body, header...)
}

// link asks for a link of known1 and returns the answer's members.
func (r *rig) link() map[string]any {
	r.t.Helper()
	a := r.generate(`{"type":"recovery","email":"known1@example.com","redirect_to":"https://app.example.com/reset-password"}`)
	if a.status != 200 {
		r.t.Fatalf("status %d: %s", a.status, a.body)
	}
	return a.json(r.t)
}

func (r *rig) verify(hash string) answer {
	r.t.Helper()
	return r.do("POST", r.supa.URL+"/auth/v1/verify", `{"type":"recovery","token_hash":"`+hash+`"}`)
}

// recorded reads a recorded answer of a real Supabase Auth.
func recorded(t *testing.T, name string) answer {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "supabase-auth", name+".http"))
	if err != nil {
		t.Fatal(err)
	}
	head, body, ok := strings.Cut(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n\n")
	if !ok {
		t.Fatalf("%s has no body", name)
	}
	a := answer{header: http.Header{}, body: strings.TrimSpace(body)}
	for i, line := range strings.Split(head, "\n") {
		if i == 0 {
			fmt.Sscanf(line, "HTTP/1.1 %d", &a.status)
			continue
		}
		k, v, _ := strings.Cut(line, ": ")
		a.header.Add(k, v)
	}
	return a
}

var (
	hexToken  = regexp.MustCompile(`^[0-9a-f]{56}$`)
	uuidValue = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	jwtValue  = regexp.MustCompile(`^[\w-]+\.[\w-]+\.[\w-]+$`)
)

// shape replaces each value that differs between answers by a word for its kind.
func shape(path string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, member := range v {
			out[k] = shape(path+"/"+k, member)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = shape(path, v[i])
		}
		return out
	case float64:
		if strings.HasSuffix(path, "expires_at") {
			return "<unix seconds>"
		}
	case string:
		name := path[strings.LastIndex(path, "/")+1:]
		switch {
		case uuidValue.MatchString(v):
			return "<uuid>"
		case hexToken.MatchString(v):
			return "<token hash>"
		case name == "access_token" && (v == "<JWT>" || jwtValue.MatchString(v)):
			return "<jwt>"
		case name == "refresh_token" && regexp.MustCompile(`^[a-z0-9]{12}$`).MatchString(v):
			return "<refresh token>"
		case name == "email_otp" && regexp.MustCompile(`^[0-9]{6}$`).MatchString(v):
			return "<otp>"
		case name == "action_link":
			u, err := url.Parse(v)
			if err != nil || !hexToken.MatchString(u.Query().Get("token")) || !strings.HasSuffix(u.Path, "/verify") {
				return v
			}
			return "<base>/verify?" + strings.Replace(u.RawQuery, u.Query().Get("token"), "<token hash>", 1)
		case name == "email":
			return "<email>"
		}
		if _, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return "<time>"
		}
	}
	return v
}

// members returns the names of a JSON object's members in their order.
func members(t *testing.T, body string) []string {
	t.Helper()
	var names []string
	d := json.NewDecoder(strings.NewReader(body))
	d.Token()
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name.(string))
		var skip json.RawMessage
		if err := d.Decode(&skip); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

func headersOf(a answer) map[string]string {
	out := map[string]string{}
	for _, name := range []string{"Content-Type", "Vary", "X-Sb-Error-Code"} {
		out[name] = a.header.Get(name)
	}
	for _, name := range []string{"Sb-Auth-Refresh-Token-Prefix", "Sb-Auth-Session-Id", "Sb-Auth-User-Id"} {
		out[name] = fmt.Sprint(len(a.header.Get(name)))
	}
	return out
}

func sameAs(t *testing.T, got answer, name string) {
	t.Helper()
	want := recorded(t, name)
	if got.status != want.status {
		t.Errorf("%s: status %d, want %d: %s", name, got.status, want.status, got.body)
	}
	if diff := cmp.Diff(headersOf(want), headersOf(got)); diff != "" {
		t.Errorf("%s: headers (-recorded +ours):\n%s", name, diff)
	}
	if strings.HasPrefix(want.header.Get("Content-Type"), "application/json") {
		if diff := cmp.Diff(shape("", want.json(t)), shape("", got.json(t))); diff != "" {
			t.Errorf("%s: body (-recorded +ours):\n%s", name, diff)
		}
		if diff := cmp.Diff(members(t, want.body), members(t, got.body)); diff != "" {
			t.Errorf("%s: order of members (-recorded +ours):\n%s", name, diff)
		}
	}
	if want.header.Get("X-Sb-Error-Code") != "" && got.body != want.body {
		t.Errorf("%s: body %s, want exactly %s", name, got.body, want.body)
	}
}

func TestSupabaseAnswersAsRecorded(t *testing.T) {
	r := newRig(t, nil)
	sameAs(t, r.generate(`{"type":"recovery","email":"known1@example.com","redirect_to":"https://app.example.com/reset-password"}`), "200-known")
	sameAs(t, r.generate(`{"type":"recovery","email":"known1@example.com","redirect_to":"https://evil.example.net/reset"}`), "200-redirect-not-allowed")
	sameAs(t, r.generate(`{"type":"recovery","email":"nobody@example.com"}`), "404-unknown")
	sameAs(t, r.generate(`{"type":"recovery","email":"no address"}`), "400-bad-email")
	sameAs(t, r.generate(`{"type":"recovery","email":"`+strings.Repeat("a", 250)+`@example.com"}`), "400-long-email")
	sameAs(t, r.generate(`{"type":"recovery"`), "400-malformed-json")
	sameAs(t, r.generate(`{"type":"recovery","email":"known1@example.com"}`, "X-None", ""), "401-no-key")
	sameAs(t, r.generate(`{"type":"recovery","email":"known1@example.com"}`, "Apikey", "wrong", "Authorization", "Bearer wrong"), "403-bad-jwt")

	hash := r.link()["hashed_token"].(string)
	session := r.verify(hash)
	sameAs(t, session, "verify-post-200")
	sameAs(t, r.verify(hash), "verify-post-403-used")
	user := session.json(t)["access_token"].(string)
	sameAs(t, r.generate(`{"type":"recovery","email":"known1@example.com"}`, "Apikey", legacyKey, "Authorization", "Bearer "+user), "403-not-admin")

	link := r.link()["action_link"].(string)
	for _, name := range []string{"verify-get-303", "verify-get-303-used"} {
		got, want := r.do("GET", link, ""), recorded(t, name)
		sameAs(t, got, name)
		if diff := cmp.Diff(shapeFragment(t, want.header.Get("Location")), shapeFragment(t, got.header.Get("Location"))); diff != "" {
			t.Errorf("%s: Location (-recorded +ours):\n%s", name, diff)
		}
		if !strings.HasPrefix(got.body, `<a href="https://app.example.com/reset-password#`) || !strings.HasSuffix(got.body, "\">See Other</a>.\n\n") {
			t.Errorf("%s: body %q", name, got.body)
		}
	}
}

// TestBanned: a link is made for a banned account too, and opens nothing.
func TestBanned(t *testing.T) {
	r := newRig(t, func(c *devstack.Config) { c.Banned = []string{"known1@example.com"} })
	sameAs(t, r.generate(`{"type":"recovery","email":"known1@example.com","redirect_to":"https://app.example.com/reset-password"}`), "200-banned")
	link := r.link()
	sameAs(t, r.verify(link["hashed_token"].(string)), "verify-post-403-banned")
	sameAs(t, r.do("GET", link["action_link"].(string), ""), "verify-get-303-banned")
	if got := r.do("GET", link["action_link"].(string), ""); !strings.Contains(got.header.Get("Location"), "error_code=user_banned") {
		t.Errorf("it leads to %s", got.header.Get("Location"))
	}
}

// shapeFragment makes a Location comparable, and keeps the order of the fragment's members.
func shapeFragment(t *testing.T, location string) []string {
	t.Helper()
	target, fragment, ok := strings.Cut(location, "#")
	if !ok {
		t.Fatalf("no fragment in %q", location)
	}
	out := []string{target}
	for _, pair := range strings.Split(fragment, "&") {
		k, v, _ := strings.Cut(pair, "=")
		if k == "expires_at" {
			v = "<unix seconds>"
		}
		out = append(out, k+"="+fmt.Sprint(shape("/"+k, v)))
	}
	return out
}

func TestKeys(t *testing.T) {
	const body = `{"type":"recovery","email":"known1@example.com"}`
	bearer := func(key string) string { return "Bearer " + key }
	for _, tt := range []struct {
		name, key string
		header    []string
		status    int
		contains  string
	}{
		{name: "legacy, both", key: legacyKey, header: []string{"Apikey", legacyKey, "Authorization", bearer(legacyKey)}, status: 200, contains: "hashed_token"},
		{name: "legacy, apikey alone", key: legacyKey, header: []string{"Apikey", legacyKey}, status: 401, contains: "no_authorization"},
		{name: "legacy, Bearer alone", key: legacyKey, header: []string{"Authorization", bearer(legacyKey)}, status: 401, contains: "No API key found"},
		{name: "legacy, apikey wrong", key: legacyKey, header: []string{"Apikey", "x", "Authorization", bearer(legacyKey)}, status: 401, contains: "Invalid API key"},
		{name: "legacy, Basic", key: legacyKey, header: []string{"Apikey", legacyKey, "Authorization", "Basic " + legacyKey}, status: 401, contains: "no_authorization"},
		{name: "secret, apikey alone", key: secretKey, header: []string{"Apikey", secretKey}, status: 200, contains: "hashed_token"},
		{name: "secret, both", key: secretKey, header: []string{"Apikey", secretKey, "Authorization", bearer(secretKey)}, status: 401, contains: "Invalid API key"},
		{name: "secret, Bearer alone", key: secretKey, header: []string{"Authorization", bearer(secretKey)}, status: 401, contains: "Invalid API key"},
		{name: "secret, wrong", key: secretKey, header: []string{"Apikey", "sb_secret_other"}, status: 403, contains: "bad_jwt"},
		{name: "no key configured", key: "", header: []string{"Apikey", "x", "Authorization", bearer("x")}, status: 403, contains: "bad_jwt"},
		{name: "no key configured, none sent", key: "", header: []string{"X-None", ""}, status: 401, contains: "no_authorization"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(c *devstack.Config) { c.ServiceRoleKey = tt.key })
			a := r.generate(body, tt.header...)
			if a.status != tt.status || !strings.Contains(a.body, tt.contains) {
				t.Errorf("%d %s, want %d and %q", a.status, a.body, tt.status, tt.contains)
			}
		})
	}
}

func TestLookup(t *testing.T) {
	r := newRig(t, nil)
	a := r.generate(`{"type":"recovery","email":"mixed.CASE@example.COM"}`)
	if got := a.json(t)["email"]; got != "Mixed.Case@Example.com" {
		t.Errorf("email %v, want it as stored", got)
	}
	if a := r.generate(`{"type":"recovery","email":""}`); a.status != 400 || !strings.Contains(a.body, "required") {
		t.Errorf("empty email: %d %s", a.status, a.body)
	}
	if a := r.generate(`{"type":"nonsense","email":"known1@example.com"}`); a.status != 400 {
		t.Errorf("unknown type: %d %s", a.status, a.body)
	}
	if a := newRig(t, func(c *devstack.Config) { c.Accounts = []string{} }).generate(`{"type":"recovery","email":"hello@example.com"}`); a.status != 404 {
		t.Errorf("without accounts: %d", a.status)
	}
	if a := newRig(t, func(c *devstack.Config) { c.Accounts = nil }).generate(`{"type":"recovery","email":"hello@example.com"}`); a.status != 200 {
		t.Errorf("with the default accounts: %d", a.status)
	}
}

func TestLinkDies(t *testing.T) {
	used := func(t *testing.T, a answer) {
		t.Helper()
		if a.status != 403 || !strings.Contains(a.body, "otp_expired") {
			t.Errorf("%d %s, want 403 otp_expired", a.status, a.body)
		}
	}
	t.Run("by use", func(t *testing.T) {
		r := newRig(t, nil)
		l := r.link()
		if a := r.verify(l["hashed_token"].(string)); a.status != 200 {
			t.Fatal(a.status, a.body)
		}
		used(t, r.verify(l["hashed_token"].(string)))
		if a := r.do("GET", l["action_link"].(string), ""); !strings.Contains(a.header.Get("Location"), "otp_expired") {
			t.Error(a.header)
		}
	})
	t.Run("by the next link", func(t *testing.T) {
		r := newRig(t, nil)
		first, second := r.link(), r.link()
		used(t, r.verify(first["hashed_token"].(string)))
		if a := r.verify(second["hashed_token"].(string)); a.status != 200 {
			t.Error(a.status, a.body)
		}
	})
	t.Run("by age", func(t *testing.T) {
		r := newRig(t, func(c *devstack.Config) { c.LinkLifetime = 10 * time.Minute })
		l := r.link()
		r.clock.advance(10*time.Minute + time.Nanosecond)
		used(t, r.verify(l["hashed_token"].(string)))
		l = r.link()
		r.clock.advance(10 * time.Minute)
		if a := r.verify(l["hashed_token"].(string)); a.status != 200 {
			t.Error(a.status, a.body)
		}
	})
	t.Run("not by a refused request", func(t *testing.T) {
		r := newRig(t, nil)
		l := r.link()
		r.generate(`{"type":"recovery","email":"known1@example.com"}`, "Apikey", "wrong", "Authorization", "Bearer wrong")
		r.generate(`{"type":"nonsense","email":"known1@example.com"}`)
		r.do("HEAD", l["action_link"].(string), "")
		r.do("POST", r.supa.URL+"/auth/v1/verify", `{"type":"signup","token_hash":"`+l["hashed_token"].(string)+`"}`)
		if a := r.verify(l["hashed_token"].(string)); a.status != 200 {
			t.Error(a.status, a.body)
		}
	})
	t.Run("by use of the code", func(t *testing.T) {
		r := newRig(t, nil)
		l := r.link()
		body := fmt.Sprintf(`{"type":"recovery","email":"Known1@example.com","token":%q}`, l["email_otp"])
		if a := r.do("POST", r.supa.URL+"/auth/v1/verify", body); a.status != 200 {
			t.Error(a.status, a.body)
		}
		a := r.do("POST", r.supa.URL+"/auth/v1/verify", body)
		used(t, a)
		if !strings.Contains(a.body, "Token has expired or is invalid") {
			t.Error(a.body)
		}
	})
	t.Run("once for many at a time", func(t *testing.T) {
		r := newRig(t, nil)
		hash := r.link()["hashed_token"].(string)
		var wg sync.WaitGroup
		statuses := make([]int, 8)
		for i := range statuses {
			wg.Go(func() { statuses[i] = r.verify(hash).status })
		}
		wg.Wait()
		slices.Sort(statuses)
		if statuses[0] != 200 || statuses[1] != 403 {
			t.Error(statuses)
		}
	})
}

func TestVerifyRefusesNonsense(t *testing.T) {
	r := newRig(t, nil)
	for body, want := range map[string]string{
		`{"token_hash":"x"}`:              "Verify requires a verification type",
		`{"type":"recovery"}`:             "Verify requires either a token or a token hash",
		`{`:                               "bad_json",
		`{"type":"recovery","token":"1"}`: "Only an email address or phone number",
		`{"type":"recovery","token_hash":"x","email":"a@b.co"}`:            "Only the token_hash and type",
		`{"type":"nonsense","token_hash":"x"}`:                             "Invalid email verification type",
		`{"type":"recovery","token":"1","email":"no address"}`:             "Invalid email format",
		`{"type":"recovery","token":"1","token_hash":"x","email":"a@b.c"}`: "Verify requires either",
	} {
		if a := r.do("POST", r.supa.URL+"/auth/v1/verify", body); a.status/100 != 4 || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	for query, want := range map[string]string{"": "verification type", "type=recovery": "token or a token hash"} {
		if a := r.do("GET", r.supa.URL+"/auth/v1/verify?"+query, ""); a.status != 400 || !strings.Contains(a.body, want) {
			t.Errorf("%q: %d %s", query, a.status, a.body)
		}
	}
	a := r.do("GET", r.supa.URL+"/auth/v1/verify?type=recovery&token=x&redirect_to=https://evil.example.net/", "")
	if got := a.header.Get("Location"); !strings.HasPrefix(got, site+"#error=") {
		t.Errorf("Location %q leads off the allow-list", got)
	}
}

func TestRedirects(t *testing.T) {
	r := newRig(t, nil)
	for asked, want := range map[string]string{
		"":                                       site,
		site:                                     site,
		site + "/any/path?x=1":                   site + "/any/path?x=1",
		"http://app.example.com/reset":           site,
		"https://app.example.com:8443/":          site,
		"https://other.example.com/reset":        "https://other.example.com/reset",
		"https://other.example.com/reset#x":      "https://other.example.com/reset#x",
		"https://other.example.com/reset/more":   site,
		"https://a.preview.example.com/x/y":      "https://a.preview.example.com/x/y",
		"https://a.b.preview.example.com/x":      site,
		"https://a.preview.example.com.evil.com": site,
		"http://127.0.0.1:3000/reset":            "http://127.0.0.1:3000/reset",
		"http://10.0.0.1/":                       site,
		" https://app.example.com/":              site,
		"://":                                    site,
	} {
		body, _ := json.Marshal(map[string]string{"type": "recovery", "email": "known1@example.com", "redirect_to": asked})
		m := r.generate(string(body)).json(t)
		if m["redirect_to"] != want {
			t.Errorf("redirect_to %q became %q, want %q", asked, m["redirect_to"], want)
		}
		u, err := url.Parse(m["action_link"].(string))
		if err != nil || u.Query().Get("redirect_to") != want {
			t.Errorf("action_link %q does not lead to %q", m["action_link"], want)
		}
	}
	// supabase-js puts redirect_to into the query.
	a := r.do("POST", r.supa.URL+"/auth/v1/admin/generate_link?redirect_to=https://other.example.com/reset",
		`{"type":"recovery","email":"known1@example.com"}`, "Apikey", legacyKey, "Authorization", "Bearer "+legacyKey)
	if got := a.json(t)["redirect_to"]; got != "https://other.example.com/reset" {
		t.Error(got)
	}
	local := newRig(t, func(c *devstack.Config) { c.SiteURL = "http://localhost:3000" })
	m := local.generate(`{"type":"recovery","email":"known1@example.com","redirect_to":"http://localhost:5173/x"}`).json(t)
	if m["redirect_to"] != "http://localhost:5173/x" {
		t.Error("the port of a loopback host must not count:", m["redirect_to"])
	}
}

func TestActionLinkBase(t *testing.T) {
	r := newRig(t, nil)
	r.SetPublicAuthURL("")
	if got := r.link()["action_link"].(string); !strings.HasPrefix(got, r.supa.URL+"/auth/v1/verify?") {
		t.Error(got)
	}
	r.SetPublicAuthURL("https://auth.example.com/auth/v1/")
	if got := r.link()["action_link"].(string); !strings.HasPrefix(got, "https://auth.example.com/auth/v1/verify?") {
		t.Error(got)
	}
}

func TestUpdateUser(t *testing.T) {
	r := newRig(t, nil)
	put := func(token, body string) answer {
		t.Helper()
		header := []string{"X-None", ""}
		if token != "" {
			header = []string{"Authorization", "Bearer " + token}
		}
		return r.do("PUT", r.supa.URL+"/auth/v1/user", body, header...)
	}
	signIn := func() string {
		t.Helper()
		return r.verify(r.link()["hashed_token"].(string)).json(t)["access_token"].(string)
	}
	other, token := signIn(), signIn()
	for _, tt := range []struct {
		token, body string
		status      int
		contains    string
	}{
		{token: "", body: `{"password":"correct horse"}`, status: 401, contains: "no_authorization"},
		{token: "x", body: `{"password":"correct horse"}`, status: 403, contains: "bad_jwt"},
		{token: token, body: `{"password":`, status: 400, contains: "bad_json"},
		{token: token, body: `{"password":"short"}`, status: 422, contains: `"error_code":"weak_password","msg":"Password should be at least 6 characters.","weak_password":{"reasons":["length"]}`},
		{token: token, body: `{"password":"` + strings.Repeat("x", 73) + `"}`, status: 400, contains: "cannot be longer than 72"},
		{token: token, body: `{}`, status: 200, contains: "known1@example.com"},
	} {
		if a := put(tt.token, tt.body); a.status != tt.status || !strings.Contains(a.body, tt.contains) {
			t.Errorf("%s: %d %s", tt.body, a.status, a.body)
		}
		if got := r.Password("known1@example.com"); got != "" {
			t.Fatalf("%s set the password %q", tt.body, got)
		}
	}
	if a := put(token, `{"password":"correct horse"}`); a.status != 200 || a.json(t)["email"] != "known1@example.com" {
		t.Error(a.status, a.body)
	}
	if got := r.Password("KNOWN1@example.com"); got != "correct horse" {
		t.Errorf("password %q", got)
	}
	if a := put(token, `{"password":"correct horse"}`); a.status != 422 || !strings.Contains(a.body, "same_password") {
		t.Error(a.status, a.body)
	}
	if a := put(other, `{"password":"another horse"}`); a.status != 403 {
		t.Error("the new password must end the other session:", a.status, a.body)
	}
	r.clock.advance(time.Hour)
	if a := put(token, `{"password":"another horse"}`); a.status != 403 || !strings.Contains(a.body, "token is expired") {
		t.Error(a.status, a.body)
	}
}

func TestSupabaseElsewhere(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{"/", "/rest/v1/users", "/auth/v1/admin/users"} {
		if a := r.do("GET", r.supa.URL+path, ""); a.status != 404 || a.body != `{"message":"no Route matched with those values"}` {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := r.do("GET", r.supa.URL+"/auth/v1/health", ""); a.status != 401 {
		t.Error(a.status)
	}
	if a := r.do("GET", r.supa.URL+"/auth/v1/health", "", "Apikey", legacyKey); a.status != 200 || a.json(t)["name"] != "GoTrue" {
		t.Error(a.status, a.body)
	}
	if a := r.generate(strings.Repeat("x", 1<<20+1)); a.status != 413 { // a longer one is not read to its end
		t.Error(a.status)
	}
}

// form encodes name, value pairs as multipart/form-data.
func form(t *testing.T, pairs ...string) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		if err := w.WriteField(pairs[i], pairs[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return w.FormDataContentType(), b.String()
}

func message(change ...string) []string {
	m := []string{"from", "Acme <no-reply@mg.example.com>", "to", "hello@example.com", "subject", "Reset your password", "text", "Open https://app.example.com/x?y=1.", "html", "<p>Hi</p>"}
	for i := 0; i < len(change); i += 2 {
		if at := slices.Index(m, change[i]); at >= 0 {
			m[at+1] = change[i+1]
		} else {
			m = append(m, change[i], change[i+1])
		}
	}
	return m
}

func (r *rig) send(pairs ...string) answer {
	r.t.Helper()
	contentType, body := form(r.t, pairs...)
	return r.do("POST", r.mailgun.URL+"/v3/"+domain+"/messages", body, "Content-Type", contentType, "Authorization", basic("api", mailKey))
}

func basic(user, password string) string {
	req := &http.Request{Header: http.Header{}}
	req.SetBasicAuth(user, password)
	return req.Header.Get("Authorization")
}

func TestMailgunDelivers(t *testing.T) {
	r := newRig(t, nil)
	a := r.send(message("to", "Hello <hello@example.com>, ada@example.com", "h:Reply-To", "help@example.com", "o:tag", "a", "o:tracking", "no")...)
	var got struct{ ID, Message string }
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 {
		t.Fatal(a.status, a.body)
	}
	if !regexp.MustCompile(`^<20261123154508\.[0-9a-f]{16}@mg\.example\.com>$`).MatchString(got.ID) || got.Message != "Queued. Thank you." {
		t.Errorf("%+v", got)
	}
	mails := r.Mails()
	if len(mails) != 1 || len(r.TestMessages()) != 0 {
		t.Fatalf("%d mails, %d test messages", len(mails), len(r.TestMessages()))
	}
	want := devstack.Mail{
		ID: strings.TrimSuffix(strings.TrimPrefix(got.ID, "<"), "@mg.example.com>"), At: r.clock.now(),
		From: "Acme <no-reply@mg.example.com>", To: []string{"hello@example.com", "ada@example.com"},
		Subject: "Reset your password", Text: "Open https://app.example.com/x?y=1.", HTML: "<p>Hi</p>",
		Fields: map[string][]string{
			"from": {"Acme <no-reply@mg.example.com>"}, "to": {"Hello <hello@example.com>, ada@example.com"},
			"subject": {"Reset your password"}, "text": {"Open https://app.example.com/x?y=1."}, "html": {"<p>Hi</p>"},
			"h:Reply-To": {"help@example.com"}, "o:tag": {"a"}, "o:tracking": {"no"},
		},
	}
	if diff := cmp.Diff(want, mails[0]); diff != "" {
		t.Error(diff)
	}
	mails[0].Fields["to"][0] = "changed by the caller"
	if r.Mails()[0].Fields["to"][0] == "changed by the caller" {
		t.Error("Mails must return copies")
	}

	r.send(message("subject", "second")...)
	if got := r.Mails(); len(got) != 2 || got[0].Subject != "second" {
		t.Error("newest first:", got)
	}
	r.Reset()
	if len(r.Mails())+len(r.TestMessages())+len(r.Calls()) != 0 {
		t.Error("Reset left something")
	}
}

func TestMailgunURLEncoded(t *testing.T) {
	r := newRig(t, nil)
	a := r.do("POST", r.mailgun.URL+"/v3/"+domain+"/messages", url.Values{"from": {"a@b.co"}, "to": {"c@d.co"}, "subject": {"s"}, "text": {"t"}}.Encode(),
		"Content-Type", "application/x-www-form-urlencoded", "Authorization", basic("api", mailKey))
	if a.status != 200 || len(r.Mails()) != 1 {
		t.Error(a.status, a.body)
	}
}

func TestMailgunTestMode(t *testing.T) {
	r := newRig(t, nil)
	if a := r.send(message("o:testmode", "yes")...); a.status != 200 || !strings.Contains(a.body, "Queued. Thank you.") {
		t.Fatal(a.status, a.body)
	}
	if a := r.send(message("o:testmode", "no")...); a.status != 200 {
		t.Fatal(a.status, a.body)
	}
	if len(r.Mails()) != 1 || len(r.TestMessages()) != 1 {
		t.Errorf("%d mails, %d test messages", len(r.Mails()), len(r.TestMessages()))
	}
	calls := r.Calls()
	if len(calls) != 2 || !calls[0].TestMode || calls[1].TestMode {
		t.Errorf("%+v", calls)
	}
}

func TestMailgunRefuses(t *testing.T) {
	r := newRig(t, nil)
	without := func(names ...string) []string {
		m := message()
		for _, name := range names {
			at := slices.Index(m, name)
			m = slices.Delete(m, at, at+2)
		}
		return m
	}
	for _, tt := range []struct {
		name     string
		pairs    []string
		contains string
	}{
		{name: "no from", pairs: without("from"), contains: "'from' parameter is missing"},
		{name: "no to", pairs: without("to"), contains: "'to' parameter is missing"},
		{name: "empty to", pairs: message("to", ""), contains: "'to' parameter is missing"},
		{name: "no subject", pairs: without("subject"), contains: "'subject' parameter is missing"},
		{name: "no content", pairs: without("text", "html"), contains: "Need at least one of 'text' or 'html' parameters specified"},
		{name: "bad to", pairs: message("to", "no address"), contains: "'to' parameter is not a valid address. please check documentation"},
		{name: "one bad of two", pairs: message("to", "a@b.co, nope"), contains: "'to' parameter is not a valid address"},
		{name: "bad from", pairs: message("from", "nope"), contains: "'from' parameter is not a valid address"},
		{name: "bad cc", pairs: message("cc", "nope"), contains: "'cc' parameter is not a valid address"},
		{name: "options too long", pairs: message("v:a", strings.Repeat("x", 8<<10), "h:X-B", strings.Repeat("x", 8<<10)), contains: "16KB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.t = t
			a := r.send(tt.pairs...)
			if a.status != 400 || !strings.Contains(fmt.Sprint(a.json(t)["message"]), tt.contains) {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	r.t = t
	if a := r.send(message("v:a", strings.Repeat("x", 16<<10-3))...); a.status != 200 {
		t.Error("just 16 KB of options:", a.status, a.body)
	}
	r.Reset()

	contentType, body := form(t, message()...)
	path := r.mailgun.URL + "/v3/" + domain + "/messages"
	for _, tt := range []struct {
		name, url, contentType, auth, body string
		status                             int
		want                               string
	}{
		{name: "no key", url: path, contentType: contentType, auth: "", body: body, status: 401, want: "Forbidden"},
		{name: "wrong key", url: path, contentType: contentType, auth: basic("api", "x"), body: body, status: 401, want: "Forbidden"},
		{name: "wrong user", url: path, contentType: contentType, auth: basic("apikey", mailKey), body: body, status: 401, want: "Forbidden"},
		{
			name: "wrong domain", url: r.mailgun.URL + "/v3/other.example.com/messages", contentType: contentType, auth: basic("api", mailKey), body: body,
			status: 404, want: `{"message":"Domain not found: other.example.com"}`,
		},
		{name: "JSON", url: path, contentType: "application/json", auth: basic("api", mailKey), body: `{}`, status: 400, want: ""},
		{name: "cut off", url: path, contentType: contentType, auth: basic("api", mailKey), body: body[:len(body)/2], status: 400, want: ""},
		{name: "too large", url: path, contentType: contentType, auth: basic("api", mailKey), body: strings.Repeat("x", 25<<20+1), status: 413, want: ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.t = t
			a := r.do("POST", tt.url, tt.body, "Content-Type", tt.contentType, "Authorization", tt.auth)
			if a.status != tt.status || (tt.want != "" && a.body != tt.want) {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	if n := len(r.Mails()) + len(r.TestMessages()); n != 0 {
		t.Errorf("%d messages of refused requests were kept", n)
	}
}

func TestMailgunDomain(t *testing.T) {
	r := newRig(t, nil)
	for _, version := range []string{"v3", "v4"} {
		a := r.do("GET", r.mailgun.URL+"/"+version+"/domains/"+domain, "", "Authorization", basic("api", mailKey))
		if a.status != 200 || !strings.Contains(a.body, `"state":"active"`) {
			t.Error(a.status, a.body)
		}
		if a := r.do("GET", r.mailgun.URL+"/"+version+"/domains/x.com", "", "Authorization", basic("api", mailKey)); a.status != 404 {
			t.Error(a.status)
		}
		if a := r.do("GET", r.mailgun.URL+"/"+version+"/domains/"+domain, ""); a.status != 401 {
			t.Error(a.status)
		}
	}
}

func TestCallsAndFaults(t *testing.T) {
	broken := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", 503) })
	}
	r := newRig(t, func(c *devstack.Config) { c.SupabaseMiddleware, c.MailgunMiddleware = broken, broken })
	if a := r.generate(`{"type":"recovery","email":"Known1@example.com"}`); a.status != 503 {
		t.Error(a.status)
	}
	if a := r.send(message()...); a.status != 503 {
		t.Error(a.status)
	}
	calls := r.Calls()
	if len(calls) != 2 {
		t.Fatalf("%d calls", len(calls))
	}
	if c := calls[0]; c.Service != "supabase" || c.Method != "POST" || c.Path != "/auth/v1/admin/generate_link" || c.Email != "Known1@example.com" || !c.At.Equal(r.clock.now()) {
		t.Errorf("%+v", c)
	}
	if c := calls[1]; c.Service != "mailgun" || c.Path != "/v3/mg.example.com/messages" || !slices.Equal(c.To, []string{"hello@example.com"}) {
		t.Errorf("%+v", c)
	}
	if all := fmt.Sprint(calls); strings.Contains(all, legacyKey) || strings.Contains(all, basic("api", mailKey)) || !strings.Contains(all, "[redacted]") {
		t.Error("a key is in the record of calls")
	}
	if len(r.Mails()) != 0 {
		t.Error("a message was delivered through the fault")
	}
}

func TestInboxIsBounded(t *testing.T) {
	r := newRig(t, func(c *devstack.Config) { c.MaxMails = 3 })
	for i := range 5 {
		r.send(message("subject", fmt.Sprint(i))...)
		r.send(message("subject", fmt.Sprint(i), "o:testmode", "yes")...)
	}
	for _, box := range [][]devstack.Mail{r.Mails(), r.TestMessages()} {
		if len(box) != 3 || box[0].Subject != "4" || box[2].Subject != "2" {
			t.Errorf("%d kept, from %q to %q", len(box), box[0].Subject, box[len(box)-1].Subject)
		}
	}
}

func TestAtOnce(t *testing.T) {
	r := newRig(t, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 5 {
				r.generate(`{"type":"recovery","email":"known1@example.com"}`)
				r.send(message("subject", fmt.Sprint(i))...)
				r.do("GET", r.pages.URL+"/dev/inbox", "")
				r.Mails()
				r.Calls()
				r.SetPublicAuthURL("http://127.0.0.1:1/auth/v1")
			}
		})
	}
	wg.Wait()
	if len(r.Mails()) != 40 || len(r.Calls()) != 80 {
		t.Errorf("%d mails, %d calls", len(r.Mails()), len(r.Calls()))
	}
}

func TestInboxPage(t *testing.T) {
	r := newRig(t, func(c *devstack.Config) { c.APIURL = "http://localhost:8080/api/" })
	page := func(path string) answer {
		t.Helper()
		a := r.do("GET", r.pages.URL+path, "")
		if a.header.Get("Set-Cookie") != "" {
			t.Error("a cookie")
		}
		return a
	}
	contains := func(a answer, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(a.body, w) {
				t.Errorf("no %q in %d %s", w, a.status, a.body)
			}
		}
	}
	contains(page("/dev/inbox"), "curl -i http://localhost:8080/api/auth/send-password-reset", "known1@example.com", "data-empty")

	r.send(message("o:testmode", "yes", "subject", "A test message")...)
	a := page("/dev/inbox")
	contains(a, "Nothing was delivered", "An address without an account gets no mail", "Never delivered <b>1</b>")
	if strings.Contains(a.body, "A test message") {
		t.Error("a test message among the delivered")
	}
	contains(page("/dev/inbox?box=tests"), "A test message", "accepted in test mode, never delivered")

	r.send(message("subject", `<script>alert("s")</script>`, "text", `<b>t</b> https://app.example.com/x?y=1&z=2.`, "html", `<!doctype html><html><HEAD><title>x</title></head><script>1</script>`)...)
	id := r.Mails()[0].ID
	contains(page("/dev/inbox"), "&lt;script&gt;", "/dev/inbox?mail="+id)
	contains(page("/dev/inbox?mail="+id), `sandbox="allow-popups allow-popups-to-escape-sandbox"`, `src="/dev/inbox/`+id+`/html"`, `aria-current="true"`)
	contains(page("/dev/inbox?mail="+id+"&view=text"), `&lt;b&gt;t&lt;/b&gt; <a href="https://app.example.com/x?y=1&amp;z=2" target="_blank" rel="noopener noreferrer">https://app.example.com/x?y=1&amp;z=2</a>.`)
	contains(page("/dev/inbox?mail="+id+"&view=fields"), "<dt>subject</dt>")
	if a := page("/dev/inbox?mail=none"); a.status != 404 || !strings.Contains(a.body, "gone") {
		t.Error(a.status)
	}
	if csp := page("/dev/inbox").header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; script-src 'self';") || strings.Contains(csp, "unsafe") {
		t.Error(csp)
	}

	a = page("/dev/inbox/" + id + "/html")
	contains(a, `<!doctype html><html><HEAD><base target="_blank"><title>`)
	csp := a.header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "script-src") || !strings.HasSuffix(csp, "sandbox allow-popups allow-popups-to-escape-sandbox") {
		t.Error(csp)
	}
	if a := page("/dev/inbox/none/html"); a.status != 404 {
		t.Error(a.status)
	}

	var list struct {
		Mails        []devstack.Mail
		TestMessages []devstack.Mail `json:"tests"`
	}
	if err := json.Unmarshal([]byte(page("/dev/inbox.json").body), &list); err != nil || len(list.Mails) != 1 || len(list.TestMessages) != 1 || list.Mails[0].ID != id {
		t.Error(err, list)
	}
	for _, asset := range []string{"dev.css", "inbox.js", "preview.js", "reset.js", "icon.svg"} {
		if a := page("/dev/assets/" + asset); a.status != 200 || a.body == "" {
			t.Error(asset, a.status)
		}
	}
	if a := page("/dev/assets/inbox.html"); a.status != 404 {
		t.Error("the templates are served:", a.status)
	}
	if a := page("/dev/"); a.status != 302 || a.header.Get("Location") != "/dev/inbox" {
		t.Error(a.status, a.header)
	}
}

func TestPagesHosts(t *testing.T) {
	r := newRig(t, func(c *devstack.Config) { c.PublicHosts = []string{"devbox.internal"} })
	for host, ok := range map[string]bool{
		"localhost": true, "localhost:8025": true, "LOCALHOST.:1": true, "127.0.0.1:8025": true, "[::1]:8025": true, "[::1]": true,
		"devbox.internal": true, "DevBox.Internal:80": true,
		"evil.example.com": false, "127.0.0.1.evil.example.com": false, "10.0.0.1": false, "localhost.evil.com:80": false,
	} {
		if a := r.do("GET", r.pages.URL+"/dev/inbox", "", "Host", host); (a.status == 200) != ok {
			t.Errorf("Host %q: %d", host, a.status)
		}
	}
	// A form on another site.
	a := r.do("POST", r.pages.URL+"/dev/reset-password", "access_token=x", "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "cross-site")
	if a.status != 403 || strings.Contains(a.body, "<html") {
		t.Error(a.status, a.body)
	}
}

// stream reads the inbox's events.
func (r *rig) stream(query string) (next func() map[string]any) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	r.t.Cleanup(cancel)
	req, _ := http.NewRequestWithContext(ctx, "GET", r.pages.URL+"/dev/inbox/events"+query, nil)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { res.Body.Close() })
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		r.t.Fatal(got)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	return func() map[string]any {
		r.t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return answer{body: data}.json(r.t)
			}
		}
		return nil
	}
}

func TestEvents(t *testing.T) {
	r := newRig(t, nil)
	delivered, tests := r.stream(""), r.stream("?box=tests")
	for _, next := range []func() map[string]any{delivered, tests} {
		if e := next(); e["delivered"] != 0.0 || e["tests"] != 0.0 || !strings.Contains(e["html"].(string), "No ") {
			t.Fatal(e)
		}
	}
	r.send(message("subject", "Arrived by itself")...)
	if e := delivered(); e["delivered"] != 1.0 || !strings.Contains(e["html"].(string), "Arrived by itself") {
		t.Fatal(e)
	}
	if e := tests(); e["delivered"] != 1.0 || strings.Contains(e["html"].(string), "Arrived by itself") {
		t.Fatal(e)
	}
	// After a burst, the last event shows all of it, however many events there are.
	for range 10 {
		r.send(message("o:testmode", "yes", "subject", "burst")...)
	}
	for {
		e := tests()
		if e == nil {
			t.Fatal("the stream ended")
		}
		if e["tests"] == 10.0 {
			if n := strings.Count(e["html"].(string), "burst"); n != 10 {
				t.Errorf("%d rows", n)
			}
			break
		}
	}
	r.Close()
	for delivered() != nil {
	}
}

// TestResetPage: the page uses the link up when the form is submitted, and not before.
func TestResetPage(t *testing.T) {
	tokenField := regexp.MustCompile(`name="access_token" id="access_token" value="([^"]+)"`)
	r := newRig(t, nil)
	page := r.pages.URL + "/dev/reset-password"
	post := func(fields url.Values) answer {
		return r.do("POST", page, fields.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	}
	hash := r.link()["hashed_token"].(string)
	link := page + "?type=recovery&token_hash=" + hash
	for range 2 { // a mail scanner, and a person
		a := r.do("GET", link, "")
		if a.status != 200 || !strings.Contains(a.body, "Choose a new password") || !strings.Contains(a.body, `value="`+hash+`"`) || !strings.Contains(a.body, "mail scanners") {
			t.Fatal(a.status, a.body)
		}
	}
	a := post(url.Values{"type": {"recovery"}, "token_hash": {hash}, "password": {"short"}})
	token := tokenField.FindStringSubmatch(a.body)
	if a.status != 422 || !strings.Contains(a.body, "at least 6 characters") || token == nil || !strings.Contains(a.body, "known1@example.com") {
		t.Fatal(a.status, a.body)
	}
	if strings.Contains(a.body, hash) {
		t.Error("the token is used up, and still in the form")
	}
	if a := post(url.Values{"type": {"recovery"}, "token_hash": {hash}, "password": {"correct horse"}}); a.status != 403 || !strings.Contains(a.body, "This link is invalid or has expired") {
		t.Error("the link works twice:", a.status)
	}
	if a := post(url.Values{"access_token": {"x"}, "password": {"correct horse"}}); a.status != 403 || !strings.Contains(a.body, "invalid or has expired") {
		t.Error(a.status)
	}
	if a := post(url.Values{"access_token": {token[1]}, "password": {"correct horse"}}); a.status != 303 || a.header.Get("Location") != "/dev/reset-password?done" {
		t.Error(a.status, a.body)
	}
	if got := r.Password("known1@example.com"); got != "correct horse" {
		t.Errorf("password %q", got)
	}
	if a := r.do("GET", page+"?done", ""); !strings.Contains(a.body, "Your password is changed") {
		t.Error(a.status)
	}
	if a := r.do("GET", page, ""); a.status != 200 || !strings.Contains(a.body, "/dev/assets/reset.js") {
		t.Error(a.status)
	}
	if csp := a.header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || a.header.Get("Referrer-Policy") != "no-referrer" {
		t.Error(csp)
	}
	for _, call := range r.Calls() {
		if call.Path != "/auth/v1/admin/generate_link" {
			t.Errorf("the page's own %s %s is among the calls", call.Method, call.Path)
		}
	}
}

// TestResetPageElsewhere: with AuthURL the page uses links of another Supabase Auth, sends AuthKey in the
// header apikey, and shows why that Auth refuses a password.
func TestResetPageElsewhere(t *testing.T) {
	other := newRig(t, func(c *devstack.Config) { c.PublishableKey = "sb_publishable_other" })
	for _, c := range []struct {
		name, url, key string
		status         int
		says           string
	}{
		{name: "the right key", url: other.supa.URL + "/auth/v1", key: "sb_publishable_other", status: 303, says: ""},
		{name: "another key", url: other.supa.URL + "/auth/v1", key: "sb_publishable_x", status: 422, says: "Invalid API key"},
		{name: "nothing listens", url: "http://127.0.0.1:1/auth/v1", key: "", status: 422, says: "Supabase Auth does not answer."},
		{name: "something else there", url: other.pages.URL + "/auth/v1", key: "", status: 422, says: "Supabase Auth answers 404."},
	} {
		r := newRig(t, func(config *devstack.Config) { config.AuthURL, config.AuthKey = c.url, c.key })
		fields := url.Values{"type": {"recovery"}, "token_hash": {other.link()["hashed_token"].(string)}, "password": {"correct horse"}}
		a := r.do("POST", r.pages.URL+"/dev/reset-password", fields.Encode(), "Content-Type", "application/x-www-form-urlencoded")
		if a.status != c.status || !strings.Contains(a.body, c.says) {
			t.Errorf("%s: %d %s", c.name, a.status, a.body)
		}
	}
	if got := other.Password("known1@example.com"); got != "correct horse" {
		t.Errorf("password %q", got)
	}
}

// TestSession: a session can do what apps do around a new password: ask who is signed in, refresh the session,
// sign out, and sign in again with the password.
func TestSession(t *testing.T) {
	const key = "sb_publishable_test"
	r := newRig(t, func(c *devstack.Config) { c.PublishableKey = key })
	call := func(method, path, token, body string) answer {
		t.Helper()
		return r.do(method, r.supa.URL+"/auth/v1"+path, body, "Apikey", key, "Authorization", "Bearer "+token)
	}
	expect := func(what string, a answer, status int, contains string) {
		t.Helper()
		if a.status != status || !strings.Contains(a.body, contains) {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	const login = `{"email":"Known1@example.com","password":"correct horse"}`
	expect("no password yet", call("POST", "/token?grant_type=password", key, login), 400, `"error_code":"invalid_credentials"`)
	session := r.verify(r.link()["hashed_token"].(string)).json(t)
	first, refresh := session["access_token"].(string), session["refresh_token"].(string)
	expect("who", call("GET", "/user", first, ""), 200, `"email":"known1@example.com"`)
	for _, c := range []struct{ name, key, says string }{
		{name: "no key", key: "", says: "No API key found in request"},
		{name: "another key", key: "sb_publishable_x", says: "Invalid API key"},
	} {
		for _, path := range []string{"GET /user", "PUT /user", "POST /token", "POST /logout"} {
			method, path, _ := strings.Cut(path, " ")
			header := []string{"Authorization", "Bearer " + first}
			if c.key != "" {
				header = append(header, "Apikey", c.key)
			}
			expect(c.name+" for "+path, r.do(method, r.supa.URL+"/auth/v1"+path, "{}", header...), 401, c.says)
		}
	}
	expect("the password", call("PUT", "/user", first, `{"password":"correct horse"}`), 200, "known1")

	again := call("POST", "/token?grant_type=refresh_token", key, `{"refresh_token":"`+refresh+`"}`)
	expect("on", again, 200, `"access_token"`)
	expect("on, twice", call("POST", "/token?grant_type=refresh_token", key, `{"refresh_token":"`+refresh+`"}`), 400, `"error_code":"refresh_token_not_found"`)
	second := again.json(t)["access_token"].(string)
	in := call("POST", "/token?grant_type=password", key, login)
	expect("in", in, 200, `"access_token"`)
	third := in.json(t)["access_token"].(string)
	expect("a wrong password", call("POST", "/token?grant_type=password", key, strings.Replace(login, "horse", "mouse", 1)), 400, `"error_code":"invalid_credentials"`)
	expect("no address", call("POST", "/token?grant_type=password", key, `{}`), 400, `"error_code":"validation_failed"`)
	expect("another grant", call("POST", "/token?grant_type=x", key, `{}`), 400, "unsupported_grant_type")

	expect("out, the others", call("POST", "/logout?scope=others", third, ""), 204, "")
	expect("the other is out", call("GET", "/user", second, ""), 403, "bad_jwt")
	expect("this one is not", call("GET", "/user", third, ""), 200, "known1")
	expect("out", call("POST", "/logout?scope=global", third, ""), 204, "")
	expect("out, twice", call("POST", "/logout", third, ""), 403, "bad_jwt")
	expect("nobody", r.do("GET", r.supa.URL+"/auth/v1/user", "", "Apikey", key), 401, "no_authorization")
}

// TestCORS: pages of every origin may call with all headers that they name, and read every answer, also
// refusals. The admin endpoint still requires the key.
func TestCORS(t *testing.T) {
	r := newRig(t, nil)
	const wanted = "apikey,authorization,content-type,x-client-info,x-supabase-api-version"
	a := r.do("OPTIONS", r.supa.URL+"/auth/v1/verify", "", "Origin", "http://localhost:3000", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", wanted)
	if a.status != 204 || a.header.Get("Access-Control-Allow-Origin") != "*" || a.header.Get("Access-Control-Allow-Headers") != wanted || !strings.Contains(a.header.Get("Access-Control-Allow-Methods"), "PUT") {
		t.Error(a.status, a.header)
	}
	if calls := r.Calls(); len(calls) != 0 {
		t.Error("a preflight is a call:", calls)
	}
	for _, path := range []string{"/auth/v1/verify", "/auth/v1/user", "/auth/v1/admin/generate_link", "/auth/v1/none"} {
		a := r.do("POST", r.supa.URL+path, `{"type":"recovery","email":"known1@example.com"}`, "Origin", "http://localhost:3000")
		if a.status < 400 || a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Error(path, a.status, a.header)
		}
	}
	if a := r.do("POST", r.supa.URL+"/auth/v1/verify", `{}`); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("without an origin:", a.header)
	}
}

// TestPreview: the preview shows the mail as a list and as a mail program would, in the chosen language, look
// and brand, and renders it again each time; or it says why the mail cannot be rendered. Without
// Config.Preview there is no such page.
func TestPreview(t *testing.T) {
	const html = `<!doctype html><html><head><title>no</title><meta name="color-scheme" content="light dark"><style>:root { color-scheme: light dark; } @media (prefers-color-scheme: dark) { a { color: red } }</style></head><body>
		<!-- no --><div style="display:none">First words &amp; more.&#847;&zwnj;&nbsp;&#847;&zwnj;&nbsp;&#847;&zwnj;&nbsp;</div><p>Hello</p></body></html>`
	if a := newRig(t, nil).preview(""); a.status != 404 {
		t.Error("without a preview:", a.status)
	}
	words, mistake := "Subject", error(nil)
	r := newRig(t, func(c *devstack.Config) {
		c.Preview = &devstack.Preview{
			Languages: func() []string { return []string{"en", "fr"} },
			Settings:  []devstack.PreviewSetting{{Name: "BRAND_NAME", Value: "Acme"}, {Name: "BRAND_COLOR"}},
			Write: func(language string, settings map[string]string) (devstack.Mail, error) {
				return devstack.Mail{
					From: settings["BRAND_NAME"] + " <no-reply@mg.example.com>", HTML: html, Text: "See https://app.example.com/x.",
					Subject: words + " in " + language + " of " + settings["BRAND_NAME"] + settings["BRAND_COLOR"],
				}, mistake
			},
		}
	})
	contains := func(a answer, status int, want ...string) {
		t.Helper()
		for _, w := range want {
			if a.status != status || !strings.Contains(a.body, w) {
				t.Errorf("no %q in %d %s", w, a.status, a.body)
			}
		}
	}
	contains(r.do("GET", r.pages.URL+"/dev/inbox", ""), 200, `<a href="/dev/preview">Preview</a>`)
	contains(r.preview(""), 200, `<b dir="auto">Acme</b>`, `<span class="subject">Subject in en of Acme</span> <span class="snippet">First words &amp; more.</span>`,
		`<option value="en" selected>`, `value="Acme"`, `sandbox="allow-popups allow-popups-to-escape-sandbox"`)
	contains(r.preview("?language=fr&look=dark&width=phone&BRAND_NAME=%3Cb%3E&BRAND_COLOR=%23112233"), 200,
		"Subject in fr of &lt;b&gt;#112233", `<option value="dark" selected>`, `class="narrow"`, "language=fr&amp;look=dark", "As it is set", `<details open>`)
	contains(r.preview("?language=xx&part=text"), 200, "Subject in en of Acme", `<a href="https://app.example.com/x" target="_blank"`)

	look := func(query string) answer { return r.do("GET", r.pages.URL+"/dev/preview/html"+query, "") }
	a := look("?look=dark")
	contains(a, 200, "<head><base target=\"_blank\">", `content="dark"`, "color-scheme: dark;", "@media (min-width: 0) {")
	contains(look(""), 200, `content="light"`, "color-scheme: light;", "@media (max-width: 0) {")
	if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "script-src") || !strings.Contains(csp, "; sandbox ") {
		t.Error(csp)
	}
	before := look("").header.Get("X-Version")
	if head := r.do("HEAD", r.pages.URL+"/dev/preview/html", ""); before == "" || head.header.Get("X-Version") != before || !strings.Contains(r.preview("").body, before) {
		t.Error("one mail has several versions:", before, head.header.Get("X-Version"))
	}
	words = "Edited"
	if after := look("").header.Get("X-Version"); after == before {
		t.Error("an edited mail has the same version")
	}
	mistake = errors.New("TEMPLATES_DIR: one <b>\nTEMPLATES_DIR: two")
	contains(r.preview(""), 200, "The mail cannot be written", "<li>TEMPLATES_DIR: one &lt;b&gt;</li>", "<li>TEMPLATES_DIR: two</li>")
	contains(look(""), 422, "mistakes")
}

func (r *rig) preview(query string) answer {
	r.t.Helper()
	return r.do("GET", r.pages.URL+"/dev/preview"+query, "")
}

// TestSnippet: the list shows what mail programs show beside a subject: the preheader, or else the first words.
func TestSnippet(t *testing.T) {
	r := newRig(t, nil)
	for _, c := range []struct{ html, text, want string }{
		{html: "", text: "Hello,\n\nit is I.", want: "Hello, it is I."},
		{html: "<p>Hello,</p><p>it is &lt;I&gt;</p>", text: "other", want: "Hello, it is &lt;I&gt;"},
		{html: "<style>p{}</style><p>   </p><div>One.\u034f\u200c \u034f\u200c \u034f\u200c </div><p>Two</p>", text: "", want: "One."},
		{html: "<p>\u034f\u200c \u034f\u200c \u034f\u200c</p><p>Two</p>", text: "", want: "Two"},
		{html: "<p>" + strings.Repeat("ي", 300) + "</p>", text: "", want: strings.Repeat("ي", 200)},
	} {
		r.Reset()
		r.send(message("html", c.html, "text", c.text)...)
		if page := r.do("GET", r.pages.URL+"/dev/inbox", "").body; !strings.Contains(page, `<span class="snippet" dir="auto">`+c.want+`</span>`) {
			t.Errorf("%.60q has not the snippet %.60q: %s", c.html, c.want, page)
		}
	}
}

// TestImportsNoOtherRoom: the stand-ins import only the standard library, so that they share no mistake with
// the rooms under test.
func TestImportsNoOtherRoom(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(source, []byte(`"github.com/`)) {
			t.Errorf("%s imports more than the standard library", file)
		}
	}
}
