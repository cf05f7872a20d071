package server

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/wal"
)

// acceptLoss is dsdbd recover, with or without -accept-loss, on the folders of a
// single node that does not run.
func acceptLoss(t testing.TB, fs vfs.FS, accept bool) (*Loss, error) {
	return AcceptLoss(t.Context(), smallLog(), fs, LossOptions{Accept: accept, Now: time.Unix(1e9, 0), Version: "test"})
}

// smallLog is quietConfig with a log of small files.
func smallLog() config.Config {
	c := quietConfig()
	c.Data.WALMaxSize = 1 << 20
	return c
}

// place is one byte of the log: the number of its file, and the offset.
type place struct{ file, at int }

func (p place) path() string { return fmt.Sprintf("/node/wal/wal-%016x.seg", p.file) }

func (p place) before(o place) bool { return p.file < o.file || p.file == o.file && p.at < o.at }

// next returns the page behind one.
func (p place) next() place { return place{p.file, p.at/4096*4096 + 4096} }

// lastBatch returns where the last batch in the log of a node begins; there may be
// a mark behind it meanwhile.
func (c *client) lastBatch(t *testing.T) (p place) {
	t.Helper()
	want := fmt.Sprintf("  batch %d  ", c.node.wal.Stats().LastBatch)
	for _, name := range slices.Backward(segmentNames(t, c.node.fs)) {
		_, _ = fmt.Sscanf(name, "wal-%x.seg", &p.file)
		var text strings.Builder
		if err := wal.Inspect(c.node.fs, p.path(), &text); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text.String()) {
			if strings.Contains(line, want) {
				_, _ = fmt.Sscan(line, &p.at)
				return p
			}
		}
	}
	t.Fatalf("%sis nowhere", want)
	return p
}

func segmentNames(t *testing.T, disk vfs.FS) []string {
	names, err := disk.List("/node/wal")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "wal-") || !strings.HasSuffix(name, ".seg") })
}

// used returns the bytes of the log that are not zero.
func used(t *testing.T, disk vfs.FS) (out []place) {
	for _, name := range segmentNames(t, disk) {
		var p place
		_, _ = fmt.Sscanf(name, "wal-%x.seg", &p.file)
		for i, b := range readAll(t, disk, p.path()) {
			if b != 0 {
				out = append(out, place{p.file, i})
			}
		}
	}
	return out
}

// told is one statement or write of a diary, and where the last batch was when it
// was answered.
type told struct {
	db, line string // of a point; line "" is CREATE DATABASE db
	batch    place
	flushed  bool // it was in files, later
}

// diary is a node of which is known what was written when, and what the power cut
// left of it.
type diary struct {
	disk    *vfs.Mem
	entries []told
}

// keepDiary writes into two databases and several time groups. In the middle the
// points and the catalogue are flushed, if that is wanted. Each point takes so many
// bytes of the log.
func keepDiary(t *testing.T, cfg config.Config, flushed bool, size int) *diary {
	disk := vfs.NewMem(1)
	d := &diary{disk: disk}
	c := open(t, disk, cfg)
	note := func(db, line string) {
		t.Helper()
		if line == "" {
			c.mustQuery("", "CREATE DATABASE "+db)
		} else {
			c.mustWrite(db, line)
		}
		d.entries = append(d.entries, told{db: db, line: line, batch: c.lastBatch(t)})
	}
	note("a", "")
	for i := range 40 {
		switch i {
		case 8:
			note("b", "")
		case 20:
			if flushed {
				c.flushAll()
				if err := c.node.flushMeta(); err != nil {
					t.Fatal(err)
				}
				for k := range d.entries {
					d.entries[k].flushed = true
				}
			}
		}
		db, week := "a", 0
		if i > 8 && i%3 == 0 {
			db = "b"
		}
		if i > 26 && i%4 == 0 {
			week = i / 10
		}
		field := "v"
		if i > 15 && i%5 == 0 {
			field = fmt.Sprintf("w%d", i/20)
		}
		note(db, fmt.Sprintf("m,host=h%d %s=%d,text=\"%s\" %d", i%2, field, i, strings.Repeat("x", size), int64(week)*7*day+int64(i)))
	}
	d.disk = disk.CrashClone(0, 1)
	c.close()
	return d
}

