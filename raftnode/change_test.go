package raftnode

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/dasudian/dsdb"
)

func (tr *trio) change(i int, changes ...Change) *result {
	r := new(result)
	tr.cores[i].Change(trioGroup, changes, r)
	tr.settle(i)
	return r
}

// changeAnywhere has the leader among nodes change the members, whoever that becomes.
func (tr *trio) changeAnywhere(nodes []int, changes ...Change) {
	tr.t.Helper()
	for range 30 {
		r := tr.change(tr.leader(nodes...), changes...)
		tr.await(func() bool { return r.told > 0 }, nodes...)
		if k := dsdb.KindOf(r.err); r.err == nil || k != dsdb.KindNotLeader && k != dsdb.KindUnavailable {
			tr.must(r, nodes...)
			return
		}
		tr.tick(1, nodes...)
	}
	tr.t.Fatal("the members do not change")
}

// must lets the nodes talk and tick until r has an outcome, which must be good.
func (tr *trio) must(r *result, nodes ...int) {
	tr.t.Helper()
	tr.await(func() bool { return r.told > 0 }, nodes...)
	if r.told != 1 || r.err != nil {
		tr.t.Fatalf("told %d times: %v", r.told, r.err)
	}
}

func (tr *trio) await(done func() bool, nodes ...int) {
	tr.t.Helper()
	tr.converse(nodes...)
	for n := 0; !done(); n++ {
		if n > 300 {
			tr.t.Fatalf("it does not come in %d ticks", n)
		}
		tr.tick(1, nodes...)
	}
}

// leader returns the node among nodes that leads in the latest term.
func (tr *trio) leader(nodes ...int) int {
	tr.t.Helper()
	best := -1
	tr.await(func() bool {
		for _, i := range nodes {
			if s := tr.status(i); s.Leading && (best < 0 || s.Term > tr.status(best).Term) {
				best = i
			}
		}
		return best >= 0
	}, nodes...)
	return best
}

// write has the leader among nodes commit data.
func (tr *trio) write(data string, nodes ...int) {
	tr.t.Helper()
	tr.must(tr.propose(tr.leader(nodes...), data), nodes...)
}

func voters(s GroupStatus) []dsdb.ReplicaID {
	var rs []dsdb.ReplicaID
	for _, p := range s.Members.Voters {
		rs = append(rs, p.Replica)
	}
	slices.Sort(rs)
	return rs
}

// A group of three becomes one of five, two at once by a joint change, and one
// of three others; every new replica starts blank with a snapshot, everyone
// applies everything, and a restart knows the same members on the same nodes.
func TestGroupGrowsAndMoves(t *testing.T) {
	tr := newTrio(t)
	var want []string
	write := func(nodes ...int) {
		t.Helper()
		want = append(want, fmt.Sprint(len(want)))
		tr.write(want[len(want)-1], nodes...)
	}
	for range 5 {
		write(0, 1, 2)
	}
	tr.sms[0].flush()
	tr.cores[0].Flushed(trioGroup)
	write(0, 1, 2)
	all := []int{0, 1, 2, 3, 4}
	for _, i := range []int{3, 4} {
		tr.open(i, true)
		tr.must(tr.change(0, Change{AddLearner, peer(i)}), all...)
	}
	write(all...)
	tr.await(func() bool { return len(tr.sms[4].payloads()) == len(want) && len(tr.sms[3].payloads()) == len(want) }, all...)
	tr.must(tr.change(0, Change{AddVoter, peer(3)}, Change{AddVoter, peer(4)}), all...)
	if got := voters(tr.status(0)); !slices.Equal(got, []dsdb.ReplicaID{1, 2, 3, 4, 5}) {
		t.Fatalf("voters %d", got)
	}
	tr.must(tr.change(0, Change{AddVoter, peer(3)}), all...) // nothing to do
	write(all...)
	tr.changeAnywhere(all, Change{Remove, peer(0)}, Change{Remove, peer(1)})
	rest := []int{2, 3, 4}
	write(rest...)
	write(rest...)
	for _, i := range rest {
		tr.restart(i)
	}
	write(rest...)
	for _, i := range rest {
		tr.await(func() bool { return slices.Equal(tr.sms[i].payloads(), want) }, rest...)
		if got := tr.status(i).Members; !reflect.DeepEqual(got, Members{Index: got.Index, Voters: []Peer{peer(2), peer(3), peer(4)}}) {
			t.Errorf("node %d: members %+v", i, got)
		}
	}
	tr.converse(0, 1) // what was said to them last
	for _, i := range []int{0, 1} {
		if s := tr.status(i); !s.Removed || s.Failed != nil {
			t.Errorf("node %d does not know that it has left: %+v", i, s)
		}
		term := tr.status(i).Term
		tr.tick(50, 0, 1)
		if got := tr.status(i).Term; got != term {
			t.Errorf("node %d, which has left, campaigns", i)
		}
	}
	if tr.shelf.pinned != 0 {
		tr.tick(int(readyTicks+2*jointTicks), all...)
		if tr.shelf.pinned != 0 {
			t.Errorf("%d snapshots are not released", tr.shelf.pinned)
		}
	}
}

