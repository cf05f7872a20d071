package server

import (
	"fmt"
	"strings"
	"testing"

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
