package meta

import (
	"slices"
	"unicode/utf8"

	"github.com/dasudian/dsdb"
)

// CreateCluster gives the cluster its id. It is no error if it has that id already.
type CreateCluster struct {
	ID uint64 `json:"id"`
}

func (c *CreateCluster) op() string { return "CreateCluster" }

func (c *CreateCluster) apply(d *Data) error {
	if c.ID == 0 || d.ClusterID != 0 && d.ClusterID != c.ID {
		return dsdb.Errorf(dsdb.KindConflict, "cluster id %d refused: the cluster is %d", c.ID, d.ClusterID)
	}
	d.ClusterID = c.ID
	return nil
}

// AddNode registers a role of a process and gives it the next node id. A role
// that the process has already keeps its id; see Data.NodeOf for the outcome.
// An address that another process holds for the same role is refused.
type AddNode struct {
	Kind     NodeKind `json:"kind"`
	UUID     string   `json:"uuid"`
	HTTPAddr string   `json:"http"`
	TCPAddr  string   `json:"tcp"`
}

func (c *AddNode) op() string { return "AddNode" }

func (c *AddNode) apply(d *Data) error {
	if c.Kind != MetaNode && c.Kind != DataNode {
		return dsdb.Errorf(dsdb.KindInvalid, "unknown kind of node %q", c.Kind)
	}
	if c.UUID == "" || c.TCPAddr == "" {
		return dsdb.Errorf(dsdb.KindInvalid, "a node needs a UUID and an address")
	}
	if !utf8.ValidString(c.UUID + c.HTTPAddr + c.TCPAddr) {
		return dsdb.Errorf(dsdb.KindInvalid, "node address is not UTF-8")
	}
	if _, found := d.NodeOf(c.UUID, c.Kind); found {
		return nil
	}
	if d.addrTaken(c.Kind, c.TCPAddr, 0) {
		return ErrNodeExists
	}
	d.Counters.Node++
	d.Nodes = append(slices.Clip(d.Nodes), Node{ID: d.Counters.Node, Kind: c.Kind,
		UUID: c.UUID, HTTPAddr: c.HTTPAddr, TCPAddr: c.TCPAddr})
	return nil
}

// UpdateNode changes the addresses of a node. The UUID must be the node's own:
// a process never takes over the id of another.
type UpdateNode struct {
	ID       dsdb.NodeID `json:"id"`
	UUID     string      `json:"uuid"`
	HTTPAddr string      `json:"http"`
	TCPAddr  string      `json:"tcp"`
}

func (c *UpdateNode) op() string { return "UpdateNode" }

func (c *UpdateNode) apply(d *Data) error {
	i, found := d.findNode(c.ID)
	if !found {
		return ErrNodeNotFound
	}
	n := d.Nodes[i]
	if n.UUID != c.UUID {
		return dsdb.Errorf(dsdb.KindConflict, "node %d is process %s, not %s", c.ID, n.UUID, c.UUID)
	}
	if c.TCPAddr == "" {
		return dsdb.Errorf(dsdb.KindInvalid, "a node needs an address")
	}
	if d.addrTaken(n.Kind, c.TCPAddr, c.ID) {
		return ErrNodeExists
	}
	n.HTTPAddr, n.TCPAddr = c.HTTPAddr, c.TCPAddr
	d.Nodes = slices.Clone(d.Nodes)
	d.Nodes[i] = n
	return nil
}

// addrTaken reports whether a node of the kind other than self has the cluster address.
func (d *Data) addrTaken(kind NodeKind, tcp string, self dsdb.NodeID) bool {
	return slices.ContainsFunc(d.Nodes, func(n Node) bool {
		return n.Kind == kind && n.TCPAddr == tcp && n.ID != self
	})
}
