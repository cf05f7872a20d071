package raftnode

import (
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/wal"
)

// A prepared snapshot is kept for readyTicks, so that several replicas can be
// sent the same. A transfer of which nothing is heard for flightTicks has failed.
const (
	readyTicks  = uint64(10 * time.Second / TickEvery)
	flightTicks = uint64(180 * time.Second / TickEvery)
)

// sending is what a leader does for replicas that need entries which its log
// has forgotten.
type sending struct {
	wanted    bool    // raft asked for a snapshot
	preparing bool    // one is being prepared
	ready     *pinned // one that raft may have, nil if there is none
	flights   []*flight
	setbacks  []setback
}

// setback is a replica to which snapshots did not get, lately. The first time raft
// is told at once, so that it sends another; from then on later each time.
type setback struct {
	to    uint64
	times int
	due   uint64 // tick at which raft is told; 0: it was
}

// maxSetback is the longest that raft is not told: a receiver without room for a
// snapshot is asked that often.
const maxSetback = uint64(5 * time.Second / TickEvery)

// pinned is a snapshot of the state machine. Its files are released with the last use.
type pinned struct {
	manifest dsdb.Manifest
	release  func()
	position wal.Position
	uses     int
	since    uint64 // tick
}

// flight is a snapshot on its way to one replica.
type flight struct {
	pinned *pinned
	to     uint64
	since  uint64 // tick at which it was heard of last
	sent   uint64 // bytes
	queued bool   // it waits for its turn to be sent
	over   bool   // raft was told how it ended
}

// SendTask asks for a snapshot to be brought to the Install of another node, and
// for SnapshotSent to be called, exactly once, with what came of it; for
// SnapshotAlive as long as that takes.
type SendTask struct {
	Node     dsdb.NodeID
	Snapshot Snapshot

	group  *group
	flight *flight
}

// snapshot is what raft gets when it asks for a snapshot of the group. Members as
// of now go with the state as of an earlier index: a replica that was added in
// between has to find itself among them, and changes count once.
func (g *group) snapshot() (*raftpb.Snapshot, error) {
	if g.witness { // which has none to give
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	p := g.sending.ready
	if p == nil || p.position.Index < g.store.truncated.Index {
		g.sending.wanted = true
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	at, members := p.position, *g.members
	if mutant.ConfOfOtherIndex {
		members.index = at.Index
	}
	conf := proto.Clone(members.conf).(*raftpb.ConfState) // it is sent by another goroutine
	return &raftpb.Snapshot{
		Data:     appendMembership(nil, &members),
		Metadata: &raftpb.SnapshotMetadata{ConfState: conf, Index: &at.Index, Term: &at.Term},
	}, nil
}

// askSnapshot has the state machine prepare a snapshot, behind the applies that
// are under way.
func (c *Core) askSnapshot(g *group) {
	if s := &g.sending; s.wanted && !s.preparing {
		c.dropReady(g)
		s.wanted, s.preparing = false, true
		c.out.Tasks = append(c.out.Tasks, ApplyTask{Group: g.id, Machine: g.machine, group: g, prepare: true})
	}
}

func (t *ApplyTask) runPrepare() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("raft group %d: snapshot: %v\n%s", t.Group, p, debug.Stack())
		}
	}()
	m, release, err := t.Machine.Snapshot()
	if err != nil {
		return fmt.Errorf("raft group %d: snapshot: %w", t.Group, err)
	}
	t.pinned = &pinned{manifest: m, release: release, uses: 1}
	return nil
}

// prepared takes a snapshot that the state machine has prepared.
func (c *Core) prepared(g *group, t *ApplyTask, err error) {
	g.sending.preparing = false
	if err != nil {
		c.logger.Warn("cannot make a snapshot of a raft group", "group", uint64(g.id), "error", err)
		return
	}
	p := t.pinned
	p.since = g.clock.now
	if g.failed != nil {
		c.unpin(p)
		return
	}
	index := p.manifest.Index
	if g.store.truncated == birth && index < birth.Index { // nothing is flushed yet
		index = birth.Index
	}
	term, err := g.store.Term(index)
	if err != nil || index > g.store.applied {
		c.logger.Error("snapshot of a raft group does not fit its log", "group", uint64(g.id), "index", index,
			"truncated", g.store.truncated.Index, "applied", g.store.applied, "error", err)
		c.unpin(p)
		return
	}
	p.position = wal.Position{Index: index, Term: term}
	g.sending.ready = p
}

