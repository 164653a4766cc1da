package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/resetd/resetd/gen/client"
	"github.com/resetd/resetd/impl/devstack"
)

// The accounts and origins of every test.
const (
	knownEmail   = "known@example.com"
	otherKnown   = "other.known@example.com"
	unknownEmail = "stranger@example.org"
	site         = "https://app.example.com"
	preview      = "https://pr-7.preview.example.com"
	endpoint     = "/api/auth/send-password-reset"
)

// fixture is a whole resetd, started as its main does, with stand-ins for its upstreams.
type fixture struct {
	t      testing.TB
	url    string // http://127.0.0.1:PORT
	admin  string // likewise, of the operator's listener
	stack  *devstack.Stack
	logs   *buffer
	client *http.Client
	api    *client.ClientWithResponses // the generated one, over client
	stop   func() error                // as by SIGTERM; returns what run returned

	accounts []string // as they are stored

	private      private // what must be in nothing that it writes
	metricsAtEnd string
}

// setup is what a test asks for beyond the default.
type setup struct {
	env      map[string]string         // on top of the defaults below; "" removes one
	accounts []string                  // beside those of every test
	banned   []string                  // of the accounts
	metadata map[string]map[string]any // user_metadata of accounts
	redirect []string                  // what Supabase's allow-list has, beside that of every test
	supabase func(http.Handler) http.Handler
	mailgun  func(http.Handler) http.Handler
	binary   string // the resetd to run; empty: run, in this process

	collector *collecting // to which env sends traces; nil: there is none
	remember  int         // of what requests say, so that it is searched for; 0: enoughPrivate
}

