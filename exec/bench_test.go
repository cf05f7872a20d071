package exec

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
	"github.com/dasudian/dsdb/ql"
)

const (
	benchHosts  = 1000
	benchRows   = 4320 // 12 h at 10 s
	benchTile   = 360  // 1 h
	benchFields = 10
)

// benchShard is a shard of decoded tiles: what remains to be measured is exec.
type benchShard struct {
	stats  bool
	hosts  []string
	times  []int64
	values [][]int64 // per host and field, benchRows of them
	tiles  [][]column.Stats
}

func newBenchShard(stats bool) *benchShard {
	s := &benchShard{stats: stats}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range benchRows {
		s.times = append(s.times, int64(i)*10*second)
	}
	for h := range benchHosts {
		s.hosts = append(s.hosts, fmt.Sprintf("host_%d", h))
		for range benchFields {
			v := make([]int64, benchRows)
			x := r.Float64() * 100
			for i := range v {
				x = min(max(x+r.NormFloat64(), 0), 100)
				v[i] = int64(x)
			}
			s.values = append(s.values, v)
			var st []column.Stats
			for at := 0; at < benchRows; at += benchTile {
				part := v[at : at+benchTile]
				st = append(st, column.Stats{Known: stats, Count: benchTile, Sum: uint64(sum(part)), Min: uint64(least(part)),
					Max: uint64(greatest(part)), First: uint64(part[0]), Last: uint64(part[benchTile-1])})
			}
			s.tiles = append(s.tiles, st)
		}
	}
	return s
}

func (s *benchShard) Series(_ context.Context, _ string, where *dsdb.TagExpr, keys []string) (*column.SeriesSet, error) {
	set := &column.SeriesSet{Keys: keys, Dict: make([][]string, len(keys)), Code: make([][]uint32, len(keys))}
	for k := range keys {
		set.Dict[k] = append(set.Dict[k], "")
	}
	for h, name := range s.hosts {
		if !where.Match(dsdb.Tags{{Key: "hostname", Value: name}}) {
			continue
		}
		set.IDs = append(set.IDs, dsdb.SeriesID(h))
		for k := range keys {
			set.Dict[k] = append(set.Dict[k], name)
			set.Code[k] = append(set.Code[k], uint32(len(set.Dict[k])-1))
		}
	}
	return set, nil
}

func (s *benchShard) Measurements(context.Context) ([]string, error) { return []string{"cpu"}, nil }
func (s *benchShard) TagKeys(context.Context, string) ([]string, error) {
	return []string{"hostname"}, nil
}
func (s *benchShard) Close() error { return nil }

func (s *benchShard) Scan(_ context.Context, sc dsdb.Scan) (column.Cursor, error) {
	c := &benchCursor{s: s, sc: sc}
	for _, f := range sc.Fields {
		var i int
		if _, err := fmt.Sscanf(f, "usage_%d", &i); err != nil {
			return nil, err
		}
		c.fields = append(c.fields, i)
	}
	c.t.Stats = make([]column.Stats, len(sc.Fields))
	c.t.Cols = make([]column.Vector, len(sc.Fields))
	c.t.Loader = c
	return c, nil
}

type benchCursor struct {
	s      *benchShard
	sc     dsdb.Scan
	fields []int
	series int
	tile   int
	at     int
	t      column.Tile
}

func (c *benchCursor) Next() (*column.Tile, error) {
	for {
		if c.series == len(c.sc.Series) {
			return nil, nil
		}
		n := benchRows / benchTile
		i := c.tile
		if c.sc.Descending {
			i = n - 1 - i
		}
		c.at = i * benchTile
		h := int(c.sc.Series[c.series])
		done := c.sc.NeedRows > 0 && c.tile*benchTile >= c.sc.NeedRows
		if c.tile++; c.tile == n || done {
			c.tile = 0
			c.series++
			if done {
				continue
			}
		}
		c.t.Series, c.t.Rows = dsdb.SeriesID(h), benchTile
		c.t.First, c.t.Last = c.s.times[c.at], c.s.times[c.at+benchTile-1]
		if c.t.First >= c.sc.Range.End || c.t.Last < c.sc.Range.Start {
			continue
		}
		for j, f := range c.fields {
			c.t.Stats[j] = c.s.tiles[h*benchFields+f][i]
		}
		return &c.t, nil
	}
}

