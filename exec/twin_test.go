package exec

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/planner"
)

// twin answers a plan the slow and obvious way: row by row, over points in
// memory, with values of any type. It shares no code with the operators.
type twin struct {
	p      *planner.Select
	points []point
	out    strings.Builder
}

// answerSlowly renders the answer to p as printFrames does.
func answerSlowly(p *planner.Select, w *world) string {
	t := &twin{p: p}
	for _, s := range p.Sources {
		t.points = nil
		least := make(map[string]bool)
		for _, sh := range s.Shards {
			for _, m := range w.shards {
				if m.id != sh.ID {
					continue
				}
				for _, pt := range m.points {
					if pt.measurement != s.Measurement || !p.Tags.Match(pt.tags) {
						continue
					}
					least[t.groupKey(pt)] = true
					if p.Range.Contains(pt.time) && t.holds(pt) {
						t.points = append(t.points, pt)
					}
				}
			}
		}
		t.source(s.Measurement, least)
	}
	return t.out.String()
}

func (t *twin) groupKey(pt point) string {
	var b strings.Builder
	for _, d := range t.p.Dims {
		b.WriteString(pt.tags.Get(d) + "\x00")
	}
	return b.String()
}

func (t *twin) source(name string, groups map[string]bool) {
	var keys []string
	for k := range groups {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	lo := min(t.p.SOffset, len(keys))
	hi := len(keys)
	if t.p.SLimit > 0 {
		hi = min(hi, lo+t.p.SLimit)
	}
	keys = keys[lo:hi]
	if t.p.Descending {
		slices.Reverse(keys)
	}
	for _, k := range keys {
		var mine []point
		for _, pt := range t.points {
			if t.groupKey(pt) == k {
				mine = append(mine, pt)
			}
		}
		var rows [][]any
		if len(t.p.Calls) == 0 {
			rows = t.raw(mine)
		} else {
			rows = t.aggregate(mine)
		}
		rows = rows[min(t.p.Offset, len(rows)):]
		if t.p.Limit > 0 {
			rows = rows[:min(t.p.Limit, len(rows))]
		}
		t.print(name, k, rows)
	}
}

func (t *twin) print(name, key string, rows [][]any) {
	if len(rows) == 0 {
		return
	}
	t.out.WriteString(name)
	for i, v := range strings.Split(key, "\x00")[:len(t.p.Dims)] {
		fmt.Fprintf(&t.out, ",%s=%s", t.p.Dims[i], v)
	}
	fmt.Fprintf(&t.out, " %s", t.p.Time)
	for _, c := range t.p.Columns {
		fmt.Fprintf(&t.out, " %s", c.Name)
	}
	t.out.WriteByte('\n')
	for _, row := range rows {
		t.out.WriteByte(' ')
		for _, v := range row {
			t.out.WriteString(" " + printAny(v))
		}
		t.out.WriteByte('\n')
	}
}

func printAny(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return "null"
		}
		return strconv.FormatFloat(v, 'g', -1, 64)
	case string:
		return strconv.Quote(v)
	}
	return fmt.Sprint(v)
}

// cast converts numbers into each other; anything else of another type is nil.
func cast(v any, to dsdb.FieldType) any {
	if typeOf(v) == to || v == nil {
		return v
	}
	var f float64
	switch v := v.(type) {
	case float64:
		switch to {
		case dsdb.Integer:
			return int64(v)
		case dsdb.Unsigned:
			return uint64(v)
		}
		return nil
	case int64:
		if to == dsdb.Unsigned {
			return uint64(v)
		}
		f = float64(v)
	case uint64:
		if to == dsdb.Integer {
			return int64(v)
		}
		f = float64(v)
	default:
		return nil
	}
	if to == dsdb.Float {
		return f
	}
	return nil
}

