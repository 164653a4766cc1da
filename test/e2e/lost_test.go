package e2e

import (
	"errors"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

// The tests of this file are about promise 9 of SECURITY.md: SIGTERM loses no request that was answered 200.
// hiccups_test.go tests calls that sometimes fail, and outage_test.go outages.

// everyThird fails each third call of an upstream, and each third call of its probes. It spares an address that it has
// failed twice, and fails the next call instead. Otherwise a few addresses would, by chance, need more tries than a
// test has time for.
type everyThird struct {
	serve func(w http.ResponseWriter, r *http.Request, email string) // nil: no call fails
	// accepts makes every second failure a failure of the answer only: the call itself is carried out.
	accepts bool

	mu            sync.Mutex
	calls, probes int
	owed          int // number of failures that are due
	failed        map[string]int
	failures      int
}

func (e *everyThird) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if e.serve == nil {
			next.ServeHTTP(w, r)
			return
		}
		call := readCall(r)
		fails, carriedOut := e.take(call)
		if carriedOut {
			next.ServeHTTP(&keeper{header: http.Header{}}, r)
		}
		if fails {
			e.serve(w, r, call.email)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (e *everyThird) take(call upstreamCall) (fails, carriedOut bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if call.isProbe() {
		e.probes++
		return e.probes%3 == 0, false
	}
	if e.calls++; e.calls%3 == 0 {
		e.owed++
	}
	if e.owed == 0 || e.failed[call.email] == 2 {
		return false, false
	}
	if e.failed == nil {
		e.failed = map[string]int{}
	}
	e.owed--
	e.failed[call.email]++
	e.failures++
	return true, e.accepts && e.failures%2 == 0
}

// counts returns the numbers of the deliveries' calls. A late call may still be running.
func (e *everyThird) counts() (failures, calls int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failures, e.calls
}

// TestStopUnderLoad: after SIGTERM in the middle of requests, every account whose request was answered 200 is mailed
// before the process ends.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for _, c := range []struct {
		name   string
		binary bool
		hiccup bool
	}{{name: "all is well"}, {name: "every third call fails", hiccup: true}, {name: "the shipped binary", binary: true}} {
		all.Go(func() {
			t.Run(c.name, func(t *testing.T) {
				const people = 200
				supabase, mailgun := &everyThird{}, &everyThird{}
				if c.hiccup {
					supabase.serve, mailgun.serve = answering(500, "GOSSIP"), answering(500, "GOSSIP")
				}
				everybody := numbered(accounts, people)
				s := resetdtest.Config{Settings: map[string]string{"SHUTDOWN_TIMEOUT": "28s", "UPSTREAM_TIMEOUT": "10s", "MAX_DELIVERIES": "32", "RATE_LIMIT": "100000-H"}, Accounts: everybody, Supabase: supabase.middleware, Mailgun: mailgun.middleware}
				if c.binary {
					s.Build = resetdtest.BuildShipped
				}
				f := start(t, s)
				var promised sync.Map
				var answered atomic.Int64
				todo := make(chan string, people)
				for _, email := range everybody {
					todo <- email
				}
				close(todo)
				stopped := make(chan error, 1)
				var clients sync.WaitGroup
				for range 8 {
					clients.Go(func() {
						for email := range todo {
							response, err := f.Client.Do(requestAs(t, f.URL, email))
							if err != nil {
								continue // the server is gone
							}
							_ = response.Body.Close()
							if response.StatusCode == http.StatusOK {
								promised.Store(email, true)
							}
							if answered.Add(1) == people/3 {
								go func() { stopped <- f.Stop() }()
							}
						}
					})
				}
				clients.Wait()
				if err := <-stopped; err != nil {
					t.Errorf("the server ended with %v", err)
				}
				mails, kept := f.mailsTo(), 0
				for _, email := range everybody {
					_, was := promised.Load(email)
					if was {
						kept++
					}
					if n := mails[email]; was && n != 1 || n > 1 {
						t.Errorf("%s was answered 200: %v, and has %d mails", email, was, n)
					}
				}
				t.Logf("%d of %d were answered 200 before the server was gone", kept, people)
				if kept < people/3 {
					t.Error("too few were answered 200 to show anything")
				}
			})
		})
	}
	all.Wait()
}

