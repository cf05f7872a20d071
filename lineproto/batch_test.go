package lineproto_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/lineproto"
)

func parse(t *testing.T, body string, o lineproto.Options) (*column.WriteBatch, lineproto.Report) {
	t.Helper()
	var p lineproto.Parser
	b := &column.WriteBatch{}
	r, err := p.Parse(b, []byte(body), o)
	if err != nil {
		t.Fatal(err)
	}
	return b, r
}

// A field of two types becomes two columns; the catalogue decides which is right.
func TestTwoTypesOfOneField(t *testing.T) {
	b, r := parse(t, "m v=1\nm v=2i\nm v=3,v=4i\nm v=\"5\"\n", lineproto.Options{})
	if r.BadLines != 0 || len(b.Tables) != 1 {
		t.Fatal(r, len(b.Tables))
	}
	var got []string
	for _, c := range b.Tables[0].Columns {
		got = append(got, fmt.Sprint(c.Name, " ", c.Type, " ", c.Valid.Get(0), c.Valid.Get(1), c.Valid.Get(2), c.Valid.Get(3)))
	}
	want := "v float true false true false; v integer false true true false; v string false false false true"
	if s := strings.Join(got, "; "); s != want {
		t.Fatalf("%s\nwant %s", s, want)
	}
}

// Spellings of one series share a key of the batch.
func TestOneKeyPerSeries(t *testing.T) {
	b, _ := parse(t, "m,b=2,a=1 f=1\nm,a=1,b=2 f=2\nm\\=x f=1\nm=x f=2\nm,t==y f=3\nm,t=\\=y f=4\nm,t=\\\\,\\,\\= f=5\n", lineproto.Options{})
	for _, tb := range b.Tables {
		for i := range tb.Keys.Len() {
			name, tags, err := dsdb.ParseSeriesKey(tb.Keys.At(i))
			if err != nil || string(dsdb.AppendSeriesKey(nil, name, tags)) != string(tb.Keys.At(i)) {
				t.Errorf("key %q is not canonical", tb.Keys.At(i))
			}
		}
	}
	if m, mx := b.Tables[0], b.Tables[1]; m.Keys.Len() != 3 || mx.Keys.Len() != 1 {
		t.Fatalf("%d keys of m, %d of m=x", m.Keys.Len(), mx.Keys.Len())
	}
}

func TestMissingTimeIsNowCutToPrecision(t *testing.T) {
	for _, c := range []struct {
		now       int64
		precision lineproto.Precision
		want      int64
	}{
		{1234567890, lineproto.Nanosecond, 1234567890},
		{1234567890, lineproto.Second, 1000000000},
		{-1, lineproto.Second, -1000000000},
		{7200e9 + 1, lineproto.Hour, 7200e9},
	} {
		b, _ := parse(t, "m f=1", lineproto.Options{Now: c.now, Precision: c.precision})
		if got := b.Tables[0].Times[0]; got != c.want {
			t.Errorf("now %d, precision %d: %d, want %d", c.now, c.precision, got, c.want)
		}
	}
}

func TestUnsignedIsAnOption(t *testing.T) {
	b, r := parse(t, "m f=18446744073709551615u\nm f=-1u\nm f=18446744073709551616u", lineproto.Options{Unsigned: true})
	if r.Points != 1 || b.Tables[0].Columns[0].Type != dsdb.Unsigned || b.Tables[0].Columns[0].Bits[0] != 1<<64-1 {
		t.Fatal(r.Text())
	}
	want := "unable to parse 'm f=-1u': invalid number\nunable to parse 'm f=18446744073709551616u': unable to parse unsigned 18446744073709551616: strconv.ParseUint: parsing \"18446744073709551616\": value out of range"
	if r.Text() != want {
		t.Fatal(r.Text())
	}
}

