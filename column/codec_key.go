package column

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// append appends the keys, each as its difference from the one before. Keys of
// one measurement mostly differ in a few tag values, so the difference is
// taken tag by tag: copy what is equal, write what is new up to the next comma,
// go on after that comma in both.
func (k *Keys) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(k.Len()))
	var before []byte
	for i := range k.Len() {
		key := k.At(i)
		dst = appendKey(dst, key, before)
		before = key
	}
	return dst
}

func appendKey(dst, key, before []byte) []byte {
	for {
		same := sharedPrefix(key, before)
		key, before = key[same:], before[same:]
		end, next := bytes.IndexByte(key, ','), bytes.IndexByte(before, ',')
		if end < 0 || next < 0 {
			dst = binary.AppendUvarint(dst, uint64(same)<<1|1)
			return appendBytes(dst, key)
		}
		dst = binary.AppendUvarint(dst, uint64(same)<<1)
		dst = appendBytes(dst, key[:end])
		key, before = key[end:], before[next:]
	}
}

// sharedPrefix returns how many bytes a and b have in common at their start.
func sharedPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// keyTable reads the keys that Keys.append wrote.
func (r *reader) keyTable(k *Keys) {
	k.Bytes, k.Ends = k.Bytes[:0], k.Ends[:0]
	n := r.count(minKeyBytes, MaxEntryRows)
	if n == 0 {
		r.fail("no series")
	}
	start := 0
	for i := 0; i < n && r.err == nil; i++ {
		end := len(k.Bytes)
		k.Bytes = r.key(k.Bytes, start, end)
		k.Ends = append(k.Ends, uint32(len(k.Bytes)))
		start = end
	}
}

// key appends one key to arena; the key before it is arena[at:end].
func (r *reader) key(arena []byte, at, end int) []byte {
	for {
		head := r.uvarint()
		same := head >> 1
		literal := r.bytes()
		if r.err != nil {
			return arena
		}
		if same > uint64(end-at) {
			r.fail("key shares %d bytes of %d", same, end-at)
			return arena
		}
		if r.keys += int(same) + len(literal); r.keys > MaxEntryKeys {
			r.fail("keys of %d bytes", r.keys)
			return arena
		}
		arena = append(arena, arena[at:at+int(same)]...)
		arena = append(arena, literal...)
		if head&1 != 0 {
			return arena
		}
		at += int(same)
		next := bytes.IndexByte(arena[at:end], ',')
		if next < 0 {
			r.fail("key goes on after the end of the one before it")
			return arena
		}
		at += next
	}
}
