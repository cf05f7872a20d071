package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/lineproto"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/server/httpd"
	"github.com/dasudian/dsdb/shard"
)

// dataOnly makes a configuration that of a node without the meta role.
func dataOnly(c *config.Config) { c.Meta.Enabled = false }

// Two of three copies of a shard are lost with their machines. Once both were
// dropped by force, the shard goes on from the third, with all that this one has,
// takes writes, and gets new copies when there are machines for them.
func TestShardGoesOnFromTheCopyThatIsLeft(t *testing.T) {
	t.Parallel()
	first := newMachine(t).start()
	nodes := []*machine{first, newMachine(t, joins(first), dataOnly).start(), newMachine(t, joins(first), dataOnly).start()}
	agree(t, nodes...)
	first.mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	acknowledged := "SELECT count(v), sum(v) FROM m WHERE time < 50"
	for i := range 20 {
		nodes[i%3].mustWrite("db", fmt.Sprintf("m,host=h%d v=%d %d", i%5, i, i+1))
	}
	settled(t, nodes, 3)
	want := first.mustQuery("db", acknowledged)
	nodes[1].halt()
	nodes[2].halt()
	if err := first.write("db", "m v=1 100"); err == nil {
		t.Fatal("a write was acknowledged without a majority")
	}
	if err := first.writeAs("any", "db", "m,host=h1 v=50 60"); err != nil {
		t.Errorf("a hint was refused: %v", err)
	}
	for _, m := range nodes[1:] {
		first.mustQuery("", fmt.Sprintf("DROP DATA SERVER %d FORCE", m.node.id.DataID))
	}
	eventually(t, "the shard takes writes", func() bool { return first.write("db", "m,host=new v=7 200") == nil })
	eventually(t, "the hint is delivered", func() bool {
		got, err := first.query("db", "SELECT v FROM m WHERE time = 60")
		return err == nil && got == "m time=60 v=50"
	})
	first.mustQuery("db", "DELETE FROM m WHERE host = 'new'")
	first.expect("db", acknowledged, want)

	fresh := []*machine{newMachine(t, joins(first), dataOnly).start(), newMachine(t, joins(first), dataOnly).start()}
	all := append([]*machine{first}, fresh...)
	settled(t, all, 3)
	for _, m := range fresh {
		if got, err := m.ask(readLevel{Read: httpd.ReadStale}, "db", acknowledged); got != want {
			t.Errorf("a new copy holds %q, %v", got, err)
		}
	}
	fresh[0].mustWrite("db", "m,host=h9 v=1 300")
	if !strings.Contains(first.log.String(), "a shard goes on from the copy on this node") {
		t.Error("the log does not say what happened")
	}
	nodes[1].refused("was dropped from the cluster")
	if n := len(first.node.meta.View().NodesOf(meta.DataNode)); n != 3 {
		t.Errorf("%d data nodes", n)
	}
}

// refound has the cluster go on from the catalogue of a machine that is halted.
func (m *machine) refound(lost ...dsdb.NodeID) (r Remains, err error) {
	err = Refound(m.t.Context(), m.cfg, m.fs, lost, func(got Remains) error { r = got; return nil })
	return r, err
}

