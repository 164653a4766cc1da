// Package setting judges values whose form several settings share, such as keys and domain names.
//
// It must never repeat a value in an error, because a secret may have been put into any setting by mistake.
// The one exception is the ASCII form of a domain name that is not ASCII, because no secret looks like that.
package setting

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// quotes are the pairs that a value may be wrapped in.
var quotes = []struct{ opening, closing string }{{`"`, `"`}, {`'`, `'`}, {"`", "`"}, {"“", "”"}, {"‘", "’"}, {"„", "“"}}

// CheckText refuses what is wrong in the value of any setting: quotes around it, and invisible characters.
// White space is left to others: around a value it changes nothing, and inside the form of the value decides.
func CheckText(value string) error {
	for _, pair := range quotes {
		if len(value) >= len(pair.opening)+len(pair.closing) && strings.HasPrefix(value, pair.opening) && strings.HasSuffix(value, pair.closing) {
			return errors.New("is wrapped in quotes, which docker's --env-file, among others, leaves in the value: remove them")
		}
	}
	for _, r := range value {
		switch {
		case r == '\ufeff':
			return errors.New("contains a byte-order mark, an invisible character that some editors put at the beginning of a file: save it as UTF-8 without one")
		case r == '\u200b', r == '\u2060':
			return fmt.Errorf("contains an invisible character (U+%04X), as copying from a web page adds them: type the value again", r)
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', '\x7f' <= r && r <= '\x9f':
			return fmt.Errorf("contains a control character (U+%04X): remove it", r)
		}
	}
	return nil
}

// CheckKey judges a key, which goes into a header: one with a stray line break would fail only at the first
// request.
func CheckKey(value string) error {
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("must have no spaces, line breaks or characters beyond ASCII")
	}
	return nil
}

// CheckDomain judges a domain name of two labels or more.
func CheckDomain(value string) error {
	switch {
	case strings.Contains(value, "://"):
		return errors.New("must be a domain name alone, like mg.example.com, without https://")
	case strings.Contains(value, "@"):
		return errors.New("must be a domain name alone, like mg.example.com, and no mail address")
	case strings.HasSuffix(value, "."):
		return errors.New("ends in a dot: remove it")
	case !isASCII(value):
		return notASCII(value)
	}
	labels := strings.Split(value, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			labels = nil
			break
		}
	}
	if len(labels) < 2 || len(value) > 253 {
		return errors.New("must be a domain name, like mg.example.com")
	}
	return nil
}

// ParseURL reads the address of a server, which may have a path, as https://host/path.
func ParseURL(value string) (*url.URL, error) {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" ||
		strings.ContainsAny(value, " \t\r\n\\#") {
		return nil, errors.New("must be an address like https://host, without user, query or fragment")
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errors.New("must have a port from 1 to 65535, or none")
		}
	}
	switch host := u.Hostname(); {
	case strings.HasSuffix(host, "."):
		return nil, errors.New("has a host that ends in a dot: remove it")
	case !isASCII(host):
		return nil, notASCII(host)
	}
	return u, nil
}

// CheckListener judges where to listen.
func CheckListener(address string) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return errors.New("must be HOST:PORT or :PORT")
	}
	if _, err := net.ResolveTCPAddr("tcp", address); err != nil {
		return errors.New("must be HOST:PORT or :PORT, with a port from 0 to 65535")
	}
	return nil
}

// ParseMailbox reads one mailbox (RFC 5322, section 3.4).
func ParseMailbox(value string) (mail.Address, error) {
	address, err := mail.ParseAddress(value)
	if err != nil || strings.ContainsAny(value, "\r\n") {
		return mail.Address{}, errors.New("must be one mailbox, like no-reply@example.com or Example <no-reply@example.com>")
	}
	if domain := address.Address[strings.LastIndexByte(address.Address, '@')+1:]; !isASCII(domain) {
		return mail.Address{}, notASCII(domain)
	}
	return *address, nil
}

// notASCII returns an error that says how to write a domain name in ASCII, if it is a domain name.
func notASCII(domain string) error {
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil && isASCII(ascii) {
		return fmt.Errorf("has a domain name with characters beyond ASCII: write it as %s", ascii)
	}
	return errors.New("has a domain name with characters beyond ASCII: write it in its xn-- form")
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' })
}
