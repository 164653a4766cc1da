#!/usr/bin/env bash
# Fails if what is committed in gen/ is not what go generate writes from openapi.yaml now.
set -euo pipefail
cd "$(dirname "$0")/.."
before=$(find gen -name '*.gen.go' -exec sha256sum {} + | sort)
go generate ./...
after=$(find gen -name '*.gen.go' -exec sha256sum {} + | sort)
if [ "$before" != "$after" ]; then
	echo "gen/ was stale: commit what 'make generate' has written now" >&2
	exit 1
fi
