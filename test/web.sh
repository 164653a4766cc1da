#!/usr/bin/env bash
# The TypeScript client and the pages, against the real server.
set -euo pipefail
cd "$(dirname "$0")/.."
source test/node.sh
./test/chromium.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

go build -o "$work/resetd" ./cmd/resetd
export RESETD="$work/resetd" # the tests start it, and end it

cd test/web
if ! npm run --silent generate -- --check >"$work/generate" 2>&1; then
	cat "$work/generate" >&2
	echo "test/web/client/schema.d.ts was stale: commit what 'make generate' writes" >&2
	exit 1
fi
npm run --silent build
npx --no-install tsc -p client/test
node --test --test-reporter=spec --test-timeout=120000 client/dist/test/*.test.js
node --test --test-reporter=spec --test-timeout=300000 browser/*.test.*
