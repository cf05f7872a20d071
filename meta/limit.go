package meta

import (
	"slices"

	"github.com/dasudian/dsdb"
)

// Each replica of a shard costs its node memory and ticks. How many a node may get
// by new time groups is bounded by the command that makes them, since Apply may not
// look at a configuration: EnsureShardGroups.Limit. Those that hold the points of
// now may use all of it, others, of the past or of clocks that are wrong, nine
// tenths: what is measured now has to go somewhere. Replicas that are moved, or made
// anew, are not bounded: how many copies there are comes first.

// rush is how many commands like it Bound reckons with at the same time.
const rush = 16

// Bound sets Limit, if the catalogue is such that it may be reached. Else it leaves
// the command as programs know it that do not know the limit yet: they would
// refuse to go on at one that has it.
func (c *EnsureShardGroups) Bound(d *Data, limit int) {
	if limit <= 0 {
		return
	}
	p := newPlacer(d, nil)
	for i := range p.nodes {
		if p.held(i)+rush*maxPartitions*len(c.Times) > farLimit(limit) {
			c.Limit = limit
		}
	}
}

// farLimit is what of a limit time groups away from now may use.
func farLimit(limit int) int { return limit - limit/10 }

// held returns how many replicas, and witnesses, a node has.
func (p *placer) held(node int) int { return p.load[node] + p.watch[node] }

// admits reports why a time group that was just placed would be too much: as
// KindUnavailable if that may be told who sends the points of now, and keeps them
// until there is room, KindTooLarge for any others.
func (c *EnsureShardGroups) admits(p *placer, rp *RetentionPolicy, g *ShardGroup) error {
	if c.Limit <= 0 {
		return nil
	}
	near := rp.Near(g.Range.Start, c.Now)
	limit := c.Limit
	if !near {
		limit = farLimit(limit)
	}
	for _, s := range g.Shards {
		for _, r := range s.Replicas {
			i, _ := slices.BinarySearch(p.nodes, r.Node)
			switch {
			case p.held(i) <= limit:
			case near:
				return dsdb.Errorf(dsdb.KindUnavailable, "data node %d would hold more than %d shards, [data] max-shards-per-node: drop some, add data nodes or raise the limit", r.Node, limit)
			default:
				return dsdb.Errorf(dsdb.KindTooLarge, "time groups away from now: data node %d would hold more than %d shards, nine tenths of [data] max-shards-per-node: "+
					"give the policy a longer SHARD DURATION, drop some, add data nodes or raise the limit", r.Node, limit)
			}
		}
	}
	return nil
}

// Near reports whether t lies in the time group of now or in one next to it, going
// by the policy's present SHARD DURATION.
func (rp *RetentionPolicy) Near(t, now int64) bool {
	of, at := groupSpan(t, rp.ShardGroupDuration), groupSpan(now, rp.ShardGroupDuration)
	return of.Start <= at.End && at.Start <= of.End
}
