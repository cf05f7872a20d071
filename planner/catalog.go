package planner

import (
	"github.com/dasudian/dsdb"
	"github.com/influxdata/influxql"
)

// Catalog is what the planner must know about what is stored; the server
// answers from the meta catalogue and the open shards. An empty rp asks over
// all policies of the database (SHOW and DELETE without a policy do). An
// unknown database is KindNotFound `database not found: x`, an unknown policy
// `retention policy not found: x`, an unknown measurement has nothing.
type Catalog interface {
	// DefaultPolicy returns the name of the default policy, "" if none is set.
	DefaultPolicy(db string) (string, error)
	// Shards returns those whose time group meets r, by start.
	Shards(db, rp string, r dsdb.TimeRange) ([]Shard, error)
	// Measurements returns the names of those that have a series, sorted.
	Measurements(db, rp string) ([]string, error)
	// Fields returns the fields that a measurement has in r. Where time groups
	// differ float wins over integer, then unsigned, string, boolean.
	Fields(db, rp, measurement string, r dsdb.TimeRange) (map[string]dsdb.FieldType, error)
	// TagKeys returns the tag keys that a measurement has in r, sorted.
	TagKeys(db, rp, measurement string, r dsdb.TimeRange) ([]string, error)
}

// Options are the circumstances of one statement.
type Options struct {
	Now       int64  // nanoseconds; what now() is
	DefaultDB string // for sources that name no database
	DefaultRP string // for sources that name no policy; "": the database's default
}

// Compile turns a parsed statement into its plan. Its errors carry InfluxDB
// 1.8's words: KindInvalid for what the statement says wrong or DSDB does not
// support yet, and whatever the catalogue reports.
func Compile(stmt influxql.Statement, c Catalog, o Options) (Plan, error) {
	switch stmt := stmt.(type) {
	case *influxql.SelectStatement:
		return compileSelect(stmt, c, o)
	case *influxql.ExplainStatement:
		sel, err := compileSelect(stmt.Statement, c, o)
		if err != nil {
			return nil, err
		}
		return &Explain{Analyze: stmt.Analyze, Select: sel}, nil
	}
	if p, err := compileShow(stmt, c, o); p != nil || err != nil {
		return p, err
	}
	return compileCommand(stmt, c, o)
}

func invalid(format string, args ...any) error {
	return dsdb.Errorf(dsdb.KindInvalid, format, args...)
}

// unsupported is the one error for what InfluxDB has and DSDB has not yet.
func unsupported(what string) error {
	return invalid("%s is not supported yet", what)
}
