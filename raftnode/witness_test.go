package raftnode

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
)

// newWitnessed makes a trio of two full replicas, 0 and 1, and the witness 2, in
// which 0 leads.
func newWitnessed(t *testing.T) *trio {
	tr := openTrio(&trio{t: t, watch: [5]bool{2: true, 3: true}})
	tr.converse(0, 1, 2)
	return tr
}

// kept returns how many entries are in the log of a node.
func (tr *trio) kept(i int) int {
	first, last := tr.logs[i].Bounds(trioGroup)
	return int(last + 1 - first)
}

// What one full replica has acknowledged with the witness outlives that replica:
// the witness, whose log is the longest, is elected, brings the other one up to
// it, and lets that one lead. Meanwhile it serves nobody.
func TestWitnessBringsTheOtherReplicaUp(t *testing.T) {
	tr := newWitnessed(t)
	tr.write("a", 0, 1, 2)
	want := []string{"a"}
	for i := range 5 {
		want = append(want, fmt.Sprint(i))
		tr.write(want[i+1], 0, 2) // 1 hears nothing
	}
	tr.tick(4, 0, 2)
	tr.boxes = [5][]Envelope{}
	for n := 0; !tr.leads(2); n++ {
		if n > 200 {
			t.Fatal("the witness is not elected")
		}
		for _, i := range []int{1, 2} {
			for s := range TickSlices {
				tr.cores[i].Tick(s)
			}
			tr.settle(i)
		}
		for _, i := range []int{1, 2, 1, 2, 1} {
			if !tr.leads(2) {
				tr.deliver(i, tr.take(i)...)
			}
		}
	}
	for what, r := range map[string]*result{"proposal": tr.propose(2, "x"), "read": tr.read(2), "change": tr.change(2, Change{Remove, tr.peer(0)})} {
		var e *dsdb.Error
		if r.told != 1 || !errors.As(r.err, &e) || e.Kind != dsdb.KindNotLeader || e.Leader != 0 && e.Leader != node(1) {
			t.Errorf("%s at the witness that leads: %+v", what, r)
		}
	}
	tr.converse(1, 2)
	tr.await(func() bool { return tr.leads(1) }, 1, 2)
	tr.write("b", 1, 2)
	if got := tr.sms[1].payloads(); !slices.Equal(got, append(want, "b")) {
		t.Errorf("the other replica has %q, want %q", got, want)
	}
}

// A witness forgets what both full replicas have, also if it has restarted, and
// keeps what one of them lacks.
func TestWitnessKeepsWhatAReplicaLacks(t *testing.T) {
	tr := newWitnessed(t)
	for range 5 {
		tr.write("x", 0, 1, 2)
	}
	tr.tick(2*int(tellTicks), 0, 1, 2)
	if n := tr.kept(2); n != 0 {
		t.Errorf("it keeps %d entries that both have", n)
	}
	for range 5 {
		tr.write("y", 0, 2)
	}
	tr.tick(2*int(tellTicks), 0, 2)
	if n := tr.kept(2); n != 5 {
		t.Errorf("it keeps %d entries of 5 that one lacks", n)
	}
	tr.restart(2)
	tr.tick(2*int(retellTicks), 0, 2)
	if n := tr.kept(2); n != 5 {
		t.Errorf("it keeps %d entries of 5 that one lacks, after a restart", n)
	}
	tr.boxes[1] = nil
	tr.tick(2*int(retellTicks), 0, 1, 2)
	if n := tr.kept(2); n != 0 || tr.status(2).Failed != nil {
		t.Errorf("it keeps %d entries that both have, %+v", n, tr.status(2))
	}
}

// A leader of an earlier term is not believed.
func TestWitnessDoesNotBelieveAnOldLeader(t *testing.T) {
	tr := newWitnessed(t)
	for range 5 {
		tr.write("x", 0, 2)
	}
	st := tr.status(0)
	says := func(term uint64) Envelope {
		from, to := uint64(1), uint64(3)
		return Envelope{Group: trioGroup, From: 1, To: 3, Message: &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: &from, To: &to,
			Term: &term, Context: le.AppendUint64([]byte(retainContext), st.Commit)}}
	}
	tr.deliver(2, says(st.Term-1))
	if n := tr.kept(2); n < 5 {
		t.Errorf("it keeps %d entries by the word of an old leader", n)
	}
	tr.deliver(2, says(st.Term))
	if n := tr.kept(2); n > 1 { // what is not known to be committed yet
		t.Errorf("it keeps %d entries though its leader says that all have them", n)
	}
}

// A log that is too long is let go of. The replica that lacks it gets a snapshot
// from the other one, never from the witness.
func TestReleasedWitness(t *testing.T) {
	tr := newWitnessed(t)
	tr.write("a", 0, 1, 2)
	for range 5 {
		tr.write("x", 0, 2)
	}
	tr.cores[2].Release(trioGroup)
	tr.cores[0].Release(trioGroup) // of no effect
	tr.settle(2)
	tr.settle(0)
	if n := tr.kept(2); n != 0 {
		t.Errorf("it keeps %d entries", n)
	}
	if tr.kept(0) == 0 {
		t.Error("a full replica has let go of its log")
	}
	tr.boxes = [5][]Envelope{}
	for range 100 { // 0 is away: the witness may lead, but has nothing for 1
		tr.tick(1, 1, 2)
		if tr.leads(1) || len(tr.mail[1]) > 0 {
			t.Fatalf("without entries that are gone: leads %v, snapshots %v", tr.leads(1), tr.mail[1])
		}
	}
	tr.await(func() bool { return len(tr.sms[1].payloads()) == 6 }, 0, 1, 2)
	if l := tr.leader(0, 1, 2); l == 2 {
		t.Error("the witness leads on")
	}
}

