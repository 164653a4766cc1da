/*
Licences says under which licences the modules in the program are, and writes what has to be
handed on with it.

	go run ./test/licences                  check docs/licences.md
	go run ./test/licences -write           write it
	go run ./test/licences -texts FILE      all licence texts and notices in one file, for releases and the image
	go run ./test/licences -sbom FILE       put the licences into a CycloneDX document (JSON)

It looks at what is linked into cmd/resetd on the platforms that are released, not at tools and
tests. A licence is known by the hash of its words, and each text in known.go was read by a person:
programs that guess by likeness took Go's own licence for another one (go-license-detector 4.3), and
would take MIT with a further condition for MIT. It is an error if nobody has read a text, if a licence
is not allowed, if a module has no licence, or if nobody has looked up the origin of files that a package
embeds.
*/
package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// program is the shipped program, and list is the page with its licences.
const (
	program = "./cmd/resetd"
	list    = "docs/licences.md"
)

func main() {
	write := flag.Bool("write", false, "write "+list)
	texts := flag.String("texts", "", "write all texts to this `file`")
	sbom := flag.String("sbom", "", "put the licences into this CycloneDX `file`")
	flag.Parse()
	if err := run(*write, *texts, *sbom); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(write bool, texts, sbom string) error {
	modules, err := linked()
	if err != nil {
		return err
	}
	works, err := judge(modules)
	if err != nil {
		return err
	}
	switch {
	case texts != "":
		return os.WriteFile(texts, notices(works), 0o644)
	case sbom != "":
		document, err := os.ReadFile(sbom)
		if err != nil {
			return err
		}
		if document, err = enrich(document, works); err != nil {
			return fmt.Errorf("%s: %w", sbom, err)
		}
		return os.WriteFile(sbom, document, 0o644)
	case write:
		return os.WriteFile(list, table(works), 0o644)
	}
	committed, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	if !bytes.Equal(committed, table(works)) {
		return errors.New(list + " is stale: run 'go run ./test/licences -write', and look at what it changes")
	}
	fmt.Printf("%d modules, all under allowed licences\n", len(modules))
	return nil
}

// module is a module with packages in the program.
type module struct {
	path, version, dir string
	packages           map[string]bool // directories
	embeds             map[string]bool // import paths of packages with embedded files
}

// work is a module, or something else with its own licence.
type work struct {
	name, version string
	licences      []string // SPDX identifiers; all of them apply
	files         []file   // what must be shipped with it
	note          string
}

type file struct {
	name string // within the work
	text []byte
}

// linked returns the modules that the go command links into the program, on every released platform.
func linked() ([]module, error) {
	found := map[string]*module{}
	for _, platform := range platforms {
		system, architecture, _ := strings.Cut(platform, "/")
		command := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Standard,Module,EmbedFiles", program)
		command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+architecture)
		command.Stderr = os.Stderr
		output, err := command.Output()
		if err != nil {
			return nil, fmt.Errorf("go list for %s: %w", platform, err)
		}
		for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
			var listed struct {
				ImportPath, Dir string
				Standard        bool
				EmbedFiles      []string
				Module          *struct {
					Path, Version, Dir string
					Main               bool
					Replace            *struct{}
				}
			}
			if err := decoder.Decode(&listed); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, err
			}
			if listed.Standard || listed.Module == nil || listed.Module.Main {
				continue
			}
			if listed.Module.Replace != nil {
				return nil, fmt.Errorf("%s is replaced, so the shipped module is not the listed one", listed.Module.Path)
			}
			m := found[listed.Module.Path]
			if m == nil {
				m = &module{listed.Module.Path, listed.Module.Version, listed.Module.Dir, map[string]bool{}, map[string]bool{}}
				found[m.path] = m
			}
			m.packages[listed.Dir] = true
			if len(listed.EmbedFiles) > 0 {
				m.embeds[listed.ImportPath] = true
			}
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no module is linked, which cannot be")
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	// Every program also contains the standard library and the runtime.
	found["std"] = &module{path: "std", dir: strings.TrimSpace(string(root))}
	modules := make([]module, 0, len(found))
	for _, path := range slices.Sorted(maps.Keys(found)) {
		modules = append(modules, *found[path])
	}
	return modules, nil
}

// judge finds each module's licences. It names all mistakes together.
func judge(modules []module) ([]work, error) {
	var works []work
	var wrong []error
	for _, m := range modules {
		w := work{name: m.path, version: m.version}
		files, err := legal(m)
		if err != nil {
			return nil, err
		}
		w.files = files
		judged := false
		for _, f := range files {
			if !strings.HasPrefix(strings.ToUpper(filepath.Base(f.name)), "LICEN") && !strings.HasPrefix(strings.ToUpper(filepath.Base(f.name)), "COPYING") {
				continue // notices and patent grants are additions
			}
			judged = true
			id, ok := known[fingerprint(f.text)]
			if !ok {
				wrong = append(wrong, fmt.Errorf("%s %s: nobody has read this text yet: %s\n\tread it, and put it into known.go as %q",
					m.path, m.version, filepath.Join(m.dir, f.name), fingerprint(f.text)))
				continue
			}
			w.licences = append(w.licences, id...)
		}
		if !judged {
			wrong = append(wrong, fmt.Errorf("%s %s has no licence in %s", m.path, m.version, m.dir))
		}
		more := extras[m.path]
		w.licences, w.note = append(w.licences, more.licences...), more.note
		for _, embedding := range slices.Sorted(maps.Keys(m.embeds)) {
			if !slices.Contains(more.embeds, embedding) {
				wrong = append(wrong, fmt.Errorf("%s embeds files: look up where they are from, and add it to extras in known.go", embedding))
			}
		}
		works = append(works, w)
	}
	for i := range works {
		slices.Sort(works[i].licences)
		works[i].licences = slices.Compact(works[i].licences)
		for _, id := range works[i].licences {
			if !allowed[id] {
				wrong = append(wrong, fmt.Errorf("%s %s is under %s, which is not allowed", works[i].name, works[i].version, id))
			}
		}
	}
	return works, errors.Join(wrong...)
}

