package server

import (
	"context"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/shard"
)

// Small writes to a shard that come while others are on their way share the
// next proposal.
const (
	mergeRunning = 2        // proposals of small writes to one group at a time; a write alone is never held up
	mergeEntry   = 64 << 10 // bytes of an entry that is merged
	mergeBytes   = 1 << 20  // and of those that make one proposal
	mergeCount   = 1000
)

// merger has concurrent small writes to a raft group share proposals. Each keeps
// its entry, with its id, and gets its own verdict. A proposal that fails fails
// for all that share it.
type merger struct {
	mu     sync.Mutex
	groups map[dsdb.GroupID]*queue // guarded by mu, as is what it leads to
}

// queue is the small writes to one group.
type queue struct {
	running int
	waiting []*merged // none if fewer than mergeRunning run
}

// merged is writes that share a proposal. What became of them may be read when
// done is closed.
type merged struct {
	entries  [][]byte // nil: given up before the proposal began
	bytes    int
	left     int           // of entries: those not given up
	begun    bool          // it has got its turn
	turn     chan struct{} // holds one when it has: whoever takes it proposes for all
	done     chan struct{}
	verdicts []dsdb.Verdict
	err      error
}

// enter takes an entry into a proposal that is to begin later, and says at which
// place. Without one the entry may be proposed at once, and leave called then.
func (m *merger) enter(g dsdb.GroupID, entry []byte) (p *merged, place int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.groups[g]
	if q == nil {
		q = &queue{}
		m.groups[g] = q
	}
	if q.running < mergeRunning {
		q.running++
		return nil, 0
	}
	if n := len(q.waiting); n > 0 {
		p = q.waiting[n-1]
	}
	if p == nil || len(p.entries) >= mergeCount || p.bytes+len(entry) > mergeBytes {
		p = &merged{turn: make(chan struct{}, 1), done: make(chan struct{})}
		q.waiting = append(q.waiting, p)
	}
	p.entries = append(p.entries, entry)
	p.bytes += len(entry)
	p.left++
	return p, len(p.entries) - 1
}

// leave ends a proposal: the one that waits longest has its turn.
func (m *merger) leave(g dsdb.GroupID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.groups[g]
	for len(q.waiting) > 0 {
		next := q.waiting[0]
		q.waiting = q.waiting[1:]
		if next.left > 0 {
			next.begun = true
			next.turn <- struct{}{}
			return
		}
	}
	if q.running--; q.running == 0 {
		delete(m.groups, g)
	}
}

// withdraw takes an entry back; false if its proposal has begun.
func (m *merger) withdraw(p *merged, place int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !p.begun {
		p.entries[place] = nil
		p.left--
	}
	return !p.begun
}

// proposeMerged proposes a small write, together with others if some are on
// their way already.
func (n *Node) proposeMerged(ctx context.Context, g dsdb.GroupID, entry []byte) (outcome, error) {
	m := &n.routes.merger
	p, place := m.enter(g, entry)
	if p == nil {
		defer m.leave(g)
		return n.proposeAs(ctx, &proposalCall{group: g, points: true, payload: entry})
	}
	select {
	case <-p.done:
	case <-p.turn:
		n.proposeFor(g, p)
	case <-ctx.Done():
		if m.withdraw(p, place) {
			return outcome{}, gaveUp(ctx, g, true)
		}
		select {
		case <-p.turn: // there may be nobody else
			n.proposeFor(g, p)
		default:
			return outcome{}, gaveUp(ctx, g, false)
		}
	}
	if p.err != nil {
		return outcome{}, p.err
	}
	return outcome{Verdict: p.verdicts[place]}, nil
}

// gaveUp is what a write is told whose time is over while others are proposed,
// or it is proposed by another one.
func gaveUp(ctx context.Context, g dsdb.GroupID, withdrawn bool) error {
	switch {
	case ctx.Err() == context.Canceled:
		return dsdb.Errorf(dsdb.KindCanceled, "canceled: %w", context.Cause(ctx))
	case withdrawn:
		return dsdb.Errorf(dsdb.KindUnavailable, "timeout: other writes to raft group %d have no outcome yet", g)
	}
	return &dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout", Err: ctx.Err()}
}

// proposeFor proposes for all who share p. It does not end with any of them, but
// within the write timeout.
func (n *Node) proposeFor(g dsdb.GroupID, p *merged) {
	defer n.routes.merger.leave(g)
	p.verdicts, p.err = n.proposeAll(g, p.entries)
	close(p.done)
}

// proposeAll proposes entries as one, but for those given up, and returns the
// verdicts on all, in their order.
func (n *Node) proposeAll(g dsdb.GroupID, entries [][]byte) ([]dsdb.Verdict, error) {
	var left [][]byte
	var places []int
	for i, e := range entries {
		if e != nil {
			left, places = append(left, e), append(places, i)
		}
	}
	ctx, cancel := n.bound(n.running)
	defer cancel()
	p := proposalCall{group: g, points: true, payload: left[0]}
	if len(left) > 1 {
		p.payload = shard.AppendWrites(nil, left)
	}
	o, err := n.proposeAs(ctx, &p)
	if err != nil {
		return nil, err
	}
	each := []dsdb.Verdict{o.Verdict}
	if len(left) > 1 {
		if each, err = shard.Verdicts(o.Verdict, len(left)); err != nil {
			return nil, err
		}
	}
	verdicts := make([]dsdb.Verdict, len(entries))
	for i, at := range places {
		verdicts[at] = each[i]
	}
	return verdicts, nil
}
