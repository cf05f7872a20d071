package shard

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"slices"
	"sync/atomic"

	"github.com/dasudian/dsdb"
)

// wound remembers the first error that showed that files of the shard are not
// what was written.
type wound struct {
	first  atomic.Pointer[error]
	closed atomic.Bool // the files may be gone by right
}

// note remembers err if it is about damage, and returns it.
func (s *Shard) note(err error) error {
	if err == nil || dsdb.KindOf(err) != dsdb.KindCorrupt && !errors.Is(err, fs.ErrNotExist) || s.wound.closed.Load() {
		return err
	}
	if s.wound.first.CompareAndSwap(nil, &err) {
		s.o.Logger.Error("a file of a shard is damaged", "shard", uint64(s.o.ID), "err", err)
	}
	return err
}

// Damage returns the first error since the shard was opened that showed that
// one of its files is not what was written, or is gone: a query, a compaction,
// or an entry that asked for a checksum has met it. Nil if none has. What the
// shard answers without an error is right all the same.
func (s *Shard) Damage() error {
	if err := s.wound.first.Load(); err != nil {
		return fmt.Errorf("shard %d: %w", s.o.ID, *err)
	}
	return nil
}

// doubt has the pages of the segments verified again when they are read next.
func (s *Shard) doubt() {
	s.mu.RLock()
	files := s.files
	s.mu.RUnlock()
	for _, f := range files { // one that is closed meanwhile is none the worse for it
		f.mu.Lock()
		if f.reader != nil {
			f.reader.Doubt()
		}
		f.mu.Unlock()
	}
}

// CheckFiles reads all files that the manifest names and compares their
// checksums: damage where nobody looks is found too. It does nothing once the
// shard is closed.
func (s *Shard) CheckFiles(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.pins++
	files, indexes := s.files, s.disk.indexes
	for _, f := range files {
		f.acquire()
	}
	s.mu.Unlock()
	defer s.unpin(files)
	buf := make([]byte, 1<<20)
	for _, f := range files {
		if err := s.checkFile(ctx, f.fileMeta, segmentSuffix, buf); err != nil && !f.obsolete.Load() {
			return s.note(err)
		}
	}
	for _, f := range indexes {
		if err := s.checkFile(ctx, f, indexSuffix, buf); err != nil {
			s.mu.RLock()
			named := slices.Contains(s.disk.indexes, f)
			s.mu.RUnlock()
			if named {
				return s.note(err)
			}
		}
	}
	return nil
}

// checkFile reads one file.
func (s *Shard) checkFile(ctx context.Context, m fileMeta, suffix string, buf []byte) error {
	name := path.Join(s.o.Dir, m.name(suffix))
	f, err := s.o.FS.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := uint32(0)
	for off := int64(0); off < m.size; off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(int64(len(buf)), m.size-off)
		if got, err := f.ReadAt(buf[:n], off); int64(got) < n {
			return dsdb.Errorf(dsdb.KindCorrupt, "%s: %d of %d bytes at %d: %w", name, got, n, off, err)
		}
		sum = crc32.Update(sum, castagnoli, buf[:n])
	}
	if sum != m.crc {
		return dsdb.Errorf(dsdb.KindCorrupt, "%s: checksum %08x, not %08x", name, sum, m.crc)
	}
	return nil
}
