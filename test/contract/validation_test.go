package contract

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

// TestAddresses: requests are accepted exactly for the addresses that Supabase Auth stores. The tables are sent to
// the real endpoint, so that no layer is looser or stricter than the rule.
func TestAddresses(t *testing.T) {
	t.Parallel()
	odd := []string{"a..b@docomo.example", ".a@b.co", "a.@b.co", strings.Repeat("l", 65) + "@b.co", strings.Repeat("l", 255-len("@example.com")) + "@example.com"}
	f := start(t, resetdtest.Config{Accounts: odd})
	label63 := strings.Repeat("a", 63)
	longest := odd[len(odd)-1]
	for _, good := range append([]string{
		"hello@example.com", "o'brien@example.co.uk", "te~st@example.com", "UPPER@EXAMPLE.COM",
		"customer/department=shipping@example.com", "!#$%&'*+-/=?^_`{|}~@example.com",
		"first.last@example.com", "a@b.co", "user+tag@example.com", "1@2.3", "x@localhost",
		"x@xn--bcher-kva.example", "x@a-b.example", "x@" + label63 + ".com", ".@b.co", "...@b.co",
	}, odd...) {
		if got := f.Ask(good); got.Status != http.StatusOK {
			t.Errorf("%q: %d %s", good, got.Status, got.Raw)
		}
	}
	for _, bad := range []string{
		"", "plain", "@", "a@", "@b.co", "a@@b.co", "a@b@c.co", "a b@c.co", " a@b.co", "a@b.co ", "a@ b.co",
		"\"quoted\"@example.com", "\"a b\"@example.com", "a@[127.0.0.1]", "a@[IPv6:::1]",
		"a@.b.co", "a@b.co.", "a@b..co", "a@-b.co", "a@b-.co", "a@b_c.co",
		"a@b.co,c@d.co", "a@b.co;c@d.co", "a@b.co, c@d.co", "Foo <a@b.co>", "<a@b.co>", "a@b.co (comment)", "a(c)@b.co",
		"a@b.co\r\nBcc: evil@x.yz", "a@b.co\nX: y", "a\x00@b.co", "a@b.co\x00", "a\t@b.co", "a\x7f@b.co", "a@b.co\u2028",
		"ä@example.com", "a@exämple.com", "a@example。com", "ａ@example.com", "a@b.co\u200b", "\u212a@example.com",
		"a:b@c.co", "a\\b@c.co", "mailto:a@b.co", "a@b.co:25", "a@b.co/x", "a@b.co?x", "a@b%63.co",
		"x@" + label63 + "a.com", longest + "b", "l" + longest, "\"a..b\"@docomo.example",
	} {
		got := f.Ask(bad)
		if got.Status != http.StatusBadRequest || got.Body.Code != "invalid_request" ||
			got.Body.FieldErrors["email"] != "Enter a valid email address." || len(got.Body.Issues) != 1 {
			t.Errorf("%q: %d %s", bad, got.Status, got.Raw)
		}
	}
	f.Settle()
	mails := map[string]int{}
	for _, mail := range f.Stack.Mails() {
		mails[strings.Join(mail.To, ",")]++
	}
	for _, account := range append(odd, "UPPER@example.com") {
		if mails[account] != 1 {
			t.Errorf("%s has %d mails", account, mails[account])
		}
		delete(mails, account)
	}
	if len(mails) > 0 {
		t.Errorf("mailed without an account: %v", mails)
	}
}

