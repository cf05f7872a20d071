// Package shard is the state machine of one shard: one partition of one time
// group. Committed log entries go into a memtable by Apply; Flush writes the
// memtable into immutable segment files and names them in a manifest, from
// where on the log may forget them; Compact merges files. A Source is a
// snapshot of memtables and files for queries; its cursors merge them tile by
// tile, and hand out a file's tiles untouched where nothing overlaps them.
//
// Of two values of the same series, time and field the later applied wins:
// files hold contiguous ranges of raft indexes and rank by them, memtables rank
// above files. Hints (hint.go) add only what is missing. Deletes are entries
// like writes. A second copy of an entry, which a retry put into the log, is
// known by its proposal id and has no effect.
//
// The package owns the shard's folder. It knows neither raft nor the query
// language. FORMAT.md describes its files.
package shard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/dedupe"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/series"
)

// Options says what shard to open and where it is.
type Options struct {
	FS     vfs.FS
	Dir    string // the shard's own folder; it is made if need be
	ID     dsdb.ShardID
	Range  dsdb.TimeRange // of its time group: rows outside are rejected
	Logger *slog.Logger   // nil: nothing is logged
	// MergeBytes is how much memory the rows of one series may take when files are
	// merged; those of longer ones stay as they are. 0: 512 MiB.
	MergeBytes int
}

// Shard is one replica's copy of a shard. Apply and Install are called by one
// goroutine at a time; everything else is safe for concurrent use.
type Shard struct {
	o        Options
	writer   *writer // of the goroutine that applies, while it does
	nextFile atomic.Uint64
	last     lastRows
	wound    wound
	rest     rest

	compactMu sync.Mutex // held while files are merged; before diskMu
	diskMu    sync.Mutex // held while a manifest is written; before loadMu
	loadMu    sync.Mutex // held while the index is loaded; before mu

	mu sync.RWMutex // guards all below; never held while files are read or written
	state
	background
	generation uint64 // counts the changes of what the files and tombstones say
	pinned
}

// background is the work that Close and Install stop.
type background struct {
	ctx    context.Context    // of compactions and of the checksum
	cancel context.CancelFunc // stops them
	sum    checksum
}

// pinned is what snapshots hold on to.
type pinned struct {
	pins    int      // snapshots that were not released
	garbage []string // files to be removed when the last of them is
}

// state is what a shard holds. Apply, Flush, Compact and Install change it.
type state struct {
	index      *series.Index // nil: to be loaded from disk.indexes
	active     *memtable     // takes what is applied
	frozen     *frozen       // what is being flushed; nil: nothing
	disk       *manifest     // in force; changed with diskMu held
	saved      *series.State // what the files of disk hold of the index
	files      []*file       // the segments of disk
	tombstones []tombstone   // by index; concern frozen and files
	applied    position
	window     *dedupe.Window // the proposals among what is applied; Apply alone changes it
	deletes    deleteLog      // those among what is applied; Apply alone changes it
	counters   counters
	closed     bool
}

// position is an index of the log and the term of the entry there.
type position struct{ index, term uint64 }

// counters count what Apply did since the shard was opened.
type counters struct{ rows, rejected, deletes uint64 }

// Open opens a shard, which is new if its folder has no manifest. It reads the
// manifest only; the index and the segments are opened at first touch. What a
// crash left half written is removed. It reports KindCorrupt if the manifest is
// wrong or a file that it names is missing or has another size.
func Open(o Options) (*Shard, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, err
	}
	m, err := readManifest(o.FS, path.Join(o.Dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		m, err = &manifest{shard: o.ID, next: 1, window: &dedupe.Window{}}, nil
	}
	if err == nil && m.shard != o.ID {
		err = dsdb.Errorf(dsdb.KindCorrupt, "%s is of shard %d", o.Dir, m.shard)
	}
	if err == nil {
		err = sweep(o, m)
	}
	if err != nil {
		return nil, fmt.Errorf("shard %d: %w", o.ID, err)
	}
	s := &Shard{o: o}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.reset(m)
	return s, nil
}

