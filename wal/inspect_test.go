package wal

import (
	"strings"
	"testing"

	"github.com/dasudian/dsdb/internal/vfs"
)

func TestInspect(t *testing.T) {
	mem := vfs.NewMem(1)
	l, _ := open(t, mem, small())
	write(t, l, create(1, 1), create(4, 2), Update{Group: 1, Entries: entries(11, 13, 2, 40), HardState: &HardState{Term: 2, Vote: 1, Commit: 11}})
	write(t, l, Update{Group: 4, Remove: true})
	write(t, l, Update{Group: 1, Truncate: &Position{11, 2}})
	l.Close()
	flip(t, mem, segmentFile(1), 3*pageSize+90, 1)
	var out strings.Builder
	if err := Inspect(mem, segmentFile(1), &out); err != nil {
		t.Fatal(err)
	}
	const want = `
segment 0000000000000001  cluster 00000000000000000000000000000000  node 00000000000000000000000000000000  32768 bytes
follows segment 0000000000000000, which ends at 0 with batch 0
      4096  batch 1  0 bytes  0 records  synced up to batch 0  checkpoint
      8192  batch 2  432 bytes  5 records  synced up to batch 1
      8256    create  group 1 replica 1  term 1 vote 0 commit 10  truncated 1.10  last 10  terms []  conf 6 bytes
      8352    create  group 4 replica 2  term 1 vote 0 commit 10  truncated 1.10  last 10  terms []  conf 6 bytes
      8448    entry  group 1 replica 1  2.11 kind 2, 40 bytes
      8536    entry  group 1 replica 1  2.12 kind 0, 40 bytes
      8624    hardstate  group 1 replica 1  term 2 vote 1 commit 11
     12288  DAMAGED up to 16384: batch checksum does not match
     16384  batch 4  48 bytes  1 records  synced up to batch 3  (batch 3 was due)
     16448    truncate  group 1 replica 1  2.11 conf 0 bytes
     20480  batch 5  48 bytes  1 records  synced up to batch 4
     20544    clean-shutdown
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
