// Package exec executes a planner.Select over the Sources of shards and yields
// the answer as column.Frames. It owns the vectorized operators: scan, filter,
// group by tags and time, aggregate, merge, fill, order, limit, project. It
// knows neither files nor the network nor the query language's syntax.
//
// A query runs source by source (a source is one measurement). For a source
// the series of all shards are listed once, sorted by the values of their tags
// and cut into groups: a group is one series of the output (seriesTable). Then
// groups are answered in output order, a batch at a time:
//
//	batch of groups → morsels (one shard, at most 64 series each) on Workers goroutines
//	  morsel: Source.Scan → tile → condition (selection mask) → aggregate or gather
//	          a tile is decoded only if its statistics do not answer
//	  → partial per morsel: dense cells [group][window], or rows as columns
//	→ merge: morsels of a shard in their order, then shards in theirs
//	→ finish aggregates → fill → limit → project → Frame
//
// What a morsel returns (partial, rowBuffer) is a plain columnar value. Shards of
// other nodes (Remote) run their morsels there (Serve), and send the partial of a
// shard, or the rows of a morsel, as Arrow records (FORMAT.md): a round trip per
// node and batch. Since the order of merging depends on neither scheduling nor
// place, nor does the answer, to the last bit. Nothing is computed row by row,
// there is no map per row or per window, and no batch may outgrow the budget.
//
// Rules of InfluxDB 1.8 that look odd and are kept: ORDER BY time DESC also
// reverses the order of the series; at equal times first() and last() take the
// greater value, min() and max() the earlier point; a window's fill starts, if
// the query has no lower time bound, at the first point of that aggregate in
// that group; x / 0 is 0. Kept otherwise: LIMIT counts the rows of a series
// (InfluxDB limits each aggregate of a row on its own), the sum behind the mean
// of integers does not wrap, and rows of one time come in the order of their
// series (there it is left to chance). Without an aggregate fill(previous) is
// not applied.
package exec

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// Options bound the work of one query. The zero value is usable.
type Options struct {
	Workers     int     // goroutines at once; 0: GOMAXPROCS
	MemoryLimit int64   // bytes that a query may hold; 0: 256 MiB
	Memory      *Memory // that all queries share; nil: no bound on them together
	ChunkRows   int     // rows of a Frame at most; 0: 10000
	MaxBuckets  int     // windows of GROUP BY time at most; 0: no limit
	MaxSeries   int     // series of a source at most; 0: no limit
	MaxPoints   int     // rows read at most; 0: no limit
}

const (
	defaultMemory = 256 << 20
	defaultChunk  = 10000
)

func (o Options) withDefaults() Options {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.MemoryLimit <= 0 {
		o.MemoryLimit = defaultMemory
	}
	if o.ChunkRows <= 0 {
		o.ChunkRows = defaultChunk
	}
	return o
}

// query is one running statement.
type query struct {
	p        *planner.Select
	o        Options
	open     Open
	budget   budget
	counters Counters
	shards   map[dsdb.ShardID]Source // opened so far; closed with the query
	timing   *timing                 // nil unless analyzed
}

// operator yields the frames of one source.
type operator interface {
	Next(ctx context.Context) (*column.Frame, error)
}

// Run starts a plan. The work happens in the calls to Next of the result, on
// the caller's goroutine and on workers that have ended when Next returns; no
// goroutine outlives a call. open is asked once per shard that the plan names;
// a shard it no longer has (KindNotFound) has no rows.
func Run(ctx context.Context, p *planner.Select, open Open, o Options) (Result, error) {
	q, err := start(ctx, p, open, o)
	if err != nil {
		return nil, err
	}
	return &result{q: q}, nil
}

func start(ctx context.Context, p *planner.Select, open Open, o Options) (*query, error) {
	if err := ctx.Err(); err != nil {
		return nil, canceled(err)
	}
	o = o.withDefaults()
	q := &query{p: p, o: o, open: open, shards: make(map[dsdb.ShardID]Source)}
	q.budget.limit, q.budget.shared = o.MemoryLimit, o.Memory
	return q, q.checkBuckets()
}

// result yields the frames of all sources, one source after the other.
type result struct {
	q      *query
	source int
	op     operator
	done   bool
}

func (r *result) Next(ctx context.Context) (*column.Frame, error) {
	for !r.done {
		if err := ctx.Err(); err != nil {
			return nil, canceled(err)
		}
		if r.op == nil {
			if r.source == len(r.q.p.Sources) {
				break
			}
			op, err := r.q.source(ctx, &r.q.p.Sources[r.source])
			if err != nil {
				return nil, err
			}
			r.source++
			r.op = op
		}
		f, err := r.op.Next(ctx)
		if f != nil || err != nil {
			return f, err
		}
		r.op = nil
	}
	return nil, r.Close()
}

