package e2e

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/test/resetdtest"
)

// TestDocumentedExample: the request of the published documentation is answered 200, and its mail leads to
// SITE_URL.
func TestDocumentedExample(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{})
	got := f.Post(`{"email":"known@example.com","callback_origin":"example"}`, nil)
	if got.Status != http.StatusOK || !got.Body.Ok || got.Body.Message != impl.Acknowledgment {
		t.Fatalf("%d %s", got.Status, got.Raw)
	}
	f.Settle()
	mails := f.Stack.Mails()
	if len(mails) != 1 {
		t.Fatalf("%d mails, want 1", len(mails))
	}
	if want := site + "/reset-password?token_hash="; !strings.Contains(mails[0].Text, want) {
		t.Errorf("the mail does not lead to %s:\n%s", want, mails[0].Text)
	}
}

// TestWhoIsMailed: the stored address gets the mail, however the request spells it (SECURITY.md, promise 2).
func TestWhoIsMailed(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{})
	for _, asked := range []string{"KNOWN@Example.COM", "upper@example.com", "other.Known@example.com"} {
		if got := f.Ask(asked); got.Status != http.StatusOK {
			t.Errorf("%s: %d %s", asked, got.Status, got.Raw)
		}
	}
	f.Settle()
	var mailed []string
	for _, mail := range f.Stack.Mails() {
		mailed = append(mailed, strings.Join(mail.To, ", "))
	}
	slices.Sort(mailed)
	if want := []string{"UPPER@example.com", knownEmail, otherKnown}; !slices.Equal(mailed, want) {
		t.Errorf("mailed %q, want %q", mailed, want)
	}
}

// TestStoredAddress: an account whose stored address is not exactly one address gets no mail, and nobody else does.
// It is tried three times, because an upstream may answer wrong once.
func TestStoredAddress(t *testing.T) {
	t.Parallel()
	var edits []badLink
	for _, stored := range []string{
		"", "a@b.co, evil@x.yz", "Evil <evil@x.yz>", "evil@x.yz\r\nBcc: more@x.yz", "known@example.com ", "no address",
		"a@b.co;evil@x.yz", "<evil@x.yz>",
	} {
		edits = append(edits, badLink{name: stored, edit: func(a map[string]any) { a["email"] = stored }, tries: 3})
	}
	checkBadLinks(t, edits)
}

// TestLargeMetadata: a user gets a mail whose metadata has 1.8 MB, and contains what looks like an answer about
// another account.
func TestLargeMetadata(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{"UPSTREAM_TIMEOUT": "30s"}, Supabase: editAnswer(func(answer map[string]any) {
		answer["user_metadata"] = map[string]any{
			"avatar": strings.Repeat("0123456789", 180_000), "email": "mallory@example.net", "links": []any{map[string]any{"hashed_token": strings.Repeat("ff", 28)}},
		}
	})})
	f.Ask(knownEmail)
	f.Settle()
	if mails := f.mailsTo(); len(mails) != 1 || mails[knownEmail] != 1 {
		t.Errorf("mails to %v", mails)
	}
	if mails := f.Stack.Mails(); strings.Contains(mails[0].Text, strings.Repeat("ff", 28)) {
		t.Error("the mail carries a token of the metadata")
	}
}

// TestUnusableLinks: a 200 of Supabase Auth counts only with a usable link.
func TestUnusableLinks(t *testing.T) {
	t.Parallel()
	checkBadLinks(t, []badLink{
		{name: "no token", edit: func(a map[string]any) { delete(a, "hashed_token") }, tries: 3},
		{name: "a token to escape", edit: func(a map[string]any) { a["hashed_token"] = `x"><script>alert(1)</script>&a=b` }, tries: 3},
		{name: "a long token", edit: func(a map[string]any) { a["hashed_token"] = strings.Repeat("a", 5000) }, tries: 3},
		{name: "no link", edit: func(a map[string]any) { delete(a, "action_link") }, tries: 3},
		{name: "a script", edit: func(a map[string]any) { a["action_link"] = "javascript:alert(1)" }, tries: 3},
		{name: "another kind", edit: func(a map[string]any) { a["verification_type"] = "signup" }, tries: 0},
		{name: "another form", edit: func(a map[string]any) { a["email"] = []string{knownEmail} }, tries: 0},
	})
}

// badLink is a faulty link of Supabase Auth, for its own account.
type badLink struct {
	name  string
	edit  func(map[string]any)
	tries int // 0: until DELIVERY_TIMEOUT, because the fault may not be the account's
}

