package sim

import (
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
)

// Options describe a cluster.
type Options struct {
	Nodes int
	// Replicas is called at each start of a node and says what it is to run; the
	// state machines are those that the node's disk holds.
	Replicas func(n *Node) ([]raftnode.GroupSpec, error)
	// Dir is the folder of a replica on the disk of its node.
	Dir func(g dsdb.GroupID, r dsdb.ReplicaID) string
	// Applied is told when a state machine on a node has moved; nil: nobody is.
	Applied func(n *Node, g dsdb.GroupID)
	Logger  *slog.Logger // nil: nothing is logged
}

// Cluster is some nodes in one world.
type Cluster struct {
	*World
	Nodes     []*Node
	options   Options
	network   network
	most      sizes
	boots     uint64
	strangers int                  // machines that were wiped
	shipments []*shipment          // snapshots on their way
	leaders   map[reign]leader     // who led, ever
	entries   map[position]content // what was applied, ever
	members   map[position]string  // of groups, ever, by the entry that made them
	Errs      []string             // what should not have happened
	Counts    map[string]int       // how often things happened, by their names
	hooks
}

// hooks are told when something happens on a node.
type hooks struct {
	voted  func(*Node)                         // its new term is durable, mostly with its vote
	joint  func(*Node, dsdb.GroupID)           // it has applied a joint change of a group's members
	died   func(*Node, error)                  // its process ended itself, which its disk made it do
	failed func(*Node, dsdb.GroupID, error)    // a replica took itself out of service
	ship   func(*Node, raftnode.SendTask)      // it begins to send a snapshot
	put    func(*Node)                         // it begins to install a snapshot that has arrived
	torn   func(from *Node, file string) error // a file of a snapshot that it sent is not what the manifest says
}

// reign is one term of one group.
type reign struct {
	group dsdb.GroupID
	term  uint64
}

// leader is a replica that leads, and the process in which it does.
type leader struct {
	replica dsdb.ReplicaID
	process *process
}

// position is that of an entry in the log of a group.
type position struct {
	group dsdb.GroupID
	index uint64
}

// content tells one entry from another.
type content struct {
	term uint64
	size int
	crc  uint32
}

// sameEntries checks that what is applied at a position is the same everywhere.
func (c *Cluster) sameEntries(g dsdb.GroupID, es []dsdb.Entry) {
	for _, e := range es {
		at, now := position{g, e.Index}, content{e.Term, len(e.Data), crc32.Checksum(e.Data, castagnoli)}
		was, known := c.entries[at]
		if known && was != now {
			c.fail("group %d: entry %d is %+v on one node and %+v on another", g, e.Index, was, now)
		}
		c.entries[at] = now
	}
}

// NewCluster makes a cluster. Its nodes are yet to be started.
func NewCluster(w *World, o Options) *Cluster {
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.Applied == nil {
		o.Applied = func(*Node, dsdb.GroupID) {}
	}
	c := &Cluster{World: w, options: o, leaders: map[reign]leader{}, entries: map[position]content{}, members: map[position]string{}, Counts: map[string]int{}}
	c.hooks = hooks{voted: func(*Node) {}, joint: func(*Node, dsdb.GroupID) {}, failed: func(*Node, dsdb.GroupID, error) {},
		ship: func(*Node, raftnode.SendTask) {}, put: func(*Node) {}}
	c.torn = func(n *Node, file string) error {
		c.fail("file %s of a snapshot of node %d is not what its manifest says", file, n.Index)
		return nil
	}
	c.died = func(n *Node, err error) { c.fail("node %d ended itself: %v", n.Index, err) }
	for i := range o.Nodes {
		c.Nodes = append(c.Nodes, newNode(c, i))
	}
	c.network = network{world: w, cluster: c, cut: map[[2]int]bool{}}
	return c
}

// Start starts all nodes.
func (c *Cluster) Start() error {
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return nil
}

// Holders returns the nodes that run a replica of g.
func (c *Cluster) Holders(g dsdb.GroupID) []*Node {
	var ns []*Node
	for _, n := range c.Nodes {
		if n.Holds(g) {
			ns = append(ns, n)
		}
	}
	return ns
}

// Running returns the ids of the groups of which some node runs a replica.
func (c *Cluster) Running() []dsdb.GroupID {
	var ids []dsdb.GroupID
	for _, n := range c.Nodes {
		if n.Up() {
			ids = append(ids, n.run.groups...)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Leaders returns the nodes that believe to lead g, in the order of their terms.
func (c *Cluster) Leaders(g dsdb.GroupID) []*Node {
	var ns []*Node
	for _, n := range c.Holders(g) {
		if n.Leads(g) {
			ns = append(ns, n)
		}
	}
	slices.SortStableFunc(ns, func(a, b *Node) int { return int(a.Status(g).Term) - int(b.Status(g).Term) })
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

// Error is a property that a run broke. The cluster panics with it.
type Error struct {
	At   string
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("at %s: %s", e.At, e.Text) }

// violation notes that something happened that should not have.
func (c *Cluster) violation(format string, args ...any) {
	c.Errs = append(c.Errs, fmt.Sprintf("at %v: ", c.Now())+fmt.Sprintf(format, args...))
}

// count notes that something happened that a run is for.
func (c *Cluster) count(what string) { c.Counts[what]++ }

func (c *Cluster) fail(format string, args ...any) {
	panic(&Error{c.Now().String(), fmt.Sprintf(format, args...)})
}
