package raftnode

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/dasudian/dsdb"
)

// handover is a leadership on its way to another replica; without a waiter there is none.
type handover struct {
	waiter Waiter
	leave  bool   // on the way to a change of members: see changing
	probed uint64 // how far the log was stored here when relieve proposed its empty entry
}

func (h *handover) end(c *Core, err error) {
	c.result(h.waiter, err)
	h.waiter, h.leave = nil, false
}

// Transfer hands the leadership of a group to another voter; 0: to the active one
// that is closest. The waiter is told when another replica is known to lead.
// Meanwhile, for at most an election timeout, proposals are refused.
// KindUnavailable: it stays.
func (c *Core) Transfer(id dsdb.GroupID, to dsdb.ReplicaID, w Waiter) {
	g := c.serving(id, w)
	switch {
	case g == nil:
	case g.node.BasicStatus().RaftState != raft.StateLeader:
		c.result(w, g.notLeader())
	case uint64(to) == g.seen.replica:
		c.result(w, nil)
	default:
		c.guard(g, func() { c.handOn(g, g.successor(to, nil), w, false) })
		c.touch(g)
	}
}

// successor returns the active voter that is closest to this leader, or to if
// that is one; 0 if there is none. Those that are about to leave do not count,
// nor do witnesses.
func (g *group) successor(to dsdb.ReplicaID, changes []Change) (best dsdb.ReplicaID) {
	var match uint64
	g.node.WithProgress(func(id uint64, typ raft.ProgressType, pr tracker.Progress) {
		r := dsdb.ReplicaID(id)
		p, _ := g.members.peer(r)
		fits := id != g.seen.replica && !p.Witness && slices.Contains(g.members.conf.Voters, id) && g.contacts.active(g, r) && (to == 0 || to == r) &&
			!slices.ContainsFunc(changes, func(ch Change) bool { return ch.leaves(r) })
		if fits && (best == 0 || pr.Match > match || pr.Match == match && r < best) {
			best, match = r, pr.Match
		}
	})
	return best
}

// handOn hands the leadership to a voter, 0 if there is none. With leave it is on
// the way to a change of members, for which the waiter has to ask the next leader.
func (c *Core) handOn(g *group, to dsdb.ReplicaID, w Waiter, leave bool) {
	if to == 0 {
		c.result(w, dsdb.Errorf(dsdb.KindUnavailable, "raft group %d: no other voter is active", g.id))
		return
	}
	g.handover.end(c, dsdb.Errorf(dsdb.KindUnavailable, "raft group %d: another transfer of its leadership was asked for", g.id))
	g.handover.waiter, g.handover.leave = w, leave
	g.node.TransferLeader(uint64(to))
}

// relieve hands on the leadership of a group that cannot store entries here, once
// the others have stored one that this node has not: if nothing is under way, an
// empty one finds out. A leader stays where most are as short of space: as long as
// it leads, what was acknowledged can be read.
func (c *Core) relieve(g *group) {
	st := g.node.BasicStatus()
	if st.RaftState != raft.StateLeader || st.LeadTransferee != raft.None || g.single() {
		return
	}
	var stored uint64
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == g.seen.replica {
			stored = pr.Match
		}
	})
	switch {
	case st.GetCommit() > stored:
		c.handOn(g, g.successor(0, nil), nil, false)
	case g.handover.probed != stored:
		e := []*raftpb.Entry{{}}
		if err := g.node.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: &g.seen.replica, Entries: e}); err == nil { // else the next time
			g.handover.probed = stored
		}
	}
}

// checkHandover tells who waits for a transfer what came of it.
func (c *Core) checkHandover(g *group) {
	if g.handover.waiter == nil {
		return
	}
	switch st := g.node.BasicStatus(); {
	case st.RaftState == raft.StateLeader && st.LeadTransferee == raft.None:
		g.handover.end(c, dsdb.Errorf(dsdb.KindUnavailable, "raft group %d: the leadership was not taken over", g.id))
	case st.RaftState == raft.StateFollower && st.Lead != raft.None:
		var err error
		if g.handover.leave {
			err = g.notLeader()
		}
		g.handover.end(c, err)
	}
}

// Matched tells the waiter when the logs of all voters but witnesses hold index
// durably.
func (c *Core) Matched(id dsdb.GroupID, index uint64, w Waiter) {
	g := c.serving(id, w)
	switch {
	case g == nil:
	case g.node.BasicStatus().RaftState != raft.StateLeader || g.witness:
		c.result(w, g.notLeader())
	default:
		g.matches = append(g.matches, confirmedRead{index, w})
		c.touch(g)
	}
}

