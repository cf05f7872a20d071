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
	p := 0
	if w <= 8 {
		whole := len(v) &^ 7
		packBy8(out, v[:whole], w)
		p = whole / 8 * int(w)
		v = v[whole:]
	}
	var acc uint64
	var fill uint
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

// packBy8 packs a multiple of eight values of w <= 8 bits. It overwrites up to
// seven bytes after them.
func packBy8(out []byte, v []uint64, w uint) {
	for p := 0; len(v) >= 8; p += int(w) {
		d := (*[8]uint64)(v)
		a := d[0] | d[1]<<(w&63)
		b := d[2] | d[3]<<(w&63)
		c := d[4] | d[5]<<(w&63)
		e := d[6] | d[7]<<(w&63)
		a |= b << (2 * w & 63)
		c |= e << (2 * w & 63)
		binary.LittleEndian.PutUint64(out[p:], a|c<<(4*w&63))
		v = v[8:]
	}
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
// packedLen(len(dst), w) bytes, and adds base to each. It may load, but never
// uses, bytes between the length and the capacity of src, and may overwrite up
// to seven values between those of dst.
func unpack(dst []int64, src []byte, w uint, base int64) {
	src = src[:cap(src)]
	n, done := len(dst), 0
	if whole := (n + 7) &^ 7; whole <= cap(dst) {
		dst = dst[:whole]
	}
	switch {
	case w == 0:
		fill(dst, base, 0)
		return
	case w <= 8:
		done = unpackBy8(dst, src, w, base)
	case w <= 15:
		done = unpackBy4(dst, src, w, base)
	case w <= 28:
		done = unpackBy2(dst, src, w, base)
	case w <= 56:
		done = unpackBy1(dst, src, w, base)
	}
	for i := done; i < n; i++ {
		dst[i] = int64(bitsAt(src, i*int(w), w)) + base
	}
}

// bitsAt returns w bits that begin at bit position pos; bytes past src read as 0.
func bitsAt(src []byte, pos int, w uint) uint64 {
	p, shift := pos>>3, uint(pos&7)
	var x, over uint64
	if p+9 <= len(src) {
		x, over = binary.LittleEndian.Uint64(src[p:]), uint64(src[p+8])
	} else if p < len(src) {
		var word [16]byte
		copy(word[:9], src[p:])
		x, over = binary.LittleEndian.Uint64(word[:]), uint64(word[8])
	}
	x = x>>shift | over<<(64-shift) // a shift by 64 gives 0
	if w == 64 {
		return x
	}
	return x & (1<<w - 1)
}

// unpackBy8 handles w <= 8: eight values lie in one 64-bit word that starts at
// a byte boundary. Like its siblings it returns how many values it has read.
func unpackBy8(dst []int64, src []byte, w uint, base int64) int {
	mask := uint64(1)<<w - 1
	i, p := 0, 0
	for i+8 <= len(dst) && p+8 <= len(src) {
		x := binary.LittleEndian.Uint64(src[p:])
		d := (*[8]int64)(dst[i:])
		d[0] = int64(x&mask) + base
		x >>= w & 63
		d[1] = int64(x&mask) + base
		x >>= w & 63
		d[2] = int64(x&mask) + base
		x >>= w & 63
		d[3] = int64(x&mask) + base
		x >>= w & 63
		d[4] = int64(x&mask) + base
		x >>= w & 63
		d[5] = int64(x&mask) + base
		x >>= w & 63
		d[6] = int64(x&mask) + base
		x >>= w & 63
		d[7] = int64(x&mask) + base
		i += 8
		p += int(w)
	}
	return i
}

// unpackBy4 handles w <= 15: four values and at most four bits before them fit a word.
func unpackBy4(dst []int64, src []byte, w uint, base int64) int {
	mask := uint64(1)<<w - 1
	i, pos := 0, 0
	for i+4 <= len(dst) && pos>>3+8 <= len(src) {
		x := binary.LittleEndian.Uint64(src[pos>>3:]) >> (uint(pos) & 7)
		d := (*[4]int64)(dst[i:])
		d[0] = int64(x&mask) + base
		x >>= w & 63
		d[1] = int64(x&mask) + base
		x >>= w & 63
		d[2] = int64(x&mask) + base
		x >>= w & 63
		d[3] = int64(x&mask) + base
		i += 4
		pos += 4 * int(w)
	}
	return i
}

// unpackBy2 handles w <= 28.
func unpackBy2(dst []int64, src []byte, w uint, base int64) int {
	mask := uint64(1)<<w - 1
	i, pos := 0, 0
	for i+2 <= len(dst) && pos>>3+8 <= len(src) {
		x := binary.LittleEndian.Uint64(src[pos>>3:]) >> (uint(pos) & 7)
		d := (*[2]int64)(dst[i:])
		d[0] = int64(x&mask) + base
		d[1] = int64(x>>(w&63)&mask) + base
		i += 2
		pos += 2 * int(w)
	}
	return i
}

// unpackBy1 handles w <= 56.
func unpackBy1(dst []int64, src []byte, w uint, base int64) int {
	mask := uint64(1)<<w - 1
	i, pos := 0, 0
	for i < len(dst) && pos>>3+8 <= len(src) {
		dst[i] = int64(binary.LittleEndian.Uint64(src[pos>>3:])>>(uint(pos)&7)&mask) + base
		i++
		pos += int(w)
	}
	return i
}

// unpackDeltas reads len(dst) values of w bits under the terms of unpack, and
// sums up: value i of dst becomes first plus the values up to i, each plus least.
func unpackDeltas(dst []int64, src []byte, w uint, first, least int64) {
	if w <= 5 && w > 0 {
		done := 0
		whole := dst
		if n := (len(dst) + 7) &^ 7; n <= cap(dst) {
			whole = dst[:n]
		}
		done, first = sumBy8(whole, src[:cap(src)], w, first, least)
		if done >= len(dst) {
			return
		}
		src = src[done/8*int(w):]
		dst = dst[done:]
	}
	unpack(dst, src, w, least)
	for len(dst) >= 4 {
		d := (*[4]int64)(dst)
		a := first + d[0]
		b := a + d[1]
		c := b + d[2]
		first = c + d[3]
		d[0], d[1], d[2], d[3] = a, b, c, first
		dst = dst[4:]
	}
	for i, d := range dst {
		first += d
		dst[i] = first
	}
}

// sumBy8 does the work of unpackDeltas for w <= 5 eight values at a time. It
// spreads them over the bytes of a word, where one multiplication makes the
// running sums, none above 8*31. It returns how many values it has read and the last.
func sumBy8(dst []int64, src []byte, w uint, first, least int64) (int, int64) {
	const ones = 0x0101010101010101
	m4 := uint64(1)<<(4*w) - 1
	m2 := (uint64(1)<<(2*w) - 1) * 0x0000000100000001
	m1 := (uint64(1)<<w - 1) * 0x0001000100010001
	var steps [8]int64
	fill(steps[:], least, least)
	i, p := 0, 0
	for i+8 <= len(dst) && p+8 <= len(src) {
		x := binary.LittleEndian.Uint64(src[p:])
		x = x&m4 | x>>(4*w&63)&m4<<32
		x = x&m2 | x>>(2*w&63)&m2<<16
		x = x&m1 | x>>(w&63)&m1<<8
		x *= ones
		d := (*[8]int64)(dst[i:])
		d[0] = first + steps[0] + int64(uint8(x))
		d[1] = first + steps[1] + int64(uint8(x>>8))
		d[2] = first + steps[2] + int64(uint8(x>>16))
		d[3] = first + steps[3] + int64(uint8(x>>24))
		d[4] = first + steps[4] + int64(uint8(x>>32))
		d[5] = first + steps[5] + int64(uint8(x>>40))
		d[6] = first + steps[6] + int64(uint8(x>>48))
		first += steps[7] + int64(x>>56)
		d[7] = first
		i += 8
		p += int(w)
	}
	return i, first
}
