package raftnode

import (
	"errors"
	"fmt"
	"math/bits"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// LogReader is the part of the node's log that a raft group reads.
type LogReader interface {
	// State returns the state of the group's log, false if the log does not know the group.
	State(g dsdb.GroupID) (wal.GroupState, bool)
	// Removed returns the highest id that a replica of the group cannot have any more:
	// up to there all have left the node, or would be older than those that have.
	Removed(g dsdb.GroupID) dsdb.ReplicaID
	// Bounds returns the indexes of the first and the last entry; last is first-1 if there are none.
	Bounds(g dsdb.GroupID) (first, last uint64)
	// Term returns the term of an entry or of the truncated position. It reports
	// wal.ErrCompacted below that and wal.ErrUnavailable above the last entry.
	Term(g dsdb.GroupID, index uint64) (uint64, error)
	// Marked returns the indexes of the entries of a Kind that is not 0, ascending.
	Marked(g dsdb.GroupID) []uint64
	// Keep returns the lowest index from which on the entries up to and including
	// index take at most maxBytes in the log.
	Keep(g dsdb.GroupID, index uint64, maxBytes int64) uint64
	// Entries appends the entries [lo, hi) to dst, at least one and then no more
	// than maxBytes of data.
	Entries(g dsdb.GroupID, lo, hi, maxBytes uint64, dst []wal.Entry) ([]wal.Entry, error)
}

// The bytes of applied entries that one group keeps in memory for followers
// that are a little behind, and the bytes of all entries beyond which a group
// gives up even those it has yet to apply and reads them back from the log.
const (
	cacheApplied = 4 << 20
	cacheLimit   = 64 << 20
)

// storage is the durable log of one group as the raft library reads it: what
// the node's log holds, with the newest entries cached. It runs on the group's
// worker. It knows an append only once the core was told that it is done; the
// log may be ahead of it, but only with entries that raft overlays by its own
// unstable ones.
type storage struct {
	group     dsdb.GroupID
	log       LogReader
	hard      raftpb.HardState
	conf      *raftpb.ConfState // what raft starts with
	snapshot  func() (*raftpb.Snapshot, error)
	truncated wal.Position // entries up to and including it are gone
	last      uint64
	applied   uint64

	cache      []*raftpb.Entry // the newest entries, contiguous, ending at last; may be empty
	cacheBytes uint64          // of their data
}

// InitialState implements raft.Storage.
func (s *storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return &s.hard, s.conf, nil
}

// FirstIndex implements raft.Storage.
func (s *storage) FirstIndex() (uint64, error) { return s.truncated.Index + 1, nil }

// LastIndex implements raft.Storage.
func (s *storage) LastIndex() (uint64, error) { return s.last, nil }

// Snapshot implements raft.Storage.
func (s *storage) Snapshot() (*raftpb.Snapshot, error) { return s.snapshot() }

// Term implements raft.Storage.
func (s *storage) Term(i uint64) (uint64, error) {
	switch {
	case i < s.truncated.Index:
		return 0, raft.ErrCompacted
	case i == s.truncated.Index:
		return s.truncated.Term, nil
	case i > s.last:
		return 0, raft.ErrUnavailable
	}
	if first := s.cacheFirst(); i >= first {
		return s.cache[i-first].GetTerm(), nil
	}
	term, err := s.log.Term(s.group, i)
	return term, s.readError(i, err)
}

// Entries implements raft.Storage.
func (s *storage) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	if lo <= s.truncated.Index {
		return nil, raft.ErrCompacted
	}
	if hi > s.last+1 {
		return nil, raft.ErrUnavailable
	}
	first := s.cacheFirst()
	if lo >= first {
		n := limitEntries(s.cache[lo-first:hi-first], maxSize)
		return append([]*raftpb.Entry(nil), s.cache[lo-first:][:n]...), nil
	}
	read, err := s.log.Entries(s.group, lo, min(hi, first), maxSize, nil)
	if err != nil {
		return nil, s.readError(lo, err)
	}
	ents := raftEntries(read)
	if len(ents) == 0 {
		return nil, fmt.Errorf("group %d: the log returned no entry at %d", s.group, lo)
	}
	return ents[:limitEntries(ents, maxSize)], nil
}

// readError translates an error of the log. Whatever is not about bounds makes
// the raft library panic, which fails the group.
func (s *storage) readError(i uint64, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, wal.ErrCompacted):
		return raft.ErrCompacted
	case errors.Is(err, wal.ErrUnavailable):
		return raft.ErrUnavailable
	}
	return fmt.Errorf("group %d: read entry %d: %w", s.group, i, err)
}

