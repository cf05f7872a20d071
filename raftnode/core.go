// Package raftnode runs the replicas of many raft groups on one node: the meta
// group and one group for each shard. It owns the raft library, the envelope
// of proposals, and who waits for what; it must not know what a state machine
// does with an entry, how the log lies on disk, or how messages travel.
//
// Core is deterministic: it has no goroutine, clock or randomness of its own.
// Inputs are ticks, messages, proposals, reads, finished writes and finished
// applies; Drain hands out what they led to: updates for the log, messages for
// other nodes, entries to apply, outcomes for those who wait. So is LogWriter,
// between cores and log. Host drives them in production, internal/sim drives the
// same ones in tests.
//
// A proposal flows: Propose → envelope → raft → Append to the node's log (one
// write and one sync for whatever waited) → StorageDone → committed → Apply →
// the state machine's Verdict → the waiter. See §1 and §2 of the design's
// chapter on replication for the rules that are kept here.
package raftnode

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// TickEvery is the length of a raft tick, TickSlices how many calls to Tick make
// one: each moves the groups of one slice only, so that a thousand groups do not
// tick at once. What idle groups cost goes with the ticks; what a tick is long
// costs only time until a lost message is noticed.
const (
	TickEvery  = 250 * time.Millisecond
	TickSlices = 10
)

// Peer is one replica of a group and the node that holds it.
type Peer struct {
	Replica dsdb.ReplicaID
	Node    dsdb.NodeID
	Witness bool // it has the log and a vote, but no state: see Witness
}

// GroupSpec describes one replica that this node is to run. If the log knows
// the group, its members come from the log and Founders counts for nothing.
type GroupSpec struct {
	ID      dsdb.GroupID
	Replica dsdb.ReplicaID // this node's
	Node    dsdb.NodeID    // this node, as Peer.Node names it
	// Founders are the voters of a group that is new on all its nodes, in the same
	// order on all; the first campaigns. Without them the replica joins a group
	// that exists: it is blank, and takes no part, until a snapshot arrives.
	Founders     []Peer
	New          bool // create it if the log does not know the group
	Suspect      bool // the log may have lost entries of the group: it is kept out of service
	StateMachine StateMachine
}

// Envelope is a raft message between two replicas of a group.
type Envelope struct {
	Group    dsdb.GroupID
	From, To dsdb.ReplicaID
	Message  *raftpb.Message // immutable
}

// Outbox holds messages for one node, in order.
type Outbox struct {
	Node     dsdb.NodeID
	Messages []Envelope
}

// Sender is the process that a message comes from: Node is the id under which it
// holds its replica of the group. A process whose roles have changed may hold it
// under its Other id, 0 if there is none.
type Sender struct{ Node, Other dsdb.NodeID }

func (s Sender) is(node dsdb.NodeID) bool {
	return node == s.Node || node == s.Other && node != 0
}

// Waiter is told once how a proposal, a read or a start ended.
type Waiter interface {
	Done(v dsdb.Verdict, err error)
}

// Result is an outcome that its waiter is to be told.
type Result struct {
	Waiter  Waiter
	Verdict dsdb.Verdict
	Err     error
}

// Append asks for Update to be written to the log. Appends must be written in
// the order they were handed out and given to StorageDone in that order, once
// they and everything before them are durable.
type Append struct {
	Update wal.Update
	Empty  bool // Update changes nothing and need not be written; it only waits for its turn

	group     *group
	entries   []*raftpb.Entry
	responses []*raftpb.Message
	install   *installation // set on the two appends of one
}

// ApplyTask is a run of committed entries for a group's state machine, or
// something else that may take its time: preparing a snapshot, installing one,
// releasing the files of one. The tasks of one group must be run in order. A task
// with nothing to do is a barrier: its only waiter is told when the group's
// earlier tasks are done.
type ApplyTask struct {
	Group   dsdb.GroupID
	Machine StateMachine
	Entries []dsdb.Entry
	Waiters []Waiter // one for each entry, nil where nobody waits

	group    *group
	response *raftpb.Message
	changes  []raftChange  // of the members, among the entries
	newer    error         // why the entry behind these is not to be applied
	prepare  bool          // a snapshot
	pinned   *pinned       // the snapshot that was prepared
	install  *installation // to be installed
	release  func()        // releases a snapshot's files
}

