package meta

import (
	"cmp"
	"slices"

	"github.com/dasudian/dsdb"
)

// urgency orders what begins: the less, the sooner.
type urgency int

const (
	missing  urgency = iota // there are fewer whole replicas than asked for
	lost                    // one is on a dead node
	leaving                 // one is on a node that leaves, and is not needed
	surplus                 // there are more than asked for
	watched                 // the witness is missing, lost, or not needed
	anything                // none of these
)

// census sorts the replicas of a shard by what they are good for. Witnesses are
// none of good, dead and away.
type census struct {
	ref     ShardRef
	lead    *leadership // nil: a full replica that leads is not known
	want    int         // whole replicas that there are to be
	third   bool        // there is to be a witness
	watch   []Replica   // witnesses that vote
	good    []Replica   // voters on nodes that stay and are not dead
	dead    []Replica   // voters on nodes that stay, but are dead
	away    []Replica   // voters on nodes that do not stay
	retired []Replica
	failed  []Replica
	filling []Replica
}

func (c *census) present() int { return len(c.good) + len(c.dead) }

// idle reports whether nothing goes on at the shard.
func (c *census) idle() bool { return len(c.filling)+len(c.retired)+len(c.failed) == 0 }

// shards decides about the replicas of all shards: first what has begun goes on,
// then what is most urgent begins.
func (s *step) shards() {
	var begin []*census
	stable := len(s.d.active(DataNode))
	for _, ref := range s.d.Groups() {
		for _, sh := range ref.Group.Shards {
			if s.succeed(ShardRef{ref, sh}) {
				continue
			}
			c := s.census(ShardRef{ref, sh}, stable)
			s.delay(c)
			if c.lead == nil || c.lead.joint() || s.record(c) {
				continue
			}
			if len(c.filling) > 0 || len(c.retired) > 0 {
				s.proceed(c)
			} else if s.urgency(c) < anything {
				begin = append(begin, c)
			}
		}
	}
	slices.SortStableFunc(begin, func(a, b *census) int { return cmp.Compare(s.urgency(a), s.urgency(b)) })
	for _, c := range begin {
		s.begin(c)
	}
	for len(begin) == 0 && s.spread() {
	}
}

func (s *step) census(ref ShardRef, stable int) *census {
	c := &census{ref: ref, lead: s.leader(ref.Shard.ID.Group()), want: max(1, min(ref.Policy.ReplicaN, stable)), third: witnessed(ref.Policy.ReplicaN, stable)}
	for _, r := range ref.Shard.Replicas {
		n := s.nodes[r.Node]
		if c.lead != nil && r.Witness && r.ID == c.lead.report.Replica {
			c.lead = nil // it hands its leadership on by itself
		}
		switch {
		case r.Role == Learner:
			c.filling = append(c.filling, r)
		case r.Role == LeavingVoter:
			c.retired = append(c.retired, r)
		case r.Role == Failed:
			c.failed = append(c.failed, r)
		case r.Witness:
			c.watch = append(c.watch, r)
		case n == nil || !n.active:
			c.away = append(c.away, r)
		case n.live == Dead:
			c.dead = append(c.dead, r)
		default:
			c.good = append(c.good, r)
		}
	}
	return c
}

func (s *step) urgency(c *census) urgency {
	switch {
	case c.present() < c.want:
		return missing
	case len(c.dead) > 0 || len(c.failed) > 0:
		return lost
	case len(c.away) > 0:
		return leaving
	case c.present() > c.want:
		return surplus
	case s.watchless(c):
		return watched
	}
	return anything
}

// record brings the catalogue in line with the members of the group, and removes
// members that the catalogue has forgotten. It reports whether it did anything.
func (s *step) record(c *census) bool {
	group := c.ref.Shard.ID.Group()
	before := len(s.out)
	for _, r := range c.filling {
		if c.lead.voter(r.ID) {
			s.propose(&PromoteReplica{group, r.ID}, "replica %d of shard %d votes", r.ID, group)
		}
	}
	for _, r := range slices.Concat(c.retired, c.failed) {
		if !c.lead.member(r.ID) && s.settled(c.lead) {
			s.propose(&RemoveReplica{group, r.ID}, "replica %d of shard %d is no member any more", r.ID, group)
		}
	}
	for _, r := range slices.Concat(c.good, c.dead, c.away, c.watch) {
		// It was removed just when the catalogue had decided otherwise.
		if !c.lead.member(r.ID) && s.settled(c.lead) {
			s.propose(&RetireReplica{group, r.ID}, "replica %d of shard %d is no member any more", r.ID, group)
		}
	}
	return len(s.out) > before || s.expel(c.lead, c.ref.Shard.Replicas)
}

