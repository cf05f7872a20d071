package sim

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
)

// Scenarios of snapshots and of members that change. The numbers are those of
// the design's list.

// A follower that the leader's log does not reach any more gets a snapshot, and
// is killed, or loses its power, when a part of it has arrived. It is as it was
// then, and the next snapshot serves it.
func TestS6KilledWhileASnapshotArrives(t *testing.T) {
	for _, percent := range []int64{0, 25, 50, 75, 100} {
		t.Run(fmt.Sprint(percent), func(t *testing.T) {
			scenario(t, 3, 4, func(s *script) {
				l := s.leader()
				f := s.followers(l)[0]
				s.network.isolate(f.Index)
				s.advance(l, f)
				s.heal()
				s.shipped(f, percent)
				before := f.Status(theGroup).Applied
				if s.Chance(0.5) {
					f.Kill()
				} else {
					f.CutPower(s.Rand.IntN(3) * 50)
				}
				s.start(f)
				if names, err := f.disk.List(incomingDir); len(names) > 0 {
					s.t.Errorf("a part of a snapshot is left: %v, %v", names, err)
				}
				if now := f.Status(theGroup); now.Failed != nil || now.Applied > before {
					s.t.Errorf("after the restart: %+v, before %d was applied", now, before)
				}
				s.settle()
				if n := s.Counts["snapshots installed"]; n == 0 {
					s.t.Error("no snapshot was installed")
				}
			})
		})
	}
}

// The power of the receiver fails at each change to its disk in turn, from when
// all files have arrived until the snapshot is installed and the log goes on.
func TestS6PowerFailsAtEachStepOfAnInstall(t *testing.T) {
	step := 0
	for done := false; !done && !t.Failed(); {
		step++
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			scenario(t, 3, 1, func(s *script) {
				struck := false
				s.restarts()
				restart := s.died
				s.died = func(n *Node, err error) {
					struck = true
					restart(n, err)
				}
				l := s.leader()
				f := s.followers(l)[0]
				s.network.isolate(f.Index)
				s.advance(l, f)
				s.heal()
				sh := s.shipped(f, 100)
				f.disk.failPower(step)
				s.until("the power fails, or the sender knows that it arrived", func() bool { return struck || !slices.Contains(s.shipments, sh) })
				done = !struck
				s.settle()
				if s.Counts["snapshots installed"] == 0 {
					s.t.Error("no snapshot was installed")
				}
			})
		})
	}
	if cuts := step - 1; cuts < 10 {
		t.Errorf("an install of %d changes to the disk", cuts)
	}
}

// The files of a snapshot stay while it is on its way, also if the sender
// flushes again, and its log keeps what comes after it.
func TestS6TheSenderKeepsWhatIsOnItsWay(t *testing.T) {
	scenario(t, 3, 5, func(s *script) {
		l := s.leader()
		f := s.followers(l)[0]
		s.network.isolate(f.Index)
		s.advance(l, f)
		s.heal()
		sh := s.shipped(f, 1)
		for range 5 {
			for range 60 {
				s.set(l, theGroup, 0, 1000, nil)
			}
			s.Run(50 * time.Millisecond)
			s.flushed(l)
		}
		if first, _ := l.run.log.Bounds(theGroup); slices.Contains(s.shipments, sh) && first > sh.task.Snapshot.Manifest.Index+1 {
			s.t.Errorf("the leader's log begins at %d while a snapshot of %d is on its way", first, sh.task.Snapshot.Manifest.Index)
		}
		s.until("the snapshot is there", func() bool { return s.Counts["snapshots installed"] > 0 })
		s.Run(time.Second)
		if n := s.Counts["snapshots sent"]; n > 1 {
			s.t.Errorf("%d snapshots were sent where one is enough", n)
		}
		s.settle()
	})
}

// A replica needs two snapshots one right after the other, and the first arrives
// again after the second (etcd issue 18055).
func TestS7TwoSnapshotsInARow(t *testing.T) {
	scenario(t, 3, 5, func(s *script) {
		l := s.leader()
		f := s.followers(l)[0]
		var old *shipment
		for i := range 3 {
			s.network.isolate(f.Index)
			s.advance(l, f)
			s.heal()
			sh := s.shipped(f, 100)
			if old == nil {
				old = sh
			}
			s.until("the snapshot is installed", func() bool { return !slices.Contains(s.shipments, sh) })
			if n := s.Counts["snapshots installed"]; n != i+1 {
				s.t.Fatalf("%d snapshots were installed, want %d", n, i+1)
			}
		}
		outcome := &attempt{}
		applied := f.Status(theGroup).Applied
		f.input(func(c *raftnode.Core) {
			c.Install(raftnode.Sender{Node: l.DataID}, old.task.Snapshot, "nowhere", waiter(func(_ dsdb.Verdict, err error) { outcome.tell(err) }))
		})
		s.answered(outcome)
		if outcome.err != nil {
			s.t.Errorf("an old snapshot arrives again: %v", outcome.err)
		}
		if now := f.Status(theGroup); now.Applied < applied {
			s.t.Errorf("an old snapshot took the replica from %d back to %d", applied, now.Applied)
		}
		s.settle()
	})
}

