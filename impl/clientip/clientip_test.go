package clientip

import (
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"testing"
)

func mustNew(tb testing.TB, c Config) *Rule {
	tb.Helper()
	r, wrong := New(c)
	if len(wrong) > 0 {
		tb.Fatal(wrong)
	}
	return &r
}

func mustTrust(tb testing.TB, networks string) *Rule {
	tb.Helper()
	return mustNew(tb, Config{TrustedProxies: networks})
}

// client returns the key of a request with these lines of X-Forwarded-For.
func (r *Rule) client(remoteAddr string, lines []string) (string, Source) {
	return r.Client(remoteAddr, map[string][]string{"X-Forwarded-For": lines})
}

func TestRightmost(t *testing.T) {
	const proxies = "10.0.0.0/8, 192.0.2.1, 2001:db8:aaaa::/48"
	long := strings.Repeat("9", 5000)
	for _, tt := range []struct {
		name, trusted, remote string
		header                []string
		want                  string
	}{
		{name: "no proxy", trusted: "", remote: "203.0.113.9:4711", header: nil, want: "203.0.113.9"},
		{name: "no proxy, header", trusted: "", remote: "203.0.113.9:4711", header: []string{"198.51.100.1"}, want: "203.0.113.9"},
		{name: "stranger with a header", trusted: proxies, remote: "203.0.113.9:4711", header: []string{"198.51.100.1"}, want: "203.0.113.9"},
		{name: "stranger as a trusted hop", trusted: proxies, remote: "203.0.113.9:4711", header: []string{"10.0.0.1"}, want: "203.0.113.9"},
		{name: "one proxy", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.51.100.1"}, want: "198.51.100.1"},
		{name: "two proxies", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.51.100.1, 192.0.2.1"}, want: "198.51.100.1"},
		{name: "made up by the client", trusted: proxies, remote: "10.1.2.3:80", header: []string{"1.1.1.1, 10.9.9.9, 198.51.100.1, 192.0.2.1"}, want: "198.51.100.1"},
		{name: "several lines", trusted: proxies, remote: "10.1.2.3:80", header: []string{"1.1.1.1", "198.51.100.1, 10.0.0.7", "192.0.2.1"}, want: "198.51.100.1"},
		{name: "line of the client's, line of the proxy's", trusted: proxies, remote: "10.1.2.3:80", header: []string{"1.1.1.1", "198.51.100.1"}, want: "198.51.100.1"},
		{name: "all trusted: leftmost", trusted: proxies, remote: "10.1.2.3:80", header: []string{"10.0.0.5, 10.0.0.6"}, want: "10.0.0.5"},
		{name: "empty entries", trusted: proxies, remote: "10.1.2.3:80", header: []string{" , ,198.51.100.1,, ", "", " "}, want: "198.51.100.1"},
		{name: "spaces", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.51.100.1\t,  192.0.2.1 "}, want: "198.51.100.1"},

		{name: "port", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.51.100.1:1234"}, want: "198.51.100.1"},
		{name: "trusted with port", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.51.100.1:1234, 192.0.2.1:80"}, want: "198.51.100.1"},
		{name: "IPv6", trusted: proxies, remote: "10.1.2.3:80", header: []string{"2001:db8:1:2:3:4:5:6"}, want: "2001:db8:1:2::/64"},
		{name: "IPv6 in brackets", trusted: proxies, remote: "10.1.2.3:80", header: []string{"[2001:db8:1:2:3:4:5:6]"}, want: "2001:db8:1:2::/64"},
		{name: "IPv6 and port", trusted: proxies, remote: "10.1.2.3:80", header: []string{"[2001:db8:1:2:3:4:5:6]:443"}, want: "2001:db8:1:2::/64"},
		{name: "IPv6 with a zone", trusted: proxies, remote: "10.1.2.3:80", header: []string{"[fe80::1%eth0]:443"}, want: "fe80::/64"},
		{name: "IPv6 with a zone, bare", trusted: proxies, remote: "10.1.2.3:80", header: []string{"fe80::1%x"}, want: "fe80::/64"},
		{name: "IPv6 proxy", trusted: proxies, remote: "[2001:db8:aaaa::1]:80", header: []string{"198.51.100.1, 2001:db8:aaaa:1::5"}, want: "198.51.100.1"},
		{name: "IPv6 proxy with a zone", trusted: "fe80::/10", remote: "[fe80::1%eth0]:80", header: []string{"198.51.100.1"}, want: "198.51.100.1"},
		{name: "IPv6 peer", trusted: "", remote: "[2001:db8:1:2:3:4:5:6]:99", header: nil, want: "2001:db8:1:2::/64"},
		{name: "same /64", trusted: "", remote: "[2001:db8:1:2:ffff::1]:99", header: nil, want: "2001:db8:1:2::/64"},
		{name: "next /64", trusted: "", remote: "[2001:db8:1:3::1]:99", header: nil, want: "2001:db8:1:3::/64"},
		{name: "mapped peer", trusted: "", remote: "[::ffff:203.0.113.9]:99", header: nil, want: "203.0.113.9"},
		{name: "mapped proxy", trusted: proxies, remote: "[::ffff:10.0.0.1]:99", header: []string{"::ffff:198.51.100.1"}, want: "198.51.100.1"},
		{name: "mapped hop with port", trusted: proxies, remote: "10.0.0.1:99", header: []string{"198.51.100.1, [::ffff:192.0.2.1]:1"}, want: "198.51.100.1"},
		{name: "mapped trusted prefix", trusted: "::ffff:10.0.0.0/104", remote: "10.0.0.1:99", header: []string{"198.51.100.1"}, want: "198.51.100.1"},

		{name: "broken: the proxy", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.51.100.1, unknown"}, want: "10.1.2.3"},
		{name: "broken beyond a trusted hop", trusted: proxies, remote: "10.1.2.3:80", header: []string{"1.1.1.1, x, 192.0.2.1"}, want: "192.0.2.1"},
		{name: "broken beyond the client", trusted: proxies, remote: "10.1.2.3:80", header: []string{"<x>, 198.51.100.1"}, want: "198.51.100.1"},
		{name: "bad port", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.51.100.1:99999"}, want: "10.1.2.3"},
		{name: "no port", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.51.100.1:"}, want: "10.1.2.3"},
		{name: "IPv4 in brackets", trusted: proxies, remote: "10.1.2.3:80", header: []string{"[198.51.100.1]"}, want: "10.1.2.3"},
		{name: "half a bracket", trusted: proxies, remote: "10.1.2.3:80", header: []string{"[2001:db8::1"}, want: "10.1.2.3"},
		{name: "leading zeros", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.051.100.001"}, want: "10.1.2.3"},
		{name: "quoted", trusted: proxies, remote: "10.1.2.3:80", header: []string{`"198.51.100.1"`}, want: "10.1.2.3"},
		{name: "semicolons", trusted: proxies, remote: "10.1.2.3:80", header: []string{"1.1.1.1; 198.51.100.1"}, want: "10.1.2.3"},
		{name: "NUL", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.51.100.1\x00"}, want: "10.1.2.3"},

		{name: "long, at the left", trusted: proxies, remote: "10.1.2.3:80", header: []string{long + ",198.51.100.1"}, want: "198.51.100.1"},
		{name: "long, at the right", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.51.100.1," + long}, want: "10.1.2.3"},
		{name: "long, one address cut", trusted: proxies, remote: "10.1.2.3:80", header: []string{strings.Repeat(" ", 5000) + "198.51.100.1"}, want: "10.1.2.3"},
		{name: "64 hops", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.51.100.1" + strings.Repeat(",10.0.0.1", 63)}, want: "198.51.100.1"},
		{name: "65 hops", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.51.100.1" + strings.Repeat(",10.0.0.1", 64)}, want: "10.0.0.1"},
		{name: "65 lines", trusted: proxies, remote: "10.1.2.3:80", header: append([]string{"198.51.100.1"}, slices.Repeat([]string{"10.0.0.1"}, 64)...), want: "10.0.0.1"},
		{name: "64 long hops", trusted: "2001:db8:aaaa::/48", remote: "[2001:db8:aaaa::1]:80", header: []string{"198.51.100.1" +
			strings.Repeat(",[2001:0db8:aaaa:0000:0000:0000:0000:0001]:65535", 63)}, want: "198.51.100.1"},
		{name: "commas", trusted: proxies, remote: "10.1.2.3:80", header: []string{"198.51.100.1" + strings.Repeat(",", 5000) + "192.0.2.1"}, want: "192.0.2.1"},

		{name: "no address", trusted: proxies, remote: "", header: []string{"198.51.100.1"}, want: noAddress},
		{name: "a socket", trusted: proxies, remote: "@", header: []string{"198.51.100.1"}, want: noAddress},
		{name: "a name", trusted: proxies, remote: "localhost:80", header: []string{"198.51.100.1"}, want: noAddress},
		{name: "without port", trusted: "", remote: "203.0.113.9", header: nil, want: "203.0.113.9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, source := mustTrust(t, tt.trusted).client(tt.remote, tt.header)
			if got != tt.want || source == Missing {
				t.Errorf("got %q from %v, want %q", got, source, tt.want)
			}
		})
	}
}

func TestSource(t *testing.T) {
	const proxies = "10.0.0.0/8"
	for _, tt := range []struct {
		remote string
		header map[string][]string
		want   Source
	}{
		{remote: "10.0.0.1:80", header: nil, want: Missing},
		{remote: "10.0.0.1:80", header: map[string][]string{"X-Forwarded-For": {"", " , "}}, want: Missing},
		{remote: "10.0.0.1:80", header: map[string][]string{"X-Real-Ip": {"198.51.100.1"}}, want: Missing},
		{remote: "10.0.0.1:80", header: map[string][]string{"X-Forwarded-For": {"x"}}, want: Unusable},
		{remote: "10.0.0.1:80", header: map[string][]string{"X-Forwarded-For": {"198.51.100.1, x, 10.0.0.2"}}, want: Unusable},
		{remote: "10.0.0.1:80", header: map[string][]string{"X-Forwarded-For": {"10.0.0.2"}}, want: Header},
		{remote: "10.0.0.1:80", header: map[string][]string{"X-Forwarded-For": {"x, 198.51.100.1"}}, want: Header},
		{remote: "203.0.113.9:80", header: nil, want: Connection},
		{remote: "203.0.113.9:80", header: map[string][]string{"Accept": {"*/*"}}, want: Connection},
		{remote: "203.0.113.9:80", header: map[string][]string{"X-Forwarded-For": {"198.51.100.1"}}, want: NotTrusted},
		{remote: "203.0.113.9:80", header: map[string][]string{"Cf-Connecting-Ip": {"198.51.100.1"}}, want: NotTrusted},
		{remote: "@", header: nil, want: Connection},
	} {
		if _, got := mustTrust(t, proxies).Client(tt.remote, tt.header); got != tt.want {
			t.Errorf("%s, %q: %v, want %v", tt.remote, tt.header, got, tt.want)
		}
	}
}

// TestHops: the hop is counted from the right, for any peer. If the list is too short or broken, the
// peer is the client.
func TestHops(t *testing.T) {
	long := strings.Repeat("9", 5000)
	for _, tt := range []struct {
		name    string
		hops    int
		trusted string
		remote  string
		lines   []string
		want    string
		source  Source
	}{
		{name: "one", hops: 1, trusted: "", remote: "203.0.113.9:80", lines: []string{"1.1.1.1, 198.51.100.1"}, want: "198.51.100.1", source: Header},
		{name: "two", hops: 2, trusted: "", remote: "203.0.113.9:80", lines: []string{"1.1.1.1, 198.51.100.1, 192.0.2.7"}, want: "198.51.100.1", source: Header},
		{name: "two, the nearest private", hops: 2, trusted: "", remote: "10.0.0.1:80", lines: []string{"1.1.1.1, 198.51.100.1, 10.0.0.7"}, want: "198.51.100.1", source: Header},
		{name: "over lines", hops: 2, trusted: "all", remote: "203.0.113.9:80", lines: []string{"1.1.1.1", "198.51.100.1", "192.0.2.7"}, want: "198.51.100.1", source: Header},
		{name: "with ports", hops: 2, trusted: "all", remote: "203.0.113.9:80", lines: []string{"198.51.100.1:4711, 192.0.2.7:80"}, want: "198.51.100.1", source: Header},
		{name: "IPv6", hops: 1, trusted: "all", remote: "[2001:db8::1]:80", lines: []string{"1.1.1.1, 2001:db8:1:2:3::4"}, want: "2001:db8:1:2::/64", source: Header},
		{name: "IPv6 with port", hops: 1, trusted: "all", remote: "[2001:db8::1]:80", lines: []string{"[2001:db8:1:2:3::4]:443"}, want: "2001:db8:1:2::/64", source: Header},
		{name: "a trusted client is the client", hops: 1, trusted: "private", remote: "10.0.0.1:80", lines: []string{"1.1.1.1, 10.0.0.9"}, want: "10.0.0.9", source: Header},
		{name: "64", hops: 64, trusted: "", remote: "203.0.113.9:80", lines: []string{"198.51.100.1" + strings.Repeat(", 10.0.0.1", 63)}, want: "198.51.100.1", source: Header},
		{name: "long, at the left", hops: 1, trusted: "", remote: "203.0.113.9:80", lines: []string{long + ", 198.51.100.1"}, want: "198.51.100.1", source: Header},

		{name: "peer that is not trusted", hops: 1, trusted: "10.0.0.0/8", remote: "203.0.113.9:80", lines: []string{"198.51.100.1"}, want: "203.0.113.9", source: NotTrusted},
		{name: "none", hops: 1, trusted: "", remote: "203.0.113.9:80", lines: nil, want: "203.0.113.9", source: Missing},
		{name: "empty", hops: 1, trusted: "", remote: "203.0.113.9:80", lines: []string{""}, want: "203.0.113.9", source: Unusable},
		{name: "short", hops: 2, trusted: "", remote: "203.0.113.9:80", lines: []string{"198.51.100.1"}, want: "203.0.113.9", source: Unusable},
		{name: "short over lines", hops: 3, trusted: "", remote: "203.0.113.9:80", lines: []string{"198.51.100.1", "192.0.2.7"}, want: "203.0.113.9", source: Unusable},
		{name: "broken", hops: 1, trusted: "", remote: "203.0.113.9:80", lines: []string{"198.51.100.1, unknown"}, want: "203.0.113.9", source: Unusable},
		{name: "broken at its right", hops: 2, trusted: "", remote: "203.0.113.9:80", lines: []string{"198.51.100.1, unknown"}, want: "203.0.113.9", source: Unusable},
		{name: "broken further left", hops: 1, trusted: "", remote: "203.0.113.9:80", lines: []string{"unknown, 198.51.100.1"}, want: "198.51.100.1", source: Header},
		{name: "an empty entry", hops: 1, trusted: "", remote: "203.0.113.9:80", lines: []string{"198.51.100.1, "}, want: "203.0.113.9", source: Unusable},
		{name: "an empty entry between", hops: 2, trusted: "", remote: "203.0.113.9:80", lines: []string{"198.51.100.1, , 192.0.2.7"}, want: "203.0.113.9", source: Unusable},
		{name: "an empty line", hops: 1, trusted: "", remote: "203.0.113.9:80", lines: []string{"198.51.100.1", ""}, want: "203.0.113.9", source: Unusable},
		{name: "long", hops: 1, trusted: "", remote: "203.0.113.9:80", lines: []string{"198.51.100.1," + long}, want: "203.0.113.9", source: Unusable},
		{name: "no address of its own", hops: 1, trusted: "", remote: "@", lines: []string{"198.51.100.1"}, want: "198.51.100.1", source: Header},
		{name: "no address at all", hops: 1, trusted: "", remote: "@", lines: nil, want: noAddress, source: Missing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := mustNew(t, Config{TrustedHops: tt.hops, TrustedProxies: tt.trusted})
			if got, source := r.client(tt.remote, tt.lines); got != tt.want || source != tt.source {
				t.Errorf("got %q from %v, want %q from %v", got, source, tt.want, tt.source)
			}
		})
	}
}

// TestSingle: the header's one address is the client. If there are two, or the one is invalid, the peer is.
func TestSingle(t *testing.T) {
	for _, name := range []string{"Fly-Client-IP", "CF-Connecting-IP", "x-real-ip", "True-Client-IP", "X-Envoy-External-Address", "X-My-Own"} {
		r := mustNew(t, Config{TrustedProxies: "private", ClientIPHeader: name})
		key := textproto.CanonicalMIMEHeaderKey(name)
		for _, tt := range []struct {
			name   string
			remote string
			lines  []string
			want   string
			source Source
		}{
			{name: "plain", remote: "10.0.0.1:80", lines: []string{"198.51.100.1"}, want: "198.51.100.1", source: Header},
			{name: "blanks", remote: "10.0.0.1:80", lines: []string{" 198.51.100.1\t"}, want: "198.51.100.1", source: Header},
			{name: "port", remote: "10.0.0.1:80", lines: []string{"198.51.100.1:4711"}, want: "198.51.100.1", source: Header},
			{name: "IPv6", remote: "10.0.0.1:80", lines: []string{"2001:db8:1:2:3::4"}, want: "2001:db8:1:2::/64", source: Header},
			{name: "IPv6 with port", remote: "10.0.0.1:80", lines: []string{"[2001:db8:1:2:3::4]:443"}, want: "2001:db8:1:2::/64", source: Header},
			{name: "mapped", remote: "10.0.0.1:80", lines: []string{"::ffff:198.51.100.1"}, want: "198.51.100.1", source: Header},
			{name: "a trusted client", remote: "10.0.0.1:80", lines: []string{"10.0.0.9"}, want: "10.0.0.9", source: Header},
			{name: "peer that is not trusted", remote: "203.0.113.9:80", lines: []string{"198.51.100.1"}, want: "203.0.113.9", source: NotTrusted},
			{name: "none", remote: "10.0.0.1:80", lines: nil, want: "10.0.0.1", source: Missing},
			{name: "twice", remote: "10.0.0.1:80", lines: []string{"198.51.100.1", "198.51.100.2"}, want: "10.0.0.1", source: Unusable},
			{name: "twice the same", remote: "10.0.0.1:80", lines: []string{"198.51.100.1", "198.51.100.1"}, want: "10.0.0.1", source: Unusable},
			{name: "a list", remote: "10.0.0.1:80", lines: []string{"198.51.100.1, 198.51.100.2"}, want: "10.0.0.1", source: Unusable},
			{name: "empty", remote: "10.0.0.1:80", lines: []string{""}, want: "10.0.0.1", source: Unusable},
			{name: "blank", remote: "10.0.0.1:80", lines: []string{" \t "}, want: "10.0.0.1", source: Unusable},
			{name: "unknown", remote: "10.0.0.1:80", lines: []string{"unknown"}, want: "10.0.0.1", source: Unusable},
			{name: "junk after the address", remote: "10.0.0.1:80", lines: []string{"198.51.100.1x"}, want: "10.0.0.1", source: Unusable},
			{name: "long", remote: "10.0.0.1:80", lines: []string{"198.51.100.1" + strings.Repeat(" 9", 5000)}, want: "10.0.0.1", source: Unusable},
		} {
			t.Run(name+", "+tt.name, func(t *testing.T) {
				header := map[string][]string{"X-Forwarded-For": {"1.1.1.1"}, "Via": {"1.1 proxy"}}
				if tt.lines != nil {
					header[key] = tt.lines
				}
				if got, source := r.Client(tt.remote, header); got != tt.want || source != tt.source {
					t.Errorf("got %q from %v, want %q from %v", got, source, tt.want, tt.source)
				}
			})
		}
	}
}

// TestForwarded: the list of RFC 7239 is read like X-Forwarded-For.
func TestForwarded(t *testing.T) {
	walk := mustNew(t, Config{TrustedProxies: "10.0.0.0/8,2001:db8:aaaa::/48", ClientIPHeader: "Forwarded"})
	one := mustNew(t, Config{TrustedHops: 1, ClientIPHeader: "forwarded"})
	two := mustNew(t, Config{TrustedHops: 2, TrustedProxies: "all", ClientIPHeader: "forwarded"})
	for _, tt := range []struct {
		name   string
		rule   *Rule
		lines  []string
		want   string
		source Source
	}{
		{name: "RFC, section 4", rule: walk, lines: []string{"for=192.0.2.60;proto=http;by=203.0.113.43"}, want: "192.0.2.60", source: Header},
		{name: "two elements", rule: walk, lines: []string{"for=192.0.2.43, for=198.51.100.17"}, want: "198.51.100.17", source: Header},
		{name: "two elements, without blank", rule: walk, lines: []string{"for=192.0.2.43,for=10.0.0.2"}, want: "192.0.2.43", source: Header},
		{name: "lines are one list", rule: walk, lines: []string{"for=192.0.2.43", "for=10.0.0.3", "for=10.0.0.2;proto=https"}, want: "192.0.2.43", source: Header},
		{name: "IPv6", rule: walk, lines: []string{`for="[2001:db8:cafe:1::17]"`}, want: "2001:db8:cafe:1::/64", source: Header},
		{name: "IPv6 with port, upper case", rule: walk, lines: []string{`For="[2001:DB8:cafe:1::17]:4711"`}, want: "2001:db8:cafe:1::/64", source: Header},
		{name: "IPv6 proxy", rule: walk, lines: []string{`for=192.0.2.43, for="[2001:db8:aaaa::1]"`}, want: "192.0.2.43", source: Header},
		{name: "mapped", rule: walk, lines: []string{`for="[::ffff:192.0.2.43]"`}, want: "192.0.2.43", source: Header},
		{name: "port", rule: walk, lines: []string{`for="192.0.2.43:47011"`}, want: "192.0.2.43", source: Header},
		{name: "obfuscated port", rule: walk, lines: []string{`for="192.0.2.43:_mk-1"`}, want: "192.0.2.43", source: Header},
		{name: "obfuscated port, IPv6", rule: walk, lines: []string{`for="[2001:db8:cafe:1::17]:_x.y"`}, want: "2001:db8:cafe:1::/64", source: Header},
		{name: "escaped", rule: walk, lines: []string{`for="192.0.2.\43"`}, want: "192.0.2.43", source: Header},
		{name: "comma in quotes", rule: walk, lines: []string{`for=192.0.2.43;host="a, for=1.1.1.1"`}, want: "192.0.2.43", source: Header},
		{name: "quote in quotes", rule: walk, lines: []string{`for=192.0.2.43;host="a\", for=1.1.1.1"`}, want: "192.0.2.43", source: Header},
		{name: "empty pairs", rule: walk, lines: []string{";for=192.0.2.43;;proto=http;"}, want: "192.0.2.43", source: Header},
		{name: "empty elements", rule: walk, lines: []string{", for=192.0.2.43, ,", ""}, want: "192.0.2.43", source: Header},
		{name: "blanks around semicolons", rule: walk, lines: []string{"by=10.0.0.9 ;\tfor=192.0.2.43 ; proto=http"}, want: "192.0.2.43", source: Header},
		{name: "port without quotes", rule: walk, lines: []string{"for=192.0.2.43:80"}, want: "192.0.2.43", source: Header},
		{name: "IPv6 without quotes", rule: walk, lines: []string{"for=[2001:db8:cafe:1::17]:80;proto=http"}, want: "2001:db8:cafe:1::/64", source: Header},
		{name: "all trusted", rule: walk, lines: []string{"for=10.0.0.5, for=10.0.0.6"}, want: "10.0.0.5", source: Header},
		{name: "broken line further left", rule: walk, lines: []string{`for="`, "for=192.0.2.43"}, want: "192.0.2.43", source: Header},

		{name: "missing", rule: walk, lines: nil, want: "10.1.2.3", source: Missing},
		{name: "unknown", rule: walk, lines: []string{"for=1.1.1.1, for=unknown"}, want: "10.1.2.3", source: Unusable},
		{name: "obfuscated", rule: walk, lines: []string{"for=1.1.1.1, for=_hidden"}, want: "10.1.2.3", source: Unusable},
		{name: "obfuscated in quotes", rule: walk, lines: []string{`for="_SEVKISEK"`}, want: "10.1.2.3", source: Unusable},
		{name: "obfuscated behind a proxy", rule: walk, lines: []string{"for=1.1.1.1, for=_hidden, for=10.0.0.6"}, want: "10.0.0.6", source: Unusable},
		{name: "no for", rule: walk, lines: []string{"for=1.1.1.1, by=10.0.0.9;proto=http"}, want: "10.1.2.3", source: Unusable},
		{name: "for twice", rule: walk, lines: []string{"for=1.1.1.1;for=192.0.2.43"}, want: "10.1.2.3", source: Unusable},
		{name: "for twice in the element of the proxy", rule: walk, lines: []string{"for=10.0.0.5;FOR=1.1.1.1"}, want: "10.1.2.3", source: Unusable},
		{name: "open quote", rule: walk, lines: []string{`for="192.0.2.43`}, want: "10.1.2.3", source: Unusable},
		{name: "open quote of the client's", rule: walk, lines: []string{`for=1.1.1.1;x=", for=192.0.2.43`}, want: "10.1.2.3", source: Unusable},
		{name: "open quote of the client's, closed by the proxy", rule: walk, lines: []string{`for=1.1.1.1;x=", for="[2001:db8:cafe:1::17]"`}, want: "10.1.2.3", source: Unusable},
		{name: "open quote of the client's, and its host", rule: walk, lines: []string{`for=1.1.1.1;x=", for=192.0.2.43;host=",for=1.1.1.1;y="`}, want: "10.1.2.3", source: Unusable},
		{name: "backslash at the end", rule: walk, lines: []string{`for="192.0.2.43\`}, want: "10.1.2.3", source: Unusable},
		{name: "junk behind quotes", rule: walk, lines: []string{`for="192.0.2.43"x`}, want: "10.1.2.3", source: Unusable},
		{name: "X-Forwarded-For's form", rule: walk, lines: []string{"1.1.1.1, 192.0.2.43"}, want: "10.1.2.3", source: Unusable},
		{name: "blank before the value", rule: walk, lines: []string{"for= 192.0.2.43"}, want: "10.1.2.3", source: Unusable},
		{name: "no value", rule: walk, lines: []string{"for="}, want: "10.1.2.3", source: Unusable},
		{name: "IPv4 in brackets", rule: walk, lines: []string{`for="[192.0.2.43]"`}, want: "10.1.2.3", source: Unusable},
		{name: "long", rule: walk, lines: []string{"for=192.0.2.43;x=" + strings.Repeat("9", 5000)}, want: "10.1.2.3", source: Unusable},
		{name: "65 hops", rule: walk, lines: []string{"for=192.0.2.43" + strings.Repeat(",for=10.0.0.1", 64)}, want: "10.0.0.1", source: Unusable},

		{name: "counted", rule: one, lines: []string{"for=1.1.1.1, for=192.0.2.43;proto=https"}, want: "192.0.2.43", source: Header},
		{name: "second", rule: two, lines: []string{"for=1.1.1.1, for=192.0.2.43", `for="10.0.0.9:80"`}, want: "192.0.2.43", source: Header},
		{name: "short", rule: two, lines: []string{"for=192.0.2.43"}, want: "10.1.2.3", source: Unusable},
		{name: "hidden at its right", rule: two, lines: []string{"for=192.0.2.43, for=unknown"}, want: "10.1.2.3", source: Unusable},
		{name: "hidden further left", rule: one, lines: []string{"for=unknown, for=192.0.2.43"}, want: "192.0.2.43", source: Header},
	} {
		t.Run(tt.name, func(t *testing.T) {
			header := map[string][]string{"X-Forwarded-For": {"1.1.1.1"}}
			if tt.lines != nil {
				header["Forwarded"] = tt.lines
			}
			if got, source := tt.rule.Client("10.1.2.3:80", header); got != tt.want || source != tt.source {
				t.Errorf("got %q from %v, want %q from %v", got, source, tt.want, tt.source)
			}
		})
	}
}

// FuzzForwarded: whatever a client writes before the proxy's element, on the same line or on other lines, it
// counts as the address that the proxy saw, or as the proxy.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{
		"", "for=1.1.1.1", `for="`, `for="\`, `x="`, `for=1.1.1.1;x="`, `"`, ";", ",", "=", "for=1.1.1.1;", `for="[::1]"`, "for=unknown",
		"for=1.1.1.1\n", "x\nfor=1.1.1.1", strings.Repeat("for=1.1.1.1,", 70), strings.Repeat("9", 5000), strings.Repeat(`"`, 9),
	} {
		f.Add(s, ",for=1.1.1.1;y=")
	}
	rules := []*Rule{
		mustNew(f, Config{TrustedProxies: "10.0.0.0/8", ClientIPHeader: "Forwarded"}),
		mustNew(f, Config{TrustedHops: 1, ClientIPHeader: "Forwarded"}),
	}
	f.Fuzz(func(t *testing.T, text, host string) {
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(host) + `"`
		for _, element := range []string{
			"for=203.0.113.9", `for="203.0.113.9:80"`, "for=203.0.113.9;host=" + quoted, "host=" + quoted + ";for=203.0.113.9;by=10.0.0.9",
		} {
			lines := strings.Split(text, "\n")
			last := slices.Clone(lines)
			last[len(last)-1] += ", " + element
			for _, lines := range [][]string{append(slices.Clone(lines), element), last} {
				for _, rule := range rules {
					if got, _ := rule.Client("10.0.0.1:80", map[string][]string{"Forwarded": lines}); got != "203.0.113.9" && got != "10.0.0.1" {
						t.Fatalf("%q is counted as %q", lines, got)
					}
				}
			}
		}
	})
}

// TestAllocations: a key costs one allocation, for its text.
func TestAllocations(t *testing.T) {
	forged := []string{strings.Repeat("1.1.1.1, ", 20) + "198.51.100.1"}
	for _, tt := range []struct {
		name   string
		config Config
		remote string
		header map[string][]string
	}{
		{name: "nobody is trusted", config: Config{}, remote: "203.0.113.9:80", header: map[string][]string{"Accept": {"*/*"}}},
		{name: "the rightmost", config: Config{TrustedProxies: "private"}, remote: "10.0.0.1:80", header: map[string][]string{"X-Forwarded-For": forged}},
		{name: "the first", config: Config{TrustedHops: 1}, remote: "10.0.0.1:80", header: map[string][]string{"X-Forwarded-For": forged}},
		{name: "a header of its own", config: Config{TrustedProxies: "all", ClientIPHeader: "Fly-Client-IP"}, remote: "10.0.0.1:80", header: map[string][]string{"Fly-Client-Ip": {"198.51.100.1"}}},
	} {
		rule := mustNew(t, tt.config)
		// One is for the key. ParseAddr allocates an error for an address with a port, as connections have.
		if got := testing.AllocsPerRun(100, func() { rule.Client(tt.remote, tt.header) }); got > 2 {
			t.Errorf("%s: %v allocations", tt.name, got)
		}
	}
}

// FuzzXForwardedFor: whatever a client writes, it counts as the address that the trusted proxy saw, or without
// a trusted proxy as the address of its connection.
func FuzzXForwardedFor(f *testing.F) {
	for _, s := range []string{
		"", "1.1.1.1", "10.0.0.1", ", ,", "[::1]:80", "[::1", "]", "[", "::ffff:10.0.0.1", "fe80::1%eth0", "%", ":", "[]:1",
		"1.1.1.1\n10.0.0.1", "x\n", "\n\n", strings.Repeat(",", 70), strings.Repeat("10.0.0.1,", 70), strings.Repeat("9", 5000),
	} {
		f.Add(s, "203.0.113.9:80")
		f.Add(s, "[2001:db8::9]:80")
		f.Add("1.1.1.1", s)
	}
	proxies := mustTrust(f, "10.0.0.0/8,fe80::/10,2001:db8:aaaa::/48")
	counting := mustNew(f, Config{TrustedHops: 1})
	f.Fuzz(func(t *testing.T, text, remote string) {
		lines := strings.Split(text, "\n")
		alone, _ := proxies.client(remote, nil)
		if alone != noAddress {
			if _, err := netip.ParseAddr(strings.TrimSuffix(alone, "/64")); err != nil {
				t.Fatalf("%q is no key: %v", alone, err)
			}
		}
		if got, _ := (&Rule{}).client(remote, lines); got != alone {
			t.Fatalf("without trusted proxies, %q from %q is counted as %q, not %q", text, remote, got, alone)
		}
		if hop := parseHop(remote); hop.IsValid() && !proxies.trusts(hop) {
			if got, source := proxies.client(remote, lines); got != alone || source == Missing {
				t.Fatalf("%q from %q is counted as %q, not %q", text, remote, got, alone)
			}
			// The proxy appends the address that it saw, to the last line or on a line of its own.
			last := slices.Clone(lines)
			last[len(last)-1] += ", " + remote
			for _, lines := range [][]string{append(slices.Clone(lines), remote), last} {
				if strings.ContainsAny(remote, ", \t") {
					continue
				}
				if got, _ := proxies.client("10.0.0.1:80", lines); got != alone {
					t.Fatalf("%q is counted as %q, not %q", lines, got, alone)
				}
				if got, _ := counting.client("8.8.8.8:80", lines); got != alone {
					t.Fatalf("%q is counted as %q, not %q, where hops are counted", lines, got, alone)
				}
			}
		}
	})
}
