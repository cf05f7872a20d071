package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
)

// Scenarios of whole clusters. The numbers are those of the design's list.

// storeScript is a cluster of whole databases that does what a test says.
// Nothing fails in it but what the script breaks.
type storeScript struct {
	*store
	t *testing.T
}

// storeScenario plays a script on a few seeds, on so many nodes, all or the first
// of which are meta nodes, with the database a of a replication factor.
func storeScenario(t *testing.T, nodes, metas, replicas int, seeds uint64, play func(s *storeScript)) {
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := &storeScript{newStore(t, seed, func(*World) (int, int, map[string]int) { return nodes, metas, map[string]int{"a": replicas} }), t}
			s.until("the cluster is complete", s.ready)
			play(s)
			for _, e := range s.Errs {
				t.Error(e)
			}
		})
	}
}

func (s *storeScript) until(what string, done func() bool) {
	s.t.Helper()
	if !s.RunUntil(time.Minute, done) {
		s.t.Fatalf("at %v: it does not come that %s", s.Now(), what)
	}
}

// settle heals everything, waits until all is as it shall be, and checks it.
func (s *storeScript) settle() {
	s.t.Helper()
	s.network.heal()
	s.network.tap = nil
	for _, n := range s.Nodes {
		n.disk.repair()
		if !n.Up() {
			s.start(n)
		}
	}
	s.Run(opTimeout)
	if !s.RunUntil(time.Minute, s.calm()) {
		s.t.Fatalf("at %v: %s", s.Now(), s.unrest())
	}
	s.conclude()
}

func (s *storeScript) start(n *Node) {
	s.t.Helper()
	if err := n.Start(); err != nil {
		s.t.Fatalf("at %v: %v", s.Now(), err)
	}
}

// attempt runs do, which is to call what it is given with the outcome.
func (s *storeScript) attempt(do func(tell func(error))) *attempt {
	a := &attempt{}
	do(a.tell)
	return a
}

// answered waits for an outcome.
func (s *storeScript) answered(a *attempt) error {
	s.t.Helper()
	s.until("there is an outcome", func() bool { return a.told > 0 })
	return a.err
}

// cell is the only one that most scripts use.
var theCell = cell{db: "a"}

// putting writes a new value to a cell through a member, and does not wait.
func (s *storeScript) putting(m *member, c cell) (*attempt, uint64) {
	s.write++
	p := point{hour: c.hour, series: c.series, slot: c.slot}
	p.values[c.field] = s.write
	return s.attempt(func(tell func(error)) { s.put(m, c.db, []point{p}, tell) }), s.write
}

// puts does so until it has worked.
func (s *storeScript) puts(m *member, c cell) uint64 {
	s.t.Helper()
	a, value := s.putting(m, c)
	if err := s.answered(a); err != nil {
		s.t.Fatalf("at %v: write through node %d: %v", s.Now(), m.node.Index, err)
	}
	return value
}

// sees reads a cell through a member, until that works.
func (s *storeScript) sees(m *member, c cell) (value uint64) {
	s.t.Helper()
	for range 20 {
		a := s.attempt(func(tell func(error)) { m.read(c, func(v uint64, err error) { value = v; tell(err) }) })
		if s.answered(a) == nil {
			return value
		}
		s.Run(100 * time.Millisecond)
	}
	s.t.Fatalf("at %v: node %d cannot read %+v", s.Now(), m.node.Index, c)
	return 0
}

// group is the raft group of the shard that has a cell, as a member knows it.
func (s *storeScript) group(m *member, c cell) dsdb.GroupID {
	s.t.Helper()
	g := m.catalogue.View().GroupFor(c.db, "", c.time())
	if g == nil {
		s.t.Fatalf("there is no time group for %+v", c)
	}
	return g.Shards[g.Partition(seriesKey(c.series))].ID.Group()
}

// leaderOf waits for one leader of a group.
func (s *storeScript) leaderOf(g dsdb.GroupID) *Node {
	s.t.Helper()
	s.until("there is one leader", func() bool { return len(s.Leaders(g)) == 1 })
	return s.Leader(g)
}

// other is a member on none of some nodes.
func (s *storeScript) other(than ...*Node) *member {
	s.t.Helper()
	for _, m := range s.members {
		if m.alive() && m.serving && !slices.Contains(than, m.node) {
			return m
		}
	}
	s.t.Fatal("there is no other member")
	return nil
}

