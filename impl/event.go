package impl

// EventKind is what became of a request, or what was noticed on the way.
type EventKind string

// One of the first five ends each request.
const (
	Sent        EventKind = "sent"        // Mailgun has accepted the mail
	NoAccount   EventKind = "no_account"  // nothing to send
	Suppressed  EventKind = "suppressed"  // the recipient limit; nothing was asked or sent
	Undelivered EventKind = "undelivered" // an account that could not be mailed while others could
	Failed      EventKind = "failed"      // a fault that every address meets; the caller was told

	CallbackReplaced EventKind = "callback_replaced" // a callback origin that is not allowed led to the site instead
	RedirectReplaced EventKind = "redirect_replaced" // Supabase's own allow-list lacks our redirect_to
	DecoysUsedUp     EventKind = "decoys_used_up"    // the budget is spent: strangers cost no second call
)

// Event is what the operator learns of a request.
type Event struct {
	Kind    EventKind
	Account string // keyed hash of the address
	Err     error  // for Undelivered and Failed; holds no address, link or key
}

func (j *job) saw(kind EventKind, err error) {
	j.Watcher.Saw(j.ctx, Event{Kind: kind, Account: j.Fingerprint(j.account), Err: err})
}