// start runs `resetd serve`. Limits are wide unless the test sets them.
func start(t testing.TB, s setup) *fixture {
	t.Helper()
	f := &fixture{t: t, logs: &buffer{}, private: newPrivate(s.remember)}
	f.accounts = append([]string{knownEmail, otherKnown, "UPPER@example.com"}, s.accounts...)
	f.stack = devstack.New(devstack.Config{
		Accounts: f.accounts, Banned: s.banned, Metadata: s.metadata, SiteURL: site, MaxMails: 1000,
		RedirectAllowList: append([]string{"https://*.preview.example.com/**"}, s.redirect...),
		ServiceRoleKey:    "test-service-role-key", MailgunKey: "test-mailgun-key", MailgunDomain: "mg.example.com",
		SupabaseMiddleware: func(next http.Handler) http.Handler {
			if s.supabase != nil {
				next = s.supabase(next)
			}
			return f.private.linkRecorder(next)
		},
		MailgunMiddleware: s.mailgun,
	})
	t.Cleanup(f.stack.Close)
	supabase, mailgun := httptest.NewServer(f.stack.Supabase()), httptest.NewServer(f.stack.Mailgun())
	// Handlers that hang on purpose must not hold up the end of the test.
	t.Cleanup(func() {
		supabase.CloseClientConnections()
		mailgun.CloseClientConnections()
		supabase.Close()
		mailgun.Close()
	})

	env := map[string]string{
		"LISTEN_ADDR": "127.0.0.1:0", "ADMIN_ADDR": "127.0.0.1:0", "LOG_LEVEL": "debug",
		"SUPABASE_URL": supabase.URL, "SUPABASE_SERVICE_ROLE_KEY": "test-service-role-key",
		"MAILGUN_API_BASE": mailgun.URL, "MAILGUN_API_KEY": "test-mailgun-key", "MAILGUN_DOMAIN": "mg.example.com",
		"SITE_URL": site, "CALLBACK_ORIGINS": "https://*.preview.example.com",
		"RATE_LIMIT": "100000-M", "RECIPIENT_LIMIT": "100000-M",
		"UPSTREAM_TIMEOUT": "2s", "SHUTDOWN_DELAY": "0s", "SHUTDOWN_TIMEOUT": "2s",
	}
	for name, value := range s.env {
		env[name] = value
	}
	var environ []string
	for name, value := range env {
		if value != "" || name == "ADMIN_ADDR" {
			environ = append(environ, name+"="+value)
		}
	}
	f.private.add(knownEmail, otherKnown, "UPPER@example.com")
	f.private.add(s.accounts...)
	f.private.addSettings(env)
	program := launch(t, s.binary, environ, f.logs)
	f.logs.writer = program
	f.stop = sync.OnceValue(func() error {
		f.metricsAtEnd = f.metricsIfAny()
		program.terminate()
		select {
		case <-program.ended:
			return program.err
		case <-time.After(30 * time.Second):
			t.Error("resetd did not stop within 30 s")
			return context.DeadlineExceeded
		}
	})
	t.Cleanup(func() {
		_ = f.stop()
		f.private.search(t, "the output", f.logs.String())
		f.private.search(t, "the metrics", ownMetrics(f.metricsAtEnd))
		if s.collector != nil {
			f.private.search(t, "the collector", s.collector.sent())
		}
	})

	f.url = "http://" + f.logs.await(t, `"listening","addr":"([^"]+)"`)
	if env["ADMIN_ADDR"] != "" && env["ADMIN_ADDR"] != "off" {
		f.admin = "http://" + f.logs.await(t, `"admin_addr":"([^"]+)"`)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	f.client = &http.Client{Transport: contract{t, transport, &f.private}, Timeout: time.Minute}
	api, err := client.NewClientWithResponses(f.url+"/api", client.WithHTTPClient(f.client))
	if err != nil {
		t.Fatal(err)
	}
	f.api = api
	return f
}

// program is a resetd that runs.
type program struct {
	terminate func()
	ended     chan struct{}
	err       error // once it has ended
}

func (p *program) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// launch starts `resetd serve`: the program in this process, or a binary.
func launch(t testing.TB, binary string, environ []string, logs io.Writer) *program {
	t.Helper()
	p := &program{ended: make(chan struct{})}
	wait := func(end func() error) {
		p.err = end()
		close(p.ended)
	}
	if binary == "" {
		ctx, cancel := context.WithCancel(context.Background())
		p.terminate = cancel
		go wait(func() error { return run(ctx, []string{"serve"}, environ, logs, logs) })
		return p
	}
	command := exec.Command(binary, "serve")
	command.Env, command.Stdout, command.Stderr = environ, logs, logs
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	p.terminate = func() { _ = command.Process.Signal(syscall.SIGTERM) }
	go wait(command.Wait)
	return p
}

// binary is resetd as `make build` makes it, without the race detector.
var binary struct {
	once      sync.Once
	dir, path string
	err       error
}

func shipped(t testing.TB) string {
	t.Helper()
	b := &binary
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "resetd-"); b.err != nil {
			return
		}
		b.path = filepath.Join(b.dir, "resetd")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.path, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			b.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.path
}

// withoutBinary removes it when all tests have ended.
type withoutBinary struct{ *testing.M }

func (m withoutBinary) Run() int {
	code := m.M.Run()
	if binary.dir != "" {
		os.RemoveAll(binary.dir)
	}
	return code
}

// settle waits until every accepted request is delivered, or given up. It goes by the log, because a
// request may be answered before the metrics count it as pending.
func (f *fixture) settle() {
	f.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		log := f.logs.String()
		accepted, ended := strings.Count(log, `"outcome":"accepted"`), strings.Count(log, `"msg":"delivery"`)
		if accepted == ended && (f.admin == "" || f.scrape()["resetd_pending_requests"] == 0) {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("of %d accepted requests, %d are delivered or given up", accepted, ended)
		}
	}
}

// calls are the upstreams' calls without those of probes.
func (f *fixture) calls() (calls []devstack.Call) {
	for _, call := range f.stack.Calls() {
		if !isProbe(call) {
			calls = append(calls, call)
		}
	}
	return calls
}

