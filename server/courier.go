package server

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/server/hints"
	"github.com/dasudian/dsdb/shard"
)

// couriers is how many shards are tried at the same time.
const couriers = 32

// run has each shard with hints looked after by a courier, until ctx ends.
func (h *handoff) run(ctx context.Context) {
	if h.queue == nil {
		return
	}
	look := time.NewTicker(time.Duration(h.cfg.RetryMaxInterval)) // what was found late, nobody signals
	defer look.Stop()
	for {
		for _, id := range h.queue.Shards() {
			h.mu.Lock()
			l := h.lane(id)
			idle := !l.running
			l.running = true
			h.mu.Unlock()
			if idle {
				h.n.spawn(func() { h.courier(ctx, id, l) })
			}
		}
		select {
		case <-h.wake:
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// courier delivers the hints of one shard in their order, and ends when there are
// none. While no leader takes them it tries again now and then, and at once when
// one is elected or a write has reached it.
func (h *handoff) courier(ctx context.Context, id dsdb.ShardID, l *handoffLane) {
	defer h.signal() // hints may have come when it had looked for the last time
	tally := &tally{h: h, shard: id}
	pause := time.Duration(h.cfg.RetryInterval)
	for ctx.Err() == nil {
		elected := h.n.host.Elected(id.Group())
		b, ok, err := h.queue.Next(id)
		if !ok {
			break
		}
		if err == nil {
			err = h.deliver(ctx, b, tally)
		}
		if err == nil {
			pause = time.Duration(h.cfg.RetryInterval)
			h.reached(id)
			continue
		}
		if ctx.Err() != nil {
			break
		}
		tally.tell()
		h.n.log.Info("hints wait for the leader of their shard", "shard", uint64(id), "again in", pause.String(), "err", err)
		h.rest(ctx, l, pause, elected)
		pause = min(2*pause, time.Duration(h.cfg.RetryMaxInterval))
	}
	tally.tell()
	h.mu.Lock()
	defer h.mu.Unlock()
	l.running = false
	if h.lanes[id] == l {
		delete(h.lanes, id)
	}
}

// rest waits until it is worth trying again.
func (h *handoff) rest(ctx context.Context, l *handoffLane, d time.Duration, elected <-chan struct{}) {
	h.mu.Lock()
	l.tried = time.Now()
	h.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-elected:
	case <-l.reached:
	case <-ctx.Done():
	}
}

// deliver proposes what is to be delivered of a batch. If it returns nil the
// batch is done.
func (h *handoff) deliver(ctx context.Context, b hints.Batch, t *tally) error {
	g := b.Shard.Group()
	if h.n.dropped(g) {
		t.count(points(b.Hints), &t.dropped, &h.points.dropped)
		h.done(b, t)
		return nil
	}
	fresh := h.fresh(b.Hints)
	if len(fresh) > 0 {
		v, err := h.propose(ctx, g, fresh)
		if err != nil {
			return err
		}
		if err := t.delivery(fresh, v); err != nil {
			return err
		}
	}
	t.count(points(b.Hints[:len(b.Hints)-len(fresh)]), &t.expired, &h.points.expired)
	h.done(b, t)
	return h.pace(ctx, fresh)
}

// fresh returns the hints that are not too old.
func (h *handoff) fresh(hs []hints.Hint) []hints.Hint {
	oldest := h.n.opt.Wall().Add(-time.Duration(h.cfg.MaxAge)).UnixMilli()
	for h.cfg.MaxAge > 0 && len(hs) > 0 && hs[0].Made < oldest {
		hs = hs[1:]
	}
	return hs
}

// unsettled is how often an attempt of unknown outcome is made again at once: as
// the same proposal, so that it has one effect.
const unsettled = 5

// propose has the shard apply hints, if need be prepared anew.
func (h *handoff) propose(ctx context.Context, g dsdb.GroupID, hs []hints.Hint) (dsdb.Verdict, error) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return dsdb.Verdict{}, ctx.Err()
	}
	p := preparedHints{data: make([][]byte, len(hs))}
	for i := range hs {
		p.data[i] = hs[i].Data
	}
	v, err := h.proposeAs(ctx, g, &p)
	if err != nil || !shard.Refused(v) {
		return v, err
	}
	if p, err = h.prepareAnew(ctx, hs); err != nil {
		return v, err
	}
	if v, err = h.proposeAs(ctx, g, &p); err == nil && shard.Refused(v) {
		err = errRefused
	}
	if v.Rejected += p.rejected; v.Reason == "" {
		v.Reason = p.reason
	}
	return v, err
}

// preparedHints is hints as they are proposed.
type preparedHints struct {
	data     [][]byte
	prepared uint64 // by which index of the catalogue; 0: when they were made
	rejected int    // points that are left out
	reason   string // why the first is
}

