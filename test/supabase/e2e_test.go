//go:build supabase

// Package e2e tests the whole way with a real Supabase Auth: an account, a request to the real resetd, its mail at
// a stand-in for Mailgun, the link, a new password, and a sign-in with it. `make e2e` says where Supabase Auth
// comes from.
package supabase

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

const oldPassword, newPassword = "the-old-passphrase-1", "the-new-passphrase-2"

// newAddress returns an address without an account.
func newAddress(local string) string {
	raw := make([]byte, 4)
	rand.Read(raw) // never fails (crypto/rand)
	return local + "-" + hex.EncodeToString(raw) + "@test.example"
}

// person is a user with an account.
type person struct {
	t     *testing.T
	id    string
	email string // as given to Supabase Auth
}

// newPerson makes an account, with more members if given.
func newPerson(t *testing.T, email string, more map[string]any) *person {
	t.Helper()
	params := map[string]any{"email": email, "password": oldPassword, "email_confirm": true}
	for name, value := range more {
		params[name] = value
	}
	return keep(t, email, supabase.must(t, http.MethodPost, "/admin/users", supabase.key, params))
}

// invite makes an account by an invitation that is not accepted.
func invite(t *testing.T, email string) *person {
	t.Helper()
	return keep(t, email, supabase.must(t, http.MethodPost, "/admin/generate_link", supabase.key, map[string]string{"type": "invite", "email": email}))
}

// keep removes an account at the end of the test.
func keep(t *testing.T, email string, made answer) *person {
	p := &person{t: t, email: email, id: made.text("id")}
	t.Cleanup(func() { supabase.call(t, http.MethodDelete, "/admin/users/"+p.id, supabase.key, struct{}{}) })
	return p
}

// signIn returns the answer to a sign-in.
func (p *person) signIn(password string) answer {
	p.t.Helper()
	return supabase.call(p.t, http.MethodPost, "/token?grant_type=password", "", map[string]string{"email": p.email, "password": password})
}

// verify uses up a link of LINK_MODE=token_hash, as the app's page does.
func verify(t *testing.T, link string) answer {
	t.Helper()
	parsed, err := url.Parse(link)
	if err != nil || parsed.Scheme+"://"+parsed.Host+parsed.Path != site+"/reset-password" || parsed.Query().Get("type") != "recovery" {
		t.Fatalf("the link %q, %v", link, err)
	}
	return supabase.call(t, http.MethodPost, "/verify", "", map[string]string{"type": "recovery", "token_hash": parsed.Query().Get("token_hash")})
}

func setPassword(t *testing.T, token string) answer {
	t.Helper()
	return supabase.call(t, http.MethodPut, "/user", token, map[string]string{"password": newPassword})
}

// reset follows the link of a mail until the sign-in with a new password.
func (p *person) reset(link string) {
	p.t.Helper()
	session := verify(p.t, link)
	if session.status != http.StatusOK {
		p.t.Fatalf("the link: %v", session)
	}
	if again := verify(p.t, link); again.status != http.StatusForbidden || again.text("error_code") != "otp_expired" {
		p.t.Errorf("the link, used again: %v", again)
	}
	if got := setPassword(p.t, session.text("access_token")); got.status != http.StatusOK {
		p.t.Fatalf("the new password: %v", got)
	}
	p.hasNewPassword()
}

func (p *person) hasNewPassword() {
	p.t.Helper()
	if got := p.signIn(newPassword); got.status != http.StatusOK {
		p.t.Errorf("signing in with the new password: %v", got)
	}
	if got := p.signIn(oldPassword); got.status != http.StatusBadRequest {
		p.t.Errorf("signing in with the old password: %v", got)
	}
}

// TestTokenHash: the link leads to the app and works once, and the link before it no longer works.
func TestTokenHash(t *testing.T) {
	r := startResetd(t)
	p := newPerson(t, newAddress("token-hash"), nil)
	var links []string
	for range 2 {
		if outcome := r.outcome(p.email); outcome != "sent" {
			t.Fatalf("outcome %s", outcome)
		}
		links = append(links, r.link(p.email))
	}
	if got := verify(t, links[0]); got.status != http.StatusForbidden || got.text("error_code") != "otp_expired" {
		t.Errorf("the older link: %v", got)
	}
	p.reset(links[1])
}

