package planner

import (
	"time"

	"github.com/dasudian/dsdb"
	"github.com/influxdata/influxql"
)

// bounds is the time range that a condition asks for; an open side is at AllTime's edge.
type bounds struct {
	dsdb.TimeRange
	lower, upper bool // bounded by the condition
}

// cutTime splits a condition into its time range and the rest (nil: nothing
// left), with now() and other constants evaluated. Time comparisons are
// intersected wherever they stand, also under OR, as InfluxDB does.
func cutTime(cond influxql.Expr, now int64, loc *time.Location) (influxql.Expr, bounds, error) {
	valuer := &influxql.NowValuer{Now: time.Unix(0, now).UTC(), Location: loc}
	rest, tr, err := influxql.ConditionExpr(cond, valuer)
	if err != nil {
		return nil, bounds{}, invalid("%s", err)
	}
	b := bounds{TimeRange: dsdb.AllTime, lower: !tr.Min.IsZero(), upper: !tr.Max.IsZero()}
	if b.lower {
		b.Start = clampNanos(tr.Min)
	}
	if b.upper {
		b.End = clampNanos(tr.Max) + 1
	}
	return rest, b, nil
}

// clampNanos is t in nanoseconds, no less than MinTime and no more than MaxTime.
func clampNanos(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, dsdb.MinTime)):
		return dsdb.MinTime
	case t.After(time.Unix(0, dsdb.MaxTime)):
		return dsdb.MaxTime
	}
	return t.UnixNano()
}
