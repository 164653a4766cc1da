package supabase

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/resetd/resetd/impl"
)

// What only a trial finds out. A server that runs cannot: it takes the first two for faults of
// the moment, and never asks for an address of which it knows the right answer.
var (
	// ErrRewritten: Supabase Auth has answered, and something on the way put a body of its own
	// in the place of Supabase's.
	ErrRewritten = errors.New("Supabase Auth's answer was rewritten on its way")
	// ErrNotAuth: what answers does so unlike any Supabase Auth.
	ErrNotAuth = errors.New("the answer is none of Supabase Auth's")
	// ErrLinkForNobody: a link was made for an address that no account can have.
	ErrLinkForNobody = errors.New("a link for an address without an account")
)

// errorCodeHeader repeats the error_code of the body, so that it survives a proxy that replaces
// the body. Supabase Auth sends it from 2.161 on.
const errorCodeHeader = "X-Sb-Error-Code"

// CheckUnknown asks for a link for an address that no account has. It returns nil only for
// Supabase Auth's own 404. Any other clear verdict would be one on everybody: MakeLink would
// take accounts for strangers, or strangers for accounts. Its errors are those of MakeLink, and
// the three above.
func (c *Client) CheckUnknown(ctx context.Context, nobody, redirectTo string) error {
	client, watched := *c, *c.http
	last := &lastAnswer{next: c.http.Transport}
	watched.Transport = last
	client.http = &watched
	link, err := client.MakeLink(ctx, nobody, redirectTo)
	var status *StatusError
	switch {
	case err == nil && link != nil:
		err = fmt.Errorf("%w: %w", impl.ErrAuthUnavailable, ErrLinkForNobody)
	case err == nil && last.status != http.StatusNotFound:
		err = fmt.Errorf("%w: %w", impl.ErrAuthUnavailable, &StatusError{last.status, last.errorCode})
	case errors.As(err, &status) && !plainCode.MatchString(status.ErrorCode) && last.errorCode != "":
		err = fmt.Errorf("%w: %w", ErrRewritten, err)
	case errors.As(last.err, new(tls.RecordHeaderError)): // which http.Client puts another error in the place of
		err = fmt.Errorf("%w: it does not speak TLS", impl.ErrAuthUnavailable)
	case err != nil && status == nil && last.status == http.StatusOK:
		err = fmt.Errorf("%w: %w", ErrNotAuth, err)
	}
	if err != nil {
		c.http.CloseIdleConnections() // as MakeLink does, which does not see through lastAnswer
	}
	return err
}

// lastAnswer remembers of the last answer what MakeLink has no use for.
type lastAnswer struct {
	next      http.RoundTripper
	status    int
	errorCode string // of errorCodeHeader; empty if it is none
	err       error
}

// RoundTrip implements http.RoundTripper.
func (l *lastAnswer) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := l.next.RoundTrip(request)
	if l.err = err; err != nil {
		return nil, err
	}
	l.status = response.StatusCode
	if code := response.Header.Get(errorCodeHeader); plainCode.MatchString(code) {
		l.errorCode = code
	}
	return response, nil
}

// RedirectOrigin says where Supabase Auth leads whoever follows a link that was made with
// redirectTo: its origin if the project's allow-list has it, and else that of the project's
// site URL. It follows such a link with a token that is made up, and so uses none up; Supabase
// Auth counts it in its limit for verification, 30 in five minutes by default.
//
// No key is sent, because the browser of whoever opens a mail has none either. Errors are a
// *StatusError, ErrNotAuth, or the kind of a network's fault.
func (c *Client) RedirectOrigin(ctx context.Context, redirectTo string) (string, error) {
	var token [28]byte // as long as a real one
	rand.Read(token[:])
	query := url.Values{"token": {hex.EncodeToString(token[:])}, "type": {"recovery"}, "redirect_to": {redirectTo}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.authURL+"/verify?"+query.Encode(), nil)
	if err != nil {
		return "", errors.New("making the request")
	}
	c.propagate(ctx, request.Header)
	response, err := c.http.Do(request)
	if err != nil {
		return "", impl.Cause(err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxAnswer)) // so that the connection can be used again
	if response.StatusCode != http.StatusSeeOther {
		return "", &StatusError{response.StatusCode, "no redirect"}
	}
	// Of the many things that redirect, Supabase Auth says in the fragment why the link is no good;
	// or nothing at all, while it has no database.
	location, err := response.Location()
	if err != nil || location.Host == "" || !strings.Contains(location.Fragment, "error_code=") && location.String() != redirectTo {
		return "", ErrNotAuth
	}
	return location.Scheme + "://" + location.Host, nil
}
