package segment

import (
	"encoding/binary"
	"slices"
	"sync"
)

// The Huffman stage codes the differences between neighbours of a tile with a
// code that all tiles of a field share, so that a tile of some hundred rows
// pays neither for a table nor for building one. The symbol of a difference d
// is its zigzag form if that is below 255; symbol 255 is an escape whose
// difference follows in a list of varints. Codes have at most 11 bits and are
// stored least significant bit first.
const (
	huffSymbols = 256
	huffEscape  = 255
	huffBits    = 11
	huffLookups = 5               // that fit the 57 bits of a load
	huffSlack   = 7 * huffLookups // values that the decoder may write past the end of a tile
)

// huffCode is a code as an encoder uses it.
type huffCode struct {
	id      uint32 // among the tables of the file, from 0
	lengths [huffSymbols]uint8
	words   [huffSymbols]uint32 // bit-reversed code, its length from bit wordLength, and wordEscape
	used    bool                // by a chunk
}

// The parts of huffCode.words.
const (
	wordLength = 16
	wordEscape = 1 << 24 // the code is that of the escape
)

func symbolOf(d int64) uint64 {
	return min(uint64(d)<<1^uint64(d>>63), huffEscape)
}

// countSymbols adds the symbols of the differences of v to hist.
func countSymbols(hist *[huffSymbols]uint32, v []int64) {
	prev := v[0]
	for _, x := range v[1:] {
		hist[symbolOf(x-prev)]++
		prev = x
	}
}

// newHuffCode makes the code for symbols of the given frequencies. A symbol
// that does not occur gets none, except the escape.
func newHuffCode(id uint32, hist *[huffSymbols]uint32) *huffCode {
	c := &huffCode{id: id, lengths: codeLengths(hist)}
	for s, code := range canonicalCodes(&c.lengths) {
		c.words[s] = uint32(code) | uint32(c.lengths[s])<<wordLength
	}
	c.words[huffEscape] |= wordEscape
	for s, l := range c.lengths {
		if l == 0 {
			c.words[s] = c.words[huffEscape]
		}
	}
	return c
}

// codeLengths returns the lengths, at most huffBits, of a complete prefix code
// of at least two symbols.
func codeLengths(hist *[huffSymbols]uint32) (lengths [huffSymbols]uint8) {
	type symbol struct {
		count uint64
		sym   int
	}
	var used []symbol
	for s, n := range hist {
		if n > 0 || s == huffEscape || s == 0 {
			used = append(used, symbol{max(uint64(n), 1), s})
		}
	}
	slices.SortFunc(used, func(a, b symbol) int {
		if a.count != b.count {
			return int(min(max(int64(a.count)-int64(b.count), -1), 1))
		}
		return a.sym - b.sym
	})
	// Two queues: the leaves, sorted, and the inner nodes in the order they arise.
	n := len(used)
	weight := make([]uint64, 0, 2*n)
	for _, u := range used {
		weight = append(weight, u.count)
	}
	parent := make([]int, 2*n)
	leaf, inner := 0, n
	take := func() int {
		if leaf < n && (inner >= len(weight) || weight[leaf] <= weight[inner]) {
			leaf++
			return leaf - 1
		}
		inner++
		return inner - 1
	}
	for len(weight) < 2*n-1 {
		a := take()
		b := take()
		parent[a], parent[b] = len(weight), len(weight)
		weight = append(weight, weight[a]+weight[b])
	}
	depth := make([]int, 2*n)
	for i := 2*n - 3; i >= 0; i-- {
		depth[i] = depth[parent[i]] + 1
	}
	limitDepths(depth[:n])
	for i, u := range used {
		lengths[u.sym] = uint8(depth[i])
	}
	return lengths
}

// limitDepths changes the depths of leaves, rarest first, to at most huffBits
// such that they still fill the code space exactly.
func limitDepths(depth []int) {
	const full = 1 << huffBits
	space := 0
	for i := range depth {
		depth[i] = min(depth[i], huffBits)
		space += full >> depth[i]
	}
	for i := 0; space > full; i = (i + 1) % len(depth) {
		for depth[i] < huffBits && space > full {
			depth[i]++
			space -= full >> depth[i]
		}
	}
	for i := len(depth) - 1; i >= 0; i-- {
		for depth[i] > 1 && space+full>>depth[i] <= full {
			space += full >> depth[i]
			depth[i]--
		}
	}
}

