package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
)

// settled waits until all replicas of all shards of a cluster vote and agree.
func settled(t testing.TB, nodes []*machine, replicas int) {
	t.Helper()
	var last verifyAnswer
	defer func() {
		if t.Failed() {
			t.Logf("the replicas: %+v", last)
		}
	}()
	for _, m := range nodes {
		wait := 5 * time.Second
		eventually(t, "the replicas agree", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			var ids []dsdb.ShardID
			whole := true
			for _, g := range m.node.meta.View().Groups() {
				for _, sh := range g.Group.Shards {
					ids = append(ids, sh.ID)
					whole = whole && len(sh.Replicas) == replicas
				}
			}
			if !whole {
				return false
			}
			last = m.node.compareAll(ctx, ids)
			wait = min(2*wait, *patience) // the machine may be slow
			return last.Agree && len(last.Shards) > 0
		})
	}
}

// firstBatch returns where the first batch of a file of the log is, 0 if there is none.
func firstBatch(b []byte) int {
	for at := 4096; at < len(b); at++ {
		if b[at] != 0 {
			return at + 40
		}
	}
	return 0
}

// A node of which a bit of the log, or of the catalogue, is wrong starts all the
// same: what cannot be trusted is replaced, under new ids, by what the other
// nodes hold, and nothing is lost meanwhile.
func TestS19NodeWithDamagedLogIsMadeWhole(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	defer func() {
		if t.Failed() {
			for i, m := range nodes {
				t.Logf("node %d:\n%s", i, m.log)
			}
		}
	}()
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	want, rows := "", 0
	write := func(m *machine) {
		for range 20 {
			m.mustWrite("db", fmt.Sprintf("cpu,host=a n=%di %d", rows, rows+1))
			rows++
		}
		want = fmt.Sprintf("cpu time=0 count=%d sum=%d", rows, rows*(rows-1)/2)
	}
	for round, harm := range []struct {
		node int // the first one was never told of any other
		spot string
	}{{1, "/node/wal"}, {0, "/node/wal"}, {0, "/node/meta/catalogue"}, {0, ""}} {
		spot, victim := harm.spot, nodes[harm.node]
		whole, other := nodes[(harm.node+1)%3], nodes[(harm.node+2)%3]
		write(whole)
		settled(t, nodes, 3)
		old := victim.node.id.Replica
		victim.halt()
		write(whole)
		disk := victim.fs.(*vfs.Mem)
		if spot == "" { // gone
			if err := disk.RemoveAll("/node/meta/catalogue"); err != nil {
				t.Fatal(err)
			}
		} else {
			for _, file := range files(t, disk, spot) {
				at := 200
				if strings.HasSuffix(file, ".seg") {
					at = firstBatch(readAll(t, disk, file))
				}
				if at > 0 {
					flip(t, disk, file, 8*at)
				}
			}
		}
		victim.start()
		renewed := strings.Contains(victim.log.String(), "copy of the catalogue is damaged")
		if !renewed && !strings.Contains(victim.log.String(), "the log is damaged") || spot != "/node/wal" && !renewed {
			t.Errorf("round %d: the log of the node does not speak of the damage:\n%s", round, victim.log)
		}
		if id := victim.node.id; (id.Replica != old) != renewed {
			t.Errorf("round %d: the node has replica %d of the catalogue, had %d", round, id.Replica, old)
		}
		victim.expect("db", "SELECT count(n), sum(n) FROM cpu", want)
		allVote(t, nodes...)
		settled(t, nodes, 3)
		for _, m := range nodes {
			m.expect("db", "SELECT count(n), sum(n) FROM cpu", want)
			eventually(t, "the damaged replica of the catalogue is forgotten", func() bool { return len(m.node.meta.View().MetaReplicas) == 3 })
		}
		other.halt() // the new one counts
		write(whole)
		other.start()
	}
	eventually(t, "the catalogue knows that all its replicas vote", func() bool {
		return !slices.ContainsFunc(nodes[0].node.meta.View().MetaReplicas, func(r meta.Replica) bool { return r.Role != meta.Voter })
	})
}

// A node that wants the catalogue from others is told what helps if there are none any
// more when they have been silent for long, and not while all of them are starting.
func TestCatalogueIsNotGivenUpAtOnce(t *testing.T) {
	t.Parallel()
	first := newMachine(t).start()
	m := newMachine(t, joins(first)).start()
	agree(t, first, m)
	m.halt()
	first.halt()
	if err := m.fs.RemoveAll("/node/meta/catalogue"); err != nil {
		t.Fatal(err)
	}
	const asks, advice = "waiting for the other nodes, for its copy of the catalogue is damaged", "if there are no others any more, stop dsdbd"
	m.launch()
	eventually(t, "it asks the others", func() bool { return strings.Contains(m.log.String(), asks) })
	m.halt()
	if got := m.log.String(); strings.Contains(got, advice) {
		t.Errorf("at once: %s", got)
	}
	m.cfg.Meta.DeadTimeout = 1
	m.launch()
	eventually(t, "they have been silent for long", func() bool { return strings.Contains(m.log.String(), advice) })
	m.halt()
}

// Whatever ends a start before raft runs the replicas of a node, be it a signal or a
// failing disk, they are not damaged by it, and none is given up.
func TestReplicasThatAreNotRunAreNotDamaged(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 2)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 2")
	eventually(t, "there is a shard", func() bool { return nodes[0].write("db", "m v=1 1") == nil })
	settled(t, nodes, 2)
	n := nodes[1].node
	old := n.id.Replica
	if err := n.host.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.startSoundMeta(t.Context()); err == nil || strings.Contains(err.Error(), "recover") {
		t.Errorf("a start that fails early ends with %v", err)
	}
	if got := nodes[1].log.String(); n.id.Replica != old || strings.Contains(got, "damaged") {
		t.Errorf("replica %d of the catalogue, had %d; the node says:\n%s", n.id.Replica, old, got)
	}
	if all := n.shards.failed(); len(all) > 0 {
		t.Errorf("given up: %+v", all)
	}
	if r := n.report(); len(r.Failed) > 0 {
		t.Errorf("reported as failed: %+v", r.Failed)
	}
}

// Only a replica that raft has run here can be broken, and only for good.
func TestBrokenReplicas(t *testing.T) {
	damage := dsdb.Errorf(dsdb.KindCorrupt, "the log is damaged")
	for _, c := range []struct {
		what string
		st   raftnode.GroupStatus
		want error
	}{
		{"in service", raftnode.GroupStatus{Replica: 3}, nil},
		{"damaged", raftnode.GroupStatus{Replica: 3, Failed: damage}, damage},
		{"not here", raftnode.GroupStatus{Failed: dsdb.Errorf(dsdb.KindNotLeader, "raft group 7 is not on this node")}, nil},
		{"being removed", raftnode.GroupStatus{Replica: 3, Failed: dsdb.Errorf(dsdb.KindNotLeader, "raft group 7 is not on this node")}, nil},
		{"of a node that ends", raftnode.GroupStatus{Failed: dsdb.Errorf(dsdb.KindUnavailable, "the node is shutting down")}, nil},
		{"waits for a newer program", raftnode.GroupStatus{Replica: 3, Failed: dsdb.ErrNewer}, nil},
	} {
		if got := broken(c.st); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
