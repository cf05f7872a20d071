package shard

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// twin is the obvious shard: maps from series key to time to field to value.
type twin struct {
	rng    dsdb.TimeRange
	series map[string]map[int64]map[string]string
	types  map[string]dsdb.FieldType // measurement/field
	gone   map[uint64]Delete         // by index
}

func newTwin(rng dsdb.TimeRange) *twin {
	return &twin{rng: rng, series: map[string]map[int64]map[string]string{}, types: map[string]dsdb.FieldType{}, gone: map[uint64]Delete{}}
}

// point is one row as tests write it. Values are printed as render does.
type point struct {
	measurement string
	tags        dsdb.Tags
	time        int64
	fields      []field
}

type field struct {
	name  string
	typ   dsdb.FieldType
	value string
}

// write applies points in order and returns how many were rejected.
func (w *twin) write(points []point) (rejected int) {
	for _, p := range points {
		ok := w.rng.Contains(p.time)
		for _, f := range p.fields {
			have, known := w.types[p.measurement+"/"+f.name]
			ok = ok && (!known || have == f.typ)
		}
		if !ok {
			rejected++
			continue
		}
		key := string(dsdb.AppendSeriesKey(nil, p.measurement, p.tags))
		if w.series[key] == nil {
			w.series[key] = map[int64]map[string]string{}
		}
		if w.series[key][p.time] == nil {
			w.series[key][p.time] = map[string]string{}
		}
		for _, f := range p.fields {
			w.types[p.measurement+"/"+f.name] = f.typ
			w.series[key][p.time][f.name] = f.value
		}
	}
	return rejected
}

// hint is points that come late, and what was known of deletes when they were written.
type hint struct {
	since  uint64
	points []point
}

// deliver applies hints that come in one entry: the values that are missing
// before it, those of the last hint first, so that those of the first stay.
func (w *twin) deliver(hints []hint) (rejected, superseded, deleted int) {
	var left [][]point
	for _, h := range hints {
		var keep []point
		for _, p := range h.points {
			if w.deletedSince(h.since, p) {
				deleted++
				continue
			}
			have := w.series[string(dsdb.AppendSeriesKey(nil, p.measurement, p.tags))][p.time]
			p.fields = slices.DeleteFunc(slices.Clone(p.fields), func(f field) bool { return have[f.name] != "" })
			if len(p.fields) == 0 {
				superseded++
				continue
			}
			keep = append(keep, p)
		}
		left = append(left, keep)
	}
	for _, points := range slices.Backward(left) {
		rejected += w.write(points)
	}
	return rejected, superseded, deleted
}

func (w *twin) deletedSince(since uint64, p point) bool {
	for index, d := range w.gone {
		if index > since && (d.Measurements == nil || slices.Contains(d.Measurements, p.measurement)) && d.Where.Match(p.tags) &&
			(d.DropSeries || d.Range.Contains(p.time)) {
			return true
		}
	}
	return false
}

func (w *twin) delete(index uint64, d Delete) {
	w.gone[index] = d
	for key, rows := range w.series {
		m, tags, _ := dsdb.ParseSeriesKey([]byte(key))
		if d.Measurements != nil && !slices.Contains(d.Measurements, m) || !d.Where.Match(tags) {
			continue
		}
		for t := range rows {
			if d.DropSeries || d.Range.Contains(t) {
				delete(rows, t)
			}
		}
		if len(rows) == 0 {
			delete(w.series, key)
		}
	}
	for name := range w.types {
		m, _, _ := strings.Cut(name, "/")
		if !slices.Contains(w.measurements(), m) {
			delete(w.types, name)
		}
	}
}

func (w *twin) measurements() (names []string) {
	for key := range w.series {
		m, _, _ := dsdb.ParseSeriesKey([]byte(key))
		if !slices.Contains(names, m) {
			names = append(names, m)
		}
	}
	slices.Sort(names)
	return names
}