// canonicalCodes assigns codes in order of (length, symbol) and reverses their bits.
func canonicalCodes(lengths *[huffSymbols]uint8) (codes [huffSymbols]uint16) {
	next := uint16(0)
	for l := uint8(1); l <= huffBits; l++ {
		for s := range lengths {
			if lengths[s] != l {
				continue
			}
			var rev uint16
			for b := range l {
				rev |= next >> b & 1 << (l - 1 - b)
			}
			codes[s] = rev
			next++
		}
		next <<= 1
	}
	return codes
}

// plan looks up the code words of the differences of v in words, which has as
// many elements as v, and returns the bytes that append will add.
func (c *huffCode) plan(words []uint32, v []int64) int {
	total, all := uint32(0), uint32(0)
	prev := v[0]
	words = words[:len(v)]
	for i, x := range v {
		w := c.words[symbolOf(x-prev)]
		prev = x
		words[i] = w
		total += w >> wordLength & 15
		all |= w
	}
	total -= words[0] >> wordLength & 15 // the first value is stored as it is
	size := 1 + varintLen(v[0]) + int(total+7)/8
	if all&wordEscape == 0 {
		return size
	}
	escapes := 0
	for i := 1; i < len(v); i++ {
		if words[i]&wordEscape != 0 {
			escapes += varintLen(v[i] - v[i-1])
		}
	}
	return size + escapes + uvarintLen(uint64(escapes))
}

// append appends v, at least two values, with the words that plan has found, in
// modeHuff or modeHuffEscape.
func (c *huffCode) append(dst []byte, words []uint32, v []int64) []byte {
	mode := len(dst)
	dst = binary.AppendVarint(append(dst, modeHuff), v[0])
	words = words[1:len(v)]
	if escapes := escapesOf(words, v); len(escapes) > 0 {
		dst[mode] = modeHuffEscape
		dst = binary.AppendUvarint(dst, uint64(len(escapes)))
		dst = append(dst, escapes...)
	}
	start := len(dst)
	dst = grow(dst, packedLen(len(v), huffBits)+8)
	out := dst[start:]
	var acc uint64
	var nbits uint
	p := 0
	for _, w := range words {
		acc |= uint64(w&(1<<huffBits-1)) << (nbits & 63)
		nbits += uint(w >> wordLength & 15)
		if nbits >= 48 {
			binary.LittleEndian.PutUint64(out[p:], acc)
			p += 6
			acc >>= 48
			nbits -= 48
		}
	}
	binary.LittleEndian.PutUint64(out[p:], acc)
	return dst[:start+p+int(nbits+7)/8]
}

// escapesOf returns the differences that are escaped as varints.
func escapesOf(words []uint32, v []int64) (list []byte) {
	for i, w := range words {
		if w&wordEscape != 0 {
			list = binary.AppendVarint(list, v[i+1]-v[i])
		}
	}
	return list
}

// appendLengths appends the code lengths as bytes length<<4 | repeats-1.
func (c *huffCode) appendLengths(dst []byte) []byte {
	for s := 0; s < huffSymbols; {
		run := 1
		for s+run < huffSymbols && run < 16 && c.lengths[s+run] == c.lengths[s] {
			run++
		}
		dst = append(dst, c.lengths[s]<<4|byte(run-1))
		s += run
	}
	return dst
}

// decodeLengths reads what appendLengths wrote and checks that it is a prefix code.
func decodeLengths(src []byte) (lengths [huffSymbols]uint8, err error) {
	s, space := 0, 0
	for _, b := range src {
		l, run := b>>4, int(b&15)+1
		if l > huffBits || s+run > huffSymbols {
			return lengths, errTile
		}
		for range run {
			lengths[s] = l
			s++
		}
		if l > 0 {
			space += run << (huffBits - l)
		}
	}
	if s != huffSymbols || space > 1<<huffBits {
		return lengths, errTile
	}
	return lengths, nil
}

// huffTable decodes up to seven symbols by one look-up. Slot i describes the
// symbols whose codes lie entirely within the 11 bits of i: the bits that they
// take in bits 0 … 3, their number in bits 4 … 6, and in bytes 1 … 7 the
// running sums of their differences, each within an int8, the last one repeated
// up to byte 7. A slot of no symbol is an escape if it takes bits and invalid if not.
type huffTable [1 << huffBits]uint64

// lazyTable builds the table of a code when a tile first needs it.
type lazyTable struct {
	lengths [huffSymbols]uint8
	once    sync.Once
	table   *huffTable
}

