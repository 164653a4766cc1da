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
	"strconv"
	"strings"
	"time"
)

// What the upstreams take. generate_link was measured on a running Supabase Auth. Mailgun's
// distribution is made up: a median of 200 ms and a 99th percentile of 700 ms (2.33 standard
// deviations, e^(2.33 σ) = 3.5).
const (
	accountMedian  = 29 * time.Millisecond
	strangerMedian = 8 * time.Millisecond
	lookupSigma    = 0.1
	mailMedian     = 200 * time.Millisecond
	mailSigma      = 0.54
)

func logNormal(median time.Duration, sigma float64) time.Duration {
	return time.Duration(float64(median) * math.Exp(sigma*rand.NormFloat64()))
}

// A fault answers in the place of an upstream, after the time that its answer would have taken.
type fault func(w http.ResponseWriter, r *http.Request)

// faults meet accounts only: lookups of an address that has one, mails that are no decoys.
type faults struct{ supabase, mailgun fault }

func refuse(status int) fault {
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
	for rest := " "; ; rest = " " {
		if _, err := io.WriteString(w, rest); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// standIns are Supabase Auth and Mailgun as resetd sees them.
type standIns struct {
	url    string
	people []bool // whether person i has an account
	faults faults
	server *http.Server
}

func startStandIns(people []bool, faults faults) (*standIns, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &standIns{url: "http://" + listener.Addr().String(), people: people, faults: faults}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth/v1/admin/generate_link", s.generateLink)
	mux.HandleFunc("POST /v3/{domain}/messages", s.sendMail)
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = s.server.Serve(listener) }()
	return s, nil
}

func (s *standIns) close() { _ = s.server.Close() }

func (s *standIns) generateLink(w http.ResponseWriter, r *http.Request) {
	var question struct {
		Email      string `json:"email"`
		RedirectTo string `json:"redirect_to"`
	}
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	digits := strings.TrimSuffix(strings.TrimPrefix(question.Email, "person"), "@example.com")
	person, err := strconv.Atoi(digits)
	if err != nil || person >= len(s.people) || !s.people[person] {
		if !pause(r.Context(), logNormal(strangerMedian, lookupSigma)) {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Sb-Error-Code", "user_not_found")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"code":404,"error_code":"user_not_found","msg":"User with this email not found"}`)
		return
	}
	if !pause(r.Context(), logNormal(accountMedian, lookupSigma)) {
		return
	}
	if s.faults.supabase != nil {
		s.faults.supabase(w, r)
		return
	}
	token := fmt.Sprintf("%056x", rand.Uint64())
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{
		"email": question.Email, "hashed_token": token, "verification_type": "recovery", "redirect_to": question.RedirectTo,
		"action_link": s.url + "/auth/v1/verify?token=" + token + "&type=recovery&redirect_to=" + question.RedirectTo,
	})
}

func (s *standIns) sendMail(w http.ResponseWriter, r *http.Request) {
	decoy, err := isDecoy(r)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if s.faults.mailgun != nil && !decoy {
		if pause(r.Context(), logNormal(mailMedian, mailSigma)) {
			s.faults.mailgun(w, r)
		}
		return
	}
	if !pause(r.Context(), logNormal(mailMedian, mailSigma)) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"id":"<20261123154508.1a2b3c4d5e6f7081@mg.example.com>","message":"Queued. Thank you."}`)
}

// isDecoy reads the form to its end.
func isDecoy(r *http.Request) (decoy bool, err error) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return false, err
	}
	form := multipart.NewReader(r.Body, params["boundary"])
	for {
		part, err := form.NextPart()
		if err == io.EOF {
			return decoy, nil
		}
		if err != nil {
			return false, err
		}
		if _, err := io.Copy(io.Discard, part); err != nil {
			return false, err
		}
		decoy = decoy || part.FormName() == "o:testmode"
	}
}

// pause says whether the time has passed; the caller may have gone before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
