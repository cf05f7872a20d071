package meta

import (
	"slices"

	"github.com/dasudian/dsdb"
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
type SucceedShard struct {
	ID      dsdb.ShardID   `json:"id"`
	Replica dsdb.ReplicaID `json:"replica"`
}

func (c *SucceedShard) op() string { return "SucceedShard" }

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
