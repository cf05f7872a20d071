package exec

import (
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// rowBuffer is rows of some series as columns, the series one after another,
// the rows of each in output order. It is what a fragment without aggregates
// gives to the exchange.
type rowBuffer struct {
	segments []segment
	times    []int64
	series   []uint32  // per row, if tags are selected
	cols     []builder // per selected field
}

// segment is the rows [from, to) of a buffer, which are those of one series.
type segment struct {
	series   int // in the table
	buffer   int
	from, to int
}

func newRowBuffer(types []dsdb.FieldType) *rowBuffer {
	b := &rowBuffer{cols: make([]builder, len(types))}
	for i, t := range types {
		b.cols[i].reset(t)
	}
	return b
}

// bytes is the memory that the rows hold, and that which merging them will take.
func (b *rowBuffer) bytes() int64 {
	n := int64(8*cap(b.times)+4*cap(b.series)) + mergeBytes*int64(len(b.times))
	for i := range b.cols {
		c := &b.cols[i]
		n += int64(8*cap(c.Floats) + 8*cap(c.Ints) + 4*cap(c.Offsets) + cap(c.Bytes))
	}
	return n
}

// appendColumn appends the given rows of v, or nulls if v is of another type.
func (b *builder) appendColumn(v *column.Vector, rows []int32) {
	if v.Type != b.Type {
		for range rows {
			b.null()
		}
		return
	}
	switch v.Type {
	case dsdb.Float:
		b.Floats = gather(b.Floats, v.Floats, rows)
	case dsdb.String:
		for _, r := range rows {
			if v.Valid.Get(int(r)) {
				b.Bytes = append(b.Bytes, v.Str(int(r))...)
			}
			b.Offsets = append(b.Offsets, uint32(len(b.Bytes)))
		}
	default:
		b.Ints = gather(b.Ints, v.Ints, rows)
	}
	b.appendBits(v.Valid, rows)
}

// appendBits appends validity; the values are there already.
func (b *builder) appendBits(valid column.Bitmap, rows []int32) {
	if valid == nil && !b.hasNull {
		b.N += len(rows)
		return
	}
	if !b.hasNull {
		b.startNulls()
	}
	for _, r := range rows {
		if b.N%64 == 0 {
			b.Valid = append(b.Valid, 0)
		}
		if valid.Get(int(r)) {
			b.Valid.Set(b.N)
		}
		b.N++
	}
}

// mergeBytes is the size of a row's key and of its place in the other half of the sort.
const mergeBytes = 32

// rowKey is a row on its way through the sort: its time, made unsigned and
// turned so that it ascends in output order, and where the row is.
type rowKey struct {
	key uint64
	at  uint64 // buffer<<32 | row
}

// sortRows sorts keys by key; it is stable. Many keys are sorted by counting,
// 11 bits at a time, which costs the same for all orders of input. The result is
// keys or scratch, which is as long.
func sortRows(keys, scratch []rowKey) []rowKey {
	if len(keys) < 256 {
		slices.SortStableFunc(keys, func(a, b rowKey) int {
			switch {
			case a.key < b.key:
				return -1
			case a.key > b.key:
				return 1
			}
			return 0
		})
		return keys
	}
	const digit = 11
	least, bits := keys[0].key, uint64(0)
	for _, k := range keys {
		least = min(least, k.key)
	}
	for i := range keys {
		keys[i].key -= least
		bits |= keys[i].key
	}
	for shift := uint(0); shift < 64 && bits>>shift != 0; shift += digit {
		if bits>>shift&(1<<digit-1) == 0 {
			continue
		}
		var starts [1<<digit + 1]uint32
		for i := range keys {
			starts[keys[i].key>>shift&(1<<digit-1)+1]++
		}
		for d := 1; d < len(starts); d++ {
			starts[d] += starts[d-1]
		}
		for _, k := range keys {
			d := k.key >> shift & (1<<digit - 1)
			scratch[starts[d]] = k
			starts[d]++
		}
		keys, scratch = scratch, keys
	}
	return keys
}
