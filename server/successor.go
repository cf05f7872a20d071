package server

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/shard"
)

// The group of a shard that has lost its majority for good is founded anew from
// one replica, once the catalogue says so (meta.SucceedShard). On the node of that
// replica this happens in steps, each of which may be the last before a crash:
//
//  1. The old replica ends; its log and its files stay.
//  2. What its log holds is applied, committed or not, and flushed.
//  3. Its files are linked into the folder of the new replica, whose manifest names
//     them all or none. From then on the old replica is of no use.
//  4. The log forgets the old replica, and knows the new one, alone in its group.
//  5. The folder of the old replica is removed, now or by the next start.

// founds reports whether a replica is to found the group of its shard anew.
func founds(sh meta.Shard, id dsdb.ReplicaID) bool { return sh.Origin != nil && founded(sh, id) }

// originates reports whether the log still holds the replica of this node from which
// the group of a shard is founded anew.
func (s *shards) originates(sh meta.Shard) bool {
	placed, here := sh.On(s.n.dataID)
	st, known := s.n.wal.State(sh.ID.Group())
	return here && founds(sh, placed.ID) && known && st.Replica == sh.Origin.Replica
}

// release ends a replica that another one of this node is to be made from.
func (s *shards) release(ctx context.Context, id dsdb.ShardID) error {
	s.mu.Lock()
	r := s.held[id]
	delete(s.held, id)
	s.mu.Unlock()
	if err := s.n.host.Detach(ctx, id.Group()); err != nil && dsdb.KindOf(err) != dsdb.KindNotLeader {
		s.mu.Lock()
		s.held[id] = r // to be tried again
		s.mu.Unlock()
		return fmt.Errorf("release shard %d: %w", id, err)
	}
	s.n.routes.fresh.Forget(id.Group())
	if r.shard == nil {
		return nil
	}
	return r.shard.Close()
}

// inherit fills the folder of a replica that founds the group of its shard anew,
// unless that is done, and has the log forget the replica that it is made from.
func (s *shards) inherit(ctx context.Context, o shard.Options, sh meta.Shard) error {
	heir, err := shard.Open(o)
	if err != nil {
		return err
	}
	defer heir.Close()
	if heir.FlushedIndex() == 0 {
		if err := s.salvage(heir, o, sh); err != nil {
			return err
		}
		s.n.log.Warn("a shard goes on from the copy on this node, alone; what only the lost nodes had is gone",
			"shard", sh.ID, "replica", sh.Founders[0].ID, "from", sh.Origin.Replica, "entries", heir.FlushedIndex())
	}
	if !s.originates(sh) {
		return nil
	}
	if err := s.n.host.Remove(ctx, sh.ID.Group()); err != nil {
		return err
	}
	return shard.Remove(s.n.fs, s.dir(sh, sh.Origin.Replica)) // else sweep does so
}

// salvage gives a new replica all that the one it is made from has in its files and
// its log.
func (s *shards) salvage(heir *shard.Shard, o shard.Options, sh meta.Shard) error {
	g := sh.ID.Group()
	o.Dir = s.dir(sh, sh.Origin.Replica)
	if !s.originates(sh) {
		return dsdb.Errorf(dsdb.KindCorrupt, "the log has lost replica %d, from which shard %d was to go on", sh.Origin.Replica, sh.ID)
	}
	if bad, err := s.n.quarantined(g, sh.Origin.Replica, o.Dir); err != nil {
		return err
	} else if bad {
		return dsdb.Errorf(dsdb.KindCorrupt, "the log may have lost entries of replica %d, from which shard %d was to go on", sh.Origin.Replica, sh.ID)
	}
	old, err := shard.Open(o)
	if err != nil {
		return err
	}
	defer old.Close()
	flush := func() error { _, err := old.Flush(); return err }
	if _, err := raftnode.Salvage(s.n.wal, g, old, nil, flush); err != nil {
		return err
	}
	m, release, err := old.Snapshot()
	if err != nil {
		return err
	}
	defer release()
	return heir.Install(m, o.Dir)
}

// origin returns the name of the folder from which a replica that founds its group
// anew is being made, "" if none is.
func (s *shards) origin(sh meta.Shard) string {
	if !s.originates(sh) {
		return ""
	}
	return path.Base(s.dir(sh, sh.Origin.Replica))
}

// addLeft tells of a replica of a shard that may have lost its majority.
func (r *report) addLeft(n *Node, g dsdb.GroupID, st raftnode.GroupStatus) {
	if st.Failed != nil {
		return
	}
	n.host.Wake(g) // whether there is a leader is found out by asking
	_, last := n.wal.Bounds(g)
	term, err := n.wal.Term(g, last)
	if err != nil {
		return
	}
	r.Left = append(r.Left, meta.LeftReplica{Group: g, Replica: st.Replica, Term: term, Index: last, Members: groupMembers(st.Members)})
}

// unfit reports whether an error of opening a replica says that it is to be kept out
// of service, and why.
func unfit(err error) (why string, is bool) {
	switch {
	case errors.Is(err, dsdb.ErrNewer):
		return "this node has to be upgraded", true
	case dsdb.KindOf(err) == dsdb.KindCorrupt:
		return "its files are damaged", true
	}
	return "", false
}
