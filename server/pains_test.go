package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/server/httpd"
	"github.com/dasudian/dsdb/server/rpc"
)

// What clusters of InfluxDB 0.9 and 0.10 made their users suffer, by the numbers
// under which it was collected: C2, C3, C11, C13 to C16, C22, C26 and C28 are in
// cluster_test.go, C29 is in internal/chaos.

// C7: every node answers with what was acknowledged last, through whichever node,
// once and not twice, and shows the same series.
func TestC7EveryNodeAnswersTheSame(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	for _, rf := range []int{1, 2, 3} {
		db := fmt.Sprintf("rf%d", rf)
		nodes[0].mustQuery("", fmt.Sprintf("CREATE DATABASE %s WITH REPLICATION %d", db, rf))
		for i := range 12 {
			nodes[i%3].mustWrite(db, fmt.Sprintf("m,t=a v=%di 1\nm,t=b v=%di 2\nm,t=c%d v=1i 3", i, i, i))
			for _, m := range nodes {
				m.expect(db, "SELECT v FROM m WHERE t = 'a' OR t = 'b'", fmt.Sprintf("m time=1 v=%d\nm time=2 v=%d", i, i))
				if got := strings.Count(m.mustQuery(db, "SHOW SERIES"), "key="); got != i+3 {
					t.Errorf("%s, write %d: %d series, want %d", db, i, got, i+3)
				}
			}
		}
	}
}

// C8: a node that was away catches up with everything, also when the others have
// let go of the log that it lacks.
func TestC8NodeCatchesUp(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	nodes[0].mustWrite("db", "m,t=0 v=1i 0")
	nodes[2].halt()
	const rounds, points = 60, 200
	for i := range rounds {
		var lines strings.Builder
		for k := range points {
			fmt.Fprintf(&lines, "m,t=%d v=%di %d\n", k, i, 1+i*points+k)
		}
		nodes[i%2].mustWrite("db", strings.TrimSpace(lines.String()))
		if i%20 == 19 {
			nodes[0].flushAll()
			nodes[1].flushAll()
		}
	}
	nodes[2].start()
	want := fmt.Sprintf("m time=0 count=%d", 1+rounds*points)
	stale := readLevel{Read: httpd.ReadStale}
	eventually(t, "the node's own copy has everything", func() bool {
		got, err := nodes[2].ask(stale, "db", "SELECT count(v) FROM m")
		return err == nil && got == want
	})
	nodes[0].halt()
	nodes[2].expect("db", "SELECT count(v) FROM m", want)
}

// C10: points that are not stored are told of, and a time group that was dropped
// takes new ones.
func TestC10NothingIsDroppedSilently(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 2)
	nodes[0].mustQuery("", "CREATE DATABASE brief WITH DURATION 1h REPLICATION 2; CREATE DATABASE db WITH REPLICATION 2")
	for _, m := range nodes {
		err := m.write("brief", fmt.Sprintf("m v=1 %d\nm v=2 %d", now(), now()-int64(48*time.Hour)))
		wantError(t, err, dsdb.KindConflict, "partial write: points beyond retention policy dropped=1")
	}
	nodes[1].expect("brief", "SELECT count(v) FROM m", "m time=0 count=2")
	nodes[0].mustWrite("db", "m v=1 1")
	for i := range 2 {
		for _, g := range nodes[i%2].node.meta.View().Groups() {
			if g.Group.Range.Contains(1) {
				for _, s := range g.Group.Shards {
					nodes[i%2].mustQuery("", fmt.Sprintf("DROP SHARD %d", s.ID))
				}
			}
		}
		nodes[(i+1)%2].mustWrite("db", fmt.Sprintf("m v=%d 1", i)) // also if that node has not heard of the drop yet
		for _, m := range nodes {
			m.expect("db", "SELECT v FROM m", fmt.Sprintf("m time=1 v=%d", i))
		}
	}
}

// C10, too: points on their way to a time group while that is dropped are
// acknowledged only if they are stored in a new one.
func TestC10DropBesideAWrite(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 5, patient)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	nodes[0].mustWrite("db", "m v=1 1")
	agree(t, nodes...)
	s := nodes[0].node.meta.View().GroupFor("db", "", 1).Shards[0]
	holders := slices.DeleteFunc(slices.Clone(nodes), func(m *machine) bool {
		return !slices.ContainsFunc(s.Replicas, func(r meta.Replica) bool { return m.node.is(r.Node) })
	})
	writer, lost := holders[0], holders[1:] // without them the shard has no majority, and the catalogue has one
	for _, m := range lost {
		m.halt()
	}
	written := make(chan error, 1)
	go func() { written <- writer.write("db", "m v=2 2") }()
	eventually(t, "the write is on its way", func() bool {
		writer.node.routes.merger.mu.Lock()
		defer writer.node.routes.merger.mu.Unlock()
		return writer.node.routes.merger.groups[s.ID.Group()] != nil
	})
	writer.mustQuery("", fmt.Sprintf("DROP SHARD %d", s.ID))
	for _, m := range lost {
		m.start() // the new time group may want them
	}
	if err := <-written; err != nil {
		t.Fatalf("the write: %v", err)
	}
	for _, m := range nodes {
		m.expect("db", "SELECT v FROM m", "m time=2 v=2")
	}
}

