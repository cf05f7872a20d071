package raftnode

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/wal"
)

// lag makes a trio whose node 2 lacks entries that the leader's log has
// forgotten: it is cut off, and gone for longer than anyone waits.
func lag(t *testing.T) (tr *trio, want []string) {
	tr = newTrio(t)
	for i := range 3 {
		want = append(want, fmt.Sprint(i))
		tr.write(want[i], 0, 1, 2)
	}
	tr.tick(3, 0, 1, 2)
	return tr, tr.outrun(want)
}

// outrun writes more while node 2 hears nothing, and truncates.
func (tr *trio) outrun(want []string) []string {
	for range 3 {
		want = append(want, fmt.Sprint(len(want)))
		tr.write(want[len(want)-1], 0, 1)
	}
	tr.boxes[2], tr.mail[2], tr.from[2] = nil, nil, nil
	flushed := tr.sms[0].flush()
	g := tr.cores[0].groups[trioGroup]
	now := g.clock.now
	g.clock.now += goneTicks
	tr.cores[0].dropReady(g)
	tr.cores[0].Flushed(trioGroup)
	g.clock.now = now
	tr.settle(0)
	if first, _ := tr.logs[0].Bounds(trioGroup); first != flushed+1 {
		tr.t.Fatalf("the log begins at %d, flushed up to %d", first, flushed)
	}
	want = append(want, fmt.Sprint(len(want)))
	tr.write(want[len(want)-1], 0, 1)
	tr.boxes[2] = nil
	return want
}

// awaitMail lets the nodes talk until a snapshot is on its way to node i.
func (tr *trio) awaitMail(i int) {
	tr.t.Helper()
	nodes := []int{0, 1, i}
	for n := 0; len(tr.mail[i]) == 0; n++ {
		if n > 100 {
			tr.t.Fatal("no snapshot comes")
		}
		for _, i := range nodes {
			for s := range TickSlices {
				tr.cores[i].Tick(s)
			}
			tr.settle(i)
		}
		for _, i := range nodes {
			tr.deliver(i, tr.take(i)...)
		}
	}
}

// heard lets the leader, node 0, be heard by node i, whose answers lie in its box then.
func (tr *trio) heard(i int) {
	for s := range TickSlices {
		tr.cores[0].Tick(s)
	}
	tr.settle(0)
	tr.deliver(i, tr.take(i)...)
}

func (tr *trio) caughtUp(i int, want []string) {
	tr.t.Helper()
	tr.await(func() bool { return slices.Equal(tr.sms[i].payloads(), want) }, 0, 1, 2)
	if err := tr.status(i).Failed; err != nil {
		tr.t.Error(err)
	}
}

func TestLaggingReplicaGetsASnapshot(t *testing.T) {
	tr, want := lag(t)
	tr.caughtUp(2, want)
	want = append(want, "after")
	tr.write("after", 0, 1, 2)
	tr.caughtUp(2, want)
	tr.restart(2)
	tr.caughtUp(2, want)
}

// Two snapshots in a row, the second while the first is being installed or right
// behind it (etcd #18055), and the same one twice.
func TestSnapshotsInARow(t *testing.T) {
	tr, want := lag(t)
	tr.awaitMail(2)
	first := tr.mail[2]
	tr.cores[0].SnapshotSent(first[0], errors.New("as far as the leader knows"))
	tr.settle(0)
	tr.mail[2], tr.from[2] = nil, nil
	want = tr.outrun(want)
	tr.awaitMail(2)
	second := tr.mail[2][0]
	rs := [3]result{}
	tr.cores[2].Install(Sender{Node: node(0)}, first[0].Snapshot, "", &rs[0])
	tr.cores[2].Drain() // not written yet
	tr.cores[2].Install(Sender{Node: node(0)}, second.Snapshot, "", &rs[1])
	for _, r := range tr.cores[2].Drain().Results {
		r.Waiter.Done(r.Verdict, r.Err)
	}
	if rs[1].told != 1 || dsdb.KindOf(rs[1].err) != dsdb.KindUnavailable {
		t.Errorf("the second while the first is being installed: %+v", rs[1])
	}
	tr.restart(2) // what was not written is lost
	for i, s := range []SendTask{first[0], second, second} {
		rs[i] = result{}
		tr.cores[2].Install(Sender{Node: node(0)}, s.Snapshot, "", &rs[i])
		tr.settle(2)
		if rs[i].told != 1 || rs[i].err != nil {
			t.Errorf("snapshot %d: %+v", i, rs[i])
		}
	}
	tr.cores[0].SnapshotSent(second, nil)
	tr.settle(0)
	tr.mail[2], tr.from[2] = nil, nil
	tr.caughtUp(2, want)
}

