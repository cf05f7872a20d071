package raftnode

import (
	"testing"

	"github.com/dasudian/dsdb"
)

// A leader that is cut off has a change of members in its log that is never
// committed, and gets a snapshot of what happened instead. The process ends when
// the state machine holds that and the log is as it was: the change, which the old
// log has below the snapshot, is not made when the replica starts again.
func TestCrashedInstallMakesNoChangeOfTheOldLog(t *testing.T) {
	tr := newTrio(t)
	tr.write("0", 0, 1, 2)
	tr.must(tr.transfer(0, 3), 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	tr.change(2, Change{AddLearner, peer(3)})
	if n := len(tr.logs[2].Marked(trioGroup)); n != 1 {
		t.Fatalf("%d changes are in the log of the leader", n)
	}
	tr.boxes = [5][]Envelope{}
	if l := tr.leader(0, 1); l != 0 {
		tr.must(tr.transfer(l, 1), 0, 1)
	}
	tr.outrun([]string{"0"})
	tr.awaitMail(2)

	tr.cores[2].Install(Sender{Node: node(0)}, tr.mail[2][0].Snapshot, "", new(result))
	out := tr.cores[2].Drain()
	for _, a := range out.Appends {
		write(t, tr.logs[2], a.Update)
	}
	tr.cores[2].StorageDone(out.Appends)
	for _, task := range tr.cores[2].Drain().Tasks {
		if err := task.Run(); err != nil {
			t.Fatal(err)
		}
	}
	tr.restart(2)
	if s := tr.status(2); s.Failed != nil || len(s.Members.Learners) > 0 {
		t.Errorf("after the crash: %v, members %+v", s.Failed, s.Members)
	}
	tr.boxes[2], tr.mail[2], tr.from[2] = nil, nil, nil
	tr.write("more", 0, 1, 2)
	if s := tr.status(2); s.Failed != nil || s.Replica != dsdb.ReplicaID(3) || len(s.Members.Learners) > 0 {
		t.Errorf("later: %v, members %+v", s.Failed, s.Members)
	}
}
