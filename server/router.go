package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/httpd"
	"github.com/dasudian/dsdb/shard"
)

// proposalsPerWrite is how many shards of one write are proposed at a time: a
// write over a thousand time groups then shares syncs of the log.
const proposalsPerWrite = 64

// Write stores the points of a request: it makes sure that their time groups
// and field types are in the catalogue, splits the batch by shard, and proposes
// each part to its raft group. It returns nil when all points are durable. A
// KindConflict error means that some were refused and the others are stored.
func (n *Node) Write(ctx context.Context, r *httpd.WriteRequest) error {
	if err := n.admit(); err != nil {
		return err
	}
	rp, err := n.policy(r.Database, r.Policy)
	if err != nil {
		return err
	}
	w := &write{n: n, database: r.Database, policy: rp, batch: r.Batch, rejected: r.Refused, reason: r.Reason}
	w.dropLong()
	if err := w.ensureGroups(ctx); err != nil {
		return err
	}
	if err := w.ensureFields(ctx); err != nil {
		return err
	}
	if err := w.propose(ctx); err != nil {
		return err
	}
	return w.partial()
}

// policy finds where a write goes. The error quotes the database's name, as
// /write always did and Telegraf expects.
func (n *Node) policy(database, name string) (*meta.RetentionPolicy, error) {
	view := n.meta.View()
	if view.Database(database) == nil {
		return nil, dsdb.Errorf(dsdb.KindNotFound, "database not found: %q", database)
	}
	return view.Policy(database, name)
}

// admit refuses writes while too many points are in memory.
func (n *Node) admit() error {
	limit := int64(n.cfg.Data.CacheMaxMemory)
	if held := n.maintainer.MemBytes(); limit > 0 && held > limit {
		return dsdb.Errorf(dsdb.KindUnavailable, "write failed: points in memory take %d bytes, cache-max-memory-size is %d; try again when some are flushed", held, limit)
	}
	return nil
}

// write is one request on its way to the shards.
type write struct {
	n        *Node
	database string
	policy   *meta.RetentionPolicy
	batch    *column.WriteBatch

	mu       sync.Mutex // guards what follows: shards answer in parallel
	rejected int
	reason   string
}

func (w *write) reject(rows int, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rejected == 0 {
		w.reason = reason
	}
	w.rejected += rows
}

// partial words the points that were refused as InfluxDB does.
func (w *write) partial() error {
	if w.rejected == 0 {
		return nil
	}
	return dsdb.Errorf(dsdb.KindConflict, "partial write: %s dropped=%d", w.reason, w.rejected)
}

// maxString is the longest string that a field may hold (InfluxDB 1.x, tsdb.MaxFieldValueLength).
const maxString = 1 << 20

