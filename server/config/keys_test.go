package config

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf16"
)

// influxKeys lists every key of InfluxDB 0.10 and the later ones that people
// have in their files: section, key, a value, and whether it acts here ("acts")
// or what the warning says.
const influxKeys = `
- reporting-disabled true              | never reports
- reporting-enabled false              | never reports
- bind-address ":8089"                 | acts
- hostname "n1"                        | acts
meta enabled false                     | acts
meta dir "/m"                          | acts
meta bind-address ":8088"              | acts
meta http-bind-address ":8091"         | acts
meta https-enabled true                | acts
meta https-certificate "/c.pem"        | acts
meta retention-autocreate false        | acts
meta election-timeout "1s"             | timing is fixed
meta heartbeat-timeout "1s"            | timing is fixed
meta leader-lease-timeout "500ms"      | timing is fixed
meta commit-timeout "50ms"             | timing is fixed
meta cluster-tracing false             | [logging]
meta raft-promotion-enabled true       | max-voters
meta logging-enabled true              | [logging]
meta pprof-enabled false               | not need
meta lease-duration "60s"              | nothing to lease
data enabled false                     | acts
data dir "/x"                          | acts
data engine "tsm1"                     | segments
data wal-dir "/w"                      | acts
data wal-logging-enabled true          | [logging]
data data-logging-enabled true         | [logging]
data query-log-enabled true            | acts
data cache-max-memory-size 524288000   | acts
data cache-snapshot-memory-size 26214401 | acts
data cache-snapshot-write-cold-duration "1h" | acts
data compact-min-file-count 3          | segments
data compact-full-write-cold-duration "24h" | acts
data max-points-per-block 1000         | segments
data max-wal-size 104857600            | segments
data wal-flush-interval "10m"          | segments
data wal-partition-flush-delay "2s"    | segments
data wal-ready-series-size 30720       | segments
data wal-compaction-threshold 0.5      | segments
data wal-max-series-size 1048576       | segments
data wal-flush-cold-interval "5s"      | segments
data wal-partition-size-threshold 52428800 | segments
data index-version "inmem"             | segments
data wal-fsync-delay "0s"              | synced before it is acknowledged
data max-series-per-database 1000000   | limited by memory
data max-values-per-tag 100000         | limited by memory
data max-concurrent-compactions 3      | acts
data compact-throughput "48m"          | segments
data compact-throughput-burst "48m"    | segments
data trace-logging-enabled false       | [logging]
data strict-error-handling false       | always checked
data validate-keys false               | always checked
hinted-handoff enabled false           | acts
hinted-handoff dir "/hh"               | acts
hinted-handoff max-size 1073741825     | acts
hinted-handoff max-age "167h"          | acts
hinted-handoff retry-rate-limit 1      | acts
hinted-handoff retry-interval "2s"     | acts
hinted-handoff retry-max-interval "2m" | acts
hinted-handoff purge-interval "1h"     | no such setting
cluster force-remote-mapping false     | no such setting
cluster write-timeout "7s"             | acts
cluster shard-writer-timeout "5s"      | no such setting
cluster shard-mapper-timeout "5s"      | no such setting
cluster max-remote-write-connections 3 | no such setting
coordinator write-timeout "8s"         | acts
coordinator max-concurrent-queries 1   | acts
coordinator query-timeout "1s"         | acts
coordinator log-queries-after "1s"     | acts
coordinator max-select-point 1         | acts
coordinator max-select-series 1        | acts
coordinator max-select-buckets 1       | acts
retention enabled false                | acts
retention check-interval "31m"         | acts
shard-precreation enabled false        | acts
shard-precreation check-interval "11m" | acts
shard-precreation advance-period "31m" | acts
monitor store-enabled true             | /metrics
monitor store-database "_internal"     | /metrics
monitor store-interval "10s"           | /metrics
subscriber enabled true                | no subscriptions
subscriber http-timeout "30s"          | no subscriptions
subscriber insecure-skip-verify false  | no subscriptions
subscriber ca-certs ""                 | no subscriptions
subscriber write-concurrency 40        | no subscriptions
subscriber write-buffer-size 1000      | no subscriptions
admin enabled true                     | no web page
admin bind-address ":8083"             | no web page
admin https-enabled false              | no web page
admin https-certificate ""             | no web page
http enabled false                     | acts
http bind-address ":8087"              | acts
http auth-enabled true                 | acts
http log-enabled true                  | acts
http write-tracing false               | [logging]
http pprof-enabled true                | acts
http https-enabled true                | acts
http https-certificate "/c.pem"        | acts
http https-private-key "/k.pem"        | acts
http realm "InfluxDB"                  | realm is InfluxDB
http suppress-write-log true           | [logging]
http access-log-path ""                | [logging]
http access-log-status-filters []      | [logging]
http pprof-auth-enabled false          | auth-enabled
http ping-auth-enabled false           | auth-enabled
http shared-secret "s"                 | acts
http max-row-limit 0                   | streamed
http max-connection-limit 1            | acts
http unix-socket-enabled false         | TCP only
http bind-socket "/s"                  | TCP only
http max-body-size 1                   | acts
http max-concurrent-write-limit 1      | acts
http max-enqueued-write-limit 0        | enqueued-write-timeout
http enqueued-write-timeout "1s"       | acts
http flux-enabled false                | not need
ifql enabled true                      | not need
ifql log-enabled true                  | not need
ifql bind-address ":8082"              | not need
logging format "text"                  | acts
logging level "warn"                   | acts
logging suppress-logo false            | not need
tls ciphers []                         | TLS 1.2
tls min-version "tls1.2"               | TLS 1.2
tls max-version "tls1.2"               | TLS 1.2
[graphite] enabled false               | no such listener
[graphite] bind-address ":2003"        | no such listener
[graphite] database "graphite"         | no such listener
[graphite] retention-policy ""         | no such listener
[graphite] protocol "tcp"              | no such listener
[graphite] consistency-level "one"     | no such listener
[graphite] separator "."               | no such listener
[graphite] templates ["a b"]           | no such listener
[graphite] tags ["a=b"]                | no such listener
[graphite] batch-size 5000             | no such listener
[graphite] batch-pending 10            | no such listener
[graphite] batch-timeout "1s"          | no such listener
[graphite] udp-read-buffer 0           | no such listener
collectd enabled false                 | no such listener
collectd bind-address ":25826"         | no such listener
collectd database "collectd"           | no such listener
collectd retention-policy ""           | no such listener
collectd typesdb "/t"                  | no such listener
collectd security-level "none"         | no such listener
collectd auth-file "/a"                | no such listener
collectd parse-multivalue-plugin "split" | no such listener
collectd batch-size 5000               | no such listener
collectd batch-pending 10              | no such listener
collectd batch-timeout "10s"           | no such listener
collectd read-buffer 0                 | no such listener
[opentsdb] enabled false               | no such listener
[opentsdb] bind-address ":4242"        | no such listener
[opentsdb] database "opentsdb"         | no such listener
[opentsdb] retention-policy ""         | no such listener
[opentsdb] consistency-level "one"     | no such listener
[opentsdb] tls-enabled false           | no such listener
[opentsdb] certificate ""              | no such listener
[opentsdb] batch-size 1000             | no such listener
[opentsdb] batch-pending 5             | no such listener
[opentsdb] batch-timeout "1s"          | no such listener
[opentsdb] log-point-errors true       | no such listener
[udp] enabled false                    | no such listener
[udp] bind-address ""                  | no such listener
[udp] database "udp"                   | no such listener
[udp] retention-policy ""              | no such listener
[udp] batch-size 5000                  | no such listener
[udp] batch-pending 10                 | no such listener
[udp] batch-timeout "1s"               | no such listener
[udp] read-buffer 0                    | no such listener
[udp] udp-payload-size 65536           | no such listener
[udp] precision ""                     | no such listener
continuous_queries enabled true        | no continuous queries
continuous_queries log-enabled true    | no continuous queries
continuous_queries run-interval "1s"   | no continuous queries
continuous_queries query-stats-enabled false | no continuous queries
`

