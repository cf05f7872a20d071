package server

import (
	"context"
	"errors"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/planner"
	"github.com/dasudian/dsdb/shard"
)

// delete proposes the deletion to every shard that may hold such rows, and
// forgets the field types of measurements that are gone.
func (n *Node) delete(ctx context.Context, s *session, c *planner.Command) error {
	d := c.Delete
	if d.Nothing {
		return nil
	}
	for _, t := range d.Targets {
		for _, ps := range t.Shards {
			if err := n.deleteFrom(ctx, s, ps.ID, &t, c); err != nil {
				return err
			}
		}
	}
	if c.Kind == planner.DropMeasurement {
		return n.forgetEmptied(ctx, c.Database, func(m string) bool { return m == c.Name })
	}
	return n.forgetEmptied(ctx, c.Database, func(m string) bool {
		return slices.ContainsFunc(d.Targets, func(t planner.Target) bool { return t.Matches(m) })
	})
}

func (n *Node) deleteFrom(ctx context.Context, s *session, id dsdb.ShardID, t *planner.Target, c *planner.Command) error {
	if mutant.DeleteOnlyHere {
		if _, err := n.shards.get(id); err != nil {
			return nil
		}
	}
	del := shard.Delete{Where: c.Delete.Where, Range: c.Delete.Range,
		DropSeries: c.Kind != planner.DeleteRows || c.Delete.Range == dsdb.AllTime}
	if t.Name != "" || t.Regex != nil {
		src, err := s.open(ctx, id)
		if dsdb.KindOf(err) == dsdb.KindNotFound {
			return nil // dropped meanwhile
		}
		if err != nil {
			return err
		}
		names, err := src.Measurements(ctx)
		if err != nil {
			return err
		}
		if ref, found := s.view.Shard(id); found { // hints of what is not stored there may be on their way
			names = append(slices.Clone(names), meta.Measurements([]*meta.ShardGroup{ref.Group})...)
		}
		names = slices.DeleteFunc(names, func(m string) bool { return !t.Matches(m) })
		if len(names) == 0 {
			return nil
		}
		slices.Sort(names)
		del.Measurements = slices.Compact(names)
	}
	v, err := n.propose(ctx, id.Group(), func(pid dsdb.ProposalID) []byte { return shard.AppendDelete(nil, pid, del) })
	switch {
	case err == nil:
		return v.Err()
	case dsdb.KindOf(err) == dsdb.KindNotFound: // dropped meanwhile
		return nil
	case dsdb.KindOf(err) == dsdb.KindTimeout:
		return dsdb.Errorf(dsdb.KindTimeout, "timeout: the rows may have been deleted")
	}
	return err
}

// forgetEmptied frees the field types of those of the measurements that a
// statement was about which have no series now.
func (n *Node) forgetEmptied(ctx context.Context, database string, about func(measurement string) bool) error {
	stored, err := n.measurements(ctx, database)
	if err != nil {
		return err
	}
	var emptied []string
	for _, m := range meta.Measurements(groupsOf(n.meta.View().Database(database))) {
		if about(m) && !slices.Contains(stored, m) {
			emptied = append(emptied, m)
		}
	}
	return n.forget(ctx, database, emptied)
}

// groupsOf returns the time groups of a database, nil if there is none.
func groupsOf(db *meta.Database) (groups []*meta.ShardGroup) {
	if db != nil {
		for _, rp := range db.Policies {
			groups = append(groups, rp.ShardGroups...)
		}
	}
	return groups
}

// measurements returns those that have series in a database now.
func (n *Node) measurements(ctx context.Context, database string) ([]string, error) {
	s, err := n.openSession(ctx, readLevel{}, nil)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if s.view.Database(database) == nil {
		return nil, nil
	}
	return (&catalog{ctx, s}).Measurements(database, "")
}

// forget frees the field types of measurements that have no series any more.
// Points that a write brings meanwhile must not be left without types, which no
// query would see: a write that ends later on a node which knows that they are
// freed fixes them anew (write.fixAgain). For those that have ended before, it
// is looked, once the nodes know it, whether there are series again.
func (n *Node) forget(ctx context.Context, database string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	before := n.meta.View().Database(database)
	for _, m := range names {
		if err := n.command(ctx, &meta.DropMeasurement{Database: database, Measurement: m}); err != nil {
			return err
		}
	}
	n.tellAll(ctx)
	stored, err := n.measurements(ctx, database)
	for _, m := range names {
		if before != nil && (err != nil || slices.Contains(stored, m)) {
			err = errors.Join(err, n.fixTypes(ctx, before, m))
		}
	}
	return err
}

// fixTypes fixes the field types of a measurement as they were.
func (n *Node) fixTypes(ctx context.Context, db *meta.Database, measurement string) error {
	for _, rp := range db.Policies {
		var sets []meta.NewFields
		for _, g := range rp.ShardGroups {
			fields := g.Fields(measurement)
			switch last := len(sets) - 1; {
			case len(fields) == 0:
			case last >= 0 && sameFields(sets[last].Fields, fields):
				sets[last].Times = append(sets[last].Times, g.Range.Start)
			default:
				sets = append(sets, meta.NewFields{Measurement: measurement, Times: []int64{g.Range.Start}, Fields: fields})
			}
		}
		if len(sets) == 0 {
			continue
		}
		err := n.command(ctx, &meta.RegisterFields{Database: db.Name, Policy: rp.Name, Sets: sets})
		if err != nil && dsdb.KindOf(err) != dsdb.KindNotFound { // dropped meanwhile
			return err
		}
	}
	return nil
}
