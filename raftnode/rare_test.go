package raftnode

import (
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
