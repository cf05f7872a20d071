package meta

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
)

// MaxGroupsPerCommand bounds the times of one EnsureShardGroups.
const MaxGroupsPerCommand = 20_000

// maxPartitions bounds the shards of a time group.
const maxPartitions = 8

// EnsureShardGroups creates the time groups that hold Times, as far as there
// are none: all that one write needs. A group that ends by Now gets one shard,
// any other one shard for each data node, at most eight. Nothing is placed on
// nodes that are leaving, nor on those to Avoid unless there are not enough others.
// If that would exceed Limit none is made.
type EnsureShardGroups struct {
	Database string        `json:"db"`
	Policy   string        `json:"rp"`
	Times    []int64       `json:"times"` // in any order
	Now      int64         `json:"now"`
	Avoid    []dsdb.NodeID `json:"avoid,omitempty"`   // data nodes that the proposer does not reach
	Witness  bool          `json:"witness,omitempty"` // shards of two replicas get a witness; false in what older programs have proposed
	Limit    int           `json:"limit,omitempty"`   // of the shards that a data node may hold then, see Bound; 0: none
}

func (c *EnsureShardGroups) op() string { return "EnsureShardGroups" }

func (c *EnsureShardGroups) apply(d *Data) error {
	rp, err := d.Policy(c.Database, c.Policy)
	if err != nil {
		return err
	}
	if len(c.Times) > MaxGroupsPerCommand {
		return dsdb.Errorf(dsdb.KindTooLarge, "%d time groups in one request exceed %d", len(c.Times), MaxGroupsPerCommand)
	}
	for _, t := range c.Times {
		if !dsdb.AllTime.Contains(t) {
			return dsdb.Errorf(dsdb.KindInvalid, "time outside range %d - %d", dsdb.MinTime, dsdb.MaxTime)
		}
	}
	spans := rp.missing(c.Times)
	if len(spans) == 0 {
		return nil
	}
	p := newPlacer(d, c.Avoid)
	if len(p.nodes) == 0 {
		return ErrNoDataNode
	}
	if rp, err = d.editPolicy(c.Database, rp.Name); err != nil {
		return err
	}
	groups := make([]*ShardGroup, 0, len(rp.ShardGroups)+len(spans))
	groups = append(groups, rp.ShardGroups...)
	for _, span := range spans {
		partitions := 1
		if span.End > c.Now {
			partitions = min(len(p.nodes), maxPartitions)
		}
		g := d.newGroup(span, p, partitions, rp.ReplicaN, c.Witness)
		if err := c.admits(p, rp, g); err != nil {
			return err
		}
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *ShardGroup) int { return cmp.Compare(a.Range.Start, b.Range.Start) })
	rp.ShardGroups = groups
	d.shards = new(shardIndex)
	return nil
}

// missing returns the ranges of the time groups that times need and that are
// not there, by time. A range is cut where it would overlap a group (one made
// when groups were longer, or that began elsewhere).
func (rp *RetentionPolicy) missing(times []int64) []dsdb.TimeRange {
	times = slices.Clone(times)
	slices.Sort(times)
	var spans []dsdb.TimeRange
	for _, t := range times {
		if n := len(spans); n > 0 && spans[n-1].Contains(t) || rp.GroupFor(t) != nil {
			continue
		}
		span := groupSpan(t, rp.ShardGroupDuration)
		i := rp.after(t)
		if i > 0 {
			span.Start = max(span.Start, rp.ShardGroups[i-1].Range.End)
		}
		if i < len(rp.ShardGroups) {
			span.End = min(span.End, rp.ShardGroups[i].Range.Start)
		}
		spans = append(spans, span)
	}
	return spans
}

// groupSpan returns the range of the time group that holds t: boundaries are
// multiples of d since the zero time of Go (1 January of the year 1, a Monday,
// so that weeks begin on Monday 00:00 UTC), cut at the first and the last time
// that a point may have.
func groupSpan(t int64, d time.Duration) dsdb.TimeRange {
	const secondsToUnixEpoch = 62_135_596_800
	hi, lo := bits.Mul64(secondsToUnixEpoch, uint64(time.Second))
	epoch := bits.Rem64(hi, lo, uint64(d))
	sinceEpoch := t % int64(d)
	if sinceEpoch < 0 {
		sinceEpoch += int64(d)
	}
	before := (uint64(sinceEpoch) + epoch) % uint64(d) // from the start of the group to t
	span := dsdb.AllTime
	if before < uint64(t)-uint64(span.Start) {
		span.Start = t - int64(before)
	}
	if after := uint64(d) - before; after < uint64(span.End)-uint64(t) {
		span.End = t + int64(after)
	}
	return span
}

// newGroup makes a time group with new ids.
func (d *Data) newGroup(span dsdb.TimeRange, p *placer, partitions, replicas int, witness bool) *ShardGroup {
	d.Counters.ShardGroup++
	g := &ShardGroup{ID: d.Counters.ShardGroup, Range: span, Shards: make([]Shard, partitions)}
	p.begin(g.ID)
	for i := range g.Shards {
		nodes := p.place(replicas)
		third := dsdb.NodeID(0)
		if witness {
			third = p.witness(replicas, nodes)
		}
		g.Shards[i] = d.newShard(nodes, third)
	}
	return g
}

