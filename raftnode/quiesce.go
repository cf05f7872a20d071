package raftnode

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
)

// A group in which nothing but heartbeats has happened for a while is quiescent:
// raft's clock goes at a fraction of its speed there, for leader and followers
// alike, so that heartbeats are as much rarer as the followers are patient. What
// raft guarantees does not depend on how fast its clock goes.
//
// A follower that hears a slow leader by a fast clock would campaign, in vain:
// so followers slow down first, and the leader when they have. Whatever happens
// wakes a replica. What the leader does, and what asks for votes, reaches the
// others by messages that wake them too. If something is asked of a follower
// it wakes the others by a message of its own: the leader shows itself, or, if
// it is not there any more, the others are elected as soon as ever.
const (
	quiescentPace  = 6 // ticks to one of raft's
	followerIdle   = uint64(3 * time.Second / TickEvery)
	leaderIdle     = 2 * followerIdle
	wakeOthersIdle = followerIdle / 3 // a follower that was idle for less woke the others not long ago
)

// wake has raft's clock go at full speed.
func (c *Core) wake(g *group) {
	g.clock.idle = 0
	c.setQuiescent(g, false)
}

func (c *Core) setQuiescent(g *group, on bool) {
	if g.clock.quiescent == on {
		return
	}
	c.countAwake(g, -1)
	g.clock.quiescent = on
	c.countAwake(g, 1)
	g.progress.quiescent.Store(on)
}

// countAwake adds n to the groups of g's slice that are awake, if g is.
func (c *Core) countAwake(g *group, n int) {
	if g.clock.running && !g.clock.quiescent {
		c.awake[uint64(g.id)%TickSlices] += n
	}
}

// Awake returns the slices that hold groups that are not quiescent, as bits. The
// other slices may be ticked together: nothing there depends on when, within a tick.
func (c *Core) Awake() (slices uint64) {
	if len(c.orphans) > 0 {
		return allSlices
	}
	for i, n := range c.awake {
		if n > 0 {
			slices |= 1 << i
		}
	}
	return slices
}

// DueSlices returns, a bit for each, the slices that are to Tick in a turn of the
// clock, of which TickSlices make a tick: the turn's own, if that is one of those
// awake, and in the first turn all others, at once.
func DueSlices(turn int, awake uint64) uint64 {
	due := awake & (1 << turn)
	if turn == 0 {
		due |= allSlices &^ awake
	}
	return due
}

// allSlices has a bit for each slice.
const allSlices = 1<<TickSlices - 1

// wakeAll wakes the group on all its nodes. A leader need not say so: what it is
// asked for leads to messages.
func (c *Core) wakeAll(g *group) {
	if !g.seen.leading && g.clock.idle >= wakeOthersIdle {
		c.wakeOthers(g)
	}
	c.wake(g)
}

func (c *Core) wakeOthers(g *group) {
	for _, p := range g.members.peers {
		if uint64(p.Replica) != g.seen.replica {
			c.send(g, wakeMessage(g, p.Replica))
		}
	}
}

// Wake has the replicas of a group ready to notice soon if their leader is gone:
// somebody is about to ask for something there.
func (c *Core) Wake(id dsdb.GroupID) {
	if g := c.groups[id]; g != nil && g.failed == nil {
		c.wakeAll(g)
	}
}

// wakeMessage wakes another replica. To raft it would be the answer to a
// heartbeat, with a flag that it does not look at.
func wakeMessage(g *group, to dsdb.ReplicaID) *raftpb.Message {
	receiver, term := uint64(to), g.seen.term
	return &raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), From: &g.seen.replica, To: &receiver, Term: &term, Reject: new(true)}
}

// wakes reports whether a message is more than a sign of life, and if that is
// all it is for.
func wakes(m *raftpb.Message) (wakes, only bool) {
	switch m.GetType() {
	case raftpb.MsgHeartbeat:
		return len(m.GetContext()) > 0, false // of a read
	case raftpb.MsgHeartbeatResp:
		return m.GetReject() || len(m.GetContext()) > 0, m.GetReject()
	}
	return true, false
}

// advanceClock moves a group's clock by a tick and reports whether raft's moves too.
func (c *Core) advanceClock(g *group) bool {
	k := &g.clock
	k.now++
	k.idle++
	if !k.quiescent && g.mayQuiesce() {
		c.setQuiescent(g, true)
	}
	if k.quiescent && c.rounds%quiescentPace != 0 {
		return false
	}
	k.raft++
	return true
}

// mayQuiesce reports whether nothing has happened for long enough, and nothing is
// under way. The catalogue's group, which everything needs, never rests.
func (g *group) mayQuiesce() bool {
	limit := followerIdle
	if g.seen.leading {
		limit = leaderIdle
	}
	return g.clock.idle >= limit && g.id != dsdb.MetaGroup && g.seen.lead != 0 && g.clock.campaignIn == 0 && !g.busy()
}

// busy reports whether the group has something to do that takes raft's clock.
func (g *group) busy() bool {
	return g.members.joint() || g.witness && g.seen.leading || g.incoming != nil || g.handover.waiter != nil || g.changing.waiter != nil ||
		g.sending.wanted || len(g.sending.flights) > 0 || g.store.applied < g.seen.commit ||
		len(g.proposals)+len(g.pending)+len(g.matches)+g.reads.length() > 0
}
