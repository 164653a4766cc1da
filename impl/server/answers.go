package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/labstack/echo/v4"

	"github.com/resetd/resetd/gen"
	"github.com/resetd/resetd/impl"
)

// apiError is an error answer: what a caller is told of an error. The log keeps the cause.
type apiError struct {
	status     int
	code       string
	message    string
	issues     []gen.Issue
	retryAfter int  // seconds; 0: none
	inBody     bool // retryAfter is said in the body too

	once sync.Once
	body []byte // encoded when it is first sent: a flood is answered with the same few
}

func (a *apiError) Error() string { return a.code }

var (
	errNotFound             = &apiError{status: http.StatusNotFound, code: "not_found", message: "There is nothing here."}
	errMethodNotAllowed     = &apiError{status: http.StatusMethodNotAllowed, code: "method_not_allowed", message: "This method is not allowed here."}
	errPayloadTooLarge      = &apiError{status: http.StatusRequestEntityTooLarge, code: "payload_too_large", message: "The request body is too large."}
	errUnsupportedMediaType = &apiError{status: http.StatusUnsupportedMediaType, code: "unsupported_media_type", message: "Send the request body as application/json."}
	errInternal             = &apiError{status: http.StatusInternalServerError, code: "internal_error", message: "Something went wrong on our side. Try again later."}
	errOverloaded           = &apiError{status: http.StatusServiceUnavailable, code: "overloaded", message: "The server is busy. Try again in a few seconds.", retryAfter: 5}
)

// faults maps the operation's errors to answers.
var faults = []struct {
	err    error
	answer *apiError
}{
	{impl.ErrAuthNotConfigured, &apiError{status: http.StatusInternalServerError, code: "auth_not_configured", message: "Password reset is not set up on this server."}},
	{impl.ErrAuthUnavailable, &apiError{status: http.StatusServiceUnavailable, code: "auth_unavailable", message: "Password reset is unavailable right now. Try again in a few seconds.", retryAfter: 5}},
	{impl.ErrEmailDelivery, &apiError{status: http.StatusBadGateway, code: "email_delivery_failed", message: "The email could not be sent. Try again later."}},
	{impl.ErrOverloaded, errOverloaded},
}

// Failures returns the status and code of the answers that an operator watches: those about everybody, and
// rate_limited.
func Failures() (failures []Answered) {
	for _, fault := range faults {
		failures = append(failures, Answered{Status: fault.answer.status, Code: fault.answer.code})
	}
	for _, own := range []*apiError{errInternal, rateLimited(1)} {
		failures = append(failures, Answered{Status: own.status, Code: own.code})
	}
	return failures
}

func invalidJSON(message string) *apiError {
	return &apiError{
		status: http.StatusBadRequest, code: "invalid_json", message: "The request body is not valid JSON.",
		issues: []gen.Issue{{Path: "", Message: message}},
	}
}

func invalidRequest(issues []gen.Issue) *apiError {
	message := "The request is not valid."
	for _, issue := range issues {
		if issue.Path != "" {
			message = "Check the highlighted fields and try again."
		}
	}
	return &apiError{status: http.StatusBadRequest, code: "invalid_request", message: message, issues: issues}
}

// waits caches the answers rate_limited by their seconds, up to an hour: 1 MB at most.
var waits [3601]atomic.Pointer[apiError]

func rateLimited(seconds int) *apiError {
	if seconds >= len(waits) {
		return newRateLimited(seconds)
	}
	known := waits[seconds].Load()
	if known == nil {
		known = newRateLimited(seconds)
		waits[seconds].Store(known)
	}
	return known
}

func newRateLimited(seconds int) *apiError {
	unit := " seconds."
	if seconds == 1 {
		unit = " second."
	}
	return &apiError{
		status: http.StatusTooManyRequests, code: "rate_limited",
		message:    "Too many requests. Try again in " + strconv.Itoa(seconds) + unit,
		retryAfter: seconds, inBody: true,
	}
}

// fields returns the members of the body that the issues name, each once.
func (a *apiError) fields() (names []string) {
	for _, issue := range a.issues {
		if issue.Path != "" && !slices.Contains(names, issue.Path) {
			names = append(names, issue.Path)
		}
	}
	return names
}

// apiErrorOf returns the answer to an error. An error that no table lists is answered internal_error, without
// detail.
func apiErrorOf(err error) *apiError {
	if known, ok := err.(*apiError); ok { //nolint:errorlint // nobody wraps one
		return known
	}
	for _, fault := range faults {
		if errors.Is(err, fault.err) {
			return fault.answer
		}
	}
	var routing *echo.HTTPError
	if errors.As(err, &routing) {
		switch routing.Code {
		case http.StatusNotFound:
			return errNotFound
		case http.StatusMethodNotAllowed:
			return errMethodNotAllowed
		}
	}
	return errInternal
}

// write sends the answer.
func (a *apiError) write(w http.ResponseWriter) {
	a.once.Do(a.encode)
	header := w.Header()
	header["Content-Type"] = contentJSON
	if a.retryAfter > 0 {
		header["Retry-After"] = []string{strconv.Itoa(a.retryAfter)}
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // fails only when the client has gone
}

var contentJSON = []string{echo.MIMEApplicationJSON}

func (a *apiError) encode() {
	body := gen.ErrorBody{Error: a.message, Code: &a.code}
	if len(a.issues) > 0 {
		body.Issues = &a.issues
		fields := make(map[string]string, len(a.issues))
		for _, issue := range a.issues {
			if _, taken := fields[issue.Path]; !taken && issue.Path != "" {
				fields[issue.Path] = issue.Message
			}
		}
		if len(fields) > 0 {
			body.FieldErrors = &fields
		}
	}
	if a.inBody {
		seconds := float64(a.retryAfter)
		body.RetryAfter = &seconds
	}
	var buffer bytes.Buffer
	_ = json.NewEncoder(&buffer).Encode(body) // strings and numbers: cannot fail
	a.body = buffer.Bytes()
}
