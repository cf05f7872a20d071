package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// The flags of a node of a cluster set what the configuration would, and are stronger.
func TestFlagsOfAClusterNode(t *testing.T) {
	code, out, errOut := dsdbd(t, []string{"HOME=/nowhere", "DSDB_META_JOIN=x:1"}, "config", "-join", "influx1:8091,influx3", "--hostname", "influx2")
	if code != 0 {
		t.Fatalf("code %d, %s", code, errOut)
	}
	for _, want := range []string{`join = "influx1:8091,influx3"`, `hostname = "influx2"`, `bind-address = "influx2:8086"`,
		`bind-address = "influx2:8088"`, `http-bind-address = "influx2:8091"`} {
		if !strings.Contains(out, "  "+want+"\n") {
			t.Errorf("%s is not in\n%s", want, out)
		}
	}
	if code, _, errOut := dsdbd(t, []string{"HOME=/nowhere"}, "config", "-join", "http://influx1:8091"); code != 1 || !strings.Contains(errOut, "want host:port") {
		t.Errorf("code %d, %s", code, errOut)
	}
}

// Without a home the data goes to the working directory, which is told, unless the
// configuration says where it goes.
func TestNoHomeIsTold(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	want := "the data is in the working directory, in " + filepath.Join(wd, ".dsdb")
	if code, _, errOut := dsdbd(t, []string{"HOME="}, "config"); code != 0 || !strings.Contains(errOut, want) {
		t.Errorf("code %d, %s", code, errOut)
	}
	if code, _, errOut := dsdbd(t, []string{"HOME=", "DSDB_DATA_DIR=/nowhere"}, "config"); code != 0 || strings.Contains(errOut, "working directory") {
		t.Errorf("code %d, %s", code, errOut)
	}
}

// A node that finds no cluster says so, and ends cleanly when it is told to.
func TestDaemonThatWaitsEndsCleanly(t *testing.T) {
	home := t.TempDir()
	pidfile := filepath.Join(home, "pid")
	cmd := command([]string{"HOME=" + home, "DSDB_HTTP_BIND_ADDRESS=127.0.0.1:0", "DSDB_META_BIND_ADDRESS=127.0.0.1:0", "DSDB_META_HTTP_BIND_ADDRESS=127.0.0.1:0"},
		"-join", "127.0.0.1:1", "-pidfile", pidfile)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	r := bufio.NewReader(stderr)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("dsdbd ended: %s", line)
		}
		if strings.Contains(line, "waiting for a node of the cluster to admit this one (127.0.0.1:1: ") {
			break
		}
	}
	if _, err := os.Stat(pidfile); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(r)
	if err := cmd.Wait(); err != nil || !strings.Contains(string(rest), "stopped before it was ready") {
		t.Errorf("%v\n%s", err, rest)
	}
	if _, err := os.Stat(pidfile); !os.IsNotExist(err) {
		t.Errorf("the pidfile is still there: %v", err)
	}
}

// A daemon that only took part in decisions stores points from the start on at
// which its configuration says so, under an id of its own in that role.
func TestRolesOfADaemonChange(t *testing.T) {
	home := t.TempDir()
	ports := []string{"DSDB_META_BIND_ADDRESS=127.0.0.1:0", "DSDB_META_HTTP_BIND_ADDRESS=127.0.0.1:0"}
	nodes := func(d *daemon) (names []string) {
		for _, s := range d.query("", "SHOW SERVERS") {
			for _, row := range s.Values {
				names = append(names, fmt.Sprint(s.Name, " ", row[0]))
			}
		}
		return names
	}
	d := start(t, home, append(ports, "DSDB_DATA_ENABLED=false")...)
	if got := nodes(d); !slices.Equal(got, []string{"meta_nodes 1"}) {
		t.Errorf("without the data role: %q", got)
	}
	d.query("", "CREATE DATABASE db")
	d.stop(syscall.SIGTERM)
	for range 2 {
		d = start(t, home, ports...)
		if got := nodes(d); !slices.Equal(got, []string{"data_nodes 2", "meta_nodes 1"}) {
			t.Errorf("with it: %q", got)
		}
		d.write("db", "cpu v=1 1")
		d.stop(syscall.SIGTERM)
	}
}
