package planner

import (
	"sort"
	"strings"
	"time"

	"github.com/influxdata/influxql"
)

// groupByTime validates the GROUP BY clause and returns its interval. The
// dimensions are left reduced (constants evaluated) in place.
func groupByTime(dims influxql.Dimensions, now int64, loc *time.Location) (Interval, error) {
	var iv Interval
	for _, d := range dims {
		d.Expr = influxql.Reduce(d.Expr, nil)
		switch e := d.Expr.(type) {
		case *influxql.VarRef:
			if strings.EqualFold(e.Val, "time") {
				return iv, invalid("time() is a function and expects at least one argument")
			}
		case *influxql.Wildcard, *influxql.RegexLiteral:
		case *influxql.Call:
			if e.Name != "time" {
				return iv, invalid("only time() calls allowed in dimensions")
			}
			if iv.Every != 0 {
				return iv, invalid("multiple time dimensions not allowed")
			}
			var err error
			if iv, err = timeDimension(e, now, loc); err != nil {
				return iv, err
			}
		default:
			return iv, invalid("only time and tag dimensions allowed")
		}
	}
	return iv, nil
}

func timeDimension(e *influxql.Call, now int64, loc *time.Location) (Interval, error) {
	if n := len(e.Args); n < 1 || n > 2 {
		return Interval{}, invalid("time dimension expected 1 or 2 arguments")
	}
	lit, ok := e.Args[0].(*influxql.DurationLiteral)
	if !ok {
		return Interval{}, invalid("time dimension must have duration argument")
	}
	if lit.Val < 0 || lit.Val == 0 && len(e.Args) == 2 {
		return Interval{}, invalid("time dimension must have a positive duration")
	}
	iv := Interval{Every: int64(lit.Val)}
	if len(e.Args) == 2 {
		offset, err := timeOffset(e.Args[1], lit.Val, now, loc)
		if err != nil {
			return Interval{}, err
		}
		iv.Offset = int64(offset)
	}
	return iv, nil
}

// timeOffset evaluates the second argument of time(). A moment counts as its
// distance from the last multiple of every since the year 1 (Go's Truncate, as InfluxDB).
func timeOffset(e influxql.Expr, every time.Duration, now int64, loc *time.Location) (time.Duration, error) {
	since := func(t time.Time) time.Duration { return t.Sub(t.Truncate(every)) }
	switch e := e.(type) {
	case *influxql.DurationLiteral:
		return e.Val % every, nil
	case *influxql.TimeLiteral:
		return since(e.Val), nil
	case *influxql.Call:
		if e.Name != "now" {
			return 0, invalid("time dimension offset function must be now()")
		}
		if len(e.Args) != 0 {
			return 0, invalid("time dimension offset now() function requires no arguments")
		}
		return since(time.Unix(0, now).UTC()), nil
	case *influxql.StringLiteral:
		if e.IsTimeLiteral() {
			t, err := e.ToTimeLiteral(loc)
			if err != nil {
				return 0, invalid("%s", err)
			}
			return since(t.Val), nil
		}
	}
	return 0, invalid("time dimension offset must be duration or now()")
}

// groupByTags returns the tag keys of expanded dimensions, sorted, without duplicates.
func groupByTags(dims influxql.Dimensions) []string {
	seen := make(map[string]bool)
	var keys []string
	for _, d := range dims {
		if ref, ok := d.Expr.(*influxql.VarRef); ok && !seen[ref.Val] {
			seen[ref.Val] = true
			keys = append(keys, ref.Val)
		}
	}
	sort.Strings(keys)
	return keys
}

// fillOf turns the fill() clause into ours.
func fillOf(stmt *influxql.SelectStatement) Fill {
	switch stmt.Fill {
	case influxql.NoFill:
		return Fill{Kind: FillNone}
	case influxql.PreviousFill:
		return Fill{Kind: FillPrevious}
	case influxql.LinearFill:
		return Fill{Kind: FillLinear}
	case influxql.NumberFill:
		switch v := stmt.FillValue.(type) {
		case float64:
			return Fill{Kind: FillNumber, Number: v}
		case int64:
			return Fill{Kind: FillNumber, Number: float64(v)}
		case uint64:
			return Fill{Kind: FillNumber, Number: float64(v)}
		}
	}
	return Fill{Kind: FillNull}
}
