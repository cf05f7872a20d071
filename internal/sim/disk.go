package sim

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/dasudian/dsdb/internal/vfs"
)

// disk is the disk of one node, in memory. A process that is killed leaves
// what it wrote in the page cache; a power cut takes what was not synced. A
// sync can fail once: as on Linux the pages are then taken for clean, so that
// no later sync brings to the platter what this one did not.
type disk struct {
	*vfs.Mem
	world   *World
	dying   bool                // the process ends at its next sync
	gone    bool                // it has
	left    int                 // changes until the power fails, 0: it does not
	dead    bool                // the power has failed; the process does not know yet
	slow    time.Duration       // until then writes stall
	failing syncFault           // what the next sync does
	written map[string][]change // by the path they were opened with: unsynced writes, while a sync is to fail
	lost    []change            // writes that are in the page cache alone, for good
	moved   map[string]string   // what open files are called by now, by the path they were opened with
}

// syncFault is how a sync fails.
type syncFault uint8

const (
	syncWorks      syncFault = iota
	syncLies                 // an error, though everything is durable
	syncLoses                // an error, and the pages are taken for clean
	syncFaultKinds = 3
)

// change is a write and what was there before.
type change struct {
	path     string
	off      int64
	old, new []byte
}

// errSync is the error of a sync that was made to fail.
var errSync = fmt.Errorf("injected: %w", syscall.EIO)

// errPower is the error of all changes after the power has failed. Nobody sees
// what a process does about it.
var errPower = errors.New("injected: the power fails")

// failPower makes the power fail after some more changes to the disk.
func (d *disk) failPower(changes int) {
	if d.left == 0 {
		d.left = changes
	}
}

// change is called ahead of each change to the disk.
func (d *disk) change() error {
	if d.left > 0 {
		d.left--
		d.dead = d.left == 0
	}
	if d.dead || d.gone {
		return errPower
	}
	return nil
}

// sync is called ahead of each sync.
func (d *disk) sync() error {
	d.gone = d.gone || d.dying
	return d.change()
}

// revive is for the next process.
func (d *disk) revive() { d.dying, d.gone = false, false }

func newDisk(w *World) *disk {
	return &disk{Mem: vfs.NewMem(w.Rand.Uint64()), world: w, written: map[string][]change{}, moved: map[string]string{}}
}

// failNextSync makes the next sync of a file fail, once.
func (d *disk) failNextSync() {
	if d.failing == syncWorks {
		d.failing = 1 + syncFault(d.world.Rand.IntN(syncFaultKinds-1))
	}
}

// full leaves room for bytes more and no more; lift with SetCapacity(0).
func (d *disk) full(bytes int64) {
	d.SetCapacity(1 << 40)
	free, total, _ := d.Free("/") // a Mem knows it always
	d.SetCapacity(int64(total-free) + bytes)
}

// stall is how much longer than usual a write takes.
func (d *disk) stall() time.Duration {
	if d.world.Chance(0.002) {
		return d.world.Between(50*time.Millisecond, 500*time.Millisecond)
	}
	return max(0, d.slow-d.world.Now())
}

// repair ends all faults. What was lost stays so.
func (d *disk) repair() {
	d.SetCapacity(0)
	d.slow, d.failing, d.left = 0, syncWorks, 0
}

// powerCut loses unsynced bytes but for the given part of the writes.
func (d *disk) powerCut(unsyncedPercent int) {
	d.Crash(unsyncedPercent)
	for _, c := range d.lost {
		d.revert(c)
	}
	d.revive()
	d.lost, d.failing, d.left, d.dead = nil, syncWorks, 0, false
	clear(d.written)
	clear(d.moved)
}

