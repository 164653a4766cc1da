//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// load sends requests over connections that stay open. It writes bytes rather than use an
// http.Client, because what the sender costs is missing for those it measures.
type load struct {
	target  string
	status  int
	body    func(number int) string
	numbers *atomic.Int64 // of the last request to whatever server, so that no address comes twice
	clients []*client
	every   time.Duration           // from one request to the next in send; 0: as fast as they are answered
	client  func(number int) string // the address that a proxy says; nil: no proxy says any

	answerBytes atomic.Int64 // of the last answer's body
}

type client struct {
	conn   net.Conn
	reader *bufio.Reader
	due    chan time.Time // of the request that was sent last; for steady
}

// refusal is the status of a load whose requests may be answered with any 4xx.
const refusal = 4

func newLoad(server *process, status int, body func(number int) string, numbers *atomic.Int64, connections int) *load {
	return &load{
		target: strings.TrimPrefix(server.url, "http://"), status: status, body: body, numbers: numbers,
		clients: make([]*client, connections),
	}
}

// send sends n requests, divided among the connections and no faster than every says, and returns
// when all are answered as expected.
func (l *load) send(ctx context.Context, n int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var taken atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for i := range l.clients {
		all.Go(func() {
			for ctx.Err() == nil {
				number := taken.Add(1)
				if number > int64(n) {
					return
				}
				time.Sleep(time.Until(began.Add(time.Duration(number) * l.every)))
				if err := l.one(&l.clients[i]); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

func (l *load) one(c **client) (err error) {
	if *c == nil {
		if *c, err = l.dial(); err != nil {
			return err
		}
	}
	if err := (*c).conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := (*c).conn.Write(l.request()); err != nil {
		return err
	}
	return l.answer(*c)
}

func (l *load) dial() (*client, error) {
	conn, err := net.Dial("tcp", l.target)
	if err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReader(conn), make(chan time.Time, 1)}, nil
}

// request returns the bytes of the next request.
func (l *load) request() []byte {
	number := int(l.numbers.Add(1))
	body, forwarded := l.body(number), ""
	if l.client != nil {
		forwarded = "X-Forwarded-For: " + l.client(number) + "\r\n"
	}
	return fmt.Appendf(nil, "POST /api/auth/send-password-reset HTTP/1.1\r\nHost: %s\r\n"+
		"User-Agent: bench\r\nAccept: application/json\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", l.target, forwarded, len(body), body)
}

// answer reads an answer, and returns an error if it is not the expected one.
func (l *load) answer(c *client) error {
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return err
	}
	asExpected := response.StatusCode == l.status || l.status == refusal && response.StatusCode/100 == 4
	if !asExpected || response.Close {
		var body bytes.Buffer
		_, _ = io.Copy(&body, response.Body)
		return fmt.Errorf("answered %d (wanted %d, on a connection that stays open): %s", response.StatusCode, l.status, &body)
	}
	bytes, err := io.Copy(io.Discard, response.Body)
	l.answerBytes.Store(bytes)
	return errors.Join(err, response.Body.Close())
}

// steady sends a request every so often, whatever becomes of those before, and returns how long
// after its time each was answered, to the first byte, and how late the sender itself was. Where all
// connections are waiting for an answer, a request is late, and its answer too.
func (l *load) steady(ctx context.Context, n int, every time.Duration) (answered, late []time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	free := make(chan *client, len(l.clients))
	answers := make(chan time.Duration, n)
	for i := range l.clients {
		if l.clients[i], err = l.dial(); err != nil {
			return nil, nil, err
		}
		free <- l.clients[i]
		go func() {
			for c := l.clients[i]; ; free <- c {
				_, err := c.reader.Peek(1)
				now := time.Now()
				if err == nil {
					err = l.answer(c)
				}
				if err != nil {
					cancel(err)
					return
				}
				answers <- now.Sub(<-c.due)
			}
		}()
	}
	// Go's timers are up to a millisecond late where nothing else happens, so this thread sleeps.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := time.Now().Add(10 * time.Millisecond)
	for i := range n {
		due := began.Add(time.Duration(i) * every)
		for left := time.Until(due); left > 0; left = time.Until(due) { // a signal may end a sleep early
			sleep := syscall.NsecToTimespec(int64(left))
			_ = syscall.Nanosleep(&sleep, nil)
		}
		var c *client
		select {
		case c = <-free:
		case <-time.After(30 * time.Second):
			return nil, nil, errors.New("no answer on any connection for 30 s")
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
		request := l.request()
		late = append(late, time.Since(due))
		c.due <- due
		if _, err := c.conn.Write(request); err != nil {
			return nil, nil, err
		}
	}
	for range n {
		select {
		case answer := <-answers:
			answered = append(answered, answer)
		case <-time.After(30 * time.Second):
			return nil, nil, errors.New("a request is not answered after 30 s")
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
	return answered, late, nil
}

func (l *load) close() {
	for _, c := range l.clients {
		if c != nil {
			c.conn.Close()
		}
	}
}
