package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/outbox"
	"github.com/resetd/resetd/test/resetdtest"
)

// TestOverload: beyond MAX_ACCEPTED in ten seconds everybody gets the same 503, however the accepted deliveries ended, and
// after ten seconds nobody does. A refused address may be tried again.
func TestOverload(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: with(behindProxy, map[string]string{"MAX_ACCEPTED": "4", "RECIPIENT_LIMIT": "1-H"})})
	first := time.Now()
	// A suppressed request is answered 200 too, and counts as accepted.
	for i, email := range []string{knownEmail, knownEmail, unknownEmail, unknownEmail} {
		if a := f.askAs(email, fmt.Sprintf("192.0.2.%d", i)); a.Status != http.StatusOK {
			t.Errorf("request %d, before there were too many: %d %s", i, a.Status, a.Raw)
		}
	}
	began := time.Now() // after the last acceptance
	var seen []string
	var refusals []resetdtest.Answer
	for i, email := range []string{otherKnown, "somebody@example.net", otherKnown, knownEmail} {
		a := f.askAs(email, fmt.Sprintf("192.0.2.%d", 10+i))
		refusals = append(refusals, a)
		seen = append(seen, fmt.Sprint(slices.Sorted(maps.Keys(a.Header)), a.Raw))
	}
	if took := time.Since(first); took > outbox.Window {
		t.Fatalf("eight requests took %v, longer than requests are counted", took)
	}
	for _, a := range refusals {
		if a.Status != http.StatusServiceUnavailable || a.Body.Code != "overloaded" || a.Header.Get("Retry-After") != "5" || a.Body.RetryAfter != 0 {
			t.Errorf("%d %v %s", a.Status, a.Header, a.Raw)
		}
	}
	f.Settle()
	if different := slices.Compact(seen); len(different) > 1 {
		t.Errorf("overload looks different for some:\n%s", strings.Join(different, "\n"))
	}
	if a := f.Do(newRequest(t, http.MethodGet, f.URL+"/healthz")); a.Status != http.StatusOK {
		t.Errorf("/healthz: %d", a.Status)
	}
	if calls := len(f.Calls()); calls != 3 {
		t.Errorf("%d calls, want those for the two that were not suppressed", calls)
	}
	time.Sleep(time.Until(began.Add(outbox.Window)))
	for i, email := range []string{otherKnown, "somebody@example.net"} {
		if a := f.askAs(email, fmt.Sprintf("192.0.2.%d", 20+i)); a.Status != http.StatusOK {
			t.Errorf("ten seconds later: %d %s", a.Status, a.Raw)
		}
	}
	f.Settle()
	if mails := f.Stack.Mails(); len(mails) != 2 || mails[0].To[0] != otherKnown {
		t.Errorf("an account that was refused, and asked for again, is not mailed: %v", mails)
	}
}

// TestOverloadIsBlind: the number of refusals does not depend on the number of unfinished deliveries. Lookups of accounts
// hang, so that none of them ends, and all others have ended when the second half comes.
func TestOverloadIsBlind(t *testing.T) {
	t.Parallel()
	const most = 8
	var accounts []string
	for i := range 2 * most {
		accounts = append(accounts, fmt.Sprintf("account-%d@example.com", i))
	}
	served := map[string]int{}
	var mu sync.Mutex
	var both sync.WaitGroup
	for _, who := range []string{"account", "nobody"} {
		both.Go(func() {
			f := start(t, resetdtest.Config{
				Accounts: accounts,
				Settings: map[string]string{"MAX_ACCEPTED": strconv.Itoa(most)},
				Supabase: func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if call := readCall(r); strings.HasPrefix(call.email, "account-") {
							<-r.Context().Done()
							return
						}
						next.ServeHTTP(w, r)
					})
				},
			})
			began := time.Now()
			for i := range 2 * most {
				if i == most/2 {
					time.Sleep(1200 * time.Millisecond) // until all deliveries have begun
				}
				if a := f.Ask(fmt.Sprintf("%s-%d@example.com", who, i)); a.Status == http.StatusOK {
					mu.Lock()
					served[who]++
					mu.Unlock()
				}
			}
			if took := time.Since(began); took > outbox.Window {
				t.Errorf("this took %v, longer than requests are counted", took)
			}
		})
	}
	both.Wait()
	if served["account"] != most || served["nobody"] != most {
		t.Errorf("served were %v, want %d of each", served, most)
	}
}

