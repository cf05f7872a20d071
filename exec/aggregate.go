package exec

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// aggregateOperator answers a source of a plan with Calls, a batch of groups at a time.
type aggregateOperator struct {
	q      *query
	name   string
	shards []openShard
	table  *seriesTable
	win    windows
	lo, hi int // the windows that shards may have rows in
	fields fieldMap
	types  []storedTypes // per shard
	inputs []input
	refs   []int        // refs beside a selector, taken from the picked point
	edge   planner.Func // First or Last if a series is settled by its first value, else Count

	workers []*aggregateWorker
	group   int        // the next group to put out
	ready   []answered // it and those after it, as far as they are computed
	out     *groupWriter
}

// input is a field in one representation, and the calls that take it.
type input struct {
	ref   int
	kind  kind
	calls []int
	timed bool // a call looks at times
}

// partial is the state of all calls over groups [group, group+groups) and
// windows [win, win+wins); cell (g, w) is at (g-group)*wins + w-win. It is what
// a fragment gives to the exchange.
type partial struct {
	group, groups int
	win, wins     int
	states        []state // per call
	bytes         int64   // taken from the budget
}

func newAggregateOperator(q *query, s *planner.Source, shards []openShard, t *seriesTable) (operator, error) {
	a := &aggregateOperator{q: q, name: s.Measurement, shards: shards, table: t}
	if len(shards) == 0 || t.numGroups() == 0 {
		a.group = t.numGroups()
		return a, nil
	}
	if err := a.layWindows(); err != nil {
		return nil, err
	}
	a.planInputs()
	for range shards {
		a.types = append(a.types, make(storedTypes, len(a.fields.names)))
	}
	for range q.o.Workers {
		a.workers = append(a.workers, newAggregateWorker(a))
	}
	a.out = newGroupWriter(a)
	return a, nil
}

// layWindows lays the windows over the query's range; where that is open, over
// the range of the shards.
func (a *aggregateOperator) layWindows() error {
	data := a.shards[0].rng
	for _, s := range a.shards[1:] {
		data = dsdb.TimeRange{Start: min(data.Start, s.rng.Start), End: max(data.End, s.rng.End)}
	}
	rng := a.q.p.Range
	if rng.Start <= dsdb.MinTime {
		rng.Start = data.Start
	}
	if rng.End > dsdb.MaxTime {
		rng.End = data.End
	}
	var err error
	if a.win, err = newWindows(rng, a.q.p); err != nil {
		return err
	}
	a.lo, a.hi = a.win.at(data.Start), a.win.at(data.End-1)+1
	return nil
}

func (a *aggregateOperator) planInputs() {
	p := a.q.p
	needed := make([]bool, len(p.Refs))
	markRefs(p.Residual, needed)
	if p.Selector {
		a.refs = selectedRefs(p)
		for _, r := range a.refs {
			needed[r] = true
		}
	}
	for i, c := range p.Calls {
		needed[c.Ref] = true
		t := p.Refs[c.Ref].Type
		if t == dsdb.NoType {
			continue
		}
		k := kindOf(c.Func, t)
		at := slices.IndexFunc(a.inputs, func(in input) bool { return in.ref == c.Ref && in.kind == k })
		if at < 0 {
			at = len(a.inputs)
			a.inputs = append(a.inputs, input{ref: c.Ref, kind: k})
		}
		in := &a.inputs[at]
		in.calls = append(in.calls, i)
		in.timed = in.timed || a.timed(c)
	}
	a.fields = newFieldMap(p.Refs, needed)
	a.edge = planner.Count
	if f := p.Calls[0].Func; p.Interval.Every == 0 && len(a.inputs) == 1 && (f == planner.First || f == planner.Last) &&
		!slices.ContainsFunc(p.Calls, func(c planner.Call) bool { return c.Func != f }) {
		a.edge = f
	}
}

// timed reports whether the times of the points of a call matter.
func (a *aggregateOperator) timed(c planner.Call) bool {
	switch c.Func {
	case planner.First, planner.Last, planner.Percentile, planner.Mode, planner.Distinct, planner.CountDistinct:
		return true
	case planner.Min, planner.Max:
		return a.needTime()
	}
	return false
}

func (a *aggregateOperator) needTime() bool {
	return a.q.p.Selector && (a.q.p.Interval.Every == 0 || len(a.refs) > 0)
}

func (a *aggregateOperator) newPartial(group, groups, win, wins int) (*partial, error) {
	p := &partial{group: group, groups: groups, win: win, wins: wins, states: make([]state, len(a.q.p.Calls))}
	n := groups * wins
	if err := a.q.budget.take(int64(n) * 16 * int64(len(p.states))); err != nil {
		return nil, err
	}
	p.bytes = int64(n) * 16 * int64(len(p.states))
	for i, c := range a.q.p.Calls {
		p.states[i] = newState(a.q, c, n, a.needTime(), a.refs)
	}
	return p, p.account(&a.q.budget)
}

// account takes from the budget what the states have grown by.
func (p *partial) account(b *budget) error {
	var n int64
	for _, s := range p.states {
		n += s.bytes()
	}
	if n > p.bytes {
		if err := b.take(n - p.bytes); err != nil {
			return err
		}
		p.bytes = n
	}
	return nil
}

func (p *partial) release(b *budget) {
	b.give(p.bytes)
	p.bytes, p.states = 0, nil
}

// maxBatchSeries bounds a batch, so that the first groups come out soon.
const maxBatchSeries = 4096

