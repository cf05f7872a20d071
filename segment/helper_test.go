package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// memFile is a file in memory, as small as the Writer and the Reader allow. Once
// it has limit bytes, if that is not 0, there is no more space.
type memFile struct {
	name  string
	b     []byte
	limit int
}

var errFull = errors.New("no space left")

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if f.limit > 0 && int(off)+len(p) > f.limit {
		return 0, errFull
	}
	if need := int(off) + len(p); need > len(f.b) {
		f.b = append(f.b, make([]byte, need-len(f.b))...)
	}
	return copy(f.b[off:], p), nil
}
func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.b).ReadAt(p, off)
}
func (f *memFile) SyncData() error                    { return nil }
func (f *memFile) Preallocate(int64) error            { return nil }
func (f *memFile) Truncate(n int64) error             { f.b = f.b[:n]; return nil }
func (f *memFile) Size() (int64, error)               { return int64(len(f.b)), nil }
func (f *memFile) Map() ([]byte, func() error, error) { return f.b, func() error { return nil }, nil }
func (f *memFile) Name() string                       { return f.name }
func (f *memFile) Close() error                       { return nil }

// testSeries is the rows of one series as a test gives them to a Writer.
type testSeries struct {
	measurement uint32
	sid         dsdb.SeriesID
	times       []int64
	cols        []FieldColumn
}

func write(t testing.TB, o Options, series []testSeries) (*memFile, Info) {
	t.Helper()
	f := &memFile{name: "test.seg"}
	w := NewWriter(f, Header{Shard: 7, Level: 1, MinIndex: 3, MaxIndex: math.MaxUint64, Seq: 9}, o)
	for _, s := range series {
		if err := w.Add(s.measurement, s.sid, s.times, s.cols); err != nil {
			t.Fatal(err)
		}
	}
	info, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if crc := crc32.Checksum(f.b, castagnoli); info.Size != int64(len(f.b)) || info.CRC != crc {
		t.Fatalf("Info has size %d and checksum %#x, the file %d and %#x", info.Size, info.CRC, len(f.b), crc)
	}
	return f, info
}

