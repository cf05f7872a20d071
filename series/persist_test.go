package series

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
)

// files writes an index's changes to files as flushes do.
type files struct {
	last *State
	list [][]byte
}

func (f *files) flush(x *Index) {
	s := x.State()
	if !s.Same(f.last) {
		f.list = append(f.list, s.AppendFile(nil, f.last))
	}
	f.last = s
}

func (f *files) load(t testing.TB) *Index {
	t.Helper()
	x := New()
	for _, b := range f.list {
		if err := x.Load(b); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// An index that is written in parts, loaded, changed again and merged into one
// file answers as before, gives the next ids and keeps the types.
func TestFilesAgainstTwin(t *testing.T) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 2))
		x, w, f := New(), &twin{}, &files{last: new(State)}
		for range 12 {
			addRandom(r, x, w, 100)
			for _, m := range someMeasurements {
				field := x.Field(someValues[r.IntN(len(someValues))])
				if id := x.Measurement(m); x.FieldType(id, field) == dsdb.NoType && r.IntN(3) == 0 {
					x.FixType(id, field, dsdb.Float+dsdb.FieldType(r.IntN(5)))
				}
			}
			var drop []dsdb.SeriesID
			everything := r.IntN(6) == 0
			for i := range w.deleted {
				if everything || r.IntN(10) == 0 {
					drop = append(drop, dsdb.SeriesID(i+1))
					w.deleted[i] = true
				}
			}
			x.Drop(drop)
			f.flush(x)
			switch r.IntN(3) {
			case 0:
				f.list = [][]byte{f.last.AppendFile(nil, new(State))}
				fallthrough
			case 1:
				x = checkLoaded(t, r, f, x, w)
			}
		}
		checkLoaded(t, r, f, x, w)
	}
}

// checkLoaded compares what is loaded from the files with x, and returns it.
func checkLoaded(t *testing.T, r *rand.Rand, f *files, x *Index, w *twin) *Index {
	t.Helper()
	got := f.load(t)
	checkTwin(t, r, got.View(), w)
	if got.Stats().LastID != x.Stats().LastID || got.Stats().Series != x.Stats().Series {
		t.Fatalf("loaded %+v, want %+v", got.Stats(), x.Stats())
	}
	for _, m := range someMeasurements {
		names, types := x.View().Fields(m)
		gotNames, gotTypes := got.View().Fields(m)
		if !reflect.DeepEqual(names, gotNames) || !reflect.DeepEqual(types, gotTypes) {
			t.Fatalf("fields of %s: %v %v, want %v %v", m, gotNames, gotTypes, names, types)
		}
	}
	f.last = got.State()
	return got
}

// A measurement whose old series were all dropped while new ones were there
// keeps its types, though the file lists the dropped ones first.
func TestTypesOutliveOldSeries(t *testing.T) {
	x, f := New(), &files{last: new(State)}
	m, v := x.Measurement("cpu"), x.Field("v")
	x.Insert(nil, m, keysOf("cpu,host=a"), nil)
	x.FixType(m, v, dsdb.Integer)
	f.flush(x)
	x.Insert(nil, m, keysOf("cpu,host=b"), nil)
	x.Drop([]dsdb.SeriesID{1})
	f.flush(x)
	if got := f.load(t).FieldType(m, v); got != dsdb.Integer {
		t.Fatalf("type is %v", got)
	}
}

func sampleFiles() *files {
	r := rand.New(rand.NewPCG(1, 1))
	x, f := New(), &files{last: new(State)}
	for range 3 {
		addRandom(r, x, &twin{}, 20)
		x.FixType(x.Measurement("cpu"), x.Field("v"), dsdb.Float)
		x.Drop([]dsdb.SeriesID{1, 3})
		f.flush(x)
	}
	return f
}

// A changed byte is reported as corruption with an offset.
func TestFlippedBytes(t *testing.T) {
	for _, b := range sampleFiles().list {
		for i := range b {
			c := append([]byte(nil), b...)
			c[i] ^= 4
			if err := New().Load(c); dsdb.KindOf(err) != dsdb.KindCorrupt {
				t.Fatalf("byte %d of %d changed: %v", i, len(b), err)
			}
		}
	}
}

// Any bytes under a right checksum load or are reported; nothing panics.
func FuzzLoad(f *testing.F) {
	for _, b := range sampleFiles().list {
		f.Add(b[len(fileMagic) : len(b)-fileTrailer])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		x := New()
		err := x.Load(seal(append([]byte(fileMagic), body...)))
		if err != nil {
			if dsdb.KindOf(err) != dsdb.KindCorrupt {
				t.Fatal(err)
			}
			return
		}
		v := x.View()
		for _, m := range v.Measurements() {
			v.Series(m, &dsdb.TagExpr{Op: dsdb.TagNotEqual, Key: "host", Value: "a"}, v.TagKeys(m))
		}
		again := New()
		if err := again.Load(x.State().AppendFile(nil, new(State))); err != nil {
			t.Fatal(err)
		}
		if again.Stats().Series != x.Stats().Series {
			t.Fatalf("%+v after a second round, want %+v", again.Stats(), x.Stats())
		}
	})
}

// BenchmarkLoad loads an index file of a million series.
func BenchmarkLoad(b *testing.B) {
	x := New()
	x.Insert(nil, x.Measurement("cpu"), millionKeys(1_000_000), nil)
	file := x.State().AppendFile(nil, new(State))
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		if err := New().Load(file); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMatch finds one of a million series by its tag, and a ninth of them.
func BenchmarkMatch(b *testing.B) {
	x := New()
	x.Insert(nil, x.Measurement("cpu"), millionKeys(1_000_000), nil)
	v := x.View()
	for _, bench := range []struct{ key, value string }{{"hostname", "host_77777"}, {"region", "us-east-3"}} {
		b.Run(bench.key, func(b *testing.B) {
			where := &dsdb.TagExpr{Op: dsdb.TagEqual, Key: bench.key, Value: bench.value}
			v.Match("cpu", where)
			b.ReportAllocs()
			for b.Loop() {
				v.Match("cpu", where)
			}
		})
	}
}

// What a newer version wrote is refused, and not taken for damage.
func TestNewerFormatIsRefused(t *testing.T) {
	file := New().State().AppendFile(nil, new(State))
	file[len(fileMagic)-1]++
	if err := New().Load(file); dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Errorf("damaged: %v", err)
	}
	end := len(file) - fileTrailer
	binary.LittleEndian.PutUint32(file[end:], crc32.Checksum(file[:end], castagnoli))
	if err := New().Load(file); dsdb.KindOf(err) != dsdb.KindInvalid || !errors.Is(err, dsdb.ErrNewer) || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("newer: %v", err)
	}
}
