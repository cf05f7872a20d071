package sim

import (
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
)

// control is the placement controller of a member, from when its replica of
// the meta group begins to lead until the term is over.
type control struct {
	*meta.Controller
	term uint64
}

// The periods of the controller, all short: a run lasts seconds. A leader without
// a quorum gives up in three.
var controllerOptions = meta.ControllerOptions{
	ControllerPeriods: meta.ControllerPeriods{SuspectAfter: time.Second, DeadAfter: 4 * time.Second, LeaderAfter: 3500 * time.Millisecond,
		SteadyAfter: time.Second, AskAgain: time.Second, TryAgain: 500 * time.Millisecond, OperatorTimeout: 10 * time.Second, BalancePause: 3 * time.Second},
	ControllerLimits: meta.ControllerLimits{MaxOperators: 4, MaxIncoming: 2, MaxTransfers: 3, MaxVoters: 5, Spread: 2, Lag: 100},
}

// report tells the leader of the meta group, now and then, what this process
// knows, and takes a step if it is that itself.
func (m *member) report() {
	s := m.store
	m.after(s.Between(200*time.Millisecond, 400*time.Millisecond), func() {
		m.report()
		st := m.node.Status(dsdb.MetaGroup)
		r := m.view()
		if !st.Leading {
			if to := s.node(st.LeaderNode); to != nil && to != m.node {
				m.call(to, func(at *member, _ func(error)) { at.observe(r) }, time.Second, func(error) {})
			}
			return
		}
		m.observe(r)
		for _, a := range m.control.Step(s.now(), m.catalogue.View()) {
			m.act(a)
		}
	})
}

// observe takes in the report of a process, if this one leads the meta group.
func (m *member) observe(r meta.NodeReport) {
	st := m.node.Status(dsdb.MetaGroup)
	if !st.Leading {
		return
	}
	if m.control.Controller == nil || m.control.term != st.Term {
		m.control = control{meta.NewController(controllerOptions), st.Term}
	}
	m.control.Observe(m.store.now(), r)
}

// view is what a process reports of itself.
func (m *member) view() meta.NodeReport {
	r := meta.NodeReport{UUID: m.id.UUID, Failed: m.harmed()}
	for _, g := range m.proc.groups {
		st := m.node.Status(g)
		if st.Failed != nil && !slices.ContainsFunc(r.Failed, func(f meta.FailedGroup) bool { return f.Group == g }) {
			r.Failed = append(r.Failed, meta.FailedGroup{Group: g, Replica: st.Replica, Reason: st.Failed.Error()})
		}
		if !st.Leading {
			continue
		}
		gr := meta.GroupReport{Group: g, Replica: st.Replica, Term: st.Term, Commit: st.Commit, Members: meta.Members{
			Voters: reported(st.Members.Voters), Outgoing: reported(st.Members.Outgoing), Learners: reported(st.Members.Learners)}}
		for _, p := range st.Progress {
			gr.Progress = append(gr.Progress, meta.Progress{Replica: p.Replica, Match: p.Match, Active: p.Active})
		}
		r.Groups = append(r.Groups, gr)
	}
	return r
}

func reported(ps []raftnode.Peer) (ms []meta.Member) {
	for _, p := range ps {
		ms = append(ms, meta.Member(p))
	}
	return ms
}

var changeOps = map[meta.ChangeOp]raftnode.ChangeOp{meta.AddLearner: raftnode.AddLearner, meta.AddVoter: raftnode.AddVoter,
	meta.DemoteVoter: raftnode.Demote, meta.RemoveMember: raftnode.Remove}

// act carries out what the controller wants done. What comes of it shows later.
func (m *member) act(a meta.Action) {
	s := m.store
	s.Note("act", uint64(m.node.Index))
	s.tell(m, a)
	switch {
	case a.Command != nil:
		s.count("commands of the controller")
		m.command(a.Command, func(_ dsdb.Verdict, err error) {
			s.outcome(a, err)
			m.undone(a, err)
		})
	case a.Change != nil:
		c := a.Change
		steps := make([]raftnode.Change, len(c.Steps))
		for i, step := range c.Steps {
			steps[i] = raftnode.Change{Op: changeOps[step.Op], Peer: raftnode.Peer(step.Member)}
		}
		m.call(s.node(c.Leader), func(at *member, reply func(error)) {
			if !at.node.Holds(c.Group) {
				return
			}
			at.node.Change(c.Group, steps, waiter(func(_ dsdb.Verdict, err error) {
				if err == nil {
					s.count("membership changes")
				}
				s.outcome(a, err)
				reply(err)
			}))
		}, 5*time.Second, func(err error) { m.undone(a, err) })
	case a.Transfer != nil:
		t := a.Transfer
		m.call(s.node(t.Leader), func(at *member, reply func(error)) {
			if !at.node.Holds(t.Group) {
				return
			}
			at.node.Transfer(t.Group, t.To, waiter(func(_ dsdb.Verdict, err error) {
				if err == nil {
					s.count("transfers")
				}
				reply(err)
			}))
		}, 5*time.Second, func(err error) { m.undone(a, err) })
	}
}

