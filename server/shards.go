package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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
	held    map[dsdb.ShardID]*replica
	index   uint64        // of the catalogue that reconcile last went by
	settled chan struct{} // closed when it does so next

	unopened map[dsdb.ShardID]error // why shards that it was to open are not
}

// replica is one replica of a shard on this node.
type replica struct {
	id    dsdb.ReplicaID
	dir   string
	shard *shard.Shard // nil: the replica is out of service, or a witness
	err   error        // why it is out of service
	watch *raftnode.Witness
	fresh bool // the log did not know it when it was opened
}

// machine is the state machine of a replica that is open, nil if it is not.
func (r *replica) machine() raftnode.StateMachine {
	switch {
	case r.shard != nil:
		return r.shard
	case r.watch != nil:
		return r.watch
	}
	return nil
}

func newShards(n *Node) *shards {
	return &shards{n: n, held: map[dsdb.ShardID]*replica{}, settled: make(chan struct{})}
}

// await returns when this node's replica of a shard is open, or is known not to
// be by what the catalogue says now: a write may just have had it created. It
// reports KindNotLeader if there is none, why if it is out of service, and
// KindUnavailable if ctx ends first: then nothing was asked of it.
func (s *shards) await(ctx context.Context, id dsdb.ShardID) error {
	now := s.n.meta.View().Index
	for {
		s.mu.RLock()
		r, index, err, settled := s.held[id], s.index, s.unopened[id], s.settled
		s.mu.RUnlock()
		if r != nil {
			return r.err
		}
		if err != nil {
			return err
		}
		if index >= now {
			return errNoReplica(id)
		}
		select {
		case <-settled:
		case <-ctx.Done():
			if ctx.Err() == context.Canceled {
				return context.Cause(ctx)
			}
			return dsdb.Errorf(dsdb.KindUnavailable, "the replica of shard %d on this node is not open yet%s", id, s.n.spaceLeft())
		}
	}
}

// errNoReplica is what a node says of a shard of which it has no replica, be it
// that it never had one: elsewhere there are some. Of a dropped shard see errShardDropped.
func errNoReplica(id dsdb.ShardID) error {
	return &dsdb.Error{Kind: dsdb.KindNotLeader, Text: fmt.Sprintf("there is no replica of shard %d here", id)}
}

// get returns an open shard. It reports KindNotLeader for one that is not, and
// why for one that is out of service.
func (s *shards) get(id dsdb.ShardID) (*shard.Shard, error) {
	sh, _, err := s.local(id)
	return sh, err
}

// local returns this node's replica of a shard, and which that is. It reports
// what get reports, and KindNotLeader of a witness.
func (s *shards) local(id dsdb.ShardID) (*shard.Shard, dsdb.ReplicaID, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.held[id]
	if r == nil {
		return nil, 0, errNoReplica(id)
	}
	if r.watch != nil {
		return nil, r.id, errWitness(id)
	}
	return r.shard, r.id, r.err
}

// unborn reports whether nobody can have stored anything in a shard yet: its
// only replica is to be made here, and is not open, or was just made and has
// nothing, nor has its log: that may have no space for a leader's first entry.
func (s *shards) unborn(sh meta.Shard) bool {
	if len(sh.Replicas) > 1 || sh.Origin != nil || sh.Replicas[0].Node != s.n.dataID {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.held[sh.ID]
	st := s.n.host.Status(sh.ID.Group())
	return r == nil || r.fresh && r.blank() && st.Last <= st.Applied
}

// blank reports whether nothing was ever stored in a replica.
func (r *replica) blank() bool {
	if r.shard == nil {
		return false
	}
	st := r.shard.Stats()
	return st.RowsApplied == 0 && st.FlushedIndex == 0
}

// list returns the open shards by id.
func (s *shards) list() []managedShard {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]managedShard, 0, len(s.held))
	for id, r := range s.held {
		if r.shard != nil {
			out = append(out, managedShard{id, r.shard})
		}
	}
	slices.SortFunc(out, func(a, b managedShard) int { return cmp.Compare(a.id, b.id) })
	return out
}

type managedShard struct {
	id dsdb.ShardID
	*shard.Shard
}

// folder returns where the files of a group's replica on this node lie.
func (s *shards) folder(id dsdb.ShardID) (string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if r := s.held[id]; r != nil && r.shard != nil {
		return r.dir, nil
	}
	return "", errNoReplica(id)
}

// reconcile opens the shards that the catalogue places on this node and that
// are not open, and removes those that are open and no longer in it. New ones
// are made durable together, in one write of the log.
func (s *shards) reconcile(ctx context.Context) error {
	view := s.n.meta.View()
	err := s.follow(ctx, view)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index = view.Index
	close(s.settled)
	s.settled = make(chan struct{})
	return err
}

