#!/usr/bin/env bash
# Finds Chromium for the tests of the pages, or installs it where apt-get can; they start it
# themselves. CHROMIUM may name another one, such as a Chrome.
set -euo pipefail
for name in ${CHROMIUM:+"$CHROMIUM"} chromium chromium-browser google-chrome; do
	if command -v "$name" >/dev/null; then
		exit 0
	fi
done
# Ubuntu's package of this name is an empty one that asks for snap.
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ] || ! grep -qsx 'ID=debian' /etc/os-release; then
	echo "The tests of the pages need Chromium (or Chrome) on the PATH, or its path in CHROMIUM." >&2
	echo "On Debian: sudo apt-get install chromium; on macOS: brew install --cask chromium." >&2
	exit 1
fi
echo "installing chromium"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium >/dev/null
