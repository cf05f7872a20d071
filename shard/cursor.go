package shard

import (
	"context"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// cursor is the answer to a Scan: it takes the series one by one, orders the
// blocks that the sources have of it, and hands out those that meet no other
// as they are. Where blocks overlap it merges, window by window.
type cursor struct {
	ctx     context.Context
	scan    dsdb.Scan
	sources []source  // by rank, the oldest first
	last    *lastScan // nil: the scan is not one for the newest row, or there is no file

	next   int // the series after the one at hand
	blocks blocks
	window int // next window of it, in scan order; len or -1: none is left
	given  int // rows of it in the scan's range that were handed out

	tile   column.Tile
	shows  tileState
	active []*block // scratch
}

// tileState is what the tile at hand is made of.
type tileState struct {
	direct *block // this block; nil: piece of merged
	merged merged
	piece  piece
	times  []int64 // memory of the tile's times
}

// source finds the rows of the i-th series of the scan in a memtable or a file.
type source interface {
	appendBlocks(dst []block, c *cursor, i, rank int) ([]block, error)
	newest() int64 // no row is younger
}

// piece is the part of the merged rows that the tile at hand shows, [from, to),
// and the rows that are still to be shown, [low, high).
type piece struct{ from, to, low, high int }

// shown returns the tile at hand.
func (c *cursor) shown() *column.Tile {
	if c.last != nil {
		c.last.show(&c.tile)
	}
	return &c.tile
}

// newCursor returns a cursor over no sources yet.
func newCursor(ctx context.Context, scan dsdb.Scan, fields int) *cursor {
	c := &cursor{ctx: ctx, scan: scan}
	c.tile.Stats = make([]column.Stats, fields)
	c.tile.Cols = make([]column.Vector, fields)
	c.tile.Loader = c
	return c
}

// Next implements column.Cursor.
func (c *cursor) Next() (*column.Tile, error) {
	for {
		if c.showPiece() {
			return c.shown(), nil
		}
		for c.window < 0 || c.window >= len(c.blocks.list) || c.scan.NeedRows > 0 && c.given >= c.scan.NeedRows {
			if ok, err := c.nextSeries(); !ok {
				return nil, err
			}
		}
		if ok, err := c.nextWindow(); err != nil {
			return nil, err
		} else if ok {
			return c.shown(), nil
		}
	}
}

// nextSeries moves to the next series; false at the end.
func (c *cursor) nextSeries() (bool, error) {
	if err := c.ctx.Err(); err != nil {
		return false, err
	}
	if c.next == len(c.scan.Series) {
		c.blocks.list, c.window = c.blocks.list[:0], 0
		return false, nil
	}
	i := c.next
	c.next++
	c.given = 0
	c.blocks.list = c.blocks.list[:0]
	if err := c.collect(i); err != nil {
		return false, err
	}
	c.blocks.order()
	c.window = 0
	if c.scan.Descending {
		c.window = len(c.blocks.list) - 1
	}
	c.tile.Series = c.scan.Series[i]
	return true, nil
}

// collect gathers the blocks of the i-th series.
func (c *cursor) collect(i int) (err error) {
	id, asked := c.scan.Series[i], false
	for rank, src := range slices.Backward(c.sources) {
		if c.haveNewer(src.newest()) {
			continue
		}
		if _, file := src.(*fileScan); file && c.last != nil && !asked {
			if asked = true; c.last.find(id, c.scan.Range, len(c.blocks.list) == 0) {
				c.useLast(rank)
				return nil
			}
		}
		if c.blocks.list, err = src.appendBlocks(c.blocks.list, c, i, rank); err != nil {
			return err
		}
	}
	return nil
}

// useLast adds the newest row of the files, in place of the files.
func (c *cursor) useLast(rank int) {
	if c.last.time >= c.scan.Range.Start {
		c.blocks.list = append(c.blocks.list, block{run: c.last, rank: rank, rows: 1, first: c.last.time, last: c.last.time})
	}
}

// haveNewer reports whether the blocks at hand, all of memtables, hold as many
// rows as the reader needs, all of them after t.
func (c *cursor) haveNewer(t int64) bool {
	if !c.scan.Descending || c.scan.NeedRows == 0 {
		return false
	}
	rows := 0
	for i := range c.blocks.list {
		b := &c.blocks.list[i]
		if _, mem := b.run.(*memRows); !mem || b.first <= t {
			return false
		}
		rows += b.rows
	}
	return rows >= c.scan.NeedRows
}

// nextWindow opens the next window: it shows its block, or merges its blocks.
// It reports whether there is a tile at hand.
func (c *cursor) nextWindow() (bool, error) {
	i := c.window
	if c.scan.Descending {
		c.window--
	} else {
		c.window++
	}
	var last int64
	c.active, last = c.blocks.window(c.active[:0], i)
	first := c.blocks.list[i].first
	if len(c.active) == 0 || first >= c.scan.Range.End || last < c.scan.Range.Start {
		return false, nil
	}
	if b := c.active[0]; len(c.active) == 1 && b == &c.blocks.list[i] && b.last <= last && len(b.hidden) == 0 {
		c.showBlock(b)
		return true, nil
	}
	if err := c.shows.merged.merge(c.tile.Series, c.active, first, last); err != nil {
		return false, err
	}
	c.shows.piece = piece{high: len(c.shows.merged.times)}
	return c.showPiece(), nil
}

func (c *cursor) showBlock(b *block) {
	c.shows.direct = b
	c.tile.Rows, c.tile.First, c.tile.Last = b.rows, b.first, b.last
	c.tile.Times = nil
	b.run.stats(c.tile.Stats, b)
	if r := c.scan.Range; r.Contains(b.first) && r.Contains(b.last) {
		c.given += b.rows
	}
}

// showPiece shows the next tile of the merged rows; false if none is left.
func (c *cursor) showPiece() bool {
	p := &c.shows.piece
	if p.low == p.high {
		return false
	}
	if c.scan.Descending {
		p.from, p.to = max(p.low, p.high-column.MaxTileRows), p.high
		p.high = p.from
	} else {
		p.from, p.to = p.low, min(p.high, p.low+column.MaxTileRows)
		p.low = p.to
	}
	times := c.shows.merged.times[p.from:p.to]
	c.shows.direct = nil
	c.tile.Rows, c.tile.First, c.tile.Last = len(times), times[0], times[len(times)-1]
	c.tile.Times = nil
	clear(c.tile.Stats)
	from, _ := slices.BinarySearch(times, c.scan.Range.Start)
	to, _ := slices.BinarySearch(times, c.scan.Range.End)
	c.given += to - from
	if c.scan.NeedRows > 0 && c.given >= c.scan.NeedRows {
		p.low = p.high
	}
	return true
}

// LoadTimes implements column.Loader.
func (c *cursor) LoadTimes(t *column.Tile) (err error) {
	if c.shows.direct == nil {
		t.Times = c.shows.merged.times[c.shows.piece.from:c.shows.piece.to]
		return nil
	}
	c.shows.times, err = c.shows.direct.run.appendTimes(c.shows.times[:0], c.shows.direct)
	t.Times = c.shows.times
	return err
}

// LoadField implements column.Loader.
func (c *cursor) LoadField(t *column.Tile, i int) (err error) {
	if c.shows.direct == nil {
		err = c.shows.merged.load(&t.Cols[i], i, c.shows.piece.from, c.shows.piece.to)
	} else {
		err = c.shows.direct.run.load(&t.Cols[i], c.shows.direct, i)
	}
	if err == nil && c.last != nil {
		c.last.fill(i, &t.Cols[i])
	}
	return err
}

// Close implements column.Cursor. What a cursor reads is pinned by its Source.
func (c *cursor) Close() error {
	c.blocks.list, c.window, c.next = nil, 0, len(c.scan.Series)
	c.shows.piece = piece{}
	return nil
}