// The members after a restart are those of the applied log, wherever that was
// truncated or flushed.
func TestMembersSurviveARestartAtAnyPoint(t *testing.T) {
	for flushAt := range 4 {
		tr := newTrio(t)
		tr.write("a", 0, 1, 2)
		flush := func(at int) {
			if at != flushAt {
				return
			}
			for i := range 3 {
				tr.sms[i].flush()
			}
			tr.cores[0].Flushed(trioGroup)
			tr.settle(0)
		}
		flush(0)
		tr.open(3, true)
		tr.must(tr.change(0, Change{AddLearner, peer(3)}), 0, 1, 2, 3)
		flush(1)
		tr.write("b", 0, 1, 2, 3)
		flush(2)
		tr.await(func() bool { return tr.status(3).Applied == tr.status(0).Applied }, 0, 1, 2, 3)
		tr.must(tr.change(0, Change{AddVoter, peer(3)}), 0, 1, 2, 3)
		tr.tick(5, 0, 1, 2, 3)
		flush(3)
		want := tr.status(0).Members
		if len(want.Voters) != 4 {
			t.Fatalf("members %+v", want)
		}
		for i := range 4 {
			tr.restart(i)
		}
		tr.write("c", 0, 1, 2, 3)
		for i := range 4 {
			tr.await(func() bool { return slices.Equal(tr.sms[i].payloads(), []string{"a", "b", "c"}) }, 0, 1, 2, 3)
			if got := tr.status(i).Members; !reflect.DeepEqual(got, want) {
				t.Errorf("flushed at %d: node %d: members %+v, want %+v", flushAt, i, got, want)
			}
		}
	}
}

func TestUnsafeChangesAreRefused(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	stranger := Peer{Replica: 9, Node: 9}
	for name, c := range map[string]struct {
		changes []Change
		kind    dsdb.Kind
	}{
		"promote a stranger":     {[]Change{{AddVoter, stranger}}, dsdb.KindInvalid},
		"second replica on node": {[]Change{{AddLearner, Peer{Replica: 9, Node: node(1)}}}, dsdb.KindInvalid},
		"same replica elsewhere": {[]Change{{AddLearner, Peer{Replica: 2, Node: 9}}}, dsdb.KindInvalid},
		"demote":                 {[]Change{{AddLearner, peer(1)}}, dsdb.KindInvalid},
		"demote a stranger":      {[]Change{{Demote, stranger}}, dsdb.KindInvalid},
		"twice":                  {[]Change{{AddLearner, stranger}, {Remove, stranger}}, dsdb.KindInvalid},
		"no replica":             {[]Change{{AddLearner, Peer{Replica: 0, Node: 9}}}, dsdb.KindInvalid},
		"no operation":           {[]Change{{0, stranger}}, dsdb.KindInvalid},
		"remove all":             {[]Change{{Remove, peer(0)}, {Remove, peer(1)}, {Remove, peer(2)}}, dsdb.KindInvalid},
	} {
		if r := tr.change(0, c.changes...); dsdb.KindOf(r.err) != c.kind {
			t.Errorf("%s: %v", name, r.err)
		}
	}
	if r := tr.change(1, Change{Remove, peer(2)}); dsdb.KindOf(r.err) != dsdb.KindNotLeader {
		t.Errorf("at a follower: %v", r.err)
	}
	if r := tr.change(0, Change{Remove, stranger}); r.told != 1 || r.err != nil {
		t.Errorf("remove what is not there: %+v", r)
	}
	first := tr.change(0, Change{AddLearner, peer(3)})
	if r := tr.change(0, Change{AddLearner, peer(4)}); dsdb.KindOf(r.err) != dsdb.KindUnavailable {
		t.Errorf("two at a time: %v", r.err)
	}
	tr.must(first, 0, 1, 2)
	if r := tr.change(0, Change{AddVoter, peer(3)}); dsdb.KindOf(r.err) != dsdb.KindUnavailable {
		t.Errorf("promote a learner that was never there: %v", r.err)
	}
}

