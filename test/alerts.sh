#!/usr/bin/env bash
# Checks and tests the alerts, the example configuration and the queries of the dashboard with promtool. If
# promtool is missing and there is apt-get, it is unpacked from Debian's package of Prometheus into .cache.
# The package is not installed, so no server is started or enabled.
set -euo pipefail
cd "$(dirname "$0")/.."

promtool=$(command -v promtool || echo "$PWD/.cache/promtool/usr/bin/promtool")
if [ ! -x "$promtool" ]; then
	if ! command -v apt-get >/dev/null; then
		./test/install.sh promtool:prometheus # which says how
	fi
	echo "fetching promtool"
	download=$(mktemp -d)
	trap 'rm -rf "$download"' EXIT
	if [ "$(id -u)" = 0 ]; then
		apt-get update -qq
		chown _apt "$download" 2>/dev/null || true # who downloads for root
	fi
	(cd "$download" && apt-get download -qq prometheus >/dev/null)
	dpkg-deb --fsys-tarfile "$download"/prometheus_*.deb | tar -x -C "$download" ./usr/bin/promtool
	mkdir -p .cache/promtool
	mv "$download/usr" .cache/promtool
fi
./test/install.sh jq

"$promtool" --version 2>&1 | head -1
"$promtool" check rules deploy/prometheus/alerts.yaml
"$promtool" check config deploy/prometheus/prometheus.yaml
"$promtool" test rules deploy/prometheus/alerts_test.yaml

# Grafana replaces the variables of a query before Prometheus reads it. promtool parses queries without a
# server as the expressions of recording rules.
rules=$(mktemp --suffix .yaml)
trap 'rm -rf "${download:-}" "$rules"' EXIT
jq '
	def filled: gsub("\\$__rate_interval"; "5m") | gsub("\\$__range"; "6h") | gsub("\\$price"; "1") | gsub("\\$[a-z]+"; ".*");
	[.. | objects | .expr? // empty | filled] as $queries
	| if ($queries | length) < 20 then error("the dashboard has only \($queries | length) queries") else . end
	| {groups: [{name: "dashboard", rules: [$queries | to_entries[] | {record: "dashboard:query:\(.key)", expr: .value}]}]}
' deploy/grafana/resetd.json >"$rules"
"$promtool" check rules "$rules"