// A machine loses its disk. It is refused at its old address, with the remedy,
// which works: it comes back as another process in the place of the old one.
func TestS12AWipedNodeReturnsToItsAddress(t *testing.T) {
	storeScenario(t, 3, 3, 3, 3, func(s *storeScript) {
		n := s.Nodes[1+s.Rand.IntN(2)]
		s.puts(s.members[0], theCell)
		old := s.members[n.Index].id
		s.Run(time.Second)
		n.Wipe()
		s.start(n)
		s.until("it is refused", func() bool { return s.members[n.Index].refusal != nil })
		s.Run(3 * time.Second)
		refusal := s.members[n.Index].refusal
		if dsdb.KindOf(refusal) != dsdb.KindConflict || !strings.Contains(refusal.Error(), "--replace") {
			s.t.Errorf("refused with: %v", refusal)
		}
		if s.members[n.Index].alive() {
			s.t.Error("it is a member without leave")
		}
		s.puts(s.members[0], theCell)
		s.replaced[n.Index] = old.Peer()
		s.until("it is back", func() bool { return s.members[n.Index].alive() && s.members[n.Index].serving })
		if id := s.members[n.Index].id; id.UUID == old.UUID || id.DataID == old.DataID || id.Replica == old.Replica {
			s.t.Errorf("it is back as %+v, was %+v", id, old)
		}
		s.settle()
	})
}

// A coordinator dies when its write is on its way. Its client sends the write
// again through another node, while a third overwrites it: one of the values is
// there in the end, and stays.
func TestS20ACoordinatorDiesAndItsClientTriesAgainElsewhere(t *testing.T) {
	storeScenario(t, 5, 3, 3, 6, func(s *storeScript) {
		s.puts(s.members[0], theCell)
		g := s.group(s.members[0], theCell)
		l := s.leaderOf(g)
		m := s.other(l)
		before := l.Status(g).Last
		lost, _ := s.putting(m, theCell)
		s.until("the write is in the leader's log", func() bool { return l.Status(g).Last > before || lost.told > 0 })
		m.node.Kill()
		one, two := s.other(m.node), s.other(m.node, l)
		a, v := s.putting(one, theCell)
		b, w := s.putting(two, theCell)
		if errA, errB := s.answered(a), s.answered(b); errA != nil || errB != nil {
			s.t.Fatalf("the others: %v, %v", errA, errB)
		}
		value := s.sees(one, theCell)
		if value != v && value != w {
			s.t.Errorf("%d is there, want %d or %d", value, v, w)
		}
		s.settle()
		for _, m := range s.members {
			if now := s.sees(m, theCell); now != value {
				s.t.Errorf("node %d has %d, before it was %d", m.node.Index, now, value)
			}
		}
	})
}

// The answer to a write does not come, and its leader dies. Before the same
// coordinator tries again at the next leader somebody else overwrites the value:
// the second copy has no effect, and is acknowledged.
func TestS21ASecondCopyHasNoEffect(t *testing.T) {
	storeScenario(t, 5, 3, 3, 8, func(s *storeScript) {
		s.puts(s.members[0], theCell)
		g := s.group(s.members[0], theCell)
		l := s.leaderOf(g)
		m := s.other(s.Holders(g)...)
		index := l.Status(g).Last
		m.leaders.Learn(g, l.DataID)
		first, _ := s.putting(m, theCell)
		s.until("the leader has it", func() bool { return l.Status(g).Last > index })
		s.network.isolate(m.node.Index)
		s.until("it is committed on the others", func() bool {
			at := 0
			for _, n := range s.Holders(g) {
				if n.Status(g).Applied > index {
					at++
				}
			}
			return at == 3
		})
		l.Kill()
		for _, n := range s.Nodes {
			if n.Up() {
				n.PeerDown(l.names()...)
			}
		}
		newer := s.puts(s.other(m.node), theCell)
		if first.told > 0 {
			s.t.Fatalf("too late: %v", first.err)
		}
		copies := s.Counts["second copies of proposals"]
		s.network.heal()
		if err := s.answered(first); err != nil {
			s.t.Errorf("the second copy: %v", err)
		}
		if s.Counts["second copies of proposals"] == copies {
			s.t.Error("there was no second copy")
		}
		if now := s.sees(m, theCell); now != newer {
			s.t.Errorf("%d is there, want %d", now, newer)
		}
		s.settle()
	})
}

