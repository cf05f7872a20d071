package exec

import (
	"context"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// rawWorker is what one goroutine needs to gather rows.
type rawWorker struct {
	op     *rawOperator
	r      *tileReader
	filter *filter
	ids    []dsdb.SeriesID
	again  []member // series to scan once more without NeedRows
	mask   mask
	rows   []int32
}

func newRawWorker(op *rawOperator) *rawWorker {
	w := &rawWorker{op: op, r: newTileReader(op.q.p.Refs, op.fields)}
	w.filter = newFilter(w.r)
	return w
}

// run scans a morsel into b. With LIMIT the shard is told how many rows are
// wanted; a series of which those were not enough, because rows without a
// selected field do not count, is scanned again in full.
func (w *rawWorker) run(ctx context.Context, g *gathering, m *morsel, b *rowBuffer) error {
	need, told := w.op.need(), 0
	if need > 0 && !slices.ContainsFunc(m.series, func(s member) bool { return w.op.table.conds[w.op.table.cond[s.series]] != nil }) {
		told = need
	}
	w.again = w.again[:0]
	if err := w.pass(ctx, g, m, b, told); err != nil {
		return err
	}
	if len(w.again) == 0 {
		return nil
	}
	rest := *m
	rest.series = slices.Clone(w.again)
	return w.pass(ctx, g, &rest, b, 0)
}

// pass scans the series of m once.
func (w *rawWorker) pass(ctx context.Context, g *gathering, m *morsel, b *rowBuffer, told int) error {
	w.ids = w.ids[:0]
	for _, s := range m.series {
		w.ids = append(w.ids, w.op.table.id[s.series])
	}
	w.r.types = w.op.types[m.shard]
	cur, err := w.op.shards[m.shard].src.Scan(ctx, dsdb.Scan{Measurement: w.op.name, Series: w.ids,
		Fields: w.op.fields.names, Range: m.rng, Descending: w.op.q.p.Descending, NeedRows: told})
	if err != nil {
		return err
	}
	defer cur.Close()
	s := rowScan{w: w, m: m, b: b, told: told, need: w.op.need(), at: -1}
	bytes := b.bytes()
	for n := 1; ; n++ {
		t, err := cur.Next()
		if err != nil {
			return err
		}
		if t == nil || n%checkTiles == 0 {
			now := b.bytes()
			if err := g.grow(now - bytes); err != nil {
				return err
			}
			bytes = now
			if err := ctx.Err(); err != nil {
				return canceled(err)
			}
		}
		if t == nil {
			s.endSeries()
			return nil
		}
		if err := s.tile(t); err != nil {
			return err
		}
	}
}

// rowScan is the state of one pass.
type rowScan struct {
	w    *rawWorker
	m    *morsel
	b    *rowBuffer
	told int // NeedRows
	need int // rows per series, 0: all
	at   int // current series in m
	from int // its first row in b
	seen int // rows of it that the cursor yielded
}

// endSeries closes the segment of the current series.
func (s *rowScan) endSeries() {
	if s.at < 0 {
		return
	}
	got := len(s.b.times) - s.from
	if s.told > 0 && s.seen >= s.told && got < s.need {
		s.w.again = append(s.w.again, s.m.series[s.at])
		s.b.truncate(s.from)
		return
	}
	if s.at == 0 && len(s.m.series) > 1 {
		s.b.reserve(min(got*(len(s.m.series)+len(s.m.series)/4), reserveRows))
	}
	if got > 0 {
		s.b.segments = append(s.b.segments, segment{series: int(s.m.series[s.at].series), from: s.from, to: len(s.b.times)})
	}
}

// reserveRows bounds what a buffer sets aside in advance.
const reserveRows = 64 << 10

// reserve makes room for n rows in all, as the first series of a morsel lets expect.
func (b *rowBuffer) reserve(n int) {
	if n <= len(b.times) {
		return
	}
	b.times = extend(b.times, n-len(b.times))[:len(b.times)]
	if len(b.series) > 0 {
		b.series = extend(b.series, n-len(b.series))[:len(b.series)]
	}
	for i := range b.cols {
		switch c := &b.cols[i]; c.Type {
		case dsdb.Float:
			c.Floats = extend(c.Floats, n-len(c.Floats))[:len(c.Floats)]
		case dsdb.String:
		default:
			c.Ints = extend(c.Ints, n-len(c.Ints))[:len(c.Ints)]
		}
	}
}

// truncate drops the rows from n on.
func (b *rowBuffer) truncate(n int) {
	b.times = b.times[:n]
	b.series = b.series[:min(n, len(b.series))]
	for i := range b.cols {
		for b.cols[i].N > n {
			b.cols[i].dropLast()
		}
	}
}

func (s *rowScan) tile(t *column.Tile) error {
	if s.at < 0 || t.Series != s.w.ids[s.at] {
		s.endSeries()
		for s.at++; t.Series != s.w.ids[s.at]; s.at++ {
		}
		s.from, s.seen = len(s.b.times), 0
	}
	s.seen += t.Rows
	r := s.w.r
	r.reset(t)
	left := t.Rows
	if s.need > 0 {
		left = s.need - (len(s.b.times) - s.from)
	}
	if left <= 0 || t.First >= s.m.rng.End || t.Last < s.m.rng.Start {
		r.done(false)
		return nil
	}
	err := s.take(t, left)
	r.done(false)
	return err
}

// take appends the rows of a tile that the range, the condition and the
// selected fields let through, at most left of them.
func (s *rowScan) take(t *column.Tile, left int) error {
	w, op := s.w, s.w.op
	series := s.m.series[s.at].series
	m := &w.mask
	m.fill(t.Rows)
	if c := op.table.conds[op.table.cond[series]]; c != nil {
		v, err := w.filter.eval(c, m)
		if err != nil || v == noRow {
			return err
		}
		if v == everyRow {
			m.fill(t.Rows)
		}
	}
	times, err := w.r.times()
	if err != nil {
		return err
	}
	if t.First < s.m.rng.Start || t.Last >= s.m.rng.End {
		lo, _ := slices.BinarySearch(times, s.m.rng.Start)
		hi, _ := slices.BinarySearch(times, s.m.rng.End)
		m.clip(lo, hi)
	}
	if m.count() == 0 {
		return nil
	}
	if err := w.keepRows(m); err != nil {
		return err
	}
	w.rows = m.appendRows(w.rows[:0])
	if op.q.p.Descending {
		slices.Reverse(w.rows)
	}
	w.rows = w.rows[:min(left, len(w.rows))]
	if len(w.rows) == 0 {
		return nil
	}
	s.b.times = gather(s.b.times, times, w.rows)
	if op.tagged {
		for range w.rows {
			s.b.series = append(s.b.series, uint32(series))
		}
	}
	for i, ref := range op.refs {
		v, err := w.r.column(ref)
		if err != nil {
			return err
		}
		s.b.cols[i].appendColumn(v, w.rows)
	}
	return nil
}

// keepRows clears the rows in which every selected field is null.
func (w *rawWorker) keepRows(m *mask) error {
	var some mask
	for _, ref := range w.op.refs {
		v, err := w.r.column(ref)
		if err != nil {
			return err
		}
		switch {
		case v.Type == dsdb.NoType:
		case v.Valid == nil:
			return nil
		default:
			for i := range words(v.N) {
				some[i] |= v.Valid[i]
			}
		}
	}
	for i := range m {
		m[i] &= some[i]
	}
	return nil
}
