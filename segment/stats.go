package segment

import (
	"math"
	"math/bits"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// A chunk of at most smallChunk rows stores no statistics: to decode it is as quick.
const smallChunk = 64

// intStats returns the statistics of at least one value, signed or not.
func intStats(v []int64, unsigned bool) column.Stats {
	s := column.Stats{Known: true, Count: len(v), First: uint64(v[0]), Last: uint64(v[len(v)-1])}
	flip := int64(0)
	if unsigned {
		flip = math.MinInt64 // makes the signed order that of unsigned values
	}
	least, most, sum := v[0]^flip, v[0]^flip, int64(0)
	for _, x := range v {
		sum += x
		x ^= flip
		least = min(least, x)
		most = max(most, x)
	}
	s.Min, s.Max, s.Sum = uint64(least^flip), uint64(most^flip), uint64(sum)
	if unsigned {
		if hi, _ := bits.Mul64(s.Max, uint64(len(v))); hi != 0 {
			s.SumOverflow = unsignedOverflow(v)
		}
	} else if bound := int64(math.MaxInt64) / int64(len(v)); least < -bound || most > bound {
		s.SumOverflow = signedOverflow(v)
	}
	return s
}

func unsignedOverflow(v []int64) bool {
	var sum, carries uint64
	for _, x := range v {
		var c uint64
		sum, c = bits.Add64(sum, uint64(x), 0)
		carries += c
	}
	return carries != 0
}

func signedOverflow(v []int64) bool {
	var lo uint64
	var hi int64
	for _, x := range v {
		var c uint64
		lo, c = bits.Add64(lo, uint64(x), 0)
		hi += x>>63 + int64(c)
	}
	return hi != int64(lo)>>63
}

// floatStats returns the statistics of at least one value; they are not known
// if one is not a number or the sum is none.
func floatStats(v []float64) column.Stats {
	least, most, sum := v[0], v[0], 0.0
	for _, x := range v {
		sum += x
		if x < least {
			least = x
		}
		if x > most {
			most = x
		}
	}
	if sum != sum {
		return column.Stats{Count: len(v)}
	}
	return column.Stats{
		Known: true, Count: len(v), Sum: math.Float64bits(sum),
		Min: math.Float64bits(least), Max: math.Float64bits(most),
		First: math.Float64bits(v[0]), Last: math.Float64bits(v[len(v)-1]),
	}
}

// vectorStats returns the statistics of a decoded tile. It gathers the valid
// values to the front of v, which is scratch.
func vectorStats(v *column.Vector) column.Stats {
	k := v.N
	if v.Type == dsdb.NoType {
		return column.Stats{Known: true}
	}
	if v.Valid != nil {
		k = countBits(v.Valid)
	}
	switch v.Type {
	case dsdb.Float:
		return floatStats(gather(v.Floats[:0], v.Floats[:v.N], v.Valid))
	case dsdb.Integer, dsdb.Unsigned:
		return intStats(gather(v.Ints[:0], v.Ints[:v.N], v.Valid), v.Type == dsdb.Unsigned)
	}
	return column.Stats{Known: true, Count: k}
}

// gather appends the values of the rows that b marks. dst may be v[:0].
func gather[T any](dst, v []T, b column.Bitmap) []T {
	if b == nil {
		return append(dst, v...)
	}
	for w, word := range b {
		for ; word != 0; word &= word - 1 {
			dst = append(dst, v[w<<6+bits.TrailingZeros64(word)])
		}
	}
	return dst
}
