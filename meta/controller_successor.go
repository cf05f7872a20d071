package meta

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// succeed has a shard that has lost its majority for good go on from its best
// replica, once it is known which that is. It reports whether the shard is one of
// those: it never is while a majority of its voters is on nodes that were not
// given up by force, however long these have been away, nor while it is led.
func (s *step) succeed(ref ShardRef) bool {
	group := ref.Shard.ID.Group()
	if !s.d.GivenUp(&ref.Shard) {
		return false
	}
	if s.leader(group) != nil || !over(s.now, s.started, s.o.SuspectAfter) {
		return false
	}
	var best *LeftReplica
	var awaited []string // nodes with a copy that have not told of it
	dead := false        // the majority
	for _, r := range ref.Shard.Replicas {
		if r.Role == Failed || s.lost(r.Node) {
			continue
		}
		left := s.left(r)
		switch {
		case left == nil && r.Witness:
			continue
		case left == nil: // also of a learner: it may vote by now, and the catalogue not know of it
			awaited = append(awaited, s.name(r.Node))
			continue
		case len(left.Members.Voters) > 0 && !s.bereft(left.Members):
			return false
		}
		dead = dead || len(left.Members.Voters) > 0
		if !r.Witness && !s.d.lost(r.Node) && left.Index > 0 && (best == nil || left.ahead(best)) {
			best = left
		}
	}
	switch {
	case len(awaited) > 0:
		s.hinder(ref, fmt.Sprintf("shard %d has lost its majority, and waits for what %s has of it", ref.Shard.ID, strings.Join(awaited, " and ")))
	case best != nil && dead:
		s.propose(&SucceedShard{ID: ref.Shard.ID, Replica: best.Replica},
			"shard %d goes on from replica %d on %s, entries up to %d; what only the lost nodes had is gone", ref.Shard.ID, best.Replica, s.name(ref.Shard.nodeOf(best.Replica)), best.Index)
		return true
	}
	return len(awaited) > 0
}

// ahead reports whether raft would prefer one log to another; of equals the older
// replica counts.
func (l *LeftReplica) ahead(of *LeftReplica) bool {
	return cmp.Or(cmp.Compare(l.Term, of.Term), cmp.Compare(l.Index, of.Index), cmp.Compare(of.Replica, l.Replica)) > 0
}

// left returns what the node of a replica has just told of it, nil if it has not.
func (s *step) left(r Replica) *LeftReplica {
	p, _ := s.d.ProcessOf(r.Node)
	o := s.seen[p.UUID]
	if o == nil || over(s.now, o.at, s.o.LeaderAfter) {
		return nil
	}
	i := slices.IndexFunc(o.report.Left, func(l LeftReplica) bool { return l.Replica == r.ID })
	if i < 0 {
		return nil
	}
	return &o.report.Left[i]
}

// lost reports whether a data node was given up by force and is silent, or has
// left the cluster: nothing that it held comes back.
func (s *step) lost(node dsdb.NodeID) bool {
	n := s.nodes[node]
	if n == nil {
		p, known := s.d.ProcessOf(node)
		return known && p.DataID == node
	}
	return s.d.lost(node) && n.live != Up
}

// bereft reports whether members of a group can decide nothing any more: of the
// voters, or of those before a joint change, most are lost.
func (s *step) bereft(m Members) bool {
	most := func(voters []Member) bool {
		lost := 0
		for _, v := range voters {
			if s.lost(v.Node) {
				lost++
			}
		}
		return len(voters) > 0 && lost >= (len(voters)+1)/2
	}
	return most(m.Voters) || most(m.Outgoing) || mutant.MajorityIgnored
}

// hinder notes, for the nodes that were given up, why a shard does not go on yet.
func (s *step) hinder(ref ShardRef, reason string) {
	d := Delay{Shard: ref.Shard.ID, Reason: reason}
	for _, r := range ref.Shard.Replicas {
		if s.d.lost(r.Node) {
			d.Nodes = append(d.Nodes, r.Node)
		}
	}
	s.delays = append(s.delays, d)
}

// name names a data node for people.
func (s *step) name(node dsdb.NodeID) string {
	p, _ := s.d.ProcessOf(node)
	return fmt.Sprintf("node %d (%s)", node, p.TCPAddr)
}

// nodeOf returns the node of a replica, 0 if there is no such.
func (s *Shard) nodeOf(id dsdb.ReplicaID) dsdb.NodeID {
	for _, r := range s.Replicas {
		if r.ID == id {
			return r.Node
		}
	}
	return 0
}
