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

// kind is what became of a mail after Mailgun had accepted it.
type kind string

const (
	permanentFail kind = "permanent_fail" // it will never arrive
	temporaryFail kind = "temporary_fail" // it has not arrived yet, Mailgun tries again
	complained    kind = "complained"     // its reader reported it as spam, and gets no more
	// other is what the operator need not act on: a test message's, another sender's mail, or news that
	// nobody asked for.
	other kind = "other"
)

var kinds = []kind{permanentFail, temporaryFail, complained, other}

// event is what Mailgun reports of one mail. It is for the operator, and never for a caller, to whom
// it would tell that there is an account.
type event struct {
	id        string // the same for every copy of the report, and of no other
	kind      kind
	recipient string // as the report has it; empty for other
	code      int    // of the receiving server, or Mailgun's own: 100 to 999, or 0 for none
}

// Why a report is not believed.
var (
	errMalformed = errors.New("not a webhook of Mailgun's")
	errSignature = errors.New("not signed with the key")
	errExpired   = errors.New("signed so long ago that its copies are no longer remembered")
	errEarly     = errors.New("signed in the future by this clock, and may be good later on")
)

// How old a report may be. Mailgun repeats what was not taken for seven and a half hours, and
// does not document whether a repetition is signed anew; the other way, clocks differ.
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-retries
const (
	maxWebhookAge  = 12 * time.Hour
	maxWebhookSkew = 5 * time.Minute
)

// maxToken is five times that of Mailgun's, which has 50 letters.
const maxToken = 250

// verifier reads what Mailgun posts of a message's fate.
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-payloads
//
// The signature covers a time and a random token and nothing of the event, so an event stays
// what anybody may have written even where the signature is good. All that is taken from it is
// a kind out of a few, a bounded number, and a recipient that nobody is shown.
type verifier struct {
	library *mailgun.MailgunImpl
}

// newVerifier verifies with the HTTP webhook signing key of a Mailgun account. Without one,
// nothing is ever believed.
func newVerifier(signingKey string) *verifier {
	// The library goes by the API key where the signing key is empty.
	library := mailgun.NewMailgun("", rand.Text())
	library.SetWebhookSigningKey(signingKey)
	return &verifier{library}
}

// read returns the event of a body that was signed with the key, and recently. now is the time.
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
	// Nothing separates the time from the token where they are signed: a digit could be moved
	// from one to the other to make a copy pass for news. What is signed cannot.
	found.id = signature.Timestamp.String() + signature.Token
	return found, err
}

// verified compares in constant time.
func (v *verifier) verified(timestamp, token, signature string) bool {
	good, err := v.library.VerifyWebhookSignature(mailgun.Signature{TimeStamp: timestamp, Token: token, Signature: signature})
	return good && err == nil
}

// readEvent leaves out whatever has not the form that it had: Mailgun says that it adds to
// these objects, and an event is worth more than its details.
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
	var otherwise *json.UnmarshalTypeError // the rest is read all the same
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
