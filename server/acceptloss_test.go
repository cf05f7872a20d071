package server

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/ql"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/server/httpd"
)

// One bit flips anywhere in the log of a single node. If the node does not start it
// says what helps; that tells what is lost before it changes anything; and then the
// node starts, with everything that was flushed or lay before the damage, and nothing
// that was not written.
func TestSingleNodeGoesOnWithoutWhatIsLost(t *testing.T) {
	t.Parallel()
	flips := 25
	if raceEnabled || testing.Short() {
		flips = 6
	}
	for _, of := range []struct {
		name    string
		cfg     config.Config
		flushed bool
		size    int
		apart   bool // shards are put apart, sometimes
	}{
		{"nothing is flushed", quietConfig(), false, 10, true},
		{"some is flushed", quietConfig(), true, 10, true},
		{"a log of many files", smallLog(), false, 20000, false},
		{"a log of many files, some is flushed", smallLog(), true, 20000, false},
	} {
		t.Run(of.name, func(t *testing.T) {
			t.Parallel()
			d := keepDiary(t, of.cfg, of.flushed, of.size)
			used := used(t, d.disk)
			rng := rand.New(rand.NewPCG(7, 8))
			count := map[lossOutcome]int{}
			first := used[0].file
			places := []place{{first, 0}, {first, 20}, {first, 4096}, {first, 4100}, used[len(used)-1]} // the header, the first batch, the last one
			for range flips {
				places = append(places, used[rng.IntN(len(used))])
			}
			for _, at := range places {
				count[d.damageAt(t, at)]++
				if t.Failed() {
					return
				}
			}
			t.Logf("%d files: %v", len(segmentNames(t, d.disk)), count)
			lost := count[lossOutcome{lost: true}] + count[lossOutcome{started: true, lost: true}]
			if lost < flips/5 || count[lossOutcome{started: true}] == 0 || of.apart && flips > 20 && count[lossOutcome{lost: true, apart: true}] == 0 {
				t.Errorf("not all of what can happen did: %v", count)
			}
		})
	}
}

// Of a log's batches each is damaged in which the catalogue learns of a field, and
// no point is: all points stay, and those of that field can be queried.
func TestFieldsThatTheCatalogueLostAreFoundInTheShards(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem(1)
	c := open(t, disk, quietConfig())
	c.mustQuery("", "CREATE DATABASE a")
	c.mustWrite("a", "m v=1 1")
	page := c.lastBatch(t).next()
	c.mustWrite("a", "m v=2,w=\"new\" 2\nother v=3i 3")
	c.mustWrite("a", "m v=4 4")
	end := c.lastBatch(t)
	crashed := disk.CrashClone(0, 1)
	want := c.mustQuery("a", "SELECT * FROM m; SELECT * FROM other; SHOW FIELD KEYS")
	c.close()
	checked := 0
	for ; page.before(end); page = page.next() {
		broken := crashed.CrashClone(100, 1)
		flip(t, broken, page.path(), (page.at+64)*8)
		l, err := acceptLoss(t, broken, true)
		if err != nil {
			t.Fatalf("%v %q", err, l.Lines())
		}
		if l.Catalogue == nil || l.Catalogue.Ends || len(l.Shards) != 1 || l.Shards[0].Lost() || !l.Shards[0].Ends {
			continue // points, or nothing, are lost
		}
		checked++
		c := open(t, broken, quietConfig())
		c.expect("a", "SELECT * FROM m; SELECT * FROM other; SHOW FIELD KEYS", want)
		c.mustWrite("a", "m w=\"more\" 5")
		wantError(t, c.write("a", "m w=1 6"), dsdb.KindConflict, "w")
		c.close()
	}
	if checked == 0 {
		t.Error("no field was lost from the catalogue")
	}
}

