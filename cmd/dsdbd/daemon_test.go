package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests run dsdbd as a process of its own: this test binary, told by its
// environment to be dsdbd.
const beDaemon = "DSDBD_TEST_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(beDaemon) != "" {
		main()
	}
	os.Exit(m.Run())
}

func command(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append([]string{beDaemon + "=1", "PATH=" + os.Getenv("PATH")}, env...)
	return cmd
}

// dsdbd runs a command that ends by itself.
func dsdbd(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := command(env, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// daemon is a running dsdbd.
type daemon struct {
	t    *testing.T
	cmd  *exec.Cmd
	base string // URL
	log  chan []byte
}

// start starts dsdbd without any argument, its home in the folder home, and
// waits until it says that it is ready.
func start(t *testing.T, home string, env ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, log: make(chan []byte, 1)}
	d.cmd = command(append(env, "HOME="+home, "DSDB_HTTP_BIND_ADDRESS=127.0.0.1:0"))
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.cmd.Process.Kill() })
	r := bufio.NewReader(stderr)
	for d.base == "" {
		line, err := r.ReadBytes('\n')
		if err != nil {
			t.Fatalf("dsdbd ended before it was ready: %s", line)
		}
		var entry struct{ Msg, HTTP string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "dsdbd is ready" {
			d.base = "http://" + entry.HTTP
		}
	}
	go func() {
		rest, _ := io.ReadAll(r)
		d.log <- rest
	}()
	return d
}

// stop sends a signal and returns what dsdbd logged from then on.
func (d *daemon) stop(sig os.Signal) string {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.t.Fatal(err)
	}
	rest := string(<-d.log)
	if err := d.cmd.Wait(); err != nil {
		d.t.Fatalf("dsdbd: %v\n%s", err, rest)
	}
	return rest
}

func (d *daemon) write(db, lines string) {
	d.t.Helper()
	resp, err := http.Post(d.base+"/write?db="+db, "", strings.NewReader(lines))
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		body, _ := io.ReadAll(resp.Body)
		d.t.Fatalf("write: %s %s", resp.Status, body)
	}
}

// series is one series of the answer to a query.
type series struct {
	Name    string
	Tags    map[string]string
	Columns []string
	Values  [][]any
}

func (d *daemon) query(db, q string) []series {
	d.t.Helper()
	resp, err := http.PostForm(d.base+"/query", url.Values{"db": {db}, "q": {q}, "epoch": {"ns"}})
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc struct {
		Results []struct {
			Series []series
			Error  string
		}
	}
	dec := json.NewDecoder(resp.Body)
	dec.UseNumber()
	if err := dec.Decode(&doc); err != nil || len(doc.Results) != 1 || doc.Results[0].Error != "" {
		d.t.Fatalf("%s: %v %+v", q, err, doc)
	}
	return doc.Results[0].Series
}

// Without a word of configuration the daemon serves, keeps what it was given
// in ~/.dsdb, and ends with 0 when told to.
func TestDaemonStartsServesAndStops(t *testing.T) {
	home := t.TempDir()
	d := start(t, home)
	d.query("", "CREATE DATABASE db")
	d.write("db", "cpu,host=a usage=1.5 1000000000")
	if log := d.stop(syscall.SIGTERM); !strings.Contains(log, `"msg":"stopped"`) {
		t.Errorf("log of the end: %s", log)
	}
	d = start(t, home)
	got := d.query("db", "SELECT usage FROM cpu")
	if len(got) != 1 || len(got[0].Values) != 1 || got[0].Values[0][1] != json.Number("1.5") {
		t.Errorf("after a restart: %v", got)
	}
	for _, dir := range []string{"meta", "data", "wal"} {
		if _, err := os.Stat(filepath.Join(home, ".dsdb", dir)); err != nil {
			t.Error(err)
		}
	}
	d.stop(os.Interrupt)
}

