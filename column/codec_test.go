package column_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// rowsOf is the slow, obvious form of a batch: one line per row in order, with
// the keys and columns that are in use.
func rowsOf(b *column.WriteBatch) []string {
	var out []string
	for ti := range b.Tables {
		t := &b.Tables[ti]
		for r := range t.Rows() {
			s := fmt.Sprintf("%q %q @%d", t.Measurement, t.Keys.At(int(t.Series[r])), t.Times[r])
			for ci := range t.Columns {
				c := &t.Columns[ci]
				if !c.Valid.Get(r) {
					if c.Bits[r] != 0 {
						s += " null with bits!"
					}
					continue
				}
				if c.Type == dsdb.String {
					s += fmt.Sprintf(" %q=%q", c.Name, c.Str(r))
				} else {
					s += fmt.Sprintf(" %q=%v:%x", c.Name, c.Type, c.Bits[r])
				}
			}
			out = append(out, s)
		}
	}
	return out
}

// interesting values of each kind, beside random ones
var edgeBits = []uint64{
	0, 1, math.MaxUint64, math.MaxInt64, 1 << 63, 1 << 62, 100, 1000, 5_000_000_000,
	math.Float64bits(0.1), math.Float64bits(-2.5), math.Float64bits(1e300), math.Float64bits(math.Copysign(0, -1)),
	math.Float64bits(math.Inf(-1)), 0x7ff8000000000001, 0xfff0000000000123, math.Float64bits(99.99), math.Float64bits(1 << 53),
}

func genBatch(t *rapid.T) *column.WriteBatch {
	b := &column.WriteBatch{}
	for range rapid.IntRange(0, 3).Draw(t, "tables") {
		b.Tables = append(b.Tables, genTable(t))
	}
	return b
}

func genTable(t *rapid.T) column.Table {
	tb := column.Table{Measurement: rapid.StringN(0, 5, -1).Draw(t, "measurement")}
	for _, k := range rapid.SliceOfNDistinct(rapid.StringN(0, 8, -1), 1, 20, rapid.ID).Draw(t, "keys") {
		tb.Keys.Append([]byte("m,host=" + k))
	}
	rows := rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(1, 3000)).Draw(t, "rows")
	tb.MinTime, tb.MaxTime = math.MaxInt64, math.MinInt64
	step := rapid.SampledFrom([]int64{0, 1, 1e9, 1e10, 1e18}).Draw(t, "step")
	turns := rapid.Bool().Draw(t, "turns")
	seed := rapid.Uint64().Draw(t, "seed")
	for r := range rows {
		key := uint32(r % tb.Keys.Len())
		if !turns {
			key = uint32(mix(seed, r) % uint64(tb.Keys.Len()))
		}
		at := int64(r)*step + int64(mix(seed, r)%3)*step
		tb.Series, tb.Times = append(tb.Series, key), append(tb.Times, at)
		tb.MinTime, tb.MaxTime = min(tb.MinTime, at), max(tb.MaxTime, at)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "columns") {
		tb.Columns = append(tb.Columns, genColumn(t, fmt.Sprint("f", i), rows))
	}
	return tb
}

func mix(seed uint64, i int) uint64 {
	x := seed + uint64(i)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	return x ^ x>>27
}

func genColumn(t *rapid.T, name string, rows int) column.Column {
	c := column.Column{Name: name, Type: rapid.SampledFrom([]dsdb.FieldType{
		dsdb.Float, dsdb.Integer, dsdb.Unsigned, dsdb.Boolean, dsdb.String,
	}).Draw(t, "type")}
	seed := rapid.Uint64().Draw(t, "values")
	width := rapid.IntRange(0, 64).Draw(t, "width")
	digits := rapid.IntRange(0, 12).Draw(t, "digits")
	if rapid.Bool().Draw(t, "nulls") {
		c.Valid = column.NewBitmap(rows)
	}
	for r := range rows {
		x := mix(seed, r)
		if c.Valid != nil {
			if x&12 == 0 {
				c.Bits = append(c.Bits, 0)
				continue
			}
			c.Valid.Set(r)
		}
		v := x >> (64 - width)
		switch {
		case c.Type == dsdb.Boolean:
			v &= 1
		case c.Type == dsdb.String:
			n := v % 7
			v = uint64(len(c.Bytes))<<32 | n
			c.Bytes = append(c.Bytes, "abcdefg"[:n]...)
		case x%97 == 0:
			v = edgeBits[x/97%uint64(len(edgeBits))]
		case c.Type == dsdb.Float && digits < 12:
			v = math.Float64bits(math.Round(float64(v%1e6)) / math.Pow10(digits))
		}
		c.Bits = append(c.Bits, v)
	}
	return c
}

