package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/resetd/resetd/test/measure"
)

// growth is the cost of a request at a server that has seen so many clients, or holds so many requests.
type growth struct {
	number    int
	processor time.Duration
	ratio     float64 // to the floor, which keeps neither
	memory    uint64  // resident
}

// growing sends requests from more and more clients, each from its own /64, and measures requests from clients
// that were seen before. The schema refuses all of them, so that nothing else grows.
func (b *bench) growing() (table []growth, err error) {
	resetd, err := b.resetd("http://127.0.0.1:9", noLog, "TRUSTED_PROXIES=127.0.0.0/8")
	if err != nil {
		return nil, err
	}
	defer resetd.Stop()
	to := newLoad(resetd, http.StatusBadRequest, invalid, b.options.connections)
	defer to.close()
	to.client = client64
	if _, _, err := to.send(b.ctx, 1); err != nil {
		return nil, err
	}
	floor, err := b.floor(floor{Status: http.StatusBadRequest, AnswerBytes: to.answerBytes})
	if err != nil {
		return nil, err
	}
	defer floor.Stop()
	toFloor := newLoad(floor, http.StatusBadRequest, invalid, b.options.connections)
	defer toFloor.close()
	seen := 1
	for _, clients := range []int{1_000, 10_000, 100_000, 1_000_000} {
		to.client = client64
		to.number.Store(int64(seen))
		if _, _, err := to.send(b.ctx, clients-seen); err != nil {
			return nil, err
		}
		seen = clients
		// The clients are from all parts of those seen, so that a processor's cache does not have their counters.
		to.client = func(number int) string { return client64(1 + number*7919%clients) }
		toFloor.client = to.client
		row, err := b.besideFloor(resetd, floor, to, toFloor, 5*b.options.requests)
		if err != nil {
			return nil, err
		}
		row.number = clients
		table = append(table, row)
	}
	return table, nil
}

// growingPending fills the outbox with requests whose lookup hangs, and measures further requests.
func (b *bench) growingPending() (table []growth, err error) {
	upstreams, err := b.standIns(measure.Upstreams{AccountFault: "hang"})
	if err != nil {
		return nil, err
	}
	defer upstreams.Stop()
	resetd, err := b.resetd(upstreams.URL(), noLog, "UPSTREAM_TIMEOUT=1m", "MAX_ACCEPTED=100000")
	if err != nil {
		return nil, err
	}
	defer resetd.Kill()
	to := newLoad(resetd, http.StatusOK, upstreams.ask(true), b.options.connections)
	defer to.close()
	const few, some = 200, 2000                       // processor time is counted in ticks of 10 ms
	if _, _, err := to.send(b.ctx, few); err != nil { // the first requests wait for the probes
		return nil, err
	}
	floor, err := b.floor(floor{Status: http.StatusBadRequest, AnswerBytes: to.answerBytes})
	if err != nil {
		return nil, err
	}
	defer floor.Stop()
	toFloor := newLoad(floor, http.StatusBadRequest, upstreams.ask(true), b.options.connections)
	defer toFloor.close()
	if _, err := b.cost(floor, toFloor, 1000); err != nil {
		return nil, err
	}
	for _, pending := range []int{few, 10_000, 20_000} {
		if _, _, err := to.send(b.ctx, pending-int(to.number.Load())); err != nil { // none if there are enough already
			return nil, err
		}
		row, err := b.besideFloor(resetd, floor, to, toFloor, some)
		if err != nil {
			return nil, err
		}
		row.number = pending
		table = append(table, row)
	}
	return table, nil
}

// besideFloor measures so many requests a round, in turns with the floor.
func (b *bench) besideFloor(resetd, floor *measure.Process, to, toFloor *load, requests int) (row growth, err error) {
	var processor []time.Duration
	var ratio []float64
	for range b.options.rounds {
		ours, err := b.cost(resetd, to, requests)
		if err != nil {
			return row, err
		}
		theirs, err := b.cost(floor, toFloor, requests)
		if err != nil {
			return row, err
		}
		processor, ratio = append(processor, ours), append(ratio, float64(ours)/float64(theirs))
	}
	row.processor, row.ratio = median(processor), median(ratio)
	row.memory, _, err = resetd.Memory()
	return row, err
}

// cost returns the processor time per request of many.
func (b *bench) cost(of *measure.Process, to *load, requests int) (time.Duration, error) {
	before, err := of.ProcessorTime()
	if err != nil {
		return 0, err
	}
	if _, _, err := to.send(b.ctx, requests); err != nil {
		return 0, err
	}
	after, err := of.ProcessorTime()
	return (after - before) / time.Duration(requests), err
}

func client64(number int) string { return fmt.Sprintf("2001:db8:%x:%x::1", number>>16, number&0xffff) }
