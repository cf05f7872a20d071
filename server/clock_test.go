package server

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/server/config"
)

// reigns are the groups' leaders and their terms, as a node knows them.
func reigns(m *machine) string {
	var b strings.Builder
	groups := []dsdb.GroupID{dsdb.MetaGroup}
	for _, g := range m.node.meta.View().Groups() {
		for _, sh := range g.Group.Shards {
			groups = append(groups, sh.ID.Group())
		}
	}
	for _, g := range groups {
		st := m.node.host.Status(g)
		fmt.Fprintf(&b, "%d: %d in %d, %v\n", g, st.Leader, st.Term, st.Members)
	}
	return b.String()
}

// post writes a line by HTTP and returns the status.
func (m *machine) post(path, line string) int {
	m.t.Helper()
	res, err := http.Post("http://"+m.cfg.HTTP.BindAddress+path, "text/plain", strings.NewReader(line))
	if err != nil {
		m.t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body) // so that the connection is used again
	return res.StatusCode
}

// The clock of one node, which leads the catalogue and shards, is set forward and
// back by an hour. Points that come there without a time get the wrong one, now()
// is wrong there, and what a policy still keeps ends earlier or later. No leader
// changes, nobody is taken for dead, and writes and reads go on everywhere.
func TestS27ClockStepsByAnHour(t *testing.T) {
	var step atomic.Int64
	every := func(c *config.Config) {
		c.Retention.Enabled, c.Retention.CheckInterval = true, config.Duration(100*time.Millisecond)
	}
	stepped := newMachine(t, every)
	stepped.wall = func() time.Time { return time.Now().Round(0).Add(time.Duration(step.Load())) }
	nodes := []*machine{stepped.start()}
	for range 2 {
		nodes = append(nodes, newMachine(t, every, joins(stepped)).start())
	}
	allVote(t, nodes...)
	stepped.mustQuery("", `CREATE DATABASE steady WITH REPLICATION 3; CREATE DATABASE short WITH DURATION 2h REPLICATION 3 SHARD DURATION 1h`)
	stepped.mustWrite("steady", "m v=0 0")
	settled(t, nodes, 3)
	servers := agree(t, nodes...)
	rows := 1
	for _, by := range []time.Duration{time.Hour, -time.Hour, 0} {
		// A busy machine changes leaders, too, but not each time that a clock is set.
		eventually(t, fmt.Sprintf("clock by %v: no leader changes", by), func() bool {
			was, before := step.Load(), reigns(stepped)
			step.Store(int64(by))
			for range 12 {
				for _, m := range nodes {
					m.mustWrite("steady", fmt.Sprintf("m v=%d %d", rows, rows))
					rows++
				}
				for _, m := range nodes {
					m.expect("steady", "SELECT count(v) FROM m", fmt.Sprintf("m time=0 count=%d", rows))
				}
				time.Sleep(100 * time.Millisecond) // elections and deaths would take some
			}
			now := reigns(stepped)
			for line := range strings.Lines(before) {
				if !strings.Contains(now, line) {
					t.Logf("clock by %v: group %snow\n%s", by, line, now)
					step.Store(was)
					return false
				}
			}
			return true
		})
		if now := agree(t, nodes...); now != servers {
			t.Errorf("clock by %v: servers\n%s\nwere\n%s", by, now, servers)
		}
		for i, m := range nodes {
			want := int64(0)
			if i == 0 {
				want = int64(by)
			}
			name := fmt.Sprintf("d%d%s", i, by)
			if code := m.post("/write?db=steady", name+" v=1"); code != http.StatusNoContent {
				t.Errorf("clock by %v: a point without a time: %d", by, code)
			}
			near := time.Now().UnixNano() + want
			m.expect("steady", fmt.Sprintf(`SELECT count(v) FROM %q WHERE time > %d AND time < %d`, name, near-int64(time.Minute), near+int64(time.Minute)), fmt.Sprintf("%s time=%d count=1", name, near-int64(time.Minute)+1))
			m.expect("steady", fmt.Sprintf(`SELECT v FROM %q WHERE time > now() + 1m`, name), "")
		}
		// Kept for two hours: half an hour from now on for some.
		old := time.Now().Add(-90 * time.Minute).UnixNano()
		for i, m := range nodes {
			want := http.StatusNoContent
			if i == 0 && by > 0 {
				want = http.StatusBadRequest
			}
			if code := m.post("/write?db=short", fmt.Sprintf("m v=1 %d", old)); code != want {
				t.Errorf("clock by %v: a point of an hour and a half ago on node %d: %d", by, i, code)
			}
		}
	}
}

// A node whose clock is an hour ahead is told of by the others, and tells of them.
func TestS27ClockOfANodeDiffers(t *testing.T) {
	t.Parallel()
	right, ahead := newMachine(t).start(), newMachine(t)
	joins(right)(&ahead.cfg)
	ahead.wall = func() time.Time { return time.Now().Add(time.Hour) }
	ahead.start()
	for _, c := range []struct {
		at, other *machine
		off       float64
		words     string
	}{{right, ahead, 3600, "ahead of"}, {ahead, right, -3600, "behind"}} {
		gauge := fmt.Sprintf("dsdb_peer_clock_offset_seconds{node=%q}", fmt.Sprint(c.other.node.id.DataID))
		eventually(t, "the clocks are compared", func() bool {
			got, there := scrape(t, c.at)[gauge]
			return there && math.Abs(got-c.off) < 60
		})
		want := fmt.Sprintf("the clock of node %d (%s) is 1h0m0s %s", c.other.node.id.DataID, c.other.cfg.Meta.BindAddress, c.words)
		eventually(t, "the log says: "+want, func() bool { return strings.Contains(c.at.log.String(), want) })
	}
}

// The time of day is asked for in few places. Whatever else measures time does so
// by a clock that nobody can set.
func TestS27WallClockHasFewReaders(t *testing.T) {
	readers := map[string]string{
		"httpd/httpd.go": "a number that differs from one start to the next",
		"cluster.go":     "what SHOW SERVERS shows",
		"tasks.go":       "given to tasks by Wall",
	}
	pattern := regexp.MustCompile(`\.Unix(Nano|Milli|Micro)?\(\)|\.Round\(0\)|\.Truncate\(0\)`)
	for _, dir := range []string{".", "../meta", "../raftnode", "../wal", "../shard", "../exec", "../segment", "../series"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, line := range strings.Split(string(text), "\n") {
				if pattern.MatchString(line) && !strings.Contains(line, "Wall()") && readers[path] == "" {
					t.Errorf("%s reads the time of day: use Options.Wall, or time.Since and the like: %s", path, line)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
