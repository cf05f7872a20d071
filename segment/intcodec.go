package segment

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// The first byte of an encoded tile names its mode. Modes 1 … 8 are forms of
// the integer codec, which is also the second stage of the decimal and dyadic
// float codecs and carries times, lengths and the columns of tile directories.
const (
	modeConst      = 1 // varint value
	modeStride     = 2 // varint first, varint step
	modeFOR        = 3 // u8 width, varint min, width-bit offsets from min
	modeDelta      = 4 // u8 width, varint first, varint least delta, width-bit offsets of n-1 deltas from it
	modeHuff       = 5 // varint first, Huffman-coded deltas
	modeHuffEscape = 6 // varint first, uvarint bytes of escapes, escapes (varints), Huffman-coded deltas
	modeRuns       = 8 // column of the values of the runs, then a mode 1 … 4 of their lengths
	modeGCD        = 7 // uvarint divisor, varint base, then a mode 1 … 6 or 8 of (value - base) / divisor
)

// maxRuns bounds the runs of a tile of modeRuns.
const maxRuns = 128

// errTile is what is wrong with a tile that no writer makes; the caller adds where it is.
var errTile = errors.New("malformed tile")

// intEncoder holds the scratch space of the integer codec. When code is set,
// tiles that gain by it are Huffman coded; when hist is set, the symbols of
// every delta are counted there for a later code.
type intEncoder struct {
	offsets []uint64
	words   []uint32
	runs    [2][maxRuns]int64
	scaled  []int64
	code    *huffCode
	hist    *[huffSymbols]uint32
	tries   [2]int // tiles for which the code did not pay and for which it did
}

// append appends the shortest encoding of v, at least one value of any size.
// Differences are taken modulo 2^64, so that it is total over int64.
func (e *intEncoder) append(dst []byte, v []int64) []byte {
	return e.appendShaped(dst, v, shapeOf(v))
}

// appendShaped is append for who knows the shape of v.
func (e *intEncoder) appendShaped(dst []byte, v []int64, s shape) []byte {
	if s.min != s.max && s.minDelta != s.maxDelta && len(v) > 2 {
		if g := commonDivisor(v, s.min); g > 1 && gcdPays(g, s.min, len(v)) {
			dst = append(dst, modeGCD)
			dst = binary.AppendUvarint(dst, g)
			dst = binary.AppendVarint(dst, s.min)
			e.scaled = scaleDown(e.scaled[:0], v, s.min, g)
			return e.appendPlain(dst, e.scaled, shapeOf(e.scaled))
		}
	}
	return e.appendPlain(dst, v, s)
}

// shape is what the choice of a mode depends on.
type shape struct {
	min, max           int64
	minDelta, maxDelta int64
}

func shapeOf(v []int64) shape {
	least, most := v[0], v[0]
	for _, x := range v {
		least = min(least, x)
		most = max(most, x)
	}
	return shapeBetween(v, least, most)
}

// shapeBetween is shapeOf for who knows the least and the greatest value.
func shapeBetween(v []int64, least, most int64) shape {
	s := shape{min: least, max: most}
	if len(v) == 1 {
		return s
	}
	prev := v[1]
	minDelta, maxDelta := v[1]-v[0], v[1]-v[0]
	for _, x := range v[2:] {
		d := x - prev
		prev = x
		minDelta = min(minDelta, d)
		maxDelta = max(maxDelta, d)
	}
	s.minDelta, s.maxDelta = minDelta, maxDelta
	return s
}

// appendPlain is append without the search for a divisor.
func (e *intEncoder) appendPlain(dst []byte, v []int64, s shape) []byte {
	if s.min == s.max || s.minDelta == s.maxDelta {
		return e.appendBasic(dst, v, s)
	}
	if seldomChanges(v) {
		if runs, ok := e.appendRuns(dst, v); ok {
			return runs
		}
	}
	if e.hist != nil {
		countSymbols(e.hist, v)
	}
	if e.code != nil {
		if cap(e.words) < len(v) {
			e.words = make([]uint32, len(v)+len(v)/4)
		}
		if size := e.code.plan(e.words[:len(v)], v); size*100 < s.basicSize(v)*95 {
			e.tries[1]++
			return e.code.append(dst, e.words, v)
		}
		e.tries[0]++
	}
	return e.appendBasic(dst, v, s)
}

