#!/usr/bin/env bash
# Finds Chromium for the tests of the pages, or installs it. The tests start it themselves. CHROMIUM may name
# another browser, such as Chrome.
set -euo pipefail
for name in ${CHROMIUM:+"$CHROMIUM"} chromium-browser google-chrome; do
	if command -v "$name" >/dev/null; then
		exit 0
	fi
done
if command -v apt-get >/dev/null && ! grep -qsx 'ID=debian' /etc/os-release; then
	echo "The tests of the pages need Chromium or Chrome on the PATH, or its path in CHROMIUM. Ubuntu's package is a snap." >&2
	exit 1
fi
exec "$(dirname "$0")/install.sh" chromium
