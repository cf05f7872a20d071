package segment

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dasudian/dsdb/column"
)

// roundInts encodes and decodes v, which must come back, and returns the encoding.
func roundInts(t *testing.T, v []int64, code *huffCode) []byte {
	t.Helper()
	e := intEncoder{code: code}
	enc := e.append(nil, v)
	var table *huffTable
	if code != nil {
		table = newHuffTable(&code.lengths)
	}
	for _, slack := range []int{0, 8} {
		src := append(make([]byte, 0, len(enc)+slack), enc...)
		src = src[: len(src) : len(enc)+slack]
		for i := range slack {
			src[:cap(src)][len(enc)+i] = 0xff
		}
		dst := make([]int64, len(v), len(v)+huffSlack)
		if err := decodeInts(dst, src, table); err != nil {
			t.Fatalf("%v: mode %d: %v", v, enc[0], err)
		}
		if !slices.Equal(dst, v) {
			t.Fatalf("mode %d: %v, want %v", enc[0], dst, v)
		}
	}
	return enc
}

// Each kind of data takes the mode that is made for it.
func TestIntModes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	walked := walk(rng, 500)
	jumps := slices.Clone(walked)
	for i := 50; i < len(jumps); i += 100 {
		jumps[i] = math.MinInt64 + int64(i)
	}
	scattered := []int64{90, 5, 33, 71, 2, 98, 14, 60, 41, 7, 88, 19}
	rising := make([]int64, 300)
	for i := range rising[1:] {
		rising[i+1] = rising[i] + 1000 + rng.Int64N(4)
	}
	scaled := make([]int64, 100)
	for i := range scaled {
		scaled[i] = 77 + 1e9*rng.Int64N(50)
	}
	code := trained(walked)
	for _, c := range []struct {
		name string
		v    []int64
		code *huffCode
		mode byte
	}{
		{"constant", []int64{7, 7, 7}, nil, modeConst},
		{"single", []int64{math.MinInt64}, nil, modeConst},
		{"stride", every(-5, 10e9, 100), nil, modeStride},
		{"stride through the end of int64", every(math.MaxInt64-5, 3, 9), nil, modeStride},
		{"scattered", scattered, nil, modeFOR},
		{"rising", rising, nil, modeDelta},
		{"walk", walked, nil, modeDelta},
		{"walk with a code", walked, code, modeHuff},
		{"walk with jumps and a code", jumps, code, modeHuffEscape},
		{"multiples", scaled, nil, modeGCD},
		{"seldom changes", slices.Concat(make([]int64, 300), slices.Repeat([]int64{-9}, 60), []int64{1}, make([]int64, 40)), code, modeRuns},
		{"runs at first", append(make([]int64, 300), walked...), nil, modeFOR},
		{"runs of equal lengths", append(slices.Repeat(slices.Concat(make([]int64, 30), slices.Repeat([]int64{5}, 30), slices.Repeat([]int64{7}, 30)), 10), 1), nil, modeRuns},
	} {
		if enc := roundInts(t, c.v, c.code); enc[0] != c.mode {
			t.Errorf("%s: mode %d, want %d", c.name, enc[0], c.mode)
		}
	}
}

// The integer codec is total: any values of any width, with and without a code.
func TestIntsAnyValues(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	code := trained(walk(rng, 1000))
	extremes := []int64{math.MinInt64, math.MaxInt64, 0, -1, 1, math.MinInt64 + 1}
	for range 3000 {
		v := make([]int64, 1+rng.IntN(200))
		shift, g := rng.IntN(64), rng.Int64N(1000)+1
		x := int64(rng.Uint64())
		for i := range v {
			switch d := int64(rng.Uint64()) >> shift; rng.IntN(3) {
			case 0:
				v[i] = d * g
			case 1:
				x += d
				v[i] = x
			default:
				v[i] = x
			}
			if rng.IntN(60) == 0 {
				v[i] = extremes[rng.IntN(len(extremes))]
			}
		}
		if rng.IntN(2) == 0 {
			roundInts(t, v, nil)
		} else {
			roundInts(t, v, code)
		}
	}
}