func open(t testing.TB, f *memFile) *Reader {
	t.Helper()
	r, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// slowStats computes statistics the obvious way, value by value.
func slowStats(typ dsdb.FieldType, v *column.Vector, start, end int) column.Stats {
	s := column.Stats{Known: true}
	var fsum float64
	isum := newBig()
	for i := start; i < end; i++ {
		if v.Null(i) {
			continue
		}
		s.Count++
		if typ == dsdb.String || typ == dsdb.Boolean {
			continue
		}
		bits := valueBits(typ, v, i)
		if s.Count == 1 {
			s.First, s.Min, s.Max = bits, bits, bits
		}
		s.Last = bits
		if less(typ, bits, s.Min) {
			s.Min = bits
		}
		if less(typ, s.Max, bits) {
			s.Max = bits
		}
		switch typ {
		case dsdb.Float:
			fsum += math.Float64frombits(bits)
			s.Sum = math.Float64bits(fsum)
		default:
			isum.add(typ, bits)
			s.Sum += bits
		}
	}
	if typ == dsdb.Float && math.IsNaN(fsum) {
		return column.Stats{Count: s.Count}
	}
	s.SumOverflow = isum.overflows(typ)
	return s
}

func valueBits(typ dsdb.FieldType, v *column.Vector, i int) uint64 {
	if typ == dsdb.Float {
		return math.Float64bits(v.Floats[i])
	}
	return uint64(v.Ints[i])
}

func less(typ dsdb.FieldType, a, b uint64) bool {
	switch typ {
	case dsdb.Float:
		return math.Float64frombits(a) < math.Float64frombits(b)
	case dsdb.Unsigned:
		return a < b
	}
	return int64(a) < int64(b)
}

// verify reads every series back in full and compares it with what was written.
func verify(t *testing.T, r *Reader, series []testSeries) {
	t.Helper()
	var c Chunk
	for _, s := range series {
		if !r.Chunk(s.measurement, s.sid, &c) {
			t.Fatalf("series %d of measurement %d is not there", s.sid, s.measurement)
		}
		if err := c.Err(); err != nil {
			t.Fatal(err)
		}
		verifyTimes(t, &c, s.times)
		for i := range s.cols {
			verifyField(t, &c, s.sid, &s.cols[i])
		}
	}
}

func verifyTimes(t *testing.T, c *Chunk, times []int64) {
	t.Helper()
	if c.Rows() != len(times) || c.MinTime() != times[0] || c.MaxTime() != times[len(times)-1] {
		t.Fatalf("chunk has %d rows of [%d, %d], want %d", c.Rows(), c.MinTime(), c.MaxTime(), len(times))
	}
	start := 0
	var got []int64
	for i := range c.Tiles() {
		info := c.Tile(i)
		var err error
		if got, err = c.Times(i, got); err != nil {
			t.Fatal(err)
		}
		if len(got) != info.Rows || info.First != got[0] || info.Last != got[len(got)-1] {
			t.Fatalf("tile %d is %+v but has times %v", i, info, got)
		}
		for j, x := range got {
			if x != times[start+j] {
				t.Fatalf("time of row %d is %d, want %d", start+j, x, times[start+j])
			}
		}
		if first, step, ok := c.Stride(i); ok {
			for j, x := range got {
				if x != first+int64(j)*step {
					t.Fatalf("tile %d is no stride of %d", i, step)
				}
			}
		}
		start += info.Rows
	}
	if start != len(times) {
		t.Fatalf("tiles have %d rows, want %d", start, len(times))
	}
}

func verifyField(t *testing.T, c *Chunk, sid dsdb.SeriesID, col *FieldColumn) {
	t.Helper()
	allNull := true
	for i := range col.Vec.N {
		allNull = allNull && col.Vec.Null(i)
	}
	f, ok := c.Field(col.Field)
	if ok == allNull {
		t.Fatalf("field %d of series %d: present %v, all null %v", col.Field, sid, ok, allNull)
	}
	if !ok {
		return
	}
	start := 0
	var v column.Vector
	for i := range c.Tiles() {
		end := start + c.Tile(i).Rows
		want := slowStats(col.Vec.Type, &col.Vec, start, end)
		if got := f.Stats(i); !sameStats(got, want) {
			t.Fatalf("field %d of series %d, tile %d: statistics %+v, want %+v", col.Field, sid, i, got, want)
		}
		if err := f.Decode(i, &v); err != nil {
			t.Fatal(err)
		}
		if msg := diffRows(&v, &col.Vec, start, end); msg != "" {
			t.Fatalf("field %d of series %d, tile %d: %s", col.Field, sid, i, msg)
		}
		start = end
	}
}

// sameStats compares what is specified.
func sameStats(a, b column.Stats) bool {
	if a.Known != b.Known || !a.Known {
		return a.Known == b.Known
	}
	if a.Count == 0 || b.Count == 0 {
		return a.Count == b.Count
	}
	return a == b
}

// diffRows compares a decoded tile with rows [start, end) of what was written.
func diffRows(got, want *column.Vector, start, end int) string {
	if got.N != end-start {
		return fmt.Sprintf("%d rows, want %d", got.N, end-start)
	}
	nulls := 0
	for i := start; i < end; i++ {
		g := i - start
		if want.Null(i) {
			nulls++
		}
		if got.Null(g) != want.Null(i) {
			return fmt.Sprintf("row %d: null %v", i, got.Null(g))
		}
		if want.Null(i) {
			continue
		}
		if got.Type != want.Type {
			return fmt.Sprintf("type %s, want %s", got.Type, want.Type)
		}
		if want.Type == dsdb.String {
			if !bytes.Equal(got.Str(g), want.Str(i)) {
				return fmt.Sprintf("row %d: %q, want %q", i, got.Str(g), want.Str(i))
			}
		} else if a, b := valueBits(got.Type, got, g), valueBits(got.Type, want, i); a != b {
			return fmt.Sprintf("row %d: %#x, want %#x", i, a, b)
		}
	}
	if nulls == 0 && got.Valid != nil || nulls == got.N && got.Type != dsdb.NoType {
		return fmt.Sprintf("%d of %d rows are null but validity is %v and type %s", nulls, got.N, got.Valid, got.Type)
	}
	return ""
}

// big is an integer of unlimited size that only adds.
type big struct{ hi, lo int64 } // value = hi * 2^32 + lo

func newBig() *big { return &big{} }

func (b *big) add(typ dsdb.FieldType, bits uint64) {
	b.lo += int64(bits & 0xffffffff)
	if typ == dsdb.Unsigned {
		b.hi += int64(bits >> 32)
	} else {
		b.hi += int64(bits) >> 32
	}
}

func (b *big) overflows(typ dsdb.FieldType) bool {
	hi := b.hi + b.lo>>32
	switch typ {
	case dsdb.Unsigned:
		return hi < 0 || hi > math.MaxUint32
	case dsdb.Integer:
		return hi < math.MinInt32 || hi > math.MaxInt32
	}
	return false
}

// walk is a clamped random walk of integers in 0 … 100, like the usage_* fields of TSBS.
func walk(rng *rand.Rand, n int) []int64 {
	v := make([]int64, n)
	x := rng.Float64() * 100
	for i := range v {
		x = min(max(x+rng.NormFloat64(), 0), 100)
		v[i] = int64(x)
	}
	return v
}

func ints(v []int64) column.Vector { return column.Vector{Type: dsdb.Integer, N: len(v), Ints: v} }

func floats(v []float64) column.Vector {
	return column.Vector{Type: dsdb.Float, N: len(v), Floats: v}
}

func texts(v []string) column.Vector {
	c := column.Vector{Type: dsdb.String, N: len(v), Offsets: []uint32{0}}
	for _, s := range v {
		c.Bytes = append(c.Bytes, s...)
		c.Offsets = append(c.Offsets, uint32(len(c.Bytes)))
	}
	return c
}

// every returns n times, step apart.
func every(first, step int64, n int) []int64 {
	v := make([]int64, n)
	fill(v, first, step)
	return v
}

// resealed makes the checksums of a damaged file right, if its seal can be found.
func resealed(b []byte) {
	if len(b) < trailerSize+10 {
		return
	}
	tail := len(b) - 10
	end := tail - int(binary.LittleEndian.Uint32(b[tail:]))
	if end < trailerSize || end > tail {
		return
	}
	covered := binary.LittleEndian.Uint64(b[end-trailerSize:])
	pages := (covered + pageSize - 1) / pageSize
	if covered > uint64(end) || covered+4*pages != uint64(end-trailerSize) {
		return
	}
	seal := b[covered:covered:end]
	for p := range pages {
		page := b[p*pageSize : min((p+1)*pageSize, covered)]
		seal = binary.LittleEndian.AppendUint32(seal, crc32.Checksum(page, castagnoli))
	}
	appendTrailer(seal, covered, b[end:])
}
