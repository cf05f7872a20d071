package wal

import (
	"bytes"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/dasudian/dsdb/internal/vfs"
)

// sample returns the bytes of a segment with a record of every type.
func sample(t testing.TB) []byte {
	mem := vfs.NewMem(1)
	l, _ := open(t, mem, Options{SegmentSize: 48 << 10})
	write(t, l, create(1, 1), create(2, 2), Update{Group: 1, Entries: entries(11, 14, 2, 40), HardState: &HardState{Term: 2, Vote: 1}})
	write(t, l, Update{Group: 1, Truncate: &Position{12, 2}, Conf: []byte("c")}, Update{Group: 2, Remove: true})
	write(t, l, Update{Group: 1, Reset: &GroupState{Replica: 1, HardState: HardState{Term: 3}, Truncated: Position{20, 3}}})
	write(t, l)
	l.Close()
	l, _ = open(t, mem, Options{SegmentSize: 48 << 10})
	write(t, l, Update{Group: 1, Entries: entries(21, 24, 3, 40)})
	l.Close()
	f, err := mem.Open(segmentFile(2))
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := f.Map()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzRecords feeds arbitrary bytes to the decoder of batch bodies: it must
// not panic, and what it accepts must apply, and say the same when written again.
func FuzzRecords(f *testing.F) {
	seg := sample(f)
	for off := pageSize; off+pageSize <= len(seg); off += pageSize {
		if h, ok := parseBatchHeader(seg[off:], 2, int64(off)); ok {
			f.Add(seg[off+batchHeaderSize:][:h.bodyLen], h.records)
		}
	}
	f.Add([]byte{}, uint32(0))
	f.Fuzz(func(t *testing.T, body []byte, n uint32) {
		if checkBody(body, n) != nil {
			return
		}
		l := &Log{table: newTable(), segs: []*segment{{seq: 1}}}
		p := place{seg: l.segs[0], batch: 1}
		l.table.applyBody(body, p)
		checkBooks2(t, l)
		copyEntries(body)
		var again []byte
		for rest := body; len(rest) > 0; {
			r, size, _ := parseRecord(rest)
			again = appendRecord(again, r)
			rest = rest[size:]
		}
		l2 := &Log{table: newTable(), segs: []*segment{{seq: 1}}}
		l2.table.applyBody(again, place{seg: l2.segs[0], batch: 1})
		a, _ := l.table.appendCheckpoint(nil)
		b, _ := l2.table.appendCheckpoint(nil)
		if !bytes.Equal(a, b) {
			t.Fatal("records written again mean something else")
		}
	})
}

// checkBooks2 checks what holds for any table, damaged or not.
func checkBooks2(t *testing.T, l *Log) {
	t.Helper()
	checkBooks(t, l)
	for id, g := range l.table.groups {
		if g.first <= g.state.Truncated.Index && g.state.Truncated.Index != ^uint64(0) {
			t.Fatalf("group %d: first %d, truncated at %d", id, g.first, g.state.Truncated.Index)
		}
		for i := range g.locs {
			g.term(g.first + uint64(i))
			g.segment(g.first + uint64(i))
		}
	}
}

// FuzzOpen puts arbitrary bytes into a segment, with checksums repaired so
// that they get past them: Open must not panic, and what it recovers must be
// the same when it is recovered again.
func FuzzOpen(f *testing.F) {
	seg := sample(f)
	f.Add(uint16(100), []byte{1}, false)
	f.Add(uint16(pageSize+batchHeaderSize+4), []byte{255, 255, 255, 255}, true)
	f.Add(uint16(pageSize+batchHeaderSize+36), []byte{255, 255, 255, 255, 255, 255, 255, 255}, true)
	f.Add(uint16(pageSize+12), []byte{0, 0, 0, 128}, true)
	f.Add(uint16(2*pageSize+24), []byte{7}, true)
	f.Fuzz(func(t *testing.T, at uint16, mutation []byte, repair bool) {
		b := bytes.Clone(seg)
		copy(b[min(int(at), len(b)):], mutation)
		if repair {
			repairChecksums(b)
		}
		mem := vfs.NewMem(1)
		if err := mem.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
		file, err := mem.Create(segmentFile(2))
		if err != nil {
			t.Fatal(err)
		}
		file.WriteAt(b, 0)
		l, _, err := Open(mem, dir, small())
		if err != nil {
			return
		}
		checkBooks2(t, l)
		before, _ := l.table.appendCheckpoint(nil)
		for _, id := range l.Groups() {
			first, last := l.Bounds(id)
			l.Entries(id, first, last+1, 1<<20, nil)
		}
		l.Close()
		var out strings.Builder
		if err := Inspect(mem, segmentFile(3), &out); err != nil || strings.Contains(out.String(), "DAMAGED") {
			t.Fatalf("the new segment is damaged: %v\n%s", err, out.String())
		}
		l, _, err = Open(mem, dir, small())
		if err != nil {
			t.Fatal(err)
		}
		if after, _ := l.table.appendCheckpoint(nil); !bytes.Equal(before, after) {
			t.Fatal("a second recovery finds something else")
		}
		l.Close()
	})
}

// repairChecksums makes the CRCs of headers and bodies match what is there.
func repairChecksums(b []byte) {
	le.PutUint32(b[12:], pageCRC(b))
	for off := pageSize; off < len(b); off += pageSize {
		h := rawBatchHeader(b[off:])
		if le.Uint32(b[off:]) != batchMagic {
			continue
		}
		if n := int(h.bodyLen); n <= len(b)-off-batchHeaderSize {
			h.bodyCRC = crc32.Checksum(b[off+batchHeaderSize:][:n], castagnoli)
		}
		h.put(b[off:])
	}
}
