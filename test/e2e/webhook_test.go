package e2e

import (
	"sync"

	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

const (
	webhooks   = "/webhooks/mailgun"
	signingKey = "key-that-signs-the-webhooks"
)

var withWebhooks = map[string]string{"MAILGUN_WEBHOOK_SIGNING_KEY": signingKey}

// report is a webhook of Mailgun about one mail, with texts that must stay private.
type report struct {
	at        time.Time // of the signature
	token     string
	key       string
	event     string
	severity  string
	recipient string
	tags      []string
	testMode  bool
	code      any
}

// newReport returns the report of a password-reset mail that will never arrive.
func newReport(recipient string) report {
	return report{
		at: time.Now(), token: strings.ToLower(rand.Text() + rand.Text())[:50], key: signingKey,
		event: "failed", severity: "permanent", recipient: recipient, tags: []string{"password-reset"}, code: 550,
	}
}

func (r report) signature() string {
	mac := hmac.New(sha256.New, []byte(r.key))
	fmt.Fprintf(mac, "%d%s", r.at.Unix(), r.token)
	return hex.EncodeToString(mac.Sum(nil))
}

// body has every kind of text that Mailgun sends, beside what is read.
func (r report) body() string {
	body, err := json.Marshal(map[string]any{
		"signature": map[string]any{"timestamp": fmt.Sprint(r.at.Unix()), "token": r.token, "signature": r.signature()},
		"event-data": map[string]any{
			"event": r.event, "severity": r.severity, "recipient": r.recipient, "recipient-domain": "domain-of-the-recipient.example",
			"tags": r.tags, "flags": map[string]any{"is-test-mode": r.testMode}, "reason": "secret-reason", "id": "secret-event-id",
			"delivery-status": map[string]any{"code": r.code, "message": "secret-message", "description": "secret-description", "mx-host": "secret-mx"},
			"envelope":        map[string]any{"targets": r.recipient, "sending-ip": "203.0.113.77"},
			"message":         map[string]any{"headers": map[string]any{"to": r.recipient, "subject": "secret-subject", "message-id": "secret-message-id"}},
			"storage":         map[string]any{"url": "https://secret-storage.example/"}, "user-variables": map[string]any{"secret-variable": "secret-value"},
		},
	})
	if err != nil {
		panic(err)
	}
	return string(body)
}

// hook posts a body to the webhooks' path.
func (f *fixture) hook(body string) resetdtest.Answer {
	f.t.Helper()
	return f.hookAs(strings.NewReader(body), "application/json")
}

func (f *fixture) hookAs(body io.Reader, mediaType string) resetdtest.Answer {
	f.t.Helper()
	request, err := http.NewRequest(http.MethodPost, f.URL+webhooks, body)
	if err != nil {
		f.t.Fatal(err)
	}
	request.Header.Set("Content-Type", mediaType)
	return f.Do(request)
}

var webhookSample = regexp.MustCompile(`(?m)^resetd_(?:delivery_events|webhook_refused)_total\{(?:event|reason)="([a-z_]+)"\} (\d+)$`)

// counted returns the webhooks' counters that are not 0.
func (f *fixture) counted() map[string]string {
	f.t.Helper()
	counts := map[string]string{}
	for _, found := range webhookSample.FindAllStringSubmatch(f.Metrics(), -1) {
		if _, twice := counts[found[1]]; twice {
			f.t.Errorf("%s is counted twice", found[1])
		}
		counts[found[1]] = found[2]
	}
	if want := []string{"age", "complained", "malformed", "other", "permanent_fail", "replay", "signature", "temporary_fail"}; !slices.Equal(slices.Sorted(maps.Keys(counts)), want) {
		f.t.Errorf("the metrics have %v, want %v", counts, want)
	}
	maps.DeleteFunc(counts, func(_, n string) bool { return n == "0" })
	return counts
}

func (f *fixture) checkCounted(when string, want map[string]string) {
	f.t.Helper()
	if got := f.counted(); !maps.Equal(got, want) {
		f.t.Errorf("%s: counted %v, want %v", when, got, want)
	}
}

const taken = "{\"ok\":true}\n"

// TestWebhooksOff: without a signing key there is nothing at the webhooks' path.
func TestWebhooksOff(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{})
	unsigned := newReport(knownEmail)
	unsigned.key = ""
	nothing := f.Do(newRequest(t, http.MethodPost, f.URL+"/webhooks/postmark"))
	for _, body := range []string{newReport(knownEmail).body(), unsigned.body(), ""} {
		if a := f.hook(body); a.Status != http.StatusNotFound || a.Raw != nothing.Raw {
			t.Errorf("%d %s, want the answer of any other path: %s", a.Status, a.Raw, nothing.Raw)
		}
	}
	f.checkCounted("without a key", map[string]string{})
}

