package clientip

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTrustedProxies(t *testing.T) {
	for _, tt := range []struct {
		setting string
		want    []string
		anybody bool
	}{
		{setting: "", want: nil},
		{setting: "  ", want: nil},
		{
			setting: " 10.0.0.0/8,192.0.2.1  2001:db8::/32\n::1 , ::ffff:192.0.2.0/120,::ffff:1.2.3.4",
			want:    []string{"10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128", "192.0.2.0/24", "1.2.3.4/32"},
		},
		{setting: "loopback", want: []string{"127.0.0.0/8", "::1/128"}},
		{setting: "LOOPBACK, 192.0.2.1", want: []string{"127.0.0.0/8", "::1/128", "192.0.2.1/32"}},
		{
			setting: "private",
			want:    []string{"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"},
		},
		{setting: "All", want: nil, anybody: true},
		// These are large, but not everybody.
		{setting: "0.0.0.0/1,192.0.0.0/2", want: []string{"0.0.0.0/1", "192.0.0.0/2"}},
		{setting: "2000::/4", want: []string{"2000::/4"}},
	} {
		got, anybody, faults := parseTrusted(tt.setting)
		if len(faults) > 0 {
			t.Errorf("%q: %v", tt.setting, faults)
		}
		var text []string
		for _, p := range got {
			text = append(text, p.String())
		}
		if diff := cmp.Diff(tt.want, text); diff != "" || anybody != tt.anybody {
			t.Errorf("%q: anybody %v\n%s", tt.setting, anybody, diff)
		}
	}
}

func TestTrustedProxiesRefused(t *testing.T) {
	_, wrong := New(Config{TrustedProxies: "10.0.0.1/8, proxy.local, 0.0.0.0/0, ::/0, fe80::1%eth0, 10.0.0.0/33, ::ffff:0:0/90, ::ffff:0.0.0.0/96"})
	if len(wrong) != 1 || wrong[0].Setting != "TRUSTED_PROXIES" {
		t.Fatalf("%v", wrong)
	}
	for _, want := range []string{
		`entry 1: has bits set after its length; is 10.0.0.0/8 meant?`,
		`entry 2: want an address, a network`,
		`entry 3: trusts everybody`,
		`entry 4: trusts everybody`,
		`entry 5: an address with a zone`,
		`entry 6: want an address, a network`,
		`entry 7: has bits set after its length`,
		`entry 8: trusts everybody`,
	} {
		if !strings.Contains(wrong[0].Text, want) {
			t.Errorf("%s\ndoes not say: %s", wrong[0].Text, want)
		}
	}
}

// TestEverybodyInPieces: networks that together contain everybody are refused like /0.
func TestEverybodyInPieces(t *testing.T) {
	for _, setting := range []string{
		"0.0.0.0/1,128.0.0.0/1",
		"128.0.0.0/1 0.0.0.0/1",
		"0.0.0.0/2,64.0.0.0/2,128.0.0.0/2,192.0.0.0/2",
		"0.0.0.0/1,128.0.0.0/2,192.0.0.0/3", // all addresses that a client can have
		"0.0.0.0/1,64.0.0.0/2,128.0.0.0/1,10.0.0.0/8",
		"::ffff:0.0.0.0/97,::ffff:128.0.0.0/97",
		"::/1,8000::/1",
		"2000::/3",
		"2000::/4,3000::/4",
		"10.0.0.0/8,::/1,8000::/1",
		// These leave out only private networks, or trust them by the word private, which makes no difference.
		"0.0.0.0/5,8.0.0.0/7,11.0.0.0/8,12.0.0.0/6,16.0.0.0/4,32.0.0.0/3,64.0.0.0/2,128.0.0.0/1",
		"private 0.0.0.0/5,8.0.0.0/7,11.0.0.0/8,12.0.0.0/6,16.0.0.0/4,32.0.0.0/3,64.0.0.0/2,128.0.0.0/1",
	} {
		_, wrong := New(Config{TrustedProxies: setting})
		if len(wrong) != 1 || !strings.Contains(wrong[0].Text, "together trust everybody") || !strings.Contains(wrong[0].Text, "TRUSTED_HOPS or CLIENT_IP_HEADER") {
			t.Errorf("%s: %v", setting, wrong)
		}
	}
}

