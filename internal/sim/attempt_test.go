package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/coord"
)

// opTimeout is how long the coordinator of a write, a command or a read tries.
const opTimeout = 6 * time.Second

// call asks another node, as package rpc does: serve runs there, its reply
// comes back to done, once. A node that is down refuses at once, one that dies
// meanwhile breaks the connection; of one that is cut off nothing is heard.
func (m *member) call(to *Node, serve func(at *member, reply func(error)), limit time.Duration, done func(error)) {
	s, c := m.store, m.store.Cluster
	answered := false
	var end *watch // of the other process
	answer := func(err error) {
		if end != nil {
			end.off = true
		}
		if !answered {
			answered = true
			done(err)
		}
	}
	m.after(limit, func() { answer(dsdb.Errorf(dsdb.KindTimeout, "timeout")) })
	if to == m.node {
		serve(m, answer)
		return
	}
	hung := func() { // nothing passes any more, which shows after a while
		m.after(s.Between(time.Second, 2*time.Second), func() { answer(dsdb.Errorf(dsdb.KindTimeout, "the connection is gone")) })
	}
	back := func(err error) {
		if to != nil && c.network.cut[[2]int{to.Index, m.node.Index}] {
			hung()
			return
		}
		m.after(c.network.latency(), func() { answer(err) })
	}
	if to == nil || !to.Up() {
		back(dsdb.Errorf(dsdb.KindUnavailable, "nobody answers"))
		return
	}
	if c.network.cut[[2]int{m.node.Index, to.Index}] {
		hung()
		return
	}
	at := s.members[to.Index]
	s.After(c.network.latency(), func() {
		if to.run != at.proc || !at.alive() {
			back(dsdb.Errorf(dsdb.KindUnavailable, "nobody answers"))
			return
		}
		to.do(at.proc, func() { serve(at, back) })
	})
	end = at.proc.watch(func() { back(dsdb.Errorf(dsdb.KindTimeout, "the connection is gone")) })
}

// attempt takes a proposal or a read to the leader of its group. ask does it at
// the node that it is given.
func (m *member) attempt(r coord.Request, ask func(at *member, reply func(error)), done func(error)) {
	r.Deadline = m.store.now() + opTimeout.Milliseconds()
	a, do := coord.Start(&m.leaders, r, m.store.now())
	unknown := false // the outcome of the last try
	var step func(coord.Action)
	step = func(do coord.Action) {
		d := time.Duration(do.After) * time.Millisecond
		switch do.Op {
		case coord.Done:
			done(do.Err)
		case coord.Wait:
			m.after(d, func() { step(a.Wake(m.store.now())) })
		case coord.Send:
			if unknown && !r.Read {
				m.store.count("second copies of proposals")
			}
			m.call(m.store.node(do.Node), ask, d, func(err error) {
				if vfs.NoSpace(err) && dsdb.KindOf(err) == dsdb.KindUnavailable {
					err = &dsdb.Error{Kind: dsdb.KindInternal, Text: err.Error(), Err: err} // as the server does: it is final
				}
				unknown = dsdb.KindOf(err) == dsdb.KindTimeout
				step(a.Answer(m.store.now(), err))
			})
		}
	}
	step(do)
}

// voters returns the nodes with a voter of a group, as the catalogue has it, this
// node first, and then as this node's replica has it: the catalogue may lag behind.
func (m *member) voters(g dsdb.GroupID) ([]dsdb.NodeID, bool) {
	view := m.catalogue.View()
	replicas, found := view.Replicas(g)
	if g == dsdb.MetaGroup && len(replicas) == 0 {
		return []dsdb.NodeID{m.id.Peer()}, true // of a cluster that is being founded
	}
	var nodes []dsdb.NodeID
	for _, r := range replicas {
		switch {
		case r.Role != meta.Voter && r.Role != meta.LeavingVoter:
		case r.Node == m.id.MetaID || r.Node == m.id.DataID:
			nodes = slices.Insert(nodes, 0, r.Node)
		default:
			nodes = append(nodes, r.Node)
		}
	}
	for _, p := range m.node.Status(g).Members.Voters {
		if !slices.Contains(nodes, p.Node) {
			nodes = append(nodes, p.Node)
		}
	}
	return nodes, found
}

// errDropped is the end of a write to a shard that is no more.
var errDropped = errors.New("the shard was dropped")

