package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/resetd/resetd/impl/devstack"
	"github.com/resetd/resetd/test/resetdtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"resetd": main})
}

// TestScripts runs the scripts of testdata/script with the real binary, as an operator would. Those that send signals or
// have a terminal need a shell.
func TestScripts(t *testing.T) {
	runScripts(t, "testdata/script")
	if resetdtest.Full {
		runScripts(t, "testdata/script/shell")
	}
}

func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			env.Setenv("ADMIN_ADDR", "off")
			env.Setenv("SHUTDOWN_DELAY", "0s")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":      status,
			"standins":    standIns,
			"upstream":    breakUpstream,
			"freeport":    freePort,
			"await":       await,
			"await-body":  awaitBody,
			"http":        httpRequest,
			"http-in":     httpIn,
			"http-later":  httpLater,
			"http-now":    httpNow,
			"follow":      follow,
			"mails":       mails,
			"await-mails": awaitMails,
		},
	})
}

// status N COMMAND…: runs a command that must end with the status N.
func status(ts *testscript.TestScript, _ bool, args []string) {
	got := 0
	var ended *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &ended) {
		got = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("the status is %d, want %s", got, args[0])
	}
}

// scriptStack has the stand-ins of a script.
type scriptStack struct {
	*devstack.Stack
	supabase, mailgun resetdtest.Slot
}

// standIns starts stand-ins for Supabase Auth and Mailgun, and sets SUPABASE and MAILGUN to their addresses.
func standIns(ts *testscript.TestScript, _ bool, _ []string) {
	stack := &scriptStack{}
	stack.Stack = devstack.New(devstack.Config{
		Accounts: []string{knownEmail, otherKnown}, SiteURL: site,
		ServiceRoleKey: "test-service-role-key", MailgunKey: "test-mailgun-key", MailgunDomain: "mg.example.com",
		SupabaseMiddleware: stack.supabase.Middleware,
		// Slow enough that a request, or its delivery, is under way when the script stops the server.
		MailgunMiddleware: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(300 * time.Millisecond)
				stack.mailgun.Middleware(next).ServeHTTP(w, r)
			})
		},
	})
	supabase, mailgun := httptest.NewServer(stack.Supabase()), httptest.NewServer(stack.Mailgun())
	ts.Defer(func() { supabase.Close(); mailgun.Close(); stack.Close() })
	ts.Setenv("SUPABASE", supabase.URL)
	ts.Setenv("MAILGUN", mailgun.URL)
	stacks.Store(ts.Getenv("WORK"), stack)
}

// stacks has the stand-ins of each script by its folder.
var stacks sync.Map

func stackOf(ts *testscript.TestScript) *scriptStack {
	stack, ok := stacks.Load(ts.Getenv("WORK"))
	if !ok {
		ts.Fatalf("the script has no stand-ins")
	}
	return stack.(*scriptStack)
}

// breakUpstream supabase|mailgun up|down: the stand-in serves, or answers everything with 500.
func breakUpstream(ts *testscript.TestScript, _ bool, args []string) {
	stack := stackOf(ts)
	slot := map[string]*resetdtest.Slot{"supabase": &stack.supabase, "mailgun": &stack.mailgun}[args[0]]
	var fault http.Handler
	if args[1] == "down" {
		fault = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	}
	slot.Set(fault)
}

// freePort NAME…: sets each variable to a free port.
func freePort(ts *testscript.TestScript, _ bool, names []string) {
	for _, name := range names {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		ts.Check(listener.Close())
		ts.Setenv(name, port)
	}
}

// await URL [STATUS]: waits until a GET is answered with the status, by default 200.
func await(ts *testscript.TestScript, _ bool, args []string) {
	status := "200"
	if len(args) > 1 {
		status = args[1]
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		response, err := http.Get(args[0])
		if err == nil {
			response.Body.Close()
			if strconv.Itoa(response.StatusCode) == status {
				return
			}
		}
	}
	ts.Fatalf("%s was not answered %s within a minute", args[0], status)
}

