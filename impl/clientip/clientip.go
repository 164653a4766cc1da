// Package clientip finds the address of a request's client, by which its requests are counted. It owns the
// three settings that name trusted proxies, and reads the headers that these write.
//
// The peer is the address of a connection. It is the client, unless it is a trusted proxy:
//
//   - TRUSTED_PROXIES lists trusted networks, or the words loopback, private and all. The client is then
//     the rightmost address of X-Forwarded-For that is not trusted.
//   - TRUSTED_HOPS=n counts instead: the client is the n-th address of X-Forwarded-For from the right.
//     Without TRUSTED_PROXIES every peer is trusted.
//   - CLIENT_IP_HEADER names another header. It has one address, which is the client's; or it is Forwarded
//     (RFC 7239), a list that is read like X-Forwarded-For.
//
// An entry that cannot be read counts as the hop that wrote it, and never as what the client may have written
// itself. In a list that hop is the last address that could be read; with TRUSTED_HOPS, and with a header of
// one address, it is the peer.
//
// This package must never trust a peer that the operator has not named, or read more of a header than its
// right end.
package clientip

import (
	"net/netip"
	"strings"
)

// Only the right end of X-Forwarded-For is read, where the nearest proxies write. No real chain has 64
// proxies, and 4 KiB hold that many of the longest entries ("[…39 characters]:65535").
const (
	maxHops  = 64
	maxChain = 4 << 10
)

// noAddress is the key of all clients whose address is unknown: one client.
const noAddress = "no address"

// The headers that hold a list, in the form of net/http's keys. CLIENT_IP_HEADER has that form too.
const (
	xForwardedFor = "X-Forwarded-For"
	forwarded     = "Forwarded"
)

// Rule says which peers are trusted about their clients. The zero Rule trusts none.
type Rule struct {
	trusted []netip.Prefix // the trusted proxies, as peers and as hops
	anybody bool           // every peer is trusted
	hops    int            // the client's place in the list, from the right; 0: the first that is not trusted
	header  string         // that has the client's address; "": X-Forwarded-For
}

// Source is where a client's address was taken from.
type Source int

// The sources. For the last three, all clients of a proxy may count as one.
const (
	Connection Source = iota // the peer, which says nothing of another client
	Header                   // a header that a trusted peer has written
	NotTrusted               // the peer, which is not trusted and has written a forwarding header
	Missing                  // the peer, which is trusted and has not written the header
	Unusable                 // the peer or a hop, because the list left of it is too short or broken
	Sources                  // the number of sources
)

// String returns the name of a source in metrics.
func (s Source) String() string {
	return [Sources]string{"connection", "header", "not_trusted", "missing", "unusable"}[s]
}

// Client returns the key by which a client is counted, and its source. The key is an IPv4 address, or the /64
// of an IPv6 address, because one customer gets a whole /64. remoteAddr is http.Request.RemoteAddr, header
// http.Request.Header.
func (r *Rule) Client(remoteAddr string, header map[string][]string) (key string, source Source) {
	f := r.find(remoteAddr, header)
	return f.key(), f.source
}

// found is an address, and how it was found.
type found struct {
	addr   netip.Addr // invalid where it is unknown
	source Source
	why    reason
}

func (f found) key() string {
	switch {
	case !f.addr.IsValid():
		return noAddress
	case f.addr.Is4():
		return f.addr.String()
	default:
		return netip.PrefixFrom(f.addr, 64).Masked().String()
	}
}

func (r *Rule) find(remoteAddr string, header map[string][]string) found {
	peer := parseHop(remoteAddr)
	switch {
	case !r.believes(peer):
		if r.forwards(header) {
			return found{peer, NotTrusted, peerNotTrusted}
		}
		return found{peer, Connection, peerAlone}
	case r.header != "" && r.header != forwarded:
		return readSingle(peer, header[r.header])
	}
	if r.hops > 0 {
		return r.count(peer, header[r.list()])
	}
	return r.walk(peer, header[r.list()])
}

// list returns the name of the header that has the list of hops.
func (r *Rule) list() string {
	if r.header == forwarded {
		return forwarded
	}
	return xForwardedFor
}

func (r *Rule) believes(peer netip.Addr) bool { return r.anybody || r.trusts(peer) }

