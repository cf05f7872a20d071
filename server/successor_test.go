package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/server/httpd"
)

// dataOnly makes a configuration that of a node without the meta role.
func dataOnly(c *config.Config) { c.Meta.Enabled = false }

// Two of three copies of a shard are lost with their machines. Once both were
// dropped by force, the shard goes on from the third, with all that this one has,
// takes writes, and gets new copies when there are machines for them.
func TestShardGoesOnFromTheCopyThatIsLeft(t *testing.T) {
	t.Parallel()
	first := newMachine(t).start()
	nodes := []*machine{first, newMachine(t, joins(first), dataOnly).start(), newMachine(t, joins(first), dataOnly).start()}
	agree(t, nodes...)
	first.mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	acknowledged := "SELECT count(v), sum(v) FROM m WHERE time < 50"
	for i := range 20 {
		nodes[i%3].mustWrite("db", fmt.Sprintf("m,host=h%d v=%d %d", i%5, i, i+1))
	}
	settled(t, nodes, 3)
	want := first.mustQuery("db", acknowledged)
	nodes[1].halt()
	nodes[2].halt()
	if err := first.write("db", "m v=1 100"); err == nil {
		t.Fatal("a write was acknowledged without a majority")
	}
	for _, m := range nodes[1:] {
		first.mustQuery("", fmt.Sprintf("DROP DATA SERVER %d FORCE", m.node.id.DataID))
	}
	eventually(t, "the shard takes writes", func() bool { return first.write("db", "m,host=new v=7 200") == nil })
	first.mustQuery("db", "DELETE FROM m WHERE host = 'new'")
	first.expect("db", acknowledged, want)

	fresh := []*machine{newMachine(t, joins(first), dataOnly).start(), newMachine(t, joins(first), dataOnly).start()}
	all := append([]*machine{first}, fresh...)
	settled(t, all, 3)
	for _, m := range fresh {
		if got, err := m.ask(readLevel{Read: httpd.ReadStale}, "db", acknowledged); got != want {
			t.Errorf("a new copy holds %q, %v", got, err)
		}
	}
	fresh[0].mustWrite("db", "m,host=h9 v=1 300")
	if !strings.Contains(first.log.String(), "a shard goes on from the copy on this node") {
		t.Error("the log does not say what happened")
	}
	nodes[1].refused("was dropped from the cluster")
	if n := len(first.node.meta.View().NodesOf(meta.DataNode)); n != 3 {
		t.Errorf("%d data nodes", n)
	}
}

// refound has the cluster go on from the catalogue of a machine that is halted.
func (m *machine) refound(lost ...dsdb.NodeID) (r Remains, err error) {
	err = Refound(m.t.Context(), m.cfg, m.fs, lost, func(got Remains) error { r = got; return nil })
	return r, err
}

// Two of three machines with both roles are lost for good, and with them the
// majority of the catalogue and of every shard. What the third has is brought back
// by the commands of the guide, and two new machines make it three again.
func TestClusterGoesOnFromOneOfThreeMachines(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	for i := range 30 {
		nodes[i%3].mustWrite("db", fmt.Sprintf("m,host=h%d v=%d %d", i%5, i, i+1))
	}
	settled(t, nodes, 3)
	acknowledged := "SELECT count(v), sum(v) FROM m WHERE time < 50"
	want := nodes[0].mustQuery("db", acknowledged)
	left, lost := nodes[2], nodes[:2]
	meta := []dsdb.NodeID{lost[0].node.id.MetaID, lost[1].node.id.MetaID}
	if _, err := left.refound(meta...); err == nil || !strings.Contains(err.Error(), "lock") {
		t.Errorf("refounded while it runs, error %v", err)
	}
	left.halt()
	if _, err := left.refound(meta...); err == nil || !strings.Contains(err.Error(), "runs and answers at") {
		t.Errorf("refounded while others run, error %v", err)
	}
	lost[0].halt()
	lost[1].halt()
	if _, err := left.refound(meta[0]); err == nil || !strings.Contains(err.Error(), "a majority is left") {
		t.Errorf("refounded while a majority is left, error %v", err)
	}
	if r, err := left.refound(meta...); err != nil || len(r.Lost) != 2 || len(r.Others) != 0 {
		t.Fatalf("refound: %+v, %v", r, err)
	}
	left.start()
	for _, m := range lost {
		left.mustQuery("", fmt.Sprintf("DROP DATA SERVER %d FORCE", m.node.id.DataID))
	}
	eventually(t, "the shard takes writes", func() bool { return left.write("db", "m,host=new v=7 200") == nil })
	left.expect("db", acknowledged, want)

	all := []*machine{left, newMachine(t, joins(left)).start(), newMachine(t, joins(left)).start()}
	agree(t, all...)
	allVote(t, all...)
	settled(t, all, 3)
	for _, m := range all {
		m.expect("db", acknowledged, want)
	}
	lost[1].refused("was dropped from the cluster")
	all[1].halt()
	all[2].mustWrite("db", "m,host=h9 v=1 300")
	left.mustQuery("", "CREATE DATABASE more")
}
