package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"golang.org/x/net/html"

	"github.com/resetd/resetd/gen"
)

// TestDocsComplete: whatever the document says is on the page.
func TestDocsComplete(t *testing.T) {
	encoded, err := gen.GetSpecJSON()
	if err != nil {
		t.Fatal(err)
	}
	if seen := expectDocumented(t, encoded); seen < 150 {
		t.Errorf("only %d values of the document were looked for", seen)
	}
}

// TestDocsOfOtherDocuments: what a later document may have is on the page too.
func TestDocsOfOtherDocuments(t *testing.T) {
	encoded, err := gen.GetSpecJSON()
	if err != nil {
		t.Fatal(err)
	}
	change := func(change func(document map[string]any)) []byte {
		t.Helper()
		var document map[string]any
		if err := json.Unmarshal(encoded, &document); err != nil {
			t.Fatal(err)
		}
		change(document)
		changed, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	member := func(document map[string]any, path ...string) map[string]any {
		for _, key := range path {
			if list, ok := document[key].([]any); ok {
				document = map[string]any{"0": list[0]}
				continue
			}
			document = document[key].(map[string]any)
		}
		return document
	}
	for name, change := range map[string][]byte{
		"constraints": change(func(d map[string]any) {
			email := member(d, "components", "schemas", "SendPasswordResetRequest", "properties", "email")
			email["maxLength"], email["enum"], email["default"] = 254, []string{"one@example.com", "two@example.com"}, "one@example.com"
		}),
		"choice": change(func(d map[string]any) {
			member(d, "components", "schemas")["Either"] = map[string]any{"oneOf": []any{
				map[string]any{"$ref": "#/components/schemas/Issue"}, map[string]any{"type": "integer", "format": "int32"},
			}}
		}),
		"markup": change(func(d map[string]any) {
			member(d, "info")["title"] = `<script>alert("1")</script> & co`
			member(d, "components", "schemas", "Issue")["description"] = "`</code><img src=x onerror=alert(1)>`"
		}),
		"another operation": change(func(d map[string]any) {
			member(d, "paths")["/auth/other"] = map[string]any{"get": map[string]any{
				"operationId": "other", "tags": []string{"auth", "undeclared"}, "summary": "Another thing",
				"responses": map[string]any{"204": map[string]any{"description": "Done without a word"}},
			}}
			delete(member(d, "paths", operationPath, "post"), "tags")
			member(d, "tags", "0")["name"], member(d, "tags", "0")["description"] = "auth, undeclared", "Both."
		}),
		"members": change(func(d map[string]any) {
			properties := member(d, "components", "schemas", "ErrorBody", "properties")
			member(properties, "fieldErrors")["additionalProperties"] = map[string]any{"type": "string", "maxLength": 77, "description": "Of a field"}
			member(properties, "issues")["items"] = map[string]any{
				"type": "object", "required": []string{"part"}, "properties": map[string]any{"part": map[string]any{"type": "string", "pattern": "^x+$"}},
			}
		}),
	} {
		t.Run(name, func(t *testing.T) { expectDocumented(t, change) })
	}
}

// expectDocumented looks on the document's page for every value in it, and for the names that
// it gives to things.
func expectDocumented(t *testing.T, encoded []byte) (seen int) {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromData(encoded)
	if err != nil {
		t.Fatal(err)
	}
	reference, err := newDocs(document)
	if err != nil {
		t.Fatal(err)
	}
	shown := textOf(t, string(reference.page))
	expect := func(where, text string) {
		for paragraph := range strings.SplitSeq(text, "\n\n") {
			if paragraph = squeeze(paragraph); paragraph == "" {
				continue
			}
			if seen++; !strings.Contains(shown, paragraph) {
				t.Errorf("%s is not on the page: %q", where, paragraph)
			}
		}
	}
	// In these, the keys are names that the document gives, and no words of OpenAPI.
	naming := []string{"paths", "responses", "content", "headers", "properties", "schemas"}
	var walk func(where string, value any)
	walk = func(where string, value any) {
		switch value := value.(type) {
		case map[string]any:
			for key, inner := range value {
				at := where + "/" + key
				switch in := where[strings.LastIndex(where, "/")+1:]; {
				case key == "$ref":
					if !strings.Contains(inner.(string), "/headers/") { // shown under the header's own name
						name := inner.(string)
						expect(at, name[strings.LastIndex(name, "/")+1:])
					}
					continue
				case in == "components" && key == "headers":
					for name, header := range inner.(map[string]any) {
						walk(at+"/"+name, header)
					}
					continue
				case slices.Contains(naming, in):
					expect(at, key)
				case in == "examples" && inner.(map[string]any)["summary"] == nil:
					expect(at, key)
				}
				walk(at, inner)
			}
		case []any:
			for _, inner := range value {
				walk(where, inner)
			}
		case string:
			expect(where, strings.ReplaceAll(value, "`", ""))
		case float64:
			expect(where, fmt.Sprint(value))
		}
	}
	var value map[string]any
	if err := json.Unmarshal(encoded, &value); err != nil {
		t.Fatal(err)
	}
	walk("", value)
	return seen
}

// textOf is what a reader sees of a page. Whatever could run, or load something, is a mistake.
func textOf(t *testing.T, page string) string {
	t.Helper()
	var shown strings.Builder
	style := false
	tokens := html.NewTokenizer(strings.NewReader(page))
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			return squeeze(shown.String())
		case html.TextToken:
			if !style {
				shown.WriteString(tokens.Token().Data)
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			tag := tokens.Token()
			style = tag.Data == "style"
			if slices.Contains([]string{"script", "img", "iframe", "form", "input", "base", "object", "embed"}, tag.Data) {
				t.Errorf("a <%s> on the page", tag.Data)
			}
			for _, attribute := range tag.Attr {
				if attribute.Key == "style" || attribute.Key == "src" || strings.HasPrefix(attribute.Key, "on") {
					t.Errorf("<%s> with %s on the page", tag.Data, attribute.Key)
				}
			}
			if slices.Contains([]string{"p", "div", "dt", "dd", "li", "pre", "h1", "h2", "h3", "h4", "section", "article"}, tag.Data) {
				shown.WriteString(" ")
			}
		case html.EndTagToken:
			style = false
		}
	}
}

