package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/resetd/resetd/test/resetdtest"
)

// platform is a platform of docs/platforms.md.
type platform struct {
	// arrives returns the peer and the headers that reach resetd when a client with this address, in the
	// platform's notation, has sent these headers.
	arrives func(client string, sent http.Header) (peer string, header http.Header)

	// short returns what reaches resetd when the platform says too little: the header is missing, or its
	// list is too short. It counts as the peer.
	short func(sent http.Header) (peer string, header http.Header)

	// around is the address of a client that reaches resetd without the platform. It counts as this address,
	// whatever headers it sends. Empty if nobody can: then resetd believes every peer.
	around string
}

// These functions write the header of a list.
func appended(sent http.Header, addresses ...string) http.Header {
	header := sent.Clone()
	list := strings.Join(append(header.Values("X-Forwarded-For"), addresses...), ", ")
	header.Set("X-Forwarded-For", list)
	return header
}

func replaced(sent http.Header, name, value string) http.Header {
	header := sent.Clone()
	header.Set(name, value)
	return header
}

func without(sent http.Header, names ...string) http.Header {
	header := sent.Clone()
	for _, name := range names {
		header.Del(name)
	}
	return header
}

// missing returns a request without the header that says who the client is.
func missing(peer string, names ...string) func(http.Header) (string, http.Header) {
	return func(sent http.Header) (string, http.Header) { return peer, without(sent, names...) }
}

func cloudflare(peer, around string) platform {
	return platform{
		arrives: func(client string, sent http.Header) (string, http.Header) {
			return peer, appended(replaced(sent, "CF-Connecting-IP", client), client)
		},
		short:  missing(peer, "CF-Connecting-IP"),
		around: around,
	}
}

// cdn is a server of the page's example of a content delivery network.
const cdn = "192.0.2.77"

