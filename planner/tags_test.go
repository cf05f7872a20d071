package planner

import (
	"math/rand"
	"regexp"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/ql"
)

// row is one row of one series for the slow evaluation of conditions.
type row struct {
	tags  dsdb.Tags
	usage float64
	idle  int64
	msg   string
	ok    bool
}

// holds evaluates a condition slowly and obviously; all fields have values.
func holds(e *Expr, refs []Ref, r row) bool {
	if e == nil {
		return true
	}
	switch e.Op {
	case OpConst:
		return e.Value.Int != 0
	case OpAnd:
		return holds(e.Left, refs, r) && holds(e.Right, refs, r)
	case OpOr:
		return holds(e.Left, refs, r) || holds(e.Right, refs, r)
	case OpMatch:
		return e.Regex.MatchString(operand(e.Left, refs, r).(string))
	case OpNotMatch:
		return !e.Regex.MatchString(operand(e.Left, refs, r).(string))
	}
	a, b := operand(e.Left, refs, r), operand(e.Right, refs, r)
	if x, ok := a.(float64); ok {
		y := b.(float64)
		return map[Op]bool{OpEqual: x == y, OpNotEqual: x != y, OpLess: x < y, OpLessEqual: x <= y,
			OpGreater: x > y, OpGreaterEqual: x >= y}[e.Op]
	}
	return (a == b) == (e.Op == OpEqual)
}

func operand(e *Expr, refs []Ref, r row) any {
	if e.Op == OpConst {
		switch e.Value.Type {
		case dsdb.Integer:
			return float64(e.Value.Int)
		case dsdb.Float:
			return e.Value.Float
		case dsdb.Boolean:
			return e.Value.Int != 0
		}
		return e.Value.Str
	}
	switch ref := refs[e.Index]; {
	case ref.Tag:
		return r.tags.Get(ref.Name)
	case ref.Name == "usage":
		return r.usage
	case ref.Name == "idle":
		return float64(r.idle)
	case ref.Name == "msg":
		return r.msg
	}
	return r.ok
}

func randomCondition(rng *rand.Rand, depth int) string {
	if depth > 0 && rng.Intn(3) > 0 {
		return "(" + randomCondition(rng, depth-1) + []string{" AND ", " OR "}[rng.Intn(2)] + randomCondition(rng, depth-1) + ")"
	}
	leaves := []string{"host = 'a'", "host != 'b'", "'c' = host", "host =~ /[ab]/", "region !~ /x|^$/", "region = ''",
		"host = region", "nosuch = ''", "nosuch != 'q'", "host = 5", "msg = 'a'", "msg = host", "msg =~ /a/",
		"usage > 1", "usage <= 2.5", "idle != 2", "usage = 'x'", "ok = true", "ok != host", "true", "false"}
	return leaves[rng.Intn(len(leaves))]
}

// TestTagsAreNecessary says: a row that meets the condition has tags that meet
// Tags; and a row meets the condition if and only if it meets Tags and Residual.
func TestTagsAreNecessary(t *testing.T) {
	c := parseCatalog(t, "db.rp cpu tags=host,region usage=float idle=integer msg=string ok=boolean")
	for seed := int64(0); seed < 3000; seed++ {
		rng := rand.New(rand.NewSource(seed))
		text := "SELECT usage FROM cpu WHERE " + randomCondition(rng, 3)
		stmts, err := ql.Parse(text, nil)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		plan, err := Compile(stmts[0], c, Options{DefaultDB: "db"})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		p := plan.(*Select)
		for i := 0; i < 40; i++ {
			r := randomRow(rng)
			where := holds(p.Where, p.Refs, r)
			tags := p.Tags.Match(r.tags)
			if where && !tags {
				t.Fatalf("seed %d: %s\n%s row %+v meets the condition but not its tags", seed, text, p, r)
			}
			if split := tags && holds(p.Residual, p.Refs, r); split != where {
				t.Fatalf("seed %d: %s\n%s row %+v: condition %t, tags and residual %t", seed, text, p, r, where, split)
			}
		}
	}
}

func randomRow(rng *rand.Rand) row {
	r := row{usage: float64(rng.Intn(7)) / 2, idle: int64(rng.Intn(4)), msg: []string{"a", "b", "x", ""}[rng.Intn(4)], ok: rng.Intn(2) == 0}
	for _, k := range []string{"host", "region"} {
		if v := []string{"", "a", "b", "c", "x"}[rng.Intn(5)]; v != "" {
			r.tags = append(r.tags, dsdb.Tag{Key: k, Value: v})
		}
	}
	return r
}

// TestMatchName says that a WITH KEY condition is evaluated on the name whatever its keys are.
func TestMatchName(t *testing.T) {
	equal := func(v string) *dsdb.TagExpr { return &dsdb.TagExpr{Op: dsdb.TagEqual, Value: v} }
	in := &dsdb.TagExpr{Op: dsdb.TagOr, Args: []*dsdb.TagExpr{equal("a"), equal("b")}}
	both := &dsdb.TagExpr{Op: dsdb.TagAnd, Args: []*dsdb.TagExpr{in, {Op: dsdb.TagNotMatch, Regex: regexp.MustCompile("b")}}}
	for name, want := range map[string][2]bool{"a": {true, true}, "b": {true, false}, "c": {false, false}} {
		if got := [2]bool{MatchName(in, name), MatchName(both, name)}; got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if !MatchName(nil, "x") {
		t.Error("nil must match")
	}
}
