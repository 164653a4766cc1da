// Package devstack has stand-ins for Supabase Auth and Mailgun, and an inbox that shows the mail. `resetd dev`
// and the tests of the whole server use them.
//
// It owns the outside of both services as a client sees it: which keys are accepted and in
// which headers, the exact bodies of errors, when a link dies, what a message must contain,
// and the difference between mail that is delivered and mail that Mailgun merely accepts.
// The Supabase half answers what a real Supabase Auth was recorded to answer
// (testdata/supabase-auth). A request that is refused changes nothing, as in reality: a
// stand-in that answers 401 but stores the message makes tests lie.
//
// It must never be reachable from `resetd serve`: it keeps passwords in clear, shows
// everybody's mail, and its inbox asks for no login. It imports no other room of the
// module, so that nothing it gets wrong can agree with something they get wrong.
package devstack

import (
	"crypto/rand"
	"encoding/hex"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	defaultLinkLifetime = time.Hour // Supabase's own default for mailer_otp_exp, 3600 s
	defaultMaxMails     = 500

	// maxMailBytes bounds what the inbox and the test messages keep, each: 500 messages of Mailgun's
	// largest size would be 12 GB. The newest message stays whatever its size.
	maxMailBytes = 64 << 20

	// maxCalls bounds the record of calls. A test that makes more of them counts by itself.
	maxCalls = 10_000

	// maxSessions bounds the sign-ins that a long `resetd dev` would otherwise collect.
	maxSessions = 1_000
)

// DefaultAccounts are the addresses that have an account when Config.Accounts is nil. The
// first is the one of the documented example request.
func DefaultAccounts() []string {
	return []string{"hello@example.com", "ada@example.com", "Grace.Hopper@example.com"}
}

// Config has the accounts, keys and behaviour of the stand-ins. The zero value has the default accounts and no
// keys, so that Supabase's admin endpoint and Mailgun refuse everybody.
type Config struct {
	// Accounts are the addresses as stored, case and all. Supabase finds them whatever the
	// case of the question, and answers with this spelling. Nil means DefaultAccounts; an
	// empty slice means that nobody has an account.
	Accounts []string

	// Banned are those of Accounts that are banned: their links can be made, and open nothing.
	Banned []string

	// Metadata is the user_metadata of accounts, by their addresses as stored. Accounts that it lacks have
	// that of a new account.
	Metadata map[string]map[string]any

	// SiteURL is where links lead whose redirect_to is not allowed. Anything on its scheme
	// and host is allowed too (and, on a loopback host, on any port), as in Supabase.
	SiteURL string

	// RedirectAllowList are further allowed redirect_to values: exact, or globs in
	// Supabase's sense, where * stops at '.' and '/', and ** does not.
	// https://supabase.com/docs/guides/auth/redirect-urls
	RedirectAllowList []string

	// ServiceRoleKey is the only key that the admin endpoint accepts. A key that begins with
	// sb_secret_ belongs only in the header apikey; any other key in apikey and as Bearer.
	ServiceRoleKey string

	// PublishableKey is the key that apps send in the header apikey. The stand-in accepts only this key
	// and ServiceRoleKey. If it is empty, apps need no key, as without a gateway in front of
	// Supabase Auth.
	PublishableKey string

	// MailgunKey and MailgunDomain are the only ones Mailgun accepts.
	MailgunKey, MailgunDomain string

	// SupabaseMiddleware and MailgunMiddleware wrap the services: the place for a test's
	// faults and delays. Calls are recorded before them, so a call that a fault swallows
	// has still been made.
	SupabaseMiddleware, MailgunMiddleware func(http.Handler) http.Handler

	// Now is the clock of every date and lifetime; nil means time.Now.
	Now func() time.Time

	// LinkLifetime is how long a recovery link works; 0 means an hour.
	LinkLifetime time.Duration

	// PublicAuthURL is the base of action_link, such as http://127.0.0.1:54321/auth/v1. Empty
	// means /auth/v1 on the host that was asked. SetPublicAuthURL changes it later.
	PublicAuthURL string

	// AuthURL is another Supabase Auth, at which /dev/reset-password verifies links, and AuthKey its key in
	// the header apikey. Empty means the stand-in.
	AuthURL, AuthKey string

	// Preview is what the page /dev/preview shows. Nil means that there is none.
	Preview *Preview

	// APIURL is the base of resetd's own API as the inbox's empty page prints it, such as
	// http://localhost:8080/api. Empty means /api on the host that was asked.
	APIURL string

	// PublicHosts are host names, without port, that the pages answer to beside localhost
	// and loopback addresses. Any other Host is refused: a page on the internet could
	// otherwise point its own name at 127.0.0.1 and read the inbox.
	PublicHosts []string

	// MaxMails is how many delivered messages are kept, and how many test messages; 0 means 500.
	// The oldest goes first.
	MaxMails int
}

