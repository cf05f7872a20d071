package exec

import "context"

// merge answers fragments and adds their results to total, one fragment after
// the other. If no two morsels share a cell, those of this node fold into it at
// once. What other nodes compute goes on meanwhile.
func (a *aggregateOperator) merge(ctx context.Context, fs []fragment, total *partial, lo, hi int) error {
	ms := a.table.cut(fs)
	direct := a.disjoint(ms)
	far := a.dispatch(ctx, fs, lo, hi)
	local := ms
	if far != nil {
		local = nil
		for _, m := range ms {
			if fs[m.fragment].remote == nil {
				local = append(local, m)
			}
		}
	}
	g := merging{a: a, fs: fs, total: total, far: far}
	into := func(*morsel) (*partial, error) { return nil, nil }
	if direct {
		into = func(*morsel) (*partial, error) { return total, nil }
	}
	err := a.each(ctx, local, into, g.add)
	if err == nil {
		err = g.finish(len(fs))
	}
	if err = far.join(&a.q.counters, err); err == nil {
		err = a.q.checkPoints()
	}
	if err != nil {
		return err
	}
	return total.account(&a.q.budget)
}

// merging brings the partials of fragments together.
type merging struct {
	a     *aggregateOperator
	fs    []fragment
	total *partial
	far   *dispatched
	next  int      // fragments before it are in total
	some  bool     // total holds something
	acc   *partial // of the morsels of fragment next that came so far
}

// add takes what a morsel gave; they come in their order.
func (g *merging) add(m *morsel, p *partial) error {
	if p == g.total { // folded already, and no one else has its cells
		return nil
	}
	if err := g.finish(m.fragment); err != nil {
		return err
	}
	f := &g.fs[m.fragment]
	budget := &g.a.q.budget
	switch {
	case !g.some || g.acc == nil && len(m.series) == len(f.members):
		// The first fragment needs no sum of its own, nor does a single morsel.
		g.total.merge(p)
		p.release(budget)
	case g.acc == nil && f.groups == 1:
		g.acc = p
	default:
		if g.acc == nil {
			var err error
			if g.acc, err = g.a.newPartial(f.group, f.groups, f.win, f.wins); err != nil {
				return err
			}
		}
		g.acc.merge(p)
		p.release(budget)
		if err := g.acc.account(budget); err != nil {
			return err
		}
	}
	return g.total.account(budget)
}

// finish adds what is left of the fragments before end.
func (g *merging) finish(end int) error {
	for ; g.next < end; g.next++ {
		g.some = true
		if g.acc != nil {
			g.total.merge(g.acc)
			g.acc.release(&g.a.q.budget)
			g.acc = nil
		}
		if g.fs[g.next].remote == nil {
			continue
		}
		p, err := g.far.next(g.next)
		if err != nil {
			return err
		}
		g.total.merge(p)
		p.release(&g.a.q.budget)
		if err := g.total.account(&g.a.q.budget); err != nil {
			return err
		}
	}
	return nil
}

// merge adds the cells of o, which is not finished, to those of p.
func (p *partial) merge(o *partial) {
	for i, s := range p.states {
		if p.wins == o.wins && o.numbers == nil {
			s.merge(o.states[i], 0, (o.group-p.group)*p.wins, o.groups*o.wins)
			continue
		}
		for g := range o.groups {
			group := o.group + g
			if o.numbers != nil {
				group = int(o.numbers[g])
			}
			s.merge(o.states[i], g*o.wins, (group-p.group)*p.wins+o.win-p.win, o.wins)
		}
	}
}
