package server

import (
	"io"
	"net/http"
	"strings"
)

// maxRest bounds what is read of a body after its answer. It is net/http's own bound for connections that stay open.
const maxRest = 256 << 10

// ReadRest reads what a handler has not read of a body, if the connection ends with the request: in HTTP/1.0, which
// nginx speaks to an upstream by default, and after "Connection: close". There net/http closes the connection at once,
// the kernel resets it because of the unread bytes, and a client or proxy that is still sending may lose the answer.
// For connections that stay open, net/http does the same itself.
func ReadRest(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if !r.Close || r.ContentLength == 0 {
			return
		}
		// A client that waits for 100 Continue has sent nothing, and would wait for the answer until ReadTimeout.
		if r.ContentLength <= maxRest && r.Header.Get("Expect") == "" {
			if _, err := io.CopyN(io.Discard, r.Body, maxRest); err != nil {
				return // the end, or nothing more comes in time
			}
		}
		// There may be more than is worth reading. net/http waits half a second before it closes such a connection, and
		// is told so by a MaxBytesReader whose bound is passed.
		_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader(" ")), 0).Read(make([]byte, 1))
	})
}
