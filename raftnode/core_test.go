package raftnode

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// trio is one group of three replicas, each in a core of its own, and two nodes
// that may join, driven by hand: writes and applies are done at once, messages
// and snapshots lie in boxes until the test delivers them. Node i is named i+1,
// and so is its replica.
type trio struct {
	t     *testing.T
	cores [5]*Core
	logs  [5]*memLog
	sms   [5]*ledger
	boxes [5][]Envelope // for node i, in order of sending
	mail  [5][]SendTask // snapshots for node i
	from  [5][]int      // who sent them
	shelf *shelf
	boots uint64
	watch [5]bool // the node's replica is a witness
}

const trioGroup dsdb.GroupID = 5

func newTrio(t *testing.T) *trio { return openTrio(&trio{t: t}) }

func openTrio(tr *trio) *trio {
	tr.shelf = newShelf()
	for i := range tr.cores {
		tr.logs[i], tr.sms[i] = newMemLog(), &ledger{shelf: tr.shelf}
		tr.boot(i)
	}
	for i := range 3 {
		tr.open(i, true)
	}
	return tr
}

// boot gives node i a new core.
func (tr *trio) boot(i int) {
	tr.boots++
	tr.cores[i] = NewCore(tr.logs[i], tr.boots, quiet())
}

// restart ends node i as a crash does and starts it again.
func (tr *trio) restart(i int) {
	tr.sms[i] = tr.sms[i].crashed()
	tr.boot(i)
	tr.open(i, false)
}

func node(i int) dsdb.NodeID { return dsdb.NodeID(i + 1) }
func peer(i int) Peer        { return Peer{Replica: dsdb.ReplicaID(i + 1), Node: node(i)} }
func (tr *trio) peer(i int) Peer {
	return Peer{Replica: dsdb.ReplicaID(i + 1), Node: node(i), Witness: tr.watch[i]}
}
func (tr *trio) status(i int) GroupStatus { return tr.cores[i].Status(trioGroup) }

func (tr *trio) open(i int, isNew bool) {
	spec := GroupSpec{ID: trioGroup, Replica: dsdb.ReplicaID(i + 1), Node: node(i), New: isNew, StateMachine: tr.sms[i]}
	if i < 3 {
		spec.Founders = []Peer{tr.peer(0), tr.peer(1), tr.peer(2)}
	}
	if tr.watch[i] {
		spec.StateMachine = NewWitness(tr.logs[i].State(trioGroup))
	}
	if err := tr.cores[i].Open(spec); err != nil {
		tr.t.Fatal(err)
	}
	tr.settle(i)
}

// settle lets node i do all it can without messages from others.
func (tr *trio) settle(i int) {
	c := tr.cores[i]
	for {
		out := c.Drain()
		for _, box := range out.Network {
			tr.boxes[box.Node-1] = append(tr.boxes[box.Node-1], box.Messages...)
		}
		for _, s := range out.Snapshots {
			n := s.Node - 1
			tr.mail[n], tr.from[n] = append(tr.mail[n], s), append(tr.from[n], i)
		}
		for _, r := range out.Results {
			r.Waiter.Done(r.Verdict, r.Err)
		}
		var us []wal.Update
		for _, a := range out.Appends {
			if !a.Empty {
				us = append(us, a.Update)
			}
		}
		if err := tr.logs[i].Write(us, true); err != nil {
			tr.t.Fatal(err)
		}
		c.StorageDone(out.Appends)
		for _, t := range out.Tasks {
			c.ApplyDone(t, t.Run())
		}
		if len(out.Appends)+len(out.Tasks) == 0 {
			return
		}
	}
}

// take empties the box of node i.
func (tr *trio) take(i int) []Envelope {
	msgs := tr.boxes[i]
	tr.boxes[i] = nil
	return msgs
}

func (tr *trio) deliver(i int, msgs ...Envelope) {
	for _, m := range msgs {
		tr.cores[i].Step(Sender{Node: dsdb.NodeID(m.From)}, m)
	}
	tr.settle(i)
}