// Every width packs and unpacks, at every length, whatever follows.
func TestPackedWidths(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for w := uint(0); w <= 64; w++ {
		for _, n := range []int{1, 2, 7, 8, 9, 31, 360} {
			v := make([]uint64, n)
			for i := range v {
				v[i] = rng.Uint64() >> (64 - w) // a shift by 64 gives 0
			}
			b := appendPacked([]byte{9}, v, w)[1:]
			if len(b) != packedLen(n, w) {
				t.Fatalf("%d values of %d bits take %d bytes", n, w, len(b))
			}
			got := make([]int64, n)
			unpack(got, slices.Clip(b), w, 0)
			for i := range v {
				if uint64(got[i]) != v[i] {
					t.Fatalf("width %d, value %d of %d: %#x, want %#x", w, i, n, got[i], v[i])
				}
			}
		}
	}
}

// Codes are complete, no longer than the limit and better the more skewed the data.
func TestHuffmanCodes(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for round := range 300 {
		var hist [huffSymbols]uint32
		for i := range 1 + rng.IntN(256) {
			hist[rng.IntN(256)] = uint32(1) << rng.IntN(1+round%32) / uint32(1+i%7)
		}
		c := newHuffCode(0, &hist)
		space := 0
		for s, l := range c.lengths {
			if l > huffBits || l == 0 && (hist[s] > 0 || s == huffEscape) {
				t.Fatalf("symbol %d of frequency %d has a code of %d bits", s, hist[s], l)
			}
			if l > 0 {
				space += 1 << (huffBits - l)
			}
		}
		if space != 1<<huffBits {
			t.Fatalf("the code fills %d of %d", space, 1<<huffBits)
		}
		got, err := decodeLengths(c.appendLengths(nil))
		if err != nil || got != c.lengths {
			t.Fatalf("lengths %v, want %v: %v", got, c.lengths, err)
		}
	}
}

func sameFloats(a, b []float64) bool {
	return slices.EqualFunc(a, b, func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) })
}

func roundFloats(t *testing.T, e *floatEncoder, h *floatHint, v []float64) []byte {
	t.Helper()
	var ie intEncoder
	enc := e.append(nil, v, h, &ie)
	dst := make([]float64, len(v))
	if err := decodeFloats(dst, make([]int64, len(v), len(v)+huffSlack), slices.Clip(enc), nil); err != nil {
		t.Fatalf("mode %d of %v: %v", enc[0], v, err)
	}
	if !sameFloats(dst, v) {
		t.Fatalf("mode %d: %v, want %v", enc[0], dst, v)
	}
	return enc
}

func TestFloatModes(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	make1 := func(n int, f func(i int) float64) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = f(i)
		}
		return v
	}
	nan := math.Float64frombits(0x7ff8dead0000beef)
	for _, c := range []struct {
		name string
		v    []float64
		mode byte
		most int // bytes
	}{
		{"two decimals", make1(500, func(int) float64 { return float64(rng.IntN(10000)) / 100 }), modeDecimal, 900},
		{"decimals with odd values", append(make1(500, func(int) float64 { return float64(rng.IntN(100)) / 10 }),
			nan, math.Inf(-1), math.Copysign(0, -1)), modeDecimal, 700},
		{"constant decimal", make1(100, func(int) float64 { return 12.34 }), modeDecimal, 8},
		{"constant NaN", make1(100, func(int) float64 { return nan }), modeFloatConst, 9},
		{"negative zeros", make1(100, func(int) float64 { return math.Copysign(0, -1) }), modeFloatConst, 9},
		{"quarters of great numbers", make1(200, func(int) float64 { return float64(rng.Int64N(1<<48)) / 4096 }), modeDyadic, 1250},
		{"a few doubles", make1(400, func(i int) float64 { return []float64{math.Pi, math.E, math.Sqrt2}[rng.IntN(3)] }), modeXOR, 2200},
		{"steps of doubles", make1(400, func(i int) float64 { return math.Pi + float64(i/40)*1e-3 }), modeDyadic, 150},
		{"noise", make1(20, func(int) float64 { return math.Float64frombits(rng.Uint64()) }), modeRaw, 161},
	} {
		enc := roundFloats(t, new(floatEncoder), new(floatHint), c.v)
		if enc[0] != c.mode || len(enc) > c.most {
			t.Errorf("%s: mode %d in %d bytes, want %d in at most %d", c.name, enc[0], len(enc), c.mode, c.most)
		}
	}
}