// propose has a group apply what encode makes of the id that it is given, once.
func (m *member) propose(g dsdb.GroupID, encode func(dsdb.ProposalID) []byte, done func(dsdb.Verdict, error)) {
	m.proposing(g, encode, func(v dsdb.Verdict, _ int, err error) { done(v, err) })
}

// proposing is propose that also tells how many tries it took: of more than one
// an earlier one may have had the effect, at an index below that of the verdict.
func (m *member) proposing(g dsdb.GroupID, encode func(dsdb.ProposalID) []byte, done func(v dsdb.Verdict, tries int, err error)) {
	nodes, found := m.voters(g)
	if !found {
		done(dsdb.Verdict{}, 0, errDropped)
		return
	}
	id, wait := m.sequencer.Take(g)
	if wait != nil {
		done(dsdb.Verdict{}, 0, dsdb.Errorf(dsdb.KindUnavailable, "too many proposals are outstanding"))
		return
	}
	payload := encode(id)
	var verdict dsdb.Verdict
	tries := 0
	m.attempt(coord.Request{Group: g, Replicas: nodes, Failure: "write failed"}, func(at *member, reply func(error)) {
		if tries++; tries > 1 {
			m.store.count("proposals tried again")
		}
		if !at.node.Holds(g) {
			reply(dsdb.Errorf(dsdb.KindNotLeader, "raft group %d is not here", g))
			return
		}
		at.node.Propose(g, payload, waiter(func(v dsdb.Verdict, err error) {
			if err == nil {
				verdict = v
			}
			reply(err)
		}))
	}, func(err error) {
		m.sequencer.Release(g, id)
		done(verdict, tries, err)
	})
}

// command changes the catalogue. When done is called without an error this
// node's copy includes the change.
func (m *member) command(c meta.Command, done func(dsdb.Verdict, error)) {
	m.propose(dsdb.MetaGroup, func(id dsdb.ProposalID) []byte { return meta.Encode(id, c) }, func(v dsdb.Verdict, err error) {
		if err != nil {
			done(v, err)
			return
		}
		m.node.Applied(dsdb.MetaGroup, v.Index, waiter(func(_ dsdb.Verdict, err error) {
			if err == nil {
				err = v.Err()
			}
			done(v, err)
		}))
	})
}

// readIndex finds, with the group's leader, an index that includes everything
// that was acknowledged before the call.
func (m *member) readIndex(g dsdb.GroupID, done func(uint64, error)) {
	nodes, found := m.voters(g)
	if !found {
		done(0, errDropped)
		return
	}
	var index uint64
	m.attempt(coord.Request{Group: g, Replicas: nodes, Read: true, Failure: "no quorum"}, func(at *member, reply func(error)) {
		if !at.node.Holds(g) {
			reply(dsdb.Errorf(dsdb.KindNotLeader, "raft group %d is not here", g))
			return
		}
		at.node.ReadIndex(g, waiter(func(v dsdb.Verdict, err error) {
			index = v.Index
			reply(err)
		}))
	}, func(err error) { done(index, err) })
}

// current waits until this node's replica of g includes everything that was
// acknowledged before the call.
func (m *member) current(g dsdb.GroupID, done func(error)) {
	asked := m.store.Now()
	m.readIndex(g, func(index uint64, err error) {
		if err != nil {
			done(err)
			return
		}
		if !m.node.Holds(g) {
			done(errDropped)
			return
		}
		m.node.Applied(g, index, waiter(func(_ dsdb.Verdict, err error) {
			if err == nil {
				m.freshness.Current(g, asked)
			}
			done(err)
		}))
	})
}

// freshWait is how long it may take to learn how stale a replica is.
const freshWait = time.Second

// fresh waits until this node's replica of g has everything that was acknowledged
// longer than limit ago; 0: it need not. It reports KindUnavailable if it is not
// known to.
func (m *member) fresh(g dsdb.GroupID, limit time.Duration, done func(error)) {
	if m.freshness.Within(g, m.store.Now(), limit) {
		done(nil)
		return
	}
	over := false
	end := func(err error) {
		if !over {
			over = true
			done(err)
		}
	}
	m.after(freshWait, func() { end(dsdb.Errorf(dsdb.KindUnavailable, "max_staleness")) })
	m.current(g, end)
}
