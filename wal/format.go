package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/dasudian/dsdb"
)

// Sizes of the format; see FORMAT.md.
const (
	pageSize        = 4096 // batches start at multiples of it; also the size of a segment's header
	batchHeaderSize = 64
	recordHeader    = 44
	formatVersion   = 1
)

const (
	segmentMagic = "DSDBWAL\x01"
	batchMagic   = 0x48435442 // "BTCH"
)

// Flags of a batch.
const flagCheckpoint = 1 // begins with the state of every live group

// Types of records. 2 is reserved.
const (
	recEntry     = 1
	recHardState = 3
	recTruncate  = 4
	recState     = 5 // checkpoint of a group
	recCreate    = 6
	recRemove    = 7
	recReset     = 8
	recClean     = 9
	recMarker    = 10
	recInstall   = 11
)

var recordNames = [...]string{recEntry: "entry", recHardState: "hardstate", recTruncate: "truncate",
	recState: "state", recCreate: "create", recRemove: "remove", recReset: "reset",
	recClean: "clean-shutdown", recMarker: "sync-marker", recInstall: "install"}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// roundUp rounds n up to a multiple of unit, a power of two.
func roundUp(n, unit int64) int64 { return (n + unit - 1) &^ (unit - 1) }

// segmentHeader is the first page of a segment. The prev members say where the
// log before this segment ends: what lies behind that in the previous segment
// is not part of the log.
type segmentHeader struct {
	cluster, node [16]byte
	seq           uint64
	prevSeq       uint64 // 0: there is no previous segment
	prevEnd       uint64 // offset behind the last batch in it
	prevBatch     uint64 // number of the last batch before this segment
}

// appendSegmentHeader appends the page.
func appendSegmentHeader(dst []byte, h segmentHeader) []byte {
	at := len(dst)
	dst = append(dst, segmentMagic...)
	dst = le.AppendUint32(dst, formatVersion)
	dst = le.AppendUint32(dst, 0)
	dst = append(append(dst, h.cluster[:]...), h.node[:]...)
	for _, v := range [...]uint64{h.seq, h.prevSeq, h.prevEnd, h.prevBatch} {
		dst = le.AppendUint64(dst, v)
	}
	dst = append(dst, make([]byte, at+pageSize-len(dst))...)
	le.PutUint32(dst[at+12:], pageCRC(dst[at:]))
	return dst
}

// pageCRC is the checksum of a segment header with its own field taken as zero.
func pageCRC(page []byte) uint32 {
	c := crc32.Update(0, castagnoli, page[:12])
	c = crc32.Update(c, castagnoli, []byte{0, 0, 0, 0})
	return crc32.Update(c, castagnoli, page[16:pageSize])
}

var errVersion = errors.New("written by a newer version of dsdb")

// parseSegmentHeader reads a page. It reports errVersion for a sound header of
// a version it does not know, any other error for a damaged one.
func parseSegmentHeader(page []byte) (h segmentHeader, err error) {
	switch {
	case len(page) < pageSize:
		return h, fmt.Errorf("segment header: %d bytes, want %d", len(page), pageSize)
	case string(page[:8]) != segmentMagic:
		return h, fmt.Errorf("segment header: magic is %x", page[:8])
	case le.Uint32(page[12:]) != pageCRC(page):
		return h, errors.New("segment header: checksum does not match")
	case le.Uint32(page[8:]) != formatVersion:
		return h, fmt.Errorf("segment format %d, this program reads %d: %w", le.Uint32(page[8:]), formatVersion, errVersion)
	}
	copy(h.cluster[:], page[16:])
	copy(h.node[:], page[32:])
	h.seq, h.prevSeq = le.Uint64(page[48:]), le.Uint64(page[56:])
	h.prevEnd, h.prevBatch = le.Uint64(page[64:]), le.Uint64(page[72:])
	return h, nil
}

// batchHeader precedes the records of a batch.
type batchHeader struct {
	bodyCRC, bodyLen uint32
	records, flags   uint32
	seg, seq         uint64
	self             uint64 // offset of this header in its segment
	syncedOffset     uint64 // all of this segment before it was durable when this batch was written
	syncedBatch      uint64 // so was every batch up to this one
}

