package server

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/lineproto"
)

// What was written is read after a restart, from the log as from segments.
func TestWriteQueryRestart(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "cpu,host=a usage=1 10\ncpu,host=b usage=2 20")
	want := "cpu,host=a time=10 usage=1\ncpu,host=b time=20 usage=2"
	c.expect("db", "SELECT usage FROM cpu GROUP BY host", want)
	c = c.reopen()
	c.expect("db", "SELECT usage FROM cpu GROUP BY host", want)
	c.flushAll()
	c = c.reopen()
	c.expect("db", "SELECT usage FROM cpu GROUP BY host", want)
	c.close()
}

// The field type that came first counts, per time group; points that
// contradict it are dropped, the others of the write are stored.
func TestFieldTypeConflictIsPartialWrite(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "cpu,host=a usage=1 10")
	wantError(t, c.write("db", "cpu,host=a usage=2i 20\ncpu,host=b usage=3 30\ncpu,host=b other=4i,usage=\"x\" 40"), dsdb.KindConflict,
		`partial write: field type conflict: input field "usage" on measurement "cpu" is type integer, already exists as type float dropped=2`)
	c.expect("db", "SELECT usage FROM cpu", "cpu time=10 usage=1\ncpu time=30 usage=3")
	week := int64(7 * 24 * 3600 * 1e9)
	c.mustWrite("db", fmt.Sprintf("cpu,host=a usage=5i %d", 3*week))
	c.expect("db", "SELECT usage FROM cpu", fmt.Sprintf("cpu time=10 usage=1\ncpu time=30 usage=3\ncpu time=%d usage=5", 3*week))
}

// Two types for one field in one new write: the one that comes first wins.
func TestFieldTypeConflictWithinOneWrite(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	wantError(t, c.write("db", "cpu usage=1i 10\ncpu usage=2 20\ncpu usage=3i 30"), dsdb.KindConflict, "dropped=1")
	c.expect("db", "SELECT usage FROM cpu", "cpu time=10 usage=1\ncpu time=30 usage=3")
}

// Each time group of a write gets only the fields that its own rows have, and
// their types: a field may be an integer in one and a float in the next.
func TestFieldsPerTimeGroupWithinOneWrite(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	week := int64(7 * 24 * 3600 * 1e9)
	c.mustWrite("db", fmt.Sprintf("cpu usage=1i 10\ncpu idle=2 %d\ncpu usage=3.5 %d\ncpu usage=4i 20", 3*week, 3*week+1))
	c.expect("db", "SELECT * FROM cpu WHERE time < 1d", "cpu time=10 usage=1\ncpu time=20 usage=4")
	c.mustWrite("db", "cpu idle=\"x\" 30")
	c.expect("db", fmt.Sprintf("SELECT usage FROM cpu WHERE time > %d", week), fmt.Sprintf("cpu time=%d usage=3.5", 3*week+1))
}

// time is no name for a tag or an only field; names are quoted as they are.
func TestTimeAsNameIsPartialWrite(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	wantError(t, c.write("db", "cpu,time=x usage=1 10"), dsdb.KindConflict,
		`partial write: invalid tag key: input tag "time" on measurement "cpu" is invalid dropped=1`)
	wantError(t, c.write("db", `"q" time=1 10`), dsdb.KindConflict,
		`partial write: invalid field name: input field "time" on measurement ""q"" is invalid dropped=1`)
	wantError(t, c.write("db", "cpu time=1 10\ncpu usage=2 20\ncpu usage=3i 30"), dsdb.KindConflict,
		`partial write: invalid field name: input field "time" on measurement "cpu" is invalid dropped=2`)
	c.expect("db", "SELECT * FROM cpu", "cpu time=20 usage=2")
	wantError(t, c.write("db", "\"q\" v=1i 1\n\"q\" v=2 2"), dsdb.KindConflict,
		`partial write: field type conflict: input field "v" on measurement ""q"" is type float, already exists as type integer dropped=1`)
}

// Points that the policy would not keep are dropped, and counted together with
// those of the wrong type.
func TestPointsBeyondRetentionPolicy(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db WITH DURATION 1h")
	wantError(t, c.write("db", "cpu usage=1 10\ncpu usage=2 20"), dsdb.KindConflict, "partial write: points beyond retention policy dropped=2")
	if groups := c.node.meta.View().Groups(); len(groups) != 0 {
		t.Errorf("time groups for points that are not stored: %v", groups)
	}
	wantError(t, c.write("db", fmt.Sprintf("cpu usage=1 10\ncpu usage=2 %d", now())), dsdb.KindConflict,
		"partial write: points beyond retention policy dropped=1")
	c.expect("db", "SELECT count(usage) FROM cpu", "cpu time=0 count=1")
}

