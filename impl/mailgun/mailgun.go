// Package mailgun hands messages to Mailgun, over mailgun-go.
//
// It owns how a message is sent (no tracking, TLS required, marked as automatic), how a decoy
// is, and the bounds of the call. It must never send a decoy to anyone but ourselves, put a
// link or an address into a Mailgun variable, or let the upstream's answer into an error.
package mailgun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/mailgun/mailgun-go/v4"

	"github.com/resetd/resetd/impl"
)

// maxAnswer bounds what is read of an answer. Real ones have about 100 bytes.
const maxAnswer = 1 << 20

// Config says whose mail is sent. Base is https://api.mailgun.net or
// https://api.eu.mailgun.net, with or without a trailing slash or /v3.
type Config struct {
	Base, Domain, Key string
	From              string // RFC 5322 mailbox
	ReplyTo           string // RFC 5322 mailbox, or empty
	DecoyTo           string // the bare address of From: decoys go there, in test mode
	Timeout           time.Duration
}

// Client sends mail. Its methods may be called concurrently.
type Client struct {
	config  Config
	http    *http.Client
	mailgun *mailgun.MailgunImpl
}

// New makes a client. Each call takes Timeout at most, to the last byte of the answer.
func New(config Config) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64 // the default of 2 would reconnect for most parallel calls
	transport.MaxResponseHeaderBytes = 64 << 10
	client := mailgun.NewMailgun(config.Domain, config.Key)
	client.SetAPIBase(strings.TrimSuffix(strings.TrimRight(config.Base, "/"), "/v3") + "/v3")
	bounds := &http.Client{
		Transport: bounded{transport},
		Timeout:   config.Timeout,
		// A redirect would carry the key and the link elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	client.SetClient(bounds)
	return &Client{config: config, http: bounds, mailgun: client}
}

// Send hands over a message. It returns nil once Mailgun has accepted it; every error is
// impl.ErrEmailDelivery.
func (c *Client) Send(ctx context.Context, to string, mail impl.Mail) error {
	return c.send(ctx, c.message(to, mail))
}

// SendDecoy does the same in test mode, to ourselves: Mailgun accepts the message, bills it
// and never delivers it.
// https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages/send-http#sending-in-test-mode
func (c *Client) SendDecoy(ctx context.Context, mail impl.Mail) error {
	message := c.message(c.config.DecoyTo, mail)
	message.EnableTestMode()
	return c.send(ctx, message)
}

func (c *Client) message(to string, mail impl.Mail) *mailgun.Message {
	message := mailgun.NewMessage(c.config.From, mail.Subject, mail.Text, to)
	message.SetHTML(mail.HTML)
	if c.config.ReplyTo != "" {
		message.SetReplyTo(c.config.ReplyTo)
	}
	_ = message.AddTag(ownTag) // fails only for the fourth tag and beyond
	// Click tracking would replace the link by a redirect of Mailgun's, which then knows the
	// token; open tracking would put a remote picture into the mail.
	message.SetTracking(false)
	message.SetTrackingClicks(false)
	message.SetTrackingOpens(false)
	// The mail carries a credential: better not delivered than readable on the way.
	message.SetRequireTLS(true)
	// RFC 3834, section 5: no vacation notes in reply.
	message.AddHeader("Auto-Submitted", "auto-generated")
	return message
}

func (c *Client) send(ctx context.Context, message *mailgun.Message) error {
	_, id, err := c.mailgun.Send(ctx, message)
	if err == nil && id != "" {
		return nil
	}
	// The next call, which may be a decoy that decides, must not meet with what is left of this
	// one: an upstream that refuses a recipient may hang up on its connection after.
	c.http.CloseIdleConnections()
	return fmt.Errorf("%w: %w", impl.ErrEmailDelivery, withoutBody(err))
}

// withoutBody says what went wrong without what the upstream wrote: mailgun-go's own errors
// carry the answer's body and the address called.
func withoutBody(err error) error {
	var status *mailgun.UnexpectedResponseError
	switch {
	case err == nil:
		return errors.New("accepted without an id")
	case errors.As(err, &status):
		return &StatusError{status.Actual}
	case errors.Is(err, mailgun.ErrInvalidMessage):
		return mailgun.ErrInvalidMessage
	}
	return impl.Cause(err)
}

// StatusError is an answer that accepts nothing.
type StatusError struct{ Status int }

func (e *StatusError) Error() string { return fmt.Sprintf("status %d", e.Status) }

// Refused says whether Mailgun has judged the message or the key, and has not merely failed.
func (e *StatusError) Refused() bool { return e.Status >= 400 && e.Status < 500 }

// bounded cuts answers off, which mailgun-go would read without end.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.Transport.RoundTrip(request)
	if err == nil {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(response.Body, maxAnswer), response.Body}
	}
	return response, err
}
