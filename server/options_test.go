package server

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var (
	optionSeeds = flag.Uint64("seeds", 3, "compare answers under random options for so many seeds")
	optionSeed  = flag.Uint64("seed", 0, "compare answers for this seed alone")
)

// world is a database somewhere, with options of its own.
type world struct {
	name  string
	nodes []*client
	db    string
}

// any is one of the nodes.
func (w *world) any(r *rand.Rand) *client { return w.nodes[r.IntN(len(w.nodes))] }

// Whatever is written and deleted, answers do not depend on how many nodes,
// copies and partitions there are, how long time groups are, when memtables are
// flushed and files merged, and how copies are moved meanwhile: they are what the
// obvious database says, and in all worlds the same.
func TestAnswersDoNotDependOnOptions(t *testing.T) {
	t.Parallel()
	one, three := openCluster(t, 1), openCluster(t, 3)
	for seed := range *optionSeeds {
		if seed++; *optionSeed > 0 {
			seed = *optionSeed
		}
		if compareWorlds(t, seed, one, three); t.Failed() || *optionSeed > 0 {
			return
		}
	}
}

// compareWorlds runs one seed.
func compareWorlds(t *testing.T, seed uint64, one, three []*client) {
	defer func() {
		if t.Failed() {
			t.Logf("replay: go test ./server -run TestAnswersDoNotDependOnOptions -seed=%d", seed)
		}
	}()
	r := rand.New(rand.NewPCG(seed, 5))
	worlds := []*world{newWorld(r, one, 1), newWorld(r, three, 1), newWorld(r, three, 2+r.IntN(2))}
	twin := twinDatabase{}
	for range 40 {
		switch lot := r.IntN(10); {
		case lot < 5:
			rows := randomRows(r)
			twin.write(rows)
			for _, w := range worlds {
				w.any(r).mustWrite(w.db, lines(rows))
			}
		case lot < 6:
			text := twin.delete(r)
			for _, w := range worlds {
				w.any(r).mustQuery(w.db, text)
			}
		default:
			for _, w := range worlds {
				w.stir(r)
			}
		}
		text, want := twin.rows(r)
		expectEverywhere(t, seed, r, worlds, text, want)
		text, want = twin.aggregates(r)
		expectEverywhere(t, seed, r, worlds, text, want)
		text = randomSelect(r)
		expectEverywhere(t, seed, r, worlds, text, worlds[0].any(r).mustQuery(worlds[0].db, text))
		if t.Failed() {
			return
		}
	}
	for _, w := range worlds {
		w.any(r).mustQuery("", "DROP DATABASE "+w.db)
	}
}

func newWorld(r *rand.Rand, nodes []*client, copies int) *world {
	w := &world{nodes: nodes, db: fmt.Sprintf("db%d", r.Uint64())}
	options := fmt.Sprintf("DURATION 0s REPLICATION %d SHARD DURATION %s", copies, []string{"1h", "2h", "1d"}[r.IntN(3)])
	w.name = fmt.Sprintf("%d nodes, %s", len(nodes), options)
	w.any(r).mustQuery("", fmt.Sprintf("CREATE DATABASE %s WITH %s", w.db, options))
	return w
}

// stir does what must not be seen in any answer: some replicas flush or merge
// their files, or there are to be more copies or fewer.
func (w *world) stir(r *rand.Rand) {
	if len(w.nodes) > 1 && r.IntN(4) == 0 {
		w.any(r).mustQuery("", fmt.Sprintf("ALTER RETENTION POLICY autogen ON %s REPLICATION %d", w.db, 1+r.IntN(len(w.nodes))))
	}
	for _, c := range w.nodes {
		for _, s := range c.node.shards.list() {
			switch r.IntN(4) { // an error is that of a shard that is on its way out: others tell if it is not
			case 0:
				if rose, err := s.Flush(); err == nil && rose {
					managed{c.node}.Flushed(s.id)
				}
			case 1:
				_, _ = s.Compact(r.IntN(2) == 0)
			}
		}
	}
}

