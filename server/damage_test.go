package server

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
)

// everything is what the tests of damage ask: each statement touches other
// files, or other parts of them.
var everything = []string{
	"SHOW DATABASES", "SHOW USERS", "SHOW RETENTION POLICIES ON db", "SHOW SHARDS",
	"SHOW MEASUREMENTS", "SHOW SERIES", "SHOW FIELD KEYS", "SHOW TAG VALUES WITH KEY = host",
	"SELECT * FROM cpu", "SELECT * FROM mem", "SELECT count(*), sum(usage), min(usage), max(usage), first(note), last(flag) FROM cpu",
	"SELECT mean(usage) FROM cpu WHERE host = '3' GROUP BY time(1d) fill(none)", "SELECT free FROM mem GROUP BY host ORDER BY time DESC",
}

// answers runs all statements: a text or an error each.
func (c *client) answers() (texts []string, errs []error) {
	for _, q := range everything {
		text, err := c.query("db", q)
		texts, errs = append(texts, text), append(errs, err)
	}
	return texts, errs
}

// historied fills a node so that all kinds of files exist and matter: merged
// and fresh segments, tombstones, index files, a catalogue file, a log with
// entries that are nowhere else.
func historied(t *testing.T, fs vfs.FS) *client {
	c := open(t, fs, quietConfig())
	c.mustQuery("", "CREATE DATABASE db; CREATE RETENTION POLICY short ON db DURATION 1d REPLICATION 1; CREATE USER u WITH PASSWORD 'p'")
	write := func(from, to int) {
		var lines strings.Builder
		for i := from; i < to; i++ {
			at := int64(i) * day / 4
			fmt.Fprintf(&lines, "cpu,host=%d usage=%d.5,note=\"n%d\",flag=%t %d\n", i%5, i*i%101, i, i%3 == 0, at)
			fmt.Fprintf(&lines, "mem,host=%d free=%di %d\n", i%3, i*7919, at)
		}
		c.mustWrite("db", lines.String())
	}
	for i := range 4 {
		write(i*10, i*10+20)
		c.flushAll()
	}
	for _, s := range c.node.shards.list()[:1] {
		if _, err := s.Compact(true); err != nil {
			t.Fatal(err)
		}
	}
	c.mustQuery("db", fmt.Sprintf("DELETE FROM cpu WHERE host = '1' AND time < %d; DROP SERIES FROM mem WHERE host = '2'", 9*day))
	c.flushAll()
	write(48, 60)
	c.mustQuery("db", fmt.Sprintf("DELETE FROM cpu WHERE host = '2' AND time < %d", 9*day))
	write(3, 5)
	return c
}

// One bit flips in any file of a stopped node: every answer is what it was, or
// an error, and the error or the log names the file.
func TestS19FlippedBits(t *testing.T) {
	t.Parallel()
	flips := 40
	if raceEnabled || testing.Short() {
		flips = 5
	}
	disk := vfs.NewMem(1)
	c := historied(t, disk)
	want, errs := c.answers()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("%s: %v", everything[i], err)
		}
	}
	t.Run("after a clean stop", func(t *testing.T) {
		crashed := disk.CrashClone(0, 1)
		c.close()
		flipEverywhere(t, disk, want, flips)
		t.Run("after a power cut", func(t *testing.T) { flipEverywhere(t, crashed, want, flips) })
	})
}

func flipEverywhere(t *testing.T, disk *vfs.Mem, want []string, flips int) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, file := range files(t, disk, "/node") {
		content := readAll(t, disk, file)
		if len(content) == 0 {
			continue
		}
		var used []int // bytes that are not zero: the log is mostly padding
		for i, b := range content {
			if b != 0 {
				used = append(used, i)
			}
		}
		noticed := 0
		for i := range flips {
			at := rng.IntN(len(content) * 8)
			switch {
			case i < 4:
				at = rng.IntN(min(64, len(content)) * 8)
			case i%8 != 7 && len(used) > 0:
				at = used[rng.IntN(len(used))]*8 + rng.IntN(8)
			}
			broken := disk.CrashClone(100, 1)
			flip(t, broken, file, at)
			if sameOrReported(t, broken, file, at, want) {
				noticed++
			}
		}
		t.Logf("%-60s %7d bytes: %d of %d flips reported", file, len(content), noticed, flips)
		if all := strings.HasPrefix(file, "/node/data/shard/"); all && noticed < flips || noticed == 0 && path.Base(file) == meta.IdentityFile {
			t.Errorf("%s: %d of %d flips reported", file, noticed, flips)
		}
	}
}

