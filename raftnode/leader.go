package raftnode

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/dasudian/dsdb"
)

// handover is a leadership on its way to another replica; without a waiter there is none.
type handover struct {
	waiter Waiter
	leave  bool // on the way to a change of members: see changing
}

func (h *handover) end(c *Core, err error) {
	c.result(h.waiter, err)
	*h = handover{}
}

// Transfer hands the leadership of a group to another voter; 0: to the active one
// that is closest. The waiter is told when another replica is known to lead.
// Meanwhile, for at most an election timeout, proposals are refused.
// KindUnavailable: it stays.
func (c *Core) Transfer(id dsdb.GroupID, to dsdb.ReplicaID, w Waiter) {
	g := c.groups[id]
	switch {
	case g == nil:
		c.result(w, errNoGroup(id))
	case g.failed != nil:
		c.result(w, g.failedError())
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
// that is one; 0 if there is none. Those that are about to leave do not count.
func (g *group) successor(to dsdb.ReplicaID, changes []Change) (best dsdb.ReplicaID) {
	var match uint64
	g.node.WithProgress(func(id uint64, typ raft.ProgressType, pr tracker.Progress) {
		r := dsdb.ReplicaID(id)
		fits := id != g.seen.replica && slices.Contains(g.members.conf.Voters, id) && g.contacts.active(g, r) && (to == 0 || to == r) &&
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
	g.handover = handover{w, leave}
	g.node.TransferLeader(uint64(to))
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

// Matched tells the waiter when the logs of all voters hold index durably.
func (c *Core) Matched(id dsdb.GroupID, index uint64, w Waiter) {
	g := c.groups[id]
	switch {
	case g == nil:
		c.result(w, errNoGroup(id))
	case g.failed != nil:
		c.result(w, g.failedError())
	case g.node.BasicStatus().RaftState != raft.StateLeader:
		c.result(w, g.notLeader())
	default:
		g.matches = append(g.matches, confirmedRead{index, w})
		c.touch(g)
	}
}

// checkMatches tells those whose index all voters have.
func (c *Core) checkMatches(g *group) {
	if len(g.matches) == 0 {
		return
	}
	least := ^uint64(0)
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if g.members.votes(dsdb.ReplicaID(id)) {
			least = min(least, pr.Match)
		}
	})
	g.matches = slices.DeleteFunc(g.matches, func(m confirmedRead) bool {
		if m.index <= least {
			c.result(m.waiter, nil)
		}
		return m.index <= least
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
// other, and not all groups at once. A process with two node ids is named by both.
func (c *Core) PeerDown(node dsdb.NodeID) {
	c.clocked(func(g *group) {
		if g.seen.lead == 0 || g.seen.leading || g.nodeOf(dsdb.ReplicaID(g.seen.lead)) != node {
			return
		}
		c.guard(g, func() {
			_ = g.node.ForgetLeader() // only refused where leases are used for reads
			g.clock.campaignIn = g.turn(node)
		})
		c.touch(g)
	})
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

// turn is the number of ticks after which this replica campaigns when a node is
// gone; 0 if it does not vote. The voters' order differs from group to group.
func (g *group) turn(gone dsdb.NodeID) uint64 {
	rank, self, n := 0, -1, 0
	for _, p := range g.members.peers {
		if p.Node == gone || !slices.Contains(g.members.conf.Voters, uint64(p.Replica)) {
			continue
		}
		if uint64(p.Replica) == g.seen.replica {
			self = n
		}
		n++
	}
	if self < 0 {
		return 0
	}
	rank = (self + int(uint64(g.id)%uint64(n))) % n
	return 1 + 2*uint64(rank)
}

// Unreachable says that messages to another node were dropped: leaders here
// wait for an answer of its replicas before they send them more.
func (c *Core) Unreachable(node dsdb.NodeID) {
	c.clocked(func(g *group) {
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
