package segment

import (
	"encoding/binary"

	"github.com/klauspost/compress/s2"
)

// Modes of string tiles. Lengths and codes are integer tiles with their size before them.
const (
	modeDict       = 48 // uvarint entries, lengths of the entries, their bytes, codes
	modeBytes      = 49 // lengths, bytes
	modeCompressed = 50 // lengths, bytes as one s2 block
)

// maxStringTile bounds the bytes of the strings of one tile; a Writer takes no more than that of a series.
const maxStringTile = 1 << 30

// maxExpansion bounds how many bytes one byte of a compressed block stands for.
const maxExpansion = 1 << 16

// stringEncoder holds the scratch space of the string codec.
type stringEncoder struct {
	lengths, codes []int64
	entries        map[string]int64
	dict           []byte
	dictLengths    []int64
	alt, packed    []byte
}

// maxDict bounds the entries of a dictionary: with more it does not pay in a tile.
const maxDict = 256

// append appends the shortest encoding of n strings, at least one; str returns
// the i-th and is asked in order, possibly twice.
func (e *stringEncoder) append(dst []byte, n int, str func(i int) []byte, ie *intEncoder) []byte {
	start := len(dst)
	if e.toDict(n, str) {
		dst = append(dst, modeDict)
		dst = binary.AppendUvarint(dst, uint64(len(e.dictLengths)))
		dst = e.appendSized(dst, e.dictLengths, ie)
		dst = append(dst, e.dict...)
		dst = e.appendSized(dst, e.codes, ie)
		if len(e.dictLengths) == 1 {
			return dst
		}
	}
	e.lengths, e.packed = e.lengths[:0], e.packed[:0]
	for i := range n {
		s := str(i)
		e.lengths = append(e.lengths, int64(len(s)))
		e.packed = append(e.packed, s...)
	}
	e.alt = e.appendSized(append(e.alt[:0], modeBytes), e.lengths, ie)
	head := len(e.alt)
	e.alt = append(e.alt, e.packed...)
	if len(dst) == start {
		dst = append(dst, e.alt...)
	} else {
		dst = shorter(dst, start, e.alt)
	}
	if len(e.packed) < 64 || len(dst)-start < 64 {
		return dst
	}
	e.alt = grow(e.alt[:head], s2.MaxEncodedLen(len(e.packed)))
	block := s2.EncodeBetter(e.alt[head:], e.packed)
	e.alt = e.alt[:head+len(block)]
	e.alt[0] = modeCompressed
	if len(e.packed)/maxExpansion > len(block) {
		return dst
	}
	return shorter(dst, start, e.alt)
}

// appendSized appends an integer tile with its size in front.
func (e *stringEncoder) appendSized(dst []byte, v []int64, ie *intEncoder) []byte {
	return appendSized(dst, func(dst []byte) []byte { return ie.append(dst, v) })
}

// appendSized appends what enc appends, and its length as a uvarint in front.
func appendSized(dst []byte, enc func([]byte) []byte) []byte {
	start := len(dst)
	dst = enc(dst)
	size := len(dst) - start
	head := uvarintLen(uint64(size))
	dst = grow(dst, head)
	copy(dst[start+head:], dst[start:start+size])
	binary.PutUvarint(dst[start:], uint64(size))
	return dst
}

// toDict fills dict and codes unless there are too many distinct strings.
func (e *stringEncoder) toDict(n int, str func(i int) []byte) bool {
	if e.entries == nil {
		e.entries = make(map[string]int64)
	}
	clear(e.entries)
	e.codes, e.dict, e.dictLengths = e.codes[:0], e.dict[:0], e.dictLengths[:0]
	for i := range n {
		s := str(i)
		code, ok := e.entries[string(s)]
		if !ok {
			code = int64(len(e.dictLengths))
			if code == maxDict || code > int64(8+n/2) {
				return false
			}
			e.entries[string(s)] = code
			e.dict = append(e.dict, s...)
			e.dictLengths = append(e.dictLengths, int64(len(s)))
		}
		e.codes = append(e.codes, code)
	}
	return true
}

// decodeStrings decodes src, the whole encoding of n strings, at least one.
// It returns bytes and the n+1 offsets appended to offsets[:0]; ints is scratch
// for n values and the slack of decodeInts.
func decodeStrings(offsets []uint32, bytes []byte, n int, ints []int64, src []byte) ([]uint32, []byte, error) {
	offsets, bytes = offsets[:0], bytes[:0]
	if len(src) == 0 {
		return offsets, bytes, errTile
	}
	r := reader{b: src[1:]}
	switch src[0] {
	case modeDict:
		return decodeDict(offsets, bytes, n, ints, &r)
	case modeBytes, modeCompressed:
		offsets, err := readOffsets(offsets, n, ints, &r)
		if err != nil {
			return offsets, bytes, err
		}
		total := int(offsets[n])
		if src[0] == modeBytes {
			if len(r.b) != total {
				return offsets, bytes, errTile
			}
			return offsets, append(bytes, r.b...), nil
		}
		bytes, err = decompress(bytes, r.b, total)
		return offsets, bytes, err
	}
	return offsets, bytes, errTile
}

// decompress decodes an s2 block that must hold exactly total bytes. A block
// cannot expand more than some thousandfold, which bounds what is allocated.
func decompress(dst, src []byte, total int) ([]byte, error) {
	size, err := s2.DecodedLen(src)
	if err != nil || size != total || total/maxExpansion > len(src) {
		return dst, errTile
	}
	dst, err = s2.Decode(grow(dst[:0], total)[:total:total], src)
	if err != nil {
		return dst, errTile
	}
	return dst, nil
}

// readOffsets reads n lengths and returns them as n+1 offsets.
func readOffsets(offsets []uint32, n int, ints []int64, r *reader) ([]uint32, error) {
	lengths := r.bytes(r.uvarint())
	if r.bad {
		return offsets, errTile
	}
	if err := decodeInts(ints[:n], lengths, nil); err != nil {
		return offsets, err
	}
	total := int64(0)
	offsets = append(offsets, 0)
	for _, l := range ints[:n] {
		if l < 0 || l > maxStringTile || total+l > maxStringTile {
			return offsets, errTile
		}
		total += l
		offsets = append(offsets, uint32(total))
	}
	return offsets, nil
}

func decodeDict(offsets []uint32, bytes []byte, n int, ints []int64, r *reader) ([]uint32, []byte, error) {
	entries := r.uvarint()
	if r.bad || entries == 0 || entries > maxDict || entries > uint64(n) {
		return offsets, bytes, errTile
	}
	var ends [maxDict + 1]uint32
	dictEnds, err := readOffsets(ends[:0], int(entries), ints, r)
	if err != nil {
		return offsets, bytes, err
	}
	dict := r.bytes(uint64(dictEnds[entries]))
	codes := r.bytes(r.uvarint())
	if r.bad || len(r.b) != 0 {
		return offsets, bytes, errTile
	}
	if err := decodeInts(ints[:n], codes, nil); err != nil {
		return offsets, bytes, err
	}
	offsets = append(offsets, 0)
	for _, c := range ints[:n] {
		if uint64(c) >= entries {
			return offsets, bytes, errTile
		}
		bytes = append(bytes, dict[dictEnds[c]:dictEnds[c+1]]...)
		if len(bytes) > maxStringTile {
			return offsets, bytes, errTile
		}
		offsets = append(offsets, uint32(len(bytes)))
	}
	return offsets, bytes, nil
}