// expectEverywhere asks each world, through any of its nodes.
func expectEverywhere(t *testing.T, seed uint64, r *rand.Rand, worlds []*world, text, want string) {
	t.Helper()
	for _, w := range worlds {
		if got := w.any(r).mustQuery(w.db, text); got != want {
			t.Errorf("seed %d, %s: %s\ngot:\n%s\nwant:\n%s", seed, w.name, text, got, want)
		}
	}
}

// row is one point: i and s may be missing, and one tag.
type row struct {
	host, zone string
	time       int64
	fields     map[string]string // as in line protocol
}

func (p row) key() [2]string { return [2]string{p.host, p.zone} }

const sixHours = 6 * 3600

// randomRows makes points of a few series within six hours, no two series of
// which have a point at the same time. Often one overwrites an earlier one.
func randomRows(r *rand.Rand) (rows []row) {
	hosts, zones := []string{"a", "b", "c", "d"}, []string{"", "x", "y"}
	start := r.Int64N(sixHours)
	for range 1 + r.IntN(40) {
		h, z := r.IntN(len(hosts)), r.IntN(len(zones))
		second := start + r.Int64N(600)
		if r.IntN(4) == 0 {
			second = r.Int64N(sixHours)
		}
		p := row{host: hosts[h], zone: zones[z], time: second/60*60*1e9 + int64(10*h+z), fields: map[string]string{"f": fmt.Sprint(float64(r.IntN(400)-200) / 8)}}
		if r.IntN(2) == 0 {
			p.fields["i"] = fmt.Sprintf("%di", r.IntN(100)-50)
		}
		if r.IntN(3) == 0 {
			p.fields["s"] = fmt.Sprintf("%q", []string{"red", "green", ""}[r.IntN(3)])
			if r.IntN(2) == 0 {
				delete(p.fields, "f")
			}
		}
		rows = append(rows, p)
	}
	return rows
}

// lines writes points as line protocol.
func lines(rows []row) string {
	var b strings.Builder
	for _, p := range rows {
		b.WriteString("m,host=" + p.host)
		if p.zone != "" {
			b.WriteString(",zone=" + p.zone)
		}
		var fields []string
		for _, name := range slices.Sorted(maps.Keys(p.fields)) {
			fields = append(fields, name+"="+p.fields[name])
		}
		fmt.Fprintf(&b, " %s %d\n", strings.Join(fields, ","), p.time)
	}
	return b.String()
}

// twinDatabase is the obvious database: series to time to field to value.
type twinDatabase map[[2]string]map[int64]map[string]string

func (w twinDatabase) write(rows []row) {
	for _, p := range rows {
		if w[p.key()] == nil {
			w[p.key()] = map[int64]map[string]string{}
		}
		if w[p.key()][p.time] == nil {
			w[p.key()][p.time] = map[string]string{}
		}
		maps.Copy(w[p.key()][p.time], p.fields)
	}
}

// delete deletes something at random and returns the statement.
func (w twinDatabase) delete(r *rand.Rand) string {
	host := string("abcd"[r.IntN(4)])
	if r.IntN(4) == 0 {
		maps.DeleteFunc(w, func(key [2]string, _ map[int64]map[string]string) bool { return key[0] == host })
		return fmt.Sprintf("DROP SERIES FROM m WHERE host = '%s'", host)
	}
	lo := r.Int64N(sixHours) * 1e9
	hi := lo + r.Int64N(sixHours)*1e9/4
	for key, rows := range w {
		if key[0] == host {
			maps.DeleteFunc(rows, func(at int64, _ map[string]string) bool { return at >= lo && at < hi })
		}
	}
	return fmt.Sprintf("DELETE FROM m WHERE host = '%s' AND time >= %d AND time < %d", host, lo, hi)
}

