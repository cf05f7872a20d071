package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
)

// witnessed waits for the group of the cell to have two full replicas and a
// witness, and returns their nodes: the one that leads, the other, the witness's.
func (s *storeScript) witnessed() (g dsdb.GroupID, lead, other, watch *Node) {
	s.t.Helper()
	s.puts(s.members[0], theCell)
	g = s.group(s.members[0], theCell)
	lead = s.leaderOf(g)
	for _, p := range lead.Status(g).Members.Voters {
		switch n := s.node(p.Node); {
		case p.Witness:
			watch = n
		case n != lead:
			other = n
		}
	}
	if other == nil || watch == nil {
		s.t.Fatalf("members are %+v", lead.Status(g).Members)
	}
	return g, lead, other, watch
}

// without has a member write n times while a node hears nothing, and returns the
// last value.
func (s *storeScript) without(n *Node, times int, m *member) (value uint64) {
	s.t.Helper()
	s.network.isolate(n.Index)
	for range times {
		value = s.puts(m, theCell)
	}
	return value
}

// led reports whether a node ever led a group.
func (s *storeScript) led(g dsdb.GroupID, r dsdb.ReplicaID) bool {
	for of, who := range s.leaders {
		if of.group == g && who.replica == r {
			return true
		}
	}
	return false
}

// One copy acknowledges with the witness what the other does not hear, and dies,
// its disk with it or not. The witness has it, is elected, brings the other copy
// up and lets that lead.
func TestWitnessHasWhatTheOtherCopyLacks(t *testing.T) {
	for _, wiped := range []bool{false, true} {
		t.Run(fmt.Sprint("wiped=", wiped), func(t *testing.T) {
			storeScenario(t, 3, 3, 2, 6, func(s *storeScript) {
				g, lead, other, watch := s.witnessed()
				value := s.without(other, 20, s.members[watch.Index])
				third := watch.Status(g).Replica
				old := s.members[lead.Index].id
				if wiped {
					lead.Wipe()
				} else {
					lead.Kill()
				}
				s.network.heal()
				s.until("the other copy leads", func() bool { return other.Leads(g) })
				if !s.led(g, third) {
					s.t.Error("the witness never led: what does this test show?")
				}
				if now := s.sees(s.members[other.Index], theCell); now != value {
					s.t.Errorf("%d is there, want %d", now, value)
				}
				s.puts(s.members[watch.Index], theCell)
				if wiped {
					s.replaced[lead.Index] = old.Peer()
				}
				s.settle()
			})
		})
	}
}

// A witness dies and returns, with its disk or without: both copies go on, and
// when it is back one of them can do without the other.
func TestWitnessReturns(t *testing.T) {
	for _, wiped := range []bool{false, true} {
		t.Run(fmt.Sprint("wiped=", wiped), func(t *testing.T) {
			storeScenario(t, 3, 3, 2, 6, func(s *storeScript) {
				g, lead, other, watch := s.witnessed()
				old := s.members[watch.Index].id
				if wiped {
					s.lost[old.DataID], s.lost[old.MetaID] = true, true
					s.replaced[watch.Index] = old.Peer()
					watch.Wipe()
				} else {
					watch.Kill()
				}
				for range 20 {
					s.puts(s.members[lead.Index], theCell)
				}
				s.Run(time.Second)
				s.start(watch)
				s.until("the witness votes again", func() bool {
					r, found := s.thirdOf(g)
					return found && s.node(r.Node) == watch && watch.Holds(g) && watch.Status(g).Last >= lead.Status(g).Commit
				})
				s.network.isolate(other.Index)
				value := s.puts(s.members[watch.Index], theCell)
				s.network.heal()
				if now := s.sees(s.members[other.Index], theCell); now != value {
					s.t.Errorf("%d is there, want %d", now, value)
				}
				s.settle()
			})
		})
	}
}

// thirdOf returns the witness of a group that votes, when nothing else is on its way.
func (s *storeScript) thirdOf(g dsdb.GroupID) (raftnode.Peer, bool) {
	if l := s.Leader(g); l != nil && l.Status(g).Settled && len(l.Status(g).Members.Outgoing) == 0 {
		for _, p := range l.Status(g).Members.Voters {
			if p.Witness {
				return p, true
			}
		}
	}
	return raftnode.Peer{}, false
}

// A witness has let go of its log, which was too long, when the copy that it was
// for dies. Nothing can be written then, and nothing is lost: when that copy is
// back it fills the other one.
func TestWitnessLetsGoOfItsLog(t *testing.T) {
	storeScenario(t, 3, 3, 2, 6, func(s *storeScript) {
		g, lead, other, watch := s.witnessed()
		value := s.without(other, 20, s.members[watch.Index])
		first, last := watch.run.log.Bounds(g)
		if last-first < 15 {
			s.t.Errorf("the witness keeps [%d, %d] of what the other copy lacks", first, last)
		}
		watch.input(func(c *raftnode.Core) { c.Release(g) })
		s.until("the witness has let go", func() bool { first, last := watch.run.log.Bounds(g); return first > last })
		lead.Kill()
		s.network.heal()
		lost, _ := s.putting(s.members[watch.Index], theCell)
		if err := s.answered(lost); err == nil {
			s.t.Error("a write was acknowledged without what was acknowledged before")
		}
		if other.Leads(g) {
			s.t.Error("a copy leads that lacks what was acknowledged")
		}
		s.start(lead)
		s.until("a copy leads", func() bool { l := s.Leader(g); return l != nil && l != watch })
		if now := s.sees(s.members[other.Index], theCell); now < value {
			s.t.Errorf("%d is there, want %d", now, value)
		}
		s.settle()
	})
}
