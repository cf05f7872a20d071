package raftnode

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
)

func (tr *trio) transfer(i int, to dsdb.ReplicaID) *result {
	r := new(result)
	tr.cores[i].Transfer(trioGroup, to, r)
	tr.settle(i)
	return r
}

func TestLeadershipIsHandedOn(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	r := tr.transfer(0, 3)
	if p := tr.propose(0, "meanwhile"); dsdb.KindOf(p.err) != dsdb.KindUnavailable {
		t.Errorf("proposal during the transfer: %+v", p)
	}
	tr.must(r, 0, 1, 2)
	if s := tr.status(2); !s.Leading || s.LeaderNode != node(2) || tr.status(0).LeaderNode != node(2) {
		t.Errorf("new leader: %+v, as the old one knows it %+v", s, tr.status(0))
	}
	tr.write("b", 0, 1, 2)
	if r := tr.transfer(0, 0); dsdb.KindOf(r.err) != dsdb.KindNotLeader {
		t.Errorf("at a follower: %+v", r)
	}
	if r := tr.transfer(2, 9); dsdb.KindOf(r.err) != dsdb.KindUnavailable {
		t.Errorf("to a stranger: %+v", r)
	}
	if r := tr.transfer(2, 3); r.err != nil {
		t.Errorf("to itself: %+v", r)
	}
	tr.tick(electionTicks+1, 1, 2) // node 0 falls silent
	tr.must(tr.transfer(2, 0), 1, 2)
	if !tr.status(1).Leading {
		t.Error("the leadership did not go to the only active voter")
	}
	r = tr.transfer(1, 3)
	tr.boxes[2] = nil
	tr.await(func() bool { return r.told > 0 }, 1)
	if dsdb.KindOf(r.err) != dsdb.KindUnavailable && dsdb.KindOf(r.err) != dsdb.KindNotLeader {
		t.Errorf("to a voter that does not answer: %+v", r)
	}
}

// When the leader's process is known to be gone, the next voter leads long before
// an election timeout, and the other one does not compete.
func TestGoneLeaderIsReplacedAtOnce(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	term := tr.status(1).Term
	for _, i := range []int{1, 2} {
		tr.cores[i].PeerDown(node(2)) // of no concern
		tr.cores[i].PeerDown(node(0))
		tr.settle(i)
	}
	ticks := 0
	for !tr.status(1).Leading && !tr.status(2).Leading {
		if ticks++; ticks >= electionTicks {
			t.Fatal("no leader within an election timeout")
		}
		tr.tick(1, 1, 2)
	}
	tr.tick(electionTicks, 1, 2)
	if got := tr.status(1).Term; got != term+1 {
		t.Errorf("term %d after %d: the voters competed", got, term)
	}
	tr.write("b", 1, 2)
}

// A rumour that the leader is gone costs it nothing as long as others hear it.
func TestLeaderSurvivesARumour(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	tr.cores[1].PeerDown(node(0))
	tr.tick(3*electionTicks, 0, 1, 2)
	if s := tr.status(0); !s.Leading || tr.status(1).LeaderNode != node(0) {
		t.Errorf("%+v", s)
	}
}

func TestMatchedWaitsForAllVoters(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	p := tr.propose(0, "b")
	tr.converse(0, 1)
	if p.told != 1 || p.verdict.Index == 0 {
		t.Fatalf("%+v", p)
	}
	matched := new(result)
	tr.cores[0].Matched(trioGroup, p.verdict.Index, matched)
	tr.settle(0)
	tr.converse(0, 1)
	if matched.told != 0 {
		t.Errorf("without node 2: %+v", matched)
	}
	tr.must(matched, 0, 1, 2)
	at1, lost := new(result), new(result)
	tr.cores[1].Matched(trioGroup, 1, at1)
	tr.cores[0].Matched(trioGroup, 1<<40, lost)
	tr.settle(1)
	tr.must(tr.transfer(0, 0), 0, 1, 2)
	for _, r := range []*result{at1, lost} {
		if r.told != 1 || dsdb.KindOf(r.err) != dsdb.KindNotLeader {
			t.Errorf("without leading: %+v", r)
		}
	}
}

