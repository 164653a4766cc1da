//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
)

// canned is an answer of Supabase Auth for an account, in the form and length of a real one.
const canned = `{"id":"4fd2ff89-dc94-413b-8a6d-6897afe12c19","aud":"authenticated","role":"authenticated",` +
	`"email":"known0001@example.com","email_confirmed_at":"2026-11-23T15:13:27.752788Z","phone":"",` +
	`"confirmed_at":"2026-11-23T15:13:27.752788Z","recovery_sent_at":"2026-11-23T15:45:08.360404829Z",` +
	`"app_metadata":{"provider":"email","providers":["email"]},"user_metadata":{"email_verified":true},` +
	`"identities":[{"identity_id":"2183795e-034f-494b-b7bc-effedfda7a9e","id":"4fd2ff89-dc94-413b-8a6d-6897afe12c19",` +
	`"user_id":"4fd2ff89-dc94-413b-8a6d-6897afe12c19","identity_data":{"email":"known0001@example.com",` +
	`"email_verified":false,"phone_verified":false,"sub":"4fd2ff89-dc94-413b-8a6d-6897afe12c19"},"provider":"email",` +
	`"last_sign_in_at":"2026-11-23T15:13:27.749839Z","created_at":"2026-11-23T15:13:27.749875Z",` +
	`"updated_at":"2026-11-23T15:13:27.749875Z","email":"known0001@example.com"}],` +
	`"created_at":"2026-11-23T15:13:27.74772Z","updated_at":"2026-11-23T15:45:08.368257Z","is_anonymous":false,` +
	`"action_link":"http://127.0.0.1:9999/verify?token=18098e881bda1ca1d1eb02034f3b789c6862a452538027a781913398` +
	`\u0026type=recovery\u0026redirect_to=` + site + `/reset-password","email_otp":"891735",` +
	`"hashed_token":"18098e881bda1ca1d1eb02034f3b789c6862a452538027a781913398","verification_type":"recovery",` +
	`"redirect_to":"` + site + `/reset-password"}`

// serveStandIns answers for Supabase Auth and Mailgun, correctly and at once. Everybody whose
// name begins with "known" has an account.
func serveStandIns() {
	var lastMail atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth/v1/admin/generate_link", func(w http.ResponseWriter, r *http.Request) {
		question, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if bytes.Contains(question, []byte(`"email":"known`)) {
			_, _ = io.WriteString(w, canned)
			return
		}
		w.Header().Set("X-Sb-Error-Code", "user_not_found")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"code":404,"error_code":"user_not_found","msg":"User with this email not found"}`)
	})
	mux.HandleFunc("POST /v3/{domain}/messages", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		lastMail.Store(n)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"<20261123154508.1a2b3c4d5e6f7081@mg.example.com>","message":"Queued. Thank you."}`)
	})
	mux.HandleFunc("GET /last-mail", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, lastMail.Load()) })
	serve(mux)
}

// lastMailBytes is the size of the last form that was sent to Mailgun.
func lastMailBytes(standIns string) (int, error) {
	response, err := http.Get(standIns + "/last-mail")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(body))
}
