package segment

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Modes of float tiles. All are exact bit for bit: a value that a mode cannot
// represent, such as a NaN or the negative zero, is an exception or rules the mode out.
const (
	modeDecimal    = 16 // u8 e, u8 f, uvarint exceptions, (u16 row, u64 bits) each, then integers d: value = d * 10^f * 10^-e
	modeDyadic     = 17 // u8 k (two's complement), then integers d: value = d * 2^-k
	modeXOR        = 18 // u64 first, then bits of each value XOR its predecessor
	modeRaw        = 20 // 8 bytes each
	modeFloatConst = 21 // u64: every value
)

// maxDecimal bounds the exponents of modeDecimal.
const maxDecimal = 18

// pow10 and inv10 are 10^i and 10^-i.
var (
	pow10 = [maxDecimal + 1]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9,
		1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18}
	inv10 = [maxDecimal + 1]float64{1e-0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9,
		1e-10, 1e-11, 1e-12, 1e-13, 1e-14, 1e-15, 1e-16, 1e-17, 1e-18}
)

// decimal is a pair of exponents of modeDecimal (ALP: Afroozeh, Kuffo and
// Boncz, SIGMOD 2024, section 3).
type decimal struct{ e, f uint8 }

// roundMagic added to and taken from a float of magnitude below 2^51 rounds it to an integer.
const roundMagic = 1<<52 + 1<<51

// encode returns the integer that stands for v and whether it does so exactly.
func (d decimal) encode(v float64) (int64, bool) {
	x := float64(float64(v*pow10[d.e])*inv10[d.f]) + roundMagic
	i := int64(x - roundMagic)
	return i, math.Float64bits(d.decode(i)) == math.Float64bits(v)
}

func (d decimal) decode(i int64) float64 {
	return float64(float64(i)*pow10[d.f]) * inv10[d.e]
}

// floatHint is what the encoder remembers between the tiles of a field.
type floatHint struct {
	dec   decimal
	valid bool // dec suited the last tile
	skip  int  // tiles that may do without another search, as none or a few exceptions were the best
}

// floatEncoder holds the scratch space of the float codec.
type floatEncoder struct {
	ints       []int64
	exceptions []int
	alt        []byte
}

// searchEvery is after how many tiles that are not all decimal another search is made.
const searchEvery = 16

// append appends the shortest encoding of v, at least one value; integers go through ie.
func (e *floatEncoder) append(dst []byte, v []float64, h *floatHint, ie *intEncoder) []byte {
	start := len(dst)
	if allEqualBits(v) {
		return e.appendConst(dst, v, h, ie)
	}
	if e.toDecimal(v, h) {
		dst = e.appendDecimal(dst, v, h.dec, ie)
		if len(dst)-start <= 5*len(v) {
			return dst
		}
	} else {
		dst = appendRaw(dst, v)
	}
	if k, ok := dyadicScale(v); ok {
		e.alt = e.appendDyadic(e.alt[:0], v, k, ie)
		dst = shorter(dst, start, e.alt)
	}
	if len(v) >= 8 {
		e.alt = appendXOR(e.alt[:0], v)
		dst = shorter(dst, start, e.alt)
	}
	return dst
}

// shorter replaces dst[start:] by alt if that has fewer bytes.
func shorter(dst []byte, start int, alt []byte) []byte {
	if len(alt) < len(dst)-start {
		return append(dst[:start], alt...)
	}
	return dst
}

func allEqualBits(v []float64) bool {
	for _, x := range v[1:] {
		if math.Float64bits(x) != math.Float64bits(v[0]) {
			return false
		}
	}
	return true
}

func (e *floatEncoder) appendConst(dst []byte, v []float64, h *floatHint, ie *intEncoder) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint64(append(dst, modeFloatConst), math.Float64bits(v[0]))
	if e.toDecimal(v[:1], h) && len(e.exceptions) == 0 {
		e.ints = repeat(e.ints[0], len(v), e.ints[:0])
		e.alt = e.appendDecimal(e.alt[:0], v, h.dec, ie)
		dst = shorter(dst, start, e.alt)
	}
	return dst
}

