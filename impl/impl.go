// Package impl is the operation: what happens to one valid request for a password reset.
//
// It owns the order of the steps (limit the recipient, ask for a link, send it, say the same
// thing whatever happened), the small interfaces those steps need, and the rule that decides
// which faults a caller may be shown. It must never import Echo, name an HTTP status, or let
// anything that depends on an account reach its answer.
package impl

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/resetd/resetd/gen"
)

// The faults a caller may be told of. Each of them hits every address alike; adapters wrap
// them, and the server's table turns them into answers.
var (
	// ErrAuthNotConfigured: Supabase Auth is not configured, or refuses the key.
	ErrAuthNotConfigured = errors.New("auth not configured")
	// ErrAuthUnavailable: Supabase Auth gives no usable answer, whatever the address.
	ErrAuthUnavailable = errors.New("auth unavailable")
	// ErrEmailDelivery: Mailgun is not configured, or accepts nothing, whoever the recipient.
	ErrEmailDelivery = errors.New("email delivery failed")
)

// Acknowledgment is the one message of every 200: it has to be true for a stranger too.
const Acknowledgment = "If an account exists for that address, a password reset email is on its way."

// Link is what Supabase Auth made for an account.
type Link struct {
	Email      string // the address stored with the account: the only one that gets mail (H2)
	TokenHash  string // for verifyOtp
	ActionLink string // Supabase's own one-time link
	RedirectTo string // where ActionLink leads, which may not be where it was asked to
}

// Mail is a message as its recipient reads it.
type Mail struct{ Subject, Text, HTML string }

// A LinkMaker makes a recovery link for the account of an address. No account is no error:
// the link is nil.
type LinkMaker interface {
	MakeLink(ctx context.Context, email, redirectTo string) (*Link, error)
}

// A Mailer hands a message over. Send returns nil once the message is accepted for delivery
// to the address; SendDecoy does all the same and reaches nobody.
type Mailer interface {
	Send(ctx context.Context, to string, mail Mail) error
	SendDecoy(ctx context.Context, mail Mail) error
}

// A Writer writes the mail around a link, in the language that Accept-Language asks for.
type Writer interface {
	Write(acceptLanguage, link string) (Mail, error)
}

// An OriginResolver says where a link may lead: to the callback origin if that is allowed,
// else to the site's own origin.
type OriginResolver interface {
	Resolve(callbackOrigin string) (origin string, allowed bool)
}

// A Limit counts by key. Take says whether one more is allowed; giveBack undoes it.
type Limit interface {
	Take(ctx context.Context, key string) (allowed bool, giveBack func(context.Context))
}

// A Watcher is told what became of each request: for the operator, never for the caller.
type Watcher interface {
	Saw(ctx context.Context, event Event)
}

// LinkMode says which link the mail carries.
type LinkMode string

const (
	// TokenHash links lead to the app, which verifies the token when its user acts, so that
	// a mail scanner that opens every link does not use it up.
	TokenHash LinkMode = "token_hash"
	// ActionLink links are Supabase's own, used up by whoever opens them first.
	ActionLink LinkMode = "action_link"
)

// Config is what a Service works with. Links, Mailer and Origins may be nil while they are
// not configured: the Service then answers as the contract says.
type Config struct {
	Links      LinkMaker
	Mailer     Mailer
	Writer     Writer
	Origins    OriginResolver
	Recipients Limit // by address, silent
	Decoys     Limit // one for each request that may need a decoy; nil: no decoys at all
	Watcher    Watcher

	ResetPath string // begins with a slash
	LinkMode  LinkMode
	AuthURL   string // of Supabase Auth, for the made-up action links of decoys

	// CallTimeout is the longest one upstream call takes. A request is decided within four
	// of them: two for the link, two for the mail.
	CallTimeout time.Duration
	// Quantum is the beat on which the server answers; 0 means that it answers at once.
	Quantum time.Duration
	// Decide fixes when the answer to the request of ctx goes out, at the next beat, and
	// says how long that is from now. Needed where Quantum is not 0.
	Decide func(ctx context.Context) time.Duration
	// MaxDeferred bounds the deliveries that go on after their answer.
	MaxDeferred int
	// Fingerprint is the keyed hash under which the operator sees an address.
	Fingerprint func(address string) string
}