// platforms has the platforms of the page by their headings.
var platforms = map[string]platform{
	"nginx": {
		arrives: func(client string, sent http.Header) (string, http.Header) {
			return "127.0.0.1:4711", replaced(sent, "X-Forwarded-For", client)
		},
		short:  missing("127.0.0.1:4711", "X-Forwarded-For"),
		around: "203.0.113.200:4711",
	},
	"nginx behind a CDN": {
		// The CDN appends to the header, the realip module reads the appended address, and nginx sends only that.
		arrives: func(client string, sent http.Header) (string, http.Header) {
			return "127.0.0.1:4711", replaced(sent, "X-Forwarded-For", client)
		},
		short:  missing("127.0.0.1:4711", "X-Forwarded-For"),
		around: cdn + ":4711", // to resetd itself
	},
	"Caddy": {
		arrives: func(client string, sent http.Header) (string, http.Header) {
			return "[::1]:4711", replaced(sent, "X-Forwarded-For", client)
		},
		short:  missing("[::1]:4711", "X-Forwarded-For"),
		around: "203.0.113.200:4711",
	},
	"Caddy behind a CDN": {
		arrives: func(client string, sent http.Header) (string, http.Header) {
			return "127.0.0.1:4711", appended(sent, client, cdn)
		},
		short:  missing("127.0.0.1:4711", "X-Forwarded-For"),
		around: "203.0.113.200:4711",
	},
	"Traefik": {
		arrives: func(client string, sent http.Header) (string, http.Header) {
			return "172.18.0.3:4711", replaced(replaced(sent, "X-Forwarded-For", client), "X-Real-IP", client)
		},
		short:  missing("172.18.0.3:4711", "X-Forwarded-For", "X-Real-IP"),
		around: "203.0.113.200:4711",
	},
	"Kubernetes ingress": {
		arrives: func(client string, sent http.Header) (string, http.Header) {
			header := replaced(sent, "X-Original-Forwarded-For", sent.Get("X-Forwarded-For"))
			return "10.244.3.9:4711", replaced(replaced(header, "X-Forwarded-For", client), "X-Real-IP", client)
		},
		short:  missing("10.244.3.9:4711", "X-Forwarded-For", "X-Real-IP"),
		around: "10.1.0.9:4711", // a node
	},
	"AWS: Application Load Balancer": {
		arrives: func(client string, sent http.Header) (string, http.Header) {
			return "10.0.1.9:4711", appended(sent, client)
		},
		short:  missing("10.0.1.9:4711", "X-Forwarded-For"), // mode remove
		around: "10.0.2.9:4711",                             // another subnet
	},
	"AWS: API Gateway": {
		arrives: func(client string, sent http.Header) (string, http.Header) {
			own := "by=3.4.5.6;for=" + client + ";host=api.example.com;proto=https"
			if strings.ContainsAny(client, ":") {
				if strings.Count(client, ":") > 1 && !strings.HasPrefix(client, "[") {
					client = "[" + client + "]"
				}
				own = `by=3.4.5.6;for="` + client + `";host=api.example.com;proto=https`
			}
			var elements []string
			for _, line := range sent.Values("X-Forwarded-For") {
				for entry := range strings.SplitSeq(line, ",") {
					elements = append(elements, "for="+strings.TrimSpace(entry))
				}
			}
			list := strings.Join(append(append(sent.Values("Forwarded"), elements...), own), ", ")
			// The load balancer in between appends the gateway's address.
			return "10.0.1.9:4711", replaced(replaced(sent, "Forwarded", list), "X-Forwarded-For", "3.4.5.6")
		},
		short:  missing("10.0.1.9:4711", "Forwarded"),
		around: "203.0.113.200:4711",
	},
	"Google Cloud Run": {
		arrives: func(client string, sent http.Header) (string, http.Header) {
			return "169.254.169.126:4711", appended(sent, client)
		},
		short: missing("169.254.169.126:4711", "X-Forwarded-For"),
	},
	"Google Cloud: load balancer": {
		arrives: func(client string, sent http.Header) (string, http.Header) {
			return "35.191.10.9:4711", appended(sent, client, "192.0.2.10")
		},
		short: func(sent http.Header) (string, http.Header) { // a health check
			return "35.191.10.9:4711", replaced(sent, "X-Forwarded-For", "192.0.2.10")
		},
		around: "10.128.0.9:4711",
	},
	"Fly": {
		arrives: func(client string, sent http.Header) (string, http.Header) {
			return "172.16.9.10:4711", appended(replaced(sent, "Fly-Client-IP", client), client, "192.0.2.10")
		},
		short: missing("172.16.9.10:4711", "Fly-Client-IP"),
	},
	"Render": {
		arrives: func(client string, sent http.Header) (string, http.Header) {
			header := replaced(replaced(sent, "CF-Connecting-IP", client), "True-Client-IP", client)
			return "10.19.6.53:4711", appended(header, client, "172.70.247.28", "10.19.6.53")
		},
		short:  missing("10.19.6.53:4711", "CF-Connecting-IP", "True-Client-IP"),
		around: "203.0.113.200:4711",
	},
	"Railway": {
		arrives: func(client string, sent http.Header) (string, http.Header) {
			return "100.64.0.9:4711", replaced(replaced(sent, "X-Real-IP", client), "X-Forwarded-For", client+", 152.233.33.161")
		},
		short:  missing("100.64.0.9:4711", "X-Real-IP"),
		around: "203.0.113.200:4711",
	},
	"Heroku": {
		arrives: func(client string, sent http.Header) (string, http.Header) {
			header := sent.Clone()
			lines := header.Values("X-Forwarded-For")
			if len(lines) == 0 {
				lines = []string{client}
			} else {
				lines = append(slices.Clone(lines[:len(lines)-1]), lines[len(lines)-1]+", "+client)
			}
			header["X-Forwarded-For"] = lines
			return "10.1.33.7:4711", header
		},
		short: missing("10.1.33.7:4711", "X-Forwarded-For"),
	},
	"Cloudflare":        cloudflare("172.70.247.28:4711", "203.0.113.200:4711"),
	"Cloudflare Tunnel": cloudflare("172.18.0.3:4711", "203.0.113.200:4711"),
}

var (
	settingsInPage = regexp.MustCompile("(?ms)^```env\n(.*?)^```$")
)

