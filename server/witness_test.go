package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/server/httpd"
)

// held counts the voters and the witnesses of all shards, as a node knows them.
func (m *machine) held() (copies, witnesses int) {
	for _, g := range m.node.meta.View().Groups() {
		for _, sh := range g.Group.Shards {
			for _, r := range sh.Replicas {
				switch {
				case r.Role != meta.Voter:
				case r.Witness:
					witnesses++
				default:
					copies++
				}
			}
		}
	}
	return copies, witnesses
}

// spread are points of several series, so that each partition gets some, at a
// time in seconds.
func spread(second int) string {
	var lines []string
	for s := range 12 {
		lines = append(lines, fmt.Sprintf("cpu,host=h%d n=1i %d", s, second*1e9))
	}
	return strings.Join(lines, "\n")
}

// Two copies on three nodes: whichever node is lost, points are written and read,
// through each of the others. A witness is no copy: it answers no query and is
// no owner.
func TestTwoCopiesDoWithoutAnyNode(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 2")
	now := int(time.Now().Unix())
	rows := 0
	write := func(m *machine) {
		m.mustWrite("db", spread(now+rows))
		rows++
	}
	count := func(m *machine) {
		m.expect("db", "SELECT count(n) FROM cpu", fmt.Sprintf("cpu time=0 count=%d", 12*rows))
	}
	write(nodes[0])
	shards := 0
	for _, g := range nodes[0].node.meta.View().Groups() {
		for _, sh := range g.Group.Shards {
			shards++
			if len(sh.Owners()) != 2 || len(sh.Replicas) != 3 || !sh.Replicas[2].Witness {
				t.Errorf("shard %d: %+v, owners %d", sh.ID, sh.Replicas, sh.Owners())
			}
			w := nodes[slices.IndexFunc(nodes, func(m *machine) bool { return m.node.dataID == sh.Replicas[2].Node })]
			eventually(t, "the witness is there", func() bool { return w.node.shards.witnesses(sh.ID.Group()) })
			_, err := w.node.openLocal(t.Context(), sh.ID, readLevel{Read: httpd.ReadStale})
			wantError(t, err, dsdb.KindNotLeader, "only a vote")
		}
	}
	if shards != 3 {
		t.Errorf("%d shards, not one for each node", shards)
	}
	for i, m := range nodes {
		eventually(t, fmt.Sprintf("node %d reports two shards and one witness", i), func() bool {
			r := m.node.report()
			return r.Shards == 2 && r.Witnesses == 1
		})
		m.insistAs("all", "db", spread(now))
	}
	for i := range nodes {
		nodes[i].halt()
		for k := 1; k < 3; k++ {
			other := nodes[(i+k)%3]
			write(other)
			count(other)
		}
		nodes[i].start()
		count(nodes[i])
	}
	settled(t, nodes[:1], 3) // both copies of each shard, and its witness
}

// A third node brings witnesses, and more copies take their places.
func TestWitnessesComeAndGo(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 2)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 2")
	nodes[1].mustWrite("db", spread(int(time.Now().Unix())))
	holds := func(want string, copies, witnesses int) {
		t.Helper()
		eventually(t, want, func() bool {
			c, w := nodes[0].held()
			return c == copies && w == witnesses
		})
	}
	holds("two nodes have two copies of two shards", 4, 0)
	third := newMachine(t, joins(nodes[0])).start()
	nodes = append(nodes, third)
	holds("the third node has witnesses", 4, 2)
	nodes[0].mustQuery("", "ALTER RETENTION POLICY autogen ON db REPLICATION 3")
	holds("the third node has copies", 6, 0)
	third.expect("db", "SELECT count(n) FROM cpu", "cpu time=0 count=12")
}

// While one copy is away a witness keeps what it lacks, but not more than the log
// may hold. When it is back it gets the rest from the other copy.
func TestWitnessKeepsNoMoreThanTheLogMayHold(t *testing.T) {
	t.Parallel()
	small := func(c *config.Config) { c.Data.WALMaxSize = 2 << 20 } // a start takes a quarter of that, a page for each batch
	nodes := []*machine{newMachine(t, small).start()}
	for range 2 {
		nodes = append(nodes, newMachine(t, small, joins(nodes[0])).start())
	}
	allVote(t, nodes...)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 2")
	now := int(time.Now().Unix())
	nodes[0].mustWrite("db", spread(now))
	nodes[0].halt()
	kept := func(m *machine) (entries int) {
		for _, ref := range m.node.meta.View().ReplicasOn(m.node.dataID) {
			if first, last := m.node.wal.Bounds(ref.Shard.ID.Group()); ref.Replica.Witness {
				entries += int(last + 1 - first)
			}
		}
		return entries
	}
	rows := 1
	for ; rows < 10; rows++ {
		nodes[1].mustWrite("db", spread(now+rows))
	}
	for _, m := range nodes[1:] {
		if kept(m) < 9 {
			t.Errorf("a witness keeps %d entries of what a copy lacks", kept(m))
		}
	}
	text := strings.Repeat("x", 32<<10)
	for i := range 30 {
		nodes[1].mustWrite("db", strings.ReplaceAll(spread(now+i), "n=1i", fmt.Sprintf("s=%q", text)))
	}
	for i, m := range nodes[1:] {
		eventually(t, fmt.Sprintf("the witness on node %d has let go", i+1), func() bool { return kept(m) < 9 })
	}
	nodes[0].start()
	nodes[0].expect("db", "SELECT count(n), count(s) FROM cpu", fmt.Sprintf("cpu time=0 count=%d count_1=%d", 12*rows, 12*30))
}

// While one copy is away the others keep what it lacks, but not more than the log
// may hold. When it is back it gets the rest by a snapshot.
func TestLogHoldsNoMoreForACopyThatIsAway(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	small := func(c *config.Config) { c.Data.WALMaxSize, c.Data.CacheSnapshotMemory = limit, 64<<10 }
	nodes := []*machine{newMachine(t, small).start()}
	for range 2 {
		nodes = append(nodes, newMachine(t, small, joins(nodes[0])).start())
	}
	allVote(t, nodes...)
	nodes[0].mustQuery("", "CREATE DATABASE slow WITH REPLICATION 3")
	nodes[0].mustQuery("", "CREATE DATABASE fast WITH REPLICATION 3")
	now := int(time.Now().Unix())
	nodes[0].mustWrite("slow", spread(now))
	nodes[0].halt()
	nodes[1].mustWrite("slow", spread(now+1))
	text := strings.Repeat("x", 32<<10)
	for i := range 40 {
		nodes[1].mustWrite("fast", strings.ReplaceAll(spread(now+i), "n=1i", fmt.Sprintf("s=%q", text)))
	}
	for i, m := range nodes[1:] {
		eventually(t, fmt.Sprintf("the log of node %d is short again", i+1), func() bool { return m.node.wal.Stats().DiskBytes <= 2*limit })
	}
	nodes[0].start()
	nodes[0].expect("slow", "SELECT count(n) FROM cpu", fmt.Sprintf("cpu time=0 count=%d", 12*2))
	nodes[0].expect("fast", "SELECT count(s) FROM cpu", fmt.Sprintf("cpu time=0 count=%d", 12*40))
}
