package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/getkin/kin-openapi/openapi3"
	"pgregory.net/rapid"

	"github.com/resetd/resetd/test/resetdtest"
)

// maxBodyBytes is the "16 KiB" of openapi.yaml's request body.
const maxBodyBytes = 16 << 10

// generated is a request, with the answer that openapi.yaml documents for it.
type generated struct {
	method, path string
	header       http.Header
	body         string
	chunked      bool
	status       int
	code         string   // of the error body
	blamed       []string // the paths that the issues name, sorted; "" is the whole body
}

// kind draws requests that are valid, or that are invalid in one way.
type kind struct {
	name  string
	draw  func(t *rapid.T) generated
	times int // requests for each check; 0 is 1
}

func (k kind) check(t *rapid.T, target *contractTarget) {
	for range max(k.times, 1) {
		target.check(t, k.draw(t))
	}
}

// requestKinds returns all kinds of requests that follow from the document. It reports parts of the document
// that the generator does not know, which would otherwise go untested.
func requestKinds(t testing.TB) []kind {
	operation := resetdtest.Document().Paths.Find("/auth/send-password-reset").Post
	known := []string{"operationId", "tags", "summary", "description", "parameters", "requestBody", "responses"}
	for keyword := range keywordsOf(t, operation) {
		if !slices.Contains(known, keyword) {
			t.Errorf("the operation has %q, which the generator does not know", keyword)
		}
	}
	for _, parameter := range operation.Parameters {
		if p := parameter.Value; p.In != "header" || p.Name != "Accept-Language" || p.Required {
			t.Errorf("the operation has a parameter %q in %s, which the generator does not know", p.Name, p.In)
		} else if keywords := keywordsOf(t, p.Schema.Value); len(keywords) != 1 || keywords["type"] != "string" {
			t.Errorf("Accept-Language has a schema that the generator does not know: %v", keywords)
		}
	}
	body := operation.RequestBody.Value
	if mediaTypes := slices.Collect(maps.Keys(body.Content)); !slices.Equal(mediaTypes, []string{"application/json"}) || !body.Required {
		t.Errorf("the body is required: %v, as %v: the generator knows only a required JSON body", body.Required, mediaTypes)
	}
	schema := body.Content["application/json"].Schema.Value
	reader := &schemaReader{t: t}
	reader.read(nil, schema)
	slices.SortFunc(reader.violations, func(a, b violation) int { return strings.Compare(a.name, b.name) }) // a seed must always draw the same

	valid := func(t *rapid.T) object { return allowed(t, schema).(object) }
	kinds := validKinds(valid)
	for _, v := range reader.violations {
		kinds = append(kinds, kind{name: "schema/" + v.name, draw: func(t *rapid.T) generated {
			return invalid(t, written(t, v.apply(t, valid(t))), v.blames)
		}})
	}
	kinds = append(kinds,
		kind{name: "schema/hundreds of faults", draw: func(t *rapid.T) generated {
			body := valid(t)
			for i := range rapid.IntRange(2, 255).Draw(t, "faults") { // eight letters have so many other spellings by case
				name := []rune("callback_origin")
				for letter := range 8 {
					if (i+1)>>letter&1 == 1 {
						name[letter] = unicode.ToUpper(name[letter])
					}
				}
				body = append(body, member{string(name), nil})
			}
			return invalid(t, written(t, body), "callback_origin")
		}},
		kind{name: "schema/several at once", draw: func(t *rapid.T) generated { return several(t, valid(t), reader.violations) }},
		kind{name: "schema/email, one character off", draw: func(t *rapid.T) generated { return nearMiss(t, valid(t), schema.Properties["email"].Value) }, times: 4})
	kinds = append(kinds, jsonKinds(valid)...)
	kinds = append(kinds, mediaTypeKinds(valid)...)
	kinds = append(kinds, sizeKinds(valid)...)
	return append(kinds, routeKinds(valid)...)
}