// TestActionLink: Supabase's own link signs the user in to the app, once.
func TestActionLink(t *testing.T) {
	r := startResetd(t, "LINK_MODE=action_link")
	p := newPerson(t, newAddress("action-link"), nil)
	if outcome := r.outcome(p.email); outcome != "sent" {
		t.Fatalf("outcome %s", outcome)
	}
	link := r.link(p.email)
	follow := func() url.Values {
		t.Helper()
		got := supabase.call(t, http.MethodGet, link, "", nil)
		location, err := url.Parse(got.header.Get("Location"))
		if err != nil || got.status != http.StatusSeeOther {
			t.Fatalf("following the link: %v, %v", got, err)
		}
		if supabase.database != nil && location.Scheme+"://"+location.Host+location.Path != site+"/reset-password" {
			t.Errorf("it leads to %s", location)
		}
		values, _ := url.ParseQuery(location.Fragment)
		return values
	}
	session := follow()
	if again := follow(); again.Get("error_code") != "otp_expired" {
		t.Errorf("the link, used again: %v", again)
	}
	if got := setPassword(t, session.Get("access_token")); got.status != http.StatusOK {
		t.Fatalf("the new password: %v", got)
	}
	p.hasNewPassword()
}

// kind is a kind of user.
type kind struct {
	name  string
	email string         // empty: a usual address
	more  map[string]any // members at the creation
	after func(t *testing.T, p *person)
	// askFor is the address in the request; empty: email.
	askFor  func(p *person) string
	outcome string
	stored  func(p *person) string // the address that is mailed; nil: as given
}

func kinds() []kind {
	long := strings.Repeat("l", 255-len("@test.example"))
	lower := func(p *person) string { return strings.ToLower(p.email) }
	none := func(*person) string { return newAddress("nobody") }
	return []kind{
		{name: "confirmed", outcome: "sent"},
		{name: "unconfirmed", more: map[string]any{"email_confirm": false}, outcome: "sent"},
		{name: "invited", outcome: "sent"},
		{name: "banned", more: map[string]any{"ban_duration": "24h"}, outcome: "banned"},
		{name: "banned once", more: map[string]any{"ban_duration": "1ms"}, outcome: "sent"},
		{name: "without a password", more: map[string]any{"password": ""}, outcome: "sent"},
		{name: "deleted", after: func(t *testing.T, p *person) {
			supabase.must(t, http.MethodDelete, "/admin/users/"+p.id, supabase.key, struct{}{})
		}, outcome: "no_account"},
		{name: "soft-deleted", after: func(t *testing.T, p *person) {
			supabase.must(t, http.MethodDelete, "/admin/users/"+p.id, supabase.key, map[string]bool{"should_soft_delete": true})
		}, outcome: "no_account"},
		{name: "nobody", askFor: none, outcome: "no_account"},

		// Addresses.
		{name: "in capitals, asked for", askFor: func(p *person) string { return strings.ToUpper(p.email) }, outcome: "sent"},
		{name: "given in capitals", email: "Given.In.Capitals@Test.Example", stored: lower, outcome: "sent"},
		{name: "a plus", email: newAddress("plus+tag"), outcome: "sent"},
		{name: "all signs", email: newAddress("o'brien!#$%&*+-/=?^_`{|}~"), outcome: "sent"},
		{name: "the longest", email: long + "@test.example", outcome: "sent"},
		{name: "a local part of 65", email: long[:65] + "@test.example", outcome: "sent"},
		{name: "two dots", email: "a.." + newAddress("b"), outcome: "sent"},
		{name: "a dot first", email: "." + newAddress("a"), outcome: "sent"},
		{name: "a dot last", email: strings.Replace(newAddress("a"), "@", ".@", 1), outcome: "sent"},
		{name: "dots alone", email: "...@test.example", outcome: "sent"},
	}
}

