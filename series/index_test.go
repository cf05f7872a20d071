package series

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"sync"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// twin is the obvious index: a list of series.
type twin struct {
	measurements []string
	tags         []dsdb.Tags
	deleted      []bool
}

func (w *twin) match(measurement string, where *dsdb.TagExpr) (ids []dsdb.SeriesID) {
	for i, m := range w.measurements {
		if m == measurement && !w.deleted[i] && where.Match(w.tags[i]) {
			ids = append(ids, dsdb.SeriesID(i+1))
		}
	}
	return ids
}

var (
	someMeasurements = []string{"cpu", "mem", "a b,c=d"}
	someKeys         = []string{"host", "region", "k,=1 ", "ü"}
	someValues       = []string{"a", "b", "a,b", "c=d", "e f", `back\slash`, "host_1", "host_22"}
)

func randomTags(r *rand.Rand) (tags dsdb.Tags) {
	for _, k := range someKeys {
		if r.IntN(3) > 0 {
			tags = append(tags, dsdb.Tag{Key: k, Value: someValues[r.IntN(len(someValues))] + fmt.Sprint(r.IntN(20))})
		}
	}
	slices.SortFunc(tags, func(a, b dsdb.Tag) int { return cmpString(a.Key, b.Key) })
	return tags
}

func cmpString(a, b string) int {
	if a < b {
		return -1
	} else if a > b {
		return 1
	}
	return 0
}

func randomExpr(r *rand.Rand, depth int) *dsdb.TagExpr {
	if depth > 0 && r.IntN(2) == 0 {
		e := &dsdb.TagExpr{Op: dsdb.TagOp(r.IntN(2))}
		for range 1 + r.IntN(3) {
			e.Args = append(e.Args, randomExpr(r, depth-1))
		}
		return e
	}
	e := &dsdb.TagExpr{Op: dsdb.TagEqual + dsdb.TagOp(r.IntN(4)), Key: append(someKeys, "nokey")[r.IntN(5)]}
	switch e.Op {
	case dsdb.TagEqual, dsdb.TagNotEqual:
		e.Value = []string{"", "a1", "b2", "c=d3", "nothing"}[r.IntN(5)]
	default:
		e.Regex = regexp.MustCompile([]string{"", "^$", "^a", "1$", "host_[0-9]+", "x"}[r.IntN(6)])
	}
	return e
}

// addRandom writes n random series to both, some of them again.
func addRandom(r *rand.Rand, x *Index, w *twin, n int) {
	for range n {
		m, tags := someMeasurements[r.IntN(len(someMeasurements))], randomTags(r)
		var keys column.Keys
		keys.Append(dsdb.AppendSeriesKey(nil, m, tags))
		id := x.Insert(nil, x.Measurement(m), &keys, nil)[0]
		if int(id) > len(w.tags) {
			w.measurements, w.tags, w.deleted = append(w.measurements, m), append(w.tags, tags), append(w.deleted, false)
		}
	}
}

func checkTwin(t *testing.T, r *rand.Rand, v *View, w *twin) {
	t.Helper()
	for range 30 {
		m, where := someMeasurements[r.IntN(len(someMeasurements))], randomExpr(r, 2)
		if got, want := v.Match(m, where), w.match(m, where); !slices.Equal(got, want) {
			t.Fatalf("%s: got %v, want %v", m, got, want)
		}
	}
	for _, m := range append(someMeasurements, "none") {
		keys := append(someKeys, "nokey")
		set := v.Series(m, nil, keys)
		if want := w.match(m, nil); !slices.Equal(set.IDs, want) {
			t.Fatalf("series of %s: got %v, want %v", m, set.IDs, want)
		}
		for i, id := range set.IDs {
			for k, key := range keys {
				if got, want := set.Value(i, k), w.tags[id-1].Get(key); got != want {
					t.Fatalf("series %d: %s is %q, want %q", id, key, got, want)
				}
			}
		}
	}
}

// Random series, deletes and conditions give the same answers as a list.
func TestIndexAgainstTwin(t *testing.T) {
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 1))
		x, w := New(), &twin{}
		for range 10 {
			addRandom(r, x, w, 120)
			checkTwin(t, r, x.View(), w)
			old, oldTwin := x.View(), &twin{w.measurements, w.tags, slices.Clone(w.deleted)}
			var drop []dsdb.SeriesID
			for i := range w.deleted {
				if r.IntN(10) == 0 {
					drop = append(drop, dsdb.SeriesID(i+1))
					w.deleted[i] = true
				}
			}
			x.Drop(drop)
			checkTwin(t, r, x.View(), w)
			checkTwin(t, r, old, oldTwin)
		}
	}
}