// Close releases the shards and adds what the query did to the process's totals.
func (r *result) Close() error {
	if r.done {
		return nil
	}
	r.done, r.op = true, nil
	r.q.budget.close()
	totals.add(&r.q.counters)
	var first error
	for _, s := range r.q.shards {
		if err := s.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// source prepares one source: it opens its shards and lists its series.
func (q *query) source(ctx context.Context, s *planner.Source) (operator, error) {
	began := time.Now()
	defer q.timing.add("list series", began)
	run := sourceRun{q: q, name: s.Measurement}
	var err error
	if run.shards, err = q.openShards(ctx, s); err != nil {
		return nil, err
	}
	if run.table, err = run.listSeries(ctx); err != nil {
		return nil, err
	}
	n := len(run.table.id)
	q.counters.Series += int64(n)
	if q.o.MaxSeries > 0 && n > q.o.MaxSeries {
		return nil, dsdb.Errorf(dsdb.KindTooLarge, "max-select-series limit exceeded: (%d/%d)", n, q.o.MaxSeries)
	}
	if len(q.p.Calls) == 0 {
		return newRawOperator(run).start(), nil
	}
	return startAggregate(run)
}

// sourceRun is a source being answered: what its operator works on.
type sourceRun struct {
	q      *query
	name   string // the measurement
	shards []openShard
	table  *seriesTable
	fields fieldMap      // what is scanned
	types  []storedTypes // per shard
}

// scanFields sets the fields that are scanned.
func (s *sourceRun) scanFields(needed []bool) {
	s.fields = newFieldMap(s.q.p.Refs, needed)
	for range s.shards {
		s.types = append(s.types, make(storedTypes, len(s.fields.names)))
	}
}

// openShard is a shard of the source that runs.
type openShard struct {
	id     dsdb.ShardID
	src    Source
	remote *Remote        // where it lies, nil: on this node
	rng    dsdb.TimeRange // rows asked of it: the shard's time group within the plan's range
}

// openShards opens the shards of a source that hold times which count, those
// not opened yet for another source at once. A shard that is gone has no rows.
func (q *query) openShards(ctx context.Context, s *planner.Source) ([]openShard, error) {
	var out []openShard
	var open []dsdb.ShardID
	least := q.leastTime()
	for _, sh := range s.Shards {
		rng := sh.Range.Intersect(q.p.Range)
		if rng.Empty() || sh.Range.End <= least {
			continue
		}
		if _, ok := q.shards[sh.ID]; !ok {
			open = append(open, sh.ID)
		}
		out = append(out, openShard{id: sh.ID, rng: rng})
	}
	failed := openAll(ctx, q.open, open, q.shards)
	kept := out[:0]
	for _, sh := range out {
		src, ok := q.shards[sh.id]
		if ok {
			sh.src, sh.remote = src, remoteOf(src)
			kept = append(kept, sh)
		} else if err := failed[sh.id]; dsdb.KindOf(err) != dsdb.KindNotFound {
			return nil, err
		}
	}
	return q.openRemote(ctx, kept)
}

// maxOpening is the number of shards that are opened at a time: opening one may
// mean to ask its replicas.
const maxOpening = 16

// openAll opens shards into known, some at a time. It returns those that are not open, and why.
func openAll(ctx context.Context, open Open, ids []dsdb.ShardID, known map[dsdb.ShardID]Source) map[dsdb.ShardID]error {
	sources, errs := make([]Source, len(ids)), make([]error, len(ids))
	one := func(i int) { sources[i], errs[i] = open(ctx, ids[i]) }
	if len(ids) == 1 {
		one(0)
	} else {
		var wg sync.WaitGroup
		var next atomic.Int64
		for range min(len(ids), maxOpening) {
			wg.Go(func() {
				for i := int(next.Add(1)) - 1; i < len(ids); i = int(next.Add(1)) - 1 {
					one(i)
				}
			})
		}
		wg.Wait()
	}
	var failed map[dsdb.ShardID]error
	for i, id := range ids {
		if errs[i] == nil && known[id] != nil { // it was named twice
			errs[i] = sources[i].Close()
		}
		switch {
		case errs[i] != nil:
			if failed == nil {
				failed = make(map[dsdb.ShardID]error)
			}
			failed[id] = errs[i]
		case known[id] == nil:
			known[id] = sources[i]
		}
	}
	return failed
}

// leastTime is the time before whose window no shard is read: if MaxBuckets is
// set and the query has no lower bound, only the last MaxBuckets windows are.
func (q *query) leastTime() int64 {
	p := q.p
	if q.o.MaxBuckets <= 0 || p.Interval.Every == 0 || p.Range.Start > dsdb.MinTime || p.Range.End > dsdb.MaxTime {
		return dsdb.MinTime
	}
	last := windowStart(p.Range.End-1, p.Interval, p.Location)
	span := int64(q.o.MaxBuckets - 1)
	if uint64(last-dsdb.MinTime)/uint64(p.Interval.Every) < uint64(span) {
		return dsdb.MinTime
	}
	return last - span*p.Interval.Every
}

func (q *query) checkBuckets() error {
	p := q.p
	if q.o.MaxBuckets <= 0 || p.Interval.Every == 0 || p.Range.Start <= dsdb.MinTime || p.Range.Empty() {
		return nil
	}
	first := windowStart(p.Range.Start, p.Interval, p.Location)
	last := windowStart(p.Range.End-1, p.Interval, p.Location)
	if n := uint64(last-first)/uint64(p.Interval.Every) + 1; n > uint64(q.o.MaxBuckets) {
		return dsdb.Errorf(dsdb.KindTooLarge, "max-select-buckets limit exceeded: (%d/%d)", n, q.o.MaxBuckets)
	}
	return nil
}

func canceled(err error) error {
	if err == context.DeadlineExceeded {
		return dsdb.Errorf(dsdb.KindTimeout, "query timeout reached: %w", err)
	}
	return dsdb.Errorf(dsdb.KindCanceled, "query interrupted: %w", err)
}
