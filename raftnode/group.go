package raftnode

import (
	"fmt"
	"slices"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// The position at which every new group starts, the same on all its replicas:
// raft takes it for a snapshot that carries the initial membership.
var birth = wal.Position{Index: 10, Term: 1}

// The settings of the raft library.
const (
	electionTicks    = 15 // of 100 ms; randomised up to twice as many
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
	id         dsdb.GroupID
	peers      []Peer
	machine    StateMachine
	node       *raft.RawNode
	store      storage
	seen       observed
	proposals  []proposal // to be given to raft at the next Drain
	pending    []pending  // in raft's log, waiting to be applied, in log order
	reads      readQueue
	openCommit uint64         // what was committed when the group was opened
	held       *wal.HardState // a new commit index alone, to be written with the next update
	failed     error
	progress   *progress
	broken     error // the state machine's; belongs to whoever runs the apply tasks
	campaign   bool  // as soon as openCommit is applied
	flushed    bool  // the state machine flushed more than the core knows as applied
	dirty      bool
}

// observed is what the core last saw of raft's state.
type observed struct {
	replica    uint64
	lead       uint64
	leading    bool
	term, vote uint64
	commit     uint64
	termStart  uint64 // index of the first entry of the term that this replica leads
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
	Removed    bool           // this replica was a member and is none any more
	Members    Members
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
	leader, term, commit, applied, last, cached, waiting atomic.Uint64
	failed                                               atomic.Pointer[error]
}

func (p *progress) status() GroupStatus {
	s := GroupStatus{
		Leader: dsdb.ReplicaID(p.leader.Load()), Term: p.term.Load(),
		Commit: p.commit.Load(), Applied: p.applied.Load(), Last: p.last.Load(),
		Cached: p.cached.Load(), Waiting: p.waiting.Load(),
	}
	if err := p.failed.Load(); err != nil {
		s.Failed = *err
	}
	return s
}

func (g *group) single() bool { return len(g.peers) == 1 }

func (g *group) failedError() error {
	return &dsdb.Error{Kind: dsdb.KindUnavailable, Text: fmt.Sprintf("replica of raft group %d is out of service: %v", g.id, g.failed), Err: g.failed}
}

// accepts checks that a message comes from another voter, is for this replica,
// and is of a type that replicas send to each other.
func (g *group) accepts(e Envelope) bool {
	m := e.Message
	if m == nil || e.From == e.To || uint64(e.To) != g.seen.replica || m.GetTo() != uint64(e.To) || m.GetFrom() != uint64(e.From) {
		return false
	}
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow,
		raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp:
	default:
		return false
	}
	return slices.ContainsFunc(g.peers, func(p Peer) bool { return p.Replica == e.From })
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
	if removed := c.log.Removed(spec.ID); spec.Replica <= removed {
		return nil, dsdb.Errorf(dsdb.KindConflict, "raft group %d: replica %d left this node, ids up to %d are spent", spec.ID, spec.Replica, removed)
	}
	if !known && !spec.New {
		return nil, dsdb.Errorf(dsdb.KindNotFound, "raft group %d is not in the log", spec.ID)
	}
	g := &group{id: spec.ID, peers: slices.Clone(spec.Founders), machine: spec.StateMachine, progress: new(progress)}
	g.seen.replica = uint64(spec.Replica)
	g.store.group, g.store.log = spec.ID, c.log
	c.groups[spec.ID] = g
	if spec.Suspect {
		c.quarantine(g, dsdb.Errorf(dsdb.KindCorrupt, "the log may have lost entries of raft group %d", g.id))
		return g.progress, nil
	}
	c.guard(g, func() { c.open(g, state, known) })
	return g.progress, nil
}

// Status returns what the core knows of its replica of a group; Failed is set if it has none.
func (c *Core) Status(id dsdb.GroupID) GroupStatus {
	g := c.groups[id]
	if g == nil {
		return GroupStatus{Failed: errNoGroup(id)}
	}
	return g.progress.status()
}

// quarantine keeps a replica that cannot be trusted out of service.
func (c *Core) quarantine(g *group, err error) {
	c.logger.Error("raft replica quarantined", "group", uint64(g.id), "error", err)
	c.fail(g, err)
}

// open makes the raft node of g from the state of its log.
func (c *Core) open(g *group, state wal.GroupState, known bool) {
	if known {
		_, g.store.last = c.log.Bounds(g.id)
		g.campaign = g.single()
	} else {
		var err error
		if state, err = c.newGroupState(g); err != nil {
			c.quarantine(g, err)
			return
		}
		g.store.last = state.Truncated.Index
		g.campaign = g.peers[0].Replica == state.Replica
		c.out.Appends = append(c.out.Appends, Append{Update: wal.Update{Group: g.id, Create: &state}})
	}
	if err := g.store.load(state, g.machine.FlushedIndex()); err != nil {
		c.quarantine(g, err)
		return
	}
	cfg := raftConfig(g)
	cfg.Logger = &raftLogger{c.logger, g.id}
	node, err := raft.NewRawNode(cfg)
	if err != nil {
		c.fail(g, err)
		return
	}
	g.node = node
	g.openCommit = g.store.hard.GetCommit()
	g.seen.term, g.seen.vote, g.seen.commit = g.store.hard.GetTerm(), g.store.hard.GetVote(), g.openCommit
	if !g.single() {
		slice := int(uint64(g.id) % TickSlices)
		c.ticking[slice] = append(c.ticking[slice], g)
	}
	c.touch(g)
}