// size returns the bytes that the batch takes in its segment.
func (h *batchHeader) size() int64 { return roundUp(batchHeaderSize+int64(h.bodyLen), pageSize) }

// put writes the header into the first 64 bytes of b.
func (h *batchHeader) put(b []byte) {
	le.PutUint32(b, batchMagic)
	le.PutUint32(b[8:], h.bodyCRC)
	le.PutUint32(b[12:], h.bodyLen)
	le.PutUint32(b[16:], h.records)
	le.PutUint32(b[20:], h.flags)
	le.PutUint64(b[24:], h.seg)
	le.PutUint64(b[32:], h.seq)
	le.PutUint64(b[40:], h.self)
	le.PutUint64(b[48:], h.syncedOffset)
	le.PutUint64(b[56:], h.syncedBatch)
	le.PutUint32(b[4:], headerCRC(b))
}

func headerCRC(b []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, b[:4]), castagnoli, b[8:batchHeaderSize])
}

// parseBatchHeader reads the header of a batch of segment seg at offset off;
// ok is false if there is none.
func parseBatchHeader(b []byte, seg uint64, off int64) (h batchHeader, ok bool) {
	if len(b) < batchHeaderSize || le.Uint32(b) != batchMagic || le.Uint32(b[4:]) != headerCRC(b) {
		return h, false
	}
	h = rawBatchHeader(b)
	return h, h.seg == seg && h.self == uint64(off)
}

// rawBatchHeader reads 64 bytes as a header without trust in them.
func rawBatchHeader(b []byte) batchHeader {
	return batchHeader{bodyCRC: le.Uint32(b[8:]), bodyLen: le.Uint32(b[12:]), records: le.Uint32(b[16:]),
		flags: le.Uint32(b[20:]), seg: le.Uint64(b[24:]), seq: le.Uint64(b[32:]), self: le.Uint64(b[40:]),
		syncedOffset: le.Uint64(b[48:]), syncedBatch: le.Uint64(b[56:])}
}

// record is one record of a batch. The payload aliases the batch.
type record struct {
	typ, codec, kind uint8
	replica          dsdb.ReplicaID
	group            dsdb.GroupID
	term, index      uint64
	payload          []byte
}

// appendRecord appends r, padded to 8 bytes.
func appendRecord(dst []byte, r record) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = le.AppendUint32(dst, uint32(len(r.payload)))
	dst = append(dst, r.typ, r.codec, r.kind, 0)
	for _, v := range [...]uint64{uint64(r.replica), uint64(r.group), r.term, r.index} {
		dst = le.AppendUint64(dst, v)
	}
	dst = append(dst, r.payload...)
	le.PutUint32(dst[at:], crc32.Checksum(dst[at+4:], castagnoli))
	return append(dst, make([]byte, recordSize(len(r.payload))-(len(dst)-at))...)
}

// recordSize returns the bytes that a record with n bytes of payload takes.
func recordSize(n int) int { return (recordHeader + n + 7) &^ 7 }

// parseRecord reads the record at the start of b and its padded size, without
// checking its CRC, which the batch's covers.
func parseRecord(b []byte) (r record, size int, err error) {
	if len(b) < recordHeader {
		return r, 0, fmt.Errorf("record header: %d bytes left", len(b))
	}
	n := le.Uint32(b[4:])
	if int64(n) > int64(len(b)-recordHeader) {
		return r, 0, fmt.Errorf("record: payload of %d bytes, %d left", n, len(b)-recordHeader)
	}
	r = record{typ: b[8], codec: b[9], kind: b[10], replica: dsdb.ReplicaID(le.Uint64(b[12:])),
		group: dsdb.GroupID(le.Uint64(b[20:])), term: le.Uint64(b[28:]), index: le.Uint64(b[36:]),
		payload: b[recordHeader : recordHeader+int(n) : recordHeader+int(n)]}
	return r, min(recordSize(int(n)), len(b)), nil
}

// checkRecord verifies the CRC of the record at the start of b.
func checkRecord(b []byte) (record, error) {
	r, _, err := parseRecord(b)
	if err == nil && le.Uint32(b) != crc32.Checksum(b[4:recordHeader+len(r.payload)], castagnoli) {
		err = errors.New("record: checksum does not match")
	}
	return r, err
}

