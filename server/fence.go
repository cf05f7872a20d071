package server

import (
	"context"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/rpc"
	"github.com/dasudian/dsdb/shard"
)

// Points of fields whose types the catalogue does not have are seen by no query. So
// types are fixed before points are proposed, and freed when none are left. A write
// that was prepared before may come to its shard after, though: from another node,
// however late. Types are therefore freed in four steps (forget):
//
//	1. the catalogue, at its index X, revokes the types: they stay, but who prepares
//	   a write from X on registers its fields again, which ends the revocation
//	2. the shards refuse from now on what was prepared before X: their fence
//	3. it is looked, once more, which of the measurements have series
//	4. the catalogue frees the types of the others, if they are still revoked since X
//
// A write that was prepared before X and reached its shard before the fence is found
// by 3, one behind the fence is refused and prepared anew, and one that was prepared
// after X has undone 1. So nothing that is acknowledged is without its types, for
// no moment. Nor does it matter after which step who frees them dies: until the last
// one queries know the types, and after it nothing is left that would need them. The
// points themselves are deleted before, at one entry of each shard: of them there is
// no second time at which they vanish.

// errRefused says that a shard has refused points below its fence.
var errRefused = dsdb.Errorf(dsdb.KindUnavailable, "write failed: types of fields were freed meanwhile")

// prepared returns by which index of the catalogue shards are to judge the write.
// In a database without fences it is 0, which older programs can read.
func (w *write) prepared() uint64 {
	if w.refused || w.view.Database(w.database).Fence > 0 {
		return w.view.Index
	}
	return 0
}

// prepareAnew writes rows that were refused below a fence again, by a catalogue that
// knows of it. A catalogue that does not has lost the end of its log, and goes on
// until it has an index that shards have not seen.
func (w *write) prepareAnew(ctx context.Context, b *column.WriteBatch) error {
	next, err := w.anew(ctx, b)
	if err != nil {
		return err
	}
	next.refused = true
	if next.view.Index <= w.prepared() {
		if err := next.command(ctx, &meta.RevokeFields{Database: w.database}); err != nil {
			return err
		}
	}
	return w.follow(ctx, next)
}

// fence has the shards with fields of the measurements refuse what was prepared
// before their types were revoked.
func (n *Node) fence(ctx context.Context, db *meta.Database, measurements []string) error {
	if db.Fence == 0 { // dropped and made anew meanwhile; no shard takes such a fence
		return nil
	}
	var ids []dsdb.ShardID
	for _, g := range groupsOf(db) {
		if !hasFields(g, measurements) {
			continue
		}
		for _, s := range g.Shards {
			ids = append(ids, s.ID)
		}
	}
	return changeShards(ids, func(id dsdb.ShardID) error {
		v, err := n.propose(ctx, id.Group(), func(pid dsdb.ProposalID) []byte { return shard.AppendFence(nil, pid, db.Fence) })
		switch {
		case err == nil:
			return v.Err()
		case dsdb.KindOf(err) == dsdb.KindNotFound: // dropped meanwhile
			return nil
		}
		return err
	})
}

func hasFields(g *meta.ShardGroup, measurements []string) bool {
	for _, m := range measurements {
		if g.Fields(m) != nil {
			return true
		}
	}
	return false
}

// methodFences is the call that a process answers, with nothing, whose program can
// apply fences. Older programs answer pings alone.
const methodFences = "fences"

func serveFences(context.Context, rpc.Process, []byte) ([]byte, error) { return nil, nil }

// withoutFences returns a node that runs a program which cannot apply fences, 0 if
// none of those that are reached does. One that is not, and does, halts its replicas
// when it comes upon a fence, as at all that is newer, until it is upgraded.
func (n *Node) withoutFences(ctx context.Context) (old dsdb.NodeID) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	processes := n.meta.View().Processes
	answers := make(chan dsdb.NodeID, len(processes))
	for _, p := range processes {
		node := p.ID()
		go func() {
			if !p.Gone() && !n.is(node) && n.up(node) {
				if _, err := n.call(ctx, node, methodFences, nil); err != nil && n.peers.Ping(ctx, node) == nil {
					answers <- node
					return
				}
			}
			answers <- 0
		}()
	}
	for range processes {
		old = max(old, <-answers)
	}
	return old
}
