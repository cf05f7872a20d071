package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/segment"
	"github.com/dasudian/dsdb/series"
)

const (
	compactWidth = 4  // adjacent files of one level that are merged into one of the next
	fullLevel    = 16 // of the one file that a full compaction leaves

	defaultMergeBytes = 512 << 20
)

// compaction is what a merge reads: a run of adjacent files, the tombstones
// that are durable, and the series that are alive, all as of one manifest.
type compaction struct {
	ctx   context.Context
	disk  *manifest
	saved *series.State
	files []*file
	full  bool
	limit int         // bytes of the rows of one series
	meta  segmentMeta // of the merged file
}

// Compact merges files whose index ranges are adjacent: the oldest four of the
// lowest level that has four, or, if full, all files of the shard and of its
// index. Rows that a delete hides, and those of dropped series, are left out.
// Files that have so much of one series together that it does not fit into
// Options.MergeBytes stay apart. It reports whether there was anything to merge.
// Apply, Flush and queries go on meanwhile; Close and Install stop it.
func (s *Shard) Compact(full bool) (bool, error) {
	s.compactMu.Lock()
	defer s.compactMu.Unlock()
	c, err := s.planCompaction(full)
	if c == nil {
		return false, err
	}
	defer func() {
		for _, f := range c.files {
			f.release()
		}
	}()
	err = s.compact(c)
	if errors.Is(err, errLongSeries) {
		s.setApart(c.files)
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("shard %d: compact: %w", s.o.ID, err)
	}
	return true, nil
}

