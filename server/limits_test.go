package server

import (
	"fmt"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// A node that is new and has no space for its log waits for some, and says so.
func TestStartOnAFullDisk(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	disk := vfs.NewMem(1)
	m.fs = disk
	disk.SetCapacity(16 << 10) // for the small files, not for the log
	m.launch()
	eventually(t, "the node says what it waits for", func() bool {
		return strings.Contains(m.log.String(), "waiting for the log to take the catalogue's entries; the disk of ")
	})
	disk.SetCapacity(0)
	m.ready()
}

// On a full disk writes are refused with 503 and reads go on, also while
// flushes and compactions find no space either. When there is space again
// writes work, and nothing that was acknowledged is missing.
func TestFullDisk(t *testing.T) {
	disk := vfs.NewMem(1)
	c := open(t, disk, busyConfig())
	c.mustQuery("", "CREATE DATABASE db")
	acked := 0
	write := func() error {
		var lines strings.Builder
		for i := range 200 {
			fmt.Fprintf(&lines, "cpu,host=%d n=%di,text=\"%s\" %d\n", i%10, acked, strings.Repeat("x", 50), int64(acked*200+i)*day/1000)
		}
		err := c.write("db", lines.String())
		if err == nil {
			acked += 200
		}
		return err
	}
	for range 3 {
		for range 5 {
			if err := write(); err != nil {
				t.Fatal(err)
			}
		}
		disk.SetCapacity(1) // no file can grow; what is preallocated can be written
		var err error
		c.patience = 5 * time.Second
		eventually(t, "a write is refused", func() bool { err = write(); return err != nil })
		c.patience = *patience
		if dsdb.KindOf(err) != dsdb.KindTimeout { // one that needs a new shard is not refused at once
			wantError(t, err, dsdb.KindUnavailable, "write failed: ")
		}
		c.mustQuery("", "CREATE DATABASE other") // the catalogue has space of its own
		got := c.mustQuery("db", "SELECT count(n) FROM cpu")
		if n := count(got); n < acked {
			t.Errorf("%d points are read on the full disk, %d were acknowledged", n, acked)
		}
		disk.SetCapacity(0)
		c.patience = 5 * time.Second // with one try of many
		eventually(t, "writes work again", func() bool { return write() == nil })
		c.patience = *patience
	}
	for range 2 {
		// A write that was refused may have been stored all the same, in whole.
		if n := count(c.mustQuery("db", "SELECT count(n) FROM cpu")); n < acked || n%200 != 0 {
			t.Errorf("%d points, %d were acknowledged", n, acked)
		}
		c = c.reopen()
	}
	c.close()
}

// count reads the number off a line like "cpu time=0 count=12".
func count(line string) int {
	n := 0
	if _, digits, ok := strings.Cut(line, "count="); ok {
		fmt.Sscan(digits, &n)
	}
	return n
}

// One write of a point a day over twenty years makes a thousand time groups at once.
func TestTwentyYearsInOneWrite(t *testing.T) {
	var lines strings.Builder
	const days = 20 * 365
	for i := range days {
		fmt.Fprintf(&lines, "rain,place=x mm=%d %d\n", i%40, int64(i)*day)
	}
	disk := vfs.NewMem(1)
	c := open(t, disk, quietConfig())
	c.mustQuery("", "CREATE DATABASE db")
	timed := func(what string, do func()) {
		began := time.Now()
		do()
		t.Logf("%-20s %v", what, time.Since(began).Round(time.Millisecond))
	}
	timed("write", func() { c.mustWrite("db", lines.String()) })
	if n := len(c.node.shards.list()); n < 1042 || n > 1044 {
		t.Errorf("%d shards", n)
	}
	check := func() {
		if n := count(c.mustQuery("db", "SELECT count(mm) FROM rain")); n != days {
			t.Errorf("%d points of %d", n, days)
		}
	}
	timed("count", check)
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("heap %d MiB, disk in memory included", m.HeapAlloc>>20)
	timed("restart from the log", func() { c = c.reopen() })
	timed("count", check)
	timed("flush", c.flushAll)
	timed("restart", func() { c = c.reopen() })
	timed("count", check)
	timed("drop", func() { c.mustQuery("", "DROP DATABASE db") })
	eventually(t, "the shards are gone", func() bool { return len(c.node.shards.list()) == 0 })
	timed("close", c.close)
}

// What a database took is free once it is dropped.
//
//	DSDB_DROPS=2000  drop so many
func TestDropDatabaseFreesEverything(t *testing.T) {
	disk := vfs.NewMem(1)
	c := open(t, disk, quietConfig())
	drops := envInt("DSDB_DROPS", 200)
	cycle := func(i int) {
		db := fmt.Sprintf("db%d", i)
		c.mustQuery("", "CREATE DATABASE "+db)
		c.mustWrite(db, fmt.Sprintf("cpu,host=a usage=1 10\ncpu,host=a usage=2 %d", 30*day))
		if i%3 == 0 {
			c.flushAll()
		}
		c.expect(db, "SELECT count(usage) FROM cpu", "cpu time=0 count=2")
		c.mustQuery("", "DROP DATABASE "+db)
	}
	settled := func() usage {
		eventually(t, "dropped shards are gone", func() bool {
			names, err := disk.List("/node/data/shard")
			return err == nil && len(names) == 0 && len(c.node.shards.list()) == 0 && len(c.node.wal.Groups()) == 1
		})
		if err := c.node.flushMeta(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the log is empty", func() bool { return c.node.wal.Stats().UnflushedBytes == 0 })
		return c.usage(disk)
	}
	for i := range 10 {
		cycle(i)
	}
	first := settled()
	began := time.Now()
	for i := range drops {
		cycle(10 + i)
	}
	took := time.Since(began)
	last := settled()
	t.Logf("%d cycles in %v; before %+v, after %+v", drops, took.Round(time.Millisecond), first, last)
	eventually(t, "nothing stayed behind", func() bool {
		last = c.usage(disk)
		return last.goroutines <= first.goroutines+5 && last.files <= first.files+4 && last.groups == first.groups && last.unflushed == 0
	})
	c = c.reopen()
	c.expect("", "SHOW DATABASES", "")
	c.close()
}

// usage is what a node holds on to.
type usage struct {
	goroutines, files, groups int
	unflushed, heapKiB        int64
}

func (c *client) usage(disk *vfs.Mem) usage {
	c.log.clear()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{goroutines: runtime.NumGoroutine(), files: countFiles(c.t, disk, "/node"), groups: len(c.node.wal.Groups()),
		unflushed: c.node.wal.Stats().UnflushedBytes, heapKiB: int64(m.HeapAlloc) >> 10}
}

func countFiles(t testing.TB, fs vfs.FS, dir string) (n int) {
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		p := path.Join(dir, name)
		if info, err := fs.Stat(p); err != nil {
			t.Fatal(err)
		} else if info.IsDir() {
			n += countFiles(t, fs, p)
		} else {
			n++
		}
	}
	return n
}

// Retention deletes the groups that no policy keeps, and only those; the
// catalogue forgets them an hour later.
func TestRetention(t *testing.T) {
	disk := vfs.NewMem(1)
	c := open(t, disk, quietConfig())
	defer c.close()
	at := time.Now()
	c.mustQuery("", "CREATE DATABASE db WITH DURATION 1d; CREATE DATABASE kept")
	hours := func(ago int) int64 { return at.Add(-time.Duration(ago) * time.Hour).UnixNano() }
	c.mustWrite("db", fmt.Sprintf("cpu usage=1 %d\ncpu usage=2 %d", hours(20), hours(0)))
	c.mustWrite("kept", "cpu usage=1 10")
	expire := func(when time.Time) {
		if err := c.node.expire(t.Context(), when); err != nil {
			t.Fatal(err)
		}
	}
	expire(at)
	c.expect("db", "SELECT usage FROM cpu", fmt.Sprintf("cpu time=%d usage=1\ncpu time=%d usage=2", hours(20), hours(0)))
	expire(at.Add(10 * time.Hour))
	c.expect("db", "SELECT usage FROM cpu", fmt.Sprintf("cpu time=%d usage=2", hours(0)))
	expire(at.Add(30 * time.Hour))
	c.expect("db", "SELECT usage FROM cpu", "")
	eventually(t, "the expired shards' files are gone", func() bool { return len(c.node.shards.list()) == 1 })
	rp, err := c.node.meta.View().Policy("db", "autogen")
	if err != nil || len(rp.ShardGroups) != 0 || len(rp.Deleted) != 1 {
		t.Errorf("policy %+v, %v", rp, err)
	}
	expire(at.Add(32 * time.Hour))
	if rp, _ = c.node.meta.View().Policy("db", "autogen"); len(rp.Deleted) != 0 {
		t.Errorf("deleted groups are remembered: %v", rp.Deleted)
	}
	c.expect("kept", "SELECT usage FROM cpu", "cpu time=10 usage=1")
}

// The next group of a policy is made shortly before it is due, once, and only
// if the current one is in use.
func TestPrecreation(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db; CREATE DATABASE idle; CREATE DATABASE old")
	at := time.Now()
	c.mustWrite("db", fmt.Sprintf("cpu usage=1 %d", at.UnixNano()))
	c.mustWrite("old", "cpu usage=1 10")
	current := c.node.meta.View().GroupFor("db", "autogen", at.UnixNano()).Range
	groups := func() int { return len(c.node.meta.View().Groups()) }
	precreate := func(when time.Time) {
		if err := c.node.precreate(t.Context(), when); err != nil {
			t.Fatal(err)
		}
	}
	end := time.Unix(0, current.End)
	precreate(end.Add(-time.Hour))
	if groups() != 2 {
		t.Errorf("%d groups an hour before the end", groups())
	}
	precreate(end.Add(-time.Minute))
	precreate(end.Add(-time.Second))
	next := c.node.meta.View().GroupFor("db", "autogen", current.End)
	if groups() != 3 || next == nil || next.Range.Start != current.End {
		t.Errorf("%d groups, the next one is %+v", groups(), next)
	}
	eventually(t, "its shard is open before it is written to", func() bool { return len(c.node.shards.list()) == 3 })
}

// Writers that need the same new groups and give one field different types: one
// type wins in each group, the points of the other are refused, none is lost.
func TestConcurrentWritersOfNewGroups(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	const weeks, writers = 8, 6
	var stored atomic.Int64
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for week := range weeks {
				value := []string{"1", "1i", "true"}[w%3]
				err := c.write("db", fmt.Sprintf("cpu,writer=%d v=%s,own%d=1 %d", w, value, w, int64(week)*7*day+1))
				switch {
				case err == nil:
					stored.Add(1)
				case dsdb.KindOf(err) != dsdb.KindConflict || !strings.Contains(err.Error(), `field type conflict: input field "v"`) || !strings.HasSuffix(err.Error(), "dropped=1"):
					t.Errorf("writer %d, week %d: %v", w, week, err)
				}
			}
		})
	}
	all.Wait()
	if n := len(c.node.meta.View().Groups()); n != weeks {
		t.Errorf("%d groups for %d weeks", n, weeks)
	}
	rows := 0
	for week := range weeks { // a query over several weeks would have one type for all
		rows += count(c.mustQuery("db", fmt.Sprintf("SELECT count(v) FROM cpu WHERE time >= %d AND time < %d", int64(week)*7*day, int64(week)*7*day+day)))
	}
	if int64(rows) != stored.Load() || rows < 2*weeks {
		t.Errorf("%d rows with the field, %d points were acknowledged", rows, stored.Load())
	}
}

