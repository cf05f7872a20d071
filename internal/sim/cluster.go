package sim

import (
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
)

// Options describe a cluster.
type Options struct {
	Nodes int
	// Voters lists, for the groups 1, 2 and so on, the nodes that hold a replica;
	// the first campaigns for the new group.
	Voters [][]int
	// NewMachine is called at each start of a node for each of its groups: what
	// the machine had not flushed is gone.
	NewMachine func(node int, g dsdb.GroupID) raftnode.StateMachine
	Logger     *slog.Logger // nil: nothing is logged
}

// Cluster is some nodes in one world.
type Cluster struct {
	*World
	Nodes   []*Node
	options Options
	network network
	boots   uint64
	leaders map[reign]dsdb.ReplicaID // who led, ever
	Counts  map[string]int           // how often things happened, by their names
	voted   func(*Node)              // told when a node's new term is durable, mostly with its vote
	died    func(*Node, error)       // told when a process ended itself, which its disk made it do
}

// reign is one term of one group.
type reign struct {
	group dsdb.GroupID
	term  uint64
}

// NewCluster makes a cluster and starts all its nodes.
func NewCluster(w *World, o Options) (*Cluster, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	c := &Cluster{World: w, options: o, leaders: map[reign]dsdb.ReplicaID{}, Counts: map[string]int{}, voted: func(*Node) {}}
	c.died = func(n *Node, err error) { c.fail("node %d ended itself: %v", n.Index, err) }
	for i := range o.Nodes {
		c.Nodes = append(c.Nodes, newNode(c, i))
	}
	c.network = network{world: w, nodes: c.Nodes, cut: map[[2]int]bool{}}
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Groups returns the ids of all groups.
func (c *Cluster) Groups() []dsdb.GroupID {
	var ids []dsdb.GroupID
	for i := range c.options.Voters {
		ids = append(ids, dsdb.GroupID(i+1))
	}
	return ids
}

// Voters returns the nodes with a replica of g.
func (c *Cluster) Voters(g dsdb.GroupID) []*Node {
	var ns []*Node
	for _, i := range c.options.Voters[g-1] {
		ns = append(ns, c.Nodes[i])
	}
	return ns
}

// Holds reports whether node i has a replica of g.
func (c *Cluster) Holds(i int, g dsdb.GroupID) bool {
	return slices.Contains(c.options.Voters[g-1], i)
}

// Leaders returns the nodes that believe to lead g, in the order of their terms.
func (c *Cluster) Leaders(g dsdb.GroupID) []*Node {
	var ns []*Node
	for _, n := range c.Voters(g) {
		if n.Up() && n.Leads(g) {
			ns = append(ns, n)
		}
	}
	slices.SortFunc(ns, func(a, b *Node) int { return int(a.Status(g).Term) - int(b.Status(g).Term) })
	return ns
}

// Leader returns the node that leads g in the latest term, nil if none believes to.
func (c *Cluster) Leader(g dsdb.GroupID) *Node {
	ns := c.Leaders(g)
	if len(ns) == 0 {
		return nil
	}
	return ns[len(ns)-1]
}

// replica is the id of the replica of g on a node.
func replica(node int, g dsdb.GroupID) dsdb.ReplicaID {
	return dsdb.ReplicaID(uint64(g)*100 + uint64(node) + 1)
}

// spec describes the replica of g on a node.
func (c *Cluster) spec(node int, g dsdb.GroupID) raftnode.GroupSpec {
	s := raftnode.GroupSpec{ID: g, Replica: replica(node, g), Node: dsdb.NodeID(node), StateMachine: c.options.NewMachine(node, g)}
	for _, n := range c.options.Voters[g-1] {
		s.Founders = append(s.Founders, raftnode.Peer{Replica: replica(n, g), Node: dsdb.NodeID(n)})
	}
	return s
}

// Error is a property that a run broke. The cluster panics with it.
type Error struct {
	At   string
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("at %s: %s", e.At, e.Text) }

// count notes that something happened that a run is for.
func (c *Cluster) count(what string) { c.Counts[what]++ }

func (c *Cluster) fail(format string, args ...any) {
	panic(&Error{c.Now().String(), fmt.Sprintf(format, args...)})
}
