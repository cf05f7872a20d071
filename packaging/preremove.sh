#!/bin/sh
# Stops the daemon before its files go (remove of a .deb, 0 of an .rpm). An upgrade
# does not: the new version is taken over by a restart, when the operator wants it.
set -e

case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl stop dsdb.service || true
		systemctl disable dsdb.service || true
	elif command -v invoke-rc.d >/dev/null; then
		invoke-rc.d dsdb stop || true
	fi
	for pair in dsdb:influx dsdbd:influxd; do
		if [ "$(readlink "/usr/bin/${pair#*:}")" = "${pair%:*}" ]; then
			rm "/usr/bin/${pair#*:}"
		fi
	done
	;;
esac
exit 0
