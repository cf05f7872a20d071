package server

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/wal"
)

// The power goes as soon as DROP DATABASE is acknowledged, before its shards
// are removed. The next start removes their files and their groups in the log,
// which would otherwise keep the log from shrinking for ever.
func TestACrashRightAfterDropLeavesNothingInTheLog(t *testing.T) {
	for seed := range int64(5) {
		disk := vfs.NewMem(uint64(seed))
		dropping, logWrites := false, 0
		var crashed *vfs.Mem
		var mu sync.Mutex
		c := open(t, vfs.Faulty(disk, func(op, path string) error {
			mu.Lock()
			defer mu.Unlock()
			if dropping && op == vfs.OpWrite && strings.HasPrefix(path, "/node/wal") {
				if logWrites++; logWrites == 2 { // the first says DROP DATABASE, the second erases its groups
					crashed = disk.CrashClone(0, uint64(seed))
				}
			}
			return nil
		}), quietConfig())
		c.mustQuery("", "CREATE DATABASE d")
		c.mustWrite("d", "m v=1 1\nm v=2 1000000000000000000")
		mu.Lock()
		dropping = true
		mu.Unlock()
		c.mustQuery("", "DROP DATABASE d")
		eventually(t, "the groups are erased", func() bool { return len(c.node.wal.Groups()) == 1 })
		c.close()
		c = open(t, crashed, quietConfig())
		if got := c.node.wal.Groups(); len(got) != 1 {
			t.Errorf("the log still has groups %v", got)
		}
		if names, err := crashed.List("/node/data/shard"); err != nil || len(names) > 0 {
			t.Errorf("folders left: %v %v", names, err)
		}
		c.close()
	}
}

// The catalogue's file is older than what this node had applied when it
// crashed: it places a replica here that has left since, as the log knows. The
// node starts all the same, for a newer catalogue will say so too.
func TestAReplicaThatHasLeftIsNotStartedByAnOldCatalogue(t *testing.T) {
	disk := vfs.NewMem(1)
	c := open(t, disk, quietConfig())
	c.mustQuery("", "CREATE DATABASE d")
	c.mustWrite("d", "m v=1 1\nm v=2 1000000000000000000")
	groups := c.node.wal.Groups()
	left := groups[len(groups)-1]
	crashed := disk.CrashClone(0, 1)
	c.close()
	var o wal.Options
	if err := stamp(&o, c.node.id); err != nil {
		t.Fatal(err)
	}
	log, _, err := wal.Open(crashed, "/node/wal", o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(log.Write([]wal.Update{{Group: left, Remove: true}}, true), log.Close()); err != nil {
		t.Fatal(err)
	}
	c = open(t, crashed, quietConfig())
	defer c.close()
	if _, err := c.node.shards.get(dsdb.ShardID(left)); dsdb.KindOf(err) != dsdb.KindNotFound && dsdb.KindOf(err) != dsdb.KindNotLeader {
		t.Errorf("the shard whose replica has left: %v", err)
	}
	if got := c.mustQuery("d", "SELECT v FROM m WHERE time < 1000"); !strings.Contains(got, "time=1 v=1") {
		t.Errorf("the other shard answers %s", got)
	}
}

// Nothing is kept for a shard that is no more: whoever creates and drops shards
// for years has no more to remember than are there.
func TestDroppedShardsAreForgotten(t *testing.T) {
	disk := vfs.NewMem(1)
	c := open(t, disk, quietConfig())
	c.mustQuery("", "CREATE DATABASE d")
	c.mustWrite("d", "m v=1 1")
	groups := c.node.wal.Groups()
	g := groups[len(groups)-1]
	c.node.routes.leaders.Learn(g, c.node.dataID)
	if id, _ := c.node.routes.sequencer.Take(g); id.Seq < 2 {
		t.Fatalf("proposal %d is the next to the shard", id.Seq)
	} else {
		c.node.routes.sequencer.Release(g, id)
	}
	c.node.routes.heard.note(g, 1<<40)
	c.mustQuery("", "DROP DATABASE d")
	eventually(t, "the shard is gone", func() bool { names, err := disk.List("/node/data/shard"); return err == nil && len(names) == 0 })
	c.node.routes.fresh.Current(g, 0) // a read that was under way
	c.mustQuery("", "CREATE DATABASE e")
	eventually(t, "it is forgotten who led the shard", func() bool { return c.node.routes.leaders.Leader(g) == 0 })
	eventually(t, "and which proposals it had", func() bool {
		id, _ := c.node.routes.sequencer.Take(g)
		c.node.routes.sequencer.Release(g, id)
		return id.Seq == 1
	})
	eventually(t, "and what was committed there", func() bool { return c.node.committed(g) == 0 })
	eventually(t, "and how fresh it was", func() bool { return !c.node.routes.fresh.Within(g, 0, 1) })
	c.close()
}
