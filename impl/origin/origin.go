// Package origin owns two allow-lists: the pages that a reset link may lead to, and the origins whose pages may
// call the service.
//
// A caller's callback origin decides where a one-time login link leads, so it is taken as hostile. One function
// (Parse) reads all origins; it accepts a grammar, and does not search for known tricks. The page of a link is
// always made of an operator's entries, never of the caller's bytes, and its path is always an operator's.
//
// This package must never resolve a name, follow a URL, hold state that a request can change, or return a page
// that is not on the list.
package origin

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

const (
	// maxHost is the longest host name in text form (RFC 1035, section 2.3.4,
	// without the root's dot), maxLabel the longest label.
	maxHost  = 253
	maxLabel = 63

	// maxLength bounds the work done for a caller's value before it is looked
	// at: the longest scheme, host and port there can be.
	maxLength = len("https://") + maxHost + len(":65535/")
)

// Origin is a web origin in canonical form: scheme and host in lower case, without the scheme's default port.
// Equal values are the same origin. The zero Origin is no origin.
type Origin struct {
	scheme string // "http" or "https"
	host   string // lower case; an IPv6 address stands in brackets
	port   string // "" for the scheme's default
}

// String returns scheme://host[:port], the form that browsers send in the
// Origin header (RFC 6454, section 6.2).
func (o Origin) String() string {
	if o == (Origin{}) {
		return ""
	}
	if o.port == "" {
		return o.scheme + "://" + o.host
	}
	return o.scheme + "://" + o.host + ":" + o.port
}

// Hostname returns the host without port and brackets, to be shown to people.
func (o Origin) Hostname() string {
	return strings.Trim(o.host, "[]")
}

// Parse reads an origin, scheme://host[:port]: http or https, a host of plain labels, an IPv4 address or an IPv6
// address in brackets, and a port from 1 to 65535. It ignores one "/" at the end, which some programs write.
//
// It does not use net/url, because url.Parse and browsers read some texts differently (backslashes, tabs, user
// info, IPv4 in octal), and each difference is a way past an allow-list. It accepts only bytes that mean the same
// to both.
//
// Its errors are for the operator who set the value, and repeat nothing of it: it may be a secret that belongs into
// another setting.
func Parse(s string) (Origin, error) {
	if s == "" {
		return Origin{}, errors.New("is empty; write scheme://host, such as https://app.example.com")
	}
	if len(s) > maxLength {
		return Origin{}, fmt.Errorf("is %d characters long, and no origin is longer than %d", len(s), maxLength)
	}
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		return Origin{}, errors.New("has no scheme; write it out, such as https://app.example.com")
	}
	o := Origin{}
	switch lowerASCII(scheme) {
	case "https":
		o.scheme = "https"
	case "http":
		o.scheme = "http"
	default:
		return Origin{}, errors.New("must begin with https:// (or http://)")
	}
	if strings.IndexByte(rest, '@') >= 0 {
		return Origin{}, errors.New(`has user info: remove everything from after "://" up to the "@"`)
	}
	if end := strings.IndexAny(rest, `/?#\`); end > 0 && rest[end:] == "/" {
		rest = rest[:end]
	} else if end >= 0 {
		return Origin{}, trailingError(rest, end)
	}
	if err := checkBytes(rest); err != nil {
		return Origin{}, err
	}

	host, port, hasPort, err := splitPort(rest)
	if err != nil {
		return Origin{}, err
	}
	if hasPort {
		if o.port, err = parsePort(o.scheme, port); err != nil {
			return Origin{}, err
		}
	}
	if o.host, err = parseHost(host); err != nil {
		return Origin{}, err
	}
	return o, nil
}

// ParseSetting is Parse for an operator's value: it ignores white space around it, and its error about a name that
// is not ASCII has the form to write.
func ParseSetting(s string) (Origin, error) {
	s = strings.TrimSpace(s)
	o, err := Parse(s)
	if err == nil || !strings.ContainsFunc(s, func(r rune) bool { return r > '~' }) {
		return o, err
	}
	if ascii, idnaErr := idna.Lookup.ToASCII(hostOf(s)); idnaErr == nil {
		if written, err := Parse(strings.Replace(s, hostOf(s), ascii, 1)); err == nil {
			return Origin{}, fmt.Errorf("contains a character that is not ASCII: write %s", written)
		}
	}
	return Origin{}, err
}

// hostOf guesses the host of a text that is no origin.
func hostOf(s string) string {
	_, rest, _ := strings.Cut(s, "://")
	if end := strings.IndexAny(rest, ":/?#"); end >= 0 {
		rest = rest[:end]
	}
	return rest
}

// trailingError says what to remove from s, which goes on at s[end] after its host and port.
func trailingError(s string, end int) error {
	switch {
	case end == 0:
		return errors.New(`has no host after "://"`)
	case s[end] == '?':
		return errors.New(`has a query: remove everything from the "?" on`)
	case s[end] == '#':
		return errors.New(`has a fragment: remove everything from the "#" on`)
	case s[end] == '\\':
		return errors.New("contains a backslash")
	default:
		return errors.New(`has a path: remove everything from the "/" after the host on`)
	}
}

// checkBytes refuses every character that host[:port] cannot have. It comes before all parsing, which then works
// on a small alphabet.
func checkBytes(s string) error {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '-', c == ':', c == '[', c == ']':
		case c == '%':
			return errors.New(`contains "%"; neither percent-encoding nor an IPv6 zone is part of an origin`)
		case c == '*':
			return errors.New(`contains "*"; a wildcard can only be the whole first label of a callback origin, such as https://*.preview.example.com`)
		case c == ' ', c == '\t', c == '\r', c == '\n':
			return errors.New("contains white space")
		case c < ' ', c == 0x7f:
			return errors.New("contains a control character")
		case c >= 0x80:
			return errors.New("contains a character that is not ASCII; write an internationalised name in its xn-- form")
		default:
			return fmt.Errorf("contains %q, which no host name may", rune(c))
		}
	}
	return nil
}

