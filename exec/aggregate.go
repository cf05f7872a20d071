package exec

import (
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
	numbers       []int32 // of one that another node computed: the number of each group here
	bytes         int64   // taken from the budget
}

// newAggregateOperator makes an operator that can run morsels over the windows win.
func newAggregateOperator(run sourceRun, win windows) *aggregateOperator {
	a := &aggregateOperator{sourceRun: run, win: win}
	a.planInputs()
	for range a.q.o.Workers {
		a.workers = append(a.workers, newAggregateWorker(a))
	}
	return a
}

// startAggregate makes the operator that answers a source.
func startAggregate(run sourceRun) (operator, error) {
	if len(run.shards) == 0 || run.table.numGroups() == 0 {
		return &aggregateOperator{sourceRun: run, group: run.table.numGroups()}, nil
	}
	win, data, err := run.layWindows()
	if err != nil {
		return nil, err
	}
	a := newAggregateOperator(run, win)
	a.lo, a.hi = a.win.at(data.Start), a.win.at(data.End-1)+1
	a.out = newGroupWriter(a)
	return a, nil
}

// layWindows lays the windows over the query's range; where that is open, over
// the range of the shards, data.
func (s *sourceRun) layWindows() (win windows, data dsdb.TimeRange, err error) {
	data = s.shards[0].rng
	for _, sh := range s.shards[1:] {
		data = dsdb.TimeRange{Start: min(data.Start, sh.rng.Start), End: max(data.End, sh.rng.End)}
	}
	rng := s.q.p.Range
	if rng.Start <= dsdb.MinTime {
		rng.Start = data.Start
	}
	if rng.End > dsdb.MaxTime {
		rng.End = data.End
	}
	win, err = newWindows(rng, s.q.p)
	return win, data, err
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

// compute answers groups [from, to) in windows [lo, hi).
func (a *aggregateOperator) compute(ctx context.Context, from, to, lo, hi int) (*partial, error) {
	began := time.Now()
	defer a.q.timing.add("scan and aggregate", began)
	total, err := a.newPartial(from, to-from, lo, hi-lo)
	if err != nil {
		return nil, err
	}
	if err := a.merge(ctx, a.fragments(from, to, lo, hi), total, lo, hi); err != nil {
		return nil, err
	}
	for _, s := range total.states {
		s.finish()
	}
	return total, nil
}

// each runs morsels, some at a time, and hands over what they give, in their
// order. If into returns a partial for a morsel, the morsel folds into that.
func (a *aggregateOperator) each(ctx context.Context, ms []morsel, into func(m *morsel) (*partial, error), done func(m *morsel, p *partial) error) error {
	wave := a.q.o.Workers * 4
	for len(ms) > 0 {
		now := ms[:min(wave, len(ms))]
		ms = ms[len(now):]
		parts := make([]*partial, len(now))
		for i := range now {
			p, err := into(&now[i])
			if err != nil {
				return err
			}
			parts[i] = p
		}
		if err := a.wave(ctx, now, parts); err != nil {
			return err
		}
		for i := range now {
			if err := done(&now[i], parts[i]); err != nil {
				return err
			}
		}
		if err := a.q.checkPoints(); err != nil {
			return err
		}
	}
	return nil
}

// wave runs morsels into parts; where there is none yet it makes one.
func (a *aggregateOperator) wave(ctx context.Context, ms []morsel, parts []*partial) error {
	err := a.q.parallel(ctx, len(ms), func(ctx context.Context, w, i int) error {
		if parts[i] == nil {
			p, err := a.newPartial(ms[i].group, ms[i].groups, ms[i].win, ms[i].wins)
			if err != nil {
				return err
			}
			parts[i] = p
		}
		return a.workers[w].run(ctx, &ms[i], parts[i])
	})
	for _, w := range a.workers {
		a.q.counters.plus(&w.r.counters)
		w.r.counters = Counters{}
	}
	return err
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

func (q *query) checkPoints() error {
	if q.o.MaxPoints > 0 && q.counters.Rows > int64(q.o.MaxPoints) {
		return dsdb.Errorf(dsdb.KindTooLarge, "max-select-point limit exceeed: (%d/%d)", q.counters.Rows, q.o.MaxPoints)
	}
	return nil
}

// groupOf returns the group of series i, which is hint or a later one.
func (t *seriesTable) groupOf(i, hint int) int {
	g, found := slices.BinarySearch(t.groups[hint:], i)
	if !found {
		g--
	}
	return hint + g
}
