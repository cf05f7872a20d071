package coord

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/dedupe"
)

// Whatever is taken and released in whatever order: ids ascend one by one, the
// newest is never span or more ahead of the oldest outstanding, there is no
// wait without need, and who waits is told. And a state machine that applies the
// proposals in any order, while they are outstanding, refuses none.
func TestSequencerAgainstTwin(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := NewSequencer(4, 9)
		var outstanding []uint64 // the obvious sequencer
		next := uint64(1)
		window := &dedupe.Window{}
		var waiting <-chan struct{}
		for range 30_000 {
			if slow := seed%2 == 0 && len(outstanding) > 0 && r.IntN(400) > 0; len(outstanding) == 0 || r.IntN(5) < 3 {
				id, wait := s.Take(7)
				full := len(outstanding) > 0 && next-outstanding[0] >= 1000
				if full != (wait != nil) {
					t.Fatalf("next %d, outstanding from %d: wait %v", next, outstanding[0], wait != nil)
				}
				if waiting = wait; wait == nil {
					if id != (dsdb.ProposalID{Node: 4, Epoch: 9, Seq: next}) {
						t.Fatalf("%+v after %d", id, next-1)
					}
					outstanding = append(outstanding, next)
					next++
				}
			} else {
				i := r.IntN(len(outstanding))
				if slow && len(outstanding) > 1 { // the oldest is seldom done
					i = 1 + r.IntN(len(outstanding)-1)
				}
				id := dsdb.ProposalID{Node: 4, Epoch: 9, Seq: outstanding[i]}
				if r.IntN(3) > 0 {
					if v, dup := window.Check(id); dup {
						t.Fatalf("the first copy of %+v is refused: %+v", id, v)
					}
					window.Record(id, dsdb.Verdict{})
				}
				s.Release(7, id)
				outstanding = slices.Delete(outstanding, i, i+1)
				if told := isClosed(waiting); waiting != nil && told != (i == 0) {
					t.Fatalf("released %d of the outstanding: told %v", i, told)
				}
				if i == 0 {
					waiting = nil
				}
			}
		}
		if first, _ := s.Take(8); first.Seq != 1 {
			t.Errorf("another group begins with %+v", first)
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Many goroutines take and release; each id is given once, and nobody waits forever.
func TestSequencerIsShared(t *testing.T) {
	s := NewSequencer(1, 1)
	var mu sync.Mutex
	seen := map[uint64]bool{}
	take := func() {
		var mine []dsdb.ProposalID
		release := func() {
			for _, id := range mine {
				s.Release(7, id)
			}
			mine = mine[:0]
		}
		for n := 0; n < 2000; {
			id, wait := s.Take(7)
			if wait != nil {
				release()
				<-wait
				continue
			}
			n++
			mine = append(mine, id)
			mu.Lock()
			if seen[id.Seq] {
				t.Errorf("%d was given twice", id.Seq)
			}
			seen[id.Seq] = true
			mu.Unlock()
			if len(mine) == 300 {
				release()
			}
		}
		release()
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(take)
	}
	wg.Wait()
	if len(seen) != 16000 {
		t.Errorf("%d ids", len(seen))
	}
}

// What is known of groups that are gone is forgotten, but not while a proposal to
// one is outstanding.
func TestGroupsThatAreGoneAreForgotten(t *testing.T) {
	s, l := NewSequencer(4, 9), &Leaders{}
	for g := range dsdb.GroupID(3) {
		id, _ := s.Take(g)
		if l.Learn(g, 4); g != 1 {
			s.Release(g, id)
		}
	}
	gone := func(g dsdb.GroupID) bool { return g == 2 }
	s.Retain(gone)
	l.Retain(gone)
	for g, want := range map[dsdb.GroupID]uint64{0: 1, 1: 2, 2: 2} {
		if id, _ := s.Take(g); id.Seq != want {
			t.Errorf("group %d: next is proposal %d, want %d", g, id.Seq, want)
		}
	}
	s.Release(1, dsdb.ProposalID{Node: 4, Epoch: 9, Seq: 1})
	if l.Leader(0) != 0 || l.Leader(1) != 0 || l.Leader(2) != 4 {
		t.Errorf("leaders %d, %d, %d", l.Leader(0), l.Leader(1), l.Leader(2))
	}
}
