package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/resetd/resetd/impl"
)

// TestDocumentedExample: the request of the published documentation is answered 200, and its
// mail leads to SITE_URL.
func TestDocumentedExample(t *testing.T) {
	f := start(t, setup{})
	got := f.post(`{"email":"known@example.com","callback_origin":"example"}`, nil)
	if got.status != http.StatusOK || !got.body.Ok || got.body.Message != impl.Acknowledgment {
		t.Fatalf("%d %s", got.status, got.raw)
	}
	mails := f.stack.Mails()
	if len(mails) != 1 {
		t.Fatalf("%d mails, want 1", len(mails))
	}
	if want := site + "/reset-password?token_hash="; !strings.Contains(mails[0].Text, want) {
		t.Errorf("the mail does not lead to %s:\n%s", want, mails[0].Text)
	}
}

// TestWhoIsMailed: the stored address gets the mail, whatever spelling was asked for (H2).
func TestWhoIsMailed(t *testing.T) {
	f := start(t, setup{})
	for asked, stored := range map[string]string{
		"KNOWN@Example.COM": knownEmail, "upper@example.com": "UPPER@example.com",
	} {
		f.stack.Reset()
		if got := f.ask(asked); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", asked, got.status, got.raw)
		}
		if mails := f.stack.Mails(); len(mails) != 1 || len(mails[0].To) != 1 || mails[0].To[0] != stored {
			t.Errorf("%s: %v, want one mail to %s", asked, mails, stored)
		}
	}
}

// TestStoredAddress: an account whose stored address is not exactly one address gets no mail,
// and neither does anyone else.
func TestStoredAddress(t *testing.T) {
	t.Parallel()
	for _, stored := range []string{
		"", "a@b.co, evil@x.yz", "Evil <evil@x.yz>", "evil@x.yz\r\nBcc: more@x.yz", "known@example.com ", "no address",
		"a@b.co;evil@x.yz", "<evil@x.yz>",
	} {
		f := start(t, setup{supabase: editAnswer(func(answer map[string]any) { answer["email"] = stored })})
		if got := f.ask(knownEmail); got.status != http.StatusOK {
			t.Errorf("%q: %d %s", stored, got.status, got.raw)
		}
		if mails := f.stack.Mails(); len(mails) != 0 {
			t.Errorf("%q: mailed %v", stored, mails[0].To)
		}
		if logs := f.logs.records(t, "request"); len(logs) != 1 || logs[0]["outcome"] != "undelivered" || logs[0]["level"] != "ERROR" {
			t.Errorf("%q: logged %v", stored, logs)
		}
	}
}

// TestUnusableLinks: a 200 of Supabase Auth counts only with a usable link.
func TestUnusableLinks(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(map[string]any){
		"no token":          func(a map[string]any) { delete(a, "hashed_token") },
		"a token to escape": func(a map[string]any) { a["hashed_token"] = `x"><script>alert(1)</script>&a=b` },
		"a long token":      func(a map[string]any) { a["hashed_token"] = strings.Repeat("a", 5000) },
		"no link":           func(a map[string]any) { delete(a, "action_link") },
		"a script":          func(a map[string]any) { a["action_link"] = "javascript:alert(1)" },
		"another kind":      func(a map[string]any) { a["verification_type"] = "signup" },
		"another form":      func(a map[string]any) { a["email"] = []string{knownEmail} },
	} {
		f := start(t, setup{supabase: editAnswer(edit)})
		if got := f.ask(knownEmail); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", name, got.status, got.raw)
		}
		if mails := f.stack.Mails(); len(mails) != 0 {
			t.Errorf("%s: mailed %s", name, mails[0].Text)
		}
	}
}

// editAnswer changes the 200s of Supabase Auth.
func editAnswer(edit func(map[string]any)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			recorder := httptest.NewRecorder()
			next.ServeHTTP(recorder, r)
			body := recorder.Body.Bytes()
			var answer map[string]any
			if recorder.Code == http.StatusOK && json.Unmarshal(body, &answer) == nil {
				edit(answer)
				body, _ = json.Marshal(answer)
			}
			w.WriteHeader(recorder.Code)
			_, _ = w.Write(body)
		})
	}
}

