package shard

import (
	"context"
	"fmt"
	"hash/crc32"
	"path"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/dedupe"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/segment"
	"github.com/dasudian/dsdb/series"
)

// frozen is what a flush writes: a memtable that takes no more rows, and the
// index, as of some position of the log. A flush that fails leaves it to the next.
type frozen struct {
	at      position
	mem     *memtable
	tables  []tableSnap // of mem, with the deletes up to at
	state   *series.State
	window  *dedupe.Window
	deletes deleteLog
}

// Flush makes everything that is applied so far durable: the memtable as a
// segment file, what is new in the index as an index file, both named in a new
// manifest. Apply goes on meanwhile. It reports whether FlushedIndex rose. If
// it fails nothing is lost, and it may be called again.
func (s *Shard) Flush() (bool, error) {
	s.diskMu.Lock()
	defer s.diskMu.Unlock()
	s.rest.index.RLock()
	defer s.rest.index.RUnlock()
	if err := s.load(); err != nil {
		return false, err
	}
	fr := s.freeze()
	if fr == nil {
		return false, nil
	}
	if err := s.flush(fr); err != nil {
		return false, fmt.Errorf("shard %d: flush: %w", s.o.ID, err)
	}
	s.doubt()
	return true, nil
}

// freeze returns what is to be flushed, nil if there is nothing.
func (s *Shard) freeze() *frozen {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen != nil {
		return s.frozen
	}
	if s.closed || s.applied.index <= s.disk.flushed.index {
		return nil
	}
	s.frozen = &frozen{at: s.applied, mem: s.active, tables: s.active.snap(), state: s.index.State(), window: s.window.Clone(), deletes: s.deletes}
	for i := range s.frozen.tables {
		s.frozen.tables[i].dropDeletesAfter(s.applied.index)
		if mutant.FlushLosesLastRow && s.frozen.tables[i].rows > 0 {
			s.frozen.tables[i].rows--
		}
	}
	s.active = &memtable{}
	return s.frozen
}

// dropDeletesAfter leaves out the deletes after an index: one may be half applied.
func (t *tableSnap) dropDeletesAfter(index uint64) {
	for n := len(t.deletes); n > 0 && t.deletes[n-1].tomb.index > index; n-- {
		t.deletes = t.deletes[:n-1]
	}
}

