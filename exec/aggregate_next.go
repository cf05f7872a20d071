package exec

import (
	"context"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// answered is a run of groups, [from, to), that a partial answers.
type answered struct {
	from, to int
	p        *partial
	last     bool // no later run uses p
}

// Next returns the next frame, nil at the end.
func (a *aggregateOperator) Next(ctx context.Context) (*column.Frame, error) {
	for {
		if a.out != nil {
			if f, err := a.out.frame(); f != nil || err != nil {
				return f, err
			}
		}
		if a.group == a.table.numGroups() {
			return nil, nil
		}
		if len(a.ready) == 0 {
			if err := a.computeBatch(ctx); err != nil {
				return nil, err
			}
		}
		r := &a.ready[0]
		began := time.Now()
		if err := a.out.start(r.p, r.from); err != nil {
			return nil, err
		}
		a.q.timing.add("fill and project", began)
		a.group++
		if r.from++; r.from == r.to {
			if r.last {
				r.p.release(&a.q.budget)
			}
			a.ready = a.ready[1:]
		}
	}
}

// computeBatch answers the next groups. If LIMIT lets only some windows out,
// those are computed first; a group for which that does not settle what comes
// out is computed again over all windows.
func (a *aggregateOperator) computeBatch(ctx context.Context) error {
	lo, hi := a.limitWindows()
	end := a.batchEnd(a.group, hi-lo)
	p, err := a.compute(ctx, a.group, end, lo, hi)
	if err != nil {
		return err
	}
	if lo == a.lo && hi == a.hi {
		a.ready = append(a.ready, answered{a.group, end, p, true})
		return nil
	}
	for g := a.group; g < end; {
		to, settled := g+1, a.settled(p, g)
		for to < end && a.settled(p, to) == settled {
			to++
		}
		if settled {
			a.ready = append(a.ready, answered{g, to, p, false})
		} else {
			whole, err := a.compute(ctx, g, to, a.lo, a.hi)
			if err != nil {
				return err
			}
			a.ready = append(a.ready, answered{g, to, whole, true})
		}
		g = to
	}
	// The first partial is small (at most LIMIT windows) and given back at the end of the batch.
	if last := &a.ready[len(a.ready)-1]; last.p == p {
		last.last = true
	} else {
		a.q.budget.give(p.bytes)
		p.bytes = 0
	}
	return nil
}

// limitWindows returns the windows that may come out before LIMIT ends the
// series, if LIMIT and OFFSET count windows from a known one on.
func (a *aggregateOperator) limitWindows() (lo, hi int) {
	p := a.q.p
	if p.Interval.Every == 0 || p.Limit <= 0 || p.DistinctRows || p.Fill.Kind == planner.FillNone || p.Fill.Kind == planner.FillLinear {
		return a.lo, a.hi
	}
	n := p.Limit + p.Offset
	lo, hi = a.lo, a.hi
	switch {
	case p.Descending && p.Range.End <= dsdb.MaxTime:
		lo = max(lo, a.win.n-n)
	case !p.Descending && p.Range.Start > dsdb.MinTime:
		hi = min(hi, n)
	}
	if lo >= hi {
		return a.lo, a.hi
	}
	return lo, hi
}

// settled reports whether p, which holds the windows of limitWindows, tells all
// that LIMIT lets out of a group: that is so if each call has a point there,
// and, where the fill starts at the first point, has one in the earliest window.
func (a *aggregateOperator) settled(p *partial, group int) bool {
	base := (group - p.group) * p.wins
	for i, s := range p.states {
		if a.q.p.Refs[a.q.p.Calls[i].Ref].Type == dsdb.NoType {
			continue
		}
		if a.q.p.Range.Start <= dsdb.MinTime {
			if !s.present(base) {
				return false
			}
			continue
		}
		some := false
		for w := 0; w < p.wins && !some; w++ {
			some = s.present(base + w)
		}
		if !some {
			return false
		}
	}
	return true
}
