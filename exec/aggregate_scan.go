package exec

import (
	"context"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// aggregateWorker is what one goroutine needs to run morsels.
type aggregateWorker struct {
	a      *aggregateOperator
	r      *tileReader
	filter *filter
	blocks blockMaker
	block  block
	runs   []run
	sparse []run
	ids    []dsdb.SeriesID
	again  []member // series to scan once more without NeedRows
	left   []int    // inputs that the current tile's statistics did not answer
	mask   mask
}

func newAggregateWorker(a *aggregateOperator) *aggregateWorker {
	w := &aggregateWorker{a: a, r: newTileReader(a.q.p.Refs, a.fields)}
	w.filter = newFilter(w.r)
	w.block.reader, w.block.table = w.r, a.table
	return w
}

// run scans a morsel into p. If only the first or last value of each series
// counts, the shard is told that one row is wanted; a series whose row had no
// value is scanned again in full.
func (w *aggregateWorker) run(ctx context.Context, m *morsel, p *partial) error {
	told := 0
	if w.a.edge != planner.Count && !slices.ContainsFunc(m.series, func(s member) bool { return w.a.table.conds[w.a.table.cond[s.series]] != nil }) {
		told = 1
	}
	w.again = w.again[:0]
	if err := w.pass(ctx, m, p, told); err != nil || len(w.again) == 0 {
		return err
	}
	rest := *m
	rest.series = slices.Clone(w.again)
	return w.pass(ctx, &rest, p, 0)
}

// pass scans the series of m once.
func (w *aggregateWorker) pass(ctx context.Context, m *morsel, p *partial, told int) error {
	w.ids = w.ids[:0]
	for _, s := range m.series {
		w.ids = append(w.ids, w.a.table.id[s.series])
	}
	w.r.types = w.a.types[m.shard]
	cur, err := w.a.shards[m.shard].src.Scan(ctx, dsdb.Scan{Measurement: w.a.name, Series: w.ids,
		Fields: w.a.fields.names, Range: m.rng, Descending: w.a.edge == planner.Last, NeedRows: told})
	if err != nil {
		return err
	}
	defer cur.Close()
	s := cellScan{w: w, m: m, p: p, told: told, at: -1}
	for n := 1; ; n++ {
		if n%checkTiles == 0 {
			if err := ctx.Err(); err != nil {
				return canceled(err)
			}
			if err := p.account(&w.a.q.budget); err != nil {
				return err
			}
		}
		t, err := cur.Next()
		if err != nil {
			return err
		}
		if t == nil {
			s.endSeries()
			return p.account(&w.a.q.budget)
		}
		if err := s.tile(t); err != nil {
			return err
		}
	}
}

// cellScan is the state of one pass.
type cellScan struct {
	w       *aggregateWorker
	m       *morsel
	p       *partial
	told    int  // NeedRows
	at      int  // current series in m
	base    int  // cell of its window 0
	settled bool // no more tiles of it are needed
}

// endSeries notes the current series for another pass if it gave no value.
func (s *cellScan) endSeries() {
	if s.at >= 0 && s.told > 0 && !s.settled {
		s.w.again = append(s.w.again, s.m.series[s.at])
	}
}

func (s *cellScan) tile(t *column.Tile) error {
	w := s.w
	if s.at < 0 || t.Series != w.ids[s.at] {
		s.endSeries()
		for s.at++; t.Series != w.ids[s.at]; s.at++ {
		}
		s.settled = false
		w.block.series = int(s.m.series[s.at].series)
		s.base = (int(s.m.series[s.at].place)-s.p.group)*s.p.wins - s.p.win
	}
	w.r.reset(t)
	answered := false
	if !s.settled && t.First < s.m.rng.End && t.Last >= s.m.rng.Start {
		var err error
		if answered, err = w.tile(t, s.m.rng, s.p, s.base); err != nil {
			return err
		}
		s.settled = answered && w.a.edge != planner.Count
	}
	w.r.done(answered)
	return nil
}

// tile folds a tile into the cells base+window. It reports whether the tile
// had values.
func (w *aggregateWorker) tile(t *column.Tile, rng dsdb.TimeRange, p *partial, base int) (bool, error) {
	verdict, m, err := everyRow, (*mask)(nil), error(nil)
	if c := w.a.table.conds[w.a.table.cond[w.block.series]]; c != nil {
		if verdict, err = w.filter.eval(c, &w.mask); err != nil || verdict == noRow {
			return false, err
		}
		if verdict == someRows {
			m = &w.mask
		}
	}
	inside := rng.Start <= t.First && t.Last < rng.End
	one := inside && (w.a.win.n == 1 || t.Last < w.a.win.start(w.a.win.at(t.First)+1))
	had, err := w.tryStats(t, p, base, one && m == nil)
	if err != nil || len(w.left) == 0 {
		return had, err
	}
	more, err := w.decode(t, rng, p, base, one, m)
	return had || more, err
}

// tryStats answers the inputs that it can by statistics; the others are left in w.left.
func (w *aggregateWorker) tryStats(t *column.Tile, p *partial, base int, whole bool) (had bool, err error) {
	w.left = w.left[:0]
	for i := range w.a.inputs {
		in := &w.a.inputs[i]
		st, err := w.r.stats(in.ref)
		if err != nil {
			return had, err
		}
		if st != nil && st.Count == 0 {
			continue
		}
		if st == nil || !whole || !w.a.byStats(in) {
			w.left = append(w.left, i)
			continue
		}
		cell := base + w.a.win.at(t.First)
		ok := true
		for n, c := range in.calls {
			if !p.states[c].addStats(st, t, cell) {
				if n > 0 {
					panic("BUG: statistics answered some calls of an input")
				}
				ok = false
				break
			}
		}
		if !ok {
			w.left = append(w.left, i)
			continue
		}
		had = true
	}
	return had, nil
}

// byStats reports whether statistics may answer an input: if it has several
// calls, all of them must be such that statistics always answer.
func (a *aggregateOperator) byStats(in *input) bool {
	for _, c := range in.calls {
		call := a.q.p.Calls[c]
		switch call.Func {
		case planner.Count, planner.Sum, planner.Spread:
		case planner.Mean, planner.First, planner.Last:
			if len(in.calls) > 1 {
				return false
			}
		case planner.Min, planner.Max:
			if len(in.calls) > 1 && a.needTime() {
				return false
			}
		default:
			return false
		}
		if t := a.q.p.Refs[in.ref].Type; call.Func != planner.Count && !isNumeric(t) {
			return false
		}
	}
	return true
}

// decode folds the inputs in w.left by their values. one: all rows of the tile
// lie in one window and in the range.
func (w *aggregateWorker) decode(t *column.Tile, rng dsdb.TimeRange, p *partial, base int, one bool, m *mask) (had bool, err error) {
	lo, hi := 0, t.Rows
	var times []int64
	if !one {
		if times, err = w.r.times(); err != nil {
			return false, err
		}
		lo, _ = slices.BinarySearch(times, rng.Start)
		hi, _ = slices.BinarySearch(times, rng.End)
	}
	w.runs = w.runs[:0]
	for _, i := range w.left {
		in := &w.a.inputs[i]
		if in.timed && times == nil {
			if times, err = w.r.times(); err != nil {
				return had, err
			}
		}
		v, err := w.r.column(in.ref)
		if err != nil {
			return had, err
		}
		if v.Type == dsdb.NoType {
			continue
		}
		b := &w.block
		w.blocks.make(b, v, in.kind, times, m, lo, hi)
		if b.n == 0 {
			continue
		}
		had = true
		runs := w.cutRuns(b, t, one)
		for _, c := range in.calls {
			p.states[c].addRows(b, runs, base)
		}
		if b.err != nil {
			return had, b.err
		}
	}
	return had, nil
}

// cutRuns returns the windows of a block. Those of dense blocks are the same
// for all fields of a tile.
func (w *aggregateWorker) cutRuns(b *block, t *column.Tile, one bool) []run {
	if one {
		w.sparse = append(w.sparse[:0], run{int32(w.a.win.at(t.First)), 0, int32(b.n)})
		return w.sparse
	}
	if b.rows != nil {
		w.sparse = w.a.win.appendRuns(w.sparse[:0], b.times)
		return w.sparse
	}
	if len(w.runs) == 0 {
		w.runs = w.a.win.appendRuns(w.runs, b.times)
	}
	return w.runs
}