func TestRoundTrip(t *testing.T) {
	var got column.WriteBatch // reused, so that nothing of one batch may show in the next
	rapid.Check(t, func(t *rapid.T) {
		b := genBatch(t)
		src := b.Append([]byte("prefix"))
		if !bytes.HasPrefix(src, []byte("prefix")) {
			t.Fatal("Append overwrote dst")
		}
		if err := got.Decode(src[6:]); err != nil {
			t.Fatal(err)
		}
		if want, have := rowsOf(b), rowsOf(&got); !reflect.DeepEqual(want, have) {
			t.Fatalf("wrote %v\nread  %v", want, have)
		}
		for i := range b.Tables {
			w, h := &b.Tables[i], &got.Tables[i]
			if w.MinTime != h.MinTime || w.MaxTime != h.MaxTime || !reflect.DeepEqual(w.Keys, h.Keys) {
				t.Fatalf("table %d: times or keys differ", i)
			}
		}
	})
}

// Every cut of an entry and every flipped byte gives an error or a batch, never a panic.
func TestDecodeDamaged(t *testing.T) {
	b := sample()
	src := b.Append(nil)
	var got column.WriteBatch
	for n := range src {
		if err := got.Decode(src[:n]); dsdb.KindOf(err) != dsdb.KindCorrupt || err == nil {
			t.Fatalf("first %d of %d bytes: %v", n, len(src), err)
		}
		if len(got.Tables) != 0 {
			t.Fatalf("tables after an error")
		}
	}
	if err := got.Decode(append(src, 0)); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("offset %d: 1 bytes too many", len(src))) {
		t.Fatal(err)
	}
	for i := range src {
		damaged := bytes.Clone(src)
		damaged[i] ^= 0x81
		if got.Decode(damaged) == nil {
			rowsOf(&got)
		}
	}
}

func sample() *column.WriteBatch {
	var keys column.Keys
	keys.Append([]byte("cpu,host=a"))
	keys.Append([]byte("cpu,host=b"))
	return &column.WriteBatch{Tables: []column.Table{{
		Measurement: "cpu", Keys: keys, Series: []uint32{0, 1, 0, 1, 1},
		Times: []int64{10, 10, 20, 20, 30}, MinTime: 10, MaxTime: 30,
		Columns: []column.Column{
			{Name: "usage", Type: dsdb.Integer, Bits: []uint64{5, 7, 9, 11, 100}},
			{Name: "load", Type: dsdb.Float, Bits: []uint64{math.Float64bits(0.25), 0, 0, 0, math.Float64bits(-1)}, Valid: column.Bitmap{0b10001}},
			{Name: "name", Type: dsdb.String, Bits: []uint64{0<<32 | 2, 2 << 32, 2<<32 | 1, 0, 0}, Valid: column.Bitmap{0b00111}, Bytes: []byte("hio")},
			{Name: "up", Type: dsdb.Boolean, Bits: []uint64{1, 0, 1, 1, 1}},
		},
	}}}
}

// A few bytes may not claim memory without bound.
func TestDecodeLimits(t *testing.T) {
	table := func(rows, columns uint64) []byte {
		b := []byte{1, 1, 1, 'm'}
		b = appendUvarint(b, rows)
		b = appendUvarint(b, columns)
		return append(b, 1, 0, 1, 'm')
	}
	filler := make([]byte, 1<<20)
	for name, src := range map[string][]byte{
		"rows":    table(column.MaxEntryRows+1, 1),
		"values":  table(column.MaxEntryRows, column.MaxEntrySlots/column.MaxEntryRows+1),
		"columns": table(1, 1<<30),
		"tables":  {1, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"keys":    append(append([]byte{1, 1, 1, 'm', 1, 1, 0xff, 0xff, 0xff, 1}, 0), filler[:100]...),
	} {
		var b column.WriteBatch
		err := b.Decode(append(src, filler...))
		var e *dsdb.Error
		if !errors.As(err, &e) || e.Kind != dsdb.KindCorrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func appendUvarint(b []byte, v uint64) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().Append(nil))
	f.Add((&column.WriteBatch{}).Append(nil))
	f.Add([]byte{1, 1, 1, 'm', 2, 1, 1, 0, 1, 'm', 0, 0, 3, 3, 1, 'f', 1, 0xff})
	f.Add([]byte("\x01\x01\x03cpu\x05\x04\x02\x01\ncpu,host=a\x13\x01b\x01\x01\x00\x1a\x01\x82\n\x14P\x02\x05usa\xff\xff\xff\xff"))
	var got, again column.WriteBatch
	f.Fuzz(func(t *testing.T, src []byte) {
		if got.Decode(src) != nil {
			return
		}
		if got.Rows() > 1<<16 {
			return // costs too much to print
		}
		if err := again.Decode(got.Append(nil)); err != nil {
			t.Fatal(err)
		}
		if a, b := rowsOf(&got), rowsOf(&again); !reflect.DeepEqual(a, b) {
			t.Fatalf("%q\n%q", a, b)
		}
	})
}

// A batch that a newer version encoded is refused by name.
func TestNewerFormatIsRefused(t *testing.T) {
	b := new(column.WriteBatch).Append(nil)
	b[0]++
	if err := new(column.WriteBatch).Decode(b); err == nil || !strings.Contains(err.Error(), "batch of version 2, this program reads 1") {
		t.Errorf("%v", err)
	}
}
