package planner

import (
	"math"
	"regexp"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/wire"
)

// fragmentVersion is the first byte of an encoded fragment.
const fragmentVersion = 1

// maxDepth bounds the nesting of expressions that are decoded: what walks them recurses.
const maxDepth = 1 << 16

// AppendFragment appends what of a plan those need who only scan and aggregate
// shards: Range, Tags, Residual, Interval, Refs, Calls, the expressions of
// Columns, Selector, DistinctRows, Descending, Limit and Offset. What is done
// with the rows afterwards, names, fill and time zone, does not travel.
func AppendFragment(dst []byte, p *Select) []byte {
	dst = append(dst, fragmentVersion)
	dst = wire.AppendInt(dst, p.Range.Start)
	dst = wire.AppendInt(dst, p.Range.End)
	dst = AppendTagExpr(dst, p.Tags)
	dst = appendExpr(dst, p.Residual)
	dst = wire.AppendInt(dst, p.Interval.Every)
	dst = wire.AppendInt(dst, p.Interval.Offset)
	dst = wire.AppendUint(dst, uint64(len(p.Refs)))
	for _, r := range p.Refs {
		dst = wire.AppendString(dst, r.Name)
		dst = wire.AppendBool(dst, r.Tag)
		dst = append(dst, byte(r.Type))
	}
	dst = wire.AppendUint(dst, uint64(len(p.Calls)))
	for _, c := range p.Calls {
		dst = append(dst, byte(c.Func), byte(c.Type))
		dst = wire.AppendUint(dst, uint64(c.Ref))
		dst = wire.AppendFloat(dst, c.N)
	}
	dst = wire.AppendUint(dst, uint64(len(p.Columns)))
	for _, c := range p.Columns {
		dst = appendExpr(dst, c.Expr)
	}
	dst = wire.AppendBool(dst, p.Selector)
	dst = wire.AppendBool(dst, p.DistinctRows)
	dst = wire.AppendBool(dst, p.Descending)
	dst = wire.AppendUint(dst, uint64(p.Limit))
	return wire.AppendUint(dst, uint64(p.Offset))
}

// DecodeFragment reads what AppendFragment appends. It reports KindInvalid if
// r holds anything else; what it returns is a plan as far as exec relies on one:
// indexes are within bounds, operations have their operands.
func DecodeFragment(r *wire.Reader) (*Select, error) {
	if v := r.Byte(); v != fragmentVersion {
		r.Fail("fragment of version %d, this is %d", v, fragmentVersion)
	}
	p := &Select{}
	p.Range = dsdb.TimeRange{Start: r.Int(), End: r.Int()}
	p.Tags = decodeTags(r)
	residual := decodeExprs(r)
	p.Interval = Interval{Every: r.Int(), Offset: r.Int()}
	if p.Interval.Every < 0 {
		r.Fail("windows of length %d", p.Interval.Every)
	}
	for range r.Count(3) {
		p.Refs = append(p.Refs, Ref{Name: r.String(), Tag: r.Bool(), Type: readType(r)})
	}
	for range r.Count(11) {
		p.Calls = append(p.Calls, decodeCall(r, p.Refs))
	}
	p.Residual = checkedExpr(r, residual, p.Refs, nil)
	for range r.Count(1) {
		e := checkedExpr(r, decodeExprs(r), p.Refs, p.Calls)
		if e == nil {
			r.Fail("column without expression")
		}
		p.Columns = append(p.Columns, Column{Expr: e})
	}
	p.Selector, p.DistinctRows, p.Descending = r.Bool(), r.Bool(), r.Bool()
	p.Limit, p.Offset = r.Size(math.MaxInt32), r.Size(math.MaxInt32)
	checkKind(r, p)
	return p, r.Err()
}

// checkKind refuses flags that do not fit the calls.
func checkKind(r *wire.Reader, p *Select) {
	if !p.Selector && !p.DistinctRows {
		return
	}
	if len(p.Calls) != 1 {
		r.Fail("%d calls where one is picked", len(p.Calls))
		return
	}
	switch f := p.Calls[0].Func; {
	case p.Selector && f != First && f != Last && f != Min && f != Max && f != Percentile:
		r.Fail("function %d picks no point", f)
	case p.DistinctRows && f != Distinct:
		r.Fail("function %d gives no distinct rows", f)
	}
}