// asked returns a request for the operation, with random values for all that makes no difference.
func asked(t *rapid.T, body string) generated {
	g := generated{method: http.MethodPost, path: endpoint, body: body, header: http.Header{}, status: http.StatusOK}
	g.header.Set("Content-Type", mediaType(t))
	g.chunked = rapid.Bool().Draw(t, "chunked")
	g.path += rapid.SampledFrom([]string{"", "", "", "?", "?email=evil@x.yz", "?a=b&a=c&%00", "?;"}).Draw(t, "query")
	more := func(name string, values *rapid.Generator[string]) {
		if rapid.IntRange(0, 3).Draw(t, "with "+name) == 0 {
			g.header[name] = rapid.SliceOfN(values, 1, 2).Draw(t, name)
		}
	}
	one := func(name string, values *rapid.Generator[string]) {
		if rapid.IntRange(0, 3).Draw(t, "with "+name) == 0 {
			g.header.Set(name, values.Draw(t, name))
		}
	}
	fieldValue := rapid.StringMatching(`[ -~\t]{0,40}`)
	more("Accept-Language", rapid.OneOf(fieldValue,
		rapid.SampledFrom([]string{"de-CH, de;q=0.9, en;q=0.5", "*", "", "de;q=2", "xx-XX", "{}", strings.Repeat("fr,", 200), "de\xff", "en;q=0.000"})))
	one("Origin", rapid.OneOf(rapid.SampledFrom([]string{site, preview, "null", "https://evil.example", "https://app.example.com.evil.example"}), fieldValue))
	one("X-Request-Id", rapid.OneOf(rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`), rapid.StringMatching(`[A-Za-z0-9_-]{63,66}`), rapid.StringMatching(`[ -~]{0,80}`)))
	one("Accept", rapid.SampledFrom([]string{"*/*", "text/html", "application/json;q=0", "nonsense"}))
	one("Cookie", fieldValue)
	one("Authorization", fieldValue)
	one("X-Forwarded-For", rapid.OneOf(fieldValue, rapid.SampledFrom([]string{"192.0.2.1", "::1, 10.0.0.1"})))
	one("X-HTTP-Method-Override", rapid.SampledFrom([]string{"GET", "DELETE"}))
	one("Content-Encoding", rapid.SampledFrom([]string{"identity", "Identity"}))
	one("Content-Language", fieldValue)
	one("Expect", rapid.Just("100-continue"))
	return g
}

// mediaType draws a spelling of application/json (RFC 9110, sections 5.6.6 and 8.3.1).
func mediaType(t *rapid.T) string {
	return rapid.SampledFrom([]string{"application/json", "application/json", "application/json", "Application/JSON", "APPLICATION/json "}).Draw(t, "media type") +
		rapid.SampledFrom([]string{"", "", "; charset=utf-8", ";charset=UTF-8", " ; Charset=\"utf-8\"", "; charset=iso-8859-1", "; profile=\"a;b\"; charset=utf8"}).Draw(t, "parameters")
}

func invalid(t *rapid.T, body string, blamed ...string) generated {
	g := asked(t, body)
	g.status, g.code, g.blamed = http.StatusBadRequest, "invalid_request", blamed
	return g
}

func invalidJSON(t *rapid.T, body string) generated {
	g := invalid(t, body, "")
	g.code = "invalid_json"
	return g
}

func refused(g generated, status int, code string) generated {
	g.status, g.code, g.blamed = status, code, nil
	return g
}

func validKinds(valid func(*rapid.T) object) []kind {
	return []kind{
		{name: "valid/any", draw: func(t *rapid.T) generated { return asked(t, written(t, valid(t))) }, times: 8},
		{name: "valid/nothing but what is required", draw: func(t *rapid.T) generated {
			return asked(t, written(t, object{{"email", mailbox(t)}}))
		}},
		{name: "valid/nested as deep as may be", draw: func(t *rapid.T) generated {
			return asked(t, written(t, append(object{{"email", mailbox(t)}}, nested(t, maxLevels-1))))
		}},
		{name: "valid/half an escaped pair", draw: func(t *rapid.T) generated { // JSON's grammar allows it (RFC 8259, section 8.2)
			callback := member{"callback_origin", rawText(`"https://app.example.com\ud83d` + rapid.SampledFrom([]string{"", "x", `\ud83d`, `\n`}).Draw(t, "after") + `"`)}
			return asked(t, written(t, object{{"email", mailbox(t)}, callback}))
		}},
	}
}

// maxLevels is the "32 levels" of openapi.yaml's request body. The body itself is the first.
const maxLevels = 32

// nested returns a member with so many levels.
func nested(t *rapid.T, levels int) member {
	open, shut := "", ""
	for range levels {
		if rapid.Bool().Draw(t, "array") {
			open, shut = open+"[", "]"+shut
		} else {
			open, shut = open+`{"x":`, "}"+shut
		}
	}
	return member{"nested", rawText(open + rapid.SampledFrom([]string{"1", `"[[["`, "null"}).Draw(t, "innermost") + shut)}
}

// several breaks more than one field, and expects an issue for each.
func several(t *rapid.T, body object, violations []violation) generated {
	byField := map[string][]violation{}
	for _, v := range violations {
		if v.blames != "" {
			byField[v.blames] = append(byField[v.blames], v)
		}
	}
	var broken any = body
	fields := slices.Sorted(maps.Keys(byField))
	for _, field := range fields {
		broken = rapid.SampledFrom(byField[field]).Draw(t, field).apply(t, broken)
	}
	return invalid(t, written(t, broken), fields...)
}

// nearMiss changes one character of an address, and knows from the grammar whether it is still valid.
func nearMiss(t *rapid.T, body object, schema *openapi3.Schema) generated {
	address := []rune(body[body.find("email")].value.(string))
	c := rapid.OneOf(rapid.RuneFrom([]rune(".@-_+ \"\\<>,:;()[]%/\x00\x7fäK\u212a09aZ")), rapid.Rune()).Draw(t, "character")
	at := rapid.IntRange(0, len(address)-1).Draw(t, "at")
	switch rapid.SampledFrom([]string{"insert", "delete", "replace", "double"}).Draw(t, "change") {
	case "insert":
		address = slices.Insert(address, at, c)
	case "delete":
		address = slices.Delete(address, at, at+1)
	case "replace":
		address[at] = c
	case "double":
		address = slices.Insert(address, at, address[at])
	}
	text := written(t, edited(body, []string{"email"}, func(any) any { return string(address) }))
	if isMailbox(string(address)) && hasLength(schema, string(address)) {
		return asked(t, text)
	}
	return invalid(t, text, "email")
}

// jsonKinds returns kinds of bodies that are not exactly one JSON value in UTF-8, or that give a member twice.
func jsonKinds(valid func(*rapid.T) object) []kind {
	broken := func(name string, change func(t *rapid.T, text string) string) kind {
		return kind{name: "json/" + name, draw: func(t *rapid.T) generated {
			return invalidJSON(t, change(t, strings.TrimSpace(written(t, valid(t)))))
		}}
	}
	// inString puts raw text into the value of the first member.
	inString := func(name string, what ...string) kind {
		return broken(name, func(t *rapid.T, text string) string {
			return `{"x":"` + rapid.SampledFrom(what).Draw(t, "what") + `",` + text[1:]
		})
	}
	insteadOf := func(name string, values ...string) kind {
		return kind{name: "json/" + name, draw: func(t *rapid.T) generated {
			body := append(valid(t), member{"what is broken", rawText(rapid.SampledFrom(values).Draw(t, "value"))})
			return invalidJSON(t, written(t, body))
		}}
	}
	return []kind{
		broken("nothing", func(t *rapid.T, _ string) string {
			return rapid.SampledFrom([]string{"", " ", "\r\n\t"}).Draw(t, "nothing")
		}),
		broken("truncated", func(t *rapid.T, text string) string { return text[:rapid.IntRange(0, len(text)-1).Draw(t, "after")] }),
		broken("beheaded", func(t *rapid.T, text string) string {
			text = text[rapid.IntRange(1, len(text)-1).Draw(t, "before"):]
			if json.Valid([]byte(text)) { // the cut has left a whole value
				t.SkipNow()
			}
			return text
		}),
		broken("junk after it", func(t *rapid.T, text string) string {
			return text + rapid.SampledFrom([]string{"x", "}", "]", ",", "\x00", "null", " 1", "\v", "\u00a0", "\u2028", "//", "/**/"}).Draw(t, "junk")
		}),
		broken("junk before it", func(t *rapid.T, text string) string {
			return rapid.SampledFrom([]string{"\ufeff", "x", ")]}',\n", "\x00", "\v", "\u00a0", "//\n", "/**/", "1 "}).Draw(t, "junk") + text
		}),
		broken("two values", func(t *rapid.T, text string) string {
			return text + rapid.SampledFrom([]string{"", " ", "\n"}).Draw(t, "space") + text
		}),
		broken("comma at the end", func(_ *rapid.T, text string) string { return text[:len(text)-1] + ",}" }),
		broken("a form", func(t *rapid.T, _ string) string { return url.Values{"email": {mailbox(t)}}.Encode() }),
		broken("UTF-16", func(t *rapid.T, text string) string {
			var wide bytes.Buffer
			for _, unit := range utf16.Encode([]rune(text)) {
				wide.Write([]byte{byte(unit), byte(unit >> 8)})
			}
			return rapid.SampledFrom([]string{"", "\xff\xfe"}).Draw(t, "mark") + wide.String()
		}),
		inString("not UTF-8", "\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x80", "ä"[:1]),
		inString("control characters", "\x00", "\n", "\t", "\x1f"),
		inString("no escape", `\x41`, `\u12`, `\'`, `\U0041`, `\u00zz`),
		insteadOf("no value", "", "nul", "True", "undefined", "NaN", "Infinity", "'a'", "`a`", "a"),
		insteadOf("no number", "01", "1.", ".5", "+1", "0x1", "1e", "--1", "1_000", "1,5"),
		insteadOf("no structure", "{a:1}", "{1:1}", "{,}", "[,]", "[1,]", "[1 2]", `{"a" 1}`, `{"a":1 "b":2}`, "[}", "{]"),
		{name: "json/nested too deep", draw: func(t *rapid.T) generated {
			levels := maxLevels + rapid.IntRange(0, 50).Draw(t, "more")
			return invalidJSON(t, written(t, append(object{{"email", mailbox(t)}}, nested(t, levels))))
		}},
		{name: "json/a member twice", draw: func(t *rapid.T) generated {
			return invalidJSON(t, written(t, twice(t, valid(t))))
		}},
		{name: "json/a member twice, further in", draw: func(t *rapid.T) generated {
			inner := twice(t, append(anyObject(t, 2), member{"once", nil}))
			var value any = inner
			if rapid.Bool().Draw(t, "in an array") {
				value = []any{nil, inner}
			}
			return invalidJSON(t, written(t, append(valid(t), member{"what is broken", value})))
		}},
	}
}

// twice gives one of an object's members a second time, with any value.
func twice(t *rapid.T, members object) object {
	again := member{rapid.SampledFrom(members).Draw(t, "twice").name, anyValue(t, 2)}
	return slices.Insert(slices.Clone(members), rapid.IntRange(0, len(members)).Draw(t, "where"), again)
}

func mediaTypeKinds(valid func(*rapid.T) object) []kind {
	refusedWith := func(name string, change func(*rapid.T, http.Header)) kind {
		return kind{name: "media type/" + name, draw: func(t *rapid.T) generated {
			text := written(t, valid(t))
			if rapid.Bool().Draw(t, "invalid too") { // the schema is checked later
				text = text[1:]
			}
			g := refused(asked(t, text), http.StatusUnsupportedMediaType, "unsupported_media_type")
			change(t, g.header)
			return g
		}}
	}
	return []kind{
		refusedWith("another", func(t *rapid.T, header http.Header) {
			token := rapid.StringMatching("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}")
			another := rapid.OneOf(
				rapid.SampledFrom([]string{
					"text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp",
					"application/json-patch+json", "application/problem+json", "application/vnd.api+json", "application/xml", "application/*", "*/*",
				}),
				rapid.Custom(func(t *rapid.T) string { return token.Draw(t, "type") + "/" + token.Draw(t, "subtype") }),
			).Filter(func(s string) bool { return !strings.EqualFold(s, "application/json") })
			header.Set("Content-Type", another.Draw(t, "another")+rapid.SampledFrom([]string{"", "; charset=utf-8"}).Draw(t, "charset"))
		}),
		refusedWith("none", func(_ *rapid.T, header http.Header) { header.Del("Content-Type") }),
		refusedWith("no media type", func(t *rapid.T, header http.Header) {
			header.Set("Content-Type", rapid.SampledFrom([]string{"", "json", "application", "/json", "application/", "application json", "{}", "; charset=utf-8", "application/json/json", `"application/json"`}).Draw(t, "value"))
		}),
		refusedWith("a list", func(t *rapid.T, header http.Header) {
			header.Set("Content-Type", rapid.SampledFrom([]string{"application/json, text/plain", "text/plain, application/json", "application/json,application/json"}).Draw(t, "value"))
		}),
		refusedWith("twice", func(t *rapid.T, header http.Header) {
			header["Content-Type"] = []string{"application/json", rapid.SampledFrom([]string{"application/json", "text/plain"}).Draw(t, "second")}
		}),
		refusedWith("a coding", func(t *rapid.T, header http.Header) {
			header.Set("Content-Encoding", rapid.SampledFrom([]string{"gzip", "br", "deflate", "zstd", "identity, gzip", "x"}).Draw(t, "coding"))
		}),
	}
}

// sizeKinds returns kinds of bodies around 16 KiB.
func sizeKinds(valid func(*rapid.T) object) []kind {
	// filled returns a body of so many bytes, with white space or a long value.
	filled := func(t *rapid.T, size int) string {
		text := written(t, valid(t))
		if len(text) > size/2 {
			t.SkipNow()
		}
		if rapid.Bool().Draw(t, "white space") {
			return text + strings.Repeat(" ", size-len(text))
		}
		text = strings.TrimSpace(text)
		return `{"what fills it":"` + strings.Repeat("x", size-len(text)-len(`"what fills it":"",`)) + `",` + text[1:]
	}
	return []kind{
		{name: "size/nearly too much", draw: func(t *rapid.T) generated {
			return asked(t, filled(t, maxBodyBytes-rapid.SampledFrom([]int{0, 0, 1, 100}).Draw(t, "less")))
		}},
		{name: "size/too much", draw: func(t *rapid.T) generated {
			text := filled(t, maxBodyBytes+rapid.SampledFrom([]int{1, 2, 1000, maxBodyBytes, 150_000}).Draw(t, "more"))
			if rapid.Bool().Draw(t, "invalid too") { // the size is checked first
				text = strings.Repeat("\xff", len(text))
			}
			return refused(asked(t, text), http.StatusRequestEntityTooLarge, "payload_too_large")
		}},
	}
}

func routeKinds(valid func(*rapid.T) object) []kind {
	return []kind{
		{name: "method/another", draw: func(t *rapid.T) generated {
			g := refused(asked(t, written(t, valid(t))), http.StatusMethodNotAllowed, "method_not_allowed")
			g.method = rapid.OneOf(
				rapid.SampledFrom([]string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "post", "Post", "POSTS"}),
				rapid.StringMatching("[A-Z!#$%&'*+.^_`|~-]{1,10}").Filter(func(s string) bool { return s != "POST" && s != "OPTIONS" && s != "CONNECT" }),
			).Draw(t, "method")
			return g
		}},
		{name: "method/OPTIONS", draw: func(t *rapid.T) generated {
			g := refused(asked(t, ""), http.StatusNoContent, "")
			g.method = http.MethodOptions
			return g
		}},
		{name: "path/another", draw: func(t *rapid.T) generated {
			g := refused(asked(t, written(t, valid(t))), http.StatusNotFound, "not_found")
			segments := strings.Split(endpoint, "/") // the first is empty
			at := rapid.IntRange(1, len(segments)-1).Draw(t, "segment")
			switch rapid.SampledFrom([]string{"drop", "repeat", "empty", "longer", "case", "append", "other"}).Draw(t, "change") {
			case "drop":
				segments = slices.Delete(segments, at, at+1)
			case "repeat":
				segments = slices.Insert(segments, at, segments[at])
			case "empty":
				segments = slices.Insert(segments, at+1, "")
			case "longer":
				segments[at] += rapid.StringMatching(`[A-Za-z0-9._~-]{1,5}`).Draw(t, "more")
			case "case":
				segments[at] = strings.ToUpper(segments[at])
			case "append":
				segments = append(segments, rapid.StringMatching(`[A-Za-z0-9._~-]{0,5}`).Draw(t, "more"))
			case "other":
				segments = []string{"", "nothing", rapid.StringMatching(`[A-Za-z0-9._~%-]{1,20}`).Filter(func(s string) bool {
					_, err := url.PathUnescape(s)
					return err == nil
				}).Draw(t, "path")}
			}
			g.path = strings.Join(segments, "/")
			return g
		}},
	}
}

// contractTarget is a server for generated requests.
type contractTarget struct {
	*resetdtest.Server
	client *http.Client
	sent   atomic.Int64
	valid  atomic.Int64 // of sent

	mu       sync.Mutex
	asked    map[string]bool // accounts of valid requests
	lookedUp map[string]bool // addresses that were looked up
}

func startTarget(t *testing.T, s resetdtest.Config) *contractTarget {
	settings := map[string]string{"RATE_LIMIT": "1000000-M", "RECIPIENT_LIMIT": "1000000-M", "MAX_ACCEPTED": "1000000"}
	maps.Copy(settings, s.Settings)
	s.Settings = settings
	target := &contractTarget{asked: map[string]bool{}, lookedUp: map[string]bool{}}
	s.Supabase = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if email, _ := resetdtest.ReadCall(r); !resetdtest.ProbeAddress.MatchString(email) {
				target.mu.Lock()
				target.lookedUp[strings.ToLower(email)] = true
				target.mu.Unlock()
			}
			next.ServeHTTP(w, r)
		})
	}
	target.Server = start(t, s)
	transport := resetdtest.NewTransport(t)
	transport.DisableCompression, transport.ExpectContinueTimeout = true, time.Minute
	target.client = &http.Client{Transport: transport, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return target
}

