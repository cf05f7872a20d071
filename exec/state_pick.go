package exec

import (
	"math"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// extremeState is min() and max(). Of equal values the earliest point is picked.
type extremeState[T number] struct {
	fieldType dsdb.FieldType
	greatest  bool
	N         []int64
	Value     []T
	Time      []int64 // nil: times do not matter
	also      *companions
}

// better reports whether v at time t replaces what the cell has.
func (s *extremeState[T]) better(cell int, v T, t int64) bool {
	have := s.Value[cell]
	switch {
	case s.N[cell] == 0:
		return true
	case v == have:
		return s.Time != nil && t < s.Time[cell]
	}
	return v > have == s.greatest
}

func (s *extremeState[T]) addRows(b *block, runs []run, base int) {
	v := numbers[T](b)
	for _, r := range runs {
		cell := base + int(r.win)
		part := v[r.lo:r.hi]
		best := s.best(part)
		if s.Time != nil {
			s.offer(b, cell, best, part, int(r.lo))
		} else if s.N[cell] == 0 || best != s.Value[cell] && best > s.Value[cell] == s.greatest {
			s.Value[cell] = best
		}
		s.N[cell] += int64(len(part))
	}
}

// best returns the value of part that the aggregate picks.
func (s *extremeState[T]) best(part []T) T {
	if len(part) >= smallRun {
		if s.greatest {
			return greatest(part)
		}
		return least(part)
	}
	best := part[0]
	if s.greatest {
		for _, x := range part {
			if x > best {
				best = x
			}
		}
		return best
	}
	for _, x := range part {
		if x < best {
			best = x
		}
	}
	return best
}

// offer proposes the best value of part, which is in the block from index lo,
// with the time at which it first occurs there.
func (s *extremeState[T]) offer(b *block, cell int, best T, part []T, lo int) {
	if s.N[cell] > 0 && best != s.Value[cell] && !s.better(cell, best, 0) {
		return
	}
	i := lo + find(part, best)
	if s.better(cell, best, b.times[i]) {
		s.Value[cell], s.Time[cell] = best, b.times[i]
		s.also.take(b, i, cell)
	}
}

func (s *extremeState[T]) addStats(st *column.Stats, t *column.Tile, cell int) bool {
	if st.Count == 0 {
		return true
	}
	best := bitsTo[T](st.Min, s.fieldType)
	if s.greatest {
		best = bitsTo[T](st.Max, s.fieldType)
	}
	if s.better(cell, best, t.First) {
		if s.Time != nil {
			return false // where in the tile it lies is not known
		}
		s.Value[cell] = best
	}
	s.N[cell] += int64(st.Count)
	return true
}

func (s *extremeState[T]) merge(o state, from, to, n int) {
	src := o.(*extremeState[T])
	for i := range n {
		a, b := from+i, to+i
		if src.N[a] == 0 {
			continue
		}
		var t int64
		if src.Time != nil {
			t = src.Time[a]
		}
		if s.better(b, src.Value[a], t) {
			s.Value[b] = src.Value[a]
			if s.Time != nil {
				s.Time[b] = t
			}
			s.also.copy(src.also, a, b)
		}
		s.N[b] += src.N[a]
	}
}

func (s *extremeState[T]) finish()                     {}
func (s *extremeState[T]) present(cell int) bool       { return s.N[cell] > 0 }
func (s *extremeState[T]) emit(cell int, dst *builder) { emitValue(s.Value[cell], s.fieldType, dst) }
func (s *extremeState[T]) time(cell int) int64         { return s.Time[cell] }
func (s *extremeState[T]) bytes() int64 {
	return int64(16*len(s.N)+8*len(s.Time)) + s.also.bytes()
}
func (s *extremeState[T]) emitRef(ref, cell int, dst *builder) { s.also.emit(ref, cell, dst) }

// edgeState is first() and last(). Of points of one time the one with the
// greater value is picked, but first() prefers false (InfluxDB 1.8).
type edgeState[T value] struct {
	fieldType dsdb.FieldType
	last      bool
	N         []int64 // 0 or more: whether the cell has a point
	Value     []T
	Time      []int64
	also      *companions
}

func newEdgeState[T value](f planner.Func, t dsdb.FieldType, n int, also *companions) *edgeState[T] {
	return &edgeState[T]{fieldType: t, last: f == planner.Last, also: also,
		N: make([]int64, n), Value: make([]T, n), Time: make([]int64, n)}
}

// sooner reports whether a point at time t may replace what the cell has.
func (s *edgeState[T]) sooner(cell int, t int64) bool {
	if s.N[cell] == 0 {
		return true
	}
	if s.last {
		return t >= s.Time[cell]
	}
	return t <= s.Time[cell]
}

func (s *edgeState[T]) better(cell int, v T, t int64) bool {
	if s.N[cell] == 0 || t != s.Time[cell] {
		return s.sooner(cell, t)
	}
	if s.fieldType == dsdb.Boolean && !s.last {
		return v < s.Value[cell]
	}
	return v > s.Value[cell]
}

func (s *edgeState[T]) addRows(b *block, runs []run, base int) {
	for _, r := range runs {
		cell, i := base+int(r.win), int(r.lo)
		if s.last {
			i = int(r.hi) - 1
		}
		t := b.times[i]
		if !s.sooner(cell, t) {
			continue
		}
		if v := valueAt[T](b, i); s.better(cell, v, t) {
			s.N[cell], s.Value[cell], s.Time[cell] = 1, v, t
			s.also.take(b, i, cell)
		}
	}
}

func (s *edgeState[T]) addStats(st *column.Stats, tile *column.Tile, cell int) bool {
	if st.Count == 0 {
		return true
	}
	t, bits := tile.First, st.First
	if s.last {
		t, bits = tile.Last, st.Last
	}
	if !s.sooner(cell, t) {
		return true
	}
	if st.Count < tile.Rows || s.also != nil {
		return false
	}
	if s.fieldType != dsdb.Float && s.fieldType != dsdb.Integer && s.fieldType != dsdb.Unsigned {
		return false
	}
	var v T
	switch p := any(&v).(type) {
	case *float64:
		*p = bitsTo[float64](bits, s.fieldType)
	case *int64:
		*p = bitsTo[int64](bits, s.fieldType)
	}
	if s.better(cell, v, t) {
		s.N[cell], s.Value[cell], s.Time[cell] = 1, v, t
	}
	return true
}

func (s *edgeState[T]) merge(o state, from, to, n int) {
	src := o.(*edgeState[T])
	for i := range n {
		a, b := from+i, to+i
		if src.N[a] > 0 && s.better(b, src.Value[a], src.Time[a]) {
			s.N[b], s.Value[b], s.Time[b] = 1, src.Value[a], src.Time[a]
			s.also.copy(src.also, a, b)
		}
	}
}

func (s *edgeState[T]) finish()                     {}
func (s *edgeState[T]) present(cell int) bool       { return s.N[cell] > 0 }
func (s *edgeState[T]) emit(cell int, dst *builder) { emitValue(s.Value[cell], s.fieldType, dst) }
func (s *edgeState[T]) time(cell int) int64         { return s.Time[cell] }
func (s *edgeState[T]) bytes() int64                { return int64(32*len(s.N)) + s.also.bytes() }
func (s *edgeState[T]) emitRef(ref, cell int, dst *builder) {
	s.also.emit(ref, cell, dst)
}

// companions are the values of other refs in the rows of picked points: one
// column per ref, one row per cell. A nil *companions has none.
type companions struct {
	refs  []planner.Ref
	which []int // index of refs into the plan's Refs
	cols  []companion
}

type companion struct {
	Valid []bool
	Bits  []uint64 // of numbers and booleans
	Strs  []string // of strings and tags
}

func newCompanions(all []planner.Ref, which []int, n int) *companions {
	c := &companions{which: which, cols: make([]companion, len(which))}
	for i, r := range which {
		c.refs = append(c.refs, all[r])
		c.cols[i].Valid = make([]bool, n)
		if all[r].Type == dsdb.String {
			c.cols[i].Strs = make([]string, n)
		} else {
			c.cols[i].Bits = make([]uint64, n)
		}
	}
	return c
}

// take copies the row of value i of b to a cell.
func (c *companions) take(b *block, i, cell int) {
	if c == nil {
		return
	}
	for j, r := range c.refs {
		col := &c.cols[j]
		if r.Tag {
			v := b.table.tagOf(b.series, r.Name)
			col.Strs[cell], col.Valid[cell] = v, v != ""
			continue
		}
		v, err := b.reader.column(c.which[j])
		if err != nil {
			b.err = err
			return
		}
		row := b.row(i)
		col.Valid[cell] = !v.Null(row)
		if col.Valid[cell] {
			col.set(cell, v, row)
		}
	}
}

func (c *companion) set(cell int, v *column.Vector, row int) {
	switch v.Type {
	case dsdb.Float:
		c.Bits[cell] = math.Float64bits(v.Floats[row])
	case dsdb.String:
		c.Strs[cell] = string(v.Str(row))
	default:
		c.Bits[cell] = uint64(v.Ints[row])
	}
}

// grow adds an empty cell.
func (c *companions) grow() {
	if c == nil {
		return
	}
	for j := range c.cols {
		col := &c.cols[j]
		col.Valid = append(col.Valid, false)
		if c.refs[j].Type == dsdb.String {
			col.Strs = append(col.Strs, "")
		} else {
			col.Bits = append(col.Bits, 0)
		}
	}
}

func (c *companions) copy(src *companions, from, to int) {
	if c == nil {
		return
	}
	for j := range c.cols {
		a, b := &src.cols[j], &c.cols[j]
		b.Valid[to] = a.Valid[from]
		if a.Strs != nil {
			b.Strs[to] = a.Strs[from]
		} else {
			b.Bits[to] = a.Bits[from]
		}
	}
}

// emit appends the value of a plan's ref.
func (c *companions) emit(ref, cell int, dst *builder) {
	for j, w := range c.which {
		if w != ref {
			continue
		}
		col := &c.cols[j]
		switch {
		case !col.Valid[cell]:
			dst.null()
		case c.refs[j].Type == dsdb.Float:
			dst.float(bitsTo[float64](col.Bits[cell], dsdb.Float))
		case c.refs[j].Type == dsdb.String:
			dst.str(col.Strs[cell])
		default:
			dst.int(int64(col.Bits[cell]))
		}
		return
	}
	dst.null()
}

func (c *companions) bytes() int64 {
	if c == nil {
		return 0
	}
	n := 0
	for j := range c.cols {
		n += len(c.cols[j].Valid) + 8*len(c.cols[j].Bits) + 16*len(c.cols[j].Strs)
	}
	return int64(n)
}