// appendBasic appends v in the best of the modes 1 … 4.
func (e *intEncoder) appendBasic(dst []byte, v []int64, s shape) []byte {
	switch {
	case s.min == s.max:
		return binary.AppendVarint(append(dst, modeConst), s.min)
	case s.minDelta == s.maxDelta:
		dst = binary.AppendVarint(append(dst, modeStride), v[0])
		return binary.AppendVarint(dst, s.minDelta)
	case s.sizeFOR(len(v)) <= s.sizeDelta(v):
		return e.appendFOR(dst, v, s.min, s.widthFOR())
	}
	return e.appendDelta(dst, v, s.minDelta, s.widthDelta())
}

func (s *shape) widthFOR() uint   { return uint(bits.Len64(uint64(s.max) - uint64(s.min))) }
func (s *shape) widthDelta() uint { return uint(bits.Len64(uint64(s.maxDelta) - uint64(s.minDelta))) }

func (s *shape) sizeFOR(n int) int { return 2 + varintLen(s.min) + packedLen(n, s.widthFOR()) }

func (s *shape) sizeDelta(v []int64) int {
	return 2 + varintLen(v[0]) + varintLen(s.minDelta) + packedLen(len(v)-1, s.widthDelta())
}

// basicSize returns the bytes of v in the better of modeFOR and modeDelta.
func (s *shape) basicSize(v []int64) int { return min(s.sizeFOR(len(v)), s.sizeDelta(v)) }

// seldomChanges reports whether runs may pay, judged by the first values.
func seldomChanges(v []int64) bool {
	if len(v) < 16 {
		return false
	}
	changes := 0
	for i := 1; i < 16; i++ {
		if v[i] != v[i-1] {
			changes++
		}
	}
	return changes <= 1
}

// appendRuns appends v in modeRuns; false if it has too many runs for that to pay.
func (e *intEncoder) appendRuns(dst []byte, v []int64) ([]byte, bool) {
	most := min(maxRuns, len(v)/24+1)
	values, lengths := &e.runs[0], &e.runs[1]
	k := 0
	for start := 0; start < len(v); k++ {
		if k == most {
			return dst, false
		}
		end := start + 1
		for end < len(v) && v[end] == v[start] {
			end++
		}
		values[k], lengths[k] = v[start], int64(end-start)
		start = end
	}
	dst = append(dst, modeRuns)
	dst = binary.AppendUvarint(dst, uint64(k))
	dst = appendSized(dst, func(dst []byte) []byte { return e.appendBasic(dst, values[:k], shapeOf(values[:k])) })
	return e.appendBasic(dst, lengths[:k], shapeOf(lengths[:k])), true
}

func (e *intEncoder) appendFOR(dst []byte, v []int64, least int64, w uint) []byte {
	dst = append(dst, modeFOR, byte(w))
	dst = binary.AppendVarint(dst, least)
	off := e.room(len(v))
	for i, x := range v {
		off[i] = uint64(x - least)
	}
	return appendPacked(dst, off, w)
}

func (e *intEncoder) appendDelta(dst []byte, v []int64, least int64, w uint) []byte {
	dst = append(dst, modeDelta, byte(w))
	dst = binary.AppendVarint(dst, v[0])
	dst = binary.AppendVarint(dst, least)
	off := e.room(len(v))
	prev := v[0]
	for i, x := range v {
		off[i] = uint64(x - prev - least)
		prev = x
	}
	off = off[1:]
	return appendPacked(dst, off, w)
}

func (e *intEncoder) room(n int) []uint64 {
	if cap(e.offsets) < n {
		e.offsets = make([]uint64, n+n/4)
	}
	return e.offsets[:n]
}

// commonDivisor returns the greatest common divisor of all v[i]-base.
func commonDivisor(v []int64, base int64) uint64 {
	var g uint64
	var d divisor
	for _, x := range v {
		u := uint64(x - base)
		if u == 0 || g != 0 && d.divides(u) {
			continue
		}
		for a, b := u, g; ; a, b = b, a%b {
			if b == 0 {
				g = a
				break
			}
		}
		if g == 1 {
			return 1
		}
		d = newDivisor(g)
	}
	return g
}

// divisor divides multiples of g = odd << shift exactly by one multiplication
// with the inverse of odd modulo 2^64 (Granlund and Montgomery 1994, section 9).
type divisor struct {
	shift   uint
	inverse uint64
	limit   uint64 // the greatest quotient by odd
}

func newDivisor(g uint64) divisor {
	shift := uint(bits.TrailingZeros64(g))
	odd := g >> shift
	inv := odd // right in the low three bits; each Newton step doubles them
	for range 5 {
		inv *= 2 - odd*inv
	}
	return divisor{shift, inv, ^uint64(0) / odd}
}

