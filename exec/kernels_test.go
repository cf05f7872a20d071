package exec

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dasudian/dsdb/column"
)

// TestKernels compares the kernels with plain loops over all small lengths.
func TestKernels(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for n := 1; n < 200; n++ {
		ints, floats := make([]int64, n), make([]float64, n)
		for i := range ints {
			ints[i] = r.Int64N(21) - 10
			floats[i] = float64(r.Int64N(21)-10) / 4
		}
		checkKernels(t, ints, ints[r.IntN(n)])
		checkKernels(t, floats, floats[r.IntN(n)])
		if plain := plainSum(ints); runSum(ints) != plain || floatSum(ints) != float64(plain) {
			t.Errorf("sums of %d values: %d and %v, want %d", n, runSum(ints), floatSum(ints), plain)
		}
	}
}

func plainSum[T number](v []T) (s T) {
	for _, x := range v {
		s += x
	}
	return s
}

func checkKernels[T number](t *testing.T, v []T, k T) {
	t.Helper()
	lo, hi, at := v[0], v[0], -1
	gt, lt, eq := make([]uint64, words(len(v))), make([]uint64, words(len(v))), make([]uint64, words(len(v)))
	maskGreater(gt, v, k)
	maskLess(lt, v, k)
	maskEqual(eq, v, k)
	for i, x := range v {
		lo, hi = min(lo, x), max(hi, x)
		if x == k && at < 0 {
			at = i
		}
		has := func(m []uint64) bool { return column.Bitmap(m).Get(i) }
		if has(gt) != (x > k) || has(lt) != (x < k) || has(eq) != (x == k) {
			t.Errorf("masks of value %d of %d: %v against %v", i, len(v), x, k)
		}
	}
	if last := len(v) % 64; last > 0 && (gt[len(gt)-1]|lt[len(lt)-1]|eq[len(eq)-1])>>last != 0 {
		t.Errorf("masks of %d values have bits past the end", len(v))
	}
	if sum(v) != plainSum(v) || least(v) != lo || greatest(v) != hi || find(v, k) != at {
		t.Errorf("%d values: sum %v least %v greatest %v find %d, want %v %v %v %d",
			len(v), sum(v), least(v), greatest(v), find(v, k), plainSum(v), lo, hi, at)
	}
}

// TestSumsFit says that no value that could make a sum wrap goes unseen.
func TestSumsFit(t *testing.T) {
	for _, big := range []int64{1 << 52, -1<<52 - 1, math.MaxInt64, math.MinInt64, 1 << 60} {
		for at := range 9 {
			v := make([]int64, 9)
			v[at] = big
			if sumsFit(v) {
				t.Errorf("%d at %d of 9 went unseen", big, at)
			}
		}
	}
	if !sumsFit([]int64{1<<52 - 1, -1 << 52, 0, 5}) {
		t.Error("values below 2^52 count as large")
	}
}

func TestMask(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 700, 1024} {
		var m mask
		m.fill(n)
		if m.count() != n {
			t.Errorf("fill(%d) sets %d bits", n, m.count())
		}
		for _, lo := range []int{0, 1, 64, 100, 640} {
			c := m
			c.clip(lo, n-1)
			rows := c.appendRows(nil)
			if len(rows) != max(0, n-1-lo) || len(rows) > 0 && (int(rows[0]) != lo || int(rows[len(rows)-1]) != n-2) {
				t.Errorf("clip(%d, %d) of %d bits leaves %v", lo, n-1, n, rows)
			}
		}
	}
}

// TestSortRows says that sorting is stable and right on both sides of its threshold.
func TestSortRows(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for _, n := range []int{2, 200, 256, 5000} {
		for _, spread := range []uint64{1, 3, 1 << 20, 1 << 45, math.MaxUint64} {
			keys := make([]rowKey, n)
			base := r.Uint64()
			for i := range keys {
				keys[i] = rowKey{key: base, at: uint64(i)}
				if spread > 1 {
					keys[i].key = r.Uint64N(spread)
				}
			}
			orig := append([]rowKey(nil), keys...)
			sorted := sortRows(keys, make([]rowKey, n))
			for i := 1; i < n; i++ {
				a, b := sorted[i-1].at, sorted[i].at
				if orig[a].key > orig[b].key || orig[a].key == orig[b].key && a > b {
					t.Fatalf("n %d spread %d: row %d before row %d", n, spread, a, b)
				}
			}
		}
	}
}
