package server

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/server/hints"
	"github.com/dasudian/dsdb/server/httpd"
)

// soon has a node wait for leaders for a short time only.
func soon(c *config.Config) {
	c.Coordinator.WriteTimeout = config.Duration(time.Second)
	c.HintedHandoff.MaxSize = 1 << 20
	c.HintedHandoff.RetryInterval, c.HintedHandoff.RetryMaxInterval = config.Duration(50*time.Millisecond), config.Duration(200*time.Millisecond)
}

// hintCluster starts three nodes with three copies of what they are told and
// some points, prepares what else a test needs, and stops two of them. The last
// one is left.
func hintCluster(t *testing.T, prepare ...func(m *machine)) (left *machine, others []*machine) {
	t.Helper()
	nodes := newCluster(t, 3)
	left, others = nodes[2], nodes[:2]
	left.mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	left.mustWrite("db", "cpu,host=a n=1i,m=1i 10\ncpu,host=a n=1i 20\ncpu,host=gone n=1i 10")
	for _, do := range prepare {
		do(left)
	}
	left.restartWith(soon)
	for _, m := range others {
		m.halt()
	}
	return left, others
}

// hint writes at consistency any, which must become a hint.
func (m *machine) hint(lines string) {
	m.t.Helper()
	r := &httpd.WriteRequest{Database: "db", Consistency: "any"}
	if err := m.request(r, lines); err != nil || !r.Hinted {
		m.t.Fatalf("hinted %v, error %v\n%s", r.Hinted, err, m.log)
	}
}

// A shard has lost its quorum. What is written at consistency any waits on the
// node that took it, over its restart, and comes late: it adds what is missing,
// and undoes neither what was written nor what was deleted.
func TestHintsComeLate(t *testing.T) {
	t.Parallel()
	left, others := hintCluster(t)
	left.hint("cpu,host=a n=90i 10\ncpu,host=a n=90i,m=91i 20\ncpu,host=a n=92i 30\ncpu,host=b n=93i 10\ncpu,host=gone n=94i 20")
	left.hint("cpu,host=a n=95i 40")
	for _, level := range []string{"", "one", "all"} {
		r := &httpd.WriteRequest{Database: "db", Consistency: level}
		if err := left.request(r, "cpu,host=a n=1i 11"); err == nil || r.Hinted {
			t.Errorf("consistency %q without a quorum: hinted %v, error %v", level, r.Hinted, err)
		}
	}
	wantError(t, left.writeAs("any", "db", "cpu,host=a new=1i 10"), dsdb.KindUnavailable, "takes a quorum of meta nodes")
	if s := left.node.handoff.queue.Stats(); s.Hints != 2 || s.Points != 6 {
		t.Errorf("queue %+v", s)
	}
	left.halt()

	startAll(others...)
	others[0].insist("db", "cpu,host=a n=2i 30")
	others[0].mustQuery("db", "DROP SERIES FROM cpu WHERE host = 'gone'; DELETE FROM cpu WHERE time = 40")
	left.start()
	eventually(t, "the hints are delivered", func() bool { return left.node.handoff.queue.Stats().Hints == 0 })
	for _, m := range append(others, left) {
		m.expect("db", "SELECT * FROM cpu; SHOW SERIES", strings.Join([]string{"cpu time=10 host=a m=1 n=1", "cpu time=10 host=b n=93",
			"cpu time=20 host=a m=91 n=1", "cpu time=30 host=a n=2", " key=cpu,host=a", " key=cpu,host=b"}, "\n"))
	}
	// One that is delivered again, for want of an answer, finds its own values.
	if p := &left.node.handoff.points; p.delivered.Load()+p.superseded.Load() != 4 || p.superseded.Load() < 2 || p.deleted.Load() != 2 {
		t.Errorf("delivered %d, superseded %d, deleted %d", p.delivered.Load(), p.superseded.Load(), p.deleted.Load())
	}
	eventually(t, "with a quorum it is no hint", func() bool {
		r := &httpd.WriteRequest{Database: "db", Consistency: "any"}
		return left.request(r, "cpu,host=a n=3i 30") == nil && !r.Hinted
	})
	left.expect("db", "SELECT n FROM cpu WHERE time = 30", "cpu time=30 n=3")
}

