package message

import (
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	texttemplate "text/template"
	"text/template/parse"
	"unicode/utf8"

	"golang.org/x/text/language"
)

const (
	layoutHTML = "layout.html"
	layoutText = "layout.txt"
	wordsFile  = ".tmpl" // the extension of a language's file

	// placeholder stands for the link while templates are rendered. Its scheme passes html/template's filter
	// and nothing in it needs escaping, so it comes out unchanged in each place for a link. In other places (a
	// script, a query), where the placeholder is rewritten, token is still found.
	placeholder = "https://link.invalid/" + token
	token       = "41c7de9be2f24f6fa8a1b0f7ce5b3d60"

	// maxTemplate bounds a file, because a wrong folder may hold any. It is far more than a mail may have.
	maxTemplate = 256 << 10
)

// view is the data of the layouts. It must never have the recipient.
type view struct {
	Language   string
	Dir        string // ltr or rtl
	Start, End string // left or right: where lines begin and end
	Brand      viewBrand
	ExpiresIn  string
	Colors     palette
	Words      map[string]any
	Link       string
}

type viewBrand struct{ Name, LogoURL, LogoDarkURL, SupportEmail, SupportURL string }

//go:embed templates
var builtIn embed.FS

// block is a {{define}} of a file. Errors name it by the path of the file.
type block struct {
	tree *parse.Tree
	path string
}

// blocks are the blocks of one file, by name.
type blocks map[string]block

// templates are the built-in files, with the blocks of TEMPLATES_DIR in place of their own.
type templates struct {
	tags     languages
	words    map[string]blocks // by tag
	text     *texttemplate.Template
	html     *htmltemplate.Template
	paths    map[string]string // of the layouts, for errors
	ownHTML  bool              // layout.html is not the built-in one alone
	replaced []string
	warnings []string
}

// readTemplates returns the built-in templates, overlaid with the valid ones in dir, and the mistakes in the
// others.
func readTemplates(dir string) (*templates, []error) {
	root, err := fs.Sub(builtIn, "templates")
	if err != nil {
		return nil, []error{err}
	}
	files, errs := readFiles(root, func(name string) string { return "built-in " + name })
	set := &templates{words: map[string]blocks{}, paths: map[string]string{layoutHTML: "built-in " + layoutHTML, layoutText: "built-in " + layoutText}}
	if dir != "" {
		var own map[string]blocks
		own, errs = readFiles(os.DirFS(dir), func(name string) string { return filepath.Join(dir, name) })
		set.overlay(files, own)
	}
	var tags []language.Tag
	for name, blocks := range files {
		if tag, ok := strings.CutSuffix(name, wordsFile); ok {
			tags = append(tags, language.MustParse(tag))
			set.words[tag] = blocks
		}
	}
	// English first, because it is the fall-back where no other is set.
	slices.SortFunc(tags, func(a, b language.Tag) int {
		if first := map[bool]int{true: 0, false: 1}; (a == language.English) != (b == language.English) {
			return first[a == language.English] - first[b == language.English]
		}
		return strings.Compare(a.String(), b.String())
	})
	set.tags = newLanguages(tags)

	set.text = texttemplate.New("").Option("missingkey=error")
	for name, b := range files[layoutText] {
		if _, err := set.text.AddParseTree(name, b.tree); err != nil {
			errs = append(errs, fileError(err))
		}
	}
	set.html = htmltemplate.New("").Funcs(htmlFuncs).Option("missingkey=error")
	for name, b := range files[layoutHTML] {
		if _, err := set.html.AddParseTree(name, b.tree); err != nil {
			errs = append(errs, fileError(err))
		}
	}
	return set, errs
}

