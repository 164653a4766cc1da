// Package repo compares the files of the repository with each other, and with the program.
package repo

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestReleased: test/released/openapi.yaml is the tagged one, and openapi.yaml still has all of its codes and
// server paths, which oasdiff does not compare, unless its version says that it breaks callers.
func TestReleased(t *testing.T) {
	t.Parallel()
	released, current := load(t, "test/released/openapi.yaml"), load(t, "openapi.yaml")
	if from, to := compatible(released.Info.Version), compatible(current.Info.Version); from == to {
		for _, lost := range slices.Concat(lost(codes(released), codes(current)), lost(paths(released), paths(current))) {
			t.Errorf("openapi.yaml has no %s any more, and its version does not say that it breaks callers of %s", lost, from)
		}
	}
	for _, document := range []*openapi3.T{released, current} {
		if !slices.Contains(codes(document), "rate_limited") || !slices.Contains(paths(document), "/api") {
			t.Errorf("of %s only the codes %q and the server paths %q are found", document.Info.Version, codes(document), paths(document))
		}
	}
	// A shallow clone, and a copy without git, has no tag to compare with.
	for version, file := range map[string]string{released.Info.Version: "test/released/openapi.yaml", current.Info.Version: "openapi.yaml"} {
		tagged, err := exec.Command("git", "-C", "../..", "show", "v"+version+":openapi.yaml").Output()
		if err == nil && string(tagged) != read(t, file) {
			t.Errorf("%s differs from the tag v%s", file, version)
		}
	}
}

// compatible returns the parts of a version that matter to callers: all but the patch before 1.0, the first
// from 1.0 on.
func compatible(version string) string {
	parts := strings.Split(version, ".")
	if parts[0] == "0" {
		return parts[0] + "." + parts[1]
	}
	return parts[0]
}

func lost(before, now []string) []string {
	return slices.DeleteFunc(before, func(one string) bool { return slices.Contains(now, one) })
}

var inBackticks = regexp.MustCompile("`([a-z_]+)`")

// codes returns the error codes: from the list or, up to 0.1.0, from the description.
func codes(document *openapi3.T) (found []string) {
	for _, schema := range document.Components.Schemas {
		code := schema.Value.Properties["code"]
		if code == nil {
			continue
		}
		listed, _ := code.Value.Extensions["x-extensible-enum"].([]any)
		for _, one := range listed {
			found = append(found, one.(string))
		}
		if len(listed) == 0 {
			for _, one := range inBackticks.FindAllStringSubmatch(code.Value.Description, -1) {
				found = append(found, one[1])
			}
		}
	}
	return found
}

// paths returns the paths of the servers.
func paths(document *openapi3.T) (found []string) {
	for _, server := range document.Servers {
		base, err := server.BasePath()
		if err == nil {
			found = append(found, strings.TrimSuffix(base, "/"))
		}
	}
	return found
}

func load(t *testing.T, name string) *openapi3.T {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromFile("../../" + name)
	if err != nil {
		t.Fatal(err)
	}
	return document
}
