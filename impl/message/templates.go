package message

import (
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	texttemplate "text/template"
	"time"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/text/language"
)

const (
	layoutHTML = "layout.html"
	layoutText = "layout.txt"
	sentences  = ".tmpl" // the extension of a language's file

	// placeholder stands for the link while templates are rendered. Its scheme
	// passes html/template's filter and nothing in it needs escaping, so it
	// comes out as it is wherever a link can stand. token alone also shows up
	// where a context rewrites it (a script, a query).
	placeholder = "https://link.invalid/" + token
	token       = "41c7de9be2f24f6fa8a1b0f7ce5b3d60"

	// probe is a link with everything in it that needs escaping.
	probe = "https://probe.invalid/?a=1&b=2#'\"<>`=" + token

	// lineLength is where text is broken (RFC 5322, section 2.1.1).
	lineLength = 78

	// maxHTML: Gmail cuts a message off at 102 KB, and what it cuts is the end
	// of this one.
	maxHTML = 100 << 10
)

// required are the blocks that a language's file has to define. With the
// number as their data, the last three say a length of time.
var required = []string{
	"subject", "preheader", "heading", "greeting", "asked", "button", "valid", "ignore", "copy", "help",
	"days", "hours", "minutes",
}

// data is what templates see. The recipient is not in it, and never will be.
type data struct {
	Language  string
	Brand     Brand
	ExpiresIn string // in words: "1 hour"
	Link      string
}

//go:embed templates
var builtIn embed.FS

// file is a template before it is parsed. Its path is what errors call it.
type file struct {
	path string
	text string
}

// fileSet holds the templates by their names relative to the directory.
type fileSet map[string]file

// readFiles returns the built-in templates, overlaid with those in dir.
func readFiles(dir string) (fileSet, error) {
	set := fileSet{}
	root, err := fs.Sub(builtIn, "templates")
	if err != nil {
		return nil, err
	}
	if err := set.read(root, func(name string) string { return "built-in " + name }); err != nil {
		return nil, err
	}
	if dir == "" {
		return set, nil
	}
	if err := set.read(os.DirFS(dir), func(name string) string { return filepath.Join(dir, name) }); err != nil {
		return nil, err
	}
	return set, nil
}

// read adds the templates of root. Everything that is not one is passed over,
// dot files first of all (Kubernetes mounts its ..data beside them), but not
// what looks like one: a misspelt name would silently leave the built-in file
// in force.
func (set fileSet) read(root fs.FS, path func(name string) string) error {
	entries, err := fs.ReadDir(root, ".")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		ext := filepath.Ext(name)
		if strings.HasPrefix(name, ".") || ext != ".html" && ext != ".txt" && ext != sentences {
			continue
		}
		if err := checkFileName(name); err != nil {
			return fmt.Errorf("%s: %w", path(name), err)
		}
		content, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		if !utf8.Valid(content) {
			return fmt.Errorf("%s: is not valid UTF-8", path(name))
		}
		text := strings.TrimPrefix(string(content), "\ufeff")
		set[name] = file{path: path(name), text: strings.ReplaceAll(text, "\r\n", "\n")}
	}
	return nil
}

func checkFileName(name string) error {
	if name == layoutHTML || name == layoutText {
		return nil
	}
	stem, ok := strings.CutSuffix(name, sentences)
	if !ok {
		return fmt.Errorf("no template has this name; there are %s, %s, and a language's en%s", layoutHTML, layoutText, sentences)
	}
	tag, err := language.Parse(stem)
	if err != nil || tag == language.Und {
		return fmt.Errorf("is not named after a language (BCP 47), such as pt-BR%s", sentences)
	}
	if tag.String() != stem {
		return fmt.Errorf("must be named %s%s", tag, sentences)
	}
	return nil
}