// checkBadLinks sends requests for the accounts, and checks that nobody gets a mail, and that the operator learns
// of it.
func checkBadLinks(t *testing.T, links []badLink) {
	t.Helper()
	var accounts []string
	edits := map[any]func(map[string]any){}
	for i, link := range links {
		accounts = append(accounts, fmt.Sprintf("account-%d@example.com", i))
		edits[accounts[i]] = link.edit
	}
	f := start(t, resetdtest.Config{
		Accounts: accounts, Settings: map[string]string{"DELIVERY_TIMEOUT": "6s"},
		Supabase: editAnswer(func(answer map[string]any) { edits[answer["email"]](answer) }),
	})
	byID := map[any]badLink{}
	for i, email := range accounts {
		a := f.Ask(email)
		if a.Status != http.StatusOK {
			t.Errorf("%q: %d %s", links[i].name, a.Status, a.Raw)
		}
		byID[a.Header.Get("X-Request-Id")] = links[i]
	}
	f.Settle()
	for _, mail := range f.Stack.Mails() {
		t.Errorf("mailed %v: %s", mail.To, mail.Text)
	}
	records := f.Log.Records(t, "delivery")
	if len(records) != len(links) {
		t.Errorf("%d deliveries are logged, want %d", len(records), len(links))
	}
	for _, record := range records {
		link := byID[record["request_id"]]
		tries, _ := record["tries"].(float64)
		if record["outcome"] != "undelivered" || record["level"] != "ERROR" || record["error"] == nil ||
			tries < 2 || link.tries > 0 && tries != float64(link.tries) {
			t.Errorf("%q: logged %v, want %d tries", link.name, record, link.tries)
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

// TestCallbackOrigins: with both policies, the link leads only to an allowed origin (SECURITY.md, promise 3). Package
// origin has the table of attacks. Each origin has its own account.
func TestCallbackOrigins(t *testing.T) {
	t.Parallel()
	allowed := map[string]string{
		"": site, site: site, site + "/": site, "HTTPS://APP.example.com:443": site, "HTTPS://APP.EXAMPLE.COM/": site,
		preview: preview, strings.ToUpper(preview) + "/": preview,
	}
	refused := []string{
		"example", "https://evil.example", "https://app.example.com.evil.example", "http://app.example.com",
		"https://app.example.com@evil.example", "//evil.example", "javascript:alert(1)", "https://app.example.com/path", "https://app.example.com//", "https://app.example.com/?", "https://app.example.com/#",
		"https://a.b.preview.example.com", "https://preview.example.com", "https://app.example.com\\@evil.example",
		"https://app.example.com\r\nX: y", "null",
	}
	var accounts []string
	for i := range len(allowed) + len(refused) {
		accounts = append(accounts, fmt.Sprintf("account-%d@example.com", i))
	}
	ask := func(f *fixture, email, callback string) resetdtest.Answer {
		body, _ := json.Marshal(map[string]string{"email": email, "callback_origin": callback})
		return f.Post(string(body), nil)
	}
	// checkLinks sends requests for all of them, and checks where the mails lead.
	checkLinks := func(t *testing.T, f *fixture, wanted map[string]string) {
		t.Helper()
		callbackOf := map[string]string{}
		for callback := range wanted {
			email := accounts[len(callbackOf)]
			callbackOf[email] = callback
			if got := ask(f, email, callback); got.Status != http.StatusOK {
				t.Errorf("%q: %d %s", callback, got.Status, got.Raw)
			}
		}
		f.Settle()
		mails := f.Stack.Mails()
		if len(mails) != len(wanted) {
			t.Errorf("%d mails, want %d", len(mails), len(wanted))
		}
		for _, mail := range mails {
			callback := callbackOf[mail.To[0]]
			link := regexp.MustCompile(`(?m)^https?://\S+$`).FindString(mail.Text)
			if want := wanted[callback] + "/reset-password?token_hash="; !strings.HasPrefix(link, want) {
				t.Errorf("%q: led to %q, want %q", callback, link, want)
			}
		}
	}
	t.Run("fallback", func(t *testing.T) {
		t.Parallel()
		f := start(t, resetdtest.Config{Accounts: accounts})
		wanted := maps.Clone(allowed)
		for _, callback := range refused {
			wanted[callback] = site
		}
		checkLinks(t, f, wanted)
		// The record of each request says whether its origin was replaced.
		if got := f.Metric("resetd_notices_total", `notice="callback_replaced"`); got != float64(len(refused)) {
			t.Errorf("%v callbacks are counted as replaced, want %d", got, len(refused))
		}
		noticed := 0
		for _, record := range f.Log.Records(t, "request") {
			if strings.Contains(fmt.Sprint(record["notices"]), "callback_replaced") {
				noticed++
			}
		}
		if noticed != len(refused) {
			t.Errorf("%d callbacks are logged as replaced, want %d", noticed, len(refused))
		}
	})
	t.Run("reject", func(t *testing.T) {
		t.Parallel()
		f := start(t, resetdtest.Config{Accounts: accounts, Settings: map[string]string{"CALLBACK_ORIGIN_POLICY": "reject"}})
		for _, callback := range refused {
			got := ask(f, knownEmail, callback)
			if got.Status != http.StatusBadRequest || got.Body.Code != "invalid_request" || got.Body.FieldErrors["callback_origin"] != "This origin is not allowed." {
				t.Errorf("%q: %d %s", callback, got.Status, got.Raw)
			}
		}
		got := f.Post(`{"email":"nonsense","callback_origin":"https://evil.example"}`, nil)
		if len(got.Body.FieldErrors) != 2 {
			t.Errorf("not every fault at once: %s", got.Raw)
		}
		checkLinks(t, f, allowed) // nobody else was mailed
		for _, call := range f.Calls() {
			if call.Email == knownEmail {
				t.Error("Supabase was asked for a rejected request")
			}
		}
	})
}

// TestMessage: these are the fields for Mailgun, of a mail and of the probe's test message. The test message goes to
// the operator's own address in test mode, and has no personal data.
func TestMessage(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{
		"MAIL_FROM": "Example App <no-reply@example.com>", "MAIL_REPLY_TO": "help@example.com", "BRAND_NAME": "Example",
	}})
	f.Ask(knownEmail)
	f.Ask(unknownEmail)
	f.Settle()
	mails, tests := f.Stack.Mails(), f.Stack.TestMessages()
	if len(mails) != 1 || len(tests) != 1 {
		t.Fatalf("%d mails, %d test messages, want one of each", len(mails), len(tests))
	}
	want := map[string]string{
		"from": `"Example App" <no-reply@example.com>`, "to": knownEmail, "subject": "Reset your Example password",
		"o:tag": "password-reset", "o:tracking": "no", "o:tracking-clicks": "no", "o:tracking-opens": "no",
		"o:require-tls": "true", "h:Reply-To": "<help@example.com>", "h:Auto-Submitted": "auto-generated", "h:X-Auto-Response-Suppress": "All",
		"h:Content-Language": "en",
	}
	references := map[string]bool{}
	check := func(kind string, fields map[string][]string, want map[string]string) {
		// Each message has its own References, which name nobody.
		if got := fields["h:References"]; len(got) != 1 || !regexp.MustCompile(`^<[a-z2-7]{26}@mg\.example\.com>$`).MatchString(got[0]) || references[got[0]] {
			t.Errorf("%s: References is %q", kind, got)
		} else {
			references[got[0]] = true
		}
		for name, value := range want {
			if got := fields[name]; len(got) != 1 || got[0] != value {
				t.Errorf("%s: %s is %q, want %q", kind, name, got, value)
			}
		}
		for name := range fields {
			if _, known := want[name]; !known && name != "text" && name != "html" && name != "h:References" {
				t.Errorf("%s: there is a field %s=%q", kind, name, fields[name])
			}
		}
	}
	check("mail", mails[0].Fields, want)
	delete(want, "h:Content-Language")
	want["to"], want["o:testmode"], want["subject"] = "no-reply@example.com", "yes", "resetd asks whether messages are accepted"
	check("test message", tests[0].Fields, want)
	if text := tests[0].Text + tests[0].HTML; strings.Contains(text, "://") || strings.Contains(text, "@") {
		t.Errorf("the test message has an address or a link:\n%s", text)
	}
}

// TestSender: the settings decide the sender, the address for replies, and the requirement for TLS.
func TestSender(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env                map[string]string
		from, replyTo, tls string
	}{
		"nothing set": {env: nil, from: `"app.example.com" <no-reply@mg.example.com>`, replyTo: "", tls: "true"},
		"a brand":     {env: map[string]string{"BRAND_NAME": "Acme, Inc."}, from: `"Acme, Inc." <no-reply@mg.example.com>`, replyTo: "", tls: "true"},
		"accents": {
			env:  map[string]string{"BRAND_NAME": "Müller & Söhne", "SUPPORT_EMAIL": "Hilfe für alle <hilfe@example.com>"},
			from: "=?utf-8?b?TcO8bGxlciAmIFPDtmhuZQ==?= <no-reply@mg.example.com>", replyTo: "=?utf-8?q?Hilfe_f=C3=BCr_alle?= <hilfe@example.com>", tls: "true",
		},
		"own mailboxes": {
			env:  map[string]string{"BRAND_NAME": "Acme", "SUPPORT_EMAIL": "help@example.com", "MAIL_FROM": "Äcme <a@mg.example.com>", "MAIL_REPLY_TO": "b@example.com"},
			from: "=?utf-8?q?=C3=84cme?= <a@mg.example.com>", replyTo: "<b@example.com>", tls: "true",
		},
		"TLS where it works": {env: map[string]string{"MAIL_REQUIRE_TLS": "off"}, from: `"app.example.com" <no-reply@mg.example.com>`, replyTo: "", tls: ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, resetdtest.Config{Settings: c.env})
			f.Ask(knownEmail)
			f.Settle()
			for _, mail := range append(f.Stack.Mails(), f.Stack.TestMessages()...) {
				for field, want := range map[string]string{"from": c.from, "h:Reply-To": c.replyTo, "o:require-tls": c.tls, "o:skip-verification": ""} {
					if got := strings.Join(mail.Fields[field], "|"); got != want {
						t.Errorf("%s is %q, want %q", field, got, want)
					}
				}
			}
			if len(f.Stack.Mails()) != 1 || len(f.Stack.TestMessages()) != 1 {
				t.Error("not one mail and one test message")
			}
		})
	}
}

