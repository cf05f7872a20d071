package segment

import (
	"encoding/binary"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// TileInfo is one tile of a series: its rows and the times of the first and last.
type TileInfo struct {
	Rows        int // 1 … column.MaxTileRows
	First, Last int64
}

// Chunk is all rows of one series in a segment. Reader.Chunk fills it; it and
// what it returned stay valid until it is filled again. A Chunk is used by one
// goroutine and keeps its memory when it is reused.
//
// If the chunk turns out to be corrupt, Err says so. It then poses as one tile
// that spans all time and whose times and fields cannot be decoded, so that
// nobody who forgets to ask Err takes the rows for absent.
type Chunk struct {
	r           *Reader
	measurement uint32
	block       *block
	at          int // place of the series in the block
	rows        int
	tiles       []TileInfo
	payload     payload
	fields      []*fieldDir // the first used are filled in
	used        int
	err         error
	scratch     []int64
}

// payload is the encoded tiles of a chunk.
type payload struct {
	data  []byte
	ends  []int64
	off   int64 // of the chunk in the file
	table *huffTable
}

// tile returns the bytes of tile i; their capacity reaches on for wide loads.
func (p *payload) tile(i int) []byte {
	start := int64(0)
	if i > 0 {
		start = p.ends[i-1]
	}
	return p.data[start:p.ends[i]]
}

// Chunk fills c with the rows of a series and reports whether there are any.
func (r *Reader) Chunk(measurement uint32, sid dsdb.SeriesID, c *Chunk) bool {
	var b *block
	var at int
	if next := c.at + 1; c.r == r && c.measurement == measurement && c.block != nil &&
		next < c.block.count() && c.block.sid(next) == uint32(sid) {
		b, at = c.block, next
	} else if g := r.group(measurement); g != nil {
		b, at = g.find(uint32(sid))
	}
	if b == nil {
		return false
	}
	c.r, c.measurement, c.block, c.at, c.used = r, measurement, b, at, 0
	if c.err = c.loadTimes(); c.err != nil {
		c.tiles, c.rows = append(c.tiles[:0], TileInfo{1, dsdb.MinTime, dsdb.MaxTime}), 1
	}
	return true
}

// Err returns what is wrong with the chunk's directory, nil if nothing is.
func (c *Chunk) Err() error { return c.err }

// Rows returns the number of rows.
func (c *Chunk) Rows() int { return c.rows }

// MinTime returns the time of the first row.
func (c *Chunk) MinTime() int64 { return c.tiles[0].First }

// MaxTime returns the time of the last row.
func (c *Chunk) MaxTime() int64 { return c.tiles[len(c.tiles)-1].Last }

// Tiles returns the number of tiles.
func (c *Chunk) Tiles() int { return len(c.tiles) }

// Tile returns tile i. Tiles ascend in time.
func (c *Chunk) Tile(i int) TileInfo { return c.tiles[i] }

// Stride returns the first time of tile i and the distance of its rows, if they
// are evenly spaced. A tile of one row has the step 0.
func (c *Chunk) Stride(i int) (first, step int64, ok bool) {
	if c.err != nil || len(c.payload.tile(i)) > 0 {
		return 0, 0, false
	}
	t := c.tiles[i]
	if t.Rows == 1 {
		return t.First, 0, true
	}
	return t.First, int64((uint64(t.Last) - uint64(t.First)) / uint64(t.Rows-1)), true
}

// Times returns the times of tile i in dst, grown if need be; what it held is lost.
func (c *Chunk) Times(i int, dst []int64) ([]int64, error) {
	if c.err != nil {
		return dst[:0], c.err
	}
	dst = room(dst, c.tiles[i].Rows)
	if first, step, ok := c.Stride(i); ok {
		fill(dst, first, step)
		return dst, nil
	}
	if err := decodeInts(dst, c.payload.tile(i), c.payload.table); err != nil {
		return dst[:0], c.r.corrupt(c.payload.off, "times of tile %d of series %d: %v", i, c.block.sid(c.at), err)
	}
	first := c.tiles[i].First
	for j := range dst {
		dst[j] += first
	}
	return dst, nil
}

// room returns dst with length n and the slack that decoders need.
func room(dst []int64, n int) []int64 {
	if cap(dst) < n+huffSlack {
		dst = make([]int64, column.MaxTileRows+huffSlack)
		if cap(dst) < n+huffSlack {
			dst = make([]int64, n+huffSlack)
		}
	}
	return dst[:n]
}

// bounds returns the position and length in the file of the chunk of the
// series in one column; the length is 0 if the series lacks it.
func (c *Chunk) bounds(col *blockColumn) (off, n int64, err error) {
	count := int64(c.block.count())
	at := int64(c.at)
	from, width := at-1, int64(8)
	if at == 0 {
		from, width = 0, 4
	}
	if err := c.r.touch(col.off+4*from, width); err != nil {
		return 0, 0, err
	}
	ends := c.r.data[col.off+4*from:]
	start, end := int64(0), int64(binary.LittleEndian.Uint32(ends[width-4:]))
	if at > 0 {
		start = int64(binary.LittleEndian.Uint32(ends))
	}
	if start > end || end > col.len-4*count {
		return 0, 0, c.r.corrupt(col.off+4*at, "chunk of series %d ends at %d", c.block.sid(c.at), end)
	}
	return col.off + 4*count + start, end - start, nil
}

// open returns the chunk of the series in one column, its flags and table taken off.
func (c *Chunk) open(col *blockColumn, p *payload) (flags byte, head reader, err error) {
	off, n, err := c.bounds(col)
	if err != nil || n == 0 {
		return 0, head, err
	}
	p.off, p.table = off, nil
	if head.b, err = c.r.bytes(off, n); err != nil {
		return 0, head, err
	}
	flags = head.byte()
	if flags&chunkTable != 0 {
		id := head.uvarint()
		t := c.r.tables[uint32(id)]
		if t == nil || id > 1<<32-1 {
			return 0, head, c.r.corrupt(off, "no Huffman table %d", id)
		}
		p.table = t.get()
	}
	if head.bad {
		return 0, head, c.r.corrupt(off, "head of the chunk of series %d", c.block.sid(c.at))
	}
	return flags, head, nil
}

// loadTimes reads the directory of the times.
func (c *Chunk) loadTimes() error {
	c.tiles, c.rows = c.tiles[:0], 0
	flags, head, err := c.open(&c.block.columns[0], &c.payload)
	if err != nil {
		return err
	}
	if flags&chunkTiles == 0 {
		rows, first, span := head.uvarint(), int64(head.uint64()), head.uvarint()
		if !head.bad && rows > 0 && rows <= column.MaxTileRows {
			c.rows = int(rows)
			c.tiles = append(c.tiles, TileInfo{c.rows, first, first + int64(span)})
			c.payload.ends = append(c.payload.ends[:0], int64(len(head.b)))
		}
	} else if err := c.loadTimeDirectory(&head); err != nil {
		return c.r.corrupt(c.payload.off, "times of series %d: %v", c.block.sid(c.at), err)
	}
	c.payload.data = head.b
	if !c.ordered() || c.payload.ends[len(c.tiles)-1] != int64(len(head.b)) {
		return c.r.corrupt(c.payload.off, "times of series %d", c.block.sid(c.at))
	}
	return nil
}

func (c *Chunk) loadTimeDirectory(head *reader) error {
	n := head.uvarint()
	if n > maxTiles(head.b) {
		return errTile
	}
	for range n {
		c.tiles = append(c.tiles, TileInfo{})
	}
	var err error
	part := func(set func(t *TileInfo, v int64)) {
		if c.scratch = room(c.scratch, int(n)); err == nil {
			err = head.column(c.scratch)
		}
		for i := range c.tiles {
			set(&c.tiles[i], c.scratch[i])
		}
	}
	if n == 0 {
		return errTile
	}
	part(func(t *TileInfo, v int64) { t.Rows = int(v) })
	part(func(t *TileInfo, v int64) { t.First = v })
	part(func(t *TileInfo, v int64) { t.Last = t.First + v })
	for i := range c.tiles {
		c.rows += min(max(c.tiles[i].Rows, 0), column.MaxTileRows)
	}
	if err != nil {
		return err
	}
	c.payload.ends, err = c.readEnds(head, c.payload.ends)
	return err
}

// maxTiles bounds the tiles of a chunk by the bytes of its directory, such that
// no corrupt number makes a reader allocate without bound.
func maxTiles(b []byte) uint64 { return uint64(len(b)) * column.MaxTileRows }

// column reads an integer column of len(dst) values.
func (r *reader) column(dst []int64) error {
	b := r.bytes(r.uvarint())
	if r.bad {
		return errTile
	}
	return decodeInts(dst, b, nil)
}

// readEnds reads the sizes of the tiles and returns their ends; the sum is the rest of head.
func (c *Chunk) readEnds(head *reader, ends []int64) ([]int64, error) {
	ends = room(ends, len(c.tiles))
	if err := head.column(ends); err != nil {
		return ends, err
	}
	sum := int64(0)
	for i, n := range ends {
		if n < 0 || n > maxChunk {
			return ends, errTile
		}
		sum += n
		ends[i] = sum
	}
	return ends, nil
}

// ordered reports whether the tiles ascend and have 1 … MaxTileRows rows each.
func (c *Chunk) ordered() bool {
	for i := range c.tiles {
		t := &c.tiles[i]
		if t.Rows < 1 || t.Rows > column.MaxTileRows || t.First > t.Last || (t.First == t.Last) != (t.Rows == 1) ||
			i > 0 && t.First <= c.tiles[i-1].Last {
			return false
		}
	}
	return len(c.tiles) > 0
}
