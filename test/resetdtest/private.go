package resetdtest

import (
	"bufio"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// private collects the private texts that a server gets.
type private struct {
	mu    sync.Mutex
	texts map[string]bool
	codes map[string]bool // six digits, which the search tells from other numbers by what is around them

	// sampled is the number of texts from requests and links, and most its bound: a test with thousands of requests
	// has enough texts in the first ones.
	sampled, most int
}

// enoughPrivate is the default of most.
const enoughPrivate = 150

func newPrivate(most int) *private {
	return &private{texts: map[string]bool{}, codes: map[string]bool{}, most: cmp.Or(most, enoughPrivate)}
}

func (p *private) add(texts ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, text := range texts {
		if len(text) >= 6 { // shorter texts appear in other words by chance
			p.texts[text] = true
		}
	}
}

// sample adds texts that come with every request.
func (p *private) sample(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(text) >= 6 && !p.texts[text] && p.sampled < p.most {
		p.texts[text] = true
		p.sampled++
	}
}

// addRequest adds the texts of a request that may identify its sender or the account.
func (p *private) addRequest(request *http.Request) {
	for _, text := range []string{request.URL.RawQuery, request.Header.Get("Authorization"), request.Header.Get("Cookie"), request.Header.Get("Baggage")} {
		p.sample(text)
	}
	for _, values := range request.Header { // forwarding headers of any name
		for _, forwarded := range values {
			for address := range strings.SplitSeq(forwarded, ",") {
				address = strings.TrimPrefix(strings.TrimSpace(address), "for=")
				if parsed := net.ParseIP(address); parsed != nil && !parsed.IsLoopback() {
					p.sample(address)
				}
			}
		}
	}
	if request.GetBody == nil {
		return
	}
	body, err := request.GetBody()
	if err != nil {
		return
	}
	raw, _ := io.ReadAll(io.LimitReader(body, 1<<10))
	var members struct {
		Email    any `json:"email"`
		Callback any `json:"callback_origin"`
	}
	if json.Unmarshal(raw, &members) != nil {
		p.sample(string(raw))
		return
	}
	for _, member := range []any{members.Email, members.Callback} {
		if text, ok := member.(string); ok && text != "example" {
			p.sample(text)
		}
	}
}

var tokenOfLink = regexp.MustCompile(`token=([^&]+)`)

// addLink adds the private texts of Supabase Auth's answer with a link.
func (p *private) addLink(answer []byte) {
	var link struct {
		Email      any `json:"email"`
		EmailOTP   any `json:"email_otp"`
		TokenHash  any `json:"hashed_token"`
		ActionLink any `json:"action_link"`
	}
	if json.Unmarshal(answer, &link) != nil {
		return
	}
	for _, member := range []any{link.Email, link.TokenHash, link.ActionLink} {
		if text, ok := member.(string); ok && len(text) < 1<<10 {
			p.sample(text)
			for _, token := range tokenOfLink.FindAllStringSubmatch(text, -1) {
				p.sample(token[1])
			}
		}
	}
	if code, ok := link.EmailOTP.(string); ok && code != "" {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.codes) < p.most {
			p.codes[code] = true
		}
	}
}

// addSettings adds the secrets among a server's settings.
func (p *private) addSettings(env map[string]string) {
	for _, name := range []string{"SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY", "MAILGUN_API_KEY", "MAILGUN_WEBHOOK_SIGNING_KEY"} {
		p.add(env[name])
	}
	_, header, _ := strings.Cut(env["OTEL_EXPORTER_OTLP_HEADERS"], "=")
	p.add(header)
	if redis, err := url.Parse(env["REDIS_URL"]); err == nil && redis.User != nil {
		password, _ := redis.User.Password()
		p.add(password)
	}
}

// linkRecorder remembers every link that next makes.
func (p *private) linkRecorder(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &seenAnswer{ResponseWriter: w}
		defer func() { p.addLink(seen.body) }()
		next.ServeHTTP(seen, r)
	})
}

// seenAnswer keeps the beginning of the answer that is written through it.
type seenAnswer struct {
	http.ResponseWriter
	body []byte
}

func (s *seenAnswer) Write(b []byte) (int, error) {
	if len(s.body) < 16<<10 {
		s.body = append(s.body, b...)
	}
	return s.ResponseWriter.Write(b)
}

func (s *seenAnswer) Flush() { s.ResponseWriter.(http.Flusher).Flush() }

func (s *seenAnswer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return s.ResponseWriter.(http.Hijacker).Hijack()
}

// forms returns the ways to write a text: those in lower case, and those whose case matters.
func forms(text string) (folded, exact []string) {
	quoted := strconv.Quote(text)
	encoded, _ := json.Marshal(text)
	folded = []string{
		text, url.QueryEscape(text), url.PathEscape(text), quoted[1 : len(quoted)-1], strings.Trim(string(encoded), `"`), hex.EncodeToString([]byte(text)),
	}
	for i := range folded {
		folded[i] = strings.ToLower(folded[i])
	}
	// In base64 a text looks different after one or two other bytes. Its first and last letters depend on what is around
	// it.
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			coded := encoding.EncodeToString([]byte(strings.Repeat("x", before) + text))
			coded = coded[[]int{0, 2, 3}[before]:]
			if (before+len(text))%3 != 0 {
				coded = coded[:len(coded)-1]
			}
			if len(coded) >= 8 {
				exact = append(exact, coded)
			}
		}
	}
	return slices.Compact(folded), slices.Compact(exact)
}

var (
	numberBefore = regexp.MustCompile(`^[0-9A-Za-z_.-]$`)
	numberAfter  = regexp.MustCompile(`^(?:[0-9A-Za-z_]|\.[0-9])`)
)

// search reports private texts in what was written.
func (p *private) search(t testing.TB, where, written string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	lower := strings.ToLower(written)
	show := func(at, length int) string {
		return written[max(0, at-100):min(len(written), at+length+60)]
	}
	for text := range p.texts {
		folded, exact := forms(text)
		for _, form := range folded {
			if at := strings.Index(lower, form); at >= 0 {
				t.Errorf("promise 7: %s has %q: …%s…", where, text, show(at, len(form)))
				break
			}
		}
		for _, form := range exact {
			if at := strings.Index(written, form); at >= 0 {
				t.Errorf("promise 7: %s has %q in base64: …%s…", where, text, show(at, len(form)))
				break
			}
		}
	}
	for code := range p.codes {
		for from := 0; ; {
			at := strings.Index(written[from:], code)
			if at < 0 {
				break
			}
			from += at + len(code)
			// A number beside a letter, or with a point and more digits, is a time, a duration or a hash.
			start := from - len(code)
			if !numberBefore.MatchString(written[max(0, start-1):start]) && !numberAfter.MatchString(written[from:min(len(written), from+2)]) {
				t.Errorf("promise 7: %s has the code %s: …%s…", where, code, show(start, len(code)))
				break
			}
		}
	}
}

// OwnMetrics returns resetd's metrics. Go's metrics have numbers of any kind.
func OwnMetrics(metrics string) string {
	var own strings.Builder
	for line := range strings.Lines(metrics) {
		if strings.Contains(line, "resetd_") {
			own.WriteString(line)
		}
	}
	return own.String()
}