// ref is the value of a ref in a row; an absent tag is absent.
func (t *twin) ref(pt point, i int, absent any) any {
	r := t.p.Refs[i]
	if r.Tag {
		if v := pt.tags.Get(r.Name); v != "" {
			return v
		}
		return absent
	}
	if r.Type == dsdb.NoType {
		return nil
	}
	return cast(pt.fields[r.Name], r.Type)
}

func (t *twin) holds(pt point) bool {
	if t.p.Where == nil {
		return true
	}
	v := scalar(t.p.Where, func(i int) any { return t.ref(pt, i, "") }, nil)
	return v == true
}

// scalar evaluates an expression on single values, after the rules of influxql.
func scalar(e *planner.Expr, ref, call func(int) any) any {
	switch e.Op {
	case planner.OpConst:
		switch e.Value.Type {
		case dsdb.Float:
			return e.Value.Float
		case dsdb.Integer:
			return e.Value.Int
		case dsdb.Unsigned:
			return uint64(e.Value.Int)
		case dsdb.Boolean:
			return e.Value.Int != 0
		case dsdb.String:
			return e.Value.Str
		}
		return nil
	case planner.OpRef:
		return ref(e.Index)
	case planner.OpCall:
		return call(e.Index)
	case planner.OpMatch, planner.OpNotMatch:
		s, ok := scalar(e.Left, ref, call).(string)
		return ok && e.Regex.MatchString(s) == (e.Op == planner.OpMatch)
	}
	a, b := scalar(e.Left, ref, call), scalar(e.Right, ref, call)
	switch e.Op {
	case planner.OpAnd:
		return a == true && b == true
	case planner.OpOr:
		return a == true || b == true
	case planner.OpEqual, planner.OpNotEqual, planner.OpLess, planner.OpLessEqual, planner.OpGreater, planner.OpGreaterEqual:
		return compareAny(e.Op, a, b)
	}
	return arithmeticAny(e, a, b)
}

func compareAny(op planner.Op, a, b any) bool {
	if a == nil && b == nil {
		return false
	}
	if _, ok := b.(bool); ok && a == nil {
		a = false
	}
	if _, ok := a.(bool); ok && b == nil {
		b = false
	}
	var less, more bool
	switch x := a.(type) {
	case bool:
		y, ok := b.(bool)
		if !ok {
			return false
		}
		less, more = !x && y, x && !y
	case string:
		y, ok := b.(string)
		if !ok {
			return false
		}
		less, more = x < y, x > y
	case nil:
		return false
	default:
		f, ok := cast(a, dsdb.Float).(float64)
		g, ok2 := cast(b, dsdb.Float).(float64)
		if !ok || !ok2 {
			return false
		}
		less, more = f < g, f > g
	}
	switch op {
	case planner.OpEqual:
		return !less && !more
	case planner.OpNotEqual:
		return less || more
	case planner.OpLess:
		return less
	case planner.OpLessEqual:
		return !more
	case planner.OpGreater:
		return more
	}
	return !less
}

func arithmeticAny(e *planner.Expr, a, b any) any {
	x, okx := cast(a, dsdb.Float).(float64)
	y, oky := cast(b, dsdb.Float).(float64)
	if !okx || !oky {
		return nil
	}
	if (e.Op == planner.OpDiv || e.Op == planner.OpMod) && y == 0 {
		if e.Op == planner.OpMod && e.Type == dsdb.Float {
			return nil
		}
		return cast(float64(0), e.Type)
	}
	var r float64
	switch e.Op {
	case planner.OpAdd:
		r = x + y
	case planner.OpSub:
		r = x - y
	case planner.OpMul:
		r = x * y
	case planner.OpDiv:
		r = x / y
	case planner.OpMod:
		r = math.Mod(x, y)
	case planner.OpBitAnd:
		return a.(int64) & b.(int64)
	case planner.OpBitOr:
		return a.(int64) | b.(int64)
	case planner.OpBitXor:
		return a.(int64) ^ b.(int64)
	default:
		return nil
	}
	return cast(r, e.Type)
}

