package exec

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// condition is what remains of WHERE when the tags of a series are known: a
// tree of AND and OR over comparisons of a number field with a constant, which
// have kernels and can be settled by statistics, and of anything else.
type condition struct {
	op          planner.Op // OpAnd, OpOr, a comparison, or OpRef for anything else
	left, right *condition
	expr        *planner.Expr // of anything else
	ref         int           // of a comparison
	float       float64       // its constant, if the ref is a float
	int         int64         // if it is an integer
}

// binder makes the conditions of the series of a table. Series that agree in
// all tags that the condition names share one.
type binder struct {
	q     *query
	t     *seriesTable
	keys  []int // the keys of those tags in the table
	known map[string]uint32
	conds []*condition
	ev    evaluator
	buf   []byte
}

// never stands for a condition that holds for no row.
const never = math.MaxUint32

func newBinder(q *query, t *seriesTable) *binder {
	b := &binder{q: q, t: t, known: make(map[string]uint32)}
	seen := make([]bool, len(q.p.Refs))
	markRefs(q.p.Residual, seen)
	for i, r := range q.p.Refs {
		if seen[i] && r.Tag {
			b.keys = append(b.keys, slices.Index(t.keys, r.Name))
		}
	}
	return b
}

// bind returns the index of the condition of a series, false if it holds for none of its rows.
func (b *binder) bind(series int) (uint32, bool) {
	b.buf = b.buf[:0]
	for _, k := range b.keys {
		b.buf = binary.LittleEndian.AppendUint32(b.buf, b.t.code[k][series])
	}
	if c, ok := b.known[string(b.buf)]; ok {
		return c, c != never
	}
	c := b.compile(series)
	b.known[string(b.buf)] = c
	return c, c != never
}

func (b *binder) compile(series int) uint32 {
	var c *condition
	if w := b.q.p.Residual; w != nil {
		e := b.substitute(w, series)
		if e.Op == planner.OpConst {
			if e.Value.Type != dsdb.Boolean || e.Value.Int == 0 {
				return never
			}
		} else {
			c = newCondition(e, b.q.p.Refs)
		}
	}
	b.conds = append(b.conds, c)
	return uint32(len(b.conds) - 1)
}

// substitute puts the tags of a series into e and folds what becomes constant.
func (b *binder) substitute(e *planner.Expr, series int) *planner.Expr {
	switch e.Op {
	case planner.OpConst:
		return e
	case planner.OpRef:
		r := b.q.p.Refs[e.Index]
		if r.Tag {
			v := b.t.value(series, slices.Index(b.t.keys, r.Name))
			return &planner.Expr{Op: planner.OpConst, Type: dsdb.String, Value: planner.Value{Type: dsdb.String, Str: v}}
		}
		return e
	}
	out := *e
	out.Left = b.substitute(e.Left, series)
	if e.Right != nil {
		out.Right = b.substitute(e.Right, series)
	}
	return b.fold(&out)
}

func (b *binder) fold(e *planner.Expr) *planner.Expr {
	left, right := e.Left.Op == planner.OpConst, e.Right == nil || e.Right.Op == planner.OpConst
	if left && right {
		b.ev.start(1)
		v := b.ev.eval(e)
		return &planner.Expr{Op: planner.OpConst, Type: e.Type, Value: v.scalar()}
	}
	if e.Op != planner.OpAnd && e.Op != planner.OpOr || !left && !right {
		return e
	}
	known, rest := e.Left, e.Right
	if right {
		known, rest = rest, known
	}
	if truth := known.Value.Type == dsdb.Boolean && known.Value.Int != 0; truth == (e.Op == planner.OpOr) {
		return boolConst(truth)
	}
	return rest
}

func boolConst(b bool) *planner.Expr {
	v := planner.Value{Type: dsdb.Boolean}
	if b {
		v.Int = 1
	}
	return &planner.Expr{Op: planner.OpConst, Type: dsdb.Boolean, Value: v}
}

var swapped = map[planner.Op]planner.Op{
	planner.OpEqual: planner.OpEqual, planner.OpNotEqual: planner.OpNotEqual,
	planner.OpLess: planner.OpGreater, planner.OpLessEqual: planner.OpGreaterEqual,
	planner.OpGreater: planner.OpLess, planner.OpGreaterEqual: planner.OpLessEqual,
}

func newCondition(e *planner.Expr, refs []planner.Ref) *condition {
	if e.Op == planner.OpAnd || e.Op == planner.OpOr {
		return &condition{op: e.Op, left: newCondition(e.Left, refs), right: newCondition(e.Right, refs)}
	}
	op, left, right := e.Op, e.Left, e.Right
	if s, ok := swapped[op]; ok {
		if left.Op == planner.OpConst {
			op, left, right = s, right, left
		}
		if left.Op == planner.OpRef && right.Op == planner.OpConst {
			c := &condition{op: op, ref: left.Index}
			if c.setConstant(refs[left.Index].Type, right.Value) {
				return c
			}
		}
	}
	return &condition{op: planner.OpRef, expr: e}
}

