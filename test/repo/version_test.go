package repo

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

var (
	releaseHeading = regexp.MustCompile(`^## \[([0-9]+\.[0-9]+\.[0-9]+)\] - (unreleased|[0-9]{4}-[0-9]{2}-[0-9]{2})$`)
	headings       = regexp.MustCompile(`(?m)^## .*$`)
)

// TestVersions: openapi.yaml, the program and the newest heading of the changelog have one version, and
// test/released/openapi.yaml has that of the release before. When a tag is released, RELEASE_TAG names it, and
// the newest heading must have a date.
func TestVersions(t *testing.T) {
	want := load(t, "openapi.yaml").Info.Version

	said, err := exec.Command("go", "run", "../../cmd/resetd", "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if fields := strings.Fields(string(said)); len(fields) < 2 || fields[0] != "resetd" || fields[1] != want {
		t.Errorf("resetd version says %q, openapi.yaml %s", said, want)
	}

	var versions, dates []string
	for _, heading := range headings.FindAllString(read(t, "CHANGELOG.md"), -1) {
		found := releaseHeading.FindStringSubmatch(heading)
		if found == nil {
			t.Fatalf("CHANGELOG.md: %q is no `## [VERSION] - DATE`", heading)
		}
		if len(dates) > 0 && found[2] == "unreleased" {
			t.Errorf("CHANGELOG.md: %s is unreleased, and not the newest", found[1])
		}
		if _, err := time.Parse(time.DateOnly, found[2]); err != nil && found[2] != "unreleased" {
			t.Errorf("CHANGELOG.md: %s: %v", found[1], err)
		}
		versions, dates = append(versions, found[1]), append(dates, found[2])
	}
	if len(versions) < 2 {
		t.Fatalf("CHANGELOG.md has the versions %q only", versions)
	}
	if versions[0] != want {
		t.Errorf("CHANGELOG.md begins with %s, but openapi.yaml has %s", versions[0], want)
	}

	if released := load(t, "test/released/openapi.yaml"); released.Info.Version != versions[1] {
		t.Errorf("test/released/openapi.yaml has %s, but the release before %s is %s", released.Info.Version, versions[0], versions[1])
	}

	if tag := os.Getenv("RELEASE_TAG"); tag != "" {
		if tag != "v"+want {
			t.Errorf("the tag is %s, the version %s", tag, want)
		}
		if dates[0] == "unreleased" {
			t.Errorf("CHANGELOG.md: %s has no date, but its tag is released", want)
		}
	}
}
