// Package mailgun sends messages through Mailgun, over mailgun-go.
//
// It owns the options of a message (no tracking, TLS required or not, marked as automatic), test messages, what
// an answer says about the next attempt, and the bounds of the call. It must never send a test message to an
// address other than Config.From, put a link or an address into a Mailgun variable, or let the upstream's answer
// into an error.
package mailgun

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/mail"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mailgun/mailgun-go/v4"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/upstream"
)

// maxAnswer bounds what is read of an answer. Real ones have about 100 bytes.
const maxAnswer = 1 << 20

// Config says whose mail is sent. Base is https://api.mailgun.net or
// https://api.eu.mailgun.net, with or without a trailing slash or /v3.
type Config struct {
	Base, Domain, Key string
	From              mail.Address // the sender, and the recipient of test messages
	ReplyTo           mail.Address // zero for none
	RequireTLS        bool         // false: as the domain is set at Mailgun
	Timeout           time.Duration
}

// Set says whether there is what a client needs.
func (c Config) Set() bool { return c.Domain != "" && c.Key != "" }

// Client sends mail. Its methods may be called concurrently.
type Client struct {
	config  Config
	mailgun *mailgun.MailgunImpl
}

// New makes a client. Each call takes Timeout at most, to the last byte of the answer.
func New(config Config) *Client {
	client := mailgun.NewMailgun(config.Domain, config.Key)
	client.SetAPIBase(apiRoot(config.Base) + "/v3")
	client.SetClient(upstream.NewClient(config.Timeout, maxAnswer))
	return &Client{config: config, mailgun: client}
}

// Send sends a message. It returns nil once Mailgun has accepted it. Every error is impl.ErrEmailDelivery, and
// wraps the errors of package delivery that decide about the next attempt.
func (c *Client) Send(ctx context.Context, to string, content delivery.Mail) error {
	return c.send(ctx, c.message(to, content))
}

// SendTest sends a message in test mode, to Config.From: Mailgun accepts it, bills it and never delivers it.
// https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages/send-http#sending-in-test-mode
func (c *Client) SendTest(ctx context.Context, content delivery.Mail) error {
	message := c.message(c.config.From.Address, content)
	message.EnableTestMode()
	return c.send(ctx, message)
}

// Probe sends a test message, to find out whether Mailgun accepts messages. Its error is impl.ErrEmailDelivery
// for a reason that real mail cannot cause: 401 (the key), 404 (the domain), 5xx, an unusable answer or none. It
// is another error for a reason that real mail can cause, which are quotas: 429, 402, 403, and 420 ("recipient
// limit exceeded", which Mailgun's reference lacks: mailgun/mailgun-java#50).
func (c *Client) Probe(ctx context.Context) error {
	err := c.SendTest(ctx, delivery.Mail{Subject: "resetd asks whether messages are accepted", Text: "This is a test message. It is never delivered.", HTML: "<p>This is a test message. It is never delivered.</p>"})
	var status *StatusError
	if errors.As(err, &status) && status.isClient() && status.Status != http.StatusUnauthorized && status.Status != http.StatusNotFound {
		return status
	}
	return err
}

// mailbox writes an address in the form of RFC 5322, section 3.4.1: a local part that is no dot-atom is quoted,
// as in "a..b"@example.com. Mailgun's own parser refuses it without the quotes
// (flanker/addresslib/_parser of github.com/mailgun/flanker, read November 2026).
func mailbox(address string) string {
	return strings.Trim((&mail.Address{Address: address}).String(), "<>")
}

func (c *Client) message(to string, content delivery.Mail) *mailgun.Message {
	message := mailgun.NewMessage(c.config.From.String(), content.Subject, content.Text, mailbox(to))
	message.SetHTML(content.HTML)
	if c.config.ReplyTo.Address != "" {
		message.SetReplyTo(c.config.ReplyTo.String())
	}
	_ = message.AddTag(impl.MailTag) // fails only for the fourth tag and beyond
	// Click tracking would replace the link by a redirect of Mailgun's, which then knows the
	// token; open tracking would put a remote picture into the mail.
	message.SetTracking(false)
	message.SetTrackingClicks(false)
	message.SetTrackingOpens(false)
	if c.config.RequireTLS {
		// The mail carries a credential: better not delivered than readable on the way. What a message
		// asks for overrides what its domain is set to. Certificates are verified, unless the domain is
		// set to skip that.
		// https://documentation.mailgun.com/docs/mailgun/user-manual/tls-sending
		message.SetRequireTLS(true)
	}
	if content.Language != "" {
		message.AddHeader("Content-Language", content.Language)
	}
	// No vacation notes in reply: RFC 3834, section 5, and Exchange's own ([MS-OXCMAIL], section 2.2.3.2.14).
	message.AddHeader("Auto-Submitted", "auto-generated")
	message.AddHeader("X-Auto-Response-Suppress", "All")
	// Gmail puts messages of one subject into one conversation unless their References differ, and cuts off
	// what they repeat. Each message carries the only link that works, so it must be shown whole.
	message.AddHeader("References", "<"+strings.ToLower(rand.Text())+"@"+c.config.Domain+">")
	return message
}

func (c *Client) send(ctx context.Context, message *mailgun.Message) error {
	var written atomic.Bool
	_, id, err := c.mailgun.Send(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { written.Store(true) }}), message)
	if err == nil && id != "" {
		return nil
	}
	err = fmt.Errorf("%w: %w", impl.ErrEmailDelivery, withoutBody(err))
	var status *StatusError
	switch isStatus := errors.As(err, &status); {
	case isStatus && status.isOfMessage():
		return fmt.Errorf("%w: %w", delivery.ErrRefused, err)
	case isStatus && !status.isOfGateway(), !written.Load():
		return err
	}
	return fmt.Errorf("%w: %w", delivery.ErrFateUnknown, err)
}

// withoutBody returns an error that may be logged: mailgun-go's own errors carry the answer's body and the
// address called.
func withoutBody(err error) error {
	var status *mailgun.UnexpectedResponseError
	var busy *upstream.BusyError
	switch {
	case err == nil:
		return errors.New("accepted without an id")
	case errors.As(err, &busy):
		return &StatusError{Status: http.StatusTooManyRequests, After: busy.After}
	case errors.As(err, &status):
		return &StatusError{Status: status.Actual}
	case errors.Is(err, mailgun.ErrInvalidMessage):
		return mailgun.ErrInvalidMessage
	}
	return upstream.Cause(err)
}

// StatusError is an answer by which Mailgun accepts nothing.
type StatusError struct {
	Status int
	After  time.Duration // the time that Mailgun asks to wait; mostly 0
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d", e.Status) }

// RetryAfter returns After.
func (e *StatusError) RetryAfter() time.Duration { return e.After }

// Refused reports whether Mailgun has judged the message or the key, and has not merely failed.
func (e *StatusError) Refused() bool { return e.isClient() }

func (e *StatusError) isClient() bool { return e.Status >= 400 && e.Status < 500 }

// isOfMessage reports whether the fault may be that of one message: a parameter, its recipient, its size.
func (e *StatusError) isOfMessage() bool {
	return e.Status == http.StatusBadRequest || e.Status == http.StatusRequestEntityTooLarge
}

// isOfGateway reports whether a gateway answered, behind which Mailgun may have accepted the message (RFC 9110,
// sections 15.6.3 and 15.6.5).
func (e *StatusError) isOfGateway() bool {
	return e.Status == http.StatusBadGateway || e.Status == http.StatusGatewayTimeout
}
