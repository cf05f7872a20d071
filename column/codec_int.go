package column

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// blockRows is the number of values of an integer or float block; the last
// block of a vector may be shorter.
const blockRows = 1024

// The modes of an integer block.
const (
	modeConst = iota // all values are equal
	modeFrame        // value - least, packed
	modeDelta        // differences of neighbours - least difference, packed
	modeCycle        // counts up by one and begins at 0 again after a period
)

// widthScaled marks a packed width that a divisor follows.
const widthScaled = 0x80

// maxPacked is the greatest width that is packed; wider values take 64 bits,
// so that one load of eight bytes holds any packed value.
const maxPacked = 57

// appendInts appends values as blocks. If period > 0 the values may count in
// cycles of that period, as series do in a batch that visits them in turn.
func (s *scratch) appendInts(dst []byte, values []uint64, period int) []byte {
	for len(values) > 0 {
		n := min(len(values), blockRows)
		dst = appendBlock(dst, values[:n], s.deltas[:n-1], uint64(period))
		values = values[n:]
	}
	return dst
}

// appendBlock appends one block; deltas is scratch.
func appendBlock(dst []byte, values, deltas []uint64, period uint64) []byte {
	least, greatest := extent(values)
	if least == greatest {
		dst = append(dst, modeConst)
		return binary.AppendVarint(dst, least)
	}
	if period > 0 && cycles(values, period) {
		dst = append(dst, modeCycle)
		dst = binary.AppendUvarint(dst, values[0])
		return binary.AppendUvarint(dst, period)
	}
	mode, first := byte(modeFrame), values[0]
	if leastDelta, greatestDelta := deltaExtent(values, least, greatest); narrower(leastDelta, greatestDelta, least, greatest) {
		mode, least, greatest = modeDelta, leastDelta, greatestDelta
		for i := range deltas {
			deltas[i] = values[i+1] - values[i]
		}
		values = deltas
	}
	divisor, width := packing(values, least, greatest)
	dst = append(dst, mode)
	if dst = append(dst, byte(width)); divisor != 1 {
		dst[len(dst)-1] |= widthScaled
		dst = binary.AppendUvarint(dst, divisor)
	}
	if mode == modeDelta {
		dst = binary.AppendVarint(dst, int64(first))
	}
	dst = binary.AppendVarint(dst, least)
	return appendPacked(dst, values, uint64(least), divisor, width)
}

// narrower reports whether a span takes fewer bits than another.
func narrower(least, greatest, otherLeast, otherGreatest int64) bool {
	return bits.Len64(uint64(greatest)-uint64(least)) < bits.Len64(uint64(otherGreatest)-uint64(otherLeast))
}

// deltaExtent returns the least and the greatest difference of neighbours,
// modulo 2^64, of at least two values that lie from low to high. Of values that
// take few bits anyway it returns low and high, so as not to look at them all.
func deltaExtent(values []uint64, low, high int64) (least, greatest int64) {
	if uint64(high)-uint64(low) < 1<<10 {
		return low, high
	}
	least, greatest = math.MaxInt64, math.MinInt64
	before := values[0]
	for _, v := range values[1:] {
		d := int64(v - before)
		before = v
		least, greatest = min(least, d), max(greatest, d)
	}
	return least, greatest
}

// extent returns the least and the greatest value as signed integers.
func extent(values []uint64) (least, greatest int64) {
	if len(values) == 0 {
		return 0, 0
	}
	least, greatest = int64(values[0]), int64(values[0])
	for _, v := range values {
		least, greatest = min(least, int64(v)), max(greatest, int64(v))
	}
	return least, greatest
}

// cycles reports whether values count up by one below period, beginning again at 0.
func cycles(values []uint64, period uint64) bool {
	next := values[0]
	for _, v := range values {
		if v != next || v >= period {
			return false
		}
		if next++; next == period {
			next = 0
		}
	}
	return true
}

// packing returns the greatest common divisor of the values' distances from
// the least, and the bits that the quotients take.
func packing(values []uint64, least, greatest int64) (divisor uint64, width int) {
	span := uint64(greatest) - uint64(least)
	divisor = 1
	if span > 15 {
		divisor = commonDivisor(values, uint64(least), span)
	}
	width = bits.Len64(span / divisor)
	if width > maxPacked {
		width = 64
	}
	return divisor, width
}

