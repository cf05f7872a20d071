package segment

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

var testNames = Names{
	Measurement: func(m uint32) string { return fmt.Sprint("m", m) },
	Field:       func(m, f uint32) string { return fmt.Sprint("f", f) },
	Series:      func(m uint32, id dsdb.SeriesID) string { return fmt.Sprintf("m%d,id=%d", m, id) },
}

func TestInspect(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	half := ints(every(5, 2, 720))
	half.Valid = column.NewBitmap(720)
	for i := range 360 {
		half.Valid.Set(i)
	}
	prices := make([]float64, 720)
	for i := range prices {
		prices[i] = float64(rng.IntN(1000)) / 100
	}
	f, _ := write(t, Options{Entropy: true}, []testSeries{
		{1, 1, every(1_700_006_400e9, 10e9, 720), []FieldColumn{{1, half}, {2, floats(prices)}}},
		{2, 8, []int64{0, 1e9, 5e9}, []FieldColumn{{9, texts([]string{"on", "off", "on"})}}},
	})
	var out bytes.Buffer
	if err := Inspect(open(t, f), testNames, &out); err != nil {
		t.Fatal(err)
	}
	want := `segment test.seg
format 1, shard 7, level 1, number 9, raft indexes 3 to 18446744073709551615
BYTES, 723 rows, 1083 values, RATIO bytes a value, 1 record batches, 0 Huffman tables
1970-01-01T00:00:00Z to 2023-11-15T01:59:50Z

measurement m1 (1): 1 series in 1 blocks
  column  type     chunks  tiles  values  bytes  bytes/value  tiles by encoding
  time    time     1       2      720     40     0.056        stride 2
  f1      integer  1       2      360     37     0.103        null 1, stride 1
  f2      float    1       2      720     978    1.358        decimal+for 2

measurement m2 (2): 1 series in 1 blocks
  column  type    chunks  tiles  values  bytes  bytes/value  tiles by encoding
  time    time    1       1      3       31     10.333       gcd+for 1
  f9      string  1       1      3       18     6.000        bytes 1
`
	lines := strings.Split(out.String(), "\n")
	head := strings.Fields(lines[2])
	lines[2] = strings.Replace(lines[2], head[0]+" bytes", "BYTES", 1)
	lines[2] = strings.Replace(lines[2], head[6], "RATIO", 1)
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got:\n%s", got)
	}
}

// An export has every row with every value, and fields of one name and several
// types in columns of their own.
func TestExportArrow(t *testing.T) {
	series := []testSeries{
		{1, 4, []int64{10, 20}, []FieldColumn{{1, floats([]float64{1.5, 2})}, {2, texts([]string{"a", ""})}}},
		{2, 1, []int64{-5}, []FieldColumn{{1, ints([]int64{7})}}},
	}
	series[0].cols[0].Vec.Valid = column.Bitmap{2}
	f, _ := write(t, Options{}, series)
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	var out bytes.Buffer
	if err := exportArrow(open(t, f), testNames, &out, mem); err != nil {
		t.Fatal(err)
	}
	r, err := ipc.NewReader(&out, ipc.WithAllocator(mem))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	var rows []string
	for r.Next() {
		rows = append(rows, printRows(r.Record())...)
	}
	want := []string{
		"measurement=m1 series=m1,id=4 time=10 f1:float=(null) f2=a f1:integer=(null)",
		"measurement=m1 series=m1,id=4 time=20 f1:float=2 f2= f1:integer=(null)",
		"measurement=m2 series=m2,id=1 time=-5 f1:float=(null) f2=(null) f1:integer=7",
	}
	if got := strings.Join(rows, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got:\n%s", got)
	}
}

func printRows(rec arrow.Record) (rows []string) {
	for i := range int(rec.NumRows()) {
		var cells []string
		for c := range int(rec.NumCols()) {
			value := rec.Column(c).ValueStr(i)
			if ts, ok := rec.Column(c).(*array.Timestamp); ok {
				value = fmt.Sprint(int64(ts.Value(i)))
			}
			cells = append(cells, rec.ColumnName(c)+"="+value)
		}
		rows = append(rows, strings.Join(cells, " "))
	}
	return rows
}

// The rows of an export are those of the segment, however they are encoded.
func TestExportCountsRows(t *testing.T) {
	f, info := write(t, Options{Entropy: true}, randomSeries(5))
	var out bytes.Buffer
	if err := ExportArrow(open(t, f), testNames, &out); err != nil {
		t.Fatal(err)
	}
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	r, err := ipc.NewReader(&out, ipc.WithAllocator(mem))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	rows, values := uint64(0), uint64(0)
	for r.Next() {
		rec := r.Record()
		rows += uint64(rec.NumRows())
		for c := 3; c < int(rec.NumCols()); c++ {
			values += uint64(int(rec.NumRows()) - rec.Column(c).NullN())
		}
	}
	if rows != info.Rows || values != info.Values {
		t.Fatalf("%d rows and %d values, want %d and %d", rows, values, info.Rows, info.Values)
	}
}
