package origin

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// List is an allow-list of origins and the site that stands in for whatever is
// not on it. It does not change once it is made, and many goroutines may use
// it. The zero List allows nothing.
type List struct {
	site  string
	exact map[string]struct{}
	// wild holds wildcard entries without the wildcard label: the entry
	// https://*.preview.example.com as the origin https://preview.example.com.
	wild map[Origin]struct{}
	// loopback allows every origin of this very machine too.
	loopback bool
}

// NewList makes the list of a site and of further callback origins, each of
// them either exact or with one leading wildcard label
// (https://*.preview.example.com), which stands for exactly one label: neither
// the bare domain nor a deeper name. http is allowed only for the very entries
// that say http.
//
// The site is always allowed. It may be empty, which is how a server without a
// SITE_URL starts, and how a list is made that has no site: Resolve then has
// nothing to fall back to. Empty entries (a comma too many) are skipped.
//
// All mistakes are reported together.
func NewList(site string, callbacks []string) (List, error) {
	l := List{exact: map[string]struct{}{}, wild: map[Origin]struct{}{}}
	var mistakes []error
	if strings.TrimSpace(site) != "" {
		if o, err := ParseSetting(site); err != nil {
			mistakes = append(mistakes, fmt.Errorf("site %s %w", quote(site), err))
		} else {
			l.site = o.String()
			l.exact[l.site] = struct{}{}
		}
	}
	for _, entry := range callbacks {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		if err := l.add(entry); err != nil {
			mistakes = append(mistakes, fmt.Errorf("origin %s %w", quote(entry), err))
		}
	}
	if len(mistakes) > 0 {
		return List{}, errors.Join(mistakes...)
	}
	return l, nil
}

func (l *List) add(entry string) error {
	scheme, rest, found := strings.Cut(entry, "://")
	base, isWild := strings.CutPrefix(rest, "*.")
	if !found || !isWild {
		o, err := ParseSetting(entry)
		if err != nil {
			return err
		}
		l.exact[o.String()] = struct{}{}
		return nil
	}

	o, err := ParseSetting(scheme + "://" + base)
	if err != nil {
		return err
	}
	if o.host[0] == '[' || isNumber(o.host[strings.LastIndexByte(o.host, '.')+1:]) {
		return errors.New("has a wildcard before an IP address; list each address by itself")
	}
	if anyonesNames(o.host) {
		return fmt.Errorf("would allow names of strangers: anyone can have a name under %s, so the wildcard needs a domain of your own, such as %s://*.preview.example.com", o.host, o.scheme)
	}
	l.wild[o] = struct{}{}
	return nil
}

// anyonesNames tells whether strangers can have names directly under domain:
// it is a public suffix, of a registry (com, co.uk) or of a hosting company
// (vercel.app, netlify.app, github.io). A single label is one in any case.
// A wildcard there would send reset links to whoever takes such a name.
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

// Site returns the site's origin, or "" if there is none.
func (l List) Site() string { return l.site }

// Resolve decides where a link leads. No callback at all means the site. A
// callback that is allowed is returned in its canonical form; for any other,
// the answer is the site and false. What is returned is always an origin that
// is allowed, or "" when there is no site to fall back to.
func (l List) Resolve(callback string) (origin string, allowed bool) {
	if callback == "" {
		return l.site, l.site != ""
	}
	if o, err := Parse(callback); err == nil && l.contains(o) {
		return o.String(), true
	}
	return l.site, false
}

// Allows tells whether a browser's Origin header names an allowed origin. It
// has to be the exact text that browsers send: they send the canonical form,
// so another spelling is not a browser's, and "null" (a sandboxed frame, a
// file) is no origin at all.
func (l List) Allows(origin string) bool {
	o, err := Parse(origin)
	return err == nil && o.String() == origin && l.contains(o)
}

func (l List) contains(o Origin) bool {
	if l.loopback && o.isLoopback() {
		return true
	}
	if _, ok := l.exact[o.String()]; ok {
		return true
	}
	_, parent, found := strings.Cut(o.host, ".")
	if !found {
		return false
	}
	o.host = parent
	_, ok := l.wild[o]
	return ok
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
