package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/httpd"
)

// proposalsPerWrite is how many shards of one write are proposed at a time: a
// write over a thousand time groups then shares syncs of the log.
const proposalsPerWrite = 64

// Write stores the points of a request: it makes sure that their time groups
// and field types are in the catalogue, splits the batch by shard, and proposes
// each part to its raft group, wherever that is. It returns nil when all points
// are durable on a quorum of the replicas (on all with consistency level all), or
// with level any, if r.Hinted, some on this node only. A KindConflict error means
// that some were refused and the others are stored.
func (n *Node) Write(ctx context.Context, r *httpd.WriteRequest) error {
	if err := n.admit(); err != nil {
		return err
	}
	view, rp, err := n.policy(ctx, r.Database, r.Policy)
	if err != nil {
		return err
	}
	w := &write{n: n, database: r.Database, view: view, policy: rp, batch: r.Batch, matched: r.Consistency == "all", any: r.Consistency == "any" && n.handoff.takes(),
		outcomes: outcomes{rejected: r.Refused, reason: r.Reason}}
	w.dropLong()
	if err = w.prepare(ctx); err != nil {
		return w.homeless(err)
	}
	err = w.propose(ctx)
	r.Hinted = w.hinted
	if err != nil {
		return err
	}
	return w.result()
}

// policy finds where a write goes, and by which catalogue. What this node's copy of the catalogue does
// not have may be new: that it is nowhere is said only once the copy is known to
// be up to date. The error quotes the database's name, as /write always did and
// Telegraf expects.
func (n *Node) policy(ctx context.Context, database, name string) (*meta.Data, *meta.RetentionPolicy, error) {
	view := n.meta.View()
	rp, err := view.Policy(database, name)
	if err == nil {
		return view, rp, nil
	}
	if err := n.readIndex(ctx, dsdb.MetaGroup); err != nil {
		return nil, nil, unprepared("the catalogue cannot be read", n.withoutQuorum(err))
	}
	view = n.meta.View()
	if view.Database(database) == nil {
		return nil, nil, dsdb.Errorf(dsdb.KindNotFound, "database not found: %q", database)
	}
	rp, err = view.Policy(database, name)
	return view, rp, err
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
	view     *meta.Data            // the catalogue by which it is prepared
	policy   *meta.RetentionPolicy // of view
	batch    *column.WriteBatch
	matched  bool // every voter must have the points
	any      bool // they may become hints
	refused  bool // a shard has refused them below its fence
	outcomes
}

// outcomes collects what the shards say, in parallel.
type outcomes struct {
	mu       sync.Mutex // guards what follows
	rejected int
	reason   string
	short    *outcome // the first that not every voter has, though it should
	hinted   bool     // some points became hints
}

func (o *outcomes) reject(rows int, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rejected == 0 {
		o.reason = reason
	}
	o.rejected += rows
}