// Mail is one message that Mailgun accepted.
type Mail struct {
	ID      string              `json:"id"`   // the Message-Id without <, > and domain
	At      time.Time           `json:"at"`   // when it was accepted
	From    string              `json:"from"` // as sent, display name and all
	To      []string            `json:"to"`   // bare addresses, without display names
	Subject string              `json:"subject"`
	Text    string              `json:"text"`
	HTML    string              `json:"html"`
	Fields  map[string][]string `json:"fields"` // every form field as sent; of a file only its name
}

func (m Mail) clone() Mail {
	m.To = slices.Clone(m.To)
	m.Fields = maps.Clone(m.Fields)
	for name, values := range m.Fields {
		m.Fields[name] = slices.Clone(values)
	}
	return m
}

func (m Mail) size() int {
	n := 0
	for name, values := range m.Fields {
		n += len(name)
		for _, v := range values {
			n += len(v)
		}
	}
	return n
}

// Call is one request that reached a stand-in, refused or not.
type Call struct {
	Service  string // "supabase" or "mailgun"
	Method   string
	Path     string    // without the query
	Email    string    // Supabase: the body's email as sent, "" if there is none
	To       []string  // Mailgun: the recipients as sent
	TestMode bool      // Mailgun: o:testmode was on
	At       time.Time // when its body had arrived
	// Header is what was sent, with keys and tokens replaced by "[redacted]" so that a test
	// can still see where they were put.
	Header http.Header
}

// Stack is both stand-ins and the inbox. Its methods may be called concurrently; what they return belongs to
// the caller.
type Stack struct {
	cfg       Config
	redirects redirectRules
	pages     *pages
	jwtSecret []byte

	mu            sync.Mutex
	publicAuthURL string
	accounts      []*account
	byEmail       map[string]*account // by lower-cased address
	byToken       map[string]*account // by the hash of the one live recovery token
	sessions      []*authSession      // oldest first
	mails, tests  mailbox
	calls         []Call
	changed       chan struct{} // closed and replaced when a mailbox changes
	version       int           // counts those changes
	closed        chan struct{}
	closeOnce     sync.Once
}

// New returns a stack in which nothing has happened yet. It copies what it needs of cfg.
func New(cfg Config) *Stack {
	if cfg.Accounts == nil {
		cfg.Accounts = DefaultAccounts()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.LinkLifetime == 0 {
		cfg.LinkLifetime = defaultLinkLifetime
	}
	if cfg.MaxMails <= 0 {
		cfg.MaxMails = defaultMaxMails
	}
	s := &Stack{
		cfg:           cfg,
		redirects:     newRedirectRules(cfg.SiteURL, cfg.RedirectAllowList),
		publicAuthURL: cfg.PublicAuthURL,
		jwtSecret:     randomBytes(32),
		byEmail:       map[string]*account{},
		byToken:       map[string]*account{},
		mails:         mailbox{max: cfg.MaxMails},
		tests:         mailbox{max: cfg.MaxMails},
		changed:       make(chan struct{}),
		closed:        make(chan struct{}),
	}
	created := s.now()
	for _, stored := range cfg.Accounts {
		key := strings.ToLower(stored)
		if _, twice := s.byEmail[key]; twice {
			continue
		}
		a := newAccount(stored, created)
		if metadata, ok := cfg.Metadata[stored]; ok {
			a.metadata = metadata
		}
		if slices.Contains(cfg.Banned, stored) {
			a.bannedUntil = created.AddDate(100, 0, 0)
		}
		s.accounts = append(s.accounts, a)
		s.byEmail[key] = a
	}
	s.pages = newPages(s)
	return s
}

// SetPublicAuthURL sets the base of action_link once the port is known, such as
// http://127.0.0.1:54321/auth/v1. It concerns the links made from then on.
func (s *Stack) SetPublicAuthURL(base string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publicAuthURL = base
}

// Mails returns the delivered messages, newest first.
func (s *Stack) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mails.newestFirst()
}

