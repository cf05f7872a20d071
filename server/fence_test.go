package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/ql"
	"github.com/dasudian/dsdb/server/httpd"
	"github.com/dasudian/dsdb/server/rpc"
	"github.com/dasudian/dsdb/shard"
)

// finish proposes what begin has prepared; it must be acknowledged in full.
func (w *write) finish(t testing.TB) {
	t.Helper()
	if err := w.propose(t.Context()); err != nil || w.result() != nil {
		t.Error(err, w.result())
	}
}

// typed compares the measurements whose fields have types, as this node knows.
func (c *client) typed(db string, want ...string) {
	c.t.Helper()
	if got := meta.Measurements(groupsOf(c.node.meta.View().Database(db))); !slices.Equal(got, want) {
		c.t.Errorf("types of the fields of %q, want %q", got, want)
	}
}

// Whoever deletes frees the types of fields without series. A write that fixed
// them and has not stored its points yet is not hidden by that, whether what is
// deleted is its measurement or another.
func TestTypesOfAWriteThatIsUnderWayAreNotFreed(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	for i, statement := range []string{"DELETE FROM other WHERE host = 'a'", "DROP SERIES FROM other", "DROP MEASUREMENT m", "DELETE FROM m", "DROP SERIES FROM /./"} {
		db := fmt.Sprintf("db%d", i)
		c.mustQuery("", "CREATE DATABASE "+db)
		c.mustWrite(db, "other,host=a v=1 1")
		w := c.begin(db, "m v=2 2")
		c.mustQuery(db, statement)
		w.finish(t)
		c.expect(db, "SELECT v FROM m", "m time=2 v=2")
	}
}

// Types are freed of what has no points, also by a second DROP if who began the first
// has died after any of its changes of the catalogue. Points that another node is told
// to be stored meanwhile, whenever it prepared them, are never hidden: not before the
// types are freed, not after, and not by a type that somebody else gives the field.
func TestWhoFreesTypesMayDie(t *testing.T) {
	t.Parallel()
	nodes := openCluster(t, 3)
	leader := leaderOf(t, nodes, dsdb.ShardID(dsdb.MetaGroup))
	other, dropper := nodes[leader], nodes[(leader+1)%3]
	other.mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	for after := 1; after <= 2; after++ {
		for _, early := range []bool{true, false} {
			m := fmt.Sprintf("m%d%v", after, early)
			other.mustWrite("db", m+" v=1 1")
			w := other.begin("db", m+" v=2 2")
			ctx, die := context.WithTimeout(t.Context(), other.patience)
			changes := 0
			other.node.peers.Handle(methodPropose, func(ctx context.Context, from rpc.Process, body []byte) ([]byte, error) {
				p, err := decodeProposal(body)
				if err != nil || p.group != dsdb.MetaGroup || from.MetaID != dropper.node.id.MetaID {
					return other.node.servePropose(ctx, from, body)
				}
				if changes++; changes == after {
					if early {
						w.finish(t)
					}
					defer die()
				}
				return other.node.servePropose(ctx, from, body)
			})
			if err := dropper.execute(ctx, "db", "DROP MEASUREMENT "+m); err == nil && after == 1 {
				t.Error("who drops did not die")
			}
			other.node.peers.Handle(methodPropose, other.node.servePropose)
			die()
			if !early {
				w.finish(t)
			}
			for _, c := range nodes {
				c.expect("db", "SELECT v FROM "+m, m+" time=2 v=2")
			}
			wantError(t, dropper.write("db", m+" v=\"x\" 3"), dsdb.KindConflict, "already exists as type float")
			dropper.mustWrite("db", m+" w=3i 3")
			other.expect("db", "SELECT * FROM "+m, m+" time=2 v=2\n"+m+" time=3 w=3")
			dropper.mustQuery("db", "DROP MEASUREMENT "+m)
			dropper.typed("db")
			other.mustWrite("db", m+" v=\"x\" 4")
			dropper.expect("db", "SELECT * FROM "+m, m+" time=4 v=x")
			other.mustQuery("db", "DROP MEASUREMENT "+m)
		}
	}
}

// execute runs a statement that answers no rows until ctx ends.
func (c *client) execute(ctx context.Context, db, text string) error {
	statements, err := ql.Parse(text, nil)
	if err == nil {
		_, err = c.node.Execute(ctx, &httpd.QueryRequest{Statement: statements[0], Database: db})
	}
	return err
}