// The log is not truncated above a snapshot that is on its way, and a failed one
// is sent again.
func TestLogIsKeptForASnapshotOnItsWay(t *testing.T) {
	tr, want := lag(t)
	tr.awaitMail(2)
	s := tr.mail[2][0]
	index := s.Snapshot.Envelope.Message.GetSnapshot().GetMetadata().GetIndex()
	tr.mail[2], tr.from[2] = nil, nil
	want = append(want, "more")
	tr.write("more", 0, 1)
	tr.sms[0].flush()
	tr.cores[0].groups[trioGroup].clock.now += goneTicks
	tr.cores[0].Flushed(trioGroup)
	tr.settle(0)
	if first, _ := tr.logs[0].Bounds(trioGroup); first > index+1 {
		t.Fatalf("the log begins at %d, a snapshot at %d is on its way", first, index)
	}
	tr.cores[0].SnapshotSent(s, errors.New("the cable was pulled"))
	tr.settle(0)
	tr.caughtUp(2, want)
	tr.tick(int(readyTicks+2*jointTicks), 0, 1, 2)
	if tr.shelf.pinned != 0 {
		t.Errorf("%d snapshots are not released", tr.shelf.pinned)
	}
}

// Between raft's wish to send a snapshot and its sending the leader is deposed, or
// the snapshot is found to be too old: nothing is sent, and another serves later.
func TestSnapshotIsGivenUpBeforeItIsSent(t *testing.T) {
	for name, giveUp := range map[string]func(tr *trio, g *group){
		"deposed": func(tr *trio, g *group) {
			m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(g.seen.term + 1), Index: new(g.store.last + 9), LogTerm: new(g.seen.term)}
			tr.cores[0].Step(Sender{Node: node(1)}, Envelope{Group: trioGroup, From: 2, To: 1, Message: m})
		},
		"too old": func(tr *trio, g *group) {
			g.clock.now += readyTicks
			tr.cores[0].ageSnapshots(g)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr, want := lag(t)
			g := tr.cores[0].groups[trioGroup]
			for n := 0; g.sending.ready == nil; n++ {
				if n > 100 {
					t.Fatal("no snapshot is prepared")
				}
				tr.deliver(0, tr.take(0)...)
				tr.heard(2)
			}
			tr.heard(2)
			for _, m := range tr.take(0) {
				tr.cores[0].Step(Sender{Node: dsdb.NodeID(m.From)}, m)
			}
			giveUp(tr, g)
			tr.settle(0)
			if err := tr.status(0).Failed; err != nil || len(tr.mail[2]) > 0 {
				t.Fatalf("%v, %d snapshots are sent", err, len(tr.mail[2]))
			}
			tr.caughtUp(2, want)
		})
	}
}

// A transfer of which nothing is ever heard does not keep a replica waiting for ever.
func TestForgottenSnapshotIsGivenUp(t *testing.T) {
	tr, want := lag(t)
	tr.awaitMail(2)
	tr.mail[2], tr.from[2] = nil, nil
	tr.tick(int(2*jointTicks), 0, 1, 2)
	if got := tr.sms[2].payloads(); slices.Equal(got, want) {
		t.Fatal("without a snapshot the replica caught up")
	}
	tr.cores[0].groups[trioGroup].clock.now += flightTicks
	tr.caughtUp(2, want)
}

// A replica that has no room for snapshots is sent one at once after the first that
// failed, and then ever more rarely, though not too rarely. One that it takes ends that.
func TestSnapshotsThatFailAreSentEverMoreRarely(t *testing.T) {
	tr, want := lag(t)
	tr.shelf.fail = dsdb.Errorf(dsdb.KindUnavailable, "no space")
	sent := 0
	minute := uint64(time.Minute / TickEvery)
	for range minute {
		if len(tr.mail[2]) > 0 {
			sent++
			tr.install(2)
		}
		for _, i := range []int{0, 1, 2} {
			for s := range TickSlices {
				tr.cores[i].Tick(s)
			}
			tr.settle(i)
		}
		for busy := true; busy; {
			busy = false
			for i := range 3 {
				if msgs := tr.take(i); len(msgs) > 0 {
					busy = true
					tr.deliver(i, msgs...)
				}
			}
		}
	}
	if least := int(minute/maxSetback) / 2; sent < least || sent > 2*least+8 {
		t.Errorf("%d snapshots were sent in a minute", sent)
	}
	tr.shelf.fail = nil
	tr.caughtUp(2, want)
	if n := len(tr.cores[0].groups[trioGroup].sending.setbacks); n != 0 {
		t.Errorf("%d replicas are still put off", n)
	}
}