// prepareAnew has the fields of hints registered once more, as of writes. Points
// that contradict types which others have fixed since are left out.
func (h *handoff) prepareAnew(ctx context.Context, hs []hints.Hint) (p preparedHints, err error) {
	ctx, cancel := h.n.bound(ctx)
	defer cancel()
	if err := h.n.readIndex(ctx, dsdb.MetaGroup); err != nil {
		return p, err
	}
	for i := range hs {
		since, b, err := shard.DecodeHint(hs[i].Data)
		if err != nil {
			return p, err
		}
		view := h.n.meta.View()
		ref, found := view.Shard(hs[i].Shard)
		if !found {
			return p, errShardDropped(hs[i].Shard.Group())
		}
		w := &write{n: h.n, database: ref.Database.Name, view: view, policy: ref.Policy, batch: b}
		if err := w.ensureFields(ctx); err != nil {
			return p, err
		}
		if i == 0 { // the catalogue of the others is no older
			p.prepared = w.view.Index
		}
		if p.rejected += w.rejected; p.reason == "" {
			p.reason = w.reason
		}
		p.data = append(p.data, shard.AppendHint(nil, since, w.batch))
	}
	return p, nil
}

// proposeAs proposes hints, an outcome that is not known as the same proposal again.
func (h *handoff) proposeAs(ctx context.Context, g dsdb.GroupID, hs *preparedHints) (dsdb.Verdict, error) {
	id, err := h.n.takeID(ctx, g)
	if err != nil {
		return dsdb.Verdict{}, err
	}
	defer h.n.routes.sequencer.Release(g, id)
	p := &proposalCall{group: g, points: true, payload: shard.AppendHints(nil, id, hs.prepared, hs.data)}
	var o outcome
	for range unsettled {
		if o, err = h.attempt(ctx, p); dsdb.KindOf(err) != dsdb.KindTimeout {
			break
		}
	}
	return o.Verdict, err
}

func (h *handoff) attempt(ctx context.Context, p *proposalCall) (outcome, error) {
	ctx, cancel := h.n.bound(ctx)
	defer cancel()
	return h.n.proposeAs(ctx, p)
}

// done forgets a batch.
func (h *handoff) done(b hints.Batch, t *tally) {
	h.queue.Done(b)
	if b.Lost > 0 {
		h.points.damaged.Add(uint64(b.Lost))
		h.n.log.Error("hints were damaged and cannot be delivered", "shard", uint64(b.Shard), "hints", b.Lost, "first", b.Damage.Error())
	}
	if len(b.Hints) > 0 {
		t.database, t.policy = b.Hints[0].Database, b.Hints[0].Policy
	}
}

// pace keeps to retry-rate-limit.
func (h *handoff) pace(ctx context.Context, hs []hints.Hint) error {
	size, limit := 0, float64(h.cfg.RetryRateLimit)
	for i := range hs {
		size += len(hs[i].Data)
	}
	if limit == 0 || size == 0 {
		return nil
	}
	return pauseFor(ctx, time.Duration(float64(size)/limit*float64(time.Second)))
}

// tally counts what became of the points of a shard, for the log.
type tally struct {
	h                *handoff
	shard            dsdb.ShardID
	database, policy string

	delivered, superseded, deleted, rejected, expired, dropped uint64
	reason                                                     string // why some were rejected
}

func (t *tally) count(n uint64, mine *uint64, all *atomic.Uint64) {
	*mine += n
	all.Add(n)
}

func points(hs []hints.Hint) (n uint64) {
	for i := range hs {
		n += uint64(hs[i].Points)
	}
	return n
}

// delivery counts hints that were applied.
func (t *tally) delivery(hs []hints.Hint, v dsdb.Verdict) error {
	superseded, deleted, err := shard.Delivered(v)
	if err != nil {
		return err
	}
	all := &t.h.points
	t.count(uint64(superseded), &t.superseded, &all.superseded)
	t.count(uint64(deleted), &t.deleted, &all.deleted)
	t.count(uint64(v.Rejected), &t.rejected, &all.rejected)
	t.count(points(hs)-uint64(superseded+deleted+v.Rejected), &t.delivered, &all.delivered)
	if v.Rejected > 0 && t.reason == "" {
		t.reason = v.Reason
	}
	return nil
}

// tell logs the counts since the last time. Points that are given up were
// acknowledged: that is said loudly.
func (t *tally) tell() {
	log := t.h.n.log.With("shard", uint64(t.shard), "database", t.database, "policy", t.policy)
	if t.delivered+t.superseded+t.deleted > 0 {
		log.Info("hints were delivered", "points", t.delivered, "superseded", t.superseded, "deleted meanwhile", t.deleted)
	}
	if t.rejected > 0 {
		log.Error("points that were acknowledged at consistency any were rejected by their shard", "points", t.rejected, "first", t.reason)
	}
	if t.expired > 0 {
		log.Error("points that were acknowledged at consistency any are given up: no leader took them within max-age", "points", t.expired)
	}
	if t.dropped > 0 {
		log.Warn("points that were acknowledged at consistency any are given up: their shard was dropped meanwhile", "points", t.dropped)
	}
	*t = tally{h: t.h, shard: t.shard}
}
