package raftnode

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// maxLag is how many committed entries a learner may lack when it is promoted.
const maxLag = 1000

// jointTicks is how long members may be joint before the leader tries once more
// to leave that.
const jointTicks = uint64(2 * time.Second / TickEvery)

// changing is the change of members that this replica has proposed; without a
// waiter there is none, or nobody waits for it any more.
type changing struct {
	seq, term uint64
	waiter    Waiter
	leave     bool // then the leadership is handed on, and the waiter told KindNotLeader
	logged    bool // raft has taken it for what it is
	committed bool
}

// settling is how a leader makes sure of the members. Behind a change that is in
// force it proposes an empty entry. Once that is committed, a quorum of the new
// members knows durably that the change is, as entries travel with the commit
// index. Only then may those be destroyed who left: before, the others might
// need them to elect a leader.
type settling struct {
	done  uint64 // index of the newest change that is settled
	asked uint64 // of the change whose entry is proposed; 0: none in this term
	entry uint64 // index of that entry, or of one behind it; 0: not known yet
	left  []Peer // who left by changes that are not settled
}

// raftChange is a committed entry that changes the members.
type raftChange struct {
	index uint64
	kind  raftpb.EntryType
	data  []byte
}

// The context of a change is
//
//	u8 version | u64 origin | u64 seq | peers
//
// with origin and seq as in the envelope of proposals, and the peers that it
// adds. Version and peers are as in a membership.

// openChange reads an entry that changes the members. One that raft made itself,
// to leave a joint configuration, has no context.
func openChange(kind raftpb.EntryType, data []byte) (cc *raftpb.ConfChangeV2, id [2]uint64, added []Peer, err error) {
	if cc, err = parseChange(kind, data); err != nil || len(cc.GetContext()) == 0 {
		return cc, id, nil, err
	}
	r := reader{b: cc.GetContext()}
	version := r.uint8()
	if version > witnessVersion {
		return cc, id, nil, dsdb.Errorf(dsdb.KindUnavailable, "change of members of format %d, this program reads %d: %w", version, witnessVersion, dsdb.ErrNewer)
	}
	id = [2]uint64{r.uint64(), r.uint64()}
	added = r.peers(version)
	if version == 0 || r.bad || len(r.b) > 0 {
		err = dsdb.Errorf(dsdb.KindCorrupt, "context of %d bytes of a change of members", len(cc.GetContext()))
	}
	return cc, id, added, err
}

// commit notes that a change of members is committed, if it is the one that waits.
func (ch *changing) commit(origin uint64, r raftChange) {
	if ch.waiter == nil {
		return
	}
	if _, id, _, err := openChange(r.kind, r.data); err == nil && id == [2]uint64{origin, ch.seq} {
		ch.committed = true
	}
}

// Change asks for the members of a group to be changed. The waiter is told when
// the final members, not a joint configuration on the way, are in force here.
// Replicas that were removed may be destroyed then, not earlier.
// KindUnavailable: not now, as another change is under way, a learner to be
// promoted lags, or too few of the future voters are active; KindInvalid: never;
// KindTimeout: the outcome is unknown; KindNotLeader: ask the one that leads. A
// leader that is to lose its vote hands on its leadership first, if it must after the
// other changes, and answers KindNotLeader.
func (c *Core) Change(id dsdb.GroupID, changes []Change, w Waiter) {
	g := c.serving(id, w)
	switch {
	case g == nil:
	case c.refusal(id) != nil:
		c.result(w, c.refusal(id))
	default:
		c.guard(g, func() {
			if err := c.change(g, changes, w); err != nil {
				c.result(w, err)
			}
		})
		c.touch(g)
	}
}

