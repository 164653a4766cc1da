#!/usr/bin/env bash
# Fails if the committed files differ from those that go generate writes from openapi.yaml.
set -euo pipefail
cd "$(dirname "$0")/.."
sums() { find gen impl -name '*.gen.*' -exec sha256sum {} + | sort; }
before=$(sums)
go generate ./...
if [ "$before" != "$(sums)" ]; then
	echo "generated files were stale: commit those that have been written now" >&2
	exit 1
fi
