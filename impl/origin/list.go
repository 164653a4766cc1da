package origin

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// List is an allow-list of origins. It does not change once it is made, and many goroutines may use
// it. The zero List allows nothing.
type List struct {
	// Each origin with the path that pages of it have, empty where nothing was said of it.
	exact map[Origin]string
	// wild holds wildcard entries without the wildcard label: the entry
	// https://*.preview.example.com as the origin https://preview.example.com.
	wild map[Origin]string
	// loopback allows every origin of this very machine too.
	loopback bool
}

// NewList makes the list of origins, each of them either exact or with one
// leading wildcard label (https://*.preview.example.com), which stands for
// exactly one label: neither the bare domain nor a deeper name. http is allowed
// only for the very entries that say http.
//
// Empty entries (a comma too many) are skipped. All mistakes are reported
// together.
func NewList(entries []string) (List, error) {
	l := newList()
	err := eachEntry(entries, func(entry string) error {
		_, err := l.add(entry, "")
		return err
	})
	if err != nil {
		return List{}, err
	}
	return l, nil
}

func newList() List { return List{exact: map[Origin]string{}, wild: map[Origin]string{}} }

// eachEntry adds what an operator listed, and names the entries that cannot be added.
func eachEntry(entries []string, add func(entry string) error) error {
	var mistakes []error
	for _, entry := range entries {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		if err := add(entry); err != nil {
			mistakes = append(mistakes, fmt.Errorf("origin %s %w", quote(entry), err))
		}
	}
	return errors.Join(mistakes...)
}

// add returns the entry in canonical form, with its wildcard label.
func (l *List) add(entry, path string) (canonical string, err error) {
	scheme, rest, found := strings.Cut(entry, "://")
	base, isWild := strings.CutPrefix(rest, "*.")
	if !found || !isWild {
		o, err := ParseSetting(entry)
		if err != nil {
			return "", err
		}
		return o.String(), put(l.exact, o, path)
	}

	o, err := ParseSetting(scheme + "://" + base)
	if err != nil {
		return "", err
	}
	if o.host[0] == '[' || isNumber(o.host[strings.LastIndexByte(o.host, '.')+1:]) {
		return "", errors.New("has a wildcard before an IP address; list each address by itself")
	}
	if anyonesNames(o.host) {
		return "", fmt.Errorf("would allow names of strangers: anyone can have a name under %s, so the wildcard needs a domain of your own, such as %s://*.preview.example.com", o.host, o.scheme)
	}
	return strings.Replace(o.String(), "://", "://*.", 1), put(l.wild, o, path)
}

func put(paths map[Origin]string, o Origin, path string) error {
	if earlier, listed := paths[o]; listed && earlier != path {
		return errors.New("is listed with another path too: one origin has one page")
	}
	paths[o] = path
	return nil
}

// anyonesNames tells whether strangers can have names directly under domain:
// it is a public suffix, of a registry (com, co.uk) or of a hosting company
// (vercel.app, netlify.app, github.io). A single label is one in any case.
// A wildcard there would send reset links to anybody who takes such a name.
func anyonesNames(domain string) bool {
	if suffix, _ := publicsuffix.PublicSuffix(domain); suffix == domain {
		return true
	}
	// Rules such as *.compute.amazonaws.com make suffixes of the names one
	// level below a domain that is none itself. The label is a made-up one
	// that only such a rule can match.
	below := "any-name-at-all." + domain
	suffix, _ := publicsuffix.PublicSuffix(below)
	return suffix == below
}

// WithLoopback returns the list with every origin of this very machine on it,
// which is for development only: localhost, 127.0.0.1 and [::1], with any port.
func (l List) WithLoopback() List {
	l.loopback = true
	return l
}

func (o Origin) isLoopback() bool {
	return o.host == "localhost" || o.host == "127.0.0.1" || o.host == "[::1]"
}

// Allows tells whether a browser's Origin header names an allowed origin. It
// has to be the exact text that browsers send: they send the canonical form,
// so another spelling is not a browser's, and "null" (a sandboxed frame, a
// file) is no origin at all.
func (l List) Allows(origin string) bool {
	o, err := Parse(origin)
	if err != nil || o.String() != origin {
		return false
	}
	_, listed := l.find(o)
	return listed
}

// find returns the path that belongs to an origin. An exact entry comes before one with a wildcard.
func (l List) find(o Origin) (path string, listed bool) {
	if path, listed = l.exact[o]; listed {
		return path, true
	}
	if l.loopback && o.isLoopback() {
		return "", true
	}
	_, parent, found := strings.Cut(o.host, ".")
	if !found {
		return "", false
	}
	o.host = parent
	path, listed = l.wild[o]
	return path, listed
}

// quote shows a setting's value in an error, cut to a readable length, unless
// it may hold a password.
func quote(s string) string {
	const most = 80
	switch {
	case strings.Contains(s, "@"):
		return "(not shown, since it may hold a password)"
	case len(s) > most:
		return fmt.Sprintf("%q…", s[:most])
	default:
		return fmt.Sprintf("%q", s)
	}
}