// TestWebhooksOn: with a signing key, which a file may have, the path accepts only POST.
func TestWebhooksOn(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(signingKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := start(t, resetdtest.Config{Settings: map[string]string{"MAILGUN_WEBHOOK_SIGNING_KEY_FILE": file}})
	if a := f.hook(newReport(knownEmail).body()); a.Status != http.StatusOK || a.Raw != taken {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		if a := f.Do(newRequest(t, method, f.URL+webhooks)); a.Status != http.StatusMethodNotAllowed || a.Header.Get("Allow") == "" {
			t.Errorf("%s: %d %s", method, a.Status, a.Raw)
		}
	}
	if a := f.hookAs(nil, "application/json"); a.Status != http.StatusNotAcceptable {
		t.Errorf("no body: %d %s", a.Status, a.Raw)
	}
	if response, err := http.Post(f.Admin+webhooks, "application/json", strings.NewReader(newReport(knownEmail).body())); err != nil {
		t.Error(err)
	} else if response.Body.Close(); response.StatusCode != http.StatusNotFound {
		t.Errorf("the operator's listener answers %s", response.Status)
	}
}

// TestDeliveryEvents: the operator learns which mails did not arrive, by the hash that their request and delivery
// have in the log, and no more.
func TestDeliveryEvents(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: withWebhooks})
	f.checkCounted("at the start", map[string]string{})
	if a := f.Ask("Known@EXAMPLE.com"); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	f.Settle()
	account, _ := f.Log.Records(t, "request")[0]["account"].(string)
	if delivered := f.Log.Records(t, "delivery"); len(delivered) != 1 || delivered[0]["outcome"] != "sent" || delivered[0]["account"] != account {
		t.Fatalf("the delivery is logged as %v", delivered)
	}
	mail := f.Stack.Mails()[0]
	tags := mail.Fields["o:tag"]

	counts := map[string]int{}
	for _, c := range []struct {
		change         func(*report)
		event, level   string
		code           any
		otherRecipient bool
	}{
		{change: func(*report) {}, event: "permanent_fail", level: "WARN", code: 550.0},
		{change: func(r *report) { r.severity, r.code = "temporary", 452 }, event: "temporary_fail", level: "INFO", code: 452.0},
		{change: func(r *report) { r.event, r.severity, r.code = "complained", "", nil }, event: "complained", level: "WARN", code: nil},
		{change: func(r *report) { r.recipient = "KNOWN@example.com" }, event: "permanent_fail", level: "WARN", code: 550.0},
		{change: func(r *report) { r.recipient = otherKnown }, event: "permanent_fail", level: "WARN", code: 550.0, otherRecipient: true},
		{change: func(r *report) { r.code = 10000 }, event: "permanent_fail", level: "WARN", code: nil},
		{change: func(r *report) { r.code = "550 secret-code" }, event: "permanent_fail", level: "WARN", code: nil},
		// These are another sender's mail, or nothing to report.
		{change: func(r *report) { r.tags = []string{"newsletter"} }, event: "other", level: "", code: nil},
		{change: func(r *report) { r.testMode = true }, event: "other", level: "", code: nil},
		{change: func(r *report) { r.event = "delivered" }, event: "other", level: "", code: nil},
		{change: func(r *report) { r.event = "an-event-of-an-attacker" }, event: "other", level: "", code: nil},
		{change: func(r *report) { r.severity = "a-severity-of-an-attacker" }, event: "other", level: "", code: nil},
	} {
		r := newReport(mail.To[0])
		r.tags = tags
		c.change(&r)
		before := len(f.Log.Records(t, "delivery event"))
		a := f.hook(r.body())
		if a.Status != http.StatusOK || a.Raw != taken {
			t.Errorf("%+v: %d %s", r, a.Status, a.Raw)
		}
		counts[c.event]++
		want := map[string]string{}
		for event, n := range counts {
			want[event] = fmt.Sprint(n)
		}
		f.checkCounted(fmt.Sprintf("%+v", r), want)

		records := f.Log.Records(t, "delivery event")[before:]
		if c.level == "" {
			if len(records) != 0 {
				t.Errorf("%+v: logged: %v", r, records)
			}
			continue
		}
		if len(records) != 1 {
			t.Fatalf("%+v: %d records", r, len(records))
		}
		record := records[0]
		logged, _ := record["account"].(string)
		if !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(logged) || (logged == account) == c.otherRecipient {
			t.Errorf("%+v: the account is %q, and that of the request %q", r, logged, account)
		}
		if record["level"] != c.level || record["event"] != c.event || record["delivery_code"] != c.code || record["request_id"] != a.Header.Get("X-Request-Id") {
			t.Errorf("%+v: %v", r, record)
		}
		for name := range record {
			if !slices.Contains([]string{"time", "level", "msg", "request_id", "event", "account", "delivery_code"}, name) {
				t.Errorf("%+v: the record has %q: %v", r, name, record[name])
			}
		}
	}
}