// dropLong removes the points with a string that is too long.
func (w *write) dropLong() {
	for i := range w.batch.Tables {
		t := &w.batch.Tables[i]
		drop := column.NewBitmap(t.Rows())
		count := 0
		for k := range t.Columns {
			c := &t.Columns[k]
			if c.Type != dsdb.String || len(c.Bytes) <= maxString {
				continue // not even all together are too long
			}
			for r := range t.Rows() {
				if n := len(c.Str(r)); n > maxString && c.Valid.Get(r) && !drop.Get(r) {
					drop.Set(r)
					count++
					w.reject(1, fmt.Sprintf("input field \"%s\" on measurement \"%s\" is too long, %d > %d", c.Name, t.Measurement, n, maxString))
				}
			}
		}
		if count > 0 {
			w.batch.Drop(i, drop)
		}
	}
}

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
// the missing time groups of the others created, all by one command.
func (w *write) ensureGroups(ctx context.Context) error {
	now := time.Now().UnixNano()
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
		if err := w.command(ctx, &meta.EnsureShardGroups{Database: w.database, Policy: w.policy.Name, Times: times, Now: now}); err != nil {
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

// command changes the catalogue and reads it again.
func (w *write) command(ctx context.Context, c meta.Command) error {
	switch err := w.n.command(ctx, c); dsdb.KindOf(err) {
	case dsdb.KindUnavailable, dsdb.KindTimeout:
		return writeFailed(err)
	default:
		if err != nil {
			return err
		}
	}
	rp, err := w.n.meta.View().Policy(w.database, w.policy.Name)
	if err != nil {
		return err
	}
	w.policy = rp
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
		w.reject(count, "points beyond retention policy")
	}
}

// ensureFields has the types of new fields fixed, by one command, and drops
// the points that contradict the types that are fixed.
func (w *write) ensureFields(ctx context.Context) error {
	var sets []meta.NewFields
	conflict := false
	for i := range w.batch.Tables {
		t := &w.batch.Tables[i]
		if t.Rows() == 0 {
			continue
		}
		w.groups(t, func(at int64, g *meta.ShardGroup) {
			fresh, bad := unknownFields(g, t)
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
	if len(sets) > 0 {
		if err := w.command(ctx, &meta.RegisterFields{Database: w.database, Policy: w.policy.Name, Sets: sets}); err != nil {
			return err
		}
		if !w.grouped() {
			return dsdb.Errorf(dsdb.KindUnavailable, "write failed: time groups of %q were dropped meanwhile", w.database)
		}
		conflict = true // another write may have been first: look again
	}
	if conflict {
		for i := range w.batch.Tables {
			w.dropConflicts(i)
		}
	}
	return nil
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

// unknownFields returns the fields that rows of t in group g have and whose
// type is not fixed there, and whether a column contradicts a type that is, or
// another column. Of two types of one field that of the earlier row is taken.
func unknownFields(g *meta.ShardGroup, t *column.Table) (fresh []meta.Field, conflict bool) {
	known := g.Fields(t.Measurement)
	var rows []int // per fresh field: its first row
	for i := range t.Columns {
		c := &t.Columns[i]
		switch known.Type(c.Name) {
		case c.Type:
		case dsdb.NoType:
			row := firstValue(c, t, g.Range)
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
	known := g.Fields(t.Measurement)
	for i := range t.Columns {
		if typ := known.Type(t.Columns[i].Name); typ != t.Columns[i].Type && typ != dsdb.NoType {
			bad = append(bad, &t.Columns[i])
		}
	}
	return bad
}

// propose sends every shard its part and waits until all have answered.
func (w *write) propose(ctx context.Context) error {
	parts := w.split()
	if err := w.n.shards.await(ctx, parts); err != nil {
		return writeFailed(err)
	}
	if len(parts) == 1 {
		return w.proposeTo(ctx, parts[0])
	}
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	slots := make(chan struct{}, proposalsPerWrite)
	for i, p := range parts {
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = w.proposeTo(ctx, p)
			<-slots
		}()
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// part is what one shard gets.
type part struct {
	shard dsdb.ShardID
	batch *column.WriteBatch
}

// split divides the batch by shard. A batch of one shard is not copied.
func (w *write) split() []part {
	if id, ok := w.onlyShard(); ok {
		return []part{{id, w.batch}}
	}
	ordinal := map[dsdb.ShardID]int{}
	var parts []part
	for i := range w.batch.Tables {
		if w.batch.Tables[i].Rows() == 0 {
			continue
		}
		w.groups(&w.batch.Tables[i], func(_ int64, g *meta.ShardGroup) {
			for _, s := range g.Shards {
				if _, ok := ordinal[s.ID]; !ok {
					ordinal[s.ID] = len(parts)
					parts = append(parts, part{shard: s.ID})
				}
			}
		})
	}
	batches := new(column.Partitioner).Split(w.batch, len(parts), func(table, key int, at int64) int {
		g := w.policy.GroupFor(at)
		return ordinal[g.Shards[g.Partition(w.batch.Tables[table].Keys.At(key))].ID]
	})
	used := parts[:0]
	for i, p := range parts {
		if p.batch = batches[i]; p.batch != nil {
			used = append(used, p)
		}
	}
	return used
}

// onlyShard returns the shard that holds all rows, if there is one such.
func (w *write) onlyShard() (dsdb.ShardID, bool) {
	var only dsdb.ShardID
	for i := range w.batch.Tables {
		t := &w.batch.Tables[i]
		if t.Rows() == 0 {
			continue
		}
		g := w.policy.GroupFor(t.MinTime)
		if g == nil || !g.Range.Contains(t.MaxTime) || len(g.Shards) != 1 || only != 0 && only != g.Shards[0].ID {
			return 0, false
		}
		only = g.Shards[0].ID
	}
	return only, only != 0
}

// An entry of the log should not be larger than this, so that others need not
// wait long behind it; larger parts are divided by rows.
const (
	entryBytes = 4 << 20
	entryRows  = 1 << 20
)

// proposeTo has one shard apply its part, in several entries if it is large.
func (w *write) proposeTo(ctx context.Context, p part) error {
	entry := shard.AppendWrite(nil, p.batch)
	rows := p.batch.Rows()
	pieces := max(1+len(entry)/entryBytes, 1+rows/entryRows)
	if pieces == 1 || rows == 1 {
		return w.proposeEntry(ctx, p.shard, entry)
	}
	pieces = min(pieces, rows)
	row := 0
	for _, b := range new(column.Partitioner).Split(p.batch, pieces, func(int, int, int64) int { row++; return (row - 1) * pieces / rows }) {
		if b != nil {
			if err := w.proposeEntry(ctx, p.shard, shard.AppendWrite(nil, b)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *write) proposeEntry(ctx context.Context, id dsdb.ShardID, entry []byte) error {
	v, err := w.n.host.Propose(ctx, id.Group(), entry)
	if err != nil {
		return writeFailed(err)
	}
	if v.Rejected > 0 {
		w.reject(v.Rejected, v.Reason)
	}
	return nil
}

// writeFailed words an error so that clients keep the points and try again:
// "timeout" or "write failed: …", both 503 (compatibility table of Telegraf).
func writeFailed(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || dsdb.KindOf(err) == dsdb.KindTimeout {
		return dsdb.Errorf(dsdb.KindTimeout, "timeout")
	}
	if vfs.NoSpace(err) {
		return dsdb.Errorf(dsdb.KindUnavailable, "write failed: %w", err)
	}
	switch k := dsdb.KindOf(err); k {
	case dsdb.KindUnavailable, dsdb.KindCanceled, dsdb.KindTooLarge:
		return dsdb.Errorf(k, "write failed: %w", err)
	case dsdb.KindNotFound: // the shard was dropped while the write was on its way
		return dsdb.Errorf(dsdb.KindUnavailable, "write failed: %w", err)
	}
	return dsdb.Errorf(dsdb.KindInternal, "write failed: %w", err)
}
