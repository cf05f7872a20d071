package shard

import (
	"errors"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/segment"
)

// errLongSeries is that a series has more rows than fit into memory at once.
var errLongSeries = errors.New("a series is too long to be held in memory")

// copyRows adds every row that c yields to w. The fields of c's tiles are
// fields, ascending. The rows of one series are held in memory: at most limit bytes
// of them, if it is not 0, else errLongSeries is reported.
func copyRows(w *segment.Writer, measurement uint32, fields []uint32, c *cursor, limit int) error {
	a := assembler{columns: make([]column.Vector, len(fields))}
	id := dsdb.SeriesID(0)
	for {
		tile, err := c.Next()
		if err != nil {
			return err
		}
		if tile == nil || tile.Series != id {
			if err := a.addTo(w, measurement, id, fields); err != nil {
				return err
			}
			a.reset()
		}
		if tile == nil {
			return nil
		}
		id = tile.Series
		if err := a.add(tile); err != nil {
			return err
		}
		if limit > 0 && a.bytes() > limit {
			return errLongSeries
		}
	}
}

// assembler puts the tiles of one series together.
type assembler struct {
	times   []int64
	columns []column.Vector
	cols    []segment.FieldColumn
}

func (a *assembler) reset() {
	a.times = a.times[:0]
	for i := range a.columns {
		resetVector(&a.columns[i], dsdb.NoType, 0)
	}
}

// bytes is how much the rows take.
func (a *assembler) bytes() int {
	n := 8 * len(a.times)
	for i := range a.columns {
		v := &a.columns[i]
		n += 8*(len(v.Ints)+len(v.Floats)+len(v.Valid)) + 4*len(v.Offsets) + len(v.Bytes)
	}
	return n
}

func (a *assembler) add(tile *column.Tile) error {
	if err := tile.LoadTimes(); err != nil {
		return err
	}
	a.times = append(a.times, tile.Times...)
	for i := range a.columns {
		if err := tile.Load(i); err != nil {
			return err
		}
		appendVector(&a.columns[i], &tile.Cols[i])
	}
	return nil
}

// addTo adds the rows to w, without the columns that are all null.
func (a *assembler) addTo(w *segment.Writer, measurement uint32, id dsdb.SeriesID, fields []uint32) error {
	if len(a.times) == 0 {
		return nil
	}
	a.cols = a.cols[:0]
	for i, v := range a.columns {
		if v.Type != dsdb.NoType {
			a.cols = append(a.cols, segment.FieldColumn{Field: fields[i], Vec: v})
		}
	}
	return w.Add(measurement, id, a.times, a.cols)
}

// appendVector appends the values of src to dst. One of them may have no type yet.
func appendVector(dst, src *column.Vector) {
	before := dst.N
	if dst.Type == dsdb.NoType && src.Type != dsdb.NoType {
		resetVector(dst, src.Type, 0)
		appendNulls(dst, before)
	}
	if src.Type == dsdb.NoType {
		appendNulls(dst, src.N)
		return
	}
	switch src.Type {
	case dsdb.Float:
		dst.Floats = append(dst.Floats, src.Floats[:src.N]...)
	case dsdb.String:
		base := uint32(len(dst.Bytes)) - src.Offsets[0]
		dst.Bytes = append(dst.Bytes, src.Bytes[src.Offsets[0]:src.Offsets[src.N]]...)
		for _, o := range src.Offsets[1 : src.N+1] {
			dst.Offsets = append(dst.Offsets, base+o)
		}
	default:
		dst.Ints = append(dst.Ints, src.Ints[:src.N]...)
	}
	dst.N += src.N
	appendValid(dst, before, src)
}

// appendNulls appends n nulls to dst.
func appendNulls(dst *column.Vector, n int) {
	before := dst.N
	dst.N += n
	if dst.Type == dsdb.NoType || n == 0 {
		return
	}
	for range n {
		appendNull(dst)
	}
	appendValid(dst, before, &column.Vector{N: n})
}

// appendValid appends the validity of src to that of dst, whose first before values have one.
func appendValid(dst *column.Vector, before int, src *column.Vector) {
	if dst.Valid == nil {
		if src.Valid == nil && src.Type != dsdb.NoType {
			return
		}
		dst.Valid = allValid(before)
	}
	for len(dst.Valid)*64 < dst.N {
		dst.Valid = append(dst.Valid, 0)
	}
	for i := range src.N {
		if !src.Null(i) {
			dst.Valid.Set(before + i)
		}
	}
}

func allValid(n int) column.Bitmap {
	b := column.NewBitmap(n)
	for i := range n {
		b.Set(i)
	}
	return b
}
