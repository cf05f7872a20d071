package segment

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/vfs"
)

// randomSeries makes series of every type, spacing and share of nulls.
func randomSeries(seed uint64) []testSeries {
	rng := rand.New(rand.NewPCG(seed, 1))
	var out []testSeries
	for m := uint32(1); m < 4; m++ {
		sid := dsdb.SeriesID(0)
		for range 1 + rng.IntN(6) {
			sid += dsdb.SeriesID(1 + rng.IntN(3))
			times := randomTimes(rng)
			s := testSeries{measurement: m * 5, sid: sid, times: times}
			for field := uint32(1); field <= 7; field++ {
				if rng.IntN(4) > 0 {
					s.cols = append(s.cols, FieldColumn{field * 3, randomVector(rng, field, len(times))})
				}
			}
			out = append(out, s)
		}
	}
	return out
}

func randomTimes(rng *rand.Rand) []int64 {
	n := 1 + rng.IntN(1<<rng.IntN(13))
	step := int64(1) << rng.IntN(42)
	t := int64(1_700_000_000_000_000_000) >> rng.IntN(60) * int64(1-2*rng.IntN(2))
	jitter := rng.IntN(3)
	times := make([]int64, n)
	for i := range times {
		times[i] = t
		t += step
		if jitter == 1 || jitter == 2 && rng.IntN(50) == 0 {
			t += rng.Int64N(1+step) / 1000 * 1000
		}
	}
	return times
}

// randomVector makes a column whose type depends on the field and whose nature varies.
func randomVector(rng *rand.Rand, field uint32, n int) column.Vector {
	var v column.Vector
	switch field {
	case 1:
		v = ints(walk(rng, n))
	case 2:
		v = ints(make([]int64, n))
		shift := rng.IntN(64)
		for i := range v.Ints {
			v.Ints[i] = int64(rng.Uint64()) >> shift
		}
	case 3:
		v = ints(make([]int64, n))
		v.Type = dsdb.Unsigned
		shift := rng.IntN(64)
		for i := range v.Ints {
			v.Ints[i] = int64(rng.Uint64() >> shift)
		}
	case 4:
		v = floats(make([]float64, n))
		scale := math.Pow(10, float64(rng.IntN(6)))
		for i := range v.Floats {
			v.Floats[i] = math.Round(rng.NormFloat64()*1000*scale) / scale
		}
	case 5:
		v = floats(make([]float64, n))
		odd := []float64{math.NaN(), math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.MaxFloat64, 5e-324}
		for i := range v.Floats {
			v.Floats[i] = rng.NormFloat64()
			if rng.IntN(40) == 0 {
				v.Floats[i] = odd[rng.IntN(len(odd))]
			}
		}
	case 6:
		s := make([]string, n)
		for i := range s {
			s[i] = fmt.Sprint("state-", rng.IntN(1+rng.IntN(300)))
		}
		v = texts(s)
	case 7:
		v = ints(make([]int64, n))
		v.Type = dsdb.Boolean
		for i := range v.Ints {
			v.Ints[i] = int64(rng.IntN(2))
		}
	}
	if share := rng.IntN(4); share > 0 {
		v.Valid = column.NewBitmap(n)
		for i := range n {
			if share == 1 && rng.IntN(2) == 0 || share == 2 && i%2000 < 1100 || share == 3 && rng.IntN(100) > 0 {
				v.Valid.Set(i)
			}
		}
	}
	return v
}

// What was written comes back bit for bit, with the statistics of every tile,
// whatever the types, spacings, nulls and options.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(40) {
		series := randomSeries(seed)
		o := Options{Entropy: seed%2 == 0, TileRows: []int{0, 100, 1024}[seed%3]}
		f, info := write(t, o, series)
		r := open(t, f)
		verify(t, r, series)
		if err := r.Verify(); err != nil {
			t.Fatal(err)
		}
		rows := 0
		for _, s := range series {
			rows += len(s.times)
		}
		if r.Rows() != uint64(rows) || info.Rows != r.Rows() || info.Values != r.Values() ||
			info.MinTime != r.MinTime() || info.MaxTime != r.MaxTime() || info.Size != r.Size() {
			t.Fatalf("reader says %+v, writer %+v, rows %d", r.info, info, rows)
		}
		if want := (Header{7, 1, 3, math.MaxUint64, 9}); r.Header() != want {
			t.Fatalf("header %+v, want %+v", r.Header(), want)
		}
	}
}

