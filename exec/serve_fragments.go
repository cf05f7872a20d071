package exec

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/wire"
)

// aggregate answers the fragments of a batch, each with its partial.
func (s *server) aggregate(ctx context.Context, r *wire.Reader) error {
	l := s.listing
	if l == nil || len(l.q.p.Calls) == 0 {
		r.Fail("nothing to aggregate")
		return r.Err()
	}
	if r.Bool() {
		win := decodeWindows(r)
		if r.Err() == nil {
			l.agg = newAggregateOperator(l.sourceRun, win)
		}
	}
	a := l.agg
	if a == nil {
		r.Fail("no windows")
		return r.Err()
	}
	lo, hi := r.Size(a.win.n), r.Size(a.win.n)
	if lo >= hi {
		r.Fail("windows [%d, %d)", lo, hi)
	}
	var fs []fragment
	groups := 0
	for range r.Count(2) {
		shard, members := l.members(r, &groups)
		if r.Err() != nil {
			return r.Err()
		}
		f, ok := a.fragment(shard, members, lo, hi)
		if !ok || !a.sound(&f, lo, hi) {
			r.Fail("shard %d has nothing in windows [%d, %d)", shard, lo, hi)
			return r.Err()
		}
		fs = append(fs, f)
	}
	if err := r.End(); err != nil {
		return err
	}
	if err := l.checkSeries(fs); err != nil {
		return err
	}
	if n := uint64(groups) * uint64(a.win.n); n > 1<<40 {
		return dsdb.Errorf(dsdb.KindTooLarge, "query memory limit exceeded: %d cells", n)
	}
	return a.serve(ctx, s, fs)
}

// members reads the shard and the series of a fragment.
func (l *served) members(r *wire.Reader, groups *int) (int, []member) {
	shard := r.Size(len(l.shards) - 1)
	if r.Err() != nil || len(l.shards) == 0 {
		r.Fail("no shard")
		return 0, nil
	}
	return shard, decodeMembers(r, l.base[shard], l.base[shard+1]-l.base[shard], groups)
}

// sound reports whether the times of a fragment lie in its windows, in spite of
// what the numbers of a request may be.
func (a *aggregateOperator) sound(f *fragment, lo, hi int) bool {
	if f.win < lo || f.wins <= 0 || f.win+f.wins > hi {
		return false
	}
	return f.rng.Start >= a.win.first && a.win.at(f.rng.End-1) == f.win+f.wins-1
}

// checkSeries applies the bound on series to a request.
func (l *served) checkSeries(fs []fragment) error {
	n := 0
	for i := range fs {
		n += len(fs[i].members)
	}
	if l.q.o.MaxSeries > 0 && n > l.q.o.MaxSeries {
		return dsdb.Errorf(dsdb.KindTooLarge, "max-select-series limit exceeded: (%d/%d)", n, l.q.o.MaxSeries)
	}
	return nil
}

// serve runs the morsels of fragments and sends the partial of each fragment
// when its last morsel has been merged.
func (a *aggregateOperator) serve(ctx context.Context, s *server, fs []fragment) error {
	ms := a.table.cut(fs)
	sums := make([]*partial, len(fs))
	direct := make([]bool, len(fs))
	left := make([]int, len(fs)) // morsels
	for i, at := 0, 0; i < len(fs); i++ {
		end := at
		for end < len(ms) && ms[end].fragment == i {
			end++
		}
		left[i], direct[i] = end-at, end-at == 1 || a.disjoint(ms[at:end])
		at = end
	}
	sum := func(i int) (p *partial, err error) {
		if sums[i] == nil {
			f := &fs[i]
			sums[i], err = a.newPartial(f.group, f.groups, f.win, f.wins)
		}
		return sums[i], err
	}
	into := func(m *morsel) (*partial, error) {
		if direct[m.fragment] {
			return sum(m.fragment)
		}
		return nil, nil
	}
	return a.each(ctx, ms, into, func(m *morsel, p *partial) error {
		i := m.fragment
		total, err := sum(i)
		if err != nil {
			return err
		}
		if p != total {
			total.merge(p)
			p.release(&a.q.budget)
			if err := total.account(&a.q.budget); err != nil {
				return err
			}
		}
		if left[i]--; left[i] > 0 {
			return nil
		}
		b, err := appendPartial(s.begin(itemAnswer), total)
		if err != nil {
			return err
		}
		total.release(&a.q.budget)
		sums[i] = nil
		return s.item(b)
	})
}

