package exec

import (
	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// kind is the representation in which an aggregate takes its values.
type kind uint8

const (
	floatKind   kind = iota // float64; also what mean, median and stddev make of integers
	intKind                 // int64, boolean as 0 and 1, unsigned as its bits (sums)
	orderedKind             // unsigned with the sign bit flipped
	stringKind              // string
)

// kindOf returns the representation for a function of a column of type t.
func kindOf(f planner.Func, t dsdb.FieldType) kind {
	switch {
	case t == dsdb.String:
		return stringKind
	case t == dsdb.Float:
		return floatKind
	case t == dsdb.Unsigned && f != planner.Sum && f != planner.Count:
		if f == planner.Mean || f == planner.Median || f == planner.Stddev {
			return floatKind
		}
		return orderedKind
	case f == planner.Median || f == planner.Stddev:
		return floatKind
	}
	return intKind
}

// block is a run of values of one field of one series, none of them null, with
// ascending times: what a kernel sees of a tile. It aliases the tile or the
// scratch memory of its worker.
type block struct {
	n      int
	times  []int64 // nil if no aggregate asked for them
	rows   []int32 // their rows in the tile; nil: first, first+1, …
	first  int
	floats []float64
	ints   []int64
	strs   *column.Vector // string values stay in the tile's column, at row(i)

	reader *tileReader
	table  *seriesTable
	series int // in the table
	err    error
}

func (b *block) row(i int) int {
	if b.rows != nil {
		return int(b.rows[i])
	}
	return b.first + i
}

// value is the type of the values of an aggregate's state.
type value interface{ float64 | int64 | string }

// valueAt returns value i of a block in whose kind T is.
func valueAt[T value](b *block, i int) T {
	var v T
	switch p := any(&v).(type) {
	case *float64:
		*p = b.floats[i]
	case *int64:
		*p = b.ints[i]
	case *string:
		*p = string(b.strs.Str(b.row(i)))
	}
	return v
}

// numbers returns the values of a block in whose kind T is.
func numbers[T number](b *block) []T {
	var z T
	if _, ok := any(z).(float64); ok {
		return any(b.floats).([]T)
	}
	return any(b.ints).([]T)
}

// blockMaker cuts blocks out of tiles. It belongs to one goroutine.
type blockMaker struct {
	rows  []int32
	times []int64
	flts  []float64
	ints  []int64
}

// make fills b with the values of column v in the rows of m, or in [lo, hi) if
// m is nil. times may be nil.
func (k *blockMaker) make(b *block, v *column.Vector, as kind, times []int64, m *mask, lo, hi int) {
	if m == nil && v.Valid == nil {
		b.n, b.rows, b.first, b.times = hi-lo, nil, lo, nil
		if times != nil {
			b.times = times[lo:hi]
		}
		k.dense(b, v, as, lo, hi)
		return
	}
	var all mask
	if m == nil {
		all.fill(hi)
	} else {
		all = *m
	}
	all.clip(lo, hi)
	all.and(v.Valid)
	k.rows = all.appendRows(k.rows[:0])
	b.n, b.rows, b.times = len(k.rows), k.rows, nil
	if times != nil {
		k.times = gather(k.times[:0], times, k.rows)
		b.times = k.times
	}
	k.sparse(b, v, as)
}

func (k *blockMaker) dense(b *block, v *column.Vector, as kind, lo, hi int) {
	switch {
	case as == stringKind:
		b.strs = v
	case as == floatKind && v.Type == dsdb.Float:
		b.floats = v.Floats[lo:hi]
	case as == floatKind:
		part := column.Vector{Type: v.Type, Ints: v.Ints[lo:hi]}
		k.flts = appendFloats(k.flts[:0], &part)
		b.floats = k.flts
	case as == orderedKind:
		k.ints = append(k.ints[:0], v.Ints[lo:hi]...)
		b.ints = k.ints
		flip(b.ints)
	default:
		b.ints = v.Ints[lo:hi]
	}
}

func (k *blockMaker) sparse(b *block, v *column.Vector, as kind) {
	switch {
	case as == stringKind:
		b.strs = v
	case as == floatKind && v.Type == dsdb.Float:
		k.flts = gather(k.flts[:0], v.Floats, k.rows)
		b.floats = k.flts
	case as == floatKind:
		k.ints = gather(k.ints[:0], v.Ints, k.rows)
		k.flts = appendFloats(k.flts[:0], &column.Vector{Type: v.Type, Ints: k.ints})
		b.floats = k.flts
	default:
		k.ints = gather(k.ints[:0], v.Ints, k.rows)
		b.ints = k.ints
		if as == orderedKind {
			flip(b.ints)
		}
	}
}

func flip(v []int64) {
	for i := range v {
		v[i] ^= signBit
	}
}
