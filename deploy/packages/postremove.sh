#!/bin/sh
# After the removal of the package. dpkg says "purge" when nothing is to stay; rpm knows no such
# thing, and keeps what was changed.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
if [ "$1" = purge ]; then
	# With the keys, and the changes to the unit that systemctl edit makes.
	rm -rf /etc/resetd /etc/systemd/system/resetd.service.d /etc/systemd/system/resetd-check.service.d
fi
