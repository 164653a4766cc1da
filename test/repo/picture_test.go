package repo

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "draw the picture of CONTRIBUTING.md")

// TestPicture: the picture of the house has each room, and each import between rooms. It leaves out the imports of
// cmd/resetd, which imports all rooms.
func TestPicture(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"/gen", module+"/impl/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var rooms, arrows []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(strings.ReplaceAll(line, module+"/", ""))
		room := fields[0]
		if strings.HasSuffix(room, "test") { // servers for tests
			continue
		}
		rooms = append(rooms, fmt.Sprintf("    %s[%s]\n", node(room), room))
		for _, imported := range fields[1:] {
			if strings.HasPrefix(imported, "impl") || imported == "gen" {
				arrows = append(arrows, fmt.Sprintf("    %s --> %s\n", node(room), node(imported)))
			}
		}
	}
	slices.Sort(rooms)
	slices.Sort(arrows)
	want := "```mermaid\nflowchart TD\n" + strings.Join(rooms, "") + strings.Join(arrows, "") + "```\n"

	page := read(t, "CONTRIBUTING.md")
	before, rest, _ := strings.Cut(page, "```mermaid\n")
	drawn, after, found := strings.Cut(rest, "```\n")
	if !found || len(rooms) < 10 {
		t.Fatalf("CONTRIBUTING.md has no picture, or %d rooms", len(rooms))
	}
	if "```mermaid\n"+drawn+"```\n" == want {
		return
	}
	if !*update {
		t.Fatalf("the picture in CONTRIBUTING.md does not show the imports; go test ./test/repo -run TestPicture -update draws:\n%s", want)
	}
	if err := os.WriteFile("../../CONTRIBUTING.md", []byte(before+want+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// node returns the name of a room in Mermaid.
func node(room string) string { return strings.NewReplacer("/", "_", "impl/", "").Replace(room) }