func (r *Rule) trusts(addr netip.Addr) bool {
	for _, prefix := range r.trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// readSingle reads a header of one address. Two lines are as unusable as none: they name two clients.
func readSingle(peer netip.Addr, lines []string) found {
	switch {
	case len(lines) == 0:
		return found{peer, Missing, headerMissing}
	case len(lines) > 1:
		return found{peer, Unusable, headerTwice}
	}
	if client := parseHop(strings.Trim(lines[0], " \t")); client.IsValid() {
		return found{client, Header, single}
	}
	return found{peer, Unusable, headerBroken}
}

// walk goes from the peer to the left as long as hops are trusted. It ends at an entry that is no address,
// because the client itself may have written all that is left of that. Empty entries do not count (RFC 9110,
// section 5.6.1.2).
func (r *Rule) walk(peer netip.Addr, lines []string) found {
	f := found{peer, Missing, headerMissing}
	list := r.entries(lines)
	for entry, more := list.next(); more; entry, more = list.next() {
		if entry == "" {
			continue
		}
		hop := parseHop(entry)
		if !hop.IsValid() {
			f.source, f.why = Unusable, listBroken
			return f
		}
		if f = (found{hop, Header, rightmost}); !r.trusts(hop) {
			return f
		}
		f.why = allTrusted
	}
	return f
}

// count takes the entry at the client's place, if all entries right of it are addresses too. An empty entry
// makes the list unusable here: a proxy may have written it or not, so the client's place is unknown.
func (r *Rule) count(peer netip.Addr, lines []string) found {
	if len(lines) == 0 {
		return found{peer, Missing, headerMissing}
	}
	list := r.entries(lines)
	place := 0
	for entry, more := list.next(); more; entry, more = list.next() {
		hop := parseHop(entry)
		if !hop.IsValid() {
			return found{peer, Unusable, listBroken}
		}
		if place++; place == r.hops {
			return found{hop, Header, counted}
		}
	}
	return found{peer, Unusable, listShort}
}

// entries iterates over the entries of all lines of a list, the last first.
type entries struct {
	forwarded bool
	lines     []string // that were not begun
	line      string   // of X-Forwarded-For: what is left of the line that was begun
	nodes     []string // of Forwarded: likewise
	begun     bool
	bytes     int // that may still be looked at
	hops      int // that were seen
}

func (r *Rule) entries(lines []string) entries {
	return entries{forwarded: r.header == forwarded, lines: lines, bytes: maxChain}
}

// beyond is the entry in place of everything that is too long to be read, or no list. It is no address, so the
// search ends there.
const beyond = "beyond"

// next returns the entry to the left of the one before. It returns none after beyond.
func (e *entries) next() (entry string, more bool) {
	if !e.begun {
		if len(e.lines) == 0 {
			return "", false
		}
		e.line, e.lines, e.begun = e.lines[len(e.lines)-1], e.lines[:len(e.lines)-1], true
		if e.forwarded {
			e.bytes -= len(e.line) + 1
			ok := e.bytes >= 0
			if ok {
				e.nodes, ok = parseForwarded(e.line)
			}
			if !ok {
				return e.end()
			}
		}
	}
	if e.forwarded {
		entry = e.nextNode()
	} else {
		entry = e.nextOfLine()
	}
	if entry != "" {
		e.hops++
	}
	if e.hops > maxHops || e.bytes < 0 {
		return e.end()
	}
	return entry, true
}

func (e *entries) end() (entry string, more bool) {
	e.lines, e.begun = nil, false
	return beyond, true
}

func (e *entries) nextOfLine() string {
	// One byte more than an entry may have, so that a longer one is refused, and not cut into a valid one.
	start := max(0, len(e.line)-e.bytes-1)
	comma := strings.LastIndexByte(e.line[start:], ',')
	switch {
	case comma >= 0:
		start += comma + 1
	case start > 0:
		e.bytes = -1
		return ""
	default:
		e.begun = false // the line's first entry
	}
	entry := strings.Trim(e.line[start:], " \t")
	e.bytes -= len(e.line) - start + 1
	e.line = e.line[:max(0, start-1)]
	return entry
}

func (e *entries) nextNode() string {
	if len(e.nodes) == 0 { // an empty line
		e.begun = false
		return ""
	}
	entry := e.nodes[len(e.nodes)-1]
	e.nodes = e.nodes[:len(e.nodes)-1]
	e.begun = len(e.nodes) > 0
	return entry
}

// parseHop reads an address with or without a port, as connections and proxies
// write them: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1] and
// [2001:db8::1]:80. It returns the zero Addr for anything else.
func parseHop(s string) netip.Addr {
	withPort, err := netip.ParseAddrPort(s) // as every peer is written
	addr := withPort.Addr()
	if err != nil {
		addr, err = netip.ParseAddr(s)
	}
	if inner, ok := strings.CutPrefix(s, "["); ok && err != nil {
		if inner, ok = strings.CutSuffix(inner, "]"); ok && strings.Contains(inner, ":") {
			addr, err = netip.ParseAddr(inner)
		}
	}
	if err != nil {
		return netip.Addr{}
	}
	// A socket for both kinds has ::ffff:192.0.2.1 for 192.0.2.1. A zone names an interface of a machine, and
	// does not tell clients apart.
	return addr.Unmap().WithZone("")
}
