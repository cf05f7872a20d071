package lineproto

import (
	"bytes"
	"hash/maphash"
	"math"
)

// maxKeyLength bounds a series key, and a series key with a field name and
// the four bytes between them (InfluxDB 1.x, models/points.go).
const maxKeyLength = 65535

const noEntry = math.MaxUint32

// prefix is one spelling of measurement and tags as it stood in a body.
type prefix struct {
	off, n uint32 // in the arena
	series uint32 // index into seriesCache.series
	next   uint32 // the prefix that followed last time
	slow   bool   // forbidden, long, or with a newline: slowLine must look at its lines
}

// knownSeries is one canonical series key. Its ordinal in the key table of the
// current batch holds if gen is that of its table.
type knownSeries struct {
	off, n  uint32 // the canonical key in the arena
	table   int32
	gen     uint32
	ordinal uint32
	timeTag bool // has a tag named time, which InfluxDB refuses
}

// seriesCache maps raw prefixes to series. It outlives the batch, so that a
// sender's series are split and sorted once; the Parser empties it when it has
// grown too large.
type seriesCache struct {
	seed     maphash.Seed
	arena    []byte
	prefixes []prefix
	series   []knownSeries
	byPrefix hashIndex
	byKey    hashIndex
	last     uint32 // the prefix of the previous line
}

func newSeriesCache() seriesCache {
	return seriesCache{seed: maphash.MakeSeed(), last: noEntry}
}

// predicted returns the prefix that followed the previous line's last time.
func (s *seriesCache) predicted() (uint32, bool) {
	if s.last == noEntry {
		return 0, false
	}
	n := s.prefixes[s.last].next
	return n, n != noEntry
}

// visit records that a line has prefix e.
func (s *seriesCache) visit(e uint32) {
	if s.last != noEntry {
		s.prefixes[s.last].next = e
	}
	s.last = e
}

// find returns the entry of a raw prefix.
func (s *seriesCache) find(raw []byte, hash uint64) (uint32, bool) {
	return s.byPrefix.find(hash, func(i uint32) bool {
		p := &s.prefixes[i]
		return string(s.arena[p.off:p.off+p.n]) == string(raw)
	})
}

// findSeries returns the series of a canonical key.
func (s *seriesCache) findSeries(key []byte, hash uint64) (uint32, bool) {
	return s.byKey.find(hash, func(i uint32) bool {
		e := &s.series[i]
		return string(s.arena[e.off:e.off+e.n]) == string(key)
	})
}

// addSeries enters a canonical key that is not there.
func (s *seriesCache) addSeries(key []byte, hash uint64, table int32, timeTag bool) uint32 {
	k := uint32(len(s.series))
	s.series = append(s.series, knownSeries{
		off: uint32(len(s.arena)), n: uint32(len(key)), table: table, timeTag: timeTag,
	})
	s.arena = append(s.arena, key...)
	s.byKey.add(hash, k)
	return k
}

// addPrefix enters a raw prefix of series k that is not there. A prefix that is
// its own canonical key shares the bytes.
func (s *seriesCache) addPrefix(raw []byte, hash uint64, k uint32, same bool) uint32 {
	e := uint32(len(s.prefixes))
	known := &s.series[k]
	p := prefix{off: known.off, n: uint32(len(raw)), series: k, next: noEntry}
	p.slow = known.timeTag || len(raw) > maxKeyLength/2 || bytes.IndexByte(raw, '\n') >= 0
	if !same {
		p.off = uint32(len(s.arena))
		s.arena = append(s.arena, raw...)
	}
	s.prefixes = append(s.prefixes, p)
	s.byPrefix.add(hash, e)
	return e
}

// size returns the bytes that the cache holds.
func (s *seriesCache) size() int {
	return cap(s.arena) + 20*cap(s.prefixes) + 24*cap(s.series) + s.byPrefix.size() + s.byKey.size()
}

// hashIndex finds numbers by hash: open addressing with linear probing. Whoever
// asks compares what the number stands for.
type hashIndex struct {
	slots []hashSlot // a power of two, at most half full
	used  int
}

type hashSlot struct {
	hash  uint32
	index uint32 // plus one; 0: free
}

func (h *hashIndex) find(hash uint64, equal func(uint32) bool) (uint32, bool) {
	if len(h.slots) == 0 {
		return 0, false
	}
	mask := len(h.slots) - 1
	for at := int(uint32(hash)) & mask; ; at = (at + 1) & mask {
		slot := h.slots[at]
		if slot.index == 0 {
			return 0, false
		}
		if slot.hash == uint32(hash) && equal(slot.index-1) {
			return slot.index - 1, true
		}
	}
}

func (h *hashIndex) add(hash uint64, index uint32) {
	if 2*h.used >= len(h.slots) {
		old := h.slots
		h.slots = make([]hashSlot, max(64, 2*len(old)))
		for _, s := range old {
			if s.index != 0 {
				h.put(s)
			}
		}
	}
	h.used++
	h.put(hashSlot{uint32(hash), index + 1})
}

func (h *hashIndex) put(s hashSlot) {
	mask := len(h.slots) - 1
	at := int(s.hash) & mask
	for h.slots[at].index != 0 {
		at = (at + 1) & mask
	}
	h.slots[at] = s
}

func (h *hashIndex) size() int { return 8 * len(h.slots) }
