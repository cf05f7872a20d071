package column

import "github.com/dasudian/dsdb"

// MaxTileRows bounds the rows of a Tile, so that a decoded column stays in the L1 cache.
const MaxTileRows = 1024

// Stats are the statistics of one field over the rows of a tile. Values are
// bit patterns of the field's type (float64, int64, uint64). For booleans and
// strings only Count is set.
type Stats struct {
	Known bool // false: nothing here may be used, the column must be loaded
	Count int  // rows that are not null
	// Of the non-null values; unspecified if Count is 0. Sum of integers wraps
	// if SumOverflow; First and Last are in time order.
	Sum, Min, Max, First, Last uint64
	SumOverflow                bool
}

// Tile is a run of rows of one series: times ascend strictly, the last writer
// has been resolved, deleted rows are gone. Its columns are decoded on demand,
// because often its statistics are enough. A Tile is valid until the next call
// to Next of its Cursor; copy what must live longer.
type Tile struct {
	Series      dsdb.SeriesID
	Rows        int     // 1 … MaxTileRows
	First, Last int64   // times of the first and the last row
	Stats       []Stats // one per field of the scan

	Times  []int64  // after LoadTimes
	Cols   []Vector // one per field of the scan; Cols[i] after Load(i)
	Loader Loader   // set by the cursor
}

// Loader decodes the parts of a tile; the cursor that made the tile implements it.
type Loader interface {
	LoadTimes(t *Tile) error
	LoadField(t *Tile, i int) error
}

// LoadTimes decodes the times of the rows into t.Times.
func (t *Tile) LoadTimes() error { return t.Loader.LoadTimes(t) }

// Load decodes field i of the scan into t.Cols[i]. A field that the tile does
// not have becomes a NoType vector of Rows nulls.
func (t *Tile) Load(i int) error { return t.Loader.LoadField(t, i) }

// Cursor yields tiles in the order of the Scan that opened it: series as
// listed, then time. Next returns nil at the end. It is used by one goroutine;
// Close is idempotent and releases what the cursor pins.
type Cursor interface {
	Next() (*Tile, error)
	Close() error
}

// SeriesSet is the answer to which series match: ids and, column by column,
// the values of the tag keys that were asked for, dictionary coded.
type SeriesSet struct {
	IDs  []dsdb.SeriesID // ascending
	Keys []string        // as asked
	Dict [][]string      // per key: its distinct values, unordered; Dict[k][0] is "" (no such tag)
	Code [][]uint32      // per key: for each series an index into Dict[k]
}

// Value returns the value of key k (an index into Keys) of the i-th series.
func (s *SeriesSet) Value(i, k int) string { return s.Dict[k][s.Code[k][i]] }
