package server

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/vfs"
)

// The power is cut at random moments of a node that writes, overwrites,
// deletes, drops, flushes and compacts, and again while it recovers. Whatever
// was acknowledged is there afterwards, and nothing that was not sent.
//
//	DSDB_POWER_CUTS=100000  cut so often
//	DSDB_SEED=7             begin with this seed
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	cuts := 1000
	if raceEnabled || testing.Short() {
		cuts = 150
	}
	cuts = envInt("DSDB_POWER_CUTS", cuts)
	seed := uint64(envInt("DSDB_SEED", 1))
	began, done, worst := time.Now(), 0, time.Duration(0)
	kinds := map[string]int{}
	for ; done < cuts && !t.Failed(); seed++ {
		life := liveAndCut(t, seed, min(cuts-done, cutsPerLife))
		for _, cut := range life {
			worst = max(worst, cut.check(t))
			kinds[cut.op+" "+cut.part()]++
		}
		done += len(life)
		if t.Failed() {
			t.Logf("replay: DSDB_SEED=%d DSDB_POWER_CUTS=%d go test -run TestPowerCuts ./server/", seed, cutsPerLife)
		}
	}
	t.Logf("%d power cuts in %v, slowest start %v, before: %v", done, time.Since(began).Round(time.Millisecond), worst, kinds)
	for _, kind := range []string{"write log", "sync log", "sync shard", "rename shard", "remove shard", "syncdir shard", "rename catalogue"} {
		if kinds[kind] == 0 && cuts >= 1000 {
			t.Errorf("the power was never cut before a %s: the test does not do what it says", kind)
		}
	}
}