// rows prints the rows of a measurement in a range as dump does, by series key and time.
func (w *twin) rows(measurement string, where *dsdb.TagExpr, fields []string, rng dsdb.TimeRange) (lines []string) {
	for key, rows := range w.series {
		m, tags, _ := dsdb.ParseSeriesKey([]byte(key))
		if m != measurement || !where.Match(tags) {
			continue
		}
		for t, row := range rows {
			if rng.Contains(t) {
				line := fmt.Sprintf("%s %06d", key, t)
				for _, f := range fields {
					line += " " + cmp.Or(row[f], "-")
				}
				lines = append(lines, line)
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// batchOf makes a batch of points as a coordinator does.
func batchOf(points []point) *column.WriteBatch {
	b := &column.WriteBatch{}
	for _, p := range points {
		i := slices.IndexFunc(b.Tables, func(t column.Table) bool { return t.Measurement == p.measurement })
		if i < 0 {
			i = len(b.Tables)
			b.Tables = append(b.Tables, column.Table{Measurement: p.measurement, MinTime: math.MaxInt64, MaxTime: math.MinInt64})
		}
		addRow(&b.Tables[i], p)
	}
	return b
}

func addRow(t *column.Table, p point) {
	key := dsdb.AppendSeriesKey(nil, p.measurement, p.tags)
	ordinal := -1
	for i := range t.Keys.Len() {
		if string(t.Keys.At(i)) == string(key) {
			ordinal = i
		}
	}
	if ordinal < 0 {
		ordinal = t.Keys.Len()
		t.Keys.Append(key)
	}
	t.Series = append(t.Series, uint32(ordinal))
	t.Times = append(t.Times, p.time)
	t.MinTime, t.MaxTime = min(t.MinTime, p.time), max(t.MaxTime, p.time)
	n := len(t.Times)
	for _, f := range p.fields {
		i := slices.IndexFunc(t.Columns, func(c column.Column) bool { return c.Name == f.name && c.Type == f.typ })
		if i < 0 {
			i = len(t.Columns)
			t.Columns = append(t.Columns, column.Column{Name: f.name, Type: f.typ})
		}
		setBits(&t.Columns[i], n-1, f)
	}
	for i := range t.Columns {
		pad(&t.Columns[i], n)
	}
}

// pad makes a column n rows long with nulls.
func pad(c *column.Column, n int) {
	for len(c.Bits) < n {
		if c.Valid == nil {
			c.Valid = column.NewBitmap(1)
			for i := range c.Bits {
				c.Valid = setBit(c.Valid, i)
			}
		}
		c.Bits = append(c.Bits, 0)
	}
	for c.Valid != nil && len(c.Valid)*64 < n {
		c.Valid = append(c.Valid, 0)
	}
}

func setBit(b column.Bitmap, i int) column.Bitmap {
	for len(b)*64 <= i {
		b = append(b, 0)
	}
	b.Set(i)
	return b
}

func setBits(c *column.Column, row int, f field) {
	pad(c, row)
	var bits uint64
	switch f.typ {
	case dsdb.Float:
		var v float64
		fmt.Sscan(f.value, &v)
		bits = math.Float64bits(v)
	case dsdb.String:
		bits = uint64(len(c.Bytes))<<32 | uint64(len(f.value)-2)
		c.Bytes = append(c.Bytes, f.value[1:len(f.value)-1]...)
	case dsdb.Boolean:
		if f.value == "true" {
			bits = 1
		}
	case dsdb.Integer:
		var v int64
		fmt.Sscanf(f.value, "%di", &v)
		bits = uint64(v)
	case dsdb.Unsigned:
		fmt.Sscanf(f.value, "%du", &bits)
	}
	c.Bits = append(c.Bits, bits)
	if c.Valid != nil {
		c.Valid = setBit(c.Valid, row)
	}
}

// dump reads the rows of a scan and prints them, and checks what a cursor
// promises: order, bounds, statistics.
func dump(t testing.TB, src *Source, scan dsdb.Scan, where *dsdb.TagExpr) (lines []string) {
	t.Helper()
	ctx := context.Background()
	set, err := src.Series(ctx, scan.Measurement, where, nil)
	check(t, err)
	scan.Series = set.IDs
	cur, err := src.Scan(ctx, scan)
	check(t, err)
	defer cur.Close()
	var last column.Tile
	for {
		tile, err := cur.Next()
		check(t, err)
		if tile == nil {
			break
		}
		checkOrder(t, scan, &last, tile)
		last = column.Tile{Series: tile.Series, First: tile.First, Last: tile.Last}
		stats := slices.Clone(tile.Stats)
		check(t, tile.LoadTimes())
		for i := range scan.Fields {
			check(t, tile.Load(i))
			checkStats(t, &stats[i], &tile.Cols[i])
		}
		lines = append(lines, tileLines(t, src, scan, tile)...)
	}
	if scan.NeedRows == 0 {
		slices.Sort(lines)
	}
	return lines
}

// tileLines prints the rows of a tile that lie in the scan's range, in scan order.
func tileLines(t testing.TB, src *Source, scan dsdb.Scan, tile *column.Tile) (lines []string) {
	t.Helper()
	if len(tile.Times) != tile.Rows || tile.Times[0] != tile.First || tile.Times[tile.Rows-1] != tile.Last {
		t.Fatalf("tile of %d rows from %d to %d has times %v", tile.Rows, tile.First, tile.Last, tile.Times)
	}
	for row, at := range tile.Times {
		if row > 0 && at <= tile.Times[row-1] {
			t.Fatalf("times do not ascend: %v", tile.Times)
		}
		if !scan.Range.Contains(at) {
			continue
		}
		line := fmt.Sprintf("%s %06d", src.view.Key(tile.Series), at)
		for i := range scan.Fields {
			line += " " + render(&tile.Cols[i], row)
		}
		lines = append(lines, line)
	}
	if scan.Descending {
		slices.Reverse(lines)
	}
	return lines
}

func checkOrder(t testing.TB, scan dsdb.Scan, last, tile *column.Tile) {
	t.Helper()
	switch {
	case tile.Rows < 1 || tile.Rows > column.MaxTileRows || tile.First > tile.Last:
		t.Fatalf("tile of %d rows from %d to %d", tile.Rows, tile.First, tile.Last)
	case tile.Series < last.Series:
		t.Fatalf("series %d after %d", tile.Series, last.Series)
	case tile.Series > last.Series:
	case scan.Descending && tile.Last >= last.First, !scan.Descending && tile.First <= last.Last:
		t.Fatalf("tile from %d to %d after tile from %d to %d", tile.First, tile.Last, last.First, last.Last)
	}
}

// checkStats compares statistics with the decoded values.
func checkStats(t testing.TB, s *column.Stats, v *column.Vector) {
	t.Helper()
	if !s.Known {
		return
	}
	var want column.Stats
	for i := range v.N {
		if v.Null(i) {
			continue
		}
		want.Count++
		var bits uint64
		switch v.Type {
		case dsdb.Float:
			bits = math.Float64bits(v.Floats[i])
		case dsdb.Integer, dsdb.Unsigned:
			bits = uint64(v.Ints[i])
		default:
			continue
		}
		less := func(a, b uint64) bool { return int64(a) < int64(b) }
		if v.Type == dsdb.Float {
			less = func(a, b uint64) bool { return math.Float64frombits(a) < math.Float64frombits(b) }
		} else if v.Type == dsdb.Unsigned {
			less = func(a, b uint64) bool { return a < b }
		}
		if want.Count == 1 {
			want.First, want.Min, want.Max = bits, bits, bits
		}
		want.Last = bits
		if less(bits, want.Min) {
			want.Min = bits
		}
		if less(want.Max, bits) {
			want.Max = bits
		}
	}
	if s.Count != want.Count || want.Count > 0 && (s.First != want.First || s.Last != want.Last || s.Min != want.Min || s.Max != want.Max) {
		t.Fatalf("statistics %+v, rows say %+v", *s, want)
	}
}

func render(v *column.Vector, i int) string {
	if v.Null(i) {
		return "-"
	}
	switch v.Type {
	case dsdb.Float:
		return fmt.Sprint(v.Floats[i])
	case dsdb.Integer:
		return fmt.Sprintf("%di", v.Ints[i])
	case dsdb.Unsigned:
		return fmt.Sprintf("%du", uint64(v.Ints[i]))
	case dsdb.Boolean:
		return fmt.Sprint(v.Ints[i] != 0)
	}
	return fmt.Sprintf("%q", v.Str(i))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// compare checks that the shard holds exactly what the twin holds.
func compare(t testing.TB, r *rand.Rand, s *Shard, w *twin) {
	t.Helper()
	src, err := s.Source()
	check(t, err)
	defer src.Close()
	got, err := src.Measurements(t.Context())
	check(t, err)
	if want := w.measurements(); !slices.Equal(got, want) {
		t.Fatalf("measurements %q, want %q", got, want)
	}
	for _, m := range testMeasurements {
		scan := dsdb.Scan{Measurement: m, Fields: []string{"f", "i", "none", "s", "u", "b"}, Range: randomRange(r), Descending: r.IntN(2) == 0}
		where := randomWhere(r)
		got, want := dump(t, src, scan, where), w.rows(m, where, scan.Fields, scan.Range)
		if !slices.Equal(got, want) {
			t.Fatalf("%s %v descending=%v\ngot\n%s\nwant\n%s", m, scan.Range, scan.Descending, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		scan.NeedRows = 1 + r.IntN(3)
		compareFirst(t, dump(t, src, scan, where), want, scan)
		compareNewest(t, r, src, w, m)
	}
}

// compareNewest asks for the newest rows with fields that are remembered, and
// then for more fields and another range, so that some of it is known already.
func compareNewest(t testing.TB, r *rand.Rand, src *Source, w *twin, measurement string) {
	t.Helper()
	for _, fields := range [][]string{{"f"}, {"f", "none", "i"}, {"u", "b", "f", "i"}} {
		scan := dsdb.Scan{Measurement: measurement, Fields: fields, Range: randomRange(r), Descending: true, NeedRows: 1}
		compareFirst(t, dump(t, src, scan, nil), w.rows(measurement, nil, fields, scan.Range), scan)
	}
}

// compareFirst checks that a scan with NeedRows gave at least so many of the
// first rows of each series.
func compareFirst(t testing.TB, got, want []string, scan dsdb.Scan) {
	t.Helper()
	bySeries := func(lines []string) map[string][]string {
		m := map[string][]string{}
		for _, l := range lines {
			key, _, _ := strings.Cut(l, " ")
			m[key] = append(m[key], l)
		}
		return m
	}
	given := bySeries(got)
	for key, rows := range bySeries(want) {
		if scan.Descending {
			slices.Reverse(rows)
		}
		n := min(scan.NeedRows, len(rows))
		g := given[key]
		if len(g) < n || !slices.Equal(inScanOrder(g, scan), rows[:min(len(rows), len(g))]) {
			t.Fatalf("%s: first %d rows, descending=%v:\ngot %v\nwant %v", key, scan.NeedRows, scan.Descending, g, rows)
		}
	}
}

func inScanOrder(rows []string, scan dsdb.Scan) []string {
	out := slices.Clone(rows)
	slices.Sort(out)
	if scan.Descending {
		slices.Reverse(out)
	}
	return out
}

var testMeasurements = []string{"cpu", "mem"}

func randomRange(r *rand.Rand) dsdb.TimeRange {
	if r.IntN(2) == 0 {
		return dsdb.AllTime
	}
	start := r.Int64N(6000)
	return dsdb.TimeRange{Start: start, End: start + r.Int64N(6000)}
}

func randomWhere(r *rand.Rand) *dsdb.TagExpr {
	if r.IntN(2) == 0 {
		return nil
	}
	return &dsdb.TagExpr{Op: dsdb.TagEqual + dsdb.TagOp(r.IntN(2)), Key: "host", Value: []string{"", "h0", "h1"}[r.IntN(3)]}
}

// randomPoints returns points in nearly ascending order, a few of which
// repeat, come late, lie outside or contradict.
func randomPoints(r *rand.Rand, clock *int64) (points []point) {
	if r.IntN(12) == 0 {
		return manyPoints(r, clock)
	}
	for range 1 + r.IntN(60) {
		p := point{measurement: testMeasurements[r.IntN(2)], time: *clock}
		if host := r.IntN(5); host > 0 {
			p.tags = dsdb.Tags{{Key: "host", Value: fmt.Sprintf("h%d", host)}}
		}
		if r.IntN(3) == 0 {
			*clock += r.Int64N(20)
		}
		if r.IntN(20) == 0 {
			p.time = r.Int64N(12000)
		}
		if r.IntN(100) == 0 {
			p.time = -5
		}
		for len(p.fields) == 0 {
			p.fields = randomFields(r)
		}
		points = append(points, p)
	}
	return points
}

// manyPoints returns points of one series, enough for several tiles.
func manyPoints(r *rand.Rand, clock *int64) (points []point) {
	tags := dsdb.Tags{{Key: "host", Value: fmt.Sprintf("h%d", 1+r.IntN(4))}}
	value := r.IntN(100)
	for range 1 + r.IntN(2500) {
		*clock += 1 + r.Int64N(2)
		points = append(points, point{"cpu", tags, *clock, []field{{"i", dsdb.Integer, fmt.Sprintf("%di", value)}}})
		value += r.IntN(7) - 3
	}
	return points
}

func randomFields(r *rand.Rand) (fields []field) {
	add := func(name string, typ dsdb.FieldType, value string) {
		if r.IntN(3) > 0 {
			fields = append(fields, field{name, typ, value})
		}
	}
	add("f", dsdb.Float, fmt.Sprint(float64(r.IntN(1000))/8))
	add("i", dsdb.Integer, fmt.Sprintf("%di", r.IntN(1000)-500))
	add("u", dsdb.Unsigned, fmt.Sprintf("%du", r.Uint64()))
	add("b", dsdb.Boolean, fmt.Sprint(r.IntN(2) == 0))
	if r.IntN(30) == 0 {
		add("s", dsdb.Integer, "7i")
	} else {
		add("s", dsdb.String, fmt.Sprintf("%q", strings.Repeat("x", r.IntN(4))+fmt.Sprint(r.IntN(9))))
	}
	return fields
}

func randomDelete(r *rand.Rand) Delete {
	d := Delete{Where: randomWhere(r), Range: randomRange(r), DropSeries: r.IntN(4) == 0}
	if r.IntN(2) == 0 {
		d.Measurements = []string{testMeasurements[r.IntN(2)]}
	}
	if r.IntN(3) > 0 { // mostly a small one
		d.Range = dsdb.TimeRange{Start: r.Int64N(8000)}
		d.Range.End = d.Range.Start + r.Int64N(200)
		d.DropSeries = false
	}
	return d
}