// newShard makes a shard with new ids, a replica on each of nodes and, if that is
// not 0, a witness: the last of its founders, which does not campaign.
func (d *Data) newShard(nodes []dsdb.NodeID, witness dsdb.NodeID) Shard {
	d.Counters.Shard++
	s := Shard{ID: d.Counters.Shard, Replicas: make([]Replica, len(nodes))}
	for i, n := range nodes {
		d.Counters.Replica++
		s.Replicas[i] = Replica{ID: d.Counters.Replica, Node: n}
	}
	if witness != 0 {
		d.Counters.Replica++
		s.Replicas = append(s.Replicas, Replica{ID: d.Counters.Replica, Node: witness, Witness: true})
	}
	return s
}

// DeleteShardGroup takes a time group out of use: its points are gone at once,
// its nodes remove the files. It is no error if the group is deleted already.
type DeleteShardGroup struct {
	Database string `json:"db"`
	Policy   string `json:"rp"`
	ID       uint64 `json:"id"`
	Now      int64  `json:"now"`
}

func (c *DeleteShardGroup) op() string { return "DeleteShardGroup" }

func (c *DeleteShardGroup) apply(d *Data) error {
	rp, err := d.Policy(c.Database, c.Policy)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(rp.ShardGroups, func(g *ShardGroup) bool { return g.ID == c.ID })
	if i < 0 {
		if slices.ContainsFunc(rp.Deleted, func(g *ShardGroup) bool { return g.ID == c.ID }) {
			return nil
		}
		return ErrShardGroupNotFound
	}
	if rp, err = d.editPolicy(c.Database, rp.Name); err != nil {
		return err
	}
	rp.delete(i, c.Now)
	d.shards = new(shardIndex)
	return nil
}

// delete moves live group i to the deleted ones; its field types are forgotten.
func (rp *RetentionPolicy) delete(i int, now int64) {
	g := *rp.ShardGroups[i]
	g.DeletedAt, g.schema = max(now, 1), nil
	rp.ShardGroups = without(rp.ShardGroups, i)
	at, _ := slices.BinarySearchFunc(rp.Deleted, g.ID, func(g *ShardGroup, id uint64) int { return cmp.Compare(g.ID, id) })
	rp.Deleted = slices.Insert(slices.Clone(rp.Deleted), at, &g)
}

// DropShard removes the points of one shard. The only shard of a time group
// takes the group with it. One of several is replaced by a new, empty shard on
// the same nodes, so that the other series keep their partitions. It is no
// error if there is no such shard.
type DropShard struct {
	ID  dsdb.ShardID `json:"id"`
	Now int64        `json:"now"`
}

func (c *DropShard) op() string { return "DropShard" }

func (c *DropShard) apply(d *Data) error {
	ref, found := d.Shard(c.ID)
	if !found {
		return nil
	}
	rp, err := d.editPolicy(ref.Database.Name, ref.Policy.Name)
	if err != nil {
		return err
	}
	d.shards = new(shardIndex)
	i := slices.Index(rp.ShardGroups, ref.Group)
	if len(ref.Group.Shards) == 1 {
		rp.delete(i, c.Now)
		return nil
	}
	nodes, witness := d.successors(ref)
	g := *ref.Group
	g.Shards = slices.Clone(g.Shards)
	g.Shards[slices.IndexFunc(g.Shards, func(s Shard) bool { return s.ID == c.ID })] = d.newShard(nodes, witness)
	rp.ShardGroups = slices.Clone(rp.ShardGroups)
	rp.ShardGroups[i] = &g
	return nil
}

// successors returns the nodes for the shard that is to take the place of
// another: those that are to stay, or, if there is none, new ones, or, if no node
// is to stay at all, its own; and that for its witness, 0 if it is to have none.
func (d *Data) successors(ref ShardRef) (nodes []dsdb.NodeID, witness dsdb.NodeID) {
	for _, r := range ref.Shard.Replicas {
		switch p, _ := d.ProcessOf(r.Node); {
		case !p.Is(DataNode) || !r.Votes():
		case r.Witness:
			witness = r.Node
		default:
			nodes = append(nodes, r.Node)
		}
	}
	if len(nodes) == 0 {
		p := newPlacer(d, nil)
		if len(p.nodes) == 0 {
			return ref.Shard.Owners(), 0
		}
		p.begin(ref.Group.ID)
		nodes = p.place(ref.Policy.ReplicaN)
		witness = p.witness(ref.Policy.ReplicaN, nodes)
	}
	return nodes, witness
}

// PruneShardGroups forgets the groups that were deleted before a time.
type PruneShardGroups struct {
	Before int64 `json:"before"`
}

func (c *PruneShardGroups) op() string { return "PruneShardGroups" }

func (c *PruneShardGroups) apply(d *Data) error {
	old := func(g *ShardGroup) bool { return g.DeletedAt < c.Before }
	for _, db := range d.Databases {
		for _, rp := range db.Policies {
			if !slices.ContainsFunc(rp.Deleted, old) {
				continue
			}
			next, err := d.editPolicy(db.Name, rp.Name)
			if err != nil {
				return err
			}
			next.Deleted = slices.DeleteFunc(slices.Clone(rp.Deleted), old)
		}
	}
	return nil
}
