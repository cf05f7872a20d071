package planner

import (
	"math"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/wire"
)

// appendExpr appends an expression, operands before operations; nil is empty.
func appendExpr(dst []byte, e *Expr) []byte {
	n := 0
	walkExpr(e, func(*Expr) { n++ })
	dst = wire.AppendUint(dst, uint64(n))
	return appendExprNodes(dst, e)
}

func appendExprNodes(dst []byte, e *Expr) []byte {
	if e == nil {
		return dst
	}
	dst = appendExprNodes(dst, e.Left)
	dst = appendExprNodes(dst, e.Right)
	dst = append(dst, byte(e.Op), byte(e.Type))
	switch e.Op {
	case OpConst:
		dst = append(dst, byte(e.Value.Type))
		switch e.Value.Type {
		case dsdb.Float:
			dst = wire.AppendFloat(dst, e.Value.Float)
		case dsdb.String:
			dst = wire.AppendString(dst, e.Value.Str)
		case dsdb.NoType:
		default:
			dst = wire.AppendInt(dst, e.Value.Int)
		}
	case OpRef, OpCall:
		dst = wire.AppendUint(dst, uint64(e.Index))
	case OpMatch, OpNotMatch:
		dst = wire.AppendString(dst, e.Regex.String())
	}
	return dst
}

// decodeExprs reads an expression whose indexes are not checked yet.
func decodeExprs(r *wire.Reader) *Expr {
	var stack []*Expr
	var depths []int
	for range r.Count(2) {
		e := &Expr{Op: Op(r.Byte()), Type: readType(r)}
		operands := 2
		switch e.Op {
		case OpConst:
			operands, e.Value = 0, decodeValue(r)
		case OpRef, OpCall:
			operands, e.Index = 0, r.Size(math.MaxInt32)
		case OpMatch, OpNotMatch:
			operands, e.Regex = 1, decodeRegex(r)
		}
		if e.Op > OpOr {
			r.Fail("operation %d", e.Op)
		}
		at := len(stack) - operands
		if at < 0 {
			r.Fail("operation %d without operands", e.Op)
		}
		if r.Err() != nil {
			return nil
		}
		depth := 1
		if operands > 0 {
			e.Left = stack[at]
			depth = depths[at] + 1
		}
		if operands > 1 {
			e.Right = stack[at+1]
			depth = max(depth, depths[at+1]+1)
		}
		if depth > maxDepth {
			r.Fail("expression nested more than %d times", maxDepth)
		}
		stack, depths = append(stack[:at], e), append(depths[:at], depth)
	}
	switch len(stack) {
	case 0:
		return nil
	case 1:
		return stack[0]
	}
	r.Fail("%d expressions", len(stack))
	return nil
}

func decodeValue(r *wire.Reader) Value {
	v := Value{Type: readType(r)}
	switch v.Type {
	case dsdb.Float:
		v.Float = r.Float()
	case dsdb.String:
		v.Str = r.String()
	case dsdb.NoType:
	default:
		v.Int = r.Int()
	}
	return v
}

// checkedExpr returns e if its refs and calls exist and its operands have the
// types that the operations work on.
func checkedExpr(r *wire.Reader, e *Expr, refs []Ref, calls []Call) *Expr {
	walkExpr(e, func(e *Expr) {
		switch {
		case e.Op == OpRef && e.Index >= len(refs):
			r.Fail("ref %d of %d", e.Index, len(refs))
		case e.Op == OpCall && e.Index >= len(calls):
			r.Fail("call %d of %d", e.Index, len(calls))
		}
	})
	if r.Err() != nil {
		return nil
	}
	return e
}
