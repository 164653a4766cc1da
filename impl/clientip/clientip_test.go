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

// client asks with lines of X-Forwarded-For.
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
		{"no proxy", "", "203.0.113.9:4711", nil, "203.0.113.9"},
		{"no proxy, header", "", "203.0.113.9:4711", []string{"198.51.100.1"}, "203.0.113.9"},
		{"stranger with a header", proxies, "203.0.113.9:4711", []string{"198.51.100.1"}, "203.0.113.9"},
		{"stranger as a trusted hop", proxies, "203.0.113.9:4711", []string{"10.0.0.1"}, "203.0.113.9"},
		{"one proxy", proxies, "10.1.2.3:80", []string{"198.51.100.1"}, "198.51.100.1"},
		{"two proxies", proxies, "10.1.2.3:80", []string{"198.51.100.1, 192.0.2.1"}, "198.51.100.1"},
		{"made up by the client", proxies, "10.1.2.3:80", []string{"1.1.1.1, 10.9.9.9, 198.51.100.1, 192.0.2.1"}, "198.51.100.1"},
		{"several lines", proxies, "10.1.2.3:80", []string{"1.1.1.1", "198.51.100.1, 10.0.0.7", "192.0.2.1"}, "198.51.100.1"},
		{"line of the client's, line of the proxy's", proxies, "10.1.2.3:80", []string{"1.1.1.1", "198.51.100.1"}, "198.51.100.1"},
		{"all trusted: leftmost", proxies, "10.1.2.3:80", []string{"10.0.0.5, 10.0.0.6"}, "10.0.0.5"},
		{"empty entries", proxies, "10.1.2.3:80", []string{" , ,198.51.100.1,, ", "", " "}, "198.51.100.1"},
		{"spaces", proxies, "10.1.2.3:80", []string{"198.51.100.1\t,  192.0.2.1 "}, "198.51.100.1"},

		{"port", proxies, "10.1.2.3:80", []string{"198.51.100.1:1234"}, "198.51.100.1"},
		{"trusted with port", proxies, "10.1.2.3:80", []string{"198.51.100.1:1234, 192.0.2.1:80"}, "198.51.100.1"},
		{"IPv6", proxies, "10.1.2.3:80", []string{"2001:db8:1:2:3:4:5:6"}, "2001:db8:1:2::/64"},
		{"IPv6 in brackets", proxies, "10.1.2.3:80", []string{"[2001:db8:1:2:3:4:5:6]"}, "2001:db8:1:2::/64"},
		{"IPv6 and port", proxies, "10.1.2.3:80", []string{"[2001:db8:1:2:3:4:5:6]:443"}, "2001:db8:1:2::/64"},
		{"IPv6 with a zone", proxies, "10.1.2.3:80", []string{"[fe80::1%eth0]:443"}, "fe80::/64"},
		{"IPv6 with a zone, bare", proxies, "10.1.2.3:80", []string{"fe80::1%x"}, "fe80::/64"},
		{"IPv6 proxy", proxies, "[2001:db8:aaaa::1]:80", []string{"198.51.100.1, 2001:db8:aaaa:1::5"}, "198.51.100.1"},
		{"IPv6 proxy with a zone", "fe80::/10", "[fe80::1%eth0]:80", []string{"198.51.100.1"}, "198.51.100.1"},
		{"IPv6 peer", "", "[2001:db8:1:2:3:4:5:6]:99", nil, "2001:db8:1:2::/64"},
		{"same /64", "", "[2001:db8:1:2:ffff::1]:99", nil, "2001:db8:1:2::/64"},
		{"next /64", "", "[2001:db8:1:3::1]:99", nil, "2001:db8:1:3::/64"},
		{"mapped peer", "", "[::ffff:203.0.113.9]:99", nil, "203.0.113.9"},
		{"mapped proxy", proxies, "[::ffff:10.0.0.1]:99", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"mapped hop with port", proxies, "10.0.0.1:99", []string{"198.51.100.1, [::ffff:192.0.2.1]:1"}, "198.51.100.1"},
		{"mapped trusted prefix", "::ffff:10.0.0.0/104", "10.0.0.1:99", []string{"198.51.100.1"}, "198.51.100.1"},

		{"broken: the proxy", proxies, "10.1.2.3:80", []string{"198.51.100.1, unknown"}, "10.1.2.3"},
		{"broken beyond a trusted hop", proxies, "10.1.2.3:80", []string{"1.1.1.1, x, 192.0.2.1"}, "192.0.2.1"},
		{"broken beyond the client", proxies, "10.1.2.3:80", []string{"<x>, 198.51.100.1"}, "198.51.100.1"},
		{"bad port", proxies, "10.1.2.3:80", []string{"198.51.100.1:99999"}, "10.1.2.3"},
		{"no port", proxies, "10.1.2.3:80", []string{"198.51.100.1:"}, "10.1.2.3"},
		{"IPv4 in brackets", proxies, "10.1.2.3:80", []string{"[198.51.100.1]"}, "10.1.2.3"},
		{"half a bracket", proxies, "10.1.2.3:80", []string{"[2001:db8::1"}, "10.1.2.3"},
		{"leading zeros", proxies, "10.1.2.3:80", []string{"198.051.100.001"}, "10.1.2.3"},
		{"quoted", proxies, "10.1.2.3:80", []string{`"198.51.100.1"`}, "10.1.2.3"},
		{"semicolons", proxies, "10.1.2.3:80", []string{"1.1.1.1; 198.51.100.1"}, "10.1.2.3"},
		{"NUL", proxies, "10.1.2.3:80", []string{"198.51.100.1\x00"}, "10.1.2.3"},

		{"long, at the left", proxies, "10.1.2.3:80", []string{long + ",198.51.100.1"}, "198.51.100.1"},
		{"long, at the right", proxies, "10.1.2.3:80", []string{"198.51.100.1," + long}, "10.1.2.3"},
		{"long, one address cut", proxies, "10.1.2.3:80", []string{strings.Repeat(" ", 5000) + "198.51.100.1"}, "10.1.2.3"},
		{"64 hops", proxies, "10.1.2.3:80", []string{"198.51.100.1" + strings.Repeat(",10.0.0.1", 63)}, "198.51.100.1"},
		{"65 hops", proxies, "10.1.2.3:80", []string{"198.51.100.1" + strings.Repeat(",10.0.0.1", 64)}, "10.0.0.1"},
		{"65 lines", proxies, "10.1.2.3:80", append([]string{"198.51.100.1"}, slices.Repeat([]string{"10.0.0.1"}, 64)...), "10.0.0.1"},
		{"64 long hops", "2001:db8:aaaa::/48", "[2001:db8:aaaa::1]:80", []string{"198.51.100.1" +
			strings.Repeat(",[2001:0db8:aaaa:0000:0000:0000:0000:0001]:65535", 63)}, "198.51.100.1"},
		{"commas", proxies, "10.1.2.3:80", []string{"198.51.100.1" + strings.Repeat(",", 5000) + "192.0.2.1"}, "192.0.2.1"},

		{"no address", proxies, "", []string{"198.51.100.1"}, noAddress},
		{"a socket", proxies, "@", []string{"198.51.100.1"}, noAddress},
		{"a name", proxies, "localhost:80", []string{"198.51.100.1"}, noAddress},
		{"without port", "", "203.0.113.9", nil, "203.0.113.9"},
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
		{"10.0.0.1:80", nil, Missing},
		{"10.0.0.1:80", map[string][]string{"X-Forwarded-For": {"", " , "}}, Missing},
		{"10.0.0.1:80", map[string][]string{"X-Real-Ip": {"198.51.100.1"}}, Missing},
		{"10.0.0.1:80", map[string][]string{"X-Forwarded-For": {"x"}}, Unusable},
		{"10.0.0.1:80", map[string][]string{"X-Forwarded-For": {"198.51.100.1, x, 10.0.0.2"}}, Unusable},
		{"10.0.0.1:80", map[string][]string{"X-Forwarded-For": {"10.0.0.2"}}, Header},
		{"10.0.0.1:80", map[string][]string{"X-Forwarded-For": {"x, 198.51.100.1"}}, Header},
		{"203.0.113.9:80", nil, Connection},
		{"203.0.113.9:80", map[string][]string{"Accept": {"*/*"}}, Connection},
		{"203.0.113.9:80", map[string][]string{"X-Forwarded-For": {"198.51.100.1"}}, NotTrusted},
		{"203.0.113.9:80", map[string][]string{"Cf-Connecting-Ip": {"198.51.100.1"}}, NotTrusted},
		{"@", nil, Connection},
	} {
		if _, got := mustTrust(t, proxies).Client(tt.remote, tt.header); got != tt.want {
			t.Errorf("%s, %q: %v, want %v", tt.remote, tt.header, got, tt.want)
		}
	}
}

