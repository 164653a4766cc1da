#!/usr/bin/env bash
# Fails if openapi.yaml breaks callers of the last release (test/released/openapi.yaml) and its
# version does not say so: that takes a greater minor version before 1.0, a greater major one from
# 1.0 on. What oasdiff does not compare, and whether that document is the one that was tagged, is in
# test/repo.
#
# After a release: cp openapi.yaml test/released/openapi.yaml, then raise the version.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go build -modfile=tools/oasdiff/go.mod -o "$dir/oasdiff" github.com/oasdiff/oasdiff

# What oasdiff takes for information only, and what breaks a client all the same: one that was
# generated loses a type, a method or the class that has it, one written by hand the status, member,
# header or media type that it looks at.
cat >"$dir/levels" <<'END'
response-non-success-status-removed  err
response-optional-property-removed   err
response-media-type-name-specialized err
optional-response-header-removed     err
api-operation-id-removed             err
api-schema-removed                   err
api-tag-removed                      err
END

# The parts of a version that callers go by: all but the patch before 1.0, the first from 1.0 on.
compatible() { # document
	awk '/^info:/ {info=1} info && $1 == "version:" {split($2, v, "."); print v[1] == 0 ? "0." v[2] : v[1]; exit}' "$1"
}
from=$(compatible test/released/openapi.yaml)
to=$(compatible openapi.yaml)
status=0
"$dir/oasdiff" breaking test/released/openapi.yaml openapi.yaml --severity-levels "$dir/levels" --fail-on WARN --color never || status=$?
if [ $status = 1 ] && [ "$from" != "$to" ]; then
	echo "These break callers of $from, as $to may. CHANGELOG.md must name them."
	exit 0
fi
exit $status
