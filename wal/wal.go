// Package wal is the log of a node: one sequence of checksummed batches in
// segment files that all raft groups of the node share, so that one fdatasync
// makes the appends of many groups durable. It owns its folder and nothing
// else; it knows nothing of raft's rules, of what entries mean, nor of time.
//
// An Update goes: Write → checked against the group's state → records in a
// batch → one pwrite, one fdatasync → applied to the table of groups → visible
// to readers. Open replays the batches into the same table. The bytes on disk,
// and what recovery makes of damaged ones, are described in FORMAT.md.
package wal

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/internal/vfs"
)

// Limits on what is written.
const (
	MaxEntry = 8 << 20  // bytes of Entry.Data
	maxBatch = 16 << 20 // updates share a batch up to this size
	// MaxUpdate bounds the encoded size of one Update, which is never split. An
	// update above 16 MiB has a batch of its own.
	MaxUpdate = 64 << 20
)

// Errors of the reading methods.
var (
	ErrCompacted   = errors.New("wal: entry is truncated")
	ErrUnavailable = errors.New("wal: entry is not in the log")
)

var (
	errClosed   = errors.New("wal: log is closed")
	errReadOnly = errors.New("wal: log is open for reading only")
)

// Options configures a log.
type Options struct {
	SegmentSize int64 // bytes, rounded up to 4096; 0: 64 MiB
	MaxSpare    int   // segments kept for reuse; 0: 4
	CacheBytes  int64 // memory for the newest entries of each group; 0: 64 MiB, < 0: none
	ClusterID   [16]byte
	NodeUUID    [16]byte            // must be those the log was made with
	OnSync      func(time.Duration) // is told how long each fdatasync took; may be nil
}

func (o Options) withDefaults() Options {
	if o.SegmentSize == 0 {
		o.SegmentSize = 64 << 20
	}
	if o.MaxSpare == 0 {
		o.MaxSpare = 4
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	o.SegmentSize = roundUp(max(o.SegmentSize, 4*pageSize), pageSize)
	return o
}

// Log is an open log. Write and Close are called by one goroutine at a time;
// PrepareSpare and Recycle may run beside them, each on one goroutine; all
// other methods from anywhere.
type Log struct {
	fs  vfs.FS
	dir string
	o   Options
	w   writer // owned by the goroutine in Write or Close

	mu        sync.RWMutex // guards what follows; not held over I/O
	table     table
	segs      []*segment // ascending; batches go to the last
	spares    []spare
	nextSpare uint64
	lastBatch uint64 // all batches up to it are durable
	err       error  // what killed the log

	counters counters
}

// counters are updated by the writer and read by Stats.
type counters struct {
	batches, records, syncs, bytes, clock atomic.Uint64
}

// Stats describes the log. The first four count since Open.
type Stats struct {
	Batches, Records, Syncs uint64
	BytesWritten            uint64
	Segments, Spares        int
	DiskBytes               int64 // of segments and spares
	UnflushedBytes          int64 // records of entries that are not truncated
	CachedBytes             int64
	Groups                  int
	LastBatch               uint64
}

// Stats returns the present figures. Safe for concurrent use.
func (l *Log) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c := &l.counters
	s := Stats{Batches: c.batches.Load(), Records: c.records.Load(), Syncs: c.syncs.Load(), BytesWritten: c.bytes.Load(),
		Segments: len(l.segs), Spares: len(l.spares), UnflushedBytes: l.table.bytes,
		CachedBytes: l.table.cached, Groups: len(l.table.groups), LastBatch: l.lastBatch}
	for _, seg := range l.segs {
		s.DiskBytes += seg.size
	}
	for _, sp := range l.spares {
		s.DiskBytes += sp.size
	}
	return s
}

func (l *Log) count(records uint32, bytes int64) {
	l.counters.batches.Add(1)
	l.counters.records.Add(uint64(records))
	l.counters.bytes.Add(uint64(bytes))
}

// usable returns the error that killed the log, if one did.
func (l *Log) usable() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.err
}

