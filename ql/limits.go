package ql

import (
	"fmt"

	"github.com/influxdata/influxql"
)

// checkLimits reports whether the expressions of a statement keep to MaxDepth,
// MaxOperators and MaxRegex, so that whoever walks them may recurse.
func checkLimits(s Statement) error {
	l := limits{}
	l.statement(s, 0)
	return l.err
}

// limits walks a statement until it finds a bound exceeded.
type limits struct {
	err       error
	operators int // of the expression being walked
}

func (l *limits) fail(format string, args ...any) {
	if l.err == nil {
		l.err = fmt.Errorf(format, args...)
	}
}

func (l *limits) statement(s influxql.Statement, depth int) {
	switch s := s.(type) {
	case *influxql.SelectStatement:
		l.query(s, depth)
	case *influxql.ExplainStatement:
		l.query(s.Statement, depth)
	case *influxql.CreateContinuousQueryStatement:
		l.query(s.Source, depth)
	case *influxql.DeleteSeriesStatement:
		l.parts(s.Sources, s.Condition)
	case *influxql.DropSeriesStatement:
		l.parts(s.Sources, s.Condition)
	case *influxql.ShowSeriesStatement:
		l.parts(s.Sources, s.Condition)
	case *influxql.ShowSeriesCardinalityStatement:
		l.parts(s.Sources, s.Condition)
		l.dimensions(s.Dimensions)
	case *influxql.ShowMeasurementsStatement:
		l.parts(influxql.Sources{s.Source}, s.Condition)
	case *influxql.ShowMeasurementCardinalityStatement:
		l.parts(s.Sources, s.Condition)
		l.dimensions(s.Dimensions)
	case *influxql.ShowTagKeysStatement:
		l.parts(s.Sources, s.Condition)
	case *influxql.ShowTagKeyCardinalityStatement:
		l.parts(s.Sources, s.Condition)
		l.dimensions(s.Dimensions)
	case *influxql.ShowTagValuesStatement:
		l.parts(s.Sources, s.Condition)
		l.expression(s.TagKeyExpr)
	case *influxql.ShowTagValuesCardinalityStatement:
		l.parts(s.Sources, s.Condition)
		l.dimensions(s.Dimensions)
		l.expression(s.TagKeyExpr)
	case *influxql.ShowFieldKeysStatement:
		l.sources(s.Sources, 0)
	case *influxql.ShowFieldKeyCardinalityStatement:
		l.parts(s.Sources, s.Condition)
		l.dimensions(s.Dimensions)
	}
}

func (l *limits) query(s *influxql.SelectStatement, depth int) {
	for _, f := range s.Fields {
		l.expression(f.Expr)
	}
	l.dimensions(s.Dimensions)
	l.expression(s.Condition)
	l.sources(s.Sources, depth)
}

func (l *limits) parts(sources influxql.Sources, condition influxql.Expr) {
	l.sources(sources, 0)
	l.expression(condition)
}

func (l *limits) dimensions(dims influxql.Dimensions) {
	for _, d := range dims {
		l.expression(d.Expr)
	}
}

func (l *limits) sources(sources influxql.Sources, depth int) {
	for _, src := range sources {
		switch src := src.(type) {
		case *influxql.Measurement:
			l.regex(src.Regex)
		case *influxql.SubQuery:
			if depth++; depth > MaxDepth {
				l.fail("subqueries nested deeper than %d", MaxDepth)
				return
			}
			l.query(src.Statement, depth)
			depth--
		}
	}
}

func (l *limits) regex(r *influxql.RegexLiteral) {
	if r == nil || r.Val == nil {
		return
	}
	if n := len(r.Val.String()); n > MaxRegex {
		l.fail("regular expression of %d bytes exceeds %d", n, MaxRegex)
	}
}

func (l *limits) expression(e influxql.Expr) {
	l.operators = 0
	l.expr(e, 0)
}

// expr walks an expression. A chain of operators leans to the left, and is
// followed without recursion; to the right recursion is bounded by the ranks
// of operators and by depth.
func (l *limits) expr(e influxql.Expr, depth int) {
	for l.err == nil {
		if depth > MaxDepth {
			l.fail("expression nested deeper than %d", MaxDepth)
			return
		}
		switch x := e.(type) {
		case *influxql.BinaryExpr:
			if l.operators++; l.operators > MaxOperators {
				l.fail("more than %d operators in an expression", MaxOperators)
				return
			}
			l.expr(x.RHS, depth)
			e = x.LHS
		case *influxql.ParenExpr:
			e = x.Expr
			depth++
		case *influxql.Call:
			for _, arg := range x.Args {
				l.expr(arg, depth+1)
			}
			return
		case *influxql.RegexLiteral:
			l.regex(x)
			return
		default:
			return
		}
	}
}
