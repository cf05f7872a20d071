package sim

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
)

// script is a cluster of one group, all of whose nodes vote, that does what a
// test says, step by step. Nothing fails in it but what the script breaks.
type script struct {
	*run
	t *testing.T
}

// the group of a script
const theGroup dsdb.GroupID = 1

// attempt is a write or a read on its way.
type attempt struct {
	id   uint64 // of a write
	told int    // number of outcomes: 0 or 1
	read uint64 // the value that a read has seen
	err  error
}

// scenario plays a script on a few seeds, which differ in who is fast and who is slow.
func scenario(t *testing.T, nodes int, seeds uint64, play func(s *script)) {
	scenarioOf(t, nodes, nodes, seeds, play)
}

// scenarioOf does so with a group of some of the nodes: the first of a random order.
func scenarioOf(t *testing.T, nodes, founders int, seeds uint64, play func(s *script)) {
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := newRun(t, seed, func(w *World) (int, [][]int) { return nodes, [][]int{w.Rand.Perm(nodes)[:founders]} })
			r.measure()
			play(&script{r, t})
			for _, e := range r.Errs {
				t.Error(e)
			}
		})
	}
}

// until lets time pass until something is so, for at most a minute.
func (s *script) until(what string, done func() bool) {
	s.t.Helper()
	if !s.RunUntil(time.Minute, done) {
		s.t.Fatalf("at %v: it does not come that %s", s.Now(), what)
	}
}

// leader waits for a leader that nobody contradicts and returns it.
func (s *script) leader() (l *Node) {
	s.t.Helper()
	s.until("there is one leader", func() bool {
		ls := s.Leaders(theGroup)
		l = s.Leader(theGroup)
		return len(ls) == 1 && !l.pausing
	})
	return l
}

// leaderBut waits for a leader other than old, which may believe to lead still.
func (s *script) leaderBut(old *Node) (l *Node) {
	s.t.Helper()
	s.until("there is another leader", func() bool {
		l = s.Leader(theGroup)
		return l != nil && l != old
	})
	return l
}

// followers returns all nodes with a replica but l.
func (s *script) followers(l *Node) []*Node {
	return slices.DeleteFunc(s.Holders(theGroup), func(n *Node) bool { return n == l })
}

// spare returns a node without a replica.
func (s *script) spare() *Node {
	s.t.Helper()
	for _, n := range s.Nodes {
		if n.Up() && !n.knows(theGroup) {
			return n
		}
	}
	s.t.Fatal("every node has a replica")
	return nil
}

// seatOn returns the seat of the group on a node.
func (s *script) seatOn(n *Node) *seat {
	for _, st := range s.seatsOf(theGroup) {
		if st.node == n && !st.lost {
			return st
		}
	}
	s.t.Fatalf("node %d has no replica", n.Index)
	return nil
}

// join opens a new, blank replica on a node.
func (s *script) join(n *Node) *seat {
	s.t.Helper()
	st := s.seat(theGroup, n)
	spec, err := s.spec(st)
	if err == nil {
		err = n.Open(spec)
	}
	if err != nil {
		s.t.Fatalf("at %v: a new replica on node %d: %v", s.Now(), n.Index, err)
	}
	return st
}

// ask for other members, of whoever leads, once.
func (s *script) change(l *Node, cs ...raftnode.Change) *attempt {
	a := &attempt{}
	l.Change(theGroup, cs, waiter(func(_ dsdb.Verdict, err error) { a.tell(err) }))
	return a
}

// changed has the members changed, by whoever leads, however long it takes.
func (s *script) changed(cs ...raftnode.Change) {
	s.t.Helper()
	for range 100 {
		a := s.change(s.leader(), cs...)
		s.RunUntil(5*time.Second, func() bool { return a.told > 0 })
		if a.told > 0 && a.err == nil {
			return
		}
		s.Run(100 * time.Millisecond)
	}
	s.t.Fatalf("at %v: the members do not change: %v", s.Now(), cs)
}

func learner(s *seat) raftnode.Change {
	return raftnode.Change{Op: raftnode.AddLearner, Peer: s.peer()}
}
func voter(s *seat) raftnode.Change   { return raftnode.Change{Op: raftnode.AddVoter, Peer: s.peer()} }
func without(s *seat) raftnode.Change { return raftnode.Change{Op: raftnode.Remove, Peer: s.peer()} }