// TestHops: the place is counted from the right, of any peer, and a list that is too short or
// broken is the peer's.
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
		{"one", 1, "", "203.0.113.9:80", []string{"1.1.1.1, 198.51.100.1"}, "198.51.100.1", Header},
		{"two", 2, "", "203.0.113.9:80", []string{"1.1.1.1, 198.51.100.1, 192.0.2.7"}, "198.51.100.1", Header},
		{"two, the nearest private", 2, "", "10.0.0.1:80", []string{"1.1.1.1, 198.51.100.1, 10.0.0.7"}, "198.51.100.1", Header},
		{"over lines", 2, "all", "203.0.113.9:80", []string{"1.1.1.1", "198.51.100.1", "192.0.2.7"}, "198.51.100.1", Header},
		{"with ports", 2, "all", "203.0.113.9:80", []string{"198.51.100.1:4711, 192.0.2.7:80"}, "198.51.100.1", Header},
		{"IPv6", 1, "all", "[2001:db8::1]:80", []string{"1.1.1.1, 2001:db8:1:2:3::4"}, "2001:db8:1:2::/64", Header},
		{"IPv6 with port", 1, "all", "[2001:db8::1]:80", []string{"[2001:db8:1:2:3::4]:443"}, "2001:db8:1:2::/64", Header},
		{"a trusted client is the client", 1, "private", "10.0.0.1:80", []string{"1.1.1.1, 10.0.0.9"}, "10.0.0.9", Header},
		{"64", 64, "", "203.0.113.9:80", []string{"198.51.100.1" + strings.Repeat(", 10.0.0.1", 63)}, "198.51.100.1", Header},
		{"long, at the left", 1, "", "203.0.113.9:80", []string{long + ", 198.51.100.1"}, "198.51.100.1", Header},

		{"peer that is not trusted", 1, "10.0.0.0/8", "203.0.113.9:80", []string{"198.51.100.1"}, "203.0.113.9", NotTrusted},
		{"none", 1, "", "203.0.113.9:80", nil, "203.0.113.9", Missing},
		{"empty", 1, "", "203.0.113.9:80", []string{""}, "203.0.113.9", Unusable},
		{"short", 2, "", "203.0.113.9:80", []string{"198.51.100.1"}, "203.0.113.9", Unusable},
		{"short over lines", 3, "", "203.0.113.9:80", []string{"198.51.100.1", "192.0.2.7"}, "203.0.113.9", Unusable},
		{"broken", 1, "", "203.0.113.9:80", []string{"198.51.100.1, unknown"}, "203.0.113.9", Unusable},
		{"broken at its right", 2, "", "203.0.113.9:80", []string{"198.51.100.1, unknown"}, "203.0.113.9", Unusable},
		{"broken further left", 1, "", "203.0.113.9:80", []string{"unknown, 198.51.100.1"}, "198.51.100.1", Header},
		{"an empty entry", 1, "", "203.0.113.9:80", []string{"198.51.100.1, "}, "203.0.113.9", Unusable},
		{"an empty entry between", 2, "", "203.0.113.9:80", []string{"198.51.100.1, , 192.0.2.7"}, "203.0.113.9", Unusable},
		{"an empty line", 1, "", "203.0.113.9:80", []string{"198.51.100.1", ""}, "203.0.113.9", Unusable},
		{"long", 1, "", "203.0.113.9:80", []string{"198.51.100.1," + long}, "203.0.113.9", Unusable},
		{"no address of its own", 1, "", "@", []string{"198.51.100.1"}, "198.51.100.1", Header},
		{"no address at all", 1, "", "@", nil, noAddress, Missing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := mustNew(t, Config{TrustedHops: tt.hops, TrustedProxies: tt.trusted})
			if got, source := r.client(tt.remote, tt.lines); got != tt.want || source != tt.source {
				t.Errorf("got %q from %v, want %q from %v", got, source, tt.want, tt.source)
			}
		})
	}
}

