#!/usr/bin/env bash
# Fails if the program calls something with a known vulnerability (govulncheck).
#
#	test/vulnerabilities.sh                 the database (GOVULNDB, else vuln.go.dev) must be reached
#	test/vulnerabilities.sh --offline-ok    if it cannot be reached, say so and go on; but on GitHub, where
#	                                        there is a network, fail
set -euo pipefail
cd "$(dirname "$0")/.."
database=${GOVULNDB:-https://vuln.go.dev}
govulncheck() { go tool -modfile=tools/go.mod govulncheck -db "$database" "$@"; }

if ! govulncheck -version 2>&1 | grep -q '^DB updated:'; then
	echo "NOT CHECKED for known vulnerabilities: $database cannot be reached from here." >&2
	[ "${1-}" = --offline-ok ] && [ "${GITHUB_ACTIONS-}" != true ]
	exit
fi
govulncheck ./...
