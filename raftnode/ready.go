package raftnode

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/wal"
)

// advance lets raft act on the inputs of one group and hands out what it wants done.
func (c *Core) advance(g *group) {
	if g.clock.campaign && g.store.applied >= g.seen.commit {
		g.clock.campaign = false
		_ = g.node.Campaign() // raft logs why it cannot; its clock will try again
	}
	c.propose(g)
	c.settle(g)
	for {
		for g.node.HasReady() {
			c.handle(g, g.node.Ready())
		}
		if !c.issueReads(g) && !g.yield() {
			break
		}
	}
	c.refusedInstall(g)
	g.reads.release(c, g.store.applied)
	c.checkMatches(g)
	c.checkHandover(g)
	c.askSnapshot(g)
	g.publish()
}

// propose gives the group's new proposals to raft, many in one message. If
// those are too much for raft together, each is tried by itself.
func (c *Core) propose(g *group) {
	if len(g.proposals) == 0 {
		return
	}
	st := g.node.BasicStatus()
	if st.RaftState != raft.StateLeader || g.witness {
		g.seen.lead = st.Lead
		for _, p := range g.proposals {
			c.result(p.waiter, g.notLeader())
		}
		g.proposals = g.proposals[:0]
		return
	}
	room, limit := g.proposals[:0], maxScratch
	for len(g.proposals) > 0 {
		n := batchLength(g.proposals, limit)
		if !c.proposeBatch(g, g.proposals[:n], st.GetTerm()) {
			if n > 1 {
				limit = 0
				continue
			}
			c.result(g.proposals[0].waiter, dsdb.Errorf(dsdb.KindUnavailable, "timeout: raft group %d has too many writes in progress", g.id))
		}
		clear(g.proposals[:n])
		g.proposals = g.proposals[n:]
	}
	g.proposals = room
}

// batchLength returns how many of ps have at most limit bytes together; at least one.
func batchLength(ps []proposal, limit int) int {
	size := 0
	for i, p := range ps {
		size += envelopeSize + len(p.data)
		if size > limit && i > 0 {
			return i
		}
	}
	return len(ps)
}

// proposeBatch proposes ps as one entry each, all or none. Raft copies the
// entries, so that the same ones, with one buffer for their data, serve all calls.
func (c *Core) proposeBatch(g *group, ps []proposal, term uint64) bool {
	size := 0
	for _, p := range ps {
		size += envelopeSize + len(p.data)
	}
	if cap(c.scratch) < size {
		c.scratch = make([]byte, 0, size)
	}
	for len(c.blank) < len(ps) {
		c.blank = append(c.blank, new(raftpb.Entry))
	}
	buf, ents := c.scratch[:0], c.blank[:len(ps)]
	for i, p := range ps {
		from := len(buf)
		buf = appendProposal(buf, c.origin, c.seq+uint64(i)+1, p.data)
		ents[i].Data = buf[from:len(buf):len(buf)]
	}
	err := g.node.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: &g.seen.replica, Entries: ents})
	for _, e := range ents {
		e.Data = nil
	}
	if cap(c.scratch) > maxScratch {
		c.scratch = nil
	}
	if errors.Is(err, raft.ErrProposalDropped) {
		return false
	}
	if err != nil {
		panic(fmt.Sprintf("propose: %v", err))
	}
	for _, p := range ps {
		c.seq++
		g.pending = append(g.pending, pending{c.seq, term, p.waiter})
	}
	return true
}

// maxScratch is the most bytes of proposals in one message, and the largest
// buffer for them that is kept.
const maxScratch = 4 << 20

// handle takes one Ready of raft apart. A candidate's requests for votes wait, like
// all that raft promises, until its term and its own vote are durable. Raft does
// not ask for that, as it counts its own vote only then: but the others alone may
// elect it, and if it forgot the term in which it led, they would elect it in
// that term once more, with other entries under the same indexes.
func (c *Core) handle(g *group, rd raft.Ready) {
	committed := g.seen.commit
	c.observe(g, rd)
	c.observeChanges(g, rd.Entries)
	for _, rs := range rd.ReadStates {
		g.reads.confirmReads(c, rs.RequestCtx, rs.Index)
	}
	var ballots []*raftpb.Message
	for _, m := range rd.Messages {
		switch to := m.GetTo(); {
		case to == raft.LocalAppendThread: // it follows what goes to others
			m.Responses = slices.Concat(ballots, m.GetResponses())
			ballots = nil
			c.appendMessage(g, m)
		case to == raft.LocalApplyThread:
			c.applyMessage(g, m)
		case m.GetType() == raftpb.MsgVote && !mutant.VotesAskedBeforeSync:
			ballots = append(ballots, m)
		case m.GetCommit() > committed && toldLater(m):
		default:
			c.send(g, m)
		}
	}
	if len(ballots) > 0 {
		panic(fmt.Sprintf("BUG: group %d: votes are asked for in term %d, of which nothing is to be stored", g.id, g.seen.term))
	}
}

