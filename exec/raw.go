package exec

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// rawOperator answers a source of a plan without Calls: rows of the series of
// a group, merged by time. It works on units: some groups over some time, as
// much as fits into a share of the memory. If a unit turns out too large it is
// given up and tried again with fewer groups or, of one group, less time.
type rawOperator struct {
	sourceRun
	clusters [][]int          // shards whose times overlap, in output order
	refs     []int            // selected fields
	colTypes []dsdb.FieldType // of refs
	tagged   bool             // tags are selected
	carry    carry            // of fill(previous)
	workers  []*rawWorker
	position
	unit  *rawUnit
	ahead *rawUnit
}

// position is where the next unit starts and how large it shall be.
type position struct {
	group  int            // the first group not gathered in full
	rest   dsdb.TimeRange // what is left of it
	have   int            // its rows before rest
	groups int            // groups of the next unit
	span   int64          // length of the next slice of a single group; 0: all that is left
}

// rawUnit is the rows of groups [from, to), gathered and being put out.
type rawUnit struct {
	from, to int
	whole    bool // the last group is complete
	before   int  // rows of the first group in units before
	buffers  []*rowBuffer
	clusters [][]segment // per cluster, by series
	bytes    int64

	writer *rowWriter
}

func newRawOperator(run sourceRun) *rawOperator {
	r := &rawOperator{sourceRun: run}
	q := r.q
	needed := make([]bool, len(q.p.Refs))
	markRefs(q.p.Residual, needed)
	for _, ref := range selectedRefs(q.p) {
		needed[ref] = true
		switch rf := q.p.Refs[ref]; {
		case rf.Tag:
			r.tagged = true
		case rf.Type != dsdb.NoType:
			r.refs = append(r.refs, ref)
			r.colTypes = append(r.colTypes, rf.Type)
		}
	}
	if len(r.refs) == 0 || len(r.shards) == 0 {
		return r
	}
	r.scanFields(needed)
	for range q.o.Workers {
		r.workers = append(r.workers, newRawWorker(r))
	}
	return r
}

// start begins with the first group.
func (r *rawOperator) start() operator {
	q, t := r.q, r.table
	if len(r.workers) == 0 {
		r.group = t.numGroups()
		return r
	}
	r.cluster()
	r.rest = q.p.Range
	r.groups = t.numGroups()
	return r
}

// cluster brings shards whose time ranges overlap together.
func (r *rawOperator) cluster() {
	end := int64(0)
	for i := range r.shards { // they come by start
		if i == 0 || r.shards[i].rng.Start >= end {
			r.clusters = append(r.clusters, nil)
			end = r.shards[i].rng.End
		}
		c := &r.clusters[len(r.clusters)-1]
		*c = append(*c, i)
		end = max(end, r.shards[i].rng.End)
	}
	if r.q.p.Descending {
		slices.Reverse(r.clusters)
	}
}

// Next returns the next frame, nil at the end.
func (r *rawOperator) Next(ctx context.Context) (*column.Frame, error) {
	for {
		if r.unit == nil {
			if r.unit, r.ahead = r.ahead, nil; r.unit == nil {
				var err error
				if r.unit, err = r.nextUnit(ctx); err != nil || r.unit == nil {
					return nil, err
				}
			}
			r.unit.writer = newRowWriter(r, r.unit)
		}
		f, last, err := r.unit.writer.frame()
		if err != nil {
			return nil, err
		}
		if f != nil {
			if last && !r.unit.whole {
				f.Partial, err = r.continues(ctx, r.unit.to-1)
			}
			return f, err
		}
		r.q.budget.give(r.unit.bytes)
		r.unit = nil
	}
}

// continues reports whether there are more rows of a group that the current
// unit holds in part; it gathers ahead until it knows.
func (r *rawOperator) continues(ctx context.Context, group int) (bool, error) {
	for r.ahead == nil && r.group == group {
		u, err := r.gatherUnit(ctx)
		if err != nil {
			return false, err
		}
		if u.rows() > 0 {
			r.ahead = u
			return u.from == group, nil
		}
	}
	return r.ahead != nil && r.ahead.from == group, nil
}

func (u *rawUnit) rows() int {
	n := 0
	for _, b := range u.buffers {
		n += len(b.times)
	}
	return n
}

