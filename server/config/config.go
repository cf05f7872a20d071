// Package config reads a node's configuration: TOML with InfluxDB's sections
// and keys, overridden by environment variables. Every key that InfluxDB 0.10
// to 1.x has is known: it acts, or a warning says that it does nothing here
// (ignored.go). A key that is not known is an error naming the nearest one.
package config

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/BurntSushi/toml"
)

// Config is everything that can be configured, one struct per TOML section.
// Make it with Default and change it with Load.
type Config struct {
	Hostname      string        `toml:"hostname" doc:"name or address at which others reach this machine; empty: that of the bind addresses"`
	BindAddress   string        `toml:"bind-address" doc:"InfluxDB's other name of [meta] bind-address, which wins"`
	Join          string        `toml:"join" doc:"InfluxDB's other name of [meta] join, which wins"`
	Meta          Meta          `toml:"meta"`
	Data          Data          `toml:"data"`
	Coordinator   Coordinator   `toml:"coordinator"`
	Retention     Retention     `toml:"retention"`
	Precreation   Precreation   `toml:"shard-precreation"`
	AntiEntropy   AntiEntropy   `toml:"anti-entropy"`
	HintedHandoff HintedHandoff `toml:"hinted-handoff"`
	HTTP          HTTP          `toml:"http"`
	Logging       Logging       `toml:"logging"`
}

// Data is [data]: the points.
type Data struct {
	Enabled               bool     `toml:"enabled" doc:"the node stores points"`
	Dir                   string   `toml:"dir" doc:"folder of the segments"`
	WALDir                string   `toml:"wal-dir" doc:"folder of the log; a disk of its own with low fsync latency pays off"`
	CacheMaxMemory        Size     `toml:"cache-max-memory-size" doc:"points in memory in all; above it writes are answered with 503 until some are flushed"`
	CacheSnapshotMemory   Size     `toml:"cache-snapshot-memory-size" doc:"points in memory of one shard that start its flush"`
	CacheSnapshotCold     Duration `toml:"cache-snapshot-write-cold-duration" doc:"a shard without writes for so long is flushed"`
	CompactFullCold       Duration `toml:"compact-full-write-cold-duration" doc:"a shard without writes for so long is compacted into one sorted run, and let go of in memory if it is not queried either"`
	WALMaxSize            Size     `toml:"wal-max-size" doc:"bytes of log that are kept for replicas which are behind; more force a flush of the shards which pin it, and its files may take half as much again"`
	SnapshotThroughput    Size     `toml:"snapshot-throughput" doc:"bytes per second of whole copies of shards that this node sends to others; 0: no limit"`
	MaxShardsPerNode      int      `toml:"max-shards-per-node" doc:"copies of shards that a data node may get by new time groups; points that would need more are refused; 0: no limit"`
	QueryLog              bool     `toml:"query-log-enabled" doc:"log each statement"`
	MaxConcurrentCompacts int      `toml:"max-concurrent-compactions" doc:"compactions at the same time; 0: half the cores"`
}

// Coordinator is [coordinator] ([cluster] in 0.10): limits on writes and queries.
type Coordinator struct {
	WriteTimeout         Duration `toml:"write-timeout" doc:"a write that takes longer is answered with 503 timeout"`
	QueryTimeout         Duration `toml:"query-timeout" doc:"a query that takes longer is stopped; 0: never"`
	LogQueriesAfter      Duration `toml:"log-queries-after" doc:"log queries that take longer; 0: none"`
	MaxConcurrentQueries int      `toml:"max-concurrent-queries" doc:"statements running at the same time; 0: no limit"`
	MaxSelectPoint       int      `toml:"max-select-point" doc:"points one SELECT may read; 0: no limit"`
	MaxSelectSeries      int      `toml:"max-select-series" doc:"series one SELECT may read; 0: no limit"`
	MaxSelectBuckets     int      `toml:"max-select-buckets" doc:"GROUP BY time windows one SELECT may make; 0: no limit"`
	QueryMemory          Size     `toml:"max-select-memory" doc:"memory one SELECT may hold"`
}

// Retention is [retention]: deleting what has expired.
type Retention struct {
	Enabled       bool     `toml:"enabled" doc:"delete shards whose retention has passed"`
	CheckInterval Duration `toml:"check-interval" doc:"how often to look"`
}

