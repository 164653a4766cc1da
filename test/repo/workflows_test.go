package repo

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// workflow has the parts of a workflow that the rules are about.
type workflow struct {
	On          yaml.Node `yaml:"on"`
	Permissions yaml.Node `yaml:"permissions"`
	Concurrency yaml.Node `yaml:"concurrency"`
	Jobs        map[string]struct {
		Uses        string            `yaml:"uses"`
		Container   yaml.Node         `yaml:"container"`
		Services    yaml.Node         `yaml:"services"`
		Permissions map[string]string `yaml:"permissions"`
		Timeout     int               `yaml:"timeout-minutes"`
		Steps       []struct {
			Uses string            `yaml:"uses"`
			Run  string            `yaml:"run"`
			With map[string]string `yaml:"with"`
		} `yaml:"steps"`
	} `yaml:"jobs"`
}

// writes has the permissions to write, by workflow and job. These jobs run no code of this repository or its
// modules.
var writes = map[string]string{
	"release.yaml image":   "attestations id-token packages",
	"release.yaml publish": "attestations contents id-token",
}

var (
	pinned = regexp.MustCompile(`^[A-Za-z0-9_./-]+@[0-9a-f]{40}$`)
	image  = regexp.MustCompile(`(docker|ghcr|quay|gcr)\.io/[a-z]\S*`)
	stage  = regexp.MustCompile(`(?m)^FROM (?:--\S+ )?(\S+)`)
	golang = regexp.MustCompile(`/golang:([0-9.]+)-`)
)

// TestWorkflows: workflows run only pinned actions and images, with the least permissions and a time limit, and
// use nothing of an event as code.
func TestWorkflows(t *testing.T) {
	t.Parallel()
	dockerfile := read(t, "Dockerfile")
	builds := golang.FindStringSubmatch(dockerfile)[1]
	for _, base := range stage.FindAllStringSubmatch(dockerfile, -1) {
		if base[1] != "scratch" && !strings.Contains(base[1], "@sha256:") {
			t.Errorf("Dockerfile: %s has no digest", base[1])
		}
	}
	files, err := filepath.Glob("../../.github/workflows/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var w workflow
		if err := yaml.Unmarshal(content, &w); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if w.Permissions.Kind != yaml.MappingNode || len(w.Permissions.Content) > 0 {
			t.Errorf("%s: only jobs get permissions: want `permissions: {}` for the whole file", name)
		}
		if w.Concurrency.IsZero() {
			t.Errorf("%s: there is no concurrency", name)
		}
		for trigger := range strings.FieldsSeq("pull_request_target workflow_run") {
			if strings.Contains(string(content), trigger+":") {
				t.Errorf("%s: anybody could start this with the permissions of the repository: %s", name, trigger)
			}
		}
		for _, found := range image.FindAllString(string(content), -1) {
			// Images of this project are pushed, and not run.
			if !strings.Contains(found, "@sha256:") && !strings.Contains(found, "$") && !strings.HasPrefix(found, "ghcr.io/") {
				t.Errorf("%s: the image %s has no digest", name, found)
			}
		}
		for job, j := range w.Jobs {
			where := name + " " + job
			if j.Permissions == nil || j.Timeout == 0 && j.Uses == "" || !j.Container.IsZero() || !j.Services.IsZero() {
				t.Errorf("%s: it has no permissions or no timeout-minutes, or runs in an image", where)
			}
			for right, value := range j.Permissions {
				if mayWrite := strings.Contains(writes[where], right); value != "read" && value != "none" && (value != "write" || !mayWrite) {
					t.Errorf("%s: it may %s %s", where, value, right)
				}
			}
			for _, step := range j.Steps {
				if step.Uses != "" && !pinned.MatchString(step.Uses) {
					t.Errorf("%s: %s is not pinned by its commit", where, step.Uses)
				}
				if strings.HasPrefix(step.Uses, "actions/checkout@") && step.With["persist-credentials"] != "false" {
					t.Errorf("%s: a checkout keeps its credentials", where)
				}
				// Go must have the version that builds the image.
				if strings.HasPrefix(step.Uses, "actions/setup-go@") && (step.With["go-version"] != builds || step.With["check-latest"] != "") {
					t.Errorf("%s: the Dockerfile builds with Go %s, and this is %q", where, builds, step.With)
				}
				if strings.Contains(step.Run, "${{") {
					t.Errorf("%s: an expression in a script: hand it over in env", where)
				}
			}
		}
	}
}

// read returns a file of the repository.
func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