// splitPort cuts host[:port]. The colons of an IPv6 address are in brackets.
func splitPort(s string) (host, port string, hasPort bool, err error) {
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", false, errors.New(`has no "]" after its IPv6 address`)
		}
		host, s = s[:end+1], s[end+1:]
		if s == "" {
			return host, "", false, nil
		}
		if s[0] != ':' {
			return "", "", false, errors.New(`has something other than a port after the "]"`)
		}
		return host, s[1:], true, nil
	}
	host, port, hasPort = strings.Cut(s, ":")
	if strings.IndexByte(port, ':') >= 0 {
		return "", "", false, errors.New("has more than one port; an IPv6 address stands in brackets, such as http://[::1]:3000")
	}
	return host, port, hasPort, nil
}

// parsePort returns the canonical port: "" for the scheme's default.
func parsePort(scheme, port string) (string, error) {
	if port == "" {
		return "", errors.New(`has an empty port: remove the ":"`)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", errors.New("has a port that is not a number from 1 to 65535")
	}
	if port[0] == '0' {
		return "", fmt.Errorf("has a port with leading zeros: write %d", n)
	}
	if scheme == "https" && n == 443 || scheme == "http" && n == 80 {
		return "", nil
	}
	return port, nil
}

// parseHost returns the host in lower case. It refuses what is no name or address that all clients read in the
// same way.
func parseHost(host string) (string, error) {
	if host == "" {
		return "", errors.New("has no host")
	}
	if host[0] == '[' {
		addr, err := netip.ParseAddr(host[1 : len(host)-1])
		if err != nil || !addr.Is6() {
			return "", errors.New("has no valid IPv6 address between the brackets")
		}
		if addr.Is4In6() {
			// Go writes ::ffff:1.2.3.4 and browsers write ::ffff:102:304: two
			// forms of one origin would not compare equal.
			return "", errors.New("has an IPv4 address in IPv6 form: write the IPv4 address itself")
		}
		return "[" + addr.String() + "]", nil
	}
	if strings.ContainsAny(host, "[]") {
		return "", errors.New("has brackets that do not enclose the host")
	}
	host = lowerASCII(host)
	if strings.HasSuffix(host, ".") {
		return "", errors.New(`has a host that ends in a dot: remove the "."`)
	}
	if len(host) > maxHost {
		return "", fmt.Errorf("has a host of %d characters, and no name is longer than %d", len(host), maxHost)
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if err := checkLabel(label); err != nil {
			return "", err
		}
	}
	if isNumber(labels[len(labels)-1]) {
		// Browsers read every host that ends in a number as an IPv4 address,
		// in any base and with any number of parts (https://url.spec.whatwg.org/
		// #ends-in-a-number-checker). Only the one plain form is accepted.
		if addr, err := netip.ParseAddr(host); err != nil || !addr.Is4() {
			return "", errors.New("ends in a number and is not a plain IPv4 address, such as 192.0.2.1")
		}
	}
	return host, nil
}

// checkLabel refuses a lower-case label of a host name with other characters than letters, digits and inner
// hyphens (RFC 1123, section 2.1).
func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("has an empty label in its host (two dots, or one at the beginning)")
	case len(label) > maxLabel:
		return fmt.Errorf("has a label of %d characters in its host, and none is longer than %d", len(label), maxLabel)
	case label[0] == '-', label[len(label)-1] == '-':
		return errors.New("has a label that begins or ends with a hyphen in its host")
	}
	return nil
}

// isNumber reports whether browsers take a last label for a part of an IPv4 address: decimal digits, or 0x with
// any number of hexadecimal digits.
func isNumber(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// isScheme reports whether text in lower case is a scheme (RFC 3986, section 3.1).
func isScheme(s string) bool {
	return s != "" && 'a' <= s[0] && s[0] <= 'z' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789+-.") == ""
}

// lowerASCII lower-cases A to Z alone. strings.EqualFold and strings.ToLower fold more: the long s (U+017F) becomes
// an s, and the Kelvin sign a k.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}
