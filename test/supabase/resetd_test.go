//go:build supabase

package supabase

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/resetd/resetd/impl/devstack"
)

const (
	site       = "https://app.example.com"
	mailgunKey = "e2e-mailgun-key"
)

// resetd is the real binary, with the real Supabase Auth and a stand-in for Mailgun.
type resetd struct {
	t       *testing.T
	url     string
	environ []string
	mailgun *devstack.Stack
	log     *log
}

// build builds the binary.
func build(dir string) (string, error) {
	path := filepath.Join(dir, "resetd")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/resetd").CombinedOutput()
	if err != nil {
		return "", errors.New("go build: " + string(out))
	}
	return path, nil
}

// startResetd runs `resetd serve` until the test ends.
func startResetd(t *testing.T, settings ...string) *resetd {
	t.Helper()
	r := &resetd{t: t, log: &log{}, mailgun: devstack.New(devstack.Config{Accounts: []string{}, MailgunKey: mailgunKey, MailgunDomain: "mg.example.com"})}
	t.Cleanup(r.mailgun.Close)
	mailgun := httptest.NewServer(r.mailgun.Mailgun())
	t.Cleanup(mailgun.Close)
	r.environ = append([]string{
		"SUPABASE_AUTH_URL=" + supabase.url, "SUPABASE_SERVICE_ROLE_KEY=" + supabase.key,
		"MAILGUN_API_BASE=" + mailgun.URL, "MAILGUN_API_KEY=" + mailgunKey, "MAILGUN_DOMAIN=mg.example.com", "SITE_URL=" + site,
		"LISTEN_ADDR=127.0.0.1:0", "ADMIN_ADDR=off", "RATE_LIMIT=100000-M", "RECIPIENT_LIMIT=100000-M",
		"SHUTDOWN_DELAY=0s", "SHUTDOWN_TIMEOUT=5s", "TRUSTED_PROXIES=10.0.0.0/8",
	}, settings...)
	server := exec.Command(program, "serve")
	server.Env, server.Stderr = r.environ, r.log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_ = server.Wait()
		if t.Failed() {
			t.Logf("the log of resetd:\n%s", r.log)
		}
	})
	listening := regexp.MustCompile(`"listening","addr":"([^"]+)"`)
	r.await("resetd does not start", func() bool {
		found := listening.FindStringSubmatch(r.log.String())
		if found != nil {
			r.url = "http://" + found[1]
		}
		return found != nil
	})
	return r
}

func (r *resetd) await(complaint string, done func() bool) {
	r.t.Helper()
	if err := patiently(complaint, done); err != nil {
		r.t.Fatalf("%v\n%s", err, r.log)
	}
}

// ask sends a request, and returns the status and the request's id.
func (r *resetd) ask(email string) (status int, id string) {
	r.t.Helper()
	body, _ := json.Marshal(map[string]string{"email": email})
	response, err := http.Post(r.url+"/api/auth/send-password-reset", "application/json", bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode, response.Header.Get("X-Request-Id")
}

// outcome sends a request, and returns how its delivery ended.
func (r *resetd) outcome(email string) string {
	r.t.Helper()
	status, id := r.ask(email)
	if status != http.StatusOK {
		r.t.Fatalf("%s: status %d", email, status)
	}
	var outcome string
	r.await("no delivery to "+email+" has ended", func() bool { outcome = r.ended(id); return outcome != "" })
	return outcome
}

// ended returns how the delivery of a request ended; empty if it has not ended.
func (r *resetd) ended(id string) string {
	for line := range strings.Lines(r.log.String()) {
		var record struct {
			Msg       string
			RequestID string `json:"request_id"`
			Outcome   string
		}
		if json.Unmarshal([]byte(line), &record) == nil && record.Msg == "delivery" && record.RequestID == id {
			return record.Outcome
		}
	}
	return ""
}

var mailLink = regexp.MustCompile(`https?://\S+`)

// link returns the link of the latest mail, which must have gone to this address alone.
func (r *resetd) link(stored string) string {
	r.t.Helper()
	mails := r.mailgun.Mails()
	if len(mails) == 0 {
		r.t.Fatal("no mail")
	}
	if to := strings.Join(mails[0].To, ", "); to != stored {
		r.t.Fatalf("the mail went to %s, want %s", to, stored)
	}
	return mailLink.FindString(mails[0].Text)
}

// check runs `resetd check`, and returns its output and exit status.
func (r *resetd) check(args ...string) (out string, status int) {
	r.t.Helper()
	command := exec.Command(program, append([]string{"check"}, args...)...)
	command.Env = r.environ
	text, err := command.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return string(text), command.ProcessState.ExitCode()
}

// log can be read while it is written.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// All tests share one Supabase Auth and one binary.
var (
	supabase *auth
	program  string
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "resetd-e2e-")
	if err == nil {
		defer os.RemoveAll(dir)
		if program, err = build(dir); err == nil {
			supabase, err = openAuth(dir)
			defer supabase.close()
			if err == nil && ownsDatabase && supabase.database == nil {
				err = errors.New("built with the tag database, which needs SUPABASE_AUTH_BIN: the database of SUPABASE_AUTH_URL is somebody else's")
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	code := m.Run()
	if code != 0 {
		supabase.printLog()
	}
	return code
}
