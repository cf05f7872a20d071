package meta

import (
	"slices"
	"testing"

	"github.com/dasudian/dsdb"
)

// Nodes are dropped by force, whether they live or not. A shard goes on from one
// replica only if most of its voters were given up (mayDie), and none stays without
// a leader that has a copy on a node which is there.
func TestControllerGivesUpWhatWasGivenUp(t *testing.T) {
	successions := 0
	seeds := []uint64{313, 364, 1765} // found what came too late
	for seed := range uint64(25) {
		seeds = append(seeds, seed)
	}
	for _, seed := range seeds {
		w := trouble(t, seed, true)
		for _, p := range w.procs {
			p.up = true
		}
		for range 60 {
			w.second(false)
		}
		for _, ref := range w.d.Groups() {
			for _, s := range ref.Group.Shards {
				if s.Origin != nil {
					successions++
				}
				if w.groups[s.ID.Group()].leader == 0 {
					t.Fatalf("seed %d: shard %d has no leader: %+v\n%s", seed, s.ID, w.groups[s.ID.Group()], w.tail())
				}
			}
		}
	}
	if successions < 5 {
		t.Errorf("%d shards went on from one replica: the test does not do what it says", successions)
	}
}

// mayDie makes sure that most voters of a group were given up by force, and that it
// has had no leader, who may have acknowledged more, since it was decided that it is
// to go on from one replica.
func (w *world) mayDie(g *fakeGroup, c *SucceedShard) {
	alive := 0
	for _, m := range g.voters {
		if p, _ := w.d.ProcessOf(m.Node); !p.DataLost && !p.Gone() {
			alive++
		}
	}
	if alive > len(g.voters)/2 {
		w.t.Fatalf("group %d is to go on from one replica, and %d of %d voters were not given up\n%s", g.id, alive, len(g.voters), w.tail())
	}
	if decided, known := w.asked[c]; known && g.led > decided {
		w.t.Fatalf("group %d goes on from one replica by a decision of %d, and was led at %d\n%s", g.id, decided, g.led, w.tail())
	}
}

// announce has a process that has returned tell of its start, as soon as it can.
func (w *world) announce(p *fakeProcess) {
	proc, _ := w.d.Process(p.name)
	if g := w.groups[dsdb.MetaGroup]; p.up && !p.told && w.quorum(g, g.voters) {
		w.try(&BootNode{UUID: p.name, Addresses: proc.Addresses, Epoch: proc.Epoch + 1})
		p.told = true
	}
	p.told = p.told && p.up
}

// settle gives a majority of the voters what is committed: a change of members is an
// entry after it, which takes a majority of those after the change, too.
func (g *fakeGroup) settle(w *world) {
	have := 0
	for _, m := range g.voters {
		if g.match[m.Replica] >= g.commit {
			have++
		}
	}
	for _, m := range g.voters {
		if have <= len(g.voters)/2 && w.works(g, m) && g.match[m.Replica] < g.commit {
			g.match[m.Replica] = g.commit
			have++
		}
	}
}

// givenUp reports whether a replica of the group is on a node that was dropped by force.
func (w *world) givenUp(g *fakeGroup) bool {
	all, _ := w.d.Replicas(g.id)
	return slices.ContainsFunc(all, func(r Replica) bool { return g.id != dsdb.MetaGroup && w.d.lost(r.Node) })
}

