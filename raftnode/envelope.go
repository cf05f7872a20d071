package raftnode

import (
	"encoding/binary"

	"github.com/dasudian/dsdb"
)

// A proposal travels through the log as
//
//	u8 version (1) | u64 origin | u64 seq | payload        little endian
//
// origin is unique to one boot of the proposing node, seq to one proposal of
// that boot: together they tell the node which of its waiting callers an
// applied entry belongs to. Entries that raft makes for itself have no data at
// all and no envelope.
const (
	envelopeVersion = 1
	envelopeSize    = 17
)

// MaxProposal is the most bytes that one proposal may carry.
const MaxProposal = 8<<20 - envelopeSize

// appendProposal appends the enveloped payload to dst.
func appendProposal(dst []byte, origin, seq uint64, payload []byte) []byte {
	dst = append(dst, envelopeVersion)
	dst = binary.LittleEndian.AppendUint64(dst, origin)
	dst = binary.LittleEndian.AppendUint64(dst, seq)
	return append(dst, payload...)
}

// openProposal splits an entry's data; payload aliases data. It reports
// KindCorrupt if data is not what appendProposal makes, and dsdb.ErrNewer for
// another format.
func openProposal(data []byte) (origin, seq uint64, payload []byte, err error) {
	if len(data) > 0 && data[0] > envelopeVersion {
		return 0, 0, nil, dsdb.Errorf(dsdb.KindUnavailable, "raft entry of format %d, this program reads %d: %w", data[0], envelopeVersion, dsdb.ErrNewer)
	}
	if len(data) < envelopeSize || data[0] != envelopeVersion {
		return 0, 0, nil, dsdb.Errorf(dsdb.KindCorrupt, "raft entry of %d bytes has no envelope", len(data))
	}
	origin = binary.LittleEndian.Uint64(data[1:])
	seq = binary.LittleEndian.Uint64(data[9:])
	return origin, seq, data[envelopeSize:], nil
}