// fail kills the log: after a failed write or sync nobody knows what the disk
// holds (Rebello et al., ATC 2020), so only a restart may go on from here.
func (l *Log) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	return l.err
}

// sync is fdatasync with its duration told to Options.OnSync.
func (l *Log) sync(f vfs.File) error {
	l.counters.syncs.Add(1)
	if mutant.SkipLogSync {
		return nil
	}
	if l.o.OnSync == nil {
		return f.SyncData()
	}
	start := time.Now()
	err := f.SyncData()
	l.o.OnSync(time.Since(start))
	return err
}

// active returns the segment that batches go to. Only the writer changes it.
func (l *Log) active() *segment {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.segs[len(l.segs)-1]
}

// Close appends a CleanShutdown batch and closes the files. It is idempotent;
// a log that has failed is closed without writing.
func (l *Log) Close() error {
	if err := l.usable(); errors.Is(err, errClosed) {
		return nil
	}
	var err error
	if l.usable() == nil {
		l.w.begin()
		l.w.addDirty(l)
		l.w.add(record{typ: recClean})
		if err = l.commit(); dsdb.KindOf(err) == dsdb.KindUnavailable {
			err = nil // no room for the mark; nothing else is missing
		}
	}
	l.mu.Lock()
	l.err = errClosed
	segs := l.segs
	l.mu.Unlock()
	for _, s := range segs {
		err = errors.Join(err, s.file.Close())
	}
	if err != nil {
		return fmt.Errorf("wal: close: %w", err)
	}
	return nil
}

// Groups returns the groups with a replica on this node, ascending. Safe for
// concurrent use, as are all methods below.
func (l *Log) Groups() []dsdb.GroupID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.table.ids()
}

// State returns the state of a group; ok is false if the node has no replica
// of it. Conf must not be changed.
func (l *Log) State(g dsdb.GroupID) (s GroupState, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if e := l.table.groups[g]; e != nil {
		return e.state, true
	}
	return GroupState{}, false
}

// Removed returns the highest id that no replica of the group to come may have: the
// last that has left this node, or was here before the one that is; of groups that
// left long ago, or were never here, perhaps a higher one. 0: there is none.
func (l *Log) Removed(g dsdb.GroupID) dsdb.ReplicaID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.table.left(g)
}

// Bounds returns the first and last index of the entries of g, of which first
// is one above where the log was truncated; last < first if there are none.
// For an unknown group it returns 1 and 0.
func (l *Log) Bounds(g dsdb.GroupID) (first, last uint64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if e := l.table.groups[g]; e != nil {
		return e.state.Truncated.Index + 1, e.last()
	}
	return 1, 0
}

// Pinners returns up to n groups with entries in the oldest segment that is
// still needed: once these are flushed and truncated it can be recycled.
func (l *Log) Pinners(n int) []dsdb.GroupID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	i := slices.IndexFunc(l.segs, func(s *segment) bool { return s.live > 0 })
	if i < 0 {
		return nil
	}
	var out []dsdb.GroupID
	for _, id := range l.table.ids() {
		if len(out) == n {
			break
		}
		if g := l.table.groups[id]; len(g.runs) > 0 && g.runs[0].seg == l.segs[i] {
			out = append(out, id)
		}
	}
	return out
}

// Marked returns the indexes of the entries of g whose Kind is not 0, ascending.
func (l *Log) Marked(g dsdb.GroupID) []uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	e := l.table.groups[g]
	if e == nil {
		return nil
	}
	var out []uint64
	for _, es := range e.stranded {
		out = append(out, es.marked...)
	}
	return append(out, e.marked...)
}

// Keep returns the lowest index from which on the entries of g up to and
// including index take at most maxBytes in the log.
func (l *Log) Keep(g dsdb.GroupID, index uint64, maxBytes int64) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	e := l.table.groups[g]
	if e == nil {
		return index + 1
	}
	from := min(index, e.last()) + 1
	for from > e.first {
		if maxBytes -= e.locs[from-1-e.first].bytes(); maxBytes < 0 {
			break
		}
		from--
	}
	return from
}
