package raftnode

import (
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/wal"
)

// What a leader's log keeps of flushed entries for replicas that lack them: at
// most maxKeep for one group, keepTotal for all groups of a core, in equal shares
// for those that keep something. A share shrinks when others come to keep, within
// jointTicks. A follower keeps what was flushed for followTicks, in case that it
// has to lead.
const (
	maxKeep     = 64 << 20
	keepTotal   = 128 << 20
	followTicks = uint64(10 * time.Second / TickEvery)
)

// flush is what the core knows of what the state machine has flushed.
type flush struct {
	ahead bool   // it flushed more than the core knows as applied
	index uint64 // when Flushed was called last
	at    uint64 // tick of that
	keeps bool   // the log has flushed entries for others only: counted in Core.keepers
}

// Flushed lets the group's log forget what its state machine holds durably and
// no other replica is expected to need from it.
func (c *Core) Flushed(id dsdb.GroupID) {
	g := c.groups[id]
	if g == nil || g.failed != nil {
		return
	}
	if index := g.machine.FlushedIndex(); index > g.flush.index {
		g.flush.index, g.flush.at = index, g.clock.now
	}
	c.guard(g, func() { c.truncate(g) })
}

// truncate gives the log leave to forget what the state machine holds. The only
// replica may forget all of that; a witness: see retention. A leader keeps what another replica lacks, up
// to a limit, and not for one that has not been heard of for long: those get a
// snapshot. Release ends that. Nothing is forgotten that a snapshot on its way leads to.
func (c *Core) truncate(g *group) {
	index := g.machine.FlushedIndex()
	if mutant.TruncateAboveFlushed {
		index = g.store.applied
	}
	g.flush.ahead = index > g.store.applied // its ApplyDone is still to come
	index = min(index, g.store.applied)
	switch {
	case g.incoming != nil:
		return
	case g.witness:
		index = min(index, g.retained())
	case g.single():
	case g.node.BasicStatus().RaftState == raft.StateLeader:
		if needed := g.needed(); needed < index {
			index = min(index, max(needed, c.log.Keep(g.id, index, c.keep(g))-1, g.retention.released))
		}
	default: // what was flushed long enough ago
		if g.clock.now-g.flush.at < followTicks && g.flush.index > g.retention.released {
			return
		}
		index = min(index, g.flush.index)
	}
	if !mutant.TruncateUnderSnapshot {
		index = min(index, g.sending.needed())
	}
	if index <= g.store.truncated.Index {
		return
	}
	term, err := g.store.Term(index)
	if err != nil {
		panic(fmt.Sprintf("term of flushed entry %d: %v", index, err))
	}
	p := wal.Position{Index: index, Term: term}
	g.store.truncate(p)
	c.out.Appends = append(c.out.Appends, Append{Update: wal.Update{Group: g.id, Truncate: &p, Conf: appendMembership(nil, g.members)}})
}

// keep is how many bytes of flushed entries the log of a group, which has to keep
// some, keeps for others.
func (c *Core) keep(g *group) int64 {
	if !g.flush.keeps {
		g.flush.keeps = true
		c.keepers++
	}
	return min(maxKeep, keepTotal/int64(max(c.keepers, 1)))
}

// countKeepers counts anew the groups led here whose log has flushed entries for
// others, if there are any.
func (c *Core) countKeepers() {
	if c.keepers == 0 {
		return
	}
	c.keepers = 0
	for _, slice := range c.ticking {
		for _, g := range slice {
			g.flush.keeps = g.failed == nil && g.seen.leading && g.flush.index > g.store.truncated.Index
			if g.flush.keeps {
				c.keepers++
			}
		}
	}
}

// needed is the index up to which every replica has the log that was heard of
// lately. What a leader believes right after its election is that it was not.
func (g *group) needed() uint64 {
	index := ^uint64(0)
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == g.seen.replica || g.clock.now >= goneTicks && !g.contacts.within(g, dsdb.ReplicaID(id), goneTicks) {
			return
		}
		index = min(index, pr.Match)
	})
	return index
}

// needed is the index of the oldest snapshot that is kept or on its way.
func (s *sending) needed() uint64 {
	index := ^uint64(0)
	if s.ready != nil {
		index = s.ready.position.Index
	}
	for _, f := range s.flights {
		index = min(index, f.pinned.position.Index)
	}
	return index
}

// tick moves a group's clock.
func (c *Core) tick(g *group) {
	c.endSetbacks(g)
	if c.advanceClock(g) && (c.refusal(g.id) == nil || g.seen.leading) { // else it could not store its own vote
		g.node.Tick()
		if g.clock.raft%2 == 0 {
			g.publishPeers()
		}
		if g.handover.waiter != nil || g.node.HasReady() {
			c.touch(g)
		}
	}
	if g.clock.now%tellTicks == 0 {
		c.tellWitnesses(g)
	}
	if g.clock.now%jointTicks != 0 {
		return
	}
	c.leaveJoint(g)
	c.standAside(g)
	c.ageSnapshots(g)
	if g.flush.index > g.store.truncated.Index || g.witness && g.seen.leading {
		c.truncate(g)
	}
}

// setClock has Tick move a group or not.
func (c *Core) setClock(g *group, on bool) {
	if g.clock.running == on {
		return
	}
	c.countAwake(g, -1)
	g.clock.running = on
	c.countAwake(g, 1)
	slice := &c.ticking[uint64(g.id)%TickSlices]
	if on {
		c.clocks++
		*slice = append(*slice, g)
		return
	}
	c.clocks--
	*slice = slices.DeleteFunc(*slice, func(t *group) bool { return t == g })
}
