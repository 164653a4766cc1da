package supabase

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/delivery"
)

const redirectTo = "https://app.example.com/reset-password"

// TestRecordedVerdicts: each recorded answer of a running Supabase Auth has this verdict.
func TestRecordedVerdicts(t *testing.T) {
	const (
		link      = "link"
		noAccount = "no account"
	)
	want := map[string]any{
		"200-known": link, "200-redirect-not-allowed": link, "200-banned": link,
		"404-unknown": noAccount, "404-read-only-unknown": noAccount, "404-database-write-unknown": noAccount,
		"400-bad-email": noAccount, "400-long-email": noAccount,
		"400-malformed-json": impl.ErrAuthUnavailable,
		"401-no-key":         impl.ErrAuthNotConfigured, "403-bad-jwt": impl.ErrAuthNotConfigured, "403-not-admin": impl.ErrAuthNotConfigured,
		"500-database-lookup": impl.ErrAuthUnavailable, "500-database-write-known": impl.ErrAuthUnavailable, "500-read-only-known": impl.ErrAuthUnavailable,
	}
	files, err := filepath.Glob("testdata/*.http")
	if err != nil || len(files) != len(want) {
		t.Fatalf("%d recorded answers, want %d (%v)", len(files), len(want), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".http")
		recorded, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ask(t, replay(t, recorded))
		switch want := want[name].(type) {
		case error:
			if !errors.Is(err, want) || got != nil {
				t.Errorf("%s: %v, %v, want %v", name, got, err, want)
			}
		case string:
			if err != nil || (got != nil) != (want == link) {
				t.Errorf("%s: %v, %v, want %s", name, got, err, want)
			}
			if got == nil {
				continue
			}
			if got.Email != "known1@example.com" || len(got.TokenHash) != 56 || !strings.Contains(got.ActionLink, got.TokenHash) {
				t.Errorf("%s: %+v", name, got)
			}
			if got.Banned != (name == "200-banned") {
				t.Errorf("%s: banned is %v", name, got.Banned)
			}
			if replaced := got.RedirectTo != redirectTo; replaced != (name == "200-redirect-not-allowed") {
				t.Errorf("%s: redirect_to is %s", name, got.RedirectTo)
			}
		default:
			t.Errorf("%s: a recorded answer without a verdict", name)
		}
	}
}

// TestFaults: an answer without a clear verdict counts as unavailable, within the deadline and the bounds, and
// its error repeats nothing of the answer.
func TestFaults(t *testing.T) {
	const secret = "never-repeat-this"
	for name, handler := range map[string]http.HandlerFunc{
		"bare 404": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, secret, http.StatusNotFound) },
		"404 of a gateway": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			io.WriteString(w, `{"message":"`+secret+`"}`)
		},
		"404, another code": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			io.WriteString(w, `{"error_code":"`+secret+`"}`)
		},
		"400, another code": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			io.WriteString(w, `{"error_code":"bad_json"}`)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/"+secret, http.StatusFound)
		},
		"garbage":      func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>"+secret) },
		"empty object": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") },
		"empty":        func(http.ResponseWriter, *http.Request) {},
		"truncated": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"email":"`+secret)
		},
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			for chunk := bytes.Repeat([]byte(" "), 64<<10); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		},
		"hang": func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() },
		"slow drip": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, " "); err != nil {
					return
				}
				http.NewResponseController(w).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		},
		"reset": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			patience, hangs := timeout, name == "hang" || name == "slow drip"
			if hangs {
				t.Parallel()
				patience = 2 * time.Second
			}
			link, err := askFor(t, patience, handler)
			if !errors.Is(err, impl.ErrAuthUnavailable) || link != nil {
				t.Errorf("%v, %v", link, err)
			}
			if text := err.Error(); strings.Contains(text, secret) || strings.Contains(text, "someone@example.com") || strings.Contains(text, "127.0.0.1") || strings.Contains(text, "the-key") {
				t.Errorf("the error tells too much: %v", err)
			}
			if timedOut := errors.Is(err, context.DeadlineExceeded); timedOut != hangs {
				t.Errorf("as a deadline: %v: %v", timedOut, err)
			}
			if errors.Is(err, delivery.ErrRefused) {
				t.Errorf("a fault of everybody is held for one of this account: %v", err)
			}
		})
	}
}

