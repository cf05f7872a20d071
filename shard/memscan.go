package shard

import (
	"math"
	"slices"
	"sort"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// tableSnap is a table of a memtable up to some row, as a Source saw it.
type tableSnap struct {
	mem     *memtable
	table   *memTable
	rows    uint32
	deletes []memDelete
}

// memScan is what a cursor reads of one table: slices that Apply leaves alone
// below row number rows.
type memScan struct {
	rows    uint32
	deletes []memDelete
	tails   []tail // per series of the scan
	chunks  []chunkView
	slots   []memColumn // those of the scan's fields, field by field
	fields  [][2]int    // per field of the scan: its part of slots
}

// chunkView is a chunk with the columns of a scan; values are parallel to slots.
type chunkView struct {
	times  []int64
	prev   []uint32
	values []memValues
}

// capture takes what a scan of the fields and series needs. The shard's lock is held for reading.
func (t *tableSnap) capture(fields []uint32, series []dsdb.SeriesID) *memScan {
	s := &memScan{rows: t.rows, deletes: t.deletes, tails: make([]tail, len(series)), fields: make([][2]int, len(fields))}
	for i, id := range series {
		s.tails[i] = t.mem.tail(id)
	}
	var at []int
	for i, field := range fields {
		from := len(at)
		for slot, c := range t.table.columns {
			if c.field == field && field != 0 {
				at = append(at, slot)
				s.slots = append(s.slots, c)
			}
		}
		s.fields[i] = [2]int{from, len(at)}
	}
	for i, c := range t.table.chunks {
		_, first := chunkOf(t.table.rows)
		growing := i == len(t.table.chunks)-1 && int(t.table.rows-first) < len(c.times)
		view := chunkView{times: c.times, prev: c.prev, values: make([]memValues, len(at))}
		for j, slot := range at {
			if slot < len(c.values) {
				view.values[j] = c.values[slot]
				if growing {
					view.values[j].valid = slices.Clone(c.values[slot].valid)
				}
			}
		}
		s.chunks = append(s.chunks, view)
	}
	return s
}

// memRows are the rows of one series in a memtable, by time. Row i is made of
// the table's rows nums[starts[i]:starts[i+1]], or of nums[i] alone if starts
// is nil; of these the later ones win.
type memRows struct {
	scan   *memScan
	times  []int64
	nums   []uint32
	starts []uint32
}

// series returns the rows of the i-th series of the scan that lie in rng. If
// newest > 0 only as many of the newest of them need be there.
func (s *memScan) series(i int, id dsdb.SeriesID, rng dsdb.TimeRange, newest int) *memRows {
	m := &memRows{scan: s}
	tl := s.tails[i]
	for row := tl.row; row != 0; {
		num := row - 1
		chunk, first := chunkOf(num)
		c := &s.chunks[chunk]
		t := c.times[num-first]
		row = c.prev[num-first]
		if !tl.unsorted && t < rng.Start {
			break
		}
		if num >= s.rows || !rng.Contains(t) || s.deleted(num, id, t) {
			continue
		}
		m.nums = append(m.nums, num)
		m.times = append(m.times, t)
		if newest > 0 && !tl.unsorted && len(m.nums) == newest {
			break
		}
	}
	slices.Reverse(m.nums)
	slices.Reverse(m.times)
	if tl.unsorted {
		m.sort()
	}
	return m
}

// deleted reports whether a delete hides a row.
func (s *memScan) deleted(num uint32, id dsdb.SeriesID, t int64) bool {
	for i := range s.deletes {
		if d := &s.deletes[i]; num < d.rows && d.tomb.hides(id, t, t) {
			return true
		}
	}
	return false
}

// sort orders rows that are in the order of writing by time, and joins those of equal time.
func (m *memRows) sort() {
	sort.Stable(byTime{m})
	unique := 0
	for i, t := range m.times {
		if i > 0 && t == m.times[i-1] {
			continue
		}
		unique++
	}
	if unique == len(m.times) {
		return
	}
	times := make([]int64, 0, unique)
	for i, t := range m.times {
		if i == 0 || t != m.times[i-1] {
			times = append(times, t)
			m.starts = append(m.starts, uint32(i))
		}
	}
	m.starts = append(m.starts, uint32(len(m.nums)))
	m.times = times
}

type byTime struct{ *memRows }

func (b byTime) Len() int           { return len(b.nums) }
func (b byTime) Less(i, j int) bool { return b.times[i] < b.times[j] }
func (b byTime) Swap(i, j int) {
	b.nums[i], b.nums[j] = b.nums[j], b.nums[i]
	b.times[i], b.times[j] = b.times[j], b.times[i]
}

// blocks appends the rows as blocks, known by their first row.
func (m *memRows) blocks(dst []block, rank int) []block {
	for at := 0; at < len(m.times); at += column.MaxTileRows {
		n := min(column.MaxTileRows, len(m.times)-at)
		dst = append(dst, block{run: m, rank: rank, at: at, rows: n, first: m.times[at], last: m.times[at+n-1]})
	}
	return dst
}

func (m *memRows) appendTimes(dst []int64, b *block) ([]int64, error) {
	return append(dst, m.times[b.at:b.at+b.rows]...), nil
}

// stats knows nothing: rows in memory have no statistics.
func (m *memRows) stats(dst []column.Stats, _ *block) { clear(dst) }

func (m *memRows) load(dst *column.Vector, b *block, field int) error {
	slots := m.scan.fields[field]
	for slot := slots[0]; slot < slots[1]; slot++ {
		if m.loadSlot(dst, slot, b.at, b.at+b.rows) {
			return nil
		}
	}
	resetVector(dst, dsdb.NoType, b.rows)
	return nil
}

// loadSlot puts the values of one column into dst; it reports whether there is one.
func (m *memRows) loadSlot(dst *column.Vector, slot, from, to int) (found bool) {
	picked := make([]uint32, to-from) // per row: the table's row that has the value, else noRow
	nulls := 0
	for i := range picked {
		picked[i] = m.pick(slot, from+i)
		if picked[i] == noRow {
			nulls++
		}
	}
	if nulls == len(picked) {
		return false
	}
	resetVector(dst, m.scan.slots[slot].typ, len(picked))
	if nulls > 0 {
		dst.Valid = column.NewBitmap(len(picked))
	}
	for i, num := range picked {
		if num == noRow {
			appendNull(dst)
			continue
		}
		if nulls > 0 {
			dst.Valid.Set(i)
		}
		chunk, first := chunkOf(num)
		m.scan.chunks[chunk].values[slot].appendTo(dst, int(num-first))
	}
	return true
}

const noRow = math.MaxUint32

// pick returns the last of the table's rows behind row i that is not null.
func (m *memRows) pick(slot, i int) uint32 {
	from, to := uint32(i), uint32(i)+1
	if m.starts != nil {
		from, to = m.starts[i], m.starts[i+1]
	}
	for j := to; j > from; j-- {
		num := m.nums[j-1]
		chunk, first := chunkOf(num)
		if !m.scan.chunks[chunk].values[slot].null(int(num - first)) {
			return num
		}
	}
	return noRow
}

// appendTo appends the value of row i to dst, which has its type.
func (v *memValues) appendTo(dst *column.Vector, i int) {
	b := v.bits[i]
	switch dst.Type {
	case dsdb.Float:
		dst.Floats = append(dst.Floats, math.Float64frombits(b))
	case dsdb.String:
		dst.Bytes = append(dst.Bytes, v.bytes[b>>32:b>>32+b&0xffffffff]...)
		dst.Offsets = append(dst.Offsets, uint32(len(dst.Bytes)))
	default:
		dst.Ints = append(dst.Ints, int64(b))
	}
}

// appendNull appends a null to dst but for its validity.
func appendNull(dst *column.Vector) {
	switch dst.Type {
	case dsdb.Float:
		dst.Floats = append(dst.Floats, 0)
	case dsdb.String:
		dst.Offsets = append(dst.Offsets, uint32(len(dst.Bytes)))
	default:
		dst.Ints = append(dst.Ints, 0)
	}
}

// resetVector empties v for n values of a type. Its memory is used again.
func resetVector(v *column.Vector, typ dsdb.FieldType, n int) {
	*v = column.Vector{Type: typ, N: n, Floats: v.Floats[:0], Ints: v.Ints[:0], Offsets: v.Offsets[:0], Bytes: v.Bytes[:0]}
	if typ == dsdb.String {
		v.Offsets = append(v.Offsets, 0)
	}
}

// appendBlocks appends the blocks of the i-th series of the cursor's scan.
func (s *memScan) appendBlocks(dst []block, c *cursor, i, rank int) ([]block, error) {
	if s.tails[i].row == 0 {
		return dst, nil
	}
	newest := 0
	if c.scan.Descending {
		newest = c.scan.NeedRows
	}
	return s.series(i, c.scan.Series[i], c.scan.Range, newest).blocks(dst, rank), nil
}
