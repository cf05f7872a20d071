package sim

import (
	"testing"
	"time"
)

// rest lets time pass until all replicas of the group are quiescent.
func (s *script) rest() {
	s.t.Helper()
	s.until("the group is quiescent", func() bool {
		for _, n := range s.Holders(theGroup) {
			if !n.Status(theGroup).Quiescent {
				return false
			}
		}
		return true
	})
}

// A group rests for minutes under one leader. That stops when nobody looks; then a
// client turns to a follower: an election later, as in a busy group, it is served.
// The old leader goes on as a leader that does not know, and serves nothing old.
func TestS30LeaderOfAQuiescentGroupPauses(t *testing.T) {
	scenario(t, 3, 10, func(s *script) {
		old := s.leader()
		s.write(old)
		s.rest()
		elections := s.Counts["elections"]
		s.Run(3 * time.Minute)
		if n := s.Counts["elections"]; n != elections {
			s.t.Errorf("%d elections in a group that rests", n-elections)
		}
		old.Pause(20 * time.Second)
		s.Run(s.Between(0, 3*time.Second))
		began := s.Now()
		s.propose(s.followers(old)[0])
		newer := s.write(s.leaderBut(old))
		if took := s.Now() - began; took > 6*time.Second {
			s.t.Errorf("served after %v", took)
		}
		s.until("the old leader goes on", func() bool { return !old.pausing })
		a := s.ask(old)
		s.settle()
		if a.told != 1 || a.err == nil && a.read < newer.id {
			s.t.Errorf("read %+v, newest is %d", a, newer.id)
		}
	})
}

// Nodes of a quiescent group are killed and start again, one after the other: the
// fast clock of a new start and the slow ones of the others go together, and
// nobody is elected but where a leader died.
func TestS30RestartsInAQuiescentGroup(t *testing.T) {
	scenario(t, 3, 10, func(s *script) {
		s.write(s.leader())
		for range 5 {
			s.rest()
			l := s.leader()
			elections := s.Counts["elections"]
			f := s.followers(l)[s.Rand.IntN(2)]
			f.Kill()
			s.Run(s.Between(0, 20*time.Second))
			s.start(f)
			s.Run(10 * time.Second)
			if n := s.Counts["elections"]; n != elections || !l.Leads(theGroup) {
				s.t.Errorf("%d elections after a follower started again", n-elections)
			}
			s.write(l)
		}
		s.settle()
	})
}

// The machine of a quiescent group's leader loses its disk, and runs again, as
// somebody else, before anybody could find its process gone. The others know only
// that their connections broke, and nobody asks for anything: there is another
// leader nevertheless, so that the lost replica can be replaced.
func TestS30LeaderOfAQuiescentGroupIsWiped(t *testing.T) {
	scenario(t, 3, 10, func(s *script) {
		old := s.leader()
		s.write(old)
		s.rest()
		s.Run(s.Between(0, time.Minute))
		lost := s.seatOn(old)
		old.Wipe()
		lost.lost = true
		s.start(old)
		began := s.Now()
		s.leaderBut(old)
		if took := s.Now() - began; took > 5*time.Second {
			s.t.Errorf("%v without a leader", took)
		}
		next := s.join(old)
		s.changed(without(lost))
		s.changed(learner(next))
		s.changed(voter(next))
		lost.gone = true
		s.settle()
		s.sameMembers(3)
	})
}