// nextUnit gathers the next unit that has rows, nil at the end.
func (r *rawOperator) nextUnit(ctx context.Context) (*rawUnit, error) {
	for r.group < r.table.numGroups() {
		u, err := r.gatherUnit(ctx)
		if err != nil {
			return nil, err
		}
		if u.rows() > 0 {
			return u, nil
		}
	}
	return nil, nil
}

// errTooMuch stops a unit that outgrows its share of the memory.
var errTooMuch = errors.New("BUG: unit too large, not retried")

// gatherUnit gathers one unit and moves on, making units smaller until one fits.
func (r *rawOperator) gatherUnit(ctx context.Context) (*rawUnit, error) {
	began := time.Now()
	defer r.q.timing.add("scan and gather", began)
	for {
		from := r.group
		to := min(from+r.groups, r.table.numGroups())
		for to > from+1 && r.table.groups[to]-r.table.groups[from] > maxBatchSeries {
			to--
		}
		rng := r.slice()
		g := &gathering{r: r, from: from, to: to, rng: rng, fixed: to-from == 1 && rng.End-rng.Start == 1, limit: r.share()}
		u, err := g.run(ctx)
		for _, w := range r.workers {
			r.q.counters.plus(&w.r.counters)
			w.r.counters = Counters{}
		}
		if err == nil {
			err = r.q.checkPoints()
		}
		if err == errTooMuch {
			r.shrink(g)
			continue
		}
		if err != nil {
			return nil, err
		}
		r.advance(g, u)
		return u, nil
	}
}

// slice returns the time range of the next unit.
func (r *rawOperator) slice() dsdb.TimeRange {
	s := r.bounded()
	if r.span == 0 || length(s) <= r.span {
		return s
	}
	if r.q.p.Descending {
		s.Start = s.End - r.span
	} else {
		s.End = s.Start + r.span
	}
	return s
}

// length is how long a range is, 2^63-1 if it is longer.
func length(r dsdb.TimeRange) int64 {
	if d := r.End - r.Start; d >= 0 {
		return d
	}
	return math.MaxInt64
}

// bounded is rest cut to the times of the shards, so that its length means something.
func (r *rawOperator) bounded() dsdb.TimeRange {
	all := dsdb.TimeRange{Start: dsdb.MaxTime, End: dsdb.MinTime}
	for _, s := range r.shards {
		all = dsdb.TimeRange{Start: min(all.Start, s.rng.Start), End: max(all.End, s.rng.End)}
	}
	return r.rest.Intersect(all)
}

// shrink chooses a smaller unit after g turned out too large.
func (r *rawOperator) shrink(g *gathering) {
	part := max(float64(g.begun.Load())/float64(max(g.total, 1)), 1e-6)
	scale := min(0.5, float64(r.share())/2/(float64(g.bytes.Load())/part))
	if n := g.to - g.from; n > 1 {
		r.groups = max(1, int(float64(n)*scale))
		return
	}
	r.span = max(1, int64(float64(length(g.rng))*scale))
}

// share is the memory that one unit may take.
func (r *rawOperator) share() int64 { return r.q.o.MemoryLimit * 3 / 8 }

// advance moves behind the unit u that g gathered.
func (r *rawOperator) advance(g *gathering, u *rawUnit) {
	left := r.bounded()
	if r.q.p.Descending {
		left.End = g.rng.Start
	} else {
		left.Start = g.rng.End
	}
	need := r.need()
	if g.to-g.from == 1 && !left.Empty() && (need == 0 || r.have+u.rows() < need) {
		r.rest, r.have = left, r.have+u.rows()
		if u.bytes < r.share()/4 {
			r.span = min(r.span+min(r.span, math.MaxInt64-r.span), length(left))
		}
		return
	}
	u.whole = true
	r.group, r.rest, r.have = g.to, r.q.p.Range, 0
	if r.span > 0 {
		r.groups = 1
	} else if u.bytes < r.share()/4 {
		r.groups = min(2*r.groups, r.table.numGroups())
	}
}

// need is the number of rows that a group may give before LIMIT ends it, 0 if there is no limit.
func (r *rawOperator) need() int {
	if r.q.p.Limit <= 0 {
		return 0
	}
	return r.q.p.Limit + r.q.p.Offset
}

