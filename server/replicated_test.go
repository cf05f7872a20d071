package server

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/exec"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/server/httpd"
	"github.com/dasudian/dsdb/server/rpc"
)

// openCluster opens count nodes in this process, connected over loopback: the
// first one founds a cluster, the others join it.
func openCluster(t testing.TB, count int) []*client {
	t.Helper()
	var nodes []*client
	for i := range count {
		cfg := quietConfig()
		cfg.Meta.BindAddress, cfg.Meta.HTTPBindAddress = freeAddress(t), freeAddress(t)
		cfg.Coordinator.WriteTimeout = config.Duration(30 * time.Second)
		if i > 0 {
			cfg.Meta.Join = nodes[0].node.cfg.Meta.HTTPBindAddress
		}
		nodes = append(nodes, open(t, vfs.NewMem(uint64(i)), cfg))
	}
	if count%2 == 1 {
		eventually(t, "all nodes vote on the catalogue", func() bool {
			return len(nodes[0].node.host.Status(dsdb.MetaGroup).Members.Voters) == count
		})
	}
	t.Cleanup(func() {
		for _, c := range nodes {
			if err := c.node.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		if t.Failed() {
			for i, c := range nodes {
				t.Logf("node %d:\n%s", i, c.log)
			}
		}
	})
	return nodes
}

// What is written through one node is read through every other, whatever the
// number of replicas, and so is what is changed and deleted.
func TestAnyNodeCoordinates(t *testing.T) {
	t.Parallel()
	nodes := openCluster(t, 3)
	for rf := 1; rf <= 3; rf++ {
		db := fmt.Sprintf("rf%d", rf)
		nodes[rf%3].mustQuery("", fmt.Sprintf("CREATE DATABASE %s WITH REPLICATION %d", db, rf))
		for i, c := range nodes {
			c.mustWrite(db, fmt.Sprintf("cpu,host=a n=%di %d\ncpu,host=b n=%di %d\ncpu,host=c n=%di %d", i, 10*i+1, i, 10*i+2, i, 10*i+3))
			for _, reader := range nodes {
				reader.expect(db, "SELECT count(n), sum(n) FROM cpu", fmt.Sprintf("cpu time=0 count=%d sum=%d", 3*(i+1), 3*(i*(i+1)/2)))
			}
		}
		nodes[0].mustQuery(db, "DELETE FROM cpu WHERE host = 'a'")
		for _, reader := range nodes {
			reader.expect(db, "SELECT count(n) FROM cpu; SHOW TAG VALUES WITH KEY = host", "cpu time=0 count=6\ncpu key=host value=b\ncpu key=host value=c")
		}
	}
	nodes[2].mustQuery("", "DROP DATABASE rf2")
	for _, c := range nodes {
		c.expect("", "SHOW DATABASES", "databases name=rf1\ndatabases name=rf3")
	}
}

// leaderOf returns the node that leads a shard's group.
func leaderOf(t testing.TB, nodes []*client, id dsdb.ShardID) int {
	t.Helper()
	leader := -1
	eventually(t, fmt.Sprintf("shard %d has a leader", id), func() bool {
		leader = slices.IndexFunc(nodes, func(c *client) bool { return c.node.host.Status(id.Group()).Leading })
		return leader >= 0
	})
	return leader
}

// With one of three nodes gone everything goes on, but for consistency level
// all, which says how far the write got; with two gone only stale reads do.
func TestNodesGo(t *testing.T) {
	nodes := openCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	nodes[1].mustWrite("db", "cpu,host=a n=1i 1\ncpu,host=b n=2i 2")
	for _, level := range []string{"", "any", "one", "quorum", "all"} {
		nodes[2].insistAs(level, "db", "cpu,host=c n=3i 3")
	}
	gone := leaderOf(t, nodes, nodes[0].node.meta.View().Groups()[0].Group.Shards[0].ID)
	nodes[gone].close()
	left := slices.Delete(slices.Clone(nodes), gone, gone+1)
	for i, c := range left {
		c.mustWrite("db", fmt.Sprintf("cpu,host=d n=4i %d", 4+i))
		c.expect("db", "SELECT count(n) FROM cpu", fmt.Sprintf("cpu time=0 count=%d", 4+i))
		c.mustQuery("", fmt.Sprintf("CREATE DATABASE new%d", i))
		wantError(t, c.writeAs("all", "db", "cpu,host=a n=1i 1"), dsdb.KindUnavailable, "write failed: partial: committed on 2 of 3 replicas")
	}
	left[1].close()
	last := left[0]
	want := "cpu time=0 count=5"
	for _, level := range []readLevel{{Read: httpd.ReadStale}, {Read: httpd.ReadStale, Staleness: time.Minute}} {
		if got, err := last.ask(level, "db", "SELECT count(n) FROM cpu"); err != nil || got != want {
			t.Errorf("%v without a quorum: %q %v", level, got, err)
		}
	}
	began := time.Now()
	_, err := last.query("db", "SELECT count(n) FROM cpu")
	wantError(t, err, dsdb.KindUnavailable, "no quorum")
	_, err = last.ask(readLevel{Read: httpd.ReadStale, Staleness: time.Nanosecond}, "db", "SELECT count(n) FROM cpu")
	wantError(t, err, dsdb.KindUnavailable, "max_staleness")
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("it took %v to tell that there is no quorum", took)
	}
	last.node.cfg.Coordinator.WriteTimeout = config.Duration(time.Second)
	if err := last.write("db", "cpu,host=a n=1i 1"); dsdb.KindOf(err) != dsdb.KindUnavailable && dsdb.KindOf(err) != dsdb.KindTimeout {
		t.Errorf("write without a quorum: %v", err)
	}
	_, err = last.query("", "CREATE DATABASE never")
	wantError(t, err, dsdb.KindUnavailable, "no quorum: 1/3 meta nodes reachable")
}