// Each key of InfluxDB, in a file of its own and as a variable under both
// names, changes the configuration or warns that it does nothing.
func TestEveryKeyOfInfluxDBActsOrWarns(t *testing.T) {
	for _, line := range strings.Split(strings.TrimSpace(influxKeys), "\n") {
		left, want, _ := strings.Cut(line, "|")
		want = strings.TrimSpace(want)
		section, rest, _ := strings.Cut(strings.TrimSpace(left), " ")
		key, value, _ := strings.Cut(rest, " ")
		value = strings.TrimSpace(value)

		text := key + " = " + value + "\n"
		if section != "-" {
			text = "[" + section + "]\n" + text
		}
		name := strings.TrimPrefix(strings.Trim(section, "[]")+"."+key, "-.")
		env := variable(name)
		if strings.HasPrefix(section, "[") {
			env = variable(strings.Trim(section, "[]") + ".0." + key)
		}
		needs := ""
		if strings.HasSuffix(name, ".https-enabled") && want == "acts" { // is refused alone
			text += "https-certificate = \"/c.pem\"\n"
			needs = "DSDB_" + variable(section+".https-certificate") + "=/c.pem"
		}
		base, _, err := load(t, "", needs)
		if err != nil {
			t.Fatal(err)
		}
		check := func(how string, c Config, warnings []string, err error) {
			t.Helper()
			switch {
			case err != nil:
				t.Errorf("%s %s: %v", how, name, err)
			case want == "acts" && (c == base || len(warnings) > 0):
				t.Errorf("%s %s: changed nothing, or warned: %v", how, name, warnings)
			case want != "acts" && (c != base || len(warnings) != 1 || !strings.Contains(warnings[0], want)):
				t.Errorf("%s %s: got %v, want one warning with %q", how, name, warnings, want)
			}
		}
		c, warnings, err := load(t, text)
		check("file", c, warnings, err)
		value = strings.Trim(value, `"`)
		if value == "" {
			continue // an empty variable is none
		}
		for _, prefix := range prefixes {
			c, warnings, err := load(t, "", needs, prefix+env+"="+value)
			check("variable "+prefix, c, warnings, err)
		}
	}
}

