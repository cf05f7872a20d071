// Package planner turns a parsed InfluxQL statement and the catalogue into a
// plan: names resolved, wildcards and regular expressions expanded, types and
// errors settled in InfluxDB's words, the time range cut out of the condition,
// the shards named. exec executes the plan; String prints it for EXPLAIN and
// for tests. The planner reads no stored data.
package planner

import (
	"regexp"
	"time"

	"github.com/dasudian/dsdb"
)

// Plan is what Compile makes of one statement: *Select, *Show, *Explain or *Command.
type Plan interface {
	// String prints the plan: one line per part, indented, the same for the same plan.
	String() string
	plan()
}

func (*Select) plan()  {}
func (*Show) plan()    {}
func (*Explain) plan() {}
func (*Command) plan() {}

// Explain asks for the plan of a SELECT; with Analyze it is also run and measured.
type Explain struct {
	Analyze bool
	Select  *Select
}

// Select is the plan of one SELECT. Each source is answered on its own (its
// series carry its name) and the answers follow one another in source order.
//
// Without Calls a row of the answer is a row of a series in which at least one
// field that Columns name is not null; fields that only Where names do not make
// a row. No Sources means an empty answer.
type Select struct {
	Database string
	Sources  []Source // in output order: by name, last first if Descending
	// Range is dsdb.AllTime where WHERE does not bound it, but that a GROUP BY
	// time without an upper bound ends at now (inclusive). With an open start
	// the first window is that of the first row.
	Range dsdb.TimeRange

	Where    *Expr         // the condition without its time part; nil: none
	Tags     *dsdb.TagExpr // what Where implies for the tags alone; nil: nothing
	Residual *Expr         // the part of Where that Tags does not settle; nil: every row of a series that matches Tags

	// Dims are the GROUP BY tag keys, expanded, sorted, without duplicates. A
	// name that is no tag groups too: its value is "" everywhere.
	Dims     []string
	Interval Interval // GROUP BY time; Every 0: none
	Fill     Fill

	Refs    []Ref    // the fields and tags that expressions name, without duplicates
	Calls   []Call   // the aggregates that Columns name, without duplicates; empty: raw rows
	Columns []Column // the output columns after time
	Time    string   // name of the time column: "time" or its alias

	// Selector: the only call picks a point (first, last, min, max,
	// percentile); without an Interval the row has that point's time, and
	// Columns may name Refs, taken from the same point.
	Selector bool
	// DistinctRows: the only call is distinct(): each group and window gives as many rows as values.
	DistinctRows bool

	Descending                     bool           // ORDER BY time DESC
	Limit, Offset, SLimit, SOffset int            // 0: none
	Location                       *time.Location // tz(); nil: UTC
}

// Source is one measurement, and where its rows are. If FROM names the same
// measurement in several databases or policies, their shards are together in
// one Source (the rows make one set of series, as in InfluxDB) and Database and
// Policy are those named first; then times of one series may lie in two shards
// of the same time.
type Source struct {
	Database, Policy, Measurement string
	Shards                        []Shard // those that meet Range, by start time, then id
}

// Shard is one shard that holds rows of a Source.
type Shard struct {
	ID    dsdb.ShardID
	Range dsdb.TimeRange // of its time group
}

// Interval is GROUP BY time(Every, Offset): windows start where
// (t - Offset) is a multiple of Every, in Location if that is set.
type Interval struct{ Every, Offset int64 }

// FillKind says what an empty window holds.
type FillKind uint8

// The kinds of fill().
const (
	FillNull FillKind = iota
	FillNone
	FillNumber
	FillPrevious
	FillLinear
)

// Fill is a fill() clause.
type Fill struct {
	Kind   FillKind
	Number float64 // of FillNumber
}

// Ref is a field or a tag that an expression names. Numbers (float, integer,
// unsigned) convert to each other; any other value that is not of Type is null.
// A series without the tag has "" in a condition and null in a column.
type Ref struct {
	Name string
	Tag  bool
	Type dsdb.FieldType // over all shards: the type to which values are converted; String for a tag, NoType if nothing has it
}

// Func is an aggregate function.
type Func uint8

// The aggregates. CountDistinct is count(distinct(x)).
const (
	Count Func = iota
	Sum
	Mean
	Min
	Max
	First
	Last
	Spread
	Stddev
	Median
	Percentile
	Distinct
	CountDistinct
	Mode
)

// Call is one aggregate over one Ref, which is always a field.
type Call struct {
	Func Func
	Ref  int            // index into Refs
	N    float64        // of Percentile
	Type dsdb.FieldType // of the result
}

// Column is one output column after time.
type Column struct {
	Name string
	Expr *Expr
}

// Op is the operation of an Expr.
type Op uint8

// The operations. Arithmetic follows InfluxQL: integer / integer is a float,
// unsigned / unsigned is unsigned, x / 0 and x % 0 are 0. Comparisons and And,
// Or are boolean and false on null, but for a computed null beside a boolean,
// which counts as false (InfluxDB: ok & true = false holds for rows without ok,
// but ok = false does not).
const (
	OpConst Op = iota // Value
	OpRef             // Refs[Index]
	OpCall            // Calls[Index]
	OpAdd
	OpSub
	OpMul
	OpDiv
	OpMod
	OpBitAnd
	OpBitOr
	OpBitXor
	OpEqual
	OpNotEqual
	OpLess
	OpLessEqual
	OpGreater
	OpGreaterEqual
	OpMatch    // Left =~ Regex
	OpNotMatch // Left !~ Regex
	OpAnd
	OpOr
)

// Expr is an expression over Refs, Calls and constants, of a known type.
type Expr struct {
	Op          Op
	Type        dsdb.FieldType // of the result
	Left, Right *Expr
	Index       int // of OpRef, OpCall
	Regex       *regexp.Regexp
	Value       Value // of OpConst
}

// Value is a constant; the member that Type names is in use (booleans are 0 and 1 in Int).
type Value struct {
	Type  dsdb.FieldType
	Int   int64
	Float float64
	Str   string
}
