package config

import (
	"slices"
	"strings"
)

// Why a known key does nothing here.
const (
	noHandoff = "hinted handoff needs no such setting"
	noPool    = "connections between nodes need no such setting"
	noRepair  = "replicas repair themselves from the log of their shard"
	noLease   = "there is nothing to lease"
	voters    = "meta nodes become voters by themselves, up to max-voters"
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
// 1.12 that do nothing here, by reason.
var ignoredSections = map[string]map[string]string{
	"": {noReport: "reporting-disabled reporting-enabled"},
	"meta": {
		voters:    "raft-promotion-enabled",
		noLease:   "lease-duration",
		raftTimes: "election-timeout heartbeat-timeout leader-lease-timeout commit-timeout",
		logsOnce:  "cluster-tracing logging-enabled",
		notNeeded: "pprof-enabled",
	},
	"data": {
		noTSM: "engine max-points-per-block compact-min-file-count max-wal-size wal-flush-interval wal-partition-flush-delay " +
			"wal-ready-series-size wal-compaction-threshold wal-max-series-size wal-flush-cold-interval wal-partition-size-threshold " +
			"index-version compact-throughput compact-throughput-burst tsm-use-madv-willneed max-index-log-file-size " +
			"series-id-set-cache-size series-file-max-concurrent-snapshot-compactions aggressive-cache-snapshot-optimize",
		"every write is synced before it is acknowledged": "wal-fsync-delay",
		logsOnce:                             "wal-logging-enabled data-logging-enabled trace-logging-enabled",
		"series are limited by memory alone": "max-series-per-database max-values-per-tag",
		"input is always checked":            "strict-error-handling validate-keys",
	},
	"hinted-handoff": {noHandoff: "purge-interval retry-concurrency batch-size max-writes-pending"},
	"cluster":        {noPool: clusterKeys + " force-remote-mapping shard-mapper-timeout"},
	"coordinator":    {noPool: clusterKeys},
	"anti-entropy":   {noRepair: "max-fetch max-sync max-repair-queue"},
	"monitor":        {noMonitor: "store-enabled store-database store-interval"},
	"subscriber":     {noSub: "enabled http-timeout insecure-skip-verify ca-certs write-concurrency write-buffer-size total-buffer-bytes"},
	"admin":          {noPage: "enabled bind-address https-enabled https-certificate"},
	"http": {
		"the realm is InfluxDB": "realm",
		"with auth-enabled /debug and /metrics want an admin, /ping is open": "pprof-auth-enabled ping-auth-enabled prom-read-auth-enabled",
		logsOnce:  "write-tracing suppress-write-log access-log-path access-log-status-filters",
		notNeeded: "flux-enabled flux-log-enabled debug-pprof-enabled",
		"the answer is streamed; rows need no limit": "max-row-limit",
		"this version listens on TCP only":           "unix-socket-enabled bind-socket unix-socket-permissions unix-socket-group",
		"writes queue for enqueued-write-timeout":    "max-enqueued-write-limit",
	},
	"ifql":    {notNeeded: "enabled log-enabled bind-address"},
	"logging": {notNeeded: "suppress-logo"},
	"tls":     {"TLS 1.2 or newer with Go's choice of ciphers": "ciphers min-version max-version"},
	"graphite": {noInput: inputKeys + " protocol consistency-level separator templates tags udp-read-buffer name-separator name-position " +
		"ignore-unnamed"},
	"collectd":           {noInput: inputKeys + " typesdb read-buffer security-level auth-file parse-multivalue-plugin"},
	"opentsdb":           {noInput: inputKeys + " consistency-level tls-enabled certificate log-point-errors"},
	"udp":                {noInput: inputKeys + " read-buffer udp-payload-size precision"},
	"continuous_queries": {noCQ: "enabled log-enabled run-interval query-stats-enabled recompute-previous-n recompute-no-older-than compute-runs-per-interval compute-no-more-than"},
}

const (
	clusterKeys = "shard-writer-timeout max-remote-write-connections shard-reader-timeout dial-timeout cluster-tracing pool-max-idle-time pool-max-idle-streams"
	inputKeys   = "enabled bind-address database retention-policy batch-size batch-pending batch-timeout"
)

// ignored returns why the key named section.key does nothing, false if it is
// not a known key of that sort.
func ignored(path string) (reason string, ok bool) {
	section, name := "", path
	if i := strings.IndexByte(path, '.'); i >= 0 {
		section, name = path[:i], path[i+1:]
	}
	for why, names := range ignoredSections[section] {
		if slices.Contains(strings.Fields(names), name) {
			return why, true
		}
	}
	return "", false
}

// ignoredKeys lists the keys that ignored knows.
func ignoredKeys() []string {
	var out []string
	for section, reasons := range ignoredSections {
		for _, names := range reasons {
			for _, n := range strings.Fields(names) {
				if section != "" {
					n = section + "." + n
				}
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out
}

// knownKeys lists every key that may stand in a file.
func knownKeys() []string {
	out := ignoredKeys()
	for _, k := range new(Config).keys() {
		out = append(out, k.path())
		if k.section == "coordinator" {
			out = append(out, "cluster."+k.name)
		}
	}
	return out
}

// sections lists every section that may stand in a file.
func sections() []string {
	var out []string
	for _, k := range knownKeys() {
		if s, _, ok := strings.Cut(k, "."); ok && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// nearestKey returns the known key that was probably meant: one of the same
// name in another section, or else the one that is written most alike.
func nearestKey(name string) string {
	last := name[strings.LastIndexByte(name, '.')+1:]
	known := knownKeys()
	if !strings.HasPrefix(name, "cluster.") { // only who uses the old name of [coordinator] is told of it
		known = slices.DeleteFunc(known, func(k string) bool { return strings.HasPrefix(k, "cluster.") })
	}
	same := slices.DeleteFunc(slices.Clone(known), func(k string) bool { return k[strings.LastIndexByte(k, '.')+1:] != last })
	if len(same) > 0 && last != "enabled" {
		return nearest(name, same)
	}
	return nearest(name, known)
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