// change proposes changes. If there is nothing to do it waits until that is sure.
func (c *Core) change(g *group, changes []Change, w Waiter) (err error) {
	if g.node.BasicStatus().RaftState != raft.StateLeader || g.witness {
		return g.notLeader()
	}
	changes, err = g.members.missing(g.id, changes)
	if err != nil {
		return err
	}
	busy := g.members.joint() || g.changing.waiter != nil || !g.seen.leading ||
		g.store.applied < g.seen.termStart || g.store.applied < g.seen.changed
	if busy {
		return dsdb.Errorf(dsdb.KindUnavailable, "raft group %d: another change of members is under way", g.id)
	}
	cc, added := confChange(changes)
	if _, err := g.members.change(0, cc, added); err != nil && len(changes) > 0 {
		return err
	}
	heir := g.successor(0, changes)
	changes, leave := withoutLeaving(changes, dsdb.ReplicaID(g.seen.replica))
	if leave && (len(changes) == 0 || heir != 0) {
		c.handOn(g, heir, w, true)
		return nil
	}
	if len(changes) == 0 {
		g.changing = changing{term: g.seen.term, waiter: w, logged: true, committed: true} // see settle
		return nil
	}
	cc, added = confChange(changes)
	next, err := g.members.change(0, cc, added)
	if err == nil {
		err = g.safe(changes, next)
	}
	if err != nil {
		return err
	}
	seq := c.seq + 1
	cc.Context = le.AppendUint64(le.AppendUint64([]byte{versionOf(added)}, c.origin), seq)
	cc.Context = appendPeers(cc.Context, added)
	if err := proposeChange(g, cc); err != nil {
		return err
	}
	c.seq = seq
	g.changing = changing{seq: seq, term: g.seen.term, waiter: w, leave: leave}
	return nil
}

// missing returns the changes that are not in force yet. It reports KindInvalid
// for those that contradict the members or each other.
func (m *membership) missing(id dsdb.GroupID, changes []Change) ([]Change, error) {
	var out []Change
	for i, ch := range changes {
		r := ch.Peer.Replica
		p, known := m.peer(r)
		twice := slices.ContainsFunc(changes[:i], func(o Change) bool { return o.Peer.Replica == r })
		holds := slices.ContainsFunc(m.peers, func(o Peer) bool { return o.Node == ch.Peer.Node && o.Replica != r })
		switch {
		case r == 0 || twice || ch.Op < AddLearner || ch.Op > Demote:
			return nil, dsdb.Errorf(dsdb.KindInvalid, "raft group %d: change %d of replica %d", id, ch.Op, r)
		case ch.Op == AddLearner && known && (p != ch.Peer || m.votes(r)):
			return nil, dsdb.Errorf(dsdb.KindInvalid, "raft group %d: replica %d on node %d is a member already", id, r, p.Node)
		case ch.Op == AddLearner && !known && holds:
			return nil, dsdb.Errorf(dsdb.KindInvalid, "raft group %d: node %d has a replica already", id, ch.Peer.Node)
		case ch.Op == AddVoter && !known:
			return nil, dsdb.Errorf(dsdb.KindInvalid, "raft group %d: replica %d has to be a learner first", id, r)
		case ch.Op == Demote && !known:
			return nil, dsdb.Errorf(dsdb.KindInvalid, "raft group %d: replica %d is no member", id, r)
		case ch.Op == AddLearner && known, ch.Op == Remove && !known:
		case ch.Op == AddVoter && slices.Contains(m.conf.Voters, uint64(r)):
		case ch.Op == Demote && !slices.Contains(m.conf.Voters, uint64(r)):
		default:
			out = append(out, ch)
		}
	}
	return out, nil
}

// withoutLeaving returns the changes but for one by which a replica loses its
// vote, and whether there was one.
func withoutLeaving(changes []Change, r dsdb.ReplicaID) (rest []Change, found bool) {
	rest = slices.DeleteFunc(slices.Clone(changes), func(ch Change) bool { return ch.leaves(r) })
	return rest, len(rest) < len(changes)
}

// leaves reports whether a replica loses its vote.
func (ch Change) leaves(r dsdb.ReplicaID) bool {
	return (ch.Op == Remove || ch.Op == Demote) && ch.Peer.Replica == r
}