// Two of three machines with both roles are lost for good, and with them the
// majority of the catalogue and of every shard. What the third has is brought back
// by the commands of the guide, and two new machines make it three again.
func TestClusterGoesOnFromOneOfThreeMachines(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	for i := range 30 {
		nodes[i%3].mustWrite("db", fmt.Sprintf("m,host=h%d v=%d %d", i%5, i, i+1))
	}
	settled(t, nodes, 3)
	acknowledged := "SELECT count(v), sum(v) FROM m WHERE time < 50"
	want := nodes[0].mustQuery("db", acknowledged)
	left, lost := nodes[2], nodes[:2]
	ids := []dsdb.NodeID{lost[0].node.id.MetaID, lost[1].node.id.MetaID}
	if _, err := left.refound(ids...); err == nil || !strings.Contains(err.Error(), "lock") {
		t.Errorf("refounded while it runs, error %v", err)
	}
	left.halt()
	if _, err := left.refound(ids...); err == nil || !strings.Contains(err.Error(), "runs and answers at") {
		t.Errorf("refounded while others run, error %v", err)
	}
	lost[0].halt()
	lost[1].halt()
	if _, err := left.refound(ids[0]); err == nil || !strings.Contains(err.Error(), "a majority is left") {
		t.Errorf("refounded while a majority is left, error %v", err)
	}
	if r, err := left.refound(ids...); err != nil || len(r.Lost) != 2 || len(r.Others) != 0 {
		t.Fatalf("refound: %+v, %v", r, err)
	}
	left.start()
	for _, m := range lost {
		left.mustQuery("", fmt.Sprintf("DROP DATA SERVER %d FORCE", m.node.id.DataID))
	}
	eventually(t, "the shard takes writes", func() bool { return left.write("db", "m,host=new v=7 200") == nil })
	left.expect("db", acknowledged, want)

	all := []*machine{left, newMachine(t, joins(left)).start(), newMachine(t, joins(left)).start()}
	agree(t, all...)
	allVote(t, all...)
	settled(t, all, 3)
	for _, m := range all {
		m.expect("db", acknowledged, want)
	}
	lost[1].refused("was dropped from the cluster")
	all[1].halt()
	all[2].mustWrite("db", "m,host=h9 v=1 300")
	left.mustQuery("", "CREATE DATABASE more")
}

// cutter keeps what a power cut before each operation would leave of a disk.
type cutter struct {
	disk *vfs.Mem

	mu    sync.Mutex
	rng   *rand.Rand
	armed bool
	cuts  []diskCut
}

type diskCut struct {
	disk *vfs.Mem
	name string // says what did not happen
	seed uint64
}

// before is told of each operation.
func (r *cutter) before(op, path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.armed || op == vfs.OpRead || op == vfs.OpMap || op == vfs.OpStat || op == vfs.OpList || op == vfs.OpOpen {
		return nil
	}
	percent, seed := r.rng.IntN(3)*50, r.rng.Uint64()
	name := fmt.Sprintf("%s %s, %d%% of what was not synced survived", op, path, percent)
	r.cuts = append(r.cuts, diskCut{r.disk.CrashClone(percent, seed), name, seed})
	return nil
}

func (r *cutter) arm(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.armed = on
}

// check has a function look at each disk, many at the same time: a start waits for
// elections, most of the time.
func (r *cutter) check(t *testing.T, look func(diskCut) (*client, error)) {
	var all sync.WaitGroup
	slots := make(chan struct{}, 16)
	for _, cut := range r.cuts {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if c, err := look(cut); err != nil {
				t.Errorf("power cut before %s: %v\n%s", cut.name, err, c.log)
			}
		})
	}
	all.Wait()
}

// orphan is the disk of a node that has the only copy left of a shard: part of it
// in files, part in the log, and some there of what was never acknowledged.
type orphan struct {
	cfg   config.Config
	disk  *vfs.Mem
	group dsdb.GroupID
	lost  []dsdb.NodeID
	want  string // of all points
	early []byte // a write that was followed by another to the same point
}

