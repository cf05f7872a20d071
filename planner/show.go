package planner

import (
	"regexp"
	"strings"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/ql"
	"github.com/influxdata/influxql"
)

// ShowKind says what a SHOW statement lists.
type ShowKind uint8

// The kinds of SHOW.
const (
	ShowDatabases ShowKind = iota
	ShowPolicies
	ShowShards
	ShowShardGroups
	ShowUsers
	ShowGrants
	ShowServers
	ShowCluster
	ShowMeasurements
	ShowSeries
	ShowTagKeys
	ShowTagValues
	ShowFieldKeys
	ShowMeasurementCardinality
	ShowSeriesCardinality
	ShowTagKeyCardinality
	ShowTagValuesCardinality
	ShowFieldKeyCardinality
)

var showNames = [...]string{
	"databases", "retention policies", "shards", "shard groups", "users", "grants", "servers", "cluster",
	"measurements", "series", "tag keys", "tag values", "field keys",
	"measurement cardinality", "series cardinality", "tag key cardinality",
	"tag values cardinality", "field key cardinality",
}

// String returns the words after SHOW.
func (k ShowKind) String() string { return showNames[k] }

// Show is the plan of one SHOW statement. The kinds up to ShowCluster list the
// catalogue (of Database, or for User); the others list what the Targets hold.
type Show struct {
	Kind     ShowKind
	Database string
	User     string   // of ShowGrants
	Targets  []Target // in the order of FROM; none of them: an empty answer
	Range    dsdb.TimeRange

	Where   *dsdb.TagExpr   // the series that count; nil: all
	Keys    *dsdb.TagExpr   // WITH KEY, a condition for MatchName on the tag key; nil: all
	Values  []*dsdb.TagExpr // WHERE value = …, comparisons for MatchValue on the tag value that is listed
	Nothing bool            // WHERE is false whatever is stored

	Scoped bool // SHOW MEASUREMENTS ON db.rp: rows name database and policy
	Count  bool // a cardinality by measurement (EXACT, FROM or WHERE), else one total
	Page   Page
}

// Page cuts the answer: Limit and Offset count rows of each series of the
// answer, SLimit and SOffset count series. 0: none.
type Page struct{ Limit, Offset, SLimit, SOffset int }

// Target is what one FROM source (or the lack of FROM) asks for: the
// measurements called Name, those that Regex matches, or with neither all, in Shards.
type Target struct {
	Database, Policy string // Policy "": all
	Name             string
	Regex            *regexp.Regexp
	Shards           []Shard
}

// Matches reports whether the target asks for a measurement.
func (t *Target) Matches(measurement string) bool {
	switch {
	case t.Regex != nil:
		return t.Regex.MatchString(measurement)
	case t.Name != "":
		return t.Name == measurement
	}
	return true
}

// MatchName evaluates a condition whose comparisons are all on one name,
// whatever their Key; nil matches.
func MatchName(e *dsdb.TagExpr, name string) bool {
	if e == nil {
		return true
	}
	switch e.Op {
	case dsdb.TagAnd, dsdb.TagOr:
		for _, a := range e.Args {
			if MatchName(a, name) == (e.Op == dsdb.TagOr) {
				return e.Op == dsdb.TagOr
			}
		}
		return e.Op == dsdb.TagAnd
	}
	return e.MatchValue(name)
}

// compileShow returns nil, nil for what is no SHOW statement.
func compileShow(stmt influxql.Statement, c Catalog, o Options) (Plan, error) {
	s := &showCompiler{cat: c, o: o}
	if p, ok, err := s.catalogueShow(stmt); ok {
		return planOrError(p, err)
	}
	if p, ok, err := s.dataShow(stmt); ok {
		return planOrError(p, err)
	}
	if p, ok, err := s.cardinalityShow(stmt); ok {
		return planOrError(p, err)
	}
	return nil, nil
}