// InfluxDB drops what is named time, and says so in other words than a bad line's.
func TestNamedTime(t *testing.T) {
	for _, c := range []struct{ body, rows, reason string }{
		{"m time=1", "", `invalid field name: input field "time" on measurement "m" is invalid`},
		{"m time=1,f=2", "m f=2 @0\n", ""},
		{"m,time=x f=1\nm,time=x f=1\nm f=3", "m f=3 @0\n", `invalid tag key: input tag "time" on measurement "m" is invalid`},
	} {
		b, r := parse(t, c.body, lineproto.Options{})
		if dump(b) != c.rows || r.Reason != c.reason || r.BadLines > 0 {
			t.Errorf("%q: %q %q", c.body, dump(b), r.Reason)
		}
	}
}

func TestErrorsAreBounded(t *testing.T) {
	body := strings.Repeat("m f=\n", 100_000) + "m f=1\n"
	_, r := parse(t, body, lineproto.Options{})
	if r.Points != 1 || r.BadLines != 100_000 || len(r.Bad) != lineproto.DefaultMaxErrors {
		t.Fatalf("%d points, %d bad lines, %d kept", r.Points, r.BadLines, len(r.Bad))
	}
	if s := r.Text(); !strings.HasSuffix(s, "\nand 99900 more lines") {
		t.Fatal(s[len(s)-50:])
	}
	_, r = parse(t, "m f=\""+strings.Repeat("x", 1<<20), lineproto.Options{})
	if n := len(r.Text()); n > 200<<10 {
		t.Fatalf("text of %d bytes", n)
	}
}

func TestPlaceOfErrors(t *testing.T) {
	_, r := parse(t, "m f=1\n\nm f=\"a\nb\" 5\n  m f=1x\nm,t f=1\n", lineproto.Options{})
	var got []string
	for _, e := range r.Bad {
		got = append(got, fmt.Sprintf("%d:%d", e.Line, e.Column))
	}
	if s := strings.Join(got, " "); s != "5:8 6:4" {
		t.Fatal(s)
	}
}

// Each line has a field of its own: memory must stay in proportion to the body.
func TestSparseFields(t *testing.T) {
	var body strings.Builder
	const lines = 20_000
	for i := range lines {
		fmt.Fprintf(&body, "m f%d=%di %d\n", i, i, i)
	}
	b, r := parse(t, body.String(), lineproto.Options{})
	slots, at := 0, int64(0)
	for i := range b.Tables {
		tb := &b.Tables[i]
		slots += tb.Rows() * len(tb.Columns)
		for row, time := range tb.Times {
			if time != at || tb.Keys.Len() != 1 {
				t.Fatalf("table %d row %d: time %d, want %d", i, row, time, at)
			}
			at++
		}
	}
	if r.Points != lines || at != lines || slots > 400*lines {
		t.Fatalf("%d points, %d rows, %d slots", r.Points, at, slots)
	}
}

func TestTooManyValues(t *testing.T) {
	var p lineproto.Parser
	var b column.WriteBatch
	body := []byte(strings.Repeat("m f=1\n", column.MaxEntryRows+1))
	if _, err := p.Parse(&b, body, lineproto.Options{}); dsdb.KindOf(err) != dsdb.KindTooLarge || len(b.Tables) != 0 {
		t.Fatal(err)
	}
	if r, err := p.Parse(&b, []byte("m f=1\n"), lineproto.Options{}); err != nil || r.Points != 1 || b.Rows() != 1 {
		t.Fatal("parser is unusable after a body that was too large")
	}
}

func TestNoAllocationInSteadyState(t *testing.T) {
	body := []byte("cpu,host=a usage=1i,name=\"x\",load=1.5,up=t 10\ncpu,host=b usage=2i,load=2.25,up=f 10\n")
	var p lineproto.Parser
	var b column.WriteBatch
	n := testing.AllocsPerRun(100, func() {
		if _, err := p.Parse(&b, body, lineproto.Options{}); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestParsePrecision(t *testing.T) {
	if _, err := lineproto.ParsePrecision("x"); err == nil || err.Error() != `invalid precision "x" (use n, u, ms, s, m or h)` {
		t.Fatal(err)
	}
}