// A witness that was lost is replaced by another one, which needs no files.
func TestWitnessIsReplaced(t *testing.T) {
	tr := newWitnessed(t)
	tr.write("a", 0, 1, 2)
	for _, i := range []int{0, 1} {
		tr.sms[i].flush()
		tr.cores[i].Flushed(trioGroup)
		tr.settle(i)
	}
	spec := GroupSpec{ID: trioGroup, Replica: 4, Node: node(3), New: true, StateMachine: NewWitness(tr.logs[3].State(trioGroup))}
	if err := tr.cores[3].Open(spec); err != nil {
		t.Fatal(err)
	}
	tr.settle(3)
	r := tr.change(0, Change{AddLearner, tr.peer(3)})
	for n := 0; len(tr.mail[3]) == 0; n++ {
		if n > 200 {
			t.Fatal("no snapshot comes")
		}
		for _, i := range []int{0, 1, 3} {
			for s := range TickSlices {
				tr.cores[i].Tick(s)
			}
			tr.settle(i)
			tr.deliver(i, tr.take(i)...)
		}
	}
	if m := tr.mail[3][0].Snapshot.Manifest; m.Index == 0 || len(m.Files) > 0 {
		t.Errorf("a witness is sent %+v", m)
	}
	tr.must(r, 0, 1, 3)
	tr.tick(8, 0, 1, 3)
	tr.must(tr.change(0, Change{AddVoter, tr.peer(3)}, Change{Remove, tr.peer(2)}), 0, 1, 3)
	tr.write("b", 0, 3)
	for _, i := range []int{0, 3} {
		if ms := tr.status(i).Members; !slices.Equal(ms.Voters, []Peer{tr.peer(0), tr.peer(1), tr.peer(3)}) {
			t.Errorf("node %d: members %+v", i, ms)
		}
	}
	tr.restart(3)
	tr.write("c", 0, 3)
	if st := tr.status(3); st.Failed != nil || !st.Members.Voters[2].Witness {
		t.Errorf("after a restart: %+v", st)
	}
}

// Neither may a witness lead because it is asked to, nor be all that is left.
func TestWitnessIsNoSuccessor(t *testing.T) {
	tr := newWitnessed(t)
	if r := tr.transfer(0, 3); dsdb.KindOf(r.err) != dsdb.KindUnavailable {
		t.Errorf("transfer to the witness: %+v", r)
	}
	tr.tick(8, 0, 1, 2)
	tr.must(tr.change(0, Change{Remove, tr.peer(1)}), 0, 1, 2)
	if r := tr.change(0, Change{Remove, tr.peer(0)}); r.told != 1 || r.err == nil {
		t.Errorf("removal of the only full replica: %+v", r)
	}
}

// Consistency all waits for both full replicas, and for no witness.
func TestMatchedLeavesWitnessesOut(t *testing.T) {
	tr := newWitnessed(t)
	w := tr.propose(0, "x")
	tr.converse(0, 1)
	m := new(result)
	tr.cores[0].Matched(trioGroup, w.verdict.Index, m)
	tr.settle(0)
	if m.told != 1 || m.err != nil {
		t.Errorf("without the witness: %+v", m)
	}
	w = tr.propose(0, "y")
	tr.converse(0, 2)
	m = new(result)
	tr.cores[0].Matched(trioGroup, w.verdict.Index, m)
	tr.settle(0)
	if w.told != 1 || m.told != 0 {
		t.Errorf("without a full replica: %+v, %+v", w, m)
	}
}

// A witness that takes the place of another one has nothing of what went before
// it. It gets no vote while a full replica lacks some of that.
func TestWitnessIsNotReplacedWhileAReplicaLacksWhatItHas(t *testing.T) {
	tr := newWitnessed(t)
	tr.write("a", 0, 1, 2)
	for range 5 {
		tr.write("x", 0, 2) // 1 hears nothing
	}
	tr.sms[0].flush()
	tr.cores[0].Flushed(trioGroup)
	tr.settle(0)
	spec := GroupSpec{ID: trioGroup, Replica: 4, Node: node(3), New: true, StateMachine: NewWitness(tr.logs[3].State(trioGroup))}
	if err := tr.cores[3].Open(spec); err != nil {
		t.Fatal(err)
	}
	tr.settle(3)
	tr.must(tr.change(0, Change{AddLearner, tr.peer(3)}), 0, 2, 3)
	tr.await(func() bool { return tr.status(3).Applied == tr.status(0).Applied }, 0, 2, 3)
	tr.boxes[1] = nil
	replace := []Change{{AddVoter, tr.peer(3)}, {Remove, tr.peer(2)}}
	if r := tr.change(0, replace...); dsdb.KindOf(r.err) != dsdb.KindUnavailable || !strings.Contains(r.err.Error(), "a full replica only up to") {
		t.Errorf("while a replica lacks entries: %+v", r)
	}
	tr.tick(8, 0, 1, 2, 3)
	tr.must(tr.change(0, replace...), 0, 1, 2, 3)
}
