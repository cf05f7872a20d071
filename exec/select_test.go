package exec

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/dasudian/dsdb"
)

// TestSelect runs testdata/select. Commands:
//
//	data [shard=DURATION] [parts=N]   line protocol; starts anew. A shard per time group and
//	                                  partition; DURATION is 168h, N is 1 if not given
//	query [max-series=N] [max-buckets=N] [max-points=N] [memory=BYTES] [chunk=ROWS]
//	      a SELECT; times are printed as nanoseconds, with rfc3339 as such in the query's time zone
//	touched   a SELECT; prints how many tiles were answered by statistics, decoded and skipped
func TestSelect(t *testing.T) {
	datadriven.Walk(t, "testdata/select", func(t *testing.T, path string) {
		w := &world{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "data":
				return w.load(t, d)
			case "query":
				return w.query(t, d)
			case "touched":
				return w.touched(t, d)
			}
			return "unknown command " + d.Cmd
		})
	})
}

func (w *world) load(t *testing.T, d *datadriven.TestData) string {
	span, parts := "168h", 1
	d.MaybeScanArgs(t, "shard", &span)
	d.MaybeScanArgs(t, "parts", &parts)
	length, err := time.ParseDuration(span)
	if err != nil {
		return err.Error()
	}
	points, err := parsePoints(d.Input)
	if err != nil {
		return err.Error()
	}
	groups := map[int64][][]point{}
	var starts []int64
	for _, p := range points {
		start := int64(math.Floor(float64(p.time)/float64(length))) * int64(length)
		if groups[start] == nil {
			groups[start] = make([][]point, parts)
			starts = append(starts, start)
		}
		part := 0
		for _, tag := range p.tags {
			part += len(tag.Value) + int(tag.Value[len(tag.Value)-1])
		}
		groups[start][part%parts] = append(groups[start][part%parts], p)
	}
	slices.Sort(starts)
	w.shards = nil
	for _, start := range starts {
		for _, pts := range groups[start] {
			s := newMemShard(dsdb.ShardID(len(w.shards)+1), dsdb.TimeRange{Start: start, End: start + int64(length)}, pts, 1)
			s.known, s.wide = 1, 4
			w.shards = append(w.shards, s)
		}
	}
	return ""
}

// copy returns the same shards, not touched yet.
func (w *world) copy() *world {
	out := &world{}
	for _, s := range w.shards {
		c := newMemShard(s.id, s.rng, s.points, 1)
		c.known, c.wide = s.known, s.wide
		out.shards = append(out.shards, c)
	}
	return out
}

func (w *world) query(t *testing.T, d *datadriven.TestData) string {
	p, err := compile(w, strings.ReplaceAll(d.Input, "\n", " "))
	if err != nil {
		return "error: " + err.Error()
	}
	o := Options{Workers: 2}
	memory := 0
	d.MaybeScanArgs(t, "max-series", &o.MaxSeries)
	d.MaybeScanArgs(t, "max-buckets", &o.MaxBuckets)
	d.MaybeScanArgs(t, "max-points", &o.MaxPoints)
	d.MaybeScanArgs(t, "memory", &memory)
	d.MaybeScanArgs(t, "chunk", &o.ChunkRows)
	o.MemoryLimit = int64(memory)
	r, err := Run(context.Background(), p, w.open, o)
	if err != nil {
		return "error: " + err.Error()
	}
	text, err := printFrames(context.Background(), r)
	if err != nil {
		return text + "error: " + err.Error()
	}
	if far, err := farAnswer(w.copy(), strings.ReplaceAll(d.Input, "\n", " "), everywhere(w), o); err != nil || far != text {
		t.Errorf("%s: on other nodes\n%s%v\nnot\n%s", d.Pos, far, err, text)
	}
	if d.HasArg("rfc3339") {
		text = withDates(text, p.Location)
	}
	if text == "" {
		return "(nothing)"
	}
	return text
}

// withDates rewrites the first column.
func withDates(text string, loc *time.Location) string {
	if loc == nil {
		loc = time.UTC
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		var ns int64
		if n, _ := fmt.Sscanf(l, "  %d", &ns); n == 1 && strings.HasPrefix(l, "  ") {
			_, rest, _ := strings.Cut(l[2:], " ")
			lines[i] = "  " + time.Unix(0, ns).In(loc).Format(time.RFC3339) + " " + rest
		}
	}
	return strings.Join(lines, "\n")
}

func (w *world) touched(t *testing.T, d *datadriven.TestData) string {
	p, err := compile(w, d.Input)
	if err != nil {
		return "error: " + err.Error()
	}
	a, err := Analyze(context.Background(), p, w.open, Options{Workers: 1})
	if err != nil {
		return "error: " + err.Error()
	}
	return fmt.Sprintf("series %d tiles %d by statistics %d decoded %d skipped %d, result %d series %d rows",
		a.Series, a.Tiles, a.TilesByStats, a.TilesDecoded, a.TilesSkipped, a.ResultSeries, a.ResultRows)
}
