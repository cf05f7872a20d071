package segment

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// codecCases are tiles of the kinds that the codecs are made for.
func codecCases(n int) map[string][]int64 {
	rng := rand.New(rand.NewPCG(3, 4))
	wide := make([]int64, n)
	counter := make([]int64, n)
	jitter := make([]int64, n)
	for i := range n {
		wide[i] = rng.Int64N(1 << 20)
		if i > 0 {
			counter[i] = counter[i-1] + rng.Int64N(1<<12)
			jitter[i] = jitter[i-1] + 10e9 + rng.Int64N(10)*1e6
		}
	}
	return map[string][]int64{"walk": walk(rng, n), "wide": wide, "counter": counter, "jitter": jitter}
}

func reportRate(b *testing.B, n int) {
	b.SetBytes(int64(8 * n))
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mv/s")
}

func trained(v []int64) *huffCode {
	var hist [huffSymbols]uint32
	countSymbols(&hist, v)
	return newHuffCode(0, &hist)
}

func BenchmarkInts(b *testing.B) {
	const n = 360
	for name, v := range codecCases(n) {
		for _, huff := range []bool{false, true} {
			if huff && name != "walk" {
				continue
			}
			var e intEncoder
			var table *huffTable
			if huff {
				e.code = trained(v)
				table = newHuffTable(&e.code.lengths)
			}
			enc := e.append(nil, v)
			label := fmt.Sprintf("%s/mode=%d", name, enc[0])
			b.Run("enc/"+label, func(b *testing.B) {
				for b.Loop() {
					enc = e.append(enc[:0], v)
				}
				reportRate(b, n)
				b.ReportMetric(float64(len(enc))/n, "B/value")
			})
			enc = append(enc, make([]byte, 16)...)[:len(enc)]
			dst := make([]int64, n, n+huffSlack)
			b.Run("dec/"+label, func(b *testing.B) {
				for b.Loop() {
					if err := decodeInts(dst, enc, table); err != nil {
						b.Fatal(err)
					}
				}
				reportRate(b, n)
			})
		}
	}
}

func BenchmarkFloats(b *testing.B) {
	const n = 1024
	rng := rand.New(rand.NewPCG(5, 6))
	for _, digits := range []int{2, 6, 17} {
		v := make([]float64, n)
		x := 50.0
		for i := range v {
			x = min(max(x+rng.NormFloat64(), 0), 100)
			v[i] = x
			if digits < 17 {
				v[i] = math.Round(x*math.Pow10(digits)) / math.Pow10(digits)
			}
		}
		var e floatEncoder
		var ie intEncoder
		var h floatHint
		enc := e.append(nil, v, &h, &ie)
		b.Run(fmt.Sprintf("enc/digits=%d", digits), func(b *testing.B) {
			for b.Loop() {
				enc = e.append(enc[:0], v, &h, &ie)
			}
			reportRate(b, n)
			b.ReportMetric(float64(len(enc))/n, "B/value")
		})
		enc = append(enc, make([]byte, 16)...)[:len(enc)]
		dst, ints := make([]float64, n), make([]int64, n, n+huffSlack)
		b.Run(fmt.Sprintf("dec/digits=%d/mode=%d", digits, enc[0]), func(b *testing.B) {
			for b.Loop() {
				if err := decodeFloats(dst, ints, enc, nil); err != nil {
					b.Fatal(err)
				}
			}
			reportRate(b, n)
		})
	}
}

func BenchmarkUnpack(b *testing.B) {
	const n = 1024
	dst := make([]int64, n)
	src := make([]byte, 8*n+16)
	for _, w := range []uint{1, 3, 5, 8, 11, 15, 20, 28, 40, 56, 63} {
		b.Run(fmt.Sprintf("width=%d", w), func(b *testing.B) {
			for b.Loop() {
				unpack(dst, src[:packedLen(n, w)], w, 0)
			}
			reportRate(b, n)
		})
	}
}