func TestOddVariables(t *testing.T) {
	_, warnings, err := load(t, "", "DSDB_HTTP_BIND_ADRESS=:1", "DSDB_DATA_WALDIR=/x", "DSDB_CLUSTER_WRITE_TIMEOUT=1s", "DSDB_HTTP_=1",
		"DSDBD=/bin/dsdbd", "DSDB_URL=x", "DSDB_CONFIG_PATH=y", "INFLUXDB_ADMIN_USER=root", "INFLUXDB_DB=x", "INFLUXDB_GRAPHITE_1_ENABLED=true")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"DSDB_DATA_WALDIR has no effect: no such key; did you mean DSDB_DATA_WAL_DIR?",
		"DSDB_HTTP_ has no effect: no such key; did you mean DSDB_HTTP_REALM?",
		"DSDB_HTTP_BIND_ADRESS has no effect: no such key; did you mean DSDB_HTTP_BIND_ADDRESS?",
		"INFLUXDB_GRAPHITE_1_ENABLED has no effect: this version has no such listener",
	}
	if got := strings.Join(warnings, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// Windows' editors write a byte order mark, and UTF-16.
func TestFilesWithByteOrderMarks(t *testing.T) {
	const text = "[http]\r\n  bind-address = \":7\"\r\n[data]\r\n  dir = \"/größe\"\r\n"
	files := [][]byte{[]byte("\xef\xbb\xbf" + text)}
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		b := order.AppendUint16(nil, 0xfeff)
		for _, u := range utf16.Encode([]rune(text)) {
			b = order.AppendUint16(b, u)
		}
		files = append(files, b)
	}
	for _, f := range files {
		c, warnings, err := load(t, string(f))
		if err != nil || len(warnings) > 0 || c.HTTP.BindAddress != ":7" || c.Data.Dir != "/größe" {
			t.Errorf("%q: %v %v %+v", bytes.ToValidUTF8(f[:4], []byte("?")), err, warnings, c.HTTP)
		}
	}
}
