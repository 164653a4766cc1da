package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// What the upstreams take. generate_link was measured on a running Supabase Auth (November 2026).
// Mailgun's distribution is made up: a median of 200 ms and a 99th percentile of 700 ms (2.33
// standard deviations, e^(2.33 σ) = 3.5).
const (
	accountMedian = 29 * time.Millisecond
	unknownMedian = 8 * time.Millisecond
	lookupSigma   = 0.1
	mailMedian    = 200 * time.Millisecond
	mailSigma     = 0.54
)

// standIns are Supabase Auth and Mailgun as they behave in one row. They run in a process of their
// own: in the one that measures, their work for an account would be seen beside the next answer.
type standIns struct {
	Seed uint64 // of the people

	Away         time.Duration // the way to Supabase and back
	AccountTakes time.Duration // median of generate_link
	UnknownTakes time.Duration
	LookupSigma  float64
	MailTakes    time.Duration
	MailSigma    float64

	// Faults, by name: of lookups for accounts, of those for unknown addresses (so of the probe
	// too), and of mails that are no test messages. They come after the time that an answer takes.
	AccountFault, UnknownFault, MailFault string

	Slots     int  // lookups that are worked for at once; 0: all
	Sessions  int  // database sessions; 0: no bound. An account takes four, one after another
	Passwords bool // one core is busy in bursts of 60 ms, as by checks of passwords
	Quota     int  // real mails that are accepted until the next POST /reset, 429 after that; 0: all
}

// usual is what the upstreams do without a fault.
var usual = standIns{
	AccountTakes: accountMedian, UnknownTakes: unknownMedian, LookupSigma: lookupSigma,
	MailTakes: mailMedian, MailSigma: mailSigma,
}

// faults answer in the place of an upstream.
var faults = map[string]http.HandlerFunc{
	"400": refuse(400), "401": refuse(401), "404": refuse(404), "429": refuse(429), "500": refuse(500),
	"reset": reset, "hang": hang, "drip": drip,
}

func refuse(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"message":"no"}`)
	}
}

func reset(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // close with RST
	}
	_ = conn.Close()
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func drip(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	for {
		if _, err := io.WriteString(w, " "); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		if !pause(r.Context(), 100*time.Millisecond) {
			return
		}
	}
}

// serveStandIns reads how they behave from in, writes their address to out, and serves until in
// ends, which it does with the process that measures.
func serveStandIns(in io.Reader, out io.Writer) error {
	settings := json.NewDecoder(in)
	var s standIns
	if err := settings.Decode(&s); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	u := upstreams{standIns: s, slots: newPlaces(s.Slots), sessions: newPlaces(s.Sessions), url: "http://" + listener.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth/v1/admin/generate_link", u.generateLink)
	mux.HandleFunc("POST /v3/{domain}/messages", u.sendMail)
	mux.HandleFunc("POST /reset", func(http.ResponseWriter, *http.Request) { u.sent.Store(0) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	if s.Passwords {
		go checkPasswords()
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		os.Exit(0)
	}()
	if _, err := fmt.Fprintf(out, "listening on %s\n", u.url); err != nil {
		return err
	}
	return server.Serve(listener)
}

// upstreams are the stand-ins at work.
type upstreams struct {
	standIns
	url             string
	slots, sessions places
	sent            atomic.Int64
}

func (u *upstreams) generateLink(w http.ResponseWriter, r *http.Request) {
	var question struct {
		Email      string `json:"email"`
		RedirectTo string `json:"redirect_to"`
	}
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	account := isAccount(u.Seed, question.Email)
	fault := u.UnknownFault
	if account {
		fault = u.AccountFault
	}
	switch {
	case !pause(r.Context(), u.Away/2) || !u.lookUp(r.Context(), account) || !pause(r.Context(), u.Away/2):
	case fault != "":
		faults[fault](w, r)
	case !account:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Sb-Error-Code", "user_not_found")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"code":404,"error_code":"user_not_found","msg":"User with this email not found"}`)
	default:
		token := fmt.Sprintf("%056x", rand.Uint64())
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{
			"email": question.Email, "hashed_token": token, "verification_type": "recovery", "redirect_to": question.RedirectTo,
			"action_link": u.url + "/auth/v1/verify?token=" + token + "&type=recovery&redirect_to=" + question.RedirectTo,
		})
	}
}

// lookUp takes the time of a lookup.
func (u *upstreams) lookUp(ctx context.Context, account bool) bool {
	takes, steps := u.UnknownTakes, 1
	if account {
		takes = u.AccountTakes
		if u.Sessions > 0 {
			steps = 4
		}
	}
	takes = logNormal(takes, u.LookupSigma) / time.Duration(steps)
	for range steps {
		done := u.sessions.in(ctx, func() bool {
			return u.slots.in(ctx, func() bool { return pause(ctx, takes) })
		})
		if !done {
			return false
		}
	}
	return true
}

func (u *upstreams) sendMail(w http.ResponseWriter, r *http.Request) {
	isTest, err := isTestMessage(r)
	switch {
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
	case !pause(r.Context(), logNormal(u.MailTakes, u.MailSigma)):
	case u.MailFault != "" && !isTest:
		faults[u.MailFault](w, r)
	case u.Quota > 0 && !isTest && u.sent.Add(1) > int64(u.Quota), u.Quota > 0 && isTest && u.sent.Load() >= int64(u.Quota):
		faults["429"](w, r)
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"<20261123154508.1a2b3c4d5e6f7081@mg.example.com>","message":"Queued. Thank you."}`)
	}
}

// isTestMessage reads the form to its end.
func isTestMessage(r *http.Request) (is bool, err error) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return false, err
	}
	form := multipart.NewReader(r.Body, params["boundary"])
	for {
		part, err := form.NextPart()
		if err == io.EOF {
			return is, nil
		}
		if err != nil {
			return false, err
		}
		if _, err := io.Copy(io.Discard, part); err != nil {
			return false, err
		}
		is = is || part.FormName() == "o:testmode"
	}
}

// places bound what is done at once, in the order in which it came; nil is no bound.
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

// pause says whether the time has passed; the caller may have gone before.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
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

// checkPasswords works as Supabase Auth does for a password: 60 ms of bcrypt, and again after a while.
func checkPasswords() {
	for {
		for began := time.Now(); time.Since(began) < 60*time.Millisecond; {
		}
		time.Sleep(rand.N(120 * time.Millisecond))
	}
}
