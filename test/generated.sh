#!/usr/bin/env bash
# Fails if what is committed is not what go generate writes from openapi.yaml now.
set -euo pipefail
cd "$(dirname "$0")/.."
sums() { find gen impl -name '*.gen.*' -exec sha256sum {} + | sort; }
before=$(sums)
go generate ./...
if [ "$before" != "$(sums)" ]; then
	echo "generated files were stale: commit what 'make generate' has written now" >&2
	exit 1
fi