// Times may lie anywhere that InfluxDB allows, and values at the ends of their types.
func TestExtremes(t *testing.T) {
	far := []int64{dsdb.MinTime, -1, 0, 1, dsdb.MaxTime}
	unsigned := ints([]int64{-1, 0, math.MinInt64, 1, -1})
	unsigned.Type = dsdb.Unsigned
	long := make([]int64, 3000)
	for i := range long {
		long[i] = dsdb.MinTime + int64(i)*6_000_000_000_000_000
	}
	huge := make([]int64, len(long))
	for i := range huge {
		huge[i] = math.MaxInt64 - int64(i%3)
	}
	series := []testSeries{
		{1, 0, far, []FieldColumn{{1, ints([]int64{math.MinInt64, math.MaxInt64, 0, math.MinInt64, -1})}, {2, unsigned}}},
		{1, 1, []int64{dsdb.MinTime, dsdb.MaxTime}, nil},
		{1, math.MaxUint32, long, []FieldColumn{{1, ints(huge)}, {math.MaxUint32, ints(huge)}}},
		{math.MaxUint32, 7, []int64{dsdb.MaxTime}, []FieldColumn{{1, floats([]float64{-math.MaxFloat64})}}},
	}
	for _, entropy := range []bool{false, true} {
		f, _ := write(t, Options{Entropy: entropy}, series)
		r := open(t, f)
		verify(t, r, series)
		if r.MinTime() != dsdb.MinTime || r.MaxTime() != dsdb.MaxTime {
			t.Fatalf("times [%d, %d]", r.MinTime(), r.MaxTime())
		}
	}
}

// largeSeries has values that do not compress, several record batches of them.
func largeSeries() []testSeries {
	rng := rand.New(rand.NewPCG(3, 3))
	var out []testSeries
	for sid := range 12 {
		v := make([]string, 1000)
		for i := range v {
			b := make([]byte, 1000+rng.IntN(300))
			for j := range b {
				b[j] = byte(rng.Uint32())
			}
			v[i] = string(b)
		}
		out = append(out, testSeries{1, dsdb.SeriesID(sid), every(0, 1e9, 1000), []FieldColumn{{1, texts(v)}, {2, ints(every(0, 1, 1000))}}})
	}
	return out
}

func TestLargeFile(t *testing.T) {
	series := largeSeries()
	f, _ := write(t, Options{}, series)
	r := open(t, f)
	verify(t, r, series)
	if err := r.Verify(); err != nil || r.batches < 2 {
		t.Fatalf("%d record batches: %v", r.batches, err)
	}
	compareWithArrow(t, f, r)
}

// A full disk is reported by Add or Finish, wherever it strikes, and for good.
func TestFullDisk(t *testing.T) {
	series := largeSeries()
	whole, _ := write(t, Options{}, series)
	for _, limit := range []int{1, 1000, 9 << 20, len(whole.b) - 300} {
		w := NewWriter(&memFile{name: "full.seg", limit: limit}, Header{}, Options{})
		var err error
		for _, s := range series {
			if err = w.Add(s.measurement, s.sid, s.times, s.cols); err != nil {
				break
			}
		}
		_, ferr := w.Finish()
		if !errors.Is(ferr, errFull) || err != nil && !errors.Is(err, errFull) || !strings.Contains(ferr.Error(), "full.seg") {
			t.Errorf("%d bytes: Add %v, Finish %v", limit, err, ferr)
		}
	}
}