// TestSingle: a header of one address is the client, and the peer's if there are two or it is no address.
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
			{"plain", "10.0.0.1:80", []string{"198.51.100.1"}, "198.51.100.1", Header},
			{"blanks", "10.0.0.1:80", []string{" 198.51.100.1\t"}, "198.51.100.1", Header},
			{"port", "10.0.0.1:80", []string{"198.51.100.1:4711"}, "198.51.100.1", Header},
			{"IPv6", "10.0.0.1:80", []string{"2001:db8:1:2:3::4"}, "2001:db8:1:2::/64", Header},
			{"IPv6 with port", "10.0.0.1:80", []string{"[2001:db8:1:2:3::4]:443"}, "2001:db8:1:2::/64", Header},
			{"mapped", "10.0.0.1:80", []string{"::ffff:198.51.100.1"}, "198.51.100.1", Header},
			{"a trusted client", "10.0.0.1:80", []string{"10.0.0.9"}, "10.0.0.9", Header},
			{"peer that is not trusted", "203.0.113.9:80", []string{"198.51.100.1"}, "203.0.113.9", NotTrusted},
			{"none", "10.0.0.1:80", nil, "10.0.0.1", Missing},
			{"twice", "10.0.0.1:80", []string{"198.51.100.1", "198.51.100.2"}, "10.0.0.1", Unusable},
			{"twice the same", "10.0.0.1:80", []string{"198.51.100.1", "198.51.100.1"}, "10.0.0.1", Unusable},
			{"a list", "10.0.0.1:80", []string{"198.51.100.1, 198.51.100.2"}, "10.0.0.1", Unusable},
			{"empty", "10.0.0.1:80", []string{""}, "10.0.0.1", Unusable},
			{"blank", "10.0.0.1:80", []string{" \t "}, "10.0.0.1", Unusable},
			{"unknown", "10.0.0.1:80", []string{"unknown"}, "10.0.0.1", Unusable},
			{"junk behind it", "10.0.0.1:80", []string{"198.51.100.1x"}, "10.0.0.1", Unusable},
			{"long", "10.0.0.1:80", []string{"198.51.100.1" + strings.Repeat(" 9", 5000)}, "10.0.0.1", Unusable},
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

