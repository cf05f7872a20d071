package sim

import (
	"time"

	"github.com/dasudian/dsdb/raftnode"
)

// network carries messages between nodes, which it names by their index.
type network struct {
	world   *World
	cluster *Cluster
	cut     map[[2]int]bool                                     // from, to: nothing passes
	drop    float64                                             // part of the messages that are lost
	repeat  float64                                             // part that arrive twice
	slow    float64                                             // part that take up to 100 times as long
	tap     func(from, to int, e raftnode.Envelope) (keep bool) // sees what is sent, nil: nobody; what it keeps does not arrive
}

// latency is how long a message takes.
func (n *network) latency() time.Duration {
	d := n.world.Between(100*time.Microsecond, 2*time.Millisecond)
	if n.world.Chance(n.slow) {
		d *= time.Duration(1 + n.world.Rand.IntN(100))
	}
	return d
}

// send lets each message find its own way, so that they overtake each other.
func (n *network) send(from, to *Node, msgs []raftnode.Envelope) {
	for _, m := range msgs {
		if n.tap != nil && n.tap(from.Index, to.Index, m) {
			continue
		}
		copies := 1
		if n.world.Chance(n.repeat) {
			copies = 2
		}
		for range copies {
			if n.cut[[2]int{from.Index, to.Index}] || n.world.Chance(n.drop) {
				continue
			}
			n.deliver(from, to, m)
		}
	}
}

// deliver brings a message to a node as bytes, as a real network does.
func (n *network) deliver(from, to *Node, e raftnode.Envelope) {
	b := raftnode.AppendMessage(nil, e.Message)
	n.world.After(n.latency(), func() {
		m, err := raftnode.DecodeMessage(b)
		if err != nil {
			n.cluster.fail("a message to node %d cannot be decoded: %v", to.Index, err)
		}
		e.Message = m
		to.receive(from, e)
	})
}

// isolate cuts a node off from all others.
func (n *network) isolate(node int) {
	for other := range n.cluster.Nodes {
		n.cut[[2]int{node, other}], n.cut[[2]int{other, node}] = true, true
	}
}

// heal ends all faults of the network.
func (n *network) heal() {
	clear(n.cut)
	n.drop, n.repeat, n.slow = 0, 0, 0
}
