package origin

import (
	"errors"
	"fmt"
	"strings"
)

// Browsers is an allow-list of the pages that may call the service: web origins as in a List, origins of web views
// in apps (capacitor://localhost), or every page. It does not decide where links lead. It does not change once it
// is made. The zero Browsers allows nothing.
type Browsers struct {
	web  List
	apps map[string]struct{} // by the exact text of the Origin header
	any  bool
}

// NewBrowsers makes the list of an operator's entries: origins, with a wildcard label where List allows it, or a
// single * for every page. It reports all mistakes together.
func NewBrowsers(entries []string) (Browsers, error) {
	b := Browsers{web: newList(), apps: map[string]struct{}{}}
	number := 0
	err := eachEntry(entries, func(entry string) error {
		number++
		scheme, host, found := strings.Cut(entry, "://")
		scheme = lowerASCII(scheme)
		switch {
		case entry == "*":
			b.any = true
			return nil
		case entry == "null":
			return errors.New("is null, which is not one page's: every file and every sandboxed frame has it; * allows it with all others")
		case !found, scheme == "http", scheme == "https":
			_, err := b.web.add(entry, "")
			return err
		}
		app, err := parseApp(scheme, strings.TrimSuffix(host, "/"))
		b.apps[app] = struct{}{}
		return err
	})
	if b.any && number > 1 {
		err = errors.Join(err, errors.New("* allows every origin: remove the others, or remove *"))
	}
	if err != nil {
		return Browsers{}, err
	}
	return b, nil
}

// Browsers returns an allow-list of the pages of the list's origins.
func (l List) Browsers() Browsers { return Browsers{web: l} }

// WithLoopback returns the list with the pages of this machine added, like WithLoopback of List.
func (b Browsers) WithLoopback() Browsers {
	b.web = b.web.WithLoopback()
	return b
}

// maxApp bounds the origin of a web view; those of browser extensions have about 60 characters.
const maxApp = 300

// withoutOrigin are schemes whose pages have no origin of their own: browsers send null.
var withoutOrigin = map[string]bool{"file": true, "data": true, "blob": true, "about": true, "javascript": true, "filesystem": true}

// parseApp returns the origin of an app's web view, scheme://host or scheme://host:port. It leaves the host as it
// is, because web views write it in different ways (tauri://localhost, app://-, extensions with capital letters).
// The Origin header must have the same text.
func parseApp(scheme, host string) (string, error) {
	if !isScheme(scheme) {
		return "", errors.New("must begin with a scheme, such as https:// or capacitor://")
	}
	if withoutOrigin[scheme] {
		return "", fmt.Errorf("is no origin, since browsers send null for %s: pages; serve the page by a scheme of its own or from localhost, or allow * alone", scheme)
	}
	if len(scheme)+len("://")+len(host) > maxApp {
		return "", fmt.Errorf("is longer than %d characters", maxApp)
	}
	if host == "" {
		return "", errors.New(`has no host after "://", such as capacitor://localhost`)
	}
	if strings.Contains(host, "@") {
		return "", errors.New(`has user info: remove everything from after "://" up to the "@"`)
	}
	if strings.Contains(host, "*") {
		return "", errors.New("has a wildcard, which only https:// and http:// may have; list each by itself, or allow * alone")
	}
	if strings.ContainsAny(host, "/?#") {
		return "", errors.New("has a path, a query or a fragment: an origin ends after the host")
	}
	if strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:") != "" {
		return "", errors.New("has a character in its host that no origin has")
	}
	return scheme + "://" + host, nil
}

// Any reports whether every page may call, even one without an origin of its own (null).
func (b Browsers) Any() bool { return b.any }

// Allows reports whether the page with this Origin header may call. It compares the exact text that browsers
// send.
func (b Browsers) Allows(origin string) bool {
	if b.any || b.web.Allows(origin) {
		return true
	}
	_, listed := b.apps[origin]
	return listed
}
