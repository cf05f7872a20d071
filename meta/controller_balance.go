package meta

import (
	"time"

	"github.com/dasudian/dsdb"
)

// balanceLeaders lets other replicas lead where one node leads too many shards:
// of a time group first, since one group takes all current writes, then of all.
// No node that leaves leads if another can. Only what is steady is touched: a
// node that is restarted hands all over and gets it back later.
func (s *step) balanceLeaders() {
	if s.evened > 0 && !over(s.now, s.evened, time.Second) {
		return
	}
	s.evened = s.now
	left := s.o.MaxTransfers
	stable := len(s.d.active(DataNode))
	for _, ref := range s.d.Groups() {
		var led []*census
		inGroup := make(map[dsdb.NodeID]int)
		for _, sh := range ref.Group.Shards {
			c := s.census(ShardRef{ref, sh}, stable)
			if c.lead == nil || c.lead.joint() {
				continue
			}
			inGroup[s.leads(c.lead)]++
			if c.idle() && !s.begun[sh.ID] {
				led = append(led, c)
			}
		}
		for _, c := range led {
			if left > 0 && s.rebalance(c, inGroup) {
				left--
			}
		}
	}
}

// rebalance hands the leadership of a shard to the replica whose node leads the
// least, if that makes the numbers more even. It reports whether it did.
func (s *step) rebalance(c *census, inGroup map[dsdb.NodeID]int) bool {
	id := c.ref.Shard.ID.Group()
	from := s.nodes[s.leads(c.lead)]
	if _, lately := s.moved[id]; lately || from == nil || from.active && !over(s.now, c.lead.since, s.o.SteadyAfter) {
		return false
	}
	var best *dataNode
	var heir Replica
	for _, r := range c.good {
		n := s.nodes[r.Node]
		if n == from || !n.steady || n.full && from.active || !c.lead.voter(r.ID) || !c.lead.follows(r.ID, s.o.Lag) {
			continue
		}
		if best == nil || inGroup[n.id] < inGroup[best.id] || inGroup[n.id] == inGroup[best.id] && n.leads < best.leads {
			best, heir = n, r
		}
	}
	if best == nil || from.active && !lighter(inGroup[from.id]-inGroup[best.id], from.leads-best.leads, from.leads) {
		return false
	}
	inGroup[from.id]--
	inGroup[best.id]++
	from.leads--
	best.leads++
	s.moved[id] = s.now
	s.transfer(c.lead, heir.ID, "the nodes lead different numbers of shards")
	return true
}

// lighter reports whether moving a leader is worth it, given by how many the one
// node leads more than the other, in the time group and at all. A move that it
// allows is not taken back by it.
func lighter(inGroup, all, leads int) bool {
	return inGroup >= 2 || inGroup == 1 && all >= max(2, leads/20)
}
