package main

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var settingName = regexp.MustCompile("`([A-Z][A-Z0-9_]+)`")

// TestReadmeSettings: the table of settings has every setting with its default, and nothing else.
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

// TestDevAddress: the examples use the address of resetd dev.
func TestDevAddress(t *testing.T) {
	address := "http://" + devDefaults("")["LISTEN_ADDR"] + "/api/auth/send-password-reset"
	for _, page := range []string{"../../README.md", "../../docs/apps.md"} {
		if !strings.Contains(read(t, page), " "+address+" ") {
			t.Errorf("%s does not ask %s", page, address)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
