package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/resetd/resetd/test/resetdtest"
)

// operationOf returns the document's only operation.
func operationOf(t testing.TB) *openapi3.Operation {
	t.Helper()
	for path, item := range resetdtest.Document().Paths.Map() {
		for method := range item.Operations() {
			if path != "/auth/send-password-reset" || method != http.MethodPost {
				t.Errorf("openapi.yaml has %s %s, whose contract nothing checks", method, path)
			}
		}
	}
	return resetdtest.Document().Paths.Find("/auth/send-password-reset").Post
}

// documentedCodes returns the codes of errors that the document names.
func documentedCodes(t testing.TB) []string {
	t.Helper()
	code := resetdtest.Document().Components.Schemas["ErrorBody"].Value.Properties["code"].Value
	var codes []string
	listed, _ := code.Extensions["x-extensible-enum"].([]any)
	for _, value := range listed {
		codes = append(codes, value.(string))
	}
	slices.Sort(codes)
	described := resetdtest.Backticked(code.Description)
	slices.Sort(described)
	if !slices.Equal(codes, described) || len(codes) < 12 {
		t.Fatalf("openapi.yaml lists the codes %q, and describes %q", codes, described)
	}
	return codes
}

// producer is a way to get an answer.
type producer struct {
	status  int
	code    string // empty: no error
	example string // of the document, with this answer's text; empty: none
	how     string
	answer  func(t *testing.T) resetdtest.Answer // nil: TestBug of cmd/resetd produces it
}

func producers() []producer {
	const valid = `{"email":"known@example.com"}`
	failing := func(status int) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		}
	}
	post := func(s resetdtest.Config, body string, header map[string]string) func(*testing.T) resetdtest.Answer {
		return func(t *testing.T) resetdtest.Answer {
			return start(t, s).Post(body, header)
		}
	}
	without := func(name string) resetdtest.Config { return resetdtest.Config{Settings: map[string]string{name: ""}} }
	route := func(method, path string) func(*testing.T) resetdtest.Answer {
		return func(t *testing.T) resetdtest.Answer {
			f := start(t, resetdtest.Config{})
			request, err := http.NewRequest(method, f.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			return f.Do(request)
		}
	}
	return []producer{
		{status: 200, code: "", example: "acknowledged", how: "an account", answer: post(resetdtest.Config{}, valid, nil)},
		{status: 200, code: "", example: "acknowledged", how: "a stranger", answer: post(resetdtest.Config{}, `{"email":"stranger@example.org"}`, nil)},
		{status: 400, code: "invalid_request", example: "invalidRequest", how: "no address", answer: post(resetdtest.Config{}, `{"email":"nonsense"}`, nil)},
		{status: 400, code: "invalid_request", example: "notAnObject", how: "an array", answer: post(resetdtest.Config{}, `[]`, nil)},
		{status: 400, code: "invalid_json", example: "invalidJSON", how: "no JSON", answer: post(resetdtest.Config{}, `{`, nil)},
		{status: 404, code: "not_found", example: "", how: "another path", answer: route(http.MethodPost, endpoint+"/more")},
		{status: 405, code: "method_not_allowed", example: "", how: "another method", answer: route(http.MethodGet, endpoint)},
		{status: 413, code: "payload_too_large", example: "tooLarge", how: "17 KiB", answer: post(resetdtest.Config{}, strings.Repeat(" ", 17<<10)+valid, nil)},
		{status: 415, code: "unsupported_media_type", example: "notJSON", how: "plain text", answer: post(resetdtest.Config{}, valid, map[string]string{"Content-Type": "text/plain"})},
		{status: 429, code: "rate_limited", example: "rateLimited", how: "a second request", answer: func(t *testing.T) resetdtest.Answer {
			f := start(t, resetdtest.Config{Settings: map[string]string{"RATE_LIMIT": "1-H"}})
			f.Ask(knownEmail)
			return f.Ask(knownEmail)
		}},
		{status: 500, code: "auth_not_configured", example: "authNotConfigured", how: "no Supabase URL", answer: post(without("SUPABASE_URL"), valid, nil)},
		{status: 500, code: "auth_not_configured", example: "authNotConfigured", how: "no key", answer: post(without("SUPABASE_SERVICE_ROLE_KEY"), valid, nil)},
		{
			status: 500, code: "auth_not_configured", example: "authNotConfigured", how: "a key that is refused",
			answer: post(resetdtest.Config{Settings: map[string]string{"SUPABASE_SERVICE_ROLE_KEY": "not-the-right-key"}}, valid, nil),
		},
		{status: 500, code: "internal_error", example: "internalError", how: "a bug", answer: nil},
		{status: 502, code: "email_delivery_failed", example: "emailDeliveryFailed", how: "no Mailgun key", answer: post(without("MAILGUN_API_KEY"), valid, nil)},
		{status: 502, code: "email_delivery_failed", example: "emailDeliveryFailed", how: "Mailgun fails", answer: post(resetdtest.Config{Mailgun: failing(500)}, valid, nil)},
		{
			status: 502, code: "email_delivery_failed", example: "emailDeliveryFailed", how: "a key that Mailgun refuses",
			answer: post(resetdtest.Config{Settings: map[string]string{"MAILGUN_API_KEY": "not-the-right-key"}}, valid, nil),
		},
		{status: 503, code: "auth_unavailable", example: "authUnavailable", how: "Supabase Auth fails", answer: post(resetdtest.Config{Supabase: failing(503)}, valid, nil)},
		{status: 503, code: "overloaded", example: "overloaded", how: "more than MAX_ACCEPTED", answer: func(t *testing.T) resetdtest.Answer {
			f := start(t, resetdtest.Config{Settings: map[string]string{"MAX_ACCEPTED": "1"}})
			f.Ask(knownEmail)
			return f.Ask(knownEmail)
		}},
	}
}

