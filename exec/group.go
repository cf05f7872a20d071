package exec

import (
	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// groupWriter turns the cells of one group into the rows of one series: it
// finishes aggregates, fills, applies LIMIT and OFFSET and projects.
type groupWriter struct {
	a     *aggregateOperator
	p     *partial
	group int
	base  int // cell of window p.win

	groupRows
	next int // the next row to put into a frame
	end  int

	project projector
}

// groupRows are the rows of a group as columns.
type groupRows struct {
	rows  []int32 // the window of each row, in output order
	times []int64
	calls []builder       // per call
	refs  []builder       // per plan ref beside a selector
	done  []column.Vector // of calls
	with  []column.Vector // of refs
	bytes int64           // taken from the budget for all of them
}

func newGroupWriter(a *aggregateOperator) *groupWriter {
	calls, refs := len(a.q.p.Calls), len(a.q.p.Refs)
	g := &groupWriter{a: a, groupRows: groupRows{calls: make([]builder, calls), refs: make([]builder, refs),
		done: make([]column.Vector, calls), with: make([]column.Vector, refs)}}
	g.project.init(a.q.p, a.name)
	return g
}

// start computes the rows of a group.
func (g *groupWriter) start(p *partial, group int) error {
	g.p, g.group, g.base = p, group, (group-p.group)*p.wins
	g.rows, g.times, g.next, g.end = g.rows[:0], g.times[:0], 0, 0
	sel := g.a.q.p
	for i := range g.calls {
		g.calls[i].reset(callType(sel, i))
	}
	for _, r := range g.a.refs {
		g.refs[r].reset(sel.Refs[r].Type)
	}
	if sel.DistinctRows {
		g.distinctRows()
	} else {
		g.layRows()
		if err := g.account(); err != nil {
			return err
		}
		for i := range g.calls {
			g.fillCall(i)
		}
	}
	g.end = len(g.times)
	g.next = min(sel.Offset, g.end)
	if sel.Limit > 0 {
		g.end = min(g.end, g.next+sel.Limit)
	}
	for i := range g.calls {
		g.done[i] = g.calls[i].view()
	}
	if g.next < g.end {
		g.a.q.counters.ResultSeries++
		g.a.q.counters.ResultRows += int64(g.end - g.next)
	}
	return g.project.rows(g.times, g.done, func(r int) (*column.Vector, error) {
		g.with[r] = g.refs[r].view()
		return &g.with[r], nil
	})
}

// account takes from the budget what the columns of the group's rows need.
func (g *groupWriter) account() error {
	n := int64(len(g.rows)) * int64(12+9*(len(g.calls)+len(g.a.refs)+len(g.a.q.p.Columns)))
	if n <= g.bytes {
		return nil
	}
	err := g.a.q.budget.take(n - g.bytes)
	g.bytes = n
	return err
}

// callType is the type of the column of a call.
func callType(p *planner.Select, i int) dsdb.FieldType {
	c := p.Calls[i]
	t := p.Refs[c.Ref].Type
	switch {
	case t == dsdb.NoType:
		return dsdb.NoType
	case c.Func == planner.Count || c.Func == planner.CountDistinct:
		return dsdb.Integer
	case c.Func == planner.Mean || c.Func == planner.Median || c.Func == planner.Stddev:
		return dsdb.Float
	}
	return t
}

// cell returns the cell of a window, false if the window is outside the partial.
func (g *groupWriter) cell(win int) (int, bool) {
	return g.base + win - g.p.win, win >= g.p.win && win < g.p.win+g.p.wins
}

func (g *groupWriter) present(call, win int) bool {
	c, ok := g.cell(win)
	return ok && g.p.states[call].present(c)
}

// firstWindow returns the first window in which a call has a point, -1 if there is none.
func (g *groupWriter) firstWindow(call int) int {
	for w := range g.p.wins {
		if g.p.states[call].present(g.base + w) {
			return g.p.win + w
		}
	}
	return -1
}

// layRows finds the windows that give a row, in output order, as many as LIMIT
// and OFFSET need.
func (g *groupWriter) layRows() {
	p := g.a.q.p
	first := -1
	for i := range p.Calls {
		if f := g.firstWindow(i); f >= 0 && (first < 0 || f < first) {
			first = f
		}
	}
	if first < 0 {
		return
	}
	from, to := first, g.a.win.n
	fill := p.Interval.Every > 0 && p.Fill.Kind != planner.FillNone
	switch {
	case !fill:
		to = g.p.win + g.p.wins
	case p.Range.Start > dsdb.MinTime:
		from = 0
	}
	need := to - from
	if p.Limit > 0 {
		need = min(need, p.Limit+p.Offset)
	}
	for i := 0; i < to-from && len(g.rows) < need; i++ {
		w := from + i
		if p.Descending {
			w = to - 1 - i
		}
		if fill || g.anyPresent(w) {
			g.rows = append(g.rows, int32(w))
			g.times = append(g.times, g.rowTime(w))
		}
	}
}

func (g *groupWriter) anyPresent(w int) bool {
	for i := range g.p.states {
		if g.present(i, w) {
			return true
		}
	}
	return false
}

// rowTime is the start of the window. Without GROUP BY time it is that of the
// picked point, or the query's lower bound, or 0.
func (g *groupWriter) rowTime(w int) int64 {
	p := g.a.q.p
	if p.Interval.Every == 0 && p.Selector {
		c, _ := g.cell(w)
		return g.p.states[0].(selection).time(c)
	}
	if p.Interval.Every == 0 && p.Range.Start <= dsdb.MinTime {
		return 0
	}
	if t := g.a.win.start(w); t > dsdb.MinTime {
		return t
	}
	return 0
}

// fillCall appends the values of a call, one per row.
func (g *groupWriter) fillCall(call int) {
	p := g.a.q.p
	b, s := &g.calls[call], g.p.states[call]
	first := g.firstWindow(call)
	from := first
	if p.Range.Start > dsdb.MinTime {
		from = 0
	}
	count := p.Calls[call].Func == planner.Count || p.Calls[call].Func == planner.CountDistinct
	line := interpolation{g: g, call: call, prev: -1}
	for i, w := range g.rows {
		win := int(w)
		if g.present(call, win) {
			c, _ := g.cell(win)
			s.emit(c, b)
			g.emitRefs(i, s, c)
			if !b.isNull(i) { // stddev of one point is null, and is not filled
				line.prev = i
			}
			continue
		}
		g.emitRefs(i, nil, 0)
		filled := p.Interval.Every > 0 && first >= 0 && win >= from
		switch {
		case p.Fill.Kind == planner.FillNumber:
			b.number(p.Fill.Number)
		case p.Fill.Kind == planner.FillPrevious && p.Interval.Every > 0:
			b.again(i - 1)
		case filled && p.Fill.Kind == planner.FillNull && count:
			b.int(0)
		case filled && p.Fill.Kind == planner.FillLinear:
			line.append(i, b)
		default:
			b.null()
		}
	}
}

// emitRefs appends row i of the refs that go with a picked point; s nil: there
// is none. Where they are null they are filled too.
func (g *groupWriter) emitRefs(i int, s state, cell int) {
	fill := g.a.q.p.Fill
	for _, r := range g.a.refs {
		b := &g.refs[r]
		if s == nil {
			b.null()
		} else {
			s.(selection).emitRef(r, cell, b)
		}
		switch {
		case !b.isNull(i):
		case fill.Kind == planner.FillNumber && isNumeric(b.Type):
			b.dropLast()
			b.number(fill.Number)
		case fill.Kind == planner.FillPrevious:
			b.dropLast()
			b.again(i - 1)
		}
	}
}

// interpolation is fill(linear) of one call: it remembers the last row with a
// point and looks for the next.
type interpolation struct {
	g    *groupWriter
	call int
	prev int // row, -1: none yet
	next int // window at which the search for the next point may go on
	seen bool
}

// append adds the value at row i on the line between the points around it, null
// if one is missing or they are no numbers. Distances are counted in windows.
func (l *interpolation) append(i int, b *builder) {
	win := int(l.g.rows[i])
	next, ok := l.nextPoint(win)
	if l.prev < 0 || !ok || !isNumeric(b.Type) {
		b.null()
		return
	}
	var end builder
	end.reset(b.Type)
	c, _ := l.g.cell(next)
	l.g.p.states[l.call].emit(c, &end)
	if end.hasNull {
		b.null()
		return
	}
	every := l.g.a.q.p.Interval.Every
	at := func(w int) int64 { return l.g.a.win.start(w) / every }
	from := int(l.g.rows[l.prev])
	part := float64(at(win)-at(from)) / float64(at(next)-at(from))
	switch b.Type {
	case dsdb.Float:
		x, y := b.Floats[l.prev], end.Floats[0]
		slope := (y - x) / float64(at(next)-at(from))
		b.float(slope*float64(at(win)-at(from)) + x)
	case dsdb.Unsigned:
		x, y := float64(uint64(b.Ints[l.prev])), float64(uint64(end.Ints[0]))
		b.int(int64(uint64((y-x)*part + x)))
	default:
		x, y := b.Ints[l.prev], end.Ints[0]
		slope := float64(y-x) / float64(at(next)-at(from))
		b.int(int64(slope*float64(at(win)-at(from)) + float64(x)))
	}
}

// nextPoint returns the window of the next point beyond win in output order.
func (l *interpolation) nextPoint(win int) (int, bool) {
	step := 1
	if l.g.a.q.p.Descending {
		step = -1
	}
	w := win + step
	if l.seen && (l.next-w)*step > 0 {
		w = l.next
	}
	for ; w >= l.g.p.win && w < l.g.p.win+l.g.p.wins; w += step {
		if l.g.present(l.call, w) {
			l.next, l.seen = w, true
			return w, true
		}
	}
	l.next, l.seen = w, true
	return 0, false
}

// distinctRows lays one row per distinct value; they are not filled.
func (g *groupWriter) distinctRows() {
	p := g.a.q.p
	s, ok := g.p.states[0].(lister)
	if !ok {
		return
	}
	for i := range g.p.wins {
		w := g.p.win + i
		if p.Descending {
			w = g.p.win + g.p.wins - 1 - i
		}
		if !g.present(0, w) {
			continue
		}
		c, _ := g.cell(w)
		t := g.rowTime(w)
		for range s.emitDistinct(c, p.Descending, &g.calls[0]) {
			g.times = append(g.times, t)
		}
	}
}

// frame returns the next frame of the group, nil if all rows are out.
func (g *groupWriter) frame() (*column.Frame, error) {
	if g.next >= g.end {
		return nil, nil
	}
	lo := g.next
	g.next = min(g.end, lo+g.a.q.o.ChunkRows)
	f := g.project.frame(lo, g.next)
	f.Tags = g.a.table.tags(g.a.q, g.group)
	f.Partial = g.next < g.end
	return f, nil
}