// raw merges the rows of a group by time; rows of one time are in the order of their series.
func (t *twin) raw(points []point) [][]any {
	selected := selectedRefs(t.p)
	sort.Slice(selected, func(i, j int) bool { return t.p.Refs[selected[i]].Name < t.p.Refs[selected[j]].Name })
	var keys []string
	for _, r := range selected {
		if !t.p.Refs[r].Tag {
			break
		}
		keys = append(keys, t.p.Refs[r].Name)
	}
	keys = append(keys, "a", "b") // all tag keys of the tests, sorted
	slices.SortStableFunc(points, func(x, y point) int {
		if x.time != y.time {
			return int(x.time - y.time)
		}
		for _, k := range keys {
			if c := strings.Compare(x.tags.Get(k), y.tags.Get(k)); c != 0 {
				return c
			}
		}
		return 0
	})
	if t.p.Descending {
		slices.Reverse(points)
	}
	var rows [][]any
	for _, pt := range points {
		any1 := false
		for _, r := range selected {
			any1 = any1 || !t.p.Refs[r].Tag && t.ref(pt, r, nil) != nil
		}
		if !any1 {
			continue
		}
		row := []any{pt.time}
		for _, c := range t.p.Columns {
			row = append(row, scalar(c.Expr, func(i int) any { return t.ref(pt, i, nil) }, nil))
		}
		rows = append(rows, row)
	}
	return rows
}

// pick is what a call makes of a window: nothing, or a value, perhaps null, and
// the point that it is.
type pick struct {
	ok    bool
	value any
	pt    point
}