// converse delivers messages among the given nodes until there are none; those
// for others stay in their boxes.
func (tr *trio) converse(nodes ...int) {
	for busy := true; busy; {
		busy = false
		for _, i := range nodes {
			if msgs := tr.take(i); len(msgs) > 0 {
				busy = true
				tr.deliver(i, msgs...)
			}
			if len(tr.mail[i]) > 0 {
				busy = true
				tr.install(i)
			}
		}
	}
}

// install brings node i the snapshots that are under way to it.
func (tr *trio) install(i int) (outcomes []*result) {
	mail, from := tr.mail[i], tr.from[i]
	tr.mail[i], tr.from[i] = nil, nil
	for n, s := range mail {
		r := new(result)
		tr.cores[i].Install(Sender{Node: node(from[n])}, s.Snapshot, "", r)
		tr.settle(i)
		outcomes = append(outcomes, r)
		tr.cores[from[n]].SnapshotSent(s, r.err)
		tr.settle(from[n])
	}
	return outcomes
}

// tick lets n raft ticks pass for the given nodes, with what they say to each other.
func (tr *trio) tick(n int, nodes ...int) {
	for range n {
		for _, i := range nodes {
			for s := range TickSlices {
				tr.cores[i].Tick(s)
			}
			tr.settle(i)
		}
		tr.converse(nodes...)
	}
}

func (tr *trio) leads(i int) bool {
	return tr.cores[i].Status(trioGroup).Leader == dsdb.ReplicaID(i+1)
}

// outcomes collects what waiters are told.
type result struct {
	told    int
	verdict dsdb.Verdict
	err     error
}

func (r *result) Done(v dsdb.Verdict, err error) {
	r.told++
	r.verdict, r.err = v, err
}

func (tr *trio) propose(i int, data string) *result {
	r := new(result)
	tr.cores[i].Propose(trioGroup, []byte(data), r)
	tr.settle(i)
	return r
}

func (tr *trio) read(i int) *result {
	r := new(result)
	tr.cores[i].ReadIndex(trioGroup, r)
	tr.settle(i)
	return r
}

func TestFirstListedLeadsANewGroup(t *testing.T) {
	tr := newTrio(t)
	tr.converse(0, 1, 2)
	if !tr.leads(0) {
		t.Fatalf("leader of the new group: %+v", tr.cores[0].Status(trioGroup))
	}
	r := tr.propose(0, "x")
	if r.told != 0 {
		t.Error("acknowledged without a quorum")
	}
	tr.converse(0, 1)
	if r.told != 1 || r.err != nil || string(r.verdict.Value) != "x" {
		t.Errorf("with a quorum: %+v", r)
	}
	for what, r := range map[string]*result{"proposal": tr.propose(1, "y"), "read": tr.read(1)} {
		var e *dsdb.Error
		if !errors.As(r.err, &e) || e.Kind != dsdb.KindNotLeader || e.Leader != node(0) {
			t.Errorf("%s at a follower: %+v", what, r)
		}
	}
}

// Late replies to one read must not confirm another one that a deposed leader
// took after it was deposed (raft PR 397: stale reads in v3.6.0).
func TestLateRepliesDoNotConfirmALaterRead(t *testing.T) {
	tr := newTrio(t)
	tr.converse(0, 1, 2)
	tr.propose(0, "old")
	tr.converse(0, 1, 2)
	tr.tick(3, 0, 1, 2)

	first := tr.read(0)
	tr.deliver(1, tr.take(1)...)
	late := tr.take(0) // node 1's reply to the heartbeat of the first read
	if len(late) == 0 || first.told != 0 {
		t.Fatalf("%d replies, first read %+v", len(late), first)
	}
	tr.boxes = [5][]Envelope{}

	// Node 0 is paused; the others elect a new leader, which takes a write.
	for n := 0; !tr.leads(1) && !tr.leads(2); n++ {
		if n > 100 {
			t.Fatal("no new leader")
		}
		tr.tick(1, 1, 2)
	}
	leader := 1
	if tr.leads(2) {
		leader = 2
	}
	w := tr.propose(leader, "new")
	tr.converse(1, 2)
	if w.told != 1 || w.err != nil {
		t.Fatalf("write to the new leader: %+v", w)
	}

	second := tr.read(0) // node 0 still believes that it leads
	tr.boxes[1], tr.boxes[2] = nil, nil
	for range 3 {
		tr.deliver(0, late...)
	}
	if second.told != 0 && second.err == nil {
		t.Errorf("a deposed leader answered a read by replies to an earlier one")
	}
	third := tr.read(0)
	tr.converse(0, 1, 2)
	tr.tick(1, 0, 1, 2)
	for _, r := range []*result{second, third} {
		if r.told != 1 || r.err == nil {
			t.Errorf("read at a deposed leader: %+v", r)
		}
	}
}

