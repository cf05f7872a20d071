package column

import (
	"encoding/binary"

	"github.com/dasudian/dsdb"
)

// A log entry carries a WriteBatch in the format of FORMAT.md. Decode refuses
// larger entries before it allocates, because constant blocks make many rows
// of few bytes; who makes a batch keeps it below.
const (
	MaxEntryRows  = 4 << 20  // of all tables
	MaxEntrySlots = 32 << 20 // rows × columns, summed over the tables
	MaxEntryKeys  = 64 << 20 // bytes of all series keys
)

// entryVersion is the first byte of every encoded batch.
const entryVersion = 1

// Append appends the log-entry encoding of the batch. Tables without rows are
// left out. It panics on a batch whose vectors differ in length.
func (b *WriteBatch) Append(dst []byte) []byte {
	tables := 0
	for i := range b.Tables {
		if b.Tables[i].Rows() > 0 {
			tables++
		}
	}
	dst = append(dst, entryVersion)
	dst = binary.AppendUvarint(dst, uint64(tables))
	var scratch []uint64
	for i := range b.Tables {
		if t := &b.Tables[i]; t.Rows() > 0 {
			dst, scratch = t.append(dst, scratch)
		}
	}
	return dst
}

// append appends one table; scratch is room for a column, grown as needed.
func (t *Table) append(dst []byte, scratch []uint64) ([]byte, []uint64) {
	rows := t.Rows()
	if len(t.Series) != rows {
		panic("BUG: column: a table with fewer series than times")
	}
	dst = appendBytes(dst, t.Measurement)
	dst = binary.AppendUvarint(dst, uint64(rows))
	dst = binary.AppendUvarint(dst, uint64(len(t.Columns)))
	dst = t.Keys.append(dst)
	if cap(scratch) < rows {
		scratch = make([]uint64, rows)
	}
	scratch = scratch[:rows]
	for i, s := range t.Series {
		scratch[i] = uint64(s)
	}
	dst = appendInts(dst, scratch, t.Keys.Len())
	for i, at := range t.Times {
		scratch[i] = uint64(at)
	}
	dst = appendInts(dst, scratch, 0)
	for i := range t.Columns {
		dst = t.Columns[i].append(dst, scratch)
	}
	return dst, scratch
}

// append appends the column of len(scratch) rows.
func (c *Column) append(dst []byte, scratch []uint64) []byte {
	rows := len(scratch)
	if len(c.Bits) != rows {
		panic("BUG: column: a column with more or fewer values than the table has rows")
	}
	dst = appendBytes(dst, c.Name)
	bits, nulls := c.Bits, c.nulls()
	kind := byte(c.Type)
	if nulls > 0 {
		kind |= kindNulls
	}
	dst = append(dst, kind)
	if nulls > 0 {
		dst = appendBitmap(dst, c.Valid, rows)
		bits = gatherValid(scratch[:0], c.Bits, c.Valid)
	}
	switch c.Type {
	case dsdb.Float:
		return appendFloats(dst, bits)
	case dsdb.String:
		return appendStrings(dst, bits, c.Bytes, scratch[:len(bits)])
	}
	return appendInts(dst, bits, 0)
}

// kindNulls marks a column that a bitmap of valid rows precedes.
const kindNulls = 0x80

// nulls counts the rows without the field.
func (c *Column) nulls() int {
	if c.Valid == nil {
		return 0
	}
	n := 0
	for i := range c.Bits {
		if !c.Valid.Get(i) {
			n++
		}
	}
	return n
}

// gatherValid appends the bits of the valid rows. dst and bits may not overlap.
func gatherValid(dst, bits []uint64, valid Bitmap) []uint64 {
	for i, v := range bits {
		if valid.Get(i) {
			dst = append(dst, v)
		}
	}
	return dst
}

// appendBitmap appends one bit per row in whole bytes, bit 0 first.
func appendBitmap(dst []byte, b Bitmap, rows int) []byte {
	for i := 0; i < rows; i += 8 {
		octet := byte(b[i/64] >> (i % 64))
		if rows-i < 8 {
			octet &= 1<<(rows-i) - 1
		}
		dst = append(dst, octet)
	}
	return dst
}

// appendStrings appends the lengths as an integer block, and then the bytes of
// all strings. lengths is scratch and may be the memory of refs.
func appendStrings(dst []byte, refs []uint64, bytes []byte, lengths []uint64) []byte {
	total := uint64(0)
	for _, r := range refs {
		total += r & 0xffffffff
	}
	dst = binary.AppendUvarint(dst, total)
	for _, r := range refs {
		dst = append(dst, bytes[r>>32:r>>32+r&0xffffffff]...)
	}
	for i, r := range refs {
		lengths[i] = r & 0xffffffff
	}
	return appendInts(dst, lengths, 0)
}

func appendBytes[T string | []byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