func readType(r *wire.Reader) dsdb.FieldType {
	t := dsdb.FieldType(r.Byte())
	if t > dsdb.Time {
		r.Fail("type %d", t)
		return dsdb.NoType
	}
	return t
}

func decodeCall(r *wire.Reader, refs []Ref) Call {
	c := Call{Func: Func(r.Byte()), Type: readType(r), Ref: r.Size(math.MaxInt32), N: r.Float()}
	switch {
	case r.Err() != nil:
	case c.Ref >= len(refs) || refs[c.Ref].Tag:
		r.Fail("call of ref %d", c.Ref)
	case c.Func > Mode:
		r.Fail("function %d", c.Func)
	case !c.takes(refs[c.Ref].Type):
		r.Fail("function %d of type %s", c.Func, refs[c.Ref].Type)
	}
	return c
}

// takes reports whether the planner makes such a call of a column of type t.
func (c Call) takes(t dsdb.FieldType) bool {
	switch c.Func {
	case Count, First, Last, Distinct, CountDistinct, Mode:
		return t != dsdb.Time
	case Min, Max:
		return t != dsdb.Time && t != dsdb.String
	}
	return t == dsdb.NoType || numeric(t)
}

// AppendTagExpr appends a condition on tags, operands before operations; nil is empty.
func AppendTagExpr(dst []byte, e *dsdb.TagExpr) []byte {
	var nodes []byte
	n := appendTagNodes(&nodes, e)
	return append(wire.AppendUint(dst, uint64(n)), nodes...)
}

func appendTagNodes(dst *[]byte, e *dsdb.TagExpr) int {
	if e == nil {
		return 0
	}
	n := 1
	for _, a := range e.Args {
		n += appendTagNodes(dst, a)
	}
	*dst = append(*dst, byte(e.Op))
	switch e.Op {
	case dsdb.TagAnd, dsdb.TagOr:
		*dst = wire.AppendUint(*dst, uint64(len(e.Args)))
	case dsdb.TagMatch, dsdb.TagNotMatch:
		*dst = wire.AppendString(wire.AppendString(*dst, e.Key), e.Regex.String())
	default:
		*dst = wire.AppendString(wire.AppendString(*dst, e.Key), e.Value)
	}
	return n
}

// DecodeTagExpr reads what AppendTagExpr appends.
func DecodeTagExpr(r *wire.Reader) (*dsdb.TagExpr, error) {
	e := decodeTags(r)
	return e, r.Err()
}

// decodeTags builds the tree from a stack of finished operands.
func decodeTags(r *wire.Reader) *dsdb.TagExpr {
	var stack []*dsdb.TagExpr
	var depths []int
	for range r.Count(2) {
		e := &dsdb.TagExpr{Op: dsdb.TagOp(r.Byte())}
		depth := 1
		switch e.Op {
		case dsdb.TagAnd, dsdb.TagOr:
			n := int(r.Uint(uint64(len(stack))))
			if n == 0 {
				r.Fail("operation without operands")
			}
			at := len(stack) - n
			e.Args = append(e.Args, stack[at:]...)
			for _, d := range depths[at:] {
				depth = max(depth, d+1)
			}
			stack, depths = stack[:at], depths[:at]
		case dsdb.TagMatch, dsdb.TagNotMatch:
			e.Key, e.Regex = r.String(), decodeRegex(r)
		case dsdb.TagEqual, dsdb.TagNotEqual:
			e.Key, e.Value = r.String(), r.String()
		default:
			r.Fail("operation %d on tags", e.Op)
		}
		if depth > maxDepth {
			r.Fail("condition nested more than %d times", maxDepth)
		}
		if r.Err() != nil {
			return nil
		}
		stack, depths = append(stack, e), append(depths, depth)
	}
	switch len(stack) {
	case 0:
		return nil
	case 1:
		return stack[0]
	}
	r.Fail("%d conditions", len(stack))
	return nil
}

func decodeRegex(r *wire.Reader) *regexp.Regexp {
	text := r.String()
	re, err := regexp.Compile(text)
	if err != nil {
		r.Fail("%s", err)
	}
	return re
}
