package planner

import "github.com/dasudian/dsdb"

// function is what the planner knows of an aggregate that exec can run.
type function struct {
	fn       Func
	selector bool // picks a point
	strings  bool // accepts strings
	booleans bool // accepts booleans
	result   dsdb.FieldType
}

// functions are the aggregates by name; a result of NoType means: that of the argument.
var functions = map[string]function{
	"count":      {Count, false, true, true, dsdb.Integer},
	"sum":        {Sum, false, false, false, dsdb.NoType},
	"mean":       {Mean, false, false, false, dsdb.Float},
	"min":        {Min, true, false, true, dsdb.NoType},
	"max":        {Max, true, false, true, dsdb.NoType},
	"first":      {First, true, true, true, dsdb.NoType},
	"last":       {Last, true, true, true, dsdb.NoType},
	"spread":     {Spread, false, false, false, dsdb.NoType},
	"stddev":     {Stddev, false, false, false, dsdb.Float},
	"median":     {Median, false, false, false, dsdb.Float},
	"percentile": {Percentile, true, false, false, dsdb.NoType},
	"distinct":   {Distinct, false, true, true, dsdb.NoType},
	"mode":       {Mode, false, true, true, dsdb.NoType},
}

// notYet are the functions of InfluxDB 1.8 that exec cannot run yet.
var notYet = map[string]bool{
	"derivative": true, "non_negative_derivative": true,
	"difference": true, "non_negative_difference": true,
	"cumulative_sum": true, "moving_average": true, "elapsed": true, "integral": true,
	"exponential_moving_average": true, "double_exponential_moving_average": true,
	"triple_exponential_moving_average": true, "triple_exponential_derivative": true,
	"relative_strength_index": true, "kaufmans_efficiency_ratio": true,
	"kaufmans_adaptive_moving_average": true, "chande_momentum_oscillator": true,
	"holt_winters": true, "holt_winters_with_fit": true,
	"top": true, "bottom": true, "sample": true,
	"count_hll": true, "sum_hll": true, "merge_hll": true,
	"abs": true, "sin": true, "cos": true, "tan": true, "asin": true, "acos": true,
	"atan": true, "atan2": true, "exp": true, "log": true, "ln": true, "log2": true,
	"log10": true, "sqrt": true, "pow": true, "floor": true, "ceil": true, "round": true,
}

// resultType returns the type of f's result over an argument of type t.
func (f function) resultType(t dsdb.FieldType) dsdb.FieldType {
	if f.result != dsdb.NoType {
		return f.result
	}
	return t
}

// accepts reports InfluxDB's error if f cannot take values of type t.
func (f function) accepts(name string, t dsdb.FieldType) error {
	if t == dsdb.String && !f.strings || t == dsdb.Boolean && !f.booleans {
		return invalid("unsupported %s iterator type: *query.%sInterruptIterator", name, t)
	}
	return nil
}