// TestUserLanguage: if the setting names the field of an account's language, it takes precedence over the
// request's, whatever the user has written there. It is in no log or answer.
func TestUserLanguage(t *testing.T) {
	t.Parallel()
	written := map[string]any{ // and the language of the mail, by account
		"fr": "fr", "pt_BR": "pt-BR", "zh-TW": "zh-Hant", "eo": "de", "": "de", "fr,it": "de", "French": "de", "fr\r\nBcc: x@evil.org": "de",
	}
	var accounts []string
	metadata, want := map[string]map[string]any{}, map[string]any{}
	add := func(value map[string]any, language any) {
		email := fmt.Sprintf("account-%d@example.com", len(accounts))
		accounts, metadata[email], want[email] = append(accounts, email), value, language
	}
	for value, language := range written {
		add(map[string]any{"email": "evil@example.org", "locale": value, "other": map[string]any{"locale": "ja"}}, language)
	}
	add(map[string]any{"locale": 5}, "de")
	add(map[string]any{"locale": []any{"fr"}}, "de")
	add(map[string]any{"locale": map[string]any{"locale": "fr"}}, "de")
	add(map[string]any{"locale": strings.Repeat("fr-", 300_000)}, "de")
	add(map[string]any{"Locale": "fr", "lang": "it", `x","locale":"fr`: `","locale":"fr","`}, "de")
	add(map[string]any{"big": strings.Repeat("x", 1<<20), "locale": "it"}, "it")
	for name, env := range map[string]map[string]string{"on": {"USER_LANGUAGE_FIELD": "locale"}, "off": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, resetdtest.Config{Settings: env, Accounts: accounts, Metadata: metadata})
			for _, email := range accounts {
				f.Post(fmt.Sprintf(`{"email":%q}`, email), map[string]string{"Accept-Language": "de"})
			}
			f.Settle()
			mails := f.Stack.Mails()
			if len(mails) != len(accounts) {
				t.Errorf("%d mails for %d accounts", len(mails), len(accounts))
			}
			for _, mail := range mails {
				language := want[mail.To[0]]
				if name == "off" {
					language = "de"
				}
				if got := mail.Fields["h:Content-Language"]; len(got) != 1 || got[0] != language {
					t.Errorf("%.60v is mailed in %s, want %s", metadata[mail.To[0]], got, language)
				}
			}
		})
	}
}

