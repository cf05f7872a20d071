package meta

import (
	"slices"
	"strconv"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// Replica is one copy of a shard on a data node, or of the catalogue on a
// process. A witness is none: it has the log of its group, for a while, and a vote.
type Replica struct {
	ID      dsdb.ReplicaID `json:"id"`
	Node    dsdb.NodeID    `json:"node"` // of a copy of the catalogue see Process.ID
	Role    ReplicaRole    `json:"role,omitempty"`
	Witness bool           `json:"witness,omitempty"`
}

// ReplicaRole says what a replica is to its raft group, as far as the catalogue
// knows: the group's own membership, which is in its log, is the truth.
type ReplicaRole uint8

// The roles of replicas. A replica begins as a learner unless it is there from
// the beginning of the group.
const (
	Voter        ReplicaRole = iota
	Learner                  // it is filled, or a copy of the catalogue without a vote
	LeavingVoter             // it still has its points and its vote, and is to lose both
	Failed                   // its files or its log are damaged: it does not count, and is to be replaced
)

var replicaRoles = []string{"voter", "learner", "leaving", "failed"}

// String returns the role as SHOW CLUSTER prints it.
func (r ReplicaRole) String() string { return nameOf(replicaRoles, r, "ReplicaRole") }

// MarshalText writes what String returns.
func (r ReplicaRole) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (r *ReplicaRole) UnmarshalText(b []byte) error { return parseName(replicaRoles, b, r) }

// Votes reports whether the replica votes in its group, and may be what makes a
// quorum, as far as the catalogue knows.
func (r Replica) Votes() bool { return r.Role == Voter || r.Role == LeavingVoter }

// Whole reports whether the replica has what the group has acknowledged, or will
// have it by its log alone.
func (r Replica) Whole() bool { return r.Votes() && (!r.Witness || mutant.WitnessCountsAsCopy) }

// Birth returns the replicas that the group of the shard began with, in the
// order that all nodes know; the first one was to campaign. It never changes.
func (s *Shard) Birth() []Replica {
	if s.Founders != nil {
		return s.Founders
	}
	return s.Replicas
}

// Owners returns the nodes that have all of the shard, as SHOW SHARDS lists them.
func (s *Shard) Owners() []dsdb.NodeID {
	var nodes []dsdb.NodeID
	for _, r := range s.Replicas {
		if r.Whole() {
			nodes = append(nodes, r.Node)
		}
	}
	return nodes
}

// On returns the replica that the node is to hold: the newest, if one that
// failed is being replaced in place.
func (s *Shard) On(node dsdb.NodeID) (Replica, bool) { return newestOn(s.Replicas, node, node) }

// newestOn returns the last replica whose node is one of two ids.
func newestOn(replicas []Replica, a, b dsdb.NodeID) (Replica, bool) {
	for i := len(replicas) - 1; i >= 0; i-- {
		if n := replicas[i].Node; n != 0 && (n == a || n == b) {
			return replicas[i], true
		}
	}
	return Replica{}, false
}

// AddReplica gives a group one more replica, a learner, on a node that has none,
// or one that failed. If one is being made there already, that is the outcome.
// The answer is the id of the replica as decimal text.
type AddReplica struct {
	Group   dsdb.GroupID `json:"group"`
	Node    dsdb.NodeID  `json:"node"`              // a data node; of the meta group any id of a process
	Witness bool         `json:"witness,omitempty"` // of a shard
}

func (c *AddReplica) op() string { return "AddReplica" }

func (c *AddReplica) answer(d *Data) []byte {
	replicas, _ := d.Replicas(c.Group)
	p, _ := d.ProcessOf(c.Node)
	r, _ := newestOn(replicas, p.MetaID, p.DataID)
	return strconv.AppendUint(nil, uint64(r.ID), 10)
}

func (c *AddReplica) apply(d *Data) error {
	p, found := d.ProcessOf(c.Node)
	if !found || p.Gone() || c.Group != dsdb.MetaGroup && (c.Node != p.DataID || !p.Is(DataNode)) {
		return ErrNodeNotFound
	}
	if c.Witness && c.Group == dsdb.MetaGroup {
		return dsdb.Errorf(dsdb.KindInvalid, "the catalogue has no witnesses")
	}
	return d.editReplicas(c.Group, func(all []Replica) ([]Replica, error) {
		if r, found := newestOn(all, p.MetaID, p.DataID); found && r.Role != Failed {
			if r.Role == Learner && r.Witness == c.Witness {
				return all, nil
			}
			return nil, dsdb.Errorf(dsdb.KindConflict, "node %d has replica %d of group %d already", c.Node, r.ID, c.Group)
		}
		d.Counters.Replica++
		return append(all, Replica{ID: d.Counters.Replica, Node: c.Node, Role: Learner, Witness: c.Witness}), nil
	})
}

// PromoteReplica records that a learner has become a voter of its group.
type PromoteReplica struct {
	Group   dsdb.GroupID   `json:"group"`
	Replica dsdb.ReplicaID `json:"replica"`
}

func (c *PromoteReplica) op() string { return "PromoteReplica" }

func (c *PromoteReplica) apply(d *Data) error {
	return d.setRole(c.Group, c.Replica, Voter)
}

// DemoteReplica records that a voter of the meta group has become a learner.
type DemoteReplica struct {
	Replica dsdb.ReplicaID `json:"replica"`
}

func (c *DemoteReplica) op() string { return "DemoteReplica" }

func (c *DemoteReplica) apply(d *Data) error {
	return d.setRole(dsdb.MetaGroup, c.Replica, Learner)
}

// RetireReplica marks a voter as one that is to leave its group. The last whole
// replica of a group is refused.
type RetireReplica struct {
	Group   dsdb.GroupID   `json:"group"`
	Replica dsdb.ReplicaID `json:"replica"`
}

func (c *RetireReplica) op() string { return "RetireReplica" }

func (c *RetireReplica) apply(d *Data) error {
	return d.setRole(c.Group, c.Replica, LeavingVoter)
}

// ReplicaFailed marks a replica as damaged: its node has taken it out of service
// and it is to be replaced under a new id. The last whole replica of a group is
// refused: there is nothing to replace it from.
type ReplicaFailed struct {
	Group   dsdb.GroupID   `json:"group"`
	Replica dsdb.ReplicaID `json:"replica"`
	Reason  string         `json:"reason"` // for the log of commands only
}

func (c *ReplicaFailed) op() string { return "ReplicaFailed" }

func (c *ReplicaFailed) apply(d *Data) error {
	return d.setRole(c.Group, c.Replica, Failed)
}

// setRole changes the role of a replica.
func (d *Data) setRole(group dsdb.GroupID, id dsdb.ReplicaID, role ReplicaRole) error {
	return d.editReplicas(group, func(all []Replica) ([]Replica, error) {
		i := slices.IndexFunc(all, func(r Replica) bool { return r.ID == id })
		if i < 0 {
			return nil, errReplicaNotFound(group, id)
		}
		if all[i].Role == Failed && role != Failed {
			return nil, dsdb.Errorf(dsdb.KindConflict, "replica %d of group %d has failed", id, group)
		}
		all[i].Role = role
		return all, nil
	})
}

// RemoveReplica forgets a replica that is not a member of its group any more;
// its node removes the files. A voter is refused. It is no error if there is no
// such replica, or no such group.
type RemoveReplica struct {
	Group   dsdb.GroupID   `json:"group"`
	Replica dsdb.ReplicaID `json:"replica"`
}

func (c *RemoveReplica) op() string { return "RemoveReplica" }

func (c *RemoveReplica) apply(d *Data) error {
	all, found := d.Replicas(c.Group)
	if !found || !slices.ContainsFunc(all, func(r Replica) bool { return r.ID == c.Replica }) {
		return nil
	}
	return d.editReplicas(c.Group, func(all []Replica) ([]Replica, error) {
		i := slices.IndexFunc(all, func(r Replica) bool { return r.ID == c.Replica })
		if all[i].Role == Voter {
			return nil, dsdb.Errorf(dsdb.KindConflict, "replica %d of group %d is a voter", c.Replica, c.Group)
		}
		return slices.Delete(all, i, i+1), nil
	})
}

// editReplicas replaces the replicas of a group by what edit makes of a copy,
// which must have a whole one.
func (d *Data) editReplicas(group dsdb.GroupID, edit func([]Replica) ([]Replica, error)) error {
	all, found := d.Replicas(group)
	if !found {
		return ErrShardNotFound
	}
	next, err := edit(slices.Clone(all))
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(next, Replica.Whole) {
		return dsdb.Errorf(dsdb.KindConflict, "group %d would have no whole replica left", group)
	}
	if group == dsdb.MetaGroup {
		d.MetaReplicas = next
		return nil
	}
	ref, _ := d.Shard(dsdb.ShardID(group))
	return d.editShard(ref, func(s *Shard) { s.Founders, s.Replicas = s.Birth(), next })
}

// editShard changes a copy of a shard.
func (d *Data) editShard(ref ShardRef, edit func(*Shard)) error {
	rp, err := d.editPolicy(ref.Database.Name, ref.Policy.Name)
	if err != nil {
		return err
	}
	g := *ref.Group
	g.Shards = slices.Clone(g.Shards)
	edit(&g.Shards[slices.IndexFunc(g.Shards, func(s Shard) bool { return s.ID == ref.Shard.ID })])
	at := slices.Index(rp.ShardGroups, ref.Group)
	rp.ShardGroups = slices.Clone(rp.ShardGroups)
	rp.ShardGroups[at] = &g
	return nil
}

// addMetaReplica gives a process its replica of the meta group, if it has none.
func (d *Data) addMetaReplica(p *Process) {
	if _, found := d.MetaReplica(*p); found {
		return
	}
	d.Counters.Replica++
	r := Replica{ID: d.Counters.Replica, Node: p.ID(), Role: Learner}
	if len(d.MetaReplicas) == 0 {
		r.Role = Voter
	}
	d.MetaReplicas = append(slices.Clip(d.MetaReplicas), r)
}
