//go:build linux

package main

import (
	"cmp"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	perSecond  = 500
	steadyTime = 10 * time.Second
	// steadyConnections are enough for answers that take 100 ms.
	steadyConnections = 64
)

// likeHosted takes as long as the real services were measured to, as in test/timing.
var likeHosted = behaviour{account: 29 * time.Millisecond, unknown: 8 * time.Millisecond, mail: 200 * time.Millisecond}

// latency is what a steady stream of valid requests saw.
type latency struct {
	deliveries     string // at once
	answered, late []time.Duration
	pending        int             // as the last request was answered
	sent           []time.Duration // from the acceptance of a request to the end of its mail
	peak           int64
}

// latency measures with a setting of MAX_DELIVERIES; empty: the default.
func (b *bench) latency(setting string) (l latency, err error) {
	upstreams, err := b.standIns(likeHosted)
	if err != nil {
		return l, err
	}
	defer upstreams.stop()
	var settings []string
	if setting != "" {
		settings = append(settings, setting)
	}
	resetd, err := b.resetd(upstreams.url, wide, settings...)
	if err != nil {
		return l, err
	}
	defer resetd.kill()
	var numbers atomic.Int64
	body := func(number int) string {
		if number%2 == 0 {
			return ask(known)(number)
		}
		return ask(unknown)(number)
	}
	// A second of it warms up, and is answered after the first verdicts of the probes.
	first := newLoad(resetd, http.StatusOK, body, &numbers, 1)
	defer first.close()
	if err := first.send(b.ctx, perSecond); err != nil {
		return l, err
	}

	to := newLoad(resetd, http.StatusOK, body, &numbers, steadyConnections)
	defer to.close()
	n := perSecond * int(steadyTime/time.Second)
	if l.answered, l.late, err = to.steady(b.ctx, n, time.Second/perSecond); err != nil {
		return l, err
	}
	if l.pending, err = resetd.pending(); err != nil {
		return l, err
	}
	if l.peak, err = resetd.memory("VmHWM"); err != nil {
		return l, err
	}
	l.deliveries = cmp.Or(strings.TrimPrefix(setting, "MAX_DELIVERIES="), "8 (default)")
	if setting == "" {
		return l, nil // the rest would take a minute
	}
	upstreams.want = tally{Lookups: perSecond + n, Mails: (perSecond + n) / 2}
	if err := upstreams.await(b.ctx); err != nil {
		return l, err
	}
	time.Sleep(pollEvery) // for the last record
	if l.sent, err = resetd.sent(); err != nil {
		return l, err
	}
	return l, upstreams.exactlyOnce()
}