// confChange is raft's form of changes, and the peers that they add.
func confChange(changes []Change) (cc *raftpb.ConfChangeV2, added []Peer) {
	cc = new(raftpb.ConfChangeV2)
	for _, ch := range changes {
		typ := raftpb.ConfChangeAddNode
		switch ch.Op {
		case AddLearner:
			typ = raftpb.ConfChangeAddLearnerNode
			added = append(added, ch.Peer)
		case Demote:
			typ = raftpb.ConfChangeAddLearnerNode
		case Remove:
			typ = raftpb.ConfChangeRemoveNode
		}
		id := uint64(ch.Peer.Replica)
		cc.Changes = append(cc.Changes, &raftpb.ConfChangeSingle{Type: typ.Enum(), NodeId: &id})
	}
	return cc, added
}

// safe refuses changes after which the group could come to a standstill.
func (g *group) safe(changes []Change, next *membership) error {
	if !slices.ContainsFunc(next.members().Voters, func(p Peer) bool { return !p.Witness }) {
		return dsdb.Errorf(dsdb.KindInvalid, "raft group %d: only a witness would be left", g.id)
	}
	st := g.node.Status()
	for _, ch := range changes {
		if ch.Op != AddVoter || mutant.PromoteWithoutCatchUp {
			continue
		}
		r := ch.Peer.Replica
		pr := st.Progress[uint64(r)]
		if pr.State != tracker.StateReplicate || pr.Match+maxLag < st.GetCommit() || !g.contacts.active(g, r) {
			return dsdb.Errorf(dsdb.KindUnavailable, "raft group %d: replica %d is not ready to vote: it has the log up to %d of %d", g.id, r, pr.Match, st.GetCommit())
		}
		if err := g.mayWitness(r); err != nil {
			return err
		}
	}
	for _, voters := range [][]uint64{next.conf.Voters, next.conf.VotersOutgoing} {
		active := 0
		for _, v := range voters {
			waits := st.Progress[v].State == tracker.StateSnapshot && !mutant.JoinerCounted
			if v == g.seen.replica || g.contacts.active(g, dsdb.ReplicaID(v)) && !waits {
				active++
			}
		}
		if len(voters) > 0 && active <= len(voters)/2 {
			return dsdb.Errorf(dsdb.KindUnavailable, "raft group %d: only %d of the %d voters that there would be are active and have the log", g.id, active, len(voters))
		}
	}
	return nil
}

// proposeChange gives raft a change of members.
func proposeChange(g *group, cc *raftpb.ConfChangeV2) error {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(cc)
	if err != nil {
		panic(fmt.Sprintf("BUG: marshal a change of members: %v", err))
	}
	e := &raftpb.Entry{Type: raftpb.EntryConfChangeV2.Enum(), Data: data}
	err = g.node.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: &g.seen.replica, Entries: []*raftpb.Entry{e}})
	if errors.Is(err, raft.ErrProposalDropped) {
		return dsdb.Errorf(dsdb.KindUnavailable, "raft group %d has too many writes in progress or hands on its leadership", g.id)
	}
	return err
}

// observeChanges notes changes of members among new entries. A change that raft
// refuses it turns into an empty entry.
func (c *Core) observeChanges(g *group, ents []*raftpb.Entry) {
	for _, e := range ents {
		if e.GetType() != raftpb.EntryNormal {
			g.seen.changed = e.GetIndex()
		}
	}
	ch := &g.changing
	if len(ents) == 0 {
		return
	}
	if s := &g.settling; s.asked > 0 && s.entry == 0 {
		s.entry = ents[len(ents)-1].GetIndex()
	}
	if ch.waiter == nil || ch.logged {
		return
	}
	if ch.logged = g.seen.changed >= ents[0].GetIndex(); !ch.logged {
		c.result(ch.waiter, dsdb.Errorf(dsdb.KindUnavailable, "raft group %d: another change of members is under way", g.id))
		ch.waiter = nil
	}
}

