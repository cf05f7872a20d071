package planner

import (
	"github.com/dasudian/dsdb"
	"github.com/influxdata/influxql"
)

// deleteCommand compiles the statements that delete rows; nil for others.
func deleteCommand(stmt influxql.Statement, c Catalog, o Options) (*Command, error) {
	s := &showCompiler{cat: c, o: o}
	switch st := stmt.(type) {
	case *influxql.DropMeasurementStatement:
		m := &influxql.Measurement{Name: st.Name}
		cmd, err := s.deletion(DropMeasurement, influxql.Sources{m}, nil)
		if err == nil {
			cmd.Name = st.Name
		}
		return cmd, err
	case *influxql.DropSeriesStatement:
		if influxql.HasTimeExpr(st.Condition) {
			return nil, invalid("DROP SERIES doesn't support time in WHERE clause")
		}
		return s.deletion(DropSeries, st.Sources, st.Condition)
	case *influxql.DeleteSeriesStatement:
		return s.deletion(DeleteRows, st.Sources, st.Condition)
	}
	return nil, nil
}

// deletion resolves what goes. Sources without a policy mean all policies.
func (s *showCompiler) deletion(kind CommandKind, sources influxql.Sources, cond influxql.Expr) (*Command, error) {
	p, err := s.targets(ShowSeries, clauses{sources: sources, condition: cond})
	if err != nil {
		return nil, err
	}
	rest, _, err := cutTime(cond, s.o.Now, nil)
	if err != nil {
		return nil, err
	}
	if err := s.refuseFields(rest, p.Targets); err != nil {
		return nil, err
	}
	return &Command{Kind: kind, Database: p.Database, Delete: &Deletion{
		Targets: p.Targets, Where: p.Where, Nothing: p.Nothing, Range: p.Range,
	}}, nil
}

// refuseFields reports a condition that names a field of a measurement that
// would be deleted from, or compares with what no tag can be: which rows match
// could only be known by reading them.
func (s *showCompiler) refuseFields(cond influxql.Expr, targets []Target) error {
	names := refNames(cond)
	if len(names) == 0 {
		return nil
	}
	number := comparesNumbers(cond)
	for _, t := range targets {
		measurements, err := s.cat.Measurements(t.Database, t.Policy)
		if err != nil {
			return err
		}
		for _, m := range measurements {
			if !t.Matches(m) {
				continue
			}
			fields, err := s.cat.Fields(t.Database, t.Policy, m, dsdb.AllTime)
			if err != nil {
				return err
			}
			for _, name := range names {
				if _, ok := fields[name]; (ok || number) && len(t.Shards) > 0 {
					return invalid("shard %d: fields not supported in WHERE clause during deletion", t.Shards[0].ID)
				}
			}
		}
	}
	return nil
}

// comparesNumbers reports whether something is compared with a number or a boolean.
func comparesNumbers(e influxql.Expr) bool {
	found := false
	influxql.WalkFunc(e, func(n influxql.Node) {
		b, ok := n.(*influxql.BinaryExpr)
		if !ok || b.Op == influxql.AND || b.Op == influxql.OR {
			return
		}
		for _, side := range []influxql.Expr{b.LHS, b.RHS} {
			switch side.(type) {
			case *influxql.NumberLiteral, *influxql.IntegerLiteral, *influxql.UnsignedLiteral, *influxql.BooleanLiteral:
				found = true
			}
		}
	})
	return found
}

// refNames returns the names in an expression.
func refNames(e influxql.Expr) []string {
	var names []string
	influxql.WalkFunc(e, func(n influxql.Node) {
		if ref, ok := n.(*influxql.VarRef); ok {
			names = append(names, ref.Val)
		}
	})
	return names
}
