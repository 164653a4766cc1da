package devstack

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

//go:embed assets
var assets embed.FS

const (
	// maxStreams bounds the open event streams. A browser opens at most six to one host.
	maxStreams = 64

	// streamPause lets a burst of mail become one event.
	streamPause = 50 * time.Millisecond

	// streamHeartbeat is how often a silent stream writes a comment. The write fails if the reader
	// has gone, and keeps proxies from closing the connection if it has not.
	streamHeartbeat = 15 * time.Second

	// streamWriteTimeout is the time one event may take. It replaces the server's
	// WriteTimeout, which would end every stream.
	streamWriteTimeout = 10 * time.Second

	// authTimeout bounds a call of another Supabase Auth, and maxAuthAnswer what is read of its answer:
	// a user's metadata may have megabytes.
	authTimeout   = 10 * time.Second
	maxAuthAnswer = 8 << 20

	// pageCSP lets the pages load their own files and nothing else.
	pageCSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

	// mailCSP is for the HTML of a message, which anybody may have written: inline styles and
	// images as a mail program would show them, no script. It carries the iframe's sandbox
	// too, for when the address is opened by itself.
	mailCSP = "default-src 'none'; style-src 'unsafe-inline'; img-src http: https: data:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)

// pages renders the pages for people. It holds no state beside the stack's.
type pages struct {
	stack     *Stack
	hosts     []string
	templates *template.Template
	streams   atomic.Int64
}

func newPages(s *Stack) *pages {
	return &pages{
		stack:     s,
		hosts:     slices.Clone(s.cfg.PublicHosts),
		templates: template.Must(template.ParseFS(assets, "assets/*.html")),
	}
}

// Pages serves the pages of `resetd dev`: /dev/inbox shows the mail, /dev/inbox.json is the same for scripts,
// /dev/reset-password stands in for the page of an app that links lead to, and /dev/preview, with
// Config.Preview, shows the mail before one is sent. They set no cookies, load nothing from other origins, and
// answer only if Host is this machine or one of Config.PublicHosts.
func (s *Stack) Pages() http.Handler {
	p := s.pages
	mux := http.NewServeMux()
	toInbox := http.RedirectHandler("/dev/inbox", http.StatusFound)
	mux.Handle("GET /dev", toInbox)
	mux.Handle("GET /dev/{$}", toInbox)
	mux.HandleFunc("GET /dev/inbox", p.inbox)
	mux.HandleFunc("GET /dev/inbox.json", p.inboxJSON)
	mux.HandleFunc("GET /dev/inbox/events", p.events)
	mux.HandleFunc("GET /dev/inbox/{id}/html", p.mailHTML)
	mux.HandleFunc("GET /dev/reset-password", p.resetForm)
	mux.HandleFunc("POST /dev/reset-password", p.resetSubmit)
	if s.cfg.Preview != nil {
		mux.HandleFunc("GET /dev/preview", p.preview)
		mux.HandleFunc("GET /dev/preview/html", p.previewHTML)
	}
	for _, name := range []string{"dev.css", "inbox.js", "preview.js", "reset.js", "icon.svg"} {
		mux.HandleFunc("GET /dev/assets/"+name, func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, assets, "assets/"+name)
		})
	}
	// A form on some other site must not be able to post here.
	sameOrigin := http.NewCrossOriginProtection().Handler(mux)

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", pageCSP)
		h.Set("Cache-Control", "no-store")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer") // the addresses carry tokens
		h.Set("X-Content-Type-Options", "nosniff")
		if !p.knownHost(r.Host) {
			http.Error(w, "This page answers on localhost only. Name further hosts in PublicHosts.", http.StatusMisdirectedRequest)
			return
		}
		sameOrigin.ServeHTTP(w, r)
	})
}

// knownHost guards against DNS rebinding, where a page's own name comes to mean 127.0.0.1.
func (p *pages) knownHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	host = strings.TrimSuffix(host, ".")
	return isLoopbackHost(host) || slices.ContainsFunc(p.hosts, func(known string) bool { return strings.EqualFold(known, host) })
}