// A learner is not promoted into a group that could then not commit (S11).
func TestNoPromotionWithoutAnActiveQuorum(t *testing.T) {
	tr := newTrio(t)
	for _, i := range []int{3, 4} {
		tr.open(i, true)
		tr.write("a", 0, 1, 2)
		tr.must(tr.change(0, Change{AddLearner, peer(i)}), 0, 1, 2, 3, 4)
	}
	tr.await(func() bool {
		return tr.status(3).Applied == tr.status(0).Applied && tr.status(4).Applied == tr.status(0).Applied
	}, 0, 1, 2, 3, 4)
	tr.tick(electionTicks-2, 0, 1, 3) // 2 and 4 are silent
	tr.tick(3, 0, 1, 3)
	if r := tr.change(0, Change{AddVoter, peer(4)}); dsdb.KindOf(r.err) != dsdb.KindUnavailable {
		t.Errorf("promote a learner that is away: %+v", r)
	}
	if r := tr.change(0, Change{Remove, peer(1)}); dsdb.KindOf(r.err) != dsdb.KindUnavailable {
		t.Errorf("remove one of two that are left: %+v", r)
	}
	r := tr.change(0, Change{AddVoter, peer(3)}, Change{Remove, peer(2)}) // in place of the silent one
	tr.must(r, 0, 1, 3)
}

// A voter loses its vote and keeps its log; it may get it back. The leader does
// not lead on without a vote.
func TestVoterBecomesALearner(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.must(tr.change(0, Change{Demote, peer(2)}), 0, 1, 2)
	tr.must(tr.change(0, Change{Demote, peer(2)}), 0, 1, 2) // nothing to do
	tr.write("b", 0, 1, 2)
	tr.await(func() bool { return slices.Equal(tr.sms[2].payloads(), []string{"a", "b"}) }, 0, 1, 2)
	want := Members{Index: tr.status(0).Members.Index, Voters: []Peer{peer(0), peer(1)}, Learners: []Peer{peer(2)}}
	for i := range 3 {
		tr.restart(i)
		if got := tr.status(i).Members; !reflect.DeepEqual(got, want) {
			t.Errorf("node %d: members %+v", i, got)
		}
	}
	tr.write("c", 0, 1, 2)
	tr.await(func() bool { return len(tr.sms[2].payloads()) == 3 }, 0, 1, 2)
	l := tr.leader(0, 1, 2)
	tr.changeAnywhere([]int{0, 1, 2}, Change{AddVoter, peer(2)}, Change{Demote, peer(l)})
	tr.write("d", 0, 1, 2)
	if next := tr.leader(0, 1, 2); next == l || slices.Contains(voters(tr.status(next)), dsdb.ReplicaID(l+1)) {
		t.Errorf("node %d leads, voters %d", next, voters(tr.status(next)))
	}
}