func commonDivisor(values []uint64, least, span uint64) uint64 {
	g, before := span, least
	for _, v := range values {
		if v == before {
			continue
		}
		before = v
		for a := v - least; a != 0; {
			a, g = g%a, a
		}
		if g == 1 {
			break
		}
	}
	return g
}

// appendPacked appends (value - least) / divisor in width bits each, the first
// value in the lowest bits, padded to whole bytes.
func appendPacked(dst []byte, values []uint64, least, divisor uint64, width int) []byte {
	size := (len(values)*width + 7) / 8
	dst = slices.Grow(dst, size+8)
	out := dst[len(dst) : len(dst)+size+8]
	dst = dst[:len(dst)+size]
	if width <= 8 && divisor == 1 {
		n := len(values) &^ 7
		packSmall(out, values[:n], least, width)
		values, out = values[n:], out[n/8*width:]
	}
	var acc uint64
	used := 0
	for _, v := range values {
		v -= least
		if divisor != 1 {
			v /= divisor
		}
		acc |= v << (used & 63)
		used += width
		if used >= 64 {
			binary.LittleEndian.PutUint64(out, acc)
			out = out[8:]
			used -= 64
			acc = v >> (width - used)
		}
	}
	if used > 0 {
		binary.LittleEndian.PutUint64(out, acc)
	}
	return dst
}

// packSmall packs values of at most eight bits, eight at a time. out has eight bytes to spare.
func packSmall(out []byte, values []uint64, least uint64, width int) {
	w1 := uint(width) & 63
	w2, w4 := 2*w1&63, 4*w1&63
	for len(values) >= 8 {
		v := values[:8:8]
		a := (v[0] - least) | (v[1]-least)<<w1
		b := (v[2] - least) | (v[3]-least)<<w1
		c := (v[4] - least) | (v[5]-least)<<w1
		d := (v[6] - least) | (v[7]-least)<<w1
		binary.LittleEndian.PutUint64(out, a|b<<w2|(c|d<<w2)<<w4)
		values, out = values[8:], out[width:]
	}
}

// ints reads len(dst) values that appendInts wrote.
func (r *reader) ints(dst []uint64) {
	for len(dst) > 0 && r.err == nil {
		n := min(len(dst), blockRows)
		r.block(dst[:n])
		dst = dst[n:]
	}
}

func (r *reader) block(dst []uint64) {
	switch mode := r.byte(); mode {
	case modeConst:
		v := uint64(r.varint())
		for i := range dst {
			dst[i] = v
		}
	case modeFrame:
		width, divisor := r.width()
		least := uint64(r.varint())
		r.packed(dst, width)
		scale(dst, divisor, least)
	case modeDelta:
		width, divisor := r.width()
		first, least := uint64(r.varint()), uint64(r.varint())
		r.packed(dst[1:], width)
		scale(dst[1:], divisor, least)
		dst[0] = first
		for i := 1; i < len(dst); i++ {
			first += dst[i]
			dst[i] = first
		}
	case modeCycle:
		next, period := r.uvarint(), r.uvarint()
		if next >= period {
			r.fail("cycle of %d begins at %d", period, next)
			return
		}
		for i := range dst {
			dst[i] = next
			if next++; next == period {
				next = 0
			}
		}
	default:
		r.fail("integer block of mode %d", mode)
	}
}

// width reads a packed width and its divisor.
func (r *reader) width() (width int, divisor uint64) {
	b := r.byte()
	width, divisor = int(b&^widthScaled), 1
	if b&widthScaled != 0 {
		divisor = r.uvarint()
	}
	if width > maxPacked && width != 64 {
		r.fail("packed width %d", width)
	}
	return width, divisor
}

// scale undoes (value - least) / divisor.
func scale(values []uint64, divisor, least uint64) {
	if divisor != 1 {
		for i := range values {
			values[i] *= divisor
		}
	}
	if least != 0 {
		for i := range values {
			values[i] += least
		}
	}
}

