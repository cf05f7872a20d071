package exec

import (
	"context"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/planner"
)

// Analysis is what EXPLAIN ANALYZE tells: what was read and where the time went.
type Analysis struct {
	Counters
	Remote []dsdb.ShardID // shards that other nodes answered, ascending
	Total  time.Duration
	Stages []Stage
}

// Stage is the time that one stage of a query took, over all of its calls. The
// stages of the goroutine that asks for frames follow one another; what lies
// between them is the cutting of frames.
type Stage struct {
	Name  string
	Spent time.Duration
}

// Analyze runs a plan to its end, drops the rows and returns the measurements.
func Analyze(ctx context.Context, p *planner.Select, open Open, o Options) (*Analysis, error) {
	began := time.Now()
	q, err := start(ctx, p, open, o)
	if err != nil {
		return nil, err
	}
	q.timing = &timing{}
	r := &result{q: q}
	defer r.Close()
	for {
		f, err := r.Next(ctx)
		if err != nil {
			return nil, err
		}
		if f == nil {
			break
		}
	}
	a := &Analysis{Counters: q.counters, Total: time.Since(began)}
	for id, s := range q.shards {
		if remoteOf(s) != nil {
			a.Remote = append(a.Remote, id)
		}
	}
	slices.Sort(a.Remote)
	a.PeakMemory = q.budget.peak.Load()
	for i, n := range q.timing.names {
		a.Stages = append(a.Stages, Stage{n, q.timing.spent[i]})
	}
	return a, nil
}