// A deposed leader's proposals that were overwritten are reported as lost, once
// and only when that is certain.
func TestOverwrittenProposalIsReportedLost(t *testing.T) {
	tr := newTrio(t)
	tr.converse(0, 1, 2)
	lost := tr.propose(0, "lost")
	tr.boxes = [5][]Envelope{}
	tr.await(func() bool { return tr.leads(1) || tr.leads(2) }, 1, 2)
	if lost.told != 0 {
		t.Fatalf("too early: %+v", lost)
	}
	tr.tick(5, 0, 1, 2)
	if lost.told != 1 || dsdb.KindOf(lost.err) != dsdb.KindUnavailable {
		t.Errorf("overwritten: %+v", lost)
	}
	for i, sm := range tr.sms[:3] {
		if got := sm.payloads(); len(got) != 0 {
			t.Errorf("node %d applied %q", i, got)
		}
	}
}

// A leader keeps what a follower lacks, however much has been flushed.
func TestTruncationWaitsForFollowers(t *testing.T) {
	tr := newTrio(t)
	tr.converse(0, 1, 2)
	for range 20 {
		tr.propose(0, "x")
		tr.converse(0, 1) // node 2 hears nothing
	}
	last := tr.cores[0].Status(trioGroup).Applied
	for i := range 2 {
		tr.sms[i].flushed = last
		tr.cores[i].Flushed(trioGroup)
		tr.settle(i)
	}
	tr.boxes[2] = nil // what was sent is lost
	tr.tick(10, 0, 1, 2)
	if got := len(tr.sms[2].payloads()); got != 20 || len(tr.shelf.states) > 0 {
		t.Errorf("node 2 has %d writes of 20, and took %d snapshots to get there", got, len(tr.shelf.states))
	}
	tr.cores[0].Flushed(trioGroup)
	tr.settle(0)
	if first, _ := tr.logs[0].Bounds(trioGroup); first != last+1 {
		t.Errorf("the leader's log begins at %d, want %d", first, last+1)
	}
}

// If the log is too long nothing is kept for a replica that is away: not by the
// leader, nor by a follower that might have to lead. It gets a snapshot.
func TestReleaseEndsTheWaitForFollowers(t *testing.T) {
	tr := newTrio(t)
	tr.converse(0, 1, 2)
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint(i))
		tr.propose(0, want[i])
		tr.tick(1, 0, 1) // node 2 hears nothing
	}
	last := tr.status(1).Applied
	for i := range 2 {
		tr.sms[i].flushed = last
		tr.cores[i].Flushed(trioGroup)
		tr.settle(i)
		if first, _ := tr.logs[i].Bounds(trioGroup); first > birth.Index+5 {
			t.Fatalf("the log of node %d begins at %d before", i, first)
		}
		tr.cores[i].Release(trioGroup)
		tr.settle(i)
		if first, _ := tr.logs[i].Bounds(trioGroup); first != last+1 {
			t.Errorf("the log of node %d begins at %d, want %d", i, first, last+1)
		}
	}
	tr.boxes[2] = nil
	tr.caughtUp(2, want)
}

