// Package goclient shows how a Go program requests a password-reset mail from resetd, and what it can do with each
// documented answer. Copy it: it needs only the generated client, gen/client, which can be generated from
// openapi.yaml anywhere.
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

// Errors for errors.Is on an *Error.
var (
	// ErrInvalid: the request is invalid. Error.FieldErrors says what to correct. If it is empty, the program is wrong,
	// and not its user.
	ErrInvalid = errors.New("invalid request")
	// ErrRateLimited: too many requests from this IP address. Error.Wait says how long to wait.
	ErrRateLimited = errors.New("rate limited")
	// ErrNotConfigured: the server lacks settings, or Supabase Auth refuses its key. Waiting does not help; the
	// operator must act.
	ErrNotConfigured = errors.New("not configured")
	// ErrDelivery: Mailgun accepts no message now. Nobody gets a mail.
	ErrDelivery = errors.New("email delivery failed")
	// ErrUnavailable: Supabase Auth answers nobody, or the server is overloaded. Nobody gets a mail. Error.Wait says
	// when to try again.
	ErrUnavailable = errors.New("unavailable")
	// ErrInternal: a bug in the server.
	ErrInternal = errors.New("internal error")
	// ErrUndocumented: an answer that is not in openapi.yaml, such as a proxy's.
	ErrUndocumented = errors.New("undocumented answer")
)

// Error is every answer other than the acknowledgment.
type Error struct {
	Status      int               // of HTTP
	Code        string            // stable, to branch on where errors.Is is too coarse; may be empty
	Message     string            // for people, in English; may be empty
	FieldErrors map[string]string // the first message of each field, for a form
	Issues      []client.Issue    // all messages
	Wait        time.Duration     // before the next request; 0 if the answer does not say
	RequestID   string            // names the request in the server's log

	about error
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("%v: %s (status %d, code %q, request %q)",
		e.about, cmp.Or(e.Message, http.StatusText(e.Status)), e.Status, e.Code, e.RequestID)
}

// Unwrap returns one of the errors of this package.
func (e *Error) Unwrap() error { return e.about }

// Request is a request for a mail.
type Request struct {
	Email string
	// CallbackOrigin is the origin (scheme://host[:port]) that the link leads to, if the server allows it. Empty: the
	// site's own.
	CallbackOrigin string
	// Language is the language of the mail, as in Accept-Language. A server that sends the request for a user must pass
	// on the user's. Empty: English.
	Language string
}

// answerWithin is longer than the server takes. It answers at once, except for the first request after a rest of the
// probes, which waits for at most two calls of its upstreams, of 5 s each by default.
const answerWithin = 30 * time.Second

// Client sends requests to one server.
type Client struct{ api *client.ClientWithResponses }

// New makes a Client of the server at baseURL, such as https://example.com/api. The options are those of the
// generated client; client.WithHTTPClient replaces the default HTTP client.
func New(baseURL string, options ...client.ClientOption) (*Client, error) {
	options = append([]client.ClientOption{client.WithHTTPClient(&http.Client{Timeout: answerWithin})}, options...)
	api, err := client.NewClientWithResponses(baseURL, options...)
	if err != nil {
		return nil, fmt.Errorf("resetd at %q: %w", baseURL, err)
	}
	return &Client{api}, nil
}

// SendPasswordReset requests a mail, and returns what to tell the user, which is the same whether or not there is an
// account: the server has accepted the request, and if there is an account, sends its mail within a second or two.
// An answer other than the acknowledgment is an *Error; any other error means that there was no readable answer.
//
// It does not try again by itself, because every mail makes the link of the one before invalid. The user decides
// that.
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

// refusal reads an answer other than the acknowledgment. The status says which answer, and body is nil if it is not
// the documented one.
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
	// This does not use the generated Headers429, because proxies answer 429 and 503 too, with other headers.
	if seconds, err := strconv.ParseInt(header.Get("Retry-After"), 10, 64); err == nil {
		refused.Wait = wait(float64(seconds))
	}
	if body == nil {
		return refused
	}
	refused.about = about
	refused.Code, refused.Message, refused.FieldErrors, refused.Issues = body.Code, body.Error, body.FieldErrors, body.Issues
	if refused.Wait == 0 { // a proxy may have removed the header
		refused.Wait = wait(body.RetryAfter)
	}
	return refused
}

// longestWait is longer than any limit of the server.
const longestWait = 24 * time.Hour

// wait returns a number of seconds as a time to wait. The number may be negative, not a number, or more than a
// time.Duration holds.
func wait(seconds float64) time.Duration {
	switch {
	case !(seconds > 0):
		return 0
	case seconds > longestWait.Seconds():
		return longestWait
	}
	return time.Duration(seconds * float64(time.Second))
}
