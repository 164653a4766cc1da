package origin

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// List is an allow-list of origins. It does not change once it is made. The zero List allows nothing.
type List struct {
	// exact has each origin with the path of its page, which is empty unless the entry has one.
	exact map[Origin]string
	// wild holds wildcard entries without the wildcard label: the entry
	// https://*.preview.example.com as the origin https://preview.example.com.
	wild map[Origin]string
	// loopback adds every origin of this machine.
	loopback bool
}

// NewList makes the list of origins. An entry is exact, or has one leading wildcard label
// (https://*.preview.example.com) that stands for exactly one label: neither the bare domain nor a deeper name
// matches. http is allowed only for entries that have http.
//
// It skips empty entries (a comma too many), and reports all mistakes together.
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

// eachEntry adds an operator's entries, and returns an error with the numbers of the wrong ones. It repeats none: an
// entry may be a secret that belongs into another setting.
func eachEntry(entries []string, add func(entry string) error) error {
	var mistakes []error
	number := 0
	for _, entry := range entries {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		number++
		if err := add(entry); err != nil {
			mistakes = append(mistakes, fmt.Errorf("entry %d %w", number, err))
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
		return "", errors.New("would allow names of strangers: anyone can have a name under that domain, so the wildcard needs one of your own, such as https://*.preview.example.com")
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

// anyonesNames reports whether anybody can get a name directly under domain: it is a public suffix, of a registry
// (com, co.uk) or of a hosting company (vercel.app, netlify.app, github.io), or a single label. A wildcard there
// would send reset links to anybody who gets such a name.
func anyonesNames(domain string) bool {
	if suffix, _ := publicsuffix.PublicSuffix(domain); suffix == domain {
		return true
	}
	// Rules such as *.compute.amazonaws.com make suffixes of all names directly below a domain. Only such a
	// rule can match an invented label.
	below := "any-name-at-all." + domain
	suffix, _ := publicsuffix.PublicSuffix(below)
	return suffix == below
}

// WithLoopback returns the list with every origin of this machine added: localhost, 127.0.0.1 and [::1], with any
// port. It is for development only.
func (l List) WithLoopback() List {
	l.loopback = true
	return l
}

func (o Origin) isLoopback() bool {
	return o.host == "localhost" || o.host == "127.0.0.1" || o.host == "[::1]"
}

// Allows reports whether an Origin header names an allowed origin. Browsers send the canonical form, so no other
// spelling is allowed, and neither is "null" (a sandboxed frame, a file).
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
