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
	"sync"
	"sync/atomic"
	"time"
)

// load sends requests over connections that stay open. It writes bytes made beforehand rather
// than use an http.Client, because what the sender costs is missing for those it measures.
type load struct {
	target      string
	status      int
	requests    [][]byte
	clients     []*client
	answerBytes atomic.Int64 // of the last answer's body
}

type client struct {
	conn   net.Conn
	reader *bufio.Reader
}

func newLoad(target string, p path, status, connections int) *load {
	l := &load{target: target, status: status, clients: make([]*client, connections)}
	for i := range accounts {
		body := p.body(i)
		l.requests = append(l.requests, fmt.Appendf(nil, "POST /api/auth/send-password-reset HTTP/1.1\r\nHost: %s\r\n"+
			"User-Agent: bench\r\nAccept: application/json\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", target, len(body), body))
	}
	return l
}

// send sends n requests, divided among the connections, and returns when all are answered as
// expected.
func (l *load) send(ctx context.Context, n int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for i := range l.clients {
		all.Go(func() {
			for ctx.Err() == nil {
				at := int(next.Add(1)) - 1
				if at >= n {
					return
				}
				if err := l.one(&l.clients[i], l.requests[at%len(l.requests)]); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

func (l *load) one(c **client, request []byte) error {
	if *c == nil {
		conn, err := net.Dial("tcp", l.target)
		if err != nil {
			return err
		}
		*c = &client{conn, bufio.NewReader(conn)}
	}
	if err := (*c).conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := (*c).conn.Write(request); err != nil {
		return err
	}
	response, err := http.ReadResponse((*c).reader, nil)
	if err != nil {
		return err
	}
	if response.StatusCode != l.status || response.Close {
		var body bytes.Buffer
		_, _ = io.Copy(&body, response.Body)
		return fmt.Errorf("answered %d (wanted %d, on a connection that stays open): %s", response.StatusCode, l.status, &body)
	}
	bytes, err := io.Copy(io.Discard, response.Body)
	l.answerBytes.Store(bytes)
	return errors.Join(err, response.Body.Close())
}

func (l *load) close() {
	for _, c := range l.clients {
		if c != nil {
			c.conn.Close()
		}
	}
}
