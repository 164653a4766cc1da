#!/bin/sh
# Runs after the installation of the package. dpkg says "configure" and the version before, if there is
# one. rpm says how many versions there are.
set -e
case "$1" in
configure) [ -n "$2" ] && upgrade=yes || upgrade=no ;;
1) upgrade=no ;;
2) upgrade=yes ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	if [ $upgrade = yes ]; then
		systemctl try-restart resetd.service
	fi
fi
if [ $upgrade = no ]; then
	cat <<-END
		resetd is installed, and neither started nor enabled: nothing is set yet.
		Put your settings into /etc/resetd/resetd.env, which says how. Then try them, and start it:
		  systemctl start resetd-check || journalctl -u resetd-check -o cat
		  systemctl enable --now resetd
	END
fi
