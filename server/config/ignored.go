package config

import (
	"sort"
	"strings"
)

// Why a known key does nothing here.
const (
	noCluster = "this version runs as one node"
	noTSM     = "DSDB stores segments, not TSM files; they need no such setting"
	noMonitor = "DSDB is watched through /metrics"
	noReport  = "DSDB never reports to anybody"
	noPage    = "this version has no web page"
	noInput   = "this version has no such listener"
	noCQ      = "this version has no continuous queries"
	noSub     = "this version has no subscriptions"
	raftTimes = "DSDB's raft timing is fixed"
	logsOnce  = "logging is set in [logging]"
	notNeeded = "DSDB does not need it"
)

// ignoredSections names, by section ("": none), the keys of InfluxDB 0.10 to
// 1.12 that do nothing here, by reason. A reason under "*" holds for every key.
var ignoredSections = map[string]map[string]string{
	"": {noReport: "reporting-disabled", noCluster: "bind-address"},
	"meta": {
		noCluster: "enabled bind-address http-bind-address https-enabled https-certificate raft-promotion-enabled lease-duration",
		raftTimes: "election-timeout heartbeat-timeout leader-lease-timeout commit-timeout",
		logsOnce:  "cluster-tracing logging-enabled",
		notNeeded: "pprof-enabled",
	},
	"data": {
		noCluster: "enabled",
		noTSM: "engine max-points-per-block compact-min-file-count wal-flush-interval wal-partition-flush-delay wal-ready-series-size " +
			"wal-compaction-threshold wal-max-series-size wal-flush-cold-interval wal-partition-size-threshold index-version " +
			"compact-throughput compact-throughput-burst tsm-use-madv-willneed max-index-log-file-size series-id-set-cache-size series-file-max-concurrent-snapshot-compactions",
		"every write is synced before it is acknowledged": "wal-fsync-delay",
		logsOnce:                             "wal-logging-enabled data-logging-enabled trace-logging-enabled",
		"series are limited by memory alone": "max-series-per-database max-values-per-tag",
		"input is always checked":            "strict-error-handling validate-keys",
	},
	"hinted-handoff": {"*": noCluster},
	"cluster":        {noCluster: "force-remote-mapping shard-writer-timeout shard-mapper-timeout max-remote-write-connections shard-reader-timeout dial-timeout cluster-tracing pool-max-idle-time pool-max-idle-streams"},
	"coordinator":    {noCluster: "shard-writer-timeout max-remote-write-connections shard-reader-timeout dial-timeout cluster-tracing pool-max-idle-time pool-max-idle-streams"},
	"monitor":        {"*": noMonitor},
	"subscriber":     {"*": noSub},
	"admin":          {"*": noPage},
	"http": {
		"the realm is InfluxDB": "realm",
		"with auth-enabled /debug and /metrics want an admin, /ping is open": "pprof-auth-enabled ping-auth-enabled",
		logsOnce:  "write-tracing suppress-write-log access-log-path access-log-status-filters",
		notNeeded: "flux-enabled flux-log-enabled debug-pprof-enabled",
		"the answer is streamed; rows need no limit": "max-row-limit",
		"this version listens on TCP only":           "unix-socket-enabled bind-socket unix-socket-permissions unix-socket-group",
		"writes queue for enqueued-write-timeout":    "max-enqueued-write-limit",
	},
	"logging":            {notNeeded: "suppress-logo"},
	"tls":                {"TLS 1.2 or newer with Go's choice of ciphers": "ciphers min-version max-version"},
	"graphite":           {"*": noInput},
	"collectd":           {"*": noInput},
	"opentsdb":           {"*": noInput},
	"udp":                {"*": noInput},
	"continuous_queries": {"*": noCQ},
	"anti-entropy":       {"*": noCluster},
}

// ignored returns why the key named section.key does nothing, false if it is
// not a known key of that sort.
func ignored(path string) (reason string, ok bool) {
	section, name := "", path
	if i := strings.IndexByte(path, '.'); i >= 0 {
		section, name = path[:i], path[i+1:]
	}
	for why, names := range ignoredSections[section] {
		if why == "*" {
			return names, true
		}
		for _, n := range strings.Fields(names) {
			if n == name {
				return why, true
			}
		}
	}
	return "", false
}

// ignoredKeys lists the keys that ignored knows by name, and for the sections
// that do nothing at all those that are often set.
func ignoredKeys() []string {
	var out []string
	for section, reasons := range ignoredSections {
		for why, names := range reasons {
			if why == "*" {
				names = "enabled dir bind-address store-enabled store-database store-interval"
			}
			for _, n := range strings.Fields(names) {
				if section != "" {
					n = section + "." + n
				}
				out = append(out, n)
			}
		}
	}
	sort.Strings(out)
	return out
}

// knownKeys lists every key that may stand in a file.
func knownKeys() []string {
	out := ignoredKeys()
	for _, k := range new(Config).keys() {
		out = append(out, k.path())
	}
	return out
}

// nearest returns the name that takes the fewest edits to reach from name.
func nearest(name string, names []string) string {
	best, cost := "", 1<<30
	for _, n := range names {
		if c := distance(name, n); c < cost || c == cost && n < best {
			best, cost = n, c
		}
	}
	return best
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			c := diagonal
			if a[i-1] != b[j-1] {
				c = 1 + min(diagonal, row[j], row[j-1])
			}
			diagonal, row[j] = row[j], c
		}
	}
	return row[len(b)]
}