// awaitBody URL PATTERN: waits until the body of a GET matches.
func awaitBody(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(args[1])
	text := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		text, _ = send([]string{http.MethodGet, args[0]})
		if pattern.MatchString(text) {
			return
		}
	}
	ts.Fatalf("%s never had %s:\n%s", args[0], args[1], text)
}

// httpRequest METHOD URL [BODY]: sends a request and writes status, headers and body to standard output.
func httpRequest(ts *testscript.TestScript, _ bool, args []string) {
	text, err := send(args)
	ts.Check(err)
	_, _ = ts.Stdout().Write([]byte(text))
}

// httpIn LANGUAGE METHOD URL BODY: sends a request like http, with an Accept-Language.
func httpIn(ts *testscript.TestScript, _ bool, args []string) {
	text, err := send(args[1:], args[0])
	ts.Check(err)
	_, _ = ts.Stdout().Write([]byte(text))
}

func send(args []string, language ...string) (string, error) {
	body := ""
	if len(args) > 2 {
		body = args[2]
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, args[0], args[1], strings.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header["Accept-Language"] = language
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	var out strings.Builder
	out.WriteString(response.Status + "\n")
	_ = response.Header.Write(&out) // a strings.Builder returns no errors
	return out.String() + "\n" + string(raw), err
}

// later has the running request of http-later, of each script by its folder.
var later sync.Map

// httpLater sends the first request of a server, and returns when its probe has reached the stand-in for
// Supabase, so that the request is in flight; http-now prints its answer.
func httpLater(ts *testscript.TestScript, _ bool, args []string) {
	answer := make(chan func() (string, error), 1)
	later.Store(ts.Getenv("WORK"), answer)
	go func() {
		text, err := send(args)
		answer <- func() (string, error) { return text, err }
	}()
	stack := stackOf(ts)
	for deadline := time.Now().Add(time.Minute); len(stack.Calls()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("the request was not in flight within a minute")
		}
	}
}

func httpNow(ts *testscript.TestScript, _ bool, _ []string) {
	answer, ok := later.Load(ts.Getenv("WORK"))
	if !ok {
		ts.Fatalf("nothing was sent")
	}
	text, err := (<-answer.(chan func() (string, error)))()
	ts.Check(err)
	_, _ = ts.Stdout().Write([]byte(text))
}

// follow opens the link of the newest mail of an inbox.
func follow(ts *testscript.TestScript, _ bool, args []string) {
	inbox, err := send([]string{http.MethodGet, args[0]})
	ts.Check(err)
	link := regexp.MustCompile(`http://[^\\"\s]*token_hash=[0-9a-f]{56}(&|\\u0026)type=recovery`).FindString(inbox)
	text, err := send([]string{http.MethodGet, strings.ReplaceAll(link, `\u0026`, "&")})
	ts.Check(err)
	_, _ = ts.Stdout().Write([]byte(text))
}

// awaitMails COUNT PATTERN: waits until COUNT mails are delivered, and checks them as mails does.
func awaitMails(ts *testscript.TestScript, neg bool, args []string) {
	for deadline := time.Now().Add(time.Minute); strconv.Itoa(len(stackOf(ts).Mails())) != args[0] && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	mails(ts, neg, args)
}

// mails COUNT PATTERN: checks that COUNT mails were delivered, and that each text matches.
func mails(ts *testscript.TestScript, _ bool, args []string) {
	var texts []string
	for _, mail := range stackOf(ts).Mails() {
		texts = append(texts, mail.Text)
	}
	if want := args[0]; want != strconv.Itoa(len(texts)) {
		ts.Fatalf("%d mails were delivered, want %s", len(texts), want)
	}
	for _, text := range texts {
		if !regexp.MustCompile(args[1]).MatchString(text) {
			ts.Fatalf("no %s in:\n%s", args[1], text)
		}
	}
}