var legalName = regexp.MustCompile(`(?i)^(LICEN[CS]E|COPYING|NOTICE|PATENTS)([-._].*)?$`)

// legal reads a module's files about its licence, at its root and above each linked package.
func legal(m module) ([]file, error) {
	directories := map[string]bool{m.dir: true}
	for directory := range m.packages {
		for ; directory != m.dir && strings.HasPrefix(directory, m.dir); directory = filepath.Dir(directory) {
			directories[directory] = true
		}
	}
	var files []file
	for _, directory := range slices.Sorted(maps.Keys(directories)) {
		entries, err := os.ReadDir(directory)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			if entry.IsDir() || !legalName.MatchString(entry.Name()) || filepath.Ext(entry.Name()) == ".go" {
				continue
			}
			text, err := os.ReadFile(filepath.Join(directory, entry.Name()))
			if err != nil {
				return nil, err
			}
			name, err := filepath.Rel(m.dir, filepath.Join(directory, entry.Name()))
			if err != nil {
				return nil, err
			}
			files = append(files, file{filepath.ToSlash(name), text})
		}
	}
	return files, nil
}

var (
	// These lines have a year, which conditions do not have.
	copyrightLine = regexp.MustCompile(`(?im)^[\W_]*(portions )?(copyright|\(c\)|©)[^\n]{0,20}\b(19|20)\d\d\b[^\n]{0,80}$|^[\W_]*all rights reserved\.?\s*$`)
	notWords      = regexp.MustCompile(`[^\p{L}\p{N}]+`)
)

// fingerprint is the hash of a text's words, without copyright lines, punctuation, case and layout. One more word
// makes another text.
func fingerprint(text []byte) string {
	words := notWords.ReplaceAll(bytes.ToLower(copyrightLine.ReplaceAll(text, nil)), []byte(" "))
	sum := sha256.Sum256(bytes.TrimSpace(words))
	return hex.EncodeToString(sum[:8])
}

// table returns docs/licences.md.
func table(works []work) []byte {
	var page bytes.Buffer
	fmt.Fprintf(&page, "# Licences of what is in the program\n\n"+
		"Written by `go run ./test/licences -write`; `make supply` fails if it is stale, or if a licence\n"+
		"is not allowed. What is linked into `resetd` counts, not what builds and tests it, on\n"+
		"%s. The texts go with every release as\n`THIRD_PARTY_LICENSES`, and with the image as `/licenses/THIRD_PARTY_LICENSES`.\n\n"+
		"| module | version | licence (SPDX) |\n|---|---|---|\n", strings.Join(platforms, ", "))
	for _, w := range works {
		fmt.Fprintf(&page, "| %s | %s | %s |\n", w.name, cmp.Or(w.version, "the toolchain's"), strings.Join(w.licences, " AND "))
	}
	page.WriteString("\n")
	for _, w := range works {
		if w.note != "" {
			fmt.Fprintf(&page, "- %s: %s.\n", w.name, w.note)
		}
	}
	fmt.Fprintf(&page, "\nAllowed are: %s.\n", strings.Join(slices.Sorted(maps.Keys(allowed)), ", "))
	return page.Bytes()
}

// notices returns THIRD_PARTY_LICENSES: each text once, after the works that it belongs to.
func notices(works []work) []byte {
	var page bytes.Buffer
	page.WriteString("resetd contains the following works of others, under these licences.\n\n" + image)
	belongs := map[string][]string{}
	var order []string
	for _, w := range works {
		if w.note != "" {
			fmt.Fprintf(&page, "\n%s: %s.\n", w.name, w.note)
		}
		for _, f := range w.files {
			text := string(bytes.TrimRight(f.text, "\r\n\t "))
			if belongs[text] == nil {
				order = append(order, text)
			}
			belongs[text] = append(belongs[text], strings.TrimSpace(w.name+" "+w.version)+" ("+f.name+")")
		}
	}
	for _, text := range order {
		fmt.Fprintf(&page, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 78), strings.Join(belongs[text], "\n"), strings.TrimLeft(text, "\r\n"))
	}
	return page.Bytes()
}

// enrich adds the licences to a CycloneDX document, and removes what depends on the machine that wrote it: the
// hashes of the tool.
func enrich(document []byte, works []work) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	var bom map[string]any
	if err := decoder.Decode(&bom); err != nil {
		return nil, err
	}
	byName := map[string]work{}
	for _, w := range works {
		byName[w.name] = w
	}
	components, _ := bom["components"].([]any)
	if len(components) == 0 {
		return nil, errors.New("it has no components")
	}
	for _, component := range components {
		component, ok := component.(map[string]any)
		if !ok {
			return nil, errors.New("a component is no object")
		}
		name, _ := component["name"].(string)
		w, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("%s is in the program, but not in the list of its modules", name)
		}
		component["licenses"] = []any{map[string]any{"expression": strings.Join(w.licences, " AND ")}}
	}
	if metadata, ok := bom["metadata"].(map[string]any); ok {
		tools, _ := metadata["tools"].([]any)
		for _, tool := range tools {
			if tool, ok := tool.(map[string]any); ok {
				delete(tool, "hashes")
			}
		}
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(bom); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
