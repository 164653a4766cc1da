package impl

import "errors"

// DeliveryKind is what became of a mail after Mailgun had accepted it.
type DeliveryKind string

// OtherDelivery is whatever the operator need not act on: a test message's, another sender's mail, or
// news that nobody asked for.
const (
	PermanentFail DeliveryKind = "permanent_fail" // it will never arrive
	TemporaryFail DeliveryKind = "temporary_fail" // it has not arrived yet, Mailgun tries again
	Complained    DeliveryKind = "complained"     // its reader reported it as spam, and gets no more
	OtherDelivery DeliveryKind = "other"
)

// DeliveryKinds are all of them.
func DeliveryKinds() []DeliveryKind {
	return []DeliveryKind{PermanentFail, TemporaryFail, Complained, OtherDelivery}
}

// DeliveryEvent is what Mailgun reports of one mail: for the operator, never for a caller, to
// whom it would tell that there is an account.
type DeliveryEvent struct {
	ID        string // the same for every copy of the report, and no other's
	Kind      DeliveryKind
	Recipient string // as the report has it; empty for OtherDelivery
	Code      int    // of the receiving server, or Mailgun's own: 100 to 999, or 0 for none
}

// Account is the key by which a request for the recipient was counted and logged: its stored
// address and the one asked for differ by case alone.
func (e DeliveryEvent) Account() string { return accountKey(e.Recipient) }

// Why a report is not believed.
var (
	ErrWebhookMalformed = errors.New("not a webhook of Mailgun's")
	ErrWebhookSignature = errors.New("not signed with our key")
	// ErrWebhookExpired: it was signed so long ago that its copies are no longer remembered.
	ErrWebhookExpired = errors.New("signed too long ago")
	// ErrWebhookEarly: it was signed in the future, by our clock, and may be good later on.
	ErrWebhookEarly = errors.New("signed in the future")
)
