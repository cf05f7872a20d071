package raftnode

import (
	"encoding/binary"
	"fmt"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// readQueue holds the reads of one group on their way: waiting for the leader
// to be able to serve them, then for a quorum to confirm it; and those that wait
// for the local state machine to have applied an index.
type readQueue struct {
	waiting   []readWaiter
	issued    []readBatch
	confirmed []confirmedRead
}

// readWaiter waits for a read index, or with apply for as much to be applied.
type readWaiter struct {
	waiter Waiter
	apply  bool
}

// readBatch is the reads that share one request to raft. Its number is used once.
type readBatch struct {
	seq     uint64
	waiters []readWaiter
}

type confirmedRead struct {
	index  uint64
	waiter Waiter
}

func (q *readQueue) confirm(index uint64, w Waiter) {
	q.confirmed = append(q.confirmed, confirmedRead{index, w})
}

// issueReads asks raft for a read index for all waiting reads at once and
// reports whether it did. A leader first has to commit an entry of its own term:
// before that it may not know of everything that was acknowledged. A request's
// context is never used again, so that late replies to one cannot confirm
// another. What the core has seen of raft's state must be current: a replica
// that does not lead would pass the request on over the network.
func (c *Core) issueReads(g *group) bool {
	q := &g.reads
	if len(q.waiting) == 0 {
		return false
	}
	if !g.seen.leading || g.witness {
		if !g.single() {
			q.failUnserved(c, g.notLeader())
		}
		return false
	}
	if g.seen.commit < g.seen.termStart {
		return false
	}
	c.seq++
	q.issued = append(q.issued, readBatch{c.seq, q.waiting})
	q.waiting = nil
	ctx := binary.LittleEndian.AppendUint64(make([]byte, 0, 16), c.origin)
	if mutant.StaleLeaderServes {
		q.confirmReads(c, binary.LittleEndian.AppendUint64(ctx, c.seq), g.seen.commit)
		return true
	}
	g.node.ReadIndex(binary.LittleEndian.AppendUint64(ctx, c.seq))
	return true
}

// again has all requests issued anew: a leader that has become the only member
// will hear no confirmation of the old ones.
func (q *readQueue) again() {
	for _, b := range q.issued {
		q.waiting = append(q.waiting, b.waiters...)
	}
	q.issued = nil
}

// length is the number of reads without an outcome.
func (q *readQueue) length() int {
	n := len(q.waiting) + len(q.confirmed)
	for _, b := range q.issued {
		n += len(b.waiters)
	}
	return n
}

// confirmReads notes that a quorum has confirmed the request with this context.
func (q *readQueue) confirmReads(c *Core, ctx []byte, index uint64) {
	if len(ctx) != 16 || binary.LittleEndian.Uint64(ctx) != c.origin {
		return
	}
	seq := binary.LittleEndian.Uint64(ctx[8:])
	for i, b := range q.issued {
		if b.seq == seq {
			for _, w := range b.waiters {
				if w.apply {
					q.confirm(index, w.waiter)
				} else {
					c.out.Results = append(c.out.Results, Result{Waiter: w.waiter, Verdict: dsdb.Verdict{Index: index}})
				}
			}
			q.issued = append(q.issued[:i:i], q.issued[i+1:]...)
			return
		}
	}
}

// release tells the reads that the state machine has caught up with, and forgets
// those that nobody waits for any more.
func (q *readQueue) release(c *Core, applied uint64) {
	rest := q.confirmed[:0]
	for _, r := range q.confirmed {
		switch {
		case r.index <= applied || mutant.ReadIndexWithoutWait:
			c.result(r.waiter, nil)
		case !gone(r.waiter):
			rest = append(rest, r)
		}
	}
	clear(q.confirmed[len(rest):])
	q.confirmed = rest
}

// failUnserved tells err to the reads that no quorum has confirmed.
func (q *readQueue) failUnserved(c *Core, err error) {
	for _, w := range q.waiting {
		c.result(w.waiter, err)
	}
	for _, b := range q.issued {
		for _, w := range b.waiters {
			c.result(w.waiter, err)
		}
	}
	q.waiting, q.issued = nil, nil
}

func (q *readQueue) fail(c *Core, err error) {
	q.failUnserved(c, err)
	for _, r := range q.confirmed {
		c.result(r.waiter, err)
	}
	q.confirmed = nil
}

func (g *group) notLeader() error {
	if g.witness && g.seen.leading {
		return g.soonLed()
	}
	return &dsdb.Error{Kind: dsdb.KindNotLeader, Leader: g.nodeOf(dsdb.ReplicaID(g.seen.lead)),
		Text: fmt.Sprintf("raft group %d: replica %d does not lead (leader is %d)", g.id, g.seen.replica, g.seen.lead)}
}
