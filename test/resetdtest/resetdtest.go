// Package resetdtest runs the real resetd for tests, with stand-ins for Supabase Auth and Mailgun. An app
// tests its page for forgotten passwords with it:
//
//	func TestMain(m *testing.M) { os.Exit(resetdtest.Main(m)) }
//
//	func TestForgotPassword(t *testing.T) {
//		server := resetdtest.Start(t, resetdtest.Config{Accounts: []string{"hello@example.com"}})
//		server.Ask("hello@example.com") // or the app, at server.URL
//		server.Settle()
//		fmt.Println(server.Stack.Mails()[0].Text)
//	}
//
// Answers through Server.Client are checked against openapi.yaml. At the end of its test, the log and the metrics are
// searched for everything private: addresses, links, codes and keys.
package resetdtest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/gen/client"
	"github.com/resetd/resetd/impl/devstack"
)

// Every Server has these, unless its Config says otherwise.
const (
	Endpoint = "/api/auth/send-password-reset"
	Site     = "https://app.example.com"          // SITE_URL
	Preview  = "https://pr-7.preview.example.com" // in CALLBACK_ORIGINS

	ServiceRoleKey = "test-service-role-key"
	MailgunKey     = "test-mailgun-key"
	MailgunDomain  = "mg.example.com"
)

// Config says how a Server differs from the default, which has wide limits, no accounts, and upstreams that work.
type Config struct {
	Settings map[string]string               // environment variables; an empty value removes one
	Accounts []string                        // addresses, as Supabase Auth stores them
	Banned   []string                        // those of Accounts that are banned
	Metadata map[string]map[string]any       // user_metadata, by address
	Redirect []string                        // Supabase's allow-list of redirects, in addition to Preview
	Supabase func(http.Handler) http.Handler // wraps the stand-in, to make it fail
	Mailgun  func(http.Handler) http.Handler
	Build    func(testing.TB) string // builds the binary; nil is [Build]
	Remember int                     // number of texts of requests and links that the log is searched for; 0 is 150
}

// Server is `resetd serve` with its stand-ins.
type Server struct {
	*Process
	Stack  *devstack.Stack
	Client *http.Client

	tb      testing.TB
	api     *client.ClientWithResponses
	private *private
}

// Settings returns the default settings for two upstreams' base URLs.
func Settings(supabase, mailgun string) map[string]string {
	return map[string]string{
		"LISTEN_ADDR": "127.0.0.1:0", "ADMIN_ADDR": "127.0.0.1:0", "LOG_LEVEL": "debug",
		"SUPABASE_URL": supabase, "SUPABASE_SERVICE_ROLE_KEY": ServiceRoleKey,
		"MAILGUN_API_BASE": mailgun, "MAILGUN_API_KEY": MailgunKey, "MAILGUN_DOMAIN": MailgunDomain,
		"SITE_URL": Site, "CALLBACK_ORIGINS": "https://*.preview.example.com",
		"RATE_LIMIT": "100000-M", "RECIPIENT_LIMIT": "100000-M",
		"UPSTREAM_TIMEOUT": "2s", "SHUTDOWN_DELAY": "0s", "SHUTDOWN_TIMEOUT": "2s",
	}
}

// Start starts a server, which stops at the end of the test.
func Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	s := &Server{tb: tb, private: newPrivate(config.Remember)}
	s.Stack = devstack.New(devstack.Config{
		Accounts: config.Accounts, Banned: config.Banned, Metadata: config.Metadata, SiteURL: Site, MaxMails: 1000,
		RedirectAllowList: append([]string{"https://*.preview.example.com/**"}, config.Redirect...),
		ServiceRoleKey:    ServiceRoleKey, MailgunKey: MailgunKey, MailgunDomain: MailgunDomain,
		SupabaseMiddleware: func(next http.Handler) http.Handler {
			if config.Supabase != nil {
				next = config.Supabase(next)
			}
			return s.private.linkRecorder(next)
		},
		MailgunMiddleware: config.Mailgun,
	})
	tb.Cleanup(s.Stack.Close)
	settings := Settings(serve(tb, s.Stack.Supabase()), serve(tb, s.Stack.Mailgun()))
	for name, value := range config.Settings {
		settings[name] = value
	}
	var environ []string
	for name, value := range settings {
		if value != "" || name == "ADMIN_ADDR" {
			environ = append(environ, name+"="+value)
		}
	}
	s.private.add(config.Accounts...)
	s.private.addSettings(settings)

	build := config.Build
	if build == nil {
		build = Build
	}
	tb.Cleanup(func() { s.private.search(tb, "the output", s.Log.String()) })
	s.Process = Run(tb, environ, build(tb), "serve")
	s.beforeStop = func() {
		if text, err := s.getMetrics(); err == nil {
			s.private.search(tb, "the metrics", OwnMetrics(text))
		}
	}
	s.Client = &http.Client{Transport: s.Transport(NewTransport(tb)), Timeout: time.Minute}
	api, err := client.NewClientWithResponses(s.URL+"/api", client.WithHTTPClient(s.Client))
	if err != nil {
		tb.Fatal(err)
	}
	s.api = api
	return s
}

