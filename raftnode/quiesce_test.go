package raftnode

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
)

// quiescent makes a group of three that nothing happens in any more.
func quiescent(t *testing.T) *trio {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(int(leaderIdle+quiescentPace), 0, 1, 2)
	for i := range 3 {
		if !tr.sleeps(i) {
			t.Fatalf("replica %d does not rest", i+1)
		}
	}
	return tr
}

func (tr *trio) sleeps(i int) bool { return tr.cores[i].groups[trioGroup].clock.quiescent }

// Followers slow down before their leader does; from then on there are as many
// heartbeats as the pace allows, and nobody campaigns.
func TestIdleGroupIsQuiescent(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	for n := 0; !tr.sleeps(0); n++ {
		if n > int(2*leaderIdle) {
			t.Fatal("the leader does not rest")
		}
		tr.tick(1, 0, 1, 2)
	}
	if !tr.sleeps(1) || !tr.sleeps(2) {
		t.Error("the leader rests before its followers")
	}
	heartbeats, term := 0, tr.status(0).Term
	for range 100 * heartbeatTicks * quiescentPace {
		for s := range TickSlices {
			for i := range 3 {
				tr.cores[i].Tick(s)
			}
		}
		for i := range 3 {
			tr.settle(i)
		}
		heartbeats += len(tr.boxes[1])
		tr.converse(0, 1, 2)
	}
	if heartbeats != 100 {
		t.Errorf("%d heartbeats in the time of 100", heartbeats)
	}
	for i := range 3 {
		if s := tr.status(i); !tr.sleeps(i) || s.Term != term || s.Leader != 1 {
			t.Errorf("replica %d: %+v", i+1, s)
		}
	}
	for _, p := range tr.status(0).Progress {
		if !p.Active {
			t.Errorf("%+v counts as lost", p)
		}
	}
}

// Whatever is asked for, wherever, wakes all replicas.
func TestRequestsWakeAQuiescentGroup(t *testing.T) {
	for name, ask := range map[string]func(tr *trio){
		"proposal":                func(tr *trio) { tr.propose(0, "b") },
		"read":                    func(tr *trio) { tr.read(0) },
		"change":                  func(tr *trio) { tr.change(0, Change{AddLearner, peer(3)}) },
		"transfer":                func(tr *trio) { tr.must(tr.transfer(0, 0), 0, 1, 2) },
		"proposal at a follower":  func(tr *trio) { tr.propose(1, "b") },
		"read at a follower":      func(tr *trio) { tr.read(2) },
		"announced at a follower": func(tr *trio) { tr.cores[1].Wake(trioGroup); tr.settle(1) },
		"campaign of one follower": func(tr *trio) {
			_ = tr.cores[1].groups[trioGroup].node.Campaign()
			tr.cores[1].touch(tr.cores[1].groups[trioGroup])
			tr.settle(1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := quiescent(t)
			ask(tr)
			tr.converse(0, 1, 2)
			for i := range 3 {
				if tr.sleeps(i) {
					t.Errorf("replica %d rests", i+1)
				}
			}
			term := tr.status(0).Term
			tr.tick(int(4*leaderIdle), 0, 1, 2)
			if s := tr.status(0); s.Term != term {
				t.Errorf("term %d after %d", s.Term, term)
			}
		})
	}
}

// The leader of a quiescent group falls silent, which nobody notices for long.
// Then one follower is asked for something: the election is as soon as in a busy
// group, since it has told the other one.
func TestQuiescentGroupReplacesASilentLeaderOnDemand(t *testing.T) {
	for quiet := range uint64(3 * quiescentPace) {
		tr := quiescent(t)
		tr.tick(int(quiet), 1, 2)
		if r := tr.propose(1, "b"); dsdb.KindOf(r.err) != dsdb.KindNotLeader {
			t.Fatalf("proposal at a follower: %+v", r)
		}
		ticks := 0
		for ; !tr.status(1).Leading && !tr.status(2).Leading; ticks++ {
			if ticks > 4*electionTicks {
				t.Fatal("no leader")
			}
			tr.tick(1, 1, 2)
		}
		tr.boxes[0] = nil
		tr.tick(1, 0, 1, 2)
		tr.tick(int(leaderIdle+quiescentPace), 0, 1, 2)
		if !tr.sleeps(0) || tr.status(0).Leading {
			t.Errorf("the old leader: %+v", tr.status(0))
		}
	}
}

