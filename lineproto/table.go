package lineproto

import (
	"encoding/binary"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// table gathers the rows of one measurement. Its names and predictions outlive
// the batch; its rows are those of the batch gen.
type table struct {
	name    string
	cols    []col
	byName  map[string]int32 // the first column of a name; col.twin leads to the others
	first   int32            // the column with which the last line began; -1: none yet
	gen     uint32           // 0: no row in this batch yet
	order   []int32          // the columns of this batch, in order of first appearance
	keys    column.Keys
	series  []uint32
	times   []int64
	values  int // set in this batch
	slots   int // rows × columns
	out     []column.Column
	retains int // bytes held when the last batch ended
}

// col is a field of one type. Rows [0, len(bits)) are settled; a field that
// comes with two types has two cols.
type col struct {
	equal string // name and '=', as it stands in a body; "" if it needs escapes
	head  uint64 // the first eight bytes of equal, and
	tail  uint64 // the last, if
	words bool   // it has 8 to 16 bytes
	nulls bool   // some row is null, and valid tells which
	next  int32  // the column that followed in the last line; -1: none
	twin  int32  // another column of the same name; -1: none
	typ   dsdb.FieldType
	name  string
	bits  []uint64
	valid column.Bitmap // room is kept from batch to batch
	bytes []byte
}

// value is a parsed field that waits for its line to be complete. For a string
// bits is offset<<32 | length of what stands between the quotes in the body.
type value struct {
	col     int32
	escaped bool
	bits    uint64
}

// A table whose columns are mostly nulls is closed and begun anew before it
// takes more than sparseSlots + sparseFactor × values slots, so that memory
// stays in proportion to the body.
const (
	sparseSlots  = 64 << 10
	sparseFactor = 64
)

func newTable(name string) *table {
	return &table{name: name, byName: make(map[string]int32), first: -1}
}

// begin empties the table for a new batch.
func (t *table) begin(gen uint32) {
	t.gen = gen
	for _, c := range t.order {
		c := &t.cols[c]
		c.bits, c.bytes = c.bits[:0], c.bytes[:0]
		c.valid, c.nulls = c.valid[:0], false
	}
	t.order = t.order[:0]
	t.keys = column.Keys{Bytes: t.keys.Bytes[:0], Ends: t.keys.Ends[:0]}
	t.series, t.times = t.series[:0], t.times[:0]
	t.values, t.slots = 0, 0
}

// sparse reports whether another row would waste too many slots.
func (t *table) sparse() bool {
	return t.slots > sparseSlots+sparseFactor*t.values
}

// addRow adds a row with the given values; body holds the strings. It returns
// by how many slots the table grew.
func (t *table) addRow(ordinal uint32, time int64, values []value, body []byte) int {
	row, before := len(t.times), t.slots
	t.series = append(t.series, ordinal)
	t.times = append(t.times, time)
	t.values += len(values)
	for i := range values {
		v := &values[i]
		c := &t.cols[v.col]
		bits := v.bits
		if c.typ == dsdb.String {
			bits = c.addString(v, body)
		}
		if len(c.bits) == row && row > 0 && !c.nulls {
			c.bits = append(c.bits, bits)
			continue
		}
		if len(c.bits) == 0 {
			t.order = append(t.order, v.col)
			t.slots += row
		}
		c.set(row, bits)
	}
	t.slots += len(t.order)
	return t.slots - before
}

// addString copies a string value to the column.
func (c *col) addString(v *value, body []byte) uint64 {
	off, n := v.bits>>32, v.bits&0xffffffff
	at := len(c.bytes)
	if v.escaped {
		c.bytes = appendUnescaped(c.bytes, body[off:off+n], stringEscapes)
	} else {
		c.bytes = append(c.bytes, body[off:off+n]...)
	}
	return uint64(at)<<32 | uint64(len(c.bytes)-at)
}

// set gives row a value; rows before it that are not settled become null. A
// row that is settled already has its value replaced: of two equal names in one line the last counts.
func (c *col) set(row int, bits uint64) {
	if len(c.bits) == row+1 {
		c.bits[row] = bits
		return
	}
	c.pad(row)
	c.bits = append(c.bits, bits)
	if c.nulls {
		c.growValid(row + 1)
		c.valid.Set(row)
	}
}

// pad makes nulls of all rows up to rows that are not settled.
func (c *col) pad(rows int) {
	have := len(c.bits)
	if have >= rows {
		return
	}
	if !c.nulls {
		c.nulls = true
		c.growValid(have)
		for i := range have {
			c.valid.Set(i)
		}
	}
	c.growValid(rows)
	c.bits = append(c.bits, make([]uint64, rows-have)...)
}

// growValid gives the bitmap room for rows.
func (c *col) growValid(rows int) {
	for len(c.valid) < (rows+63)/64 {
		c.valid = append(c.valid, 0)
	}
}

// finish returns the rows as a table of a batch; it aliases t.
func (t *table) finish() column.Table {
	t.out = t.out[:0]
	for _, i := range t.order {
		c := &t.cols[i]
		c.pad(len(t.times))
		out := column.Column{Name: c.name, Type: c.typ, Bits: c.bits, Bytes: c.bytes}
		if c.nulls {
			out.Valid = c.valid
		}
		t.out = append(t.out, out)
	}
	least, greatest := t.times[0], t.times[0]
	for _, at := range t.times {
		least, greatest = min(least, at), max(greatest, at)
	}
	return column.Table{
		Measurement: t.name, Keys: t.keys, Series: t.series, Times: t.times,
		MinTime: least, MaxTime: greatest, Columns: t.out,
	}
}

// find returns the column of a name and type, or -1.
func (t *table) find(name []byte, typ dsdb.FieldType) int32 {
	i, ok := t.byName[string(name)]
	if !ok {
		return -1
	}
	for i >= 0 && t.cols[i].typ != typ {
		i = t.cols[i].twin
	}
	return i
}

// add makes a column.
func (t *table) add(name []byte, typ dsdb.FieldType) int32 {
	i := int32(len(t.cols))
	c := col{name: string(name), typ: typ, next: -1, twin: -1}
	if plainName(name) {
		c.equal = c.name + "="
		if n := len(c.equal); n >= 8 && n <= 16 {
			c.words = true
			c.head = binary.LittleEndian.Uint64([]byte(c.equal))
			c.tail = binary.LittleEndian.Uint64([]byte(c.equal[n-8:]))
		}
	}
	if twin, ok := t.byName[c.name]; ok {
		c.twin = twin
	}
	t.byName[c.name] = i
	t.cols = append(t.cols, c)
	return i
}

// plainName reports whether a field name may be predicted: its raw form is
// itself, and it is far from the key limit.
func plainName(name []byte) bool {
	for _, b := range name {
		switch b {
		case '\\', ',', '=', ' ', '\t', '\n', '\r', 0, '"':
			return false
		}
	}
	return len(name) < maxKeyLength/4
}

// size returns the bytes that the table holds.
func (t *table) size() int {
	n := 512 + cap(t.keys.Bytes) + 4*cap(t.keys.Ends) + 4*cap(t.series) + 8*cap(t.times) + 72*cap(t.out)
	for i := range t.cols {
		c := &t.cols[i]
		n += 160 + 3*len(c.name) + 8*cap(c.bits) + 8*cap(c.valid) + cap(c.bytes)
	}
	return n
}