// packed reads len(dst) <= blockRows values of width bits.
func (r *reader) packed(dst []uint64, width int) {
	size := (len(dst)*width + 7) / 8
	src := r.take(size)
	if r.err != nil {
		return
	}
	switch {
	case width == 0:
		clear(dst)
		return
	case width == 64:
		for i := range dst {
			dst[i] = binary.LittleEndian.Uint64(src[8*i:])
		}
		return
	}
	// Wide loads may touch up to eight bytes behind the last value.
	if have := r.src[r.pos-size:]; len(have) >= size+8 {
		unpack(dst, have[:size+8], width)
		return
	}
	var padded [blockRows*maxPacked/8 + 16]byte
	copy(padded[:], src)
	unpack(dst, padded[:size+8], width)
}

// unpack reads values of width bits from src, which has eight bytes to spare.
func unpack(dst []uint64, src []byte, width int) {
	mask := uint64(1)<<width - 1
	if width <= 8 {
		w1 := uint(width) & 63
		w2, w4 := 2*w1&63, 4*w1&63
		for len(dst) >= 8 {
			a := binary.LittleEndian.Uint64(src)
			e := a >> w4
			d := dst[:8:8]
			d[0], d[1] = a&mask, a>>w1&mask
			a >>= w2
			d[2], d[3] = a&mask, a>>w1&mask
			d[4], d[5] = e&mask, e>>w1&mask
			e >>= w2
			d[6], d[7] = e&mask, e>>w1&mask
			dst, src = dst[8:], src[width:]
		}
	}
	at := uint(0)
	for i := range dst {
		dst[i] = binary.LittleEndian.Uint64(src[at>>3:]) >> (at & 7) & mask
		at += uint(width)
	}
}

// The scales of a float block: 0 to maxDigits decimal digits, or no scale.
const (
	maxDigits  = 9
	floatsBits = 0xfe // the values' bits as one integer block
	floatsRaw  = 0xff // eight bytes each
)

var pow10 = [maxDigits + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}

// appendFloats appends the bits of float64 values: a block of decimals as
// integers, any other block as it is. Every block reads back bit for bit.
func (s *scratch) appendFloats(dst []byte, values []uint64) []byte {
	for len(values) > 0 {
		n := min(len(values), blockRows)
		block, ints, deltas := values[:n], s.ints[:n], s.deltas[:n-1]
		values = values[n:]
		if digits, ok := decimals(ints, block); ok {
			dst = append(dst, byte(digits))
			dst = appendBlock(dst, ints, deltas, 0)
			continue
		}
		if least, greatest := extent(block); least == greatest {
			dst = append(dst, floatsBits)
			dst = appendBlock(dst, block, deltas, 0)
			continue
		}
		dst = append(dst, floatsRaw)
		for _, v := range block {
			dst = binary.LittleEndian.AppendUint64(dst, v)
		}
	}
	return dst
}

// decimals writes each value times 10^digits into ints, with the fewest digits
// that make all of them integers and bring each back exactly. A value that is
// exact with some digits is exact with more, so that one pass finds the number.
func decimals(ints, values []uint64) (digits int, ok bool) {
	for digits <= maxDigits {
		p := pow10[digits]
		i := 0
		for ; i < len(values) && i < len(ints); i++ {
			f := math.Float64frombits(values[i]) * p
			n := int64(f + math.Copysign(0.5, f))
			// Of what lies outside int64, or is no number, n is -2^63 or such, which is not in range.
			if uint64(n+1<<53) > 1<<54 || math.Float64bits(float64(n)/p) != values[i] {
				break
			}
			ints[i] = uint64(n)
		}
		if i == len(values) {
			return digits, true
		}
		digits++
	}
	return 0, false
}

// floats reads len(dst) values that appendFloats wrote.
func (r *reader) floats(dst []uint64) {
	for len(dst) > 0 && r.err == nil {
		n := min(len(dst), blockRows)
		block := dst[:n]
		dst = dst[n:]
		switch scale := r.byte(); {
		case scale <= maxDigits:
			r.block(block)
			p := pow10[scale]
			for i, v := range block {
				block[i] = math.Float64bits(float64(int64(v)) / p)
			}
		case scale == floatsBits:
			r.block(block)
		case scale == floatsRaw:
			src := r.take(8 * n)
			if r.err != nil {
				return
			}
			for i := range block {
				block[i] = binary.LittleEndian.Uint64(src[8*i:])
			}
		default:
			r.fail("float block of scale %d", scale)
		}
	}
}
