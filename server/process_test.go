package server

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var (
	buildOnce sync.Once
	buildDir  string
	errBuild  error
)

// dsdbd returns the path of the daemon, which is built at first use.
func dsdbd(t *testing.T) string {
	buildOnce.Do(func() {
		if buildDir, errBuild = os.MkdirTemp("", "dsdbd-test"); errBuild != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", buildDir, "github.com/dasudian/dsdb/cmd/dsdbd").CombinedOutput()
		if err != nil {
			errBuild = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if errBuild != nil {
		t.Fatal(errBuild)
	}
	return filepath.Join(buildDir, "dsdbd")
}

// removeBuild removes what dsdbd built.
func removeBuild() {
	if buildDir != "" {
		os.RemoveAll(buildDir)
	}
}

// process is a running daemon.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	took time.Duration // until it was ready
	http *http.Client

	mu    sync.Mutex
	log   []string // its lines on standard error
	ended chan struct{}
}

// startDaemon starts a daemon on folders below dir and waits until it serves.
func startDaemon(t *testing.T, dir string) *process {
	t.Helper()
	p := launch(t, dir)
	began := time.Now()
	for p.url == "" {
		if time.Since(began) > *patience || p.hasEnded() {
			p.kill()
			t.Fatalf("the daemon does not get ready:\n%s", p.logged())
		}
		time.Sleep(time.Millisecond)
		p.url = p.address()
	}
	p.took = time.Since(began)
	return p
}

// launch starts a daemon and collects its log.
func launch(t *testing.T, dir string) *process {
	t.Helper()
	cmd := exec.Command(dsdbd(t), "run")
	cmd.Env = append(os.Environ(), "DSDB_META_DIR="+dir+"/meta", "DSDB_DATA_DIR="+dir+"/data", "DSDB_DATA_WAL_DIR="+dir+"/wal",
		"DSDB_HTTP_BIND_ADDRESS=127.0.0.1:0", "DSDB_LOGGING_LEVEL=debug", "DSDB_LOGGING_FORMAT=json",
		"DSDB_DATA_CACHE_SNAPSHOT_MEMORY_SIZE=64k", "DSDB_DATA_WAL_MAX_SIZE=16m", "DSDB_DATA_COMPACT_FULL_WRITE_COLD_DURATION=50ms",
		"DSDB_COORDINATOR_WRITE_TIMEOUT="+patience.String())
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, ended: make(chan struct{}), http: &http.Client{Transport: &http.Transport{}, Timeout: *patience}}
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.mu.Lock()
			p.log = append(p.log, lines.Text())
			p.mu.Unlock()
		}
		_ = cmd.Wait() // the test reads cmd.ProcessState
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "\n")
}

// address returns the URL that the daemon logs when it is ready, "" until then.
func (p *process) address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.log {
		var entry struct{ Msg, HTTP string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "dsdbd is ready" {
			return "http://" + entry.HTTP
		}
	}
	return ""
}

// kill ends the process at once, as kill -9 does. It may have ended already.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
	p.http.CloseIdleConnections()
}

// terminate asks the process to end and returns its exit code.
func (p *process) terminate() int {
	p.t.Helper()
	p.http.CloseIdleConnections()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(*patience):
		p.t.Fatalf("SIGTERM is ignored:\n%s", p.logged())
	}
	return p.cmd.ProcessState.ExitCode()
}

// write posts lines; nil means that they were acknowledged.
func (p *process) write(lines string) error {
	res, err := p.http.Post(p.url+"/write?db=db", "text/plain", strings.NewReader(lines))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusNoContent {
		err = errors.New(res.Status + ": " + string(body))
	}
	return err
}

func (p *process) query(text string) (series []struct {
	Tags   map[string]string
	Values [][]json.Number
}) {
	p.t.Helper()
	res, err := p.http.PostForm(p.url+"/query", url.Values{"db": {"db"}, "epoch": {"ns"}, "q": {text}})
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	var out struct {
		Error   string
		Results []struct {
			Error  string
			Series json.RawMessage
		}
	}
	dec := json.NewDecoder(res.Body)
	dec.UseNumber()
	if err := dec.Decode(&out); err != nil || len(out.Results) != 1 || out.Results[0].Error != "" {
		p.t.Fatalf("%s: %+v %v", text, out, err)
	}
	if raw := out.Results[0].Series; raw != nil {
		if err := json.Unmarshal(raw, &series); err != nil {
			p.t.Fatalf("%s: %v in %s", text, err, raw)
		}
	}
	return series
}