// Databases are dropped under the hands of writers and readers: every error is
// one that a client understands, and a later database of the name is empty.
func TestDropDatabaseBesideWrites(t *testing.T) {
	c := open(t, vfs.NewMem(1), busyConfig())
	var all sync.WaitGroup
	stop := make(chan struct{})
	running := func() bool {
		select {
		case <-stop:
			return false
		default:
			return true
		}
	}
	fine := func(err error) bool {
		return err == nil || dsdb.KindOf(err) == dsdb.KindNotFound || dsdb.KindOf(err) == dsdb.KindUnavailable
	}
	for w := range 3 {
		all.Go(func() {
			for i := 0; running(); i++ {
				if err := c.write("db", fmt.Sprintf("cpu,host=%d n=%di %d", w, i, int64(i%50)*day)); !fine(err) {
					t.Errorf("write: kind %d: %v", dsdb.KindOf(err), err)
				}
			}
		})
	}
	all.Go(func() {
		for running() {
			if _, err := c.query("db", "SELECT count(n) FROM cpu; SHOW SERIES; DELETE FROM cpu WHERE host = '1'"); !fine(err) {
				t.Errorf("query: kind %d: %v", dsdb.KindOf(err), err)
			}
		}
	})
	for range 40 {
		c.mustQuery("", "CREATE DATABASE db")
		time.Sleep(5 * time.Millisecond)
		c.mustQuery("", "DROP DATABASE db")
	}
	close(stop)
	all.Wait()
	if strings.Contains(c.log.String(), "level=ERROR") {
		t.Errorf("the node complains:\n%s", c.log)
	}
	c.mustQuery("", "CREATE DATABASE db")
	c.expect("db", "SELECT count(n) FROM cpu", "")
	c = c.reopen()
	c.expect("db", "SELECT count(n) FROM cpu; SHOW SERIES", "")
	c.close()
}

// A shard with a trickle of points keeps the files in which they lie between those
// of busy shards: the log is no longer than it may be because it is flushed in time.
func TestATrickleDoesNotKeepTheLog(t *testing.T) {
	t.Parallel()
	cfg := quietConfig()
	cfg.Data.WALMaxSize, cfg.Data.CacheSnapshotMemory = 1<<20, 256<<10
	c := open(t, vfs.NewMem(1), cfg)
	defer c.close()
	c.mustQuery("", "CREATE DATABASE busy; CREATE DATABASE trickle")
	text := strings.Repeat("x", 50_000)
	for i := range 120 {
		c.mustWrite("trickle", fmt.Sprintf("m v=1 %d", i))
		c.mustWrite("busy", fmt.Sprintf("m s=\"%s%d\" %d", text, i, i))
	}
	eventually(t, "the log is short again", func() bool { return c.node.wal.Stats().DiskBytes <= 2<<20 })
	c.expect("trickle", "SELECT count(v) FROM m", "m time=0 count=120")
	c.expect("busy", "SELECT count(s) FROM m", "m time=0 count=120")
}