// TestMessages returns the messages accepted in test mode, newest first. Mailgun never delivers them, so they
// are not among Mails.
func (s *Stack) TestMessages() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tests.newestFirst()
}

// Calls returns the requests to both stand-ins, oldest first; beyond 10,000 the oldest are forgotten. Calls that
// the pages make in process are not among them.
func (s *Stack) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := slices.Clone(s.calls)
	for i := range calls {
		calls[i].To = slices.Clone(calls[i].To)
		calls[i].Header = calls[i].Header.Clone()
	}
	return calls
}

// Password returns the password that was last set for the account with that address, in any case of letters; ""
// if none was set, or if there is no such account.
func (s *Stack) Password(email string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.byEmail[strings.ToLower(email)]; a != nil {
		return a.password
	}
	return ""
}

// Reset forgets mail, test messages, calls, links, sessions and passwords. The accounts stay, with
// their ids.
func (s *Stack) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails.clear()
	s.tests.clear()
	s.calls = nil
	s.sessions = nil
	clear(s.byToken)
	for _, a := range s.accounts {
		a.reset()
	}
	s.announce()
}

// Close ends the open event streams of the inbox. Without it http.Server.Shutdown waits for
// them until its time is up; pass it to RegisterOnShutdown.
func (s *Stack) Close() { s.closeOnce.Do(func() { close(s.closed) }) }

// now returns the time of the configured clock in UTC, without the monotonic reading.
func (s *Stack) now() time.Time { return s.cfg.Now().UTC().Round(0) }

// announce wakes the event streams. The caller holds the lock.
func (s *Stack) announce() {
	s.version++
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Stack) record(c Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) >= maxCalls {
		// A tenth at a time, so that a long run does not move 10,000 entries for each call.
		s.calls = slices.Delete(s.calls, 0, maxCalls/10)
	}
	s.calls = append(s.calls, c)
}

// mailbox keeps messages oldest first, bounded by number and by bytes.
type mailbox struct {
	max   int
	list  []Mail
	bytes int
}

func (b *mailbox) add(m Mail) {
	b.list = append(b.list, m)
	b.bytes += m.size()
	for len(b.list) > 1 && (len(b.list) > b.max || b.bytes > maxMailBytes) {
		b.bytes -= b.list[0].size()
		b.list = slices.Delete(b.list, 0, 1)
	}
}

func (b *mailbox) clear() { b.list, b.bytes = nil, 0 }

func (b *mailbox) newestFirst() []Mail {
	out := make([]Mail, 0, len(b.list))
	for _, m := range slices.Backward(b.list) {
		out = append(out, m.clone())
	}
	return out
}

func (b *mailbox) find(id string) (Mail, bool) {
	for _, m := range b.list {
		if m.ID == id {
			return m.clone(), true
		}
	}
	return Mail{}, false
}

// redactedHeader returns a copy of h in which "[redacted]" replaces each credential.
func redactedHeader(h http.Header) http.Header {
	h = h.Clone()
	for _, name := range []string{"Authorization", "Apikey", "Cookie", "Proxy-Authorization"} {
		for i := range h[name] {
			h[name][i] = "[redacted]"
		}
	}
	return h
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return b
}

func randomHex(bytes int) string { return hex.EncodeToString(randomBytes(bytes)) }
