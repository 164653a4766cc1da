//go:build linux

package main

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// outboxSize is as many as are let in within 10 s by default.
const outboxSize = 10_000

// outbox is the resident set of a server whose mail fails.
type outbox struct {
	idle int64 // before the first request
	full int64 // with outboxSize pending requests, when each has been tried
}

// fullOutbox fills the outbox with requests for accounts whose mail is answered 500.
func (b *bench) fullOutbox() (o outbox, err error) {
	upstreams, err := b.standIns(behaviour{failing: true})
	if err != nil {
		return o, err
	}
	defer upstreams.stop()
	resetd, err := b.resetd(upstreams.url, wide)
	if err != nil {
		return o, err
	}
	defer resetd.kill() // it would go on trying
	time.Sleep(time.Second)
	if o.idle, err = resetd.memory("VmRSS"); err != nil {
		return o, err
	}
	var numbers atomic.Int64
	to := newLoad(resetd, http.StatusOK, ask(known), &numbers, b.options.connections)
	defer to.close()
	if err := to.send(b.ctx, outboxSize); err != nil {
		return o, err
	}
	upstreams.want = tally{Lookups: outboxSize, Refused: outboxSize}
	if err := upstreams.await(b.ctx); err != nil {
		return o, err
	}
	if o.full, err = resetd.memory("VmRSS"); err != nil {
		return o, err
	}
	pending, err := resetd.pending()
	if err == nil && pending != outboxSize {
		err = fmt.Errorf("%d requests are pending (wanted %d)", pending, outboxSize)
	}
	if err != nil {
		return o, err
	}
	return o, upstreams.exactlyOnce()
}
