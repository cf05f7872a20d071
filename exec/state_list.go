package exec

import (
	"cmp"
	"math"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// listState keeps every value, for the aggregates that need all of a cell's
// values at once: median, percentile, stddev, mode, distinct. Values are
// appended as they come and sorted by cell when all are there.
type listState[T value] struct {
	call      planner.Call
	fieldType dsdb.FieldType
	cells     int
	Cell      []uint32
	Value     []T
	Time      []int64 // nil for median and stddev
	also      *companions
	text      int64 // bytes of string values

	starts []uint32 // after finish: the items of cell c are order[starts[c]:starts[c+1]]
	order  []uint32 // sorted by value, then time; of stddev as they came
}

func newListState(c planner.Call, t dsdb.FieldType, k kind, n int, also *companions) state {
	switch k {
	case floatKind:
		return &listState[float64]{call: c, fieldType: t, cells: n, also: also.empty()}
	case stringKind:
		return &listState[string]{call: c, fieldType: t, cells: n, also: also.empty()}
	}
	return &listState[int64]{call: c, fieldType: t, cells: n, also: also.empty()}
}

// empty returns companions of the same refs without cells.
func (c *companions) empty() *companions {
	if c == nil {
		return nil
	}
	return &companions{refs: c.refs, which: c.which, cols: make([]companion, len(c.cols))}
}

// timed reports whether the list keeps times.
func (s *listState[T]) timed() bool {
	return s.call.Func != planner.Median && s.call.Func != planner.Stddev
}

func (s *listState[T]) addRows(b *block, runs []run, base int) {
	for _, r := range runs {
		for i := int(r.lo); i < int(r.hi); i++ {
			s.Cell = append(s.Cell, uint32(base+int(r.win)))
			s.append(b, i)
			if s.also != nil {
				s.also.grow()
				s.also.take(b, i, len(s.Cell)-1)
			}
		}
		if s.timed() {
			s.Time = append(s.Time, b.times[r.lo:r.hi]...)
		}
	}
}

// append adds value i of b; a string equal to the one before shares its memory.
func (s *listState[T]) append(b *block, i int) {
	if strs, ok := any(&s.Value).(*[]string); ok {
		raw := b.strs.Str(b.row(i))
		if n := len(*strs); n > 0 && (*strs)[n-1] == string(raw) {
			*strs = append(*strs, (*strs)[n-1])
			return
		}
		s.text += int64(len(raw))
	}
	s.Value = append(s.Value, valueAt[T](b, i))
}

func (s *listState[T]) addStats(st *column.Stats, _ *column.Tile, _ int) bool { return st.Count == 0 }

func (s *listState[T]) merge(o state, from, to, n int) {
	src := o.(*listState[T])
	for i, c := range src.Cell {
		if int(c) < from || int(c) >= from+n {
			continue
		}
		s.Cell = append(s.Cell, uint32(int(c)-from+to))
		s.Value = append(s.Value, src.Value[i]) // strings are shared, src.text counts them
		if s.timed() {
			s.Time = append(s.Time, src.Time[i])
		}
		if s.also != nil {
			s.also.grow()
			s.also.copy(src.also, i, len(s.Cell)-1)
		}
	}
}

func (s *listState[T]) finish() {
	s.starts = make([]uint32, s.cells+1)
	for _, c := range s.Cell {
		s.starts[c+1]++
	}
	for c := range s.cells {
		s.starts[c+1] += s.starts[c]
	}
	next := slices.Clone(s.starts)
	s.order = make([]uint32, len(s.Cell))
	for i, c := range s.Cell {
		s.order[next[c]] = uint32(i)
		next[c]++
	}
	if s.call.Func == planner.Stddev {
		return
	}
	for c := range s.cells {
		slices.SortStableFunc(s.items(c), func(a, b uint32) int {
			if d := cmp.Compare(s.Value[a], s.Value[b]); d != 0 || !s.timed() {
				return d
			}
			return cmp.Compare(s.Time[a], s.Time[b])
		})
	}
}

// items are the indexes of a cell's values.
func (s *listState[T]) items(cell int) []uint32 {
	return s.order[s.starts[cell]:s.starts[cell+1]]
}

// rank returns the index of the nearest-rank percentile of a cell, -1 if there is none.
func (s *listState[T]) rank(cell int) int {
	items := s.items(cell)
	i := int(math.Floor(float64(len(items))*s.call.N/100+0.5)) - 1
	if i < 0 || i >= len(items) {
		return -1
	}
	return int(items[i])
}

func (s *listState[T]) present(cell int) bool {
	if s.call.Func == planner.Percentile {
		return s.rank(cell) >= 0
	}
	return s.starts[cell] < s.starts[cell+1]
}

func (s *listState[T]) emit(cell int, dst *builder) {
	switch s.call.Func {
	case planner.Percentile:
		emitValue(s.Value[s.rank(cell)], s.fieldType, dst)
	case planner.Mode:
		emitValue(s.mode(s.items(cell)), s.fieldType, dst)
	case planner.CountDistinct:
		n := int64(0)
		for i, it := range s.items(cell) {
			if i == 0 || s.Value[it] != s.Value[s.items(cell)[i-1]] {
				n++
			}
		}
		dst.int(n)
	default:
		v, ok := any(s.Value).([]float64)
		if !ok {
			panic("BUG: median or stddev of values that are no numbers")
		}
		if s.call.Func == planner.Median {
			dst.float(median(v, s.items(cell)))
		} else if x, ok := stddev(v, s.items(cell)); ok {
			dst.float(x)
		} else {
			dst.null()
		}
	}
}

// median takes items sorted by value.
func median(v []float64, items []uint32) float64 {
	n := len(items)
	hi := v[items[n/2]]
	if n%2 == 1 {
		return hi
	}
	lo := v[items[n/2-1]]
	return lo + (hi-lo)/2
}

// stddev is the standard deviation of a sample; there is none of one value.
func stddev(v []float64, items []uint32) (float64, bool) {
	if len(items) < 2 {
		return 0, false
	}
	var mean, variance float64
	for i, it := range items {
		mean += (v[it] - mean) / float64(i+1)
	}
	for _, it := range items {
		d := v[it] - mean
		variance += d * d
	}
	return math.Sqrt(variance / float64(len(items)-1)), true
}

// mode returns the most frequent value. Of values that are equally frequent,
// but occur more than once, that which starts earlier in time wins over one
// that ends later; if none occurs twice it is the least; of booleans it is true
// (InfluxDB 1.8, ModeReduceSlice).
func (s *listState[T]) mode(items []uint32) T {
	first := items[0]
	best, bestTime, bestRun := s.Value[first], s.Time[first], 1
	run, start := 1, s.Time[first]
	for i, it := range items[1:] {
		if s.Value[it] != s.Value[items[i]] {
			run, start = 1, s.Time[it]
			continue
		}
		run++
		if run > bestRun || run == bestRun && start <= bestTime {
			best, bestTime, bestRun = s.Value[it], s.Time[it], run
		}
	}
	if last := items[len(items)-1]; s.fieldType == dsdb.Boolean && 2*s.countOf(items, s.Value[last]) >= len(items) {
		return s.Value[last]
	}
	return best
}

func (s *listState[T]) countOf(items []uint32, v T) int {
	n := 0
	for _, it := range items {
		if s.Value[it] == v {
			n++
		}
	}
	return n
}

func (s *listState[T]) time(cell int) int64 { return s.Time[s.rank(cell)] }

func (s *listState[T]) emitRef(ref, cell int, dst *builder) { s.also.emit(ref, s.rank(cell), dst) }

// emitDistinct appends the distinct values of a cell in the order in which they
// first appear in the direction of the output; of one time the lesser value first.
func (s *listState[T]) emitDistinct(cell int, descending bool, dst *builder) int {
	items := s.items(cell)
	var firsts []uint32
	for i, it := range items {
		switch {
		case i == 0 || s.Value[it] != s.Value[items[i-1]]:
			firsts = append(firsts, it)
		case descending: // items of one value ascend by time
			firsts[len(firsts)-1] = it
		}
	}
	slices.SortStableFunc(firsts, func(a, b uint32) int {
		if descending {
			a, b = b, a
		}
		return cmp.Compare(s.Time[a], s.Time[b])
	})
	for _, it := range firsts {
		emitValue(s.Value[it], s.fieldType, dst)
	}
	return len(firsts)
}

func (s *listState[T]) bytes() int64 {
	size := 8
	if _, ok := any(s.Value).([]string); ok {
		size = 16
	}
	return int64(4*cap(s.Cell)+8*cap(s.Time)+size*cap(s.Value)) + s.text + s.also.bytes()
}

// lister is a state that gives several rows per cell.
type lister interface {
	emitDistinct(cell int, descending bool, dst *builder) int
}
