package raftnode

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// Log is the node's log. Write is called by one goroutine at a time, the
// others by any.
type Log interface {
	LogReader
	// Write makes the updates part of the log, each as a whole, and durable if
	// sync. KindUnavailable means that there is no space: nothing was written and
	// the same call may succeed later. Any other error is the end of the log.
	Write(us []wal.Update, sync bool) error
	// Recycle frees the space of what all groups have truncated. It is called by
	// the goroutine that calls Write.
	Recycle() error
	// PrepareSpare reserves the space of future writes. It is called every second,
	// beside Write. An error means that there is none left.
	PrepareSpare() error
}

// Transport carries messages to other nodes.
type Transport interface {
	// Send passes messages on to the Host of another node. It never blocks and
	// may drop, delay, repeat or reorder them. The messages are immutable.
	Send(to dsdb.NodeID, msgs []Envelope)
	// SendSnapshot brings a snapshot with its files to the Install of another
	// node's Host, and calls s.Done with what came of it. It never blocks.
	SendSnapshot(to dsdb.NodeID, s *OutgoingSnapshot)
}

// Options are what a Host works with.
type Options struct {
	Log       Log
	Transport Transport // nil on a node that is alone
	Logger    *slog.Logger
	Fatal     func(error) // called once if the log fails, or hangs; the process must not go on serving. It must not call Close
}

// Metrics count what a host has done since it was opened.
type Metrics struct {
	Proposals atomic.Uint64 // proposals taken
	Applied   atomic.Uint64 // entries applied, those of raft itself included
	Batches   atomic.Uint64 // synced writes to the log
	Updates   atomic.Uint64 // updates in them

	Refused   atomic.Uint64 // proposals that are not in the log and never will be
	Uncertain atomic.Uint64 // proposals of which nobody knows what became
	Elected   atomic.Uint64 // times that a replica here has become the leader of others
	Leaders   atomic.Uint64 // times that a group of several replicas was found to have a leader, another one or again
}

// Host runs the raft groups of one node: workers that own the groups, one
// writer to the log, workers that apply, and a clock. All methods are safe for
// concurrent use.
type Host struct {
	opt     Options
	metrics Metrics
	workers []*worker // the first runs the meta group alone
	writer  *writer
	stop    chan struct{} // closed by Close: the clocks end
	awake   chan struct{} // a group that needs a clock was opened; holds one
	clocks  sync.WaitGroup
	closing sync.Once

	mu     sync.RWMutex
	groups map[dsdb.GroupID]*member // guarded by mu
	closed bool                     // guarded by mu
}

// member is a replica that the host runs.
type member struct {
	worker   *worker
	progress *progress
}

// Open starts a host without groups.
func Open(o Options) (*Host, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("raftnode: origin of this boot: %w", err)
	}
	origin := binary.LittleEndian.Uint64(b[:])
	h := &Host{opt: o, stop: make(chan struct{}), awake: make(chan struct{}, 1), groups: map[dsdb.GroupID]*member{}}
	h.writer = newWriter(h)
	for range 1 + min(4, runtime.GOMAXPROCS(0)) {
		c := NewCore(o.Log, origin, o.Logger)
		c.metrics = &h.metrics
		w := newWorker(h, c)
		h.workers = append(h.workers, w)
		w.start()
	}
	h.writer.start()
	h.clocks.Go(h.tick)
	h.clocks.Go(h.prepare)
	h.clocks.Go(h.writer.watch)
	return h, nil
}

// Metrics returns the host's counters.
func (h *Host) Metrics() *Metrics { return &h.metrics }

