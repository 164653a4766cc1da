//go:build linux

package main

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// growth is what a request costs a server that has seen so many clients.
type growth struct {
	clients   int
	processor time.Duration
	memory    int64 // resident
}

// growing sends requests from more and more clients, each of a /64 of its own, and measures those of
// clients that were seen before. They are refused by the schema, so that nothing else grows.
func (b *bench) growing() (table []growth, err error) {
	resetd, err := b.resetd("http://127.0.0.1:9", wide, noLog, "TRUSTED_PROXIES=127.0.0.0/8")
	if err != nil {
		return nil, err
	}
	defer resetd.stop()
	var numbers atomic.Int64
	to := newLoad(resetd, http.StatusBadRequest, invalid, &numbers, b.options.connections)
	defer to.close()
	seen := 0
	for _, clients := range []int{1_000, 10_000, 100_000, 1_000_000} {
		to.client = client64
		if err := to.send(b.ctx, clients-seen); err != nil {
			return nil, err
		}
		seen = clients
		// From all over those seen, so that what is kept of them is not in a processor's cache.
		to.client = func(number int) string { return client64(1 + number*7919%clients) }
		requests := 10 * b.options.requests
		var rounds []time.Duration
		for range b.options.rounds {
			before, err := resetd.processorTime()
			if err != nil {
				return nil, err
			}
			if err := to.send(b.ctx, requests); err != nil {
				return nil, err
			}
			after, err := resetd.processorTime()
			if err != nil {
				return nil, err
			}
			rounds = append(rounds, (after-before)/time.Duration(requests))
		}
		numbers.Store(int64(seen))
		memory, err := resetd.memory("VmRSS")
		if err != nil {
			return nil, err
		}
		table = append(table, growth{clients, median(rounds), memory})
	}
	return table, nil
}

func client64(number int) string { return fmt.Sprintf("2001:db8:%x:%x::1", number>>16, number&0xffff) }
