package raftnode

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
)

// proposeNewer has node i, which leads, propose an entry that only the next
// version of the envelope describes.
func (tr *trio) proposeNewer(i int) {
	tr.t.Helper()
	g := tr.cores[i].groups[trioGroup]
	e := []*raftpb.Entry{{Data: []byte{envelopeVersion + 1, 'x'}}}
	if err := g.node.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: &g.seen.replica, Entries: e}); err != nil {
		tr.t.Fatal(err)
	}
	tr.cores[i].touch(g)
	tr.settle(i)
}

// A follower of an older program comes upon an entry that it cannot apply: it
// says so and answers nothing, but has the log and votes, so that the others need
// nobody else. With a newer program it goes on from its log.
func TestOlderReplicaHaltsAtANewerEntry(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.sms[0].newer, tr.sms[1].newer = true, true
	tr.write("newer", 0, 1, 2)
	tr.write("b", 0, 1, 2)
	if s := tr.status(2); !errors.Is(s.Failed, dsdb.ErrNewer) || s.Last != tr.status(0).Last {
		t.Fatalf("the old one: %+v", s)
	}
	if got := tr.sms[2].payloads(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("it has applied %q", got)
	}
	for what, r := range map[string]*result{"proposal": tr.propose(2, "x"), "read": tr.read(2), "transfer": tr.transfer(2, 1)} {
		if dsdb.KindOf(r.err) != dsdb.KindUnavailable || !errors.Is(r.err, dsdb.ErrNewer) {
			t.Errorf("%s: %+v", what, r)
		}
	}
	tr.boxes[1] = nil
	tr.write("c", 0, 2) // a quorum with it
	tr.sms[2].newer = true
	tr.restart(2)
	tr.caughtUp(2, []string{"a", "newer", "b", "c"})
	if s := tr.status(2); s.Failed != nil {
		t.Errorf("the new one: %+v", s)
	}
}

// A program that is put back halts again at the same entry, however often it starts.
func TestOlderReplicaHaltsAtEachStart(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.sms[0].newer, tr.sms[1].newer = true, true
	tr.write("newer", 0, 1, 2)
	for range 3 {
		tr.restart(2)
		tr.tick(3, 0, 1, 2)
		if s := tr.status(2); !errors.Is(s.Failed, dsdb.ErrNewer) {
			t.Fatalf("%+v", s)
		}
	}
}

// An old program that leads hands on the leadership to whoever may go on.
func TestHaltedLeaderStandsAside(t *testing.T) {
	tr := newTrio(t)
	tr.write("a", 0, 1, 2)
	tr.sms[1].newer, tr.sms[2].newer = true, true
	r := tr.propose(0, "newer")
	tr.converse(0, 1, 2)
	if dsdb.KindOf(r.err) != dsdb.KindTimeout {
		t.Errorf("the proposal: %+v", r)
	}
	tr.tick(int(jointTicks), 0, 1, 2)
	if tr.status(0).Leading {
		t.Error("the old program leads")
	}
	tr.write("b", 1, 2)
}

// The parts of an entry that raftnode itself reads may be newer too: what comes
// before such an entry in the same run is applied.
func TestNewerEnvelopeHalts(t *testing.T) {
	tr := newTrio(t)
	tr.converse(0, 1, 2)
	for i := range 3 {
		tr.propose(0, fmt.Sprint(i))
	}
	tr.proposeNewer(0)
	tr.propose(0, "behind")
	tr.tick(3, 0, 1, 2)
	for i := range 3 {
		if got := tr.sms[i].payloads(); !slices.Equal(got, []string{"0", "1", "2"}) {
			t.Errorf("replica %d has applied %q", i+1, got)
		}
		if s := tr.status(i); !errors.Is(s.Failed, dsdb.ErrNewer) {
			t.Errorf("replica %d: %+v", i+1, s)
		}
	}
	term := tr.status(0).Term
	tr.tick(int(20*jointTicks), 0, 1, 2)
	if now := tr.status(0).Term; now > term+25 {
		t.Errorf("term %d after %d: the leadership goes round and round", now, term)
	}
}

