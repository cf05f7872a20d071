package exec

import (
	"math"
	"slices"
	"sort"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/planner"
)

// pick is what a call makes of a window: nothing, or a value, perhaps null, and
// the point that it is.
type pick struct {
	ok    bool
	value any
	pt    point
}

// windowOf is the start of the window that holds a time, 0 without GROUP BY time.
func (t *twin) windowOf(tm int64) int64 {
	if t.p.Interval.Every == 0 {
		return 0
	}
	return windowStart(tm, t.p.Interval, t.p.Location)
}

// valued are the points that have a value for a call, by window.
func (t *twin) valued(call planner.Call, points []point) map[int64][]point {
	out := map[int64][]point{}
	for _, pt := range points {
		if t.ref(pt, call.Ref, nil) != nil {
			out[t.windowOf(pt.time)] = append(out[t.windowOf(pt.time)], pt)
		}
	}
	return out
}

func (t *twin) aggregate(points []point) [][]any {
	sort.SliceStable(points, func(i, j int) bool { return points[i].time < points[j].time })
	p := t.p
	if p.DistinctRows {
		return t.distinct(p.Calls[0].Ref, t.valued(p.Calls[0], points))
	}
	picks := make([]map[int64]pick, len(p.Calls))
	first := make([]int64, len(p.Calls)) // per call: the window from which on it is filled
	windows := map[int64]bool{}
	for c := range p.Calls {
		picks[c] = map[int64]pick{}
		first[c] = math.MaxInt64
		for w, pts := range t.valued(p.Calls[c], points) {
			if k := t.call(c, pts); k.ok {
				picks[c][w], windows[w] = k, true
				first[c] = min(first[c], w)
			}
		}
	}
	if len(windows) == 0 {
		return nil
	}
	order := t.order(windows, first)
	columns := make([][]any, len(p.Calls))
	for c := range p.Calls {
		columns[c] = t.fill(c, order, picks[c], first[c])
	}
	var rows [][]any
	last := make([]any, len(p.Refs)) // of fill(previous)
	for i, w := range order {
		one := picks[0][w]
		row := []any{t.rowTime(w, one)}
		for _, col := range p.Columns {
			row = append(row, scalar(col.Expr, func(r int) any {
				var v any
				if one.ok {
					v = t.ref(one.pt, r, nil)
				}
				switch {
				case v == nil && p.Fill.Kind == planner.FillNumber && isNumeric(p.Refs[r].Type):
					v = cast(p.Fill.Number, p.Refs[r].Type)
				case v == nil && p.Fill.Kind == planner.FillPrevious:
					v = last[r]
				}
				last[r] = v
				return v
			}, func(c int) any { return columns[c][i] }))
		}
		rows = append(rows, row)
	}
	return rows
}

// order adds the windows that are filled and sorts them. With a lower bound
// every call that has a point is filled from there on.
func (t *twin) order(windows map[int64]bool, first []int64) []int64 {
	p := t.p
	if p.Interval.Every > 0 && p.Fill.Kind != planner.FillNone {
		from := slices.Min(first)
		if p.Range.Start > dsdb.MinTime {
			from = t.windowOf(p.Range.Start)
			for c := range first {
				if first[c] != math.MaxInt64 {
					first[c] = from
				}
			}
		}
		for w := from; w < p.Range.End; w += p.Interval.Every {
			windows[w] = true
		}
	}
	var order []int64
	for w := range windows {
		order = append(order, w)
	}
	slices.Sort(order)
	if p.Descending {
		slices.Reverse(order)
	}
	return order
}

func (t *twin) rowTime(w int64, k pick) int64 {
	switch {
	case t.p.Interval.Every > 0:
		return w
	case t.p.Selector:
		return k.pt.time
	case t.p.Range.Start <= dsdb.MinTime:
		return 0
	}
	return t.p.Range.Start
}

func (t *twin) fill(c int, order []int64, picks map[int64]pick, first int64) []any {
	p := t.p
	typ := callType(p, c)
	out := make([]any, len(order))
	for i, w := range order {
		k := picks[w]
		if k.ok { // its value may be null, as stddev of one point
			out[i] = k.value
			continue
		}
		filled := p.Interval.Every > 0 && len(picks) > 0 && w >= first
		isCount := p.Calls[c].Func == planner.Count || p.Calls[c].Func == planner.CountDistinct
		switch p.Fill.Kind {
		case planner.FillNumber:
			out[i] = cast(p.Fill.Number, typ)
			if typ == dsdb.Boolean {
				out[i] = false
			} else if typ == dsdb.String {
				out[i] = ""
			}
		case planner.FillPrevious:
			if i > 0 && p.Interval.Every > 0 {
				out[i] = out[i-1]
			}
		case planner.FillNull:
			if filled && isCount {
				out[i] = int64(0)
			}
		case planner.FillLinear:
			if filled && !k.ok {
				out[i] = t.line(i, order, picks)
			}
		}
	}
	return out
}

// line interpolates between the nearest points before and after row i.
func (t *twin) line(i int, order []int64, picks map[int64]pick) any {
	before, after := i-1, i+1
	for before >= 0 && picks[order[before]].value == nil {
		before--
	}
	for after < len(order) && !picks[order[after]].ok {
		after++
	}
	if before < 0 || after >= len(order) || picks[order[after]].value == nil {
		return nil
	}
	a, b := picks[order[before]].value, picks[order[after]].value
	x, ok := cast(a, dsdb.Float).(float64)
	y, ok2 := cast(b, dsdb.Float).(float64)
	if !ok || !ok2 {
		return nil
	}
	every := t.p.Interval.Every
	d := func(j int) float64 { return float64(order[j]/every - order[before]/every) }
	return cast((y-x)/d(after)*d(i)+x, typeOf(a))
}