func newOrphan(t *testing.T) *orphan {
	first := newMachine(t).start()
	nodes := []*machine{first, newMachine(t, joins(first), dataOnly).start(), newMachine(t, joins(first), dataOnly).start()}
	agree(t, nodes...)
	first.mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	first.mustWrite("db", "m,host=a v=1 1\nm,host=b v=2 2\nm,host=c v=3 3")
	settled(t, nodes, 3)
	ref := first.node.meta.View().Groups()[0]
	o := &orphan{cfg: first.cfg, disk: first.fs.(*vfs.Mem), group: ref.Group.Shards[0].ID.Group()}
	lead := func() {
		eventually(t, "the first node leads the shard", func() bool {
			for _, m := range nodes {
				if mine, _ := ref.Group.Shards[0].On(first.node.dataID); m != first && m.node.host.Status(o.group).Leading {
					_ = m.node.host.Transfer(t.Context(), o.group, mine.ID)
				}
			}
			return first.node.host.Status(o.group).Leading
		})
	}
	lead()
	o.early = first.proposeOnce(t, o.group, "m,host=a v=-1 4")
	first.flushAll()
	first.mustWrite("db", "m,host=a v=4 4\nm,host=d v=5 5")
	first.mustQuery("db", "DELETE FROM m WHERE host = 'b'")
	for _, m := range nodes[1:] {
		o.lost = append(o.lost, m.node.dataID)
	}
	done := make(chan error, 1)
	eventually(t, "the log has a write that nobody acknowledged", func() bool {
		lead()
		nodes[1].halt()
		nodes[2].halt()
		go func() { done <- first.write("db", "m,host=e v=6 6") }()
		st := first.node.host.Status(o.group)
		for ; st.Leading && st.Last == st.Commit; st = first.node.host.Status(o.group) {
			time.Sleep(time.Millisecond)
		}
		if st.Last > st.Commit {
			return true
		}
		startAll(nodes[1:]...) // it was too slow, and leads no more
		<-done
		return false
	})
	o.want = "m time=1 host=a v=1\nm time=3 host=c v=3\nm time=4 host=a v=4\nm time=5 host=d v=5\nm time=6 host=e v=6"
	first.halt()
	if err := <-done; err == nil {
		t.Fatal("a write was acknowledged by one of three")
	}
	return o
}