func (d divisor) divides(u uint64) bool {
	return u&(1<<(d.shift&63)-1) == 0 && (u>>(d.shift&63))*d.inverse <= d.limit
}

func (d divisor) quotient(u uint64) uint64 { return (u >> (d.shift & 63)) * d.inverse }

// gcdPays reports whether dividing n values by g saves more than its header costs.
func gcdPays(g uint64, base int64, n int) bool {
	return (n-1)*(bits.Len64(g)-1) > 8*(1+uvarintLen(g)+varintLen(base))
}

func scaleDown(dst, v []int64, base int64, g uint64) []int64 {
	d := newDivisor(g)
	for _, x := range v {
		dst = append(dst, int64(d.quotient(uint64(x-base))))
	}
	return dst
}

func uvarintLen(x uint64) int { return (bits.Len64(x|1) + 6) / 7 }

func varintLen(x int64) int { return uvarintLen(uint64(x)<<1 ^ uint64(x>>63)) }

// decodeInts decodes src, the whole encoding of len(dst) values, at least one.
// dst must have room for huffSlack values more, which it overwrites; table is
// the Huffman code of the field or nil. Bytes up to the capacity of src may be loaded.
func decodeInts(dst []int64, src []byte, table *huffTable) error {
	if len(src) == 0 {
		return errTile
	}
	if src[0] != modeGCD {
		return decodePlain(dst, src, table)
	}
	r := reader{b: src[1:]}
	g, base := r.uvarint(), r.varint()
	if r.bad || len(r.b) == 0 || r.b[0] == modeGCD {
		return errTile
	}
	if err := decodePlain(dst, r.b, table); err != nil {
		return err
	}
	for i := range dst {
		dst[i] = dst[i]*int64(g) + base
	}
	return nil
}

func decodePlain(dst []int64, src []byte, table *huffTable) error {
	r := reader{b: src[1:]}
	switch src[0] {
	case modeConst:
		v := r.varint()
		fill(dst, v, 0)
		return r.end()
	case modeStride:
		first, step := r.varint(), r.varint()
		fill(dst, first, step)
		return r.end()
	case modeFOR:
		w, least := uint(r.byte()), r.varint()
		if r.bad || w > 64 || len(r.b) != packedLen(len(dst), w) {
			return errTile
		}
		unpack(dst, r.b, w, least)
		return nil
	case modeDelta:
		w, first, least := uint(r.byte()), r.varint(), r.varint()
		if r.bad || w > 64 || len(r.b) != packedLen(len(dst)-1, w) {
			return errTile
		}
		dst[0] = first
		unpackDeltas(dst[1:], r.b, w, first, least)
		return nil
	case modeHuff, modeHuffEscape:
		return decodeHuff(dst, src, table)
	case modeRuns:
		return decodeRuns(dst, &r)
	}
	return errTile
}

// decodeRuns decodes what follows modeRuns.
func decodeRuns(dst []int64, r *reader) error {
	k := r.uvarint()
	valueBytes := r.bytes(r.uvarint())
	if r.bad || k == 0 || k > maxRuns || len(valueBytes) == 0 || len(r.b) == 0 ||
		valueBytes[0] > modeDelta || r.b[0] > modeDelta {
		return errTile
	}
	var values, lengths [maxRuns + huffSlack]int64
	if err := decodePlain(values[:k], valueBytes, nil); err != nil {
		return err
	}
	if err := decodePlain(lengths[:k], r.b, nil); err != nil {
		return err
	}
	for i, n := range lengths[:k] {
		if n < 1 || n > int64(len(dst)) {
			return errTile
		}
		fill(dst[:n], values[i], 0)
		dst = dst[n:]
	}
	if len(dst) != 0 {
		return errTile
	}
	return nil
}

// fill writes first, first+step, … modulo 2^64.
func fill(dst []int64, first, step int64) {
	for i := range dst {
		dst[i] = first
		first += step
	}
}

// reader takes varints and bytes off the front of b. After the first that is
// missing or malformed, bad is set and everything reads as zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uint64() uint64 {
	b := r.bytes(8)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

// bytes takes n bytes; nil if there are not so many. The capacity of the
// result reaches on, for wide loads.
func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

// end reports an error if something was malformed or is left over.
func (r *reader) end() error {
	if r.bad || len(r.b) != 0 {
		return errTile
	}
	return nil
}