// TestDeliveriesAtOnce: exactly MAX_DELIVERIES deliveries run at the same time.
func TestDeliveriesAtOnce(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]int64{"": 8, "3": 3} { // the default, and another value
		var now, most, all atomic.Int64
		release := make(chan struct{})
		f := start(t, resetdtest.Config{
			Settings: map[string]string{"MAX_DELIVERIES": value, "UPSTREAM_TIMEOUT": "30s"},
			Supabase: func(next http.Handler) http.Handler {
				held := holdUntil(release, next)
				return toDeliveries(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n := now.Add(1)
					defer now.Add(-1)
					for before := most.Load(); n > before && !most.CompareAndSwap(before, n); before = most.Load() {
					}
					all.Add(1)
					held.ServeHTTP(w, r)
				}))(next)
			},
		})
		for i := range 3 * want {
			f.Ask(fmt.Sprintf("nobody-%d@example.org", i))
		}
		time.Sleep(1200 * time.Millisecond) // all are due within a second
		for deadline := time.Now().Add(20 * time.Second); now.Load() < want && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		close(release)
		f.Settle()
		if most.Load() != want || all.Load() != 3*want {
			t.Errorf("MAX_DELIVERIES=%s: %d of %d deliveries ran at once, want %d", value, most.Load(), all.Load(), want)
		}
	}
}

// TestOverloadComesAfterTheLimit: the limit comes first, so an overloaded answer counts too, and says what is left.
func TestOverloadComesAfterTheLimit(t *testing.T) {
	t.Parallel()
	f := startFull(t, resetdtest.Config{Settings: with(behindProxy, map[string]string{"RATE_LIMIT": "2-H"})})
	for left := range 2 {
		a := f.askAs(knownEmail, "192.0.2.1")
		if fields := readRateFields(t, a, `"per-hour";q=2;w=3600`); a.Body.Code != "overloaded" || fields["hour"].remaining != 1-left {
			t.Errorf("%d %s, %v", a.Status, a.Raw, fields)
		}
	}
	checkRefusal(t, f.askAs(knownEmail, "192.0.2.1"), 3500, 3600)
}

// TestStalledBodiesTakeNoPlace: a client that has not yet sent its request takes no place from complete requests.
func TestStalledBodiesTakeNoPlace(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{Settings: map[string]string{"MAX_ACCEPTED": "2"}})
	for range 10 {
		conn := f.dial()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{", endpoint)
	}
	f.awaitCounted(10)
	for i, want := range []int{http.StatusOK, http.StatusOK, http.StatusServiceUnavailable} {
		if a := f.Ask(unknownEmail); a.Status != want {
			t.Errorf("beside ten who have not finished their body, request %d: %d %s, want %d", i+1, a.Status, a.Raw, want)
		}
	}
}

// awaitCounted waits until the client's limit has counted so many requests, without its own ones.
func (f *fixture) awaitCounted(requests int) {
	f.t.Helper()
	for asked, deadline := 1, time.Now().Add(20*time.Second); ; asked++ {
		left := readRateFields(f.t, f.Post("{}", nil), `"per-minute";q=100000;w=60`)["minute"].remaining
		if left == 100_000-requests-asked {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("of %d requests, %d were counted", requests, 100_000-asked-left)
		}
		time.Sleep(time.Millisecond)
	}
}

// startFull starts a server that has accepted as many requests as it may, which is two.
func startFull(t *testing.T, s resetdtest.Config) *fixture {
	t.Helper()
	s.Settings = with(s.Settings, map[string]string{"MAX_ACCEPTED": "2"})
	f := start(t, s)
	for i := range 2 {
		if a := f.Do(requestAs(t, f.URL, knownEmail, fmt.Sprintf("198.51.100.%d", i))); a.Status != http.StatusOK {
			t.Fatalf("request %d of two: %d %s", i+1, a.Status, a.Raw)
		}
	}
	return f
}