func repeat(x int64, n int, dst []int64) []int64 {
	for range n {
		dst = append(dst, x)
	}
	return dst
}

// toDecimal finds exponents for v, those of the hint first, and fills e.ints
// and e.exceptions. It reports false if more than an eighth would be exceptions.
func (e *floatEncoder) toDecimal(v []float64, h *floatHint) bool {
	fits := h.valid && e.tryDecimal(v, h.dec)
	if fits && len(e.exceptions) == 0 {
		return true
	}
	if h.skip > 0 && fits == h.valid {
		h.skip--
		return fits
	}
	h.skip = searchEvery
	h.dec, h.valid = searchDecimal(v)
	if h.valid {
		h.dec = refineDecimal(v, h.dec.e-h.dec.f)
		h.valid = e.tryDecimal(v, h.dec)
	}
	return h.valid
}

// tryDecimal encodes v; the integer of an exception repeats its predecessor.
func (e *floatEncoder) tryDecimal(v []float64, d decimal) bool {
	if cap(e.ints) < len(v) {
		e.ints = make([]int64, len(v)+len(v)/4)
	}
	e.exceptions = e.exceptions[:0]
	ints := e.ints[:len(v)]
	e.ints = ints
	up, down := pow10[d.e], inv10[d.f]
	back, inv := pow10[d.f], inv10[d.e]
	prev := int64(0)
	for i, x := range v {
		n := int64(float64(float64(x*up)*down) + roundMagic - roundMagic)
		if math.Float64bits(float64(float64(n)*back)*inv) != math.Float64bits(x) {
			if len(e.exceptions) == len(v)/8 {
				return false
			}
			e.exceptions = append(e.exceptions, i)
			n = prev
		}
		prev = n
		ints[i] = n
	}
	if len(e.exceptions) > 0 {
		fillExceptions(ints, e.exceptions)
	}
	return true
}

// fillExceptions lets leading exceptions take the first true integer.
func fillExceptions(ints []int64, exceptions []int) {
	k := 0
	for k < len(exceptions) && exceptions[k] == k {
		k++
	}
	for i := range k {
		ints[i] = ints[k]
	}
}

// searchDecimal returns the exponents that fit a sample of v best: fewest
// exceptions, then smallest integers.
func searchDecimal(v []float64) (best decimal, ok bool) {
	var sample [24]float64
	n := min(len(v), len(sample))
	for i := range n {
		sample[i] = v[i*len(v)/n]
	}
	bestBits, bestFails := 65, n/6+1
	for e := uint8(0); e <= maxDecimal; e++ {
		for f := uint8(0); f <= e; f++ {
			d := decimal{e, f}
			fails, all := 0, uint64(0)
			for _, x := range sample[:n] {
				i, exact := d.encode(x)
				if !exact {
					if fails++; fails > bestFails {
						break
					}
					continue
				}
				all |= uint64(i ^ i>>63)
			}
			width := bits.Len64(all)
			if fails < bestFails || fails == bestFails && width < bestBits {
				best, bestBits, bestFails, ok = d, width, fails, true
			}
		}
	}
	return best, ok && bestFails <= n/6
}

// refineDecimal returns the exponents with the fewest exceptions among those
// that keep the given number of digits: they scale alike but round differently.
func refineDecimal(v []float64, digits uint8) (best decimal) {
	least := len(v) + 1
	for f := uint8(0); f+digits <= maxDecimal && least > 0; f++ {
		d := decimal{f + digits, f}
		fails := 0
		for _, x := range v {
			if _, exact := d.encode(x); !exact {
				if fails++; fails >= least {
					break
				}
			}
		}
		if fails < least {
			best, least = d, fails
		}
	}
	return best
}

