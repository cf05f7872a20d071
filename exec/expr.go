package exec

import (
	"math"
	"regexp"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// evaluator computes expressions over columns of n rows. Its results live in
// its own memory until the next call to start.
type evaluator struct {
	refs  func(i int) (*column.Vector, error) // the column of Refs[i]
	calls []column.Vector                     // the column of Calls[i]
	n     int
	err   error

	floats [][]float64
	ints   [][]int64
	bitmap []column.Bitmap
	nf, ni int
	nb     int
}

// operand is a column or, with stride 0, a constant: value i is at i*stride.
type operand struct {
	column.Vector
	stride int
	named  bool // it is a field itself, nothing computed
}

func (o *operand) null(i int) bool { return o.Vector.Null(i * o.stride) }

// start begins an evaluation over n rows and gives back the memory of the last.
func (ev *evaluator) start(n int) {
	ev.n, ev.nf, ev.ni, ev.nb, ev.err = n, 0, 0, 0, nil
}

func (ev *evaluator) newFloats() []float64 {
	if ev.nf == len(ev.floats) {
		ev.floats = append(ev.floats, nil)
	}
	s := &ev.floats[ev.nf]
	ev.nf++
	if cap(*s) < ev.n {
		*s = make([]float64, ev.n)
	}
	return (*s)[:ev.n]
}

func (ev *evaluator) newInts() []int64 {
	if ev.ni == len(ev.ints) {
		ev.ints = append(ev.ints, nil)
	}
	s := &ev.ints[ev.ni]
	ev.ni++
	if cap(*s) < ev.n {
		*s = make([]int64, ev.n)
	}
	return (*s)[:ev.n]
}

func (ev *evaluator) newBitmap() column.Bitmap {
	if ev.nb == len(ev.bitmap) {
		ev.bitmap = append(ev.bitmap, nil)
	}
	s := &ev.bitmap[ev.nb]
	ev.nb++
	if cap(*s) < words(ev.n) {
		*s = column.NewBitmap(ev.n)
	}
	*s = (*s)[:words(ev.n)]
	clear(*s)
	return *s
}

// eval computes e. After an error of refs the result is all null and err is set.
func (ev *evaluator) eval(e *planner.Expr) operand {
	switch e.Op {
	case planner.OpConst:
		return constant(e.Value)
	case planner.OpRef:
		v, err := ev.refs(e.Index)
		if err != nil {
			ev.err = err
			return operand{Vector: column.Vector{N: ev.n}, stride: 1}
		}
		return operand{Vector: *v, stride: 1, named: true}
	case planner.OpCall:
		return operand{Vector: ev.calls[e.Index], stride: 1}
	case planner.OpMatch, planner.OpNotMatch:
		return ev.match(ev.eval(e.Left), e.Regex, e.Op == planner.OpMatch)
	}
	a, b := ev.eval(e.Left), ev.eval(e.Right)
	switch e.Op {
	case planner.OpAnd, planner.OpOr:
		return ev.logic(e.Op, a, b)
	case planner.OpEqual, planner.OpNotEqual, planner.OpLess, planner.OpLessEqual, planner.OpGreater, planner.OpGreaterEqual:
		return ev.compare(e.Op, a, b)
	}
	return ev.arithmetic(e, a, b)
}

func constant(v planner.Value) operand {
	o := operand{Vector: column.Vector{Type: v.Type, N: 1}}
	switch v.Type {
	case dsdb.Float:
		o.Floats = []float64{v.Float}
	case dsdb.String:
		o.Bytes = []byte(v.Str)
		o.Offsets = []uint32{0, uint32(len(v.Str))}
	case dsdb.NoType:
	default:
		o.Ints = []int64{v.Int}
	}
	return o
}

// scalar returns row 0 of an operand as a constant.
func (o *operand) scalar() planner.Value {
	if o.Vector.Null(0) {
		return planner.Value{}
	}
	switch o.Type {
	case dsdb.Float:
		return planner.Value{Type: o.Type, Float: o.Floats[0]}
	case dsdb.String:
		return planner.Value{Type: o.Type, Str: string(o.Str(0))}
	}
	return planner.Value{Type: o.Type, Int: o.Ints[0]}
}

// bothValid returns the rows in which neither is null, nil if all are.
func (ev *evaluator) bothValid(a, b *operand) column.Bitmap {
	if a.Valid == nil && b.Valid == nil && a.Type != dsdb.NoType && b.Type != dsdb.NoType {
		return nil
	}
	m := ev.newBitmap()
	for i := 0; i < ev.n; i++ {
		if !a.null(i) && !b.null(i) {
			m.Set(i)
		}
	}
	return m
}

// asFloats returns the values of a number, and their stride.
func (ev *evaluator) asFloats(o *operand) ([]float64, int) {
	if o.Type == dsdb.Float {
		return o.Floats, o.stride
	}
	out := ev.newFloats()
	return appendFloats(out[:0], &o.Vector), o.stride
}

func (ev *evaluator) arithmetic(e *planner.Expr, a, b operand) operand {
	out := operand{Vector: column.Vector{N: ev.n}, stride: 1}
	switch {
	case a.Type == dsdb.Boolean && b.Type == dsdb.Boolean:
		if e.Op != planner.OpBitAnd && e.Op != planner.OpBitOr && e.Op != planner.OpBitXor {
			return out
		}
		out.Type, out.Ints = dsdb.Boolean, ev.newInts()
		intArithmetic(e.Op, out.Ints, &a, &b)
	case !isNumeric(a.Type) || !isNumeric(b.Type):
		return out
	case a.Type == dsdb.Float || b.Type == dsdb.Float || e.Op == planner.OpDiv && e.Type == dsdb.Float:
		x, sx := ev.asFloats(&a)
		y, sy := ev.asFloats(&b)
		out.Type, out.Floats = dsdb.Float, ev.newFloats()
		if !floatArithmetic(e.Op, out.Floats, x, y, sx, sy) {
			return operand{Vector: column.Vector{N: ev.n}, stride: 1}
		}
	case a.Type == dsdb.Unsigned || b.Type == dsdb.Unsigned:
		out.Type, out.Ints = dsdb.Unsigned, ev.newInts()
		unsignedArithmetic(e.Op, out.Ints, &a, &b)
	default:
		out.Type, out.Ints = dsdb.Integer, ev.newInts()
		intArithmetic(e.Op, out.Ints, &a, &b)
	}
	out.Valid = ev.bothValid(&a, &b)
	return out
}

// floatArithmetic reports false if floats do not have the operation.
func floatArithmetic(op planner.Op, dst, x, y []float64, sx, sy int) bool {
	switch op {
	case planner.OpAdd:
		for i := range dst {
			dst[i] = x[i*sx] + y[i*sy]
		}
	case planner.OpSub:
		for i := range dst {
			dst[i] = x[i*sx] - y[i*sy]
		}
	case planner.OpMul:
		for i := range dst {
			dst[i] = x[i*sx] * y[i*sy]
		}
	case planner.OpDiv:
		for i := range dst {
			if d := y[i*sy]; d != 0 {
				dst[i] = x[i*sx] / d
			} else {
				dst[i] = 0
			}
		}
	case planner.OpMod:
		for i := range dst {
			dst[i] = math.Mod(x[i*sx], y[i*sy])
		}
	default:
		return false
	}
	return true
}

func intArithmetic(op planner.Op, dst []int64, a, b *operand) {
	x, y, sx, sy := a.Ints, b.Ints, a.stride, b.stride
	for i := range dst {
		p, q := x[i*sx], y[i*sy]
		switch op {
		case planner.OpAdd:
			dst[i] = p + q
		case planner.OpSub:
			dst[i] = p - q
		case planner.OpMul:
			dst[i] = p * q
		case planner.OpDiv:
			dst[i] = 0
			if q != 0 {
				dst[i] = p / q
			}
		case planner.OpMod:
			dst[i] = 0
			if q != 0 {
				dst[i] = p % q
			}
		case planner.OpBitAnd:
			dst[i] = p & q
		case planner.OpBitOr:
			dst[i] = p | q
		case planner.OpBitXor:
			dst[i] = p ^ q
		}
	}
}

func unsignedArithmetic(op planner.Op, dst []int64, a, b *operand) {
	switch op {
	case planner.OpDiv, planner.OpMod:
		for i := range dst {
			p, q := uint64(a.Ints[i*a.stride]), uint64(b.Ints[i*b.stride])
			switch {
			case q == 0:
				dst[i] = 0
			case op == planner.OpDiv:
				dst[i] = int64(p / q)
			default:
				dst[i] = int64(p % q)
			}
		}
	default: // the bits of the others do not depend on the sign
		intArithmetic(op, dst, a, b)
	}
}

// logic computes AND and OR; null is false.
func (ev *evaluator) logic(op planner.Op, a, b operand) operand {
	out := operand{Vector: column.Vector{Type: dsdb.Boolean, N: ev.n, Ints: ev.newInts()}, stride: 1}
	for i := range out.Ints {
		x := a.Type == dsdb.Boolean && !a.null(i) && a.Ints[i*a.stride] != 0
		y := b.Type == dsdb.Boolean && !b.null(i) && b.Ints[i*b.stride] != 0
		out.Ints[i] = 0
		if x && y || op == planner.OpOr && (x || y) {
			out.Ints[i] = 1
		}
	}
	return out
}

// compare computes a comparison; it is false if either side is null, but that
// beside a boolean the null that a computation gives counts as false (influxql,
// ValuerEval, whose nil a field without a value is not).
func (ev *evaluator) compare(op planner.Op, a, b operand) operand {
	out := operand{Vector: column.Vector{Type: dsdb.Boolean, N: ev.n, Ints: ev.newInts()}, stride: 1}
	for i := range out.Ints {
		out.Ints[i] = 0
		if holds(op, order(&a, &b, i)) {
			out.Ints[i] = 1
		}
	}
	return out
}

// incomparable is what order returns if no comparison may hold.
const incomparable = 2

// order compares row i of a with that of b: negative, 0, 1 or incomparable.
func order(a, b *operand, i int) int {
	an, bn := a.null(i), b.null(i)
	i, j := i*a.stride, i*b.stride
	switch {
	case an && bn:
		return incomparable
	case an || bn:
		if an && !a.named && b.Type == dsdb.Boolean {
			return orderOf(0, b.Ints[j])
		} else if bn && !b.named && a.Type == dsdb.Boolean {
			return orderOf(a.Ints[i], 0)
		}
		return incomparable
	case a.Type == dsdb.String && b.Type == dsdb.String:
		return orderOf(string(a.Str(i)), string(b.Str(j)))
	case a.Type == dsdb.Boolean && b.Type == dsdb.Boolean, a.Type == dsdb.Integer && b.Type == dsdb.Integer:
		return orderOf(a.Ints[i], b.Ints[j])
	case !isNumeric(a.Type) || !isNumeric(b.Type):
		return incomparable
	case a.Type == dsdb.Float || b.Type == dsdb.Float:
		return orderOf(floatAt(a, i), floatAt(b, j))
	}
	return orderUnsigned(a, b, i, j)
}

// orderUnsigned compares two integers of which at least one is unsigned.
func orderUnsigned(a, b *operand, i, j int) int {
	if a.Type == dsdb.Integer && a.Ints[i] < 0 {
		return -1
	}
	if b.Type == dsdb.Integer && b.Ints[j] < 0 {
		return 1
	}
	return orderOf(uint64(a.Ints[i]), uint64(b.Ints[j]))
}

func floatAt(o *operand, i int) float64 {
	switch o.Type {
	case dsdb.Float:
		return o.Floats[i]
	case dsdb.Unsigned:
		return float64(uint64(o.Ints[i]))
	}
	return float64(o.Ints[i])
}

func orderOf[T int64 | uint64 | float64 | string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	case a == b:
		return 0
	}
	return incomparable // NaN
}

func holds(op planner.Op, order int) bool {
	if order == incomparable {
		return false
	}
	switch op {
	case planner.OpEqual:
		return order == 0
	case planner.OpNotEqual:
		return order != 0
	case planner.OpLess:
		return order < 0
	case planner.OpLessEqual:
		return order <= 0
	case planner.OpGreater:
		return order > 0
	}
	return order >= 0
}

func (ev *evaluator) match(a operand, re *regexp.Regexp, want bool) operand {
	out := operand{Vector: column.Vector{Type: dsdb.Boolean, N: ev.n, Ints: ev.newInts()}, stride: 1}
	for i := range out.Ints {
		out.Ints[i] = 0
		if a.Type == dsdb.String && !a.null(i) && re.Match(a.Str(i*a.stride)) == want {
			out.Ints[i] = 1
		}
	}
	return out
}
