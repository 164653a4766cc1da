//go:build supabase && database

package supabase

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The tests of this file change the database of Supabase Auth, or stop something. They are built only if the
// tests own both.

const ownsDatabase = true

// databaseKinds are kinds of users that only the database can make.
func databaseKinds() []kind {
	return []kind{
		{name: "stored in capitals", after: bySQL(`UPDATE auth.users SET email = upper(email) WHERE id = '$ID'`),
			stored: func(p *person) string { return strings.ToUpper(p.email) }, outcome: "sent"},
		{name: "OAuth only", more: map[string]any{"password": ""}, after: bySQL(`
			UPDATE auth.users SET encrypted_password = NULL, raw_app_meta_data = '{"provider":"google","providers":["google"]}' WHERE id = '$ID';
			UPDATE auth.identities SET provider = 'google', provider_id = '1234567890' WHERE user_id = '$ID'`), outcome: "sent"},
		{name: "SSO alone", after: bySQL(`UPDATE auth.users SET is_sso_user = true WHERE id = '$ID'`), outcome: "no_account"},
		{name: "beside SSO", after: bySQL(`INSERT INTO auth.users (instance_id, id, aud, role, email, is_sso_user, raw_user_meta_data)
			SELECT instance_id, gen_random_uuid(), aud, role, email, true, '{"sso":true}' FROM auth.users WHERE id = '$ID'`), outcome: "sent"},
		{name: "anonymous, with an address to be confirmed", after: bySQL(`UPDATE auth.users SET is_anonymous = true, email = NULL, email_change = '$EMAIL' WHERE id = '$ID'`), outcome: "no_account"},
		{name: "phone only", after: bySQL(`UPDATE auth.users SET email = NULL, phone = '15550001111', phone_confirmed_at = now() WHERE id = '$ID'`), outcome: "no_account"},
		{name: "soft-deleted by SQL", after: bySQL(`UPDATE auth.users SET deleted_at = now() WHERE id = '$ID'`), outcome: "sent"},
		{name: "of another audience", after: bySQL(`UPDATE auth.users SET aud = 'other' WHERE id = '$ID'`), outcome: "no_account"},
	}
}

// bySQL changes the account $ID of $EMAIL in ways that the admin API does not offer.
func bySQL(statement string) func(*testing.T, *person) {
	return func(t *testing.T, p *person) {
		t.Helper()
		if err := supabase.database.exec(strings.NewReplacer("$ID", p.id, "$EMAIL", p.email).Replace(statement)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReadOnlyDatabase: with a read-only database, Supabase Auth makes no link for an account, and answers as
// usual for an unknown address. Callers get 200, and the mail goes out when the database is writable again.
// Only `resetd check --send-to` notices it.
func TestReadOnlyDatabase(t *testing.T) {
	r := startResetd(t)
	p := newPerson(t, newAddress("read-only"), nil)
	set := func(value string) {
		t.Helper()
		// Open sessions keep the setting that they began with.
		err := supabase.database.exec(`ALTER ROLE supabase_auth_admin SET default_transaction_read_only = ` + value + `;
			SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'supabase_auth_admin'`)
		if err != nil {
			t.Fatal(err)
		}
		// The first call over an ended connection notices that it is ended.
		r.await("Supabase Auth is not back", func() bool {
			got := supabase.call(t, http.MethodPost, "/admin/generate_link", supabase.key, map[string]string{"type": "recovery", "email": newAddress("nobody")})
			return got.text("error_code") == "user_not_found"
		})
	}
	set("on")
	defer set("off")
	status, id := r.ask(p.email)
	if status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	if outcome := r.outcome(newAddress("nobody")); outcome != "no_account" {
		t.Errorf("outcome %s", outcome)
	}
	if out, status := r.check(); status != 0 || strings.Contains(out, "FAILED") {
		t.Errorf("check: status %d\n%s", status, out)
	}
	if out, status := r.check("--send-to", p.email); status != 1 || !regexp.MustCompile(`(?m)^FAILED  mail .*status 500, unexpected_failure.*its database, which can be read but perhaps not written`).MatchString(out) {
		t.Errorf("check --send-to: status %d\n%s", status, out)
	}
	if len(r.mailgun.Mails()) > 0 || r.ended(id) != "" {
		t.Errorf("%d mails, and the delivery ended as %q", len(r.mailgun.Mails()), r.ended(id))
	}
	set("off")
	r.await("the mail does not go out", func() bool { return r.ended(id) == "sent" })
	p.reset(r.link(p.email))
}

// TestLockedRow: an account with a locked row delays nobody else, and is mailed when the row is unlocked.
func TestLockedRow(t *testing.T) {
	r := startResetd(t, "UPSTREAM_TIMEOUT=2s")
	p, other := newPerson(t, newAddress("locked"), nil), newPerson(t, newAddress("other"), nil)
	lock := supabase.database.psql(t.Context(), `BEGIN; SELECT id FROM auth.users WHERE id = '`+p.id+`' FOR UPDATE; SELECT pg_sleep(600)`)
	if err := lock.Start(); err != nil {
		t.Fatal(err)
	}
	r.await("the row is not locked", func() bool {
		return supabase.database.exec(`SELECT id FROM auth.users WHERE id = '`+p.id+`' FOR UPDATE NOWAIT`) != nil
	})
	status, id := r.ask(p.email)
	if status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	time.Sleep(5 * time.Second) // time for two calls until UPSTREAM_TIMEOUT
	if outcome := r.outcome(other.email); outcome != "sent" {
		t.Errorf("another account: outcome %s", outcome)
	}
	if got := r.ended(id); got != "" {
		t.Errorf("the delivery ended as %q", got)
	}
	_ = lock.Process.Kill()
	_ = lock.Wait()
	// The session sleeps on without its client.
	_ = supabase.database.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()`)
	r.await("the mail does not go out", func() bool { return r.ended(id) == "sent" })
	p.reset(r.link(p.email))
}

// TestOutages: while Supabase Auth or its database is away, callers learn of it after a few seconds, for every
// address. Mail of requests accepted before goes out when it is back.
func TestOutages(t *testing.T) {
	for _, outage := range []struct {
		name  string
		begin func()
		end   func() error
	}{
		{name: "a stopped database", begin: supabase.database.stop, end: supabase.database.start},
		{name: "a restarted Auth", begin: supabase.stop, end: supabase.start},
	} {
		t.Run(outage.name, func(t *testing.T) {
			r := startResetd(t)
			p := newPerson(t, newAddress("outage"), nil)
			if outcome := r.outcome(newAddress("nobody")); outcome != "no_account" { // so the verdict is that it serves
				t.Errorf("before: outcome %s", outcome)
			}
			outage.begin()
			ended := false
			defer func() {
				if !ended {
					_ = outage.end()
				}
			}()
			status, id := r.ask(p.email)
			if status != http.StatusOK {
				t.Errorf("at its beginning: status %d", status)
			}
			r.await("nobody is told", func() bool { status, _ := r.ask(newAddress("nobody")); return status == http.StatusServiceUnavailable })
			if status, _ := r.ask(p.email); status != http.StatusServiceUnavailable {
				t.Errorf("for an account: status %d", status)
			}
			if out, status := r.check(); status != 1 || !strings.Contains(out, "FAILED  supabase") {
				t.Errorf("check: status %d\n%s", status, out)
			}
			ended = true
			if err := outage.end(); err != nil {
				t.Fatal(err)
			}
			r.await("the mail does not go out", func() bool { return r.ended(id) == "sent" })
			p.reset(r.link(p.email))
		})
	}
}