// leave takes a replica that is no member any more from its node.
func (s *script) leave(st *seat) {
	s.t.Helper()
	s.until("those who left may go", func() bool { l := s.Leader(theGroup); return l != nil && l.Status(theGroup).Settled })
	st.gone = true
	done := false
	st.node.Remove(theGroup, func() { done = true })
	s.until("the replica is erased", func() bool { return done })
}

// advance writes and flushes so much that l's log forgets all that f lacks.
func (s *script) advance(l, f *Node) {
	s.t.Helper()
	for range 300 {
		for range 10 {
			a := &attempt{}
			s.set(l, theGroup, s.Rand.IntN(registers), 1000, a.tell)
			s.answered(a)
		}
		s.flushed(l)
		s.Run(50 * time.Millisecond)
		_, last := f.run.log.Bounds(theGroup)
		if first, _ := l.run.log.Bounds(theGroup); first > last+1 {
			return
		}
	}
	s.t.Fatal("the log forgets nothing")
}

// shipped waits until a part of a snapshot to n has arrived, and returns it.
func (s *script) shipped(n *Node, percent int64) (sh *shipment) {
	s.t.Helper()
	s.until(fmt.Sprintf("%d %% of a snapshot have arrived", percent), func() bool {
		for _, sh = range s.shipments {
			if sh.to.node == n && sh.arrived() >= percent {
				return true
			}
		}
		return false
	})
	return sh
}

// restarts has a node start again whenever its power fails.
func (s *script) restarts() {
	s.died = func(n *Node, err error) {
		s.After(s.Between(10*time.Millisecond, time.Second), func() {
			if !n.Up() {
				s.start(n)
			}
		})
	}
}

// propose writes register 0 through n, and does not wait.
func (s *script) propose(n *Node) *attempt {
	a := &attempt{}
	a.id = s.set(n, theGroup, 0, 100, a.tell)
	return a
}

func (a *attempt) tell(err error) { a.told, a.err = a.told+1, err }

// write does so and waits for the acknowledgement.
func (s *script) write(n *Node) *attempt {
	s.t.Helper()
	a := s.propose(n)
	s.until(fmt.Sprintf("write %d has an outcome", a.id), func() bool { return a.told > 0 })
	if a.err != nil {
		s.t.Fatalf("at %v: write %d: %v", s.Now(), a.id, a.err)
	}
	return a
}

// ask reads register 0 through n, and does not wait.
func (s *script) ask(n *Node) *attempt {
	a := &attempt{}
	s.get(n, theGroup, 0, func(v uint64, err error) {
		a.read = v
		a.tell(err)
	})
	return a
}

// answered waits for the outcome of an attempt.
func (s *script) answered(a *attempt) {
	s.t.Helper()
	s.until("the call has an outcome", func() bool { return a.told > 0 })
}

// flushed flushes the state machine of n and waits until that is done.
func (s *script) flushed(n *Node) {
	s.t.Helper()
	done := false
	s.flush(n, theGroup, func() { done = true })
	s.until("the flush ends", func() bool { return done })
}

// last is the index of the last entry in the log on n's disk.
func (s *script) last(n *Node) uint64 {
	_, last := n.run.log.Bounds(theGroup)
	return last
}

// applied reports whether a write has been applied anywhere.
func (s *script) applied(a *attempt) bool { return s.groups[theGroup].at[a.id] != 0 }

// swallow loses messages of one type that a node sends from now on.
func (s *script) swallow(n *Node, kind raftpb.MessageType) {
	s.network.tap = func(from, _ int, e raftnode.Envelope) bool { return from == n.Index && e.Message.GetType() == kind }
}

// cut lets nothing pass from one node to another.
func (s *script) cut(from, to *Node) { s.network.cut[[2]int{from.Index, to.Index}] = true }

// heal ends all that is wrong with the network.
func (s *script) heal() {
	s.network.heal()
	s.network.tap = nil
}

func (s *script) start(ns ...*Node) {
	s.t.Helper()
	for _, n := range ns {
		if err := n.Start(); err != nil {
			s.t.Fatalf("at %v: %v", s.Now(), err)
		}
	}
}

// settle lets all nodes come to rest and checks everything. It ends a script.
func (s *script) settle() {
	s.t.Helper()
	s.heal()
	for _, n := range s.Nodes {
		n.disk.repair()
		if !n.Up() {
			s.start(n)
		}
	}
	s.Run(8 * time.Second)
	s.write(s.leader())
	s.Run(2 * time.Second)
	s.settled()
}
