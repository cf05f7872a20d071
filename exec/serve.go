package exec

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/wire"
	"github.com/dasudian/dsdb/planner"
)

// Serve answers a Remote until it closes its end, the connection is lost or ctx
// ends: it opens shards by open, lists series and runs morsels with the workers
// and within the bounds of o. What it has opened is released when it returns,
// and conn is closed. A request that is malformed or fails is answered with the
// error; Serve itself returns that of releasing shards. It is none if the
// connection is lost: whoever asks knows.
func Serve(ctx context.Context, conn Conn, open Open, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{conn: conn, open: open, o: o.withDefaults(), sources: make(map[dsdb.ShardID]Source)}
	unwatch := context.AfterFunc(ctx, func() { conn.Close() })
	defer unwatch()
	requests := make(chan request)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(requests)
		defer cancel() // whoever works for a peer that is gone stops
		receiveRequests(ctx, conn, requests)
	})
	for r := range requests {
		if ctx.Err() == nil && s.answer(r) != nil {
			cancel()
		}
		r.cancel()
	}
	reading.Wait()
	conn.Close()
	return s.close()
}

// request is a request on its way to be answered.
type request struct {
	kind   requestKind
	id     uint64
	err    error // it is malformed
	body   *wire.Reader
	ctx    context.Context // ends early if the request is stopped
	cancel context.CancelFunc
}

// receiveRequests hands on requests until there are no more.
func receiveRequests(ctx context.Context, conn Conn, out chan<- request) {
	var last request
	for {
		b, err := receive(conn)
		if err != nil {
			return
		}
		r := readRequest(b)
		switch {
		case r.err == nil && r.kind == endRequest:
			return
		case r.err == nil && r.kind == stopRequest:
			if r.id == last.id && last.cancel != nil {
				last.cancel()
			}
			continue
		}
		r.ctx, r.cancel = context.WithCancel(ctx)
		last = r
		select {
		case out <- r:
		case <-ctx.Done():
			r.cancel()
			return
		}
	}
}

func readRequest(b []byte) request {
	m := wire.NewReader(b)
	if v := m.Byte(); v != exchangeVersion {
		m.Fail("version %d, this is %d", v, exchangeVersion)
	}
	r := request{kind: requestKind(m.Byte()), id: m.Uint(math.MaxUint64), body: m}
	r.err = m.Err()
	return r
}

// server is the other side of a Remote: one query, as far as this node answers it.
type server struct {
	conn    Conn
	open    Open
	o       Options
	sources map[dsdb.ShardID]Source
	out     []byte
	q       *query  // its plan has come
	listing *served // the source at hand
}

// served is a source whose series have been listed.
type served struct {
	sourceRun
	base []int // the series of shard i are [base[i], base[i+1]) of the table
	agg  *aggregateOperator
	rows *rawOperator
}

// release gives the memory of the query back.
func (s *server) release() {
	if s.q != nil {
		s.q.budget.close()
	}
}

func (s *server) close() error {
	s.release()
	var first error
	for _, src := range s.sources {
		if err := src.Close(); first == nil {
			first = err
		}
	}
	return first
}

// answer answers a request; it returns an error if that cannot be sent.
func (s *server) answer(r request) error {
	err := r.err
	if err == nil {
		err = s.carryOut(r)
	}
	var lost *sendError
	if errors.As(err, &lost) {
		return lost.err
	}
	if err != nil {
		return send(s.conn, appendError(s.begin(errorAnswer), err))
	}
	var c Counters
	if s.q != nil {
		c, s.q.counters = s.q.counters, Counters{}
	}
	return send(s.conn, c.append(s.begin(doneAnswer)))
}

func (s *server) carryOut(r request) error {
	switch r.kind {
	case openRequest:
		return s.openShards(r.ctx, r.body)
	case measurementsRequest:
		return s.measurements(r.ctx, r.body)
	case tagKeysRequest:
		return s.tagKeys(r.ctx, r.body)
	case seriesRequest:
		return s.series(r.ctx, r.body)
	case listRequest:
		return s.list(r.ctx, r.body)
	case aggregateRequest:
		return s.aggregate(r.ctx, r.body)
	case rowsRequest:
		return s.gather(r.ctx, r.body)
	}
	return dsdb.Errorf(dsdb.KindInvalid, "message malformed: request %d", r.kind)
}

// begin begins an answer in memory that is used again and again.
func (s *server) begin(k answerKind) []byte { return append(s.out[:0], 0, byte(k)) }

// sendError is why nothing can be sent any more.
type sendError struct{ err error }

func (e *sendError) Error() string { return e.err.Error() }

// item sends one item of an answer, which begin has begun.
func (s *server) item(b []byte) error {
	if cap(b) > cap(s.out) && cap(b) <= maxPiece {
		s.out = b
	}
	if err := send(s.conn, b); err != nil {
		return &sendError{err}
	}
	return nil
}

// source returns a shard, which it opens if need be.
func (s *server) source(ctx context.Context, id dsdb.ShardID) (Source, error) {
	if src, ok := s.sources[id]; ok {
		return src, nil
	}
	src, err := s.open(ctx, id)
	if err == nil {
		s.sources[id] = src
	}
	return src, err
}

