package server

import (
	"context"

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
		return n.command(ctx, &meta.DropMeasurement{Database: c.Database, Measurement: c.Name})
	}
	return n.forgetMeasurements(ctx, c.Database)
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
		del.Measurements = []string{}
		for _, m := range names {
			if t.Matches(m) {
				del.Measurements = append(del.Measurements, m)
			}
		}
		if len(del.Measurements) == 0 {
			return nil
		}
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

// forgetMeasurements frees the field types of measurements without any series.
func (n *Node) forgetMeasurements(ctx context.Context, database string) error {
	s, err := n.openSession(ctx, readLevel{}, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	db := s.view.Database(database)
	if db == nil {
		return nil
	}
	left, err := (&catalog{ctx, s}).Measurements(database, "")
	if err != nil {
		return err
	}
	stored := make(map[string]bool, len(left))
	for _, m := range left {
		stored[m] = true
	}
	var groups []*meta.ShardGroup
	for _, rp := range db.Policies {
		groups = append(groups, rp.ShardGroups...)
	}
	for _, m := range meta.Measurements(groups) {
		if !stored[m] {
			if err := n.command(ctx, &meta.DropMeasurement{Database: database, Measurement: m}); err != nil {
				return err
			}
		}
	}
	return nil
}