// TestBodies: an invalid request gets the documented body, and reaches no upstream.
func TestBodies(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{})
	const (
		email  = `"email":"known@example.com"`
		object = "Send a JSON object."
		value  = "Send exactly one JSON value."
	)
	type want struct {
		code   string
		fields map[string]string
		issues []string // path: message
	}
	invalid := func(message string) want { return want{code: "invalid_json", issues: []string{": " + message}} }
	field := func(pairs ...string) want {
		w := want{code: "invalid_request", fields: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			w.fields[pairs[i]] = pairs[i+1]
			w.issues = append(w.issues, pairs[i]+": "+pairs[i+1])
		}
		return w
	}
	whole := want{code: "invalid_request", issues: []string{": " + object}}
	for name, test := range map[string]struct {
		body string
		want want
	}{
		"empty":                 {"", invalid(value)},
		"white space":           {" \n", invalid(value)},
		"no JSON":               {"email=known@example.com", invalid(value)},
		"truncated":             {`{` + email, invalid(value)},
		"trailing junk":         {`{` + email + `}x`, invalid(value)},
		"second value":          {`{` + email + `}{` + email + `}`, invalid(value)},
		"trailing comma":        {`{` + email + `,}`, invalid(value)},
		"byte order mark":       {"\ufeff{" + email + `}`, invalid(value)},
		"not UTF-8":             {"{\"email\":\"a\xff@b.co\"}", invalid("Send the body in UTF-8.")},
		"UTF-16":                {"{\x00\"\x00", invalid(value)},
		"twice":                 {`{` + email + `,` + email + `}`, invalid("Send no member twice.")},
		"twice, escaped":        {`{` + email + `,"\u0065mail":"evil@x.yz"}`, invalid("Send no member twice.")},
		"twice, further in":     {`{` + email + `,"x":[{"a":1,"a":2}]}`, invalid("Send no member twice.")},
		"too deep":              {`{` + email + `,"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, invalid("Nest no deeper than 32 levels.")},
		"absurdly deep":         {strings.Repeat("[", 16000), invalid("Nest no deeper than 32 levels.")},
		"null":                  {`null`, whole},
		"array":                 {`[{` + email + `}]`, whole},
		"string":                {`"known@example.com"`, whole},
		"number":                {`1e400`, whole},
		"true":                  {`true`, whole},
		"nothing in it":         {`{}`, field("email", "Enter your email address.")},
		"email null":            {`{"email":null}`, field("email", "Enter your email address.")},
		"email a number":        {`{"email":7}`, field("email", "Enter your email address as text.")},
		"email an object":       {`{"email":{"a":1}}`, field("email", "Enter your email address as text.")},
		"callback a number":     {`{` + email + `,"callback_origin":1}`, field("callback_origin", "Send the origin as text.")},
		"callback null":         {`{` + email + `,"callback_origin":null}`, field("callback_origin", "Send the origin as text, or leave it out.")},
		"both at once":          {`{"email":"x","callback_origin":[]}`, field("callback_origin", "Send the origin as text.", "email", "Enter a valid email address.")},
		"missing and wrong":     {`{"callback_origin":false}`, field("callback_origin", "Send the origin as text.", "email", "Enter your email address.")},
		"other case only":       {`{"EMAIL":"known@example.com"}`, want{code: "invalid_request", fields: map[string]string{"email": `Spell this member "email", in lower case.`}, issues: []string{`email: Spell this member "email", in lower case.`, "email: Enter your email address."}}},
		"other case too":        {`{` + email + `,"EMAIL":"evil@x.yz"}`, field("email", `Spell this member "email", in lower case.`)},
		"other case, by a sign": {`{` + email + `,"callbac\u212a_origin":"https://evil.example"}`, field("callback_origin", `Spell this member "callback_origin", in lower case.`)},
	} {
		t.Run(name, func(t *testing.T) {
			got := f.Post(test.body, nil)
			var issues []string
			for _, issue := range got.Body.Issues {
				issues = append(issues, issue.Path+": "+issue.Message)
			}
			if got.Status != http.StatusBadRequest || got.Body.Code != test.want.code ||
				fmt.Sprint(issues) != fmt.Sprint(test.want.issues) || fmt.Sprint(got.Body.FieldErrors) != fmt.Sprint(test.want.fields) {
				t.Errorf("%d %s\nwant %+v", got.Status, got.Raw, test.want)
			}
		})
	}
	if calls := f.Stack.Calls(); len(calls) != 0 {
		t.Errorf("upstreams were called %d times", len(calls))
	}
}

// TestBodiesThatPass: unknown members are ignored, and escapes have their meaning.
func TestBodiesThatPass(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"email":"known@example.com","captcha":{"token":[1,2,{"a":null}]}}`,
		`{"email":"known\u0040example.com"}`,
		" \r\n\t{ \"email\" : \"known@example.com\" } \n",
		`{"email":"known@example.com","callback_origin":""}`,
		`{"email":"known@example.com","a":{"a":1},"b":{"a":1}}`,
		`{"email":"known@example.com","callback_origin":"` + strings.Repeat("x", 15000) + `"}`,
	} {
		t.Run(body[:min(len(body), 80)], func(t *testing.T) {
			t.Parallel()
			f := start(t, resetdtest.Config{})
			if got := f.Post(body, nil); got.Status != http.StatusOK {
				t.Errorf("%d %s", got.Status, got.Raw)
			}
			f.Settle()
			if mails := f.Stack.Mails(); len(mails) != 1 || mails[0].To[0] != knownEmail {
				t.Errorf("mails %v", mails)
			}
		})
	}
}

