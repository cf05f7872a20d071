package shard

import (
	"cmp"
	"math"
	"slices"

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
	dense   []bool      // per slot: every row has a value
	groups  *groups     // the rows by series; nil: follow the chains
	found   memRows     // of the series at hand
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
	s.dense = make([]bool, len(at))
	for j := range at {
		s.dense[j] = true
	}
	left := int(t.table.rows)
	for _, c := range t.table.chunks {
		rows := min(left, len(c.times))
		view := chunkView{times: c.times, prev: c.prev, values: make([]memValues, len(at))}
		for j, slot := range at {
			if slot < len(c.values) {
				view.values[j] = c.values[slot].upTo(rows)
			}
			s.dense[j] = s.dense[j] && view.values[j].valid == nil && view.values[j].rows == rows
		}
		s.chunks = append(s.chunks, view)
		left -= rows
	}
	return s
}

// memRows are the rows of one series in a memtable, by time. Row i is made of
// the table's rows at places[starts[i]:starts[i+1]], or of that at places[i]
// alone if starts is nil; of these the later ones win.
type memRows struct {
	scan   *memScan
	times  []int64
	places []place
	starts []uint32
	staged int          // where the values of the series' rows are staged, in the order of writing; -1: they are not
	order  []uint32     // which of them row i is; empty: the i-th
	sorter []writtenRow // scratch memory of sort
}

// writtenRow is a row of a series and its number in the order of writing.
type writtenRow struct {
	time  int64
	place place
	at    uint32
}

// place is where a row of a table lies: chunk<<16 | position in it.
type place uint32

// series returns the rows of the i-th series of the scan that lie in rng. If
// newest > 0 only as many of the newest of them need be there. They are valid
// until the next call.
func (s *memScan) series(i int, id dsdb.SeriesID, rng dsdb.TimeRange, newest int) *memRows {
	m, tl := &s.found, s.tails[i]
	m.scan, m.times, m.starts, m.order = s, m.times[:0], nil, m.order[:0]
	if s.groups != nil {
		m.staged = s.groups.stage(s, i)
		m.take(s.groups.of(i), id)
	} else {
		m.staged = -1
		m.walk(tl, id, rng, newest)
	}
	if tl.unsorted {
		m.sort()
	}
	return m
}

// walk takes the rows along the chain of a series, from the newest back.
func (m *memRows) walk(tl tail, id dsdb.SeriesID, rng dsdb.TimeRange, newest int) {
	m.places = m.places[:0]
	for row := tl.row; row != 0; {
		num := row - 1
		chunk, first := chunkOf(num)
		c := &m.scan.chunks[chunk]
		t := c.times[num-first]
		row = c.prev[num-first]
		if !tl.unsorted && t < rng.Start {
			break
		}
		if num >= m.scan.rows || !rng.Contains(t) || m.scan.deleted(num, id, t) {
			continue
		}
		m.places = append(m.places, place(chunk<<16)|place(num-first))
		m.times = append(m.times, t)
		if newest > 0 && !tl.unsorted && len(m.places) == newest {
			break
		}
	}
	slices.Reverse(m.places)
	slices.Reverse(m.times)
}

// take takes rows that are in the order of writing.
func (m *memRows) take(places []place, id dsdb.SeriesID) {
	for _, p := range places {
		m.times = append(m.times, m.scan.chunks[p>>16].times[p&0xffff])
	}
	if m.places = places; len(m.scan.deletes) == 0 {
		return
	}
	kept := 0
	m.staged = -1
	for i, p := range places {
		if !m.scan.deleted(rowAt(p), id, m.times[i]) {
			m.places[kept], m.times[kept] = p, m.times[i]
			kept++
		}
	}
	m.places, m.times = m.places[:kept], m.times[:kept]
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
	rows := m.sorter[:0]
	for i, t := range m.times {
		rows = append(rows, writtenRow{t, m.places[i], uint32(i)})
	}
	sortRows(rows)
	m.order = m.order[:0]
	distinct := 0
	for i, r := range rows {
		m.times[i], m.places[i], m.order = r.time, r.place, append(m.order, r.at)
		if i == 0 || r.time != rows[i-1].time {
			distinct++
		}
	}
	if m.sorter = rows; distinct < len(rows) {
		m.join(distinct)
	}
}