// overlay puts the operator's blocks into the files. A language that is not built in gets its missing blocks from
// its parent (es for es-MX), or else from English, so that a later version that needs a new block finds one.
func (set *templates) overlay(files, own map[string]blocks) {
	builtInTags := []language.Tag{language.English}
	for name := range files {
		if stem, ok := strings.CutSuffix(name, wordsFile); ok && stem != "en" {
			builtInTags = append(builtInTags, language.MustParse(stem))
		}
	}
	known := newLanguages(builtInTags)
	for _, name := range slices.Sorted(maps.Keys(own)) {
		added := own[name]
		base, isBuiltIn := files[name]
		stem, isWords := strings.CutSuffix(name, wordsFile)
		from := ""
		if !isBuiltIn {
			i, related := known.match(stem)
			if !related {
				i = 0
			}
			from = known.tags[i].String()
			base = files[from+wordsFile]
			if lacking := missing(base, added); !related && len(lacking) > 0 {
				set.warnings = append(set.warnings, fmt.Sprintf("%s lacks blocks, which stay in English: %s", name, strings.Join(lacking, ", ")))
			}
		}
		merged, replaced := maps.Clone(base), []string(nil)
		for _, block := range slices.Sorted(maps.Keys(added)) {
			if merged[block].tree.Root.String() != added[block].tree.Root.String() {
				replaced = append(replaced, block)
			}
			merged[block] = added[block]
		}
		if !isWords {
			for _, b := range added {
				set.paths[name] = b.path
			}
		}
		switch {
		case !isBuiltIn:
			set.replaced = append(set.replaced, fmt.Sprintf("%s: a language of its own, over %s", name, from))
		case len(replaced) > 0:
			set.replaced = append(set.replaced, name+": "+strings.Join(replaced, ", "))
		}
		set.ownHTML = set.ownHTML || name == layoutHTML
		files[name] = merged
	}
}