// TestKinds: these kinds of users get a mail at this address and can set a new password, or get none.
func TestKinds(t *testing.T) {
	r := startResetd(t)
	for _, k := range append(kinds(), databaseKinds()...) {
		t.Run(k.name, func(t *testing.T) {
			if k.email == "" {
				k.email = newAddress(strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(k.name)))
			}
			var p *person
			if k.name == "invited" {
				p = invite(t, k.email)
			} else {
				p = newPerson(t, k.email, k.more)
			}
			if k.after != nil {
				k.after(t, p)
			}
			asked, stored := p.email, p.email
			if k.askFor != nil {
				asked = k.askFor(p)
			}
			if k.stored != nil {
				stored = k.stored(p)
			}
			before := len(r.mailgun.Mails())
			if got := r.outcome(asked); got != k.outcome {
				t.Fatalf("outcome %s, want %s", got, k.outcome)
			}
			if k.outcome != "sent" {
				if mails := len(r.mailgun.Mails()); mails != before {
					t.Errorf("%d mails", mails-before)
				}
				return
			}
			p.reset(r.link(stored))
		})
	}
}

// TestRefusedAddresses: Supabase Auth does not store addresses that resetd refuses.
func TestRefusedAddresses(t *testing.T) {
	r := startResetd(t)
	for _, email := range []string{
		strings.Repeat("l", 243) + "@test.example", `"quoted"@test.example`, `"a..b"@test.example`, "ä@test.example", "a@täst.example",
		"a b@test.example", "a@test..example", "a@-test.example", "a@test.example.", "a,b@test.example", "a@[127.0.0.1]", "Name <a@test.example>",
	} {
		if status, _ := r.ask(email); status != http.StatusBadRequest {
			t.Errorf("%q: resetd answers %d", email, status)
		}
		got := supabase.call(t, http.MethodPost, "/admin/users", supabase.key, map[string]any{"email": email, "email_confirm": true})
		if got.status != http.StatusBadRequest || got.text("error_code") != "validation_failed" {
			t.Errorf("%q: Supabase Auth answers %v", email, got)
		}
	}
}

// enroll gives an account a second factor, and returns its secret and a way to pass it in a session.
func (p *person) enroll() (secret string, pass func(token string) answer) {
	p.t.Helper()
	first := p.signIn(oldPassword).text("access_token")
	factor := supabase.must(p.t, http.MethodPost, "/factors", first, map[string]string{"factor_type": "totp", "friendly_name": "phone"})
	totp, _ := factor.body["totp"].(map[string]any)
	secret, _ = totp["secret"].(string)
	pass = func(token string) answer {
		p.t.Helper()
		path := "/factors/" + factor.text("id")
		challenge := supabase.must(p.t, http.MethodPost, path+"/challenge", token, struct{}{})
		return supabase.must(p.t, http.MethodPost, path+"/verify", token, map[string]string{"challenge_id": challenge.text("id"), "code": code(p.t, secret)})
	}
	pass(first)
	return secret, pass
}

// TestSecondFactor: with MFA, setting the new password requires a code of the user's device. The app's page has
// to ask for it.
func TestSecondFactor(t *testing.T) {
	r := startResetd(t)
	p := newPerson(t, newAddress("factor"), nil)
	_, pass := p.enroll()
	if outcome := r.outcome(p.email); outcome != "sent" {
		t.Fatalf("outcome %s", outcome)
	}
	session := verify(t, r.link(p.email))
	if got := setPassword(t, session.text("access_token")); got.status != http.StatusUnauthorized || got.text("error_code") != "insufficient_aal" {
		t.Errorf("the new password without the code: %v", got)
	}
	if got := setPassword(t, pass(session.text("access_token")).text("access_token")); got.status != http.StatusOK {
		t.Errorf("the new password with the code: %v", got)
	}
	p.hasNewPassword()
}

