//go:build packages

package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// machines makes hosts influx1, influx2, … whose names resolve as Debian has
// it: one's own to 127.0.1.1, those of the others to their addresses.
func machines(t *testing.T, count int) []*Host {
	t.Helper()
	if err := Available(); err != nil {
		t.Fatal(err)
	}
	n, err := NewNetwork(fmt.Sprintf("dsdb%d", os.Getpid()), count)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	var hosts []*Host
	for i := 1; i <= count; i++ {
		text := fmt.Sprintf("127.0.0.1 localhost\n127.0.1.1 influx%d\n10.77.250.2 deadhost\n", i)
		for k := 1; k <= count; k++ {
			if k != i {
				text += fmt.Sprintf("%s influx%d\n", n.Addr(k), k)
			}
		}
		h, err := NewHost(n, i, fmt.Sprintf("influx%d", i), filepath.Join(t.TempDir(), "host"), text)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() {
				log, _ := h.Run("tail -n 20 /var/log/dsdb/dsdb.log")
				t.Logf("%s:\n%s", h.Name, log)
			}
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
		hosts = append(hosts, h)
	}
	return hosts
}

// must runs a script on a host.
func must(t *testing.T, h *Host, script string) string {
	t.Helper()
	out, err := h.Run(script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// prepare puts the package onto a host.
func prepare(t *testing.T, h *Host) {
	t.Helper()
	if err := h.Copy(built(t, "deb"), "/tmp/dsdb.deb"); err != nil {
		t.Fatal(err)
	}
	blank(t, h)
}

// blank makes a host like one that is new: without what keeps services from being
// stopped in containers, and without what the machine below may have installed.
func blank(t *testing.T, h *Host) {
	t.Helper()
	must(t, h, "rm -f /usr/sbin/policy-rc.d")
	must(t, h, "for p in influxdb influxdb-client; do if dpkg -s $p >/dev/null 2>&1; then dpkg -r $p; fi; done")
}

func install(t *testing.T, h *Host) {
	t.Helper()
	prepare(t, h)
	must(t, h, "dpkg -i /tmp/dsdb.deb")
}

// set replaces a key of a section, as a user does with an editor.
func set(t *testing.T, h *Host, section, key, value string) {
	t.Helper()
	must(t, h, fmt.Sprintf(`sed -i '/^\[%s\]/,/^\[/ s|^  \(# \)\?%s = .*|  %s = "%s"|' /etc/dsdb/dsdb.conf && grep -q '^  %s = "%s"' /etc/dsdb/dsdb.conf`,
		section, key, key, value, key, value))
}

// TestGuides plays both clustering guides, word for word, on hosts of their own.
func TestGuides(t *testing.T) {
	for _, g := range []struct {
		name string
		port int // of [http] bind-address in step 2
	}{{"DSDB", 8088}, {"InfluxDB", 8086}} {
		t.Run(g.name, func(t *testing.T) { playGuide(t, g.port) })
	}
}

func playGuide(t *testing.T, port int) {
	hosts := machines(t, 5)
	for _, h := range hosts { // step 1 and 2
		install(t, h)
		set(t, h, "meta", "bind-address", h.Name+":8088")
		set(t, h, "meta", "http-bind-address", h.Name+":8091")
		set(t, h, "http", "bind-address", fmt.Sprintf("%s:%d", h.Name, port))
	}
	must(t, hosts[0], "service dsdb start") // step 3
	for _, h := range hosts[1:3] {          // step 4 and 5
		must(t, h, `echo 'INFLUXD_OPTS="-join influx1:8091"' > /etc/default/dsdb`)
		must(t, h, "service dsdb start")
	}
	checkServers(t, hosts[:3], port, 3, 3)

	// Adding more nodes: one is a meta node only, the other a data node only.
	for i, role := range []string{"data", "meta"} {
		h := hosts[3+i]
		set(t, h, role, "enabled", "x")
		must(t, h, `sed -i 's|^  enabled = "x"|  enabled = false|' /etc/dsdb/dsdb.conf`)
		must(t, h, `echo 'INFLUXD_OPTS="-join deadhost:8091,influx3:8091"' > /etc/default/dsdb`)
		must(t, h, "service dsdb start")
	}
	checkServers(t, hosts, port, 4, 4)
	for i, h := range hosts {
		must(t, h, fmt.Sprintf(`influx -execute 'CREATE DATABASE db%d'`, i))
		must(t, h, fmt.Sprintf(`influx -database db%d -execute 'INSERT m,host=%s v=1'`, i, h.Name))
	}
	for _, h := range hosts {
		for i := range hosts {
			if out := must(t, h, fmt.Sprintf(`influx -database db%d -execute 'SELECT count(v) FROM m' -format csv`, i)); !strings.Contains(out, ",1") {
				t.Errorf("%s does not see the point in db%d: %s", h.Name, i, out)
			}
		}
	}
	for _, h := range hosts {
		must(t, h, "service dsdb restart")
	}
	checkServers(t, hosts, port, 4, 4)
	for _, h := range hosts {
		if out := must(t, h, "service dsdb status"); !strings.Contains(out, "is running") {
			t.Errorf("%s: %s", h.Name, out)
		}
	}
}

// checkServers asks every host SHOW SERVERS until all answer the same, with so
// many data and meta nodes, as the guides print it.
func checkServers(t *testing.T, hosts []*Host, port, data, meta int) {
	t.Helper()
	row := func(p int) string { return fmt.Sprintf(`\d+\tinflux\d:%d\tinflux\d:8088\n`, p) }
	want := regexp.MustCompile(fmt.Sprintf(`^name: data_nodes\n-+\nid\thttp_addr\ttcp_addr\n(?:%s){%d}\n+name: meta_nodes\n-+\nid\thttp_addr\ttcp_addr\n(?:%s){%d}\n*$`,
		row(port), data, row(8091), meta))
	deadline := time.Now().Add(60 * time.Second)
	for {
		answers := map[string][]string{}
		for _, h := range hosts {
			out, err := h.Run(`influx -execute 'SHOW SERVERS'`)
			if err != nil {
				out = err.Error()
			}
			answers[out] = append(answers[out], h.Name)
		}
		for out := range answers {
			if len(answers) == 1 && want.MatchString(out) {
				t.Logf("on %d hosts:\n%s", len(hosts), out)
				return
			}
		}
		if time.Now().After(deadline) {
			for out, names := range answers {
				t.Errorf("%v answer:\n%s", names, out)
			}
			t.FailNow()
		}
		time.Sleep(300 * time.Millisecond)
	}
}
