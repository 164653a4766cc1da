package server

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // of the page's template
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"net/http"
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

// newDocs writes the page. Operations are under basePath.
func newDocs(document *openapi3.T) (*docs, error) {
	operations := docsOperations(document)
	placed := map[string]bool{}
	var html bytes.Buffer
	page, err := template.New("page").Funcs(template.FuncMap{
		"everywhere": everywhere, "facts": facts, "fields": fields, "headers": headers,
		"prose": prose, "schemaName": schemaName, "text": text,
		"join": strings.Join, "split": strings.Split,
		"indent": func(value any, schema *openapi3.SchemaRef) (string, error) {
			var indented bytes.Buffer
			encoded, err := inOrder(value, schema)
			if err == nil {
				err = json.Indent(&indented, encoded, "", "  ")
			}
			return indented.String(), err
		},
		// curl puts the first example of a request into quotes of a shell.
		"curl": func(examples openapi3.Examples, schema *openapi3.SchemaRef) (string, error) {
			for _, name := range slices.Sorted(maps.Keys(examples)) {
				encoded, err := inOrder(examples[name].Value.Value, schema)
				return "'" + strings.ReplaceAll(string(encoded), "'", `'\''`) + "'", err
			}
			return "", nil
		},
		"server": func() string {
			for _, server := range document.Servers {
				if strings.Contains(server.URL, "://") {
					return strings.TrimSuffix(server.URL, basePath)
				}
			}
			return "http://localhost:8080"
		},
		// place names a schema only once, so that it has one place on the page: the first request
		// that takes it, whose reader wants to see it at once, or else the list of schemas.
		"place": func(ref string) string {
			name := schemaName(ref)
			if placed[name] {
				return ""
			}
			placed[name] = true
			return name
		},
		"statusText": func(status string) string {
			code, _ := strconv.Atoi(status) // "default" and "5XX" have no text
			return http.StatusText(code)
		},
	}).Parse(docsTemplate)
	if err == nil {
		err = page.Execute(&html, map[string]any{
			"Document": document, "Operations": operations,
			"Open": len(document.Security) == 0 && !slices.ContainsFunc(operations, docsOperation.secured),
		})
	}
	if err != nil {
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

// docsOperation is an operation, and what the document says of it around it.
type docsOperation struct {
	*openapi3.Operation
	Method, Path string
	Tag          *openapi3.Tag
}

func (o docsOperation) secured() bool { return o.Security != nil && len(*o.Security) > 0 }

// docsOperations lists the operations in the order of their tags, undeclared ones last.
func docsOperations(document *openapi3.T) (operations []docsOperation) {
	tags := slices.Clone(document.Tags)
	paths := document.Paths.Map()
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		methods := paths[path].Operations()
		for _, method := range slices.Sorted(maps.Keys(methods)) {
			name := strings.Join(methods[method].Tags, ", ")
			if tags.Get(name) == nil {
				tags = append(tags, &openapi3.Tag{Name: name})
			}
			operations = append(operations, docsOperation{methods[method], method, basePath + path, tags.Get(name)})
		}
	}
	slices.SortStableFunc(operations, func(a, b docsOperation) int {
		return cmp.Compare(slices.Index(tags, a.Tag), slices.Index(tags, b.Tag))
	})
	return operations
}

// memberNames lists the members of an object: required ones in the order of the document, which has no
// order of the others.
func memberNames(object *openapi3.Schema) []string {
	names := slices.Clone(object.Required)
	for _, name := range slices.Sorted(maps.Keys(object.Properties)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// fields lists the members of an object. They become parameters, as headers do, so that one template
// shows all three.
func fields(object *openapi3.Schema) (parameters []*openapi3.Parameter) {
	for _, name := range memberNames(object) {
		if member := object.Properties[name]; member != nil {
			parameters = append(parameters, &openapi3.Parameter{Name: name, Required: slices.Contains(object.Required, name), Schema: member})
		}
	}
	return parameters
}

// inOrder writes an example as JSON, with the members of objects as fields lists them.
func inOrder(value any, schema *openapi3.SchemaRef) ([]byte, error) {
	object, isObject := value.(map[string]any)
	list, isList := value.([]any)
	of := &openapi3.Schema{}
	if schema != nil && schema.Value != nil {
		of = schema.Value
	}
	var b bytes.Buffer
	part := func(before string, value any, schema *openapi3.SchemaRef) error {
		encoded, err := inOrder(value, schema)
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.WriteString(before)
		b.Write(encoded)
		return err
	}
	switch {
	case isObject:
		b.WriteByte('{')
		names := memberNames(of)
		for _, name := range slices.Sorted(maps.Keys(object)) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		for _, name := range names {
			if member, ok := object[name]; ok {
				key, err := json.Marshal(name)
				if err == nil {
					err = part(string(key)+":", member, of.Properties[name])
				}
				if err != nil {
					return nil, err
				}
			}
		}
		b.WriteByte('}')
	case isList:
		b.WriteByte('[')
		for _, item := range list {
			if err := part("", item, of.Items); err != nil {
				return nil, err
			}
		}
		b.WriteByte(']')
	default:
		return json.Marshal(value)
	}
	return b.Bytes(), nil
}

// headers lists the headers of an answer that are not shown for all answers.
func headers(all, shown openapi3.Headers) (parameters []*openapi3.Parameter) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if shown[name] == nil {
			parameter := all[name].Value.Parameter
			parameter.Name = name
			parameters = append(parameters, &parameter)
		}
	}
	return parameters
}

// everywhere finds the headers that every answer takes from the components.
func everywhere(answers map[string]*openapi3.ResponseRef) openapi3.Headers {
	shared := openapi3.Headers{}
	for _, answer := range answers {
		maps.Copy(shared, answer.Value.Headers)
	}
	for _, answer := range answers {
		maps.DeleteFunc(shared, func(name string, header *openapi3.HeaderRef) bool {
			other := answer.Value.Headers[name]
			return header.Ref == "" || other == nil || other.Ref != header.Ref
		})
	}
	return shared
}

// facts lists what the document says of a schema in its own words, so that nothing which is new
// there is left out here. told is what the page tells elsewhere.
func facts(schema *openapi3.Schema, told ...string) (members map[string]any, err error) {
	encoded, err := json.Marshal(schema)
	if err == nil {
		err = json.Unmarshal(encoded, &members)
	}
	if err != nil {
		return nil, fmt.Errorf("a schema: %w", err)
	}
	inner, member := schema.Items, "items"
	if inner == nil {
		inner, member = schema.AdditionalProperties.Schema, "additionalProperties"
	}
	if inner != nil {
		delete(members, member)
		if inner.Ref == "" {
			each, err := facts(inner.Value, "type")
			if err != nil {
				return nil, err
			}
			for name, value := range each {
				members["each "+name] = value
			}
		}
	}
	for _, name := range told {
		delete(members, name)
	}
	return members, nil
}

// text writes a value of the document: a string as it is, all else as JSON.
func text(value any) (string, error) {
	if already, ok := value.(string); ok {
		return already, nil
	}
	encoded, err := json.Marshal(value)
	return string(encoded), err
}

// prose splits a description into its paragraphs. The code spans in them are all else that the
// document's descriptions use of CommonMark.
func prose(text string) (paragraphs []string) {
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		if paragraph = strings.TrimSpace(paragraph); paragraph != "" {
			paragraphs = append(paragraphs, paragraph)
		}
	}
	return paragraphs
}

func schemaName(ref string) string { return strings.TrimPrefix(ref, "#/components/schemas/") }
