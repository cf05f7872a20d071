package raftnode

import (
	"fmt"
	"runtime/debug"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/wal"
)

// installation is a snapshot on its way into a replica, in these steps:
//
//  1. Raft takes it. From here on raft's own state is that of the snapshot, and
//     what raft wants written has to wait.
//  2. The log notes what is to come: after a crash a state machine that holds
//     the snapshot has its log reset, another one goes on as it was.
//  3. Behind the outstanding applies the state machine installs the files.
//  4. The log is reset to the snapshot, together with what came after it. Raft,
//     and by it the leader, get to know.
type installation struct {
	snapshot Snapshot
	dir      string
	members  *membership
	waiter   Waiter
	state    wal.GroupState    // what the log is reset to
	message  *raftpb.Message   // raft's, once it has taken the snapshot
	later    []*raftpb.Message // what raft wanted written since
	applied  bool              // the state machine has it
}

// Install replaces the state of a replica by a snapshot whose files lie in dir.
// The waiter is told nil once that is durable, or if the replica has as much
// already; then dir is of no more use. KindUnavailable: not now.
func (c *Core) Install(from Sender, s Snapshot, dir string, w Waiter) {
	g := c.groups[s.Envelope.Group]
	switch {
	case g == nil:
		c.result(w, errNoGroup(s.Envelope.Group))
	case g.failed != nil || g.halted != nil:
		c.result(w, g.failedError())
	case g.incoming != nil:
		c.result(w, dsdb.Errorf(dsdb.KindUnavailable, "raft group %d: another snapshot is being installed", g.id))
	default:
		members, err := g.checkSnapshot(&s)
		if err != nil {
			c.result(w, err)
			return
		}
		node, genuine := g.holder(s.Envelope.From, from)
		if !genuine {
			c.result(w, dsdb.Errorf(dsdb.KindInvalid, "raft group %d: snapshot of replica %d from node %d, which does not hold it", g.id, s.Envelope.From, from.Node))
			return
		}
		g.contacts.heard(g, s.Envelope.From, node)
		c.wake(g)
		g.incoming = &installation{snapshot: s, dir: dir, members: members, waiter: w}
		c.guard(g, func() { _ = g.node.Step(s.Envelope.Message) }) // refused: see refusedInstall
		c.touch(g)
	}
}

// checkSnapshot reports what is wrong with a snapshot that has arrived, and
// returns the members that it names.
func (g *group) checkSnapshot(s *Snapshot) (*membership, error) {
	e, meta := s.Envelope, s.Envelope.Message.GetSnapshot().GetMetadata()
	m := e.Message
	if m.GetType() != raftpb.MsgSnap || e.From == 0 || m.GetFrom() != uint64(e.From) || m.GetTo() != uint64(e.To) || uint64(e.To) != g.seen.replica {
		return nil, dsdb.Errorf(dsdb.KindInvalid, "raft group %d: snapshot of replica %d for replica %d, this is %d", g.id, e.From, e.To, g.seen.replica)
	}
	members, err := decodeMembership(m.GetSnapshot().GetData())
	if err != nil {
		return nil, err
	}
	index := meta.GetIndex()
	if err := members.conf.Equivalent(meta.GetConfState()); err != nil || len(members.conf.Voters) == 0 || index < birth.Index ||
		s.Manifest.Index != index && (index != birth.Index || s.Manifest.Index > index) {
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "raft group %d: snapshot at %d with members %v and files as of %d", g.id, index, members.conf, s.Manifest.Index)
	}
	return members, nil
}

// refusedInstall ends an installation that raft did not begin.
func (c *Core) refusedInstall(g *group) {
	in := g.incoming
	if in == nil || in.message != nil {
		return
	}
	g.incoming = nil
	if index := in.snapshot.Manifest.Index; g.seen.commit < max(index, birth.Index) {
		c.result(in.waiter, dsdb.Errorf(dsdb.KindUnavailable, "raft group %d: the snapshot at %d is not for this term or these members", g.id, index))
		return
	}
	c.result(in.waiter, nil)
}