// recipes returns the settings of docs/platforms.md, by their headings.
func recipes(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	parts := regexp.MustCompile(`(?m)^## `).Split(read(t, "../../docs/platforms.md"), -1)
	for _, part := range parts[1:] {
		heading, body, _ := strings.Cut(part, "\n")
		if settings := settingsInPage.FindStringSubmatch(body); settings != nil {
			found[heading] = strings.Split(strings.TrimSpace(settings[1]), "\n")
		}
	}
	return found
}

// forged has headers with which a client pretends to be another, each alone, and all of them at once.
func forged() (all []http.Header) {
	const somebody = "198.51.100.66"
	everything := http.Header{}
	for _, name := range append([]string{"X-Forwarded-For"}, resetdtest.ForwardingHeaders...) {
		value := somebody
		if name == "Forwarded" {
			value = "for=" + somebody
		}
		all = append(all, http.Header{textproto.CanonicalMIMEHeaderKey(name): {value}})
		everything.Set(name, value)
	}
	all = append(all, everything, everything.Clone())
	all[len(all)-1].Add("X-Forwarded-For", "198.51.100.67")
	all[len(all)-1].Add("X-Real-IP", "198.51.100.67")
	for _, lines := range [][]string{
		{"198.51.100.66", "198.51.100.67"}, {"198.51.100.66, 198.51.100.67"}, {"127.0.0.1"}, {"10.0.0.1, 10.244.0.1, 192.0.2.77"}, {"192.0.2.77"},
		{"198.51.100.66, 35.191.0.1"}, {"[2001:db8:9::1]:443"}, {"unknown"}, {"nonsense"},
	} {
		all = append(all, http.Header{"X-Forwarded-For": lines})
	}
	return append(all,
		http.Header{"Forwarded": {"for=198.51.100.66, for=198.51.100.67;by=10.0.0.1"}},
		http.Header{"Forwarded": {"for=198.51.100.66", "for=198.51.100.67"}},
	)
}

// spoiling has headers that make the list unreadable or too long. At worst, a client that sends them counts as
// the proxy.
var spoiling = []http.Header{
	{"Forwarded": {`for="198.51.100.66`}}, {"Forwarded": {`for=198.51.100.66;host="`}}, {"Forwarded": {"nonsense"}},
	{"X-Forwarded-For": {`198.51.100.66, for="`}}, {"X-Forwarded-For": {strings.Repeat("198.51.100.66, ", 300)}}, {"X-Forwarded-For": {strings.Repeat("9", 5000)}},
}

// TestPlatforms plays the platforms of docs/platforms.md, with the settings that the page has for each.
func TestPlatforms(t *testing.T) {
	t.Parallel()
	found := recipes(t)
	if want, have := slices.Sorted(maps.Keys(platforms)), slices.Sorted(maps.Keys(found)); !slices.Equal(want, have) {
		t.Fatalf("docs/platforms.md has settings for\n%q, and these are played:\n%q", have, want)
	}
	for name, platform := range platforms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &played{t: t, settings: found[name]}
			nothing := http.Header{"Accept": {"*/*"}}
			for _, client := range []struct{ what, written, key string }{
				{what: "honest", written: "203.0.113.9", key: "203.0.113.9"},
				{what: "with a port", written: "203.0.113.10:4711", key: "203.0.113.10"},
				{what: "IPv6", written: "2001:db8:1:2:3:4:5:6", key: "2001:db8:1:2::/64"},
				{what: "IPv6 with a port", written: "[2001:db8:1:3::9]:4711", key: "2001:db8:1:3::/64"},
			} {
				peer, header := platform.arrives(client.written, nothing)
				s.begin()
				s.counts(client.what, peer, header, client.key)
				s.admits(client.what, peer, header)
				for _, sent := range forged() {
					peer, header := platform.arrives(client.written, sent)
					s.refuses(client.what+", forged", peer, header)
				}
				peer, header = platform.arrives("203.0.113.77", nothing)
				s.admits("another client than "+client.what, peer, header)
			}

			for _, sent := range spoiling {
				peer, header := platform.arrives("203.0.113.9", sent)
				s.counts("spoiled", peer, header, "203.0.113.9", keyOf(peer))
			}

			s.begin()
			peer, header := platform.short(nothing)
			s.counts("short", peer, header, keyOf(peer))
			s.admits("short", peer, header)
			for _, sent := range forged() {
				peer, header := platform.short(sent)
				s.refuses("short, forged", peer, header)
			}
			if platform.around == "" {
				return
			}
			s.begin()
			s.counts("around the platform", platform.around, forged()[0], keyOf(platform.around))
			s.admits("around the platform", platform.around, nothing)
			for _, sent := range forged() {
				s.refuses("around the platform, forged", platform.around, sent)
			}
		})
	}
}