// What was lost on the way to a node is sent again once it is known to be lost.
func TestUnreachableNodeIsProbed(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	for i := range 5 {
		tr.propose(0, fmt.Sprint(i))
		tr.boxes[2] = nil
		tr.cores[0].Unreachable(node(2))
	}
	tr.settle(0)
	tr.tick(heartbeatTicks+1, 0, 1, 2)
	if got := tr.sms[2].payloads(); !slices.Equal(got, tr.sms[0].payloads()) {
		t.Errorf("node 2 applied %q", got)
	}
}

// A leader tells how old what a follower lacks is: as long as it is cut off, and
// until it has caught up. One that has everything is not behind, however long
// nothing is written.
func TestLagOfAReplica(t *testing.T) {
	tr := newTrio(t)
	second := int(time.Second / TickEvery)
	lags := func() string {
		ps := tr.status(0).Progress
		return fmt.Sprint(ps[0].Lag.Round(time.Second), " ", ps[1].Lag.Round(time.Second))
	}
	expect := func(when, want string) {
		t.Helper()
		if got := lags(); got != want {
			t.Errorf("%s: the lags are %s, want %s", when, got, want)
		}
	}
	for range 4 {
		tr.write("a", 0, 1, 2)
		tr.tick(second, 0, 1, 2)
	}
	expect("while all are there", "0s 0s")
	tr.write("b", 0, 1)
	for range 10 {
		tr.tick(second, 0, 1)
		tr.write("c", 0, 1)
	}
	expect("node 2 is cut off", "0s 10s")
	tr.tick(30*second, 0, 1)
	expect("and nothing is written", "0s 40s")
	tr.boxes[2] = nil
	tr.tick(3*second, 0, 1, 2)
	expect("it is back", "0s 0s")
	tr.tick(60*second, 0, 1, 2)
	tr.write("d", 0, 1, 2)
	tr.tick(2, 0, 1, 2)
	expect("after a rest", "0s 0s")
}

// A leader's Status tells of its followers.
func TestProgressIsPublished(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(electionTicks+1, 0, 1)
	tr.write("b", 0, 1)
	s := tr.status(0)
	last := s.Last
	want := []PeerProgress{{Peer: peer(1), Match: last, Active: true}, {Peer: peer(2), Match: last - 1}}
	for i := range s.Progress {
		s.Progress[i].Lag, s.Progress[i].mark = 0, mark{} // see TestLagOfAReplica
	}
	if !slices.Equal(s.Progress, want) {
		t.Errorf("%+v, want %+v", s.Progress, want)
	}
	if s := tr.status(1); s.Progress != nil || s.Leading || s.Replica != 2 || s.LeaderNode != node(0) {
		t.Errorf("follower: %+v", s)
	}
}

// A voter that is gone does not keep the log from being truncated for ever, and
// followers truncate as well, a little later.
func TestGoneVoterDoesNotPinTheLog(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.write("b", 0, 1)
	flushed := [2]uint64{tr.sms[0].flush(), tr.sms[1].flush()}
	first := func(i int) uint64 { f, _ := tr.logs[i].Bounds(trioGroup); return f }
	for i := range 2 {
		tr.cores[i].Flushed(trioGroup)
		tr.settle(i)
		if first(i) > birth.Index+3 {
			t.Errorf("node %d: the log begins at %d, node 2 needs more", i, first(i))
		}
	}
	tr.tick(int(followTicks+jointTicks), 0, 1)
	if first(1) != flushed[1]+1 {
		t.Errorf("the follower's log begins at %d, flushed up to %d", first(1), flushed[1])
	}
	tr.tick(int(goneTicks), 0, 1)
	if first(0) != flushed[0]+1 {
		t.Errorf("the leader's log begins at %d, flushed up to %d", first(0), flushed[0])
	}
}
