// Package supabase asks Supabase Auth's admin API for recovery links.
//
// It owns the call generate_link: the headers for each kind of key, which answers are clear verdicts, which
// accounts are banned, and the bounds of the call. It must never let an address, a token, a key or a body of the
// upstream into an error.
package supabase

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/upstream"
)

const (
	// maxAnswer bounds what is read of an answer. Real ones have 1 to 2 KiB and the user's metadata,
	// to which a user can add 1 MiB with each call, up to the 256 MiB that PostgreSQL takes as one
	// jsonb (JENTRY_OFFLENMASK of its jsonb.h). The time of the call is the closer bound: v2.196 takes
	// 3 s for 35 MB (November 2026).
	maxAnswer = 256 << 20
	// maxShallow bounds what is kept of an answer. Outside of metadata the links are the longest part.
	maxShallow = 64 << 10
)

// Config says where Supabase Auth is, and how to call it.
type Config struct {
	AuthURL string // https://PROJECT.supabase.co/auth/v1
	Key     string
	Timeout time.Duration // of each call, from connecting to the last byte of the answer
	// LanguageField names the field of user_metadata with the language of an account; see CheckField. Empty
	// means that no language is read.
	LanguageField string
	// Propagate adds the trace context of a call to its headers. May be nil.
	Propagate func(ctx context.Context, header http.Header)
}

// Set says whether there is what a client needs.
func (c Config) Set() bool { return c.AuthURL != "" && c.Key != "" }

// Client makes recovery links. Its methods may be called concurrently.
type Client struct {
	http      *http.Client
	authURL   string
	header    http.Header
	field     string
	propagate func(context.Context, http.Header)
}

// New makes a client.
//
// The key goes where its kind belongs (https://supabase.com/docs/guides/api/api-keys): a
// secret key (sb_secret_…) is no JWT and goes in apikey alone, the gateway puts the right
// token in; a service_role JWT goes in apikey for the gateway and as Bearer for Auth itself.
func New(config Config) *Client {
	header := http.Header{"Content-Type": {"application/json"}, "Apikey": {config.Key}}
	if !IsSecretKey(config.Key) {
		header.Set("Authorization", "Bearer "+config.Key)
	}
	if config.Propagate == nil {
		config.Propagate = func(context.Context, http.Header) {}
	}
	return &Client{
		http:      upstream.NewClient(config.Timeout, maxAnswer),
		authURL:   strings.TrimRight(config.AuthURL, "/"),
		header:    header,
		field:     config.LanguageField,
		propagate: config.Propagate,
	}
}

type generateLinkRequest struct {
	Type       string `json:"type"`
	Email      string `json:"email"`
	RedirectTo string `json:"redirect_to"`
}

type generateLinkAnswer struct {
	Email            string    `json:"email"`
	BannedUntil      time.Time `json:"banned_until"`
	HashedToken      string    `json:"hashed_token"`
	ActionLink       string    `json:"action_link"`
	RedirectTo       string    `json:"redirect_to"`
	VerificationType string    `json:"verification_type"`
}

// answer is an answer of generate_link.
type answer struct {
	status    int
	errorCode string // from errorCodeHeader; empty without a valid one
	body      []byte // without the contents of its members; see shallow
	language  string // of the account, any text that its user has set
}

// generateLink makes the call. Its errors are impl.ErrAuthUnavailable.
func (c *Client) generateLink(ctx context.Context, email, redirectTo string) (answer, error) {
	body, err := json.Marshal(generateLinkRequest{Type: "recovery", Email: email, RedirectTo: redirectTo})
	if err != nil {
		return answer{}, fmt.Errorf("%w: encoding the request", impl.ErrAuthUnavailable)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.authURL+"/admin/generate_link", bytes.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("%w: making the request", impl.ErrAuthUnavailable)
	}
	request.Header = c.header.Clone()
	c.propagate(ctx, request.Header)
	response, err := c.http.Do(request)
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", impl.ErrAuthUnavailable, upstream.Cause(err))
	}
	defer response.Body.Close()
	a := answer{status: response.StatusCode}
	if code := response.Header.Get(errorCodeHeader); plainCode.MatchString(code) {
		a.errorCode = code
	}
	reader := &shallow{ReadCloser: response.Body, field: c.field}
	if a.body, err = io.ReadAll(bufio.NewReader(http.MaxBytesReader(nil, reader, maxShallow))); err != nil {
		return a, fmt.Errorf("%w: reading the answer: %w", impl.ErrAuthUnavailable, upstream.Cause(err))
	}
	a.language = reader.value
	return a, nil
}