// Service is the operation. Its methods may be called concurrently.
type Service struct {
	Config
	deferred *deferred
}

var _ gen.StrictServerInterface = (*Service)(nil)

// New makes a Service.
func New(config Config) *Service {
	return &Service{Config: config, deferred: newDeferred(config.MaxDeferred)}
}

// SendPasswordReset limits the recipient, asks for a link, sends it, and says the same thing
// whatever happened. An address without an account, and one that alone meets with a fault,
// get a decoy sent instead, so that every request makes the same calls.
func (s *Service) SendPasswordReset(ctx context.Context, request gen.SendPasswordResetRequestObject) (gen.SendPasswordResetResponseObject, error) {
	job := s.newJob(ctx, request)
	defer job.decide(false) // should it panic
	if err := s.configured(); err != nil {
		return nil, job.failed(err)
	}
	// Before the lookup, because every generate_link destroys the link sent before.
	if !job.takeRecipient() {
		job.saw(Suppressed, nil)
		return acknowledged, nil
	}
	job.takeDecoy()

	link, finishLookup, err := job.findLink()
	switch {
	case isShown(err):
		return nil, job.failed(err)
	case err != nil: // for this address alone
		job.deliverLater(finishLookup)
		err = job.sendDecoy()
	case link == nil:
		if err = job.sendDecoy(); err == nil {
			job.saw(NoAccount, nil)
		}
	default:
		err = job.sendLink(link)
	}
	if err != nil {
		return nil, job.failed(err)
	}
	job.decide(false)
	job.awaitDelivery()
	return acknowledged, nil
}

var acknowledged = gen.SendPasswordReset200JSONResponse{
	Body: gen.Acknowledgment{Ok: true, Message: Acknowledgment},
}

// configured reports what is missing before anything can be sent, to anyone.
func (s *Service) configured() error {
	switch {
	case s.Links == nil || s.Origins == nil:
		return ErrAuthNotConfigured
	case s.Mailer == nil:
		return ErrEmailDelivery
	}
	return nil
}

// Close waits until every delivery that outlived its answer has ended, or ctx has.
func (s *Service) Close(ctx context.Context) error { return s.deferred.wait(ctx) }

// Deferred is how many deliveries go on after their answer.
func (s *Service) Deferred() int { return len(s.deferred.places) }

// LinkURL is where a mail leads that carries the link. A trial of the settings sends what users
// get.
func (s *Service) LinkURL(link *Link, redirectTo string) string {
	if s.LinkMode == ActionLink {
		return link.ActionLink
	}
	return redirectTo + "?token_hash=" + url.QueryEscape(link.TokenHash) + "&type=recovery"
}

// DecoyURL is a made-up link of the form and length of a real one, which opens nothing.
func (s *Service) DecoyURL(redirectTo string) string {
	token := made(tokenHashLength / 2)
	return s.LinkURL(&Link{
		TokenHash:  token,
		ActionLink: s.AuthURL + "/verify?token=" + token + "&type=recovery&redirect_to=" + redirectTo,
	}, redirectTo)
}

// tokenHashLength is that of Supabase's hashed_token: SHA-224 in hexadecimal.
const tokenHashLength = 56

// Nobody is an address that no account can have, for control questions: its domain is reserved
// never to exist (RFC 2606, section 2), and its name is new each time, so that nothing answers
// from a cache.
func Nobody() string { return "resetd-" + made(12) + "@" + made(4) + ".invalid" }

// made returns 2n random hexadecimal digits.
func made(n int) string {
	raw := make([]byte, n)
	rand.Read(raw) // never fails (crypto/rand)
	return hex.EncodeToString(raw)
}

// accountKey folds an address as Supabase Auth does, so that one account is one key.
// Validated addresses are ASCII.
func accountKey(email string) string { return strings.ToLower(email) }
