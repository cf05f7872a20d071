package planner

import (
	"time"

	"github.com/dasudian/dsdb"
	"github.com/influxdata/influxql"
)

// compileSelect goes the way of a SELECT: what it says is validated first
// (no names needed), then the sources, fields and types are resolved.
func compileSelect(in *influxql.SelectStatement, c Catalog, o Options) (*Select, error) {
	if in.Target != nil {
		return nil, unsupported("SELECT INTO")
	}
	named, err := nameSources(in.Sources, c, o)
	if err != nil {
		return nil, err
	}
	stmt := in.Clone()
	p, r, err := validateSelect(stmt, o)
	if err != nil {
		return nil, err
	}
	named, err = expandRegexes(named, c)
	if err != nil {
		return nil, err
	}
	if len(named) > 0 {
		p.Database = named[0].Database
	}
	sch, err := loadSchema(named, c, r)
	if err != nil {
		return nil, err
	}
	if p.Sources, err = planSources(named, c, r, p.Descending); err != nil {
		return nil, err
	}
	return p, resolveSelect(p, stmt, sch)
}

// validateSelect checks what can be checked without the catalogue, takes time
// out of the condition and the fields of stmt, and returns a plan with all
// that does not depend on names.
func validateSelect(stmt *influxql.SelectStatement, o Options) (*Select, dsdb.TimeRange, error) {
	none := dsdb.TimeRange{}
	cond, b, err := cutTime(stmt.Condition, o.Now, stmt.Location)
	if err != nil {
		return nil, none, err
	}
	if err := checkCondition(cond); err != nil {
		return nil, none, err
	}
	stmt.Condition = cond
	iv, err := groupByTime(stmt.Dimensions, o.Now, stmt.Location)
	if err != nil {
		return nil, none, err
	}
	if iv.Every != 0 && !b.upper {
		b.End, b.upper = clampNanos(time.Unix(0, o.Now))+1, true
	}
	takeTimeField(stmt)
	if err := checkFields(stmt.Fields, stmt.Fill, iv.Every != 0); err != nil {
		return nil, none, err
	}
	stmt.RewriteDistinct()
	stmt.RewriteRegexConditions()
	p := &Select{
		Range:      b.TimeRange,
		Interval:   iv,
		Fill:       fillOf(stmt),
		Time:       stmt.TimeFieldName(),
		Descending: !stmt.TimeAscending(),
		Limit:      stmt.Limit, Offset: stmt.Offset,
		SLimit: stmt.SLimit, SOffset: stmt.SOffset,
		Location: stmt.Location,
	}
	return p, b.TimeRange, nil
}

// takeTimeField removes time from the fields: it is a column anyway, under its
// alias if it has one. The other fields are reduced.
func takeTimeField(stmt *influxql.SelectStatement) {
	kept := stmt.Fields[:0]
	for _, f := range stmt.Fields {
		if ref, ok := f.Expr.(*influxql.VarRef); ok && ref.Val == "time" {
			if f.Alias != "" {
				stmt.TimeAlias = f.Alias
			}
			continue
		}
		f.Expr = influxql.Reduce(f.Expr, nil)
		kept = append(kept, f)
	}
	stmt.Fields = kept
}

// resolveSelect fills in what depends on names: columns, condition, dimensions.
func resolveSelect(p *Select, stmt *influxql.SelectStatement, sch *schema) error {
	stmt.Sources = stmt.Sources[:0]
	for _, m := range sch.sources {
		stmt.Sources = append(stmt.Sources, m)
	}
	stmt, err := stmt.RewriteFields(sch)
	if err != nil {
		return invalid("%s", err)
	}
	b := newBuilder(p)
	if err := b.columns(stmt); err != nil {
		return err
	}
	if err := b.condition(stmt.Condition); err != nil {
		return err
	}
	p.Dims = groupByTags(stmt.Dimensions)
	if !b.answers() {
		p.Sources = nil
	}
	return nil
}
