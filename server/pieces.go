package server

import (
	"context"
	"fmt"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/shard"
)

// An entry of the log should not be larger than this, so that others need not
// wait long behind it; larger parts are divided by rows. Series keys count as they
// are, not by the little that they take encoded: of more than column.MaxEntryKeys
// no replica would read the entry.
const (
	entryBytes = 4 << 20
	entryRows  = 1 << 20
	entryKeys  = column.MaxEntryKeys / 4
)

// pieces divides a batch by rows, if it takes so many bytes, so that entries of
// its parts are not too large if its rows are alike. It returns the batch itself
// if it is small enough, or has one row.
func pieces(b *column.WriteBatch, size int) []*column.WriteBatch {
	rows, keys := b.Rows(), 0
	for i := range b.Tables {
		keys += len(b.Tables[i].Keys.Bytes)
	}
	n := min(max(1+size/entryBytes, 1+rows/entryRows, 1+keys/entryKeys), rows)
	if n <= 1 {
		return []*column.WriteBatch{b}
	}
	row := 0
	parts := new(column.Partitioner).Split(b, n, func(int, int, int64) int { row++; return (row - 1) * n / rows })
	used := make([]*column.WriteBatch, 0, n)
	for _, part := range parts {
		if part != nil {
			used = append(used, part)
		}
	}
	return used
}

// proposePart proposes the part of one shard, in several entries if it is large.
func (w *write) proposePart(ctx context.Context, p part) error {
	ctx, cancel := w.n.bound(ctx)
	defer cancel()
	return w.proposeRows(ctx, p.shard.Group(), p.batch)
}

// proposeRows proposes a batch as one entry, or piece by piece if that is too large.
func (w *write) proposeRows(ctx context.Context, g dsdb.GroupID, b *column.WriteBatch) error {
	id, err := w.n.takeID(ctx, g)
	if err != nil {
		return err
	}
	entry := shard.AppendPrepared(nil, id, w.prepared(), b)
	parts := pieces(b, len(entry))
	if len(parts) == 1 && len(entry) <= raftnode.MaxProposal {
		err = w.proposeEntry(ctx, g, entry)
		w.n.routes.sequencer.Release(g, id)
		if err == errRefused {
			return w.prepareAnew(ctx, b)
		}
		return err
	}
	w.n.routes.sequencer.Release(g, id) // no piece is this entry
	if len(parts) == 1 {
		w.rejectLarge(b, len(entry))
		return nil
	}
	for i, part := range parts {
		if err := w.proposeRows(ctx, g, part); err != nil && i > 0 && dsdb.KindOf(err) != dsdb.KindTimeout {
			return partStored(err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// rejectLarge refuses a point that no entry of the log can hold.
func (w *write) rejectLarge(b *column.WriteBatch, size int) {
	w.reject(b.Rows(), fmt.Sprintf("a point of measurement %q takes %d bytes, at most %d are allowed", b.Tables[0].Measurement, size, raftnode.MaxProposal))
}

func (w *write) proposeEntry(ctx context.Context, g dsdb.GroupID, entry []byte) error {
	var o outcome
	var err error
	if len(entry) <= mergeEntry && !w.matched {
		o, err = w.n.proposeMerged(ctx, g, entry)
	} else {
		o, err = w.n.proposeAs(ctx, &proposalCall{group: g, matched: w.matched, points: true, payload: entry})
	}
	if mutant.DroppedShardTaken && dsdb.KindOf(err) == dsdb.KindNotFound {
		err = nil
	}
	if err == nil && shard.Refused(o.Verdict) {
		return errRefused
	}
	if err == nil {
		w.add(&o)
	}
	return err
}
