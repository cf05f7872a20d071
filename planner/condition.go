package planner

import (
	"github.com/dasudian/dsdb"
	"github.com/influxdata/influxql"
)

// condition resolves what is left of WHERE after the time is cut out.
func (b *builder) condition(cond influxql.Expr) error {
	if cond == nil {
		return nil
	}
	b.where = true
	e, err := b.expr(cond)
	if err != nil {
		return err
	}
	if e.Type != dsdb.Boolean {
		f := falseExpr
		e = &f
	}
	b.p.Where = e
	b.p.Tags, _ = impliedTags(e, b.p.Refs)
	b.p.Residual = residual(e, b.p.Refs)
	return nil
}

// residual returns the conjuncts of e that the tags do not settle.
func residual(e *Expr, refs []Ref) *Expr {
	if e.Op == OpAnd {
		l, r := residual(e.Left, refs), residual(e.Right, refs)
		switch {
		case l == nil:
			return r
		case r == nil:
			return l
		}
		return &Expr{Op: OpAnd, Type: dsdb.Boolean, Left: l, Right: r}
	}
	if _, exact := impliedTags(e, refs); exact {
		return nil
	}
	return e
}
