package segment

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// readAll reads everything that a reader can give and returns the first error.
func readAll(r *Reader) error {
	var c Chunk
	var v column.Vector
	var times []int64
	for _, m := range r.Measurements() {
		fields := r.Fields(m, nil)
		for _, sid := range r.Series(m, nil) {
			r.Chunk(m, sid, &c)
			for i := range c.Tiles() {
				var err error
				if times, err = c.Times(i, times); err != nil {
					return err
				}
			}
			for _, id := range fields {
				f, ok := c.Field(id)
				if !ok {
					continue
				}
				for i := range c.Tiles() {
					f.Stats(i)
					if err := f.Decode(i, &v); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// smallSegment has several pages, measurements, types and a Huffman table.
func smallSegment(t testing.TB) []byte {
	f, _ := write(t, Options{Entropy: true}, append(randomSeries(11), testSeries{
		100, 1, every(0, 1e9, 2000), []FieldColumn{{1, ints(walk(rand.New(rand.NewPCG(1, 1)), 2000))}}}))
	return f.b
}

// Every flipped bit is found by Verify, and reported with file and offset by
// whoever touches it; no read is answered from a damaged page.
func TestFlippedBit(t *testing.T) {
	whole := smallSegment(t)
	rng := rand.New(rand.NewPCG(9, 9))
	positions := make([]int, 0, 2000)
	for i := range 150 { // the ends are the densest
		positions = append(positions, i, len(whole)-1-i)
	}
	for len(positions) < 500 {
		positions = append(positions, rng.IntN(len(whole)))
	}
	for _, at := range positions {
		f := &memFile{name: "bad.seg", b: append([]byte(nil), whole...)}
		f.b[at] ^= 1 << rng.IntN(8)
		r, err := Open(f)
		if err == nil {
			if err = readAll(r); err == nil {
				err = r.Verify()
			} else if r.Verify() == nil {
				t.Fatalf("Verify does not see the bit flipped at %d", at)
			}
		}
		var e *dsdb.Error
		if !errors.As(err, &e) || e.Kind != dsdb.KindCorrupt && e.Kind != dsdb.KindInvalid ||
			!strings.Contains(err.Error(), "bad.seg") {
			t.Fatalf("bit flipped at %d: %v", at, err)
		}
		if e.Kind == dsdb.KindCorrupt && !strings.Contains(err.Error(), "offset") {
			t.Fatalf("bit flipped at %d: no offset in %q", at, err)
		}
	}
}

// Goroutines share a Reader, its checks of pages and its Huffman tables.
func TestConcurrentReaders(t *testing.T) {
	r := open(t, &memFile{name: "shared.seg", b: smallSegment(t)})
	errs := make(chan error)
	for range 4 {
		go func() { errs <- readAll(r) }()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// A file that ends early is refused, wherever it ends.
func TestTruncated(t *testing.T) {
	whole := smallSegment(t)
	for n := 0; n < len(whole); n += 1 + n/40 {
		if _, err := Open(&memFile{name: "short.seg", b: whole[:n]}); dsdb.KindOf(err) != dsdb.KindCorrupt {
			t.Fatalf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
}

// A chunk with a damaged directory does not look like a chunk without rows.
func TestCorruptChunkIsNotEmpty(t *testing.T) {
	f, _ := write(t, Options{}, []testSeries{{1, 1, every(0, 1e9, 100), []FieldColumn{{1, ints(every(0, 3, 100))}}}})
	r := open(t, f)
	f.b[r.groups[0].blocks[0].columns[0].off+5] ^= 1
	for i := range r.pages.verified {
		r.pages.verified[i].Store(0)
	}
	var c Chunk
	if !r.Chunk(1, 1, &c) || c.Err() == nil || c.Tiles() != 1 || c.Tile(0).First != dsdb.MinTime || c.Tile(0).Last != dsdb.MaxTime {
		t.Fatalf("%d tiles, error %v", c.Tiles(), c.Err())
	}
	if _, err := c.Times(0, nil); dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Fatalf("times: %v", err)
	}
	fc, ok := c.Field(1)
	if !ok || fc.Stats(0).Known || dsdb.KindOf(fc.Decode(0, &column.Vector{})) != dsdb.KindCorrupt {
		t.Fatal("the field of a corrupt chunk was answered")
	}
}

// A newer format is refused as such and not called corrupt.
func TestNewerVersion(t *testing.T) {
	b := smallSegment(t)
	at := strings.LastIndex(string(b), sealMagic) - 4
	b[at]++
	_, err := Open(&memFile{name: "new.seg", b: b})
	if dsdb.KindOf(err) != dsdb.KindInvalid || !strings.Contains(err.Error(), "format 2") {
		t.Fatal(err)
	}
}

// Rows that come in the wrong order or shape are refused.
func TestWriterOrder(t *testing.T) {
	good := []FieldColumn{{1, ints([]int64{1, 2})}}
	times := []int64{1, 2}
	for name, add := range map[string]func(w *Writer) error{
		"series again":        func(w *Writer) error { return w.Add(5, 5, times, good) },
		"series before":       func(w *Writer) error { return w.Add(5, 4, times, good) },
		"measurement before":  func(w *Writer) error { return w.Add(4, 9, times, good) },
		"no rows":             func(w *Writer) error { return w.Add(6, 1, nil, nil) },
		"time twice":          func(w *Writer) error { return w.Add(6, 1, []int64{7, 7}, good) },
		"field zero":          func(w *Writer) error { return w.Add(6, 1, times, []FieldColumn{{0, ints(times)}}) },
		"fields not in order": func(w *Writer) error { return w.Add(6, 1, times, []FieldColumn{{2, ints(times)}, {2, ints(times)}}) },
		"too few values":      func(w *Writer) error { return w.Add(6, 1, times, []FieldColumn{{2, ints(times[:1])}}) },
		"another type":        func(w *Writer) error { return w.Add(5, 6, times, []FieldColumn{{1, floats([]float64{1, 2})}}) },
	} {
		w := NewWriter(&memFile{}, Header{}, Options{})
		if err := w.Add(5, 5, times, good); err != nil {
			t.Fatal(err)
		}
		if err := add(w); dsdb.KindOf(err) != dsdb.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := w.Finish(); err == nil {
			t.Errorf("%s: the writer goes on after an error", name)
		}
	}
}

// FuzzReader reads a file whose checksums are right and whose content is not.
func FuzzReader(f *testing.F) {
	whole := smallSegment(f)
	f.Add(uint32(100), []byte{1, 2, 3})
	f.Add(uint32(len(whole)/2), []byte{0xff})
	f.Add(uint32(len(whole)-300), []byte{0})
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		m := &memFile{name: "fuzz.seg", b: append([]byte(nil), whole...)}
		copy(m.b[int(at)%len(m.b):], patch)
		resealed(m.b)
		r, err := Open(m)
		if err != nil {
			return
		}
		readAll(r)
	})
}

// Damage that the checksums do not show, as a faulty writer would make it,
// brings errors or other values, but no panic.
func TestDamagedContent(t *testing.T) {
	f, _ := write(t, Options{Entropy: true}, append(randomSeries(2)[:4], testSeries{
		100, 1, every(0, 1e9, 2000), []FieldColumn{{1, ints(walk(rand.New(rand.NewPCG(1, 1)), 2000))}}}))
	rng := rand.New(rand.NewPCG(10, 10))
	refused, failed := 0, 0
	for range 1500 {
		m := &memFile{name: "damaged.seg", b: append([]byte(nil), f.b...)}
		for range 1 + rng.IntN(3) {
			m.b[rng.IntN(len(m.b))] = byte(rng.Uint32()) >> rng.IntN(8)
		}
		resealed(m.b)
		r, err := Open(m)
		if err != nil {
			refused++
			continue
		}
		if readAll(r) != nil {
			failed++
		}
	}
	if refused < 10 || failed < 100 {
		t.Fatalf("only %d files were refused and %d failed to read: the damage does not get through", refused, failed)
	}
}