// TestKeys: each kind of key is in the headers that need it, and in no others, from a delivery and from a probe.
func TestKeys(t *testing.T) {
	t.Parallel()
	for key, bearer := range map[string]bool{"a.service.jwt": true, "sb_secret_abc": false} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			sent := map[bool]http.Header{} // by whether it came from a probe
			f := start(t, resetdtest.Config{
				Settings: map[string]string{"SUPABASE_SERVICE_ROLE_KEY": "", "SUPABASE_SECRET_KEY": key},
				Supabase: func(http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						var question struct{ Email string }
						_ = json.NewDecoder(r.Body).Decode(&question)
						mu.Lock()
						defer mu.Unlock()
						sent[resetdtest.ProbeAddress.MatchString(question.Email)] = r.Header.Clone()
						w.WriteHeader(http.StatusNotFound)
						_, _ = io.WriteString(w, `{"code":404,"error_code":"user_not_found"}`)
					})
				},
			})
			f.Ask(unknownEmail)
			f.Settle()
			mu.Lock()
			defer mu.Unlock()
			if len(sent) != 2 {
				t.Fatalf("%d of a probe and a delivery have asked", len(sent))
			}
			for probe, got := range sent {
				if got.Get("apikey") != key {
					t.Errorf("probe %v: apikey is %q", probe, got.Get("apikey"))
				}
				if want := map[bool]string{true: "Bearer " + key}[bearer]; got.Get("Authorization") != want {
					t.Errorf("probe %v: Authorization is %q, want %q", probe, got.Get("Authorization"), want)
				}
			}
		})
	}
}

