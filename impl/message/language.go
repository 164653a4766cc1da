package message

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/language"
)

const (
	// maxAcceptLanguage and maxWishes bound the parsing of a caller's header. A longer one is ignored, as are
	// more languages. Browsers send less than 100 bytes.
	maxAcceptLanguage = 256
	maxWishes         = 8

	// maxTag bounds the language of an account, which its user can set. RFC 5646, section 4.4.1, calls 35
	// characters enough.
	maxTag = 35
)

// kind is a base language in one script. Readers of one variety understand the others of its kind: Brazilian
// Portuguese and that of Portugal are one kind, the two scripts of Chinese are two.
type kind struct{ base, script string }

// written maps spoken languages to the language that their speakers write. CLDR's own table (languageMatching) goes
// further: it gives Spanish to Catalans and English to the Welsh, who did not ask for it.
var written = map[string]string{
	"gsw": "de",
	"yue": "zh", "wuu": "zh", "nan": "zh", "hak": "zh", "gan": "zh", "hsn": "zh",
	"arz": "ar", "ary": "ar", "arq": "ar", "aeb": "ar", "apc": "ar", "ajp": "ar", "acm": "ar", "afb": "ar",
}

// languages are the languages that the mail has.
type languages struct {
	tags     []language.Tag // English first
	exact    map[string]int // by canonical tag
	kinds    map[kind]int
	fallback int
}

func newLanguages(tags []language.Tag) languages {
	l := languages{tags: tags, exact: map[string]int{}, kinds: map[kind]int{}}
	for i, tag := range tags {
		l.exact[canonical(tag).String()] = i
		k := kindOf(tag)
		// Of several languages of a kind, all others get the one without a region.
		if other, ok := l.kinds[k]; !ok || len(tag.String()) < len(tags[other].String()) {
			l.kinds[k] = i
		}
	}
	return l
}

// find returns the language with exactly that tag, or the first language for an empty tag.
func (l *languages) find(tag string) (int, error) {
	if tag == "" {
		return 0, nil
	}
	if parsed, err := language.Parse(tag); err == nil {
		if i, ok := l.exact[canonical(parsed).String()]; ok {
			return i, nil
		}
	}
	return 0, fmt.Errorf("must be one of the mail's languages: %s", strings.Join(l.names(), ", "))
}

func (l *languages) names() []string {
	names := make([]string, len(l.tags))
	for i, tag := range l.tags {
		names[i] = tag.String()
	}
	return names
}

// choose returns the language for a reader: of a kind that the account or the header asks for, or else the
// default language.
func (l *languages) choose(account, header string) int {
	if account != "" && len(account) <= maxTag {
		if i, ok := l.match(account); ok {
			return i
		}
	}
	for _, wish := range wishes(header) {
		if i, ok := l.match(wish); ok {
			return i
		}
	}
	return l.fallback
}

// match returns the language for a tag: the same, its nearest parent (es-419 for es-MX), or else another of its
// kind.
func (l *languages) match(text string) (int, bool) {
	tag, err := language.Parse(text)
	var unknown language.ValueError // one part is of no use, and the others are
	if err != nil && !errors.As(err, &unknown) {
		return 0, false
	}
	if base, _, _ := tag.Raw(); base.String() == "und" { // of any language
		return 0, false
	}
	tag = canonical(tag)
	k := kindOf(tag)
	if i, ok := l.exact[withScript(tag).String()]; ok { // zh-Hant-HK for zh-HK
		return i, true
	}
	for t := tag; t != language.Und; t = t.Parent() {
		if i, ok := l.exact[t.String()]; ok && kindOf(l.tags[i]) == k {
			return i, true
		}
	}
	i, ok := l.kinds[k]
	return i, ok
}

// canonical returns a tag with its language, script and region alone, by their newest names.
func canonical(tag language.Tag) language.Tag {
	tag, _ = language.All.Canonicalize(tag)
	base, script, region := tag.Raw()
	if made, err := language.Compose(base, script, region); err == nil {
		return made
	}
	return tag
}

// withScript adds the script that a tag implies.
func withScript(tag language.Tag) language.Tag {
	base, _, region := tag.Raw()
	script, _ := tag.Script()
	if made, err := language.Compose(base, script, region); err == nil {
		return made
	}
	return tag
}

func kindOf(tag language.Tag) kind {
	base, _ := tag.Base()
	script, _ := tag.Script()
	k := kind{base.String(), script.String()}
	if other, ok := written[k.base]; ok {
		k.base = other
	}
	return k
}

// direction returns ltr or rtl, as the script of a language runs.
// https://www.w3.org/International/questions/qa-scripts
func direction(tag language.Tag) string {
	script, _ := tag.Script()
	switch script.String() {
	case "Arab", "Hebr", "Thaa", "Syrc", "Nkoo", "Adlm", "Rohg", "Mand", "Samr", "Mend":
		return "rtl"
	}
	return "ltr"
}

// wishes returns the languages of an Accept-Language header (RFC 9110, section 12.5.4), the most wanted first,
// without malformed ones.
func wishes(header string) []string {
	if len(header) > maxAcceptLanguage {
		return nil
	}
	type wish struct {
		tag     string
		quality float64
	}
	var all []wish
	for item := range strings.SplitSeq(header, ",") {
		tag, parameters, weighed := strings.Cut(item, ";")
		tag = strings.TrimSpace(tag)
		quality := 1.0
		if weighed {
			value, ok := strings.CutPrefix(strings.TrimSpace(parameters), "q=")
			var err error
			if quality, err = strconv.ParseFloat(value, 64); !ok || err != nil {
				continue
			}
		}
		if tag == "" || !(quality > 0) { // NaN is not
			continue
		}
		if all = append(all, wish{tag, min(quality, 1)}); len(all) == maxWishes {
			break
		}
	}
	slices.SortStableFunc(all, func(a, b wish) int {
		switch {
		case a.quality > b.quality:
			return -1
		case a.quality < b.quality:
			return 1
		}
		return 0
	})
	tags := make([]string, len(all))
	for i, w := range all {
		tags[i] = w.tag
	}
	return tags
}
