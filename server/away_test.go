package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/server/httpd"
)

// Who writes to a shard whose copies are lost is told which node had them and what
// can be done; to drop that node by force says that writes fail until the shard
// goes on from the copy that is left, which it then does.
func TestLostCopiesAreTold(t *testing.T) {
	t.Parallel()
	nodes := []*machine{newMachine(t).start()}
	nodes = append(nodes, newMachine(t, joins(nodes[0])).start(),
		newMachine(t, joins(nodes[0]), func(c *config.Config) { c.Data.Enabled = false }).start())
	agree(t, nodes...)
	allVote(t, nodes...)
	nodes[0].mustQuery("", "CREATE DATABASE one WITH REPLICATION 1; CREATE DATABASE two WITH REPLICATION 2")
	nodes[0].mustWrite("one", "m v=1 1\nm v=2 8640000000000000") // two time groups, one on each node
	nodes[0].mustWrite("two", "m v=1 1")
	lost, addr := nodes[1].node.id.DataID, nodes[1].cfg.Meta.BindAddress
	var single, double meta.ShardRef
	for _, ref := range nodes[0].node.meta.View().Groups() {
		for _, sh := range ref.Group.Shards {
			switch _, on := sh.On(lost); {
			case ref.Database.Name == "two":
				double = meta.ShardRef{GroupRef: ref, Shard: sh}
			case on:
				single = meta.ShardRef{GroupRef: ref, Shard: sh}
			}
		}
	}
	nodes[1].halt()

	told := func(what string, err error, words string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), words) || strings.Count(err.Error(), words) > 1 {
			t.Errorf("%s: error %v, want one with %q once", what, err, words)
		}
	}
	only := fmt.Sprintf("the only copy of shard %d is on node %d (%s): bring it back, or give its points up by DROP DATA SERVER %d FORCE", single.Shard.ID, lost, addr, lost)
	told("write", nodes[2].write("one", fmt.Sprintf("m v=3 %d", single.Group.Range.Start+5)), only)
	_, err := nodes[0].query("one", "SELECT * FROM m")
	told("read", err, only)
	most := fmt.Sprintf("shard %d has no majority of its replicas without node %d (%s)", double.Shard.ID, lost, addr)
	told("write to two copies", nodes[2].write("two", "m v=3 2"), most)

	told("write to two copies", nodes[2].write("two", "m v=3 2"), fmt.Sprintf("give them up by DROP DATA SERVER %d FORCE: it then goes on", lost))
	code, body := nodes[0].askHTTP("", "", "", fmt.Sprintf("DROP DATA SERVER %d FORCE", lost))
	if code != 200 || !strings.Contains(body, `"messages":[{"level":"warning","text":"writes fail until then: `+most) {
		t.Errorf("by force: %d %s", code, body)
	}
	nodes[2].mustWrite("one", fmt.Sprintf("m v=3 %d", single.Group.Range.Start+5)) // its points are given up
	if got, err := nodes[2].ask(readLevel{Read: httpd.ReadStale}, "two", "SELECT * FROM m"); got != "m time=1 v=1" {
		t.Errorf("what is left: %q, %v", got, errors.Unwrap(err))
	}
	eventually(t, "the shard goes on", func() bool { return nodes[2].write("two", "m v=3 2") == nil })
	nodes[0].expect("two", "SELECT * FROM m", "m time=1 v=1\nm time=2 v=3")
}

// Nobody is told to give points up while the node that has them is starting, nor by a
// node that has just started itself and has not heard of it yet.
func TestPointsOfAStartingNodeAreNotToBeGivenUp(t *testing.T) {
	t.Parallel()
	nodes := []*machine{newMachine(t).start()}
	nodes = append(nodes, newMachine(t, joins(nodes[0]), func(c *config.Config) { c.Data.Enabled = false }).start(),
		newMachine(t, joins(nodes[0]), func(c *config.Config) { c.Data.Enabled = false }).start())
	agree(t, nodes...)
	allVote(t, nodes...)
	holder, asked := nodes[0], nodes[2]
	asked.mustQuery("", "CREATE DATABASE one")
	asked.mustWrite("one", "m v=1 1")
	holder.halt()
	asked.halt()
	asked.cfg.Coordinator.WriteTimeout = config.Duration(500 * time.Millisecond)
	asked.start()
	name := fmt.Sprintf("node %d (%s)", holder.node.id.DataID, holder.cfg.Meta.BindAddress)
	told := func(words, never string) {
		t.Helper()
		eventually(t, "who writes is told: "+words, func() bool {
			err := asked.write("one", "m v=2 2")
			if err == nil || strings.Contains(err.Error(), never) {
				t.Fatalf("told %v, waiting for %q", err, words)
			}
			return strings.Contains(err.Error(), words)
		})
	}
	told("the only copy of shard 1 is on "+name+": nothing was heard of "+name+" since this node was started", "FORCE")
	waits := newMachine(t, joins(newMachine(t)))
	waits.cfg.Meta.BindAddress, waits.cfg.Meta.HTTPBindAddress = holder.cfg.Meta.BindAddress, holder.cfg.Meta.HTTPBindAddress
	waits.launch()
	told("the only copy of shard 1 is on "+name+": "+name+" is starting", "FORCE")
	waits.halt()
	asked.halt()
	asked.cfg.Meta.DeadTimeout = 1 // so that it has heard of nobody for long enough
	asked.start()
	told(fmt.Sprintf("give its points up by DROP DATA SERVER %d FORCE", holder.node.id.DataID), "starting")
}

// Who asks all replicas of a shard and finds none that leads tells users so, in
// their words.
func TestShardWithoutALeaderIsTold(t *testing.T) {
	told := &dsdb.Error{Kind: dsdb.KindNotLeader, Text: "raft group 2: replica 9 does not lead (leader is 0)"}
	expired := &dsdb.Error{Kind: dsdb.KindUnavailable, Text: "write failed: " + told.Text, Err: told}
	other := dsdb.Errorf(dsdb.KindUnavailable, "write failed: node 4 cannot be reached")
	halted := &dsdb.Error{Kind: dsdb.KindUnavailable, Text: "write failed: upgrade this node", Err: &dsdb.Error{Kind: dsdb.KindNotLeader, Text: "upgrade this node"}}
	for _, c := range []struct {
		err  error
		kind dsdb.Kind
		want string
	}{
		{expired, dsdb.KindUnavailable, "write failed: shard 2 has no leader at the moment, try again"},
		{&dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout", Err: expired}, dsdb.KindTimeout, "timeout: the write may have succeeded (shard 2 has no leader at the moment, try again)"},
		{other, dsdb.KindUnavailable, other.Error()},
		{halted, dsdb.KindUnavailable, halted.Error()},
	} {
		if err := writeFailed(leaderless(2, failure(2), c.err)); err.Error() != c.want || dsdb.KindOf(err) != c.kind {
			t.Errorf("%v: %v", c.err, err)
		}
	}
	if err := leaderless(2, failure(2), nil); err != nil {
		t.Error(err)
	}
}
