package shard

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// scenario touches every way in which the folder changes.
func scenario(m *machine, do func(name string, op func() error)) {
	flush := func() error { _, err := m.shard.Flush(); return err }
	for range 6 {
		m.write(randomPoints(m.r, &m.clock))
		m.again()
		do("flush", flush)
	}
	m.delete(Delete{Range: dsdb.TimeRange{Start: 5, End: m.clock / 2}})
	m.delete(Delete{DropSeries: true, Where: &dsdb.TagExpr{Op: dsdb.TagEqual, Key: "host", Value: "h1"}})
	do("flush", flush)
	do("compact", func() error { _, err := m.shard.Compact(false); return err })
	m.write(randomPoints(m.r, &m.clock))
	do("flush", flush)
	m.delete(Delete{Range: dsdb.TimeRange{Start: 0, End: m.clock / 3}})
	do("full compaction", func() error { _, err := m.shard.Compact(true); return err })
	m.write(randomPoints(m.r, &m.clock))
	m.again()
	do("snapshot", func() error {
		_, release, err := m.shard.Snapshot()
		if err == nil {
			release()
		}
		return err
	})
	do("flush", flush)
	do("full compaction", func() error { _, err := m.shard.Compact(true); return err })
}

// on returns a machine like m on another file system, with the shard opened there.
func (m *machine) on(fs vfs.FS, seed uint64) *machine {
	m.t.Helper()
	c := *m
	c.fs, c.r = fs, rand.New(rand.NewPCG(seed, 3))
	c.open()
	return &c
}

// The power fails before each operation on the disk: what is there afterwards,
// with the log applied from the flushed index on, is what was written.
func TestPowerCutAtEveryOperation(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		m := newMachine(t, seed)
		mem := m.fs.(*vfs.Mem)
		cuts := uint64(0)
		cut := func(op, path string) error {
			for _, unsynced := range []int{0, 50, 100} {
				cuts++
				c := m.on(mem.CrashClone(unsynced, cuts), cuts)
				compare(t, c.r, c.shard, c.twin)
				check(t, c.shard.Close())
			}
			return nil
		}
		armed := false
		m.fs = vfs.Faulty(mem, func(op, path string) error {
			if !armed || op == vfs.OpRead || op == vfs.OpMap || op == vfs.OpOpen {
				return nil
			}
			return cut(op, path)
		})
		check(t, m.shard.Close())
		m.open()
		scenario(m, func(name string, op func() error) {
			armed = true
			check(t, op())
			armed = false
		})
		cut("", "")
		if cuts < 100 {
			t.Fatalf("only %d power cuts", cuts)
		}
		check(t, m.shard.Close())
	}
}

// Each operation on the disk fails once: nothing is lost, the next attempt
// works, and a power cut between the two is no worse.
func TestErrorAtEveryOperation(t *testing.T) {
	t.Parallel()
	for fail := int64(1); ; fail++ {
		fault := []error{syscall.ENOSPC, syscall.EIO}[fail%2]
		m := newMachine(t, 11)
		mem := m.fs.(*vfs.Mem)
		n := int64(0)
		m.fs = vfs.Faulty(mem, func(op, path string) error {
			if op == vfs.OpRead || op == vfs.OpMap || op == vfs.OpOpen || op == vfs.OpRemove {
				return nil
			}
			if n++; n == fail {
				return fmt.Errorf("%s %s: %w", op, path, fault)
			}
			return nil
		})
		check(t, m.shard.Close())
		n = -1000 // opening is not meant
		m.open()
		n = 0
		scenario(m, func(name string, op func() error) {
			err := op()
			if err == nil {
				return
			}
			if !strings.Contains(err.Error(), fault.Error()) { // of some kinds only the text is left, see vfs.Replace
				t.Fatalf("%s: %v", name, err)
			}
			compare(t, m.r, m.shard, m.twin)
			c := m.on(mem.CrashClone(50, uint64(fail)), uint64(fail))
			compare(t, c.r, c.shard, c.twin)
			check(t, c.shard.Close())
			check(t, op())
		})
		compare(t, m.r, m.shard, m.twin)
		check(t, m.shard.Close())
		c := m.on(mem.CrashClone(0, 1), 1)
		compare(t, c.r, c.shard, c.twin)
		check(t, c.shard.Close())
		if n < fail {
			break // the scenario has no more operations
		}
	}
}

// A full disk leaves no half-written files behind, and once there is space the
// flush works.
func TestFullDisk(t *testing.T) {
	m := newMachine(t, 1)
	mem := m.fs.(*vfs.Mem)
	m.write(randomPoints(m.r, &m.clock))
	m.flush()
	before, err := mem.List(m.dir)
	check(t, err)
	m.write(randomPoints(m.r, &m.clock))
	mem.SetCapacity(1)
	if _, err := m.shard.Flush(); !vfs.NoSpace(err) {
		t.Fatalf("flush on a full disk: %v", err)
	}
	after, err := mem.List(m.dir)
	check(t, err)
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Fatalf("files before %v, after %v", before, after)
	}
	compare(t, m.r, m.shard, m.twin)
	mem.SetCapacity(0)
	m.flush()
	compare(t, m.r, m.shard, m.twin)
	check(t, m.shard.Close())
}

// A flipped bit or a cut in any file is reported, never answered around.
func TestFlippedBits(t *testing.T) {
	m := newMachine(t, 2)
	for range 3 {
		m.write(randomPoints(m.r, &m.clock))
		m.flush()
	}
	m.delete(Delete{Range: dsdb.TimeRange{Start: 0, End: 10}})
	m.write(randomPoints(m.r, &m.clock))
	m.flush()
	check(t, m.shard.Close())
	mem := m.fs.(*vfs.Mem)
	names, err := mem.List(m.dir)
	check(t, err)
	for _, name := range names {
		file := m.dir + "/" + name
		b, err := vfs.ReadFile(mem, file)
		check(t, err)
		for i := range 60 {
			at := m.r.IntN(len(b) * 8)
			flipped := append([]byte(nil), b...)
			flipped[at/8] ^= 1 << (at % 8)
			if i == 0 {
				flipped = b[:len(b)-1]
			}
			c := mem.CrashClone(100, uint64(i))
			check(t, vfs.WriteFile(c, file, flipped))
			if err := m.readAll(c); err != nil && dsdb.KindOf(err) != dsdb.KindCorrupt {
				t.Fatalf("%s with bit %d flipped: %v", name, at, err)
			} else if err == nil {
				t.Fatalf("%s: nobody noticed that bit %d of byte %d was flipped", name, at%8, at/8)
			}
		}
	}
}

// readAll opens the shard on a file system and reads everything, checksums included.
func (m *machine) readAll(fs vfs.FS) error {
	o := m.options()
	o.FS = fs
	s, err := Open(o)
	if err != nil {
		return err
	}
	defer s.Close()
	src, err := s.Source()
	if err != nil {
		return err
	}
	defer src.Close()
	for _, f := range src.files {
		r, err := f.open()
		if err != nil {
			return err
		}
		if err := r.Verify(); err != nil {
			return err
		}
	}
	return nil
}
