package main

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"time"

	"github.com/resetd/resetd/test/measure"
)

// asFloor is the argument that makes this program the floor.
const asFloor = "floor"

// floor does the least that the requests need, in the obvious way: it checks, limits, counts, logs and encrypts
// nothing, does not try again, and its answer waits for the mail. It does reuse its connections and set a
// timeout.
type floor struct {
	Upstream    string
	MailBytes   int    // of the body of one call to Mailgun
	Status      int    // of every answer; unless it is 200, no upstream is called
	AnswerBytes uint64 // of every answer's body

	client *http.Client
	answer []byte
	html   []byte
}

// floor starts a floor server.
func (b *bench) floor(f floor) (*measure.Process, error) {
	settings, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	return measure.StartSelf(b.ctx, asFloor, string(settings))
}

func (f *floor) serve(settings string) error {
	if err := json.Unmarshal([]byte(settings), f); err != nil {
		return err
	}
	f.answer = filled(`{"message":"`, `"}`, int(f.AnswerBytes))
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	f.client = &http.Client{Transport: transport, Timeout: 5 * time.Second}
	// The HTML is padded until the whole form has the size of resetd's.
	empty, _ := f.form(new(measure.People).Of(true), strings.Repeat("0", 56))
	f.html = filled(`<a href="LINK">`, `</a>`, max(f.MailBytes-empty.Len(), 0))
	return measure.Serve(f)
}

func (f *floor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Email string `json:"email"`
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if f.Status == http.StatusOK {
		if err := f.reset(request.Email); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.Status)
	_, _ = w.Write(f.answer)
}

// reset makes both calls, or without an account only the first.
func (f *floor) reset(email string) error {
	question, err := json.Marshal(map[string]string{"type": "recovery", "email": email, "redirect_to": measure.Site + "/reset-password"})
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPost, f.Upstream+"/auth/v1/admin/generate_link", bytes.NewReader(question))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Apikey", "key")
	request.Header.Set("Authorization", "Bearer key")
	var link struct {
		HashedToken string `json:"hashed_token"`
	}
	if err := f.call(request, &link); err != nil || link.HashedToken == "" {
		return err
	}

	form, contentType := f.form(email, link.HashedToken)
	request, err = http.NewRequest(http.MethodPost, f.Upstream+"/v3/mg.example.com/messages", form)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", contentType)
	request.SetBasicAuth("api", "key")
	var sent struct {
		ID string `json:"id"`
	}
	return f.call(request, &sent)
}

func (f *floor) form(email, token string) (*bytes.Buffer, string) {
	link := measure.Site + "/reset-password?token_hash=" + token + "&type=recovery"
	body := &bytes.Buffer{}
	form := multipart.NewWriter(body)
	for _, field := range [][2]string{
		{"from", "no-reply@mg.example.com"}, {"to", email}, {"subject", "Reset your password"}, {"text", link},
		{"html", strings.Replace(string(f.html), "LINK", link, 1)},
		{"o:tag", "password-reset"}, {"o:tracking", "no"}, {"o:require-tls", "yes"},
	} {
		_ = form.WriteField(field[0], field[1]) // a buffer returns no errors
	}
	_ = form.Close()
	return body, form.FormDataContentType()
}

func (f *floor) call(request *http.Request, answer any) error {
	response, err := f.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, answer)
}

// filled returns size bytes, most of them between the two ends.
func filled(first, last string, size int) []byte {
	return []byte(first + strings.Repeat("x", max(size-len(first)-len(last), 0)) + last)
}