// What is dropped or deleted stays so, also where hints are all that a shard ever
// hears of the measurement: not even series are left of it.
func TestHintsOfWhatIsNotStored(t *testing.T) {
	t.Parallel()
	left, others := hintCluster(t, func(m *machine) {
		c := &meta.RegisterFields{Database: "db", Policy: "autogen"}
		for _, name := range []string{"dropped", "deleted", "matched", "kept"} {
			c.Sets = append(c.Sets, meta.NewFields{Measurement: name, Times: []int64{10}, Fields: []meta.Field{{Name: "n", Type: dsdb.Integer}}})
		}
		if err := m.node.command(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	})
	left.hint("dropped,host=a n=1i 10\ndeleted,host=a n=1i 10\nmatched,host=a n=1i 10\nkept,host=a n=1i 10")
	left.halt()
	startAll(others...)
	others[0].insist("db", "cpu,host=a n=1i 50")
	others[0].mustQuery("db", "DROP MEASUREMENT dropped; DELETE FROM deleted; DELETE FROM /^mat/; DROP MEASUREMENT never")
	left.start()
	eventually(t, "the hints are delivered", func() bool { return left.node.handoff.queue.Stats().Hints == 0 })
	others[0].expect("db", "SHOW SERIES", "key=cpu,host=a\n key=cpu,host=gone\n key=kept,host=a")
	if p := &left.node.handoff.points; p.deleted.Load() != 3 || p.delivered.Load()+p.superseded.Load() != 1 {
		t.Errorf("deleted %d, delivered %d, superseded %d", p.deleted.Load(), p.delivered.Load(), p.superseded.Load())
	}
}

// What becomes of hints that nobody can take: they outlive a restart, are given
// up with their database or when they are too old, and are refused when there
// are too many of them, or when they are off; each of these is said.
func TestHintsThatCannotBeDelivered(t *testing.T) {
	t.Parallel()
	one := newMachine(t).start()
	two := newMachine(t, joins(one)).start()
	agree(t, one, two)
	for _, db := range []string{"db", "gone"} {
		one.mustQuery("", "CREATE DATABASE "+db+" WITH REPLICATION 2")
		one.mustWrite(db, "cpu n=1i 1")
	}
	patient := one.cfg.Coordinator
	one.restartWith(soon)
	two.halt()
	waiting := func(hints, points int) {
		t.Helper()
		if s := one.node.handoff.queue.Stats(); s.Hints != hints || s.Points != points {
			t.Errorf("%d hints wait with %d points, want %d with %d\n%s", s.Hints, s.Points, hints, points, one.log)
		}
	}
	one.hint("cpu n=2i 2\ncpu n=3i 3")
	if err := one.writeAs("any", "gone", "cpu n=2i 2"); err != nil {
		t.Fatal(err)
	}
	one.halt()
	one.start()
	waiting(2, 3)

	eventually(t, "the database is dropped", func() bool { _, err := one.query("", "DROP DATABASE gone"); return err == nil })
	eventually(t, "the hint of a dropped database is given up", func() bool { return one.node.handoff.points.dropped.Load() == 1 })
	eventually(t, "that is said", func() bool { return strings.Contains(one.log.String(), "their shard was dropped meanwhile") })
	waiting(1, 2)

	one.halt()
	one.cfg.HintedHandoff.MaxAge = config.Duration(time.Millisecond)
	one.start()
	eventually(t, "a hint that is too old is given up", func() bool { return one.node.handoff.points.expired.Load() == 2 })
	eventually(t, "that is said", func() bool { return strings.Contains(one.log.String(), "no leader took them within max-age") })
	waiting(0, 0)

	one.halt()
	one.cfg.HintedHandoff.MaxAge = 0
	one.start()
	lines := "cpu n=1i 1"
	for i := range 10000 {
		lines += fmt.Sprintf("\ncpu,host=h%d n=%di %d", i*7919%10007, i, 1+i)
	}
	var err error
	for n := 0; err == nil && n < 100; n++ {
		err = one.writeAs("any", "db", lines)
	}
	wantError(t, err, dsdb.KindUnavailable, "hinted handoff: queue is full")
	waits := one.node.handoff.queue.Stats().Hints
	if disk := one.node.handoff.queue.Stats().Disk; waits < 3 || disk > 1<<20 {
		t.Errorf("full with %d hints in %d bytes", waits, disk)
	}

	one.restartWith(func(c *config.Config) { c.Coordinator = patient }) // hints are large
	two.start()
	eventually(t, "the hints are delivered", func() bool { return one.node.handoff.queue.Stats().Hints == 0 })
	// Of those that were given up the writes may have got into the log.
	two.expect("db", "SELECT count(n) FROM cpu WHERE host != ''", "cpu time=0 count=10000")
	soon(&one.cfg)
	one.restartWith(func(c *config.Config) { c.HintedHandoff.Enabled = false })
	two.halt()
	if err := one.writeAs("any", "db", "cpu n=4i 4"); dsdb.KindOf(err) != dsdb.KindUnavailable && dsdb.KindOf(err) != dsdb.KindTimeout {
		t.Errorf("with hints off: %v", err)
	}
	waiting(0, 0)
}

// A folder of hints that cannot be used, here that of another node, does not keep
// a node from serving.
func TestUnusableHints(t *testing.T) {
	m := newMachine(t).start()
	m.halt()
	other, err := hints.Open(hints.Options{FS: m.fs, Dir: m.cfg.HintedHandoff.Dir, MaxSize: 1 << 20, Node: [16]byte{9}, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		err = other.Add(hints.Hint{Shard: 1, Points: 1})
	}
	if err == nil {
		err = other.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	m.start()
	m.mustQuery("", "CREATE DATABASE db")
	if err := m.writeAs("any", "db", "cpu n=1i 1"); err != nil {
		t.Error(err)
	}
	if !strings.Contains(m.log.String(), "hints cannot be kept") || !strings.Contains(m.log.String(), m.cfg.HintedHandoff.Dir) {
		t.Errorf("log:\n%s", m.log)
	}
}