// within returns a random part of the time, and the condition for it.
func within(r *rand.Rand) (lo, hi int64, where string) {
	lo = r.Int64N(sixHours) * 1e9
	hi = lo + r.Int64N(sixHours)*1e9
	return lo, hi, fmt.Sprintf("time >= %d AND time < %d", lo, hi)
}

// rows asks for all values in a part of the time.
func (w twinDatabase) rows(r *rand.Rand) (text, want string) {
	lo, hi, where := within(r)
	var out []string
	for _, key := range slices.SortedFunc(maps.Keys(w), func(a, b [2]string) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) }) {
		for _, at := range slices.Sorted(maps.Keys(w[key])) {
			if at < lo || at >= hi {
				continue
			}
			line := fmt.Sprintf("m,host=%s,zone=%s time=%d", key[0], key[1], at)
			for _, name := range []string{"f", "i", "s"} {
				if v, ok := w[key][at][name]; ok {
					line += " " + name + "=" + strings.Trim(strings.TrimSuffix(v, "i"), `"`)
				}
			}
			out = append(out, line)
		}
	}
	return "SELECT f, i, s FROM m WHERE " + where + " GROUP BY host, zone", strings.Join(out, "\n")
}

// aggregates asks for what is computed of each host's values in a part of the time.
func (w twinDatabase) aggregates(r *rand.Rand) (text, want string) {
	lo, hi, where := within(r)
	var out []string
	for _, host := range []string{"a", "b", "c", "d"} {
		var times []int64
		values := map[int64]float64{}
		for key, rows := range w {
			for at, fields := range rows {
				if f, ok := fields["f"]; ok && key[0] == host && at >= lo && at < hi {
					var v float64
					fmt.Sscan(f, &v)
					times, values[at] = append(times, at), v
				}
			}
		}
		if len(times) == 0 {
			continue
		}
		slices.Sort(times)
		sum, least, most := 0.0, values[times[0]], values[times[0]]
		for _, at := range times {
			sum, least, most = sum+values[at], min(least, values[at]), max(most, values[at])
		}
		out = append(out, fmt.Sprintf("m,host=%s time=%d count=%d sum=%v min=%v max=%v first=%v last=%v spread=%v", host, lo, len(times), sum, least, most,
			values[times[0]], values[times[len(times)-1]], most-least))
	}
	return "SELECT count(f), sum(f), min(f), max(f), first(f), last(f), spread(f) FROM m WHERE " + where + " GROUP BY host", strings.Join(out, "\n")
}

// randomSelect asks for what the obvious database cannot tell.
func randomSelect(r *rand.Rand) string {
	one := func(of ...string) string { return of[r.IntN(len(of))] }
	_, _, where := within(r)
	where += one("", "", " AND host = 'a'", " AND zone != ''", " AND zone = ''", " AND host =~ /[bc]/", " AND f > 3", " AND s = 'red'", " AND (i < 0 OR f < 0)")
	if r.IntN(3) == 0 {
		return fmt.Sprintf("SELECT %s FROM m WHERE %s%s%s", one("*", "f, i", "s, host", "f + i, zone"), where,
			one("", " GROUP BY host", " GROUP BY *"), one("", " LIMIT 7", " ORDER BY time DESC", " ORDER BY time DESC LIMIT 5 OFFSET 2"))
	}
	calls := one("mean(f), max(i)", "median(f)", "percentile(i, 70)", "mode(s), count(s)", "distinct(s)", "count(distinct(i))", "last(s), first(i)", "max(f), host, s", "min(i), *")
	by := one("time(10m)", "time(1h), host", "time(25m, 5m), zone", "time(2h), *")
	return fmt.Sprintf("SELECT %s FROM m WHERE %s GROUP BY %s%s%s", calls, where, by, one("", " fill(none)", " fill(previous)"), one("", "", " LIMIT 4", " ORDER BY time DESC"))
}
