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
	left   []int // inputs that the current tile's statistics did not answer
	mask   mask
}

func newAggregateWorker(a *aggregateOperator) *aggregateWorker {
	w := &aggregateWorker{a: a, r: newTileReader(a.q.p.Refs, a.fields)}
	w.filter = newFilter(w.r)
	w.block.reader, w.block.table = w.r, a.table
	return w
}

// run scans a morsel into p.
func (w *aggregateWorker) run(ctx context.Context, m *morsel, p *partial) error {
	w.ids = w.ids[:0]
	for _, s := range m.series {
		w.ids = append(w.ids, w.a.table.id[s])
	}
	w.r.types = w.a.types[m.shard]
	cur, err := w.a.shards[m.shard].src.Scan(ctx, dsdb.Scan{Measurement: w.a.name, Series: w.ids,
		Fields: w.a.fields.names, Range: m.rng, Descending: w.a.edge == planner.Last})
	if err != nil {
		return err
	}
	defer cur.Close()
	return w.scan(ctx, cur, m, p)
}

func (w *aggregateWorker) scan(ctx context.Context, cur column.Cursor, m *morsel, p *partial) error {
	at, group, settled := 0, m.group, false
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
			return p.account(&w.a.q.budget)
		}
		if n == 1 || t.Series != w.ids[at] {
			for t.Series != w.ids[at] {
				at++
			}
			settled = false
			w.block.series = m.series[at]
			group = m.group
			if m.groups > 1 {
				group = w.a.table.groupOf(m.series[at], m.group)
			}
		}
		w.r.reset(t)
		answered := false
		if !settled && t.First < m.rng.End && t.Last >= m.rng.Start {
			if answered, err = w.tile(t, m.rng, p, (group-p.group)*p.wins-p.win); err != nil {
				return err
			}
			settled = answered && w.a.edge != planner.Count
		}
		w.r.done(answered)
	}
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