// replica returns the replica of a shard that a node holds, as the catalogue has it.
func (c *client) replica(t testing.TB, id dsdb.ShardID) (meta.Replica, bool) {
	t.Helper()
	ref, found := c.node.meta.View().Shard(id)
	if !found {
		t.Fatalf("no shard %d", id)
	}
	return ref.Shard.On(c.node.dataID)
}

// A replica with damaged files is replaced by a new one on the same node, in a
// folder of its own, and the old files are freed.
func TestS19DamagedReplicaIsReplaced(t *testing.T) {
	t.Parallel()
	nodes := openCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	nodes[1].mustWrite("db", "cpu,host=a n=1i 1\ncpu,host=b n=2i 2")
	victim := nodes[2]
	id := nodes[1].node.meta.View().Groups()[0].Group.Shards[0].ID // the node that wrote knows it
	eventually(t, "the points are here", func() bool {
		list := victim.node.shards.list()
		return len(list) > 0 && list[0].Stats().MemRows == 2
	})
	old, _ := victim.replica(t, id)
	victim.flushAll()
	victim.close()
	disk := victim.node.fs.(*vfs.Mem)
	folder := fmt.Sprintf("/node/data/shard/%d", id)
	flip(t, disk, folder+"/MANIFEST", 100)
	again := open(t, disk, victim.node.cfg)
	nodes[2] = again
	nodes[0].mustWrite("db", "cpu,host=c n=3i 3")
	again.expect("db", "SELECT count(n) FROM cpu", "cpu time=0 count=3")
	eventually(t, "a new replica votes", func() bool {
		r, found := again.replica(t, id)
		return found && r.ID != old.ID && r.Role == meta.Voter
	})
	r, _ := again.replica(t, id)
	eventually(t, "the new replica is the only one here", func() bool {
		_, err := disk.Stat(folder)
		_, err2 := disk.Stat(fmt.Sprintf("%s.%d", folder, r.ID))
		return err != nil && err2 == nil
	})
	nodes[0].close()
	again.mustWrite("db", "cpu,host=d n=4i 4")
	again.expect("db", "SELECT count(n) FROM cpu", "cpu time=0 count=4")
	again = again.reopen()
	nodes[2] = again
	nodes[1].close()
	if got, err := again.ask(readLevel{Read: httpd.ReadStale}, "db", "SELECT sum(n) FROM cpu"); err != nil || got != "cpu time=0 sum=10" {
		t.Errorf("what the new replica holds: %q %v", got, err)
	}
}

// Nodes stop and start again one after the other while all of them are written
// to and read: nothing that was acknowledged is missing from any later read.
func TestRestartsUnderLoad(t *testing.T) {
	t.Parallel()
	for _, replicas := range []int{2, 3} {
		t.Run(fmt.Sprintf("%d replicas", replicas), func(t *testing.T) { restartsUnderLoad(t, replicas) })
	}
}

