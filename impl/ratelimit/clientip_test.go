package ratelimit

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustTrust(tb testing.TB, s string) ClientIP {
	tb.Helper()
	prefixes, err := ParseTrustedProxies(s)
	if err != nil {
		tb.Fatal(err)
	}
	return ClientIP{prefixes}
}

func TestClientIP(t *testing.T) {
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
			got, missing := mustTrust(t, tt.trusted).Key(tt.remote, tt.header)
			if got != tt.want || missing {
				t.Errorf("got %q, missing %v, want %q", got, missing, tt.want)
			}
		})
	}
}

func TestHeaderMissing(t *testing.T) {
	for _, tt := range []struct {
		remote string
		header []string
		want   bool
	}{
		{"10.0.0.1:80", nil, true},
		{"10.0.0.1:80", []string{"", " , "}, true},
		{"10.0.0.1:80", []string{"x"}, false},
		{"10.0.0.1:80", []string{"10.0.0.2"}, false},
		{"203.0.113.9:80", nil, false},
		{"@", nil, false},
	} {
		if _, got := mustTrust(t, "10.0.0.0/8").Key(tt.remote, tt.header); got != tt.want {
			t.Errorf("%s, %q: %v, want %v", tt.remote, tt.header, got, tt.want)
		}
	}
}

func TestParseTrustedProxies(t *testing.T) {
	got, err := ParseTrustedProxies(" 10.0.0.0/8,192.0.2.1  2001:db8::/32\n::1 , ::ffff:192.0.2.0/120,::ffff:1.2.3.4")
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, p := range got {
		text = append(text, p.String())
	}
	want := []string{"10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128", "192.0.2.0/24", "1.2.3.4/32"}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
	if got, err := ParseTrustedProxies("  "); len(got) != 0 || err != nil {
		t.Errorf("nothing: %v, %v", got, err)
	}

	_, err = ParseTrustedProxies("10.0.0.1/8, proxy.local, 0.0.0.0/0, ::/0, fe80::1%eth0, 10.0.0.0/33, ::ffff:0:0/90, ::ffff:0.0.0.0/96")
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`"10.0.0.1/8": has bits set after its length; is 10.0.0.0/8 meant?`,
		`"proxy.local": want an address, or a network`,
		`"0.0.0.0/0": trusts everybody`,
		`"::/0": trusts everybody`,
		`"fe80::1%eth0": an address with a zone`,
		`"10.0.0.0/33": want an address, or a network`,
		`"::ffff:0.0.0.0/96": trusts everybody`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say: %s", err, want)
		}
	}
	if got := strings.Count(err.Error(), "\n") + 1; got != 8 {
		t.Errorf("%d faults, want 8:\n%v", got, err)
	}
}

// FuzzClientIP: whatever a client writes, it is counted by the address that
// the trusted proxy saw, and by that of its connection where there is none.
func FuzzClientIP(f *testing.F) {
	for _, s := range []string{
		"", "1.1.1.1", "10.0.0.1", ", ,", "[::1]:80", "[::1", "]", "[", "::ffff:10.0.0.1", "fe80::1%eth0", "%", ":", "[]:1",
		"1.1.1.1\n10.0.0.1", "x\n", "\n\n", strings.Repeat(",", 70), strings.Repeat("10.0.0.1,", 70), strings.Repeat("9", 5000),
	} {
		f.Add(s, "203.0.113.9:80")
		f.Add(s, "[2001:db8::9]:80")
		f.Add("1.1.1.1", s)
	}
	proxies := mustTrust(f, "10.0.0.0/8,fe80::/10,2001:db8:aaaa::/48")
	f.Fuzz(func(t *testing.T, text, remote string) {
		lines := strings.Split(text, "\n")
		alone, _ := proxies.Key(remote, nil)
		if alone != noAddress {
			if _, err := netip.ParseAddr(strings.TrimSuffix(alone, "/64")); err != nil {
				t.Fatalf("%q is no key: %v", alone, err)
			}
		}
		if got, _ := (ClientIP{}).Key(remote, lines); got != alone {
			t.Fatalf("without trusted proxies, %q from %q is counted as %q, not %q", text, remote, got, alone)
		}
		hop, ok := parseHop(remote)
		if ok && !proxies.trusts(hop) {
			if got, missing := proxies.Key(remote, lines); got != alone || missing {
				t.Fatalf("%q from %q is counted as %q, not %q", text, remote, got, alone)
			}
			// The proxy appends what it saw, to the last line or in one of its own.
			last := slices.Clone(lines)
			last[len(last)-1] += ", " + remote
			for _, lines := range [][]string{append(slices.Clone(lines), remote), last} {
				if got, _ := proxies.Key("10.0.0.1:80", lines); got != alone && !strings.ContainsAny(remote, ", \t") {
					t.Fatalf("%q is counted as %q, not %q", lines, got, alone)
				}
			}
		}
	})
}
