package segment

import (
	"encoding/binary"
	"math/bits"

	"github.com/dasudian/dsdb/column"
)

// A tile that has nulls but is not all null begins with one of these modes
// and the rows that are valid; the mode of the valid values follows.
const (
	modeValidBits = 0x80 // one bit per row, least significant first
	modeValidRuns = 0x81 // uvarint lengths of runs, valid first, in turn, until all rows are covered
)

// maskTail clears the bits at and above n.
func maskTail(b column.Bitmap, n int) {
	if n&63 != 0 {
		b[n>>6] &= 1<<(uint(n)&63) - 1
	}
}

// bitmapWindow copies rows [from, from+n) of b to the front of dst, which has
// room for them, and clears the rest of the last word.
func bitmapWindow(dst, b column.Bitmap, from, n int) column.Bitmap {
	dst = dst[:(n+63)/64]
	shift := uint(from & 63)
	for i := range dst {
		w := from>>6 + i
		dst[i] = b[w] >> shift
		if shift > 0 && w+1 < len(b) {
			dst[i] |= b[w+1] << (64 - shift)
		}
	}
	maskTail(dst, n)
	return dst
}

func countBits(b column.Bitmap) int {
	n := 0
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// appendValidity appends the validity of n rows, some valid and some not.
func appendValidity(dst []byte, b column.Bitmap, n int) []byte {
	start := len(dst)
	dst = append(dst, modeValidRuns)
	for i, valid := 0, true; i < n; valid = !valid {
		run := i
		for i < n && b.Get(i) == valid {
			i++
		}
		dst = binary.AppendUvarint(dst, uint64(i-run))
		if len(dst)-start > (n+7)/8 {
			return appendValidBits(dst[:start], b, n)
		}
	}
	return dst
}

func appendValidBits(dst []byte, b column.Bitmap, n int) []byte {
	dst = append(dst, modeValidBits)
	for i := 0; i < n; i += 8 {
		dst = append(dst, byte(b[i>>6]>>(uint(i)&63)))
	}
	return dst
}

// readValidity reads the validity of n rows into b and returns how many are valid.
func readValidity(r *reader, b column.Bitmap, n int) (int, error) {
	clear(b)
	switch r.byte() {
	case modeValidBits:
		for i, x := range r.bytes(uint64(n+7) / 8) {
			b[i>>3] |= uint64(x) << (8 * uint(i&7))
		}
		maskTail(b, n)
	case modeValidRuns:
		for i, valid := 0, true; i < n; valid = !valid {
			run := r.uvarint()
			if r.bad || run > uint64(n-i) || run == 0 && i > 0 {
				return 0, errTile
			}
			for end := i + int(run); i < end; i++ {
				if valid {
					b.Set(i)
				}
			}
		}
	default:
		return 0, errTile
	}
	k := countBits(b)
	if r.bad || k == 0 || k == n {
		return 0, errTile
	}
	return k, nil
}

// spread moves v[:k], the values of the rows that b marks, to those rows of
// v[:n]. The values of the other rows are unspecified.
func spread[T any](v []T, k, n int, b column.Bitmap) {
	for i := n - 1; k < i+1 && k > 0; i-- {
		if b.Get(i) {
			k--
			v[i] = v[k]
		}
	}
}
