package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func machine() (string, error) { return "machine", nil }

// What SHOW SERVERS tells others follows from the addresses that are set.
func TestAdvertisedAddresses(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Addresses
	}{
		{"nothing set", "", Addresses{"127.0.0.1:8086", "127.0.0.1:8088", "127.0.0.1:8091"}},
		{"InfluxDB's guide", "[meta]\nbind-address = \"influx1:8088\"\nhttp-bind-address = \"influx1:8091\"\n[http]\nbind-address = \"influx1:8086\"\n",
			Addresses{"influx1:8086", "influx1:8088", "influx1:8091"}},
		{"DSDB's guide", "[meta]\nbind-address = \"influx1:8088\"\nhttp-bind-address = \"influx1:8091\"\n[http]\nbind-address = \"influx1:8088\"\n",
			Addresses{"influx1:8088", "influx1:8088", "influx1:8091"}},
		{"hostname alone", "hostname = \"n1\"\n", Addresses{"n1:8086", "n1:8088", "n1:8091"}},
		{"hostname and all addresses", "hostname = \"n1\"\nbind-address = \":7088\"\n[http]\nbind-address = \"0.0.0.0:7086\"\n",
			Addresses{"n1:7086", "n1:7088", "n1:8091"}},
		{"every address, no name", "[http]\nbind-address = \":8086\"\n[meta]\nbind-address = \"[::]:8088\"\n",
			Addresses{"machine:8086", "machine:8088", "127.0.0.1:8091"}},
		{"advertised apart", "hostname = \"n1\"\n[meta]\nadvertise-address = \"10.0.0.1\"\n[http]\nadvertise-address = \"lb:80\"\n",
			Addresses{"lb:80", "10.0.0.1:8088", "10.0.0.1:8091"}},
		{"advertised with port", "[meta]\nadvertise-address = \"10.0.0.1:18088\"\n", Addresses{"127.0.0.1:8086", "10.0.0.1:18088", "10.0.0.1:8091"}},
		{"version 6", "[meta]\nbind-address = \"[fd00::1]:8088\"\n", Addresses{"127.0.0.1:8086", "[fd00::1]:8088", "127.0.0.1:8091"}},
		{"no API", "[http]\nenabled = false\n", Addresses{"", "127.0.0.1:8088", "127.0.0.1:8091"}},
	} {
		conf, warnings, err := load(t, c.text)
		if err != nil || len(warnings) > 0 {
			t.Fatalf("%s: %v %v", c.name, err, warnings)
		}
		if got, err := conf.Advertised(machine); err != nil || got != c.want {
			t.Errorf("%s: %+v, error %v, want %+v", c.name, got, err, c.want)
		}
	}
	conf, _, err := load(t, "[http]\nbind-address = \":8086\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conf.Advertised(func() (string, error) { return "", errors.New("unnamed") }); err == nil || !strings.Contains(err.Error(), "set hostname") {
		t.Errorf("without a name: %v", err)
	}
}

func TestJoinLists(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                 nil,
		"influx1:8091":                     {"influx1:8091"},
		"influx1:8091, b:1 ,influx1:8091,": {"influx1:8091", "b:1"},
		"influx1,10.0.0.1,fd00::1":         {"influx1:8091", "10.0.0.1:8091", "[fd00::1]:8091"},
	} {
		m := Meta{Join: text}
		if got, err := m.Peers(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, error %v", text, got, err)
		}
	}
	for _, text := range []string{":8091", "http://a:8091", "a:8091,/"} {
		m := Meta{Join: text}
		if got, err := m.Peers(); err == nil {
			t.Errorf("%q: %q, no error", text, got)
		}
	}
	c, _, err := load(t, "join = \"a:1\"\n", "DSDB_META_JOIN=b:2")
	if got, err2 := c.Meta.Peers(); err != nil || err2 != nil || !slices.Equal(got, []string{"b:2"}) {
		t.Errorf("the strongest: %q %v %v", got, err, err2)
	}
}

func TestSharedSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(strings.Repeat("s", 40)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := load(t, "[meta]\nshared-secret-file = \""+file+"\"\n")
	if got, err2 := c.Meta.Secret(); err != nil || err2 != nil || string(got) != strings.Repeat("s", 40) {
		t.Errorf("%q %v %v", got, err, err2)
	}
	for text, want := range map[string]string{
		"shared-secret = \"short\"": "want 32 or more",
		"shared-secret-file = \"" + file + "\"\nshared-secret = \"" + strings.Repeat("x", 32) + "\"": "not both",
		"shared-secret-file = \"" + file + ".missing\"":                                              "no such file",
	} {
		if _, _, err := load(t, "[meta]\n"+text+"\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", text, err)
		}
	}
}

func TestClusterKeysAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		"[meta]\nenabled = false\n[data]\nenabled = false\n": "either Meta, Data, or both must be enabled",
		"[meta]\nbind-address = \"n1\"\n":                    "meta.bind-address \"n1\": want host:port",
		"[meta]\nmax-voters = 4\n":                           "odd",
		"[meta]\ndead-timeout = \"9s\"\n":                    "want 10s or more",
		"[meta]\nhttps-enabled = true\n":                     "https-certificate",
		"[meta]\nhttps-ca = \"/ca\"\n":                       "https-enabled",
		"hostname = \"n1:8086\"\n":                           "without port",
		"[meta]\njoin = \":8091\"\n":                         "want host:port",
		"[meta]\njoin = \"a:8091 b:8091\"\n":                 "separated by commas",
		"[meta]\njoin = \"a;b:8091\"\n":                      "separated by commas",
		"[meta]\njoin = \"a:\"\n":                            "want host:port",
		"[meta]\njoin = \"a:8091b:8091\"\n":                  "separated by commas",
		"[meta]\njoin = \"a:80910\"\n":                       "want host:port",
		"[meta]\nbind-address = \"a:1\"\n[http]\nbind-address = \"a:1\"\nhttps-enabled = true\nhttps-certificate = \"/c\"\n": "share a:1",
	} {
		if _, _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", text, err, want)
		}
	}
}
