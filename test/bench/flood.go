package main

import (
	"context"
	"errors"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/resetd/resetd/test/measure"
)

const (
	floodClients   = 100_000
	floodPerSecond = 100 // valid requests from other clients
	floodTime      = 10 * time.Second
)

// flood is the result of a flood for other clients.
type flood struct {
	refused        float64 // requests of the flood per second
	answered, late []time.Duration
	peak           uint64
}

// flooding floods a server from many addresses at full speed. The default limit of a client refuses most of these
// requests. Meanwhile others send valid requests for accounts, which must all be answered 200 and mailed.
func (b *bench) flooding() (f flood, err error) {
	upstreams, err := b.standIns(measure.Upstreams{})
	if err != nil {
		return f, err
	}
	defer upstreams.Stop()
	resetd, err := b.resetd(upstreams.URL(), "RATE_LIMIT=5-M,30-H", "TRUSTED_PROXIES=127.0.0.0/8")
	if err != nil {
		return f, err
	}
	defer resetd.Kill()

	to := newLoad(resetd, refusal, invalid, b.options.connections)
	defer to.close()
	to.client = func(number int) string { return client64(number % floodClients) }
	if _, _, err := to.send(b.ctx, 5*floodClients); err != nil { // all that the limit admits
		return f, err
	}
	ctx, stop := context.WithCancelCause(b.ctx)
	defer stop(nil)
	began, before, ended := time.Now(), to.number.Load(), make(chan error)
	go func() {
		_, _, err := to.send(ctx, 1<<40)
		ended <- err
	}()

	valid := newLoad(resetd, 200, upstreams.ask(true), steadyConnections)
	defer valid.close()
	valid.client = func(number int) string { return client64(floodClients + number) }
	valid.rate = vegeta.Rate{Freq: floodPerSecond, Per: time.Second}
	n := floodPerSecond * int(floodTime/time.Second)
	f.answered, f.late, err = valid.send(b.ctx, n)
	f.refused = float64(to.number.Load()-before) / time.Since(began).Seconds()
	stop(errEnough)
	if flooded := <-ended; !errors.Is(flooded, errEnough) {
		err = errors.Join(err, flooded)
	}
	if err != nil {
		return f, err
	}
	if _, f.peak, err = resetd.Memory(); err != nil {
		return f, err
	}
	upstreams.want = measure.Tally{Lookups: n, Mails: n}
	if err := upstreams.await(b.ctx); err != nil {
		return f, err
	}
	return f, upstreams.exactlyOnce()
}

var errEnough = errors.New("the others have been answered")