func restartsUnderLoad(t *testing.T, replicas int) {
	nodes := openCluster(t, 3)
	var tried, acked atomic.Int64
	var using [3]sync.RWMutex // held for reading by who uses the node, for writing while it is down
	nodes[0].mustQuery("", fmt.Sprintf("CREATE DATABASE db WITH REPLICATION %d", replicas))
	fine := func(what string, err error) bool {
		if k := dsdb.KindOf(err); err != nil && k != dsdb.KindUnavailable && k != dsdb.KindTimeout {
			t.Errorf("%s: kind %d: %v", what, k, err)
		}
		return err == nil
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	each := func(do func(c *client)) {
		for i := range nodes {
			all.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if using[i].TryRLock() {
						do(nodes[i])
						using[i].RUnlock()
					}
				}
			})
		}
	}
	each(func(c *client) {
		n := tried.Add(1)
		if fine("write", c.write("db", fmt.Sprintf("cpu,host=h%d n=%di %d", n%10, n, n))) {
			acked.Add(1)
		}
	})
	each(func(c *client) {
		least := acked.Load()
		out, err := c.query("db", "SELECT count(n) FROM cpu")
		if !fine("query", err) {
			return
		}
		var got int64
		_, _ = fmt.Sscanf(out, "cpu time=0 count=%d", &got)
		if got < least || got > tried.Load() {
			t.Errorf("%d points read, %d were acknowledged and %d tried: %q", got, least, tried.Load(), out)
		}
	})
	for i := range nodes {
		using[i].Lock()
		nodes[i].close()
		if i > 0 {
			time.Sleep(300 * time.Millisecond) // the others find it gone
		}
		nodes[i] = open(t, nodes[i].node.fs, nodes[i].node.cfg)
		using[i].Unlock()
		before := acked.Load()
		eventually(t, "writes go on", func() bool { return acked.Load() > before+20 })
	}
	close(stop)
	all.Wait()
	t.Logf("%d tried, %d acknowledged", tried.Load(), acked.Load())
	for _, c := range nodes {
		var got int64
		_, _ = fmt.Sscanf(c.mustQuery("db", "SELECT count(n) FROM cpu"), "cpu time=0 count=%d", &got)
		if got < acked.Load() || got > tried.Load() {
			t.Errorf("%d points in the end, %d were acknowledged and %d tried", got, acked.Load(), tried.Load())
		}
	}
}

// The only copy of some points lies on a node that fails a query for a moment, as a
// busy one does: it is asked again, not taken for gone.
func TestOnlyCopyIsAskedAgain(t *testing.T) {
	t.Parallel()
	nodes := openCluster(t, 2)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 1")
	nodes[0].mustWrite("db", "cpu n=1i 1")
	holder := leaderOf(t, nodes, shardOf(nodes[0]).ID)
	asked := atomic.Int64{}
	nodes[holder].node.peers.HandleStream(methodQuery, func(ctx context.Context, from rpc.Process, s *rpc.Stream) error {
		if asked.Add(1) <= 2 {
			return dsdb.Errorf(dsdb.KindUnavailable, "not now")
		}
		return nodes[holder].node.serveQuery(ctx, from, s)
	})
	nodes[1-holder].expect("db", "SELECT n FROM cpu", "cpu time=1 n=1")
}

// A deletion is begun again when a node fails that is asked what is left. Where it has
// been made it is not made again: what was written there since stays.
func TestDeletionIsNotMadeTwice(t *testing.T) {
	t.Parallel()
	nodes := openCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 2")
	now := int(time.Now().Unix())
	nodes[0].mustWrite("db", spread(now))
	deleted := func(id dsdb.ShardID) bool {
		return slices.ContainsFunc(nodes, func(c *client) bool {
			sh, err := c.node.shards.get(id)
			return err == nil && sh.Stats().Deletes > 0
		})
	}
	failed := atomic.Bool{}
	for _, other := range nodes[1:] {
		other.node.peers.HandleStream(methodQuery, func(ctx context.Context, from rpc.Process, s *rpc.Stream) error {
			id := remoteShard(nodes[0])
			if !deleted(id) || failed.Swap(true) {
				return other.node.serveQuery(ctx, from, s)
			}
			nodes[0].mustWrite("db", spread(now+1))
			if _, err := s.Recv(); err != nil {
				return err
			}
			return exec.Serve(ctx, s, func(context.Context, dsdb.ShardID) (exec.Source, error) {
				return nil, unread{other.node.dataID, id}.error(dsdb.Errorf(dsdb.KindUnavailable, "not now"))
			}, other.node.execOptions(0))
		})
	}
	nodes[0].mustQuery("db", "DELETE FROM cpu WHERE host =~ /h/")
	if !failed.Load() {
		t.Error("no node failed")
	}
	nodes[0].expect("db", "SELECT count(n) FROM cpu", "cpu time=0 count=12")
}

// remoteShard returns a shard of which a node has no copy.
func remoteShard(c *client) dsdb.ShardID {
	shards := c.node.meta.View().Groups()[0].Group.Shards
	return shards[slices.IndexFunc(shards, func(sh meta.Shard) bool {
		return !slices.Contains(sh.Owners(), c.node.dataID)
	})].ID
}