// gather answers the fragments of a batch with the rows of each morsel.
func (s *server) gather(ctx context.Context, r *wire.Reader) error {
	l := s.listing
	if l == nil || len(l.q.p.Calls) > 0 {
		r.Fail("no rows to gather")
		return r.Err()
	}
	if l.rows == nil {
		l.rows = newRawOperator(l.sourceRun)
		l.rows.tagged = false // who asked knows the series of a row
	}
	g := &gathering{r: l.rows, limit: min(int64(r.Uint(math.MaxInt64)), l.rows.share()), fixed: r.Bool()}
	if len(l.rows.workers) == 0 {
		r.Fail("no field is selected")
	}
	var fs []fragment
	for range r.Count(4) {
		shard := r.Size(len(l.shards) - 1)
		if r.Err() != nil || len(l.shards) == 0 {
			r.Fail("no shard")
			return r.Err()
		}
		f := fragment{shard: shard, rng: dsdb.TimeRange{Start: r.Int(), End: r.Int()}}
		groups := 0
		f.members = decodeMembers(r, l.base[shard], l.base[shard+1]-l.base[shard], &groups)
		if r.Err() != nil {
			return r.Err()
		}
		l.sortMembers(r, f.members)
		fs = append(fs, f)
	}
	if err := r.End(); err != nil {
		return err
	}
	if err := l.checkSeries(fs); err != nil {
		return err
	}
	return g.serve(ctx, s, fs)
}

// sortMembers notes the place of each series in the request and sorts them by id.
func (l *served) sortMembers(r *wire.Reader, ms []member) {
	for i := range ms {
		ms[i].place = int32(i)
	}
	l.table.sortByID(ms)
	for i := 1; i < len(ms); i++ {
		if ms[i].series == ms[i-1].series {
			r.Fail("a series twice")
			return
		}
	}
}

// serve gathers the rows of fragments, some morsels at a time, and sends them.
func (g *gathering) serve(ctx context.Context, s *server, fs []fragment) error {
	op := g.r
	ms := rowMorsels(fs)
	for len(ms) > 0 {
		now := ms[:min(op.q.o.Workers*2, len(ms))]
		ms = ms[len(now):]
		buffers := make([]*rowBuffer, len(now))
		err := op.q.parallel(ctx, len(now), func(ctx context.Context, w, i int) error {
			buffers[i] = newRowBuffer(op.colTypes)
			return op.workers[w].run(ctx, g, &now[i], buffers[i])
		})
		for _, w := range op.workers {
			op.q.counters.plus(&w.r.counters)
			w.r.counters = Counters{}
		}
		if err == nil {
			err = op.q.checkPoints()
		}
		for i := 0; i < len(now) && err == nil; i++ {
			err = s.sendRows(&now[i], buffers[i], op.table)
		}
		op.q.budget.give(g.bytes.Swap(0))
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *server) sendRows(m *morsel, rows *rowBuffer, t *seriesTable) error {
	b := wire.AppendUint(s.begin(itemAnswer), uint64(m.fragment))
	b, err := appendRows(b, rows, func(series int) int {
		i, _ := slices.BinarySearchFunc(m.series, t.id[series], func(m member, id dsdb.SeriesID) int { return cmp.Compare(t.id[m.series], id) })
		return int(m.series[i].place)
	})
	if err != nil {
		return err
	}
	return s.item(b)
}