func keyOf(peer string) string {
	host := peer[:strings.LastIndexByte(peer, ':')]
	if host == "[::1]" {
		return "::/64"
	}
	return host
}

// played is a resetd with the settings of one recipe. It allows one request per client.
type played struct {
	t        *testing.T
	settings []string
	handler  http.Handler
}

func (p *played) begin() {
	p.t.Helper()
	settings, err := readSettings("serve", nil, append([]string{"RATE_LIMIT=1-D", "ADMIN_ADDR=off"}, p.settings...), io.Discard)
	if err != nil {
		p.t.Fatal(err)
	}
	app, err := newApp(context.Background(), settings, slog.New(slog.DiscardHandler))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = app.outbox.Close(context.Background())
		app.health.Close()
	})
	p.handler = app.public
}

// refused says whether a request is refused by the limit. Other requests are answered that nothing is configured.
func (p *played) refused(peer string, header http.Header) bool {
	p.t.Helper()
	request := httptest.NewRequest(http.MethodPost, endpoint, strings.NewReader(`{"email":"stranger@example.org"}`))
	request.RemoteAddr = peer
	request.Header = header.Clone()
	request.Header.Set("Content-Type", "application/json")
	recorder := httptest.NewRecorder()
	p.handler.ServeHTTP(recorder, request)
	if recorder.Code != http.StatusTooManyRequests && recorder.Code != http.StatusInternalServerError {
		p.t.Fatalf("%d %s", recorder.Code, recorder.Body)
	}
	return recorder.Code == http.StatusTooManyRequests
}

func (p *played) admits(what, peer string, header http.Header) {
	p.t.Helper()
	if p.refused(peer, header) {
		p.t.Errorf("%s: counted as somebody else: %s, %.200q", what, peer, header)
	}
}

func (p *played) refuses(what, peer string, header http.Header) {
	p.t.Helper()
	if !p.refused(peer, header) {
		p.t.Errorf("%s: not counted: %s, %.200q", what, peer, header)
	}
}

// counts checks what `resetd check --explain-client` says about the client.
func (p *played) counts(what, peer string, header http.Header, keys ...string) {
	p.t.Helper()
	args := []string{"check", "--explain-client", peer}
	for name, values := range header {
		for _, value := range values {
			args = append(args, name+": "+value)
		}
	}
	var out bytes.Buffer
	if err := run(context.Background(), args, p.settings, &out, &out); err != nil {
		p.t.Fatal(err)
	}
	said, _, _ := strings.Cut(strings.TrimPrefix(out.String(), "client   "), "\n")
	if !slices.Contains(keys, said) {
		p.t.Errorf("%s: the client is %q, want %q: %s, %.200q\n%s", what, said, keys, peer, header, &out)
	}
}

// TestExplainAsDocumented: the command prints what the page says that it prints.
func TestExplainAsDocumented(t *testing.T) {
	t.Parallel()
	page := read(t, "../../docs/platforms.md")
	example := regexp.MustCompile("(?s)```sh\nexport (TRUSTED_PROXIES=\\S+)\nresetd check --explain-client (\\S+) '([^']+)'\n```\n\n```text\n(.*?)```").FindStringSubmatch(page)
	if example == nil {
		t.Fatal("docs/platforms.md has no example")
	}
	var out bytes.Buffer
	if err := run(context.Background(), []string{"check", "--explain-client", example[2], example[3]}, example[1:2], &out, &out); err != nil || out.String() != example[4] {
		t.Errorf("%v, and it says\n%s\nnot\n%s", err, &out, example[4])
	}
}
