package exec

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/planner"
)

// aggregateOperator answers a source of a plan with Calls, a batch of groups at a time.
type aggregateOperator struct {
	sourceRun
	win    windows
	lo, hi int // the windows that shards may have rows in
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

func newAggregateOperator(run sourceRun) (operator, error) {
	a := &aggregateOperator{sourceRun: run}
	if len(a.shards) == 0 || a.table.numGroups() == 0 {
		a.group = a.table.numGroups()
		return a, nil
	}
	if err := a.layWindows(); err != nil {
		return nil, err
	}
	a.planInputs()
	for range a.q.o.Workers {
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
	a.scanFields(needed)
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
