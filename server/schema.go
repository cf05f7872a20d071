package server

import (
	"context"
	"fmt"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/meta"
)

// groups calls fn for each time group that rows of t lie in, at least once
// each, and for each run of rows without a group with fn's group nil. In the
// usual case, all rows in one group, it looks once.
func (w *write) groups(t *column.Table, fn func(at int64, g *meta.ShardGroup)) {
	if g := w.policy.GroupFor(t.MinTime); g != nil && g.Range.Contains(t.MaxTime) {
		fn(t.MinTime, g)
		return
	}
	var last *meta.ShardGroup
	seen := map[*meta.ShardGroup]bool{}
	for _, at := range t.Times {
		if last != nil && last.Range.Contains(at) {
			continue
		}
		g := w.policy.GroupFor(at)
		if g == nil || !seen[g] {
			fn(at, g)
		}
		if last = g; g != nil {
			seen[g] = true
		}
	}
}

// ensureGroups drops points that the retention policy no longer keeps and has
// the missing time groups of the others created.
func (w *write) ensureGroups(ctx context.Context) error {
	now := w.n.opt.Wall().UnixNano()
	w.dropExpired(now)
	var times []int64
	span := max(int64(w.policy.ShardGroupDuration), 1)
	asked := map[int64]bool{}
	for i := range w.batch.Tables {
		if w.batch.Tables[i].Rows() == 0 {
			continue
		}
		w.groups(&w.batch.Tables[i], func(at int64, g *meta.ShardGroup) {
			if g == nil && !asked[at/span] {
				asked[at/span] = true
				times = append(times, at)
			}
		})
	}
	if len(times) == 0 {
		return nil
	}
	for len(times) > 0 { // a clipped group may leave times without one: ask again for those
		if err := w.makeGroups(ctx, times, now); err != nil {
			return err
		}
		left := times[:0]
		for i := range w.batch.Tables {
			if w.batch.Tables[i].Rows() > 0 {
				w.groups(&w.batch.Tables[i], func(at int64, g *meta.ShardGroup) {
					if g == nil {
						left = append(left, at)
					}
				})
			}
		}
		times = left
	}
	return nil
}

// makeGroups has the time groups of times created by one command, or, if the data
// nodes hold nearly as many shards as they may, by two: if there is no room for those
// away from now, their points are dropped. To send them again would help only once
// somebody has made room, and meanwhile keep back what is measured now.
func (w *write) makeGroups(ctx context.Context, times []int64, now int64) error {
	c := w.n.newGroups(w.database, w.policy, times, now)
	if c.Limit == 0 {
		return w.command(ctx, c)
	}
	near, far := *c, *c
	near.Times, far.Times = nil, nil
	for _, t := range times {
		if w.policy.Near(t, now) {
			near.Times = append(near.Times, t)
		} else {
			far.Times = append(far.Times, t)
		}
	}
	if len(near.Times) > 0 {
		if err := w.command(ctx, &near); err != nil {
			return err
		}
	}
	if len(far.Times) == 0 {
		return nil
	}
	err := w.command(ctx, &far)
	if dsdb.KindOf(err) == dsdb.KindTooLarge {
		w.dropFar(now, err.Error())
		return nil
	}
	return err
}

// newGroups returns the command that makes the time groups of times.
func (n *Node) newGroups(database string, rp *meta.RetentionPolicy, times []int64, now int64) *meta.EnsureShardGroups {
	c := &meta.EnsureShardGroups{Database: database, Policy: rp.Name, Times: times, Now: now, Avoid: n.unreached(), Witness: rp.ReplicaN == 2}
	c.Bound(n.meta.View(), n.cfg.Data.MaxShardsPerNode)
	return c
}