// TestCallbackOrigins: the link leads to an allowed origin and to nothing else (H3), by either
// policy; package origin has the table of attacks.
func TestCallbackOrigins(t *testing.T) {
	allowed := map[string]string{"": site, site: site, "HTTPS://APP.example.com:443": site, preview: preview}
	refused := []string{
		"example", "https://evil.example", "https://app.example.com.evil.example", "http://app.example.com",
		"https://app.example.com@evil.example", "//evil.example", "javascript:alert(1)", "https://app.example.com/path",
		"https://a.b.preview.example.com", "https://preview.example.com", "https://app.example.com\\@evil.example",
		"https://app.example.com\r\nX: y", "null",
	}
	link := func(t *testing.T, f *fixture) string {
		t.Helper()
		mails := f.stack.Mails()
		if len(mails) != 1 {
			t.Fatalf("%d mails", len(mails))
		}
		found := regexp.MustCompile(`(?m)^https?://\S+$`).FindString(mails[0].Text)
		return strings.TrimSuffix(found, found[max(strings.Index(found, "/reset-password"), 0):])
	}
	ask := func(f *fixture, callback string) answer {
		body, _ := json.Marshal(map[string]string{"email": knownEmail, "callback_origin": callback})
		return f.post(string(body), nil)
	}
	t.Run("fallback", func(t *testing.T) {
		f := start(t, setup{})
		for _, callback := range refused {
			f.stack.Reset()
			if got := ask(f, callback); got.status != http.StatusOK || link(t, f) != site {
				t.Errorf("%q: %d, led to %q", callback, got.status, link(t, f))
			}
		}
		for callback, want := range allowed {
			f.stack.Reset()
			if got := ask(f, callback); got.status != http.StatusOK || link(t, f) != want {
				t.Errorf("%q: %d, led to %q, want %q", callback, got.status, link(t, f), want)
			}
		}
	})
	t.Run("reject", func(t *testing.T) {
		f := start(t, setup{env: map[string]string{"CALLBACK_ORIGIN_POLICY": "reject"}})
		for _, callback := range refused {
			got := ask(f, callback)
			if got.status != http.StatusBadRequest || got.body.Code != "invalid_request" || got.body.FieldErrors["callback_origin"] != "This origin is not allowed." {
				t.Errorf("%q: %d %s", callback, got.status, got.raw)
			}
		}
		got := f.post(`{"email":"nonsense","callback_origin":"https://evil.example"}`, nil)
		if len(got.body.FieldErrors) != 2 {
			t.Errorf("not every fault at once: %s", got.raw)
		}
		if calls := f.stack.Calls(); len(calls) != 0 {
			t.Errorf("%d calls for rejected requests", len(calls))
		}
		for callback, want := range allowed {
			f.stack.Reset()
			if got := ask(f, callback); got.status != http.StatusOK || link(t, f) != want {
				t.Errorf("%q: %d, led to %q, want %q", callback, got.status, link(t, f), want)
			}
		}
	})
}

// TestMessage: what Mailgun is told about the mail, and its decoy, which differs only in its
// recipient, its token and the test mode.
func TestMessage(t *testing.T) {
	f := start(t, setup{env: map[string]string{
		"MAIL_FROM": "Example App <no-reply@example.com>", "MAIL_REPLY_TO": "help@example.com", "BRAND_NAME": "Example",
	}})
	f.ask(knownEmail)
	f.ask(unknownEmail)
	mails, decoys := f.stack.Mails(), f.stack.Decoys()
	if len(mails) != 1 || len(decoys) != 1 {
		t.Fatalf("%d mails, %d decoys", len(mails), len(decoys))
	}
	want := map[string]string{
		"from": "Example App <no-reply@example.com>", "to": knownEmail, "subject": "Reset your Example password",
		"o:tag": "password-reset", "o:tracking": "no", "o:tracking-clicks": "no", "o:tracking-opens": "no",
		"o:require-tls": "true", "h:Reply-To": "help@example.com", "h:Auto-Submitted": "auto-generated",
	}
	check := func(kind string, fields map[string][]string, want map[string]string) {
		for name, value := range want {
			if got := fields[name]; len(got) != 1 || got[0] != value {
				t.Errorf("%s: %s is %q, want %q", kind, name, got, value)
			}
		}
		for name := range fields {
			if _, known := want[name]; !known && name != "text" && name != "html" {
				t.Errorf("%s: there is a field %s=%q", kind, name, fields[name])
			}
		}
	}
	check("mail", mails[0].Fields, want)
	want["to"], want["o:testmode"] = "no-reply@example.com", "yes"
	check("decoy", decoys[0].Fields, want)

	token := regexp.MustCompile(`[0-9a-f]{56}`)
	for name, pair := range map[string][2]string{"text": {mails[0].Text, decoys[0].Text}, "html": {mails[0].HTML, decoys[0].HTML}} {
		if token.ReplaceAllString(pair[0], "T") != token.ReplaceAllString(pair[1], "T") {
			t.Errorf("the decoy's %s differs by more than the token", name)
		}
		if pair[0] == pair[1] {
			t.Errorf("the decoy's %s carries the same token", name)
		}
	}
}

