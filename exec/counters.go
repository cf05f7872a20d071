package exec

import (
	"sync/atomic"
	"time"
)

// Counters are what a query, or all queries together, read.
type Counters struct {
	Queries      int64 // of totals
	Series       int64 // series of all sources and shards
	Tiles        int64 // tiles that cursors yielded
	TilesSkipped int64 // of Tiles: no row wanted, by time, statistics or limit
	TilesByStats int64 // of Tiles: answered by statistics alone
	TilesDecoded int64 // of Tiles: times or a field decoded
	Rows         int64 // rows of the tiles that were answered or decoded
	Bytes        int64 // bytes of decoded values, 8 per number
	PeakMemory   int64 // of one query
	ResultRows   int64
	ResultSeries int64
	MorselsRun   int64
	Fragments    int64 // that other nodes have answered: shards, per batch
	Exchanged    int64 // bytes of their answers
}

// plus adds o, which has been read by one goroutine, to c.
func (c *Counters) plus(o *Counters) {
	c.Tiles += o.Tiles
	c.TilesSkipped += o.TilesSkipped
	c.TilesByStats += o.TilesByStats
	c.TilesDecoded += o.TilesDecoded
	c.Rows += o.Rows
	c.Bytes += o.Bytes
	c.MorselsRun += o.MorselsRun
	c.Fragments += o.Fragments
	c.Exchanged += o.Exchanged
}

// totals are the counters of the process since it started.
var totals totalCounters

type totalCounters struct {
	queries, series, tiles, skipped, byStats, decoded, rows, bytes, results atomic.Int64
}

func (t *totalCounters) add(c *Counters) {
	t.queries.Add(1)
	t.series.Add(c.Series)
	t.tiles.Add(c.Tiles)
	t.skipped.Add(c.TilesSkipped)
	t.byStats.Add(c.TilesByStats)
	t.decoded.Add(c.TilesDecoded)
	t.rows.Add(c.Rows)
	t.bytes.Add(c.Bytes)
	t.results.Add(c.ResultRows)
}

// Totals returns what all queries of the process have read that are closed.
func Totals() Counters {
	return Counters{
		Queries: totals.queries.Load(), Series: totals.series.Load(), Tiles: totals.tiles.Load(),
		TilesSkipped: totals.skipped.Load(), TilesByStats: totals.byStats.Load(), TilesDecoded: totals.decoded.Load(),
		Rows: totals.rows.Load(), Bytes: totals.bytes.Load(), ResultRows: totals.results.Load(),
	}
}

// timing adds up the time that the stages of an analyzed query took. A nil
// timing measures nothing. It is used by the goroutine that calls Next.
type timing struct {
	names []string
	spent []time.Duration
}

func (t *timing) add(stage string, began time.Time) {
	if t == nil {
		return
	}
	d := time.Since(began)
	for i, n := range t.names {
		if n == stage {
			t.spent[i] += d
			return
		}
	}
	t.names = append(t.names, stage)
	t.spent = append(t.spent, d)
}