// status returns the exit status of a process that has ended with err.
func status(err error) int {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

var left = regexp.MustCompile(`accepted requests that are not delivered: (\d+)`)

// TestStopDuringAnOutage: requests that cannot be delivered within SHUTDOWN_TIMEOUT are reported: their number in the
// error at the end of the process, and each in a record with the keyed hash of its address.
func TestStopDuringAnOutage(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for _, c := range []struct {
		name              string
		supabase, mailgun func(http.ResponseWriter, *http.Request, string) // faults for accounts
		timeout           time.Duration
	}{
		{name: "Supabase fails", supabase: answering(500, "GOSSIP"), timeout: 2 * time.Second},
		{name: "Supabase hangs", supabase: hang, timeout: 2 * time.Second},
		{name: "Mailgun fails", mailgun: answering(500, "GOSSIP"), timeout: 2 * time.Second},
		{name: "Mailgun hangs", mailgun: hang, timeout: 2 * time.Second},
		{name: "no time is given", supabase: answering(500, "GOSSIP")},
	} {
		all.Go(func() {
			t.Run(c.name, func(t *testing.T) {
				const people = 30
				supabase, mailgun := &faulty{hits: accountsOnly}, &faulty{hits: accountsOnly}
				if c.supabase != nil {
					supabase.current.Store(&fault{serve: c.supabase})
				}
				if c.mailgun != nil {
					mailgun.current.Store(&fault{serve: c.mailgun})
				}
				f := start(t, resetdtest.Config{
					Settings: map[string]string{"SHUTDOWN_TIMEOUT": c.timeout.String(), "UPSTREAM_TIMEOUT": "1m", "MAX_DELIVERIES": "16"},
					Accounts: numbered(accounts, people), Supabase: supabase.middleware, Mailgun: mailgun.middleware,
				})
				for _, email := range numbered(accounts, people) {
					if a := f.Ask(email); a.Status != http.StatusOK {
						t.Fatalf("%d %s", a.Status, a.Raw)
					}
				}
				f.await("a delivery has failed", func() bool { return supabase.hit.Load()+mailgun.hit.Load() > 0 })
				began := time.Now()
				err := f.Stop()
				if took := time.Since(began); took > c.timeout+30*time.Second { // a call that hangs takes a minute
					t.Errorf("it took %v to stop", took)
				}
				if status(err) != 1 {
					t.Errorf("it ended with %v", err)
				}
				var named []string
				for _, record := range f.Log.Records(t, "delivery") {
					account, _ := record["account"].(string)
					// The stop may interrupt a mail before its answer.
					unknown := record["outcome"] == "unconfirmed" && c.mailgun != nil
					if record["outcome"] != "undelivered" && !unknown || !hashed.MatchString(account) || record["error"] == nil {
						t.Errorf("a delivery ended as %v", record)
					}
					named = append(named, account)
				}
				slices.Sort(named)
				if len(slices.Compact(named)) != people {
					t.Errorf("%d accounts are named in the log, want %d", len(named), people)
				}
				if found := left.FindStringSubmatch(f.Log.String()); found == nil || found[1] != strconv.Itoa(people) {
					t.Errorf("%v is named, want %d", found, people)
				}
				if len(f.Stack.Mails()) > 0 {
					t.Errorf("%d mails", len(f.Stack.Mails()))
				}
			})
		})
	}
	all.Wait()
}

// TestStopWithoutTime: also with SHUTDOWN_TIMEOUT=0 each accepted request ends in one record, whether it was mailed or
// not.
func TestStopWithoutTime(t *testing.T) {
	t.Parallel()
	const people = 100
	everybody := numbered(accounts, people)
	f := start(t, resetdtest.Config{Settings: map[string]string{"SHUTDOWN_TIMEOUT": "0s", "RATE_LIMIT": "100000-H"}, Accounts: everybody})
	var clients sync.WaitGroup
	var answered atomic.Int64
	stopped := make(chan error, 1)
	for i := range 10 {
		clients.Go(func() {
			for _, email := range everybody[i*10 : i*10+10] {
				response, err := f.Client.Do(requestAs(t, f.URL, email))
				if err != nil {
					continue
				}
				_ = response.Body.Close()
				if answered.Add(1) == people/2 {
					go func() { stopped <- f.Stop() }()
				}
			}
		})
	}
	clients.Wait()
	err := <-stopped
	text := f.Log.String()
	accepted, ended := strings.Count(text, `"outcome":"accepted"`), strings.Count(text, `"msg":"delivery"`)
	if accepted != ended {
		t.Errorf("%d were accepted, and %d have ended", accepted, ended)
	}
	undelivered := strings.Count(text, `"outcome":"undelivered"`) + strings.Count(text, `"outcome":"unconfirmed"`)
	if (undelivered > 0) != (err != nil) || status(err) == 2 {
		t.Errorf("%d were not delivered, and the server ended with %v", undelivered, err)
	}
}