func TestSecondDaemonIsRefused(t *testing.T) {
	home := t.TempDir()
	d := start(t, home)
	code, _, stderr := dsdbd(t, []string{"HOME=" + home, "DSDB_HTTP_BIND_ADDRESS=127.0.0.1:0"})
	if code != 1 || !strings.Contains(stderr, "in use by another dsdbd") {
		t.Errorf("same folders: %d %s", code, stderr)
	}
	pidfile := filepath.Join(t.TempDir(), "pid")
	if err := os.WriteFile(pidfile, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	dsdbd(t, []string{"HOME=" + home, "DSDB_HTTP_BIND_ADDRESS=127.0.0.1:0"}, "-pidfile", pidfile)
	if b, err := os.ReadFile(pidfile); string(b) != "1" {
		t.Errorf("the pidfile of the first daemon: %q %v", b, err)
	}
	code, _, stderr = dsdbd(t, []string{"HOME=" + t.TempDir(), "DSDB_HTTP_BIND_ADDRESS=" + strings.TrimPrefix(d.base, "http://")})
	if code != 1 || !strings.Contains(stderr, "another server has the address: set [http] bind-address") {
		t.Errorf("same address: %d %s", code, stderr)
	}
	d.stop(syscall.SIGTERM)
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	unknown := file("unknown.conf", "[http]\n  enabled = true\n  bind-adress = \":1\"\n")
	ours := file("ours.conf", "[http]\n  bind-address = \"127.0.0.1:1\"\n[admin]\n  enabled = true\n")
	for _, c := range []struct {
		args           string
		code           int
		stdout, stderr string // what is in them; "": nothing at all
	}{
		{"-h", 0, "dsdbd inspect wal FILE", ""},
		{"help", 0, "dsdbd inspect wal FILE", ""},
		{"run -h", 0, "-config FILE", ""},
		{"config -help", 0, "-config FILE", ""},
		{"inspect -h", 0, "-arrow OUT FILE", ""},
		{"inspect segment -h", 0, "-arrow OUT FILE", ""},
		{"version", 0, "DSDB ", ""},
		{"-version", 0, "DSDB ", ""},
		{"config", 0, `bind-address = "127.0.0.1:8086"`, ""},
		{"config -config " + ours, 0, `bind-address = "127.0.0.1:1"`, "warning: admin.enabled has no effect"},
		{"config -config " + unknown, 1, "", `unknown.conf: line 3: unknown key "http.bind-adress"; did you mean "http.bind-address"?`},
		{"-config " + unknown, 1, "", `line 3: unknown key "http.bind-adress"`},
		{"run -config " + dir + "/none.conf", 1, "", "none.conf: no such file"},
		{"rum", 2, "", `unknown command "rum"`},
		{"-confg x", 2, "", "flag provided but not defined: -confg"},
		{"run x", 2, "", `unexpected argument "x"`},
		{"inspect", 2, "", "dsdbd inspect wal FILE"},
		{"inspect seg x", 2, "", `unknown kind of file "seg"`},
		{"inspect wal", 2, "", "want one FILE, got 0"},
		{"inspect wal -arrow a b", 2, "", "-arrow"},
		{"inspect wal " + dir + "/none", 1, "", "no such file"},
		{"inspect segment " + ours, 1, "", "ours.conf"},
	} {
		code, stdout, stderr := dsdbd(t, []string{"HOME=" + dir}, strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("dsdbd %s: exit code %d, want %d", c.args, code, c.code)
		}
		for _, s := range []struct{ name, got, want string }{{"stdout", stdout, c.stdout}, {"stderr", stderr, c.stderr}} {
			if !strings.Contains(s.got, s.want) || s.want == "" && s.got != "" {
				t.Errorf("dsdbd %s: %s is %q, want %q", c.args, s.name, s.got, s.want)
			}
		}
	}
}

// A second signal does not wait for anything: here for a client that never sends the body it announced.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	d := start(t, t.TempDir())
	d.query("", "CREATE DATABASE db")
	conn, err := net.Dial("tcp", strings.TrimPrefix(d.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /write?db=db HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(line, "100 Continue") {
		t.Fatal(line, err)
	}
	began := time.Now()
	for waited := false; !waited; {
		if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			break // it has ended
		}
		select {
		case <-d.log:
			waited = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	if err := d.cmd.Wait(); err == nil {
		t.Error("dsdbd cut a request off and said nothing of it in its exit code")
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
}