// A key keeps its id until the series is dropped, and gets a new one afterwards.
func TestIDsAreNotReused(t *testing.T) {
	x := New()
	m := x.Measurement("cpu")
	keys := keysOf("cpu,host=a", "cpu,host=b", "cpu")
	if got := x.Insert(nil, m, keys, nil); !slices.Equal(got, []dsdb.SeriesID{1, 2, 3}) {
		t.Fatalf("first write: %v", got)
	}
	x.Drop([]dsdb.SeriesID{2})
	if got := x.Insert(nil, m, keys, nil); !slices.Equal(got, []dsdb.SeriesID{1, 4, 3}) {
		t.Fatalf("after the drop: %v", got)
	}
	if got := x.Insert(nil, m, keysOf("cpu,host=z", "cpu,host=y"), []bool{false, true}); !slices.Equal(got, []dsdb.SeriesID{0, 5}) {
		t.Fatalf("one key left out: %v", got)
	}
	x.Drop([]dsdb.SeriesID{3})
	if got := x.Find(nil, "cpu", keysOf("cpu,host=c", "cpu,host=y", "mem,host=y", "cpu,host=b")); !slices.Equal(got, []dsdb.SeriesID{0, 5, 0, 4}) {
		t.Errorf("found %v", got)
	}
	if got := x.Find(nil, "mem", keysOf("cpu,host=y")); !slices.Equal(got, []dsdb.SeriesID{0}) {
		t.Errorf("found series %v of another measurement", got)
	}
	for _, bad := range []string{"mem,host=a", "cpu,", "cpu,host", "cpu,host=", "cpu,=a", "cpux"} {
		if got := x.Insert(nil, m, keysOf(bad), nil); got[0] != 0 {
			t.Errorf("key %q got id %d", bad, got[0])
		}
	}
}

// The type of a field is free again when its measurement has lost its last series.
func TestTypesAreFreed(t *testing.T) {
	x := New()
	cpu, mem, v := x.Measurement("cpu"), x.Measurement("mem"), x.Field("v")
	x.Insert(nil, cpu, keysOf("cpu,host=a", "cpu,host=b"), nil)
	x.FixType(cpu, v, dsdb.Float)
	x.FixType(mem, v, dsdb.String)
	x.Drop([]dsdb.SeriesID{1})
	if got := x.FieldType(cpu, v); got != dsdb.Float {
		t.Fatalf("one series left: %v", got)
	}
	x.Drop([]dsdb.SeriesID{2})
	if got := x.FieldType(cpu, v); got != dsdb.NoType {
		t.Fatalf("no series left: %v", got)
	}
	if names, types := x.View().Fields("mem"); !reflect.DeepEqual(names, []string{"v"}) || types[0] != dsdb.String {
		t.Fatalf("fields of mem: %v %v", names, types)
	}
}

// Views are used while the index grows; the race detector watches.
func TestConcurrentReaders(t *testing.T) {
	x := New()
	m := x.Measurement("cpu")
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				v := x.View()
				set := v.Series("cpu", &dsdb.TagExpr{Op: dsdb.TagNotEqual, Key: "host", Value: "h3"}, []string{"host"})
				for i := range set.IDs {
					if want := fmt.Sprintf("cpu,host=%s", set.Value(i, 0)); string(v.Key(set.IDs[i])) != want {
						t.Errorf("series %d: %s, want %s", set.IDs[i], v.Key(set.IDs[i]), want)
						return
					}
				}
			}
		})
	}
	for i := range 800 {
		x.Insert(nil, m, keysOf(fmt.Sprintf("cpu,host=h%d", i)), nil)
		if i%100 == 50 {
			x.Drop([]dsdb.SeriesID{dsdb.SeriesID(i - 20)})
		}
	}
	close(stop)
	wg.Wait()
}

func keysOf(keys ...string) *column.Keys {
	var k column.Keys
	for _, key := range keys {
		k.Append([]byte(key))
	}
	return &k
}

func millionKeys(n int) *column.Keys {
	var k column.Keys
	for i := range n {
		k.Append(fmt.Appendf(nil, "cpu,datacenter=us-east-1%c,hostname=host_%d,region=us-east-%d", 'a'+i%3, i, i%9))
	}
	return &k
}

func BenchmarkInsertNew(b *testing.B) {
	keys := millionKeys(1_000_000)
	b.ReportAllocs()
	for b.Loop() {
		x := New()
		x.Insert(nil, x.Measurement("cpu"), keys, nil)
	}
	b.ReportMetric(1e6*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mseries/s")
}

func BenchmarkInsertAgain(b *testing.B) {
	keys := millionKeys(1_000_000)
	x := New()
	m := x.Measurement("cpu")
	ids := x.Insert(nil, m, keys, nil)
	b.ReportAllocs()
	for b.Loop() {
		ids = x.Insert(ids[:0], m, keys, nil)
	}
	b.ReportMetric(1e6*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mseries/s")
}
