package redistest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// Piped is a Redis in the test's own process (miniredis) that is reached by Dial, without a network. In a
// synctest bubble it answers at once, or exactly as late as it is told to, and its keys expire by the
// bubble's clock.
//
// It is for tests of our own code. Tests about Redis itself need a real server: miniredis has no maxmemory, ACL, TLS,
// replicas, Sentinels or Cluster, and runs scripts in its own Lua.
type Piped struct {
	*miniredis.Miniredis

	tb    testing.TB
	delay atomic.Int64                  // of each answer, in nanoseconds
	hung  atomic.Pointer[chan struct{}] // nil while it answers
	down  atomic.Bool
	wires sync.WaitGroup
}

// NewPiped starts a Piped.
func NewPiped(tb testing.TB) *Piped {
	tb.Helper()
	p := &Piped{tb: tb, Miniredis: miniredis.NewMiniRedis()}
	p.ClockTTL(true)
	tb.Cleanup(func() {
		p.Resume()
		p.Close()
		p.wires.Wait()
		time.Sleep(5 * time.Second) // go-redis goes on connecting for a second after its client was closed
	})
	return p
}

// DelayBy delays each answer by this time.
func (p *Piped) DelayBy(d time.Duration) { p.delay.Store(int64(d)) }

// Hang makes it accept connections and commands, but answer none until Resume.
func (p *Piped) Hang() {
	gate := make(chan struct{})
	p.hung.Store(&gate)
}

// Resume makes it answer again, also earlier commands.
func (p *Piped) Resume() {
	if gate := p.hung.Swap(nil); gate != nil {
		close(*gate)
	}
}

// Kill closes all connections, and refuses new ones.
func (p *Piped) Kill() {
	p.down.Store(true)
	p.Close()
}

// Start makes it accept connections again after Kill. It keeps its keys and scripts.
func (p *Piped) Start() { p.down.Store(false) }

// Do sends a command over its own connection.
func (p *Piped) Do(args ...any) any {
	p.tb.Helper()
	return do(p.tb, &redis.Options{Dialer: p.Dial}, args...)
}

// Dial connects to it, whatever the address.
func (p *Piped) Dial(context.Context, string, string) (net.Conn, error) {
	if p.down.Load() {
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: syscall.ECONNREFUSED}
	}
	server, err := p.Miniredis.Dial()
	if err != nil {
		return nil, err
	}
	client, wire := net.Pipe()
	// A pipe has no buffer, and a client writes all of its commands before it reads the first answer.
	sent := make(chan []byte, 1024)
	p.wires.Go(func() {
		defer close(sent)
		for {
			chunk := make([]byte, 4096)
			n, err := wire.Read(chunk)
			if err != nil {
				return
			}
			sent <- chunk[:n]
		}
	})
	p.wires.Go(func() {
		defer func() { _ = server.Close() }()
		for chunk := range sent {
			time.Sleep(time.Duration(p.delay.Load()))
			if gate := p.hung.Load(); gate != nil {
				<-*gate
			}
			if _, err := server.Write(chunk); err != nil {
				return
			}
		}
	})
	p.wires.Go(func() {
		defer func() { _ = wire.Close() }()
		_, _ = io.Copy(wire, server)
	})
	return pipe{client}, nil
}

// pipe fails like a socket whose other end is closed.
type pipe struct{ net.Conn }

// Write implements net.Conn.
func (p pipe) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	return n, broken(err)
}

// SetReadDeadline implements net.Conn.
func (p pipe) SetReadDeadline(t time.Time) error { return broken(p.Conn.SetReadDeadline(t)) }

// SetWriteDeadline implements net.Conn.
func (p pipe) SetWriteDeadline(t time.Time) error { return broken(p.Conn.SetWriteDeadline(t)) }

func broken(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return syscall.EPIPE
	}
	return err
}