// join joins the rows of equal time of sorted rows, of which distinct times remain.
func (m *memRows) join(distinct int) {
	m.staged = -1
	times := make([]int64, 0, distinct)
	for i, t := range m.times {
		if i == 0 || t != m.times[i-1] {
			times = append(times, t)
			m.starts = append(m.starts, uint32(i))
		}
	}
	m.starts = append(m.starts, uint32(len(m.places)))
	m.times = times
}

// sortRows sorts rows by time, those of equal time by their order of writing, in
// which they are. They are seldom far from where they belong: clients that write
// side by side overtake each other by a request or two.
func sortRows(rows []writtenRow) {
	moves := 16 * len(rows)
	for i := 1; i < len(rows); i++ {
		r, j := rows[i], i
		for ; j > 0 && rows[j-1].time > r.time; j-- {
			rows[j] = rows[j-1]
		}
		rows[j] = r
		if moves -= i - j; moves < 0 {
			slices.SortFunc(rows, func(a, b writtenRow) int {
				return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.at, b.at))
			})
			return
		}
	}
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
	n := to - from
	resetVector(dst, m.scan.slots[slot].typ, n)
	switch {
	case !m.scan.dense[slot] || m.starts != nil || dst.Type == dsdb.String:
	case m.staged >= 0:
		if staged := m.scan.groups.staged[slot][m.staged:]; len(m.order) > 0 {
			loadOrdered(dst, staged, m.order[from:to])
		} else {
			loadBits(dst, staged[from:to])
		}
		return true
	default:
		m.loadDense(dst, slot, m.places[from:to])
		return true
	}
	nulls := 0
	for i := range n {
		p, ok := m.pick(slot, from+i)
		if !ok {
			if nulls == 0 {
				dst.Valid = allValid(n)
			}
			nulls++
			dst.Valid.Clear(i)
			appendNull(dst)
			continue
		}
		m.scan.chunks[p>>16].values[slot].appendTo(dst, int(p&0xffff))
	}
	return nulls < n
}

// loadDense loads a column of numbers that has no null.
func (m *memRows) loadDense(dst *column.Vector, slot int, places []place) {
	chunks := m.scan.chunks
	if dst.Type == dsdb.Float {
		dst.Floats = slices.Grow(dst.Floats, len(places))[:len(places)]
		for i, p := range places {
			dst.Floats[i] = math.Float64frombits(chunks[p>>16].values[slot].bits[p&0xffff])
		}
		return
	}
	dst.Ints = slices.Grow(dst.Ints, len(places))[:len(places)]
	for i, p := range places {
		dst.Ints[i] = int64(chunks[p>>16].values[slot].bits[p&0xffff])
	}
}

// loadBits loads numbers that lie side by side.
func loadBits(dst *column.Vector, bits []uint64) {
	if dst.Type == dsdb.Float {
		for _, b := range bits {
			dst.Floats = append(dst.Floats, math.Float64frombits(b))
		}
		return
	}
	for _, b := range bits {
		dst.Ints = append(dst.Ints, int64(b))
	}
}

// loadOrdered loads the numbers of bits that order names.
func loadOrdered(dst *column.Vector, bits []uint64, order []uint32) {
	if dst.Type == dsdb.Float {
		for _, i := range order {
			dst.Floats = append(dst.Floats, math.Float64frombits(bits[i]))
		}
		return
	}
	for _, i := range order {
		dst.Ints = append(dst.Ints, int64(bits[i]))
	}
}

// pick returns the last of the table's rows behind row i that is not null.
func (m *memRows) pick(slot, i int) (p place, ok bool) {
	from, to := uint32(i), uint32(i)+1
	if m.starts != nil {
		from, to = m.starts[i], m.starts[i+1]
	}
	for j := to; j > from; j-- {
		p := m.places[j-1]
		if !m.scan.chunks[p>>16].values[slot].null(int(p & 0xffff)) {
			return p, true
		}
	}
	return 0, false
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

func (s *memScan) newest() int64 { return math.MaxInt64 }

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
