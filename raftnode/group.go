package raftnode

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/wal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// The position at which every new group starts, the same on all its replicas:
// raft takes it for a snapshot that carries the initial membership.
var birth = wal.Position{Index: 10, Term: 1}

// The settings of the raft library.
const (
	electionTicks    = 6 // 1.5 s; randomised up to twice as many
	heartbeatTicks   = 2
	maxMessageBytes  = 1 << 20
	maxApplyingBytes = 8 << 20
	maxInflight      = 256
	maxInflightBytes = 8 << 20
	maxUncommitted   = 32 << 20 // above, proposals are dropped
	maxMetaBytes     = 8 << 20  // the same for the meta group
)

// group is one replica of one raft group. It belongs to its core.
type group struct {
	id      dsdb.GroupID
	machine StateMachine
	node    *raft.RawNode
	store   storage
	seen    observed
	held    *wal.HardState // a new commit index alone, to be written with the next update
	clock   clock
	flush   flush
	belonging
	callers
	transfers
	service
}

// belonging is who belongs to a group.
type belonging struct {
	members   *membership
	contacts  contacts
	settling  settling
	witness   bool // this replica is one, as far as it knows
	retention retention
}

// callers are those who asked for something and wait for what comes of it.
type callers struct {
	proposals []proposal // to be given to raft at the next Drain
	pending   []pending  // in raft's log, waiting to be applied, in log order
	changing  changing
	reads     readQueue
	matches   []confirmedRead // wait for all voters to have an index
	handover  handover
}

// transfers are snapshots on their way.
type transfers struct {
	sending  sending
	incoming *installation // the snapshot that is being installed
}

// service is whether a group does what it is for, and what others may know of that.
type service struct {
	failed   error
	halted   error // why nothing more is applied, while raft goes on: see halt
	broken   error // the state machine's; belongs to whoever runs the apply tasks
	progress *progress
	dirty    bool // it is in Core.dirty
}

// observed is what the core last saw of raft's state.
type observed struct {
	replica    uint64
	lead       uint64
	leading    bool
	term, vote uint64
	commit     uint64
	termStart  uint64 // index of the first entry of the term that this replica leads
	changed    uint64 // index of the newest entry that changes the members, in that term
}

// clock is what a group does by its ticks.
type clock struct {
	now        uint64 // ticks since the group was opened
	raft       uint64 // of these, those that raft was told of
	idle       uint64 // ticks since something happened but for heartbeats
	quiescent  bool   // raft's clock goes slowly
	running    bool   // Tick moves it
	openCommit uint64 // what was committed when the group was opened
	campaign   bool   // as soon as all that is known to be committed is applied
	campaignIn uint64 // calls of Core.Tick until this replica campaigns if there is no leader then; 0: it does not
	campaigns  int    // how often it does so at most
	jointSince uint64 // when the members became joint
}

// proposal waits to be given to raft.
type proposal struct {
	data   []byte
	waiter Waiter
}

// pending is a proposal in the log. A waiter that was told already is nil.
type pending struct {
	seq, term uint64
	waiter    Waiter
}

// GroupStatus is what a node knows of one of its replicas.
type GroupStatus struct {
	Replica    dsdb.ReplicaID // this node's
	Leader     dsdb.ReplicaID // 0: none is known
	LeaderNode dsdb.NodeID    // where that is; 0: not known
	Leading    bool           // this replica leads
	Quiescent  bool           // nothing but heartbeats has happened for a while, and those are rare
	Removed    bool           // this replica has left the group and may be destroyed, a leader said
	Members    Members
	Settled    bool           // while leading: those who are no members any more may be destroyed
	Progress   []PeerProgress // while leading: of the others, not older than half a second
	Term       uint64
	Commit     uint64
	Applied    uint64
	Last       uint64 // index of the last durable entry
	Cached     uint64 // bytes of durable entries that are held in memory
	Waiting    uint64 // proposals and reads without an outcome
	Failed     error  // why the replica is out of service, nil if it is not
}

// progress is what other goroutines may know of a group.
type progress struct {
	replica                                                          dsdb.ReplicaID
	leader, leaderNode, term, commit, applied, last, cached, waiting atomic.Uint64
	leading, removed, settled, quiescent                             atomic.Bool
	members                                                          atomic.Pointer[Members]
	peers                                                            atomic.Pointer[[]PeerProgress]
	failed                                                           atomic.Pointer[error]
	elected                                                          atomic.Pointer[chan struct{}] // see Host.Elected
}