// Start opens the replicas of specs from the log, or creates those that are New
// and not in the log; new ones are written in one batch. It returns when raft
// runs for all of them; see Ready. A replica that cannot be trusted is kept out
// of service, as its Status tells. An error means that some specs are wrong (no
// such group in the log, another replica id) and were passed over.
func (h *Host) Start(ctx context.Context, specs []GroupSpec) error {
	parts := make([][]GroupSpec, len(h.workers))
	for _, s := range specs {
		i := h.slot(s.ID)
		parts[i] = append(parts[i], s)
	}
	all := newGather()
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return errClosed()
	}
	for i, part := range parts {
		if len(part) > 0 {
			h.workers[i].push(event{kind: evOpen, more: &request{specs: part}, waiter: all.add(1)})
		}
	}
	h.mu.Unlock()
	return all.wait(ctx)
}

// Ready returns when the state machines of the groups have applied what the
// groups' logs held when they were started: of a group with a single voter
// everything, of others what was known to be committed. A group out of service
// is an error.
func (h *Host) Ready(ctx context.Context, groups []dsdb.GroupID) error {
	all := newGather()
	for _, g := range groups {
		m, err := h.member(g)
		if err != nil {
			return err
		}
		m.worker.push(event{kind: evReady, group: g, waiter: all.add(1)})
	}
	return all.wait(ctx)
}

// Propose returns the state machine's verdict on data once it is committed and
// applied here; Verdict.Index tells its place in the group's log. KindNotLeader
// and KindUnavailable (overload, no space) mean that data is not in the log and
// never will be; KindTimeout, also when ctx ends first, that nobody knows. The
// caller must not change data afterwards, whatever is returned.
func (h *Host) Propose(ctx context.Context, g dsdb.GroupID, data []byte) (dsdb.Verdict, error) {
	h.metrics.Proposals.Add(1)
	v, err := h.call(ctx, event{kind: evPropose, group: g, data: data})
	switch kind := dsdb.KindOf(err); {
	case err == nil:
	case kind == dsdb.KindTimeout || kind == dsdb.KindCanceled:
		h.metrics.Uncertain.Add(1)
	default:
		h.metrics.Refused.Add(1)
	}
	return v, err
}

// ReadIndex returns an index up to which the group's log holds everything that
// was acknowledged before the call. Only the leader can tell, once a quorum has
// confirmed that it leads; elsewhere the error is KindNotLeader. It does not
// wait for the state machine, see Applied.
func (h *Host) ReadIndex(ctx context.Context, g dsdb.GroupID) (uint64, error) {
	v, err := h.call(ctx, event{kind: evRead, group: g})
	return v.Index, err
}

// Applied returns when the local state machine of the group has applied index.
func (h *Host) Applied(ctx context.Context, g dsdb.GroupID, index uint64) error {
	if m, err := h.member(g); err == nil && m.progress.applied.Load() >= index && m.progress.failed.Load() == nil {
		return nil
	}
	_, err := h.call(ctx, event{kind: evApplyWait, group: g, index: index})
	return err
}

// Matched returns when the logs of all voters but witnesses hold index durably. Only the
// leader can tell; elsewhere the error is KindNotLeader.
func (h *Host) Matched(ctx context.Context, g dsdb.GroupID, index uint64) error {
	_, err := h.call(ctx, event{kind: evMatched, group: g, index: index})
	return err
}

// Change changes the members of a group that this node leads: several changes at
// once go through a joint configuration. It returns when the final members are in
// force here; what is so already is no change. See Core.Change for what is refused.
func (h *Host) Change(ctx context.Context, g dsdb.GroupID, changes []Change) error {
	_, err := h.call(ctx, event{kind: evChange, group: g, more: &request{changes: changes}})
	return err
}

// Transfer hands the leadership of a group that this node leads to another
// voter; 0: to the active one that is closest. It returns when that is known to lead.
func (h *Host) Transfer(ctx context.Context, g dsdb.GroupID, to dsdb.ReplicaID) error {
	_, err := h.call(ctx, event{kind: evTransfer, group: g, index: uint64(to)})
	return err
}

// TransferAll hands on the leadership of every group led here that has another
// voter, before the process ends. The error is that of the first group that stays.
func (h *Host) TransferAll(ctx context.Context) error {
	all := newGather()
	h.mu.RLock()
	for g, m := range h.groups { // in any order
		s := m.progress.status()
		if s.Leading && len(s.Members.Voters) > 1 {
			m.worker.push(event{kind: evTransfer, group: g, waiter: all.add(1)})
		}
	}
	h.mu.RUnlock()
	return all.wait(ctx)
}