// languages returns the tags there are files for, English first because the
// first one is the matcher's fall-back.
func (set fileSet) languages() []language.Tag {
	var tags []language.Tag
	for name := range set {
		if stem, ok := strings.CutSuffix(name, sentences); ok {
			tags = append(tags, language.MustParse(stem))
		}
	}
	slices.SortFunc(tags, func(a, b language.Tag) int {
		switch {
		case a == language.English:
			return -1
		case b == language.English:
			return 1
		}
		return strings.Compare(a.String(), b.String())
	})
	return tags
}

// render makes the page of one language.
func (set fileSet) render(tag language.Tag, opts Options) (page, error) {
	words, text, markup := set[tag.String()+sentences], set[layoutText], set[layoutHTML]

	// The same sentences are parsed twice, by the engine that leaves them
	// alone and by the one that escapes for HTML.
	texts, err := texttemplate.New(words.path).Parse(words.text)
	if err == nil {
		_, err = texts.New(text.path).Parse(text.text)
	}
	if err != nil {
		return page{}, fileError(err)
	}
	for _, name := range required {
		if texts.Lookup(name) == nil {
			return page{}, fmt.Errorf("%s: the block %q is missing", words.path, name)
		}
	}
	markups, err := htmltemplate.New(words.path).Funcs(htmlFuncs).Parse(words.text)
	if err == nil {
		_, err = markups.New(markup.path).Parse(markup.text)
	}
	if err != nil {
		return page{}, fileError(err)
	}

	block := func(name string, data any) (string, error) {
		var b strings.Builder
		if err := texts.ExecuteTemplate(&b, name, data); err != nil {
			return "", fmt.Errorf("%s: %w", words.path, err)
		}
		return strings.TrimSpace(b.String()), nil
	}
	d := data{Language: tag.String(), Brand: opts.Brand, Link: placeholder}
	if d.ExpiresIn, err = inWords(opts.LinkExpiresIn, block); err != nil {
		return page{}, err
	}

	p := page{language: d.Language}
	if p.subject, err = block("subject", d); err != nil {
		return page{}, err
	}
	if p.subject == "" || strings.ContainsFunc(p.subject, breaksLine) || strings.Contains(p.subject, token) {
		return page{}, fmt.Errorf("%s: the subject has to be one line, and not the link", words.path)
	}

	var b strings.Builder
	if err := texts.ExecuteTemplate(&b, text.path, d); err != nil {
		return page{}, fmt.Errorf("%s with %s: %w", text.path, words.path, err)
	}
	if p.text, err = cutText(wrap(strings.TrimSpace(b.String())) + "\n"); err != nil {
		return page{}, fmt.Errorf("%s with %s: %w", text.path, words.path, err)
	}

	b.Reset()
	if err := markups.ExecuteTemplate(&b, markup.path, d); err != nil {
		return page{}, fmt.Errorf("%s with %s: %w", markup.path, words.path, err)
	}
	if p.html, err = cutHTML(strings.TrimSpace(b.String()) + "\n"); err != nil {
		return page{}, fmt.Errorf("%s with %s: %w", markup.path, words.path, err)
	}
	return p, nil
}

// fileError takes the package's prefix off a parse error: what follows it is
// "path:line: mistake".
func fileError(err error) error {
	return errors.New(strings.TrimPrefix(strings.TrimPrefix(err.Error(), "html/"), "template: "))
}

// inWords says how long d is, in the words of a language's file: in the
// largest unit that fits, up to two hours in minutes if it is no whole hour,
// and in several units otherwise. Parts of a minute are dropped.
func inWords(d time.Duration, block func(name string, n any) (string, error)) (string, error) {
	const hour, day = 60, 24 * 60
	total := int(d / time.Minute)
	var days, hours, minutes int
	switch {
	case total%day == 0:
		days = total / day
	case total < 2*hour && total%hour != 0:
		minutes = total
	case total < 2*day:
		hours, minutes = total/hour, total%hour
	default:
		days, hours, minutes = total/day, total%day/hour, total%hour
	}
	var said []string
	for _, unit := range []struct {
		name string
		n    int
	}{{"days", days}, {"hours", hours}, {"minutes", minutes}} {
		if unit.n == 0 {
			continue
		}
		words, err := block(unit.name, unit.n)
		if err != nil {
			return "", err
		}
		said = append(said, words)
	}
	return strings.Join(said, " "), nil
}

