package column_test

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/dasudian/dsdb/column"
)

// Splitting keeps each part's rows in order, and no key or column without a row.
func TestSplit(t *testing.T) {
	var p column.Partitioner
	rapid.Check(t, func(t *rapid.T) {
		b := genBatch(t)
		all := rowsOf(b)
		n := rapid.IntRange(1, 5).Draw(t, "parts")
		salt := rapid.Uint64().Draw(t, "salt")
		part := func(table, key int, at int64) int { return int(mix(salt, table*100+key)%uint64(n+1)) - 1 }
		want := make([][]string, n)
		i := 0
		for ti := range b.Tables {
			tb := &b.Tables[ti]
			for r := range tb.Rows() {
				if w := part(ti, int(tb.Series[r]), tb.Times[r]); w >= 0 {
					want[w] = append(want[w], all[i])
				}
				i++
			}
		}
		for i, got := range p.Split(b, n, part) {
			if got == nil {
				got = &column.WriteBatch{}
			}
			if rows := rowsOf(got); !reflect.DeepEqual(rows, want[i]) {
				t.Fatalf("part %d has %v, want %v", i, rows, want[i])
			}
			if got != b {
				checkTight(t, got)
			}
		}
	})
}

func TestDrop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := genBatch(t)
		salt := rapid.Uint64().Draw(t, "salt")
		var want []string
		i, all := 0, rowsOf(b)
		drops := make([]column.Bitmap, len(b.Tables))
		for ti := range b.Tables {
			drops[ti] = column.NewBitmap(b.Tables[ti].Rows())
			for r := range b.Tables[ti].Rows() {
				if mix(salt, i)%4 == 0 || salt%5 == 0 {
					drops[ti].Set(r)
				} else {
					want = append(want, all[i])
				}
				i++
			}
		}
		for ti, rows := range drops {
			before := b.Tables[ti].Rows()
			b.Drop(ti, rows)
			if b.Tables[ti].Rows() < before {
				checkTight(t, &column.WriteBatch{Tables: b.Tables[ti : ti+1]})
			}
		}
		if got := rowsOf(b); !reflect.DeepEqual(got, want) {
			t.Fatalf("kept %v, want %v", got, want)
		}
		var back column.WriteBatch
		if err := back.Decode(b.Append(nil)); err != nil || !reflect.DeepEqual(rowsOf(&back), want) {
			t.Fatalf("what is left does not read back: %v", err)
		}
	})
}

// checkTight fails if a table has a key or a column that no row uses, or wrong bounds.
func checkTight(t *rapid.T, b *column.WriteBatch) {
	for i := range b.Tables {
		tb := &b.Tables[i]
		seen := map[uint32]bool{}
		for r, s := range tb.Series {
			seen[s] = true
			if tb.Times[r] < tb.MinTime || tb.Times[r] > tb.MaxTime {
				t.Fatalf("time %d outside %d … %d", tb.Times[r], tb.MinTime, tb.MaxTime)
			}
		}
		if len(seen) != tb.Keys.Len() {
			t.Fatalf("%d keys for %d series", tb.Keys.Len(), len(seen))
		}
		for _, c := range tb.Columns {
			used := false
			for r := range tb.Rows() {
				used = used || c.Valid.Get(r)
			}
			if !used {
				t.Fatalf("column %s is all null", c.Name)
			}
		}
	}
}

func TestSplitWholeBatchIsNotCopied(t *testing.T) {
	var p column.Partitioner
	b := sample()
	got := p.Split(b, 3, func(int, int, int64) int { return 1 })
	if got[0] != nil || got[1] != b || got[2] != nil {
		t.Fatalf("%p: %v", b, got)
	}
}