// PeerDown says that the process of another node is gone: the groups that are
// led from there elect a new leader at once rather than wait for their clocks.
func (h *Host) PeerDown(node dsdb.NodeID) {
	for _, w := range h.workers {
		w.push(event{kind: evPeerDown, from: Sender{Node: node}})
	}
}

// Wake tells that somebody is about to ask for something of a group: if its
// leader, elsewhere, is gone, that is noticed as soon as in a busy group.
func (h *Host) Wake(g dsdb.GroupID) {
	if m, err := h.member(g); err == nil && m.progress.quiescent.Load() {
		m.worker.push(event{kind: evWake, group: g})
	}
}

// Unreachable says that messages to another node were dropped.
func (h *Host) Unreachable(node dsdb.NodeID) {
	for _, w := range h.workers {
		w.push(event{kind: evUnreachable, from: Sender{Node: node}})
	}
}

// Install replaces the state of a replica by a snapshot that another node has
// sent, whose files lie in dir, verified and synced. It returns nil once that is
// durable, or if the replica is not behind it; otherwise nothing has changed
// unless the error says so. The caller removes dir. An installation that has
// begun ends with itself or the host, not with ctx: until then dir is in use.
func (h *Host) Install(ctx context.Context, from Sender, s Snapshot, dir string) error {
	_, err := h.call(context.WithoutCancel(ctx), event{kind: evInstall, group: s.Envelope.Group, from: from, more: &request{snapshot: s, dir: dir}})
	return err
}

// Flushed says that the FlushedIndex of the group's state machine rose: the
// log may forget what lies below.
func (h *Host) Flushed(g dsdb.GroupID) {
	if m, err := h.member(g); err == nil {
		m.worker.push(event{kind: evFlushed, group: g})
	}
}

// Release has a replica forget what it keeps in its log for others only: the log
// has grown too long. Who lacks some of it gets a snapshot.
func (h *Host) Release(g dsdb.GroupID) {
	if m, err := h.member(g); err == nil {
		m.worker.push(event{kind: evRelease, group: g})
	}
}

// Remove stops the group if it runs, waits until its state machine is no longer
// used, and erases it from the log if that has it. Its replica id must never be
// used again. Calls for one group must not overlap.
func (h *Host) Remove(ctx context.Context, g dsdb.GroupID) error {
	if _, err := h.member(g); err == nil {
		if _, err := h.call(ctx, event{kind: evRemove, group: g}); err != nil {
			return err
		}
	}
	h.mu.Lock()
	delete(h.groups, g)
	closed := h.closed
	h.mu.Unlock()
	if closed {
		return errClosed()
	}
	if _, known := h.opt.Log.State(g); !known {
		return nil
	}
	w := newCall()
	h.writer.push([]Queued{Erase(g, w)})
	_, err := w.wait(ctx)
	return err
}

// Status returns what the node knows of its replica of g; Failed is set if it has none.
func (h *Host) Status(g dsdb.GroupID) GroupStatus {
	m, err := h.member(g)
	if err != nil {
		return GroupStatus{Failed: err}
	}
	return m.progress.status()
}

// Replicas returns the groups of which this node has a replica, in any order, and
// what it knows of them.
func (h *Host) Replicas() iter.Seq2[dsdb.GroupID, GroupStatus] {
	return func(yield func(dsdb.GroupID, GroupStatus) bool) {
		h.mu.RLock()
		groups := maps.Clone(h.groups)
		h.mu.RUnlock()
		for g, m := range groups {
			if !yield(g, m.progress.status()) {
				return
			}
		}
	}
}

// Elected returns a channel that is closed once a leader of g is known here that
// is not the one of the moment; nil if this node has no replica of g.
func (h *Host) Elected(g dsdb.GroupID) <-chan struct{} {
	m, err := h.member(g)
	if err != nil {
		return nil
	}
	return m.progress.news()
}

