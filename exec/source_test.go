package exec

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// point is one row: the source of truth of the tests and of the slow twin.
// Values are float64, int64, uint64, bool or string.
type point struct {
	measurement string
	tags        dsdb.Tags
	time        int64
	fields      map[string]any
}

// memShard is a Source over points. It cuts the rows of each series into tiles
// at random, with statistics, without, or now and then.
type memShard struct {
	id     dsdb.ShardID
	rng    dsdb.TimeRange
	points []point
	wide   int     // rows of a tile at most
	known  float64 // share of the tiles' fields that have statistics
	eager  bool    // NeedRows counts rows outside of the range too
	series []memSeries

	mu     sync.Mutex
	r      *rand.Rand
	scans  []dsdb.Scan
	loads  int
	closed bool
}

type memSeries struct {
	id          dsdb.SeriesID
	measurement string
	tags        dsdb.Tags
	rows        []point
}

func newMemShard(id dsdb.ShardID, rng dsdb.TimeRange, points []point, seed uint64) *memShard {
	r := rand.New(rand.NewPCG(seed, uint64(id)))
	s := &memShard{id: id, rng: rng, points: points, r: r, wide: 8, known: 0.67}
	byKey := map[string]int{}
	for _, p := range points {
		key := string(dsdb.AppendSeriesKey(nil, p.measurement, p.tags))
		at, ok := byKey[key]
		if !ok {
			at = len(s.series)
			byKey[key] = at
			s.series = append(s.series, memSeries{measurement: p.measurement, tags: p.tags})
		}
		s.series[at].rows = append(s.series[at].rows, p)
	}
	r.Shuffle(len(s.series), func(i, j int) { s.series[i], s.series[j] = s.series[j], s.series[i] })
	for i := range s.series {
		s.series[i].id = dsdb.SeriesID(3*i + 1)
		sort.Slice(s.series[i].rows, func(a, b int) bool { return s.series[i].rows[a].time < s.series[i].rows[b].time })
	}
	return s
}

func typeOf(v any) dsdb.FieldType {
	switch v.(type) {
	case float64:
		return dsdb.Float
	case int64:
		return dsdb.Integer
	case uint64:
		return dsdb.Unsigned
	case bool:
		return dsdb.Boolean
	case string:
		return dsdb.String
	}
	return dsdb.NoType
}

func (s *memShard) Series(_ context.Context, m string, where *dsdb.TagExpr, keys []string) (*column.SeriesSet, error) {
	set := &column.SeriesSet{Keys: keys, Dict: make([][]string, len(keys)), Code: make([][]uint32, len(keys))}
	for k := range keys {
		set.Dict[k] = []string{"", "zz unused", "a unused"}
	}
	for _, se := range s.series {
		if se.measurement != m || !where.Match(se.tags) {
			continue
		}
		set.IDs = append(set.IDs, se.id)
		for k, key := range keys {
			v := se.tags.Get(key)
			c := slices.Index(set.Dict[k], v)
			if c < 0 {
				c = len(set.Dict[k])
				set.Dict[k] = append(set.Dict[k], v)
			}
			set.Code[k] = append(set.Code[k], uint32(c))
		}
	}
	return set, nil
}

func (s *memShard) Measurements(context.Context) ([]string, error) { return nil, nil }

func (s *memShard) TagKeys(_ context.Context, m string) ([]string, error) { return s.tagKeys(m), nil }

func (s *memShard) tagKeys(m string) []string {
	var keys []string
	for _, se := range s.series {
		for _, t := range se.tags {
			if se.measurement == m && !slices.Contains(keys, t.Key) {
				keys = append(keys, t.Key)
			}
		}
	}
	sort.Strings(keys)
	return keys
}

func (s *memShard) Close() error {
	s.closed = true
	return nil
}