// toldLater reports whether a message that tells a follower what has just been
// committed, and nothing else, may stay away: the follower has been sent more
// entries, which are not committed yet, and hears of it with what follows these, or
// with a heartbeat (that of a read index is one), as if this message were lost.
// Under load that is a third of all messages.
func toldLater(m *raftpb.Message) bool {
	return m.GetType() == raftpb.MsgApp && len(m.GetEntries()) == 0 && m.GetIndex() > m.GetCommit()
}

// observe notes changes of term, leader and commit index. Reads that an older
// leadership of this replica was to confirm are lost: raft drops them silently.
func (c *Core) observe(g *group, rd raft.Ready) {
	was := g.seen
	if rd.SoftState != nil {
		c.wake(g)
		if lead := rd.SoftState.Lead; lead != raft.None && lead != was.lead && !g.single() {
			c.metrics.Leaders.Add(1)
		}
		g.seen.lead, g.seen.leading = rd.SoftState.Lead, rd.SoftState.RaftState == raft.StateLeader
	}
	if hs := rd.HardState; !raft.IsEmptyHardState(hs) {
		if hs.GetTerm() < was.term || hs.GetCommit() < was.commit {
			panic(fmt.Sprintf("BUG: group %d: hard state went back from term %d, commit %d to %v", g.id, was.term, was.commit, hs))
		}
		g.seen.term, g.seen.vote, g.seen.commit = hs.GetTerm(), hs.GetVote(), hs.GetCommit()
	}
	if g.seen.leading == was.leading && g.seen.term == was.term {
		return
	}
	c.wind(g)
	g.settling.asked, g.settling.entry = 0, 0
	if was.leading {
		g.reads.failUnserved(c, g.notLeader())
		g.failMatches(c, g.notLeader())
		c.dropReady(g)
		g.sending.setbacks = nil
	}
	if !g.seen.leading {
		return
	}
	g.seen.termStart, g.seen.changed = 0, 0
	for _, e := range rd.Entries {
		if e.GetTerm() == g.seen.term {
			g.seen.termStart = e.GetIndex()
			break
		}
	}
	if g.seen.termStart == 0 {
		panic(fmt.Sprintf("BUG: group %d: became leader of term %d without an entry", g.id, g.seen.term))
	}
	if !g.single() {
		c.metrics.Elected.Add(1)
		c.logger.Info("raft group has a new leader", "group", uint64(g.id), "replica", g.seen.replica, "term", g.seen.term)
	}
}

// appendMessage makes the log update of a MsgStorageAppend. A new commit index
// alone is held back until something else of the group is written: nothing
// depends on it.
func (c *Core) appendMessage(g *group, m *raftpb.Message) {
	if in := g.incoming; in != nil && in.message != nil && !in.applied {
		in.later = append(in.later, m)
		return
	}
	if m.GetSnapshot() != nil {
		c.beginInstall(g, m)
		return
	}
	hs, urgent := g.held, len(m.GetResponses()) > 0 || len(m.GetEntries()) > 0
	if m.Term != nil {
		hs = &wal.HardState{Term: m.GetTerm(), Vote: m.GetVote(), Commit: m.GetCommit()}
		urgent = urgent || hs.Term != g.store.hard.GetTerm() || hs.Vote != g.store.hard.GetVote()
		g.store.hard.Term, g.store.hard.Vote = m.Term, m.Vote
	}
	if mutant.SkipVotePersist && hs != nil {
		hs.Vote = 0
	}
	if !urgent {
		g.held = hs
		return
	}
	g.held = nil
	a := Append{Update: wal.Update{Group: g.id, HardState: hs}, group: g, entries: m.GetEntries(), responses: m.GetResponses()}
	if len(a.entries) > 0 {
		a.Update.Entries = appendLogEntries(make([]wal.Entry, 0, len(a.entries)), a.entries)
	}
	a.Empty = hs == nil && len(a.entries) == 0
	if mutant.AckBeforeSync {
		a.responses = slices.DeleteFunc(slices.Clone(a.responses), func(m *raftpb.Message) bool {
			if m.GetTo() != g.seen.replica {
				c.send(g, m)
			}
			return m.GetTo() != g.seen.replica
		})
	}
	c.out.Appends = append(c.out.Appends, a)
}

// stored acts on a finished append: raft and other replicas get to know.
func (c *Core) stored(g *group, a *Append) {
	if a.install != nil && !c.storedInstall(g, a.install) {
		return
	}
	g.store.appended(a.entries)
	for _, m := range a.responses {
		if m.GetTo() != g.seen.replica {
			c.send(g, m)
			continue
		}
		if err := g.node.Step(m); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) { // this replica left its group meanwhile
			panic(fmt.Sprintf("step %v: %v", m.GetType(), err))
		}
	}
}

