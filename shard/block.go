package shard

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// run is the rows of one series in one source: a memtable or a file. Within a
// run times ascend strictly. It is read block by block.
type run interface {
	appendTimes(dst []int64, b *block) ([]int64, error)
	load(dst *column.Vector, b *block, field int) error
	stats(dst []column.Stats, b *block) // one per field of the scan
}

// block is a part of a run: at most column.MaxTileRows rows.
type block struct {
	run         run
	rank        int // of the source: the higher wins
	at          int // what the run knows the block by
	rows        int
	first, last int64
	hidden      []*tombstone // that hide rows of it
}

// blocks are the blocks of all sources of one series, by first time. They cut
// time into windows: window i begins where block i begins and ends before
// block i+1 begins. Every row lies in one window.
type blocks struct {
	list  []block
	reach []int64 // reach[i]: the greatest last of list[:i+1]
}

// order sorts the blocks and makes them ready for windows.
func (bs *blocks) order() {
	byFirst := func(a, b block) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.rank, b.rank))
	}
	if !slices.IsSortedFunc(bs.list, byFirst) {
		slices.SortFunc(bs.list, byFirst)
	}
	bs.reach = bs.reach[:0]
	reach := int64(math.MinInt64)
	for i := range bs.list {
		reach = max(reach, bs.list[i].last)
		bs.reach = append(bs.reach, reach)
	}
}

// window returns the blocks that have rows in window i, by rank, and its last
// time. It appends to dst.
func (bs *blocks) window(dst []*block, i int) (active []*block, last int64) {
	last = math.MaxInt64
	if i+1 < len(bs.list) {
		last = bs.list[i+1].first - 1
	}
	first := bs.list[i].first
	for j := i; j >= 0 && bs.reach[j] >= first && last >= first; j-- {
		if bs.list[j].last >= first {
			dst = append(dst, &bs.list[j])
		}
	}
	slices.SortFunc(dst, func(a, b *block) int { return cmp.Compare(a.rank, b.rank) })
	return dst, last
}

// merged is the rows of a window that more than one block has, or of which a
// tombstone hides some: the union of the blocks' rows by time, where per field
// the block of the highest rank that has a value wins.
type merged struct {
	times []int64
	parts []part // by rank
}

// part is what one block gives to merged rows.
type part struct {
	block *block
	times []int64 // of all rows of the block
	rows  []int32 // those in the window that are not hidden, ascending
	pos   []int32 // where each of rows lies among the merged rows
}

// merge makes m the rows of the active blocks of a window [first, last].
func (m *merged) merge(id dsdb.SeriesID, active []*block, first, last int64) error {
	for len(m.parts) < len(active) {
		m.parts = append(m.parts, part{})
	}
	m.parts = m.parts[:len(active)]
	for i, b := range active {
		if err := m.parts[i].open(id, b, first, last); err != nil {
			return err
		}
	}
	m.times = m.times[:0]
	for {
		next, found := int64(math.MaxInt64), false
		for i := range m.parts {
			if t, ok := m.parts[i].head(); ok && (!found || t < next) {
				next, found = t, true
			}
		}
		if !found {
			return nil
		}
		for i := range m.parts {
			p := &m.parts[i]
			if t, ok := p.head(); ok && t == next {
				p.pos = append(p.pos, int32(len(m.times)))
			}
		}
		m.times = append(m.times, next)
	}
}

// open finds the rows that a block has in a window.
func (p *part) open(id dsdb.SeriesID, b *block, first, last int64) (err error) {
	p.block, p.rows, p.pos = b, p.rows[:0], p.pos[:0]
	if p.times, err = b.run.appendTimes(p.times[:0], b); err != nil {
		return err
	}
	from, _ := slices.BinarySearch(p.times, first)
	for i := from; i < len(p.times) && p.times[i] <= last; i++ {
		hidden := false
		for _, t := range b.hidden {
			hidden = hidden || t.rng.Contains(p.times[i])
		}
		if !hidden {
			p.rows = append(p.rows, int32(i))
		}
	}
	return nil
}

// head returns the time of the first row that has no position yet.
func (p *part) head() (int64, bool) {
	if len(p.pos) == len(p.rows) {
		return 0, false
	}
	return p.times[p.rows[len(p.pos)]], true
}

// load puts the values of a field of the merged rows from … to into dst.
func (m *merged) load(dst *column.Vector, field, from, to int) error {
	dst.Type, dst.N, dst.Valid = dsdb.NoType, to-from, nil
	typ := dsdb.NoType
	vectors := make([]column.Vector, len(m.parts))
	for i := len(m.parts) - 1; i >= 0; i-- {
		if err := m.parts[i].block.run.load(&vectors[i], m.parts[i].block, field); err != nil {
			return err
		}
		if typ == dsdb.NoType {
			typ = vectors[i].Type
		}
	}
	if typ == dsdb.NoType {
		return nil
	}
	source := make([]int32, 2*(to-from)) // per row: part + 1 and row of the value, 0: null
	nulls := to - from
	for i := range m.parts {
		p := &m.parts[i]
		if vectors[i].Type != typ {
			continue
		}
		begin := sort.Search(len(p.pos), func(j int) bool { return int(p.pos[j]) >= from })
		for j := begin; j < len(p.pos) && int(p.pos[j]) < to; j++ {
			if at := int(p.pos[j]) - from; !vectors[i].Null(int(p.rows[j])) {
				if source[2*at] == 0 {
					nulls--
				}
				source[2*at], source[2*at+1] = int32(i)+1, p.rows[j]
			}
		}
	}
	gather(dst, typ, vectors, source, nulls)
	return nil
}

// gather makes dst of the values that source names.
func gather(dst *column.Vector, typ dsdb.FieldType, vectors []column.Vector, source []int32, nulls int) {
	n := len(source) / 2
	resetVector(dst, typ, n)
	if nulls > 0 {
		dst.Valid = column.NewBitmap(n)
	}
	for i := range n {
		if source[2*i] == 0 {
			appendNull(dst)
			continue
		}
		if nulls > 0 {
			dst.Valid.Set(i)
		}
		appendValue(dst, &vectors[source[2*i]-1], int(source[2*i+1]))
	}
}

// appendValue appends value i of src, which has the same type, to dst but for its validity.
func appendValue(dst, src *column.Vector, i int) {
	switch dst.Type {
	case dsdb.Float:
		dst.Floats = append(dst.Floats, src.Floats[i])
	case dsdb.String:
		dst.Bytes = append(dst.Bytes, src.Str(i)...)
		dst.Offsets = append(dst.Offsets, uint32(len(dst.Bytes)))
	default:
		dst.Ints = append(dst.Ints, src.Ints[i])
	}
}
