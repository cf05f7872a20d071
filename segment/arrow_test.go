package segment

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Arrow's own reader opens every segment and sees in its columns what ours has
// read without Arrow.
func TestSegmentIsArrowFile(t *testing.T) {
	for seed := range uint64(10) {
		f, _ := write(t, Options{Entropy: true}, randomSeries(seed))
		compareWithArrow(t, f, open(t, f))
	}
	f, _ := write(t, Options{}, nil)
	compareWithArrow(t, f, open(t, f))
}

// columnsByPosition returns what the reader has found, by its position in the file.
func columnsByPosition(r *Reader) (map[int64]*blockColumn, map[int64]*block) {
	columns, blocks := map[int64]*blockColumn{}, map[int64]*block{}
	for g := range r.groups {
		for b := range r.groups[g].blocks {
			blk := &r.groups[g].blocks[b]
			for c := range blk.columns {
				columns[blk.columns[c].off] = &blk.columns[c]
				blocks[blk.columns[c].off] = blk
			}
		}
	}
	return columns, blocks
}

func compareWithArrow(t *testing.T, f *memFile, r *Reader) {
	t.Helper()
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	ar, err := ipc.NewFileReader(bytes.NewReader(f.b), ipc.WithAllocator(mem))
	if err != nil {
		t.Fatal(err)
	}
	defer ar.Close()
	meta := ar.Schema().Metadata()
	if got, _ := meta.GetValue(metaMaxIndex); got != "18446744073709551615" {
		t.Fatalf("metadata is %v", meta)
	}
	want, blocks := columnsByPosition(r)
	seen, last := 0, int64(0)
	for i := range ar.NumRecords() {
		rec, err := ar.Record(i)
		if err != nil {
			t.Fatal(err)
		}
		kind := rec.Column(0).(*array.Uint8)
		field := rec.Column(2).(*array.Uint32)
		series := rec.Column(4).(*array.List)
		sids := series.ListValues().(*array.Uint32)
		values := rec.Column(5).(*array.Uint64)
		data := rec.Column(8).(*array.LargeBinary)
		for row := range int(rec.NumRows()) {
			if kind.Value(row) == kindHuffman {
				continue
			}
			off := last + int64(bytes.Index(f.b[last:], data.Value(row)))
			last = off + 1
			col := want[off]
			if col == nil || col.field != field.Value(row) || col.kind != kind.Value(row) || col.values != values.Value(row) ||
				col.len != int64(len(data.Value(row))) {
				t.Fatalf("record %d row %d of field %d is not what the reader has at %d: %+v", i, row, field.Value(row), off, col)
			}
			blk := blocks[off]
			tmin, tmax := rec.Column(6).(*array.Timestamp).Value(row), rec.Column(7).(*array.Timestamp).Value(row)
			if int64(tmin) != blk.tmin || int64(tmax) != blk.tmax {
				t.Fatalf("record %d row %d spans [%d, %d], want [%d, %d]", i, row, tmin, tmax, blk.tmin, blk.tmax)
			}
			if kind.Value(row) == kindTime {
				start, end := series.ValueOffsets(row)
				for k := start; k < end; k++ {
					if binary.LittleEndian.Uint32(blk.sids[4*(k-start):]) != sids.Value(int(k)) {
						t.Fatalf("record %d row %d has other series", i, row)
					}
				}
			}
			seen++
		}
	}
	if seen != len(want) {
		t.Fatalf("arrow sees %d rows, the reader %d", seen, len(want))
	}
}

// The parts of a measurement that is too large to be held back are found like any other.
func TestManyBatchesAndRuns(t *testing.T) {
	f := &memFile{}
	w := NewWriter(f, Header{}, Options{})
	series := randomSeries(3)
	for i := range series {
		if err := w.Add(series[i].measurement, series[i].sid, series[i].times, series[i].cols); err != nil {
			t.Fatal(err)
		}
		w.closeBlock()
		if err := w.writeRun(); err != nil {
			t.Fatal(err)
		}
		if err := w.writeBatch(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	verify(t, open(t, f), series)
}