// openAll opens those of the shards that are not open; it returns why some are not.
func (s *server) openAll(ctx context.Context, ids []dsdb.ShardID) map[dsdb.ShardID]error {
	closed := slices.DeleteFunc(slices.Clone(ids), func(id dsdb.ShardID) bool { return s.sources[id] != nil })
	return openAll(ctx, s.open, closed, s.sources)
}

func readShards(r *wire.Reader) []dsdb.ShardID {
	ids := make([]dsdb.ShardID, r.Count(1))
	for i := range ids {
		ids[i] = dsdb.ShardID(r.Uint(math.MaxUint64))
	}
	return ids
}

func (s *server) openShards(ctx context.Context, r *wire.Reader) error {
	ids := readShards(r)
	if err := r.End(); err != nil {
		return err
	}
	errs := s.openAll(ctx, ids)
	for _, id := range ids {
		b := s.begin(itemAnswer)
		if err := errs[id]; err != nil {
			b = appendError(wire.AppendBool(b, true), err)
		} else {
			b = wire.AppendBool(b, false)
		}
		if err := s.item(b); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) measurements(ctx context.Context, r *wire.Reader) error {
	return s.names(ctx, r, func(src Source) ([]string, error) { return src.Measurements(ctx) })
}

func (s *server) tagKeys(ctx context.Context, r *wire.Reader) error {
	measurement := r.String()
	return s.names(ctx, r, func(src Source) ([]string, error) { return src.TagKeys(ctx, measurement) })
}

// names answers with what some shards say, merged; one that is gone says nothing.
func (s *server) names(ctx context.Context, r *wire.Reader, ask func(Source) ([]string, error)) error {
	ids := readShards(r)
	if err := r.End(); err != nil {
		return err
	}
	failed := s.openAll(ctx, ids)
	var sources []Source
	for _, id := range ids {
		if err := failed[id]; err == nil {
			sources = append(sources, s.sources[id])
		} else if dsdb.KindOf(err) != dsdb.KindNotFound {
			return err
		}
	}
	all, err := names(ctx, sources, 0, nil, ask)
	if err != nil {
		return err
	}
	return s.item(wire.AppendStrings(s.begin(itemAnswer), all))
}

func (s *server) series(ctx context.Context, r *wire.Reader) error {
	id, measurement := dsdb.ShardID(r.Uint(math.MaxUint64)), r.String()
	where, err := planner.DecodeTagExpr(r)
	keys := r.Strings()
	if err = errors.Join(err, r.End()); err != nil {
		return r.Err()
	}
	src, err := s.source(ctx, id)
	if err != nil {
		return err
	}
	set, err := src.Series(ctx, measurement, where, keys)
	if err != nil {
		return err
	}
	return s.item(appendSet(s.begin(itemAnswer), set))
}

// list lists the series of a source, shard by shard, and keeps them for what is asked next.
func (s *server) list(ctx context.Context, r *wire.Reader) error {
	if r.Bool() {
		if err := s.plan(r); err != nil {
			return err
		}
	}
	if s.q == nil {
		r.Fail("no plan")
	}
	l := &served{sourceRun: sourceRun{q: s.q, name: r.String()}}
	keys := r.Strings()
	for range r.Count(3) {
		id := dsdb.ShardID(r.Uint(math.MaxUint64))
		l.shards = append(l.shards, openShard{id: id, rng: dsdb.TimeRange{Start: r.Int(), End: r.Int()}})
	}
	if len(l.shards) > math.MaxUint16 {
		r.Fail("%d shards", len(l.shards))
	}
	s.checkKeys(r, keys)
	if err := r.End(); err != nil {
		return err
	}
	sets := make([]*column.SeriesSet, len(l.shards))
	for i := range l.shards {
		src, err := s.source(ctx, l.shards[i].id)
		if err != nil {
			return err
		}
		l.shards[i].src = src
		if sets[i], err = src.Series(ctx, l.name, s.q.p.Tags, keys); err != nil {
			return err
		}
		if err := s.item(appendSet(s.begin(itemAnswer), sets[i])); err != nil {
			return err
		}
		l.base = append(l.base, 0)
	}
	l.base = append(l.base, 0)
	for i, set := range sets {
		l.base[i+1] = l.base[i] + len(set.IDs)
	}
	l.table = newSeriesTable(keys, sets)
	l.table.bindConditions(s.q)
	s.listing = l
	return nil
}

// plan takes the plan of the query.
func (s *server) plan(r *wire.Reader) error {
	p, err := planner.DecodeFragment(r)
	if err != nil {
		return err
	}
	s.release()
	s.q = &query{p: p, o: s.o}
	s.q.budget.limit, s.q.budget.shared = s.o.MemoryLimit, s.o.Memory
	return nil
}

// checkKeys refuses a list of keys without a tag that the plan names.
func (s *server) checkKeys(r *wire.Reader, keys []string) {
	if s.q == nil {
		return
	}
	for _, ref := range s.q.p.Refs {
		if ref.Tag && !slices.Contains(keys, ref.Name) {
			r.Fail("tag %q is not listed", ref.Name)
		}
	}
}
