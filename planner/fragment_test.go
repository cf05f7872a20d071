package planner

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/wire"
	"github.com/dasudian/dsdb/ql"
)

// fragmentOf is what AppendFragment says that it keeps of a plan.
func fragmentOf(p *Select) *Select {
	f := &Select{Range: p.Range, Tags: p.Tags, Residual: p.Residual, Interval: p.Interval, Refs: p.Refs, Calls: p.Calls,
		Selector: p.Selector, DistinctRows: p.DistinctRows, Descending: p.Descending, Limit: p.Limit, Offset: p.Offset}
	for _, c := range p.Columns {
		f.Columns = append(f.Columns, Column{Expr: c.Expr})
	}
	return f
}

// there sends a fragment through its encoding and checks that it comes back.
func there(t *testing.T, p *Select) {
	t.Helper()
	b := AppendFragment(nil, p)
	r := wire.NewReader(b)
	got, err := DecodeFragment(r)
	if err == nil {
		err = r.End()
	}
	if err != nil {
		t.Fatalf("%s: %v", p, err)
	}
	if again := AppendFragment(nil, got); string(again) != string(b) {
		t.Fatalf("%s: encoded again it differs", p)
	}
	if want := fragmentOf(p); !reflect.DeepEqual(got, want) && !hasNaN(p) {
		t.Fatalf("%s\ngot  %s\nwant %s", p, got, want)
	}
}

// hasNaN reports whether a plan holds what equals nothing.
func hasNaN(p *Select) (found bool) {
	look := func(e *Expr) { found = found || e.Value.Float != e.Value.Float }
	walkExpr(p.Residual, look)
	for _, c := range p.Columns {
		walkExpr(c.Expr, look)
	}
	for _, c := range p.Calls {
		found = found || c.N != c.N
	}
	return found
}

var oddNaN = math.Float64frombits(0x7ff8_1234_5678_9abc)

var fragmentStatements = []string{
	"SELECT v FROM m", "SELECT *, v + 2.5 FROM m WHERE h = 'a' OR h =~ /x|y/ ORDER BY time DESC LIMIT 3 OFFSET 1",
	"SELECT mean(v), percentile(i, 12.5) FROM m WHERE time > 5s AND time < 50s AND (v > 0.1 OR s = 'x' AND i != -9223372036854775807) GROUP BY time(7s, 2s), h fill(3) tz('Europe/Berlin')",
	"SELECT last(v), h, i & 6 FROM m WHERE h != '' AND r !~ /^$/", "SELECT distinct(s) FROM m WHERE o = true", "SELECT count(nothing) FROM m",
	"SELECT first(v) / 0 FROM m WHERE h = v AND v = 1 / 0 GROUP BY *", "SELECT max(v) - min(v), count(distinct(s)) FROM m WHERE s =~ /a.*b(?i)c/ AND h != 'x' AND r = 'y'",
	"SELECT u FROM m WHERE u > 9223372036854775808 AND i % 3 = 1 AND o = false",
}

func fragmentPlan(t testing.TB, text string) *Select {
	c := &textCatalog{policies: []string{"db.rp"}, byName: map[string]*textMeasurement{"db.rp m": {tags: []string{"h", "r"},
		fields: map[string]dsdb.FieldType{"v": dsdb.Float, "i": dsdb.Integer, "u": dsdb.Unsigned, "s": dsdb.String, "o": dsdb.Boolean}}}}
	stmts, err := ql.Parse(text, nil)
	if err != nil {
		t.Fatal(text, err)
	}
	p, err := Compile(stmts[0], c, Options{DefaultDB: "db"})
	if err != nil {
		t.Fatal(text, err)
	}
	return p.(*Select)
}

// TestFragmentOfStatements says that what statements compile to survives the way to another node.
func TestFragmentOfStatements(t *testing.T) {
	for _, text := range fragmentStatements {
		there(t, fragmentPlan(t, text))
	}
}

// TestFragmentRoundTrip says the same of random plans, with every bit of their floats.
func TestFragmentRoundTrip(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 5))
		p := &Select{Range: dsdb.TimeRange{Start: r.Int64() - r.Int64(), End: math.MaxInt64 - int64(seed)},
			Interval: Interval{r.Int64N(1 << 40), -r.Int64N(1 << 40)}, Descending: r.IntN(2) == 0, Limit: r.IntN(9), Offset: r.IntN(9)}
		for i := range 1 + r.IntN(5) {
			p.Refs = append(p.Refs, Ref{Name: fmt.Sprintf("f\x00%d", i), Tag: i > 0 && r.IntN(3) == 0, Type: dsdb.FieldType(1 + r.IntN(3))})
		}
		for range r.IntN(4) {
			p.Calls = append(p.Calls, Call{Func: Func(r.IntN(int(Mode) + 1)), N: randomFloat(r), Type: dsdb.Float})
		}
		if n := len(p.Calls); n == 1 && p.Calls[0].Func == Distinct {
			p.DistinctRows = true
		} else if n == 1 && p.Calls[0].Func == Percentile {
			p.Selector = true
		}
		p.Residual = randomExpr(r, len(p.Refs), 0, 5)
		p.Tags = randomTags(r, 4)
		p.Columns = []Column{{Expr: randomExpr(r, len(p.Refs), len(p.Calls), 3)}}
		there(t, p)
	}
}

