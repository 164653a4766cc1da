package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const mit = `MIT License

Copyright (c) 2020 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy of this software.
`

// made writes a module with these files, and a package in each of these folders.
func made(t *testing.T, files map[string]string, packages ...string) module {
	t.Helper()
	m := module{path: "example.com/made", version: "v1.2.3", dir: t.TempDir(), packages: map[string]bool{}, embeds: map[string]bool{}}
	for name, text := range files {
		name = filepath.Join(m.dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range packages {
		m.packages[filepath.Join(m.dir, name)] = true
	}
	return m
}

// read adds texts to the known ones, for one test.
func read(t *testing.T, texts map[string][]string) {
	for text, ids := range texts {
		hash := fingerprint([]byte(text))
		if _, there := known[hash]; there {
			t.Fatalf("%q is known already", text)
		}
		known[hash] = ids
		t.Cleanup(func() { delete(known, hash) })
	}
}

func TestJudge(t *testing.T) {
	read(t, map[string][]string{mit: {"MIT"}, "Share alike.": {"GPL-3.0-only"}, "Do as you like, B.": {"ISC"}})
	embedding := made(t, map[string]string{"LICENSE": mit}, ".")
	embedding.embeds["example.com/made/assets"] = true
	for name, c := range map[string]struct {
		module   module
		licences string
		files    string
		wrong    string
	}{
		"known": {module: made(t, map[string]string{"LICENSE": mit}, "."), licences: "MIT", files: "LICENSE", wrong: ""},
		"other year and layout": {
			module:   made(t, map[string]string{"LICENSE.md": strings.ReplaceAll(strings.ReplaceAll(mit, "2020 Somebody", "1999-2026 A. N. Other"), " of ", "\n  of  ")}, "."),
			licences: "MIT", files: "LICENSE.md", wrong: "",
		},
		"one more condition":                      {module: made(t, map[string]string{"LICENSE": mit + "\nYou may not sell it.\n"}, "."), licences: "", files: "", wrong: "nobody has read"},
		"a condition that looks like a copyright": {module: made(t, map[string]string{"LICENSE": mit + "\n(c) You may not sell it.\n"}, "."), licences: "", files: "", wrong: "nobody has read"},
		"not allowed":                             {module: made(t, map[string]string{"COPYING": "Share alike."}, "."), licences: "", files: "", wrong: "under GPL-3.0-only, which is not allowed"},
		"two, one forbidden":                      {module: made(t, map[string]string{"LICENSE-A": mit, "LICENSE-B": "Share alike."}, "."), licences: "", files: "", wrong: "not allowed"},
		"none":                                    {module: made(t, map[string]string{"README.md": mit}, "."), licences: "", files: "", wrong: "has no licence"},
		"a notice alone":                          {module: made(t, map[string]string{"NOTICE": mit}, "."), licences: "", files: "", wrong: "has no licence"},
		"with a notice":                           {module: made(t, map[string]string{"LICENSE": mit, "NOTICE.txt": "Thanks.", "PATENTS": "All."}, "."), licences: "MIT", files: "LICENSE NOTICE.txt PATENTS", wrong: ""},
		"another one inside": {
			module:   made(t, map[string]string{"LICENSE": mit, "a/b/LICENCE": "Do as you like, B.", "a/b/c/x.go": ""}, "a/b/c"),
			licences: "ISC MIT", files: "LICENSE a/b/LICENCE", wrong: "",
		},
		"a licence of a package that is not linked": {module: made(t, map[string]string{"LICENSE": mit, "a/COPYING": "Share alike.", "b/x.go": ""}, "b"), licences: "MIT", files: "LICENSE", wrong: ""},
		"files of others": {module: embedding, licences: "", files: "", wrong: "example.com/made/assets embeds files"},
	} {
		t.Run(name, func(t *testing.T) {
			works, err := judge([]module{c.module})
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Fatalf("want an error with %q, got %v", c.wrong, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var files []string
			for _, f := range works[0].files {
				files = append(files, f.name)
			}
			if got := strings.Join(works[0].licences, " "); got != c.licences {
				t.Errorf("licences %q, want %q", got, c.licences)
			}
			if got := strings.Join(files, " "); got != c.files {
				t.Errorf("files %q, want %q", got, c.files)
			}
		})
	}
}

// TestTexts: the file has the whole text of everything that a licence requires to be shipped.
func TestTexts(t *testing.T) {
	read(t, map[string][]string{mit: {"MIT"}})
	works, err := judge([]module{made(t, map[string]string{"LICENSE": mit, "NOTICE": "Made by Somebody."}, ".")})
	if err != nil {
		t.Fatal(err)
	}
	text := string(notices(works))
	for _, want := range []string{strings.TrimSpace(mit), "Made by Somebody.", "example.com/made v1.2.3 (LICENSE)", "example.com/made v1.2.3 (NOTICE)"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}

func TestEnrich(t *testing.T) {
	works := []work{{name: "example.com/made", licences: []string{"Apache-2.0", "MIT"}}}
	document := `{"metadata":{"tools":[{"name":"a tool","hashes":[1]}]},"components":[{"name":"example.com/made","version":"v1"}]}`
	out, err := enrich([]byte(document), works)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), `"expression": "Apache-2.0 AND MIT"`) || strings.Contains(string(out), "hashes") {
		t.Errorf("got %s", out)
	}
	for name, document := range map[string]string{
		"an unknown component": `{"components":[{"name":"example.com/other"}]}`,
		"no component":         `{"components":[]}`,
		"no JSON":              `{`,
	} {
		if out, err := enrich([]byte(document), works); err == nil {
			t.Errorf("%s: no error, but %s", name, out)
		}
	}
}

// TestKnown: every identifier in known.go is an allowed licence.
func TestKnown(t *testing.T) {
	if len(known) == 0 {
		t.Fatal("nothing is known")
	}
	for hash, ids := range known {
		if len(ids) == 0 || slices.ContainsFunc(ids, func(id string) bool { return !allowed[id] }) {
			t.Errorf("%s: %q is not allowed, so the text need not be known", hash, ids)
		}
	}
}

// TestOwnLicence: LICENSE is the whole text of the licence that each separately published file names.
func TestOwnLicence(t *testing.T) {
	text, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	if got := known[fingerprint(text)]; !slices.Equal(got, []string{"Apache-2.0"}) {
		t.Errorf("LICENSE is under %q, want Apache-2.0", got)
	}
	if !strings.Contains(string(text), "\n   Copyright 2026 The resetd authors\n") {
		t.Error("LICENSE does not say whose copyright it is")
	}
	for name, want := range map[string]string{
		"openapi.yaml":          "\n  license:\n    name: Apache-2.0\n",
		".goreleaser.yaml":      "\n    license: Apache-2.0\n",
		"Dockerfile":            `org.opencontainers.image.licenses="Apache-2.0"`,
		"README.md":             "[Apache-2.0](LICENSE)",
		"test/web/package.json": `"license": "Apache-2.0"`,
	} {
		if content, err := os.ReadFile(filepath.Join("../..", name)); err != nil || !strings.Contains(string(content), want) {
			t.Errorf("%s has no %q (%v)", name, want, err)
		}
	}
}

// TestPlatforms: licences are looked up for the platforms that are released.
func TestPlatforms(t *testing.T) {
	content, err := os.ReadFile("../../.goreleaser.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Builds []struct{ Goos, Goarch []string }
	}
	if err := yaml.Unmarshal(content, &config); err != nil {
		t.Fatal(err)
	}
	var released []string
	for _, build := range config.Builds {
		for _, system := range build.Goos {
			for _, architecture := range build.Goarch {
				released = append(released, system+"/"+architecture)
			}
		}
	}
	if !slices.Equal(released, platforms) {
		t.Errorf("released are %q, and the licences of %q are known", released, platforms)
	}
}