// gathering is one attempt at a unit.
type gathering struct {
	r        *rawOperator
	from, to int
	rng      dsdb.TimeRange
	fixed    bool  // it cannot be made smaller
	limit    int64 // bytes that it may take unless fixed
	total    int   // morsels
	begun    atomic.Int64
	bytes    atomic.Int64
	over     atomic.Bool // it has become too large
}

func (g *gathering) run(ctx context.Context) (*rawUnit, error) {
	r := g.r
	u := &rawUnit{from: g.from, to: g.to, before: r.have}
	have := make([]int, g.to-g.from)
	have[0] = r.have
	for _, shards := range r.clusters {
		fs := g.fragments(shards, have)
		buffers, err := g.gather(ctx, fs)
		if err != nil {
			r.q.budget.give(g.bytes.Load())
			return nil, err
		}
		u.add(buffers, have, r.table)
	}
	u.bytes = g.bytes.Load()
	return u, nil
}

// gather answers fragments: those of other nodes there, while the rest is scanned here.
func (g *gathering) gather(ctx context.Context, fs []fragment) ([]*rowBuffer, error) {
	r := g.r
	ms := rowMorsels(fs)
	g.total = max(g.total, len(ms)*len(r.clusters))
	far := g.dispatch(ctx, fs)
	if far != nil {
		ms = slices.DeleteFunc(ms, func(m morsel) bool { return fs[m.fragment].remote != nil })
	}
	buffers := make([]*rowBuffer, len(ms))
	err := r.q.parallel(ctx, len(ms), func(ctx context.Context, w, i int) error {
		g.begun.Add(1)
		buffers[i] = newRowBuffer(r.colTypes)
		return r.workers[w].run(ctx, g, &ms[i], buffers[i])
	})
	if far == nil {
		return buffers, err
	}
	if err == errTooMuch {
		g.over.Store(true)
	}
	more, err := far.join(&r.q.counters, err)
	return append(buffers, more...), err
}

// add takes the buffers of one cluster and counts the rows of each group.
func (u *rawUnit) add(buffers []*rowBuffer, have []int, t *seriesTable) {
	var segs []segment
	for _, b := range buffers {
		for _, s := range b.segments {
			s.buffer = len(u.buffers)
			segs = append(segs, s)
		}
		u.buffers = append(u.buffers, b)
	}
	slices.SortStableFunc(segs, func(a, b segment) int { return cmp.Compare(a.series, b.series) })
	g := u.from
	for _, s := range segs {
		g = t.groupOf(s.series, g)
		have[g-u.from] += s.to - s.from
	}
	u.clusters = append(u.clusters, segs)
}

// fragments are what the groups that still need rows ask of some shards.
func (g *gathering) fragments(shards []int, have []int) []fragment {
	r, t, need := g.r, g.r.table, g.r.need()
	var out []fragment
	for _, i := range shards {
		f := fragment{shard: i, remote: r.shards[i].remote, rng: r.shards[i].rng.Intersect(g.rng)}
		if f.rng.Empty() {
			continue
		}
		for grp := g.from; grp < g.to; grp++ {
			if need > 0 && have[grp-g.from] >= need {
				continue
			}
			for j := t.groups[grp]; j < t.groups[grp+1]; j++ {
				if int(t.shard[j]) == i {
					f.members = append(f.members, member{series: int32(j)})
				}
			}
		}
		if len(f.members) > 0 {
			t.sortByID(f.members)
			out = append(out, f)
		}
	}
	return out
}

// rowMorsels cuts fragments whose members ascend by id.
func rowMorsels(fs []fragment) []morsel {
	var out []morsel
	for i := range fs {
		for mine := fs[i].members; len(mine) > 0; {
			n := min(len(mine), morselSeries)
			out = append(out, morsel{fragment: i, shard: fs[i].shard, series: mine[:n], rng: fs[i].rng})
			mine = mine[n:]
		}
	}
	return out
}

// grow accounts for bytes that a buffer has grown by.
func (g *gathering) grow(n int64) error {
	if err := g.r.q.budget.take(n); err != nil {
		if !g.fixed {
			return errTooMuch
		}
		return err
	}
	if g.bytes.Add(n) > g.limit && !g.fixed {
		return errTooMuch
	}
	return nil
}
