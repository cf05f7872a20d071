#!/bin/sh
# Makes the user, the folders and the links, for the .deb and the .rpm. The service
# is enabled but not started: its configuration is to be looked at first.
set -e

if ! getent group dsdb >/dev/null; then
	groupadd --system dsdb
fi
if ! getent passwd dsdb >/dev/null; then
	useradd --system --gid dsdb --home-dir /var/lib/dsdb --no-create-home --shell /bin/false dsdb
fi
for dir in /var/lib/dsdb /var/log/dsdb; do
	mkdir -p $dir
	chown dsdb:dsdb $dir
	chmod 0750 $dir
done

# The names that the guides use, where InfluxDB's own programs do not have them.
for pair in dsdb:influx dsdbd:influxd; do
	if ! [ -e "/usr/bin/${pair#*:}" ]; then
		ln -s "${pair%:*}" "/usr/bin/${pair#*:}"
	fi
done

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
	systemctl enable dsdb.service || true
elif command -v update-rc.d >/dev/null; then
	update-rc.d dsdb defaults >/dev/null
fi
exit 0
