package e2e

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/devstack"
	"github.com/resetd/resetd/test/resetdtest"
)

// TestRecords: each request has one record in the log, and each delivery has one, with the same request id and the
// same account.
func TestRecords(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{"RECIPIENT_LIMIT": "1-H"}, Accounts: []string{"locked.out@example.com"}, Banned: []string{"locked.out@example.com"}})
	const (
		mailed, nobody = `{"email":"Known@example.com"}`, `{"email":"stranger@example.org"}`
		always         = "time level msg request_id method route status duration_ms client"
	)
	cases := []struct {
		id, body          string
		outcome, delivery string // in the records of the request and of its delivery; empty: no delivery
		fields            string // fields of the request's record
	}{
		{id: "id-of-the-account", body: mailed, outcome: "accepted", delivery: "sent", fields: always + " outcome account"},
		{id: "id-of-the-banned", body: `{"email":"locked.out@example.com"}`, outcome: "accepted", delivery: "banned", fields: always + " outcome account"},
		{id: "id-of-nobody", body: nobody, outcome: "accepted", delivery: "no_account", fields: always + " outcome account"},
		{id: "id-beyond-the-limit", body: mailed, outcome: "suppressed", delivery: "", fields: always + " outcome account"},
		{id: "id-of-a-fault", body: "{}", outcome: "", delivery: "", fields: always + " code fields"},
	}
	for _, c := range cases {
		f.Post(c.body, map[string]string{"X-Request-Id": c.id})
	}
	f.Settle()
	requests, deliveries := f.recordsByID("request"), f.recordsByID("delivery")
	if len(requests) != len(cases) || len(deliveries) != 3 {
		t.Errorf("%d requests and %d deliveries are logged", len(requests), len(deliveries))
	}
	for _, c := range cases {
		if len(requests[c.id]) != 1 {
			t.Fatalf("%s: %d records of the request, want 1", c.id, len(requests[c.id]))
		}
		request := requests[c.id][0]
		if outcome, _ := request["outcome"].(string); outcome != c.outcome || request["level"] != "INFO" {
			t.Errorf("%s: logged %v, want the outcome %q", c.id, request, c.outcome)
		}
		checkFields(t, request, c.fields)
		if c.delivery == "" {
			if len(deliveries[c.id]) != 0 {
				t.Errorf("%s: there is a delivery: %v", c.id, deliveries[c.id])
			}
			continue
		}
		if len(deliveries[c.id]) != 1 {
			t.Fatalf("%s: %d records of the delivery, want 1", c.id, len(deliveries[c.id]))
		}
		delivery := deliveries[c.id][0]
		if delivery["outcome"] != c.delivery || delivery["level"] != "INFO" || delivery["tries"] != 1.0 ||
			delivery["account"] == nil || delivery["account"] != request["account"] {
			t.Errorf("%s: logged %v after %v, want the outcome %q", c.id, delivery, request, c.delivery)
		}
		if took, _ := delivery["duration_ms"].(float64); took <= 0 || took > 20_000 {
			t.Errorf("%s: its delivery took %v ms", c.id, took)
		}
		checkFields(t, delivery, "time level msg request_id outcome account tries duration_ms")
	}
	if first, limited := requests["id-of-the-account"][0], requests["id-beyond-the-limit"][0]; first["account"] != limited["account"] {
		t.Errorf("one account has two hashes: %v and %v", first["account"], limited["account"])
	}
}

// recordsByID returns the log's records with this message, by the request's id.
func (f *fixture) recordsByID(message string) map[string][]map[string]any {
	f.t.Helper()
	records := map[string][]map[string]any{}
	for _, record := range f.Log.Records(f.t, message) {
		id, _ := record["request_id"].(string)
		records[id] = append(records[id], record)
	}
	return records
}

func checkFields(t *testing.T, record map[string]any, want string) {
	t.Helper()
	var fields []string
	for name := range record {
		fields = append(fields, name)
	}
	wanted := strings.Fields(want)
	slices.Sort(fields)
	slices.Sort(wanted)
	if !slices.Equal(fields, wanted) {
		t.Errorf("the record %v has the fields %q, want %q", record["msg"], fields, wanted)
	}
}

