package server

import (
	"fmt"
	"strings"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
)

// away says which nodes a shard cannot do without, and what can be done, if no
// majority of its replicas is on nodes that this one reaches; else "".
func (n *Node) away(id dsdb.ShardID) string {
	view := n.meta.View()
	ref, found := view.Shard(id)
	if !found || n.peers == nil {
		return ""
	}
	votes := 0
	var nodes []dsdb.NodeID
	for _, r := range ref.Shard.Replicas {
		if !r.Votes() {
			continue
		}
		votes++
		if !n.up(r.Node) {
			nodes = append(nodes, r.Node)
		}
	}
	if len(nodes) == 0 || votes-len(nodes) > votes/2 {
		return ""
	}
	var names []string
	for _, node := range nodes {
		names = append(names, nodeName(view, node))
	}
	list := strings.Join(names, " and ")
	switch p, _ := view.ProcessOf(nodes[0]); {
	case votes > 1:
		return fmt.Sprintf("shard %d has no majority of its replicas without %s; if they are lost for good, what can be read with read_consistency=stale is what is left, and DROP SHARD %d makes room for it", id, list, id)
	case p.ReplacedBy != 0:
		return fmt.Sprintf("the only copy of shard %d was on %s, which was replaced: DROP DATA SERVER %d FORCE gives its points up", id, list, nodes[0])
	}
	return fmt.Sprintf("the only copy of shard %d is on %s: bring it back, or give its points up by DROP DATA SERVER %d FORCE", id, list, nodes[0])
}

// nodeName names a node for people: by its id and where it is reached.
func nodeName(view *meta.Data, node dsdb.NodeID) string {
	p, found := view.ProcessOf(node)
	if !found || p.TCPAddr == "" { // which another process has now
		return fmt.Sprintf("node %d", node)
	}
	return fmt.Sprintf("node %d (%s)", node, p.TCPAddr)
}

// withAway adds to the error of who did not find a replica of a shard that can
// answer which nodes are away, if that is why.
func (n *Node) withAway(g dsdb.GroupID, err error) error {
	if g == dsdb.MetaGroup || dsdb.KindOf(err) != dsdb.KindUnavailable {
		return err
	}
	why := n.away(dsdb.ShardID(g))
	if why == "" || strings.Contains(err.Error(), why) {
		return err
	}
	return &dsdb.Error{Kind: dsdb.KindUnavailable, Text: why + " (" + err.Error() + ")", Err: err}
}

// leftOver says which shards a data node that was dropped by force leaves
// without a majority, "" if none: that these copies are given up does not tell
// the others that they are to go on alone.
func (n *Node) leftOver(node dsdb.NodeID) string {
	count, first := 0, ""
	for _, ref := range n.meta.View().ReplicasOn(node) {
		if why := n.away(ref.Shard.ID); why != "" {
			if count++; count == 1 {
				first = why
			}
		}
	}
	switch count {
	case 0:
		return ""
	case 1:
		return "writes will go on failing: " + first
	}
	return fmt.Sprintf("writes to %d shards will go on failing: %s; and so on", count, first)
}