// TestCombinations: combinations of the settings have this meaning, or contradict each other.
func TestCombinations(t *testing.T) {
	for _, tt := range []struct {
		name    string
		config  Config
		setting string // that is wrong; empty: the combination is allowed
		wayOut  string
	}{
		{name: "nothing", config: Config{}, setting: "", wayOut: ""},
		{name: "proxies", config: Config{TrustedProxies: "private"}, setting: "", wayOut: ""},
		{name: "hops", config: Config{TrustedHops: 1}, setting: "", wayOut: ""},
		{name: "hops of proxies", config: Config{TrustedHops: 64, TrustedProxies: "10.0.0.0/8"}, setting: "", wayOut: ""},
		{name: "hops of everybody", config: Config{TrustedHops: 2, TrustedProxies: "all"}, setting: "", wayOut: ""},
		{name: "header of proxies", config: Config{ClientIPHeader: "Fly-Client-IP", TrustedProxies: "private"}, setting: "", wayOut: ""},
		{name: "header of everybody", config: Config{ClientIPHeader: "cf-connecting-ip", TrustedProxies: "all"}, setting: "", wayOut: ""},
		{name: "Forwarded of proxies", config: Config{ClientIPHeader: "Forwarded", TrustedProxies: "private"}, setting: "", wayOut: ""},
		{name: "Forwarded, hops", config: Config{ClientIPHeader: "forwarded", TrustedHops: 1}, setting: "", wayOut: ""},
		{name: "Forwarded, hops of everybody", config: Config{ClientIPHeader: "FORWARDED", TrustedHops: 1, TrustedProxies: "all"}, setting: "", wayOut: ""},

		{name: "everybody", config: Config{TrustedProxies: "all"}, setting: "TRUSTED_PROXIES", wayOut: "TRUSTED_HOPS"},
		{name: "everybody's Forwarded", config: Config{TrustedProxies: "all", ClientIPHeader: "Forwarded"}, setting: "TRUSTED_PROXIES", wayOut: "TRUSTED_HOPS"},
		{name: "everybody and others", config: Config{TrustedProxies: "all,10.0.0.0/8", TrustedHops: 1}, setting: "TRUSTED_PROXIES", wayOut: "leave the others out"},
		{name: "no hops", config: Config{TrustedHops: -1}, setting: "TRUSTED_HOPS", wayOut: "from 1 to 64"},
		{name: "too many hops", config: Config{TrustedHops: 65}, setting: "TRUSTED_HOPS", wayOut: "from 1 to 64"},
		{name: "header without a trusted peer", config: Config{ClientIPHeader: "Fly-Client-IP"}, setting: "CLIENT_IP_HEADER", wayOut: "needs TRUSTED_PROXIES"},
		{name: "Forwarded without a trusted peer", config: Config{ClientIPHeader: "Forwarded"}, setting: "CLIENT_IP_HEADER", wayOut: "needs TRUSTED_PROXIES or TRUSTED_HOPS"},
		{name: "header and hops", config: Config{ClientIPHeader: "Fly-Client-IP", TrustedHops: 1}, setting: "CLIENT_IP_HEADER", wayOut: "remove one of them"},
		{name: "header and hops of proxies", config: Config{ClientIPHeader: "Fly-Client-IP", TrustedHops: 1, TrustedProxies: "private"}, setting: "CLIENT_IP_HEADER", wayOut: "remove one of them"},
		{name: "the list", config: Config{ClientIPHeader: "x-forwarded-for", TrustedProxies: "private"}, setting: "CLIENT_IP_HEADER", wayOut: "remove it"},
		{name: "the client's own list", config: Config{ClientIPHeader: "X-Original-Forwarded-For", TrustedProxies: "private"}, setting: "CLIENT_IP_HEADER", wayOut: "the header that your proxy writes"},
		{name: "hop by hop", config: Config{ClientIPHeader: "Connection", TrustedProxies: "private"}, setting: "CLIENT_IP_HEADER", wayOut: "X-Real-IP"},
		{name: "hop by hop, TE", config: Config{ClientIPHeader: "TE", TrustedProxies: "private"}, setting: "CLIENT_IP_HEADER", wayOut: "X-Real-IP"},
		{name: "of something else", config: Config{ClientIPHeader: "X-Forwarded-Host", TrustedProxies: "private"}, setting: "CLIENT_IP_HEADER", wayOut: "X-Real-IP"},
		{name: "CloudFront's", config: Config{ClientIPHeader: "CloudFront-Viewer-Address", TrustedProxies: "private"}, setting: "CLIENT_IP_HEADER", wayOut: "TRUSTED_HOPS"},
		{name: "two", config: Config{ClientIPHeader: "X-Real-IP, Fly-Client-IP", TrustedProxies: "private"}, setting: "CLIENT_IP_HEADER", wayOut: "name of a header"},
		{name: "with colon", config: Config{ClientIPHeader: "X-Real-IP:", TrustedProxies: "private"}, setting: "CLIENT_IP_HEADER", wayOut: "name of a header"},
		{name: "beyond ASCII", config: Config{ClientIPHeader: "X-Réal-IP", TrustedProxies: "private"}, setting: "CLIENT_IP_HEADER", wayOut: "name of a header"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rule, wrong := New(tt.config)
			switch {
			case tt.setting == "" && len(wrong) > 0:
				t.Errorf("%v", wrong)
			case tt.setting == "":
			case len(wrong) != 1 || wrong[0].Setting != tt.setting || !strings.Contains(wrong[0].Text, tt.wayOut):
				t.Errorf("%v, want one about %s that says %q", wrong, tt.setting, tt.wayOut)
			case rule.Set():
				t.Error("the rule is set nevertheless")
			}
		})
	}
	_, wrong := New(Config{TrustedProxies: "nobody", TrustedHops: 99, ClientIPHeader: "a b"})
	var settings []string
	for _, mistake := range wrong {
		settings = append(settings, mistake.Setting)
	}
	if diff := cmp.Diff([]string{"TRUSTED_PROXIES", "TRUSTED_HOPS", "CLIENT_IP_HEADER"}, settings); diff != "" {
		t.Error(diff)
	}
}
