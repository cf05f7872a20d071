package shard

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/vfs"
)

// heapAlloc returns the bytes that are in use.
func heapAlloc() int64 {
	runtime.GC()
	runtime.GC() // pools are emptied by the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A node has thousands of shards open, and each has had a large entry once: the
// room that it took to apply that is not each shard's to keep.
func TestAnIdleShardHoldsNoScratchMemory(t *testing.T) {
	const rows, columns, shards = 20_000, 8, 40
	table := column.Table{Measurement: "cpu", Series: make([]uint32, rows), Times: make([]int64, rows), MinTime: -1, MaxTime: -1}
	table.Keys.Append([]byte("cpu,host=a"))
	for i := range rows {
		table.Times[i] = -1 // outside of the shard, so that nothing of the entry stays in its memtable
	}
	for i := range columns {
		table.Columns = append(table.Columns, column.Column{Name: fmt.Sprint("f", i), Type: dsdb.Integer, Bits: make([]uint64, rows)})
	}
	entry := AppendWrite(nil, dsdb.ProposalID{Node: 1, Epoch: 1, Seq: 1}, &column.WriteBatch{Tables: []column.Table{table}})
	disk := vfs.NewMem(1)
	before := heapAlloc()
	var open []*Shard
	for id := range dsdb.ShardID(shards) {
		s, err := Open(Options{FS: disk, Dir: fmt.Sprint("/data/", id), ID: id, Range: testRange})
		check(t, err)
		v, err := s.Apply([]dsdb.Entry{{Index: 1, Term: 1, Data: entry}})
		check(t, err)
		if v[0].Rejected != rows {
			t.Fatalf("%d rows rejected of %d", v[0].Rejected, rows)
		}
		open = append(open, s)
	}
	if each := (heapAlloc() - before) / shards; each > rows*columns {
		t.Errorf("each of %d shards holds %d bytes after an entry of %d values", shards, each, rows*columns)
	}
	for _, s := range open {
		check(t, s.Close())
	}
}

// The few that have scratch memory let it go when it has grown beyond reason.
func TestCostlyScratchMemoryIsLetGo(t *testing.T) {
	w := &writer{uses: checkScratch - 1}
	w.batch.Tables = []column.Table{{Columns: []column.Column{{Bits: make([]uint64, keepScratch/8)}}}}
	w.batch.Tables = w.batch.Tables[:0]
	if w.free(); writers.Get().(*writer) == w {
		t.Error("it is given to the next")
	}
}