func squeeze(text string) string { return strings.Join(strings.Fields(text), " ") }

// TestProse: the descriptions of the document use no more of CommonMark than the page renders.
func TestProse(t *testing.T) {
	encoded, err := gen.GetSpecJSON()
	if err != nil {
		t.Fatal(err)
	}
	var walk func(value any)
	walk = func(value any) {
		switch value := value.(type) {
		case []any:
			for _, inner := range value {
				walk(inner)
			}
		case map[string]any:
			for key, inner := range value {
				text, ok := inner.(string)
				if !ok || key != "description" {
					walk(inner)
					continue
				}
				if strings.Count(text, "`")%2 != 0 || strings.Contains(text, "``") {
					t.Errorf("unpaired or double backticks: %q", text)
				}
				for line := range strings.Lines(text) {
					if strings.ContainsAny(line[:1], "#-*+>|0123456789 \t") && line != "\n" && !startsWithStatus(line) {
						t.Errorf("looks like a heading, a list, a quotation or a table: %q", line)
					}
				}
				for i, part := range strings.Split(text, "`") {
					if i%2 == 0 && (strings.ContainsAny(part, "*_\\~") || strings.Contains(part, "](") || strings.Contains(part, "<")) {
						t.Errorf("emphasis, a link or HTML: %q", part)
					}
				}
			}
		}
	}
	var document any
	if err := json.Unmarshal(encoded, &document); err != nil {
		t.Fatal(err)
	}
	walk(document)
}

// startsWithStatus: a number that no dot follows starts no list.
func startsWithStatus(line string) bool {
	digits := strings.TrimLeft(line, "0123456789")
	return digits != line && !strings.HasPrefix(digits, ".") && !strings.HasPrefix(digits, ")")
}

// TestDocsExamples: the members of examples are in the order of the document, as far as it has one, every
// example has a title for people, and the first request is there for curl.
func TestDocsExamples(t *testing.T) {
	document, err := gen.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	reference, err := newDocs(document)
	if err != nil {
		t.Fatal(err)
	}
	shown := textOf(t, string(reference.page))
	for _, want := range []string{
		`{ "email": "hello@example.com", "callback_origin": "example" }`,
		`{ "ok": true, "message": "If an account`,
		`{ "error": "Check the highlighted fields and try again.", "code": "invalid_request", "fieldErrors": { "email": "Enter a valid email address." }, "issues": [ { "path": "email", "message":`,
		`With curl curl -i https://example.com/api/auth/send-password-reset \ -H 'Content-Type: application/json' \ -d '{"email":"hello@example.com","callback_origin":"https://app.example.com"}' The link leads to the app that asks {`,
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("not on the page: %s", want)
		}
	}
	operation := document.Paths.Value(operationPath).Post
	examples := operation.RequestBody.Value.Content["application/json"].Examples
	for _, answer := range operation.Responses.Map() {
		for name, example := range answer.Value.Content["application/json"].Examples {
			examples[name] = example
		}
	}
	if len(examples) < 12 {
		t.Errorf("only %d examples", len(examples))
	}
	for name, example := range examples {
		if strings.Count(example.Value.Summary, " ") == 0 && example.Value.Summary != "Taken" {
			t.Errorf("the example %s has the title %q", name, example.Value.Summary)
		}
	}
	quoted, err := openapi3.NewLoader().LoadFromData([]byte(`{"openapi": "3.0.3", "info": {"title": "t", "version": "1"}, "paths": {"/a": {"post": {"operationId": "a",
		"requestBody": {"content": {"application/json": {"schema": {"type": "object"}, "example": 1, "examples": {"a": {"value": {"it's": ["it's"]}}}}}},
		"responses": {"200": {"description": "d"}}}}}, "components": {}}`))
	if err != nil {
		t.Fatal(err)
	}
	if reference, err = newDocs(quoted); err != nil {
		t.Fatal(err)
	}
	if shown := textOf(t, string(reference.page)); !strings.Contains(shown, `curl -i http://localhost:8080/api/a \ -H 'Content-Type: application/json' \ -d '{"it'\''s":["it'\''s"]}'`) {
		t.Errorf("the shell would misread it: %s", shown)
	}
}

// TestDocsStatusTexts: an answer is named as HTTP names it.
func TestDocsStatusTexts(t *testing.T) {
	document, err := gen.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	reference, err := newDocs(document)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, title := range regexp.MustCompile(`<h4 id="[^"]*-title">.*</h4>`).FindAllString(string(reference.page), -1) {
		got = append(got, textOf(t, title))
	}
	if len(got) < 8 || got[0] != "200 OK" || !slices.IsSorted(got) || !slices.Contains(got, "429 "+http.StatusText(http.StatusTooManyRequests)) {
		t.Errorf("the answers are %q", got)
	}
}
