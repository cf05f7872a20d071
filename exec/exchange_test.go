package exec

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/wire"
)

// TestRecordRoundTrip says that columns of every kind come back bit by bit.
func TestRecordRoundTrip(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 9))
		n := oneOf(r, 0, 1, 2, 63, 64, 65, 1000)
		ints, floats, bits, cells := make([]int64, n), make([]uint64, n), make([]uint64, n), make([]uint32, n)
		flags, texts := make([]bool, n), make([]string, n)
		for i := range n {
			ints[i], bits[i], cells[i] = int64(r.Uint64()), r.Uint64(), r.Uint32()
			floats[i] = r.Uint64() // any bits, NaNs among them
			flags[i], texts[i] = r.IntN(2) == 0, oneOf(r, "", "x", "\x00\xff", "longer text")
		}
		values := make([]float64, n)
		for i, b := range floats {
			values[i] = math.Float64frombits(b)
		}
		in := []any{&ints, &values, &bits, &cells, &flags, &texts}
		vectors := []*column.Vector{randomVector(r, dsdb.Float, n), randomVector(r, dsdb.Integer, n), randomVector(r, dsdb.Boolean, n), randomVector(r, dsdb.String, n)}
		out := []any{new([]int64), new([]float64), new([]uint64), new([]uint32), new([]bool), new([]string)}
		for _, v := range vectors {
			in, out = append(in, v), append(out, &column.Vector{Type: v.Type})
		}
		b, err := appendRecord([]byte("before"), in)
		if err != nil {
			t.Fatal(err)
		}
		m := wire.NewReader(append(b[len("before"):], "after"...))
		rows, err := readRecord(m, out)
		if err != nil || rows != n || string(m.Rest()) != "after" {
			t.Fatalf("seed %d: %d rows of %d, %v", seed, rows, n, err)
		}
		for i, v := range *out[1].(*[]float64) {
			if math.Float64bits(v) != floats[i] {
				t.Fatalf("seed %d: float %x became %x", seed, floats[i], math.Float64bits(v))
			}
		}
		for i := range in {
			if v, ok := in[i].(*column.Vector); ok {
				sameVector(t, v, out[i].(*column.Vector))
			} else if n > 0 && i != 1 && !reflect.DeepEqual(in[i], out[i]) {
				t.Fatalf("seed %d: column %d is %v, was %v", seed, i, out[i], in[i])
			}
		}
	}
}

func randomVector(r *rand.Rand, typ dsdb.FieldType, n int) *column.Vector {
	var b builder
	b.reset(typ)
	nulls := r.IntN(3)
	for range n {
		switch {
		case nulls > 0 && r.IntN(3) < nulls:
			b.null()
		case typ == dsdb.Float:
			b.float(r.NormFloat64())
		case typ == dsdb.String:
			b.str(oneOf(r, "", "a", "bcd"))
		default:
			b.int(r.Int64N(2))
		}
	}
	v := b.view()
	return &v
}

func sameVector(t *testing.T, a, b *column.Vector) {
	t.Helper()
	if a.N != b.N {
		t.Fatalf("%d rows became %d", a.N, b.N)
	}
	for i := range a.N {
		if printValue(a, i) != printValue(b, i) {
			t.Fatalf("row %d: %s became %s", i, printValue(a, i), printValue(b, i))
		}
	}
}

// TestPieces says that a message which is longer than a connection may carry at
// once comes back in one.
func TestPieces(t *testing.T) {
	for _, n := range []int{0, 1, maxPiece - 2, maxPiece - 1, maxPiece, maxPiece + 1, 2*maxPiece + 5} {
		a, b := pipe()
		want := make([]byte, n)
		for i := range want {
			want[i] = byte(i * 7 >> 3)
		}
		done := make(chan error)
		go func() { done <- send(a, append([]byte{0}, want...)) }()
		got, err := receive(b)
		if err2 := <-done; err != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes became %d: %v, %v", n, len(got), err, err2)
		}
	}
}

// TestMembersRoundTrip says that the series of a fragment come back in their order, with their groups.
func TestMembersRoundTrip(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 4))
		listed := 1 + r.IntN(300)
		place := make([]uint32, listed)
		for i, p := range r.Perm(listed) {
			place[i] = uint32(p)
			if seed%2 == 0 {
				place[i] = uint32(i)
			}
		}
		var ms []member
		group := int32(3)
		for _, i := range r.Perm(listed)[:1+r.IntN(listed)] {
			if r.IntN(4) == 0 {
				group += 1 + r.Int32N(3)
			}
			ms = append(ms, member{int32(i), group})
		}
		b, numbers := appendMembers(nil, ms, place)
		groups := 10
		m := wire.NewReader(b)
		got := decodeMembers(m, 1000, listed, &groups)
		if err := m.End(); err != nil || len(got) != len(ms) || groups != 10+len(numbers) {
			t.Fatalf("seed %d: %v, %d of %d series, %d groups of %d", seed, err, len(got), len(ms), groups-10, len(numbers))
		}
		for i, g := range got {
			if g.series != 1000+int32(place[ms[i].series]) || numbers[g.place-10] != ms[i].place {
				t.Fatalf("seed %d: series %d is %v, was %v", seed, i, g, ms[i])
			}
		}
	}
}

// FuzzRecord says that no bytes make reading a record panic or take much memory.
func FuzzRecord(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	ints, texts := []int64{1, 2, 3}, []string{"a", "", "bc"}
	b, err := appendRecord(nil, []any{&ints, &texts, randomVector(r, dsdb.Float, 3), randomVector(r, dsdb.String, 3)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		cols := []any{new([]int64), new([]string), &column.Vector{Type: dsdb.Float}, &column.Vector{Type: dsdb.String}}
		rows, err := readRecord(wire.NewReader(b), cols)
		if err != nil {
			if dsdb.KindOf(err) != dsdb.KindInvalid {
				t.Fatal(err)
			}
			return
		}
		for i := range rows {
			_, _ = (*cols[0].(*[]int64))[i], (*cols[1].(*[]string))[i]
			_, _ = printValue(cols[2].(*column.Vector), i), printValue(cols[3].(*column.Vector), i)
		}
	})
}

// What a newer version asks in a query is refused by name.
func TestNewerFormatIsRefused(t *testing.T) {
	b := requestHead(openRequest, 7)[1:]
	if r := readRequest(b); r.err != nil || r.id != 7 {
		t.Fatalf("request of this version: %+v", r)
	}
	b[0]++
	if r := readRequest(b); r.err == nil || !strings.Contains(r.err.Error(), "version 2, this is 1") {
		t.Errorf("request of a newer one: %v", r.err)
	}
}
