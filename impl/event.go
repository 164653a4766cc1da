package impl

import (
	"context"
	"time"
)

// EventKind names what happened to a request.
type EventKind string

// The kinds of events.
const (
	// Accepted says that a request is in the outbox. Its delivery ends with one of the next six.
	Accepted EventKind = "accepted"

	Suppressed  EventKind = "suppressed"  // refused by the recipient limit, or replaced by a newer request for the account
	Sent        EventKind = "sent"        // Mailgun has accepted the mail
	NoAccount   EventKind = "no_account"  // nothing to send
	Banned      EventKind = "banned"      // nothing to send: the account's links open nothing
	Unconfirmed EventKind = "unconfirmed" // given up, or suppressed, after Mailgun may have accepted the mail
	Undelivered EventKind = "undelivered" // given up, and Mailgun has accepted nothing; Err says why

	CallbackReplaced EventKind = "callback_replaced" // a callback origin that is not allowed led to the site instead
	RedirectReplaced EventKind = "redirect_replaced" // Supabase's own allow-list lacks the redirect_to that it was asked for
)

// Event tells the operator what happened to a request.
type Event struct {
	Kind      EventKind
	RequestID string
	Account   string        // keyed hash of the account
	Tries     int           // attempts of a delivery that has ended
	Took      time.Duration // from the acceptance to the end of the delivery
	Replaced  bool          // RedirectReplaced was seen during the delivery
	Err       error         // why it ended without a mail; holds no address, link or key
}

// Watcher records events, for the operator and never for the caller.
type Watcher interface {
	Saw(ctx context.Context, event Event)
}

// MailTag marks resetd's mail at Mailgun, so that webhooks can tell it from other mail of the domain.
const MailTag = "password-reset"
