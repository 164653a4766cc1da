package server

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/resetd/resetd/gen"
)

// beat is when one request is answered: a whole number of quanta after it began, so that the
// time of an answer tells no more than in which quantum it was decided (H1).
type beat struct {
	quantum time.Duration
	began   time.Time
	at      time.Time // zero until decided
	ends    []func()
}

// next is the first whole number of quanta after began that is not before now.
func next(began time.Time, quantum time.Duration, now time.Time) time.Time {
	quanta := int64((now.Sub(began) + quantum - 1) / quantum)
	return began.Add(time.Duration(max(quanta, 1)) * quantum)
}

// decide fixes the beat, once, and says how long it is until then.
func (b *beat) decide() time.Duration {
	now := time.Now()
	if b.at.IsZero() {
		b.at = next(b.began, b.quantum, now)
	}
	return b.at.Sub(now)
}

type beatKey struct{}

func beatOf(ctx context.Context) *beat {
	b, _ := ctx.Value(beatKey{}).(*beat)
	return b
}

// Decide fixes the instant at which the request of ctx is answered, at the next beat, and says
// how long that is from now. What is decided later than that no longer moves it.
func Decide(ctx context.Context) time.Duration {
	if b := beatOf(ctx); b != nil {
		return b.decide()
	}
	return 0
}

// atEnd defers f until the answer to the request of ctx goes out or its client has gone, which
// is after the handlers have returned. What f holds is held while the request waits.
func atEnd(ctx context.Context, f func()) {
	b := beatOf(ctx)
	b.ends = append(b.ends, f)
}

func (b *beat) end() {
	for i := len(b.ends) - 1; i >= 0; i-- {
		b.ends[i]()
	}
}

// onTheBeat delays whatever the operation has decided: answers, errors and panics alike.
func onTheBeat(quantum time.Duration, observer *Observer) gen.StrictMiddlewareFunc {
	return func(next gen.StrictHandlerFunc, _ string) gen.StrictHandlerFunc {
		if quantum == 0 {
			return next
		}
		return func(c echo.Context, request any) (response any, err error) {
			ctx := c.Request().Context()
			r, b := recordOf(ctx), beatOf(ctx)
			b.quantum, b.began = quantum, r.began
			err = observer.recovered(func() error {
				response, err = next(c, request)
				return err
			}, r)
			b.decide()
			return response, err
		}
	}
}

// A Server is the public handler. Requests that wait for their beat are no longer in the hands
// of net/http, which would hold some 25 KB for each (two goroutines, three buffers): the Server
// takes their connections over, holds 7 KB, and closes them after the answer.
type Server struct {
	handler http.Handler
	waiting sync.WaitGroup
}

func (s *Server) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	b := &beat{}
	h := &held{ResponseWriter: w, beat: b}
	s.waiting.Add(1) // before net/http lets go of the connection, or Close might miss it
	waits := false
	defer func() {
		if !waits {
			b.end()
			s.waiting.Done()
		}
	}()
	s.handler.ServeHTTP(h, request.WithContext(context.WithValue(request.Context(), beatKey{}, b)))
	if b.at.IsZero() {
		return
	}
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil { // no connection of net/http's own
		time.Sleep(time.Until(b.at))
		w.WriteHeader(h.status)
		_, _ = w.Write(h.body) // fails only when the client has gone
		return
	}
	waits = true
	go s.answerLater(connection, b, h.answer())
}

// answerLater holds nothing of net/http's.
func (s *Server) answerLater(connection net.Conn, b *beat, answer []byte) {
	defer s.waiting.Done()
	stayed := stays(connection, b.at)
	b.end() // first, as with net/http: whoever has an answer finds its record in the log
	if !stayed {
		// Maybe only one half is closed, and the other would tell when this was decided.
		time.AfterFunc(time.Until(b.at), func() { _ = connection.Close() })
		return
	}
	_ = connection.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, _ = connection.Write(answer)
	_ = connection.Close()
}

// writeTimeout is ample for an answer that the kernel's buffer holds.
const writeTimeout = 5 * time.Second

// Close waits until every request that waits for its beat is answered, or ctx ends. No request
// may come in any more.
func (s *Server) Close(ctx context.Context) error {
	idle := make(chan struct{})
	go func() {
		s.waiting.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stays waits until the instant, and returns false at once when the client goes away.
func stays(connection net.Conn, at time.Time) bool {
	_ = connection.SetReadDeadline(at)
	_, err := connection.Read(make([]byte, 1))
	if err == nil { // a pipelined request, which is not answered here
		time.Sleep(time.Until(at))
		return true
	}
	timeout, ok := err.(net.Error) //nolint:errorlint // net's own, unwrapped
	return ok && timeout.Timeout()
}

// held is a ResponseWriter that keeps what was decided for the beat.
type held struct {
	http.ResponseWriter
	beat   *beat
	status int
	body   []byte
}

// Unwrap is for http.ResponseController.
func (h *held) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *held) WriteHeader(status int) {
	if h.status = status; h.beat.at.IsZero() {
		h.ResponseWriter.WriteHeader(status)
	}
}

func (h *held) Write(p []byte) (int, error) {
	if h.beat.at.IsZero() {
		return h.ResponseWriter.Write(p)
	}
	h.body = append(h.body, p...)
	return len(p), nil
}

// answer is the whole of it as it goes over the wire. Its Date is the beat's: the present one
// would tell when it was decided.
func (h *held) answer() []byte {
	header := h.Header().Clone()
	header["Date"] = []string{h.beat.at.UTC().Format(http.TimeFormat)}
	var wire bytes.Buffer
	_ = (&http.Response{ // fails only where its writer does
		StatusCode: h.status, ProtoMajor: 1, ProtoMinor: 1, Header: header, Close: true,
		Body: io.NopCloser(bytes.NewReader(h.body)), ContentLength: int64(len(h.body)),
	}).Write(&wire)
	return bytes.Clone(wire.Bytes())
}