// probeAddress is what a probe asks Supabase Auth about.
var probeAddress = regexp.MustCompile(`^resetd-[0-9a-f]{24}@[0-9a-f]{8}\.invalid$`)

// isProbe says whether a call is about nobody: a link for an address that no account can have, or a
// test message.
func isProbe(call devstack.Call) bool { return call.TestMode || probeAddress.MatchString(call.Email) }

// answer is what a caller got.
type answer struct {
	status int
	header http.Header
	raw    string
	body   struct {
		Ok          bool              `json:"ok"`
		Message     string            `json:"message"`
		Error       string            `json:"error"`
		Code        string            `json:"code"`
		FieldErrors map[string]string `json:"fieldErrors"`
		Issues      []struct{ Path, Message string }
		RetryAfter  float64 `json:"retryAfter"`
	}
}

// ask makes the operation's request for an address, as a Go program would.
func (f *fixture) ask(email string) answer {
	f.t.Helper()
	response, err := f.api.SendPasswordReset(context.Background(), nil, client.SendPasswordResetRequest{Email: email})
	if err != nil {
		f.t.Fatalf("asking for %q: %v", email, err)
	}
	return f.read(response)
}

// post sends any body to the operation, as JSON; header overrides, and an empty value removes.
func (f *fixture) post(body string, header map[string]string) answer {
	f.t.Helper()
	override := func(_ context.Context, request *http.Request) error {
		for name, value := range header {
			if value == "" {
				request.Header.Del(name)
			} else {
				request.Header.Set(name, value)
			}
		}
		return nil
	}
	response, err := f.api.SendPasswordResetWithBody(context.Background(), nil, "application/json", strings.NewReader(body), override)
	if err != nil {
		f.t.Fatalf("posting %.80q: %v", body, err)
	}
	return f.read(response)
}

func (f *fixture) do(request *http.Request) answer {
	f.t.Helper()
	response, err := f.client.Do(request)
	if err != nil {
		f.t.Fatalf("%s %s: %v", request.Method, request.URL.Path, err)
	}
	return f.read(response)
}

func (f *fixture) read(response *http.Response) answer {
	f.t.Helper()
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	a := answer{status: response.StatusCode, header: response.Header, raw: string(raw)}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			f.t.Fatalf("answer is no JSON: %v: %q", err, raw)
		}
	}
	return a
}

// contract checks every answer that passes through it against openapi.yaml: its status must be
// documented, its headers and body must fit. What lies outside the document (404, 405, the
// probes) must carry what all answers carry.
type contract struct {
	t    testing.TB
	next http.RoundTripper
	told *private // learns what requests say; nil: nobody asks
}

func (c contract) RoundTrip(request *http.Request) (*http.Response, error) {
	if c.told != nil {
		c.told.addRequest(request)
	}
	response, err := c.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return response, nil // cut off: for the test to judge
	}
	checkContract(c.t, request, response, body)
	return response, nil
}

var document = sync.OnceValue(func() *openapi3.T {
	loader := openapi3.NewLoader()
	document, err := loader.LoadFromFile("../../openapi.yaml")
	if err != nil {
		panic(err)
	}
	if err := document.Validate(context.Background()); err != nil {
		panic(err)
	}
	return document
})

var requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// reporter is what takes a fault: a test, or one of many generated cases.
type reporter interface {
	Errorf(format string, args ...any)
}