// One that takes long but is heard of is left to arrive.
func TestSlowSnapshotIsNotGivenUp(t *testing.T) {
	tr, want := lag(t)
	tr.awaitMail(2)
	s := tr.mail[2][0]
	for range 10 {
		tr.cores[0].groups[trioGroup].clock.now += flightTicks - 2*jointTicks
		tr.cores[0].SnapshotAlive(s, 1)
		tr.tick(int(jointTicks), 0, 1)
	}
	if n := len(tr.mail[2]); n != 1 {
		t.Fatalf("%d snapshots were sent", n)
	}
	tr.caughtUp(2, want)
}

// Others may know of a snapshot whether it waits for its turn, and how much was sent.
func TestProgressOfASnapshotIsTold(t *testing.T) {
	tr, _ := lag(t)
	tr.awaitMail(2)
	s := tr.mail[2][0]
	for _, sent := range []uint64{0, 7} {
		tr.cores[0].SnapshotAlive(s, sent)
		ps := tr.status(0).Progress
		i := slices.IndexFunc(ps, func(p PeerProgress) bool { return p.Replica == 3 })
		if i < 0 || ps[i].Sent != sent || ps[i].Queued != (sent == 0) {
			t.Errorf("%d bytes were sent: %+v", sent, ps)
		}
	}
}

// A snapshot that is not for this replica, or contradicts itself, changes nothing.
func TestStraySnapshotsAreRefused(t *testing.T) {
	tr, want := lag(t)
	tr.awaitMail(2)
	good := tr.mail[2][0].Snapshot
	for name, spoil := range map[string]func(*Snapshot){
		"other replica": func(s *Snapshot) { s.Envelope.To = 7 },
		"no message":    func(s *Snapshot) { s.Envelope.Message = nil },
		"other index":   func(s *Snapshot) { s.Manifest.Index++ },
		"other sender":  func(s *Snapshot) { s.Envelope.From = 9 },
		"unknown group": func(s *Snapshot) { s.Envelope.Group++ },
		"not a snapshot": func(s *Snapshot) {
			from, to := uint64(1), uint64(3)
			s.Envelope.Message = &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: &from, To: &to}
		},
	} {
		s, r := good, new(result)
		spoil(&s)
		tr.cores[2].Install(Sender{Node: node(0)}, s, "", r)
		tr.settle(2)
		if r.told != 1 || r.err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	r := new(result)
	tr.cores[2].Install(Sender{Node: node(1)}, good, "", r)
	if tr.settle(2); dsdb.KindOf(r.err) != dsdb.KindInvalid {
		t.Errorf("of another node: %+v", r)
	}
	tr.caughtUp(2, want)
}

// A replica whose state machine cannot take a snapshot is out of service, and
// after a restart as it was.
func TestFailedInstall(t *testing.T) {
	tr, want := lag(t)
	tr.awaitMail(2)
	tr.shelf.fail = errors.New("disk error")
	before := tr.sms[2].payloads()
	rs := tr.install(2)
	if rs[0].err == nil || tr.status(2).Failed == nil {
		t.Fatalf("%+v", rs[0])
	}
	tr.shelf.fail = nil
	tr.restart(2)
	if got := tr.sms[2].payloads(); !slices.Equal(got, before[:len(got)]) {
		t.Errorf("after the restart %q, before %q", got, before)
	}
	tr.caughtUp(2, want)
}

// The power fails before and after each step of an installation, the log being
// the production one: what comes up is the old replica or the new one, and the
// group goes on with it.
func TestCrashAtEachStepOfAnInstall(t *testing.T) {
	for _, blank := range []bool{false, true} {
		for step := range 6 {
			t.Run(fmt.Sprintf("blank=%v/step=%d", blank, step), func(t *testing.T) { crashInstall(t, blank, step) })
		}
	}
}

