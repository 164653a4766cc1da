package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"golang.org/x/net/html"
)

// contract reads openapi.yaml and the committed page.
func contract(t *testing.T) (document *openapi3.T, encoded []byte, page string) {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromFile("../../../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if encoded, err = document.MarshalJSON(); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile("../docs.gen.html")
	if err != nil {
		t.Fatal(err)
	}
	return document, encoded, string(written)
}

// TestPageIsComplete: the page has every value of the document, and every name that the document gives. So the
// test notices a keyword that the template does not know.
func TestPageIsComplete(t *testing.T) {
	_, encoded, page := contract(t)
	shown := textOf(t, page)
	seen := 0
	expect := func(where, text string) {
		for paragraph := range strings.SplitSeq(text, "\n\n") {
			if paragraph = squeeze(paragraph); paragraph == "" {
				continue
			}
			if seen++; !strings.Contains(shown, paragraph) {
				t.Errorf("%s is not on the page (make generate): %q", where, paragraph)
			}
		}
	}
	// Under these, the keys are names that the document gives, and not keywords of OpenAPI.
	naming := []string{"paths", "responses", "content", "headers", "properties", "schemas"}
	var walk func(where string, value any)
	walk = func(where string, value any) {
		switch value := value.(type) {
		case map[string]any:
			for key, inner := range value {
				at := where + "/" + key
				switch in := where[strings.LastIndex(where, "/")+1:]; {
				case key == "$ref":
					if !strings.Contains(inner.(string), "/headers/") { // the page shows the header itself
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
	if seen < 150 {
		t.Errorf("only %d values of the document were looked for", seen)
	}
}

// textOf returns the text that a reader sees of a page. It fails the test if the page could run or load anything.
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

// TestProse: the descriptions use only the parts of CommonMark that the page renders.
func TestProse(t *testing.T) {
	_, encoded, _ := contract(t)
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

// startsWithStatus says whether a line starts with a number without a dot, which starts no list.
func startsWithStatus(line string) bool {
	digits := strings.TrimLeft(line, "0123456789")
	return digits != line && !strings.HasPrefix(digits, ".") && !strings.HasPrefix(digits, ")")
}

// TestExamples: the members of examples are in the order of their schema, every example has a title for
// people, and the first request can be pasted into a shell.
func TestExamples(t *testing.T) {
	document, _, page := contract(t)
	shown := textOf(t, page)
	for _, want := range []string{
		`{ "email": "hello@example.com", "callback_origin": "example" }`,
		`{ "ok": true, "message": "If an account`,
		`{ "error": "Check the highlighted fields and try again.", "code": "invalid_request", "fieldErrors": { "email": "Enter a valid email address." }, "issues": [ { "path": "email", "message":`,
		`With curl curl -i https://example.com/api/auth/send-password-reset \ -H 'Content-Type: application/json' \ -d '{"email":"hello@example.com","callback_origin":"https://app.example.com"}' The link leads to the app that sends the request {`,
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("not on the page: %s", want)
		}
	}
	operation := document.Paths.Value("/auth/send-password-reset").Post
	examples := operation.RequestBody.Value.Content["application/json"].Examples
	for _, answer := range operation.Responses.Map() {
		maps.Copy(examples, answer.Value.Content["application/json"].Examples)
	}
	if len(examples) < 12 {
		t.Errorf("only %d examples", len(examples))
	}
	for name, example := range examples {
		if strings.Count(example.Value.Summary, " ") == 0 {
			t.Errorf("the example %s has the title %q", name, example.Value.Summary)
		}
	}
	quoted, err := curl(openapi3.Examples{"a": {Value: &openapi3.Example{Value: "it's"}}}, openapi3.NewStringSchema().NewRef())
	if want := `'"it'\''s"'`; err != nil || quoted != want {
		t.Errorf("the shell would misread %s, want %s: %v", quoted, want, err)
	}
}

// TestAnswers: each answer has its name in HTTP, and the headers that the page shows for all answers.
func TestAnswers(t *testing.T) {
	document, _, page := contract(t)
	var got []string
	for _, title := range regexp.MustCompile(`<h4 id="[^"]*-title">.*</h4>`).FindAllString(page, -1) {
		got = append(got, textOf(t, title))
	}
	if len(got) < 8 || got[0] != "200 OK" || !slices.IsSorted(got) || !slices.Contains(got, "429 Too Many Requests") {
		t.Errorf("the answers are %q", got)
	}
	for status, answer := range document.Paths.Value("/auth/send-password-reset").Post.Responses.Map() {
		shared := 0
		for _, header := range answer.Value.Headers {
			if header.Ref != "" {
				shared++
			}
		}
		if shared != len(document.Components.Headers) {
			t.Errorf("%s has %d of the %d headers of every answer", status, shared, len(document.Components.Headers))
		}
	}
}
