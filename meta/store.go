package meta

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

const (
	snapshotPrefix = "catalogue-"
	snapshotSuffix = ".snap"
)

// Store is the state machine of the meta group: the current catalogue and the
// file that holds an earlier version of it. Apply and Install are called by
// one goroutine at a time; all else is safe for concurrent use.
type Store struct {
	fs  vfs.FS
	dir string

	data    atomic.Pointer[Data]
	flushed atomic.Uint64 // saved.Index, so that FlushedIndex never waits for the disk

	mu      sync.Mutex    // guards changed
	changed chan struct{} // closed when data is replaced

	files sync.Mutex // guards what follows; held while a snapshot is written
	saved dsdb.Manifest
	pins  map[string]int // snapshot files that must stay, and for how many
}

// Open loads the newest snapshot in dir, which is made if it is not there; with
// none the catalogue is empty at index 0. A snapshot that is damaged is
// reported with KindCorrupt, file and offset.
func Open(fs vfs.FS, dir string) (*Store, error) {
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("meta: open: %w", err)
	}
	names, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("meta: open: %w", err)
	}
	if err := removeLeftovers(fs, dir, names); err != nil {
		return nil, fmt.Errorf("meta: open: %w", err)
	}
	s := &Store{fs: fs, dir: dir, changed: make(chan struct{}), pins: make(map[string]int)}
	s.data.Store(NewData())
	snapshots := slices.DeleteFunc(names, func(n string) bool { return !isSnapshot(n) })
	if len(snapshots) == 0 {
		return s, nil
	}
	newest := snapshots[len(snapshots)-1]
	b, err := vfs.ReadFile(fs, path.Join(dir, newest))
	if err != nil {
		return nil, fmt.Errorf("meta: open: %w", err)
	}
	d, err := DecodeSnapshot(path.Join(dir, newest), b)
	if err != nil {
		return nil, err
	}
	if snapshotName(d.Index) != newest {
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "%s: offset %d: index %d does not match the name", path.Join(dir, newest), snapshotHeader, d.Index)
	}
	s.data.Store(d)
	s.setSaved(manifest(d, b))
	for _, name := range snapshots[:len(snapshots)-1] {
		if err := fs.Remove(path.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("meta: open: %w", err)
		}
	}
	return s, nil
}

func snapshotName(index uint64) string {
	return fmt.Sprintf("%s%020d%s", snapshotPrefix, index, snapshotSuffix)
}

func isSnapshot(name string) bool {
	return strings.HasPrefix(name, snapshotPrefix) && strings.HasSuffix(name, snapshotSuffix)
}

// manifest describes the snapshot file of d, whose bytes are b.
func manifest(d *Data, b []byte) dsdb.Manifest {
	return dsdb.Manifest{Index: d.Index, Term: d.Term, Files: []dsdb.ManifestFile{
		{Name: snapshotName(d.Index), Size: int64(len(b)), CRC: checksum(b)},
	}}
}

// View returns the current catalogue.
func (s *Store) View() *Data { return s.data.Load() }

