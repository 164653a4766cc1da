package clientip

import (
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
)

// wellKnown are the headers in which proxies and platforms say who the client is.
var wellKnown = []string{
	xForwardedFor, forwarded, "X-Real-IP", "CF-Connecting-IP", "True-Client-IP", "Fly-Client-IP", "X-Client-IP", "X-Cluster-Client-IP",
	"Fastly-Client-IP", "X-Envoy-External-Address", "X-Azure-ClientIP", "X-AppEngine-User-IP", "DO-Connecting-IP", "Client-IP",
}

// canonical are the wellKnown headers in the form of net/http's keys.
var canonical = func() (names []string) {
	for _, name := range wellKnown {
		names = append(names, textproto.CanonicalMIMEHeaderKey(name))
	}
	return names
}()

// isForwarding is the set of canonical.
var isForwarding = func() map[string]bool {
	names := make(map[string]bool, len(canonical))
	for _, name := range canonical {
		names[name] = true
	}
	return names
}()

// forwards reports whether a request has a forwarding header. It looks at the request's headers and not for
// each name in turn, because a request has fewer headers than there are names, and each request is judged.
func (r *Rule) forwards(header map[string][]string) bool {
	for name, lines := range header {
		if len(lines) > 0 && (name == r.header || isForwarding[name]) {
			return true
		}
	}
	return false
}

// forwardingHeader returns the name of a request's forwarding header as people write it, or "" without one.
func (r *Rule) forwardingHeader(header map[string][]string) string {
	if len(header[r.header]) > 0 {
		return spelled(r.header)
	}
	for i, name := range canonical {
		if len(header[name]) > 0 {
			return wellKnown[i]
		}
	}
	return ""
}

// spelled returns a header's name as people write it.
func spelled(name string) string {
	if i := slices.Index(canonical, name); i >= 0 {
		return wellKnown[i]
	}
	return name
}

// reason says why an address is the client's.
type reason int

const (
	peerAlone reason = iota
	peerNotTrusted
	single
	headerMissing
	headerTwice
	headerBroken
	rightmost
	allTrusted
	counted
	listShort
	listBroken
)

// Explanation tells people how a client was found. Nothing in it but Client comes from the request.
type Explanation struct {
	Client string // as Client returns it
	Source Source
	Header string // the header that decided; "" for none
	Why    string
	Fix    string // what to do where all clients of a proxy count as one; "" for nothing
}

// Explain does what Client does, and says why.
func (r *Rule) Explain(remoteAddr string, header map[string][]string) Explanation {
	f := r.find(remoteAddr, header)
	e := Explanation{Client: f.key(), Source: f.source}
	switch {
	case f.why == peerNotTrusted:
		e.Header = r.forwardingHeader(header)
	case f.why == peerAlone:
	case r.header != "":
		e.Header = spelled(r.header)
	default:
		e.Header = xForwardedFor
	}
	switch f.why {
	case peerAlone:
		e.Why = "the connection's address, because it says nothing of another client"
		if !r.Set() {
			e.Why = "the connection's address, because nobody is trusted"
		}
	case peerNotTrusted:
		e.Why = "the connection's address, because it is not trusted, and what it writes in " + e.Header + " is not believed"
		e.Fix = r.adviceFor(parseHop(remoteAddr), e.Header)
	case headerMissing:
		e.Why = "the connection's address, because it is trusted and says nothing in " + e.Header
		e.Fix = "have the proxy write " + e.Header + ", or name the header that it writes (docs/platforms.md)"
	case headerTwice:
		e.Why = "the connection's address, because " + e.Header + " came twice"
		e.Fix = "have the proxy replace the " + e.Header + " that clients write"
	case headerBroken:
		e.Why = "the connection's address, because " + e.Header + " has not one address"
		e.Fix = "name a header of one address in CLIENT_IP_HEADER (docs/platforms.md)"
	case single:
		e.Why = "the address in " + e.Header
	case rightmost:
		e.Why = "the rightmost address of " + e.Header + " that is not trusted"
	case allTrusted:
		e.Why = "the leftmost address of " + e.Header + ", because all of them are trusted"
	case counted:
		e.Why = "the address of " + e.Header + " that TRUSTED_HOPS counts to, from the right"
	case listShort:
		e.Why = "the connection's address, because " + e.Header + " has fewer entries than TRUSTED_HOPS"
		e.Fix = "set TRUSTED_HOPS to the number of entries that your proxies write (docs/platforms.md)"
	case listBroken:
		e.Why = "the last address that could be read before what is none, in " + e.Header
		if r.hops > 0 {
			e.Why = "the connection's address, because " + e.Header + " has something that is no address"
		}
		e.Fix = "have the proxy write addresses in " + e.Header + ", or name another header (docs/platforms.md)"
	}
	if !f.addr.IsValid() {
		e.Client, e.Why, e.Fix = noAddress, "the connection has no IP address: all such count as one client", ""
	}
	return e
}

// adviceFor says how to trust a peer that is a proxy. It never advises to trust everybody, because the sender
// of the header may be an attacker.
func (r *Rule) adviceFor(peer netip.Addr, name string) string {
	among := func(networks []netip.Prefix) bool { return (&Rule{trusted: networks}).trusts(peer) }
	b := &strings.Builder{}
	b.WriteString("if that is your proxy, ")
	switch {
	case r.Set():
		b.WriteString("add the addresses that it connects from to TRUSTED_PROXIES")
	case among(loopback):
		b.WriteString("set TRUSTED_PROXIES=loopback")
	case among(private):
		b.WriteString("set TRUSTED_PROXIES to the networks that it connects from, or to private")
	default:
		b.WriteString("set TRUSTED_PROXIES to the addresses that it connects from")
	}
	if name != xForwardedFor && name != spelled(r.header) {
		b.WriteString(", and CLIENT_IP_HEADER=" + name + " if it replaces what clients write there")
	}
	b.WriteString(" (docs/platforms.md); if not, somebody makes it up, and nothing is to be done")
	return b.String()
}
