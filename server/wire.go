package server

import (
	"encoding/binary"

	"github.com/dasudian/dsdb"
)

// The bodies of the calls between nodes, little endian. What is to be proposed:
//
//	u8 version (1) | u8 flags | u64 group | payload
//
// The verdict on it:
//
//	u8 version (1) | u8 kind | u64 rejected | u64 index | u32 length | reason | value
//
// Read indexes are asked for as u8 version (1) | u64 group and answered as
// u8 version (1) | u64 index.
const wireVersion = 1

// flagMatched asks that every voter has the entry before the call returns.
const flagMatched = 1

const (
	proposalHeader = 10
	verdictHeader  = 22
)

// proposalCall is the body of a call "propose".
type proposalCall struct {
	group   dsdb.GroupID
	matched bool   // every voter must have it
	payload []byte // of decodeProposal: aliases the body
}

func (p *proposalCall) append(dst []byte) []byte {
	var flags byte
	if p.matched {
		flags = flagMatched
	}
	dst = append(dst, wireVersion, flags)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(p.group))
	return append(dst, p.payload...)
}

func decodeProposal(b []byte) (proposalCall, error) {
	if len(b) < proposalHeader || b[0] != wireVersion || b[1]&^flagMatched != 0 {
		return proposalCall{}, errWire("a proposal", b)
	}
	return proposalCall{group: dsdb.GroupID(binary.LittleEndian.Uint64(b[2:])), matched: b[1]&flagMatched != 0, payload: b[proposalHeader:]}, nil
}

func appendVerdict(dst []byte, v dsdb.Verdict) []byte {
	dst = append(dst, wireVersion, byte(v.Kind))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(v.Rejected))
	dst = binary.LittleEndian.AppendUint64(dst, v.Index)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(v.Reason)))
	dst = append(dst, v.Reason...)
	return append(dst, v.Value...)
}

// decodeVerdict is the inverse of appendVerdict; nothing of the verdict aliases b.
func decodeVerdict(b []byte) (dsdb.Verdict, error) {
	if len(b) < verdictHeader || b[0] != wireVersion {
		return dsdb.Verdict{}, errWire("a verdict", b)
	}
	rejected, reason := binary.LittleEndian.Uint64(b[2:]), uint64(binary.LittleEndian.Uint32(b[18:]))
	if rejected > 1<<40 || reason > uint64(len(b)-verdictHeader) {
		return dsdb.Verdict{}, errWire("a verdict", b)
	}
	v := dsdb.Verdict{Kind: dsdb.Kind(b[1]), Rejected: int(rejected), Index: binary.LittleEndian.Uint64(b[10:])}
	v.Reason = string(b[verdictHeader : verdictHeader+reason])
	if value := b[verdictHeader+reason:]; len(value) > 0 {
		v.Value = append([]byte(nil), value...)
	}
	return v, nil
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