// Run applies the task and tells its waiters the verdicts. An error, also of an
// earlier task of the group, means that the state machine cannot go on. Tasks of
// different groups may run at the same time.
func (t *ApplyTask) Run() error {
	switch {
	case t.release != nil:
		t.release()
		return nil
	case t.group == nil:
		t.Waiters[0].Done(dsdb.Verdict{}, nil)
		return nil
	case t.prepare:
		return t.runPrepare()
	case t.install != nil:
		return t.runInstall()
	}
	if t.group.broken == nil {
		var verdicts []dsdb.Verdict
		verdicts, t.group.broken = t.apply()
		if t.group.broken == nil {
			for i, w := range t.Waiters {
				if w != nil {
					verdicts[i].Index = t.Entries[i].Index
					w.Done(verdicts[i], nil)
				}
			}
			t.group.broken = t.newer
			return t.newer
		}
	}
	for _, w := range t.Waiters {
		if w != nil {
			w.Done(dsdb.Verdict{}, unknownOutcome(t.group.broken))
		}
	}
	return t.group.broken
}

func (t *ApplyTask) apply() (vs []dsdb.Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("raft group %d: apply: %v\n%s", t.Group, p, debug.Stack())
		}
	}()
	if len(t.Entries) == 0 {
		return nil, nil
	}
	vs, err = t.Machine.Apply(t.Entries)
	if err != nil {
		return nil, fmt.Errorf("raft group %d: apply entry %d and on: %w", t.Group, t.Entries[0].Index, err)
	}
	if len(vs) != len(t.Entries) {
		panic(fmt.Sprintf("BUG: %d verdicts for %d entries", len(vs), len(t.Entries)))
	}
	return vs, nil
}

// Outputs is what the inputs since the last Drain led to. It is valid until the next.
type Outputs struct {
	Appends   []Append
	Network   []Outbox
	Snapshots []SendTask
	Tasks     []ApplyTask
	Results   []Result
}

// Core runs the groups of one worker. It is used by one goroutine at a time.
type Core struct {
	log     LogReader
	logger  *slog.Logger
	origin  uint64 // unique to this boot of this node
	seq     uint64 // of proposals and read contexts
	groups  map[dsdb.GroupID]*group
	ticking [TickSlices][]*group
	clocks  int             // groups in ticking
	awake   [TickSlices]int // of these, by slice, those that are not quiescent
	rounds  uint64          // calls of Tick with slice 0
	orphans []*group        // whose clock.campaignIn is not 0
	keepers int             // groups whose log keeps flushed entries for others
	dirty   []*group        // touched since the last Drain, in order of first touch
	refuse  error           // why proposals are refused, nil if they are not
	spared  bool            // those to the catalogue are not
	out     Outputs
	metrics *Metrics        // elections are counted there
	scratch []byte          // data of proposals on their way into raft
	blank   []*raftpb.Entry // entries to carry them
}

// NewCore makes a core without groups. origin must differ from that of every
// other boot of any node.
func NewCore(log LogReader, origin uint64, logger *slog.Logger) *Core {
	return &Core{log: log, origin: origin, logger: logger, groups: map[dsdb.GroupID]*group{}, metrics: new(Metrics)}
}

// Tick moves the logical clock of the groups of one slice, a tenth of them.
// Groups of one replica that leads have no clock.
func (c *Core) Tick(slice int) {
	if slice%TickSlices == 0 {
		c.rounds++
		c.countKeepers()
	}
	c.replaceLeaders()
	for _, g := range c.ticking[slice%TickSlices] {
		if g.failed == nil {
			c.guard(g, func() { c.tick(g) })
		}
	}
}

// Ticking returns the number of groups that Tick moves.
func (c *Core) Ticking() int { return c.clocks }