// newGroupState is the state that all initial replicas of a group start with.
// If the state machine has flushed more than that, the log was lost: an only
// voter goes on from where it had flushed, another may have voted since and
// must not.
func (c *Core) newGroupState(g *group) (wal.GroupState, error) {
	at := birth
	if flushed := g.machine.FlushedIndex(); flushed > birth.Index {
		if !g.single() {
			return wal.GroupState{}, dsdb.Errorf(dsdb.KindCorrupt, "raft group %d has flushed up to %d, but is not in the log", g.id, flushed)
		}
		m, release, err := g.machine.Snapshot()
		if err != nil {
			return wal.GroupState{}, err
		}
		release()
		at = wal.Position{Index: m.Index, Term: max(m.Term, birth.Term)}
		c.logger.Warn("the log of a raft group is lost; it goes on from what was flushed", "group", uint64(g.id), "index", at.Index)
	}
	conf := &raftpb.ConfState{}
	for _, p := range g.peers {
		conf.Voters = append(conf.Voters, uint64(p.Replica))
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(conf)
	if err != nil {
		panic(fmt.Sprintf("BUG: marshal a membership: %v", err))
	}
	return wal.GroupState{
		Replica:   dsdb.ReplicaID(g.seen.replica),
		HardState: wal.HardState{Term: at.Term, Commit: at.Index},
		Truncated: at,
		Conf:      b,
	}, nil
}

// load takes over the state of a group's log. What the state machine has
// flushed was committed, whatever the log knows of it. It reports KindCorrupt
// if the log has lost entries that it once held.
func (s *storage) load(state wal.GroupState, flushed uint64) error {
	s.truncated = state.Truncated
	s.applied = max(flushed, state.Truncated.Index)
	hard := state.HardState
	commit := max(hard.Commit, s.applied)
	if commit > s.last {
		return dsdb.Errorf(dsdb.KindCorrupt, "the log of raft group %d ends at %d, but %d was committed and %d flushed", s.group, s.last, hard.Commit, flushed)
	}
	if state.Truncated != birth && flushed < state.Truncated.Index {
		return dsdb.Errorf(dsdb.KindCorrupt, "the log of raft group %d begins after %d, but only %d was flushed: files of the replica are missing", s.group, state.Truncated.Index, flushed)
	}
	if err := proto.Unmarshal(state.Conf, &s.conf); err != nil {
		return dsdb.Errorf(dsdb.KindCorrupt, "membership of raft group %d in the log: %w", s.group, err)
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

// truncate gives the log leave to forget what the state machine holds. The
// only voter may forget all of that. In a larger group only the leader knows
// what the others still need from its log; nothing that any voter lacks is
// forgotten.
func (c *Core) truncate(g *group) {
	index := g.machine.FlushedIndex()
	g.flushed = index > g.store.applied // its ApplyDone is still to come
	index = min(index, g.store.applied)
	if !g.single() {
		st := g.node.Status() // not what the last Drain saw: it has progress only while it leads
		if st.RaftState != raft.StateLeader {
			return
		}
		for _, pr := range st.Progress { // a minimum: any order
			index = min(index, pr.Match)
		}
	}
	if index <= g.store.truncated.Index {
		return
	}
	term, err := g.store.Term(index)
	if err != nil {
		panic(fmt.Sprintf("term of flushed entry %d: %v", index, err))
	}
	p := wal.Position{Index: index, Term: term}
	g.store.truncate(p)
	c.out.Appends = append(c.out.Appends, Append{Update: wal.Update{Group: g.id, Truncate: &p, Conf: g.confBytes()}})
}

func (g *group) confBytes() []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&g.store.conf)
	if err != nil {
		panic(fmt.Sprintf("BUG: marshal a membership: %v", err))
	}
	return b
}

func (c *Core) untick(g *group) {
	slice := &c.ticking[uint64(g.id)%TickSlices]
	*slice = slices.DeleteFunc(*slice, func(t *group) bool { return t == g })
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

// failProposals tells err to all who wait for a proposal. Those in the log may
// still be applied.
func (g *group) failProposals(c *Core, err error) {
	for _, p := range g.proposals {
		c.result(p.waiter, err)
	}
	g.proposals = nil
	for i := range g.pending {
		c.result(g.pending[i].waiter, err)
		g.pending[i].waiter = nil
	}
}

// failAll tells err to all who wait for the group.
func (g *group) failAll(c *Core, err error) {
	g.failProposals(c, err)
	g.reads.fail(c, err)
}
