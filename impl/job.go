package impl

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/resetd/resetd/gen"
)

// job is one request on its way.
type job struct {
	*Service
	// ctx outlives the client: a link once made has destroyed the one before, so it is sent
	// even if nobody waits for the answer any more.
	ctx      context.Context
	client   context.Context // ends when the client goes away
	began    time.Time
	deadline time.Time // of all work for this request

	email      string // as asked for; mail goes to the stored address instead (H2)
	account    string // the key that the address is counted by
	language   string
	redirectTo string
	mayDecoy   bool
	giveBack   func(context.Context) // of the recipient limit
	delivery   <-chan struct{}       // closed when the deferred delivery has ended; nil without one
	cancel     context.CancelFunc    // of the deferred delivery; nil without one
	decided    chan struct{}         // closed once it is known whether the caller is told of a fault
	told       bool                  // of one; not before decided
	crowded    bool                  // there was no place for the deferred delivery
}

func (s *Service) newJob(ctx context.Context, request gen.SendPasswordResetRequestObject) *job {
	j := &job{
		Service:  s,
		ctx:      context.WithoutCancel(ctx),
		client:   ctx,
		began:    time.Now(),
		deadline: time.Now().Add(4 * s.CallTimeout),
		email:    request.Body.Email,
		account:  accountKey(request.Body.Email),
		decided:  make(chan struct{}),
	}
	if request.Params.AcceptLanguage != nil {
		j.language = *request.Params.AcceptLanguage
	}
	if s.Origins != nil {
		var callback string
		if request.Body.CallbackOrigin != nil {
			callback = *request.Body.CallbackOrigin
		}
		origin, allowed := s.Origins.Resolve(callback)
		if !allowed {
			j.saw(CallbackReplaced, nil)
		}
		j.redirectTo = origin + s.ResetPath
	}
	return j
}

func (j *job) takeRecipient() (allowed bool) {
	allowed, j.giveBack = j.Recipients.Take(j.ctx, j.account)
	return allowed
}

// takeDecoy takes one from the budget of decoys for every request, whether or not it will
// need it: were it for strangers only, what is left of the budget would tell who is one.
func (j *job) takeDecoy() {
	if j.Decoys == nil {
		return
	}
	if j.mayDecoy, _ = j.Decoys.Take(j.ctx, ""); !j.mayDecoy {
		j.saw(DecoysUsedUp, nil)
	}
}

// failed ends the job with a fault that every address meets. Its place in the recipient limit
// is given back, so that a retry after the fault is not silently swallowed; that tells
// nothing, because the fault does not.
func (j *job) failed(err error) error {
	if j.giveBack != nil {
		j.giveBack(j.ctx)
	}
	j.saw(Failed, err)
	j.decide(true)
	return err
}

// decide fixes, once, whether the caller is told of a fault. If so, that is the request's one
// outcome, and a delivery under way is given up: the caller will ask again.
func (j *job) decide(told bool) {
	select {
	case <-j.decided:
		return
	default:
	}
	j.told = told
	close(j.decided)
	switch {
	case told && j.cancel != nil:
		j.cancel()
	case j.crowded && !told:
		j.saw(Undelivered, errors.New("too many deliveries under way"))
	}
}

// findLink asks for the account's link; nil without an account. If that fails for this
// address alone, finish is the lookup to go on with.
func (j *job) findLink() (link *Link, finish question[*Link], err error) {
	ask := func(ctx context.Context) (*Link, error) { return j.Links.MakeLink(ctx, j.email, j.redirectTo) }
	control := func(ctx context.Context) (*Link, error) { return j.Links.MakeLink(ctx, Nobody(), j.redirectTo) }
	link, finish, err = settle(j.ctx, j.lookupPatience(), nil, ask, control)
	j.evenOut()
	return link, finish, err
}

// maxStep holds a lookup (29 ms as measured), and for the one that hangs its patience and the
// control question. Longer quanta get no longer steps: a request that waits here still costs
// all that net/http holds for it.
const maxStep = 150 * time.Millisecond

// evenOut waits for the end of the step in which the lookup was settled. The lookup of an
// account takes 29 ms and that of a stranger 8 ms (as measured): without this the slow ones
// among the mails would miss the beat 0.4 % more often than the slow decoys.
func (j *job) evenOut() {
	if step := min(j.Quantum*3/10, maxStep); step > 0 {
		time.Sleep((step - time.Since(j.began)%step) % step)
	}
}

// sendLink sends the mail, now or, if that fails for this recipient alone, later.
func (j *job) sendLink(link *Link) error {
	send, err := j.mail(link)
	if err != nil { // for this account alone, whose link it is
		if err := j.sendDecoy(); err != nil {
			return err
		}
		j.saw(Undelivered, err)
		return nil
	}
	if j.Decoys == nil { // MAIL_DECOY=off: no control question, so a failure has to be shown
		_, err = retry(j.ctx, 2, maxTimeouts, send)
	} else {
		control := func(context.Context) (struct{}, error) { return struct{}{}, nil }
		if j.mayDecoy {
			control = j.decoy
		}
		var finish question[struct{}]
		_, finish, err = settle(j.ctx, j.mailPatience(), j.verdictDue(), send, control)
		if err != nil && !isShown(err) {
			left := maxTimeouts
			if errors.Is(err, context.DeadlineExceeded) {
				left--
			}
			j.later(func(ctx context.Context) error {
				_, err := retry(ctx, maxTries, left, finish)
				return err
			})
			return nil
		}
	}
	if err == nil {
		j.saw(Sent, nil)
	}
	return err
}

