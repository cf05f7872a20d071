package wal

import (
	"bytes"
	"errors"
	"fmt"
	iofs "io/fs"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const dir = "data/wal"

// small makes segments that a few updates fill.
func small() Options { return Options{SegmentSize: 32 << 10, CacheBytes: 4 << 10} }

func open(t testing.TB, fs vfs.FS, o Options) (*Log, Report) {
	t.Helper()
	l, r, err := Open(fs, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return l, r
}

func write(t testing.TB, l *Log, us ...Update) {
	t.Helper()
	if err := l.Write(us, true); err != nil {
		t.Fatal(err)
	}
}

func create(g dsdb.GroupID, r dsdb.ReplicaID) Update {
	return Update{Group: g, Create: &GroupState{Replica: r, HardState: HardState{Term: 1, Commit: 10},
		Truncated: Position{10, 1}, Conf: []byte("voters")}}
}

// entries returns entries [lo, hi) of one term, each with size bytes of its own.
func entries(lo, hi, term uint64, size int) []Entry {
	var es []Entry
	for i := lo; i < hi; i++ {
		data := bytes.Repeat([]byte(fmt.Sprintf("%d.%d ", term, i)), size)[:size]
		es = append(es, Entry{Index: i, Term: term, Kind: uint8(i % 3), Data: data})
	}
	return es
}

func wantEntries(t testing.TB, l *Log, g dsdb.GroupID, want []Entry) {
	t.Helper()
	first, last := l.Bounds(g)
	got, err := l.Entries(g, first, last+1, 1<<40, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sameEntries(got, want); err != nil {
		t.Fatalf("group %d: %v", g, err)
	}
}

func sameEntries(got, want []Entry) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d entries, want %d", len(got), len(want))
	}
	for i := range got {
		g, w := got[i], want[i]
		if g.Index != w.Index || g.Term != w.Term || g.Kind != w.Kind || !bytes.Equal(g.Data, w.Data) {
			return fmt.Errorf("entry %d: %d.%d, %d bytes; want %d.%d, %d bytes", i, g.Term, g.Index, len(g.Data), w.Term, w.Index, len(w.Data))
		}
	}
	return nil
}

func TestEntriesSurviveRestart(t *testing.T) {
	for _, cache := range []int64{-1, 4 << 10, 1 << 20} {
		mem := vfs.NewMem(1)
		o := small()
		o.CacheBytes = cache
		l, _ := open(t, mem, o)
		write(t, l, create(7, 1), create(3, 2))
		write(t, l, Update{Group: 7, Entries: entries(11, 20, 2, 900), HardState: &HardState{Term: 2, Vote: 1, Commit: 11}},
			Update{Group: 3, Entries: entries(11, 200, 2, 50)})
		write(t, l, Update{Group: 7, Entries: entries(15, 40, 3, 3000)})
		want7 := append(entries(11, 15, 2, 900), entries(15, 40, 3, 3000)...)
		for range 2 {
			wantEntries(t, l, 7, want7)
			wantEntries(t, l, 3, entries(11, 200, 2, 50))
			if s, _ := l.State(7); s.HardState != (HardState{2, 1, 11}) || string(s.Conf) != "voters" {
				t.Fatalf("state %+v", s)
			}
			if term, err := l.Term(7, 14); term != 2 || err != nil {
				t.Fatalf("term of 14 is %d, %v", term, err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			var r Report
			l, r = open(t, mem, o)
			if !r.Clean || len(r.Corrupt)+len(r.Suspect) > 0 || r.Torn != nil {
				t.Fatalf("report %+v", r)
			}
		}
		l.Close()
	}
}

func TestReadingOutsideBounds(t *testing.T) {
	l, _ := open(t, vfs.NewMem(1), small())
	defer l.Close()
	write(t, l, create(1, 1), Update{Group: 1, Entries: entries(11, 15, 2, 10)})
	write(t, l, Update{Group: 1, Truncate: &Position{12, 2}, Conf: []byte("new")})
	for _, c := range []struct {
		lo, hi uint64
		want   error
	}{{12, 14, ErrCompacted}, {13, 16, ErrUnavailable}, {13, 15, nil}, {15, 15, nil}} {
		if _, err := l.Entries(1, c.lo, c.hi, 1<<20, nil); !errors.Is(err, c.want) {
			t.Errorf("entries [%d,%d): %v, want %v", c.lo, c.hi, err, c.want)
		}
	}
	if term, err := l.Term(1, 12); term != 2 || err != nil {
		t.Errorf("term of the truncated position: %d, %v", term, err)
	}
	if _, err := l.Term(1, 11); err != ErrCompacted {
		t.Errorf("term of 11: %v", err)
	}
	if _, err := l.Term(1, 15); err != ErrUnavailable {
		t.Errorf("term of 15: %v", err)
	}
	if _, err := l.Term(2, 1); dsdb.KindOf(err) != dsdb.KindNotFound {
		t.Errorf("unknown group: %v", err)
	}
	got, _ := l.Entries(1, 13, 15, 1, nil)
	if len(got) != 1 {
		t.Errorf("a limit of one byte gives %d entries, want one", len(got))
	}
	if s, _ := l.State(1); string(s.Conf) != "new" {
		t.Errorf("conf %q", s.Conf)
	}
}

func TestUpdatesThatAreRefused(t *testing.T) {
	l, _ := open(t, vfs.NewMem(1), small())
	defer l.Close()
	write(t, l, create(1, 5), create(2, 6), Update{Group: 1, Entries: entries(11, 15, 2, 10), HardState: &HardState{Term: 2, Vote: 5, Commit: 12}})
	write(t, l, Update{Group: 2, Remove: true})
	cases := []struct {
		name string
		u    Update
		want dsdb.Kind
	}{
		{"unknown group", Update{Group: 9, HardState: &HardState{Term: 1}}, dsdb.KindNotFound},
		{"create twice", create(1, 7), dsdb.KindConflict},
		{"replica that was removed", create(2, 6), dsdb.KindConflict},
		{"older replica", create(2, 3), dsdb.KindConflict},
		{"gap", Update{Group: 1, Entries: entries(16, 17, 2, 1)}, dsdb.KindInvalid},
		{"below truncation", Update{Group: 1, Entries: entries(10, 12, 2, 1)}, dsdb.KindInvalid},
		{"not contiguous", Update{Group: 1, Entries: append(entries(15, 16, 2, 1), entries(18, 19, 2, 1)...)}, dsdb.KindInvalid},
		{"term falls", Update{Group: 1, HardState: &HardState{Term: 1}}, dsdb.KindInvalid},
		{"second vote", Update{Group: 1, HardState: &HardState{Term: 2, Vote: 4}}, dsdb.KindInvalid},
		{"commit above last", Update{Group: 1, HardState: &HardState{Term: 2, Vote: 5, Commit: 15}}, dsdb.KindInvalid},
		{"truncate above last", Update{Group: 1, Truncate: &Position{15, 2}}, dsdb.KindInvalid},
		{"reset backwards", Update{Group: 1, Reset: &GroupState{Replica: 5, HardState: HardState{Term: 3}, Truncated: Position{9, 1}}}, dsdb.KindInvalid},
		{"large entry", Update{Group: 1, Entries: []Entry{{Index: 15, Term: 2, Data: make([]byte, MaxEntry+1)}}}, dsdb.KindTooLarge},
	}
	for _, c := range cases {
		if err := l.Write([]Update{c.u}, true); err == nil || dsdb.KindOf(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	write(t, l, Update{Group: 1, Entries: entries(15, 16, 2, 1)}, create(2, 7))
	wantEntries(t, l, 1, append(entries(11, 15, 2, 10), entries(15, 16, 2, 1)...))
}

// Updates share batches up to 16 MiB; one above that has its own, in a segment
// that is as large as it needs.
func TestLargeUpdates(t *testing.T) {
	mem := vfs.NewMem(1)
	var syncs int
	o := Options{SegmentSize: 1 << 20, CacheBytes: 1 << 20, OnSync: func(time.Duration) { syncs++ }}
	l, _ := open(t, mem, o)
	write(t, l, create(1, 1), create(2, 1), create(3, 1))
	before, syncsBefore := l.Stats(), syncs
	large := entries(11, 14, 2, 7<<20)
	write(t, l, Update{Group: 1, Entries: entries(11, 13, 2, 7<<20)}, Update{Group: 2, Entries: entries(11, 12, 2, 3<<20)},
		Update{Group: 3, Entries: large})
	after := l.Stats()
	if n := after.Batches - before.Batches; n != 3+1 { // and a segment for all three, with its checkpoint
		t.Errorf("%d batches", n)
	}
	if n := uint64(syncs - syncsBefore); n != after.Syncs-before.Syncs || n != 4 {
		t.Errorf("%d syncs", n)
	}
	data := make([]byte, MaxEntry)
	us := []Update{{Group: 1}}
	for i := range uint64(9) {
		us[0].Entries = append(us[0].Entries, Entry{Index: 13 + i, Term: 2, Data: data})
	}
	if err := l.Write(us, true); dsdb.KindOf(err) != dsdb.KindTooLarge {
		t.Errorf("update of 72 MiB: %v", err)
	}
	mem.SetCapacity(60 << 20) // room for one more batch, but not for two
	err := l.Write([]Update{{Group: 1, Entries: entries(13, 15, 2, 7<<20)}, {Group: 3, Entries: entries(14, 16, 2, 7<<20)}}, true)
	if _, last := l.Bounds(1); dsdb.KindOf(err) != dsdb.KindUnavailable || last != 12 {
		t.Errorf("write of two batches on a full disk: %v, last entry %d", err, last)
	}
	mem.SetCapacity(0)
	l.Close()
	l, _ = open(t, mem, o)
	wantEntries(t, l, 3, large)
	if got := l.Stats().UnflushedBytes; got != after.UnflushedBytes {
		t.Errorf("%d bytes of entries, before the restart %d", got, after.UnflushedBytes)
	}
	l.Close()
}

// What is written without sync rides in the next batch; a mark is written once.
func TestUnsyncedStateRidesInTheNextBatch(t *testing.T) {
	mem := vfs.NewMem(1)
	l, _ := open(t, mem, small())
	write(t, l, create(1, 1), create(2, 1), Update{Group: 1, Entries: entries(11, 14, 2, 10)})
	before := l.Stats()
	for commit := uint64(11); commit < 14; commit++ {
		if err := l.Write([]Update{{Group: 1, HardState: &HardState{Term: 1, Commit: commit}}}, false); err != nil {
			t.Fatal(err)
		}
		if s, _ := l.State(1); s.HardState.Commit != commit {
			t.Fatalf("commit %d, want %d", s.HardState.Commit, commit)
		}
	}
	if now := l.Stats(); now.Syncs != before.Syncs || now.Batches != before.Batches {
		t.Errorf("commit indexes were written: %+v", now)
	}
	lost, _ := open(t, mem.CrashClone(100, 1), small())
	if s, _ := lost.State(1); s.HardState.Commit != 10 {
		t.Errorf("commit %d after a crash", s.HardState.Commit)
	}
	lost.Close()
	for range 3 {
		write(t, l)
	}
	if now := l.Stats(); now.Batches != before.Batches+1 || now.Records != before.Records+2 {
		t.Errorf("want one batch of a hard state and a mark: %+v, before %+v", now, before)
	}
	mem.Crash(0)
	l, _ = open(t, mem, small())
	if s, _ := l.State(1); s.HardState.Commit != 13 {
		t.Errorf("commit %d after the mark", s.HardState.Commit)
	}
	l.Close()
}

// Each start begins a file of its own. What it reserved and did not use is
// given back by the next start, also after a crash.
func TestRestartsDoNotFillTheDisk(t *testing.T) {
	mem := vfs.NewMem(1)
	o := Options{SegmentSize: 1 << 20}
	for i := range uint64(30) {
		l, report := open(t, mem, o)
		if len(report.Corrupt)+len(report.Suspect) > 0 {
			t.Fatalf("start %d: %+v", i, report)
		}
		u := Update{Group: 7, Entries: []Entry{{Index: 11 + i, Term: 1, Data: []byte("entry")}}}
		if i == 0 {
			u.Create = &GroupState{Replica: 1, HardState: HardState{Term: 1, Commit: 10}, Truncated: Position{10, 1}}
		}
		if err := l.Write([]Update{u}, true); err != nil {
			t.Fatal(err)
		}
		if first, last := l.Bounds(7); first != 11 || last != 11+i {
			t.Fatalf("start %d: entries %d to %d", i, first, last)
		}
		if used := l.Stats().DiskBytes; used > 6<<20 {
			t.Fatalf("start %d: the log takes %d bytes", i, used)
		}
		mem = mem.CrashClone(0, i)
	}
}

// Small batches in blocks that were only reserved share one write of zeros; in a
// segment that was in use before nothing is written but batches.
func TestZerosAreWrittenAheadOfSmallBatches(t *testing.T) {
	mem, writes := vfs.NewMem(1), 0
	fs := vfs.Faulty(mem, func(op, _ string) error {
		if op == vfs.OpWrite {
			writes++
		}
		return nil
	})
	l, _ := open(t, fs, Options{SegmentSize: 512 << 10})
	write(t, l, create(1, 1))
	count := func(batches uint64) int {
		before := writes
		for range batches {
			_, last := l.Bounds(1)
			write(t, l, Update{Group: 1, Entries: entries(last+1, last+2, 1, 10)})
		}
		return writes - before
	}
	if n := count(1 + writeAhead/pageSize); n != 2+writeAhead/pageSize { // the first zeros lie behind the group
		t.Errorf("%d writes for %d batches of a page", n, 1+writeAhead/pageSize)
	}
	for l.Stats().Spares < 3 { // the last two are kept for a full disk
		count(1)
		_, last := l.Bounds(1)
		write(t, l, Update{Group: 1, Truncate: &Position{last, 1}, Conf: []byte("voters")})
		if err := l.Recycle(); err != nil {
			t.Fatal(err)
		}
	}
	for segment := l.active(); l.active() == segment; {
		count(1)
	}
	if n := count(50); n != 50 {
		t.Errorf("%d writes for 50 batches in a segment that was in use before", n)
	}
	l.Close()
	again, report := open(t, mem, Options{SegmentSize: 512 << 10})
	if !report.Clean || len(report.Corrupt) > 0 || report.Torn != nil {
		t.Errorf("after a restart: %+v", report)
	}
	again.Close()
}

// What is remembered of replicas that left is bounded: of those that left long ago
// only the highest id. None of them can come back, also after a restart; one that
// is there, or comes with a higher id, is not mistaken for one.
func TestTombstonesAreBounded(t *testing.T) {
	const gone = 3 * maxTombstones
	mem := vfs.NewMem(1)
	o := Options{SegmentSize: 1 << 20}
	l, _ := open(t, mem, o)
	made := func(g dsdb.GroupID, r dsdb.ReplicaID) Update {
		return Update{Group: g, Create: &GroupState{Replica: r, HardState: HardState{Term: 1, Commit: 10}, Truncated: Position{10, 1}}}
	}
	write(t, l, made(1, 5))
	for first := 10; first < 10+gone; first += 512 {
		var us []Update
		for i := first; i < min(first+512, 10+gone); i++ {
			u := made(dsdb.GroupID(i), dsdb.ReplicaID(i))
			us = append(us, u, Update{Group: u.Group, Remove: true})
		}
		write(t, l, us...)
	}
	for round := range 3 {
		if n := len(l.table.removed); n > maxTombstones || n < maxTombstones/2 {
			t.Errorf("round %d: %d tombstones", round, n)
		}
		if checkpoint, _ := l.table.appendCheckpoint(nil); len(checkpoint) > (maxTombstones+2)*recordSize(64) {
			t.Errorf("round %d: a checkpoint of %d bytes", round, len(checkpoint))
		}
		for _, id := range []uint64{10, gone / 2, 9 + gone} {
			if r := l.Removed(dsdb.GroupID(id)); r < dsdb.ReplicaID(id) {
				t.Errorf("round %d: of group %d replicas up to %d left, %d did", round, id, r, id)
			}
			if err := l.Write([]Update{made(dsdb.GroupID(id), dsdb.ReplicaID(id))}, true); dsdb.KindOf(err) != dsdb.KindConflict {
				t.Errorf("round %d: replica %d comes back: %v", round, id, err)
			}
		}
		if s, _ := l.State(1); l.Removed(1) != s.Replica-1 {
			t.Errorf("round %d: of group 1 replica %d is here, %d left", round, s.Replica, l.Removed(1))
		}
		write(t, l, made(dsdb.GroupID(10+round), dsdb.ReplicaID(20+gone+round)))
		if round == 0 { // what is there may go and come again
			write(t, l, Update{Group: 1, Remove: true}, made(1, 6))
		}
		if s, known := l.State(1); !known || s.Replica != 6 {
			t.Errorf("round %d: group 1: %+v", round, s)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		var report Report
		if l, report = open(t, mem.CrashClone(0, 1), o); len(report.Suspect)+len(report.Corrupt) > 0 {
			t.Fatalf("round %d: %+v", round, report)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// A log says whose it is by its newest file of which the header is whole, and is there as
// long as one file is.
func TestOwnerOfALog(t *testing.T) {
	fs := vfs.NewMem(1)
	if there, err := Exists(fs, "log"); there || err != nil {
		t.Fatalf("a log that is not there: %v %v", there, err)
	}
	o := Options{ClusterID: [16]byte{1}, NodeUUID: [16]byte{2}}
	var names []string
	for range 2 { // each start begins a file
		l, _, err := Open(fs, "log", o)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := fs.List("log")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if strings.HasPrefix(name, livePrefix) {
			names = append(names, "log/"+name)
		}
	}
	for i := range names {
		cluster, node, err := Owner(fs, "log")
		if there, _ := Exists(fs, "log"); !there || err != nil || cluster != o.ClusterID || node != o.NodeUUID {
			t.Errorf("%d of %d files are damaged: %v %x %x %v", i, len(names), there, cluster, node, err)
		}
		if err := vfs.WriteFileAtomic(fs, names[len(names)-1-i], []byte("short")); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := Owner(fs, "log"); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("all are damaged: %v", err)
	}
}