func checkContract(t reporter, request *http.Request, response *http.Response, body []byte) {
	where := request.Method + " " + request.URL.Path + ": " + response.Status
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if got := response.Header.Get(name); got != want {
			t.Errorf("%s: %s is %q, want %q", where, name, got, want)
		}
	}
	if id := response.Header.Get("X-Request-Id"); !requestIDPattern.MatchString(id) {
		t.Errorf("%s: X-Request-Id is %q", where, id)
	}
	if server, there := response.Header["Server"]; there {
		t.Errorf("%s: Server is %q", where, server)
	}
	if request.Method == http.MethodHead || response.StatusCode == http.StatusNoContent {
		return
	}
	item := document().Paths.Find("/auth/send-password-reset")
	if request.URL.EscapedPath() == endpoint && request.Method == http.MethodPost {
		err := openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: &openapi3filter.RequestValidationInput{
				Request: request,
				Route:   &routers.Route{Spec: document(), Path: "/auth/send-password-reset", PathItem: item, Method: http.MethodPost, Operation: item.Post},
			},
			Status: response.StatusCode, Header: response.Header, Body: io.NopCloser(bytes.NewReader(body)),
			Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
		})
		if err != nil {
			t.Errorf("%s: not as documented: %v\n%s", where, err, body)
		}
		if documented := item.Post.Responses.Status(response.StatusCode); documented != nil {
			checkHeaders(t, where, response.Header, documented.Value)
			checkCode(t, where, body, documented.Value)
		}
		return
	}
	if response.StatusCode >= 400 {
		var value any
		if err := json.Unmarshal(body, &value); err != nil {
			t.Errorf("%s: no JSON: %q", where, body)
			return
		}
		if err := document().Components.Schemas["ErrorBody"].Value.VisitJSON(value); err != nil {
			t.Errorf("%s: not the documented error body: %v\n%s", where, err, body)
		}
		if response.StatusCode == http.StatusMethodNotAllowed && response.Header.Get("Allow") == "" {
			t.Errorf("%s: no Allow", where)
		}
	}
}

// undocumentedHeaders are those of HTTP itself, of CORS, and those that every answer has.
var undocumentedHeaders = map[string]bool{
	"Content-Type": true, "Content-Length": true, "Date": true, "Connection": true, "Vary": true, "Cache-Control": true,
	"X-Content-Type-Options": true, "Access-Control-Allow-Origin": true, "Access-Control-Expose-Headers": true,
}

// checkHeaders: all that are documented, and none besides. The document does not require them,
// because the generated server would then write empty ones.
func checkHeaders(t reporter, where string, header http.Header, documented *openapi3.Response) {
	known, sent := maps.Clone(undocumentedHeaders), map[string]bool{}
	for name := range documented.Headers {
		known[http.CanonicalHeaderKey(name)] = true
	}
	for name := range header {
		name = http.CanonicalHeaderKey(name) // the server writes RateLimit as the draft does
		sent[name] = true
		if !known[name] {
			t.Errorf("%s: %s is not documented", where, name)
		}
	}
	for name := range documented.Headers {
		if !sent[http.CanonicalHeaderKey(name)] {
			t.Errorf("%s: no %s", where, name)
		}
	}
}

// checkCode: every error has one, which is among those that its status is documented to carry.
func checkCode(t reporter, where string, body []byte, documented *openapi3.Response) {
	var said struct {
		Ok   *bool
		Code string
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Ok != nil {
		return
	}
	if !slices.Contains(backticked(*documented.Description), said.Code) {
		t.Errorf("%s: the code %q is not documented for it", where, said.Code)
	}
}

// buffer is a log that can be read while it is written.
type buffer struct {
	mu     sync.Mutex
	text   bytes.Buffer
	writer *program // nil: not known
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await waits for a record and returns the first group of the pattern.
func (b *buffer) await(t testing.TB, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		ended := b.writer != nil && b.writer.hasEnded()
		if found := re.FindStringSubmatch(b.String()); found != nil {
			return found[len(found)-1]
		}
		if ended {
			t.Fatalf("resetd ended: %v", b.writer.err)
		}
	}
	t.Fatalf("the log never had %s:\n%s", pattern, b)
	return ""
}

// records are the log's records with that message.
func (b *buffer) records(t testing.TB, message string) (records []map[string]any) {
	t.Helper()
	for line := range strings.Lines(b.String()) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("a log line that is no JSON: %q", line)
		}
		if record["msg"] == message {
			records = append(records, record)
		}
	}
	return records
}
