package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	neturl "net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	timeout   = 300 * time.Millisecond
	maxAnswer = 1000
	secret    = "never-repeat-this"
)

// serve starts an upstream, and counts the connections to it.
func serve(t *testing.T, handler http.HandlerFunc) (url string, connections *atomic.Int32) {
	t.Helper()
	connections = new(atomic.Int32)
	server := httptest.NewUnstartedServer(handler)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server.URL, connections
}

// call makes one call, and reads its answer.
func call(ctx context.Context, client *http.Client, url string) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(secret))
	if err != nil {
		return 0, nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

func hang(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func drip(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, "x"); err != nil {
			return
		}
		http.NewResponseController(w).Flush()
		time.Sleep(time.Millisecond)
	}
}

// TestTimeout: a call ends in time, and not too soon, if its answer never begins or never ends, and its error
// differs from other failures. In net/http the clocks of client and transport race each other, so the test
// makes many calls, and builds the error of the transport's clock by hand.
func TestTimeout(t *testing.T) {
	transports := &neturl.Error{Op: "Post", URL: "https://" + secret, Err: fmt.Errorf("%w", context.DeadlineExceeded)}
	if cause := Cause(transports); !errors.Is(cause, context.DeadlineExceeded) || strings.Contains(cause.Error(), secret) {
		t.Errorf("by the clock of the transport: %v", cause)
	}
	for name, handler := range map[string]http.HandlerFunc{"hangs": hang, "drips": drip} {
		t.Run(name, func(t *testing.T) {
			url, _ := serve(t, handler)
			client := NewClient(timeout, 1<<20)
			var calls sync.WaitGroup
			for range 30 {
				calls.Go(func() {
					began := time.Now()
					_, _, err := call(t.Context(), client, url)
					if cause := Cause(err); !errors.Is(cause, context.DeadlineExceeded) || cause.Error() != "no answer in time: context deadline exceeded" {
						t.Errorf("%v, of: %v", cause, err)
					}
					if took := time.Since(began); took < timeout {
						t.Errorf("took %v, with a timeout of %v", took, timeout)
					}
				})
			}
			calls.Wait()
		})
	}
}

// TestBounds: an answer may have maxAnswer bytes and no more, and its headers are bounded too.
func TestBounds(t *testing.T) {
	for _, c := range []struct {
		name         string
		body, header int
		cause        string
	}{
		{name: "as large as it may be", body: maxAnswer, header: 10, cause: ""},
		{name: "a byte too large", body: maxAnswer + 1, header: 10, cause: "its answer is too large"},
		{name: "endless", body: 10 << 20, header: 10, cause: "its answer is too large"},
		{name: "large headers", body: 10, header: 1 << 20, cause: "its answer could not be understood"},
	} {
		url, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", strings.Repeat("x", c.header))
			w.Write(bytes.Repeat([]byte("x"), c.body))
		})
		_, body, err := call(t.Context(), NewClient(time.Minute, maxAnswer), url)
		if c.cause == "" {
			if err != nil || len(body) != c.body {
				t.Errorf("%s: %d bytes, %v", c.name, len(body), err)
			}
			continue
		}
		if err == nil || Cause(err).Error() != c.cause || len(body) > maxAnswer {
			t.Errorf("%s: %d bytes, %v, want %s", c.name, len(body), err, c.cause)
		}
	}
}

// TestRedirects are not followed: they would carry the key elsewhere.
func TestRedirects(t *testing.T) {
	elsewhere, reached := serve(t, func(http.ResponseWriter, *http.Request) {})
	for _, status := range []int{301, 302, 303, 307, 308} {
		url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, status) })
		got, _, err := call(t.Context(), NewClient(time.Minute, maxAnswer), url)
		if err != nil || got != status || reached.Load() != 0 {
			t.Errorf("%d: %d, %v, and %d connections elsewhere", status, got, err, reached.Load())
		}
	}
}