func planOrError(p *Show, err error) (Plan, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

// showCompiler holds what every kind of SHOW needs.
type showCompiler struct {
	cat Catalog
	o   Options
}

// catalogueShow compiles the kinds that list the catalogue; ok is false for others.
func (s *showCompiler) catalogueShow(stmt influxql.Statement) (p *Show, ok bool, err error) {
	switch stmt := stmt.(type) {
	case *influxql.ShowDatabasesStatement:
		return &Show{Kind: ShowDatabases}, true, nil
	case *influxql.ShowRetentionPoliciesStatement:
		db, err := s.database(stmt.Database)
		return &Show{Kind: ShowPolicies, Database: db}, true, err
	case *influxql.ShowShardsStatement:
		return &Show{Kind: ShowShards}, true, nil
	case *influxql.ShowShardGroupsStatement:
		return &Show{Kind: ShowShardGroups}, true, nil
	case *influxql.ShowUsersStatement:
		return &Show{Kind: ShowUsers}, true, nil
	case *influxql.ShowGrantsForUserStatement:
		return &Show{Kind: ShowGrants, User: stmt.Name}, true, nil
	case *ql.ShowServers:
		return &Show{Kind: ShowServers}, true, nil
	case *ql.ShowCluster:
		return &Show{Kind: ShowCluster}, true, nil
	}
	return nil, false, nil
}

// dataShow compiles the kinds that list what series there are; ok is false for others.
func (s *showCompiler) dataShow(stmt influxql.Statement) (p *Show, ok bool, err error) {
	switch st := stmt.(type) {
	case *influxql.ShowMeasurementsStatement:
		p, err = s.measurements(st)
	case *influxql.ShowSeriesStatement:
		p, err = s.listing(ShowSeries, clauses{st.Database, st.Sources, st.Condition, Page{Limit: st.Limit, Offset: st.Offset}})
	case *influxql.ShowTagKeysStatement:
		p, err = s.listing(ShowTagKeys, clauses{st.Database, st.Sources, st.Condition,
			Page{st.Limit, st.Offset, st.SLimit, st.SOffset}})
		if err == nil && st.TagKeyExpr != nil {
			p.Keys, err = keyFilter(st.TagKeyOp, st.TagKeyExpr)
		}
	case *influxql.ShowTagValuesStatement:
		if err = onePolicy(st.Sources); err != nil {
			break
		}
		p, err = s.listing(ShowTagValues, clauses{st.Database, st.Sources, st.Condition, Page{Limit: st.Limit, Offset: st.Offset}})
		if err == nil {
			p.Keys, err = keyFilter(st.Op, st.TagKeyExpr)
		}
	case *influxql.ShowFieldKeysStatement:
		p, err = s.listing(ShowFieldKeys, clauses{st.Database, st.Sources, nil, Page{Limit: st.Limit, Offset: st.Offset}})
	default:
		return nil, false, nil
	}
	return p, true, err
}

// cardinalityShow compiles the SHOW … CARDINALITY statements; ok is false for others.
func (s *showCompiler) cardinalityShow(stmt influxql.Statement) (p *Show, ok bool, err error) {
	var dims influxql.Dimensions
	var exact bool
	var cl clauses
	kind := ShowSeriesCardinality
	switch st := stmt.(type) {
	case *influxql.ShowSeriesCardinalityStatement:
		cl = clauses{st.Database, st.Sources, st.Condition, Page{Limit: st.Limit, Offset: st.Offset}}
		exact, dims = st.Exact, st.Dimensions
		if influxql.HasTimeExpr(st.Condition) {
			return nil, true, invalid("SHOW SERIES EXACT CARDINALITY doesn't support time in WHERE clause")
		}
	case *influxql.ShowMeasurementCardinalityStatement:
		kind = ShowMeasurementCardinality
		cl = clauses{st.Database, st.Sources, st.Condition, Page{Limit: st.Limit, Offset: st.Offset}}
		exact, dims = st.Exact, st.Dimensions
		if influxql.HasTimeExpr(st.Condition) {
			return nil, true, invalid("SHOW MEASUREMENT EXACT CARDINALITY doesn't support time in WHERE clause")
		}
	case *influxql.ShowTagKeyCardinalityStatement:
		kind = ShowTagKeyCardinality
		cl = clauses{st.Database, st.Sources, st.Condition, Page{Limit: st.Limit, Offset: st.Offset}}
		exact, dims = true, st.Dimensions
	case *influxql.ShowFieldKeyCardinalityStatement:
		kind = ShowFieldKeyCardinality
		cl = clauses{st.Database, st.Sources, st.Condition, Page{Limit: st.Limit, Offset: st.Offset}}
		exact, dims = true, st.Dimensions
	case *influxql.ShowTagValuesCardinalityStatement:
		kind = ShowTagValuesCardinality
		cl = clauses{st.Database, st.Sources, st.Condition, Page{Limit: st.Limit, Offset: st.Offset}}
		exact, dims = true, st.Dimensions
	default:
		return nil, false, nil
	}
	if len(dims) > 0 {
		return nil, true, unsupported("GROUP BY in SHOW " + strings.ToUpper(kind.String()))
	}
	p, err = s.listing(kind, cl)
	if err != nil {
		return nil, true, err
	}
	p.Count = exact || len(cl.sources) > 0 || cl.condition != nil
	if st, ok := stmt.(*influxql.ShowTagValuesCardinalityStatement); ok {
		p.Keys, err = keyFilter(st.Op, st.TagKeyExpr)
	}
	return p, true, err
}

// clauses are the parts that the data listing statements share.
type clauses struct {
	database  string
	sources   influxql.Sources
	condition influxql.Expr
	page      Page
}

// database returns the database a statement is about and checks that it exists.
func (s *showCompiler) database(name string) (string, error) {
	if name == "" {
		name = s.o.DefaultDB
	}
	if name == "" {
		return "", invalid("database name required")
	}
	_, err := s.cat.DefaultPolicy(name)
	return name, err
}

// listing compiles the parts that the data listing statements share.
func (s *showCompiler) listing(kind ShowKind, cl clauses) (*Show, error) {
	p, err := s.targets(kind, cl)
	if err != nil {
		return nil, err
	}
	cond, _, err := cutTime(cl.condition, s.o.Now, nil)
	if err != nil {
		return nil, err
	}
	return p, checkSeriesCondition(cond, kind)
}

// targets compiles what is listed, or deleted: FROM and WHERE.
func (s *showCompiler) targets(kind ShowKind, cl clauses) (*Show, error) {
	db, err := s.database(cl.database)
	if err != nil {
		return nil, err
	}
	cond, b, err := cutTime(cl.condition, s.o.Now, nil)
	if err != nil {
		return nil, err
	}
	p := &Show{Kind: kind, Database: db, Range: b.TimeRange, Page: cl.page}
	if kind == ShowTagValues || kind == ShowTagValuesCardinality {
		cond, p.Values, p.Nothing = takeValueTests(cond)
	}
	var never bool
	if p.Where, never, err = seriesCondition(cond); err != nil {
		return nil, err
	}
	p.Nothing = p.Nothing || never
	if len(cl.sources) == 0 {
		cl.sources = influxql.Sources{&influxql.Measurement{}}
	}
	for _, src := range cl.sources {
		m, ok := src.(*influxql.Measurement)
		if !ok {
			return nil, unsupported("a subquery")
		}
		t := Target{Database: db, Policy: m.RetentionPolicy, Name: m.Name}
		if m.Database != "" {
			t.Database = m.Database
		}
		if m.Regex != nil {
			t.Regex = m.Regex.Val
		}
		if t.Shards, err = s.cat.Shards(t.Database, t.Policy, b.TimeRange); err != nil {
			return nil, err
		}
		p.Targets = append(p.Targets, t)
	}
	return p, nil
}

// onePolicy refuses SHOW TAG VALUES over sources of different policies.
func onePolicy(sources influxql.Sources) error {
	first := ""
	for _, s := range sources {
		m, ok := s.(*influxql.Measurement)
		if !ok || m.RetentionPolicy == "" {
			continue
		}
		if first != "" && m.RetentionPolicy != first {
			return invalid("only one retention policy allowed in SHOW TAG VALUES query: %q, %q", m.RetentionPolicy, first)
		}
		first = m.RetentionPolicy
	}
	return nil
}

// keyFilter turns WITH KEY into a condition for MatchName.
func keyFilter(op influxql.Token, e influxql.Expr) (*dsdb.TagExpr, error) {
	switch e := e.(type) {
	case *influxql.StringLiteral:
		t := &dsdb.TagExpr{Op: dsdb.TagEqual, Value: e.Val}
		if op == influxql.NEQ {
			t.Op = dsdb.TagNotEqual
		}
		return t, nil
	case *influxql.RegexLiteral:
		t := &dsdb.TagExpr{Op: dsdb.TagMatch, Regex: e.Val}
		if op == influxql.NEQREGEX {
			t.Op = dsdb.TagNotMatch
		}
		return t, nil
	case *influxql.ListLiteral:
		or := &dsdb.TagExpr{Op: dsdb.TagOr}
		for _, v := range e.Vals {
			or.Args = append(or.Args, &dsdb.TagExpr{Op: dsdb.TagEqual, Value: v})
		}
		if len(or.Args) == 1 {
			return or.Args[0], nil
		}
		return or, nil
	}
	return nil, invalid("unsupported WITH KEY expression: %s", e)
}
