package coord

import (
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// span bounds how far the newest proposal to a group may be ahead of the
// oldest that is outstanding. State machines tell a few more apart (dedupe.Width).
const span = 1000

// Sequencer gives the proposals of one process in one epoch their ids, and sees
// to it that those outstanding are near enough to each other for the state
// machines to tell duplicates from new ones. Safe for concurrent use.
type Sequencer struct {
	node  dsdb.NodeID
	epoch uint64

	mu     sync.Mutex // guards groups
	groups map[dsdb.GroupID]*sequence
}

// sequence is the proposals to one group: those below oldest, and those with a
// bit in done (seq % 1024), are not outstanding any more.
type sequence struct {
	oldest, next uint64
	done         [16]uint64
	released     chan struct{} // closed when oldest rises; nil: nobody waits
}

// NewSequencer returns the Sequencer of a process, by its node id, in its epoch.
func NewSequencer(node dsdb.NodeID, epoch uint64) *Sequencer {
	return &Sequencer{node: node, epoch: epoch, groups: map[dsdb.GroupID]*sequence{}}
}

// Take returns the id of a new proposal to a group, which is outstanding until
// it is released. If too many are it returns a channel instead: Take may be
// tried again when that is closed.
func (s *Sequencer) Take(g dsdb.GroupID) (id dsdb.ProposalID, wait <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.groups[g]
	if q == nil {
		q = &sequence{oldest: 1, next: 1}
		s.groups[g] = q
	}
	if q.next-q.oldest >= span && !mutant.SequenceUnbounded {
		if q.released == nil {
			q.released = make(chan struct{})
		}
		return id, q.released
	}
	id = dsdb.ProposalID{Node: s.node, Epoch: s.epoch, Seq: q.next}
	q.done[q.next%1024/64] &^= 1 << (q.next % 64)
	q.next++
	return id, nil
}

// Release says that a proposal will not be tried again, whatever came of it.
// It is called once for each id that Take gave.
func (s *Sequencer) Release(g dsdb.GroupID, id dsdb.ProposalID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.groups[g]
	if q == nil || id.Seq < q.oldest || id.Seq >= q.next {
		panic("BUG: release of a proposal that is not outstanding")
	}
	q.done[id.Seq%1024/64] |= 1 << (id.Seq % 64)
	before := q.oldest
	for q.oldest < q.next && q.done[q.oldest%1024/64]>>(q.oldest%64)&1 == 1 {
		q.oldest++
	}
	if q.oldest > before && q.released != nil {
		close(q.released)
		q.released = nil
	}
}

// Retain forgets the groups that keep does not want and to which no proposal is
// outstanding. They must be gone for good: ids to them would begin anew.
func (s *Sequencer) Retain(keep func(dsdb.GroupID) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g, q := range s.groups {
		if q.oldest == q.next && !keep(g) {
			delete(s.groups, g)
		}
	}
}