// TestActionLinks: in LINK_MODE=action_link the mail carries Supabase's own link.
func TestActionLinks(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{"LINK_MODE": "action_link"}})
	f.Ask(knownEmail)
	f.Settle()
	mails := f.Stack.Mails()
	if len(mails) != 1 {
		t.Fatalf("%d mails", len(mails))
	}
	form := regexp.MustCompile(`(?m)^http://127\.0\.0\.1:\d+/auth/v1/verify\?token=[0-9a-f]{56}&type=recovery&redirect_to=https://app\.example\.com/reset-password$`)
	if !form.MatchString(mails[0].Text) {
		t.Errorf("no action link in the mail:\n%s", mails[0].Text)
	}
}

// TestPages: the link leads to the page of the requested origin, with the token in the part that the page reads.
func TestPages(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		env      map[string]string
		callback string
		want     string // before and after the token
	}{
		"a path with a query": {
			env:  map[string]string{"RESET_PATH": "/auth/confirm?next=/account"},
			want: site + "/auth/confirm?next=/account&token_hash=…&type=recovery",
		},
		"a hash router": {
			env:  map[string]string{"RESET_PATH": "/#/reset"},
			want: site + "/#/reset?token_hash=…&type=recovery",
		},
		"a hash router with a query of its own, behind a query": {
			env:  map[string]string{"RESET_PATH": "/app?v=2#!/reset?from=mail"},
			want: site + "/app?v=2#!/reset?from=mail&token_hash=…&type=recovery",
		},
		"a path of the origin's own": {
			env:      map[string]string{"CALLBACK_ORIGINS": "https://other.example.com/konto/neu"},
			callback: "https://Other.example.com/", want: "https://other.example.com/konto/neu?token_hash=…&type=recovery",
		},
		"a path of the origin's own, a wildcard, and a query": {
			env:      map[string]string{"CALLBACK_ORIGINS": "https://*.preview.example.com/neu?x=1, https://plain.example.com"},
			callback: preview, want: preview + "/neu?x=1&token_hash=…&type=recovery",
		},
		"another origin has another path": {
			env:      map[string]string{"CALLBACK_ORIGINS": "https://*.preview.example.com/neu?x=1, https://plain.example.com"},
			callback: "https://plain.example.com", want: "https://plain.example.com/reset-password?token_hash=…&type=recovery",
		},
		"an own path is no way for callers to choose one": {
			env:      map[string]string{"CALLBACK_ORIGINS": "https://other.example.com/konto/neu"},
			callback: "https://other.example.com/konto/neu", want: site + "/reset-password?token_hash=…&type=recovery",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, resetdtest.Config{Settings: tt.env, Redirect: []string{"https://other.example.com/konto/neu", "https://plain.example.com/**"}})
			body, _ := json.Marshal(map[string]string{"email": knownEmail, "callback_origin": tt.callback})
			if got := f.Post(string(body), nil); got.Status != http.StatusOK {
				t.Fatal(got.Raw)
			}
			f.Settle()
			mails := f.Stack.Mails()
			before, after, _ := strings.Cut(tt.want, "…")
			form := regexp.QuoteMeta(before) + "[0-9a-f]{56}" + regexp.QuoteMeta(after)
			if len(mails) != 1 || !regexp.MustCompile("(?m)^"+form+"$").MatchString(mails[0].Text) {
				t.Fatalf("no %s in %v", tt.want, mails)
			}
			if !regexp.MustCompile(`href="` + regexp.QuoteMeta(html.EscapeString(before)) + "[0-9a-f]{56}" + regexp.QuoteMeta(html.EscapeString(after)) + `"`).MatchString(mails[0].HTML) {
				t.Errorf("no link to %s in the HTML", tt.want)
			}
			// Supabase gets the same page as redirect, and has it on its list.
			if got := f.Metric("resetd_notices_total", `notice="redirect_replaced"`); got != 0 {
				t.Errorf("Supabase has replaced the page %v times", got)
			}
		})
	}
}

// TestApp: Supabase's link leads to an app's own scheme, if the caller sends exactly what is listed.
func TestApp(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Accounts: []string{"second@example.com"}, Redirect: []string{"io.example.app://reset"}, Settings: map[string]string{
		"LINK_MODE": "action_link", "CALLBACK_ORIGINS": "io.example.app://reset",
	}})
	for email, callback := range map[string]string{knownEmail: "io.example.app://reset", "second@example.com": "IO.example.app://reset"} {
		body, _ := json.Marshal(map[string]string{"email": email, "callback_origin": callback})
		if got := f.Post(string(body), nil); got.Status != http.StatusOK {
			t.Fatal(got.Raw)
		}
	}
	f.Settle()
	mails := f.Stack.Mails()
	if len(mails) != 2 {
		t.Fatalf("%d mails", len(mails))
	}
	for _, mail := range mails {
		want := "io.example.app://reset#access_token="
		if mail.To[0] != knownEmail {
			want = site + "/reset-password#access_token="
		}
		link := regexp.MustCompile(`(?m)^http://127\.0\.0\.1:\d+/auth/v1/verify\?token=\S+$`).FindString(mail.Text)
		request := httptest.NewRequest(http.MethodGet, link, nil)
		recorder := httptest.NewRecorder()
		f.Stack.Supabase().ServeHTTP(recorder, request)
		if location := recorder.Header().Get("Location"); !strings.HasPrefix(location, want) {
			t.Errorf("the link of %s leads to %.60q, want %s", mail.To[0], location, want)
		}
	}
	// A page in a browser, with this scheme, may not call.
	request := newRequest(t, http.MethodOptions, f.URL+endpoint)
	request.Header.Set("Origin", "io.example.app://reset")
	request.Header.Set("Access-Control-Request-Method", http.MethodPost)
	if allowed := f.Do(request).Header.Get("Access-Control-Allow-Origin"); allowed != "" {
		t.Errorf("browsers may call from %q", allowed)
	}
}