// check sends a request, and compares its answer with the document.
func (target *contractTarget) check(t *rapid.T, g generated) {
	if (g.status == http.StatusOK || g.status == http.StatusBadRequest) && len(g.body) > maxBodyBytes {
		t.SkipNow() // only the IP limit comes before the body
	}
	var body io.Reader = strings.NewReader(g.body)
	if g.chunked {
		body = io.NopCloser(body) // net/http does not know its length
	}
	request, err := http.NewRequest(g.method, target.URL+g.path, body)
	if err != nil {
		t.Fatalf("the generator made no request: %v", err)
	}
	request.Header = g.header.Clone()
	response, err := target.client.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", g.method, g.path, err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", g.method, g.path, err)
	}
	target.sent.Add(1)
	if g.status == http.StatusOK {
		target.valid.Add(1)
		var request struct{ Email string }
		if err := json.Unmarshal([]byte(g.body), &request); err != nil {
			t.Fatalf("the generator made no JSON: %v: %.200q", err, g.body)
		}
		target.mu.Lock()
		target.asked[strings.ToLower(request.Email)] = true
		target.mu.Unlock()
	}
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s\n%s %s (chunked: %v) %v\n%.2000q\nwas answered\n%s %v\n%s", fmt.Sprintf(format, args...), g.method, g.path, g.chunked, g.header, g.body, response.Status, response.Header, raw)
	}
	resetdtest.CheckResponse(t, request, response, raw)
	if response.StatusCode != g.status {
		fail("status %d, want %d", response.StatusCode, g.status)
		return
	}
	if id := g.header.Get("X-Request-Id"); resetdtest.RequestID.MatchString(id) != (response.Header.Get("X-Request-Id") == id) {
		fail("X-Request-Id %q was taken over or not, against the rule", id)
	}
	origin := g.header.Get("Origin")
	if got, want := response.Header.Get("Access-Control-Allow-Origin"), map[bool]string{true: origin}[origin == site || origin == preview]; got != want {
		fail("Access-Control-Allow-Origin is %q, want %q", got, want)
	}
	if mediaType, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); g.status != http.StatusNoContent && (err != nil || mediaType != "application/json") {
		fail("Content-Type is %q", response.Header.Get("Content-Type"))
	}
	if g.method == http.MethodHead || g.status == http.StatusNoContent {
		if len(raw) > 0 {
			fail("a body")
		}
		return
	}
	got := resetdtest.Answer{}.Body
	if err := json.Unmarshal(raw, &got); err != nil {
		fail("no JSON: %v", err)
	}
	var blamed []string
	first := map[string]string{}
	for _, issue := range got.Issues {
		if _, again := first[issue.Path]; !again {
			blamed = append(blamed, issue.Path)
			first[issue.Path] = issue.Message
		}
	}
	slices.Sort(blamed)
	delete(first, "")
	if got.Code != g.code || !slices.Equal(blamed, g.blamed) {
		fail("code %q that blames %q, want %q and %q", got.Code, blamed, g.code, g.blamed)
	}
	if !maps.Equal(got.FieldErrors, first) {
		fail("fieldErrors are %v, but the first issues %v", got.FieldErrors, first)
	}
}

