#!/usr/bin/env bash
# Fails if the program calls something with a known vulnerability (govulncheck). First the check
# itself is tested, with made-up entries in a database of its own.
#
#	test/vulnerabilities.sh                 the database (GOVULNDB, else vuln.go.dev) must be reached
#	test/vulnerabilities.sh --offline-ok    where it is not reached, say so and go on; on GitHub, where
#	                                        there is a network, fail all the same
set -euo pipefail
cd "$(dirname "$0")/.."
offline_ok=no
case "${1-}" in
'') ;;
--offline-ok) offline_ok=yes ;;
*)
	sed -n '2,8p' "$0" >&2
	exit 2
	;;
esac
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go build -modfile=tools/go.mod -o "$dir/govulncheck" golang.org/x/vuln/cmd/govulncheck

check() { # database, whether offline is fine, packages: 0 if nothing is wrong or nothing was asked
	local database=$1 offline_ok=$2
	shift 2
	"$dir/govulncheck" -version -db "$database" >"$dir/version" 2>&1 || true
	if ! grep -q '^DB updated:' "$dir/version"; then
		echo "NOT CHECKED for known vulnerabilities: $database cannot be reached from here." >&2
		if [ "$offline_ok" = yes ] && [ "${GITHUB_ACTIONS-}" != true ]; then
			return 0
		fi
		return 1
	fi
	"$dir/govulncheck" -db "$database" "$@"
}

# The test of the check.

entry() { # database, id, symbol, events of versions: one in the public suffix list, which origin asks
	local module=golang.org/x/net first=,
	mkdir -p "$1/ID" "$1/index"
	cat >"$1/ID/$2.json" <<-END
		{"schema_version": "1.3.1", "id": "$2", "modified": "2026-01-01T00:00:00Z", "published": "2026-01-01T00:00:00Z",
		 "details": "Made up, to test the check.", "database_specific": {"url": "https://example.com/$2"},
		 "affected": [{"package": {"name": "$module", "ecosystem": "Go"},
		  "ranges": [{"type": "SEMVER", "events": $4}],
		  "ecosystem_specific": {"imports": [{"path": "$module/publicsuffix", "symbols": ["$3"]}]}}]}
	END
	[ -e "$1/vulns" ] || first=
	echo "$first{\"id\": \"$2\", \"modified\": \"2026-01-01T00:00:00Z\"}" >>"$1/vulns"
	echo "[{\"path\": \"$module\", \"vulns\": [$(cat "$1/vulns")]}]" >"$1/index/modules.json"
	echo '{"modified": "2026-01-01T00:00:00Z"}' >"$1/index/db.json"
}

expect() { # status, what it is, a text that must be said, then the check's arguments
	local want=$1 what=$2 say=$3 status=0
	shift 3
	check "$@" >"$dir/outcome" 2>&1 || status=$?
	if [ $status != "$want" ] || ! grep -q -- "$say" "$dir/outcome"; then
		echo "test of the check: $what gave $status instead of $want, or did not say '$say':" >&2
		head -50 "$dir/outcome" >&2
		exit 1
	fi
}

entry "$dir/called" GO-2026-90001 PublicSuffix '[{"introduced": "0"}]'
expect 3 "a vulnerability that is called" GO-2026-90001 "file://$dir/called" no ./impl/origin
entry "$dir/harmless" GO-2026-90002 PublicSuffix '[{"introduced": "0"}, {"fixed": "0.1.0"}]'
entry "$dir/harmless" GO-2026-90003 EffectiveTLDPlusOne '[{"introduced": "0"}]'
expect 0 "a fixed vulnerability, and one that is not called" "affected by 0 vulnerabilities" "file://$dir/harmless" no ./impl/origin
# Nobody answers on port 1.
GITHUB_ACTIONS='' expect 1 "no database" "NOT CHECKED" http://127.0.0.1:1 no ./impl/origin
GITHUB_ACTIONS='' expect 0 "no database where that is fine" "NOT CHECKED" http://127.0.0.1:1 yes ./impl/origin
GITHUB_ACTIONS=true expect 1 "no database on GitHub" "NOT CHECKED" http://127.0.0.1:1 yes ./impl/origin

check "${GOVULNDB:-https://vuln.go.dev}" "$offline_ok" ./...
