package planner

import (
	"github.com/dasudian/dsdb"
	"github.com/influxdata/influxql"
)

// ops are the operations by their token; the regular expression ones are in match.
var ops = map[influxql.Token]Op{
	influxql.ADD: OpAdd, influxql.SUB: OpSub, influxql.MUL: OpMul, influxql.DIV: OpDiv, influxql.MOD: OpMod,
	influxql.BITWISE_AND: OpBitAnd, influxql.BITWISE_OR: OpBitOr, influxql.BITWISE_XOR: OpBitXor,
	influxql.EQ: OpEqual, influxql.NEQ: OpNotEqual, influxql.LT: OpLess, influxql.LTE: OpLessEqual,
	influxql.GT: OpGreater, influxql.GTE: OpGreaterEqual,
	influxql.AND: OpAnd, influxql.OR: OpOr,
}

// binary makes an operation of known type. Operands that do not go together
// make what InfluxDB's evaluator makes of them: a comparison is false, any
// other operation null.
func binary(token influxql.Token, left, right *Expr) *Expr {
	op, ok := ops[token]
	if !ok {
		e := falseExpr
		return &e
	}
	e := &Expr{Op: op, Left: left, Right: right}
	switch {
	case op == OpAnd || op == OpOr:
		return logical(e)
	case op >= OpEqual:
		e.Type = dsdb.Boolean
		if !comparableTypes(op, left.Type, right.Type) {
			f := falseExpr
			return &f
		}
	default:
		e.Type = arithmeticType(op, left, right)
		if e.Type == dsdb.NoType {
			return &Expr{Op: OpConst}
		}
	}
	return e
}

// logical simplifies And and Or with constant sides; a side that is not
// boolean counts as false.
func logical(e *Expr) *Expr {
	for _, side := range []**Expr{&e.Left, &e.Right} {
		if (*side).Type != dsdb.Boolean {
			f := falseExpr
			*side = &f
		}
	}
	e.Type = dsdb.Boolean
	l, r := e.Left, e.Right
	if r.Op == OpConst {
		l, r = r, l
	}
	if l.Op != OpConst {
		return e
	}
	if (l.Value.Int != 0) == (e.Op == OpAnd) {
		return r
	}
	return l
}

func numeric(t dsdb.FieldType) bool {
	return t == dsdb.Float || t == dsdb.Integer || t == dsdb.Unsigned
}

// comparableTypes reports whether values of the types can be compared by op. A name
// without values (NoType) stays, for a computed null beside a boolean is false.
func comparableTypes(op Op, a, b dsdb.FieldType) bool {
	switch {
	case numeric(a) && numeric(b):
		return true
	case a == dsdb.NoType || b == dsdb.NoType:
		return a == dsdb.Boolean || b == dsdb.Boolean
	}
	return a == b && (op == OpEqual || op == OpNotEqual)
}

// arithmeticType returns the type of an arithmetic or bitwise operation, NoType
// if the operands do not go together. Beside a name without values the other side's type counts.
func arithmeticType(op Op, left, right *Expr) dsdb.FieldType {
	a, b := left.Type, right.Type
	if a == dsdb.NoType {
		a = b
	}
	if b == dsdb.NoType {
		b = a
	}
	bitwise := op >= OpBitAnd && op <= OpBitXor
	switch {
	case a == dsdb.Boolean && b == dsdb.Boolean && bitwise:
		return dsdb.Boolean
	case !numeric(a) || !numeric(b):
		return dsdb.NoType
	case a == dsdb.Float || b == dsdb.Float:
		if bitwise {
			return dsdb.NoType
		}
		return dsdb.Float
	case a == dsdb.Unsigned || b == dsdb.Unsigned:
		return dsdb.Unsigned
	case op == OpDiv:
		return dsdb.Float
	}
	return dsdb.Integer
}