// TestAccountAtFault: a good answer with unusable content about this account is an error of the account, so the
// delivery tries it less often than a failing upstream.
func TestAccountAtFault(t *testing.T) {
	good := goodLink("known1@example.com")
	for _, c := range []struct{ name, member, value string }{
		{name: "nothing", member: "", value: ""},
		{name: "two addresses", member: "email", value: "known1@example.com,other@example.com"},
		{name: "two addresses with a space", member: "email", value: "known1@example.com, other@example.com"},
		{name: "a display name", member: "email", value: "Known <known1@example.com>"},
		{name: "angle brackets", member: "email", value: "<known1@example.com>"},
		{name: "a quoted local part", member: "email", value: `"known 1"@example.com`},
		{name: "a line break", member: "email", value: "known1@example.com\r\nBcc: other@example.com"},
		{name: "a space around it", member: "email", value: " known1@example.com"},
		{name: "no domain", member: "email", value: "known1"},
		{name: "too long an address", member: "email", value: strings.Repeat("a", 244) + "@example.com"},
		{name: "an address beyond ASCII", member: "email", value: "\u212anown1@example.com"},
		{name: "no address", member: "email", value: ""},
		{name: "no token", member: "hashed_token", value: ""},
		{name: "a token that is more than one", member: "hashed_token", value: strings.Repeat("0a", 28) + "&type=signup"},
		{name: "no link", member: "action_link", value: ""},
		{name: "a link of another kind", member: "action_link", value: "javascript:alert(1)"},
		{name: "a link with user info", member: "action_link", value: "https://user@auth.example.com/"},
		{name: "too long a link", member: "action_link", value: "https://auth.example.com/" + strings.Repeat("a", 2048)},
	} {
		changed := maps.Clone(good)
		if c.member != "" {
			changed[c.member] = c.value
		}
		link, err := ask(t, answering(changed))
		if c.member == "" {
			if err != nil || link.Email != good["email"] || link.TokenHash != good["hashed_token"] || link.ActionLink != good["action_link"] || link.RedirectTo != redirectTo {
				t.Errorf("a good answer: %+v, %v", link, err)
			}
			continue
		}
		if link != nil || !errors.Is(err, delivery.ErrRefused) || !errors.Is(err, impl.ErrAuthUnavailable) {
			t.Errorf("%s: %+v, %v", c.name, link, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "@/") {
			t.Errorf("%s: the error tells too much: %v", c.name, err)
		}
	}
}

// TestStoredAddresses: an address is read as Supabase Auth stores it, however odd or long.
func TestStoredAddresses(t *testing.T) {
	for _, stored := range []string{
		"a..b@docomo.example", ".a@docomo.example", "a.@docomo.example", "UPPER@Example.com", "plus+tag@example.com",
		strings.Repeat("l", 65) + "@example.com", strings.Repeat("l", 243) + "@example.com",
	} {
		link, err := ask(t, answering(goodLink(stored)))
		if err != nil || link.Email != stored {
			t.Errorf("%s: %+v, %v", stored, link, err)
		}
	}
}

// TestBanned: an account is banned until banned_until.
func TestBanned(t *testing.T) {
	for _, c := range []struct {
		until  any
		banned bool
	}{
		{until: nil}, {until: time.Now().Add(-time.Second)},
		{until: time.Now().Add(time.Hour), banned: true}, {until: "2126-11-02T01:02:03.456789Z", banned: true},
	} {
		answer := goodLink("known1@example.com")
		answer["banned_until"] = c.until
		link, err := ask(t, answering(answer))
		if err != nil || link.Banned != c.banned {
			t.Errorf("until %v: %+v, %v", c.until, link, err)
		}
	}
}

// TestMetadata: metadata of any content and size is skipped, and takes no memory. Bytes in it that look like a
// member or the end of the answer have no effect.
func TestMetadata(t *testing.T) {
	hostile := map[string]any{
		"email": "mallory@example.net", "hashed_token": strings.Repeat("ff", 28), "verification_type": "signup",
		`}],"email":"mallory@example.net","x":"`: []any{"]}", `\"}}`, `\\`, "{[", map[string]any{"email": "mallory@example.net"}},
		"a picture":                              strings.Repeat("<ä\u2028&>", 1000),
	}
	big := map[string]any{"nested": hostile}
	for i := range 8 {
		big[strings.Repeat("k", i+1)] = strings.Repeat("0123456789abcdef", 64<<10) // 1 MiB each
	}
	for _, c := range []struct {
		name     string
		metadata any
	}{{"hostile", hostile}, {"a list", []any{hostile, hostile}}, {"8 MiB", big}} {
		answer := goodLink("known1@example.com")
		answer["user_metadata"], answer["app_metadata"], answer["zzz_metadata"] = c.metadata, hostile, hostile
		body, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }))
		client := New(Config{AuthURL: server.URL, Key: "the-key", Timeout: timeout})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		link, err := client.MakeLink(t.Context(), "someone@example.com", redirectTo)
		runtime.ReadMemStats(&after)
		server.Close()
		if err != nil || link.Email != "known1@example.com" || link.TokenHash != answer["hashed_token"] {
			t.Errorf("%s: %+v, %v", c.name, link, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 512<<10 { // client and server, with a connection each
			t.Errorf("%s: reading %d KiB took %d KiB of memory", c.name, len(body)>>10, took>>10)
		}
	}
}

