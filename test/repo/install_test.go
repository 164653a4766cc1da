package repo

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
	gomodule "golang.org/x/mod/module"
)

// TestGoInstall: go install accepts the module. It refuses modules with replacements, and files with names that
// some systems do not allow.
func TestGoInstall(t *testing.T) {
	t.Parallel()
	file, err := modfile.Parse("go.mod", []byte(read(t, "go.mod")), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(file.Replace)+len(file.Exclude) > 0 {
		t.Error("go.mod replaces or excludes modules")
	}
	listed, err := exec.Command("git", "-C", "../..", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.TrimRight(string(listed), "\x00"), "\x00")
	if len(names) < 100 {
		t.Fatalf("only %d files were found", len(names))
	}
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join("../..", name)); err != nil {
			continue // removed, and not committed yet
		}
		if err := gomodule.CheckFilePath(name); err != nil {
			t.Error(err)
		}
	}
}