// lead notes who leads. Who waits for another leader is told when there is one.
func (p *progress) lead(leader uint64, node dsdb.NodeID) {
	p.leaderNode.Store(uint64(node))
	if p.leader.Swap(leader) == leader || leader == 0 {
		return
	}
	if c := p.elected.Swap(nil); c != nil {
		close(*c)
	}
}

// news returns a channel that is closed when there is another leader.
func (p *progress) news() <-chan struct{} {
	for {
		if c := p.elected.Load(); c != nil {
			return *c
		}
		if fresh := make(chan struct{}); p.elected.CompareAndSwap(nil, &fresh) {
			return fresh
		}
	}
}

func (p *progress) status() GroupStatus {
	s := GroupStatus{
		Replica: p.replica, Leader: dsdb.ReplicaID(p.leader.Load()), LeaderNode: dsdb.NodeID(p.leaderNode.Load()),
		Leading: p.leading.Load(), Removed: p.removed.Load(), Settled: p.settled.Load(), Quiescent: p.quiescent.Load(), Term: p.term.Load(),
		Commit: p.commit.Load(), Applied: p.applied.Load(), Last: p.last.Load(),
		Cached: p.cached.Load(), Waiting: p.waiting.Load(),
	}
	if m := p.members.Load(); m != nil {
		s.Members = *m
	}
	if ps := p.peers.Load(); ps != nil && s.Leading {
		s.Progress = *ps
	}
	if err := p.failed.Load(); err != nil {
		s.Failed = *err
	}
	return s
}

// single reports whether this replica is all of the group.
func (g *group) single() bool { return g.members.alone(dsdb.ReplicaID(g.seen.replica)) }

func (g *group) failedError() error {
	why := cmp.Or(g.failed, g.halted)
	return &dsdb.Error{Kind: dsdb.KindUnavailable, Text: fmt.Sprintf("replica of raft group %d is out of service: %v", g.id, why), Err: why}
}

// accepts checks that a message comes from another replica, is for this one,
// and is of a type that replicas send to each other. The sender need not be a
// member: this replica may not know of the latest change yet.
func (g *group) accepts(e Envelope) bool {
	m := e.Message
	if mutant.OldReplicaIDAccepted {
		return m != nil
	}
	if m == nil || e.From == 0 || e.From == e.To || uint64(e.To) != g.seen.replica || m.GetTo() != uint64(e.To) || m.GetFrom() != uint64(e.From) {
		return false
	}
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow,
		raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp:
		return true
	}
	return false
}

// holder returns the node that holds a replica which a process speaks for, and
// whether it may: another one may hold it, as far as this replica knows. One that
// is no member may be one by a change that is not applied here yet.
func (g *group) holder(r dsdb.ReplicaID, from Sender) (dsdb.NodeID, bool) {
	p, member := g.members.peer(r)
	if !member {
		return from.Node, true
	}
	return p.Node, from.is(p.Node)
}

// Open starts a replica from the log, or creates it if spec.New. An error
// means that the spec is wrong and nothing was done. A replica that cannot be
// trusted is kept out of service, as its Status tells.
func (c *Core) Open(spec GroupSpec) error {
	_, err := c.openGroup(spec)
	return err
}

func (c *Core) openGroup(spec GroupSpec) (*progress, error) {
	if c.groups[spec.ID] != nil {
		return nil, dsdb.Errorf(dsdb.KindConflict, "raft group %d is already open", spec.ID)
	}
	state, known := c.log.State(spec.ID)
	if !known && len(spec.Founders) > 0 && !slices.ContainsFunc(spec.Founders, func(p Peer) bool { return p.Replica == spec.Replica }) {
		return nil, dsdb.Errorf(dsdb.KindInvalid, "raft group %d: replica %d is not among its founders", spec.ID, spec.Replica)
	}
	if known && state.Replica != spec.Replica {
		return nil, dsdb.Errorf(dsdb.KindConflict, "raft group %d: the log holds replica %d, not %d", spec.ID, state.Replica, spec.Replica)
	}
	if removed := c.log.Removed(spec.ID); spec.Replica <= removed && !mutant.ReuseReplicaID {
		return nil, dsdb.Errorf(dsdb.KindConflict, "raft group %d: replica %d left this node, ids up to %d are spent", spec.ID, spec.Replica, removed)
	}
	if !known && !spec.New {
		return nil, dsdb.Errorf(dsdb.KindNotFound, "raft group %d is not in the log", spec.ID)
	}
	g := c.newGroup(spec.ID, uint64(spec.Replica), spec.StateMachine, &progress{replica: spec.Replica})
	g.members = foundation(spec.Founders)
	if spec.Suspect {
		c.quarantine(g, dsdb.Errorf(dsdb.KindCorrupt, "the log may have lost entries of raft group %d", g.id))
		return g.progress, nil
	}
	c.guard(g, func() { c.open(g, state, known, 0) })
	return g.progress, nil
}