// Each piece of a large write that comes below a fence is prepared anew, also if its
// field has got another type meanwhile.
func TestPiecesBelowAFence(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	var lines strings.Builder
	for i := range 6 {
		fmt.Fprintf(&lines, "m,host=h%d s=%q %d\n", i, strings.Repeat("x", 1_000_000), i)
	}
	first, second := c.begin("db", lines.String()), c.begin("db", lines.String())
	c.mustQuery("db", "DROP MEASUREMENT m")
	first.finish(t)
	c.expect("db", "SELECT count(s) FROM m", "m time=0 count=6")
	c.mustQuery("db", "DROP MEASUREMENT m")
	c.mustWrite("db", "m s=1 1")
	if err := second.propose(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantError(t, second.result(), dsdb.KindConflict, "is type string, already exists as type float dropped=6")
	c.expect("db", "SELECT s FROM m", "m time=1 s=1")
}

// A hint may come after the types of its fields were freed, for nothing else was
// stored of its measurement: they are fixed again, and it is seen.
func TestHintBelowAFence(t *testing.T) {
	t.Parallel()
	register := func(m *machine) {
		set := meta.NewFields{Times: []int64{10}, Fields: []meta.Field{{Name: "v", Type: dsdb.Integer}}}
		for _, set.Measurement = range []string{"seen", "taken"} {
			if err := m.node.command(t.Context(), &meta.RegisterFields{Database: "db", Policy: "autogen", Sets: []meta.NewFields{set}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	left, others := hintCluster(t, register)
	left.hint("seen,k=a v=1i 10\ntaken,k=a v=2i 10")
	left.halt()
	startAll(others...)
	others[0].insist("db", "cpu,host=a n=2i 30")
	others[0].mustQuery("db", "DELETE FROM seen WHERE k = 'b'; DELETE FROM taken WHERE k = 'b'")
	others[0].typed("db", "cpu")
	others[0].mustWrite("db", "taken,k=a v=\"x\" 20")
	left.start()
	eventually(t, "the hints are delivered", func() bool { return left.node.handoff.queue.Stats().Hints == 0 })
	for _, m := range append(others, left) {
		m.expect("db", "SELECT v FROM seen; SELECT v FROM taken", "seen time=10 v=1\ntaken time=20 v=x")
	}
	if p := &left.node.handoff.points; p.delivered.Load()+p.superseded.Load() != 1 || p.rejected.Load() != 1 {
		t.Errorf("delivered %d, superseded %d, rejected %d", p.delivered.Load(), p.superseded.Load(), p.rejected.Load())
	}
}

// While a node runs an older program nothing is proposed that it does not know: types
// stay until it is upgraded.
func TestNoFenceBesideAnOlderProgram(t *testing.T) {
	t.Parallel()
	nodes := openCluster(t, 2)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 2")
	nodes[0].mustWrite("db", "m v=1 1")
	nodes[1].node.peers.Handle(methodFences, nil)
	nodes[0].mustQuery("db", "DROP MEASUREMENT m")
	nodes[0].typed("db", "m")
	if db := nodes[0].node.meta.View().Database("db"); db.Fence != 0 {
		t.Errorf("types were revoked at %d", db.Fence)
	}
	nodes[1].expect("db", "SELECT v FROM m", "")
	if !strings.Contains(nodes[0].log.String(), "until all nodes are upgraded") {
		t.Error("nothing is said of it")
	}
	var asked atomic.Int32
	nodes[1].node.peers.Handle(methodFences, func(ctx context.Context, from rpc.Process, body []byte) ([]byte, error) {
		asked.Add(1)
		return serveFences(ctx, from, body)
	})
	nodes[0].mustQuery("db", "DROP MEASUREMENT m")
	nodes[0].typed("db")
	if n := asked.Load(); n != 1 {
		t.Errorf("the other process, which has both roles, was asked %d times", n)
	}
}

// A catalogue that has lost the end of its log, with the fences in it, goes on until
// shards take its writes.
func TestCatalogueBehindAFence(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "m v=1 1")
	view := c.node.meta.View()
	for _, g := range groupsOf(view.Database("db")) {
		if _, err := c.node.propose(t.Context(), g.Shards[0].ID.Group(), func(id dsdb.ProposalID) []byte { return shard.AppendFence(nil, id, view.Index+20) }); err != nil {
			t.Fatal(err)
		}
	}
	c.mustWrite("db", "m v=2 2")
	c.expect("db", "SELECT v FROM m", "m time=1 v=1\nm time=2 v=2")
}

// A database that was dropped and made anew, while somebody frees types of the one
// before, gets no fence: no types of its own were revoked.
func TestNoFenceInADatabaseThatWasMadeAnew(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "m v=1 1")
	if err := c.node.fence(t.Context(), c.node.meta.View().Database("db"), []string{"m"}); err != nil {
		t.Error(err)
	}
	c.mustWrite("db", "m v=2 2")
	c.expect("db", "SELECT v FROM m", "m time=1 v=1\nm time=2 v=2")
}
