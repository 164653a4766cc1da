package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/resetd/resetd/test/measure"
)

// outboxSize is the number of requests that are admitted within 10 s by default.
const outboxSize = 10_000

// outbox is the resident set of a server whose mails fail.
type outbox struct {
	idle uint64 // before the first request
	full uint64 // with outboxSize pending requests, after each was tried
}

// fullOutbox fills the outbox with requests for accounts whose mails are answered 500.
func (b *bench) fullOutbox() (o outbox, err error) {
	upstreams, err := b.standIns(measure.Upstreams{MailFault: "500"})
	if err != nil {
		return o, err
	}
	defer upstreams.Stop()
	resetd, err := b.resetd(upstreams.URL())
	if err != nil {
		return o, err
	}
	defer resetd.Kill() // otherwise it would go on trying
	time.Sleep(time.Second)
	if o.idle, _, err = resetd.Memory(); err != nil {
		return o, err
	}
	to := newLoad(resetd, http.StatusOK, upstreams.ask(true), b.options.connections)
	defer to.close()
	if _, _, err := to.send(b.ctx, outboxSize); err != nil {
		return o, err
	}
	upstreams.want = measure.Tally{Lookups: outboxSize, Refused: outboxSize}
	if err := upstreams.await(b.ctx); err != nil {
		return o, err
	}
	if o.full, _, err = resetd.Memory(); err != nil {
		return o, err
	}
	waiting, err := pending(resetd)
	if err == nil && waiting != outboxSize {
		err = fmt.Errorf("%d requests are pending (wanted %d)", waiting, outboxSize)
	}
	if err != nil {
		return o, err
	}
	return o, upstreams.exactlyOnce()
}
