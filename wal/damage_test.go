package wal

import (
	"errors"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// flip changes one byte of a file.
func flip(t testing.TB, fs vfs.FS, file string, off int64, mask byte) {
	t.Helper()
	f, err := fs.OpenReadWrite(file)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, off)
	b[0] ^= mask
	_, err2 := f.WriteAt(b, off)
	if err := errors.Join(err, err2, f.SyncData(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func segmentFile(seq uint64) string { return path.Join(dir, fileName(livePrefix, seq, segmentExt)) }

// honest reports what Open concealed: a group that differs from the twin
// without being suspect, or anything lost without a report.
func honest(l *Log, r Report, w *twin) error {
	if len(r.Corrupt)+len(r.Suspect) == 0 {
		return w.differs(l)
	}
	sound := w.clone()
	for id := range w.groups {
		_, known := l.State(id)
		if !known || slices.Contains(r.Suspect, id) {
			delete(sound.groups, id)
		}
	}
	for _, id := range l.Groups() {
		if slices.Contains(r.Suspect, id) {
			l.table.drop(id, 0)
		}
	}
	sound.removed = nil
	return sound.differs(l)
}

// Every byte of a log of three batches is flipped in turn. The second batch is
// a mark with a commit index, the third an acknowledged vote. A flip goes
// unnoticed where nothing is stored; it may cost the last batch, which then
// looks like a write that the power cut; anywhere else it must be reported.
func TestEveryFlippedByte(t *testing.T) {
	mem := vfs.NewMem(1)
	l, _ := open(t, mem, small())
	w := newTwin()
	type extent struct{ from, to int64 } // of bytes that mean something
	extents := []extent{{0, pageSize}, {pageSize, pageSize + batchHeaderSize}}
	for i, us := range [][]Update{
		{create(1, 1), create(2, 2), {Group: 1, Entries: entries(11, 14, 2, 100)}, {Group: 2, Entries: entries(11, 13, 2, 900)}},
		{{Group: 1, HardState: &HardState{Term: 1, Commit: 12}}},
		{{Group: 2, HardState: &HardState{Term: 4, Vote: 9, Commit: 10}}},
	} {
		from := l.active().end
		if i == 1 { // is only remembered until the mark is written
			if err := l.Write(us, false); err != nil {
				t.Fatal(err)
			}
			us = nil
			w.apply([]Update{{Group: 1, HardState: &HardState{Term: 1, Commit: 12}}})
		}
		write(t, l, us...)
		w.apply(us)
		extents = append(extents, extent{from, from + batchHeaderSize + int64(le.Uint32(l.w.buf[12:]))})
	}
	before := w.clone()
	before.groups[2] = twinGroup{create(2, 2).Create.clone(), w.groups[2].entries}
	outcomes := map[string]int{}
	last := extents[len(extents)-1]
	stored := int64(0)
	for off := range l.active().end {
		meaning := slices.ContainsFunc(extents, func(e extent) bool { return e.from <= off && off < e.to })
		if meaning {
			stored++
		} else if off%8 != 0 {
			continue // of the padding every eighth byte will do
		}
		c := mem.CrashClone(0, 1)
		flip(t, c, segmentFile(1), off, 1<<(off%8))
		l, r := open(t, c, small())
		what := "corrupt"
		switch {
		case len(r.Corrupt) > 0:
			if err := honest(l, r, w); err != nil {
				t.Fatalf("byte %d: reported %v, but %v", off, r.Corrupt, err)
			}
		case w.differs(l) == nil:
			what = "same"
		case off >= last.from && before.differs(l) == nil && r.Torn != nil && r.TornCopy != "":
			what = "torn"
		default:
			t.Fatalf("byte %d: silently wrong: %v; report %+v", off, w.differs(l), r)
		}
		outcomes[what]++
		l.Close()
	}
	if torn := int(last.to - last.from); outcomes["torn"] != torn || outcomes["corrupt"] != int(stored)-torn || outcomes["same"] == 0 {
		t.Fatalf("outcomes %v", outcomes)
	}
}

func (s *GroupState) clone() GroupState { return *s }

// Random damage anywhere in a log of many segments is never concealed, nor are
// its consequences after a further restart.
func TestRandomDamageIsReported(t *testing.T) {
	for seed := range uint64(40) {
		mem := vfs.NewMem(seed)
		l, _ := open(t, mem, small())
		s, w := newScript(seed, 3000), newTwin()
		for range 60 {
			us := s.updates(w)
			write(t, l, us...)
			w.apply(us)
		}
		if err := l.Write(nil, true); err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(seed, 2))
		for range 1 + rng.IntN(3) {
			seg := l.segs[rng.IntN(len(l.segs))]
			f := segmentFile(seg.seq)
			flip(t, mem, f, rng.Int64N(seg.end), byte(1+rng.IntN(255)))
		}
		mem.Crash(0)
		for range 2 {
			l, r := open(t, mem, small())
			suspect := slices.Clone(r.Suspect)
			if err := honest(l, r, w); err != nil {
				t.Fatalf("seed %d: %v; report %+v", seed, err, r)
			}
			mem.Crash(0)
			l, r = open(t, mem, small())
			if !slices.Equal(suspect, r.Suspect) {
				t.Fatalf("seed %d: suspect %v, after a restart %v", seed, suspect, r.Suspect)
			}
			l.Close()
		}
	}
}

// damaged returns a log with a batch lost, in the only segment, after group 1
// and group 2 were created; group 3 is created behind it.
func damaged(t *testing.T) (*vfs.Mem, *Log, Report) {
	mem := vfs.NewMem(1)
	l, _ := open(t, mem, small())
	write(t, l, create(1, 1), create(2, 2))
	off := l.active().end
	write(t, l, Update{Group: 1, Entries: entries(11, 15, 2, 50)})
	write(t, l, create(3, 3), Update{Group: 3, Entries: entries(11, 13, 1, 10)})
	l.Close()
	flip(t, mem, segmentFile(1), off+100, 1)
	l, r := open(t, mem, small())
	if len(r.Corrupt) != 1 || r.Corrupt[0].File != segmentFile(1) || r.Corrupt[0].Offset != off || r.Corrupt[0].Len != pageSize {
		t.Fatalf("report %+v", r)
	}
	return mem, l, r
}

func TestSuspectGroupsStayOutOthersGoOn(t *testing.T) {
	mem, l, r := damaged(t)
	for range 2 {
		if !slices.Equal(r.Suspect, []dsdb.GroupID{1, 2}) {
			t.Fatalf("suspect %v", r.Suspect)
		}
		err := l.Write([]Update{{Group: 1, HardState: &HardState{Term: 7, Vote: 1}}}, true)
		if dsdb.KindOf(err) != dsdb.KindCorrupt {
			t.Fatalf("vote of a suspect group: %v", err)
		}
		l.Close()
		l, r = open(t, mem, small())
	}
	es := entries(13, 14, 2, 10)
	write(t, l, Update{Group: 3, Entries: es}, Update{Group: 1, Remove: true},
		Update{Group: 2, Reset: &GroupState{Replica: 2, HardState: HardState{Term: 5, Commit: 90}, Truncated: Position{90, 5}}})
	write(t, l, create(1, 8), Update{Group: 2, Entries: entries(91, 93, 5, 10)})
	l.Close()
	l, r = open(t, mem, small())
	if len(r.Suspect) > 0 {
		t.Fatalf("suspect %v", r.Suspect)
	}
	wantEntries(t, l, 3, append(entries(11, 13, 1, 10), es...))
	wantEntries(t, l, 2, entries(91, 93, 5, 10))
	l.Close()
}

// A checkpoint behind the damage proves the groups whose entries are all there.
func TestCheckpointProvesGroups(t *testing.T) {
	mem := vfs.NewMem(1)
	l, _ := open(t, mem, small())
	write(t, l, create(1, 1), create(2, 2), create(3, 3))
	write(t, l, Update{Group: 1, Entries: entries(11, 13, 2, 50)})
	off := l.active().end
	write(t, l, Update{Group: 2, Entries: entries(11, 13, 2, 50)}, Update{Group: 3, Entries: entries(11, 13, 2, 50)})
	first := l.active().seq
	for i := uint64(13); l.active().seq == first; i++ {
		write(t, l, Update{Group: 1, Entries: entries(i, i+1, 2, 6000)})
	}
	write(t, l, Update{Group: 3, Truncate: &Position{12, 2}})
	_, last := l.Bounds(1)
	mem.Crash(0)
	flip(t, mem, segmentFile(first), off+70, 1)
	l, r := open(t, mem, small())
	if !slices.Equal(r.Suspect, []dsdb.GroupID{2}) || len(r.Corrupt) != 1 {
		t.Fatalf("report %+v", r)
	}
	write(t, l, Update{Group: 1, Entries: entries(last+1, last+2, 2, 10)}, Update{Group: 3, Entries: entries(13, 14, 2, 10)})
	if _, err := l.Entries(2, 11, 13, 1<<20, nil); dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Fatalf("lost entries: %v", err)
	}
	l.Close()
}

// A lost batch replaced entries whose indexes are all there otherwise: the
// terms in the checkpoint tell that they are not the right ones.
func TestCheckpointRefutesReplacedEntries(t *testing.T) {
	mem := vfs.NewMem(1)
	l, _ := open(t, mem, small())
	write(t, l, create(1, 1), create(2, 2), Update{Group: 1, Entries: entries(11, 15, 2, 50)})
	off := l.active().end
	write(t, l, Update{Group: 1, Entries: entries(13, 15, 3, 50)})
	write(t, l, Update{Group: 1, Entries: entries(15, 16, 3, 50)})
	for i := uint64(11); len(l.segs) < 3; i++ {
		write(t, l, Update{Group: 2, Entries: entries(i, i+1, 2, 6000)})
	}
	mem.Crash(0)
	flip(t, mem, segmentFile(1), off+70, 1)
	l, r := open(t, mem, small())
	defer l.Close()
	if !slices.Equal(r.Suspect, []dsdb.GroupID{1}) {
		t.Fatalf("report %+v", r)
	}
}

// A removal lies in a lost batch: the tombstone in the checkpoint tells of it.
func TestLostRemovalIsNotUndone(t *testing.T) {
	mem := vfs.NewMem(1)
	l, _ := open(t, mem, small())
	write(t, l, create(1, 1), create(2, 2))
	off := l.active().end
	write(t, l, Update{Group: 1, Remove: true})
	for i := uint64(11); len(l.segs) < 3; i++ {
		write(t, l, Update{Group: 2, Entries: entries(i, i+1, 2, 6000)})
	}
	mem.Crash(0)
	flip(t, mem, segmentFile(1), off+70, 1)
	l, r := open(t, mem, small())
	defer l.Close()
	if len(r.Suspect) > 0 || len(r.Corrupt) != 1 || !slices.Equal(l.Groups(), []dsdb.GroupID{2}) || l.Removed(1) != 1 {
		t.Fatalf("groups %v, report %+v", l.Groups(), r)
	}
}

// A group was created in a lost batch, of which nothing else tells. That it may be so
// is reported by each start, whatever became of the other groups, until somebody has
// noted which they are.
func TestDamageIsReportedUntilItIsNoted(t *testing.T) {
	mem := vfs.NewMem(1)
	l, _ := open(t, mem, small())
	write(t, l, create(1, 1))
	off := l.active().end
	write(t, l, create(2, 2), Update{Group: 2, Entries: entries(11, 13, 2, 50)})
	write(t, l, Update{Group: 1, Entries: entries(11, 13, 2, 50)})
	mem.Crash(0)
	flip(t, mem, segmentFile(1), off+70, 1)
	for start := range 3 {
		var r Report
		if l, r = open(t, mem, small()); len(r.Corrupt) != 1 {
			t.Fatalf("start %d: report %+v", start, r)
		}
		if start == 0 {
			write(t, l, Update{Group: 1, Remove: true})
		}
		if err := l.Recycle(); err != nil {
			t.Fatal(err)
		}
		mem.Crash(0)
	}
	l, _ = open(t, mem, small())
	l.Noted()
	if err := l.Recycle(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	l, r := open(t, mem, small())
	defer l.Close()
	if len(r.Corrupt) > 0 || l.Stats().Segments > 2 {
		t.Errorf("when it is noted: %d segments, report %+v", l.Stats().Segments, r)
	}
}

func TestDamagedRecordIsReportedWhenRead(t *testing.T) {
	mem := vfs.NewMem(1)
	o := small()
	o.CacheBytes = -1
	l, _ := open(t, mem, o)
	defer l.Close()
	write(t, l, create(1, 1), Update{Group: 1, Entries: entries(11, 13, 2, 500)})
	at := int64(l.table.groups[1].locs[1].off)
	flip(t, mem, segmentFile(1), at+60, 1)
	if _, err := l.Entries(1, 11, 12, 1<<20, nil); err != nil {
		t.Fatal(err)
	}
	_, err := l.Entries(1, 11, 13, 1<<20, nil)
	if dsdb.KindOf(err) != dsdb.KindCorrupt || !strings.Contains(err.Error(), segmentFile(1)) {
		t.Fatalf("got %v", err)
	}
}

func TestForeignAndNewerLogsAreRefused(t *testing.T) {
	mem := vfs.NewMem(1)
	l, _ := open(t, mem, small())
	l.Close()
	o := small()
	o.NodeUUID[3] = 1
	if _, _, err := Open(mem, dir, o); dsdb.KindOf(err) != dsdb.KindInvalid {
		t.Errorf("log of another node: %v", err)
	}
	o = small()
	o.ClusterID[3] = 1
	if _, _, err := Open(mem, dir, o); dsdb.KindOf(err) != dsdb.KindInvalid {
		t.Errorf("log of another cluster: %v", err)
	}
	page := appendSegmentHeader(nil, segmentHeader{seq: 2})
	page[8] = formatVersion + 1
	le.PutUint32(page[12:], pageCRC(page))
	f, _ := mem.OpenReadWrite(segmentFile(1))
	f.WriteAt(page, 0)
	f.Close()
	if _, _, err := Open(mem, dir, small()); !errors.Is(err, errVersion) {
		t.Errorf("newer log: %v", err)
	}
}

func TestMissingSegmentIsReported(t *testing.T) {
	mem := vfs.NewMem(1)
	l, _ := open(t, mem, small())
	write(t, l, create(1, 1), create(2, 1))
	for i := uint64(11); len(l.segs) < 4; i++ {
		write(t, l, Update{Group: 1, Entries: entries(i, i+1, 2, 6000)})
	}
	l.Close()
	if err := mem.Remove(segmentFile(2)); err != nil {
		t.Fatal(err)
	}
	_, r := open(t, mem, small())
	if len(r.Corrupt) != 1 || !slices.Equal(r.Suspect, []dsdb.GroupID{1}) {
		t.Fatalf("report %+v", r)
	}
}

// A segment that is written again holds whole batches of its former life
// behind its end. They must not come back, wherever the power is cut.
func TestRecycledBatchesStayGone(t *testing.T) {
	mem := vfs.NewMem(1)
	l, _ := open(t, mem, small())
	w := newTwin()
	step := func(u Update) {
		write(t, l, u)
		w.apply([]Update{u})
	}
	step(create(1, 1))
	next := uint64(11)
	for range 60 {
		step(Update{Group: 1, Entries: entries(next, next+1, 2, 3000)})
		step(Update{Group: 1, Truncate: &Position{next, 2}})
		if next++; next%5 == 0 {
			if err := l.Recycle(); err != nil {
				t.Fatal(err)
			}
		}
		c := mem.CrashClone(100, next)
		l2, r := open(t, c, small())
		if err := w.differs(l2); err != nil || r.Torn != nil || len(r.Corrupt) > 0 {
			t.Fatalf("after entry %d: %v, report %+v", next-1, err, r)
		}
		l2.Close()
	}
	if s := l.Stats(); s.Segments > 4 || s.Spares == 0 {
		t.Fatalf("segments were not recycled: %+v", s)
	}
	l.Close()
}

func TestPinnersNameWhomToFlush(t *testing.T) {
	l, _ := open(t, vfs.NewMem(1), small())
	defer l.Close()
	write(t, l, create(1, 1), create(2, 2), create(3, 3))
	write(t, l, Update{Group: 3, Entries: entries(11, 12, 1, 10)}, Update{Group: 1, Entries: entries(11, 12, 1, 10)})
	for i := uint64(11); len(l.segs) < 5; i++ {
		write(t, l, Update{Group: 2, Entries: entries(i, i+1, 1, 5000)})
	}
	if got := l.Pinners(9); !slices.Equal(got, []dsdb.GroupID{1, 2, 3}) {
		t.Fatalf("pinners %v", got)
	}
	if got := l.Pinners(1); !slices.Equal(got, []dsdb.GroupID{1}) {
		t.Fatalf("pinners %v", got)
	}
	_, last := l.Bounds(2)
	if err := l.Write([]Update{{Group: 2, Truncate: &Position{last, 1}}, {Group: 1, Truncate: &Position{11, 1}}}, false); err != nil {
		t.Fatal(err)
	}
	if got := l.Pinners(9); !slices.Equal(got, []dsdb.GroupID{3}) {
		t.Fatalf("pinners %v", got)
	}
	if err := l.Write([]Update{{Group: 3, Truncate: &Position{11, 1}}}, false); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.UnflushedBytes != 0 {
		t.Fatalf("unflushed %d", s.UnflushedBytes)
	}
	l.Recycle()
	if s := l.Stats(); s.Segments < 5 {
		t.Fatal("segments were freed before the truncation was durable")
	}
	write(t, l)
	l.Recycle()
	if s := l.Stats(); s.Segments != 1 {
		t.Fatalf("%d segments left", s.Segments)
	}
}
