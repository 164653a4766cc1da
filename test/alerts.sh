#!/usr/bin/env bash
# Checks and tests the alerts, the example configuration and the queries of the dashboard with
# promtool. Where it is missing and apt-get can, promtool is taken out of Debian's package of
# Prometheus into .cache: the package is not installed, so no server is started or enabled.
set -euo pipefail
cd "$(dirname "$0")/.."

missing() {
	echo "The tests of the alerts need $1 on the PATH." >&2
	echo "On Debian and Ubuntu: sudo apt-get install $2; on macOS: brew install $2." >&2
	exit 1
}

promtool=$(command -v promtool || true)
if [ -z "$promtool" ]; then
	promtool=$PWD/.cache/promtool/usr/bin/promtool
fi
if [ ! -x "$promtool" ]; then
	if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
		missing promtool prometheus
	fi
	echo "fetching promtool"
	mkdir -p .cache
	download=$(mktemp -d)
	trap 'rm -rf "$download"' EXIT
	if [ "$(id -u)" = 0 ]; then
		apt-get update -qq
		chown _apt "$download" 2>/dev/null || true # who downloads for root
	fi
	(cd "$download" && apt-get download -qq prometheus >/dev/null) || missing promtool prometheus
	dpkg-deb --fsys-tarfile "$download"/prometheus_*.deb | tar -x -C "$download" ./usr/bin/promtool
	rm -rf .cache/promtool
	mkdir .cache/promtool
	mv "$download"/usr .cache/promtool
fi
if ! command -v jq >/dev/null; then
	if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
		missing jq jq
	fi
	echo "installing jq"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends jq >/dev/null
fi

"$promtool" --version 2>&1 | head -1
"$promtool" check rules deploy/prometheus/alerts.yaml
"$promtool" check config deploy/prometheus/prometheus.yaml
"$promtool" test rules deploy/prometheus/alerts_test.yaml

# A query of the dashboard is one of Prometheus once Grafana has put values in the place of its
# variables. As the expressions of recording rules they are parsed without a server.
rules=$(mktemp --suffix .yaml)
trap 'rm -rf "${download:-}" "$rules"' EXIT
jq '
	def filled: gsub("\\$__rate_interval"; "5m") | gsub("\\$__range"; "6h") | gsub("\\$price"; "1") | gsub("\\$[a-z]+"; ".*");
	[.. | objects | .expr? // empty | filled] as $queries
	| if ($queries | length) < 20 then error("the dashboard has only \($queries | length) queries") else . end
	| {groups: [{name: "dashboard", rules: [$queries | to_entries[] | {record: "dashboard:query:\(.key)", expr: .value}]}]}
' deploy/grafana/resetd.json >"$rules"
"$promtool" check rules "$rules"
