package server

import (
	"errors"
	"strings"
)

// The limits of RFC 5321, sections 4.5.3.1.1 and 4.5.3.1.3 (a path of 256 with its brackets),
// and of RFC 1035, section 2.3.4.
const (
	maxLocalPart = 64
	maxMailbox   = 254
	maxLabel     = 63
)

// errNotMailbox never reaches a caller: the table of messages speaks for it.
var errNotMailbox = errors.New("not a mailbox")

// checkMailbox judges an address as an RFC 5321 mailbox, local@domain: a dot-atom before the
// @, a host name after it. Left out are the forms that no sign-up form takes and that a mail
// header could be broken with: quoted local parts, address literals, comments, display names,
// anything beyond ASCII.
func checkMailbox(address string) error {
	local, domain, found := strings.Cut(address, "@")
	if !found || len(address) > maxMailbox || len(local) > maxLocalPart {
		return errNotMailbox
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.IndexFunc(atom, isNotAtext) >= 0 {
			return errNotMailbox
		}
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.IndexFunc(label, isNotLDH) >= 0 {
			return errNotMailbox
		}
	}
	return nil
}

// isNotAtext: RFC 5322, section 3.2.3.
func isNotAtext(r rune) bool {
	return isNotAlphanumeric(r) && (r >= 0x80 || !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r))
}

func isNotLDH(r rune) bool { return isNotAlphanumeric(r) && r != '-' }

func isNotAlphanumeric(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
}
