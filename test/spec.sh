#!/usr/bin/env bash
# Lints openapi.yaml by the rules in test/web/spec, offline; a warning is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
source test/node.sh
# These keep both tools from calling home.
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true NO_COLOR=1
cd test/web
node_modules/.bin/redocly lint --config spec/redocly.yaml --format=stylish ../../openapi.yaml
node_modules/.bin/spectral lint --fail-severity=hint --ruleset spec/spectral.yaml ../../openapi.yaml