// code returns the current code (RFC 6238: HMAC-SHA-1, six digits, 30 s).
func code(t *testing.T, secret string) string {
	t.Helper()
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha1.New, key)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(time.Now().Unix()/30)))
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0x0f
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(sum[at:])&0x7fffffff)%1_000_000)
}

// TestLargeMetadata: a user with megabytes of metadata gets a mail too.
func TestLargeMetadata(t *testing.T) {
	r := startResetd(t)
	for _, size := range []int{600 << 10, 1_800_000} {
		p := newPerson(t, newAddress("metadata"), nil)
		token := p.signIn(oldPassword).text("access_token")
		for i := 0; size > 0; i++ {
			part := min(size, 900_000) // Supabase Auth accepts 1 MiB in each call, and keeps earlier members
			supabase.must(t, http.MethodPut, "/user", token, map[string]any{"data": map[string]string{fmt.Sprint("part-", i): strings.Repeat("x", part)}})
			size -= part
		}
		if outcome := r.outcome(p.email); outcome != "sent" {
			t.Fatalf("outcome %s", outcome)
		}
		session := verify(t, r.link(p.email))
		if session.status != http.StatusOK {
			t.Fatalf("the link: %d", session.status)
		}
		// The token contains the metadata, and a header holds 1 MiB.
		token = session.text("access_token")
		got := setPassword(t, token)
		if want := len(token) < 1<<20; (got.status == http.StatusOK) != want {
			t.Errorf("with a token of %d bytes, the new password: %v", len(token), got)
		}
	}
}

// TestCheck: `resetd check` passes, and with a wrong key it fails.
func TestCheck(t *testing.T) {
	r := startResetd(t)
	p := newPerson(t, newAddress("check"), nil)
	banned := newPerson(t, newAddress("banned"), map[string]any{"ban_duration": "24h"})
	expect := func(out string, status, want int, lines ...string) {
		t.Helper()
		if status != want {
			t.Errorf("status %d, want %d", status, want)
		}
		for _, line := range lines {
			if !regexp.MustCompile(`(?m)^` + line).MatchString(out) {
				t.Errorf("no line is like %s", line)
			}
		}
		if t.Failed() {
			t.Logf("check prints\n%s", out)
		}
	}
	out, status := r.check("--send-to", p.email)
	expect(out, status, 0, `ok      supabase  the key is accepted`, `note    supabase  Supabase Auth is (under 1|\d+) ms away, there and back`,
		`ok      mailgun   `, `ok      mail      sent to the address stored with the account of `)
	if supabase.database != nil {
		expect(out, status, 0, `ok      redirect  Supabase lets links lead to https://app\.example\.com/reset-password`)
	}
	p.reset(r.link(p.email))
	out, status = r.check("--send-to", banned.email)
	expect(out, status, 1, `FAILED  mail      nothing was sent to .*: the account is banned`)

	r.environ = append(r.environ, "SUPABASE_SERVICE_ROLE_KEY="+serviceRole("the-secret-of-another-supabase-auth"))
	out, status = r.check()
	expect(out, status, 1, `FAILED  supabase  the key is refused, twice \(status 40[13], `)
}

// TestBannedLink: a link for a banned account opens nothing, which is why it is not mailed.
func TestBannedLink(t *testing.T) {
	p := newPerson(t, newAddress("banned"), map[string]any{"ban_duration": "24h"})
	link := supabase.must(t, http.MethodPost, "/admin/generate_link", supabase.key, map[string]string{"type": "recovery", "email": p.email})
	until, err := time.Parse(time.RFC3339Nano, link.text("banned_until"))
	if err != nil || time.Until(until) < 23*time.Hour {
		t.Errorf("banned until %v, %v", link.body["banned_until"], err)
	}
	got := supabase.call(t, http.MethodPost, "/verify", "", map[string]string{"type": "recovery", "token_hash": link.text("hashed_token")})
	if got.status != http.StatusForbidden || got.text("error_code") != "user_banned" {
		t.Errorf("its link: %v", got)
	}
}