// TestRedirectReplaced: the operator learns that Supabase has silently replaced a redirect.
func TestRedirectReplaced(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{"CALLBACK_ORIGINS": "https://new.example.net"}})
	if got := f.Post(`{"email":"known@example.com","callback_origin":"https://new.example.net"}`, nil); got.Status != http.StatusOK {
		t.Fatal(got.Raw)
	}
	f.Settle()
	record := f.Log.Records(t, "delivery")[0]
	if record["level"] != "WARN" || record["outcome"] != "sent" || fmt.Sprint(record["notices"]) != "[redirect_replaced]" {
		t.Errorf("logged %v", record)
	}
	if got := f.Metric("resetd_notices_total", `notice="redirect_replaced"`); got != 1 {
		t.Errorf("counted %v", got)
	}
	if mails := f.Stack.Mails(); len(mails) != 1 || !strings.Contains(mails[0].Text, "https://new.example.net/reset-password?token_hash=") {
		t.Errorf("mails %v", mails)
	}
}

// TestClientLimit: a refusal by the limit is documented, and reaches nothing behind it. The limit counts every
// request, valid or not.
func TestClientLimit(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{"RATE_LIMIT": "3-M,100-H"}})
	f.Ask(knownEmail)
	f.Post("nonsense", nil)
	f.Post("{}", map[string]string{"Content-Type": "text/plain"})
	f.Settle()
	calls := len(f.Calls())
	for _, body := range []string{`{"email":"known@example.com"}`, "nonsense", strings.Repeat("x", 1<<20)} {
		got := f.Post(body, nil)
		seconds, err := strconv.Atoi(got.Header.Get("Retry-After"))
		if got.Status != http.StatusTooManyRequests || got.Body.Code != "rate_limited" || err != nil ||
			seconds < 1 || seconds > 60 || got.Body.RetryAfter != float64(seconds) {
			t.Errorf("%d %v %s", got.Status, got.Header, got.Raw)
		}
		if !strings.Contains(got.Header.Get("RateLimit"), `"per-minute";r=0`) {
			t.Errorf("RateLimit is %q", got.Header.Get("RateLimit"))
		}
	}
	f.Settle()
	if after := len(f.Calls()); after != calls {
		t.Errorf("%d calls for refused requests", after-calls)
	}
	if accepted := strings.Count(f.Log.String(), `"outcome":"accepted"`); accepted != 1 {
		t.Errorf("%d requests are accepted, want the first alone", accepted)
	}
	if got := f.Do(newRequest(t, http.MethodGet, f.URL+"/healthz")); got.Status != http.StatusOK {
		t.Errorf("/healthz is limited too: %d", got.Status)
	}
}

// TestUnconfigured: a missing setting gives the documented answer, the same for every address, and no upstream is
// called.
func TestUnconfigured(t *testing.T) {
	t.Parallel()
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
		t.Run(missing, func(t *testing.T) {
			t.Parallel()
			f := start(t, resetdtest.Config{Settings: map[string]string{missing: "", "CALLBACK_ORIGINS": ""}})
			for _, email := range []string{knownEmail, unknownEmail} {
				if got := f.Ask(email); got.Status != want.status || got.Body.Code != want.code {
					t.Errorf("%d %s", got.Status, got.Raw)
				}
			}
			if got := f.Post("{}", nil); got.Status != http.StatusBadRequest {
				t.Errorf("validation comes later: %d", got.Status)
			}
			response, err := http.Get(f.Admin + "/readyz")
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			if response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), missing) {
				t.Errorf("/readyz says %d %s", response.StatusCode, body)
			}
			if err := f.Stop(); err != nil {
				t.Error(err)
			}
			if calls := f.Stack.Calls(); len(calls) != 0 {
				t.Errorf("%d calls", len(calls))
			}
		})
	}
}

