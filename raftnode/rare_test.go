package raftnode

import (
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
)

// A replica that has voted and starts again does not vote for another in the
// same term.
func TestVoteOutlivesItsProcess(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	term, last := tr.status(2).Term, tr.status(2).Last
	ask := func(candidate int) (granted bool) {
		from, to, next := uint64(candidate+1), uint64(3), term+1
		tr.boxes[candidate] = nil
		tr.deliver(2, Envelope{Group: trioGroup, From: dsdb.ReplicaID(from), To: 3, Message: &raftpb.Message{
			Type: raftpb.MsgVote.Enum(), From: &from, To: &to, Term: &next, Index: &last, LogTerm: &term,
			Context: []byte("CampaignTransfer"), // so that it counts though there is a leader
		}})
		answers := tr.take(candidate)
		if len(answers) != 1 || answers[0].Message.GetType() != raftpb.MsgVoteResp {
			t.Fatalf("answers to node %d: %v", candidate, answers)
		}
		return !answers[0].Message.GetReject()
	}
	if !ask(1) {
		t.Fatal("no vote for the first who asks")
	}
	tr.restart(2)
	if ask(0) {
		t.Error("a second vote in one term")
	}
	if !ask(1) {
		t.Error("the first one does not get its vote again")
	}
}

// What a follower promises is durable before anybody hears of it.
func TestNothingIsPromisedBeforeItIsDurable(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	tr.boxes[1] = nil
	tr.propose(0, "b")
	for _, m := range tr.take(1) {
		tr.cores[1].Step(Sender{Node: node(0)}, m)
	}
	promised := func(out *Outputs) (n int) {
		for _, box := range out.Network {
			for _, m := range box.Messages {
				if m.Message.GetType() == raftpb.MsgAppResp {
					n++
				}
			}
		}
		return n
	}
	out := tr.cores[1].Drain()
	if len(out.Appends) == 0 || promised(out) > 0 {
		t.Fatalf("%d appends are not written yet, %d promised", len(out.Appends), promised(out))
	}
	write(t, tr.logs[1], out.Appends[0].Update)
	tr.cores[1].StorageDone(out.Appends)
	if out = tr.cores[1].Drain(); promised(out) == 0 {
		t.Error("nothing is promised when it is durable")
	}
}

// A candidate asks for votes when its own term is durable, not before: else it could
// be elected, lose its power, and be elected in the same term again.
func TestNoVotesAreAskedForBeforeTheTermIsDurable(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	term := tr.status(1).Term
	stand := func() *Outputs { // node 1 becomes a candidate; nothing of what it stores is durable yet
		m := &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: &term}
		tr.cores[1].Step(Sender{Node: node(0)}, Envelope{Group: trioGroup, From: 1, To: 2, Message: m})
		return tr.cores[1].Drain()
	}
	asked := func(out *Outputs) (terms []uint64) {
		for _, box := range out.Network {
			for _, m := range box.Messages {
				if m.Message.GetType() == raftpb.MsgVote {
					terms = append(terms, m.Message.GetTerm())
				}
			}
		}
		return terms
	}
	if out := stand(); len(out.Appends) == 0 || len(asked(out)) > 0 {
		t.Fatalf("%d appends are not written yet, votes are asked for in %d", len(out.Appends), asked(out))
	}
	tr.restart(1) // nobody has heard of the term
	out := stand()
	write(t, tr.logs[1], out.Appends[0].Update)
	tr.cores[1].StorageDone(out.Appends)
	if got := asked(tr.cores[1].Drain()); !slices.Equal(got, []uint64{term + 1, term + 1}) {
		t.Fatalf("votes are asked for in %d, want twice %d", got, term+1)
	}
	tr.restart(1)
	if got := tr.cores[1].groups[trioGroup].seen; got.term != term+1 || got.vote != 2 {
		t.Errorf("after a restart it is in term %d and has voted for %d", got.term, got.vote)
	}
}

// Who waits for an index at a follower waits until the follower has applied it.
func TestFollowerServesNoReadBeforeItsIndex(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	tr.write("b", 0, 2) // node 1 hears nothing
	index, r := tr.read(0), new(result)
	tr.await(func() bool { return index.told > 0 }, 0, 2)
	tr.boxes[1] = nil
	tr.cores[1].Applied(trioGroup, index.verdict.Index, r)
	tr.settle(1)
	if r.told > 0 {
		t.Fatalf("told at %d, asked for %d", tr.status(1).Applied, index.verdict.Index)
	}
	tr.must(r, 0, 1, 2)
	if got := tr.sms[1].payloads(); len(got) != 2 {
		t.Errorf("told when node 1 has applied %q", got)
	}
}

// A replica that starts again amid a joint change counts the votes of the old
// and of the new members.
func TestJointMembersSurviveARestart(t *testing.T) {
	tr := newTrio(t)
	all := []int{0, 1, 2, 3, 4}
	tr.converse(0, 1, 2)
	for _, i := range []int{3, 4} {
		tr.open(i, true)
		tr.must(tr.change(0, Change{AddLearner, peer(i)}), all...)
	}
	tr.write("a", all...)
	tr.await(func() bool {
		return tr.status(3).Applied == tr.status(0).Applied && tr.status(4).Applied == tr.status(0).Applied
	}, all...)
	tr.tick(3, all...)
	tr.change(0, Change{AddVoter, peer(3)}, Change{AddVoter, peer(4)}, Change{Remove, peer(1)})
	for n := 0; len(tr.status(2).Members.Outgoing) == 0; n++ {
		if n > 100 {
			t.Fatal("the members are never joint")
		}
		for _, i := range all {
			tr.deliver(i, tr.take(i)...)
		}
	}
	tr.sms[2].flush()
	tr.restart(2)
	if c := tr.cores[2].groups[trioGroup].node.Status().Config; len(c.Voters[0]) != 4 || len(c.Voters[1]) != 3 {
		t.Errorf("incoming voters %v, outgoing %v", c.Voters[0], c.Voters[1])
	}
}

// A voter that waits for a snapshot is heard of but has not got the log: the
// group must not depend on it.
func TestVoterThatWaitsForASnapshotIsNotCounted(t *testing.T) {
	tr, _ := lag(t)
	tr.awaitMail(2)
	if r := tr.change(0, Change{Remove, peer(1)}); dsdb.KindOf(r.err) != dsdb.KindUnavailable {
		t.Errorf("remove one of two that have the log: %+v", r)
	}
}

// A snapshot of an earlier index carries the members of now and says which
// entry made them, so that the receiver does not make their changes again (S8).
func TestSnapshotNamesWhatMadeItsMembers(t *testing.T) {
	tr, want := lag(t)
	tr.open(3, true)
	tr.must(tr.change(0, Change{AddLearner, peer(3)}), 0, 1, 3)
	tr.awaitMail(2)
	snap := tr.mail[2][0].Snapshot.Envelope.Message.GetSnapshot()
	members, err := decodeMembership(snap.GetData())
	if err != nil {
		t.Fatal(err)
	}
	made := tr.cores[0].groups[trioGroup].members.index
	if at := snap.GetMetadata().GetIndex(); members.index != made || made <= at {
		t.Errorf("snapshot at %d: members of entry %d, not %d", at, members.index, made)
	}
	tr.caughtUp(2, want)
	if got := tr.status(2).Members; len(got.Voters) != 3 || len(got.Learners) != 1 {
		t.Errorf("members after it: %+v", got)
	}
}
