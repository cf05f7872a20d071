package planner

import (
	"regexp"

	"github.com/dasudian/dsdb"
	"github.com/influxdata/influxql"
)

// builder turns expressions whose names carry types (influxql's RewriteFields)
// into Exprs over the Refs and Calls of a plan, each listed once.
type builder struct {
	p     *Select
	refs  map[Ref]int
	calls map[Call]int
	where bool // within the condition
}

func newBuilder(p *Select) *builder {
	return &builder{p: p, refs: make(map[Ref]int), calls: make(map[Call]int)}
}

// columns resolves the select list.
func (b *builder) columns(stmt *influxql.SelectStatement) error {
	types := influxql.TypeValuerEval{TypeMapper: callTypes{}}
	names := stmt.ColumnNames()
	for i, f := range stmt.Fields {
		if _, err := types.EvalType(f.Expr); err != nil {
			return invalid("%s", err)
		}
		e, err := b.expr(f.Expr)
		if err != nil {
			return err
		}
		b.p.Columns = append(b.p.Columns, Column{Name: names[i+1], Expr: e})
	}
	if len(b.p.Calls) == 1 {
		switch b.p.Calls[0].Func {
		case First, Last, Min, Max, Percentile:
			b.p.Selector = true
		case Distinct:
			b.p.DistinctRows = true
		}
	}
	return nil
}

// answers reports whether any row can come: none does if the condition is
// false, and a raw query needs a field that some source has, tags make no rows.
func (b *builder) answers() bool {
	if len(b.p.Columns) == 0 {
		return false
	}
	if w := b.p.Where; w != nil && w.Op == OpConst && w.Value.Int == 0 {
		return false
	}
	if len(b.p.Calls) > 0 {
		return true
	}
	found := false
	for _, c := range b.p.Columns {
		walkExpr(c.Expr, func(e *Expr) {
			if e.Op == OpRef {
				r := b.p.Refs[e.Index]
				found = found || !r.Tag && r.Type != dsdb.NoType
			}
		})
	}
	return found
}

func walkExpr(e *Expr, f func(*Expr)) {
	if e == nil {
		return
	}
	f(e)
	walkExpr(e.Left, f)
	walkExpr(e.Right, f)
}

// ref returns the index of a field or tag.
func (b *builder) ref(r Ref) int {
	i, ok := b.refs[r]
	if !ok {
		i = len(b.p.Refs)
		b.refs[r] = i
		b.p.Refs = append(b.p.Refs, r)
	}
	return i
}

// varRef resolves a name. One that no source has is a tag in a condition (and
// "" there, as in InfluxDB) and a field without values in a column.
func (b *builder) varRef(v *influxql.VarRef) *Expr {
	r := Ref{Name: v.Val, Type: fieldType(v.Type)}
	if v.Type == influxql.Tag || b.where && v.Type == influxql.Unknown {
		r.Tag, r.Type = true, dsdb.String
	}
	return &Expr{Op: OpRef, Type: r.Type, Index: b.ref(r)}
}

func (b *builder) expr(e influxql.Expr) (*Expr, error) {
	switch e := e.(type) {
	case *influxql.VarRef:
		return b.varRef(e), nil
	case *influxql.ParenExpr:
		return b.expr(e.Expr)
	case *influxql.Call:
		return b.call(e)
	case *influxql.BinaryExpr:
		left, err := b.expr(e.LHS)
		if err != nil {
			return nil, err
		}
		if re, ok := e.RHS.(*influxql.RegexLiteral); ok {
			return match(e.Op, left, re.Val), nil
		}
		right, err := b.expr(e.RHS)
		if err != nil {
			return nil, err
		}
		return binary(e.Op, left, right), nil
	}
	return constant(e)
}

// constant turns a literal into an Expr. What has no value of a field's type
// (a duration, a time) is a null.
func constant(e influxql.Expr) (*Expr, error) {
	var v Value
	switch e := e.(type) {
	case *influxql.IntegerLiteral:
		v = Value{Type: dsdb.Integer, Int: e.Val}
	case *influxql.UnsignedLiteral:
		v = Value{Type: dsdb.Unsigned, Int: int64(e.Val)}
	case *influxql.NumberLiteral:
		v = Value{Type: dsdb.Float, Float: e.Val}
	case *influxql.StringLiteral:
		v = Value{Type: dsdb.String, Str: e.Val}
	case *influxql.BooleanLiteral:
		v = boolean(e.Val)
	case *influxql.DurationLiteral, *influxql.TimeLiteral, *influxql.NilLiteral:
	default:
		return nil, invalid("invalid expression: %s", e)
	}
	return &Expr{Op: OpConst, Type: v.Type, Value: v}, nil
}

func boolean(b bool) Value {
	v := Value{Type: dsdb.Boolean}
	if b {
		v.Int = 1
	}
	return v
}

var falseExpr = Expr{Op: OpConst, Type: dsdb.Boolean, Value: Value{Type: dsdb.Boolean}}

// call resolves an aggregate over a field; over a tag it finds no values.
func (b *builder) call(e *influxql.Call) (*Expr, error) {
	f := functions[e.Name]
	args, countDistinct := distinctArgs(e)
	if countDistinct {
		f.fn = CountDistinct
	} else {
		args = e.Args
	}
	arg, ok := args[0].(*influxql.VarRef)
	if !ok {
		return nil, invalid("expected field argument in %s()", e.Name)
	}
	r := Ref{Name: arg.Val, Type: fieldType(arg.Type)}
	if arg.Type == influxql.Tag {
		r.Type = dsdb.NoType
	}
	if err := f.accepts(e.Name, r.Type); err != nil {
		return nil, err
	}
	c := Call{Func: f.fn, Ref: b.ref(r), Type: f.resultType(r.Type)}
	if f.fn == Percentile {
		switch n := e.Args[1].(type) {
		case *influxql.IntegerLiteral:
			c.N = float64(n.Val)
		case *influxql.NumberLiteral:
			c.N = n.Val
		}
	}
	i, ok := b.calls[c]
	if !ok {
		i = len(b.p.Calls)
		b.calls[c] = i
		b.p.Calls = append(b.p.Calls, c)
	}
	return &Expr{Op: OpCall, Type: c.Type, Index: i}, nil
}

// match makes a regular expression comparison; only strings match.
func match(op influxql.Token, left *Expr, re *regexp.Regexp) *Expr {
	if left.Type != dsdb.String {
		e := falseExpr
		return &e
	}
	o := OpMatch
	if op == influxql.NEQREGEX {
		o = OpNotMatch
	}
	return &Expr{Op: o, Type: dsdb.Boolean, Left: left, Regex: re}
}

// callTypes gives influxql's type check the results of our aggregates.
type callTypes struct{}

// MapType implements influxql.TypeMapper: names carry their types already.
func (callTypes) MapType(*influxql.Measurement, string) influxql.DataType { return influxql.Unknown }

// CallType implements influxql.CallTypeMapper.
func (callTypes) CallType(name string, args []influxql.DataType) (influxql.DataType, error) {
	f, ok := functions[name]
	if !ok || len(args) == 0 {
		return influxql.Unknown, nil
	}
	return toDataType[f.resultType(fieldType(args[0]))], nil
}