// proposeOnce proposes lines to a group led here, and returns the proposal.
func (c *client) proposeOnce(t *testing.T, g dsdb.GroupID, lines string) []byte {
	t.Helper()
	var p lineproto.Parser
	var b column.WriteBatch
	if _, err := p.Parse(&b, []byte(lines), lineproto.Options{}); err != nil {
		t.Fatal(err)
	}
	id, err := c.node.takeID(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	defer c.node.routes.sequencer.Release(g, id)
	entry := shard.AppendWrite(nil, id, &b)
	if _, err := c.node.proposeAs(t.Context(), &proposalCall{group: g, payload: entry}); err != nil {
		t.Fatal(err)
	}
	return entry
}

// goesOn has the shard go on, as the operator and the controller do, and reports
// what is wrong then.
func (o *orphan) goesOn(c *client) error {
	ctx, cancel := context.WithTimeout(context.Background(), *patience)
	defer cancel()
	for _, id := range o.lost {
		_ = c.node.command(ctx, &meta.DropNode{ID: id, Kind: meta.DataNode, Force: true, Lost: true}) // is done, after a crash
	}
	ref, _ := c.node.meta.View().Shard(dsdb.ShardID(o.group))
	if mine, _ := ref.Shard.On(c.node.dataID); ref.Shard.Origin == nil {
		if err := c.node.command(ctx, &meta.SucceedShard{ID: ref.Shard.ID, Replica: mine.ID}); err != nil {
			return err
		}
	}
	for c.write("db", "other v=1 1") != nil {
		if err := pauseFor(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("the shard takes no writes: %w", err)
		}
	}
	if _, err := c.node.proposeAs(ctx, &proposalCall{group: o.group, payload: o.early}); err != nil { // tried again: it has had its effect
		return err
	}
	switch got, err := c.query("db", "SELECT * FROM m"); {
	case err != nil:
		return err
	case got != o.want:
		return fmt.Errorf("it holds %q", got)
	}
	names, err := c.node.fs.List("/node/data/shard")
	if err == nil && len(names) != 1 {
		err = fmt.Errorf("the folders of replicas are %v", names)
	}
	return err
}

// The power is cut before each operation of the founding of a shard's new group.
// Afterwards it goes on, and all that the copy had is there: what was flushed, what
// was only in the log, and not what was deleted.
func TestPowerCutsWhileAShardIsFoundedAnew(t *testing.T) {
	t.Parallel()
	o := newOrphan(t)
	disk := o.disk.CrashClone(100, 1)
	r := &cutter{disk: disk, rng: rand.New(rand.NewPCG(1, 2))}
	c := open(t, vfs.Faulty(disk, r.before), o.cfg)
	r.arm(true)
	if err := o.goesOn(c); err != nil {
		t.Fatalf("undisturbed: %v\n%s", err, c.log)
	}
	r.arm(false)
	c.close()
	founding := map[string]int{}
	r.cuts = slices.DeleteFunc(r.cuts, func(cut diskCut) bool {
		if strings.Contains(cut.name, "/shard/") {
			founding[strings.Fields(cut.name)[0]]++
			return false
		}
		return cut.seed%4 > 0
	})
	r.check(t, func(cut diskCut) (*client, error) {
		cfg := o.cfg
		cfg.HTTP.BindAddress, cfg.Meta.BindAddress, cfg.Meta.HTTPBindAddress = freeAddress(t), freeAddress(t), freeAddress(t)
		c, err := tryOpen(t, cut.disk, cfg)
		if err != nil {
			return c, err
		}
		return c, errors.Join(o.goesOn(c), c.node.Close())
	})
	t.Logf("%d power cuts, in the folders of replicas before %v", len(r.cuts), founding)
	for _, op := range []string{"write", "sync", "link", "rename", "syncdir", "remove"} {
		if founding[op] == 0 {
			t.Errorf("the power was never cut before a %s in the folders of the replicas: %v", op, founding)
		}
	}
}

// The power is cut before each operation of dsdbd recover -without. The same call
// goes on from there; the catalogue is whole, and decides again.
func TestPowerCutsWhileACatalogueIsFoundedAnew(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3; CREATE DATABASE other")
	nodes[0].mustWrite("db", "m v=1 1")
	settled(t, nodes, 3)
	left, lost := nodes[1], []dsdb.NodeID{nodes[0].node.id.MetaID, nodes[2].node.id.MetaID}
	for _, m := range nodes {
		m.halt()
	}
	disk := left.fs.(*vfs.Mem).CrashClone(100, 1)
	r := &cutter{disk: disk, rng: rand.New(rand.NewPCG(3, 4)), armed: true}
	yes := func(Remains) error { return nil }
	if err := Refound(t.Context(), left.cfg, vfs.Faulty(disk, r.before), lost, yes); err != nil {
		t.Fatal(err)
	}
	var again atomic.Int32
	r.check(t, func(cut diskCut) (*client, error) {
		cfg := left.cfg
		cfg.HTTP.BindAddress, cfg.Meta.BindAddress, cfg.Meta.HTTPBindAddress = freeAddress(t), freeAddress(t), freeAddress(t)
		switch err := Refound(t.Context(), cfg, cut.disk, lost, yes); {
		case err == nil:
			again.Add(1)
		case !strings.Contains(err.Error(), "a majority is left"): // it was done
			return &client{}, err
		}
		c, err := tryOpen(t, cut.disk, cfg)
		if err != nil {
			return c, err
		}
		if _, err = c.query("", "CREATE DATABASE more"); err == nil {
			var got string
			if got, err = c.query("", "SHOW DATABASES"); err == nil && got != "databases name=db\ndatabases name=other\ndatabases name=more" {
				err = fmt.Errorf("databases: %s", got)
			}
		}
		return c, errors.Join(err, c.node.Close())
	})
	t.Logf("%d power cuts, %d times it was to be done again", len(r.cuts), again.Load())
	if again.Load() == 0 {
		t.Error("the power was never cut before it was done")
	}
}

// Three of five machines are lost, and with them the majority of the catalogue. The
// cluster goes on from one of the two that are left; the other one gets its
// catalogue when it is started, and a copy of a shard that it has counts.
func TestOtherSurvivorsFollow(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 5)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 5")
	nodes[0].mustWrite("db", "m v=1 1\nm v=2 2")
	settled(t, nodes, 5)
	left, other, lost := nodes[1], nodes[3], []*machine{nodes[0], nodes[2], nodes[4]}
	var ids []dsdb.NodeID
	for _, m := range lost {
		ids = append(ids, m.node.id.MetaID)
		m.halt()
	}
	left.halt()
	if _, err := left.refound(ids...); err == nil || !strings.Contains(err.Error(), "runs and answers at") {
		t.Errorf("refounded while another survivor runs, error %v", err)
	}
	other.halt()
	if r, err := left.refound(ids...); err != nil || len(r.Others) != 1 {
		t.Fatalf("refound: %+v, %v", r, err)
	}
	left.launch()
	other.launch()
	left.ready()
	other.ready()
	for _, m := range lost {
		other.mustQuery("", fmt.Sprintf("DROP DATA SERVER %d FORCE", m.node.id.DataID))
	}
	eventually(t, "the shard takes writes", func() bool { return other.write("db", "m v=3 3") == nil })
	agree(t, left, other)
	settled(t, []*machine{left, other}, 2)
	for _, m := range []*machine{left, other} {
		m.expect("db", "SELECT sum(v) FROM m", "m time=0 sum=6")
	}
	if !strings.Contains(other.log.String(), "this node gets it from the others") {
		t.Error("the log does not say that the node begins anew")
	}
}

