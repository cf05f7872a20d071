package planner

import (
	"github.com/dasudian/dsdb"
)

// impliedTags returns a condition on tags that holds wherever e holds (nil:
// none is known), and whether it is e itself, no weaker.
func impliedTags(e *Expr, refs []Ref) (t *dsdb.TagExpr, exact bool) {
	switch e.Op {
	case OpAnd:
		l, le := impliedTags(e.Left, refs)
		r, re := impliedTags(e.Right, refs)
		switch {
		case l == nil:
			return r, false
		case r == nil:
			return l, false
		}
		return joinTags(dsdb.TagAnd, l, r), le && re
	case OpOr:
		l, le := impliedTags(e.Left, refs)
		r, re := impliedTags(e.Right, refs)
		if l == nil || r == nil {
			return nil, false
		}
		return joinTags(dsdb.TagOr, l, r), le && re
	case OpEqual, OpNotEqual, OpMatch, OpNotMatch:
		t := tagComparison(e, refs)
		return t, t != nil
	}
	return nil, false
}

// tagComparison returns e if it compares a tag with a constant, else nil.
func tagComparison(e *Expr, refs []Ref) *dsdb.TagExpr {
	left, right := e.Left, e.Right
	if left.Op == OpConst && right != nil {
		left, right = right, left
	}
	if left.Op != OpRef || !refs[left.Index].Tag {
		return nil
	}
	t := &dsdb.TagExpr{Key: refs[left.Index].Name}
	switch e.Op {
	case OpMatch:
		t.Op, t.Regex = dsdb.TagMatch, e.Regex
		return t
	case OpNotMatch:
		t.Op, t.Regex = dsdb.TagNotMatch, e.Regex
		return t
	case OpEqual:
		t.Op = dsdb.TagEqual
	case OpNotEqual:
		t.Op = dsdb.TagNotEqual
	}
	if right.Op != OpConst || right.Type != dsdb.String {
		return nil
	}
	t.Value = right.Value.Str
	return t
}

// joinTags combines two conditions, which it may change; nested ones of the
// same operation become one list.
func joinTags(op dsdb.TagOp, a, b *dsdb.TagExpr) *dsdb.TagExpr {
	if a.Op != op {
		a = &dsdb.TagExpr{Op: op, Args: []*dsdb.TagExpr{a}}
	}
	if b.Op == op {
		a.Args = append(a.Args, b.Args...)
	} else {
		a.Args = append(a.Args, b)
	}
	return a
}