// TestWebhookRefusals: a refused webhook counts as no event. Its answer makes Mailgun repeat (not 200 or 406)
// exactly the webhooks that may be valid later.
func TestWebhookRefusals(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: withWebhooks})
	of := func(change func(*report)) string {
		r := newReport(knownEmail)
		change(&r)
		return r.body()
	}
	good := newReport(knownEmail)
	counts := map[string]int{}
	for _, c := range []struct {
		name, body string
		status     int
		code       string
		reason     string
	}{
		{name: "another key", body: of(func(r *report) { r.key = "another" }), status: 403, code: "webhook_signature", reason: "signature"},
		{name: "no key", body: of(func(r *report) { r.key = "" }), status: 403, code: "webhook_signature", reason: "signature"},
		{name: "the API key", body: of(func(r *report) { r.key = "test-mailgun-key" }), status: 403, code: "webhook_signature", reason: "signature"},
		{name: "another token", body: strings.Replace(good.body(), good.token, newReport("").token, 1), status: 403, code: "webhook_signature", reason: "signature"},
		{name: "another key, long ago", body: of(func(r *report) { r.key, r.at = "another", time.Unix(0, 0) }), status: 403, code: "webhook_signature", reason: "signature"},
		{name: "12 hours old", body: of(func(r *report) { r.at = time.Now().Add(-12*time.Hour - time.Minute) }), status: 406, code: "webhook_expired", reason: "age"},
		{name: "6 minutes early", body: of(func(r *report) { r.at = time.Now().Add(6 * time.Minute) }), status: 400, code: "webhook_early", reason: "age"},
		{name: "no JSON", body: "timestamp=1&token=2&signature=3", status: 406, code: "webhook_malformed", reason: "malformed"},
		{name: "no signature", body: `{"event-data":{"event":"failed"}}`, status: 406, code: "webhook_malformed", reason: "malformed"},
		{name: "no event", body: strings.Replace(good.body(), "event-data", "data", 1), status: 406, code: "webhook_malformed", reason: "malformed"},
		{name: "cut off", body: good.body()[:100], status: 406, code: "webhook_malformed", reason: "malformed"},
		{name: "just not too old", body: of(func(r *report) { r.at = time.Now().Add(-12*time.Hour + time.Minute) }), status: 200, code: "", reason: "permanent_fail"},
		{name: "just not too early", body: of(func(r *report) { r.at = time.Now().Add(4 * time.Minute) }), status: 200, code: "", reason: "permanent_fail"},
		// The webhook was refused with another body, so it was not remembered.
		{name: "good", body: good.body(), status: 200, code: "", reason: "permanent_fail"},
	} {
		a := f.hook(c.body)
		if a.Status != c.status || a.Body.Code != c.code {
			t.Errorf("%s: %d %s, want %d %s", c.name, a.Status, a.Raw, c.status, c.code)
		}
		counts[c.reason]++
		want := map[string]string{}
		for reason, n := range counts {
			want[reason] = fmt.Sprint(n)
		}
		f.checkCounted(c.name, want)
	}
	warnings := 0
	for line := range strings.Lines(f.Log.String()) {
		if strings.Contains(line, `"WARN"`) && strings.Contains(line, "MAILGUN_WEBHOOK_SIGNING_KEY") {
			warnings++
		}
	}
	if warnings != 1 {
		t.Errorf("%d warnings of a wrong key for five webhooks, want one", warnings)
	}
}