// applyChange puts a committed change of members into force.
func (c *Core) applyChange(g *group, r raftChange) {
	cc, _, added, err := openChange(r.kind, r.data)
	if err != nil {
		panic(fmt.Sprintf("entry %d: %v", r.index, err))
	}
	if r.index > g.members.index {
		next, err := g.members.change(r.index, cc, added)
		if err != nil { // on all replicas alike
			c.logger.Error("change of a raft group's members is void", "group", uint64(g.id), "entry", r.index, "error", err)
		} else {
			c.putIntoForce(g, cc, next)
		}
	}
}

// settle proposes the empty entry behind the members that are in force, if that
// is due, and ends the change of members once it is applied.
func (c *Core) settle(g *group) {
	s, ch := &g.settling, &g.changing
	if ch.waiter != nil && ch.committed && (!g.seen.leading || g.seen.term != ch.term) {
		c.result(ch.waiter, unknownOutcome(g.notLeader()))
		ch.waiter = nil
	}
	if !g.seen.leading || g.members.joint() || g.store.applied < g.seen.termStart {
		return
	}
	if s.entry > 0 && g.store.applied >= s.entry {
		for _, p := range s.left {
			if _, member := g.members.peer(p.Replica); !member {
				g.contacts.heard(g, p.Replica, p.Node)
				c.dismiss(g, p.Replica)
			}
		}
		*s = settling{done: s.asked}
	}
	if s.done == g.members.index || mutant.LeftTooEarly {
		c.changed(g)
		return
	}
	if s.asked == g.members.index {
		return
	}
	e := []*raftpb.Entry{{}}
	if err := g.node.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: &g.seen.replica, Entries: e}); err == nil { // else later
		s.asked, s.entry = g.members.index, 0
	}
}

// changed ends the change of members, which is settled.
func (c *Core) changed(g *group) {
	w := g.changing.waiter
	if w == nil || !g.changing.committed {
		return
	}
	g.changing.waiter = nil
	if g.changing.leave {
		c.handOn(g, g.successor(0, nil), w, true)
		return
	}
	c.result(w, nil)
}

// putIntoForce makes raft follow a change.
func (c *Core) putIntoForce(g *group, cc *raftpb.ConfChangeV2, next *membership) {
	for _, p := range g.members.peers {
		if _, still := next.peer(p.Replica); !still {
			g.settling.left = append(g.settling.left, p)
		}
	}
	conf := g.node.ApplyConfChange(cc)
	if err := next.conf.Equivalent(conf); err != nil {
		panic(fmt.Sprintf("BUG: group %d: change of members: %v", g.id, err))
	}
	c.logger.Info("raft group has new members", "group", uint64(g.id), "replica", g.seen.replica, "members", fmt.Sprintf("%+v", next.members()))
	g.members = next
	c.enter(g)
}

// dismissal is the context of the heartbeat by which a leader tells a replica
// that it has left the group and is not needed for anything.
const dismissal = "dismissed"

// dismiss tells a replica that it has left.
func (c *Core) dismiss(g *group, r dsdb.ReplicaID) {
	to, term := uint64(r), g.seen.term
	c.send(g, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: &g.seen.replica, To: &to, Term: &term, Context: []byte(dismissal)})
}

// strayed dismisses a replica that asks for votes though it has left.
func (c *Core) strayed(g *group, e Envelope) {
	t := e.Message.GetType()
	if t != raftpb.MsgPreVote && t != raftpb.MsgVote || !g.settled() {
		return
	}
	if _, member := g.members.peer(e.From); !member {
		c.dismiss(g, e.From)
	}
}

