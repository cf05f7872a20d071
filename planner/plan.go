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

// Select is the plan of one SELECT. Each source is answered on its own (its
// series carry its name) and the answers follow one another in source order.
type Select struct {
	Database string
	Sources  []Source // in output order: by name
	Range    dsdb.TimeRange

	Where *Expr         // the condition without its time part; nil: none
	Tags  *dsdb.TagExpr // what Where implies for the tags alone; nil: nothing

	Dims     []string // GROUP BY tag keys, expanded, sorted, without duplicates
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

// Source is one measurement in one retention policy, and where its rows are.
type Source struct {
	Database, Policy, Measurement string
	Shards                        []Shard // those that meet Range, by start time
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

// Ref is a field or a tag that an expression names.
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
// x / 0 is 0 for integers. Comparisons and And, Or are boolean and false on null.
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