// render writes a template whole or, if it fails, nothing of it.
func (p *pages) render(w http.ResponseWriter, status int, name string, data any) {
	var b bytes.Buffer
	if err := p.templates.ExecuteTemplate(&b, name, data); err != nil {
		http.Error(w, "devstack: "+err.Error(), http.StatusInternalServerError) // a bug; only developers read this
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// inboxView is what the inbox template shows.
type inboxView struct {
	Tests               bool // the box of messages that are never delivered
	Delivered, TestMany int
	Version             int
	Rows                []mailRow
	Selected            *mailView
	Gone                bool // a message was asked for that is no longer kept
	Curl                string
	Accounts            []string
	Preview             bool // there is such a page
}

type mailRow struct {
	ID, To, Subject, Snippet, Time, Full, ISO, Href string
	Current                                         bool
}

type mailView struct {
	mailRow
	From, View string
	HasHTML    bool
	Text       []textPart
	Fields     []mailField
	Tabs       []viewTab
}

type viewTab struct {
	Name, Label, Href string
	Current           bool
}

type textPart struct{ Text, URL string } // URL "" for what is no link

type mailField struct {
	Name   string
	Values []string
}

func (p *pages) inbox(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	v := p.view(r, query.Get("box") == "tests")
	status := http.StatusOK
	if id := query.Get("mail"); id != "" {
		if m, ok := p.find(id, v.Tests); ok {
			v.Selected = newMailView(m, v.Tests, query.Get("view"))
			for i := range v.Rows {
				v.Rows[i].Current = v.Rows[i].ID == id
			}
		} else {
			v.Gone = true
			status = http.StatusNotFound
		}
	}
	p.render(w, status, "inbox.html", v)
}

// view reads a box as a whole, so that what is shown belongs together.
func (p *pages) view(r *http.Request, tests bool) inboxView {
	s := p.stack
	s.mu.Lock()
	box := &s.mails
	if tests {
		box = &s.tests
	}
	v := inboxView{Tests: tests, Delivered: len(s.mails.list), TestMany: len(s.tests.list), Version: s.version, Preview: s.cfg.Preview != nil}
	for _, m := range slices.Backward(box.list) {
		v.Rows = append(v.Rows, newMailRow(m, tests))
	}
	s.mu.Unlock()

	for _, a := range s.accounts { // their stored addresses never change
		v.Accounts = append(v.Accounts, a.stored)
	}
	email := "nobody@example.com"
	if !tests && len(v.Accounts) > 0 {
		email = v.Accounts[0]
	}
	api := strings.TrimSuffix(s.cfg.APIURL, "/")
	if api == "" {
		api = "http://" + r.Host + "/api"
	}
	v.Curl = fmt.Sprintf("curl -i %s/auth/send-password-reset \\\n  -H 'Content-Type: application/json' \\\n  -d '{\"email\":\"%s\"}'", api, email)
	return v
}

func (p *pages) find(id string, tests bool) (Mail, bool) {
	p.stack.mu.Lock()
	defer p.stack.mu.Unlock()
	if tests {
		return p.stack.tests.find(id)
	}
	return p.stack.mails.find(id)
}

func newMailRow(m Mail, test bool) mailRow {
	at := m.At.Local() // the developer's clock
	return mailRow{
		ID: m.ID, To: strings.Join(m.To, ", "), Subject: m.Subject, Snippet: snippet(m),
		Time: at.Format("15:04:05"), Full: at.Format("Monday, 2 January 2006, 15:04:05 MST"), ISO: at.Format(time.RFC3339),
		Href: inboxHref(test, m.ID, ""),
	}
}

func newMailView(m Mail, test bool, view string) *mailView {
	v := &mailView{mailRow: newMailRow(m, test), From: m.From, HasHTML: m.HTML != ""}
	tabs := []viewTab{{Name: "html", Label: "HTML"}, {Name: "text", Label: "Text"}, {Name: "fields", Label: "Raw fields"}}
	if !slices.ContainsFunc(tabs, func(t viewTab) bool { return t.Name == view }) {
		view = "html"
		if !v.HasHTML {
			view = "text"
		}
	}
	v.View = view
	for _, t := range tabs {
		t.Href, t.Current = inboxHref(test, m.ID, t.Name), t.Name == view
		v.Tabs = append(v.Tabs, t)
	}
	v.Text = linkify(m.Text)
	for name, values := range m.Fields {
		v.Fields = append(v.Fields, mailField{name, values})
	}
	slices.SortFunc(v.Fields, func(a, b mailField) int { return strings.Compare(a.Name, b.Name) })
	return v
}

func inboxHref(test bool, id, view string) string {
	query := url.Values{}
	if test {
		query.Set("box", "tests")
	}
	query.Set("mail", id)
	if view != "" {
		query.Set("view", view)
	}
	return "/dev/inbox?" + query.Encode()
}

var linkPattern = regexp.MustCompile(`https?://[^\s<>"]+`)

// linkify cuts a text into links and the text between them.
func linkify(text string) []textPart {
	var parts []textPart
	end := 0
	for _, at := range linkPattern.FindAllStringIndex(text, -1) {
		link := strings.TrimRight(text[at[0]:at[1]], ".,;:!?)]'") // punctuation of the sentence
		parts = append(parts, textPart{Text: text[end:at[0]]}, textPart{Text: link, URL: link})
		end = at[0] + len(link)
	}
	return append(parts, textPart{Text: text[end:]})
}

// inboxJSON answers with the inbox for scripts: {"mails":[…],"tests":[…]}, newest first.
func (p *pages) inboxJSON(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false) // read by people, and nosniff is set
	_ = encoder.Encode(struct {
		Mails []Mail `json:"mails"`
		Tests []Mail `json:"tests"`
	}{p.stack.Mails(), p.stack.TestMessages()})
}

// events sends the list of one box whenever a box changes, and once at the start: always
// the whole list, so that a reader that was away needs no history to catch up.
func (p *pages) events(w http.ResponseWriter, r *http.Request) {
	if p.streams.Add(1) > maxStreams {
		p.streams.Add(-1)
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many open inboxes", http.StatusServiceUnavailable)
		return
	}
	defer p.streams.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold the events back
	stream := http.NewResponseController(w)
	send := func(format string, args ...any) bool {
		_ = stream.SetWriteDeadline(time.Now().Add(streamWriteTimeout)) // not every ResponseWriter can; then the server's own holds
		_, err := fmt.Fprintf(w, format, args...)
		return err == nil && stream.Flush() == nil
	}
	if !send("retry: 1000\n\n") {
		return
	}
	heartbeat := time.NewTicker(streamHeartbeat)
	defer heartbeat.Stop()
	tests := r.URL.Query().Get("box") == "tests"
	for {
		p.stack.mu.Lock()
		changed := p.stack.changed // before the list is read: what comes later wakes us
		p.stack.mu.Unlock()
		v := p.view(r, tests)
		var list bytes.Buffer
		if err := p.templates.ExecuteTemplate(&list, "sidebar", v); err != nil {
			return // a bug; the page itself shows it
		}
		data, err := json.Marshal(map[string]any{"html": list.String(), "delivered": v.Delivered, "tests": v.TestMany})
		if err != nil || !send("id: %d\nevent: inbox\ndata: %s\n\n", v.Version, data) {
			return
		}
		for waiting := true; waiting; {
			select {
			case <-changed:
				waiting = false
			case <-heartbeat.C:
				if !send(": still here\n\n") {
					return
				}
			case <-r.Context().Done():
				return
			case <-p.stack.closed:
				return
			}
		}
		select {
		case <-time.After(streamPause):
		case <-r.Context().Done():
			return
		}
	}
}

var headTag = regexp.MustCompile(`(?i)<head(\s[^>]*)?>`)

// mailHTML answers with the HTML of a message, as writeMail writes it.
func (p *pages) mailHTML(w http.ResponseWriter, r *http.Request) {
	m, ok := p.find(r.PathValue("id"), false)
	if !ok {
		m, ok = p.find(r.PathValue("id"), true)
	}
	if !ok {
		http.Error(w, "This message is no longer kept.", http.StatusNotFound)
		return
	}
	writeMail(w, m.HTML)
}

// writeMail writes the HTML of a mail, with a base that opens its links in a new tab: most sites refuse to be
// shown in a frame.
func writeMail(w http.ResponseWriter, html string) {
	w.Header().Set("Content-Security-Policy", mailCSP)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	const base = `<base target="_blank">`
	if at := headTag.FindStringIndex(html); at != nil {
		// Not before it: a doctype that is not first puts the browser into quirks mode.
		_, _ = fmt.Fprint(w, html[:at[1]], base, html[at[1]:])
		return
	}
	_, _ = fmt.Fprint(w, html, base) // the first base with a target counts wherever it stands
}

// resetView is what the reset-password template shows. State is "form", "fragment" (the
// script finds out what the address says behind the #), "invalid" or "done".
type resetView struct {
	State, Email, Type, TokenHash, AccessToken, Error string
	MinLen, MaxLen                                    int
}

func (p *pages) renderReset(w http.ResponseWriter, status int, v resetView) {
	v.MinLen, v.MaxLen = minPasswordLen, maxPasswordLen
	p.render(w, status, "reset.html", v)
}

// resetForm asks for the password. Whether the link still works only its submission tells: mail
// scanners open links, and each works once.
func (p *pages) resetForm(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	switch {
	case query.Has("done"):
		p.renderReset(w, http.StatusOK, resetView{State: "done"})
	case query.Get("token_hash") == "":
		p.renderReset(w, http.StatusOK, resetView{State: "fragment"})
	default:
		p.renderReset(w, http.StatusOK, resetView{State: "form", Type: query.Get("type"), TokenHash: query.Get("token_hash")})
	}
}

// resetSubmit does what the page of an app does: it verifies the token, which signs the user in, and
// sets the password. A token that is used up leaves a session, with which a second try goes on.
func (p *pages) resetSubmit(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "This form cannot be read.", http.StatusBadRequest)
		return
	}
	form := r.PostForm
	v := resetView{State: "form", Type: form.Get("type"), TokenHash: form.Get("token_hash"), AccessToken: form.Get("access_token"), Email: form.Get("email")}
	var refused *refusal
	if v.AccessToken == "" {
		var session tokenAnswer
		if refused = p.ask(r, http.MethodPost, "/verify", "", map[string]string{"type": v.Type, "token_hash": v.TokenHash}, &session); refused == nil {
			v.TokenHash, v.AccessToken, v.Email = "", session.AccessToken, session.User.Email
		}
	}
	if refused == nil {
		refused = p.ask(r, http.MethodPut, "/user", v.AccessToken, map[string]string{"password": form.Get("password")}, &authUser{})
	}
	switch {
	case refused == nil:
		http.Redirect(w, r, "/dev/reset-password?done", http.StatusSeeOther) // so that a reload posts nothing twice
	case refused.status == http.StatusForbidden && refused.code != errUserBanned.code:
		p.renderReset(w, http.StatusForbidden, resetView{State: "invalid"})
	default:
		v.Error = refused.message
		p.renderReset(w, http.StatusUnprocessableEntity, v)
	}
}

