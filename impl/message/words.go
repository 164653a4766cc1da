package message

import (
	"errors"
	"fmt"
	"html"
	htmltemplate "html/template"
	"regexp"
	"strconv"
	"strings"
	texttemplate "text/template"
	"time"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/bidi"
)

// sentences are the blocks of a language's file that a message shows. subject
// and button cannot be empty.
var sentences = []string{
	"subject", "preheader", "heading", "greeting", "asked", "button", "valid", "ignore", "repeated", "copy", "help",
}

// durations are the blocks for lengths of time. The first three get a number, and the last one two lengths.
var durations = []string{"minutes", "hours", "days", "and"}

// brandToken stands for the brand's name while words are rendered, so that the name can be isolated in each
// place. Its characters are for private use.
const brandToken = "\ue0a1brand\ue0a1"

// wordsData is the data of a language's blocks. It must not have the link, because a lock screen shows some of
// the words.
type wordsData struct {
	Language  string
	Brand     wordsBrand
	ExpiresIn string // in words: "24 hours"
}

type wordsBrand struct{ Name, SupportEmail, SupportURL string }

type twoLengths struct{ First, Second string }

// words are the rendered blocks of a language, with brandToken where the
// brand's name goes.
type words map[string]string

var (
	whiteSpace = regexp.MustCompile(`[ \t\n]+`) // without the no-break space
	// cannotEvaluate matches text/template's error about a field that its data lacks.
	cannotEvaluate = regexp.MustCompile(` in type \*?message\.\w+`)
)

// renderWords executes the blocks of a language. It also returns the life of the link in words.
func renderWords(tag language.Tag, blocks blocks, opts Options) (said words, expiresIn string, err error) {
	set := texttemplate.New("").Funcs(wordFuncs(tag))
	for name, b := range blocks {
		if _, err := set.AddParseTree(name, b.tree); err != nil {
			return nil, "", fmt.Errorf("%s: %w", b.path, err)
		}
	}
	block := func(name string, data any) (string, error) {
		var b strings.Builder
		if err := set.ExecuteTemplate(&b, name, data); err != nil {
			return "", templateError(err, data)
		}
		text := strings.TrimSpace(whiteSpace.ReplaceAllString(b.String(), " "))
		switch {
		case strings.ContainsFunc(text, breaksLine):
			return "", fmt.Errorf("%s: the block %q has a control character", blocks[name].path, name)
		case strings.Count(text, brandToken[:3]) != 2*strings.Count(text, brandToken):
			return "", fmt.Errorf("%s: the block %q does something to {{.Brand.Name}}", blocks[name].path, name)
		}
		return text, nil
	}
	data := wordsData{Language: tag.String(), Brand: wordsBrand{brandToken, opts.Brand.SupportEmail, opts.Brand.SupportURL}}
	if data.ExpiresIn, err = inWords(opts.LinkExpiresIn, block); err != nil {
		return nil, "", err
	}
	said = words{}
	for _, name := range sentences {
		if said[name], err = block(name, data); err != nil {
			return nil, "", err
		}
		if said[name] == "" && (name == "subject" || name == "button") {
			return nil, "", fmt.Errorf("%s: the block %q is empty", blocks[name].path, name)
		}
	}
	return said, data.ExpiresIn, nil
}

// withBrand puts the brand's name into words. If the name ends with a full stop, it drops the one of the
// sentence.
func withBrand(text, name, shown string) string {
	if strings.HasSuffix(name, ".") {
		text = strings.ReplaceAll(text, brandToken+".", brandToken)
	}
	return strings.ReplaceAll(text, brandToken, shown)
}

// isolated puts the name between Unicode's isolates (UAX #9), where text runs, or may run, from right to left: the
// full stop of "Acme Inc." would otherwise be shown before it. Markup is not enough: a subject has none, and
// Gmail, Outlook.com and Yahoo drop <bdi> (caniemail.com).
func isolated(tag language.Tag, name string) string {
	if direction(tag) == "rtl" || strings.ContainsFunc(name, runsLeft) {
		return "\u2068" + name + "\u2069"
	}
	return name
}

// asText returns the words for the subject and the text.
func (w words) asText(tag language.Tag, name string) map[string]any {
	filled := map[string]any{}
	for key, text := range w {
		filled[key] = withBrand(text, name, isolated(tag, name))
	}
	return filled
}

// asHTML returns the words for the HTML: escaped, and with the name in <bdi>. The subject stays text, because
// <title> can have no markup.
func (w words) asHTML(tag language.Tag, name string) map[string]any {
	filled := map[string]any{}
	for key, text := range w {
		filled[key] = htmltemplate.HTML(withBrand(html.EscapeString(text), name, "<bdi>"+html.EscapeString(isolated(tag, name))+"</bdi>")) //nolint:gosec // escaped
	}
	filled["subject"] = w.asText(tag, name)["subject"]
	return filled
}

func runsLeft(r rune) bool {
	properties, _ := bidi.LookupRune(r)
	return properties.Class() == bidi.R || properties.Class() == bidi.AL
}

var pluralForms = map[string]plural.Form{
	"zero": plural.Zero, "one": plural.One, "two": plural.Two, "few": plural.Few, "many": plural.Many, "other": plural.Other,
}

// wordFuncs are the functions of a language's blocks beside Go's own.
func wordFuncs(tag language.Tag) texttemplate.FuncMap {
	return texttemplate.FuncMap{
		// plural chooses words for a number by CLDR's rules for the language, out of pairs of a category and
		// words; # is the number.
		// https://www.unicode.org/cldr/charts/latest/supplemental/language_plural_rules.html
		"plural": func(n int, pairs ...string) (string, error) {
			forms := map[plural.Form]string{}
			if len(pairs)%2 != 0 {
				return "", errors.New("wants pairs of a category and words")
			}
			for i := 0; i < len(pairs); i += 2 {
				form, known := pluralForms[pairs[i]]
				if !known {
					return "", fmt.Errorf("knows no category %q: there are zero, one, two, few, many and other", pairs[i])
				}
				forms[form] = pairs[i+1]
			}
			said, ok := forms[plural.Cardinal.MatchPlural(tag, n, 0, 0, 0, 0)]
			if !ok {
				if said, ok = forms[plural.Other]; !ok {
					return "", errors.New(`wants words for the category "other"`)
				}
			}
			return strings.ReplaceAll(said, "#", strconv.Itoa(n)), nil
		},
	}
}

// inWords writes a duration as people do: in minutes below two hours unless it is one hour, in hours up to three
// days ("24 hours", "36 hours"), then in days; in two units where one is not enough. It rounds down.
func inWords(d time.Duration, block func(name string, data any) (string, error)) (string, error) {
	const hour, day = 60, 24 * 60
	total := int(d / time.Minute)
	units := []struct {
		name string
		n    int
	}{{"hours", total / hour}, {"minutes", total % hour}}
	switch {
	case total < 2*hour && total%hour != 0:
		units[0].n, units[1].n = 0, total
	case total >= 3*day:
		units[0].name, units[0].n = "days", total/day
		units[1].name, units[1].n = "hours", total%day/hour
	}
	var said []string
	for _, unit := range units {
		if unit.n == 0 {
			continue
		}
		length, err := block(unit.name, unit.n)
		if err != nil {
			return "", err
		}
		said = append(said, length)
	}
	if len(said) == 1 {
		return said[0], nil
	}
	return block("and", twoLengths{said[0], said[1]})
}
