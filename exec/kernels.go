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

// exactSum returns the sum of v, and false if a value is so large (2^52 or
// more) that a sum of a tile's rows might not fit.
func exactSum(v []int64) (total int64, ok bool) {
	var a, b, c, d, wide int64
	for len(v) >= 4 {
		a += v[0]
		b += v[1]
		c += v[2]
		d += v[3]
		wide |= (v[0] ^ v[0]>>63) | (v[1] ^ v[1]>>63) | (v[2] ^ v[2]>>63) | (v[3] ^ v[3]>>63)
		v = v[4:]
	}
	for _, x := range v {
		a += x
		wide |= x ^ x>>63
	}
	return (a + b) + (c + d), wide < 1<<52
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
		if v[0] < a {
			a = v[0]
		}
		if v[1] < b {
			b = v[1]
		}
		if v[2] < c {
			c = v[2]
		}
		if v[3] < d {
			d = v[3]
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
		if v[0] > a {
			a = v[0]
		}
		if v[1] > b {
			b = v[1]
		}
		if v[2] > c {
			c = v[2]
		}
		if v[3] > d {
			d = v[3]
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
// holds. dst has (len(v)+63)/64 words; the bits past len(v) become 0.

func maskGreater[T number](dst []uint64, v []T, k T) {
	for w := range dst {
		var bits uint64
		for i, x := range v[w*64 : min(len(v), w*64+64)] {
			var b uint64
			if x > k {
				b = 1
			}
			bits |= b << (uint(i) & 63)
		}
		dst[w] = bits
	}
}

func maskLess[T number](dst []uint64, v []T, k T) {
	for w := range dst {
		var bits uint64
		for i, x := range v[w*64 : min(len(v), w*64+64)] {
			var b uint64
			if x < k {
				b = 1
			}
			bits |= b << (uint(i) & 63)
		}
		dst[w] = bits
	}
}

func maskEqual[T number](dst []uint64, v []T, k T) {
	for w := range dst {
		var bits uint64
		for i, x := range v[w*64 : min(len(v), w*64+64)] {
			var b uint64
			if x == k {
				b = 1
			}
			bits |= b << (uint(i) & 63)
		}
		dst[w] = bits
	}
}

// gather appends v[i] for each i of rows.
func gather[T any](dst, v []T, rows []int32) []T {
	for _, i := range rows {
		dst = append(dst, v[i])
	}
	return dst
}
