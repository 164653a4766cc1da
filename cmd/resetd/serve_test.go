package main

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/resetd/resetd/impl/devstack"
)

// failingListener fails when the test tells it to.
type failingListener struct {
	net.Listener
	fail chan struct{}
}

func (l *failingListener) Accept() (net.Conn, error) {
	type accepted struct {
		conn net.Conn
		err  error
	}
	next := make(chan accepted, 1)
	go func() {
		conn, err := l.Listener.Accept()
		next <- accepted{conn, err}
	}()
	select {
	case a := <-next:
		return a.conn, a.err
	case <-l.fail:
		return nil, errors.New("the listener has failed")
	}
}

// TestListenerFails: when a listener fails and the server ends, accepted requests are still delivered, and
// the listener's error is returned.
func TestListenerFails(t *testing.T) {
	t.Parallel()
	stack := devstack.New(devstack.Config{
		Accounts: []string{knownEmail}, SiteURL: site,
		ServiceRoleKey: "test-service-role-key", MailgunKey: "test-mailgun-key", MailgunDomain: "mg.example.com",
	})
	defer stack.Close()
	supabase, mailgun := httptest.NewServer(stack.Supabase()), httptest.NewServer(stack.Mailgun())
	defer supabase.Close()
	defer mailgun.Close()
	settings, err := readSettings("serve", nil, []string{
		"SUPABASE_URL=" + supabase.URL, "SUPABASE_SERVICE_ROLE_KEY=test-service-role-key", "ADMIN_ADDR=",
		"MAILGUN_API_BASE=" + mailgun.URL, "MAILGUN_API_KEY=test-mailgun-key", "MAILGUN_DOMAIN=mg.example.com", "SITE_URL=" + site,
	}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	app, err := newApp(t.Context(), settings, newLogger(settings, t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failing := &failingListener{listener, make(chan struct{})}
	ended := make(chan error)
	go func() { ended <- app.run(t.Context(), failing, app.public) }()
	response, err := http.Post("http://"+listener.Addr().String()+endpoint, "application/json", strings.NewReader(`{"email":"`+knownEmail+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	close(failing.fail)
	if err := <-ended; response.StatusCode != http.StatusOK || err == nil || !strings.Contains(err.Error(), "the listener has failed") {
		t.Errorf("%d, and it ended with %v", response.StatusCode, err)
	}
	if mails := stack.Mails(); len(mails) != 1 {
		t.Errorf("%d mails, want one", len(mails))
	}
}