// The leader dies in the joint configuration; the next one leaves it (S9).
func TestJointChangeSurvivesItsLeader(t *testing.T) {
	tr := newTrio(t)
	tr.converse(0, 1, 2)
	for _, i := range []int{3, 4} {
		tr.open(i, true)
		tr.must(tr.change(0, Change{AddLearner, peer(i)}), 0, 1, 2, 3, 4)
	}
	tr.write("a", 0, 1, 2, 3, 4)
	tr.await(func() bool {
		return tr.status(3).Applied == tr.status(0).Applied && tr.status(4).Applied == tr.status(0).Applied
	}, 0, 1, 2, 3, 4)
	tr.tick(3, 0, 1, 2, 3, 4)
	r := tr.change(0, Change{AddVoter, peer(3)}, Change{AddVoter, peer(4)}, Change{Remove, peer(1)})
	rest := []int{1, 2, 3, 4}
	joint := func(i int) bool { return len(tr.status(i).Members.Outgoing) > 0 }
	for n := 0; !slices.ContainsFunc(rest, joint); n++ { // then node 0 dies
		if n > 10 {
			t.Fatal("the members are never joint")
		}
		for _, i := range []int{0, 1, 2, 3, 4} {
			tr.deliver(i, tr.take(i)...)
		}
	}
	if r.told != 0 || slices.ContainsFunc(rest, func(i int) bool { return len(voters(tr.status(i))) == 4 && !joint(i) }) {
		t.Fatalf("the change is over: %+v", r)
	}
	tr.await(func() bool { return slices.Equal(voters(tr.status(tr.leader(rest...))), []dsdb.ReplicaID{1, 3, 4, 5}) }, rest...)
	l := tr.leader(2, 3, 4)
	tr.await(func() bool { return len(tr.status(l).Members.Outgoing) == 0 }, rest...)
	tr.write("b", 2, 3, 4)
}

// A leader that is to leave hands on its leadership first (S10); one that is
// alone has the others promoted before. Whoever is left at last goes on alone.
func TestLeaderLeaves(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	r := tr.change(0, Change{Remove, peer(0)})
	tr.await(func() bool { return r.told > 0 }, 0, 1, 2)
	var e *dsdb.Error
	if !errors.As(r.err, &e) || e.Kind != dsdb.KindNotLeader || e.Leader != tr.status(0).LeaderNode || e.Leader == node(0) {
		t.Fatalf("%+v", r)
	}
	tr.changeAnywhere([]int{0, 1, 2}, Change{Remove, peer(0)})
	if s := tr.status(0); s.Leading || !s.Removed {
		t.Errorf("%+v", s)
	}
	tr.write("b", 1, 2)
	tr.changeAnywhere([]int{1, 2}, Change{Remove, peer(tr.leader(1, 2))})
	last := 1
	if tr.status(1).Removed {
		last = 2
	}
	tr.write("c", last)
	if tr.cores[last].Ticking() != 0 {
		t.Error("a group of one has a clock")
	}
	tr.open(3, true)
	tr.must(tr.change(last, Change{AddLearner, peer(3)}), last, 3)
	tr.await(func() bool { return tr.status(3).Applied == tr.status(last).Applied }, last, 3)
	tr.changeAnywhere([]int{last, 3}, Change{AddVoter, peer(3)}, Change{Remove, peer(last)})
	tr.write("d", 3)
	if got := tr.sms[3].payloads(); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("the last one holds %q", got)
	}
}

// Once a change is told to be done, those who have left may be destroyed, and
// the power may fail in all that stay.
func TestRemovedReplicasAreNotMissed(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	r := tr.change(0, Change{Remove, peer(1)}, Change{Remove, peer(2)})
	tr.must(r, 0, 1, 2)
	tr.restart(0)
	tr.write("b", 0)
	tr = newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	r = tr.change(0, Change{Remove, peer(2)})
	for n := 0; r.told == 0; n++ {
		if n > 100 {
			t.Fatal("the members do not change")
		}
		for _, i := range []int{0, 1} {
			tr.deliver(i, tr.take(i)...)
			if r.told > 0 {
				break
			}
		}
	}
	tr.boxes = [5][]Envelope{}
	tr.restart(0)
	tr.restart(1)
	tr.write("b", 0, 1)
}

