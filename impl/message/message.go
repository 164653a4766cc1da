// Package message writes the mail: subject, text and HTML, in the reader's language.
//
// Each language is one file of words (templates/en.tmpl), which the text and the HTML share; a layout for each
// puts the words in their places. All of it is rendered once, when the server starts, with a placeholder for the
// link. A delivery then only chooses a language and fills in the link, which costs microseconds and cannot fail
// on a template.
//
// A message depends on the settings, the language and the link alone. This package must never be given the
// recipient's address or name, put a tracker or anything else into the mail that is fetched (except the
// operator's logo), or repeat the link in an error.
package message

import (
	"errors"
	"fmt"
	"html"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/resetd/resetd/impl/setting"
)

const (
	// maxLink is far above a link of token_hash mode (about 150 bytes) and of
	// Supabase's own (about 300).
	maxLink = 2048

	// maxName bounds the name of a brand by the longest host name, which is the default.
	maxName = 253

	// maxExpiry is far above any use: Supabase advises against more than an
	// hour.
	maxExpiry = 30 * 24 * time.Hour
)

// Brand has the settings of the mail's name, colour, logo and contacts.
type Brand struct {
	Name         string // BRAND_NAME, required: a line
	Color        string // BRAND_COLOR, optional, like #1f56d8; of the button and the links
	LogoURL      string // BRAND_LOGO_URL, optional, https; at most 36 pixels high, in place of the name
	LogoDarkURL  string // BRAND_LOGO_DARK_URL, optional; in its place on a dark ground
	SupportEmail string // SUPPORT_EMAIL, optional; a bare address
	SupportURL   string // SUPPORT_URL, optional, https
}

// Options are the settings of a Renderer.
type Options struct {
	Brand Brand

	// LinkExpiresIn (LINK_EXPIRES_IN) is the life of the link as the mail tells it, from a minute to 30 days. It is
	// rounded down to whole minutes, or to hours beyond three days, so that no mail promises too much.
	LinkExpiresIn time.Duration

	// DefaultLanguage (DEFAULT_LANGUAGE) is for readers who asked for none of the mail's languages. Empty
	// means English.
	DefaultLanguage string

	// TemplatesDir (TEMPLATES_DIR) holds files whose blocks take the place of
	// built-in ones: layout.html, layout.txt, and en.tmpl or another language.
	// A language that is not built in is added. Empty means built-in ones
	// alone.
	TemplatesDir string
}

// Message is a mail without its addresses.
type Message struct {
	Subject  string // one line, without control characters
	Text     string
	HTML     string
	Language string // the BCP 47 tag of all three
}

// Renderer makes messages. It does not change after New. Its methods may be called concurrently.
type Renderer struct {
	languages languages
	pages     []page // in the order of languages.tags
	replaced  []string
	warnings  []string
}

// page is a message in one language, cut where the link goes.
type page struct {
	language string
	subject  string
	text     []string
	html     []string
}

// Validate judges what needs no templates.
func (o Options) Validate() (wrong setting.Mistakes) {
	wrong.Judge("BRAND_NAME", checkName(o.Brand.Name))
	wrong.Judge("BRAND_COLOR", checkColor(o.Brand.Color))
	wrong.Judge("BRAND_LOGO_URL", checkURL(o.Brand.LogoURL))
	wrong.Judge("BRAND_LOGO_DARK_URL", checkURL(o.Brand.LogoDarkURL))
	if o.Brand.LogoDarkURL != "" && o.Brand.LogoURL == "" {
		wrong.Add("BRAND_LOGO_DARK_URL", "needs BRAND_LOGO_URL, which is shown on a light ground")
	}
	wrong.Judge("SUPPORT_URL", checkURL(o.Brand.SupportURL))
	wrong.Judge("LINK_EXPIRES_IN", checkExpiry(o.LinkExpiresIn))
	return wrong
}

