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
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := newRun(t, seed, func(w *World) (int, [][]int) { return nodes, [][]int{w.Rand.Perm(nodes)} })
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

// followers returns all nodes but l.
func (s *script) followers(l *Node) []*Node {
	return slices.DeleteFunc(slices.Clone(s.Nodes), func(n *Node) bool { return n == l })
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
	s.Run(6 * time.Second)
	s.write(s.leader())
	s.Run(2 * time.Second)
	s.settled()
}
