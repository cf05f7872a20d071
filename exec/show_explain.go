package exec

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/dasudian/dsdb/planner"
)

// Explain answers EXPLAIN with the lines of the plan (column QUERY PLAN), and
// EXPLAIN ANALYZE by running the query and telling what it read and where the
// time went (column EXPLAIN ANALYZE).
func Explain(ctx context.Context, p *planner.Explain, open Open, o Options) (Result, error) {
	name, lines := "QUERY PLAN", strings.Split(strings.TrimSuffix(p.Select.String(), "\n"), "\n")
	if p.Analyze {
		a, err := Analyze(ctx, p.Select, open, o)
		if err != nil {
			return nil, err
		}
		name, lines = "EXPLAIN ANALYZE", append(lines, a.lines()...)
	}
	var t showTable
	t.addStrings(name, lines)
	return newShowResult(planner.Page{}, []showTable{t}), nil
}

// lines prints the measurements as EXPLAIN ANALYZE shows them.
func (a *Analysis) lines() []string {
	out := []string{
		fmt.Sprintf("total_time: %v", a.Total.Round(time.Microsecond)),
		fmt.Sprintf("series: %d", a.Series),
		fmt.Sprintf("tiles: %d (skipped %d, answered by statistics %d, decoded %d)", a.Tiles, a.TilesSkipped, a.TilesByStats, a.TilesDecoded),
		fmt.Sprintf("rows_read: %d", a.Rows),
		fmt.Sprintf("bytes_decoded: %d", a.Bytes),
		fmt.Sprintf("peak_memory: %d", a.PeakMemory),
	}
	if len(a.Remote) > 0 {
		out = append(out, fmt.Sprintf("remote: shards %s; %d fragments, %d bytes received",
			strings.Trim(fmt.Sprint(a.Remote), "[]"), a.Fragments, a.Exchanged))
	}
	out = append(out, fmt.Sprintf("result: %d rows in %d series", a.ResultRows, a.ResultSeries))
	for _, s := range a.Stages {
		out = append(out, fmt.Sprintf("%s_time: %v", strings.ReplaceAll(s.Name, " ", "_"), s.Spent.Round(time.Microsecond)))
	}
	return out
}
