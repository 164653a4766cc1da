package resetdtest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/resetd/resetd/gen"
)

// CheckingTransport returns a transport that checks each answer against openapi.yaml.
func CheckingTransport(tb testing.TB, next http.RoundTripper) http.RoundTripper {
	return contract{tb, next, nil}
}

// contract checks the answers that pass through it.
type contract struct {
	t    testing.TB
	next http.RoundTripper
	told *private // gets the private texts of requests; may be nil
}

func (c contract) RoundTrip(request *http.Request) (*http.Response, error) {
	if c.told != nil {
		c.told.addRequest(request)
	}
	response, err := c.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return response, nil // interrupted: the test decides
	}
	CheckResponse(c.t, request, response, body)
	return response, nil
}

// Document returns openapi.yaml.
var Document = sync.OnceValue(func() *openapi3.T {
	document, err := gen.GetSpec()
	if err != nil {
		panic(err)
	}
	return document
})

// RequestID matches the ids of requests that the server keeps.
var RequestID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Reporter takes failures: a test, or one of many generated cases.
type Reporter interface {
	Errorf(format string, args ...any)
}

// CheckResponse checks an answer with its body against openapi.yaml: the status is documented, and headers and body fit.
// Answers that are not in the document (404, 405, /healthz) must have the headers of all answers.
func CheckResponse(t Reporter, request *http.Request, response *http.Response, body []byte) {
	where := request.Method + " " + request.URL.Path + ": " + response.Status
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if got := response.Header.Get(name); got != want {
			t.Errorf("%s: %s is %q, want %q", where, name, got, want)
		}
	}
	if id := response.Header.Get("X-Request-Id"); !RequestID.MatchString(id) {
		t.Errorf("%s: X-Request-Id is %q", where, id)
	}
	if server, there := response.Header["Server"]; there {
		t.Errorf("%s: Server is %q", where, server)
	}
	if request.Method == http.MethodHead || response.StatusCode == http.StatusNoContent {
		return
	}
	item := Document().Paths.Find("/auth/send-password-reset")
	if request.URL.EscapedPath() == Endpoint && request.Method == http.MethodPost {
		err := openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: &openapi3filter.RequestValidationInput{
				Request: request,
				Route:   &routers.Route{Spec: Document(), Path: "/auth/send-password-reset", PathItem: item, Method: http.MethodPost, Operation: item.Post},
			},
			Status: response.StatusCode, Header: response.Header, Body: io.NopCloser(bytes.NewReader(body)),
			Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
		})
		if err != nil {
			t.Errorf("%s: not as documented: %v\n%s", where, err, body)
		}
		if documented := item.Post.Responses.Status(response.StatusCode); documented != nil {
			checkHeaders(t, where, response.Header, documented.Value)
			checkCode(t, where, body, documented.Value)
		}
		return
	}
	if response.StatusCode >= 400 {
		var value any
		if err := json.Unmarshal(body, &value); err != nil {
			t.Errorf("%s: no JSON: %q", where, body)
			return
		}
		if err := Document().Components.Schemas["ErrorBody"].Value.VisitJSON(value); err != nil {
			t.Errorf("%s: not the documented error body: %v\n%s", where, err, body)
		}
		if response.StatusCode == http.StatusMethodNotAllowed && response.Header.Get("Allow") == "" {
			t.Errorf("%s: no Allow", where)
		}
	}
}

// undocumentedHeaders are the headers of HTTP itself and of CORS, and those that every answer has.
var undocumentedHeaders = map[string]bool{
	"Content-Type": true, "Content-Length": true, "Date": true, "Connection": true, "Vary": true, "Cache-Control": true,
	"X-Content-Type-Options": true, "Access-Control-Allow-Origin": true, "Access-Control-Expose-Headers": true,
}

// checkHeaders checks that an answer has all documented headers, and no others. The document does not require them,
// because the generated server would then write empty ones.
func checkHeaders(t Reporter, where string, header http.Header, documented *openapi3.Response) {
	known, sent := maps.Clone(undocumentedHeaders), map[string]bool{}
	for name := range documented.Headers {
		known[http.CanonicalHeaderKey(name)] = true
	}
	for name := range header {
		name = http.CanonicalHeaderKey(name) // the server writes RateLimit as the draft does
		sent[name] = true
		if !known[name] {
			t.Errorf("%s: %s is not documented", where, name)
		}
	}
	for name := range documented.Headers {
		if !sent[http.CanonicalHeaderKey(name)] {
			t.Errorf("%s: no %s", where, name)
		}
	}
}

// checkCode checks that an error has a code that is documented for its status.
func checkCode(t Reporter, where string, body []byte, documented *openapi3.Response) {
	var said struct {
		Ok   *bool
		Code string
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Ok != nil {
		return
	}
	if !slices.Contains(Backticked(*documented.Description), said.Code) {
		t.Errorf("%s: the code %q is not documented for it", where, said.Code)
	}
}

var backtickedName = regexp.MustCompile("`([a-z_]+)`")

// Backticked returns the `names` in a text.
func Backticked(text string) (names []string) {
	for _, found := range backtickedName.FindAllStringSubmatch(text, -1) {
		names = append(names, found[1])
	}
	return names
}