// The log is gone, and the catalogue's file is older than the shards: they would be
// taken for those of other databases. They are put apart, and their ids are not
// given again.
func TestCatalogueBehindTheShards(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem(1)
	c := open(t, disk, quietConfig())
	if err := c.node.flushMeta(); err != nil {
		t.Fatal(err)
	}
	old := files(t, disk, "/node/meta/catalogue")[0]
	file := readAll(t, disk, old)
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", fmt.Sprintf("cpu usage=1 10\ncpu usage=2 %d", 20*day))
	c.flushAll()
	copied := disk.CrashClone(100, 1)
	c.close()
	for _, dir := range []string{"/node/wal", "/node/meta/catalogue"} {
		if err := errors.Join(copied.RemoveAll(dir), copied.MkdirAll(dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := vfs.WriteFileAtomic(copied, old, file); err != nil {
		t.Fatal(err)
	}
	_, err := tryOpen(t, copied, quietConfig())
	wantError(t, err, dsdb.KindCorrupt, "has lost the log")
	for _, accept := range []bool{false, true} {
		l, err := acceptLoss(t, copied, accept)
		if err != nil || len(l.Apart) != 2 || l.Apart[1].Folder != "/node/data/lost/2" {
			t.Fatalf("%v %+v", err, l)
		}
	}
	c = open(t, copied, quietConfig())
	c.mustQuery("", "CREATE DATABASE other")
	c.mustWrite("other", "m v=1 10")
	c.expect("other", "SELECT * FROM m", "m time=10 v=1")
	if id := c.node.meta.View().Groups()[0].Group.Shards[0].ID; id != 3 {
		t.Errorf("the new shard has id %d", id)
	}
	c = c.reopen()
	c.expect("other", "SELECT * FROM m", "m time=10 v=1")
	c.close()
	if names := strings.Join(files(t, copied, "/node/data/lost/1"), " "); !strings.Contains(names, ".seg") {
		t.Errorf("put apart: %s", names)
	}
}

// The power is cut before each operation of dsdbd recover -accept-loss. The same call
// goes on from there, and then the node has what it would have had.
func TestPowerCutsWhileALossIsAccepted(t *testing.T) {
	t.Parallel()
	d := keepDiary(t, quietConfig(), false, 10)
	var at place
	for i, e := range d.entries { // the second database, which a part of the catalogue is lost with
		if e.db == "b" && e.line == "" {
			at = d.entries[i-1].batch.next()
		}
	}
	for { // unless that is a mark
		broken := d.disk.CrashClone(100, 1)
		flip(t, broken, at.path(), (at.at+30)*8)
		if l, err := acceptLoss(t, broken, false); err == nil && len(l.Apart) > 0 && len(l.Shards) > 0 {
			d.disk = broken
			break
		}
		at = at.next()
	}
	disk := d.disk.CrashClone(100, 1)
	r := &cutter{disk: disk, rng: rand.New(rand.NewPCG(3, 4)), armed: true}
	l, err := acceptLoss(t, vfs.Faulty(disk, r.before), true)
	if err != nil || len(l.Apart) == 0 || len(l.Shards) == 0 || l.Catalogue == nil {
		t.Fatalf("%v %q", err, l.Lines())
	}
	d.check(t, disk, at, l)
	again := 0
	var mu sync.Mutex
	r.check(t, func(cut diskCut) (*client, error) {
		if cut.seed%2 == 0 { // somebody starts the node in between
			c, err := tryOpen(t, cut.disk, smallLog())
			if err == nil {
				c.close()
			} else if !strings.Contains(err.Error(), "dsdbd recover tells what is lost") {
				return c, err
			}
		}
		got, err := acceptLoss(t, cut.disk, true)
		if err != nil {
			return &client{}, err
		}
		mu.Lock()
		if got.Any() {
			again++
		}
		mu.Unlock()
		d.check(t, cut.disk, at, &Loss{Apart: l.Apart})
		return &client{}, nil
	})
	t.Logf("%d power cuts, %d times it was to be done again", len(r.cuts), again)
}

// A shard of which the log is damaged answers who does not mind to miss something
// with what is in its files, and says so; all others are told what can be done.
func TestFilesOfAQuarantinedShardAreReadAsStale(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem(1)
	c := open(t, disk, quietConfig())
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "m v=1 1\nm v=2 2")
	c.flushAll()
	c.mustWrite("db", "m v=3 3")
	id := shardOf(c).ID
	c.close()
	if err := vfs.WriteFileAtomic(disk, fmt.Sprintf("/node/data/shard/%d/%s", id, quarantineFile), []byte("by a test\n")); err != nil {
		t.Fatal(err)
	}
	c = open(t, disk, quietConfig())
	for _, level := range []readLevel{{}, {Read: httpd.ReadLeader}, {Read: httpd.ReadStale, Staleness: time.Hour}} {
		_, err := c.ask(level, "db", "SELECT * FROM m")
		wantError(t, err, dsdb.KindCorrupt, "read_consistency=stale; dsdbd recover")
	}
	err := c.write("db", "m v=4 4")
	if err == nil || !strings.Contains(err.Error(), "dsdbd recover") {
		t.Errorf("write: %v", err)
	}
	got, err := c.ask(readLevel{Read: httpd.ReadStale}, "db", "SELECT * FROM m")
	if err != nil || got != "m time=1 v=1\nm time=2 v=2" {
		t.Errorf("stale: %q, %v", got, err)
	}
	statements, err := ql.Parse("SELECT * FROM m", nil)
	if err != nil {
		t.Fatal(err)
	}
	rq := &httpd.QueryRequest{Statement: statements[0], Database: "db", ChunkRows: 10, Read: httpd.ReadStale}
	res, err := c.node.Execute(t.Context(), rq)
	if err != nil || !rq.Stale || rq.Age >= 0 || !strings.Contains(rq.Warning, "the only copy of shards [1] is damaged") {
		t.Errorf("stale %t, age %v, warning %q, %v", rq.Stale, rq.Age, rq.Warning, err)
	}
	if err == nil {
		if err := res.Close(); err != nil {
			t.Error(err)
		}
	}
	c.close()
	if l, err := acceptLoss(t, disk, true); err != nil || len(l.Shards) != 1 || l.Catalogue != nil {
		t.Fatalf("%v %q", err, l.Lines())
	}
	c = open(t, disk, quietConfig())
	c.expect("db", "SELECT * FROM m", "m time=1 v=1\nm time=2 v=2\nm time=3 v=3")
	c.close()
}

// Of a cluster's shards those with a single copy go on without what is lost; those
// with copies elsewhere, and the catalogue, are left to the others.
func TestLossInAClusterIsAcceptedOfSingleCopiesOnly(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE single WITH REPLICATION 1; CREATE DATABASE safe WITH REPLICATION 3")
	for i := range 10 {
		nodes[i%3].mustWrite("single", fmt.Sprintf("m v=%d %d", i, i))
		nodes[i%3].mustWrite("safe", fmt.Sprintf("m v=%d %d", i, i))
	}
	single := nodes[0].node.meta.View().GroupFor("single", "", 1).Shards[0]
	safe := nodes[0].node.meta.View().GroupFor("safe", "", 1).Shards[0].ID
	i := slices.IndexFunc(nodes, func(m *machine) bool { return m.node.dataID == single.Replicas[0].Node })
	victim, other := nodes[i], nodes[(i+1)%3]
	want := victim.mustQuery("safe", "SELECT * FROM m")
	victim.flushAll()
	eventually(t, "its catalogue is in its file", func() bool { return victim.node.flushMeta() == nil })
	victim.mustWrite("single", "m v=77 77")
	at := victim.lastBatch(t)
	victim.mustWrite("safe", "m v=78 78")
	victim.halt()
	disk := victim.fs.(*vfs.Mem)
	flip(t, disk, at.path(), (at.at+70)*8)
	l, err := AcceptLoss(t.Context(), victim.cfg, disk, LossOptions{Accept: true, Now: time.Unix(1e9, 0)})
	if err != nil || l.Catalogue != nil || len(l.Shards) != 1 || l.Shards[0].ID != single.ID || len(l.Apart) > 0 {
		t.Fatalf("%v\n%s", err, strings.Join(l.Lines(), "\n"))
	}
	left := strings.Join(l.Left, "\n")
	for _, want := range []string{"the catalogue (", fmt.Sprintf("shard %d: node", safe)} {
		if !strings.Contains(left, want) {
			t.Errorf("of %s nothing is said: %s", want, left)
		}
	}
	victim.start()
	for _, m := range []*machine{victim, other} {
		eventually(t, "points of both are written and read", func() bool {
			return m.write("single", "m v=1 100") == nil && m.write("safe", "m v=1 100") == nil
		})
		m.expect("single", "SELECT count(v) FROM m WHERE time < 50", "m time=0 count=10")
		m.expect("safe", "SELECT * FROM m WHERE time < 50", want)
		m.expect("safe", "SELECT v FROM m WHERE time = 78", "m time=78 v=78")
	}
}
