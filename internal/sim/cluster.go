package sim

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/raftnode"
)

// Options describe a cluster.
type Options struct {
	Nodes  int // each holds a replica of every group
	Groups int // numbered from 1
	// NewMachine is called at each start of a node for each group: what the
	// machine had not flushed is gone.
	NewMachine func(node int, g dsdb.GroupID) raftnode.StateMachine
	Logger     *slog.Logger // nil: nothing is logged
}

// Cluster is some nodes in one world, each with a replica of every group.
type Cluster struct {
	*World
	Nodes   []*Node
	options Options
	network network
	boots   uint64
	voted   func(*Node) // told when a node's vote in a new term is durable
}

// NewCluster makes a cluster and starts all its nodes.
func NewCluster(w *World, o Options) (*Cluster, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	c := &Cluster{World: w, options: o, voted: func(*Node) {}}
	for i := range o.Nodes {
		c.Nodes = append(c.Nodes, &Node{
			Index: i, cluster: c, created: map[dsdb.GroupID]bool{}, votedIn: map[dsdb.GroupID]uint64{},
			disk: &disk{Mem: vfs.NewMem(w.Rand.Uint64())},
		})
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
	for i := range c.options.Groups {
		ids = append(ids, dsdb.GroupID(i+1))
	}
	return ids
}

// Leader returns a node that believes to lead g, nil if none does. Of several
// the one in the latest term is returned.
func (c *Cluster) Leader(g dsdb.GroupID) *Node {
	var leader *Node
	var term uint64
	for _, n := range c.Nodes {
		if !n.Up() {
			continue
		}
		if s := n.Status(g); s.Leader == replica(n.Index, g) && s.Term > term {
			leader, term = n, s.Term
		}
	}
	return leader
}

// replica is the id of the replica of g on a node.
func replica(node int, g dsdb.GroupID) dsdb.ReplicaID {
	return dsdb.ReplicaID(uint64(g)*100 + uint64(node) + 1)
}

// spec describes the replica of g on a node. The groups differ in who is listed first.
func (c *Cluster) spec(node int, g dsdb.GroupID) raftnode.GroupSpec {
	s := raftnode.GroupSpec{ID: g, Replica: replica(node, g), StateMachine: c.options.NewMachine(node, g)}
	for i := range c.options.Nodes {
		n := (i + int(g)) % c.options.Nodes
		s.Voters = append(s.Voters, raftnode.Peer{Replica: replica(n, g), Node: dsdb.NodeID(n)})
	}
	return s
}

// disk is a disk in memory. Once the power begins to fail its syncs do nothing.
type disk struct {
	*vfs.Mem
	failing bool
}

type diskFile struct {
	vfs.File
	disk *disk
}

func (d *disk) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &diskFile{f, d}, nil
}

func (d *disk) Open(path string) (vfs.File, error)          { return d.wrap(d.Mem.Open(path)) }
func (d *disk) OpenReadWrite(path string) (vfs.File, error) { return d.wrap(d.Mem.OpenReadWrite(path)) }
func (d *disk) Create(path string) (vfs.File, error)        { return d.wrap(d.Mem.Create(path)) }

// SyncDir does nothing once the power fails.
func (d *disk) SyncDir(dir string) error {
	if d.failing {
		return nil
	}
	return d.Mem.SyncDir(dir)
}

// SyncData does nothing once the power fails.
func (f *diskFile) SyncData() error {
	if f.disk.failing {
		return nil
	}
	return f.File.SyncData()
}

// Error is a property that a run broke.
type Error struct {
	At   string
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("at %s: %s", e.At, e.Text) }