// TestWebhookBodies: only one kind of body is accepted, up to 256 KiB, and the server does not wait for a longer one.
func TestWebhookBodies(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: withWebhooks})
	padded := func(size int) string {
		body := newReport(knownEmail).body()
		return body[:len(body)-1] + `,"x":"` + strings.Repeat("x", size-len(body)-7) + `"}`
	}
	for _, size := range []int{16 << 10, 16<<10 + 1, 256 << 10} {
		body := padded(size)
		if len(body) != size {
			t.Fatalf("%d bytes, want %d", len(body), size)
		}
		if a := f.hook(body); a.Status != http.StatusOK {
			t.Errorf("%d bytes: %d %s", size, a.Status, a.Raw)
		}
		body = padded(size)
		if a := f.hookAs(unannounced{strings.NewReader(body)}, "application/json"); a.Status != http.StatusOK {
			t.Errorf("%d bytes, unannounced: %d %s", size, a.Status, a.Raw)
		}
	}
	long := padded(256<<10 + 1)
	if a := f.hook(long); a.Status != http.StatusRequestEntityTooLarge || a.Body.Code != "payload_too_large" {
		t.Errorf("a byte too many: %d %s", a.Status, a.Raw)
	}
	if a := f.hookAs(unannounced{strings.NewReader(long)}, "application/json"); a.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("a byte too many, without a Content-Length: %d %s", a.Status, a.Raw)
	}
	// This one has a Content-Length and is never sent.
	if status := f.sendHook("Content-Type: application/json\r\nContent-Length: 262145\r\n\r\n{").status(); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a Content-Length of too much: %d", status)
	}
	for _, mediaType := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"} {
		if a := f.hookAs(strings.NewReader(newReport(knownEmail).body()), mediaType); a.Status != http.StatusUnsupportedMediaType {
			t.Errorf("%q: %d %s", mediaType, a.Status, a.Raw)
		}
	}
	f.checkCounted("in the end", map[string]string{"permanent_fail": "6"})
}

// unannounced removes a body's Content-Length.
type unannounced struct{ io.Reader }

// sendHook begins a request to the webhooks' path on its own connection.
func (f *fixture) sendHook(rest string) *wire {
	f.t.Helper()
	w := f.dial()
	if _, err := fmt.Fprintf(w, "POST %s HTTP/1.1\r\nHost: localhost\r\n%s", webhooks, rest); err != nil {
		f.t.Fatal(err)
	}
	return w
}

