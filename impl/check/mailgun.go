package check

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/mailgun"
)

// mailgun sends the mail as users get it, in test mode and to the sender's own address.
func (c *checker) mailgun(ctx context.Context) (found findings) {
	if !c.Mailgun.Set() {
		found.add(skipped, aboutMailgun, "it is not configured")
		return found
	}
	mail, err := c.write("", c.sampleLink())
	if err != nil {
		found.add(bad, aboutMailgun, "the mail cannot be written: %s. What to do: correct the templates", err)
		return found
	}
	began := time.Now()
	err = c.mailer.SendTest(ctx, mail)
	took := time.Since(began)
	if err == nil {
		found.add(good, aboutMailgun, "a message in test mode from %s is accepted (%s)", c.Mailgun.From.Address, millis(took))
		return found
	}
	advice := c.mailgunAdvice(err)
	var status *mailgun.StatusError
	if errors.As(err, &status) && (status.Status == http.StatusUnauthorized || status.Status == http.StatusNotFound) {
		advice = c.otherRegion(ctx, mail, advice)
	}
	found.add(bad, aboutMailgun, "%s. What to do: %s", mailgunCause(err), advice)
	return found
}

func mailgunCause(err error) string {
	var status *mailgun.StatusError
	cause := plainCause(err)
	for _, known := range []error{delivery.ErrRefused, delivery.ErrFateUnknown, impl.ErrEmailDelivery} {
		cause = strings.TrimPrefix(cause, known.Error()+": ")
	}
	if !errors.As(err, &status) {
		return "no message can be handed over: " + cause
	}
	switch status.Status {
	case http.StatusUnauthorized:
		return "the key is refused (" + cause + ")"
	case http.StatusNotFound:
		return "the domain is not known there (" + cause + ")"
	}
	return "the message is not accepted (" + cause + ")"
}

// mailgunAdvice returns the advice for an answer:
// https://documentation.mailgun.com/docs/mailgun/api-reference/api-overview#api-response-codes
func (c *checker) mailgunAdvice(err error) string {
	var status *mailgun.StatusError
	if !errors.As(err, &status) {
		return "check that MAILGUN_API_BASE is " + mailgun.BaseUS + " or " + mailgun.BaseEU + ", and whether this machine may connect to it (DNS, firewall, HTTPS_PROXY, certificates)"
	}
	switch {
	case status.Status == http.StatusUnauthorized:
		return fmt.Sprintf("give a sending key of %s or the account's API key, whole (not its ID, the public validation key, or the webhook signing key), and the MAILGUN_API_BASE of its region", c.Mailgun.Domain)
	case status.Status == http.StatusNotFound:
		return fmt.Sprintf("check that MAILGUN_DOMAIN=%s is spelt as in Mailgun, and MAILGUN_API_BASE: %s for domains in the US, %s for the EU", c.Mailgun.Domain, mailgun.BaseUS, mailgun.BaseEU)
	case status.Status == http.StatusPaymentRequired:
		return "see to the Mailgun account's plan and payment"
	case status.Status == http.StatusTooManyRequests:
		return "wait; if that does not help, the plan's sending limit is used up"
	case status.Status == http.StatusBadRequest, status.Status == http.StatusForbidden:
		return fmt.Sprintf("see in Mailgun whether %s is verified and active (a sandbox domain mails its authorized recipients only), whether the account is activated, and whether %s may be the sender (MAIL_FROM)", c.Mailgun.Domain, c.Mailgun.From.Address)
	case status.Status >= 300 && status.Status < 400:
		return "give MAILGUN_API_BASE as https://: redirects are not followed, since they would carry the key elsewhere"
	case status.Status >= 500:
		return "see status.mailgun.com, and try again"
	}
	return "see the domain's log in Mailgun"
}

// otherRegion tries whether the domain is in the other region. The key goes to Mailgun's other host then, and to no
// third one.
func (c *checker) otherRegion(ctx context.Context, mail delivery.Mail, advice string) string {
	moved, place := c.Mailgun, "EU"
	switch strings.TrimSuffix(strings.TrimRight(moved.Base, "/"), "/v3") {
	case mailgun.BaseUS:
		moved.Base = mailgun.BaseEU
	case mailgun.BaseEU:
		moved.Base, place = mailgun.BaseUS, "US"
	default:
		return advice
	}
	err := mailgun.New(moved).SendTest(ctx, mail)
	if err == nil {
		return fmt.Sprintf("the domain is in the %s, where the message is accepted: set MAILGUN_API_BASE=%s", place, moved.Base)
	}
	return fmt.Sprintf("%s. It was tried in the %s too (%s), in vain: %s", advice, place, moved.Base, mailgunCause(err))
}
