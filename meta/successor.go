package meta

import (
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// A shard of which too many replicas are lost for good has no majority any more,
// and never will. Once an operator has given up the nodes that had them, it goes
// on from the best replica that is left: that one founds the group anew, under an
// id that no replica had before, with everything that its log holds, known to be
// committed or not. What the lost replicas alone had is gone.

// Origin is the replica from which the group of a shard was founded anew. Its files
// and its log are on the node of the only founder.
type Origin struct {
	Replica dsdb.ReplicaID   `json:"replica"`
	Named   []dsdb.ReplicaID `json:"named,omitempty"` // of the replicas then: see Shard.Named
}

// SucceedShard has a shard go on from one of its replicas. The others are given
// up: they are forgotten once the new group has a leader.
//
// It says what it was decided by, and is refused when that has changed: it may come
// long after, when nodes that were given up are back, and the old group has
// acknowledged what the replica does not have.
type SucceedShard struct {
	ID       dsdb.ShardID   `json:"id"`
	Replica  dsdb.ReplicaID `json:"replica"`
	Term     uint64         `json:"term,omitempty"`     // of the meta group, in which it was decided; 0 in what older programs have proposed
	Replicas []Replica      `json:"replicas,omitempty"` // of the shard
	Absent   []Absence      `json:"absent,omitempty"`   // the nodes that were counted as lost, by id
}

// Absence is what the catalogue knew of a data node when it was counted as lost.
type Absence struct {
	Node  dsdb.NodeID `json:"node"`
	Epoch uint64      `json:"epoch"` // starts of its process
	Seen  uint64      `json:"seen,omitempty"`
}

func (c *SucceedShard) op() string { return "SucceedShard" }

// outdated returns why the shard is not any more as it was when this was decided.
func (c *SucceedShard) outdated(d *Data, s *Shard) error {
	if c.Term == 0 || mutant.LateSuccession {
		return nil
	}
	if c.Term != d.Term {
		return dsdb.Errorf(dsdb.KindConflict, "it was decided in term %d that shard %d is to go on from replica %d, and this is term %d", c.Term, c.ID, c.Replica, d.Term)
	}
	if !slices.Equal(c.Replicas, s.Replicas) {
		return dsdb.Errorf(dsdb.KindConflict, "the replicas of shard %d have changed since it was to go on from replica %d", c.ID, c.Replica)
	}
	for _, a := range c.Absent {
		if now, absent := d.absence(a.Node); !absent || now != a {
			return dsdb.Errorf(dsdb.KindConflict, "node %d was there after it was decided that shard %d is to go on without it", a.Node, c.ID)
		}
	}
	return nil
}

// absence returns what is known of a data node that was given up, or has left the cluster.
func (d *Data) absence(node dsdb.NodeID) (Absence, bool) {
	p, found := d.ProcessOf(node)
	return Absence{node, p.Epoch, p.DataSeen}, found && p.DataID == node && (p.DataLost || !p.Has(DataNode))
}

// NoteReturn notes that a data node which was given up for good is there: decisions
// that count on its loss and were taken before are void. It is no error if there is no
// such node.
type NoteReturn struct {
	Node dsdb.NodeID `json:"node"`
}

func (c *NoteReturn) op() string { return "NoteReturn" }

func (c *NoteReturn) apply(d *Data) error {
	i := slices.IndexFunc(d.Processes, func(p Process) bool { return p.DataID == c.Node && p.DataLost })
	if i < 0 {
		return nil
	}
	d.Processes = slices.Clone(d.Processes)
	d.Processes[i].DataSeen = d.Index + 1 // no version before has it
	return nil
}

func (c *SucceedShard) apply(d *Data) error {
	ref, found := d.Shard(c.ID)
	if !found {
		return ErrShardNotFound
	}
	all := slices.Clone(ref.Shard.Replicas)
	i := slices.IndexFunc(all, func(r Replica) bool { return r.ID == c.Replica })
	switch {
	case i < 0:
		return errReplicaNotFound(c.ID.Group(), c.Replica)
	case all[i].Role == Failed || all[i].Witness || d.lost(all[i].Node):
		return dsdb.Errorf(dsdb.KindConflict, "shard %d cannot go on from replica %d", c.ID, c.Replica)
	case !slices.ContainsFunc(all, func(r Replica) bool { return d.lost(r.Node) }):
		return dsdb.Errorf(dsdb.KindConflict, "none of the nodes of shard %d was given up", c.ID)
	}
	if err := c.outdated(d, &ref.Shard); err != nil {
		return err
	}
	for k := range all {
		all[k].Role = Failed
	}
	d.Counters.Replica++
	founder := Replica{ID: d.Counters.Replica, Node: all[i].Node}
	return d.editShard(ref, func(s *Shard) {
		from := &Origin{Replica: c.Replica}
		for _, r := range all {
			if s.Named(r.ID) {
				from.Named = append(from.Named, r.ID)
			}
		}
		s.Origin = from
		s.Replicas = append(all, founder)
		s.Founders = []Replica{founder}
	})
}

// Named reports whether the folder of a replica is named for the shard alone, that
// of any other for itself too: it was there when the shard, and not only its
// present group, began.
func (s *Shard) Named(id dsdb.ReplicaID) bool {
	if s.Origin != nil {
		return slices.Contains(s.Origin.Named, id)
	}
	return slices.ContainsFunc(s.Birth(), func(r Replica) bool { return r.ID == id })
}

// GivenUp reports whether a replica of the shard is on a node that was given up for good.
func (d *Data) GivenUp(s *Shard) bool {
	return slices.ContainsFunc(s.Replicas, func(r Replica) bool { return r.Role != Failed && d.lost(r.Node) })
}

// superseded reports whether a replica belongs to a group that was founded anew
// since: whatever it says has no more to do with the shard.
func (d *Data) superseded(group dsdb.GroupID, id dsdb.ReplicaID) bool {
	ref, found := d.Shard(dsdb.ShardID(group))
	birth := ref.Shard.Birth()
	return found && group != dsdb.MetaGroup && ref.Shard.Origin != nil && len(birth) > 0 && id < birth[0].ID
}

// lost reports whether a data node was given up for good with what it held.
func (d *Data) lost(node dsdb.NodeID) bool {
	p, found := d.ProcessOf(node)
	return found && p.DataID == node && p.DataLost
}

// SucceedCatalogue has the catalogue go on from the copy of one process, when most
// of its voters are lost for good: that process alone votes, under a new replica
// id. The lost ones are meta nodes no more; all others get new replicas, too.
type SucceedCatalogue struct {
	UUID string        `json:"uuid"`
	Lost []dsdb.NodeID `json:"lost"` // ids of meta nodes
}

func (c *SucceedCatalogue) op() string { return "SucceedCatalogue" }

func (c *SucceedCatalogue) apply(d *Data) error {
	i, found := d.findProcess(c.UUID)
	if !found || !d.Processes[i].Is(MetaNode) {
		return dsdb.Errorf(dsdb.KindConflict, "process %s is no meta node", c.UUID)
	}
	d.Processes = slices.Clone(d.Processes)
	for _, id := range c.Lost {
		k := slices.IndexFunc(d.Processes, func(p Process) bool { return p.MetaID == id && p.Has(MetaNode) })
		if k < 0 || k == i {
			return dsdb.Errorf(dsdb.KindNotFound, "there is no other meta node %d", id)
		}
		d.Processes[k].remove(MetaNode)
		d.Processes[k].MetaUnwanted = false
	}
	d.MetaReplicas = nil
	d.addMetaReplica(&d.Processes[i]) // the first is a voter
	for k := range d.Processes {
		if p := &d.Processes[k]; !p.Gone() {
			d.addMetaReplica(p)
		}
	}
	return nil
}
