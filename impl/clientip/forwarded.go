package clientip

import "strings"

// parseForwarded returns the for= node of each element of a Forwarded line, first to last (RFC 7239, section
// 4), without an obfuscated port. An element without for= gives a node that is no address. A line that is no
// list of elements gives false: a quoted string that the client has left open would hide the elements that
// proxies have added after it.
//
// It accepts what the RFC does not allow and proxies write: blanks around semicolons, and colons and brackets
// outside of quotes.
func parseForwarded(line string) (nodes []string, ok bool) {
	for more := true; more; {
		var node string
		var filled bool
		node, filled, line, more, ok = parseElement(line)
		if !ok {
			return nil, false
		}
		if filled { // empty elements do not count (RFC 9110, section 5.6.1.2)
			nodes = append(nodes, node)
		}
	}
	return nodes, true
}

// hidden is the node of an element without for=.
const hidden = "unknown"

// parseElement reads up to the next comma. filled is false for an empty element, more
// for the last one.
func parseElement(s string) (node string, filled bool, rest string, more, ok bool) {
	node = hidden
	seen := false
	for {
		s = strings.TrimLeft(s, " \t")
		name := token(s, "")
		s = s[len(name):]
		if name != "" {
			var value string
			if s, ok = strings.CutPrefix(s, "="); !ok {
				return "", false, "", false, false
			}
			if value, s, ok = parseValue(s); !ok {
				return "", false, "", false, false
			}
			filled = true
			if strings.EqualFold(name, "for") {
				if seen {
					return "", false, "", false, false
				}
				node, seen = withoutObfuscatedPort(value), true
			}
		}
		switch s = strings.TrimLeft(s, " \t"); {
		case s == "":
			return node, filled, "", false, true
		case s[0] == ',':
			return node, filled, s[1:], true, true
		case s[0] != ';':
			return "", false, "", false, false
		}
		s = s[1:]
	}
}

// parseValue reads a token or a quoted string.
func parseValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value = token(s, ":[]")
		return value, s[len(value):], value != ""
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			value = s[1:i]
			if strings.Contains(value, `\`) {
				value = unescape(value)
			}
			return value, s[i+1:], true
		}
	}
	return "", "", false
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		}
		b.WriteByte(s[i]) // a backslash is never last: the quote after it would not have ended the string
	}
	return b.String()
}

// token returns the longest beginning of s whose characters are those of a token (RFC 9110, section 5.6.2), or
// in more.
func token(s, more string) string {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', strings.IndexByte("!#$%&'*+-.^_`|~"+more, c) >= 0:
		default:
			return s[:i]
		}
	}
	return s
}

// withoutObfuscatedPort removes a port like ":_mk" (RFC 7239, section 6.3).
func withoutObfuscatedPort(node string) string {
	if i := strings.LastIndex(node, ":_"); i >= 0 && len(node) > i+2 && token(node[i+2:], "") == node[i+2:] {
		return node[:i]
	}
	return node
}