func missing(all, some blocks) (names []string) {
	for name := range all {
		if _, ok := some[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// readFiles parses the templates of root, by name. A file with another name is a mistake, because a misspelt name
// would silently leave the built-in file in use. Dot files are ignored: Kubernetes mounts its ..data beside the
// templates.
func readFiles(root fs.FS, path func(name string) string) (map[string]blocks, []error) {
	entries, err := fs.ReadDir(root, ".")
	if err != nil {
		var of *fs.PathError
		if errors.As(err, &of) {
			err = of.Err
		}
		return nil, []error{fmt.Errorf("must be a folder that can be read (%w)", err)} // its path is not repeated: it may be a secret in the wrong place
	}
	files, errs := map[string]blocks{}, []error(nil)
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		parsed, err := readFile(root, name, path(name))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files[name] = parsed
	}
	return files, errs
}

func readFile(root fs.FS, name, path string) (blocks, error) {
	if info, err := fs.Stat(root, name); err == nil && (info.IsDir() || info.Size() > maxTemplate) {
		return nil, fmt.Errorf("%s: %s", path, map[bool]string{true: "is a folder: templates are files beside each other", false: "has more than 256 KiB"}[info.IsDir()])
	}
	if err := checkFileName(name); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	content, err := fs.ReadFile(root, name)
	if err != nil {
		var of *fs.PathError
		if errors.As(err, &of) {
			err = of.Err
		}
		return nil, fmt.Errorf("%s: cannot be read (%w)", path, err)
	}
	if !utf8.Valid(content) {
		return nil, fmt.Errorf("%s: is not UTF-8", path)
	}
	text := strings.ReplaceAll(strings.TrimPrefix(string(content), "\ufeff"), "\r\n", "\n")
	return parseBlocks(name, path, text)
}

// parseBlocks returns the {{define}}s of a file, which may have nothing else.
func parseBlocks(name, path, text string) (blocks, error) {
	known, funcs := append(slices.Clone(sentences), durations...), wordFuncs(language.English)
	switch name {
	case layoutHTML:
		known, funcs = []string{"document", "head", "styles", "preview", "header", "card", "action", "copy", "footer"}, htmlFuncs
	case layoutText:
		known, funcs = []string{"document", "footer"}, nil
	}
	parsed, err := texttemplate.New(path).Funcs(funcs).Parse(text)
	if err != nil {
		err = fileError(err)
		if strings.Contains(err.Error(), "not defined") && len(funcs) > 0 {
			err = fmt.Errorf("%w; there are %s, and Go's own", err, strings.Join(slices.Sorted(maps.Keys(funcs)), ", "))
		}
		return nil, err
	}
	found := blocks{}
	for _, t := range parsed.Templates() {
		switch {
		case t.Name() == path:
			if t.Tree != nil && !parse.IsEmptyTree(t.Root) {
				return nil, fmt.Errorf("%s: there is something outside of the blocks {{define \"NAME\"}}…{{end}}", path)
			}
		case !slices.Contains(known, t.Name()):
			return nil, fmt.Errorf("%s: there is no block %q; there are %s", path, t.Name(), strings.Join(known, ", "))
		default:
			found[t.Name()] = block{t.Tree, path}
		}
	}
	return found, nil
}

func checkFileName(name string) error {
	if name == layoutHTML || name == layoutText {
		return nil
	}
	stem, ok := strings.CutSuffix(name, wordsFile)
	if !ok {
		return fmt.Errorf("no template has this name; there are %s, %s, and one for each language, like en%s", layoutHTML, layoutText, wordsFile)
	}
	tag, err := language.Parse(stem)
	if err != nil || tag == language.Und {
		return fmt.Errorf("is not named after a language (BCP 47), like pt-BR%s", wordsFile)
	}
	if tag.String() != stem {
		return fmt.Errorf("must be named %s%s", tag, wordsFile)
	}
	return nil
}

// render makes the page of one language.
func (set *templates) render(tag language.Tag, opts Options, colors palette) (page, error) {
	said, expiresIn, err := renderWords(tag, set.words[tag.String()], opts)
	if err != nil {
		return page{}, err
	}
	b := opts.Brand
	v := view{
		Language: tag.String(), Dir: direction(tag), Start: "left", End: "right", ExpiresIn: expiresIn, Link: placeholder, Colors: colors,
		Brand: viewBrand{isolated(tag, b.Name), b.LogoURL, b.LogoDarkURL, b.SupportEmail, b.SupportURL},
		Words: said.asText(tag, b.Name),
	}
	if v.Dir == "rtl" {
		v.Start, v.End = v.End, v.Start
	}
	p := page{language: v.Language}
	p.subject, _ = v.Words["subject"].(string)

	var out strings.Builder
	if err := set.text.ExecuteTemplate(&out, "document", v); err != nil {
		return page{}, templateError(err, v)
	}
	if p.text, err = cutText(wrap(out.String())); err != nil {
		return page{}, fmt.Errorf("%s: %w", set.paths[layoutText], err)
	}

	out.Reset()
	v.Words = said.asHTML(tag, b.Name)
	if err := set.html.ExecuteTemplate(&out, "document", v); err != nil {
		if err = templateError(err, v); !strings.Contains(err.Error(), set.paths[layoutHTML]) { // how a document ends is said without a place
			err = fmt.Errorf("%s: %w", set.paths[layoutHTML], err)
		}
		return page{}, err
	}
	document := strings.TrimSpace(out.String()) + "\n"
	p.html = strings.Split(document, placeholder)
	if set.ownHTML { // the built-in one is read by tests, in every language, and not at each start
		err = checkHTML(document, b.LogoURL, b.LogoDarkURL)
	}
	if err != nil {
		return page{}, fmt.Errorf("%s: %w", set.paths[layoutHTML], err)
	}
	return p, nil
}

// fileError removes the template package's prefix from an error, and leaves "path:line: mistake".
func fileError(err error) error {
	return errors.New(strings.TrimPrefix(strings.TrimPrefix(err.Error(), "html/"), "template: "))
}

// templateError adds to an error about an unknown field the fields that there are.
func templateError(err error, data any) error {
	text := fileError(err).Error()
	switch {
	case strings.Contains(text, "map has no entry for key"):
		text += "; there are " + strings.Join(sentences, ", ")
	case cannotEvaluate.MatchString(text):
		text = cannotEvaluate.ReplaceAllString(text, "")
		if fields := fieldsOf("", reflect.TypeOf(data)); len(fields) > 0 {
			text += "; there are " + strings.Join(fields, ", ")
		}
	}
	return errors.New(text)
}

// fieldsOf lists the fields that a template can use, such as .Brand.Name.
func fieldsOf(prefix string, t reflect.Type) (names []string) {
	if t.Kind() != reflect.Struct {
		return nil
	}
	for field := range t.Fields() {
		name := prefix + "." + field.Name
		switch field.Type.Kind() {
		case reflect.Struct:
			names = append(names, fieldsOf(name, field.Type)...)
		case reflect.Map:
			for _, word := range sentences {
				names = append(names, name+"."+word)
			}
		default:
			names = append(names, name)
		}
	}
	return names
}

// WriteTemplates writes the built-in templates into dir, which it makes if necessary. It overwrites nothing: an
// existing file is an error.
func WriteTemplates(dir string) (written []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the user that serves may be another one
		return nil, err
	}
	entries, err := builtIn.ReadDir("templates")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		content, err := builtIn.ReadFile("templates/" + entry.Name())
		if err != nil {
			return written, err
		}
		name := filepath.Join(dir, entry.Name())
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // likewise
		if err != nil {
			return written, err
		}
		_, err = file.Write(content)
		if err := errors.Join(err, file.Close()); err != nil {
			return written, err
		}
		written = append(written, name)
	}
	return written, nil
}
