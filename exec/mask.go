package exec

import (
	"math/bits"

	"github.com/dasudian/dsdb/column"
)

// maskWords is the length of a mask of a tile.
const maskWords = column.MaxTileRows / 64

// mask has one bit for each row of a tile; bits past its rows are 0.
type mask [maskWords]uint64

func words(n int) int { return (n + 63) / 64 }

// fill sets the first n bits and clears the rest.
func (m *mask) fill(n int) {
	*m = mask{}
	for w := 0; w < n/64; w++ {
		m[w] = ^uint64(0)
	}
	if n%64 != 0 {
		m[n/64] = 1<<(uint(n)%64) - 1
	}
}

// clip clears the bits outside [lo, hi).
func (m *mask) clip(lo, hi int) {
	for w := range m {
		a, b := max(lo-w*64, 0), min(hi-w*64, 64)
		if a >= b {
			m[w] = 0
			continue
		}
		m[w] &= (^uint64(0) << uint(a)) & (^uint64(0) >> uint(64-b))
	}
}

// and keeps the bits that b has too; a nil bitmap has them all.
func (m *mask) and(b column.Bitmap) {
	if b == nil {
		return
	}
	for w := range m {
		if w < len(b) {
			m[w] &= b[w]
		} else {
			m[w] = 0
		}
	}
}

func (m *mask) count() int {
	n := 0
	for _, w := range m {
		n += bits.OnesCount64(w)
	}
	return n
}

// appendRows appends the indexes of the set bits, ascending.
func (m *mask) appendRows(dst []int32) []int32 {
	for w, x := range m {
		for x != 0 {
			dst = append(dst, int32(w*64+bits.TrailingZeros64(x)))
			x &= x - 1
		}
	}
	return dst
}
