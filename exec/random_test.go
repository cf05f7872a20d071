package exec

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/planner"
	"github.com/dasudian/dsdb/ql"
)

const second = int64(1e9)

// randomWorld makes series of measurement m with the tags a and b in two time
// groups of two shards each. In one shard field f is an integer, in the others
// a float. With ties several series have points of one time.
func randomWorld(r *rand.Rand, ties bool) *world {
	byShard := make([][]point, 4)
	n, sparse := 0, 1+r.IntN(4)
	wide := oneOf(r, 8, 8, 100)
	for _, a := range []string{"", "x", "y", "yy"} {
		for _, b := range []string{"", "1", "2"} {
			if r.IntN(4) == 0 {
				continue
			}
			n++
			var tags dsdb.Tags
			if a != "" {
				tags = append(tags, dsdb.Tag{Key: "a", Value: a})
			}
			if b != "" {
				tags = append(tags, dsdb.Tag{Key: "b", Value: b})
			}
			part := r.IntN(2)
			for s := int64(0); s < 200; s++ {
				if r.IntN(sparse) > 0 || s > 40 && s < 70 {
					continue
				}
				t := s * second
				if !ties {
					t += int64(n)
				}
				shard := int(s/100)*2 + part
				byShard[shard] = append(byShard[shard], randomPoint(r, tags, t, shard == 1))
			}
		}
	}
	w := &world{}
	for i, pts := range byShard {
		start := int64(i/2) * 100 * second
		s := newMemShard(dsdb.ShardID(i+1), dsdb.TimeRange{Start: start, End: start + 100*second}, pts, r.Uint64())
		s.wide, s.eager = wide, r.IntN(2) == 0
		w.shards = append(w.shards, s)
	}
	return w
}

func randomPoint(r *rand.Rand, tags dsdb.Tags, t int64, intF bool) point {
	p := point{measurement: "m", tags: tags, time: t, fields: map[string]any{}}
	for len(p.fields) == 0 {
		if r.IntN(4) > 0 {
			p.fields["f"] = float64(r.IntN(40)-20) / 4
			if intF {
				p.fields["f"] = int64(r.IntN(10) - 5)
			}
		}
		if r.IntN(4) > 0 {
			p.fields["i"] = int64(r.IntN(20) - 10)
		}
		if r.IntN(2) > 0 {
			p.fields["u"] = uint64(r.IntN(20))
		}
		if r.IntN(2) > 0 {
			p.fields["o"] = r.IntN(2) > 0
		}
		if r.IntN(2) > 0 {
			p.fields["s"] = []string{"red", "green", "blue", ""}[r.IntN(4)]
		}
	}
	return p
}

func oneOf[T any](r *rand.Rand, v ...T) T { return v[r.IntN(len(v))] }

// randomQuery writes a SELECT over randomWorld. companions: the statement may
// pick other columns beside a selector.
func randomQuery(r *rand.Rand, companions bool) string {
	var q strings.Builder
	q.WriteString("SELECT ")
	raw := r.IntN(3) == 0
	windowed := !raw && r.IntN(4) > 0
	switch {
	case raw:
		q.WriteString(oneOf(r, "f", "*", "i, f, a", "b, o", "f + i, s", "i & 6, i | 1, i ^ 3", "f + 2.5, f", "u, i / f, f % i, u + 3", "a, s, i * 2 - f", "nothing, f", "i - 3, o"))
	case companions:
		q.WriteString(oneOf(r, "max(f), a, s", "min(i), *", "first(u), b, f + 1", "last(s), i, a", "percentile(i, 50), f, b", "last(o), u"))
	default:
		q.WriteString(randomCalls(r))
	}
	q.WriteString(" FROM m")
	var where []string
	lo, hi := r.Int64N(120), 100+r.Int64N(120)
	bounded := r.IntN(3) > 0
	if bounded {
		where = append(where, fmt.Sprintf("time >= %ds", lo))
	}
	if windowed || r.IntN(2) == 0 {
		where = append(where, fmt.Sprintf("time < %ds", hi))
	}
	filtered := r.IntN(2) == 0
	if filtered {
		where = append(where, "("+randomCondition(r, 2)+")")
	}
	if len(where) > 0 {
		q.WriteString(" WHERE " + strings.Join(where, " AND "))
	}
	var by []string
	if windowed {
		by = append(by, oneOf(r, "time(7s)", "time(20s, 3s)", "time(1m)", "time(10s)", "time(33s, -5s)"))
	}
	by = append(by, oneOf(r, nil, []string{"a"}, []string{"b", "a"}, []string{"*"}, []string{"a", "nosuch"})...)
	if len(by) > 0 {
		q.WriteString(" GROUP BY " + strings.Join(by, ", "))
	}
	if windowed {
		q.WriteString(oneOf(r, "", "", " fill(none)", " fill(-3)", " fill(7)", " fill(previous)", " fill(linear)"))
	}
	if r.IntN(2) == 0 {
		q.WriteString(" ORDER BY time DESC")
	}
	if r.IntN(2) == 0 {
		fmt.Fprintf(&q, " LIMIT %d", 1+r.IntN(6))
	}
	if r.IntN(3) == 0 {
		fmt.Fprintf(&q, " OFFSET %d", r.IntN(5))
	}
	if !filtered && r.IntN(4) == 0 {
		fmt.Fprintf(&q, " SLIMIT %d SOFFSET %d", 1+r.IntN(3), r.IntN(3))
	}
	return q.String()
}

