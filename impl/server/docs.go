package server

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // of the page's template
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"
)

// The API reference is the document as HTML, written once at the start: one answer with its
// style in it, and no script. Swagger UI would be 425 KB over the wire, wider than a phone, and
// its selects have no names for a screen reader; what it adds is to send requests from the
// page, and a request here sends a mail.

//go:embed docs/page.html
var docsTemplate string

// docs is the API reference page.
type docs struct {
	page []byte
	csp  string
}

// newDocs writes the page. Operations are under base.
func newDocs(document *openapi3.T, base string) (*docs, error) {
	view, err := newDocsView(document, base)
	if err != nil {
		return nil, fmt.Errorf("writing the API reference: %w", err)
	}
	page, err := template.New("page").Parse(docsTemplate)
	if err != nil {
		return nil, fmt.Errorf("writing the API reference: %w", err)
	}
	var html bytes.Buffer
	if err := page.Execute(&html, view); err != nil {
		return nil, fmt.Errorf("writing the API reference: %w", err)
	}
	// Of what was written, which is not to the byte what the template has.
	_, rest, opened := bytes.Cut(html.Bytes(), []byte("<style>"))
	style, _, closed := bytes.Cut(rest, []byte("</style>"))
	if !opened || !closed {
		return nil, errors.New("writing the API reference: the page has no style")
	}
	digest := sha256.Sum256(style)
	return &docs{
		page: html.Bytes(),
		csp: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(digest[:]) + "'; img-src data:; " +
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	}, nil
}

// register serves the page. Its links are relative: a proxy may have put anything before base.
func (d *docs) register(e *echo.Echo, base string) {
	methods := []string{http.MethodGet, http.MethodHead}
	e.Match(methods, base+"/docs", func(c echo.Context) error {
		header := c.Response().Header()
		header.Set("Content-Security-Policy", d.csp)
		header.Set("Referrer-Policy", "no-referrer")
		header.Set(echo.HeaderContentLength, strconv.Itoa(len(d.page)))
		return c.Blob(http.StatusOK, echo.MIMETextHTMLCharsetUTF8, d.page)
	})
	e.Match(methods, base+"/docs/", func(c echo.Context) error {
		return c.Redirect(http.StatusPermanentRedirect, "../docs")
	})
}

// What the template shows. Prose is paragraphs.
type (
	docsView struct {
		Title, Version, OpenAPI string
		About                   []paragraph
		Open                    bool // no operation asks for credentials
		Servers                 []docsServer
		Groups                  []docsGroup
		Schemas                 []docsSchema
	}
	docsServer struct {
		URL   string
		About []paragraph
	}
	docsGroup struct {
		Name       string
		About      []paragraph
		Operations []docsOperation
	}
	docsOperation struct {
		ID, Method, Path, Summary string
		About                     []paragraph
		Parameters                []docsField
		Body                      *docsBody
		Everywhere                []docsField // headers of every answer
		Answers                   []docsAnswer
	}
	docsBody struct {
		Required bool
		About    []paragraph
		Contents []docsContent
	}
	docsContent struct {
		MediaType string
		Type      docsType
		Schema    *docsSchema // of a request, whose reader wants to see it at once
		Examples  []docsExample
	}
	docsExample struct {
		Name, Summary, JSON string
	}
	docsAnswer struct {
		Status, Text string
		About        []paragraph
		Headers      []docsField
		Contents     []docsContent
	}
	docsSchema struct {
		Name, Anchor string
		Type         docsType
		About        []paragraph
		Facts        []docsFact
		Fields       []docsField
	}
	// docsField is a member of an object, a parameter or a header.
	docsField struct {
		Name, In string
		Required bool
		Type     docsType
		About    []paragraph
		Facts    []docsFact
	}
	// docsType reads "array of Issue", where Issue is another schema.
	docsType struct {
		Text, Name, Anchor string
	}
	docsFact struct {
		Name, Value string
	}
	paragraph []span
	span      struct {
		Text string
		Code bool
	}
)