// follow carries out what reconcile is to do. What fails for one shard does not
// keep it from being done for the others: removing them may make room.
func (s *shards) follow(ctx context.Context, view *meta.Data) error {
	s.mu.RLock()
	var gone []dsdb.ShardID
	for id, r := range s.held {
		if now, placed := s.placed(view, id); placed && now.ID != r.id || !placed && (view.ShardDropped(id) || r.id <= view.Counters.Replica) {
			gone = append(gone, id)
		}
	}
	s.mu.RUnlock()
	slices.Sort(gone)
	var first error
	for _, id := range gone {
		end := s.remove
		if ref, found := view.Shard(id); found && s.originates(ref.Shard) {
			end = s.release
		}
		first = cmp.Or(first, end(ctx, id))
	}
	return cmp.Or(first, s.start(ctx, s.missing(view)))
}

// placed returns the replica of a shard that the catalogue places on this node.
func (s *shards) placed(view *meta.Data, id dsdb.ShardID) (meta.Replica, bool) {
	ref, found := view.Shard(id)
	if !found {
		return meta.Replica{}, false
	}
	return ref.Shard.On(s.n.dataID)
}

// missing lists the shards of which this node is to hold a replica and has none.
func (s *shards) missing(view *meta.Data) []meta.ShardRef {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []meta.ShardRef
	for _, g := range view.Groups() {
		for _, sh := range g.Group.Shards {
			r, placed := sh.On(s.n.dataID)
			if placed && s.held[sh.ID] == nil && r.ID > s.n.wal.Removed(sh.ID.Group()) {
				out = append(out, meta.ShardRef{GroupRef: g, Shard: sh})
			}
		}
	}
	return out
}

// start opens the shards and their raft groups, all in one write of the log, and
// returns the first error. A shard for which there is one is left out, to be
// tried again; the others are there.
func (s *shards) start(ctx context.Context, refs []meta.ShardRef) error {
	began := time.Now()
	opened, unopened := make(map[dsdb.ShardID]*replica, len(refs)), map[dsdb.ShardID]error{}
	specs := make([]raftnode.GroupSpec, 0, len(refs))
	for _, ref := range refs {
		r, suspect, err := s.openSound(ctx, ref)
		if err != nil {
			unopened[ref.Shard.ID] = dsdb.Errorf(dsdb.KindUnavailable, "shard %d does not open: %w", ref.Shard.ID, err)
			continue
		}
		opened[ref.Shard.ID] = r
		if r.machine() != nil {
			spec := s.spec(ref.Shard, r)
			spec.Suspect = suspect
			specs = append(specs, spec)
		}
	}
	if err := s.run(ctx, specs); err != nil {
		for id, r := range opened {
			if r.machine() != nil && !s.runs(id) {
				unopened[id] = dsdb.Errorf(dsdb.KindUnavailable, "shard %d does not start: %w", id, err)
				r.discard()
				delete(opened, id)
			}
		}
	}
	s.mu.Lock()
	maps.Copy(s.held, opened)
	s.unopened = unopened
	s.mu.Unlock()
	if len(opened) > 0 {
		s.n.log.Debug("shards started", "count", len(opened), "duration", time.Since(began).Seconds())
	}
	for _, ref := range refs {
		if err := unopened[ref.Shard.ID]; err != nil {
			return err
		}
	}
	return nil
}

// run has raft run groups. An error means that some do not run. It does not end
// with ctx, for until raft has answered it is not known which of them do.
func (s *shards) run(ctx context.Context, specs []raftnode.GroupSpec) error {
	if len(specs) == 0 {
		return nil
	}
	return s.n.host.Start(context.WithoutCancel(ctx), specs)
}

// runs reports whether raft runs a replica of a shard here, be it out of service.
func (s *shards) runs(id dsdb.ShardID) bool { return s.n.host.Status(id.Group()).Replica != 0 }

// ready returns when the shards that are open have applied what their logs held,
// as far as they are in service. The error is that of ctx.
func (s *shards) ready(ctx context.Context) error {
	s.mu.RLock()
	var ids []dsdb.GroupID
	for id, r := range s.held {
		if r.machine() != nil {
			ids = append(ids, id.Group())
		}
	}
	s.mu.RUnlock()
	defer s.n.phase.sayWhile(s.n.log, func() string { return "the shards to be as their logs say" + s.n.spaceLeft() })()
	for _, id := range ids {
		err := s.n.host.Ready(ctx, []dsdb.GroupID{id})
		if err != nil && ctx.Err() == nil && dsdb.KindOf(err) != dsdb.KindNotLeader { // it has turned out to have several voters
			s.n.log.Error("a shard is out of service", "shard", uint64(id), "err", err)
		}
	}
	return ctx.Err()
}

