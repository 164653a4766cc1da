package impl

import (
	"net/mail"
	"strings"
	"testing"
)

// FuzzAddress: an accepted address is one address within the bounds. It contains nothing that could break a
// header or make two addresses of it, and net/mail parses it as itself, quoted where necessary.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{
		"o'brien@example.co.uk", "te~st@example.com", "customer/department=shipping@example.com", "UPPER@EXAMPLE.COM",
		"a@b", "a..b@c.co", ".a@b.co", "a.@b.co", ".@b.co", "\"a b\"@c.co", "a@[127.0.0.1]", "Foo <a@b.co>", "a@b.co, c@d.co",
		"a@b.co\r\nX: y", "\u212a@b.co", strings.Repeat("l", 191) + "@" + strings.Repeat("a", 63),
		"a@-b.co", "a@b-.co", "a@1.2.3.4", "@", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if CheckAddress(address) != nil {
			return
		}
		if len(address) > 255 || strings.Count(address, "@") != 1 || strings.ContainsAny(address, " \t\r\n\"(),:;<>[]\\\x00\x7f") {
			t.Fatalf("%q passes", address)
		}
		local, domain, _ := strings.Cut(address, "@")
		if local == "" {
			t.Fatalf("%q passes", address)
		}
		for label := range strings.SplitSeq(domain, ".") {
			if len(label) == 0 || len(label) > 63 {
				t.Fatalf("%q passes", address)
			}
		}
		written := (&mail.Address{Address: address}).String()
		parsed, err := mail.ParseAddressList(written)
		if err != nil || len(parsed) != 1 || parsed[0].Name != "" || parsed[0].Address != address {
			t.Fatalf("%q passes, and %s is read as %v, %v", address, written, parsed, err)
		}
	})
}
