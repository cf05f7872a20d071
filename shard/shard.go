// Package shard is the state machine of one shard: one partition of one time
// group. Committed log entries go into a memtable by Apply; Flush writes the
// memtable into immutable segment files and names them in a manifest, from
// where on the log may forget them; Compact merges files. A Source is a
// snapshot of memtables and files for queries; its cursors merge them tile by
// tile, and hand out a file's tiles untouched where nothing overlaps them.
//
// Of two values of the same series, time and field the later applied wins:
// files hold contiguous ranges of raft indexes and rank by them, memtables rank
// above files. Deletes are entries like writes.
//
// The package owns the shard's folder. It knows neither raft nor the query
// language. FORMAT.md describes its files.
package shard

import (
	"log/slog"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/series"
)

// Options says what shard to open and where it is.
type Options struct {
	FS     vfs.FS
	Dir    string // the shard's own folder; it is made if need be
	ID     dsdb.ShardID
	Range  dsdb.TimeRange // of its time group: rows outside are rejected
	Logger *slog.Logger
}

// Shard is one replica's copy of a shard. Apply and Install are called by one
// goroutine at a time; everything else is safe for concurrent use.
type Shard struct {
	o      Options
	writer writer // of the goroutine that applies

	mu         sync.RWMutex // guards all below; never held over I/O
	index      *series.Index
	active     *memtable   // takes what is applied
	frozen     *memtable   // is being flushed; nil: none
	tombstones []tombstone // by index; concern frozen and the files
	applied    position
	flushed    position
	counters   counters
}

// position is an index of the log and the term of the entry there.
type position struct{ index, term uint64 }

// counters count what Apply did since the shard was opened.
type counters struct{ rows, rejected, deletes uint64 }

// Open opens a shard, which is new if its folder has no manifest.
func Open(o Options) (*Shard, error) {
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, err
	}
	return &Shard{o: o, index: series.New(), active: &memtable{}}, nil
}

func (s *Shard) load() error { return nil }

// FlushedIndex is the highest index whose effects, and those of all before it,
// are durable without the log.
func (s *Shard) FlushedIndex() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.flushed.index
}

// Close releases the shard.
func (s *Shard) Close() error { return nil }