// flush writes the files of fr and the manifest. diskMu is held.
func (s *Shard) flush(fr *frozen) error {
	next := *s.disk
	next.flushed, next.series, next.window, next.deletes = fr.at, uint64(fr.state.Len()), fr.window, fr.deletes
	if mutant.WindowNotInManifest {
		next.window = &dedupe.Window{}
	}
	added, err := s.flushRows(&next, fr)
	if err != nil {
		return err
	}
	written, err := s.writeIndex(&next, fr.state, s.saved)
	if err != nil {
		s.remove(added)
		return err
	}
	next.tombstones = s.tombstonesUpTo(fr.at.index, next.segments)
	if err := s.swap(&next, append(written, added...)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disk, s.frozen, s.saved = &next, nil, fr.state
	s.generation++
	if len(added) > 0 {
		s.files = append(slices.Clip(s.files), s.newFile(next.segments[len(next.segments)-1]))
	}
	s.dropTombstonesLocked()
	return nil
}

// flushRows writes the rows of fr, if there are any, and names the file in
// next. It returns the path of the file.
func (s *Shard) flushRows(next *manifest, fr *frozen) (added []string, err error) {
	if fr.mem.rows == 0 {
		return nil, nil
	}
	meta := segmentMeta{minIndex: s.disk.flushed.index + 1, maxIndex: fr.at.index}
	meta.number = s.number()
	if err := s.writeSegment(&meta, fr.writeTo); err != nil {
		return nil, err
	}
	name := path.Join(s.o.Dir, meta.name(segmentSuffix))
	if meta.rows == 0 {
		s.remove([]string{name})
		return nil, nil
	}
	next.segments = append(slices.Clip(next.segments), meta)
	return []string{name}, nil
}

// swap puts a manifest in force on disk; the caller then makes it the shard's.
// If that is certain to have failed it removes the files that only next names.
// diskMu is held.
func (s *Shard) swap(next *manifest, written []string) error {
	next.next = s.nextFile.Load()
	if err := prepareManifest(s.o.FS, s.o.Dir, next); err != nil {
		s.remove(written)
		return err
	}
	return commitManifest(s.o.FS, s.o.Dir)
}

// remove removes files that no manifest ever named.
func (s *Shard) remove(paths []string) {
	for _, p := range paths {
		if err := s.o.FS.Remove(p); err != nil { // the next Open removes it
			s.o.Logger.Warn("file was not removed", "shard", uint64(s.o.ID), "file", p, "err", err)
		}
	}
}

// number gives a new file its number.
func (s *Shard) number() uint64 { return s.nextFile.Add(1) - 1 }

// writeSegment makes a segment file, synced, of what fill adds, and completes
// its meta. If it fails the file is removed.
func (s *Shard) writeSegment(meta *segmentMeta, fill func(*segment.Writer) error) error {
	name := path.Join(s.o.Dir, meta.name(segmentSuffix))
	f, err := s.o.FS.Create(name)
	if err != nil {
		return err
	}
	h := segment.Header{Shard: s.o.ID, Level: meta.level, MinIndex: meta.minIndex, MaxIndex: meta.maxIndex, Seq: meta.number}
	w := segment.NewWriter(f, h, segment.Options{Entropy: meta.level > 0})
	var info segment.Info
	if err = fill(w); err == nil {
		info, err = w.Finish()
	}
	if err == nil && !mutant.FlushWithoutSync {
		err = f.SyncData()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		s.remove([]string{name})
		return err
	}
	meta.size, meta.crc, meta.rows = info.Size, info.CRC, info.Rows
	meta.minTime, meta.maxTime = info.MinTime, info.MaxTime
	return nil
}

// writeIndex makes an index file, synced, of what state has beyond old, and
// names it in next; if that is nothing it makes none. It returns its path.
func (s *Shard) writeIndex(next *manifest, state, old *series.State) (written []string, err error) {
	if state.Same(old) {
		return nil, nil
	}
	b := state.AppendFile(nil, old)
	meta := fileMeta{number: s.number(), size: int64(len(b)), crc: crc32.Checksum(b, castagnoli)}
	name := path.Join(s.o.Dir, meta.name(indexSuffix))
	if err := vfs.WriteFile(s.o.FS, name, b); err != nil {
		return nil, err
	}
	next.indexes = append(slices.Clip(next.indexes), meta)
	return []string{name}, nil
}

// tombstonesUpTo returns the tombstones up to an index that concern a segment.
func (s *Shard) tombstonesUpTo(index uint64, segments []segmentMeta) (out []tombstone) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, t := range s.tombstones {
		if t.index <= index && len(segments) > 0 && segments[0].maxIndex < t.index {
			out = append(out, t)
		}
	}
	return out
}

// dropTombstonesLocked forgets the tombstones that concern no file and no
// frozen memtable. s.mu is held.
func (s *Shard) dropTombstonesLocked() {
	s.tombstones = slices.DeleteFunc(slices.Clone(s.tombstones), func(t tombstone) bool {
		return (len(s.files) == 0 || s.files[0].maxIndex >= t.index) && (s.frozen == nil || s.frozen.at.index >= t.index)
	})
}

// writeTo adds the rows that are neither deleted nor of dropped series.
func (fr *frozen) writeTo(w *segment.Writer) error {
	for i := range fr.tables {
		t := &fr.tables[i]
		if t.table == nil || t.rows == 0 {
			continue
		}
		ids := t.table.seriesIDs(fr.state)
		fields := t.table.fields()
		if len(ids) == 0 {
			continue
		}
		rows := t.capture(fields, ids)
		rows.groups = t.table.group(t.rows, ids)
		c := newCursor(context.Background(), dsdb.Scan{Series: ids, Range: dsdb.AllTime}, len(fields))
		c.sources = append(c.sources, rows)
		if err := copyRows(w, uint32(i)+1, fields, c, 0); err != nil {
			return err
		}
	}
	return nil
}

// seriesIDs returns the series of the table that state has, ascending.
func (mt *memTable) seriesIDs(state *series.State) (ids []dsdb.SeriesID) {
	for row := uint32(0); row < mt.rows; {
		chunk, first := chunkOf(row)
		c := mt.chunks[chunk]
		n := min(mt.rows-first, uint32(len(c.series)))
		for i, id := range c.series[:n] {
			if c.prev[i] == 0 && state.Has(id) {
				ids = append(ids, id)
			}
		}
		row = first + n
	}
	slices.Sort(ids)
	return ids
}

// fields returns the fields of the table's columns, ascending.
func (mt *memTable) fields() (fields []uint32) {
	for _, c := range mt.columns {
		fields = append(fields, c.field)
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}
