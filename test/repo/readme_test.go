package repo

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/resetd/resetd/test/resetdtest"
)

var (
	makeCommand  = regexp.MustCompile(`(?m)(?:^[ \t]*|[^A-Za-z])make ([a-z][a-z0-9]*)\b`)
	makeTarget   = regexp.MustCompile(`(?m)^([a-z][a-z0-9]*):`)
	codeOfAPage  = regexp.MustCompile("(?s)```.*?```|`[^`\n]+`")
	markdownDirs = []string{"../..", "../../docs", "../../deploy"}
)

// TestReadmeExamples: the first example sends the origin of resetd dev, and its link leads there. The published
// example gets the same answer, and its link leads to the site.
func TestReadmeExamples(t *testing.T) {
	t.Parallel()
	page := read(t, "README.md")
	const origin = "http://localhost:8080" // resetd dev listens there, see TestDevAddress
	example := regexp.MustCompile("(?s)curl --request POST \\\\\n  --url (\\S+) \\\\\n  --header 'Content-Type: application/json' \\\\\n  --data '([^']+)'\n```\n\n```json\n(.*?)```.*?```json\n(.*?)\n```").FindStringSubmatch(page)
	if example == nil {
		t.Fatal("README.md has no example")
	}
	url, first, answer, published := example[1], example[2], example[3], example[4]
	if url != origin+resetdtest.Endpoint || !strings.Contains(first, `"callback_origin": "`+origin+`"`) || !strings.Contains(published, `"callback_origin": "example"`) {
		t.Errorf("the examples are %s %s and %s", url, first, published)
	}
	f := resetdtest.Start(t, resetdtest.Config{Accounts: []string{"hello@example.com"}, Settings: map[string]string{"SITE_URL": origin, "CALLBACK_ORIGINS": ""}})
	for body, replaced := range map[string]bool{first: false, published: true} {
		a := f.Post(body, nil)
		if a.Status != http.StatusOK || a.Raw != answer {
			t.Errorf("%s: %d %s", body, a.Status, a.Raw)
		}
		f.Log.Await(t, `"msg":"delivery","request_id":"`+a.Header.Get("X-Request-Id")+`","outcome":"sent"`)
		f.Log.Await(t, `"request_id":"`+a.Header.Get("X-Request-Id")+`"[^\n]*"client":"[0-9a-f]+"`+map[bool]string{true: `,"notices":\["callback_replaced"\]`}[replaced]+"}")
	}
	f.Settle()
	mails := f.Stack.Mails()
	if len(mails) != 2 {
		t.Errorf("%d mails, want 2", len(mails))
	}
	for _, mail := range mails {
		if !strings.Contains(mail.Text, "\n"+origin+"/reset-password?token_hash=") {
			t.Errorf("the link does not lead to %s:\n%s", origin, mail.Text)
		}
	}
}

// TestMakeTargets: every make target that a page names exists.
func TestMakeTargets(t *testing.T) {
	t.Parallel()
	targets := map[string]bool{}
	for _, target := range makeTarget.FindAllStringSubmatch(read(t, "Makefile"), -1) {
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

// TestRunbookQuestion: the request in docs/operations.md for people on call is answered 200 if callers are served,
// and otherwise not.
func TestRunbookQuestion(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(read(t, manual), "### ResetdAbsent\n")
	question := regexp.MustCompile(`curl -s -d '([^']+)'`).FindStringSubmatch(section)
	if question == nil {
		t.Fatal("the section ResetdAbsent has no request")
	}
	if a := resetdtest.Start(t, resetdtest.Config{}).Post(question[1], nil); a.Status != http.StatusOK {
		t.Errorf("a server that works: %d %s", a.Status, a.Raw)
	}
	for _, name := range []string{"SUPABASE_URL", "SITE_URL", "MAILGUN_API_KEY"} {
		f := resetdtest.Start(t, resetdtest.Config{Settings: map[string]string{name: "", "CALLBACK_ORIGINS": ""}})
		if a := f.Post(question[1], nil); a.Status < 500 {
			t.Errorf("without %s: %d %s", name, a.Status, a.Raw)
		}
	}
}