// TestMediaTypes: application/json, with any parameters, and nothing else.
func TestMediaTypes(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{})
	body := `{"email":"known@example.com"}`
	for mediaType, want := range map[string]int{
		"application/json": 200, "application/json; charset=utf-8": 200, "Application/JSON": 200,
		"application/json;charset=UTF-8": 200, " application/json ": 200, "application/json; charset=iso-8859-1": 200,
		"": 415, "text/plain": 415, "application/x-www-form-urlencoded": 415, "multipart/form-data; boundary=x": 415,
		"application/jsonp": 415, "application/json-patch+json": 415, "application/problem+json": 415,
		"application/json, text/plain": 415, "json": 415, "*/*": 415,
	} {
		if got := f.Post(body, map[string]string{"Content-Type": mediaType}); got.Status != want {
			t.Errorf("%q: %d %s, want %d", mediaType, got.Status, got.Raw, want)
		} else if want == 415 && got.Body.Code != "unsupported_media_type" {
			t.Errorf("%q: code %q", mediaType, got.Body.Code)
		}
	}
	if got := f.Post(body, map[string]string{"Content-Encoding": "gzip"}); got.Status != 415 {
		t.Errorf("Content-Encoding gzip: %d", got.Status)
	}
	request, _ := http.NewRequest(http.MethodPost, f.URL+endpoint, strings.NewReader(body))
	request.Header["Content-Type"] = []string{"application/json", "text/plain"}
	if got := f.Do(request); got.Status != 415 {
		t.Errorf("two media types: %d", got.Status)
	}
}

// TestSizes: 16 KiB are accepted, and one byte more is refused, with or without a Content-Length.
func TestSizes(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{})
	fill := func(size int) string {
		const frame = `{"email":"known@example.com","fill":""}`
		return strings.Replace(frame, `""`, `"`+strings.Repeat("x", size-len(frame))+`"`, 1)
	}
	for size, want := range map[int]int{16 << 10: 200, 16<<10 + 1: 413, 1 << 20: 413} {
		if got := f.Post(fill(size), nil); got.Status != want {
			t.Errorf("%d bytes: %d %.200s, want %d", size, got.Status, got.Raw, want)
		} else if want == 413 && got.Body.Code != "payload_too_large" {
			t.Errorf("%d bytes: code %q", size, got.Body.Code)
		}
		// These have no Content-Length and are sent in chunks.
		request, _ := http.NewRequest(http.MethodPost, f.URL+endpoint, struct{ *strings.Reader }{strings.NewReader(fill(size))})
		request.ContentLength = -1
		request.Header.Set("Content-Type", "application/json")
		if got := f.Do(request); got.Status != want {
			t.Errorf("%d bytes in chunks: %d %.200s, want %d", size, got.Status, got.Raw, want)
		}
	}
}

// TestConnectionClose: an answer that comes before the end of a body also reaches clients that close the
// connection, as nginx does by default.
func TestConnectionClose(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{"RATE_LIMIT": "100-H"}})
	transport := &http.Transport{DisableKeepAlives: true}
	for i := range 200 {
		request, _ := http.NewRequest(http.MethodPost, f.URL+endpoint, strings.NewReader(strings.Repeat(" ", 200<<10)))
		request.Header.Set("Content-Type", "application/json")
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatalf("request %d has no answer: %v", i, err)
		}
		want := http.StatusRequestEntityTooLarge
		if i >= 100 {
			want = http.StatusTooManyRequests
		}
		if _, err := io.ReadAll(response.Body); err != nil || response.StatusCode != want {
			t.Errorf("request %d: %d %v, want %d", i, response.StatusCode, err, want)
		}
		response.Body.Close()
	}
}

// TestConnectionCloseExpecting: a client that waits for 100 Continue before it sends its body has its refusal at once, and
// not after the server's ReadTimeout of 10 s.
func TestConnectionCloseExpecting(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{})
	request, _ := http.NewRequest(http.MethodPost, f.URL+endpoint, strings.NewReader("nonsense"))
	request.Header.Set("Content-Type", "text/plain")
	request.Header.Set("Expect", "100-continue")
	began := time.Now()
	response, err := (&http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: time.Minute}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if took := time.Since(began); response.StatusCode != http.StatusUnsupportedMediaType || took > 8*time.Second {
		t.Errorf("%d after %v", response.StatusCode, took)
	}
}

