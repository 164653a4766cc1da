package ratelimit

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/redisclient"
)

// target is where a URL leads.
func target(tb testing.TB, url string) *redisclient.Target {
	tb.Helper()
	t, wrong := redisclient.Parse(redisclient.Config{URL: url})
	if wrong != nil {
		tb.Fatal(wrong)
	}
	return t
}

// delay is a proxy that holds each answer back.
type delay struct {
	to string
	by atomic.Int64
}

// listen returns the address.
func (d *delay) listen(tb testing.TB) string { return accepting(tb, d.forward) }

// accepting serves each connection to the address that it returns, until the test ends.
func accepting(tb testing.TB, serve func(net.Conn)) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

func (d *delay) forward(client net.Conn) {
	server, err := net.Dial("tcp", d.to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	answer := make([]byte, 64<<10)
	for {
		n, err := server.Read(answer)
		if err != nil {
			return
		}
		time.Sleep(time.Duration(d.by.Load()))
		if _, err := client.Write(answer[:n]); err != nil {
			return
		}
	}
}
