package message

import (
	"errors"
	"fmt"
	htmltemplate "html/template"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rivo/uniseg"
	"golang.org/x/net/html"
)

const (
	// probe is a link with all characters that need escaping.
	probe = "https://probe.invalid/?a=1&b=2#'\"<>`=" + token

	// lineLength bounds the lines of the text (RFC 5322, section 2.1.1).
	lineLength = 78

	// maxHTML bounds the HTML: Gmail cuts off what is beyond 102 KB.
	maxHTML = 100 << 10

	// previewLength is the number of characters that an inbox or a lock screen may show of a message. iOS
	// shows up to five lines.
	previewLength = 200
)

// wrap breaks lines that are wider than lineLength columns, where Unicode allows it (UAX #14). The line of the
// link stays whole. Several blank lines become one.
func wrap(text string) string {
	var out strings.Builder
	blank := true // so that none is left at the beginning
	for line := range strings.Lines(strings.TrimSpace(text) + "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			if !blank {
				out.WriteByte('\n')
			}
			blank = true
			continue
		}
		blank = false
		if strings.Contains(line, placeholder) {
			out.WriteString(line + "\n")
			continue
		}
		begin, end, width := 0, 0, 0 // of what the line that is being filled has
		for rest, state := line, -1; rest != ""; {
			var segment string
			segment, rest, _, state = uniseg.FirstLineSegmentInString(rest, state)
			word := strings.TrimRight(segment, " ")
			columns := uniseg.StringWidth(word)
			if end > begin && width+columns > lineLength {
				out.WriteString(strings.TrimRight(line[begin:end], " ") + "\n")
				begin, width = end, 0
			}
			end += len(segment)
			width += columns + len(segment) - len(word)
		}
		out.WriteString(strings.TrimRight(line[begin:], " ") + "\n")
	}
	return out.String()
}

// cutText cuts a text at its links. Each link must have a line of its own, because programs that make text
// clickable guess where a link ends.
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

// checkHTML checks that links can be put into a document with plain HTML escaping, and that the document has
// nothing that does not belong into a mail. It reads a document with a difficult link through an HTML parser: the
// link must come out whole, only between tags or as the value of an href, and at least once as an href.
func checkHTML(document string, logos ...string) error {
	if len(document) > maxHTML {
		return fmt.Errorf("the message has %d bytes, and mail programs cut off more than %d", len(document), maxHTML)
	}
	root, err := html.Parse(strings.NewReader(strings.ReplaceAll(document, placeholder, html.EscapeString(probe))))
	if err != nil {
		return err
	}
	r := reader{logos: logos}
	if err := r.read(root); err != nil {
		return err
	}
	switch {
	case r.hrefs == 0:
		return errors.New(`<a href="{{.Link}}"> is missing`)
	case r.hrefs+r.shown != strings.Count(document, token):
		return errors.New(`{{.Link}} can only stand between tags or as the whole value of href in <a href="{{.Link}}">`)
	}
	return nil
}

// reader reads a document as a mail program does.
type reader struct {
	logos        []string // which pictures may be fetched
	hrefs, shown int      // links found
	before       int      // characters of the body before what is read
	inBody       bool
}

// elements are the elements that a mail may have. Scripts, forms, frames and others that load something are not
// among them.
var elements = strings.Fields(`html head title meta style body
	a abbr address article b bdi bdo blockquote br center code div em font footer h1 h2 h3 h4 h5 h6 header hr i img
	li main ol p pre s section small span strong sub sup u ul
	table caption col colgroup tbody td tfoot th thead tr
	xml o:officedocumentsettings o:pixelsperinch o:allowpng`)

// attributes are the forbidden attributes, which fetch or do something.
var attributes = strings.Fields("action background data dynsrc formaction http-equiv longdesc lowsrc ping poster srcdoc srcset xlink:href")

// fetching are the forbidden pieces of CSS, which can fetch something or hide that.
var fetching = []string{"url(", "image(", "image-set(", "src(", "@import", "expression(", "binding", "\\"}

