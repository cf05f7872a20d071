package segment

import (
	"math"
	"sort"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// FieldChunk is the values of one field of a Chunk and is valid as long as that is.
type FieldChunk struct {
	Type dsdb.FieldType
	dir  *fieldDir
}

// fieldDir is what a FieldChunk knows of its tiles.
type fieldDir struct {
	c       *Chunk
	col     *blockColumn
	flags   byte
	head    reader // columns of the directory after the sizes
	payload payload
	err     error
	stats   []column.Stats // of each tile, once loaded
	scratch column.Vector
	floats  []float64
}

// Field returns the values of a field, false if no row has it. If the chunk of
// the field is corrupt, Decode says so and Stats knows nothing.
func (c *Chunk) Field(field uint32) (FieldChunk, bool) {
	cols := c.block.columns[1:]
	i := sort.Search(len(cols), func(i int) bool { return cols[i].field >= field })
	if i == len(cols) || cols[i].field != field {
		return FieldChunk{}, false
	}
	if c.used == len(c.fields) {
		c.fields = append(c.fields, new(fieldDir))
	}
	d := c.fields[c.used]
	d.c, d.col, d.stats = c, &cols[i], d.stats[:0]
	var present bool
	if present, d.err = d.load(); d.err == nil && !present {
		return FieldChunk{}, false
	}
	c.used++
	return FieldChunk{kindTypes[cols[i].kind], d}, true
}

// load reads the head of the directory; it reports whether the series has the field.
func (d *fieldDir) load() (bool, error) {
	c := d.c
	if c.err != nil {
		return true, c.err
	}
	var err error
	if d.flags, d.head, err = c.open(d.col, &d.payload); err != nil {
		return true, err
	}
	if d.head.b == nil {
		return false, nil
	}
	if (d.flags&chunkTiles != 0) != (len(c.tiles) > 1) {
		return true, d.corrupt("tiles")
	}
	if len(c.tiles) > 1 {
		if d.payload.ends, err = c.readEnds(&d.head, d.payload.ends); err != nil {
			return true, d.corrupt("sizes")
		}
	} else {
		d.payload.ends = append(d.payload.ends[:0], 0)
	}
	body := d.head
	for range d.columns() {
		body.bytes(body.uvarint())
	}
	if body.bad {
		return true, d.corrupt("directory")
	}
	if last := len(c.tiles) - 1; last == 0 {
		d.payload.ends[0] = int64(len(body.b))
	} else if d.payload.ends[last] != int64(len(body.b)) {
		return true, d.corrupt("sizes of the tiles")
	}
	d.payload.data = body.b
	return true, nil
}

// columns returns how many columns of the directory follow the sizes.
func (d *fieldDir) columns() int {
	n := int(d.flags>>3&1 + d.flags>>4&1)
	if d.hasValues() {
		n += len(statColumns)
	}
	return n
}

// hasValues reports whether the directory has columns of sums and so on.
func (d *fieldDir) hasValues() bool {
	return d.flags&chunkStats != 0 && d.col.kind != kindBoolean && d.col.kind != kindString
}

func (d *fieldDir) corrupt(what string) error {
	return d.c.r.corrupt(d.payload.off, "%s of field %d of series %d", what, d.col.field, d.c.block.sid(d.c.at))
}

// Stats returns the statistics of tile i. Those of small chunks are computed.
func (f FieldChunk) Stats(i int) column.Stats {
	d := f.dir
	if d.err != nil {
		return column.Stats{}
	}
	if d.flags&chunkStats == 0 {
		if f.Decode(i, &d.scratch) != nil {
			return column.Stats{}
		}
		return vectorStats(&d.scratch)
	}
	if len(d.stats) == 0 {
		if err := d.loadStats(); err != nil {
			d.err = d.corrupt("statistics")
			return column.Stats{}
		}
	}
	return d.stats[i]
}

// loadStats reads the columns of the directory into d.stats.
func (d *fieldDir) loadStats() error {
	c := d.c
	n := len(c.tiles)
	for i := range n {
		d.stats = append(d.stats, column.Stats{Known: true, Count: c.tiles[i].Rows})
	}
	c.scratch = room(c.scratch, n)
	head := d.head
	if d.flags&chunkCounts != 0 {
		if err := head.column(c.scratch); err != nil {
			return err
		}
		for i, v := range c.scratch {
			if v < 0 || v > int64(c.tiles[i].Rows) {
				return errTile
			}
			d.stats[i].Count = int(v)
		}
	}
	if d.flags&chunkMarks != 0 {
		if err := head.column(c.scratch); err != nil {
			return err
		}
		for i, v := range c.scratch {
			if s := &d.stats[i]; s.Count > 0 {
				s.Known, s.SumOverflow = v&markUnknown == 0, v&markOverflow != 0
			}
		}
	}
	if !d.hasValues() {
		return nil
	}
	for i := range statColumns {
		if err := d.readStat(&head); err != nil {
			return err
		}
		setStat(d.stats, i, c.scratch)
	}
	return nil
}

// setStat sets the statistic of column i of statColumns for each tile. It
// spells out the columns because a query reads the statistics of many tiles.
func setStat(stats []column.Stats, i int, v []int64) {
	v = v[:len(stats)]
	switch i {
	case 0:
		for j := range stats {
			stats[j].Sum = uint64(v[j])
		}
	case 1:
		for j := range stats {
			stats[j].Min = uint64(v[j])
		}
	case 2:
		for j := range stats {
			stats[j].Max = uint64(v[j])
		}
	case 3:
		for j := range stats {
			stats[j].First = uint64(v[j])
		}
	case 4:
		for j := range stats {
			stats[j].Last = uint64(v[j])
		}
	}
}

// readStat reads one column of statistics into c.scratch as bit patterns.
func (d *fieldDir) readStat(head *reader) error {
	c := d.c
	if d.col.kind != kindFloat {
		return head.column(c.scratch)
	}
	b := head.bytes(head.uvarint())
	if head.bad {
		return errTile
	}
	d.floats = roomFloats(d.floats, len(c.scratch))
	if err := decodeFloats(d.floats, c.scratch, b, nil); err != nil {
		return err
	}
	for i, x := range d.floats {
		c.scratch[i] = int64(math.Float64bits(x))
	}
	return nil
}

func roomFloats(dst []float64, n int) []float64 {
	if cap(dst) < n {
		dst = make([]float64, max(n, column.MaxTileRows))
	}
	return dst[:n]
}

// Decode fills v with tile i, one row for each of the tile's times, using v's
// memory. v.Valid is nil if no row is null; a tile without a value is NoType.
func (f FieldChunk) Decode(i int, v *column.Vector) error {
	d := f.dir
	if d.err != nil {
		return d.err
	}
	v.Type, v.N = f.Type, d.c.tiles[i].Rows
	src := d.payload.tile(i)
	if len(src) == 0 {
		v.Type, v.Valid = dsdb.NoType, nil
		return nil
	}
	r := reader{b: src}
	k := v.N
	var err error
	if src[0]&0x80 != 0 {
		if cap(v.Valid)*64 < column.MaxTileRows {
			v.Valid = column.NewBitmap(column.MaxTileRows)
		}
		v.Valid = v.Valid[:(v.N+63)/64]
		k, err = readValidity(&r, v.Valid, v.N)
	} else {
		v.Valid = nil
	}
	if err == nil {
		err = d.decode(v, r.b, k)
	}
	if err != nil {
		v.N = 0
		return d.c.r.corrupt(d.payload.off, "tile %d of field %d of series %d: %v", i, d.col.field, d.c.block.sid(d.c.at), err)
	}
	return nil
}

// decode decodes the k values in src and puts them in the rows that are valid.
func (d *fieldDir) decode(v *column.Vector, src []byte, k int) error {
	v.Ints = room(v.Ints, v.N)
	switch v.Type {
	case dsdb.Float:
		v.Floats = roomFloats(v.Floats, v.N)
		if err := decodeFloats(v.Floats[:k], v.Ints[:k], src, d.payload.table); err != nil {
			return err
		}
		if k < v.N {
			spread(v.Floats, k, v.N, v.Valid)
		}
		return nil
	case dsdb.String:
		var err error
		v.Offsets, v.Bytes, err = decodeStrings(v.Offsets, v.Bytes, k, v.Ints, src)
		if err == nil && k < v.N {
			v.Offsets = spreadOffsets(v.Offsets, k, v.N, v.Valid)
		}
		return err
	}
	if err := decodeInts(v.Ints[:k], src, d.payload.table); err != nil {
		return err
	}
	if v.Type == dsdb.Boolean && !allBits(v.Ints[:k]) {
		return errTile
	}
	if k < v.N {
		spread(v.Ints, k, v.N, v.Valid)
	}
	return nil
}

// allBits reports whether every value is 0 or 1.
func allBits(v []int64) bool {
	all := int64(0)
	for _, x := range v {
		all |= x
	}
	return all>>1 == 0
}

// spreadOffsets turns the offsets of k strings into those of n rows, of which b
// marks the k that have one; the others are empty.
func spreadOffsets(offsets []uint32, k, n int, b column.Bitmap) []uint32 {
	for len(offsets) <= n {
		offsets = append(offsets, 0)
	}
	end := offsets[k]
	for i := n - 1; i >= 0; i-- {
		offsets[i+1] = end
		if b.Get(i) {
			k--
			end = offsets[k]
		}
	}
	offsets[0] = 0
	return offsets
}
