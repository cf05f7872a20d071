package server

import (
	"testing"

	"github.com/dasudian/dsdb/internal/vfs"
)

// The power goes as soon as DROP DATABASE is acknowledged, before its shards
// are removed. The next start removes their files and their groups in the log,
// which would otherwise keep the log from shrinking for ever.
func TestACrashRightAfterDropLeavesNothingInTheLog(t *testing.T) {
	for seed := range int64(5) {
		disk := vfs.NewMem(uint64(seed))
		c := open(t, disk, quietConfig())
		c.mustQuery("", "CREATE DATABASE d")
		c.mustWrite("d", "m v=1 1\nm v=2 1000000000000000000")
		c.node.shards.changing.Lock() // nothing is removed while this is held
		c.mustQuery("", "DROP DATABASE d")
		crashed := disk.CrashClone(0, uint64(seed))
		c.node.shards.changing.Unlock()
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
