package column

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/dasudian/dsdb"
)

// Decode reads a batch that Append wrote, which must be all of src. It reuses
// b's memory and copies what it keeps of src. It reports dsdb.ErrNewer
// for a newer version, KindCorrupt with the offset for anything else, and never allocates beyond the limits of an entry;
// after an error b is empty.
func (b *WriteBatch) Decode(src []byte) error {
	r := reader{src: src}
	switch v := r.byte(); {
	case r.err == nil && v > entryVersion:
		r.err = dsdb.Errorf(dsdb.KindUnavailable, "log entry: batch of version %d, this program reads %d: %w", v, entryVersion, dsdb.ErrNewer)
	case r.err == nil && v != entryVersion:
		r.fail("batch of version %d, this program reads %d", v, entryVersion)
	}
	n := r.count(minTableBytes, math.MaxInt32)
	tables := b.Tables[:cap(b.Tables)]
	for i := 0; i < n && r.err == nil; i++ {
		if i == len(tables) {
			tables = append(tables, Table{})
			tables = tables[:cap(tables)]
		}
		r.table(&tables[i])
	}
	if r.err == nil && r.pos != len(src) {
		r.fail("%d bytes too many", len(src)-r.pos)
	}
	if r.err != nil {
		b.Tables = tables[:0]
		return r.err
	}
	b.Tables = tables[:n]
	return nil
}

// The least bytes that an encoded table, key or column takes: they bound a
// count by the input that is left.
const (
	minTableBytes  = 10
	minKeyBytes    = 2
	minColumnBytes = 3
)

// reader reads an encoded batch. After the first error it reads zeros.
type reader struct {
	src     []byte
	pos     int
	err     error
	rows    int // of the tables so far
	slots   int
	keys    int      // bytes
	scratch []uint64 // for a block
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = dsdb.Errorf(dsdb.KindCorrupt, "log entry: offset %d: %s", r.pos, fmt.Sprintf(format, args...))
	}
}

// take returns the next n bytes, nil if there are fewer.
func (r *reader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.src)-r.pos {
		r.fail("%d bytes wanted, %d left", n, len(r.src)-r.pos)
		return nil
	}
	r.pos += n
	return r.src[r.pos-n : r.pos]
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	if r.err != nil {
		return 0
	}
	if r.pos < len(r.src) && r.src[r.pos] < 0x80 {
		r.pos++
		return uint64(r.src[r.pos-1])
	}
	v, n := binary.Uvarint(r.src[r.pos:])
	if n <= 0 {
		r.fail("bad varint")
		return 0
	}
	r.pos += n
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads a count of things that take at least size bytes each and of
// which there may be most.
func (r *reader) count(size, most int) int {
	v := r.uvarint()
	if r.err == nil && v > uint64(min(most, (len(r.src)-r.pos)/size)) {
		r.fail("count %d", v)
	}
	if r.err != nil {
		return 0
	}
	return int(v)
}

// bytes reads a length and so many bytes; they alias the input.
func (r *reader) bytes() []byte { return r.take(r.count(1, math.MaxInt32)) }

// str reads a string; it is old if that is what stands there.
func (r *reader) str(old string) string {
	b := r.bytes()
	if string(b) == old {
		return old
	}
	return string(b)
}

func (r *reader) table(t *Table) {
	t.Measurement = r.str(t.Measurement)
	rows := r.uvarint()
	if r.err == nil && (rows == 0 || rows > uint64(MaxEntryRows-r.rows)) {
		r.fail("%d rows after %d", rows, r.rows)
		return
	}
	columns := r.count(minColumnBytes, MaxEntrySlots/max(1, int(rows)))
	r.rows += int(rows)
	r.slots += int(rows) * columns
	if r.slots > MaxEntrySlots {
		r.fail("%d values", r.slots)
	}
	if r.keyTable(&t.Keys); r.err != nil {
		return
	}
	r.series(t, int(rows))
	r.times(t, int(rows))
	t.Columns = resize(t.Columns, columns)
	for i := 0; i < columns && r.err == nil; i++ {
		r.column(&t.Columns[i], int(rows))
	}
}