// status returns the status of the next answer.
func (w *wire) status() int {
	w.t.Helper()
	_ = w.SetReadDeadline(time.Now().Add(time.Minute))
	response, err := http.ReadResponse(w.reader, nil)
	if err != nil {
		w.t.Error(err)
		return 0
	}
	defer response.Body.Close()
	return response.StatusCode
}

// TestWebhookFlood: a sender that never ends a body takes no place from reports of password-reset mails, and takes
// only a bounded amount of memory, for a bounded time.
func TestWebhookFlood(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: withWebhooks})
	var all sync.WaitGroup
	var mu sync.Mutex
	first := time.Hour // how long the first of them was waited for
	stall := func(announced int) {
		began := time.Now()
		w := f.sendHook(fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n\r\n{", announced))
		all.Go(func() {
			// Mailgun repeats after both.
			switch status := w.status(); status {
			case http.StatusServiceUnavailable:
			case http.StatusBadRequest:
				mu.Lock()
				defer mu.Unlock()
				first = min(first, time.Since(began))
			default:
				t.Errorf("a body that never ends is answered %d", status)
			}
		})
	}
	large := func() resetdtest.Answer {
		body := newReport(knownEmail).body()
		return f.hook(body[:len(body)-1] + strings.Repeat(" ", 20_000) + "}")
	}
	for range 64 {
		stall(200) // these take no places of large bodies
		stall(200_000)
	}
	// Soon large bodies have all places, because there are more of them than places.
	a := large()
	for n := 0; n < 300 && a.Status == http.StatusOK; n++ {
		stall(200_000)
		a = large()
	}
	if a.Status != http.StatusServiceUnavailable || a.Body.Code != "webhook_overloaded" || a.Header.Get("Retry-After") == "" {
		t.Errorf("a large body without a place: %d %s", a.Status, a.Raw)
	}
	if a := f.hook(newReport(knownEmail).body()); a.Status != http.StatusOK {
		t.Errorf("a valid report meanwhile: %d %s", a.Status, a.Raw)
	}
	if a := f.Ask(knownEmail); a.Status != http.StatusOK {
		t.Errorf("a request meanwhile: %d %s", a.Status, a.Raw)
	}
	all.Wait()
	if first < 4*time.Second || first >= readTimeout {
		t.Errorf("a body that never ends was waited for %v, want 5s", first)
	}
	for range 70 { // no place is lost
		if a := large(); a.Status != http.StatusOK {
			t.Fatalf("afterwards: %d %s", a.Status, a.Raw)
		}
	}
}

// TestWebhookReplay: one signature counts once, whatever the body. A sender that repeats a report gets the same
// answer again.
func TestWebhookReplay(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: withWebhooks})
	first := newReport(knownEmail)
	altered := first
	altered.recipient, altered.event = otherKnown, "complained"
	foreign := newReport(knownEmail)
	foreign.tags = nil
	claimed := foreign
	claimed.tags = []string{"password-reset"}
	// The signed text has no separator between time and token.
	moved := strings.NewReplacer(`:"`+first.token, `:"`+fmt.Sprint(first.at.Unix())[9:]+first.token,
		fmt.Sprintf(`"%d"`, first.at.Unix()), fmt.Sprintf(`"%d"`, first.at.Unix()/10)).Replace(first.body())
	upper := strings.Replace(first.body(), first.signature(), strings.ToUpper(first.signature()), 1)
	for _, c := range []struct {
		name, body string
		status     int
		counted    string
	}{
		{name: "first", body: first.body(), status: 200, counted: "permanent_fail"},
		{name: "again", body: first.body(), status: 200, counted: "replay"},
		{name: "with another event", body: altered.body(), status: 200, counted: "replay"},
		{name: "with a number for a time", body: strings.Replace(first.body(), fmt.Sprintf(`"%d"`, first.at.Unix()), fmt.Sprint(first.at.Unix()), 1), status: 200, counted: "replay"},
		{name: "with its signature in upper case", body: upper, status: 200, counted: "replay"},
		{name: "with a digit moved", body: moved, status: 406, counted: "age"},
		{name: "without an event", body: strings.Replace(first.body(), `"failed"`, `null`, 1), status: 406, counted: "malformed"},
		{name: "another sender's mail", body: foreign.body(), status: 200, counted: "other"},
		{name: "another sender's mail with the tag", body: claimed.body(), status: 200, counted: "replay"},
		{name: "a second", body: newReport(knownEmail).body(), status: 200, counted: "permanent_fail"},
	} {
		before := f.counted()
		a := f.hook(c.body)
		if a.Status != c.status || a.Status == http.StatusOK && a.Raw != taken {
			t.Errorf("%s: %d %s, want %d", c.name, a.Status, a.Raw, c.status)
		}
		after := f.counted()
		for _, name := range slices.Concat(slices.Collect(maps.Keys(before)), slices.Collect(maps.Keys(after))) {
			if (before[name] != after[name]) != (name == c.counted) {
				t.Errorf("%s: %s went from %q to %q, want one more of %s", c.name, name, before[name], after[name], c.counted)
			}
		}
	}
	if n := len(f.Log.Records(t, "delivery event")); n != 2 {
		t.Errorf("%d events logged, want 2", n)
	}
}

