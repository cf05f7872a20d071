package exec

import (
	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// signBit flips the order of unsigned values into that of int64 and back.
const signBit = -1 << 63

// builder appends values to a column. The zero builder makes a column of nulls.
type builder struct {
	column.Vector
	hasNull bool
}

// reset empties the builder and sets its type, keeping its memory.
func (b *builder) reset(t dsdb.FieldType) {
	b.Vector = column.Vector{Type: t, Valid: b.Valid[:0], Floats: b.Floats[:0], Ints: b.Ints[:0],
		Offsets: append(b.Offsets[:0], 0), Bytes: b.Bytes[:0]}
	b.hasNull = false
}

// bit adds a row's validity; its value follows. Valid is kept from the first null on.
func (b *builder) bit(valid bool) {
	if !valid && !b.hasNull {
		b.startNulls()
	}
	if b.hasNull {
		if b.N%64 == 0 {
			b.Valid = append(b.Valid, 0)
		}
		if valid {
			b.Valid.Set(b.N)
		}
	}
	b.N++
}

// startNulls makes the bitmap of the rows so far, all valid.
func (b *builder) startNulls() {
	b.hasNull = true
	b.Valid = b.Valid[:0]
	for n := 0; n < b.N; n += 64 {
		b.Valid = append(b.Valid, ^uint64(0))
	}
	if b.N%64 != 0 {
		b.Valid[b.N/64] = 1<<(uint(b.N)%64) - 1
	}
}

func (b *builder) isNull(i int) bool { return b.Type == dsdb.NoType || b.hasNull && !b.Valid.Get(i) }

func (b *builder) null() {
	b.bit(false)
	switch b.Type {
	case dsdb.Float:
		b.Floats = append(b.Floats, 0)
	case dsdb.String:
		b.Offsets = append(b.Offsets, uint32(len(b.Bytes)))
	case dsdb.NoType:
	default:
		b.Ints = append(b.Ints, 0)
	}
}

func (b *builder) float(x float64) {
	b.bit(true)
	b.Floats = append(b.Floats, x)
}

func (b *builder) int(x int64) {
	b.bit(true)
	b.Ints = append(b.Ints, x)
}

func (b *builder) str(s string) {
	b.bit(true)
	b.Bytes = append(b.Bytes, s...)
	b.Offsets = append(b.Offsets, uint32(len(b.Bytes)))
}

// number appends x as fill(x) does: cut to the column's type; a boolean column
// is filled with false and a string column with "", whatever x is (InfluxDB).
func (b *builder) number(x float64) {
	switch b.Type {
	case dsdb.Float:
		b.float(x)
	case dsdb.Integer, dsdb.Unsigned:
		b.int(int64(x))
	case dsdb.Boolean:
		b.int(0)
	case dsdb.String:
		b.str("")
	default:
		b.null()
	}
}

// again appends row i of the column once more.
func (b *builder) again(i int) {
	switch {
	case i < 0 || b.isNull(i):
		b.null()
	case b.Type == dsdb.Float:
		b.float(b.Floats[i])
	case b.Type == dsdb.String:
		b.bit(true)
		b.Bytes = append(b.Bytes, b.Bytes[b.Offsets[i]:b.Offsets[i+1]]...)
		b.Offsets = append(b.Offsets, uint32(len(b.Bytes)))
	default:
		b.int(b.Ints[i])
	}
}

// dropLast removes the last row.
func (b *builder) dropLast() {
	b.N--
	if b.hasNull {
		b.Valid.Clear(b.N)
		b.Valid = b.Valid[:words(b.N)]
	}
	switch b.Type {
	case dsdb.Float:
		b.Floats = b.Floats[:b.N]
	case dsdb.String:
		b.Offsets = b.Offsets[:b.N+1]
		b.Bytes = b.Bytes[:b.Offsets[b.N]]
	case dsdb.NoType:
	default:
		b.Ints = b.Ints[:b.N]
	}
}

// view returns the column built so far; it shares the builder's memory.
func (b *builder) view() column.Vector {
	v := b.Vector
	if !b.hasNull {
		v.Valid = nil
	}
	return v
}

func isNumeric(t dsdb.FieldType) bool {
	return t == dsdb.Float || t == dsdb.Integer || t == dsdb.Unsigned
}

// convert returns v as a column of type to, in the memory of scratch if it has
// to change: numbers convert into each other, everything else becomes null.
func convert(v *column.Vector, to dsdb.FieldType, scratch *column.Vector) *column.Vector {
	if v.Type == to {
		return v
	}
	if !isNumeric(v.Type) || !isNumeric(to) {
		*scratch = column.Vector{Type: dsdb.NoType, N: v.N, Floats: scratch.Floats, Ints: scratch.Ints}
		return scratch
	}
	scratch.Type, scratch.N, scratch.Valid = to, v.N, v.Valid
	switch {
	case to == dsdb.Float:
		scratch.Floats = appendFloats(scratch.Floats[:0], v)
	case v.Type == dsdb.Float:
		scratch.Ints = scratch.Ints[:0]
		for _, x := range v.Floats {
			if to == dsdb.Unsigned {
				scratch.Ints = append(scratch.Ints, int64(uint64(x)))
			} else {
				scratch.Ints = append(scratch.Ints, int64(x))
			}
		}
	default:
		scratch.Ints = append(scratch.Ints[:0], v.Ints...)
	}
	return scratch
}

// appendFloats appends the values of a numeric column as floats.
func appendFloats(dst []float64, v *column.Vector) []float64 {
	switch v.Type {
	case dsdb.Float:
		return append(dst, v.Floats...)
	case dsdb.Unsigned:
		for _, x := range v.Ints {
			dst = append(dst, float64(uint64(x)))
		}
	default:
		for _, x := range v.Ints {
			dst = append(dst, float64(x))
		}
	}
	return dst
}
