package exec

import (
	"math"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// state is the partial result of one aggregate: an array of cells, one per
// group and window, kept as plain columns. Cells start empty. A state is used
// by one goroutine at a time.
type state interface {
	// addRows folds the values of b into the cells base+window, as runs say.
	addRows(b *block, runs []run, base int)
	// addStats folds a whole tile, all of whose rows belong to one cell, by its
	// statistics. It reports false, and changes nothing, if they do not suffice.
	addStats(st *column.Stats, t *column.Tile, cell int) bool
	// merge folds n cells of o, a state of the same kind, starting at from into
	// those of this state starting at to.
	merge(o state, from, to, n int)
	// finish is called once, after the last merge and before present and emit.
	finish()
	// present reports whether a cell gives a row.
	present(cell int) bool
	// emit appends the result of a present cell to dst.
	emit(cell int, dst *builder)
	// bytes is the memory that the state holds.
	bytes() int64
	// columns appends pointers to the slices that make up the state.
	columns(dst []any) []any
}

// selection is a state whose results are points: they have a time, and the
// other columns of their row may be asked for.
type selection interface {
	state
	time(cell int) int64
	emitRef(ref, cell int, dst *builder)
}

// newState makes a state of n cells. needTime: the times of picked points
// count; refs are the other refs to take from a picked point's row.
func newState(q *query, c planner.Call, n int, needTime bool, refs []int) state {
	t := q.p.Refs[c.Ref].Type
	k := kindOf(c.Func, t)
	var also *companions
	if len(refs) > 0 {
		also = newCompanions(q.p.Refs, refs, n)
	}
	switch c.Func {
	case planner.Count:
		return &countState{N: make([]int64, n)}
	case planner.Sum:
		if k == floatKind {
			return newSumState[float64](n)
		}
		return newSumState[int64](n)
	case planner.Mean:
		if k == floatKind {
			return &meanState{sumState: *newSumState[float64](n), unsigned: t == dsdb.Unsigned}
		}
		return &intMeanState{N: make([]int64, n), Sum: make([]float64, n)}
	case planner.Min, planner.Max, planner.First, planner.Last, planner.Spread:
		if c.Func == planner.Spread {
			needTime = false
		}
		switch k {
		case floatKind:
			return newPick[float64](c.Func, t, n, needTime, also)
		case stringKind:
			return newEdgeState[string](c.Func, t, n, also)
		}
		return newPick[int64](c.Func, t, n, needTime, also)
	}
	return newListState(c, t, k, n, also)
}

func newPick[T number](f planner.Func, t dsdb.FieldType, n int, needTime bool, also *companions) state {
	switch f {
	case planner.First, planner.Last:
		return newEdgeState[T](f, t, n, also)
	case planner.Spread:
		return &spreadState[T]{fieldType: t, N: make([]int64, n), Low: make([]T, n), High: make([]T, n)}
	}
	s := &extremeState[T]{fieldType: t, greatest: f == planner.Max, also: also, N: make([]int64, n), Value: make([]T, n)}
	if needTime || also != nil {
		s.Time = make([]int64, n)
	}
	return s
}

// bitsTo returns the value that a statistic's bits mean in a field of type t.
func bitsTo[T number](bits uint64, t dsdb.FieldType) T {
	var v T
	switch p := any(&v).(type) {
	case *float64:
		*p = math.Float64frombits(bits)
	case *int64:
		*p = int64(bits)
		if t == dsdb.Unsigned {
			*p ^= signBit
		}
	}
	return v
}

// emitValue appends a value of a field of type t.
func emitValue[T value](v T, t dsdb.FieldType, dst *builder) {
	switch x := any(v).(type) {
	case float64:
		dst.float(x)
	case int64:
		if t == dsdb.Unsigned {
			x ^= signBit
		}
		dst.int(x)
	case string:
		dst.str(x)
	}
}

// countState is count().
type countState struct{ N []int64 }

func (s *countState) addRows(_ *block, runs []run, base int) {
	for _, r := range runs {
		s.N[base+int(r.win)] += int64(r.hi - r.lo)
	}
}

func (s *countState) addStats(st *column.Stats, _ *column.Tile, cell int) bool {
	s.N[cell] += int64(st.Count)
	return true
}

func (s *countState) merge(o state, from, to, n int) {
	addCounts(s.N[to:to+n], o.(*countState).N[from:from+n])
}

func (s *countState) finish()                     {}
func (s *countState) present(cell int) bool       { return s.N[cell] > 0 }
func (s *countState) emit(cell int, dst *builder) { dst.int(s.N[cell]) }
func (s *countState) bytes() int64                { return int64(8 * len(s.N)) }

func addCounts(dst, src []int64) {
	for i, n := range src {
		dst[i] += n
	}
}

// sumState is sum(): integers wrap, as in InfluxDB.
type sumState[T number] struct {
	N   []int64
	Sum []T
}

func newSumState[T number](n int) *sumState[T] {
	return &sumState[T]{N: make([]int64, n), Sum: make([]T, n)}
}

func (s *sumState[T]) addRows(b *block, runs []run, base int) {
	v := numbers[T](b)
	for _, r := range runs {
		cell := base + int(r.win)
		s.N[cell] += int64(r.hi - r.lo)
		s.Sum[cell] += runSum(v[r.lo:r.hi])
	}
}

func (s *sumState[T]) addStats(st *column.Stats, _ *column.Tile, cell int) bool {
	s.N[cell] += int64(st.Count)
	s.Sum[cell] += bitsTo[T](st.Sum, dsdb.NoType)
	return true
}

func (s *sumState[T]) merge(o state, from, to, n int) { s.mergeSums(o.(*sumState[T]), from, to, n) }

func (s *sumState[T]) mergeSums(src *sumState[T], from, to, n int) {
	addCounts(s.N[to:to+n], src.N[from:from+n])
	for i := range n {
		s.Sum[to+i] += src.Sum[from+i]
	}
}

func (s *sumState[T]) finish()                     {}
func (s *sumState[T]) present(cell int) bool       { return s.N[cell] > 0 }
func (s *sumState[T]) emit(cell int, dst *builder) { emitValue(s.Sum[cell], dsdb.NoType, dst) }
func (s *sumState[T]) bytes() int64                { return int64(16 * len(s.N)) }

// meanState is mean() of floats, and of unsigned values taken as floats.
type meanState struct {
	sumState[float64]
	unsigned bool
}

func (s *meanState) addStats(st *column.Stats, t *column.Tile, cell int) bool {
	if s.unsigned {
		if st.SumOverflow {
			return false
		}
		s.N[cell] += int64(st.Count)
		s.Sum[cell] += float64(st.Sum)
		return true
	}
	return s.sumState.addStats(st, t, cell)
}

func (s *meanState) merge(o state, from, to, n int) {
	s.mergeSums(&o.(*meanState).sumState, from, to, n)
}

func (s *meanState) emit(cell int, dst *builder) { dst.float(s.Sum[cell] / float64(s.N[cell])) }

// intMeanState is mean() of integers. The sum is a float, so that it cannot
// wrap; it is exact up to 2^53.
type intMeanState struct {
	N   []int64
	Sum []float64
}

func (s *intMeanState) addRows(b *block, runs []run, base int) {
	fit := sumsFit(b.ints[:b.n])
	for _, r := range runs {
		cell := base + int(r.win)
		s.N[cell] += int64(r.hi - r.lo)
		if fit {
			s.Sum[cell] += float64(runSum(b.ints[r.lo:r.hi]))
		} else {
			s.Sum[cell] += floatSum(b.ints[r.lo:r.hi])
		}
	}
}

func (s *intMeanState) addStats(st *column.Stats, _ *column.Tile, cell int) bool {
	if st.SumOverflow {
		return false
	}
	s.N[cell] += int64(st.Count)
	s.Sum[cell] += float64(int64(st.Sum))
	return true
}

func (s *intMeanState) merge(o state, from, to, n int) {
	src := o.(*intMeanState)
	addCounts(s.N[to:to+n], src.N[from:from+n])
	for i := range n {
		s.Sum[to+i] += src.Sum[from+i]
	}
}

func (s *intMeanState) finish()                     {}
func (s *intMeanState) present(cell int) bool       { return s.N[cell] > 0 }
func (s *intMeanState) emit(cell int, dst *builder) { dst.float(s.Sum[cell] / float64(s.N[cell])) }
func (s *intMeanState) bytes() int64                { return int64(16 * len(s.N)) }

// spreadState is spread().
type spreadState[T number] struct {
	fieldType dsdb.FieldType
	N         []int64
	Low, High []T
}

func (s *spreadState[T]) addRows(b *block, runs []run, base int) {
	v := numbers[T](b)
	for _, r := range runs {
		part := v[r.lo:r.hi]
		s.add(base+int(r.win), int64(len(part)), least(part), greatest(part))
	}
}

func (s *spreadState[T]) add(cell int, n int64, low, high T) {
	if n == 0 {
		return
	}
	if s.N[cell] == 0 || low < s.Low[cell] {
		s.Low[cell] = low
	}
	if s.N[cell] == 0 || high > s.High[cell] {
		s.High[cell] = high
	}
	s.N[cell] += n
}

func (s *spreadState[T]) addStats(st *column.Stats, _ *column.Tile, cell int) bool {
	s.add(cell, int64(st.Count), bitsTo[T](st.Min, s.fieldType), bitsTo[T](st.Max, s.fieldType))
	return true
}

func (s *spreadState[T]) merge(o state, from, to, n int) {
	src := o.(*spreadState[T])
	for i := range n {
		s.add(to+i, src.N[from+i], src.Low[from+i], src.High[from+i])
	}
}

func (s *spreadState[T]) finish()               {}
func (s *spreadState[T]) present(cell int) bool { return s.N[cell] > 0 }
func (s *spreadState[T]) emit(cell int, dst *builder) {
	emitValue(s.High[cell]-s.Low[cell], dsdb.NoType, dst)
}
func (s *spreadState[T]) bytes() int64 { return int64(24 * len(s.N)) }
