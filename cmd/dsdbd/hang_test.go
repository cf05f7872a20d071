package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// get returns the body of an answer, before it the status unless that is 200.
func (d *daemon) get(path string, params url.Values) string {
	d.t.Helper()
	resp, err := http.Get(d.base + path + "?" + params.Encode())
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprint(resp.StatusCode, " ", string(body))
	}
	return string(body)
}

// until waits until an answer of the daemon has certain words, so many times.
func (d *daemon) until(words string, times int, path string, params url.Values) {
	d.t.Helper()
	got := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got = d.get(path, params); strings.Count(got, words) == times {
			return
		}
	}
	d.t.Fatalf("%s %v: %s, want %q", path, params, got, words)
}

// freePort returns an address on which nobody listens, below the ports that Linux
// gives to connections: one of those could take it before it is listened at.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 32000+rand.IntN(768))); err == nil && !slices.Contains(given, l.Addr().String()) {
			l.Close()
			given = append(given, l.Addr().String())
			return l.Addr().String()
		} else if err == nil {
			l.Close()
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// given are the addresses that freePort has returned.
var given []string

// Processes that are stopped keep their connections, as does a machine that hangs.
// A node that is left alone by them says so instead of taking requests for which
// it needs them, names them, and does not let anybody wait for long.
func TestMostNodesHang(t *testing.T) {
	var nodes []*daemon
	join, tcp := freePort(t), []string{freePort(t), freePort(t), freePort(t)}
	for i, addr := range tcp {
		env := []string{"DSDB_META_BIND_ADDRESS=" + addr, "DSDB_META_HTTP_BIND_ADDRESS=" + freePort(t), "DSDB_META_JOIN=" + join}
		if i == 0 {
			env = []string{"DSDB_META_BIND_ADDRESS=" + addr, "DSDB_META_HTTP_BIND_ADDRESS=" + join}
		}
		nodes = append(nodes, start(t, t.TempDir(), env...))
	}
	alone := nodes[0]
	alone.query("", "CREATE DATABASE db WITH REPLICATION 3")
	alone.write("db", "m v=1 1")
	alone.until(`"voter"`, 2, "/query", url.Values{"q": {"SHOW CLUSTER"}})
	for _, d := range nodes[1:] {
		if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}

	const lack = "no quorum: 1/3 meta nodes reachable"
	alone.until("503 {\"error\":\""+lack+", and 1/3 data nodes", 1, "/ready", nil)
	for _, c := range []struct{ q, level, words string }{
		{"SELECT v FROM m", "linearizable", lack},
		{"SELECT v FROM m", "leader", "has no majority of its replicas without node 4 (" + tcp[1] + ") and node 6 (" + tcp[2] + "): bring them back"},
		{"CREATE DATABASE other", "", lack},
		{"SELECT v FROM m", "stale", `"values":[[1,1]]`},
	} {
		took := time.Hour
		for end := time.Now().Add(time.Minute); took > 5*time.Second && time.Now().Before(end); { // a busy machine may take longer once
			began := time.Now()
			got := alone.get("/query", url.Values{"db": {"db"}, "q": {c.q}, "read_consistency": {c.level}, "epoch": {"ns"}})
			took = time.Since(began)
			t.Log(c.q, c.level, took.Round(time.Millisecond), got)
			if !strings.Contains(got, c.words) || strings.Contains(got, "lead") || strings.Contains(got, "canceled") {
				t.Errorf("%s at %s: %s", c.q, c.level, got)
			}
		}
		if took > 5*time.Second {
			t.Errorf("%s at %s took %v", c.q, c.level, took)
		}
	}

	for _, d := range nodes[1:] {
		if err := d.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	alone.until(`"status":"ready"`, 1, "/ready", nil)
	alone.until(`"values":[[1,1]]`, 1, "/query", url.Values{"db": {"db"}, "q": {"SELECT v FROM m"}, "epoch": {"ns"}})
}
