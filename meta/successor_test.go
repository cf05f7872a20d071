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
	for seed := range uint64(25) {
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

// mayDie makes sure that most voters of a group were given up by force.
func (w *world) mayDie(g *fakeGroup) {
	alive := 0
	for _, m := range g.voters {
		if p, _ := w.d.ProcessOf(m.Node); !p.DataLost && !p.Gone() {
			alive++
		}
	}
	if alive > len(g.voters)/2 {
		w.t.Fatalf("group %d is to go on from one replica, and %d of %d voters were not given up\n%s", g.id, alive, len(g.voters), w.tail())
	}
}

// givenUp reports whether a replica of the group is on a node that was dropped by force.
func (w *world) givenUp(g *fakeGroup) bool {
	all, _ := w.d.Replicas(g.id)
	return slices.ContainsFunc(all, func(r Replica) bool { return g.id != dsdb.MetaGroup && w.d.lost(r.Node) })
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
