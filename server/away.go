package server

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/rpc"
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
	var nodes, kept []dsdb.NodeID // those that are away, and of these those that nobody gave up
	for _, r := range ref.Shard.Replicas {
		if !r.Votes() {
			continue
		}
		votes++
		if n.up(r.Node) {
			continue
		}
		nodes = append(nodes, r.Node)
		if p, _ := view.ProcessOf(r.Node); !p.DataLost {
			kept = append(kept, r.Node)
		}
	}
	if len(nodes) == 0 || votes-len(nodes) > votes/2 {
		return ""
	}
	var names []string
	for _, node := range nodes {
		names = append(names, nodeName(view, node))
	}
	list, soon := strings.Join(names, " and "), n.perhapsSoon(view, kept)
	switch p, _ := view.ProcessOf(nodes[0]); {
	case soon != "" && votes > 1:
		return fmt.Sprintf("shard %d has no majority of its replicas without %s: %s", id, list, soon)
	case soon != "" && p.ReplacedBy == 0:
		return fmt.Sprintf("the only copy of shard %d is on %s: %s", id, list, soon)
	case votes > 1 && len(kept) == 0:
		return fmt.Sprintf("shard %d has no majority of its replicas without %s, which were given up: it is about to go on from the best copy that is left", id, list)
	case votes > 1:
		return fmt.Sprintf("shard %d has no majority of its replicas without %s: bring them back or, if they are lost for good, %s: it then goes on from the best copy that is left", id, list, dropAll(kept))
	case p.ReplacedBy != 0:
		return fmt.Sprintf("the only copy of shard %d was on %s, which was replaced: DROP DATA SERVER %d FORCE gives its points up", id, list, nodes[0])
	}
	return fmt.Sprintf("the only copy of shard %d is on %s: bring it back, or give its points up by DROP DATA SERVER %d FORCE", id, list, nodes[0])
}

// perhapsSoon says of one of some nodes that are away why it may be back in a moment, so
// that nobody should give up what it has; "" if nothing speaks for that. A node that has
// just started itself has not met those that are there, so it waits for as long as one
// must be silent to be dead.
func (n *Node) perhapsSoon(view *meta.Data, nodes []dsdb.NodeID) string {
	known := map[string]rpc.PeerStatus{}
	for _, st := range n.peers.Status() {
		known[st.Process.UUID] = st
	}
	for _, node := range nodes {
		p, _ := view.ProcessOf(node)
		switch st := known[p.UUID]; {
		case p.Gone(), p.ReplacedBy != 0: // which never comes back
		case st.Starting:
			return nodeName(view, node) + " is starting"
		case st.Since.IsZero() && time.Since(n.began) < time.Duration(n.cfg.Meta.DeadTimeout):
			return fmt.Sprintf("nothing was heard of %s since this node was started", nodeName(view, node))
		}
	}
	return ""
}

// dropAll names the statements that give nodes up.
func dropAll(nodes []dsdb.NodeID) string {
	var all []string
	for _, node := range nodes {
		all = append(all, fmt.Sprintf("DROP DATA SERVER %d FORCE", node))
	}
	return "give them up by " + strings.Join(all, " and ")
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
// answer, or does not know what has become of a proposal, which nodes are away, if
// that is why.
func (n *Node) withAway(g dsdb.GroupID, err error) error {
	kind := dsdb.KindOf(err)
	if g == dsdb.MetaGroup || kind != dsdb.KindUnavailable && kind != dsdb.KindTimeout {
		return err
	}
	why := cmp.Or(n.phase.ended(), n.away(dsdb.ShardID(g)))
	switch {
	case why == "" || strings.Contains(err.Error(), why):
		return err
	case kind == dsdb.KindTimeout:
		return &dsdb.Error{Kind: kind, Text: "timeout: " + why, Err: err}
	}
	return &dsdb.Error{Kind: kind, Text: why + " (" + err.Error() + ")", Err: err}
}

// leaderless words the error of who was told by all replicas of a group that they
// do not lead: that is no concern of users, but that there is no leader is. Why a
// replica is out of service, which such an error may say instead, stays.
func leaderless(g dsdb.GroupID, failure string, err error) error {
	unled := func(err error) bool {
		return dsdb.KindOf(err) == dsdb.KindUnavailable && dsdb.KindOf(errors.Unwrap(err)) == dsdb.KindNotLeader && strings.Contains(err.Error(), "does not lead")
	}
	switch cause := errors.Unwrap(err); {
	case dsdb.KindOf(err) == dsdb.KindTimeout && unled(cause):
		return &dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout", Err: leaderless(g, failure, cause)}
	case unled(err):
		text := fmt.Sprintf("%s: %s has no leader at the moment, try again", failure, groupName(g))
		return &dsdb.Error{Kind: dsdb.KindUnavailable, Text: text, Err: err}
	}
	return err
}

// leftOver says which shards a data node that was dropped by force leaves
// without a majority, and what becomes of them, "" if there are none.
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
		return "writes fail until then: " + first
	}
	return fmt.Sprintf("writes to %d shards fail until then: %s; and so on", count, first)
}