// newGroup makes a group without members, in the place of one that there was.
func (c *Core) newGroup(id dsdb.GroupID, replica uint64, m StateMachine, p *progress) *group {
	g := &group{id: id, machine: m}
	g.members, g.progress = foundation(nil), p
	g.seen.replica = replica
	g.store.group, g.store.log, g.store.snapshot = id, c.log, g.snapshot
	c.groups[id] = g
	return g
}

// Status returns what the core knows of its replica of a group; Failed is set if it has none.
func (c *Core) Status(id dsdb.GroupID) GroupStatus {
	g := c.groups[id]
	if g == nil {
		return GroupStatus{Failed: errNoGroup(id)}
	}
	if g.failed == nil {
		g.publishPeers()
	}
	return g.progress.status()
}

// quarantine keeps a replica that cannot be trusted out of service.
func (c *Core) quarantine(g *group, err error) {
	c.logger.Error("raft replica quarantined", "group", uint64(g.id), "error", err)
	c.fail(g, err)
}

// open makes the raft node of g from the state of its log. The state machine holds
// what it has flushed, or all up to applied if that is more.
func (c *Core) open(g *group, state wal.GroupState, known bool, applied uint64) {
	var err error
	if known {
		_, g.store.last = c.log.Bounds(g.id)
		if state.Installing != nil {
			state = c.finishInstall(g, state)
		}
		g.members, err = decodeMembership(state.Conf)
	} else {
		state, err = c.newGroupState(g)
		g.store.last = state.Truncated.Index
		g.clock.campaign = len(g.members.conf.Voters) > 0 && g.members.conf.Voters[0] == g.seen.replica
	}
	if err == nil {
		err = g.store.load(state, max(applied, g.machine.FlushedIndex()))
	}
	if err == nil && known {
		err = c.replayChanges(g)
	}
	if err != nil {
		c.quarantine(g, err)
		return
	}
	if !known {
		c.out.Appends = append(c.out.Appends, Append{Update: wal.Update{Group: g.id, Create: &state}})
	}
	g.store.conf = g.members.conf
	if mutant.WrongJointQuorum && g.members.joint() {
		g.store.conf = &raftpb.ConfState{Voters: g.store.conf.Voters, Learners: g.store.conf.Learners}
	}
	cfg := raftConfig(g)
	cfg.Logger = &raftLogger{c.logger, g.id}
	if g.node, err = raft.NewRawNode(cfg); err != nil {
		c.fail(g, err)
		return
	}
	g.flush.index = g.machine.FlushedIndex()
	g.clock.openCommit = g.store.hard.GetCommit()
	g.seen.term, g.seen.vote, g.seen.commit = g.store.hard.GetTerm(), g.store.hard.GetVote(), g.clock.openCommit
	c.enter(g)
	c.touch(g)
}

// replayChanges makes the changes of members whose entries the state machine
// has flushed, and raft will not hand out again. Where an installation was just
// completed the log still has the entries from before, which were perhaps never
// committed.
func (c *Core) replayChanges(g *group) error {
	for _, index := range c.log.Marked(g.id) {
		if index <= max(g.members.index, g.store.truncated.Index) || index > g.store.applied {
			continue
		}
		es, err := c.log.Entries(g.id, index, index+1, 0, nil)
		if err != nil {
			return fmt.Errorf("entry %d of raft group %d: %w", index, g.id, err)
		}
		cc, _, added, err := openChange(raftpb.EntryType(es[0].Kind), es[0].Data)
		if err != nil {
			return dsdb.Errorf(dsdb.KindCorrupt, "entry %d of raft group %d: %w", index, g.id, err)
		}
		if next, err := g.members.change(index, cc, added); err == nil {
			g.members = next
		}
	}
	return nil
}

