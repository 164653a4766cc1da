package repo

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	fencedBlock = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")
	answerRow   = regexp.MustCompile(`(?m)^\| ([0-9, ]+) \| ([^|]*)\|`)
)

// exampleFiles returns the files of docs/examples, without installed and built files.
func exampleFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	const folder = "../../docs/examples"
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); name == "node_modules" || name == ".next" {
				return filepath.SkipDir
			}
			return nil
		}
		text, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, folder+"/")] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestAppsPage: the code in docs/apps.md is code of the examples, which are compiled or run.
func TestAppsPage(t *testing.T) {
	t.Parallel()
	page, files, found := read(t, "docs/apps.md"), exampleFiles(t), 0
	for _, block := range fencedBlock.FindAllStringSubmatch(page, -1) {
		language, code := block[1], block[2]
		if language == "sh" { // settings and a command: TestDocsOfApps reads them
			continue
		}
		found++
		in := ""
		for name, text := range files {
			if hasPart(text, code) {
				in = name
			}
		}
		if in == "" {
			t.Errorf("no file of docs/examples has this code of docs/apps.md:\n%s", code)
		}
	}
	if found < 10 {
		t.Errorf("docs/apps.md has only %d blocks of code", found)
	}
	for _, folder := range []string{"html", "nextjs", "expo", "flutter", "app-links"} {
		if !strings.Contains(page, "["+folder+"](examples/"+folder+")") {
			t.Errorf("docs/apps.md does not name the example %s", folder)
		}
	}
}

// hasPart says whether text has these lines, one after the other, indented by the same amount.
func hasPart(text, part string) bool {
	lines, wanted := strings.Split(text, "\n"), strings.Split(strings.TrimRight(part, "\n"), "\n")
	for i := range len(lines) - len(wanted) + 1 {
		indent, found := strings.CutSuffix(lines[i], wanted[0])
		if !found || strings.Trim(indent, " \t") != "" {
			continue
		}
		same := true
		for j, line := range wanted {
			same = same && (line == "" && lines[i+j] == "" || lines[i+j] == indent+line)
		}
		if same {
			return true
		}
	}
	return false
}

// TestAppsAnswers: docs/apps.md says what to do with every documented answer, and with no other.
func TestAppsAnswers(t *testing.T) {
	t.Parallel()
	responses := load(t, "openapi.yaml").Paths.Find("/auth/send-password-reset").Post.Responses
	said := map[string]bool{}
	for _, row := range answerRow.FindAllStringSubmatch(read(t, "docs/apps.md"), -1) {
		for status := range strings.SplitSeq(row[1], ", ") {
			response := responses.Value(status)
			if response == nil {
				t.Errorf("docs/apps.md has %s, which is not documented", status)
				continue
			}
			said[status] = true
			for _, code := range strings.Split(strings.TrimSpace(row[2]), ", ") {
				if code == "" || strings.Contains(row[1], ",") { // one row for two codes
					continue
				}
				if !strings.Contains(*response.Value.Description, code) {
					t.Errorf("docs/apps.md has the code %s for %s", code, status)
				}
			}
		}
	}
	for status := range responses.Map() {
		if _, err := strconv.Atoi(status); err == nil && !said[status] {
			t.Errorf("docs/apps.md does not say what to do with %s", status)
		}
	}
}

// TestExamplesAgree: shared code is the same in each example. The page behind the link is the one in README.md,
// which is tested with a real Supabase Auth.
func TestExamplesAgree(t *testing.T) {
	t.Parallel()
	files := exampleFiles(t)
	if request := files["nextjs/lib/request-reset.ts"]; request == "" || files["expo/lib/request-reset.ts"] != request {
		t.Error("request-reset.ts is not the same in nextjs and expo")
	}
	page := regexp.MustCompile("(?ms)^```js\n(.*?)^```$").FindStringSubmatch(read(t, "README.md"))
	if page == nil {
		t.Fatal("README.md does not show the page behind the link")
	}
	for _, name := range []string{"html/set-new-password.js", "nextjs/lib/set-new-password.js"} {
		if files[name] != page[1] {
			t.Errorf("%s is not what README.md shows", name)
		}
	}
	for _, name := range []string{"app-links/apple-app-site-association", "app-links/assetlinks.json"} {
		if !json.Valid([]byte(files[name])) {
			t.Errorf("%s is not JSON", name)
		}
	}
	for name, text := range files {
		if strings.HasSuffix(name, "package-lock.json") && strings.Contains(text, `"resolved"`) {
			t.Errorf("%s says where packages were downloaded from", name)
		}
	}
}