// TestKeys: each kind of key goes into the headers that want it, and into no others.
func TestKeys(t *testing.T) {
	for key, bearer := range map[string]bool{"a.service.jwt": true, "sb_secret_abc": false} {
		var got http.Header
		f := start(t, setup{
			env: map[string]string{"SUPABASE_SERVICE_ROLE_KEY": "", "SUPABASE_SECRET_KEY": key},
			supabase: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Clone() })
			},
		})
		f.ask(unknownEmail)
		if got.Get("apikey") != key {
			t.Errorf("%s: apikey is %q", key, got.Get("apikey"))
		}
		if want := map[bool]string{true: "Bearer " + key}[bearer]; got.Get("Authorization") != want {
			t.Errorf("%s: Authorization is %q, want %q", key, got.Get("Authorization"), want)
		}
	}
}

// TestActionLinks: in LINK_MODE=action_link the mail carries Supabase's own link, and a decoy
// one of the same form.
func TestActionLinks(t *testing.T) {
	f := start(t, setup{env: map[string]string{"LINK_MODE": "action_link"}})
	f.ask(knownEmail)
	f.ask(unknownEmail)
	mails, decoys := f.stack.Mails(), f.stack.Decoys()
	if len(mails) != 1 || len(decoys) != 1 {
		t.Fatalf("%d mails, %d decoys", len(mails), len(decoys))
	}
	form := regexp.MustCompile(`(?m)^http://127\.0\.0\.1:\d+/auth/v1/verify\?token=[0-9a-f]{56}&type=recovery&redirect_to=https://app\.example\.com/reset-password$`)
	for kind, text := range map[string]string{"mail": mails[0].Text, "decoy": decoys[0].Text} {
		if !form.MatchString(text) {
			t.Errorf("no action link in the %s:\n%s", kind, text)
		}
	}
	if len(mails[0].Text) != len(decoys[0].Text) || len(mails[0].HTML) != len(decoys[0].HTML) {
		t.Error("the decoy has another length")
	}
}

// TestRedirectReplaced: Supabase's silent replacement of a redirect is the operator's to know.
func TestRedirectReplaced(t *testing.T) {
	f := start(t, setup{env: map[string]string{"CALLBACK_ORIGINS": "https://new.example.net"}})
	if got := f.post(`{"email":"known@example.com","callback_origin":"https://new.example.net"}`, nil); got.status != http.StatusOK {
		t.Fatal(got.raw)
	}
	record := f.logs.records(t, "request")[0]
	if record["level"] != "WARN" || !strings.Contains(fmt.Sprint(record["notices"]), "redirect_replaced") {
		t.Errorf("logged %v", record)
	}
	if got := f.metric("resetd_notices_total", `notice="redirect_replaced"`); got != 1 {
		t.Errorf("counted %v", got)
	}
	if mails := f.stack.Mails(); len(mails) != 1 || !strings.Contains(mails[0].Text, "https://new.example.net/reset-password?token_hash=") {
		t.Errorf("mails %v", mails)
	}
}

// TestClientLimit: a refusal is documented, reaches nothing behind it, and counts every
// request, valid or not.
func TestClientLimit(t *testing.T) {
	f := start(t, setup{env: map[string]string{"RATE_LIMIT": "3-M,100-H"}})
	f.ask(knownEmail)
	f.post("nonsense", nil)
	f.post("{}", map[string]string{"Content-Type": "text/plain"})
	calls := len(f.stack.Calls())
	for _, body := range []string{`{"email":"known@example.com"}`, "nonsense", strings.Repeat("x", 1<<20)} {
		got := f.post(body, nil)
		seconds, err := strconv.Atoi(got.header.Get("Retry-After"))
		if got.status != http.StatusTooManyRequests || got.body.Code != "rate_limited" || err != nil ||
			seconds < 1 || seconds > 60 || got.body.RetryAfter != float64(seconds) {
			t.Errorf("%d %v %s", got.status, got.header, got.raw)
		}
		if !strings.Contains(got.header.Get("RateLimit"), `"per-minute";r=0`) {
			t.Errorf("RateLimit is %q", got.header.Get("RateLimit"))
		}
	}
	if after := len(f.stack.Calls()); after != calls {
		t.Errorf("%d calls for refused requests", after-calls)
	}
	if got := f.do(newRequest(t, http.MethodGet, f.url+"/healthz")); got.status != http.StatusOK {
		t.Errorf("/healthz is limited too: %d", got.status)
	}
}

