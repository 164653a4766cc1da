package server

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/resetd/resetd/gen"
	"github.com/resetd/resetd/impl"
)

// maxBody bounds a body. It is some fifty times the longest sensible request.
const maxBody = 16 << 10

// validator judges the bodies of one operation against the document.
type validator struct {
	schema        *openapi3.Schema
	options       []openapi3.SchemaValidationOption
	mailboxes     []string                 // members of the format email
	allowCallback func(origin string) bool // nil allows any: the operation replaces what is not allowed

	single sync.Map // answers about a single issue, by gen.Issue, of which there are few
}

// newValidator makes the validator of the operation's body. It uses the schema alone, and not
// openapi3filter.ValidateRequest, because media types, reading and decoding have to be judged more strictly, and
// cost as much again there.
func newValidator(document *openapi3.T, path, method string, allowCallback func(string) bool) (*validator, error) {
	item := document.Paths.Find(path)
	if item == nil || item.GetOperation(method) == nil {
		return nil, fmt.Errorf("openapi.yaml has no %s %s", method, path)
	}
	body := item.GetOperation(method).RequestBody
	if body == nil || body.Value.GetMediaType(echo.MIMEApplicationJSON) == nil {
		return nil, fmt.Errorf("openapi.yaml has no JSON body for %s %s", method, path)
	}
	v := &validator{
		schema: body.Value.GetMediaType(echo.MIMEApplicationJSON).Schema.Value,
		options: []openapi3.SchemaValidationOption{
			openapi3.VisitAsRequest(),
			openapi3.MultiErrors(), // all faults at once
			openapi3.DisableSchemaErrorDetails(),
		},
		allowCallback: allowCallback,
	}
	for name, member := range v.schema.Properties {
		if member.Value.Format == "email" {
			v.mailboxes = append(v.mailboxes, name)
		}
	}
	slices.Sort(v.mailboxes)
	return v, nil
}

// middleware passes on only valid requests, with a body in which all readers see the same value.
func (v *validator) middleware(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		request := c.Request()
		if !isJSON(request.Header) {
			return errUnsupportedMediaType
		}
		body, err := readBody(c.Response(), request)
		if err != nil {
			return err
		}
		value, err := readJSON(body)
		if err != nil {
			return invalidJSON(err.Error())
		}
		if issues := v.judge(value); len(issues) > 0 {
			return v.refuse(issues)
		}
		plainLanguage(request.Header)
		request.Body = validatedBody{http.NoBody, value}
		return next(c)
	}
}

// refuse returns the answer invalid_request with these issues.
func (v *validator) refuse(issues []gen.Issue) *apiError {
	if len(issues) > 1 {
		return invalidRequest(issues)
	}
	known, ok := v.single.Load(issues[0])
	if !ok {
		known, _ = v.single.LoadOrStore(issues[0], invalidRequest(issues))
	}
	return known.(*apiError)
}

// validatedBody hands the validated value to the generated binding, which then does not read the bytes a second
// time (SECURITY.md, promise 4).
type validatedBody struct {
	io.ReadCloser
	value any
}

// ValidatedValue implements the interface that the generated binding looks for.
func (b validatedBody) ValidatedValue() any { return b.value }

// judge returns one issue per fault of the body.
func (v *validator) judge(value any) []gen.Issue {
	issues := v.misspelt(value)
	if err := v.schema.VisitJSON(value, v.options...); err != nil {
		found := readIssues(err)
		if found == nil {
			// An error of another kind: an issue without detail is better than none.
			found = []gen.Issue{{Path: "", Message: messageFor("", "")}}
		}
		issues = append(issues, found...)
	}
	issues = append(issues, v.badMailboxes(value)...)
	if issue, bad := v.badCallback(value); bad {
		issues = append(issues, issue)
	}
	return issues
}

// isJSON reports whether a body is declared as application/json, with any parameters, and not compressed.
func isJSON(header http.Header) bool {
	if len(header["Content-Type"]) != 1 {
		return false
	}
	if coding := header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return false
	}
	value := header.Get("Content-Type")
	if value == echo.MIMEApplicationJSON { // what nearly all send
		return true
	}
	mediaType, _, err := mime.ParseMediaType(value)
	return (err == nil || errors.Is(err, mime.ErrInvalidMediaParameter)) && mediaType == echo.MIMEApplicationJSON
}

