package server

import (
	"net/mail"
	"strings"
	"testing"
)

// FuzzMailbox: what passes is an address that the standard library reads as itself and as
// nothing else, within the bounds, and with nothing in it that could break a header.
func FuzzMailbox(f *testing.F) {
	for _, seed := range []string{
		"o'brien@example.co.uk", "te~st@example.com", "customer/department=shipping@example.com", "UPPER@EXAMPLE.COM",
		"a@b", "a..b@c.co", "\"a b\"@c.co", "a@[127.0.0.1]", "Foo <a@b.co>", "a@b.co, c@d.co", "a@b.co\r\nX: y", "\u212a@b.co",
		strings.Repeat("l", 64) + "@" + strings.Repeat("a", 63) + ".co", "a@-b.co", "a@b-.co", "a@1.2.3.4", "@", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if checkMailbox(address) != nil {
			return
		}
		if len(address) > 254 || strings.Count(address, "@") != 1 {
			t.Fatalf("%q passes", address)
		}
		local, domain, _ := strings.Cut(address, "@")
		if len(local) > 64 || strings.ContainsAny(address, " \t\r\n\"(),:;<>[]\\\x00\x7f") {
			t.Fatalf("%q passes", address)
		}
		for label := range strings.SplitSeq(domain, ".") {
			if len(label) == 0 || len(label) > 63 {
				t.Fatalf("%q passes", address)
			}
		}
		parsed, err := mail.ParseAddress(address)
		if err != nil || parsed.Name != "" || parsed.Address != address {
			t.Fatalf("%q passes, and is read as %v, %v", address, parsed, err)
		}
	})
}
