package supabase

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"testing"

	"github.com/resetd/resetd/impl"
)

// TestCheckUnknown: each question is about a new address, which no account can have. Of all recorded answers only
// the 404 for an unknown address says that Supabase Auth serves.
func TestCheckUnknown(t *testing.T) {
	header := http.Header{errorCodeHeader: {"user_not_found"}}
	recorded := func(name string) http.HandlerFunc {
		content, err := os.ReadFile("testdata/" + name + ".http")
		if err != nil {
			t.Fatal(err)
		}
		return replay(t, content)
	}
	plainly := func(status int, body string, header http.Header) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for name, values := range header {
				w.Header()[name] = values
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	type wanted struct {
		is     []error
		not    []error
		status int // of a StatusError; 0: none
		code   string
	}
	aboutNobody := regexp.MustCompile(`^{"type":"recovery","email":"(resetd-[0-9a-f]{24}@[0-9a-f]{8}\.invalid)","redirect_to":"` + regexp.QuoteMeta(redirectTo) + `"}$`)
	seen := map[string]bool{}
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		want    wanted
	}{
		"404-unknown":   {recorded("404-unknown"), wanted{}},
		"200-known":     {recorded("200-known"), wanted{is: []error{impl.ErrAuthUnavailable, ErrLinkForNobody}}},
		"400-bad-email": {recorded("400-bad-email"), wanted{is: []error{impl.ErrAuthUnavailable}, status: 400}},
		"403-bad-jwt":   {recorded("403-bad-jwt"), wanted{is: []error{impl.ErrAuthNotConfigured}, not: []error{ErrRewritten}, status: 403, code: "bad_jwt"}},
		"500":           {recorded("500-database-lookup"), wanted{is: []error{impl.ErrAuthUnavailable}, not: []error{ErrRewritten, ErrNotAuth}, status: 500, code: "unexpected_failure"}},
		"bare 404":      {plainly(404, "never-repeat-this", nil), wanted{is: []error{impl.ErrAuthUnavailable}, not: []error{ErrRewritten}, status: 404, code: "no error_code"}},
		"rewritten 404": {plainly(404, "<h1>", header), wanted{is: []error{ErrRewritten, impl.ErrAuthUnavailable}, status: 404, code: "no error_code"}},
		"another value of the header, no code": {
			plainly(404, "<h1>", http.Header{errorCodeHeader: {"never repeat this"}}), wanted{is: []error{impl.ErrAuthUnavailable}, not: []error{ErrRewritten}, status: 404, code: "no error_code"},
		},
		"a page": {plainly(200, "<html>", nil), wanted{is: []error{ErrNotAuth, impl.ErrAuthUnavailable}}},
		"429":    {plainly(429, `{"error_code":"over_request_rate_limit"}`, http.Header{"Retry-After": {"60"}}), wanted{is: []error{impl.ErrAuthUnavailable}, not: []error{ErrRewritten, ErrNotAuth}}},
		"closed": {func(w http.ResponseWriter, _ *http.Request) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				conn.Close()
			}
		}, wanted{is: []error{impl.ErrAuthUnavailable}, not: []error{ErrNotAuth}}},
	} {
		var asked string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			asked = string(body)
			tt.handler(w, r)
		}))
		err := New(Config{AuthURL: server.URL, Key: "the-key", Timeout: timeout}).CheckUnknown(t.Context(), redirectTo)
		server.Close()
		question := aboutNobody.FindStringSubmatch(asked)
		if question == nil || seen[question[1]] {
			t.Errorf("%s: asked %s", name, asked)
		} else {
			seen[question[1]] = true
		}
		if (err == nil) != (len(tt.want.is) == 0) {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range tt.want.is {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v is not: %v", name, err, want)
			}
		}
		for _, not := range tt.want.not {
			if errors.Is(err, not) {
				t.Errorf("%s: %v is: %v", name, err, not)
			}
		}
		var status *StatusError
		switch found := errors.As(err, &status); {
		case found != (tt.want.status != 0):
			t.Errorf("%s: %v", name, err)
		case found && (status.Status != tt.want.status || tt.want.code != "" && status.ErrorCode != tt.want.code):
			t.Errorf("%s: %v, want %d, %s", name, status, tt.want.status, tt.want.code)
		}
		if err != nil && regexp.MustCompile(`never|repeat|invalid|@|the-key|<h`).MatchString(err.Error()) {
			t.Errorf("%s: the error repeats what it must not: %v", name, err)
		}
	}
}

// TestRedirectOrigin: answers are understood as recorded from a running Supabase Auth, with and without a
// database, and as other servers give them. A link is followed without a key, like in a browser.
func TestRedirectOrigin(t *testing.T) {
	const expired = "#error=access_denied&error_code=otp_expired&error_description=Email+link+is+invalid+or+has+expired&sb="
	for name, tt := range map[string]struct {
		status         int
		location, want string
	}{
		"allowed":                      {status: 303, location: redirectTo + expired, want: "https://app.example.com"},
		"replaced":                     {status: 303, location: "https://other.example.com:8443/welcome?x=y" + expired, want: "https://other.example.com:8443"},
		"allowed, without a database":  {status: 303, location: redirectTo, want: "https://app.example.com"},
		"replaced, without a database": {status: 303, location: "https://other.example.com", want: ""},
		"from another server":          {status: 303, location: "https://login.example.com/?error_code=1", want: ""},
		"to nowhere":                   {status: 303, location: "", want: ""},
		"to an invalid address":        {status: 303, location: "javascript:alert(1)" + expired, want: ""},
		"of another kind":              {status: 302, location: redirectTo + expired, want: ""},
		"none":                         {status: 200, location: "", want: ""},
		"not found":                    {status: 404, location: "", want: ""},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				query := r.URL.Query()
				if r.Method != http.MethodGet || r.URL.Path != "/auth/v1/verify" || query.Get("type") != "recovery" || query.Get("redirect_to") != redirectTo ||
					!regexp.MustCompile(`^[0-9a-f]{56}$`).MatchString(query.Get("token")) {
					t.Errorf("asked was %s %s", r.Method, r.URL)
				}
				for _, name := range []string{"Apikey", "Authorization", "Referer", "Redirect_to"} {
					if r.Header.Get(name) != "" {
						t.Errorf("the header %s is sent", name)
					}
				}
				if tt.location != "" {
					w.Header().Set("Location", tt.location)
				}
				w.WriteHeader(tt.status)
			}))
			defer server.Close()
			got, err := New(Config{AuthURL: server.URL + "/auth/v1/", Key: "the-key", Timeout: timeout}).RedirectOrigin(t.Context(), redirectTo)
			if got != tt.want || (err != nil) != (tt.want == "") || asked != 1 {
				t.Errorf("%q, %v, want %q; asked %d times", got, err, tt.want, asked)
			}
			var status *StatusError
			if isStatus := errors.As(err, &status); isStatus != (tt.status != 303) || isStatus && status.Status != tt.status {
				t.Errorf("the error is %v", err)
			}
		})
	}
}
