package resetdtest

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// TestPrivateIsFound: the search finds private texts in each form, and nothing else.
func TestPrivateIsFound(t *testing.T) {
	t.Parallel()
	const address, code = "Hello+World@example.com", "482913"
	p := newPrivate(0)
	p.add(address)
	p.addLink([]byte(`{"email_otp":"` + code + `"}`))
	for _, written := range []string{
		address, strings.ToUpper(address), url.QueryEscape(address), fmt.Sprintf("%x", address), fmt.Sprintf("%+q", address),
		base64.StdEncoding.EncodeToString([]byte(address)),
		base64.StdEncoding.EncodeToString([]byte("a" + address + "z")),
		base64.URLEncoding.EncodeToString([]byte("ab" + address + "yz")),
		base64.StdEncoding.EncodeToString([]byte("api:" + address)),
		`{"otp":"` + code + `"}`, "otp=" + code, "code " + code + ".",
	} {
		if !reports(p, "before "+written+" after") {
			t.Errorf("%q is not found", written)
		}
	}
	for _, written := range []string{"", "hello", "example.com", "0.482913", "a482913", "4829131", base64.StdEncoding.EncodeToString([]byte("something else"))} {
		if reports(p, "before "+written+" after") {
			t.Errorf("%q is found", written)
		}
	}
}

func reports(p *private, written string) bool {
	var faults silent
	p.search(&faults, "", written)
	return faults.any
}

// silent is a test that only remembers whether it has failed.
type silent struct {
	testing.TB
	any bool
}

func (s *silent) Helper()               {}
func (s *silent) Errorf(string, ...any) { s.any = true }