// A replica that missed its own removal, and all that was said about it, is told
// once it campaigns; before the change is settled nobody is.
func TestStrayIsDismissed(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	tr.must(tr.change(0, Change{Remove, peer(2)}), 0, 1)
	tr.boxes[2] = nil
	tr.tick(heartbeatTicks+1, 0, 1, 2)
	if s := tr.status(2); s.Removed || len(s.Members.Voters) != 3 {
		t.Fatalf("it knows already: %+v", s)
	}
	term := tr.status(0).Term
	tr.await(func() bool { return tr.status(2).Removed }, 0, 1, 2)
	tr.tick(2*electionTicks, 0, 1, 2)
	if s := tr.status(0); !s.Leading || s.Term != term {
		t.Errorf("the stray one disturbed the group: %+v", s)
	}
	if tr.cores[2].Ticking() != 0 {
		t.Error("a replica that has left has a clock")
	}
}

// A replica that was removed, and knows it, cannot vote for one that does not know
// yet: it tells that which change is committed. Strangers, and those who lack the
// entry, are told nothing.
func TestWhoHasLeftInformsWhoAsksForVotes(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	tr.change(0, Change{Remove, peer(1)})
	var early []Envelope // for node 2: the entry, but not that it is committed
	for n := 0; len(tr.status(1).Members.Voters) != 2; n++ {
		if n > 100 {
			t.Fatal("node 1 does not learn that it has left")
		}
		before := tr.status(0).Commit
		tr.converse(0, 1)
		if tr.status(0).Commit > before && early == nil {
			early = slices.DeleteFunc(tr.take(2), func(e Envelope) bool { return e.Message.GetCommit() > before })
		}
		tr.tick(1, 0, 1)
	}
	tr.boxes[2] = nil
	tr.deliver(2, early...)
	index := tr.cores[1].groups[trioGroup].members.index
	if s := tr.status(2); s.Last < index || s.Commit >= index {
		t.Fatalf("node 2 has %d and knows of %d, the change is %d", s.Last, s.Commit, index)
	}

	ask := func(from dsdb.ReplicaID, last, lastTerm uint64) (told bool) {
		g := tr.cores[1].groups[trioGroup]
		m := &raftpb.Message{Type: raftpb.MsgPreVote.Enum(), From: new(uint64(from)), To: new(uint64(2)), Term: new(g.seen.term + 1), Index: &last, LogTerm: &lastTerm}
		tr.cores[1].Step(Sender{Node: dsdb.NodeID(from)}, Envelope{Group: trioGroup, From: from, To: 2, Message: m})
		tr.settle(1)
		for _, box := range tr.boxes {
			told = told || slices.ContainsFunc(box, func(e Envelope) bool { return e.From == 2 && e.Message.GetType() == raftpb.MsgApp })
		}
		tr.boxes = [5][]Envelope{}
		return told
	}
	term := tr.status(1).Term
	if ask(3, index-1, term) || ask(5, index, term) {
		t.Error("it informs who lacks the entry, or is no member")
	}
	if !ask(3, index, term) {
		t.Error("it does not inform a member that asks for votes")
	}

	for n := 0; tr.status(2).Commit < index; n++ {
		if n > 4*electionTicks {
			t.Fatal("node 2 does not learn that the change is committed")
		}
		tr.tick(1, 1, 2)
	}
	if ms := tr.status(2).Members; len(ms.Voters) != 2 || slices.Contains(ms.Voters, peer(1)) {
		t.Errorf("members %+v", ms)
	}
}

