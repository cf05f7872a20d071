package meta

import (
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// metaGroup decides who belongs to the meta group and who votes there: every
// process belongs to it, and an odd number of meta nodes, at most MaxVoters, vote.
func (s *step) metaGroup() {
	l := s.leader(dsdb.MetaGroup)
	if l == nil || l.joint() || s.recordMeta(l) || s.expel(l, s.d.MetaReplicas) {
		return
	}
	for _, r := range s.d.MetaReplicas {
		p, _ := s.d.ProcessOf(r.Node)
		useless := r.Role == Failed || !l.voter(r.ID) && (p.Gone() || s.outdated(r, p))
		gone := MemberChange{RemoveMember, memberOf(r)}
		if useless && l.member(r.ID) && r.ID != l.report.Replica && l.safe(s.o.Lag, []MemberChange{gone}) {
			s.change(l, "a copy of the catalogue is lost", gone)
			return
		}
	}
	for _, r := range s.d.MetaReplicas {
		if p, _ := s.d.ProcessOf(r.Node); r.Role == Learner && !p.Gone() && !l.member(r.ID) && !l.holds(r.Node) {
			s.change(l, "a process has joined", MemberChange{AddLearner, memberOf(r)})
			return
		}
	}
	s.elect(l)
}

// outdated reports whether a newer replica has taken the place of one.
func (s *step) outdated(r Replica, p Process) bool {
	newest, _ := s.d.MetaReplica(p)
	return newest.ID != r.ID
}

// recordMeta brings the catalogue in line with the members of the group. It
// reports whether it did anything.
func (s *step) recordMeta(l *leadership) bool {
	before := len(s.out)
	for _, r := range s.d.MetaReplicas {
		p, _ := s.d.ProcessOf(r.Node)
		switch {
		case l.voter(r.ID) && r.Role == Learner:
			s.propose(&PromoteReplica{dsdb.MetaGroup, r.ID}, "replica %d of the catalogue votes", r.ID)
		case l.member(r.ID) && !l.voter(r.ID) && (r.Role == Voter || r.Role == LeavingVoter):
			s.propose(&DemoteReplica{r.ID}, "replica %d of the catalogue votes no more", r.ID)
		case !l.member(r.ID) && r.Role != Voter && (p.Gone() || s.outdated(r, p)) && s.settled(l):
			s.propose(&RemoveReplica{dsdb.MetaGroup, r.ID}, "replica %d of the catalogue is no member any more", r.ID)
		case !l.member(r.ID) && r.Votes() && s.settled(l):
			s.propose(&ReplicaFailed{dsdb.MetaGroup, r.ID, "it is no member any more"}, "replica %d of the catalogue is no member any more", r.ID)
		case r.Role == Failed && !p.Gone() && !s.outdated(r, p):
			s.propose(&AddReplica{Group: dsdb.MetaGroup, Node: p.ID()}, "replica %d of the catalogue has failed", r.ID)
		}
	}
	return len(s.out) > before
}

// elect changes who votes. All changes are one joint change.
func (s *step) elect(l *leadership) {
	voters := s.electorate(l)
	var adds, drops []MemberChange
	for _, r := range voters {
		if !l.voter(r.ID) {
			adds = append(adds, MemberChange{AddVoter, memberOf(r)})
		}
	}
	leads := true
	for _, m := range l.report.Members.Voters {
		if slices.ContainsFunc(voters, func(r Replica) bool { return r.ID == m.Replica }) {
			continue
		}
		leads = leads && m.Replica != l.report.Replica
		drops = append(drops, s.depose(m))
	}
	if !leads {
		if s.handOverMeta(l, voters) {
			return
		}
		drops = nil // another voter must be there before the leader can go
	}
	if steps := slices.Concat(adds, drops); len(steps) > 0 && l.safe(s.o.Lag, steps) {
		s.change(l, "the voters of the catalogue", steps...)
	}
}

// depose returns the change that takes the vote from a member: it becomes a
// learner, unless its log is no good any more.
func (s *step) depose(m Member) MemberChange {
	i := slices.IndexFunc(s.d.MetaReplicas, func(r Replica) bool { return r.ID == m.Replica })
	if i >= 0 && s.d.MetaReplicas[i].Role != Failed {
		return MemberChange{DemoteVoter, m}
	}
	return MemberChange{RemoveMember, m}
}

// handOverMeta lets one of the voters to be lead the meta group.
func (s *step) handOverMeta(l *leadership, voters []Replica) bool {
	for _, r := range voters {
		if l.voter(r.ID) && l.follows(r.ID, s.o.Lag) {
			s.transfer(l, r.ID, "the leader is to lose its vote")
			return true
		}
	}
	return false
}

// electorate returns the replicas that are to vote: those that do and are not
// lost, the leader first, then learners that have caught up, then voters that
// are dead; as many as are odd. Voters that are dead are replaced, but their
// number does not shrink for being dead, nor while a learner is about to catch up.
func (s *step) electorate(l *leadership) []Replica {
	var keep, spare, dead []Replica
	soon := 0
	for _, r := range s.d.MetaReplicas {
		p, _ := s.d.ProcessOf(r.Node)
		if !p.Is(MetaNode) || r.Role == Failed || s.outdated(r, p) {
			continue
		}
		live, _ := s.Liveness(s.now, p.UUID)
		switch {
		case r.ID == l.report.Replica:
			keep = slices.Insert(keep, 0, r)
		case l.voter(r.ID) && live == Dead:
			dead = append(dead, r)
		case l.voter(r.ID):
			keep = append(keep, r)
		case l.member(r.ID) && live == Up && l.follows(r.ID, s.o.Lag):
			spare = append(spare, r)
		case live == Up:
			soon++
		}
	}
	if len(keep) > 1 && len(keep)%2 == 0 && len(spare) == 0 && soon > 0 {
		return slices.Concat(keep, dead)
	}
	odd := func(n int) int { return (min(n, s.o.MaxVoters) - 1) | 1 }
	if mutant.VotersUnbounded {
		odd = func(n int) int { return (n - 1) | 1 }
	}
	size := odd(len(keep) + len(spare))
	if size < len(keep)+len(dead) {
		size = odd(len(keep) + len(spare) + len(dead))
	}
	all := slices.Concat(keep, spare, dead)
	return all[:max(0, min(size, len(all)))]
}