// C12: a node whose catalogue is gone does not start anew over its points. What
// lies beside them, and the log, bring it back, alone and among others.
func TestC12PointsWithoutTheirCatalogue(t *testing.T) {
	t.Parallel()
	m := newMachine(t).start()
	m.mustQuery("", "CREATE DATABASE db")
	m.mustWrite("db", "m v=1 1")
	m.halt()
	if err := m.fs.RemoveAll("/node/meta"); err != nil {
		t.Fatal(err)
	}
	m.refused("/node/data/shard holds data, but /node/meta has no ", "dsdbd recover")
	m.recover()
	m.start()
	m.expect("db", "SHOW DATABASES; SELECT v FROM m", "databases name=db\nm time=1 v=1")
	m.halt()
	if err := Recover(m.cfg, m.fs); err == nil || !strings.Contains(err.Error(), "not lost") {
		t.Errorf("recovered what is there, error %v", err)
	}

	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	nodes[0].mustWrite("db", "m v=1 1")
	for i, lost := range nodes {
		lost.halt()
		nodes[(i+1)%3].mustQuery("", fmt.Sprintf("CREATE DATABASE db%d", i))
		if err := lost.fs.RemoveAll("/node/meta"); err != nil {
			t.Fatal(err)
		}
		lost.recover()
		lost.start()
		nodes[(i+1)%3].halt() // it counts
		lost.mustWrite("db", fmt.Sprintf("m v=1 %d", i+2))
		lost.expect("db", "SELECT count(v) FROM m", fmt.Sprintf("m time=0 count=%d", i+2))
		nodes[(i+1)%3].start()
	}
	if n := strings.Count(agree(t, nodes...), "\n"); n != 5 {
		t.Errorf("%d nodes of both kinds, want 6", n+1)
	}
	nodes[0].expect("", "SHOW DATABASES", "databases name=db\ndatabases name=db0\ndatabases name=db1\ndatabases name=db2")
}

// recover makes the folder of the catalogue anew.
func (m *machine) recover() {
	m.t.Helper()
	if err := Recover(m.cfg, m.fs); err != nil {
		m.t.Fatalf("recover: %v", err)
	}
}

// C17: what is dropped and deleted is so on every node, also on one that was
// away meanwhile, and wherever the shards are.
func TestC17DropsReachNodesThatWereAway(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3; CREATE DATABASE gone WITH REPLICATION 3")
	nodes[0].mustWrite("db", "m,t=a v=1 1\nm,t=b v=2 2\nm,t=c v=3 3\nother v=1 1")
	nodes[0].mustWrite("gone", "m v=1 1")
	for _, m := range nodes {
		m.expect("db", "SELECT count(v) FROM m", "m time=0 count=3")
	}
	nodes[2].flushAll()
	nodes[2].halt()
	nodes[1].mustQuery("db", "DROP SERIES FROM m WHERE t = 'a'; DELETE FROM m WHERE t = 'b'; DROP MEASUREMENT other")
	nodes[0].mustQuery("", "DROP DATABASE gone")
	nodes[2].start()
	eventually(t, "the node's own copy has the deletions", func() bool {
		got, err := nodes[2].ask(readLevel{Read: httpd.ReadStale}, "db", "SELECT v FROM m; SELECT v FROM other; SHOW MEASUREMENTS")
		return err == nil && got == "m time=3 v=3\nmeasurements name=m"
	})
	for _, m := range nodes {
		m.expect("db", "SHOW SERIES; SHOW DATABASES", "key=m,t=c\ndatabases name=db")
	}

	nodes[0].mustQuery("", "CREATE DATABASE spread WITH REPLICATION 1")
	for i := range 9 {
		nodes[0].mustWrite("spread", fmt.Sprintf("m,t=a v=1 %[1]d\nm,t=b v=1 %[1]d\nm,t=c v=1 %[1]d\nother v=1 %[1]d", int64(i)*week))
	}
	nodes[1].mustQuery("spread", "DROP SERIES FROM m WHERE t = 'a'; DELETE FROM m WHERE t = 'b'; DROP MEASUREMENT other")
	for _, m := range nodes {
		if len(m.node.shards.list()) > 9 {
			t.Error("a node has all shards: the test shows nothing")
		}
		m.expect("spread", "SHOW SERIES; SHOW MEASUREMENTS; SELECT count(v) FROM m; SELECT v FROM other", "key=m,t=c\nmeasurements name=m\nm time=0 count=9")
	}
}