func envInt(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

const (
	cutsPerLife = 60
	tenants     = 3 // writers, each with a database of its own
)

// powerCut is a disk as it was left, with what each database must and may hold.
type powerCut struct {
	disk     *vfs.Mem
	seed     uint64
	op, path string // the operation that did not happen
	unsynced int
	must     []database // as acknowledged before the cut
	may      []database // as sent before the cut: each value is old or new
}

// part names the part of the node that the cut hit.
func (cut *powerCut) part() string {
	switch {
	case strings.HasPrefix(cut.path, "/node/wal"):
		return "log"
	case strings.HasPrefix(cut.path, "/node/data/shard"):
		return "shard"
	}
	return "catalogue"
}

// liveAndCut runs a node until the power was cut n times. Every cut leaves a
// copy of the disk; the node itself goes on.
func liveAndCut(t *testing.T, seed uint64, n int) []*powerCut {
	mem := vfs.NewMem(seed)
	l := &life{n: n, rng: rand.New(rand.NewPCG(seed, 1))}
	for i := range tenants {
		l.tenants = append(l.tenants, newTenant(fmt.Sprintf("db%d", i), seed))
	}
	fs := vfs.Faulty(mem, func(op, path string) error { l.maybeCut(mem, op, path); return nil })
	c := open(t, fs, busyConfig())
	var running sync.WaitGroup
	for _, tn := range l.tenants {
		running.Go(func() {
			for !l.over() && !t.Failed() {
				tn.step(c)
			}
		})
	}
	running.Go(func() {
		for !l.over() && !t.Failed() {
			if err := c.node.flushMeta(); err != nil {
				t.Errorf("flush the catalogue: %v", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	running.Wait()
	c.close()
	return l.cuts
}

// life decides when the power is cut.
type life struct {
	tenants []*tenant
	n       int

	mu   sync.Mutex
	rng  *rand.Rand
	skip int // operations until the next cut
	cuts []*powerCut
}

func (l *life) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.cuts) >= l.n
}

// maybeCut copies the disk as a power cut before this operation would leave it.
// What is acknowledged is noted before, what is sent after: other writers go on.
func (l *life) maybeCut(mem *vfs.Mem, op, path string) {
	if op == vfs.OpRead || op == vfs.OpMap || op == vfs.OpStat || op == vfs.OpList || op == vfs.OpOpen {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// Operations of the log are many and alike; those of flushes, compactions
	// and the catalogue are rarer and get more cuts.
	weight := 1
	switch {
	case strings.HasPrefix(path, "/node/data"):
		weight = 6
	case strings.HasPrefix(path, "/node/meta"):
		weight = 30
	}
	if l.skip -= weight; l.skip > 0 || len(l.cuts) >= l.n {
		return
	}
	l.skip = 40 + l.rng.IntN(300)
	cut := &powerCut{seed: l.rng.Uint64(), op: op, path: path, unsynced: l.rng.IntN(3) * 50}
	for _, tn := range l.tenants {
		cut.must = append(cut.must, tn.acknowledged())
	}
	cut.disk = mem.CrashClone(cut.unsynced, cut.seed)
	for _, tn := range l.tenants {
		cut.may = append(cut.may, tn.sent())
	}
	l.cuts = append(l.cuts, cut)
}

// check starts a node on the disk, now and then with the power cut again
// meanwhile, and compares what it holds. It returns how long the start took.
func (cut *powerCut) check(t *testing.T) time.Duration {
	if cut.seed%4 == 0 {
		again := *cut
		again.disk = cutWhileStarting(t, cut)
		again.seed++
		again.check(t)
	}
	began := time.Now()
	c, err := tryOpen(t, cut.disk, quietConfig())
	took := time.Since(began)
	where := fmt.Sprintf("power cut before %s %s, %d%% of what was not synced survived", cut.op, cut.path, cut.unsynced)
	if err != nil {
		t.Errorf("%s: the node does not start: %v\n%s", where, err, c.log)
		return took
	}
	defer c.close()
	for i := range cut.must {
		if err := cut.must[i].compare(c, &cut.may[i]); err != nil {
			t.Errorf("%s: %v\n%s", where, err, c.log)
		}
	}
	if strings.Contains(c.log.String(), "level=ERROR") {
		t.Errorf("%s: the node complains:\n%s", where, c.log)
	}
	return took
}

// cutWhileStarting starts a node on a copy of the disk and cuts the power at a
// random operation of its recovery.
func cutWhileStarting(t *testing.T, cut *powerCut) *vfs.Mem {
	rng := rand.New(rand.NewPCG(cut.seed, 2))
	disk := cut.disk.CrashClone(100, cut.seed)
	var mu sync.Mutex
	var left *vfs.Mem
	skip := rng.IntN(30)
	fs := vfs.Faulty(disk, func(op, path string) error {
		mu.Lock()
		defer mu.Unlock()
		if skip--; skip <= 0 && left == nil {
			left = disk.CrashClone(rng.IntN(3)*50, rng.Uint64())
		}
		return nil
	})
	c := open(t, fs, busyConfig())
	c.close()
	mu.Lock()
	defer mu.Unlock()
	if left == nil {
		left = disk
	}
	return left
}

// database is what a tenant believes its database to hold: for each point the
// number that was written last. nil points: there is no such database.
type database struct {
	name   string
	points map[pointKey]int64
}

type pointKey struct {
	host, day int
}

func (d database) clone() database {
	c := database{name: d.name}
	if d.points != nil {
		c.points = make(map[pointKey]int64, len(d.points))
		for k, v := range d.points {
			c.points[k] = v
		}
	}
	return c
}

// compare reads the database back. d was acknowledged; sent includes what was
// perhaps under way: each point may be as in either.
func (d *database) compare(c *client, sent *database) error {
	there := false
	for _, line := range strings.Split(c.mustQuery("", "SHOW DATABASES"), "\n") {
		there = there || line == "databases name="+d.name
	}
	switch {
	case there && d.points == nil && sent.points == nil:
		return fmt.Errorf("database %s is there, but was dropped", d.name)
	case !there && d.points != nil && sent.points != nil:
		return fmt.Errorf("database %s is gone", d.name)
	case !there:
		return nil
	}
	found, err := readPoints(c, d.name)
	if err != nil {
		return err
	}
	for k, v := range found {
		if d.points[k] != v && sent.points[k] != v {
			return fmt.Errorf("%s: point %+v is %d; acknowledged was %d, sent %d (0: none)", d.name, k, v, d.points[k], sent.points[k])
		}
	}
	for k, v := range d.points {
		if _, ok := found[k]; !ok && sent.points[k] == v {
			return fmt.Errorf("%s: point %+v, acknowledged as %d, is gone", d.name, k, v)
		}
	}
	return nil
}

const day = int64(24 * time.Hour)

// readPoints returns all points of a database.
func readPoints(c *client, db string) (map[pointKey]int64, error) {
	found := map[pointKey]int64{}
	err := c.each(db, "SELECT n FROM /m[0-9]/ GROUP BY host", func(f *column.Frame, row int) {
		host, _ := strconv.Atoi(f.Tags.Get("host"))
		k := pointKey{host, int(f.Cols[0].Ints[row] / day)}
		if f.Name != measurement(host) {
			c.t.Errorf("%s: host %d in measurement %s", db, host, f.Name)
		}
		if _, twice := found[k]; twice {
			c.t.Errorf("%s: point %+v comes twice", db, k)
		}
		found[k] = f.Cols[1].Ints[row]
	})
	return found, err
}

// Hosts are spread over measurements, so that a measurement can be dropped.
func measurement(host int) string { return fmt.Sprintf("m%d", host%3) }

// tenant is one client that does one thing after another to its own database.
type tenant struct {
	rng *rand.Rand
	n   int64 // of the last value written; each is written once

	mu    sync.Mutex // guards what follows
	acked database
	next  database // as it will be when the statement under way is done
}

func newTenant(name string, seed uint64) *tenant {
	h := fnv.New64a()
	h.Write([]byte(name))
	return &tenant{rng: rand.New(rand.NewPCG(seed, h.Sum64())), acked: database{name: name}, next: database{name: name}}
}

func (tn *tenant) acknowledged() database {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	return tn.acked.clone()
}

func (tn *tenant) sent() database {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	return tn.next.clone()
}

// do tells what a statement will change, has it carried out, and notes that it
// was acknowledged.
func (tn *tenant) do(c *client, change func(d *database), statement func() error) {
	tn.mu.Lock()
	change(&tn.next)
	tn.mu.Unlock()
	if err := statement(); err != nil {
		c.t.Errorf("%s: %v", tn.acked.name, err)
	}
	tn.mu.Lock()
	tn.acked = tn.next.clone()
	tn.mu.Unlock()
}

// step does something at random, mostly writes.
func (tn *tenant) step(c *client) {
	db := tn.acked.name
	execute := func(text string) func() error {
		return func() error { _, err := c.query(db, text); return err }
	}
	host, from := tn.rng.IntN(9), tn.rng.IntN(60)
	switch dice := tn.rng.IntN(200); {
	case tn.acked.points == nil:
		tn.do(c, func(d *database) { d.points = map[pointKey]int64{} }, execute("CREATE DATABASE "+db))
	case dice < 2:
		tn.do(c, func(d *database) { d.points = nil }, execute("DROP DATABASE "+db))
	case dice < 6:
		tn.do(c, func(d *database) { d.remove(func(k pointKey) bool { return measurement(k.host) == measurement(host) }) },
			execute("DROP MEASUREMENT "+measurement(host)))
	case dice < 10:
		tn.do(c, func(d *database) { d.remove(func(k pointKey) bool { return k.host == host }) },
			execute(fmt.Sprintf("DROP SERIES WHERE host = '%d'", host)))
	case dice < 20:
		tn.do(c, func(d *database) {
			d.remove(func(k pointKey) bool { return k.host == host && k.day >= from && k.day < from+9 })
		},
			execute(fmt.Sprintf("DELETE FROM %s WHERE host = '%d' AND time >= %dd AND time < %dd", measurement(host), host, from, from+9)))
	default:
		tn.write(c)
	}
}

func (d *database) remove(match func(pointKey) bool) {
	for k := range d.points {
		if match(k) {
			delete(d.points, k)
		}
	}
}

// write sends a batch of new and overwritten points, mostly of one week.
func (tn *tenant) write(c *client) {
	width := []int{1, 7, 7, 60}[tn.rng.IntN(4)]
	from := tn.rng.IntN(61 - width)
	batch := map[pointKey]int64{}
	var lines strings.Builder
	for range 1 + tn.rng.IntN(12) {
		k := pointKey{tn.rng.IntN(9), from + tn.rng.IntN(width)}
		tn.n++
		batch[k] = tn.n
		fmt.Fprintf(&lines, "%s,host=%d n=%di,text=\"%d\" %d\n", measurement(k.host), k.host, tn.n, tn.n, int64(k.day)*day)
	}
	tn.do(c, func(d *database) {
		for k, v := range batch {
			d.points[k] = v
		}
	}, func() error { return c.write(tn.acked.name, lines.String()) })
}
