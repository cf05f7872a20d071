#!/bin/sh
# Stops the daemon before its files go. An upgrade does not: the new version is
# taken over by a restart, when the operator wants it.
set -e

case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl stop dsdb.service || true
		systemctl disable dsdb.service || true
	elif [ -x /etc/init.d/dsdb ]; then
		/etc/init.d/dsdb stop || true
	fi
	;;
esac
exit 0