// TestRoutes: 404 and 405 have the error body, and the headers of every answer.
func TestRoutes(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{})
	for _, test := range []struct {
		method, path string
		status       int
		code         string
	}{
		{method: "GET", path: endpoint, status: 405, code: "method_not_allowed"},
		{method: "HEAD", path: endpoint, status: 405, code: ""},
		{method: "PUT", path: endpoint, status: 405, code: "method_not_allowed"},
		{method: "DELETE", path: endpoint, status: 405, code: "method_not_allowed"},
		{method: "PROPFIND", path: endpoint, status: 405, code: "method_not_allowed"},
		{method: "OPTIONS", path: endpoint, status: 204, code: ""},
		{method: "POST", path: "/", status: 404, code: "not_found"},
		{method: "GET", path: "/", status: 404, code: "not_found"},
		{method: "POST", path: endpoint + "/", status: 404, code: "not_found"},
		{method: "POST", path: strings.ToUpper(endpoint), status: 404, code: "not_found"},
		{method: "POST", path: "/api//auth/send-password-reset", status: 404, code: "not_found"},
		{method: "POST", path: "/auth/send-password-reset", status: 404, code: "not_found"},
		{method: "POST", path: "/healthz", status: 405, code: "method_not_allowed"},
		{method: "GET", path: "/dev/inbox", status: 404, code: "not_found"},
		{method: "GET", path: "/metrics", status: 404, code: "not_found"},
		{method: "GET", path: "/debug/pprof/", status: 404, code: "not_found"},
		{method: "POST", path: "/auth/v1/admin/generate_link", status: 404, code: "not_found"},
		{method: "POST", path: "/v3/mg.example.com/messages", status: 404, code: "not_found"},
		{method: "GET", path: "/healthz", status: 200, code: ""},
		{method: "HEAD", path: "/healthz", status: 200, code: ""},
		{method: "POST", path: "/readyz", status: 405, code: "method_not_allowed"},
		{method: "GET", path: "/readyz", status: 200, code: ""},
		{method: "HEAD", path: "/readyz", status: 200, code: ""},
		{method: "GET", path: "/api/openapi.json", status: 200, code: ""},
	} {
		request, _ := http.NewRequest(test.method, f.URL+test.path, nil)
		if got := f.Do(request); got.Status != test.status || got.Body.Code != test.code {
			t.Errorf("%s %s: %d %.200s, want %d %s", test.method, test.path, got.Status, got.Raw, test.status, test.code)
		}
	}
}

// TestServedDocument: /api/openapi.json is openapi.yaml.
func TestServedDocument(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{})
	request, _ := http.NewRequest(http.MethodGet, f.URL+"/api/openapi.json", nil)
	got := f.Do(request)
	want, err := resetdtest.Document().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var served, written any
	if json.Unmarshal([]byte(got.Raw), &served) != nil || json.Unmarshal(want, &written) != nil {
		t.Fatal("no JSON")
	}
	a, _ := json.Marshal(served)
	b, _ := json.Marshal(written)
	if string(a) != string(b) {
		t.Error("the served document differs from openapi.yaml")
	}
}

// TestLanguages: Accept-Language never makes a request invalid, and chooses the language of the mail.
func TestLanguages(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Accounts: []string{
		"account-0@example.com", "account-1@example.com", "account-2@example.com", "account-3@example.com", "account-4@example.com", "account-5@example.com",
	}})
	subjects := map[string]string{} // by account
	for values, subject := range map[string]string{
		"":                         "Reset your",
		"de-CH, de;q=0.9, en;q=.5": "zurücksetzen",
		"xx":                       "Reset your",
		"%zz%":                     "Reset your",
		"{},\"de\"":                "Reset your",
		strings.Repeat("de,", 900): "Reset your",
	} {
		email := fmt.Sprintf("account-%d@example.com", len(subjects))
		subjects[email] = subject
		got := f.Post(fmt.Sprintf(`{"email":%q}`, email), map[string]string{"Accept-Language": values})
		if got.Status != http.StatusOK {
			t.Errorf("%.40q: %d %s", values, got.Status, got.Raw)
		}
	}
	request, _ := http.NewRequest(http.MethodPost, f.URL+endpoint, strings.NewReader(`{"email":"known@example.com"}`))
	request.Header = http.Header{"Content-Type": {"application/json"}, "Accept-Language": {"de", "fr"}}
	if got := f.Do(request); got.Status != http.StatusOK {
		t.Errorf("two headers: %d %s", got.Status, got.Raw)
	}
	subjects[knownEmail] = ""
	f.Settle()
	mails := f.Stack.Mails()
	if len(mails) != len(subjects) {
		t.Errorf("%d mails for %d accounts", len(mails), len(subjects))
	}
	for _, mail := range mails {
		if !strings.Contains(mail.Subject, subjects[mail.To[0]]) {
			t.Errorf("the subject of the mail to %s is %q, want %q in it", mail.To[0], mail.Subject, subjects[mail.To[0]])
		}
	}
}