// TestClientWhoLeft: a request is served even if its client leaves while it waits for the first verdict of the probes.
func TestClientWhoLeft(t *testing.T) {
	t.Parallel()
	release, asked := make(chan struct{}), make(chan struct{}, 100)
	f := start(t, resetdtest.Config{
		Settings: map[string]string{"UPSTREAM_TIMEOUT": "30s"},
		Supabase: func(next http.Handler) http.Handler {
			held := holdUntil(release, next)
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				held.ServeHTTP(w, r)
			})
		},
	})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		response, err := f.Client.Do(requestAs(t, f.URL, knownEmail).WithContext(ctx))
		if err == nil {
			response.Body.Close()
		}
		left <- err
	}()
	<-asked // the probe has asked
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatalf("it was answered while there was no verdict: %v", err)
	}
	close(release)
	f.Log.Await(t, `"msg":"delivery".*"outcome":"(sent)"`)
	if mails := f.Stack.Mails(); len(mails) != 1 {
		t.Errorf("%d mails, though the request was made", len(mails))
	}
}

// TestStalledClientAtStop: at the stop, a client that never finishes its request takes no time from accepted requests.
func TestStalledClientAtStop(t *testing.T) {
	t.Parallel()
	busy := resetdtest.Saying(http.StatusTooManyRequests, "{}", "Retry-After", "60") // longer than the stop
	f := start(t, resetdtest.Config{
		Settings: map[string]string{"SHUTDOWN_TIMEOUT": "3s"},
		Mailgun:  func(next http.Handler) http.Handler { return toDeliveries(resetdtest.Once(busy)(next))(next) },
	})
	if a := f.Ask(knownEmail); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	for deadline := time.Now().Add(20 * time.Second); f.Metric("resetd_upstream_requests_total", `call="send",outcome="refused",upstream="mailgun"`) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("there was no first attempt")
		}
	}
	conn := f.dial()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{", endpoint)
	f.awaitCounted(2)
	if err := f.Stop(); err != nil { // no accepted request is left
		t.Error(err)
	}
	if mails := f.Stack.Mails(); len(mails) != 1 {
		t.Errorf("%d mails: what was accepted was not tried again", len(mails))
	}
}

// stalled is the end of one slow client.
type stalled struct {
	after  time.Duration
	answer resetdtest.Answer // status 0: no answer
	err    error
}