func (c *benchCursor) Close() error { return nil }

func (c *benchCursor) LoadTimes(t *column.Tile) error {
	t.Times = c.s.times[c.at : c.at+benchTile]
	return nil
}

func (c *benchCursor) LoadField(t *column.Tile, j int) error {
	v := c.s.values[int(t.Series)*benchFields+c.fields[j]]
	t.Cols[j] = column.Vector{Type: dsdb.Integer, N: benchTile, Ints: v[c.at : c.at+benchTile]}
	return nil
}

// benchCatalog plans statements over a benchShard.
type benchCatalog struct{ s *benchShard }

func (c benchCatalog) DefaultPolicy(string) (string, error) { return "rp", nil }
func (c benchCatalog) Shards(string, string, dsdb.TimeRange) ([]planner.Shard, error) {
	return []planner.Shard{{ID: 1, Range: dsdb.TimeRange{Start: 0, End: 7 * 24 * 3600 * second}}}, nil
}
func (c benchCatalog) Measurements(string, string) ([]string, error) { return []string{"cpu"}, nil }
func (c benchCatalog) Fields(string, string, string, dsdb.TimeRange) (map[string]dsdb.FieldType, error) {
	m := map[string]dsdb.FieldType{}
	for i := range benchFields {
		m[fmt.Sprintf("usage_%d", i)] = dsdb.Integer
	}
	return m, nil
}
func (c benchCatalog) TagKeys(string, string, string, dsdb.TimeRange) ([]string, error) {
	return []string{"hostname"}, nil
}

// BenchmarkQuery answers statements on one node, BenchmarkFar with the shard on
// another, behind a connection in memory; each query has one of its own.
func BenchmarkQuery(b *testing.B) { benchmarkQueries(b, false) }
func BenchmarkFar(b *testing.B)   { benchmarkQueries(b, true) }

