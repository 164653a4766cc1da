// Package delivery delivers one accepted request: it asks for a recovery link, writes the mail, sends it, and
// says when to try again.
//
// It runs after the answer, and nothing that answers may import it. It must never send to an
// address other than the one stored with the account, or let an address, a link or an upstream's
// answer into an error.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/resetd/resetd/impl"
)

// Link is what Supabase Auth made for an account.
type Link struct {
	Email      string // the address stored with the account: no other gets mail
	Banned     bool   // whether the account is banned, so that the link opens nothing
	TokenHash  string // for verifyOtp
	ActionLink string // Supabase's own one-time link
	RedirectTo string // where ActionLink leads; Supabase may have replaced the page that was asked for
	Language   string // the account's own, any text that its user has set; empty if unknown
}

// Mail is a message as its recipient reads it.
type Mail struct {
	Subject, Text, HTML string
	Language            string // a BCP 47 tag; empty if unknown
}

// LinkMaker makes a recovery link for the account of an address, and makes every earlier one
// invalid. It returns nil where there is no account.
type LinkMaker interface {
	MakeLink(ctx context.Context, email, redirectTo string) (*Link, error)
}

// Mailer hands a message over. Send returns nil once the message is accepted.
type Mailer interface {
	Send(ctx context.Context, to string, mail Mail) error
}

// Writer writes the mail around a link, in the language of the account, or else of Accept-Language.
type Writer interface {
	Write(accountLanguage, acceptLanguage, link string) (Mail, error)
}

// Watcher records how a delivery ends. Attempt opens the trace of one attempt, and returns the function that
// closes it.
type Watcher interface {
	impl.Watcher
	Attempt(ctx context.Context, request *impl.Request) (context.Context, func())
}

// The errors that decide about the next attempt. Adapters wrap them. After an error with a method
// RetryAfter() time.Duration the next attempt waits for that time at least; if it would then come later than
// Deliverer.Timeout, the delivery ends. After any other error it waits for the usual pause.
var (
	// ErrRefused says that the upstream refuses this account or this message alone.
	ErrRefused = errors.New("refused")
	// ErrFateUnknown says that Mailgun was sent a message and gave no usable answer.
	ErrFateUnknown = errors.New("Mailgun may have accepted it")
)

// LinkMode says which link the mail carries.
type LinkMode string

const (
	// TokenHash links lead to the app, which verifies the token when its user acts, so that a mail
	// scanner that opens every link does not use it up.
	TokenHash LinkMode = "token_hash"
	// ActionLink links are Supabase's own, used up by the first program that opens them.
	ActionLink LinkMode = "action_link"
)

// URL returns the address of the link in the mail. In mode TokenHash that is the page with the token in its
// query, or in the query of the route where the page has a hash router's route in its fragment.
func (m LinkMode) URL(link *Link, page string) string {
	if m == ActionLink {
		return link.ActionLink
	}
	_, route, isRoute := strings.Cut(page, "#")
	separator := "?"
	if isRoute && strings.Contains(route, "?") || !isRoute && strings.Contains(page, "?") {
		separator = "&"
	}
	return page + separator + "token_hash=" + url.QueryEscape(link.TokenHash) + "&type=recovery"
}

const (
	// maxRefusals is the number of refusals that end a delivery. It is more than one, because hosted
	// upstreams refuse good calls now and then.
	maxRefusals = 3
	// maxUnknown bounds the sends of unknown fate for one request. Mailgun knows no idempotency key, so
	// each may have been accepted.
	maxUnknown = 2
	// restPause is the time after which a resting delivery looks whether its upstreams are back. Up to as
	// much again is added at random, so that not all deliveries begin at once.
	restPause = time.Second
	// The pauses between attempts grow from the first to the last, each half more or less at random.
	firstPause = 500 * time.Millisecond
	lastPause  = 30 * time.Second
	// lastChance is how long before the end of its time a delivery makes its last attempt.
	lastChance = time.Second
)

// Deliverer holds the upstreams and the bounds of all deliveries. Its methods may be called concurrently.
type Deliverer struct {
	Links   LinkMaker
	Mailer  Mailer
	Writer  Writer
	Watcher Watcher
	// Resting reports whether an upstream serves nobody, by its probe. Deliveries make no call then.
	Resting func() bool
	// Test asks whether Mailgun accepts messages at all, before a send of unknown fate is repeated.
	// May be nil: then it is repeated without asking.
	Test func(ctx context.Context) error

	LinkMode   LinkMode
	Timeout    time.Duration // from the acceptance; no attempt begins later
	MaxLinkAge time.Duration // an older link is replaced before it is sent
	// Fingerprint returns the keyed hash under which the operator sees an account.
	Fingerprint func(account string) string
}