func (r *reader) read(n *html.Node) error {
	switch n.Type {
	case html.TextNode:
		return r.readText(n)
	case html.CommentNode:
		return r.readComment(n.Data)
	case html.ElementNode:
		if err := r.readElement(n); err != nil {
			return err
		}
	}
	for child := range n.ChildNodes() {
		if err := r.read(child); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) readElement(n *html.Node) error {
	if !slices.Contains(elements, n.Data) {
		return fmt.Errorf("<%s> has no place in a mail", n.Data)
	}
	r.inBody = r.inBody || n.Data == "body"
	for _, a := range n.Attr {
		name := a.Key
		if a.Namespace != "" {
			name = a.Namespace + ":" + a.Key
		}
		switch {
		case strings.HasPrefix(name, "on"), slices.Contains(attributes, name):
			return fmt.Errorf("the attribute %s of <%s> has no place in a mail", name, n.Data)
		case name == "src" && (n.Data != "img" || !slices.Contains(r.logos, a.Val)):
			return errors.New("a picture other than the logo would be fetched, which tells that the mail is read")
		case name == "style" && fetches(a.Val):
			return fmt.Errorf("the style of <%s> would fetch something, or has a backslash", n.Data)
		case name == "href" && n.Data == "a" && a.Val == probe:
			r.hrefs++
		case name == "href" && !opens(a.Val):
			return fmt.Errorf("the href of <%s> has to be https, http, mailto or tel", n.Data)
		}
	}
	return nil
}

// readText counts a link that is shown. It refuses one in the beginning of the mail, which an inbox or a lock
// screen shows.
func (r *reader) readText(n *html.Node) error {
	if n.Parent.Data == "style" && fetches(n.Data) {
		return errors.New("the style would fetch something, or has a backslash")
	}
	if before, _, shown := strings.Cut(n.Data, probe); shown {
		for p := n.Parent; p != nil; p = p.Parent {
			if p.Data == "title" || hides(p) {
				return errors.New("{{.Link}} stands in <title> or in what is hidden, which lock screens show")
			}
		}
		if r.before+utf8.RuneCountInString(strings.TrimSpace(before)) < previewLength {
			return fmt.Errorf("{{.Link}} is shown within the first %d characters, which lock screens show", previewLength)
		}
		r.shown += strings.Count(n.Data, probe)
	}
	if r.inBody {
		r.before += utf8.RuneCountInString(strings.TrimSpace(n.Data))
	}
	return nil
}

// readComment reads the HTML in a comment for Outlook.
func (r *reader) readComment(comment string) error {
	if strings.Contains(comment, token) {
		return nil // it is not counted, and so refused
	}
	_, markup, conditional := strings.Cut(comment, "]>")
	if !conditional || !strings.HasPrefix(comment, "[if") {
		return nil
	}
	inner, err := html.Parse(strings.NewReader(strings.TrimSuffix(markup, "<![endif]")))
	if err != nil {
		return err
	}
	outlook := reader{logos: r.logos}
	return outlook.read(inner)
}

func hides(n *html.Node) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool {
		return a.Key == "hidden" || a.Key == "style" && strings.Contains(strings.ReplaceAll(strings.ToLower(a.Val), " ", ""), "display:none")
	})
}

func fetches(css string) bool {
	css = strings.ToLower(css)
	return slices.ContainsFunc(fetching, func(piece string) bool { return strings.Contains(css, piece) })
}

// opens reports whether a link leads to a page, a mail address or a telephone number.
func opens(href string) bool {
	u, err := url.Parse(href)
	return err == nil && slices.Contains([]string{"https", "http", "mailto", "tel"}, u.Scheme)
}

// htmlFuncs are the functions that layout.html may use beside Go's own.
var htmlFuncs = htmltemplate.FuncMap{
	// mso writes markup for Outlook for Windows alone.
	"mso": func(markup string) htmltemplate.HTML {
		return htmltemplate.HTML("<!--[if mso]>" + markup + "<![endif]-->") //nolint:gosec // the argument comes from a template, which the operator owns, and is read by checkHTML
	},
	// filler is invisible space (combining grapheme joiner, zero-width
	// non-joiner, no-break space) that fills the rest of an inbox's preview
	// line, which would otherwise go on with the body.
	"filler": func() htmltemplate.HTML {
		return htmltemplate.HTML(strings.Repeat("\u034f\u200c\u00a0", 80)) //nolint:gosec // a constant
	},
}