// Precreation is [shard-precreation]: making shards before they are needed.
type Precreation struct {
	Enabled       bool     `toml:"enabled" doc:"create the next shard group ahead of its time"`
	CheckInterval Duration `toml:"check-interval" doc:"how often to look"`
	AdvancePeriod Duration `toml:"advance-period" doc:"how long ahead"`
}

// AntiEntropy is [anti-entropy]: comparing the replicas of shards.
type AntiEntropy struct {
	Enabled       bool     `toml:"enabled" doc:"compare the replicas of each shard now and then, and replace one that is damaged or differs from most"`
	CheckInterval Duration `toml:"check-interval" doc:"how often each shard; it is read as a whole"`
}

// HintedHandoff is [hinted-handoff]: writes at consistency any without a leader.
type HintedHandoff struct {
	Enabled          bool     `toml:"enabled" doc:"a write at consistency any whose shard has no leader is kept on this node until it has one; false: it is refused as at quorum"`
	Dir              string   `toml:"dir" doc:"folder of the points that wait; empty: hh in data.dir"`
	MaxSize          Size     `toml:"max-size" doc:"bytes of that folder; above it writes at consistency any are refused as at quorum"`
	MaxAge           Duration `toml:"max-age" doc:"points that wait longer are given up, with an error in the log; 0: never"`
	RetryRateLimit   Size     `toml:"retry-rate-limit" doc:"bytes per second that are delivered to a shard; 0: no limit"`
	RetryInterval    Duration `toml:"retry-interval" doc:"pause after the leader of a shard was not found; doubled each time"`
	RetryMaxInterval Duration `toml:"retry-max-interval" doc:"longest such pause"`
}

// HTTP is [http]: the API for clients.
type HTTP struct {
	Enabled         bool     `toml:"enabled" doc:"serve the API"`
	BindAddress     string   `toml:"bind-address" doc:"host:port; beyond loopback only with a firewall while auth-enabled is false"`
	Advertise       string   `toml:"advertise-address" doc:"host:port that SHOW SERVERS tells clients; empty: bind-address, with hostname if that is set"`
	AuthEnabled     bool     `toml:"auth-enabled" doc:"clients sign in; the first admin is created without, from this machine: CREATE USER … WITH ALL PRIVILEGES"`
	SharedSecret    string   `toml:"shared-secret" doc:"key of the signatures of bearer tokens (JWT, HS256), 32 bytes or more; empty: no such tokens"`
	LogEnabled      bool     `toml:"log-enabled" doc:"log each request"`
	Pprof           bool     `toml:"pprof-enabled" doc:"serve /debug/pprof"`
	HTTPS           bool     `toml:"https-enabled" doc:"serve TLS"`
	Certificate     string   `toml:"https-certificate" doc:"PEM file of the certificate, and of the key if https-private-key is empty"`
	PrivateKey      string   `toml:"https-private-key" doc:"PEM file of the key"`
	MaxBody         Size     `toml:"max-body-size" doc:"bytes of a body as sent; four times that when inflated; above: 413"`
	MaxConnections  int      `toml:"max-connection-limit" doc:"connections at the same time; 0: no limit"`
	MaxWrites       int      `toml:"max-concurrent-write-limit" doc:"writes served at the same time; 0: 256"`
	EnqueuedTimeout Duration `toml:"enqueued-write-timeout" doc:"a write that waits longer for its turn is answered with 503"`
}

// Logging is [logging].
type Logging struct {
	Format string `toml:"format" doc:"text, json, or auto: text on a terminal"`
	Level  string `toml:"level" doc:"debug, info, warn or error"`
}

