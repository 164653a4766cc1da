#!/usr/bin/env bash
# Lints openapi.yaml by the rules in test/web/spec, offline; a warning is a failure. First it lints
# a document full of faults, so that rules that find nothing any more do not pass for a good document,
# and asks each rule that is off for a comment that says why.
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

# The rules of a file that are off, or no more than a warning, without a comment: right above, or
# above the place that an override is for.
unexplained() {
	awk '
		/^[^ #]/ { place = 0; overrides = $1 == "overrides:" }
		overrides && /^  - / { place = commented }
		/^ *#/ { commented = 1; next }
		{ sub(/ +#.*/, "") }
		/:.*[ "\047:](off|false|hint|info|warn)["\047} ]*$/ && !commented && !place { print FILENAME ": " $0 " (line " FNR ")" }
		{ commented = 0 }' "$@"
}

mkdir -p "$work/faulty/test/web"
cp -r test/web/spec "$work/faulty/test/web/spec"
ln -s "$PWD/test/web/node_modules" "$work/faulty/test/web/node_modules"
cat >"$work/paths" <<'END'
  /faulty/{id}/?query:
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}}
      - {name: token, in: query, schema: {type: string, properties: {}}}
      - {name: redirect_url, in: query, schema: {type: string, enum: [1]}}
    get:
      tags: [one, two]
      security: [{nothing: []}]
      responses:
        '200': {description: Of success alone}
  /faulty/{other}/:
    get:
      operationId: not safe
      responses:
        '400': {description: Of failure alone}
END
cat >"$work/components" <<'END'
  securitySchemes:
    basic: {type: http, scheme: basic}
    key: {type: apiKey, in: query, name: key}
    negotiate: {type: http, scheme: negotiate}
    token: {type: oauth2, flows: {clientCredentials: {tokenUrl: https://example.com, scopes: {}}}}
END
# And besides: an operation without a name, an example that does not fit, a required member that there
# is not; text, lists and maps without a bound, text without a form, maps of anything; answers without
# headers; servers without TLS, and of which nobody knows what they are; no licence.
sed -E -e '/^paths:/r '"$work/paths" -e '/^components:/r '"$work/components" \
	-e '/^ *operationId:/d' -e 's/^( *retryAfter: )42$/\1soon/' -e 's/required: \[ok, message\]/required: [ok, message, more]/' \
	-e '/^ *(maxLength|maxItems|maxProperties|pattern): /d' -e 's/additionalProperties: false/additionalProperties: true/' \
	-e '/^            RateLimit:/,+1d' -e '/^            Retry-After:/,/^            X-Request-Id:/ { /X-Request-Id:/!d }' \
	-e '/^  license:/,+2d' -e 's/^( *- url: )https:/\1http:/' -e '/^ *x-internal: /d' -e 's/^( *description: Relative) .*/\1/' -e '/^ *description: Account recovery/d' \
	openapi.yaml >"$work/faulty/openapi.yaml"
while read -r tool rules; do
	if [ ! -e "$work/$tool" ] && "$tool" "$work/faulty" >"$work/$tool" 2>&1; then
		echo "$tool finds nothing wrong with a faulty document" >&2
		exit 1
	fi
	for rule in $rules; do
		# Of Redocly's, which passes a document with warnings, an error.
		if ! grep -qE "$([ "$tool" = spectral ] || echo ' error') +$rule " "$work/$tool"; then
			cat "$work/$tool" >&2
			echo "$tool did not find what its rule $rule is for" >&2
			exit 1
		fi
	done
done <<'END'
redocly no-invalid-media-type-examples no-required-schema-properties-undefined operation-operationId
redocly no-unused-components operation-description tag-description parameter-description info-license
redocly no-enum-type-mismatch no-path-trailing-slash no-schema-type-mismatch operation-2xx-response operation-4xx-response
redocly operation-operationId-url-safe operation-summary path-not-include-query path-parameters-defined security-defined
spectral info-license oas3-operation-security-defined oas3-parameter-description oas3-unused-component oas3-valid-media-example
spectral operation-description operation-operationId operation-operationId-valid-in-url operation-singular-tag
spectral operation-success-response operation-tag-defined operation-tags path-keys-no-trailing-slash path-not-include-query
spectral path-params tag-description typed-enum
spectral owasp:api1:2023-no-numeric-ids
spectral owasp:api2:2023-auth-insecure-schemes owasp:api2:2023-jwt-best-practices owasp:api2:2023-no-api-keys-in-url
spectral owasp:api2:2023-no-credentials-in-url owasp:api2:2023-no-http-basic owasp:api2:2023-read-restricted
spectral owasp:api2:2023-short-lived-access-tokens
spectral owasp:api3:2023-constrained-additionalProperties owasp:api3:2023-no-additionalProperties
spectral owasp:api4:2023-array-limit owasp:api4:2023-integer-format owasp:api4:2023-integer-limit-legacy
spectral owasp:api4:2023-rate-limit owasp:api4:2023-rate-limit-responses-429 owasp:api4:2023-rate-limit-retry-after
spectral owasp:api4:2023-string-limit owasp:api4:2023-string-restricted
spectral owasp:api7:2023-concerning-url-parameter
spectral owasp:api8:2023-define-error-responses-500 owasp:api8:2023-define-error-validation owasp:api8:2023-no-server-http
spectral owasp:api9:2023-inventory-access owasp:api9:2023-inventory-environment
END

# One rule more that is off, one that is only a warning, one whose comment is gone, and a place whose
# comment is gone.
for mutation in "spectral.yaml:s/^overrides:/  owasp:api4:2023-array-limit: off\n&/" "redocly.yaml:s/^  operation-description: error/  operation-description: warn/" \
	"redocly.yaml:s/^  operation-description: error/  operation-description:\n    severity: off/" \
	"redocly.yaml:/^  # Everybody runs/d" "spectral.yaml:/^  # Sentences for people/d"; do
	sed "${mutation#*:}" "test/web/spec/${mutation%%:*}" >"$work/mutated.yaml"
	if [ -z "$(unexplained "$work/mutated.yaml")" ]; then
		echo "a rule that is off without a comment is not found: ${mutation#*:}" >&2
		exit 1
	fi
done
found=$(unexplained test/web/spec/*.yaml)
if [ -n "$found" ]; then
	printf '%s\nsay in a comment right above why it is off, or no error\n' "$found" >&2
	exit 1
fi

for tool in redocly spectral; do
	if ! "$tool" "$PWD" >"$work/$tool" 2>&1; then
		cat "$work/$tool" >&2
		exit 1
	fi
	echo "$tool: openapi.yaml is fine"
done