// TestContractAnswers: the server gives every documented status and code, as documented, with the words of its
// example.
func TestContractAnswers(t *testing.T) {
	t.Parallel()
	responses := operationOf(t).Responses.Map()
	codes := documentedCodes(t)
	statusSeen, codeSeen, exampleSeen := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, p := range producers() {
		status := strconv.Itoa(p.status)
		statusSeen[status], codeSeen[p.code], exampleSeen[status+" "+p.example] = true, true, true
		if p.answer == nil {
			continue
		}
		t.Run(fmt.Sprintf("%d %s/%s", p.status, p.code, p.how), func(t *testing.T) {
			t.Parallel()
			got := p.answer(t) // the fixture's client checks it against the schema
			if got.Status != p.status || got.Body.Code != p.code {
				t.Fatalf("%d %s", got.Status, got.Raw)
			}
			if p.code != "" && !slices.Contains(codes, p.code) {
				t.Errorf("openapi.yaml does not name the code %s", p.code)
			}
			response := responses[status]
			if response == nil { // from the router
				return
			}
			if p.code != "" && !slices.Contains(resetdtest.Backticked(*response.Value.Description), p.code) {
				t.Errorf("openapi.yaml does not name %s where it describes %s", p.code, status)
			}
			example := response.Value.Content["application/json"].Examples[p.example]
			if example == nil {
				t.Fatalf("openapi.yaml has no example %q of %s", p.example, status)
			}
			if want, got := wordsOf(t, example.Value.Value), wordsOf(t, json.RawMessage(got.Raw)); got != want {
				t.Errorf("the example %q of %s says\n%s\nand the server\n%s", p.example, status, want, got)
			}
		})
	}
	for status, response := range responses {
		if !statusSeen[status] {
			t.Errorf("%s is documented, and nothing here produces it", status)
		}
		if len(response.Value.Content) != 1 || len(response.Value.Content["application/json"].Examples) == 0 {
			t.Errorf("%s has no example, or not of JSON alone", status)
		}
		for name := range response.Value.Content["application/json"].Examples {
			if !exampleSeen[status+" "+name] {
				t.Errorf("the example %q of %s is documented, and nothing here produces it", name, status)
			}
		}
		for _, code := range resetdtest.Backticked(*response.Value.Description) {
			if slices.Contains(codes, code) && !slices.ContainsFunc(producers(), func(p producer) bool { return strconv.Itoa(p.status) == status && p.code == code }) {
				t.Errorf("%s is documented to carry %s, and nothing here produces that", status, code)
			}
		}
	}
	for _, code := range codes {
		if !codeSeen[code] {
			t.Errorf("the code %s is documented, and nothing here produces it", code)
		}
	}
}