// planCompaction returns what is to be merged, nil if nothing is.
func (s *Shard) planCompaction(full bool) (*compaction, error) {
	s.rest.index.RLock()
	defer s.rest.index.RUnlock()
	if err := s.load(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	full = full && !slices.ContainsFunc(s.files, func(f *file) bool { return f.apart })
	c := &compaction{ctx: s.ctx, disk: s.disk, saved: s.saved, full: full, limit: cmp.Or(s.o.MergeBytes, defaultMergeBytes)}
	from, to := pickFiles(s.files)
	if full {
		from, to = 0, len(s.files)
		merged := to == 0 || to == 1 && s.files[0].level == fullLevel
		if s.closed || merged && len(s.disk.indexes) <= 1 && len(s.disk.tombstones) == 0 {
			return nil, nil
		}
	} else if s.closed || from == to {
		return nil, nil
	}
	c.files = slices.Clone(s.files[from:to])
	for _, f := range c.files {
		f.acquire()
	}
	if len(c.files) > 0 {
		c.meta = segmentMeta{minIndex: c.files[0].minIndex, maxIndex: c.files[len(c.files)-1].maxIndex, level: c.files[0].level + 1}
	}
	if to == len(s.files) {
		c.meta.maxIndex = c.disk.flushed.index // no later file has entries up to there
	}
	if full {
		c.meta.level = fullLevel
	}
	return c, nil
}

// setApart has files be merged no more, with each other or with others.
func (s *Shard) setApart(files []*file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range files {
		f.apart = true
	}
	s.o.Logger.Info("files with a long series are not merged", "shard", uint64(s.o.ID), "files", len(files))
}

// pickFiles returns the oldest run of compactWidth adjacent files of the
// lowest level that has one.
func pickFiles(files []*file) (from, to int) {
	best := fullLevel
	for i := range files {
		n := 0
		for i+n < len(files) && n < compactWidth && files[i+n].level == files[i].level && !files[i+n].apart {
			n++
		}
		if n == compactWidth && files[i].level < best {
			from, to, best = i, i+n, files[i].level
		}
	}
	return from, to
}

// compact writes the merged files and the manifest that names them.
func (s *Shard) compact(c *compaction) error {
	var written []string
	if len(c.files) > 0 {
		c.meta.number = s.number()
		if err := s.writeSegment(&c.meta, c.writeTo); err != nil {
			return err
		}
		name := path.Join(s.o.Dir, c.meta.name(segmentSuffix))
		if c.meta.rows == 0 {
			s.remove([]string{name})
		} else {
			written = append(written, name)
		}
		if err := s.checkSources(c); err != nil {
			s.remove(written)
			return err
		}
	}
	merged := &manifest{}
	if c.full {
		names, err := s.writeIndex(merged, c.saved, new(series.State))
		if err != nil {
			s.remove(written)
			return err
		}
		written = append(written, names...)
	}
	return s.replace(c, merged.indexes, written)
}

// checkSources compares the checksums of the files that were merged. A reader checks
// each page once: one that was damaged since would be in the merged file as if it
// were what was written.
func (s *Shard) checkSources(c *compaction) error {
	buf := make([]byte, 1<<20)
	for _, f := range c.files {
		if err := s.checkFile(c.ctx, f.fileMeta, segmentSuffix, buf); err != nil {
			return f.note(err)
		}
	}
	return nil
}

// replace swaps the manifest for one with the merged files in place of those
// that were merged. Flushes may have added others since.
func (s *Shard) replace(c *compaction, indexes []fileMeta, written []string) error {
	s.diskMu.Lock()
	defer s.diskMu.Unlock()
	next := *s.disk
	at := 0
	if len(c.files) > 0 {
		at = slices.IndexFunc(next.segments, func(m segmentMeta) bool { return m.number == c.files[0].number })
	}
	var merged []segmentMeta
	if c.meta.rows > 0 {
		merged = append(merged, c.meta)
	}
	next.segments = slices.Concat(next.segments[:at], merged, next.segments[at+len(c.files):])
	var old []fileMeta
	if c.full {
		old = next.indexes[:len(c.disk.indexes)]
		next.indexes = slices.Concat(indexes, next.indexes[len(old):])
	}
	next.tombstones = s.tombstonesUpTo(next.flushed.index, next.segments)
	if mutant.TombstoneResurrect {
		next.tombstones = nil
	}
	if err := s.swap(&next, written); err != nil {
		return err
	}
	s.mu.Lock()
	s.disk = &next
	files := slices.Clone(s.files[:at])
	if c.meta.rows > 0 {
		files = append(files, s.newFile(c.meta))
	}
	s.files = append(files, s.files[at+len(c.files):]...)
	s.dropTombstonesLocked()
	garbage := s.trashLocked(old)
	s.mu.Unlock()
	for _, f := range c.files {
		f.obsolete.Store(true)
		f.release()
	}
	s.remove(garbage)
	return nil
}

// trashLocked takes index files that the manifest no longer names, and returns
// what is to be removed now: nothing while a snapshot may need them. s.mu is held.
func (s *Shard) trashLocked(old []fileMeta) (remove []string) {
	for _, f := range old {
		s.garbage = append(s.garbage, path.Join(s.o.Dir, f.name(indexSuffix)))
	}
	if s.pins > 0 {
		return nil
	}
	remove, s.garbage = s.garbage, nil
	return remove
}

// writeTo adds the rows of the files, measurement by measurement.
func (c *compaction) writeTo(w *segment.Writer) error {
	var measurements []uint32
	for _, f := range c.files {
		r, err := f.open()
		if err != nil {
			return err
		}
		measurements = append(measurements, r.Measurements()...)
	}
	slices.Sort(measurements)
	for _, m := range slices.Compact(measurements) {
		if err := c.writeMeasurement(w, m); err != nil {
			return err
		}
	}
	return nil
}

func (c *compaction) writeMeasurement(w *segment.Writer, m uint32) error {
	var ids []dsdb.SeriesID
	var fields []uint32
	for _, f := range c.files {
		ids = f.reader.Series(m, ids)
		fields = append(fields, f.reader.Fields(m, nil)...)
	}
	slices.Sort(ids)
	slices.Sort(fields)
	ids, fields = slices.Compact(ids), slices.Compact(fields)
	ids = slices.DeleteFunc(ids, func(id dsdb.SeriesID) bool { return !c.saved.Has(id) })
	cur := newCursor(c.ctx, dsdb.Scan{Series: ids, Range: dsdb.AllTime}, len(fields))
	for i, f := range c.files {
		if mutant.CompactionDropsOverlap && i > 0 && f.minTime <= c.files[i-1].maxTime {
			continue
		}
		cur.sources = append(cur.sources, newFileScan(f, m, fields, concerning(c.disk.tombstones, f)))
	}
	return copyRows(w, m, fields, cur, c.limit)
}
