package main

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestOldestIdle: the server closes the connections that have waited longest.
func TestOldestIdle(t *testing.T) {
	t.Parallel()
	waiting := newIdleConnections(2)
	var connections [5]net.Conn
	for i := range connections {
		connections[i], _ = net.Pipe()
	}
	for step, c := range []struct {
		connection int
		state      http.ConnState
		surplus    int // the connection that is closed; -1: none
	}{
		{connection: 0, state: http.StateIdle, surplus: -1},
		{connection: 1, state: http.StateIdle, surplus: -1},
		{connection: 0, state: http.StateActive, surplus: -1}, // has a request
		{connection: 0, state: http.StateIdle, surplus: -1},   // has waited for the shortest time
		{connection: 2, state: http.StateIdle, surplus: 1},
		{connection: 1, state: http.StateClosed, surplus: -1}, // noticed by the server
		{connection: 2, state: http.StateClosed, surplus: -1}, // closed by its client
		{connection: 3, state: http.StateIdle, surplus: -1},
		{connection: 4, state: http.StateIdle, surplus: 0},
	} {
		var want net.Conn
		if c.surplus >= 0 {
			want = connections[c.surplus]
		}
		if got := waiting.note(connections[c.connection], c.state == http.StateIdle); got != want {
			t.Errorf("step %d: closes %v, want connection %d", step, got, c.surplus)
		}
	}
}

// TestIdleTimeoutDefault: the server keeps connections for longer than any balancer does.
func TestIdleTimeoutDefault(t *testing.T) {
	settings, err := readSettings("serve", nil, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	// Google Cloud's balancers keep connections for 600 s, the longest time that is known
	// (cloud.google.com/load-balancing/docs/https, November 2026).
	if server := (&app{settings: settings}).newServer(nil); server.IdleTimeout <= 600*time.Second {
		t.Errorf("by default a connection is kept for %v", server.IdleTimeout)
	}
}
