#!/usr/bin/env bash
# Lints openapi.yaml by the rules in test/web/spec, offline; a warning is a failure. First it lints
# a document full of faults, so that rules that find nothing any more do not pass for a good document.
set -euo pipefail
cd "$(dirname "$0")/.."
source test/node.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Neither is to call home.
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true NO_COLOR=1

# Both read the rules that lie beside the document as they lie here.
redocly() { (cd "$1/test/web" && node_modules/.bin/redocly lint --config spec/redocly.yaml --format=stylish ../../openapi.yaml); }
spectral() { (cd "$1/test/web" && node_modules/.bin/spectral lint --fail-severity=hint --ruleset spec/spectral.yaml ../../openapi.yaml); }

mkdir -p "$work/faulty/test/web"
cp -r test/web/spec "$work/faulty/test/web/spec"
ln -s "$PWD/test/web/node_modules" "$work/faulty/test/web/node_modules"
# An operation without a name, an example that does not fit, a required member that there is not,
# and text without a bound.
sed -e '/^ *operationId:/d' -e 's/^\( *retryAfter: \)42$/\1soon/' -e 's/required: \[ok, message\]/required: [ok, message, more]/' \
	-e '/^ *maxLength: /d' openapi.yaml >"$work/faulty/openapi.yaml"
for found in redocly:operation-operationId redocly:no-invalid-media-type-examples redocly:no-required-schema-properties-undefined \
	spectral:operation-operationId spectral:oas3-valid-media-example spectral:owasp:api4:2023-string-limit; do
	tool=${found%%:*} rule=${found#*:}
	if [ ! -e "$work/$tool" ] && "$tool" "$work/faulty" >"$work/$tool" 2>&1; then
		echo "$tool finds nothing wrong with a faulty document" >&2
		exit 1
	fi
	if ! grep -qF " $rule " "$work/$tool"; then
		cat "$work/$tool" >&2
		echo "$tool did not find what its rule $rule is for" >&2
		exit 1
	fi
done

for tool in redocly spectral; do
	if ! "$tool" "$PWD" >"$work/$tool" 2>&1; then
		cat "$work/$tool" >&2
		exit 1
	fi
	echo "$tool: openapi.yaml is fine"
done