// What is kept for a follower that is away is divided among the groups that keep
// something, not among all: alone a group keeps the most that one may, many share
// what all may, and one that has nothing to keep any more counts no more.
func TestGroupsThatKeepTheirLogShareTheRoom(t *testing.T) {
	tr := newTrio(t)
	groups := []dsdb.GroupID{trioGroup}
	for id := trioGroup + 1; id < trioGroup+100; id++ {
		groups = append(groups, id)
		for i := range 3 {
			spec := GroupSpec{ID: id, Replica: dsdb.ReplicaID(i + 1), Node: node(i), New: true, Founders: []Peer{peer(0), peer(1), peer(2)}, StateMachine: &ledger{shelf: tr.shelf}}
			if err := tr.cores[i].Open(spec); err != nil {
				t.Fatal(err)
			}
			tr.settle(i)
		}
	}
	tr.tick(2, 0, 1, 2)
	// flush has groups flush a write that node 2 does not hear of.
	flush := func(ids ...dsdb.GroupID) {
		t.Helper()
		for _, id := range ids {
			r := new(result)
			tr.cores[0].Propose(id, []byte("x"), r)
			tr.settle(0)
			tr.converse(0, 1)
			if r.told != 1 || r.err != nil {
				t.Fatalf("write to group %d: %+v", id, r)
			}
			g := tr.cores[0].groups[id]
			g.machine.(*ledger).flushed = g.store.applied
			tr.cores[0].Flushed(id)
			tr.settle(0)
		}
	}
	kept := func(ids ...dsdb.GroupID) (sum int64) {
		for _, id := range ids {
			sum += tr.logs[0].kept[id]
		}
		return sum
	}
	flush(trioGroup)
	if got := kept(trioGroup); got != maxKeep {
		t.Errorf("the only group that keeps something keeps %d bytes, want %d", got, maxKeep)
	}
	flush(groups...)
	tr.tick(int(jointTicks), 0, 1)
	if got, want := kept(groups...), int64(keepTotal); got > want || got < want-int64(len(groups)) {
		t.Errorf("%d groups keep %d bytes, want %d", len(groups), got, want)
	}
	tr.boxes[2] = nil
	tr.tick(int(2*jointTicks), 0, 1, 2) // node 2 is back
	flush(trioGroup)
	if got := kept(trioGroup); got != maxKeep || len(tr.shelf.states) > 0 {
		t.Errorf("when the others have nothing to keep any more one keeps %d bytes, want %d; %d snapshots were taken", got, maxKeep, len(tr.shelf.states))
	}
}

func TestRestartedTrioKeepsItsLog(t *testing.T) {
	tr := newTrio(t)
	tr.converse(0, 1, 2)
	for _, s := range []string{"a", "b", "c"} {
		tr.propose(0, s)
		tr.converse(0, 1, 2)
	}
	for i := range 3 {
		tr.restart(i)
	}
	tr.boxes = [5][]Envelope{}
	tr.tick(50, 0, 1, 2)
	for i, sm := range tr.sms[:3] {
		if got := sm.payloads(); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("node %d: %q", i, got)
		}
	}
}

// What is not a message between the replicas of the group has no effect.
func TestStrayMessagesAreDropped(t *testing.T) {
	tr := newTrio(t)
	tr.converse(0, 1, 2)
	before := tr.cores[0].Status(trioGroup)
	message := func(typ raftpb.MessageType, from, to uint64) Envelope {
		return Envelope{Group: trioGroup, From: dsdb.ReplicaID(from), To: dsdb.ReplicaID(to),
			Message: &raftpb.Message{Type: typ.Enum(), From: &from, To: &to, Term: new(uint64(99))}}
	}
	other := message(raftpb.MsgHeartbeat, 2, 1)
	other.Group++
	tr.deliver(0,
		message(raftpb.MsgAppResp, 9, 1),   // an answer of a stranger
		message(raftpb.MsgHeartbeat, 2, 7), // to an earlier replica of this node
		message(raftpb.MsgHeartbeat, 1, 1), // from itself
		message(raftpb.MsgHup, 2, 1),
		message(raftpb.MsgProp, 2, 1),
		message(raftpb.MsgSnap, 2, 1),
		Envelope{Group: trioGroup, From: 2, To: 1},
		other,
	)
	if got := tr.cores[0].Status(trioGroup); !reflect.DeepEqual(got, before) {
		t.Errorf("status %+v, before %+v", got, before)
	}
}