func (t *lazyTable) get() *huffTable {
	t.once.Do(func() { t.table = newHuffTable(&t.lengths) })
	return t.table
}

func newHuffTable(lengths *[huffSymbols]uint8) *huffTable {
	var single [1 << huffBits]struct{ sym, bits uint8 }
	codes := canonicalCodes(lengths)
	for s, l := range lengths {
		if l == 0 {
			continue
		}
		for i := int(codes[s]); i < len(single); i += 1 << l {
			single[i].sym, single[i].bits = uint8(s), l
		}
	}
	t := new(huffTable)
	for i := range t {
		used, count, sum := 0, 0, 0
		slot := uint64(0)
		for count < 7 {
			e := single[i>>used]
			if e.bits == 0 || used+int(e.bits) > huffBits {
				break
			}
			if e.sym == huffEscape {
				if count == 0 {
					used = int(e.bits)
				}
				break
			}
			sum += int(e.sym>>1) ^ -int(e.sym&1)
			if sum != int(int8(sum)) {
				break
			}
			used += int(e.bits)
			count++
			slot = slot&(1<<(8*count)-1) | uint64(uint8(sum))*0x0101010101010101<<(8*count)
		}
		t[i] = slot | uint64(count)<<4 | uint64(used)
	}
	return t
}

// decodeHuff decodes a tile of mode modeHuff or modeHuffEscape.
func decodeHuff(dst []int64, src []byte, table *huffTable) error {
	r := reader{b: src[1:]}
	first := r.varint()
	var escapes reader
	if src[0] == modeHuffEscape {
		escapes.b = r.bytes(r.uvarint())
	}
	if r.bad || table == nil {
		return errTile
	}
	n := len(dst)
	out := dst[:n+huffSlack]
	out[0] = first
	in := r.b[:cap(r.b)]
	run := huffRun{i: 1, n: n, end: 8 * len(r.b), v: first}
	for {
		run.decode(out, in, table)
		if run.i >= n {
			return nil
		}
		if run.pos >= run.end {
			return errTile
		}
		// An escape is next, an invalid code, or the last bytes, which a wide load would pass.
		slot := table[bitsAt(in, run.pos, huffBits)]
		if slot&slotCount == 0 {
			run.v += escapes.varint()
			if slot&slotBits == 0 || escapes.bad {
				return errTile
			}
			out[run.i] = run.v
			run.i++
			run.pos += int(slot & slotBits)
			continue
		}
		run.put(out, slot)
	}
}

// The parts of a slot of a huffTable.
const (
	slotBits  = 15
	slotCount = 7 << 4
)

// huffRun is how far a tile is decoded.
type huffRun struct {
	i, n     int // values decoded and wanted; i may come out greater than n
	pos, end int // bits read and there are
	v        int64
}

// put writes the symbols of one slot.
func (h *huffRun) put(out []int64, slot uint64) {
	d := out[h.i : h.i+7]
	for k := range d {
		d[k] = h.v + int64(int8(slot>>(8+8*k)))
	}
	h.v = d[6]
	h.i += int(slot & slotCount >> 4)
	h.pos += int(slot & slotBits)
}

// decode decodes until there are enough values, or the next code is an escape
// or invalid, or fewer than eight bytes are left for a load. It is apart from
// what handles those cases so that its state stays in registers.
func (h *huffRun) decode(out []int64, in []byte, table *huffTable) {
	i, pos, v, end := h.i, h.pos, h.v, h.end
loop:
	for n := h.n; i < n; {
		p := pos >> 3
		if p+8 > len(in) || pos >= end {
			break
		}
		word := binary.LittleEndian.Uint64(in[p:]) >> (uint(pos) & 7)
		for range huffLookups {
			slot := table[word&(1<<huffBits-1)]
			if slot&slotCount == 0 {
				break loop
			}
			word >>= slot & slotBits
			pos += int(slot & slotBits)
			d := (*[7]int64)(out[i:])
			d[0] = v + int64(int8(slot>>8))
			d[1] = v + int64(int8(slot>>16))
			d[2] = v + int64(int8(slot>>24))
			d[3] = v + int64(int8(slot>>32))
			d[4] = v + int64(int8(slot>>40))
			d[5] = v + int64(int8(slot>>48))
			v += int64(slot) >> 56
			d[6] = v
			i += int(slot & slotCount >> 4)
		}
	}
	h.i, h.pos, h.v = i, pos, v
}