// merge adds what became of a part.
func (o *outcomes) merge(part *outcomes) {
	if part.rejected > 0 {
		o.reject(part.rejected, part.reason)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hinted = o.hinted || part.hinted
	if o.short == nil {
		o.short = part.short
	}
}

func (o *outcomes) add(one *outcome) {
	if one.Rejected > 0 {
		o.reject(one.Rejected, one.Reason)
	}
	if one.have < one.voters {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.short == nil {
			o.short = one
		}
	}
}

// result words the points that were refused as InfluxDB does. That a committed
// write is not on all replicas must not sound like it: clients would drop it.
func (o *outcomes) result() error {
	if o.short != nil {
		return dsdb.Errorf(dsdb.KindUnavailable, "write failed: partial: committed on %d of %d replicas, not on all", o.short.have, o.short.voters)
	}
	if o.rejected == 0 {
		return nil
	}
	return dsdb.Errorf(dsdb.KindConflict, "partial write: %s dropped=%d", o.reason, o.rejected)
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

// propose sends every shard its part and waits until all have answered.
func (w *write) propose(ctx context.Context) error {
	parts := w.split()
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
	return together(errs)
}

// together returns what is to be said of a write of several parts: of one whose
// outcome is not known, if there is such, else of the first that failed, and
// that others are stored.
func together(errs []error) error {
	var first error
	stored := false
	for _, err := range errs {
		switch {
		case err == nil:
			stored = true
		case dsdb.KindOf(err) == dsdb.KindTimeout:
			return err
		case first == nil:
			first = err
		}
	}
	if first == nil || !stored {
		return first
	}
	return partStored(first)
}

// partStored adds to the error of a write that some of its points are stored.
func partStored(err error) error {
	const more = "; other points of the write are stored"
	if strings.HasSuffix(err.Error(), more) {
		return err
	}
	return &dsdb.Error{Kind: dsdb.KindOf(err), Text: err.Error() + more, Err: err}
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

// proposeTo has one shard apply its part. If the shard was dropped meanwhile the
// part goes where the catalogue has these points now.
func (w *write) proposeTo(ctx context.Context, p part) (err error) {
	if w.any {
		err = w.proposeOrHint(ctx, p)
	} else if err = w.proposePart(ctx, p); err != nil {
		err = writeFailed(err)
	}
	if err != nil && shardDropped(err) {
		return w.redirect(ctx, p, err)
	}
	return err
}

// shardDropped reports whether a write failed since its shard is no more.
func shardDropped(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if dsdb.KindOf(err) == dsdb.KindNotFound {
			return true
		}
	}
	return false
}

// redirect writes a part anew by a catalogue that has caught up: the one by which
// it was split was behind, for its shard was dropped, as cause says.
func (w *write) redirect(ctx context.Context, p part, cause error) error {
	ctx, cancel := w.n.bound(ctx)
	defer cancel()
	next, err := w.anew(ctx, p.batch)
	if err != nil {
		return err
	}
	if _, there := next.view.Shard(p.shard); there {
		return cause
	}
	return w.follow(ctx, next)
}

// anew returns a write of some of the rows by a catalogue that has caught up.
func (w *write) anew(ctx context.Context, b *column.WriteBatch) (*write, error) {
	if err := w.n.readIndex(ctx, dsdb.MetaGroup); err != nil {
		return nil, unprepared("the catalogue cannot be read", w.n.withoutQuorum(err))
	}
	view := w.n.meta.View()
	rp, err := view.Policy(w.database, w.policy.Name)
	if err != nil {
		return nil, err
	}
	return &write{n: w.n, database: w.database, view: view, policy: rp, batch: b, matched: w.matched, any: w.any}, nil
}

// follow carries out a write of rows of w in its place.
func (w *write) follow(ctx context.Context, next *write) error {
	if err := next.prepare(ctx); err != nil {
		return next.homeless(err)
	}
	err := next.propose(ctx)
	w.merge(&next.outcomes)
	return err
}

// homeless adds to an error about time groups or fields that cannot be made why
// the points do not become hints: nobody could tell where they belong.
func (w *write) homeless(err error) error {
	switch kind := dsdb.KindOf(err); {
	case w.any && (kind == dsdb.KindUnavailable || kind == dsdb.KindTimeout):
		return &dsdb.Error{Kind: kind, Err: err, Text: err.Error() +
			"; consistency any keeps points only of time groups and fields that exist: to make new ones takes a quorum of meta nodes"}
	}
	return err
}

// writeFailed words an error so that clients keep the points and try again:
// "timeout: …" if the write may have succeeded, "write failed: …" if it certainly
// has not, both 503 (compatibility table of Telegraf).
func writeFailed(err error) error {
	kind := dsdb.KindOf(err)
	switch {
	case kind == dsdb.KindTimeout, kind == dsdb.KindInternal && errors.Is(err, context.DeadlineExceeded):
		return &dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout: the write may have succeeded" + whyUnknown(err), Err: err}
	case kind == dsdb.KindInternal && vfs.NoSpace(err):
		kind = dsdb.KindUnavailable
	case kind == dsdb.KindNotFound, kind == dsdb.KindNotLeader: // the shard was dropped while the write was on its way
		kind = dsdb.KindUnavailable
	case kind != dsdb.KindUnavailable && kind != dsdb.KindCanceled && kind != dsdb.KindTooLarge:
		kind = dsdb.KindInternal
	}
	return &dsdb.Error{Kind: kind, Text: "write failed: " + strings.TrimPrefix(err.Error(), "write failed: "), Err: err}
}

// whyUnknown returns, in brackets, what an error says beside that an outcome is
// not known, "" if nothing.
func whyUnknown(err error) string {
	for ; err != nil; err = errors.Unwrap(err) {
		text := err.Error()
		for _, known := range []string{"timeout", ": ", "the outcome is unknown: ", "write failed: "} {
			text = strings.TrimPrefix(text, known)
		}
		switch err {
		case context.DeadlineExceeded, context.Canceled: // which says no more
			return ""
		}
		if text != "" {
			return " (" + text + ")"
		}
	}
	return ""
}

// unprepared words why it is not known where a write belongs, or what types its
// fields have: nothing of it is stored, whatever has become of the catalogue.
func unprepared(why string, err error) error {
	return &dsdb.Error{Kind: dsdb.KindUnavailable, Text: "write failed: " + why + ": " + err.Error(), Err: err}
}