// A snapshot for which there is no room, or that a newer program made, is not the
// end of a replica: it goes on as it was, and takes the next one.
func TestFailedInstallIsTriedAgain(t *testing.T) {
	for name, err := range map[string]error{
		"full disk": dsdb.Errorf(dsdb.KindUnavailable, "no space"),
		"newer":     fmt.Errorf("manifest: %w", dsdb.ErrNewer),
	} {
		t.Run(name, func(t *testing.T) {
			tr, want := lag(t)
			before := tr.sms[2].payloads()
			tr.awaitMail(2)
			tr.shelf.fail = err
			for range 3 {
				tr.awaitMail(2)
				if rs := tr.install(2); !errors.Is(rs[0].err, err) {
					t.Fatalf("%+v", rs[0])
				}
				if s := tr.status(2); s.Failed != nil || !slices.Equal(tr.sms[2].payloads(), before) {
					t.Fatalf("%+v, %q", s, tr.sms[2].payloads())
				}
			}
			tr.shelf.fail = nil
			tr.caughtUp(2, want)
			tr.write("more", 0, 2)
			tr.restart(2)
			tr.caughtUp(2, append(want, "more"))
		})
	}
}

// What a replica has applied and not flushed is not applied again when it begins anew.
func TestFailedInstallAppliesNothingTwice(t *testing.T) {
	tr, want := lag(t)
	if f := tr.sms[2].FlushedIndex(); f >= tr.status(2).Applied {
		t.Fatalf("all of %d is flushed", f)
	}
	tr.awaitMail(2)
	tr.shelf.fail = dsdb.Errorf(dsdb.KindUnavailable, "no space")
	applied := tr.status(2).Applied
	tr.install(2)
	if s := tr.status(2); s.Applied != applied || s.Term < 1 {
		t.Errorf("%+v, before it had applied %d", s, applied)
	}
	tr.shelf.fail = nil
	tr.caughtUp(2, want)
}

// Entries that were on their way to the log when a snapshot came are in the log
// before it is tried to install: a replica that gives it up and begins anew from the
// log has them.
func TestFailedInstallForgetsNoOlderAppend(t *testing.T) {
	tr := newTrio(t)
	tr.write("0", 0, 1, 2)
	tr.tick(3, 0, 1, 2)
	tr.boxes[2] = nil
	tr.propose(0, "1")
	late := tr.take(2)
	want := tr.outrun([]string{"0", "1"})
	tr.awaitMail(2)
	last := tr.status(2).Last
	for _, m := range late {
		tr.cores[2].Step(Sender{Node: node(0)}, m)
	}
	older := tr.cores[2].Drain().Appends
	done := new(result)
	tr.cores[2].Install(Sender{Node: node(0)}, tr.mail[2][0].Snapshot, "", done)
	install := tr.cores[2].Drain().Appends
	if len(older) != 1 || len(install) != 1 || install[0].Update.Installing == nil {
		t.Fatalf("appends before and for the snapshot: %+v, %+v", older, install)
	}
	tr.shelf.fail = dsdb.Errorf(dsdb.KindUnavailable, "no space")
	for _, as := range [][]Append{older, install} {
		if tasks := tr.cores[2].Drain().Tasks; len(tasks) > 0 {
			t.Fatal("something is done before the log has it")
		}
		write(t, tr.logs[2], as[0].Update)
		tr.cores[2].StorageDone(as)
	}
	tr.settle(2)
	if s := tr.status(2); done.err == nil || s.Failed != nil || s.Last != last+1 {
		t.Errorf("%v, then %+v, the last entry before was %d", done.err, s, last)
	}
	tr.cores[0].SnapshotSent(tr.mail[2][0], done.err)
	tr.settle(0)
	tr.mail[2], tr.from[2], tr.shelf.fail = nil, nil, nil
	tr.caughtUp(2, want)
}

func TestDamagedInstallIsTheEndOfAReplica(t *testing.T) {
	tr, _ := lag(t)
	tr.awaitMail(2)
	tr.shelf.fail = dsdb.Errorf(dsdb.KindCorrupt, "damaged")
	tr.install(2)
	if tr.status(2).Failed == nil {
		t.Error("it goes on")
	}
}