// ask calls Supabase Auth as an app does: over the network with Config.AuthURL, or else the stand-in in process.
func (p *pages) ask(r *http.Request, method, path, token string, question, answer any) *refusal {
	silent := &refusal{status: http.StatusBadGateway, message: "Supabase Auth does not answer."}
	body, err := json.Marshal(question)
	if err != nil {
		return silent
	}
	base, client := p.stack.cfg.AuthURL, &http.Client{Timeout: authTimeout}
	if base == "" {
		base, client.Transport = "http://stand-in/auth/v1", inProcess{p.stack.auth()}
	}
	request, err := http.NewRequestWithContext(r.Context(), method, base+path, bytes.NewReader(body))
	if err != nil {
		return silent
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Apikey", cmp.Or(p.stack.cfg.AuthKey, p.stack.cfg.PublishableKey))
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		return silent
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAuthAnswer))
	if err != nil {
		return silent
	}
	if response.StatusCode == http.StatusOK {
		if json.Unmarshal(content, answer) != nil {
			return silent
		}
		return nil
	}
	var fault struct {
		Code    string `json:"error_code"`
		Msg     string `json:"msg"`
		Message string `json:"message"` // the gateway's
	}
	_ = json.Unmarshal(content, &fault) // a fault of another shape has no text
	return &refusal{
		status: response.StatusCode, code: fault.Code,
		message: cmp.Or(fault.Msg, fault.Message, fmt.Sprintf("Supabase Auth answers %d.", response.StatusCode)),
	}
}

// inProcess sends requests to a handler.
type inProcess struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &memory{header: http.Header{}, status: http.StatusOK}
	p.ServeHTTP(w, r)
	return &http.Response{StatusCode: w.status, Header: w.header, Body: io.NopCloser(&w.body), Request: r}, nil
}

// memory is a ResponseWriter that keeps what is written.
type memory struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (m *memory) Header() http.Header         { return m.header }
func (m *memory) WriteHeader(status int)      { m.status = status }
func (m *memory) Write(b []byte) (int, error) { return m.body.Write(b) }