// batchEnd returns the end of the batch of groups that starts at group.
func (a *aggregateOperator) batchEnd(group, wins int) int {
	perGroup := int64(wins) * int64(len(a.q.p.Calls)) * 32
	cells := max(a.q.o.MemoryLimit/8/perGroup, 1)
	end := group + 1
	for end < a.table.numGroups() && int64(end-group) < cells &&
		a.table.groups[end+1]-a.table.groups[group] <= maxBatchSeries {
		end++
	}
	return end
}

// morsel is a piece of work: some series of one shard.
type morsel struct {
	shard  int
	series []int // indexes into the table, ascending by id
	rng    dsdb.TimeRange
	group  int // of all series: [group, group+groups)
	groups int
	win    int // windows that rng meets: [win, win+wins)
	wins   int
}

// compute answers groups [from, to) in windows [lo, hi).
func (a *aggregateOperator) compute(ctx context.Context, from, to, lo, hi int) (*partial, error) {
	began := time.Now()
	defer a.q.timing.add("scan and aggregate", began)
	total, err := a.newPartial(from, to-from, lo, hi-lo)
	if err != nil {
		return nil, err
	}
	morsels := a.cut(from, to, lo, hi)
	direct := a.disjoint(morsels)
	wave := a.q.o.Workers * 4
	for at := 0; at < len(morsels); at += wave {
		if err := a.wave(ctx, morsels[at:min(at+wave, len(morsels))], total, direct); err != nil {
			return nil, err
		}
		if err := a.q.checkPoints(); err != nil {
			return nil, err
		}
	}
	for _, s := range total.states {
		s.finish()
	}
	return total, nil
}

// wave runs some morsels and merges what they give into total, in their order.
// direct: they fold into total themselves, since no two share a cell.
func (a *aggregateOperator) wave(ctx context.Context, ms []morsel, total *partial, direct bool) error {
	parts := make([]*partial, len(ms))
	err := a.q.parallel(ctx, len(ms), func(ctx context.Context, w, i int) error {
		if direct {
			return a.workers[w].run(ctx, &ms[i], total)
		}
		p, err := a.newPartial(ms[i].group, ms[i].groups, ms[i].win, ms[i].wins)
		if err != nil {
			return err
		}
		parts[i] = p
		return a.workers[w].run(ctx, &ms[i], p)
	})
	for _, w := range a.workers {
		a.q.counters.plus(&w.r.counters)
		w.r.counters = Counters{}
	}
	if err != nil || direct {
		return err
	}
	for _, p := range parts {
		total.merge(p)
		p.release(&a.q.budget)
	}
	return total.account(&a.q.budget)
}

// disjoint reports whether no two morsels share a cell and cells are of fixed
// size, so that goroutines may fold into one partial.
func (a *aggregateOperator) disjoint(ms []morsel) bool {
	if len(ms) > 256 {
		return false
	}
	for _, c := range a.q.p.Calls {
		switch c.Func {
		case planner.Median, planner.Percentile, planner.Stddev, planner.Mode, planner.Distinct, planner.CountDistinct:
			return false
		}
	}
	for i := range ms {
		x := &ms[i]
		for j := range ms[:i] {
			y := &ms[j]
			if x.group < y.group+y.groups && y.group < x.group+x.groups && x.win < y.win+y.wins && y.win < x.win+x.wins {
				return false
			}
		}
	}
	return true
}

func (p *partial) merge(o *partial) {
	for i, s := range p.states {
		if p.wins == o.wins {
			s.merge(o.states[i], 0, (o.group-p.group)*p.wins, o.groups*o.wins)
			continue
		}
		for g := range o.groups {
			s.merge(o.states[i], g*o.wins, (o.group+g-p.group)*p.wins+o.win-p.win, o.wins)
		}
	}
}

func (q *query) checkPoints() error {
	if q.o.MaxPoints > 0 && q.counters.Rows > int64(q.o.MaxPoints) {
		return dsdb.Errorf(dsdb.KindTooLarge, "max-select-point limit exceeed: (%d/%d)", q.counters.Rows, q.o.MaxPoints)
	}
	return nil
}

// cut makes the morsels of groups [from, to) in windows [lo, hi), shard by
// shard. Series of a single group are taken in the order of their ids, so that
// a morsel reads a contiguous part of the shard; series of several groups in
// the order of the groups, so that a morsel's cells are few.
func (a *aggregateOperator) cut(from, to, lo, hi int) []morsel {
	t := a.table
	rng := dsdb.TimeRange{Start: a.win.start(lo), End: a.win.start(hi)}
	var out []morsel
	for i := range a.shards {
		r := a.shards[i].rng.Intersect(rng)
		if r.Empty() {
			continue
		}
		var mine []int
		for j := t.groups[from]; j < t.groups[to]; j++ {
			if int(t.shard[j]) == i {
				mine = append(mine, j)
			}
		}
		byID := func(x, y int) int { return cmp.Compare(t.id[x], t.id[y]) }
		if to-from == 1 {
			slices.SortFunc(mine, byID)
		}
		w0, w1 := max(a.win.at(r.Start), lo), min(a.win.at(r.End-1)+1, hi)
		for len(mine) > 0 {
			n := min(len(mine), morselSeries)
			m := morsel{shard: i, series: mine[:n:n], rng: r, group: from, groups: to - from, win: w0, wins: w1 - w0}
			if to-from > 1 {
				m.group = t.groupOf(mine[0], from)
				m.groups = t.groupOf(mine[n-1], m.group) + 1 - m.group
				slices.SortFunc(m.series, byID)
			}
			out = append(out, m)
			mine = mine[n:]
		}
	}
	return out
}

// groupOf returns the group of series i, which is hint or a later one.
func (t *seriesTable) groupOf(i, hint int) int {
	g, found := slices.BinarySearch(t.groups[hint:], i)
	if !found {
		g--
	}
	return hint + g
}

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
