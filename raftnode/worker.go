package raftnode

import (
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/dasudian/dsdb"
)

type eventKind uint8

const (
	evTick eventKind = iota
	evOpen
	evStep
	evPropose
	evRead
	evReady
	evFlushed
	evRelease
	evRemove
	evStored
	evApplied
	evRefuse
	evRefusePoints
	evApplyWait
	evMatched
	evChange
	evTransfer
	evPeerDown
	evUnreachable
	evInstall
	evSent
	evWake
	evSending
)

// event is one input of a worker's core; kind says which members are set.
type event struct {
	kind     eventKind
	slices   uint64 // as bits
	group    dsdb.GroupID
	from     Sender // for evPeerDown and evUnreachable Node alone
	index    uint64 // for evTransfer a replica
	data     []byte
	waiter   Waiter
	messages []Envelope
	appends  []Append
	task     *ApplyTask
	err      error
	more     *request
}

// request is what rare events carry.
type request struct {
	specs    []GroupSpec
	changes  []Change
	snapshot Snapshot
	dir      string
	sent     SendTask
}

// inbox is a queue that many fill and one goroutine empties as a whole.
type inbox[T any] struct {
	mu     sync.Mutex
	items  []T  // guarded by mu
	closed bool // guarded by mu
	wake   chan struct{}
}

func newInbox[T any]() inbox[T] { return inbox[T]{wake: make(chan struct{}, 1)} }

// push adds items. It reports false, and takes nothing, if the inbox is closed.
func (q *inbox[T]) push(items ...T) bool {
	q.mu.Lock()
	ok := !q.closed
	if ok {
		q.items = append(q.items, items...)
	}
	q.mu.Unlock()
	q.signal()
	return ok
}

// swap takes everything out and leaves spare in its place; open is false once
// the inbox is closed and empty.
func (q *inbox[T]) swap(spare []T) (items []T, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	items, q.items = q.items, spare[:0]
	return items, !q.closed || len(items) > 0
}

func (q *inbox[T]) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