// sameOrReported starts a node, twice, and asks everything.
func sameOrReported(t *testing.T, disk *vfs.Mem, file string, bit int, want []string) (reported bool) {
	where := fmt.Sprintf("%s, bit %d of byte %d flipped", file, bit%8, bit/8)
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("%s: panic: %v", where, p)
		}
	}()
	for start := range 2 {
		c, err := tryOpen(t, disk, quietConfig())
		if err != nil {
			if !strings.Contains(err.Error()+c.log.String(), path.Base(file)) {
				t.Errorf("%s, start %d: the node does not start, and does not name the file: %v\n%s", where, start, err, c.log)
			}
			reported = true
			continue
		}
		got, errs := c.answers()
		text := c.log.String()
		c.close()
		for i := range want {
			if errs[i] == nil {
				if got[i] != want[i] && !tornTail(text, file) {
					t.Errorf("%s, start %d: wrong answer to %s:\n%s\nwant:\n%s\n%s", where, start, everything[i], got[i], want[i], text)
				}
				continue
			}
			reported = true
			if start == 0 && !strings.Contains(errs[i].Error()+text, path.Base(file)) {
				t.Errorf("%s: %s: the error does not name the file: %v\n%s", where, everything[i], errs[i], text)
			}
			if dsdb.KindOf(errs[i]) != dsdb.KindCorrupt && dsdb.KindOf(errs[i]) != dsdb.KindUnavailable {
				t.Errorf("%s: %s: error of kind %d: %v", where, everything[i], dsdb.KindOf(errs[i]), errs[i])
			}
		}
	}
	return reported
}

// tornTail reports whether the log tells that the end of a log file was not
// written in full. That is all that can be said of damage to the last batch
// after a power cut: it looks like a write that was never acknowledged.
func tornTail(text, file string) bool {
	return strings.Contains(text, "unclean stop") && strings.Contains(text, "torn=\""+file+" at ")
}

// After a clean stop the last batch is proven: a bit that flips in the pages
// before the mark at the end is reported as damage, not as a torn tail.
func TestFlippedBitInLastWrite(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem(1)
	c := historied(t, disk)
	want, _ := c.answers()
	crashed := disk.CrashClone(0, 1)
	c.close()
	const file, page = "/node/wal/wal-0000000000000001.seg", 4096
	rng := rand.New(rand.NewPCG(3, 4))
	written := len(strings.TrimRight(string(readAll(t, crashed, file)), "\x00"))
	last := (written - 1) / page * page // where the last write begins, which is a mark if the log has rested
	for range 40 {
		at := (last+rng.IntN(min(150, written-last)))*8 + rng.IntN(8)
		broken := disk.CrashClone(100, 1)
		flip(t, broken, file, at)
		if !sameOrReported(t, broken, file, at, want) {
			t.Errorf("bit %d of byte %d in the last write flipped, and nobody noticed", at%8, at/8)
		}
		broken = crashed.CrashClone(100, 1)
		flip(t, broken, file, at)
		c := open(t, broken, quietConfig())
		if !tornTail(c.log.String(), file) && !strings.Contains(c.log.String(), "the log is damaged") {
			t.Errorf("bit %d of byte %d in the last write flipped before a power cut, and nothing is logged:\n%s", at%8, at/8, c.log)
		}
		c.close()
	}
}

// When the log has rested for a moment it carries a mark behind its last write:
// damage to that write is then told apart from an unfinished one.
func TestFlippedBitInLastWriteOfAnIdleLog(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem(1)
	c := historied(t, disk)
	batch := func() uint64 { return uint64(c.node.wal.Stats().LastBatch) }
	eventually(t, "the log is marked", func() bool {
		c.mustWrite("db", "cpu,host=0 usage=1 1")
		last := batch() // the mark's already, if this machine is slow
		for end := time.Now().Add(time.Second); batch() == last && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		return batch() > last
	})
	crashed := disk.CrashClone(0, 1)
	c.close()
	const file, page = "/node/wal/wal-0000000000000001.seg", 4096
	mark := (len(strings.TrimRight(string(readAll(t, crashed, file)), "\x00")) - 1) / page * page
	for i := range 20 {
		broken := crashed.CrashClone(100, 1)
		flip(t, broken, file, (mark-page+i*7)*8+i%8)
		c, err := tryOpen(t, broken, quietConfig())
		if !strings.Contains(c.log.String(), "the log is damaged") {
			t.Errorf("byte %d of the last write flipped, and the log is not called damaged: %v\n%s", i*7, err, c.log)
		}
		if err == nil {
			c.close()
		}
	}
}

// A file that is gone is noticed.
func TestLostFiles(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem(1)
	c := historied(t, disk)
	want, _ := c.answers()
	c.close()
	for _, file := range files(t, disk, "/node") {
		broken := disk.CrashClone(100, 1)
		if err := broken.Remove(file); err != nil {
			t.Fatal(err)
		}
		c, err := tryOpen(t, broken, quietConfig())
		if err != nil {
			t.Logf("%s lost: %v", file, err)
			continue
		}
		got, errs := c.answers()
		for i := range want {
			if errs[i] == nil && got[i] != want[i] {
				t.Errorf("%s lost: wrong answer to %s:\n%s\nwant:\n%s\n%s", file, everything[i], got[i], want[i], c.log)
			}
		}
		c.close()
	}
}