// expel removes the members of a group that the catalogue gave up. Ids that the
// catalogue has not given out yet show that this version is an old one.
func (s *step) expel(l *leadership, known []Replica) bool {
	for _, m := range slices.Concat(l.report.Members.Voters, l.report.Members.Learners) {
		stranger := !slices.ContainsFunc(known, func(r Replica) bool { return r.ID == m.Replica })
		gone := []MemberChange{{RemoveMember, m}}
		if stranger && m.Replica <= s.d.Counters.Replica && m.Replica != l.report.Replica && l.safe(s.o.Lag, gone) {
			s.change(l, "the catalogue does not know the replica any more", gone...)
			return true
		}
	}
	return false
}

// proceed takes the next step of what has begun at a shard.
func (s *step) proceed(c *census) {
	for _, r := range c.failed { // what a damaged leader sends may fill nobody
		if r.ID == c.lead.report.Replica && s.handOver(c, r) {
			return
		}
	}
	for _, r := range c.filling {
		if s.abandon(c, r) {
			return
		}
	}
	for _, r := range c.filling {
		switch {
		case c.lead.voter(r.ID):
			continue
		case !c.lead.member(r.ID):
			s.change(c.lead, "a replica is to be filled", MemberChange{AddLearner, memberOf(r)})
		case c.lead.follows(r.ID, s.o.Lag):
			s.admit(c, r)
		}
		return
	}
	s.finish(c)
}

// abandon gives a learner up whose node is lost, or that gets nowhere for too long: a
// large shard takes hours.
func (s *step) abandon(c *census, r Replica) bool {
	group := c.ref.Shard.ID.Group()
	n := s.nodes[r.Node]
	lost := n == nil || !n.active || n.live == Dead
	if c.lead.voter(r.ID) || !lost && !over(s.now, s.filling[r.ID].since, s.o.OperatorTimeout) {
		return false
	}
	if n != nil {
		s.gaveUp[n.id] = s.now
	}
	if c.lead.member(r.ID) {
		s.change(c.lead, "a replica that is not filled is given up", MemberChange{RemoveMember, memberOf(r)})
	} else {
		s.propose(&RemoveReplica{group, r.ID}, "replica %d of shard %d is given up", r.ID, group)
	}
	return true
}

// admit makes a learner that has caught up a voter, in the place of another if
// one is to go.
func (s *step) admit(c *census, r Replica) {
	add := MemberChange{AddVoter, memberOf(r)}
	if r.Witness && !s.allFollow(c) {
		return
	}
	old, found := s.victim(c, r.Witness)
	if found && old.ID == c.lead.report.Replica && s.handOver(c, old) {
		return
	}
	// Without another voter the new one must be there before the old one goes.
	if !found || len(c.lead.report.Members.Voters) < 2 || old.ID == c.lead.report.Replica {
		s.alter(c, "a replica has caught up", add)
		return
	}
	if old.Role == Voter {
		s.propose(&RetireReplica{c.ref.Shard.ID.Group(), old.ID}, "replica %d of shard %d is replaced by %d", old.ID, c.ref.Shard.ID, r.ID)
		return
	}
	if !c.lead.voter(old.ID) {
		s.alter(c, "a replica has caught up", add)
		return
	}
	s.alter(c, "a replica takes the place of another", add, MemberChange{RemoveMember, memberOf(old)})
}

// alter asks for a change of members if it is safe.
func (s *step) alter(c *census, reason string, steps ...MemberChange) {
	if c.lead.safe(s.o.Lag, steps) {
		s.change(c.lead, reason, steps...)
	}
}

