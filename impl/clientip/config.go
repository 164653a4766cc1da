package clientip

import (
	"errors"
	"fmt"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"

	"github.com/resetd/resetd/impl/setting"
)

// The settings that this package owns.
const (
	TrustedProxies = "TRUSTED_PROXIES"
	TrustedHops    = "TRUSTED_HOPS"
	ClientIPHeader = "CLIENT_IP_HEADER"
)

// Config has the values of the settings.
type Config struct {
	TrustedProxies string
	TrustedHops    int
	ClientIPHeader string
}

// New makes the rule, or returns all mistakes in the settings.
func New(c Config) (Rule, setting.Mistakes) {
	var wrong setting.Mistakes
	r := Rule{hops: c.TrustedHops, header: textproto.CanonicalMIMEHeaderKey(c.ClientIPHeader)}
	var faults []string
	if r.trusted, r.anybody, faults = parseTrusted(c.TrustedProxies); len(faults) > 0 {
		wrong.Add(TrustedProxies, "%s", strings.Join(faults, "; "))
	}
	if r.hops < 0 || r.hops > maxHops {
		wrong.Add(TrustedHops, "must be from 1 to %d, the client's place in X-Forwarded-For, counted from the right", maxHops)
	}
	if reason := refuseHeader(r.header); reason != "" {
		wrong.Add(ClientIPHeader, "%s", reason)
	}
	if len(wrong) > 0 {
		return Rule{}, wrong
	}

	named := r.anybody || len(r.trusted) > 0
	switch list := r.header == "" || r.header == forwarded; {
	case !list && r.hops > 0:
		wrong.Add(ClientIPHeader, "has one address, and TRUSTED_HOPS counts in a list: remove one of them")
	case !named && r.header == forwarded && r.hops == 0:
		wrong.Add(ClientIPHeader, "needs TRUSTED_PROXIES or TRUSTED_HOPS: whose Forwarded is believed, or which of its hops")
	case !named && !list:
		wrong.Add(ClientIPHeader, "needs TRUSTED_PROXIES, the addresses from which it is believed: list them, or where nobody but the platform can connect to resetd, set it to all")
	case r.anybody && list && r.hops == 0:
		wrong.Add(TrustedProxies, "all believes everybody, so that each client could make up its own address: set TRUSTED_HOPS to the number of proxies in front too, or CLIENT_IP_HEADER to the header that the platform writes, or list the proxies")
	}
	if len(wrong) > 0 {
		return Rule{}, wrong
	}
	r.anybody = r.anybody || !named && r.hops > 0
	return r, nil
}

// Set reports whether any peer is trusted.
func (r *Rule) Set() bool { return r.anybody || len(r.trusted) > 0 }

func prefixes(texts ...string) (parsed []netip.Prefix) {
	for _, text := range texts {
		parsed = append(parsed, netip.MustParsePrefix(text))
	}
	return parsed
}

// The words for networks.
var (
	loopback = prefixes("127.0.0.0/8", "::1/128")
	private  = slices.Concat(loopback, prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"))
)

const wayOut = "where the proxies' addresses cannot be known, write all, together with TRUSTED_HOPS or CLIENT_IP_HEADER"

// parseTrusted reads networks (10.0.0.0/8), single addresses and words, separated by
// commas or spaces. It reports every fault, not just the first.
func parseTrusted(s string) (trusted []netip.Prefix, anybody bool, faults []string) {
	for i, entry := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		switch strings.ToLower(entry) {
		case "loopback":
			trusted = append(trusted, loopback...)
		case "private":
			trusted = append(trusted, private...)
		case "all":
			anybody = true
		default:
			prefix, err := parsePrefix(entry)
			if err != nil {
				faults = append(faults, fmt.Sprintf("entry %d: %v", i+1, err))
				continue
			}
			trusted = append(trusted, prefix)
		}
	}
	switch {
	case len(faults) > 0:
	case anybody && len(trusted) > 0:
		faults = append(faults, "all has everything else in it: leave the others out, or all")
	case coversEverybody(trusted):
		faults = append(faults, "these networks together trust everybody, so that each client could make up its own address; "+wayOut)
	}
	return trusted, anybody, faults
}

func parsePrefix(entry string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(entry)
	if err != nil {
		addr, err := netip.ParseAddr(entry)
		if err != nil {
			return netip.Prefix{}, errors.New("want an address, a network such as 10.0.0.0/8, or one of loopback, private, all")
		}
		if addr.Zone() != "" {
			return netip.Prefix{}, errors.New("an address with a zone cannot be trusted; leave the zone out")
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("has bits set after its length; is %s meant?", prefix.Masked())
	}
	if addr := prefix.Addr(); addr.Is4In6() { // clients' addresses are compared as IPv4
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	if prefix.Bits() == 0 {
		return netip.Prefix{}, errors.New("trusts everybody, so that each client could make up its own address; " + wayOut)
	}
	return prefix, nil
}

// coversEverybody reports whether networks together have all public addresses of IPv4, or of IPv6: 0.0.0.0/1
// and 128.0.0.0/1 are 0.0.0.0/0 in two pieces.
func coversEverybody(trusted []netip.Prefix) bool {
	trusted = slices.Concat(trusted, private) // whether they are trusted too makes no difference
	slices.SortFunc(trusted, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return coversRange(trusted, netip.MustParseAddr("1.0.0.0"), netip.MustParseAddr("223.255.255.255")) ||
		coversRange(trusted, netip.MustParseAddr("2000::"), netip.MustParseAddr("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
}

// coversRange reports whether networks, sorted by their addresses, leave no gap.
func coversRange(sorted []netip.Prefix, from, to netip.Addr) bool {
	for _, prefix := range sorted {
		if prefix.Addr().BitLen() != from.BitLen() || lastOf(prefix).Less(from) {
			continue
		}
		if from.Less(prefix.Addr()) {
			return false
		}
		if from = lastOf(prefix).Next(); !from.IsValid() || to.Less(from) {
			return true
		}
	}
	return false
}

func lastOf(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

// refuseHeader returns why a header cannot hold a client's address, or "" if it can.
func refuseHeader(name string) string {
	switch {
	case name == "":
		return ""
	case token(name, "") != name || len(name) > 64:
		return "must be the name of a header, like Fly-Client-IP"
	}
	switch name {
	case xForwardedFor:
		return "X-Forwarded-For is a list, and read without this setting: remove it, and set TRUSTED_PROXIES or TRUSTED_HOPS"
	case "X-Original-Forwarded-For":
		return "X-Original-Forwarded-For is what the client has written itself: use the header that your proxy writes"
	case "Cloudfront-Viewer-Address":
		return "CloudFront-Viewer-Address has a port behind IPv6 addresses without brackets, so they cannot be told apart: use X-Forwarded-For with TRUSTED_HOPS"
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return "is about a connection, and goes no further than that (RFC 9110, section 7.6.1): use a header that has the client's address, like X-Real-IP"
	case "Host", "Via", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server", "X-Request-Id",
		"Authorization", "Cookie", "Origin", "Referer", "User-Agent", "Content-Length", "Content-Type", "Accept", "Accept-Language":
		return "does not have the client's address: use a header that has, like X-Real-IP"
	}
	return ""
}
