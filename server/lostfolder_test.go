package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/server/httpd"
)

// lose removes folders and files of a node from a copy of its disk, which a machine
// at the addresses of m gets.
func (m *machine) lose(t *testing.T, names ...string) *machine {
	t.Helper()
	disk := m.fs.(*vfs.Mem).CrashClone(100, 1)
	for _, name := range names {
		if err := disk.RemoveAll("/node/" + name); err != nil {
			t.Fatal(err)
		}
	}
	x := newMachine(t)
	x.cfg, x.fs = m.cfg, disk
	return x
}

// acceptLoss has the node of a machine go on without what is lost.
func (m *machine) acceptLoss(words string) {
	m.t.Helper()
	l, err := AcceptLoss(m.t.Context(), m.cfg, m.fs, LossOptions{Accept: true, Now: time.Unix(1e9, 0), Version: "test"})
	if err != nil || !strings.Contains(strings.Join(l.Lines(), "\n"), words) {
		m.t.Fatalf("accepting the loss: %v, told %q, want %q", err, l.Lines(), words)
	}
}

// A node that is alone and has lost one folder or several, or the files that say
// whose they are, does not start over what is left. It says what is missing, that a
// disk may not be mounted, which would mend it, and what helps if it is lost: which
// does, as far as there is anything left.
func TestLostFoldersOfANodeThatIsAlone(t *testing.T) {
	t.Parallel()
	whole := newMachine(t).start()
	whole.mustQuery("", "CREATE DATABASE db")
	whole.mustWrite("db", "m v=1 1")
	whole.flushAll()
	whole.mustWrite("db", "m v=2 2")
	whole.halt()
	const all, flushed = "m time=1 v=1\nm time=2 v=2", "m time=1 v=1"
	for _, c := range []struct {
		lost  string
		words string // that the refusal has beside "mounted"
		then  string // what is done, one after the other
		want  string
	}{
		{"meta", "have dsdbd recover make /node/meta anew", "recover", all},
		{"meta/node.json", "have dsdbd recover make /node/meta anew", "recover", all},
		{"data/node.json", "have dsdbd recover make /node/data/node.json anew", "recover", all},
		{"meta/node.json data/node.json", "have dsdbd recover make /node/meta anew", "recover", all},
		{"meta data/node.json", "have dsdbd recover make /node/meta anew", "recover", all},
		{"data", "/node/data is empty", "accept", "files of the replica are missing"},
		{"wal", "/node/wal has lost the log", "accept", flushed},
		{"meta wal", "have dsdbd recover make /node/meta anew", "recover accept", flushed},
		{"data wal", "/node/data is empty", "accept", ""},
		{"meta data", "restore the folders from a copy", "", ""},
		{"meta/node.json data wal", "restore the folders from a copy", "", ""},
		{"meta/node.json data/node.json wal data/shard", "restore the folders from a copy", "", ""},
	} {
		t.Run(c.lost, func(t *testing.T) {
			m := whole.lose(t, strings.Fields(c.lost)...)
			m.refused(c.words, "mounted")
			m.refused(c.words, "mounted") // also when its start has made the folders
			for _, step := range strings.Fields(c.then) {
				if step == "recover" {
					m.recover()
				} else {
					m.acceptLoss("")
				}
			}
			if c.then == "" {
				return
			}
			m.start()
			m.expect("", "SHOW DATABASES", "databases name=db")
			for _, level := range []httpd.ReadConsistency{httpd.ReadLinearizable, httpd.ReadStale} {
				got, err := m.ask(readLevel{Read: level}, "db", "SELECT * FROM m")
				if got != c.want && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("at %q: %q, %v; want %q", level, got, err, c.want)
				}
			}
			if c.lost == "data" { // the error names it
				m.mustQuery("", "DROP SHARD 1")
			}
			m.mustWrite("db", "m v=3 3")
			m.halt()
			m.start()
			if got := m.mustQuery("db", "SELECT * FROM m"); !strings.HasSuffix(got, "m time=3 v=3") {
				t.Errorf("after another start: %s", got)
			}
		})
	}
}

// The same of one of three nodes: it comes back under its ids, or under new ones where
// its promises are lost, with all copies that it had.
func TestLostFoldersOfOneOfThree(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	nodes[0].mustWrite("db", "m v=1 1")
	settled(t, nodes, 3)
	for i, c := range []struct{ lost, words, then string }{
		{"data/node.json", "have dsdbd recover make /node/data/node.json anew", "recover"},
		{"data", "/node/data is empty", "accept"},
		{"data wal", "/node/data is empty", "--replace mount"},
		{"meta data", "the id that SHOW SERVERS has", "mount"},
		{"meta wal", "have dsdbd recover make /node/meta anew", "recover --replace mount"},
		{"wal", "/node/wal has lost the log", "--replace"},
	} {
		lost := nodes[i%3]
		lost.flushAll()
		lost.halt()
		before := lost.node.id
		m := lost.lose(t, strings.Fields(c.lost)...)
		m.refused(c.words, "mounted")
		for _, step := range strings.Fields(c.then) {
			switch step {
			case "recover":
				m.recover()
			case "accept":
				m.acceptLoss("/node/data, is gone")
			case "--replace":
				if _, err := AcceptLoss(t.Context(), m.cfg, m.fs, LossOptions{Accept: true}); err == nil {
					t.Errorf("%s: its votes are lost, which must not be accepted", c.lost)
				}
				m.refused(fmt.Sprintf("--replace %d", before.MetaID))
				m.fs, m.replace = vfs.NewMem(1), before.MetaID
				joins(nodes[(i+1)%3])(&m.cfg)
			case "mount":
				m.fs, m.replace = lost.fs, 0
			}
		}
		m.start()
		nodes[i%3] = m
		if kept := m.node.id.DataID == before.DataID; kept != (m.replace == 0) {
			t.Errorf("%s: it was node %d and is node %d", c.lost, before.DataID, m.node.id.DataID)
		}
		settled(t, nodes, 3)
		nodes[(i+1)%3].mustWrite("db", fmt.Sprintf("m v=1 %d", i+2))
		eventually(t, "its copy has all points", func() bool {
			got, err := m.ask(readLevel{Read: httpd.ReadStale}, "db", "SELECT count(v) FROM m")
			return err == nil && got == fmt.Sprintf("m time=0 count=%d", i+2)
		})
		allVote(t, nodes...)
	}
}