// wordsOf returns the words of an answer, without the time to wait.
func wordsOf(t testing.TB, body any) string {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	var value map[string]any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	if seconds, ok := value["retryAfter"].(float64); ok {
		value["retryAfter"] = "SECONDS"
		value["error"] = strings.Replace(value["error"].(string), fmt.Sprint(seconds)+" second", "SECONDS second", 1)
	}
	text, err = json.MarshalIndent(value, "", "  ") // sorted by name
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestContractExamples: every example of openapi.yaml fits its schema. Example requests are answered 200, and
// if they say that an origin is allowed, it is.
func TestContractExamples(t *testing.T) {
	t.Parallel()
	operation := operationOf(t)
	judge := func(where string, schema *openapi3.Schema, value any) {
		t.Helper()
		if err := schema.VisitJSON(value); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	for status, response := range operation.Responses.Map() {
		content := response.Value.Content["application/json"]
		for name, example := range content.Examples {
			judge(status+" "+name, content.Schema.Value, example.Value.Value)
		}
		for name, header := range response.Value.Headers {
			schema := header.Value.Schema.Value
			if schema.Example == nil {
				t.Errorf("%s: no example of %s", status, name)
				continue
			}
			judge(status+" "+name, schema, schema.Example)
		}
	}

	f := start(t, resetdtest.Config{})
	strict := start(t, resetdtest.Config{Settings: map[string]string{"CALLBACK_ORIGIN_POLICY": "reject"}})
	body := operation.RequestBody.Value.Content["application/json"]
	if len(body.Examples) == 0 {
		t.Error("no example of a request")
	}
	for name, example := range body.Examples {
		judge("request "+name, body.Schema.Value, example.Value.Value)
		text, err := json.Marshal(example.Value.Value)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Post(string(text), nil); got.Status != http.StatusOK {
			t.Errorf("the request %q: %d %s", name, got.Status, got.Raw)
		}
		callback, _ := example.Value.Value.(map[string]any)["callback_origin"].(string)
		want := http.StatusOK
		if callback != "" && !strings.Contains(callback, "://") {
			want = http.StatusBadRequest // "the server answers 400 if it is set to reject"
		}
		if got := strict.Post(string(text), nil); got.Status != want {
			t.Errorf("the request %q, where other origins are rejected: %d %s", name, got.Status, got.Raw)
		}
	}
	request := map[string]any{}
	for name, property := range body.Schema.Value.Properties {
		if request[name] = property.Value.Example; request[name] == nil {
			t.Errorf("no example of %s", name)
		}
	}
	text, _ := json.Marshal(request)
	if got := strict.Post(string(text), nil); got.Status != http.StatusOK {
		t.Errorf("the examples of the members together: %d %s", got.Status, got.Raw)
	}

	f.Settle()
	f.Stack.Reset()
	language := operation.Parameters.GetByInAndName("header", "Accept-Language").Example.(string)
	got := f.Post(`{"email":"known@example.com"}`, map[string]string{"Accept-Language": language})
	f.Settle()
	if mails := f.Stack.Mails(); got.Status != http.StatusOK || len(mails) != 1 || !strings.Contains(mails[0].Subject, "zurücksetzen") {
		t.Errorf("Accept-Language: %s: %d %s, mails %v", language, got.Status, got.Raw, mails)
	}

	// The examples of the limits' headers are what a first request gets from the default limits.
	limited := start(t, resetdtest.Config{Settings: map[string]string{"RATE_LIMIT": ""}}).Ask(knownEmail)
	seconds := regexp.MustCompile(`;t=(60|59|3600|3599)`)
	for name, header := range map[string]string{"RateLimitPolicy": "RateLimit-Policy", "RateLimit": "RateLimit"} {
		want := resetdtest.Document().Components.Headers[name].Value.Schema.Value.Example.(string)
		if got := limited.Header.Get(header); seconds.ReplaceAllString(got, ";t=T") != seconds.ReplaceAllString(want, ";t=T") {
			t.Errorf("%s is %s, in its example %s", header, got, want)
		}
	}
}

// TestContractCheck: the check of every answer in these tests refuses what is not documented.
func TestContractCheck(t *testing.T) {
	t.Parallel()
	type doctored struct {
		status int
		header http.Header
		body   string
	}
	with := func(status int, body, name, value string) doctored {
		d := doctored{status, http.Header{
			"Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"}, "X-Request-Id": {"abc"},
			"Content-Type": {"application/json"}, "Ratelimit": {`"x";r=1;t=1`}, "Ratelimit-Policy": {`"x";q=1;w=1`},
		}, body}
		if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
			d.header.Set("Retry-After", "5")
		}
		if d.header.Del(name); value != "" {
			d.header.Set(name, value)
		}
		return d
	}
	const (
		ok, bad = `{"ok":true,"message":"x"}`, `{"error":"x","code":"invalid_request"}`
		limited = `{"error":"x","code":"rate_limited","retryAfter":5}`
		busy    = `{"error":"x","code":"overloaded"}`
	)
	complaints := func(d doctored) string {
		var found complaint
		request, _ := http.NewRequest(http.MethodPost, "http://localhost"+endpoint, nil)
		resetdtest.CheckResponse(&found, request, &http.Response{StatusCode: d.status, Status: strconv.Itoa(d.status), Header: d.header}, []byte(d.body))
		return found.String()
	}
	for _, good := range []doctored{with(200, ok, "", ""), with(400, bad, "", ""), with(503, busy, "", ""), with(429, limited, "", ""), with(200, ok, "Vary", "Origin")} {
		if found := complaints(good); found != "" {
			t.Errorf("%d %s is refused: %s", good.status, good.body, found)
		}
	}
	for name, d := range map[string]doctored{
		"a status":                      with(401, bad, "", ""),
		"another status":                with(201, ok, "", ""),
		"a member":                      with(200, `{"ok":true,"message":"x","sent":true}`, "", ""),
		"a member of errors":            with(502, `{"error":"x","code":"email_delivery_failed","detail":"y"}`, "", ""),
		"a member of issues":            with(400, `{"error":"x","code":"invalid_request","issues":[{"path":"","message":"x","value":1}]}`, "", ""),
		"a member missing":              with(200, `{"ok":true}`, "", ""),
		"no error":                      with(400, `{"code":"invalid_request"}`, "", ""),
		"no code":                       with(400, `{"error":"x"}`, "", ""),
		"no retryAfter":                 with(429, `{"error":"x","code":"rate_limited"}`, "", ""),
		"a small retryAfter":            with(429, `{"error":"x","code":"rate_limited","retryAfter":0}`, "", ""),
		"a type":                        with(200, `{"ok":"true","message":"x"}`, "", ""),
		"another form":                  with(400, `[]`, "", ""),
		"no JSON":                       with(200, `ok`, "", ""),
		"nothing":                       with(200, ``, "", ""),
		"a media type":                  with(200, ok, "Content-Type", "text/html"),
		"no media type":                 with(200, ok, "Content-Type", ""),
		"no Retry-After of 429":         with(429, limited, "Retry-After", ""),
		"no Retry-After of 503":         with(503, busy, "Retry-After", ""),
		"a Retry-After of another kind": with(503, busy, "Retry-After", "soon"),
		"no request id":                 with(200, ok, "X-Request-Id", ""),
		"a long request id":             with(200, ok, "X-Request-Id", strings.Repeat("a", 65)),
		"caching":                       with(200, ok, "Cache-Control", "public"),
		"sniffing":                      with(200, ok, "X-Content-Type-Options", ""),
		"a server":                      with(200, ok, "Server", "x"),
		"a header":                      with(200, ok, "X-Powered-By", "x"),
		"a header of other answers":     with(200, ok, "Retry-After", "5"),
		"no header that is documented":  with(400, bad, "Ratelimit", ""),
		"a code":                        with(400, `{"error":"x","code":"x"}`, "", ""),
		"a code of other answers":       with(400, `{"error":"x","code":"rate_limited"}`, "", ""),
	} {
		if complaints(d) == "" {
			t.Errorf("%s: passes", name)
		}
	}
}

// complaint collects what a check reports.
type complaint struct{ bytes.Buffer }

func (c *complaint) Errorf(format string, args ...any) { fmt.Fprintf(c, format+"\n", args...) }
