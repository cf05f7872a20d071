package planner

import (
	"github.com/influxdata/influxql"
)

// fieldCheck walks the select list before names are known and gathers what its
// parts allow together (the rules of InfluxDB 1.8, query/compile.go).
type fieldCheck struct {
	calls       int
	bare        bool // a field, tag, wildcard or regex outside of any call
	hasDistinct bool
	notSelector bool // some call is an aggregate, or one call may become several
	binary      bool // inside of a binary expression: no wildcards
}

// checkFields validates the select list; hasInterval is whether GROUP BY time is there.
func checkFields(fields influxql.Fields, fill influxql.FillOption, hasInterval bool) error {
	if len(fields) == 0 {
		return invalid("at least 1 non-time field must be queried")
	}
	var c fieldCheck
	for _, f := range fields {
		c.binary = false
		if err := c.expr(f.Expr); err != nil {
			return err
		}
	}
	return c.together(fill, hasInterval)
}

// together checks that the fields are mutually compatible.
func (c *fieldCheck) together(fill influxql.FillOption, hasInterval bool) error {
	if c.calls == 0 {
		switch {
		case fill == influxql.NoFill:
			return invalid("fill(none) must be used with a function")
		case fill == influxql.LinearFill:
			return invalid("fill(linear) must be used with a function")
		case hasInterval:
			return invalid("GROUP BY requires at least one aggregate function")
		}
	}
	switch {
	case c.hasDistinct && (c.calls != 1 || c.bare):
		return invalid("aggregate function distinct() cannot be combined with other functions or fields")
	case c.bare && c.notSelector:
		return invalid("mixing aggregate and non-aggregate queries is not supported")
	case c.bare && c.calls > 1:
		return invalid("mixing multiple selector functions with tags or fields is not supported")
	}
	return nil
}

func (c *fieldCheck) expr(e influxql.Expr) error {
	switch e := e.(type) {
	case *influxql.VarRef:
		c.bare = true
		return nil
	case *influxql.Wildcard:
		c.bare = true
		if c.binary {
			return invalid("unable to use wildcard in a binary expression")
		}
		return nil
	case *influxql.RegexLiteral:
		c.bare = true
		if c.binary {
			return invalid("unable to use regex in a binary expression")
		}
		return nil
	case *influxql.Distinct:
		c.calls++
		return c.distinct(e.NewCall().Args, false)
	case *influxql.Call:
		return c.call(e)
	case *influxql.ParenExpr:
		return c.expr(e.Expr)
	case *influxql.BinaryExpr:
		return c.binaryExpr(e)
	case influxql.Literal:
		return invalid("field must contain at least one variable")
	}
	return unsupported("the expression " + e.String())
}

func (c *fieldCheck) binaryExpr(e *influxql.BinaryExpr) error {
	c.binary = true
	_, left := e.LHS.(influxql.Literal)
	_, right := e.RHS.(influxql.Literal)
	if left && right {
		return invalid("cannot perform a binary expression on two literals")
	}
	if !left {
		if err := c.expr(e.LHS); err != nil {
			return err
		}
	}
	if !right {
		return c.expr(e.RHS)
	}
	return nil
}

func (c *fieldCheck) call(e *influxql.Call) error {
	if notYet[e.Name] {
		return unsupported(e.Name + "()")
	}
	f, ok := functions[e.Name]
	if !ok {
		return invalid("undefined function %s()", e.Name)
	}
	c.calls++
	if !f.selector {
		c.notSelector = true
	}
	switch e.Name {
	case "distinct":
		return c.distinct(e.Args, false)
	case "percentile":
		if len(e.Args) != 2 {
			return invalid("invalid number of arguments for percentile, expected 2, got %d", len(e.Args))
		}
		switch e.Args[1].(type) {
		case *influxql.IntegerLiteral, *influxql.NumberLiteral:
		default:
			return invalid("expected float argument in percentile()")
		}
		return c.argument(e.Name, e.Args[0])
	}
	if len(e.Args) != 1 {
		return invalid("invalid number of arguments for %s, expected 1, got %d", e.Name, len(e.Args))
	}
	if args, ok := distinctArgs(e); ok {
		return c.distinct(args, true)
	}
	return c.argument(e.Name, e.Args[0])
}

// distinctArgs returns the arguments of the distinct inside of count(distinct(x)).
func distinctArgs(e *influxql.Call) ([]influxql.Expr, bool) {
	if e.Name != "count" || len(e.Args) != 1 {
		return nil, false
	}
	switch arg := e.Args[0].(type) {
	case *influxql.Distinct:
		return arg.NewCall().Args, true
	case *influxql.Call:
		return arg.Args, arg.Name == "distinct"
	}
	return nil, false
}

// argument checks the field that an aggregate is over.
func (c *fieldCheck) argument(name string, arg influxql.Expr) error {
	switch arg := arg.(type) {
	case *influxql.VarRef:
		return nil
	case *influxql.Wildcard:
		if c.binary {
			return invalid("unsupported expression with wildcard: %s()", name)
		}
		c.notSelector = true
		return nil
	case *influxql.RegexLiteral:
		if c.binary {
			return invalid("unsupported expression with regex field: %s()", name)
		}
		c.notSelector = true
		return nil
	case *influxql.Call:
		if notYet[arg.Name] {
			return unsupported(arg.Name + "()")
		}
	}
	return invalid("expected field argument in %s()", name)
}

func (c *fieldCheck) distinct(args []influxql.Expr, nested bool) error {
	if len(args) == 0 {
		return invalid("distinct function requires at least one argument")
	}
	if len(args) != 1 {
		return invalid("distinct function can only have one argument")
	}
	if _, ok := args[0].(*influxql.VarRef); !ok {
		return invalid("expected field argument in distinct()")
	}
	c.notSelector = true
	if !nested {
		c.hasDistinct = true
	}
	return nil
}

// checkCondition refuses calls in WHERE, and =~ and !~ beside anything but a
// regular expression (the grammar lets x =~ /a/ % 2 pass).
func checkCondition(e influxql.Expr) error {
	switch e := e.(type) {
	case *influxql.ParenExpr:
		return checkCondition(e.Expr)
	case *influxql.BinaryExpr:
		if influxql.IsRegexOp(e.Op) {
			if _, ok := e.RHS.(*influxql.RegexLiteral); !ok {
				return invalid("invalid condition expression: %s", e)
			}
		}
		if err := checkCondition(e.LHS); err != nil {
			return err
		}
		return checkCondition(e.RHS)
	case *influxql.Call:
		if notYet[e.Name] {
			return unsupported(e.Name + "() in WHERE")
		}
		return invalid("invalid function call in condition: %s", e)
	}
	return nil
}