// serve runs a stand-in until the end of the test, also if it hangs on purpose.
func serve(tb testing.TB, handler http.Handler) (url string) {
	server := httptest.NewServer(handler)
	tb.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// Confidential adds texts that the server must not write anywhere.
func (s *Server) Confidential(texts ...string) { s.private.add(texts...) }

// SearchAlso searches what the server has sent elsewhere, such as traces.
func (s *Server) SearchAlso(where, written string) { s.private.search(s.tb, where, written) }

// Transport returns a transport that checks answers like that of Client.
func (s *Server) Transport(next http.RoundTripper) http.RoundTripper {
	return contract{s.tb, next, s.private}
}

// Settle waits until each accepted request is delivered or given up. It counts records, because a
// request may be answered before the metrics count it as pending.
func (s *Server) Settle() {
	s.tb.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		log := s.Log.String()
		accepted, ended := strings.Count(log, `"outcome":"accepted"`), strings.Count(log, `"msg":"delivery"`)
		if accepted == ended && (s.Admin == "" || s.Scrape()["resetd_pending_requests"] == 0) {
			return
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("of %d accepted requests, %d are delivered or given up", accepted, ended)
		}
	}
}

// Calls returns the calls of the upstreams without those of probes.
func (s *Server) Calls() (calls []devstack.Call) {
	for _, call := range s.Stack.Calls() {
		if !IsProbe(call) {
			calls = append(calls, call)
		}
	}
	return calls
}

// ProbeAddress matches the addresses of a probe's questions to Supabase Auth.
var ProbeAddress = regexp.MustCompile(`^resetd-[0-9a-f]{24}@[0-9a-f]{8}\.invalid$`)

// IsProbe says whether a call is a probe's: a link for an address that no account can have, or a test message.
func IsProbe(call devstack.Call) bool { return call.TestMode || ProbeAddress.MatchString(call.Email) }

// Answer is an answer of the server.
type Answer struct {
	Status int
	Header http.Header
	Raw    string
	Body   struct {
		Ok          bool              `json:"ok"`
		Message     string            `json:"message"`
		Error       string            `json:"error"`
		Code        string            `json:"code"`
		FieldErrors map[string]string `json:"fieldErrors"`
		Issues      []struct{ Path, Message string }
		RetryAfter  float64 `json:"retryAfter"`
	}
}

// Ask requests a mail for an address, as a Go program would.
func (s *Server) Ask(email string) Answer {
	s.tb.Helper()
	response, err := s.api.SendPasswordReset(context.Background(), nil, client.SendPasswordResetRequest{Email: email})
	if err != nil {
		s.tb.Fatalf("asking for %q: %v", email, err)
	}
	return s.read(response)
}

// Post sends a body to the endpoint, as JSON. header overrides, and an empty value removes.
func (s *Server) Post(body string, header map[string]string) Answer {
	s.tb.Helper()
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
	response, err := s.api.SendPasswordResetWithBody(context.Background(), nil, "application/json", strings.NewReader(body), override)
	if err != nil {
		s.tb.Fatalf("posting %.80q: %v", body, err)
	}
	return s.read(response)
}

// NewTransport returns a transport for many requests at once. net/http opens connections that it then does not need, and
// resetd closes those without a request after 5 s. The transport stops using them before.
func NewTransport(tb testing.TB) *http.Transport {
	transport := &http.Transport{MaxIdleConnsPerHost: 100, IdleConnTimeout: 4 * time.Second}
	tb.Cleanup(transport.CloseIdleConnections)
	return transport
}

// Do sends a request.
func (s *Server) Do(request *http.Request) Answer {
	s.tb.Helper()
	response, err := s.Client.Do(request)
	if err != nil {
		s.tb.Fatalf("%s %s: %v", request.Method, request.URL.Path, err)
	}
	return s.read(response)
}

func (s *Server) read(response *http.Response) Answer {
	s.tb.Helper()
	defer response.Body.Close()
	answer, err := ReadAnswer(response)
	if err != nil {
		s.tb.Fatal(err)
	}
	return answer
}

// ReadAnswer reads a response to its end.
func ReadAnswer(response *http.Response) (Answer, error) {
	raw, err := io.ReadAll(response.Body)
	answer := Answer{Status: response.StatusCode, Header: response.Header, Raw: string(raw)}
	if err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &answer.Body)
	}
	return answer, err
}
