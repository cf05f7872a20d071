package server

import (
	"context"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/planner"
	"github.com/dasudian/dsdb/shard"
)

// delete proposes the deletion to every shard that may hold such rows, and
// forgets the field types of measurements that are gone. After an error some of the
// shards may have deleted them.
func (n *Node) delete(ctx context.Context, s *session, c *planner.Command) error {
	d := c.Delete
	if d.Nothing {
		return nil
	}
	for _, t := range d.Targets {
		ids := make([]dsdb.ShardID, len(t.Shards))
		for i, ps := range t.Shards {
			ids[i] = ps.ID
		}
		if err := changeShards(ids, func(id dsdb.ShardID) error { return n.deleteFrom(ctx, s, id, &t, c) }); err != nil {
			return err
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

// forget frees the field types of those of the measurements that have no series any
// more, in the steps of fence.go. While a node runs an older program, which knows no
// fences, they stay.
func (n *Node) forget(ctx context.Context, database string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if old := n.withoutFences(ctx); old != 0 {
		n.log.Warn("types of fields of measurements without points are kept until all nodes are upgraded", "database", database, "node", uint64(old))
		return nil
	}
	if err := n.command(ctx, &meta.RevokeFields{Database: database, Measurements: names}); err != nil {
		return err
	}
	db := n.meta.View().Database(database)
	if db == nil { // dropped meanwhile
		return nil
	}
	if err := n.fence(ctx, db, names); err != nil {
		return err
	}
	stored, err := n.measurements(ctx, database)
	if err != nil {
		return err
	}
	for _, m := range names {
		since := db.Revoked(m)
		if since == 0 || slices.Contains(stored, m) {
			continue
		}
		if err := n.command(ctx, &meta.DropMeasurement{Database: database, Measurement: m, Since: since}); err != nil {
			return err
		}
	}
	return nil
}