func randomFloat(r *rand.Rand) float64 {
	return []float64{math.Inf(1), math.Inf(-1), oddNaN, math.Copysign(0, -1), r.NormFloat64(), math.SmallestNonzeroFloat64}[r.IntN(6)]
}

func randomExpr(r *rand.Rand, refs, calls, depth int) *Expr {
	if depth == 0 || r.IntN(4) == 0 {
		switch r.IntN(3) {
		case 0:
			if calls > 0 {
				return &Expr{Op: OpCall, Type: dsdb.Float, Index: r.IntN(calls)}
			}
			return &Expr{Op: OpRef, Type: dsdb.Float, Index: r.IntN(refs)}
		case 1:
			return &Expr{Op: OpConst, Type: dsdb.Float, Value: Value{Type: dsdb.Float, Float: randomFloat(r)}}
		}
		return &Expr{Op: OpConst, Type: dsdb.String, Value: Value{Type: dsdb.String, Str: "x'\xff"}}
	}
	if r.IntN(5) == 0 {
		return &Expr{Op: OpMatch, Type: dsdb.Boolean, Left: randomExpr(r, refs, calls, depth-1), Regex: regexp.MustCompile("a+(b|c)?")}
	}
	ops := []Op{OpAdd, OpMod, OpBitXor, OpEqual, OpGreaterEqual, OpAnd, OpOr}
	return &Expr{Op: ops[r.IntN(len(ops))], Type: dsdb.Boolean, Left: randomExpr(r, refs, calls, depth-1), Right: randomExpr(r, refs, calls, depth-1)}
}

func randomTags(r *rand.Rand, depth int) *dsdb.TagExpr {
	if depth == 0 || r.IntN(3) == 0 {
		if r.IntN(2) == 0 {
			return &dsdb.TagExpr{Op: dsdb.TagNotMatch, Key: "k", Regex: regexp.MustCompile("^é$")}
		}
		return &dsdb.TagExpr{Op: dsdb.TagNotEqual, Key: "k\n", Value: "v"}
	}
	e := &dsdb.TagExpr{Op: dsdb.TagOp(r.IntN(2))}
	for range 1 + r.IntN(3) {
		e.Args = append(e.Args, randomTags(r, depth-1))
	}
	return e
}

// TestFragmentRefused names what a fragment may not be.
func TestFragmentRefused(t *testing.T) {
	deep := &Expr{Op: OpConst, Type: dsdb.Boolean, Value: Value{Type: dsdb.Boolean, Int: 1}}
	for range maxDepth {
		deep = &Expr{Op: OpAnd, Type: dsdb.Boolean, Left: deep, Right: &Expr{Op: OpConst}}
	}
	for _, c := range []struct {
		change func(*Select)
		want   string
	}{
		{func(p *Select) { p.Calls[0].Ref = 9 }, "call of ref 9"},
		{func(p *Select) { p.Calls[0].Func = Mode + 1 }, "function 14"},
		{func(p *Select) { p.Refs[0].Type = dsdb.String }, "function 2 of type string"},
		{func(p *Select) { p.Refs[0].Type = 99 }, "type 99"},
		{func(p *Select) { p.Columns[0].Expr = &Expr{Op: OpRef, Index: 5} }, "ref 5 of 1"},
		{func(p *Select) { p.Columns[0].Expr = &Expr{Op: OpCall, Index: 5} }, "call 5 of 1"},
		{func(p *Select) { p.Columns[0].Expr = nil }, "column without expression"},
		{func(p *Select) { p.Residual = &Expr{Op: OpCall} }, "call 0 of 0"},
		{func(p *Select) { p.Residual = &Expr{Op: OpOr + 1, Left: &Expr{}, Right: &Expr{}} }, "operation 21"},
		{func(p *Select) { p.Residual = &Expr{Op: OpAdd} }, "operation 3 without operands"},
		{func(p *Select) { p.Residual = deep }, "nested more than 65536 times"},
		{func(p *Select) { p.Tags = &dsdb.TagExpr{Op: 17} }, "operation 17 on tags"},
		{func(p *Select) { p.Tags = &dsdb.TagExpr{Op: dsdb.TagAnd} }, "operation without operands"},
		{func(p *Select) { p.Selector = true }, "function 2 picks no point"},
		{func(p *Select) { p.DistinctRows = true }, "function 2 gives no distinct rows"},
		{func(p *Select) { p.Calls = nil; p.Columns[0].Expr = &Expr{}; p.Selector = true }, "0 calls where one is picked"},
		{func(p *Select) { p.Interval.Every = -1 }, "windows of length -1"},
	} {
		p := fragmentPlan(t, "SELECT mean(v) FROM m")
		c.change(p)
		_, err := DecodeFragment(wire.NewReader(AppendFragment(nil, p)))
		if err == nil || dsdb.KindOf(err) != dsdb.KindInvalid || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	if _, err := DecodeFragment(wire.NewReader([]byte{9})); err == nil || !strings.HasSuffix(err.Error(), "fragment of version 9, this is 1") {
		t.Error(err)
	}
}

// FuzzFragment says that no input makes the decoder panic or give more than it
// encodes again.
func FuzzFragment(f *testing.F) {
	for _, text := range fragmentStatements {
		f.Add(AppendFragment(nil, fragmentPlan(f, text)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodeFragment(wire.NewReader(b))
		if err != nil {
			if dsdb.KindOf(err) != dsdb.KindInvalid {
				t.Fatal(err)
			}
			return
		}
		there(t, p)
	})
}