// unpin ends one use of a prepared snapshot.
func (c *Core) unpin(p *pinned) {
	if p.uses--; p.uses == 0 && p.release != nil {
		c.out.Tasks = append(c.out.Tasks, ApplyTask{release: p.release})
	}
}

// dropReady gives up the prepared snapshot; those on their way keep it.
func (c *Core) dropReady(g *group) {
	if p := g.sending.ready; p != nil {
		g.sending.ready = nil
		c.unpin(p)
	}
}

// sendSnapshot hands out a snapshot that raft wants sent. It may have been given up
// since raft had it: the replica leads no more, or it has waited for too long.
func (c *Core) sendSnapshot(g *group, node dsdb.NodeID, e Envelope) {
	p := g.sending.ready
	if p == nil || p.position.Index != e.Message.GetSnapshot().GetMetadata().GetIndex() {
		g.node.ReportSnapshot(e.Message.GetTo(), raft.SnapshotFailure)
		return
	}
	f := &flight{pinned: p, to: e.Message.GetTo(), since: g.clock.now}
	p.uses++
	g.sending.flights = append(g.sending.flights, f)
	if mutant.LaggardsLeft {
		return
	}
	manifest := p.manifest
	if to, _ := g.members.peer(e.To); to.Witness {
		manifest.Files = nil
		g.retention.given = max(g.retention.given, p.position.Index)
	}
	c.out.Snapshots = append(c.out.Snapshots, SendTask{Node: node, Snapshot: Snapshot{e, manifest}, group: g, flight: f})
	c.logger.Info("raft snapshot is sent", "group", uint64(g.id), "replica", f.to, "node", uint64(node), "index", p.position.Index)
}

// SnapshotAlive says that a snapshot is still on its way, and how many bytes of it
// were sent: none while it waits for its turn.
func (c *Core) SnapshotAlive(t SendTask, sent uint64) {
	t.flight.since, t.flight.sent, t.flight.queued = t.group.clock.now, sent, sent == 0
}

// SnapshotSent says that a snapshot was installed by its receiver, or with err
// that it was not.
func (c *Core) SnapshotSent(t SendTask, err error) {
	g, f := t.group, t.flight
	for i := range g.sending.flights {
		if g.sending.flights[i] == f {
			g.sending.flights = append(g.sending.flights[:i:i], g.sending.flights[i+1:]...)
			break
		}
	}
	c.unpin(f.pinned)
	if err != nil {
		c.logger.Warn("raft snapshot did not arrive", "group", uint64(g.id), "replica", f.to, "error", err)
	}
	switch {
	case g.failed != nil || mutant.SnapshotDoneLost && err != nil:
	case err == nil || g.sending.setBack(f.to, g.clock.now):
		c.report(g, f, err == nil)
	}
	if err == nil {
		g.sending.setbacks = slices.DeleteFunc(g.sending.setbacks, func(b setback) bool { return b.to == f.to })
	}
}

// setBack notes that a snapshot did not get to a replica, and reports whether raft
// is to be told now.
func (s *sending) setBack(to, now uint64) bool {
	i := slices.IndexFunc(s.setbacks, func(b setback) bool { return b.to == to })
	if i < 0 {
		s.setbacks = append(s.setbacks, setback{to: to, times: 1})
		return true
	}
	b := &s.setbacks[i]
	b.due = now + min(maxSetback, 1<<min(b.times, 16))
	b.times++
	return false
}

// endSetbacks tells raft of those transfers that failed long enough ago.
func (c *Core) endSetbacks(g *group) {
	for i := range g.sending.setbacks {
		if b := &g.sending.setbacks[i]; b.due != 0 && g.clock.now >= b.due {
			b.due = 0
			c.guard(g, func() { g.node.ReportSnapshot(b.to, raft.SnapshotFailure) })
			c.touch(g)
		}
	}
}

// report tells raft how a transfer ended, once.
func (c *Core) report(g *group, f *flight, ok bool) {
	if f.over {
		return
	}
	f.over = true
	status := raft.SnapshotFailure
	if ok {
		status = raft.SnapshotFinish
	}
	c.guard(g, func() { g.node.ReportSnapshot(f.to, status) })
	c.touch(g)
}

// ageSnapshots gives up what has waited for too long.
func (c *Core) ageSnapshots(g *group) {
	if p := g.sending.ready; p != nil && g.clock.now-p.since >= readyTicks {
		c.dropReady(g)
	}
	for _, f := range g.sending.flights {
		if g.clock.now-f.since >= flightTicks {
			c.report(g, f, false)
		}
	}
}