// victim returns the replica, or the witness, that a new one is to replace: rather
// one that does not follow, so that those that do are a majority.
func (s *step) victim(c *census, witness bool) (Replica, bool) {
	unwanted := slices.DeleteFunc(slices.Concat(c.failed, c.retired, c.away, c.dead), func(r Replica) bool { return r.Witness != witness && (witness || c.third) })
	if witness || !c.third {
		unwanted = append(unwanted, c.watch...)
	}
	for _, r := range unwanted {
		if !c.lead.follows(r.ID, s.o.Lag) {
			return r, true
		}
	}
	if len(unwanted) > 0 {
		return unwanted[0], true
	}
	if !witness && c.present() >= c.want && c.present() > 1 {
		return s.heaviest(c), true
	}
	return Replica{}, false
}

// heaviest returns the good replica whose node holds the most, rather not the
// leader.
func (s *step) heaviest(c *census) Replica {
	return slices.MaxFunc(c.good, func(a, b Replica) int {
		leads := func(r Replica) int {
			if r.ID == c.lead.report.Replica {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(s.nodes[a.Node].replicas, s.nodes[b.Node].replicas), cmp.Compare(leads(a), leads(b)), cmp.Compare(a.ID, b.ID))
	})
}

// handOver lets another replica lead than one that is to go. It reports whether
// there is another.
func (s *step) handOver(c *census, from Replica) bool {
	for _, r := range slices.Concat(c.good, c.dead) {
		if r.ID != from.ID && c.lead.voter(r.ID) && c.lead.follows(r.ID, s.o.Lag) {
			s.transfer(c.lead, r.ID, "the leader is to leave")
			return true
		}
	}
	return false
}

// finish removes a retired replica that nothing is to come in the place of, or
// begins to replace it. One that cannot be spared and whose node is well becomes
// a voter as before.
func (s *step) finish(c *census) {
	for _, r := range c.retired {
		if !c.lead.voter(r.ID) {
			continue
		}
		gone := MemberChange{RemoveMember, memberOf(r)}
		n := s.nodes[r.Node]
		well := n != nil && n.active && n.live == Up && c.lead.follows(r.ID, s.o.Lag)
		spared := c.spares(r) && (!r.Witness || s.sound(c)) && c.lead.safe(s.o.Lag, []MemberChange{gone})
		switch target := s.target(c); {
		case spared && r.ID == c.lead.report.Replica && s.handOver(c, r):
		case spared:
			s.change(c.lead, "a replica is not needed any more", gone)
		case well:
			s.propose(&PromoteReplica{c.ref.Shard.ID.Group(), r.ID}, "replica %d of shard %d stays after all", r.ID, c.ref.Shard.ID)
		case r.Witness:
			s.addWitness(c)
		case (c.present() < c.want || len(c.dead) > 0) && target != nil:
			s.add(c, target, "nothing takes the place of a replica yet")
		}
		return
	}
}

// begin starts the most urgent change of a shard, within the limits.
func (s *step) begin(c *census) {
	if s.operators >= s.o.MaxOperators {
		return
	}
	group := c.ref.Shard.ID.Group()
	target := s.target(c)
	witness, needless := s.needless(c)
	switch u := s.urgency(c); {
	case s.expelFailed(c):
	case s.makeWay(c):
	case u == missing && target != nil:
		s.operators++
		s.add(c, target, "too few replicas")
	case u == lost && len(c.dead) > 0 && target != nil:
		s.operators++
		s.add(c, target, "a replica is on a dead node")
	case u == leaving:
		s.retire(c, group, c.away[0])
	case u >= surplus && needless && s.sound(c): // before a copy, which could not be spared if the witness is dead
		s.retire(c, group, witness)
	case u == watched && !needless:
		s.addWitness(c)
	case u == surplus && len(c.dead) > 0:
		s.retire(c, group, c.dead[0])
	case u == surplus:
		s.retire(c, group, s.heaviest(c))
	}
}

// expelFailed removes a replica that has failed from its group: without it a
// majority is no more than before, and its node may get another. One that only
// its files have failed still votes. If its vote is needed, as another voter is
// away, a new replica has to be there before: it reports false then.
func (s *step) expelFailed(c *census) bool {
	if len(c.failed) == 0 || !c.lead.member(c.failed[0].ID) {
		return false
	}
	gone := MemberChange{RemoveMember, memberOf(c.failed[0])}
	if !c.lead.safe(s.o.Lag, []MemberChange{gone}) {
		return false
	}
	s.change(c.lead, "a replica has failed", gone)
	return true
}

func (s *step) retire(c *census, group dsdb.GroupID, r Replica) {
	if c.present() == 0 || !c.lead.safe(s.o.Lag, []MemberChange{{RemoveMember, memberOf(r)}}) {
		return
	}
	s.operators++
	s.begun[c.ref.Shard.ID] = true
	s.propose(&RetireReplica{group, r.ID}, "replica %d of shard %d is not needed", r.ID, group)
}

// add asks for one more replica of a shard.
func (s *step) add(c *census, target *dataNode, reason string) {
	target.incoming++
	target.replicas++
	s.begun[c.ref.Shard.ID] = true
	s.propose(&AddReplica{Group: c.ref.Shard.ID.Group(), Node: target.id}, "shard %d: %s", c.ref.Shard.ID, reason)
}

// target returns the node for one more replica of a shard, nil if there is none:
// one that is up, has room and holds none; of these the one with the fewest
// replicas of the time group, then with the fewest at all.
func (s *step) target(c *census) *dataNode {
	var best *dataNode
	for _, n := range s.order {
		if !s.takes(n) || slices.ContainsFunc(c.ref.Shard.Replicas, func(r Replica) bool { return r.Node == n.id }) {
			continue
		}
		if best == nil || s.rank(c, n, best) < 0 {
			best = n
		}
	}
	return best
}

// takes reports whether a node may get a replica now.
func (s *step) takes(n *dataNode) bool {
	return n.active && n.live == Up && !n.full && n.incoming < s.o.MaxIncoming
}

func (s *step) rank(c *census, a, b *dataNode) int {
	inGroup := func(n *dataNode) (held int) {
		for _, sh := range c.ref.Group.Shards {
			if _, found := sh.On(n.id); found {
				held++
			}
		}
		return held
	}
	_, failedA := s.gaveUp[a.id]
	_, failedB := s.gaveUp[b.id]
	return cmp.Or(boolCompare(failedA, failedB), cmp.Compare(inGroup(a), inGroup(b)),
		cmp.Compare(a.replicas, b.replicas), cmp.Compare(a.id, b.id))
}

// boolCompare orders false before true.
func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// spread moves a replica from the node that holds the most to the one that holds
// the fewest: it makes a new one there, whose place in the group is that of one
// on the heaviest node. It reports whether there was something to move, and room
// for it: as many are moved at a time as one node may fill.
func (s *step) spread() bool {
	if s.o.Spread == 0 || s.operators >= s.o.MaxIncoming {
		return false
	}
	most, least := s.extremes()
	if least == nil || most.replicas-least.replicas <= max(s.o.Spread, most.replicas/20) {
		return false
	}
	stable := len(s.d.active(DataNode))
	for _, ref := range s.d.Groups() {
		for _, sh := range ref.Group.Shards {
			_, has := sh.On(least.id)
			if r, on := sh.On(most.id); !on || has || r.Role != Voter || r.Witness || s.begun[sh.ID] {
				continue
			}
			if c := s.census(ShardRef{ref, sh}, stable); c.lead != nil && !c.lead.joint() && c.idle() {
				s.operators++
				most.replicas--
				s.add(c, least, "the nodes hold different numbers of replicas")
				return true
			}
		}
	}
	return false
}

// extremes returns the node that holds the most replicas, and of those that may
// get one the node that holds the fewest, nil if there is none.
func (s *step) extremes() (most, least *dataNode) {
	for _, n := range s.order {
		if !n.active || n.live != Up {
			continue
		}
		if most == nil || n.replicas > most.replicas {
			most = n
		}
		if s.takes(n) && (least == nil || n.replicas < least.replicas) {
			least = n
		}
	}
	return most, least
}

func memberOf(r Replica) Member { return Member{Replica: r.ID, Node: r.Node, Witness: r.Witness} }
