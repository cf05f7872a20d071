package server

import (
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb/meta"
)

// A replica that holds something else than the others, which raft does not
// notice, is found by comparing them, and is replaced. Equal ones are left alone.
func TestReplicaThatDiffersIsReplaced(t *testing.T) {
	t.Parallel()
	nodes := openCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	nodes[1].mustWrite("db", "cpu,host=a n=1i 1\ncpu,host=b n=2i 2")
	id := nodes[0].node.meta.View().Groups()[0].Group.Shards[0].ID
	leader := nodes[leaderOf(t, nodes, id)]
	nodes[2].flushAll()
	if err := leader.node.verify(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	ref, _ := leader.node.meta.View().Shard(id)
	for _, r := range ref.Shard.Replicas {
		if r.Role != meta.Voter {
			t.Errorf("replica %+v, though all are equal", r)
		}
	}
	victim := nodes[0]
	if victim == leader {
		victim = nodes[1]
	}
	old, _ := victim.replica(t, id)
	victim.tamper(t, id)
	if err := leader.node.verify(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(leader.log.String(), "REPLICAS OF A SHARD DIFFER") {
		t.Errorf("the log does not say that replicas differ:\n%s", leader.log)
	}
	eventually(t, "a new replica votes", func() bool {
		r, found := victim.replica(t, id)
		return found && r.ID != old.ID && r.Role == meta.Voter
	})
	leader = nodes[leaderOf(t, nodes, id)]
	if err := leader.node.verify(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	again, _ := victim.replica(t, id)
	mine, err := victim.node.replicaHere(id)
	if theirs, err2 := leader.node.replicaHere(id); err != nil || err2 != nil || mine.Index == 0 || mine.Digest != theirs.Digest || again.Role != meta.Voter {
		t.Errorf("digest of the new replica %v %v, of the leader's %v %v", mine, err, theirs, err2)
	}
	if got := leader.node.mismatches.Load() + victim.node.mismatches.Load(); got != 1 {
		t.Errorf("%d mismatches are counted", got)
	}
}

// Each shard that is led here, and has others to be compared with, is due once
// in an interval, and keeps its turn.
func TestShardsAreDueOnce(t *testing.T) {
	nodes := openCluster(t, 2)
	nodes[0].mustQuery("", "CREATE DATABASE one WITH REPLICATION 1; CREATE DATABASE two WITH REPLICATION 2")
	for _, db := range []string{"one", "two"} {
		nodes[0].mustWrite(db, "cpu n=1i 1")
	}
	const week = 7 * 24 * time.Hour
	now, due := time.Now(), 0
	for _, g := range nodes[0].node.meta.View().Groups() {
		id := g.Group.Shards[0].ID
		leader := nodes[leaderOf(t, nodes, id)].node
		first := leader.dueShards(nil, now, week)
		at, found := first[id]
		if found != (len(g.Group.Shards[0].Replicas) == 2) {
			t.Errorf("shard %d is due: %v", id, found)
		}
		if found {
			due++
			if at.Before(now) || at.After(now.Add(week)) || leader.dueShards(first, now.Add(time.Hour), week)[id] != at {
				t.Errorf("shard %d is due at %v", id, at)
			}
		}
	}
	if due != 1 {
		t.Errorf("%d shards are due", due)
	}
}