// appendDecimal appends e.ints and e.exceptions, which tryDecimal made of v.
func (e *floatEncoder) appendDecimal(dst []byte, v []float64, d decimal, ie *intEncoder) []byte {
	dst = append(dst, modeDecimal, d.e, d.f)
	dst = binary.AppendUvarint(dst, uint64(len(e.exceptions)))
	for _, i := range e.exceptions {
		dst = binary.LittleEndian.AppendUint16(dst, uint16(i))
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v[i]))
	}
	return ie.append(dst, e.ints)
}

// dyadicScale returns the least k for which every v*2^k is an integer below
// 2^53, and false if there is none.
func dyadicScale(v []float64) (k int, ok bool) {
	least, most := math.MaxInt, math.MinInt // exponents of the lowest and above the highest bit set
	for _, x := range v {
		b := math.Float64bits(x)
		if b == 0 {
			continue
		}
		exp := int(b >> 52 & 0x7ff)
		if exp == 0 || exp == 0x7ff {
			return 0, false // subnormal, NaN, infinite or the negative zero
		}
		mant := b&(1<<52-1) | 1<<52
		least = min(least, exp-1075+bits.TrailingZeros64(mant))
		most = max(most, exp-1022)
	}
	if least == math.MaxInt || most-least > 53 || least < -127 || least > 127 {
		return 0, false
	}
	return -least, true
}

func (e *floatEncoder) appendDyadic(dst []byte, v []float64, k int, ie *intEncoder) []byte {
	scale := math.Ldexp(1, k)
	e.ints = e.ints[:0]
	for _, x := range v {
		e.ints = append(e.ints, int64(x*scale))
	}
	return ie.append(append(dst, modeDyadic, byte(int8(k))), e.ints)
}

func appendRaw(dst []byte, v []float64) []byte {
	dst = append(dst, modeRaw)
	for _, x := range v {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(x))
	}
	return dst
}

// decodeFloats decodes src, the whole encoding of len(dst) values, at least
// one. ints is scratch of the same length and slack as decodeInts wants.
func decodeFloats(dst []float64, ints []int64, src []byte, table *huffTable) error {
	if len(src) == 0 {
		return errTile
	}
	switch src[0] {
	case modeDecimal:
		return decodeDecimal(dst, ints, src, table)
	case modeDyadic:
		return decodeDyadic(dst, ints, src, table)
	case modeXOR:
		return decodeXOR(dst, src[1:])
	case modeRaw:
		src = src[1:]
		if len(src) != 8*len(dst) {
			return errTile
		}
		for i := range dst {
			dst[i] = math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:]))
		}
		return nil
	case modeFloatConst:
		r := reader{b: src[1:]}
		v := math.Float64frombits(r.uint64())
		for i := range dst {
			dst[i] = v
		}
		return r.end()
	}
	return errTile
}

func decodeDecimal(dst []float64, ints []int64, src []byte, table *huffTable) error {
	r := reader{b: src[1:]}
	e, f, count := r.byte(), r.byte(), r.uvarint()
	if r.bad || e > maxDecimal || f > e || count > uint64(len(dst)) {
		return errTile
	}
	exceptions := r.bytes(10 * count)
	if r.bad {
		return errTile
	}
	if err := decodeInts(ints, r.b, table); err != nil {
		return err
	}
	ints = ints[:len(dst)]
	up, down := pow10[f], inv10[e]
	for i, d := range ints[:len(dst)] {
		dst[i] = float64(float64(d)*up) * down
	}
	for ; len(exceptions) > 0; exceptions = exceptions[10:] {
		i := int(binary.LittleEndian.Uint16(exceptions))
		if i >= len(dst) {
			return errTile
		}
		dst[i] = math.Float64frombits(binary.LittleEndian.Uint64(exceptions[2:]))
	}
	return nil
}

func decodeDyadic(dst []float64, ints []int64, src []byte, table *huffTable) error {
	if len(src) < 3 {
		return errTile
	}
	if err := decodeInts(ints, src[2:], table); err != nil {
		return err
	}
	scale := math.Ldexp(1, -int(int8(src[1])))
	for i, d := range ints[:len(dst)] {
		dst[i] = float64(d) * scale
	}
	return nil
}
