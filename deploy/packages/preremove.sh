#!/bin/sh
# Before the removal of the package, and not before an upgrade: dpkg says "remove", rpm says that no
# version will be left.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl stop resetd.service # waits until what is accepted is delivered
fi
if command -v systemctl >/dev/null; then
	systemctl --quiet disable resetd.service
fi
