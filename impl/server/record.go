package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"runtime/debug"

	"github.com/labstack/echo/v4"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/clientip"
	"github.com/resetd/resetd/impl/redisclient"
)

// Recorder keeps a record of each request, for the operator.
type Recorder interface {
	// Begin opens the record of a request, and returns the context of its handling, from which
	// impl.CallerOf returns the record.
	Begin(ctx context.Context, id string, header http.Header, route string) (context.Context, Record)
}

// Record is that of one request. It is told nothing of what the caller has sent.
type Record interface {
	impl.Caller
	// SetClient says where the client's address was taken from, and how its hash is made, which is needed
	// only where there is a record.
	SetClient(from clientip.Source, hash func() string)
	// Notice counts something that the operator should know, of those that Notices lists.
	Notice(name string)
	// Panicked is told what kind of value a handler panicked with, and where.
	Panicked(kind string, stack []byte)
	// End writes the record, when the answer is out of the handler's hands.
	End(Answered)
}

// Answered is what is known of a request at its end. All of its texts come from closed sets.
type Answered struct {
	Method, Route string
	Status        int
	Code          string   // of the error body; empty where there is none
	Fields        []string // members of the body that are wrong
	Err           error    // a fault of the server's own
}

// recordOf returns the record of a request that is being handled.
func recordOf(ctx context.Context) Record {
	record, _ := impl.CallerOf(ctx).(Record)
	return record
}

// recorded opens the record, sets the headers of every answer, turns errors and panics into answers,
// and ends the record.
func recorded(recorder Recorder, next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		request := c.Request()
		id := requestID(request.Header)
		// However many limits count this request, it waits for Redis only so long in all.
		ctx, record := recorder.Begin(redisclient.WithBudget(request.Context()), id, request.Header, c.Path())
		c.SetRequest(request.WithContext(ctx))

		header := c.Response().Header()
		header[echo.HeaderXRequestID] = []string{id}
		header["Cache-Control"] = noStore
		header["X-Content-Type-Options"] = noSniff

		answered := Answered{Method: request.Method, Route: c.Path()}
		if err := recovered(func() error { return next(c) }, record); err != nil {
			var coded codedError
			if errors.As(err, &coded) {
				answered.Code = string(coded)
			} else {
				a := answerFor(err)
				answered.Code, answered.Fields = a.code, a.fields()
				if a == errInternal {
					answered.Err = internalCause(err)
				}
				if !c.Response().Committed {
					a.write(c.Response())
				}
			}
		}
		answered.Status = c.Response().Status
		if answered.Route == "" || answered.Status == http.StatusNotFound || answered.Status == http.StatusMethodNotAllowed {
			answered.Route = "unmatched" // what was asked for instead may be anything
		}
		if !knownMethods[answered.Method] {
			answered.Method = "other"
		}
		record.End(answered)
		return nil
	}
}

// codedError is the code of an error that a handler has answered itself.
type codedError string

func (c codedError) Error() string { return string(c) }

// The values of headers that every answer has.
var noStore, noSniff = []string{"no-store"}, []string{"nosniff"}

var knownMethods = map[string]bool{
	http.MethodGet: true, http.MethodHead: true, http.MethodPost: true, http.MethodPut: true,
	http.MethodPatch: true, http.MethodDelete: true, http.MethodOptions: true,
}

// plainID is a request id that may be taken over: short, and nothing but a name.
var plainID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func requestID(header http.Header) string {
	if id := header.Get(echo.HeaderXRequestID); plainID.MatchString(id) {
		return id
	}
	raw := make([]byte, 16)
	rand.Read(raw) // never fails (crypto/rand)
	return hex.EncodeToString(raw)
}

// internalCause keeps of an unforeseen error what cannot hold anything of the request: a
// library's text might.
func internalCause(err error) error {
	var p *panicError
	if errors.As(err, &p) {
		return p
	}
	return fmt.Errorf("unforeseen error of type %T", err)
}

type panicError struct{ kind string }

func (p *panicError) Error() string { return "panic: " + p.kind }

// recovered turns a panic into an error. Its value may hold anything, so only its type and the
// stack are recorded.
func recovered(handle func() error, record Record) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p)
		default:
			kind := fmt.Sprintf("%T", p)
			err = &panicError{kind}
			record.Panicked(kind, debug.Stack())
		}
	}()
	return handle()
}