// applyMessage makes the apply task of a MsgStorageApply.
func (c *Core) applyMessage(g *group, m *raftpb.Message) {
	n := len(m.GetEntries())
	t := ApplyTask{Group: g.id, Machine: g.machine, group: g, response: m.GetResponses()[0],
		Entries: make([]dsdb.Entry, n), Waiters: make([]Waiter, n)}
	for i, re := range m.GetEntries() {
		e := dsdb.Entry{Index: re.GetIndex(), Term: re.GetTerm()}
		g.settleLost(c, e.Term)
		if t.newer = newerEntry(re); t.newer != nil {
			t.newer = fmt.Errorf("raft group %d: entry %d: %w", g.id, e.Index, t.newer)
			t.Entries, t.Waiters = t.Entries[:i], t.Waiters[:i]
			break
		}
		switch {
		case re.GetType() != raftpb.EntryNormal:
			ch := raftChange{e.Index, re.GetType(), re.GetData()}
			g.changing.commit(c.origin, ch)
			t.changes = append(t.changes, ch)
		case len(re.GetData()) > 0:
			origin, seq, payload, err := openProposal(re.GetData())
			if err != nil {
				panic(fmt.Sprintf("entry %d: %v", e.Index, err))
			}
			e.Data = payload
			t.Waiters[i] = g.takePending(c, origin, seq)
		}
		t.Entries[i] = e
	}
	c.out.Tasks = append(c.out.Tasks, t)
}

// settleLost tells those whose proposals were overwritten: a log never goes
// back to an earlier term, so once an entry of a later one is committed, a
// proposal that was not is lost.
func (g *group) settleLost(c *Core, term uint64) {
	n := 0
	for n < len(g.pending) && g.pending[n].term < term {
		if mutant.LostToldDone {
			g.pending[n].waiter.Done(dsdb.Verdict{}, nil)
			n++
			continue
		}
		c.result(g.pending[n].waiter, dsdb.Errorf(dsdb.KindUnavailable, "raft group %d: the write was lost to a change of leader", g.id))
		n++
	}
	g.dropPending(n)
	if g.changing.waiter != nil && !g.changing.committed && g.changing.term < term {
		c.result(g.changing.waiter, dsdb.Errorf(dsdb.KindUnavailable, "raft group %d: the change of members was lost to a change of leader", g.id))
		g.changing.waiter = nil
	}
}

// takePending returns the waiter of a committed proposal, nil if there is none.
func (g *group) takePending(c *Core, origin, seq uint64) Waiter {
	if origin != c.origin || len(g.pending) == 0 || seq < g.pending[0].seq {
		return nil // an earlier one may have been given up, see installed
	}
	p := g.pending[0]
	if p.seq != seq {
		panic(fmt.Sprintf("BUG: group %d: proposal %d was committed before %d", g.id, seq, p.seq))
	}
	g.dropPending(1)
	return p.waiter
}

func (g *group) dropPending(n int) {
	clear(g.pending[:n])
	if n == len(g.pending) {
		g.pending = g.pending[:0]
		return
	}
	g.pending = g.pending[n:]
}

// applied acts on a finished task.
func (c *Core) applied(g *group, t *ApplyTask) {
	last := t.Entries[len(t.Entries)-1].Index
	if last <= g.store.applied || last > g.seen.commit {
		panic(fmt.Sprintf("BUG: group %d: applied up to %d after %d, committed is %d", g.id, last, g.store.applied, g.seen.commit))
	}
	for _, ch := range t.changes {
		c.applyChange(g, ch)
	}
	g.store.applied = last
	if g.single() || g.witness {
		g.store.evict(0)
	} else {
		g.store.evict(cacheApplied)
	}
	if err := g.node.Step(t.response); err != nil {
		panic(fmt.Sprintf("step %v: %v", t.response.GetType(), err))
	}
	if g.flush.ahead {
		c.truncate(g)
	}
}

// send puts a message into the outbox of the node that holds its receiver.
func (c *Core) send(g *group, m *raftpb.Message) {
	to := dsdb.ReplicaID(m.GetTo())
	p, known := g.members.peer(to)
	if !known {
		p, known = g.contacts.peer(to)
	}
	if !known {
		return
	}
	e := Envelope{Group: g.id, From: dsdb.ReplicaID(g.seen.replica), To: to, Message: m}
	if m.GetType() == raftpb.MsgSnap {
		c.sendSnapshot(g, p.Node, e)
		return
	}
	for i := range c.out.Network {
		if c.out.Network[i].Node == p.Node {
			c.out.Network[i].Messages = append(c.out.Network[i].Messages, e)
			return
		}
	}
	c.out.Network = append(c.out.Network, Outbox{p.Node, []Envelope{e}})
}

func (g *group) publish() {
	p := g.progress
	p.leading.Store(g.seen.leading)
	p.lead(g.seen.lead, g.nodeOf(dsdb.ReplicaID(g.seen.lead)))
	p.settled.Store(g.settled())
	p.term.Store(g.seen.term)
	p.commit.Store(g.seen.commit)
	p.applied.Store(g.store.applied)
	p.last.Store(g.store.last)
	p.cached.Store(g.store.cacheBytes)
	waiting := len(g.proposals) + len(g.pending) + g.reads.length() + len(g.matches)
	p.waiting.Store(uint64(waiting))
}
