package shard

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// Snapshot pins the files that hold the state at FlushedIndex. The first of
// them is a copy of the manifest. It does not wait for a flush that is running.
func (s *Shard) Snapshot() (dsdb.Manifest, func(), error) {
	s.mu.Lock()
	disk, files := s.disk, s.files
	s.pins++
	for _, f := range files {
		f.acquire()
	}
	s.mu.Unlock()
	b := disk.append(nil)
	pin := fileMeta{number: s.number(), size: int64(len(b)), crc: crc32.Checksum(b, castagnoli)}
	name := path.Join(s.o.Dir, pin.name(pinSuffix))
	if err := vfs.WriteFile(s.o.FS, name, b); err != nil {
		s.unpin(files)
		return dsdb.Manifest{}, nil, fmt.Errorf("shard %d: snapshot: %w", s.o.ID, err)
	}
	m := dsdb.Manifest{Index: disk.flushed.index, Term: disk.flushed.term}
	add := func(f fileMeta, suffix string) {
		m.Files = append(m.Files, dsdb.ManifestFile{Name: f.name(suffix), Size: f.size, CRC: f.crc})
	}
	add(pin, pinSuffix)
	for _, f := range disk.segments {
		add(f.fileMeta, segmentSuffix)
	}
	for _, f := range disk.indexes {
		add(f, indexSuffix)
	}
	return m, sync.OnceFunc(func() {
		s.remove([]string{name})
		s.unpin(files)
	}), nil
}

// unpin gives the files of a snapshot free.
func (s *Shard) unpin(files []*file) {
	for _, f := range files {
		f.release()
	}
	s.mu.Lock()
	s.pins--
	garbage := s.trashLocked(nil)
	s.mu.Unlock()
	s.remove(garbage)
}

// Install replaces the whole state by the files of m, which lie in dir, a
// folder of the same file system; the caller has checked their sums, and
// removes dir afterwards. After a crash the state is the old or the new one.
func (s *Shard) Install(m dsdb.Manifest, dir string) error {
	s.stopBackground()
	s.compactMu.Lock()
	defer s.compactMu.Unlock()
	s.diskMu.Lock()
	defer s.diskMu.Unlock()
	s.mu.Lock()
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.mu.Unlock()
	if err := s.install(m, dir); err != nil {
		return fmt.Errorf("shard %d: install: %w", s.o.ID, err)
	}
	return nil
}

func (s *Shard) install(m dsdb.Manifest, dir string) error {
	if len(m.Files) == 0 || path.Ext(m.Files[0].Name) != pinSuffix {
		return errors.New("snapshot without a manifest")
	}
	next, err := readManifest(s.o.FS, path.Join(dir, m.Files[0].Name))
	if err != nil {
		return err
	}
	if next.shard != s.o.ID || next.flushed != (position{m.Index, m.Term}) {
		return dsdb.Errorf(dsdb.KindCorrupt, "snapshot of shard %d at %v", next.shard, next.flushed)
	}
	written, err := s.adopt(next, dir)
	if err != nil {
		s.remove(written)
		return err
	}
	if err := s.swap(next, written); err != nil {
		return err
	}
	s.mu.Lock()
	files, counters := s.files, s.counters
	garbage := s.trashLocked(s.disk.indexes)
	s.reset(next)
	s.counters = counters
	s.wound.first.Store(nil)
	s.mu.Unlock()
	for _, f := range files {
		f.obsolete.Store(true)
		f.release()
	}
	s.remove(garbage)
	return nil
}

// adopt links the files that a manifest names from dir into the shard's
// folder under new numbers, which it notes in the manifest.
func (s *Shard) adopt(m *manifest, dir string) (written []string, err error) {
	link := func(f *fileMeta, suffix string) error {
		from := path.Join(dir, f.name(suffix))
		info, err := s.o.FS.Stat(from)
		if err != nil {
			return err
		}
		if info.Size() != f.size {
			return dsdb.Errorf(dsdb.KindCorrupt, "%s has %d bytes, not %d", from, info.Size(), f.size)
		}
		f.number = s.number()
		to := path.Join(s.o.Dir, f.name(suffix))
		if err := s.o.FS.Link(from, to); err != nil {
			return err
		}
		written = append(written, to)
		return nil
	}
	for i := range m.segments {
		if err := link(&m.segments[i].fileMeta, segmentSuffix); err != nil {
			return written, err
		}
	}
	for i := range m.indexes {
		if err := link(&m.indexes[i], indexSuffix); err != nil {
			return written, err
		}
	}
	return written, nil
}
