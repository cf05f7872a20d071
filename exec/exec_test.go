package exec

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// manyRows is a world of two weeks with n series of m rows each.
func manyRows(n, m int) *world {
	w := &world{}
	week := 7 * 24 * 3600 * second
	for i := range int64(2) {
		var pts []point
		for s := range n {
			for r := range m {
				pts = append(pts, point{measurement: "m", tags: dsdb.Tags{{Key: "h", Value: fmt.Sprintf("h%03d", s)}},
					time: i*week + int64(r)*second, fields: map[string]any{"v": float64(r), "w": int64(s)}})
			}
		}
		sh := newMemShard(dsdb.ShardID(i+1), dsdb.TimeRange{Start: i * week, End: i*week + week}, pts, 1)
		sh.known, sh.wide = 1, 20
		w.shards = append(w.shards, sh)
	}
	return w
}

func answer(w *world, text string, o Options) (string, error) {
	p, err := compile(w, text)
	if err != nil {
		return "", err
	}
	r, err := Run(context.Background(), p, w.open, o)
	if err != nil {
		return "", err
	}
	return printFrames(context.Background(), r)
}

// TestRawInSlices says that a query whose rows do not fit into the memory is
// answered in slices of time, in full, without going over its limit.
func TestRawInSlices(t *testing.T) {
	w := manyRows(20, 500)
	for _, text := range []string{
		"SELECT v, w, h FROM m", "SELECT v FROM m ORDER BY time DESC",
		"SELECT * FROM m GROUP BY h", "SELECT v FROM m LIMIT 9000 OFFSET 5000",
	} {
		want, err := answer(w, text, Options{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := compile(w, text)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Run(context.Background(), p, w.open, Options{MemoryLimit: 128 << 10, ChunkRows: 100})
		if err != nil {
			t.Fatal(err)
		}
		got, err := printFrames(context.Background(), r)
		if err != nil || got != want {
			t.Errorf("%s: in slices %d lines and error %v, at once %d lines", text, strings.Count(got, "\n"), err, strings.Count(want, "\n"))
		}
		if b := &r.(*result).q.budget; b.peak.Load() > b.limit || b.used.Load() != 0 {
			t.Errorf("%s: took %d bytes of %d, kept %d", text, b.peak.Load(), b.limit, b.used.Load())
		}
	}
}

// TestLastPointTouchesLittle says that the newest row of each series is asked
// for with NeedRows, newest tiles first, and that older shards are left alone.
func TestLastPointTouchesLittle(t *testing.T) {
	w := manyRows(100, 50)
	got, err := answer(w, "SELECT * FROM m GROUP BY h ORDER BY time DESC LIMIT 1", Options{})
	if err != nil || strings.Count(got, "\n") != 200 {
		t.Fatalf("%d lines, error %v", strings.Count(got, "\n"), err)
	}
	if n := len(w.shards[0].scans); n != 0 {
		t.Errorf("the older shard was scanned %d times", n)
	}
	for _, s := range w.shards[1].scans {
		if !s.Descending || s.NeedRows != 1 {
			t.Errorf("scan %+v", s)
		}
	}
	if n := w.shards[1].loads; n > 2*100 {
		t.Errorf("%d fields loaded for 100 series", n)
	}
}

// TestLastAsksForOneRow says that last() of a series does so too, and goes on
// where the newest row has no value.
func TestLastAsksForOneRow(t *testing.T) {
	w := manyRows(3, 50)
	rows := w.shards[1].series[0].rows
	delete(rows[len(rows)-1].fields, "v")
	got, err := answer(w, "SELECT last(v) FROM m GROUP BY h", Options{})
	if err != nil || strings.Count(got, " 604849000000000 49\n") != 2 || strings.Count(got, " 604848000000000 48\n") != 1 {
		t.Fatalf("%s, %v", got, err)
	}
	for i, sc := range w.shards[1].scans {
		if again := i > 0; !sc.Descending || again != (sc.NeedRows == 0) || again && len(sc.Series) != 1 {
			t.Errorf("scan %d: %+v", i, sc)
		}
	}
}

// TestLimitTouchesLittle says the same of LIMIT on windows.
func TestLimitTouchesLittle(t *testing.T) {
	w := manyRows(3, 500)
	end := "time < 604900s"
	if _, err := answer(w, "SELECT max(v) FROM m WHERE "+end+" GROUP BY time(1m) ORDER BY time DESC LIMIT 1", Options{}); err != nil {
		t.Fatal(err)
	}
	for _, s := range w.shards {
		for _, sc := range s.scans {
			if sc.Range.Start < 604860*second {
				t.Errorf("scan of %s", sc.Range)
			}
		}
	}
}

// brokenShard fails at a chosen point.
type brokenShard struct {
	*memShard
	at     string
	cancel context.CancelFunc
}

var errDisk = errors.New("disk on fire")

func (s *brokenShard) Scan(ctx context.Context, sc dsdb.Scan) (column.Cursor, error) {
	if s.at == "scan" {
		return nil, errDisk
	}
	c, err := s.memShard.Scan(ctx, sc)
	return &brokenCursor{c.(*memCursor), s, 0}, err
}

type brokenCursor struct {
	*memCursor
	s *brokenShard
	n int
}

func (c *brokenCursor) Next() (*column.Tile, error) {
	if c.n++; c.n == 5 {
		if c.s.at == "next" {
			return nil, errDisk
		}
		c.s.cancel()
	}
	t, err := c.memCursor.Next()
	if t != nil && c.s.at == "load" {
		t.Loader = c
	}
	return t, err
}

func (c *brokenCursor) LoadTimes(*column.Tile) error      { return errDisk }
func (c *brokenCursor) LoadField(*column.Tile, int) error { return errDisk }

// TestFailures says that errors of a shard come out as they are, that a
// cancelled query says so, and that nothing is left behind.
func TestFailures(t *testing.T) {
	for _, at := range []string{"scan", "next", "load", "cancel"} {
		for _, text := range []string{"SELECT mean(v) FROM m WHERE w < 90 GROUP BY h", "SELECT v FROM m", "SELECT v FROM m GROUP BY h LIMIT 3"} {
			w := manyRows(80, 100)
			p, err := compile(w, text)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			open := func(_ context.Context, id dsdb.ShardID) (Source, error) {
				return &brokenShard{w.shards[id-1], at, cancel}, nil
			}
			r, err := Run(ctx, p, open, Options{Workers: 3})
			if err != nil {
				t.Fatal(err)
			}
			_, err = printFrames(ctx, r)
			cancel()
			if at == "cancel" {
				if dsdb.KindOf(err) != dsdb.KindCanceled {
					t.Errorf("%s: %s: error %v", at, text, err)
				}
			} else if !errors.Is(err, errDisk) {
				t.Errorf("%s: %s: error %v", at, text, err)
			}
			if used := r.(*result).q.budget.used.Load(); used < 0 {
				t.Errorf("%s: %s: budget at %d", at, text, used)
			}
			for _, s := range w.shards {
				if !s.closed {
					t.Errorf("%s: %s: shard %d is open", at, text, s.id)
				}
			}
		}
	}
}

// TestDroppedShard says that a shard which went away since planning has no rows.
func TestDroppedShard(t *testing.T) {
	w := manyRows(2, 3)
	p, err := compile(w, "SELECT count(v) FROM m")
	if err != nil {
		t.Fatal(err)
	}
	w.shards = w.shards[1:]
	r, err := Run(context.Background(), p, w.open, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := printFrames(context.Background(), r); err != nil || !strings.Contains(got, " 0 6\n") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAnalyzeAndTotals(t *testing.T) {
	w := manyRows(4, 30)
	p, err := compile(w, "SELECT sum(v) FROM m GROUP BY h")
	if err != nil {
		t.Fatal(err)
	}
	before := Totals()
	a, err := Analyze(context.Background(), p, w.open, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if a.Series != 8 || a.ResultSeries != 4 || a.Rows != 240 || a.Tiles != a.TilesByStats+a.TilesDecoded || len(a.Stages) != 3 || a.PeakMemory == 0 {
		t.Errorf("%+v", a)
	}
	after := Totals()
	if after.Queries != before.Queries+1 || after.Tiles != before.Tiles+a.Tiles || after.ResultRows != before.ResultRows+4 {
		t.Errorf("totals %+v after %+v", after, before)
	}
}

// TestLargeDictionary says that a shard's dictionary may hold far more values
// than the series of a query have.
func TestLargeDictionary(t *testing.T) {
	set := &column.SeriesSet{IDs: []dsdb.SeriesID{3, 5, 9}, Keys: []string{"h"}, Dict: [][]string{make([]string, 1000)}, Code: [][]uint32{{700, 3, 700}}}
	for i := range set.Dict[0] {
		set.Dict[0][i] = fmt.Sprintf("h%03d", 999-i)
	}
	small := &column.SeriesSet{IDs: []dsdb.SeriesID{1, 2}, Keys: []string{"h"}, Dict: [][]string{{"", "h299", "zz"}}, Code: [][]uint32{{1, 0}}}
	table := &seriesTable{keys: []string{"h"}, id: make([]dsdb.SeriesID, 5)}
	table.mergeDictionaries([]*column.SeriesSet{set, small})
	if got := fmt.Sprint(table.dict[0], table.code[0]); got != "[ h299 h996] [1 2 1 1 0]" {
		t.Error(got)
	}
}
