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

// Record is the record of one request. It gets nothing of the caller's text.
type Record interface {
	impl.Caller
	// SetClient sets the source of the client's address, and the function that makes its hash, which costs
	// something and is needed only if the record is written.
	SetClient(from clientip.Source, hash func() string)
	// Notice counts one of Notices.
	Notice(name string)
	// Panicked sets the type of the value that a handler panicked with, and the stack.
	Panicked(kind string, stack []byte)
	// End writes the record, once the handler has written the answer.
	End(Answered)
}

// Answered describes a request and its answer. All of its texts come from closed sets.
type Answered struct {
	Method, Route string
	Status        int
	Code          string   // of the error body; empty where there is none
	Fields        []string // the wrong members of the body
	Err           error    // a fault of the server's own
}

// recordOf returns the record of the request with this context.
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
		// All calls of Redis for one request share one budget of time.
		ctx, record := recorder.Begin(redisclient.WithBudget(request.Context()), id, request.Header, c.Path())
		c.SetRequest(request.WithContext(ctx))

		header := c.Response().Header()
		header[echo.HeaderXRequestID] = []string{id}
		header["Cache-Control"] = noStore
		header["X-Content-Type-Options"] = noSniff

		answered := Answered{Method: request.Method, Route: c.Path()}
		if err := recovered(func() error { return next(c) }, record); err != nil {
			if coded, ok := err.(codedError); ok { //nolint:errorlint // nobody wraps one
				answered.Code = string(coded)
			} else {
				a := apiErrorOf(err)
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
			answered.Route = "unmatched" // the path may be any text
		}
		if !knownMethods[answered.Method] {
			answered.Method = "other"
		}
		record.End(answered)
		return nil
	}
}

// codedError is the code of an error that a handler has already answered.
type codedError string

func (c codedError) Error() string { return string(c) }

// These are values of headers that every answer has.
var noStore, noSniff = []string{"no-store"}, []string{"nosniff"}

var knownMethods = map[string]bool{
	http.MethodGet: true, http.MethodHead: true, http.MethodPost: true, http.MethodPut: true,
	http.MethodPatch: true, http.MethodDelete: true, http.MethodOptions: true,
}

// plainID matches a caller's request id that is used as it is.
var plainID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func requestID(header http.Header) string {
	if id := header.Get(echo.HeaderXRequestID); plainID.MatchString(id) {
		return id
	}
	raw := make([]byte, 16)
	rand.Read(raw) // never fails (crypto/rand)
	return hex.EncodeToString(raw)
}

// internalCause returns an unforeseen error without its text, which may repeat the request.
func internalCause(err error) error {
	var p *panicError
	if errors.As(err, &p) {
		return p
	}
	return fmt.Errorf("unforeseen error of type %T", err)
}

type panicError struct{ kind string }

func (p *panicError) Error() string { return "panic: " + p.kind }

// recovered turns a panic into an error. It records only the type of the value and the stack, because the
// value may repeat the request.
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
