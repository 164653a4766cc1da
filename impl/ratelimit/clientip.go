package ratelimit

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Of an X-Forwarded-For header only the right end is looked at, where the
// proxies nearest to us write. A chain of 64 proxies is beyond any use, and 4
// KiB hold that many of the longest entries ("[…39 characters]:65535").
const (
	maxHops        = 64
	maxForwardedBy = 4 << 10
)

// noAddress is the key of all clients whose address is unknown: one client.
const noAddress = "no address"

// ClientIP finds the address that stands for a client. Nothing but the
// connection's own address and X-Forwarded-For is believed, and that header
// only as far as trusted proxies wrote it.
type ClientIP struct {
	Trusted []netip.Prefix
}

// ParseTrustedProxies reads networks (10.0.0.0/8) and single addresses,
// separated by commas or spaces. It reports every fault, not just the first.
func ParseTrustedProxies(s string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	var faults []error
	for entry := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' }) {
		prefix, err := parseTrusted(entry)
		if err != nil {
			faults = append(faults, fmt.Errorf("%q: %w", entry, err))
			continue
		}
		prefixes = append(prefixes, prefix)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return prefixes, nil
}

func parseTrusted(entry string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(entry)
	if err != nil {
		addr, err := netip.ParseAddr(entry)
		if err != nil {
			return netip.Prefix{}, errors.New("want an address, or a network such as 10.0.0.0/8")
		}
		if addr.Zone() != "" {
			return netip.Prefix{}, errors.New("an address with a zone cannot be trusted; leave the zone out")
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("has bits set after its length; is %s meant?", prefix.Masked())
	}
	if addr := prefix.Addr(); addr.Is4In6() {
		// Clients' addresses are compared as IPv4.
		if prefix.Bits() < 96 {
			return netip.Prefix{}, errors.New("write IPv4 networks as IPv4")
		}
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	if prefix.Bits() == 0 {
		return netip.Prefix{}, errors.New("trusts everybody, so that each client could make up its own address")
	}
	return prefix, nil
}

// Key returns what the client is counted by: an IPv4 address, or the /64 of an
// IPv6 address, since that is what one customer gets. remoteAddr is the
// connection's (http.Request.RemoteAddr), forwardedFor all X-Forwarded-For
// lines in their order.
//
// If the connection comes from a trusted proxy, the client is the rightmost
// hop that is not one. An entry that is no address ends the search at the last
// hop before it, because what stands left of it may be the client's own text.
// headerMissing says that a trusted proxy sent no such header: all its clients
// are counted as one, which is hardly meant.
func (c ClientIP) Key(remoteAddr string, forwardedFor []string) (key string, headerMissing bool) {
	client, ok := parseHop(remoteAddr)
	if !ok {
		return noAddress, false
	}
	headerMissing = true
	for entry := range hopsFromRight(forwardedFor) {
		if !c.trusts(client) {
			break
		}
		headerMissing = false
		hop, ok := parseHop(entry)
		if !ok {
			break
		}
		client = hop
	}
	return clientKey(client), headerMissing && c.trusts(client)
}

func (c ClientIP) trusts(addr netip.Addr) bool {
	for _, prefix := range c.Trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// hopsFromRight yields the entries of all lines, last first. Empty ones do not
// count (RFC 9110, section 5.6.1.2).
func hopsFromRight(lines []string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		hops, left := 0, maxForwardedBy
		for i := len(lines) - 1; i >= 0; i-- {
			line := lines[i]
			for line != "" {
				// One more byte than an entry may have, so that a longer one is seen to
				// be none instead of being cut to something that looks like one.
				comma := strings.LastIndexByte(line[max(0, len(line)-left):], ',')
				start := 0
				switch {
				case comma >= 0:
					start = max(0, len(line)-left) + comma + 1
				case len(line) > left:
					yield("too long")
					return
				}
				entry := strings.Trim(line[start:], " \t")
				left -= len(line) - start + 1
				line = line[:max(0, start-1)]
				if left <= 0 {
					return
				}
				if entry == "" {
					continue
				}
				if hops++; hops > maxHops || !yield(entry) {
					return
				}
			}
		}
	}
}

// parseHop reads an address with or without a port, as connections and proxies
// write them: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1] and
// [2001:db8::1]:80.
func parseHop(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		withPort, portErr := netip.ParseAddrPort(s)
		addr, err = withPort.Addr(), portErr
	}
	if inner, ok := strings.CutPrefix(s, "["); ok && err != nil {
		if inner, ok = strings.CutSuffix(inner, "]"); ok && strings.Contains(inner, ":") {
			addr, err = netip.ParseAddr(inner)
		}
	}
	// ::ffff:192.0.2.1 is 192.0.2.1 as a socket for both kinds sees it. A zone
	// is a name of an interface of ours or of somebody else, no part of who it is.
	return addr.Unmap().WithZone(""), err == nil
}

func clientKey(addr netip.Addr) string {
	if addr.Is4() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, 64).Masked().String()
}
