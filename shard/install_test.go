package shard

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// lagging returns a replica that has applied the first part of the log of m and
// flushed less, and a snapshot of m in a folder beside it. The replica has its
// disk to itself.
func lagging(t *testing.T, m *machine) (o *machine, snap dsdb.Manifest, incoming string) {
	t.Helper()
	for i := range 10 {
		m.write(randomPoints(m.r, &m.clock))
		if i%3 == 0 {
			m.delete(randomDelete(m.r))
		}
		if i%2 == 0 {
			m.again()
			m.flush()
		}
	}
	m.flush()
	o = newMachine(t, 1)
	for i, e := range m.log[:len(m.log)/2] {
		_, err := o.shard.Apply([]dsdb.Entry{e})
		check(t, err)
		if i == len(m.log)/5 || i == len(m.log)/3 {
			_, err = o.shard.Flush()
			check(t, err)
		}
	}
	snap, release, err := m.shard.Snapshot()
	check(t, err)
	incoming = path.Join(o.dir, "incoming-1")
	check(t, o.fs.MkdirAll(incoming))
	for _, f := range snap.Files {
		b, err := vfs.ReadFile(m.fs, path.Join(m.dir, f.Name))
		check(t, err)
		check(t, vfs.WriteFile(o.fs, path.Join(incoming, f.Name), b))
	}
	check(t, o.fs.SyncDir(incoming))
	release()
	o.log, o.said, o.twin = m.log, m.said, m.twin
	return o, snap, incoming
}

// The power fails before each operation of an Install: afterwards there is the
// old state or the new one, and with the log from there on all that was written.
func TestPowerCutDuringInstall(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		m := newMachine(t, seed)
		o, snap, incoming := lagging(t, m)
		mem := o.fs.(*vfs.Mem)
		before := o.shard.FlushedIndex()
		check(t, o.shard.Close())
		cuts, after := uint64(0), map[uint64]int{}
		cut := func() {
			for _, unsynced := range []int{0, 50, 100} {
				cuts++
				disk := mem.CrashClone(unsynced, cuts)
				options := o.options()
				options.FS = disk
				s, err := Open(options)
				check(t, err)
				after[s.FlushedIndex()]++
				check(t, s.Close())
				c := o.on(disk, cuts)
				compare(t, c.r, c.shard, c.twin)
				check(t, c.shard.Close())
			}
		}
		armed := false
		o.fs = vfs.Faulty(mem, func(op, path string) error {
			if armed && op != vfs.OpRead && op != vfs.OpMap && op != vfs.OpOpen {
				cut()
			}
			return nil
		})
		o.open()
		armed = true
		check(t, o.shard.Install(snap, incoming))
		armed = false
		cut()
		if o.shard.FlushedIndex() != snap.Index || len(after) != 2 || after[before] < 9 || after[snap.Index] < 3 {
			t.Errorf("the replica was at index %d, the snapshot at %d; after power cuts it was at %v", before, snap.Index, after)
		}
		o.replay()
		compare(t, o.r, o.shard, o.twin)
		check(t, o.shard.Close())
		check(t, m.shard.Close())
	}
}

// Each operation of an Install fails once: the replica goes on with what it
// had, the next attempt works, and a power cut in between is no worse.
func TestErrorDuringInstall(t *testing.T) {
	t.Parallel()
	fails := int64(1)
	for done := false; !done; fails++ {
		m := newMachine(t, 4)
		o, snap, incoming := lagging(t, m)
		mem := o.fs.(*vfs.Mem)
		check(t, o.shard.Close())
		n := int64(-1000)
		o.fs = vfs.Faulty(mem, func(op, path string) error {
			if op == vfs.OpRemove {
				return nil
			}
			if n++; n == fails {
				return fmt.Errorf("%s %s: %w", op, path, syscall.EIO)
			}
			return nil
		})
		o.open()
		n = 0
		err := o.shard.Install(snap, incoming)
		n = fails // what follows does not fail
		if done = err == nil; !done {
			if !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
			compare(t, o.r, o.shard, o.twin) // it had applied all of the log
			c := o.on(mem.CrashClone(50, uint64(fails)), uint64(fails))
			compare(t, c.r, c.shard, c.twin)
			check(t, c.shard.Close())
			check(t, o.shard.Install(snap, incoming))
		}
		compare(t, o.r, o.shard, o.twin)
		check(t, o.shard.Close())
		check(t, m.shard.Close())
	}
	if fails < 8 {
		t.Errorf("an install has only %d operations", fails-1)
	}
}

