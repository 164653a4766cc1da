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
		{"", nil, false},
		{"  ", nil, false},
		{
			" 10.0.0.0/8,192.0.2.1  2001:db8::/32\n::1 , ::ffff:192.0.2.0/120,::ffff:1.2.3.4",
			[]string{"10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128", "192.0.2.0/24", "1.2.3.4/32"}, false,
		},
		{"loopback", []string{"127.0.0.0/8", "::1/128"}, false},
		{"LOOPBACK, 192.0.2.1", []string{"127.0.0.0/8", "::1/128", "192.0.2.1/32"}, false},
		{
			"private",
			[]string{"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"}, false,
		},
		{"All", nil, true},
		// Large, and not everybody.
		{"0.0.0.0/1,192.0.0.0/2", []string{"0.0.0.0/1", "192.0.0.0/2"}, false},
		{"2000::/4", []string{"2000::/4"}, false},
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

// TestEverybodyInPieces: networks that together are everybody are refused as /0 is.
func TestEverybodyInPieces(t *testing.T) {
	for _, setting := range []string{
		"0.0.0.0/1,128.0.0.0/1",
		"128.0.0.0/1 0.0.0.0/1",
		"0.0.0.0/2,64.0.0.0/2,128.0.0.0/2,192.0.0.0/2",
		"0.0.0.0/1,128.0.0.0/2,192.0.0.0/3", // all that a client can have
		"0.0.0.0/1,64.0.0.0/2,128.0.0.0/1,10.0.0.0/8",
		"::ffff:0.0.0.0/97,::ffff:128.0.0.0/97",
		"::/1,8000::/1",
		"2000::/3",
		"2000::/4,3000::/4",
		"10.0.0.0/8,::/1,8000::/1",
		// Only what is private is left out, or trusted by its word: that is no difference.
		"0.0.0.0/5,8.0.0.0/7,11.0.0.0/8,12.0.0.0/6,16.0.0.0/4,32.0.0.0/3,64.0.0.0/2,128.0.0.0/1",
		"private 0.0.0.0/5,8.0.0.0/7,11.0.0.0/8,12.0.0.0/6,16.0.0.0/4,32.0.0.0/3,64.0.0.0/2,128.0.0.0/1",
	} {
		_, wrong := New(Config{TrustedProxies: setting})
		if len(wrong) != 1 || !strings.Contains(wrong[0].Text, "together trust everybody") || !strings.Contains(wrong[0].Text, "TRUSTED_HOPS or CLIENT_IP_HEADER") {
			t.Errorf("%s: %v", setting, wrong)
		}
	}
}

// TestCombinations: what the settings mean together, and which contradict each other.
func TestCombinations(t *testing.T) {
	for _, tt := range []struct {
		name    string
		config  Config
		setting string // at fault; "": it is allowed
		wayOut  string
	}{
		{"nothing", Config{}, "", ""},
		{"proxies", Config{TrustedProxies: "private"}, "", ""},
		{"hops", Config{TrustedHops: 1}, "", ""},
		{"hops of proxies", Config{TrustedHops: 64, TrustedProxies: "10.0.0.0/8"}, "", ""},
		{"hops of everybody", Config{TrustedHops: 2, TrustedProxies: "all"}, "", ""},
		{"header of proxies", Config{ClientIPHeader: "Fly-Client-IP", TrustedProxies: "private"}, "", ""},
		{"header of everybody", Config{ClientIPHeader: "cf-connecting-ip", TrustedProxies: "all"}, "", ""},
		{"Forwarded of proxies", Config{ClientIPHeader: "Forwarded", TrustedProxies: "private"}, "", ""},
		{"Forwarded, hops", Config{ClientIPHeader: "forwarded", TrustedHops: 1}, "", ""},
		{"Forwarded, hops of everybody", Config{ClientIPHeader: "FORWARDED", TrustedHops: 1, TrustedProxies: "all"}, "", ""},

		{"everybody", Config{TrustedProxies: "all"}, "TRUSTED_PROXIES", "TRUSTED_HOPS"},
		{"everybody's Forwarded", Config{TrustedProxies: "all", ClientIPHeader: "Forwarded"}, "TRUSTED_PROXIES", "TRUSTED_HOPS"},
		{"everybody and others", Config{TrustedProxies: "all,10.0.0.0/8", TrustedHops: 1}, "TRUSTED_PROXIES", "leave the others out"},
		{"no hops", Config{TrustedHops: -1}, "TRUSTED_HOPS", "from 1 to 64"},
		{"too many hops", Config{TrustedHops: 65}, "TRUSTED_HOPS", "from 1 to 64"},
		{"header of nobody", Config{ClientIPHeader: "Fly-Client-IP"}, "CLIENT_IP_HEADER", "needs TRUSTED_PROXIES"},
		{"Forwarded of nobody", Config{ClientIPHeader: "Forwarded"}, "CLIENT_IP_HEADER", "needs TRUSTED_PROXIES or TRUSTED_HOPS"},
		{"header and hops", Config{ClientIPHeader: "Fly-Client-IP", TrustedHops: 1}, "CLIENT_IP_HEADER", "remove one of them"},
		{"header and hops of proxies", Config{ClientIPHeader: "Fly-Client-IP", TrustedHops: 1, TrustedProxies: "private"}, "CLIENT_IP_HEADER", "remove one of them"},
		{"the list", Config{ClientIPHeader: "x-forwarded-for", TrustedProxies: "private"}, "CLIENT_IP_HEADER", "remove it"},
		{"the client's own list", Config{ClientIPHeader: "X-Original-Forwarded-For", TrustedProxies: "private"}, "CLIENT_IP_HEADER", "the header that your proxy writes"},
		{"hop by hop", Config{ClientIPHeader: "Connection", TrustedProxies: "private"}, "CLIENT_IP_HEADER", "X-Real-IP"},
		{"hop by hop, TE", Config{ClientIPHeader: "TE", TrustedProxies: "private"}, "CLIENT_IP_HEADER", "X-Real-IP"},
		{"of something else", Config{ClientIPHeader: "X-Forwarded-Host", TrustedProxies: "private"}, "CLIENT_IP_HEADER", "X-Real-IP"},
		{"CloudFront's", Config{ClientIPHeader: "CloudFront-Viewer-Address", TrustedProxies: "private"}, "CLIENT_IP_HEADER", "TRUSTED_HOPS"},
		{"two", Config{ClientIPHeader: "X-Real-IP, Fly-Client-IP", TrustedProxies: "private"}, "CLIENT_IP_HEADER", "name of a header"},
		{"with colon", Config{ClientIPHeader: "X-Real-IP:", TrustedProxies: "private"}, "CLIENT_IP_HEADER", "name of a header"},
		{"beyond ASCII", Config{ClientIPHeader: "X-Réal-IP", TrustedProxies: "private"}, "CLIENT_IP_HEADER", "name of a header"},
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
				t.Error("somebody is believed all the same")
			}
		})
	}
	// All faults at once, each with its setting.
	_, wrong := New(Config{TrustedProxies: "nobody", TrustedHops: 99, ClientIPHeader: "a b"})
	var settings []string
	for _, mistake := range wrong {
		settings = append(settings, mistake.Setting)
	}
	if diff := cmp.Diff([]string{"TRUSTED_PROXIES", "TRUSTED_HOPS", "CLIENT_IP_HEADER"}, settings); diff != "" {
		t.Error(diff)
	}
}
