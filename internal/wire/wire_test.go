package wire

import (
	"math"
	"slices"
	"testing"

	"github.com/dasudian/dsdb"
)

// TestRoundTrip says that values come back as they were, floats bit by bit.
func TestRoundTrip(t *testing.T) {
	nan := math.Float64frombits(0x7ff8_0000_dead_beef)
	b := AppendString(nil, "a\x00b")
	b = AppendBool(AppendBool(b, true), false)
	b = AppendFloat(b, nan)
	b = AppendStrings(b, []string{"", "x"})
	b = AppendStrings(b, nil)
	b = AppendUint(b, 300)
	b = AppendInt(b, math.MinInt64)
	r := NewReader(b)
	if s := r.String(); s != "a\x00b" {
		t.Errorf("string %q", s)
	}
	if !r.Bool() || r.Bool() {
		t.Error("truth values changed")
	}
	if x := r.Float(); math.Float64bits(x) != math.Float64bits(nan) {
		t.Errorf("float %x", math.Float64bits(x))
	}
	if l := r.Strings(); !slices.Equal(l, []string{"", "x"}) {
		t.Errorf("strings %q", l)
	}
	if l := r.Strings(); l != nil {
		t.Errorf("strings %q", l)
	}
	if n, v := r.Size(300), r.Int(); n != 300 || v != math.MinInt64 {
		t.Errorf("numbers %d, %d", n, v)
	}
	if err := r.End(); err != nil {
		t.Error(err)
	}
}

// TestFaults says what is refused: with the offset, as KindInvalid, and for good.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		in   []byte
		read func(*Reader)
		want string
	}{
		{nil, func(r *Reader) { r.Byte() }, "message malformed at byte 0: ends early"},
		{[]byte{2}, func(r *Reader) { r.Bool() }, "message malformed at byte 1: truth value 2"},
		{[]byte{9}, func(r *Reader) { r.Size(8) }, "message malformed at byte 0: number 9 exceeds 8"},
		{[]byte{0x80}, func(r *Reader) { r.Int() }, "message malformed at byte 0: no number"},
		{[]byte{5, 'a'}, func(r *Reader) { _ = r.String() }, "message malformed at byte 1: 5 things of 1 bytes in 1"},
		{[]byte{1, 2, 3}, func(r *Reader) { r.Float() }, "message malformed at byte 0: ends within a float"},
		{[]byte{1, 2}, func(r *Reader) { r.Byte() }, "message malformed at byte 1: 1 bytes too many"},
	} {
		r := NewReader(c.in)
		c.read(r)
		err := r.End()
		if err == nil || err.Error() != c.want || dsdb.KindOf(err) != dsdb.KindInvalid {
			t.Errorf("%v: %v, want %s", c.in, err, c.want)
		}
		if r.Byte() != 0 || r.Err() != err {
			t.Errorf("%v: the fault did not stick", c.in)
		}
	}
}