// openSound is openReplica for a shard of which raft runs no replica here. It
// reports whether the log may have lost some of what it held.
func (s *shards) openSound(ctx context.Context, ref meta.ShardRef) (r *replica, suspect bool, err error) {
	if s.runs(ref.Shard.ID) {
		return nil, false, errors.New("raft runs a replica of it already")
	}
	if r, err = s.openReplica(ctx, ref); err != nil || r.machine() == nil {
		return r, false, err
	}
	_, known := s.n.wal.State(ref.Shard.ID.Group())
	r.fresh = !known
	if suspect, err = s.n.quarantined(ref.Shard.ID.Group(), r.id, r.dir); err != nil {
		r.discard()
	}
	return r, suspect, err
}

// discard closes a replica that nobody has used.
func (r *replica) discard() {
	if r.shard != nil {
		_ = r.shard.Close() // the error that matters is why it is not used
	}
}

// openReplica opens the files of the replica that the catalogue places here. One
// with damaged files, or files of a newer program, is kept out of service, and the
// others in it.
func (s *shards) openReplica(ctx context.Context, ref meta.ShardRef) (*replica, error) {
	placed, _ := ref.Shard.On(s.n.dataID)
	id := ref.Shard.ID
	r := &replica{id: placed.ID, dir: s.dir(ref.Shard, placed.ID)}
	o := shard.Options{FS: s.n.fs, Dir: r.dir, ID: id, Range: ref.Group.Range, Logger: s.n.log}
	var err error
	if founds(ref.Shard, placed.ID) {
		err = s.inherit(ctx, o, ref.Shard)
	} else if st, known := s.n.wal.State(id.Group()); known && st.Replica != placed.ID { // an earlier one, of which a crash left the log
		if err := s.n.host.Remove(ctx, id.Group()); err != nil {
			return nil, err
		}
	}
	if placed.Witness {
		return r, s.openWitness(r, id.Group())
	}
	var sh *shard.Shard
	if err == nil {
		sh, err = shard.Open(o)
	}
	if why, is := unfit(err); is {
		s.n.log.Error("a shard is out of service: "+why, "shard", id, "err", err)
		r.err = fmt.Errorf("shard %d is out of service: %w", id, err)
		return r, nil
	}
	r.shard = sh
	return r, err
}

// spec describes the raft group of a shard. A replica that came later joins it,
// empty, and gets what there is from the others.
func (s *shards) spec(sh meta.Shard, r *replica) raftnode.GroupSpec {
	spec := raftnode.GroupSpec{ID: sh.ID.Group(), Replica: r.id, Node: s.n.dataID, New: true, StateMachine: r.machine()}
	if founded(sh, r.id) {
		for _, f := range sh.Birth() {
			spec.Founders = append(spec.Founders, raftnode.Peer{Replica: f.ID, Node: f.Node, Witness: f.Witness})
		}
	}
	return spec
}

// founded reports whether a replica was there when its shard's group began.
func founded(sh meta.Shard, id dsdb.ReplicaID) bool {
	return slices.ContainsFunc(sh.Birth(), func(r meta.Replica) bool { return r.ID == id })
}

// dir returns the folder of a replica. No two replicas ever share one: that of a
// founder is named for the shard, that of one that came later for itself too.
func (s *shards) dir(sh meta.Shard, id dsdb.ReplicaID) string {
	name := strconv.FormatUint(uint64(sh.ID), 10)
	if !sh.Named(id) {
		name += "." + strconv.FormatUint(uint64(id), 10)
	}
	return path.Join(s.root(), name)
}

func (s *shards) root() string { return path.Join(s.n.cfg.Data.Dir, "shard") }

// remove ends a replica that has no place here any more and frees its disk.
func (s *shards) remove(ctx context.Context, id dsdb.ShardID) error {
	s.mu.Lock()
	r := s.held[id]
	delete(s.held, id)
	s.mu.Unlock()
	if err := s.n.host.Remove(ctx, id.Group()); err != nil {
		s.mu.Lock()
		s.held[id] = r // to be tried again
		s.mu.Unlock()
		return fmt.Errorf("remove shard %d: %w", id, err)
	}
	s.n.routes.fresh.Forget(id.Group())
	switch {
	case r.watch != nil:
	case r.shard == nil:
		s.n.log.Warn("a damaged shard was dropped", "shard", id)
	default:
		if err := r.shard.Close(); err != nil {
			s.n.log.Warn("closing a dropped shard", "shard", id, "err", err)
		}
	}
	if err := shard.Remove(s.n.fs, r.dir); err != nil {
		return fmt.Errorf("remove shard %d: %w", id, err)
	}
	return nil
}
