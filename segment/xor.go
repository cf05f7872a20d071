package segment

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// XOR coding of doubles after Gorilla (Pelkonen et al., VLDB 2015, section
// 4.1.2), bits least significant first: each value is XORed with its
// predecessor. 0: equal. 01: the significant bits lie within the window of the
// last one. 11: a new window follows, 6 bits of trailing zeros and 6 bits of
// width-1, then the significant bits.

// bitWriter appends fields of up to 64 bits, least significant bit first.
type bitWriter struct {
	b   []byte
	acc uint64
	n   uint // bits in acc, below 64
}

func (w *bitWriter) put(x uint64, width uint) {
	w.acc |= x << w.n
	if w.n+width >= 64 {
		w.b = binary.LittleEndian.AppendUint64(w.b, w.acc)
		w.acc = x >> (64 - w.n)
		w.n += width - 64
		return
	}
	w.n += width
}

func (w *bitWriter) finish() []byte {
	for i := uint(0); i < w.n; i += 8 {
		w.b = append(w.b, byte(w.acc>>i))
	}
	return w.b
}

func appendXOR(dst []byte, v []float64) []byte {
	prev := math.Float64bits(v[0])
	dst = binary.LittleEndian.AppendUint64(append(dst, modeXOR), prev)
	w := bitWriter{b: dst}
	low, width := uint(0), uint(0)
	for _, f := range v[1:] {
		cur := math.Float64bits(f)
		x := cur ^ prev
		prev = cur
		if x == 0 {
			w.put(0, 1)
			continue
		}
		l, need := uint(bits.TrailingZeros64(x)), uint(bits.Len64(x))
		if width > 0 && l >= low && need <= low+width && width < need-l+12 {
			w.put(1, 2)
		} else {
			low, width = l, need-l
			w.put(3|uint64(low)<<2|uint64(width-1)<<8, 14)
		}
		w.put(x>>low, width)
	}
	return w.finish()
}

// decodeXOR decodes what follows the mode byte.
func decodeXOR(dst []float64, src []byte) error {
	if len(src) < 8 {
		return errTile
	}
	prev := binary.LittleEndian.Uint64(src)
	dst[0] = math.Float64frombits(prev)
	src = src[8:]
	in, end := src[:cap(src)], 8*len(src)
	low, width := uint(0), uint(0)
	pos := 0
	for i := 1; i < len(dst); i++ {
		if pos >= end {
			return errTile
		}
		var word uint64
		if p := pos >> 3; p+8 <= len(in) {
			word = binary.LittleEndian.Uint64(in[p:]) >> (uint(pos) & 7)
		} else {
			word = bitsAt(in, pos, 57)
		}
		switch word & 3 {
		case 1:
			pos += 2
			if width <= 55 {
				pos += int(width)
				prev ^= word >> 2 & (1<<(width&63) - 1) << (low & 63)
				dst[i] = math.Float64frombits(prev)
				continue
			}
		case 3:
			low, width = uint(word>>2&63), uint(word>>8&63)+1
			if low+width > 64 {
				return errTile
			}
			pos += 14
		default:
			pos++
			dst[i] = math.Float64frombits(prev)
			continue
		}
		prev ^= bitsAt(in, pos, width) << low
		pos += int(width)
		dst[i] = math.Float64frombits(prev)
	}
	if (pos+7)/8 != len(src) {
		return errTile
	}
	return nil
}