// checkMatches tells those whose index all voters have, and forgets those who have
// given up.
func (c *Core) checkMatches(g *group) {
	if len(g.matches) == 0 {
		return
	}
	least := ^uint64(0)
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if p, _ := g.members.peer(dsdb.ReplicaID(id)); g.members.votes(p.Replica) && !p.Witness {
			least = min(least, pr.Match)
		}
	})
	g.matches = slices.DeleteFunc(g.matches, func(m confirmedRead) bool {
		if m.index <= least {
			c.result(m.waiter, nil)
		}
		return m.index <= least || gone(m.waiter)
	})
}

func (g *group) failMatches(c *Core, err error) {
	for _, m := range g.matches {
		c.result(m.waiter, err)
	}
	g.matches = nil
}

// PeerDown says that the process of another node is gone. A group that is led
// from there forgets its leader, and its voters here campaign soon: one after the
// other, and if they are many not all groups at once. A process with two node ids
// is named by both.
func (c *Core) PeerDown(node dsdb.NodeID) {
	c.clocked(func(g *group) {
		if g.contacts.activeOn(g, node) {
			c.wake(g)
		}
		if g.halted != nil || g.seen.lead == 0 || g.seen.leading || g.nodeOf(dsdb.ReplicaID(g.seen.lead)) != node {
			return
		}
		c.guard(g, func() {
			_ = g.node.ForgetLeader() // only refused where leases are used for reads
			before := g.clock.campaignIn
			if g.clock.campaignIn = c.turn(g, node); g.clock.campaignIn > 0 && before == 0 {
				c.orphans = append(c.orphans, g)
			}
			g.clock.campaigns = maxCampaigns
		})
		c.touch(g)
	})
}

// replaceLeaders has the groups whose leader is gone campaign when it is their
// turn: again a few times, as other voters may not have noticed yet.
func (c *Core) replaceLeaders() {
	left := c.orphans[:0]
	for _, g := range c.orphans {
		if g.failed == nil {
			c.guard(g, func() { c.replaceLeader(g) })
		}
		if g.failed == nil && g.clock.campaignIn > 0 {
			left = append(left, g)
		}
	}
	clear(c.orphans[len(left):])
	c.orphans = left
}

func (c *Core) replaceLeader(g *group) {
	st := g.node.BasicStatus()
	if st.Lead != raft.None {
		g.clock.campaignIn = 0
		return
	}
	if g.clock.campaignIn--; g.clock.campaignIn > 0 {
		return
	}
	if st.RaftState != raft.StateCandidate { // whose votes are being written
		_ = g.node.Campaign() // raft logs why it cannot; its own clock goes on
		c.touch(g)
	}
	if g.clock.campaigns--; g.clock.campaigns > 0 {
		g.clock.campaignIn = campaignGap * uint64(len(g.members.conf.Voters))
	}
}

// clocked calls f for each group in service with other members, always in the same order.
func (c *Core) clocked(f func(*group)) {
	for _, gs := range c.ticking {
		for _, g := range gs {
			if g.failed == nil {
				f(g)
			}
		}
	}
}

// How soon the voters of a group whose leader is gone campaign, in calls of Tick
// (25 ms): the first when the others have noticed too, the next when it has had
// the time for its two rounds of votes.
const (
	campaignAfter = 2
	campaignGap   = 8
	maxCampaigns  = 3
	campaignGroup = 64 // so many groups of a core do so at a time
)

// turn is the number of calls of Tick after which this replica campaigns when a
// node is gone; 0 if it does not vote. The voters' order differs from group to
// group; a witness is always the last.
func (c *Core) turn(g *group, gone dsdb.NodeID) uint64 {
	rank, self, n := 0, -1, 0
	for _, p := range g.members.peers {
		if p.Node == gone || p.Witness || !slices.Contains(g.members.conf.Voters, uint64(p.Replica)) {
			continue
		}
		if uint64(p.Replica) == g.seen.replica {
			self = n
		}
		n++
	}
	switch {
	case g.witness && slices.Contains(g.members.conf.Voters, g.seen.replica):
		rank = n
	case self < 0:
		return 0
	default:
		rank = (self + int(uint64(g.id)%uint64(n))) % n
	}
	spread := uint64(g.id) % uint64(1+c.clocks/campaignGroup)
	return campaignAfter + min(spread, TickSlices) + campaignGap*uint64(rank)
}

// Unreachable says that messages to another node were dropped: leaders here
// wait for an answer of its replicas before they send them more.
func (c *Core) Unreachable(node dsdb.NodeID) {
	c.clocked(func(g *group) {
		if g.contacts.activeOn(g, node) {
			c.wake(g)
		}
		if !g.seen.leading {
			return
		}
		for _, p := range g.members.peers {
			if p.Node == node && uint64(p.Replica) != g.seen.replica {
				c.guard(g, func() { g.node.ReportUnreachable(uint64(p.Replica)) })
				c.touch(g)
			}
		}
	})
}
