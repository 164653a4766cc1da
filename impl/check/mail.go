package check

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/supabase"
)

// write writes the mail as users get it. An empty language means the default one.
func (c *checker) write(language string, link *delivery.Link) (delivery.Mail, error) {
	mail, err := c.Writer.Render(language, "", c.LinkMode.URL(link, c.redirectTo))
	return delivery.Mail(mail), err
}

// sampleLink returns an invented link of the form and length of a real one. It opens nothing.
func (c *checker) sampleLink() *delivery.Link {
	token := make([]byte, 28)
	rand.Read(token) // never fails (crypto/rand)
	hash := hex.EncodeToString(token)
	return &delivery.Link{TokenHash: hash, ActionLink: c.Supabase.AuthURL + "/verify?token=" + hash + "&type=recovery&redirect_to=" + c.redirectTo}
}

// mail sends the mail for the operator's address like that for a user's: with an account, a real link goes to the
// address stored with it. Without an account, an invented link goes to the given address.
func (c *checker) mail(ctx context.Context) (found findings) {
	address := c.SendTo
	if address == "" {
		found.add(skipped, aboutMail, "whether a link can be made, which writes to Supabase's database, and mailed is not tried: --send-to does")
		return found
	}
	if c.failures(aboutSettings, aboutSupabase, aboutMailgun) > 0 {
		found.add(bad, aboutMail, "nothing was sent to %s. What to do: correct what has failed above first", address)
		return found
	}
	link, err := c.links.MakeLink(ctx, address, c.redirectTo)
	if errors.Is(err, impl.ErrAuthNotConfigured) {
		link, err = c.links.MakeLink(ctx, address, c.redirectTo) // one refusal is no verdict
	}
	if err != nil {
		found.add(bad, aboutMail, "nothing was sent to %s: Supabase, which answers for an unknown address, makes no link for it (%s); an earlier link may be invalid now. What to do: look at Supabase Auth's logs and its database, which can be read but perhaps not written", address, supabaseCause(err))
		return found
	}
	if link != nil && link.Banned {
		found.add(bad, aboutMail, "nothing was sent to %s: the account is banned, and no link opens it. What to do: give another address, or lift the ban", address)
		return found
	}
	recipient, sent, lost := address, c.sampleLink(), ""
	if link != nil {
		recipient, sent, lost = link.Email, link, "; every earlier link of that account is invalid now"
		if leadsTo := link.RedirectTo; leadsTo != c.redirectTo {
			found = append(found, c.redirectReplaced(supabase.AllowListEntry(c.redirectTo), leadsTo))
		}
	}
	mail, err := c.write(c.Language, sent)
	if err != nil {
		found.add(bad, aboutMail, "nothing was sent to %s: the mail cannot be written: %s%s. What to do: correct the templates", address, err, lost)
		return found
	}
	if err := c.mailer.Send(ctx, recipient, mail); err != nil {
		advice := c.mailgunAdvice(err)
		if errors.Is(err, context.DeadlineExceeded) {
			advice = "look whether it has arrived nevertheless; " + advice
		}
		found.add(bad, aboutMail, "no mail to %s, though one in test mode is accepted: %s%s. What to do: %s", address, mailgunCause(err), lost, advice)
		return found
	}
	if link == nil {
		found.add(good, aboutMail, "sent to %s, which has no account: the link is made up and opens nothing", address)
		return found
	}
	found.add(good, aboutMail, "sent to the address stored with the account of %s, with a link that works%s", address, lost)
	return found
}
