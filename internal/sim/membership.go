package sim

import (
	"fmt"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
)

// agree checks that a replica on a node has the members that others had by the
// same entry, which is one that changes members.
func (c *Cluster) agree(n *Node, g dsdb.GroupID, ms raftnode.Members) {
	if len(ms.Voters) == 0 { // it is blank still
		return
	}
	by, is := position{g, ms.Index}, print(ms)
	was, known := c.members[by]
	if known && was != is {
		c.fail("group %d: node %d has the members %s by entry %d, others had %s", g, n.Index, is, ms.Index, was)
	}
	c.members[by] = is
	if known || ms.Index == 0 {
		return
	}
	c.count("memberships")
	for _, o := range c.Holders(g) {
		if first, _ := o.run.log.Bounds(g); ms.Index < first || ms.Index > o.Status(g).Commit {
			continue
		}
		if es, err := o.run.log.Entries(g, ms.Index, ms.Index+1, 1, nil); err == nil && es[0].Kind == 0 {
			c.fail("group %d: node %d has the members %s by entry %d, which changes none", g, n.Index, is, ms.Index)
		}
	}
}

// print writes members so that two lists are equal if their texts are.
func print(ms raftnode.Members) string {
	list := func(ps []raftnode.Peer) []raftnode.Peer {
		return slices.SortedFunc(slices.Values(ps), func(a, b raftnode.Peer) int { return int(a.Replica) - int(b.Replica) })
	}
	return fmt.Sprint(list(ms.Voters), list(ms.Outgoing), list(ms.Learners))
}