// Step takes a message that another node has sent. What is not from a replica
// of the group to this node's replica is dropped, and so is what is said in the
// name of a member by another process than the one that holds it.
func (c *Core) Step(from Sender, e Envelope) {
	g := c.groups[e.Group]
	if g == nil || g.failed != nil || !g.accepts(e) {
		return
	}
	node, genuine := g.holder(e.From, from)
	if !genuine {
		return
	}
	g.contacts.heard(g, e.From, node)
	if g.noticed(e.Message) || c.retains(g, e) {
		return
	}
	if wakes, only := wakes(e.Message); wakes {
		if c.wake(g); only {
			return
		}
	}
	c.strayed(g, e)
	c.inform(g, e)
	c.refused(g, e)
	c.dismissed(g, e)
	if c.refusal(g.id) != nil && needsLog(e.Message) {
		return
	}
	c.guard(g, func() { _ = g.node.Step(e.Message) }) // an error means that raft dropped it, as the network may
	c.touch(g)
}

// needsLog reports whether all that a message leads to has to wait for the log.
// While that is full such messages are dropped, as the network may: they come
// again and again, and their answers would pile up.
func needsLog(m *raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgTimeoutNow:
		return true
	}
	return false
}

// serving returns a group that is in service here, and wakes it. If there is none
// it tells the waiter why, and returns nil.
func (c *Core) serving(id dsdb.GroupID, w Waiter) *group {
	g := c.groups[id]
	switch {
	case g == nil:
		c.result(w, errNoGroup(id))
		return nil
	case g.failed != nil || g.halted != nil:
		c.result(w, g.failedError())
		return nil
	}
	c.wakeAll(g)
	return g
}

// Propose asks for data to be committed and applied. The waiter is told the
// state machine's verdict; an error of KindUnavailable or KindNotLeader means that
// data is not in the log and will not be, KindTimeout that its fate is unknown.
// data is not kept after the next Drain.
func (c *Core) Propose(id dsdb.GroupID, data []byte, w Waiter) {
	g := c.serving(id, w)
	switch {
	case g == nil:
	case c.refusal(id) != nil:
		c.result(w, c.refusal(id))
	case len(data) > MaxProposal:
		c.result(w, dsdb.Errorf(dsdb.KindTooLarge, "proposal of %d bytes: at most %d are allowed", len(data), MaxProposal))
	default:
		g.proposals = append(g.proposals, proposal{data, w})
		c.touch(g)
	}
}

// ReadIndex tells the waiter, in Verdict.Index, an index below which lies
// everything that had been acknowledged before the call. Only the leader
// can, once a quorum has confirmed that it leads; elsewhere it is KindNotLeader.
func (c *Core) ReadIndex(id dsdb.GroupID, w Waiter) {
	if g := c.serving(id, w); g != nil {
		g.reads.waiting = append(g.reads.waiting, readWaiter{waiter: w})
		c.touch(g)
	}
}

// Applied tells the waiter when the local state machine has applied index.
func (c *Core) Applied(id dsdb.GroupID, index uint64, w Waiter) {
	if g := c.serving(id, w); g != nil {
		g.reads.confirm(index, w)
		c.touch(g)
	}
}

// Ready tells the waiter when the group has applied what its log held when it
// was opened: for a single voter everything, else what was known to be committed.
func (c *Core) Ready(id dsdb.GroupID, w Waiter) {
	if g := c.groups[id]; g != nil && g.failed == nil && g.single() {
		g.reads.waiting = append(g.reads.waiting, readWaiter{waiter: w, apply: true})
		c.touch(g)
		return
	}
	index := uint64(0)
	if g := c.groups[id]; g != nil {
		index = g.clock.openCommit
	}
	c.Applied(id, index, w)
}

// StorageDone says that the appends, in the order in which Drain gave them, are durable.
func (c *Core) StorageDone(as []Append) {
	for i := range as {
		g := as[i].group
		if g == nil || g.failed != nil {
			continue
		}
		c.guard(g, func() { c.stored(g, &as[i]) })
		c.touch(g)
	}
}

