package meta

import (
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// DropNode takes a role from a process for good. What a data node holds is moved
// to others before it is removed; one that has the last copy of a shard is
// refused, unless Force is set: the points of these shards are then lost. A node
// that is leaving already goes on with it, for good. With Lost, shards that have no
// majority without the node may go on without it: see SucceedShard.
type DropNode struct {
	ID    dsdb.NodeID `json:"id"`
	Kind  NodeKind    `json:"kind"`
	Force bool        `json:"force,omitempty"`
	Lost  bool        `json:"lost,omitempty"` // of a data node, with Force: shards may go on without what it holds; false in what older programs have proposed
	Now   int64       `json:"now"`
}

func (c *DropNode) op() string { return "DropNode" }

func (c *DropNode) apply(d *Data) error {
	if c.ID == 0 {
		return ErrNodeIDRequired
	}
	i := slices.IndexFunc(d.Processes, func(p Process) bool {
		id, _ := p.role(c.Kind)
		return id == c.ID && p.Has(c.Kind)
	})
	if i < 0 {
		return ErrNodeNotFound
	}
	others := func(p Process) bool { id, _ := p.role(c.Kind); return id != c.ID && p.Is(c.Kind) }
	if !slices.ContainsFunc(d.Processes, others) {
		return ErrFinalNode
	}
	var last []dsdb.ShardID
	if c.Kind == DataNode {
		last = d.lastCopies(c.ID)
	}
	if len(last) > 0 && !c.Force && !mutant.LastCopyDropped {
		return ErrShardNotReplicated
	}
	d.Processes = slices.Clone(d.Processes)
	d.Processes[i].leave(c.Kind)
	d.Processes[i].setUnwanted(c.Kind, false)
	if c.Kind == DataNode && c.Force && c.Lost {
		d.Processes[i].DataLost = true
	}
	for _, id := range last {
		if err := (&DropShard{ID: id, Now: c.Now}).apply(d); err != nil {
			return err
		}
	}
	if d.idle(&d.Processes[i], c.Kind) {
		d.Processes[i].remove(c.Kind)
	}
	return nil
}

// lastCopies returns the shards of which only this node has a copy that is whole
// and was not given up.
func (d *Data) lastCopies(node dsdb.NodeID) []dsdb.ShardID {
	var last []dsdb.ShardID
	for _, ref := range d.Groups() {
		for _, s := range ref.Group.Shards {
			mine, others := false, false
			for _, r := range s.Replicas {
				mine = mine || r.Node == node && !r.Witness
				others = others || r.Node != node && r.Whole() && !d.lost(r.Node)
			}
			if mine && !others {
				last = append(last, s.ID)
			}
		}
	}
	return last
}

// idle reports whether nothing speaks against removing the role: a data node
// has no replica left, a meta node no vote.
func (d *Data) idle(p *Process, kind NodeKind) bool {
	if kind == DataNode {
		return len(d.ReplicasOn(p.DataID)) == 0
	}
	return !slices.ContainsFunc(d.MetaReplicas, func(r Replica) bool {
		return p.has(r.Node) && r.Role != Learner
	})
}

// has reports whether id is one of the ids of the process, also of a former role.
func (p *Process) has(id dsdb.NodeID) bool { return id != 0 && (p.MetaID == id || p.DataID == id) }

// remove ends a role.
func (p *Process) remove(kind NodeKind) {
	if kind == MetaNode {
		p.MetaState = Removed
	} else {
		p.DataState = Removed
	}
}

// RemoveNode ends a role that was dropped, when nothing is left on it. It is no
// error if it has ended already, and none if something is left, which is then to
// be moved first.
type RemoveNode struct {
	ID dsdb.NodeID `json:"id"`
}

func (c *RemoveNode) op() string { return "RemoveNode" }

func (c *RemoveNode) apply(d *Data) error {
	for i := range d.Processes {
		for _, kind := range kinds {
			p := &d.Processes[i]
			if id, state := p.role(kind); id != c.ID || state != Leaving || !d.idle(p, kind) {
				continue
			}
			d.Processes = slices.Clone(d.Processes)
			d.Processes[i].remove(kind)
		}
	}
	return nil
}