// room returns scratch memory for n values.
func (r *reader) room(n int) []uint64 {
	if cap(r.scratch) < n {
		r.scratch = make([]uint64, n)
	}
	return r.scratch[:n]
}

// series reads the series of each row, which must be in the key table.
func (r *reader) series(t *Table, rows int) {
	t.Series = resize(t.Series, rows)
	keys := uint64(t.Keys.Len())
	for done := 0; done < rows && r.err == nil; done += blockRows {
		block := r.room(min(blockRows, rows-done))
		r.block(block)
		out := t.Series[done : done+len(block)]
		for i, v := range block {
			if v >= keys {
				r.fail("series %d of %d", v, keys)
				return
			}
			out[i] = uint32(v)
		}
	}
}

func (r *reader) times(t *Table, rows int) {
	t.Times = resize(t.Times, rows)
	t.MinTime, t.MaxTime = math.MaxInt64, math.MinInt64
	for done := 0; done < rows && r.err == nil; done += blockRows {
		block := r.room(min(blockRows, rows-done))
		r.block(block)
		out := t.Times[done : done+len(block)]
		for i, v := range block {
			out[i] = int64(v)
			t.MinTime, t.MaxTime = min(t.MinTime, int64(v)), max(t.MaxTime, int64(v))
		}
	}
}

func (r *reader) column(c *Column, rows int) {
	c.Name = r.str(c.Name)
	kind := r.byte()
	c.Type = dsdb.FieldType(kind &^ kindNulls)
	c.Bits, c.Bytes = resize(c.Bits, rows), c.Bytes[:0]
	present := rows
	if c.Valid = c.Valid[:0]; kind&kindNulls != 0 {
		present = r.bitmap(&c.Valid, rows)
	} else {
		c.Valid = nil
	}
	values := c.Bits[:present]
	switch c.Type {
	case dsdb.Float:
		r.floats(values)
	case dsdb.Integer, dsdb.Unsigned:
		r.ints(values)
	case dsdb.Boolean:
		r.ints(values)
		r.most(values, 1)
	case dsdb.String:
		r.strings(c, values)
	default:
		r.fail("column of type %d", kind)
	}
	if r.err == nil && present < rows {
		spread(c.Bits, present, c.Valid)
	}
}

// most fails if a value exceeds limit.
func (r *reader) most(values []uint64, limit uint64) {
	for _, v := range values {
		if v > limit {
			r.fail("value %d exceeds %d", v, limit)
			return
		}
	}
}

// strings reads the bytes of all strings and then their lengths.
func (r *reader) strings(c *Column, refs []uint64) {
	c.Bytes = append(c.Bytes, r.bytes()...)
	r.ints(refs)
	at, total := uint64(0), uint64(len(c.Bytes))
	for i, n := range refs {
		if n > total-at {
			r.fail("string of %d bytes of which %d are left", n, total-at)
			return
		}
		refs[i] = at<<32 | n
		at += n
	}
	if at != total {
		r.fail("%d bytes of strings too many", total-at)
	}
}

// bitmap reads the valid rows and returns how many there are.
func (r *reader) bitmap(b *Bitmap, rows int) int {
	src := r.take((rows + 7) / 8)
	*b = resize(*b, (rows+63)/64)
	clear(*b)
	n := 0
	for i, octet := range src {
		if over := 8*(i+1) - rows; over > 0 && octet>>(8-over) != 0 {
			r.fail("valid rows after the last")
			return 0
		}
		(*b)[i/8] |= uint64(octet) << (8 * (i % 8))
		n += bits.OnesCount8(octet)
	}
	return n
}

// spread moves the first n values, which are those of the valid rows, to their rows, from
// the last to the first; null rows become 0.
func spread(values []uint64, n int, valid Bitmap) {
	for i := len(values) - 1; i >= 0; i-- {
		if !valid.Get(i) {
			values[i] = 0
			continue
		}
		n--
		values[i] = values[n]
	}
}

// resize returns s with length n; what it holds is unspecified but for nested memory to reuse.
func resize[S ~[]E, E any](s S, n int) S {
	if cap(s) < n {
		return append(s[:cap(s)], make(S, n-cap(s))...)
	}
	return s[:n]
}
