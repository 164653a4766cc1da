package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/resetd/resetd/impl/message"
)

// templates writes the built-in templates into a folder, for TEMPLATES_DIR.
func templates(args []string, stdout, stderr io.Writer) error {
	switch asked := strings.Join(args, " "); {
	case asked == "--help", asked == "-h":
		fmt.Fprint(stderr, "Usage: resetd templates DIR\n\nWrites the built-in templates of the mail into DIR. Change what you want to change, delete the rest,\nand set TEMPLATES_DIR=DIR: docs/templates.md.\n")
		return nil
	case len(args) != 1 || args[0] == "" || strings.HasPrefix(args[0], "-"):
		fmt.Fprintln(stderr, "resetd templates: needs the name of a folder and nothing else: see resetd templates --help")
		return errUsage
	}
	written, err := message.WriteTemplates(args[0])
	for _, name := range written {
		fmt.Fprintln(stdout, name)
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: nothing is overwritten; give an empty folder", err)
	}
	return err
}
