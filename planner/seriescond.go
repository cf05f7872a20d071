package planner

import (
	"github.com/dasudian/dsdb"
	"github.com/influxdata/influxql"
)

// seriesCondition turns the time-free WHERE of a SHOW into a condition on
// tags: every name is a tag there. A comparison that is not between a tag and
// a string or regular expression finds nothing; never reports that all of it cannot hold.
func seriesCondition(e influxql.Expr) (t *dsdb.TagExpr, never bool, err error) {
	switch e := e.(type) {
	case nil:
		return nil, false, nil
	case *influxql.ParenExpr:
		return seriesCondition(e.Expr)
	case *influxql.BooleanLiteral:
		return nil, !e.Val, nil
	case *influxql.BinaryExpr:
		if e.Op == influxql.AND || e.Op == influxql.OR {
			return joinConditions(e)
		}
		t := seriesComparison(e)
		return t, t == nil, nil
	}
	return nil, false, invalid("invalid condition expression: %s", e)
}

func joinConditions(e *influxql.BinaryExpr) (*dsdb.TagExpr, bool, error) {
	l, lnever, err := seriesCondition(e.LHS)
	if err != nil {
		return nil, false, err
	}
	r, rnever, err := seriesCondition(e.RHS)
	if err != nil {
		return nil, false, err
	}
	if e.Op == influxql.AND {
		switch {
		case lnever || rnever:
			return nil, true, nil
		case l == nil:
			return r, false, nil
		case r == nil:
			return l, false, nil
		}
		return joinTags(dsdb.TagAnd, l, r), false, nil
	}
	switch {
	case lnever:
		return r, rnever, nil
	case rnever:
		return l, false, nil
	case l == nil || r == nil:
		return nil, false, nil
	}
	return joinTags(dsdb.TagOr, l, r), false, nil
}

// seriesComparison turns a comparison of a tag with a string or regular
// expression into a TagExpr, nil if it is anything else.
func seriesComparison(e *influxql.BinaryExpr) *dsdb.TagExpr {
	key, ok := e.LHS.(*influxql.VarRef)
	value := e.RHS
	if !ok {
		if key, ok = e.RHS.(*influxql.VarRef); !ok {
			return nil
		}
		value = e.LHS
	}
	t := &dsdb.TagExpr{Key: key.Val}
	switch v := value.(type) {
	case *influxql.StringLiteral:
		t.Value = v.Val
		switch e.Op {
		case influxql.EQ:
			t.Op = dsdb.TagEqual
		case influxql.NEQ:
			t.Op = dsdb.TagNotEqual
		default:
			return nil
		}
	case *influxql.RegexLiteral:
		t.Regex = v.Val
		switch e.Op {
		case influxql.EQREGEX:
			t.Op = dsdb.TagMatch
		case influxql.NEQREGEX:
			t.Op = dsdb.TagNotMatch
		default:
			return nil
		}
	default:
		return nil
	}
	return t
}

// checkSeriesCondition refuses, in the words of InfluxDB 1.8, what SHOW cannot
// compare: by order; for TAG VALUES what has the tag on the right; for
// MEASUREMENTS also anything but a tag with a string.
func checkSeriesCondition(e influxql.Expr, kind ShowKind) error {
	switch e := e.(type) {
	case *influxql.ParenExpr:
		return checkSeriesCondition(e.Expr, kind)
	case *influxql.BinaryExpr:
		switch e.Op {
		case influxql.AND, influxql.OR:
			if err := checkSeriesCondition(e.LHS, kind); err != nil {
				return err
			}
			return checkSeriesCondition(e.RHS, kind)
		case influxql.LT, influxql.LTE, influxql.GT, influxql.GTE:
			return invalid("invalid tag comparison operator")
		}
		switch kind {
		case ShowTagValues, ShowTagValuesCardinality, ShowMeasurements, ShowMeasurementCardinality:
			return checkTagTest(e, kind)
		}
	}
	return nil
}

func checkTagTest(e *influxql.BinaryExpr, kind ShowKind) error {
	if _, ok := e.LHS.(*influxql.VarRef); !ok {
		return invalid("left side of '%s' must be a tag key", e.Op)
	}
	if kind == ShowTagValues || kind == ShowTagValuesCardinality {
		return nil
	}
	switch e.RHS.(type) {
	case *influxql.StringLiteral, *influxql.RegexLiteral:
		return nil
	}
	return invalid("right side of '%s' must be a tag value string", e.Op)
}

// takeValueTests takes the conjuncts that compare `value` out of the WHERE of
// a SHOW TAG VALUES: there value means the tag value that is listed (since 1.7).
func takeValueTests(cond influxql.Expr) (rest influxql.Expr, tests []*dsdb.TagExpr, never bool) {
	if cond == nil {
		return nil, nil, false
	}
	var others []influxql.Expr
	for _, e := range influxql.ConjunctionsToExprSlice(cond) {
		b, ok := e.(*influxql.BinaryExpr)
		if !ok || !isValueRef(b.LHS) {
			others = append(others, e)
			continue
		}
		t := seriesComparison(b)
		if t == nil {
			never = true
			continue
		}
		tests = append(tests, t)
	}
	if len(others) > 0 {
		rest = influxql.ExprsToConjunction(others...)
	}
	return rest, tests, never
}

func isValueRef(e influxql.Expr) bool {
	ref, ok := e.(*influxql.VarRef)
	return ok && ref.Val == "value"
}
