package sim

import (
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
)

// network carries messages between nodes, which it names by their index.
type network struct {
	world  *World
	nodes  []*Node
	cut    map[[2]int]bool                                     // from, to: nothing passes
	drop   float64                                             // part of the messages that are lost
	repeat float64                                             // part that arrive twice
	slow   float64                                             // part that take up to 100 times as long
	tap    func(from, to int, e raftnode.Envelope) (keep bool) // sees what is sent, nil: nobody; what it keeps does not arrive
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
func (n *network) send(from, to int, msgs []raftnode.Envelope) {
	for _, m := range msgs {
		if n.tap != nil && n.tap(from, to, m) {
			continue
		}
		copies := 1
		if n.world.Chance(n.repeat) {
			copies = 2
		}
		for range copies {
			if n.cut[[2]int{from, to}] || n.world.Chance(n.drop) {
				continue
			}
			n.deliver(from, to, m)
		}
	}
}

func (n *network) deliver(from, to int, m raftnode.Envelope) {
	n.world.After(n.latency(), func() { n.nodes[to].receive(dsdb.NodeID(from), m) })
}

// isolate cuts a node off from all others.
func (n *network) isolate(node int) {
	for other := range n.nodes {
		n.cut[[2]int{node, other}], n.cut[[2]int{other, node}] = true, true
	}
}

// heal ends all faults of the network.
func (n *network) heal() {
	clear(n.cut)
	n.drop, n.repeat, n.slow = 0, 0, 0
}