// New renders everything but the link, in every language, or returns all mistakes in the options. Those about
// TEMPLATES_DIR may be several, and name their files.
func New(opts Options) (*Renderer, setting.Mistakes) {
	wrong := opts.Validate()
	if len(wrong) > 0 { // which must not be said of a template that shows it
		opts.Brand, opts.LinkExpiresIn = Brand{Name: "resetd"}, time.Hour
	}
	add := func(name string, err error) {
		if err == nil {
			return
		}
		mistake := setting.Mistake{Setting: name, Text: strings.ReplaceAll(err.Error(), "\n", " ")}
		if !slices.Contains(wrong, mistake) {
			wrong = append(wrong, mistake)
		}
	}
	opts.Brand.Name = strings.TrimSpace(opts.Brand.Name)
	colors := newPalette(opts.Brand.Color)
	set, errs := readTemplates(opts.TemplatesDir)
	for _, err := range errs {
		add("TEMPLATES_DIR", err)
	}
	if set == nil {
		return nil, wrong
	}
	r := &Renderer{languages: set.tags, replaced: set.replaced, warnings: append(set.warnings, opts.Brand.warnings(colors)...)}
	var err error
	if r.languages.fallback, err = set.tags.find(opts.DefaultLanguage); len(errs) == 0 { // or else it may be in a file that is broken
		add("DEFAULT_LANGUAGE", err)
	}
	for _, tag := range set.tags.tags {
		p, err := set.render(tag, opts, colors) // a mistake in a layout comes up in every language
		add("TEMPLATES_DIR", err)
		r.pages = append(r.pages, p)
	}
	if len(wrong) > 0 {
		return nil, wrong
	}
	return r, nil
}

// warnings returns sentences about settings that work but are rarely intended.
func (b Brand) warnings(colors palette) (all []string) {
	for _, logo := range []struct{ setting, url string }{{"BRAND_LOGO_URL", b.LogoURL}, {"BRAND_LOGO_DARK_URL", b.LogoDarkURL}} {
		if u, err := url.Parse(logo.url); err == nil && strings.EqualFold(path.Ext(u.Path), ".svg") {
			all = append(all, logo.setting+" is an SVG, which Gmail and Outlook do not show. What to do: use a PNG, 72 pixels high")
		}
	}
	if note := colors.note(); note != "" {
		all = append(all, note)
	}
	return all
}

// Languages returns the tags of the mail's languages, the default first.
func (r *Renderer) Languages() []string {
	tags := []string{r.pages[r.languages.fallback].language}
	for i, p := range r.pages {
		if i != r.languages.fallback {
			tags = append(tags, p.language)
		}
	}
	return tags
}

// Replaced returns which built-in blocks those of TEMPLATES_DIR have replaced,
// and which languages it has added: "de.tmpl: greeting, help".
func (r *Renderer) Replaced() []string { return r.replaced }

// Warnings returns sentences for the operator about settings that work but are rarely intended.
func (r *Renderer) Warnings() []string { return r.warnings }

// Render makes the message with a link. It is in the account's language, or else in the best one for an
// Accept-Language header, or else in the default language. Both arguments may be empty, or any text.
func (r *Renderer) Render(accountLanguage, acceptLanguage, link string) (Message, error) {
	if err := checkLink(link); err != nil {
		return Message{}, err
	}
	p := r.pages[r.languages.choose(accountLanguage, acceptLanguage)]
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

// checkLink refuses a link that cannot lead to an allowed page. Such a link comes from a bug, and no mail is
// better than a mail with it.
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

// checkName takes any characters but line breaks and other controls.
func checkName(name string) error {
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

// breaksLine reports whether a subject may not have a character: controls, Unicode's line separators, and
// characters that reverse the text after them.
func breaksLine(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' ||
		'\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069'
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	if text != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"'<>\\`", r) })) {
		// Clients fetch pictures through proxies that refuse http.
		return errors.New("must be an https address without user or password, like https://app.example.com/logo.png")
	}
	return nil
}

func checkColor(text string) error {
	if text == "" {
		return nil
	}
	_, err := parseColor(text)
	return err
}

func checkExpiry(d time.Duration) error {
	if d < time.Minute || d > maxExpiry {
		return fmt.Errorf("must be from %v to %v", time.Minute, maxExpiry)
	}
	return nil
}