// TestUnconfigured: what is missing is answered as the contract says, to everyone alike.
func TestUnconfigured(t *testing.T) {
	for missing, want := range map[string]struct {
		status int
		code   string
	}{
		"SUPABASE_URL":              {500, "auth_not_configured"},
		"SUPABASE_SERVICE_ROLE_KEY": {500, "auth_not_configured"},
		"SITE_URL":                  {500, "auth_not_configured"},
		"MAILGUN_API_KEY":           {502, "email_delivery_failed"},
		"MAILGUN_DOMAIN":            {502, "email_delivery_failed"},
	} {
		f := start(t, setup{env: map[string]string{missing: "", "CALLBACK_ORIGINS": ""}})
		for _, email := range []string{knownEmail, unknownEmail} {
			if got := f.ask(email); got.status != want.status || got.body.Code != want.code {
				t.Errorf("without %s: %d %s", missing, got.status, got.raw)
			}
		}
		if got := f.post("{}", nil); got.status != http.StatusBadRequest {
			t.Errorf("without %s: validation comes later: %d", missing, got.status)
		}
		if calls := f.stack.Calls(); len(calls) != 0 {
			t.Errorf("without %s: %d calls", missing, len(calls))
		}
		response, err := http.Get(f.admin + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), missing) {
			t.Errorf("without %s: /readyz says %d %s", missing, response.StatusCode, body)
		}
	}
}

// TestCORS: browsers on allowed origins may call and read the answer; others may not.
func TestCORS(t *testing.T) {
	f := start(t, setup{})
	for origin, allowed := range map[string]bool{
		site: true, preview: true, "https://evil.example": false, "null": false, "http://app.example.com": false,
		"https://app.example.com.evil.example": false,
	} {
		preflight := newRequest(t, http.MethodOptions, f.url+endpoint)
		preflight.Header.Set("Origin", origin)
		preflight.Header.Set("Access-Control-Request-Method", "POST")
		preflight.Header.Set("Access-Control-Request-Headers", "content-type")
		for kind, got := range map[string]answer{
			"preflight": f.do(preflight),
			"request":   f.post(`{"email":"known@example.com"}`, map[string]string{"Origin": origin}),
			"error":     f.post(`{}`, map[string]string{"Origin": origin}),
		} {
			want := map[bool]string{true: origin}[allowed]
			if header := got.header.Get("Access-Control-Allow-Origin"); header != want {
				t.Errorf("%s from %s: Access-Control-Allow-Origin is %q", kind, origin, header)
			}
			if got.header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s from %s: credentials are allowed", kind, origin)
			}
			if exposed := got.header.Get("Access-Control-Expose-Headers"); allowed && kind != "preflight" && !strings.Contains(exposed, "Retry-After") {
				t.Errorf("%s from %s: exposed are %q", kind, origin, exposed)
			}
		}
	}
}

// TestRequestID: taken over if it is short and plain, and made here otherwise.
func TestRequestID(t *testing.T) {
	f := start(t, setup{})
	for id, taken := range map[string]bool{
		"abc-DEF_123": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "a b": false, "<script>": false, "ä": false,
	} {
		got := f.post(`{}`, map[string]string{"X-Request-Id": id}).header.Get("X-Request-Id")
		if (got == id) != taken || got == "" {
			t.Errorf("%q became %q", id, got)
		}
	}
}

// TestRecordOfRefusal: the log says what decided a 400, in names of the document's.
func TestRecordOfRefusal(t *testing.T) {
	f := start(t, setup{env: map[string]string{"CALLBACK_ORIGIN_POLICY": "reject"}})
	for body, want := range map[string]string{
		`{"email":"nonsense","callback_origin":"https://evil.example"}`: `"code":"invalid_request",.*"fields":\["email","callback_origin"\]`,
		`{"email":"known@example.com","Callback_Origin":""}`:            `"code":"invalid_request",.*"fields":\["callback_origin"\]`,
		`{}`: `"code":"invalid_request",.*"fields":\["email"\]`,
		`[]`: `"code":"invalid_request","client":"[0-9a-f]+"}`,
		`{`:  `"code":"invalid_json","client":"[0-9a-f]+"}`,
	} {
		id := f.post(body, nil).header.Get("X-Request-Id")
		f.logs.await(t, `"request_id":"`+id+`".*`+want)
	}
}

func newRequest(t testing.TB, method, url string) *http.Request {
	t.Helper()
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

// metric reads one sample of /metrics.
func (f *fixture) metric(name, labels string) float64 {
	f.t.Helper()
	found := regexp.MustCompile(`(?m)^` + name + `\{` + regexp.QuoteMeta(labels) + `\} (\S+)$`).FindStringSubmatch(f.metricsText())
	if found == nil {
		f.t.Fatalf("no %s{%s}", name, labels)
	}
	value, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		f.t.Fatal(err)
	}
	return value
}