// TestWebhookPrivacy: no answer, log or metric has anything of a webhook, signed or not (SECURITY.md, promise 7), and
// the answer to a report says nothing about its recipient.
func TestWebhookPrivacy(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: withWebhooks})
	var answers strings.Builder
	private := []string{"secret-", "domain-of-the-recipient", "203.0.113.77", signingKey, "known@example", "stranger", "example.org", "example.com", "made-up"}
	for _, change := range []func(*report){
		func(*report) {},
		func(r *report) { r.severity = "temporary" },
		func(r *report) { r.event = "complained" },
		func(r *report) { r.event, r.severity = "made-up", "made-up" },
		func(r *report) { r.tags = []string{"password-reset", "made-up"} },
		func(r *report) { r.testMode = true },
		func(r *report) { r.code = "made-up" },
		func(r *report) { r.code = map[string]string{"made-up": "made-up"} },
		func(r *report) { r.key = "made-up" },
		func(r *report) { r.at = time.Unix(1, 0) },
		func(r *report) { r.at = time.Now().Add(time.Hour) },
		func(r *report) { r.token = "made-up" + strings.Repeat("x", 300) },
	} {
		known, unknown := newReport(knownEmail), newReport(unknownEmail)
		change(&known)
		change(&unknown)
		private = append(private, known.token, known.signature(), unknown.token, unknown.signature())
		for _, alter := range []func(string) string{
			func(body string) string { return body },
			func(body string) string { return body }, // the same report again
			func(body string) string { return body[:len(body)-10] },
			func(body string) string { return "made-up" + body },
			func(body string) string {
				return strings.Replace(body, `"recipient":`, `"recipient":{"made-up":1},"x":`, 1)
			},
		} {
			a, b := f.hook(alter(known.body())), f.hook(alter(unknown.body()))
			if a.Status != b.Status || a.Raw != b.Raw {
				t.Errorf("an account's is answered %d %s, a stranger's %d %s", a.Status, a.Raw, b.Status, b.Raw)
			}
			_ = a.Header.Write(&answers)
			_ = b.Header.Write(&answers)
			answers.WriteString(a.Raw + b.Raw)
		}
	}
	for _, mediaType := range []string{"text/made-up", "application/json; made-up"} {
		answers.WriteString(f.hookAs(strings.NewReader(newReport(knownEmail).body()), mediaType).Raw)
	}
	if err := f.Stop(); err != nil {
		t.Fatal(err)
	}
	logs := f.Log.String()
	// The records of the start are in this log too. They have only the addresses of the listeners.
	if len(f.Log.Records(t, "delivery event")) == 0 || !strings.Contains(logs, webhooks) {
		t.Fatalf("the log is not at debug:\n%s", logs)
	}
	for where, text := range map[string]string{"the log": logs, "an answer": answers.String()} {
		for _, secret := range private {
			if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
				t.Errorf("%s tells %q", where, secret)
			}
		}
	}
}

