package devstack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// maxMessageBody is Mailgun's limit for a message with its attachments.
	// https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages/send-limits
	maxMessageBody = 25 << 20

	// maxFormFields bounds the fields of a form. A message of resetd has about a dozen.
	maxFormFields = 1_000

	// maxOptionBytes is Mailgun's limit for all o:, h:, v: and t: parameters together. Whether
	// it counts their names is not documented; here they count, the stricter reading.
	maxOptionBytes = 16 << 10

	// maxRecipients is Mailgun's limit for one call.
	maxRecipients = 1_000
)

// Mailgun serves POST /v3/{domain}/messages, and just enough of GET /v3/domains/{domain}
// and /v4/domains/{domain} to see whether a key and a domain belong together.
// https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages
func (s *Stack) Mailgun() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v3/{domain}/messages", s.sendMessage)
	mux.HandleFunc("GET /v3/domains/{domain}", s.showDomain)
	mux.HandleFunc("GET /v4/domains/{domain}", s.showDomain)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		mailgunMessage(w, http.StatusNotFound, "Not Found")
	})
	return s.recorded("mailgun", maxMessageBody, s.cfg.MailgunMiddleware, mux, func(c *Call, r *http.Request, body []byte) {
		if fields, err := parseForm(r.Header.Get("Content-Type"), body); err == nil {
			c.To = fields["to"]
			c.TestMode = testMode(fields)
		}
	})
}

// authorized reports whether the key and the domain are right. If not, it has answered 401 or 404.
func (s *Stack) authorized(w http.ResponseWriter, r *http.Request) bool {
	user, key, ok := r.BasicAuth()
	if !ok || user != "api" || s.cfg.MailgunKey == "" || key != s.cfg.MailgunKey {
		// No JSON here, unlike every other answer of Mailgun's.
		w.Header().Set("Www-Authenticate", `Basic realm="MG API"`)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, "Forbidden")
		return false
	}
	if domain := r.PathValue("domain"); domain != s.cfg.MailgunDomain {
		mailgunMessage(w, http.StatusNotFound, "Domain not found: "+domain)
		return false
	}
	return true
}

func (s *Stack) sendMessage(w http.ResponseWriter, r *http.Request) {
	if !s.authorized(w, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		mailgunMessage(w, http.StatusBadRequest, "Could not read the request")
		return
	}
	fields, err := parseForm(r.Header.Get("Content-Type"), body)
	if err != nil {
		mailgunMessage(w, http.StatusBadRequest, "Could not parse the form: "+err.Error())
		return
	}
	m, complaint := s.readMessage(fields)
	if complaint != "" {
		mailgunMessage(w, http.StatusBadRequest, complaint)
		return
	}
	s.accept(m, testMode(fields))
	writeJSON(w, http.StatusOK, struct {
		ID      string `json:"id"`
		Message string `json:"message"`
	}{"<" + m.ID + "@" + s.cfg.MailgunDomain + ">", "Queued. Thank you."})
}

// readMessage judges a form in Mailgun's order and words. The real Mailgun was seen to take
// a message without a subject; its reference says that one is required, and so does this.
func (s *Stack) readMessage(fields map[string][]string) (m Mail, complaint string) {
	for _, name := range []string{"from", "to", "subject"} {
		if first(fields, name) == "" {
			return Mail{}, "'" + name + "' parameter is missing"
		}
	}
	if first(fields, "text") == "" && first(fields, "html") == "" {
		return Mail{}, "Need at least one of 'text' or 'html' parameters specified"
	}
	if _, err := mail.ParseAddress(first(fields, "from")); err != nil {
		return Mail{}, "'from' parameter is not a valid address. please check documentation"
	}
	var to []string
	for _, name := range []string{"to", "cc", "bcc"} {
		for _, value := range fields[name] {
			list, err := mail.ParseAddressList(value)
			if err != nil {
				return Mail{}, "'" + name + "' parameter is not a valid address. please check documentation"
			}
			if name != "to" {
				continue
			}
			for _, address := range list {
				to = append(to, address.Address)
			}
		}
	}
	if len(to) > maxRecipients {
		return Mail{}, fmt.Sprintf("'to' parameter has more than %d addresses", maxRecipients)
	}
	options := 0
	for name, values := range fields {
		if !isOption(name) {
			continue
		}
		for _, value := range values {
			options += len(name) + len(value)
		}
	}
	if options > maxOptionBytes {
		return Mail{}, "o:, h:, v: and t: parameters are limited to 16KB total"
	}
	at := s.now()
	return Mail{
		ID:   at.Format("20060102150405") + "." + randomHex(8),
		At:   at,
		From: first(fields, "from"), To: to, Subject: first(fields, "subject"),
		Text: first(fields, "text"), HTML: first(fields, "html"),
		Fields: fields,
	}, ""
}

// accept puts m into the inbox, or in test mode among the test messages.
func (s *Stack) accept(m Mail, test bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if test {
		s.tests.add(m)
	} else {
		s.mails.add(m)
	}
	s.announce()
}

func (s *Stack) showDomain(w http.ResponseWriter, r *http.Request) {
	if !s.authorized(w, r) {
		return
	}
	type domain struct {
		Name      string `json:"name"`
		State     string `json:"state"`
		Type      string `json:"type"`
		CreatedAt string `json:"created_at"`
	}
	writeJSON(w, http.StatusOK, struct {
		Domain domain `json:"domain"`
	}{domain{s.cfg.MailgunDomain, "active", "custom", s.now().Format(time.RFC1123)}})
}

func mailgunMessage(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, struct {
		Message string `json:"message"`
	}{message})
}

func isOption(field string) bool {
	return len(field) > 2 && field[1] == ':' && strings.ContainsRune("ohvt", rune(field[0]))
}

// testMode reports whether a message is in test mode, in which Mailgun never delivers it.
// https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages/send-test-mode
func testMode(fields map[string][]string) bool {
	return slices.ContainsFunc(fields["o:testmode"], func(v string) bool {
		return strings.EqualFold(v, "yes") || strings.EqualFold(v, "true")
	})
}

func first(fields map[string][]string, name string) string {
	if values := fields[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// parseForm reads multipart/form-data or a urlencoded form. Of a file it keeps the name.
// http.Request.ParseMultipartForm would do, but writes large parts to temporary files.
func parseForm(contentType string, body []byte) (map[string][]string, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, errors.New("no valid Content-Type")
	}
	switch kind {
	case "application/x-www-form-urlencoded":
		values, err := url.ParseQuery(string(body))
		if err == nil && len(values) > maxFormFields {
			err = errors.New("too many fields")
		}
		return values, err
	case "multipart/form-data":
	default:
		return nil, errors.New("neither multipart/form-data nor application/x-www-form-urlencoded")
	}
	fields := map[string][]string{}
	reader := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for n := 0; ; n++ {
		part, err := reader.NextPart()
		if errors.Is(err, io.EOF) {
			return fields, nil
		}
		if err != nil {
			return nil, errors.New("broken multipart body")
		}
		if n >= maxFormFields {
			return nil, errors.New("too many fields")
		}
		name := part.FormName()
		if name == "" {
			continue
		}
		if file := part.FileName(); file != "" {
			fields[name] = append(fields[name], file)
			continue
		}
		value, err := io.ReadAll(part) // the body's own limit bounds it
		if err != nil {
			return nil, errors.New("broken multipart body")
		}
		fields[name] = append(fields[name], string(value))
	}
}