// setConstant prepares a comparison for the kernels; false if there is none.
// A float beside an integer field becomes an integer where that says the same.
func (c *condition) setConstant(field dsdb.FieldType, v planner.Value) bool {
	switch {
	case field == dsdb.Float && v.Type == dsdb.Float:
		c.float = v.Float
		return v.Float == v.Float
	case field == dsdb.Float && v.Type == dsdb.Integer:
		c.float = float64(v.Int)
		return true
	case field == dsdb.Integer && v.Type == dsdb.Integer:
		c.int = v.Int
		return true
	case field == dsdb.Integer && v.Type == dsdb.Float && math.Abs(v.Float) < 1<<52:
		floor := math.Floor(v.Float)
		c.int = int64(floor)
		if floor == v.Float {
			return true
		}
		switch c.op {
		case planner.OpGreater, planner.OpGreaterEqual:
			c.op = planner.OpGreater
			return true
		case planner.OpLess, planner.OpLessEqual:
			c.op = planner.OpLessEqual
			return true
		}
	}
	return false
}

// verdict says for how many rows of a tile a condition holds.
type verdict uint8

const (
	noRow verdict = iota
	someRows
	everyRow
)

// filter evaluates conditions on tiles. It belongs to one goroutine.
type filter struct {
	r  *tileReader
	ev evaluator
}

func newFilter(r *tileReader) *filter {
	f := &filter{r: r}
	f.ev.refs = r.column
	return f
}

// eval evaluates c on the current tile. If it returns someRows, m has the bits
// of the rows; else m is unspecified.
func (f *filter) eval(c *condition, m *mask) (verdict, error) {
	switch c.op {
	case planner.OpAnd, planner.OpOr:
		return f.logic(c, m)
	case planner.OpRef:
		return f.general(c, m)
	}
	st, err := f.r.stats(c.ref)
	if err != nil {
		return noRow, err
	}
	if st != nil {
		if v := f.settle(c, st); v != someRows {
			return v, nil
		}
	}
	v, err := f.r.column(c.ref)
	if err != nil || v.Type == dsdb.NoType {
		return noRow, err
	}
	if v.Type == dsdb.Float {
		compareMask(c.op, m[:words(v.N)], v.Floats, c.float)
	} else {
		compareMask(c.op, m[:words(v.N)], v.Ints, c.int)
	}
	clear(m[words(v.N):])
	m.clip(0, v.N)
	m.and(v.Valid)
	return f.verdict(m), nil
}

// settle answers a comparison from statistics if they can: someRows means they cannot.
func (f *filter) settle(c *condition, st *column.Stats) verdict {
	if st.Count == 0 {
		return noRow
	}
	var all, none bool
	if f.r.refs[c.ref].Type == dsdb.Float {
		all, none = settled(c.op, math.Float64frombits(st.Min), math.Float64frombits(st.Max), c.float)
	} else {
		all, none = settled(c.op, int64(st.Min), int64(st.Max), c.int)
	}
	switch {
	case none:
		return noRow
	case all && st.Count == f.r.tile.Rows:
		return everyRow
	}
	return someRows
}

// settled reports whether a comparison with k holds for all, or for none, of
// the values between lo and hi.
func settled[T number](op planner.Op, lo, hi, k T) (all, none bool) {
	switch op {
	case planner.OpGreater:
		return lo > k, hi <= k
	case planner.OpGreaterEqual:
		return lo >= k, hi < k
	case planner.OpLess:
		return hi < k, lo >= k
	case planner.OpLessEqual:
		return hi <= k, lo > k
	case planner.OpEqual:
		return lo == k && hi == k, lo > k || hi < k
	}
	return lo > k || hi < k, lo == k && hi == k
}

func compareMask[T number](op planner.Op, dst []uint64, v []T, k T) {
	switch op {
	case planner.OpGreater, planner.OpLessEqual:
		maskGreater(dst, v, k)
	case planner.OpLess, planner.OpGreaterEqual:
		maskLess(dst, v, k)
	default:
		maskEqual(dst, v, k)
	}
	if op == planner.OpLessEqual || op == planner.OpGreaterEqual || op == planner.OpNotEqual {
		for i := range dst {
			dst[i] = ^dst[i]
		}
	}
}

func (f *filter) verdict(m *mask) verdict {
	switch m.count() {
	case 0:
		return noRow
	case f.r.tile.Rows:
		return everyRow
	}
	return someRows
}

func (f *filter) logic(c *condition, m *mask) (verdict, error) {
	decisive, neutral := noRow, everyRow
	if c.op == planner.OpOr {
		decisive, neutral = everyRow, noRow
	}
	a, err := f.eval(c.left, m)
	if err != nil || a == decisive {
		return a, err
	}
	if a == neutral {
		return f.eval(c.right, m)
	}
	var other mask
	b, err := f.eval(c.right, &other)
	if err != nil || b == decisive {
		return b, err
	}
	if b == neutral {
		return someRows, nil
	}
	for w := range m {
		if c.op == planner.OpAnd {
			m[w] &= other[w]
		} else {
			m[w] |= other[w]
		}
	}
	return f.verdict(m), nil
}

// general evaluates a condition that has no kernel.
func (f *filter) general(c *condition, m *mask) (verdict, error) {
	n := f.r.tile.Rows
	f.ev.start(n)
	o := f.ev.eval(c.expr)
	if f.ev.err != nil || o.Type != dsdb.Boolean {
		return noRow, f.ev.err
	}
	*m = mask{}
	for i := range n {
		if !o.null(i) && o.Ints[i*o.stride] != 0 {
			m[i>>6] |= 1 << (uint(i) & 63)
		}
	}
	return f.verdict(m), nil
}