// A leader that has just learnt of a later term knows no longer what the others
// lack: it keeps everything.
func TestDeposedLeaderTruncatesNothing(t *testing.T) {
	tr := newTrio(t)
	tr.converse(0, 1)
	tr.propose(0, "a")
	tr.converse(0, 1)
	last := tr.cores[0].Status(trioGroup).Applied
	tr.sms[0].flushed = last
	from, to := uint64(2), uint64(1)
	tr.cores[0].Step(Sender{Node: 2}, Envelope{Group: trioGroup, From: 2, To: 1, Message: &raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), From: &from, To: &to, Term: new(uint64(9)), Commit: &last}})
	tr.cores[0].Flushed(trioGroup)
	tr.settle(0)
	if first, _ := tr.logs[0].Bounds(trioGroup); first != birth.Index+1 {
		t.Errorf("the log begins at %d, and replica 3 lacks entry %d", first, birth.Index+1)
	}
}

// A replica whose raft state is impossible fails alone and says so.
func TestPanicFailsOneGroup(t *testing.T) {
	tr := newTrio(t)
	tr.converse(0, 1, 2)
	waiting := tr.read(1)
	from, to := uint64(1), uint64(2)
	tr.deliver(1, Envelope{Group: trioGroup, From: 1, To: 2, Message: &raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), From: &from, To: &to, Term: new(uint64(2)), Commit: new(uint64(1 << 40))}})
	if tr.cores[1].Status(trioGroup).Failed == nil {
		t.Fatal("the replica goes on")
	}
	if waiting.told != 1 {
		t.Errorf("waiter: %+v", waiting)
	}
	if r := tr.propose(1, "x"); dsdb.KindOf(r.err) != dsdb.KindUnavailable {
		t.Errorf("proposal: %+v", r)
	}
	r := tr.propose(0, "y")
	tr.converse(0, 2)
	if r.told != 1 || r.err != nil {
		t.Errorf("the other two: %+v", r)
	}
}

// What is said in the name of a member counts only from the process that holds it,
// which may have got another id since. Who is no member here may be one elsewhere.
func TestNobodySpeaksForAReplicaOfAnotherNode(t *testing.T) {
	cases := []struct {
		says  uint64 // the replica that the message is from
		from  Sender
		heard bool
	}{
		{1, Sender{Node: 1}, true},
		{1, Sender{Node: 3}, false},
		{1, Sender{Node: 9}, false},
		{1, Sender{}, false},
		{1, Sender{Node: 9, Other: 1}, true},
		{5, Sender{Node: 5}, true},
	}
	for _, c := range cases {
		tr := newTrio(t)
		tr.write("a", 0, 1, 2)
		to, term := uint64(2), tr.status(1).Term+1
		tr.cores[1].Step(c.from, Envelope{Group: trioGroup, From: dsdb.ReplicaID(c.says), To: 2, Message: &raftpb.Message{
			Type: raftpb.MsgHeartbeat.Enum(), From: &c.says, To: &to, Term: &term, Commit: new(uint64(0))}})
		tr.settle(1)
		if heard := tr.status(1).Term == term; heard != c.heard {
			t.Errorf("%+v speaks for replica %d: heard is %v", c.from, c.says, heard)
		}
	}
}

// Under load followers hear what is committed with the entries that follow: only
// when none do are they told by messages of their own. A read is not held up.
func TestCommitIsToldWithWhatFollows(t *testing.T) {
	tr := newTrio(t)
	tr.tick(3, 0, 1, 2)
	a := tr.propose(0, "a")
	first := tr.take(1)
	b := tr.propose(0, "b")
	second := tr.take(1)
	tr.boxes[2] = nil
	tr.deliver(1, first...)
	tr.deliver(0, tr.take(0)...)
	if a.told != 1 || b.told != 0 || len(tr.boxes[1]) > 0 {
		t.Fatalf("a is told %d times, b %d, and node 1 gets %v", a.told, b.told, tr.boxes[1])
	}
	tr.read(0)
	tr.deliver(1, tr.take(1)...)
	if got := tr.sms[1].payloads(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("asked for a read index node 1 has applied %q", got)
	}
	tr.deliver(1, second...)
	tr.converse(0, 1)
	if got := tr.sms[1].payloads(); b.told != 1 || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("b is told %d times, and node 1 has applied %q", b.told, got)
	}
}