func (t *twin) aggregate(points []point) [][]any {
	sort.SliceStable(points, func(i, j int) bool { return points[i].time < points[j].time })
	p := t.p
	windowed := p.Interval.Every > 0
	at := func(tm int64) int64 {
		if !windowed {
			return 0
		}
		return windowStart(tm, p.Interval, p.Location)
	}
	values := make([]map[int64][]point, len(p.Calls)) // per call: the points of each window
	windows := map[int64]bool{}
	for c, call := range p.Calls {
		values[c] = map[int64][]point{}
		for _, pt := range points {
			if t.ref(pt, call.Ref, nil) != nil {
				values[c][at(pt.time)] = append(values[c][at(pt.time)], pt)
			}
		}
	}
	picks := make([]map[int64]pick, len(p.Calls))
	first := make([]int64, len(p.Calls))
	for c := range p.Calls {
		picks[c] = map[int64]pick{}
		first[c] = math.MaxInt64
		for w, pts := range values[c] {
			if k := t.call(c, pts); k.ok {
				picks[c][w] = k
				windows[w] = true
				first[c] = min(first[c], w)
			}
		}
	}
	if p.DistinctRows {
		return t.distinct(p.Calls[0].Ref, values[0])
	}
	if len(windows) == 0 {
		return nil
	}
	if windowed && p.Fill.Kind != planner.FillNone {
		from := slices.Min(first)
		if p.Range.Start > dsdb.MinTime {
			from = at(p.Range.Start)
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
	var rows [][]any
	columns := make([][]any, len(p.Calls))
	for c := range p.Calls {
		columns[c] = t.fill(c, order, picks[c], first[c])
	}
	for i, w := range order {
		tm := w
		if !windowed {
			tm = max(p.Range.Start, 0)
			if p.Range.Start <= dsdb.MinTime {
				tm = 0
			}
			if p.Selector {
				tm = picks[0][w].pt.time
			}
		}
		row := []any{tm}
		for _, col := range p.Columns {
			row = append(row, scalar(col.Expr, func(r int) any {
				if k := picks[0][w]; k.ok {
					return t.ref(k.pt, r, nil)
				}
				return nil
			}, func(c int) any { return columns[c][i] }))
		}
		rows = append(rows, row)
	}
	return rows
}

func (t *twin) fill(c int, order []int64, picks map[int64]pick, first int64) []any {
	p := t.p
	typ := callType(p, c)
	out := make([]any, len(order))
	for i, w := range order {
		k := picks[w]
		if k.ok && k.value != nil {
			out[i] = k.value
			continue
		}
		filled := p.Interval.Every > 0 && len(picks) > 0 && w >= first
		isCount := p.Calls[c].Func == planner.Count || p.Calls[c].Func == planner.CountDistinct
		switch p.Fill.Kind {
		case planner.FillNumber:
			out[i] = cast(p.Fill.Number, typ)
			if typ == dsdb.Boolean {
				out[i] = p.Fill.Number != 0
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
	value := func(i int) any { return t.ref(pts[i], call.Ref, nil) }
	number := func(i int) float64 { return cast(value(i), dsdb.Float).(float64) }
	typ := t.p.Refs[call.Ref].Type
	byValue := slices.Clone(pts)
	slices.SortStableFunc(byValue, func(x, y point) int {
		a, b := t.ref(x, call.Ref, nil), t.ref(y, call.Ref, nil)
		switch {
		case less(a, b):
			return -1
		case less(b, a):
			return 1
		}
		return int(x.time - y.time)
	})
	n := len(pts)
	switch call.Func {
	case planner.Count:
		return pick{ok: true, value: int64(n)}
	case planner.CountDistinct:
		return pick{ok: true, value: int64(len(t.distinct(call.Ref, map[int64][]point{0: pts})))}
	case planner.Sum, planner.Mean:
		total := 0.0
		for i := range pts {
			total += number(i)
		}
		if call.Func == planner.Mean {
			return pick{ok: true, value: total / float64(n)}
		}
		return pick{ok: true, value: cast(total, typ)}
	case planner.Min:
		return pick{true, t.ref(byValue[0], call.Ref, nil), byValue[0]}
	case planner.Max:
		i := n - 1
		for i > 0 && !less(t.ref(byValue[i-1], call.Ref, nil), t.ref(byValue[i], call.Ref, nil)) {
			i--
		}
		return pick{true, t.ref(byValue[i], call.Ref, nil), byValue[i]}
	case planner.Spread:
		lo, hi := t.ref(byValue[0], call.Ref, nil), t.ref(byValue[n-1], call.Ref, nil)
		return pick{ok: true, value: cast(cast(hi, dsdb.Float).(float64)-cast(lo, dsdb.Float).(float64), typ)}
	case planner.First, planner.Last:
		best := 0
		for i := range pts {
			sooner := pts[i].time < pts[best].time
			if call.Func == planner.Last {
				sooner = pts[i].time > pts[best].time
			}
			greater := less(value(best), value(i))
			if typ == dsdb.Boolean && call.Func == planner.First {
				greater = less(value(i), value(best))
			}
			if sooner || pts[i].time == pts[best].time && greater {
				best = i
			}
		}
		return pick{true, value(best), pts[best]}
	case planner.Percentile:
		i := int(math.Floor(float64(n)*call.N/100+0.5)) - 1
		if i < 0 || i >= n {
			return pick{}
		}
		return pick{true, t.ref(byValue[i], call.Ref, nil), byValue[i]}
	case planner.Median:
		f := func(i int) float64 { return cast(t.ref(byValue[i], call.Ref, nil), dsdb.Float).(float64) }
		if n%2 == 1 {
			return pick{ok: true, value: f(n / 2)}
		}
		return pick{ok: true, value: f(n/2-1) + (f(n/2)-f(n/2-1))/2}
	case planner.Stddev:
		if n < 2 {
			return pick{ok: true}
		}
		mean, v := 0.0, 0.0
		for i := range pts {
			mean += number(i) / float64(n)
		}
		for i := range pts {
			v += (number(i) - mean) * (number(i) - mean)
		}
		return pick{ok: true, value: math.Sqrt(v / float64(n-1))}
	case planner.Mode:
		return pick{ok: true, value: t.mode(call.Ref, byValue, typ)}
	case planner.Distinct:
		return pick{ok: true}
	}
	panic("no such function")
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