// The float codec keeps every bit pattern, also with hints from other data.
func TestFloatsAnyValues(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	var e floatEncoder
	var h floatHint
	odd := []float64{math.NaN(), math.Copysign(0, -1), 0, math.Inf(1), math.Inf(-1), math.MaxFloat64, 5e-324, 1e300}
	for range 3000 {
		v := make([]float64, 1+rng.IntN(100))
		kind, scale := rng.IntN(5), math.Pow10(rng.IntN(25)-6)
		for i := range v {
			switch kind {
			case 0:
				v[i] = math.Float64frombits(rng.Uint64())
			case 1:
				v[i] = math.Round(rng.NormFloat64()*1e4) / scale
			case 2:
				v[i] = math.Ldexp(float64(rng.Int64N(1<<52)), rng.IntN(3)-150)
			case 3:
				v[i] = odd[rng.IntN(len(odd))]
			case 4:
				v[i] = math.Sin(float64(i) / 1000)
			}
			if rng.IntN(30) == 0 {
				v[i] = odd[rng.IntN(len(odd))]
			}
		}
		roundFloats(t, &e, &h, v)
	}
}

func roundStrings(t *testing.T, v []string) []byte {
	t.Helper()
	var e stringEncoder
	var ie intEncoder
	enc := e.append(nil, len(v), func(i int) []byte { return []byte(v[i]) }, &ie)
	offsets, b, err := decodeStrings(nil, nil, len(v), make([]int64, len(v), len(v)+huffSlack), slices.Clip(enc))
	if err != nil {
		t.Fatalf("mode %d: %v", enc[0], err)
	}
	for i, s := range v {
		if got := string(b[offsets[i]:offsets[i+1]]); got != s {
			t.Fatalf("mode %d: string %d is %q, want %q", enc[0], i, got, s)
		}
	}
	return enc
}

func TestStringModes(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	random := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return string(b)
	}
	var noise, prose, states []string
	for i := range 300 {
		noise = append(noise, random(20))
		prose = append(prose, "the quick brown fox jumped over the lazy dog number "+random(2))
		states = append(states, []string{"open", "closed", "half-open", ""}[i*i%4])
	}
	for _, c := range []struct {
		name string
		v    []string
		mode byte
	}{
		{"states", states, modeDict},
		{"one empty", []string{""}, modeDict},
		{"all the same", slices.Repeat([]string{random(300)}, 50), modeDict},
		{"noise", noise, modeBytes},
		{"prose", prose, modeCompressed},
		{"long", []string{random(100_000), "", random(3)}, modeBytes},
	} {
		if enc := roundStrings(t, c.v); enc[0] != c.mode {
			t.Errorf("%s: mode %d, want %d", c.name, enc[0], c.mode)
		}
	}
}

// Validity comes back from whichever form is shorter.
func TestValidity(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for range 2000 {
		n := 2 + rng.IntN(1023)
		b := column.NewBitmap(n)
		share := rng.Float64() * rng.Float64()
		for i := range n {
			if rng.Float64() < share {
				b.Set(i)
			}
		}
		if k := countBits(b); k == 0 || k == n {
			continue
		}
		enc := appendValidity(nil, b, n)
		r := reader{b: append(enc, 77)}
		got := column.NewBitmap(n)
		k, err := readValidity(&r, got, n)
		if err != nil || k != countBits(b) || !slices.Equal(got, b) || len(r.b) != 1 {
			t.Fatalf("mode %#x: %v, want %v: %v", enc[0], got, b, err)
		}
		if len(enc) > 1+(n+7)/8 {
			t.Fatalf("%d rows take %d bytes", n, len(enc))
		}
	}
}

