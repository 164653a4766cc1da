#!/bin/sh
# Runs before the removal of the package. On a removal, unlike an upgrade, dpkg says "remove" and rpm
# says that no version will be left.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl stop resetd.service # waits until accepted requests are delivered
fi
if command -v systemctl >/dev/null; then
	systemctl --quiet disable resetd.service
fi