// TestNewerRequest: of an account's undelivered requests the newest counts, whether or not the delivery of an older
// one is running. The others end as suppressed, and do not count for the limit of the address.
func TestNewerRequest(t *testing.T) {
	t.Parallel()
	const older, newer, newest = "id-of-the-older", "id-of-the-newer", "id-of-the-newest"
	outcomes := map[string]string{"id-of-the-first": "sent", older: "suppressed", newer: "suppressed", newest: "sent"}
	for _, c := range []struct {
		name  string
		first string // its lookup takes the one place
		mails int    // to the account
	}{
		{name: "while the older one waits", first: otherKnown, mails: 1},
		{name: "while an older one is delivered", first: knownEmail, mails: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			f := start(t, resetdtest.Config{
				Settings: map[string]string{"MAX_DELIVERIES": "1", "UPSTREAM_TIMEOUT": "30s"},
				Supabase: func(next http.Handler) http.Handler {
					return resetdtest.ForAddress(c.first, holdUntil(release, next))(next)
				},
			})
			ask := func(id, email, callback, language string) {
				f.Post(fmt.Sprintf(`{"email":%q,"callback_origin":%q}`, email, callback), map[string]string{"X-Request-Id": id, "Accept-Language": language})
			}
			ask("id-of-the-first", c.first, "", "")
			for deadline := time.Now().Add(20 * time.Second); len(f.Calls()) == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the first delivery did not begin")
				}
			}
			ask(older, "known@example.com", "", "")
			ask(newer, "KNOWN@example.com", "", "")
			ask(newest, "known@EXAMPLE.com", preview, "de")
			close(release)
			f.Settle()

			mails := slices.DeleteFunc(f.Stack.Mails(), func(mail devstack.Mail) bool { return mail.To[0] != knownEmail })
			if len(mails) != c.mails || !strings.Contains(mails[0].Text, preview+"/") || !strings.Contains(mails[0].Subject, "zurücksetzen") {
				t.Errorf("the account got %d mails, want %d, the last as the newest request asks for it", len(mails), c.mails)
			}
			deliveries := f.recordsByID("delivery")
			for id, outcome := range outcomes {
				if len(deliveries[id]) != 1 {
					t.Fatalf("%s: %d records of the delivery", id, len(deliveries[id]))
				}
				record := deliveries[id][0]
				if record["outcome"] != outcome {
					t.Errorf("%s: logged %v, want the outcome %s", id, record, outcome)
				}
				if outcome == "suppressed" && (record["tries"] != 0.0 || record["level"] != "INFO" || record["error"] != "a newer request for the account took its place") {
					t.Errorf("%s: logged %v", id, record)
				}
			}
			if suppressed, limited := f.Metric("resetd_mails_total", `outcome="suppressed"`), f.Metric("resetd_limited_total", `limit="recipient"`); suppressed != 2 || limited != 0 {
				t.Errorf("%v are counted as suppressed, and %v as limited, want 2 and 0", suppressed, limited)
			}
		})
	}
}

// TestLogRefusals: in a flood of refusals, the log has a sample of them and says how many were left out, or has all
// of them if the operator wants that.
func TestLogRefusals(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"", "all"} {
		f := start(t, resetdtest.Config{Settings: map[string]string{"LOG_REFUSALS": setting}})
		// They come on one connection before the first is answered, so that also on a busy machine there are more in a
		// second than are logged one by one.
		const atOnce = 200
		request := "POST " + endpoint + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
		connection, sent := f.dial(), 0
		deadline := time.Now().Add(time.Minute)
		for sent == 0 || setting == "" && len(f.Log.Records(t, "refusals")) == 0 && time.Now().Before(deadline) {
			if _, err := io.WriteString(connection, strings.Repeat(request, atOnce)); err != nil {
				t.Fatal(err)
			}
			for range atOnce {
				if a, err := connection.answer(); err != nil || a.Status != http.StatusBadRequest {
					t.Fatalf("%d, %v", a.Status, err)
				}
			}
			sent += atOnce
		}
		said := func() (records, leftOut int) {
			for _, record := range f.Log.Records(t, "refusals") {
				n, _ := record["left_out"].(float64)
				leftOut += int(n)
			}
			return len(f.Log.Records(t, "request")), leftOut
		}
		records, leftOut := said()
		for ; records+leftOut < sent && time.Now().Before(deadline); records, leftOut = said() {
			time.Sleep(10 * time.Millisecond)
		}
		if records+leftOut != sent || (leftOut > 0) != (setting == "") {
			t.Errorf("LOG_REFUSALS=%s: of %d refusals, %d are logged and %d left out", setting, sent, records, leftOut)
		}
	}
}
