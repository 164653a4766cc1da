//go:build linux

package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

const (
	floodClients   = 100_000
	floodPerSecond = 100 // valid requests of others
	floodTime      = 10 * time.Second
)

// flood is what others saw of a flood.
type flood struct {
	refused        float64 // requests of the flood, a second
	answered, late []time.Duration
	peak           int64
}

// flooding floods a server from many addresses at full speed, most of whose requests are refused by the
// default limit of a client, and sends valid requests about accounts from others meanwhile. Each of
// those must be answered 200 and mailed.
func (b *bench) flooding() (f flood, err error) {
	upstreams, err := b.standIns(behaviour{})
	if err != nil {
		return f, err
	}
	defer upstreams.stop()
	resetd, err := b.resetd(upstreams.url, "5-M,30-H", "TRUSTED_PROXIES=127.0.0.0/8")
	if err != nil {
		return f, err
	}
	defer resetd.kill()

	var numbers, others atomic.Int64
	to := newLoad(resetd, refusal, invalid, &numbers, b.options.connections)
	defer to.close()
	to.client = func(number int) string { return client64(number % floodClients) }
	if err := to.send(b.ctx, 5*floodClients); err != nil { // all that the limit lets through
		return f, err
	}
	ctx, stop := context.WithCancelCause(b.ctx)
	defer stop(nil)
	began, before, ended := time.Now(), numbers.Load(), make(chan error)
	go func() { ended <- to.send(ctx, 1<<40) }()

	valid := newLoad(resetd, 200, ask(known), &others, steadyConnections)
	defer valid.close()
	valid.client = func(number int) string { return client64(floodClients + number) }
	n := floodPerSecond * int(floodTime/time.Second)
	f.answered, f.late, err = valid.steady(b.ctx, n, time.Second/floodPerSecond)
	f.refused = float64(numbers.Load()-before) / time.Since(began).Seconds()
	stop(errEnough)
	if flooded := <-ended; !errors.Is(flooded, errEnough) {
		err = errors.Join(err, flooded)
	}
	if err != nil {
		return f, err
	}
	if f.peak, err = resetd.memory("VmHWM"); err != nil {
		return f, err
	}
	upstreams.want = tally{Lookups: n, Mails: n}
	if err := upstreams.await(b.ctx); err != nil {
		return f, err
	}
	return f, upstreams.exactlyOnce()
}

var errEnough = errors.New("the others have been answered")
