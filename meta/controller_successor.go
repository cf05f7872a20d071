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
	s.noteReturns(ref)
	self := s.leader(dsdb.MetaGroup)
	if self == nil || s.leader(group) != nil || !over(s.now, s.started, s.o.SuspectAfter) {
		return false
	}
	var best *LeftReplica
	var members []Member // of the group, as any of the copies knows it
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
		members = append(append(members, left.Members.Voters...), left.Members.Outgoing...)
		if !r.Witness && !s.d.lost(r.Node) && left.Index > 0 && (best == nil || left.ahead(best)) {
			best = left
		}
	}
	switch {
	case len(awaited) > 0:
		s.hinder(ref, fmt.Sprintf("shard %d has lost its majority, and waits for what %s has of it", ref.Shard.ID, strings.Join(awaited, " and ")))
	case best != nil && dead:
		s.orphans[ref.Shard.ID] = s.d.Index
		s.propose(&SucceedShard{ID: ref.Shard.ID, Replica: best.Replica, Term: self.report.Term, Replicas: ref.Shard.Replicas, Absent: s.absent(ref, members)},
			"shard %d goes on from replica %d on %s, entries up to %d; what only the lost nodes had is gone", ref.Shard.ID, best.Replica, s.name(ref.Shard.nodeOf(best.Replica)), best.Index)
		return true
	}
	return len(awaited) > 0
}

// absent returns which nodes with replicas of a shard, and members of its group, are
// counted as lost.
func (s *step) absent(ref ShardRef, members []Member) (all []Absence) {
	for _, r := range ref.Shard.Replicas {
		members = append(members, memberOf(r))
	}
	for _, m := range members {
		if a, absent := s.d.absence(m.Node); absent && s.lost(m.Node) {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b Absence) int { return cmp.Compare(a.Node, b.Node) })
	return slices.Compact(all)
}

// noteReturns voids what was decided for a shard, and may yet come to pass, if it is
// led after all, or a node that was given up is there. A start of that node voids it by
// itself, and so does an election of another leader of the meta group.
func (s *step) noteReturns(ref ShardRef) {
	since, decided := s.orphans[ref.Shard.ID]
	if !decided {
		return
	}
	led := s.leader(ref.Shard.ID.Group()) != nil
	for _, r := range ref.Shard.Replicas {
		n := s.nodes[r.Node]
		if n == nil || r.Role == Failed || !s.d.lost(r.Node) {
			continue
		}
		if p, _ := s.d.Process(n.uuid); (led || n.live == Up) && p.DataSeen <= since {
			s.propose(&NoteReturn{r.Node}, "%s was given up, and is still needed: what was decided without it is void", s.name(r.Node))
		}
	}
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
