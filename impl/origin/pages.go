package origin

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Links has the settings that say where links may lead.
type Links struct {
	Site      Origin   // the default; may be the zero Origin
	Path      string   // of the page at the site, and at each origin without a path of its own; see CheckPath
	Callbacks []string // further origins as for NewList, with or without a path of their own; and apps
	// Redirected says that links are Supabase's own, which redirect to the page. Otherwise links lead to the
	// page itself.
	Redirected bool
}

// Pages is an allow-list of the pages that a link may lead to. It does not change once it is made. The zero Pages
// has none.
type Pages struct {
	origins List
	site    string            // the page at the site; empty without a site
	path    string            // of pages whose origin has no path of its own
	apps    map[string]string // by the text that a caller has to send
	all     []string
}

// NewPages makes the list. Its error reports all mistakes in the callbacks together.
//
// An app is an address with a scheme of its own (io.example.app://reset). It gets no path, and a caller has to
// send the same text.
func NewPages(links Links) (Pages, error) {
	p := Pages{origins: newList(), path: links.Path, apps: map[string]string{}}
	if links.Site != (Origin{}) {
		p.site = links.Site.String() + links.Path
		p.origins.exact[links.Site] = ""
		p.all = append(p.all, p.site)
	}
	err := eachEntry(links.Callbacks, func(entry string) error {
		page, err := p.add(entry, links)
		if err == nil && !slices.Contains(p.all, page) {
			p.all = append(p.all, page)
		}
		return err
	})
	if err != nil {
		return Pages{}, err
	}
	return p, nil
}

// add returns the page of an entry, with its wildcard label.
func (p *Pages) add(entry string, links Links) (page string, err error) {
	scheme, rest, found := strings.Cut(entry, "://")
	if found && isAppScheme(scheme) {
		if !links.Redirected {
			return "", errors.New("is an app's own scheme, which mail programs do not open: list the https address of an app link (universal link) instead, or set LINK_MODE=action_link, whose link is https and leads there")
		}
		if err := checkApp(scheme, rest); err != nil {
			return "", err
		}
		p.apps[entry] = entry
		return entry, nil
	}
	own := ""
	if end := strings.IndexAny(rest, "/?#"); end >= 0 && rest[end:] != "/" {
		entry, own = scheme+"://"+rest[:end], rest[end:]
		if err := CheckPath(own, links.Redirected); err != nil {
			return "", fmt.Errorf("has a path that %w", err)
		}
		if o, err := ParseSetting(entry); err == nil && o == links.Site && own != links.Path {
			return "", errors.New("is SITE_URL, whose path is RESET_PATH: remove the path here")
		}
	}
	if own == links.Path {
		own = ""
	}
	origin, err := p.origins.add(entry, own)
	return origin + cmp.Or(own, links.Path), err
}

// ParseSite is ParseSetting for SITE_URL.
func ParseSite(s string) (Origin, error) {
	o, err := ParseSetting(s)
	if err == nil {
		return o, nil
	}
	scheme, rest, found := strings.Cut(strings.TrimSpace(s), "://")
	switch {
	case found && isAppScheme(scheme):
		return Origin{}, errors.New("must begin with https:// (or http://); an app's own scheme belongs into CALLBACK_ORIGINS")
	case found && strings.Contains(rest, "/") && !strings.Contains(rest, "@"):
		return Origin{}, fmt.Errorf("%w; the path of the page belongs into RESET_PATH", err)
	}
	return Origin{}, err
}

// CheckPath judges a path that is appended to an origin: a path with or without a query, or with the
// route of a hash router (/#/reset).
func CheckPath(path string, redirected bool) error {
	before, fragment, hasFragment := strings.Cut(path, "#")
	_, query, hasQuery := strings.Cut(before, "?")
	switch {
	case !strings.HasPrefix(path, "/"), strings.HasPrefix(path, "//"):
		return errors.New("must begin with one slash, like /reset-password")
	case strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`\"<>`, r) }):
		return errors.New("must have no spaces, and of other characters only those of an address: write others as %XX")
	case hasQuery && query == "":
		return errors.New(`must have something after its "?"`)
	case hasFragment && redirected:
		// It would be https://app.example.com/#/reset#access_token=…, and without the route where the
		// link is no good (v2.196: tokens.AsRedirectURL, api.prepErrorRedirectURL).
		return errors.New(`must have no "#" with LINK_MODE=action_link: Supabase puts the session there. Use a page without it, or LINK_MODE=token_hash`)
	case hasFragment && !strings.HasPrefix(fragment, "/") && !strings.HasPrefix(fragment, "!/"), strings.Contains(fragment, "#"):
		return errors.New(`must have the route of a hash router after its "#", like /#/reset`)
	}
	_, route, _ := strings.Cut(fragment, "?")
	for pair := range strings.SplitSeq(query+"&"+route, "&") {
		if name, _, _ := strings.Cut(pair, "="); name == "token_hash" || name == "type" {
			return errors.New("must leave token_hash and type to the link")
		}
	}
	return nil
}

// webSchemes are the schemes that no app may own: browsers open them themselves, or hand them to other programs.
var webSchemes = []string{"about", "blob", "chrome", "content", "data", "file", "filesystem", "ftp", "intent", "javascript", "mailto", "sms", "tel", "vbscript", "view-source", "ws", "wss"}

// isAppScheme reports whether a scheme may be an app's own (RFC 8252, section 7.1), and not http or https, spelt
// rightly or wrongly.
func isAppScheme(scheme string) bool {
	scheme = lowerASCII(scheme)
	return isScheme(scheme) && !slices.Contains(webSchemes, scheme) && (!strings.HasPrefix(scheme, "ht") || strings.Contains(scheme, "."))
}

// checkApp judges the address of an app, given in its scheme and the rest.
func checkApp(scheme, rest string) error {
	switch {
	case scheme != lowerASCII(scheme):
		return errors.New("must have its scheme in lower case")
	case len(scheme)+len("://")+len(rest) > maxLength:
		return fmt.Errorf("must have at most %d characters", maxLength)
	case strings.Trim(rest, "/") == "", rest[0] == '/':
		return errors.New(`must have a name after "://", like io.example.app://reset`)
	case strings.Trim(rest, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/") != "":
		return errors.New(`must have only letters, digits and - . _ ~ : / after "://"`)
	}
	return nil
}

// Site returns the page at the site, or "" if there is none.
func (p Pages) Site() string { return p.site }

// All returns every page, the site's first, each with the * of its wildcard.
func (p Pages) All() []string { return slices.Clone(p.all) }

// Origins returns the origins of the pages. Apps have no origin.
func (p Pages) Origins() List { return p.origins }

// WithLoopback returns the pages with those at every origin of this machine added, like WithLoopback of List.
func (p Pages) WithLoopback() Pages {
	p.origins = p.origins.WithLoopback()
	return p
}

// Resolve returns the page that a link leads to: the page of a listed callback, the site's page for an empty
// callback, and the site's page and false for any other. The page is always one of the operator's, or empty
// without a site.
func (p Pages) Resolve(callback string) (page string, allowed bool) {
	if callback == "" {
		return p.site, p.site != ""
	}
	if app, listed := p.apps[callback]; listed {
		return app, true
	}
	if o, err := Parse(callback); err == nil {
		if own, listed := p.origins.find(o); listed {
			return o.String() + cmp.Or(own, p.path), true
		}
	}
	return p.site, false
}