// finish compares what was accepted and looked up with what should have been.
func (target *contractTarget) finish(t *testing.T) {
	target.Settle()
	t.Logf("%d requests, %d of them valid, about %d accounts", target.sent.Load(), target.valid.Load(), len(target.asked))
	if accepted, valid := strings.Count(target.Log.String(), `"outcome":"accepted"`), target.valid.Load(); int64(accepted) != valid {
		t.Errorf("%d requests were accepted, but %d were valid", accepted, valid)
	}
	target.mu.Lock()
	defer target.mu.Unlock()
	if !maps.Equal(target.asked, target.lookedUp) {
		t.Errorf("valid requests are for %d accounts, but %d were looked up, or other ones", len(target.asked), len(target.lookedUp))
	}
	for _, mail := range target.Stack.Mails() {
		if len(mail.To) != 1 || mail.To[0] != knownEmail && mail.To[0] != otherKnown {
			t.Errorf("mailed %q", mail.To)
		}
	}
}

// TestContractGenerated: requests that follow from openapi.yaml, and requests that break each of its rules in
// turn, get the documented answers from the binary as it is shipped: 25 of each kind, and a hundred in make
// test. More of them:
//
//	go test -run TestContractGenerated ./test/contract -rapid.checks=1000
//
// rapid shrinks a failure, and prints the flags that repeat it: the subtest, and -rapid.seed or -rapid.failfile
// (a file in testdata/rapid, not to be committed).
func TestContractGenerated(t *testing.T) {
	target := startTarget(t, resetdtest.Config{})
	t.Run("requests", func(t *testing.T) { // returns when all of them have ended
		for _, kind := range requestKinds(t) {
			t.Run(kind.name, func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(t *rapid.T) { kind.check(t, target) })
			})
		}
	})
	target.finish(t)
}