// Default returns the configuration of a node that is started without any: its
// folders are below dir, it listens on loopback.
func Default(dir string) Config {
	return Config{
		Meta: Meta{Enabled: true, Dir: filepath.Join(dir, "meta"), BindAddress: "127.0.0.1:8088", HTTPBindAddress: "127.0.0.1:8091",
			MaxVoters: 5, DeadTimeout: Duration(5 * time.Minute), RetentionAutocreate: true},
		Data: Data{Enabled: true, Dir: filepath.Join(dir, "data"), WALDir: filepath.Join(dir, "wal"),
			CacheMaxMemory: 1 << 30, CacheSnapshotMemory: 64 << 20, CacheSnapshotCold: Duration(10 * time.Minute),
			CompactFullCold: Duration(4 * time.Hour), WALMaxSize: 1 << 30, SnapshotThroughput: 64 << 20, MaxShardsPerNode: 5000},
		Coordinator: Coordinator{WriteTimeout: Duration(10 * time.Second), QueryMemory: 256 << 20},
		Retention:   Retention{Enabled: true, CheckInterval: Duration(30 * time.Minute)},
		Precreation: Precreation{Enabled: true, CheckInterval: Duration(10 * time.Minute), AdvancePeriod: Duration(30 * time.Minute)},
		AntiEntropy: AntiEntropy{Enabled: true, CheckInterval: Duration(24 * time.Hour)},
		HintedHandoff: HintedHandoff{Enabled: true, Dir: filepath.Join(dir, "data", "hh"), MaxSize: 1 << 30, MaxAge: Duration(168 * time.Hour),
			RetryInterval: Duration(time.Second), RetryMaxInterval: Duration(time.Minute)},
		HTTP: HTTP{Enabled: true, BindAddress: "127.0.0.1:8086", MaxBody: 25_000_000, MaxConnections: 4096,
			EnqueuedTimeout: Duration(30 * time.Second)},
		Logging: Logging{Format: "auto", Level: "info"},
	}
}

// Load applies the file at path ("": none) and then the environment (as
// os.Environ gives it) to c. The warnings name keys that have no effect.
func (c *Config) Load(path string, env []string) (warnings []string, err error) {
	defaults := *c
	c.Meta.BindAddress, c.Meta.HTTPBindAddress, c.HTTP.BindAddress, c.HintedHandoff.Dir = "", "", "", ""
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
		if warnings, err = c.decode(plain(text)); err != nil {
			return nil, fmt.Errorf("config %s: %w", path, err)
		}
	}
	more, err := c.applyEnv(env)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	c.settleAddresses(&defaults)
	if c.HintedHandoff.Dir == "" && c.Data.Dir != "" {
		c.HintedHandoff.Dir = filepath.Join(c.Data.Dir, "hh")
	}
	return append(warnings, more...), c.validate()
}

// decode applies one TOML text.
func (c *Config) decode(text string) (warnings []string, err error) {
	old := struct {
		Cluster *Coordinator `toml:"cluster"` // 0.10's name of [coordinator]
		*Config
	}{Cluster: &c.Coordinator, Config: c}
	md, err := toml.Decode(text, &old)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return nil, errors.New(strings.TrimSpace(pe.ErrorWithPosition()))
		}
		return nil, err
	}
	seen := map[string]bool{}
	for _, key := range md.Undecoded() {
		name := strings.Join(key, ".")
		if name == "" || seen[name] || isSection(key) {
			continue
		}
		seen[name] = true
		reason, ok := ignored(name)
		if !ok {
			return nil, unknownKey(name, text)
		}
		warnings = append(warnings, fmt.Sprintf("%s has no effect: %s", name, reason))
	}
	return warnings, nil
}

// plain returns the text of a file without the marks that some editors begin
// one with; UTF-16 becomes UTF-8.
func plain(file []byte) string {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(file, []byte("\xff\xfe")):
		order = binary.LittleEndian
	case bytes.HasPrefix(file, []byte("\xfe\xff")):
		order = binary.BigEndian
	default:
		return string(bytes.TrimPrefix(file, []byte("\xef\xbb\xbf")))
	}
	var units []uint16
	for i := 2; i+1 < len(file); i += 2 {
		units = append(units, order.Uint16(file[i:]))
	}
	return string(utf16.Decode(units))
}

// isSection reports whether key is the header of a section of which only keys count.
func isSection(key toml.Key) bool {
	_, ok := ignoredSections[key[0]]
	return ok && len(key) == 1
}

// unknownKey says where the key stands and which one is nearest to it.
func unknownKey(name, text string) error {
	section, _, _ := strings.Cut(name, ".")
	if line, header := lineOf(section, text); header && !slices.Contains(sections(), section) {
		return fmt.Errorf("line %d: unknown section %q; did you mean %q?", line, section, nearest(section, sections()))
	}
	line, _ := lineOf(name, text)
	return fmt.Errorf("line %d: unknown key %q; did you mean %q?", line, name, nearestKey(name))
}