func randomCalls(r *rand.Rand) string {
	if r.IntN(8) == 0 {
		return oneOf(r, "distinct(f)", "distinct(s)", "distinct(i)", "distinct(o)", "distinct(u)")
	}
	n := 1 + r.IntN(3)
	var calls []string
	for range n {
		f := oneOf(r, "count", "sum", "mean", "min", "max", "first", "last", "spread", "stddev", "median", "percentile", "mode", "countdistinct")
		field := oneOf(r, "f", "i", "u")
		switch f {
		case "count", "first", "last", "mode", "countdistinct":
			field = oneOf(r, "f", "i", "u", "o", "s", "nothing")
		case "min", "max":
			field = oneOf(r, "f", "i", "u", "o")
		}
		switch f {
		case "percentile":
			calls = append(calls, fmt.Sprintf("percentile(%s, %d)", field, r.IntN(101)))
		case "countdistinct":
			calls = append(calls, fmt.Sprintf("count(distinct(%s))", field))
		default:
			calls = append(calls, fmt.Sprintf("%s(%s)", f, field))
		}
	}
	if r.IntN(4) == 0 {
		calls = append(calls, oneOf(r, "max(f) - min(f)", "sum(i) / count(i)", "mean(f) * 2", "last(u) % 3", "sum(i) / 0"))
	}
	return strings.Join(calls, ", ")
}

func randomCondition(r *rand.Rand, depth int) string {
	if depth > 0 && r.IntN(2) == 0 {
		return "(" + randomCondition(r, depth-1) + oneOf(r, " AND ", " OR ") + randomCondition(r, depth-1) + ")"
	}
	op := oneOf(r, "=", "!=", "<", "<=", ">", ">=")
	eq := oneOf(r, "=", "!=")
	switch r.IntN(10) {
	case 0:
		return fmt.Sprintf("f %s %g", op, float64(r.IntN(40)-20)/4)
	case 1:
		return fmt.Sprintf("i %s %d", op, r.IntN(20)-10)
	case 2:
		return fmt.Sprintf("%g %s i", float64(r.IntN(40)-20)/2, op)
	case 3:
		return fmt.Sprintf("u %s %d", op, r.IntN(20))
	case 4:
		return "o " + eq + oneOf(r, " true", " false")
	case 5:
		return "s " + eq + oneOf(r, " 'red'", " ''", " a")
	case 6:
		return "s " + oneOf(r, "=~", "!~") + " /e+[nd]/"
	case 7:
		return "a " + eq + oneOf(r, " 'x'", " ''", " 'y'")
	case 8:
		return "b " + oneOf(r, "=~", "!~") + " /1/"
	}
	return fmt.Sprintf("f + i %s u - 10", op)
}

// compile plans a SELECT over the world.
func compile(w *world, text string) (*planner.Select, error) {
	stmts, err := ql.Parse(text, nil)
	if err != nil {
		return nil, err
	}
	p, err := planner.Compile(stmts[0], w, planner.Options{DefaultDB: "db", Now: 220 * second})
	if err != nil {
		return nil, err
	}
	return p.(*planner.Select), nil
}

// TestRandomQueries compares random statements over random shards with the slow twin.
func TestRandomQueries(t *testing.T) {
	seeds := 600
	if testing.Short() {
		seeds = 300
	}
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 1))
		companions := r.IntN(4) == 0
		w := randomWorld(r, !companions)
		text := randomQuery(r, companions)
		p, err := compile(w, text)
		if err != nil {
			t.Fatalf("seed %d: %s: %v", seed, text, err)
		}
		o := Options{Workers: 1 + r.IntN(3), ChunkRows: 1 + r.IntN(9)}
		if r.IntN(4) == 0 {
			o.MemoryLimit = oneOf[int64](r, 5, 10, 20, 40) << 10
		}
		ctx := context.Background()
		res, err := Run(ctx, p, w.open, o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := printFrames(ctx, res)
		if err != nil {
			if o.MemoryLimit > 0 && dsdb.KindOf(err) == dsdb.KindTooLarge {
				continue
			}
			t.Fatalf("seed %d: %s: %v", seed, text, err)
		}
		if want := answerSlowly(p, w); rounded(got) != rounded(want) {
			t.Fatalf("seed %d: %s\n%s\ngot\n%s\nwant\n%s", seed, text, p, got, want)
		}
		for _, s := range w.shards {
			if len(s.scans) > 0 && !s.closed {
				t.Fatalf("seed %d: shard %d is still open", seed, s.id)
			}
		}
	}
}

// rounded cuts numbers to ten digits: the order of additions is not fixed.
func rounded(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\n' })
	for i, w := range words {
		if f, err := strconv.ParseFloat(w, 64); err == nil && strings.Contains(w, ".") {
			words[i] = strconv.FormatFloat(math.Round(f*1e9)/1e9, 'g', -1, 64)
		}
	}
	return strings.Join(words, " ")
}
