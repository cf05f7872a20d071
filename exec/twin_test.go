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
		if a == nil && e.Left.Op == planner.OpRef || b == nil && e.Right.Op == planner.OpRef {
			return false
		}
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