// TestContractRejects: a server that rejects callback origins rejects exactly those that are not allowed.
func TestContractRejects(t *testing.T) {
	target := startTarget(t, resetdtest.Config{Settings: map[string]string{"CALLBACK_ORIGIN_POLICY": "reject"}})
	allowedOrigin := rapid.OneOf(
		rapid.SampledFrom([]string{site, site + "/", "HTTPS://App.Example.COM", "HTTPS://App.Example.COM:443/", site + ":443"}),
		rapid.StringMatching(`https://[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\.preview\.example\.com`),
	)
	body := func(t *rapid.T, callback string) string {
		return written(t, object{{"email", mailbox(t)}, {"callback_origin", callback}})
	}
	t.Run("requests", func(t *testing.T) {
		for _, kind := range []kind{
			{name: "allowed", draw: func(t *rapid.T) generated { return asked(t, body(t, allowedOrigin.Draw(t, "origin"))) }},
			{name: "another", draw: func(t *rapid.T) generated {
				other := rapid.OneOf(
					rapid.SampledFrom([]string{"example", "null", "*", "https://evil.example", "http://app.example.com", "https://preview.example.com", "//app.example.com"}),
					rapid.StringMatching(`https?://[a-z]{1,10}\.example\.(org|net)(:[0-9]{2,4})?`),
					rapid.Map(allowedOrigin, func(o string) string { return strings.TrimSuffix(o, "/") + ".evil.example" }),
					rapid.Map(allowedOrigin, func(o string) string { return strings.TrimSuffix(o, "/") + ".evil.example" }),
					rapid.Map(allowedOrigin, func(o string) string { return o + "/path" }),
					rapid.Map(allowedOrigin, func(o string) string { return strings.Replace(o, "//", "//a.b.", 1) }),
				)
				return invalid(t, body(t, other.Draw(t, "origin")), "callback_origin")
			}},
		} {
			t.Run(kind.name, func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(t *rapid.T) { kind.check(t, target) })
			})
		}
	})
	target.finish(t)
}