// TestConnections: a client keeps as many connections as it uses at once, shares none with another client, and
// keeps no connection that has failed.
func TestConnections(t *testing.T) {
	const atOnce = 16
	var together sync.WaitGroup
	url, connections := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/together":
			together.Done()
			together.Wait()
		case "/fails":
			panic(http.ErrAbortHandler)
		}
	})
	one, other := NewClient(time.Minute, maxAnswer), NewClient(time.Minute, maxAnswer)
	callTogether := func() {
		together.Add(atOnce)
		var calls sync.WaitGroup
		for range atOnce {
			calls.Go(func() {
				if _, _, err := call(t.Context(), one, url+"/together"); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
	}
	step := func(name string, want int32, do func()) {
		before := connections.Load()
		do()
		if opened := connections.Load() - before; opened != want {
			t.Errorf("%s: %d connections were opened, want %d", name, opened, want)
		}
	}
	plain := func(client *http.Client) func() {
		return func() {
			if _, _, err := call(t.Context(), client, url); err != nil {
				t.Error(err)
			}
		}
	}
	step("many at once", atOnce, callTogether)
	step("many at once again", 0, callTogether)
	step("another client", 1, plain(other))
	step("a failure", 0, func() {
		if _, _, err := call(t.Context(), one, url+"/fails"); err == nil {
			t.Error("no error")
		}
	})
	step("after a failure", 1, plain(one))
	step("another client after a failure of the first", 0, plain(other))
}

// TestRetryAfter: a 429 with a Retry-After in seconds becomes an error with that time. Other answers are left to
// the caller.
func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		status int
		value  string
		want   time.Duration // 0: no error
	}{
		{status: 429, value: "1", want: time.Second},
		{status: 429, value: "120", want: 2 * time.Minute},
		{status: 429, value: "86400", want: 24 * time.Hour},
		{status: 429, value: "", want: 0},
		{status: 429, value: "soon", want: 0},
		{status: 429, value: "-1", want: 0},
		{status: 429, value: "1.5", want: 0},
		{status: 503, value: "120", want: 0},
		{status: 200, value: "120", want: 0},
	} {
		url, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			if c.value != "" {
				w.Header().Set("Retry-After", c.value)
			}
			w.WriteHeader(c.status)
			io.WriteString(w, secret)
		})
		status, _, err := call(t.Context(), NewClient(time.Minute, maxAnswer), url)
		if c.want == 0 {
			if err != nil || status != c.status {
				t.Errorf("%d, %q: %d, %v", c.status, c.value, status, err)
			}
			continue
		}
		var busy interface{ RetryAfter() time.Duration }
		if cause := Cause(err); err == nil || !errors.As(cause, &busy) || busy.RetryAfter() != c.want || !strings.Contains(cause.Error(), "429") {
			t.Errorf("%d, %q: %d, %v, want %v", c.status, c.value, status, err, c.want)
		}
	}
}

// TestCause: the cause says the kind of failure, and nothing of the address or the answer.
func TestCause(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	withTLS := httptest.NewUnstartedServer(http.NotFoundHandler())
	withTLS.Config.ErrorLog = log.New(io.Discard, "", 0)
	withTLS.StartTLS()
	defer withTLS.Close()
	_, port, err := net.SplitHostPort(withTLS.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	raw := func(answer string, reset bool) string {
		url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			connection, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(connection, answer)
			if reset {
				_ = connection.(*net.TCPConn).SetLinger(0)
			}
			connection.Close()
		})
		return url
	}
	hangs, _ := serve(t, hang)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name, url string
		ctx       context.Context //nolint:containedctx // of one case
		want      string
	}{
		{name: "refused", url: closed.URL, ctx: t.Context(), want: "connection refused"},
		{name: "reset", url: raw("", true), ctx: t.Context(), want: "connection reset by peer"},
		{name: "closed", url: raw("", false), ctx: t.Context(), want: "the connection was closed before the answer's end"},
		{name: "closed in the body", url: raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"+secret, false), ctx: t.Context(), want: "the connection was closed before the answer's end"},
		{name: "nonsense", url: raw(secret+"\r\n\r\n", false), ctx: t.Context(), want: "its answer could not be understood"},
		{name: "a broken header", url: raw("HTTP/1.1 200 OK\r\n"+secret+"\r\n\r\n", false), ctx: t.Context(), want: "its answer could not be understood"},
		{name: "hang", url: hangs, ctx: t.Context(), want: "no answer in time: context deadline exceeded"},
		{name: "cancelled", url: plain, ctx: cancelled, want: "context canceled"},
		{name: "no such host", url: "http://" + secret + ".invalid/", ctx: t.Context(), want: "its host name has no address"},
		{name: "unknown authority", url: withTLS.URL, ctx: t.Context(), want: "its certificate is signed by an unknown authority"},
		{name: "another host's certificate", url: "https://localhost:" + port, ctx: t.Context(), want: "its certificate is for another host"},
		{name: "no TLS", url: "https" + strings.TrimPrefix(plain, "http"), ctx: t.Context(), want: "it does not speak TLS"},
	} {
		patience := time.Minute
		if c.name == "hang" {
			patience = timeout
		}
		_, _, err := call(c.ctx, NewClient(patience, maxAnswer), c.url)
		if err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		if cause := Cause(err); cause.Error() != c.want || errors.Is(cause, context.DeadlineExceeded) != (c.name == "hang") || errors.Is(cause, context.Canceled) != (c.name == "cancelled") {
			t.Errorf("%s: %v, want %s; of: %v", c.name, cause, c.want, err)
		}
	}
}
