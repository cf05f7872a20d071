package shard

import (
	"math/bits"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// memtable holds the rows that no file has yet: per measurement an append-only
// table of columns, and per series a chain of its rows, from the newest back.
//
// Rows never move or change. A reader notes how many rows a table has
// (Source), later takes the slices under the shard's lock (capture), and reads
// the rows below its number without a lock while Apply adds more.
type memtable struct {
	tables []*memTable // by measurement id - 1; nil: no rows
	tails  []*tailPage // by series id / len(tailPage)
	rows   int
	bytes  int64 // allocated for rows and tails
}

// memTable holds the rows of one measurement in chunks. The row numbers of a
// chunk follow from its position: see chunkOf.
type memTable struct {
	rows    uint32
	chunks  []*memChunk
	columns []memColumn // what a slot of a chunk holds
	deletes []memDelete // append only
}

// memColumn is one column of a table: a field with one type. A field gets a
// second column if its measurement was dropped and written again with another type.
type memColumn struct {
	field uint32
	typ   dsdb.FieldType
}

// memChunk is a run of rows. Its slices have the chunk's size from the start.
type memChunk struct {
	series []dsdb.SeriesID
	times  []int64
	prev   []uint32    // row before of the same series + 1; 0: none
	values []memValues // by slot; slots beyond, and those without bits, are all null
}

// memValues are the values of a column in a chunk, as in column.Column.
type memValues struct {
	bits  []uint64
	rows  int           // rows beyond are null
	valid column.Bitmap // nil: every row below rows has a value
	bytes []byte
}

// memDelete hides rows: those below row number rows, of the series, in the range.
type memDelete struct {
	rows uint32
	tomb *tombstone
}

// tail is where the chain of a series begins.
type tail struct {
	row      uint32 // newest row + 1; 0: none
	unsorted bool   // times along the chain do not descend strictly
	time     int64  // the greatest
}

type tailPage [512]tail

const (
	minChunk = 256
	maxChunk = 64 << 10
)

// chunkOf returns the position of the chunk that holds a row, and its first
// row: chunks hold 256, 256, 512, 1024 … 32 Ki rows, then 64 Ki each.
func chunkOf(row uint32) (chunk int, first uint32) {
	switch {
	case row < minChunk:
		return 0, 0
	case row < maxChunk:
		n := bits.Len32(row)
		return n - 8, 1 << (n - 1)
	}
	return 8 + int(row>>16), row &^ (maxChunk - 1)
}

// rowAt returns the number of the row at a place.
func rowAt(p place) uint32 {
	switch chunk := uint32(p >> 16); {
	case chunk == 0:
		return uint32(p & 0xffff)
	case chunk < 9:
		return minChunk<<(chunk-1) + uint32(p&0xffff)
	default:
		return (chunk-8)<<16 + uint32(p&0xffff)
	}
}

func chunkSize(chunk int) int {
	switch {
	case chunk == 0:
		return minChunk
	case chunk < 9:
		return minChunk << (chunk - 1)
	}
	return maxChunk
}

// table returns the table of a measurement and makes it if need be.
func (m *memtable) table(measurement uint32) *memTable {
	for len(m.tables) < int(measurement) {
		m.tables = append(m.tables, nil)
	}
	if m.tables[measurement-1] == nil {
		m.tables[measurement-1] = &memTable{}
	}
	return m.tables[measurement-1]
}

// tail returns the start of the chain of a series.
func (m *memtable) tail(id dsdb.SeriesID) tail {
	page := int(id) / len(tailPage{})
	if page >= len(m.tails) || m.tails[page] == nil {
		return tail{}
	}
	return m.tails[page][int(id)%len(tailPage{})]
}

// needTails makes the pages that hold the tails of ids.
func (m *memtable) needTails(ids []dsdb.SeriesID) {
	for _, id := range ids {
		page := int(id) / len(tailPage{})
		for page >= len(m.tails) {
			m.tails = append(m.tails, nil)
		}
		if m.tails[page] == nil {
			m.tails[page] = new(tailPage)
			m.bytes += int64(len(tailPage{})) * 16
		}
	}
}

// append adds the rows of a table. ids are the series of its keys, fields
// those of its columns; no two columns have the same field and type.
func (m *memtable) append(measurement uint32, t *column.Table, ids []dsdb.SeriesID, fields []uint32) {
	mt := m.table(measurement)
	m.needTails(ids)
	slots := mt.slots(t, fields)
	m.rows += t.Rows()
	for from := 0; from < t.Rows(); {
		chunk, first := chunkOf(mt.rows)
		if chunk == len(mt.chunks) {
			mt.chunks = append(mt.chunks, newMemChunk(chunkSize(chunk)))
			m.bytes += int64(chunkSize(chunk)) * 16
		}
		c, at := mt.chunks[chunk], int(mt.rows-first)
		n := min(t.Rows()-from, len(c.times)-at)
		copy(c.times[at:], t.Times[from:from+n])
		m.link(c, at, mt.rows, t.Series[from:from+n], ids)
		m.bytes += c.fill(at, n, t, from, slots)
		mt.rows += uint32(n)
		from += n
	}
}

// link appends rows to the chains of their series. at is the position in the
// chunk of the first, row its number.
func (m *memtable) link(c *memChunk, at int, row uint32, keys []uint32, ids []dsdb.SeriesID) {
	series, times, prev := c.series[at:at+len(keys)], c.times[at:at+len(keys)], c.prev[at:at+len(keys)]
	for i, key := range keys {
		id := ids[key]
		tl := &m.tails[int(id)/len(tailPage{})][int(id)%len(tailPage{})]
		series[i], prev[i] = id, tl.row
		if t := times[i]; tl.row == 0 || t > tl.time {
			tl.time = t
		} else {
			tl.unsorted = true
		}
		tl.row = row + uint32(i) + 1
	}
}

// slots returns the slot of each column of t and makes those that are new.
func (mt *memTable) slots(t *column.Table, fields []uint32) []int {
	slots := make([]int, len(fields))
	for i, field := range fields {
		slots[i] = mt.slot(memColumn{field, t.Columns[i].Type}, i)
	}
	return slots
}

// slot returns the slot of a column, which is probably the guess-th.
func (mt *memTable) slot(c memColumn, guess int) int {
	if guess < len(mt.columns) && mt.columns[guess] == c {
		return guess
	}
	for i, have := range mt.columns {
		if have == c {
			return i
		}
	}
	mt.columns = append(mt.columns, c)
	return len(mt.columns) - 1
}

func newMemChunk(size int) *memChunk {
	return &memChunk{series: make([]dsdb.SeriesID, size), times: make([]int64, size), prev: make([]uint32, size)}
}

// fill copies the values of rows from … from+n of t to position at; it returns
// the bytes it allocated.
func (c *memChunk) fill(at, n int, t *column.Table, from int, slots []int) (allocated int64) {
	for i, slot := range slots {
		for slot >= len(c.values) {
			c.values = append(c.values, memValues{})
		}
		if c.values[slot].bits == nil {
			c.values[slot].bits = make([]uint64, len(c.times))
			allocated += int64(len(c.times)) * 8
		}
		allocated += c.values[slot].fill(at, n, &t.Columns[i], from)
	}
	return allocated
}

// fill copies the values of rows from … from+n of a column to position at of a chunk.
func (v *memValues) fill(at, n int, col *column.Column, from int) (allocated int64) {
	copy(v.bits[at:], col.Bits[from:from+n])
	if col.Type == dsdb.String {
		allocated = v.fillStrings(at, n, col, from)
	}
	if v.valid == nil && (v.rows < at || hasHole(col.Valid, from, n)) {
		v.valid = column.NewBitmap(len(v.bits))
		for i := range v.rows {
			v.valid.Set(i)
		}
	}
	if v.valid != nil {
		for i := range n {
			if col.Valid.Get(from + i) {
				v.valid.Set(at + i)
			}
		}
	}
	v.rows = at + n
	return allocated
}

func (v *memValues) fillStrings(at, n int, col *column.Column, from int) int64 {
	before := len(v.bytes)
	for i := range n {
		if !col.Valid.Get(from + i) {
			continue
		}
		s := col.Str(from + i)
		v.bits[at+i] = uint64(len(v.bytes))<<32 | uint64(len(s))
		v.bytes = append(v.bytes, s...)
	}
	return int64(len(v.bytes) - before)
}

// upTo returns the values for a reader of the first rows of the chunk, which
// may be all it has so far: words of valid that Apply still changes are copied.
func (v *memValues) upTo(rows int) memValues {
	out := *v
	if rows < len(v.bits) {
		out.valid = slices.Clone(v.valid)
	}
	return out
}

// null reports whether a row of the chunk is null.
func (v *memValues) null(i int) bool { return i >= v.rows || !v.valid.Get(i) }

// hasHole reports whether a row of from … from+n is null.
func hasHole(valid column.Bitmap, from, n int) bool {
	if valid == nil {
		return false
	}
	for i := from; i < from+n; i++ {
		if !valid.Get(i) {
			return true
		}
	}
	return false
}
