package meta

import (
	"fmt"
	"slices"

	"github.com/dasudian/dsdb"
)

// Delay is a shard that lacks a copy, or has one on a node that leaves, about which
// nothing can be done for now.
type Delay struct {
	Shard  dsdb.ShardID
	Nodes  []dsdb.NodeID // whose copies of it are to be replaced; none if one is missing
	Reason string        // names the shard
}

// Delays returns what the last Step could do nothing about, by shard.
func (c *Controller) Delays() []Delay { return c.delays }

// delay notes why a shard gets no copy that it should get, if it cannot.
func (s *step) delay(c *census) {
	if len(c.filling) > 0 || len(c.good) >= c.want {
		return
	}
	reason := s.obstacle(c)
	if reason == "" {
		return
	}
	d := Delay{Shard: c.ref.Shard.ID, Reason: fmt.Sprintf(reason, c.ref.Shard.ID)}
	for _, r := range slices.Concat(c.away, c.retired, c.dead, c.failed) {
		if !r.Witness {
			d.Nodes = append(d.Nodes, r.Node)
		}
	}
	s.delays = append(s.delays, d)
}

// obstacle returns the format of the reason why nothing begins at a shard, ""
// if something may, now or when other copies are filled.
func (s *step) obstacle(c *census) string {
	if s.leader(c.ref.Shard.ID.Group()) == nil {
		if over(s.now, s.started, s.o.SuspectAfter) && len(c.away)+len(c.dead) > 0 {
			return "no leader is known of shard %d"
		}
		return "" // it may just not have been heard of
	}
	free, up := false, false
	for _, n := range s.order {
		switch {
		case !n.active || slices.ContainsFunc(c.ref.Shard.Replicas, func(r Replica) bool { return r.Node == n.id && !r.Witness }):
			continue
		case n.live == Up && !n.full:
			return ""
		}
		free, up = true, up || n.live == Up
	}
	switch {
	case up:
		return "no data node has space for shard %d"
	case free:
		return "no other data node is up for shard %d"
	}
	return "there is no other data node for shard %d"
}
