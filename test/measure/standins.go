package measure

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Upstreams are stand-ins for Supabase Auth and Mailgun. They answer correctly and at once, except for the
// faults and times that are set. They run in a separate process, because in the measuring process their work
// for an account would change the time of the next answer. (impl/devstack knows its accounts by a list and
// keeps every call: it would use more processor time than the server under test.)
type Upstreams struct {
	Seed uint64 // of the People

	Away         time.Duration // round trip to Supabase
	AccountTakes time.Duration // median of generate_link
	UnknownTakes time.Duration
	LookupSigma  float64 // of the log-normal distribution around the median
	MailTakes    time.Duration
	MailSigma    float64

	// These are faults, by name: of lookups for accounts, of lookups for unknown addresses (also of the probe),
	// and of mails (not of test messages). They come after the time that an answer takes.
	AccountFault, UnknownFault, MailFault string

	Slots     int  // lookups that run at once; 0: all
	Sessions  int  // database sessions; 0: no bound. An account takes four, one after another
	Passwords bool // one core is busy in bursts of 60 ms, as with checks of passwords
	Quota     int  // real mails that are accepted until the next Forget, 429 after that; 0: all
}

// These are the times of the upstreams. generate_link was measured on a running Supabase Auth (November 2026).
// Mailgun's median is assumed.
const (
	AccountTakes = 29 * time.Millisecond
	UnknownTakes = 8 * time.Millisecond
	MailTakes    = 200 * time.Millisecond
)

// Tally counts the mails and lookups of addresses, without those of the probes.
type Tally struct {
	Lookups   int // looked up addresses
	Mails     int // mailed addresses
	Refused   int // addresses whose mail was answered with MailFault
	Repeated  int // further lookups and mails of the same address
	MailBytes int // of the last form sent to Mailgun
}

// StandIns is the process that stands in for Supabase Auth and Mailgun.
type StandIns struct{ *Process }

// asStandIns is the argument that makes this program the stand-ins.
const asStandIns = "stand-ins"

// StartStandIns runs this program again. Its main must begin with IsStandIns.
func StartStandIns(ctx context.Context, u Upstreams) (StandIns, error) {
	settings, err := json.Marshal(u)
	if err != nil {
		return StandIns{}, err
	}
	process, err := StartSelf(ctx, asStandIns, string(settings))
	return StandIns{process}, err
}

// Tally returns what the stand-ins have counted.
func (s StandIns) Tally() (t Tally, err error) {
	response, err := http.Get(s.URL() + "/tally")
	if err != nil {
		return t, err
	}
	defer response.Body.Close()
	return t, json.NewDecoder(response.Body).Decode(&t)
}