func benchmarkQueries(b *testing.B, far bool) {
	const half = "time >= 123456789123 AND time < 39723456789123" // 11 h, cut anywhere
	for _, c := range []struct {
		name, text string
		stats      bool
		values     int // read if nothing is skipped
	}{
		{"double-groupby-1/decode", "SELECT mean(usage_0) FROM cpu WHERE time >= 0 AND time < 12h GROUP BY time(1h), hostname", false, benchHosts * benchRows},
		{"double-groupby-1/stats", "SELECT mean(usage_0) FROM cpu WHERE time >= 0 AND time < 12h GROUP BY time(1h), hostname", true, benchHosts * benchRows},
		{"double-groupby-1/random-start", "SELECT mean(usage_0) FROM cpu WHERE " + half + " GROUP BY time(1h), hostname", true, benchHosts * 3960},
		{"double-groupby-all/decode", "SELECT mean(*) FROM cpu WHERE time >= 0 AND time < 12h GROUP BY time(1h), hostname", false, 10 * benchHosts * benchRows},
		{"groupby-1m/mean", "SELECT mean(usage_0) FROM cpu WHERE time >= 0 AND time < 12h GROUP BY time(1m), hostname", false, benchHosts * benchRows},
		{"groupby-1m/max-no-tags", "SELECT max(usage_0) FROM cpu WHERE time >= 0 AND time < 12h GROUP BY time(1m)", false, benchHosts * benchRows},
		{"groupby-orderby-limit", "SELECT max(usage_0) FROM cpu WHERE time < 12h GROUP BY time(1m) ORDER BY time DESC LIMIT 5", true, benchHosts * benchRows},
		{"lastpoint", "SELECT * FROM cpu GROUP BY hostname ORDER BY time DESC LIMIT 1", true, benchHosts * benchRows},
		{"single-groupby-1-1-1", "SELECT max(usage_0) FROM cpu WHERE hostname = 'host_17' AND time >= 123456789123 AND time < 3723456789123 GROUP BY time(1m)", true, 360},
		{"cpu-max-all-8", "SELECT max(*) FROM cpu WHERE (hostname = 'host_1' OR hostname = 'host_2' OR hostname = 'host_3' OR hostname = 'host_4' OR hostname = 'host_5' OR hostname = 'host_6' OR hostname = 'host_7' OR hostname = 'host_8') AND time >= 123456789123 AND time < 28923456789123 GROUP BY time(1h)", true, 8 * 10 * 2880},
		{"high-cpu-all", "SELECT * FROM cpu WHERE usage_0 > 90.0 AND time >= 0 AND time < 12h", true, 10 * benchHosts * benchRows},
		{"high-cpu-1", "SELECT * FROM cpu WHERE usage_0 > 90.0 AND time >= 0 AND time < 12h AND hostname = 'host_17'", true, 10 * benchRows},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newBenchShard(c.stats)
			stmts, err := ql.Parse(c.text, nil)
			if err != nil {
				b.Fatal(err)
			}
			plan, err := planner.Compile(stmts[0], benchCatalog{s}, planner.Options{DefaultDB: "db", Now: 13 * 3600 * second})
			if err != nil {
				b.Fatal(err)
			}
			open := func(context.Context, dsdb.ShardID) (Source, error) { return s, nil }
			run := func() int { return drain(b, plan.(*planner.Select), open) }
			if far {
				run = func() int { return drainFar(b, plan.(*planner.Select), open) }
			}
			b.SetBytes(int64(8 * c.values))
			b.ReportAllocs()
			rows, busy := 0, cpuTime()
			for b.Loop() {
				rows = run()
			}
			busy = cpuTime() - busy
			b.ReportMetric(float64(c.values)*float64(b.N)/1e6/b.Elapsed().Seconds(), "Mv/s")
			b.ReportMetric(float64(c.values)*float64(b.N)/1e6/busy.Seconds(), "Mv/s/core")
			b.ReportMetric(busy.Seconds()*1e3/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(rows), "rows")
		})
	}
}

// cpuTime is the processor time that the process has used: what a measurement
// means on a machine that others use too.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// drainFar is drain with the shards behind a pipe.
func drainFar(b *testing.B, p *planner.Select, open Open) int {
	here, there := pipe()
	here.quiet, there.quiet = true, true
	r := NewRemote(here)
	done := make(chan error)
	go func() { done <- Serve(context.Background(), there, open, Options{}) }()
	rows := drain(b, p, func(_ context.Context, id dsdb.ShardID) (Source, error) { return r.Source(id), nil })
	r.Close()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return rows
}

func drain(b *testing.B, p *planner.Select, open Open) (rows int) {
	r, err := Run(context.Background(), p, open, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for {
		f, err := r.Next(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if f == nil {
			return rows
		}
		rows += f.Rows()
	}
}

func BenchmarkKernels(b *testing.B) {
	ints, floats := make([]int64, 1024), make([]float64, 1024)
	for i := range ints {
		ints[i] = int64(i * 7919 % 1000)
		floats[i] = float64(ints[i])
	}
	var m mask
	for _, k := range []struct {
		name string
		run  func()
	}{
		{"sum/int", func() { sum(ints) }}, {"sum/float", func() { sum(floats) }}, {"sumsFit", func() { sumsFit(ints) }},
		{"max/int", func() { greatest(ints) }}, {"max/float", func() { greatest(floats) }},
		{"mask/int", func() { maskGreater(m[:], ints, 900) }}, {"mask/float", func() { maskGreater(m[:], floats, 900) }},
	} {
		b.Run(k.name, func(b *testing.B) {
			b.SetBytes(8 * 1024)
			for b.Loop() {
				k.run()
			}
			b.ReportMetric(1024*float64(b.N)/1e9/b.Elapsed().Seconds(), "Gv/s")
		})
	}
}
