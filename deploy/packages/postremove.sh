#!/bin/sh
# Runs after the removal of the package. dpkg says "purge" to remove everything. rpm has no purge, and
# keeps changed files.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
if [ "$1" = purge ]; then
	# Also removes the keys, and the changes to the unit by systemctl edit.
	rm -rf /etc/resetd /etc/systemd/system/resetd.service.d /etc/systemd/system/resetd-check.service.d
fi
