package shard

import (
	"math"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// maxLastCells bounds the memory of lastRows, to some 64 MiB.
const maxLastCells = 4 << 20

// lastRows remembers the newest row that the files of a shard hold of a
// series, for queries that ask for one row, the newest. It is filled by such
// queries. Rows in memory come on top of it. What it knows is of one
// generation: a new file and a new tombstone end it.
type lastRows struct {
	mu         sync.Mutex // guards all below
	generation uint64
	tables     map[uint32]*lastTable // by measurement
	cells      int
}

// lastTable holds the rows of one measurement.
type lastTable struct {
	rows   map[dsdb.SeriesID]int
	times  []int64               // by row
	fields map[uint32][]lastCell // by field, then by row; may be shorter
}

// lastCell is one value as bits, as in column.Column. Strings are not kept.
type lastCell struct {
	bits  uint64
	typ   dsdb.FieldType // NoType: null
	known bool
}

// table returns the table of a measurement, nil if it is of another
// generation. mu is held.
func (l *lastRows) table(generation uint64, measurement uint32) *lastTable {
	if generation > l.generation || l.tables == nil {
		l.generation, l.tables, l.cells = generation, map[uint32]*lastTable{}, 0
	}
	if generation < l.generation {
		return nil
	}
	t := l.tables[measurement]
	if t == nil {
		t = &lastTable{rows: map[dsdb.SeriesID]int{}, fields: map[uint32][]lastCell{}}
		l.tables[measurement] = t
	}
	return t
}

// cell returns what is known of a field of a row.
func (t *lastTable) cell(row int, field uint32) lastCell {
	if column := t.fields[field]; row < len(column) {
		return column[row]
	}
	return lastCell{}
}

// lastScan is the use that one cursor makes of lastRows. It is the run of the
// newest row of the series at hand.
type lastScan struct {
	rows        *lastRows
	generation  uint64
	measurement uint32
	fields      []uint32   // of the scan
	until       int64      // no file has a row after it
	cells       []lastCell // of the row that was found
	time        int64      // of it

	wanted bool          // the next tile ends with the newest row of the files
	noting dsdb.SeriesID // the tile at hand does, and it is of this series; 0: no
}

// find looks for the newest row of a series with all fields of the scan, if
// that lies before the end of rng. If it is not known and the files alone have
// rows of the series, it will be noted.
func (l *lastScan) find(id dsdb.SeriesID, rng dsdb.TimeRange, alone bool) bool {
	l.wanted = alone && l.until < rng.End
	l.rows.mu.Lock()
	defer l.rows.mu.Unlock()
	t := l.rows.table(l.generation, l.measurement)
	if t == nil {
		return false
	}
	row, ok := t.rows[id]
	if !ok || t.times[row] >= rng.End {
		return false
	}
	l.time, l.cells = t.times[row], l.cells[:0]
	for _, field := range l.fields {
		c := t.cell(row, field)
		if !c.known && field != 0 {
			return false
		}
		l.cells = append(l.cells, c)
	}
	l.wanted = false
	return true
}

// show notes the time of the newest row of a series if the tile ends with it;
// its values follow.
func (l *lastScan) show(tile *column.Tile) {
	l.noting = 0
	if !l.wanted {
		return
	}
	l.wanted = false
	l.rows.mu.Lock()
	defer l.rows.mu.Unlock()
	t := l.rows.table(l.generation, l.measurement)
	if t == nil || l.rows.cells >= maxLastCells {
		return
	}
	l.noting = tile.Series
	if _, ok := t.rows[tile.Series]; !ok {
		t.rows[tile.Series] = len(t.times)
		t.times = append(t.times, tile.Last)
		l.rows.cells++
	}
}

// fill notes the last value of v, a field of the tile at hand.
func (l *lastScan) fill(field int, v *column.Vector) {
	id, i := l.fields[field], v.N-1
	if l.noting == 0 || id == 0 {
		return
	}
	c := lastCell{known: true}
	switch {
	case v.Null(i):
	case v.Type == dsdb.String:
		return
	case v.Type == dsdb.Float:
		c.typ, c.bits = v.Type, math.Float64bits(v.Floats[i])
	default:
		c.typ, c.bits = v.Type, uint64(v.Ints[i])
	}
	l.rows.mu.Lock()
	defer l.rows.mu.Unlock()
	t := l.rows.table(l.generation, l.measurement)
	if t == nil {
		return
	}
	row, noted := t.rows[l.noting]
	if !noted { // the rows were forgotten meanwhile
		return
	}
	cells := t.fields[id]
	for len(cells) <= row {
		cells = append(cells, lastCell{})
		l.rows.cells++
	}
	cells[row] = c
	t.fields[id] = cells
}

func (l *lastScan) appendTimes(dst []int64, _ *block) ([]int64, error) {
	return append(dst, l.time), nil
}

func (l *lastScan) load(dst *column.Vector, _ *block, field int) error {
	c := l.cells[field]
	resetVector(dst, c.typ, 1)
	switch c.typ {
	case dsdb.NoType:
	case dsdb.Float:
		dst.Floats = append(dst.Floats, math.Float64frombits(c.bits))
	default:
		dst.Ints = append(dst.Ints, int64(c.bits))
	}
	return nil
}

func (l *lastScan) stats(dst []column.Stats, _ *block) { clear(dst) }