func (s *memShard) Scan(_ context.Context, sc dsdb.Scan) (column.Cursor, error) {
	if !slices.IsSorted(sc.Series) {
		return nil, fmt.Errorf("series %v do not ascend", sc.Series)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scans = append(s.scans, sc)
	c := &memCursor{s: s, scan: sc}
	for _, id := range sc.Series {
		i := slices.IndexFunc(s.series, func(se memSeries) bool { return se.id == id })
		if i < 0 {
			return nil, fmt.Errorf("no series %d", id)
		}
		c.plan(s.series[i])
	}
	return c, nil
}

// memCursor yields tiles that were cut beforehand. Every Next scribbles over
// the tile before, so that whoever keeps it is found out.
type memCursor struct {
	s     *memShard
	scan  dsdb.Scan
	tiles []memTile
	t     column.Tile
	rows  []point
}

type memTile struct {
	id   dsdb.SeriesID
	rows []point
}

func (c *memCursor) plan(se memSeries) {
	var tiles []memTile
	for rows := se.rows; len(rows) > 0; {
		n := min(1+c.s.r.IntN(c.s.wide), len(rows), column.MaxTileRows)
		if rows[0].time < c.scan.Range.End && rows[n-1].time >= c.scan.Range.Start {
			tiles = append(tiles, memTile{se.id, rows[:n]})
		}
		rows = rows[n:]
	}
	if c.scan.Descending {
		slices.Reverse(tiles)
	}
	if need := c.scan.NeedRows; need > 0 {
		seen := 0
		for i, t := range tiles {
			for _, p := range t.rows {
				if c.scan.Range.Contains(p.time) || c.s.eager {
					seen++
				}
			}
			if seen >= need {
				tiles = tiles[:i+1]
				break
			}
		}
	}
	c.tiles = append(c.tiles, tiles...)
}

func (c *memCursor) Next() (*column.Tile, error) {
	for i := range c.t.Times {
		c.t.Times[i] = -1
	}
	for i := range c.t.Cols {
		for j := range c.t.Cols[i].Floats {
			c.t.Cols[i].Floats[j] = math.Inf(-1)
		}
		for j := range c.t.Cols[i].Bytes {
			c.t.Cols[i].Bytes[j] = '#'
		}
	}
	if len(c.tiles) == 0 {
		return nil, nil
	}
	next := c.tiles[0]
	c.tiles = c.tiles[1:]
	c.rows = next.rows
	c.t = column.Tile{Series: next.id, Rows: len(c.rows), First: c.rows[0].time, Last: c.rows[len(c.rows)-1].time,
		Stats: make([]column.Stats, len(c.scan.Fields)), Cols: make([]column.Vector, len(c.scan.Fields)), Loader: c}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for i, f := range c.scan.Fields {
		if c.s.r.Float64() < c.s.known {
			c.t.Stats[i] = statsOf(c.rows, f)
		}
	}
	return &c.t, nil
}

func (c *memCursor) Close() error { return nil }

func (c *memCursor) LoadTimes(t *column.Tile) error {
	t.Times = make([]int64, len(c.rows))
	for i, p := range c.rows {
		t.Times[i] = p.time
	}
	return nil
}

func (c *memCursor) LoadField(t *column.Tile, i int) error {
	c.s.mu.Lock()
	c.s.loads++
	c.s.mu.Unlock()
	t.Cols[i] = vectorOf(c.rows, c.scan.Fields[i])
	return nil
}

// vectorOf makes the column of a field; it is NoType if no row has it.
func vectorOf(rows []point, field string) column.Vector {
	var b builder
	b.reset(dsdb.NoType)
	for _, p := range rows {
		if v, ok := p.fields[field]; ok {
			b.reset(typeOf(v))
		}
	}
	for _, p := range rows {
		switch v := p.fields[field].(type) {
		case float64:
			b.float(v)
		case int64:
			b.int(v)
		case uint64:
			b.int(int64(v))
		case bool:
			if v {
				b.int(1)
			} else {
				b.int(0)
			}
		case string:
			b.str(v)
		default:
			b.null()
		}
	}
	return b.view()
}

func statsOf(rows []point, field string) column.Stats {
	st := column.Stats{Known: true}
	for _, p := range rows {
		v, ok := p.fields[field]
		if !ok {
			continue
		}
		st.Count++
		switch v := v.(type) {
		case float64:
			addStat(&st, v, math.Float64bits, math.Float64frombits)
		case int64:
			addStat(&st, v, func(x int64) uint64 { return uint64(x) }, func(b uint64) int64 { return int64(b) })
			sum := int64(st.Sum)
			if st.Count > 1 && (v > 0) == (sum-v > 0) && (sum > 0) != (v > 0) && v != 0 && sum-v != 0 {
				st.SumOverflow = true
			}
		case uint64:
			addStat(&st, v, func(x uint64) uint64 { return x }, func(b uint64) uint64 { return b })
			if st.Sum < v {
				st.SumOverflow = true
			}
		}
	}
	return st
}

func addStat[T float64 | int64 | uint64](st *column.Stats, v T, to func(T) uint64, from func(uint64) T) {
	b := to(v)
	if st.Count == 1 {
		st.Min, st.Max, st.First, st.Sum = b, b, b, to(0)
	}
	st.Min, st.Max = to(min(from(st.Min), v)), to(max(from(st.Max), v))
	st.Sum, st.Last = to(from(st.Sum)+v), b
}

// world is some shards and the catalogue of what is in them.
type world struct{ shards []*memShard }

func (w *world) open(_ context.Context, id dsdb.ShardID) (Source, error) {
	for _, s := range w.shards {
		if s.id == id {
			s.closed = false
			return s, nil
		}
	}
	return nil, dsdb.Errorf(dsdb.KindNotFound, "shard not found: %d", id)
}

func (w *world) DefaultPolicy(string) (string, error) { return "rp", nil }

func (w *world) Shards(_, _ string, r dsdb.TimeRange) ([]planner.Shard, error) {
	var out []planner.Shard
	for _, s := range w.shards {
		if s.rng.Overlaps(r) {
			out = append(out, planner.Shard{ID: s.id, Range: s.rng})
		}
	}
	return out, nil
}

func (w *world) Measurements(string, string) ([]string, error) {
	var names []string
	for _, s := range w.shards {
		for _, se := range s.series {
			names = append(names, se.measurement)
		}
	}
	sort.Strings(names)
	return slices.Compact(names), nil
}

func (w *world) Fields(_, _, m string, _ dsdb.TimeRange) (map[string]dsdb.FieldType, error) {
	rank := map[dsdb.FieldType]int{dsdb.Float: 5, dsdb.Integer: 4, dsdb.Unsigned: 3, dsdb.String: 2, dsdb.Boolean: 1}
	out := map[string]dsdb.FieldType{}
	for _, s := range w.shards {
		for _, p := range s.points {
			for f, v := range p.fields {
				if t := typeOf(v); p.measurement == m && rank[t] > rank[out[f]] {
					out[f] = t
				}
			}
		}
	}
	return out, nil
}

func (w *world) TagKeys(_, _, m string, _ dsdb.TimeRange) ([]string, error) {
	var keys []string
	for _, s := range w.shards {
		keys = append(keys, s.tagKeys(m)...)
	}
	sort.Strings(keys)
	return slices.Compact(keys), nil
}

// parsePoints reads line protocol without escapes, for tests.
func parsePoints(text string) ([]point, error) {
	var out []point
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		cut := strings.LastIndexByte(line, ' ')
		head, rest, ok := strings.Cut(line[:cut], " ")
		t, err := strconv.ParseInt(line[cut+1:], 10, 64)
		if err != nil || !ok {
			return nil, fmt.Errorf("line %q: %v", line, err)
		}
		m, tags, err := dsdb.ParseSeriesKey([]byte(head))
		if err != nil {
			return nil, err
		}
		sort.Slice(tags, func(i, j int) bool { return tags[i].Key < tags[j].Key })
		p := point{measurement: m, tags: tags, time: t, fields: map[string]any{}}
		for f := range strings.SplitSeq(rest, ",") {
			k, v, _ := strings.Cut(f, "=")
			p.fields[k] = parseValue(v)
		}
		out = append(out, p)
	}
	return out, nil
}

