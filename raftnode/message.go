package raftnode

import (
	"encoding/binary"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
)

// A raft message travels between nodes as
//
//	u8 version (1) | u8 type | u16 which members follow | members
//
// little endian. To, from, term, log term, index, commit, vote and reject hint
// are uvarints; context is uvarint length and bytes; reject is a bit alone.
// Entries are u32 count, then for each
//
//	u8 flags | u64 term | u64 index | u32 length | data
//
// A snapshot is its position, u64 index and u64 term, its members as
// appendConfState writes them, u32 length and data. What is absent stays
// absent, as the raft library measures entries by their protobuf size.
const messageVersion = 1

// Bits of the members that follow.
const (
	hasTo = 1 << iota
	hasFrom
	hasTerm
	hasLogTerm
	hasIndex
	hasCommit
	hasVote
	hasRejectHint
	hasContext
	hasEntries
	hasSnapshot
	hasReject
	isReject
	messageBits
)

// Flags of an entry; the two lowest bits are its type.
const (
	entryType     = 3
	entryHasType  = 4
	entryHasTerm  = 8
	entryHasIndex = 16
	entryHasData  = 32
	entryBits     = 64
)

const entryHeader = 21

var le = binary.LittleEndian

// AppendMessage appends a message, which must be one that goes to other nodes.
func AppendMessage(dst []byte, m *raftpb.Message) []byte {
	at := len(dst)
	dst = append(dst, messageVersion, byte(m.GetType()), 0, 0)
	bits := uint16(0)
	for i, v := range [...]*uint64{m.To, m.From, m.Term, m.LogTerm, m.Index, m.Commit, m.Vote, m.RejectHint} {
		if v != nil {
			bits |= 1 << i
			dst = binary.AppendUvarint(dst, *v)
		}
	}
	if m.Context != nil {
		bits |= hasContext
		dst = binary.AppendUvarint(dst, uint64(len(m.Context)))
		dst = append(dst, m.Context...)
	}
	if len(m.Entries) > 0 {
		bits |= hasEntries
		dst = appendEntries(dst, m.Entries)
	}
	if m.Snapshot != nil {
		bits |= hasSnapshot
		dst = appendSnapshot(dst, m.Snapshot)
	}
	if m.Reject != nil {
		bits |= hasReject
		if *m.Reject {
			bits |= isReject
		}
	}
	le.PutUint16(dst[at+2:], bits)
	return dst
}

func appendEntries(dst []byte, ents []*raftpb.Entry) []byte {
	dst = le.AppendUint32(dst, uint32(len(ents)))
	for _, e := range ents {
		flags := byte(e.GetType())
		if e.Type != nil {
			flags |= entryHasType
		}
		if e.Term != nil {
			flags |= entryHasTerm
		}
		if e.Index != nil {
			flags |= entryHasIndex
		}
		if e.Data != nil {
			flags |= entryHasData
		}
		dst = append(dst, flags)
		dst = le.AppendUint64(dst, e.GetTerm())
		dst = le.AppendUint64(dst, e.GetIndex())
		dst = le.AppendUint32(dst, uint32(len(e.Data)))
		dst = append(dst, e.Data...)
	}
	return dst
}

func appendSnapshot(dst []byte, s *raftpb.Snapshot) []byte {
	m := s.GetMetadata()
	dst = le.AppendUint64(dst, m.GetIndex())
	dst = le.AppendUint64(dst, m.GetTerm())
	dst = appendConfState(dst, m.GetConfState())
	dst = le.AppendUint32(dst, uint32(len(s.GetData())))
	return append(dst, s.GetData()...)
}

// DecodeMessage reads what AppendMessage wrote, all of b; entries' data and
// context alias b. It reports KindCorrupt for anything else, and allocates no
// more than a small multiple of len(b).
func DecodeMessage(b []byte) (*raftpb.Message, error) {
	if len(b) < 4 || b[0] != messageVersion {
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "raft message of %d bytes: not of version %d", len(b), messageVersion)
	}
	bits := le.Uint16(b[2:])
	if _, known := raftpb.MessageType_name[int32(b[1])]; !known || bits >= messageBits || bits&isReject != 0 && bits&hasReject == 0 {
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "raft message of type %d, members %x: not known", b[1], bits)
	}
	m := &raftpb.Message{Type: raftpb.MessageType(b[1]).Enum()}
	r := reader{b: b[4:]}
	nums := new([8]uint64)
	for i, p := range [...]**uint64{&m.To, &m.From, &m.Term, &m.LogTerm, &m.Index, &m.Commit, &m.Vote, &m.RejectHint} {
		if bits&(1<<i) != 0 {
			nums[i] = r.uvarint()
			*p = &nums[i]
		}
	}
	if bits&hasContext != 0 {
		m.Context = r.bytes(r.uvarint())
	}
	if bits&hasEntries != 0 {
		m.Entries = r.entries()
	}
	if bits&hasSnapshot != 0 {
		m.Snapshot = r.snapshot()
	}
	if bits&hasReject != 0 {
		m.Reject = new(bits&isReject != 0)
	}
	if r.bad || len(r.b) > 0 {
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "raft message of %d bytes: its members have other lengths", len(b))
	}
	return m, nil
}

// reader takes members off the front of b; bad is set once something is amiss,
// and what is read from there on means nothing.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.b, r.bad = nil, true }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 { // one form for each number
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes returns the next n bytes, never nil unless bad.
func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) uint8() uint8 {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return le.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return le.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return le.Uint64(b)
	}
	return 0
}

func (r *reader) entries() []*raftpb.Entry {
	n := r.uint32()
	if n == 0 || uint64(n) > uint64(len(r.b)/entryHeader) {
		r.fail()
		return nil
	}
	ents := make([]*raftpb.Entry, n)
	block := make([]raftpb.Entry, n)
	nums := make([]uint64, 2*n)
	for i := range ents {
		e := &block[i]
		flags, term, index, size := r.uint8(), r.uint64(), r.uint64(), r.uint32()
		data := r.bytes(uint64(size))
		nums[2*i], nums[2*i+1] = term, index
		if flags >= entryBits || flags&entryType == entryType || flags&(entryType|entryHasType) != 0 && flags&entryHasType == 0 ||
			flags&entryHasTerm == 0 && term != 0 || flags&entryHasIndex == 0 && index != 0 || flags&entryHasData == 0 && size != 0 {
			r.fail()
			return nil
		}
		if flags&entryHasType != 0 {
			e.Type = raftpb.EntryType(flags & entryType).Enum()
		}
		if flags&entryHasTerm != 0 {
			e.Term = &nums[2*i]
		}
		if flags&entryHasIndex != 0 {
			e.Index = &nums[2*i+1]
		}
		if flags&entryHasData != 0 {
			e.Data = data
		}
		ents[i] = e
	}
	return ents
}

// snapshot reads position, members and data; the data is a copy, as it outlives
// the buffer.
func (r *reader) snapshot() *raftpb.Snapshot {
	index, term := r.uint64(), r.uint64()
	conf := r.confState()
	data := r.bytes(uint64(r.uint32()))
	if r.bad {
		return nil
	}
	s := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{ConfState: conf, Index: &index, Term: &term}}
	if len(data) > 0 {
		s.Data = append([]byte(nil), data...)
	}
	return s
}
