package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A bit flips in the middle of the log of a node that was killed: it does not start,
// and says what helps; that tells what is lost, and does it if told so.
func TestRecoverFromDamagedLog(t *testing.T) {
	home := t.TempDir()
	env := []string{"HOME=" + home, "DSDB_HTTP_BIND_ADDRESS=127.0.0.1:0"}
	d := start(t, home)
	d.query("", "CREATE DATABASE db")
	for _, line := range []string{"m v=1 1", "m v=2 2", "m v=3,text=\"flipped\" 3", "m v=4 4"} {
		d.write("db", line)
	}
	if err := d.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-d.log
	_ = d.cmd.Wait() // it was killed

	if code, stdout, stderr := dsdbd(t, env, "recover"); code != 0 || !strings.Contains(stdout, "nothing is lost with the log") {
		t.Errorf("nothing is damaged: %d %s%s", code, stdout, stderr)
	}
	file := filepath.Join(home, ".dsdb", "wal", "wal-0000000000000001.seg")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("flipped"))] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := dsdbd(t, env); code != 1 || !strings.Contains(stderr, "dsdbd recover tells what is lost") {
		t.Errorf("start: %d %s", code, stderr)
	}
	code, told, stderr := dsdbd(t, env, "recover")
	if code != 0 || !strings.Contains(told, `shard 1 (database "db", policy "autogen"`) || !strings.Contains(told, "nothing was changed") {
		t.Errorf("asked: %d %s%s", code, told, stderr)
	}
	if code, stdout, stderr := dsdbd(t, env, "recover", "-accept-loss"); code != 0 || !strings.Contains(stdout, "start dsdbd") {
		t.Fatalf("accepted: %d %s%s", code, stdout, stderr)
	}
	d = start(t, home)
	if got := d.query("db", "SELECT v FROM m"); len(got) != 1 || len(got[0].Values) != 2 {
		t.Errorf("of four points two lie before the damage: %v", got)
	}
	d.write("db", "m v=5 5")
	d.stop(syscall.SIGTERM)
	if code, _, stderr := dsdbd(t, env, "recover", "-accept-loss", "-without", "3"); code != 2 || !strings.Contains(stderr, "-accept-loss or -without") {
		t.Errorf("both: %d %s", code, stderr)
	}
}
