package exec

import (
	"math"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// projector computes the output columns of rows and cuts frames out of them.
// Frames share its memory.
type projector struct {
	p       *planner.Select
	ev      evaluator
	times   column.Vector
	cols    []column.Vector
	scratch []column.Vector
	out     column.Frame
	slices  []column.Vector // bitmaps of cut columns
}

func (pr *projector) init(p *planner.Select, name string) {
	pr.p = p
	pr.cols = make([]column.Vector, len(p.Columns))
	pr.scratch = make([]column.Vector, len(p.Columns))
	pr.slices = make([]column.Vector, len(p.Columns)+1)
	pr.out = column.Frame{Name: name, Zone: p.Location, Columns: make([]string, 0, len(p.Columns)+1), Cols: make([]column.Vector, len(p.Columns)+1)}
	pr.out.Columns = append(pr.out.Columns, p.Time)
	for _, c := range p.Columns {
		pr.out.Columns = append(pr.out.Columns, c.Name)
	}
}

// rows computes the output columns of rows with the given times from the
// columns of calls and refs.
func (pr *projector) rows(times []int64, calls []column.Vector, refs func(int) (*column.Vector, error)) error {
	pr.times = column.Vector{Type: dsdb.Time, N: len(times), Ints: times}
	pr.ev.refs, pr.ev.calls = refs, calls
	pr.ev.start(len(times))
	for i, c := range pr.p.Columns {
		v := pr.ev.eval(c.Expr)
		if pr.ev.err != nil {
			return pr.ev.err
		}
		if c.Expr.Op != planner.OpCall && c.Expr.Op != planner.OpRef {
			pr.ev.nullNonNumbers(&v)
		}
		pr.cols[i] = *pr.typed(i, &v, c.Expr.Type)
	}
	return nil
}

// typed returns v as a column of type t. The only constant it can be is null,
// for operands that do not go together: the planner refuses columns that name no field.
func (pr *projector) typed(i int, v *operand, t dsdb.FieldType) *column.Vector {
	if v.stride == 0 {
		if v.Type != dsdb.NoType {
			panic("BUG: an output column is constant")
		}
		v.N = pr.ev.n
	}
	if t == dsdb.NoType || v.Type == dsdb.NoType {
		return &v.Vector
	}
	return convert(&v.Vector, t, &pr.scratch[i])
}

// nullNonNumbers makes NaN and infinities null: there is no way to write them.
func (ev *evaluator) nullNonNumbers(v *operand) {
	if v.Type != dsdb.Float {
		return
	}
	fresh := false
	for i, x := range v.Floats[:v.N] {
		if x-x == 0 {
			continue
		}
		if !fresh {
			m := ev.newBitmap()
			if v.Valid == nil {
				for w := range m {
					m[w] = math.MaxUint64
				}
			} else {
				copy(m, v.Valid)
			}
			v.Valid, fresh = m, true
		}
		v.Valid.Clear(i)
	}
}

// frame returns the rows [lo, hi). It is valid until the next call.
func (pr *projector) frame(lo, hi int) *column.Frame {
	pr.out.Cols[0] = cutVector(&pr.times, lo, hi, &pr.slices[0])
	for i := range pr.cols {
		pr.out.Cols[i+1] = cutVector(&pr.cols[i], lo, hi, &pr.slices[i+1])
	}
	return &pr.out
}

// cutVector returns the rows [lo, hi) of v, with a bitmap in the memory of scratch.
func cutVector(v *column.Vector, lo, hi int, scratch *column.Vector) column.Vector {
	if lo == 0 && hi == v.N {
		return *v
	}
	out := column.Vector{Type: v.Type, N: hi - lo, Bytes: v.Bytes}
	switch v.Type {
	case dsdb.Float:
		out.Floats = v.Floats[lo:hi]
	case dsdb.String:
		// Offsets may start beyond 0: they are into all of Bytes.
		out.Offsets = v.Offsets[lo : hi+1]
	case dsdb.NoType:
	default:
		out.Ints = v.Ints[lo:hi]
	}
	if v.Valid != nil {
		scratch.Valid = cutBits(scratch.Valid[:0], v.Valid, lo, hi)
		out.Valid = scratch.Valid
	}
	return out
}

// cutBits appends the bits [lo, hi) of b, moved to the start.
func cutBits(dst, b column.Bitmap, lo, hi int) column.Bitmap {
	shift := uint(lo) % 64
	for w := lo / 64; w*64 < hi; w++ {
		x := b[w] >> shift
		if shift > 0 && w+1 < len(b) {
			x |= b[w+1] << (64 - shift)
		}
		dst = append(dst, x)
	}
	return dst[:words(hi-lo)]
}
