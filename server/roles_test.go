package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
)

// roles edits the configuration of a machine that does not run.
func (m *machine) roles(isMeta, isData bool) *machine {
	m.cfg.Meta.Enabled, m.cfg.Data.Enabled = isMeta, isData
	return m
}

// restart ends the machine and starts it again in other roles.
func (m *machine) restart(isMeta, isData bool) *machine {
	m.t.Helper()
	m.halt()
	return m.roles(isMeta, isData).start()
}

// process returns what the catalogue of the machine says of it.
func (m *machine) process() meta.Process {
	p, _ := m.node.meta.View().Process(m.node.id.UUID)
	return p
}

// A meta node becomes a data node as well, and holds what comes next; a data node
// becomes a meta node as well, and votes.
func TestRolesAreTakenUp(t *testing.T) {
	t.Parallel()
	first := newMachine(t).start()
	second := newMachine(t, joins(first)).roles(true, false).start()
	third := newMachine(t, joins(first)).roles(false, true).start()
	agree(t, first, second, third)
	first.mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	first.mustWrite("db", "m v=1 1")

	second.restart(true, true)
	if got := second.node.id; got.MetaID != 3 || got.DataID != 5 || second.process().DataID != 5 {
		t.Errorf("the second node is %+v", got)
	}
	second.mustWrite("db", "m v=2 604800000000001")
	if n := len(second.node.meta.View().ReplicasOn(5)); n == 0 {
		t.Error("the new data node has no part in the next time group")
	}
	third.restart(true, true)
	if got := third.node.id; got.MetaID != 6 || got.DataID != 4 {
		t.Errorf("the third node is %+v", got)
	}
	nodes := []*machine{first, second, third}
	allVote(t, nodes...)
	agree(t, nodes...)
	eventually(t, "the older points have a third copy", func() bool {
		return !slices.ContainsFunc(first.node.meta.View().ReplicasOn(2), func(r meta.ReplicaRef) bool { return len(r.Shard.Owners()) != 3 })
	})

	// What they have become they are, whoever is missing and after another start.
	first.halt()
	third.mustQuery("", "CREATE DATABASE other")
	second.halt()
	third.halt()
	second.launch()
	third.launch()
	second.ready()
	third.ready().expect("db", "SELECT v FROM m", "m time=1 v=1\nm time=604800000000001 v=2")
	first.start()
	agree(t, nodes...)
}

// A data node gives its points to the others and then holds none; it serves on.
// The configuration may change its mind.
func TestDataRoleIsGivenUp(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 1")
	for i := range 6 {
		nodes[0].mustWrite("db", fmt.Sprintf("m,t=%d v=1 %d", i, int64(i)*604800000000000))
	}
	last := nodes[2]
	id := last.node.id.DataID
	if len(last.node.meta.View().ReplicasOn(id)) == 0 {
		t.Fatal("the node holds nothing that it could give up")
	}
	last.restart(true, false)
	if strings.Contains(nodes[0].mustQuery("", "SHOW SERVERS"), fmt.Sprintf("data_nodes id=%d ", id)) {
		t.Error("a node that is leaving is listed")
	}
	eventually(t, "it holds nothing any more", func() bool {
		return last.process().DataState == meta.Removed && len(last.node.shards.list()) == 0
	})
	for _, m := range nodes {
		m.expect("db", "SELECT count(v) FROM m", "m time=0 count=6")
	}
	last.restart(true, true)
	if got := last.node.id.DataID; got != id || !strings.Contains(last.mustQuery("", "SHOW SERVERS"), fmt.Sprintf("data_nodes id=%d ", id)) {
		t.Errorf("it comes back as data node %d, was %d", got, id)
	}
}

// The last data node keeps its points, whatever its configuration says, until
// another one can take them over.
func TestLastDataNodeKeepsItsRole(t *testing.T) {
	t.Parallel()
	first := newMachine(t).start()
	first.mustQuery("", "CREATE DATABASE db")
	first.mustWrite("db", "m v=1 1")
	first.restart(true, false)
	if said := first.log.String(); !strings.Contains(said, "this node keeps its roles") || !strings.Contains(said, "enable [data] on another node first") {
		t.Errorf("the log does not say that the role is kept:\n%s", said)
	}
	first.mustWrite("db", "m v=2 2")
	second := newMachine(t, joins(first)).roles(false, true).start()
	eventually(t, "the points have moved", func() bool {
		return first.process().DataState == meta.Removed && len(first.node.shards.list()) == 0
	})
	second.expect("db", "SELECT v FROM m", "m time=1 v=1\nm time=2 v=2")
	first.expect("db", "SELECT v FROM m", "m time=1 v=1\nm time=2 v=2")
}

// A meta node loses its vote and follows; a role that a statement has dropped is
// not taken up again while the configuration has only stayed as it was.
func TestMetaRoleIsGivenUp(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	id := nodes[2].node.id.MetaID
	nodes[2].restart(false, true)
	listed := func() bool {
		return strings.Contains(nodes[0].mustQuery("", "SHOW SERVERS"), fmt.Sprintf("meta_nodes id=%d ", id))
	}
	votes := func() bool {
		return slices.ContainsFunc(nodes[0].node.host.Status(dsdb.MetaGroup).Members.Voters, func(p raftnode.Peer) bool { return p.Node == id })
	}
	eventually(t, "it has no vote any more", func() bool { return !votes() && nodes[2].process().MetaState == meta.Removed })
	if listed() {
		t.Error("it is listed as a meta node")
	}
	nodes[2].restart(true, true)
	eventually(t, "it votes again", func() bool { return votes() && listed() })

	nodes[0].mustQuery("", fmt.Sprintf("DROP META SERVER %d", id))
	nodes[2].restart(true, true)
	if listed() || !strings.Contains(nodes[2].log.String(), "a role that was dropped stays so") {
		t.Errorf("listed %v, log:\n%s", listed(), nodes[2].log)
	}
	nodes[2].restart(false, true)
	nodes[2].restart(true, true)
	eventually(t, "it votes once more", func() bool { return votes() && listed() })
}

// Without a quorum a node waits with its old roles, and says why; once there is
// one it goes on by itself.
func TestRolesWaitForAQuorum(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	for _, m := range nodes {
		m.halt()
	}
	nodes[2].roles(false, true).launch()
	eventually(t, "it says what it waits for", func() bool {
		return strings.Contains(nodes[2].log.String(), "waiting for a quorum of the meta nodes: 1/3")
	})
	nodes[1].launch()
	nodes[2].ready()
	nodes[1].ready()
	if p := nodes[2].process(); p.Is(meta.MetaNode) {
		t.Errorf("it is still a meta node: %+v", p)
	}
}