// A disk that is full when the manifest has its new name, or is about to: nobody
// is told that the replica is as it was, as that may not be so after a crash.
func TestFullDiskAtTheEndOfAnInstall(t *testing.T) {
	for _, at := range []string{vfs.OpRename, vfs.OpSyncDir} {
		m := newMachine(t, 4)
		o, snap, incoming := lagging(t, m)
		mem := o.fs.(*vfs.Mem)
		check(t, o.shard.Close())
		renames, full := 0, false
		o.fs = vfs.Faulty(mem, func(op, _ string) error {
			if op == vfs.OpRename {
				renames++
			}
			if full && op == at && renames > 0 {
				return syscall.ENOSPC
			}
			return nil
		})
		o.open()
		renames, full = 0, true
		if err := o.shard.Install(snap, incoming); err == nil || vfs.NoSpace(err) {
			t.Errorf("%s: %v", at, err)
		}
		check(t, o.shard.Close())
		check(t, m.shard.Close())
	}
}

// Who reads a replica while a snapshot is installed goes on reading what it
// began with; when the last one is done the files are gone.
func TestInstallWhileSourcesAreOpen(t *testing.T) {
	m := newMachine(t, 2)
	o, snap, incoming := lagging(t, m)
	scan := dsdb.Scan{Measurement: "cpu", Fields: []string{"f", "i"}, Range: dsdb.AllTime}
	src, err := o.shard.Source()
	check(t, err)
	want := dump(t, src, scan, nil)
	begun, err := src.Scan(t.Context(), dsdb.Scan{Measurement: "cpu", Series: src.view.Match("cpu", nil), Fields: scan.Fields, Range: dsdb.AllTime})
	check(t, err)
	_, err = begun.Next()
	check(t, err)
	check(t, o.shard.Install(snap, incoming))
	check(t, o.fs.RemoveAll(incoming))
	for {
		tile, err := begun.Next()
		check(t, err)
		if tile == nil {
			break
		}
		check(t, tile.LoadTimes())
		check(t, tile.Load(0))
	}
	if got := dump(t, src, scan, nil); !slices.Equal(got, want) {
		t.Errorf("after the install\n%s\nbefore\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	compare(t, o.r, o.shard, o.twin)
	check(t, src.Close())
	names, err := o.fs.List(o.dir)
	check(t, err)
	if len(names) != len(snap.Files) { // MANIFEST in place of the pin
		t.Errorf("files %q, those of the snapshot are %v", names, snap.Files)
	}
	check(t, o.shard.Close())
	check(t, m.shard.Close())
}

// Two snapshots in quick succession, the second while the first is still read
// by others, and a snapshot of the replica that was just installed.
func TestSnapshotsInARow(t *testing.T) {
	m := newMachine(t, 6)
	o, snap, incoming := lagging(t, m)
	check(t, o.shard.Install(snap, incoming))
	src, err := o.shard.Source()
	check(t, err)
	of, release, err := o.shard.Snapshot()
	check(t, err)
	if of.Index != snap.Index || of.Term != snap.Term || len(of.Files) != len(snap.Files) {
		t.Errorf("snapshot of the copy %+v, of the original %+v", of, snap)
	}
	check(t, o.shard.Install(snap, incoming))
	for _, f := range of.Files {
		if b, err := vfs.ReadFile(o.fs, path.Join(o.dir, f.Name)); err != nil || int64(len(b)) != f.Size {
			t.Errorf("%s, which a snapshot holds: %d bytes, %v", f.Name, len(b), err)
		}
	}
	release()
	check(t, src.Close())
	compare(t, o.r, o.shard, o.twin)
	names, err := o.fs.List(o.dir)
	check(t, err)
	if len(names) != len(snap.Files)+1 { // and the incoming folder
		t.Errorf("files %q", names)
	}
	check(t, o.shard.Close())
	check(t, m.shard.Close())
}
