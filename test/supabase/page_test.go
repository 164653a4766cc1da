//go:build supabase

package supabase

import (
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// submission is a submission of the form on the page in README.md.
type submission struct {
	Password string `json:"password"`
	Code     string `json:"code"`
}

// submit opens the page of README.md by a link, and submits its form. It returns what the page tells the user.
func submit(t *testing.T, link string, submissions ...submission) (told []string) {
	t.Helper()
	args := []string{"../web/supabase/page.mjs", supabase.url, supabase.key, link}
	for _, s := range submissions {
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, string(text))
	}
	out, err := exec.Command("node", args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Logf("%s", exit.Stderr)
		}
		t.Fatalf("node: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		var text *string
		if err := json.Unmarshal([]byte(line), &text); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if text == nil {
			told = append(told, "")
		} else {
			told = append(told, *text)
		}
	}
	return told
}

const (
	expired = "This link is invalid or has expired. Ask for another one."
	weak    = "This password is too easy to guess."
)

// TestPage: the page of README.md sets the password, asks for the second factor, and tells the user of every
// error. After a correction, the same link still works.
func TestPage(t *testing.T) {
	r := startResetd(t)
	mailed := func(t *testing.T, p *person) string {
		t.Helper()
		if outcome := r.outcome(p.email); outcome != "sent" {
			t.Fatalf("outcome %s", outcome)
		}
		return r.link(p.email)
	}
	expect := func(t *testing.T, told []string, want ...string) {
		t.Helper()
		if !slices.Equal(told, want) {
			t.Errorf("the user is told %q, want %q", told, want)
		}
	}
	t.Run("a weak one, the old one, a good one", func(t *testing.T) {
		p := newPerson(t, newAddress("page"), nil)
		link := mailed(t, p)
		expect(t, submit(t, link, submission{Password: "short"}, submission{Password: oldPassword}, submission{Password: newPassword}),
			weak, "This is your old password. Choose another one.", "")
		p.hasNewPassword()
		expect(t, submit(t, link, submission{Password: newPassword + "3"}), expired)
		p.hasNewPassword()
	})
	t.Run("a second factor", func(t *testing.T) {
		p := newPerson(t, newAddress("page-factor"), nil)
		secret, _ := p.enroll()
		expect(t, submit(t, mailed(t, p), submission{Password: newPassword, Code: wrong(code(t, secret))}, submission{Password: newPassword, Code: code(t, secret)}),
			"This code is wrong. Try again with the next one.", "")
		p.hasNewPassword()
	})
	t.Run("banned meanwhile", func(t *testing.T) {
		p := newPerson(t, newAddress("page-banned"), nil)
		link := mailed(t, p)
		supabase.must(t, http.MethodPut, "/admin/users/"+p.id, supabase.key, map[string]string{"ban_duration": "24h"})
		expect(t, submit(t, link, submission{Password: newPassword}), "This account is blocked.")
	})
	t.Run("no link", func(t *testing.T) {
		expect(t, submit(t, site+"/reset-password", submission{Password: newPassword}), "Auth session missing!")
	})
}

// wrong changes a code.
func wrong(code string) string {
	return string('0'+(code[0]-'0'+1)%10) + code[1:]
}