// Series are dropped while they are written, and while a replica that was away
// gets a snapshot of the shard.
func TestS22DropsRaceWritesAndASnapshot(t *testing.T) {
	storeScenario(t, 3, 3, 3, 6, func(s *storeScript) {
		s.puts(s.members[0], theCell)
		g := s.group(s.members[0], theCell)
		l := s.leaderOf(g)
		f := s.other(l)
		s.network.isolate(f.node.Index)
		_, last := f.proc.log.Bounds(g)
		m := s.other(f.node)
		s.until("the leader's log has forgotten what the other lacks", func() bool {
			for range 20 {
				s.puts(m, cell{db: "a", series: s.Rand.IntN(seriesCount), slot: s.Rand.IntN(slotCount)})
			}
			s.Run(20 * time.Millisecond)
			first := uint64(0)
			if l := s.Leader(g); l != nil {
				first, _ = l.run.log.Bounds(g)
			}
			return first > last+1
		})
		s.network.heal()
		sent := s.Counts["snapshots sent"]
		for range 30 {
			at := s.members[s.Rand.IntN(3)]
			s.remove(at, theCell, true, func(error) {})
			for range 5 {
				s.putting(at, cell{db: "a", slot: s.Rand.IntN(slotCount)})
			}
			s.Run(s.Between(0, 50*time.Millisecond))
		}
		s.until("a snapshot was sent", func() bool { return s.Counts["snapshots sent"] > sent })
		s.settle()
	})
}

// A database is dropped while points are written to it, and made again: nothing
// of what was written before comes back.
func TestS22DropOfADatabaseRacesWrites(t *testing.T) {
	storeScenario(t, 3, 3, 3, 6, func(s *storeScript) {
		for round := range 4 {
			m := s.members[s.Rand.IntN(3)]
			s.puts(m, theCell)
			for range 20 {
				s.putting(s.members[s.Rand.IntN(3)], cell{db: "a", series: s.Rand.IntN(seriesCount)})
			}
			s.Run(s.Between(0, 20*time.Millisecond))
			if err := s.answered(s.attempt(func(tell func(error)) {
				m.command(&meta.DropDatabase{Name: "a"}, func(_ dsdb.Verdict, err error) { tell(err) })
			})); err != nil {
				s.t.Fatalf("round %d: drop: %v", round, err)
			}
			if got := m.catalogue.View().Database("a"); got != nil {
				s.t.Fatal("the database is still there")
			}
			s.Run(opTimeout)
			s.calls = map[cell][]*call{} // what was written before can be read no more
			s.until("the database is there again", s.ready)
			if v := s.sees(m, theCell); v != 0 {
				s.t.Errorf("round %d: %d has come back", round, v)
			}
		}
		s.settle()
	})
}

// While two of five nodes are cut off a new time group begins. The three others
// create it and write to it; what the two were asked for did not happen, or
// nobody can tell; then all are one again.
func TestS23ATimeGroupBeginsInAPartition(t *testing.T) {
	storeScenario(t, 5, 5, 3, 5, func(s *storeScript) {
		s.puts(s.members[0], theCell)
		s.Run(time.Second)
		order := s.Rand.Perm(5)
		for _, a := range order[:2] {
			for _, b := range order[2:] {
				s.network.cut[[2]int{a, b}], s.network.cut[[2]int{b, a}] = true, true
			}
		}
		s.Run(6 * time.Second)
		next := cell{db: "a", hour: 1, series: 1}
		alone, _ := s.putting(s.members[order[0]], next)
		for range 10 {
			s.puts(s.members[order[2+s.Rand.IntN(3)]], next)
		}
		if err := s.answered(alone); err == nil || dsdb.KindOf(err) != dsdb.KindUnavailable && dsdb.KindOf(err) != dsdb.KindTimeout {
			s.t.Errorf("the write of a node that is cut off: %v", err)
		}
		s.settle()
	})
}

// Two of three meta nodes are down: what is in the catalogue goes on being
// written, changes of the catalogue fail and say so, and work again afterwards.
func TestS24TheCatalogueHasNoQuorum(t *testing.T) {
	storeScenario(t, 5, 3, 5, 5, func(s *storeScript) {
		for _, m := range s.members {
			s.puts(m, theCell)
		}
		s.Run(2 * time.Second)
		down := s.Rand.Perm(3)[:2]
		for _, i := range down {
			s.Nodes[i].Kill()
		}
		s.Run(6 * time.Second)
		for range 20 {
			s.puts(s.other(), theCell)
			s.puts(s.members[4], theCell)
		}
		m := s.members[3]
		began := s.Now()
		err := s.answered(s.attempt(func(tell func(error)) {
			m.command(&meta.CreateDatabase{Name: "late"}, func(_ dsdb.Verdict, err error) { tell(err) })
		}))
		if k := dsdb.KindOf(err); err == nil || k != dsdb.KindUnavailable && k != dsdb.KindTimeout || s.Now() > began+opTimeout+time.Second {
			s.t.Errorf("a change without a quorum, after %v: %v", s.Now()-began, err)
		}
		for _, i := range down {
			s.start(s.Nodes[i])
		}
		s.until("changes work again", func() bool { return s.Leader(dsdb.MetaGroup) != nil })
		s.puts(s.members[4], cell{db: "a", hour: 1})
		s.settle()
	})
}
