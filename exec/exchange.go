package exec

import (
	"math"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/wire"
)

// What nodes exchange is the columns of states and row buffers as Arrow records.
// columns appends pointers to the slices that make a state up, in an order that
// only the plan decides; those of one state are of one length.

func (s *countState) columns(dst []any) []any     { return append(dst, &s.N) }
func (s *sumState[T]) columns(dst []any) []any    { return append(dst, &s.N, &s.Sum) }
func (s *intMeanState) columns(dst []any) []any   { return append(dst, &s.N, &s.Sum) }
func (s *spreadState[T]) columns(dst []any) []any { return append(dst, &s.N, &s.Low, &s.High) }

func (s *extremeState[T]) columns(dst []any) []any {
	dst = append(dst, &s.N, &s.Value)
	if s.Time != nil {
		dst = append(dst, &s.Time)
	}
	return s.also.columns(dst)
}

func (s *edgeState[T]) columns(dst []any) []any {
	return s.also.columns(append(dst, &s.N, &s.Value, &s.Time))
}

func (s *listState[T]) columns(dst []any) []any {
	dst = append(dst, &s.Cell, &s.Value)
	if s.timed() {
		dst = append(dst, &s.Time)
	}
	return s.also.columns(dst)
}

func (c *companions) columns(dst []any) []any {
	if c == nil {
		return dst
	}
	for j := range c.cols {
		dst = append(dst, &c.cols[j].Valid)
		if c.refs[j].Type == dsdb.String {
			dst = append(dst, &c.cols[j].Strs)
		} else {
			dst = append(dst, &c.cols[j].Bits)
		}
	}
	return dst
}

// valueList is a state that keeps values, not cells.
type valueList interface {
	// check reports whether every value belongs to one of cells.
	check(cells int) bool
}

func (s *listState[T]) check(cells int) bool {
	s.text = 0
	for i, c := range s.Cell {
		if int(c) >= cells {
			return false
		}
		if v, ok := any(s.Value[i]).(string); ok {
			s.text += int64(len(v))
		}
	}
	return true
}

// records are the columns of a partial, record by record: those of all states
// with cells in one, those of each state that keeps values in one of its own.
func (p *partial) records() [][]any {
	out := [][]any{nil}
	for _, s := range p.states {
		if _, ok := s.(valueList); ok {
			out = append(out, s.columns(nil))
		} else {
			out[0] = s.columns(out[0])
		}
	}
	return out
}

// appendPartial appends a partial that is not finished.
func appendPartial(dst []byte, p *partial) ([]byte, error) {
	var err error
	for _, cols := range p.records() {
		if len(cols) == 0 {
			continue
		}
		if dst, err = appendRecord(dst, cols); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// decodePartial reads the partial of a fragment whose groups are numbers.
func (a *aggregateOperator) decodePartial(b []byte, f *fragment, numbers []int32) (*partial, error) {
	p := &partial{groups: len(numbers), numbers: numbers, win: f.win, wins: f.wins}
	for _, c := range a.q.p.Calls {
		p.states = append(p.states, newState(a.q, c, 0, a.needTime(), a.refs))
	}
	cells := p.groups * p.wins
	r := wire.NewReader(b)
	for i, cols := range p.records() {
		if len(cols) == 0 {
			continue
		}
		n, err := readRecord(r, cols)
		if err != nil {
			return nil, err
		}
		if i == 0 && n != cells {
			r.Fail("%d cells, not %d", n, cells)
		}
	}
	for _, s := range p.states {
		if l, ok := s.(valueList); ok && !l.check(cells) {
			r.Fail("a value of a cell beyond %d", cells)
		}
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	return p, p.account(&a.q.budget)
}

// appendRows appends a row buffer; place tells the place of a series in the request.
func appendRows(dst []byte, b *rowBuffer, place func(series int) int) ([]byte, error) {
	dst = wire.AppendUint(dst, uint64(len(b.segments)))
	for _, s := range b.segments {
		dst = wire.AppendUint(dst, uint64(place(s.series)))
		dst = wire.AppendUint(dst, uint64(s.to-s.from))
	}
	if len(b.segments) == 0 {
		return dst, nil
	}
	cols := []any{&b.times}
	for i := range b.cols {
		v := b.cols[i].view()
		cols = append(cols, &v)
	}
	return appendRecord(dst, cols)
}

// decodeRows reads a row buffer of series that members names.
func (r *rawOperator) decodeRows(m *wire.Reader, members []member) (*rowBuffer, error) {
	b := &rowBuffer{cols: make([]builder, len(r.colTypes))}
	rows := 0
	for range m.Count(2) {
		place, n := m.Size(len(members)-1), m.Size(math.MaxInt32)
		if m.Err() != nil {
			return nil, m.Err()
		}
		b.segments = append(b.segments, segment{series: int(members[place].series), from: rows, to: rows + n})
		rows += n
	}
	if len(b.segments) == 0 {
		return b, m.End()
	}
	cols := []any{&b.times}
	for i, t := range r.colTypes {
		b.cols[i].Type = t
		cols = append(cols, &b.cols[i].Vector)
	}
	n, err := readRecord(m, cols)
	if err != nil {
		return nil, err
	}
	if n != rows {
		m.Fail("%d rows, not %d", n, rows)
	}
	if err := m.End(); err != nil {
		return nil, err
	}
	for i := range b.cols {
		b.cols[i].hasNull = b.cols[i].Valid != nil
	}
	if r.tagged {
		b.series = make([]uint32, 0, rows)
		for _, s := range b.segments {
			for range s.to - s.from {
				b.series = append(b.series, uint32(s.series))
			}
		}
	}
	return b, nil
}

// appendSet appends the series of a shard without the values that none of them has.
func appendSet(dst []byte, set *column.SeriesSet) []byte {
	dst = wire.AppendUint(dst, uint64(len(set.IDs)))
	last := dsdb.SeriesID(0)
	for _, id := range set.IDs {
		dst = wire.AppendUint(dst, uint64(id-last))
		last = id
	}
	for k := range set.Keys {
		code := map[uint32]uint32{0: 0}
		var values []string
		for _, c := range set.Code[k] {
			if _, ok := code[c]; !ok {
				values = append(values, set.Dict[k][c])
				code[c] = uint32(len(values))
			}
		}
		dst = wire.AppendStrings(dst, values)
		for _, c := range set.Code[k] {
			dst = wire.AppendUint(dst, uint64(code[c]))
		}
	}
	return dst
}

// decodeSet reads the series of a shard with the values of keys.
func decodeSet(r *wire.Reader, keys []string) (*column.SeriesSet, error) {
	set := &column.SeriesSet{Keys: keys, IDs: make([]dsdb.SeriesID, r.Count(1))}
	last := uint64(0)
	for i := range set.IDs {
		d := r.Uint(math.MaxUint32 - last)
		if d == 0 && i > 0 {
			r.Fail("series do not ascend")
		}
		last += d
		set.IDs[i] = dsdb.SeriesID(last)
	}
	for range keys {
		dict := append([]string{""}, r.Strings()...)
		codes := make([]uint32, 0, min(len(set.IDs), r.Len()))
		for range set.IDs {
			codes = append(codes, uint32(r.Size(len(dict)-1)))
			if r.Err() != nil {
				return nil, r.Err()
			}
		}
		set.Dict, set.Code = append(set.Dict, dict), append(set.Code, codes)
	}
	return set, r.End()
}