// TestCORS: pages of allowed origins may call and read the answer; others may not. No page may send cookies.
func TestCORS(t *testing.T) {
	t.Parallel()
	const webViews = "capacitor://localhost,ionic://localhost/,Tauri://localhost,http://tauri.localhost,https://localhost,app://-,chrome-extension://abcdefghijklmnopabcdefghijklmnop"
	for _, c := range []struct {
		name, setting    string
		allowed, refused []string
	}{
		{
			name: "the default", setting: "",
			allowed: []string{site, preview},
			refused: []string{
				"https://evil.example", "null", "http://app.example.com", "https://app.example.com.evil.example", "capacitor://localhost",
				"https://APP.example.com", "https://app.example.com/", "*", "file://",
			},
		},
		{
			name: "web views", setting: webViews,
			allowed: []string{
				"capacitor://localhost", "ionic://localhost", "tauri://localhost", "http://tauri.localhost", "https://localhost", "app://-",
				"chrome-extension://abcdefghijklmnopabcdefghijklmnop",
			},
			refused: []string{
				site, "null", "capacitor://localhost.evil.example", "capacitor://localhost:1", "capacitor://", "capacitor://evil", "http://localhost",
				"https://localhost:8443", "Capacitor://localhost", "capacitor://localhost/", "app://--", "chrome-extension://abcdefghijklmnopabcdefghijklmnoq",
				"evil-capacitor://localhost", "https://tauri.localhost",
			},
		},
		{
			name: "every page", setting: "*",
			allowed: []string{site, "https://evil.example", "null", "capacitor://localhost", "file://", strings.Repeat("x", 5000)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := start(t, resetdtest.Config{Settings: map[string]string{"CORS_ORIGINS": c.setting}})
			for _, origin := range slices.Concat(c.allowed, c.refused) {
				want := ""
				if slices.Contains(c.allowed, origin) {
					want = origin
					if c.setting == "*" {
						want = "*"
					}
				}
				for kind, got := range map[string]resetdtest.Answer{
					"preflight": f.preflight(origin, http.MethodPost, "content-type"),
					"request":   f.Post(`{"email":"known@example.com"}`, map[string]string{"Origin": origin}),
					"error":     f.Post(`{}`, map[string]string{"Origin": origin}),
				} {
					if header := got.Header.Get("Access-Control-Allow-Origin"); header != want {
						t.Errorf("%s from %.80s: Access-Control-Allow-Origin is %q, want %q", kind, origin, header, want)
					}
					if got.Header.Get("Access-Control-Allow-Credentials") != "" {
						t.Errorf("%s from %.80s: credentials are allowed", kind, origin)
					}
					if !slices.Contains(got.Header.Values("Vary"), "Origin") {
						t.Errorf("%s from %.80s: Vary is %q", kind, origin, got.Header.Values("Vary"))
					}
					if exposed := got.Header.Get("Access-Control-Expose-Headers"); want != "" && kind != "preflight" && !strings.Contains(exposed, "Retry-After") {
						t.Errorf("%s from %.80s: exposed are %q", kind, origin, exposed)
					}
				}
			}
		})
	}
}

