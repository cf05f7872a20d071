package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
)

// releaseEvery is how often a node looks whether its log is too long.
const releaseEvery = time.Second

// openWitness makes the state machine of the witness that the catalogue places
// here. It has no files; its folder is for the mark of one that is out of service.
func (s *shards) openWitness(r *replica, g dsdb.GroupID) error {
	if err := s.n.fs.MkdirAll(r.dir); err != nil {
		return err
	}
	r.watch = raftnode.NewWitness(s.n.wal.State(g))
	return nil
}

// errWitness is what a node says of a shard of which it has the witness.
func errWitness(id dsdb.ShardID) error {
	return &dsdb.Error{Kind: dsdb.KindNotLeader, Text: fmt.Sprintf("this node has no points of shard %d, only a vote", id)}
}

// releaseLog has replicas here forget what others lack, if the log is longer than it
// should be, in bytes of entries, or of the files that few old entries hold: those
// that keep the oldest file, and, if no witness does, the one with the most entries.
func (n *Node) releaseLog(context.Context, time.Time) error {
	limit, st := int64(n.cfg.Data.WALMaxSize), n.wal.Stats()
	if limit <= 0 || st.UnflushedBytes <= limit && st.DiskBytes <= limit+limit/2 {
		return nil
	}
	released := false
	for _, g := range n.wal.Pinners(pinners) {
		n.host.Release(g)
		released = released || n.shards.witnesses(g)
	}
	if g := n.shards.longestWitness(); !released && g != dsdb.MetaGroup {
		n.host.Release(g)
	}
	return nil
}

// longestWitness returns the group of the witness here whose log has the most
// entries, that of the catalogue if there are none.
func (s *shards) longestWitness() (longest dsdb.GroupID) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	most := uint64(0)
	for id, r := range s.held { // of equals any
		if first, last := s.n.wal.Bounds(id.Group()); r.watch != nil && last+1-first > most {
			longest, most = id.Group(), last+1-first
		}
	}
	return longest
}

// witnesses reports whether this node has the witness of a group.
func (s *shards) witnesses(g dsdb.GroupID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.held[dsdb.ShardID(g)]
	return g != dsdb.MetaGroup && r != nil && r.watch != nil
}

// addWitness tells of a witness of this node.
func (r *report) addWitness(ref meta.ReplicaRef, st raftnode.GroupStatus) {
	r.Witnesses++
	switch {
	case st.Failed == nil || st.Replica != ref.Replica.ID: // the latter: it is not open yet
	case errors.Is(st.Failed, dsdb.ErrNewer):
		r.Newer++
	default:
		r.Failed = append(r.Failed, meta.FailedGroup{Group: ref.Shard.ID.Group(), Replica: st.Replica, Reason: st.Failed.Error()})
	}
}