func parseValue(v string) any {
	switch {
	case strings.HasPrefix(v, `"`):
		return strings.Trim(v, `"`)
	case v == "true" || v == "false":
		return v == "true"
	case strings.HasSuffix(v, "i"):
		n, _ := strconv.ParseInt(strings.TrimSuffix(v, "i"), 10, 64)
		return n
	case strings.HasSuffix(v, "u"):
		n, _ := strconv.ParseUint(strings.TrimSuffix(v, "u"), 10, 64)
		return n
	}
	f, _ := strconv.ParseFloat(v, 64)
	return f
}

// printFrames renders an answer: a line per series, indented lines per row.
func printFrames(ctx context.Context, r Result) (string, error) {
	defer r.Close()
	var b strings.Builder
	partial := false
	for {
		f, err := r.Next(ctx)
		if err != nil {
			return b.String(), err
		}
		if f == nil {
			if partial {
				b.WriteString("PARTIAL WITHOUT MORE\n")
			}
			return b.String(), nil
		}
		if !partial {
			b.WriteString(f.Name)
			for _, t := range f.Tags {
				fmt.Fprintf(&b, ",%s=%s", t.Key, t.Value)
			}
			fmt.Fprintf(&b, " %s\n", strings.Join(f.Columns, " "))
		}
		partial = f.Partial
		for i := range f.Rows() {
			b.WriteByte(' ')
			for c := range f.Cols {
				b.WriteString(" " + printValue(&f.Cols[c], i))
			}
			b.WriteByte('\n')
		}
	}
}

func printValue(v *column.Vector, i int) string {
	switch {
	case v.Null(i):
		return "null"
	case v.Type == dsdb.Float:
		return strconv.FormatFloat(v.Floats[i], 'g', -1, 64)
	case v.Type == dsdb.String:
		return strconv.Quote(string(v.Str(i)))
	case v.Type == dsdb.Boolean:
		return strconv.FormatBool(v.Ints[i] != 0)
	case v.Type == dsdb.Unsigned:
		return strconv.FormatUint(uint64(v.Ints[i]), 10)
	}
	return strconv.FormatInt(v.Ints[i], 10)
}