// What is not there is not found.
func TestAbsent(t *testing.T) {
	all := column.Vector{Type: dsdb.Integer, N: 2, Ints: []int64{1, 2}, Valid: column.NewBitmap(2)}
	f, _ := write(t, Options{}, []testSeries{
		{3, 10, []int64{1, 2}, []FieldColumn{{1, ints([]int64{1, 2})}, {4, all}}},
		{3, 20, []int64{1, 2}, []FieldColumn{{2, ints([]int64{1, 2})}, {5, column.Vector{N: 2}}}},
	})
	r := open(t, f)
	var c Chunk
	for _, k := range [][2]uint32{{2, 10}, {4, 10}, {3, 9}, {3, 15}, {3, 21}} {
		if r.Chunk(k[0], dsdb.SeriesID(k[1]), &c) {
			t.Errorf("measurement %d has a series %d", k[0], k[1])
		}
	}
	for _, k := range [][2]uint32{{10, 2}, {10, 4}, {20, 1}, {20, 5}, {20, 0}, {10, 9}} {
		if !r.Chunk(3, dsdb.SeriesID(k[0]), &c) {
			t.Fatalf("series %d is not there", k[0])
		}
		if _, ok := c.Field(k[1]); ok {
			t.Errorf("series %d has a field %d", k[0], k[1])
		}
	}
	if got := r.Fields(3, nil); !slices.Equal(got, []uint32{1, 2}) {
		t.Errorf("fields %v", got)
	}
	if got := r.Series(3, nil); !slices.Equal(got, []dsdb.SeriesID{10, 20}) {
		t.Errorf("series %v", got)
	}
	if got := r.Measurements(); !slices.Equal(got, []uint32{3}) {
		t.Errorf("measurements %v", got)
	}
}

// A file of next to nothing stays small: old shards have thousands of them.
func TestTinyFileSize(t *testing.T) {
	var cols []FieldColumn
	for f := range uint32(3) {
		cols = append(cols, FieldColumn{f + 1, floats([]float64{1.5, 2.5, 7, 8, 9.25, 1, 2})})
	}
	_, info := write(t, Options{}, []testSeries{{1, 1, every(1_700_000_000e9, 60e9, 7), cols}})
	if info.Size > 6<<10 {
		t.Fatalf("one series of seven rows takes %d bytes", info.Size)
	}
	t.Log(info.Size)
}

// A code trained on a series that is not typical of its field is replaced.
func TestCodeFollowsData(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var series []testSeries
	for sid := range 60 {
		v := make([]int64, 3600)
		for i := range v {
			if sid == 0 {
				v[i] = int64(rng.IntN(20)) / 19 // calm: nearly always 0
			} else if i > 0 {
				v[i] = v[i-1] + int64(rng.NormFloat64()*10)
			}
		}
		series = append(series, testSeries{1, dsdb.SeriesID(sid), every(0, 10e9, 3600), []FieldColumn{{1, ints(v)}}})
	}
	f, _ := write(t, Options{Entropy: true}, series)
	r := open(t, f)
	verify(t, r, series)
	var c Chunk
	huffman := 0
	for sid := range 60 {
		r.Chunk(1, dsdb.SeriesID(sid), &c)
		fc, _ := c.Field(1)
		for i := range c.Tiles() {
			if m := fc.dir.payload.tile(i)[0]; m == modeHuff || m == modeHuffEscape {
				huffman++
			}
		}
	}
	if huffman < 500 {
		t.Fatalf("only %d of 600 tiles are Huffman coded", huffman)
	}
}

// A real file is read through its mapping; one that was cut off since then makes
// an error of the fault, with name and offset.
func TestMappedFile(t *testing.T) {
	series := randomSeries(4)
	m, _ := write(t, Options{}, series)
	name := filepath.Join(t.TempDir(), "a.seg")
	fs := vfs.OS()
	f, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(m.b, 0); err != nil {
		t.Fatal(err)
	}
	r, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	verify(t, r, series)
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(); dsdb.KindOf(err) != dsdb.KindCorrupt || !strings.Contains(err.Error(), name) {
		t.Fatalf("a file that is gone: %v", err)
	}
	if err := Guard(func() error { return readAll(r) }); dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Fatalf("a file that is gone: %v", err)
	}
}