func newDocsView(document *openapi3.T, base string) (*docsView, error) {
	view := &docsView{
		Title: document.Info.Title, Version: document.Info.Version, OpenAPI: document.OpenAPI,
		About: prose(document.Info.Description), Open: len(document.Security) == 0,
	}
	for _, server := range document.Servers {
		view.Servers = append(view.Servers, docsServer{URL: server.URL, About: prose(server.Description)})
	}
	for _, tag := range document.Tags {
		view.Groups = append(view.Groups, docsGroup{Name: tag.Name, About: prose(tag.Description)})
	}
	for _, route := range sorted(document.Paths.Map()) {
		for _, operation := range sorted(route.value.Operations()) {
			tags := strings.Join(operation.value.Tags, ", ")
			in := slices.IndexFunc(view.Groups, func(g docsGroup) bool { return g.Name == tags })
			if in < 0 {
				in = len(view.Groups)
				view.Groups = append(view.Groups, docsGroup{Name: tags})
			}
			one, err := newDocsOperation(operation.key, base+route.key, operation.value)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", operation.key, route.key, err)
			}
			view.Groups[in].Operations = append(view.Groups[in].Operations, one)
			view.Open = view.Open && (operation.value.Security == nil || len(*operation.value.Security) == 0)
		}
	}
	for _, schema := range sorted(document.Components.Schemas) {
		s := docsSchema{Name: schema.key, Anchor: anchor(schema.key), About: prose(schema.value.Value.Description)}
		var err error
		if s.Type, s.Facts, err = describe(schema.value, "properties", "required"); err != nil {
			return nil, err
		}
		for _, property := range sorted(schema.value.Value.Properties) {
			field, err := newDocsField(property.key, "", slices.Contains(schema.value.Value.Required, property.key), "", property.value)
			if err != nil {
				return nil, err
			}
			s.Fields = append(s.Fields, field)
		}
		slices.SortStableFunc(s.Fields, requiredFirst)
		view.Schemas = append(view.Schemas, s)
	}
	view.showRequestSchemas()
	return view, nil
}

// showRequestSchemas moves the schemas of requests to where they are asked for.
func (v *docsView) showRequestSchemas() {
	for _, group := range v.Groups {
		for _, operation := range group.Operations {
			if operation.Body == nil {
				continue
			}
			for i := range operation.Body.Contents {
				content := &operation.Body.Contents[i]
				at := slices.IndexFunc(v.Schemas, func(s docsSchema) bool { return content.Type.Text == "" && s.Name == content.Type.Name })
				if at >= 0 { // once: a second reader follows the link
					moved := v.Schemas[at]
					content.Schema = &moved
					v.Schemas = slices.Delete(v.Schemas, at, at+1)
				}
			}
		}
	}
}

func newDocsOperation(method, path string, operation *openapi3.Operation) (docsOperation, error) {
	o := docsOperation{ID: operation.OperationID, Method: method, Path: path, Summary: operation.Summary, About: prose(operation.Description)}
	for _, parameter := range operation.Parameters {
		p := parameter.Value
		field, err := newDocsParameter(p.Name, p.In, p)
		if err != nil {
			return o, err
		}
		o.Parameters = append(o.Parameters, field)
	}
	var err error
	if operation.RequestBody != nil {
		body := operation.RequestBody.Value
		o.Body = &docsBody{Required: body.Required, About: prose(body.Description)}
		if o.Body.Contents, err = newDocsContents(body.Content); err != nil {
			return o, err
		}
	}
	answers := operation.Responses.Map()
	everywhere := func(header *openapi3.HeaderRef, name string) bool {
		for _, answer := range answers {
			other := answer.Value.Headers[name]
			if header.Ref == "" || other == nil || other.Ref != header.Ref {
				return false
			}
		}
		return true
	}
	for i, answer := range sorted(answers) {
		a := docsAnswer{Status: answer.key}
		if code, err := strconv.Atoi(answer.key); err == nil {
			a.Text = http.StatusText(code)
		}
		if answer.value.Value.Description != nil {
			a.About = prose(*answer.value.Value.Description)
		}
		for _, header := range sorted(answer.value.Value.Headers) {
			field, err := newDocsParameter(header.key, "", &header.value.Value.Parameter)
			switch {
			case err != nil:
				return o, err
			case !everywhere(header.value, header.key):
				a.Headers = append(a.Headers, field)
			case i == 0:
				o.Everywhere = append(o.Everywhere, field)
			}
		}
		if a.Contents, err = newDocsContents(answer.value.Value.Content); err != nil {
			return o, err
		}
		o.Answers = append(o.Answers, a)
	}
	return o, nil
}