// Two machines of three were replaced one after the other, before the first new one
// had its copies. The nodes whose place they took are given up under their old ids,
// and the new ones get copies.
func TestReplacedMachinesAreGivenUpByForce(t *testing.T) {
	t.Parallel()
	first := newMachine(t).start()
	nodes := []*machine{first, newMachine(t, joins(first), dataOnly).start(), newMachine(t, joins(first), dataOnly).start()}
	agree(t, nodes...)
	first.mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	first.mustWrite("db", "m v=1 1\nm v=2 2")
	settled(t, nodes, 3)
	var old []dsdb.NodeID
	for _, m := range nodes[1:] {
		old = append(old, m.node.dataID)
		m.halt()
	}
	for i, m := range nodes[1:] {
		m.fs, m.replace = vfs.NewMem(7), old[i]
		m.start()
	}
	nodes[1].restartWith(hasty)
	eventually(t, "who writes without a majority is told what can be done", func() bool {
		err := nodes[1].write("db", "m v=3 3")
		return err != nil && strings.Contains(err.Error(), fmt.Sprintf("DROP DATA SERVER %d FORCE", old[0]))
	})
	for _, id := range old {
		nodes[1].mustQuery("", fmt.Sprintf("DROP DATA SERVER %d FORCE", id))
	}
	eventually(t, "the shard takes writes", func() bool { return nodes[1].write("db", "m v=3 3") == nil })
	settled(t, nodes, 3)
	nodes[2].expect("db", "SELECT sum(v) FROM m", "m time=0 sum=6")
}

// A data node that is left follows a catalogue that was founded anew, too.
func TestDataNodeFollowsACatalogueFoundedAnew(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	data := newMachine(t, joins(nodes[0]), dataOnly).start()
	all := append(nodes, data)
	agree(t, all...)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 4")
	nodes[0].mustWrite("db", "m v=1 1\nm v=2 2")
	settled(t, all, 4)
	lost := nodes[1:3]
	for _, m := range all {
		m.halt()
	}
	if _, err := nodes[0].refound(lost[0].node.id.MetaID, lost[1].node.id.MetaID); err != nil {
		t.Fatal(err)
	}
	nodes[0].start()
	data.start()
	for _, m := range lost {
		data.mustQuery("", fmt.Sprintf("DROP DATA SERVER %d FORCE", m.node.dataID))
	}
	eventually(t, "the shard takes writes", func() bool { return data.write("db", "m v=3 3") == nil })
	nodes[0].expect("db", "SELECT sum(v) FROM m", "m time=0 sum=6")
}