// Delivery is one request on its way. Its methods must not be called at the same time.
type Delivery struct {
	*Deliverer
	request  impl.Request
	pauses   backoff.ExponentialBackOff
	to, url  string // of the link; empty until it is made
	language string // of the account; empty until the link is made
	made     time.Time
	replaced bool // Supabase has put another redirect into the link
	rested   bool // the last call of Try made no attempt, because an upstream was down
	tries    int
	refusals int
	unknown  int
	err      error // of the last attempt
}

// Begin returns the delivery of a request. It makes no call.
func (d *Deliverer) Begin(request impl.Request) *Delivery {
	return &Delivery{Deliverer: d, request: request, pauses: backoff.ExponentialBackOff{
		InitialInterval: firstPause, Multiplier: 2, MaxInterval: lastPause, RandomizationFactor: 0.5,
	}}
}

// Try makes one attempt. It returns how long to wait before the next one, or false once the
// delivery has ended.
func (d *Delivery) Try(ctx context.Context) (pause time.Duration, again bool) {
	left := d.Timeout - time.Since(d.request.Accepted)
	if left <= 0 {
		d.giveUp()
		return 0, false
	}
	if d.rested = d.Resting(); d.rested {
		return min(left, restPause+rand.N(restPause)), true //nolint:gosec // spreads load, and is no secret
	}
	outcome, err := d.attempt(ctx)
	if err == nil {
		d.End(outcome, nil)
		return 0, false
	}
	d.err = err
	if ctx.Err() != nil { // cut off at the stop: the outbox ends it
		return 0, true
	}
	if errors.Is(err, ErrRefused) {
		d.refusals++
	}
	var least time.Duration
	var busy interface{ RetryAfter() time.Duration }
	if errors.As(err, &busy) {
		least = busy.RetryAfter()
	}
	// The last attempt is made at the very end: the outage may be over by then.
	left = d.Timeout - time.Since(d.request.Accepted)
	pause = max(min(d.pauses.NextBackOff(), left-lastChance), least)
	if d.refusals >= maxRefusals || d.unknown >= maxUnknown || pause <= 0 || pause >= left {
		d.giveUp()
		return 0, false
	}
	return pause, true
}

// attempt does the steps that are not done yet. A panic becomes an error without its value, which
// may hold anything.
func (d *Delivery) attempt(ctx context.Context) (outcome impl.EventKind, err error) {
	ctx, end := d.Watcher.Attempt(ctx, &d.request)
	defer end()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: panic: %T", ErrRefused, p)
			d.refusals = maxRefusals
		}
	}()
	d.tries++
	if d.unknown > 0 && d.Test != nil {
		// The repeat is the last one, so it must not be wasted on an outage. A test message of unknown
		// fate is not counted: it reaches nobody.
		if err := d.Test(ctx); err != nil {
			return "", err
		}
	}
	if d.to == "" || time.Since(d.made) > d.MaxLinkAge {
		link, err := d.Links.MakeLink(ctx, d.request.Email, d.request.RedirectTo)
		switch {
		case err != nil:
			return "", err
		case link == nil:
			return impl.NoAccount, nil
		case link.Banned:
			return impl.Banned, nil
		}
		d.language = link.Language
		d.to, d.url, d.made = link.Email, d.LinkMode.URL(link, d.request.RedirectTo), time.Now()
		d.replaced = link.RedirectTo != d.request.RedirectTo
	}
	mail, err := d.Writer.Write(d.language, d.request.Language, d.url)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrRefused, err)
	}
	// Unlike that of a test message, which reaches nobody, the fate of a mail counts. It is unknown
	// until Send has returned, and stays so where that panics.
	d.unknown++
	err = d.Mailer.Send(ctx, d.to, mail)
	if !errors.Is(err, ErrFateUnknown) {
		d.unknown--
	}
	if err != nil {
		return "", err
	}
	return impl.Sent, nil
}

func (d *Delivery) giveUp() {
	switch {
	case d.err != nil:
	case d.rested:
		d.err = errors.New("an upstream was down until DELIVERY_TIMEOUT")
	default:
		d.err = errors.New("its turn did not come before DELIVERY_TIMEOUT")
	}
	d.End(impl.Undelivered, d.err)
}

// End reports the outcome. Try calls it, or else the owner of a delivery that gets no further attempt, once.
// After a send of unknown fate it reports Unconfirmed instead of an outcome without a mail.
func (d *Delivery) End(outcome impl.EventKind, err error) {
	if d.unknown > 0 && outcome != impl.Sent {
		outcome = impl.Unconfirmed
		switch {
		case err == nil:
			err = ErrFateUnknown
		case !errors.Is(err, ErrFateUnknown):
			err = fmt.Errorf("%w: %w", ErrFateUnknown, err)
		}
	}
	d.Watcher.Saw(context.Background(), impl.Event{
		Kind: outcome, RequestID: d.request.ID, Account: d.Fingerprint(d.request.Account()),
		Tries: d.tries, Took: time.Since(d.request.Accepted), Replaced: d.replaced, Err: err,
	})
}
