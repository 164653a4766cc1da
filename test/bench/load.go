package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/resetd/resetd/test/measure"
)

// load sends requests over connections that stay open.
type load struct {
	url       string
	status    int
	body      func() string
	rate      vegeta.Rate             // the zero Rate: as fast as they are answered
	client    func(number int) string // the client's address in the header of a proxy; nil: no proxy
	number    atomic.Int64            // of the last request
	workers   uint64
	transport *http.Transport

	answerBytes uint64 // of the last answer's body
}

// refusal is the status of a load whose requests may get any 4xx.
const refusal = 4

func newLoad(server *measure.Process, status int, body func() string, connections int) *load {
	return &load{
		url: server.URL() + "/api/auth/send-password-reset", status: status, body: body, workers: uint64(connections),
		transport: &http.Transport{MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections},
	}
}

// upTo is a rate that ends after n requests.
type upTo struct {
	vegeta.ConstantPacer
	n uint64
}

// Pace implements vegeta.Pacer.
func (u upTo) Pace(elapsed time.Duration, sent uint64) (wait time.Duration, stop bool) {
	wait, _ = u.ConstantPacer.Pace(elapsed, sent)
	return wait, sent >= u.n
}

// send sends n requests, each at its time if a connection is free, and returns when all have the expected answer.
// With n < 1 it sends none. It returns how long each took until the last byte, and how late it was sent.
func (l *load) send(ctx context.Context, n int) (took, late []time.Duration, err error) {
	attacker := vegeta.NewAttacker(vegeta.Client(&http.Client{Transport: l.transport, Timeout: 30 * time.Second}),
		vegeta.Workers(l.workers), vegeta.MaxWorkers(l.workers))
	defer context.AfterFunc(ctx, func() { attacker.Stop() })()
	began := time.Now()
	for result := range attacker.Attack(l.target, upTo{l.rate, uint64(max(n, 0))}, 0, "") {
		switch asExpected := int(result.Code) == l.status || l.status == refusal && result.Code/100 == 4; {
		case asExpected:
			l.answerBytes = result.BytesIn
			took = append(took, result.Latency)
			due := time.Duration(result.Seq+1) * l.rate.Per / time.Duration(max(l.rate.Freq, 1))
			late = append(late, result.Timestamp.Sub(began)-due)
		case err == nil:
			err = fmt.Errorf("answered %d (wanted %d): %s %s", result.Code, l.status, result.Error, result.Body)
			attacker.Stop()
		}
	}
	return took, late, errors.Join(err, context.Cause(ctx))
}

// target returns the next request.
func (l *load) target(t *vegeta.Target) error {
	number := int(l.number.Add(1))
	*t = vegeta.Target{
		Method: http.MethodPost, URL: l.url, Body: []byte(l.body()),
		Header: http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}, "User-Agent": {"bench"}},
	}
	if l.client != nil {
		t.Header.Set("X-Forwarded-For", l.client(number))
	}
	return nil
}

func (l *load) close() { l.transport.CloseIdleConnections() }
