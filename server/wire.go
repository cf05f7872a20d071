package server

import (
	"encoding/binary"

	"github.com/dasudian/dsdb"
)

// The bodies of the calls between nodes, little endian. What is to be proposed:
//
//	u8 version (1) | u8 flags | u64 group | payload
//
// The verdict on it, and how many of how many voters have the entry:
//
//	u8 version (1) | u8 kind | u8 have | u8 voters | u64 rejected | u64 index | u32 length | reason | value
//
// Read indexes are asked for as u8 version (1) | u64 group and answered as
// u8 version (1) | u64 index.
const wireVersion = 1

// The flags of a proposal.
const (
	flagMatched = 1 // every voter is to have the entry before the call returns
	flagPoints  = 2 // it brings points: refused while too many are in memory
	allFlags    = flagMatched | flagPoints
)

const (
	proposalHeader = 10
	outcomeHeader  = 24
)

// proposalCall is the body of a call "propose".
type proposalCall struct {
	group   dsdb.GroupID
	matched bool   // every voter must have it
	points  bool   // it brings points
	payload []byte // of decodeProposal: aliases the body
}

func (p *proposalCall) append(dst []byte) []byte {
	var flags byte
	if p.matched {
		flags |= flagMatched
	}
	if p.points {
		flags |= flagPoints
	}
	dst = append(dst, wireVersion, flags)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(p.group))
	return append(dst, p.payload...)
}

func decodeProposal(b []byte) (proposalCall, error) {
	if len(b) < proposalHeader || b[0] != wireVersion || b[1]&^allFlags != 0 {
		return proposalCall{}, errWire("a proposal", b)
	}
	return proposalCall{group: dsdb.GroupID(binary.LittleEndian.Uint64(b[2:])),
		matched: b[1]&flagMatched != 0, points: b[1]&flagPoints != 0, payload: b[proposalHeader:]}, nil
}

func (o *outcome) append(dst []byte) []byte {
	dst = append(dst, wireVersion, byte(o.Kind), byte(o.have), byte(o.voters))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(o.Rejected))
	dst = binary.LittleEndian.AppendUint64(dst, o.Index)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(o.Reason)))
	dst = append(dst, o.Reason...)
	return append(dst, o.Value...)
}

// decodeOutcome is the inverse of outcome.append; nothing of what it returns aliases b.
func decodeOutcome(b []byte) (outcome, error) {
	if len(b) < outcomeHeader || b[0] != wireVersion {
		return outcome{}, errWire("a verdict", b)
	}
	rejected, reason := binary.LittleEndian.Uint64(b[4:]), uint64(binary.LittleEndian.Uint32(b[20:]))
	if rejected > 1<<40 || reason > uint64(len(b)-outcomeHeader) {
		return outcome{}, errWire("a verdict", b)
	}
	o := outcome{have: int(b[2]), voters: int(b[3])}
	o.Kind, o.Rejected, o.Index = dsdb.Kind(b[1]), int(rejected), binary.LittleEndian.Uint64(b[12:])
	o.Reason = string(b[outcomeHeader : outcomeHeader+reason])
	if value := b[outcomeHeader+reason:]; len(value) > 0 {
		o.Value = append([]byte(nil), value...)
	}
	return o, nil
}

// appendNumber makes the body of a call or an answer that is one number.
func appendNumber(dst []byte, n uint64) []byte {
	return binary.LittleEndian.AppendUint64(append(dst, wireVersion), n)
}

func decodeNumber(b []byte) (uint64, error) {
	if len(b) != 9 || b[0] != wireVersion {
		return 0, errWire("a number", b)
	}
	return binary.LittleEndian.Uint64(b[1:]), nil
}

func errWire(what string, b []byte) error {
	return dsdb.Errorf(dsdb.KindCorrupt, "%d bytes from a peer are not %s of version %d", len(b), what, wireVersion)
}
