#!/usr/bin/env bash
# Tests the TypeScript client, the pages, and the examples of docs/examples with the real server.
set -euo pipefail
cd "$(dirname "$0")/.."
source test/node.sh
./test/chromium.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

go build -o "$work/resetd" ./cmd/resetd
export RESETD="$work/resetd" # the tests start it, and end it

# The examples for React have 250 packages, which take about a minute and a half on two cores.
npm_ci docs/examples/expo
(cd docs/examples/expo && npx --no-install tsc --noEmit -p .)
npm_ci docs/examples/nextjs
export NEXT_TELEMETRY_DISABLED=1 # it would ask for the network
(cd docs/examples/nextjs && NEXT_PUBLIC_SUPABASE_URL=http://localhost NEXT_PUBLIC_SUPABASE_KEY=none npx --no-install next build >"$work/next" 2>&1) || {
	cat "$work/next" >&2
	exit 1
}

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
