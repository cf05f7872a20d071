package column

import "github.com/dasudian/dsdb"

// WriteBatch is a set of points as columns: one Table per measurement. It is
// what a write request becomes, what a log entry carries (see Append and
// Decode) and what a shard applies. Rows keep the order in which they came: of
// two rows with equal series and time the later one wins, field by field.
type WriteBatch struct {
	Tables []Table
}

// Table holds the points of one measurement. Two columns may have one name if
// their types differ: a batch does not know which type the field has, so the
// router and Apply settle it column by column, and reject the rows of the wrong one.
// A measurement whose fields are very sparse may have several tables; then rows
// of later tables came later.
type Table struct {
	Measurement string
	Keys        Keys     // distinct canonical series keys in order of first appearance
	Series      []uint32 // per row: index into Keys
	Times       []int64  // per row: nanoseconds
	MinTime     int64    // of Times
	MaxTime     int64
	Columns     []Column // one per field name, in order of first appearance
}

// Rows returns the number of points.
func (t *Table) Rows() int { return len(t.Times) }

// Keys is a list of byte strings in one arena: key i is Bytes[Ends[i-1]:Ends[i]].
type Keys struct {
	Bytes []byte
	Ends  []uint32
}

// Len returns the number of keys.
func (k *Keys) Len() int { return len(k.Ends) }

// At returns key i; it aliases the arena.
func (k *Keys) At(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = k.Ends[i-1]
	}
	return k.Bytes[start:k.Ends[i]]
}

// Append adds a key.
func (k *Keys) Append(key []byte) {
	k.Bytes = append(k.Bytes, key...)
	k.Ends = append(k.Ends, uint32(len(k.Bytes)))
}

// Column is one field of a Table with one value or null per row. Bits holds
// the value's bits: float64, int64, uint64, or 0 and 1 for a boolean; for a
// string it is offset<<32 | length into Bytes. The bits of a null row are 0.
type Column struct {
	Name  string
	Type  dsdb.FieldType
	Bits  []uint64
	Valid Bitmap // nil: every row has the field
	Bytes []byte // string values
}

// Str returns the string of row i; it aliases the column.
func (c *Column) Str(i int) []byte {
	b := c.Bits[i]
	return c.Bytes[b>>32 : b>>32+b&0xffffffff]
}

// Rows returns the number of points of all tables.
func (b *WriteBatch) Rows() int {
	n := 0
	for i := range b.Tables {
		n += b.Tables[i].Rows()
	}
	return n
}

// Retained returns how many bytes the batch holds for what it is used for next,
// about: Decode and Split leave room in place that the rows of now do not take.
func (b *WriteBatch) Retained() int {
	n := 0
	tables := b.Tables[:cap(b.Tables)]
	for i := range tables {
		t := &tables[i]
		n += 160 + cap(t.Keys.Bytes) + 4*cap(t.Keys.Ends) + 4*cap(t.Series) + 8*cap(t.Times)
		columns := t.Columns[:cap(t.Columns)]
		for k := range columns {
			c := &columns[k]
			n += 96 + len(c.Name) + 8*cap(c.Bits) + 8*cap(c.Valid) + cap(c.Bytes)
		}
	}
	return n
}