// newGroupState is the state that all initial replicas of a group start with; a
// replica that joins later starts with nothing. If the state machine has flushed
// more than that, the log was lost: an only voter goes on from where it had
// flushed, another may have voted since and must not.
func (c *Core) newGroupState(g *group) (wal.GroupState, error) {
	at := birth
	if len(g.members.peers) == 0 {
		at = wal.Position{}
	}
	if flushed := g.machine.FlushedIndex(); flushed > at.Index {
		if !g.single() {
			return wal.GroupState{}, dsdb.Errorf(dsdb.KindCorrupt, "raft group %d has flushed up to %d, but is not in the log", g.id, flushed)
		}
		m, release, err := g.machine.Snapshot()
		if err != nil {
			return wal.GroupState{}, err
		}
		release()
		at = wal.Position{Index: m.Index, Term: max(m.Term, birth.Term)}
		c.logger.Warn("a raft group that the log does not hold goes on from what was flushed", "group", uint64(g.id), "index", at.Index)
	}
	return wal.GroupState{
		Replica:   dsdb.ReplicaID(g.seen.replica),
		HardState: wal.HardState{Term: at.Term, Commit: at.Index},
		Truncated: at,
		Conf:      appendMembership(nil, g.members),
	}, nil
}

// load takes over the state of a group's log. What the state machine has
// flushed was committed, whatever the log knows of it. It reports KindCorrupt
// if the log has lost entries that it once held.
func (s *storage) load(state wal.GroupState, flushed uint64) error {
	s.truncated = state.Truncated
	s.applied = max(flushed, state.Truncated.Index)
	if mutant.ApplyTwice {
		s.applied = state.Truncated.Index
	}
	hard := state.HardState
	commit := max(hard.Commit, s.applied)
	if mutant.CommitBehindFlush {
		commit = hard.Commit
	}
	if mutant.ShortLogAccepted {
		commit = min(commit, s.last)
		s.applied = min(s.applied, s.last)
	}
	if commit > s.last {
		return dsdb.Errorf(dsdb.KindCorrupt, "the log of raft group %d ends at %d, but %d was committed and %d flushed", s.group, s.last, hard.Commit, flushed)
	}
	if err := FilesMissing(s.group, state, flushed); err != nil {
		return err
	}
	s.hard.Term, s.hard.Vote, s.hard.Commit = &hard.Term, &hard.Vote, &commit
	return nil
}

func raftConfig(g *group) *raft.Config {
	uncommitted := uint64(maxUncommitted)
	if g.id == dsdb.MetaGroup {
		uncommitted = maxMetaBytes
	}
	return &raft.Config{
		ID: g.seen.replica, ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks,
		Storage: &g.store, Applied: g.store.applied, AsyncStorageWrites: true,
		MaxSizePerMsg: maxMessageBytes, MaxCommittedSizePerReady: maxApplyingBytes,
		MaxUncommittedEntriesSize: uncommitted, MaxInflightMsgs: maxInflight, MaxInflightBytes: maxInflightBytes,
		CheckQuorum: true, PreVote: true, ReadOnlyOption: raft.ReadOnlySafe,
		DisableProposalForwarding: true, StepDownOnRemoval: true,
	}
}

// sorted returns the groups by id.
func (c *Core) sorted() []*group {
	gs := make([]*group, 0, len(c.groups))
	for _, g := range c.groups {
		gs = append(gs, g)
	}
	slices.SortFunc(gs, func(a, b *group) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return gs
}

// failProposals ends the proposals of a group. Those that raft was not given are
// told err, those in its log, whose outcome nobody knows, lost.
func (g *group) failProposals(c *Core, err, lost error) {
	for _, p := range g.proposals {
		c.result(p.waiter, err)
	}
	g.proposals = nil
	if mutant.UnknownToldRefused {
		lost = err
	}
	for i := range g.pending {
		c.result(g.pending[i].waiter, lost)
		g.pending[i].waiter = nil
	}
	c.result(g.changing.waiter, lost)
	g.changing.waiter = nil
}

// failAll ends everything that waits for the group: with err, but for what is
// in raft's log.
func (g *group) failAll(c *Core, err error) {
	g.failProposals(c, err, unknownOutcome(err))
	g.reads.fail(c, err)
	g.failMatches(c, err)
	g.handover.end(c, err)
	if in := g.incoming; in != nil {
		c.result(in.waiter, unknownOutcome(err))
		in.waiter = nil
	}
}

// unknownOutcome is what those are told whose proposal is in the log, but will
// not be heard of here, because of err.
func unknownOutcome(err error) error {
	return &dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout: the outcome is unknown: " + err.Error(), Err: err}
}