// A replica that lost its vote is in the same place: it has an entry that the one
// who may still lead has lost with its power, as it has that the loss is in force.
func TestWhoHasLostItsVoteInformsWhoAsksForIt(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	tr.change(0, Change{Demote, peer(1)}, Change{Demote, peer(2)})
	for n := 0; len(tr.status(0).Members.Outgoing) == 0; n++ {
		if n > 100 {
			t.Fatal("the members are never joint")
		}
		for _, i := range []int{1, 2, 0} {
			tr.deliver(i, tr.take(i)...)
		}
	}
	index := tr.status(0).Last // of the entry that ends it; what follows is not durable here, nor committed
	disk := tr.logs[0].clone()
	for n := 0; tr.status(1).Last <= index || len(tr.status(1).Members.Voters) != 1 || len(tr.status(1).Members.Outgoing) > 0; n++ {
		if n > 100 {
			t.Fatal("node 1 does not learn that it has lost its vote")
		}
		for _, i := range []int{1, 2, 0} {
			tr.deliver(i, slices.DeleteFunc(tr.take(i), func(e Envelope) bool { return e.Message.GetCommit() > index })...)
		}
	}
	tr.logs[0] = disk
	tr.restart(0)
	if s := tr.status(0); s.Last != index || s.Commit >= index || len(s.Members.Outgoing) != 3 {
		t.Fatalf("node 0 has power again: %+v, entry %d ends the change", s, index)
	}
	tr.boxes = [5][]Envelope{}
	tr.await(func() bool { return tr.status(0).Leading }, 0, 1) // node 2 is gone for good
	tr.write("b", 0, 1)
}

