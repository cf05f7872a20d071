#!/bin/sh
# make demo: start a node on a free port with a new folder, load the weather of
# two cities, ask, kill the node with SIGKILL, start it again, ask again.
set -eu
cd "$(dirname "$0")/.."
dir=$(mktemp -d "${TMPDIR:-/tmp}/dsdb-demo.XXXXXX")
pid=
stop() {
  [ -z "$pid" ] || { kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; } || :
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM

for port in 8086 18086 28086 38086; do # the first that nobody serves
  set +e; bin/dsdb -host 127.0.0.1 -port $port -execute 'SHOW DATABASES' >/dev/null 2>&1; taken=$?; set -e
  [ $taken = 3 ] && break
done
export DSDB_HTTP_BIND_ADDRESS=127.0.0.1:$port
export DSDB_META_DIR=$dir/meta DSDB_DATA_DIR=$dir/data DSDB_DATA_WAL_DIR=$dir/wal

start() {
  bin/dsdbd >>"$dir/log" 2>&1 &
  pid=$!
  for _ in $(seq 200); do
    if bin/dsdb -host 127.0.0.1 -port "$port" -execute 'SHOW DATABASES' >/dev/null 2>&1; then return; fi
    kill -0 $pid 2>/dev/null || break
    sleep 0.05
  done
  echo "dsdbd did not start:"; cat "$dir/log"; exit 1
}
ask() {
  printf '\n> %s\n' "$1"
  bin/dsdb -host 127.0.0.1 -port "$port" -database weather -precision rfc3339 -execute "$1"
}
questions() {
  ask 'SELECT count(temp_max) FROM weather GROUP BY location'
  ask 'SELECT mean(temp_max), max(temp_max), min(temp_min) FROM weather WHERE time >= '"'2012-01-01' AND time < '2016-01-01'"' GROUP BY time(366d, 334d), location'
  ask 'SELECT temp_max, wind, weather FROM weather WHERE location = '"'Seattle'"' AND temp_max > 34 LIMIT 5'
  ask 'SELECT max(precipitation), weather FROM weather GROUP BY location'
  ask 'SHOW FIELD KEYS'
}

echo "== starting bin/dsdbd on 127.0.0.1:$port, data in $dir"
start
echo "== loading testdata/weather.txt (NOAA, daily, 2012-2015)"
bin/dsdb -host 127.0.0.1 -port "$port" -import -path testdata/weather.txt -precision ns
questions | tee "$dir/before"
echo
echo "== kill -9 $pid, and start again"
kill -9 $pid
wait $pid 2>/dev/null || :
start
questions >"$dir/after"
if cmp -s "$dir/before" "$dir/after"; then
  echo "== the same answers, to the byte"
else
  echo "== the answers differ:"; diff "$dir/before" "$dir/after"; exit 1
fi
cat <<E2

What to try next:
  bin/dsdbd                                                 a node on 127.0.0.1:8086, data in ~/.dsdb
  bin/dsdb -import -path testdata/weather.txt               load the weather there
  bin/dsdb -database weather                                ask; help lists the commands
  curl -i 'localhost:8086/write?db=weather' --data-binary 'weather,location=Here temp_max=21.5'
  curl localhost:8086/metrics                               for Prometheus
  bin/dsdb-bench iops -dir ~/                               what your disk can do
E2