// TestPreflight: an allowed page may send the headers that its browser asks for, if they are valid names and not
// too many. For a preflight that a browser takes as refused, the log says why, and repeats nothing that the
// caller has chosen.
func TestPreflight(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{"LOG_LEVEL": "info"}})
	const traced = "apikey,authorization,baggage,content-type,sentry-trace,traceparent,tracestate,x-client-info"
	long := strings.Repeat("x-a,", 255) + "x-ab" // 1024 bytes
	wantNotices := map[string]float64{}
	for _, c := range []struct {
		name, origin, method, ask string
		lines                     []string // instead of ask, if a proxy has split it
		said                      string
		notice                    string
	}{
		{name: "a traced app", origin: site, method: "POST", ask: traced, said: traced},
		{name: "with spaces", origin: site, method: "POST", ask: "Content-Type, traceparent\t", said: "Content-Type, traceparent"},
		{name: "in lines", origin: site, method: "POST", lines: []string{"content-type", "traceparent"}, said: "content-type,traceparent"},
		{name: "no header", origin: site, method: "POST"},
		{name: "a star", origin: site, method: "POST", ask: "*", said: "*"},
		{name: "as many as may be", origin: site, method: "POST", ask: long, said: long},
		{name: "a GET", origin: site, method: "GET", ask: "traceparent", said: "traceparent"},
		{name: "a HEAD", origin: site, method: "HEAD", ask: "traceparent", said: "traceparent"},
		{name: "one too many", origin: site, method: "POST", ask: long + "c", notice: "cors_headers"},
		{name: "no name", origin: site, method: "POST", ask: "content-type,,traceparent", notice: "cors_headers"},
		{name: "two words", origin: site, method: "POST", ask: "content type", notice: "cors_headers"},
		{name: "a value", origin: site, method: "POST", ask: "x-a: 1", notice: "cors_headers"},
		{name: "a quote", origin: site, method: "POST", ask: `x-"a"`, notice: "cors_headers"},
		{name: "beyond ASCII", origin: site, method: "POST", ask: "x-ä", notice: "cors_headers"},
		{name: "another method", origin: site, method: "PUT", ask: traced, said: traced, notice: "cors_method"},
		{name: "a method in lower case", origin: site, method: "post", said: "", notice: "cors_method"},
		{name: "another origin", origin: "https://evil.example", method: "POST", ask: traced, notice: "cors_origin"},
		{name: "no origin", origin: "null", method: "POST", ask: traced, notice: "cors_origin"},
	} {
		lines := c.lines
		if lines == nil && c.ask != "" {
			lines = []string{c.ask}
		}
		got := f.preflight(c.origin, c.method, lines...)
		header := got.Header
		if said := header.Get("Access-Control-Allow-Headers"); got.Status != http.StatusNoContent || said != c.said {
			t.Errorf("%s: %d, Access-Control-Allow-Headers is %q, want %q", c.name, got.Status, said, c.said)
		}
		allowed := c.notice != "cors_origin"
		if methods := header.Get("Access-Control-Allow-Methods"); (methods == "POST") != allowed {
			t.Errorf("%s: Access-Control-Allow-Methods is %q", c.name, methods)
		}
		vary := strings.Join(header.Values("Vary"), ",")
		if allowed && (!strings.Contains(vary, "Access-Control-Request-Headers") || !strings.Contains(vary, "Access-Control-Request-Method")) {
			t.Errorf("%s: Vary is %q", c.name, vary)
		}
		if c.notice != "" {
			wantNotices[c.notice]++
			f.Log.Await(t, `"request_id":"`+header.Get("X-Request-Id")+`","method":"OPTIONS".*"status":204.*"notices":\["`+c.notice+`"\]}`)
		}
	}
	for notice, want := range wantNotices {
		if got := f.Metric("resetd_notices_total", `notice="`+notice+`"`); got != want {
			t.Errorf("%s is counted %v times, want %v", notice, got, want)
		}
	}
	// Preflights with the expected answer are not logged, nor are those that ask nothing.
	f.Do(newRequest(t, http.MethodOptions, f.URL+endpoint))
	noticed := 0
	for _, count := range wantNotices {
		noticed += int(count)
	}
	if logged := len(f.Log.Records(t, "request")); logged != noticed {
		t.Errorf("%d preflights are logged, want the %d that are refused", logged, noticed)
	}
	for _, sent := range []string{"evil", "x-a", "content type"} {
		if strings.Contains(f.Log.String(), sent) {
			t.Errorf("%q is in the log", sent)
		}
	}
}

// preflight asks as a browser does whether a page may send a request with such headers.
func (f *fixture) preflight(origin, method string, headers ...string) resetdtest.Answer {
	f.t.Helper()
	request := newRequest(f.t, http.MethodOptions, f.URL+endpoint)
	request.Header.Set("Origin", origin)
	request.Header.Set("Access-Control-Request-Method", method)
	for _, line := range headers {
		request.Header.Add("Access-Control-Request-Headers", line)
	}
	return f.Do(request)
}

// TestRequestID: the id of a request is kept if it is short and plain, and otherwise the server makes one.
func TestRequestID(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{})
	for id, taken := range map[string]bool{
		"abc-DEF_123": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "a b": false, "<script>": false, "ä": false,
	} {
		got := f.Post(`{}`, map[string]string{"X-Request-Id": id}).Header.Get("X-Request-Id")
		if (got == id) != taken || got == "" {
			t.Errorf("%q became %q", id, got)
		}
	}
}

// TestRecordOfRefusal: the log says why a request got 400, with names from the document.
func TestRecordOfRefusal(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{"CALLBACK_ORIGIN_POLICY": "reject"}})
	for body, want := range map[string]string{
		`{"email":"nonsense","callback_origin":"https://evil.example"}`: `"code":"invalid_request",.*"fields":\["email","callback_origin"\]`,
		`{"email":"known@example.com","Callback_Origin":""}`:            `"code":"invalid_request",.*"fields":\["callback_origin"\]`,
		`{}`: `"code":"invalid_request",.*"fields":\["email"\]`,
		`[]`: `"code":"invalid_request","client":"[0-9a-f]+"}`,
		`{`:  `"code":"invalid_json","client":"[0-9a-f]+"}`,
	} {
		id := f.Post(body, nil).Header.Get("X-Request-Id")
		f.Log.Await(t, `"request_id":"`+id+`".*`+want)
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

// version returns the server's version from its log.
func (f *fixture) version() string { return f.Log.Await(f.t, `"listening",.*"version":"([^"]+)"`) }
