package server

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/server/hints"
	"github.com/dasudian/dsdb/shard"
	"github.com/dasudian/dsdb/wal"
)

// handoff keeps the points of writes at consistency any that no leader took, as
// hints on this node's disk, and has couriers deliver them once there is one
// (courier.go).
type handoff struct {
	n      *Node
	cfg    config.HintedHandoff
	queue  *hints.Queue // nil: its files cannot be used
	wake   chan struct{}
	slots  chan struct{} // one for each attempt of a courier that is under way
	points handoffPoints

	mu    sync.Mutex
	lanes map[dsdb.ShardID]*handoffLane // of the shards that have hints
}

// handoffPoints counts what became of points, since the node was started.
type handoffPoints struct {
	stored, delivered, superseded, deleted, rejected, expired, dropped atomic.Uint64
	damaged                                                            atomic.Uint64 // hints
}

// handoffLane is what is known of the way to one shard.
type handoffLane struct {
	running bool          // a courier is under way
	tried   time.Time     // when the leader was not reached last; zero: it was
	reached chan struct{} // holds one when a write has reached it
}

// openHandoff opens the queue. If that fails the node goes without: hints that
// are there wait for somebody to look after them.
func (n *Node) openHandoff(id meta.Identity) error {
	c := n.cfg.HintedHandoff
	h := &handoff{n: n, cfg: c, wake: make(chan struct{}, 1), slots: make(chan struct{}, couriers), lanes: map[dsdb.ShardID]*handoffLane{}}
	n.handoff = h
	var o wal.Options
	if err := stamp(&o, id); err != nil {
		return err
	}
	q, err := hints.Open(hints.Options{FS: n.fs, Dir: c.Dir, MaxSize: int64(c.MaxSize), Cluster: o.ClusterID, Node: o.NodeUUID, Logger: n.log})
	if err != nil {
		n.log.Error("hints cannot be kept: writes at consistency any are answered as at quorum, and hints that wait are not delivered; mend the folder, or move it away, and start again",
			"dir", c.Dir, "err", err)
		return nil
	}
	h.queue = q
	n.onClose(q.Close)
	if s := q.Stats(); s.Hints > 0 {
		n.log.Info("hints wait to be delivered", "shards", s.Shards, "hints", s.Hints, "points", s.Points)
	}
	return nil
}

// takes reports whether points at consistency any may become hints.
func (h *handoff) takes() bool { return h.cfg.Enabled && h.queue != nil }

// handoffShare is the part of the write timeout after which a write at
// consistency any becomes a hint, and unlimitedShare that of none.
const (
	handoffShare   = 4
	unlimitedShare = 2500 * time.Millisecond
)

// bound ends ctx when a write at consistency any has looked for a leader for long
// enough: the client is to be answered before it gives up.
func (h *handoff) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	share := time.Duration(h.n.cfg.Coordinator.WriteTimeout) / handoffShare
	if share <= 0 {
		share = unlimitedShare
	}
	return context.WithTimeout(ctx, share)
}

// proposeOrHint has one shard apply its part, or keeps that as a hint if no
// leader takes it in time, or if it is not known whether one did: then the hint
// changes nothing or what the write would have. What deletes came before the
// write is settled before it begins.
func (w *write) proposeOrHint(ctx context.Context, p part) error {
	h, since := w.n.handoff, w.n.committed(p.shard.Group())
	cause := error(dsdb.Errorf(dsdb.KindUnavailable, "there is no leader of raft group %d", p.shard.Group()))
	if !h.waits(p.shard) {
		attempt, cancel := h.bound(ctx)
		defer cancel()
		if cause = w.proposePart(attempt, p); cause == nil {
			h.reached(p.shard)
			return nil
		}
		if !hintable(cause) || errors.Is(ctx.Err(), context.Canceled) {
			return writeFailed(cause)
		}
	}
	if err := h.keep(w, p, since); err != nil {
		cause = writeFailed(cause)
		return &dsdb.Error{Kind: dsdb.KindOf(cause), Text: cause.Error() + "; " + err.Error(), Err: cause}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hinted = true
	return nil
}

// hintable reports whether a write failed for lack of a leader, or of space there.
func hintable(err error) bool {
	switch dsdb.KindOf(err) {
	case dsdb.KindUnavailable, dsdb.KindNotLeader, dsdb.KindTimeout:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || vfs.NoSpace(err)
}

// keep makes points hints, several if they are many.
func (h *handoff) keep(w *write, p part, since uint64) error {
	if err := h.add(w, p.shard, p.batch, since); err != nil {
		return err
	}
	if h.missed(p.shard) {
		h.n.log.Warn("no leader takes the points of a shard: those written at consistency any wait on this node",
			"shard", uint64(p.shard), "database", w.database, "policy", w.policy.Name)
	}
	h.signal()
	return nil
}

// add makes a batch a hint, or piece by piece several if that is too large.
func (h *handoff) add(w *write, id dsdb.ShardID, b *column.WriteBatch, since uint64) error {
	data := shard.AppendHint(nil, since, b)
	parts := pieces(b, len(data))
	if len(parts) > 1 {
		for _, part := range parts {
			if err := h.add(w, id, part, since); err != nil {
				return err
			}
		}
		return nil
	}
	if len(data) > hints.MaxData {
		w.rejectLarge(b, len(data))
		return nil
	}
	err := h.queue.Add(hints.Hint{Shard: id, Made: h.n.opt.Wall().UnixMilli(), Database: w.database, Policy: w.policy.Name,
		Points: b.Rows(), Data: data})
	if err == nil {
		h.points.stored.Add(uint64(b.Rows()))
	}
	return err
}

// missed notes that the leader of a shard was not reached, and reports whether
// no hints waited for it before.
func (h *handoff) missed(id dsdb.ShardID) (first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first = h.lanes[id] == nil
	h.lane(id).tried = time.Now()
	return first
}

// lane returns the lane of a shard and makes it if need be. mu is held.
func (h *handoff) lane(id dsdb.ShardID) *handoffLane {
	l := h.lanes[id]
	if l == nil {
		l = &handoffLane{reached: make(chan struct{}, 1)}
		h.lanes[id] = l
	}
	return l
}

// waits reports whether a write should not look for a leader, since hints wait
// for one and it was not reached a moment ago. One write at a time looks again.
func (h *handoff) waits(id dsdb.ShardID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lanes[id]
	if l == nil || l.tried.IsZero() {
		return false
	}
	if time.Since(l.tried) < time.Duration(h.cfg.RetryInterval) {
		return true
	}
	l.tried = time.Now()
	return false
}

// reached notes that a write has reached the leader of a shard.
func (h *handoff) reached(id dsdb.ShardID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lanes[id]
	if l == nil || l.tried.IsZero() {
		return
	}
	l.tried = time.Time{}
	select {
	case l.reached <- struct{}{}:
	default:
	}
}

// signal has the hints looked through for shards without a courier.
func (h *handoff) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// heard is the greatest index of each raft group that other nodes told this one
// is committed.
type heard struct {
	mu     sync.Mutex
	groups map[dsdb.GroupID]uint64
}

func (h *heard) note(g dsdb.GroupID, index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.groups[g] = max(h.groups[g], index)
}

// retain forgets the groups that keep does not want.
func (h *heard) retain(keep func(dsdb.GroupID) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.groups, func(g dsdb.GroupID, _ uint64) bool { return !keep(g) })
}

// committed returns an index that is known to be committed in a raft group.
func (n *Node) committed(g dsdb.GroupID) uint64 {
	h := &n.routes.heard
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(h.groups[g], n.host.Status(g).Commit)
}
