package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/redisclient/redistest"
)

// TestPing: Ping finds what a store finds, and leaves nothing in Redis.
func TestPing(t *testing.T) {
	const password = "p@ss/word"
	for _, tt := range []struct {
		name, url string // url empty: the right URL
		set       func(*redistest.Piped)
		dial      func(context.Context, string, string) (net.Conn, error)
		want      pinged
	}{
		{name: "works", want: pinged{works: true}},
		{name: "20 ms away", set: func(p *redistest.Piped) { p.DelayBy(20 * time.Millisecond) }, want: pinged{works: true, roundTrip: 20 * time.Millisecond}},
		{name: "150 ms away", set: func(p *redistest.Piped) { p.DelayBy(150 * time.Millisecond) }, want: pinged{tooFar: true, works: true, roundTrip: 150 * time.Millisecond}},
		{name: "no password", url: "redis://piped", want: pinged{code: "NOAUTH"}},
		{name: "wrong password", url: "redis://:wrong@piped", want: pinged{code: "WRONGPASS"}},
		{name: "replica", set: func(p *redistest.Piped) { p.SetError("READONLY You can't write against a read only replica.") }, want: pinged{code: "READONLY"}},
		{name: "hangs", set: (*redistest.Piped).Hang, want: pinged{err: "no answer in time"}},
		{name: "nothing listens", set: (*redistest.Piped).Kill, want: pinged{err: "connection refused"}},
		{name: "no Redis: repeats its input", url: "redis://:wrong@piped", dial: parrot("HTTP/1.1 400 "), want: pinged{err: "its answer could not be understood"}},
		{name: "an error that Redis never gives", url: "redis://:wrong@piped", dial: parrot("-"), want: pinged{err: "its answer could not be understood"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := redistest.NewPiped(t)
				p.RequireAuth(password)
				if tt.set != nil {
					tt.set(p)
				}
				if tt.url == "" {
					tt.url = "redis://:p%40ss%2Fword@piped"
				}
				to := target(t, tt.url)
				to.Dial = p.Dial
				if tt.dial != nil {
					to.Dial = tt.dial
				}
				tt.want.check(t, to, 5*time.Second, redisclient.Patience)
				for _, key := range p.Keys() {
					if strings.HasPrefix(key, "resetd:") {
						t.Errorf("it leaves %s", key)
					}
				}
			})
		})
	}
}

// pinged is the expected result of Ping.
type pinged struct {
	works     bool
	tooFar    bool // too far away for a store
	roundTrip time.Duration
	err       string // the error, without the rest of what an operating system says
	code      string // of a redisclient.RefusedError
}

// check compares the result of Ping with the expected one, and with whether a store counts in this Redis.
func (want pinged) check(t *testing.T, to *redisclient.Target, timeout, patience time.Duration) {
	t.Helper()
	began := time.Now()
	pong, err := Ping(t.Context(), to, timeout)
	took := time.Since(began)
	var refused *redisclient.RefusedError
	switch {
	case errors.As(err, &refused) != (want.code != "") || want.code != "" && refused.Code != want.code:
		t.Errorf("the error is %v, want code %q", err, want.code)
	case want.err != "" && (err == nil || !strings.Contains(err.Error(), want.err)):
		t.Errorf("the error is %v, want %s", err, want.err)
	case want.works != (err == nil):
		t.Errorf("%+v, %v", pong, err)
	case want.roundTrip > 0 && pong.RoundTrip != want.roundTrip:
		t.Errorf("it is %v away", pong.RoundTrip)
	}
	if patience == redisclient.Patience && took > timeout { // the clock is a bubble's
		t.Errorf("it took %v", took)
	}
	if err != nil && (strings.Contains(err.Error(), "wrong") || strings.Contains(err.Error(), "p@ss") || strings.Contains(err.Error(), "p%40")) {
		t.Errorf("the password is in %v", err)
	}
	store := openFor(t, Options{Redis: to, Prefix: "test"}, patience)
	if inUse := store.InUse(); (want.works && !want.tooFar) != (inUse == Redis) {
		t.Errorf("Ping says %+v, %v, and a store counts in %s", pong, err, inUse)
	}
	_ = store.Close()
}

// parrot returns a dialer to a server that answers every command with itself, in one line.
func parrot(before string) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			for told := make([]byte, 4096); ; {
				n, err := server.Read(told)
				if err != nil {
					return
				}
				if _, err := fmt.Fprintf(server, "%s%s\r\n", before, strings.ReplaceAll(string(told[:n]), "\r\n", " ")); err != nil {
					return
				}
			}
		}()
		return client, nil
	}
}
