package main

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// idleConnections closes the connections of a server that have waited longest for their next request, if more than
// most are waiting. Proxies keep connections for minutes, so the idle timeout alone bounds nothing.
type idleConnections struct {
	most int

	mu     sync.Mutex
	oldest list.List // of net.Conn
	places map[net.Conn]*list.Element
}

func newIdleConnections(most int) *idleConnections {
	return &idleConnections{most: most, places: make(map[net.Conn]*list.Element)}
}

// changed is the server's ConnState.
func (i *idleConnections) changed(connection net.Conn, state http.ConnState) {
	if surplus := i.note(connection, state == http.StateIdle); surplus != nil {
		_ = surplus.Close() // its server notices, and removes it
	}
}

// note returns the connection that has waited longest, if there are too many.
func (i *idleConnections) note(connection net.Conn, idle bool) (surplus net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if place, waits := i.places[connection]; waits {
		i.oldest.Remove(place)
		delete(i.places, connection)
	}
	if !idle {
		return nil
	}
	i.places[connection] = i.oldest.PushBack(connection)
	if i.oldest.Len() <= i.most {
		return nil
	}
	surplus, _ = i.oldest.Remove(i.oldest.Front()).(net.Conn)
	delete(i.places, surplus)
	return surplus
}