// readBody reads at most maxBody bytes. It reads nothing of a body that is announced to be longer.
func readBody(w http.ResponseWriter, request *http.Request) (body []byte, err error) {
	switch length := request.ContentLength; {
	case length > maxBody:
		w.Header().Set("Connection", "close") // the rest is not worth reading
		return nil, errPayloadTooLarge
	case length >= 0:
		body = make([]byte, length)
		_, err = io.ReadFull(request.Body, body)
	default: // not announced
		body, err = io.ReadAll(http.MaxBytesReader(w, request.Body, maxBody))
	}
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return body, nil
	case errors.As(err, &tooLarge):
		return nil, errPayloadTooLarge
	}
	// The client went away, or was too slow.
	w.Header().Set("Connection", "close")
	return nil, invalidJSON("The body did not arrive in full.")
}

// misspelt finds members that differ from the document's only by case. They cannot be ignored like other unknown
// members, because some readers would see them and some would not.
func (v *validator) misspelt(value any) (issues []gen.Issue) {
	members, _ := value.(map[string]any)
	for name := range members {
		if _, known := v.schema.Properties[name]; known {
			continue
		}
		for member := range v.schema.Properties {
			if strings.EqualFold(name, member) {
				issues = append(issues, gen.Issue{Path: member, Message: fmt.Sprintf("Spell this member %q, in lower case.", member)})
			}
		}
	}
	return issues
}

// badMailboxes judges the format email. A format validator of kin-openapi would cost a map for each request and
// three texts for each fault.
func (v *validator) badMailboxes(value any) (issues []gen.Issue) {
	members, _ := value.(map[string]any)
	for _, name := range v.mailboxes {
		if address, isString := members[name].(string); isString && impl.CheckAddress(address) != nil {
			issues = append(issues, gen.Issue{Path: name, Message: messageFor(name, "format")})
		}
	}
	return issues
}

// badCallback finds a callback origin that is to be rejected.
func (v *validator) badCallback(value any) (gen.Issue, bool) {
	members, _ := value.(map[string]any)
	origin, isString := members["callback_origin"].(string)
	bad := isString && v.allowCallback != nil && !v.allowCallback(origin)
	return gen.Issue{Path: "callback_origin", Message: "This origin is not allowed."}, bad
}

// readIssues turns the validator's nested errors into one issue per fault, in its order.
func readIssues(err error) []gen.Issue {
	var several openapi3.MultiError
	var schema *openapi3.SchemaError
	switch {
	case as(err, &several):
		var issues []gen.Issue
		for _, err := range several {
			issues = append(issues, readIssues(err)...)
		}
		return issues
	case as(err, &schema):
		path := strings.Join(schema.JSONPointer(), ".")
		return []gen.Issue{{Path: path, Message: messageFor(path, schema.SchemaField)}}
	}
	return nil
}

// as is errors.As for the outermost error alone: errors.As would find only the first of many.
func as[T error](err error, target *T) bool {
	typed, ok := err.(T) //nolint:errorlint // see above
	if ok {
		*target = typed
	}
	return ok
}

// messages are the texts for people. A library's own text is never passed on.
var messages = map[[2]string]string{
	{"email", "required"}:           "Enter your email address.",
	{"email", "nullable"}:           "Enter your email address.",
	{"email", "type"}:               "Enter your email address as text.",
	{"email", "format"}:             "Enter a valid email address.",
	{"callback_origin", "type"}:     "Send the origin as text.",
	{"callback_origin", "nullable"}: "Send the origin as text, or leave it out.",
	{"", "type"}:                    "Send a JSON object.",
	{"", "nullable"}:                "Send a JSON object.",
}

// messageFor returns the message about a field that breaks a keyword of its schema.
func messageFor(path, keyword string) string {
	return cmp.Or(messages[[2]string{path, keyword}], "This value is not valid.")
}

var languages = regexp.MustCompile(`^[A-Za-z0-9*,;=. \t-]{1,256}$`)

// plainLanguage leaves one Accept-Language of a plain form, or none. The generated binding would refuse a
// request with two, and a language is no reason to refuse a request.
func plainLanguage(header http.Header) {
	if values := header["Accept-Language"]; len(values) > 0 {
		if joined := strings.Join(values, ","); languages.MatchString(joined) {
			header["Accept-Language"] = []string{joined}
		} else {
			delete(header, "Accept-Language")
		}
	}
}