// A shard whose files are damaged is out of service until it is dropped; the
// others go on.
func TestDamagedShardLeavesOthersInService(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem(1)
	c := historied(t, disk)
	late := fmt.Sprintf("SELECT * FROM cpu WHERE time >= %d", 12*day)
	want := c.mustQuery("db", late)
	c.close()
	flip(t, disk, "/node/data/shard/1/MANIFEST", 100)
	c = open(t, disk, quietConfig())
	c.expect("db", late, want)
	_, err := c.query("db", "SELECT * FROM cpu")
	wantError(t, err, dsdb.KindCorrupt, "/node/data/shard/1/MANIFEST")
	wantError(t, c.write("db", "cpu,host=1 usage=1 10"), dsdb.KindInternal, "write failed: shard 1 is out of service: shard 1: /node/data/shard/1/MANIFEST")
	c.mustWrite("db", fmt.Sprintf("cpu,host=1 usage=1 %d", 200*day))
	c.mustQuery("", "DROP SHARD 1")
	eventually(t, "its files and its log are gone", func() bool {
		_, err := disk.Stat("/node/data/shard/1")
		_, known := c.node.wal.State(1)
		return err != nil && !known
	})
	c = c.reopen()
	c.mustWrite("db", "cpu,host=1 usage=1 10")
	if rows := strings.Count(c.mustQuery("db", "SELECT * FROM cpu"), "usage"); rows < strings.Count(want, "usage")+2 {
		t.Errorf("%d rows", rows)
	}
	c.close()
}

// A catalogue that is older than the shards would give their numbers, and so their
// points, to other databases: the node does not start.
func TestCatalogueOlderThanAShard(t *testing.T) {
	disk := vfs.NewMem(1)
	c := open(t, disk, quietConfig())
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "cpu usage=1 10")
	c.close()
	if err := disk.MkdirAll("/node/data/shard/2"); err != nil {
		t.Fatal(err)
	}
	_, err := tryOpen(t, disk, quietConfig())
	wantError(t, err, dsdb.KindCorrupt, "the catalogue has given out 1 only")
}

// A copy of the folders without the log, taken when everything was flushed, is
// complete. The node does not know that; told to go on it can be written to, and
// goes on across restarts, of which each tells what was accepted.
func TestCopyWithoutLog(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem(1)
	cfg := quietConfig()
	cfg.Data.CacheSnapshotCold, cfg.Data.CompactFullCold = config.Duration(time.Millisecond), config.Duration(time.Millisecond)
	c := historied(t, disk)
	want, _ := c.answers()
	c.close()
	c = open(t, disk, cfg)
	eventually(t, "nothing but the catalogue needs the log", func() bool {
		if err := c.node.flushMeta(); err != nil {
			t.Fatal(err)
		}
		return c.node.wal.Stats().UnflushedBytes == 0
	})
	copied := disk.CrashClone(100, 1)
	c.close()
	if err := copied.RemoveAll("/node/wal"); err != nil {
		t.Fatal(err)
	}
	_, err := tryOpen(t, copied, quietConfig())
	wantError(t, err, dsdb.KindCorrupt, "/node/wal has lost the log of this node")
	if l, err := acceptLoss(t, copied, true); err != nil || l.Log != "/node/wal" || len(l.Apart)+len(l.Left) > 0 {
		t.Fatalf("%v %q", err, l.Lines())
	}
	c = open(t, copied, quietConfig())
	for range 3 {
		if !strings.Contains(c.log.String(), "the log in /node/wal is gone") {
			t.Errorf("no warning in the log:\n%s", c.log)
		}
		got, errs := c.answers()
		for i := range want {
			if errs[i] != nil || got[i] != want[i] {
				t.Fatalf("%s: %v\n%s\nwant:\n%s", everything[i], errs[i], got[i], want[i])
			}
		}
		c.mustWrite("db", fmt.Sprintf("cpu,host=0 usage=77 %d\ncpu,host=9 usage=78 %d", 3*day, 100*day))
		want, _ = c.answers()
		c = c.reopen()
	}
	c.close()
}

// files lists the files below dir.
func files(t *testing.T, fs vfs.FS, dir string) (out []string) {
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		p := path.Join(dir, name)
		info, err := fs.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			out = append(out, files(t, fs, p)...)
		} else {
			out = append(out, p)
		}
	}
	return out
}

func readAll(t *testing.T, fs vfs.FS, file string) []byte {
	f, err := fs.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, release, err := f.Map()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	return append([]byte(nil), b...)
}

func flip(t *testing.T, fs vfs.FS, file string, bit int) {
	b := readAll(t, fs, file)[bit/8]
	f, err := fs.OpenReadWrite(file)
	if err == nil {
		_, err = f.WriteAt([]byte{b ^ 1<<(bit%8)}, int64(bit/8))
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}
