package server

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/planner"
	"github.com/dasudian/dsdb/shard"
)

// deletion is what a statement has deleted so far. It is kept when the statement is
// begun again: a shard that has deleted the rows is not asked again, for others may
// have been written to it since.
type deletion struct {
	mu    sync.Mutex
	done  map[deletedPart]bool
	doubt bool // of some part nobody can tell
}

// deletedPart is one of the targets of a statement, by its ordinal, in one shard.
type deletedPart struct {
	target int
	shard  dsdb.ShardID
}

// once runs a deletion unless that has been done.
func (d *deletion) once(part deletedPart, do func() error) error {
	d.mu.Lock()
	done := d.done[part]
	d.mu.Unlock()
	if done && !mutant.DeletesTwice {
		return nil
	}
	err := do()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch kind := dsdb.KindOf(err); {
	case err == nil && d.done == nil:
		d.done = map[deletedPart]bool{part: true}
	case err == nil:
		d.done[part] = true
	case kind == dsdb.KindTimeout, kind == dsdb.KindCanceled:
		d.doubt = true
	}
	return err
}

// doubtful reports whether nobody can tell of some shard whether it has deleted the
// rows, or will: the statement must not be begun again.
func (d *deletion) doubtful() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.doubt
}

// explain says of a statement that failed whether something may be deleted.
func (d *deletion) explain(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
	case d.doubt:
		return fmt.Errorf("%w: the rows may have been deleted", err)
	case len(d.done) > 0:
		return fmt.Errorf("%w: some of the rows may have been deleted", err)
	}
	return err
}

// delete proposes the deletion to every shard that may hold such rows, and
// forgets the field types of measurements that are gone. After an error some of the
// shards may have deleted them.
func (n *Node) delete(ctx context.Context, s *session, c *planner.Command) error {
	d := c.Delete
	if d.Nothing {
		return nil
	}
	for i, t := range d.Targets {
		ids := make([]dsdb.ShardID, len(t.Shards))
		for k, ps := range t.Shards {
			ids[k] = ps.ID
		}
		err := changeShards(ids, func(id dsdb.ShardID) error {
			return s.deleted.once(deletedPart{i, id}, func() error { return n.deleteFrom(ctx, s, id, &t, c) })
		})
		if err != nil {
			return s.deleted.explain(err)
		}
	}
	if c.Kind == planner.DropMeasurement {
		return s.deleted.explain(n.forgetEmptied(ctx, c.Database, func(m string) bool { return m == c.Name }))
	}
	return s.deleted.explain(n.forgetEmptied(ctx, c.Database, func(m string) bool {
		return slices.ContainsFunc(d.Targets, func(t planner.Target) bool { return t.Matches(m) })
	}))
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
		return dsdb.Errorf(dsdb.KindTimeout, "timeout")
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
