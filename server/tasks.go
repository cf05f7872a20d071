package server

import (
	"context"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/tasks"
)

// keepDeleted is how long the catalogue remembers a deleted time group.
const keepDeleted = time.Hour

// runTasks starts the node's loops; they end with ctx.
func (n *Node) runTasks(ctx context.Context) {
	n.spawn(func() { n.maintainer.Run(ctx) })
	n.spawn(func() { n.followCatalogue(ctx) })
	n.spawn(func() { n.handoff.run(ctx) })
	if c := n.cfg.AntiEntropy; c.Enabled && c.CheckInterval > 0 {
		n.spawn(func() { n.verifyShards(ctx, time.Duration(c.CheckInterval)) })
	}
	n.spawn(func() {
		tasks.Every(ctx, metaFlushEvery, n.log, "flushing the catalogue", func(context.Context, time.Time) error { return n.flushMeta() })
	})
	if c := n.cfg.Retention; c.Enabled && c.CheckInterval > 0 {
		n.spawn(func() { tasks.Every(ctx, time.Duration(c.CheckInterval), n.log, "retention", n.onLeader(n.expire)) })
	}
	if c := n.cfg.Precreation; c.Enabled && c.CheckInterval > 0 {
		n.spawn(func() {
			tasks.Every(ctx, time.Duration(c.CheckInterval), n.log, "shard pre-creation", n.onLeader(n.precreate))
		})
	}
	n.spawn(func() { tasks.Every(ctx, releaseEvery, n.log, "shortening the log", n.releaseLog) })
	n.spawn(func() { tasks.Every(ctx, reportFailedEvery, n.log, "reporting damaged replicas", n.reportFailed) })
	n.spawn(func() {
		tasks.Every(ctx, certificateEvery, n.log, "looking at certificates", func(_ context.Context, now time.Time) error { n.warnOfCertificates(now); return nil })
	})
}

// onLeader returns what does task, at a date, on the node that leads the meta group, so that
// a cluster does it once. Two leaders for a moment do no harm: the commands that
// it ends in are idempotent.
func (n *Node) onLeader(task func(context.Context, time.Time) error) func(context.Context, time.Time) error {
	return func(ctx context.Context, _ time.Time) error {
		if !n.host.Status(dsdb.MetaGroup).Leading {
			return nil
		}
		return task(ctx, n.opt.Wall())
	}
}

// followCatalogue opens and removes shards as the catalogue changes, and forgets
// what it knew of the groups of those that were dropped.
func (n *Node) followCatalogue(ctx context.Context) {
	for {
		changed := n.meta.Watch()
		if err := n.shards.reconcile(ctx); err != nil && ctx.Err() == nil {
			n.log.Error("following the catalogue failed; it will be tried again", "err", err)
			select {
			case <-time.After(time.Second):
				continue
			case <-ctx.Done():
				return
			}
		}
		there := func(g dsdb.GroupID) bool { return !n.dropped(g) }
		n.routes.leaders.Retain(there)
		n.routes.sequencer.Retain(there)
		n.routes.heard.retain(there)
		n.routes.fresh.Retain(there)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// expire deletes the time groups that no policy keeps and has the catalogue
// forget those deleted long ago.
func (n *Node) expire(ctx context.Context, now time.Time) error {
	view := n.meta.View()
	for _, g := range view.ExpiredGroups(now.UnixNano()) {
		c := &meta.DeleteShardGroup{Database: g.Database.Name, Policy: g.Policy.Name, ID: g.Group.ID, Now: now.UnixNano()}
		if err := n.command(ctx, c); err != nil {
			return err
		}
		n.log.Info("retention deleted a shard group", "database", c.Database, "policy", c.Policy, "range", g.Group.Range.String())
	}
	for _, db := range n.meta.View().Databases {
		for _, rp := range db.Policies {
			for _, g := range rp.Deleted {
				if now.UnixNano()-g.DeletedAt > int64(keepDeleted) {
					return n.command(ctx, &meta.PruneShardGroups{Before: now.Add(-keepDeleted).UnixNano()})
				}
			}
		}
	}
	return nil
}

// precreate makes the time group that follows the current one of each policy,
// if that ends soon and is in use.
func (n *Node) precreate(ctx context.Context, now time.Time) error {
	soon := now.Add(time.Duration(n.cfg.Precreation.AdvancePeriod)).UnixNano()
	for _, db := range n.meta.View().Databases {
		for _, rp := range db.Policies {
			if len(rp.ShardGroups) == 0 {
				continue
			}
			last := rp.ShardGroups[len(rp.ShardGroups)-1]
			if last.Range.End <= now.UnixNano() || last.Range.End > soon || last.Range.End > dsdb.MaxTime {
				continue
			}
			if err := n.command(ctx, n.newGroups(db.Name, rp, []int64{last.Range.End}, now.UnixNano())); err != nil {
				return err
			}
		}
	}
	return nil
}

// managed gives the Maintainer the node's shards and log.
type managed struct{ n *Node }

// Shards implements tasks.Store.
func (m managed) Shards() []tasks.ManagedShard {
	list := m.n.shards.list()
	out := make([]tasks.ManagedShard, len(list))
	for i, s := range list {
		out[i] = tasks.ManagedShard{ID: s.id, Shard: s.Shard}
	}
	return out
}

// Flushed implements tasks.Store.
func (m managed) Flushed(id dsdb.ShardID) { m.n.host.Flushed(id.Group()) }

// Changes implements tasks.Store.
func (m managed) Changes() uint64 { return m.n.host.Metrics().Applied.Load() }

// pinners is how many groups are asked to flush when the log is too long.
const pinners = 64

// LogBytes implements tasks.Store. The files of the log count for two thirds of
// what they take: with its spare ones and what is half empty it may be half as
// large again as it should. A shard with entries that it has flushed keeps the log
// for the sake of others: to flush it more would free nothing.
func (m managed) LogBytes() (int64, []dsdb.ShardID) {
	st := m.n.wal.Stats()
	var ids []dsdb.ShardID
	for _, g := range m.n.wal.Pinners(pinners) {
		if g == dsdb.MetaGroup {
			continue
		}
		first, _ := m.n.wal.Bounds(g)
		if sh, err := m.n.shards.get(dsdb.ShardID(g)); err == nil && sh.Stats().FlushedIndex < first {
			ids = append(ids, dsdb.ShardID(g))
		}
	}
	return max(st.UnflushedBytes, st.DiskBytes*2/3), ids
}
