package supabase

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/upstream"
)

// The errors of CheckUnknown beside those of MakeLink.
var (
	// ErrRewritten says that something on the way replaced the body of Supabase Auth's answer.
	ErrRewritten = errors.New("Supabase Auth's answer was rewritten on its way")
	// ErrNotAuth says that an answer is not from Supabase Auth.
	ErrNotAuth = errors.New("the answer is none of Supabase Auth's")
	// ErrLinkForNobody says that a link was made for an address that no account can have.
	ErrLinkForNobody = errors.New("a link for an address without an account")
)

// errorCodeHeader repeats the error_code of the body, so that it survives a proxy that replaces
// the body. Supabase Auth sends it from 2.161 on.
const errorCodeHeader = "X-Sb-Error-Code"

// unknownAddress returns an address that no account can have. Its domain never exists (RFC 2606, section 2),
// and its name is new each time, so that no cache answers.
func unknownAddress() string { return "resetd-" + randomHex(12) + "@" + randomHex(4) + ".invalid" }

// randomHex returns 2n hexadecimal digits.
func randomHex(n int) string {
	raw := make([]byte, n)
	rand.Read(raw) // never fails (crypto/rand)
	return hex.EncodeToString(raw)
}

// CheckUnknown asks for a link for an address that no account has. It returns nil only for Supabase Auth's own
// 404. Any other clear verdict would mean that MakeLink takes accounts for unknown addresses, or unknown
// addresses for accounts. Its errors are those of MakeLink, and the three above.
func (c *Client) CheckUnknown(ctx context.Context, redirectTo string) error {
	a, err := c.generateLink(ctx, unknownAddress(), redirectTo)
	if err == nil && a.status == http.StatusOK {
		_, err = readLink(a)
	}
	switch {
	case a.status == http.StatusOK && err == nil:
		return fmt.Errorf("%w: %w", impl.ErrAuthUnavailable, ErrLinkForNobody)
	case a.status == http.StatusOK:
		return fmt.Errorf("%w: %w", ErrNotAuth, err)
	case err != nil:
		return err
	}
	err = readRefusal(a)
	var status *StatusError
	switch {
	case err == nil && a.status != http.StatusNotFound:
		return fmt.Errorf("%w: %w", impl.ErrAuthUnavailable, &StatusError{a.status, cmp.Or(a.errorCode, noErrorCode)})
	case errors.As(err, &status) && status.ErrorCode == noErrorCode && a.errorCode != "":
		return fmt.Errorf("%w: %w", ErrRewritten, err)
	}
	return err
}

// Distance measures the time to Supabase Auth and back: the quickest of three answers that need no lookup. Its
// error is a *StatusError, or one of upstream.Cause.
func (c *Client) Distance(ctx context.Context) (time.Duration, error) {
	quickest := time.Duration(math.MaxInt64)
	for range 3 { // the first may have to connect
		began := time.Now()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.authURL+"/health", nil)
		if err != nil {
			return 0, errors.New("making the request")
		}
		request.Header = c.header.Clone()
		response, err := c.http.Do(request)
		if err != nil {
			return 0, upstream.Cause(err)
		}
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		switch {
		case err != nil:
			return 0, upstream.Cause(err)
		case response.StatusCode != http.StatusOK:
			return 0, &StatusError{response.StatusCode, noErrorCode}
		}
		quickest = min(quickest, time.Since(began))
	}
	return quickest, nil
}

// RedirectOrigin returns the origin to which Supabase Auth leads from a link that was made with redirectTo: the
// origin of redirectTo if the project's allow-list has it, or else that of the project's site URL. It follows
// such a link with an invented token, so it uses no real one up. Supabase Auth counts it in its limit for
// verification, 30 in five minutes by default.
//
// It sends no key, like the browser in which a mail is opened. Its error is a *StatusError, ErrNotAuth, or one
// of upstream.Cause.
func (c *Client) RedirectOrigin(ctx context.Context, redirectTo string) (string, error) {
	query := url.Values{"token": {randomHex(28)}, // as long as a real one
		"type": {"recovery"}, "redirect_to": {redirectTo}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.authURL+"/verify?"+query.Encode(), nil)
	if err != nil {
		return "", errors.New("making the request")
	}
	c.propagate(ctx, request.Header)
	response, err := c.http.Do(request)
	if err != nil {
		return "", upstream.Cause(err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body) // so that the connection can be used again
	if response.StatusCode != http.StatusSeeOther {
		return "", &StatusError{response.StatusCode, "no redirect"}
	}
	// Supabase Auth redirects with an error_code in the fragment, or, without its database, to redirectTo
	// itself. Other servers do neither.
	location, err := response.Location()
	if err != nil || location.Host == "" || !strings.Contains(location.Fragment, "error_code=") && location.String() != redirectTo {
		return "", ErrNotAuth
	}
	return location.Scheme + "://" + location.Host, nil
}