// ApplyDone says that the entries of a task have been applied, or with err
// that the state machine cannot go on.
func (c *Core) ApplyDone(t ApplyTask, err error) {
	g := t.group
	if g == nil {
		return
	}
	if t.prepare {
		c.prepared(g, &t, err)
		return
	}
	if g.failed != nil {
		return
	}
	switch {
	case err == nil:
	case t.install != nil && g.halted == nil && installable(err):
		c.reopen(g, err)
		return
	case t.install == nil && errors.Is(err, dsdb.ErrNewer):
		c.halt(g, err)
		return
	default:
		c.logger.Error("raft group failed", "group", uint64(g.id), "error", err)
		c.fail(g, err)
		return
	}
	if t.install != nil {
		c.guard(g, func() { c.installed(g, t.install) })
	} else {
		c.guard(g, func() { c.applied(g, &t) })
	}
	c.touch(g)
}

// Refuse makes the core refuse proposals with err and ends all that are not
// applied yet; nil lets it accept them again. Those in raft's log may still be
// applied: they are told KindTimeout. Said again and again it hands on the groups
// led here that get on without this node.
func (c *Core) Refuse(err error) {
	c.refuse, c.spared = err, false
	c.endRefused()
}

// RefusePoints is Refuse for all groups but that of the catalogue.
func (c *Core) RefusePoints(err error) {
	c.refuse, c.spared = err, true
	c.endRefused()
}

// refusal returns why proposals to a group are refused, nil if they are not.
func (c *Core) refusal(id dsdb.GroupID) error {
	if c.spared && id == dsdb.MetaGroup {
		return nil
	}
	return c.refuse
}

func (c *Core) endRefused() {
	for _, g := range c.sorted() {
		err := c.refusal(g.id)
		if err == nil {
			continue
		}
		g.failProposals(c, err, unknownOutcome(err))
		if g.failed == nil {
			c.guard(g, func() { c.relieve(g) })
			c.touch(g)
		}
	}
}

// Remove forgets the group, if it is there. Its waiters are told so; w is told when
// the state machine is no longer being used. The caller then has to write an update
// with Remove set to the log.
func (c *Core) Remove(id dsdb.GroupID, w Waiter) {
	if g := c.groups[id]; g != nil {
		c.fail(g, errNoGroup(id))
		c.setClock(g, false)
		delete(c.groups, id)
	}
	c.out.Tasks = append(c.out.Tasks, ApplyTask{Group: id, Waiters: []Waiter{w}})
}

// Stop hands out what was held back to save writes, and ends everything that
// still waits. The core must not be used after the Drain that follows.
func (c *Core) Stop() {
	err := errClosed()
	for _, g := range c.sorted() {
		if g.held != nil && g.failed == nil {
			c.out.Appends = append(c.out.Appends, Append{Update: wal.Update{Group: g.id, HardState: g.held}})
			g.held = nil
		}
		g.failAll(c, err)
	}
}

// Drain returns what all inputs since the last call led to.
func (c *Core) Drain() *Outputs {
	for i := 0; i < len(c.dirty); i++ { // it may grow
		g := c.dirty[i]
		g.dirty = false
		if g.failed == nil {
			c.guard(g, func() { c.advance(g) })
		}
	}
	c.dirty = c.dirty[:0]
	out := c.out
	c.out = Outputs{}
	return &out
}

func (c *Core) touch(g *group) {
	if !g.dirty {
		g.dirty = true
		c.dirty = append(c.dirty, g)
	}
}

func (c *Core) result(w Waiter, err error) {
	if w != nil {
		c.out.Results = append(c.out.Results, Result{Waiter: w, Err: err})
	}
}

// guard runs f for a group. A panic of the raft library, or of ours, fails
// that group alone.
func (c *Core) guard(g *group, f func()) {
	defer func() {
		if p := recover(); p != nil {
			c.logger.Error("raft group failed", "group", uint64(g.id), "panic", p, "stack", string(debug.Stack()))
			c.fail(g, fmt.Errorf("group %d: %v", g.id, p))
		}
	}()
	f()
}

// fail stops a group for good: it takes no more part in raft until the process
// starts again.
func (c *Core) fail(g *group, err error) {
	if g.failed != nil {
		return
	}
	g.failed = err
	g.progress.failed.Store(&err)
	g.failAll(c, g.failedError())
	c.dropReady(g)
	if g.seen.leading {
		c.wakeOthers(g)
	}
}

func errNoGroup(id dsdb.GroupID) error {
	return dsdb.Errorf(dsdb.KindNotLeader, "raft group %d is not on this node", id)
}
