package server

import (
	"context"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/httpd"
	"github.com/dasudian/dsdb/server/rpc"
)

// methodCatalogue asks a data node which entry of the meta group is the last
// that its catalogue includes, once that is at least the one that it is given.
const methodCatalogue = "catalogue"

// askWait bounds asking the data nodes for their catalogues, tellWait telling those
// that are reached of a drop.
const (
	askWait  = time.Second
	tellWait = 5 * time.Second
)

// currentCatalogue returns when this node's catalogue is good for a read at a
// level that needs no stale answers. It is so if the meta group says so. While
// that has no quorum, points are still written to the shards that there are, so
// the data nodes are asked: see dataCatalogue. Level leader goes by what this
// node knows then.
func (n *Node) currentCatalogue(ctx context.Context, level httpd.ReadConsistency) error {
	enough := func() bool { return level == httpd.ReadLeader || n.dataCatalogue(ctx) }
	if !n.connected(dsdb.MetaGroup) && enough() {
		return nil
	}
	err := n.readIndex(ctx, dsdb.MetaGroup)
	if err == nil || dsdb.KindOf(err) == dsdb.KindUnavailable && enough() { // it may have been lost meanwhile
		return nil
	}
	return n.withoutQuorum(err)
}

// dataCatalogue reports whether this node's catalogue includes every shard into
// which points may have been acknowledged. A replica of a shard takes part in a
// write only if the catalogue of its node has the shard. So it is enough to be
// as far as those of all data nodes but fewer than any policy wants for a write.
// What the meta nodes may decide meanwhile on their own, where this node does
// not reach them, is not seen: databases, and data nodes that are new.
func (n *Node) dataCatalogue(ctx context.Context) bool {
	view := n.meta.View()
	nodes := view.NodesOf(meta.DataNode)
	least, away := leastQuorum(view, len(nodes)), len(n.unreached())
	if away >= least {
		return false // which need not be found out by waiting for them
	}
	asking, enough := context.WithTimeout(ctx, askWait)
	defer enough()
	newest, silent := n.askCatalogues(asking, nodes, 0)
	if silent >= least {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	return n.meta.Wait(ctx, newest) == nil
}

// tellDrop returns when the data nodes that are reached have the catalogue that
// this node has. Until then they may acknowledge points for what was dropped.
func (n *Node) tellDrop(ctx context.Context) {
	view := n.meta.View()
	reached := slices.DeleteFunc(view.NodesOf(meta.DataNode), func(node meta.Node) bool { return !n.up(node.ID) })
	ctx, cancel := context.WithTimeout(ctx, tellWait)
	defer cancel()
	n.askCatalogues(ctx, reached, view.Index)
}

// askCatalogues asks data nodes which entry of the meta group is the last that
// their catalogues include, and gives each until ctx ends to have atLeast. It
// returns the newest, and how many do not answer.
func (n *Node) askCatalogues(ctx context.Context, nodes []meta.Node, atLeast uint64) (newest uint64, silent int) {
	answers := make(chan uint64, len(nodes)) // 0: none
	for _, node := range nodes {
		go func() {
			var index uint64
			if n.is(node.ID) {
				index = n.meta.View().Index
			} else if b, err := n.call(ctx, node.ID, methodCatalogue, appendNumber(nil, atLeast)); err == nil {
				index, _ = decodeNumber(b) // what is no number is no answer
			}
			answers <- index
		}()
	}
	for range nodes {
		index := <-answers
		if newest = max(newest, index); index == 0 {
			silent++
		}
	}
	return newest, silent
}

// leastQuorum returns how many of the data nodes a write needs at least, by the
// policy with the fewest replicas.
func leastQuorum(view *meta.Data, nodes int) int {
	least := nodes
	for _, db := range view.Databases {
		for _, rp := range db.Policies {
			least = min(least, rp.ReplicaN)
		}
	}
	return least/2 + 1
}

// serveCatalogue answers the call "catalogue". Without a number, which older
// programs do not give, it says what there is.
func (n *Node) serveCatalogue(ctx context.Context, _ rpc.Process, body []byte) ([]byte, error) {
	atLeast := uint64(0)
	if len(body) > 0 {
		var err error
		if atLeast, err = decodeNumber(body); err != nil {
			return nil, err
		}
	}
	if err := n.meta.Wait(ctx, atLeast); err != nil {
		return nil, err
	}
	return appendNumber(nil, n.meta.View().Index), nil
}
