package exec

import (
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// rowWriter puts the rows of a unit out, group by group, in frames.
type rowWriter struct {
	op    *rawOperator
	u     *rawUnit
	group int   // whose rows are merged
	at    []int // per cluster: its first segment after the group's
	next  int   // the next row to put into a frame
	end   int
	mergedRows
	rowColumns
	project projector
}

// mergedRows are the rows of a group in output order.
type mergedRows struct {
	n       int
	direct  *segment // the one segment that they are; nil: they had to be merged, see keys
	keys    []rowKey
	scratch []rowKey
}

// rowColumns are the columns of the rows being put into a frame.
type rowColumns struct {
	times []int64
	cols  []builder       // per selected field
	tags  []builder       // per ref
	done  []column.Vector // per ref
	ready []bool          // per ref: whether done has it
}

func newRowWriter(op *rawOperator, u *rawUnit) *rowWriter {
	refs := len(op.q.p.Refs)
	w := &rowWriter{op: op, u: u, group: u.from - 1, at: make([]int, len(u.clusters)), rowColumns: rowColumns{
		cols: make([]builder, len(op.refs)), tags: make([]builder, refs), done: make([]column.Vector, refs), ready: make([]bool, refs)}}
	w.project.init(op.q.p, op.name)
	return w
}

// frame returns the next frame, nil at the end of the unit, and whether it is
// the last of the unit.
func (w *rowWriter) frame() (f *column.Frame, last bool, err error) {
	for w.next >= w.end {
		if w.group+1 >= w.u.to {
			return nil, false, nil
		}
		w.group++
		w.startGroup()
	}
	lo := w.next
	w.next = min(w.end, lo+w.op.q.o.ChunkRows)
	if f, err = w.cut(lo, w.next); err != nil {
		return nil, false, err
	}
	f.Tags = w.op.table.tags(w.op.q, w.group)
	f.Partial = w.next < w.end
	w.op.q.counters.ResultRows += int64(f.Rows())
	if !f.Partial {
		w.op.q.counters.ResultSeries++
	}
	return f, w.next == w.end && w.group+1 == w.u.to, nil
}

// startGroup merges the rows of the group by time, cluster by cluster.
func (w *rowWriter) startGroup() {
	w.keys, w.direct, w.n = w.keys[:0], nil, 0
	segments := 0
	for c := range w.u.clusters {
		for w.at[c] < len(w.u.clusters[c]) && w.u.clusters[c][w.at[c]].series < w.op.table.groups[w.group+1] {
			s := &w.u.clusters[c][w.at[c]]
			w.n += s.to - s.from
			w.at[c]++
			w.direct = s
			segments++
		}
	}
	if segments != 1 {
		w.direct = nil
		w.keys = slices.Grow(w.keys, w.n)
		w.merge()
	}
	// Rows before this unit count for OFFSET and LIMIT.
	before := 0
	if w.group == w.u.from {
		before = w.u.before
	}
	p := w.op.q.p
	w.next = min(max(p.Offset-before, 0), w.n)
	w.end = w.n
	if p.Limit > 0 {
		w.end = min(w.n, max(p.Offset+p.Limit-before, 0))
	}
}

// merge brings the rows of the group's segments into the order of their times;
// rows of one time stay in the order of their series.
func (w *rowWriter) merge() {
	for c := range w.u.clusters {
		start := len(w.keys)
		segs := 0
		for i := w.at[c] - 1; i >= 0 && w.u.clusters[c][i].series >= w.op.table.groups[w.group]; i-- {
			segs++
		}
		for _, s := range w.u.clusters[c][w.at[c]-segs : w.at[c]] {
			times := w.u.buffers[s.buffer].times
			for row := s.from; row < s.to; row++ {
				key := uint64(times[row]) ^ 1<<63
				if w.op.q.p.Descending {
					key = ^key
				}
				w.keys = append(w.keys, rowKey{key, uint64(s.buffer)<<32 | uint64(row)})
			}
		}
		if segs > 1 {
			w.scratch = slices.Grow(w.scratch[:0], len(w.keys)-start)[:len(w.keys)-start]
			copy(w.keys[start:], sortRows(w.keys[start:], w.scratch))
		}
	}
}

// cut projects the rows [lo, hi) of the group.
func (w *rowWriter) cut(lo, hi int) (*column.Frame, error) {
	p := w.op.q.p
	if w.direct != nil {
		w.times = append(w.times[:0], w.u.buffers[w.direct.buffer].times[w.direct.from+lo:w.direct.from+hi]...)
	} else {
		w.times = w.times[:0]
		for _, k := range w.keys[lo:hi] {
			w.times = append(w.times, w.u.buffers[k.at>>32].times[uint32(k.at)])
		}
	}
	clear(w.ready)
	for i, ref := range w.op.refs {
		w.done[ref], w.ready[ref] = w.column(i, lo, hi), true
		if p.Fill.Kind == planner.FillNumber {
			w.done[ref] = filled(&w.done[ref], p.Fill.Number)
		} else if p.Fill.Kind == planner.FillPrevious {
			w.done[ref] = w.op.carry.fill(w.group, ref, &w.done[ref])
		}
	}
	err := w.project.rows(w.times, nil, func(ref int) (*column.Vector, error) {
		if !w.ready[ref] {
			w.done[ref], w.ready[ref] = w.tag(ref, lo, hi), true
			if p.Fill.Kind == planner.FillPrevious {
				w.done[ref] = w.op.carry.fill(w.group, ref, &w.done[ref])
			}
		}
		return &w.done[ref], nil
	})
	if err != nil {
		return nil, err
	}
	return w.project.frame(0, hi-lo), nil
}

// column gathers selected field i of the rows [lo, hi).
func (w *rowWriter) column(i, lo, hi int) column.Vector {
	dst := &w.cols[i]
	if w.direct != nil {
		src := w.u.buffers[w.direct.buffer].cols[i].view()
		return cutVector(&src, w.direct.from+lo, w.direct.from+hi, &dst.Vector)
	}
	dst.reset(w.op.colTypes[i])
	nulls := false
	for _, b := range w.u.buffers {
		nulls = nulls || b.cols[i].hasNull
	}
	keys := w.keys[lo:hi]
	switch {
	case dst.Type == dsdb.String || nulls:
		for _, k := range keys {
			dst.appendRow(&w.u.buffers[k.at>>32].cols[i], int(uint32(k.at)))
		}
	case dst.Type == dsdb.Float:
		src := make([][]float64, len(w.u.buffers))
		for j, b := range w.u.buffers {
			src[j] = b.cols[i].Floats
		}
		dst.Floats, dst.N = gatherKeys(dst.Floats, src, keys), len(keys)
	default:
		src := make([][]int64, len(w.u.buffers))
		for j, b := range w.u.buffers {
			src[j] = b.cols[i].Ints
		}
		dst.Ints, dst.N = gatherKeys(dst.Ints, src, keys), len(keys)
	}
	return dst.view()
}

// gatherKeys appends the values of src, one slice per buffer, that keys point to.
func gatherKeys[T any](dst []T, src [][]T, keys []rowKey) []T {
	n := len(dst)
	dst = extend(dst, len(keys))
	out := dst[n:]
	for i, k := range keys {
		out[i] = src[k.at>>32][uint32(k.at)]
	}
	return dst
}

// appendRow appends one row of another column of the same type.
func (b *builder) appendRow(src *builder, row int) {
	switch {
	case src.isNull(row):
		b.null()
	case b.Type == dsdb.Float:
		b.float(src.Floats[row])
	case b.Type == dsdb.String:
		b.bit(true)
		b.Bytes = append(b.Bytes, src.Bytes[src.Offsets[row]:src.Offsets[row+1]]...)
		b.Offsets = append(b.Offsets, uint32(len(b.Bytes)))
	default:
		b.int(src.Ints[row])
	}
}

// tag makes the column of a tag, or of a field that nothing has, for rows [lo, hi).
func (w *rowWriter) tag(ref, lo, hi int) column.Vector {
	r := w.op.q.p.Refs[ref]
	if !r.Tag {
		return column.Vector{N: hi - lo}
	}
	dst := &w.tags[ref]
	dst.reset(dsdb.String)
	for i := lo; i < hi; i++ {
		series := 0
		if w.direct != nil {
			series = w.direct.series
		} else {
			k := w.keys[i]
			series = int(w.u.buffers[k.at>>32].series[uint32(k.at)])
		}
		if v := w.op.table.tagOf(series, r.Name); v != "" {
			dst.str(v)
		} else {
			dst.null()
		}
	}
	return dst.view()
}

// filled puts x in place of the nulls of a column of numbers: fill(x) without
// an aggregate.
func filled(v *column.Vector, x float64) column.Vector {
	if v.Valid == nil || !isNumeric(v.Type) {
		return *v
	}
	var b builder
	b.reset(v.Type)
	for i := range v.N {
		switch {
		case v.Null(i):
			b.number(x)
		case v.Type == dsdb.Float:
			b.float(v.Floats[i])
		default:
			b.int(v.Ints[i])
		}
	}
	return b.view()
}

// carry is fill(previous) without an aggregate: a null becomes the value last
// seen in its column of the same group, also across frames and units.
type carry struct {
	group   int
	columns map[int]*carried // by ref
}

// carried is one column: the filled rows of a frame and the value before them.
type carried struct {
	rows builder
	last builder // one row, or none yet
}

// fill returns v, the next rows of a ref in a group, filled. The result is valid until the next call for the ref.
func (c *carry) fill(group, ref int, v *column.Vector) column.Vector {
	if c.columns == nil || c.group != group {
		c.group, c.columns = group, make(map[int]*carried)
	}
	f := c.columns[ref]
	if f == nil {
		f = &carried{}
		f.last.reset(v.Type)
		c.columns[ref] = f
	}
	if v.Type == dsdb.NoType {
		return *v
	}
	src := builder{Vector: *v, hasNull: v.Valid != nil}
	f.rows.reset(v.Type)
	for i := range v.N {
		switch {
		case !src.isNull(i):
			f.rows.appendRow(&src, i)
		case i > 0:
			f.rows.again(i - 1)
		case f.last.N > 0:
			f.rows.appendRow(&f.last, 0)
		default:
			f.rows.null()
		}
	}
	if v.N > 0 {
		f.last.reset(v.Type)
		f.last.appendRow(&f.rows, v.N-1)
	}
	return f.rows.view()
}