// wellFormed reports what is wrong with r's type and payload, if anything.
func (r *record) wellFormed() error {
	if int(r.typ) >= len(recordNames) || recordNames[r.typ] == "" {
		return fmt.Errorf("record: type %d is unknown", r.typ)
	}
	if r.codec != 0 {
		return fmt.Errorf("record: codec %d is unknown", r.codec)
	}
	switch r.typ {
	case recHardState:
		if len(r.payload) != 16 {
			return fmt.Errorf("hardstate: %d bytes, want 16", len(r.payload))
		}
	case recState, recCreate, recReset, recInstall:
		_, err := r.checkpoint()
		return err
	}
	return nil
}

// checkBody verifies that body is n well-formed records and nothing else.
func checkBody(body []byte, n uint32) error {
	for i := uint32(0); i < n; i++ {
		r, size, err := parseRecord(body)
		if err == nil {
			err = r.wellFormed()
		}
		if err != nil {
			return fmt.Errorf("record %d of %d: %w", i, n, err)
		}
		body = body[size:]
	}
	if len(body) > 0 {
		return fmt.Errorf("%d bytes behind the last record", len(body))
	}
	return nil
}

// appendHardState appends a hard state as a record.
func appendHardState(dst []byte, g dsdb.GroupID, replica dsdb.ReplicaID, h HardState) []byte {
	var p [16]byte
	le.PutUint64(p[:], h.Vote)
	le.PutUint64(p[8:], h.Commit)
	return appendRecord(dst, record{typ: recHardState, replica: replica, group: g, term: h.Term, payload: p[:]})
}

func (r *record) hardState() HardState {
	return HardState{Term: r.term, Vote: le.Uint64(r.payload), Commit: le.Uint64(r.payload[8:])}
}

// checkpoint is the payload of the records that carry a group's whole state:
// enough to prove, after damage elsewhere, that the entries found are the
// group's entries. By raft's log matching an entry is known by index and term.
type checkpoint struct {
	state   GroupState
	last    uint64    // index of the last entry, or Truncated.Index
	terms   []termRun // of the entries behind Truncated; empty if there are none
	suspect bool      // see Report.Suspect
}

const checkpointFixed = 40

func (c *checkpoint) record(typ uint8, g dsdb.GroupID) record {
	s := &c.state
	p := make([]byte, 0, checkpointFixed+16*len(c.terms)+len(s.Conf))
	for _, v := range [...]uint64{s.HardState.Term, s.HardState.Vote, s.HardState.Commit, c.last} {
		p = le.AppendUint64(p, v)
	}
	var flags uint32
	if c.suspect {
		flags = 1
	}
	p = le.AppendUint32(le.AppendUint32(p, flags), uint32(len(c.terms)))
	for _, t := range c.terms {
		p = le.AppendUint64(le.AppendUint64(p, t.first), t.term)
	}
	return record{typ: typ, replica: s.Replica, group: g, term: s.Truncated.Term, index: s.Truncated.Index, payload: append(p, s.Conf...)}
}

// checkpoint decodes the payload; Conf aliases it.
func (r *record) checkpoint() (c checkpoint, err error) {
	p := r.payload
	if len(p) < checkpointFixed {
		return c, fmt.Errorf("%s: %d bytes, want at least %d", recordNames[r.typ], len(p), checkpointFixed)
	}
	c.state = GroupState{Replica: r.replica, Truncated: Position{r.index, r.term},
		HardState: HardState{le.Uint64(p), le.Uint64(p[8:]), le.Uint64(p[16:])}}
	c.last, c.suspect = le.Uint64(p[24:]), le.Uint32(p[32:])&1 != 0
	n := int64(le.Uint32(p[36:]))
	p = p[checkpointFixed:]
	if n > int64(len(p)/16) {
		return c, fmt.Errorf("%s: %d terms in %d bytes", recordNames[r.typ], n, len(p))
	}
	if c.last < r.index || c.last == ^uint64(0) {
		return c, fmt.Errorf("%s: last index %d, truncated at %d", recordNames[r.typ], c.last, r.index)
	}
	for i := range n {
		c.terms = append(c.terms, termRun{le.Uint64(p[16*i:]), le.Uint64(p[16*i+8:])})
	}
	if len(p) > int(16*n) {
		c.state.Conf = p[16*n:]
	}
	return c, nil
}