// Tiles lie within one window, which holds about as many rows as asked.
func TestCuts(t *testing.T) {
	for _, c := range []struct {
		times []int64
		want  []int
	}{
		{every(1_700_006_400e9, 10e9, 900), []int{360, 720, 900}},
		{every(1_700_006_400e9+1800e9, 10e9, 900), []int{180, 540, 900}},
		{every(-3600e9, 10e9, 720), []int{360, 720}},
		{every(0, 1e9, 600), []int{300, 600}},
		{every(0, 1e6, 2000), []int{512, 1024, 1536, 2000}},
		{every(0, 1, 1100), []int{512, 1024, 1100}},
		{every(0, 86400e9, 80), []int{70, 80}},
		{every(5, 1e12, 64), []int{64}},
	} {
		if got := appendCuts(nil, c.times, 512); !slices.Equal(got, c.want) {
			t.Errorf("times from %d by %d: tiles end at %v, want %v", c.times[0], c.times[1]-c.times[0], got, c.want)
		}
	}
}

// FuzzDecodeTile gives any bytes to every decoder of tiles: errors, but no
// panic, and no write past the slack.
func FuzzDecodeTile(f *testing.F) {
	rng := rand.New(rand.NewPCG(9, 9))
	code := trained(walk(rng, 1000))
	table := newHuffTable(&code.lengths)
	ie := intEncoder{code: code}
	f.Add(uint16(100), ie.append(nil, walk(rng, 100)))
	f.Add(uint16(50), new(intEncoder).append(nil, every(0, 3, 50)))
	f.Add(uint16(3), []byte{modeGCD, 10, 2, modeFOR, 3, 1, 0xff, 0xff})
	f.Add(uint16(20), append([]byte{modeXOR}, bytes.Repeat([]byte{3}, 80)...))
	f.Add(uint16(9), []byte{modeDict, 2, 2, modeConst, 2, 'a', 'b', 5, modeFOR, 1, 0, 5, 1})
	f.Add(uint16(19), []byte{modeRuns, 2, 3, modeStride, 0, 2, modeConst, 20})
	f.Add(uint16(9), []byte{modeValidRuns, 3, 5, 1, modeConst, 4})
	f.Fuzz(func(t *testing.T, rows uint16, src []byte) {
		n := 1 + int(rows)%column.MaxTileRows
		ints := make([]int64, n+huffSlack+1)
		ints[n+huffSlack] = 12345
		floats := make([]float64, n)
		decodeInts(ints[:n], src, table)
		decodeInts(ints[:n], slices.Clip(src), nil)
		decodeFloats(floats, ints[:n], src, table)
		decodeStrings(nil, nil, n, ints[:n], src)
		readValidity(&reader{b: src}, column.NewBitmap(n), n)
		decodeLengths(src)
		if ints[n+huffSlack] != 12345 {
			t.Fatal("written past the slack")
		}
	})
}

// FuzzInts and FuzzFloats round-trip any bytes taken as values.
func FuzzInts(f *testing.F) {
	f.Add(binary.LittleEndian.AppendUint64(make([]byte, 24), 1<<63), uint8(3))
	rng := rand.New(rand.NewPCG(9, 9))
	code := trained(walk(rng, 1000))
	f.Fuzz(func(t *testing.T, b []byte, shift uint8) {
		var v []int64
		for ; len(b) >= 8 && len(v) < column.MaxTileRows; b = b[8:] {
			v = append(v, int64(binary.LittleEndian.Uint64(b))>>(shift&63))
		}
		if len(v) > 0 {
			roundInts(t, v, nil)
			roundInts(t, v, code)
		}
	})
}

func FuzzFloats(f *testing.F) {
	f.Add(binary.LittleEndian.AppendUint64(make([]byte, 24), math.Float64bits(0.1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v []float64
		for ; len(b) >= 8 && len(v) < column.MaxTileRows; b = b[8:] {
			v = append(v, math.Float64frombits(binary.LittleEndian.Uint64(b)))
		}
		if len(v) > 0 {
			roundFloats(t, new(floatEncoder), new(floatHint), v)
		}
	})
}