// TestTooLong: the rest of the answer has a smaller bound than metadata.
func TestTooLong(t *testing.T) {
	answer := goodLink("known1@example.com")
	answer["confirmation_sent_at"] = strings.Repeat("x", maxShallow)
	if link, err := ask(t, answering(answer)); link != nil || !errors.Is(err, impl.ErrAuthUnavailable) || !strings.Contains(err.Error(), "too large") {
		t.Errorf("%+v, %v", link, err)
	}
}

// TestLanguageField: of user_metadata only the one field is read, if it is a string that may be a language tag.
func TestLanguageField(t *testing.T) {
	for _, c := range []struct{ name, metadata, field, want string }{
		{name: "plain", metadata: `{"locale":"fr"}`, field: "locale", want: "fr"},
		{name: "among others", metadata: `{"a":{"locale":"it"},"locale":"pt-BR","z":["locale","es"]}`, field: "locale", want: "pt-BR"},
		{name: "spaced", metadata: "{ \"a\" : 1 ,\n\t\"locale\" :\r\n \"zh_TW\" , \"z\" : null }", field: "locale", want: "zh_TW"},
		{name: "another field", metadata: `{"locale":"fr","lang":"it"}`, field: "lang", want: "it"},
		{name: "off", metadata: `{"locale":"fr","":"it"}`, field: "", want: ""},
		{name: "not there", metadata: `{"local":"fr","locales":"it","LOCALE":"es"}`, field: "locale", want: ""},
		{name: "nested", metadata: `{"a":{"locale":"fr"},"b":[{"locale":"fr"}],"locale":{"locale":"fr"}}`, field: "locale", want: ""},
		{name: "a number", metadata: `{"locale":5,"x":"fr"}`, field: "locale", want: ""},
		{name: "null", metadata: `{"locale":null,"x":"fr"}`, field: "locale", want: ""},
		{name: "a list", metadata: `{"locale":["fr"],"x":"fr"}`, field: "locale", want: ""},
		{name: "empty", metadata: `{"locale":""}`, field: "locale", want: ""},
		{name: "too long", metadata: `{"locale":"` + strings.Repeat("fr-", 12) + `"}`, field: "locale", want: ""},
		{name: "much too long", metadata: `{"locale":"` + strings.Repeat("f", 1<<20) + `"}`, field: "locale", want: ""},
		{name: "beyond its bound", metadata: `{"locale":"` + strings.Repeat("f", 65) + `"}`, field: "locale", want: ""},
		{name: "escaped", metadata: `{"locale":"f\u0072"}`, field: "locale", want: ""},
		{name: "an escape", metadata: `{"locale":"fr\r\nBcc: x@evil.org"}`, field: "locale", want: ""},
		{name: "not ASCII", metadata: `{"locale":"fränçais"}`, field: "locale", want: ""},
		{name: "a name that looks like the field", metadata: `{"x\",\"locale\":\"fr":1,"y":"locale"}`, field: "locale", want: ""},
		{name: "a value that looks like the field", metadata: `{"x":"\"locale\":\"fr\"","y":"locale","z":"fr"}`, field: "locale", want: ""},
		{name: "a long name", metadata: `{"` + strings.Repeat("x", 1<<20) + `locale":"fr","y":"it"}`, field: "locale", want: ""},
		{name: "no object", metadata: `["locale","fr"]`, field: "locale", want: ""},
		{name: "a string", metadata: `"locale"`, field: "locale", want: ""},
		{name: "nothing", metadata: `{}`, field: "locale", want: ""},
	} {
		answer := goodLink("known1@example.com")
		answer["user_metadata"] = json.RawMessage(c.metadata)
		for _, beside := range []string{"app_metadata", "identities", "zzz", "User_metadata"} {
			answer[beside] = map[string]any{"locale": "ja", "user_metadata": map[string]any{"locale": "ja"}}
		}
		answer["locale"] = "ko"
		server := httptest.NewServer(answering(answer))
		link, err := New(Config{AuthURL: server.URL, Key: "the-key", Timeout: timeout, LanguageField: c.field}).MakeLink(t.Context(), "someone@example.com", redirectTo)
		server.Close()
		if err != nil || link.Email != "known1@example.com" || link.Language != c.want {
			t.Errorf("%s: %+v, %v; want %q", c.name, link, err, c.want)
		}
	}
}