// A replica that starts has a fast clock and hears a slow leader: that leads on.
func TestRestartInAQuiescentGroup(t *testing.T) {
	for quiet := range 2 * quiescentPace {
		tr := quiescent(t)
		term := tr.status(0).Term
		tr.tick(quiet, 0, 1, 2)
		tr.restart(2)
		tr.tick(int(leaderIdle+4*electionTicks), 0, 1, 2)
		for i := range 3 {
			if s := tr.status(i); s.Term != term || s.Leader != 1 || !tr.sleeps(i) {
				t.Errorf("replica %d: %+v", i+1, s)
			}
		}
	}
}

// A leader that is known to be gone is replaced without the clock of raft.
func TestQuiescentGroupReplacesAGoneLeaderAtOnce(t *testing.T) {
	tr := quiescent(t)
	for _, i := range []int{1, 2} {
		tr.cores[i].PeerDown(node(0))
		tr.settle(i)
	}
	tr.tick(electionTicks-1, 1, 2)
	if !tr.status(1).Leading && !tr.status(2).Leading {
		t.Error("no leader within an election timeout")
	}
}

// Messages to a node are dropped: that wakes its groups once, not for as long as
// it is away.
func TestUnreachableNodeWakesAQuiescentGroupOnce(t *testing.T) {
	tr := quiescent(t)
	tr.cores[0].Unreachable(node(2))
	tr.settle(0)
	if tr.sleeps(0) {
		t.Error("the leader rests while a follower may be lost")
	}
	for range 2 * leaderIdle {
		tr.tick(1, 0, 1)
		tr.cores[0].Unreachable(node(2))
		tr.settle(0)
	}
	if !tr.sleeps(0) || !tr.status(0).Leading {
		t.Error("the leader does not rest while a follower is away")
	}
	tr.boxes[2] = nil
	tr.write("b", 0, 1)
	tr.tick(int(2*leaderIdle), 0, 1, 2)
	tr.caughtUp(2, []string{"a", "b"})
}

// The connections to the leader break, nobody knows whether its process is gone,
// and nobody asks for anything: it is replaced as soon as in a busy group.
func TestQuiescentGroupReplacesALeaderWhoseConnectionsBroke(t *testing.T) {
	for quiet := range 3 * quiescentPace {
		tr := quiescent(t)
		tr.tick(quiet, 1, 2)
		for _, i := range []int{1, 2} {
			tr.cores[i].Unreachable(node(0))
			tr.settle(i)
		}
		tr.tick(4*electionTicks, 1, 2)
		if !tr.status(1).Leading && !tr.status(2).Leading {
			t.Errorf("%d ticks after its last sign: no leader", quiet)
		}
	}
}

// A leader that fails alone leaves followers that do not wait for it.
func TestFailedLeaderWakesItsFollowers(t *testing.T) {
	tr := quiescent(t)
	g := tr.cores[0].groups[trioGroup]
	tr.cores[0].guard(g, func() { panic("failed on purpose") })
	tr.settle(0)
	tr.converse(1, 2)
	tr.tick(4*electionTicks, 1, 2)
	if !tr.status(1).Leading && !tr.status(2).Leading {
		t.Error("no leader")
	}
}

// The message that wakes tells raft nothing, also one that does not know it.
func TestWakeMessageConfirmsNoRead(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	read := tr.read(0)
	for _, i := range []int{1, 2} {
		m := wakeMessage(tr.cores[i].groups[trioGroup], 1)
		if err := tr.cores[0].groups[trioGroup].node.Step(m); err != nil {
			t.Fatal(err)
		}
		tr.settle(0)
	}
	if read.told != 0 {
		t.Errorf("%+v", read)
	}
	if got, err := DecodeMessage(AppendMessage(nil, wakeMessage(tr.cores[1].groups[trioGroup], 1))); err != nil || got.GetType() != raftpb.MsgHeartbeatResp || !got.GetReject() {
		t.Errorf("as it arrives: %v, %v", got, err)
	}
}
