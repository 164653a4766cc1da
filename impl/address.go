package impl

import (
	"errors"
	"strings"
)

const (
	// maxAddress is Supabase Auth's own bound (internal/api/mail.go of v2.196).
	maxAddress = 255
	// maxLabel bounds one label of a host name (RFC 1035, section 2.3.4).
	maxLabel = 63
)

// ErrAddress says that a text is no address that Supabase Auth stores. It does not repeat the text.
var ErrAddress = errors.New("not an address")

// CheckAddress returns nil for an address that Supabase Auth stores, and ErrAddress for any other text. The
// local part has atom characters of RFC 5322 and dots in any place, the domain is a host name. That is
// looser than RFC 5321, because people have addresses such as a..b@example.com. It excludes every form that
// could break a mail header or a list of recipients: quoted local parts, address literals, comments, display
// names, white space, anything beyond ASCII.
//
// The same rule judges the address that a caller types, and the stored address that gets the mail.
func CheckAddress(address string) error {
	local, domain, found := strings.Cut(address, "@")
	if !found || local == "" || len(address) > maxAddress || strings.IndexFunc(local, isNotLocal) >= 0 {
		return ErrAddress
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.IndexFunc(label, isNotLDH) >= 0 {
			return ErrAddress
		}
	}
	return nil
}

// isNotLocal reports whether a character is neither atext (RFC 5322, section 3.2.3) nor a dot.
func isNotLocal(r rune) bool {
	return isNotAlphanumeric(r) && (r >= 0x80 || !strings.ContainsRune(".!#$%&'*+-/=?^_`{|}~", r))
}

func isNotLDH(r rune) bool { return isNotAlphanumeric(r) && r != '-' }

func isNotAlphanumeric(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
}
