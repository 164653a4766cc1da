package devstack

import (
	"crypto/sha256"
	"encoding/hex"
	"html"
	"net/http"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Preview writes the mail for the page /dev/preview. It is called each time that the page is loaded.
type Preview struct {
	// Write writes the mail in a language, with other values of Settings. The page shows its error in place
	// of the mail.
	Write func(language string, settings map[string]string) (Mail, error)

	// Languages returns the tags that Write knows now, the default first.
	Languages func() []string

	// Settings are the settings that people can try on the page, with their present values.
	Settings []PreviewSetting
}

// PreviewSetting is a setting of the mail by its name, BRAND_COLOR, and its value.
type PreviewSetting struct{ Name, Value string }

// previewView is what the preview template shows.
type previewView struct {
	Languages           []string
	Language            string
	Dark, Narrow, Plain bool
	Settings            []PreviewSetting
	Changed             bool // of what is set
	Mail                Mail
	Sender, Preheader   string
	Text                []textPart
	Mistakes            []string
	HTMLHref            string
	Version             string // changes with what is shown
}

func (p *pages) preview(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	v, m := p.previewed(query)
	v.Dark, v.Narrow, v.Plain = query.Get("look") == "dark", query.Get("width") == "phone", query.Get("part") == "text"
	if v.Mistakes == nil {
		v.Mail, v.Sender, v.Preheader, v.Text = m, m.From, snippet(m), linkify(m.Text)
		if from, err := mail.ParseAddress(m.From); err == nil {
			v.Sender = from.Address
			if from.Name != "" {
				v.Sender = from.Name
			}
		}
	}
	p.render(w, http.StatusOK, "preview.html", v)
}

// previewHTML answers with the mail alone. Its version tells the page whether to load it again.
func (p *pages) previewHTML(w http.ResponseWriter, r *http.Request) {
	v, m := p.previewed(r.URL.Query())
	w.Header().Set("X-Version", v.Version)
	if v.Mistakes != nil {
		http.Error(w, "The templates have mistakes; the page says which.", http.StatusUnprocessableEntity)
		return
	}
	writeMail(w, withLook(m.HTML, r.URL.Query().Get("look") == "dark"))
}

var (
	schemeQuery = regexp.MustCompile(`(?i)\(\s*prefers-color-scheme\s*:\s*(dark|light)\s*\)`)
	schemes     = regexp.MustCompile(`(?i)(color-scheme:\s*|content=")light dark`)
)

// withLook rewrites a mail so that it looks light or dark, whatever the browser is set to: a browser has no
// switch for one frame.
func withLook(html string, dark bool) string {
	look := map[bool]string{true: "dark", false: "light"}[dark]
	html = schemes.ReplaceAllString(html, "${1}"+look)
	return schemeQuery.ReplaceAllStringFunc(html, func(query string) string {
		if strings.EqualFold(schemeQuery.FindStringSubmatch(query)[1], look) {
			return "(min-width: 0)"
		}
		return "(max-width: 0)"
	})
}

// previewed writes the mail that a query asks for.
func (p *pages) previewed(query url.Values) (previewView, Mail) {
	preview := p.stack.cfg.Preview
	v := previewView{Languages: preview.Languages()}
	v.Language = v.Languages[0]
	if asked := query.Get("language"); slices.Contains(v.Languages, asked) {
		v.Language = asked
	}
	kept := url.Values{"language": {v.Language}, "look": {query.Get("look")}}
	values := map[string]string{}
	for _, setting := range preview.Settings {
		if query.Has(setting.Name) {
			value := strings.TrimSpace(query.Get(setting.Name))
			v.Changed = v.Changed || value != setting.Value
			setting.Value = value
		}
		v.Settings = append(v.Settings, setting)
		values[setting.Name] = setting.Value
		kept.Set(setting.Name, setting.Value)
	}
	v.HTMLHref = "/dev/preview/html?" + kept.Encode()
	m, err := preview.Write(v.Language, values)
	if err != nil {
		v.Mistakes = strings.Split(err.Error(), "\n")
	}
	sum := sha256.Sum256([]byte(strings.Join(append(v.Mistakes, m.HTML, m.Text, m.Subject), "\x00")))
	v.Version = hex.EncodeToString(sum[:8])
	return v, m
}

var (
	unseen = regexp.MustCompile(`(?is)<!--.*?-->|<head\b.*?</head>|<style\b.*?</style>|<[^>]*>`)

	// filler is what mails put after the words meant for the list, to keep out what follows.
	filler = regexp.MustCompile(`[\s\x{a0}\x{ad}\x{34f}\x{200b}\x{200c}\x{2007}\x{feff}]{6,}`)
)

// snippet returns the words that a list of mails shows beside the subject: the first of the message, hidden
// ones too.
func snippet(m Mail) string {
	text := m.Text
	if m.HTML != "" {
		text = html.UnescapeString(unseen.ReplaceAllString(m.HTML, " "))
	}
	text = filler.ReplaceAllStringFunc(strings.TrimSpace(text), func(run string) string {
		if strings.TrimSpace(run) == "" {
			return " "
		}
		return "\x00"
	})
	if words, _, filled := strings.Cut(text, "\x00"); filled && strings.TrimSpace(words) != "" {
		text = words
	}
	words := []rune(strings.Join(strings.Fields(strings.ReplaceAll(text, "\x00", " ")), " "))
	return string(words[:min(len(words), 200)])
}