// TestWebhookMetricsPrivacy: the same holds for the metrics.
func TestWebhookMetricsPrivacy(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: withWebhooks})
	r := newReport(knownEmail)
	f.hook(r.body())
	for _, event := range []string{"made-up", "delivered", "failed\"} 1\n"} {
		r := newReport(knownEmail)
		r.event, r.severity = event, event
		f.hook(r.body())
	}
	f.checkCounted("in the end", map[string]string{"permanent_fail": "1", "other": "3"})
	for _, private := range []string{"made-up", `="delivered"`, "known@", "secret-", r.token, r.signature(), signingKey} {
		if strings.Contains(f.Metrics(), private) {
			t.Errorf("the metrics tell %q", private)
		}
	}
}

// TestWebhooksChangeNoAnswer: a report about an address changes nothing for its requests: neither the answer, nor the
// calls, nor the mail.
func TestWebhooksChangeNoAnswer(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: withWebhooks})
	ask := func(email string) string {
		calls := len(f.Calls())
		a := f.Ask(email)
		f.Settle()
		for _, name := range []string{"Date", "X-Request-Id", "Ratelimit"} {
			if a.Header.Get(name) == "" {
				t.Errorf("no %s", name)
			}
			a.Header.Del(name)
		}
		var wire bytes.Buffer
		fmt.Fprintln(&wire, a.Status)
		_ = a.Header.Write(&wire)
		fmt.Fprint(&wire, a.Raw)
		for _, call := range f.Calls()[calls:] {
			fmt.Fprintln(&wire, call.Method, call.Path, call.To, call.TestMode)
		}
		return wire.String()
	}
	before := map[string]string{}
	for _, email := range []string{knownEmail, unknownEmail} {
		before[email] = ask(email)
	}
	for _, email := range []string{knownEmail, unknownEmail} {
		for _, event := range []struct{ event, severity string }{
			{event: "failed", severity: "permanent"},
			{event: "failed", severity: "temporary"},
			{event: "complained", severity: ""},
		} {
			r := newReport(email)
			r.event, r.severity = event.event, event.severity
			if a := f.hook(r.body()); a.Status != http.StatusOK {
				t.Fatalf("%d %s", a.Status, a.Raw)
			}
		}
	}
	f.checkCounted("before the second time", map[string]string{"permanent_fail": "2", "temporary_fail": "2", "complained": "2"})
	for email, want := range before {
		if got := ask(email); got != want {
			t.Errorf("%s: first\n%s\nand then\n%s", email, want, got)
		}
	}
}

// TestWebhooksAndTheLimit: the clients' limit does not count webhooks, whatever address Mailgun sends them from.
func TestWebhooksAndTheLimit(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: with(withWebhooks, map[string]string{"RATE_LIMIT": "2-H"})})
	for range 5 {
		a := f.hook(newReport(knownEmail).body())
		if a.Status != http.StatusOK {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
		for name := range a.Header {
			if strings.HasPrefix(name, "Ratelimit") {
				t.Errorf("a webhook is told %s", name)
			}
		}
	}
	for range 2 {
		if a := f.Ask(unknownEmail); a.Status != http.StatusOK {
			t.Errorf("webhooks were counted: %d %s", a.Status, a.Raw)
		}
	}
	if a := f.Ask(unknownEmail); a.Status != http.StatusTooManyRequests {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	if a := f.hook(newReport(knownEmail).body()); a.Status != http.StatusOK {
		t.Errorf("from a limited client: %d %s", a.Status, a.Raw)
	}
}
