package series

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// arena keeps byte strings numbered from 1 in chunks that never move, so that
// a copy of the struct stays readable while the original grows.
type arena struct {
	chunks [][]byte
	used   int      // bytes of the last chunk
	pos    []uint64 // number-1 → chunk<<32 | offset, noString: a number without string
	size   int64    // bytes of all chunks
}

const (
	noString      = ^uint64(0)
	minArenaChunk = 2 << 10
	maxArenaChunk = 1 << 20
)

// len returns the highest number.
func (a *arena) len() int { return len(a.pos) }

// at returns string n; it aliases the arena and must not be changed.
func (a *arena) at(n uint32) []byte {
	p := a.pos[n-1]
	if p == noString {
		return nil
	}
	b := a.chunks[p>>32][uint32(p):]
	if l := int(b[0]); l < 0x80 {
		return b[1 : 1+l : 1+l]
	}
	l, w := binary.Uvarint(b)
	return b[w : w+int(l) : w+int(l)]
}

// add appends a copy of s and returns its number.
func (a *arena) add(s []byte) uint32 {
	need := len(s) + binary.MaxVarintLen32
	if len(a.chunks) == 0 || a.used+need > len(a.chunks[len(a.chunks)-1]) {
		size := min(minArenaChunk<<min(len(a.chunks), 16), maxArenaChunk)
		a.chunks = append(a.chunks, make([]byte, max(size, need)))
		a.used = 0
		a.size += int64(max(size, need))
	}
	last := len(a.chunks) - 1
	a.pos = append(a.pos, uint64(last)<<32|uint64(a.used))
	b := a.chunks[last][a.used:]
	w := binary.PutUvarint(b, uint64(len(s)))
	a.used += w + copy(b[w:], s)
	return uint32(len(a.pos))
}

// skip leaves n numbers without a string.
func (a *arena) skip(n int) {
	for range n {
		a.pos = append(a.pos, noString)
	}
}

// table is a set of byte strings numbered in order of insertion: an arena and
// an open-addressing hash table over it. The hash is keyed at random, so that
// no client can choose colliding keys; numbers do not depend on it.
type table struct {
	arena arena
	seed  maphash.Seed
	slots []uint64 // hash<<32 | number; 0: free. The home of a hash is its top bits
	taken int      // slots that are not free
}

// removed is the number in the slot of a removed string.
const removed = uint64(1<<32 - 1)

func newTable() table { return table{seed: maphash.MakeSeed()} }

func (t *table) len() int { return t.arena.len() }

func (t *table) hash(s []byte) uint32 { return uint32(maphash.Bytes(t.seed, s) >> 32) }

// home returns the slot where the search for a hash begins.
func (t *table) home(hash uint32) int {
	return int(hash >> (32 - uint(bits.TrailingZeros(uint(len(t.slots))))))
}

// find returns the number of s, 0 if it is not in the set.
func (t *table) find(s []byte) uint32 { return t.findHash(s, t.hash(s)) }

func (t *table) findHash(s []byte, hash uint32) uint32 {
	if len(t.slots) == 0 {
		return 0
	}
	mask := len(t.slots) - 1
	for i := t.home(hash); t.slots[i] != 0; i = (i + 1) & mask {
		slot := t.slots[i]
		if uint32(slot>>32) == hash && slot&removed != removed && bytes.Equal(t.arena.at(uint32(slot)), s) {
			return uint32(slot)
		}
	}
	return 0
}

// insert returns the number of s and whether it is new.
func (t *table) insert(s []byte) (uint32, bool) {
	hash := t.hash(s)
	if n := t.findHash(s, hash); n != 0 {
		return n, false
	}
	return t.addHash(s, hash), true
}

// addHash adds a string that is not in the set.
func (t *table) addHash(s []byte, hash uint32) uint32 {
	if (t.taken+1)*4 > len(t.slots)*3 {
		t.grow()
	}
	n := t.arena.add(s)
	t.put(uint64(hash)<<32 | uint64(n))
	t.taken++
	return n
}

func (t *table) put(slot uint64) {
	mask := len(t.slots) - 1
	i := t.home(uint32(slot >> 32))
	for t.slots[i] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = slot
}

// grow doubles the slots, or clears out removed ones if they are many.
func (t *table) grow() {
	old, live := t.slots, 0
	for _, slot := range old {
		if slot != 0 && slot&removed != removed {
			live++
		}
	}
	size := max(16, len(old))
	for (live+1)*2 > size {
		size *= 2
	}
	t.slots, t.taken = make([]uint64, size), live
	for _, slot := range old {
		if slot != 0 && slot&removed != removed {
			t.put(slot)
		}
	}
}

// remove takes string n out of the set; its number is not given again and at still returns it.
func (t *table) remove(n uint32) {
	hash := t.hash(t.arena.at(n))
	mask := len(t.slots) - 1
	for i := t.home(hash); t.slots[i] != 0; i = (i + 1) & mask {
		if uint32(t.slots[i]) == n {
			t.slots[i] |= removed
			return
		}
	}
}