// A data node may hold so many shards. What needs another one away from now, by
// mistake or by a clock that is wrong, is dropped for good, and the rest of the
// write is stored; who sends the points of now is to keep them until there is room.
func TestShardsPerNodeAreBounded(t *testing.T) {
	cfg := quietConfig()
	cfg.Data.MaxShardsPerNode = 10
	c := open(t, vfs.NewMem(1), cfg)
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	const week = int64(604_800_000_000_000)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	weeks := func(from, n int) (lines string) {
		for i := range n {
			lines += fmt.Sprintf("m v=1 %d\n", int64(from+i)*week)
		}
		return lines
	}
	current := fmt.Sprintf("m v=1 %d\n", now())
	const full = "partial write: time groups away from now: data node 2 would hold more than 9 shards, nine tenths of [data] max-shards-per-node: " +
		"give the policy a longer SHARD DURATION, drop some, add data nodes or raise the limit"
	wantError(t, c.write("db", weeks(1, 12)+current), dsdb.KindConflict, full+" dropped=12")
	c.expect("db", "SELECT count(v) FROM m", "m time=0 count=1")
	ok(c.write("db", weeks(1, 8)+current))
	wantError(t, c.write("db", weeks(1, 9)+"m v=2i 604800000000000"), dsdb.KindConflict, full+" dropped=2")
	wantError(t, c.write("db", weeks(12, 1)), dsdb.KindConflict, full+" dropped=1")

	for _, name := range []string{"second", "third"} {
		c.mustQuery("", "CREATE DATABASE "+name)
	}
	ok(c.write("second", current))
	wantError(t, c.write("third", weeks(1, 1)+current), dsdb.KindUnavailable,
		"write failed: the catalogue cannot be changed for it: data node 2 would hold more than 10 shards, [data] max-shards-per-node: drop some, add data nodes or raise the limit")
	ok(c.write("db", weeks(1, 1)+current))
	c.mustQuery("", "DROP DATABASE second")
	ok(c.write("third", current))
}

// A write to what is not there says so in /write's words.
func TestWriteToNothing(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	wantError(t, c.write("db", "cpu usage=1 10"), dsdb.KindNotFound, `database not found: "db"`)
	c.mustQuery("", "CREATE DATABASE db")
	wantError(t, c.writeTo("db", "none", "cpu usage=1 10"), dsdb.KindNotFound, "retention policy not found: none")
}

// birthOfGroups is the index below which no raft group has entries.
const birthOfGroups = 10

// Each write to one shard is one entry of the log, as is each change of the
// catalogue: nothing is proposed twice, and nothing beside.
func TestOneEntryPerWrite(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	written := func() (n uint64) {
		for _, g := range c.node.wal.Groups() {
			_, last := c.node.wal.Bounds(g)
			n += last - birthOfGroups
		}
		return n
	}
	applied := func(do func()) uint64 {
		before := written()
		do()
		return written() - before
	}
	commands := []string{"CREATE DATABASE db", "CREATE RETENTION POLICY rp ON db DURATION 1d REPLICATION 1",
		"ALTER RETENTION POLICY rp ON db DURATION 2d", "CREATE USER u WITH PASSWORD 'p'", "GRANT READ ON db TO u", "DROP RETENTION POLICY rp ON db"}
	for _, text := range commands {
		if n := applied(func() { c.mustQuery("", text) }); n != 1 {
			t.Errorf("%s: %d entries", text, n)
		}
	}
	// The first write of a group: the group, the fields, the shard's first entry of its raft leader, the points.
	if n := applied(func() { c.mustWrite("db", "cpu,host=a usage=1 10") }); n != 4 {
		t.Errorf("first write: %d entries", n)
	}
	for i := range 100 {
		lines := strings.Repeat(fmt.Sprintf("cpu,host=h%d usage=%d %d\n", i, i, i), 1+i%3)
		if n := applied(func() { c.mustWrite("db", lines) }); n != 1 {
			t.Errorf("write %d: %d entries", i, n)
		}
	}
	if n := applied(func() { c.mustQuery("db", "SELECT * FROM cpu; SHOW SERIES; SHOW DATABASES") }); n != 0 {
		t.Errorf("queries: %d entries", n)
	}
	eventually(t, "what was written is applied, once", func() bool { return c.node.host.Metrics().Applied.Load() == written() })
}

// begin prepares a write, up to where its points are to be proposed.
func (c *client) begin(db, lines string) *write {
	c.t.Helper()
	var b column.WriteBatch
	if _, err := new(lineproto.Parser).Parse(&b, []byte(lines), lineproto.Options{}); err != nil {
		c.t.Fatal(err)
	}
	view, rp, err := c.node.policy(c.t.Context(), db, "")
	if err != nil {
		c.t.Fatal(err)
	}
	w := &write{n: c.node, database: db, view: view, policy: rp, batch: &b}
	if err := w.prepare(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	return w
}

// A write that was split by a catalogue which did not know yet that its shard was
// dropped goes where its points belong now, with the types that are fixed there.
func TestWriteToADroppedShardIsRedirected(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "cpu v=1 1")
	ctx, cancel := context.WithTimeout(t.Context(), c.patience)
	defer cancel()
	late, wrong := c.begin("db", "cpu v=2 2"), c.begin("db", "cpu v=3 3")
	c.mustQuery("", "DROP SHARD 1")
	if err := late.propose(ctx); err != nil || late.result() != nil {
		t.Fatal(err, late.result())
	}
	c.expect("db", "SELECT v FROM cpu", "cpu time=2 v=2")

	c.mustQuery("", "DROP SHARD 2")
	c.mustWrite("db", "cpu v=4i 4")
	if err := wrong.propose(ctx); err != nil {
		t.Fatal(err)
	}
	wantError(t, wrong.result(), dsdb.KindConflict, "is type float, already exists as type integer dropped=1")
	c.expect("db", "SELECT v FROM cpu", "cpu time=4 v=4")

	gone := c.begin("db", "cpu v=5i 5")
	c.mustQuery("", "DROP DATABASE db")
	wantError(t, gone.propose(ctx), dsdb.KindNotFound, "database not found")
}

