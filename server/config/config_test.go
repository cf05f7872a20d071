package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func load(t *testing.T, text string, env ...string) (Config, []string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dsdb.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Default("/d")
	warnings, err := c.Load(path, env)
	return c, warnings, err
}

func TestKeysOfTheFileAndTheEnvironmentAct(t *testing.T) {
	c, warnings, err := load(t, `
[cluster]
  write-timeout = "3s"
[data]
  cache-snapshot-memory-size = "25m"
  cache-max-memory-size = 1000000
[http]
  bind-address = ":9999"
`, "DSDB_HTTP_BIND_ADDRESS=127.0.0.1:1234", "INFLUXDB_HTTP_BIND_ADDRESS=1.2.3.4:5", "INFLUXDB_COORDINATOR_QUERY_TIMEOUT=1m", "DSDB_DATA_DIR=")
	if err != nil || len(warnings) != 0 {
		t.Fatal(warnings, err)
	}
	if c.Coordinator.WriteTimeout != Duration(3*time.Second) || c.Data.CacheSnapshotMemory != 25<<20 || c.Data.CacheMaxMemory != 1000000 {
		t.Errorf("file: %+v %+v", c.Coordinator, c.Data)
	}
	if c.HTTP.BindAddress != "127.0.0.1:1234" || c.Coordinator.QueryTimeout != Duration(time.Minute) || c.Data.Dir != "/d/data" {
		t.Errorf("environment: %q %v %q", c.HTTP.BindAddress, c.Coordinator.QueryTimeout, c.Data.Dir)
	}
}

// The keys of InfluxDB's own files load; those that do nothing say so, once each.
func TestKnownKeysWithoutEffectWarn(t *testing.T) {
	_, warnings, err := load(t, `
reporting-disabled = true
bind-address = "localhost:8088"
[meta]
  dir = "/m"
  election-timeout = "1s"
[hinted-handoff]
  purge-interval = "1h"
[monitor]
  store-enabled = false
[[graphite]]
  enabled = false
  templates = ["a b", "c"]
[[udp]]
  enabled = false
[[udp]]
  enabled = false
[continuous_queries]
  log-enabled = true
`, "DSDB_ADMIN_ENABLED=false")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(warnings, "\n")
	for _, want := range []string{"reporting-disabled", "meta.election-timeout", "hinted-handoff.purge-interval", "monitor.store-enabled",
		"graphite.templates", "udp.enabled", "continuous_queries.log-enabled", "DSDB_ADMIN_ENABLED"} {
		if n := strings.Count(got, want+" has no effect"); n != 1 {
			t.Errorf("%s: %d warnings, want 1", want, n)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"[http]\n  bind-adress = \":1\"\n", `line 2: unknown key "http.bind-adress"; did you mean "http.bind-address"?`},
		{"[htp]\n  enabled = true\n", `line 1: unknown section "htp"; did you mean "http"?`},
		{"[data]\n  enabled = true\n[meta]\n  wal-dir = \"x\"\n", `line 4: unknown key "meta.wal-dir"; did you mean "data.wal-dir"?`},
		{"[[udp]]\n  enabled = true\n  bind-adress = \":1\"\n", `line 3: unknown key "udp.bind-adress"; did you mean "udp.bind-address"?`},
		{"wal-dir = 1\n", `line 1: unknown key "wal-dir"; did you mean "data.wal-dir"?`},
		{"[data]\n  cache-snapshot-memory-size = \"12x\"\n", `"12x" is not a size such as 64m or 1g`},
		{"[coordinator]\n  write-timeout = \"soon\"\n", `"soon" is not a duration such as 10s or 24h`},
		{"[logging]\n  level = \"loud\"\n", `logging.level "loud": use debug, info, warn or error`},
		{"[http\n", "to end table name"},
		{"[hinted-handoff]\n  max-size = 100\n", "hinted-handoff.max-size 100: want 1m or more"},
		{"[hinted-handoff]\n  retry-interval = \"2m\"\n", "retry-max-interval no less"},
	} {
		if _, _, err := load(t, c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %s", c.text, err, c.want)
		}
	}
	if _, _, err := load(t, "", "DSDB_HTTP_LOG_ENABLED=perhaps"); err == nil || !strings.Contains(err.Error(), "DSDB_HTTP_LOG_ENABLED") {
		t.Errorf("environment: %v", err)
	}
}

// Hints of nodes whose folders are apart are apart, too.
func TestFolderOfHints(t *testing.T) {
	for text, want := range map[string]string{
		"": filepath.Join(Default("/d").Data.Dir, "hh"), "[data]\n  dir = \"/mnt/1\"\n": "/mnt/1/hh",
		"[data]\n  dir = \"/mnt/1\"\n[hinted-handoff]\n  dir = \"/hh\"\n": "/hh",
	} {
		if c, _, err := load(t, text); err != nil || c.HintedHandoff.Dir != want {
			t.Errorf("%q: %s, want %s; %v", text, c.HintedHandoff.Dir, want, err)
		}
	}
}

func TestPrintedConfigLoadsAgain(t *testing.T) {
	c := Default("/x y")
	c.HTTP.BindAddress = "0.0.0.0:8086"
	var b bytes.Buffer
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	back, warnings, err := load(t, b.String())
	if err != nil || len(warnings) > 0 || back != c {
		t.Fatalf("%v %v\n%+v\n%+v\n%s", err, warnings, back, c, b.String())
	}
}

// Authentication is off unless asked for; what InfluxDB has beside it warns.
func TestAuthenticationKeys(t *testing.T) {
	if c := Default("/d"); c.HTTP.AuthEnabled || c.HTTP.SharedSecret != "" {
		t.Errorf("default: %+v", c.HTTP)
	}
	c, warnings, err := load(t, "[http]\n  auth-enabled = true\n  shared-secret = \"s\"\n  realm = \"InfluxDB\"\n  pprof-auth-enabled = true\n")
	if err != nil || !c.HTTP.AuthEnabled || c.HTTP.SharedSecret != "s" || len(warnings) != 2 {
		t.Errorf("file: %+v %v %v", c.HTTP, warnings, err)
	}
	c, warnings, err = load(t, "", "DSDB_HTTP_AUTH_ENABLED=true", "INFLUXDB_HTTP_SHARED_SECRET=s")
	if err != nil || !c.HTTP.AuthEnabled || c.HTTP.SharedSecret != "s" || len(warnings) != 0 {
		t.Errorf("environment: %+v %v %v", c.HTTP, warnings, err)
	}
}
