// Package impl is the operation: what happens to one valid request for a password reset.
//
// It decides the answer before the account is looked up: by the health of the upstreams and the number of
// requests for the address. An accepted request goes into an outbox, and is delivered after the answer. Nothing
// that this package imports or is given can say whether an account exists, so no answer depends on that. It must
// never choose an HTTP status, or wait for a delivery.
package impl

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/resetd/resetd/gen"
)

// The faults that a caller is told. Each is the same for every address. The table in impl/server turns them
// into answers.
var (
	// ErrAuthNotConfigured says that Supabase Auth is not configured, or refuses the key.
	ErrAuthNotConfigured = errors.New("auth not configured")
	// ErrAuthUnavailable says that Supabase Auth gives no usable answer to anybody.
	ErrAuthUnavailable = errors.New("auth unavailable")
	// ErrEmailDelivery says that Mailgun is not configured, or accepts no message.
	ErrEmailDelivery = errors.New("email delivery failed")
	// ErrOverloaded says that no request is accepted now: more were accepted in the last seconds than
	// the settings allow, or the server stops.
	ErrOverloaded = errors.New("overloaded")
)

// Acknowledgment is the message of every 200. It is true for an address without an account too.
const Acknowledgment = "If an account exists for that address, a password reset email is on its way."

// Health checks whether the upstreams serve anybody. Check returns nil, or one of the faults above.
type Health interface {
	Check() error
}

// Limit counts by key. Take reports whether one more is allowed, and counts it.
type Limit interface {
	Take(ctx context.Context, key string) (allowed bool)
}

// Outbox takes accepted requests and delivers them later. Admit lets a request in, or returns ErrOverloaded;
// Put takes the request that was let in. What they return, and when, must not depend on earlier deliveries.
type Outbox interface {
	Admit() error
	Put(ctx context.Context, request Request) error
}

// Pages chooses the page that a link leads to: the page of the callback origin if that is allowed, or else the
// page of the site.
type Pages interface {
	Resolve(callbackOrigin string) (page string, allowed bool)
}

// Request holds what a delivery needs of an accepted request.
type Request struct {
	ID          string // names the request in the log
	Traceparent string // W3C trace context of the request; empty where it is not traced
	Email       string // as the caller typed it: it finds the account, and never gets mail
	RedirectTo  string // the page that the link leads to
	Language    string // the value of Accept-Language; may be empty
	Accepted    time.Time
}

// Account returns the key by which requests for one account are counted. It folds the address as
// Supabase Auth does. Validated addresses are ASCII.
func (r *Request) Account() string { return AccountKey(r.Email) }

// AccountKey returns the key of the account that has this address.
func AccountKey(email string) string { return strings.ToLower(email) }

// Service is the operation. Its methods may be called concurrently.
type Service struct {
	Health     Health
	Recipients Limit // by account; beyond it the answer is the same, and nothing is sent
	Outbox     Outbox
	Pages      Pages // not used while Health reports that something is not configured
	Watcher    Watcher
	// Fingerprint returns the keyed hash under which the operator sees an account.
	Fingerprint func(account string) string
}

var _ gen.StrictServerInterface = (*Service)(nil)

var acknowledged = gen.SendPasswordReset200JSONResponse{
	Body: gen.Acknowledgment{Ok: true, Message: Acknowledgment},
}

// SendPasswordReset puts the request into the outbox, unless nobody can be served or too many requests came
// for this address. The outbox lets a request in before it counts for the address, so that requests that were
// answered ErrOverloaded do not use up the address's limit.
func (s *Service) SendPasswordReset(ctx context.Context, in gen.SendPasswordResetRequestObject) (gen.SendPasswordResetResponseObject, error) {
	if err := s.Health.Check(); err != nil {
		return nil, err
	}
	if err := s.Outbox.Admit(); err != nil {
		return nil, err
	}
	request := s.newRequest(ctx, in)
	if !s.Recipients.Take(ctx, request.Account()) {
		s.saw(ctx, Suppressed, &request)
		return acknowledged, nil
	}
	if err := s.Outbox.Put(ctx, request); err != nil {
		return nil, err
	}
	s.saw(ctx, Accepted, &request)
	return acknowledged, nil
}

// newRequest copies what a delivery needs. It clones values of headers, because they share memory with all
// headers of their request, which would be kept until the delivery.
func (s *Service) newRequest(ctx context.Context, in gen.SendPasswordResetRequestObject) Request {
	request := Request{Email: strings.Clone(in.Body.Email), Accepted: time.Now()}
	if caller := CallerOf(ctx); caller != nil {
		request.ID, request.Traceparent = strings.Clone(caller.RequestID()), caller.Traceparent()
	}
	if in.Params.AcceptLanguage != nil {
		request.Language = strings.Clone(*in.Params.AcceptLanguage)
	}
	var callback string
	if in.Body.CallbackOrigin != nil {
		callback = *in.Body.CallbackOrigin
	}
	var allowed bool
	if request.RedirectTo, allowed = s.Pages.Resolve(callback); !allowed {
		s.saw(ctx, CallbackReplaced, &request)
	}
	return request
}

func (s *Service) saw(ctx context.Context, kind EventKind, request *Request) {
	s.Watcher.Saw(ctx, Event{Kind: kind, RequestID: request.ID, Account: s.Fingerprint(request.Account())})
}

// Caller identifies a request for the operator: by its id in the log, and by its trace.
type Caller interface {
	RequestID() string
	Traceparent() string
}

type callerKey struct{}

// WithCaller returns a context that carries the caller of a request.
func WithCaller(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// CallerOf returns the caller of a context; nil outside of a request.
func CallerOf(ctx context.Context) Caller {
	caller, _ := ctx.Value(callerKey{}).(Caller)
	return caller
}