// point returns what a query of everything shows of a line.
func point(line string) string {
	parts := strings.Fields(line)
	_, tags, _ := strings.Cut(parts[0], ",")
	value, _, _ := strings.Cut(parts[1], ",")
	return fmt.Sprintf("%s %s %s", parts[2], tags, value)
}

// points returns everything that a database holds, as point does.
func (c *client) points(db string) (map[string]bool, error) {
	out := map[string]bool{}
	text, err := c.query(db, "SELECT * FROM m")
	for _, row := range strings.Split(text, "\n") {
		cells := strings.Fields(row)
		if len(cells) < 4 {
			continue
		}
		for _, cell := range cells[3:] { // m time=1 host=h1 text=x v=1
			if !strings.HasPrefix(cell, "text=") {
				out[fmt.Sprintf("%s %s %s", strings.TrimPrefix(cells[1], "time="), cells[2], cell)] = true
			}
		}
	}
	return out, err
}

// outcome is what became of a log of which one bit has flipped.
type lossOutcome struct{ started, lost, apart bool }

// damageAt flips a bit of the log, has the node go on, and reports what is wrong.
func (d *diary) damageAt(t *testing.T, at place) (o lossOutcome) {
	disk := d.disk.CrashClone(100, 1)
	flip(t, disk, at.path(), at.at*8+at.at%8)
	where := fmt.Sprintf("%s, byte %d (page %d)", at.path(), at.at, at.at/4096)
	c, err := tryOpen(t, disk, smallLog())
	if err == nil {
		o.started = true
		if !strings.Contains(c.log.String(), "the log is damaged") && !tornTail(c.log.String(), at.path()) {
			t.Errorf("%s: nobody noticed", where)
		}
		c.close()
	} else if wantError(t, err, dsdb.KindCorrupt, "dsdbd recover tells what is lost"); t.Failed() {
		t.Fatalf("%s: %v", where, err)
	}
	before := contents(t, disk)
	l, err := acceptLoss(t, disk, false)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if after := contents(t, disk); after != before {
		t.Fatalf("%s: to look changed something:\n%s\n%s", where, before, after)
	}
	if !l.Any() {
		if !o.started {
			t.Fatalf("%s: the node does not start, and nothing can be done: %q", where, l.Lines())
		}
		return o
	}
	if o.started && l.Catalogue != nil {
		t.Errorf("%s: the node starts, and its catalogue is to be given up: %q", where, l.Lines())
	}
	told := strings.Join(l.Lines(), "\n")
	if l, err = acceptLoss(t, disk, true); err != nil || strings.Join(l.Lines(), "\n") != told {
		t.Fatalf("%s: told\n%s\ndid\n%s\n%v", where, told, strings.Join(l.Lines(), "\n"), err)
	}
	o.lost, o.apart = true, len(l.Apart) > 0
	_, _ = fmt.Sscanf(path.Base(l.Damage[0].File), "wal-%x.seg", &at.file)
	at.at = int(l.Damage[0].Offset)
	d.check(t, disk, at, l)
	return o
}

