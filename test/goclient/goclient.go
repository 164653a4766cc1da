// Package goclient shows how a Go program asks resetd for a password-reset mail, and what it
// can do about each documented answer. It is made to be copied: all it needs is the generated
// client, gen/client, which can be generated from openapi.yaml anywhere.
package goclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/resetd/resetd/gen/client"
)

// What an *Error is about, for errors.Is.
var (
	// ErrInvalid: the request cannot be served as it is. Error.FieldErrors says what to
	// correct; if it is empty, the fault is the program's and not its user's.
	ErrInvalid = errors.New("invalid request")
	// ErrRateLimited: too many requests from this IP address. Error.Wait says how long to wait.
	ErrRateLimited = errors.New("rate limited")
	// ErrNotConfigured: the server lacks its settings, or Supabase Auth refuses its key.
	// Waiting does not help; somebody has to see to it.
	ErrNotConfigured = errors.New("not configured")
	// ErrDelivery: Mailgun accepts no message just now. Nobody is sent a mail.
	ErrDelivery = errors.New("email delivery failed")
	// ErrUnavailable: Supabase Auth answers nobody, or the server is overloaded. Nobody is sent a
	// mail. Error.Wait says when to try again.
	ErrUnavailable = errors.New("unavailable")
	// ErrInternal: a fault of the server's own.
	ErrInternal = errors.New("internal error")
	// ErrUndocumented: an answer that openapi.yaml does not have, such as a proxy's own.
	ErrUndocumented = errors.New("undocumented answer")
)

// Error is every answer but the acknowledgment.
type Error struct {
	Status      int               // of HTTP
	Code        string            // stable, to branch on where errors.Is is too coarse; may be empty
	Message     string            // for people, in English; may be empty
	FieldErrors map[string]string // first message by field, for a form
	Issues      []client.Issue    // all of them
	Wait        time.Duration     // before asking again; 0 where the answer does not say
	RequestID   string            // names the request in the server's log

	about error
}

// Error says what the answer was.
func (e *Error) Error() string {
	return fmt.Sprintf("%v: %s (status %d, code %q, request %q)",
		e.about, cmp.Or(e.Message, http.StatusText(e.Status)), e.Status, e.Code, e.RequestID)
}

// Unwrap is one of the errors of this package.
func (e *Error) Unwrap() error { return e.about }

// Request is what is asked for.
type Request struct {
	Email string
	// CallbackOrigin is the origin (scheme://host[:port]) that the link shall lead to, if the
	// server allows it. Empty: the site's own.
	CallbackOrigin string
	// Language of the mail, as in Accept-Language: that of the user, which a server that asks
	// for one has to pass on. Empty: English.
	Language string
}

// answerWithin is more than the server takes. It answers at once, except for the first request
// after a rest, which waits for two questions to its upstreams at most, of 5 s each by default.
const answerWithin = 30 * time.Second

// Client asks one server.
type Client struct{ api *client.ClientWithResponses }

// New makes a Client of the server at baseURL, such as https://example.com/api. The options
// are the generated client's; client.WithHTTPClient replaces the default one.
func New(baseURL string, options ...client.ClientOption) (*Client, error) {
	options = append([]client.ClientOption{client.WithHTTPClient(&http.Client{Timeout: answerWithin})}, options...)
	api, err := client.NewClientWithResponses(baseURL, options...)
	if err != nil {
		return nil, fmt.Errorf("resetd at %q: %w", baseURL, err)
	}
	return &Client{api}, nil
}

// SendPasswordReset asks for a mail and returns what to tell the user, which is the same
// whether or not there is an account: the server has taken the request, and sends the mail, if
// there is one to send, within a second or two. An answer that is no acknowledgment is an *Error;
// any other error means that there was no readable answer.
//
// It does not try again by itself: every mail makes the link of the one before invalid, so
// that is for the user to decide.
func (c *Client) SendPasswordReset(ctx context.Context, request Request) (message string, err error) {
	var params *client.SendPasswordResetParams
	if request.Language != "" {
		params = &client.SendPasswordResetParams{AcceptLanguage: request.Language}
	}
	response, err := c.api.SendPasswordResetWithResponse(ctx, params, client.SendPasswordResetRequest{
		Email: request.Email, CallbackOrigin: request.CallbackOrigin,
	})
	if err != nil {
		return "", fmt.Errorf("asking for a password reset: %w", err)
	}
	if response.JSON200 != nil && response.JSON200.Ok {
		return response.JSON200.Message, nil
	}
	return "", refusal(response)
}

// refusal reads an answer that is no acknowledgment: the status says which, and the body is nil
// where it is not the documented one.
func refusal(response *client.SendPasswordResetResponse) *Error {
	var about error
	var body *client.ErrorBody
	switch response.StatusCode() {
	case http.StatusBadRequest:
		about, body = ErrInvalid, response.JSON400
	case http.StatusRequestEntityTooLarge:
		about, body = ErrInvalid, response.JSON413
	case http.StatusUnsupportedMediaType:
		about, body = ErrInvalid, response.JSON415
	case http.StatusTooManyRequests:
		about, body = ErrRateLimited, (*client.ErrorBody)(response.JSON429)
	case http.StatusInternalServerError:
		about, body = ErrInternal, response.JSON500
		if body != nil && body.Code == "auth_not_configured" {
			about = ErrNotConfigured
		}
	case http.StatusBadGateway:
		about, body = ErrDelivery, response.JSON502
	case http.StatusServiceUnavailable:
		about, body = ErrUnavailable, response.JSON503
	}
	header := response.HTTPResponse.Header
	refused := &Error{Status: response.StatusCode(), RequestID: header.Get("X-Request-Id"), about: ErrUndocumented}
	// Not the generated Headers429: what stands in between may answer 429 and 503 too, in other words.
	if seconds, err := strconv.ParseInt(header.Get("Retry-After"), 10, 64); err == nil {
		refused.Wait = wait(float64(seconds))
	}
	if body == nil {
		return refused
	}
	refused.about = about
	refused.Code, refused.Message, refused.FieldErrors, refused.Issues = body.Code, body.Error, body.FieldErrors, body.Issues
	if refused.Wait == 0 { // a proxy may have dropped the header
		refused.Wait = wait(body.RetryAfter)
	}
	return refused
}

// longestWait is more than any limit of the server's.
const longestWait = 24 * time.Hour

// wait is a number of seconds as a time that can be waited for: what an answer says may be
// negative, no number, or more than a time.Duration holds.
func wait(seconds float64) time.Duration {
	switch {
	case !(seconds > 0):
		return 0
	case seconds > longestWait.Seconds():
		return longestWait
	}
	return time.Duration(seconds * float64(time.Second))
}
