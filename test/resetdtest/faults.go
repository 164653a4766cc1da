package resetdtest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
)

// Saying returns a fault that answers each call with this status and body.
func Saying(status int, body string, header ...string) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
}

// Hanging is a fault that answers no call.
func Hanging(http.Handler) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

// Once limits a fault to the first call.
func Once(fault func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var asked atomic.Bool
		faulty := fault(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.CompareAndSwap(false, true) {
				faulty.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// ForAddress hands calls for a link for that address to another handler.
func ForAddress(email string, handler http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if about, _ := ReadCall(r); about == email {
				handler.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Slot holds the fault of an upstream, which a test may change; nil is no fault.
type Slot struct{ current atomic.Pointer[http.Handler] }

// Set replaces the fault.
func (s *Slot) Set(handler http.Handler) {
	if handler == nil {
		s.current.Store(nil)
		return
	}
	s.current.Store(&handler)
}

// Middleware wraps a stand-in.
func (s *Slot) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handler := s.current.Load(); handler != nil {
			(*handler).ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ForwardingHeaders are further headers in which some programs look for a client's address, beside X-Forwarded-For. resetd
// trusts none of them unless CLIENT_IP_HEADER names it. The last ten rarely have a client's address, or never.
var ForwardingHeaders = []string{
	"X-Real-IP", "Forwarded", "CF-Connecting-IP", "True-Client-IP", "X-Client-IP", "X-Cluster-Client-IP",
	"Fastly-Client-IP", "Fly-Client-IP", "X-Envoy-External-Address", "X-Appengine-User-IP", "X-Azure-ClientIP", "Client-IP",
	"CF-Connecting-IPv6", "X-Forwarded", "Forwarded-For", "X-Original-Forwarded-For", "X-ProxyUser-IP", "WL-Proxy-Client-IP",
	"X-Remote-Addr", "Remote-Addr", "X-Host", "Via",
}

// ReadCall returns the address of a call of an upstream, and whether it is a test message.
func ReadCall(r *http.Request) (email string, test bool) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		var question struct{ Email string }
		_ = json.Unmarshal(body, &question)
		return question.Email, false
	}
	copied := r.Clone(r.Context())
	copied.Body = io.NopCloser(bytes.NewReader(body))
	if copied.ParseMultipartForm(1<<20) != nil {
		return "", false
	}
	return copied.FormValue("to"), copied.FormValue("o:testmode") != ""
}