// TestForwarded: the list of RFC 7239 is read as X-Forwarded-For is.
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
		{"RFC, section 4", walk, []string{"for=192.0.2.60;proto=http;by=203.0.113.43"}, "192.0.2.60", Header},
		{"two elements", walk, []string{"for=192.0.2.43, for=198.51.100.17"}, "198.51.100.17", Header},
		{"two elements, without blank", walk, []string{"for=192.0.2.43,for=10.0.0.2"}, "192.0.2.43", Header},
		{"lines are one list", walk, []string{"for=192.0.2.43", "for=10.0.0.3", "for=10.0.0.2;proto=https"}, "192.0.2.43", Header},
		{"IPv6", walk, []string{`for="[2001:db8:cafe:1::17]"`}, "2001:db8:cafe:1::/64", Header},
		{"IPv6 with port, upper case", walk, []string{`For="[2001:DB8:cafe:1::17]:4711"`}, "2001:db8:cafe:1::/64", Header},
		{"IPv6 proxy", walk, []string{`for=192.0.2.43, for="[2001:db8:aaaa::1]"`}, "192.0.2.43", Header},
		{"mapped", walk, []string{`for="[::ffff:192.0.2.43]"`}, "192.0.2.43", Header},
		{"port", walk, []string{`for="192.0.2.43:47011"`}, "192.0.2.43", Header},
		{"obfuscated port", walk, []string{`for="192.0.2.43:_mk-1"`}, "192.0.2.43", Header},
		{"obfuscated port, IPv6", walk, []string{`for="[2001:db8:cafe:1::17]:_x.y"`}, "2001:db8:cafe:1::/64", Header},
		{"escaped", walk, []string{`for="192.0.2.\43"`}, "192.0.2.43", Header},
		{"comma in quotes", walk, []string{`for=192.0.2.43;host="a, for=1.1.1.1"`}, "192.0.2.43", Header},
		{"quote in quotes", walk, []string{`for=192.0.2.43;host="a\", for=1.1.1.1"`}, "192.0.2.43", Header},
		{"empty pairs", walk, []string{";for=192.0.2.43;;proto=http;"}, "192.0.2.43", Header},
		{"empty elements", walk, []string{", for=192.0.2.43, ,", ""}, "192.0.2.43", Header},
		{"blanks around semicolons", walk, []string{"by=10.0.0.9 ;\tfor=192.0.2.43 ; proto=http"}, "192.0.2.43", Header},
		{"port without quotes", walk, []string{"for=192.0.2.43:80"}, "192.0.2.43", Header},
		{"IPv6 without quotes", walk, []string{"for=[2001:db8:cafe:1::17]:80;proto=http"}, "2001:db8:cafe:1::/64", Header},
		{"all trusted", walk, []string{"for=10.0.0.5, for=10.0.0.6"}, "10.0.0.5", Header},
		{"broken line further left", walk, []string{`for="`, "for=192.0.2.43"}, "192.0.2.43", Header},

		{"missing", walk, nil, "10.1.2.3", Missing},
		{"unknown", walk, []string{"for=1.1.1.1, for=unknown"}, "10.1.2.3", Unusable},
		{"obfuscated", walk, []string{"for=1.1.1.1, for=_hidden"}, "10.1.2.3", Unusable},
		{"obfuscated in quotes", walk, []string{`for="_SEVKISEK"`}, "10.1.2.3", Unusable},
		{"obfuscated behind a proxy", walk, []string{"for=1.1.1.1, for=_hidden, for=10.0.0.6"}, "10.0.0.6", Unusable},
		{"no for", walk, []string{"for=1.1.1.1, by=10.0.0.9;proto=http"}, "10.1.2.3", Unusable},
		{"for twice", walk, []string{"for=1.1.1.1;for=192.0.2.43"}, "10.1.2.3", Unusable},
		{"for twice in the element of the proxy", walk, []string{"for=10.0.0.5;FOR=1.1.1.1"}, "10.1.2.3", Unusable},
		{"open quote", walk, []string{`for="192.0.2.43`}, "10.1.2.3", Unusable},
		{"open quote of the client's", walk, []string{`for=1.1.1.1;x=", for=192.0.2.43`}, "10.1.2.3", Unusable},
		{"open quote of the client's, closed by the proxy", walk, []string{`for=1.1.1.1;x=", for="[2001:db8:cafe:1::17]"`}, "10.1.2.3", Unusable},
		{"open quote of the client's, and its host", walk, []string{`for=1.1.1.1;x=", for=192.0.2.43;host=",for=1.1.1.1;y="`}, "10.1.2.3", Unusable},
		{"backslash at the end", walk, []string{`for="192.0.2.43\`}, "10.1.2.3", Unusable},
		{"junk behind quotes", walk, []string{`for="192.0.2.43"x`}, "10.1.2.3", Unusable},
		{"X-Forwarded-For's form", walk, []string{"1.1.1.1, 192.0.2.43"}, "10.1.2.3", Unusable},
		{"blank before the value", walk, []string{"for= 192.0.2.43"}, "10.1.2.3", Unusable},
		{"no value", walk, []string{"for="}, "10.1.2.3", Unusable},
		{"IPv4 in brackets", walk, []string{`for="[192.0.2.43]"`}, "10.1.2.3", Unusable},
		{"long", walk, []string{"for=192.0.2.43;x=" + strings.Repeat("9", 5000)}, "10.1.2.3", Unusable},
		{"65 hops", walk, []string{"for=192.0.2.43" + strings.Repeat(",for=10.0.0.1", 64)}, "10.0.0.1", Unusable},

		{"counted", one, []string{"for=1.1.1.1, for=192.0.2.43;proto=https"}, "192.0.2.43", Header},
		{"second", two, []string{"for=1.1.1.1, for=192.0.2.43", `for="10.0.0.9:80"`}, "192.0.2.43", Header},
		{"short", two, []string{"for=192.0.2.43"}, "10.1.2.3", Unusable},
		{"hidden at its right", two, []string{"for=192.0.2.43, for=unknown"}, "10.1.2.3", Unusable},
		{"hidden further left", one, []string{"for=unknown, for=192.0.2.43"}, "192.0.2.43", Header},
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

// FuzzForwarded: whatever a client writes before the proxy's element, on the same line or on lines of its
// own, it is counted by the address that the proxy saw, or as the proxy.
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

// TestAllocations: a key is a text, and nothing else is allocated for it.
func TestAllocations(t *testing.T) {
	forged := []string{strings.Repeat("1.1.1.1, ", 20) + "198.51.100.1"}
	for _, tt := range []struct {
		name   string
		config Config
		remote string
		header map[string][]string
	}{
		{"nobody is trusted", Config{}, "203.0.113.9:80", map[string][]string{"Accept": {"*/*"}}},
		{"the rightmost", Config{TrustedProxies: "private"}, "10.0.0.1:80", map[string][]string{"X-Forwarded-For": forged}},
		{"the first", Config{TrustedHops: 1}, "10.0.0.1:80", map[string][]string{"X-Forwarded-For": forged}},
		{"a header of its own", Config{TrustedProxies: "all", ClientIPHeader: "Fly-Client-IP"}, "10.0.0.1:80", map[string][]string{"Fly-Client-Ip": {"198.51.100.1"}}},
	} {
		rule := mustNew(t, tt.config)
		// One for the key; and ParseAddr makes an error of what has a port, as connections do.
		if got := testing.AllocsPerRun(100, func() { rule.Client(tt.remote, tt.header) }); got > 2 {
			t.Errorf("%s: %v allocations", tt.name, got)
		}
	}
}

// FuzzXForwardedFor: whatever a client writes, it is counted by the address that
// the trusted proxy saw, and by that of its connection where there is none.
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
			// The proxy appends what it saw, to the last line or in one of its own.
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
