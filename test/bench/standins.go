//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// canned is an answer of Supabase Auth for the account EMAIL, in the form and length of a real one.
const canned = `{"id":"4fd2ff89-dc94-413b-8a6d-6897afe12c19","aud":"authenticated","role":"authenticated",` +
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
	`\u0026type=recovery\u0026redirect_to=` + site + `/reset-password","email_otp":"891735",` +
	`"hashed_token":"18098e881bda1ca1d1eb02034f3b789c6862a452538027a781913398","verification_type":"recovery",` +
	`"redirect_to":"` + site + `/reset-password"}`

// behaviour is how the stand-ins answer: correctly, and at once unless times are given.
type behaviour struct {
	account time.Duration // for the lookup of an address with an account
	unknown time.Duration // for the lookup of another
	mail    time.Duration
	failing bool // mail is answered 500; test messages are accepted
}

func (b *behaviour) flags() *flag.FlagSet {
	flags := flag.NewFlagSet(asStandIns, flag.ExitOnError)
	flags.DurationVar(&b.account, "account", b.account, "time of a lookup that finds an account")
	flags.DurationVar(&b.unknown, "unknown", b.unknown, "time of a lookup that finds none")
	flags.DurationVar(&b.mail, "mail", b.mail, "time of a mail")
	flags.BoolVar(&b.failing, "failing", b.failing, "answer 500 to every mail")
	return flags
}

func (b *behaviour) args() []string {
	args := []string{asStandIns}
	b.flags().VisitAll(func(f *flag.Flag) { args = append(args, "-"+f.Name+"="+f.Value.String()) })
	return args
}

// tally counts what became of addresses. Questions of probes, which are about nobody, are not in it.
type tally struct {
	Lookups   int // addresses that were looked up
	Mails     int // addresses that were mailed
	Refused   int // addresses whose mail was refused
	Repeated  int // lookups and mails beyond the first of their address
	MailBytes int // of the last form that was sent to Mailgun
}

// counters are the tally of the stand-ins while they serve.
type counters struct {
	mu      sync.Mutex
	tally   tally
	lookups map[string]bool
	mails   map[string]bool
	refused map[string]bool
}

// count counts an address once in first, and in repeated from then on.
func (c *counters) count(addresses map[string]bool, address string, first, repeated *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if addresses[address] {
		*repeated++
		return
	}
	addresses[address] = true
	*first++
}

// serveStandIns answers for Supabase Auth and Mailgun. Everybody whose name begins with "known" has
// an account.
func serveStandIns(args []string) {
	var b behaviour
	_ = b.flags().Parse(args) // exits by itself
	c := &counters{lookups: map[string]bool{}, mails: map[string]bool{}, refused: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth/v1/admin/generate_link", func(w http.ResponseWriter, r *http.Request) {
		var question struct {
			Email string `json:"email"`
		}
		if json.NewDecoder(r.Body).Decode(&question) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		hasAccount := strings.HasPrefix(question.Email, "known")
		if hasAccount {
			time.Sleep(b.account)
		} else {
			time.Sleep(b.unknown)
		}
		if !strings.HasSuffix(question.Email, ".invalid") {
			c.count(c.lookups, question.Email, &c.tally.Lookups, &c.tally.Repeated)
		}
		w.Header().Set("Content-Type", "application/json")
		if hasAccount {
			_, _ = io.WriteString(w, strings.ReplaceAll(canned, "EMAIL", question.Email))
			return
		}
		w.Header().Set("X-Sb-Error-Code", "user_not_found")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"code":404,"error_code":"user_not_found","msg":"User with this email not found"}`)
	})
	mux.HandleFunc("POST /v3/{domain}/messages", func(w http.ResponseWriter, r *http.Request) {
		form, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		time.Sleep(b.mail)
		w.Header().Set("Content-Type", "application/json")
		switch to := field(form, "to"); {
		case field(form, "o:testmode") != "":
		case b.failing:
			c.count(c.refused, to, &c.tally.Refused, new(int))
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"message":"Internal Server Error"}`)
			return
		default:
			c.mu.Lock()
			c.tally.MailBytes = len(form)
			c.mu.Unlock()
			c.count(c.mails, to, &c.tally.Mails, &c.tally.Repeated)
		}
		_, _ = io.WriteString(w, `{"id":"<20261123154508.1a2b3c4d5e6f7081@mg.example.com>","message":"Queued. Thank you."}`)
	})
	mux.HandleFunc("GET /tally", func(w http.ResponseWriter, _ *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		_ = json.NewEncoder(w).Encode(c.tally)
	})
	serve(mux)
}

// field finds the value of a field in a multipart form; empty where there is none.
func field(form []byte, name string) string {
	_, after, _ := bytes.Cut(form, []byte(`name="`+name+"\"\r\n\r\n"))
	value, _, _ := bytes.Cut(after, []byte("\r\n"))
	return string(value)
}

// standIns are the process that answers for Supabase Auth and Mailgun, and what it must have been
// asked so far.
type standIns struct {
	*process
	want tally
}

func (s *standIns) tally() (t tally, err error) {
	response, err := http.Get(s.url + "/tally")
	if err != nil {
		return t, err
	}
	defer response.Body.Close()
	return t, json.NewDecoder(response.Body).Decode(&t)
}

// pollEvery is how often the stand-ins are asked whether all is delivered. The server under test is
// not asked, because its answer would be counted in.
const pollEvery = 25 * time.Millisecond

// await waits until everything that was accepted is delivered.
func (s *standIns) await(ctx context.Context) error {
	for began := time.Now(); ; time.Sleep(pollEvery) {
		is, err := s.tally()
		switch {
		case err != nil:
			return err
		case is.Lookups >= s.want.Lookups && is.Mails >= s.want.Mails && is.Refused >= s.want.Refused:
			return nil
		case time.Since(began) > time.Minute:
			return fmt.Errorf("not everything is delivered after a minute: %w", s.exactlyOnce())
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// exactlyOnce returns an error unless each accepted request was delivered exactly once.
func (s *standIns) exactlyOnce() error {
	is, err := s.tally()
	if err != nil {
		return err
	}
	if is.Lookups != s.want.Lookups || is.Mails != s.want.Mails || is.Repeated != s.want.Repeated {
		return fmt.Errorf("%d addresses were looked up (wanted %d) and %d mailed (wanted %d), %d times more than once",
			is.Lookups, s.want.Lookups, is.Mails, s.want.Mails, is.Repeated)
	}
	return nil
}
