package mailgun

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/mail"
	"slices"
	"strconv"
	"time"

	"github.com/mailgun/mailgun-go/v4"

	"github.com/resetd/resetd/impl"
)

// ownTag is on every message of ours, and so in every report of one.
const ownTag = "password-reset"

// How old a report may be. Mailgun repeats what was not taken for seven and a half hours, and
// does not document whether a repetition is signed anew; the other way, clocks differ.
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-retries
const (
	maxWebhookAge  = 12 * time.Hour
	maxWebhookSkew = 5 * time.Minute
)

// maxToken is five times that of Mailgun's, which has 50 letters.
const maxToken = 250

// Webhooks reads what Mailgun posts of a message's fate.
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-payloads
//
// The signature covers a time and a random token and nothing of the event, so an event stays
// what anybody may have written even where the signature is good. All that is taken from it is
// a kind out of a few, a bounded number, and a recipient that nobody is shown.
type Webhooks struct {
	verifier *mailgun.MailgunImpl
}

// NewWebhooks verifies with the HTTP webhook signing key of a Mailgun account. Without one,
// nothing is ever believed.
func NewWebhooks(signingKey string) *Webhooks {
	// The library goes by the API key where the signing key is empty.
	verifier := mailgun.NewMailgun("", rand.Text())
	verifier.SetWebhookSigningKey(signingKey)
	return &Webhooks{verifier}
}

// Read returns the event of a body that is signed with our key and was so lately, by a clock
// that says now. Its errors are impl's ErrWebhook….
func (w *Webhooks) Read(body []byte, now time.Time) (impl.DeliveryEvent, error) {
	var posted struct {
		Signature struct {
			// Documented as a number, and sent as a string.
			Timestamp json.Number `json:"timestamp"`
			Token     string      `json:"token"`
			Own       string      `json:"signature"`
			// By the key of the primary account, where the event is a subaccount's.
			Parent string `json:"parent-signature"`
		} `json:"signature"`
		Event json.RawMessage `json:"event-data"`
	}
	if err := json.Unmarshal(body, &posted); err != nil {
		return impl.DeliveryEvent{}, impl.ErrWebhookMalformed
	}
	signature := posted.Signature
	signed, err := strconv.ParseInt(signature.Timestamp.String(), 10, 64)
	if err != nil || signature.Token == "" || len(signature.Token) > maxToken {
		return impl.DeliveryEvent{}, impl.ErrWebhookMalformed
	}
	if !w.verified(signature.Timestamp.String(), signature.Token, signature.Own) &&
		!w.verified(signature.Timestamp.String(), signature.Token, signature.Parent) {
		return impl.DeliveryEvent{}, impl.ErrWebhookSignature
	}
	switch age := now.Sub(time.Unix(signed, 0)); {
	case age > maxWebhookAge:
		return impl.DeliveryEvent{}, impl.ErrWebhookExpired
	case age < -maxWebhookSkew:
		return impl.DeliveryEvent{}, impl.ErrWebhookEarly
	}
	event, err := readEvent(posted.Event)
	// Nothing separates the time from the token where they are signed: a digit could be moved
	// from one to the other to make a copy pass for news. What is signed cannot.
	event.ID = signature.Timestamp.String() + signature.Token
	return event, err
}

// verified compares in constant time.
func (w *Webhooks) verified(timestamp, token, signature string) bool {
	good, err := w.verifier.VerifyWebhookSignature(mailgun.Signature{TimeStamp: timestamp, Token: token, Signature: signature})
	return good && err == nil
}

// readEvent leaves out whatever has not the form that it had: Mailgun says that it adds to
// these objects, and an event is worth more than its details.
func readEvent(raw []byte) (impl.DeliveryEvent, error) {
	var data struct {
		Event     string   `json:"event"`
		Severity  string   `json:"severity"`
		Recipient string   `json:"recipient"`
		Tags      []string `json:"tags"`
		Flags     struct {
			TestMode bool `json:"is-test-mode"`
		} `json:"flags"`
		Status struct {
			Code int `json:"code"`
		} `json:"delivery-status"`
	}
	var otherwise *json.UnmarshalTypeError // the rest is read all the same
	if err := json.Unmarshal(raw, &data); err != nil && !errors.As(err, &otherwise) || data.Event == "" {
		return impl.DeliveryEvent{}, impl.ErrWebhookMalformed
	}
	kind := kindOf(data.Event, data.Severity)
	if kind == impl.OtherDelivery || data.Flags.TestMode || !slices.Contains(data.Tags, ownTag) {
		return impl.DeliveryEvent{Kind: impl.OtherDelivery}, nil
	}
	event := impl.DeliveryEvent{Kind: kind, Recipient: data.Recipient}
	if parsed, err := mail.ParseAddress(data.Recipient); err == nil { // as it is stored, without quotes (mailbox)
		event.Recipient = parsed.Address
	}
	if data.Status.Code >= 100 && data.Status.Code <= 999 {
		event.Code = data.Status.Code
	}
	return event, nil
}

func kindOf(event, severity string) impl.DeliveryKind {
	switch {
	case event == "failed" && severity == "permanent":
		return impl.PermanentFail
	case event == "failed" && severity == "temporary":
		return impl.TemporaryFail
	case event == "complained":
		return impl.Complained
	}
	return impl.OtherDelivery
}
