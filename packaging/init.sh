#!/bin/sh
### BEGIN INIT INFO
# Provides:          dsdb
# Required-Start:    $remote_fs $network $syslog
# Required-Stop:     $remote_fs $network $syslog
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: DSDB, a clustered time-series database
# Description:       Starts and stops dsdbd with /etc/dsdb/dsdb.conf and the
#                    options in /etc/default/dsdb (INFLUXD_OPTS, DSDB_OPTS).
### END INIT INFO

# Exit codes follow the Linux Standard Base: 0 done, 1 failed, 2 wrong usage,
# 3 not running (status), 4 no rights, 5 not installed.

PATH=/usr/sbin:/usr/bin:/sbin:/bin
name=dsdb
daemon=/usr/bin/dsdbd
config=/etc/dsdb/dsdb.conf
user=dsdb
pidfile=/run/dsdb/dsdbd.pid
log=/var/log/dsdb/dsdb.log
wait=60 # seconds that a stop may take before it is enforced

[ -x $daemon ] || exit 5

# The file is the user's own and need not exist.
INFLUXD_OPTS=
DSDB_OPTS=
if [ -r /etc/default/dsdb ]; then
	# shellcheck source=/dev/null
	. /etc/default/dsdb
fi

# pid prints the process id of the daemon, if it runs: perhaps from a file that
# an upgrade has replaced since.
pid() {
	p=$(cat $pidfile 2>/dev/null) && [ -n "$p" ] || return 1
	case "$(readlink /proc/"$p"/exe 2>/dev/null)" in
	"$daemon" | "$daemon (deleted)") echo "$p" ;;
	*) return 1 ;;
	esac
}

root() {
	[ "$(id -u)" = 0 ] || { echo "$name: only root can do this" >&2; exit 4; }
}

start() {
	root
	if p=$(pid); then
		echo "$name is running already (process $p)"
		return 0
	fi
	[ -r $config ] || { echo "$name: $config is missing" >&2; exit 1; }
	mkdir -p /run/dsdb /var/log/dsdb
	chown $user:$user /run/dsdb /var/log/dsdb
	# shellcheck disable=SC3045 # what is /bin/sh on Debian knows it
	ulimit -n 65536 2>/dev/null || true
	# The options are words of a command line: they are to be split.
	# shellcheck disable=SC2086
	start-stop-daemon --start --quiet --background --no-close --make-pidfile --pidfile $pidfile \
		--chuid $user:$user --exec $daemon -- -config $config $INFLUXD_OPTS $DSDB_OPTS >>$log 2>&1 || {
		echo "$name could not be started: see $log" >&2
		return 1
	}
	# A wrong configuration ends it at once. One that waits for other nodes runs.
	i=0
	while [ $i -lt 10 ]; do
		sleep 0.1
		if ! pid >/dev/null && [ $i -gt 3 ]; then
			rm -f $pidfile
			echo "$name did not start: the end of $log says why" >&2
			tail -n 5 $log >&2
			return 1
		fi
		i=$((i + 1))
	done
	echo "$name was started"
}

stop() {
	root
	p=$(pid) || { echo "$name is not running"; return 0; }
	kill -TERM "$p"
	i=0
	while [ $i -lt $((wait * 10)) ]; do
		if ! pid >/dev/null; then
			rm -f $pidfile
			echo "$name was stopped"
			return 0
		fi
		i=$((i + 1))
		sleep 0.1
	done
	echo "$name does not stop within $wait s: it is killed" >&2
	kill -KILL "$p"
	rm -f $pidfile
}

status() {
	if p=$(pid); then
		echo "$name is running (process $p)"
		return 0
	fi
	echo "$name is not running"
	return 3
}

case "$1" in
start) start ;;
stop) stop ;;
restart | force-reload) stop && start ;;
status) status ;;
version) $daemon version ;;
*)
	echo "usage: $0 start|stop|restart|force-reload|status|version" >&2
	exit 2
	;;
esac
