package repo

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// unwanted are words that make a text hard to read: riddles, and words that nobody says any more. Lines with an
// excepted name or text are skipped.
var unwanted = regexp.MustCompile(`\b(?i:whoever|whomever|to be had|of ours|met with|mend(s|ed|ing)?|lest|ought|thereof|therein|herein|hitherto|were it|had it|should it|became of|becomes of|ones? that|none that|no news|anew|seldom|all the same|none of ours|is to be (asked|called|told)|this very|languages that there are)\b|\bH[1-9]\b`)

var excepted = regexp.MustCompile(`unwanted = regexp|"Adlm", "Rohg"`) // themselves and a script called Mend

// TestWords: comments, errors and pages contain no unwanted words.
func TestWords(t *testing.T) {
	t.Parallel()
	files, err := exec.Command("git", "-C", "../..", "ls-files", "*.go", "*.md", "*.sh", "*.yaml", "*.mjs", "*.ts", "*.tsx", "*.dart", "*.js", "*.html", "*.yml", "*.service", "deploy/*.json", "*.txtar", "*.env", "Makefile", "Dockerfile").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for name := range strings.FieldsSeq(string(files)) {
		if strings.HasPrefix(name, "gen/") || strings.HasPrefix(name, "test/released/") {
			continue
		}
		seen++
		number := 0
		for line := range strings.Lines(read(t, name)) {
			number++
			if word := unwanted.FindString(line); word != "" && !excepted.MatchString(line) {
				t.Errorf("%s:%d: %q: say it in plain words", name, number, word)
			}
		}
	}
	if seen < 200 {
		t.Errorf("only %d files were read", seen)
	}
}
