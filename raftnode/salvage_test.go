package raftnode

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// salvage runs Salvage on what a crash leaves of node i.
func (tr *trio) salvage(i int) (*ledger, error) {
	sm := tr.sms[i].crashed()
	_, err := Salvage(tr.logs[i], trioGroup, sm, []byte("end"), func() error { sm.flush(); return nil })
	return sm, err
}

// What one replica of three has of its group, committed or not, founds a group of
// one, at a position that no other replica can have reached.
func TestSalvagedReplicaFoundsItsGroupAnew(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		tr := newTrio(t)
		tr.converse(0, 1, 2)
		tr.propose(0, "a")
		tr.converse(0, 1, 2)
		if flushed {
			tr.sms[0].flush()
		}
		tr.propose(0, "b") // nobody hears of it
		tr.change(0, Change{AddLearner, peer(3)})
		if st := tr.status(0); st.Last < st.Commit+2 {
			t.Fatalf("nothing is uncommitted: %+v", st)
		}
		if m, err := LogMembers(tr.logs[0], trioGroup); err != nil || len(m.Voters) != 3 || len(m.Learners) != 1 {
			t.Errorf("members %+v, %v", m, err)
		}

		sm, err := tr.salvage(0)
		if got := sm.payloads(); err != nil || !slices.Equal(got, []string{"a", "b", "end"}) {
			t.Fatalf("salvaged %q, %v", got, err)
		}
		if i := sm.FlushedIndex(); i != 1<<32 {
			t.Errorf("flushed up to %d", i)
		}
		sm = sm.crashed()
		if _, err := Salvage(tr.logs[0], trioGroup, sm, []byte("end"), nil); err != nil || len(sm.payloads()) != 3 {
			t.Errorf("salvaged once more: %q, %v", sm.payloads(), err)
		}

		old := tr.status(0).Term
		m, release, err := sm.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		release()
		tr.sms[0] = sm
		write(t, tr.logs[0], Refound(trioGroup, Peer{Replica: 9, Node: node(0)}, m)...)
		tr.boot(0)
		if err := tr.cores[0].Open(GroupSpec{ID: trioGroup, Replica: 9, Node: node(0), StateMachine: sm}); err != nil {
			t.Fatal(err)
		}
		tr.settle(0)
		tr.tick(3*electionTicks, 0)
		if st := tr.status(0); !st.Leading || st.Term <= old || len(st.Members.Voters) != 1 {
			t.Fatalf("the new group: %+v", st)
		}
		if r := tr.propose(0, "c"); r.told != 1 || r.err != nil || !slices.Equal(sm.payloads(), []string{"a", "b", "end", "c"}) {
			t.Errorf("a write: %+v, applied %q", r, sm.payloads())
		}
		tr.tick(3*electionTicks, 1, 2) // the others elect one of them
		tr.converse(0, 1, 2)
		if st := tr.status(0); !st.Leading || st.Failed != nil {
			t.Errorf("the old group disturbs the new one: %+v", st)
		}
	}
}

// What is missing, damaged, or of a newer program is not passed over.
func TestSalvageIsHonest(t *testing.T) {
	tr := newTrio(t)
	tr.converse(0, 1, 2)
	tr.propose(0, "a")
	tr.converse(0, 1, 2)
	if _, err := Salvage(newMemLog(), trioGroup, tr.sms[0], nil, nil); dsdb.KindOf(err) != dsdb.KindNotFound {
		t.Errorf("without a log: %v", err)
	}
	tr.proposeNewer(0)
	if sm, err := tr.salvage(0); !errors.Is(err, dsdb.ErrNewer) || sm.FlushedIndex() >= 1<<32 {
		t.Errorf("of a newer program: %v", err)
	}
	short := tr.sms[1].crashed()
	short.flushed = tr.status(1).Last + 5
	if _, err := Salvage(tr.logs[1], trioGroup, short, nil, nil); dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Errorf("of a log that is too short: %v", err)
	}
	broken := tr.sms[2].crashed()
	broken.fail = fmt.Errorf("disk")
	if _, err := Salvage(tr.logs[2], trioGroup, broken, nil, nil); !errors.Is(err, broken.fail) {
		t.Errorf("of a machine that fails: %v", err)
	}
}

// A replica that holds a snapshot, of which its log knows only that it was to come,
// can be salvaged again after a crash, too: also in a group that was founded anew
// before, which its log of old does not reach.
func TestSalvageOfAnInstalledSnapshotGoesOn(t *testing.T) {
	for _, at := range []uint64{20, 1<<32 + 5} {
		log, sm := newMemLog(), &ledger{shelf: newShelf()}
		members := foundation([]Peer{peer(0), peer(1), peer(2)})
		write(t, log,
			wal.Update{Group: trioGroup, Create: &wal.GroupState{Replica: 1}},
			wal.Update{Group: trioGroup, Installing: &wal.GroupState{Replica: 1, HardState: wal.HardState{Term: 2, Commit: at},
				Truncated: wal.Position{Index: at, Term: 2}, Conf: appendMembership(nil, members)}})
		if _, err := sm.Apply([]dsdb.Entry{{Index: at, Term: 2, Data: []byte("installed")}}); err != nil {
			t.Fatal(err)
		}
		sm.flush()
		for range 2 {
			if _, err := Salvage(log, trioGroup, sm, []byte("end"), func() error { sm.flush(); return nil }); err != nil {
				t.Fatal(err)
			}
			if got := sm.payloads(); !slices.Equal(got, []string{"installed", "end"}) || sm.FlushedIndex() != (at>>32+1)<<32 {
				t.Errorf("snapshot at %d: salvaged %q up to %d", at, got, sm.FlushedIndex())
			}
			sm = sm.crashed()
		}
	}
}

// What a replica lacks is counted from the last founding of its group.
func TestLacked(t *testing.T) {
	const anew = 1 << 32
	for _, c := range []struct{ commit, match, want uint64 }{
		{0, 0, 0}, {50, 20, 30}, {50, 50, 0}, {50, 70, 0},
		{anew + 7, 0, 7}, {anew + 7, 900, 7}, {anew + 7, anew + 5, 2}, {anew, 10, 0}, {3*anew + 7, anew + 900, 7},
	} {
		if got := Lacked(c.commit, c.match); got != c.want {
			t.Errorf("up to %d, has up to %d: lacks %d, want %d", c.commit, c.match, got, c.want)
		}
	}
}