// While a snapshot is on its way to a follower the members change, so that its
// state is of before and what comes after it changes them.
func TestS8ASnapshotCrossesAChangeOfMembers(t *testing.T) {
	scenarioOf(t, 5, 3, 8, func(s *script) {
		l := s.leader()
		f := s.followers(l)[0]
		third := s.followers(l)[1]
		s.network.isolate(f.Index)
		s.advance(l, f)
		s.heal()
		sh := s.shipped(f, 20)
		a := s.join(s.spare())
		s.changed(learner(a))
		if !slices.Contains(s.shipments, sh) {
			s.t.Error("the snapshot is there before the members change")
		}
		s.changed(voter(a))
		b := s.join(s.spare())
		s.changed(learner(b))
		s.changed(voter(b), without(s.seatOn(third)))
		s.leave(s.seatOn(third))
		s.settle()
		s.sameMembers(4)
	})
}

// sameMembers checks that all replicas know the same members, so many voters and no others.
func (s *script) sameMembers(voters int) {
	s.t.Helper()
	want := s.leader().Status(theGroup).Members
	if len(want.Voters) != voters || len(want.Outgoing)+len(want.Learners) > 0 {
		s.t.Errorf("members: %+v, want %d voters", want, voters)
	}
	for _, n := range s.Holders(theGroup) {
		if ms := n.Status(theGroup).Members; !slices.Equal(ms.Voters, want.Voters) || len(ms.Outgoing)+len(ms.Learners) > 0 {
			s.t.Errorf("node %d has the members %+v, the leader %+v", n.Index, ms, want)
		}
	}
}

// The leader loses its power as soon as a joint change of two replicas has been
// applied: the next one finishes it by itself (etcd issue 12136).
func TestS9LeaderDiesInAJointChange(t *testing.T) {
	scenarioOf(t, 5, 3, 10, func(s *script) {
		a, b := s.join(s.spare()), s.join(s.spare())
		s.changed(learner(a))
		s.changed(learner(b))
		old := s.leader()
		var gone []*seat
		for _, n := range s.followers(old) {
			if n != a.node && n != b.node {
				gone = append(gone, s.seatOn(n))
			}
		}
		s.until("the new replicas have caught up", func() bool {
			return a.node.Status(theGroup).Applied == old.Status(theGroup).Applied && b.node.Status(theGroup).Applied == old.Status(theGroup).Applied
		})
		struck := false
		s.joint = func(n *Node, _ dsdb.GroupID) {
			if n == old && !struck {
				struck = true
				s.After(s.Between(0, time.Millisecond), func() { n.CutPower(0) })
			}
		}
		s.change(old, voter(a), voter(b), without(gone[0]), without(gone[1]))
		s.until("the leader is struck", func() bool { return struck && !old.Up() })
		s.until("the change is over, one way or the other", func() bool {
			l := s.Leader(theGroup)
			return l != nil && l.Status(theGroup).Settled && len(l.Status(theGroup).Members.Outgoing) == 0
		})
		s.start(old)
		s.changed(voter(a), voter(b), without(gone[0]), without(gone[1]))
		s.leave(gone[0])
		s.leave(gone[1])
		s.settle()
		s.sameMembers(3)
	})
}

// Two of three replicas leave. The one that stays loses its power when they know
// of it already, and does not know that itself any more: it needs their votes.
func TestS9ThoseWhoLeftStillVote(t *testing.T) {
	scenario(t, 3, 8, func(s *script) {
		l := s.leader()
		s.write(l)
		b, c := s.followers(l)[0], s.followers(l)[1]
		s.change(l, without(s.seatOn(b)), without(s.seatOn(c)))
		s.until("the others know that they are out", func() bool {
			mb, mc := b.Status(theGroup).Members, c.Status(theGroup).Members
			return len(mb.Voters)+len(mb.Outgoing) == 1 && len(mc.Voters)+len(mc.Outgoing) == 1
		})
		l.CutPower(0)
		s.Run(time.Second)
		s.start(l)
		s.until("it leads", func() bool { return l.Leads(theGroup) && len(l.Status(theGroup).Members.Voters) == 1 })
		s.write(l)
		for _, n := range []*Node{b, c} {
			s.leave(s.seatOn(n))
		}
		s.settle()
		s.sameMembers(1)
	})
}

// The leader is taken out of its group, of three and of two: the others go on
// at once, and it knows that it is out.
func TestS10RemoveTheLeader(t *testing.T) {
	for _, founders := range []int{2, 3} {
		t.Run(fmt.Sprint(founders), func(t *testing.T) {
			scenarioOf(t, 3, founders, 8, func(s *script) {
				old := s.leader()
				s.write(old)
				seat := s.seatOn(old)
				s.changed(without(seat))
				began := s.Now()
				l := s.leaderBut(old)
				s.write(l)
				if took := s.Now() - began; took > 4*time.Second {
					s.t.Errorf("%v without a leader", took)
				}
				s.until("it knows", func() bool { return old.Status(theGroup).Removed })
				s.leave(seat)
				s.settle()
				s.sameMembers(founders - 1)
			})
		})
	}
}

