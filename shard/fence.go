package shard

import (
	"encoding/binary"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// A query learns the types of fields from the catalogue: points whose fields it
// does not have are hidden. So a write has them fixed there first. Before the types
// of a measurement that has no points are freed again, the writes must be kept out
// that count on them and are still on their way to the shard: a fence, which
// follows such writes in the log or precedes them, parts those that are there, and
// seen, from those that are refused, and prepared anew.

// AppendFence appends the log entry, proposed as id, after which a shard refuses
// writes that were prepared by the catalogue before its index fence, those that do
// not say so among them, and hints of which something would be left. The highest
// fence counts. Refused tells their verdicts.
func AppendFence(dst []byte, id dsdb.ProposalID, fence uint64) []byte {
	return binary.AppendUvarint(appendHeader(dst, entryFence, id), fence)
}

// refused is the verdict on what comes below the fence.
var refused = dsdb.Verdict{Rejected: 1, Kind: dsdb.KindUnavailable, Reason: "types of fields were freed while the write was on its way: try again"}

// Refused reports whether a write or a hint was refused below a fence: nothing of it
// was applied, and it is to be prepared by the catalogue of now and to be proposed
// as another.
func Refused(v dsdb.Verdict) bool { return v.Rejected > 0 && v.Kind == refused.Kind }

// fenced reports whether an entry comes below the fence.
func (s *Shard) fenced(h header) bool {
	return h.prepared < s.deletes.fence && !mutant.FenceIgnored
}

// refuse ends an entry that comes below the fence.
func (s *Shard) refuse(h header) dsdb.Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finishLocked(h, refused)
	return refused
}

// decodeFence decodes what AppendFence wrote after the header.
func decodeFence(body []byte) (uint64, error) {
	r := reader{body}
	fence := r.uvarint()
	if r.rest == nil || len(r.rest) > 0 || fence == 0 {
		return 0, dsdb.Errorf(dsdb.KindCorrupt, "fence entry of %d bytes is malformed", len(body))
	}
	return fence, nil
}

// applyFence raises the fence.
func (s *Shard) applyFence(h header, body []byte) error {
	fence, err := decodeFence(body)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deletes.fence = max(s.deletes.fence, fence)
	s.finishLocked(h, dsdb.Verdict{})
	return nil
}