func (q *inbox[T]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// worker owns a core: it feeds the core with the events of its inbox and
// spreads what comes out.
type worker struct {
	host    *Host
	core    *Core
	in      inbox[event]
	applier *applier
	ticking atomic.Int64  // groups that the clock moves
	awake   atomic.Uint64 // slices of them that do not rest, see Core.Awake
	done    sync.WaitGroup
}

func newWorker(h *Host, c *Core) *worker {
	w := &worker{host: h, core: c, in: newInbox[event]()}
	w.applier = newApplier(w)
	return w
}

func (w *worker) start() {
	w.applier.start()
	w.done.Add(1)
	go w.run()
}

// close stops the worker after what is in its inbox.
func (w *worker) close() {
	w.in.close()
	w.done.Wait()
}

// push gives the worker an event. If it has been closed, the event's waiter is told so.
func (w *worker) push(e event) {
	if !w.in.push(e) && e.waiter != nil {
		e.waiter.Done(dsdb.Verdict{}, errClosed())
	}
}

func (w *worker) run() {
	defer w.done.Done()
	var events []event
	for open := true; open; {
		events, open = w.in.swap(events)
		if len(events) == 0 && open {
			<-w.in.wake
			continue
		}
		for i := range events {
			w.feed(&events[i])
		}
		clear(events)
		if !open {
			w.core.Stop()
		}
		w.spread(w.core.Drain())
		w.awake.Store(w.core.Awake())
		w.setClock(w.core.Ticking())
	}
}

// setClock tells the host's clock how many groups need it.
func (w *worker) setClock(groups int) {
	if w.ticking.Swap(int64(groups)) > 0 || groups == 0 {
		return
	}
	select {
	case w.host.awake <- struct{}{}:
	default:
	}
}

// feed gives one event to the core.
func (w *worker) feed(e *event) {
	switch e.kind {
	case evTick:
		for rest := e.slices; rest != 0; rest &= rest - 1 {
			w.core.Tick(bits.TrailingZeros64(rest))
		}
	case evOpen:
		e.waiter.Done(dsdb.Verdict{}, w.open(e.more.specs))
	case evStep:
		for _, m := range e.messages {
			w.core.Step(e.from, m)
		}
	case evPropose:
		w.core.Propose(e.group, e.data, e.waiter)
	case evRead:
		w.core.ReadIndex(e.group, e.waiter)
	case evReady:
		w.core.Ready(e.group, e.waiter)
	case evFlushed:
		w.core.Flushed(e.group)
	case evRelease:
		w.core.Release(e.group)
	case evRemove:
		w.core.Remove(e.group, e.waiter)
	case evStored:
		w.core.StorageDone(e.appends)
	case evApplied:
		w.core.ApplyDone(*e.task, e.err)
	case evRefuse:
		w.core.Refuse(e.err)
	case evRefusePoints:
		w.core.RefusePoints(e.err)
	case evApplyWait:
		w.core.Applied(e.group, e.index, e.waiter)
	case evMatched:
		w.core.Matched(e.group, e.index, e.waiter)
	case evChange:
		w.core.Change(e.group, e.more.changes, e.waiter)
	case evTransfer:
		w.core.Transfer(e.group, dsdb.ReplicaID(e.index), e.waiter)
	case evPeerDown:
		w.core.PeerDown(e.from.Node)
	case evUnreachable:
		w.core.Unreachable(e.from.Node)
	case evInstall:
		w.core.Install(e.from, e.more.snapshot, e.more.dir, e.waiter)
	case evSent:
		w.core.SnapshotSent(e.more.sent, e.err)
	case evSending:
		w.core.SnapshotAlive(e.more.sent, e.index)
	case evWake:
		w.core.Wake(e.group)
	}
}

func (w *worker) open(specs []GroupSpec) error {
	var errs []error
	ids, ps := make([]dsdb.GroupID, 0, len(specs)), make([]*progress, 0, len(specs))
	for _, s := range specs {
		p, err := w.core.openGroup(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ids, ps = append(ids, s.ID), append(ps, p)
	}
	w.host.register(w, ids, ps)
	return errors.Join(errs...)
}

// spread passes the core's outputs on.
func (w *worker) spread(out *Outputs) {
	for _, r := range out.Results {
		r.Waiter.Done(r.Verdict, r.Err)
	}
	if t := w.host.opt.Transport; t != nil {
		for _, box := range out.Network {
			t.Send(box.Node, box.Messages)
		}
		for _, s := range out.Snapshots {
			t.SendSnapshot(s.Node, &OutgoingSnapshot{Snapshot: s.Snapshot,
				Done:  func(err error) { w.push(event{kind: evSent, more: &request{sent: s}, err: err}) },
				Alive: func(sent uint64) { w.push(event{kind: evSending, index: sent, more: &request{sent: s}}) }})
		}
	}
	if len(out.Appends) > 0 {
		qs := make([]Queued, len(out.Appends))
		for i, a := range out.Appends {
			qs[i] = Queued{Append: a, Core: w.core}
		}
		w.host.writer.push(qs)
	}
	if len(out.Tasks) > 0 {
		w.applier.in.push(out.Tasks...)
	}
}

// applier runs the apply tasks of one worker's groups, in order.
type applier struct {
	worker *worker
	in     inbox[ApplyTask]
	done   sync.WaitGroup
}

func newApplier(w *worker) *applier { return &applier{worker: w, in: newInbox[ApplyTask]()} }

func (a *applier) start() {
	a.done.Add(1)
	go a.run()
}

// close stops the applier after what is in its inbox.
func (a *applier) close() {
	a.in.close()
	a.done.Wait()
}

func (a *applier) run() {
	defer a.done.Done()
	var tasks []ApplyTask
	for open := true; open; {
		tasks, open = a.in.swap(tasks)
		if len(tasks) == 0 && open {
			<-a.in.wake
			continue
		}
		for i := range tasks {
			t := tasks[i]
			err := t.Run()
			a.worker.host.metrics.Applied.Add(uint64(len(t.Entries)))
			if t.group != nil {
				a.worker.push(event{kind: evApplied, task: &t, err: err})
			}
		}
		clear(tasks)
	}
}