// check starts a node that has accepted a loss, twice, and looks for what it is to have.
func (d *diary) check(t *testing.T, disk *vfs.Mem, at place, l *Loss) {
	where := fmt.Sprintf("%s, byte %d (page %d):\n%s\n", at.path(), at.at, at.at/4096, strings.Join(l.Lines(), "\n"))
	fresh := []string{"m,host=new v=1 999", fmt.Sprintf("m,host=new v=2 %d", 3*7*day+1)} // also where a time group is lost
	for start := range 2 {
		c, err := tryOpen(t, disk, smallLog())
		if err != nil {
			t.Fatalf("%sstart %d: %v\n%s", where, start, err, c.log)
		}
		if text := c.log.String(); !strings.Contains(text, "THIS NODE GOES ON WITHOUT WHAT WAS LOST") || !strings.Contains(text, "done: the node can be started") {
			t.Errorf("%sstart %d: the loss is not logged:\n%s", where, start, text)
		}
		databases := c.mustQuery("", "SHOW DATABASES")
		for _, db := range []string{"a", "b"} {
			has, err := c.points(db)
			known := strings.Contains(databases, "name="+db)
			if err != nil && known {
				t.Errorf("%sstart %d: %v", where, start, err)
			}
			ended := map[string]bool{} // shards of which a point was missing
			for _, e := range d.entries {
				if e.db == db && e.line != "" && known && has[point(e.line)] == ended[e.group()] && start == 0 {
					if ended[e.group()] {
						t.Errorf("%s%s is in %s, and an earlier one is not: there is %v", where, point(e.line), db, has)
					}
					ended[e.group()] = true
				}
				switch {
				case e.db != db:
					continue
				case e.line == "" && !known && (e.flushed || e.batch.before(at)):
					t.Errorf("%sdatabase %s is lost", where, db)
				case e.line != "" && known && !has[point(e.line)] && (e.flushed || e.batch.before(at) || d.spared(e, at)):
					t.Errorf("%sstart %d: %s is lost from %s: there is %v", where, start, point(e.line), db, has)
				}
				if e.line != "" {
					delete(has, point(e.line))
				}
			}
			for _, line := range fresh { // of the first start
				delete(has, point(line))
			}
			if len(has) > 0 {
				t.Errorf("%s%s has %v, which nobody wrote", where, db, has)
			}
			if !known {
				c.mustQuery("", "CREATE DATABASE "+db)
			}
			c.mustWrite(db, strings.Join(fresh, "\n"))
			if has, _ := c.points(db); !has[point(fresh[0])] || !has[point(fresh[1])] {
				t.Errorf("%sstart %d: what is written now is not in %s: %v", where, start, db, has)
			}
		}
		c.close()
		for _, a := range l.Apart {
			if names, err := disk.List(a.Folder); err != nil || !strings.Contains(strings.Join(names, " "), ".seg") {
				t.Errorf("%sshard %d was put into %s: %v, %v", where, a.ID, a.Folder, names, err)
			}
		}
	}
	if l, err := acceptLoss(t, disk, true); err != nil || l.Any() {
		t.Errorf("%sonce more: %v %q", where, err, l.Lines())
	}
}

// group names the shard of a point.
func (o told) group() string {
	var at int64
	_, _ = fmt.Sscan(o.line[strings.LastIndexByte(o.line, ' ')+1:], &at)
	return fmt.Sprintf("%s %d", o.db, at/(7*day))
}

// spared reports whether the damage lies in an entry of another shard than a point's,
// and behind what made that shard.
func (d *diary) spared(e told, at place) bool {
	made := slices.IndexFunc(d.entries, func(o told) bool { return o.line != "" && o.group() == e.group() })
	hit := slices.IndexFunc(d.entries, func(o told) bool { return !o.batch.before(at) })
	return d.entries[made].batch.before(at) && hit >= 0 && d.entries[hit].line != "" && d.entries[hit].group() != e.group()
}

// contents describes the files of a node, but for locks.
func contents(t *testing.T, disk *vfs.Mem) string {
	var sb strings.Builder
	for _, f := range files(t, disk, "/node") {
		if path.Base(f) != "lock" {
			fmt.Fprintf(&sb, "%s %d %x\n", f, len(readAll(t, disk, f)), hash(readAll(t, disk, f)))
		}
	}
	return sb.String()
}

func hash(b []byte) (h uint64) {
	for _, c := range b {
		h = h*1099511628211 ^ uint64(c)
	}
	return h
}