// sender writes numbers, one after another, and remembers which were acknowledged.
type sender struct {
	id    int
	sent  int64
	acked []int64
}

// send writes to p until stop, which is set before p is killed.
func (s *sender) send(p *process, stop *atomic.Bool) {
	for !stop.Load() {
		var lines strings.Builder
		first := s.sent + 1
		for range 1 + s.id*3 {
			s.sent++
			fmt.Fprintf(&lines, "m,sender=%d n=%di %d\n", s.id, s.sent, s.at(s.sent))
		}
		if err := p.write(lines.String()); err == nil {
			for n := first; n <= s.sent; n++ {
				s.acked = append(s.acked, n)
			}
		} else if !stop.Load() && !p.hasEnded() {
			p.t.Errorf("write: %v", err)
		}
	}
}

// at spreads the numbers over time groups.
func (s *sender) at(n int64) int64 { return n%40*day + n }

// check compares what the daemon has of the sender with what was acknowledged.
func (s *sender) check(p *process) {
	p.t.Helper()
	found := map[int64]bool{}
	for _, series := range p.query(fmt.Sprintf("SELECT n FROM m WHERE sender = '%d'", s.id)) {
		for _, row := range series.Values {
			at, _ := row[0].Int64()
			n, _ := row[1].Int64()
			if n < 1 || n > s.sent || at != s.at(n) || found[n] {
				p.t.Errorf("sender %d: %d at %d was never sent, or comes twice", s.id, n, at)
			}
			found[n] = true
		}
	}
	lost := 0
	for _, n := range s.acked {
		if !found[n] {
			lost++
		}
	}
	if lost > 0 {
		p.t.Errorf("sender %d: %d of %d acknowledged points are lost\n%s", s.id, lost, len(s.acked), p.logged())
	}
}

// A daemon is killed at random moments while several clients write: what it
// has acknowledged is there after each restart.
//
//	DSDB_KILLS=50  kill so often
func TestKilledDaemonKeepsWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kills := envInt("DSDB_KILLS", 5)
	p := startDaemon(t, dir)
	p.query("CREATE DATABASE db")
	senders := []*sender{{id: 0}, {id: 1}, {id: 7}}
	worst := time.Duration(0)
	for range kills {
		var stop atomic.Bool
		var all sync.WaitGroup
		for _, s := range senders {
			all.Go(func() { s.send(p, &stop) })
		}
		time.Sleep(time.Duration(20+rand.IntN(400)) * time.Millisecond)
		stop.Store(true)
		p.kill()
		all.Wait()
		p = startDaemon(t, dir)
		worst = max(worst, p.took)
		for _, s := range senders {
			s.check(p)
		}
	}
	total := 0
	for _, s := range senders {
		total += len(s.acked)
	}
	t.Logf("%d kills, %d points acknowledged, slowest start %v", kills, total, worst)
	if total == 0 {
		t.Error("nothing was ever acknowledged")
	}
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.logged())
	}
}

// SIGTERM ends the daemon cleanly, kill does not; the next start tells which it was.
func TestDaemonStopsCleanly(t *testing.T) {
	dir := t.TempDir()
	p := startDaemon(t, dir)
	p.query("CREATE DATABASE db")
	if err := p.write("m,sender=1 n=1i 1"); err != nil {
		t.Fatal(err)
	}
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.logged())
	}
	p = startDaemon(t, dir)
	if log := p.logged(); !strings.Contains(log, `"log recovered"`) || strings.Contains(log, "unclean") {
		t.Errorf("after SIGTERM:\n%s", log)
	}
	p.kill()
	p = startDaemon(t, dir)
	if log := p.logged(); !strings.Contains(log, "log recovered after an unclean stop") {
		t.Errorf("after kill -9:\n%s", log)
	}
	if got := p.query("SELECT n FROM m"); len(got) != 1 || len(got[0].Values) != 1 {
		t.Errorf("the point is read back as %v", got)
	}
}

// Two daemons never share folders.
func TestSecondDaemonOnTheSameFoldersIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := startDaemon(t, dir)
	second := launch(t, dir)
	select {
	case <-second.ended:
	case <-time.After(*patience):
		t.Fatalf("it goes on:\n%s", second.logged())
	}
	if code := second.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(second.logged(), dir+"/meta is in use by another dsdbd") {
		t.Errorf("exit code %d:\n%s", code, second.logged())
	}
	first.query("SHOW DATABASES")
}