// week is the length of a time group of points that are kept for ever.
const week = int64(7 * 24 * time.Hour)

// C18: what describes the points is complete on every node, though none has all
// of them.
func TestC18SchemaOfTheWholeCluster(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 1")
	var keys, values, points []string
	for i := range 9 {
		nodes[i%3].mustWrite("db", fmt.Sprintf("m,k%d=x,t=v%d f%d=1 %d", i, i, i, int64(i)*week))
		keys = append(keys, fmt.Sprintf("m tagKey=k%d", i))
		values = append(values, fmt.Sprintf("m key=t value=v%d", i))
		points = append(points, fmt.Sprintf("f%d=1", i))
	}
	for _, m := range nodes {
		if len(m.node.shards.list()) == 9 {
			t.Error("a node has all shards: the test shows nothing")
		}
		m.expect("db", "SHOW MEASUREMENTS; SHOW TAG KEYS", "measurements name=m\n"+strings.Join(keys, "\n")+"\nm tagKey=t")
		m.expect("db", "SHOW TAG VALUES WITH KEY = t", strings.Join(values, "\n"))
		if got := strings.Count(m.mustQuery("db", "SHOW SERIES"), "key="); got != 9 {
			t.Errorf("%d series", got)
		}
		got := m.mustQuery("db", "SELECT * FROM /.*/")
		for _, p := range points {
			if !strings.Contains(got, p) {
				t.Errorf("%s is not in\n%s", p, got)
			}
		}
	}
}

// C20: many clients write through one node at a time, and none times out, though
// calls between the nodes are under way that take long: they share connections
// without waiting for each other on them.
func TestC20ManyWritersThroughOneNode(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	ctx, cancel := context.WithCancel(t.Context())
	var slow sync.WaitGroup
	for _, m := range nodes {
		m.node.peers.Handle("slow", func(ctx context.Context, _ rpc.Process, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
	}
	for _, from := range nodes {
		for _, to := range nodes {
			for i := 0; i < 32 && from != to; i++ {
				slow.Go(func() { _, _ = from.node.call(ctx, to.node.id.DataID, "slow", nil) }) // ends with the test
			}
		}
	}
	defer slow.Wait()
	defer cancel()
	const writers, writes = 64, 15
	errs := make(chan error, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			var err error
			for i := 0; i < writes && err == nil; i++ {
				err = nodes[w%2].write("db", fmt.Sprintf("m,w=%d v=%di %d", w, i, i))
			}
			errs <- err
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	nodes[2].expect("db", "SELECT count(v) FROM m", fmt.Sprintf("m time=0 count=%d", writers*writes))
}

// Points are written and read while two of three meta nodes are away; the
// catalogue is not changed.
func TestPointsWithoutAQuorumOfMetaNodes(t *testing.T) {
	t.Parallel()
	onlyMeta := func(c *config.Config) {
		c.Data.Enabled = false
	}
	first := newMachine(t, onlyMeta).start()
	metas := []*machine{first, newMachine(t, joins(first), onlyMeta).start(), newMachine(t, joins(first), onlyMeta).start()}
	data := newMachine(t, joins(first), dataOnly).start()
	agree(t, append(metas, data)...)
	allVote(t, metas...)
	data.mustQuery("", "CREATE DATABASE db")
	data.mustWrite("db", "m v=1 1")
	data.restartWith(hasty)
	eventually(t, "all know the same catalogue", func() bool { return metas[2].node.meta.View().Index == data.node.meta.View().Index })
	metas[0].halt()
	metas[1].halt()
	for i, m := range []*machine{data, metas[2]} {
		m.insist("db", fmt.Sprintf("m v=%d 1", i))
		eventually(t, fmt.Sprintf("node %d takes points, and says so", i), func() bool { return m.node.Ready(t.Context()) == nil })
		for _, level := range []httpd.ReadConsistency{"", httpd.ReadLeader, httpd.ReadStale} {
			if got, err := m.ask(readLevel{Read: level}, "db", "SELECT v FROM m"); err != nil || got != fmt.Sprintf("m time=1 v=%d", i) {
				t.Errorf("through node %d, read consistency %q: %q %v; catalogues %d and %d", i, level, got, err, data.node.meta.View().Index, metas[2].node.meta.View().Index)
			}
		}
	}
	_, err := data.query("", "CREATE DATABASE more")
	if err == nil || !strings.Contains(err.Error(), "no quorum: 1/3 meta nodes reachable") {
		t.Errorf("a change of the catalogue: %v", err)
	}
	data.halt()
	if _, err := metas[2].query("db", "SELECT v FROM m"); err == nil {
		t.Error("a meta node that is alone answers")
	}
}
