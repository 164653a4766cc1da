package main

import (
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	settingName  = regexp.MustCompile("`([A-Z][A-Z0-9_]+)`")
	makeCommand  = regexp.MustCompile(`(?m)(?:^[ \t]*|[^A-Za-z])make ([a-z][a-z0-9]*)\b`)
	makeTarget   = regexp.MustCompile(`(?m)^([a-z][a-z0-9]*):`)
	codeOfAPage  = regexp.MustCompile("(?s)```.*?```|`[^`\n]+`")
	markdownDirs = []string{"../..", "../../docs", "../../deploy"}
)

// TestReadmeSettings: the table of settings has each of them, with its default, and no other.
func TestReadmeSettings(t *testing.T) {
	t.Parallel()
	page := read(t, "../../README.md")
	_, table, found := strings.Cut(page, "| setting | default | meaning |")
	if !found {
		t.Fatal("README.md has no table of settings")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	defaults, named := map[string]string{}, map[string]bool{}
	for line := range strings.Lines(table) {
		row := strings.SplitN(line, "|", 4) // nothing, names, default, meaning
		if len(row) != 4 {
			continue
		}
		for _, name := range settingName.FindAllStringSubmatch(row[1], -1) {
			defaults[name[1]] = row[2]
		}
		for _, name := range settingName.FindAllStringSubmatch(row[1]+row[3], -1) {
			named[name[1]] = true
		}
	}
	known := []string{"PORT"}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[settings]()) {
		name, value := field.Tag.Get("env"), field.Tag.Get("envDefault")
		if name == "" {
			continue
		}
		known = append(known, name)
		switch said, own := defaults[name]; {
		case !named[name]:
			t.Errorf("README.md does not have %s", name)
		case own && value != "" && !strings.Contains(said, "`"+value+"`"):
			t.Errorf("README.md says that the default of %s is %s, and it is %s", name, said, value)
		}
	}
	if len(known) < 30 {
		t.Fatalf("only %d settings were found", len(known))
	}
	for name := range named {
		if !slices.Contains(known, name) && !strings.HasPrefix(name, "OTEL_") {
			t.Errorf("README.md has %s, which is no setting", name)
		}
	}
}

// TestReadmeExamples: the first example sends an origin, of where make run listens, and its link leads
// there. The published one gets the answer that README.md shows too, and its link leads to the site.
func TestReadmeExamples(t *testing.T) {
	t.Parallel()
	page := read(t, "../../README.md")
	origin := "http://" + devDefaults("")["LISTEN_ADDR"]
	example := regexp.MustCompile("(?s)curl --request POST \\\\\n  --url (\\S+) \\\\\n  --header 'Content-Type: application/json' \\\\\n  --data '([^']+)'\n```\n\n```json\n(.*?)```.*?```json\n(.*?)\n```").FindStringSubmatch(page)
	if example == nil {
		t.Fatal("README.md has no example")
	}
	url, first, answer, published := example[1], example[2], example[3], example[4]
	if url != origin+endpoint || !strings.Contains(first, `"callback_origin": "`+origin+`"`) || !strings.Contains(published, `"callback_origin": "example"`) {
		t.Errorf("the examples are %s %s and %s", url, first, published)
	}
	f := start(t, setup{accounts: []string{"hello@example.com"}, env: map[string]string{"SITE_URL": origin, "CALLBACK_ORIGINS": ""}})
	for body, replaced := range map[string]bool{first: false, published: true} {
		a := f.post(body, nil)
		if a.status != http.StatusOK || a.raw != answer {
			t.Errorf("%s: %d %s", body, a.status, a.raw)
		}
		f.logs.await(t, `"msg":"delivery","request_id":"`+a.header.Get("X-Request-Id")+`","outcome":"sent"`)
		f.logs.await(t, `"request_id":"`+a.header.Get("X-Request-Id")+`"[^\n]*"client":"[0-9a-f]+"`+map[bool]string{true: `,"notices":\["callback_replaced"\]`}[replaced]+"}")
	}
	f.settle()
	mails := f.stack.Mails()
	if len(mails) != 2 {
		t.Errorf("%d mails, want 2", len(mails))
	}
	for _, mail := range mails {
		if !strings.Contains(mail.Text, "\n"+origin+"/reset-password?token_hash=") {
			t.Errorf("the link does not lead to %s:\n%s", origin, mail.Text)
		}
	}
}

// TestMakeTargets: what the pages say to make can be made.
func TestMakeTargets(t *testing.T) {
	t.Parallel()
	targets := map[string]bool{}
	for _, target := range makeTarget.FindAllStringSubmatch(read(t, "../../Makefile"), -1) {
		targets[target[1]] = true
	}
	said := 0
	for _, dir := range markdownDirs {
		pages, err := filepath.Glob(filepath.Join(dir, "*.md"))
		if err != nil || len(pages) == 0 {
			t.Fatalf("no pages in %s: %v", dir, err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, code := range codeOfAPage.FindAllString(string(text), -1) {
				for _, target := range makeCommand.FindAllStringSubmatch(code, -1) {
					said++
					if !targets[target[1]] {
						t.Errorf("%s says make %s, which is no target", page, target[1])
					}
				}
			}
		}
	}
	if said < 10 {
		t.Errorf("only %d commands were found", said)
	}
}

// TestRunbookQuestion: the question that docs/operations.md has people ask who are woken up is
// answered 200 where callers are served, and otherwise where they are not.
func TestRunbookQuestion(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(read(t, manual), "### ResetdAbsent\n")
	question := regexp.MustCompile(`curl -s -d '([^']+)'`).FindStringSubmatch(section)
	if question == nil {
		t.Fatal("the section ResetdAbsent asks nothing")
	}
	if a := start(t, setup{}).post(question[1], nil); a.status != http.StatusOK {
		t.Errorf("a server that works: %d %s", a.status, a.raw)
	}
	for _, name := range []string{"SUPABASE_URL", "SITE_URL", "MAILGUN_API_KEY"} {
		f := start(t, setup{env: map[string]string{name: "", "CALLBACK_ORIGINS": ""}})
		if a := f.post(question[1], nil); a.status < 500 {
			t.Errorf("without %s: %d %s", name, a.status, a.raw)
		}
	}
}
