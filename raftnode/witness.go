package raftnode

import (
	"encoding/binary"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/wal"
)

// Witness is the state machine of a witness: a voter that writes the log, votes
// and counts for a commit, but applies entries to nothing. It is the third vote
// of a group with two full replicas. What only one of those has acknowledged with
// it, it keeps in its log until both have it. A witness that is elected, as it has
// the longest log, brings a full replica up to it and lets that one lead; it takes
// no proposals, confirms no reads and is no source of a snapshot.
type Witness struct{ applied atomic.Uint64 }

// NewWitness returns the state machine of a witness whose log is as state says;
// known is false for one that the log does not know.
func NewWitness(state wal.GroupState, known bool) *Witness {
	w := new(Witness)
	if known {
		w.applied.Store(max(state.Truncated.Index, state.HardState.Commit))
	}
	return w
}

// Apply implements StateMachine: nothing of an entry is kept.
func (w *Witness) Apply(entries []dsdb.Entry) ([]dsdb.Verdict, error) {
	w.applied.Store(entries[len(entries)-1].Index)
	return make([]dsdb.Verdict, len(entries)), nil
}

// FlushedIndex implements StateMachine: what was applied needs no log.
func (w *Witness) FlushedIndex() uint64 { return w.applied.Load() }

// Snapshot implements StateMachine: there is none.
func (w *Witness) Snapshot() (dsdb.Manifest, func(), error) {
	return dsdb.Manifest{}, nil, errors.New("a witness has no state")
}

// Install implements StateMachine: the position is all there is to it.
func (w *Witness) Install(m dsdb.Manifest, _ string) error {
	w.applied.Store(m.Index)
	return nil
}

// retention is what a witness may forget, and what a leader has told witnesses of
// that. A witness that follows cannot see how far the full replicas are.
type retention struct {
	common   uint64 // as far as the leader said, all full replicas have the log up to here
	released uint64 // this replica keeps nothing up to here for others, see Release
	told     uint64 // common, as this leader told it
	toldAt   uint64 // tick
	given    uint64 // of a leader: no witness was given a position behind this one instead of the log before it
}

// retainContext begins the context of the heartbeat by which a leader tells a
// witness up to which index, eight bytes that follow, all full replicas have the log.
const retainContext = "retain"

// tellTicks is how often a witness is told what it may forget, retellTicks how
// often if it should know that already.
const (
	tellTicks   = uint64(time.Second / TickEvery)
	retellTicks = 10 * tellTicks
)

// common is the index up to which all full replicas have the log durably, as far
// as this leader knows; with learners, those that are yet to vote too.
func (g *group) common(learners bool) uint64 {
	index := g.seen.commit
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		p, _ := g.members.peer(dsdb.ReplicaID(id))
		if !p.Witness && (learners || g.members.votes(p.Replica)) {
			index = min(index, pr.Match)
		}
	})
	return index
}

// mayWitness refuses to give a vote to a witness that lacks what one of the full
// replicas lacks: it began with a position, and what lies before it could be with
// the leader alone. A position that an earlier leader gave lies before the term.
func (g *group) mayWitness(r dsdb.ReplicaID) error {
	p, _ := g.members.peer(r)
	from := max(g.retention.given, g.seen.termStart)
	if all := g.common(false); p.Witness && all < from {
		return dsdb.Errorf(dsdb.KindUnavailable, "raft group %d: witness %d has the log from %d on, a full replica only up to %d", g.id, r, from, all)
	}
	return nil
}

// retained is the index up to which a witness may forget its log.
func (g *group) retained() uint64 {
	index := g.retention.common
	switch {
	case mutant.WitnessForgetsEarly:
		return ^uint64(0)
	case g.seen.leading:
		index = max(index, g.common(true))
	}
	return max(index, g.retention.released)
}

// tellWitnesses has a leader tell witnesses what they may forget.
func (c *Core) tellWitnesses(g *group) {
	if !g.seen.leading || g.witness || versionOf(g.members.peers) != witnessVersion {
		return
	}
	index := g.common(true)
	if index == g.retention.told && g.clock.now-g.retention.toldAt < retellTicks {
		return
	}
	g.retention.told, g.retention.toldAt = index, g.clock.now
	for _, p := range g.members.peers {
		if p.Witness {
			to, term := uint64(p.Replica), g.seen.term
			c.send(g, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: &g.seen.replica, To: &to, Term: &term,
				Context: le.AppendUint64([]byte(retainContext), index)})
		}
	}
}

// retains takes what a leader says with tellWitnesses, and reports whether the
// message was that. An old leader is not believed: it may not know of entries in
// the place of its own.
func (c *Core) retains(g *group, e Envelope) bool {
	m := e.Message
	said, found := strings.CutPrefix(string(m.GetContext()), retainContext)
	if m.GetType() != raftpb.MsgHeartbeat || !found || len(said) != 8 {
		return false
	}
	if g.witness && m.GetTerm() >= g.seen.term {
		g.retention.common = max(g.retention.common, binary.LittleEndian.Uint64([]byte(said)))
		c.guard(g, func() { c.truncate(g) })
	}
	return true
}

// Release has a replica forget what it keeps in its log for others only: the log
// has grown too long. Who lacks some of it gets a snapshot.
func (c *Core) Release(id dsdb.GroupID) {
	g := c.groups[id]
	if g == nil || g.failed != nil {
		return
	}
	g.retention.released = g.store.applied
	c.guard(g, func() { c.truncate(g) })
}

// yield has a witness that leads hand its leadership to the full replica that is
// closest, which is brought up to its log before. It reports whether that begins;
// if it takes too long, raft gives up, and it begins anew.
func (g *group) yield() bool {
	if !g.witness || !g.seen.leading || g.node.BasicStatus().LeadTransferee != raft.None {
		return false
	}
	heir := g.successor(0, nil)
	if heir != 0 {
		g.node.TransferLeader(uint64(heir))
	}
	return heir != 0
}

// soonLed is what a witness that leads answers: who is to lead soon.
func (g *group) soonLed() error {
	heir := dsdb.ReplicaID(g.node.BasicStatus().LeadTransferee)
	return &dsdb.Error{Kind: dsdb.KindNotLeader, Leader: g.nodeOf(heir), Text: "a witness leads the raft group for a moment"}
}