// dropFar removes the points without a time group that are away from now.
func (w *write) dropFar(now int64, why string) {
	for i := range w.batch.Tables {
		t := &w.batch.Tables[i]
		var drop column.Bitmap
		count := 0
		for r, at := range t.Times {
			if w.policy.GroupFor(at) != nil || w.policy.Near(at, now) {
				continue
			}
			if drop == nil {
				drop = column.NewBitmap(t.Rows())
			}
			drop.Set(r)
			count++
		}
		if count > 0 {
			w.batch.Drop(i, drop)
			w.reject(count, why)
		}
	}
}

// command changes the catalogue and reads it again.
func (w *write) command(ctx context.Context, c meta.Command) error {
	switch err := w.n.command(ctx, c); dsdb.KindOf(err) {
	case dsdb.KindUnavailable, dsdb.KindTimeout:
		return unprepared("the catalogue cannot be changed for it", err)
	default:
		if err != nil {
			return err
		}
	}
	view := w.n.meta.View()
	rp, err := view.Policy(w.database, w.policy.Name)
	if err != nil {
		return err
	}
	w.view, w.policy = view, rp
	return nil
}

// dropExpired removes the points that are older than the policy keeps them.
func (w *write) dropExpired(now int64) {
	if w.policy.Duration == 0 {
		return
	}
	oldest := now - int64(w.policy.Duration)
	for i := range w.batch.Tables {
		t := &w.batch.Tables[i]
		if t.MinTime >= oldest || t.Rows() == 0 {
			continue
		}
		drop := column.NewBitmap(t.Rows())
		count := 0
		for r, at := range t.Times {
			if at < oldest {
				drop.Set(r)
				count++
			}
		}
		w.batch.Drop(i, drop)
		if !mutant.ExpiredUntold {
			w.reject(count, "points beyond retention policy")
		}
	}
}

// ensureFields has the types of new fields fixed, by one command, and drops
// the points that contradict the types that are fixed.
func (w *write) ensureFields(ctx context.Context) error {
	sets, conflict := w.newFields()
	for tries := 1; len(sets) > 0; tries++ {
		if tries > maxPrepare {
			return dsdb.Errorf(dsdb.KindUnavailable, "write failed: the types of its fields are freed again and again")
		}
		if err := w.command(ctx, &meta.RegisterFields{Database: w.database, Policy: w.policy.Name, Sets: sets}); err != nil {
			return err
		}
		if !w.grouped() {
			return errUngrouped
		}
		sets, _ = w.newFields() // they may be revoked already
		conflict = true         // another write may have been first: look again
	}
	if conflict {
		for i := range w.batch.Tables {
			w.dropConflicts(i)
		}
	}
	return nil
}

// newFields returns the fields that are to be registered: those without a type, and
// those of measurements whose types are to be freed. conflict says that rows may
// contradict the types that are fixed.
func (w *write) newFields() (sets []meta.NewFields, conflict bool) {
	db := w.view.Database(w.database)
	for i := range w.batch.Tables {
		t := &w.batch.Tables[i]
		if t.Rows() == 0 {
			continue
		}
		w.groups(t, func(at int64, g *meta.ShardGroup) {
			if g == nil { // dropped
				return
			}
			known := g.Fields(t.Measurement)
			if db.Revoked(t.Measurement) > 0 {
				known = nil
			}
			fresh, bad := unknownFields(known, t, g.Range)
			conflict = conflict || bad
			switch last := len(sets) - 1; {
			case len(fresh) == 0:
			case last >= 0 && sets[last].Measurement == t.Measurement && sameFields(sets[last].Fields, fresh):
				sets[last].Times = append(sets[last].Times, at)
			default:
				sets = append(sets, meta.NewFields{Measurement: t.Measurement, Times: []int64{at}, Fields: fresh})
			}
		})
	}
	return sets, conflict
}

// errUngrouped says that time groups were dropped while fields were registered there.
var errUngrouped = dsdb.Errorf(dsdb.KindUnavailable, "write failed: time groups were dropped meanwhile")

