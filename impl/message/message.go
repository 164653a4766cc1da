// Package message owns what the mail says and how it looks: subject, text and
// HTML, in the reader's language.
//
// Each language is one file of sentences (templates/en.tmpl) that the text and
// the HTML share, so that the two cannot drift apart; two layouts put them in
// their places. All of it is rendered once, when the server starts, with a
// placeholder where the link goes. A request then only chooses a language and
// fills in the link, which costs microseconds and cannot fail on a template.
//
// What a message says depends on nothing but the settings, the language and the
// link. This package must never be given the recipient's address or name. It must never put a tracker or anything else that is
// fetched into the mail, except the operator's logo, and never repeat the link
// in an error.
package message

import (
	"errors"
	"fmt"
	"html"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/language"
)

const (
	// maxAcceptLanguage bounds what is parsed of a caller's header. Browsers
	// send less than 100 bytes; what is longer is answered in English.
	maxAcceptLanguage = 256

	// maxLink is far above a link of token_hash mode (about 150 bytes) and of
	// Supabase's own (about 300).
	maxLink = 2048

	// maxName is the longest host name, which is what the brand is called by
	// default.
	maxName = 253

	// maxExpiry is far above any use: Supabase advises against more than an
	// hour.
	maxExpiry = 30 * 24 * time.Hour
)

// Brand is who the mail comes from.
type Brand struct {
	Name         string // BRAND_NAME, required; see CheckName
	LogoURL      string // BRAND_LOGO_URL, optional; see CheckLogoURL; shown 36 pixels high in place of the name
	SupportEmail string // SUPPORT_EMAIL, optional; a bare address
}

// Options are the settings of a Renderer.
type Options struct {
	Brand Brand

	// LinkExpiresIn (LINK_EXPIRES_IN) is what the mail says about the life of
	// the link; see CheckExpiry. It is told in whole minutes, rounded down, so
	// that no mail promises more than there is.
	LinkExpiresIn time.Duration

	// TemplatesDir (TEMPLATES_DIR) holds files that take the place of built-in
	// ones of the same name: layout.html, layout.txt, and en.tmpl or another
	// language. A language that is not built in (it.tmpl) is added. Other
	// files are refused if they look like a misspelt template. Empty means
	// built-in ones alone.
	TemplatesDir string
}

// Message is a mail without its addresses.
type Message struct {
	Subject  string // one line, without control characters
	Text     string
	HTML     string
	Language string // the BCP 47 tag of all three
}

// Renderer makes messages. It does not change after New, and many goroutines
// may use it.
type Renderer struct {
	matcher language.Matcher
	pages   []page // in the matcher's order; English is the first, and the fall-back
}

// page is a message in one language, cut where the link goes.
type page struct {
	language string
	subject  string
	text     []string
	html     []string
}

// New renders everything but the link, in every language. Its errors are
// mistakes in the templates of TemplatesDir, and name the file. The other
// options are taken to be good.
func New(opts Options) (*Renderer, error) {
	opts.Brand.Name = strings.TrimSpace(opts.Brand.Name)
	files, err := readFiles(opts.TemplatesDir)
	if err != nil {
		return nil, err
	}
	r := &Renderer{}
	var tags []language.Tag
	var broken []error
	for _, tag := range files.languages() {
		p, err := files.render(tag, opts)
		if err != nil {
			// A mistake in a layout comes up in every language: once will do.
			if !slices.ContainsFunc(broken, func(b error) bool { return b.Error() == err.Error() }) {
				broken = append(broken, err)
			}
			continue
		}
		tags = append(tags, tag)
		r.pages = append(r.pages, p)
	}
	if len(broken) > 0 {
		return nil, errors.Join(broken...)
	}
	r.matcher = language.NewMatcher(tags)
	return r, nil
}

// Languages returns the tags of the languages there are, English first.
func (r *Renderer) Languages() []string {
	tags := make([]string, len(r.pages))
	for i, p := range r.pages {
		tags[i] = p.language
	}
	return tags
}

// Render makes the message that carries link, in the language that suits the
// value of an Accept-Language header best; English if there is none, or if the
// value is malformed or too long.
func (r *Renderer) Render(acceptLanguage, link string) (Message, error) {
	if err := checkLink(link); err != nil {
		return Message{}, err
	}
	p := r.page(acceptLanguage)
	return Message{
		Subject: p.subject,
		Text:    strings.Join(p.text, link),
		// New has made sure that the link stands only where this escaping is
		// right: between tags, or as the whole value of an href. html/template
		// is not asked again, because it would rewrite a link as it sees fit
		// (' becomes %27), and the link has to arrive as it was made.
		HTML:     strings.Join(p.html, html.EscapeString(link)),
		Language: p.language,
	}, nil
}

func (r *Renderer) page(acceptLanguage string) page {
	if acceptLanguage == "" || len(acceptLanguage) > maxAcceptLanguage {
		return r.pages[0]
	}
	wanted, _, err := language.ParseAcceptLanguage(acceptLanguage)
	if err != nil {
		return r.pages[0]
	}
	// A match without confidence is the matcher's own fall-back, which is the
	// first page as well.
	_, i, _ := r.matcher.Match(wanted...)
	return r.pages[i]
}

// checkLink refuses what could not be a link of ours: then something went
// wrong earlier, and no mail is better than one that leads astray.
func checkLink(link string) error {
	if len(link) > maxLink {
		return fmt.Errorf("message: the link is longer than %d bytes", maxLink)
	}
	if !strings.HasPrefix(link, "https://") && !strings.HasPrefix(link, "http://") {
		return errors.New("message: the link is not an http or https URL")
	}
	for i := 0; i < len(link); i++ {
		if link[i] <= ' ' || link[i] >= 0x7f {
			return errors.New("message: the link contains white space, a control or a non-ASCII character")
		}
	}
	return nil
}

// CheckName judges BRAND_NAME: any characters but line breaks and other controls.
func CheckName(name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return errors.New("must not be empty")
	case len(name) > maxName:
		return fmt.Errorf("must have at most %d bytes", maxName)
	case !utf8.ValidString(name):
		return errors.New("must be valid UTF-8")
	case strings.ContainsFunc(name, breaksLine):
		// It stands in the subject, where a line break begins a new header.
		return errors.New("must have no line break and no other control character")
	}
	return nil
}

// breaksLine tells which characters may not stand in a subject: controls,
// Unicode's line separators, and those that reverse the text after them.
func breaksLine(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' ||
		'\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069'
}

// CheckLogoURL judges BRAND_LOGO_URL.
func CheckLogoURL(logo string) error {
	if u, err := url.Parse(logo); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		// Clients fetch it through proxies that refuse http.
		return errors.New("must be an https address without user or password, like https://app.example.com/logo.png")
	}
	return nil
}

// CheckExpiry judges LINK_EXPIRES_IN.
func CheckExpiry(d time.Duration) error {
	if d < time.Minute || d > maxExpiry {
		return fmt.Errorf("must be from %v to %v", time.Minute, maxExpiry)
	}
	return nil
}
