package devstack

import (
	"net"
	"net/url"
	"regexp"
	"strings"
)

// redirectRules decide, as Supabase Auth does, whether a redirect_to may be used.
// https://supabase.com/docs/guides/auth/redirect-urls
type redirectRules struct {
	site     *url.URL // nil if SiteURL is empty or no URL: then only the patterns count
	patterns []*regexp.Regexp
}

func newRedirectRules(siteURL string, allowList []string) redirectRules {
	var rules redirectRules
	if u, err := url.Parse(siteURL); err == nil && u.Host != "" {
		rules.site = u
	}
	for _, glob := range allowList {
		rules.patterns = append(rules.patterns, compileGlob(glob))
	}
	return rules
}

// allow reports whether Supabase would use redirectTo rather than replace it by SiteURL.
func (rules redirectRules) allow(redirectTo string) bool {
	if redirectTo == "" || strings.ContainsFunc(redirectTo, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return false
	}
	u, err := url.Parse(redirectTo)
	if err != nil {
		return false
	}
	host := u.Hostname()
	// Everything on the site's own origin is allowed without being listed, and on loopback
	// hosts the port is not compared (RFC 8252, section 7.3: native apps vary it).
	if s := rules.site; s != nil && s.Scheme == u.Scheme && s.Hostname() == host &&
		(s.Port() == u.Port() || isLoopbackHost(host)) {
		return true
	}
	// An IP address counts only if it is a loopback one, and then whatever the list says.
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	withoutFragment, _, _ := strings.Cut(redirectTo, "#")
	for _, p := range rules.patterns {
		if p.MatchString(withoutFragment) {
			return true
		}
	}
	return false
}

// compileGlob translates Supabase's globs: * and ? stop at the separators '.' and '/', **
// stops at nothing. Its character classes and alternatives are not needed here and are
// taken literally.
func compileGlob(glob string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A(?s:`)
	for i := 0; i < len(glob); {
		switch {
		case strings.HasPrefix(glob[i:], "**"):
			b.WriteString(`.*`)
			i += 2
		case glob[i] == '*':
			b.WriteString(`[^./]*`)
			i++
		case glob[i] == '?':
			b.WriteString(`[^./]`)
			i++
		default:
			end := i + 1
			for end < len(glob) && glob[end] != '*' && glob[end] != '?' {
				end++
			}
			b.WriteString(regexp.QuoteMeta(glob[i:end]))
			i = end
		}
	}
	b.WriteString(`)\z`)
	return regexp.MustCompile(b.String())
}

// isLoopbackHost reports whether a host name without port means this machine.
func isLoopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
