package server

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/shard"
)

// shards are the replicas of shards that this node holds. reconcile keeps them
// in step with the catalogue; one goroutine calls it, so that no request that
// gives up leaves a shard half opened.
type shards struct {
	n *Node

	mu      sync.RWMutex // guards what follows; never held over I/O
	open    map[dsdb.ShardID]*shard.Shard
	damaged map[dsdb.ShardID]error // whose files are not as they were written: out of service until they are dropped
	index   uint64                 // of the catalogue that reconcile last went by
	err     error                  // how that ended
	settled chan struct{}          // closed when it ends next
}

func newShards(n *Node) *shards {
	return &shards{n: n, open: map[dsdb.ShardID]*shard.Shard{}, damaged: map[dsdb.ShardID]error{}, settled: make(chan struct{})}
}

// await returns when the shards of a write are open, or are known not to be
// by what the catalogue says now: another write may just have had them created.
func (s *shards) await(ctx context.Context, parts []part) error {
	now := s.n.meta.View().Index
	for {
		s.mu.RLock()
		missing := slices.ContainsFunc(parts, func(p part) bool { return s.open[p.shard] == nil })
		damaged := s.damagedLocked(parts)
		index, err, settled := s.index, s.err, s.settled
		s.mu.RUnlock()
		if damaged != nil || !missing {
			return damaged
		}
		if index >= now {
			return err
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// damagedLocked returns why one of the parts cannot be written. s.mu is held.
func (s *shards) damagedLocked(parts []part) error {
	if len(s.damaged) > 0 {
		for _, p := range parts {
			if err := s.damaged[p.shard]; err != nil {
				return err
			}
		}
	}
	return nil
}

// get returns an open shard. It reports KindNotFound for one that is not, and
// KindCorrupt for one whose files are damaged.
func (s *shards) get(id dsdb.ShardID) (*shard.Shard, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if sh := s.open[id]; sh != nil {
		return sh, nil
	}
	if err := s.damaged[id]; err != nil {
		return nil, err
	}
	return nil, dsdb.Errorf(dsdb.KindNotFound, "shard not found: %d", id)
}

// list returns the open shards by id.
func (s *shards) list() []managedShard {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]managedShard, 0, len(s.open))
	for id, sh := range s.open {
		out = append(out, managedShard{id, sh})
	}
	slices.SortFunc(out, func(a, b managedShard) int { return int(a.id) - int(b.id) })
	return out
}

type managedShard struct {
	id dsdb.ShardID
	*shard.Shard
}

// reconcile opens the shards that the catalogue places on this node and that
// are not open, and removes those that are open and no longer in it. New ones
// are made durable together, in one write of the log.
func (s *shards) reconcile(ctx context.Context) error {
	view := s.n.meta.View()
	err := s.follow(ctx, view)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index, s.err = view.Index, err
	close(s.settled)
	s.settled = make(chan struct{})
	return err
}

// follow carries out what reconcile is to do.
func (s *shards) follow(ctx context.Context, view *meta.Data) error {
	wanted := s.wanted(view)
	s.mu.RLock()
	var missing []meta.ShardRef
	for _, ref := range wanted {
		if s.open[ref.Shard.ID] == nil && s.damaged[ref.Shard.ID] == nil {
			missing = append(missing, ref)
		}
	}
	var gone []dsdb.ShardID
	for id := range s.open {
		if view.ShardDropped(id) {
			gone = append(gone, id)
		}
	}
	for id := range s.damaged {
		if view.ShardDropped(id) {
			gone = append(gone, id)
		}
	}
	s.mu.RUnlock()
	slices.Sort(gone)
	for _, id := range gone {
		if err := s.remove(ctx, id); err != nil {
			return err
		}
	}
	return s.start(ctx, missing)
}

// wanted lists the shards of which this node is to hold a replica.
func (s *shards) wanted(view *meta.Data) []meta.ShardRef {
	var out []meta.ShardRef
	for _, g := range view.Groups() {
		for _, sh := range g.Group.Shards {
			if s.replica(sh) != 0 {
				out = append(out, meta.ShardRef{GroupRef: g, Shard: sh})
			}
		}
	}
	return out
}

// replica returns the id of this node's replica of a shard, 0 if it has none.
func (s *shards) replica(sh meta.Shard) dsdb.ReplicaID {
	for _, r := range sh.Replicas {
		if r.Node == s.n.dataID {
			return r.ID
		}
	}
	return 0
}

func (s *shards) dir(id dsdb.ShardID) string {
	return path.Join(s.n.cfg.Data.Dir, "shard", strconv.FormatUint(uint64(id), 10))
}

// start opens the shards and their raft groups, all in one write of the log.
func (s *shards) start(ctx context.Context, refs []meta.ShardRef) error {
	if len(refs) == 0 {
		return nil
	}
	began := time.Now()
	specs := make([]raftnode.GroupSpec, 0, len(refs))
	opened := make(map[dsdb.ShardID]*shard.Shard, len(refs))
	fail := func(err error) error {
		for _, sh := range opened {
			_ = sh.Close() // the error that matters is the first one
		}
		return err
	}
	for _, ref := range refs {
		sh, err := shard.Open(shard.Options{FS: s.n.fs, Dir: s.dir(ref.Shard.ID), ID: ref.Shard.ID, Range: ref.Group.Range, Logger: s.n.log})
		if dsdb.KindOf(err) == dsdb.KindCorrupt {
			s.exclude(ref.Shard.ID, err)
			continue
		}
		if err != nil {
			return fail(fmt.Errorf("open shard %d: %w", ref.Shard.ID, err))
		}
		opened[ref.Shard.ID] = sh
		spec := s.spec(ref.Shard, sh)
		if spec.Suspect, err = s.n.quarantined(spec.ID, s.dir(ref.Shard.ID)); err != nil {
			return fail(err)
		}
		specs = append(specs, spec)
	}
	if err := s.n.host.Start(ctx, specs); err != nil {
		return fail(fmt.Errorf("start %d shards: %w", len(specs), err))
	}
	ids := make([]dsdb.GroupID, len(specs))
	for i, spec := range specs {
		ids[i] = spec.ID
	}
	if err := s.n.host.Ready(ctx, ids); err != nil {
		s.n.log.Error("a shard is out of service", "err", err)
	}
	s.mu.Lock()
	for id, sh := range opened {
		s.open[id] = sh
	}
	s.mu.Unlock()
	s.n.log.Debug("shards started", "count", len(refs), "duration", time.Since(began).Seconds())
	return nil
}

// exclude keeps a shard with damaged files out of service, and the others in it.
func (s *shards) exclude(id dsdb.ShardID, err error) {
	s.n.log.Error("a shard is out of service: its files are damaged", "shard", id, "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged[id] = fmt.Errorf("shard %d is out of service: %w", id, err)
}

// spec describes the raft group of a shard.
func (s *shards) spec(sh meta.Shard, machine raftnode.StateMachine) raftnode.GroupSpec {
	spec := raftnode.GroupSpec{ID: sh.ID.Group(), Replica: s.replica(sh), Node: s.n.dataID, New: true, StateMachine: machine}
	for _, r := range sh.Replicas {
		spec.Founders = append(spec.Founders, raftnode.Peer{Replica: r.ID, Node: r.Node})
	}
	return spec
}

// remove ends a dropped shard and frees its disk.
func (s *shards) remove(ctx context.Context, id dsdb.ShardID) error {
	s.mu.Lock()
	sh := s.open[id]
	delete(s.open, id)
	delete(s.damaged, id)
	s.mu.Unlock()
	if err := s.n.host.Remove(ctx, id.Group()); err != nil {
		return fmt.Errorf("remove shard %d: %w", id, err)
	}
	if sh == nil {
		s.n.log.Warn("a damaged shard was dropped", "shard", id)
	} else if err := sh.Close(); err != nil {
		s.n.log.Warn("closing a dropped shard", "shard", id, "err", err)
	}
	if err := shard.Remove(s.n.fs, s.dir(id)); err != nil {
		return fmt.Errorf("remove shard %d: %w", id, err)
	}
	return nil
}

// sweep removes the folders of shards that the catalogue had once: those whose
// removal a crash cut short. A shard that it has not given out yet shows that
// the catalogue is an old one: its next shards would find the points of others.
func (s *shards) sweep(view *meta.Data) error {
	root := path.Join(s.n.cfg.Data.Dir, "shard")
	names, err := s.n.fs.List(root)
	if err != nil {
		return err
	}
	for _, name := range names {
		id, err := strconv.ParseUint(name, 10, 64)
		if err == nil && dsdb.ShardID(id) > view.Counters.Shard {
			return dsdb.Errorf(dsdb.KindCorrupt, "%s holds shard %d, but the catalogue has given out %d only: later changes of the catalogue are lost with the log in %s; restore the node's folders from a copy",
				root, id, view.Counters.Shard, s.n.cfg.Data.WALDir)
		}
		if err != nil || !view.ShardDropped(dsdb.ShardID(id)) {
			continue
		}
		if err := shard.Remove(s.n.fs, path.Join(root, name)); err != nil {
			return err
		}
		s.n.log.Info("removed the files of a dropped shard", "shard", id)
	}
	return nil
}

// forget erases from the log the groups of shards that the catalogue had once:
// what a crash left of them would keep the log from shrinking.
func (s *shards) forget(ctx context.Context, view *meta.Data) error {
	for _, g := range s.n.wal.Groups() {
		if g == dsdb.MetaGroup || !view.ShardDropped(dsdb.ShardID(g)) {
			continue
		}
		if err := s.n.host.Remove(ctx, g); err != nil {
			return fmt.Errorf("forget raft group %d: %w", g, err)
		}
	}
	return nil
}

func (s *shards) close() {
	for _, sh := range s.list() {
		if err := sh.Close(); err != nil {
			s.n.log.Warn("closing a shard", "shard", sh.id, "err", err)
		}
	}
}
