package main

// platforms are the platforms that .goreleaser.yaml releases, as GOOS/GOARCH.
var platforms = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64"}

// allowed are the licences that works in the program may have. None of them asks anything of the program itself;
// each asks that its text, or the address of its source, is shipped with the work.
var allowed = map[string]bool{
	"Apache-2.0": true, "BSD-2-Clause": true, "BSD-3-Clause": true, "ISC": true, "MIT": true,
	"MPL-2.0": true, // covers single files, which are shipped unchanged
}

// known are the texts that a person has read, by fingerprint, with the licences in them. Everything in a text must
// be accounted for.
var known = map[string][]string{
	"95f35d79ea3bab75": {"Apache-2.0"},
	"37599287c15c2f2e": {"Apache-2.0"},                 // without its appendix
	"e87dea5078ce2faa": {"Apache-2.0"},                 // with its authors in the appendix
	"4b65446dc65c9d3c": {"Apache-2.0", "BSD-3-Clause"}, // OpenTelemetry's, with that of Go below it
	"986c3c3199a93b91": {"BSD-2-Clause"},
	"7be8178e4e9d0dea": {"BSD-2-Clause"},
	"cb1ce31a60c2422f": {"BSD-3-Clause"}, // Go's: Google LLC
	"526279aa5ce65fb2": {"BSD-3-Clause"}, // Google Inc.
	"0bb2ccd6c864bf62": {"BSD-3-Clause"}, // Gengo
	"67d00642b7f12c75": {"BSD-3-Clause"}, // Mailgun
	"9c1c2bcc686d76b3": {"BSD-3-Clause"}, // Open Knowledge Foundation
	"35a446201226de6b": {"MIT"},          // headed "MIT License"
	"6c833965e9ca4cf8": {"MIT"},          // headed "The MIT License (MIT)"
	"37ab4940ae52fdc8": {"MIT"},          // headed "MIT License (Expat)"
	"0cf21bdfd1964a97": {"MIT"},          // without a heading
}

// extra is what no licence file of a module says.
type extra struct {
	licences []string
	embeds   []string // packages with embedded files whose origin is known
	note     string
}

var extras = map[string]extra{
	"github.com/santhosh-tekuri/jsonschema/v6": {
		[]string{"BSD-3-Clause"}, []string{"github.com/santhosh-tekuri/jsonschema/v6"},
		"with the metaschemas of json-schema.org, Copyright (c) JSON Schema Specification Authors, under BSD-3-Clause or AFL-3.0",
	},
	"go.yaml.in/yaml/v4": {
		[]string{"MIT"}, nil,
		"the files that were ported from libyaml are under MIT, see its notice",
	},
	"golang.org/x/net": {
		[]string{"MPL-2.0"}, []string{"golang.org/x/net/publicsuffix"},
		"publicsuffix is made of the Public Suffix List, under MPL-2.0 (https://mozilla.org/MPL/2.0/), whose source is at https://publicsuffix.org/list/public_suffix_list.dat",
	},
	"google.golang.org/protobuf": {nil, []string{"google.golang.org/protobuf/internal/editiondefaults"}, ""}, // its own
	"std":                        {nil, nil, "Go's library and runtime"},
}

// image has the works in the container image beside the program.
const image = "The container image also has the certificates of ca-certificates, which are Mozilla's, under MPL-2.0\n" +
	"(https://mozilla.org/MPL/2.0/); their source is at https://gitlab.alpinelinux.org/alpine/ca-certificates.\n"
