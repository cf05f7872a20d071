package server

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dasudian/dsdb/internal/vfs"
)

// tightFS is a file system whose disk has hardly any space left while tight is set.
type tightFS struct {
	vfs.FS
	tight atomic.Bool
}

// Free implements vfs.FS.
func (f *tightFS) Free(dir string) (free, total uint64, err error) {
	if f.tight.Load() {
		return 1 << 30, 1 << 40, nil
	}
	return f.FS.Free(dir)
}

// A data node that cannot be emptied, since no disk has space for its copies, says
// so where its state is looked up, on any node, and the log does. It goes on when
// there is space.
func TestDrainWithoutSpaceIsTold(t *testing.T) {
	t.Parallel()
	nodes := []*machine{newMachine(t).start()}
	tight := newMachine(t, joins(nodes[0]))
	disk := &tightFS{FS: tight.fs}
	disk.tight.Store(true)
	tight.fs = disk
	nodes = append(nodes, tight.start(), newMachine(t, joins(nodes[0])).start())
	agree(t, nodes...)
	allVote(t, nodes...)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 2")
	for i := range 6 {
		nodes[0].mustWrite("db", fmt.Sprintf("m v=1 %d", int64(i)*30*24*3600e9))
	}
	id := nodes[2].node.id.DataID
	nodes[0].mustQuery("", fmt.Sprintf("DROP DATA SERVER %d", id))
	for _, m := range nodes[:2] {
		eventually(t, "the reason is shown", func() bool {
			return strings.Contains(m.mustQuery("", "SHOW CLUSTER"), "leaving: no data node has space for shard ")
		})
	}
	eventually(t, "the reason is logged", func() bool {
		return strings.Contains(nodes[0].log.String()+nodes[1].log.String()+nodes[2].log.String(), "no data node has space for shard ")
	})
	disk.tight.Store(false)
	eventually(t, "the node is gone", func() bool {
		return !strings.Contains(nodes[0].mustQuery("", "SHOW CLUSTER"), fmt.Sprintf("data_id=%d ", id))
	})
}