// cacheFirst is the index of the first cached entry, last+1 if there is none.
func (s *storage) cacheFirst() uint64 { return s.last + 1 - uint64(len(s.cache)) }

// appended takes note of entries that have become durable: they replace those
// at and above the first one's index.
func (s *storage) appended(ents []*raftpb.Entry) {
	if len(ents) == 0 {
		return
	}
	from := ents[0].GetIndex()
	if from > s.last+1 || from <= s.truncated.Index {
		panic(fmt.Sprintf("BUG: group %d: entries from %d appended to a log of (%d, %d]", s.group, from, s.truncated.Index, s.last))
	}
	if first := s.cacheFirst(); from <= first {
		s.cache, s.cacheBytes = s.cache[:0], 0
	} else {
		for _, e := range s.cache[from-first:] {
			s.cacheBytes -= uint64(len(e.GetData()))
		}
		s.cache = s.cache[:from-first]
	}
	s.cache = append(s.cache, ents...)
	for _, e := range ents {
		s.cacheBytes += uint64(len(e.GetData()))
	}
	s.last = ents[len(ents)-1].GetIndex()
	s.evict(cacheApplied)
}

// evict drops cached entries from the oldest on: applied ones until at most
// keep bytes are left, others only above cacheLimit.
func (s *storage) evict(keep uint64) {
	n, first := 0, s.cacheFirst()
	for n < len(s.cache) {
		applied := first+uint64(n) <= s.applied
		spare := applied && (keep == 0 || s.cacheBytes > keep)
		if !spare && s.cacheBytes <= cacheLimit {
			break
		}
		s.cacheBytes -= uint64(len(s.cache[n].GetData()))
		s.cache[n] = nil
		n++
	}
	s.cache = s.cache[n:]
	if len(s.cache) == 0 {
		s.cache = nil
	}
}

// reset forgets everything: a snapshot of what was applied up to p is in force.
func (s *storage) reset(p wal.Position) {
	s.truncated, s.last, s.applied = p, p.Index, p.Index
	s.cache, s.cacheBytes = nil, 0
}

// truncate forgets the entries up to and including p.
func (s *storage) truncate(p wal.Position) {
	if first := s.cacheFirst(); p.Index >= first {
		for _, e := range s.cache[:p.Index+1-first] {
			s.cacheBytes -= uint64(len(e.GetData()))
		}
		s.cache = append([]*raftpb.Entry(nil), s.cache[p.Index+1-first:]...)
	}
	s.truncated = p
}

// raftEntries makes raft's entries of the log's; data is aliased. They encode
// to the same size as the ones that were appended.
func raftEntries(ws []wal.Entry) []*raftpb.Entry {
	ents := make([]*raftpb.Entry, len(ws))
	block := make([]raftpb.Entry, len(ws))
	nums := make([]uint64, 2*len(ws))
	for i, w := range ws {
		e := &block[i]
		nums[2*i], nums[2*i+1] = w.Term, w.Index
		e.Term, e.Index = &nums[2*i], &nums[2*i+1]
		if w.Kind != uint8(raftpb.EntryNormal) {
			e.Type = raftpb.EntryType(w.Kind).Enum()
		}
		if len(w.Data) > 0 {
			e.Data = w.Data
		}
		ents[i] = e
	}
	return ents
}

// appendLogEntries appends the log's form of raft's entries; data is aliased.
func appendLogEntries(dst []wal.Entry, ents []*raftpb.Entry) []wal.Entry {
	for _, e := range ents {
		dst = append(dst, wal.Entry{Index: e.GetIndex(), Term: e.GetTerm(), Kind: uint8(e.GetType()), Data: e.GetData()})
	}
	return dst
}

// limitEntries returns how many of ents fit into maxSize encoded bytes; at least one.
func limitEntries(ents []*raftpb.Entry, maxSize uint64) int {
	var size uint64
	for i, e := range ents {
		size += entrySize(e)
		if size > maxSize && i > 0 {
			return i
		}
	}
	return len(ents)
}

// entrySize is the size of an entry encoded as protobuf, the measure of all
// the raft library's limits, without reflection.
func entrySize(e *raftpb.Entry) uint64 {
	var n uint64
	if e.Type != nil {
		n += 1 + varintSize(uint64(*e.Type))
	}
	if e.Term != nil {
		n += 1 + varintSize(*e.Term)
	}
	if e.Index != nil {
		n += 1 + varintSize(*e.Index)
	}
	if e.Data != nil {
		n += 1 + varintSize(uint64(len(e.Data))) + uint64(len(e.Data))
	}
	return n
}

func varintSize(v uint64) uint64 { return uint64(bits.Len64(v|1)+6) / 7 }
