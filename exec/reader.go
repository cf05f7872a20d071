package exec

import (
	"sync/atomic"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// fieldMap says which fields a scan fetches: slot[ref] is the index of a field
// ref into names, -1 for a tag or a field that no shard has.
type fieldMap struct {
	names []string
	slot  []int
}

func newFieldMap(refs []planner.Ref, needed []bool) fieldMap {
	m := fieldMap{slot: make([]int, len(refs))}
	for i, r := range refs {
		m.slot[i] = -1
		if r.Tag || r.Type == dsdb.NoType || !needed[i] {
			continue
		}
		for j, n := range m.names {
			if n == r.Name {
				m.slot[i] = j
			}
		}
		if m.slot[i] < 0 {
			m.slot[i] = len(m.names)
			m.names = append(m.names, r.Name)
		}
	}
	return m
}

// storedTypes are the types that the fields of a scan have in one shard, learnt
// when a field is first decoded: statistics are bits, and only with the type do
// they mean something. A type is fixed within a shard.
type storedTypes []atomic.Uint32

func (s storedTypes) get(slot int) dsdb.FieldType { return dsdb.FieldType(s[slot].Load()) }

// tileReader decodes what is asked of one tile after another and remembers it
// while the tile is current. It belongs to one goroutine.
type tileReader struct {
	refs     []planner.Ref
	fields   fieldMap
	types    storedTypes
	counters Counters

	tile    *column.Tile
	timed   bool
	touched bool             // something of the tile has been decoded
	loaded  []bool           // per slot
	cast    []*column.Vector // per ref: its column in the type of the ref, nil if not asked yet
	scratch []column.Vector  // per ref
	nulls   column.Vector
}

func newTileReader(refs []planner.Ref, fields fieldMap) *tileReader {
	return &tileReader{refs: refs, fields: fields, loaded: make([]bool, len(fields.names)),
		cast: make([]*column.Vector, len(refs)), scratch: make([]column.Vector, len(refs))}
}

func (r *tileReader) reset(t *column.Tile) {
	r.tile, r.timed, r.touched = t, false, false
	clear(r.loaded)
	clear(r.cast)
	r.counters.Tiles++
}

// done counts the tile as decoded, or as answered without.
func (r *tileReader) done(answered bool) {
	switch {
	case r.touched:
		r.counters.TilesDecoded++
		r.counters.Rows += int64(r.tile.Rows)
	case answered:
		r.counters.TilesByStats++
		r.counters.Rows += int64(r.tile.Rows)
	default:
		r.counters.TilesSkipped++
	}
}

func (r *tileReader) times() ([]int64, error) {
	if !r.timed {
		if err := r.tile.LoadTimes(); err != nil {
			return nil, err
		}
		r.timed, r.touched = true, true
		r.counters.Bytes += int64(8 * r.tile.Rows)
	}
	return r.tile.Times, nil
}

// column returns the column of a field ref in the type of the ref; a field that
// the shard lacks, or has in a type that does not convert, is NoType.
func (r *tileReader) column(ref int) (*column.Vector, error) {
	if r.cast[ref] != nil {
		return r.cast[ref], nil
	}
	slot := r.fields.slot[ref]
	if slot < 0 {
		r.nulls = column.Vector{N: r.tile.Rows}
		return &r.nulls, nil
	}
	if !r.loaded[slot] {
		if err := r.tile.Load(slot); err != nil {
			return nil, err
		}
		r.loaded[slot], r.touched = true, true
		v := &r.tile.Cols[slot]
		r.counters.Bytes += int64(8*r.tile.Rows + len(v.Bytes))
		if v.Type != dsdb.NoType && r.types.get(slot) == dsdb.NoType {
			r.types[slot].Store(uint32(v.Type))
		}
	}
	r.cast[ref] = convert(&r.tile.Cols[slot], r.refs[ref].Type, &r.scratch[ref])
	return r.cast[ref], nil
}

// stats returns the statistics of a field ref over the whole tile, nil if they
// do not say anything: not known, or of a type other than the ref's.
func (r *tileReader) stats(ref int) (*column.Stats, error) {
	slot := r.fields.slot[ref]
	if slot < 0 || slot >= len(r.tile.Stats) || !r.tile.Stats[slot].Known {
		return nil, nil
	}
	st := &r.tile.Stats[slot]
	if st.Count == 0 {
		return st, nil
	}
	if r.types.get(slot) == dsdb.NoType {
		if _, err := r.column(ref); err != nil {
			return nil, err
		}
	}
	if r.types.get(slot) != r.refs[ref].Type {
		return nil, nil
	}
	return st, nil
}