// A replica that has been given a vote and does not know it cannot be elected, nor
// elect one whose log is shorter. It is told by whom it refuses.
func TestWhoHasAVoteIsToldByWhomItRefuses(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.must(tr.change(0, Change{Demote, peer(2)}), 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	tr.change(0, Change{AddVoter, peer(2)})
	index := tr.status(0).Last
	tr.propose(0, "b")
	isChange := func(e Envelope) bool {
		return e.Message.GetType() == raftpb.MsgApp && len(e.Message.GetEntries()) > 0 && e.Message.GetEntries()[0].GetIndex() == index
	}
	tr.deliver(2, tr.take(2)...)
	tr.deliver(1, slices.DeleteFunc(tr.take(1), func(e Envelope) bool { return !isChange(e) })...) // "b" is lost
	tr.deliver(0, tr.take(0)...)
	for n := 0; tr.status(1).Commit < index; n++ {
		if n > 2*heartbeatTicks {
			t.Fatal("node 1 does not learn that the change is committed")
		}
		tr.tick(1, 0)
		tr.deliver(1, slices.DeleteFunc(tr.take(1), func(e Envelope) bool { return e.Message.GetType() != raftpb.MsgHeartbeat })...)
	}
	one, two := tr.status(1), tr.status(2)
	if len(one.Members.Voters) != 3 || one.Last != index || len(two.Members.Voters) != 2 || two.Last <= index || two.Commit >= index {
		t.Fatalf("the change is entry %d; node 1: %+v, node 2: %+v", index, one, two)
	}
	tr.boxes = [5][]Envelope{}
	tr.await(func() bool { return tr.status(2).Leading }, 1, 2) // node 0 is gone for good
	tr.write("c", 1, 2)
}

// What is told is not listened to by who knows it: a candidate stays one.
func TestNoticesOfWhatIsKnownAreDropped(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.must(tr.change(0, Change{Demote, peer(2)}), 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	g := tr.cores[1].groups[trioGroup]
	tr.cores[2].notify(tr.cores[2].groups[trioGroup], 2)
	tr.settle(2)
	notices := slices.DeleteFunc(tr.take(1), func(e Envelope) bool { return e.From != 3 })
	if len(notices) != 1 {
		t.Fatalf("notices: %v", notices)
	}
	tr.deliver(1, notices...)
	if g.seen.lead != 1 {
		t.Errorf("replica %d is taken for the leader", g.seen.lead)
	}
}

// A read that waits for members which leave is answered by whoever is left.
func TestReadOutlivesTheOthers(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	change := tr.change(0, Change{Remove, peer(1)}, Change{Remove, peer(2)})
	read := tr.read(0)
	heartbeat := func(e Envelope) bool { return e.Message.GetType() == raftpb.MsgHeartbeat }
	for n := 0; change.told == 0; n++ {
		if n > 100 {
			t.Fatal("the members do not change")
		}
		for _, i := range []int{0, 1, 2} {
			tr.deliver(i, slices.DeleteFunc(tr.take(i), heartbeat)...)
		}
	}
	tr.must(read, 0)
}

// What a waiter is told of a proposal that raft had is that nobody knows.
func TestOutcomesAreHonest(t *testing.T) {
	for name, end := range map[string]func(*trio){
		"refuse": func(tr *trio) { tr.cores[0].Refuse(dsdb.Errorf(dsdb.KindUnavailable, "no space")) },
		"stop":   func(tr *trio) { tr.cores[0].Stop() },
		"remove": func(tr *trio) { tr.cores[0].Remove(trioGroup, new(result)) },
		"fail":   func(tr *trio) { tr.cores[0].fail(tr.cores[0].groups[trioGroup], errors.New("as the test wants it")) },
	} {
		tr := newTrio(t)
		tr.write("a", 0, 1, 2)
		logged, late := tr.propose(0, "logged"), new(result)
		joining := tr.change(0, Change{AddLearner, peer(3)})
		tr.cores[0].Propose(trioGroup, []byte("late"), late)
		end(tr)
		for _, r := range tr.cores[0].Drain().Results {
			r.Waiter.Done(r.Verdict, r.Err)
		}
		if logged.told != 1 || dsdb.KindOf(logged.err) != dsdb.KindTimeout {
			t.Errorf("%s: in the log: %+v", name, logged)
		}
		if joining.told != 1 || dsdb.KindOf(joining.err) != dsdb.KindTimeout {
			t.Errorf("%s: change in the log: %+v", name, joining)
		}
		if k := dsdb.KindOf(late.err); late.told != 1 || k != dsdb.KindUnavailable && k != dsdb.KindNotLeader {
			t.Errorf("%s: not in the log: %+v", name, late)
		}
	}
}

func FuzzDecodeMembership(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendMembership(nil, foundation([]Peer{{Replica: 1, Node: 2}, {Replica: 3, Node: 4}})))
	joint := &membership{index: 7, conf: &raftpb.ConfState{Voters: []uint64{1, 2}, VotersOutgoing: []uint64{1, 3}, Learners: []uint64{4}, LearnersNext: []uint64{3}, AutoLeave: new(true)},
		peers: []Peer{{Replica: 1, Node: 1}, {Replica: 2, Node: 2}, {Replica: 3, Node: 3}, {Replica: 4, Node: 4}}}
	f.Add(appendMembership(nil, joint))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeMembership(data)
		if err != nil {
			return
		}
		if got := appendMembership(nil, m); string(got) != string(data) {
			t.Fatalf("%x came back as %x", data, got)
		}
		cfg := raft.Config{ID: 1, ElectionTick: 2, HeartbeatTick: 1, Storage: &storage{conf: m.conf, last: 10, truncated: birth}, MaxInflightMsgs: 1, Logger: &raftLogger{log: quiet()}}
		if _, err := raft.NewRawNode(&cfg); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzOpenChange(f *testing.F) {
	cc, added := confChange([]Change{{AddLearner, Peer{Replica: 5, Node: 6}}, {AddVoter, Peer{Replica: 7, Node: 8}}, {Remove, Peer{Replica: 9, Node: 9}}})
	cc.Context = appendPeers(le.AppendUint64(le.AppendUint64([]byte{membershipVersion}, 1), 2), added)
	data, err := proto.Marshal(cc)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{})
	m := foundation([]Peer{{Replica: 7, Node: 1}, {Replica: 9, Node: 2}})
	f.Fuzz(func(t *testing.T, data []byte) {
		cc, _, added, err := openChange(raftpb.EntryConfChangeV2, data)
		if err != nil {
			return
		}
		if next, err := m.change(5, cc, added); err == nil {
			if _, err := decodeMembership(appendMembership(nil, next)); err != nil {
				t.Fatalf("%v makes a membership that cannot be read: %v", cc, err)
			}
		}
	})
}
