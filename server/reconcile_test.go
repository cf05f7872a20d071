package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/wal"
)

// Of several shards that a node is to open together, one that raft does not take
// keeps only itself out of service: the others serve, and go on serving while it
// is tried again and again.
func TestShardThatRaftDoesNotTake(t *testing.T) {
	t.Parallel()
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	view := c.node.meta.View()
	squatted, replica := dsdb.ShardID(view.Counters.Shard+1), dsdb.ReplicaID(view.Counters.Replica+1)
	squatter := raftnode.GroupSpec{ID: squatted.Group(), Replica: replica, Node: c.node.dataID, New: true, StateMachine: raftnode.NewWitness(wal.GroupState{}, false),
		Founders: []raftnode.Peer{{Replica: replica, Node: c.node.dataID}}}
	if err := c.node.host.Start(t.Context(), []raftnode.GroupSpec{squatter}); err != nil {
		t.Fatal(err)
	}
	err := c.write("db", fmt.Sprintf("m v=1 1\nm v=2 %d", 10*day)) // two time groups, two shards
	wantError(t, err, dsdb.KindUnavailable, "raft runs a replica of it already")
	for i := range 3 {
		c.mustWrite("db", fmt.Sprintf("m v=3 %d", 10*day+int64(i)))
		_ = c.node.shards.reconcile(t.Context())
	}
	if err := c.node.host.Detach(t.Context(), squatted.Group()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is opened at last", func() bool { return c.write("db", "m v=1 1") == nil })
	c.expect("db", "SELECT count(v) FROM m", "m time=0 count=4")
}

// A shard that cannot begin while the log has no space does not keep this node
// from following the catalogue: what is dropped meanwhile makes room.
func TestShardThatWaitsForSpace(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem(1)
	c := open(t, disk, quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "m v=1 1")
	ref := c.node.meta.View().Groups()[0]
	sh := ref.Group.Shards[0]
	sh.ID, sh.Replicas, sh.Founders = 99, []meta.Replica{{ID: 99, Node: c.node.dataID}}, []meta.Replica{{ID: 99, Node: c.node.dataID}}
	disk.SetCapacity(1) // no file can grow; what is preallocated can be written
	full := func() bool { return vfs.NoSpace(c.write("db", "m text=\""+strings.Repeat("x", 1<<20-1)+"\" 1")) }
	eventually(t, "the log is full", full)
	began := make(chan error, 1)
	go func() { began <- c.node.shards.start(t.Context(), []meta.ShardRef{{GroupRef: ref, Shard: sh}}) }()
	select {
	case err := <-began:
		if st := c.node.host.Status(sh.ID.Group()); err != nil || st.Leading {
			t.Errorf("it did not wait for space: %v, %+v", err, st)
		}
		if !c.node.shards.unborn(sh) {
			t.Error("queries wait for it")
		}
	case <-time.After(*patience):
		t.Error("whoever follows the catalogue waits for a shard that waits for space")
	}
	disk.SetCapacity(0)
	eventually(t, "it begins", func() bool { return c.node.host.Status(sh.ID.Group()).Leading })
}
