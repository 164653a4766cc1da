package impl

import (
	"errors"
	"strings"
)

const (
	// maxAddress is Supabase Auth's own bound (internal/api/mail.go of v2.196).
	maxAddress = 255
	// maxLabel is that of a host name's label (RFC 1035, section 2.3.4).
	maxLabel = 63
)

// ErrAddress says that Supabase Auth stores no such address. It repeats nothing of it.
var ErrAddress = errors.New("not an address")

// CheckAddress returns nil for what Supabase Auth stores as an address, and so looks up: local@domain,
// with signs of RFC 5322's atoms and dots in any place before the @, and a host name after it. It is
// looser than RFC 5321, because people have addresses such as a..b@example.com. It takes none of the
// forms that a mail header, or a list of recipients, could be broken with: quoted local parts, address
// literals, comments, display names, white space, anything beyond ASCII.
//
// It is the one rule for both ends: for what a caller types, and for the stored address that is mailed.
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

// isNotLocal: atext of RFC 5322, section 3.2.3, and the dot.
func isNotLocal(r rune) bool {
	return isNotAlphanumeric(r) && (r >= 0x80 || !strings.ContainsRune(".!#$%&'*+-/=?^_`{|}~", r))
}

func isNotLDH(r rune) bool { return isNotAlphanumeric(r) && r != '-' }

func isNotAlphanumeric(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
}