// Watch returns a channel that is closed when the catalogue changes next. Take
// the channel first and then the View, so that no change is missed.
func (s *Store) Watch() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Wait returns when the catalogue includes the log entry at index, or with the
// error of ctx.
func (s *Store) Wait(ctx context.Context, index uint64) error {
	for {
		changed := s.Watch()
		if s.View().Index >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// publish makes d the current catalogue and wakes who waits for a change.
func (s *Store) publish(d *Data) {
	s.data.Store(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Apply applies committed entries in index order and returns one verdict for
// each. Readers see all of them or none, but for those before one that only a
// newer program knows, which is an error of dsdb.ErrNewer.
func (s *Store) Apply(entries []dsdb.Entry) ([]dsdb.Verdict, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	d := s.View()
	verdicts := make([]dsdb.Verdict, len(entries))
	for i, e := range entries {
		if e.Index <= d.Index {
			panic(fmt.Sprintf("BUG: meta: entry %d applied at index %d", e.Index, d.Index))
		}
		if e.Data != nil {
			var err error
			if d, verdicts[i], err = d.applyEntry(e.Data); err != nil {
				s.publish(d)
				return nil, fmt.Errorf("catalogue: entry %d: %w", e.Index, err)
			}
		}
		next := *d
		next.Index, next.Term = e.Index, e.Term
		d = &next
	}
	s.publish(d)
	return verdicts, nil
}

// FlushedIndex returns the index of the catalogue in the snapshot file, 0 if there is none.
func (s *Store) FlushedIndex() uint64 { return s.flushed.Load() }

// setSaved records which snapshot file is the current one. s.files is held.
func (s *Store) setSaved(m dsdb.Manifest) {
	s.saved = m
	s.flushed.Store(m.Index)
}

// Flush writes the current catalogue to a new snapshot file and removes the
// one before. It does nothing if the catalogue has not moved since.
func (s *Store) Flush() error {
	s.files.Lock()
	defer s.files.Unlock()
	d := s.View()
	if d.Index == s.saved.Index {
		return nil
	}
	return s.save(d, d.AppendSnapshot(nil))
}

// save writes b, the snapshot of d. s.files is held.
func (s *Store) save(d *Data, b []byte) error {
	if err := vfs.WriteFileAtomic(s.fs, path.Join(s.dir, snapshotName(d.Index)), b); err != nil {
		return fmt.Errorf("meta: write snapshot: %w", err)
	}
	old := s.saved
	s.setSaved(manifest(d, b))
	return s.removeUnused(old)
}

// removeUnused removes the file of a snapshot that is neither the current one
// nor pinned. s.files is held.
func (s *Store) removeUnused(m dsdb.Manifest) error {
	for _, f := range m.Files {
		if s.pins[f.Name] > 0 || f.Name == s.saved.Files[0].Name {
			continue
		}
		if err := s.fs.Remove(path.Join(s.dir, f.Name)); err != nil {
			return fmt.Errorf("meta: remove old snapshot: %w", err)
		}
	}
	return nil
}

// Snapshot pins the snapshot file until release is called; release is
// idempotent. Without a file yet it writes one.
func (s *Store) Snapshot() (dsdb.Manifest, func(), error) {
	s.files.Lock()
	defer s.files.Unlock()
	if len(s.saved.Files) == 0 {
		d := s.View()
		if err := s.save(d, d.AppendSnapshot(nil)); err != nil {
			return dsdb.Manifest{}, nil, err
		}
	}
	m := s.saved
	m.Files = slices.Clone(m.Files)
	s.pins[m.Files[0].Name]++
	return m, sync.OnceFunc(func() { s.unpin(m) }), nil
}

func (s *Store) unpin(m dsdb.Manifest) {
	s.files.Lock()
	defer s.files.Unlock()
	name := m.Files[0].Name
	if s.pins[name]--; s.pins[name] == 0 {
		delete(s.pins, name)
	}
	// A file that stays behind is removed by the next Open.
	_ = s.removeUnused(m)
}

// Install replaces the catalogue by the snapshot m whose file lies in from. It
// reports KindCorrupt if the file is not the one that m describes.
func (s *Store) Install(m dsdb.Manifest, from string) error {
	if len(m.Files) != 1 {
		return dsdb.Errorf(dsdb.KindCorrupt, "meta: install: %d files, not one", len(m.Files))
	}
	name := path.Join(from, m.Files[0].Name)
	b, err := vfs.ReadFile(s.fs, name)
	if err != nil {
		return fmt.Errorf("meta: install: %w", err)
	}
	if int64(len(b)) != m.Files[0].Size || checksum(b) != m.Files[0].CRC {
		return dsdb.Errorf(dsdb.KindCorrupt, "%s: offset 0: size or checksum differ from the manifest", name)
	}
	d, err := DecodeSnapshot(name, b)
	if err != nil {
		return err
	}
	if d.Index != m.Index || d.Term != m.Term {
		return dsdb.Errorf(dsdb.KindCorrupt, "%s: offset %d: entry %d of term %d, not %d of term %d", name, snapshotHeader, d.Index, d.Term, m.Index, m.Term)
	}
	s.files.Lock()
	defer s.files.Unlock()
	if d.Index < s.saved.Index {
		return fmt.Errorf("meta: install: snapshot at %d is older than the catalogue's own at %d", d.Index, s.saved.Index)
	}
	if err := s.save(d, b); err != nil {
		return err
	}
	s.publish(d)
	return nil
}