// reset makes m the state of the shard. Nobody uses the old one, or mu is held.
func (s *Shard) reset(m *manifest) {
	s.nextFile.Store(max(s.nextFile.Load(), m.next))
	s.generation++
	s.state = state{active: &memtable{}, disk: m, tombstones: m.tombstones, applied: m.flushed, window: m.window.Clone(), deletes: m.deletes}
	for _, meta := range m.segments {
		s.files = append(s.files, s.newFile(meta))
	}
}

// sweep checks that the files that m names are there and removes other files of ours.
func sweep(o Options, m *manifest) error {
	want := map[string]int64{}
	for _, f := range m.segments {
		want[f.name(segmentSuffix)] = f.size
	}
	for _, f := range m.indexes {
		want[f.name(indexSuffix)] = f.size
	}
	names, err := o.FS.List(o.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		full := path.Join(o.Dir, name)
		size, named := want[name]
		switch ext := path.Ext(name); {
		case named:
			info, err := o.FS.Stat(full)
			if err != nil {
				return err
			}
			if info.Size() != size {
				return dsdb.Errorf(dsdb.KindCorrupt, "%s has %d bytes, not %d", full, info.Size(), size)
			}
			delete(want, name)
		case ext == segmentSuffix || ext == indexSuffix || ext == pinSuffix || name == manifestTemp:
			if err := o.FS.Remove(full); err != nil {
				return err
			}
			o.Logger.Info("removed a file that no manifest names", "shard", uint64(o.ID), "file", full)
		}
	}
	for name := range want {
		return dsdb.Errorf(dsdb.KindCorrupt, "%s is missing", path.Join(o.Dir, name))
	}
	return nil
}

// load loads the index if it is not there.
func (s *Shard) load() error {
	s.mu.RLock()
	loaded := s.index != nil
	s.mu.RUnlock()
	if loaded {
		return nil
	}
	s.loadMu.Lock()
	defer s.loadMu.Unlock()
	for {
		s.mu.RLock()
		loaded, disk := s.index != nil, s.disk
		s.mu.RUnlock()
		if loaded {
			return nil
		}
		x, err := loadIndex(s.o.FS, s.o.Dir, disk)
		s.mu.Lock()
		current := s.disk == disk // else a snapshot was installed meanwhile
		if current && err == nil {
			s.index, s.saved = x, x.State()
		}
		s.mu.Unlock()
		if current && err != nil {
			return fmt.Errorf("shard %d: %w", s.o.ID, s.note(err))
		}
	}
}

func loadIndex(fs vfs.FS, dir string, m *manifest) (*series.Index, error) {
	x := series.New()
	for _, f := range m.indexes {
		name := path.Join(dir, f.name(indexSuffix))
		b, err := vfs.ReadFile(fs, name)
		if err != nil {
			return nil, err
		}
		if err := x.Load(b); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return x, nil
}

// FlushedIndex is the highest index whose effects, and those of all before it,
// are durable without the log.
func (s *Shard) FlushedIndex() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.disk.flushed.index
}

// FlushedIndexIn is the FlushedIndex of the shard whose folder is dir, which is not
// opened; 0 if there is none.
func FlushedIndexIn(sys vfs.FS, dir string) (uint64, error) {
	m, err := readManifest(sys, path.Join(dir, manifestName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return m.flushed.index, nil
}

// Close releases the shard. What is not flushed is left to the log. Sources
// that are still open keep the files they read.
func (s *Shard) Close() error {
	s.stopBackground()
	s.compactMu.Lock()
	defer s.compactMu.Unlock()
	s.diskMu.Lock()
	defer s.diskMu.Unlock()
	s.mu.Lock()
	files := s.files
	s.files, s.closed = nil, true
	s.wound.closed.Store(true)
	s.mu.Unlock()
	s.sum.running.Wait()
	for _, f := range files {
		f.release()
	}
	return nil
}

// stopBackground makes the compaction and the checksum that are running fail.
func (s *Shard) stopBackground() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.cancel()
}

// Remove removes a shard that is closed, with all its files.
func Remove(fs vfs.FS, dir string) error { return fs.RemoveAll(dir) }