// Step takes messages that another node's host has sent; msgs is not copied.
func (h *Host) Step(from Sender, msgs []Envelope) {
	for first := 0; first < len(msgs); {
		slot := h.slot(msgs[first].Group)
		next := first + 1
		for next < len(msgs) && h.slot(msgs[next].Group) == slot {
			next++
		}
		h.workers[slot].push(event{kind: evStep, from: from, messages: msgs[first:next:next]})
		first = next
	}
}

// Close stops all groups and waits for every goroutine. Those who still wait
// are told KindTimeout. The log stays open.
func (h *Host) Close() error {
	h.closing.Do(func() {
		h.mu.Lock()
		h.closed = true
		h.mu.Unlock()
		close(h.stop)
		h.clocks.Wait()
		for _, w := range h.workers {
			w.close()
		}
		h.writer.close()
		for _, w := range h.workers {
			w.applier.close()
		}
	})
	return nil
}

// slot returns the worker of a group.
func (h *Host) slot(g dsdb.GroupID) int {
	if g == dsdb.MetaGroup {
		return 0
	}
	return 1 + int(uint64(g)%uint64(len(h.workers)-1))
}

func (h *Host) member(g dsdb.GroupID) (*member, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closed {
		return nil, errClosed()
	}
	m := h.groups[g]
	if m == nil {
		return nil, errNoGroup(g)
	}
	return m, nil
}

// register makes the replicas that a worker has opened known.
func (h *Host) register(w *worker, ids []dsdb.GroupID, ps []*progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, g := range ids {
		h.groups[g] = &member{w, ps[i]}
	}
}

// call gives an event to a group's worker and waits for the outcome.
func (h *Host) call(ctx context.Context, e event) (dsdb.Verdict, error) {
	m, err := h.member(e.group)
	if err != nil {
		return dsdb.Verdict{}, err
	}
	if err := ctx.Err(); err != nil {
		return dsdb.Verdict{}, contextError(err)
	}
	w := newCall()
	e.waiter = w
	m.worker.push(e)
	return w.wait(ctx)
}

// tick moves the clocks of all cores, a slice at a time; those slices that rest all
// at once, which saves waking the workers for each. It sleeps while there is no
// group that needs a clock.
func (h *Host) tick() {
	t := time.NewTicker(TickEvery / TickSlices)
	defer t.Stop()
	for slice := 0; ; slice = (slice + 1) % TickSlices {
		select {
		case <-h.stop:
			return
		case <-t.C:
		}
		idle := true
		for _, w := range h.workers {
			if w.ticking.Load() == 0 {
				continue
			}
			idle = false
			if due := DueSlices(slice, w.awake.Load()); due != 0 {
				w.push(event{kind: evTick, slices: due})
			}
		}
		if !idle {
			continue
		}
		t.Stop()
		select {
		case <-h.stop:
			return
		case <-h.awake:
			t.Reset(TickEvery / TickSlices)
		}
	}
}

// Refusing returns why points are refused here at present: there is no space for
// the log, or it does not answer. nil: they are not.
func (h *Host) Refusing() error {
	if err := h.writer.refusing.Load(); err != nil {
		return *err
	}
	return nil
}

// prepare keeps space for the log reserved.
func (h *Host) prepare() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	failed := false
	for {
		err := h.opt.Log.PrepareSpare()
		if err != nil && !failed {
			h.opt.Logger.Warn("cannot reserve space for the log", "error", err)
		}
		failed = err != nil
		select {
		case <-h.stop:
			return
		case <-t.C:
		}
	}
}

func errClosed() error { return dsdb.Errorf(dsdb.KindUnavailable, "the node is shutting down") }

func contextError(err error) error {
	if errors.Is(err, context.Canceled) {
		return dsdb.Errorf(dsdb.KindCanceled, "canceled: %w", err)
	}
	return &dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout", Err: err}
}
