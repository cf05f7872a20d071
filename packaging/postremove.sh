#!/bin/sh
# Removing the package keeps the data. Purging it, which only Debian knows, removes
# the logs, the options and, since the word says so, the data and the user. An .rpm
# is removed with 0, what will be left of the package.
set -e

case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload || true
	fi
	;;
purge)
	if command -v update-rc.d >/dev/null; then
		update-rc.d dsdb remove >/dev/null || true
	fi
	rm -rf /var/lib/dsdb /var/log/dsdb /etc/default/dsdb
	if getent passwd dsdb >/dev/null; then
		userdel dsdb || true
	fi
	if getent group dsdb >/dev/null; then
		groupdel dsdb || true
	fi
	;;
esac
exit 0