func newDocsContents(content openapi3.Content) (contents []docsContent, err error) {
	for _, media := range sorted(content) {
		c := docsContent{MediaType: media.key}
		if c.Type, _, err = describe(media.value.Schema); err != nil {
			return nil, err
		}
		for _, example := range sorted(media.value.Examples) {
			text, err := json.MarshalIndent(example.value.Value.Value, "", "  ")
			if err != nil {
				return nil, fmt.Errorf("example %s: %w", example.key, err)
			}
			c.Examples = append(c.Examples, docsExample{Name: example.key, Summary: example.value.Value.Summary, JSON: string(text)})
		}
		contents = append(contents, c)
	}
	return contents, nil
}

func newDocsParameter(name, in string, p *openapi3.Parameter) (docsField, error) {
	field, err := newDocsField(name, in, p.Required, p.Description, p.Schema)
	if err == nil && p.Example != nil {
		field.Facts = append(field.Facts, docsFact{"example", fmt.Sprint(p.Example)})
	}
	return field, err
}

func newDocsField(name, in string, required bool, about string, schema *openapi3.SchemaRef) (docsField, error) {
	field := docsField{Name: name, In: in, Required: required, About: prose(about)}
	if about == "" {
		field.About = prose(schema.Value.Description)
	}
	var err error
	field.Type, field.Facts, err = describe(schema)
	return field, err
}

// describe names the type of a schema, and lists what else the document says of it in its own
// words, so that nothing which is new there is left out here. shown is what is told elsewhere.
func describe(ref *openapi3.SchemaRef, shown ...string) (docsType, []docsFact, error) {
	schema := ref.Value
	if ref.Ref != "" {
		name := path.Base(ref.Ref)
		return docsType{Name: name, Anchor: anchor(name)}, nil, nil
	}
	t := docsType{Text: strings.Join(schema.Type.Slice(), " or ")}
	shown = append(shown, "type", "description")
	var facts []docsFact
	inner := schema.Items
	if inner == nil {
		inner = schema.AdditionalProperties.Schema
	}
	if inner != nil {
		of, each, err := describe(inner)
		if err != nil {
			return t, nil, err
		}
		t.Text, t.Name, t.Anchor = strings.TrimSpace(t.Text+" of "+of.Text), of.Name, of.Anchor
		for _, fact := range each {
			facts = append(facts, docsFact{"each " + fact.Name, fact.Value})
		}
		if inner.Ref == "" && inner.Value.Description != "" {
			facts = append(facts, docsFact{"each", inner.Value.Description})
		}
		shown = append(shown, "items", "additionalProperties")
	}

	encoded, err := json.Marshal(schema)
	if err != nil {
		return t, nil, fmt.Errorf("a schema: %w", err)
	}
	var members map[string]any
	if err := json.Unmarshal(encoded, &members); err != nil {
		return t, nil, fmt.Errorf("a schema: %w", err)
	}
	maps.DeleteFunc(members, func(name string, _ any) bool { return slices.Contains(shown, name) })
	for _, member := range sorted(members) {
		text, isText := member.value.(string)
		if !isText {
			encoded, err := json.Marshal(member.value)
			if err != nil {
				return t, nil, fmt.Errorf("a schema: %w", err)
			}
			text = string(encoded)
		}
		facts = append(facts, docsFact{member.key, text})
	}
	return t, facts, nil
}

// prose reads what the document's descriptions use of CommonMark: paragraphs and code spans.
func prose(text string) (paragraphs []paragraph) {
	for block := range strings.SplitSeq(text, "\n\n") {
		var p paragraph
		for i, part := range strings.Split(strings.TrimSpace(block), "`") {
			if part != "" {
				p = append(p, span{Text: part, Code: i%2 == 1})
			}
		}
		if len(p) > 0 {
			paragraphs = append(paragraphs, p)
		}
	}
	return paragraphs
}

func anchor(schema string) string { return "schema-" + schema }

func requiredFirst(a, b docsField) int {
	switch {
	case a.Required == b.Required:
		return 0
	case a.Required:
		return -1
	}
	return 1
}

// entry is a member of one of the document's maps, whose order is lost.
type entry[T any] struct {
	key   string
	value T
}

func sorted[M ~map[string]T, T any](m M) []entry[T] {
	entries := make([]entry[T], 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		entries = append(entries, entry[T]{key, m[key]})
	}
	return entries
}
