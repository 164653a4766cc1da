// Docs writes the API reference page from openapi.yaml: `go run ./docs openapi.yaml page.html`.
//
// Swagger UI would be 425 KB over the wire, wider than a phone, and its selects have no names for a
// screen reader; what it adds is to send requests from the page, and a request here sends a mail.
package main

import (
	"bytes"
	_ "embed" // of the page's template
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

//go:embed page.tmpl
var page string

func main() {
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write renders the document in the file from into the file to.
func write(from, to string) error {
	document, err := openapi3.NewLoader().LoadFromFile(from)
	if err != nil {
		return err
	}
	parsed, err := template.New("page").Funcs(template.FuncMap{
		"curl": curl, "facts": facts, "fields": fields, "header": header, "indent": indent, "text": text,
		"join": strings.Join, "split": strings.Split, "trim": strings.TrimSpace,
		"schemaName": func(ref string) string { return strings.TrimPrefix(ref, "#/components/schemas/") },
		"statusText": func(status string) string {
			code, _ := strconv.Atoi(status)
			return http.StatusText(code)
		},
	}).Parse(page)
	if err != nil {
		return err
	}
	var html bytes.Buffer
	if err := parsed.Execute(&html, document); err != nil {
		return err
	}
	return os.WriteFile(to, html.Bytes(), 0o644) //nolint:gosec // G306: a file of the repository
}

// fields lists the members of an object, required ones first, as parameters: one template shows members,
// headers and parameters.
func fields(object *openapi3.Schema) (list []*openapi3.Parameter) {
	required := func(name string) bool { return slices.Contains(object.Required, name) }
	optional := slices.DeleteFunc(slices.Sorted(maps.Keys(object.Properties)), required)
	for _, name := range slices.Concat(object.Required, optional) {
		list = append(list, &openapi3.Parameter{Name: name, Required: required(name), Schema: object.Properties[name]})
	}
	return list
}

// header names a header.
func header(name string, header *openapi3.Header) openapi3.Parameter {
	parameter := header.Parameter
	parameter.Name = name
	return parameter
}

// facts lists the keywords of a schema that the page does not show otherwise.
func facts(schema *openapi3.Schema) (keywords map[string]any, err error) {
	encoded, err := json.Marshal(schema)
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(encoded, &keywords)
	for _, shown := range []string{"type", "description", "properties", "required", "items"} {
		delete(keywords, shown)
	}
	if schema.AdditionalProperties.Schema != nil {
		delete(keywords, "additionalProperties")
	}
	return keywords, err
}

// text writes a string as it is, and any other value as JSON.
func text(value any) (string, error) {
	if text, ok := value.(string); ok {
		return text, nil
	}
	encoded, err := json.Marshal(value)
	return string(encoded), err
}

// indent writes an example as JSON over several lines.
func indent(example *openapi3.Example, schema *openapi3.SchemaRef) (string, error) {
	encoded, err := inOrder(example.Value, schema.Value)
	if err != nil {
		return "", err
	}
	var indented bytes.Buffer
	err = json.Indent(&indented, []byte(encoded), "", "  ")
	return indented.String(), err
}

// curl writes the first example as JSON in the quotes of a shell.
func curl(examples openapi3.Examples, schema *openapi3.SchemaRef) (string, error) {
	first := slices.Min(slices.Collect(maps.Keys(examples)))
	encoded, err := inOrder(examples[first].Value.Value, schema.Value)
	return "'" + strings.ReplaceAll(encoded, "'", `'\''`) + "'", err
}

// inOrder encodes a value with the members of its objects in the order of fields, where encoding/json
// sorts them by name.
func inOrder(value any, schema *openapi3.Schema) (string, error) {
	var parts []string
	part := func(before string, value any, schema *openapi3.Schema) error {
		encoded, err := inOrder(value, schema)
		parts = append(parts, before+encoded)
		return err
	}
	object, _ := value.(map[string]any)
	list, _ := value.([]any)
	switch {
	case object != nil && schema.Properties != nil:
		for _, field := range fields(schema) {
			if member, ok := object[field.Name]; ok {
				if err := part(strconv.Quote(field.Name)+":", member, field.Schema.Value); err != nil {
					return "", err
				}
			}
		}
		if len(parts) < len(object) {
			return "", errors.New("an example has a member that its schema lacks")
		}
		return "{" + strings.Join(parts, ",") + "}", nil
	case list != nil:
		for _, item := range list {
			if err := part("", item, schema.Items.Value); err != nil {
				return "", err
			}
		}
		return "[" + strings.Join(parts, ",") + "]", nil
	}
	encoded, err := json.Marshal(value)
	return string(encoded), err
}
