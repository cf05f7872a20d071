package meta

import (
	"cmp"
	"slices"
)

// spares reports whether a shard has what it is to have without a replica or a
// witness that is to leave.
func (c *census) spares(r Replica) bool {
	if r.Witness {
		return !c.third || len(c.watch) > 0
	}
	return c.present() >= c.want
}

// watchless reports whether a shard lacks its witness, or has one too many.
func (s *step) watchless(c *census) bool {
	if !c.third {
		return len(c.watch) > 0
	}
	return len(c.watch) != 1 || !s.stays(c.watch[0])
}

// needless returns a witness that is one too many: two may have been asked for,
// when it was not known for a while whether the first would come.
func (s *step) needless(c *census) (Replica, bool) {
	switch {
	case len(c.watch) > 1:
		return slices.MinFunc(c.watch, func(a, b Replica) int { return boolCompare(s.stays(a), s.stays(b)) }), true
	case len(c.watch) == 1 && !c.third:
		return c.watch[0], true
	}
	return Replica{}, false
}

// stays reports whether the node of a replica is to stay and not dead.
func (s *step) stays(r Replica) bool {
	n := s.nodes[r.Node]
	return n != nil && n.active && n.live != Dead
}

// allFollow reports whether all replicas of a shard follow. A new witness does not
// have what one of them may lack, as the one before it does.
func (s *step) allFollow(c *census) bool {
	return !slices.ContainsFunc(slices.Concat(c.good, c.dead), func(r Replica) bool { return !c.lead.follows(r.ID, s.o.Lag) })
}

// makeWay begins to give up the witness of a shard whose node is the only one that
// could have the replica that is missing, or on a dead node: a second copy is
// worth more than a third vote. Before it, what is on the dead node has to go,
// if a majority would need it. It reports whether the witness is in the way.
func (s *step) makeWay(c *census) bool {
	u := s.urgency(c)
	if len(c.watch) == 0 || len(c.failed) > 0 || u != missing && (u != lost || len(c.dead) == 0) || s.elsewhere(c) {
		return false
	}
	w := c.watch[0]
	if n := s.nodes[w.Node]; n == nil || !s.takes(n) {
		return false
	}
	s.operators++
	s.begun[c.ref.Shard.ID] = true
	if u == missing && s.sound(c) && c.lead.safe(s.o.Lag, []MemberChange{{RemoveMember, memberOf(w)}}) {
		s.alter(c, "a replica takes the place of the witness", MemberChange{RemoveMember, memberOf(w)})
		return true
	}
	for _, r := range slices.Concat(c.away, c.dead) {
		if c.lead.member(r.ID) && !c.lead.follows(r.ID, s.o.Lag) {
			s.alter(c, "a replica that is away is to be made where the witness is", MemberChange{RemoveMember, memberOf(r)})
			break
		}
	}
	return true
}

// sound reports whether the nodes of all replicas of a shard that vote are up, as
// they themselves say: without a witness none of them can be missed.
func (s *step) sound(c *census) bool {
	return !slices.ContainsFunc(c.ref.Shard.Replicas, func(r Replica) bool {
		n := s.nodes[r.Node]
		return r.Whole() && (n == nil || n.live != Up)
	})
}

// elsewhere reports whether a node could have a replica of a shard of which it
// holds nothing yet, now or later.
func (s *step) elsewhere(c *census) bool {
	return slices.ContainsFunc(s.order, func(n *dataNode) bool {
		_, holds := c.ref.Shard.On(n.id)
		return n.active && n.live != Dead && !holds
	})
}

// addWitness asks for a witness of a shard: on a node that holds nothing of it,
// of these the one with the fewest witnesses.
func (s *step) addWitness(c *census) {
	var best *dataNode
	for _, n := range s.order {
		if _, holds := c.ref.Shard.On(n.id); holds || !n.active || n.live != Up || n.full {
			continue
		}
		_, failed := s.gaveUp[n.id]
		if best == nil {
			best = n
			continue
		}
		_, failedBest := s.gaveUp[best.id]
		if cmp.Or(boolCompare(failed, failedBest), cmp.Compare(n.witnesses, best.witnesses)) < 0 {
			best = n
		}
	}
	if best == nil {
		return
	}
	s.operators++
	s.begun[c.ref.Shard.ID] = true
	best.witnesses++
	s.propose(&AddReplica{Group: c.lead.report.Group, Node: best.id, Witness: true}, "shard %d: a third vote is missing", c.ref.Shard.ID)
}