// lineOf returns the number of the line on which section.key, or the header of
// a section, stands; 0 if it is not found.
func lineOf(name, text string) (line int, header bool) {
	section := ""
	for i, l := range strings.Split(text, "\n") {
		l = strings.TrimSpace(l)
		key, _, _ := strings.Cut(l, "=")
		key = strings.Trim(strings.TrimSpace(key), `"'`)
		if strings.HasPrefix(l, "[") {
			header, _, _ := strings.Cut(strings.TrimLeft(l, "["), "]")
			section = strings.Trim(strings.TrimSpace(header), `"'`)
			key = ""
		}
		if strings.Trim(section+"."+key, ".") == name {
			return i + 1, key == ""
		}
	}
	return 0, false
}

func (c *Config) validate() error {
	switch {
	case !c.Meta.Enabled && !c.Data.Enabled:
		return errors.New("config: either Meta, Data, or both must be enabled")
	case c.Meta.Dir == "":
		return errors.New("config: meta.dir must be specified")
	case c.Data.Dir == "" || c.Data.WALDir == "":
		return errors.New("config: data.dir and data.wal-dir must be specified")
	case c.HintedHandoff.Enabled && c.HintedHandoff.MaxSize < 1<<20:
		return fmt.Errorf("config: hinted-handoff.max-size %s: want 1m or more", c.HintedHandoff.MaxSize)
	case c.HintedHandoff.RetryInterval <= 0 || c.HintedHandoff.RetryMaxInterval < c.HintedHandoff.RetryInterval:
		return errors.New("config: hinted-handoff.retry-interval must be positive, and retry-max-interval no less")
	case c.Data.CacheSnapshotMemory <= 0:
		return errors.New("config: data.cache-snapshot-memory-size must be positive")
	case c.HTTP.HTTPS && c.HTTP.Certificate == "":
		return errors.New("config: http.https-enabled wants http.https-certificate")
	}
	if err := c.validateCluster(); err != nil {
		return err
	}
	switch c.Logging.Format {
	case "auto", "text", "json", "logfmt", "console":
	default:
		return fmt.Errorf("config: logging.format %q: use auto, text or json", c.Logging.Format)
	}
	switch c.Logging.Level {
	case "debug", "info", "warn", "error":
	default:
		return fmt.Errorf("config: logging.level %q: use debug, info, warn or error", c.Logging.Level)
	}
	return nil
}

// Print writes c as TOML with a comment for each key; it can be loaded again.
func (c *Config) Print(w io.Writer) error {
	var b bytes.Buffer
	section := ""
	for _, k := range c.keys() {
		if k.section != section {
			section = k.section
			fmt.Fprintf(&b, "\n[%s]\n", section)
		}
		fmt.Fprintf(&b, "  # %s\n  %s = %s\n", k.doc, k.name, k.text())
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Duration is a time.Duration written as in Go, such as "10s".
type Duration time.Duration

// UnmarshalText parses 10s, 1h30m; a bare 0 is zero.
func (d *Duration) UnmarshalText(b []byte) error {
	if s := string(b); s != "0" {
		v, err := time.ParseDuration(s)
		if err != nil || v < 0 {
			return fmt.Errorf("%q is not a duration such as 10s or 24h", s)
		}
		*d = Duration(v)
		return nil
	}
	*d = 0
	return nil
}

func (d Duration) String() string { return time.Duration(d).String() }

// Size is a number of bytes, written plain or with k, m or g for powers of 1024.
type Size int64

// UnmarshalText parses 25000000, 64m, 1g.
func (s *Size) UnmarshalText(b []byte) error {
	text := strings.ToLower(string(b))
	unit := int64(1)
	if n := len(text); n > 0 && unicode.IsLetter(rune(text[n-1])) {
		switch text[n-1] {
		case 'k':
			unit = 1 << 10
		case 'm':
			unit = 1 << 20
		case 'g':
			unit = 1 << 30
		default:
			return fmt.Errorf("%q is not a size such as 64m or 1g", text)
		}
		text = text[:n-1]
	}
	v, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || v < 0 || v > (1<<62)/unit {
		return fmt.Errorf("%q is not a size such as 64m or 1g", b)
	}
	*s = Size(v * unit)
	return nil
}

func (s Size) String() string {
	switch {
	case s != 0 && s%(1<<30) == 0:
		return strconv.FormatInt(int64(s>>30), 10) + "g"
	case s != 0 && s%(1<<20) == 0:
		return strconv.FormatInt(int64(s>>20), 10) + "m"
	}
	return strconv.FormatInt(int64(s), 10)
}