// maxPrepare bounds how often a write looks for the time groups of its points, of
// which somebody drops some each time.
const maxPrepare = 5

// prepare makes sure that the time groups and field types of the write are in the
// catalogue.
func (w *write) prepare(ctx context.Context) error {
	for tries := 1; ; tries++ {
		err := w.ensureGroups(ctx)
		if err == nil {
			err = w.ensureFields(ctx)
		}
		if err != errUngrouped || tries == maxPrepare {
			return err
		}
	}
}

// grouped reports whether every row has a time group. Where one had, it may be
// gone when the catalogue is read again: dropped, or with the whole database,
// which may be there anew.
func (w *write) grouped() bool {
	ok := true
	for i := range w.batch.Tables {
		if t := &w.batch.Tables[i]; t.Rows() > 0 {
			w.groups(t, func(_ int64, g *meta.ShardGroup) { ok = ok && g != nil })
		}
	}
	return ok
}

// unknownFields returns the fields that rows of t in a time group have and whose
// type is not known there, and whether a column contradicts a type that is, or
// another column. Of two types of one field that of the earlier row is taken.
func unknownFields(known meta.FieldSet, t *column.Table, group dsdb.TimeRange) (fresh []meta.Field, conflict bool) {
	var rows []int // per fresh field: its first row
	for i := range t.Columns {
		c := &t.Columns[i]
		switch known.Type(c.Name) {
		case c.Type:
		case dsdb.NoType:
			row := firstValue(c, t, group)
			if row < 0 {
				continue
			}
			if f := findField(fresh, c.Name); f < 0 {
				fresh = append(fresh, meta.Field{Name: c.Name, Type: c.Type})
				rows = append(rows, row)
			} else if conflict = true; row < rows[f] {
				fresh[f].Type, rows[f] = c.Type, row
			}
		default:
			conflict = true
		}
	}
	return fresh, conflict
}

// firstValue returns the first row in r that has a value of c, a column of t; -1: none has.
func firstValue(c *column.Column, t *column.Table, r dsdb.TimeRange) int {
	for row, at := range t.Times {
		if r.Contains(at) && (c.Valid == nil || c.Valid.Get(row)) {
			return row
		}
	}
	return -1
}

func findField(fields []meta.Field, name string) int {
	for i := range fields {
		if fields[i].Name == name {
			return i
		}
	}
	return -1
}

func sameFields(a, b []meta.Field) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// dropConflicts removes the rows of a table that hold a value of another type
// than the one fixed for its field in the row's time group.
func (w *write) dropConflicts(table int) {
	t := &w.batch.Tables[table]
	if t.Rows() == 0 {
		return
	}
	var drop column.Bitmap
	count := 0
	var group *meta.ShardGroup
	var bad []*column.Column
	for r, at := range t.Times {
		if group == nil || !group.Range.Contains(at) {
			group = w.policy.GroupFor(at)
			bad = contradicting(group, t)
		}
		for _, c := range bad {
			if !c.Valid.Get(r) {
				continue
			}
			if drop == nil {
				drop = column.NewBitmap(t.Rows())
			}
			drop.Set(r)
			count++
			w.reject(1, fmt.Sprintf("field type conflict: input field \"%s\" on measurement \"%s\" is type %v, already exists as type %v",
				c.Name, t.Measurement, c.Type, group.Fields(t.Measurement).Type(c.Name)))
			break
		}
	}
	if count > 0 {
		w.batch.Drop(table, drop)
	}
}

// contradicting returns the columns whose type is not the fixed one.
func contradicting(g *meta.ShardGroup, t *column.Table) []*column.Column {
	var bad []*column.Column
	if g == nil { // dropped
		return nil
	}
	known := g.Fields(t.Measurement)
	for i := range t.Columns {
		if typ := known.Type(t.Columns[i].Name); typ != t.Columns[i].Type && typ != dsdb.NoType {
			bad = append(bad, &t.Columns[i])
		}
	}
	return bad
}
