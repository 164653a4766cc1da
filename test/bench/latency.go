package main

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/resetd/resetd/test/measure"
)

const (
	perSecond  = 500
	steadyTime = 10 * time.Second
	// steadyConnections are enough for answers that take 100 ms.
	steadyConnections = 64
)

// likeHosted takes as long as the real services, as in test/timing.
var likeHosted = measure.Upstreams{AccountTakes: measure.AccountTakes, UnknownTakes: measure.UnknownTakes, MailTakes: measure.MailTakes}

// latency is the result of a steady stream of valid requests.
type latency struct {
	deliveries     string // at once
	answered, late []time.Duration
	pending        int             // when the last request was answered
	sent           []time.Duration // from the acceptance of a request to the end of its mail
	peak           uint64
}

// latency measures with a value of MAX_DELIVERIES; empty: the default.
func (b *bench) latency(setting string) (l latency, err error) {
	upstreams, err := b.standIns(likeHosted)
	if err != nil {
		return l, err
	}
	defer upstreams.Stop()
	var settings []string
	if setting != "" {
		settings = append(settings, setting)
	}
	resetd, err := b.resetd(upstreams.URL(), settings...)
	if err != nil {
		return l, err
	}
	defer resetd.Kill()
	var number atomic.Int64
	body := func() string { return upstreams.ask(number.Add(1)%2 == 0)() }
	// The first second warms up, and begins after the first verdicts of the probes.
	first := newLoad(resetd, http.StatusOK, body, 1)
	defer first.close()
	if _, _, err := first.send(b.ctx, perSecond); err != nil {
		return l, err
	}

	to := newLoad(resetd, http.StatusOK, body, steadyConnections)
	defer to.close()
	to.rate = vegeta.Rate{Freq: perSecond, Per: time.Second}
	n := perSecond * int(steadyTime/time.Second)
	if l.answered, l.late, err = to.send(b.ctx, n); err != nil {
		return l, err
	}
	if l.pending, err = pending(resetd); err != nil {
		return l, err
	}
	if _, l.peak, err = resetd.Memory(); err != nil {
		return l, err
	}
	l.deliveries = cmp.Or(strings.TrimPrefix(setting, "MAX_DELIVERIES="), "8 (default)")
	if setting == "" {
		return l, nil // the rest would take a minute
	}
	upstreams.want = measure.Tally{Lookups: perSecond + n, Mails: (perSecond + n) / 2}
	if err := upstreams.await(b.ctx); err != nil {
		return l, err
	}
	time.Sleep(pollEvery) // wait for the last record
	if l.sent, err = sent(resetd); err != nil {
		return l, err
	}
	return l, upstreams.exactlyOnce()
}

// These patterns read resetd's log and metrics.
var (
	adminAddr       = regexp.MustCompile(`"admin_addr":"([^"]+)"`)
	pendingRequests = regexp.MustCompile(`(?m)^resetd_pending_requests (\S+)$`)
	sentAfter       = regexp.MustCompile(`"outcome":"sent",.*"duration_ms":([0-9.]+)`)
)

// pending returns how many requests are accepted and not yet delivered.
func pending(resetd *measure.Process) (int, error) {
	log, err := resetd.Log()
	if err != nil {
		return 0, err
	}
	found := adminAddr.FindSubmatch(log)
	if found == nil {
		return 0, errors.New("the log names no admin_addr")
	}
	response, err := http.Get("http://" + string(found[1]) + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	metrics, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if found = pendingRequests.FindSubmatch(metrics); found == nil {
		return 0, errors.New("there is no metric resetd_pending_requests")
	}
	number, err := strconv.ParseFloat(string(found[1]), 64)
	return int(number), err
}

// sent returns from resetd's log how long each mail took from the acceptance of its request.
func sent(resetd *measure.Process) (took []time.Duration, err error) {
	log, err := resetd.Log()
	if err != nil {
		return nil, err
	}
	for _, found := range sentAfter.FindAllSubmatch(log, -1) {
		one, err := time.ParseDuration(string(found[1]) + "ms")
		if err != nil {
			return nil, err
		}
		took = append(took, one)
	}
	if len(took) == 0 {
		return nil, errors.New("the log has no delivery that was sent")
	}
	return took, nil
}
