package segment

import "encoding/binary"

// packedLen returns the bytes that n values of w bits take.
func packedLen(n int, w uint) int { return (n*int(w) + 7) / 8 }

// appendPacked appends the low w bits of each value, value i at bits
// [i*w, (i+1)*w) counted from the least significant bit of the first byte. No
// value may have a bit above w; w is 0 … 64.
func appendPacked(dst []byte, v []uint64, w uint) []byte {
	if w == 0 || len(v) == 0 {
		return dst
	}
	size := packedLen(len(v), w)
	start := len(dst)
	dst = grow(dst, size+8)
	out := dst[start:]
	var acc uint64
	var fill uint
	p := 0
	for _, x := range v {
		acc |= x << fill
		fill += w
		if fill >= 64 {
			binary.LittleEndian.PutUint64(out[p:], acc)
			p += 8
			fill -= 64
			acc = x >> (w - fill) // a shift by 64 gives 0
		}
	}
	binary.LittleEndian.PutUint64(out[p:], acc)
	return dst[:start+size]
}

// grow lengthens dst by n bytes of unspecified content.
func grow(dst []byte, n int) []byte {
	if len(dst)+n <= cap(dst) {
		return dst[:len(dst)+n]
	}
	bigger := make([]byte, len(dst)+n, 2*(len(dst)+n))
	copy(bigger, dst)
	return bigger
}

// unpack reads len(dst) values of w bits, 0 … 64, from src, which must hold
// packedLen(len(dst), w) bytes. It may load, but never uses, bytes between the
// length and the capacity of src.
func unpack(dst []int64, src []byte, w uint) {
	src = src[:cap(src)]
	var done int
	switch {
	case w == 0:
		clear(dst)
		return
	case w <= 8:
		done = unpackBy8(dst, src, w)
	case w <= 15:
		done = unpackBy4(dst, src, w)
	case w <= 28:
		done = unpackBy2(dst, src, w)
	case w <= 56:
		done = unpackBy1(dst, src, w)
	}
	for i := done; i < len(dst); i++ {
		dst[i] = int64(bitsAt(src, i*int(w), w))
	}
}

// bitsAt returns w bits that begin at bit position pos; bytes past src read as 0.
func bitsAt(src []byte, pos int, w uint) uint64 {
	p, shift := pos>>3, uint(pos&7)
	var word [16]byte
	if p < len(src) {
		copy(word[:9], src[p:])
	}
	x := binary.LittleEndian.Uint64(word[:])>>shift | uint64(word[8])<<(64-shift)
	if shift == 0 {
		x = binary.LittleEndian.Uint64(word[:])
	}
	if w == 64 {
		return x
	}
	return x & (1<<w - 1)
}

// unpackBy8 handles w <= 8: eight values lie in one 64-bit word that starts at
// a byte boundary. Like its siblings it returns how many values it has read.
func unpackBy8(dst []int64, src []byte, w uint) int {
	mask := uint64(1)<<w - 1
	w &= 63
	i, p := 0, 0
	for i+8 <= len(dst) && p+8 <= len(src) {
		x := binary.LittleEndian.Uint64(src[p:])
		d := (*[8]int64)(dst[i:])
		d[0] = int64(x & mask)
		x >>= w & 63
		d[1] = int64(x & mask)
		x >>= w & 63
		d[2] = int64(x & mask)
		x >>= w & 63
		d[3] = int64(x & mask)
		x >>= w & 63
		d[4] = int64(x & mask)
		x >>= w & 63
		d[5] = int64(x & mask)
		x >>= w & 63
		d[6] = int64(x & mask)
		x >>= w & 63
		d[7] = int64(x & mask)
		i += 8
		p += int(w)
	}
	return i
}

// unpackBy4 handles w <= 15: four values and at most four bits before them fit a word.
func unpackBy4(dst []int64, src []byte, w uint) int {
	mask := uint64(1)<<w - 1
	i, pos := 0, 0
	for i+4 <= len(dst) && pos>>3+8 <= len(src) {
		x := binary.LittleEndian.Uint64(src[pos>>3:]) >> (uint(pos) & 7)
		d := (*[4]int64)(dst[i:])
		d[0] = int64(x & mask)
		x >>= w & 63
		d[1] = int64(x & mask)
		x >>= w & 63
		d[2] = int64(x & mask)
		x >>= w & 63
		d[3] = int64(x & mask)
		i += 4
		pos += 4 * int(w)
	}
	return i
}

// unpackBy2 handles w <= 28.
func unpackBy2(dst []int64, src []byte, w uint) int {
	mask := uint64(1)<<w - 1
	i, pos := 0, 0
	for i+2 <= len(dst) && pos>>3+8 <= len(src) {
		x := binary.LittleEndian.Uint64(src[pos>>3:]) >> (uint(pos) & 7)
		d := (*[2]int64)(dst[i:])
		d[0] = int64(x & mask)
		d[1] = int64(x >> (w & 63) & mask)
		i += 2
		pos += 2 * int(w)
	}
	return i
}

// unpackBy1 handles w <= 56.
func unpackBy1(dst []int64, src []byte, w uint) int {
	mask := uint64(1)<<w - 1
	i, pos := 0, 0
	for i < len(dst) && pos>>3+8 <= len(src) {
		dst[i] = int64(binary.LittleEndian.Uint64(src[pos>>3:]) >> (uint(pos) & 7) & mask)
		i++
		pos += int(w)
	}
	return i
}