// revert takes back a write that never reached the platter, sector by sector,
// unless something else has been written there since.
func (d *disk) revert(c change) {
	f, err := d.Mem.OpenReadWrite(c.path)
	if err != nil {
		return // the file has another purpose now
	}
	defer f.Close()
	now := make([]byte, len(c.new))
	if n, _ := f.ReadAt(now, c.off); n < len(now) || !bytes.Equal(now, c.new) {
		return
	}
	for at := 0; at < len(c.old); at += 512 {
		if d.world.Chance(0.8) {
			end := min(at+512, len(c.old))
			if _, err := f.WriteAt(c.old[at:end], c.off+int64(at)); err != nil {
				panic(fmt.Sprintf("BUG: take back a write: %v", err))
			}
		}
	}
	if err := f.SyncData(); err != nil {
		panic(fmt.Sprintf("BUG: sync what was taken back: %v", err))
	}
}

func (d *disk) wrap(path string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &diskFile{f, d, path}, nil
}

// Open opens a file for reading.
func (d *disk) Open(path string) (vfs.File, error) {
	f, err := d.Mem.Open(path)
	return d.wrap(path, f, err)
}

// OpenReadWrite opens a file.
func (d *disk) OpenReadWrite(path string) (vfs.File, error) {
	delete(d.moved, path)
	f, err := d.Mem.OpenReadWrite(path)
	return d.wrap(path, f, err)
}

// Create makes a file.
func (d *disk) Create(path string) (vfs.File, error) {
	if err := d.change(); err != nil {
		return nil, err
	}
	delete(d.moved, path)
	d.forget(path)
	f, err := d.Mem.Create(path)
	return d.wrap(path, f, err)
}

// forget forgets what was lost of a file that is another one from now on.
func (d *disk) forget(path string) {
	d.lost = slices.DeleteFunc(d.lost, func(c change) bool { return c.path == path })
}

// Rename renames a file, also for those who have it open.
func (d *disk) Rename(from, to string) error {
	if err := d.change(); err != nil {
		return err
	}
	if err := d.Mem.Rename(from, to); err != nil {
		return err
	}
	d.forget(to)
	d.moved[from] = to
	for opened, now := range d.moved { // any order: each is changed by itself
		if now == from {
			d.moved[opened] = to
		}
	}
	for i := range d.lost {
		if d.lost[i].path == from {
			d.lost[i].path = to
		}
	}
	return nil
}

// SyncDir makes names durable.
func (d *disk) SyncDir(dir string) error {
	if err := d.sync(); err != nil {
		return err
	}
	return d.Mem.SyncDir(dir)
}

// Remove removes a file.
func (d *disk) Remove(path string) error {
	if err := d.change(); err != nil {
		return err
	}
	d.forget(path)
	return d.Mem.Remove(path)
}

// RemoveAll removes a tree.
func (d *disk) RemoveAll(path string) error {
	if err := d.change(); err != nil {
		return err
	}
	return d.Mem.RemoveAll(path)
}

// MkdirAll makes a folder.
func (d *disk) MkdirAll(path string) error {
	if err := d.change(); err != nil {
		return err
	}
	return d.Mem.MkdirAll(path)
}

// Link gives a file another name.
func (d *disk) Link(from, to string) error {
	if err := d.change(); err != nil {
		return err
	}
	return d.Mem.Link(from, to)
}

type diskFile struct {
	vfs.File
	disk *disk
	path string
}

// WriteAt remembers what it overwrites while the next sync is to fail.
func (f *diskFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.disk.change(); err != nil {
		return 0, err
	}
	if f.disk.failing == syncLoses {
		old := make([]byte, len(p))
		_, _ = f.ReadAt(old, off) // behind the end there are zeros
		f.disk.written[f.path] = append(f.disk.written[f.path], change{f.path, off, old, bytes.Clone(p)})
	}
	return f.File.WriteAt(p, off)
}

// SyncData fails once if it is to.
func (f *diskFile) SyncData() error {
	d := f.disk
	if err := d.sync(); err != nil {
		return err
	}
	if err := f.File.SyncData(); err != nil || d.failing == syncWorks {
		return err
	}
	for _, c := range d.written[f.path] {
		if now, renamed := d.moved[c.path]; renamed {
			c.path = now
		}
		d.lost = append(d.lost, c)
	}
	clear(d.written)
	d.failing = syncWorks
	return errSync
}