// MakeLink makes a recovery link for the account of an address, and makes every earlier one invalid. It
// returns nil where there is no account. Its error is impl.ErrAuthNotConfigured where the key is refused, and
// impl.ErrAuthUnavailable where the answer is no clear verdict. It wraps delivery.ErrRefused too where only this
// account's link fails.
func (c *Client) MakeLink(ctx context.Context, email, redirectTo string) (*delivery.Link, error) {
	a, err := c.generateLink(ctx, email, redirectTo)
	switch {
	case err != nil:
		return nil, err
	case a.status == http.StatusOK:
		return readLink(a)
	}
	return nil, readRefusal(a)
}

// readLink reads a 200, which counts only with a usable link.
func readLink(a answer) (*delivery.Link, error) {
	var answer generateLinkAnswer
	if err := json.Unmarshal(a.body, &answer); err != nil {
		return nil, fmt.Errorf("%w: status 200 with no JSON of the expected form", impl.ErrAuthUnavailable)
	}
	switch {
	case answer.VerificationType != "recovery":
		return nil, fmt.Errorf("%w: status 200 without a recovery link", impl.ErrAuthUnavailable)
	case !usableToken.MatchString(answer.HashedToken):
		return nil, fmt.Errorf("%w: %w: status 200 without a usable hashed_token", impl.ErrAuthUnavailable, delivery.ErrRefused)
	case !usableLink(answer.ActionLink):
		return nil, fmt.Errorf("%w: %w: status 200 without a usable action_link", impl.ErrAuthUnavailable, delivery.ErrRefused)
	case impl.CheckAddress(answer.Email) != nil: // a list or a display name would mail somebody else (SECURITY.md, promise 2)
		return nil, fmt.Errorf("%w: %w: status 200 without a usable stored address", impl.ErrAuthUnavailable, delivery.ErrRefused)
	}
	return &delivery.Link{
		Email:      answer.Email,
		Banned:     answer.BannedUntil.After(time.Now()),
		TokenHash:  answer.HashedToken,
		ActionLink: answer.ActionLink,
		RedirectTo: answer.RedirectTo,
		Language:   a.language,
	}, nil
}

// usableToken matches more than the recorded 56 hexadecimal digits, so that another hash or a prefix is
// accepted, and nothing that would need escaping in a link.
var usableToken = regexp.MustCompile(`^[A-Za-z0-9_-]{16,256}$`)

// maxLink bounds a link by what all mail clients and browsers carry; recorded links have some 200 characters.
const maxLink = 2048

func usableLink(link string) bool {
	u, err := url.Parse(link)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && len(link) <= maxLink
}

// plainCode matches an error_code of Supabase Auth. Any other text is not repeated in errors.
var plainCode = regexp.MustCompile(`^[a-z_]{1,64}$`)

// readRefusal returns nil for a clear verdict that there is no account, and an error for any other refusal.
// Supabase Auth's own errors carry an error_code. An answer without one comes from a gateway or a proxy, and its
// 404 says nothing about an account.
func readRefusal(a answer) error {
	var said struct {
		ErrorCode string `json:"error_code"`
	}
	if json.Unmarshal(a.body, &said) != nil || !plainCode.MatchString(said.ErrorCode) {
		said.ErrorCode = noErrorCode
	}
	switch {
	case a.status == http.StatusNotFound && said.ErrorCode == "user_not_found",
		// An address that Supabase Auth cannot store has no account either.
		a.status == http.StatusBadRequest && said.ErrorCode == "validation_failed":
		return nil
	case a.status == http.StatusUnauthorized, a.status == http.StatusForbidden:
		return fmt.Errorf("%w: the key was refused: %w", impl.ErrAuthNotConfigured, &StatusError{a.status, said.ErrorCode})
	}
	return fmt.Errorf("%w: %w", impl.ErrAuthUnavailable, &StatusError{a.status, said.ErrorCode})
}

const noErrorCode = "no error_code"

// StatusError is an answer that is no clear verdict.
type StatusError struct {
	Status    int
	ErrorCode string // Supabase Auth's own, or "no error_code"
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d, %s", e.Status, e.ErrorCode) }