// Two of three nodes were given up, and it was decided to go on without them. If one
// of them is back before that comes to pass, it does not, however late it comes; once
// the node is away again it is decided anew.
func TestDecisionToGoOnIsVoidOnceANodeIsBack(t *testing.T) {
	for name, back := range map[string]func(w *world, p *fakeProcess){
		"started": func(w *world, p *fakeProcess) { w.announce(p) },
		"heard": func(w *world, p *fakeProcess) {
			p.told = true // it was out of reach only
			w.second(false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, 3)
			w.force = true
			w.join(true, false)
			w.join(true, false)
			n := 3
			w.try(&CreateDatabase{Name: "db", Policy: &PolicySpec{ReplicaN: &n}})
			w.try(&EnsureShardGroups{Database: "db", Times: []int64{0}})
			for range 30 {
				w.second(false)
			}
			shard := w.d.Groups()[0].Group.Shards[0]
			var lost []*fakeProcess
			for _, r := range shard.Replicas[1:] {
				p, _ := w.d.ProcessOf(r.Node)
				i := slices.IndexFunc(w.procs, func(f *fakeProcess) bool { return f.name == p.UUID })
				w.procs[i].up = false
				lost = append(lost, w.procs[i])
				w.try(&DropNode{ID: r.Node, Kind: DataNode, Force: true, Lost: true})
			}
			early := w.decision(shard.ID)
			lost[0].up = true
			back(w, lost[0])
			if w.try(early) {
				t.Fatalf("the shard goes on from one replica, and a majority is there\n%s", w.tail())
			}
			lost[0].up = false
			if late := w.decision(shard.ID); w.try(early) || !w.try(late) {
				t.Errorf("what was decided anew was refused, or what was void was not\n%s", w.tail())
			}
		})
	}
}

// decision returns the command by which a shard is to go on from one replica, which
// it does not carry out, once that is decided.
func (w *world) decision(id dsdb.ShardID) (c *SucceedShard) {
	w.t.Helper()
	for range 60 {
		w.live(false)
		for _, a := range w.c.Step(w.now, w.d) {
			if s, is := a.Command.(*SucceedShard); !is {
				w.do(a)
			} else if s.ID == id {
				c = s
			}
		}
		if c != nil {
			return c
		}
	}
	w.t.Fatalf("nobody wants shard %d to go on\n%s", id, w.tail())
	return nil
}

// A node that was given up for good, and whose process takes up the role again, is a
// data node like any other: shards do not go on without it when it is away.
func TestNodeThatComesBackIsNotGivenUp(t *testing.T) {
	d := newTestData(t, 3)
	p, _ := d.Process("n2")
	d = mustApply(t, d, &DropNode{ID: p.DataID, Kind: DataNode, Force: true, Lost: true})
	if !d.lost(p.DataID) {
		t.Fatal("the node was not given up")
	}
	d = mustApply(t, d, &SetRoles{UUID: "n2", Meta: true})
	d = mustApply(t, d, &SetRoles{UUID: "n2", Meta: true, Data: true})
	if p, _ := d.Process("n2"); !p.Is(DataNode) || d.lost(p.DataID) {
		t.Errorf("active: %v, given up: %v", p.Is(DataNode), d.lost(p.DataID))
	}
}

// A catalogue that goes on from an earlier state gives no id again that is found in
// use, keeps those that it knows to be higher, and learns the fields of shards.
func TestResumedCatalogueKnowsWhatIsFound(t *testing.T) {
	d := newTestData(t, 1)
	d = mustApply(t, d, &EnsureShardGroups{Database: "db", Times: []int64{1}})
	d = mustApply(t, d, &RegisterFields{Database: "db", Sets: []NewFields{{Measurement: "m", Times: []int64{1}, Fields: []Field{{"old", dsdb.Float}}}}})
	before := d.Counters
	d = mustApply(t, d, &ResumeCatalogue{Shard: 40, Replica: 1, Fields: []RegisterFields{
		{Database: "db", Sets: []NewFields{{Measurement: "m", Times: []int64{1}, Fields: []Field{{"new", dsdb.Integer}, {"old", dsdb.String}}}}}}})
	if d.Counters.Shard != 40 || d.Counters.Replica != before.Replica || d.Counters.Database != before.Database {
		t.Errorf("counters %+v, before %+v", d.Counters, before)
	}
	fields := d.GroupFor("db", "", 1).Fields("m")
	if fields.Type("new") != dsdb.Integer || fields.Type("old") != dsdb.Float {
		t.Errorf("fields %v", fields)
	}
	d = mustApply(t, d, &EnsureShardGroups{Database: "db", Times: []int64{3 * week}})
	if id := d.GroupFor("db", "", 3*week).Shards[0].ID; id != 41 {
		t.Errorf("the next shard has id %d", id)
	}
}