// wrap breaks lines at spaces (not at no-break spaces) so that none is longer
// than lineLength characters. A word that is longer by itself stays whole, and
// so does the line of the link, whose real length is not known here.
func wrap(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if utf8.RuneCountInString(line) <= lineLength || strings.Contains(line, placeholder) {
			continue
		}
		var b strings.Builder
		length := 0
		for n, word := range strings.Split(line, " ") {
			size := utf8.RuneCountInString(word)
			switch {
			case n == 0:
			case length+1+size > lineLength:
				b.WriteByte('\n')
				length = 0
			default:
				b.WriteByte(' ')
				length++
			}
			b.WriteString(word)
			length += size
		}
		lines[i] = b.String()
	}
	return strings.Join(lines, "\n")
}

// cutText cuts a text at its links, each of which has to have a line to
// itself: programs that make text clickable guess where a link ends.
func cutText(text string) ([]string, error) {
	parts := strings.Split(text, placeholder)
	if len(parts) == 1 || strings.Count(text, token) != len(parts)-1 {
		return nil, errors.New("{{.Link}} is missing, or something is done to it")
	}
	for i, part := range parts {
		after := i == 0 || strings.HasPrefix(part, "\n")
		before := i == len(parts)-1 || part == "" && i == 0 || strings.HasSuffix(part, "\n")
		if !after || !before {
			return nil, errors.New("{{.Link}} has to stand on a line by itself")
		}
	}
	return parts, nil
}

// cutHTML cuts a document at its links, and makes sure that a link can be put
// there with plain HTML escaping: it reads back a difficult one through an
// HTML parser and finds it whole, everywhere, between tags or as the value of
// an href, and at least once as the latter.
func cutHTML(document string) ([]string, error) {
	if len(document) > maxHTML {
		return nil, fmt.Errorf("the message has %d bytes, and mail programs cut off more than %d", len(document), maxHTML)
	}
	parts := strings.Split(document, placeholder)
	used := strings.Count(document, token)
	root, err := html.Parse(strings.NewReader(strings.Join(parts, html.EscapeString(probe))))
	if err != nil {
		return nil, err
	}
	hrefs, shown := 0, 0
	for n := range root.Descendants() {
		switch n.Type {
		case html.TextNode:
			shown += strings.Count(n.Data, probe)
		case html.ElementNode:
			for _, a := range n.Attr {
				if n.Data == "a" && a.Key == "href" && a.Val == probe {
					hrefs++
				}
			}
		}
	}
	if hrefs == 0 {
		return nil, errors.New(`<a href="{{.Link}}"> is missing`)
	}
	if hrefs+shown != used {
		return nil, errors.New(`{{.Link}} can only stand between tags or as the whole value of href in <a href="{{.Link}}">`)
	}
	return parts, nil
}

// htmlFuncs are the functions that layout.html may use beside Go's own.
var htmlFuncs = htmltemplate.FuncMap{
	// mso writes markup for Outlook for Windows alone.
	"mso": func(markup string) htmltemplate.HTML {
		return htmltemplate.HTML("<!--[if mso]>" + markup + "<![endif]-->") //nolint:gosec // the argument comes from a template, which the operator owns
	},
	// filler is invisible space (combining grapheme joiner, zero-width
	// non-joiner, no-break space) that fills the rest of an inbox's preview
	// line, which would otherwise go on with the body.
	"filler": func() htmltemplate.HTML {
		return htmltemplate.HTML(strings.Repeat("\u034f\u200c\u00a0", 80)) //nolint:gosec // a constant
	},
}