// sendDecoy does for an address without an account what sendLink does for one with it.
func (j *job) sendDecoy() error {
	if !j.mayDecoy {
		return nil
	}
	if _, _, err := settle(j.ctx, j.mailPatience(), j.verdictDue(), j.decoy, j.decoy); isShown(err) {
		return err
	}
	return nil
}

// mail writes the mail with the link and returns how to send it.
func (j *job) mail(link *Link) (question[struct{}], error) {
	if link.RedirectTo != j.redirectTo {
		j.saw(RedirectReplaced, nil)
	}
	mail, err := j.Writer.Write(j.language, j.LinkURL(link, j.redirectTo))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (struct{}, error) { return struct{}{}, j.Mailer.Send(ctx, link.Email, mail) }, nil
}

// decoy writes a mail with a made-up link and sends it to nobody.
func (j *job) decoy(ctx context.Context) (struct{}, error) {
	mail, err := j.Writer.Write(j.language, j.DecoyURL(j.redirectTo))
	if err != nil {
		return struct{}{}, err
	}
	return struct{}{}, j.Mailer.SendDecoy(ctx, mail)
}

// deliverLater goes on with a lookup that failed for this address alone, and sends what it
// brings.
func (j *job) deliverLater(lookup question[*Link]) {
	j.later(func(ctx context.Context) error {
		link, err := retry(ctx, maxTries, maxTries, lookup)
		if err != nil {
			return err
		}
		if link == nil {
			return errNoAccount
		}
		send, err := j.mail(link)
		if err != nil {
			return err
		}
		_, err = retry(ctx, maxTries, maxTimeouts, send)
		return err
	})
}

// errNoAccount is how a delivery ends that has nobody to deliver to.
var errNoAccount = errors.New("no account")

// later runs a delivery beside the answer, which no longer depends on it.
func (j *job) later(deliver func(ctx context.Context) error) {
	done := make(chan struct{})
	ctx, cancel := context.WithDeadline(j.ctx, j.deadline)
	j.delivery, j.cancel = done, cancel
	started := j.deferred.start(func() {
		defer close(done)
		defer cancel()
		reply := <-start(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, deliver(ctx) })
		<-j.decided
		switch {
		case j.told: // and that is the request's outcome
		case reply.err == nil:
			j.saw(Sent, nil)
		case errors.Is(reply.err, errNoAccount):
			j.saw(NoAccount, nil)
		default:
			j.saw(Undelivered, reply.err)
		}
	})
	if !started {
		close(done)
		cancel()
		j.crowded = true
	}
}

// awaitDelivery waits for the deferred delivery for as long as the answer has to wait anyway,
// so that a 200 nearly always means an accepted message (H8) and never takes longer for it.
func (j *job) awaitDelivery() {
	if j.delivery == nil {
		return
	}
	var answer <-chan time.Time
	if j.Quantum > 0 {
		timer := time.NewTimer(j.untilAnswer())
		defer timer.Stop()
		answer = timer.C
	}
	select {
	case <-j.delivery:
	case <-answer:
	case <-j.client.Done():
	}
}

// lookupPatience leaves time, within the step of evenOut, for the control question: an account
// whose lookup alone hangs is then mailed a decoy in the same step as a stranger.
func (j *job) lookupPatience() time.Duration {
	if j.Quantum == 0 {
		return j.CallTimeout
	}
	return min(j.Quantum/5, maxStep*2/3, j.CallTimeout)
}

// verdictDue is the beat on which a mail that has just failed would have been answered, had it
// been accepted.
func (j *job) verdictDue() func() time.Duration {
	if j.Quantum == 0 {
		return nil
	}
	return j.untilAnswer
}

// untilAnswer fixes the beat of the answer, and is how long work may still hold it up. The
// last tenth of the quantum is the server's: what reaches it on the beat itself would be
// answered some 40 µs later than what has waited there.
func (j *job) untilAnswer() time.Duration {
	return max(0, j.Decide(j.ctx)-j.Quantum/10)
}

// mailPatience is longer: Mailgun's slow answers are common, and every control question of
// the mail is a decoy that Mailgun bills.
func (j *job) mailPatience() time.Duration {
	if j.Quantum == 0 {
		return j.CallTimeout
	}
	return min(j.Quantum, j.CallTimeout)
}

// maxTries of a deferred call, within some 4 s: with every third call failing at random, one
// delivery in 3^12 = 531,441 would still be lost.
const maxTries = 12

// maxTimeouts of sending one mail: Mailgun may have accepted what it did not answer, and knows
// no idempotency key.
const maxTimeouts = 2

// retry asks until it is answered, with growing pauses, and no more once timeouts calls have
// timed out.
func retry[T any](ctx context.Context, tries uint, timeouts int, ask question[T]) (T, error) {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = 20 * time.Millisecond
	pauses.MaxInterval = time.Second
	return backoff.Retry(ctx, func() (T, error) {
		value, err := ask(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			if timeouts--; timeouts <= 0 {
				return value, backoff.Permanent(err)
			}
		}
		return value, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxTries(tries), backoff.WithMaxElapsedTime(0))
}
