package webhook

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

// kind says what happened to a mail after Mailgun had accepted it.
type kind string

const (
	permanentFail kind = "permanent_fail" // it will never arrive
	temporaryFail kind = "temporary_fail" // it has not arrived yet, Mailgun tries again
	complained    kind = "complained"     // its reader reported it as spam, and gets no more
	// other is news on which the operator need not act: of test messages, of other senders' mail, and of
	// kinds that are not subscribed to.
	other kind = "other"
)

var kinds = []kind{permanentFail, temporaryFail, complained, other}

// event is Mailgun's report on one mail. It is for the operator, and never for a caller: it would tell that there
// is an account.
type event struct {
	id        string // the same for all copies of a report, different for all others
	kind      kind
	recipient string // as the report has it; empty for other
	code      int    // from the receiving server or Mailgun: 100 to 999, or 0 for none
}

// The reasons not to count a report.
var (
	errMalformed = errors.New("not a webhook of Mailgun's")
	errSignature = errors.New("not signed with the key")
	errExpired   = errors.New("signed so long ago that its copies are no longer remembered")
	errEarly     = errors.New("signed in the future by this clock, and may be good later on")
)

// The bounds of a report's age. Mailgun repeats an event for seven and a half hours, and does not document
// whether it signs the repetition again. A report from the future comes from clocks that differ.
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-retries
const (
	maxWebhookAge  = 12 * time.Hour
	maxWebhookSkew = 5 * time.Minute
)

// maxToken bounds a token. Mailgun's have 50 letters.
const maxToken = 250

// verifier verifies and reads Mailgun's webhooks.
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-payloads
//
// The signature covers a time and a random token and nothing of the event, so anybody may have written the event
// even where the signature is good. For that reason only one of a few kinds, a bounded number and the recipient
// are read, and the recipient is shown as a hash.
type verifier struct {
	library *mailgun.MailgunImpl
}

// newVerifier makes a verifier with the HTTP webhook signing key of a Mailgun account. Without a key it believes
// nothing.
func newVerifier(signingKey string) *verifier {
	// The library goes by the API key where the signing key is empty.
	library := mailgun.NewMailgun("", rand.Text())
	library.SetWebhookSigningKey(signingKey)
	return &verifier{library}
}

// read returns the event of a body that was signed recently with the key.
func (v *verifier) read(body []byte, now time.Time) (event, error) {
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
		return event{}, errMalformed
	}
	signature := posted.Signature
	signed, err := strconv.ParseInt(signature.Timestamp.String(), 10, 64)
	if err != nil || signature.Token == "" || len(signature.Token) > maxToken {
		return event{}, errMalformed
	}
	if !v.verified(signature.Timestamp.String(), signature.Token, signature.Own) &&
		!v.verified(signature.Timestamp.String(), signature.Token, signature.Parent) {
		return event{}, errSignature
	}
	switch age := now.Sub(time.Unix(signed, 0)); {
	case age > maxWebhookAge:
		return event{}, errExpired
	case age < -maxWebhookSkew:
		return event{}, errEarly
	}
	found, err := readEvent(posted.Event)
	// The signature is over the time and the token without a separator, so a copy could move a digit from one
	// to the other. The signed text itself is the same for all copies.
	found.id = signature.Timestamp.String() + signature.Token
	return found, err
}

// verified compares in constant time.
func (v *verifier) verified(timestamp, token, signature string) bool {
	good, err := v.library.VerifyWebhookSignature(mailgun.Signature{TimeStamp: timestamp, Token: token, Signature: signature})
	return good && err == nil
}

// readEvent reads an event, and leaves out members of an unknown form: Mailgun says that it adds to these
// objects, and an event without details is better than none.
func readEvent(raw []byte) (event, error) {
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
	var otherwise *json.UnmarshalTypeError // the rest is read nevertheless
	if err := json.Unmarshal(raw, &data); err != nil && !errors.As(err, &otherwise) || data.Event == "" {
		return event{}, errMalformed
	}
	judged := kindOf(data.Event, data.Severity)
	if judged == other || data.Flags.TestMode || !slices.Contains(data.Tags, impl.MailTag) {
		return event{kind: other}, nil
	}
	found := event{kind: judged, recipient: data.Recipient}
	if parsed, err := mail.ParseAddress(data.Recipient); err == nil { // as it is stored, without quotes (mailbox)
		found.recipient = parsed.Address
	}
	if data.Status.Code >= 100 && data.Status.Code <= 999 {
		found.code = data.Status.Code
	}
	return found, nil
}

func kindOf(event, severity string) kind {
	switch {
	case event == "failed" && severity == "permanent":
		return permanentFail
	case event == "failed" && severity == "temporary":
		return temporaryFail
	case event == "complained":
		return complained
	}
	return other
}
