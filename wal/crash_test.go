package wal

import (
	"errors"
	"flag"
	"fmt"
	"syscall"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

var crashPoints = flag.Int("crash-points", 10_000, "power cuts that TestPowerCut makes, at least; a tenth with -short")

// mutates holds the operations that change what a power cut leaves.
var mutates = map[string]bool{vfs.OpCreate: true, vfs.OpWrite: true, vfs.OpSync: true, vfs.OpPreallocate: true, vfs.OpTruncate: true,
	vfs.OpRename: true, vfs.OpRemove: true, vfs.OpLink: true, vfs.OpMkdir: true, vfs.OpSyncDir: true}

// powerCuts cuts the power of a running script before every operation that
// changes the disk, three ways each, and checks what Open makes of the rest.
type powerCuts struct {
	mem     *vfs.Mem
	allowed []*twin // what may be found: each is durable, or may have become so
	cuts    int
	nested  bool // this is a cut within a recovery
	fail    error
}

func (p *powerCuts) rule(op, path string) error {
	if !mutates[op] || p.fail != nil {
		return nil
	}
	for _, percent := range []int{0, 50, 100} {
		p.cuts++
		mem := p.mem.CrashClone(percent, uint64(p.cuts))
		if err := p.check(mem); err != nil {
			p.fail = fmt.Errorf("cut %d, before %s %s, %d %% of what was not synced survives: %w", p.cuts, op, path, percent, err)
			return nil
		}
	}
	return nil
}

// check recovers the log of mem, compares it, uses it, cuts the power again
// and recovers it once more. Now and then power is cut during the recovery too.
func (p *powerCuts) check(mem *vfs.Mem) error {
	if !p.nested && p.cuts%17 == 0 {
		inner := &powerCuts{mem: mem.CrashClone(100, 1), allowed: p.allowed, nested: true}
		_, _, err := inner.recover(vfs.Faulty(inner.mem, inner.rule))
		p.cuts += inner.cuts
		if err = errors.Join(err, inner.fail); err != nil {
			return fmt.Errorf("power cut during recovery: %w", err)
		}
	}
	l, found, err := p.recover(mem)
	if err != nil {
		return err
	}
	s := newScript(uint64(p.cuts), 2000)
	s.replica = 1000
	us := s.updates(found)
	if err := l.Write(us, true); err != nil {
		return fmt.Errorf("write after recovery: %w", err)
	}
	found = found.clone()
	found.apply(us)
	mem.Crash(50)
	again := powerCuts{allowed: []*twin{found}}
	if l, _, err = again.recover(mem); err != nil {
		return fmt.Errorf("second recovery: %w", err)
	}
	return l.Close()
}

// recover opens the log and returns which of the allowed states it has.
func (p *powerCuts) recover(fs vfs.FS) (*Log, *twin, error) {
	l, r, err := Open(fs, dir, small())
	if err != nil {
		return nil, nil, err
	}
	if len(r.Corrupt) > 0 || len(r.Suspect) > 0 {
		return nil, nil, fmt.Errorf("a power cut was taken for damage: %+v", r)
	}
	for _, w := range p.allowed {
		if err = w.differs(l); err == nil {
			return l, w, nil
		}
	}
	return nil, nil, err
}

// run writes for a while, and tells cuts before each step what a power cut
// during it may leave.
func (p *powerCuts) run(seed uint64, steps int) error {
	fs := vfs.Faulty(p.mem, p.rule)
	durable, now := newTwin(), newTwin()
	p.allowed = []*twin{durable}
	l, _, err := Open(fs, dir, small())
	if err != nil {
		return err
	}
	s := newScript(seed, 2500)
	for range steps {
		switch {
		case s.rng.IntN(8) == 0:
			us := s.lazy(now)
			now = now.clone()
			now.apply(us)
			err = l.Write(us, false)
		case s.rng.IntN(6) == 0:
			err = l.Recycle()
		case s.rng.IntN(30) == 0:
			err = l.PrepareSpare()
		case s.rng.IntN(25) == 0:
			p.allowed = []*twin{durable, now}
			err = l.Close()
			durable = now
			p.allowed = []*twin{durable}
			if err == nil {
				l, _, err = Open(fs, dir, small())
			}
		default:
			us := s.updates(now)
			next := now.clone()
			next.apply(us)
			p.allowed = []*twin{durable, now, next}
			err = l.Write(us, true)
			durable, now = next, next
			p.allowed = []*twin{durable}
		}
		if err = errors.Join(err, p.fail); err != nil {
			return err
		}
	}
	return l.Close()
}

// Whenever the power is cut, every update that was acknowledged is there after
// it and none that was never written, and the log can be used.
func TestPowerCut(t *testing.T) {
	cuts, want := 0, *crashPoints
	if testing.Short() {
		want /= 10
	}
	for seed := uint64(1); cuts < want; seed++ {
		p := powerCuts{mem: vfs.NewMem(seed)}
		if err := p.run(seed, 8<<(seed%4)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		cuts += p.cuts
	}
	t.Logf("%d power cuts", cuts)
}

// A failed fdatasync kills the log; a restart that still reads the bytes from
// the page cache must make them durable before it builds on them.
func TestFailedSyncIsFatal(t *testing.T) {
	mem := vfs.NewMem(1)
	broken := false
	fs := vfs.Faulty(mem, func(op, path string) error {
		if broken && op == vfs.OpSync {
			return syscall.EIO
		}
		return nil
	})
	l, _ := open(t, fs, small())
	write(t, l, create(1, 1))
	broken = true
	us := []Update{{Group: 1, Entries: entries(11, 13, 2, 100)}}
	first := l.Write(us, true)
	if !errors.Is(first, syscall.EIO) {
		t.Fatalf("write: %v", first)
	}
	broken = false
	if err := l.Write([]Update{{Group: 1, HardState: &HardState{Term: 9}}}, true); !errors.Is(err, syscall.EIO) {
		t.Fatalf("write on a dead log: %v", err)
	}
	if err := l.Recycle(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("recycle on a dead log: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	l, _ = open(t, mem, small())
	wantEntries(t, l, 1, entries(11, 13, 2, 100))
	mem.Crash(0)
	l, _ = open(t, mem, small())
	wantEntries(t, l, 1, entries(11, 13, 2, 100))
	l.Close()
}

// A full disk refuses writes and loses nothing; votes still get through by the
// spare that is kept for them; it goes on when there is space again.
func TestFullDisk(t *testing.T) {
	mem := vfs.NewMem(1)
	o := small()
	l, _ := open(t, mem, o)
	if err := l.PrepareSpare(); err != nil {
		t.Fatal(err)
	}
	mem.SetCapacity(220 << 10)
	write(t, l, create(1, 1))
	var want []Entry
	next := uint64(11)
	var err error
	for err == nil {
		es := entries(next, next+1, 2, 7000)
		if err = l.Write([]Update{{Group: 1, Entries: es}}, true); err == nil {
			want, next = append(want, es...), next+1
		}
	}
	if dsdb.KindOf(err) != dsdb.KindUnavailable || !vfs.NoSpace(err) {
		t.Fatalf("write on a full disk: %v", err)
	}
	for term := uint64(2); term < 8; term++ {
		write(t, l, Update{Group: 1, HardState: &HardState{Term: term, Vote: 1, Commit: 10}})
	}
	l.Close()
	l, r := open(t, mem, o)
	if len(r.Corrupt)+len(r.Suspect) > 0 {
		t.Fatalf("report %+v", r)
	}
	wantEntries(t, l, 1, want)
	if err := l.Write([]Update{{Group: 1, Entries: entries(next, next+1, 8, 20000)}}, true); dsdb.KindOf(err) != dsdb.KindUnavailable {
		t.Fatalf("write on a full disk after restart: %v", err)
	}
	mem.SetCapacity(0)
	es := entries(next, next+1, 8, 20000)
	write(t, l, Update{Group: 1, Entries: es})
	wantEntries(t, l, 1, append(want, es...))
	if s, _ := l.State(1); s.HardState.Term != 7 {
		t.Fatalf("state %+v", s)
	}
	l.Close()
}

// When a disk is full points are refused, and what is Vital is not, also after power
// cuts of a log that has given a spare away: nothing of either is lost. With room again points are taken.
func TestVitalOnAFullDisk(t *testing.T) {
	mem := vfs.NewMem(3)
	o := Options{SegmentSize: 256 << 10}
	l, _ := open(t, mem, o)
	write(t, l, create(1, 1), create(2, 2))
	if err := l.PrepareSpare(); err != nil {
		t.Fatal(err)
	}
	mem.SetCapacity(1 << 40)
	free, total, _ := mem.Free("/")
	mem.SetCapacity(int64(total - free))
	var points, vital []Entry
	for {
		es := entries(uint64(len(points))+11, uint64(len(points))+12, 1, 7000)
		if err := l.Write([]Update{{Group: 1, Entries: es}}, true); err != nil {
			break
		}
		points = append(points, es...)
	}
	for range 8 {
		es := entries(uint64(len(vital))+11, uint64(len(vital))+12, 1, 5000)
		write(t, l, Update{Group: 2, Entries: es, Vital: true})
		vital = append(vital, es...)
		more := entries(uint64(len(points))+11, uint64(len(points))+12, 1, 7000)
		if err := l.Write([]Update{{Group: 2, HardState: &HardState{Term: 1, Commit: 10}}, {Group: 1, Entries: more}}, true); dsdb.KindOf(err) != dsdb.KindUnavailable {
			t.Fatalf("points on a full disk: %v", err)
		}
		if _, err := l.Yield(); err != nil {
			t.Fatal(err)
		}
		mem.Crash(50)
		var r Report
		if l, r = open(t, mem, o); len(r.Corrupt)+len(r.Suspect) > 0 {
			t.Fatalf("report %+v", r)
		}
		_ = l.PrepareSpare()
		wantEntries(t, l, 1, points)
		wantEntries(t, l, 2, vital)
	}
	mem.SetCapacity(0)
	write(t, l, Update{Group: 1, Entries: entries(uint64(len(points))+11, uint64(len(points))+12, 1, 7000)})
	l.Close()
}
