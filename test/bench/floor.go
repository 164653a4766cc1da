//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"os"
	"strings"
	"time"
)

// What this program is when it is started again.
const (
	asFloor    = "floor"
	asStandIns = "stand-ins"
)

const site = "https://app.example.com"

// serveFloor does what the requests cost at least, written in the obvious way: nothing is checked,
// limited, counted, logged, tried again or kept secret, and the answer waits for the mail. It does
// reuse its connections and set a timeout, as anybody's second version does.
func serveFloor(args []string) {
	flags := flag.NewFlagSet(asFloor, flag.ExitOnError)
	upstream := flags.String("upstream", "", "address of the stand-ins")
	mailBytes := flags.Int("mail", 0, "bytes of the body of one call to Mailgun")
	status := flags.Int("status", 200, "of every answer; unless it is 200, nothing is called")
	answerBytes := flags.Int("answer", 0, "bytes of every answer's body")
	_ = flags.Parse(args) // exits by itself

	f := &floor{upstream: *upstream, status: *status, answer: filled(`{"message":"`, `"}`, *answerBytes)}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	f.client = &http.Client{Transport: transport, Timeout: 5 * time.Second}
	// The HTML is filled up until the whole form has the size of resetd's.
	empty, _ := f.form(known(0), strings.Repeat("0", 56))
	f.html = filled(`<a href="LINK">`, `</a>`, max(*mailBytes-empty.Len(), 0))

	serve(f)
}

type floor struct {
	client   *http.Client
	upstream string
	status   int
	answer   []byte
	html     []byte
}

func (f *floor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Email string `json:"email"`
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if f.status == http.StatusOK {
		if err := f.reset(request.Email); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	_, _ = w.Write(f.answer)
}

// reset makes the two calls, or one where there is no account.
func (f *floor) reset(email string) error {
	question, err := json.Marshal(map[string]string{"type": "recovery", "email": email, "redirect_to": site + "/reset-password"})
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPost, f.upstream+"/auth/v1/admin/generate_link", bytes.NewReader(question))
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
	request, err = http.NewRequest(http.MethodPost, f.upstream+"/v3/mg.example.com/messages", form)
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
	link := site + "/reset-password?token_hash=" + token + "&type=recovery"
	body := &bytes.Buffer{}
	form := multipart.NewWriter(body)
	for _, field := range [][2]string{
		{"from", "no-reply@mg.example.com"}, {"to", email}, {"subject", "Reset your password"}, {"text", link},
		{"html", strings.Replace(string(f.html), "LINK", link, 1)},
		{"o:tag", "password-reset"}, {"o:tracking", "no"}, {"o:require-tls", "yes"},
	} {
		_ = form.WriteField(field[0], field[1]) // a buffer takes everything
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

// filled has size bytes, most of them between the two ends.
func filled(first, last string, size int) []byte {
	return []byte(first + strings.Repeat("x", max(size-len(first)-len(last), 0)) + last)
}

// serve says where it listens in the words of resetd's own log.
func serve(handler http.Handler) {
	listener, err := listen()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintf(os.Stderr, "{\"msg\":\"listening\",\"addr\":%q}\n", listener.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.Serve(listener))
}