// Forget begins with a new Quota.
func (s StandIns) Forget() error {
	response, err := http.Get(s.URL() + "/forget")
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// IsStandIns serves until it fails, if StartStandIns has started this program with these arguments. Otherwise it
// returns false.
func IsStandIns(args []string) (is bool, err error) {
	if len(args) != 3 || args[1] != asStandIns {
		return false, nil
	}
	s := standIns{seen: map[string]bool{}}
	if err := json.Unmarshal([]byte(args[2]), &s.Upstreams); err != nil {
		return true, err
	}
	s.slots, s.sessions = newPlaces(s.Slots), newPlaces(s.Sessions)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth/v1/admin/generate_link", s.generateLink)
	mux.HandleFunc("POST /v3/{domain}/messages", s.sendMail)
	mux.HandleFunc("GET /forget", func(http.ResponseWriter, *http.Request) { s.change(func() { s.sent = 0 }) })
	mux.HandleFunc("GET /tally", func(w http.ResponseWriter, _ *http.Request) {
		s.change(func() { _ = json.NewEncoder(w).Encode(s.tally) })
	})
	if s.Passwords {
		go checkPasswords()
	}
	return true, Serve(mux)
}

// standIns are the stand-ins within their process.
type standIns struct {
	Upstreams
	slots, sessions places

	mu    sync.Mutex
	tally Tally
	sent  int             // of the quota
	seen  map[string]bool // addresses, after the name of a counter
}

func (s *standIns) change(what func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what()
}

// count counts the first time of an address in first, and further times in repeated.
func (s *standIns) count(first, repeated *int, name, address string) {
	s.change(func() {
		if name += address; s.seen[name] {
			first = repeated
		}
		s.seen[name] = true
		*first++
	})
}

// account returns the answer of Supabase Auth for an account, in the form and length of a real one.
const account = `{"id":"4fd2ff89-dc94-413b-8a6d-6897afe12c19","aud":"authenticated","role":"authenticated",` +
	`"email":"EMAIL","email_confirmed_at":"2026-11-23T15:13:27.752788Z","phone":"",` +
	`"confirmed_at":"2026-11-23T15:13:27.752788Z","recovery_sent_at":"2026-11-23T15:45:08.360404829Z",` +
	`"app_metadata":{"provider":"email","providers":["email"]},"user_metadata":{"email_verified":true},` +
	`"identities":[{"identity_id":"2183795e-034f-494b-b7bc-effedfda7a9e","id":"4fd2ff89-dc94-413b-8a6d-6897afe12c19",` +
	`"user_id":"4fd2ff89-dc94-413b-8a6d-6897afe12c19","identity_data":{"email":"EMAIL",` +
	`"email_verified":false,"phone_verified":false,"sub":"4fd2ff89-dc94-413b-8a6d-6897afe12c19"},"provider":"email",` +
	`"last_sign_in_at":"2026-11-23T15:13:27.749839Z","created_at":"2026-11-23T15:13:27.749875Z",` +
	`"updated_at":"2026-11-23T15:13:27.749875Z","email":"EMAIL"}],` +
	`"created_at":"2026-11-23T15:13:27.74772Z","updated_at":"2026-11-23T15:45:08.368257Z","is_anonymous":false,` +
	`"action_link":"http://127.0.0.1:9999/verify?token=18098e881bda1ca1d1eb02034f3b789c6862a452538027a781913398` +
	`\u0026type=recovery\u0026redirect_to=` + Site + `/reset-password","email_otp":"891735",` +
	`"hashed_token":"18098e881bda1ca1d1eb02034f3b789c6862a452538027a781913398","verification_type":"recovery",` +
	`"redirect_to":"` + Site + `/reset-password"}`

func (s *standIns) generateLink(w http.ResponseWriter, r *http.Request) {
	var question struct {
		Email string `json:"email"`
	}
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	hasAccount := isAccount(s.Seed, question.Email)
	fault := s.UnknownFault
	if hasAccount {
		fault = s.AccountFault
	}
	if !strings.HasSuffix(question.Email, ".invalid") {
		s.count(&s.tally.Lookups, &s.tally.Repeated, "looked up ", question.Email)
	}
	if !Pause(r.Context(), s.Away/2) || !s.lookUp(r.Context(), hasAccount) || !Pause(r.Context(), s.Away/2) {
		return
	}
	switch {
	case fault != "":
		faults[fault](w, r)
	case hasAccount:
		reply(w, http.StatusOK, strings.ReplaceAll(account, "EMAIL", question.Email))
	default:
		w.Header().Set("X-Sb-Error-Code", "user_not_found")
		reply(w, http.StatusNotFound, `{"code":404,"error_code":"user_not_found","msg":"User with this email not found"}`)
	}
}

// lookUp takes as long as a lookup.
func (s *standIns) lookUp(ctx context.Context, account bool) bool {
	takes, steps := s.UnknownTakes, 1
	if account {
		takes = s.AccountTakes
		if s.Sessions > 0 {
			steps = 4
		}
	}
	takes = logNormal(takes, s.LookupSigma) / time.Duration(steps)
	for range steps {
		done := s.sessions.in(ctx, func() bool {
			return s.slots.in(ctx, func() bool { return Pause(ctx, takes) })
		})
		if !done {
			return false
		}
	}
	return true
}

func (s *standIns) sendMail(w http.ResponseWriter, r *http.Request) {
	form, err := io.ReadAll(r.Body)
	if err != nil || !Pause(r.Context(), logNormal(s.MailTakes, s.MailSigma)) {
		return
	}
	to, isTest := field(form, "to"), field(form, "o:testmode") != ""
	if s.MailFault != "" && !isTest {
		s.count(&s.tally.Refused, new(int), "refused ", to)
		faults[s.MailFault](w, r)
		return
	}
	usedUp := false
	s.change(func() {
		usedUp = s.Quota > 0 && s.sent >= s.Quota
		if !isTest {
			s.sent++
			s.tally.MailBytes = len(form)
		}
	})
	if usedUp {
		faults["429"](w, r)
		return
	}
	if !isTest {
		s.count(&s.tally.Mails, &s.tally.Repeated, "mailed ", to)
	}
	reply(w, http.StatusOK, `{"id":"<20261123154508.1a2b3c4d5e6f7081@mg.example.com>","message":"Queued. Thank you."}`)
}

// field returns the value of a field in a multipart form; empty if it has none.
func field(form []byte, name string) string {
	_, after, _ := bytes.Cut(form, []byte(`name="`+name+"\"\r\n\r\n"))
	value, _, _ := bytes.Cut(after, []byte("\r\n"))
	return string(value)
}

func reply(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// faults answers instead of an upstream.
var faults = map[string]http.HandlerFunc{
	"400": refuse(400), "401": refuse(401), "404": refuse(404), "429": refuse(429), "500": refuse(500),
	"reset": reset, "drip": drip,
	"hang": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
}

func refuse(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { reply(w, status, `{"message":"no"}`) }
}

func reset(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // so that the kernel closes it with RST
	}
	_ = conn.Close()
}

func drip(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	for Pause(r.Context(), 100*time.Millisecond) {
		if _, err := io.WriteString(w, " "); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
	}
}

// places bounds how much is done at once, first come, first served; nil is no bound.
type places chan struct{}

func newPlaces(n int) places {
	if n == 0 {
		return nil
	}
	return make(places, n)
}

func (p places) in(ctx context.Context, do func() bool) bool {
	if p != nil {
		select {
		case p <- struct{}{}:
			defer func() { <-p }()
		case <-ctx.Done():
			return false
		}
	}
	return do()
}

func logNormal(median time.Duration, sigma float64) time.Duration {
	return time.Duration(float64(median) * math.Exp(sigma*rand.NormFloat64()))
}

// Pause waits, and says whether the time has passed before the end of ctx.
func Pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// checkPasswords works like Supabase Auth for passwords: 60 ms of bcrypt, and again after a while.
func checkPasswords() {
	for {
		for began := time.Now(); time.Since(began) < 60*time.Millisecond; {
		}
		time.Sleep(rand.N(120 * time.Millisecond))
	}
}
