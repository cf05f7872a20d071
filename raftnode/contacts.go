package raftnode

import (
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/dasudian/dsdb"
)

// contacts are the replicas that a group has heard of, and when: members, and
// those that are or were members as far as others know. They are few.
type contacts []contact

type contact struct {
	peer Peer   // Witness is not known
	at   uint64 // tick of the group's clock
	raft uint64 // the same of raft's
}

// maxContacts bounds them; the one that was heard of longest ago gives way.
const maxContacts = 16

// goneTicks is how long a leader keeps the log for a replica that is not heard
// of: ten minutes.
const goneTicks = uint64(600 * time.Second / TickEvery)

// heard notes that a replica has sent something just now.
func (cs *contacts) heard(g *group, r dsdb.ReplicaID, node dsdb.NodeID) {
	p := Peer{Replica: r, Node: node}
	oldest := 0
	for i := range *cs {
		c := &(*cs)[i]
		if c.peer.Replica == p.Replica {
			*c = contact{p, g.clock.now, g.clock.raft}
			return
		}
		if c.at < (*cs)[oldest].at {
			oldest = i
		}
	}
	if len(*cs) < maxContacts {
		*cs = append(*cs, contact{p, g.clock.now, g.clock.raft})
		return
	}
	(*cs)[oldest] = contact{p, g.clock.now, g.clock.raft}
}

func (cs contacts) peer(r dsdb.ReplicaID) (Peer, bool) {
	for _, c := range cs {
		if c.peer.Replica == r {
			return c.peer, true
		}
	}
	return Peer{}, false
}

// within reports whether a replica was heard of in the last ticks.
func (cs contacts) within(g *group, r dsdb.ReplicaID, ticks uint64) bool {
	for _, c := range cs {
		if c.peer.Replica == r {
			return g.clock.now-c.at < ticks
		}
	}
	return false
}

// active reports whether a replica was heard of within an election timeout, by
// the clock that the heartbeats follow.
func (cs contacts) active(g *group, r dsdb.ReplicaID) bool {
	for _, c := range cs {
		if c.peer.Replica == r {
			return g.clock.raft-c.raft < electionTicks
		}
	}
	return false
}

// activeOn reports whether a replica on a node was.
func (cs contacts) activeOn(g *group, node dsdb.NodeID) bool {
	for _, c := range cs {
		if c.peer.Node == node && g.clock.raft-c.raft < electionTicks {
			return true
		}
	}
	return false
}

// nodeOf returns the node of a replica, 0 if it is not known.
func (g *group) nodeOf(r dsdb.ReplicaID) dsdb.NodeID {
	p, known := g.members.peer(r)
	if !known {
		p, _ = g.contacts.peer(r)
	}
	return p.Node
}

// publishPeers lets others know what a leader knows of the other replicas.
func (g *group) publishPeers() {
	if !g.seen.leading || g.single() {
		g.progress.peers.Store(nil)
		return
	}
	var before []PeerProgress
	if was := g.progress.peers.Load(); was != nil {
		before = *was
	}
	ps := make([]PeerProgress, 0, len(g.members.peers))
	for _, p := range g.members.peers {
		if uint64(p.Replica) != g.seen.replica {
			ps = append(ps, PeerProgress{Peer: p, Active: g.contacts.active(g, p.Replica)})
		}
	}
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		for i := range ps {
			if uint64(ps[i].Replica) == id {
				ps[i].Match, ps[i].Snapshot = pr.Match, pr.State == tracker.StateSnapshot
			}
		}
	})
	for i := range ps {
		ps[i].measure(g, before)
		for _, f := range g.sending.flights {
			if f.to == uint64(ps[i].Replica) {
				ps[i].Sent, ps[i].Queued = max(ps[i].Sent, f.sent), ps[i].Queued || f.queued && !f.over
			}
		}
	}
	g.progress.peers.Store(&ps)
}

// lagTicks is the least lag that is told: less is that of the publications.
const lagTicks = uint64(time.Second / TickEvery)

// measure finds a replica's lag: how old the last mark is if the replica has not
// reached it, or had not when it was looked at before. A mark that is reached
// gives way to one of what is committed now.
func (p *PeerProgress) measure(g *group, before []PeerProgress) {
	now := mark{commit: g.seen.commit, at: g.clock.now}
	p.mark = now
	for i := range before {
		if before[i].Replica == p.Replica {
			p.mark, p.Lag = before[i].mark, before[i].Lag
		}
	}
	age := now.at - p.mark.at
	if age == 0 {
		return
	}
	lag := time.Duration(age) * TickEvery
	switch reached := p.Match >= p.mark.commit; {
	case !reached:
		p.mark.lacked = true
		if age >= lagTicks {
			p.Lag = max(p.Lag, lag)
		}
	case p.mark.lacked && age >= lagTicks:
		p.mark, p.Lag = now, lag
	default:
		p.mark, p.Lag = now, 0
	}
}
