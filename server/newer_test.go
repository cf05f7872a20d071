package server

import (
	"errors"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
)

// An entry that only a newer program knows comes into the log of a shard, as it
// does while a cluster is upgraded node by node: its replicas wait for a newer
// program. They are not taken for damaged, nor replaced, and the rest goes on.
func TestNewerEntryWaitsForANewerProgram(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH DURATION INF REPLICATION 3 SHARD DURATION 1h NAME rp")
	nodes[0].mustWrite("db", "m v=1 1")
	nodes[0].mustWrite("db", "m v=2 7200000000000")
	old := nodes[0].node.meta.View().ReplicasOn(nodes[0].node.dataID)
	g := old[0].Shard.ID.Group()
	var err error
	eventually(t, "the newer entry is in the log", func() bool {
		for _, m := range nodes {
			if m.node.host.Status(g).Leading {
				_, err = m.node.host.Propose(t.Context(), g, []byte{0x3f})
				return dsdb.KindOf(err) == dsdb.KindTimeout
			}
		}
		return false
	})
	waits := func() bool {
		for _, m := range nodes {
			if !errors.Is(m.node.host.Status(g).Failed, dsdb.ErrNewer) {
				return false
			}
		}
		return true
	}
	eventually(t, "all replicas wait", waits)
	eventually(t, "SHOW CLUSTER says so", func() bool {
		return strings.Count(nodes[1].mustQuery("", "SHOW CLUSTER"), "status=up, needs an upgrade") == 3
	})
	nodes[0].restartWith(hasty)
	eventually(t, "who writes is told", func() bool {
		err := nodes[0].write("db", "m v=3 2")
		return err != nil && strings.Contains(err.Error(), "upgrade this node")
	})
	nodes[0].insist("db", "m v=4 7200000000001")
	nodes[1].halt()
	nodes[1].start()
	eventually(t, "the one that was started again waits too", waits)
	for _, m := range nodes {
		if err := m.node.reportFailed(t.Context(), m.node.opt.Wall()); err != nil {
			t.Error(err)
		}
	}
	now, found := nodes[0].node.meta.View().Shard(old[0].Shard.ID)
	if !found || len(now.Shard.Replicas) != 3 {
		t.Fatalf("the shard is now %+v", now.Shard)
	}
	for _, r := range now.Shard.Replicas {
		if r.Role != meta.Voter {
			t.Errorf("%+v", r)
		}
	}
}