// undone tells the controller if an action came to nothing.
func (m *member) undone(a meta.Action, err error) {
	if err != nil && m.control.Controller != nil {
		m.control.Undone(a)
	}
}

// losses now and then takes a machine's disk away for good, as long as every
// group can do without it. The machine comes back empty, as a new process in the
// place of the old one, or, if the others suffice, not at all.
func (s *store) losses() {
	s.After(s.Between(time.Second, 4*time.Second), func() {
		s.losses()
		n := s.Nodes[s.Rand.IntN(len(s.Nodes))]
		m := s.members[n.Index]
		if s.quiet || m.catalogue == nil || !s.spareable(m) {
			return
		}
		s.lost[m.id.DataID], s.lost[m.id.MetaID] = true, true
		n.Wipe()
		if s.scrapped == nil && len(s.Nodes) > 3 && s.Chance(0.5) {
			s.count("machines scrapped")
			s.scrapped, n.scrapped = n, true
			s.After(s.Between(0, 8*time.Second), func() { s.dismiss(meta.DataNode, m.id.DataID) })
			s.After(s.Between(0, 8*time.Second), func() { s.dismiss(meta.MetaNode, m.id.MetaID) })
			return
		}
		s.count("disks wiped")
		s.replaced[n.Index] = m.id.Peer()
		s.died(n, errWiped)
	})
}

// dismiss takes a role from a process that does not come back, as an operator
// does, through any member.
func (s *store) dismiss(kind meta.NodeKind, id dsdb.NodeID) {
	if id == 0 {
		return // it does not have that role
	}
	again := func() { s.After(s.Between(50*time.Millisecond, 500*time.Millisecond), func() { s.dismiss(kind, id) }) }
	m := s.member()
	if m == nil {
		again()
		return
	}
	next := once(again)
	s.After(opTimeout, func() { next() })
	m.command(&meta.DropNode{ID: id, Kind: kind, Force: true, Now: hour(s.hours())}, func(_ dsdb.Verdict, err error) {
		if err != nil {
			next()
			return
		}
		s.count("nodes dropped")
		next = func() {}
	})
}

// spareable reports whether each group that a member has a replica of, or may
// get one of, is whole, with three voters or more.
func (s *store) spareable(m *member) bool {
	var view *meta.Data
	for _, o := range s.members {
		if o != nil && o.alive() && (view == nil || o.catalogue.View().Index > view.Index) {
			view = o.catalogue.View()
		}
	}
	if view == nil {
		return false
	}
	groups := []dsdb.GroupID{dsdb.MetaGroup}
	for _, ref := range view.ReplicasOn(m.id.DataID) {
		groups = append(groups, ref.Shard.ID.Group())
	}
	return !slices.ContainsFunc(groups, func(g dsdb.GroupID) bool {
		return !s.whole(g) || s.rotten(dsdb.ShardID(g)) || s.differing() == dsdb.ShardID(g) && g != dsdb.MetaGroup
	})
}

// third reports whether a group has a witness.
func (s *store) third(g dsdb.GroupID) bool {
	l := s.Leader(g)
	return l != nil && slices.ContainsFunc(l.Status(g).Members.Voters, func(p raftnode.Peer) bool { return p.Witness })
}

// whole reports whether a group has three voters or more, the disks of all, and
// all that could be seen in place.
func (s *store) whole(g dsdb.GroupID) bool {
	l := s.Leader(g)
	if l == nil {
		return false
	}
	st := l.Status(g)
	if len(st.Members.Voters) < 3 || !st.Settled {
		return false
	}
	for _, v := range st.Members.Voters {
		n := s.node(v.Node)
		if n == nil || s.lost[v.Node] || s.members[n.Index] == nil || n.Up() && !n.Holds(g) {
			return false
		}
	}
	return true
}