// TestStalledClients: hundreds of clients that never finish, in every way, do not hurt others, and are disconnected.
func TestStalledClients(t *testing.T) {
	t.Parallel()
	const each = 300
	f := start(t, resetdtest.Config{Settings: with(behindProxy, map[string]string{"RATE_LIMIT": "1-H"})})
	f.askAs(unknownEmail, "192.0.2.1") // from now on this client is refused

	var clients atomic.Int64
	head := func(length string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Forwarded-For: 2001:db8:0:%x::1\r\n%s\r\n",
			endpoint, clients.Add(1), length)
	}
	kinds := []struct {
		name   string
		number int
		begin  func() string
		drip   string // sent again every 300 ms
		status int    // 0: no answer
		most   time.Duration
	}{
		{name: "body stops", number: each, begin: func() string { return head("Content-Length: 40\r\n") + `{"email":` }, status: 400, most: readTimeout},
		{name: "chunks stop", number: 50, begin: func() string { return head("Transfer-Encoding: chunked\r\n") + "5\r\n{\"ema\r\n" }, status: 400, most: readTimeout},
		{name: "no body at all", number: 50, begin: func() string { return head("Content-Length: 40\r\n") }, status: 400, most: readTimeout},
		{name: "body drips", number: 10, begin: func() string { return head("Content-Length: 16000\r\n") }, drip: " ", status: 400, most: readTimeout},
		{name: "chunks drip", number: 10, begin: func() string { return head("Transfer-Encoding: chunked\r\n") }, drip: "1\r\n \r\n", status: 400, most: readTimeout},
		{name: "headers stop", number: each, begin: func() string { return strings.TrimSuffix(head("X-Slow: 1"), "\r\n") }, status: 0, most: readHeaderTimeout},
		{name: "headers drip", number: 10, begin: func() string { return strings.TrimSuffix(head("X-Slow: 1"), "\r\n") }, drip: "1", status: 0, most: readHeaderTimeout},
		{name: "silence", number: 50, begin: func() string { return "" }, status: 0, most: readHeaderTimeout},
		{name: "refused, body stops", number: 10, begin: func() string {
			return "POST " + endpoint + " HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\nContent-Length: 40\r\n\r\n"
		}, status: 429, most: readTimeout},
	}
	began := time.Now()
	ended := make([]chan stalled, len(kinds))
	for i, kind := range kinds {
		ended[i] = make(chan stalled, kind.number)
		for range kind.number {
			conn := f.dial()
			if _, err := io.WriteString(conn, kind.begin()); err != nil {
				t.Fatal(err)
			}
			go func() {
				began := time.Now()
				gone := make(chan struct{})
				if kind.drip != "" {
					go func() {
						for {
							select {
							case <-gone:
								return
							case <-time.After(300 * time.Millisecond):
								_, _ = io.WriteString(conn, kind.drip)
							}
						}
					}()
				}
				s := stalled{}
				s.answer, s.err = conn.answer()
				if s.err == nil && !conn.ends(20*time.Second) {
					s.err = errors.New("answered, and not closed")
				}
				close(gone)
				s.after = time.Since(began)
				ended[i] <- s
			}()
		}
	}
	t.Logf("all are there after %v", time.Since(began))

	// Meanwhile others send requests.
	var worst time.Duration
	for range 100 {
		began := time.Now()
		a := f.askAs(unknownEmail, fmt.Sprintf("2001:db8:0:%x::1", clients.Add(1)))
		if a.Status != http.StatusOK {
			t.Errorf("somebody else: %d %s", a.Status, a.Raw)
		}
		worst = max(worst, time.Since(began))
		time.Sleep(20 * time.Millisecond)
	}
	if worst > time.Second {
		t.Errorf("another client waited for %v", worst)
	}

	const all = 15 * time.Second
	for i, kind := range kinds {
		var last time.Duration
		for range kind.number {
			s := <-ended[i]
			last = max(last, s.after)
			switch {
			case kind.status == 0:
				if !errors.Is(s.err, io.EOF) && !errors.Is(s.err, io.ErrUnexpectedEOF) && !isReset(s.err) {
					t.Errorf("%s: %v, answered %d", kind.name, s.err, s.answer.Status)
				}
			case s.err != nil:
				t.Errorf("%s: %v", kind.name, s.err)
			case s.answer.Status != kind.status:
				t.Errorf("%s: %d %s", kind.name, s.answer.Status, s.answer.Raw)
			case kind.status == 400 && (s.answer.Body.Code != "invalid_json" || s.answer.Header.Get("Connection") != "close"):
				t.Errorf("%s: %v %s", kind.name, s.answer.Header, s.answer.Raw)
			}
			if t.Failed() {
				break // the others say the same
			}
		}
		t.Logf("TABLE | %s | %d | %d | the last after %v | others waited %v at most", kind.name, kind.number, kind.status, last.Round(10*time.Millisecond), worst.Round(time.Millisecond))
		if last > min(all, kind.most+4*time.Second) {
			t.Errorf("%s: the last was disconnected only after %v", kind.name, last)
		}
	}
	f.Settle()
	if calls := len(f.Calls()); calls > 101 {
		t.Errorf("%d calls for 101 requests about no account", calls)
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// TestTooLarge: a request beyond the bounds gets its answer at once, whatever else is on its way, and is not kept.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{})
	head := "POST " + endpoint + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	chunk := "1000\r\n" + strings.Repeat(" ", 0x1000) + "\r\n"
	for _, c := range []struct {
		name, head, endless string
		status              int
		code                string
	}{
		{name: "chunks without end", head: "Transfer-Encoding: chunked\r\n\r\n", endless: chunk, status: 413, code: "payload_too_large"},
		{name: "chunks of a byte", head: "Transfer-Encoding: chunked\r\n\r\n", endless: strings.Repeat("1\r\n \r\n", 1000), status: 413, code: "payload_too_large"},
		{name: "chunk extensions", head: "Transfer-Encoding: chunked\r\n\r\n", endless: "1;" + strings.Repeat("x", 2000) + "\r\n \r\n", status: 400, code: "invalid_json"},
		{name: "one chunk without end", head: "Transfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n", endless: chunk, status: 413, code: "payload_too_large"},
		{name: "a terabyte announced", head: "Content-Length: 1000000000000\r\n\r\n", endless: chunk, status: 413, code: "payload_too_large"},
		{name: "compressed", head: "Content-Encoding: gzip\r\nContent-Length: 1000000000000\r\n\r\n", endless: chunk, status: 415, code: "unsupported_media_type"},
	} {
		conn := f.dial()
		began := time.Now()
		sent := make(chan int)
		go func() {
			n, err := io.WriteString(conn, head+c.head)
			for err == nil && n < 1<<30 {
				var more int
				more, err = io.WriteString(conn, c.endless)
				n += more
			}
			sent <- n
		}()
		a, err := conn.answer()
		if err != nil || a.Status != c.status || a.Body.Code != c.code || a.Header.Get("Connection") != "close" {
			t.Errorf("%s: %v, %d %v %s", c.name, err, a.Status, a.Header, a.Raw)
		}
		if took := time.Since(began); took > readTimeout {
			t.Errorf("%s: answered after %v", c.name, took)
		}
		// The sockets' buffers have what the client could write until it noticed.
		if n := <-sent; n > 64<<20 {
			t.Errorf("%s: %d bytes were taken", c.name, n)
		} else {
			t.Logf("%s: %d KiB were sent until the connection ended, after %v", c.name, n>>10, time.Since(began).Round(time.Millisecond))
		}
	}

	// These bodies are within the bounds, and cost as much as they can.
	const plain = "plain"
	cost := map[string]time.Duration{}
	for range 5 { // the fastest of each counts, because the machine may be busy
		for name, body := range map[string]string{
			plain:            `{"email":"` + strings.Repeat("a", 16000) + `"}`,
			"arrays":         strings.Repeat("[", 16<<10),
			"objects":        strings.Repeat(`{"":`, 4<<10),
			"members":        `{` + strings.Repeat(`"a":0,`, 2700) + `"b":0}`,
			"distinct names": distinctMembers(1500),
			"numbers":        `{"email":` + strings.Repeat("9", 16000) + `}`,
			"escapes":        `{"email":"` + strings.Repeat(`\u0000`, 2700) + `"}`,
			"at signs":       `{"email":"` + strings.Repeat("@", 16000) + `"}`,
			"labels":         `{"email":"a@` + strings.Repeat("a.", 8000) + `"}`,
		} {
			began := time.Now()
			a := f.Post(body, nil)
			if took := time.Since(began); cost[name] == 0 || took < cost[name] {
				cost[name] = took
			}
			if a.Status != http.StatusBadRequest {
				t.Errorf("%s: %d %.200s", name, a.Status, a.Raw)
			}
			if len(a.Raw) > 2000 {
				t.Errorf("%s: the answer is %d bytes long", name, len(a.Raw))
			}
		}
	}
	for name, took := range cost {
		if took > 20*cost[plain] {
			t.Errorf("%s: %v, and a plain body %v", name, took, cost[plain])
		}
	}
}

func distinctMembers(n int) string {
	var b strings.Builder
	b.WriteString("{")
	for i := range n {
		fmt.Fprintf(&b, `"m%d":[],`, i)
	}
	b.WriteString(`"email":1}`)
	return b.String()
}

// TestLargeHeaders: MaxHeaderBytes is 16 KiB, and net/http adds 4 KiB. It answers in plain text, before there is a
// request that could get a documented answer.
func TestLargeHeaders(t *testing.T) {
	t.Parallel()
	f := start(t, resetdtest.Config{})
	for size, want := range map[int]int{12 << 10: 200, 24 << 10: 431, 1 << 20: 431} {
		conn := f.dial()
		body := `{"email":"known@example.com"}`
		go fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Fill: %s\r\nContent-Length: %d\r\n\r\n%s",
			endpoint, strings.Repeat("x", size), len(body), body)
		a, err := conn.answer()
		if err != nil || a.Status != want {
			t.Errorf("%d bytes: %d, %v", size, a.Status, err)
		}
		if want == 431 && !conn.ends(5*time.Second) {
			t.Errorf("%d bytes: the connection goes on", size)
		}
	}
	f.Settle()
	if n := len(f.Stack.Mails()); n != 1 {
		t.Errorf("%d mails", n)
	}
}