func less(a, b any) bool { return compareAny(planner.OpLess, a, b) }

// call computes one aggregate over the points of a window, which ascend by time.
func (t *twin) call(c int, pts []point) pick {
	call := t.p.Calls[c]
	switch call.Func {
	case planner.Count:
		return pick{ok: true, value: int64(len(pts))}
	case planner.CountDistinct:
		return pick{ok: true, value: int64(len(t.distinct(call.Ref, map[int64][]point{0: pts})))}
	case planner.First, planner.Last:
		return t.edge(call, pts)
	case planner.Min, planner.Max, planner.Percentile, planner.Mode, planner.Spread, planner.Median:
		return t.ranked(call, pts)
	}
	total, n := 0.0, float64(len(pts))
	for _, pt := range pts {
		total += t.number(pt, call.Ref)
	}
	switch {
	case call.Func == planner.Sum:
		return pick{ok: true, value: cast(total, t.p.Refs[call.Ref].Type)}
	case call.Func == planner.Mean:
		return pick{ok: true, value: total / n}
	case n < 2:
		return pick{ok: true}
	}
	v := 0.0
	for _, pt := range pts {
		v += (t.number(pt, call.Ref) - total/n) * (t.number(pt, call.Ref) - total/n)
	}
	return pick{ok: true, value: math.Sqrt(v / (n - 1))}
}

func (t *twin) number(pt point, ref int) float64 {
	return cast(t.ref(pt, ref, nil), dsdb.Float).(float64)
}

// edge is first() and last(): of points of one time that with the greater
// value, but first() of booleans takes false.
func (t *twin) edge(call planner.Call, pts []point) pick {
	best := pts[0]
	for _, pt := range pts[1:] {
		a, b := t.ref(best, call.Ref, nil), t.ref(pt, call.Ref, nil)
		sooner, greater := pt.time < best.time, less(a, b)
		if call.Func == planner.Last {
			sooner = pt.time > best.time
		} else if t.p.Refs[call.Ref].Type == dsdb.Boolean {
			greater = less(b, a)
		}
		if sooner || pt.time == best.time && greater {
			best = pt
		}
	}
	return pick{true, t.ref(best, call.Ref, nil), best}
}

// ranked are the aggregates that look at the values in their order.
func (t *twin) ranked(call planner.Call, pts []point) pick {
	value := func(pt point) any { return t.ref(pt, call.Ref, nil) }
	sorted := slices.Clone(pts)
	slices.SortStableFunc(sorted, func(x, y point) int {
		switch {
		case less(value(x), value(y)):
			return -1
		case less(value(y), value(x)):
			return 1
		}
		return int(x.time - y.time)
	})
	n := len(sorted)
	at := 0
	switch call.Func {
	case planner.Max:
		for at = n - 1; at > 0 && !less(value(sorted[at-1]), value(sorted[at])); at-- {
		}
	case planner.Percentile:
		if at = int(math.Floor(float64(n)*call.N/100+0.5)) - 1; at < 0 || at >= n {
			return pick{}
		}
	case planner.Mode:
		return pick{ok: true, value: t.mode(call.Ref, sorted, t.p.Refs[call.Ref].Type)}
	case planner.Spread:
		d := t.number(sorted[n-1], call.Ref) - t.number(sorted[0], call.Ref)
		return pick{ok: true, value: cast(d, t.p.Refs[call.Ref].Type)}
	case planner.Median:
		hi := t.number(sorted[n/2], call.Ref)
		if n%2 == 1 {
			return pick{ok: true, value: hi}
		}
		lo := t.number(sorted[n/2-1], call.Ref)
		return pick{ok: true, value: lo + (hi-lo)/2}
	}
	return pick{true, value(sorted[at]), sorted[at]}
}

func (t *twin) mode(ref int, sorted []point, typ dsdb.FieldType) any {
	count := map[any]int{}
	for _, pt := range sorted {
		count[t.ref(pt, ref, nil)]++
	}
	if typ == dsdb.Boolean {
		return count[true] >= count[false]
	}
	mostFreq, currFreq := 0, 0
	curr, most := t.ref(sorted[0], ref, nil), t.ref(sorted[0], ref, nil)
	mostTime, currTime := sorted[0].time, sorted[0].time
	for _, pt := range sorted {
		v := t.ref(pt, ref, nil)
		if v != curr {
			currFreq, curr, currTime = 1, v, pt.time
			continue
		}
		currFreq++
		if mostFreq > currFreq || mostFreq == currFreq && currTime > mostTime {
			continue
		}
		mostFreq, most, mostTime = currFreq, v, pt.time
	}
	return most
}

// distinct gives a row per distinct value of a window, by first appearance.
func (t *twin) distinct(ref int, windows map[int64][]point) [][]any {
	var starts []int64
	for w := range windows {
		starts = append(starts, w)
	}
	slices.Sort(starts)
	if t.p.Descending {
		slices.Reverse(starts)
	}
	var rows [][]any
	for _, w := range starts {
		pts := slices.Clone(windows[w])
		slices.SortStableFunc(pts, func(x, y point) int {
			if x.time != y.time {
				if t.p.Descending {
					return int(y.time - x.time)
				}
				return int(x.time - y.time)
			}
			if less(t.ref(x, ref, nil), t.ref(y, ref, nil)) {
				return -1
			}
			return 1
		})
		seen := map[any]bool{}
		for _, pt := range pts {
			v := t.ref(pt, ref, nil)
			if seen[v] {
				continue
			}
			seen[v] = true
			tm := w
			if t.p.Interval.Every == 0 {
				if tm = t.p.Range.Start; tm <= dsdb.MinTime {
					tm = 0
				}
			}
			rows = append(rows, []any{tm, v})
		}
	}
	return rows
}