func TestCheckField(t *testing.T) {
	for name, good := range map[string]bool{"locale": true, "preferred-language_2": true, strings.Repeat("x", 63): true, strings.Repeat("x", 64): false, "": false, "a.b": false, "a b": false, `a"`: false, "ä": false} {
		if err := CheckField(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// FuzzShallow: of any JSON text, read in pieces of any size, the outermost members remain, and those that are
// neither object nor list are unchanged.
func FuzzShallow(f *testing.F) {
	for _, seed := range []string{
		`{"a":1,"b":"x","c":{"d":[1,{"e":"}"}]},"f":[[],"\\\"]"],"g":null}`, `{}`, `[1,[2],{"a":3}]`, `"x{"`, `{"a\"{":{"b":1}}`, `{"a":{}} `, `{"user_metadata":{"b":{"a":1},"a":"fr"},"a":"de"}`, `{"user_metadata":["a","fr"]}`, `{"a":"\u007b"}`,
	} {
		f.Add([]byte(seed), 1)
	}
	f.Fuzz(func(t *testing.T, text []byte, piece int) {
		if piece < 1 || !json.Valid(text) {
			return
		}
		reader := &shallow{ReadCloser: io.NopCloser(&pieces{text, piece}), field: "a"}
		left, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		var whole, got map[string]json.RawMessage
		if json.Unmarshal(text, &whole) != nil {
			return // no object
		}
		var metadata map[string]any // of several members with the same name, the last counts
		if said, ok := whole["user_metadata"]; ok && strings.Count(string(text), "user_metadata") == 1 && strings.Count(string(said), `"a"`) == 1 && json.Unmarshal(said, &metadata) == nil {
			want, _ := metadata["a"].(string)
			if !languageTag.MatchString(want) || !strings.Contains(string(said), `"`+want+`"`) { // otherwise it is written with escapes
				want = ""
			}
			if _, ok := metadata["a"]; ok && reader.value != want {
				t.Fatalf("%q is read of %s, want %q", reader.value, text, want)
			}
		}
		if err := json.Unmarshal(left, &got); err != nil || len(got) != len(whole) {
			t.Fatalf("%s is left of %s: %v", left, text, err)
		}
		for name, value := range whole {
			want := string(value)
			switch want[0] {
			case '{':
				want = "{}"
			case '[':
				want = "[]"
			}
			if string(got[name]) != want {
				t.Fatalf("%s is left of %s", left, text)
			}
		}
	})
}

// pieces reads n bytes at a time.
type pieces struct {
	text []byte
	size int
}

func (p *pieces) Read(into []byte) (int, error) {
	if len(p.text) == 0 {
		return 0, io.EOF
	}
	n := copy(into[:min(len(into), p.size)], p.text)
	p.text = p.text[n:]
	return n, nil
}

// TestRetryAfter: a 429 with a Retry-After becomes an error with that time.
func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		value string
		want  time.Duration
	}{{"7", 7 * time.Second}, {"", 0}, {"soon", 0}} {
		_, err := ask(t, func(w http.ResponseWriter, _ *http.Request) {
			if c.value != "" {
				w.Header().Set("Retry-After", c.value)
			}
			w.WriteHeader(http.StatusTooManyRequests)
			io.WriteString(w, `{"error_code":"over_request_rate_limit"}`)
		})
		var busy interface{ RetryAfter() time.Duration }
		if found := errors.As(err, &busy); found != (c.want > 0) || found && busy.RetryAfter() != c.want {
			t.Errorf("%q: %v, want %v", c.value, err, c.want)
		}
		if !errors.Is(err, impl.ErrAuthUnavailable) || errors.Is(err, delivery.ErrRefused) {
			t.Errorf("%q: %v", c.value, err)
		}
	}
}

// timeout is long, for answers that do come.
const timeout = time.Minute

// goodLink is an answer with a link for an account.
func goodLink(stored string) map[string]any {
	return map[string]any{
		"email": stored, "hashed_token": strings.Repeat("0a", 28), "verification_type": "recovery",
		"action_link": "https://auth.example.com/auth/v1/verify?token=t", "redirect_to": redirectTo,
	}
}

func answering(body any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(body) }
}

// ask sends one call to the handler, and checks what every call must have.
func ask(t *testing.T, handler http.HandlerFunc) (*delivery.Link, error) {
	t.Helper()
	return askFor(t, timeout, handler)
}

func askFor(t *testing.T, patience time.Duration, handler http.HandlerFunc) (*delivery.Link, error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var sent map[string]string
		if err := json.Unmarshal(body, &sent); err != nil || len(sent) != 3 || sent["type"] != "recovery" || sent["email"] != "someone@example.com" || sent["redirect_to"] != redirectTo {
			t.Errorf("sent %s", body)
		}
		if r.Method != http.MethodPost || r.URL.Path != "/auth/v1/admin/generate_link" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s, %s", r.Method, r.URL, r.Header.Get("Content-Type"))
		}
		handler(w, r)
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return New(Config{AuthURL: server.URL + "/auth/v1/", Key: "the-key", Timeout: patience}).MakeLink(context.Background(), "someone@example.com", redirectTo)
}

// replay answers with a recorded answer.
func replay(t *testing.T, recorded []byte) http.HandlerFunc {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(recorded)), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // the recordings end where the body does
		t.Fatal(err)
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(response.StatusCode)
		w.Write(body)
	}
}
