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
	var s scratch
	for i := range b.Tables {
		if t := &b.Tables[i]; t.Rows() > 0 {
			dst = t.append(dst, &s)
		}
	}
	return dst
}

// scratch is room to encode in, no more of it than a table needs: most batches
// under load are of one row.
type scratch struct {
	column       []uint64 // a value for each row
	ints, deltas []uint64 // for each row of a block
}

func (s *scratch) grow(rows int) {
	if cap(s.column) < rows {
		block := min(rows, blockRows)
		room := make([]uint64, rows+2*block)
		s.column, s.ints, s.deltas = room[:rows:rows], room[rows:rows+block], room[rows+block:]
	}
	s.column = s.column[:rows]
}

// append appends one table.
func (t *Table) append(dst []byte, s *scratch) []byte {
	rows := t.Rows()
	if len(t.Series) != rows {
		panic("BUG: column: a table with fewer series than times")
	}
	dst = appendBytes(dst, t.Measurement)
	dst = binary.AppendUvarint(dst, uint64(rows))
	dst = binary.AppendUvarint(dst, uint64(len(t.Columns)))
	dst = t.Keys.append(dst)
	s.grow(rows)
	for i, key := range t.Series {
		s.column[i] = uint64(key)
	}
	dst = s.appendInts(dst, s.column, t.Keys.Len())
	for i, at := range t.Times {
		s.column[i] = uint64(at)
	}
	dst = s.appendInts(dst, s.column, 0)
	for i := range t.Columns {
		dst = t.Columns[i].append(dst, s)
	}
	return dst
}

// append appends the column of len(s.column) rows.
func (c *Column) append(dst []byte, s *scratch) []byte {
	rows := len(s.column)
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
		bits = gatherValid(s.column[:0], c.Bits, c.Valid)
	}
	switch c.Type {
	case dsdb.Float:
		return s.appendFloats(dst, bits)
	case dsdb.String:
		return s.appendStrings(dst, bits, c.Bytes)
	}
	return s.appendInts(dst, bits, 0)
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
// all strings. refs may lie in s.column.
func (s *scratch) appendStrings(dst []byte, refs []uint64, bytes []byte) []byte {
	total := uint64(0)
	for _, r := range refs {
		total += r & 0xffffffff
	}
	dst = binary.AppendUvarint(dst, total)
	for _, r := range refs {
		dst = append(dst, bytes[r>>32:r>>32+r&0xffffffff]...)
	}
	lengths := s.column[:len(refs)]
	for i, r := range refs {
		lengths[i] = r & 0xffffffff
	}
	return s.appendInts(dst, lengths, 0)
}

func appendBytes[T string | []byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