// inform tells a replica that asks for votes what is committed, if this one has no
// vote by an entry that the other may not know to be committed. It could not
// vote for the other, whose log may be the shorter one by entries that were never
// committed, nor be elected itself, and the other could not do without: but a
// membership that is committed does not count those who left or became learners.
func (c *Core) inform(g *group, e Envelope) {
	m, term := e.Message, g.seen.term
	switch m.GetType() {
	case raftpb.MsgPreVote:
		if m.GetTerm() > term+1 {
			return
		}
	case raftpb.MsgVote:
		if m.GetTerm() > term {
			return
		}
	default:
		return
	}
	index := g.members.index
	logTerm, err := g.store.Term(index)
	if g.members.votes(dsdb.ReplicaID(g.seen.replica)) || err != nil || m.GetIndex() < index || m.GetLogTerm() < logTerm { // the other lacks the entry
		return
	}
	c.notify(g, e.From)
}

// refused tells a replica that refuses its vote what is committed. By that it may
// have a vote without knowing it, and a longer log than all others: then it
// has to be elected, for which it must know.
func (c *Core) refused(g *group, e Envelope) {
	m := e.Message
	if t := m.GetType(); (t == raftpb.MsgPreVoteResp || t == raftpb.MsgVoteResp) && m.GetReject() && !g.seen.leading && g.members.votes(e.From) {
		c.notify(g, e.From)
	}
}

// notice is the context of the append by which a replica that does not lead tells
// another one which members are in force. Raft takes it for one of a leader.
const notice = "committed"

// notify tells a member that the entry is committed that made this one's members.
func (c *Core) notify(g *group, r dsdb.ReplicaID) {
	_, member := g.members.peer(r)
	index := g.members.index
	logTerm, err := g.store.Term(index)
	if !member || err != nil || index == 0 || index > g.seen.commit {
		return
	}
	to, term := uint64(r), g.seen.term
	c.send(g, &raftpb.Message{Type: raftpb.MsgApp.Enum(), From: &g.seen.replica, To: &to, Term: &term, Index: &index, LogTerm: &logTerm, Commit: &index, Context: []byte(notice)})
}

// noticed reports whether a message tells only what this replica knows: raft must
// not take the sender for its leader then.
func (g *group) noticed(m *raftpb.Message) bool {
	return m.GetType() == raftpb.MsgApp && string(m.GetContext()) == notice && m.GetCommit() <= g.seen.commit
}

// settled reports whether this replica leads and those are not needed who have left.
func (g *group) settled() bool {
	return g.seen.leading && !g.members.joint() && g.settling.done == g.members.index
}

// dismissed notes that a leader, not an old one, has dismissed this replica.
func (c *Core) dismissed(g *group, e Envelope) {
	m := e.Message
	if m.GetType() != raftpb.MsgHeartbeat || string(m.GetContext()) != dismissal || m.GetTerm() < g.seen.term || g.progress.removed.Load() {
		return
	}
	c.logger.Info("raft replica has left its group", "group", uint64(g.id), "replica", g.seen.replica)
	g.progress.removed.Store(true)
	c.setClock(g, false)
}

// enter makes what depends on the members follow them.
func (c *Core) enter(g *group) {
	ms := g.members.members()
	g.progress.members.Store(&ms)
	self, _ := g.members.peer(dsdb.ReplicaID(g.seen.replica))
	g.witness = self.Witness
	if g.members.joint() {
		g.clock.jointSince = g.clock.now
	}
	if g.single() && !g.seen.leading {
		g.clock.campaign = true
	}
	if g.single() {
		g.reads.again()
	}
	c.wind(g)
}

// wind has the clock of a group run if it is of use: not in a replica that was
// dismissed, nor in one that leads and is alone. One that has left and was not
// dismissed needs it: those who stayed may not know of the change yet and need
// its vote, which it would refuse for as long as it takes its leader to be there.
func (c *Core) wind(g *group) {
	c.setClock(g, !g.progress.removed.Load() && !(g.single() && g.seen.leading))
}

// leaveJoint proposes to leave a joint configuration that raft should have left by itself.
func (c *Core) leaveJoint(g *group) {
	if g.seen.leading && g.members.joint() && g.clock.now-g.clock.jointSince >= jointTicks {
		g.clock.jointSince = g.clock.now
		_ = proposeChange(g, new(raftpb.ConfChangeV2)) // tried again later
		c.touch(g)
	}
}