func crashInstall(t *testing.T, blank bool, step int) {
	tr, want := lag(t)
	target := 2
	if blank {
		target = 3
		tr.open(3, true)
		tr.must(tr.change(0, Change{AddLearner, peer(3)}), 0, 1)
	}
	disk := vfs.NewMem(uint64(step))
	log := memDiskLog(t, disk)
	copyLog(t, tr.logs[target], log)
	sm := tr.sms[target].crashed()
	boot := func() *Core {
		tr.boots++
		c := NewCore(log, tr.boots, quiet())
		if err := c.Open(GroupSpec{ID: trioGroup, Replica: dsdb.ReplicaID(target + 1), StateMachine: sm}); err != nil {
			t.Fatal(err)
		}
		return c
	}
	tr.awaitMail(target)
	snapshot := tr.mail[target][0].Snapshot
	before := snapshot.Manifest.Index

	// The steps are writes to the log and runs of the state machine. The power
	// fails when as many are done as allowed.
	c, done := boot(), new(result)
	steps, allowed := 0, 1<<30
	next := func(f func()) bool {
		if steps == allowed {
			return false
		}
		steps++
		f()
		return true
	}
	advance := func(out *Outputs) (more bool) {
		for _, a := range out.Appends {
			if !a.Empty && !next(func() { write(t, log, a.Update) }) {
				return false
			}
		}
		c.StorageDone(out.Appends)
		for _, task := range out.Tasks {
			var err error
			if !next(func() { err = task.Run() }) {
				return false
			}
			c.ApplyDone(task, err)
		}
		for _, r := range out.Results {
			r.Waiter.Done(r.Verdict, r.Err)
		}
		return len(out.Appends)+len(out.Tasks)+len(out.Results) > 0
	}
	for advance(c.Drain()) {
	}
	steps, allowed = 0, step
	c.Install(Sender{Node: node(0)}, snapshot, "", done)
	for advance(c.Drain()) {
	}
	if steps < 3 && done.told > 0 || steps > 3 && (done.told != 1 || done.err != nil) {
		t.Fatalf("acknowledged after step %d: %+v", steps, done)
	}

	after := disk.CrashClone(0, 1)
	log.Close()
	log = memDiskLog(t, after)
	defer log.Close()
	sm = sm.crashed()
	c = boot()
	steps, allowed = 0, 1<<30
	for advance(c.Drain()) {
	}
	status := c.Status(trioGroup)
	if status.Failed != nil {
		t.Fatal(status.Failed)
	}
	state, _ := log.State(trioGroup)
	installed := sm.FlushedIndex() == before
	if state.Installing != nil || installed != (state.Truncated.Index == before) {
		t.Fatalf("installed %v, but the log is %+v", installed, state)
	}
	if done.told == 1 && !installed {
		t.Fatal("an acknowledged snapshot is lost")
	}
	// The group goes on with it.
	tr.sms[target] = sm.crashed()
	tr.logs[target] = newMemLog()
	moveLog(t, log, tr.logs[target])
	tr.cores[target] = NewCore(tr.logs[target], 1<<20, quiet())
	tr.open(target, false)
	tr.boxes[target], tr.mail[target], tr.from[target] = nil, nil, nil
	tr.cores[0].SnapshotSent(SendTask{group: tr.cores[0].groups[trioGroup], flight: tr.cores[0].groups[trioGroup].sending.flights[0]}, errors.New("it crashed"))
	tr.settle(0)
	tr.await(func() bool { return slices.Equal(tr.sms[target].payloads(), want) }, 0, 1, target)
}

func write(t *testing.T, log Log, us ...wal.Update) {
	t.Helper()
	if err := log.Write(us, true); err != nil {
		t.Fatal(err)
	}
}

// copyLog writes the trio group of one log into another.
func copyLog(t *testing.T, from *memLog, to Log) {
	s := from.groups[trioGroup].state
	create, hard := s, s.HardState
	create.HardState.Commit = min(hard.Commit, s.Truncated.Index)
	write(t, to, wal.Update{Group: trioGroup, Create: &create, Entries: from.groups[trioGroup].entries, HardState: &hard})
}

func moveLog(t *testing.T, from *wal.Log, to *memLog) {
	s, _ := from.State(trioGroup)
	first, last := from.Bounds(trioGroup)
	var es []wal.Entry
	if last >= first {
		var err error
		if es, err = from.Entries(trioGroup, first, last+1, 1<<40, nil); err != nil {
			t.Fatal(err)
		}
	}
	to.groups[trioGroup] = &memGroup{state: s, entries: es}
}