// A batch is divided until its parts fit into the log, however uneven its rows
// are; a row that never fits is refused alone.
func TestUnevenRowsAreDivided(t *testing.T) {
	for _, level := range []string{"", "any"} {
		c := open(t, vfs.NewMem(1), quietConfig())
		c.mustQuery("", "CREATE DATABASE db")
		long := strings.Repeat("x", 1_000_000)
		var lines, wide strings.Builder
		for i := range 900 {
			fmt.Fprintf(&lines, "m,host=a v=1 %d\n", i)
		}
		for i := range 10 {
			fmt.Fprintf(&lines, "m,host=b v=1,s=%q %d\n", long, i)
			fmt.Fprintf(&wide, ",s%d=%q", i, long)
		}
		if err := c.writeAs(level, "db", lines.String()); err != nil {
			t.Errorf("%q: %v", level, err)
		}
		c.expect("db", "SELECT count(v) FROM m", "m time=0 count=910")
		wantError(t, c.writeAs(level, "db", "m,host=c v=1 1\nm,host=d v=1"+wide.String()+" 2\nm,host=e v=1 3"), dsdb.KindConflict,
			`partial write: a point of measurement "m" takes 10`)
		c.expect("db", "SELECT count(v) FROM m", "m time=0 count=912")
		c.close()
	}
}

// Series keys that are long and alike take next to nothing in an entry, and all of
// their bytes when that is read: what no replica could read is not proposed.
func TestLongKeysAreDivided(t *testing.T) {
	const series, length = 1100, 62_000 // more than column.MaxEntryKeys together
	var lines strings.Builder
	long := strings.Repeat("x", length)
	for i := range series {
		fmt.Fprintf(&lines, "m,a=%s,z=%d v=1 1\n", long, i)
	}
	var b column.WriteBatch
	if _, err := new(lineproto.Parser).Parse(&b, []byte(lines.String()), lineproto.Options{}); err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, part := range pieces(&b, len(b.Append(nil))) {
		var read column.WriteBatch
		if err := read.Decode(part.Append(nil)); err != nil {
			t.Error(err)
		}
		rows += read.Rows()
	}
	if rows != series {
		t.Errorf("%d of %d rows can be read", rows, series)
	}
}

// What is said of a write that did not succeed: whether it may have, and what of
// it is stored.
func TestWordsOfAWriteThatFailed(t *testing.T) {
	late := &dsdb.Error{Kind: dsdb.KindUnavailable, Text: "no connection in time", Err: context.DeadlineExceeded}
	failed := dsdb.Errorf(dsdb.KindUnavailable, "write failed: node 3 (h:1) cannot be reached")
	unknown := &dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout", Err: failed}
	for _, c := range []struct {
		err  error
		kind dsdb.Kind
		text string
	}{
		{late, dsdb.KindUnavailable, "write failed: no connection in time"},
		{failed, dsdb.KindUnavailable, "write failed: node 3 (h:1) cannot be reached"},
		{unknown, dsdb.KindTimeout, "timeout: the write may have succeeded (node 3 (h:1) cannot be reached)"},
		{context.DeadlineExceeded, dsdb.KindTimeout, "timeout: the write may have succeeded"},
		{&dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout", Err: context.DeadlineExceeded}, dsdb.KindTimeout, "timeout: the write may have succeeded"},
		{dsdb.Errorf(dsdb.KindTimeout, "timeout: the outcome is unknown: no space"), dsdb.KindTimeout, "timeout: the write may have succeeded (no space)"},
	} {
		if err := writeFailed(c.err); dsdb.KindOf(err) != c.kind || err.Error() != c.text {
			t.Errorf("%v: kind %d, %v", c.err, dsdb.KindOf(err), err)
		}
	}
	for _, c := range []struct {
		errs []error
		want string
	}{
		{[]error{nil, nil}, "<nil>"},
		{[]error{failed, failed}, "write failed: node 3 (h:1) cannot be reached"},
		{[]error{failed, nil, late}, "write failed: node 3 (h:1) cannot be reached; other points of the write are stored"},
		{[]error{partStored(failed), nil}, "write failed: node 3 (h:1) cannot be reached; other points of the write are stored"},
		{[]error{failed, nil, unknown}, "timeout"},
	} {
		if err := together(c.errs); fmt.Sprint(err) != c.want {
			t.Errorf("%v: %v", c.errs, err)
		}
	}
}
