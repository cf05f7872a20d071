package exec

// number is what the arithmetic kernels work on. Unsigned values enter as
// int64: as they are for sums, with the sign bit flipped where order counts.
type number interface{ int64 | float64 }

// smallRun is the number of rows below which a window is folded by a plain
// loop: setting up four accumulators would cost more than it saves.
const smallRun = 32

// sum adds up v in four interleaved chains; integers wrap.
func sum[T number](v []T) T {
	var a, b, c, d T
	for len(v) >= 4 {
		a += v[0]
		b += v[1]
		c += v[2]
		d += v[3]
		v = v[4:]
	}
	for _, x := range v {
		a += x
	}
	return (a + b) + (c + d)
}

// sumsFit reports whether the sum of a tile's rows with values like those of v
// fits into an int64: whether all of them lie in [-2^52, 2^52).
func sumsFit(v []int64) bool {
	const bias = 1 << 52
	var x, y int64
	i := 0
	for ; i+4 <= len(v); i += 4 {
		p := v[i : i+4 : i+4]
		x |= (p[0] + bias) | (p[1] + bias)
		y |= (p[2] + bias) | (p[3] + bias)
	}
	for _, z := range v[i:] {
		x |= z + bias
	}
	return uint64(x|y) < 1<<53
}

// runSum adds up the values of one window.
func runSum[T number](v []T) T {
	if len(v) >= smallRun {
		return sum(v)
	}
	var t T
	for _, x := range v {
		t += x
	}
	return t
}

// floatSum adds up v as floats.
func floatSum(v []int64) float64 {
	var s float64
	for _, x := range v {
		s += float64(x)
	}
	return s
}

// least returns the smallest of v, which is not empty.
func least[T number](v []T) T {
	a, b, c, d := v[0], v[0], v[0], v[0]
	for len(v) >= 4 {
		if x := v[0]; x < a {
			a = x
		}
		if x := v[1]; x < b {
			b = x
		}
		if x := v[2]; x < c {
			c = x
		}
		if x := v[3]; x < d {
			d = x
		}
		v = v[4:]
	}
	for _, x := range v {
		if x < a {
			a = x
		}
	}
	return min(a, b, c, d)
}

// greatest returns the largest of v, which is not empty.
func greatest[T number](v []T) T {
	a, b, c, d := v[0], v[0], v[0], v[0]
	for len(v) >= 4 {
		if x := v[0]; x > a {
			a = x
		}
		if x := v[1]; x > b {
			b = x
		}
		if x := v[2]; x > c {
			c = x
		}
		if x := v[3]; x > d {
			d = x
		}
		v = v[4:]
	}
	for _, x := range v {
		if x > a {
			a = x
		}
	}
	return max(a, b, c, d)
}

// find returns the first index of x in v, len(v) if it is not there.
func find[T number](v []T, x T) int {
	for i, y := range v {
		if y == x {
			return i
		}
	}
	return len(v)
}

// The comparison kernels set bit i of dst if the comparison of v[i] with k
// holds. dst has (len(v)+63)/64 words; the bits past len(v) become 0. Eight
// comparisons at a time are put together by constant shifts, without branches.

func maskGreater[T number](dst []uint64, v []T, k T) {
	for w := range dst {
		p := v[w*64 : min(len(v), w*64+64)]
		var bits uint64
		i := 0
		for ; i+8 <= len(p); i += 8 {
			q := p[i : i+8 : i+8]
			bits |= (bit(q[0] > k) | bit(q[1] > k)<<1 | bit(q[2] > k)<<2 | bit(q[3] > k)<<3 |
				bit(q[4] > k)<<4 | bit(q[5] > k)<<5 | bit(q[6] > k)<<6 | bit(q[7] > k)<<7) << (uint(i) & 63)
		}
		for ; i < len(p); i++ {
			bits |= bit(p[i] > k) << (uint(i) & 63)
		}
		dst[w] = bits
	}
}

func maskLess[T number](dst []uint64, v []T, k T) {
	for w := range dst {
		p := v[w*64 : min(len(v), w*64+64)]
		var bits uint64
		i := 0
		for ; i+8 <= len(p); i += 8 {
			q := p[i : i+8 : i+8]
			bits |= (bit(q[0] < k) | bit(q[1] < k)<<1 | bit(q[2] < k)<<2 | bit(q[3] < k)<<3 |
				bit(q[4] < k)<<4 | bit(q[5] < k)<<5 | bit(q[6] < k)<<6 | bit(q[7] < k)<<7) << (uint(i) & 63)
		}
		for ; i < len(p); i++ {
			bits |= bit(p[i] < k) << (uint(i) & 63)
		}
		dst[w] = bits
	}
}

func maskEqual[T number](dst []uint64, v []T, k T) {
	for w := range dst {
		p := v[w*64 : min(len(v), w*64+64)]
		var bits uint64
		i := 0
		for ; i+8 <= len(p); i += 8 {
			q := p[i : i+8 : i+8]
			bits |= (bit(q[0] == k) | bit(q[1] == k)<<1 | bit(q[2] == k)<<2 | bit(q[3] == k)<<3 |
				bit(q[4] == k)<<4 | bit(q[5] == k)<<5 | bit(q[6] == k)<<6 | bit(q[7] == k)<<7) << (uint(i) & 63)
		}
		for ; i < len(p); i++ {
			bits |= bit(p[i] == k) << (uint(i) & 63)
		}
		dst[w] = bits
	}
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// gather appends v[i] for each i of rows.
func gather[T any](dst, v []T, rows []int32) []T {
	n := len(dst)
	dst = extend(dst, len(rows))
	out := dst[n:]
	for i, r := range rows {
		out[i] = v[r]
	}
	return dst
}

// extend makes dst n longer, at least doubling its memory when that is used up.
func extend[T any](dst []T, n int) []T {
	need := len(dst) + n
	if need > cap(dst) {
		grown := make([]T, len(dst), max(need, 2*cap(dst)))
		copy(grown, dst)
		dst = grown
	}
	return dst[:need]
}