// A replica that does not have the log, or is away, is not made a voter, whether
// the others are well or not.
func TestS11NoVoteForWhoHasNotTheLog(t *testing.T) {
	scenarioOf(t, 4, 3, 5, func(s *script) {
		l := s.leader()
		away := s.followers(l)[0]
		n := s.spare()
		a := s.join(n)
		refused := func(why string) {
			s.t.Helper()
			at := s.change(s.leader(), voter(a))
			s.answered(at)
			if at.err == nil {
				s.t.Fatalf("a voter although %s", why)
			}
		}
		s.network.isolate(n.Index)
		s.changed(learner(a))
		refused("it has nothing")
		s.network.heal()
		s.until("it has caught up", func() bool { return n.Status(theGroup).Applied >= l.Status(theGroup).Applied })
		away.Kill()
		n.Kill()
		s.Run(3 * time.Second)
		refused("it is away, as is another voter")
		s.start(n)
		s.changed(voter(a)) // three of four are there
		n.Kill()
		s.start(away)
		s.settle()
		s.sameMembers(4)
	})
}

// A machine loses its disk and its replica is replaced by another on the same
// machine. What is sent to the old one, which had a vote, finds nobody.
func TestS14MessagesForAReplicaThatIsNoMore(t *testing.T) {
	scenario(t, 3, 5, func(s *script) {
		l := s.leader()
		f := s.followers(l)[0]
		old := s.seatOn(f)
		type sent struct {
			from *Node
			raftnode.Envelope
		}
		var kept []sent
		s.network.tap = func(from, to int, e raftnode.Envelope) bool {
			if to == f.Index && len(kept) < 1000 {
				kept = append(kept, sent{s.Nodes[from], e})
			}
			return false
		}
		s.write(l)
		s.Run(time.Second)
		f.Wipe()
		old.lost = true
		s.leaderBut(f)
		s.Run(5 * time.Second)
		s.start(f)
		next := s.join(f)
		s.changed(without(old))
		s.changed(learner(next))
		s.changed(voter(next))
		old.gone = true
		s.write(s.leader())
		s.Run(time.Second)
		s.network.tap = nil
		was := f.Status(theGroup)
		for _, m := range kept {
			s.network.deliver(m.from, f, m.Envelope)
		}
		leads := l.Status(theGroup).Replica // it may be elected again before it hears that the old one is gone
		s.network.deliver(l, f, raftnode.Envelope{Group: theGroup, From: leads, To: old.replica, Message: &raftpb.Message{
			Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(leads)), To: new(uint64(old.replica)), Term: new(was.Term + 1), Commit: new(uint64(0))}})
		s.Run(time.Second)
		if now := f.Status(theGroup); now.Failed != nil || now.Term != was.Term || now.Replica != next.replica {
			s.t.Errorf("after messages for replica %d: %+v, before: %+v", old.replica, now, was)
		}
		if len(kept) == 0 || kept[0].To != old.replica {
			s.t.Fatal("no message was kept")
		}
		s.settle()
		s.sameMembers(3)
	})
}

// A thousand groups on three nodes: one node is killed, and all groups have a
// leader again in five seconds, after few elections and few messages.
func TestS28ANodeOfAThousandGroupsIsKilled(t *testing.T) {
	const groups = 1000
	r := newRun(t, 1, func(w *World) (int, [][]int) {
		founders := make([][]int, groups)
		for i := range founders {
			founders[i] = w.Rand.Perm(3)
		}
		return 3, founders
	})
	led := func() (n int) {
		for _, g := range r.Groups() {
			if r.Leader(g) != nil {
				n++
			}
		}
		return n
	}
	r.Run(5 * time.Second)
	if n := led(); n != groups {
		t.Fatalf("%d of %d groups have a leader", n, groups)
	}
	sent := 0
	r.network.tap = func(int, int, raftnode.Envelope) bool { sent++; return false }
	victim, lost := r.Nodes[0], 0
	for _, g := range r.Groups() {
		if victim.Leads(g) {
			lost++
		}
	}
	elections := r.Counts["elections"]
	victim.Kill()
	r.Run(300 * time.Millisecond)
	for _, n := range r.Nodes[1:] {
		n.PeerDown(victim.names()...)
	}
	busiest := 0
	for range 5 {
		r.Run(time.Second)
		busiest, sent = max(busiest, sent), 0
	}
	elections = r.Counts["elections"] - elections
	if n := led(); n != groups || lost < groups/5 {
		t.Errorf("%d of %d groups have a leader 5 s after %d lost theirs", n, groups, lost)
	}
	if elections > lost*3/2 {
		t.Errorf("%d elections for %d groups", elections, lost)
	}
	if busiest > 15*groups {
		t.Errorf("%d messages in a second between %d groups", busiest, groups)
	}
	t.Logf("%d groups lost their leader: %d elections, at most %d messages a second", lost, elections, busiest)
	for _, e := range r.Errs {
		t.Error(e)
	}
}
