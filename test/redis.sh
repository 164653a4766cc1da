#!/usr/bin/env bash
# Finds redis-server for the tests, or installs it where apt-get can; they start it themselves.
set -euo pipefail
if command -v redis-server >/dev/null; then
	exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
	echo "The tests with Redis need redis-server (7 or later) on the PATH; it is their Sentinels and Clusters, too." >&2
	echo "On Debian and Ubuntu: sudo apt-get install redis-server; on macOS: brew install redis." >&2
	exit 1
fi
echo "installing redis-server"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends redis-server >/dev/null
