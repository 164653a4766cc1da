#!/usr/bin/env bash
# Fails if the committed files differ from those that go generate writes from openapi.yaml.
set -euo pipefail
cd "$(dirname "$0")/.."
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
find gen impl -name '*.gen.*' -exec cp -p --parents {} "$before" \;
go generate ./...
stale=
while read -r file; do
	if cmp --silent "$before/$file" "$file"; then
		touch -r "$before/$file" "$file" # Go keeps results of tests that have read it
	else
		stale+=" $file"
	fi
done < <(find gen impl -name '*.gen.*')
if [ -n "$stale" ]; then
	echo "generated files were stale: commit those that have been written now:$stale" >&2
	exit 1
fi