// beginInstall notes in the log that a snapshot is about to be installed.
func (c *Core) beginInstall(g *group, m *raftpb.Message) {
	in := g.incoming
	if in == nil {
		panic(fmt.Sprintf("BUG: group %d: raft accepted a snapshot that was not offered", g.id))
	}
	meta := m.GetSnapshot().GetMetadata()
	if m.Term != nil {
		g.store.hard.Term, g.store.hard.Vote = m.Term, m.Vote
	}
	in.message = m
	in.state = wal.GroupState{
		Replica:   dsdb.ReplicaID(g.seen.replica),
		HardState: wal.HardState{Term: g.store.hard.GetTerm(), Vote: g.store.hard.GetVote(), Commit: meta.GetIndex()},
		Truncated: wal.Position{Index: meta.GetIndex(), Term: meta.GetTerm()},
		Conf:      appendMembership(nil, in.members),
	}
	g.held = nil
	g.members = in.members
	c.enter(g)
	g.loseProposals(c)
	c.out.Appends = append(c.out.Appends, Append{Update: wal.Update{Group: g.id, Installing: &in.state}, group: g, install: in})
	if mutant.InstallUnannounced {
		c.out.Appends[len(c.out.Appends)-1].Empty = true
	}
}

// loseProposals ends the proposals in a log that is about to be replaced: they
// may be part of the snapshot or not.
func (g *group) loseProposals(c *Core) {
	err := dsdb.Errorf(dsdb.KindTimeout, "timeout: raft group %d: the replica fell behind, the outcome is unknown", g.id)
	for _, p := range g.pending {
		c.result(p.waiter, err)
	}
	g.pending = nil
	c.result(g.changing.waiter, err)
	g.changing.waiter = nil
}

// storedInstall acts on the first durable append of an installation, and, like
// storage does on any other, on the second; it reports whether it is the second.
func (c *Core) storedInstall(g *group, in *installation) bool {
	if in.applied {
		g.store.reset(in.state.Truncated)
		c.dropReady(g)
		g.incoming = nil
		c.result(in.waiter, nil)
		return true
	}
	c.out.Tasks = append(c.out.Tasks, ApplyTask{Group: g.id, Machine: g.machine, group: g, install: in})
	return false
}

func (t *ApplyTask) runInstall() error {
	if t.group.broken == nil {
		t.group.broken = t.machineInstall()
	}
	return t.group.broken
}

func (t *ApplyTask) machineInstall() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("raft group %d: install: %v\n%s", t.Group, p, debug.Stack())
		}
	}()
	if err := t.Machine.Install(t.install.snapshot.Manifest, t.install.dir); err != nil {
		return fmt.Errorf("raft group %d: install a snapshot at %d: %w", t.Group, t.install.state.Truncated.Index, err)
	}
	return nil
}

// installed resets the log once the state machine holds the snapshot.
func (c *Core) installed(g *group, in *installation) {
	in.applied = true
	m := in.message
	a := Append{Update: wal.Update{Group: g.id, Reset: &in.state}, group: g, entries: m.GetEntries(), responses: m.GetResponses(), install: in}
	if len(a.entries) > 0 {
		a.Update.Entries = appendLogEntries(nil, a.entries)
	}
	c.out.Appends = append(c.out.Appends, a)
	c.logger.Info("raft snapshot is installed", "group", uint64(g.id), "replica", g.seen.replica, "index", in.state.Truncated.Index)
	for _, m := range in.later {
		c.appendMessage(g, m)
	}
	in.later = nil
}

// finishInstall completes the installation that a crash interrupted, or gives
// it up, and returns what the state of the log is then.
func (c *Core) finishInstall(g *group, state wal.GroupState) wal.GroupState {
	to := *state.Installing
	state.Installing = nil
	u := wal.Update{Group: g.id, Installing: &wal.GroupState{}}
	if g.machine.FlushedIndex() == to.Truncated.Index {
		u = wal.Update{Group: g.id, Reset: &to}
		state, g.store.last = to, to.Truncated.Index
	}
	c.out.Appends = append(c.out.Appends, Append{Update: u})
	return state
}
